//! What each request means. Holds the tables; owns no socket, task or clock.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::Mutex;
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    Connect, Connected, Copies, DropReason, Granted, Overflow, Publish, Published, Refusal, Reply, Request,
    RetainHandling, Settlement, Subscribe, SubscriptionId, Tag, Will, WillFate,
};
use tidegate_protocol::topic::{Topic, TopicFilter};
use tracing::{debug, info};

use crate::auth::{Authenticator, Peer};
use crate::metrics::Metrics;
use crate::outbox::queue::Pushed;
use crate::outbox::{Outbox, Shared};
use crate::registry::Registry;
use crate::retained::{Cursor, Retained};
use crate::router::{Member, Router};
use crate::subscription::{self, Entry, Subscription};
use crate::topic_rules::TopicRules;

/// What the operator's file says about requests.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `mqtt.max_qos`: what subscriptions are granted at most.
    pub qos_max: QoS,
    /// `mqtt.max_subscriptions`, for every protocol.
    pub subscriptions_max: usize,
    /// `queue.overflow_qos0`.
    pub overflow_qos0: Overflow,
    /// `queue.overflow_qos1`.
    pub overflow_qos1: Overflow,
    /// `mqtt.retain`.
    pub retain: bool,
    /// `mqtt.retained_batch`.
    pub retained_batch: usize,
}

/// The broker's core.
pub struct Broker {
    rules: Rules,
    topic_rules: TopicRules,
    authenticator: Authenticator,
    router: Router<Arc<Subscription>>,
    retained: Retained,
    registry: Registry,
    /// Held over (retained, match, push), so that two publishers cannot be seen in two orders (DESIGN §5.7).
    /// Topics share a lock by hash, which costs waiting at worst.
    orders: Box<[Mutex<()>]>,
    order_hasher: RandomState,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

/// What the broker knows of one connection. Owned by its task, so that no lock is needed.
#[derive(Debug)]
pub struct Client {
    outbox: Arc<Outbox>,
    is_connected: bool,
    /// The name that it chose.
    id: Option<Arc<str>>,
    will: Option<Box<Will>>,
    /// Sorted by id.
    subscriptions: Vec<(SubscriptionId, TopicFilter, Arc<Subscription>)>,
    /// Absent at a client that waits for nothing: most of them, most of the time.
    unfinished: Option<Box<Unfinished>>,
    next_tag: u64,
}

/// What is under way for a client.
#[derive(Debug, Default)]
struct Unfinished {
    /// Retained messages that are still to be sent, one cursor per new subscription.
    cursors: Vec<(Arc<Subscription>, Cursor)>,
    /// Packet ids of QoS 2 publishes before their PUBREL.
    received: Vec<u16>,
}

/// What publishing has left to do: outboxes to flush, once each, and those that publishers should wait for.
#[derive(Debug, Default)]
pub struct Batch {
    /// To flush when everything is pushed.
    pub touched: Vec<Arc<Outbox>>,
    /// Over their mark.
    pub slow: Vec<Arc<Outbox>>,
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For intervals.
    pub instant: Instant,
    /// For people: milliseconds since 1970.
    pub unix_ms: u64,
}

const ORDER_LOCKS: usize = 256;

impl Member for Arc<Subscription> {
    fn client(&self) -> u64 {
        self.outbox.client()
    }

    fn subscription(&self) -> SubscriptionId {
        self.id
    }

    fn qos(&self) -> QoS {
        self.qos
    }

    fn copies(&self) -> Copies {
        self.copies
    }
}

impl Broker {
    /// An empty broker.
    pub fn new(
        rules: Rules,
        topic_rules: TopicRules,
        authenticator: Authenticator,
        retained: Retained,
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            rules,
            topic_rules,
            authenticator,
            router: Router::new(),
            retained,
            registry: Registry::default(),
            orders: (0..ORDER_LOCKS).map(|_| Mutex::new(())).collect(),
            order_hasher: RandomState::new(),
            shared,
            metrics,
        }
    }

    /// What all outboxes share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Who may connect.
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Brings the gauges up to date.
    pub fn observe(&self) {
        let metrics = &self.metrics;
        metrics.subscriptions.set(self.router.subscriptions() as u64);
        metrics.retained_messages.set(self.retained.len() as u64);
        metrics.retained_bytes.set(self.retained.bytes() as u64);
        metrics.outbox_messages.set(self.shared.queued() as u64);
    }

    /// Forgets what has expired or is stale; called every few seconds.
    pub fn sweep(&self, now: Instant) {
        self.retained.sweep(now);
        self.router.sweep_cache();
    }

    /// Answers a request. `None`: it has no reply.
    pub fn handle(
        &self,
        client: &mut Client,
        peer: &Peer,
        request: Request,
        now: Now,
        batch: &mut Batch,
    ) -> Option<Reply> {
        if !client.is_connected && !matches!(request, Request::Connect(_)) {
            return Some(Reply::Refused(Refusal::NotAuthorized));
        }
        match request {
            Request::Connect(connect) => Some(self.connect(client, peer, *connect)),
            Request::Subscribe(subscribes) => {
                let results = subscribes.into_iter().map(|one| self.subscribe(client, one)).collect();
                Some(Reply::Subscribed(results))
            }
            Request::Unsubscribe(ids) => {
                let results = ids.into_iter().map(|id| self.unsubscribe(client, id)).collect();
                Some(Reply::Unsubscribed(results))
            }
            Request::Publish(publish) => Some(match self.publish(client, publish, now, batch) {
                Ok(published) => Reply::Published(published),
                Err(refusal) => {
                    self.metrics.publishes_refused.inc((&refusal).into());
                    Reply::Refused(refusal)
                }
            }),
            Request::Release { packet_id } => {
                Some(Reply::Released { packet_id, known: client.release(packet_id) })
            }
            Request::Received { tag } => Some(Reply::Received { tag }),
            Request::Settle { settlement: Settlement::Dropped(reason), .. } => {
                self.metrics.dropped(reason, 1);
                None
            }
            // The state of a session that ends with its connection is in the session itself.
            Request::Assign { .. } | Request::Settle { .. } => None,
            Request::Disconnect { will: WillFate::Discard } => {
                client.will = None; // [MQTT-3.14.4-3]
                None
            }
            Request::Disconnect { will: WillFate::Publish } => None,
        }
    }

    fn connect(&self, client: &mut Client, peer: &Peer, connect: Connect) -> Reply {
        self.metrics.connects.inc();
        if let Err(refusal) = self.authenticator.admit(connect.credentials.as_ref(), peer) {
            return Reply::Refused(refusal);
        }
        if self.shared.is_full() {
            return Reply::Refused(Refusal::Overloaded("the memory for queued messages is used up"));
        }
        if let Some(refusal) = connect.will.as_deref().and_then(|will| self.check_will(will).err()) {
            return Reply::Refused(refusal);
        }
        let is_assigned = connect.client_id.is_none();
        let id = connect.client_id.map_or_else(|| self.registry.assign(), Arc::from);
        if !is_assigned && !connect.clean_start && self.registry.is_news(&id) {
            info!(client = %id.escape_debug(), "asked for a stored session; none is kept, it begins anew at each connection");
        }
        client.outbox.set_client(connect.packet_bytes_max, connect.lag);
        client.will = connect.will;
        if !std::mem::replace(&mut client.is_connected, true) {
            self.metrics.clients.add(1);
        }
        // Only names that clients choose can be chosen twice.
        if !is_assigned {
            client.id = Some(Arc::clone(&id));
            self.registry.enter(&id, &client.outbox);
        }
        Reply::Connected(Box::new(Connected {
            client_id: id,
            is_assigned,
            session_present: false,
            session_expiry: Duration::ZERO,
            in_flight: Vec::new(),
            received: Vec::new(),
        }))
    }

    fn subscribe(&self, client: &mut Client, subscribe: Subscribe) -> Result<Granted, Refusal> {
        let place = client.subscriptions.binary_search_by_key(&subscribe.id, |(id, ..)| *id);
        let limit = self.rules.subscriptions_max;
        if place.is_err() && client.subscriptions.len() >= limit {
            return Err(Refusal::Quota { name: "mqtt.max_subscriptions", limit });
        }
        let qos = subscribe.qos.min(self.rules.qos_max);
        let subscription = Arc::new(Subscription {
            outbox: Arc::clone(&client.outbox),
            id: subscribe.id,
            qos,
            forms: subscribe.forms,
            no_local: subscribe.no_local,
            retain_as_published: subscribe.retain_as_published,
            overflow: subscribe.overflow.unwrap_or(self.rules.overflow_qos0),
            overflow_acked: self.rules.overflow_qos1,
            conflate: subscribe.conflate,
            copies: subscribe.copies,
            alive: AtomicBool::new(true),
        });
        // The table first, then the retained ones: a message published in between comes twice rather than never.
        let is_new = self.enter(client, place, &subscribe.filter, &subscription);
        let wants_retained = match subscribe.retained {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::Skip => false,
        };
        if wants_retained {
            let cursor = self.retained.matching_names(&subscribe.filter);
            client.unfinished().cursors.push((subscription, cursor));
        }
        Ok(Granted { qos })
    }

    /// Enters a subscription in the place of an older one of the same id. The older one is taken out only when
    /// the new one is in, so that nothing is lost in between [MQTT-3.8.4-3].
    fn enter(
        &self,
        client: &mut Client,
        place: Result<usize, usize>,
        filter: &TopicFilter,
        subscription: &Arc<Subscription>,
    ) -> bool {
        self.router.subscribe(filter, Arc::clone(subscription));
        let entry = (subscription.id, filter.clone(), Arc::clone(subscription));
        match place {
            Err(place) => {
                if client.subscriptions.len() < 2 {
                    client.subscriptions.reserve_exact(1); // most clients have one
                }
                client.subscriptions.insert(place, entry);
                true
            }
            Ok(place) => {
                if let Some(slot) = client.subscriptions.get_mut(place) {
                    let (id, old_filter, old) = std::mem::replace(slot, entry);
                    if old_filter != *filter {
                        self.router.unsubscribe(&old_filter, client.outbox.client(), id);
                        old.end();
                    }
                    client.forget_retained(&old);
                }
                false
            }
        }
    }

    fn unsubscribe(&self, client: &mut Client, id: SubscriptionId) -> bool {
        let Ok(place) = client.subscriptions.binary_search_by_key(&id, |(id, ..)| *id) else { return false };
        let (_, filter, subscription) = client.subscriptions.remove(place);
        self.take_out(client.outbox.client(), &filter, &subscription);
        client.forget_retained(&subscription);
        true
    }

    fn take_out(&self, client: u64, filter: &TopicFilter, subscription: &Subscription) {
        self.router.unsubscribe(filter, client, subscription.id);
        subscription.end();
    }

    fn publish(
        &self,
        client: &mut Client,
        publish: Publish,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Published, Refusal> {
        if let Some(packet_id) = publish.packet_id {
            let received = &mut client.unfinished().received;
            if received.contains(&packet_id) {
                return Ok(Published { matched: 0 });
            }
            received.push(packet_id);
        }
        let mut publication = publish.publication;
        publication.publisher = client.outbox.client();
        self.route(publication, now, batch)
    }

    /// Whether a client may leave this as its will.
    fn check_will(&self, will: &Will) -> Result<(), Refusal> {
        check_topic(&will.publication)?;
        self.topic_rules.check(&will.publication).map(drop)
    }

    /// Publishes what the broker says itself: below `$`, under no rule, retained whether or not clients may retain.
    /// The caller flushes `batch`.
    pub fn publish_own(&self, publication: Publication, now: Now, batch: &mut Batch) {
        let keep = |publication: &Publication| {
            if let Err(refusal) = self.retained.set_own(publication) {
                debug!(topic = %publication.topic, %refusal, "said, but not retained");
            }
            Ok(())
        };
        // Nothing in it refuses.
        let _ = self.bring(publication, keep, now, batch);
    }

    /// Says whether a client is connected, where a topic rule has it. The caller flushes `batch`.
    pub fn publish_client_state(&self, id: &str, is_connected: bool, now: Now, batch: &mut Batch) {
        if let Some(state) = self.topic_rules.client_state(id, is_connected) {
            self.publish_own(state, now, batch);
        }
    }

    /// Brings what a client published, or left as its will, to everyone who subscribed. The caller flushes `batch`.
    fn route(&self, mut publication: Publication, now: Now, batch: &mut Batch) -> Result<Published, Refusal> {
        check_topic(&publication)?;
        self.topic_rules.apply(&mut publication)?;
        if publication.retain && !self.rules.retain {
            return Err(Refusal::Unsupported("retained messages are switched off (mqtt.retain)"));
        }
        self.bring(publication, |publication| self.retained.set(publication), now, batch)
    }

    /// Retained, match, push.
    fn bring(
        &self,
        mut publication: Publication,
        keep: impl FnOnce(&Publication) -> Result<(), Refusal>,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Published, Refusal> {
        publication.published_ms = now.unix_ms;
        publication.charge_to(&self.shared.publication_bytes);
        let publication = Arc::new(publication);
        if !publication.retain {
            return Ok(self.deliver(&publication, now, batch));
        }
        let _order = self.order_of(&publication.topic).map(Mutex::lock);
        keep(&publication)?;
        Ok(self.deliver(&publication, now, batch))
    }

    fn order_of(&self, topic: &Topic) -> Option<&Mutex<()>> {
        let hash = self.order_hasher.hash_one(topic);
        self.orders.get(usize::try_from(hash % ORDER_LOCKS as u64).unwrap_or(0))
    }

    fn deliver(&self, publication: &Arc<Publication>, now: Now, batch: &mut Batch) -> Published {
        let matched = self.router.matching(&publication.topic);
        let size_bytes = subscription::size_bytes(publication);
        // New QoS 0 messages are shed while the memory of the whole broker is used up (DESIGN §6).
        let is_shed = publication.qos == QoS::AtMostOnce && self.shared.is_full();
        let mut tally = Tally::default();
        for target in matched.targets() {
            let member = &target.member;
            if member.no_local && member.outbox.client() == publication.publisher {
                continue; // [MQTT-3.8.3-3]
            }
            let qos = publication.qos.min(member.qos);
            let entry = Entry::live(publication, member, qos, target.also.clone(), size_bytes);
            let (pushed, must_flush) = if is_shed {
                member.outbox.push_if_idle(entry, now.instant)
            } else {
                member.outbox.push(entry, now.instant)
            };
            if must_flush {
                batch.touched.push(Arc::clone(&member.outbox));
            }
            match pushed {
                Pushed::HalfFull => member.outbox.flush(now.instant),
                Pushed::OverMark => batch.add_slow(&member.outbox),
                _ => {}
            }
            tally.add(pushed);
        }
        self.shared.entered(tally.growth);
        for (reason, count) in tally.drops() {
            self.metrics.dropped(reason, count);
        }
        Published { matched: tally.matched }
    }

    /// Moves retained messages into the outbox while it is below half of its mark. Gives whether more are to come.
    pub fn pull_retained(&self, client: &mut Client, now: Instant) -> bool {
        let Some(unfinished) = &mut client.unfinished else { return false };
        while client.outbox.is_below_half() {
            let Some((subscription, cursor)) = unfinished.cursors.first_mut() else { break };
            let names = cursor.next_batch(&self.retained, self.rules.retained_batch);
            client.outbox.push_retained(names.iter().filter_map(|name| {
                let publication = self.retained.get(name, now)?;
                Some(Entry::retained(publication, subscription))
            }));
            if cursor.is_done() {
                unfinished.cursors.remove(0);
            }
        }
        let has_more = !unfinished.cursors.is_empty();
        client.drop_if_finished();
        has_more
    }

    /// The connection has ended: its subscriptions go, its will is published unless it said goodbye.
    pub fn leave(&self, client: &mut Client, now: Now, batch: &mut Batch) {
        let key = client.outbox.client();
        if std::mem::take(&mut client.is_connected) {
            self.metrics.clients.sub(1);
        }
        for (_, filter, subscription) in std::mem::take(&mut client.subscriptions) {
            self.take_out(key, &filter, &subscription);
        }
        client.unfinished = None;
        if let Some(id) = client.id.take() {
            self.registry.leave(&id, &client.outbox);
        }
        // No session outlives its connection, so the delay ends with it [MQTT-3.1.3-9].
        if let Some(will) = client.will.take() {
            let mut publication = will.publication;
            publication.publisher = key;
            publication.expires_at = will.expiry.map(|expiry| now.instant + expiry);
            if let Err(refusal) = self.route(publication, now, batch) {
                info!(%refusal, "a will was not published");
            }
        }
    }
}

fn check_topic(publication: &Publication) -> Result<(), Refusal> {
    if publication.topic.is_reserved() {
        return Err(Refusal::BadTopic("topics that begin with '$' belong to the broker")); // SEC-22
    }
    Ok(())
}

impl Client {
    /// A connection that has not said who it is.
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            is_connected: false,
            id: None,
            will: None,
            subscriptions: Vec::new(),
            unfinished: None,
            next_tag: 0,
        }
    }

    /// Its outbox.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The name that it chose, if it did.
    pub fn id(&self) -> Option<&Arc<str>> {
        self.id.as_ref()
    }

    /// Whether retained messages wait to be pulled.
    pub fn awaits_retained(&self) -> bool {
        self.unfinished.as_ref().is_some_and(|unfinished| !unfinished.cursors.is_empty())
    }

    fn unfinished(&mut self) -> &mut Unfinished {
        self.unfinished.get_or_insert_default()
    }

    fn drop_if_finished(&mut self) {
        self.unfinished.take_if(|unfinished| unfinished.cursors.is_empty() && unfinished.received.is_empty());
    }

    fn forget_retained(&mut self, subscription: &Arc<Subscription>) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.cursors.retain(|(of, _)| !Arc::ptr_eq(of, subscription));
        }
        self.drop_if_finished();
    }

    /// Whether the packet id waited for its PUBREL.
    fn release(&mut self, packet_id: u16) -> bool {
        let Some(unfinished) = &mut self.unfinished else { return false };
        let place = unfinished.received.iter().position(|id| *id == packet_id);
        place.map(|place| unfinished.received.swap_remove(place));
        self.drop_if_finished();
        place.is_some()
    }

    /// A name for the next delivery.
    pub fn next_tag(&mut self) -> Tag {
        self.next_tag += 1;
        Tag(self.next_tag)
    }
}

impl Batch {
    fn add_slow(&mut self, outbox: &Arc<Outbox>) {
        if !self.slow.iter().any(|known| Arc::ptr_eq(known, outbox)) {
            self.slow.push(Arc::clone(outbox));
        }
    }

    /// Flushes what was touched.
    pub fn flush(&mut self, now: Instant) {
        for outbox in self.touched.drain(..) {
            outbox.flush(now);
        }
    }
}

/// Outcomes of one fan-out, added up so that counters are touched once.
#[derive(Default)]
struct Tally {
    matched: usize,
    growth: isize,
    oldest: u64,
    newest: u64,
    conflated: u64,
    too_large: u64,
    memory: u64,
}

impl Tally {
    fn add(&mut self, pushed: Pushed) {
        self.growth += pushed.growth();
        match pushed {
            Pushed::Queued | Pushed::HalfFull | Pushed::OverMark => self.matched += 1,
            Pushed::Made(reason, count) => {
                self.matched += 1;
                self.count(reason, count as u64);
            }
            Pushed::Dropped(reason) => self.count(reason, 1),
            Pushed::Closed => {}
        }
    }

    fn count(&mut self, reason: DropReason, count: u64) {
        match reason {
            DropReason::Oldest => self.oldest += count,
            DropReason::Newest => self.newest += count,
            DropReason::Conflated => self.conflated += count,
            DropReason::TooLarge => self.too_large += count,
            _ => self.memory += count,
        }
    }

    fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        [
            (DropReason::Oldest, self.oldest),
            (DropReason::Newest, self.newest),
            (DropReason::Conflated, self.conflated),
            (DropReason::TooLarge, self.too_large),
            (DropReason::Memory, self.memory),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}

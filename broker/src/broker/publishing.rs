//! From a publication to everyone who subscribed: retained, match, push. Groups choose one of theirs.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{DropReason, Publish, Published, Refusal, Will};
use tidegate_protocol::topic::Topic;
use tracing::debug;

use super::queueing::is_temporary;
use super::{Batch, Broker, Now, ORDER_LOCKS};
use crate::client::Client;
use crate::durability::{Place, Planned, seq_of};
use crate::holdings::Holdings;
use crate::mailbox::{Brought, Mailbox};
use crate::outbox::Outbox;
use crate::outbox::queue::Pushed;
use crate::router::Matched;
use crate::router::shared::Group;
use crate::store::{Change, Ticket};
use crate::subscription::{self, Entry, Subscription, Target};
use crate::work_queue::{Promise, WorkQueue};

impl Broker {
    pub(super) fn publish(
        &self,
        client: &mut Client,
        publish: Publish,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Published, Refusal> {
        let mut publication = publish.publication;
        publication.publisher = client.key();
        // At QoS 1 each is a new message [MQTT-4.3.2-5].
        let Some(packet_id) = publish.packet_id else { return self.accept(publication, now, batch) };
        // [MQTT-4.3.3-10]: the id tells a repetition until its PUBREL.
        let is_known = |holdings: &mut Holdings| {
            holdings.unfinished().is_some_and(|unfinished| unfinished.received.contains(packet_id))
        };
        if client.with(is_known).ok_or(REPLACED)? {
            // What it repeats may not be committed yet, and may never be.
            if let Some(ticket) = client.with(|holdings| receiving(holdings, packet_id)).flatten() {
                batch.after = Some(ticket);
            }
            return Ok(Published { matched: 1 });
        }
        let received = client.mailbox.clone().map(|mailbox| (mailbox, packet_id));
        // Accepted and known in one step, behind which nothing refuses: whoever takes the session up finds the id of
        // what is published, and of nothing else (§4.3.3: after a refusal the id is free again).
        let commit = |publication: &Publication| {
            let committed = client.with(|holdings| {
                self.retain(publication)?;
                holdings.change(|unfinished| unfinished.received.insert(packet_id));
                Ok(())
            });
            committed.unwrap_or(Err(REPLACED))
        };
        // One that has expired is accepted all the same [MQTT-4.3.3-13]; deliveries of it are not sent.
        self.accept_with(publication, commit, received, now, batch)
    }

    /// What a client may publish, its will included.
    pub(super) fn accept(
        &self,
        publication: Publication,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Published, Refusal> {
        self.accept_with(publication, |publication| self.retain(publication), None, now, batch)
    }

    fn accept_with(
        &self,
        mut publication: Publication,
        commit: impl FnOnce(&Publication) -> Result<(), Refusal>,
        received: Option<(Arc<Mailbox>, u16)>,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Published, Refusal> {
        self.admit(&mut publication)?;
        self.bring(publication, commit, Source::Client { received }, now, batch)
    }

    /// Whether a client may publish this, as the rules make it.
    pub(super) fn admit(&self, publication: &mut Publication) -> Result<(), Refusal> {
        check_topic(publication)?;
        self.topic_rules.apply(publication)?;
        if publication.retain && !self.rules.retain {
            return Err(Refusal::Unsupported("retained messages are switched off (mqtt.retain)"));
        }
        Ok(())
    }

    /// [MQTT-3.3.1-5], [MQTT-3.3.1-8]
    fn retain(&self, publication: &Publication) -> Result<(), Refusal> {
        if publication.retain { self.retained.set(publication) } else { Ok(()) }
    }

    /// Whether a client may leave this as its will.
    pub(super) fn check_will(&self, will: &Will) -> Result<(), Refusal> {
        check_topic(&will.publication)?;
        self.topic_rules.check(&will.publication).map(drop)
    }

    /// Publishes what the broker says itself: below `$`, under no rule, retained whether or not clients may retain.
    /// The caller flushes `batch`.
    pub fn publish_own(&self, publication: Publication, now: Now, batch: &mut Batch) {
        let commit = |publication: &Publication| {
            if publication.retain
                && let Err(refusal) = self.retained.set_own(publication)
            {
                debug!(topic = %publication.topic, %refusal, "said, but not retained");
            }
            Ok(())
        };
        // QoS 0 is not refused.
        let _ = self.bring(publication, commit, Source::Broker, now, batch);
    }

    /// Says whether a client is connected, where a topic rule has it. The caller flushes `batch`.
    pub(super) fn publish_client_state(&self, id: &str, is_connected: bool, now: Now, batch: &mut Batch) {
        if let Some(state) = self.topic_rules.client_state(id, is_connected) {
            self.publish_own(state, now, batch);
        }
    }

    /// Retained, match, push. `commit` is the last that may refuse, but for a store that fails in this very moment. The
    /// caller flushes `batch`.
    fn bring(
        &self,
        mut publication: Publication,
        commit: impl FnOnce(&Publication) -> Result<(), Refusal>,
        source: Source,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Published, Refusal> {
        publication.published_ms = now.unix_ms;
        now.settle_expiry(&mut publication);
        publication.charge_to(&self.shared.publication_bytes);
        let publication = Arc::new(publication);
        let is_full = self.shared.is_full();
        if is_full {
            self.check_memory_for(&publication)?;
        }
        let _room = match source {
            Source::Client { .. } => self.room_for(&publication)?,
            Source::Broker => None,
        };
        self.check_store_for(&publication, &source)?;
        let order = if publication.retain { self.order_of(&publication.topic) } else { None };
        let _order = order.map(Mutex::lock);
        // Before the match: a client that subscribes meanwhile is in the table before it looks at what is retained, and
        // so gets it one way or the other.
        commit(&publication)?;
        // [MQTT-3.3.2-3], [MQTT-4.5.0-1]
        let matched = self.router.matching(&publication.topic);
        match (&self.durability, source) {
            (Some(durability), Source::Client { received })
                if is_stored(&publication, &received, &matched) =>
            {
                self.deliver_stored(durability, &publication, &matched, received, now, batch)
            }
            _ => Ok(self.deliver(&publication, &matched, is_full, now, batch)),
        }
    }

    /// While the disk fails, nothing is promised that would have to be on it. Asked before anything is kept or sent.
    pub(super) fn check_store_for(&self, publication: &Publication, source: &Source) -> Result<(), Refusal> {
        if let (Some(durability), Source::Client { received }) = (&self.durability, source)
            && publication.qos > QoS::AtMostOnce
            && is_stored(publication, received, &self.router.matching(&publication.topic))
        {
            return durability.admit();
        }
        Ok(())
    }

    /// A queue begins with its first message, and a full one takes no more. Asked before anything is kept or sent.
    pub(super) fn room_for(&self, publication: &Publication) -> Result<Option<Promise>, Refusal> {
        // One that ends in this moment is out of the table before it can be found again.
        while let Some(queue) = self.queue_of(&publication.topic)? {
            if let Ok(promise) = queue.promise(subscription::size_bytes(publication)) {
                return promise.map(Some).ok_or(QUEUE_IS_FULL);
            }
        }
        Ok(None)
    }

    /// While the memory of the whole broker is used up, nothing is promised that would have to wait for a client that
    /// may not be there (DESIGN §6). Asked before anything is kept or sent.
    pub(super) fn check_memory_for(&self, publication: &Publication) -> Result<(), Refusal> {
        let is_acked = publication.qos > QoS::AtMostOnce;
        if is_acked && has_sessions(&self.router.matching(&publication.topic)) {
            return Err(Refusal::Overloaded("the memory for queued messages is used up"));
        }
        Ok(())
    }

    /// Forgets retained messages that have expired, on the disk too.
    pub(super) fn sweep_retained(&self, now: Instant) {
        self.retained.sweep(now, |topic| {
            // Else a newer value could be stored between the two, and be forgotten.
            let _order = self.order_of(&topic).map(Mutex::lock);
            if self.retained.remove_expired(&topic, now)
                && let Some(durability) = &self.durability
            {
                durability.note(vec![Change::RemoveRetained(topic)]);
            }
        });
    }

    pub(super) fn order_of(&self, topic: &Topic) -> Option<&Mutex<()>> {
        let hash = self.order_hasher.hash_one(topic);
        self.orders.get(usize::try_from(hash % ORDER_LOCKS as u64).unwrap_or(0))
    }

    /// To all that match. Refuses nothing.
    pub(super) fn deliver(
        &self,
        publication: &Arc<Publication>,
        matched: &Matched<Subscription>,
        is_full: bool,
        now: Now,
        batch: &mut Batch,
    ) -> Published {
        let mut fan_out = FanOut {
            broker: self,
            size_bytes: subscription::size_bytes(publication),
            // While the memory of the whole broker is used up, QoS 0 is shed (DESIGN §6).
            is_shed: is_full && publication.qos == QoS::AtMostOnce,
            now,
            batch,
            tally: Tally::default(),
        };
        // To all before the next one is looked at, so each subscriber gets a publisher's messages in its order
        // [MQTT-4.6.0-5], whatever the topic [MQTT-4.6.0-6].
        for target in matched.targets() {
            let member = &target.member;
            match &member.target {
                _ if !member.selects(publication) => {}
                Target::Group(group) => fan_out.push_to_one(group, publication, &[]),
                Target::Queue(queue) => {
                    let entry = Entry::live(publication, member, None, fan_out.size_bytes);
                    fan_out.push_to_queue(queue, entry);
                }
                _ if member.no_local() && member.target.client() == publication.publisher => {} // [MQTT-3.8.3-3]
                _ => {
                    // RETAIN and QoS as the subscription wants: [MQTT-3.3.1-12], [MQTT-3.3.1-13], [MQTT-3.8.4-8].
                    let entry = Entry::live(publication, member, target.also.clone(), fan_out.size_bytes);
                    fan_out.push(member, entry);
                }
            }
        }
        fan_out.finish()
    }

    /// Brings a delivery that its member of a group did not get to another one (MQTT 5 §4.8.2).
    pub(super) fn redeliver(&self, entry: Entry, tried: &[u64], now: Now, batch: &mut Batch) {
        let subscription = &entry.subscription;
        let group = subscription.share().and_then(|(name, filter)| self.groups.get(name, filter));
        let Some(group) = group else { return self.metrics.dropped(DropReason::Closed, 1) };
        if self.redeliver_stored(&group, &entry, tried, now, batch) {
            return;
        }
        let size_bytes = entry.size_bytes;
        let mut fan_out =
            FanOut { broker: self, size_bytes, is_shed: false, now, batch, tally: Tally::default() };
        fan_out.push_to_one(&group, &entry.publication, tried);
        if fan_out.finish().matched == 0 {
            self.metrics.dropped(DropReason::Closed, 1);
        }
    }
}

/// What publishers are told.
const QUEUE_IS_FULL: Refusal =
    Refusal::Overloaded("the queue is full (work_queue.max_messages, work_queue.max_bytes)");

/// What a QoS 2 publish under this identifier waits for, if it is being committed.
fn receiving(holdings: &Holdings, packet_id: u16) -> Option<Ticket> {
    let mut receiving = holdings.unfinished()?.receiving.iter();
    receiving.rfind(|(id, _)| *id == packet_id).map(|(_, ticket)| *ticket)
}

/// Who says something.
pub(super) enum Source {
    /// A client. At QoS 2, the session that knows the packet identifier until PUBREL.
    Client { received: Option<(Arc<Mailbox>, u16)> },
    /// The broker itself, which says it anew after a restart.
    Broker,
}

/// Whether the store has to know of a publication.
fn is_stored(
    publication: &Publication,
    received: &Option<(Arc<Mailbox>, u16)>,
    matched: &Matched<Subscription>,
) -> bool {
    let is_acked = publication.qos > QoS::AtMostOnce;
    let is_durable = |member: &Subscription| match member.target {
        Target::Mailbox(_) | Target::Group(_) => is_acked && member.qos > QoS::AtMostOnce,
        Target::Queue(_) => true,
        Target::Outbox(_) => false,
    };
    publication.retain
        || received.is_some()
        || matched.targets().iter().any(|target| is_durable(&target.member))
}

fn check_topic(publication: &Publication) -> Result<(), Refusal> {
    let is_temporary = is_temporary(publication.topic.as_str());
    if is_temporary && publication.retain {
        return Err(Refusal::BadTopic("nothing is retained below \"$temp/\": it is of a connection"));
    }
    if publication.topic.is_reserved() && !is_temporary {
        return Err(Refusal::BadTopic("topics that begin with '$' belong to the broker")); // SEC-22
    }
    Ok(())
}

/// What a connection is told that does not speak for its session any more. Nothing was published, so nothing may be
/// acknowledged.
const REPLACED: Refusal = Refusal::Overloaded("another connection has this session");

fn has_sessions(matched: &Matched<Subscription>) -> bool {
    matched.targets().iter().any(|target| !matches!(target.member.target, Target::Outbox(_)))
}

/// One publication on its way to many.
pub(super) struct FanOut<'a> {
    pub(super) broker: &'a Broker,
    pub(super) size_bytes: u32,
    /// Only clients for which nothing waits get it.
    pub(super) is_shed: bool,
    pub(super) now: Now,
    pub(super) batch: &'a mut Batch,
    pub(super) tally: Tally,
}

impl FanOut<'_> {
    fn push(&mut self, member: &Subscription, entry: Entry) -> Pushed {
        let pushed = match &member.target {
            Target::Outbox(outbox) => self.push_to_outbox(outbox, entry),
            Target::Mailbox(mailbox) => {
                let brought = mailbox.push(entry, self.is_shed, self.now.instant);
                let pushed = brought.pushed;
                self.after_bring(brought);
                pushed
            }
            Target::Group(_) | Target::Queue(_) => Pushed::Closed,
        };
        self.tally.add(pushed);
        pushed
    }

    /// Into a queue that the store knows nothing of, and on to a consumer.
    fn push_to_queue(&mut self, queue: &Arc<WorkQueue>, entry: Entry) {
        if queue.skips(entry.publication.publisher) {
            return; // [MQTT-3.8.3-3] for a durable subscription
        }
        match queue.push(entry, self.now.instant) {
            Ok(()) => {
                self.tally.add(Pushed::Stored);
                self.dispatch(queue);
            }
            Err(pushed) => self.tally.add(pushed),
        }
    }

    fn dispatch(&mut self, queue: &Arc<WorkQueue>) {
        self.batch.touched.extend(queue.dispatch(self.now.instant).touched);
    }

    /// The same for a delivery that has its place in the store.
    pub(super) fn push_planned(&mut self, planned: Planned) {
        let Planned { entry, place } = planned;
        let member = entry.subscription.clone();
        if let (Place::Unstored, Target::Queue(queue)) = (place, &member.target) {
            return self.push_to_queue(queue, entry);
        }
        if place == Place::Unstored {
            let again = entry.subscription.group().is_some().then(|| entry.clone());
            if self.push(&member, entry) == Pushed::Closed
                && let Some(again) = again
            {
                self.broker.redeliver(again, &[member.target.client()], self.now, self.batch);
            }
            return;
        }
        if let Target::Queue(queue) = &member.target {
            self.tally.add(Pushed::Stored);
            queue.bring(seq_of(&entry), entry, place, self.now.instant);
            return self.dispatch(queue);
        }
        let Target::Mailbox(mailbox) = &member.target else { return };
        let again = member.group().is_some().then(|| entry.clone());
        let brought = mailbox.bring(entry, place, self.now.instant);
        self.tally.add(brought.pushed);
        if brought.pushed == Pushed::Closed
            && let Some(again) = again
        {
            // The session has ended since it got its place there, or unsubscribed.
            self.broker.redeliver(again, &[member.target.client()], self.now, self.batch);
        }
        self.after_bring(brought);
    }

    fn after_bring(&mut self, brought: Brought) {
        if let Some(outbox) = brought.outbox {
            self.after_push(brought.pushed, brought.is_slow, &outbox);
            if brought.must_flush {
                self.batch.touched.push(outbox);
            }
        }
    }

    fn push_to_outbox(&mut self, outbox: &Arc<Outbox>, entry: Entry) -> Pushed {
        let (pushed, must_flush) = if self.is_shed {
            outbox.push_if_idle(entry, self.now.instant)
        } else {
            outbox.push(entry, self.now.instant)
        };
        if must_flush {
            self.batch.touched.push(Arc::clone(outbox));
        }
        self.after_push(pushed, pushed == Pushed::OverMark, outbox);
        pushed
    }

    fn after_push(&mut self, pushed: Pushed, is_slow: bool, outbox: &Arc<Outbox>) {
        if pushed == Pushed::HalfFull {
            outbox.flush(self.now.instant);
        }
        if is_slow {
            self.batch.add_slow(outbox);
        }
    }

    /// To one member of a group; to another when that one is on its way out.
    fn push_to_one(&mut self, group: &Group<Subscription>, publication: &Arc<Publication>, tried: &[u64]) {
        let mut tried = tried.to_vec();
        while let Some(member) = group.pick(self.broker.rules.shared_strategy, &tried) {
            // [MQTT-4.8.2-3]
            let entry = Entry::live(publication, &member, None, self.size_bytes);
            if member.selects(publication) && self.push(&member, entry) != Pushed::Closed {
                return;
            }
            tried.push(member.target.client());
        }
    }

    pub(super) fn finish(self) -> Published {
        let Self { broker, tally, .. } = self;
        broker.shared.entered(tally.growth);
        for (reason, count) in tally.drops() {
            broker.metrics.dropped(reason, count);
        }
        Published { matched: tally.matched }
    }
}

/// Outcomes of one fan-out, added up so that counters are touched once.
#[derive(Default)]
pub(super) struct Tally {
    matched: usize,
    growth: isize,
    oldest: u64,
    newest: u64,
    conflated: u64,
    too_large: u64,
    memory: u64,
}

impl Tally {
    pub(super) fn add(&mut self, pushed: Pushed) {
        self.growth += pushed.growth();
        match pushed {
            Pushed::Queued | Pushed::HalfFull | Pushed::OverMark | Pushed::Stored => self.matched += 1,
            Pushed::Made(reason, count) => {
                self.matched += 1;
                self.count(reason, count as u64);
            }
            Pushed::Dropped(reason) => self.count(reason, 1),
            Pushed::Full | Pushed::Closed => {}
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

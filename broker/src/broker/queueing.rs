//! Queues: who consumes them, what is kept under the name of a durable subscription, and what time and restarts do to
//! them. Publishing into them is for `publishing` and `storing`.

use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    CloseKind, CloseReason, Copies, Overflow, Refusal, Selector, Subscribe, SubscriptionId,
};
use tidegate_protocol::topic::{ShareName, Topic, TopicFilter, TopicLimits};
use tracing::warn;

use super::{Batch, Broker, Now};
use crate::client::{Client, Standing};
use crate::durability::Durability;
use crate::store::{
    Away, Change, QueueSummary, RecoveredSession, SessionKey, SessionRecord, SubscriptionKey,
    SubscriptionRecord, Ticket,
};
use crate::subscription::{Subscription, Target, Terms};
use crate::work_queue::{Consumer, Kind, News, QueueName, WorkQueue};

/// The name of the group that consumes a queue, in MQTT and raw (WIRE §6).
const QUEUE_GROUP: &str = "queue";

/// Topics of connections begin with this; the next level is the connection's.
const TEMPORARY_PREFIX: &str = "$temp/";

/// The queue that a subscription is about to consume.
pub(super) struct Joining {
    pub(super) queue: Arc<WorkQueue>,
    /// It began with this subscription.
    pub(super) is_new: bool,
}

impl Broker {
    // ---- to consume ----

    /// The queue that is asked for, if it is one.
    pub(super) fn queue_for(
        &self,
        client: &Client,
        subscribe: &Subscribe,
        batch: &mut Batch,
    ) -> Result<Option<Joining>, Refusal> {
        if let Some(name) = &subscribe.durable {
            let name = QueueName::durable(user_of(client), name);
            return self.durable_queue(&name, subscribe, batch).map(Some);
        }
        let name = consumed(subscribe.group.as_ref(), &subscribe.filter);
        let Some(name) = name.filter(|_| self.has_queues()) else { return Ok(None) };
        if subscribe.filter.as_topic().is_none() {
            return Err(Refusal::BadTopic("a queue is consumed under its own name, without wildcards"));
        }
        Ok(Some(Joining { queue: self.ensure_queue(&name)?, is_new: false }))
    }

    /// Enters a consumer, in the place of an older one of the same client and id.
    pub(super) fn join_queue(
        &self,
        client: &Client,
        queue: &Arc<WorkQueue>,
        subscription: &Subscription,
        prefetch: Option<NonZeroU16>,
        now: Now,
    ) -> Result<(), Refusal> {
        let prefetch = prefetch.unwrap_or(self.rules.queues.prefetch);
        let consumer = Consumer::new(subscription.clone(), Arc::clone(&client.outbox), prefetch);
        queue.leave(subscription.target.client(), subscription.id, now.instant);
        let is_exclusive = queue.name().kind() == Kind::Durable;
        let replaced = match queue.join(consumer.clone(), is_exclusive) {
            Ok(replaced) => replaced,
            // It has ended since it was found, as one does that nobody consumes: another takes its place.
            Err(_) if !is_exclusive => {
                let again = self.ensure_queue(queue.name())?.join(consumer, false);
                again.map_err(|_| Refusal::Overloaded("the queue ends in this moment"))?
            }
            Err(_) => return Err(Refusal::Overloaded("the durable subscription ends in this moment")),
        };
        for consumer in replaced {
            // As a session that another connection takes up.
            let reason =
                CloseReason::new(CloseKind::Replaced, "another client has this durable subscription");
            consumer.subscription.end();
            consumer.outbox.order_close(reason);
        }
        Ok(())
    }

    pub(super) fn leave_queue(&self, name: &QueueName, client: u64, id: SubscriptionId, now: Instant) {
        if let Some(queue) = self.queues.get(name) {
            queue.leave(client, id, now);
        }
    }

    /// A session is taken up: it consumes what it did before.
    pub(super) fn rejoin_queues(&self, client: &mut Client, now: Now) {
        let consumed = |subscription: &&Subscription| subscription.queue().is_some();
        let subscriptions: Option<Vec<Subscription>> =
            client.with(|holdings| holdings.subscriptions().iter().filter(consumed).cloned().collect());
        for subscription in subscriptions.unwrap_or_default() {
            let Some(queue) = subscription.queue().and_then(|name| self.ensure_queue(name).ok()) else {
                continue;
            };
            client.outbox.keep_acked();
            // It ends in this moment at worst, and begins again with its next message or consumer.
            let _ = self.join_queue(client, &queue, &subscription, None, now);
        }
    }

    /// A connection ends; what its session subscribed stays.
    pub(super) fn leave_queues(&self, client: &mut Client, now: Now) {
        let key = client.key();
        let left = client.with(|holdings| {
            for subscription in holdings.subscriptions() {
                if let Some(name) = subscription.queue() {
                    self.leave_queue(name, key, subscription.id, now.instant);
                }
            }
        });
        // Else another connection has the session, and consumes for it.
        let _ = left;
    }

    // ---- queues come and go ----

    /// The queue of a topic, for whoever publishes to it.
    pub(super) fn queue_of(&self, topic: &Topic) -> Result<Option<Arc<WorkQueue>>, Refusal> {
        let name = QueueName::of_topic(topic).filter(|_| self.has_queues());
        name.map(|name| self.ensure_queue(&name)).transpose()
    }

    /// Else topics below `queue/` are like any others.
    pub(super) const fn has_queues(&self) -> bool {
        self.rules.queues.queues_max > 0
    }

    fn ensure_queue(&self, name: &QueueName) -> Result<Arc<WorkQueue>, Refusal> {
        let filter = TopicFilter::parse(name.as_str(), &TopicLimits::STANDARD);
        let filter = filter.map_err(|_| Refusal::BadTopic("a queue has the name of a topic"))?;
        self.queues.ensure(name, |news| {
            let queue = self.new_queue(name, self.next_key(), news);
            self.route_queue(&queue, &filter, None);
            queue
        })
    }

    /// What is kept under a name, as it is asked for now: under another filter or selector it begins anew.
    fn durable_queue(
        &self,
        name: &QueueName,
        subscribe: &Subscribe,
        batch: &mut Batch,
    ) -> Result<Joining, Refusal> {
        if let Some(queue) = self.queues.get(name) {
            if queue.is_for(&subscribe.filter, subscribe.selector.as_deref()) {
                self.remember_durable(&queue, subscribe, batch)?;
                return Ok(Joining { queue, is_new: false });
            }
            self.end_queue(name, batch);
        }
        if let Some(durability) = &self.durability {
            durability.admit()?;
        }
        let mut is_new = false;
        let queue = self.queues.ensure(name, |news| {
            is_new = true;
            let queue = self.new_queue(name, self.next_key(), news);
            queue.set_subscribed(subscribe.filter.clone(), subscribe.selector.clone());
            self.route_queue(&queue, &subscribe.filter, Some(subscribe));
            queue
        })?;
        if let Err(refusal) = self.remember_durable(&queue, subscribe, batch) {
            self.end_queue(name, batch);
            return Err(refusal);
        }
        Ok(Joining { queue, is_new })
    }

    /// The store has to know of it before its client hears so; a commit that failed is made up for by the next client.
    fn remember_durable(
        &self,
        queue: &WorkQueue,
        subscribe: &Subscribe,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let Some(durability) = &self.durability else { return Ok(()) };
        if queue.stored_by().is_some_and(|ticket| durability.outcome(ticket) == Some(Ok(()))) {
            return Ok(());
        }
        let session = SessionKey(queue.key());
        let changes = vec![
            Change::PutSession(session, Box::new(record(queue))),
            Change::PutSubscription(session, Box::new(durable_record(subscribe))),
        ];
        queue.set_stored_by(durability.submit(changes, batch)?);
        queue.set_stored();
        Ok(())
    }

    fn new_queue(&self, name: &QueueName, key: u64, news: &Arc<News>) -> Arc<WorkQueue> {
        let limits = match name.kind() {
            Kind::Queue => self.rules.queues.limits,
            Kind::Durable => self.rules.queues.durable_limits,
        };
        let (shared, durability) = (Arc::clone(&self.shared), self.durability.clone());
        WorkQueue::new(key, name.clone(), limits, shared, durability, Arc::clone(news))
    }

    fn next_key(&self) -> u64 {
        self.next_mailbox.fetch_add(1, Ordering::Relaxed)
    }

    fn route_queue(&self, queue: &Arc<WorkQueue>, filter: &TopicFilter, durable: Option<&Subscribe>) {
        let terms = Terms {
            qos: QoS::ExactlyOnce,
            copies: Copies::PerSubscription,
            selector: durable.and_then(|subscribe| subscribe.selector.clone()),
            ..Terms::default()
        };
        let target = Target::Queue(Arc::clone(queue));
        self.router.subscribe(Subscription::new(target, SubscriptionId(0), filter, terms));
    }

    fn unroute_queue(&self, queue: &Arc<WorkQueue>) {
        let filter = queue
            .filter()
            .map_or_else(|| queue.name().as_str().to_owned(), |filter| filter.as_str().to_owned());
        self.router.unsubscribe(&filter, queue.key(), SubscriptionId(0));
    }

    /// Forgets what is kept under a name, with all that waits. Whether there was any.
    pub(super) fn forget_durable(
        &self,
        client: &mut Client,
        name: &str,
        now: Now,
        batch: &mut Batch,
    ) -> bool {
        let name = QueueName::durable(user_of(client), name);
        let mine = client.with(|holdings| {
            let mine = holdings.subscriptions().iter().find(|known| known.queue() == Some(&name)).cloned()?;
            holdings.remove(&mine);
            holdings.forget_retained(&mine);
            Some(mine)
        });
        if let Some(mine) = mine.flatten() {
            mine.end();
            self.leave_queue(&name, client.key(), mine.id, now.instant);
        }
        self.end_queue(&name, batch)
    }

    fn end_queue(&self, name: &QueueName, batch: &mut Batch) -> bool {
        let ends = |queue: &Arc<WorkQueue>| {
            for consumer in queue.end() {
                consumer.subscription.end();
            }
            true
        };
        let Some(queue) = self.queues.remove(name, ends, |queue| self.unroute_queue(queue)) else {
            return false;
        };
        if let Some(durability) = &self.durability {
            // Refused only while the broker stops, and then nobody is answered any more.
            let _ = durability.submit(vec![Change::RemoveSession(SessionKey(queue.key()))], batch);
        }
        true
    }

    // ---- tasks ----

    /// Queues with something to dispatch: for the task that calls [`Broker::dispatch_queues`].
    pub async fn queue_news(&self) {
        self.queues.any_news().await;
    }

    /// Dispatches what has become ready, or has come back. The caller flushes.
    pub fn dispatch_queues(&self, now: Now, batch: &mut Batch) {
        for queue in self.queues.take_news() {
            batch.touched.extend(queue.dispatch(now.instant).touched);
        }
    }

    /// Drops what has expired, and ends queues that nobody needs.
    pub(super) fn sweep_queues(&self, now: Instant) {
        for name in self.queues.sweep(now) {
            let ends = |queue: &Arc<WorkQueue>| queue.end_if_over(self.rules.session_expiry_max, now);
            let ended = self.queues.remove(&name, ends, |queue| self.unroute_queue(queue));
            if let (Some(queue), Some(durability)) = (ended, &self.durability)
                && queue.is_stored()
            {
                durability.note(vec![Change::RemoveSession(SessionKey(queue.key()))]);
            }
        }
    }

    // ---- restarts ----

    /// What the store has to know of a queue before its first message. `None`: it knows.
    pub(super) fn introduce(queue: &WorkQueue) -> Option<Change> {
        (!queue.is_stored()).then(|| Change::PutSession(SessionKey(queue.key()), Box::new(record(queue))))
    }

    /// A queue of an earlier run.
    pub(super) fn restore_queue(
        &self,
        name: &QueueName,
        session: RecoveredSession,
        durability: &Durability,
        now: Now,
    ) {
        if name.kind() == Kind::Queue && !self.has_queues() {
            warn!(queue = %name, "there are no queues (work_queue.max_queues): its messages stay on the disk");
            return;
        }
        let RecoveredSession { key, subscriptions, queue: summary, .. } = session;
        let subscribed = subscriptions.into_iter().next();
        let filter = match (name.kind(), &subscribed) {
            (Kind::Durable, Some(subscribed)) => Some(subscribed.key.filter.clone()),
            // The crash came between the two.
            (Kind::Durable, None) => None,
            (Kind::Queue, _) => TopicFilter::parse(name.as_str(), &TopicLimits::STANDARD).ok(),
        };
        let is_idle = name.kind() == Kind::Queue && summary == QueueSummary::default();
        let is_over = |filter: &TopicFilter| is_idle || is_temporary(filter.as_str());
        let Some(filter) = filter.filter(|filter| !is_over(filter)) else {
            return durability.note(vec![Change::RemoveSession(key)]);
        };
        self.queues.restore(name, |news| {
            let queue = self.new_queue(name, key.0, news);
            queue.restore(&summary, now.instant);
            queue.set_stored_by(Ticket::DONE);
            let selector = subscribed.as_ref().and_then(|record| record.selector.as_deref());
            let selector = selector.map(Selector::parse).transpose();
            let Ok(selector) = selector.map(|selector| selector.map(Arc::new)) else {
                // Its client begins anew; until then it gets nothing, rather than everything.
                warn!(%name, "a durable subscription has a selector that this version does not read");
                return queue;
            };
            if name.kind() == Kind::Durable {
                queue.set_subscribed(filter.clone(), selector.clone());
            }
            let terms = Terms {
                qos: QoS::ExactlyOnce,
                copies: Copies::PerSubscription,
                selector,
                ..Terms::default()
            };
            let target = Target::Queue(Arc::clone(&queue));
            self.router.subscribe(Subscription::new(target, SubscriptionId(0), &filter, terms));
            queue
        });
    }
}

/// The queue that members of a group of this filter consume.
pub(super) fn consumed(group: Option<&ShareName>, filter: &TopicFilter) -> Option<QueueName> {
    QueueName::of_text(filter.as_str()).filter(|_| group.is_some_and(|group| group.as_str() == QUEUE_GROUP))
}

/// The levels below `$temp/` that connections have: nobody can tell from one what another has.
pub(super) struct Temporaries([u8; 32]);

impl Temporaries {
    /// Of this run of the broker.
    pub(super) fn new() -> Self {
        Self(rand::random())
    }

    /// A connection's own level.
    pub(super) fn of(&self, client: &Client) -> Box<str> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return Box::default() };
        mac.update(&client.outbox.client().to_be_bytes());
        let tag = mac.finalize().into_bytes();
        let mut level = String::with_capacity(32);
        for byte in tag.iter().take(16) {
            // Writing to a string cannot fail.
            let _ = write!(level, "{byte:02x}");
        }
        level.into()
    }

    /// Nobody but the connection itself subscribes to its own topics.
    pub(super) fn check(&self, client: &Client, filter: &TopicFilter) -> Result<(), Refusal> {
        let Some(rest) = filter.as_str().strip_prefix(TEMPORARY_PREFIX) else { return Ok(()) };
        let own = self.of(client);
        let is_own = !own.is_empty() && rest.split('/').next() == Some(&*own);
        if is_own { Ok(()) } else { Err(Refusal::NotAuthorized) }
    }
}

/// Whether a topic, or all that a filter matches, is of one connection: clients may publish there though it begins with
/// `$`. Nothing of it outlives the connection, whose number another one may have in the next run.
pub(super) fn is_temporary(topic: &str) -> bool {
    topic.starts_with(TEMPORARY_PREFIX)
}

fn user_of(client: &Client) -> Option<&str> {
    match &client.standing {
        Standing::Authenticated(known) => Some(&known.user),
        Standing::Unknown | Standing::Asked(_) | Standing::Connected => None,
    }
}

fn record(queue: &WorkQueue) -> SessionRecord {
    SessionRecord {
        name: queue.name().to_record(),
        expiry_ms: SessionRecord::NEVER,
        away: Some(Away { expires_at_ms: SessionRecord::NEVER }),
        will: None,
        lost: 0,
    }
}

fn durable_record(subscribe: &Subscribe) -> SubscriptionRecord {
    SubscriptionRecord {
        key: SubscriptionKey { filter: subscribe.filter.clone(), group: None, id: SubscriptionId(0) },
        qos: QoS::AtLeastOnce,
        no_local: subscribe.no_local,
        retain_as_published: false,
        identifier: None,
        overflow: Overflow::DropOldest,
        overflow_acked: Overflow::DropOldest,
        conflate_ms: None,
        copies: Copies::PerSubscription,
        owes_retained: false,
        selector: subscribe.selector.as_ref().map(|selector| selector.as_str().into()),
    }
}

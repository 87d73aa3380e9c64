//! What each request means. Holds the tables; owns no socket, task or clock.
//!
//! ```text
//!   connecting    who is it, and which session does it take up
//!   subscribing   into the tables and out of them
//!   pulling       retained messages for new subscriptions
//!   publishing    retained, match, push; groups; everything that is pushed goes through here
//!   queueing      queues: who consumes them, and what is kept for durable subscriptions
//!   storing       the same for what the store has to know of
//!   transacting   several publishes and settlements as one step
//!   leaving       what a connection, a session, a delay leaves behind: wills, and messages for others
//!   remembering   what the store is told of sessions and subscriptions
//!   restoring     what the store gives back after a restart
//!   wall_clock    instants and times that are compared across restarts
//! ```

mod connecting;
mod leaving;
mod publishing;
mod pulling;
mod queueing;
mod remembering;
mod restoring;
mod storing;
mod subscribing;
mod transacting;
mod wall_clock;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::Mutex;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{DropReason, Overflow, Refusal, Reply, Request, Settlement, Tag, WillFate};

use self::queueing::Temporaries;
pub(crate) use self::restoring::restored_publication;
use crate::auth::{Authenticator, Peer};
use crate::client::Client;
use crate::deadlines::Deadlines;
use crate::durability::Durability;
use crate::holdings::Unfinished;
use crate::metrics::Metrics;
use crate::outbox::{Outbox, Shared};
use crate::registry::Registry;
use crate::retained::Retained;
use crate::router::Router;
use crate::router::shared::{Groups, Strategy};
use crate::store::{Change, SessionKey, Ticket};
use crate::subscription::Subscription;
use crate::topic_rules::TopicRules;
use crate::work_queue::{self, Lease, Queues};

/// What the operator's file says about requests.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `mqtt.max_qos`: what subscriptions are granted at most.
    pub qos_max: QoS,
    /// `queue.overflow_qos0`.
    pub overflow_qos0: Overflow,
    /// `queue.overflow_qos1`.
    pub overflow_qos1: Overflow,
    /// `queue.overflow_offline`.
    pub overflow_offline: Overflow,
    /// `mqtt.retain`.
    pub retain: bool,
    /// `mqtt.retained_batch`.
    pub retained_batch: usize,
    /// `mqtt.session_expiry_default`: for clients that do not say one.
    pub session_expiry_default: Duration,
    /// `mqtt.session_expiry_max`.
    pub session_expiry_max: Duration,
    /// `mqtt.max_sessions`.
    pub sessions_max: usize,
    /// `mqtt.shared_strategy`.
    pub shared_strategy: Strategy,
    /// `[work_queue]`.
    pub queues: work_queue::Rules,
}

/// The broker's core.
pub struct Broker {
    rules: Rules,
    topic_rules: TopicRules,
    authenticator: Authenticator,
    router: Router<Subscription>,
    groups: Groups<Subscription>,
    queues: Queues,
    temporaries: Temporaries,
    retained: Retained,
    registry: Registry,
    deadlines: Deadlines,
    /// Keys of mailboxes, counted upwards from the middle: above those of connections, below those of groups.
    next_mailbox: AtomicU64,
    /// Held over (retained, match, push), so that two publishers cannot be seen in two orders (DESIGN §5.7).
    /// Topics share a lock by hash, which costs waiting at worst.
    orders: Box<[Mutex<()>]>,
    order_hasher: RandomState,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    /// `None`: everything is in memory.
    durability: Option<Arc<Durability>>,
}

/// What publishing has left to do: outboxes to flush, once each, and those that publishers should wait for.
#[derive(Debug, Default)]
pub struct Batch {
    /// To flush when everything is pushed.
    pub touched: Vec<Arc<Outbox>>,
    /// Over their mark.
    pub slow: Vec<Arc<Outbox>>,
    /// What has been answered may be said when this is done.
    pub after: Option<Ticket>,
    /// Subscriptions that have been granted and are being stored, each by its own commit.
    pub entered: Vec<Entered>,
}

/// A subscription that is being stored.
#[derive(Debug)]
pub struct Entered {
    /// Its place in the answer.
    pub index: usize,
    /// Its commit.
    pub ticket: Ticket,
    /// As it is in the tables.
    pub(crate) subscription: Subscription,
    /// What the session had before.
    pub(crate) before: Before,
}

/// What a session had under the name of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    /// With other options.
    Another,
    /// The very same, and the store has that.
    Same,
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

const FIRST_MAILBOX: u64 = 1 << 62;

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
            registry: Registry::new(rules.sessions_max),
            queues: Queues::new(rules.queues.queues_max),
            temporaries: Temporaries::new(),
            rules,
            topic_rules,
            authenticator,
            router: Router::new(),
            groups: Groups::new(),
            retained,
            deadlines: Deadlines::default(),
            next_mailbox: AtomicU64::new(FIRST_MAILBOX),
            orders: (0..ORDER_LOCKS).map(|_| Mutex::new(())).collect(),
            order_hasher: RandomState::new(),
            shared,
            metrics,
            durability: None,
        }
    }

    /// Remembers what it promises.
    #[must_use]
    pub fn with_durability(self, durability: Arc<Durability>) -> Self {
        Self { durability: Some(durability), ..self }
    }

    /// The way to the store, if there is one.
    pub fn durability(&self) -> Option<&Arc<Durability>> {
        self.durability.as_ref()
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

    /// When something is due for clients that are away: for the task that calls [`Broker::handle_deadlines`].
    pub fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Brings the gauges up to date.
    pub fn observe(&self) {
        let metrics = &self.metrics;
        metrics.subscriptions.set(self.router.subscriptions() as u64);
        metrics.shared_subscriptions.set(self.groups.members() as u64);
        metrics.work_queues.set(self.queues.len() as u64);
        metrics.work_queue_messages.set(self.queues.messages() as u64);
        metrics.sessions.set(self.registry.sessions() as u64);
        metrics.retained_messages.set(self.retained.len() as u64);
        metrics.retained_bytes.set(self.retained.bytes() as u64);
        metrics.outbox_messages.set(self.shared.queued() as u64);
    }

    /// Forgets what has expired or is stale; called every few seconds.
    pub fn sweep(&self, now: Instant) {
        self.sweep_retained(now);
        self.sweep_queues(now);
        self.router.sweep_cache();
    }

    /// Answers a request. `None`: it has no reply. The answer may be said once [`Batch::after`] is done, if that is set;
    /// when the commit fails, a refusal is said instead.
    pub fn handle(
        &self,
        client: &mut Client,
        peer: &Peer,
        request: Request,
        now: Now,
        batch: &mut Batch,
    ) -> Option<Reply> {
        match request {
            Request::Connect(connect) => return Some(self.connect(client, peer, *connect, now, batch)),
            Request::Authenticate(word) => return Some(self.authenticate(client, word, now, batch)),
            _ if client.is_connected() => {}
            _ => return Some(Reply::Refused(Refusal::NotAuthorized)),
        }
        match request {
            Request::Connect(_) | Request::Authenticate(_) => None,
            Request::Subscribe(subscribes) => {
                let subscribes = subscribes.into_iter().enumerate();
                let results = subscribes.map(|(index, one)| self.subscribe(client, one, index, now, batch));
                Some(Reply::Subscribed(results.collect()))
            }
            Request::Unsubscribe(names) => {
                let results = names.iter().map(|name| self.unsubscribe(client, name, now, batch)).collect();
                Some(Reply::Unsubscribed(results))
            }
            Request::Publish(publish) => Some(match self.publish(client, *publish, now, batch) {
                Ok(published) => Reply::Published(published),
                Err(refusal) => {
                    self.metrics.publishes_refused.inc((&refusal).into());
                    Reply::Refused(refusal)
                }
            }),
            Request::Transaction(steps) => Some(match self.transact(client, steps, now, batch) {
                Ok(published) => Reply::Published(published),
                Err(refusal) => {
                    self.metrics.publishes_refused.inc((&refusal).into());
                    Reply::Refused(refusal)
                }
            }),
            // Whoever has been replaced is being closed, and gets nothing confirmed that it did not do.
            Request::Release { packet_id } => {
                // From here on the identifier is that of a new message [MQTT-4.3.3-12].
                let known = client.with(|holdings| {
                    holdings.change_if_any(|unfinished| unfinished.received.remove(packet_id))
                })?;
                let known = known.unwrap_or(false);
                if known && let Some((durability, session)) = self.stored_session(client) {
                    let removed = Change::RemoveReceived(SessionKey(session), packet_id);
                    if let Err(refusal) = durability.submit(vec![removed], batch) {
                        return Some(Reply::Refused(refusal));
                    }
                }
                Some(Reply::Released { packet_id, known })
            }
            Request::Assign { tag, packet_id } => {
                self.assign(client, tag, packet_id);
                None
            }
            Request::Received { tag } => {
                let received = client.with(|holdings| {
                    holdings.change_if_any(|unfinished| unfinished.in_flight.receive(tag))
                })?;
                // SEC-2: known before PUBREL.
                if let Some((stored, packet_id)) = received.flatten()
                    && let Some(((durability, session), seq)) = self.stored_session(client).zip(stored.seq())
                {
                    let received = Change::Receive(SessionKey(session), seq, packet_id);
                    let after = match durability.submit(vec![received], batch) {
                        Ok(after) => after,
                        Err(refusal) => return Some(Reply::Refused(refusal)),
                    };
                    client.with(|holdings| {
                        holdings.change_if_any(|unfinished| unfinished.in_flight.note_received(tag, after))
                    });
                }
                Some(Reply::Received { tag })
            }
            Request::Settle { tag, settlement } => {
                self.settle(client, tag, settlement, now, batch);
                None
            }
            Request::Disconnect { will, session_expiry } => {
                if will == WillFate::Discard {
                    client.will = None; // [MQTT-3.14.4-3], [MQTT-3.1.2-10]
                }
                if let Some(expiry) = session_expiry {
                    client.set_session_expiry(expiry.min(self.rules.session_expiry_max));
                }
                None
            }
        }
    }

    /// A granted subscription was not stored after all. One that took the place of another stays, and after a restart the
    /// other is there; nothing else would have been promised before.
    pub(crate) fn withdraw(&self, client: &mut Client, entered: &Entered, now: Now, batch: &mut Batch) {
        if entered.before == Before::Nothing {
            self.remove_subscription(client, now, batch, |holdings| {
                let known = holdings.subscriptions().iter();
                known.into_iter().find(|known| known.is_same(&entered.subscription)).cloned()
            });
        }
    }

    /// The store, and the number of the client's session in it, if both are there.
    fn stored_session(&self, client: &Client) -> Option<(&Arc<Durability>, u64)> {
        let mailbox = client.mailbox.as_ref()?;
        self.durability.as_ref().map(|durability| (durability, mailbox.key()))
    }

    /// A delivery of a session that another connection has taken up is not sent any more: the other one sends it,
    /// perhaps under another identifier, and QoS 2 would arrive twice.
    pub(crate) fn assign(&self, client: &mut Client, tag: Tag, packet_id: u16) {
        let assign = |unfinished: &mut Unfinished| unfinished.in_flight.assign(tag, packet_id);
        client.is_replaced |= client.with(|holdings| holdings.change_if_any(assign)).is_none();
    }

    /// What its consumer says of a message of a queue. It is back in the queue, or gone, when the delivery is let go of.
    fn settle_lease(&self, lease: &Lease, settlement: Settlement, is_alive: bool) {
        match settlement {
            Settlement::Accepted => lease.settle(),
            // The subscription or the connection has ended: another gets it, and nobody has refused it.
            Settlement::Returned | Settlement::Dropped(DropReason::Closed) => {}
            Settlement::Requeue if !is_alive => {}
            Settlement::Dropped(reason) => {
                lease.settle();
                self.metrics.dropped(reason, 1);
            }
            Settlement::Requeue => {
                if !lease.refuse() {
                    self.metrics.dropped(DropReason::Refused, 1);
                }
            }
        }
    }

    pub(super) fn settle(
        &self,
        client: &mut Client,
        tag: Tag,
        settlement: Settlement,
        now: Now,
        batch: &mut Batch,
    ) {
        client.outbox().note_settled();
        let settled = client
            .with(|holdings| holdings.change_if_any(|unfinished| unfinished.in_flight.settle(tag)))
            .flatten()
            .flatten();
        if let Some(entry) = &settled
            && let Some(lease) = entry.lease()
        {
            return self.settle_lease(lease, settlement, entry.subscription.is_alive());
        }
        match (settlement, settled) {
            (Settlement::Accepted, _) => {}
            (Settlement::Dropped(reason), _) => self.metrics.dropped(reason, 1),
            (Settlement::Requeue | Settlement::Returned, Some(entry))
                if entry.subscription.group().is_some() =>
            {
                self.redeliver(entry, &[client.key()], now, batch);
            }
            (Settlement::Requeue, _) => self.metrics.dropped(DropReason::Refused, 1),
            (Settlement::Returned, _) => self.metrics.dropped(DropReason::Closed, 1),
        }
    }
}

impl Entered {
    /// Whether the store had the very same before.
    pub(crate) fn was_stored(&self) -> bool {
        self.before == Before::Same
    }

    /// Its commit is done.
    pub fn note_stored(&self) {
        self.subscription.note_stored();
    }
}

impl Batch {
    pub(crate) fn add_slow(&mut self, outbox: &Arc<Outbox>) {
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

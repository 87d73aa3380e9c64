//! A queue whose messages go to one of its consumers each: `/queue/jobs` of STOMP, which MQTT and raw clients share as the
//! group `queue`, and what is kept for one durable subscription of STOMP. It lives without consumers; what a consumer
//! does not settle goes to another. No clock, no task; whoever calls flushes.
//!
//! ```text
//!  publisher ─▶ reserve ─▶ (store) ─▶ bring ─▶ ready ─▶ dispatch ─▶ Lease in a consumer's outbox
//!                                │               ▲                        │
//!                                ▼               │ page       not settled  │ settled
//!                          on the disk alone ────┘◀──────── returned ◀────┴─▶ its place is freed
//! ```
//!
//! A consumer has at most its prefetch of messages, and they are given in turn, so that the slow get less. Every message
//! counts as QoS 1, whatever its publisher said. Lock order: queue, outbox; `returned` and the news are leaves.

mod consumers;
mod dispatch;
mod lease;
mod news;
mod pages;
mod promise;
mod queues;
mod rules;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidegate_protocol::publication::Publication;
use tidegate_protocol::session::{DropReason, Selector, SubscriptionId};
use tidegate_protocol::topic::TopicFilter;

pub use self::consumers::Consumer;
use self::consumers::Consumers;
pub use self::lease::Lease;
use self::lease::Returned;
pub use self::news::News;
pub(crate) use self::promise::Promise;
use self::promise::Promised;
pub use self::queues::{Kind, QueueName, Queues};
pub use self::rules::{Limits, Rules, WhenFull};
use crate::durability::{Durability, Place, Stored};
use crate::mailbox::FIRST_SEQ;
use crate::outbox::Shared;
use crate::outbox::queue::Pushed;
use crate::remainder::Remainder;
use crate::store::{QueueSummary, Ticket};
use crate::subscription::Entry;

/// One queue.
#[derive(Debug)]
pub struct WorkQueue {
    key: u64,
    name: QueueName,
    limits: Limits,
    shared: Arc<Shared>,
    /// `None`: it lives in memory alone.
    durability: Option<Arc<Durability>>,
    news: Arc<News>,
    /// The task has been told to look.
    is_listed: AtomicBool,
    /// The store has taken what it has to know of it.
    is_stored: AtomicBool,
    /// The commit that makes it known, of a durable subscription.
    stored_by: Mutex<Option<Ticket>>,
    /// Somebody has come to consume since it was last found idle.
    is_asked_for: AtomicBool,
    /// What a durable subscription matches.
    subscribed: OnceLock<(TopicFilter, Option<Arc<Selector>>)>,
    /// What consumers have let go of.
    returned: Mutex<Vec<Returned>>,
    /// Messages, as they were when the lock was last let go.
    len: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In memory, by place.
    ready: BTreeMap<u64, Item>,
    /// Of what is ready.
    bytes: usize,
    /// On the disk alone, and behind all that is in memory but what comes back.
    remainder: Option<Box<Remainder>>,
    /// Places that were taken for messages on their way into memory.
    arriving: usize,
    /// Room for messages that have no place yet.
    promised: Promised,
    /// With consumers.
    leased: usize,
    next_seq: u64,
    /// Messages before this place may have been sent: by an earlier run of the broker, or to a consumer that is gone.
    known_until: u64,
    /// When the first of those on the disk alone expires, about.
    disk_expires_at: Option<Instant>,
    consumers: Consumers,
    /// No consumer selects what is ready before this place.
    passed_until: u64,
    /// Since when nobody consumes.
    abandoned_at: Option<Instant>,
    has_ended: bool,
}

/// A message that waits.
#[derive(Debug)]
struct Item {
    publication: Arc<Publication>,
    size_bytes: u32,
    /// It is not delivered after this.
    expires_at: Option<Instant>,
    /// Its place on the disk.
    place: Option<Arc<Stored>>,
    /// A consumer may have had it.
    is_redelivered: bool,
    /// The consumer that did not want it last.
    refused_by: Option<u64>,
    /// How often it was refused.
    refusals: u8,
}

impl WorkQueue {
    pub(crate) fn new(
        key: u64,
        name: QueueName,
        limits: Limits,
        shared: Arc<Shared>,
        durability: Option<Arc<Durability>>,
        news: Arc<News>,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            name,
            limits,
            shared,
            durability,
            news,
            is_listed: AtomicBool::new(false),
            is_stored: AtomicBool::new(false),
            stored_by: Mutex::default(),
            is_asked_for: AtomicBool::new(true),
            subscribed: OnceLock::new(),
            returned: Mutex::default(),
            len: AtomicUsize::new(0),
            state: Mutex::new(State::new()),
        })
    }

    /// As it was before a restart.
    pub(crate) fn restore(&self, queue: &QueueSummary, now: Instant) {
        let Some(durability) = &self.durability else { return };
        let mut state = self.state.lock();
        self.set_stored();
        state.next_seq = durability.next_seq(queue);
        state.known_until = queue.next_seq;
        state.abandoned_at = Some(now);
        if queue.count > 0 {
            state.remainder = Some(Box::new(Remainder::found(queue.first_seq, queue.count, queue.bytes)));
            // Some may be over by now.
            state.disk_expires_at = Some(now);
        }
        self.note(&state);
    }

    /// The queue as the tables and the store know it.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// What it is called.
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// What a durable subscription matches; said once.
    pub(crate) fn set_subscribed(&self, filter: TopicFilter, selector: Option<Arc<Selector>>) {
        // Said before anybody else has it.
        let _ = self.subscribed.set((filter, selector));
    }

    /// The filter of a durable subscription.
    pub fn filter(&self) -> Option<&TopicFilter> {
        self.subscribed.get().map(|(filter, _)| filter)
    }

    /// Whether a durable subscription is for this.
    pub(crate) fn is_for(&self, filter: &TopicFilter, selector: Option<&Selector>) -> bool {
        self.subscribed
            .get()
            .is_some_and(|(known, selected)| known == filter && selected.as_deref() == selector)
    }

    /// Messages in it, with consumers or not.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the store has taken what it has to know of the queue. Until then everybody who brings a message says it
    /// too: whose message comes to the store first is open, and it takes none for a queue that it does not know.
    pub(crate) fn is_stored(&self) -> bool {
        self.is_stored.load(Ordering::Acquire)
    }

    /// The store has taken it.
    pub(crate) fn set_stored(&self) {
        if !self.is_stored() {
            self.is_stored.store(true, Ordering::Release);
        }
    }

    /// The commit that makes a durable subscription known.
    pub(crate) fn stored_by(&self) -> Option<Ticket> {
        *self.stored_by.lock()
    }

    pub(crate) fn set_stored_by(&self, ticket: Ticket) {
        *self.stored_by.lock() = Some(ticket);
    }

    // ---- for publishers ----

    /// When a message that comes now is over.
    pub(crate) fn expires_at(&self, publication: &Publication, now: Instant) -> Option<Instant> {
        let ttl = self.limits.message_ttl.and_then(|ttl| now.checked_add(ttl));
        publication.expires_at.into_iter().chain(ttl).min()
    }

    /// Takes a place for a message of this size; in a queue that refuses when it is full, whoever brings it has a
    /// [`Promise`].
    ///
    /// # Errors
    ///
    /// Nothing was taken: the queue has ended, or is full.
    pub(crate) fn reserve(&self, size_bytes: u32) -> Result<(u64, Place), Pushed> {
        let mut state = self.state.lock();
        if state.has_ended {
            return Err(Pushed::Closed);
        }
        self.make_room(&mut state, size_bytes);
        let is_idle = state.consumers.is_empty() && state.arriving == 0;
        let is_on_disk = self.durability.is_some()
            && (state.remainder.is_some() || is_idle || state.ready.len() >= READY_MAX);
        let seq = state.next_seq;
        state.next_seq += 1;
        let place = if is_on_disk {
            let remainder = state.remainder.get_or_insert_with(|| Box::new(Remainder::new(seq)));
            remainder.enter(seq, size_bytes);
            Place::Disk
        } else {
            state.arriving += 1;
            Place::Memory
        };
        self.note(&state);
        Ok((seq, place))
    }

    /// Takes a message at the place that it has: the store knows of it.
    pub(crate) fn bring(self: &Arc<Self>, seq: u64, entry: Entry, place: Place, now: Instant) {
        let mut state = self.state.lock();
        match place {
            Place::Disk => {
                if let Some(stored) = &entry.stored {
                    stored.keep();
                }
                if let Some(remainder) = &mut state.remainder {
                    remainder.arrived(seq);
                }
                state.note_expiry_on_disk(self.expires_at(&entry.publication, now));
                self.ask(&mut state);
            }
            Place::Memory | Place::Unstored => {
                state.arriving = state.arriving.saturating_sub(1);
                let item = self.item(entry, now);
                self.enter(&mut state, seq, item);
            }
        }
        self.note(&state);
    }

    /// Takes a message without the store, as [`WorkQueue::reserve`] takes a place.
    ///
    /// # Errors
    ///
    /// The queue has ended, or is full.
    pub(crate) fn push(self: &Arc<Self>, entry: Entry, now: Instant) -> Result<(), Pushed> {
        let mut state = self.state.lock();
        if state.has_ended {
            return Err(Pushed::Closed);
        }
        if state.remainder.is_some() && state.ready.len() >= READY_MAX {
            return Err(Pushed::Dropped(DropReason::Newest));
        }
        self.make_room(&mut state, entry.size_bytes);
        let seq = state.next_seq;
        state.next_seq += 1;
        let item = self.item(entry, now);
        self.enter(&mut state, seq, item);
        self.note(&state);
        Ok(())
    }

    /// The store did not take it: there is no such message.
    pub(crate) fn give_up(self: &Arc<Self>, seq: u64, entry: &Entry, place: Place) {
        if let Some(stored) = &entry.stored {
            stored.keep();
        }
        let mut state = self.state.lock();
        match place {
            Place::Unstored => {}
            Place::Memory => state.arriving = state.arriving.saturating_sub(1),
            Place::Disk => {
                if let Some(remainder) = &mut state.remainder {
                    remainder.give_up(seq, entry.size_bytes);
                }
                // It may have waited for this place.
                self.ask(&mut state);
            }
        }
        self.note(&state);
    }

    /// Whether what this client publishes is not for the only consumer.
    pub(crate) fn skips(&self, publisher: u64) -> bool {
        self.state.lock().consumers.skips(publisher)
    }

    // ---- the task ----

    /// Tells the task that there is something to dispatch.
    pub(crate) fn list(self: &Arc<Self>) {
        if !self.is_listed.swap(true, Ordering::AcqRel) {
            self.news.add(self);
        }
    }

    /// The task looks now; what comes from here on is told again.
    pub(crate) fn unlist(&self) {
        self.is_listed.store(false, Ordering::Release);
    }

    // ---- consumers ----

    /// Somebody consumes. With `is_exclusive` nobody else does from now on: gives the others.
    pub fn join(self: &Arc<Self>, consumer: Consumer, is_exclusive: bool) -> Result<Vec<Consumer>, Ended> {
        let mut state = self.state.lock();
        if state.has_ended {
            return Err(Ended);
        }
        self.is_asked_for.store(true, Ordering::Relaxed);
        let replaced = if is_exclusive { state.consumers.take_all() } else { Vec::new() };
        state.consumers.insert(consumer);
        state.passed_until = 0; // it may select other messages
        state.abandoned_at = None;
        self.ask(&mut state);
        drop(state);
        self.list();
        Ok(replaced)
    }

    /// Somebody does not consume any more. What it has comes back as it lets go of it.
    pub fn leave(self: &Arc<Self>, client: u64, subscription: SubscriptionId, now: Instant) {
        let mut state = self.state.lock();
        if state.consumers.remove(client, subscription) && state.consumers.is_empty() {
            state.abandoned_at = Some(now);
        }
        self.evict(&mut state);
        drop(state);
        self.list();
    }

    /// How many consume.
    pub fn consumers(&self) -> usize {
        self.state.lock().consumers.len()
    }

    // ---- time ----

    /// Drops what has expired, and lets consumers that were behind have another look.
    pub(crate) fn sweep(self: &Arc<Self>, now: Instant) {
        let mut state = self.state.lock();
        self.take_back(&mut state, now);
        let expired: Vec<u64> =
            state.ready.iter().filter(|(_, item)| item.is_expired(now)).map(|(seq, _)| *seq).collect();
        for seq in &expired {
            self.remove(&mut state, *seq);
        }
        let is_waiting = state.consumers.unblock();
        // The disk may have failed when it was asked last.
        self.ask(&mut state);
        if state.disk_expires_at.is_some_and(|at| at <= now) {
            // Reading it drops what is over; the rest goes back, unless somebody consumes.
            self.ask_for_page(&mut state);
        }
        self.note(&state);
        drop(state);
        self.count_dropped(DropReason::Expired, expired.len());
        if is_waiting {
            self.list();
        }
    }

    /// Ends a queue that holds nothing and that nobody consumes, or, when it is kept under a name, that nobody has
    /// consumed for `expiry`.
    pub(crate) fn end_if_over(&self, expiry: Duration, now: Instant) -> bool {
        let mut state = self.state.lock();
        let is_abandoned =
            state.consumers.is_empty() && state.leased == 0 && state.arriving == 0 && !state.is_expecting();
        let is_over = match self.name.kind() {
            // Not in the moment between a consumer's look and its coming.
            Kind::Queue => {
                let is_asked_for = self.is_asked_for.swap(false, Ordering::Relaxed);
                !is_asked_for && state.ready.is_empty() && state.remainder.is_none()
            }
            Kind::Durable => state
                .abandoned_at
                .is_some_and(|at| at.checked_add(expiry).is_some_and(|expires_at| expires_at <= now)),
        };
        state.has_ended |= is_abandoned && is_over && self.returned.lock().is_empty();
        state.has_ended
    }

    /// Ends it, whatever it holds. Gives who consumed.
    pub(crate) fn end(&self) -> Vec<Consumer> {
        let mut state = self.state.lock();
        state.has_ended = true;
        let items = std::mem::take(&mut state.ready);
        self.left(items.len());
        state.remainder = None;
        self.note(&state);
        state.consumers.take_all()
    }

    // ---- under the lock ----

    fn item(&self, entry: Entry, now: Instant) -> Item {
        let expires_at = self.expires_at(&entry.publication, now);
        Item {
            publication: entry.publication,
            size_bytes: entry.size_bytes,
            expires_at,
            place: entry.stored,
            is_redelivered: false,
            refused_by: None,
            refusals: 0,
        }
    }

    fn enter(&self, state: &mut State, seq: u64, item: Item) {
        state.bytes += item.size_bytes as usize;
        if state.has_ended {
            return; // its place goes with it
        }
        state.passed_until = state.passed_until.min(seq);
        if state.ready.insert(seq, item).is_none() {
            self.shared.entered(1);
        }
    }

    fn remove(&self, state: &mut State, seq: u64) -> Option<Item> {
        let item = state.ready.remove(&seq)?;
        state.bytes = state.bytes.saturating_sub(item.size_bytes as usize);
        self.left(1);
        Some(item)
    }

    /// Drops the oldest until so much more fits, unless it was promised.
    fn make_room(&self, state: &mut State, size_bytes: u32) {
        if self.limits.when_full == WhenFull::Refuse {
            return;
        }
        let mut dropped = 0;
        while !state.fits(size_bytes, &self.limits) {
            let next_seq = state.next_seq;
            if let Some(&oldest) = state.ready.keys().next() {
                self.remove(state, oldest);
            } else if let (Some(seq), Some(durability)) = (
                state.remainder.as_mut().and_then(|remainder| remainder.drop_oldest(next_seq)),
                &self.durability,
            ) {
                durability.dequeue(self.key, seq);
            } else {
                break; // the rest is with consumers
            }
            dropped += 1;
        }
        self.count_dropped(DropReason::Oldest, dropped);
    }

    fn note(&self, state: &State) {
        self.len.store(state.amount().0, Ordering::Relaxed);
    }

    fn left(&self, entries: usize) {
        self.shared.entered(-isize::try_from(entries).unwrap_or(isize::MAX));
    }

    fn count_dropped(&self, reason: DropReason, count: usize) {
        if count > 0 {
            self.shared.metrics.dropped(reason, count as u64);
        }
    }
}

/// The queue was removed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

impl State {
    fn new() -> Self {
        Self {
            ready: BTreeMap::new(),
            bytes: 0,
            remainder: None,
            arriving: 0,
            promised: Promised::default(),
            leased: 0,
            next_seq: FIRST_SEQ,
            known_until: 0,
            disk_expires_at: None,
            consumers: Consumers::default(),
            passed_until: 0,
            abandoned_at: None,
            has_ended: false,
        }
    }

    fn note_expiry_on_disk(&mut self, expires_at: Option<Instant>) {
        self.disk_expires_at = self.disk_expires_at.into_iter().chain(expires_at).min();
    }

    /// Messages and bytes. What is with consumers counts by number alone, which their prefetch bounds.
    fn amount(&self) -> (usize, usize) {
        let on_disk = self.remainder.as_ref().map(|remainder| remainder.amount()).unwrap_or_default();
        let messages = self.ready.len() + self.arriving + self.leased + on_disk.messages;
        (messages, self.bytes + on_disk.bytes)
    }

    /// Whether one more fits, beside what was promised where that counts. An empty queue takes any one message.
    fn fits(&self, size_bytes: u32, limits: &Limits) -> bool {
        let (mut messages, mut bytes) = self.amount();
        if limits.when_full == WhenFull::Refuse {
            let promised = self.promised.amount();
            (messages, bytes) = (messages + promised.messages, bytes + promised.bytes);
        }
        messages == 0 || (messages < limits.messages_max && bytes + size_bytes as usize <= limits.bytes_max)
    }
}

impl Item {
    fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// With a store, no more wait in memory, but for what no selector wants.
const READY_MAX: usize = 1024;

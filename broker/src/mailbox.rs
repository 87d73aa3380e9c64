//! A session that outlives its connections: what its client holds, what waits for it, and who is connected for it
//! now. Whoever is replaced finds out here that it has nothing to say any more.
//!
//! ```text
//!            attach                    detach
//!   away ─────────────▶ connected ─────────────▶ away ──(expiry)──▶ ended
//!                         │   ▲                                       ▲
//!                         └───┘ attach: a takeover                    └── end: Clean Start
//! ```
//!
//! Acknowledged deliveries wait in the *backlog* while the client is away, and behind a full outbox while it is
//! there, where both count against the mark together; the owner of the outbox feeds it from there. Lock order: registry,
//! mailbox, the outbox's queue. No clock, no task; whoever calls flushes and wakes. Spec: OASIS MQTT 5.0 §4.1.

mod disk;
mod leaving;
mod tail;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{self, DropReason, Forms, Overflow, Tag, Wants, Will};

pub(crate) use self::disk::FIRST_SEQ;
pub use self::disk::Restored;
use self::leaving::Leaving;
pub(crate) use self::tail::Tail;
use crate::durability::Durability;
use crate::holdings::Holdings;
use crate::outbox::lane::Lane;
use crate::outbox::queue::{Limits, Pushed};
use crate::outbox::room::Amount;
use crate::outbox::{Outbox, Shared};
use crate::remainder::Remainder;
use crate::subscription::{Entry, Subscription};

/// One session and its queue.
#[derive(Debug)]
pub struct Mailbox {
    key: u64,
    name: Arc<str>,
    /// `queue.overflow_offline`.
    overflow: Overflow,
    shared: Arc<Shared>,
    /// `None`: it lives in memory alone.
    durability: Option<Arc<Durability>>,
    /// What others ask for on every turn, or while they hold a lock that comes after the mailbox's.
    glance: Glance,
    state: Mutex<State>,
}

/// The state as it was when the lock was last let go.
#[derive(Debug, Default)]
struct Glance {
    is_online: AtomicBool,
    /// [`Mailbox::feed`] has work.
    is_feedable: AtomicBool,
    /// Messages in the backlog and on the disk alone.
    waiting: AtomicUsize,
    /// Messages in the outbox, and those that wait for their acknowledgement.
    in_hand: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// Of the connection that speaks for the session.
    outbox: Option<Arc<Outbox>>,
    holdings: Holdings,
    backlog: Lane,
    /// The place of the next message in the store.
    next_seq: u64,
    /// Places that were taken for messages on their way into memory.
    arriving: usize,
    /// On the disk alone, and behind all that is in memory.
    remainder: Option<Box<Remainder>>,
    /// What others of a group may get, and the disk may not have yet or any more.
    leaving: Option<Box<Leaving>>,
    /// Messages before this place are from an earlier run of the broker, which may have sent them.
    known_until: u64,
    /// Messages that came since the whole backlog was last searched for what nobody waits for any more.
    unsearched: usize,
    /// The wire forms of the version that the client speaks now.
    forms: Option<&'static Forms>,
    /// How long it is kept after a connection.
    expiry: Duration,
    /// Set while the client is away.
    expires_at: Option<Instant>,
    will: Option<(Instant, Box<Will>)>,
    has_ended: bool,
    /// Dropped while the client was away: it is told when it comes back.
    lost: u64,
}

/// What a connection finds when it takes up a session.
#[derive(Debug, Default)]
pub struct Attached {
    /// Sent and not settled, in order.
    pub in_flight: Vec<session::InFlight>,
    /// QoS 2 publishes before their PUBREL.
    pub received: Vec<u16>,
    /// The deadline that was set while the client was away.
    pub deadline: Option<Instant>,
}

/// What a connection leaves behind.
#[derive(Debug)]
pub enum Detached {
    /// Another connection has the session already, or it has ended.
    Replaced {
        /// The session has ended.
        has_ended: bool,
        /// As it was given.
        will: Option<Box<Will>>,
    },
    /// The session waits for its client until then at most; something may be due earlier.
    Waits {
        /// For [`Mailbox::take_due`].
        deadline: Instant,
    },
    /// It ends with the connection.
    Ends {
        /// As it was given.
        will: Option<Box<Will>>,
    },
}

/// What a session leaves behind.
#[derive(Debug, Default)]
pub struct Remains {
    /// To be taken out of the tables.
    pub subscriptions: Vec<Subscription>,
    /// What waited, and what others of a group may get instead of what was sent.
    pub entries: Vec<Entry>,
    /// The will that was still to come.
    pub will: Option<Box<Will>>,
    /// The deadline that was set.
    pub deadline: Option<Instant>,
}

/// What time has brought.
#[derive(Debug, Default)]
pub struct Due {
    /// The will's delay is over.
    pub will: Option<Box<Will>>,
    /// When to ask again.
    pub next: Option<Instant>,
    /// The session is over: [`Mailbox::end`] it.
    pub is_expired: bool,
}

/// What the store is told of a session, as it is now.
#[derive(Debug)]
pub struct Known<'a> {
    /// How long it is kept after a connection.
    pub expiry: Duration,
    /// Set while the client is away.
    pub expires_at: Option<Instant>,
    /// To come while the client is away, and when.
    pub will: Option<&'a (Instant, Box<Will>)>,
    /// Dropped while the client was away.
    pub lost: u64,
}

/// What became of a push, and what the caller has to do about it.
#[derive(Debug)]
pub struct Brought {
    /// Into which queue it came, if any.
    pub pushed: Pushed,
    /// Of the client, if that is there.
    pub outbox: Option<Arc<Outbox>>,
    /// The outbox is to be flushed.
    pub must_flush: bool,
    /// The publisher should wait for room in the outbox and behind it.
    pub is_slow: bool,
}

impl Mailbox {
    /// A session without a client. `key` is unique among all clients that the tables know.
    pub fn new(
        key: u64,
        name: Arc<str>,
        overflow: Overflow,
        shared: Arc<Shared>,
        durability: Option<Arc<Durability>>,
    ) -> Arc<Self> {
        let state = State { next_seq: FIRST_SEQ, ..State::default() };
        Self::with_state(key, name, overflow, shared, durability, state)
    }

    fn with_state(
        key: u64,
        name: Arc<str>,
        overflow: Overflow,
        shared: Arc<Shared>,
        durability: Option<Arc<Durability>>,
        state: State,
    ) -> Arc<Self> {
        let glance = Glance::default();
        Arc::new(Self { key, name, overflow, shared, durability, glance, state: Mutex::new(state) })
    }

    /// The session as the tables know it.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Under which the registry has it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether a connection speaks for it.
    pub fn is_online(&self) -> bool {
        self.glance.is_online.load(Ordering::Relaxed)
    }

    /// Deliveries that wait for the client or for its acknowledgement.
    pub fn pending(&self) -> usize {
        let Glance { waiting, in_hand, .. } = &self.glance;
        waiting.load(Ordering::Relaxed) + in_hand.load(Ordering::Relaxed)
    }

    // ---- for the connection that speaks for it ----

    /// Lets a connection change what the session holds. `None`: it was replaced.
    pub fn with<T>(&self, outbox: &Arc<Outbox>, change: impl FnOnce(&mut Holdings) -> T) -> Option<T> {
        let mut state = self.state.lock();
        state.is_of(outbox).then(|| change(&mut state.holdings))
    }

    /// A connection takes up the session. What an earlier one has queued and not sent comes back here; a will that
    /// was to come is dropped [MQTT-3.1.3-9].
    pub fn attach(
        &self,
        outbox: &Arc<Outbox>,
        expiry: Duration,
        forms: Option<&'static Forms>,
        now: Instant,
    ) -> Attached {
        let mut state = self.state.lock();
        self.collect(&mut state);
        outbox.keep_acked();
        let deadline = state.deadline();
        outbox.set_behind(state.waiting(), now);
        state.outbox = Some(Arc::clone(outbox));
        state.expiry = expiry;
        state.forms = forms;
        state.expires_at = None;
        state.will = None;
        if state.lost > 0 {
            outbox.note_lost(std::mem::take(&mut state.lost));
        }
        self.note(&state);
        let unfinished = state.holdings.unfinished();
        Attached {
            in_flight: unfinished.map(|unfinished| unfinished.in_flight.to_resume()).unwrap_or_default(),
            received: unfinished.map(|unfinished| unfinished.received.iter().collect()).unwrap_or_default(),
            deadline,
        }
    }

    /// The client has changed its mind about how long the session is kept.
    pub fn set_expiry(&self, outbox: &Arc<Outbox>, expiry: Duration) {
        let mut state = self.state.lock();
        if state.is_of(outbox) {
            state.expiry = expiry;
        }
    }

    /// The connection is over.
    pub fn detach(&self, outbox: &Arc<Outbox>, will: Option<Box<Will>>, now: Instant) -> Detached {
        let mut state = self.state.lock();
        if !state.is_of(outbox) {
            return Detached::Replaced { has_ended: state.has_ended, will };
        }
        self.collect(&mut state);
        let expires_at = now.checked_add(state.expiry).filter(|_| !state.expiry.is_zero());
        let Some(expires_at) = expires_at else {
            return Detached::Ends { will };
        };
        self.evict(&mut state);
        // [MQTT-3.1.2-23]
        state.expires_at = Some(expires_at);
        // [MQTT-3.1.2-8]: at the end of the session at the latest.
        state.will =
            will.map(|will| (now.checked_add(will.delay).unwrap_or(expires_at).min(expires_at), will));
        Detached::Waits { deadline: state.deadline().unwrap_or(expires_at) }
    }

    /// Whether messages wait that are not in the outbox.
    pub fn has_backlog(&self) -> bool {
        self.glance.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether [`Mailbox::feed`] has work. Not while the next of them are on their way from the disk.
    pub fn is_feedable(&self) -> bool {
        self.glance.is_feedable.load(Ordering::Relaxed)
    }

    /// Moves what waits into the outbox while that is below half of its mark, and has more read from the disk.
    pub fn feed(self: &Arc<Self>, outbox: &Arc<Outbox>, now: Instant) {
        let mut state = self.state.lock();
        if !state.is_of(outbox) {
            return;
        }
        let before = state.backlog.len();
        let on_disk = state.on_disk();
        let moved = outbox.feed(&mut state.backlog, on_disk, now);
        self.left(before - state.backlog.len() - moved);
        self.ask(&mut state);
        self.note(&state);
    }

    /// Takes deliveries for the session and remembers those that it has to settle, in one step: what is taken is
    /// either sent by this connection or comes back to the next one. Gives the name of the first; the others follow.
    pub fn take_for_session(
        &self,
        outbox: &Arc<Outbox>,
        into: &mut Vec<Entry>,
        count: usize,
        wants: Wants,
        now: Instant,
    ) -> Option<Tag> {
        let mut state = self.state.lock();
        if !state.is_of(outbox) {
            return None;
        }
        outbox.take_for_session(into, count, wants, now);
        outbox.note_unsettled(into);
        let first = state.holdings.next_tags(into.len());
        state.holdings.hand_over(first, into.iter(), |entry| entry.qos > QoS::AtMostOnce);
        self.note(&state);
        Some(first)
    }

    // ---- for publishers ----

    /// Queues without waiting. With `is_shed`, at QoS 0, only for a client for which nothing waits.
    pub fn push(&self, entry: Entry, is_shed: bool, now: Instant) -> Brought {
        self.push_to(&mut self.state.lock(), entry, is_shed, now)
    }

    fn push_to(&self, state: &mut State, mut entry: Entry, is_shed: bool, now: Instant) -> Brought {
        if state.has_ended || entry.subscription.is_group_over() {
            return Brought::away(Pushed::Closed);
        }
        let is_acked = entry.qos > QoS::AtMostOnce;
        let Some(outbox) = state.outbox.clone() else {
            return Brought::away(if is_acked { self.keep_away(state, entry, now) } else { Pushed::Closed });
        };
        if is_acked && !state.backlog.is_empty() {
            return self.keep_behind(state, outbox, entry, now);
        }
        // It may have subscribed in another version of its protocol.
        entry.form = entry.form.filter(|_| is_same(entry.subscription.forms, state.forms));
        let kept = is_acked.then(|| entry.clone());
        let (pushed, must_flush) =
            if is_shed { outbox.push_if_idle(entry, now) } else { outbox.push(entry, now) };
        if let (Pushed::Full | Pushed::Closed, Some(entry)) = (pushed, kept) {
            return self.keep_behind(state, outbox, entry, now);
        }
        if is_acked {
            self.note(state);
        }
        Brought { pushed, outbox: Some(outbox), must_flush, is_slow: pushed == Pushed::OverMark }
    }

    /// A subscription has ended: what is queued for it makes room for others.
    pub fn note_dead(&self) {
        let mut state = self.state.lock();
        state.unsearched = usize::MAX;
        if let Some(outbox) = &state.outbox {
            outbox.note_dead();
        }
    }

    /// Takes out what waits for a subscription and was not sent.
    pub fn take_unsent_of(&self, subscription: &Subscription, now: Instant) -> Vec<Entry> {
        let mut state = self.state.lock();
        let of = |entry: &Entry| entry.subscription.is_same(subscription);
        let mut entries =
            state.outbox.as_ref().map(|outbox| outbox.take_acked_of(subscription)).unwrap_or_default();
        let waiting = state.backlog.take_where(of);
        self.left(waiting.len());
        entries.extend(waiting);
        if let Some(outbox) = &state.outbox {
            outbox.set_behind(state.waiting(), now);
        }
        self.note(&state);
        entries
    }

    // ---- for the store ----

    /// Tells what holds while this connection speaks for the session, or while none does. `None`: that is over. Told
    /// under the lock, so that of two that tell it the later one tells what holds.
    pub fn tell<T>(&self, speaker: Option<&Arc<Outbox>>, tell: impl FnOnce(Known<'_>) -> T) -> Option<T> {
        let state = self.state.lock();
        let is_so = match speaker {
            Some(outbox) => state.is_of(outbox),
            None => state.outbox.is_none() && !state.has_ended,
        };
        let State { expiry, expires_at, ref will, lost, .. } = *state;
        is_so.then(|| tell(Known { expiry, expires_at, will: will.as_ref(), lost }))
    }

    // ---- for the registry and the timer ----

    /// What has become due while the client is away.
    pub fn take_due(&self, now: Instant) -> Due {
        let mut state = self.state.lock();
        if state.outbox.is_some() || state.has_ended {
            return Due::default();
        }
        let will = state.will.take_if(|(at, _)| *at <= now).map(|(_, will)| will);
        let is_expired = state.expires_at.is_some_and(|at| at <= now);
        Due { will, next: state.deadline().filter(|_| !is_expired), is_expired }
    }

    /// Whether the client is away and the session's time is over.
    pub fn is_expired(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.outbox.is_none() && state.expires_at.is_some_and(|at| at <= now)
    }

    /// Ends the session if it is still away and its time has come; nobody can take it up from then on.
    pub fn expire(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        // [MQTT-4.1.0-1], [MQTT-4.1.0-2]
        let is_over = state.outbox.is_none() && state.expires_at.is_none_or(|at| at <= now);
        state.has_ended |= is_over;
        is_over
    }

    /// Ends the session, whoever has it.
    pub fn end(&self) {
        self.state.lock().has_ended = true;
    }

    /// Takes all that is left of a session that has ended.
    pub fn clear(&self) -> Remains {
        let mut state = self.state.lock();
        state.has_ended = true;
        self.collect(&mut state);
        let subscriptions = state.holdings.take_subscriptions();
        let backlog = state.backlog.take_where(|_| true);
        self.left(backlog.len());
        self.note(&state);
        let in_flight = state.holdings.change_if_any(std::mem::take).unwrap_or_default().in_flight;
        let entries = in_flight.into_redeliverable().chain(backlog).collect();
        let deadline = state.deadline();
        let will = state.will.take().map(|(_, will)| will);
        Remains { subscriptions, entries, will, deadline }
    }

    // ---- under the lock ----

    /// Brings back what the connection has queued and not sent, in order.
    fn collect(&self, state: &mut State) {
        let Some(outbox) = state.outbox.take() else { return };
        let unsent = state.holdings.change_if_any(|unfinished| unfinished.in_flight.take_unsent());
        let mut unsent = unsent.unwrap_or_default();
        // What belongs to queues goes back to them.
        drop(state.holdings.change_if_any(|unfinished| unfinished.in_flight.take_lent()));
        unsent.retain(|entry| !entry.is_lent());
        self.shared.entered(isize::try_from(unsent.len()).unwrap_or(isize::MAX));
        let mut queued = outbox.take_acked();
        let before = queued.len();
        queued.retain(|entry| !entry.is_lent());
        self.left(before - queued.len());
        if !(unsent.is_empty() && queued.is_empty()) {
            let waiting = state.backlog.take_where(|_| true);
            for entry in unsent.into_iter().chain(queued).chain(waiting) {
                state.backlog.push_back(entry);
            }
            state.unsearched = usize::MAX;
        }
        self.note(state);
    }

    /// Behind what waits already, while a connection is there. Both queues together are held against the mark as an
    /// outbox alone is, and get twice as much (DESIGN §6).
    fn keep_behind(&self, state: &mut State, outbox: Arc<Outbox>, entry: Entry, now: Instant) -> Brought {
        let Limits { messages_max, bytes_max, .. } = self.shared.limits;
        let (messages, bytes) = outbox.queued();
        let up_to = |times: usize| Amount {
            // The backlog has as much as the mark for itself, whatever the outbox holds.
            messages: messages_max.saturating_mul(times) - messages.min(messages_max),
            bytes: bytes_max.saturating_mul(times) - bytes.min(bytes_max),
        };
        if !state.fits(&entry, up_to(1)) {
            self.left(state.remove_over(now));
        }
        let pushed = self.keep(state, entry, up_to(2));
        // Though something was dropped: whoever is not held would go on and drop more.
        let is_slow = outbox.note_behind(state.waiting(), now);
        Brought { pushed, outbox: Some(outbox), must_flush: false, is_slow }
    }

    /// While the client is away.
    fn keep_away(&self, state: &mut State, entry: Entry, now: Instant) -> Pushed {
        let Limits { messages_max, bytes_max, .. } = self.shared.limits;
        let limit = Amount { messages: messages_max, bytes: bytes_max };
        if !state.fits(&entry, limit) {
            self.left(state.remove_over(now));
        }
        self.keep(state, entry, limit)
    }

    fn keep(&self, state: &mut State, entry: Entry, limit: Amount) -> Pushed {
        if self.overflow == Overflow::DropNewest && !state.fits(&entry, limit) {
            state.lose(&entry);
            return Pushed::Dropped(DropReason::Newest);
        }
        let mut dropped = 0;
        while !state.fits(&entry, limit)
            && let Some(oldest) = state.backlog.pop_front_if(|_| true)
        {
            state.lose(&oldest);
            dropped += 1;
        }
        state.backlog.push_back(entry);
        state.unsearched = state.unsearched.saturating_add(1);
        self.note(state);
        if dropped == 0 { Pushed::Queued } else { Pushed::Made(DropReason::Oldest, dropped) }
    }

    fn note(&self, state: &State) {
        let Glance { is_online, is_feedable, waiting, in_hand } = &self.glance;
        is_online.store(state.outbox.is_some(), Ordering::Relaxed);
        is_feedable.store(state.is_feedable(), Ordering::Relaxed);
        // As long as there is a remainder, it is to be read: what it counts is not exact.
        let is_remainder = usize::from(state.remainder.is_some());
        waiting.store(state.waiting().messages.max(is_remainder), Ordering::Relaxed);
        in_hand.store(state.outbox.as_ref().map_or(0, |outbox| outbox.pending()), Ordering::Relaxed);
    }

    fn left(&self, entries: usize) {
        self.shared.entered(-isize::try_from(entries).unwrap_or(isize::MAX));
    }
}

impl Brought {
    fn away(pushed: Pushed) -> Self {
        Self { pushed, outbox: None, must_flush: false, is_slow: false }
    }
}

impl State {
    fn is_of(&self, outbox: &Arc<Outbox>) -> bool {
        !self.has_ended && self.outbox.as_ref().is_some_and(|current| Arc::ptr_eq(current, outbox))
    }

    /// Whether the backlog has room for it within `limit`. An empty one takes any.
    fn fits(&self, entry: &Entry, limit: Amount) -> bool {
        let bytes = self.backlog.bytes().saturating_add(entry.size_bytes as usize);
        self.backlog.is_empty() || (self.backlog.len() < limit.messages && bytes <= limit.bytes)
    }

    /// What waits behind the outbox.
    fn waiting(&self) -> Amount {
        self.backlog.amount() + self.on_disk()
    }

    fn on_disk(&self) -> Amount {
        self.remainder.as_ref().map(|remainder| remainder.amount()).unwrap_or_default()
    }

    fn is_feedable(&self) -> bool {
        !self.backlog.is_empty() || self.remainder.as_ref().is_some_and(|remainder| remainder.may_ask())
    }

    fn deadline(&self) -> Option<Instant> {
        let will = self.will.as_ref().map(|(at, _)| *at);
        will.into_iter().chain(self.expires_at).min()
    }

    /// Removes what nobody waits for any more: at the front always, elsewhere once for as many messages as wait. A
    /// client that stays away must not cost its publishers a look at all of them for each message.
    fn remove_over(&mut self, now: Instant) -> usize {
        let is_over = |entry: &Entry| !entry.subscription.is_alive() || entry.publication.is_expired(now);
        let before = self.backlog.len();
        while self.backlog.pop_front_if(is_over).is_some() {}
        if self.unsearched >= before {
            self.unsearched = 0;
            self.backlog.remove_where(is_over);
        }
        before - self.backlog.len()
    }

    fn lose(&mut self, entry: &Entry) {
        match &self.outbox {
            Some(outbox) => outbox.note_drop(entry),
            None => self.lost += 1,
        }
    }

    fn lose_some(&mut self, count: u64) {
        match &self.outbox {
            Some(outbox) => outbox.note_lost(count),
            None => self.lost += count,
        }
    }
}

fn is_same(forms: Option<&'static Forms>, others: Option<&'static Forms>) -> bool {
    forms.zip(others).is_none_or(|(forms, others)| std::ptr::eq(forms, others))
}

//! One client's bounded queue: lanes, limits, overflow policies, what the client is told of drops.
//!
//! Core: plain data behind the outbox's lock. It never writes, waits or wakes; it says what has to be done.

use std::collections::VecDeque;
use std::sync::Weak;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    CloseKind, CloseReason, DataLane, DropReason, Lag, LagNotice, Overflow, Wants,
};

use super::Outbox;
use super::conflate::{Paced, Pacer};
use super::lane::Lane;
use crate::subscription::Entry;

/// `[queue]`: the marks of one client.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Deliveries queued.
    pub messages_max: usize,
    /// Bytes queued: payloads, topics, 64 bytes per entry.
    pub bytes_max: usize,
    /// How long a publisher is held while this queue is over its mark.
    pub publish_wait: Duration,
    /// After it has caused this much waiting within [`SLOW_WINDOW`], nobody waits for it any more.
    pub slow_after: Duration,
}

/// The window of [`Limits::slow_after`].
pub const SLOW_WINDOW: Duration = Duration::from_secs(10);

/// A client hears of drops at most this often.
pub const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// Topics named in a notice of lag.
const LAG_TOPICS_MAX: usize = 8;

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Queued.
    Queued,
    /// Queued, and half of the mark is reached: flush before pushing more.
    HalfFull,
    /// Queued, but over the mark: the publisher should wait.
    OverMark,
    /// Queued in the place of an older one, or instead of dropped ones.
    Made(DropReason, usize),
    /// Not queued.
    Dropped(DropReason),
    /// The client is gone or going.
    Closed,
}

/// What the owner's task has to look at; a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals(u8);

impl Signals {
    /// A delivery needs the session.
    pub const SESSION: Self = Self(1);
    /// The socket takes no more: wait until it is writable.
    pub const BLOCKED: Self = Self(2);
    /// The client is to be told of drops.
    pub const LAG: Self = Self(4);
    /// The broker ends this connection.
    pub const ORDER: Self = Self(8);
    /// A queue that this client's publishes waited for has room.
    pub const ROOM: Self = Self(16);
    /// The writer failed or has written the Close frame.
    pub const ENDED: Self = Self(32);
    /// A conflated delivery waits for its turn.
    pub const PACED: Self = Self(64);

    /// Whether all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Why others may only push.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hold {
    /// The owner holds popped entries.
    Popped = 1,
    /// A Subscribe waits for its reply.
    Subscribe = 2,
}

/// How far the end of the connection has come.
///
/// ```text
///   Open ─▶ Closing (the Close frame goes behind what is still written) ─▶ Written ─▶ (dropped)
///     └──────────────────────── the socket failed ─────────────────────────▶ Failed
/// ```
#[derive(Debug)]
pub(crate) enum Phase {
    Open,
    Closing(Bytes),
    Written,
    Failed,
}

/// What the writer takes.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Bytes of this client alone.
    Frame(Bytes),
    /// A delivery whose bytes are shared.
    Entry(Entry),
    /// The last frame.
    Close(Bytes),
}

/// Why the writer got no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing is queued that could be written now.
    Nothing,
    /// There is more.
    More,
    /// The session has to encode first.
    Session,
}

/// The queue. Order on the wire: control, encoded, then the two data lanes.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Acks and other answers, complete frames.
    control: VecDeque<Bytes>,
    /// The newest unsent pong (RFC 6455 §5.5.3).
    pong: Option<Bytes>,
    control_bytes: usize,
    /// Deliveries that the session has encoded; can be neither dropped nor overtaken.
    encoded: VecDeque<Bytes>,
    encoded_bytes: usize,
    qos0: Lane,
    acked: Lane,
    pacer: Option<Box<Pacer>>,

    held: u8,
    /// A pusher has taken on the duty to flush.
    touched: bool,
    blocked_since: Option<Instant>,
    /// Every data frame goes through the owner (context takeover).
    owner_encodes: bool,
    wants: Wants,
    packet_bytes_max: usize,
    phase: Phase,
    order: Option<CloseReason>,

    over_since: Option<Instant>,
    slow_window_start: Option<Instant>,
    slow_spent: Duration,
    /// Publishers that wait for room here.
    waiters: Vec<Weak<Outbox>>,

    lag_notice: LagNotice,
    lag: Option<Box<Lag>>,
    expired: u32,
    /// The owner has told the client within the last second and asks again by itself.
    lag_is_timed: bool,
    signals: Signals,
    waker: Option<Waker>,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            control: VecDeque::new(),
            pong: None,
            control_bytes: 0,
            encoded: VecDeque::new(),
            encoded_bytes: 0,
            qos0: Lane::default(),
            acked: Lane::default(),
            pacer: None,
            held: 0,
            touched: false,
            blocked_since: None,
            owner_encodes: false,
            wants: Wants { input: true, qos0: true, acked: true },
            packet_bytes_max: usize::MAX,
            phase: Phase::Open,
            order: None,
            over_since: None,
            slow_window_start: None,
            slow_spent: Duration::ZERO,
            waiters: Vec::new(),
            lag_notice: LagNotice::Silent,
            lag: None,
            expired: 0,
            lag_is_timed: false,
            signals: Signals::default(),
            waker: None,
        }
    }

    // ---- what a client is like ----

    pub(crate) fn set_client(&mut self, packet_bytes_max: Option<usize>, lag_notice: LagNotice) {
        self.packet_bytes_max = packet_bytes_max.unwrap_or(usize::MAX);
        self.lag_notice = lag_notice;
    }

    pub(crate) fn set_owner_encodes(&mut self) {
        self.owner_encodes = true;
    }

    pub(crate) fn set_wants(&mut self, wants: Wants) {
        self.wants = wants;
    }

    // ---- in: deliveries ----

    /// Queues without waiting and applies the policy of the entry's subscription. Never touches another
    /// subscription's entries.
    pub(crate) fn push(&mut self, entry: Entry, limits: &Limits, now: Instant) -> Pushed {
        if !self.is_open() {
            return Pushed::Closed;
        }
        if let Some(form) = entry.form
            && self.packet_bytes_max != usize::MAX
            && entry.publication.prepared(form).message().len() > self.packet_bytes_max
        {
            return self.dropped(&entry, DropReason::TooLarge);
        }
        if entry.qos != QoS::AtMostOnce {
            return self.append(entry, limits, now);
        }
        match entry.subscription.conflate {
            None => self.append(entry, limits, now),
            Some(Duration::ZERO) => self.replace_or_append(entry, limits, now),
            Some(interval) => self.pace(entry, interval, limits, now),
        }
    }

    fn pace(&mut self, entry: Entry, interval: Duration, limits: &Limits, now: Instant) -> Pushed {
        if self.pacer.is_none() {
            // From here on the owner has a turn to wait for; later ones it finds by itself.
            self.signals.add(Signals::PACED);
        }
        match self.pacer.get_or_insert_default().offer(entry, interval, now) {
            Paced::Go(entry) => self.replace_or_append(entry, limits, now),
            Paced::Waits => Pushed::Queued,
            Paced::Replaced => {
                self.conflated();
                Pushed::Made(DropReason::Conflated, 1)
            }
        }
    }

    /// Appends a retained publication. Paced by the caller, so that no policy applies.
    pub(crate) fn push_retained(&mut self, entry: Entry) {
        if self.is_open() {
            self.lane(entry.qos).push_back(entry);
        }
    }

    /// Moves paced deliveries whose turn has come into the lane.
    pub(crate) fn release_paced(&mut self, limits: &Limits, now: Instant) -> usize {
        let mut dropped = 0;
        while let Some(entry) = self.pacer.as_mut().and_then(|pacer| pacer.due(now)) {
            match self.replace_or_append(entry, limits, now) {
                Pushed::Made(_, count) => dropped += count,
                Pushed::Dropped(_) => dropped += 1,
                _ => {}
            }
        }
        if self.pacer.as_ref().is_some_and(|pacer| pacer.is_idle()) {
            self.pacer = None;
        }
        dropped
    }

    pub(crate) fn next_paced(&self) -> Option<Instant> {
        self.pacer.as_ref()?.next_turn()
    }

    fn replace_or_append(&mut self, entry: Entry, limits: &Limits, now: Instant) -> Pushed {
        match self.qos0.replace(entry) {
            Ok(_old) => {
                self.conflated();
                Pushed::Made(DropReason::Conflated, 1)
            }
            Err(entry) => self.append(entry, limits, now),
        }
    }

    fn append(&mut self, entry: Entry, limits: &Limits, now: Instant) -> Pushed {
        let size = entry.size_bytes as usize;
        if self.fits(size, limits) {
            self.lane(entry.qos).push_back(entry);
            let half = self.messages() * 2 >= limits.messages_max || self.bytes() * 2 >= limits.bytes_max;
            return if half { Pushed::HalfFull } else { Pushed::Queued };
        }
        let since = *self.over_since.get_or_insert(now);
        let is_twice = self.messages() >= limits.messages_max.saturating_mul(2)
            || self.bytes().saturating_add(size) > limits.bytes_max.saturating_mul(2);
        let is_patient = now.saturating_duration_since(since) < limits.publish_wait
            && self.slow_spent_at(now) < limits.slow_after;
        if is_patient && !is_twice {
            self.lane(entry.qos).push_back(entry);
            return Pushed::OverMark;
        }
        self.overflow(entry, limits)
    }

    /// The incoming entry's subscription decides (DESIGN §6).
    fn overflow(&mut self, entry: Entry, limits: &Limits) -> Pushed {
        match entry.subscription.policy(entry.qos) {
            Overflow::DropNewest => self.dropped(&entry, DropReason::Newest),
            Overflow::DropOldest => self.make_room(entry, limits),
            Overflow::Conflate if entry.qos == QoS::AtMostOnce => match self.qos0.replace(entry) {
                Ok(_old) => {
                    self.conflated();
                    Pushed::Made(DropReason::Conflated, 1)
                }
                Err(entry) => self.make_room(entry, limits),
            },
            Overflow::Conflate => self.make_room(entry, limits),
            Overflow::Disconnect => {
                self.order_close(CloseReason::new(CloseKind::TooSlow, "too slow: the outbox is full"));
                Pushed::Closed
            }
        }
    }

    fn make_room(&mut self, entry: Entry, limits: &Limits) -> Pushed {
        let size = entry.size_bytes as usize;
        let mut removed = 0;
        while !self.fits(size, limits) {
            let Some(oldest) = self.lane(entry.qos).remove_oldest_of(&entry) else { break };
            self.note_drop(&oldest);
            removed += 1;
        }
        // What is left belongs to other subscriptions or is being written: then the incoming one goes.
        if !self.fits(size, limits) && removed == 0 {
            return self.dropped(&entry, DropReason::Oldest);
        }
        self.lane(entry.qos).push_back(entry);
        Pushed::Made(DropReason::Oldest, removed)
    }

    fn fits(&self, size: usize, limits: &Limits) -> bool {
        let is_empty = self.messages() == 0 && self.encoded.is_empty();
        let has_room =
            self.messages() < limits.messages_max && self.bytes().saturating_add(size) <= limits.bytes_max;
        is_empty || has_room
    }

    fn lane(&mut self, qos: QoS) -> &mut Lane {
        if qos == QoS::AtMostOnce { &mut self.qos0 } else { &mut self.acked }
    }

    // ---- in: the owner's frames ----

    pub(crate) fn push_control(&mut self, frame: Bytes) {
        if matches!(self.phase, Phase::Open | Phase::Closing(_)) {
            self.control_bytes += frame.len();
            self.control.push_back(frame);
        }
    }

    pub(crate) fn set_pong(&mut self, frame: Bytes) {
        self.control_bytes += frame.len();
        if let Some(old) = self.pong.replace(frame) {
            self.control_bytes -= old.len();
        }
    }

    pub(crate) fn push_encoded(&mut self, frame: Bytes) {
        self.encoded_bytes += frame.len();
        self.encoded.push_back(frame);
    }

    pub(crate) fn hold(&mut self, why: Hold) {
        self.held |= why as u8;
    }

    pub(crate) fn release(&mut self, why: Hold) {
        self.held &= !(why as u8);
    }

    // ---- out: to the writer ----

    /// Moves up to `budget_bytes` (and at least one frame, if there is any) into `into`. Expired deliveries are
    /// left out and counted.
    pub(crate) fn take(&mut self, into: &mut Vec<Taken>, budget_bytes: usize, now: Instant) -> Rest {
        self.touched = false;
        let mut budget = Budget { left: budget_bytes, taken: 0 };
        while budget.allows()
            && let Some(frame) = self.pop_control()
        {
            budget.spend(frame.len());
            into.push(Taken::Frame(frame));
        }
        if self.held != 0 || matches!(self.phase, Phase::Written | Phase::Failed) {
            return Rest::Nothing;
        }
        while budget.allows()
            && let Some(frame) = self.encoded.pop_front()
        {
            self.encoded_bytes -= frame.len();
            budget.spend(frame.len());
            into.push(Taken::Frame(frame));
        }
        while budget.allows()
            && let Some(entry) = self.pop_ready()
        {
            if entry.publication.is_expired(now) {
                self.expired += 1;
                continue;
            }
            budget.spend(entry.size_bytes as usize);
            into.push(Taken::Entry(entry));
        }
        if !budget.allows() {
            return Rest::More;
        }
        if self.needs_session() {
            return Rest::Session;
        }
        self.take_close(into);
        self.shrink();
        Rest::Nothing
    }

    fn pop_control(&mut self) -> Option<Bytes> {
        let frame = self.control.pop_front().or_else(|| self.pong.take())?;
        self.control_bytes -= frame.len();
        Some(frame)
    }

    /// The next delivery whose bytes are ready.
    fn pop_ready(&mut self) -> Option<Entry> {
        if self.owner_encodes || self.tells_lag_first() {
            self.skip_dead();
            return None;
        }
        loop {
            let entry =
                self.qos0.pop_front_if(|entry| entry.form.is_some() || !entry.subscription.is_alive())?;
            if entry.subscription.is_alive() {
                return Some(entry);
            }
        }
    }

    fn skip_dead(&mut self) {
        while self.qos0.pop_front_if(|entry| !entry.subscription.is_alive()).is_some() {}
        while self.acked.pop_front_if(|entry| !entry.subscription.is_alive()).is_some() {}
    }

    fn needs_session(&mut self) -> bool {
        if self.qos0.is_empty() && self.acked.is_empty() {
            return false;
        }
        self.skip_dead();
        let qos0 = !self.qos0.is_empty() && self.wants.qos0;
        let acked = !self.acked.is_empty() && self.wants.acked;
        self.is_open() && (qos0 || acked)
    }

    fn tells_lag_first(&self) -> bool {
        self.lag.is_some() && self.lag_notice == LagNotice::WithNext
    }

    /// With [`DataLane::Drain`], entries that only the session could encode are not waited for: the owner has
    /// pulled them before it closed.
    fn take_close(&mut self, into: &mut Vec<Taken>) {
        if let Phase::Closing(frame) = &mut self.phase {
            into.push(Taken::Close(std::mem::take(frame)));
            self.phase = Phase::Written;
        }
    }

    fn shrink(&mut self) {
        self.qos0.shrink_if_empty();
        self.acked.shrink_if_empty();
        if self.control.is_empty() && self.control.capacity() > 0 {
            self.control = VecDeque::new();
        }
        if self.encoded.is_empty() && self.encoded.capacity() > 0 {
            self.encoded = VecDeque::new();
        }
    }

    // ---- out: to the session ----

    /// Takes up to `count` deliveries that need the session; from the QoS 0 lane in a run, from the other one at a
    /// time, since each may fill the window.
    pub(crate) fn take_for_session(&mut self, into: &mut Vec<Entry>, count: usize, wants: Wants) {
        self.wants = wants;
        // Closed for new ones by an order, what is queued may still be encoded.
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let through_owner = self.owner_encodes || self.tells_lag_first();
        while wants.qos0 && into.len() < count {
            let needs =
                |entry: &Entry| through_owner || entry.form.is_none() || !entry.subscription.is_alive();
            let Some(entry) = self.qos0.pop_front_if(needs) else { break };
            if entry.subscription.is_alive() {
                into.push(entry);
            }
        }
        while wants.acked && into.is_empty() {
            let Some(entry) = self.acked.pop_front_if(|_| true) else { break };
            if entry.subscription.is_alive() {
                into.push(entry);
            }
        }
    }

    /// Deliveries that expired in the queue since the last call.
    pub(crate) fn take_expired(&mut self) -> u32 {
        std::mem::take(&mut self.expired)
    }

    pub(crate) fn take_waiters(&mut self) -> Vec<Weak<Outbox>> {
        std::mem::take(&mut self.waiters)
    }

    /// What was lost since the last call. While it gives something, the owner asks again after
    /// [`LAG_INTERVAL`] and is not woken for it before.
    pub(crate) fn take_lag(&mut self) -> Option<Box<Lag>> {
        let lag = self.lag.take();
        self.lag_is_timed = lag.is_some();
        lag
    }

    // ---- room ----

    /// Called when something was taken: who waited for room, if there is some.
    pub(crate) fn waiters_if_room(&mut self, limits: &Limits, now: Instant) -> Vec<Weak<Outbox>> {
        if self.over_since.is_none() || self.is_over_mark(limits) {
            return Vec::new();
        }
        if let Some(since) = self.over_since.take() {
            if self.slow_spent_at(now).is_zero() {
                self.slow_window_start = Some(since);
                self.slow_spent = Duration::ZERO;
            }
            self.slow_spent += now.saturating_duration_since(since);
        }
        std::mem::take(&mut self.waiters)
    }

    /// Enters a publisher that waits for room. `false`: there is room, or the client is going.
    pub(crate) fn wait_for_room(&mut self, publisher: Weak<Outbox>, limits: &Limits) -> bool {
        let waits = self.is_open() && self.is_over_mark(limits);
        if waits && !self.waiters.iter().any(|waiter| waiter.ptr_eq(&publisher)) {
            self.waiters.retain(|waiter| waiter.strong_count() > 0);
            self.waiters.push(publisher);
        }
        waits
    }

    fn is_over_mark(&self, limits: &Limits) -> bool {
        self.messages() >= limits.messages_max || self.bytes() >= limits.bytes_max
    }

    /// Waiting caused within the window that now ends.
    fn slow_spent_at(&self, now: Instant) -> Duration {
        let is_current =
            self.slow_window_start.is_some_and(|start| now.saturating_duration_since(start) < SLOW_WINDOW);
        if is_current { self.slow_spent } else { Duration::ZERO }
    }

    // ---- the end ----

    /// From here on no delivery is queued. `frame` is the Close frame, written behind all that goes before it.
    pub(crate) fn close(&mut self, frame: Bytes, data: DataLane) -> usize {
        if matches!(self.phase, Phase::Written | Phase::Failed | Phase::Closing(_)) {
            return 0;
        }
        self.phase = Phase::Closing(frame);
        self.held = 0;
        let unsent = match data {
            DataLane::Drain => self.acked.clear(),
            DataLane::Abort => {
                self.encoded.clear();
                self.encoded_bytes = 0;
                self.acked.clear() + self.qos0.clear()
            }
        };
        let paced = self.pacer.take().map_or(0, |pacer| pacer.len());
        unsent + paced
    }

    /// The socket failed, or the connection is dropped: everything goes.
    pub(crate) fn fail(&mut self) -> usize {
        self.phase = Phase::Failed;
        let dropped =
            self.qos0.clear() + self.acked.clear() + self.pacer.take().map_or(0, |pacer| pacer.len());
        self.control.clear();
        self.pong = None;
        self.encoded.clear();
        (self.control_bytes, self.encoded_bytes) = (0, 0);
        self.shrink();
        self.signals.add(Signals::ENDED);
        dropped
    }

    /// Tells the owner to end the connection; until it has, nothing more is queued.
    pub(crate) fn order_close(&mut self, reason: CloseReason) {
        self.order.get_or_insert(reason);
        self.signals.add(Signals::ORDER);
    }

    pub(crate) fn order(&self) -> Option<CloseReason> {
        self.order.clone()
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.order.is_none()
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    // ---- marks and sums ----

    pub(crate) fn messages(&self) -> usize {
        self.qos0.len() + self.acked.len() + self.pacer.as_ref().map_or(0, |pacer| pacer.len())
    }

    pub(crate) fn bytes(&self) -> usize {
        let paced = self.pacer.as_ref().map_or(0, |pacer| pacer.bytes());
        self.qos0.bytes() + self.acked.bytes() + self.encoded_bytes + paced
    }

    pub(crate) fn control_bytes(&self) -> usize {
        self.control_bytes
    }

    pub(crate) fn is_below_half(&self, limits: &Limits) -> bool {
        self.messages() * 2 < limits.messages_max && self.bytes() * 2 < limits.bytes_max
    }

    /// Takes on the duty to flush. `false`: somebody else has it, or the owner will do it.
    pub(crate) fn touch(&mut self) -> bool {
        let is_first = !self.touched && self.blocked_since.is_none() && self.held == 0;
        self.touched |= is_first;
        is_first
    }

    pub(crate) fn block(&mut self, now: Instant) {
        if self.blocked_since.is_none() {
            self.blocked_since = Some(now);
            self.signals.add(Signals::BLOCKED);
        }
    }

    /// The socket took bytes but not all: its silence counts from here.
    pub(crate) fn block_anew(&mut self, now: Instant) {
        self.block(now);
        self.blocked_since = Some(now);
    }

    /// The socket took all.
    pub(crate) fn unblock(&mut self) {
        self.blocked_since = None;
    }

    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    // ---- waking the owner ----

    pub(crate) fn signal(&mut self, signal: Signals) {
        self.signals.add(signal);
    }

    /// The waker, once, if there is something to look at.
    pub(crate) fn waker_if_signalled(&mut self) -> Option<Waker> {
        if self.signals.is_empty() { None } else { self.waker.take() }
    }

    /// What happened since the last call; with nothing, the owner is woken at the next signal.
    pub(crate) fn poll_signals(&mut self, waker: &Waker) -> Signals {
        let signals = std::mem::take(&mut self.signals);
        if signals.is_empty() && !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        signals
    }

    // ---- what the client is told ----

    fn dropped(&mut self, entry: &Entry, reason: DropReason) -> Pushed {
        self.note_drop(entry);
        Pushed::Dropped(reason)
    }

    /// Counts a drop that was decided elsewhere (memory of the whole broker).
    pub(crate) fn note_drop(&mut self, entry: &Entry) {
        if self.lag_notice == LagNotice::Silent {
            return;
        }
        let lag = self.lag.get_or_insert_default();
        lag.dropped += 1;
        let topic = &entry.publication.topic;
        if lag.topics.len() < LAG_TOPICS_MAX && !lag.topics.contains(topic) {
            lag.topics.push(topic.clone());
        }
        self.signal_lag();
    }

    fn conflated(&mut self) {
        if self.lag_notice == LagNotice::Silent {
            return;
        }
        self.lag.get_or_insert_default().conflated += 1;
        self.signal_lag();
    }

    fn signal_lag(&mut self) {
        if self.lag_notice == LagNotice::Separate && !self.lag_is_timed {
            self.signals.add(Signals::LAG);
        }
    }
}

/// Bytes that one take may still move.
struct Budget {
    left: usize,
    taken: usize,
}

impl Budget {
    fn allows(&self) -> bool {
        self.left > 0 && self.taken < FRAMES_PER_TAKE_MAX
    }

    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.taken += 1;
    }
}

/// Frames of one take; bounds the work under the queue's lock.
const FRAMES_PER_TAKE_MAX: usize = 256;

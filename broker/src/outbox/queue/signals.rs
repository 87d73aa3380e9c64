//! Who has to be told what: the owner by signals, the publishers that wait for room.
//!
//! Gives wakers and waiters; whoever called wakes them once the lock is free.

use std::sync::Weak;
use std::task::Waker;
use std::time::Instant;

use super::{Limits, Queue};
use crate::outbox::Outbox;
use crate::outbox::room::Amount;

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
    /// A commit that this client's answers waited for is done.
    pub const COMMITTED: Self = Self(128);

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

impl Queue {
    // ---- the owner ----

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

    /// Takes on the duty to flush. `false`: somebody else has it, or the owner will do it.
    pub(crate) fn touch(&mut self) -> bool {
        let is_owners = self.blocked_since.is_some() || self.held != 0 || self.owner_due;
        let is_first = !self.touched && !is_owners;
        self.touched |= is_first;
        is_first
    }

    /// The socket takes no more. The owner is told once, and waits for it from then on: telling it each time would
    /// make it try for ever.
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

    /// The socket took all. The owner goes on with what it put off meanwhile.
    pub(crate) fn unblock(&mut self) {
        if self.blocked_since.take().is_some() {
            self.signals.add(Signals::SESSION);
        }
    }

    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Has the owner woken by [`Queue::signal_below_half`], unless there is room already.
    pub(crate) fn wakes_below_half(&mut self, limits: &Limits) -> bool {
        self.awaits_half = !self.is_below_half(limits);
        self.awaits_half
    }

    /// Called when something was taken.
    pub(crate) fn signal_below_half(&mut self, limits: &Limits) {
        if self.awaits_half && self.is_below_half(limits) {
            self.awaits_half = false;
            self.signals.add(Signals::SESSION);
        }
    }

    // ---- those who wait for room ----

    /// Enters a publisher that waits for room. `false`: there is room, or the client is going.
    pub(crate) fn wait_for_room(&mut self, publisher: Weak<Outbox>, limits: &Limits) -> bool {
        let waits = self.is_open() && self.is_over_mark(limits);
        if waits {
            self.room.get_or_insert_default().wait(publisher);
        }
        waits
    }

    /// Called when something was taken: who waited for room, if there is some.
    pub(crate) fn waiters_if_room(
        &mut self,
        taken: Amount,
        limits: &Limits,
        now: Instant,
    ) -> Vec<Weak<Outbox>> {
        if let Some(room) = &mut self.room {
            room.note_taken(taken);
        }
        let is_over = self.is_over_mark(limits);
        let room = self.room.as_mut().filter(|room| !is_over && room.is_awaited());
        room.map(|room| room.open(limits, now)).unwrap_or_default()
    }

    /// Those who wait for room, when there will be none.
    pub(crate) fn take_waiters(&mut self) -> Vec<Weak<Outbox>> {
        self.room.as_mut().map(|room| room.take_waiters()).unwrap_or_default()
    }

    /// So much waits in the client's mailbox for a place here.
    pub(crate) fn set_behind(&mut self, behind: Amount) {
        if self.room.is_some() || behind.messages > 0 {
            self.room.get_or_insert_default().set_behind(behind);
        }
    }

    /// Whether the publisher of the newest that waits behind should wait: it has gone beyond the mark, and that may be
    /// borne a little longer. As [`Queue::push`] would have said, if all of it stood here.
    pub(crate) fn holds_behind(&mut self, limits: &Limits, now: Instant) -> bool {
        let Amount { messages, bytes } = self.with_behind();
        let is_beyond = messages > limits.messages_max || bytes > limits.bytes_max;
        is_beyond && self.is_open() && self.room.get_or_insert_default().is_patient(limits, now)
    }

    fn is_over_mark(&self, limits: &Limits) -> bool {
        let Amount { messages, bytes } = self.with_behind();
        messages >= limits.messages_max || bytes >= limits.bytes_max
    }

    /// All that waits for the client to take it.
    fn with_behind(&self) -> Amount {
        let behind = self.room.as_ref().map(|room| room.behind()).unwrap_or_default();
        Amount {
            messages: self.messages().saturating_add(behind.messages),
            bytes: self.bytes().saturating_add(behind.bytes),
        }
    }
}

//! The outbox and its client's mailbox: what waits there behind the queue, and what the queue leaves to it.
//!
//! Lock order: mailbox, then queue. What waits behind is the mailbox's own; here it is only counted and moved.

use std::time::Instant;

use super::lane::Lane;
use super::queue::Signals;
use super::room::Amount;
use super::{Outbox, wake, wake_publishers};
use crate::subscription::{Entry, Subscription};

impl Outbox {
    /// Moves deliveries from `backlog` into the queue while that is below half of its mark; those of ended
    /// subscriptions and expired ones are left out. `further` waits behind that. Gives how many were moved.
    pub(crate) fn feed(&self, backlog: &mut Lane, further: Amount, now: Instant) -> usize {
        let (moved, waiters) = {
            let mut queue = self.queue.lock();
            let moved = queue.feed(backlog, &self.shared.limits, now);
            self.count_expired(&mut queue);
            queue.set_behind(backlog.amount() + further);
            // What was left out makes room, what was moved does not.
            (moved, queue.waiters_if_room(Amount::default(), &self.shared.limits, now))
        };
        wake_publishers(&waiters);
        moved
    }

    /// A delivery was put behind this queue, where so much waits: both together are held against the mark.
    /// Gives whether its publisher should wait. The owner is woken when it can feed the queue.
    pub(crate) fn note_behind(&self, behind: Amount, now: Instant) -> bool {
        let (is_held, waiters, waker) = {
            let limits = &self.shared.limits;
            let mut queue = self.queue.lock();
            queue.set_behind(behind);
            let is_held = queue.holds_behind(limits, now);
            let waiters = queue.waiters_if_room(Amount::default(), limits, now);
            if !queue.wakes_below_half(limits) {
                // The owner may have seen an empty backlog a moment ago.
                queue.signal(Signals::SESSION);
            }
            (is_held, waiters, queue.waker_if_signalled())
        };
        wake(waker);
        wake_publishers(&waiters);
        is_held
    }

    /// So much waits behind this queue.
    pub(crate) fn set_behind(&self, behind: Amount, now: Instant) {
        let waiters = {
            let mut queue = self.queue.lock();
            queue.set_behind(behind);
            queue.waiters_if_room(Amount::default(), &self.shared.limits, now)
        };
        wake_publishers(&waiters);
    }

    /// Messages were dropped while the client was away.
    pub(crate) fn note_lost(&self, count: u64) {
        self.queue.lock().note_lost(count);
    }

    /// What is queued at QoS > 0 survives the end of the connection, for whoever takes it then.
    pub fn keep_acked(&self) {
        self.queue.lock().keep_acked();
    }

    /// Takes the acknowledged deliveries that are queued. They are counted as queued still.
    pub(crate) fn take_acked(&self) -> Vec<Entry> {
        self.queue.lock().take_acked()
    }

    /// Takes those of one subscription; they are not counted any more.
    pub(crate) fn take_acked_of(&self, subscription: &Subscription) -> Vec<Entry> {
        let taken = self.queue.lock().take_acked_of(subscription);
        self.left(taken.len());
        taken
    }
}

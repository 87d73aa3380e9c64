//! What a push comes to: the marks, the patience with a full queue, and the overflow policies (DESIGN §6).
//!
//! Never wakes or writes; conflation is in `conflating`.

use std::time::{Duration, Instant};

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{CloseKind, CloseReason, DropReason, Overflow};

use super::{Limits, Queue};
use crate::outbox::lane::Lane;
use crate::subscription::{Entry, Target};

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
    /// Not queued, and not lost: the client's mailbox has room.
    Full,
    /// Not here, and not lost: it is on the disk.
    Stored,
    /// The client is gone or going.
    Closed,
}

impl Pushed {
    /// How many entries the queue has more than before.
    pub fn growth(self) -> isize {
        match self {
            Self::Queued | Self::HalfFull | Self::OverMark => 1,
            Self::Made(_, count) => 1 - isize::try_from(count).unwrap_or(isize::MAX),
            Self::Dropped(_) | Self::Full | Self::Stored | Self::Closed => 0,
        }
    }
}

impl Queue {
    /// Queues without waiting and applies the policy of the entry's subscription. Never touches another
    /// subscription's entries.
    pub(crate) fn push(&mut self, entry: Entry, limits: &Limits, now: Instant) -> Pushed {
        if !self.is_open() {
            return Pushed::Closed;
        }
        if self.is_too_large(&entry) {
            return self.dropped(&entry, DropReason::TooLarge);
        }
        if entry.qos != QoS::AtMostOnce {
            return self.append(entry, limits, now);
        }
        match entry.subscription.conflate() {
            None => self.append(entry, limits, now),
            Some(Duration::ZERO) => self.replace_or_append(entry, limits, now),
            Some(interval) => self.pace(entry, interval, limits, now),
        }
    }

    /// Appends a retained publication. Paced by the caller, so that no policy applies. What waits for its turn is
    /// older and must not come after it.
    pub(crate) fn push_retained(&mut self, entry: Entry) -> Pushed {
        if !self.is_open() {
            return Pushed::Closed;
        }
        if self.is_too_large(&entry) {
            return self.dropped(&entry, DropReason::TooLarge);
        }
        let older = self.pacer.as_mut().and_then(|pacer| pacer.remove_feed(&entry));
        self.enqueue(entry);
        if older.is_some() { self.conflated() } else { Pushed::Queued }
    }

    /// Moves from `backlog` what fits into half of the mark. Gives how many.
    pub(crate) fn feed(&mut self, backlog: &mut Lane, limits: &Limits, now: Instant) -> usize {
        let mut moved = 0;
        while self.is_open()
            && self.is_below_half(limits)
            && let Some(entry) = backlog.pop_front_if(|_| true)
        {
            if entry.publication.is_expired(now) {
                self.expired += 1;
            } else if entry.subscription.is_alive() {
                self.enqueue(entry);
                moved += 1;
            }
        }
        moved
    }

    /// Whether the client does not take a message of this size; the session sees to what it encodes itself.
    fn is_too_large(&self, entry: &Entry) -> bool {
        self.packet_bytes_max != usize::MAX
            && entry
                .shared()
                .is_some_and(|shared| entry.head().len() + shared.message().len() > self.packet_bytes_max)
    }

    pub(super) fn append(&mut self, entry: Entry, limits: &Limits, now: Instant) -> Pushed {
        self.admit(entry, limits, now, Self::enqueue)
    }

    /// Holds `entry` against the marks and lets `put` queue it.
    pub(super) fn admit(
        &mut self,
        entry: Entry,
        limits: &Limits,
        now: Instant,
        put: fn(&mut Self, Entry),
    ) -> Pushed {
        let size = entry.size_bytes as usize;
        if !self.fits(size, limits) && std::mem::take(&mut self.has_dead) {
            self.remove_dead();
        }
        if self.fits(size, limits) {
            put(self, entry);
            // What cannot be written now, a flush would not help.
            let helps = self.blocked_since.is_none() && self.held == 0 && !self.owner_due;
            return if helps && !self.is_below_half(limits) { Pushed::HalfFull } else { Pushed::Queued };
        }
        let is_twice = self.messages() >= limits.messages_max.saturating_mul(2)
            || self.bytes().saturating_add(size) > limits.bytes_max.saturating_mul(2);
        if self.room.get_or_insert_default().is_patient(limits, now) && !is_twice {
            put(self, entry);
            return Pushed::OverMark;
        }
        self.overflow(entry, limits, put)
    }

    /// The incoming entry's subscription decides (DESIGN §6).
    fn overflow(&mut self, entry: Entry, limits: &Limits, put: fn(&mut Self, Entry)) -> Pushed {
        let is_kept = entry.qos > QoS::AtMostOnce && matches!(entry.subscription.target, Target::Mailbox(_));
        if is_kept {
            return Pushed::Full;
        }
        match entry.subscription.policy(entry.qos) {
            Overflow::DropNewest => self.dropped(&entry, DropReason::Newest),
            Overflow::Conflate if self.conflates_in_place(&entry, limits) => {
                let _old = self.qos0.replace(entry);
                self.conflated()
            }
            Overflow::DropOldest | Overflow::Conflate => self.make_room(entry, limits, put),
            Overflow::Disconnect => {
                self.order_close(CloseReason::new(CloseKind::TooSlow, "too slow: the outbox is full"));
                self.dropped(&entry, DropReason::Closed)
            }
        }
    }

    /// Removes the oldest of the same subscription and lane until `entry` fits. When the others alone fill the
    /// queue, it takes the place of as many bytes of its own subscription, so that nothing grows.
    fn make_room(&mut self, entry: Entry, limits: &Limits, put: fn(&mut Self, Entry)) -> Pushed {
        let (size, id) = (entry.size_bytes as usize, entry.subscription.id);
        let (mut removed, mut removed_bytes) = (0, 0);
        // One for one in the steady state of a stalled client; a look at all of them only when that is not enough.
        let oldest_bytes = self.lane(entry.qos).oldest_size_of(id);
        if !self.fits_without(1, oldest_bytes, size, limits) {
            let (count, bytes) = self.lane(entry.qos).share_of(id);
            if count == 0 || (!self.fits_without(count, bytes, size, limits) && bytes < size) {
                return self.dropped(&entry, DropReason::Oldest);
            }
            let others_fill = !self.fits_without(count, bytes, size, limits);
            while (others_fill && removed_bytes < size) || (!others_fill && !self.fits(size, limits)) {
                let Some(oldest) = self.lane(entry.qos).remove_oldest_of(id) else { break };
                removed_bytes += oldest.size_bytes as usize;
                self.note_drop(&oldest);
                removed += 1;
            }
        } else if let Some(oldest) = self.lane(entry.qos).remove_oldest_of(id) {
            self.note_drop(&oldest);
            removed = 1;
        }
        if removed == 0 {
            return self.dropped(&entry, DropReason::Oldest);
        }
        put(self, entry);
        Pushed::Made(DropReason::Oldest, removed)
    }

    fn fits_without(&self, count: usize, bytes: usize, size: usize, limits: &Limits) -> bool {
        self.messages().saturating_sub(count) < limits.messages_max
            && self.bytes().saturating_sub(bytes).saturating_add(size) <= limits.bytes_max
    }

    fn fits(&self, size: usize, limits: &Limits) -> bool {
        let is_empty = self.messages() == 0 && self.encoded_bytes() == 0;
        let has_room =
            self.messages() < limits.messages_max && self.bytes().saturating_add(size) <= limits.bytes_max;
        is_empty || has_room
    }

    fn remove_dead(&mut self) {
        let is_dead = |entry: &Entry| !entry.subscription.is_alive();
        let before = self.messages();
        self.qos0.remove_where(is_dead);
        if let Some(acked) = &mut self.acked {
            acked.remove_where(is_dead);
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.remove_dead();
        }
        self.swept += before - self.messages();
    }

    /// Entries of ended subscriptions that left at a push, since the last call.
    pub(crate) fn take_swept(&mut self) -> usize {
        std::mem::take(&mut self.swept)
    }

    fn dropped(&mut self, entry: &Entry, reason: DropReason) -> Pushed {
        self.note_drop(entry);
        Pushed::Dropped(reason)
    }
}

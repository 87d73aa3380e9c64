//! Conflation: a newer delivery in the place of an older one of its feed, at once or when its turn has come (DESIGN §6).
//!
//! Whose turn it is, the pacer knows; the marks are in `admit`.

use std::time::{Duration, Instant};

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::DropReason;

use super::{Limits, Pushed, Queue, Signals};
use crate::outbox::conflate::Turn;
use crate::subscription::Entry;

impl Queue {
    pub(super) fn replace_or_append(&mut self, entry: Entry, limits: &Limits, now: Instant) -> Pushed {
        match self.qos0.find(&entry).map(|old| old.size_bytes) {
            Some(old) if self.may_grow(old, entry.size_bytes, limits) => {
                // Found two lines up, so nothing comes back.
                let _old = self.qos0.replace(entry);
                self.conflated()
            }
            Some(_) => {
                self.qos0.remove_feed(&entry);
                self.instead_of_removed(entry, limits, now, Self::enqueue)
            }
            None => self.append(entry, limits, now),
        }
    }

    pub(super) fn conflates_in_place(&self, entry: &Entry, limits: &Limits) -> bool {
        entry.qos == QoS::AtMostOnce
            && self
                .qos0
                .find(entry)
                .is_some_and(|old| self.may_grow(old.size_bytes, entry.size_bytes, limits))
    }

    /// An entry that may take an older one's place stays within twice the mark.
    fn may_grow(&self, old_bytes: u32, new_bytes: u32, limits: &Limits) -> bool {
        let grown = (self.bytes() + new_bytes as usize).saturating_sub(old_bytes as usize);
        new_bytes <= old_bytes || grown <= limits.bytes_max.saturating_mul(2)
    }

    /// The older one of the feed is gone already, since `entry` is too large for its place.
    fn instead_of_removed(
        &mut self,
        entry: Entry,
        limits: &Limits,
        now: Instant,
        put: fn(&mut Self, Entry),
    ) -> Pushed {
        self.notice.count_conflated();
        match self.admit(entry, limits, now, put) {
            Pushed::Made(reason, count) => Pushed::Made(reason, count + 1),
            Pushed::Dropped(reason) => Pushed::Made(reason, 2),
            _ => Pushed::Made(DropReason::Conflated, 1),
        }
    }

    pub(super) fn pace(&mut self, entry: Entry, interval: Duration, limits: &Limits, now: Instant) -> Pushed {
        let pacer = self.pacer.get_or_insert_default();
        let waits_for = pacer.next_turn();
        let pushed = match pacer.turn_of(&entry, now) {
            Turn::Now => {
                pacer.goes(&entry, interval, limits.messages_max.saturating_mul(2), now);
                self.replace_or_append(entry, limits, now)
            }
            Turn::Later => self.admit(entry, limits, now, Self::keep),
            Turn::Instead { size_bytes } if self.may_grow(size_bytes, entry.size_bytes, limits) => {
                self.keep(entry);
                self.conflated()
            }
            Turn::Instead { .. } => {
                self.pacer.as_mut().and_then(|pacer| pacer.remove_feed(&entry));
                self.instead_of_removed(entry, limits, now, Self::keep)
            }
        };
        if self.next_paced().is_some_and(|turn| waits_for.is_none_or(|known| turn < known)) {
            // The owner knows of a later turn, or of none.
            self.signals.add(Signals::PACED);
        }
        pushed
    }

    fn keep(&mut self, entry: Entry) {
        if let Some(pacer) = &mut self.pacer {
            pacer.keep(entry);
        }
    }

    /// Moves paced deliveries whose turn has come into the lane. Gives the number of older ones that they replace.
    pub(crate) fn release_paced(&mut self, now: Instant) -> usize {
        let mut replaced = 0;
        while let Some(entry) = self.pacer.as_mut().and_then(|pacer| pacer.due(now)) {
            match self.qos0.replace(entry) {
                Ok(_old) => {
                    self.conflated();
                    replaced += 1;
                }
                Err(entry) => self.qos0.push_back(entry),
            }
        }
        if self.pacer.as_ref().is_some_and(|pacer| pacer.is_idle()) {
            self.pacer = None;
        }
        replaced
    }

    pub(crate) fn next_paced(&self) -> Option<Instant> {
        self.pacer.as_ref()?.next_turn()
    }
}

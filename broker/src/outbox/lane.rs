//! A FIFO of deliveries that finds and replaces entries in its middle. Knows no limits and no policy.

use std::collections::VecDeque;

use ahash::HashMap;
use tidegate_protocol::session::SubscriptionId;
use tidegate_protocol::topic::Topic;

use super::room::Amount;
use crate::subscription::Entry;

/// Entries in order. A removed one leaves a gap that is skipped, so that positions stay valid.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    slots: VecDeque<Option<Entry>>,
    /// The position of the first slot; positions only grow.
    first: u64,
    live: usize,
    bytes: usize,
    /// Positions of entries that may be conflated; kept only while the lane is long.
    feeds: Option<Box<HashMap<(SubscriptionId, Topic), u64>>>,
    /// No entry of this subscription stands before this position: where the last search for its oldest ended.
    scanned: Option<(SubscriptionId, u64)>,
}

/// Gaps beside the live entries before the slots are packed.
const GAPS_SPARE: usize = 16;

/// Slots that an idle lane keeps, so that a client with one message at a time costs no allocation for each.
const SPARE_SLOTS: usize = 4;

/// Up to this many, room for four times as many is made at once.
const SLOTS_FEW: usize = 256;

/// Below this many slots a scan is cheaper than an index.
const SCAN_SLOTS_MAX: usize = 16;

impl Lane {
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn amount(&self) -> Amount {
        Amount { messages: self.live, bytes: self.bytes }
    }

    pub(crate) fn push_back(&mut self, entry: Entry) {
        self.live += 1;
        self.bytes += entry.size_bytes as usize;
        if (self.feeds.is_some() || self.slots.len() >= SCAN_SLOTS_MAX) && entry.subscription.conflates() {
            self.index(&entry);
        }
        if self.slots.len() == self.slots.capacity() {
            self.grow();
        }
        self.slots.push_back(Some(entry));
    }

    /// The oldest entry, if it pleases. `None` leaves it where it is.
    pub(crate) fn pop_front_if(&mut self, pleases: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        self.skip_gaps();
        if !self.slots.front()?.as_ref().is_some_and(pleases) {
            return None;
        }
        let entry = self.slots.pop_front()??;
        self.forget(&entry, self.first);
        self.first += 1;
        Some(entry)
    }

    /// Removes the oldest entry of a subscription.
    pub(crate) fn remove_oldest_of(&mut self, id: SubscriptionId) -> Option<Entry> {
        let slot = self.oldest_slot_of(id)?;
        let entry = self.slots.get_mut(slot)?.take()?;
        self.forget(&entry, self.first + slot as u64);
        self.pack();
        Some(entry)
    }

    /// Removes what `goes`, wherever it stands. Looks at the whole lane.
    pub(crate) fn remove_where(&mut self, goes: impl Fn(&Entry) -> bool) -> usize {
        let before = self.live;
        for slot in &mut self.slots {
            if let Some(entry) = slot.take_if(|entry| goes(entry)) {
                self.live -= 1;
                self.bytes -= entry.size_bytes as usize;
            }
        }
        if self.live < before {
            self.compact();
        }
        before - self.live
    }

    /// Takes out what `goes`, in order. Looks at the whole lane.
    pub(crate) fn take_where(&mut self, goes: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut taken = Vec::new();
        for slot in &mut self.slots {
            if let Some(entry) = slot.take_if(|entry| goes(entry)) {
                self.live -= 1;
                self.bytes -= entry.size_bytes as usize;
                taken.push(entry);
            }
        }
        if !taken.is_empty() {
            self.compact();
        }
        taken
    }

    /// Bytes of the entry that [`Lane::remove_oldest_of`] would remove; 0 without one.
    pub(crate) fn oldest_size_of(&mut self, id: SubscriptionId) -> usize {
        let slot = self.oldest_slot_of(id);
        slot.and_then(|slot| self.slots.get(slot)?.as_ref()).map_or(0, |entry| entry.size_bytes as usize)
    }

    /// Entries of a subscription and their bytes. Looks at the whole lane.
    pub(crate) fn share_of(&self, id: SubscriptionId) -> (usize, usize) {
        let mates = self.slots.iter().flatten().filter(|entry| entry.subscription.id == id);
        mates.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.size_bytes as usize))
    }

    /// The queued entry of the same feed whose place `entry` may take.
    pub(crate) fn find(&self, entry: &Entry) -> Option<&Entry> {
        self.slot_of(entry).and_then(|slot| self.slots.get(slot)?.as_ref())
    }

    /// Puts `entry` in the place of a queued one of the same feed. Gives it back when there is none.
    pub(crate) fn replace(&mut self, entry: Entry) -> Result<Entry, Entry> {
        let slot = self.slot_of(&entry);
        let Some(Some(old)) = slot.and_then(|slot| self.slots.get_mut(slot)) else { return Err(entry) };
        self.bytes = self.bytes - old.size_bytes as usize + entry.size_bytes as usize;
        Ok(std::mem::replace(old, entry))
    }

    /// Removes the queued entry of the same feed.
    pub(crate) fn remove_feed(&mut self, like: &Entry) -> Option<Entry> {
        let slot = self.slot_of(like)?;
        let entry = self.slots.get_mut(slot)?.take()?;
        self.forget(&entry, self.first + slot as u64);
        self.pack();
        Some(entry)
    }

    /// Everything, for a count; the lane is empty afterwards.
    pub(crate) fn clear(&mut self) -> usize {
        let dropped = self.live;
        *self = Self { first: self.first, ..Self::default() };
        dropped
    }

    /// Gives memory back when nothing is queued: an idle client keeps no buffer.
    pub(crate) fn shrink_if_empty(&mut self) {
        if self.live == 0 {
            self.first += self.slots.len() as u64;
            self.slots.clear();
            self.feeds = None;
            self.scanned = None;
            if self.slots.capacity() > SPARE_SLOTS {
                self.slots = VecDeque::new();
            }
        }
    }

    /// Most fan-outs bring one entry, and ten thousand lanes grow at a time; a lane that has more will soon have many.
    fn grow(&mut self) {
        let slots = self.slots.capacity();
        let grown = match slots {
            0 => 1,
            1..SPARE_SLOTS => SPARE_SLOTS,
            SPARE_SLOTS..SLOTS_FEW => slots * 4,
            _ => slots * 2,
        };
        self.slots.reserve_exact(grown - self.slots.len());
    }

    fn skip_gaps(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
    }

    fn forget(&mut self, entry: &Entry, position: u64) {
        self.live -= 1;
        self.bytes -= entry.size_bytes as usize;
        if self.live == 0 {
            self.feeds = None;
        }
        if let Some(feeds) = self.feeds.as_mut().filter(|_| entry.subscription.conflates())
            && let std::collections::hash_map::Entry::Occupied(feed) = feeds.entry(feed_of(entry))
            && *feed.get() == position
        {
            feed.remove();
        }
    }

    fn index(&mut self, entry: &Entry) {
        if self.feeds.is_none() {
            self.index_all();
        }
        let position = self.first + self.slots.len() as u64;
        if let Some(feeds) = &mut self.feeds {
            feeds.insert(feed_of(entry), position);
        }
    }

    fn index_all(&mut self) {
        let queued = (self.first..).zip(&self.slots);
        let conflating = queued.filter_map(|(position, slot)| {
            let entry = slot.as_ref().filter(|entry| entry.subscription.conflates())?;
            Some((feed_of(entry), position))
        });
        self.feeds = Some(Box::new(conflating.collect()));
    }

    /// Goes on where the last search ended, so that a stalled client costs its publishers no scan per message.
    fn oldest_slot_of(&mut self, id: SubscriptionId) -> Option<usize> {
        let known = self.scanned.filter(|(of, _)| *of == id).map_or(0, |(_, from)| from);
        let from = usize::try_from(known.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let from = from.min(self.slots.len());
        let is_mate = |slot: &Option<Entry>| slot.as_ref().is_some_and(|entry| entry.subscription.id == id);
        let found = self.slots.range(from..).position(is_mate).map(|offset| from + offset);
        let end = found.unwrap_or(self.slots.len());
        self.scanned = Some((id, self.first + end as u64));
        found
    }

    /// Drops gaps at the front, and all of them once they outnumber the entries: a client that takes nothing while
    /// its oldest are dropped must not own a slot for each message that ever came.
    fn pack(&mut self) {
        self.skip_gaps();
        if self.slots.len() > 2 * self.live + GAPS_SPARE {
            self.compact();
        }
    }

    fn compact(&mut self) {
        self.slots.retain(Option::is_some);
        self.scanned = None;
        if self.feeds.is_some() {
            self.index_all();
        }
    }

    fn slot_of(&self, entry: &Entry) -> Option<usize> {
        let slot = match &self.feeds {
            Some(feeds) => usize::try_from(feeds.get(&feed_of(entry))?.wrapping_sub(self.first)).ok()?,
            None => {
                let is_same = |slot: &Option<Entry>| slot.as_ref().is_some_and(|old| old.is_same_feed(entry));
                self.slots.iter().rposition(is_same)?
            }
        };
        // A dead one is no delivery that a newer one could stand for.
        self.slots.get(slot)?.as_ref().filter(|old| old.subscription.is_alive()).map(|_| slot)
    }
}

fn feed_of(entry: &Entry) -> (SubscriptionId, Topic) {
    (entry.subscription.id, entry.publication.topic.clone())
}

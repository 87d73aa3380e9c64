//! A FIFO of deliveries that finds and replaces entries in its middle. Knows no limits and no policy.

use std::collections::VecDeque;

use ahash::HashMap;
use tidegate_protocol::session::SubscriptionId;
use tidegate_protocol::topic::Topic;

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
}

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

    pub(crate) fn push_back(&mut self, entry: Entry) {
        self.live += 1;
        self.bytes += entry.size_bytes as usize;
        if self.slots.len() >= SCAN_SLOTS_MAX && entry.subscription.conflates() {
            self.index(&entry);
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

    /// Removes the oldest entry of the same subscription as `like`. Looks at no more than the whole lane.
    pub(crate) fn remove_oldest_of(&mut self, like: &Entry) -> Option<Entry> {
        let is_mate = |entry: &Entry| std::sync::Arc::ptr_eq(&entry.subscription, &like.subscription);
        let slot = self.slots.iter().position(|slot| slot.as_ref().is_some_and(is_mate))?;
        let entry = self.slots.get_mut(slot)?.take()?;
        self.forget(&entry, self.first + slot as u64);
        Some(entry)
    }

    /// Puts `entry` in the place of a queued one of the same feed. Gives it back when there is none.
    pub(crate) fn replace(&mut self, entry: Entry) -> Result<Entry, Entry> {
        let Some(position) = self.position_of(&entry) else { return Err(entry) };
        let slot = usize::try_from(position.wrapping_sub(self.first)).ok();
        let Some(Some(old)) = slot.and_then(|slot| self.slots.get_mut(slot)) else { return Err(entry) };
        self.bytes = self.bytes - old.size_bytes as usize + entry.size_bytes as usize;
        Ok(std::mem::replace(old, entry))
    }

    /// Everything, for a count; the lane is empty afterwards.
    pub(crate) fn clear(&mut self) -> usize {
        let dropped = self.live;
        *self = Self { first: self.first, ..Self::default() };
        dropped
    }

    /// Gives memory back when nothing is queued: an idle client keeps no buffer.
    pub(crate) fn shrink_if_empty(&mut self) {
        if self.live == 0 && self.slots.capacity() > 0 {
            self.first += self.slots.len() as u64;
            self.slots = VecDeque::new();
            self.feeds = None;
        }
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
            let mut feeds = Box::<HashMap<_, _>>::default();
            for (position, slot) in (self.first..).zip(&self.slots) {
                if let Some(queued) = slot.as_ref().filter(|queued| queued.subscription.conflates()) {
                    feeds.insert(feed_of(queued), position);
                }
            }
            self.feeds = Some(feeds);
        }
        let position = self.first + self.slots.len() as u64;
        if let Some(feeds) = &mut self.feeds {
            feeds.insert(feed_of(entry), position);
        }
    }

    fn position_of(&self, entry: &Entry) -> Option<u64> {
        if let Some(feeds) = &self.feeds {
            return feeds.get(&feed_of(entry)).copied();
        }
        let is_same = |slot: &Option<Entry>| slot.as_ref().is_some_and(|queued| queued.is_same_feed(entry));
        let slot = self.slots.iter().rposition(is_same)?;
        Some(self.first + slot as u64)
    }
}

fn feed_of(entry: &Entry) -> (SubscriptionId, Topic) {
    (entry.subscription.id, entry.publication.topic.clone())
}

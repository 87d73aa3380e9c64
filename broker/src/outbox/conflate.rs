//! Conflation with an interval: at most one delivery per topic and interval, and always the latest one at last.
//!
//! Knows no lane: it says whether a delivery may go now, keeps the latest of those that may not, and gives them
//! back when their time has come.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ahash::HashMap;
use tidegate_protocol::session::SubscriptionId;
use tidegate_protocol::topic::Topic;

use crate::subscription::Entry;

/// The feeds of one client that were served less than an interval ago, each with what waits for its turn.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    feeds: HashMap<(SubscriptionId, Topic), Feed>,
    /// In the order in which they were opened, about the order of their turns; rechecked when taken.
    turns: VecDeque<(Instant, SubscriptionId, Topic)>,
    bytes: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Feed {
    opens_at: Instant,
    waiting: Option<Entry>,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It may go.
    Now,
    /// It has to wait; nothing of its feed waits yet.
    Later,
    /// It has to wait, in the place of an older one of this size.
    Instead {
        /// What the older one counts.
        size_bytes: u32,
    },
}

impl Pacer {
    /// Whether `entry` may go now.
    pub(crate) fn turn_of(&self, entry: &Entry, now: Instant) -> Turn {
        match self.feeds.get(&feed_of(entry)) {
            Some(Feed { waiting: Some(old), .. }) => Turn::Instead { size_bytes: old.size_bytes },
            Some(feed) if feed.opens_at > now => Turn::Later,
            _ => Turn::Now,
        }
    }

    /// Notes that `entry` goes now. Beyond `feeds_max` feeds the new ones are not paced, which bounds memory.
    pub(crate) fn goes(&mut self, entry: &Entry, interval: Duration, feeds_max: usize, now: Instant) {
        if self.feeds.len() < feeds_max {
            self.open(feed_of(entry), now + interval);
        }
    }

    /// Keeps `entry` until its turn. Gives the older one of its feed.
    pub(crate) fn keep(&mut self, entry: Entry) -> Option<Entry> {
        let feed = self.feeds.get_mut(&feed_of(&entry))?;
        self.bytes += entry.size_bytes as usize;
        self.waiting += 1;
        let old = feed.waiting.replace(entry)?;
        self.bytes -= old.size_bytes as usize;
        self.waiting -= 1;
        Some(old)
    }

    /// Removes what waits of the same feed.
    pub(crate) fn remove_feed(&mut self, like: &Entry) -> Option<Entry> {
        let old = self.feeds.get_mut(&feed_of(like))?.waiting.take()?;
        self.bytes -= old.size_bytes as usize;
        self.waiting -= 1;
        Some(old)
    }

    /// Forgets what waits for subscriptions that have ended.
    pub(crate) fn remove_dead(&mut self) {
        for feed in self.feeds.values_mut() {
            if let Some(old) = feed.waiting.take_if(|entry| !entry.subscription.is_alive()) {
                self.bytes -= old.size_bytes as usize;
                self.waiting -= 1;
            }
        }
    }

    /// The next delivery whose turn has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Entry> {
        while self.turns.front()?.0 <= now {
            let (at, id, topic) = self.turns.pop_front()?;
            let key = (id, topic);
            // A turn that is not its feed's own is left over from before the feed was opened anew.
            if self.feeds.get(&key).is_none_or(|feed| feed.opens_at != at) {
                continue;
            }
            let Some(entry) = self.feeds.remove(&key).and_then(|feed| feed.waiting) else { continue };
            self.bytes -= entry.size_bytes as usize;
            self.waiting -= 1;
            if entry.subscription.is_alive() {
                self.open(key, now + entry.subscription.conflate().unwrap_or_default());
                return Some(entry);
            }
        }
        None
    }

    /// When [`Pacer::due`] has work again.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        self.turns.front().map(|(at, ..)| *at)
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Deliveries that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nothing is remembered, so that it can be dropped.
    pub(crate) fn is_idle(&self) -> bool {
        self.feeds.is_empty()
    }

    fn open(&mut self, key: (SubscriptionId, Topic), opens_at: Instant) {
        // Intervals differ by subscription, so a turn is entered where it belongs.
        let place = self.turns.partition_point(|(at, ..)| *at <= opens_at);
        self.turns.insert(place, (opens_at, key.0, key.1.clone()));
        self.feeds.insert(key, Feed { opens_at, waiting: None });
    }
}

fn feed_of(entry: &Entry) -> (SubscriptionId, Topic) {
    (entry.subscription.id, entry.publication.topic.clone())
}

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

/// What becomes of a delivery.
#[derive(Debug)]
pub(crate) enum Paced {
    /// It may go now.
    Go(Entry),
    /// It waits for its turn.
    Waits,
    /// It waits in the place of an older one.
    Replaced,
}

impl Pacer {
    /// Holds `entry` against its feed's interval.
    pub(crate) fn offer(&mut self, entry: Entry, interval: Duration, now: Instant) -> Paced {
        let key = (entry.subscription.id, entry.publication.topic.clone());
        match self.feeds.get_mut(&key) {
            Some(feed) if feed.opens_at > now || feed.waiting.is_some() => {
                self.bytes += entry.size_bytes as usize;
                match feed.waiting.replace(entry) {
                    Some(old) => {
                        self.bytes -= old.size_bytes as usize;
                        Paced::Replaced
                    }
                    None => {
                        self.waiting += 1;
                        Paced::Waits
                    }
                }
            }
            _ => {
                self.open(key, now + interval);
                Paced::Go(entry)
            }
        }
    }

    /// The next delivery whose turn has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Entry> {
        while self.turns.front()?.0 <= now {
            let (_, id, topic) = self.turns.pop_front()?;
            let key = (id, topic);
            let Some(mut feed) = self.feeds.remove(&key) else { continue };
            let Some(entry) = feed.waiting.take() else { continue };
            self.bytes -= entry.size_bytes as usize;
            self.waiting -= 1;
            self.open(key, now + entry.subscription.conflate.unwrap_or_default());
            return Some(entry);
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

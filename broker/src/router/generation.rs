//! Counters that tell a cached match whether a subscription came or went since. Never says which.
//!
//! A topic depends on three: one by the hash of the topic, one by the hash of its first level, one for the filters
//! that begin with a wildcard. There are more of them than lock shards, so that a client that subscribes to a
//! topic of its own leaves nearly all cached matches in force.

use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use tidegate_protocol::topic::Topic;

use super::{first_level, has_wildcard, shard_of};

const EXACT: usize = 1024;
const WILDCARD: usize = 256;

/// The counters. Each only grows.
pub(super) struct Generations {
    exact: Box<[AtomicU64]>,
    wildcard: Box<[AtomicU64]>,
    leading: AtomicU64,
    hasher: RandomState,
}

/// The counters of one topic as they stood when it was matched.
pub(super) struct Stamp {
    exact_index: u16,
    wildcard_index: u16,
    exact: u64,
    wildcard: u64,
    leading: u64,
}

impl Generations {
    pub(super) fn new(hasher: RandomState) -> Self {
        let counters = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { exact: counters(EXACT), wildcard: counters(WILDCARD), leading: AtomicU64::new(0), hasher }
    }

    /// Makes stale what depends on `filter`. Called after the table has changed.
    pub(super) fn advance(&self, filter: &str) {
        let first = first_level(filter);
        let counter = if matches!(first, "+" | "#") {
            Some(&self.leading)
        } else if has_wildcard(filter) {
            self.wildcard.get(self.index(first, WILDCARD))
        } else {
            self.exact.get(self.index(filter, EXACT))
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Release);
        }
    }

    /// The state before a match of `topic`.
    pub(super) fn stamp(&self, topic: &Topic) -> Stamp {
        let exact_index = self.index(topic.as_str(), EXACT);
        let wildcard_index = self.index(first_level(topic.as_str()), WILDCARD);
        let narrow = |index| u16::try_from(index).unwrap_or(u16::MAX);
        Stamp {
            exact_index: narrow(exact_index),
            wildcard_index: narrow(wildcard_index),
            exact: load(&self.exact, exact_index),
            wildcard: load(&self.wildcard, wildcard_index),
            leading: self.leading.load(Ordering::Acquire),
        }
    }

    /// Whether nothing that the stamped match depends on has changed.
    pub(super) fn is_current(&self, stamp: &Stamp) -> bool {
        load(&self.exact, usize::from(stamp.exact_index)) == stamp.exact
            && load(&self.wildcard, usize::from(stamp.wildcard_index)) == stamp.wildcard
            && self.leading.load(Ordering::Acquire) == stamp.leading
    }

    fn index(&self, text: &str, count: usize) -> usize {
        shard_of(self.hasher.hash_one(text), count)
    }
}

fn load(counters: &[AtomicU64], index: usize) -> u64 {
    counters.get(index).map_or(0, |counter| counter.load(Ordering::Acquire))
}

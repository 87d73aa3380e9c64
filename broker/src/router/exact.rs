//! Filters without wildcards: one hash look-up. Knows no trie and no cache.

use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use dashmap::DashMap;
use tidegate_protocol::session::SubscriptionId;
use tidegate_protocol::topic::Topic;

use super::Member;
use super::matched::Collector;
use super::subscribers::Subscribers;

/// Said rather than left to dashmap, whose default grows with the number of processors.
const SHARDS: usize = 64;

/// After this many topics that lost their last subscriber, see whether the map has become too large.
const SHRINK_EVERY: usize = 4096;

/// Topics and their subscribers. An entry exists only while it has some.
pub(super) struct Exact<M> {
    topics: DashMap<Topic, Subscribers<M>, RandomState>,
    vacated: AtomicUsize,
}

impl<M: Member> Exact<M> {
    pub(super) fn new(hasher: RandomState) -> Self {
        let topics = DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS);
        Self { topics, vacated: AtomicUsize::new(0) }
    }

    pub(super) fn insert(&self, topic: Topic, member: M) -> Option<M> {
        self.topics.entry(topic).or_insert(Subscribers::Empty).insert(member)
    }

    pub(super) fn remove(&self, topic: &Topic, client: u64, subscription: SubscriptionId) -> Option<M> {
        let mut removed = None;
        let vacated = self.topics.remove_if_mut(topic.as_str(), |_, subscribers| {
            removed = subscribers.remove(client, subscription);
            subscribers.is_empty()
        });
        if vacated.is_some() {
            self.give_back();
        }
        removed
    }

    pub(super) fn collect(&self, topic: &Topic, collector: &mut Collector<M>) {
        if let Some(subscribers) = self.topics.get(topic.as_str()) {
            collector.add(&subscribers);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    /// dashmap never returns memory by itself.
    fn give_back(&self) {
        let vacated = self.vacated.fetch_add(1, Ordering::Relaxed) + 1;
        if vacated.is_multiple_of(SHRINK_EVERY) && self.topics.len() < self.topics.capacity() / 8 {
            self.topics.shrink_to_fit();
        }
    }
}

//! Filters without wildcards: one hash look-up. Knows no trie and no cache.
//!
//! The table is a set: an entry knows the topic that it is for, so no name is stored beside it. That is why changes
//! go to dashmap's shards and not through its map, whose keys cannot change in place.

#![expect(clippy::indexing_slicing, reason = "the index of a shard is dashmap's own")]

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use dashmap::{DashMap, SharedValue};
use tidegate_protocol::session::SubscriptionId;
use tidegate_protocol::topic::Topic;

use super::Member;
use super::matched::Collector;
use super::subscribers::Subscribers;

/// Said rather than left to dashmap, whose default grows with the number of processors.
const SHARDS: usize = 64;

/// After this many topics that lost their last subscriber, see whether the map has become too large.
const SHRINK_EVERY: usize = 4096;

/// The subscribers of all topics that have some.
pub(super) struct Exact<M> {
    topics: DashMap<OfOneTopic<M>, (), RandomState>,
    vacated: AtomicUsize,
}

/// The subscribers of one topic, equal to all others of that topic: 16 bytes and no text.
struct OfOneTopic<M>(Subscribers<M>);

impl<M: Member> Exact<M> {
    pub(super) fn new(hasher: RandomState) -> Self {
        let topics = DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS);
        Self { topics, vacated: AtomicUsize::new(0) }
    }

    pub(super) fn insert(&self, member: M) -> Option<M> {
        let (hash, shard) = self.place_of(member.filter());
        let mut shard = self.topics.shards()[shard].write();
        if let Some((known, _)) = shard.get_mut(hash, |(known, _)| known.topic() == member.filter()) {
            return known.0.insert(member);
        }
        let hash_of = |(known, _): &(OfOneTopic<M>, _)| self.topics.hasher().hash_one(known);
        shard.insert(hash, (OfOneTopic(Subscribers::One(member)), SharedValue::new(())), hash_of);
        None
    }

    pub(super) fn remove(&self, topic: &str, client: u64, subscription: SubscriptionId) -> Option<M> {
        let (hash, shard) = self.place_of(topic);
        let mut shard = self.topics.shards()[shard].write();
        let (known, _) = shard.get_mut(hash, |(known, _)| known.topic() == topic)?;
        let removed = known.0.remove(client, subscription)?;
        if known.0.is_empty() {
            // Empty for as long as the guard lives, so there is no other.
            shard.remove_entry(hash, |(known, _)| known.0.is_empty());
            drop(shard);
            self.give_back();
        }
        Some(removed)
    }

    pub(super) fn collect(&self, topic: &Topic, collector: &mut Collector<M>) {
        if let Some(known) = self.topics.get(topic.as_str()) {
            collector.add(&known.key().0);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    /// The hash of a topic, and the shard that it belongs to.
    fn place_of(&self, topic: &str) -> (u64, usize) {
        let hash = self.topics.hasher().hash_one(topic);
        #[expect(clippy::cast_possible_truncation, reason = "as dashmap does it")]
        let shard = self.topics.determine_shard(hash as usize);
        (hash, shard)
    }

    /// dashmap never returns memory by itself.
    fn give_back(&self) {
        let vacated = self.vacated.fetch_add(1, Ordering::Relaxed) + 1;
        if vacated.is_multiple_of(SHRINK_EVERY) && self.topics.len() < self.topics.capacity() / 8 {
            self.topics.shrink_to_fit();
        }
    }
}

impl<M: Member> OfOneTopic<M> {
    /// As any of them says it; an empty one is not in the table.
    fn topic(&self) -> &str {
        self.0.as_slice().first().map_or("", Member::filter)
    }
}

impl<M: Member> Borrow<str> for OfOneTopic<M> {
    fn borrow(&self) -> &str {
        self.topic()
    }
}

impl<M: Member> Hash for OfOneTopic<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.topic().hash(state);
    }
}

impl<M: Member> PartialEq for OfOneTopic<M> {
    fn eq(&self, other: &Self) -> bool {
        self.topic() == other.topic()
    }
}

impl<M: Member> Eq for OfOneTopic<M> {}

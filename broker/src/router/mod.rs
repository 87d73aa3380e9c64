//! Which subscriptions a topic has. Says who is to get a publication; never pushes, encodes or waits.
//!
//! ```text
//!              ┌ cache   (one slot per thread, valid while the generations stand)
//!  matching ───┼ exact   (64 shards: topic → subscribers)
//!              └ wildcard (64 tries by first level, one for filters that begin with a wildcard)
//!                   └──▶ Matched: what was collected, after every guard is gone
//! ```
//!
//! `TopicFilter::matches` is the definition; the tests hold every table against it. Spec: OASIS MQTT 5.0 §4.7.
//! All locks here are leaves: nothing is called while one is held but a member, for its cheap clone and its answers.

mod cache;
mod exact;
mod generation;
mod matched;
mod positions;
pub mod shared;
mod subscribers;
mod wildcard;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Copies, SubscriptionId};
use tidegate_protocol::topic::Topic;

use self::cache::Cache;
use self::exact::Exact;
use self::generation::Generations;
use self::matched::Collector;
pub use self::matched::{Matched, Target};
use self::wildcard::Wildcards;

/// What a table entry must tell about the subscription that it stands for.
///
/// Cloned for each match, so it is an `Arc` or something as cheap. Its answers never change.
pub trait Member: Clone + Send + Sync + 'static {
    /// The client that it belongs to: unique among those connected.
    fn client(&self) -> u64;
    /// Its name within the client.
    fn subscription(&self) -> SubscriptionId;
    /// The QoS that was granted.
    fn qos(&self) -> QoS;
    /// How it goes together with other matching subscriptions of its client.
    fn copies(&self) -> Copies;
    /// The text of its filter. The table of exact filters has it from here and keeps none of its own.
    fn filter(&self) -> &str;
    /// What its client calls it in MQTT 5, if it does.
    fn identifier(&self) -> Option<NonZeroU32>;
}

/// The topic tables. One for the whole broker; every method may be called from any thread.
pub struct Router<M> {
    exact: Exact<M>,
    wildcards: Wildcards<M>,
    generations: Generations,
    cache: Cache<M>,
    subscriptions: AtomicUsize,
}

impl<M: Member> Router<M> {
    /// Memory that one thread's cache of matches may take. A broker of 16 threads spends at most 128 MiB.
    pub const CACHE_BYTES_MAX: usize = 4 * 1024 * 1024;

    /// Empty tables.
    #[must_use]
    pub fn new() -> Self {
        Self::with_cache_bytes(Self::CACHE_BYTES_MAX)
    }

    /// Empty tables with another bound for the cache of each thread. With 0 every match asks the tables.
    #[must_use]
    pub fn with_cache_bytes(cache_bytes_max: usize) -> Self {
        // Keyed at random: the topics that are hashed are chosen by strangers.
        let hasher = RandomState::new();
        Self {
            exact: Exact::new(hasher.clone()),
            wildcards: Wildcards::new(hasher.clone()),
            generations: Generations::new(hasher.clone()),
            cache: Cache::new(cache_bytes_max, hasher),
            subscriptions: AtomicUsize::new(0),
        }
    }

    /// Enters a subscription. Returns the one of the same client, id and filter that it takes the place of.
    ///
    /// A match that begins after this has returned sees it; one that runs meanwhile sees the old or the new.
    pub fn subscribe(&self, member: M) -> Option<M> {
        let replaced = if has_wildcard(member.filter()) {
            self.wildcards.insert(member.clone())
        } else {
            self.exact.insert(member.clone())
        };
        self.generations.advance(member.filter());
        if replaced.is_none() {
            self.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
        replaced
    }

    /// Removes the subscription to the filter of this text and returns it. Matches found earlier may still hold it: it has to say itself that
    /// it is over.
    pub fn unsubscribe(&self, filter: &str, client: u64, subscription: SubscriptionId) -> Option<M> {
        let removed = if has_wildcard(filter) {
            self.wildcards.remove(filter, client, subscription)
        } else {
            self.exact.remove(filter, client, subscription)
        };
        if removed.is_some() {
            self.generations.advance(filter);
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }

    /// Who gets a publication to `topic`. Holds no lock when it returns.
    ///
    /// From the cache it costs some 45 ns. Otherwise one read of the exact table and of two tries; a trie is asked
    /// for at most as many nodes as it has, since each node is reached by one path.
    pub fn matching(&self, topic: &Topic) -> Arc<Matched<M>> {
        if let Some(found) = self.cache.lookup(topic, &self.generations) {
            return found;
        }
        // Before the tables: a change that comes in between makes the entry stale rather than wrong.
        let stamp = self.generations.stamp(topic);
        let mut collector = Collector::new();
        self.exact.collect(topic, &mut collector);
        self.wildcards.collect(topic, &mut collector);
        let matched = Arc::new(collector.finish());
        self.cache.insert(topic, stamp, &matched, &self.generations);
        matched
    }

    /// Drops cached matches that subscribing and unsubscribing have made stale. Called by a timer: otherwise a
    /// thread that publishes nothing more would keep the queues of closed clients alive.
    pub fn sweep_cache(&self) {
        self.cache.sweep(&self.generations);
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// What the tables hold, for tests and gauges. Takes every lock, one after the other.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            topics: self.exact.len(),
            nodes: self.wildcards.nodes(),
            cached: self.cache.len(),
            cached_bytes: self.cache.bytes(),
        }
    }
}

impl<M: Member> Default for Router<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// What the tables of a [`Router`] hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Topics with subscribers, without wildcards.
    pub topics: usize,
    /// Nodes of the tries below their roots.
    pub nodes: usize,
    /// Matches in the caches of all threads.
    pub cached: usize,
    /// Memory of those, about.
    pub cached_bytes: usize,
}

/// Whether a filter matches more than the topic that it names.
fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

/// The level before the first `/`: what wildcard tries and their generations are sharded by.
fn first_level(text: &str) -> &str {
    text.split_once('/').map_or(text, |(first, _)| first)
}

/// The shard of a hash. `shards` is a power of two, and the table in the shard uses other bits of the hash.
fn shard_of(hash: u64, shards: usize) -> usize {
    usize::from(u16::try_from((hash >> 24) & 0xffff).unwrap_or(0)) & (shards - 1)
}

#[cfg(test)]
pub(crate) mod tests;

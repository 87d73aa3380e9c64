//! Shared subscriptions: the groups, and who of a group gets a message. Never pushes, encodes or waits; matches no
//! topic: the router's tables hold each group as one entry beside plain subscriptions. Spec: OASIS MQTT 5.0 §4.8.2.
//!
//! ```text
//!  publisher ──▶ Router::matching ──▶ Group::pick ──▶ one member     (the group's own lock, for one choice)
//!  subscriber ─▶ Groups::join, leave ──▶ Group + the router's entry  (both under the guard of the group's shard)
//! ```

mod ring;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use dashmap::{DashMap, Entry};
use parking_lot::Mutex;
use tidegate_protocol::session::SubscriptionId;
use tidegate_protocol::topic::{ShareName, TopicFilter};

use self::ring::Ring;

/// What a member of a group must tell about the subscription that it stands for.
///
/// Cloned for each message, so it is an `Arc` or something as cheap. All of it is asked under the group's lock,
/// [`Self::pending`] perhaps of every member: an answer is the read of a field or of an atomic, or takes a leaf
/// lock for such a read.
pub trait GroupMember: Clone + Send + Sync + 'static {
    /// The client that it belongs to. Never changes.
    fn client(&self) -> u64;
    /// Its name within the client. Never changes.
    fn subscription(&self) -> SubscriptionId;
    /// Whether its client is connected. May change at any time, and the group is not told.
    fn is_online(&self) -> bool;
    /// Deliveries to its client that are queued or not acknowledged. May change at any time.
    fn pending(&self) -> usize;
}

/// Who of a group gets the next message (`mqtt.shared_strategy`). In each of them a member that is online goes before
/// all that are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Each in turn. Between two messages to a member each other member that stayed gets exactly one.
    #[default]
    RoundRobin,
    /// Anybody, each as likely as the other.
    Random,
    /// The same member, while it is in the group and online.
    Sticky,
    /// The member with the fewest deliveries under way; in turn among equals. Asks every member, at worst.
    LeastPending,
}

/// The members that share the messages of one filter under one name. Changed through [`Groups`] only.
pub struct Group<M> {
    key: u64,
    ring: Mutex<Ring<M>>,
}

impl<M> std::fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group {{ key: {:x}, .. }}", self.key)
    }
}

impl<M: GroupMember> Group<M> {
    fn new(key: u64) -> Self {
        Self { key, ring: Mutex::new(Ring::new()) }
    }

    /// A number that no other group has. Counted downwards from the largest, while clients are counted upwards, so
    /// that it serves as the client of the entry that stands for the group in the router.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// How many members there are, online or not.
    pub fn len(&self) -> usize {
        self.ring.lock().len()
    }

    /// Whether nobody is left. Such a group has left the router, and gets no member again.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Chooses a member for one message. `None`: nobody is left but clients in `tried`.
    ///
    /// Members of the clients in `tried` are left out; they had their chance with this message and keep their turn.
    /// An offline member is chosen only when no other is left. Holds the group's lock for the choice and allocates
    /// nothing. While everybody is online it costs the same for any number of members, but with
    /// [`Strategy::LeastPending`].
    pub fn pick(&self, strategy: Strategy, tried: &[u64]) -> Option<M> {
        let mut ring = self.ring.lock();
        let at = match strategy {
            Strategy::RoundRobin => ring.round_robin(tried),
            Strategy::Random => ring.random(tried, |n| rand::random_range(..n)),
            Strategy::Sticky => ring.sticky(tried),
            Strategy::LeastPending => ring.least_pending(tried),
        }?;
        Some(ring.member(at).clone())
    }

    /// Adds a member behind all others. One of the same client and id is replaced, and its turn is kept.
    fn insert(&self, member: M) -> Option<M> {
        self.ring.lock().insert(member)
    }

    fn remove(&self, client: u64, subscription: SubscriptionId) -> Option<M> {
        self.ring.lock().remove(client, subscription)
    }
}

/// All groups, by share name and filter. One for the whole broker; every method may be called from any thread.
///
/// A group is in this table, in the router and not empty, or none of these. That holds because each change of
/// membership runs from its beginning to its end under the write guard of the group's shard, the caller's `route` and
/// `unroute` included: a group cannot be filled between the departure of its last member and `unroute`, nor the entry
/// of the next group of that name be taken out by the `unroute` of the one before.
///
/// Publishers take no such guard. They find a group in the router and ask it under its own lock. A member is in before
/// the group is routed and is out before it is unrouted, so they find it empty only while its last member is leaving:
/// nobody gets the message, as if it had been published after.
///
/// Order of locks: a shard of this table, then those of the router or of a group, which are leaves. `route` and
/// `unroute` enter the router and nothing else; above all they do not call this table.
pub struct Groups<M> {
    groups: DashMap<(ShareName, TopicFilter), Arc<Group<M>>, RandomState>,
    /// Groups that ever were.
    begun: AtomicU64,
    /// Groups that are no more.
    ended: AtomicUsize,
    len: AtomicUsize,
    members: AtomicUsize,
}

/// What came of joining a group.
pub struct Joined<M> {
    /// The group.
    pub group: Arc<Group<M>>,
    /// The member of the same client and id whose place was taken.
    pub replaced: Option<M>,
}

/// Said rather than left to dashmap, whose default grows with the number of processors.
const SHARDS: usize = 64;

/// After this many groups that lost their last member, see whether the map has become too large.
const SHRINK_EVERY: usize = 4096;

impl<M: GroupMember> Groups<M> {
    /// No groups.
    #[must_use]
    pub fn new() -> Self {
        // Keyed at random: names and filters are chosen by strangers.
        let hasher = RandomState::new();
        Self {
            groups: DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS),
            begun: AtomicU64::new(0),
            ended: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            members: AtomicUsize::new(0),
        }
    }

    /// Brings a member into the group of this name and filter. When it is the first, `route` is called with the new
    /// group and enters it in the router under `filter`.
    ///
    /// A match that begins after this has returned finds the group, and the group this member.
    pub fn join(
        &self,
        name: &ShareName,
        filter: &TopicFilter,
        member: M,
        route: impl FnOnce(&Arc<Group<M>>),
    ) -> Joined<M> {
        // Before the member can leave again: the count never falls below zero.
        self.members.fetch_add(1, Ordering::Relaxed);
        let (group, replaced) = match self.groups.entry((name.clone(), filter.clone())) {
            Entry::Occupied(held) => (Arc::clone(held.get()), held.get().insert(member)),
            Entry::Vacant(place) => {
                let group = Arc::new(Group::new(u64::MAX - self.begun.fetch_add(1, Ordering::Relaxed)));
                group.insert(member);
                // The guard lives until the group is routed.
                let held = place.insert(group);
                self.len.fetch_add(1, Ordering::Relaxed);
                route(&held);
                (Arc::clone(&held), None)
            }
        };
        if replaced.is_some() {
            self.members.fetch_sub(1, Ordering::Relaxed);
        }
        Joined { group, replaced }
    }

    /// Takes a member out of its group and returns it. When it was the last, `unroute` is called with the group and
    /// takes it out of the router.
    ///
    /// What the member has not acknowledged goes to others by [`Self::get`] and [`Group::pick`] after this.
    pub fn leave(
        &self,
        name: &ShareName,
        filter: &TopicFilter,
        client: u64,
        subscription: SubscriptionId,
        unroute: impl FnOnce(&Arc<Group<M>>),
    ) -> Option<M> {
        let mut removed = None;
        let ended = self.groups.remove_if_mut(&(name.clone(), filter.clone()), |_, group| {
            removed = group.remove(client, subscription);
            let is_last = removed.is_some() && group.is_empty();
            if is_last {
                unroute(group);
                self.len.fetch_sub(1, Ordering::Relaxed);
            }
            is_last
        });
        if removed.is_some() {
            self.members.fetch_sub(1, Ordering::Relaxed);
        }
        if ended.is_some() {
            self.give_back();
        }
        removed
    }

    /// The group of this name and filter, while somebody is in it.
    #[must_use]
    pub fn get(&self, name: &ShareName, filter: &TopicFilter) -> Option<Arc<Group<M>>> {
        self.groups.get(&(name.clone(), filter.clone())).map(|group| Arc::clone(&group))
    }

    /// How many groups there are. Takes no lock.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is no group. Takes no lock.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many members all groups have together. Takes no lock.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.load(Ordering::Relaxed)
    }

    /// dashmap never returns memory by itself.
    fn give_back(&self) {
        let ended = self.ended.fetch_add(1, Ordering::Relaxed) + 1;
        if ended.is_multiple_of(SHRINK_EVERY) && self.groups.len() < self.groups.capacity() / 8 {
            self.groups.shrink_to_fit();
        }
    }
}

impl<M: GroupMember> Default for Groups<M> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;

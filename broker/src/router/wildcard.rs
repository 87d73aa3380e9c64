//! Filters with wildcards: tries of levels, sharded by the first level. Knows no exact topic and no cache.
//!
//! A trie is an arena: nodes name each other by index, so that neither matching nor dropping a deep one recurses,
//! and one table of indices serves as the edges of all nodes.

#![expect(clippy::indexing_slicing, reason = "indices are made here and point at nodes that are in use")]

use ahash::RandomState;
use hashbrown::HashTable;
use parking_lot::RwLock;
use tidegate_protocol::session::SubscriptionId;
use tidegate_protocol::topic::Topic;

use super::matched::Collector;
use super::positions::{narrow, widen};
use super::subscribers::Subscribers;
use super::{Member, first_level, shard_of};

const SHARDS: usize = 64;

/// All tries.
pub(super) struct Wildcards<M> {
    /// By the hash of a first level that is no wildcard.
    shards: Box<[RwLock<Trie<M>>]>,
    /// Filters that begin with `+` or `#`; every topic that does not begin with `$` asks it.
    leading: RwLock<Trie<M>>,
    hasher: RandomState,
}

impl<M: Member> Wildcards<M> {
    pub(super) fn new(hasher: RandomState) -> Self {
        let trie = || RwLock::new(Trie::new(hasher.clone()));
        Self { shards: (0..SHARDS).map(|_| trie()).collect(), leading: trie(), hasher }
    }

    pub(super) fn insert(&self, member: M) -> Option<M> {
        self.trie_of(member.filter()).write().insert(member)
    }

    pub(super) fn remove(&self, filter: &str, client: u64, subscription: SubscriptionId) -> Option<M> {
        self.trie_of(filter).write().remove(filter, client, subscription)
    }

    pub(super) fn collect(&self, topic: &Topic, collector: &mut Collector<M>) {
        self.shard(first_level(topic.as_str())).read().collect(topic.as_str(), collector);
        // [MQTT-4.7.2-1]: a leading wildcard matches no topic that begins with '$'.
        if !topic.is_reserved() {
            self.leading.read().collect(topic.as_str(), collector);
        }
    }

    /// Nodes in use, roots not counted.
    pub(super) fn nodes(&self) -> usize {
        self.shards.iter().chain([&self.leading]).map(|trie| trie.read().in_use - 1).sum()
    }

    fn trie_of(&self, filter: &str) -> &RwLock<Trie<M>> {
        match first_level(filter) {
            "+" | "#" => &self.leading,
            first => self.shard(first),
        }
    }

    fn shard(&self, first: &str) -> &RwLock<Trie<M>> {
        &self.shards[shard_of(self.hasher.hash_one(first), SHARDS)]
    }
}

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

/// One arena is rebuilt when it is larger than this and three quarters of it are unused.
const COMPACT_ABOVE: usize = 256;

struct Trie<M> {
    nodes: Vec<Node<M>>,
    /// Indices of all nodes but the root and the `+` nodes, by the hash of (parent, level).
    edges: HashTable<u32>,
    /// The first unused node; `parent` of each unused node names the next.
    unused: u32,
    in_use: usize,
    hasher: RandomState,
}

/// 64 bytes with an `Arc` as member, and the text of its level.
struct Node<M> {
    /// Empty in a `+` node: the parent knows it by index.
    level: Box<str>,
    parent: u32,
    plus: u32,
    /// The `+` node among them.
    children: u32,
    /// Filters that end at this level.
    here: Subscribers<M>,
    /// Filters that go on with `#`; they match this level too (§4.7.1.2).
    below: Subscribers<M>,
}

impl<M: Member> Trie<M> {
    fn new(hasher: RandomState) -> Self {
        Self { nodes: vec![Node::new("", NONE)], edges: HashTable::new(), unused: NONE, in_use: 1, hasher }
    }

    fn insert(&mut self, member: M) -> Option<M> {
        let mut at = ROOT;
        let mut set = Node::here_mut as fn(&mut Node<M>) -> &mut Subscribers<M>;
        for level in member.filter().split('/') {
            at = match level {
                "#" => {
                    set = Node::below_mut;
                    break;
                }
                "+" => match self.node(at).plus {
                    NONE => self.add_plus(at),
                    plus => plus,
                },
                _ => match self.child(at, level) {
                    Some(child) => child,
                    None => self.add_child(at, level),
                },
            };
        }
        set(self.node_mut(at)).insert(member)
    }

    fn remove(&mut self, filter: &str, client: u64, subscription: SubscriptionId) -> Option<M> {
        let mut at = ROOT;
        let mut set = Node::here_mut as fn(&mut Node<M>) -> &mut Subscribers<M>;
        for level in filter.split('/') {
            at = match level {
                "#" => {
                    set = Node::below_mut;
                    break;
                }
                "+" => Some(self.node(at).plus).filter(|&plus| plus != NONE)?,
                _ => self.child(at, level)?,
            };
        }
        let removed = set(self.node_mut(at)).remove(client, subscription)?;
        self.prune(at);
        Some(removed)
    }

    /// Adds the sets of all filters that match.
    ///
    /// Each node has one parent, so it is visited at most once whatever the filters are: `+/+/…` beside `a/+/…`
    /// beside `a/a/…` costs the nodes that they have, not the paths that one could think of. The stack holds at
    /// most one `+` node for each level of the topic.
    fn collect(&self, topic: &str, collector: &mut Collector<M>) {
        let mut later: Vec<(u32, Option<&str>)> = Vec::new();
        let mut next = Some((ROOT, Some(topic)));
        while let Some((at, rest)) = next.take().or_else(|| later.pop()) {
            let node = self.node(at);
            collector.add(&node.below);
            let Some(rest) = rest else {
                collector.add(&node.here);
                continue;
            };
            let (level, rest) =
                rest.split_once('/').map_or((rest, None), |(level, rest)| (level, Some(rest)));
            if node.plus != NONE {
                later.push((node.plus, rest));
            }
            if node.children > u32::from(node.plus != NONE) {
                next = self.child(at, level).map(|child| (child, rest));
            }
        }
    }

    fn child(&self, parent: u32, level: &str) -> Option<u32> {
        let is_child = |&at: &u32| self.node(at).parent == parent && *self.node(at).level == *level;
        self.edges.find(self.hasher.hash_one((parent, level)), is_child).copied()
    }

    fn add_child(&mut self, parent: u32, level: &str) -> u32 {
        let at = self.add(Node::new(level, parent));
        let Self { nodes, edges, hasher, .. } = self;
        edges.insert_unique(hasher.hash_one((parent, level)), at, |&at| edge_hash(nodes, hasher, at));
        at
    }

    fn add_plus(&mut self, parent: u32) -> u32 {
        let at = self.add(Node::new("", parent));
        self.node_mut(parent).plus = at;
        at
    }

    fn add(&mut self, node: Node<M>) -> u32 {
        self.node_mut(node.parent).children += 1;
        self.in_use += 1;
        if self.unused == NONE {
            self.nodes.push(node);
            return narrow(self.nodes.len() - 1);
        }
        let at = self.unused;
        self.unused = self.node(at).parent;
        *self.node_mut(at) = node;
        at
    }

    /// Removes a node that has become useless, and those above it that have by that.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.node(at).is_useless() {
            let parent = self.node(at).parent;
            if self.node(parent).plus == at {
                self.node_mut(parent).plus = NONE;
            } else {
                let hash = edge_hash(&self.nodes, &self.hasher, at);
                if let Ok(edge) = self.edges.find_entry(hash, |&edge| edge == at) {
                    edge.remove();
                }
            }
            self.node_mut(parent).children -= 1;
            let unused = self.unused;
            *self.node_mut(at) = Node::new("", unused);
            self.unused = at;
            self.in_use -= 1;
            at = parent;
        }
        if self.nodes.len() > COMPACT_ABOVE && self.in_use < self.nodes.len() / 4 {
            self.compact();
        }
    }

    /// Rebuilds the arena without the unused nodes. Amortised: most of it has been removed since the last time.
    fn compact(&mut self) {
        let mut is_unused = vec![false; self.nodes.len()];
        let mut at = self.unused;
        while at != NONE {
            is_unused[widen(at)] = true;
            at = self.node(at).parent;
        }
        let mut moved = Vec::with_capacity(self.nodes.len());
        let mut count = 0;
        for &unused in &is_unused {
            moved.push(if unused { NONE } else { count });
            count += u32::from(!unused);
        }
        let renumber = |at: u32| if at == NONE { NONE } else { moved[widen(at)] };
        let nodes = std::mem::take(&mut self.nodes).into_iter().zip(is_unused).filter(|(_, unused)| !unused);
        self.nodes = Vec::with_capacity(self.in_use);
        self.nodes.extend(nodes.map(|(node, _)| Node {
            parent: renumber(node.parent),
            plus: renumber(node.plus),
            ..node
        }));
        self.unused = NONE;
        let mut edges = HashTable::with_capacity(self.in_use);
        for at in 1..narrow(self.nodes.len()) {
            if self.node(self.node(at).parent).plus != at {
                let hash = edge_hash(&self.nodes, &self.hasher, at);
                edges.insert_unique(hash, at, |&at| edge_hash(&self.nodes, &self.hasher, at));
            }
        }
        self.edges = edges;
    }

    fn node(&self, at: u32) -> &Node<M> {
        &self.nodes[widen(at)]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<M> {
        &mut self.nodes[widen(at)]
    }
}

impl<M: Member> Node<M> {
    fn new(level: &str, parent: u32) -> Self {
        let (here, below) = (Subscribers::Empty, Subscribers::Empty);
        Self { level: level.into(), parent, plus: NONE, children: 0, here, below }
    }

    fn is_useless(&self) -> bool {
        self.children == 0 && self.here.is_empty() && self.below.is_empty()
    }

    fn here_mut(&mut self) -> &mut Subscribers<M> {
        &mut self.here
    }

    fn below_mut(&mut self) -> &mut Subscribers<M> {
        &mut self.below
    }
}

fn edge_hash<M: Member>(nodes: &[Node<M>], hasher: &RandomState, at: u32) -> u64 {
    let node = &nodes[widen(at)];
    hasher.hash_one((node.parent, &*node.level))
}

//! Each strategy against a list that is searched the plain way, fairness by its definition, and the table under many
//! threads with a real router beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Copies, SubscriptionId};
use tidegate_protocol::topic::{ShareName, Topic, TopicFilter, TopicLimits};

use super::ring::Ring;
use super::{Group, GroupMember, Groups, Strategy as Choice};
use crate::router::{Member, Router};

const ALL: [Choice; 4] = [Choice::RoundRobin, Choice::Random, Choice::Sticky, Choice::LeastPending];

/// A member that is what it is told to be.
#[derive(Debug)]
struct Worker {
    key: Key,
    is_online: AtomicBool,
    pending: AtomicUsize,
}

/// Client and subscription.
type Key = (u64, u32);

impl GroupMember for Arc<Worker> {
    fn client(&self) -> u64 {
        self.key.0
    }

    fn subscription(&self) -> SubscriptionId {
        SubscriptionId(self.key.1)
    }

    fn is_online(&self) -> bool {
        self.is_online.load(Ordering::Relaxed)
    }

    fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }
}

fn worker(client: u64, subscription: u32) -> Arc<Worker> {
    Arc::new(Worker {
        key: (client, subscription),
        is_online: AtomicBool::new(true),
        pending: AtomicUsize::new(0),
    })
}

/// A worker in words: `3` is online with nothing pending, `3!` is offline, `3:7` has seven pending.
fn parse_worker(text: &str) -> Arc<Worker> {
    let (text, pending) = text.split_once(':').unwrap_or((text, "0"));
    let worker = worker(text.trim_end_matches('!').parse().unwrap(), 0);
    worker.is_online.store(!text.ends_with('!'), Ordering::Relaxed);
    worker.pending.store(pending.parse().unwrap(), Ordering::Relaxed);
    worker
}

fn group_of(workers: &[Arc<Worker>]) -> Group<Arc<Worker>> {
    let group = Group::new(0);
    for worker in workers {
        assert!(group.insert(Arc::clone(worker)).is_none(), "{:?} twice", worker.key);
    }
    group
}

fn clients(group: &Group<Arc<Worker>>, strategy: Choice, tried: &[u64], times: usize) -> Vec<u64> {
    (0..times).filter_map(|_| group.pick(strategy, tried)).map(|worker| worker.client()).collect()
}

/// Picks as often as `expected` is long; each time the pending count of the chosen one grows by one.
fn check(strategy: Choice, members: &str, tried: &[u64], expected: &[u64]) {
    let workers: Vec<_> = members.split_whitespace().map(parse_worker).collect();
    let group = group_of(&workers);
    let seen: Vec<u64> = (0..expected.len().max(1))
        .filter_map(|_| group.pick(strategy, tried))
        .inspect(|worker| {
            worker.pending.fetch_add(1, Ordering::Relaxed);
        })
        .map(|worker| worker.client())
        .collect();
    assert_eq!(seen, expected, "{strategy:?} of {members} without {tried:?}");
}

#[test]
fn chooses_by_its_strategy() {
    use Choice::{LeastPending, RoundRobin, Sticky};
    for (strategy, members, tried, expected) in [
        (RoundRobin, "1 2 3", &[][..], &[1, 2, 3, 1, 2, 3, 1][..]),
        (RoundRobin, "1", &[], &[1, 1, 1]),
        (RoundRobin, "1! 2 3! 4", &[], &[2, 4, 2, 4]),
        (RoundRobin, "1! 2!", &[], &[1, 2, 1, 2]),
        (RoundRobin, "1 2 3", &[1], &[2, 3, 2, 3]),
        (RoundRobin, "1 2! 3!", &[1], &[2, 3, 2, 3]),
        (RoundRobin, "1 2", &[2, 1], &[]),
        (RoundRobin, "", &[], &[]),
        (Sticky, "1 2 3", &[], &[1, 1, 1, 1]),
        (Sticky, "1! 2 3", &[], &[2, 2, 2]),
        (Sticky, "1! 2!", &[], &[1, 1, 1]),
        (Sticky, "1 2! 3!", &[1], &[2, 2, 2]),
        (Sticky, "1", &[1], &[]),
        (Sticky, "", &[], &[]),
        (LeastPending, "1 2 3", &[], &[1, 2, 3, 1, 2, 3]),
        (LeastPending, "1:2 2:1 3:4", &[], &[2, 1, 2, 1, 2, 3, 1]),
        (LeastPending, "1:1 2:0 3:1", &[], &[2, 1, 3, 2]),
        (LeastPending, "1:9 2!:0", &[], &[1, 1]),
        (LeastPending, "1!:9 2!:8", &[], &[2, 1, 2]),
        (LeastPending, "1:0 2:5 3:7", &[1], &[2, 2, 3, 2]),
        (LeastPending, "1", &[1], &[]),
        (LeastPending, "", &[], &[]),
    ] {
        check(strategy, members, tried, expected);
    }
}

#[test]
fn a_member_that_was_tried_keeps_its_turn() {
    let group = group_of(&[worker(1, 0), worker(2, 0), worker(3, 0)]);
    assert_eq!(clients(&group, Choice::RoundRobin, &[1], 1), [2]);
    assert_eq!(clients(&group, Choice::RoundRobin, &[], 6), [1, 3, 2, 1, 3, 2]);
    assert_eq!(clients(&group, Choice::RoundRobin, &[1, 3], 1), [2]);
    assert_eq!(clients(&group, Choice::RoundRobin, &[], 3), [1, 3, 2]);
}

#[test]
fn sticky_stays_until_its_member_leaves_or_goes_offline() {
    let workers = [worker(1, 0), worker(2, 0), worker(3, 0)];
    let group = group_of(&workers);
    let set_online = |at: usize, is_online| workers[at].is_online.store(is_online, Ordering::Relaxed);
    let next = |tried: &[u64]| clients(&group, Choice::Sticky, tried, 1)[0];
    assert_eq!((next(&[]), next(&[])), (1, 1));
    // Another one helps out with one message.
    assert_eq!((next(&[1]), next(&[])), (2, 1));
    // It moves, and does not come back by itself.
    set_online(0, false);
    let heir = next(&[]);
    assert_eq!(heir, 3);
    set_online(0, true);
    assert_eq!(next(&[]), 3);
    // Nobody is online: what comes waits in one place.
    workers.iter().for_each(|worker| worker.is_online.store(false, Ordering::Relaxed));
    assert_eq!((next(&[]), next(&[]), next(&[3]), next(&[])), (3, 3, 1, 3));
    set_online(1, true);
    assert_eq!((next(&[]), next(&[])), (2, 2));
    set_online(0, true);
    set_online(2, true);
    assert!(group.remove(2, SubscriptionId(0)).is_some());
    let heir = next(&[]);
    assert_eq!(clients(&group, Choice::Sticky, &[], 5), [heir; 5]);
}

#[test]
fn a_replaced_member_keeps_its_place() {
    for strategy in [Choice::RoundRobin, Choice::Sticky] {
        let group = group_of(&[worker(1, 0), worker(2, 0)]);
        assert_eq!(clients(&group, strategy, &[], 1), [1]);
        let before = clients(&group, strategy, &[], 2);
        let newer = worker(before[0], 0);
        assert!(group.insert(Arc::clone(&newer)).is_some());
        assert_eq!(group.len(), 2);
        let next = group.pick(strategy, &[]).unwrap();
        assert!(Arc::ptr_eq(&next, &newer), "{strategy:?}");
    }
}

#[test]
fn subscriptions_of_one_client_are_members_each_and_tried_together() {
    let group = group_of(&[worker(1, 0), worker(1, 1), worker(2, 0)]);
    let picks: Vec<Key> = (0..3).filter_map(|_| group.pick(Choice::RoundRobin, &[])).map(|w| w.key).collect();
    assert_eq!(picks, [(1, 0), (1, 1), (2, 0)]);
    for strategy in ALL {
        assert_eq!(clients(&group, strategy, &[1], 4), [2; 4], "{strategy:?}");
    }
}

#[test]
fn an_offline_member_is_chosen_only_when_no_online_one_is_left() {
    for strategy in ALL {
        for online in 0..20 {
            let workers: Vec<_> = (0..20).map(|client| worker(client, 0)).collect();
            for worker in &workers {
                worker.is_online.store(worker.client() == online, Ordering::Relaxed);
                worker.pending.store(usize::from(worker.client() == online), Ordering::Relaxed);
            }
            let group = group_of(&workers);
            assert_eq!(clients(&group, strategy, &[], 40), [online; 40], "{strategy:?}");
            let others = clients(&group, strategy, &[online], 40);
            assert!(others.len() == 40 && !others.contains(&online), "{strategy:?}");
            assert_eq!(clients(&group, strategy, &[], 1), [online], "{strategy:?}");
        }
    }
}

#[test]
fn gives_memory_back_when_members_leave() {
    let mut ring = Ring::new();
    for client in 0..10_000 {
        ring.insert(worker(client, 0));
    }
    for client in 0..9_980 {
        assert!(ring.remove(client, SubscriptionId(0)).is_some());
    }
    let (slots, index) = ring.capacity();
    assert!(slots <= 80 && index <= 160, "room for {slots} members and {index} index entries");
    assert_eq!(ring.in_turn().len(), 20);
}

/// A number below `n`, from a sequence that is the same in each run.
fn dice(mut state: u64) -> impl FnMut(usize) -> usize {
    move |n| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % n as u64).unwrap()
    }
}

/// Of `len` members those from `online` on are offline; the first `tried` are tried. All that may be chosen are
/// chosen equally often, within five standard deviations.
fn check_uniform(len: u64, online: u64, tried: u64) {
    const PICKS: usize = 40_000;
    let mut ring = Ring::new();
    for client in 0..len {
        let worker = worker(client, 0);
        worker.is_online.store(client < online, Ordering::Relaxed);
        ring.insert(worker);
    }
    let tried: Vec<u64> = (0..tried).collect();
    let mut below = dice(7);
    let mut counts = BTreeMap::new();
    for _ in 0..PICKS {
        let at = ring.random(&tried, &mut below).unwrap();
        *counts.entry(ring.member(at).client()).or_insert(0_usize) += 1;
    }
    let free =
        |range: std::ops::Range<u64>| range.filter(|client| !tried.contains(client)).collect::<Vec<_>>();
    let may = if free(0..online).is_empty() { free(online..len) } else { free(0..online) };
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), may);
    let mean = PICKS as f64 / may.len() as f64;
    for (client, count) in counts {
        let off = (count as f64 - mean).abs();
        assert!(off <= 5.0 * mean.sqrt(), "client {client} of {len}/{online}: {count} of {mean}");
    }
}

#[test]
fn random_is_as_likely_to_choose_one_as_another() {
    for (len, online, tried) in
        [(1, 1, 0), (7, 7, 0), (40, 40, 0), (40, 40, 39), (40, 5, 2), (40, 2, 0), (40, 0, 0), (40, 1, 1)]
    {
        check_uniform(len, online, tried);
    }
    assert_eq!(Ring::<Arc<Worker>>::new().random(&[], dice(1)), None);
    // The generator of the running broker, too, gives everybody something: a chance of 1e-26 to fail.
    let group = group_of(&(0..4).map(|client| worker(client, 0)).collect::<Vec<_>>());
    let seen: BTreeSet<u64> = clients(&group, Choice::Random, &[], 200).into_iter().collect();
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 3]));
}

/// One step in the life of a group.
#[derive(Clone, Debug)]
enum Step {
    Insert(Key),
    Remove(Key),
    Online(Key, bool),
    Pending(Key, usize),
    Pick(Vec<u64>),
}

fn steps(clients: u64) -> impl Strategy<Value = Vec<Step>> {
    let key = || (0..clients, 0_u32..2);
    let tried = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0..clients, 1..4)];
    let step = prop_oneof![
        4 => key().prop_map(Step::Insert),
        2 => key().prop_map(Step::Remove),
        2 => (key(), any::<bool>()).prop_map(|(key, is_online)| Step::Online(key, is_online)),
        2 => (key(), 0_usize..4).prop_map(|(key, pending)| Step::Pending(key, pending)),
        8 => tried.prop_map(Step::Pick),
    ];
    prop::collection::vec(step, 1..300)
}

/// A group as a list: the first has the next turn.
#[derive(Default)]
struct Model {
    turns: Vec<Arc<Worker>>,
    held: Option<Key>,
}

impl Model {
    fn apply(&mut self, step: &Step, ring: &mut Ring<Arc<Worker>>) {
        let place = |key: &Key| self.turns.iter().position(|worker| worker.key == *key);
        match step {
            Step::Insert(key) => {
                let newer = worker(key.0, key.1);
                let replaced = ring.insert(Arc::clone(&newer)).map(|worker| worker.key);
                let expected =
                    place(key).map(|at| std::mem::replace(&mut self.turns[at], Arc::clone(&newer)).key);
                if expected.is_none() {
                    self.turns.push(newer);
                }
                assert_eq!(replaced, expected);
            }
            Step::Remove(key) => {
                let removed = ring.remove(key.0, SubscriptionId(key.1)).map(|worker| worker.key);
                let expected = place(key).map(|at| self.turns.remove(at).key);
                assert_eq!(removed, expected);
                self.held = self.held.filter(|held| held != key);
            }
            Step::Online(key, is_online) => {
                if let Some(at) = place(key) {
                    self.turns[at].is_online.store(*is_online, Ordering::Relaxed);
                }
            }
            Step::Pending(key, pending) => {
                if let Some(at) = place(key) {
                    self.turns[at].pending.store(*pending, Ordering::Relaxed);
                }
            }
            Step::Pick(_) => {}
        }
    }

    /// Those that may be chosen, in turn: online ones, or else the others.
    fn may(&self, tried: &[u64]) -> Vec<Key> {
        let free = |is_online| {
            let fits = move |worker: &&Arc<Worker>| worker.is_online() == is_online;
            self.turns.iter().filter(fits).filter(|worker| !tried.contains(&worker.key.0)).map(|w| w.key)
        };
        let online: Vec<Key> = free(true).collect();
        if online.is_empty() { free(false).collect() } else { online }
    }

    fn find(&self, key: Key) -> &Arc<Worker> {
        self.turns.iter().find(|worker| worker.key == key).unwrap()
    }

    /// Puts the chosen one last; those before it that are offline lose their turn, unless somebody was left out.
    fn take(&mut self, chosen: Key, tried: &[u64]) -> Key {
        let at = self.turns.iter().position(|worker| worker.key == chosen).unwrap();
        let has_tried = self.turns[..at].iter().any(|worker| tried.contains(&worker.key.0));
        if has_tried || !self.turns[at].is_online() {
            let worker = self.turns.remove(at);
            self.turns.push(worker);
        } else {
            self.turns.rotate_left(at + 1);
        }
        chosen
    }

    fn round_robin(&mut self, tried: &[u64]) -> Option<Key> {
        let chosen = *self.may(tried).first()?;
        Some(self.take(chosen, tried))
    }

    fn least_pending(&mut self, tried: &[u64]) -> Option<Key> {
        // The first of the least.
        let chosen = self.may(tried).into_iter().min_by_key(|&key| self.find(key).pending())?;
        let worker = Arc::clone(self.find(chosen));
        self.turns.retain(|worker| worker.key != chosen);
        self.turns.push(worker);
        Some(chosen)
    }

    fn sticky(&mut self, tried: &[u64]) -> Option<Key> {
        let may = self.may(tried);
        if let Some(held) = self.held.filter(|held| may.contains(held)) {
            return Some(held);
        }
        let chosen = *may.first()?;
        let is_better =
            self.held.is_none_or(|held| !self.find(held).is_online() && self.find(chosen).is_online());
        if is_better {
            self.held = Some(chosen);
        }
        Some(self.take(chosen, tried))
    }
}

fn check_history(strategy: Choice, history: &[Step]) {
    let mut ring = Ring::new();
    let mut model = Model::default();
    let mut below = dice(3);
    for step in history {
        model.apply(step, &mut ring);
        if let Step::Pick(tried) = step {
            let (chosen, expected) = match strategy {
                Choice::RoundRobin => (ring.round_robin(tried), model.round_robin(tried)),
                Choice::Sticky => (ring.sticky(tried), model.sticky(tried)),
                Choice::LeastPending => (ring.least_pending(tried), model.least_pending(tried)),
                Choice::Random => {
                    let chosen = ring.random(tried, &mut below);
                    let may = model.may(tried);
                    let is_fit = chosen.map(|at| ring.member(at).key).filter(|key| may.contains(key));
                    (chosen, is_fit.or_else(|| may.first().copied()))
                }
            };
            assert_eq!(chosen.map(|at| ring.member(at).key), expected, "{strategy:?} {tried:?}");
        }
        let turns: Vec<Key> = ring.in_turn().into_iter().map(|worker| worker.key).collect();
        assert_eq!(turns, model.turns.iter().map(|worker| worker.key).collect::<Vec<_>>(), "after {step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn few_members_are_chosen_as_from_a_list(history in steps(4)) {
        ALL.iter().for_each(|&strategy| check_history(strategy, &history));
    }

    #[test]
    fn many_members_are_chosen_as_from_a_list(history in steps(30)) {
        ALL.iter().for_each(|&strategy| check_history(strategy, &history));
    }

    #[test]
    fn after_k_rounds_each_of_n_members_got_k(n in 1_u64..40, k in 1_usize..6, skip in 0_usize..40) {
        let group = group_of(&(0..n).map(|client| worker(client, 0)).collect::<Vec<_>>());
        clients(&group, Choice::RoundRobin, &[], skip);
        let mut counts = BTreeMap::new();
        for client in clients(&group, Choice::RoundRobin, &[], k * usize::try_from(n).unwrap()) {
            *counts.entry(client).or_insert(0_usize) += 1;
        }
        prop_assert_eq!(counts, (0..n).map(|client| (client, k)).collect::<BTreeMap<_, _>>());
    }

    /// Clients from 100 on stay, are online and never tried; the others come, go and are whatever they like.
    #[test]
    fn members_that_stay_are_never_more_than_one_message_apart(history in steps(20), n in 1_u64..8) {
        let mut ring = Ring::new();
        let mut model = Model::default();
        let mut counts = vec![0_usize; usize::try_from(n).unwrap()];
        (0..n).for_each(|at| model.apply(&Step::Insert((100 + at, 0)), &mut ring));
        for step in &history {
            model.apply(step, &mut ring);
            let Step::Pick(tried) = step else { continue };
            let at = ring.round_robin(tried).unwrap();
            if let Some(at) = ring.member(at).client().checked_sub(100) {
                counts[usize::try_from(at).unwrap()] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{counts:?}");
        }
    }
}

#[test]
fn round_robin_is_exact_under_many_threads() {
    const THREADS: usize = 4;
    const MEMBERS: u64 = 5;
    const ROUNDS: usize = 500;
    let group = group_of(&(0..MEMBERS).map(|client| worker(client, 0)).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS * usize::try_from(MEMBERS).unwrap() {
                    let worker = group.pick(Choice::RoundRobin, &[]).unwrap();
                    worker.pending.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    for _ in 0..MEMBERS {
        let worker = group.pick(Choice::RoundRobin, &[]).unwrap();
        assert_eq!(worker.pending(), THREADS * ROUNDS, "client {}", worker.client());
    }
}

/// What stands for a group in the router.
#[derive(Clone)]
struct Routed(Arc<Group<Arc<Worker>>>);

impl Member for Routed {
    fn client(&self) -> u64 {
        self.0.key()
    }

    fn subscription(&self) -> SubscriptionId {
        SubscriptionId(0)
    }

    fn qos(&self) -> QoS {
        QoS::ExactlyOnce
    }

    fn copies(&self) -> Copies {
        Copies::PerSubscription
    }
}

fn share(name: &str, filter: &str) -> (ShareName, TopicFilter) {
    let limits = &TopicLimits::STANDARD;
    (ShareName::parse(name, limits).unwrap(), TopicFilter::parse(filter, limits).unwrap())
}

/// A table with its router, and how they are used together.
#[derive(Default)]
struct Tables {
    groups: Groups<Arc<Worker>>,
    router: Router<Routed>,
}

impl Tables {
    fn join(&self, (name, filter): &(ShareName, TopicFilter), worker: &Arc<Worker>) -> bool {
        let mut is_first = false;
        let joined = self.groups.join(name, filter, Arc::clone(worker), |group| {
            is_first = true;
            let replaced = self.router.subscribe(filter, Routed(Arc::clone(group)));
            assert!(replaced.is_none(), "the group was routed already");
        });
        assert!(!is_first || joined.replaced.is_none());
        is_first
    }

    /// Whether the group is no more. `None`: there was no such member.
    fn leave(&self, (name, filter): &(ShareName, TopicFilter), worker: &Worker) -> Option<bool> {
        let mut is_last = false;
        let (client, subscription) = worker.key;
        let removed = self.groups.leave(name, filter, client, SubscriptionId(subscription), |group| {
            is_last = true;
            assert!(group.is_empty());
            let removed = self.router.unsubscribe(filter, group.key(), SubscriptionId(0));
            assert!(
                removed.is_some_and(|removed| Arc::ptr_eq(&removed.0, group)),
                "the group was not routed"
            );
        });
        removed.map(|_| is_last)
    }

    /// How many members each group has that a message to `topic` finds.
    fn found(&self, topic: &str) -> Vec<usize> {
        let topic = Topic::parse(topic, &TopicLimits::STANDARD).unwrap();
        let matched = self.router.matching(&topic);
        let mut found: Vec<usize> = matched.targets().iter().map(|target| target.member.0.len()).collect();
        found.sort_unstable();
        found
    }
}

#[test]
fn a_group_is_one_entry_from_its_first_member_to_its_last() {
    let tables = Tables::default();
    let (ours, theirs) = (share("g", "a/+"), share("h", "a/+"));
    let (one, two) = (worker(1, 0), worker(2, 0));
    assert!(tables.join(&ours, &one));
    assert!(!tables.join(&ours, &two));
    assert!(!tables.join(&ours, &worker(2, 0)), "the same again");
    assert!(tables.join(&theirs, &one));
    assert_eq!((tables.groups.len(), tables.groups.members(), tables.router.subscriptions()), (2, 3, 2));
    assert_eq!(tables.found("a/b"), [1, 2]);
    assert_eq!(tables.groups.get(&ours.0, &ours.1).unwrap().len(), 2);
    assert!(tables.groups.get(&ours.0, &share("g", "a/b").1).is_none());

    assert_eq!(tables.leave(&ours, &worker(3, 0)), None);
    assert_eq!(tables.leave(&ours, &worker(1, 1)), None);
    assert_eq!(tables.leave(&share("i", "a/+"), &one), None);
    assert_eq!(tables.leave(&ours, &one), Some(false));
    assert_eq!(tables.found("a/b"), [1, 1]);
    assert_eq!(tables.leave(&ours, &two), Some(true));
    assert_eq!(tables.leave(&ours, &two), None);
    assert_eq!(tables.found("a/b"), [1]);
    assert!(tables.groups.get(&ours.0, &ours.1).is_none());
    assert_eq!(tables.leave(&theirs, &one), Some(true));
    assert!(tables.groups.is_empty());
    assert_eq!((tables.groups.members(), tables.router.subscriptions()), (0, 0));
}

/// Few groups and much coming and going, so that groups begin and end all the time. Whoever is in a group finds it
/// by its topic and finds somebody in it, whatever the others do.
#[test]
fn a_live_group_is_always_routed_and_a_dead_one_never() {
    const THREADS: u64 = 4;
    const ROUNDS: u32 = 1500;
    let tables = Tables::default();
    let shares = [share("g", "a"), share("g", "+/b"), share("h", "+/b")];
    std::thread::scope(|scope| {
        for client in 0..THREADS {
            let (tables, shares) = (&tables, &shares);
            scope.spawn(move || {
                let mut below = dice(client);
                for round in 0..ROUNDS {
                    let at = below(shares.len());
                    let worker = worker(client, round % 2);
                    tables.join(&shares[at], &worker);
                    let matched = tables.router.matching(&topic_of(at));
                    let group = tables.groups.get(&shares[at].0, &shares[at].1).unwrap();
                    let routed = matched.targets().iter().any(|target| Arc::ptr_eq(&target.member.0, &group));
                    assert!(routed, "a live group is not found");
                    assert!(ALL.iter().all(|&strategy| group.pick(strategy, &[]).is_some()));
                    std::thread::yield_now();
                    assert!(tables.leave(&shares[at], &worker).is_some());
                }
            });
        }
    });
    assert!(tables.groups.is_empty());
    assert_eq!((tables.groups.members(), tables.router.subscriptions()), (0, 0));
    assert!(tables.found("a").is_empty() && tables.found("a/b").is_empty());
}

fn topic_of(share: usize) -> Topic {
    Topic::parse(["a", "a/b", "a/b"][share], &TopicLimits::STANDARD).unwrap()
}

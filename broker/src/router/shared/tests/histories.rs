//! Each strategy against a list that is searched the plain way, and fairness by its definition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tidegate_protocol::session::SubscriptionId;

use super::super::GroupMember;
use super::super::ring::Ring;
use super::{ALL, Choice, Key, Worker, dice, worker};

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
        let mut ring = Ring::new();
        (0..n).for_each(|client| assert!(ring.insert(worker(client, 0)).is_none()));
        let mut next = || ring.round_robin(&[]).map(|at| ring.member(at).client());
        (0..skip).for_each(|_| assert!(next().is_some()));
        let mut counts = BTreeMap::new();
        for client in (0..k * usize::try_from(n).unwrap()).filter_map(|_| next()) {
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

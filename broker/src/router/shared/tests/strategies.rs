//! Whom each strategy chooses, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_protocol::session::SubscriptionId;

use super::super::ring::Ring;
use super::super::{Group, GroupMember};
use super::{ALL, Choice, Key, Worker, dice, worker};

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

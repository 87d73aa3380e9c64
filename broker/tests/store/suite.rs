//! What every store does. The same rows for the one in memory and the one on the disk, which is opened again after
//! each batch.

use tidegate::store::memory::MemoryStore;
use tidegate::store::*;

use crate::support::*;

const ANNA: SessionKey = SessionKey(1);
const BEN: SessionKey = SessionKey(2);

/// Commits the batches one by one. Afterwards both stores have the same, `expect` holds, and the disk's check finds
/// nothing wrong.
fn check(batches: &[Vec<Change>], expect: impl Fn(&Contents, &StatsReport)) {
    let folder = tempfile::tempdir().unwrap();
    let memory = MemoryStore::new();
    let kept_open = open(&folder.path().join("open"));
    let reopened = folder.path().join("reopened");
    for batch in batches {
        memory.commit(batch).unwrap();
        kept_open.commit(batch).unwrap();
        open(&reopened).commit(batch).unwrap();
    }
    let reopened = open(&reopened);
    let (expected, _) = contents(&memory);
    expect(&expected, &memory.stats().unwrap());
    for disk in [&kept_open, &reopened] {
        let (found, recovery) = contents(disk);
        assert_eq!(found, expected);
        assert_eq!((recovery.torn_bytes, recovery.missing_commits, recovery.orphans), (0, 0, 0));
        let report = disk.check().unwrap();
        assert!(report.is_sound(), "{report}");
        expect(&found, &StatsReport { bodies: report.bodies, ..disk.stats().unwrap() });
    }
}

fn sessions() -> Vec<Change> {
    vec![Change::PutSession(ANNA, session("anna")), Change::PutSession(BEN, session("ben"))]
}

/// One body, two references.
fn shared(number: u64) -> Vec<Change> {
    let mut changes = message(ANNA, number).to_vec();
    changes.push(Change::Enqueue(BEN, number, reference(number)));
    changes
}

#[test]
fn a_session_comes_back_with_its_subscriptions_and_packet_ids() {
    let batch = vec![
        Change::PutSession(ANNA, session("anna")),
        Change::PutSubscription(ANNA, subscription("a/#")),
        Change::PutSubscription(ANNA, subscription("b/+")),
        Change::InsertReceived(ANNA, 65_535),
        Change::InsertReceived(ANNA, 1),
        Change::RemoveSubscription(ANNA, subscription("b/+").key),
        Change::RemoveReceived(ANNA, 7),
    ];
    check(&[batch], |contents, stats| {
        let anna = &contents.sessions[&ANNA];
        assert_eq!(anna.record, *session("anna"));
        assert_eq!(anna.subscriptions, [*subscription("a/#")]);
        assert_eq!(anna.received, [1, 65_535]);
        assert_eq!((stats.sessions, stats.subscriptions), (1, 1));
    });
}

#[test]
fn a_changed_session_keeps_what_belongs_to_it() {
    let changed = SessionRecord { lost: 4, ..*session("anna") };
    let batches = [
        vec![
            Change::PutSession(ANNA, session("anna")),
            Change::PutSubscription(ANNA, subscription("a")),
            Change::InsertReceived(ANNA, 1),
        ],
        message(ANNA, 1).to_vec(),
        vec![Change::PutSession(ANNA, Box::new(changed))],
    ];
    check(&batches, |contents, _| {
        let anna = &contents.sessions[&ANNA];
        assert_eq!(
            (anna.record.lost, anna.subscriptions.len(), anna.received.len(), anna.queue.count),
            (4, 1, 1, 1)
        );
    });
}

#[test]
fn a_body_goes_with_its_last_reference() {
    let one = [sessions(), shared(1), vec![Change::Dequeue(ANNA, 1)]];
    check(&one, |contents, stats| {
        assert_eq!((contents.payloads(BEN), stats.bodies), (vec!["1".to_owned()], 1));
    });
    let both = [sessions(), shared(1), vec![Change::Dequeue(ANNA, 1)], vec![Change::Dequeue(BEN, 1)]];
    check(&both, |_, stats| assert_eq!((stats.messages, stats.bodies), (0, 0)));
    let at_once = [sessions(), shared(1), vec![Change::Dequeue(ANNA, 1), Change::Dequeue(BEN, 1)]];
    check(&at_once, |_, stats| assert_eq!((stats.messages, stats.bodies), (0, 0)));
}

#[test]
fn what_is_settled_in_the_same_batch_leaves_nothing() {
    let mut batch = shared(1);
    batch.extend([Change::Dequeue(ANNA, 1), Change::Dequeue(BEN, 1)]);
    check(&[sessions(), batch], |_, stats| assert_eq!((stats.messages, stats.bodies), (0, 0)));
}

#[test]
fn a_body_without_a_reference_is_not_stored() {
    let batch = vec![Change::PutBody(BodyId(1), publication("a", "1"))];
    check(&[sessions(), batch], |_, stats| assert_eq!(stats.bodies, 0));
}

#[test]
fn a_reference_without_its_body_is_not_stored() {
    let batch = vec![Change::Enqueue(ANNA, 1, reference(9))];
    check(&[sessions(), batch], |_, stats| assert_eq!(stats.messages, 0));
}

#[test]
fn a_message_moves_to_another_session() {
    for changes in [
        [Change::Dequeue(ANNA, 1), Change::Enqueue(BEN, 5, reference(1))],
        [Change::Enqueue(BEN, 5, reference(1)), Change::Dequeue(ANNA, 1)],
    ] {
        check(&[sessions(), message(ANNA, 1).to_vec(), changes.to_vec()], |contents, stats| {
            assert_eq!(contents.payloads(ANNA), [""; 0]);
            assert_eq!(contents.payloads(BEN), ["1"]);
            assert_eq!(stats.bodies, 1);
        });
    }
}

#[test]
fn a_body_that_gains_a_reference_stays_for_it() {
    let gained = vec![Change::Enqueue(BEN, 5, reference(1))];
    for gone in [Change::Dequeue(ANNA, 1), Change::RemoveSession(ANNA)] {
        let batches = [sessions(), message(ANNA, 1).to_vec(), gained.clone(), vec![gone]];
        check(&batches, |contents, stats| {
            assert_eq!(contents.payloads(BEN), ["1"]);
            assert_eq!((stats.messages, stats.bodies), (1, 1));
        });
    }
    let batches = [
        sessions(),
        message(ANNA, 1).to_vec(),
        gained,
        vec![Change::Dequeue(BEN, 5)],
        vec![Change::Dequeue(ANNA, 1)],
    ];
    check(&batches, |_, stats| assert_eq!((stats.messages, stats.bodies), (0, 0)));
}

#[test]
fn a_received_message_keeps_its_place_and_loses_its_body() {
    let batches = [sessions(), shared(1), vec![Change::Receive(ANNA, 1, 77)]];
    check(&batches, |contents, stats| {
        assert_eq!(contents.sessions[&ANNA].queue.received, [(1, 77)]);
        assert_eq!(contents.queues[&ANNA][0].publication, None);
        assert_eq!(contents.payloads(BEN), ["1"]);
        assert_eq!((stats.messages, stats.bodies), (2, 1));
    });
    let batches = [sessions(), message(ANNA, 1).to_vec(), vec![Change::Receive(ANNA, 1, 77)]];
    check(&batches, |contents, stats| {
        assert_eq!(contents.sessions[&ANNA].queue.count, 1);
        assert_eq!(stats.bodies, 0);
    });
    let batches = [
        sessions(),
        message(ANNA, 1).to_vec(),
        vec![Change::Receive(ANNA, 1, 77)],
        vec![Change::Dequeue(ANNA, 1), Change::Receive(ANNA, 1, 77)],
    ];
    check(&batches, |_, stats| assert_eq!((stats.messages, stats.bodies), (0, 0)));
}

#[test]
fn a_removed_session_leaves_nothing_and_takes_nothing() {
    let mut removed = message(ANNA, 2).to_vec();
    removed.extend([Change::RemoveSession(ANNA), Change::InsertReceived(ANNA, 2)]);
    let batches = [
        sessions(),
        vec![Change::PutSubscription(ANNA, subscription("a")), Change::InsertReceived(ANNA, 1)],
        shared(1),
        removed,
        message(ANNA, 3).to_vec(),
        vec![Change::PutSubscription(ANNA, subscription("b")), Change::InsertReceived(ANNA, 3)],
    ];
    check(&batches, |contents, stats| {
        assert_eq!(contents.sessions.keys().collect::<Vec<_>>(), [&BEN]);
        assert_eq!(contents.payloads(BEN), ["1"]);
        assert_eq!((stats.messages, stats.bodies, stats.subscriptions), (1, 1, 0));
    });
}

#[test]
fn a_long_queue_of_a_removed_session_goes_little_by_little() {
    const COUNT: u64 = 3000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.commit(&sessions()).unwrap();
    store.commit(&(1..=COUNT).flat_map(|number| message(ANNA, number)).collect::<Vec<_>>()).unwrap();
    store.commit(&message(BEN, COUNT + 1)).unwrap();
    store.commit(&[Change::RemoveSession(ANNA)]).unwrap();
    assert!(store.load_queue(ANNA, 0, PAGE).unwrap().messages.is_empty());
    assert!(store.maintain().unwrap(), "some of it is left");
    drop(store);
    let store = open(folder.path());
    let (found, recovery) = contents(&store);
    assert_eq!((found.sessions.len(), recovery.messages, recovery.quarantined), (1, 1, 0));
    assert!(store.check().unwrap().is_sound());
    while store.maintain().unwrap() {}
    drop(store);
    let store = open(folder.path());
    let report = store.check().unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!((report.bodies, report.messages), (1, 1));
    assert_eq!(contents(&store).0.payloads(BEN), [(COUNT + 1).to_string()]);
}

#[test]
fn retained_is_the_last_one() {
    let batches = [
        vec![
            Change::PutRetained(publication("a", "1")),
            Change::PutRetained(publication("b", "1")),
            Change::PutRetained(publication("c", "1")),
        ],
        vec![
            Change::PutRetained(publication("a", "2")),
            Change::RemoveRetained(topic("b")),
            Change::PutRetained(publication("b", "3")),
            Change::PutRetained(publication("c", "3")),
            Change::RemoveRetained(topic("c")),
        ],
    ];
    check(&batches, |contents, stats| {
        let payload = |name: &str| contents.retained.get(name).map(|record| record.payload.to_vec());
        assert_eq!(payload("a"), Some(b"2".to_vec()));
        assert_eq!(payload("b"), Some(b"3".to_vec()));
        assert_eq!(payload("c"), None);
        assert_eq!(stats.retained, 2);
    });
}

#[test]
fn repeated_changes_change_nothing() {
    let once = [
        sessions(),
        vec![Change::PutSubscription(ANNA, subscription("a")), Change::InsertReceived(ANNA, 1)],
        shared(1),
        vec![Change::Dequeue(ANNA, 1)],
        vec![Change::RemoveReceived(ANNA, 1)],
        vec![Change::RemoveRetained(topic("nothing"))],
    ];
    let twice: Vec<_> = once.iter().flat_map(|batch| [batch.clone(), batch.clone()]).collect();
    check(&twice, |contents, stats| {
        assert_eq!(contents.payloads(BEN), ["1"]);
        assert_eq!((stats.messages, stats.bodies, stats.subscriptions), (1, 1, 1));
    });
}

#[test]
fn a_page_ends_at_its_limits_and_has_at_least_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [Box<dyn Store>; 2] = [Box::new(MemoryStore::new()), Box::new(open(folder.path()))];
    for store in stores {
        store.commit(&sessions()).unwrap();
        for number in 1..=5 {
            store.commit(&message(ANNA, number * 10)).unwrap();
        }
        let load = |from_seq, count_max, bytes_max| {
            let page = store.load_queue(ANNA, from_seq, PageLimits { count_max, bytes_max }).unwrap();
            let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
            (seqs, page.next_seq, page.is_last)
        };
        assert_eq!(load(0, 2, usize::MAX), (vec![10, 20], 21, false));
        assert_eq!(load(0, 0, 0), (vec![10], 11, false));
        assert_eq!(load(11, 100, 250), (vec![20, 30], 31, false));
        assert_eq!(load(31, 100, usize::MAX), (vec![40, 50], 51, true));
        assert_eq!(load(51, 100, usize::MAX), (vec![], 51, true));
        assert_eq!(
            store.load_queue(BEN, 3, PAGE).unwrap(),
            Page { next_seq: 3, is_last: true, ..Page::default() }
        );
    }
}

#[test]
fn numbers_are_not_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.commit(&[Change::PutSession(SessionKey(41), session("anna"))]).unwrap();
    store.commit(&message(SessionKey(41), 99)).unwrap();
    store.commit(&[Change::RemoveSession(SessionKey(41))]).unwrap();
    drop(store);
    let (found, recovery) = contents(&open(folder.path()));
    assert!(found.sessions.is_empty());
    assert_eq!((recovery.next_session, recovery.next_body), (42, 100));
}

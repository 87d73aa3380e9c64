//! What only the store on the disk does: gives space back, makes copies, says what it has.

use std::time::{Duration, Instant};

use tidegate::store::disk::{DiskSettings, DiskStore};
use tidegate::store::*;

use crate::support::*;

const ANNA: SessionKey = SessionKey(1);
const BEN: SessionKey = SessionKey(2);

/// Longer than any disk takes that works.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of queues and bodies on the disk, without journals.
fn queue_bytes(store: &DiskStore) -> u64 {
    let disk = store.stats().unwrap().disk;
    disk.iter().filter(|(part, _)| part == "queue" || part == "bodies").map(|(_, bytes)| bytes).sum()
}

#[test]
fn space_comes_back_after_a_long_queue_was_consumed() {
    const BATCHES: u64 = 120;
    const EACH: u64 = 32;
    const MIB: u64 = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let store =
        DiskStore::open(folder.path(), DiskSettings { is_synced: false, ..DiskSettings::default() }).unwrap();
    store.commit(&[Change::PutSession(ANNA, session("anna"))]).unwrap();
    let payload = bytes::Bytes::from(vec![b'x'; 16 * 1024]);
    for batch in 0..BATCHES {
        let changes = (0..EACH).flat_map(|number| {
            let number = batch * EACH + number;
            let reference = ReferenceRecord { size_bytes: 16 * 1024, ..reference(number) };
            [
                Change::PutBody(BodyId(number), publication("a", payload.clone())),
                Change::Enqueue(ANNA, number, reference),
            ]
        });
        store.commit(&changes.collect::<Vec<_>>()).unwrap();
    }
    // fjall writes tables behind the commits.
    let begun = Instant::now();
    let full = loop {
        let full = queue_bytes(&store);
        if full > 32 * MIB {
            break full;
        }
        assert!(begun.elapsed() < PATIENCE, "{full} bytes of 60 MiB have left the journal");
        std::thread::yield_now();
    };
    for batch in 0..BATCHES {
        let changes: Vec<_> = (0..EACH).map(|number| Change::Dequeue(ANNA, batch * EACH + number)).collect();
        store.commit(&changes).unwrap();
    }
    // As the writer does when nothing comes.
    let begun = Instant::now();
    while queue_bytes(&store) > 2 * MIB {
        assert!(begun.elapsed() < PATIENCE, "{} bytes of {full} are left", queue_bytes(&store));
        store.maintain().unwrap();
        std::thread::yield_now();
    }
    store.commit(&message(ANNA, 1_000_000)).unwrap();
    assert_eq!(contents(&store).0.payloads(ANNA), ["1000000"]);
    assert!(store.check().unwrap().is_sound());
}

#[test]
fn a_back_up_is_a_store_as_it_was_at_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (live, copy) = (folder.path().join("live"), folder.path().join("copy"));
    let store = open(&live);
    store
        .commit(&[Change::PutSession(ANNA, session("anna")), Change::PutSession(BEN, session("ben"))])
        .unwrap();
    store
        .commit(&[Change::PutSubscription(ANNA, subscription("a")), Change::InsertReceived(BEN, 3)])
        .unwrap();
    for number in 1..=20 {
        store.commit(&message(ANNA, number)).unwrap();
    }
    store.commit(&[Change::PutRetained(publication("r", "1"))]).unwrap();
    let before = contents(&store).0;
    store.backup(&copy).unwrap();
    store.commit(&message(ANNA, 21)).unwrap();
    let copied = open(&copy);
    let (found, recovery) = contents(&copied);
    assert_eq!(found, before);
    assert_eq!((recovery.next_session, recovery.next_body, recovery.missing_commits), (3, 21, 0));
    assert!(copied.check().unwrap().is_sound());
    // Who goes on with the copy finds nothing missing either.
    copied.commit(&message(ANNA, 22)).unwrap();
    drop(copied);
    assert_eq!(contents(&open(&copy)).1.missing_commits, 0);
    let error = store.backup(&copy).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
}

#[test]
fn statistics_name_the_longest_queues() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store
        .commit(&[Change::PutSession(ANNA, session("anna")), Change::PutSession(BEN, session("ben\n"))])
        .unwrap();
    for number in 1..=3 {
        store.commit(&message(BEN, number)).unwrap();
    }
    store.commit(&message(ANNA, 4)).unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.sessions, stats.messages, stats.bytes, stats.bodies, stats.commits), (2, 4, 400, 4, 5));
    let text = stats.to_string();
    assert!(text.contains("queue of ben\\n: 3 messages, 300 bytes\nqueue of anna: 1 messages"), "{text}");
}

#[test]
fn progress_is_told_on_long_loads() {
    const COUNT: u64 = 70_000;
    let folder = tempfile::tempdir().unwrap();
    let store =
        DiskStore::open(folder.path(), DiskSettings { is_synced: false, ..DiskSettings::default() }).unwrap();
    store.commit(&[Change::PutSession(ANNA, session("anna"))]).unwrap();
    store
        .commit(&[Change::PutBody(BodyId(1), publication("a", "1")), Change::Enqueue(ANNA, 0, reference(1))])
        .unwrap();
    let more: Vec<_> = (1..COUNT).map(|seq| Change::Enqueue(ANNA, seq, reference(1))).collect();
    store.commit(&more).unwrap();
    drop(store);
    let mut told = Vec::new();
    let store = open(folder.path());
    let recovery = store.recover(&mut |_| (), &mut |progress| told.push(progress.messages)).unwrap();
    assert_eq!((recovery.messages, recovery.bytes), (COUNT, COUNT * 100));
    assert_eq!(told, [65_536, COUNT]);
}

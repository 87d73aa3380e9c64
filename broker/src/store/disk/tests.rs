//! What needs a look inside: commits that fail half-way, records that cannot be read.

use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::SubscriptionId;
use tidegate_protocol::topic::{Topic, TopicLimits};

use super::super::{BodyId, PublicationRecord, ReferenceRecord, SessionRecord};
use super::keys::Space;
use super::*;

fn topic(text: &str) -> Topic {
    Topic::parse(text, &TopicLimits::STANDARD).unwrap()
}

fn retained(topic: &str, payload: &'static str) -> Change {
    let publication = Publication::new(self::topic(topic), bytes::Bytes::from_static(payload.as_bytes()));
    Change::PutRetained(Box::new(PublicationRecord::new(&publication, None)))
}

fn session(key: u64) -> Change {
    let record = SessionRecord { name: "anna".into(), expiry_ms: 1, away: None, will: None, lost: 0 };
    Change::PutSession(SessionKey(key), Box::new(record))
}

/// Commits on the disk and tells nobody, as when the fsync fails and the write was done.
fn commit_and_fail(store: &DiskStore, changes: &[Change]) {
    let inner = &store.inner;
    let mut writing = inner.writing.lock();
    let tables = inner.tables().unwrap();
    let (puts, effect) = {
        let state = inner.state.read();
        let mut staging = Staging::new(&tables, &state);
        changes.iter().for_each(|change| staging.stage(change).unwrap());
        staging.finish()
    };
    let undo = puts.iter().map(|put| {
        let value = tables.get(put.space, &put.key).unwrap();
        Put { value, ..put.clone() }
    });
    let undo = undo.collect();
    tables.commit(&puts).unwrap();
    drop(tables);
    inner.close(&mut writing, effect, undo);
}

#[test]
fn a_commit_that_failed_and_is_there_nevertheless_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path(), DiskSettings::default()).unwrap();
    store.commit(&[session(1), retained("a", "1"), retained("b", "1")]).unwrap();
    commit_and_fail(
        &store,
        &[session(2), retained("a", "2"), retained("c", "2"), Change::RemoveRetained(topic("b"))],
    );
    store.commit(&[retained("d", "3")]).unwrap();
    drop(store);
    let store = DiskStore::open(folder.path(), DiskSettings::default()).unwrap();
    let (mut sessions, mut payloads) = (Vec::new(), Vec::new());
    let visit = &mut |recovered| match recovered {
        Recovered::Session(session) => sessions.push(session.key.0),
        Recovered::Retained(record) => {
            payloads.push((record.topic.as_str().to_owned(), record.payload.to_vec()))
        }
    };
    let recovery = store.recover(visit, &mut |_| ()).unwrap();
    assert_eq!(sessions, [1]);
    let expected =
        [("a", "1"), ("b", "1"), ("d", "3")].map(|(topic, payload)| (topic.to_owned(), payload.into()));
    assert_eq!(payloads, expected);
    assert_eq!((recovery.missing_commits, recovery.torn_bytes), (0, 0));
    assert!(store.check().unwrap().is_sound());
}

#[test]
fn a_record_that_cannot_be_read_is_put_aside_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path(), DiskSettings::default()).unwrap();
    store.commit(&[session(1), session(2), retained("a", "1"), retained("b", "1")]).unwrap();
    let tables = store.inner.tables().unwrap();
    let damage = |space, key: &[u8]| Put::insert(space, key, b"\x01 nothing".to_vec());
    let puts = vec![
        damage(Space::Sessions, &keys::session(SessionKey(1))),
        damage(Space::Retained, b"a"),
        damage(Space::Queue, &keys::queue(SessionKey(2), 7)),
    ];
    tables.commit(&puts).unwrap();
    drop(tables);
    assert_eq!(store.check().unwrap().damaged, 3);
    let mut count = 0;
    let recovery = store.recover(&mut |_| count += 1, &mut |_| ()).unwrap();
    assert_eq!((count, recovery.quarantined), (2, 3));
    // A message that turns out to be unreadable when it is asked for.
    let reference = ReferenceRecord {
        body: BodyId(1),
        qos: QoS::AtLeastOnce,
        retain: false,
        is_retained: false,
        size_bytes: 10,
        subscription: SubscriptionId(1),
        also: Vec::new(),
        expires_at_ms: None,
        received: None,
    };
    let Change::PutRetained(body) = retained("a", "1") else { return };
    let key = SessionKey(2);
    for number in 1..=3 {
        let id = BodyId(number);
        let reference = ReferenceRecord { body: id, ..reference.clone() };
        store.commit(&[Change::PutBody(id, body.clone()), Change::Enqueue(key, number, reference)]).unwrap();
    }
    let tables = store.inner.tables().unwrap();
    tables.commit(&[damage(Space::Bodies, &keys::body(BodyId(2)))]).unwrap();
    drop(tables);
    let limits = PageLimits { count_max: 9, bytes_max: 1000 };
    let page = store.load_queue(key, 0, limits).unwrap();
    let seqs = |page: &Page| page.messages.iter().map(|message| message.seq).collect::<Vec<_>>();
    assert_eq!((seqs(&page), page.quarantined), (vec![1, 3], 1));
    let page = store.load_queue(key, 0, limits).unwrap();
    assert_eq!((seqs(&page), page.quarantined), (vec![1, 3], 0));
    assert_eq!(store.stats().unwrap().quarantined, 5, "reference and body, each by itself");
    assert_eq!(store.inner.state.read().sessions[&key].count, 2);
}

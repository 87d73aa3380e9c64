//! Random histories: the store on the disk has what the one in memory has, at every moment at which a crash may come.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tidegate::store::memory::MemoryStore;
use tidegate::store::*;

use crate::support::*;

/// One step of a broker, in small numbers.
#[derive(Clone, Debug)]
enum Step {
    Begin,
    End(usize),
    Away(usize, u64),
    Subscribe(usize, u8),
    Unsubscribe(usize, u8),
    /// To these of the sessions, as bits.
    Publish(u8),
    /// The oldest of the queue and so many after it.
    Settle(usize, usize),
    Receive(usize, usize),
    Move(usize, usize),
    Gain(usize, usize),
    Incoming(usize, u16),
    Release(usize, u16),
    Retain(u8),
    Clear(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0_usize..8;
    prop_oneof![
        2 => Just(Step::Begin),
        1 => session.clone().prop_map(Step::End),
        1 => (session.clone(), any::<u64>()).prop_map(|(session, at)| Step::Away(session, at)),
        1 => (session.clone(), 0_u8..3).prop_map(|(session, filter)| Step::Subscribe(session, filter)),
        1 => (session.clone(), 0_u8..3).prop_map(|(session, filter)| Step::Unsubscribe(session, filter)),
        8 => any::<u8>().prop_map(Step::Publish),
        6 => (session.clone(), 0_usize..4).prop_map(|(session, place)| Step::Settle(session, place)),
        2 => (session.clone(), 0_usize..4).prop_map(|(session, place)| Step::Receive(session, place)),
        1 => (session.clone(), session.clone()).prop_map(|(from, to)| Step::Move(from, to)),
        1 => (session.clone(), session.clone()).prop_map(|(from, to)| Step::Gain(from, to)),
        1 => (session.clone(), 1_u16..4).prop_map(|(session, id)| Step::Incoming(session, id)),
        1 => (session, 1_u16..4).prop_map(|(session, id)| Step::Release(session, id)),
        1 => (0_u8..3).prop_map(Step::Retain),
        1 => (0_u8..3).prop_map(Step::Clear),
    ]
}

/// What a broker knows.
#[derive(Default)]
struct Broker {
    sessions: Vec<SessionKey>,
    /// Places in queues, with the bodies.
    queues: HashMap<SessionKey, Vec<(u64, ReferenceRecord)>>,
    last: u64,
}

impl Broker {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn session(&self, index: usize) -> Option<SessionKey> {
        self.sessions.get(index % self.sessions.len().max(1)).copied()
    }

    fn changes(&mut self, step: &Step) -> Vec<Change> {
        self.try_changes(step).unwrap_or_default()
    }

    fn try_changes(&mut self, step: &Step) -> Option<Vec<Change>> {
        Some(match *step {
            Step::Begin => {
                let key = SessionKey(self.next());
                self.sessions.push(key);
                vec![Change::PutSession(key, session(&key.0.to_string()))]
            }
            Step::End(index) => {
                let key = self.session(index)?;
                self.sessions.retain(|other| *other != key);
                self.queues.remove(&key);
                vec![Change::RemoveSession(key)]
            }
            Step::Away(index, expires_at_ms) => {
                let key = self.session(index)?;
                let away = Some(Away { expires_at_ms });
                vec![Change::PutSession(key, Box::new(SessionRecord { away, ..*session("away") }))]
            }
            Step::Subscribe(index, filter) => {
                vec![Change::PutSubscription(self.session(index)?, subscription(&format!("f/{filter}")))]
            }
            Step::Unsubscribe(index, filter) => {
                vec![Change::RemoveSubscription(
                    self.session(index)?,
                    subscription(&format!("f/{filter}")).key,
                )]
            }
            Step::Publish(bits) => self.publish(bits),
            Step::Settle(index, place) => {
                let (key, seq, _) = self.take(index, place)?;
                vec![Change::Dequeue(key, seq)]
            }
            Step::Receive(index, place) => {
                let (key, seq, mut reference) = self.take(index, place)?;
                reference.received = Some(9);
                self.queues.entry(key).or_default().push((seq, reference));
                vec![Change::Receive(key, seq, 9)]
            }
            Step::Move(from, to) => {
                let to = self.session(to)?;
                let (from, seq, reference) = self.take(from, 0)?;
                vec![Change::Dequeue(from, seq), self.enqueue(to, reference)]
            }
            Step::Gain(from, to) => {
                let (from, to) = (self.session(from)?, self.session(to)?);
                let (_, reference) = self.queues.get(&from)?.first()?.clone();
                vec![self.enqueue(to, reference)]
            }
            Step::Incoming(index, id) => vec![Change::InsertReceived(self.session(index)?, id)],
            Step::Release(index, id) => vec![Change::RemoveReceived(self.session(index)?, id)],
            Step::Retain(name) => {
                let payload = self.next().to_string();
                vec![Change::PutRetained(publication(&format!("r/{name}"), payload))]
            }
            Step::Clear(name) => vec![Change::RemoveRetained(topic(&format!("r/{name}")))],
        })
    }

    fn publish(&mut self, bits: u8) -> Vec<Change> {
        let body = self.next();
        let mut changes = vec![Change::PutBody(BodyId(body), publication("p", body.to_string().repeat(40)))];
        for (index, key) in self.sessions.clone().into_iter().enumerate().take(8) {
            if bits & (1 << index) != 0 {
                changes.push(self.enqueue(key, reference(body)));
            }
        }
        changes
    }

    fn enqueue(&mut self, key: SessionKey, reference: ReferenceRecord) -> Change {
        let seq = self.next();
        self.queues.entry(key).or_default().push((seq, reference.clone()));
        Change::Enqueue(key, seq, reference)
    }

    fn take(&mut self, index: usize, place: usize) -> Option<(SessionKey, u64, ReferenceRecord)> {
        let key = self.session(index)?;
        let queue = self.queues.get_mut(&key)?;
        if place >= queue.len() {
            return None;
        }
        let (seq, reference) = queue.remove(place);
        Some((key, seq, reference))
    }
}

/// A history in batches, and after which of them the crash comes; where in the bytes of the next one, and what the disk
/// made of them.
#[derive(Clone, Debug)]
struct History {
    batches: Vec<Vec<Step>>,
    crash: usize,
    torn_at: f64,
    tear: Tear,
}

/// What a crash leaves of a commit that was not finished.
#[derive(Clone, Copy, Debug)]
enum Tear {
    /// The beginning.
    Prefix,
    /// All but some bytes in the middle: blocks are not written in order.
    Hole,
    /// The beginning, and something else behind it.
    Garbage,
}

fn history() -> impl Strategy<Value = History> {
    let batches = prop::collection::vec(prop::collection::vec(step(), 1..6), 2..24);
    let tear = prop_oneof![Just(Tear::Prefix), Just(Tear::Hole), Just(Tear::Garbage)];
    (batches, any::<prop::sample::Index>(), 0.0..1.0, tear).prop_map(|(batches, crash, torn_at, tear)| {
        let crash = crash.index(batches.len() - 1);
        History { batches, crash, torn_at, tear }
    })
}

fn check(history: &History) {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    let crashed = folder.path().join("crashed");
    let (memory, disk) = (MemoryStore::new(), open(&live));
    let mut broker = Broker::default();
    let mut before = None;
    for (number, batch) in history.batches.iter().enumerate() {
        let changes: Vec<_> = batch.iter().flat_map(|step| broker.changes(step)).collect();
        memory.commit(&changes).unwrap();
        disk.commit(&changes).unwrap();
        if number == history.crash {
            copy(&live, &crashed);
            before = Some(contents(&memory).0);
        } else if number == history.crash + 1 {
            tear(&live, &crashed, history.torn_at, history.tear);
            let crashed = open(&crashed);
            let (found, recovery) = contents(&crashed);
            let (acknowledged, after) = (before.take().unwrap(), contents(&memory).0);
            assert!(
                found == acknowledged || found == after,
                "{found:?} is neither before nor after the torn commit"
            );
            assert_eq!((recovery.missing_commits, recovery.quarantined, recovery.orphans), (0, 0, 0));
            assert!(crashed.check().unwrap().is_sound());
        }
    }
    for key in broker.sessions {
        assert_eq!(queue(&disk, key), queue(&memory, key), "read beside the commits");
    }
    drop(disk);
    let disk = open(&live);
    assert_eq!(contents(&disk).0, contents(&memory).0);
    let report = disk.check().unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.bodies, memory.stats().unwrap().bodies);
}

/// Writes some of what the journal got since into the copy.
fn tear(live: &Path, crashed: &Path, at: f64, tear: Tear) {
    let (from, to) = (live.join("db/0.jnl"), crashed.join("db/0.jnl"));
    let (old, mut new) = (fs::read(&to).unwrap(), fs::read(from).unwrap());
    let Some(first) = old.iter().zip(&new).position(|(old, new)| old != new) else { return };
    let end = written_len(&new);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below the length of the journal"
    )]
    let cut = first + ((end - first) as f64 * at) as usize;
    match tear {
        Tear::Prefix => new[cut..].fill(0),
        Tear::Hole => new[cut..(cut + 64).min(end)].fill(0),
        Tear::Garbage => new[cut..end].fill(0xa5),
    }
    fs::write(to, &new[..end]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn after_a_crash_everything_acknowledged_is_there(history in history()) {
        check(&history);
    }
}

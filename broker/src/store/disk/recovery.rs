//! Everything once, at the start: sessions in the order of their keys, their queues counted as they stream by. Nothing
//! is kept for a message but what PUBREC has left of it; bodies are not read.

use std::iter::Peekable;

use fjall::{Guard, KvPair, Readable as _, Snapshot};

use super::keys::{self, Space};
use super::state::{Counters, Queue, State, StoredReference};
use super::tables::{Put, Tables};
use super::{Inner, Ordering};
use crate::store::record::Record;
use crate::store::{
    BodyId, Progress, PublicationRecord, QueueSummary, Recovered, RecoveredSession, Recovery, SessionKey,
    SessionRecord, StoreError, SubscriptionRecord,
};

/// The last commit, and how many before it are missing.
#[derive(Debug, Default)]
pub(super) struct LastCommit {
    pub(super) counters: Counters,
    pub(super) missing: u64,
}

/// Reads the ring of commits.
pub(super) fn last_commit(tables: &Tables) -> Result<LastCommit, StoreError> {
    let mut found: Vec<Counters> = Vec::new();
    for guard in tables.keyspace(Space::Meta).prefix([keys::RING]) {
        let (_, value) = guard.into_inner()?;
        found.extend(Counters::decode(&value).ok());
    }
    let Some(last) = found.iter().max_by_key(|counters| counters.number).copied() else {
        return Ok(LastCommit::default());
    };
    let oldest = last.number.saturating_sub(keys::RING_LEN - 1).max(1);
    let present = found.iter().filter(|counters| counters.number >= oldest).count();
    let expected = last.number + 1 - oldest;
    Ok(LastCommit { counters: last, missing: expected.saturating_sub(u64::try_from(present).unwrap_or(0)) })
}

impl Inner {
    pub(super) fn recover(
        &self,
        visit: &mut dyn FnMut(Recovered),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Recovery, StoreError> {
        let mut writing = self.writing.lock();
        let tables = self.tables()?;
        let last = last_commit(&tables)?;
        let mut run = Run {
            snapshot: tables.database().snapshot(),
            tables: &tables,
            state: State { counters: last.counters, ..State::default() },
            recovery: Recovery::default(),
            repairs: Vec::new(),
            visit,
            progress,
        };
        run.marks()?;
        run.sessions()?;
        run.retained()?;
        run.recovery.missing_commits = last.missing;
        run.recovery.torn_bytes = self.torn_bytes.load(Ordering::Relaxed);
        let is_damaged = last.missing > 0 || !run.repairs.is_empty();
        run.state.shared.retain(|_, references| *references >= 2);
        if is_damaged {
            run.orphans()?;
        }
        let Run { state, recovery, repairs, .. } = run;
        if !repairs.is_empty() {
            tables.commit(&repairs)?;
        }
        *self.state.write() = state;
        writing.is_recovered = true;
        Ok(recovery)
    }
}

struct Run<'a> {
    snapshot: Snapshot,
    tables: &'a Tables,
    state: State,
    recovery: Recovery,
    /// What does not belong there, to be removed or put aside.
    repairs: Vec<Put>,
    visit: &'a mut dyn FnMut(Recovered),
    progress: &'a mut dyn FnMut(Progress),
}

/// A part of the store whose keys begin with a session, read along with the sessions.
type Stream<I> = Peekable<I>;

impl Run<'_> {
    fn iter(&self, space: Space) -> Stream<impl Iterator<Item = fjall::Result<KvPair>> + use<>> {
        self.snapshot.iter(self.tables.keyspace(space)).map(Guard::into_inner).peekable()
    }

    /// Sessions whose rest is to be removed, bodies that gained references, what was put aside.
    fn marks(&mut self) -> Result<(), StoreError> {
        for kind in [keys::DOOMED, keys::GAINED] {
            for guard in self.snapshot.prefix(self.tables.keyspace(Space::Meta), [kind]) {
                match keys::parse_mark(&guard.key()?) {
                    Some((keys::DOOMED, key)) => {
                        self.state.doomed.insert(SessionKey(key), 0);
                    }
                    Some((_, body)) => {
                        self.state.gained.insert(BodyId(body));
                    }
                    None => {}
                }
            }
        }
        for guard in self.snapshot.iter(self.tables.keyspace(Space::Quarantine)) {
            let number = keys::parse_number(&guard.key()?).unwrap_or(0);
            self.state.next_quarantine = self.state.next_quarantine.max(number.saturating_add(1));
            self.recovery.quarantined += 1;
        }
        Ok(())
    }

    fn sessions(&mut self) -> Result<(), StoreError> {
        let mut subscriptions = self.iter(Space::Subscriptions);
        let mut received = self.iter(Space::Received);
        let mut queue = self.iter(Space::Queue);
        for entry in self.iter(Space::Sessions) {
            let (key, value) = entry?;
            let Some((session, [])) = keys::split_session(&key) else {
                self.put_aside(Space::Sessions, &key, &value);
                continue;
            };
            let record = SessionRecord::decode(&value);
            if record.is_err() {
                // What belongs to it has no owner from here on, and goes with the next step.
                self.put_aside(Space::Sessions, &key, &value);
                continue;
            }
            let mut found = Vec::new();
            self.belonging(Space::Subscriptions, session, &mut subscriptions, |_, _, value| {
                found.push(SubscriptionRecord::decode(value).ok()?);
                Some(())
            })?;
            let mut packet_ids = Vec::new();
            self.belonging(Space::Received, session, &mut received, |_, key, _| {
                packet_ids.push(keys::parse_received(key)?.1);
                Some(())
            })?;
            let summary = self.queue(session, &mut queue)?;
            if let Ok(record) = record {
                self.session(session, record, found, packet_ids, summary);
            }
        }
        self.belonging(Space::Subscriptions, LAST, &mut subscriptions, |_, _, _| None)?;
        self.belonging(Space::Received, LAST, &mut received, |_, _, _| None)?;
        self.belonging(Space::Queue, LAST, &mut queue, |_, _, _| None)
    }

    fn session(
        &mut self,
        key: SessionKey,
        record: SessionRecord,
        subscriptions: Vec<SubscriptionRecord>,
        received: Vec<u16>,
        queue: QueueSummary,
    ) {
        let QueueSummary { first_seq, next_seq, count, bytes, .. } = queue;
        self.state.sessions.insert(key, Queue { first_seq, next_seq, count, bytes });
        self.recovery.sessions += 1;
        self.recovery.bytes += bytes;
        (self.visit)(Recovered::Session(Box::new(RecoveredSession {
            key,
            record,
            subscriptions,
            received,
            queue,
        })));
    }

    fn queue(
        &mut self,
        session: SessionKey,
        stream: &mut Stream<impl Iterator<Item = fjall::Result<KvPair>>>,
    ) -> Result<QueueSummary, StoreError> {
        let mut queue = Queue::default();
        let mut received = Vec::new();
        let mut subscription_max = 0;
        self.belonging(Space::Queue, session, stream, |run, key, value| {
            let (_, seq) = keys::parse_queue(key)?;
            let stored = StoredReference::decode(value).ok()?;
            let reference = &stored.reference;
            queue.insert(seq, reference.size_bytes);
            subscription_max = subscription_max.max(reference.subscription.0);
            match reference.received {
                Some(packet_id) => received.push((seq, packet_id)),
                None => run.count_body(&stored),
            }
            run.recovery.messages += 1;
            if run.recovery.messages.is_multiple_of(PROGRESS_EVERY) {
                run.tell();
            }
            Some(())
        })?;
        let Queue { first_seq, next_seq, count, bytes } = queue;
        Ok(QueueSummary { first_seq, next_seq, count, bytes, received, subscription_max })
    }

    fn count_body(&mut self, stored: &StoredReference) {
        let StoredReference { is_shared, reference } = stored;
        let mut is_first = true;
        if *is_shared || self.state.gained.contains(&reference.body) {
            let references = self.state.shared.entry(reference.body).or_default();
            *references += 1;
            is_first = *references == 1;
        }
        if is_first {
            self.state.live_bytes += u64::from(reference.size_bytes);
        }
    }

    /// Goes on in a stream to the end of what belongs to the session. `read` says whether it could; what belongs to no
    /// session is removed, unless the session was and its queue is long.
    fn belonging(
        &mut self,
        space: Space,
        session: SessionKey,
        stream: &mut Stream<impl Iterator<Item = fjall::Result<KvPair>>>,
        mut read: impl FnMut(&mut Self, &[u8], &[u8]) -> Option<()>,
    ) -> Result<(), StoreError> {
        let is_ahead = |entry: &fjall::Result<KvPair>| {
            entry
                .as_ref()
                .is_ok_and(|(key, _)| keys::split_session(key).is_some_and(|(owner, _)| owner > session))
        };
        while let Some(entry) = stream.next_if(|entry| !is_ahead(entry)) {
            let (key, value) = entry?;
            let owner = keys::split_session(&key).map(|(owner, _)| owner);
            if owner == Some(session) && session != LAST {
                if read(self, &key, &value).is_none() {
                    self.put_aside(space, &key, &value);
                }
            } else if space == Space::Queue
                && let Some(owner) = owner
            {
                self.state.doomed.entry(owner).or_insert(0);
                if let Ok(stored) = StoredReference::decode(&value)
                    && stored.reference.received.is_none()
                {
                    self.count_body(&stored);
                }
            } else {
                self.repairs.push(Put::remove(space, &key));
            }
        }
        Ok(())
    }

    fn retained(&mut self) -> Result<(), StoreError> {
        for entry in self.iter(Space::Retained) {
            let (key, value) = entry?;
            match PublicationRecord::decode(&value) {
                Ok(publication) if publication.topic.as_str().as_bytes() == &*key => {
                    self.recovery.retained += 1;
                    if self.recovery.retained.is_multiple_of(PROGRESS_EVERY) {
                        self.tell();
                    }
                    (self.visit)(Recovered::Retained(Box::new(publication)));
                }
                _ => self.put_aside(Space::Retained, &key, &value),
            }
        }
        self.tell();
        let Counters { next_session, next_body, .. } = self.state.counters;
        (self.recovery.next_session, self.recovery.next_body) = (next_session, next_body);
        Ok(())
    }

    /// Bodies that nobody refers to. References and bodies change together, so there are some only where something
    /// else was lost.
    fn orphans(&mut self) -> Result<(), StoreError> {
        let mut referred: Vec<u64> = Vec::new();
        for entry in self.iter(Space::Queue) {
            let (_, value) = entry?;
            if let Ok(stored) = StoredReference::decode(&value)
                && stored.reference.received.is_none()
            {
                referred.push(stored.reference.body.0);
            }
        }
        referred.sort_unstable();
        for guard in self.snapshot.iter(self.tables.keyspace(Space::Bodies)) {
            let key = guard.key()?;
            let is_referred = keys::parse_number(&key).is_some_and(|id| referred.binary_search(&id).is_ok());
            if !is_referred {
                self.recovery.orphans += 1;
                self.repairs.push(Put::remove(Space::Bodies, &key));
            }
        }
        Ok(())
    }

    fn put_aside(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.recovery.quarantined += 1;
        self.repairs.extend(super::reading::put_aside(space, key, value, &mut self.state.next_quarantine));
    }

    fn tell(&mut self) {
        let Recovery { sessions, messages, retained, .. } = self.recovery;
        (self.progress)(Progress { sessions, messages, retained });
    }
}

/// No session has this number.
const LAST: SessionKey = SessionKey(u64::MAX);

/// Between two calls of `progress`.
const PROGRESS_EVERY: u64 = 65_536;

//! The store without a disk: for tests, and the definition of what a store does. Every rule is one line here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use parking_lot::Mutex;

use super::report::QueueSize;
use super::{
    BodyId, Change, CheckReport, Page, PageLimits, Progress, PublicationRecord, QueueSummary, QueuedMessage,
    Recovered, RecoveredSession, Recovery, ReferenceRecord, SessionKey, SessionRecord, StatsReport, Store,
    StoreError, SubscriptionKey, SubscriptionRecord,
};

/// Everything in maps, behind one lock.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Clone, Debug, Default)]
struct State {
    sessions: BTreeMap<SessionKey, Session>,
    bodies: BTreeMap<BodyId, Body>,
    retained: BTreeMap<Box<str>, PublicationRecord>,
    next_session: u64,
    next_body: u64,
    commits: u64,
    /// Bodies that may have no reference any more when the batch is through.
    touched: Vec<BodyId>,
}

#[derive(Clone, Debug)]
struct Session {
    record: SessionRecord,
    subscriptions: BTreeMap<SubscriptionKey, SubscriptionRecord>,
    received: BTreeSet<u16>,
    queue: BTreeMap<u64, ReferenceRecord>,
}

#[derive(Clone, Debug)]
struct Body {
    publication: PublicationRecord,
    references: usize,
}

impl MemoryStore {
    /// With nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What another store would be after a restart.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Mutex::new(self.0.lock().clone()))
    }
}

impl State {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::PutSession(key, record) => self.put_session(*key, record),
            Change::RemoveSession(key) => {
                let queue = self.sessions.remove(key).map(|session| session.queue).unwrap_or_default();
                queue.values().for_each(|reference| self.release(reference));
            }
            Change::PutSubscription(key, record) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.subscriptions.insert(record.key.clone(), (**record).clone());
                }
            }
            Change::RemoveSubscription(key, name) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.subscriptions.remove(name);
                }
            }
            Change::PutBody(id, publication) => {
                self.next_body = self.next_body.max(id.0.saturating_add(1));
                self.touched.push(*id);
                self.bodies
                    .entry(*id)
                    .or_insert_with(|| Body { publication: (**publication).clone(), references: 0 });
            }
            Change::Enqueue(key, seq, reference) => self.enqueue(*key, *seq, reference),
            Change::Receive(key, seq, packet_id) => self.receive(*key, *seq, *packet_id),
            Change::Dequeue(key, seq) => {
                let reference = self.sessions.get_mut(key).and_then(|session| session.queue.remove(seq));
                if let Some(reference) = reference {
                    self.release(&reference);
                }
            }
            Change::InsertReceived(key, packet_id) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.received.insert(*packet_id);
                }
            }
            Change::RemoveReceived(key, packet_id) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.received.remove(packet_id);
                }
            }
            Change::PutRetained(publication) => {
                self.retained.insert(publication.topic.as_str().into(), (**publication).clone());
            }
            Change::RemoveRetained(topic) => {
                self.retained.remove(topic.as_str());
            }
        }
    }

    fn put_session(&mut self, key: SessionKey, record: &SessionRecord) {
        self.next_session = self.next_session.max(key.0.saturating_add(1));
        match self.sessions.get_mut(&key) {
            Some(session) => session.record = record.clone(),
            None => {
                let session = Session {
                    record: record.clone(),
                    subscriptions: BTreeMap::new(),
                    received: BTreeSet::new(),
                    queue: BTreeMap::new(),
                };
                self.sessions.insert(key, session);
            }
        }
    }

    fn enqueue(&mut self, key: SessionKey, seq: u64, reference: &ReferenceRecord) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if reference.received.is_none() {
            let Some(body) = self.bodies.get_mut(&reference.body) else { return };
            body.references += 1;
        }
        if let Some(before) = session.queue.insert(seq, reference.clone()) {
            self.release(&before);
        }
    }

    fn receive(&mut self, key: SessionKey, seq: u64, packet_id: u16) {
        let Some(reference) = self.sessions.get_mut(&key).and_then(|session| session.queue.get_mut(&seq))
        else {
            return;
        };
        let before = reference.clone();
        reference.received = Some(packet_id);
        self.release(&before);
    }

    /// The reference does not point at its body any more.
    fn release(&mut self, reference: &ReferenceRecord) {
        if reference.received.is_none()
            && let Some(body) = self.bodies.get_mut(&reference.body)
        {
            body.references = body.references.saturating_sub(1);
            self.touched.push(reference.body);
        }
    }

    fn summary(session: &Session) -> QueueSummary {
        let received = session.queue.iter().filter_map(|(seq, reference)| Some((*seq, reference.received?)));
        QueueSummary {
            first_seq: session.queue.keys().next().copied().unwrap_or(0),
            next_seq: session.queue.keys().next_back().map_or(0, |seq| seq.saturating_add(1)),
            count: len(&session.queue),
            bytes: session.queue.values().map(|reference| u64::from(reference.size_bytes)).sum(),
            received: received.collect(),
            subscription_max: session
                .queue
                .values()
                .map(|reference| reference.subscription.0)
                .max()
                .unwrap_or(0),
        }
    }
}

impl Store for MemoryStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut state = self.0.lock();
        changes.iter().for_each(|change| state.apply(change));
        for id in std::mem::take(&mut state.touched) {
            if state.bodies.get(&id).is_some_and(|body| body.references == 0) {
                state.bodies.remove(&id);
            }
        }
        state.commits += 1;
        Ok(())
    }

    fn load_queue(&self, session: SessionKey, from_seq: u64, limits: PageLimits) -> Result<Page, StoreError> {
        let state = self.0.lock();
        let mut page = Page { next_seq: from_seq, is_last: true, ..Page::default() };
        let Some(session) = state.sessions.get(&session) else { return Ok(page) };
        let mut bytes = 0;
        for (seq, reference) in session.queue.range(from_seq..) {
            bytes += usize::try_from(reference.size_bytes).unwrap_or(usize::MAX);
            if !page.messages.is_empty()
                && (page.messages.len() >= limits.count_max || bytes > limits.bytes_max)
            {
                page.is_last = false;
                return Ok(page);
            }
            let body = state.bodies.get(&reference.body).filter(|_| reference.received.is_none());
            page.messages.push(QueuedMessage {
                seq: *seq,
                reference: reference.clone(),
                publication: body.map(|body| body.publication.clone()),
            });
            page.next_seq = seq.saturating_add(1);
        }
        Ok(page)
    }

    fn recover(
        &self,
        visit: &mut dyn FnMut(Recovered),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Recovery, StoreError> {
        let state = self.0.lock();
        let mut recovery =
            Recovery { next_session: state.next_session, next_body: state.next_body, ..Recovery::default() };
        for (key, session) in &state.sessions {
            let queue = State::summary(session);
            recovery.sessions += 1;
            recovery.messages += queue.count;
            recovery.bytes += queue.bytes;
            visit(Recovered::Session(Box::new(RecoveredSession {
                key: *key,
                record: session.record.clone(),
                subscriptions: session.subscriptions.values().cloned().collect(),
                received: session.received.iter().copied().collect(),
                queue,
            })));
        }
        for publication in state.retained.values() {
            recovery.retained += 1;
            visit(Recovered::Retained(Box::new(publication.clone())));
        }
        let Recovery { sessions, messages, retained, .. } = recovery;
        progress(Progress { sessions, messages, retained });
        Ok(recovery)
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn stats(&self) -> Result<StatsReport, StoreError> {
        let state = self.0.lock();
        let mut stats = StatsReport {
            sessions: len(&state.sessions),
            bodies: len(&state.bodies),
            retained: len(&state.retained),
            commits: state.commits,
            ..StatsReport::default()
        };
        for (key, session) in &state.sessions {
            let QueueSummary { count: messages, bytes, .. } = State::summary(session);
            stats.subscriptions += len(&session.subscriptions);
            stats.messages += messages;
            stats.bytes += bytes;
            stats.count_queue(QueueSize { key: *key, name: session.record.name.clone(), messages, bytes });
        }
        Ok(stats)
    }

    fn check(&self) -> Result<CheckReport, StoreError> {
        let StatsReport { sessions, subscriptions, messages, bodies, retained, .. } = self.stats()?;
        let records = sessions + subscriptions + messages + bodies + retained;
        Ok(CheckReport { records, sessions, messages, bodies, retained, ..CheckReport::default() })
    }

    fn backup(&self, directory: &Path) -> Result<(), StoreError> {
        let reason = "a store in memory has no files to back up".to_owned();
        Err(StoreError::Directory { path: directory.to_owned(), reason })
    }
}

fn len<K, V>(map: &BTreeMap<K, V>) -> u64 {
    u64::try_from(map.len()).unwrap_or(u64::MAX)
}

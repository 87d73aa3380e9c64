//! From changes to writes. What a batch enqueues and removes again is never written; a body is written once, and
//! removed with its last reference.

use std::collections::{BTreeMap, HashMap};

use ahash::RandomState;

use super::keys::{self, Space};
use super::state::{Counters, Effect, Queue, State, StoredReference};
use super::tables::{Put, Tables};
use crate::store::record::Record;
use crate::store::{
    BodyId, Change, PublicationRecord, ReferenceRecord, SessionKey, SessionRecord, StoreError,
    SubscriptionRecord,
};

/// One batch in the making.
pub(super) struct Staging<'a, 'c> {
    tables: &'a Tables,
    state: &'a State,
    /// All but queues and bodies. The later write of a key wins.
    puts: BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>,
    slots: BTreeMap<(SessionKey, u64), Slot>,
    bodies: HashMap<BodyId, &'c PublicationRecord, RandomState>,
    /// Sessions that this batch begins or ends.
    sessions: HashMap<SessionKey, bool, RandomState>,
    effect: Effect,
}

/// A place in a queue, before and after.
struct Slot {
    stored: Stored,
    staged: Option<ReferenceRecord>,
}

#[derive(PartialEq, Eq)]
enum Stored {
    Nothing,
    Reference(StoredReference),
    /// A record that cannot be read.
    Unreadable,
}

/// How the number of a body's references changes.
#[derive(Default)]
struct Delta {
    added: u32,
    removed: u32,
    size_bytes: u32,
}

impl<'a, 'c> Staging<'a, 'c> {
    pub(super) fn new(tables: &'a Tables, state: &'a State) -> Self {
        let effect = Effect { counters: state.counters, ..Effect::default() };
        Self {
            tables,
            state,
            puts: BTreeMap::new(),
            slots: BTreeMap::new(),
            bodies: HashMap::default(),
            sessions: HashMap::default(),
            effect,
        }
    }

    pub(super) fn stage(&mut self, change: &'c Change) -> Result<(), StoreError> {
        match change {
            Change::PutSession(key, record) => self.put_session(*key, record),
            Change::RemoveSession(key) => return self.remove_session(*key),
            Change::PutSubscription(key, record) => self.put_subscription(*key, record),
            Change::RemoveSubscription(key, name) => {
                self.put(Space::Subscriptions, &keys::subscription(*key, name), None);
            }
            Change::PutBody(id, publication) => {
                let next_body = &mut self.effect.counters.next_body;
                *next_body = (*next_body).max(id.0.saturating_add(1));
                self.bodies.insert(*id, publication);
            }
            Change::Enqueue(key, seq, reference) => return self.enqueue(*key, *seq, reference),
            Change::Receive(key, seq, packet_id) => {
                if let Some(reference) = &mut self.slot(*key, *seq)?.staged {
                    reference.received = Some(*packet_id);
                }
            }
            Change::Dequeue(key, seq) => self.slot(*key, *seq)?.staged = None,
            Change::InsertReceived(key, packet_id) => {
                if self.exists(*key) {
                    self.put(Space::Received, &keys::received(*key, *packet_id), Some(Vec::new()));
                }
            }
            Change::RemoveReceived(key, packet_id) => {
                self.put(Space::Received, &keys::received(*key, *packet_id), None);
            }
            Change::PutRetained(publication) => {
                self.put(Space::Retained, publication.topic.as_str().as_bytes(), Some(publication.encode()));
            }
            Change::RemoveRetained(topic) => self.put(Space::Retained, topic.as_str().as_bytes(), None),
        }
        Ok(())
    }

    /// Some of the queue of a session that was removed. `true`: there is more.
    pub(super) fn remove_doomed(
        &mut self,
        key: SessionKey,
        from_seq: u64,
        count_max: usize,
    ) -> Result<bool, StoreError> {
        let (count, next_seq) = self.clear_queue(key, from_seq, u64::MAX, count_max)?;
        let has_more = count == count_max;
        if !has_more {
            self.put(Space::Meta, &keys::mark(keys::DOOMED, key.0), None);
        }
        self.effect.doomed.push((key, has_more.then_some(next_seq)));
        Ok(has_more)
    }

    /// The writes, and what they change in the state. The last of them counts the commit.
    pub(super) fn finish(mut self) -> (Vec<Put>, Effect) {
        let references = self.count_references();
        let mut puts = Vec::with_capacity(self.puts.len() + 2 * self.slots.len() + 1);
        self.finish_bodies(&references, &mut puts);
        self.finish_queues(&mut puts);
        for ((space, key), value) in self.puts {
            puts.push(Put { space, key: key.into(), value: value.map(Into::into) });
        }
        let Counters { number, .. } = &mut self.effect.counters;
        *number += 1;
        let key = keys::ring(*number);
        puts.push(Put::insert(Space::Meta, &key, self.effect.counters.encode()));
        (puts, self.effect)
    }

    fn put_session(&mut self, key: SessionKey, record: &SessionRecord) {
        let next_session = &mut self.effect.counters.next_session;
        *next_session = (*next_session).max(key.0.saturating_add(1));
        self.sessions.insert(key, true);
        self.put(Space::Sessions, &keys::session(key), Some(record.encode()));
    }

    fn put_subscription(&mut self, key: SessionKey, record: &SubscriptionRecord) {
        if self.exists(key) {
            self.put(Space::Subscriptions, &keys::subscription(key, &record.key), Some(record.encode()));
        }
    }

    fn remove_session(&mut self, key: SessionKey) -> Result<(), StoreError> {
        self.put(Space::Sessions, &keys::session(key), None);
        for space in [Space::Subscriptions, Space::Received] {
            self.remove_prefix(space, &keys::session(key))?;
        }
        for (_, slot) in self.slots.range_mut((key, 0)..=(key, u64::MAX)) {
            slot.staged = None;
        }
        self.sessions.insert(key, false);
        let Some(queue) = self.state.sessions.get(&key) else { return Ok(()) };
        if queue.count <= REMOVED_AT_ONCE_MAX {
            self.clear_queue(key, queue.first_seq, queue.next_seq, usize::MAX)?;
        } else {
            self.put(Space::Meta, &keys::mark(keys::DOOMED, key.0), Some(Vec::new()));
            self.effect.doomed.push((key, Some(queue.first_seq)));
        }
        Ok(())
    }

    fn enqueue(&mut self, key: SessionKey, seq: u64, reference: &ReferenceRecord) -> Result<(), StoreError> {
        if !self.exists(key) {
            return Ok(());
        }
        let body = reference.body;
        if reference.received.is_none()
            && !self.bodies.contains_key(&body)
            && !self.tables.keyspace(Space::Bodies).contains_key(keys::body(body))?
        {
            return Ok(());
        }
        self.slot(key, seq)?.staged = Some(reference.clone());
        Ok(())
    }

    fn exists(&self, key: SessionKey) -> bool {
        self.sessions.get(&key).copied().unwrap_or_else(|| self.state.sessions.contains_key(&key))
    }

    fn put(&mut self, space: Space, key: &[u8], value: Option<Vec<u8>>) {
        self.puts.insert((space, key.to_vec()), value);
    }

    fn remove_prefix(&mut self, space: Space, prefix: &[u8]) -> Result<(), StoreError> {
        for guard in self.tables.keyspace(space).prefix(prefix) {
            let key = guard.key()?;
            self.puts.insert((space, key.to_vec()), None);
        }
        for ((_, key), value) in self.puts.range_mut((space, prefix.to_vec())..) {
            if !key.starts_with(prefix) {
                break;
            }
            *value = None;
        }
        Ok(())
    }

    /// The place, as it was and as earlier changes of the batch have left it.
    fn slot(&mut self, key: SessionKey, seq: u64) -> Result<&mut Slot, StoreError> {
        use std::collections::btree_map::Entry;
        match self.slots.entry((key, seq)) {
            Entry::Occupied(slot) => Ok(slot.into_mut()),
            Entry::Vacant(vacant) => {
                let may_have = self.state.sessions.get(&key).is_some_and(|queue| queue.may_have(seq));
                let value = match may_have {
                    true => self.tables.get(Space::Queue, &keys::queue(key, seq))?,
                    false => None,
                };
                Ok(vacant.insert(Slot::new(value.as_deref())))
            }
        }
    }

    /// Removes what is stored in these places, as far as `count_max` goes. How many, and the place behind them.
    fn clear_queue(
        &mut self,
        key: SessionKey,
        from_seq: u64,
        to_seq: u64,
        count_max: usize,
    ) -> Result<(usize, u64), StoreError> {
        let (mut count, mut next_seq) = (0, from_seq);
        let range = keys::queue(key, from_seq)..=keys::queue(key, to_seq);
        for guard in self.tables.keyspace(Space::Queue).range(range).take(count_max) {
            let (stored_key, value) = guard.into_inner()?;
            let Some((_, seq)) = keys::parse_queue(&stored_key) else { continue };
            self.slots.entry((key, seq)).or_insert_with(|| Slot::new(Some(&value))).staged = None;
            (count, next_seq) = (count + 1, seq.saturating_add(1));
        }
        Ok((count, next_seq))
    }

    fn count_references(&self) -> HashMap<BodyId, Delta, RandomState> {
        let mut deltas: HashMap<BodyId, Delta, RandomState> = HashMap::default();
        for slot in self.slots.values() {
            if let Stored::Reference(stored) = &slot.stored
                && stored.reference.received.is_none()
            {
                let delta = deltas.entry(stored.reference.body).or_default();
                delta.removed += 1;
                delta.size_bytes = stored.reference.size_bytes;
            }
            if let Some(reference) = &slot.staged
                && reference.received.is_none()
            {
                let delta = deltas.entry(reference.body).or_default();
                delta.added += 1;
                delta.size_bytes = reference.size_bytes;
            }
        }
        deltas
    }

    fn finish_bodies(&mut self, deltas: &HashMap<BodyId, Delta, RandomState>, puts: &mut Vec<Put>) {
        for (id, delta) in deltas {
            let is_new = self.bodies.contains_key(id) && delta.removed == 0;
            let before = self.state.shared.get(id).copied().unwrap_or_else(|| u32::from(!is_new));
            let after = (before + delta.added).saturating_sub(delta.removed);
            let key = keys::body(*id);
            match (before, after) {
                (0, 0) => {}
                (0, _) => {
                    let encoded = self.bodies.get(id).map(|publication| publication.encode());
                    puts.extend(encoded.map(|encoded| Put::insert(Space::Bodies, &key, encoded)));
                    self.effect.bytes_added += u64::from(delta.size_bytes);
                }
                (_, 0) => {
                    puts.push(Put::remove(Space::Bodies, &key));
                    self.effect.bytes_removed += u64::from(delta.size_bytes);
                    if self.state.gained.contains(id) {
                        self.put(Space::Meta, &keys::mark(keys::GAINED, id.0), None);
                    }
                }
                // The reference that stays says that it is the only one.
                (1, 2..) if delta.removed == 0 => {
                    self.put(Space::Meta, &keys::mark(keys::GAINED, id.0), Some(Vec::new()));
                    self.effect.gained.push(*id);
                }
                _ => {}
            }
            self.effect.references.push((*id, after));
        }
    }

    fn finish_queues(&mut self, puts: &mut Vec<Put>) {
        let after: HashMap<BodyId, u32, RandomState> = self.effect.references.iter().copied().collect();
        let mut queues: BTreeMap<SessionKey, Queue> = BTreeMap::new();
        for (key, exists) in &self.sessions {
            if *exists {
                queues.insert(*key, self.state.sessions.get(key).copied().unwrap_or_default());
            }
        }
        for ((key, seq), slot) in std::mem::take(&mut self.slots) {
            let queue = queues
                .entry(key)
                .or_insert_with(|| self.state.sessions.get(&key).copied().unwrap_or_default());
            let stored_bytes = match &slot.stored {
                Stored::Nothing => None,
                Stored::Unreadable => Some(0),
                Stored::Reference(stored) => Some(stored.reference.size_bytes),
            };
            match (stored_bytes, slot.staged) {
                (None, None) => {}
                (Some(bytes), None) => {
                    queue.remove(seq, bytes);
                    puts.push(Put::remove(Space::Queue, &keys::queue(key, seq)));
                }
                (stored_bytes, Some(reference)) => {
                    match stored_bytes {
                        Some(bytes) => queue.replace(bytes, reference.size_bytes),
                        None => queue.insert(seq, reference.size_bytes),
                    }
                    let is_shared = after.get(&reference.body).is_some_and(|count| *count >= 2);
                    let stored = StoredReference { is_shared, reference };
                    if slot.stored != Stored::Reference(stored.clone()) {
                        puts.push(Put::insert(Space::Queue, &keys::queue(key, seq), stored.encode()));
                    }
                }
            }
        }
        for (key, queue) in queues {
            if self.exists(key) {
                self.effect.sessions.push((key, Some(queue)));
            }
        }
        let ended = self.sessions.iter().filter(|(_, exists)| !**exists);
        self.effect.sessions.extend(ended.map(|(key, _)| (*key, None)));
    }
}

impl Slot {
    fn new(value: Option<&[u8]>) -> Self {
        let stored = match value.map(StoredReference::decode) {
            None => Stored::Nothing,
            Some(Err(_)) => Stored::Unreadable,
            Some(Ok(stored)) => Stored::Reference(stored),
        };
        let staged = match &stored {
            Stored::Reference(stored) => Some(stored.reference.clone()),
            Stored::Nothing | Stored::Unreadable => None,
        };
        Self { stored, staged }
    }
}

/// A longer queue is removed little by little, so that nobody waits for it.
const REMOVED_AT_ONCE_MAX: u64 = 1024;

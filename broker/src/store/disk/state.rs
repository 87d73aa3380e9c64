//! What the store keeps in memory beside the database: a few numbers for each session, and for each body that has
//! several references. Changed only after a commit has worked.

use std::collections::{BTreeMap, HashMap, HashSet};

use ahash::RandomState;
use serde::{Deserialize, Serialize};

use crate::store::record::Record;
use crate::store::{BodyId, ReferenceRecord, SessionKey};

/// Everything that a commit looks at without reading the disk. 48 bytes for each session and 20 for each shared body,
/// about.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sessions: HashMap<SessionKey, Queue, RandomState>,
    /// Bodies with two references or more.
    pub(super) shared: HashMap<BodyId, u32, RandomState>,
    /// Bodies with a mark that their first reference is not the only one, as it says itself.
    pub(super) gained: HashSet<BodyId, RandomState>,
    /// Sessions that were removed, and where the rest of their queue begins.
    pub(super) doomed: BTreeMap<SessionKey, u64>,
    pub(super) counters: Counters,
    /// Bytes of the bodies that are referred to, about.
    pub(super) live_bytes: u64,
    pub(super) next_quarantine: u64,
}

/// Bounds and size of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    /// Nothing is stored before it. Every scan begins here, since a scan over what was removed is slow (DESIGN §8).
    pub(super) first_seq: u64,
    /// Nothing is stored from here on.
    pub(super) next_seq: u64,
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// The record of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// Of the commit.
    pub(super) number: u64,
    pub(super) next_session: u64,
    pub(super) next_body: u64,
}

impl Record for Counters {}

/// A reference as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredReference {
    /// There were others when it was written. Only such are counted at a start.
    pub(super) is_shared: bool,
    pub(super) reference: ReferenceRecord,
}

impl Record for StoredReference {}

impl Queue {
    pub(super) fn insert(&mut self, seq: u64, size_bytes: u32) {
        self.first_seq = if self.count == 0 { seq } else { self.first_seq.min(seq) };
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
        self.count += 1;
        self.bytes += u64::from(size_bytes);
    }

    pub(super) fn remove(&mut self, seq: u64, size_bytes: u32) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(size_bytes));
        if self.count == 0 {
            self.first_seq = self.next_seq;
        } else if self.first_seq == seq {
            self.first_seq = seq.saturating_add(1);
        }
    }

    /// In the place of one that was there.
    pub(super) fn replace(&mut self, before_bytes: u32, size_bytes: u32) {
        self.bytes = self.bytes.saturating_sub(u64::from(before_bytes)) + u64::from(size_bytes);
    }

    /// Whether something may be stored there.
    pub(super) fn may_have(&self, seq: u64) -> bool {
        self.count > 0 && (self.first_seq..self.next_seq).contains(&seq)
    }
}

/// What a commit changes in the state.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// `None`: the session is gone.
    pub(super) sessions: Vec<(SessionKey, Option<Queue>)>,
    /// How many references there are now.
    pub(super) references: Vec<(BodyId, u32)>,
    pub(super) gained: Vec<BodyId>,
    pub(super) doomed: Vec<(SessionKey, Option<u64>)>,
    pub(super) counters: Counters,
    pub(super) bytes_added: u64,
    pub(super) bytes_removed: u64,
}

impl State {
    pub(super) fn apply(&mut self, effect: Effect) {
        for (key, queue) in effect.sessions {
            match queue {
                Some(queue) => self.sessions.insert(key, queue),
                None => self.sessions.remove(&key),
            };
        }
        for (body, references) in effect.references {
            if references >= 2 {
                self.shared.insert(body, references);
            } else {
                self.shared.remove(&body);
            }
            if references == 0 {
                self.gained.remove(&body);
            }
        }
        self.gained.extend(effect.gained);
        for (key, first_seq) in effect.doomed {
            match first_seq {
                Some(first_seq) => self.doomed.insert(key, first_seq),
                None => self.doomed.remove(&key),
            };
        }
        self.counters = effect.counters;
        self.live_bytes = (self.live_bytes + effect.bytes_added).saturating_sub(effect.bytes_removed);
    }
}

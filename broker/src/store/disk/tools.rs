//! What operators ask a store for: statistics, a check of everything, a copy.

use std::collections::HashMap;
use std::path::Path;

use ahash::RandomState;
use fjall::{Readable as _, Snapshot};

use super::keys::{self, Space};
use super::recovery::last_commit;
use super::state::StoredReference;
use super::tables::{Put, Tables};
use super::{DiskSettings, DiskStore, Inner, journal};
use crate::store::record::Record;
use crate::store::report::QueueSize;
use crate::store::{
    BodyId, CheckReport, PublicationRecord, SessionKey, SessionRecord, StatsReport, StoreError,
    SubscriptionRecord,
};

impl Inner {
    pub(super) fn stats(&self) -> Result<StatsReport, StoreError> {
        self.recover_once()?;
        let tables = self.tables()?;
        let snapshot = tables.database().snapshot();
        let count = |space| -> Result<u64, StoreError> {
            Ok(u64::try_from(snapshot.len(tables.keyspace(space))?).unwrap_or(u64::MAX))
        };
        let mut stats = StatsReport {
            subscriptions: count(Space::Subscriptions)?,
            bodies: count(Space::Bodies)?,
            retained: count(Space::Retained)?,
            quarantined: count(Space::Quarantine)?,
            commits: self.state.read().counters.number,
            ..StatsReport::default()
        };
        for guard in snapshot.iter(tables.keyspace(Space::Sessions)) {
            let (key, value) = guard.into_inner()?;
            let (Some((key, [])), Ok(record)) = (keys::split_session(&key), SessionRecord::decode(&value))
            else {
                continue;
            };
            let queue = self.state.read().sessions.get(&key).copied().unwrap_or_default();
            stats.sessions += 1;
            stats.messages += queue.count;
            stats.bytes += queue.bytes;
            stats.count_queue(QueueSize {
                key,
                name: record.name,
                messages: queue.count,
                bytes: queue.bytes,
            });
        }
        stats.disk = disk(&tables, &self.directory.database());
        Ok(stats)
    }

    pub(super) fn check(&self) -> Result<CheckReport, StoreError> {
        // Without recovery, which would put aside what is to be found.
        let tables = self.tables()?;
        let mut check = Check {
            snapshot: tables.database().snapshot(),
            tables: &tables,
            report: CheckReport::default(),
            sessions: HashMap::default(),
            references: HashMap::default(),
        };
        check.commits()?;
        check.sessions()?;
        check.owned()?;
        check.queues()?;
        check.bodies()?;
        check.retained()?;
        Ok(check.report)
    }

    /// Copies what a snapshot sees, part by part.
    pub(super) fn backup(&self, directory: &Path) -> Result<(), StoreError> {
        let is_taken = directory.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if is_taken || directory.is_file() {
            let reason = "a back-up needs an empty directory".to_owned();
            return Err(StoreError::Directory { path: directory.to_owned(), reason });
        }
        let tables = self.tables()?;
        let snapshot = tables.database().snapshot();
        let copy = DiskStore::open(directory, DiskSettings { is_synced: false, ..self.settings })?;
        let copied = copy.inner.tables()?;
        let (mut puts, mut bytes) = (Vec::new(), 0);
        for space in Space::ALL {
            for guard in snapshot.iter(tables.keyspace(space)) {
                let (key, value) = guard.into_inner()?;
                bytes += key.len() + value.len();
                puts.push(Put { space, key, value: Some(value) });
                if bytes >= COPIED_AT_ONCE {
                    copied.commit(&puts)?;
                    puts.clear();
                    bytes = 0;
                }
            }
        }
        copied.commit(&puts)?;
        Ok(copied.database().persist(fjall::PersistMode::SyncAll)?)
    }

    fn recover_once(&self) -> Result<(), StoreError> {
        if !self.writing.lock().is_recovered {
            self.recover(&mut |_| (), &mut |_| ())?;
        }
        Ok(())
    }
}

fn disk(tables: &Tables, database: &Path) -> Vec<(String, u64)> {
    let parts =
        Space::ALL.iter().map(|space| (space.name().to_owned(), tables.keyspace(*space).disk_space()));
    let journal = ("journal".to_owned(), journal::disk_bytes(database).unwrap_or(0));
    parts.chain([journal]).collect()
}

/// Reads everything, and holds it against what it belongs to.
struct Check<'a> {
    snapshot: Snapshot,
    tables: &'a Tables,
    report: CheckReport,
    /// `true`: removed, and the rest of its queue is still to go.
    sessions: HashMap<SessionKey, bool, RandomState>,
    references: HashMap<BodyId, References, RandomState>,
}

#[derive(Clone, Copy, Default)]
struct References {
    count: u32,
    /// References that say that they are the only one.
    alone: u32,
}

impl Check<'_> {
    fn each(
        &mut self,
        space: Space,
        mut look: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), &'static str>,
    ) -> Result<(), StoreError> {
        for guard in self.snapshot.iter(self.tables.keyspace(space)) {
            let (key, value) = guard.into_inner()?;
            self.report.records += 1;
            if let Err(what) = look(self, &key, &value) {
                self.report.damage(space.name(), &key, what);
            }
        }
        Ok(())
    }

    fn commits(&mut self) -> Result<(), StoreError> {
        let last = last_commit(self.tables)?;
        if last.missing > 0 {
            self.report.damage(
                "meta",
                &last.counters.number.to_be_bytes(),
                "commits before this one are missing",
            );
        }
        self.each(Space::Meta, |check, key, _| {
            match keys::parse_mark(key).ok_or("not a mark")? {
                (keys::DOOMED, session) => {
                    check.sessions.insert(SessionKey(session), true);
                }
                (keys::GAINED | keys::RING, _) => {}
                _ => return Err("not a mark that this program knows"),
            }
            Ok(())
        })?;
        self.each(Space::Quarantine, |_, _, _| Err("was put aside: it could not be read"))
    }

    fn sessions(&mut self) -> Result<(), StoreError> {
        self.each(Space::Sessions, |check, key, value| {
            let Some((session, [])) = keys::split_session(key) else { return Err("not a session's key") };
            check.sessions.insert(session, false);
            check.report.sessions += 1;
            SessionRecord::decode(value).map(drop).map_err(|_| "cannot be read")
        })
    }

    /// What belongs to a session beside its queue.
    fn owned(&mut self) -> Result<(), StoreError> {
        self.each(Space::Subscriptions, |check, key, value| {
            let record = SubscriptionRecord::decode(value).map_err(|_| "cannot be read")?;
            let (session, _) = keys::split_session(key).ok_or("not a subscription's key")?;
            if keys::subscription(session, &record.key) != key {
                return Err("is not under its name");
            }
            check.owner(session)
        })?;
        self.each(Space::Received, |check, key, _| {
            let (session, _) = keys::parse_received(key).ok_or("not a packet identifier's key")?;
            check.owner(session)
        })
    }

    fn owner(&self, session: SessionKey) -> Result<(), &'static str> {
        if self.sessions.get(&session) == Some(&false) { Ok(()) } else { Err("belongs to no session") }
    }

    fn queues(&mut self) -> Result<(), StoreError> {
        self.each(Space::Queue, |check, key, value| {
            let (session, _) = keys::parse_queue(key).ok_or("not a message's key")?;
            let StoredReference { is_shared, reference } =
                StoredReference::decode(value).map_err(|_| "cannot be read")?;
            if reference.received.is_none() {
                let references = check.references.entry(reference.body).or_default();
                references.count += 1;
                references.alone += u32::from(!is_shared);
            }
            let is_doomed = *check.sessions.get(&session).ok_or("belongs to no session")?;
            check.report.messages += u64::from(!is_doomed);
            Ok(())
        })
    }

    fn bodies(&mut self) -> Result<(), StoreError> {
        self.each(Space::Bodies, |check, key, value| {
            check.report.bodies += 1;
            let id = BodyId(keys::parse_number(key).ok_or("not a body's key")?);
            PublicationRecord::decode(value).map_err(|_| "cannot be read")?;
            let References { count, alone } = check.references.remove(&id).ok_or("nobody refers to it")?;
            let is_marked = check.tables.get(Space::Meta, &keys::mark(keys::GAINED, id.0));
            if count > 1 && alone > 0 && !matches!(is_marked, Ok(Some(_))) {
                return Err("is shared, and a reference does not say so");
            }
            Ok(())
        })?;
        for id in std::mem::take(&mut self.references).into_keys() {
            self.report.damage("bodies", &keys::body(id), "is referred to and not there");
        }
        Ok(())
    }

    fn retained(&mut self) -> Result<(), StoreError> {
        self.each(Space::Retained, |check, key, value| {
            check.report.retained += 1;
            let record = PublicationRecord::decode(value).map_err(|_| "cannot be read")?;
            if record.topic.as_str().as_bytes() == key { Ok(()) } else { Err("is not under its topic") }
        })
    }
}

/// Bytes between two commits of a back-up.
const COPIED_AT_ONCE: usize = 4 * 1024 * 1024;

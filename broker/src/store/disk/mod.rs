//! The store of operators, on fjall.
//!
//! ```text
//!   files      the directory: lock, permissions, format
//!   journal    where fjall's journals end after a crash
//!   tables     fjall, opened: options, keyspaces, one atomic batch
//!   keys       the parts of the store and the keys in them
//!   state      what is kept in memory beside it
//!   staging    from changes to writes
//!   recovery   everything once, at the start
//!   reading    pages of queues; records that cannot be read
//!   upkeep     space of what was removed
//!   tools      statistics, check, back-up
//! ```
//!
//! fjall refuses everything once a write or an fsync has failed, since nobody knows what is on the disk then. So it is
//! closed and opened again; a commit that failed and is found there nevertheless is undone. Each commit has a number,
//! and the store remembers the last 8192: after a restart a commit that is missing between them is seen.

mod files;
mod journal;
mod keys;
mod reading;
mod recovery;
mod staging;
mod state;
mod tables;
mod tools;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tracing::warn;

use self::files::Directory;
pub use self::files::FORMAT;
use self::staging::Staging;
use self::state::{Effect, State};
use self::tables::{Put, Tables};
use self::upkeep::Upkeep;
use super::{
    Change, CheckReport, Page, PageLimits, Progress, Recovered, Recovery, SessionKey, StatsReport, Store,
    StoreError,
};

/// How the database works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// A commit returns when an fsync has: all but `store.sync = "os"`.
    pub is_synced: bool,
    /// Blocks of tables kept in memory.
    pub cache_bytes: u64,
}

impl Default for DiskSettings {
    fn default() -> Self {
        Self { is_synced: true, cache_bytes: 8 * 1024 * 1024 }
    }
}

/// A store in a directory that it has for itself.
pub struct DiskStore {
    inner: Arc<Inner>,
    upkeep: Upkeep,
}

struct Inner {
    /// Read while the database is used, written to close and open it.
    tables: RwLock<Option<Tables>>,
    /// Held by whoever writes. Locked before `state`.
    writing: Mutex<Writing>,
    state: RwLock<State>,
    settings: DiskSettings,
    /// Cut off journals when it was opened.
    torn_bytes: AtomicU64,
    has_warned: AtomicBool,
    /// Dropped last.
    directory: Directory,
}

/// What only commits look at.
#[derive(Default)]
struct Writing {
    /// Everything was read once.
    is_recovered: bool,
    in_doubt: Option<InDoubt>,
}

/// A commit that failed, and may be on the disk nevertheless.
struct InDoubt {
    number: u64,
    /// What was there before.
    undo: Vec<Put>,
}

impl DiskStore {
    /// Opens the store in this directory, or makes one. [`StoreError::Locked`] while another process has it.
    pub fn open(path: &Path, settings: DiskSettings) -> Result<Self, StoreError> {
        let directory = Directory::open(path)?;
        let inner = Inner {
            tables: RwLock::new(None),
            writing: Mutex::default(),
            state: RwLock::default(),
            settings,
            torn_bytes: AtomicU64::new(0),
            has_warned: AtomicBool::new(false),
            directory,
        };
        inner.open_tables()?;
        Ok(Self { inner: Arc::new(inner), upkeep: Upkeep::default() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.inner.directory.path().to_owned()
    }
}

impl Store for DiskStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.inner.commit(changes)
    }

    fn load_queue(&self, session: SessionKey, from_seq: u64, limits: PageLimits) -> Result<Page, StoreError> {
        self.inner.load_queue(session, from_seq, limits)
    }

    fn recover(
        &self,
        visit: &mut dyn FnMut(Recovered),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Recovery, StoreError> {
        self.inner.recover(visit, progress)
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        let is_compacting = self.upkeep.compact_if_worthwhile(&self.inner);
        Ok(self.inner.remove_doomed()? || is_compacting)
    }

    fn disk_bytes(&self) -> u64 {
        let tables_bytes = self.inner.tables.read().as_ref().map_or(0, Tables::disk_bytes);
        tables_bytes + journal::disk_bytes(&self.inner.directory.database()).unwrap_or(0)
    }

    fn stats(&self) -> Result<StatsReport, StoreError> {
        self.inner.stats()
    }

    fn check(&self) -> Result<CheckReport, StoreError> {
        self.inner.check()
    }

    fn backup(&self, directory: &Path) -> Result<(), StoreError> {
        self.inner.backup(directory)
    }

    fn close(&self) {
        *self.inner.tables.write() = None;
        self.inner.directory.unlock();
    }
}

impl Inner {
    fn open_tables(&self) -> Result<(), StoreError> {
        let mut tables = self.tables.write();
        let database = self.directory.database();
        let torn_bytes = journal::repair(&database, &self.directory.torn())
            .map_err(|error| StoreError::io("cannot read the store's journal", &error))?;
        self.torn_bytes.fetch_add(torn_bytes, Ordering::Relaxed);
        *tables = Some(Tables::open(&database, &self.settings)?);
        Ok(())
    }

    /// The database, while it is not failing.
    fn tables(&self) -> Result<impl std::ops::Deref<Target = Tables> + '_, StoreError> {
        RwLockReadGuard::try_map(self.tables.read(), Option::as_ref).map_err(|_| StoreError::Failing)
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if !self.writing.lock().is_recovered {
            self.recover(&mut |_| (), &mut |_| ())?;
        }
        let mut writing = self.writing.lock();
        self.reopen(&mut writing)?;
        self.write(&mut writing, Tables::commit, |staging| {
            changes.iter().try_for_each(|change| staging.stage(change))
        })
    }

    /// Some of what is left of sessions that were removed. `true`: there is more.
    fn remove_doomed(&self) -> Result<bool, StoreError> {
        let first = self.state.read().doomed.first_key_value().map(|(key, first_seq)| (*key, *first_seq));
        let Some((key, first_seq)) = first else { return Ok(false) };
        let mut writing = self.writing.lock();
        self.reopen(&mut writing)?;
        self.write(&mut writing, Tables::commit_unsynced, |staging| {
            staging.remove_doomed(key, first_seq, DOOMED_AT_ONCE).map(|_| ())
        })?;
        Ok(!self.state.read().doomed.is_empty())
    }

    /// Stages, writes, and changes the state if that worked.
    fn write<'c>(
        &self,
        writing: &mut Writing,
        commit: impl FnOnce(&Tables, &[Put]) -> Result<(), StoreError>,
        stage: impl FnOnce(&mut Staging<'_, 'c>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let tables = self.tables()?;
        let (puts, effect) = {
            let state = self.state.read();
            let mut staging = Staging::new(&tables, &state);
            stage(&mut staging)?;
            staging.finish()
        };
        let Err(error) = commit(&tables, &puts) else {
            self.state.write().apply(effect);
            return Ok(());
        };
        // fjall changes its memory after its journal, so this still reads what was there before.
        let undo = puts.into_iter().map(|put| {
            let value = tables.get(put.space, &put.key)?;
            Ok(Put { value, ..put })
        });
        let undo = undo.collect::<Result<_, StoreError>>()?;
        drop(tables);
        self.close(writing, effect, undo);
        Err(error)
    }

    fn close(&self, writing: &mut Writing, effect: Effect, undo: Vec<Put>) {
        writing.in_doubt = Some(InDoubt { number: effect.counters.number, undo });
        *self.tables.write() = None;
    }

    /// After a failure: opens the database again, and takes back what was told to have failed.
    fn reopen(&self, writing: &mut Writing) -> Result<(), StoreError> {
        if self.tables.read().is_none() {
            self.open_tables()?;
        }
        let Some(in_doubt) = &writing.in_doubt else { return Ok(()) };
        let tables = self.tables()?;
        let found = recovery::last_commit(&tables)?.counters;
        if found.number == in_doubt.number {
            let counters = state::Counters { number: found.number + 1, ..found };
            let mut puts = in_doubt.undo.clone();
            puts.retain(|put| *put.key != keys::ring(found.number));
            let counted = super::record::Record::encode(&counters);
            puts.push(Put::insert(keys::Space::Meta, &keys::ring(counters.number), counted));
            if let Err(error) = tables.commit(&puts) {
                drop(tables);
                *self.tables.write() = None;
                return Err(error);
            }
            self.state.write().counters = counters;
        } else {
            self.state.write().counters = found;
        }
        writing.in_doubt = None;
        Ok(())
    }

    fn warn_once(&self, what: &str) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            warn!(path = %self.directory.path().display(), "{what}; `tidegate store check` says more");
        }
    }
}

/// Messages of a removed session that go in one commit.
const DOOMED_AT_ONCE: usize = 1024;

#[cfg(test)]
mod tests;

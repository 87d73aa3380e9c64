//! fjall, opened: its options, its keyspaces, one atomic batch. Knows keys and values, not what they mean.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use fjall::config::{BlockSizePolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice};

use super::DiskSettings;
use super::keys::Space;
use crate::store::StoreError;

/// An open database.
pub(super) struct Tables {
    database: Database,
    /// By [`Space::index`].
    keyspaces: Vec<Keyspace>,
    mode: PersistMode,
}

/// One write; `None` removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) space: Space,
    pub(super) key: Slice,
    pub(super) value: Option<Slice>,
}

impl Put {
    pub(super) fn insert(space: Space, key: &[u8], value: Vec<u8>) -> Self {
        Self { space, key: key.into(), value: Some(value.into()) }
    }

    pub(super) fn remove(space: Space, key: &[u8]) -> Self {
        Self { space, key: key.into(), value: None }
    }
}

impl Tables {
    pub(super) fn open(path: &Path, settings: &DiskSettings) -> Result<Self, StoreError> {
        // fjall holds with assertions what a damaged directory may not.
        let open = AssertUnwindSafe(|| Self::open_unguarded(path, settings));
        catch_unwind(open)
            .unwrap_or_else(|_| Err(StoreError::Damaged { reason: "fjall cannot open it".to_owned() }))
    }

    fn open_unguarded(path: &Path, settings: &DiskSettings) -> Result<Self, StoreError> {
        let database = Database::builder(path)
            .cache_size(settings.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .manual_journal_persist(true)
            .worker_threads(WORKER_THREADS)
            .max_cached_files(Some(FILES_MAX))
            .open()?;
        let keyspaces = Space::ALL.iter().map(|space| database.keyspace(space.name(), || options(*space)));
        let keyspaces = keyspaces.collect::<Result<_, _>>()?;
        // The names of keyspaces are committed like everything else.
        database.persist(PersistMode::SyncAll)?;
        let mode = if settings.is_synced { PersistMode::SyncData } else { PersistMode::Buffer };
        Ok(Self { database, keyspaces, mode })
    }

    pub(super) fn keyspace(&self, space: Space) -> &Keyspace {
        #[expect(clippy::indexing_slicing, reason = "there is a keyspace for each of Space::ALL")]
        &self.keyspaces[space.index()]
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        Ok(self.keyspace(space).get(key)?)
    }

    /// Writes all of it or nothing, durable as the store was opened.
    pub(super) fn commit(&self, puts: &[Put]) -> Result<(), StoreError> {
        self.commit_as(puts, self.mode)
    }

    /// As [`Self::commit`], for work that is done again after a power loss.
    pub(super) fn commit_unsynced(&self, puts: &[Put]) -> Result<(), StoreError> {
        self.commit_as(puts, PersistMode::Buffer)
    }

    fn commit_as(&self, puts: &[Put], mode: PersistMode) -> Result<(), StoreError> {
        self.wait_for_flushes()?;
        let mut batch =
            fjall::OwnedWriteBatch::with_capacity(self.database.clone(), puts.len()).durability(Some(mode));
        for put in puts {
            let keyspace = self.keyspace(put.space);
            match &put.value {
                Some(value) => batch.insert(keyspace, put.key.clone(), value.clone()),
                None => batch.remove(keyspace, put.key.clone()),
            }
        }
        Ok(batch.commit()?)
    }

    /// fjall's commit waits for its own threads when they fall behind, and for ever when one has died. So the wait is
    /// here, where a database that has failed is seen.
    fn wait_for_flushes(&self) -> Result<(), StoreError> {
        while self.keyspaces.iter().any(is_behind) {
            // Fails once a thread has.
            self.database.persist(PersistMode::Buffer)?;
            std::thread::sleep(FLUSH_POLL);
        }
        Ok(())
    }

    /// Without journals.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.keyspaces.iter().map(Keyspace::disk_space).sum()
    }
}

/// Below fjall's own limits: 4 sealed memtables, 30 runs in level 0.
fn is_behind(keyspace: &Keyspace) -> bool {
    keyspace.sealed_memtable_count() >= 3 || keyspace.tree.l0_run_count() >= 24
}

fn options(space: Space) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default().manual_journal_persist(true);
    match space {
        // Read in order, at most once each, and always there when asked for.
        Space::Bodies => options
            .max_memtable_size(16 * MIB)
            .data_block_size_policy(BlockSizePolicy::all(16 * 1024))
            .expect_point_read_hits(true)
            .filter_policy(FilterPolicy::all(FilterPolicyEntry::None)),
        Space::Queue => {
            options.max_memtable_size(8 * MIB).filter_policy(FilterPolicy::all(FilterPolicyEntry::None))
        }
        Space::Retained => options.max_memtable_size(8 * MIB),
        Space::Meta | Space::Sessions | Space::Subscriptions | Space::Received | Space::Quarantine => {
            options.max_memtable_size(4 * MIB)
        }
    }
}

const MIB: u64 = 1024 * 1024;

/// A restart replays as much (DESIGN §8); fjall's least.
const JOURNAL_BYTES_MAX: u64 = 64 * MIB;

/// Of several, one turns in circles while another compacts.
const WORKER_THREADS: usize = 1;

/// Open files kept.
const FILES_MAX: usize = 256;

const FLUSH_POLL: Duration = Duration::from_millis(5);

//! Space of what was removed. A table that nobody writes to keeps what is deleted in younger ones, so a long queue that
//! was consumed would stay on the disk: when the dead outweigh the living, the part is compacted as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::PersistMode;
use parking_lot::Mutex;
use tracing::debug;

use super::Inner;
use super::keys::Space;
use crate::store::StoreError;

/// Who compacts, and what it came to.
#[derive(Default)]
pub(super) struct Upkeep {
    is_running: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// By part: what was dead after the last time, so that what cannot be won is not tried again and again.
    left_bytes: Arc<[AtomicU64; 2]>,
}

/// The parts that grow and shrink.
const SPACES: [Space; 2] = [Space::Queue, Space::Bodies];

impl Upkeep {
    /// Starts a thread if there is space to win and none runs. Whether one runs.
    pub(super) fn compact_if_worthwhile(&self, inner: &Arc<Inner>) -> bool {
        if self.is_running.load(Ordering::Acquire) {
            return true;
        }
        for (space, left_bytes) in SPACES.into_iter().zip(self.left_bytes.iter()) {
            let Ok(tables) = inner.tables() else { return false };
            let used = tables.keyspace(space).disk_space();
            let enough_bytes = DEAD_BYTES + left_bytes.load(Ordering::Relaxed);
            // The first says no at once for most stores.
            if used > enough_bytes && used > enough_bytes + 2 * live_bytes(inner, space) {
                drop(tables);
                self.start(inner, space);
                return true;
            }
        }
        false
    }

    fn start(&self, inner: &Arc<Inner>, space: Space) {
        self.is_running.store(true, Ordering::Release);
        let (inner, is_running) = (Arc::clone(inner), Arc::clone(&self.is_running));
        let left_bytes = Arc::clone(&self.left_bytes);
        let run = move || {
            let outcome = compact(&inner, space);
            debug!(space = space.name(), ?outcome, "compacted");
            if let (Ok(left), Some(slot)) = (outcome, SPACES.iter().position(|other| *other == space)) {
                left_bytes.iter().skip(slot).take(1).for_each(|bytes| bytes.store(left, Ordering::Relaxed));
            }
            drop(inner);
            is_running.store(false, Ordering::Release);
        };
        let spawned = std::thread::Builder::new().name("store-compact".to_owned()).spawn(run);
        match spawned {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(_) => self.is_running.store(false, Ordering::Release),
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get_mut().take() {
            // A panic of the thread has been printed, and there is nobody else to tell.
            let _ = thread.join();
        }
    }
}

/// What is dead nevertheless, in bytes.
fn compact(inner: &Inner, space: Space) -> Result<u64, StoreError> {
    let tables = inner.tables()?;
    let keyspace = tables.keyspace(space);
    keyspace.rotate_memtable()?;
    let begun = Instant::now();
    while keyspace.sealed_memtable_count() > 0 && begun.elapsed() < FLUSH_WAIT_MAX {
        // Fails once a thread of fjall has.
        tables.database().persist(PersistMode::Buffer)?;
        std::thread::sleep(Duration::from_millis(10));
    }
    keyspace.major_compact()?;
    Ok(keyspace.disk_space().saturating_sub(live_bytes(inner, space)))
}

/// What the part would take with nothing dead in it, about.
fn live_bytes(inner: &Inner, space: Space) -> u64 {
    let state = inner.state.read();
    match space {
        Space::Queue => state.sessions.values().map(|queue| queue.count).sum::<u64>() * REFERENCE_BYTES,
        _ => state.live_bytes,
    }
}

/// Dead bytes that are not worth a compaction.
const DEAD_BYTES: u64 = 32 * 1024 * 1024;

/// Of a reference with its key, about.
const REFERENCE_BYTES: u64 = 48;

const FLUSH_WAIT_MAX: Duration = Duration::from_secs(30);

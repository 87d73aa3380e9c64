//! The store at the start and at the end of a run: opens the directory, reads what is there, fills the broker, and shows
//! how far it is. Reading takes as long as the disk does, so it happens on threads where that disturbs nobody.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_protocol::session::Refusal;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::broker::Broker;
use crate::config;
use crate::connection;
use crate::durability::Durability;
use crate::store::disk::{DiskSettings, DiskStore};
use crate::store::{Progress, Recovered, Recovery, Settings, Store, StoreError, Sync, Writer};

/// Opens what commits are made to.
pub type Backend = Box<dyn FnOnce(&Path, DiskSettings) -> Result<Arc<dyn Store>, StoreError> + Send>;

/// A store that takes changes, and what was in it.
pub(super) struct Opened {
    pub(super) durability: Arc<Durability>,
    recovered: Vec<Recovered>,
    recovery: Recovery,
}

/// Between two lines about a long load.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Opens `store.path` and reads it. `None`: there is to be no store.
pub(super) async fn open(settings: &config::Store, backend: Backend) -> Result<Option<Opened>, StoreError> {
    let Some(path) = settings.path.clone() else { return Ok(None) };
    let disk = DiskSettings {
        is_synced: settings.sync != config::StoreSync::Os,
        cache_bytes: in_u64(settings.block_cache.bytes()),
    };
    let writing = Settings {
        sync: Sync::from(settings.sync),
        window: settings.window,
        pending_bytes_max: settings.max_pending_bytes.bytes(),
        disk_bytes_max: settings.max_bytes.map_or(u64::MAX, |bytes| in_u64(bytes.bytes())),
    };
    on_a_thread(move || read(backend(&path, disk)?, &path, writing)).await?.map(Some)
}

/// fjall's.
pub(super) fn on_disk(path: &Path, settings: DiskSettings) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(DiskStore::open(path, settings)?))
}

fn read(store: Arc<dyn Store>, path: &Path, writing: Settings) -> Result<Opened, StoreError> {
    let begun = Instant::now();
    let mut recovered = Vec::new();
    let mut told_at = begun;
    let recovery = store.recover(&mut |one| recovered.push(one), &mut |progress| {
        if told_at.elapsed() >= PROGRESS_EVERY {
            told_at = Instant::now();
            let Progress { sessions, messages, retained } = progress;
            info!(sessions, messages, retained, "reading the store");
        }
    })?;
    let Recovery { sessions, messages, retained, .. } = recovery;
    let took_ms = in_u64(usize::try_from(begun.elapsed().as_millis()).unwrap_or(usize::MAX));
    info!(path = %path.display(), sessions, messages, retained, took_ms, "the store is open");
    tell_damage(&recovery);
    let writer = Writer::start(store, writing, recovery.next_body)?;
    Ok(Opened { durability: Durability::new(writer, connection::clock), recovered, recovery })
}

/// What a crash may leave is said in passing; what it must not leave, as a warning.
fn tell_damage(recovery: &Recovery) {
    let Recovery { quarantined, orphans, torn_bytes, missing_commits, .. } = *recovery;
    if torn_bytes > 0 {
        info!(torn_bytes, "the last run ended within a commit, which nobody was told of");
    }
    if quarantined > 0 || orphans > 0 || missing_commits > 0 {
        warn!(
            quarantined,
            orphans, missing_commits, "the store was damaged; `tidegate store check` says more"
        );
    }
}

impl Opened {
    /// Fills a broker that has this store.
    pub(super) async fn fill(self, broker: &Arc<Broker>) -> Result<(), StoreError> {
        let broker = Arc::clone(broker);
        on_a_thread(move || self.fill_now(&broker)).await
    }

    fn fill_now(self, broker: &Broker) {
        let Self { recovered, recovery, .. } = self;
        broker.metrics().store.quarantined.set(recovery.quarantined);
        let (mut left_out, mut told_at) = (Vec::new(), Instant::now());
        for (one, count) in recovered.into_iter().zip(1u64..) {
            left_out.extend(broker.restore(one, connection::clock()).err());
            if told_at.elapsed() >= PROGRESS_EVERY {
                told_at = Instant::now();
                info!(done = count, all = recovery.sessions + recovery.retained, "filling the tables");
            }
        }
        tell_left_out(&left_out);
        broker.finish_restoring(&recovery, connection::clock());
    }
}

fn tell_left_out(left_out: &[Refusal]) {
    if let Some(refusal) = left_out.first() {
        warn!(count = left_out.len(), %refusal, "stored retained messages stay on the disk, and nobody gets them");
    }
}

/// A store that is in use. Dropped, it commits what was handed over and lets go of the directory, which waits for the
/// disk. Whoever drops messages without having sent them does so after that: then it forgets nothing any more.
pub(super) struct InUse(pub(super) Arc<Durability>);

impl InUse {
    /// The last of a run.
    pub(super) async fn close(self) {
        if let Err(error) = on_a_thread(move || drop(self)).await {
            warn!(%error, "the store was not closed");
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let writer = self.0.writer();
        writer.stop();
        writer.store().close();
    }
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let stopped = |error: tokio::task::JoinError| StoreError::Damaged { reason: error.to_string() };
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}

fn in_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

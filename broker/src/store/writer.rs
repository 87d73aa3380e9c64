//! The storage thread and the handle to it. Gathers what is submitted, commits it in one atomic batch, completes
//! tickets. Whoever submits never waits for the disk.
//!
//! ```text
//!   submit ──▶ queue ──▶ (gather) ──▶ commit ──▶ tickets done ──▶ waiters woken ──▶ pages loaded
//!                           ▲            │ error
//!                           └── back-off ┘ tickets failed; what only forgets is kept for the next batch
//! ```
//!
//! A batch is committed as soon as the one before is: while the disk is busy, the next one grows. Only when many came
//! at once the thread waits a little for more, and never longer than the window.

mod run;
mod tickets;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::run::Run;
use self::tickets::Tickets;
pub use self::tickets::{Ticket, Waiter};
use super::loader::{Load, Loader};
use super::{BodyId, Change, Changes, Page, PageLimits, SessionKey, Store, StoreError, Sync};

/// How the writer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When a commit counts as done; the store was opened with the same.
    pub sync: Sync,
    /// The longest time that a batch is held back for more to join it.
    pub window: Duration,
    /// Bytes that may wait to be committed; beyond, submissions are refused.
    pub pending_bytes_max: usize,
    /// Bytes that the store may take on the disk; beyond, submissions are refused. `u64::MAX`: no limit.
    pub disk_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sync: Sync::Group,
            window: Duration::from_millis(5),
            pending_bytes_max: 64 * 1024 * 1024,
            disk_bytes_max: u64::MAX,
        }
    }
}

/// The handle. Clones speak to the same thread.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

/// Numbers for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// The last commit failed, and none has worked since.
    pub is_failing: bool,
    /// The store has grown to its limit.
    pub is_full: bool,
    /// Bytes that wait to be committed.
    pub pending_bytes: usize,
    /// What must not get lost, and waits for the disk to work again.
    pub kept: usize,
    /// Batches committed.
    pub commits: u64,
    /// Submissions in them.
    pub submissions: u64,
    /// Batches that failed.
    pub failures: u64,
    /// Time spent in commits, those that failed included.
    pub busy: Duration,
    /// On the disk, as last measured.
    pub disk_bytes: u64,
}

struct Shared {
    store: Arc<dyn Store>,
    settings: Settings,
    queue: Mutex<Queue>,
    /// Notified when the writer waits for work, and at the end.
    work: Condvar,
    tickets: Tickets,
    loader: Loader,
    next_body: AtomicU64,
    is_failing: AtomicBool,
    is_full: AtomicBool,
    kept: AtomicUsize,
    commits: AtomicU64,
    submissions: AtomicU64,
    failures: AtomicU64,
    busy_us: AtomicU64,
    disk_bytes: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What waits for the thread.
#[derive(Default)]
struct Queue {
    changes: Changes,
    /// Where each submission ends in `changes`.
    ends: Vec<usize>,
    bytes: usize,
    /// The last ticket that was given out.
    last_ticket: u64,
    loads: Vec<Load>,
    is_stopped: bool,
    /// The thread sleeps until there is work.
    is_idle: bool,
}

impl Writer {
    /// Starts the threads. `next_body` is [`Recovery::next_body`](super::Recovery::next_body).
    pub fn start(store: Arc<dyn Store>, settings: Settings, next_body: u64) -> Result<Self, StoreError> {
        let spawn_error = |error: std::io::Error| StoreError::io("cannot start a thread", &error);
        let loader = Loader::start(Arc::clone(&store)).map_err(spawn_error)?;
        let disk_bytes = AtomicU64::new(store.disk_bytes());
        let shared = Arc::new(Shared {
            store,
            settings,
            queue: Mutex::default(),
            work: Condvar::new(),
            tickets: Tickets::default(),
            loader,
            next_body: AtomicU64::new(next_body),
            is_failing: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            kept: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            submissions: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
            disk_bytes,
            thread: Mutex::default(),
        });
        let run = Run::new(Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run.run())
            .map_err(spawn_error)?;
        *shared.thread.lock() = Some(thread);
        Ok(Self(shared))
    }

    /// Commits all of it atomically, behind what was submitted before. Never waits.
    ///
    /// Refused while the store is failing or full, or too much is waiting; but what only forgets is always taken, and
    /// where a session stands is taken unless too much is waiting.
    pub fn submit(&self, changes: Changes) -> Result<Ticket, StoreError> {
        let shared = &*self.0;
        let is_removal = changes.iter().all(Change::is_removal);
        let is_owed = changes.iter().all(Change::is_owed);
        if !is_owed && shared.is_failing.load(Ordering::Relaxed) {
            return Err(StoreError::Failing);
        }
        if !is_owed && shared.is_full.load(Ordering::Relaxed) {
            return Err(StoreError::Full);
        }
        let bytes: usize = changes.iter().map(Change::size_bytes).sum();
        let mut queue = shared.queue.lock();
        if queue.is_stopped {
            return Err(StoreError::Closed);
        }
        if !is_removal && queue.bytes + bytes > shared.settings.pending_bytes_max && queue.bytes > 0 {
            return Err(StoreError::Full);
        }
        queue.changes.extend(changes);
        let end = queue.changes.len();
        queue.ends.push(end);
        queue.bytes += bytes;
        queue.last_ticket += 1;
        let ticket = Ticket(queue.last_ticket);
        shared.wake(queue);
        Ok(ticket)
    }

    /// Of what was submitted last: when it is done, all before it is.
    #[must_use]
    pub fn last_ticket(&self) -> Ticket {
        Ticket(self.0.queue.lock().last_ticket)
    }

    /// Whether [`Writer::submit`] would take something now.
    pub fn admit(&self) -> Result<(), StoreError> {
        let shared = &*self.0;
        if shared.is_failing.load(Ordering::Relaxed) {
            return Err(StoreError::Failing);
        }
        let is_full = shared.is_full.load(Ordering::Relaxed);
        if is_full || shared.queue.lock().bytes >= shared.settings.pending_bytes_max {
            return Err(StoreError::Full);
        }
        Ok(())
    }

    /// `None`: not yet. Tickets are done in order. Costs one or two atomic reads unless something failed.
    #[must_use]
    pub fn outcome(&self, ticket: Ticket) -> Option<Result<(), StoreError>> {
        self.0.tickets.outcome(ticket)
    }

    /// Wakes it once when the ticket is done; at once if it is. The waiter is called by the storage thread, holding no
    /// lock.
    pub fn when_done(&self, ticket: Ticket, waiter: Arc<dyn Waiter>) {
        self.0.tickets.when_done(ticket, waiter);
    }

    /// A page of a queue, read behind everything that was submitted before. `deliver` is called by the loader's thread,
    /// or at once when the writer was stopped.
    pub fn load(
        &self,
        session: SessionKey,
        from_seq: u64,
        limits: PageLimits,
        deliver: Box<dyn FnOnce(Result<Page, StoreError>) + Send>,
    ) {
        let mut queue = self.0.queue.lock();
        if queue.is_stopped {
            drop(queue);
            return deliver(Err(StoreError::Closed));
        }
        queue.loads.push(Load { session, from_seq, limits, deliver });
        self.0.wake(queue);
    }

    /// A number for a body.
    #[must_use]
    pub fn next_body(&self) -> BodyId {
        BodyId(self.0.next_body.fetch_add(1, Ordering::Relaxed))
    }

    /// The store behind it, for what needs no ticket: statistics, back-ups.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// As they are.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let shared = &*self.0;
        Gauges {
            is_failing: shared.is_failing.load(Ordering::Relaxed),
            is_full: shared.is_full.load(Ordering::Relaxed),
            pending_bytes: shared.queue.lock().bytes,
            kept: shared.kept.load(Ordering::Relaxed),
            commits: shared.commits.load(Ordering::Relaxed),
            submissions: shared.submissions.load(Ordering::Relaxed),
            failures: shared.failures.load(Ordering::Relaxed),
            busy: Duration::from_micros(shared.busy_us.load(Ordering::Relaxed)),
            disk_bytes: shared.disk_bytes.load(Ordering::Relaxed),
        }
    }

    /// Commits what was submitted, delivers the pages that were asked for, and ends the threads. Waits for that; what
    /// is submitted from here on is refused. The second call does nothing.
    pub fn stop(&self) {
        let mut queue = self.0.queue.lock();
        queue.is_stopped = true;
        drop(queue);
        self.0.work.notify_all();
        let thread = self.0.thread.lock().take();
        if let Some(thread) = thread {
            // A panic of the thread has been printed, and there is nobody else to tell.
            let _ = thread.join();
            self.0.loader.stop();
        }
    }
}

impl Shared {
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let was_idle = std::mem::take(&mut queue.is_idle);
        drop(queue);
        if was_idle {
            self.work.notify_one();
        }
    }
}

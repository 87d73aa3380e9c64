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

mod tickets;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::{info, warn};

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
    /// What only forgets, and waits for the disk to work again.
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

/// What the thread took.
struct Batch {
    changes: Changes,
    ends: Vec<usize>,
    last_ticket: u64,
    loads: Vec<Load>,
    is_last: bool,
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
        let run = Run { shared: Arc::clone(&shared), kept: Vec::new(), last_len: 0, measured_at: None };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run.run())
            .map_err(spawn_error)?;
        *shared.thread.lock() = Some(thread);
        Ok(Self(shared))
    }

    /// Commits all of it atomically, behind what was submitted before. Never waits.
    ///
    /// Refused while the store is failing or full, or too much is waiting; but what only forgets is always taken.
    pub fn submit(&self, changes: Changes) -> Result<Ticket, StoreError> {
        let shared = &*self.0;
        let is_removal = changes.iter().all(Change::is_removal);
        if !is_removal && shared.is_failing.load(Ordering::Relaxed) {
            return Err(StoreError::Failing);
        }
        if !is_removal && shared.is_full.load(Ordering::Relaxed) {
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

/// The thread's own.
struct Run {
    shared: Arc<Shared>,
    /// What only forgets and was in a batch that failed: without it, messages that were delivered would come back.
    kept: Changes,
    /// Submissions in the batch before.
    last_len: usize,
    measured_at: Option<Instant>,
}

impl Run {
    fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let is_failing = self.shared.is_failing.load(Ordering::Relaxed);
            let batch = if is_failing { self.take_later(backoff) } else { self.take() };
            let is_last = batch.is_last;
            match self.commit(batch, is_failing) {
                Ok(()) => backoff = BACKOFF_MIN,
                Err(_) if !is_failing => backoff = BACKOFF_MIN,
                Err(_) => backoff = (backoff * 2).min(BACKOFF_MAX),
            }
            if is_last {
                return;
            }
        }
    }

    /// Waits for work, and a little for more of it.
    fn take(&mut self) -> Batch {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        let mut may_have_more = true;
        while queue.ends.is_empty() && queue.loads.is_empty() && !queue.is_stopped {
            queue.is_idle = true;
            if may_have_more {
                if shared.work.wait_for(&mut queue, IDLE_BEFORE_MAINTENANCE).timed_out() {
                    may_have_more = MutexGuard::unlocked(&mut queue, || self.maintain());
                }
            } else {
                shared.work.wait(&mut queue);
            }
        }
        queue.is_idle = false;
        self.gather(&mut queue);
        Batch::take(&mut queue)
    }

    /// Work that may wait. `false`: there is none left, or it fails as the next commit will.
    fn maintain(&mut self) -> bool {
        self.measure();
        self.shared.store.maintain().unwrap_or(false)
    }

    /// While as many as before have not come back, and some still come: one fsync for them is cheaper than two.
    fn gather(&self, queue: &mut MutexGuard<'_, Queue>) {
        if self.shared.settings.sync != Sync::Group || self.last_len < GATHER_FROM {
            return;
        }
        let step = (self.shared.settings.window / 20).min(GATHER_STEP_MAX);
        let mut waited = Duration::ZERO;
        while waited + step <= self.shared.settings.window
            && queue.ends.len() < self.last_len
            && !queue.is_stopped
        {
            let before = queue.ends.len();
            let timed_out = self.shared.work.wait_for(queue, step).timed_out();
            waited += step;
            if timed_out && queue.ends.len() == before {
                return;
            }
        }
    }

    /// While the store fails: what has come when the time is over.
    fn take_later(&self, backoff: Duration) -> Batch {
        let mut queue = self.shared.queue.lock();
        if !queue.is_stopped {
            let _woken_by_the_end = self.shared.work.wait_for(&mut queue, backoff);
        }
        Batch::take(&mut queue)
    }

    fn commit(&mut self, mut batch: Batch, is_failing: bool) -> Result<(), StoreError> {
        let last_ticket = batch.last_ticket;
        let loads = std::mem::take(&mut batch.loads);
        self.last_len = batch.ends.len();
        let has_work = is_failing || !batch.ends.is_empty() || !self.kept.is_empty();
        let outcome = match (has_work, self.shared.settings.sync) {
            (false, _) => Ok(()),
            (true, Sync::Always) => self.commit_each(batch),
            (true, Sync::Group | Sync::Os) => self.commit_together(batch),
        };
        self.shared.tickets.done(last_ticket);
        for load in loads {
            self.shared.loader.push(load);
        }
        self.measure_sometimes();
        outcome
    }

    fn commit_together(&mut self, batch: Batch) -> Result<(), StoreError> {
        let Batch { changes, ends, last_ticket, .. } = batch;
        self.commit_some(changes, (first_ticket(last_ticket, ends.len()), last_ticket))
    }

    fn commit_each(&mut self, batch: Batch) -> Result<(), StoreError> {
        let Batch { changes, ends, last_ticket, .. } = batch;
        if ends.is_empty() {
            return self.commit_some(Vec::new(), (1, 0));
        }
        let (mut outcome, mut start) = (Ok(()), 0);
        let mut changes = changes.into_iter();
        for (ticket, end) in (first_ticket(last_ticket, ends.len())..).zip(ends) {
            outcome = self.commit_some(changes.by_ref().take(end - start).collect(), (ticket, ticket));
            self.shared.tickets.done(ticket);
            start = end;
        }
        outcome
    }

    /// Commits what was kept and these, for the tickets from the first to the last, and says so if it did not work.
    fn commit_some(&mut self, mut changes: Changes, tickets: (u64, u64)) -> Result<(), StoreError> {
        if !self.kept.is_empty() {
            self.kept.append(&mut changes);
            changes = std::mem::take(&mut self.kept);
        }
        let begun = Instant::now();
        let outcome = self.shared.store.commit(&changes);
        let busy_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.busy_us.fetch_add(busy_us, Ordering::Relaxed);
        match &outcome {
            Ok(()) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                self.shared
                    .submissions
                    .fetch_add((tickets.1 + 1).saturating_sub(tickets.0), Ordering::Relaxed);
                if self.shared.is_failing.swap(false, Ordering::Relaxed) {
                    info!("the store works again");
                }
            }
            Err(error) => {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                if !self.shared.is_failing.swap(true, Ordering::Relaxed) {
                    warn!(%error, "the store fails: acknowledged messages for stored sessions are refused meanwhile");
                }
                self.shared.tickets.fail(tickets, error);
                self.keep(&changes);
            }
        }
        self.shared.kept.store(self.kept.len(), Ordering::Relaxed);
        outcome
    }

    fn keep(&mut self, changes: &[Change]) {
        let room = KEPT_MAX.saturating_sub(self.kept.len());
        let removals = changes.iter().filter(|change| change.is_removal());
        self.kept.extend(removals.clone().take(room).cloned());
        let lost = removals.count().saturating_sub(room);
        if lost > 0 {
            warn!(
                lost,
                "the store has failed for so long that settled messages may come again after a restart"
            );
        }
    }

    fn measure_sometimes(&mut self) {
        if self.measured_at.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            self.measure();
        }
    }

    fn measure(&mut self) {
        self.measured_at = Some(Instant::now());
        let (disk_bytes, limit) = (self.shared.store.disk_bytes(), self.shared.settings.disk_bytes_max);
        self.shared.disk_bytes.store(disk_bytes, Ordering::Relaxed);
        let is_full = disk_bytes > limit;
        if is_full != self.shared.is_full.swap(is_full, Ordering::Relaxed) {
            match is_full {
                true => warn!(disk_bytes, limit, "the store is full"),
                false => info!(disk_bytes, limit, "the store has room again"),
            }
        }
    }
}

impl Batch {
    fn take(queue: &mut Queue) -> Self {
        queue.bytes = 0;
        Self {
            changes: std::mem::take(&mut queue.changes),
            ends: std::mem::take(&mut queue.ends),
            last_ticket: queue.last_ticket,
            loads: std::mem::take(&mut queue.loads),
            is_last: queue.is_stopped,
        }
    }
}

fn first_ticket(last: u64, count: usize) -> u64 {
    (last + 1).saturating_sub(u64::try_from(count).unwrap_or(u64::MAX))
}

/// With fewer submissions in the batch before, nobody is waited for.
const GATHER_FROM: usize = 8;

/// Between two looks whether more came.
const GATHER_STEP_MAX: Duration = Duration::from_micros(250);

/// Between two attempts while the store fails.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Changes kept while the store fails: about 8 MiB.
const KEPT_MAX: usize = 128 * 1024;

/// Between the last commit and work that may wait.
const IDLE_BEFORE_MAINTENANCE: Duration = Duration::from_millis(200);

/// Between two looks at the size of the store under load.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

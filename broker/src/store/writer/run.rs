//! The storage thread: takes what waits, commits it, and goes on when the disk does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use tracing::{info, warn};

use super::{Queue, Shared};
use crate::store::loader::Load;
use crate::store::{Change, Changes, StoreError, Sync};

/// What the thread took.
struct Batch {
    changes: Changes,
    ends: Vec<usize>,
    last_ticket: u64,
    loads: Vec<Load>,
    is_last: bool,
}

/// The thread's own.
pub(super) struct Run {
    shared: Arc<Shared>,
    /// What was in a batch that failed and must not get lost: without it, messages that were delivered would come back.
    kept: Changes,
    /// Submissions in the batch before.
    last_len: usize,
    measured_at: Option<Instant>,
}

impl Run {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, kept: Vec::new(), last_len: 0, measured_at: None }
    }

    /// To the end of the writer.
    pub(super) fn run(mut self) {
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
        let mut pause = Some(IDLE_BEFORE_MAINTENANCE);
        while queue.ends.is_empty() && queue.loads.is_empty() && !queue.is_stopped {
            queue.is_idle = true;
            match pause {
                Some(time) if shared.work.wait_for(&mut queue, time).timed_out() => {
                    let has_more = MutexGuard::unlocked(&mut queue, || self.maintain());
                    // Space may come free behind the last look, and while the store is full nobody brings work.
                    let is_full = shared.is_full.load(Ordering::Relaxed);
                    pause = match has_more {
                        true => Some(MAINTENANCE_PAUSE),
                        false => is_full.then_some(MEASURE_EVERY),
                    };
                }
                Some(_) => {}
                None => shared.work.wait(&mut queue),
            }
        }
        queue.is_idle = false;
        self.gather(&mut queue);
        Batch::take(&mut queue)
    }

    /// Work that may wait, and the size of the store. `false`: there is none left, or it fails as the next commit will.
    fn maintain(&mut self) -> bool {
        if self.measured_at.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            self.measure();
        }
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
        if self.measured_at.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            self.maintain();
        }
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
        let mut bytes: usize = self.kept.iter().map(Change::size_bytes).sum();
        let mut lost = 0;
        for change in changes.iter().filter(|change| change.is_owed()) {
            bytes = bytes.saturating_add(change.size_bytes());
            if bytes <= KEPT_BYTES_MAX {
                self.kept.push(change.clone());
            } else {
                lost += 1;
            }
        }
        if lost > 0 {
            warn!(
                lost,
                "the store has failed for so long that settled messages and ended sessions may come again after a restart"
            );
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

impl Drop for Run {
    /// Nobody waits for ever, should there be a fault that ends the thread early.
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.is_stopped = true;
        let Batch { last_ticket, loads, .. } = Batch::take(&mut queue);
        drop(queue);
        self.shared.tickets.close(last_ticket);
        for load in loads {
            (load.deliver)(Err(StoreError::Closed));
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

/// Changes kept while the store fails, about.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Between the last commit and work that may wait.
const IDLE_BEFORE_MAINTENANCE: Duration = Duration::from_millis(200);

/// Between two pieces of it.
const MAINTENANCE_PAUSE: Duration = Duration::from_millis(10);

/// Between two looks at the size of the store under load.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

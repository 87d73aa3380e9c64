//! What has become of submissions, and who wants to know. Tickets are done in order, so one number says it, and a
//! short list says which of them failed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::store::StoreError;

/// A submission. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

impl Ticket {
    /// Of nothing: it is done.
    pub const DONE: Self = Self(0);
}

/// Somebody who is to be woken.
pub trait Waiter: Send + Sync {
    /// Called without a lock held; must not block.
    fn wake(&self);
}

impl<F: Fn() + Send + Sync> Waiter for F {
    fn wake(&self) {
        self();
    }
}

#[derive(Default)]
pub(super) struct Tickets {
    /// This one and all before are done.
    done: AtomicU64,
    /// No later one has failed.
    failed: AtomicU64,
    failures: Mutex<VecDeque<Failure>>,
    waiters: Mutex<Vec<(Ticket, Arc<dyn Waiter>)>>,
}

/// Some that failed in a row.
struct Failure {
    first: u64,
    last: u64,
    error: StoreError,
}

impl Tickets {
    pub(super) fn outcome(&self, ticket: Ticket) -> Option<Result<(), StoreError>> {
        if ticket.0 > self.done.load(Ordering::Acquire) {
            return None;
        }
        // Written before `done`.
        if ticket.0 > self.failed.load(Ordering::Relaxed) || ticket == Ticket::DONE {
            return Some(Ok(()));
        }
        let failures = self.failures.lock();
        let failure = failures.iter().find(|failure| (failure.first..=failure.last).contains(&ticket.0));
        Some(failure.map_or(Ok(()), |failure| Err(failure.error.clone())))
    }

    pub(super) fn when_done(&self, ticket: Ticket, waiter: Arc<dyn Waiter>) {
        let mut waiters = self.waiters.lock();
        // Under the lock, so that `done` finds it in the list or this finds that it is done.
        if ticket.0 > self.done.load(Ordering::Acquire) {
            waiters.push((ticket, waiter));
            return;
        }
        drop(waiters);
        waiter.wake();
    }

    /// These have failed; [`Self::done`] follows.
    pub(super) fn fail(&self, (first, last): (u64, u64), error: &StoreError) {
        if first > last {
            return;
        }
        let mut failures = self.failures.lock();
        match failures.back_mut() {
            Some(before) if before.last + 1 == first => before.last = last,
            _ => failures.push_back(Failure { first, last, error: error.clone() }),
        }
        if failures.len() > FAILURES_MAX {
            failures.pop_front();
        }
        self.failed.store(last, Ordering::Relaxed);
    }

    /// What is not done by now never will be.
    pub(super) fn close(&self, last: u64) {
        let done = self.done.load(Ordering::Acquire);
        self.fail((done + 1, last), &StoreError::Closed);
        self.done(last.max(done));
    }

    pub(super) fn done(&self, last: u64) {
        let mut waiters = self.waiters.lock();
        self.done.store(last, Ordering::Release);
        let ready: Vec<_> = waiters.extract_if(.., |(ticket, _)| ticket.0 <= last).collect();
        drop(waiters);
        for (_, waiter) in ready {
            waiter.wake();
        }
    }
}

/// Between each two of them the store worked for a while: whoever has not asked for a ticket since, has no interest.
const FAILURES_MAX: usize = 1024;

//! When something is due for clients that are away: the end of a session, a delayed will. One list for one task.
//! Reads no clock.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;

use crate::mailbox::Mailbox;

/// Deadlines by time; at most one for each session.
#[derive(Debug, Default)]
pub struct Deadlines {
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    by_time: BTreeMap<(Instant, u64), Weak<Mailbox>>,
    /// The task waits for a later instant than the first.
    is_earlier: bool,
    waker: Option<Waker>,
}

impl Deadlines {
    /// Enters a session.
    pub fn set(&self, at: Instant, mailbox: &Arc<Mailbox>) {
        let waker = {
            let mut list = self.list.lock();
            let is_first = list.by_time.keys().next().is_none_or(|(first, _)| at < *first);
            list.by_time.insert((at, mailbox.key()), Arc::downgrade(mailbox));
            list.is_earlier |= is_first;
            if is_first { list.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes a session out.
    pub fn cancel(&self, at: Instant, mailbox: &Mailbox) {
        self.list.lock().by_time.remove(&(at, mailbox.key()));
    }

    /// The earliest.
    pub fn next(&self) -> Option<Instant> {
        let mut list = self.list.lock();
        list.is_earlier = false;
        list.by_time.keys().next().map(|(at, _)| *at)
    }

    /// Waits until there is an earlier one than [`Deadlines::next`] has said. Cancel safe.
    pub async fn earlier(&self) {
        poll_fn(|context| {
            let mut list = self.list.lock();
            if list.is_earlier {
                return Poll::Ready(());
            }
            list.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Takes out at most `count` sessions whose time has come.
    pub fn take_due(&self, now: Instant, count: usize) -> Vec<Arc<Mailbox>> {
        let mut list = self.list.lock();
        let mut due = Vec::new();
        while due.len() < count
            && let Some(first) = list.by_time.first_entry().filter(|first| first.key().0 <= now)
        {
            due.extend(first.remove().upgrade());
        }
        due
    }
}

//! A message with a consumer. Whoever is the last to let go of it, for whatever reason, brings it back to its queue,
//! unless it was settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{Item, WorkQueue};
use crate::durability::Stored;

/// See the file's first lines.
pub struct Lease {
    queue: Arc<WorkQueue>,
    consumer: u64,
    seq: u64,
    /// `None` once it is settled.
    item: Mutex<Option<Item>>,
    was_redelivered: bool,
    was_sent: AtomicBool,
}

/// What a consumer has let go of.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) consumer: u64,
    pub(super) seq: u64,
    /// `None`: settled.
    pub(super) item: Option<Item>,
    /// The consumer may know it.
    pub(super) was_sent: bool,
}

impl Lease {
    pub(super) fn new(queue: &Arc<WorkQueue>, consumer: u64, seq: u64, item: Item) -> Self {
        Self {
            queue: Arc::clone(queue),
            consumer,
            seq,
            was_redelivered: item.is_redelivered,
            item: Mutex::new(Some(item)),
            was_sent: AtomicBool::new(false),
        }
    }

    /// A consumer may have had it before.
    pub(crate) fn was_redelivered(&self) -> bool {
        self.was_redelivered
    }

    /// It is about to be sent.
    pub(crate) fn send(&self) {
        self.was_sent.store(true, Ordering::Relaxed);
    }

    /// Its place on the disk.
    pub(crate) fn place(&self) -> Option<Arc<Stored>> {
        self.item.lock().as_ref().and_then(|item| item.place.clone())
    }

    /// It is over: its place on the disk goes.
    pub(crate) fn settle(&self) {
        drop(self.item.lock().take());
    }

    /// The consumer does not want it: another gets it. `false`: it was refused too often, and is over.
    pub(crate) fn refuse(&self) -> bool {
        let mut item = self.item.lock();
        match &mut *item {
            Some(waiting) if waiting.refusals < self.queue.limits.refusals_max => {
                waiting.refused_by = Some(self.consumer);
                waiting.refusals += 1;
                true
            }
            _ => {
                *item = None;
                false
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let item = self.item.get_mut().take();
        let was_sent = *self.was_sent.get_mut();
        self.queue.give_back(Returned { consumer: self.consumer, seq: self.seq, item, was_sent });
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({}, {})", self.queue.key(), self.seq)
    }
}

//! Who is connected under which client id; a newer connection takes the id over.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use dashmap::DashMap;
use parking_lot::Mutex;
use tidegate_protocol::session::{CloseKind, CloseReason};

use crate::outbox::Outbox;

/// Live clients by id.
#[derive(Debug)]
pub struct Registry {
    live: DashMap<Arc<str>, Arc<Outbox>, RandomState>,
    assigned: AtomicU64,
    start: u64,
    /// Client ids that were told in the log that nothing is kept for them.
    told: Mutex<HashSet<Arc<str>, RandomState>>,
}

/// Ids remembered by [`Registry::is_news`]; beyond that the log stays quiet.
const TOLD_MAX: usize = 10_000;

impl Default for Registry {
    fn default() -> Self {
        Self {
            live: DashMap::default(),
            assigned: AtomicU64::new(0),
            // Ids of an earlier run must not be given again to other clients.
            start: RandomState::new().hash_one("start"),
            told: Mutex::default(),
        }
    }
}

impl Registry {
    /// Enters a client; one that is connected under this id is told to go [MQTT-3.1.4-3].
    pub fn enter(&self, id: &Arc<str>, outbox: &Arc<Outbox>) {
        let old = self.live.insert(Arc::clone(id), Arc::clone(outbox));
        if let Some(old) = old.filter(|old| !Arc::ptr_eq(old, outbox)) {
            old.order_close(CloseReason::new(CloseKind::Replaced, "the same client id connected again"));
        }
    }

    /// Removes a client, unless another connection has its id already.
    pub fn leave(&self, id: &str, outbox: &Arc<Outbox>) {
        self.live.remove_if(id, |_, known| Arc::ptr_eq(known, outbox));
    }

    /// An id that nobody has.
    pub fn assign(&self) -> Arc<str> {
        let mut id = String::with_capacity(24);
        let number = self.assigned.fetch_add(1, Ordering::Relaxed);
        // Writing to a string cannot fail.
        let _ = write!(id, "tg-{:08x}-{number:x}", self.start & 0xffff_ffff);
        id.into()
    }

    /// Whether this id has not been seen here before; remembers it, within bounds.
    pub fn is_news(&self, id: &Arc<str>) -> bool {
        let mut told = self.told.lock();
        told.len() < TOLD_MAX && told.insert(Arc::clone(id))
    }
}

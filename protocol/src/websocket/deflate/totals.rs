//! What the whole process has compressed and inflated, for an operator's page. Counters only: nothing decides by
//! them.

use std::sync::atomic::{AtomicU64, Ordering};

/// The sums since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages that were compressed; one for many receivers counts once.
    pub compressed: u64,
    /// Their bytes before.
    pub compressed_bytes_before: u64,
    /// Their bytes after.
    pub compressed_bytes_after: u64,
    /// Messages that were inflated.
    pub inflated: u64,
    /// Their bytes before.
    pub inflated_bytes_before: u64,
    /// Their bytes after.
    pub inflated_bytes_after: u64,
}

static COMPRESSED: AtomicU64 = AtomicU64::new(0);
static COMPRESSED_BEFORE: AtomicU64 = AtomicU64::new(0);
static COMPRESSED_AFTER: AtomicU64 = AtomicU64::new(0);
static INFLATED: AtomicU64 = AtomicU64::new(0);
static INFLATED_BEFORE: AtomicU64 = AtomicU64::new(0);
static INFLATED_AFTER: AtomicU64 = AtomicU64::new(0);

impl Totals {
    /// The sums so far.
    #[must_use]
    pub fn read() -> Self {
        let read = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Self {
            compressed: read(&COMPRESSED),
            compressed_bytes_before: read(&COMPRESSED_BEFORE),
            compressed_bytes_after: read(&COMPRESSED_AFTER),
            inflated: read(&INFLATED),
            inflated_bytes_before: read(&INFLATED_BEFORE),
            inflated_bytes_after: read(&INFLATED_AFTER),
        }
    }
}

pub(super) fn add_compressed(before: usize, after: usize) {
    COMPRESSED.fetch_add(1, Ordering::Relaxed);
    COMPRESSED_BEFORE.fetch_add(before as u64, Ordering::Relaxed);
    COMPRESSED_AFTER.fetch_add(after as u64, Ordering::Relaxed);
}

pub(super) fn add_inflated_bytes(before: usize, after: usize) {
    INFLATED_BEFORE.fetch_add(before as u64, Ordering::Relaxed);
    INFLATED_AFTER.fetch_add(after as u64, Ordering::Relaxed);
}

pub(super) fn add_inflated_message() {
    INFLATED.fetch_add(1, Ordering::Relaxed);
}

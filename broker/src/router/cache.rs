//! Matches found before, one slot per thread, bounded in bytes. Knows no table: generations say what still holds.
//!
//! The slots belong to the router, not to the threads, so that a timer can drop what is stale in the slot of a
//! thread that has become idle, and so that nothing outlives the router. Each slot has a lock, which is free but
//! for the moment of a sweep: the price is some 15 ns a match.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::Mutex;
use tidegate_protocol::topic::Topic;

use super::generation::{Generations, Stamp};
use super::matched::Matched;

/// An entry beside its targets: key, stamp, the table's slack and two allocations.
const ENTRY_BYTES: usize = 192;

/// One slot for each thread, unless there are more threads than expected.
pub(super) struct Cache<M> {
    slots: Box<[Slot<M>]>,
    bytes_max: usize,
}

/// On cache lines of its own, or threads would wait for each other without sharing anything.
#[repr(align(128))]
struct Slot<M>(Mutex<Matches<M>>);

struct Matches<M> {
    entries: HashMap<Topic, Entry<M>, RandomState>,
    bytes: usize,
}

struct Entry<M> {
    stamp: Stamp,
    matched: Arc<Matched<M>>,
    bytes: usize,
}

impl<M> Cache<M> {
    pub(super) fn new(bytes_max: usize, hasher: RandomState) -> Self {
        let threads = std::thread::available_parallelism().map_or(8, usize::from);
        let matches = || Matches { entries: HashMap::with_hasher(hasher.clone()), bytes: 0 };
        // More than there are workers, since main and the admin's thread publish too; a power of two, since a
        // division would cost as much as the lock.
        let slots = (0..(threads * 2).next_power_of_two()).map(|_| Slot(Mutex::new(matches()))).collect();
        Self { slots, bytes_max }
    }

    /// The match of `topic`, if it is known and nothing that it depends on has changed.
    pub(super) fn lookup(&self, topic: &Topic, generations: &Generations) -> Option<Arc<Matched<M>>> {
        // A slot in use elsewhere is not worth waiting for.
        let matches = self.slot()?.0.try_lock()?;
        let entry = matches.entries.get(topic.as_str())?;
        generations.is_current(&entry.stamp).then(|| Arc::clone(&entry.matched))
    }

    /// Keeps a match. One that would fill half of the slot by itself is not kept: there, finding it costs little
    /// beside using it.
    pub(super) fn insert(
        &self,
        topic: &Topic,
        stamp: Stamp,
        matched: &Arc<Matched<M>>,
        generations: &Generations,
    ) {
        let bytes = ENTRY_BYTES + topic.as_str().len() + matched.size_bytes();
        if bytes > self.bytes_max / 2 {
            return;
        }
        let Some(mut matches) = self.slot().and_then(|slot| slot.0.try_lock()) else { return };
        let mut evicted = Vec::new();
        if matches.bytes + bytes > self.bytes_max {
            matches.evict_stale(generations, &mut evicted);
            matches.evict_to(self.bytes_max / 2, &mut evicted);
        }
        matches.bytes += bytes;
        let entry = Entry { stamp, matched: Arc::clone(matched), bytes };
        if let Some(replaced) = matches.entries.insert(topic.clone(), entry) {
            matches.bytes -= replaced.bytes;
            evicted.push(replaced.matched);
        }
        // The last reference to a subscription may go with them, and its end is no business of this lock.
        drop(matches);
        drop(evicted);
    }

    /// Drops what is stale, in the slots of all threads.
    pub(super) fn sweep(&self, generations: &Generations) {
        for slot in &self.slots {
            let mut evicted = Vec::new();
            let mut matches = slot.0.lock();
            matches.evict_stale(generations, &mut evicted);
            drop(matches);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.iter().map(|slot| slot.0.lock().entries.len()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.0.lock().bytes).sum()
    }

    fn slot(&self) -> Option<&Slot<M>> {
        self.slots.get(thread_number() & (self.slots.len() - 1))
    }
}

impl<M> Matches<M> {
    fn evict_stale(&mut self, generations: &Generations, evicted: &mut Vec<Arc<Matched<M>>>) {
        self.evict(evicted, |entry, _| !generations.is_current(&entry.stamp));
    }

    /// Whichever come first: which topics will be published to again is not known, and keeping a record of use
    /// would cost every hit.
    fn evict_to(&mut self, bytes_max: usize, evicted: &mut Vec<Arc<Matched<M>>>) {
        self.evict(evicted, |_, bytes| bytes > bytes_max);
    }

    fn evict(
        &mut self,
        evicted: &mut Vec<Arc<Matched<M>>>,
        mut is_over: impl FnMut(&Entry<M>, usize) -> bool,
    ) {
        let mut bytes = self.bytes;
        let over = self.entries.extract_if(|_, entry| {
            let is_over = is_over(entry, bytes);
            bytes -= if is_over { entry.bytes } else { 0 };
            is_over
        });
        evicted.extend(over.map(|(_, entry)| entry.matched));
        self.bytes = bytes;
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to_fit();
        }
    }
}

/// Counts threads as they come.
fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

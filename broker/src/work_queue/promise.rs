//! Room that a queue keeps for a message that is on its way to it. Whoever is told that there is room gets it, however many
//! publish at once, and the queue does not end meanwhile.

use std::sync::Arc;

use super::{Ended, State, WhenFull, WorkQueue};
use crate::outbox::room::Amount;

/// See the file's first lines. It lasts until the message is in the queue, or will not come.
#[derive(Debug)]
pub(crate) struct Promise {
    queue: Arc<WorkQueue>,
    size_bytes: u32,
}

/// What a queue has promised.
#[derive(Debug, Default)]
pub(super) struct Promised(Amount);

impl WorkQueue {
    /// Keeps room for a message of this size, or lets it make room for itself. `None`: the queue is full.
    ///
    /// # Errors
    ///
    /// The queue has ended.
    pub(crate) fn promise(self: &Arc<Self>, size_bytes: u32) -> Result<Option<Promise>, Ended> {
        let mut state = self.state.lock();
        if state.has_ended {
            return Err(Ended);
        }
        if self.limits.when_full == WhenFull::Refuse && !state.fits(size_bytes, &self.limits) {
            return Ok(None);
        }
        state.promised.add(size_bytes);
        Ok(Some(Promise { queue: Arc::clone(self), size_bytes }))
    }
}

impl State {
    /// Whether somebody has a promise.
    pub(super) fn is_expecting(&self) -> bool {
        self.promised.0.messages > 0
    }
}

impl Promised {
    pub(super) fn amount(&self) -> Amount {
        self.0
    }

    fn add(&mut self, size_bytes: u32) {
        self.0 = self.0 + Amount { messages: 1, bytes: size_bytes as usize };
    }

    fn remove(&mut self, size_bytes: u32) {
        self.0.messages = self.0.messages.saturating_sub(1);
        self.0.bytes = self.0.bytes.saturating_sub(size_bytes as usize);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.queue.state.lock().promised.remove(self.size_bytes);
    }
}

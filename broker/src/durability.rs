//! What the core knows of the store: it hands changes over, and remembers what waits for their commit.
//!
//! QoS 0 and 1 are pushed at once, and only the acknowledgement waits. What is published at QoS 2 is pushed after the
//! commit, in the order of commits: after a crash before it, the publisher sends again, and nobody may have seen it.

use std::sync::Arc;

use tidegate_protocol::session::Refusal;

use crate::broker::Batch;
use crate::store::{Changes, StoreError, Ticket, Waiter, Writer};

/// The way to the store.
pub struct Durability {
    writer: Writer,
}

impl Durability {
    /// With a writer that runs.
    #[must_use]
    pub const fn new(writer: Writer) -> Self {
        Self { writer }
    }

    /// The writer.
    #[must_use]
    pub const fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Hands changes over. What is said to the client about them waits for [`Batch::after`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] while the store takes nothing.
    pub fn submit(&self, changes: Changes, batch: &mut Batch) -> Result<(), Refusal> {
        batch.after = Some(self.writer.submit(changes).map_err(|error| refusal(&error))?);
        Ok(())
    }

    /// Hands over what nobody waits for.
    pub fn note(&self, changes: Changes) {
        // A store that was stopped has nothing to remember any more; else removals are always taken.
        let _ = self.writer.submit(changes);
    }

    /// What became of it; `None`: not known yet.
    #[must_use]
    pub fn outcome(&self, ticket: Ticket) -> Option<Result<(), Refusal>> {
        self.writer.outcome(ticket).map(|outcome| outcome.map_err(|error| refusal(&error)))
    }

    /// Wakes it once when the ticket is done; at once if it is.
    pub fn when_done(&self, ticket: Ticket, waiter: Arc<dyn Waiter>) {
        self.writer.when_done(ticket, waiter);
    }
}

fn refusal(error: &StoreError) -> Refusal {
    Refusal::Overloaded(match error {
        StoreError::Full => "the store is full",
        StoreError::Closed => "the broker is stopping",
        _ => "the disk of the store fails",
    })
}

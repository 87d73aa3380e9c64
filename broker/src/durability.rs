//! What the core knows of the store: it hands changes over, and remembers what waits for their commit.
//!
//! QoS 0 and 1 are pushed at once, and only the acknowledgement waits. What is published at QoS 2 is pushed after the
//! commit, in the order of commits: after a crash before it, the publisher sends again, and nobody may have seen it.

use std::sync::Arc;

use tidegate_protocol::session::Refusal;

use crate::broker::{Batch, Now};
use crate::store::{Changes, StoreError, Ticket, Waiter, Writer};

/// The way to the store.
pub struct Durability {
    writer: Writer,
    /// Both clocks, for the thread that brings messages back.
    #[expect(dead_code, reason = "for the message path")]
    clock: fn() -> Now,
}

impl std::fmt::Debug for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Durability").finish_non_exhaustive()
    }
}

impl Durability {
    /// With a writer that runs. `clock` tells both times.
    #[must_use]
    pub fn new(writer: Writer, clock: fn() -> Now) -> Arc<Self> {
        Arc::new(Self { writer, clock })
    }

    /// The writer.
    #[must_use]
    pub const fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Whether it would take something now. Asked before anything is changed that a refusal could not take back.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] while the disk fails or is full.
    pub fn admit(&self) -> Result<(), Refusal> {
        self.writer.admit().map_err(|error| refusal(&error))
    }

    /// Hands changes over. What is said to the client about them waits for [`Batch::after`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] while the store takes nothing.
    pub fn submit(&self, changes: Changes, batch: &mut Batch) -> Result<Ticket, Refusal> {
        let ticket = self.writer.submit(changes).map_err(|error| refusal(&error))?;
        batch.after = Some(ticket);
        Ok(ticket)
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

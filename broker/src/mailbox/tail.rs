//! The end of a session's queue, for messages that are put there on the disk alone, in the name of its client.

use std::sync::Arc;
use std::time::Instant;

use super::Mailbox;
use crate::holdings::Holdings;
use crate::outbox::Outbox;
use crate::remainder::Remainder;

/// Held under the lock of the session.
#[derive(Debug)]
pub(crate) struct Tail<'a> {
    session: u64,
    next_seq: &'a mut u64,
    remainder: &'a mut Option<Box<Remainder>>,
}

impl Mailbox {
    /// Lets the connection that speaks for it put messages behind the queue. Not while something waits there.
    pub(crate) fn with_tail(
        self: &Arc<Self>,
        outbox: &Arc<Outbox>,
        now: Instant,
        put: impl FnOnce(&mut Holdings, &mut Tail<'_>),
    ) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.is_of(outbox) || !state.backlog.is_empty() || state.remainder.is_some() {
            return;
        }
        let (next_seq, remainder) = (&mut state.next_seq, &mut state.remainder);
        put(&mut state.holdings, &mut Tail { session: self.key, next_seq, remainder });
        if state.remainder.is_some() {
            self.ask(state);
            outbox.set_behind(state.waiting(), now);
            self.note(state);
        }
    }
}

impl Tail<'_> {
    /// The session in the store.
    pub(crate) const fn session(&self) -> u64 {
        self.session
    }

    /// The next place.
    pub(crate) const fn next_seq(&self) -> u64 {
        *self.next_seq
    }

    /// Messages of these sizes are at the next places: the store has been told of them.
    pub(crate) fn enter(&mut self, sizes_bytes: impl Iterator<Item = u32>) {
        for size_bytes in sizes_bytes {
            let seq = *self.next_seq;
            *self.next_seq += 1;
            let remainder = self.remainder.get_or_insert_with(|| Box::new(Remainder::new(seq)));
            remainder.enter(seq, size_bytes);
            remainder.arrived(seq);
        }
    }
}

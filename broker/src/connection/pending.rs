//! Replies that wait for the commit of what they say, in the order of their requests. Knows no session, no socket and no
//! store: whoever asks says which tickets are done.
//!
//! One wake-up is arranged at a time, for the oldest reply. The commit that completes it completes all that was
//! submitted before its fsync, so a client costs one wake-up for each group commit, and not one for each message.

use std::collections::VecDeque;
use std::time::Instant;

use tidegate_protocol::session::{CloseReason, Refusal, Reply, Token};

use crate::store::Ticket;

/// A reply that may have to wait.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) token: Token,
    pub(super) reply: Reply,
    /// Of a publish at QoS 2: if its commit fails, the broker has to forget it again.
    pub(super) packet_id: Option<u16>,
    /// What has to be done before.
    pub(super) after: Ticket,
}

/// What became of a commit.
pub(super) type Outcome = Result<(), Refusal>;

/// The queue. Bounded by what each session lets be outstanding, its receive maximum.
#[derive(Debug, Default)]
pub(super) struct Pending {
    answers: VecDeque<Answer>,
    /// So many of them precede deliveries.
    openings: usize,
    /// A wake-up is arranged.
    is_awaited: bool,
    /// The broker ends the connection, and lets these be said until then.
    parting: Option<Parting>,
}

/// A planned end that waits.
#[derive(Debug)]
struct Parting {
    reason: CloseReason,
    deadline: Instant,
}

impl Answer {
    /// Deliveries follow it: those of a subscription, or of the session that goes on.
    const fn is_opening(&self) -> bool {
        matches!(self.reply, Reply::Subscribed(_) | Reply::Connected(_) | Reply::Authenticated(_))
    }
}

impl Pending {
    /// Puts it behind all others.
    pub(super) fn push(&mut self, answer: Answer) {
        self.openings += usize::from(answer.is_opening());
        self.answers.push_back(answer);
    }

    /// The oldest, if it may be said. `outcome` gives `None` for what is not known yet.
    pub(super) fn pop_done(
        &mut self,
        outcome: impl FnOnce(Ticket) -> Option<Outcome>,
    ) -> Option<(Answer, Outcome)> {
        let outcome = outcome(self.answers.front()?.after)?;
        let answer = self.answers.pop_front()?;
        self.openings -= usize::from(answer.is_opening());
        Some((answer, outcome))
    }

    /// The ticket to be woken for, unless that is arranged. The caller arranges it.
    pub(super) fn await_oldest(&mut self) -> Option<Ticket> {
        let oldest = self.answers.front()?;
        (!std::mem::replace(&mut self.is_awaited, true)).then_some(oldest.after)
    }

    /// The wake-up has come.
    pub(super) fn handle_wake(&mut self) {
        self.is_awaited = false;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Whether one of them has to precede deliveries.
    pub(super) fn has_opening(&self) -> bool {
        self.openings > 0
    }

    // ---- a planned end ----

    /// The connection is to end for this once all is said, at the latest at `deadline`. The first word counts.
    pub(super) fn part(&mut self, reason: CloseReason, deadline: Instant) {
        self.parting.get_or_insert(Parting { reason, deadline });
    }

    /// When it has to end.
    pub(super) fn part_by(&self) -> Option<Instant> {
        self.parting.as_ref().map(|parting| parting.deadline)
    }

    /// Why it ends, if it is to. What was not said is dropped.
    pub(super) fn into_reason(self) -> Option<CloseReason> {
        self.parting.map(|parting| parting.reason)
    }
}

//! Replies that wait for the commit of what they say, in the order of their requests. Knows no session, no socket and no
//! store: whoever asks says which tickets are done.
//!
//! One wake-up is arranged at a time, for the oldest reply. The commit that completes it completes all that was
//! submitted before its fsync, so a client costs one wake-up for each group commit, and not one for each message.

use std::collections::VecDeque;
use std::time::Instant;

use tidegate_protocol::session::{CloseReason, Refusal, Reply, Token};

use crate::broker::Entered;
use crate::store::Ticket;

/// A reply that may have to wait.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) token: Token,
    pub(super) reply: Reply,
    /// Of a publish at QoS 2: if its commit fails, the broker has to forget it again.
    pub(super) packet_id: Option<u16>,
    /// Of a Subscribe: each is granted if its commit works.
    pub(super) entered: Vec<Entered>,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tidegate_protocol::session::{CloseKind, Published};

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Change, SessionKey, Settings, Writer};

    /// `DONE`, and three that a writer has given out.
    fn tickets() -> Vec<Ticket> {
        let writer = Writer::start(Arc::new(MemoryStore::new()), Settings::default(), 1).unwrap();
        let given = (1..=3).map(|id| writer.submit(vec![Change::RemoveReceived(SessionKey(1), id)]).unwrap());
        let tickets = std::iter::once(Ticket::DONE).chain(given).collect();
        writer.stop();
        tickets
    }

    fn answer(token: u32, after: Ticket) -> Answer {
        let reply = Reply::Published(Published { matched: 1 });
        Answer { token: Token(token), reply, packet_id: None, entered: Vec::new(), after }
    }

    /// Answers wait for `after`. Of the commits, the first `done` are done, and `failed` has failed: the answers that
    /// are said are numbered from 0, and those that are refused are negative.
    fn check(after: &[usize], done: usize, failed: Option<usize>, said: &[i64]) {
        let tickets = tickets();
        let mut pending = Pending::default();
        for (token, after) in (0..).zip(after) {
            pending.push(answer(token, tickets[*after]));
        }
        let outcome = |ticket: Ticket| {
            let number = tickets.iter().position(|known| *known == ticket)?;
            let refusal = (failed == Some(number)).then_some(Err(Refusal::Overloaded("the disk")));
            (number <= done).then(|| refusal.unwrap_or(Ok(())))
        };
        let mut got = Vec::new();
        while let Some((answer, outcome)) = pending.pop_done(outcome) {
            let token = i64::from(answer.token.0);
            got.push(if outcome.is_ok() { token } else { -token });
        }
        assert_eq!(got, said, "{after:?}, {done} done");
        assert_eq!(pending.is_empty(), said.len() == after.len());
    }

    #[test]
    fn answers_are_said_in_order_and_none_before_its_commit() {
        check(&[1, 1, 2, 3], 0, None, &[]);
        check(&[1, 1, 2, 3], 1, None, &[0, 1]);
        check(&[1, 1, 2, 3], 3, None, &[0, 1, 2, 3]);
    }

    #[test]
    fn what_waits_for_nothing_waits_behind_what_does() {
        check(&[0, 2, 0, 1, 3], 1, None, &[0]);
        check(&[0, 2, 0, 1, 3], 2, None, &[0, 1, 2, 3]);
    }

    #[test]
    fn a_failed_commit_concerns_its_own_answers_alone() {
        check(&[1, 2, 2, 3], 3, Some(2), &[0, -1, -2, 3]);
    }

    #[test]
    fn one_wake_up_is_arranged_for_all_that_wait() {
        let tickets = tickets();
        let mut pending = Pending::default();
        assert_eq!(pending.await_oldest(), None, "nothing waits");
        pending.push(answer(1, tickets[1]));
        assert_eq!(pending.await_oldest(), Some(tickets[1]));
        pending.push(answer(2, tickets[2]));
        assert_eq!(pending.await_oldest(), None, "one is arranged");
        pending.handle_wake();
        assert!(pending.pop_done(|_| Some(Ok(()))).is_some());
        assert_eq!(pending.await_oldest(), Some(tickets[2]));
    }

    #[test]
    fn deliveries_are_held_until_the_last_opening_is_said() {
        let mut pending = Pending::default();
        pending.push(answer(1, Ticket::DONE));
        assert!(!pending.has_opening());
        for reply in [Reply::Connected(Box::default()), Reply::Subscribed(Vec::new())] {
            pending.push(Answer { reply, ..answer(2, Ticket::DONE) });
        }
        for has_opening in [true, true, true, false] {
            assert_eq!(pending.has_opening(), has_opening);
            pending.pop_done(|_| Some(Ok(())));
        }
    }

    #[test]
    fn a_second_order_does_not_prolong_the_wait() {
        let first = tokio::time::Instant::now().into_std();
        let mut pending = Pending::default();
        assert_eq!(pending.part_by(), None);
        pending.part(CloseReason::new(CloseKind::ShuttingDown, "first"), first);
        pending.part(CloseReason::new(CloseKind::Restarting, "second"), first + Duration::from_secs(1));
        assert_eq!(pending.part_by(), Some(first));
        assert_eq!(pending.into_reason().unwrap().kind, CloseKind::ShuttingDown);
    }
}

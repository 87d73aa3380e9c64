//! The broker's answers on their way to the session: at once, or when what they say is safe on the disk.

use std::sync::Arc;
use std::time::Duration;

use tidegate_protocol::session::{CloseReason, Granted, Refusal, Reply, Request, WillFate};

use super::pending::{Answer, Outcome};
use super::{Connection, Lane, Phase, buffer};
use crate::broker::{Entered, Now};
use crate::outbox::queue::Signals;

impl Connection {
    /// Says it in its turn: behind the commit that it waits for, and behind earlier answers.
    pub(super) fn answer(&mut self, answer: Answer, now: Now) {
        let Some(durability) = self.broker.durability() else { return self.say(answer, Ok(()), now) };
        if self.pending.as_ref().is_none_or(|pending| pending.is_empty())
            && let Some(outcome) = durability.outcome(answer.after)
        {
            return self.say(answer, outcome, now);
        }
        self.pending.get_or_insert_default().push(answer);
        self.await_commit();
    }

    /// A commit that answers waited for is done. Those that came behind it wait for the next.
    pub(super) fn handle_commit(&mut self, now: Now) {
        let Some(pending) = &mut self.pending else { return };
        pending.handle_wake();
        self.say_done(now);
        self.drain(&mut Lane::Control, now);
        let Some(pending) = &self.pending else { return };
        if !pending.is_empty() {
            self.await_commit();
        } else if pending.part_by().is_some() {
            self.part(now);
        } else {
            // An idle connection keeps no queue.
            self.pending = None;
        }
    }

    /// A planned stop lets be said what is being committed, for at most `websocket.close_timeout`: the client would send
    /// it all again. `false`: nothing waits.
    pub(super) fn parts_later(&mut self, reason: &CloseReason, now: Now) -> bool {
        self.give_up_brake(now);
        let Some(pending) = self.pending.as_mut().filter(|pending| !pending.is_empty()) else { return false };
        pending.part(reason.clone(), now.instant + self.settings.close_timeout);
        true
    }

    /// Nothing waits any more, or it has waited long enough.
    pub(super) fn part(&mut self, now: Now) {
        let reason = self.pending.take().and_then(|pending| pending.into_reason());
        self.release_subscribe();
        if let Some(reason) = reason {
            self.close_by_order(reason, now);
        }
    }

    /// The connection is over for the session: who was not answered sends again.
    pub(super) fn drop_pending(&mut self) {
        self.pending = None;
        self.release_subscribe();
    }

    /// Lets deliveries go, unless the reply that has to precede them is still to come.
    pub(super) fn release_subscribe(&mut self) {
        let has_opening = self.pending.as_ref().is_some_and(|pending| pending.has_opening());
        if !has_opening && std::mem::take(&mut self.holds_subscribe) {
            self.outbox.release_subscribe();
            self.outbox.signal(Signals::SESSION);
        }
    }

    fn say_done(&mut self, now: Now) {
        while let (Some(pending), Some(durability)) = (&mut self.pending, self.broker.durability()) {
            let Some((answer, outcome)) = pending.pop_done(|ticket| durability.outcome(ticket)) else {
                return;
            };
            self.say(answer, outcome, now);
        }
    }

    fn await_commit(&mut self) {
        let (Some(pending), Some(durability)) = (&mut self.pending, self.broker.durability()) else { return };
        let Some(ticket) = pending.await_oldest() else { return };
        // A connection that is gone is not kept by a slow disk.
        let outbox = Arc::downgrade(&self.outbox);
        let waiter = move || {
            if let Some(outbox) = outbox.upgrade() {
                outbox.signal(Signals::COMMITTED);
            }
        };
        durability.when_done(ticket, Arc::new(waiter));
    }

    fn say(&mut self, answer: Answer, outcome: Outcome, now: Now) {
        let Answer { token, mut reply, packet_id, entered, .. } = answer;
        if let (Reply::Subscribed(results), false) = (&mut reply, entered.is_empty()) {
            self.grant(results, &entered, now);
        } else if let Err(refusal) = outcome {
            reply = self.take_back(&reply, packet_id, refusal, now);
        }
        self.session.handle_reply(token, reply, now.instant);
    }

    /// Each subscription for itself: the commits of one Subscribe may end differently.
    fn grant(&mut self, results: &mut [Result<Granted, Refusal>], entered: &[Entered], now: Now) {
        let broker = Arc::clone(&self.broker);
        let Some(durability) = broker.durability() else { return };
        for entered in entered {
            match durability.outcome(entered.ticket) {
                Some(Err(refusal)) if !entered.was_stored() => {
                    let batch = self.batch.get_or_insert_with(buffer::take_batch);
                    broker.withdraw(&mut self.client, entered, now, batch);
                    batch.after = None;
                    if let Some(result) = results.get_mut(entered.index) {
                        *result = Err(refusal);
                    }
                }
                Some(Err(_)) | None => {}
                Some(Ok(())) => entered.note_stored(),
            }
        }
    }

    /// It was done, and not stored: the client hears a no, and the broker forgets what would contradict that.
    fn take_back(&mut self, reply: &Reply, packet_id: Option<u16>, refusal: Refusal, now: Now) -> Reply {
        let request = match (reply, packet_id) {
            // Who was never connected leaves no will, and no session but one that was there before.
            (Reply::Connected(connected), _) => Some(Request::Disconnect {
                will: WillFate::Discard,
                session_expiry: (!connected.session_present).then_some(Duration::ZERO),
            }),
            // The same identifier is that of a new message [MQTT-4.3.3-9], and not of one that is there already.
            (Reply::Published(_), Some(packet_id)) => Some(Request::Release { packet_id }),
            _ => None,
        };
        if matches!(reply, Reply::Published(_)) {
            self.broker.metrics().publishes_refused.inc((&refusal).into());
        }
        if let Some(request) = request {
            let batch = self.batch.get_or_insert_with(buffer::take_batch);
            // Nobody asked for it, so nobody is answered.
            let _ = self.broker.handle(&mut self.client, &self.peer, request, now, batch);
            batch.after = None;
        }
        Reply::Refused(refusal)
    }

    /// Whether it ends as soon as everything is said.
    pub(super) fn is_parting(&self) -> bool {
        matches!(self.phase, Phase::Open)
            && self.pending.as_ref().is_some_and(|pending| pending.part_by().is_some())
    }
}

#[cfg(test)]
mod tests;

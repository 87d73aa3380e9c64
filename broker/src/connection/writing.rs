//! The owner's part in writing: what only it can encode, and the socket that has to be waited for.

use std::cell::RefCell;
use std::task::Context;

use tidegate_protocol::session::{DropReason, Tag};

use super::encoded::Encoded;
use super::{Connection, Lane, PULL_ROUNDS, PUMP_COUNT, PUMP_ROUNDS, Phase};
use crate::broker::Now;
use crate::outbox::queue::{LAG_INTERVAL, Signals};
use crate::subscription::Entry;

impl Connection {
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        if self.outbox.blocked_since().is_none() {
            return false;
        }
        if self.read.as_ref().poll_write_ready(context).is_pending() {
            return false;
        }
        self.outbox.flush(now.instant);
        self.pump(now);
        self.flush(now);
        true
    }

    /// Does for the outbox what only the owner can: retained messages, lag, and what the session encodes.
    pub(super) fn pump(&mut self, now: Now) {
        // Behind a reply that is still to come, what is queued stays where the policy can reach it.
        if !matches!(self.phase, Phase::Open) || self.has_undrained || self.holds_subscribe {
            return;
        }
        self.tell_lag(now);
        PUMP.with_borrow_mut(|(entries, encoded)| {
            // While the socket takes nothing, what is queued stays where the policy can reach it. A client that takes
            // everything at once must not keep this worker from others.
            let mut pulls = 0;
            for _ in 0..PUMP_ROUNDS {
                if self.outbox.blocked_since().is_some() {
                    return;
                }
                if self.client.awaits_more() {
                    if pulls == PULL_ROUNDS {
                        break;
                    }
                    pulls += 1;
                    self.broker.pull(&mut self.client, now);
                }
                let has_encoded = self.encode_some(entries, encoded, now);
                if !has_encoded && !self.client.awaits_more() {
                    return;
                }
                self.outbox.flush(now.instant);
                if !matches!(self.phase, Phase::Open) {
                    return;
                }
                // Another task may be writing what fills it: that one wakes us when it has.
                if !has_encoded && self.outbox.wakes_below_half() {
                    return;
                }
            }
            self.yields = true;
            self.outbox.signal(Signals::SESSION);
        });
    }

    pub(super) fn encode_some(&mut self, entries: &mut Vec<Entry>, encoded: &mut Encoded, now: Now) -> bool {
        let mut count = 0;
        while count < PUMP_COUNT {
            // Few at a time, since each acknowledged one may fill the window; they leave in one write.
            let (more, wants) = (PUMP_COUNT - count, self.session.wants());
            let first = self.client.take_for_session(entries, more, wants, now.instant);
            let Some(first) = first.filter(|_| !entries.is_empty()) else { break };
            count += entries.len();
            for (entry, tag) in entries.drain(..).zip(first.0..) {
                self.encode(entry, Tag(tag), encoded, now);
            }
        }
        if count > 0 {
            let (frames, messages) = encoded.take();
            self.broker.metrics().family(self.family).websocket_messages_out.add(messages);
            self.outbox.put_back(frames, count);
        }
        count > 0
    }

    fn encode(&mut self, entry: Entry, tag: Tag, encoded: &mut Encoded, now: Now) {
        if entry.publication.is_expired(now.instant) {
            self.broker.metrics().dropped(DropReason::Expired, 1);
            return;
        }
        let whole = entry.form.filter(|form| form.behind_head.is_none());
        if let (Some(form), Some(takeover)) = (whole, &mut self.takeover) {
            encoded.push_frame(takeover.prepared_frame(entry.publication.prepared(form)));
            return;
        }
        self.session.handle_delivery(entry.into_delivery(tag), now.instant);
        self.drain(&mut Lane::Data(encoded), now);
    }

    pub(super) fn tell_lag(&mut self, now: Now) {
        if self.lag_at.is_some() {
            return;
        }
        if let Some(lag) = self.outbox.take_lag() {
            self.lag_at = Some(now.instant + LAG_INTERVAL);
            self.session.handle_lag(*lag, now.instant);
            self.drain(&mut Lane::Control, now);
        }
    }

    pub(super) fn pump_before_close(&mut self, now: Now) {
        PUMP.with(|pump| {
            // A close from within a pump finds the buffers in use; what is queued is then encoded already.
            let Ok(mut pump) = pump.try_borrow_mut() else { return };
            let (entries, encoded) = &mut *pump;
            while self.encode_some(entries, encoded, now) {}
        });
    }
}

thread_local! {
    static PUMP: RefCell<(Vec<Entry>, Encoded)> = RefCell::default();
}

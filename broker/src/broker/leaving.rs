//! What a connection, a session or a delay leaves behind: wills, and messages for others of a group.

use std::sync::Arc;

use tidegate_protocol::session::{DropReason, Will};
use tracing::info;

use super::{Batch, Broker, Now};
use crate::client::{Client, Standing};
use crate::mailbox::{Detached, Mailbox};
use crate::registry::Registry;
use crate::subscription::Entry;

/// Sessions that one turn of the timer's task deals with, before others get theirs.
const DUE_MAX: usize = 64;

impl Broker {
    /// The connection has ended. Its will is published unless it said goodbye, or waits for its delay with the
    /// session. Does nothing the second time.
    pub fn leave(&self, client: &mut Client, now: Now, batch: &mut Batch) {
        if client.is_connected() {
            self.metrics.clients.sub(1);
        }
        client.standing = Standing::Unknown;
        let key = client.key();
        self.leave_queues(client, now);
        // [MQTT-3.1.2-10]; without one nothing is published, 3.1.1 [MQTT-3.1.2-12].
        let will = client.will.take();
        match client.mailbox.take() {
            Some(mailbox) => self.leave_session(client, &mailbox, will, now, batch),
            None => {
                for subscription in client.holdings.take_subscriptions() {
                    self.route_out(&subscription, now.instant);
                    subscription.end();
                }
                self.leave_to_others(client, key, now, batch);
                if let Some(will) = will {
                    // No session outlives the connection, so the delay ends with it [MQTT-3.1.2-8].
                    self.publish_will(*will, key, now, batch);
                }
            }
        }
        if let Some(name) = client.name.take()
            && self.registry.leave(&name, &client.outbox)
        {
            self.publish_client_state(Registry::id(&name), false, now, batch);
            // A newer connection may have said that it is there before we said that it is not.
            if self.registry.is_online(&name) {
                self.publish_client_state(Registry::id(&name), true, now, batch);
            }
        }
    }

    fn leave_session(
        &self,
        client: &Client,
        mailbox: &Arc<Mailbox>,
        will: Option<Box<Will>>,
        now: Now,
        batch: &mut Batch,
    ) {
        let delays = will.as_ref().is_some_and(|will| !will.delay.is_zero());
        let (at_once, later) = if delays { (None, will) } else { (will, None) };
        match mailbox.detach(&client.outbox, later, now.instant) {
            // The session goes on elsewhere, within the delay [MQTT-3.1.3-9].
            Detached::Replaced { will, has_ended } => {
                if let Some(will) = will.filter(|_| has_ended) {
                    self.publish_will(*will, mailbox.key(), now, batch);
                }
            }
            Detached::Waits { deadline } => {
                self.metrics.sessions_away.add(1);
                self.deadlines.set(deadline, mailbox);
            }
            Detached::Ends { will } => {
                let has_ended = self.registry.expire(mailbox, now.instant);
                if has_ended {
                    self.clear(mailbox, now, batch);
                }
                for will in will.into_iter().chain(at_once) {
                    self.publish_will(*will, mailbox.key(), now, batch);
                }
                if has_ended {
                    self.forget_session(mailbox);
                }
                return;
            }
        }
        if let Some(will) = at_once {
            self.publish_will(*will, mailbox.key(), now, batch);
        }
        // Behind the will: a crash in between publishes it twice rather than never.
        self.remember_away(mailbox, now);
    }

    /// What a client without a session has not acknowledged goes to others of its groups.
    fn leave_to_others(&self, client: &mut Client, key: u64, now: Now, batch: &mut Batch) {
        let unfinished = client.holdings.change_if_any(std::mem::take).unwrap_or_default();
        if !client.shares {
            return;
        }
        let queued = client.outbox.take_acked();
        self.shared.entered(-isize::try_from(queued.len()).unwrap_or(isize::MAX));
        let entries = unfinished.in_flight.into_redeliverable().chain(queued);
        self.hand_on(entries, key, now, batch);
    }

    fn hand_on(&self, entries: impl Iterator<Item = Entry>, key: u64, now: Now, batch: &mut Batch) {
        for entry in entries {
            if entry.is_lent() {
                drop(entry); // it goes back to its queue
            } else if entry.is_bound {
                self.metrics.dropped(DropReason::Closed, 1);
            } else if entry.publication.is_expired(now.instant) {
                self.metrics.dropped(DropReason::Expired, 1);
            } else if entry.subscription.group().is_some() {
                self.redeliver(entry, &[key], now, batch);
            } else {
                self.metrics.dropped(DropReason::Closed, 1);
            }
        }
    }

    /// Takes apart a session that has ended.
    pub(super) fn clear(&self, mailbox: &Arc<Mailbox>, now: Now, batch: &mut Batch) {
        let remains = mailbox.clear();
        if let Some(deadline) = remains.deadline {
            self.deadlines.cancel(deadline, mailbox);
            self.metrics.sessions_away.sub(1);
        }
        for subscription in &remains.subscriptions {
            self.route_out(subscription, now.instant);
            subscription.end();
        }
        let stored = mailbox.take_stored_of(&remains.subscriptions, now);
        self.hand_on(remains.entries.into_iter().chain(stored), mailbox.key(), now, batch);
        if let Some(will) = remains.will {
            self.publish_will(*will, mailbox.key(), now, batch); // [MQTT-3.1.2-8]
        }
    }

    /// Does what has become due for clients that are away. Gives whether more is due already. The caller flushes.
    pub fn handle_deadlines(&self, now: Now, batch: &mut Batch) -> bool {
        let due = self.deadlines.take_due(now.instant, DUE_MAX);
        for mailbox in &due {
            let came = mailbox.take_due(now.instant);
            let had_will = came.will.is_some();
            if let Some(will) = came.will {
                self.publish_will(*will, mailbox.key(), now, batch);
            }
            if let Some(next) = came.next {
                self.deadlines.set(next, mailbox);
            }
            if came.is_expired && self.registry.expire(mailbox, now.instant) {
                self.metrics.sessions_expired.inc();
                self.clear(mailbox, now, batch);
                self.forget_session(mailbox);
            } else if had_will {
                self.remember_away(mailbox, now);
            }
        }
        // Nobody is there to wait for them.
        batch.slow.clear();
        due.len() == DUE_MAX
    }

    pub(super) fn publish_will(&self, will: Will, publisher: u64, now: Now, batch: &mut Batch) {
        // Retained or not, as it says [MQTT-3.1.2-14], [MQTT-3.1.2-15].
        let mut publication = will.publication;
        publication.publisher = publisher;
        publication.expires_at = will.expiry.and_then(|expiry| now.instant.checked_add(expiry));
        if let Err(refusal) = self.accept(publication, now, batch) {
            info!(%refusal, "a will was not published");
        }
    }
}

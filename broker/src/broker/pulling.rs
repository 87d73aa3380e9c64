//! Retained messages for new subscriptions, as fast as there is room for them. Those that are acknowledged go through the
//! queue on the disk of a session that the store knows: they have their places and packet identifiers like any others,
//! and are sent after their commit. So a crash repeats some of them at worst.

use std::sync::Arc;

use tidegate_protocol::publication::QoS;
use tidegate_protocol::topic::{TopicFilter, TopicLimits};

use super::storing::reference_record;
use super::{Broker, Now};
use crate::client::Client;
use crate::durability::Durability;
use crate::holdings::{Holdings, Owed, Unfinished};
use crate::mailbox::Tail;
use crate::outbox::Outbox;
use crate::store::{Change, Changes, PublicationRecord, SessionKey, Ticket};
use crate::subscription::Entry;

impl Broker {
    /// Moves retained messages into the outbox while it is below half of its mark, or to the disk behind it.
    pub(super) fn pull_retained(&self, client: &mut Client, now: Now) {
        let outbox = Arc::clone(&client.outbox);
        if let (Some(durability), Some(mailbox)) = (&self.durability, &client.mailbox) {
            mailbox.with_tail(&outbox, now.instant, |holdings, tail| {
                let pull = |unfinished: &mut Unfinished| {
                    self.pull_stored(unfinished, &outbox, durability, tail, now);
                };
                holdings.change_if_any(pull);
            });
            return;
        }
        let pull = |unfinished: &mut Unfinished| {
            while outbox.is_below_half() {
                let Some(Owed { subscription, cursor, .. }) = unfinished.cursors.first_mut() else { break };
                let names = cursor.next_batch(&self.retained, self.rules.retained_batch);
                outbox.push_retained(names.iter().filter_map(|name| {
                    let publication = self.retained.get(name, now.instant)?;
                    if !subscription.selects(&publication) {
                        return None;
                    }
                    // With RETAIN, 3.1.1 [MQTT-3.3.1-8].
                    Some(Entry::retained(publication, subscription))
                }));
                if cursor.is_done() {
                    unfinished.cursors.remove(0);
                }
            }
        };
        client.with(|holdings: &mut Holdings| holdings.change_if_any(pull));
    }

    /// As many as half of the mark at once. They come back in a page, and then this goes on.
    fn pull_stored(
        &self,
        unfinished: &mut Unfinished,
        outbox: &Arc<Outbox>,
        durability: &Arc<Durability>,
        tail: &mut Tail<'_>,
        now: Now,
    ) {
        while outbox.is_below_half() {
            let Some(owed) = unfinished.cursors.first_mut() else { return };
            match owed.submitted.map(|ticket| durability.outcome(ticket)) {
                None | Some(Some(Ok(()))) => {}
                Some(None) => return,
                // Nobody knows any more which they were: all of them again.
                Some(Some(Err(_))) => {
                    if let Some(filter) = filter_of(owed) {
                        owed.cursor = self.retained.matching_names(&filter);
                    }
                }
            }
            owed.submitted = None;
            if owed.cursor.is_done() {
                unfinished.cursors.remove(0);
                continue;
            }
            let (acked, others): (Vec<_>, Vec<_>) =
                self.next_owed(owed, now).into_iter().partition(|entry| entry.qos > QoS::AtMostOnce);
            let mut changes = enqueue(&acked, durability, tail, now);
            if owed.cursor.is_done() {
                changes.extend(self.paid(&owed.subscription));
            }
            let ticket = match changes.is_empty() {
                true => Some(Ticket::DONE),
                false => durability.writer().submit(changes).ok(),
            };
            outbox.push_retained(others.into_iter());
            if ticket.is_none() {
                // While the disk fails they go without a place, and are owed still after a crash.
                outbox.push_retained(acked.into_iter());
            } else if !acked.is_empty() {
                tail.enter(acked.iter().map(|entry| entry.size_bytes));
                owed.submitted = ticket;
                return;
            }
            if owed.cursor.is_done() {
                unfinished.cursors.remove(0);
            }
        }
    }

    fn next_owed(&self, owed: &mut Owed, now: Now) -> Vec<Entry> {
        let limits = &self.shared.limits;
        // A live message that comes behind them must not find the queue over its limit.
        let names_max = self.rules.retained_batch.min(limits.messages_max / 2).max(1);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for _ in 0..names_max {
            let Some(name) = owed.cursor.next_batch(&self.retained, 1).pop() else { break };
            let publication = self.retained.get(&name, now.instant);
            let Some(publication) = publication.filter(|value| owed.subscription.selects(value)) else {
                continue;
            };
            // With RETAIN, 3.1.1 [MQTT-3.3.1-8].
            let entry = Entry::retained(publication, &owed.subscription);
            bytes += entry.size_bytes as usize;
            entries.push(entry);
            if bytes * 2 >= limits.bytes_max {
                break;
            }
        }
        entries
    }
}

/// What the store is told of deliveries at the next places of the session.
fn enqueue(entries: &[Entry], durability: &Durability, tail: &Tail<'_>, now: Now) -> Changes {
    let places = entries.iter().zip(tail.next_seq()..);
    let changes = places.flat_map(|(entry, seq)| {
        let expires_at_ms = entry.publication.expires_at.map(|at| now.unix_ms_of(at));
        let body = durability.writer().next_body();
        let record = PublicationRecord::new(&entry.publication, expires_at_ms);
        let reference = reference_record(entry, body, expires_at_ms);
        [Change::PutBody(body, Box::new(record)), Change::Enqueue(SessionKey(tail.session()), seq, reference)]
    });
    changes.collect()
}

fn filter_of(owed: &Owed) -> Option<TopicFilter> {
    TopicFilter::parse(owed.subscription.filter(), &TopicLimits::STANDARD).ok()
}

//! What the store is told of sessions and subscriptions. Messages are for `publishing`. Without a store nothing here does
//! anything, and what ends with its connection is never stored.
//!
//! What a client waits for is submitted: its answer leaves after the commit. The rest is noted. Everything is said while
//! the session is locked, so that what is stored last is what holds.

use std::sync::Arc;
use std::time::Duration;

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Refusal, Will};
use tidegate_protocol::topic::{TopicFilter, TopicLimits};

use super::wall_clock::in_ms;
use super::{Batch, Before, Broker, Now};
use crate::client::Client;
use crate::in_flight::InFlight;
use crate::mailbox::{Known, Mailbox};
use crate::store::{
    Away, Change, PublicationRecord, SessionKey, SessionRecord, SubscriptionKey, SubscriptionRecord, Ticket,
    WillRecord,
};
use crate::subscription::{Subscription, Target};

/// MQTT 5's word for a session that does not expire (§3.1.2.11.2).
pub(super) const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

impl Broker {
    /// A client has taken up its session, and `ended` another one to begin it. Nobody is told that a session has
    /// ended before the store is.
    pub(super) fn remember_connected(
        &self,
        client: &Client,
        is_present: bool,
        ended: Option<&Arc<Mailbox>>,
        will: Option<&Will>,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let Some(durability) = &self.durability else { return Ok(()) };
        if let Some(ended) = ended {
            durability.submit(vec![Change::RemoveSession(SessionKey(ended.key()))], batch)?;
        }
        let Some(mailbox) = &client.mailbox else { return Ok(()) };
        let will = will.map(|will| will_record(will, None));
        let told = mailbox.tell(Some(&client.outbox), |known| {
            let record = SessionRecord {
                name: mailbox.name().as_ref().into(),
                expiry_ms: expiry_ms(known.expiry),
                away: None,
                will,
                lost: known.lost,
            };
            let changes = vec![Change::PutSession(SessionKey(mailbox.key()), Box::new(record))];
            if is_present && durability.admit().is_err() {
                // Whoever comes back gets in while the disk fails or is full: what it takes makes room.
                durability.note(changes);
                return Ok(());
            }
            durability.submit(changes, batch).map(drop)
        });
        // Another connection has it already, and tells.
        told.unwrap_or(Ok(()))
    }

    /// PUBREC came on an earlier connection, and the disk failed: the one that goes on sends PUBREL at once, and so is
    /// answered when the store knows. After a crash, the message would be sent again else, and be a new one [MQTT-4.3.3-6].
    pub(super) fn remember_received(&self, client: &mut Client, batch: &mut Batch) -> Result<(), Refusal> {
        let Some((durability, session)) = self.stored_session(client) else { return Ok(()) };
        let (durability, session) = (Arc::clone(durability), SessionKey(session));
        let mut remember = |in_flight: &mut InFlight| {
            let left = in_flight.unsafe_received(|after| durability.outcome(after) == Some(Ok(())));
            if left.is_empty() {
                return Ok(());
            }
            let changes = left.iter().map(|(_, seq, packet_id)| Change::Receive(session, *seq, *packet_id));
            let after = durability.submit(changes.collect(), batch)?;
            left.iter().for_each(|(tag, ..)| in_flight.note_received(*tag, after));
            Ok(())
        };
        let remembered = client.with(|holdings| {
            holdings.change_if_any(|unfinished| remember(&mut unfinished.in_flight)).unwrap_or(Ok(()))
        });
        remembered.unwrap_or(Ok(()))
    }

    /// Nobody speaks for the session any more, or its will has been published meanwhile.
    pub(super) fn remember_away(&self, mailbox: &Mailbox, now: Now) {
        let Some(durability) = &self.durability else { return };
        mailbox.tell(None, |known| {
            let record = Box::new(away_record(mailbox, &known, now));
            durability.note(vec![Change::PutSession(SessionKey(mailbox.key()), record)]);
        });
    }

    /// The session has ended, and its will has been published.
    pub(super) fn forget_session(&self, mailbox: &Mailbox) {
        if let Some(durability) = &self.durability {
            durability.note(vec![Change::RemoveSession(SessionKey(mailbox.key()))]);
        }
    }

    /// A subscription, in the place of `old`, and whether retained messages are to come for it. Said by whoever has the
    /// session's holdings.
    pub(super) fn remember_subscription(
        &self,
        subscription: &Subscription,
        filter: &TopicFilter,
        old: Option<&Subscription>,
        owes_retained: bool,
        batch: &mut Batch,
    ) -> Result<Option<Ticket>, Refusal> {
        let Some((durability, session)) = self.durability.as_ref().zip(session_of(subscription)) else {
            return Ok(None);
        };
        // At QoS 0 nothing is promised.
        let owes_retained = owes_retained && subscription.qos > QoS::AtMostOnce;
        let record = SubscriptionRecord { owes_retained, ..subscription_record(subscription, filter) };
        let old = old.and_then(key_of).filter(|old| *old != record.key);
        let mut changes = vec![Change::PutSubscription(session, Box::new(record))];
        changes.extend(old.map(|old| Change::RemoveSubscription(session, old)));
        durability.submit(changes, batch).map(Some)
    }

    /// What a subscription takes the place of.
    pub(super) fn before(
        &self,
        old: Option<&Subscription>,
        subscription: &Subscription,
        filter: &TopicFilter,
    ) -> Before {
        let Some(old) = old else { return Before::Nothing };
        let is_same = old.is_stored()
            && old.filter() == subscription.filter()
            && subscription_record(old, filter) == subscription_record(subscription, filter);
        if is_same { Before::Same } else { Before::Another }
    }

    /// All that is retained has been handed over for a subscription. `None` where that was never promised.
    pub(super) fn paid(&self, subscription: &Subscription) -> Option<Change> {
        let filter = TopicFilter::parse(subscription.filter(), &TopicLimits::STANDARD).ok()?;
        let session = session_of(subscription).filter(|_| subscription.qos > QoS::AtMostOnce)?;
        Some(Change::PutSubscription(session, Box::new(subscription_record(subscription, &filter))))
    }

    /// Unsubscribed. Said by whoever has the session's holdings.
    pub(super) fn forget_subscription(&self, subscription: &Subscription, batch: &mut Batch) {
        let stored = self.durability.as_ref().zip(session_of(subscription)).zip(key_of(subscription));
        if let Some(((durability, session), key)) = stored {
            // Refused only while the broker stops, and then nobody is answered any more.
            let _ = durability.submit(vec![Change::RemoveSubscription(session, key)], batch);
        }
    }
}

fn session_of(subscription: &Subscription) -> Option<SessionKey> {
    match &subscription.target {
        Target::Mailbox(mailbox) => Some(SessionKey(mailbox.key())),
        Target::Outbox(_) | Target::Group(_) | Target::Queue(_) => None,
    }
}

fn away_record(mailbox: &Mailbox, known: &Known<'_>, now: Now) -> SessionRecord {
    let expires_at_ms = match known.expires_at {
        Some(at) if known.expiry < NEVER => now.unix_ms_of(at),
        Some(_) | None => SessionRecord::NEVER,
    };
    SessionRecord {
        name: mailbox.name().as_ref().into(),
        expiry_ms: expiry_ms(known.expiry),
        away: Some(Away { expires_at_ms }),
        will: known.will.map(|(at, will)| will_record(will, Some(now.unix_ms_of(*at)))),
        lost: known.lost,
    }
}

fn expiry_ms(expiry: Duration) -> u64 {
    if expiry < NEVER { in_ms(expiry) } else { SessionRecord::NEVER }
}

fn will_record(will: &Will, due_at_ms: Option<u64>) -> Box<WillRecord> {
    Box::new(WillRecord {
        due_at_ms,
        publication: PublicationRecord::new(&will.publication, None),
        delay_ms: in_ms(will.delay),
        expiry_ms: will.expiry.map(in_ms),
    })
}

fn subscription_record(subscription: &Subscription, filter: &TopicFilter) -> SubscriptionRecord {
    SubscriptionRecord {
        key: SubscriptionKey {
            filter: filter.clone(),
            group: subscription.group().cloned(),
            id: subscription.id,
        },
        qos: subscription.qos,
        no_local: subscription.no_local(),
        retain_as_published: subscription.retain_as_published(),
        identifier: subscription.identifier(),
        overflow: subscription.policy(QoS::AtMostOnce),
        overflow_acked: subscription.policy(QoS::AtLeastOnce),
        conflate_ms: subscription.conflate().map(in_ms),
        copies: subscription.copies,
        owes_retained: false,
        selector: subscription.selector().map(|selector| selector.as_str().into()),
    }
}

/// `None` for what is no filter, which no subscription has.
fn key_of(subscription: &Subscription) -> Option<SubscriptionKey> {
    let filter = TopicFilter::parse(subscription.filter(), &TopicLimits::STANDARD).ok()?;
    Some(SubscriptionKey { filter, group: subscription.group().cloned(), id: subscription.id })
}

//! What the store gives back after a restart: into the tables before the first client is there. Time went on meanwhile,
//! so whatever is over by now ends here, with its will.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidegate_protocol::publication::Publication;
use tidegate_protocol::session::{Refusal, Will};

use super::queueing::{consumed, is_temporary};
use super::remembering::NEVER;
use super::{Batch, Broker, FIRST_MAILBOX, Now};
use crate::durability::Durability;
use crate::mailbox::{Mailbox, Restored};
use crate::store::{
    Change, PublicationRecord, Recovered, RecoveredSession, Recovery, SessionRecord, SubscriptionRecord,
    WillRecord,
};
use crate::subscription::{Subscription, Target, Terms};
use crate::work_queue::QueueName;

impl Broker {
    /// Takes over one thing that was stored. Nothing without a store.
    ///
    /// # Errors
    ///
    /// A retained message that the limits of this run leave out. It stays on the disk.
    pub fn restore(&self, recovered: Recovered, now: Now) -> Result<(), Refusal> {
        match (recovered, &self.durability) {
            (_, None) => Ok(()),
            (Recovered::Session(session), Some(durability)) => {
                match QueueName::of_record(&session.record.name) {
                    Some(name) => self.restore_queue(&name, *session, durability, now),
                    None => self.restore_session(*session, durability, now),
                }
                Ok(())
            }
            (Recovered::Retained(record), Some(durability)) => {
                self.restore_retained(*record, durability, now)
            }
        }
    }

    /// Everything is restored: ends what was over before this start, publishes the wills that were due, and goes on
    /// counting behind what was there.
    pub fn finish_restoring(&self, recovery: &Recovery, now: Now) {
        self.next_mailbox.fetch_max(recovery.next_session, Ordering::Relaxed);
        // Nobody is connected, so nothing has to be flushed.
        while self.handle_deadlines(now, &mut Batch::default()) {}
    }

    fn restore_session(&self, session: RecoveredSession, durability: &Arc<Durability>, now: Now) {
        let RecoveredSession { key, record, subscriptions, received, queue } = session;
        self.next_mailbox.fetch_max(key.0.saturating_add(1), Ordering::Relaxed);
        let expiry = match record.expiry_ms {
            SessionRecord::NEVER => NEVER,
            expiry_ms => Duration::from_millis(expiry_ms),
        };
        let never = now.instant.checked_add(NEVER);
        let expires_at = match record.away {
            Some(away) => now.instant_of(away.expires_at_ms.min(now.unix_ms_of(far(now)))),
            // It was connected at the crash.
            None => now.instant.checked_add(expiry),
        };
        let expires_at = expires_at.or(never).unwrap_or(now.instant);
        let was_connected = record.away.is_none();
        let will = record.will.map(|will| restored_will(*will, expires_at, now));
        let deadline = will.iter().map(|(at, _)| *at).chain([expires_at]).min().unwrap_or(expires_at);
        let mailbox = Mailbox::restored(
            key.0,
            record.name.into(),
            self.rules.overflow_offline,
            Arc::clone(&self.shared),
            Arc::clone(durability),
            Restored { expiry, expires_at: Some(expires_at), will, lost: record.lost, received, queue },
        );
        let (over, subscriptions): (Vec<_>, Vec<_>) =
            subscriptions.into_iter().partition(|record| is_temporary(record.key.filter.as_str()));
        if !over.is_empty() {
            let forget = |record: SubscriptionRecord| Change::RemoveSubscription(key, record.key);
            durability.note(over.into_iter().map(forget).collect());
        }
        let restored = |record: SubscriptionRecord| {
            // What is retained comes behind the sessions, and the cursor finds it then.
            let cursor = record.owes_retained.then(|| self.retained.matching_names(&record.key.filter));
            (self.restored_subscription(&mailbox, record), cursor)
        };
        let subscriptions: Vec<_> = subscriptions.into_iter().map(restored).collect();
        for (subscription, _) in &subscriptions {
            self.route_in(subscription);
        }
        mailbox.enter_restored(subscriptions);
        if let Some(older) = self.registry.restore(&mailbox) {
            // It had ended, and the crash came before the store knew.
            self.clear(&older, now, &mut Batch::default());
            self.forget_session(&older);
        }
        self.deadlines.set(deadline, &mailbox);
        self.metrics.sessions_away.add(1);
        if was_connected {
            // Its time has begun, and a broker that crashes again and again must not begin it each time.
            self.remember_away(&mailbox, now);
        }
    }

    fn restored_subscription(&self, mailbox: &Arc<Mailbox>, record: SubscriptionRecord) -> Subscription {
        let terms = Terms {
            qos: record.qos.min(self.rules.qos_max),
            // Those of the version that the client will speak; until it subscribes again, each delivery is encoded.
            forms: None,
            head: None,
            no_local: record.no_local,
            retain_as_published: record.retain_as_published,
            overflow: record.overflow,
            overflow_acked: record.overflow_acked,
            conflate: record.conflate_ms.map(Duration::from_millis),
            copies: record.copies,
            identifier: record.identifier,
            selector: None,
            queue: consumed(record.key.group.as_ref(), &record.key.filter).filter(|_| self.has_queues()),
            group: record.key.group,
        };
        let target = Target::Mailbox(Arc::clone(mailbox));
        let subscription = Subscription::new(target, record.key.id, &record.key.filter, terms);
        subscription.note_stored();
        subscription
    }

    fn restore_retained(
        &self,
        record: PublicationRecord,
        durability: &Durability,
        now: Now,
    ) -> Result<(), Refusal> {
        if record.expires_at_ms.is_some_and(|at_ms| at_ms <= now.unix_ms) {
            durability.note(vec![Change::RemoveRetained(record.topic)]);
            return Ok(());
        }
        if !self.rules.retain {
            return Err(RETAIN_IS_OFF);
        }
        self.retained.set(&restored_publication(record, now))
    }
}

const RETAIN_IS_OFF: Refusal = Refusal::Unsupported("retained messages are switched off (mqtt.retain)");

/// A publication that was stored; its expiry on the clock of this run.
pub(crate) fn restored_publication(record: PublicationRecord, now: Now) -> Publication {
    let expires_ms = record.expires_at_ms;
    let mut publication = record.into_publication();
    publication.expires_ms = expires_ms;
    publication.expires_at = expires_ms.and_then(|at_ms| now.instant_of(at_ms));
    if publication.publisher < FIRST_MAILBOX {
        // A connection of another run, whose number somebody else has.
        publication.publisher = 0;
    }
    publication
}

/// The will of somebody who was connected at the crash has its delay before it, but never outlives the session.
fn restored_will(record: WillRecord, expires_at: Instant, now: Now) -> (Instant, Box<Will>) {
    let delay = Duration::from_millis(record.delay_ms);
    let due_at = match record.due_at_ms {
        Some(due_at_ms) => now.instant_of(due_at_ms),
        None => now.instant.checked_add(delay),
    };
    let will = Will {
        publication: restored_publication(record.publication, now),
        delay,
        expiry: record.expiry_ms.map(Duration::from_millis),
    };
    (due_at.unwrap_or(expires_at).min(expires_at), Box::new(will))
}

/// As late as a session can end.
fn far(now: Now) -> Instant {
    now.instant.checked_add(NEVER).unwrap_or(now.instant)
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::topic::{Topic, TopicLimits};

    use super::*;

    #[test]
    fn what_expires_does_so_at_the_same_time_of_day() {
        let instant = tokio::time::Instant::now().into_std();
        let now = Now { instant, unix_ms: 1_000_000 };
        let topic = Topic::parse("a", &TopicLimits::STANDARD).unwrap();
        let publication = Publication::new(topic, "x".into());
        for (expires_ms, expires_at) in
            [(Some(1_000_250), instant.checked_add(Duration::from_millis(250))), (None, None)]
        {
            let restored = restored_publication(PublicationRecord::new(&publication, expires_ms), now);
            assert_eq!((restored.expires_ms, restored.expires_at), (expires_ms, expires_at));
        }
    }
}

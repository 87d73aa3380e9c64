//! Subscriptions: into the tables and out of them, and the retained messages that a new one is owed.

use std::sync::Arc;
use std::time::Instant;

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    Copies, Granted, Overflow, Refusal, RetainHandling, Subscribe, SubscriptionId, SubscriptionName,
};

use super::queueing::Joining;
use super::{Batch, Before, Broker, Entered, Now};
use crate::client::Client;
use crate::holdings::Holdings;
use crate::subscription::{Entry, Subscription, Target, Terms};

impl Broker {
    pub(super) fn subscribe(
        &self,
        client: &mut Client,
        subscribe: Subscribe,
        index: usize,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Granted, Refusal> {
        let name = name_of(&subscribe);
        let target = client.target();
        let limit = usize::try_from(client.subscriptions_max).unwrap_or(usize::MAX);
        let qos = subscribe.qos.min(self.rules.qos_max);
        self.temporaries.check(client, &subscribe.filter)?;
        let queue = self.queue_for(client, &subscribe, batch)?;
        // A queue's messages are settled once.
        let qos = if queue.is_some() { qos.min(QoS::AtLeastOnce) } else { qos };
        let (filter, retained, prefetch) = (subscribe.filter.clone(), subscribe.retained, subscribe.prefetch);
        if subscribe.group.is_some() || queue.is_some() {
            // What it has not acknowledged at its end goes to others of the group.
            client.shares = true;
            client.outbox.keep_acked();
        }
        let entered = client.with(|holdings| {
            let old = holdings.find(&name).cloned();
            if old.is_none() && holdings.subscriptions().len() >= limit {
                return Err(Refusal::Quota { name: "mqtt.max_subscriptions", limit });
            }
            let id = id_for(&subscribe, old.as_ref(), holdings);
            let subscription = self.subscription(target, id, qos, subscribe, queue.as_ref());
            // [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]
            let is_wanted = subscription.group().is_none()
                && queue.as_ref().is_none_or(|joined| joined.is_new)
                && match retained {
                    RetainHandling::Send => true,
                    // What it was owed as a new one it is owed still.
                    RetainHandling::SendIfNew => old.as_ref().is_none_or(|old| holdings.owes_retained(old)),
                    RetainHandling::Skip => false,
                };
            let before = self.before(old.as_ref(), &subscription, &filter);
            let is_owed = is_wanted || old.as_ref().is_some_and(|old| holdings.owes_retained(old));
            if before == Before::Same {
                subscription.note_stored();
            }
            if before != Before::Same || is_owed {
                match self.remember_subscription(&subscription, &filter, old.as_ref(), is_wanted, batch) {
                    Ok(Some(ticket)) => {
                        let subscription = subscription.clone();
                        batch.entered.push(Entered { index, ticket, subscription, before });
                    }
                    Ok(None) => {}
                    // The store needs no room for what it has.
                    Err(_) if before == Before::Same => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            // [MQTT-3.8.4-4]
            // The table first, then the retained ones: a message published in between comes twice rather than never.
            self.route_in(&subscription);
            if let Some(old) = &old {
                holdings.remove(old);
                holdings.forget_retained(old);
            }
            holdings.insert(subscription.clone());
            if is_wanted {
                holdings.owe_retained(subscription.clone(), self.retained.matching_names(&filter));
            }
            Ok((old, subscription))
        });
        let (old, subscription) = entered.unwrap_or(Err(Refusal::NotAuthorized))?;
        // The same name under another filter. It goes only when the new one is in, so that nothing is lost in between
        // [MQTT-3.8.4-3].
        if let Some(old) = old.filter(|old| old.filter() != subscription.filter()) {
            self.take_out(client, &old, now, batch);
        }
        if let Some(Joining { queue, .. }) = queue {
            let joined = self.join_queue(client, &queue, &subscription, prefetch, now);
            if let Err(refusal) = joined {
                // What is refused is not held either.
                self.remove_subscription(client, now, batch, |holdings| {
                    holdings.subscriptions().iter().find(|known| known.is_same(&subscription)).cloned()
                });
                return Err(refusal);
            }
        }
        Ok(Granted { qos })
    }

    fn subscription(
        &self,
        target: Target,
        id: SubscriptionId,
        qos: QoS,
        subscribe: Subscribe,
        queue: Option<&Joining>,
    ) -> Subscription {
        // What does not fit stays in the queue.
        let (overflow, overflow_acked) = match queue {
            Some(_) => (Overflow::DropNewest, Overflow::DropNewest),
            None => (subscribe.overflow.unwrap_or(self.rules.overflow_qos0), self.rules.overflow_qos1),
        };
        let terms = Terms {
            qos,
            forms: subscribe.forms,
            head: subscribe.head,
            no_local: subscribe.no_local,
            retain_as_published: subscribe.retain_as_published,
            overflow,
            overflow_acked,
            conflate: subscribe.conflate.filter(|_| queue.is_none()),
            copies: subscribe.copies,
            identifier: subscribe.identifier,
            group: subscribe.group,
            selector: subscribe.selector,
            queue: queue.map(|joining| joining.queue.name().clone()),
        };
        Subscription::new(target, id, &subscribe.filter, terms)
    }

    /// Enters a subscription in the place of an older one of the same client, filter and id.
    pub(super) fn route_in(&self, subscription: &Subscription) {
        if subscription.queue().is_some() {
            return; // the queue has its own entry, and a connection joins it
        }
        let Some((group, filter)) = subscription.share() else {
            self.router.subscribe(subscription.clone());
            return;
        };
        self.groups.join(group, filter, subscription.clone(), |group| {
            // It stands for all members: each message goes through it once.
            let id = SubscriptionId(0);
            let terms = Terms { qos: QoS::ExactlyOnce, copies: Copies::PerSubscription, ..Terms::default() };
            let target = Target::Group(Arc::clone(group));
            self.router.subscribe(Subscription::new(target, id, filter, terms));
        });
    }

    /// Takes a subscription out of the tables.
    pub(super) fn route_out(&self, subscription: &Subscription, now: Instant) {
        let client = subscription.target.client();
        if let Some(name) = subscription.queue() {
            return self.leave_queue(name, client, subscription.id, now);
        }
        match subscription.share() {
            None => {
                self.router.unsubscribe(subscription.filter(), client, subscription.id);
            }
            Some((name, filter)) => {
                self.groups.leave(name, filter, client, subscription.id, |group| {
                    self.router.unsubscribe(filter.as_str(), group.key(), SubscriptionId(0));
                });
            }
        }
    }

    pub(super) fn unsubscribe(
        &self,
        client: &mut Client,
        name: &SubscriptionName,
        now: Now,
        batch: &mut Batch,
    ) -> bool {
        if let SubscriptionName::Durable(name) = name {
            return self.forget_durable(client, name, now, batch);
        }
        self.remove_subscription(client, now, batch, |holdings| holdings.find(name).cloned())
    }

    pub(super) fn remove_subscription(
        &self,
        client: &mut Client,
        now: Now,
        batch: &mut Batch,
        find: impl FnOnce(&Holdings) -> Option<Subscription>,
    ) -> bool {
        let is_stored = self.durability.is_some() && client.mailbox.is_some();
        let removed = client.with(|holdings| {
            let found = find(holdings)?;
            holdings.remove(&found);
            holdings.forget_retained(&found);
            if is_stored && found.group().is_some() {
                holdings.change(|unfinished| unfinished.ending.push(found.clone()));
            }
            self.forget_subscription(&found, batch);
            Some(found)
        });
        let Some(subscription) = removed.flatten() else { return false };
        self.take_out(client, &subscription, now, batch);
        true
    }

    /// Out of the tables; what waits for it and was not sent goes to others of its group.
    /// [MQTT-3.10.4-2]; what was sent is completed, since the exchanges under way are not touched [MQTT-3.10.4-3].
    fn take_out(&self, client: &Client, subscription: &Subscription, now: Now, batch: &mut Batch) {
        self.route_out(subscription, now.instant);
        // Before it ends, since what is queued for a dead one may be skipped by any flush; and after it, for a publisher
        // that had chosen it already.
        let mut waiting = take_waiting(client, subscription, now.instant);
        subscription.end();
        waiting.extend(take_waiting(client, subscription, now.instant));
        if let Some(mailbox) = &client.mailbox {
            waiting.extend(mailbox.take_stored_of(std::slice::from_ref(subscription), now));
        }
        for entry in waiting.into_iter().filter(|entry| !entry.is_lent()) {
            self.redeliver(entry, &[client.key()], now, batch);
        }
    }

    /// Moves messages into the outbox while it is below half of its mark: first what waits for the session, then
    /// what is retained for new subscriptions.
    pub fn pull(&self, client: &mut Client, now: Now) {
        if let Some(mailbox) = &client.mailbox
            && mailbox.has_backlog()
        {
            mailbox.feed(&client.outbox, now.instant);
            if mailbox.has_backlog() {
                return; // a retained value must not overtake an older one that waits
            }
        }
        self.pull_retained(client, now);
    }
}

/// What a member of a group has not sent.
fn take_waiting(client: &Client, subscription: &Subscription, now: Instant) -> Vec<Entry> {
    match (subscription.group(), &client.mailbox) {
        (None, _) => Vec::new(),
        (Some(_), Some(mailbox)) => mailbox.take_unsent_of(subscription, now),
        (Some(_), None) => client.outbox.take_acked_of(subscription),
    }
}

fn name_of(subscribe: &Subscribe) -> SubscriptionName {
    match subscribe.id {
        Some(id) => SubscriptionName::Id(id),
        None => SubscriptionName::Filter { group: subscribe.group.clone(), filter: subscribe.filter.clone() },
    }
}

fn id_for(subscribe: &Subscribe, old: Option<&Subscription>, holdings: &mut Holdings) -> SubscriptionId {
    subscribe.id.or_else(|| old.map(|old| old.id)).unwrap_or_else(|| holdings.new_id())
}

//! A session with a store: places in its queue, what is on the disk alone, and how that comes back.
//!
//! A publication takes two steps: [`Mailbox::reserve`] gives each delivery its place, the store is told of all of them at
//! once, and [`Mailbox::bring`] queues them. While the client is away memory keeps nothing but what it was sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{CloseKind, CloseReason, DropReason, Overflow, SubscriptionId, Will};
use tidegate_protocol::topic::{TopicFilter, TopicLimits};
use tracing::error;

use super::{Brought, Mailbox, State};
use crate::broker::{Now, restored_publication};
use crate::durability::{Durability, PageTaker, Place, Stored};
use crate::outbox::queue::{Limits, Pushed, Signals};
use crate::outbox::room::Amount;
use crate::outbox::{Outbox, Shared};
use crate::remainder::Remainder;
use crate::retained::Cursor;
use crate::store::{Page, QueueSummary, QueuedMessage, StoreError, Ticket};
use crate::subscription::{Entry, Subscription, Target, Terms};

/// A session as it was before a restart.
#[derive(Debug, Default)]
pub struct Restored {
    /// How long it is kept after a connection.
    pub expiry: Duration,
    /// When it ends.
    pub expires_at: Option<Instant>,
    /// What is to be published for it, and when.
    pub will: Option<(Instant, Box<Will>)>,
    /// Messages dropped while the client was away.
    pub lost: u64,
    /// QoS 2 publishes before their PUBREL.
    pub received: Vec<u16>,
    /// What waits on the disk.
    pub queue: QueueSummary,
}

/// Places begin here, so that the packet identifiers that follow from them stay clear of the first ones.
pub(crate) const FIRST_SEQ: u64 = 1024;

/// Below this many messages in memory the next page is asked for.
const PAGE_BELOW: usize = 128;

impl Mailbox {
    /// A session that the store remembers. Its client is away.
    pub fn restored(
        key: u64,
        name: Arc<str>,
        overflow: Overflow,
        shared: Arc<Shared>,
        durability: Arc<Durability>,
        restored: Restored,
    ) -> Arc<Self> {
        let mut state = State {
            expiry: restored.expiry,
            expires_at: restored.expires_at,
            will: restored.will,
            lost: restored.lost,
            next_seq: durability.next_seq(&restored.queue),
            known_until: restored.queue.next_seq,
            ..State::default()
        };
        state.holdings.restore_ids(SubscriptionId(restored.queue.subscription_max));
        let known = restored.queue.received.len() as u64;
        if restored.queue.count > known {
            let QueueSummary { first_seq, count, bytes, .. } = restored.queue;
            state.remainder = Some(Box::new(Remainder::found(first_seq, count - known, bytes)));
        }
        for (seq, packet_id) in restored.queue.received {
            let tag = state.holdings.next_tags(1);
            let stored = Stored::new(&durability, key, seq, true);
            state.holdings.change(|unfinished| unfinished.in_flight.restore_received(tag, packet_id, stored));
        }
        state.holdings.change(|unfinished| unfinished.received = restored.received.into_iter().collect());
        let mailbox = Self::with_state(key, name, overflow, shared, Some(durability), state);
        mailbox.note(&mailbox.state.lock());
        mailbox
    }

    /// Its subscriptions, which refer to it, and the retained messages that they are still owed.
    pub fn enter_restored(&self, subscriptions: Vec<(Subscription, Option<Cursor>)>) {
        let mut state = self.state.lock();
        for (subscription, cursor) in subscriptions {
            if let Some(cursor) = cursor {
                state.holdings.owe_retained(subscription.clone(), cursor);
            }
            state.holdings.restore(subscription);
        }
    }

    // ---- for publishers ----

    /// Takes a place in the queue for a delivery of this size.
    ///
    /// # Errors
    ///
    /// Nothing was taken: the session has ended, or its policy drops the newest.
    pub(crate) fn reserve(&self, size_bytes: u32) -> Result<(u64, Place), Pushed> {
        let mut state = self.state.lock();
        if state.has_ended {
            return Err(Pushed::Closed);
        }
        state.forget_evicted(self.durability.as_deref());
        let is_away = state.outbox.is_none();
        let is_stored = state.remainder.is_some() || (is_away && state.arriving == 0);
        if is_stored {
            self.make_room(&mut state, size_bytes)?;
        }
        let seq = state.next_seq;
        state.next_seq += 1;
        if is_stored {
            state.remainder.get_or_insert_with(|| Box::new(Remainder::new(seq))).enter(seq, size_bytes);
            self.note(&state);
            return Ok((seq, Place::Disk));
        }
        state.arriving += 1;
        Ok((seq, Place::Memory))
    }

    /// Queues a delivery at the place that it has: the store knows of it.
    pub(crate) fn bring(&self, entry: Entry, place: Place, now: Instant) -> Brought {
        let mut state = self.state.lock();
        if place == Place::Disk {
            if state.has_ended || entry.subscription.is_group_over() {
                if let (Some(remainder), Some(stored)) = (&mut state.remainder, &entry.stored) {
                    remainder.give_up(stored.seq().unwrap_or_default(), entry.size_bytes);
                }
                self.note(&state);
                return Brought::away(Pushed::Closed);
            }
            keep(&entry);
            if let (Some(remainder), Some(stored)) = (&mut state.remainder, &entry.stored) {
                remainder.arrived(stored.seq().unwrap_or_default());
            }
            self.note(&state);
            let Some(outbox) = state.outbox.clone() else { return Brought::away(Pushed::Stored) };
            let is_slow = outbox.note_behind(state.waiting(), now);
            return Brought { pushed: Pushed::Stored, outbox: Some(outbox), must_flush: false, is_slow };
        }
        state.arriving = state.arriving.saturating_sub(1);
        let brought = self.push_to(&mut state, entry, false, now);
        self.evict(&mut state);
        brought
    }

    /// The outbox of the client, if whoever has taken a place for it and brings it later should wait for room.
    pub(crate) fn slow_receiver(&self, now: Instant) -> Option<Arc<Outbox>> {
        let state = self.state.lock();
        let outbox = state.outbox.as_ref()?;
        outbox.note_behind(state.waiting(), now).then(|| Arc::clone(outbox))
    }

    /// The store did not take it: there is no such delivery.
    pub(crate) fn give_up(&self, entry: &Entry, place: Place) {
        keep(entry);
        let mut state = self.state.lock();
        match place {
            Place::Unstored => {}
            Place::Memory => {
                state.arriving = state.arriving.saturating_sub(1);
                self.evict(&mut state);
            }
            Place::Disk => {
                if let (Some(remainder), Some(stored)) = (&mut state.remainder, &entry.stored) {
                    remainder.give_up(stored.seq().unwrap_or_default(), entry.size_bytes);
                }
                self.note(&state);
                // It may have waited for this place.
                if let Some(outbox) = &state.outbox {
                    outbox.signal(Signals::SESSION);
                }
            }
        }
    }

    /// A QoS 2 publish under this identifier is being stored.
    pub(crate) fn note_receiving(&self, packet_id: u16, ticket: Ticket) {
        let mut state = self.state.lock();
        let Some(durability) = &self.durability else { return };
        state.holdings.change_if_any(|unfinished| {
            let is_done = |(_, ticket): &(u16, Ticket)| durability.outcome(*ticket).is_some();
            while unfinished.receiving.pop_front_if(|first| is_done(first)).is_some() {}
            unfinished.receiving.push_back((packet_id, ticket));
        });
    }

    /// A QoS 2 publish under this identifier was not stored after all.
    pub(crate) fn forget_received(&self, packet_id: u16) {
        let mut state = self.state.lock();
        state.holdings.change_if_any(|unfinished| unfinished.received.remove(packet_id));
    }

    /// Drops the oldest, or refuses the newest, until so much more fits on the disk.
    fn make_room(&self, state: &mut State, size_bytes: u32) -> Result<(), Pushed> {
        let Limits { messages_max, bytes_max, .. } = self.shared.limits;
        let mut dropped = 0;
        let next_seq = state.next_seq;
        while let Some(remainder) = &mut state.remainder {
            let queued = state.outbox.as_ref().map(|outbox| outbox.queued());
            // As for what waits in memory behind a connected client: twice the mark in all.
            let times = if queued.is_some() { 2 } else { 1 };
            let (messages, bytes) = queued.unwrap_or_default();
            let held = remainder.amount() + state.backlog.amount() + Amount { messages, bytes };
            let fits = held.messages < messages_max.saturating_mul(times)
                && held.bytes.saturating_add(size_bytes as usize) <= bytes_max.saturating_mul(times);
            if fits {
                break;
            }
            if self.overflow == Overflow::DropNewest {
                state.lose_some(1);
                return Err(Pushed::Dropped(DropReason::Newest));
            }
            if state.backlog.pop_front_if(|_| true).is_some() {
                self.left(1);
            } else if let (Some(seq), Some(durability)) = (remainder.drop_oldest(next_seq), &self.durability)
            {
                durability.dequeue(self.key, seq);
            } else {
                break; // an empty queue takes any one message
            }
            dropped += 1;
        }
        if dropped > 0 {
            state.lose_some(dropped);
            self.shared.metrics.dropped(DropReason::Oldest, dropped);
        }
        Ok(())
    }

    // ---- between memory and disk ----

    /// Lets go of what waits in memory for a client that is away and is on the disk too. What stands before a delivery
    /// that the client may have, or that is on its way here, stays.
    pub(super) fn evict(&self, state: &mut State) {
        let is_due = self.durability.is_some() && state.outbox.is_none() && state.arriving == 0;
        if !is_due || state.has_ended || state.backlog.is_empty() {
            return;
        }
        let in_flight = state.holdings.unfinished().and_then(|unfinished| unfinished.in_flight.last_seq());
        let goes = |entry: &Entry| {
            let seq = entry.stored.as_ref().and_then(|stored| stored.seq());
            seq.is_some_and(|seq| in_flight.is_none_or(|last| seq > last))
        };
        let evicted = state.backlog.take_where(goes);
        self.left(evicted.len());
        let mut amount = Amount::default();
        let mut first_seq = u64::MAX;
        for entry in &evicted {
            amount = amount + Amount { messages: 1, bytes: entry.size_bytes as usize };
            first_seq = entry
                .stored
                .as_ref()
                .and_then(|stored| stored.seq())
                .map_or(first_seq, |seq| first_seq.min(seq));
            keep(entry);
        }
        state.note_evicted(&evicted, self.durability.as_deref());
        if !evicted.is_empty() {
            let remainder = state.remainder.get_or_insert_with(|| Box::new(Remainder::new(first_seq)));
            remainder.put_before(first_seq, amount);
        }
        self.note(state);
    }

    /// Asks for the next page when memory runs low.
    pub(super) fn ask(self: &Arc<Self>, state: &mut State) {
        let (Some(durability), Some(remainder)) = (&self.durability, &mut state.remainder) else { return };
        if state.backlog.len() < PAGE_BELOW
            && let Some(from_seq) = remainder.ask(state.next_seq)
        {
            let taker: Arc<dyn PageTaker> = Arc::clone(self) as _;
            durability.load(Arc::downgrade(&taker), self.key, from_seq);
        }
    }
}

impl PageTaker for Mailbox {
    fn take_page(self: Arc<Self>, page: Result<Page, StoreError>, now: Now) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(remainder) = &mut state.remainder else { return };
        let Some(outbox) = state.outbox.clone().filter(|_| !state.has_ended) else {
            return remainder.refuse();
        };
        match page {
            Ok(mut page) => {
                if let Some(wanted) = remainder.answer() {
                    let mut taken = Amount::default();
                    for message in std::mem::take(&mut page.messages) {
                        if wanted.has(message.seq) && message.reference.received.is_none() {
                            taken =
                                taken + Amount { messages: 1, bytes: message.reference.size_bytes as usize };
                            self.take_message(state, message, now);
                        }
                    }
                    let next_seq = state.next_seq;
                    let is_over = state
                        .remainder
                        .as_mut()
                        .is_some_and(|remainder| remainder.take(wanted, &page, taken, next_seq));
                    if is_over {
                        state.remainder = None;
                    }
                }
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                remainder.refuse();
                error!(client = %self.name, %error, "messages that wait for a client cannot be read");
                // Honest, and it tries again when it comes back.
                outbox.order_close(CloseReason::new(CloseKind::Internal, "stored messages cannot be read"));
            }
        }
        outbox.set_behind(state.waiting(), now.instant);
        self.note(state);
        outbox.signal(Signals::SESSION);
    }
}

impl Mailbox {
    fn take_message(self: &Arc<Self>, state: &mut State, message: QueuedMessage, now: Now) {
        let known_until = state.known_until;
        let id = message.reference.subscription;
        if state.holdings.by_id(id).is_none()
            && let Some(ended) = state.ending(id)
        {
            // Whoever ends it hands it on.
            let entry = self.entry(message, Some(&ended), known_until, now);
            state.leaving.get_or_insert_default().found.extend(entry);
            return;
        }
        // [MQTT-3.10.4-3]: what an earlier run may have begun to deliver at QoS 2 is completed, unsubscribed or not.
        let may_have_begun = message.seq < known_until && message.reference.qos == QoS::ExactlyOnce;
        let subscription = state
            .holdings
            .by_id(message.reference.subscription)
            .cloned()
            .or_else(|| may_have_begun.then(|| self.stand_in(&message)).flatten());
        if let Some(entry) = self.entry(message, subscription.as_ref(), known_until, now) {
            state.backlog.push_back(entry);
            self.shared.entered(1);
        }
    }

    /// In the place of a subscription that is gone.
    fn stand_in(self: &Arc<Self>, message: &QueuedMessage) -> Option<Subscription> {
        let topic = message.publication.as_ref()?.topic.as_str();
        let filter = TopicFilter::parse(topic, &TopicLimits::STANDARD).ok()?;
        let terms = Terms { qos: message.reference.qos, ..Terms::default() };
        let target = Target::Mailbox(Arc::clone(self));
        Some(Subscription::new(target, message.reference.subscription, &filter, terms))
    }

    /// The delivery again. `None`, and its place is free: there is no such subscription, or it has expired.
    pub(super) fn entry(
        &self,
        message: QueuedMessage,
        subscription: Option<&Subscription>,
        known_until: u64,
        now: Now,
    ) -> Option<Entry> {
        // Whatever becomes of it, its place is freed when it is let go.
        let stored = Stored::new(self.durability.as_ref()?, self.key, message.seq, message.seq < known_until);
        let QueuedMessage { reference, publication, .. } = message;
        let mut publication = restored_publication(publication?, now);
        let subscription = subscription?.clone();
        if publication.is_expired(now.instant) {
            self.shared.metrics.dropped(DropReason::Expired, 1);
            return None;
        }
        publication.charge_to(&self.shared.publication_bytes);
        let publication: Arc<Publication> = Arc::new(publication);
        Some(Entry {
            publication,
            subscription,
            also: (!reference.also.is_empty()).then(|| Box::new(reference.also.as_slice().into())),
            form: None,
            size_bytes: reference.size_bytes,
            qos: reference.qos,
            retain: reference.retain,
            is_retained: reference.is_retained,
            is_bound: false,
            stored: Some(stored),
        })
    }
}

/// The disk keeps it when memory lets go.
fn keep(entry: &Entry) {
    if let Some(stored) = &entry.stored {
        stored.keep();
    }
}

//! What a client has at the broker beside its queue: subscriptions, retained messages that are still to come, and
//! the identifiers of exchanges under way. Plain data; a connection owns it, or a mailbox when it is to outlive the
//! connection.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_protocol::session::{PacketIds, SubscriptionId, SubscriptionName, Tag};

use crate::durability::Stored;
use crate::in_flight::InFlight;
use crate::retained::Cursor;
use crate::store::Ticket;
use crate::subscription::{Entry, Subscription};

/// One client's belongings.
#[derive(Debug, Default)]
pub struct Holdings {
    /// Sorted by filter, group, id.
    subscriptions: Vec<Subscription>,
    /// Absent at a client that waits for nothing: most of them, most of the time.
    unfinished: Option<Box<Unfinished>>,
    next_tag: u64,
    next_id: u32,
}

/// What is under way for a client.
#[derive(Debug, Default)]
pub struct Unfinished {
    /// Retained messages that are still to be sent, one cursor per new subscription.
    pub cursors: Vec<Owed>,
    /// Packet ids of QoS 2 publishes before their PUBREL.
    pub received: PacketIds,
    /// Of those that are being committed, in order: when the ticket is done, the publish is stored or forgotten.
    pub receiving: VecDeque<(u16, Ticket)>,
    /// Deliveries that the session has not settled, as far as the broker has to know them.
    pub in_flight: InFlight,
    /// Members of groups that have ended, while what waits for them is looked for.
    pub ending: Vec<Subscription>,
}

/// The retained messages that a new subscription is owed.
#[derive(Debug)]
pub struct Owed {
    /// Which.
    pub subscription: Subscription,
    /// Those that are left.
    pub cursor: Cursor,
    /// The last that were handed to the store.
    pub submitted: Option<Ticket>,
}

impl Holdings {
    /// All subscriptions.
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// All of them, for the end.
    pub fn take_subscriptions(&mut self) -> Vec<Subscription> {
        std::mem::take(&mut self.subscriptions)
    }

    /// Finds a subscription by its name.
    pub fn find(&self, name: &SubscriptionName) -> Option<&Subscription> {
        match name {
            // Sessions that choose ids have few subscriptions.
            SubscriptionName::Id(id) => self.subscriptions.iter().find(|known| known.id == *id),
            SubscriptionName::Durable(_) => None,
            SubscriptionName::Filter { group, filter } => {
                let of = |known: &Subscription| {
                    (known.filter(), known.group()).cmp(&(filter.as_str(), group.as_ref()))
                };
                // [MQTT-3.10.4-1]
                let place = self.subscriptions.binary_search_by(of).ok()?;
                self.subscriptions.get(place)
            }
        }
    }

    /// The subscription with this id.
    pub fn by_id(&self, id: SubscriptionId) -> Option<&Subscription> {
        self.subscriptions.iter().find(|known| known.id == id)
    }

    /// Enters a subscription of an earlier run; new ids go on behind it.
    pub fn restore(&mut self, subscription: Subscription) {
        self.restore_ids(subscription.id);
        self.insert(subscription);
    }

    /// New ids go on behind this one. The subscription may be gone, and messages for it still wait.
    pub fn restore_ids(&mut self, last: SubscriptionId) {
        self.next_id = self.next_id.max(last.0);
    }

    /// Enters a subscription.
    pub fn insert(&mut self, subscription: Subscription) {
        let place = self.subscriptions.binary_search_by(|known| order(known, &subscription));
        match place {
            Ok(place) => {
                if let Some(known) = self.subscriptions.get_mut(place) {
                    *known = subscription;
                }
            }
            Err(place) => {
                if self.subscriptions.len() < 2 {
                    self.subscriptions.reserve_exact(1); // most clients have one
                }
                self.subscriptions.insert(place, subscription);
            }
        }
    }

    /// Removes a subscription.
    pub fn remove(&mut self, subscription: &Subscription) -> Option<Subscription> {
        let place = self.subscriptions.binary_search_by(|known| order(known, subscription)).ok()?;
        let removed = self.subscriptions.remove(place);
        if self.subscriptions.is_empty() {
            self.subscriptions = Vec::new();
        }
        Some(removed)
    }

    /// An id that no subscription of this client has had.
    pub fn new_id(&mut self) -> SubscriptionId {
        self.next_id = self.next_id.wrapping_add(1);
        SubscriptionId(self.next_id)
    }

    /// Names for `count` deliveries: the first of them, the others follow.
    pub fn next_tags(&mut self, count: usize) -> Tag {
        let first = self.next_tag + 1;
        self.next_tag += count as u64;
        Tag(first)
    }

    /// What is under way, if anything.
    pub fn unfinished(&self) -> Option<&Unfinished> {
        self.unfinished.as_deref()
    }

    /// Lets `change` change what is under way; when nothing is left, its memory goes.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Unfinished) -> T) -> T {
        let mut unfinished = self.unfinished.take().unwrap_or_default();
        let result = change(&mut unfinished);
        let Unfinished { cursors, received, receiving: _, in_flight, ending } = &*unfinished;
        if !(cursors.is_empty() && received.is_empty() && in_flight.is_empty() && ending.is_empty()) {
            self.unfinished = Some(unfinished);
        }
        result
    }

    /// The same, if anything is under way.
    pub fn change_if_any<T>(&mut self, change: impl FnOnce(&mut Unfinished) -> T) -> Option<T> {
        self.unfinished.is_some().then(|| self.change(change))
    }

    /// The places and leases of these deliveries.
    pub fn stored_of(&self, tags: &[Tag]) -> Vec<Arc<Stored>> {
        let in_flight = self.unfinished().map(|unfinished| &unfinished.in_flight);
        let stored = |tag: &Tag| in_flight?.stored_of(*tag);
        tags.iter().filter_map(stored).collect()
    }

    /// This subscription is owed all that `cursor` finds.
    pub fn owe_retained(&mut self, subscription: Subscription, cursor: Cursor) {
        self.change(|unfinished| unfinished.cursors.push(Owed { subscription, cursor, submitted: None }));
    }

    /// Whether retained messages are still to come for a subscription.
    pub fn owes_retained(&self, subscription: &Subscription) -> bool {
        let of = |owed: &Owed| owed.subscription.is_same(subscription);
        self.unfinished().is_some_and(|unfinished| unfinished.cursors.iter().any(of))
    }

    /// No more retained messages for a subscription.
    pub fn forget_retained(&mut self, subscription: &Subscription) {
        let is_other = |owed: &Owed| !owed.subscription.is_same(subscription);
        self.change_if_any(|unfinished| unfinished.cursors.retain(is_other));
    }

    /// Remembers deliveries that a session is given now, the first of them under `tag`.
    pub fn hand_over<'a>(
        &mut self,
        first: Tag,
        entries: impl Iterator<Item = &'a Entry>,
        is_kept: impl Fn(&Entry) -> bool,
    ) {
        for (entry, tag) in entries.zip(first.0..).filter(|(entry, _)| is_kept(entry)) {
            self.change(|unfinished| unfinished.in_flight.hand_over(Tag(tag), entry.clone()));
        }
    }
}

/// Sessions that choose ids may have several subscriptions to one filter; the others have one each.
fn order(known: &Subscription, other: &Subscription) -> Ordering {
    (known.filter(), known.group(), known.id).cmp(&(other.filter(), other.group(), other.id))
}

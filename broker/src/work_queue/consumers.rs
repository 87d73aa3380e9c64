//! Who consumes a queue, and whose turn it is. Plain data; knows no message but what a selector asks of it.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_protocol::publication::Publication;
use tidegate_protocol::session::SubscriptionId;

use crate::outbox::Outbox;
use crate::subscription::Subscription;

/// One of them.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// What it subscribed.
    pub subscription: Subscription,
    /// Where its messages go.
    pub outbox: Arc<Outbox>,
    /// Messages that it may have unsettled.
    pub prefetch: NonZeroU16,
    id: u64,
}

/// Who gets a message.
#[derive(Debug)]
pub(super) enum Next {
    Consumer(Consumer),
    /// Whoever selects it has no room now.
    Later,
    /// Nobody selects it.
    Nobody,
}

/// All of a queue, in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    slots: Vec<Slot>,
    next: usize,
}

#[derive(Debug)]
struct Slot {
    consumer: Consumer,
    in_hand: usize,
    /// Its outbox had no room.
    is_blocked: bool,
    is_closed: bool,
}

impl Consumer {
    /// Somebody who has nothing yet.
    pub fn new(subscription: Subscription, outbox: Arc<Outbox>, prefetch: NonZeroU16) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { subscription, outbox, prefetch, id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn insert(&mut self, consumer: Consumer) {
        self.slots.push(Slot { consumer, in_hand: 0, is_blocked: false, is_closed: false });
    }

    /// Takes one out, whichever connection it came by.
    pub(super) fn remove(&mut self, client: u64, subscription: SubscriptionId) -> bool {
        let is = |slot: &Slot| {
            let known = &slot.consumer.subscription;
            known.target.client() == client && known.id == subscription
        };
        let Some(at) = self.slots.iter().position(is) else { return false };
        self.slots.remove(at);
        if at < self.next {
            self.next -= 1;
        }
        true
    }

    pub(super) fn take_all(&mut self) -> Vec<Consumer> {
        self.next = 0;
        self.slots.drain(..).map(|slot| slot.consumer).collect()
    }

    /// Whether anybody may have more.
    pub(super) fn have_credit(&self) -> bool {
        self.slots.iter().any(Slot::has_credit)
    }

    /// The next in turn that may have more and wants this message; whoever refused it only if nobody else is there.
    pub(super) fn next_for(&mut self, publication: &Publication, refused_by: Option<u64>) -> Next {
        let count = self.slots.len();
        let (mut refuser, mut is_wanted, mut is_selected) = (None, false, false);
        for step in 0..count {
            let at = (self.next + step) % count;
            let Some(slot) = self.slots.get_mut(at) else { continue };
            if slot.is_closed || !slot.consumer.subscription.selects(publication) {
                continue;
            }
            is_selected = true;
            let has_credit = slot.has_credit();
            if refused_by == Some(slot.consumer.id) {
                refuser = Some(at).filter(|_| has_credit);
                continue;
            }
            is_wanted = true;
            if has_credit && slot.consumer.outbox.is_below_half() {
                return self.take(at).map_or(Next::Later, Next::Consumer);
            }
            slot.is_blocked |= has_credit;
        }
        // Others want it, and have no room now: it waits for them.
        let chosen = refuser.filter(|_| !is_wanted).and_then(|at| self.take(at));
        chosen.map_or(if is_selected { Next::Later } else { Next::Nobody }, Next::Consumer)
    }

    fn take(&mut self, at: usize) -> Option<Consumer> {
        self.next = at + 1;
        self.slots.get(at).map(|slot| slot.consumer.clone())
    }

    pub(super) fn lent(&mut self, id: u64) {
        self.change(id, |slot| slot.in_hand += 1);
    }

    /// It has let go of something. What its outbox did not take makes no room there.
    pub(super) fn returned(&mut self, id: u64, is_taken: bool) {
        self.change(id, |slot| {
            slot.in_hand = slot.in_hand.saturating_sub(1);
            slot.is_blocked &= !is_taken;
        });
    }

    /// Nothing more until [`Consumers::unblock`], or until it lets go of something.
    pub(super) fn block(&mut self, id: u64) {
        self.change(id, |slot| slot.is_blocked = true);
    }

    /// Its connection is on its way out.
    pub(super) fn close(&mut self, id: u64) {
        self.change(id, |slot| slot.is_closed = true);
    }

    /// Whether anybody was blocked.
    pub(super) fn unblock(&mut self) -> bool {
        let mut was_any = false;
        for slot in &mut self.slots {
            was_any |= std::mem::take(&mut slot.is_blocked);
        }
        was_any
    }

    /// Whether nobody wants what this client publishes.
    pub(super) fn skips(&self, publisher: u64) -> bool {
        let skips = |slot: &Slot| {
            let subscription = &slot.consumer.subscription;
            subscription.no_local() && subscription.target.client() == publisher
        };
        !self.slots.is_empty() && self.slots.iter().all(skips)
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.consumer.id == id) {
            change(slot);
        }
    }
}

impl Slot {
    fn has_credit(&self) -> bool {
        !self.is_closed
            && !self.is_blocked
            && self.in_hand < usize::from(self.consumer.prefetch.get())
            && self.consumer.subscription.is_alive()
    }
}

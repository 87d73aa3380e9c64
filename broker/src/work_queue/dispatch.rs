//! From a queue to its consumers, and back from those who let go of what they had.

use std::sync::Arc;
use std::time::Instant;

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::DropReason;

use super::consumers::{Consumer, Next};
use super::lease::{Lease, Returned};
use super::{Item, State, WorkQueue};
use crate::durability::Stored;
use crate::outbox::Outbox;
use crate::outbox::queue::Pushed;
use crate::subscription::Entry;

/// What a dispatch has come to.
#[derive(Debug, Default)]
pub struct Dispatched {
    /// To be flushed.
    pub touched: Vec<Arc<Outbox>>,
}

impl WorkQueue {
    /// Gives what is ready to whoever may have more. The caller flushes what was touched.
    pub fn dispatch(self: &Arc<Self>, now: Instant) -> Dispatched {
        let mut dispatched = Dispatched::default();
        let mut state = self.state.lock();
        self.take_back(&mut state, now);
        let mut expired = 0;
        let (mut from_seq, mut skipped) = (state.passed_until, 0);
        while state.consumers.have_credit() && skipped < SKIPPED_MAX {
            let Some((&seq, item)) = state.ready.range(from_seq..).next() else { break };
            from_seq = seq + 1;
            if item.is_expired(now) {
                expired += 1;
                self.remove(&mut state, seq);
                continue;
            }
            let (refused_by, publication) = (item.refused_by, Arc::clone(&item.publication));
            let consumer = match state.consumers.next_for(&publication, refused_by) {
                Next::Consumer(consumer) => consumer,
                Next::Later => {
                    skipped += 1;
                    continue;
                }
                Next::Nobody => {
                    // Not looked at again before somebody comes who may select it.
                    if skipped == 0 {
                        state.passed_until = from_seq;
                    }
                    continue;
                }
            };
            if let Some(item) = self.remove(&mut state, seq) {
                self.lend(&mut state, &consumer, seq, item, now, &mut dispatched);
            }
        }
        self.take_back(&mut state, now);
        self.ask(&mut state);
        self.evict(&mut state);
        self.note(&state);
        drop(state);
        self.count_dropped(DropReason::Expired, expired);
        dispatched
    }

    fn lend(
        self: &Arc<Self>,
        state: &mut State,
        consumer: &Consumer,
        seq: u64,
        item: Item,
        now: Instant,
        dispatched: &mut Dispatched,
    ) {
        state.leased += 1;
        state.consumers.lent(consumer.id());
        let publication = Arc::clone(&item.publication);
        let (size_bytes, qos) = (item.size_bytes, QoS::AtLeastOnce.min(consumer.subscription.qos));
        let lease = Lease::new(self, consumer.id(), seq, item);
        let entry = Entry {
            publication,
            subscription: consumer.subscription.clone(),
            also: None,
            form: None,
            size_bytes,
            qos,
            retain: false,
            is_retained: false,
            is_bound: false,
            stored: Some(Stored::lent(lease)),
        };
        let (pushed, must_flush) = consumer.outbox.push(entry, now);
        self.shared.entered(pushed.growth());
        match pushed {
            Pushed::Queued | Pushed::HalfFull | Pushed::OverMark | Pushed::Made(..) | Pushed::Stored => {}
            // It has come back by itself.
            Pushed::Closed => state.consumers.close(consumer.id()),
            Pushed::Full | Pushed::Dropped(_) => state.consumers.block(consumer.id()),
        }
        if must_flush {
            dispatched.touched.push(Arc::clone(&consumer.outbox));
        }
    }

    /// Takes what consumers have let go of.
    pub(super) fn take_back(&self, state: &mut State, now: Instant) {
        for returned in std::mem::take(&mut *self.returned.lock()) {
            state.leased = state.leased.saturating_sub(1);
            let is_taken = returned.item.is_none() || returned.was_sent;
            state.consumers.returned(returned.consumer, is_taken);
            match returned.item {
                Some(item) if item.is_expired(now) => self.count_dropped(DropReason::Expired, 1),
                Some(mut item) => {
                    item.is_redelivered |= returned.was_sent;
                    self.enter(state, returned.seq, item);
                }
                None => {}
            }
        }
    }

    /// A consumer has let go of a message.
    pub(super) fn give_back(self: &Arc<Self>, returned: Returned) {
        self.returned.lock().push(returned);
        self.list();
    }
}

/// Messages that a dispatch passes over because those who select them have no room.
const SKIPPED_MAX: usize = 1024;

//! A queue with a store: what waits on the disk alone, and how it comes back.

use std::sync::Arc;

use tidegate_protocol::session::DropReason;
use tracing::error;

use super::{Item, State, WorkQueue};
use crate::broker::{Now, restored_publication};
use crate::durability::{PageTaker, Stored};
use crate::outbox::room::Amount;
use crate::store::{Page, QueuedMessage, StoreError};

/// Below this many messages in memory the next page is asked for.
const PAGE_BELOW: usize = 128;

/// With a store, messages in memory that no consumer selects.
const UNSELECTED_MAX: usize = 16 * 1024;

impl WorkQueue {
    /// Asks for the next page when somebody consumes and memory runs low.
    pub(super) fn ask(self: &Arc<Self>, state: &mut State) {
        let passed_until = state.passed_until;
        let ahead = state.ready.range(passed_until..).take(PAGE_BELOW).count();
        // What nobody selects stays in memory, and a selector looks no further than behind so much of it.
        let has_room = state.ready.len() - ahead < UNSELECTED_MAX;
        if !state.consumers.is_empty() && ahead < PAGE_BELOW && has_room {
            self.ask_for_page(state);
        }
    }

    /// Asks for the next page, if none is on its way.
    pub(super) fn ask_for_page(self: &Arc<Self>, state: &mut State) {
        let (Some(durability), Some(remainder)) = (&self.durability, &mut state.remainder) else { return };
        if let Some(from_seq) = remainder.ask(state.next_seq) {
            let taker: Arc<dyn PageTaker> = Arc::clone(self) as _;
            durability.load(Arc::downgrade(&taker), self.key, from_seq);
        }
    }

    /// Lets go of what waits in memory while nobody consumes, and is on the disk too.
    pub(super) fn evict(&self, state: &mut State) {
        let is_due = self.durability.is_some()
            && state.consumers.is_empty()
            && state.leased == 0
            && state.arriving == 0
            && self.returned.lock().is_empty();
        if !is_due || state.has_ended {
            return;
        }
        let stored = |item: &Item| item.place.is_some();
        let seqs: Vec<u64> =
            state.ready.iter().filter(|(_, item)| stored(item)).map(|(seq, _)| *seq).collect();
        let Some(&first_seq) = seqs.first() else { return };
        let mut amount = Amount::default();
        for seq in seqs {
            if let Some(item) = self.remove(state, seq) {
                amount = amount + Amount { messages: 1, bytes: item.size_bytes as usize };
                state.note_expiry_on_disk(item.expires_at);
                if let Some(place) = &item.place {
                    place.keep();
                }
                if item.is_redelivered {
                    state.known_until = state.known_until.max(seq + 1);
                }
            }
        }
        let next_seq = state.next_seq;
        let remainder = state.remainder.get_or_insert_with(|| Box::new(super::Remainder::new(next_seq)));
        remainder.put_before(first_seq, amount);
    }

    fn take_message(&self, state: &mut State, message: QueuedMessage, now: Now) -> Option<()> {
        let durability = self.durability.as_ref()?;
        let known_until = state.known_until;
        // Whatever becomes of it, its place is freed when it is let go.
        let place = Stored::new(durability, self.key, message.seq, message.seq < known_until);
        let QueuedMessage { seq, reference, publication } = message;
        let mut publication = restored_publication(publication?, now);
        let expires_at = reference.expires_at_ms.and_then(|at_ms| now.instant_of(at_ms));
        if expires_at.is_some_and(|at| at <= now.instant) || publication.is_expired(now.instant) {
            self.count_dropped(DropReason::Expired, 1);
            return None;
        }
        publication.charge_to(&self.shared.publication_bytes);
        let item = Item {
            publication: Arc::new(publication),
            size_bytes: reference.size_bytes,
            expires_at,
            place: Some(place),
            is_redelivered: seq < known_until,
            refused_by: None,
            refusals: 0,
        };
        self.enter(state, seq, item);
        Some(())
    }
}

impl PageTaker for WorkQueue {
    fn take_page(self: Arc<Self>, page: Result<Page, StoreError>, now: Now) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(remainder) = &mut state.remainder else { return };
        if state.has_ended {
            return;
        }
        match page {
            Ok(mut page) => {
                if let Some(wanted) = remainder.answer() {
                    let mut taken = Amount::default();
                    let was_due = state.disk_expires_at.take().is_some_and(|at| at <= now.instant);
                    let mut are_all_over = true;
                    for message in std::mem::take(&mut page.messages) {
                        if wanted.has(message.seq) {
                            let bytes = message.reference.size_bytes as usize;
                            taken = taken + Amount { messages: 1, bytes };
                            are_all_over &= self.take_message(state, message, now).is_none();
                        }
                    }
                    let next_seq = state.next_seq;
                    let is_over = state
                        .remainder
                        .as_mut()
                        .is_some_and(|remainder| remainder.take(wanted, &page, taken, next_seq));
                    if is_over {
                        state.remainder = None;
                    } else if was_due && are_all_over {
                        self.ask_for_page(state);
                        state.disk_expires_at = Some(now.instant);
                    } else {
                        // As late as the last that was read: they expire in their order, mostly.
                        let last = state.ready.values().next_back().and_then(|item| item.expires_at);
                        state.note_expiry_on_disk(last);
                    }
                }
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                // It is tried again when something happens to the queue, and with the next sweep.
                remainder.refuse();
                error!(queue = %self.name, %error, "messages of a queue cannot be read");
                return;
            }
        }
        self.note(state);
        self.list();
    }
}

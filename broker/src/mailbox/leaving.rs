//! What waits for members of groups that end, wherever it is in that moment: on the disk, on its way there, or on its way
//! from there. Others get it instead.
//!
//! What is still to be brought here ([`Mailbox::bring`]) is handed on by whoever brings it, and is left out.

use std::collections::BTreeSet;

use tidegate_protocol::session::SubscriptionId;
use tracing::error;

use super::{Mailbox, State};
use crate::broker::Now;
use crate::durability::Durability;
use crate::store::{QueuedMessage, Ticket};
use crate::subscription::{Entry, Subscription};

/// Seldom anything.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Went from memory to the disk, and may not be there before this commit is done.
    evicted: Vec<Entry>,
    until: Option<Ticket>,
    /// Came in pages for a member that had ended.
    pub(super) found: Vec<Entry>,
}

impl Mailbox {
    /// What waits for these and is not in memory, members of groups that end: others may get it instead. Reads the disk,
    /// which such an end has to wait for.
    pub(crate) fn take_stored_of(&self, ended: &[Subscription], now: Now) -> Vec<Entry> {
        if !ended.iter().any(|ended| ended.group().is_some()) {
            return Vec::new();
        }
        let Some(durability) = &self.durability else { return Vec::new() };
        let mut entries = {
            let mut state = self.state.lock();
            // What the disk has may have come back from there, and been delivered.
            state.forget_evicted(Some(durability));
            state.take_leaving(ended)
        };
        let mut seen: BTreeSet<u64> = entries.iter().filter_map(seq_of).collect();
        let (places, arriving) = {
            let state = self.state.lock();
            let remainder = state.remainder.as_ref();
            let places = remainder.map_or(0..0, |remainder| remainder.first_seq()..state.next_seq);
            (places, remainder.map(|remainder| remainder.arriving().clone()).unwrap_or_default())
        };
        seen.extend(arriving);
        let mut from_seq = places.start;
        while from_seq < places.end {
            match durability.read(self.key, from_seq) {
                Ok(page) => {
                    for message in page.messages.into_iter().filter(|message| message.seq < places.end) {
                        if message.reference.received.is_none() && !seen.contains(&message.seq) {
                            entries.extend(self.entry_of(message, ended, now));
                        }
                    }
                    if page.is_last {
                        break;
                    }
                    from_seq = page.next_seq;
                }
                Err(error) => {
                    error!(client = %self.name, %error, "messages of a group cannot be read, and stay with a session that ends");
                    break;
                }
            }
        }
        seen.extend(entries.iter().filter_map(seq_of));
        let mut state = self.state.lock();
        let late = state.take_leaving(ended);
        entries.extend(late.into_iter().filter(|entry| seq_of(entry).is_none_or(|seq| !seen.contains(&seq))));
        let is_other = |known: &Subscription| !ended.iter().any(|ended| ended.is_same(known));
        state.holdings.change_if_any(|unfinished| unfinished.ending.retain(is_other));
        entries
    }

    fn entry_of(&self, message: QueuedMessage, ended: &[Subscription], now: Now) -> Option<Entry> {
        let id = message.reference.subscription;
        let subscription = ended.iter().find(|ended| ended.id == id && ended.group().is_some())?;
        self.entry(message, Some(subscription), 0, now)
    }
}

impl State {
    /// A member of a group that has just ended under this id.
    pub(super) fn ending(&self, id: SubscriptionId) -> Option<Subscription> {
        self.holdings.unfinished()?.ending.iter().find(|ended| ended.id == id).cloned()
    }

    /// Memory lets go of these.
    pub(super) fn note_evicted(&mut self, evicted: &[Entry], durability: Option<&Durability>) {
        let mut of_groups = evicted.iter().filter(|entry| entry.subscription.group().is_some()).peekable();
        if let Some(durability) = durability.filter(|_| of_groups.peek().is_some()) {
            let leaving = self.leaving.get_or_insert_default();
            leaving.evicted.extend(of_groups.cloned());
            leaving.until = Some(durability.writer().last_ticket());
        }
        self.forget_evicted(durability);
    }

    /// The disk has them by now, or refused them, as whoever published them has heard.
    pub(super) fn forget_evicted(&mut self, durability: Option<&Durability>) {
        let Some(leaving) = &mut self.leaving else { return };
        let is_done = |ticket: &mut Ticket| durability.is_none_or(|known| known.outcome(*ticket).is_some());
        if leaving.until.take_if(is_done).is_some() {
            leaving.evicted = Vec::new();
        }
        if leaving.evicted.is_empty() && leaving.found.is_empty() {
            self.leaving = None;
        }
    }

    fn take_leaving(&mut self, ended: &[Subscription]) -> Vec<Entry> {
        let Some(leaving) = &mut self.leaving else { return Vec::new() };
        let of = |entry: &mut Entry| ended.iter().any(|ended| ended.is_same(&entry.subscription));
        let mut taken: Vec<Entry> = leaving.evicted.extract_if(.., of).collect();
        taken.iter().flat_map(|entry| &entry.stored).for_each(|stored| stored.take_back());
        taken.extend(leaving.found.extract_if(.., of));
        if leaving.evicted.is_empty() && leaving.found.is_empty() {
            self.leaving = None;
        }
        taken
    }
}

fn seq_of(entry: &Entry) -> Option<u64> {
    entry.stored.as_ref().and_then(|stored| stored.seq())
}

//! The members of one group in the order of their turns, and which of them each strategy chooses. Knows no lock, no
//! name and no message.
//!
//! The order is a ring of positions in a list without gaps: it is kept whoever comes and goes, everything but a
//! search costs the same for a hundred members and a million, and one of them is found at random by position.

#![expect(clippy::indexing_slicing, reason = "positions are made here and point at slots that are in use")]

use hashbrown::HashTable;
use tidegate_protocol::session::SubscriptionId;

use super::GroupMember;
use crate::router::positions::{LISTED_MAX, hash, narrow, widen};

/// Positions tried at random before all members are asked.
const RANDOM_TRIES: usize = 8;

/// Members, at most one for each client and subscription id.
pub(super) struct Ring<M> {
    slots: Vec<Slot<M>>,
    /// Positions in `slots` by the hash of the client.
    index: Option<Box<HashTable<u32>>>,
    /// Whose turn it is. The one before it has the last turn. Points nowhere while there is nobody.
    head: u32,
    /// Whom [`Ring::sticky`] stays with.
    held: Option<u32>,
}

struct Slot<M> {
    member: M,
    next: u32,
    previous: u32,
}

/// What the search for the next in turn has found.
struct Turn {
    at: u32,
    is_online: bool,
    /// Somebody before it was passed over for this message alone.
    somebody_waits: bool,
}

impl<M: GroupMember> Ring<M> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), index: None, head: 0, held: None }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn member(&self, at: u32) -> &M {
        &self.slots[widen(at)].member
    }

    /// Adds a member behind all others. One of the same client and id is replaced, and its turn is kept.
    pub(super) fn insert(&mut self, member: M) -> Option<M> {
        let client = member.client();
        if let Some(at) = self.position(client, member.subscription()) {
            return Some(std::mem::replace(&mut self.slots[widen(at)].member, member));
        }
        let at = narrow(self.slots.len());
        if self.slots.is_empty() {
            self.slots.reserve_exact(1); // most groups are small
        }
        self.slots.push(Slot { member, next: at, previous: at });
        self.link_last(at);
        let Self { slots, index, .. } = self;
        match index {
            Some(index) => {
                index.insert_unique(hash(client), at, |&at| hash_at(slots, at));
            }
            None if slots.len() > LISTED_MAX => {
                let mut table = HashTable::with_capacity(slots.len() * 2);
                for (slot, at) in slots.iter().zip(0u32..) {
                    table.insert_unique(hash(slot.member.client()), at, |&at| hash_at(slots, at));
                }
                *index = Some(Box::new(table));
            }
            None => {}
        }
        None
    }

    /// Takes a member out. The turns of the others stay in order.
    pub(super) fn remove(&mut self, client: u64, subscription: SubscriptionId) -> Option<M> {
        let at = self.position(client, subscription)?;
        self.unlink(at);
        if self.held == Some(at) {
            self.held = None;
        }
        if let Some(index) = &mut self.index
            && let Ok(entry) = index.find_entry(hash(client), |&other| other == at)
        {
            entry.remove();
        }
        let last = narrow(self.slots.len() - 1);
        if at != last {
            self.relocate(last, at);
        }
        let removed = self.slots.swap_remove(widen(at)).member;
        self.give_back();
        Some(removed)
    }

    /// The next in turn.
    pub(super) fn round_robin(&mut self, tried: &[u64]) -> Option<u32> {
        let turn = self.next_turn(tried)?;
        Some(self.take(&turn))
    }

    /// Anybody, each as likely as the other. `below(n)` is a random number less than `n`.
    pub(super) fn random(&self, tried: &[u64], mut below: impl FnMut(usize) -> usize) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        for _ in 0..RANDOM_TRIES {
            let at = below(self.slots.len());
            let member = &self.slots[at].member;
            if member.is_online() && !tried.contains(&member.client()) {
                return Some(narrow(at));
            }
        }
        // The n-th that fits takes the place of the one before with a chance of 1/n: all are equal in the end.
        let (mut online, mut offline) = ((0, None), (0, None));
        for (slot, at) in self.slots.iter().zip(0u32..) {
            if tried.contains(&slot.member.client()) {
                continue;
            }
            let (seen, chosen) = if slot.member.is_online() { &mut online } else { &mut offline };
            *seen += 1;
            if below(*seen) == 0 {
                *chosen = Some(at);
            }
        }
        online.1.or(offline.1)
    }

    /// The same as last time, while it is online. Another one, the next in turn, is chosen for good when it is not,
    /// and for one message when it was tried.
    pub(super) fn sticky(&mut self, tried: &[u64]) -> Option<u32> {
        let held = self.held.map(|at| {
            let member = self.member(at);
            (at, member.is_online(), tried.contains(&member.client()))
        });
        if let Some((at, true, false)) = held {
            return Some(at);
        }
        let turn = self.next_turn(tried)?;
        match held {
            // Nobody is online: what waits for it waits in one place.
            Some((at, false, false)) if !turn.is_online => return Some(at),
            Some((_, true, _)) => {}
            Some((_, false, true)) if !turn.is_online => {}
            Some(_) | None => self.held = Some(turn.at),
        }
        Some(self.take(&turn))
    }

    /// The one with the fewest deliveries under way; among equals the one whose last turn is the longest ago.
    pub(super) fn least_pending(&mut self, tried: &[u64]) -> Option<u32> {
        let mut best: Option<((bool, usize), u32)> = None;
        for at in self.turns() {
            let member = self.member(at);
            if tried.contains(&member.client()) {
                continue;
            }
            let rank = (!member.is_online(), member.pending());
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, at));
            }
            if rank == (false, 0) {
                break;
            }
        }
        let (_, at) = best?;
        self.move_last(at);
        Some(at)
    }

    /// The first online member in turn, or else the first.
    fn next_turn(&self, tried: &[u64]) -> Option<Turn> {
        let mut somebody_waits = false;
        let mut offline = None;
        for at in self.turns() {
            let member = self.member(at);
            if tried.contains(&member.client()) {
                somebody_waits = true;
            } else if member.is_online() {
                return Some(Turn { at, is_online: true, somebody_waits });
            } else if offline.is_none() {
                offline = Some(at);
            }
        }
        offline.map(|at| Turn { at, is_online: false, somebody_waits })
    }

    /// Who is offline loses the turn, so that a run of such members is walked once a round and not for each message.
    /// Who was tried keeps it: that was another message's turn.
    fn take(&mut self, turn: &Turn) -> u32 {
        if turn.somebody_waits {
            self.move_last(turn.at);
        } else {
            self.head = self.slots[widen(turn.at)].next;
        }
        turn.at
    }

    /// Every position once, in turn.
    fn turns(&self) -> impl Iterator<Item = u32> {
        let mut next = self.head;
        self.slots.iter().map(move |_| {
            let at = next;
            next = self.slots[widen(at)].next;
            at
        })
    }

    fn move_last(&mut self, at: u32) {
        if self.head == at {
            self.head = self.slots[widen(at)].next;
        } else {
            self.unlink(at);
            self.link_last(at);
        }
    }

    /// Links the slot, which is in no ring, before the head.
    fn link_last(&mut self, at: u32) {
        if self.slots.len() == 1 {
            self.head = at;
            return;
        }
        let next = self.head;
        let previous = self.slots[widen(next)].previous;
        self.slots[widen(at)].next = next;
        self.slots[widen(at)].previous = previous;
        self.slots[widen(previous)].next = at;
        self.slots[widen(next)].previous = at;
    }

    fn unlink(&mut self, at: u32) {
        let Slot { next, previous, .. } = self.slots[widen(at)];
        self.slots[widen(previous)].next = next;
        self.slots[widen(next)].previous = previous;
        if self.head == at {
            self.head = next;
        }
    }

    /// Lets everything that names the position `from` name `to`. The slots themselves are swapped by the caller.
    fn relocate(&mut self, from: u32, to: u32) {
        let Slot { next, previous, .. } = self.slots[widen(from)];
        // Alone in the ring it is its own neighbour, and these lines are about itself.
        self.slots[widen(previous)].next = to;
        self.slots[widen(next)].previous = to;
        if self.head == from {
            self.head = to;
        }
        if self.held == Some(from) {
            self.held = Some(to);
        }
        if let Some(index) = &mut self.index
            && let Some(at) = index.find_mut(hash_at(&self.slots, from), |&at| at == from)
        {
            *at = to;
        }
    }

    /// Returns memory after many have left. Amortised: a quarter of the room has to be in use again first.
    fn give_back(&mut self) {
        let Self { slots, index, .. } = self;
        if slots.len() <= LISTED_MAX / 2 {
            *index = None;
        }
        if slots.capacity() > LISTED_MAX && slots.len() < slots.capacity() / 4 {
            slots.shrink_to(slots.len() * 2);
            if let Some(index) = index {
                index.shrink_to(slots.len() * 2, |&at| hash_at(slots, at));
            }
        }
    }

    fn position(&self, client: u64, subscription: SubscriptionId) -> Option<u32> {
        let is =
            |slot: &Slot<M>| slot.member.client() == client && slot.member.subscription() == subscription;
        match &self.index {
            None => self.slots.iter().position(is).map(narrow),
            Some(index) => index.find(hash(client), |&at| is(&self.slots[widen(at)])).copied(),
        }
    }

    /// Room for members and for index entries.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> (usize, usize) {
        (self.slots.capacity(), self.index.as_ref().map_or(0, |index| index.capacity()))
    }

    /// The members in turn; their links are checked on the way.
    #[cfg(test)]
    pub(super) fn in_turn(&self) -> Vec<&M> {
        let turns: Vec<u32> = self.turns().collect();
        for (place, &at) in turns.iter().enumerate() {
            assert_eq!(self.slots[widen(at)].next, turns[(place + 1) % turns.len()]);
            assert_eq!(self.slots[widen(turns[(place + 1) % turns.len()])].previous, at);
            let member = self.member(at);
            assert_eq!(self.position(member.client(), member.subscription()), Some(at));
        }
        assert!(self.index.as_ref().is_none_or(|index| index.len() == turns.len()));
        turns.into_iter().map(|at| self.member(at)).collect()
    }
}

fn hash_at<M: GroupMember>(slots: &[Slot<M>], at: u32) -> u64 {
    hash(slots[widen(at)].member.client())
}

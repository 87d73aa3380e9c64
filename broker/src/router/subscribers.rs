//! The subscribers of one filter: one, a few in a list, or many with an index, so that the hundredth of a million
//! leaves as fast as the first. Knows no topic and no lock.

use hashbrown::HashTable;
use tidegate_protocol::session::SubscriptionId;

use super::Member;
use super::positions::{LISTED_MAX, hash, narrow, widen};

/// A set of members, at most one for each client and subscription id. 16 bytes while it holds none or one.
pub(super) enum Subscribers<M> {
    Empty,
    One(M),
    Several(Box<Several<M>>),
}

/// Two or more members.
pub(super) struct Several<M> {
    members: Vec<M>,
    /// Positions in `members` by the hash of the client.
    index: Option<HashTable<u32>>,
    /// Some client may be here more than once. Stays set until one member is left.
    repeats: bool,
}

impl<M: Member> Subscribers<M> {
    /// Adds a member and returns the one of the same client and id that it takes the place of.
    pub(super) fn insert(&mut self, member: M) -> Option<M> {
        match self {
            Self::Empty => {
                *self = Self::One(member);
                None
            }
            Self::One(held) if is(held, member.client(), member.subscription()) => {
                Some(std::mem::replace(held, member))
            }
            Self::One(held) => {
                let repeats = held.client() == member.client();
                let members = vec![held.clone(), member];
                *self = Self::Several(Box::new(Several { members, index: None, repeats }));
                None
            }
            Self::Several(several) => several.insert(member),
        }
    }

    /// Takes a member out. The order of the others may change.
    pub(super) fn remove(&mut self, client: u64, subscription: SubscriptionId) -> Option<M> {
        match self {
            Self::Empty => None,
            Self::One(held) => {
                if !is(held, client, subscription) {
                    return None;
                }
                match std::mem::replace(self, Self::Empty) {
                    Self::One(held) => Some(held),
                    Self::Empty | Self::Several(_) => None,
                }
            }
            Self::Several(several) => {
                let removed = several.remove(client, subscription)?;
                if several.members.len() == 1
                    && let Some(last) = several.members.pop()
                {
                    *self = Self::One(last);
                }
                Some(removed)
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    pub(super) fn as_slice(&self) -> &[M] {
        match self {
            Self::Empty => &[],
            Self::One(member) => std::slice::from_ref(member),
            Self::Several(several) => &several.members,
        }
    }

    /// Whether one client may be here more than once.
    pub(super) fn repeats(&self) -> bool {
        matches!(self, Self::Several(several) if several.repeats)
    }
}

impl<M: Member> Several<M> {
    fn insert(&mut self, member: M) -> Option<M> {
        let client = member.client();
        if let Some(held) =
            self.position(client, member.subscription()).and_then(|position| self.members.get_mut(position))
        {
            return Some(std::mem::replace(held, member));
        }
        self.repeats = self.repeats || self.has_client(client);
        let position = narrow(self.members.len());
        self.members.push(member);
        let Self { members, index, .. } = self;
        match index {
            Some(index) => {
                index.insert_unique(hash(client), position, |&at| hash_at(members, at));
            }
            None if members.len() > LISTED_MAX => {
                let mut table = HashTable::with_capacity(members.len() * 2);
                for (member, at) in members.iter().zip(0u32..) {
                    table.insert_unique(hash(member.client()), at, |&at| hash_at(members, at));
                }
                *index = Some(table);
            }
            None => {}
        }
        None
    }

    fn remove(&mut self, client: u64, subscription: SubscriptionId) -> Option<M> {
        let position = self.position(client, subscription)?;
        let last = self.members.len() - 1;
        if let Some(index) = &mut self.index {
            if let Ok(entry) = index.find_entry(hash(client), |&at| at == narrow(position)) {
                entry.remove();
            }
            // The last member moves into the gap.
            if last != position
                && let Some(moved) = self.members.last()
                && let Some(at) = index.find_mut(hash(moved.client()), |&at| at == narrow(last))
            {
                *at = narrow(position);
            }
        }
        let removed = self.members.swap_remove(position);
        self.give_back();
        Some(removed)
    }

    /// Returns memory after many have left. Amortised: a quarter of the room has to be in use again first.
    fn give_back(&mut self) {
        let Self { members, index, .. } = self;
        if members.len() <= LISTED_MAX / 2 {
            *index = None;
        }
        if members.capacity() > LISTED_MAX && members.len() < members.capacity() / 4 {
            members.shrink_to(members.len() * 2);
            if let Some(index) = index {
                index.shrink_to(members.len() * 2, |&at| hash_at(members, at));
            }
        }
    }

    fn position(&self, client: u64, subscription: SubscriptionId) -> Option<usize> {
        match &self.index {
            None => self.members.iter().position(|member| is(member, client, subscription)),
            Some(index) => index
                .find(hash(client), |&at| {
                    self.members.get(widen(at)).is_some_and(|member| is(member, client, subscription))
                })
                .map(|&at| widen(at)),
        }
    }

    fn has_client(&self, client: u64) -> bool {
        match &self.index {
            None => self.members.iter().any(|member| member.client() == client),
            Some(index) => index
                .find(hash(client), |&at| {
                    self.members.get(widen(at)).is_some_and(|member| member.client() == client)
                })
                .is_some(),
        }
    }
}

fn is<M: Member>(member: &M, client: u64, subscription: SubscriptionId) -> bool {
    member.client() == client && member.subscription() == subscription
}

fn hash_at<M: Member>(members: &[M], at: u32) -> u64 {
    members.get(widen(at)).map_or(0, |member| hash(member.client()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::router::tests::{Mark, mark};

    fn ids(subscribers: &Subscribers<Mark>) -> BTreeSet<(u64, u32)> {
        let all = subscribers.as_slice();
        let ids: BTreeSet<_> = all.iter().map(|mark| (mark.client(), mark.subscription().0)).collect();
        assert_eq!(ids.len(), all.len(), "a member stands twice in the list");
        ids
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn is_a_set_by_client_and_id(
            history in prop::collection::vec((any::<bool>(), 0u64..60, 0u32..3), 1..600)
        ) {
            let mut subscribers = Subscribers::Empty;
            let mut model = BTreeSet::new();
            for (is_insert, client, id) in history {
                if is_insert {
                    let replaced = subscribers.insert(mark(client, id)).is_some();
                    prop_assert_eq!(replaced, !model.insert((client, id)));
                } else {
                    let removed = subscribers.remove(client, SubscriptionId(id));
                    prop_assert_eq!(removed.map(|mark| (mark.client(), mark.subscription().0)).into_iter().collect::<Vec<_>>(),
                        model.take(&(client, id)).into_iter().collect::<Vec<_>>());
                }
                prop_assert_eq!(&ids(&subscribers), &model);
                prop_assert_eq!(subscribers.is_empty(), model.is_empty());
                let clients: BTreeSet<_> = model.iter().map(|(client, _)| client).collect();
                prop_assert!(clients.len() == model.len() || subscribers.repeats());
            }
        }
    }

    #[test]
    fn gives_memory_back_when_members_leave() {
        let mut subscribers = Subscribers::Empty;
        for client in 0..10_000 {
            subscribers.insert(mark(client, 0));
        }
        for client in 0..9_990 {
            assert!(subscribers.remove(client, SubscriptionId(0)).is_some());
        }
        let Subscribers::Several(several) = &subscribers else { panic!("ten are left") };
        assert!(several.members.capacity() <= 64, "room for {}", several.members.capacity());
        assert!(several.index.as_ref().is_none_or(|index| index.capacity() <= 64));
    }
}

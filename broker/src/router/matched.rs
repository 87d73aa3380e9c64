//! The outcome of a match: who gets a publication, each client as often as its subscriptions want it.
//! Knows no table and no lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::sync::Arc;

use ahash::RandomState;
use tidegate_protocol::session::Copies;

use super::Member;
use super::subscribers::Subscribers;

/// Everyone who gets a publication to one topic.
pub struct Matched<M> {
    targets: Vec<Target<M>>,
}

/// One copy to one client.
pub struct Target<M> {
    /// The subscription that it is for. Of several it is the one with the highest QoS, then the lowest id; its
    /// settings count.
    pub member: M,
    /// The identifiers of the client's other matching subscriptions, in order ([`Copies::PerClient`]).
    pub also: Option<Arc<[NonZeroU32]>>,
}

impl<M> Matched<M> {
    /// The copies, in no particular order.
    #[must_use]
    pub fn targets(&self) -> &[Target<M>] {
        &self.targets
    }

    /// How many copies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether nobody gets it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Memory that it takes, about, without the members themselves.
    pub(super) fn size_bytes(&self) -> usize {
        let also = |target: &Target<M>| target.also.as_ref().map_or(0, |also| 16 + size_of_val(&**also));
        size_of::<Self>()
            + self.targets.len() * size_of::<Target<M>>()
            + self.targets.iter().map(also).sum::<usize>()
    }
}

/// Gathers matching sets while the guards of their tables live; merges them afterwards.
pub(super) struct Collector<M> {
    targets: Vec<Target<M>>,
    sets: usize,
    repeats: bool,
}

impl<M: Member> Collector<M> {
    pub(super) fn new() -> Self {
        Self { targets: Vec::new(), sets: 0, repeats: false }
    }

    pub(super) fn add(&mut self, subscribers: &Subscribers<M>) {
        let members = subscribers.as_slice();
        if members.is_empty() {
            return;
        }
        self.sets += 1;
        self.repeats = self.repeats || subscribers.repeats();
        self.targets.extend(members.iter().map(|member| Target { member: member.clone(), also: None }));
    }

    /// Only overlapping sets cost a merge; within a single one each client stands once, unless it says otherwise.
    pub(super) fn finish(self) -> Matched<M> {
        let mut targets =
            if self.sets > 1 || self.repeats { one_copy_per_client(self.targets) } else { self.targets };
        targets.shrink_to_fit();
        Matched { targets }
    }
}

/// Folds the [`Copies::PerClient`] targets of each client into one.
fn one_copy_per_client<M: Member>(all: Vec<Target<M>>) -> Vec<Target<M>> {
    let mut merged: Vec<Target<M>> = Vec::with_capacity(all.len());
    let mut places: HashMap<u64, usize, RandomState> =
        HashMap::with_capacity_and_hasher(all.len(), RandomState::new());
    let mut others: HashMap<usize, Vec<NonZeroU32>, RandomState> = HashMap::default();
    for mut target in all {
        let place = match target.member.copies() {
            Copies::PerSubscription => None,
            Copies::PerClient => match places.entry(target.member.client()) {
                Entry::Occupied(place) => Some(*place.get()),
                Entry::Vacant(vacant) => {
                    vacant.insert(merged.len());
                    None
                }
            },
        };
        let Some((place, held)) = place.and_then(|place| Some((place, merged.get_mut(place)?))) else {
            merged.push(target);
            continue;
        };
        if prevails(&target.member, &held.member) {
            std::mem::swap(held, &mut target);
        }
        if let Some(identifier) = target.member.identifier() {
            others.entry(place).or_default().push(identifier);
        }
    }
    for (place, mut identifiers) in others {
        let Some(target) = merged.get_mut(place) else { continue };
        // One that stands for several subscriptions stands here as often (MQTT 5 §3.3.4).
        identifiers.sort_unstable();
        target.also = Some(identifiers.into());
    }
    merged
}

/// The highest QoS decides [MQTT-3.3.4-2]; the id only makes the choice the same every time.
fn prevails<M: Member>(member: &M, held: &M) -> bool {
    (member.qos(), held.subscription()) > (held.qos(), member.subscription())
}

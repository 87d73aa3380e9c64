//! A set of packet identifiers that stays small: 16 bytes for each 64 neighbours, 16 KiB for all there are.

/// Identifiers of 16 bits, in blocks of 64. Empty, it owns no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketIds {
    /// Sorted; which block, and the identifiers in it as bits. No block is empty.
    blocks: Vec<(u16, u64)>,
    len: usize,
}

impl PacketIds {
    /// Adds an identifier. `false`: it was there.
    pub fn insert(&mut self, id: u16) -> bool {
        let (block, bit) = place(id);
        match self.blocks.binary_search_by_key(&block, |(known, _)| *known) {
            Ok(position) => {
                let Some((_, bits)) = self.blocks.get_mut(position) else { return false };
                if *bits & bit != 0 {
                    return false;
                }
                *bits |= bit;
            }
            Err(position) => self.blocks.insert(position, (block, bit)),
        }
        self.len += 1;
        true
    }

    /// Takes an identifier out. `false`: it was not there.
    pub fn remove(&mut self, id: u16) -> bool {
        let (block, bit) = place(id);
        let Ok(position) = self.blocks.binary_search_by_key(&block, |(known, _)| *known) else {
            return false;
        };
        let Some((_, bits)) = self.blocks.get_mut(position) else { return false };
        if *bits & bit == 0 {
            return false;
        }
        *bits &= !bit;
        if *bits == 0 {
            self.blocks.remove(position);
        }
        if self.blocks.is_empty() {
            self.blocks = Vec::new();
        }
        self.len -= 1;
        true
    }

    /// Whether it is there.
    #[must_use]
    pub fn contains(&self, id: u16) -> bool {
        let (block, bit) = place(id);
        let position = self.blocks.binary_search_by_key(&block, |(known, _)| *known);
        position.is_ok_and(|position| self.blocks.get(position).is_some_and(|(_, bits)| bits & bit != 0))
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.blocks.iter().flat_map(|(block, bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| block * 64 + bit)
        })
    }
}

impl FromIterator<u16> for PacketIds {
    fn from_iter<I: IntoIterator<Item = u16>>(ids: I) -> Self {
        let mut set = Self::default();
        for id in ids {
            set.insert(id);
        }
        set
    }
}

const fn place(id: u16) -> (u16, u64) {
    (id / 64, 1 << (id % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_set(history in prop::collection::vec((any::<bool>(), prop_oneof![0u16..300, any::<u16>()]), 0..400)) {
            let (mut ids, mut model) = (PacketIds::default(), BTreeSet::new());
            for (is_insert, id) in history {
                if is_insert {
                    prop_assert_eq!(ids.insert(id), model.insert(id));
                } else {
                    prop_assert_eq!(ids.remove(id), model.remove(&id));
                }
                prop_assert_eq!(ids.contains(id), model.contains(&id));
                prop_assert_eq!(ids.len(), model.len());
            }
            prop_assert_eq!(ids.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ids.blocks.is_empty(), model.is_empty());
        }
    }
}

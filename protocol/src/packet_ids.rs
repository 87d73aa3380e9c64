//! A set of packet identifiers: 16-bit numbers by which two ends of a link name an unfinished exchange.
//!
//! Identifiers in use lie close together, so the set keeps one word of bits for each block of 64 of them: all
//! 65 536 take 16 KiB, and an empty set takes no memory of its own. Knows no protocol.

/// See the file's first lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketIds {
    /// A block's number and its bits; sorted by number, no block is empty.
    blocks: Vec<(u16, u64)>,
    len: u32,
}

impl PacketIds {
    /// Enters an identifier; `false` when it is in already.
    pub fn insert(&mut self, id: u16) -> bool {
        let (number, bit) = place(id);
        match self.position(number) {
            Ok(position) => {
                let Some((_, bits)) = self.blocks.get_mut(position) else { return false };
                if *bits & bit != 0 {
                    return false;
                }
                *bits |= bit;
            }
            Err(position) => self.blocks.insert(position, (number, bit)),
        }
        self.len += 1;
        true
    }

    /// Takes an identifier out; `false` when it is not in.
    pub fn remove(&mut self, id: u16) -> bool {
        let (number, bit) = place(id);
        let Ok(position) = self.position(number) else { return false };
        let Some((_, bits)) = self.blocks.get_mut(position) else { return false };
        if *bits & bit == 0 {
            return false;
        }
        *bits &= !bit;
        if *bits == 0 {
            self.blocks.remove(position);
        }
        self.len -= 1;
        if self.len == 0 {
            self.blocks = Vec::new();
        }
        true
    }

    /// Whether an identifier is in.
    #[must_use]
    pub fn contains(&self, id: u16) -> bool {
        let (number, bit) = place(id);
        self.position(number)
            .ok()
            .and_then(|position| self.blocks.get(position))
            .is_some_and(|(_, bits)| bits & bit != 0)
    }

    /// How many are in.
    #[must_use]
    pub const fn len(&self) -> usize {
        // At most 65 536.
        self.len as usize
    }

    /// Whether none is in.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.blocks.iter().flat_map(|(number, bits)| {
            (0..64u16).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| (number << 6) | bit)
        })
    }

    fn position(&self, number: u16) -> Result<usize, usize> {
        self.blocks.binary_search_by_key(&number, |(number, _)| *number)
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

/// The number of its block and its bit there.
const fn place(id: u16) -> (u16, u64) {
    (id >> 6, 1 << (id & 63))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agrees_with_a_set_of_the_standard_library() {
        let (mut ours, mut theirs) = (PacketIds::default(), BTreeSet::new());
        let mut random = 1u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let id = u16::try_from(random >> 23).unwrap();
            if random & 0x40_0000 == 0 {
                assert_eq!(ours.insert(id), theirs.insert(id));
            } else {
                assert_eq!(ours.remove(id), theirs.remove(&id));
            }
            assert_eq!((ours.contains(id), ours.len()), (theirs.contains(&id), theirs.len()));
        }
        assert!(ours.iter().eq(theirs.iter().copied()));
    }

    #[test]
    fn all_identifiers_take_sixteen_kibibytes_and_none_take_nothing() {
        let mut ids: PacketIds = (0..=u16::MAX).collect();
        assert_eq!((ids.len(), ids.blocks.len() * size_of::<(u16, u64)>()), (65_536, 16 * 1024));
        for id in 0..=u16::MAX {
            assert!(ids.remove(id));
        }
        assert!(ids.is_empty() && ids.blocks.capacity() == 0);
    }
}

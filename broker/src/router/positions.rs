//! Positions in lists, as indices and links hold them, and the hash that an index of clients goes by. Knows no list.

/// Longer lists get an index.
pub(super) const LISTED_MAX: usize = 16;

/// Client keys are counted up by the broker itself, so mixing them is enough: nobody can choose collisions.
pub(super) fn hash(client: u64) -> u64 {
    let wide = u128::from(client ^ 0x243f_6a88_85a3_08d3) * 0x9e37_79b9_7f4a_7c15;
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    let (low, high) = (wide as u64, (wide >> 64) as u64);
    low ^ high
}

/// A position in half its size.
#[expect(
    clippy::cast_possible_truncation,
    reason = "four billion members or nodes would not fit into memory"
)]
pub(super) fn narrow(position: usize) -> u32 {
    position as u32
}

/// And back.
pub(super) fn widen(position: u32) -> usize {
    position as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// hashbrown takes the bucket from the low bits and its tag from the top seven.
    #[test]
    fn keys_that_are_counted_up_spread_in_low_and_high_bits() {
        for first in [0, 1 << 62, 1 << 63] {
            let hashes: Vec<u64> = (first..first + 4096).map(hash).collect();
            let low: BTreeSet<u64> = hashes.iter().map(|hash| hash & 0xFFF).collect();
            let high: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(low.len() > 2048, "{} of 4096 buckets from {first:x} on", low.len());
            assert_eq!(high.len(), 128, "tags from {first:x} on");
        }
    }

    #[test]
    fn a_position_comes_back_as_it_was() {
        for position in [0, 16, 1_000_000] {
            assert_eq!(widen(narrow(position)), position);
        }
    }
}

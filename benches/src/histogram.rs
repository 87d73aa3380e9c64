//! A log-linear histogram of nanoseconds: 32 steps per power of two, so an error of at most 3 %. No I/O.

/// Steps per power of two.
const STEPS: usize = 32;
/// Powers of two above the linear part.
const POWERS: usize = 59;

/// Counts of durations in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * (POWERS + 1)], total: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, ns: u64) {
        if let Some(count) = self.counts.get_mut(bucket(ns)) {
            *count += 1;
        }
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many were counted.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.total
    }

    /// Whether nothing was counted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The largest, exact.
    #[must_use]
    pub const fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The duration that `per_mille` of 1000 do not exceed; the upper edge of its step.
    #[must_use]
    pub fn per_mille_ns(&self, per_mille: u64) -> u64 {
        let wanted = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_edge(index).min(self.max_ns);
            }
        }
        self.max_ns
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.max_ns = 0;
    }
}

fn bucket(ns: u64) -> usize {
    let power = (63 - (ns | 1).leading_zeros()).saturating_sub(5);
    let step = usize::try_from(ns >> power).unwrap_or(usize::MAX);
    let power = usize::try_from(power).unwrap_or(POWERS);
    // Below 64 a value is its own step; above, steps 32..64 of each power follow one another.
    power * STEPS + step
}

const fn upper_edge(index: usize) -> u64 {
    if index < 2 * STEPS {
        return index as u64;
    }
    let power = index / STEPS - 1;
    let step = index - power * STEPS;
    ((step as u64 + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_at_most_three_percent_wide() {
        for ns in [1, 31, 63, 64, 65, 1000, 123_456, 98_765_432, 7_000_000_000] {
            let edge = upper_edge(bucket(ns));
            assert!(edge >= ns && edge <= ns + ns / 31, "{ns} fell into the step that ends at {edge}");
        }
    }

    #[test]
    fn percentiles_of_a_ramp_are_its_values() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|n| histogram.record(n * 1000));
        let p50 = histogram.per_mille_ns(500);
        assert!((500_000..=516_000).contains(&p50), "{p50}");
        assert_eq!(histogram.per_mille_ns(1000), 1_000_000);
    }
}

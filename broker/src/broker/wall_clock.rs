//! Instants, and Unix milliseconds for what is compared across restarts. Reads no clock: a [`Now`] knows both.

use std::time::{Duration, Instant};

use super::Now;

impl Now {
    /// The Unix time of an instant, in milliseconds.
    #[must_use]
    pub fn unix_ms_of(&self, instant: Instant) -> u64 {
        match instant.checked_duration_since(self.instant) {
            Some(ahead) => self.unix_ms.saturating_add(in_ms(ahead)),
            None => self.unix_ms.saturating_sub(in_ms(self.instant.saturating_duration_since(instant))),
        }
    }

    /// The instant of a Unix time in milliseconds; now, for one that has passed. `None`: it does not come.
    #[must_use]
    pub fn instant_of(&self, unix_ms: u64) -> Option<Instant> {
        self.instant.checked_add(Duration::from_millis(unix_ms.saturating_sub(self.unix_ms)))
    }
}

/// Whole milliseconds.
pub(super) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_together() {
        let instant = tokio::time::Instant::now().into_std();
        let now = Now { instant, unix_ms: 1_000_000 };
        let later = instant + Duration::from_millis(250);
        assert_eq!(now.unix_ms_of(later), 1_000_250);
        assert_eq!(now.instant_of(1_000_250), Some(later));
        assert_eq!(now.instant_of(999_000), Some(instant), "what has passed is due now");
        let after = Now { instant: later, unix_ms: 1_000_250 };
        assert_eq!(after.unix_ms_of(instant), 1_000_000);
    }
}

//! Instants, and Unix milliseconds for what is compared across restarts. Reads no clock: a [`Now`] knows both.

use std::time::{Duration, Instant};

use tidegate_protocol::publication::Publication;

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

    /// Gives a publication its expiry by both clocks, of whichever its publisher said; the earlier one, if both.
    pub(super) fn settle_expiry(&self, publication: &mut Publication) {
        let said = publication.expires_ms.and_then(|at_ms| self.instant_of(at_ms));
        publication.expires_at = publication.expires_at.into_iter().chain(said).min();
        publication.expires_ms = publication.expires_at.map(|at| self.unix_ms_of(at));
    }
}

/// Whole milliseconds.
pub(super) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::topic::{Topic, TopicLimits};

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

    #[test]
    fn an_expiry_is_known_by_both_clocks_and_the_earlier_one_counts() {
        let instant = tokio::time::Instant::now().into_std();
        let now = Now { instant, unix_ms: 1_000_000 };
        let at = |ms| instant + Duration::from_millis(ms);
        for (by_instant, by_wall, expected) in [
            (None, None, None),
            (Some(at(500)), None, Some((at(500), 1_000_500))),
            (None, Some(1_000_500), Some((at(500), 1_000_500))),
            (Some(at(400)), Some(1_000_500), Some((at(400), 1_000_400))),
            (Some(at(500)), Some(1_000_400), Some((at(400), 1_000_400))),
            (None, Some(999_999), Some((instant, 1_000_000))),
            (None, Some(1), Some((instant, 1_000_000))),
        ] {
            let topic = Topic::parse("a", &TopicLimits::STANDARD).unwrap();
            let mut publication = Publication::new(topic, "x".into());
            (publication.expires_at, publication.expires_ms) = (by_instant, by_wall);
            now.settle_expiry(&mut publication);
            let settled = publication.expires_at.zip(publication.expires_ms);
            assert_eq!(settled, expected, "{by_instant:?} {by_wall:?}");
            assert_eq!(publication.is_expired(instant), by_wall.is_some_and(|at_ms| at_ms <= now.unix_ms));
        }
    }
}

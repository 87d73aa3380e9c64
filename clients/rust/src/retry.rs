//! When to connect again: the table of close codes (WIRE §5) and the pauses. Draws no random number itself and
//! reads no clock.

use std::time::Duration;

use crate::error::{ConnectError, Disconnect};
use crate::options::Backoff;

/// What the end of a connection calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would end the same way.
    Never,
    /// Nothing speaks against it.
    AtOnce,
    /// After a growing pause.
    BackOff,
    /// After the time that the broker named.
    After(Duration),
}

/// No pause is longer than this, and somewhat more at random, whoever named it.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// A connection that lasted so long is a success; pauses begin anew after it.
const STABLE_AFTER: Duration = Duration::from_secs(10);

impl Retry {
    /// WIRE §5. `bye` is the time from the broker's `bye`, for a close whose reason has none.
    pub(crate) fn after(end: &Disconnect, bye: Option<Duration>) -> Self {
        let (code, reason) = match end {
            Disconnect::Closed { code: Some(code), reason } => (*code, reason),
            Disconnect::Closed { code: None, .. } | Disconnect::Eof | Disconnect::Io(_) => {
                return bye.map_or(Self::BackOff, Self::After);
            }
            Disconnect::PingTimeout => return Self::AtOnce,
            // Either end has a fault to be fixed, as with 1002, 1003, 1007 and 1009 in the other direction.
            Disconnect::Frame(_)
            | Disconnect::Answer(_)
            | Disconnect::TextFrame
            | Disconnect::WrongAnswer => return Self::Never,
        };
        match code {
            1001 | 1012 => retry_after(reason).or(bye).map_or(Self::BackOff, Self::After),
            1000 | 1002 | 1003 | 1007..=1010 | 4000..=4099 => Self::Never,
            4200..=4299 => Self::AtOnce,
            _ => Self::BackOff,
        }
    }

    /// What a failed attempt calls for.
    pub(crate) fn after_attempt(error: &ConnectError) -> Self {
        match error {
            ConnectError::Io(_) | ConnectError::TimedOut => Self::BackOff,
            ConnectError::Refused { status: 408 | 425 | 429 | 500..=599, .. } => Self::BackOff,
            ConnectError::Hello(refused) if refused.may_retry => Self::BackOff,
            ConnectError::Lost(end) => Self::after(end, None),
            ConnectError::Url(_)
            | ConnectError::Refused { .. }
            | ConnectError::Handshake(_)
            | ConnectError::NoSubprotocol
            | ConnectError::Hello(_) => Self::Never,
        }
    }
}

/// The number in `retry-after=ms`.
fn retry_after(reason: &str) -> Option<Duration> {
    let (_, rest) = reason.split_once("retry-after=")?;
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok().map(Duration::from_millis)
}

/// The pauses of one client.
#[derive(Debug)]
pub(crate) struct Pauses {
    backoff: Backoff,
    failures: u32,
}

impl Pauses {
    pub(crate) fn new(backoff: Backoff) -> Self {
        let Backoff { first, max } = backoff;
        Self { backoff: Backoff { first: first.min(PAUSE_MAX), max: max.min(PAUSE_MAX) }, failures: 0 }
    }

    /// A connection that lasted so long ended.
    pub(crate) fn handle_end(&mut self, lasted: Duration) {
        if lasted >= STABLE_AFTER {
            self.failures = 0;
        }
    }

    /// The pause before the next attempt; `None` is for good. `random` is from 0 to 1.
    pub(crate) fn next(&mut self, retry: Retry, random: f64) -> Option<Duration> {
        let is_first = self.failures == 0;
        let pause = match retry {
            Retry::Never => return None,
            // A broker that always ends the connection so must not make the client spin.
            Retry::AtOnce if is_first => Duration::ZERO,
            Retry::AtOnce | Retry::BackOff => {
                let longest = self.longest();
                longest / 2 + (longest / 2).mul_f64(random.clamp(0.0, 1.0))
            }
            Retry::After(named) => {
                let named = named.min(PAUSE_MAX);
                let at_least = if is_first { named } else { named.max(self.longest()) };
                // So that not all clients of a restarted broker come in the same instant.
                at_least + (self.backoff.first + named / 4).mul_f64(random.clamp(0.0, 1.0))
            }
        };
        self.failures = self.failures.saturating_add(1);
        Some(pause)
    }

    fn longest(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.backoff.first.saturating_mul(factor).min(self.backoff.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16, reason: &str) -> Disconnect {
        Disconnect::Closed { code: Some(code), reason: reason.to_owned() }
    }

    #[test]
    fn obeys_the_table_of_close_codes() {
        for (codes, retry) in [
            (&[1000, 1002, 1003, 1007, 1008, 1009, 4000, 4001, 4005, 4099][..], Retry::Never),
            (&[1011, 1013, 1014, 4100, 4101, 4103, 4199, 3000, 4300, 4999], Retry::BackOff),
            (&[4200, 4201, 4202, 4299], Retry::AtOnce),
            (&[1001, 1012], Retry::BackOff),
        ] {
            for code in codes {
                assert_eq!(Retry::after(&closed(*code, "x"), None), retry, "{code}");
            }
        }
    }

    #[test]
    fn takes_the_time_from_the_reason_or_else_from_bye() {
        let (named, bye) = (Duration::from_millis(1500), Duration::from_secs(9));
        for (reason, bye, retry) in [
            ("retry-after=1500", None, Retry::After(named)),
            ("restart; retry-after=1500; soon", Some(bye), Retry::After(named)),
            ("retry-after=", Some(bye), Retry::After(bye)),
            ("retry-after=99999999999999999999", None, Retry::BackOff),
            ("", None, Retry::BackOff),
        ] {
            assert_eq!(Retry::after(&closed(1012, reason), bye), retry, "{reason:?}");
        }
        assert_eq!(Retry::after(&Disconnect::Eof, Some(bye)), Retry::After(bye));
        assert_eq!(Retry::after(&Disconnect::Eof, None), Retry::BackOff);
    }

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };

    fn check(retries: &[(Retry, f64, Option<u64>)]) {
        let mut pauses = Pauses::new(BACKOFF);
        for (at, (retry, random, expected)) in retries.iter().enumerate() {
            let pause = pauses.next(*retry, *random);
            assert_eq!(pause, expected.map(Duration::from_millis), "pause {at} of {retries:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_shortened_at_random() {
        check(&[
            (Retry::BackOff, 1.0, Some(100)),
            (Retry::BackOff, 0.0, Some(100)),
            (Retry::BackOff, 0.5, Some(300)),
            (Retry::BackOff, 1.0, Some(800)),
            (Retry::BackOff, 1.0, Some(1000)),
            (Retry::BackOff, 0.0, Some(500)),
            (Retry::Never, 0.0, None),
        ]);
    }

    #[test]
    fn at_once_is_at_once_only_the_first_time() {
        check(&[(Retry::AtOnce, 1.0, Some(0)), (Retry::AtOnce, 1.0, Some(200))]);
    }

    #[test]
    fn a_named_time_is_kept_and_spread_beyond_never_before() {
        let named = Retry::After(Duration::from_millis(400));
        check(&[(named, 0.0, Some(400)), (named, 1.0, Some(600))]);
        check(&[(Retry::After(Duration::MAX), 0.0, Some(3_600_000))]);
    }

    #[test]
    fn a_stable_connection_makes_the_pauses_begin_anew() {
        let mut pauses = Pauses::new(BACKOFF);
        for _ in 0..100 {
            pauses.next(Retry::BackOff, 1.0);
        }
        pauses.handle_end(Duration::from_secs(1));
        assert_eq!(pauses.next(Retry::BackOff, 1.0), Some(BACKOFF.max));
        pauses.handle_end(Duration::from_secs(10));
        assert_eq!(pauses.next(Retry::BackOff, 1.0), Some(BACKOFF.first));
    }

    #[test]
    fn a_refused_handshake_is_tried_again_only_when_the_server_may_recover() {
        for (status, retry) in
            [(503, Retry::BackOff), (429, Retry::BackOff), (401, Retry::Never), (404, Retry::Never)]
        {
            let error = ConnectError::Refused { status, body: String::new() };
            assert_eq!(Retry::after_attempt(&error), retry, "{status}");
        }
    }
}

//! When to send a Ping and when to give up. Reads no clock.

use std::time::Duration;

use tokio::time::Instant;

/// The heartbeat of one connection.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    state: State,
}

/// ```text
///  Quiet ──interval──▶ Pinged ──timeout──▶ (given up)
///    ▲ └── any byte ──┘  │ any byte
///    └─────────────────┘
/// ```
#[derive(Clone, Copy, Debug)]
enum State {
    Quiet { ping_at: Instant },
    Pinged { give_up_at: Instant },
}

/// What the time calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Wait,
    SendPing,
    GiveUp,
}

/// As good as never, and still a time that can be added to an instant.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl Heartbeat {
    pub(crate) fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        let (interval, timeout) = (interval.min(LONGEST), timeout.min(LONGEST));
        Self { interval, timeout, state: State::Quiet { ping_at: now + interval } }
    }

    /// Something came, whatever it is.
    pub(crate) fn handle_input(&mut self, now: Instant) {
        self.state = State::Quiet { ping_at: now + self.interval };
    }

    /// We read again after a time in which we did not: the answer may have been waiting for us, not we for it.
    pub(crate) fn handle_resumed(&mut self, now: Instant) {
        if let State::Pinged { .. } = self.state {
            self.state = State::Pinged { give_up_at: now + self.timeout };
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Beat {
        match self.state {
            State::Quiet { ping_at } if ping_at <= now => {
                self.state = State::Pinged { give_up_at: now + self.timeout };
                Beat::SendPing
            }
            State::Pinged { give_up_at } if give_up_at <= now => Beat::GiveUp,
            State::Quiet { .. } | State::Pinged { .. } => Beat::Wait,
        }
    }

    pub(crate) const fn poll_timeout(&self) -> Instant {
        match self.state {
            State::Quiet { ping_at } => ping_at,
            State::Pinged { give_up_at } => give_up_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pings_after_silence_and_gives_up_after_more() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(10 * SECOND, 3 * SECOND, start);
        assert_eq!(heartbeat.handle_timeout(start + 9 * SECOND), Beat::Wait);
        heartbeat.handle_input(start + 9 * SECOND);
        assert_eq!(heartbeat.handle_timeout(start + 18 * SECOND), Beat::Wait);
        assert_eq!(heartbeat.poll_timeout(), start + 19 * SECOND);
        assert_eq!(heartbeat.handle_timeout(start + 19 * SECOND), Beat::SendPing);
        assert_eq!(heartbeat.handle_timeout(start + 21 * SECOND), Beat::Wait);
        assert_eq!(heartbeat.handle_timeout(start + 22 * SECOND), Beat::GiveUp);
    }

    #[test]
    fn time_in_which_we_did_not_read_does_not_count() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(SECOND, SECOND, start);
        assert_eq!(heartbeat.handle_timeout(start + SECOND), Beat::SendPing);
        heartbeat.handle_resumed(start + 60 * SECOND);
        assert_eq!(heartbeat.handle_timeout(start + 60 * SECOND), Beat::Wait);
        assert_eq!(heartbeat.handle_timeout(start + 61 * SECOND), Beat::GiveUp);
    }
}

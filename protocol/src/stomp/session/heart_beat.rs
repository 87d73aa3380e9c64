//! When to send a heart-beat, and when the client has been silent for too long. STOMP 1.2 "Heart-beating".

use std::time::{Duration, Instant};

use super::super::Settings;
use super::error::SessionError;

/// What a CONNECT says: `<cx,cy>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// How often the client can send; zero: never.
    sends: Duration,
    /// How often the client wants to hear; zero: never.
    wants: Duration,
}

/// The agreed intervals and when they last counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeartBeats {
    send_every: Option<Duration>,
    receive_within: Option<Duration>,
    last_sent: Instant,
    last_received: Instant,
    /// While the connection does not read, the client's silence is ours.
    is_paused: bool,
}

impl Offer {
    /// Two numbers of milliseconds. Without the header: `0,0`.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, SessionError> {
        const WRONG: SessionError =
            SessionError::BadHeader { name: "heart-beat", why: "it is two numbers of milliseconds" };
        let Some(text) = text else { return Ok(Self::default()) };
        let (sends, wants) = text.split_once(',').ok_or(WRONG)?;
        let parse = |number: &str| {
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let milliseconds = if digits { number.parse().ok() } else { None };
            milliseconds.map(Duration::from_millis).ok_or(WRONG)
        };
        Ok(Self { sends: parse(sends)?, wants: parse(wants)? })
    }
}

impl HeartBeats {
    /// None in either direction.
    pub(super) const fn off(now: Instant) -> Self {
        Self { send_every: None, receive_within: None, last_sent: now, last_received: now, is_paused: false }
    }

    /// What both sides can keep: in each direction the longer of the two intervals, or nothing if either says 0.
    pub(super) fn agree(&mut self, offer: Offer, settings: &Settings, now: Instant) {
        let agree =
            |one: Duration, other: Duration| (!one.is_zero() && !other.is_zero()).then(|| one.max(other));
        self.send_every = agree(settings.heart_beat_send, offer.wants);
        self.receive_within = agree(offer.sends, settings.heart_beat_receive).map(|interval| {
            let seconds = interval.as_secs_f64() * settings.heart_beat_tolerance.max(1.0);
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        });
        self.last_sent = now;
        self.last_received = now;
    }

    pub(super) const fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    pub(super) const fn received(&mut self, now: Instant) {
        self.last_received = now;
    }

    pub(super) const fn pause(&mut self) {
        self.is_paused = true;
    }

    pub(super) const fn resume(&mut self, now: Instant) {
        self.is_paused = false;
        self.last_received = now;
    }

    /// When a line feed is due.
    pub(super) fn send_at(&self) -> Option<Instant> {
        self.last_sent.checked_add(self.send_every?)
    }

    /// When the client counts as gone.
    pub(super) fn dead_at(&self) -> Option<Instant> {
        if self.is_paused {
            return None;
        }
        self.last_received.checked_add(self.receive_within?)
    }

    /// How long the client may be silent, for the ERROR.
    pub(super) fn patience(&self) -> Duration {
        self.receive_within.unwrap_or_default()
    }
}

//! STOMP 1.0, 1.1 and 1.2 over WebSocket: versions, settings and how a session begins.
//!
//! ```text
//!   Message ─▶ codec ─▶ Frame ─▶ session ─▶ Request        (a frame may span messages, a message may hold many)
//!   Outgoing ◀─ frame, message ◀─ session ◀─ Reply, Delivery
//! ```
//!
//! - [`frame`]: a frame as a value, and its bytes. [`codec`]: bytes to frames, within limits.
//! - `destination`: what a destination means on the common topic space, and back (WIRE §6).
//! - `message`: a publication as MESSAGE, the larger part of it shared by all receivers; [`FORMS`]: that part where the
//!   broker writes the head itself.
//! - `session`: the conversation. `commands`: what each frame asks of the broker; `subscribe` and `durable`: what a
//!   SUBSCRIBE says; `subscriptions`: those that there are, and what waits for ACK; `transaction`: what waits for COMMIT.

pub mod codec;
mod destination;
mod escape;
mod forms;
pub mod frame;
mod message;
mod session;

use std::fmt;
use std::time::{Duration, Instant};

pub use forms::FORMS;
pub use message::{MESSAGE_BODY, MESSAGE_BODY_DOTTED};

use crate::session::Session;
use crate::topic::TopicLimits;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// STOMP 1.0.
    V1_0,
    /// STOMP 1.1.
    V1_1,
    /// STOMP 1.2.
    V1_2,
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `stomp.versions`: what is spoken.
    pub versions: Vec<Version>,
    /// First of `stomp.heart_beat`: how often we can send something. Zero: never.
    pub heart_beat_send: Duration,
    /// Second of `stomp.heart_beat`: how often we want to hear something. Zero: never.
    pub heart_beat_receive: Duration,
    /// `stomp.heart_beat_tolerance`: the client is given up after this many of its intervals in silence.
    pub heart_beat_tolerance: f64,
    /// `stomp.connect_timeout`: from the upgrade to CONNECT (SEC-6).
    pub connect_timeout: Duration,
    /// `stomp.max_headers` of one frame.
    pub max_headers: usize,
    /// `stomp.max_header_bytes`: the command line and all header lines of one frame.
    pub max_header_bytes: usize,
    /// `stomp.max_body` of one frame.
    pub max_body: usize,
    /// `stomp.max_transactions` that one client may have open.
    pub max_transactions: usize,
    /// `stomp.max_transaction_actions` of one transaction. The bodies of all that are open are bounded by
    /// `max_message_size` together, and so is what else was said with them.
    pub max_transaction_actions: usize,
    /// `stomp.max_selector_bytes`.
    pub max_selector_bytes: usize,
    /// `stomp.prefetch`: unacknowledged messages of one subscription, and the most that `prefetch-count` gets.
    pub prefetch: usize,
    /// `stomp.frames`.
    pub frames: FrameKind,
    /// `stomp.separator`.
    pub separator: Separator,
    /// `stomp.unknown_prefix`.
    pub unknown_prefix: UnknownPrefix,
    /// `websocket.max_message_size`: one whole frame.
    pub max_message_size: usize,
    /// `websocket.max_message_size_preauth`: the CONNECT frame (SEC-5).
    pub max_message_size_preauth: usize,
    /// `mqtt.max_topic_bytes` and `mqtt.max_topic_levels`.
    pub topic_limits: TopicLimits,
    /// `mqtt.max_subscriptions` of one session.
    pub max_subscriptions: usize,
    /// `mqtt.receive_maximum`: requests of one client that may wait for the broker.
    pub receive_maximum: usize,
}

/// The kind of WebSocket message that carries a frame to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameKind {
    /// Text if the whole frame is UTF-8, binary otherwise.
    #[default]
    Auto,
    /// As `Auto`: what is not UTF-8 cannot be sent as text (RFC 6455 §8.1).
    Text,
    /// Always binary.
    Binary,
}

/// What stands between the levels of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Separator {
    /// `/`, as in a topic: the identity.
    #[default]
    Slash,
    /// `.`, with `*` for one level and a final `#` or `>` for all that follow. What a level has of `.` and `%` is
    /// written `%2E` and `%25`, and a level that is `*` or `>` by name `%2A` or `%3E`.
    Dot,
}

/// What a destination with an unknown first word means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownPrefix {
    /// A mistake: ERROR.
    #[default]
    Error,
    /// A topic that begins with a slash, taken verbatim.
    Topic,
}

impl Version {
    /// All versions, the lowest first.
    pub const ALL: [Self; 3] = [Self::V1_0, Self::V1_1, Self::V1_2];

    /// As it stands in `accept-version` and `version`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// The version of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            versions: Version::ALL.to_vec(),
            heart_beat_send: Duration::from_secs(10),
            heart_beat_receive: Duration::from_secs(10),
            heart_beat_tolerance: 2.0,
            connect_timeout: Duration::from_secs(10),
            max_headers: 100,
            max_header_bytes: 8 * 1024,
            max_body: 1024 * 1024,
            max_transactions: 16,
            max_transaction_actions: 1024,
            max_selector_bytes: 4 * 1024,
            prefetch: 32,
            frames: FrameKind::Auto,
            separator: Separator::Slash,
            unknown_prefix: UnknownPrefix::Error,
            max_message_size: 1024 * 1024,
            max_message_size_preauth: 64 * 1024,
            topic_limits: TopicLimits { bytes_max: 4 * 1024, levels_max: 128 },
            max_subscriptions: 1000,
            receive_maximum: 256,
        }
    }
}

/// Begins a session. `ceiling` is the version that the WebSocket token named; CONNECT may settle on a lower one.
#[must_use]
pub fn open(
    ceiling: Version,
    bearer: Option<Box<str>>,
    settings: &Settings,
    now: Instant,
) -> Box<dyn Session> {
    Box::new(session::StompSession::new(ceiling, bearer, settings, now))
}

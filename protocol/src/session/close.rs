//! Why a connection ends, with the WebSocket close codes (WIRE §5).
//!
//! Knows no protocol's own words for it; each maps the kinds in one place.

use std::borrow::Cow;

/// Why a connection ends, with the WebSocket close code of WIRE §5. Protocols say it in their own words first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// The kind, which decides codes.
    pub kind: CloseKind,
    /// One sentence for the client's developer; may be empty. Cut to 123 bytes in the Close frame.
    pub detail: Cow<'static, str>,
}

/// The kinds of end (WIRE §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseKind {
    /// All said.
    Normal,
    /// The broker stops.
    ShuttingDown,
    /// The broker restarts.
    Restarting,
    /// The peer broke the protocol.
    ProtocolError,
    /// The wrong kind of frame.
    UnsupportedData,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// A message above the limit.
    TooBig,
    /// A rule of the house.
    Policy,
    /// The broker has too much to do.
    Overloaded,
    /// A request that makes no sense.
    BadRequest,
    /// Credentials refused.
    AuthFailed,
    /// Rights refused.
    Denied,
    /// A frame on a read-only connection.
    PublishNotEnabled,
    /// An operator ended it.
    Kicked,
    /// The same client id connected again.
    Replaced,
    /// A limit on connections.
    TooManyConnections,
    /// A slow reader under the policy `disconnect`.
    TooSlow,
    /// Too many messages.
    RateLimited,
    /// No CONNECT in time.
    AuthTimeout,
    /// No pong, packet or heart-beat in time.
    PingTimeout,
    /// A limit on outstanding publishes, MQTT 5's Receive Maximum.
    ReceiveMaximum,
    /// A fault of ours.
    Internal,
}

impl CloseReason {
    /// A reason with a sentence.
    #[must_use]
    pub fn new(kind: CloseKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// The normal end.
    #[must_use]
    pub const fn normal() -> Self {
        Self { kind: CloseKind::Normal, detail: Cow::Borrowed("") }
    }
}

impl CloseKind {
    /// The WebSocket close code.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::ShuttingDown => 1001,
            Self::ProtocolError | Self::ReceiveMaximum => 1002,
            Self::UnsupportedData => 1003,
            Self::InvalidUtf8 => 1007,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Restarting => 1012,
            Self::Overloaded => 1013,
            Self::BadRequest => 4000,
            Self::AuthFailed => 4001,
            Self::Denied => 4002,
            Self::PublishNotEnabled => 4003,
            Self::Kicked => 4004,
            Self::Replaced => 4005,
            Self::TooManyConnections => 4100,
            Self::TooSlow => 4101,
            Self::RateLimited => 4102,
            Self::AuthTimeout => 4103,
            Self::PingTimeout => 4200,
        }
    }
}

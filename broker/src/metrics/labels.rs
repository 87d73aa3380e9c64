//! The words that counters are split by: reasons of refusals, drops and ends.
//!
//! Each is on the page as it stands here. Knows no counter.

use tidegate_protocol::session::{CloseKind, DropReason, Refusal};

/// Words that a counter is split by.
pub trait Label: Copy {
    /// All of them, in the order of [`Label::index`].
    const NAMES: &'static [&'static str];
    /// The position of this one.
    fn index(self) -> usize;
}

/// Declares the words of a label, in one place and for every variant.
macro_rules! label {
    ($label:ty { $($pattern:pat => $index:ident = $name:literal),* $(,)? }) => {
        impl Label for $label {
            const NAMES: &'static [&'static str] = &[$($name),*];

            fn index(self) -> usize {
                enum Index { $($index),* }
                match self { $($pattern => Index::$index as usize),* }
            }
        }
    };
}

/// Why a handshake got no 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeRefusal {
    /// 400: not a proper request, or nothing to agree on.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403: the Origin.
    Origin,
    /// 404: the path.
    Path,
    /// 405, 426: not a WebSocket handshake, or another version.
    NotWebSocket,
    /// 431.
    HeadTooLarge,
    /// 503: `max_connections`.
    Connections,
    /// 503: `max_connections_per_ip`.
    ConnectionsPerIp,
    /// 503: `accept_rate`.
    Rate,
    /// 503: the broker stops or is out of memory for queues.
    Overloaded,
    /// `handshake_timeout`.
    Timeout,
}

label!(HandshakeRefusal {
    Self::BadRequest => BadRequest = "bad_request",
    Self::Unauthorized => Unauthorized = "unauthorized",
    Self::Origin => Origin = "origin",
    Self::Path => Path = "path",
    Self::NotWebSocket => NotWebSocket = "not_websocket",
    Self::HeadTooLarge => HeadTooLarge = "head_too_large",
    Self::Connections => Connections = "max_connections",
    Self::ConnectionsPerIp => ConnectionsPerIp = "max_connections_per_ip",
    Self::Rate => Rate = "accept_rate",
    Self::Overloaded => Overloaded = "overloaded",
    Self::Timeout => Timeout = "timeout",
});

/// Why a publish was not taken: [`Refusal`] without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishRefusal {
    /// Rights.
    NotAuthorized,
    /// A topic that clients do not write.
    BadTopic,
    /// A limit.
    Quota,
    /// Too much for now.
    Overloaded,
    /// Not something this broker does.
    Unsupported,
    /// A fault of ours.
    Internal,
}

impl From<&Refusal> for PublishRefusal {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::BadCredentials
            | Refusal::BadMethod
            | Refusal::NotAuthorized
            | Refusal::Forbidden(_)
            | Refusal::BadClientId(_) => Self::NotAuthorized,
            Refusal::BadTopic(_) => Self::BadTopic,
            Refusal::Quota { .. } => Self::Quota,
            Refusal::Overloaded(_) => Self::Overloaded,
            Refusal::Unsupported(_) => Self::Unsupported,
            Refusal::Internal => Self::Internal,
        }
    }
}

label!(PublishRefusal {
    Self::NotAuthorized => NotAuthorized = "not_authorized",
    Self::BadTopic => BadTopic = "bad_topic",
    Self::Quota => Quota = "quota",
    Self::Overloaded => Overloaded = "overloaded",
    Self::Unsupported => Unsupported = "unsupported",
    Self::Internal => Internal = "internal",
});

label!(DropReason {
    Self::Oldest => Oldest = "oldest",
    Self::Newest => Newest = "newest",
    Self::Conflated => Conflated = "conflated",
    Self::Expired => Expired = "expired",
    Self::TooLarge => TooLarge = "too_large",
    Self::Memory => Memory = "memory",
    Self::Refused => Refused = "refused",
    Self::Closed => Closed = "closed",
});

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// We closed it.
    Closed(CloseKind),
    /// The peer sent a Close.
    ByPeer,
    /// The socket broke or ended without a Close.
    Lost,
}

label!(Ended {
    Self::ByPeer => ByPeer = "by_peer",
    Self::Lost => Lost = "lost",
    Self::Closed(CloseKind::Normal) => Normal = "normal",
    Self::Closed(CloseKind::ShuttingDown) => ShuttingDown = "shutting_down",
    Self::Closed(CloseKind::Restarting) => Restarting = "restarting",
    Self::Closed(CloseKind::ProtocolError) => ProtocolError = "protocol_error",
    Self::Closed(CloseKind::UnsupportedData) => UnsupportedData = "unsupported_data",
    Self::Closed(CloseKind::InvalidUtf8) => InvalidUtf8 = "invalid_utf8",
    Self::Closed(CloseKind::TooBig) => TooBig = "too_big",
    Self::Closed(CloseKind::Policy) => Policy = "policy",
    Self::Closed(CloseKind::Overloaded) => Overloaded = "overloaded",
    Self::Closed(CloseKind::BadRequest) => BadRequest = "bad_request",
    Self::Closed(CloseKind::AuthFailed) => AuthFailed = "auth_failed",
    Self::Closed(CloseKind::Denied) => Denied = "denied",
    Self::Closed(CloseKind::PublishNotEnabled) => PublishNotEnabled = "publish_not_enabled",
    Self::Closed(CloseKind::Kicked) => Kicked = "kicked",
    Self::Closed(CloseKind::Replaced) => Replaced = "replaced",
    Self::Closed(CloseKind::TooManyConnections) => TooManyConnections = "too_many_connections",
    Self::Closed(CloseKind::TooSlow) => TooSlow = "too_slow",
    Self::Closed(CloseKind::RateLimited) => RateLimited = "rate_limited",
    Self::Closed(CloseKind::AuthTimeout) => AuthTimeout = "auth_timeout",
    Self::Closed(CloseKind::PingTimeout) => PingTimeout = "ping_timeout",
    Self::Closed(CloseKind::ReceiveMaximum) => ReceiveMaximum = "receive_maximum",
    Self::Closed(CloseKind::Internal) => Internal = "internal",
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_words_share_a_counter() {
        fn distinct(names: &[&str]) {
            for (at, name) in names.iter().enumerate() {
                assert!(!names[..at].contains(name), "{name}");
            }
        }
        distinct(DropReason::NAMES);
        distinct(Ended::NAMES);
        distinct(HandshakeRefusal::NAMES);
        distinct(PublishRefusal::NAMES);
        assert_eq!(Ended::NAMES[Ended::Closed(CloseKind::PingTimeout).index()], "ping_timeout");
    }
}

//! MQTT's reason codes, and the one place where refusals and closes are turned into them.
//!
//! Everywhere else MQTT 5's codes are used; the codec turns them into the few codes of 3.x on the wire.
//! Spec: OASIS MQTT 5.0 §2.4, §4.13; OASIS MQTT 3.1.1 §3.2.2.3, §3.9.3.

use std::fmt;

use super::packet::PacketType;
use crate::session::{CloseKind, Refusal};

/// One byte that says how something went; 0x80 and above are failures.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReasonCode(pub u8);

macro_rules! reason_codes {
    ($($name:ident = $code:literal, $words:literal;)*) => {
        impl ReasonCode {
            $(#[doc = $words] pub const $name: Self = Self($code);)*

            /// The standard's name of the code.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => $words,)*
                    _ => "unknown reason code",
                }
            }
        }
    };
}

reason_codes! {
    SUCCESS = 0x00, "Success";
    GRANTED_QOS_1 = 0x01, "Granted QoS 1";
    GRANTED_QOS_2 = 0x02, "Granted QoS 2";
    DISCONNECT_WITH_WILL = 0x04, "Disconnect with Will Message";
    NO_MATCHING_SUBSCRIBERS = 0x10, "No matching subscribers";
    NO_SUBSCRIPTION_EXISTED = 0x11, "No subscription existed";
    CONTINUE_AUTHENTICATION = 0x18, "Continue authentication";
    REAUTHENTICATE = 0x19, "Re-authenticate";
    UNSPECIFIED_ERROR = 0x80, "Unspecified error";
    MALFORMED_PACKET = 0x81, "Malformed Packet";
    PROTOCOL_ERROR = 0x82, "Protocol Error";
    IMPLEMENTATION_SPECIFIC = 0x83, "Implementation specific error";
    UNSUPPORTED_PROTOCOL_VERSION = 0x84, "Unsupported Protocol Version";
    CLIENT_IDENTIFIER_NOT_VALID = 0x85, "Client Identifier not valid";
    BAD_USER_NAME_OR_PASSWORD = 0x86, "Bad User Name or Password";
    NOT_AUTHORIZED = 0x87, "Not authorized";
    SERVER_UNAVAILABLE = 0x88, "Server unavailable";
    SERVER_BUSY = 0x89, "Server busy";
    BANNED = 0x8A, "Banned";
    SERVER_SHUTTING_DOWN = 0x8B, "Server shutting down";
    BAD_AUTHENTICATION_METHOD = 0x8C, "Bad authentication method";
    KEEP_ALIVE_TIMEOUT = 0x8D, "Keep Alive timeout";
    SESSION_TAKEN_OVER = 0x8E, "Session taken over";
    TOPIC_FILTER_INVALID = 0x8F, "Topic Filter invalid";
    TOPIC_NAME_INVALID = 0x90, "Topic Name invalid";
    PACKET_IDENTIFIER_IN_USE = 0x91, "Packet Identifier in use";
    PACKET_IDENTIFIER_NOT_FOUND = 0x92, "Packet Identifier not found";
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "Receive Maximum exceeded";
    TOPIC_ALIAS_INVALID = 0x94, "Topic Alias invalid";
    PACKET_TOO_LARGE = 0x95, "Packet too large";
    MESSAGE_RATE_TOO_HIGH = 0x96, "Message rate too high";
    QUOTA_EXCEEDED = 0x97, "Quota exceeded";
    ADMINISTRATIVE_ACTION = 0x98, "Administrative action";
    PAYLOAD_FORMAT_INVALID = 0x99, "Payload format invalid";
    RETAIN_NOT_SUPPORTED = 0x9A, "Retain not supported";
    QOS_NOT_SUPPORTED = 0x9B, "QoS not supported";
    USE_ANOTHER_SERVER = 0x9C, "Use another server";
    SERVER_MOVED = 0x9D, "Server moved";
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E, "Shared Subscriptions not supported";
    CONNECTION_RATE_EXCEEDED = 0x9F, "Connection rate exceeded";
    MAXIMUM_CONNECT_TIME = 0xA0, "Maximum connect time";
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1, "Subscription Identifiers not supported";
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2, "Wildcard Subscriptions not supported";
}

impl ReasonCode {
    /// Whether it says that something failed (§2.4).
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// Whether a packet of this type may carry the code (the tables of §3.2.2.2, §3.4.2.1 … §3.15.2.1).
    /// What is decoded and what is said keeps to them: CONNACK [MQTT-3.2.2-8], PUBACK [MQTT-3.4.2-1], PUBREC
    /// [MQTT-3.5.2-1], PUBREL [MQTT-3.6.2-1], PUBCOMP [MQTT-3.7.2-1], SUBACK [MQTT-3.9.3-2], UNSUBACK [MQTT-3.11.3-2],
    /// DISCONNECT [MQTT-3.14.2-1], AUTH [MQTT-3.15.2-1].
    #[must_use]
    pub const fn is_allowed_in(self, packet: PacketType) -> bool {
        match packet {
            PacketType::ConnAck => matches!(
                self.0,
                0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
            ),
            PacketType::PubAck | PacketType::PubRec => {
                matches!(self.0, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            PacketType::PubRel | PacketType::PubComp => matches!(self.0, 0x00 | 0x92),
            PacketType::SubAck => {
                matches!(self.0, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
            }
            PacketType::UnsubAck => {
                matches!(self.0, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
            }
            PacketType::Disconnect => matches!(
                self.0,
                0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x90 | 0x93..=0xA2
            ),
            PacketType::Auth => matches!(self.0, 0x00 | 0x18 | 0x19),
            _ => false,
        }
    }

    /// What the broker's refusal is called in an answer of this type.
    #[must_use]
    pub fn of_refusal(refusal: &Refusal, answer: PacketType) -> Self {
        let code = match refusal {
            // DISCONNECT has but one word for them.
            Refusal::BadCredentials | Refusal::BadMethod if answer == PacketType::Disconnect => {
                Self::NOT_AUTHORIZED
            }
            Refusal::BadCredentials => Self::BAD_USER_NAME_OR_PASSWORD,
            Refusal::BadMethod => Self::BAD_AUTHENTICATION_METHOD,
            Refusal::NotAuthorized | Refusal::Forbidden(_) => Self::NOT_AUTHORIZED,
            Refusal::BadClientId(_) => Self::CLIENT_IDENTIFIER_NOT_VALID,
            Refusal::BadTopic(_) if matches!(answer, PacketType::SubAck | PacketType::UnsubAck) => {
                Self::TOPIC_FILTER_INVALID
            }
            Refusal::BadTopic(_) => Self::TOPIC_NAME_INVALID,
            Refusal::Quota { .. } => Self::QUOTA_EXCEEDED,
            Refusal::Overloaded(_) if matches!(answer, PacketType::ConnAck | PacketType::Disconnect) => {
                Self::SERVER_BUSY
            }
            Refusal::Overloaded(_) => Self::QUOTA_EXCEEDED,
            Refusal::Unsupported(_) => Self::IMPLEMENTATION_SPECIFIC,
            Refusal::Internal => Self::UNSPECIFIED_ERROR,
        };
        if code.is_allowed_in(answer) { code } else { Self::UNSPECIFIED_ERROR }
    }

    /// What DISCONNECT says when a connection ends for this kind of reason.
    #[must_use]
    pub const fn of_close(kind: CloseKind) -> Self {
        match kind {
            CloseKind::Normal => Self::SUCCESS,
            CloseKind::ShuttingDown | CloseKind::Restarting => Self::SERVER_SHUTTING_DOWN,
            CloseKind::ProtocolError | CloseKind::UnsupportedData | CloseKind::BadRequest => {
                Self::PROTOCOL_ERROR
            }
            CloseKind::InvalidUtf8 => Self::MALFORMED_PACKET,
            CloseKind::TooBig => Self::PACKET_TOO_LARGE,
            CloseKind::Policy | CloseKind::Kicked => Self::ADMINISTRATIVE_ACTION,
            CloseKind::Overloaded => Self::SERVER_BUSY,
            CloseKind::AuthFailed | CloseKind::Denied | CloseKind::PublishNotEnabled => Self::NOT_AUTHORIZED,
            CloseKind::Replaced => Self::SESSION_TAKEN_OVER,
            CloseKind::TooManyConnections | CloseKind::TooSlow => Self::QUOTA_EXCEEDED,
            CloseKind::RateLimited => Self::MESSAGE_RATE_TOO_HIGH,
            CloseKind::AuthTimeout => Self::MAXIMUM_CONNECT_TIME,
            CloseKind::PingTimeout => Self::KEEP_ALIVE_TIMEOUT,
            CloseKind::ReceiveMaximum => Self::RECEIVE_MAXIMUM_EXCEEDED,
            CloseKind::Internal => Self::UNSPECIFIED_ERROR,
        }
    }

    /// The kind of close behind a CONNACK or DISCONNECT that this session sends of its own accord.
    #[must_use]
    pub const fn close_kind(self) -> CloseKind {
        match self {
            Self::SUCCESS => CloseKind::Normal,
            Self::PACKET_TOO_LARGE => CloseKind::TooBig,
            Self::RECEIVE_MAXIMUM_EXCEEDED => CloseKind::ReceiveMaximum,
            Self::KEEP_ALIVE_TIMEOUT => CloseKind::PingTimeout,
            Self::BAD_USER_NAME_OR_PASSWORD | Self::BAD_AUTHENTICATION_METHOD => CloseKind::AuthFailed,
            Self::NOT_AUTHORIZED | Self::BANNED => CloseKind::Denied,
            Self::CLIENT_IDENTIFIER_NOT_VALID | Self::UNSUPPORTED_PROTOCOL_VERSION => CloseKind::BadRequest,
            Self::QUOTA_EXCEEDED | Self::CONNECTION_RATE_EXCEEDED => CloseKind::TooManyConnections,
            Self::SERVER_BUSY | Self::SERVER_UNAVAILABLE => CloseKind::Overloaded,
            Self::UNSPECIFIED_ERROR => CloseKind::Internal,
            Self::IMPLEMENTATION_SPECIFIC
            | Self::TOPIC_NAME_INVALID
            | Self::TOPIC_FILTER_INVALID
            | Self::RETAIN_NOT_SUPPORTED
            | Self::QOS_NOT_SUPPORTED => CloseKind::Policy,
            _ => CloseKind::ProtocolError,
        }
    }

    /// The return code of a 3.x CONNACK (3.1.1 §3.2.2.3). What 3.x has no word for is "unavailable".
    #[must_use]
    pub(super) const fn to_connect_return_code(self) -> u8 {
        match self {
            Self::SUCCESS => 0,
            Self::UNSUPPORTED_PROTOCOL_VERSION => 1,
            Self::CLIENT_IDENTIFIER_NOT_VALID => 2,
            Self::BAD_USER_NAME_OR_PASSWORD => 4,
            // A will to a topic that clients may not publish to is a lack of rights as well.
            Self::NOT_AUTHORIZED
            | Self::BANNED
            | Self::BAD_AUTHENTICATION_METHOD
            | Self::TOPIC_NAME_INVALID => 5,
            _ => 3,
        }
    }

    /// The other way round; `None` for the reserved ones.
    #[must_use]
    pub(super) const fn from_connect_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::SUCCESS),
            1 => Some(Self::UNSUPPORTED_PROTOCOL_VERSION),
            2 => Some(Self::CLIENT_IDENTIFIER_NOT_VALID),
            3 => Some(Self::SERVER_UNAVAILABLE),
            4 => Some(Self::BAD_USER_NAME_OR_PASSWORD),
            5 => Some(Self::NOT_AUTHORIZED),
            _ => None,
        }
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X} {}", self.0, self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_has_a_code_that_disconnect_may_carry() {
        for kind in [
            CloseKind::Normal,
            CloseKind::ShuttingDown,
            CloseKind::Restarting,
            CloseKind::ProtocolError,
            CloseKind::UnsupportedData,
            CloseKind::InvalidUtf8,
            CloseKind::TooBig,
            CloseKind::Policy,
            CloseKind::Overloaded,
            CloseKind::BadRequest,
            CloseKind::AuthFailed,
            CloseKind::Denied,
            CloseKind::PublishNotEnabled,
            CloseKind::Kicked,
            CloseKind::Replaced,
            CloseKind::TooManyConnections,
            CloseKind::TooSlow,
            CloseKind::RateLimited,
            CloseKind::AuthTimeout,
            CloseKind::PingTimeout,
            CloseKind::ReceiveMaximum,
            CloseKind::Internal,
        ] {
            let code = ReasonCode::of_close(kind);
            assert!(code.is_allowed_in(PacketType::Disconnect), "{kind:?} gives {code:?}");
        }
    }

    #[test]
    fn every_refusal_has_a_code_that_its_answer_may_carry() {
        let refusals = [
            Refusal::BadCredentials,
            Refusal::BadMethod,
            Refusal::NotAuthorized,
            Refusal::Forbidden(""),
            Refusal::BadClientId(""),
            Refusal::BadTopic(""),
            Refusal::Quota { name: "x", limit: 1 },
            Refusal::Overloaded(""),
            Refusal::Unsupported(""),
            Refusal::Internal,
        ];
        for refusal in &refusals {
            for answer in [
                PacketType::ConnAck,
                PacketType::PubAck,
                PacketType::PubRec,
                PacketType::SubAck,
                PacketType::UnsubAck,
                PacketType::Disconnect,
            ] {
                let code = ReasonCode::of_refusal(refusal, answer);
                assert!(code.is_allowed_in(answer) && code.is_error(), "{refusal:?} in {answer:?}: {code:?}");
            }
        }
    }
}

//! What the server says beside `msg` (WIRE §3), to bytes. Knows no session.

use serde::Serialize;

use super::Encoding;
use super::fields::Id;
use super::refusal::Word;
use crate::topic::Topic;
use crate::websocket::MessageKind;
use crate::websocket::prepared::Outgoing;

/// One operation of the server.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Answer<'a> {
    Welcome {
        v: u8,
        session: &'a str,
        /// Only when a resumption was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        resumed: Option<bool>,
        limits: Limits,
        /// Milliseconds between the WebSocket pings.
        ping: u64,
    },
    Ok {
        id: &'a Id,
        /// Granted to a `sub`.
        #[serde(skip_serializing_if = "Option::is_none")]
        qos: Option<u8>,
        /// Receivers of a `pub`.
        #[serde(skip_serializing_if = "Option::is_none")]
        matched: Option<usize>,
    },
    Err {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id>,
        code: Word,
        reason: &'a str,
        retry: bool,
        /// Of a `sub` with several topics: those that were refused. The others are subscribed.
        #[serde(skip_serializing_if = "<[&str]>::is_empty")]
        topics: &'a [&'a str],
    },
    Lag {
        dropped: u64,
        conflated: u64,
        #[serde(serialize_with = "as_strings")]
        topics: &'a [Topic],
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id>,
    },
    Bye {
        /// That of the Close frame to come.
        code: u16,
        reason: &'a str,
        /// Milliseconds to wait before the next connection.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
    },
}

/// `welcome.limits`.
#[derive(Debug, Serialize)]
pub(super) struct Limits {
    /// Bytes of a WebSocket message.
    pub(super) message: usize,
    /// Filters.
    pub(super) topics: usize,
    /// Unacknowledged `msg`; 0 is no window.
    pub(super) window: u32,
}

impl Encoding {
    /// The kind of frame that it travels in.
    pub(super) const fn kind(self) -> MessageKind {
        match self {
            Self::Json => MessageKind::Text,
            Self::MessagePack => MessageKind::Binary,
        }
    }
}

impl Answer<'_> {
    pub(super) fn encode(&self, encoding: Encoding) -> Outgoing {
        Outgoing::new(encoding.kind(), to_bytes(self, encoding))
    }
}

/// Names as keys in both encodings.
#[expect(
    clippy::expect_used,
    reason = "strings, numbers and maps with string keys into a Vec: nothing fails"
)]
pub(super) fn to_bytes(value: &impl Serialize, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Json => serde_json::to_vec(value).expect("see above"),
        Encoding::MessagePack => rmp_serde::to_vec_named(value).expect("see above"),
    }
}

fn as_strings<S: serde::Serializer>(topics: &[Topic], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(topics.iter().map(Topic::as_str))
}

//! A STOMP frame as a value, and its bytes. Knows no session. Spec: STOMP 1.2 "STOMP Frames", "Augmented BNF".

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::Version;
use super::escape::{Escaping, Place};
use crate::websocket::Utf8Bytes;

/// The first line of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Client: begin.
    Connect,
    /// Client: begin, since 1.1; the same as CONNECT.
    Stomp,
    /// Client: publish.
    Send,
    /// Client: subscribe.
    Subscribe,
    /// Client: end a subscription.
    Unsubscribe,
    /// Client: a message was consumed.
    Ack,
    /// Client: a message was not consumed; since 1.1.
    Nack,
    /// Client: begin a transaction.
    Begin,
    /// Client: carry a transaction out.
    Commit,
    /// Client: drop a transaction.
    Abort,
    /// Client: goodbye.
    Disconnect,
    /// Server: the session has begun.
    Connected,
    /// Server: a message for a subscription.
    Message,
    /// Server: a frame was processed.
    Receipt,
    /// Server: something is wrong, and the connection ends.
    Error,
}

/// One header, as meant: not escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Left of the colon.
    pub name: Utf8Bytes,
    /// Right of it.
    pub value: Utf8Bytes,
}

/// A command, headers in their order with repetitions, and a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub command: Command,
    /// In the order of the wire.
    pub headers: Vec<Header>,
    /// Empty unless the command is SEND, MESSAGE or ERROR.
    pub body: Bytes,
}

impl Command {
    /// Every command.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Stomp,
        Self::Send,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Ack,
        Self::Nack,
        Self::Begin,
        Self::Commit,
        Self::Abort,
        Self::Disconnect,
        Self::Connected,
        Self::Message,
        Self::Receipt,
        Self::Error,
    ];

    /// The longest name, in bytes.
    pub(super) const NAME_BYTES_MAX: usize = "UNSUBSCRIBE".len();

    /// As it stands in a frame.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Stomp => "STOMP",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
            Self::Connected => "CONNECTED",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    /// The command of this name; names are case sensitive.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.as_str().as_bytes() == name)
    }

    /// "Only the SEND, MESSAGE, and ERROR frames MAY have a body."
    #[must_use]
    pub const fn may_have_body(self) -> bool {
        matches!(self, Self::Send | Self::Message | Self::Error)
    }

    /// "all frames except the CONNECT and CONNECTED frames" escape their headers. STOMP is another CONNECT.
    pub(super) fn escaping(self, version: Version) -> Escaping {
        match self {
            Self::Connect | Self::Stomp | Self::Connected => Escaping::None,
            _ => version.into(),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Frame {
    /// A frame without headers and body.
    #[must_use]
    pub const fn new(command: Command) -> Self {
        Self { command, headers: Vec::new(), body: Bytes::new() }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Utf8Bytes>, value: impl Into<Utf8Bytes>) -> Self {
        self.headers.push(Header { name: name.into(), value: value.into() });
        self
    }

    /// The same with this body. The caller adds `content-length` when the body may hold NUL.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The value of a header: "If a client or a server receives repeated frame header entries, only the first
    /// header entry SHOULD be used".
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.name.as_str() == name).map(|header| header.value.as_str())
    }

    /// Appends the frame's bytes. A character that the version has no escape for becomes U+FFFD.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let headers: usize =
            self.headers.iter().map(|header| header.name.len() + header.value.len() + 2).sum();
        out.reserve(self.command.as_str().len() + headers + self.body.len() + 8);
        out.put_slice(self.command.as_str().as_bytes());
        out.put_u8(b'\n');
        let escaping = self.command.escaping(version);
        for header in &self.headers {
            put_header(&header.name, &header.value, escaping, out);
        }
        out.put_u8(b'\n');
        out.put_slice(&self.body);
        out.put_u8(0);
    }
}

/// Appends one header line.
pub(super) fn put_header(name: &str, value: &str, escaping: Escaping, out: &mut BytesMut) {
    escaping.put(name, Place::Name, out);
    out.put_u8(b':');
    escaping.put(value, Place::Value, out);
    out.put_u8(b'\n');
}

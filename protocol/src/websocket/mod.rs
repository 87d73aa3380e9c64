//! RFC 6455 and RFC 7692 without I/O. Knows no topic and no subprotocol.
//!
//! ```text
//!  HTTP request ─▶ handshake (origin, deflate::negotiation) ─▶ 101 or a refusal that explains itself
//!  bytes ─▶ socket::Receiver (frame, deflate::inflate) ─▶ Event: a message, ping, pong or close
//!  Prepared, Outgoing, control frames (prepared, frame, deflate::compress) ─▶ bytes
//! ```

pub mod client;
pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod origin;
pub mod prepared;
mod socket;
mod token;
mod utf8;

use bytes::Bytes;
pub use tungstenite::Utf8Bytes;
pub use tungstenite::protocol::CloseFrame;
pub use tungstenite::protocol::frame::coding::CloseCode;

pub use self::socket::{Event, ReceiveError, Receiver};

/// A complete data message (RFC 6455 §5.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opcode 1; checked UTF-8.
    Text(Utf8Bytes),
    /// Opcode 2.
    Binary(Bytes),
}

/// The kind of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Opcode 1.
    Text,
    /// Opcode 2.
    Binary,
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We accepted it: what comes is masked, what we send is not.
    Server,
    /// We opened it: what comes is not masked, what we send is.
    Client,
}

impl Message {
    /// Text or binary.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Text(_) => MessageKind::Text,
            Self::Binary(_) => MessageKind::Binary,
        }
    }

    /// The payload, whichever kind it is. Nothing is copied.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether the payload has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

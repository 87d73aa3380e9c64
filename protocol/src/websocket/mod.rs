//! RFC 6455 and RFC 7692 without I/O. Knows no topic and no subprotocol.

pub mod prepared;

use bytes::Bytes;
pub use tungstenite::Utf8Bytes;

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

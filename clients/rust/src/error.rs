//! What can go wrong, by whom it is met: who connects, who asks, who reads events.

use std::io;

use tidegate_protocol::raw::client::{AnswerError, Refused};
use tidegate_protocol::topic::TopicError;
use tidegate_protocol::websocket::client::HandshakeError;
use tidegate_protocol::websocket::{CloseCode, ReceiveError};

use crate::url::UrlError;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is none, or not for this client.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The name does not resolve, nobody listens, the network is away.
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    /// Not within [`Options::connect_timeout`](crate::Options::connect_timeout).
    #[error("no connection within the time allowed for it")]
    TimedOut,
    /// Another HTTP status than 101.
    #[error("the broker refused with status {status}: {body}")]
    Refused {
        /// HTTP's status.
        status: u16,
        /// The beginning of the explanation that came with it.
        body: String,
    },
    /// The answer to the handshake breaks RFC 6455.
    #[error(transparent)]
    Handshake(HandshakeError),
    /// The other end does not speak the raw protocol.
    #[error("the server did not choose the subprotocol raw.msgpack.v1")]
    NoSubprotocol,
    /// The first operation was refused.
    #[error("the broker refused the session: {0}")]
    Hello(Refused),
    /// The connection ended before the broker's `welcome`.
    #[error(transparent)]
    Lost(#[from] Disconnect),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// The broker closed it.
    #[error("the broker closed the connection ({}): {reason}", code.unwrap_or(1005))]
    Closed {
        /// The WebSocket close code, if the frame had one.
        code: Option<u16>,
        /// For people.
        reason: String,
    },
    /// It ended without a Close frame.
    #[error("the connection ended without a close")]
    Eof,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
    /// Nothing came for [`Options::ping_timeout`](crate::Options::ping_timeout) after a Ping.
    #[error("the broker did not answer a ping in time")]
    PingTimeout,
    /// The broker broke RFC 6455 or a limit of ours.
    #[error("the broker sent what it must not: {0}")]
    Frame(#[from] ReceiveError),
    /// The broker broke the raw protocol.
    #[error("the broker sent an operation that cannot be read: {0}")]
    Answer(#[from] AnswerError),
    /// `raw.msgpack.v1` has binary frames only.
    #[error("the broker sent a text frame under raw.msgpack.v1")]
    TextFrame,
    /// `pong` to a `sub`, say.
    #[error("the broker answered a request of another kind")]
    WrongAnswer,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Nothing was sent. Wait for [`Event::Restored`](crate::Event::Restored).
    #[error("not connected: nothing was sent")]
    NotConnected,
    /// It was in flight: the broker may have done it or not. The client never sends it again by itself.
    #[error(
        "the connection was lost before the answer came; it may have been done or not, and is not repeated"
    )]
    ConnectionLost,
    /// No answer within [`Options::request_timeout`](crate::Options::request_timeout): it may have been done or
    /// not. Either the broker is slow, or the answer lies behind events that nobody reads.
    #[error("no answer in time; it may have been done or not")]
    TimedOut,
    /// The broker said no.
    #[error("refused: {0}")]
    Refused(#[from] Refused),
    /// The broker would close the connection with 1009.
    #[error("the message is {bytes} bytes long, the broker's limit is {limit_bytes}")]
    TooBig {
        /// Of the encoded operation.
        bytes: usize,
        /// From the broker's `welcome`.
        limit_bytes: usize,
    },
    /// A filter that is none.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The client was closed, or has ended for good.
    #[error("the client is closed")]
    Closed,
}

impl Disconnect {
    /// What the broker is told, where there is still somebody to tell. The one place for it.
    pub(crate) const fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Closed { .. } | Self::Eof | Self::Io(_) => None,
            Self::PingTimeout => Some(CloseCode::Library(4200)),
            Self::Frame(error) => Some(error.close_code()),
            Self::TextFrame => Some(CloseCode::Unsupported),
            Self::Answer(_) | Self::WrongAnswer => Some(CloseCode::Protocol),
        }
    }
}

//! What can go wrong in a session, and the one place that says it to the client: ERROR, then the close code.
//! Spec: STOMP 1.2 "ERROR"; SEC-13: after every ERROR the connection closes.

use bytes::BytesMut;

use super::super::Version;
use super::super::codec::{DecodeError, Fault};
use super::super::destination::DestinationError;
use super::super::frame::{Command, Frame};
use crate::selector::SelectorError;
use crate::session::{CloseKind, CloseReason, Refusal};

/// Why the session ends with an ERROR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SessionError {
    // The peer's fault.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("no common version")]
    NoCommonVersion { supported: String },
    #[error("the first frame is not CONNECT or STOMP")]
    NotConnected,
    #[error("already connected")]
    AlreadyConnected,
    #[error("unknown command")]
    UnexpectedCommand,
    #[error("missing header {0}")]
    MissingHeader(&'static str),
    #[error("bad header {name}: {why}")]
    BadHeader { name: &'static str, why: &'static str },
    #[error("bad header {name}: {why}")]
    BadTopic { name: &'static str, why: DestinationError },
    #[error("bad header selector: {0}")]
    BadSelector(#[from] SelectorError),
    #[error("not supported yet: {0}")]
    Unsupported(&'static str),
    #[error("a durable subscription by name needs the header client-id in CONNECT")]
    NoClientId,
    #[error("the durable subscription is in use by this connection")]
    DuplicateDurable,
    #[error("transaction {name:?} is open already")]
    TransactionIsOpen { name: Box<str> },
    #[error("no such transaction: {name:?}")]
    NoSuchTransaction { name: Box<str> },
    #[error("the limit stomp.max_transactions = {limit} is reached")]
    TooManyTransactions { limit: usize },
    #[error("the limit stomp.max_transaction_actions = {limit} is reached by transaction {name:?}")]
    TooManyActions { name: Box<str>, limit: usize },
    #[error("the {what} of the open transactions are longer than {limit} bytes")]
    TransactionsTooLarge { what: &'static str, limit: usize },
    #[error("bad header selector: it is longer than {limit} bytes")]
    SelectorTooLong { limit: usize },
    #[error("subscription id is in use")]
    DuplicateSubscription,
    #[error("no such subscription")]
    NoSuchSubscription,
    #[error("unknown message")]
    UnknownMessage,
    #[error("the subscription has ack:auto, its messages are not acknowledged")]
    AutoAck,
    #[error("the limit max_subscriptions = {limit} is reached")]
    TooManySubscriptions { limit: usize },
    #[error("no CONNECT frame within {seconds} s")]
    ConnectTimeout { seconds: u64 },
    #[error("no heart-beat within {milliseconds} ms")]
    HeartBeatTimeout { milliseconds: u128 },
    // The broker's word.
    #[error("{0}")]
    Refused(#[from] Refusal),
    // Ours.
    #[error("internal error")]
    ReplyMismatch,
}

/// Which frame an error is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Offender {
    pub(super) command: Option<Command>,
    pub(super) receipt: Option<Box<str>>,
    /// Its `transaction`, if that is what was refused.
    pub(super) transaction: Option<Box<str>>,
}

impl Offender {
    pub(super) fn of(frame: &Frame) -> Self {
        let receipt = frame.header("receipt").map(Into::into);
        Self { command: Some(frame.command), receipt, transaction: None }
    }
}

impl SessionError {
    /// The close code that follows the ERROR.
    fn kind(&self) -> CloseKind {
        match self {
            Self::Decode(error) if error.fault.is_size() => CloseKind::TooBig,
            Self::Decode(error) if error.fault == Fault::NotUtf8 => CloseKind::InvalidUtf8,
            Self::Decode(_)
            | Self::NoCommonVersion { .. }
            | Self::NotConnected
            | Self::AlreadyConnected
            | Self::UnexpectedCommand => CloseKind::ProtocolError,
            Self::MissingHeader(_)
            | Self::BadHeader { .. }
            | Self::BadTopic { .. }
            | Self::BadSelector(_)
            | Self::SelectorTooLong { .. }
            | Self::Unsupported(_)
            | Self::NoClientId
            | Self::DuplicateDurable
            | Self::TransactionIsOpen { .. }
            | Self::NoSuchTransaction { .. }
            | Self::DuplicateSubscription
            | Self::NoSuchSubscription
            | Self::UnknownMessage
            | Self::AutoAck => CloseKind::BadRequest,
            Self::TooManySubscriptions { .. }
            | Self::TooManyTransactions { .. }
            | Self::TooManyActions { .. } => CloseKind::Policy,
            Self::TransactionsTooLarge { .. } => CloseKind::TooBig,
            Self::ConnectTimeout { .. } => CloseKind::AuthTimeout,
            Self::HeartBeatTimeout { .. } => CloseKind::PingTimeout,
            Self::Refused(refusal) => refusal_kind(refusal),
            Self::ReplyMismatch => CloseKind::Internal,
        }
    }

    /// The close that follows the ERROR.
    pub(super) fn close_reason(&self) -> CloseReason {
        CloseReason::new(self.kind(), self.to_string())
    }

    /// The ERROR frame, encoded.
    pub(super) fn encode(&self, offender: &Offender, version: Option<Version>) -> BytesMut {
        let mut frame = Frame::new(Command::Error);
        if let Self::NoCommonVersion { supported } = self {
            frame = frame.with_header("version", supported.as_str());
        }
        let message = self.to_string();
        let place = match (self, offender.command) {
            (Self::Decode(error), Some(command)) => format!("In line {} of {command}: ", error.line),
            (Self::Decode(error), None) => format!("In line {} of a frame: ", error.line),
            (_, Some(command)) => match &offender.transaction {
                Some(name) => format!("{command} of transaction {:?}: ", shown(name)),
                None => format!("{command}: "),
            },
            (_, None) => String::new(),
        };
        let body = match self {
            Self::NoCommonVersion { supported } => {
                format!("{place}{message}. Supported protocol versions are {supported}.\n")
            }
            _ => format!("{place}{message}.\n"),
        };
        encode_error(frame, &message, body, offender.receipt.as_deref(), version)
    }
}

/// The ERROR for an end that the broker decided on.
pub(super) fn encode_close(reason: &CloseReason, version: Option<Version>) -> BytesMut {
    let message = if reason.detail.is_empty() { kind_sentence(reason.kind) } else { &reason.detail };
    let body = format!("{}.\n", message.trim_end_matches('.'));
    encode_error(Frame::new(Command::Error), message, body, None, version)
}

fn encode_error(
    frame: Frame,
    message: &str,
    body: String,
    receipt: Option<&str>,
    version: Option<Version>,
) -> BytesMut {
    let mut frame = frame.with_header("message", message);
    if let Some(receipt) = receipt {
        frame = frame.with_header("receipt-id", receipt);
    }
    let frame = frame
        .with_header("content-type", "text/plain")
        .with_header("content-length", body.len().to_string())
        .with_body(body.into_bytes());
    let mut out = BytesMut::new();
    // Before the version is settled the client reads headers as in 1.0.
    frame.encode(version.unwrap_or(Version::V1_0), &mut out);
    out
}

/// Close codes for refusals (WIRE §5).
const fn refusal_kind(refusal: &Refusal) -> CloseKind {
    match refusal {
        Refusal::BadCredentials | Refusal::BadMethod => CloseKind::AuthFailed,
        Refusal::NotAuthorized | Refusal::Forbidden(_) => CloseKind::Denied,
        Refusal::BadClientId(_) | Refusal::BadTopic(_) | Refusal::Unsupported(_) => CloseKind::BadRequest,
        Refusal::Quota { .. } => CloseKind::Policy,
        Refusal::Overloaded(_) => CloseKind::Overloaded,
        Refusal::Internal => CloseKind::Internal,
    }
}

const fn kind_sentence(kind: CloseKind) -> &'static str {
    match kind {
        CloseKind::Normal => "goodbye",
        CloseKind::ShuttingDown => "the broker is shutting down",
        CloseKind::Restarting => "the broker is restarting",
        CloseKind::ProtocolError => "protocol error",
        CloseKind::UnsupportedData => "wrong kind of frame",
        CloseKind::InvalidUtf8 => "text is not UTF-8",
        CloseKind::TooBig => "message too big",
        CloseKind::Policy => "not allowed",
        CloseKind::Overloaded => "overloaded",
        CloseKind::BadRequest => "bad request",
        CloseKind::AuthFailed => "authentication failed",
        CloseKind::Denied => "not authorised",
        CloseKind::PublishNotEnabled => "publishing is not enabled",
        CloseKind::Kicked => "ended by an operator",
        CloseKind::Replaced => "replaced by a newer session with the same client id",
        CloseKind::TooManyConnections => "too many connections",
        CloseKind::TooSlow => "the client reads too slowly, messages were lost",
        CloseKind::RateLimited => "too many messages",
        CloseKind::AuthTimeout => "not connected in time",
        CloseKind::PingTimeout => "the client was silent for too long",
        CloseKind::ReceiveMaximum => "too many outstanding messages",
        CloseKind::Internal => "internal error",
    }
}

/// As much of a client's word as an ERROR repeats.
pub(super) fn shown(text: &str) -> Box<str> {
    text.chars().take(SHOWN_CHARACTERS).collect::<String>().into()
}

const SHOWN_CHARACTERS: usize = 60;

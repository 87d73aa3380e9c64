//! The contract between a protocol and a broker.
//!
//! A [`Session`] is one client's protocol state. Input in, output out: after each `handle_*`, drain
//! [`Session::poll_output`] until `None`. Nothing here names a protocol.
//!
//! Here are the trait, its outputs and the names that both sides use; the words between them are in `request`, `reply`,
//! `delivery` and `close`.

mod close;
mod delivery;
mod reply;
mod request;

use std::time::Instant;

pub use self::close::{CloseKind, CloseReason};
pub use self::delivery::{Delivery, DropReason, Lag, LagNotice, Settlement};
pub use self::reply::{Connected, Granted, InFlight, InFlightState, Published, Refusal, Reply};
pub use self::request::{
    Authenticate, Connect, Copies, Credentials, Forms, Overflow, Publish, Request, RetainHandling, Step,
    Subscribe, SubscriptionName, Will, WillFate,
};
pub use crate::packet_ids::PacketIds;
pub use crate::selector::Selector;
pub use crate::stamped::Stamped;
use crate::websocket::Message;
pub use crate::websocket::prepared::Outgoing;

/// One client's protocol state.
///
/// ```text
///   Message ──▶ ┌─────────┐ ──▶ Output::Send      to the client
///   Reply ────▶ │ Session │ ──▶ Output::Request   to the broker
///   Delivery ─▶ └─────────┘ ──▶ Output::Close     to the connection
/// ```
///
/// After `Output::Close` a session gives nothing more and ignores input.
pub trait Session: Send {
    /// A complete WebSocket message. Packets and STOMP frames may be split over several or share one.
    fn handle_message(&mut self, message: Message, now: Instant);

    /// The answer to a request. Replies come in the order of the requests, but for those to publishes at QoS 0, which
    /// wait for nothing.
    fn handle_reply(&mut self, token: Token, reply: Reply, now: Instant);

    /// A publication that this client subscribed to and that needs this session's own encoding.
    fn handle_delivery(&mut self, delivery: Delivery, now: Instant);

    /// Something was dropped or conflated since the last call. Asked for with [`Connect::lag`].
    fn handle_lag(&mut self, lag: Lag, now: Instant);

    /// The instant of [`Session::poll_timeout`] has come.
    fn handle_timeout(&mut self, now: Instant);

    /// The connection does not read for now, or reads again. While it does not, the deadlines that count the
    /// peer's silence are suspended, and start anew afterwards; our own heart-beats go on.
    fn handle_reading(&mut self, reading: Reading, now: Instant);

    /// A WebSocket pong came. Most protocols do not count it as a word of the client.
    fn handle_pong(&mut self, now: Instant) {
        let _ = now;
    }

    /// The broker ends this connection: say why in the protocol's words, then give `Output::Close`.
    fn handle_close(&mut self, reason: CloseReason, now: Instant);

    /// The next thing to do, until `None`.
    fn poll_output(&mut self) -> Option<Output>;

    /// When to call [`Session::handle_timeout`] next, if nothing else happens. May move with every input.
    fn poll_timeout(&self) -> Option<Instant>;

    /// What it can take now. Read after every input.
    fn wants(&self) -> Wants;
}

/// What a session gives.
#[derive(Debug)]
pub enum Output {
    /// A message for the client. What is sent while a delivery is handled goes behind earlier deliveries;
    /// everything else goes in the control lane, before queued data.
    Send(Outgoing),
    /// The same for an acknowledged delivery whose message is a shared form but for a few bytes. It has its packet id
    /// by that, as by [`Request::Assign`].
    SendStamped(Stamped),
    /// Something for the broker. A request that has a reply gets it under this token.
    Request(Token, Request),
    /// Something that the operator may want to know of this client. At most once for each.
    Hint(Hint),
    /// The end. What was sent before it is written first, and `DataLane` says what happens to queued deliveries.
    Close(CloseReason, DataLane),
}

/// What a client does that may be a misunderstanding, though nothing is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It separates the levels of its destinations by dots, where they are one level.
    DottedDestination,
}

/// What happens to queued deliveries at a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataLane {
    /// They are written first: planned stops, STOMP DISCONNECT.
    Drain,
    /// They are discarded.
    Abort,
}

/// Names a request until its reply; chosen by the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u32);

/// Names a delivery until it is settled; chosen by the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u64);

/// Names a subscription within one session; chosen by the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(pub u32);

/// Whether the connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It stopped reading.
    Paused,
    /// It reads again.
    Resumed,
}

/// What a session can take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Messages from the client. With `false` the connection neither decodes nor reads further.
    pub input: bool,
    /// Deliveries at QoS 0 that need its encoding.
    pub qos0: bool,
    /// How many deliveries at QoS 1 and 2.
    pub acked: usize,
}

//! The contract between a protocol and a broker.
//!
//! A [`Session`] is one client's protocol state. Input in, output out: after each `handle_*`, drain
//! [`Session::poll_output`] until `None`. Nothing here names a protocol.

mod close;
mod delivery;
mod reply;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::close::{CloseKind, CloseReason};
pub use self::delivery::{Delivery, DropReason, Lag, LagNotice, Settlement};
pub use self::reply::{Connected, Granted, InFlight, InFlightState, Published, Refusal, Reply};
pub use crate::packet_ids::PacketIds;
use crate::publication::{Form, Publication, QoS};
pub use crate::stamped::Stamped;
use crate::topic::{ShareName, TopicFilter};
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

    /// The answer to a request. Replies to publishes come in the order of the requests.
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
    /// The end. What was sent before it is written first, and `DataLane` says what happens to queued deliveries.
    Close(CloseReason, DataLane),
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

/// What a session asks of the broker.
#[derive(Debug)]
pub enum Request {
    /// Who this is. The first request, and the only one but [`Request::Authenticate`] until [`Reply::Connected`].
    Connect(Box<Connect>),
    /// The client's next word in an exchange that [`Credentials::Exchange`] began, or one that begins anew later.
    /// Answered by [`Reply::Challenge`] or by what the exchange was for: [`Reply::Connected`],
    /// [`Reply::Authenticated`].
    Authenticate(Authenticate),
    /// Enter subscriptions; answered by [`Reply::Subscribed`] with one result for each, in order.
    Subscribe(Vec<Subscribe>),
    /// End subscriptions; answered by [`Reply::Unsubscribed`] with one word for each, in order.
    Unsubscribe(Vec<SubscriptionName>),
    /// Publish; answered by [`Reply::Published`], at QoS 0 too. Sessions ignore the replies that they do not need.
    Publish(Box<Publish>),
    /// PUBREL came in, or the session refuses a publish itself: the packet id of a QoS 2 publish is free again.
    /// Answered by [`Reply::Released`], in the order of publishes.
    Release {
        /// As in [`Publish::packet_id`].
        packet_id: u16,
    },
    /// An acknowledged delivery gets this packet id; said before it is first sent. No reply.
    Assign {
        /// The delivery.
        tag: Tag,
        /// Its id on this link.
        packet_id: u16,
    },
    /// PUBREC came in for a delivery. Answered by [`Reply::Received`]; PUBREL leaves after it.
    Received {
        /// The delivery.
        tag: Tag,
    },
    /// An end of a delivery. No reply.
    Settle {
        /// The delivery.
        tag: Tag,
        /// What became of it.
        settlement: Settlement,
    },
    /// The client says goodbye. A connection that ends without it publishes the will. No reply.
    Disconnect {
        /// What becomes of the will.
        will: WillFate,
        /// How long the session is kept, if the client has changed its mind.
        session_expiry: Option<Duration>,
    },
}

/// One word of an authentication exchange.
#[derive(Clone, PartialEq, Eq)]
pub struct Authenticate {
    /// Begins an exchange with this method on a connection that is connected; `None` goes on with the one under way.
    pub method: Option<Box<str>>,
    /// What the method says.
    pub data: Bytes,
}

impl std::fmt::Debug for Authenticate {
    // SEC-23: nothing secret in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authenticate {{ method: {:?}, .. }}", self.method)
    }
}

/// Who a client is and what it can take.
#[derive(Debug)]
pub struct Connect {
    /// The client's own name; the broker gives one when there is none.
    pub client_id: Option<Box<str>>,
    /// Begin without the state of an earlier session.
    pub clean_start: bool,
    /// How long the session outlives the connection; `None`: it did not say.
    pub session_expiry: Option<Duration>,
    /// The most subscriptions that it may have.
    pub subscriptions_max: usize,
    /// The shared wire forms of QoS 0 deliveries in its version of the protocol. Subscriptions of a resumed session
    /// are given these, if they had some.
    pub forms: Option<&'static Forms>,
    /// What it proves itself with.
    pub credentials: Option<Credentials>,
    /// What to publish when it is gone without a goodbye.
    pub will: Option<Box<Will>>,
    /// The largest message that the client takes; larger ones are dropped and counted before they are queued.
    pub packet_bytes_max: Option<usize>,
    /// How it wants to hear of drops.
    pub lag: LagNotice,
}

/// Proof of identity.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password; the password is bytes.
    Password {
        /// Who.
        user: Box<str>,
        /// Proof; may be absent in MQTT 5 and STOMP.
        password: Option<Bytes>,
    },
    /// A bearer token.
    Token(Box<str>),
    /// The first word of an exchange (MQTT 5 §4.12).
    Exchange {
        /// The method's name.
        method: Box<str>,
        /// What the method says first; may be empty.
        data: Bytes,
    },
}

impl std::fmt::Debug for Credentials {
    // SEC-23: nothing secret in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password {{ user: {user:?}, .. }}"),
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Exchange { method, .. } => write!(f, "Exchange {{ method: {method:?}, .. }}"),
        }
    }
}

/// The last will.
#[derive(Debug)]
pub struct Will {
    /// What is published.
    pub publication: Publication,
    /// How long after the end of the connection.
    pub delay: Duration,
    /// The lifetime of the publication, counted from when it is published.
    pub expiry: Option<Duration>,
}

/// What becomes of the will at a goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WillFate {
    /// It is dropped [MQTT-3.14.4-3].
    Discard,
    /// It is published all the same (MQTT 5: DISCONNECT 0x04).
    Publish,
}

/// One subscription.
#[derive(Debug)]
pub struct Subscribe {
    /// Chosen by the session; `None`: it goes by its filter and group, of which there is one each. A subscription of
    /// the same name is replaced, and nothing is lost meanwhile [MQTT-3.8.4-3].
    pub id: Option<SubscriptionId>,
    /// What it matches.
    pub filter: TopicFilter,
    /// Each message goes to one member of this group (MQTT 5 §4.8.2).
    pub group: Option<ShareName>,
    /// MQTT 5's Subscription Identifier, handed back with each delivery.
    pub identifier: Option<NonZeroU32>,
    /// The highest QoS wanted.
    pub qos: QoS,
    /// The shared wire forms of QoS 0 deliveries; without them every delivery goes through the session.
    pub forms: Option<&'static Forms>,
    /// Not what this client published itself.
    pub no_local: bool,
    /// Deliver with the RETAIN flag of the publisher instead of 0.
    pub retain_as_published: bool,
    /// Whether retained messages are sent now.
    pub retained: RetainHandling,
    /// The overflow policy wished for; `None`: the operator's.
    pub overflow: Option<Overflow>,
    /// Replace what is queued by what is newer, per topic, at QoS 0 only; and send at most one per topic per interval. `ZERO`
    /// replaces only what is still queued.
    pub conflate: Option<Duration>,
    /// What happens when several of this client's filters match.
    pub copies: Copies,
}

/// How a session names a subscription that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionName {
    /// As in [`Subscribe::id`].
    Id(SubscriptionId),
    /// Where [`Subscribe::id`] is `None`.
    Filter {
        /// As in [`Subscribe::group`].
        group: Option<ShareName>,
        /// As in [`Subscribe::filter`].
        filter: TopicFilter,
    },
}

/// Which shared forms a subscription takes.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// For live messages without a RETAIN flag.
    pub live: &'static Form,
    /// For retained messages, and live ones that keep the flag ([`Subscribe::retain_as_published`]).
    pub retained: &'static Form,
}

/// MQTT 5 §3.8.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetainHandling {
    /// At every subscribe.
    #[default]
    Send,
    /// Only if the subscription is new.
    SendIfNew,
    /// Never.
    Skip,
}

/// What happens to deliveries that do not fit (DESIGN §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest of the subscription go.
    DropOldest,
    /// The new one goes.
    DropNewest,
    /// Only the latest of each topic stays.
    Conflate,
    /// The client is disconnected.
    Disconnect,
}

/// How many copies a client gets of a message that several of its subscriptions match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// One, at the highest QoS, naming all subscriptions (MQTT, raw).
    PerClient,
    /// One for each (STOMP).
    PerSubscription,
}

/// A message from this client.
#[derive(Debug)]
pub struct Publish {
    /// Not shared yet.
    pub publication: Publication,
    /// For QoS 2: the id by which a repetition is recognised until [`Request::Release`].
    pub packet_id: Option<u16>,
}

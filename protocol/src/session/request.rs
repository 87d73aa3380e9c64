//! What a session asks of the broker: who the client is, what it publishes and subscribes to.
//!
//! Parsed and checked by the session. Plain data.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

#[cfg(doc)]
use super::Reply;
use super::{LagNotice, Settlement, SubscriptionId, Tag};
use crate::publication::{Form, Publication, QoS};
use crate::selector::Selector;
use crate::topic::{ShareName, TopicFilter};

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
    /// Publish and settle in this order, all of it or nothing; answered by [`Reply::Published`], which counts what all of
    /// them matched, or by one refusal.
    Transaction(Vec<Step>),
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
    /// What stands before each shared form that is no whole message ([`Form::behind_head`]).
    pub head: Option<Box<[u8]>>,
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
    /// Only what this selects.
    pub selector: Option<Arc<Selector>>,
    /// Kept under this name of its user's when the client is gone: everything that matches waits, and goes on with
    /// whoever subscribes under the name again. Only with [`Copies::PerSubscription`].
    pub durable: Option<Box<str>>,
    /// How many messages of a queue, or of a durable subscription, may be with the client unsettled; `None`: the broker
    /// chooses.
    pub prefetch: Option<NonZeroU16>,
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
    /// What is kept under a name ([`Subscribe::durable`]), whether or not this client is subscribed to it: it is
    /// forgotten, with all that waits.
    Durable(Box<str>),
}

/// Which shared forms a subscription takes.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// For live messages without a RETAIN flag.
    pub live: &'static Form,
    /// For retained messages, and live ones that keep the flag ([`Subscribe::retain_as_published`]); without one they go
    /// through the session.
    pub retained: Option<&'static Form>,
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

/// One step of a transaction.
#[derive(Debug)]
pub enum Step {
    /// As [`Request::Publish`]. A transaction has none at QoS 2.
    Publish(Box<Publish>),
    /// As [`Request::Settle`].
    Settle {
        /// The delivery.
        tag: Tag,
        /// What becomes of it.
        settlement: Settlement,
    },
}

/// A message from this client.
#[derive(Debug)]
pub struct Publish {
    /// Not shared yet.
    pub publication: Publication,
    /// For QoS 2: the id by which a repetition is recognised until [`Request::Release`].
    pub packet_id: Option<u16>,
}

//! What the broker answers: what a request has come to, or why it was refused.
//!
//! Knows no reason code; each protocol maps refusals in one place.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Delivery, Tag};
use crate::publication::QoS;

/// The broker's answer to a request.
#[derive(Debug)]
pub enum Reply {
    /// To `Connect`, or to the `Authenticate` that completes it.
    Connected(Box<Connected>),
    /// To `Connect` and `Authenticate`: the method has more to ask.
    Challenge(Bytes),
    /// To an `Authenticate` on a connection that is connected: the method's last word, if it has one.
    Authenticated(Bytes),
    /// To `Subscribe`.
    Subscribed(Vec<Result<Granted, Refusal>>),
    /// To `Unsubscribe`: whether each existed.
    Unsubscribed(Vec<bool>),
    /// To `Publish`.
    Published(Published),
    /// To `Release`: whether the id was in use.
    Released {
        /// As asked.
        packet_id: u16,
        /// `false`: MQTT 5 answers 0x92.
        known: bool,
    },
    /// To `Received`.
    Received {
        /// As asked.
        tag: Tag,
    },
    /// To any of them: no. After a refused `Connect` the session closes.
    Refused(Refusal),
}

/// A connected client.
#[derive(Debug, Default)]
pub struct Connected {
    /// Its name: as asked, or given by the broker.
    pub client_id: Arc<str>,
    /// This connection's own level below `$temp/`, which nobody else can subscribe to. Unique among all connections.
    pub temporary: Box<str>,
    /// The broker gave the name.
    pub is_assigned: bool,
    /// State of an earlier session was resumed.
    pub session_present: bool,
    /// How long the session is kept after the connection.
    pub session_expiry: Duration,
    /// Deliveries of the earlier session that were sent and not settled, in order.
    pub in_flight: Vec<InFlight>,
    /// Packet ids of QoS 2 publishes that wait for their PUBREL.
    pub received: Vec<u16>,
    /// The authentication method's last word; empty without one.
    pub authentication_data: Bytes,
}

/// A delivery that was sent on an earlier connection.
#[derive(Debug)]
pub struct InFlight {
    /// Its id on the link.
    pub packet_id: u16,
    /// What to send again.
    pub state: InFlightState,
}

/// How far a delivery got on an earlier connection.
#[derive(Debug)]
pub enum InFlightState {
    /// Sent, not acknowledged.
    Sent(Delivery),
    /// PUBREC came; PUBREL is to be sent.
    Received(Tag),
}

/// A granted subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// At most what was asked for.
    pub qos: QoS,
}

/// A publication that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Clients and subscriptions that it was queued for.
    pub matched: usize,
}

/// Why the broker said no. Protocols map it in one place each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Who are you?
    #[error("the user name, password or token is not accepted")]
    BadCredentials,
    /// Not you.
    #[error("not authorised")]
    NotAuthorized,
    /// Not by this method.
    #[error("the authentication method is not supported")]
    BadMethod,
    /// Nobody may, as the operator has it.
    #[error("not allowed: {0}")]
    Forbidden(&'static str),
    /// Not under this name.
    #[error("the client id is not accepted: {0}")]
    BadClientId(&'static str),
    /// No such topic for clients.
    #[error("topic not allowed: {0}")]
    BadTopic(&'static str),
    /// A limit with a name.
    #[error("the limit {name} = {limit} is reached")]
    Quota {
        /// The configuration key.
        name: &'static str,
        /// Its value.
        limit: usize,
    },
    /// Too much for now.
    #[error("overloaded: {0}")]
    Overloaded(&'static str),
    /// This broker does not do that.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

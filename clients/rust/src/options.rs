//! What a user may choose: of the client, of a subscription. Plain data.

use std::time::Duration;

use tidegate_protocol::session::Overflow;

/// How a client connects, waits and queues. Every field has a default that suits most.
#[derive(Clone, Debug)]
pub struct Options {
    /// From the first packet to the broker's `welcome`.
    pub connect_timeout: Duration,
    /// From a request to its answer. It also ends a request whose answer lies behind messages that the user
    /// does not read.
    pub request_timeout: Duration,
    /// From [`close`](crate::Client::close) to the broker's own Close.
    pub close_timeout: Duration,
    /// Silence after which the client sends a Ping.
    pub ping_interval: Duration,
    /// Silence after that Ping at which the connection is given up.
    pub ping_timeout: Duration,
    /// The pauses between attempts to connect again.
    pub backoff: Backoff,
    /// Whether permessage-deflate is offered.
    pub compression: Compression,
    /// What may be queued.
    pub limits: Limits,
}

/// Pauses that double from `first` to `max`, each shortened at random by up to a half. None is longer than an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub max: Duration,
}

/// Whether messages may travel compressed (RFC 7692).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// If the broker agrees; each message by itself, so it costs no memory between messages.
    Offered,
    /// Never.
    Off,
}

/// The bounds of every queue in a client. At the default a client that its user neglects holds some 17 MiB of
/// received messages, and the broker queues the rest under the subscription's overflow policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the largest message that is received, inflated. A larger one ends the connection with 1009.
    pub message_bytes_max: usize,
    /// Events that wait for the user. At this bound the client stops to read from the socket.
    pub events_max: usize,
    /// Bytes of events that wait for the user, likewise. One event may exceed it.
    pub event_bytes_max: usize,
    /// Requests that wait for the connection's task; `publish` and the others wait for room.
    pub commands_max: usize,
    /// Requests that wait for the broker's answer.
    pub in_flight_max: usize,
    /// Bytes that wait for the socket to take them. One message may exceed it.
    pub output_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(10),
            backoff: Backoff { first: Duration::from_millis(500), max: Duration::from_secs(30) },
            compression: Compression::Offered,
            limits: Limits::default(),
        }
    }
}

impl Limits {
    /// A queue without any room would stop the client.
    pub(crate) fn at_least_one(self) -> Self {
        Self {
            message_bytes_max: self.message_bytes_max,
            events_max: self.events_max.max(1),
            event_bytes_max: self.event_bytes_max.max(1),
            commands_max: self.commands_max.clamp(1, tokio::sync::Semaphore::MAX_PERMITS),
            in_flight_max: self.in_flight_max.max(1),
            output_bytes_max: self.output_bytes_max.max(1),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1024 * 1024,
            events_max: 4096,
            event_bytes_max: 16 * 1024 * 1024,
            commands_max: 64,
            in_flight_max: 128,
            output_bytes_max: 256 * 1024,
        }
    }
}

/// How a filter is subscribed to. The default asks for the retained message and for every one after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    pub(crate) last: u32,
    pub(crate) conflate: Option<Duration>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) no_local: bool,
}

/// What may take the place of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflate {
    /// A message replaces one of the same topic that is still queued in the broker. Costs a fast reader nothing.
    Queued,
    /// At most one message per topic in this time, the latest. Below a millisecond it is one millisecond.
    Every(Duration),
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self { last: 1, conflate: None, overflow: None, no_local: false }
    }
}

impl SubscribeOptions {
    /// The default: the retained message, then every one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages of the past come first: 0, 1 (the retained one), or more of a topic that has history.
    #[must_use]
    pub const fn with_last(mut self, last: u32) -> Self {
        self.last = last;
        self
    }

    /// Lets later messages replace earlier ones of the same topic.
    #[must_use]
    pub fn with_conflate(mut self, conflate: Conflate) -> Self {
        self.conflate = Some(match conflate {
            Conflate::Queued => Duration::ZERO,
            // Zero is the word for `Queued`.
            Conflate::Every(interval) => interval.max(Duration::from_millis(1)),
        });
        self
    }

    /// What the broker does when this client does not keep up. Otherwise the operator decides.
    #[must_use]
    pub const fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// Leaves out what this client publishes itself.
    #[must_use]
    pub const fn with_no_echo(mut self) -> Self {
        self.no_local = true;
        self
    }
}

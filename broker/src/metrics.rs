//! What is counted. No label per topic or client: the words that split a counter are in `labels`.
//!
//! Hot code adds to plain atomics, once per batch; everything else happens when somebody reads the `page`.

mod labels;
mod page;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate_protocol::session::DropReason;
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::websocket::deflate;

pub use self::labels::{Ended, HandshakeRefusal, Label, PublishRefusal};
pub use self::page::CONTENT_TYPE;
use crate::store::writer::Gauges;

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that goes up and down. A `sub` may be a moment earlier than its `add`, when two tasks do them.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// One counter for each word of `L`.
#[derive(Debug)]
pub struct ByLabel<L> {
    counters: Box<[Counter]>,
    label: std::marker::PhantomData<fn(L)>,
}

/// All counters. Shared as `Arc<Metrics>`.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    raw: FamilyMetrics,
    mqtt: FamilyMetrics,
    stomp: FamilyMetrics,
    /// Drops by reason.
    pub drops: ByLabel<DropReason>,
    /// Handshakes that got no 101.
    pub handshakes_refused: ByLabel<HandshakeRefusal>,
    /// Publishes that were not taken.
    pub publishes_refused: ByLabel<PublishRefusal>,
    /// Ends of connections.
    pub disconnects: ByLabel<Ended>,
    /// Times that a publisher's acknowledgement was held for a slow subscriber (`queue.publish_wait`).
    pub publishers_held: Counter,
    /// Bytes queued for clients; shared so that publications can charge it.
    pub outbox_bytes: Arc<AtomicUsize>,
    /// Messages queued for clients.
    pub outbox_messages: Gauge,
    /// Retained messages.
    pub retained_messages: Gauge,
    /// Their topics and payloads.
    pub retained_bytes: Gauge,
    /// Subscriptions of all clients.
    pub subscriptions: Gauge,
    /// Queues that hold messages or have consumers, and what durable subscriptions of STOMP are kept under.
    pub work_queues: Gauge,
    /// Messages in them.
    pub work_queue_messages: Gauge,
    /// Those of them that share their messages with others of a group.
    pub shared_subscriptions: Gauge,
    /// Clients that have connected: their session is open, not only their socket.
    pub clients: Gauge,
    /// Requests to connect, refused ones too.
    pub connects: Counter,
    /// Sessions that may outlive their connections.
    pub sessions: Gauge,
    /// Sessions that are kept while their client is away.
    pub sessions_away: Gauge,
    /// Kept sessions that ended because their time was over.
    pub sessions_expired: Counter,
    /// permessage-deflate.
    pub deflate: DeflateMetrics,
    /// The store, if there is one.
    pub store: StoreMetrics,
}

/// What is counted for each protocol family. On cache lines of its own, since all workers write to it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct FamilyMetrics {
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections that were ever opened.
    pub connections_opened: Counter,
    /// Messages published by clients.
    pub messages_in: Counter,
    /// Messages delivered to clients.
    pub messages_out: Counter,
    /// Bytes read from sockets after the handshake.
    pub bytes_in: Counter,
    /// Bytes written to sockets after the handshake.
    pub bytes_out: Counter,
    /// WebSocket messages from clients: a packet or frame of any type in each, seldom more.
    pub websocket_messages_in: Counter,
    /// WebSocket messages to clients, of any type.
    pub websocket_messages_out: Counter,
    /// Payloads of the messages published by clients.
    pub payload_bytes_in: Counter,
    /// Payloads of the messages delivered to clients.
    pub payload_bytes_out: Counter,
}

/// What the store says of itself. Without one nothing of it is on the page.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    is_there: AtomicBool,
    /// 1: the last commit failed.
    pub failing: Gauge,
    /// 1: it has grown to `store.max_bytes`.
    pub full: Gauge,
    /// Bytes that wait to be committed.
    pub pending_bytes: Gauge,
    /// Removals that wait for the disk to work again.
    pub kept: Gauge,
    /// Bytes on the disk.
    pub disk_bytes: Gauge,
    /// Records that could not be read at the start, and were put aside.
    pub quarantined: Gauge,
    /// Commits.
    pub commits: Counter,
    /// What was committed in them.
    pub submissions: Counter,
    /// Commits that failed.
    pub failures: Counter,
    /// Time in commits.
    pub busy_us: Counter,
}

/// What is counted of permessage-deflate.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct DeflateMetrics {
    /// Connections that negotiated it and are open.
    pub connections: Gauge,
    /// Bytes reserved for context takeover (`websocket.deflate.takeover_memory`).
    pub takeover_bytes: Gauge,
    /// Messages that were compressed; one to many clients counts once.
    pub compressed: Counter,
    /// Their bytes before.
    pub compressed_bytes_before: Counter,
    /// Their bytes after.
    pub compressed_bytes_after: Counter,
    /// Messages that were inflated.
    pub inflated: Counter,
    /// Their bytes before.
    pub inflated_bytes_before: Counter,
    /// Their bytes after.
    pub inflated_bytes_after: Counter,
}

impl DeflateMetrics {
    /// Takes over the sums of the process.
    pub fn observe(&self, totals: &deflate::Totals) {
        for (counter, total) in [
            (&self.compressed, totals.compressed),
            (&self.compressed_bytes_before, totals.compressed_bytes_before),
            (&self.compressed_bytes_after, totals.compressed_bytes_after),
            (&self.inflated, totals.inflated),
            (&self.inflated_bytes_before, totals.inflated_bytes_before),
            (&self.inflated_bytes_after, totals.inflated_bytes_after),
        ] {
            counter.raise_to(total);
        }
    }
}

impl StoreMetrics {
    /// Takes over what the writer knows.
    pub fn observe(&self, gauges: &Gauges) {
        self.is_there.store(true, Ordering::Relaxed);
        self.failing.set(gauges.is_failing.into());
        self.full.set(gauges.is_full.into());
        self.pending_bytes.set(gauges.pending_bytes as u64);
        self.kept.set(gauges.kept as u64);
        self.disk_bytes.set(gauges.disk_bytes);
        self.commits.raise_to(gauges.commits);
        self.submissions.raise_to(gauges.submissions);
        self.failures.raise_to(gauges.failures);
        self.busy_us.raise_to(u64::try_from(gauges.busy.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Counter {
    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// For a number that is counted elsewhere: at least `n`.
    pub fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// `n` fewer.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Exactly `n`.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// At the moment.
    #[must_use]
    pub fn value(&self) -> u64 {
        let number = self.0.load(Ordering::Relaxed);
        if i64::try_from(number).is_ok() { number } else { 0 }
    }
}

impl<L: Label> ByLabel<L> {
    /// `n` more under this word.
    pub fn add(&self, label: L, n: u64) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.add(n);
        }
    }

    /// One more under this word.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// So far under this word.
    #[must_use]
    pub fn value(&self, label: L) -> u64 {
        self.counters.get(label.index()).map_or(0, Counter::value)
    }
}

impl<L: Label> Default for ByLabel<L> {
    fn default() -> Self {
        let counters = L::NAMES.iter().map(|_| Counter::default()).collect();
        Self { counters, label: std::marker::PhantomData }
    }
}

impl Metrics {
    /// All zero. `started` is the start of the process.
    #[must_use]
    pub fn new(started: Instant) -> Arc<Self> {
        Arc::new(Self {
            started,
            raw: FamilyMetrics::default(),
            mqtt: FamilyMetrics::default(),
            stomp: FamilyMetrics::default(),
            drops: ByLabel::default(),
            handshakes_refused: ByLabel::default(),
            publishes_refused: ByLabel::default(),
            disconnects: ByLabel::default(),
            publishers_held: Counter::default(),
            outbox_bytes: Arc::default(),
            outbox_messages: Gauge::default(),
            retained_messages: Gauge::default(),
            retained_bytes: Gauge::default(),
            subscriptions: Gauge::default(),
            work_queues: Gauge::default(),
            work_queue_messages: Gauge::default(),
            shared_subscriptions: Gauge::default(),
            sessions: Gauge::default(),
            clients: Gauge::default(),
            connects: Counter::default(),
            sessions_away: Gauge::default(),
            sessions_expired: Counter::default(),
            deflate: DeflateMetrics::default(),
            store: StoreMetrics::default(),
        })
    }

    /// Counts drops; none costs nothing.
    pub fn dropped(&self, reason: DropReason, n: u64) {
        if n > 0 {
            self.drops.add(reason, n);
        }
    }

    /// Deliveries dropped for any reason.
    #[must_use]
    pub fn drops_sum(&self) -> u64 {
        self.drops.counters.iter().map(Counter::value).sum()
    }

    /// Time since the start.
    #[must_use]
    pub fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// One number of all families together.
    pub fn sum(&self, read: impl Fn(&FamilyMetrics) -> u64) -> u64 {
        [&self.raw, &self.mqtt, &self.stomp].into_iter().map(read).sum()
    }

    /// The counters of a family.
    #[must_use]
    pub const fn family(&self, family: Family) -> &FamilyMetrics {
        match family {
            Family::Raw => &self.raw,
            Family::Mqtt => &self.mqtt,
            Family::Stomp => &self.stomp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_goes_down_again() {
        let gauge = Gauge::default();
        gauge.add(3);
        gauge.sub(2);
        assert_eq!(gauge.value(), 1);
        gauge.sub(2);
        assert_eq!(gauge.value(), 0, "one of them is not there yet");
        gauge.add(1);
        assert_eq!(gauge.value(), 0);
    }
}

//! Counters, and the Prometheus page made of them. No label per topic or client.
//!
//! Hot code adds to plain atomics, once per batch; everything else happens when somebody reads the page.

mod labels;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tidegate_protocol::session::DropReason;
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::websocket::deflate;

pub use self::labels::{Ended, HandshakeRefusal, Label, PublishRefusal};

/// What [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
            shared_subscriptions: Gauge::default(),
            sessions: Gauge::default(),
            clients: Gauge::default(),
            connects: Counter::default(),
            sessions_away: Gauge::default(),
            sessions_expired: Counter::default(),
            deflate: DeflateMetrics::default(),
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

    /// The Prometheus page, in [`CONTENT_TYPE`].
    pub fn encode(self: &Arc<Self>, now: Instant) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("tidegate");
        registry.register_collector(Box::new(Page { metrics: Arc::clone(self), now }));
        let mut text = String::with_capacity(8 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// One reading of all counters.
#[derive(Debug)]
struct Page {
    metrics: Arc<Metrics>,
    now: Instant,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &*self.metrics;
        families(metrics, &mut encoder)?;
        by_label(&mut encoder, "drops", "Deliveries dropped", "reason", &metrics.drops)?;
        let refused = &metrics.handshakes_refused;
        by_label(&mut encoder, "handshakes_refused", "Handshakes that were refused", "reason", refused)?;
        let refused = &metrics.publishes_refused;
        by_label(&mut encoder, "publishes_refused", "Publishes that were refused", "reason", refused)?;
        by_label(&mut encoder, "disconnects", "Connections that ended", "reason", &metrics.disconnects)?;
        let held = metrics.publishers_held.value();
        counter(&mut encoder, "publishers_held", "Acknowledgements held for a slow subscriber", held)?;
        let outbox_bytes = metrics.outbox_bytes.load(Ordering::Relaxed) as u64;
        gauge(&mut encoder, "outbox_bytes", "Bytes queued for clients", outbox_bytes)?;
        let queued = metrics.outbox_messages.value();
        gauge(&mut encoder, "outbox_messages", "Messages queued for clients", queued)?;
        gauge(&mut encoder, "retained_messages", "Retained messages", metrics.retained_messages.value())?;
        gauge(&mut encoder, "retained_bytes", "Bytes of retained messages", metrics.retained_bytes.value())?;
        gauge(&mut encoder, "subscriptions", "Subscriptions of all clients", metrics.subscriptions.value())?;
        gauge(
            &mut encoder,
            "shared_subscriptions",
            "Members of shared subscriptions",
            metrics.shared_subscriptions.value(),
        )?;
        gauge(&mut encoder, "sessions", "Sessions that outlive their connections", metrics.sessions.value())?;
        counter(
            &mut encoder,
            "sessions_expired",
            "Sessions whose time was over",
            metrics.sessions_expired.value(),
        )?;
        deflate(&metrics.deflate, &mut encoder)?;
        let shared = metrics.shared_subscriptions.value();
        gauge(&mut encoder, "shared_subscriptions", "Subscriptions that belong to a group", shared)?;
        gauge(&mut encoder, "clients", "Clients that have connected", metrics.clients.value())?;
        counter(&mut encoder, "connects", "Requests to connect", metrics.connects.value())?;
        gauge(&mut encoder, "sessions_away", "Sessions without a connection", metrics.sessions_away.value())?;
        let expired = metrics.sessions_expired.value();
        counter(&mut encoder, "sessions_expired", "Sessions whose time was over", expired)?;
        let uptime = metrics.uptime(self.now).as_secs();
        gauge(&mut encoder, "uptime_seconds", "Time since the start", uptime)?;
        let mut build = describe(&mut encoder, "build_info", "The version", MetricType::Gauge)?;
        build.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1u64)
    }
}

fn families(metrics: &Metrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    type Read = fn(&FamilyMetrics) -> u64;
    let all: [(&str, &str, MetricType, Read); 10] = [
        ("connections", "Open connections", MetricType::Gauge, |f| f.connections.value()),
        ("connections_opened", "Connections opened", MetricType::Counter, |f| f.connections_opened.value()),
        ("messages_received", "Messages published by clients", MetricType::Counter, |f| {
            f.messages_in.value()
        }),
        ("messages_sent", "Messages delivered to clients", MetricType::Counter, |f| f.messages_out.value()),
        ("received_bytes", "Bytes read from sockets", MetricType::Counter, |f| f.bytes_in.value()),
        ("sent_bytes", "Bytes written to sockets", MetricType::Counter, |f| f.bytes_out.value()),
        ("websocket_messages_received", "WebSocket messages from clients", MetricType::Counter, |f| {
            f.websocket_messages_in.value()
        }),
        ("websocket_messages_sent", "WebSocket messages to clients", MetricType::Counter, |f| {
            f.websocket_messages_out.value()
        }),
        ("payload_received_bytes", "Payloads published by clients", MetricType::Counter, |f| {
            f.payload_bytes_in.value()
        }),
        ("payload_sent_bytes", "Payloads delivered to clients", MetricType::Counter, |f| {
            f.payload_bytes_out.value()
        }),
    ];
    for (name, help, kind, read) in all {
        let is_gauge = matches!(kind, MetricType::Gauge);
        let mut metric = describe(encoder, name, help, kind)?;
        for (protocol, family) in [("raw", Family::Raw), ("mqtt", Family::Mqtt), ("stomp", Family::Stomp)] {
            let labels = [("protocol", protocol)];
            let mut series = metric.encode_family(&labels)?;
            let value = read(metrics.family(family));
            if is_gauge {
                series.encode_gauge(&value)?;
            } else {
                series.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
            }
        }
    }
    Ok(())
}

fn deflate(deflate: &DeflateMetrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    gauge(encoder, "deflate_connections", "Open connections with deflate", deflate.connections.value())?;
    let takeover = deflate.takeover_bytes.value();
    gauge(encoder, "deflate_takeover_bytes", "Memory reserved for context takeover", takeover)?;
    for (name, help, read) in [
        ("deflate_compressed_messages", "Messages compressed", &deflate.compressed),
        ("deflate_compressed_before_bytes", "Their bytes before", &deflate.compressed_bytes_before),
        ("deflate_compressed_after_bytes", "Their bytes after", &deflate.compressed_bytes_after),
        ("deflate_inflated_messages", "Messages inflated", &deflate.inflated),
        ("deflate_inflated_before_bytes", "Their bytes before", &deflate.inflated_bytes_before),
        ("deflate_inflated_after_bytes", "Their bytes after", &deflate.inflated_bytes_after),
    ] {
        counter(encoder, name, help, read.value())?;
    }
    Ok(())
}

fn by_label<L: Label>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    counters: &ByLabel<L>,
) -> fmt::Result {
    let mut metric = describe(encoder, name, help, MetricType::Counter)?;
    for (word, counter) in L::NAMES.iter().zip(&counters.counters) {
        let labels = [(label, *word)];
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&counter.value(), None)?;
    }
    Ok(())
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    describe(encoder, name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    describe(encoder, name, help, MetricType::Gauge)?.encode_gauge(&value)
}

fn describe<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
    kind: MetricType,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, kind)
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::session::{CloseKind, Refusal};

    use super::*;

    fn check(act: impl FnOnce(&Metrics), line: &str) {
        let start = Instant::now();
        let metrics = Metrics::new(start);
        let before = metrics.encode(start).unwrap();
        assert!(!before.lines().any(|other| other == line), "{line} stands there from the start");
        act(&metrics);
        let after = metrics.encode(start + Duration::from_secs(7)).unwrap();
        assert!(after.lines().any(|other| other == line), "{line} is missing in\n{after}");
    }

    #[test]
    fn what_is_counted_is_on_the_page() {
        check(|m| m.family(Family::Mqtt).connections.add(2), "tidegate_connections{protocol=\"mqtt\"} 2");
        check(
            |m| m.family(Family::Raw).messages_in.add(3),
            "tidegate_messages_received_total{protocol=\"raw\"} 3",
        );
        check(
            |m| m.family(Family::Stomp).bytes_out.add(4),
            "tidegate_sent_bytes_total{protocol=\"stomp\"} 4",
        );
        check(
            |m| m.family(Family::Mqtt).payload_bytes_in.add(4),
            "tidegate_payload_received_bytes_total{protocol=\"mqtt\"} 4",
        );
        check(|m| m.clients.add(2), "tidegate_clients 2");
        check(|m| m.sessions_expired.inc(), "tidegate_sessions_expired_total 1");
        check(|m| m.drops.add(DropReason::Conflated, 5), "tidegate_drops_total{reason=\"conflated\"} 5");
        let slow = Ended::Closed(CloseKind::TooSlow);
        check(|m| m.disconnects.inc(slow), "tidegate_disconnects_total{reason=\"too_slow\"} 1");
        let origin = HandshakeRefusal::Origin;
        check(|m| m.handshakes_refused.inc(origin), "tidegate_handshakes_refused_total{reason=\"origin\"} 1");
        let quota = Refusal::Quota { name: "mqtt.retained_max_bytes", limit: 1 };
        check(
            |m| m.publishes_refused.inc((&quota).into()),
            "tidegate_publishes_refused_total{reason=\"quota\"} 1",
        );
        check(|m| _ = m.outbox_bytes.fetch_add(6, Ordering::Relaxed), "tidegate_outbox_bytes 6");
        check(|m| m.retained_bytes.set(8), "tidegate_retained_bytes 8");
        check(|m| m.deflate.compressed.inc(), "tidegate_deflate_compressed_messages_total 1");
        check(|_| (), "tidegate_uptime_seconds 7");
    }

    #[test]
    fn the_page_names_the_build_and_ends_as_openmetrics_does() {
        let start = Instant::now();
        let page = Metrics::new(start).encode(start).unwrap();
        let build = format!("tidegate_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        assert!(page.contains(&build), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

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

//! The Prometheus page: every counter under its name, read when somebody asks.
//!
//! Counts nothing itself. Spec: OpenMetrics 1.0.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tidegate_protocol::subprotocol::Family;

use super::{ByLabel, DeflateMetrics, FamilyMetrics, Label, Metrics, StoreMetrics};

/// What [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Metrics {
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
        let queues = metrics.work_queues.value();
        gauge(&mut encoder, "work_queues", "Queues of one consumer per message", queues)?;
        let queued = metrics.work_queue_messages.value();
        gauge(&mut encoder, "work_queue_messages", "Messages in work queues", queued)?;
        gauge(&mut encoder, "sessions", "Sessions that outlive their connections", metrics.sessions.value())?;
        deflate(&metrics.deflate, &mut encoder)?;
        store(&metrics.store, &mut encoder)?;
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

fn store(store: &StoreMetrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if !store.is_there.load(Ordering::Relaxed) {
        return Ok(());
    }
    for (name, help, read) in [
        ("store_failing", "1 while the disk of the store fails", &store.failing),
        ("store_full", "1 while the store has grown to store.max_bytes", &store.full),
        ("store_pending_bytes", "Bytes that wait for the disk", &store.pending_bytes),
        ("store_kept_removals", "Removals that wait for the disk to work again", &store.kept),
        ("store_disk_bytes", "Bytes that the store takes on the disk", &store.disk_bytes),
        ("store_quarantined", "Records that could not be read at the start", &store.quarantined),
    ] {
        gauge(encoder, name, help, read.value())?;
    }
    for (name, help, read) in [
        ("store_commits", "Commits", &store.commits),
        ("store_submissions", "Requests committed in them", &store.submissions),
        ("store_failures", "Commits that failed", &store.failures),
        ("store_busy_microseconds", "Time spent in commits", &store.busy_us),
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
    use std::time::Duration;

    use tidegate_protocol::session::{CloseKind, DropReason, Refusal};

    use super::*;
    use crate::metrics::{Ended, HandshakeRefusal};

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
}

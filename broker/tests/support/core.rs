//! A broker's core without sockets, tasks and protocols: for tests that hand requests in and take deliveries out. Time is
//! an argument.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "test helpers may panic, and each test program uses another part of them"
)]

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize};
use std::time::{Duration, Instant};

use tidegate::auth::{Anonymous, Authenticator};
use tidegate::broker::{Broker, Rules};
use tidegate::metrics::Metrics;
use tidegate::outbox::Shared;
use tidegate::outbox::queue::Limits;
use tidegate::outbox::writer::{Socket, WriteLimits};
use tidegate::retained::{Retained, RetainedLimits};
use tidegate::router::shared::Strategy;
use tidegate::topic_rules::TopicRules;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Connect, Copies, LagNotice, Overflow, RetainHandling, Subscribe};
use tidegate_protocol::topic::{TopicFilter, TopicLimits};

/// A socket that takes everything.
#[derive(Debug)]
pub struct Sink;

impl Socket for Sink {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
}

/// What the operator's file would say.
pub struct Setup {
    pub rules: Rules,
    pub limits: Limits,
    pub retained: RetainedLimits,
    pub total_bytes_max: usize,
}

impl Default for Setup {
    /// Nobody waits for room, and hardly anything is limited.
    fn default() -> Self {
        let rules = Rules {
            qos_max: QoS::ExactlyOnce,
            overflow_qos0: Overflow::DropOldest,
            overflow_qos1: Overflow::Disconnect,
            overflow_offline: Overflow::DropOldest,
            retain: true,
            retained_batch: 100,
            session_expiry_default: Duration::ZERO,
            session_expiry_max: Duration::from_secs(u32::MAX.into()),
            sessions_max: 100,
            queues: Default::default(),
            shared_strategy: Strategy::RoundRobin,
        };
        let limits = Limits {
            messages_max: 100,
            bytes_max: 1 << 20,
            publish_wait: Duration::ZERO,
            slow_after: Duration::ZERO,
        };
        let retained = RetainedLimits { messages_max: 100, bytes_max: 1 << 20 };
        Self { rules, limits, retained, total_bytes_max: usize::MAX }
    }
}

impl Setup {
    /// The broker, without a store.
    pub fn build(self) -> Broker {
        let metrics = Metrics::new(instant());
        let shared = Shared {
            limits: self.limits,
            write: WriteLimits { coalesce_bytes: 1 << 14, batch_bytes: 1 << 16 },
            publication_bytes: Arc::new(AtomicUsize::new(0)),
            entries: AtomicIsize::new(0),
            total_bytes_max: self.total_bytes_max,
            metrics: Arc::clone(&metrics),
        };
        let retained = Retained::new(self.retained);
        let authenticator = Authenticator::new(Anonymous::Always);
        let topic_rules = TopicRules::new(Vec::new());
        Broker::new(self.rules, topic_rules, authenticator, retained, Arc::new(shared), metrics)
    }
}

/// The first instant of a test.
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub fn connect(id: &str, clean_start: bool, expiry: Duration) -> Connect {
    Connect {
        client_id: Some(id.into()),
        clean_start,
        session_expiry: Some(expiry),
        subscriptions_max: 100,
        forms: None,
        credentials: None,
        will: None,
        packet_bytes_max: None,
        lag: LagNotice::Silent,
    }
}

pub fn subscribe(filter: &str, qos: QoS) -> Subscribe {
    Subscribe {
        id: None,
        filter: self::filter(filter),
        group: None,
        identifier: None,
        qos,
        forms: None,
        head: None,
        no_local: false,
        retain_as_published: false,
        retained: RetainHandling::Send,
        overflow: None,
        conflate: None,
        copies: Copies::PerClient,
        selector: None,
        durable: None,
        prefetch: None,
    }
}

pub fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &TopicLimits::STANDARD).unwrap()
}

//! The real broker in this process: the one place that builds it.

use std::sync::Arc;
use std::time::Duration;

use tidegate::auth::{Anonymous, Authenticator};
use tidegate::broker::{Broker, Rules};
use tidegate::connection;
use tidegate::metrics::Metrics;
use tidegate::outbox::Shared;
use tidegate::outbox::queue::Limits;
use tidegate::outbox::writer::WriteLimits;
use tidegate::retained::{Retained, RetainedLimits};
use tidegate::server::{AdmissionLimits, BindError, ListenerSettings, Server, Settings};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::Overflow;

/// A broker that has started, and where.
pub fn start() -> (Server, String) {
    let server = start_at("127.0.0.1:0").unwrap();
    let (_, address) = server.listeners().next().unwrap();
    let url = format!("ws://{address}/ws");
    (server, url)
}

/// Another broker in the place of one that has stopped.
pub async fn restart(url: &str) -> Server {
    let address = url.strip_prefix("ws://").unwrap().strip_suffix("/ws").unwrap();
    // The listener of the old one is closed by a task of its own.
    loop {
        match start_at(address) {
            Ok(server) => return server,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn start_at(address: &str) -> Result<Server, BindError> {
    let metrics = Arc::new(Metrics::default());
    let shared = Arc::new(Shared {
        limits: Limits {
            messages_max: 1000,
            bytes_max: 1 << 20,
            publish_wait: Duration::from_millis(200),
            slow_after: Duration::from_secs(1),
        },
        write: WriteLimits { coalesce_bytes: 16_384, batch_bytes: 65_536 },
        publication_bytes: Arc::default(),
        entries: Default::default(),
        total_bytes_max: 1 << 30,
        metrics: metrics.clone(),
    });
    let rules = Rules {
        qos_max: QoS::AtLeastOnce,
        subscriptions_max: 1000,
        overflow_qos0: Overflow::DropOldest,
        overflow_qos1: Overflow::Disconnect,
        retain: true,
        retained_batch: 100,
    };
    let retained = Retained::new(RetainedLimits { messages_max: 1000, bytes_max: 1 << 20 });
    let broker = Broker::new(rules, Authenticator::new(Anonymous::Loopback), retained, shared, metrics);
    let settings = Settings {
        origins: Vec::new(),
        require_origin: false,
        handshake_timeout: Duration::from_secs(10),
        header_bytes_max: 16_384,
        deflate: Default::default(),
        takeover_bytes_max: 1 << 20,
        connection: Arc::new(connection::Settings {
            message_bytes_max: 1 << 20,
            message_bytes_max_preauth: 65_536,
            ping_interval: Some(Duration::from_secs(25)),
            pong_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            idle_timeout: None,
            read_bytes_max: 65_536,
            stall_timeout: Duration::from_secs(15),
            publish_wait: Duration::from_millis(200),
        }),
        sessions: Arc::default(),
    };
    let listener = ListenerSettings {
        name: "test".into(),
        bind: address.parse().unwrap(),
        paths: vec!["/ws".to_owned()],
        negotiation: Default::default(),
        limits: AdmissionLimits {
            connections_max: 100,
            connections_per_ip_max: None,
            handshakes_per_second: None,
        },
    };
    Server::start(vec![listener], settings, Arc::new(broker))
}

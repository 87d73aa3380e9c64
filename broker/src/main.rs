//! Interim.
use std::sync::Arc;
use std::time::Duration;
use tidegate::auth::*;
use tidegate::broker::*;
use tidegate::metrics::Metrics;
use tidegate::outbox::queue::Limits;
use tidegate::outbox::writer::WriteLimits;
use tidegate::outbox::*;
use tidegate::retained::*;
use tidegate::server::*;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::Overflow;
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().init();
    let metrics = Arc::new(Metrics::default());
    let shared = Arc::new(Shared {
        limits: Limits {
            messages_max: 1000,
            bytes_max: 1 << 20,
            publish_wait: Duration::from_millis(200),
            slow_after: Duration::from_secs(1),
        },
        write: WriteLimits { coalesce_bytes: 16384, batch_bytes: 65536 },
        publication_bytes: Default::default(),
        entries: Default::default(),
        total_bytes_max: 6 << 30,
        metrics: metrics.clone(),
    });
    let broker = Arc::new(Broker::new(
        Rules {
            qos_max: QoS::AtLeastOnce,
            subscriptions_max: 1000,
            overflow_qos0: Overflow::DropOldest,
            overflow_qos1: Overflow::Disconnect,
            retain: true,
            retained_batch: 100,
        },
        Authenticator::new(Anonymous::Loopback),
        Retained::new(RetainedLimits { messages_max: 100_000, bytes_max: 256 << 20 }),
        shared,
        metrics,
    ));
    let settings = tidegate::server::Settings {
        origins: vec![],
        require_origin: false,
        handshake_timeout: Duration::from_secs(10),
        header_bytes_max: 16384,
        deflate: Default::default(),
        takeover_bytes_max: 64 << 20,
        connection: Arc::new(tidegate::connection::Settings {
            message_bytes_max: 1 << 20,
            message_bytes_max_preauth: 65536,
            ping_interval: Some(Duration::from_secs(25)),
            pong_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            idle_timeout: None,
            read_bytes_max: 65536,
            stall_timeout: Duration::from_secs(15),
            publish_wait: Duration::from_millis(200),
        }),
        sessions: Arc::new(Default::default()),
    };
    let server = Server::start(
        vec![ListenerSettings {
            name: "web".into(),
            bind: std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into()).parse().unwrap(),
            paths: ["/", "/ws", "/mqtt", "/stomp"].map(String::from).to_vec(),
            negotiation: Default::default(),
            limits: AdmissionLimits {
                connections_max: 100_000,
                connections_per_ip_max: None,
                handshakes_per_second: None,
            },
        }],
        settings,
        broker,
    )
    .unwrap();
    tokio::signal::ctrl_c().await.unwrap();
    println!("left: {}", server.stop(Duration::from_secs(5)).await);
}

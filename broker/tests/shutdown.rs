//! The graceful end of the broker, over real sockets: every client is told in its protocol's words, what is queued
//! is written, and nobody holds it up for longer than the operator allows (WIRE §5).
#![expect(clippy::panic, reason = "test helpers may panic")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::client::{ALL, Client, Protocol};
use support::http;
use support::mqtt::Mqtt;
use support::raw::{Code, Encoding, Envelope};
use support::socket::{Ask, End, Socket};
use support::stomp::Stomp;
use support::{Broker, within};
use tidegate_protocol::mqtt::packet::{ReasonCode, Version};
use tidegate_protocol::stomp;
use tokio::net::TcpStream;

/// Far above the patience of a test: whatever waits for this, fails.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// The end of a planned stop.
fn check_going_away(end: &End, who: &str) {
    let End::Closed { code: 1001, reason } = end else { panic!("{who}: {end:?}") };
    assert!(reason.contains("retry-after="), "{who}: {reason}");
}

/// Waits until a page of the admin listener has this status and body.
async fn page_becomes(admin: SocketAddr, path: &str, status: u16, body: &str) {
    within(path, async {
        loop {
            let page = http::get(admin, path).await;
            if (page.status, page.body.trim()) == (status, body) {
                return;
            }
        }
    })
    .await;
}

// ---- what clients are told ----

#[tokio::test]
async fn raw_clients_get_bye_and_a_close() {
    let broker = Broker::start("").await;
    let mut clients = Vec::new();
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let mut client = Envelope::connected(&broker, encoding).await;
        client.subscribe("a").await;
        clients.push((encoding, client));
    }
    let stop = tokio::spawn(broker.stop());
    for (encoding, mut client) in clients {
        let (said, end) = client.end().await;
        let (op, code) = said.map(|said| (said.op, said.code)).unwrap_or_default();
        assert_eq!((&*op, code), ("bye", Some(Code::Number(1001))), "{encoding:?}");
        check_going_away(&end, "raw");
    }
    assert_eq!(within("the end", stop).await.ok(), Some(0));
}

#[tokio::test]
async fn mqtt_clients_get_their_versions_goodbye() {
    let broker = Broker::start("").await;
    let mut clients = Vec::new();
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        clients.push((version, Mqtt::named(&broker, version, &format!("{version:?}")).await));
    }
    let stop = tokio::spawn(broker.stop());
    for (version, mut client) in clients {
        let (reason, end) = client.end().await;
        let expected = (version == Version::V5).then_some(ReasonCode::SERVER_SHUTTING_DOWN);
        assert_eq!(reason, expected, "{version:?}");
        check_going_away(&end, "MQTT");
    }
    assert_eq!(within("the end", stop).await.ok(), Some(0));
}

#[tokio::test]
async fn stomp_clients_get_error_and_a_close() {
    let broker = Broker::start("").await;
    let mut clients = Vec::new();
    for version in [stomp::Version::V1_0, stomp::Version::V1_1, stomp::Version::V1_2] {
        clients.push(Stomp::connected(&broker, version).await);
    }
    let stop = tokio::spawn(broker.stop());
    for mut client in clients {
        let (error, end) = client.end().await;
        let message = error.as_ref().and_then(|error| error.header("message")).unwrap_or_default();
        assert!(message.contains("shutting down"), "{:?}: {error:?}", client.version);
        check_going_away(&end, "STOMP");
    }
    assert_eq!(within("the end", stop).await.ok(), Some(0));
}

#[tokio::test]
async fn who_has_not_logged_in_is_told_too() {
    let broker = Broker::start("").await;
    let mut sockets = Vec::new();
    for protocols in [&["mqtt"][..], &["v12.stomp"], &["raw"], &[]] {
        let mut socket = Socket::open(broker.address, Ask { protocols, ..Ask::default() }).await;
        socket.barrier().await;
        sockets.push((protocols, socket));
    }
    let stop = tokio::spawn(broker.stop());
    for (protocols, mut socket) in sockets {
        check_going_away(&socket.end().await, &format!("{protocols:?}"));
        // The closing handshake is finished by the server, which ends TCP first (RFC 6455 §7.1.1).
        socket.answer_close().await;
        socket.tcp_end().await;
    }
    assert_eq!(within("the end", stop).await.ok(), Some(0));
}

// ---- what is queued ----

/// All but MQTT 5, where nothing may follow DISCONNECT, which is not held back for a slow reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_is_written_before_the_end() {
    const COUNT: usize = 1500;
    let broker = Broker::start_with("[queue]\nmax_messages = 10_000\nmax_bytes = \"8 MiB\"", |config| {
        config.shutdown.timeout = FOR_EVER;
    })
    .await;
    let ask = Ask { receive_buffer: Some(4096), ..Ask::default() };
    let mut subscribers = Vec::new();
    for protocol in ALL.into_iter().filter(|protocol| *protocol != Protocol::Mqtt5) {
        subscribers.push(Client::subscriber_with(&broker, protocol, &["a"], ask).await);
    }
    let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "a").await;
    for number in 0..COUNT {
        publisher.publish("a", format!("<{number:04}>{}", "x".repeat(2000))).await;
    }
    publisher.barrier().await;
    drop(publisher);
    let queued = broker.metric("tidegate_outbox_messages").await;
    assert!(queued > 0, "the kernel took it all");

    let stop = tokio::spawn(broker.stop());
    for subscriber in subscribers {
        let protocol = subscriber.protocol;
        let mut socket = subscriber.into_socket();
        let mut bytes = Vec::new();
        let end = loop {
            match socket.message_or_end().await {
                Ok(message) => bytes.extend_from_slice(&message.into_bytes()),
                Err(end) => break end,
            }
        };
        check_going_away(&end, &format!("{protocol:?}"));
        let text = String::from_utf8_lossy(&bytes);
        let numbers: Vec<usize> = text.split('<').filter_map(|part| part.get(..4)?.parse().ok()).collect();
        assert!(numbers.iter().copied().eq(0..COUNT), "{protocol:?}: {} of {COUNT}", numbers.len());
    }
    assert_eq!(within("the end", stop).await.ok(), Some(0));
}

// ---- how long it takes ----

#[tokio::test]
async fn a_client_that_does_not_answer_holds_the_end_up_for_the_timeout_alone() {
    let broker = Broker::start_with("", |config| {
        config.shutdown.timeout = Duration::from_millis(200);
        config.websocket.close_timeout = FOR_EVER;
    })
    .await;
    let mut held = Vec::new();
    for protocol in ALL {
        held.push(Client::subscriber(&broker, protocol, &["a"]).await);
    }
    assert_eq!(broker.stop().await, ALL.len());
    drop(held);
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_dropped_after_close_timeout() {
    let broker = Broker::start_with("", |config| {
        config.shutdown.timeout = FOR_EVER;
        config.websocket.close_timeout = Duration::from_millis(200);
    })
    .await;
    let mut held = Vec::new();
    for protocol in ALL {
        held.push(Client::subscriber(&broker, protocol, &["a"]).await);
    }
    assert_eq!(broker.stop().await, 0);
    drop(held);
}

#[tokio::test]
async fn a_broker_without_clients_stops_at_once() {
    let broker = Broker::start_with("", |config| {
        config.shutdown.timeout = FOR_EVER;
        config.shutdown.readiness_grace = FOR_EVER;
    })
    .await;
    let address = broker.address;
    assert_eq!(broker.stop().await, 0);
    nobody_listens(address).await;
}

// ---- what the operator sees ----

#[tokio::test]
async fn in_the_readiness_grace_it_serves_and_says_that_it_is_not_ready() {
    let broker = Broker::start_with("", |config| config.shutdown.readiness_grace = FOR_EVER).await;
    let (address, admin) = (broker.address, broker.admin);
    page_becomes(admin, "/healthz", 200, "ok").await;
    page_becomes(admin, "/readyz", 200, "ready").await;
    let mut client = Socket::open(address, Ask::default()).await;
    client.barrier().await;
    let stop = tokio::spawn(broker.stop());
    page_becomes(admin, "/readyz", 503, "leaving").await;
    page_becomes(admin, "/healthz", 200, "ok").await;
    client.barrier().await;
    let mut late = Socket::open(address, Ask::default()).await;
    late.barrier().await;
    stop.abort();
}

#[tokio::test]
async fn after_the_readiness_grace_the_clients_are_told() {
    let broker = Broker::start_with("", |config| {
        config.shutdown.readiness_grace = Duration::from_millis(200);
        config.shutdown.timeout = FOR_EVER;
    })
    .await;
    let mut client = Socket::open(broker.address, Ask::default()).await;
    client.barrier().await;
    let stop = tokio::spawn(broker.stop());
    check_going_away(&client.end().await, "raw");
    client.answer_close().await;
    assert_eq!(within("the end", stop).await.ok(), Some(0));
}

#[tokio::test]
async fn while_it_drains_it_is_neither_alive_nor_ready_and_takes_nobody() {
    let broker = Broker::start_with("", |config| {
        config.shutdown.timeout = FOR_EVER;
        config.websocket.close_timeout = FOR_EVER;
    })
    .await;
    let (address, admin) = (broker.address, broker.admin);
    let mut client = Socket::open(address, Ask::default()).await;
    client.barrier().await;
    let stop = tokio::spawn(broker.stop());
    check_going_away(&client.end().await, "raw");
    page_becomes(admin, "/healthz", 503, "draining").await;
    page_becomes(admin, "/readyz", 503, "draining").await;
    nobody_listens(address).await;
    assert!(!stop.is_finished());
    client.answer_close().await;
    assert_eq!(within("the end", stop).await.ok(), Some(0));
    nobody_listens(admin).await;
}

/// Waits until connections are refused.
async fn nobody_listens(address: SocketAddr) {
    within("a refused connection", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

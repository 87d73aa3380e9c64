//! How a WebSocket begins over a real socket, and every refusal in words that help (WIRE §1, SEC-5 to SEC-8).
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::http::{self, Answer};
use support::socket::{Ask, Socket};
use support::{Broker, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// MQTT 5 CONNECT, clean start, no client id.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00";

/// The lines of a correct handshake but for Upgrade, Connection and the version.
const KEY: &str = "Host: test\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The handshake is refused with this status, and its body has each of `parts`.
async fn check_refused(
    broker: &Broker,
    target: &str,
    headers: &[&str],
    status: u16,
    parts: &[&str],
) -> Answer {
    let answer = http::upgrade(broker.address, target, headers).await;
    assert_eq!(answer.status, status, "{target} {headers:?}: {answer:?}");
    for part in parts {
        assert!(answer.body.contains(part), "{part:?} is missing for {target} {headers:?}: {answer:?}");
    }
    answer
}

/// The offer is accepted, and this token is the answer.
async fn check_chosen(broker: &Broker, target: &str, offer: Option<&str>, token: Option<&str>) {
    let header = offer.map(|offer| format!("Sec-WebSocket-Protocol: {offer}"));
    let answer = http::upgrade(broker.address, target, header.as_deref().as_slice()).await;
    assert_eq!(answer.status, 101, "{target} {offer:?}: {answer:?}");
    assert_eq!(answer.header("sec-websocket-protocol"), token, "{target} {offer:?}");
}

async fn check_request(address: SocketAddr, head: &str, status: u16) -> Answer {
    let answer = http::request(address, head.as_bytes()).await;
    assert_eq!(answer.status, status, "{head:.300}: {answer:?}");
    answer
}

// ---- which protocol ----

#[tokio::test]
async fn the_first_supported_family_of_the_client_is_chosen() {
    let broker = Broker::start("").await;
    for (offer, token) in [
        ("soap, wamp, mqtt", "mqtt"),
        ("mqtt, v12.stomp", "mqtt"),
        ("v10.stomp, mqtt", "v10.stomp"),
        ("raw, mqtt, v12.stomp", "raw"),
        ("mqttv3.1, mqtt", "mqttv3.1"),
        ("mqttv5", "mqttv5"),
        ("raw.msgpack.v1, raw.json.v1", "raw.msgpack.v1"),
    ] {
        check_chosen(&broker, "/ws", Some(offer), Some(token)).await;
    }
    check_chosen(&broker, "/ws", None, None).await;
}

#[tokio::test]
async fn of_several_stomp_versions_the_highest_is_chosen() {
    let broker = Broker::start("").await;
    for (offer, token) in [
        ("v10.stomp, v11.stomp, v12.stomp", "v12.stomp"),
        ("v11.stomp, v10.stomp", "v11.stomp"),
        ("v10.stomp, soap, v11.stomp, mqtt", "v11.stomp"),
        ("stomp", "stomp"),
    ] {
        check_chosen(&broker, "/stomp", Some(offer), Some(token)).await;
    }
    let broker = Broker::start("[stomp]\nversions = [\"1.0\", \"1.1\"]").await;
    check_chosen(&broker, "/stomp", Some("v10.stomp, v11.stomp, v12.stomp"), Some("v11.stomp")).await;
}

#[tokio::test]
async fn several_header_lines_are_one_list() {
    let broker = Broker::start("").await;
    let headers = ["Sec-WebSocket-Protocol: soap", "Sec-WebSocket-Protocol: v12.stomp, mqtt"];
    let answer = http::upgrade(broker.address, "/ws", &headers).await;
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, Some("v12.stomp")));
}

#[tokio::test]
async fn an_unsupported_offer_is_told_what_was_offered_and_what_is_supported() {
    let broker = Broker::start("").await;
    let offer = ["Sec-WebSocket-Protocol: soap, wamp"];
    let all = ["soap, wamp", "raw.json.v1", "mqtt", "v12.stomp"];
    check_refused(&broker, "/ws", &offer, 400, &all).await;

    let broker = Broker::start("protocols = [\"mqtt\"]\n[websocket]\ndefault_protocol = \"mqtt\"").await;
    let answer = check_refused(
        &broker,
        "/ws",
        &["Sec-WebSocket-Protocol: v12.stomp"],
        400,
        &["offered v12.stomp", "mqttv3.1"],
    )
    .await;
    assert!(!answer.body.contains("raw"), "what this listener does not speak is not listed: {answer:?}");
    assert_eq!(broker.metric("tidegate_handshakes_refused_total{reason=\"bad_request\"}").await, 1);
}

#[tokio::test]
async fn unknown_offers_become_raw_without_a_token_where_that_is_configured() {
    let broker = Broker::start("[websocket]\nunknown_protocol = \"raw\"").await;
    check_chosen(&broker, "/ws", Some("soap, wamp"), None).await;
    check_chosen(&broker, "/ws", Some("soap, mqtt"), Some("mqtt")).await;
    let ask = Ask { protocols: &["soap"], ..Ask::default() };
    check_raw(&mut Socket::open(broker.address, ask).await).await;
}

#[tokio::test]
async fn without_an_offer_the_default_protocol_is_spoken() {
    let broker = Broker::start("").await;
    check_raw(&mut Socket::open(broker.address, Ask::default()).await).await;

    let broker = Broker::start("[websocket]\ndefault_protocol = \"mqtt\"").await;
    check_chosen(&broker, "/ws", None, None).await;
    check_mqtt(&mut Socket::open(broker.address, Ask::default()).await).await;

    let broker = Broker::start("[websocket]\ndefault_protocol = \"stomp\"").await;
    check_stomp(&mut Socket::open(broker.address, Ask::default()).await).await;
}

#[tokio::test]
async fn the_url_names_the_protocol_for_tools_that_cannot_set_the_header() {
    let broker = Broker::start("").await;
    let open = async |target| Socket::open(broker.address, Ask { target, ..Ask::default() }).await;
    check_mqtt(&mut open("/ws?protocol=mqtt").await).await;
    check_stomp(&mut open("/ws?protocol=v12.stomp").await).await;
    check_raw(&mut open("/ws?protocol=raw").await).await;

    check_chosen(&broker, "/ws?protocol=mqtt", None, None).await;
    check_chosen(&broker, "/ws?protocol=mqtt", Some("v12.stomp, mqtt"), Some("mqtt")).await;
    let headers = ["Sec-WebSocket-Protocol: v12.stomp"];
    check_refused(&broker, "/ws?protocol=mqtt", &headers, 400, &["protocol=mqtt", "v12.stomp"]).await;
    check_refused(&broker, "/ws?protocol=soap", &[], 400, &["offered soap", "supported"]).await;
}

async fn check_raw(socket: &mut Socket) {
    socket.send_text("{\"op\":\"ping\",\"id\":7}").await;
    let answer = socket.message().await.into_bytes();
    assert!(answer.starts_with(b"{\"op\":\"pong\""), "{answer:?}");
}

async fn check_mqtt(socket: &mut Socket) {
    socket.send_binary(CONNECT).await;
    let answer = socket.message().await.into_bytes();
    assert_eq!(answer.first(), Some(&0x20), "{answer:?}");
}

async fn check_stomp(socket: &mut Socket) {
    socket.send_text("CONNECT\naccept-version:1.2\nhost:test\n\n\0").await;
    let answer = socket.message().await.into_bytes();
    assert!(answer.starts_with(b"CONNECTED\n"), "{answer:?}");
}

// ---- credentials ----

#[tokio::test]
async fn a_credential_is_never_echoed() {
    let broker = Broker::start("").await;
    for (offer, token) in [("bearer.c2VjcmV0, mqtt", "mqtt"), ("v12.stomp, bearer.c2VjcmV0", "v12.stomp")] {
        let header = format!("Sec-WebSocket-Protocol: {offer}");
        let answer = http::upgrade(broker.address, "/ws", &[&header]).await;
        assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, Some(token)), "{offer}");
        assert!(!answer.head.contains("c2VjcmV0"), "{answer:?}");
    }
    for (target, offer, parts) in [
        ("/ws", "bearer.c2VjcmV0", ["bearer token", "supported raw"]),
        ("/ws", "bearer.c2VjcmV0, soap", ["offered soap", "supported raw"]),
        ("/ws", "bearer.c2VjcmV0, bearer.c2VjcmV0x, mqtt", ["more than one", "bearer"]),
        ("/ws", "bearer., mqtt", ["bearer token", "empty"]),
        ("/ws?protocol=bearer.c2VjcmV0", "mqtt", ["bearer.(redacted)", "mqtt"]),
    ] {
        let header = format!("Sec-WebSocket-Protocol: {offer}");
        let answer = check_refused(&broker, target, &[&header], 400, &parts).await;
        assert!(!format!("{answer:?}").contains("c2VjcmV0"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_obeyed_names_the_parameter() {
    let broker = Broker::start("").await;
    for (query, parts) in [
        ("t=a&last=2", &["'last'", "0 or 1"][..]),
        ("t=a&last=x", &["'last'", "0 or 1"]),
        ("t=a&token=c2VjcmV0", &["tokens in the URL are off", "bearer.<token>"]),
        ("t=a/%23/b", &["'t'"]),
        ("t=a&with=time", &["'with'"]),
        ("t=a&as=json", &["'as'"]),
        ("pub=a/%2B", &["'pub'"]),
        ("t=a&lsat=1", &["lsat"]),
    ] {
        let answer = check_refused(&broker, &format!("/ws?{query}"), &[], 400, parts).await;
        assert!(!answer.body.contains("c2VjcmV0"), "{answer:?}");
    }
}

// ---- what is no WebSocket, or not here ----

#[tokio::test]
async fn another_path_is_told_which_paths_there_are() {
    let broker = Broker::start("paths = [\"/ws\", \"/app/live\"]").await;
    for target in ["/", "/wss", "/ws/", "/app", "/app/live/x?t=a"] {
        check_refused(&broker, target, &[], 404, &["/ws, /app/live"]).await;
    }
    check_chosen(&broker, "/app/live?t=a", None, None).await;
    assert_eq!(broker.metric("tidegate_handshakes_refused_total{reason=\"path\"}").await, 5);
}

#[tokio::test]
async fn a_request_that_is_no_websocket_of_version_13_is_told_to_upgrade() {
    let broker = Broker::start("").await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for lines in [
        String::new(),
        format!("{upgrade}Sec-WebSocket-Version: 8\r\n"),
        upgrade.to_owned(),
        "Connection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Version: 13\r\n".to_owned(),
    ] {
        let head = format!("GET /ws HTTP/1.1\r\n{KEY}{lines}\r\n");
        let answer = check_request(broker.address, &head, 426).await;
        assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{answer:?}");
        assert_eq!(answer.header("upgrade"), Some("websocket"), "{answer:?}");
        assert!(!answer.body.trim().is_empty(), "{answer:?}");
    }
    let head = format!("POST /ws HTTP/1.1\r\n{KEY}{upgrade}Sec-WebSocket-Version: 13\r\n\r\n");
    check_request(broker.address, &head, 405).await;
    assert_eq!(broker.metric("tidegate_handshakes_refused_total{reason=\"not_websocket\"}").await, 5);
}

#[tokio::test]
async fn a_bad_handshake_is_refused() {
    let broker = Broker::start("").await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    for head in [
        format!("GET /ws HTTP/1.1\r\nHost: test\r\n{upgrade}\r\n"),
        format!("GET /ws HTTP/1.1\r\nHost: test\r\n{upgrade}Sec-WebSocket-Key: c2hvcnQ=\r\n\r\n"),
        format!("GET /ws HTTP/1.1\r\n{KEY}{upgrade}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
        format!("GET /ws HTTP/1.1\r\n{KEY}{upgrade}Content-Length: 5\r\n\r\nhello"),
        format!("GET /ws HTTP/1.1\r\n{KEY}{upgrade}Sec-WebSocket-Protocol: mqtt, mqtt\r\n\r\n"),
        format!("GET /ws HTTP/1.1\r\n{KEY}{upgrade}Sec-WebSocket-Protocol: a b\r\n\r\n"),
        "\u{16}\u{3}\u{1} this is TLS\r\n\r\n".to_owned(),
    ] {
        check_request(broker.address, &head, 400).await;
    }
    assert_eq!(broker.clients(), 0);
}

/// SEC-5.
#[tokio::test]
async fn too_many_or_too_large_headers_are_refused() {
    let broker = Broker::start("").await;
    let head = |more: &str| {
        format!(
            "GET /ws HTTP/1.1\r\n{KEY}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n{more}\r\n"
        )
    };
    check_request(broker.address, &head(&"X-Many: 1\r\n".repeat(100)), 431).await;
    check_request(broker.address, &head(&format!("X-Large: {}\r\n", "x".repeat(64 * 1024))), 431).await;
    assert_eq!(broker.metric("tidegate_handshakes_refused_total{reason=\"head_too_large\"}").await, 2);
    let many: Vec<&str> = std::iter::repeat_n("X-Many: 1", 90).collect();
    assert_eq!(http::upgrade(broker.address, "/ws", &many).await.status, 101);
}

// ---- who may ----

/// SEC-8.
#[tokio::test]
async fn an_anonymous_page_from_elsewhere_is_refused_on_a_loopback_broker() {
    let broker = Broker::start("").await;
    for origin in ["https://evil.example", "http://localhost.evil.example", "http://127.0.0.1.evil.example"] {
        check_origin(&broker, &[origin], 403).await;
    }
    for origin in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080", "null"] {
        check_origin(&broker, &[origin], 101).await;
    }
    check_origin(&broker, &[], 101).await;
    check_origin(&broker, &["http://localhost", "http://localhost"], 403).await;
    check_origin(&broker, &[&format!("http://{}", "a".repeat(600))], 403).await;
    assert_eq!(broker.metric("tidegate_handshakes_refused_total{reason=\"origin\"}").await, 5);
}

/// SEC-8.
#[tokio::test]
async fn only_listed_origins_are_accepted_where_there_is_a_list() {
    let list = "[websocket]\norigins = [\"https://app.example.org\", \"https://*.example.net\"]";
    let broker = Broker::start(list).await;
    for origin in ["https://app.example.org", "https://a.b.example.net"] {
        check_origin(&broker, &[origin], 101).await;
    }
    for origin in [
        "http://app.example.org",
        "https://app.example.org:8443",
        "https://example.net",
        "https://evil-example.net",
        "http://localhost",
        "null",
    ] {
        check_origin(&broker, &[origin], 403).await;
    }
    check_origin(&broker, &[], 101).await;
    let broker = Broker::start(&format!("{list}\nrequire_origin = true")).await;
    check_origin(&broker, &[], 403).await;
    check_origin(&broker, &["https://app.example.org"], 101).await;
}

async fn check_origin(broker: &Broker, origins: &[&str], status: u16) {
    let lines: Vec<String> = origins.iter().map(|origin| format!("Origin: {origin}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let answer = http::upgrade(broker.address, "/ws", &lines).await;
    assert_eq!(answer.status, status, "{origins:?}: {answer:?}");
    assert!(status == 101 || answer.body.to_lowercase().contains("origin"), "{answer:?}");
}

// ---- how many, how fast, how long ----

#[tokio::test]
async fn beyond_max_connections_a_client_is_asked_to_come_back_later() {
    let broker = Broker::start("max_connections = 2").await;
    check_full(&broker, 2, "max_connections", "all 2 connections").await;
}

#[tokio::test]
async fn one_address_gets_no_more_than_its_connections() {
    let broker = Broker::start("max_connections_per_ip = 3").await;
    check_full(&broker, 3, "max_connections_per_ip", "its 3 connections").await;
}

async fn check_full(broker: &Broker, places: usize, reason: &str, part: &str) {
    let mut held = Vec::new();
    for _ in 0..places {
        let mut socket = Socket::open(broker.address, Ask::default()).await;
        socket.barrier().await;
        held.push(socket);
    }
    let answer = check_refused(broker, "/ws", &[], 503, &[part]).await;
    check_retry_after(&answer);
    assert_eq!(broker.metric(&format!("tidegate_handshakes_refused_total{{reason=\"{reason}\"}}")).await, 1);
    for socket in &mut held {
        socket.barrier().await;
    }
    held.pop().unwrap().close(1000).await;
    within("the place of the client that left", async {
        while http::upgrade(broker.address, "/ws", &[]).await.status != 101 {}
    })
    .await;
}

#[tokio::test]
async fn beyond_the_accept_rate_a_client_is_asked_to_come_back_later() {
    let broker = Broker::start("accept_rate = 2").await;
    let mut accepted = 0;
    // A handshake would have to take half a second each time for none to be too many.
    for _ in 0..200 {
        let answer = http::upgrade(broker.address, "/ws", &[]).await;
        if answer.status == 503 {
            check_retry_after(&answer);
            assert!(answer.body.contains("more than 2 handshakes per second"), "{answer:?}");
            assert!(accepted >= 2, "{accepted}");
            assert_eq!(broker.metric("tidegate_handshakes_refused_total{reason=\"accept_rate\"}").await, 1);
            return;
        }
        assert_eq!(answer.status, 101, "{answer:?}");
        accepted += 1;
    }
    panic!("{accepted} handshakes in a row were accepted");
}

fn check_retry_after(answer: &Answer) {
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{answer:?}");
}

/// SEC-6.
#[tokio::test]
async fn a_slow_handshake_is_cut_though_it_goes_on() {
    let broker = Broker::start_with("", |config| {
        config.websocket.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    // Nothing at all, then half of a head, then a line now and then for ever.
    check_cut(&broker, b"", false).await;
    check_cut(&broker, b"GET /ws HTTP/1.1\r\nHost: te", false).await;
    check_cut(&broker, b"GET /ws HTTP/1.1\r\n", true).await;
    let timeouts = "tidegate_handshakes_refused_total{reason=\"timeout\"}";
    broker.metric_becomes(timeouts, |count| count == 3).await;
    check_chosen(&broker, "/ws", None, None).await;
}

async fn check_cut(broker: &Broker, start: &[u8], goes_on: bool) {
    let mut stream = TcpStream::connect(broker.address).await.unwrap();
    stream.write_all(start).await.unwrap();
    within("the end of a slow handshake", async {
        let mut answer = Vec::new();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            // Both arms are cancel safe.
            tokio::select! {
                read = stream.read_buf(&mut answer) => if read.unwrap_or(0) == 0 {
                    break;
                },
                _ = tick.tick(), if goes_on => {
                    // The end is seen when reading.
                    let _ = stream.write_all(b"X: y\r\n").await;
                }
            }
        }
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
    })
    .await;
}

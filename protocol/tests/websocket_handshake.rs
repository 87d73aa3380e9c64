//! The opening handshake: requests as a table of one change each to a good one, the 101, and the client's side.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

use std::time::Duration;

use http::{Method, Request, Version};
use proptest::prelude::*;
use tidegate_protocol::websocket::client::{ClientRequest, HandshakeError, generate_key};
use tidegate_protocol::websocket::deflate::Settings;
use tidegate_protocol::websocket::handshake::{ClientHandshake, HandshakeOptions, Refused, parse_request};
use tidegate_protocol::websocket::origin::{OriginPattern, OriginPolicy};

/// RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const GOOD: [(&str, &str); 5] = [
    ("Host", "server.example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
];

fn request(without: &str, with: &[(&str, &str)]) -> Request<()> {
    let mut builder = Request::get("/chat");
    for (name, value) in GOOD.iter().filter(|(name, _)| *name != without).chain(with) {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap()
}

fn parse(request: &Request<()>) -> Result<ClientHandshake, Refused> {
    let origins = [OriginPattern::parse("https://*.example.com").unwrap()];
    let origin = OriginPolicy { origins: &origins, require_origin: false, is_anonymous_loopback: false };
    parse_request(request, &HandshakeOptions { origin, deflate: &Settings::default() })
}

fn check_status(without: &str, with: &[(&str, &str)], expected: u16) {
    let status = parse(&request(without, with)).map_or_else(|refused| refused.status.as_u16(), |_| 101);
    assert_eq!(status, expected, "-{without} +{with:?}");
}

#[test]
fn one_change_decides_the_status() {
    let long_origin = format!("https://{}.example.com", "a".repeat(600));
    for (without, with, expected) in [
        ("", &[][..], 101),
        ("Connection", &[("Connection", "keep-alive, Upgrade")], 101),
        ("Connection", &[("Connection", "keep-alive"), ("Connection", "UPGRADE")], 101),
        ("Upgrade", &[("Upgrade", "h2c, WebSocket")], 101),
        ("", &[("Content-Length", "0")], 101),
        ("", &[("Origin", "https://a.example.com")], 101),
        ("Host", &[], 400),
        ("", &[("Host", "other.example.com")], 400),
        ("Host", &[("Host", "")], 400),
        ("Host", &[("Host", "a b")], 400),
        ("Connection", &[], 400),
        ("Connection", &[("Connection", "keep-alive")], 400),
        ("Connection", &[("Connection", "not-upgrade")], 400),
        ("Upgrade", &[], 426),
        ("Upgrade", &[("Upgrade", "websockets")], 426),
        ("Sec-WebSocket-Version", &[], 426),
        ("Sec-WebSocket-Version", &[("Sec-WebSocket-Version", "8")], 426),
        ("Sec-WebSocket-Version", &[("Sec-WebSocket-Version", "13, 8")], 426),
        ("", &[("Sec-WebSocket-Version", "13")], 426),
        ("Sec-WebSocket-Key", &[], 400),
        ("", &[("Sec-WebSocket-Key", KEY)], 400),
        ("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "c2hvcnQ=")], 400),
        ("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ")], 400),
        ("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "not base64, but 24 long!")], 400),
        ("", &[("Content-Length", "5")], 400),
        ("", &[("Transfer-Encoding", "chunked")], 400),
        ("", &[("Origin", "https://evil.net")], 403),
        ("", &[("Origin", "https://a.example.com"), ("Origin", "https://a.example.com")], 403),
        ("", &[("Origin", &long_origin)], 403),
        ("", &[("Sec-WebSocket-Protocol", "mqtt, mqtt")], 400),
        ("", &[("Sec-WebSocket-Protocol", "mqtt"), ("Sec-WebSocket-Protocol", "mqtt")], 400),
        ("", &[("Sec-WebSocket-Protocol", "mq tt")], 400),
        ("", &[("Sec-WebSocket-Protocol", "a=b")], 400),
        ("", &[("Sec-WebSocket-Protocol", " , ")], 400),
        ("", &[("Sec-WebSocket-Extensions", "permessage-deflate; ;;=, \"")], 101),
    ] {
        check_status(without, with, expected);
    }
}

#[test]
fn only_get_over_http_1_1_begins_a_websocket() {
    let mut post = request("", &[]);
    *post.method_mut() = Method::POST;
    let refused = parse(&post).unwrap_err().into_response();
    assert_eq!((refused.status().as_u16(), &refused.headers()["allow"]), (405, &"GET".parse().unwrap()));
    for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_2] {
        let mut old = request("", &[]);
        *old.version_mut() = version;
        assert_eq!(parse(&old).unwrap_err().status, 400);
    }
}

#[test]
fn protocols_keep_the_clients_order_over_lines_and_lists() {
    let lines = [("Sec-WebSocket-Protocol", "soap, wamp ,"), ("Sec-WebSocket-Protocol", "\tmqtt,MQTT")];
    let handshake = parse(&request("", &lines)).unwrap();
    assert_eq!(
        handshake.protocols.iter().map(|token| &**token).collect::<Vec<_>>(),
        ["soap", "wamp", "mqtt", "MQTT"]
    );
    assert!(parse(&request("", &[])).unwrap().protocols.is_empty());
    let many = (0..65).map(|n| format!("p{n}")).collect::<Vec<_>>().join(",");
    check_status("", &[("Sec-WebSocket-Protocol", &many)], 400);
}

#[test]
fn the_response_proves_that_the_request_was_read() {
    let lines = [
        ("Sec-WebSocket-Protocol", "chat, superchat"),
        ("Sec-WebSocket-Extensions", "x-other"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ];
    let handshake = parse(&request("", &lines)).unwrap();
    let response = handshake.response(Some("superchat"), handshake.deflate.as_ref());
    assert_eq!(response.status(), 101);
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-accept", ACCEPT),
        ("sec-websocket-protocol", "superchat"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    let bare = handshake.response(Some("not-offered"), None);
    assert_eq!(bare.headers().len(), 3, "a token that was not offered is not answered [SEC-7]");
}

#[test]
fn refusals_carry_what_their_status_needs() {
    let upgrade = parse(&request("Upgrade", &[])).unwrap_err().into_response();
    assert_eq!(upgrade.headers()["sec-websocket-version"], "13");
    assert_eq!(upgrade.headers()["upgrade"], "websocket");
    assert!(upgrade.body().contains("WebSocket client"));
    let overloaded = Refused::overloaded("too many connections", Duration::from_millis(100)).into_response();
    assert_eq!(
        (overloaded.status().as_u16(), &overloaded.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    let not_found = Refused::not_found(&["/", "/ws"]).into_response();
    assert_eq!(not_found.status(), 404);
    assert!(not_found.body().contains("/, /ws"));
    assert_eq!(not_found.headers()["content-type"], "text/plain; charset=utf-8");
}

fn response_text(head: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\n\r\n").replace('\n', "\r\n").replace("\r\r", "\r").into_bytes()
}

fn check_response(request: &ClientRequest, head: &str, expected: Result<Option<&str>, HandshakeError>) {
    let bytes = response_text(head);
    for len in 0..bytes.len() {
        assert_eq!(request.read_response(&bytes[..len]), Ok(None), "{len} of {head}");
    }
    let result = request.read_response(&[&bytes[..], b"\x81\x00"].concat());
    let result = result.map(|answer| answer.map(|(len, agreed)| (len, agreed.protocol)));
    assert_eq!(result, expected.map(|protocol| Some((bytes.len(), protocol.map(Into::into)))), "{head}");
}

#[test]
fn a_client_accepts_only_the_answer_to_its_own_request() {
    let request = ClientRequest::new("example.com", "/ws", KEY.into()).unwrap();
    let request = request.with_protocols(&["mqtt", "raw"]).unwrap();
    let upgraded = "101 Switching Protocols\nUpgrade: WebSocket\nConnection: keep-alive, Upgrade";
    let good = format!("{upgraded}\nSec-WebSocket-Accept: {ACCEPT}");
    check_response(&request, &good, Ok(None));
    check_response(&request, &format!("{good}\nSec-WebSocket-Protocol: raw"), Ok(Some("raw")));
    for (head, error) in [
        (format!("{good}\nSec-WebSocket-Protocol: stomp"), HandshakeError::WrongProtocol),
        (
            format!("{good}\nSec-WebSocket-Protocol: raw\nSec-WebSocket-Protocol: raw"),
            HandshakeError::WrongProtocol,
        ),
        (upgraded.to_owned(), HandshakeError::WrongAcceptKey),
        (format!("{upgraded}\nSec-WebSocket-Accept: AAAA"), HandshakeError::WrongAcceptKey),
        (good.replace("WebSocket\n", "h2c\n"), HandshakeError::NotUpgraded),
        (good.replace("Connection: keep-alive, Upgrade\n", ""), HandshakeError::NotUpgraded),
        ("404 Not Found".into(), HandshakeError::Refused(http::StatusCode::NOT_FOUND)),
    ] {
        check_response(&request, &head, Err(error));
    }
    let with_deflate = format!("{good}\nSec-WebSocket-Extensions: permessage-deflate");
    let bytes = response_text(&with_deflate);
    assert!(matches!(request.read_response(&bytes), Err(HandshakeError::Extension(_))), "it was not offered");
    assert_eq!(request.read_response(b"SSH-2.0-OpenSSH\r\n\r\n"), Err(HandshakeError::Malformed));
    assert_eq!(request.read_response(&[b'x'; 20_000]), Err(HandshakeError::Malformed));
}

#[test]
fn our_two_ends_shake_hands() {
    let client = ClientRequest::new("localhost:8080", "/ws?t=a%2Fb", generate_key()).unwrap();
    let client =
        client.with_protocols(&["stomp", "mqtt"]).unwrap().with_deflate(Settings::default()).unwrap();
    let sent = String::from_utf8(client.to_bytes().unwrap()).unwrap();
    assert!(sent.starts_with("GET /ws?t=a%2Fb HTTP/1.1\r\nHost: localhost:8080\r\n"));
    let mut builder = Request::get("/ws");
    for (name, value) in sent.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        builder = builder.header(name, value);
    }
    let handshake = parse(&builder.body(()).unwrap()).unwrap();
    let response = handshake.response(Some("mqtt"), handshake.deflate.as_ref());
    let mut head = "101 Switching Protocols".to_owned();
    for (name, value) in response.headers() {
        head += &format!("\n{name}: {}", value.to_str().unwrap());
    }
    let (_, agreed) = client.read_response(&response_text(&head)).unwrap().unwrap();
    assert_eq!(agreed.protocol.as_deref(), Some("mqtt"));
    assert_eq!(agreed.deflate, handshake.deflate);
    assert!(agreed.deflate.is_some());
}

proptest! {
    #[test]
    fn no_header_value_panics(name in 0..9_usize, value in proptest::collection::vec(any::<u8>(), 0..60)) {
        let names = ["host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "origin",
            "sec-websocket-protocol", "sec-websocket-extensions", "content-length"];
        let Ok(value) = http::HeaderValue::from_bytes(&value) else { return Ok(()) };
        let mut request = request("", &[]);
        request.headers_mut().insert(names[name], value);
        if let Ok(handshake) = parse(&request) {
            let protocol = handshake.protocols.first().map(|token| &**token);
            let response = handshake.response(protocol, handshake.deflate.as_ref());
            prop_assert_eq!(response.status(), 101);
        }
    }

    #[test]
    fn no_extension_offer_panics(value in "[a-z;,=\" \\\\0-9é-]{0,40}|permessage-deflate[;,=\" a-z_0-9]{0,40}") {
        let params = tidegate_protocol::websocket::deflate::negotiate([value.as_str()], &Settings::default());
        prop_assert!(params.is_none_or(|params| params.server_no_context_takeover));
    }
}

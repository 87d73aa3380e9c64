//! What a STOMP client hears when it is wrong: always one ERROR that names the fault, then the close (SEC-13).

#![expect(clippy::panic, reason = "a test helper may panic")]

mod stomp_support;

use stomp_support::{Talk, connected, delivery, granted, publication};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Refusal, Reply};
use tidegate_protocol::stomp::{Settings, Version};

const ALL: &[Version] = &Version::ALL;
const SINCE_1_1: &[Version] = &[Version::V1_1, Version::V1_2];
const V1_0: &[Version] = &[Version::V1_0];
const V1_1: &[Version] = &[Version::V1_1];
const V1_2: &[Version] = &[Version::V1_2];

/// The last two outputs are ERROR and close; colons are compared as written in 1.0.
fn check_error(shown: &[String], context: &str, message: &str, receipt: Option<&str>, code: u16) {
    let [.., error, close] = shown else { panic!("{context}: {shown:?}") };
    let error = error.replace("\\c", ":").replace("\\\\", "\\");
    let receipt = receipt.map(|receipt| format!("receipt-id:{receipt}|")).unwrap_or_default();
    let start = format!("text ERROR|message:{message}|{receipt}content-type:text/plain|content-length:");
    assert!(error.starts_with(&start), "{context}: {error}");
    assert!(error.ends_with(".|^@"), "{context}: {error}");
    assert_eq!(*close, format!("close {code} Abort"), "{context}");
}

fn check(versions: &[Version], frame: &str, message: &str, code: u16) {
    for version in versions {
        let mut talk = Talk::connected(*version);
        let shown = talk.client(frame);
        let receipt = frame.contains("\nreceipt:r1\n").then_some("r1");
        check_error(&shown, &format!("{version} {frame:?}"), message, receipt, code);
        // Nothing after it, not even for frames that are right.
        assert!(talk.client("SEND\ndestination:a\n\nx\0").is_empty());
        assert!(!talk.session.wants().input);
    }
}

#[test]
fn frames_that_are_none() {
    check(ALL, "HELLO\n\n\0", "unknown command", 1002);
    check(ALL, "SEND\nno colon\n\n\0", "header without a colon", 1002);
    check(ALL, "SEND\nreceipt:r1\nno colon\n\n\0", "header without a colon", 1002);
    check(ALL, "SEND\nreceipt:r1\nk:v\0", "frame ends within its headers", 1002);
    check(ALL, "SEND\nreceipt:r1\ncontent-length:x\n\n\0", "content-length is not a number of bytes", 1002);
    check(
        ALL,
        "SEND\nreceipt:r1\ndestination:a\ncontent-length:1\n\nxy\0",
        "body is not followed by NUL where content-length says it ends",
        1002,
    );
    check(
        ALL,
        "SUBSCRIBE\nid:1\nreceipt:r1\ndestination:a\n\nbody\0",
        "this frame must not have a body",
        1002,
    );
    check(SINCE_1_1, "SEND\nreceipt:r1\nk:\\t\n\n\0", "undefined escape sequence", 1002);
    check(V1_1, "SEND\nreceipt:r1\nk:\\r\n\n\0", "undefined escape sequence", 1002);
    check(V1_2, "SEND\nk:a\rb\n\n\0", "carriage return within a line", 1002);
}

#[test]
fn frames_beyond_a_limit() {
    let settings = Settings { max_headers: 3, max_header_bytes: 100, max_body: 10, ..Settings::default() };
    for (frame, message) in [
        ("SEND\na:\nb:\nc:\nd:\n\n\0".to_owned(), "more than 3 headers"),
        (format!("SEND\nk:{}\n\n\0", "v".repeat(100)), "headers are longer than 100 bytes"),
        ("SEND\ndestination:a\n\n01234567890\0".to_owned(), "body is longer than 10 bytes"),
        ("SEND\ncontent-length:11\n\n".to_owned(), "body is longer than 10 bytes"),
    ] {
        let mut talk = Talk::connected_with(Version::V1_2, &settings, "");
        check_error(&talk.client(&frame), &frame, message, None, 1009);
    }
}

#[test]
fn the_first_frame_has_a_smaller_limit() {
    let settings = Settings { max_header_bytes: 1000, max_message_size_preauth: 50, ..Settings::default() };
    let mut talk = Talk::open(Version::V1_2, &settings);
    let frame = format!("SEND\ncontent-length:50\n\n{}\0", "x".repeat(50));
    check_error(&talk.client(&frame), "before CONNECT", "frame is longer than 50 bytes", None, 1009);
    // Afterwards the limit is that of every message.
    let mut talk = Talk::open(Version::V1_2, &settings);
    talk.client("CONNECT\naccept-version:1.2\n\n\0");
    talk.reply(connected("c"));
    let frame = format!("SEND\ndestination:a\n\n{}\0", "x".repeat(50));
    assert_eq!(talk.client(&frame).len(), 1);
}

#[test]
fn before_connect_nothing_else_goes() {
    for frame in ["SEND\ndestination:a\n\nx\0", "DISCONNECT\n\n\0", "MESSAGE\n\n\0"] {
        let mut talk = Talk::open(Version::V1_2, &Settings::default());
        check_error(&talk.client(frame), frame, "the first frame is not CONNECT or STOMP", None, 1002);
    }
    for (headers, message) in [
        ("heart-beat:5\n", "bad header heart-beat: it is two numbers of milliseconds"),
        ("heart-beat:1,x\n", "bad header heart-beat: it is two numbers of milliseconds"),
        ("heart-beat:-1,0\n", "bad header heart-beat: it is two numbers of milliseconds"),
        ("heart-beat:1,2,3\n", "bad header heart-beat: it is two numbers of milliseconds"),
        ("will-destination:a\n", "not supported yet: will-destination"),
    ] {
        let mut talk = Talk::open(Version::V1_2, &Settings::default());
        let shown = talk.client(&format!("CONNECT\naccept-version:1.2\n{headers}\n\0"));
        check_error(&shown, headers, message, None, 4000);
    }
}

#[test]
fn commands_that_a_client_does_not_send() {
    check(ALL, "CONNECT\nreceipt:r1\n\n\0", "already connected", 1002);
    check(ALL, "STOMP\naccept-version:1.2\n\n\0", "already connected", 1002);
    check(ALL, "MESSAGE\ndestination:a\n\nx\0", "unknown command", 1002);
    check(ALL, "CONNECTED\nversion:1.2\n\n\0", "unknown command", 1002);
    check(ALL, "RECEIPT\nreceipt-id:1\n\n\0", "unknown command", 1002);
    check(ALL, "ERROR\n\n\0", "unknown command", 1002);
    check(V1_0, "NACK\nmessage-id:0-1\n\n\0", "unknown command", 1002);
}

#[test]
fn send_with_headers_that_make_no_sense() {
    let send = |headers: &str| format!("SEND\nreceipt:r1\n{headers}\nx\0");
    check(ALL, &send("k:v\n"), "missing header destination", 4000);
    for (headers, message) in [
        (
            "destination:/topic/\n",
            "bad header destination: a topic has at least one character [MQTT-4.7.3-1]",
        ),
        (
            "destination:a/+\n",
            "bad header destination: a topic name does not contain '+' or '#' [MQTT-3.3.2-2]",
        ),
        (
            "destination:/queue/a/#\n",
            "bad header destination: a topic name does not contain '+' or '#' [MQTT-3.3.2-2]",
        ),
        (
            "destination:/temp-queue/\n",
            "bad header destination: a topic has at least one character [MQTT-4.7.3-1]",
        ),
        ("destination:/exchange/a/b\n", "bad header destination: there are no exchanges here; use /topic/"),
        ("destination:/amq/queue/a\n", "bad header destination: /amq/queue/ is not supported; use /queue/"),
        (
            "destination:/topics/a\n",
            "bad header destination: unknown prefix in the destination \"/topics/a\"; use /topic/ or /queue/",
        ),
        (
            "destination:a\nreply-to:/exchange/r\n",
            "bad header reply-to: there are no exchanges here; use /topic/",
        ),
        (
            "destination:a\nreply-to:r/#\n",
            "bad header reply-to: a topic name does not contain '+' or '#' [MQTT-3.3.2-2]",
        ),
        ("destination:a\nqos:2\n", "not supported yet: qos:2 in SEND"),
        ("destination:a\nqos:3\n", "bad header qos: it is 0 or 1"),
        ("destination:a\nretain:yes\n", "bad header retain: it is true or false"),
        ("destination:a\npersistent:1\n", "bad header persistent: it is true or false"),
        ("destination:a\nexpires:2026-01-01\n", "bad header expires: it is a number of milliseconds"),
        ("destination:a\nexpiration:+5\n", "bad header expiration: it is a number of milliseconds"),
        (
            "destination:a\nexpiration:99999999999999999999\n",
            "bad header expiration: it is a number of milliseconds",
        ),
        (
            "destination:a\ncorrelation-encoding:base64\n",
            "bad header correlation-encoding: it is base64, and correlation-id is of that encoding",
        ),
        (
            "destination:a\ncorrelation-id:?\ncorrelation-encoding:base64\n",
            "bad header correlation-encoding: it is base64, and correlation-id is of that encoding",
        ),
        (
            "destination:a\ncorrelation-id:00\ncorrelation-encoding:hex\n",
            "bad header correlation-encoding: it is base64, and correlation-id is of that encoding",
        ),
    ] {
        check(ALL, &send(headers), message, 4000);
    }
}

#[test]
fn subscribe_with_headers_that_make_no_sense() {
    let subscribe = |headers: &str| format!("SUBSCRIBE\nreceipt:r1\n{headers}\n\0");
    check(SINCE_1_1, &subscribe("destination:a\n"), "missing header id", 4000);
    check(SINCE_1_1, "UNSUBSCRIBE\ndestination:a\n\n\0", "missing header id", 4000);
    check(V1_0, "UNSUBSCRIBE\n\n\0", "missing header id or destination", 4000);
    check(
        V1_0,
        &subscribe("id:1\ndestination:a\nack:client-individual\n"),
        "bad header ack: it is auto or client",
        4000,
    );
    for (headers, message) in [
        ("id:1\n", "missing header destination"),
        ("id:1\ndestination:a/#/b\n", "bad header destination: '#' is not the last level [MQTT-4.7.1-1]"),
        (
            "id:1\ndestination:/queue/+\n",
            "bad header destination: a queue is consumed by its name, without wildcards",
        ),
        (
            "id:1\ndestination:/topic/$share/g/a\n",
            "bad header destination: a group is named by the header share",
        ),
        (
            "id:1\ndestination:a\nshare:g/h\n",
            "bad header share: a share name does not contain '/', '+' or '#' [MQTT-4.8.2-2]",
        ),
        (
            "id:1\ndestination:a\nshare:\n",
            "bad header share: a share name has at least one character [MQTT-4.8.2-1]",
        ),
        ("id:1\ndestination:/queue/a\nshare:g\n", "bad header share: it is for /topic/ destinations"),
        ("id:1\ndestination:/temp-queue/a\nshare:g\n", "bad header share: it is for /topic/ destinations"),
        (
            "id:1\ndestination:a\ndurable:true\n",
            "bad header auto-delete: it is false for a durable subscription",
        ),
        (
            "id:1\ndestination:a\npersistent:true\nauto-delete:true\n",
            "bad header auto-delete: it is false for a durable subscription",
        ),
        ("id:1\ndestination:a\ndurable:1\n", "bad header durable: it is true or false"),
        (
            "id:1\ndestination:a\ndurable-subscription-name:n\n",
            "a durable subscription by name needs the header client-id in CONNECT",
        ),
        (
            "id:1\ndestination:a\nactivemq.subscriptionName:\n",
            "bad header activemq.subscriptionName: a name has at least one character",
        ),
        (
            "id:1\ndestination:/queue/a\nactivemq.subscriptionName:n\n",
            "bad header destination: only a /topic/ has durable subscriptions",
        ),
        (
            "id:1\ndestination:/queue/a\nauto-delete:true\n",
            "bad header auto-delete: a queue outlives its consumers",
        ),
        (
            "id:1\ndestination:/temp-queue/a\ndurable:true\nauto-delete:false\n",
            "bad header destination: only a /topic/ has durable subscriptions",
        ),
        (
            "id:1\ndestination:a\nshare:g\ndurable:true\nauto-delete:false\n",
            "bad header share: a durable subscription is not shared",
        ),
        ("id:1\ndestination:a\nno-local:1\n", "bad header no-local: it is true or false"),
        (
            "id:1\ndestination:a\nprefetch-count:many\n",
            "bad header prefetch-count: it is a number of messages",
        ),
        ("id:1\ndestination:a\nprefetch-count:-1\n", "bad header prefetch-count: it is a number of messages"),
    ] {
        check(ALL, &subscribe(headers), message, 4000);
    }
    check(
        SINCE_1_1,
        &subscribe("id:1\ndestination:a\nack:none\n"),
        "bad header ack: it is auto, client or client-individual",
        4000,
    );
    check(ALL, "UNSUBSCRIBE\nid:1\nreceipt:r1\n\n\0", "no such subscription", 4000);
    let long = subscribe(&format!("id:1\ndestination:a\nselector:{}\n", "x".repeat(4097)));
    check(ALL, &long, "bad header selector: it is longer than 4096 bytes", 4000);
}

#[test]
fn a_subscription_id_is_used_once_at_a_time() {
    for version in ALL {
        let mut talk = Talk::connected(*version);
        talk.client("SUBSCRIBE\nid:1\ndestination:a\n\n\0");
        let shown = talk.client("SUBSCRIBE\nid:1\ndestination:b\nreceipt:r1\n\n\0");
        check_error(&shown, "twice", "subscription id is in use", Some("r1"), 4000);
    }
}

#[test]
fn subscriptions_are_limited_by_name() {
    let settings = Settings { max_subscriptions: 1, ..Settings::default() };
    let mut talk = Talk::connected_with(Version::V1_2, &settings, "");
    talk.client("SUBSCRIBE\nid:1\ndestination:a\n\n\0");
    let shown = talk.client("SUBSCRIBE\nid:2\ndestination:b\n\n\0");
    check_error(&shown, "second", "the limit max_subscriptions = 1 is reached", None, 1008);
}

#[test]
fn an_ack_is_of_a_message_that_was_sent() {
    for (version, mode, frame, message) in [
        (Version::V1_2, "client", "ACK\nmessage-id:0-1\n\n\0", "missing header id"),
        (Version::V1_1, "client", "ACK\nid:0-1\n\n\0", "missing header message-id"),
        (Version::V1_1, "client", "ACK\nmessage-id:0-1\n\n\0", "missing header subscription"),
        (Version::V1_0, "client", "ACK\nid:0-1\n\n\0", "missing header message-id"),
        (Version::V1_2, "client", "ACK\nid:0-2\n\n\0", "unknown message"),
        (Version::V1_2, "client", "ACK\nid:0-0\n\n\0", "unknown message"),
        (Version::V1_2, "client", "ACK\nid:1-1\n\n\0", "unknown message"),
        (Version::V1_2, "client", "ACK\nid:0-01\n\n\0", "unknown message"),
        (Version::V1_2, "client", "ACK\nid:0-+1\n\n\0", "unknown message"),
        (Version::V1_2, "client", "ACK\nid:x\n\n\0", "unknown message"),
        (Version::V1_2, "client", "NACK\nid:x\n\n\0", "unknown message"),
        (
            Version::V1_1,
            "client",
            "NACK\nmessage-id:0-1\nsubscription:other\n\n\0",
            "bad header subscription: the message is not of that subscription",
        ),
        (
            Version::V1_2,
            "auto",
            "ACK\nid:0-1\n\n\0",
            "the subscription has ack:auto, its messages are not acknowledged",
        ),
        (
            Version::V1_1,
            "auto",
            "ACK\nmessage-id:0-1\nsubscription:s\n\n\0",
            "the subscription has ack:auto, its messages are not acknowledged",
        ),
    ] {
        let mut talk = Talk::connected(version);
        talk.client(&format!("SUBSCRIBE\nid:s\ndestination:a\nack:{mode}\n\n\0"));
        talk.reply(granted(QoS::AtLeastOnce));
        talk.deliver(delivery(publication("a", b"x"), QoS::AtMostOnce, 1));
        check_error(&talk.client(frame), frame, message, None, 4000);
    }
}

#[test]
fn every_refusal_has_its_close_code() {
    for (refusal, message, code) in [
        (Refusal::BadCredentials, "the user name, password or token is not accepted", 4001),
        (Refusal::NotAuthorized, "not authorised", 4002),
        (Refusal::BadClientId("why"), "the client id is not accepted: why", 4000),
        (Refusal::BadTopic("why"), "topic not allowed: why", 4000),
        (Refusal::Quota { name: "n", limit: 3 }, "the limit n = 3 is reached", 1008),
        (Refusal::Overloaded("why"), "overloaded: why", 1013),
        (Refusal::Unsupported("why"), "not supported: why", 4000),
        (Refusal::Internal, "internal error", 1011),
    ] {
        let mut talk = Talk::connected(Version::V1_2);
        talk.client("SEND\ndestination:a\nreceipt:r1\n\nx\0");
        let shown = talk.reply(Reply::Refused(refusal));
        check_error(&shown, message, message, Some("r1"), code);
    }
}

#[test]
fn an_error_says_where() {
    let mut talk = Talk::connected(Version::V1_2);
    let shown = talk.client("SEND\ndestination:a\nnonsense\n\nx\0");
    assert!(shown[0].ends_with("||In line 3 of SEND: header without a colon.|^@"), "{shown:?}");
    let mut talk = Talk::connected(Version::V1_2);
    let shown = talk.client("SUBSCRIBE\nid:1\n\n\0");
    assert!(shown[0].ends_with("||SUBSCRIBE: missing header destination.|^@"), "{shown:?}");
}

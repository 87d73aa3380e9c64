//! Conversations with a STOMP session: connecting, sending, subscribing, acknowledging, heart-beats, the end.

#![expect(clippy::indexing_slicing, reason = "a test helper may panic")]

mod stomp_support;

use std::time::Duration;

use stomp_support::{Talk, connected, delivery, granted, publication, published};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    CloseKind, CloseReason, Lag, Reading, Refusal, Reply, SubscriptionId, Wants,
};
use tidegate_protocol::stomp::{FrameKind, Settings, UnknownPrefix, Version};
use tidegate_protocol::topic::Topic;

const SERVER: &str = concat!("server:tidegate/", env!("CARGO_PKG_VERSION"));

fn check(shown: &[String], expected: &[&str]) {
    assert_eq!(shown, expected);
}

fn subscribed(version: Version, headers: &str) -> Talk {
    let mut talk = Talk::connected(version);
    let asked = talk.client(&format!("SUBSCRIBE\nid:s\ndestination:/topic/a\n{headers}\n\0"));
    assert!(asked[0].starts_with("subscribe 0 a"), "{asked:?}");
    check(&talk.reply(granted(QoS::AtLeastOnce)), &[]);
    talk
}

#[test]
fn connects_with_the_highest_common_version() {
    let connect = |accept: &str| format!("STOMP\n{accept}host:h\n\n\0");
    for (ceiling, accept, version, heart_beat) in [
        (Version::V1_2, "accept-version:1.0,1.1,1.2\n", "1.2", "|heart-beat:10000,10000"),
        (Version::V1_1, "accept-version:1.0,1.1,1.2\n", "1.1", "|heart-beat:10000,10000"),
        (Version::V1_2, "accept-version:1.1, 1.0,9.9\n", "1.1", "|heart-beat:10000,10000"),
        (Version::V1_2, "accept-version:1.0\n", "1.0", ""),
        (Version::V1_2, "", "1.0", ""),
    ] {
        let mut talk = Talk::open(ceiling, &Settings::default());
        check(&talk.client(&connect(accept)), &["connect None nobody WithNext"]);
        assert!(!talk.session.wants().input, "one thing at a time");
        let frame = format!("text CONNECTED|version:{version}|{SERVER}|session:c9{heart_beat}||^@");
        check(&talk.reply(connected("c9")), &[&frame]);
        assert!(talk.session.wants().input);
    }
}

#[test]
fn a_client_without_a_common_version_hears_which_there_are() {
    let settings = Settings { versions: vec![Version::V1_2, Version::V1_1], ..Settings::default() };
    for accept in ["accept-version:1.0\n", "accept-version:2.0\n", ""] {
        let mut talk = Talk::open(Version::V1_2, &settings);
        let shown = talk.client(&format!("CONNECT\n{accept}\n\0"));
        let body = "CONNECT: no common version. Supported protocol versions are 1.1,1.2.|^@";
        let length = body.len() - 2;
        let error = format!(
            "text ERROR|version:1.1,1.2|message:no common version|content-type:text/plain|content-length:{length}||{body}"
        );
        check(&shown, &[&error, "close 1002 Abort"]);
    }
}

#[test]
fn credentials_are_login_and_passcode_or_else_the_bearer_of_the_handshake() {
    for (headers, bearer, expected) in [
        ("login:ann\npasscode:a:b\\c\n", Some("t0"), "connect None ann Some(b\"a:b\\\\c\") WithNext"),
        ("login:ann\n", None, "connect None ann None WithNext"),
        ("client-id:dev 1\n", Some("t0"), "connect Some(\"dev 1\") token t0 WithNext"),
        ("", None, "connect None nobody WithNext"),
    ] {
        let mut talk = Talk::open_with_bearer(Version::V1_2, bearer, &Settings::default());
        check(&talk.client(&format!("CONNECT\naccept-version:1.2\n{headers}\n\0")), &[expected]);
    }
}

#[test]
fn connected_repeats_the_login_and_lets_nothing_be_injected() {
    let mut talk = Talk::open(Version::V1_1, &Settings::default());
    talk.client("CONNECT\naccept-version:1.1\nlogin:ann\n\n\0");
    let frame = format!(
        "text CONNECTED|version:1.1|{SERVER}|session:x\u{fffd}version:9|heart-beat:10000,10000|user-name:ann||^@"
    );
    check(&talk.reply(connected("x\nversion:9")), &[&frame]);
}

#[test]
fn a_connect_of_1_0_is_trimmed() {
    let mut talk = Talk::open(Version::V1_2, &Settings::default());
    check(
        &talk.client("CONNECT\nlogin: ann\npasscode: secret \n\n\0"),
        &["connect None ann Some(b\"secret\") WithNext"],
    );
}

#[test]
fn a_refused_connect_is_an_error_and_the_end() {
    let mut talk = Talk::open(Version::V1_2, &Settings::default());
    talk.client("CONNECT\naccept-version:1.2\nlogin:ann\n\n\0");
    let shown = talk.reply(Reply::Refused(Refusal::BadCredentials));
    assert!(shown[0].starts_with("text ERROR|message:the user name, password or token is not accepted|"));
    check(&shown[1..], &["close 4001 Abort"]);
}

#[test]
fn frames_behind_connect_wait_for_connected() {
    let mut talk = Talk::open(Version::V1_2, &Settings::default());
    let all = "CONNECT\naccept-version:1.2\n\n\0\nSEND\ndestination:a\n\nx\0SEND\ndestination:b\n\ny\0";
    check(&talk.client(all), &["connect None nobody WithNext"]);
    let shown = talk.reply(connected("c1"));
    check(&shown[1..], &["publish a qos0 \"x\"", "publish b qos0 \"y\""]);
}

#[test]
fn send_maps_destination_and_headers() {
    for (version, headers, expected) in [
        (Version::V1_2, "destination:/topic/plant/a\n", "publish plant/a qos0 \"x\""),
        (Version::V1_2, "destination:/topic//a\n", "publish /a qos0 \"x\""),
        (Version::V1_2, "destination:plant/a\n", "publish plant/a qos0 \"x\""),
        (Version::V1_2, "destination:a\ndestination:b\n", "publish a qos0 \"x\""),
        (Version::V1_2, "destination:a\ncontent-length:1\n", "publish a qos0 \"x\""),
        (Version::V1_2, "destination:a\nqos:1\n", "publish a qos1 \"x\""),
        (Version::V1_2, "destination:a\npersistent:true\n", "publish a qos1 \"x\""),
        (Version::V1_2, "destination:a\nqos:0\nreceipt:r\n", "publish a qos1 \"x\""),
        (Version::V1_2, "destination:a\nretain:true\n", "publish a qos0 \"x\" retain"),
        (Version::V1_2, "destination:a\nretain:false\nexpires:0\n", "publish a qos0 \"x\""),
        (
            Version::V1_2,
            "destination:a\ncontent-type:text/plain\n",
            "publish a qos0 \"x\" utf8 ct=text/plain",
        ),
        (Version::V1_2, "destination:a\ncontent-type:image/png\n", "publish a qos0 \"x\" ct=image/png"),
        (Version::V1_2, "destination:a\nreply-to:/topic/r/1\n", "publish a qos0 \"x\" reply=r/1"),
        (Version::V1_2, "destination:a\ncorrelation-id:ä\n", "publish a qos0 \"x\" corr=\\xc3\\xa4"),
        (
            Version::V1_2,
            "destination:a\ncorrelation-id:AP8=\ncorrelation-encoding:base64\n",
            "publish a qos0 \"x\" corr=\\x00\\xff",
        ),
        (Version::V1_2, "destination:a\nk:1\nj:x\\cy\nk:2\n", "publish a qos0 \"x\" k=1 j=x:y k=2"),
        (Version::V1_2, "destination:a\nx-user-id:1\nx-user-:2\n", "publish a qos0 \"x\" id=1 =2"),
        (
            Version::V1_2,
            "destination:a\nx-user-k:1\nX-User-id:2\n",
            "publish a qos0 \"x\" x-user-k=1 X-User-id=2",
        ),
        (Version::V1_2, "destination:a\nx-user-x-user-id:1\n", "publish a qos0 \"x\" x-user-id=1"),
        (Version::V1_0, "destination: a\nk: x\\cy\n", "publish a qos0 \"x\" k=x\\cy"),
        (Version::V1_1, "destination:a\nk:x\\cy\n", "publish a qos0 \"x\" k=x:y"),
    ] {
        let mut talk = Talk::connected(version);
        check(&talk.client(&format!("SEND\n{headers}\nx\0")), &[expected]);
    }
}

#[test]
fn expiration_is_a_lifetime_and_expires_a_time_of_day() {
    use tidegate_protocol::session::{Output, Request};
    use tidegate_protocol::websocket::Message;
    for (headers, lifetime, at_ms) in [
        ("expiration:1500\n", Some(Duration::from_millis(1500)), None),
        ("expiration:18446744073709551615\n", Some(Duration::from_millis(u64::MAX)), None),
        ("expires:1767225600123\n", None, Some(1_767_225_600_123)),
        ("expires:0\n", None, None),
        ("expires:9\nexpiration:1\n", Some(Duration::from_millis(1)), Some(9)),
        ("", None, None),
    ] {
        let mut talk = Talk::connected(Version::V1_2);
        let text = format!("SEND\ndestination:a\n{headers}\nx\0");
        talk.session.handle_message(Message::Text(text.into()), talk.now);
        let Some(Output::Request(_, Request::Publish(publish))) = talk.session.poll_output() else {
            panic!("a publish");
        };
        assert_eq!(publish.publication.expires_at.map(|at| at - talk.now), lifetime, "{headers}");
        assert_eq!(publish.publication.expires_ms, at_ms, "{headers}");
    }
}

#[test]
fn bodies_are_binary_where_the_client_says_so() {
    let mut talk = Talk::connected(Version::V1_2);
    let shown =
        talk.client_binary(b"SEND\ndestination:a\ncontent-type:text/plain\ncontent-length:3\n\n\xff\0\n\0");
    check(&shown, &["publish a qos0 \"\u{fffd}\\0\\n\" ct=text/plain"]);
}

#[test]
fn a_frame_may_straddle_messages_of_both_kinds() {
    let mut talk = Talk::connected(Version::V1_2);
    let frame = "SEND\ndestination:ä\n\n€\0".as_bytes();
    for byte in &frame[..frame.len() - 1] {
        check(&talk.client_binary(&[*byte]), &[]);
    }
    check(&talk.client("\0\n"), &["publish ä qos0 \"€\""]);
}

#[test]
fn the_receipt_of_a_send_waits_for_the_broker() {
    let mut talk = Talk::connected(Version::V1_2);
    check(&talk.client("SEND\ndestination:a\nreceipt:r\\c1\n\nx\0"), &["publish a qos1 \"x\""]);
    check(&talk.reply(published()), &["text RECEIPT|receipt-id:r\\c1||^@"]);
    // At QoS 1 without a receipt the client hears nothing.
    check(&talk.client("SEND\ndestination:a\nqos:1\n\nx\0"), &["publish a qos1 \"x\""]);
    check(&talk.reply(published()), &[]);
}

#[test]
fn every_frame_of_a_client_may_ask_for_a_receipt() {
    use tidegate_protocol::session::Reply;
    const RECEIPT: &str = "text RECEIPT|receipt-id:r||^@";
    let mut talk = subscribed(Version::V1_2, "ack:client-individual\n");
    for tag in 1..=4 {
        talk.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, tag));
    }
    for (frame, reply) in [
        ("SEND\ndestination:a", Some(published())),
        ("SUBSCRIBE\nid:t\ndestination:b", Some(granted(QoS::AtMostOnce))),
        ("UNSUBSCRIBE\nid:t", Some(Reply::Unsubscribed(vec![true]))),
        ("ACK\nid:0-1", None),
        ("NACK\nid:0-2", None),
        ("BEGIN\ntransaction:t", None),
        ("SEND\ndestination:a\ntransaction:t", None),
        ("ACK\nid:0-3\ntransaction:t", None),
        ("NACK\nid:0-4\ntransaction:t", None),
        ("COMMIT\ntransaction:t", Some(published())),
        ("BEGIN\ntransaction:t", None),
        ("ABORT\ntransaction:t", None),
    ] {
        let shown = talk.client(&format!("{frame}\nreceipt:r\n\n\0"));
        let is_answered = shown.iter().any(|line| line == RECEIPT);
        match reply {
            Some(reply) => {
                assert!(!is_answered, "{frame}: not before the broker is done");
                check(&talk.reply(reply), &[RECEIPT]);
            }
            None => assert!(is_answered, "{frame}: {shown:?}"),
        }
    }
    check(&talk.client("DISCONNECT\nreceipt:r\n\n\0"), &[RECEIPT, "disconnect Discard", "close 1000 Drain"]);
}

#[test]
fn publishes_are_pipelined_up_to_receive_maximum() {
    let settings = Settings { receive_maximum: 2, ..Settings::default() };
    let mut talk = Talk::connected_with(Version::V1_2, &settings, "");
    let send = |receipt| format!("SEND\ndestination:a\nreceipt:{receipt}\n\nx\0");
    let three = [send(1), send(2), send(3)].concat();
    check(&talk.client(&three), &["publish a qos1 \"x\"", "publish a qos1 \"x\""]);
    assert!(!talk.session.wants().input);
    check(&talk.reply(published()), &["text RECEIPT|receipt-id:1||^@", "publish a qos1 \"x\""]);
    check(&talk.reply(published()), &["text RECEIPT|receipt-id:2||^@"]);
    assert!(talk.session.wants().input);
    check(&talk.reply(published()), &["text RECEIPT|receipt-id:3||^@"]);
}

#[test]
fn a_refused_send_is_an_error_with_its_receipt() {
    let mut talk = Talk::connected(Version::V1_2);
    talk.client("SEND\ndestination:a\nreceipt:r1\n\nx\0");
    let shown = talk.reply(Reply::Refused(Refusal::NotAuthorized));
    check(
        &shown,
        &[
            "text ERROR|message:not authorised|receipt-id:r1|content-type:text/plain|content-length:22||SEND\
             : not authorised.|^@",
            "close 4002 Abort",
        ],
    );
    // At QoS 0 nothing is waited for, but a no is a no.
    let mut talk = Talk::connected(Version::V1_2);
    talk.client("SEND\ndestination:a\n\nx\0");
    check(&talk.reply(Reply::Refused(Refusal::NotAuthorized))[1..], &["close 4002 Abort"]);
}

#[test]
fn subscribe_asks_for_what_the_ack_mode_means() {
    for (version, headers, expected) in [
        (Version::V1_2, "id:1\ndestination:/topic/plant/+/t\n", "subscribe 0 plant/+/t qos0"),
        (Version::V1_2, "id:1\ndestination:/topic/#\nack:auto\n", "subscribe 0 # qos0"),
        (Version::V1_1, "id:1\ndestination:a\nack:client\n", "subscribe 0 a qos1 prefetch=32"),
        (
            Version::V1_1,
            "id:1\ndestination:a\nack:client-individual\nprefetch-count:5\n",
            "subscribe 0 a qos1 prefetch=5",
        ),
        (Version::V1_0, "destination:a\nack:client\n", "subscribe 0 a qos1 prefetch=32"),
        (Version::V1_2, "id:1\ndestination:a\nno-local:true\n", "subscribe 0 a qos0 no-local"),
        (Version::V1_2, "id:1\ndestination:a\ndurable:false\n", "subscribe 0 a qos0"),
        (
            Version::V1_2,
            "id:1\ndestination:a\nselector:x > 1 AND y = 'b'\n",
            "subscribe 0 a qos0 selector=x > 1 AND y = 'b'",
        ),
        (Version::V1_2, "id:1\ndestination:a\nselector: \n", "subscribe 0 a qos0"),
    ] {
        let mut talk = Talk::connected(version);
        check(&talk.client(&format!("SUBSCRIBE\n{headers}receipt:r\n\n\0")), &[expected]);
        check(&talk.reply(granted(QoS::AtMostOnce)), &["text RECEIPT|receipt-id:r||^@"]);
    }
}

#[test]
fn unsubscribes_by_id_or_in_1_0_by_destination() {
    for (version, subscribe, unsubscribe) in [
        (Version::V1_2, "id:1\ndestination:a\n", "id:1\n"),
        (Version::V1_0, "destination:a\n", "destination:a\n"),
        (Version::V1_0, "id:1\ndestination:a\n", "id:1\ndestination:a\n"),
    ] {
        let mut talk = Talk::connected(version);
        talk.client(&format!("SUBSCRIBE\n{subscribe}\n\0"));
        talk.reply(granted(QoS::AtMostOnce));
        let shown = talk.client(&format!("UNSUBSCRIBE\n{unsubscribe}receipt:r\n\n\0"));
        check(&shown, &["unsubscribe 0"]);
        check(&talk.reply(Reply::Unsubscribed(vec![true])), &["text RECEIPT|receipt-id:r||^@"]);
        // The name is free again, and a message that was on its way is not for the new one.
        check(&talk.client(&format!("SUBSCRIBE\n{subscribe}\n\0")), &["subscribe 1 a qos0"]);
        let late = delivery(publication("a", b"x"), QoS::AtMostOnce, 9);
        check(&talk.deliver(late), &["settle 9 Dropped(Closed)"]);
    }
}

#[test]
fn a_refused_subscribe_is_an_error() {
    let mut talk = Talk::connected(Version::V1_2);
    talk.client("SUBSCRIBE\nid:1\ndestination:secret\n\n\0");
    let shown = talk.reply(Reply::Subscribed(vec![Err(Refusal::NotAuthorized)]));
    assert!(shown[0].starts_with("text ERROR|message:not authorised|content-type:text/plain|"), "{shown:?}");
    check(&shown[1..], &["close 4002 Abort"]);
}

#[test]
fn ack_in_client_mode_covers_what_came_before() {
    for (version, ack) in [
        (Version::V1_0, "ACK\nmessage-id:0-2\n\n\0"),
        (Version::V1_1, "ACK\nmessage-id:0-2\nsubscription:s\n\n\0"),
        (Version::V1_2, "ACK\nid:0-2\n\n\0"),
    ] {
        let mut talk = subscribed(version, "ack:client\n");
        for tag in [11, 12, 13] {
            talk.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, tag));
        }
        check(&talk.client(ack), &["settle 11 Accepted", "settle 12 Accepted"]);
        // An ACK of what is settled says nothing new.
        check(&talk.client(ack), &[]);
    }
}

#[test]
fn ack_and_nack_in_client_individual_mode_are_of_one_message() {
    let mut talk = subscribed(Version::V1_2, "ack:client-individual\n");
    for tag in [11, 12, 13] {
        talk.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, tag));
    }
    check(
        &talk.client("ACK\nid:0-2\nreceipt:r\n\n\0"),
        &["settle 12 Accepted", "text RECEIPT|receipt-id:r||^@"],
    );
    check(&talk.client("NACK\nid:0-3\n\n\0"), &["settle 13 Dropped(Refused)"]);
    check(&talk.client("ACK\nid:0-1\n\n\0"), &["settle 11 Accepted"]);
}

#[test]
fn the_window_is_the_sum_of_the_prefetch_counts() {
    let mut talk = subscribed(Version::V1_2, "ack:client-individual\nprefetch-count:2\n");
    let open = Wants { input: true, qos0: true, acked: 1 };
    let full = Wants { input: true, qos0: false, acked: 0 };
    assert_eq!(talk.session.wants(), open);
    talk.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, 1));
    assert_eq!(talk.session.wants(), open);
    talk.deliver(delivery(publication("a", b"x"), QoS::AtMostOnce, 2));
    assert_eq!(talk.session.wants(), full);
    // A subscription without acknowledgement is not held up by the others.
    talk.client("SUBSCRIBE\nid:t\ndestination:b\n\n\0");
    assert_eq!(talk.session.wants(), Wants { qos0: true, ..full });
    // QoS 0 is acknowledged for the window alone: the broker has nothing to settle.
    check(&talk.client("ACK\nid:0-2\n\n\0"), &[]);
    assert_eq!(talk.session.wants(), open);
}

#[test]
fn prefetch_count_is_capped_by_the_operator() {
    let settings = Settings { prefetch: 3, ..Settings::default() };
    for (header, window) in
        [("", 3), ("prefetch-count:100\n", 3), ("prefetch-count:0\n", 3), ("prefetch-count:1\n", 1)]
    {
        let mut talk = Talk::connected_with(Version::V1_2, &settings, "");
        talk.client(&format!("SUBSCRIBE\nid:s\ndestination:a\nack:client\n{header}\n\0"));
        for tag in 1..=window {
            assert!(talk.session.wants().acked > 0, "{header:?} before {tag}");
            talk.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, tag));
        }
        assert_eq!(talk.session.wants().acked, 0, "{header:?}");
    }
}

#[test]
fn unsubscribing_frees_the_window_and_forgives_a_late_ack() {
    let mut talk = subscribed(Version::V1_2, "ack:client\nprefetch-count:1\n");
    talk.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, 7));
    assert_eq!(talk.session.wants().acked, 0);
    check(&talk.client("UNSUBSCRIBE\nid:s\n\n\0"), &["settle 7 Dropped(Closed)", "unsubscribe 0"]);
    assert_eq!(talk.session.wants().acked, 1);
    check(&talk.client("ACK\nid:0-1\n\n\0"), &[]);
}

#[test]
fn heart_beats_are_agreed_and_kept() {
    let settings = Settings::default();
    let mut talk = Talk::connected_with(Version::V1_2, &settings, "heart-beat:5000,15000\n");
    // We send each max(10, 15) s, and hear the client each max(5, 10) s, times the tolerance of 2.
    check(&talk.pass(Duration::from_millis(14_999)), &[]);
    check(&talk.pass(Duration::from_millis(1)), &["text |"]);
    check(&talk.client("\n"), &[]);
    check(&talk.pass(Duration::from_millis(10_000)), &[]);
    // Anything that is sent counts as a heart-beat.
    talk.client("SUBSCRIBE\nid:s\ndestination:a\n\n\0");
    talk.reply(granted(QoS::AtMostOnce));
    talk.deliver(delivery(publication("a", b"x"), QoS::AtMostOnce, 1));
    check(&talk.pass(Duration::from_millis(14_999)), &[]);
    check(&talk.pass(Duration::from_millis(1)), &["text |"]);
    check(&talk.pass(Duration::from_millis(4_999)), &[]);
    let shown = talk.pass(Duration::from_millis(1));
    assert!(shown[0].starts_with("text ERROR|message:no heart-beat within 20000 ms|"), "{shown:?}");
    check(&shown[1..], &["close 4200 Abort"]);
}

#[test]
fn without_agreement_there_are_no_heart_beats() {
    for (version, header) in [
        (Version::V1_2, ""),
        (Version::V1_2, "heart-beat:0,0\n"),
        (Version::V1_0, "heart-beat:1000,1000\n"),
        (Version::V1_2, "heart-beat:18446744073709551615,18446744073709551615\n"),
    ] {
        let mut talk = Talk::connected_with(version, &Settings::default(), header);
        check(&talk.pass(Duration::from_secs(1_000_000)), &[]);
    }
    let off = Settings {
        heart_beat_send: Duration::ZERO,
        heart_beat_receive: Duration::ZERO,
        ..Settings::default()
    };
    let talk = Talk::connected_with(Version::V1_2, &off, "heart-beat:1000,1000\n");
    assert_eq!(talk.session.poll_timeout(), None);
}

#[test]
fn silence_does_not_count_while_we_do_not_read() {
    let mut talk = Talk::connected_with(Version::V1_2, &Settings::default(), "heart-beat:10000,0\n");
    talk.session.handle_reading(Reading::Paused, talk.now);
    check(&talk.pass(Duration::from_secs(100)), &[]);
    talk.session.handle_reading(Reading::Resumed, talk.now);
    check(&talk.pass(Duration::from_millis(19_999)), &[]);
    check(&talk.pass(Duration::from_millis(1))[1..], &["close 4200 Abort"]);
}

#[test]
fn connect_has_a_deadline_that_no_dribble_moves() {
    let mut talk = Talk::open(Version::V1_2, &Settings::default());
    talk.pass(Duration::from_secs(9));
    check(&talk.client("CONNECT\n"), &[]);
    let shown = talk.pass(Duration::from_secs(1));
    assert!(shown[0].starts_with("text ERROR|message:no CONNECT frame within 10 s|"), "{shown:?}");
    check(&shown[1..], &["close 4103 Abort"]);
}

#[test]
fn disconnect_is_answered_after_everything_before_it() {
    let mut talk = Talk::connected(Version::V1_2);
    check(
        &talk.client("SEND\ndestination:a\nreceipt:1\n\nx\0DISCONNECT\nreceipt:2\n\n\0"),
        &["publish a qos1 \"x\""],
    );
    check(
        &talk.reply(published()),
        &[
            "text RECEIPT|receipt-id:1||^@",
            "text RECEIPT|receipt-id:2||^@",
            "disconnect Discard",
            "close 1000 Drain",
        ],
    );
    check(&talk.client("SEND\ndestination:a\n\nx\0"), &[]);
}

#[test]
fn disconnect_without_a_receipt_just_ends() {
    let mut talk = Talk::connected(Version::V1_1);
    check(&talk.client("DISCONNECT\n\n\0"), &["disconnect Discard", "close 1000 Drain"]);
}

#[test]
fn an_end_by_the_broker_is_told_as_an_error() {
    for (reason, message, close) in [
        (
            CloseReason::new(CloseKind::ShuttingDown, ""),
            Some("the broker is shutting down"),
            "close 1001 Drain",
        ),
        (CloseReason::new(CloseKind::Kicked, "go away."), Some("go away."), "close 4004 Abort"),
        (
            CloseReason::new(CloseKind::TooSlow, ""),
            Some("the client reads too slowly, messages were lost"),
            "close 4101 Abort",
        ),
        (CloseReason::normal(), None, "close 1000 Drain"),
    ] {
        let mut talk = Talk::connected(Version::V1_2);
        talk.session.handle_close(reason, talk.now);
        let mut shown = talk.drain();
        assert_eq!(shown.pop().as_deref(), Some(close));
        match message {
            Some(message) => {
                assert!(shown[0].starts_with(&format!("text ERROR|message:{message}|")), "{shown:?}")
            }
            None => check(&shown, &[]),
        }
        // After the close there is nothing more.
        check(&talk.deliver(delivery(publication("a", b"x"), QoS::AtMostOnce, 1)), &[]);
        assert_eq!(talk.session.poll_timeout(), None);
    }
}

#[test]
fn message_has_the_headers_of_the_version_and_mode() {
    for (version, ack, expected) in [
        (
            Version::V1_2,
            "",
            "MESSAGE|subscription:s|message-id:0-1|destination:/topic/a|content-length:1||x^@",
        ),
        (
            Version::V1_2,
            "ack:client\n",
            "MESSAGE|subscription:s|message-id:0-1|ack:0-1|destination:/topic/a|content-length:1||x^@",
        ),
        (
            Version::V1_1,
            "ack:client\n",
            "MESSAGE|subscription:s|message-id:0-1|destination:/topic/a|content-length:1||x^@",
        ),
        (
            Version::V1_0,
            "",
            "MESSAGE|subscription:s|message-id:0-1|destination:/topic/a|content-length:1||x^@",
        ),
    ] {
        let mut talk = subscribed(version, ack);
        let shown = talk.deliver(delivery(publication("a", b"x"), QoS::AtMostOnce, 1));
        check(&shown, &[&format!("text {expected}")]);
    }
    let mut talk = Talk::connected(Version::V1_0);
    talk.client("SUBSCRIBE\ndestination:a\n\n\0");
    let shown = talk.deliver(delivery(publication("a", b"x"), QoS::AtMostOnce, 1));
    check(&shown, &["text MESSAGE|message-id:0-1|destination:/topic/a|content-length:1||x^@"]);
}

#[test]
fn message_carries_what_the_publisher_said_and_cannot_be_spoofed() {
    use tidegate_protocol::publication::Properties;
    use tidegate_protocol::topic::TopicLimits;
    let properties = Properties {
        content_type: Some("text/x;a=\"b:c\"".into()),
        response_topic: Some(Topic::parse("r:1", &TopicLimits::STANDARD).unwrap()),
        correlation_data: Some(vec![0xff].into()),
        user: [("k", "1"), ("k", "2:\n\r"), ("subscription", "other"), ("", "e"), ("n\0", "\0")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec(),
    };
    for (version, expected) in [
        (
            Version::V1_2,
            "destination:/topic/a\\cb|content-type:text/x;a=\"b\\cc\"|content-length:1|reply-to:/topic/r\\c1\
             |correlation-id:/w==|correlation-encoding:base64|k:1|k:2\\c\\n\\r|x-user-subscription:other|x-user-:e|n\u{fffd}:\u{fffd}||x^@",
        ),
        (
            Version::V1_1,
            "destination:/topic/a\\cb|content-type:text/x;a=\"b\\cc\"|content-length:1|reply-to:/topic/r\\c1\
             |correlation-id:/w==|correlation-encoding:base64|k:1|k:2\\c\\n\r|x-user-subscription:other|x-user-:e|n\u{fffd}:\u{fffd}||x^@",
        ),
        (
            Version::V1_0,
            "destination:/topic/a:b|content-type:text/x;a=\"b:c\"|content-length:1|reply-to:/topic/r:1\
             |correlation-id:/w==|correlation-encoding:base64|k:1|k:2:\u{fffd}\u{fffd}|x-user-subscription:other|x-user-:e|n\u{fffd}:\u{fffd}||x^@",
        ),
    ] {
        let mut talk = subscribed(version, "");
        let mut message = publication("a:b", b"x");
        message.properties = Some(Box::new(properties.clone()));
        let shown = talk.deliver(delivery(message, QoS::AtMostOnce, 1));
        check(&shown, &[&format!("text MESSAGE|subscription:s|message-id:0-1|{expected}")]);
    }
}

/// What the shared part has for correlation data, by version.
#[test]
fn correlation_data_is_text_where_the_version_can_say_it_and_else_base64() {
    use tidegate_protocol::publication::Properties;
    let base64 = |text: &str| format!("correlation-id:{text}|correlation-encoding:base64");
    for (data, in_1_2, in_1_1, in_1_0) in [
        (&b"c-1"[..], "correlation-id:c-1".into(), "correlation-id:c-1".into(), "correlation-id:c-1".into()),
        (b"", "correlation-id:".into(), "correlation-id:".into(), "correlation-id:".into()),
        (
            b"a:\\",
            "correlation-id:a\\c\\\\".into(),
            "correlation-id:a\\c\\\\".into(),
            "correlation-id:a:\\".into(),
        ),
        (b"a\r", "correlation-id:a\\r".into(), base64("YQ0="), base64("YQ0=")),
        (b"a\n", "correlation-id:a\\n".into(), "correlation-id:a\\n".into(), base64("YQo=")),
        (b" a", "correlation-id: a".into(), "correlation-id: a".into(), base64("IGE=")),
        (b"a\0", base64("YQA="), base64("YQA="), base64("YQA=")),
        (b"\xff", base64("/w=="), base64("/w=="), base64("/w==")),
    ] {
        let properties = Properties { correlation_data: Some(data.into()), ..Properties::default() };
        for (version, expected) in [(Version::V1_2, in_1_2), (Version::V1_1, in_1_1), (Version::V1_0, in_1_0)]
        {
            let mut talk = subscribed(version, "");
            let mut message = publication("a", b"");
            message.properties = Some(Box::new(properties.clone()));
            let shown = talk.deliver(delivery(message, QoS::AtMostOnce, 1));
            let head = "text MESSAGE|subscription:s|message-id:0-1|destination:/topic/a|content-length:0";
            check(&shown, &[&format!("{head}|{expected}||^@")]);
        }
    }
}

/// Each name comes back as it was published.
#[test]
fn a_reserved_name_goes_out_under_a_prefix_and_comes_back_without_it() {
    use tidegate_protocol::publication::Properties;
    let names = [
        "k",
        "id",
        "",
        "destination",
        "x-user-",
        "x-user-k",
        "x-user-id",
        "x-user-x-user-id",
        "Id",
        "a:b\n\r\\",
    ];
    let user: Vec<_> = names.iter().map(|name| (Box::from(*name), Box::from("v"))).collect();
    let mut message = publication("a", b"");
    message.properties = Some(Box::new(Properties { user, ..Properties::default() }));
    let mut talk = subscribed(Version::V1_2, "");
    let shown = talk.deliver(delivery(message, QoS::AtMostOnce, 1)).concat();
    let (_, own) = shown.split_once("content-length:0|").unwrap();
    let own = own.strip_suffix("||^@").unwrap();
    assert!(
        own.starts_with("k:v|x-user-id:v|x-user-:v|x-user-destination:v|x-user-x-user-:v|x-user-k:v|"),
        "{own}"
    );
    let again = talk.client(&format!("SEND\ndestination:a\n{}\n\n\0", own.replace('|', "\n")));
    let expected: String = names.iter().map(|name| format!(" {name}=v")).collect();
    check(&again, &[&format!("publish a qos0 \"\"{expected}")]);
}

#[test]
fn the_particular_part_of_a_message_says_retained_expiration_and_lag_once() {
    let mut talk = subscribed(Version::V1_2, "");
    let mut kept = publication("a", b"x");
    kept.is_text = true;
    kept.expires_at = Some(talk.now + Duration::from_millis(2500));
    kept.expires_ms = Some(1_767_225_602_500);
    let mut kept = delivery(kept, QoS::AtMostOnce, 1);
    kept.is_retained = true;
    for dropped in [1, 2] {
        let lag = Lag { dropped, conflated: 4, topics: Vec::new() };
        talk.session.handle_lag(lag, talk.now);
    }
    let shared = "destination:/topic/a|content-type:text/plain;charset=utf-8|content-length:1|expires:1767225602500||x^@";
    let first = "retained:true|expiration:2500|x-lag:dropped=3;conflated=8|";
    check(
        &talk.deliver(kept.clone()),
        &[&format!("text MESSAGE|subscription:s|message-id:0-1|{first}{shared}")],
    );
    talk.now += Duration::from_micros(2_499_001);
    check(
        &talk.deliver(kept.clone()),
        &[&format!("text MESSAGE|subscription:s|message-id:0-2|retained:true|expiration:1|{shared}")],
    );
    talk.now += Duration::from_micros(999);
    check(&talk.deliver(kept), &["settle 1 Dropped(Expired)"]);
}

#[test]
fn what_is_equal_for_all_is_made_once() {
    use tidegate_protocol::session::Output;
    let mut bodies = Vec::new();
    let shared = std::sync::Arc::new(publication("a", b"x"));
    for version in Version::ALL {
        let mut talk = subscribed(version, "");
        let mut delivery = delivery(publication("a", b""), QoS::AtMostOnce, 1);
        delivery.publication = shared.clone();
        talk.session.handle_delivery(delivery, talk.now);
        let Some(Output::Send(outgoing)) = talk.session.poll_output() else { panic!("a message") };
        bodies.push(outgoing.body.unwrap());
    }
    assert!(bodies.iter().all(|body| std::sync::Arc::ptr_eq(body, &bodies[0])));
}

#[test]
fn the_kind_of_frame_follows_the_setting_and_is_never_invalid_text() {
    for (frames, payload, kind) in [
        (FrameKind::Auto, &b"x\0y"[..], "text"),
        (FrameKind::Auto, b"\xff", "binary"),
        (FrameKind::Text, b"x", "text"),
        (FrameKind::Text, b"\xff", "binary"),
        (FrameKind::Binary, b"x", "binary"),
    ] {
        let settings = Settings { frames, ..Settings::default() };
        let mut talk = Talk::open(Version::V1_2, &settings);
        talk.client("CONNECT\naccept-version:1.2\n\n\0");
        let answer = talk.reply(connected("c"));
        assert_eq!(answer[0].starts_with("binary"), frames == FrameKind::Binary, "{answer:?}");
        talk.client("SUBSCRIBE\nid:s\ndestination:a\n\n\0");
        let shown = talk.deliver(delivery(publication("a", payload), QoS::AtMostOnce, 1));
        assert!(shown[0].starts_with(kind), "{frames:?}: {shown:?}");
    }
}

#[test]
fn unknown_prefixes_are_topics_where_the_operator_says_so() {
    let settings = Settings { unknown_prefix: UnknownPrefix::Topic, ..Settings::default() };
    let mut talk = Talk::connected_with(Version::V1_2, &settings, "");
    check(&talk.client("SEND\ndestination:/topics/x\n\ny\0"), &["publish /topics/x qos0 \"y\""]);
}

#[test]
fn each_subscription_gets_its_own_copy() {
    let mut talk = subscribed(Version::V1_2, "");
    talk.client("SUBSCRIBE\nid:t\ndestination:/topic/#\n\n\0");
    let mut second = delivery(publication("a", b"x"), QoS::AtMostOnce, 2);
    second.subscription = SubscriptionId(1);
    let shown = talk.deliver(second);
    check(&shown, &["text MESSAGE|subscription:t|message-id:1-1|destination:/topic/a|content-length:1||x^@"]);
}

#[test]
fn a_publication_keeps_no_more_of_the_message_than_it_needs() {
    use tidegate_protocol::session::{Output, Request};
    use tidegate_protocol::websocket::Message;
    for len in [100, 40_000, 400_000, 900_000] {
        let mut talk = Talk::connected(Version::V1_2);
        let payload = "x".repeat(len);
        let rest = "y".repeat(500_000);
        let mut text =
            format!("SEND\ndestination:a\n\n{payload}\0SEND\ndestination:b\n\n{rest}\0SEND\nk:v\n\nz");
        text.shrink_to_fit();
        talk.session.handle_message(Message::Text(text.into()), talk.now);
        let Some(Output::Request(_, Request::Publish(publish))) = talk.session.poll_output() else {
            panic!("a publish");
        };
        talk.drain();
        // Still waiting for the end of the third frame, and nothing else refers to the payload's memory.
        let Ok(memory) = publish.publication.payload.try_into_mut() else {
            panic!("{len} bytes share their memory");
        };
        assert!(memory.capacity() <= 2 * len, "{len} bytes keep {} alive", memory.capacity());
    }
}

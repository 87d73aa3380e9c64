//! Conversations in payload mode (WIRE §2), and its wire forms.
#![expect(clippy::expect_used, reason = "a test helper may panic")]

mod raw_support;

use bytes::Bytes;
use raw_support::{connected, connected_with, open_with, publication, shown, unframed};
use tidegate_protocol::publication::{Form, Properties, Publication, QoS};
use tidegate_protocol::raw::{FORMS, Pinned, Settings};
use tidegate_protocol::session::{
    CloseKind, CloseReason, DataLane, Granted, LagNotice, Refusal, Reply, Wants,
};

#[test]
fn connects_then_subscribes_then_reads() {
    let mut client = open_with(Pinned::Nothing, "t=a&pub=b", &Settings::default()).unwrap();
    assert_eq!(client.connect().lag, LagNotice::Silent);
    assert!(client.connect().credentials.is_none() && client.connect().client_id.is_none());
    assert_eq!(client.session.wants(), Wants { input: false, qos0: true, acked: usize::MAX });
    client.reply(Reply::Connected(Box::default()));
    assert!(!client.session.wants().input, "an echo needs its subscription first");
    client.grant();
    assert!(client.session.wants().input && client.requests.is_empty() && client.sent.is_empty());
    assert_eq!(client.session.poll_timeout(), None);
}

#[test]
fn a_frame_is_published_as_the_kind_that_it_was() {
    let mut client = connected("t=x&pub=x");
    client.grant();
    let big = vec![7; 200_000];
    client.text("21.5");
    client.binary(big.clone());
    client.binary(Bytes::new());
    for (payload, is_text) in [(&b"21.5"[..], true), (&big, false), (b"", false)] {
        let published = client.published();
        assert_eq!((&published.payload[..], published.is_text), (payload, is_text));
        assert_eq!(
            (published.topic.as_str(), published.qos, published.retain),
            ("x", QoS::AtMostOnce, false)
        );
        client.matched(1);
    }
    assert!(client.closed.is_none() && client.sent.is_empty());
}

#[test]
fn a_small_payload_does_not_keep_its_buffer() {
    let mut client = connected("pub=x");
    let buffer = Bytes::from(vec![1; 60_000]);
    client.binary(buffer.slice(10..20));
    assert_ne!(client.published().payload.as_ptr(), buffer[10..].as_ptr());
}

#[test]
fn a_sent_frame_without_pub_closes_4003() {
    for is_text in [true, false] {
        let mut client = connected("t=a");
        client.grant();
        if is_text {
            client.text("")
        } else {
            client.binary(&b"x"[..])
        }
        let (code, reason, lane) = client.closed_with();
        assert_eq!((code, lane), (4003, DataLane::Abort));
        assert!(reason.contains("pub=TOPIC"));
        client.text("again");
        assert!(client.requests.is_empty());
    }
}

#[test]
fn publishes_are_braked_at_receive_maximum() {
    let settings = Settings { receive_maximum: 2, ..Settings::default() };
    let mut client = connected_with(Pinned::Nothing, "pub=x", &settings);
    client.text("1");
    assert!(client.session.wants().input);
    client.text("2");
    assert!(!client.session.wants().input);
    client.matched(0);
    assert!(client.session.wants().input);
}

#[test]
fn each_refusal_closes_with_its_code() {
    for (refusal, connect, request) in [
        (Refusal::BadCredentials, 4001, 4001),
        (Refusal::NotAuthorized, 4002, 4002),
        (Refusal::BadTopic("reserved"), 4000, 4000),
        (Refusal::Quota { name: "x", limit: 1 }, 4100, 1008),
        (Refusal::Overloaded("x"), 1013, 1013),
        (Refusal::Unsupported("x"), 4000, 4000),
        (Refusal::Internal, 1011, 1011),
    ] {
        let mut client = open_with(Pinned::Nothing, "t=a", &Settings::default()).unwrap();
        client.refuse(refusal.clone());
        assert_eq!(client.closed_with(), (connect, &*refusal.to_string(), DataLane::Abort));

        let mut client = connected("t=a&t=b");
        client.reply(Reply::Subscribed(vec![Ok(Granted { qos: QoS::AtMostOnce }), Err(refusal.clone())]));
        assert_eq!(client.closed_with(), (request, &*format!("t=b: {refusal}"), DataLane::Abort));

        let mut client = connected("pub=c");
        client.text("x");
        client.refuse(refusal.clone());
        assert_eq!(client.closed_with(), (request, &*format!("pub=c: {refusal}"), DataLane::Abort));
    }
}

#[test]
fn planned_ends_drain_and_others_abort() {
    for (kind, lane) in [
        (CloseKind::ShuttingDown, DataLane::Drain),
        (CloseKind::Restarting, DataLane::Drain),
        (CloseKind::TooSlow, DataLane::Abort),
        (CloseKind::Kicked, DataLane::Abort),
    ] {
        let mut client = connected("t=a");
        client.session.handle_close(CloseReason::new(kind, "why"), client.now);
        client.drain();
        assert_eq!(client.closed_with(), (kind.code(), "why", lane));
    }
}

fn with_type(payload: &[u8], content_type: &str) -> Publication {
    let mut publication = publication("t/1", payload);
    let properties = Properties { content_type: Some(content_type.into()), ..Properties::default() };
    publication.properties = Some(Box::new(properties));
    publication
}

fn as_text(payload: &[u8]) -> Publication {
    let mut publication = publication("t/1", payload);
    publication.is_text = true;
    publication
}

fn form(slot: u8) -> &'static Form {
    FORMS.iter().find(|form| form.slot == slot).expect("a form")
}

/// The opcodes under `as=auto`, `as=text`, `as=binary`.
fn check_forms(make: impl Fn() -> Publication, opcodes: [u8; 3]) {
    let publication = make();
    let with_topic = [b"t/1\n", &publication.payload[..]].concat();
    for ((plain, titled), opcode) in [(4, 5), (6, 7), (8, 9)].into_iter().zip(opcodes) {
        let frame = publication.prepared(form(plain)).frame();
        assert_eq!(unframed(frame), (opcode, &publication.payload[..]), "slot {plain}");
        let frame = publication.prepared(form(titled)).frame();
        assert_eq!(unframed(frame), (opcode, &with_topic[..]), "slot {titled}");
    }
}

#[test]
fn the_kind_of_frame_depends_on_the_message() {
    check_forms(|| publication("t/1", b"hi"), [2, 1, 2]);
    check_forms(|| publication("t/1", b"\xff"), [2, 2, 2]);
    check_forms(|| as_text(b"hi"), [1, 1, 2]);
    check_forms(|| with_type(b"hi", "text/plain"), [1, 1, 2]);
    check_forms(|| with_type(b"{}", "application/vnd.x+json"), [1, 1, 2]);
    check_forms(|| with_type(b"hi", "application/x; Charset=\"UTF-8\""), [1, 1, 2]);
    check_forms(|| with_type(b"hi", "text/plain; charset=latin1"), [2, 1, 2]);
    check_forms(|| with_type(b"\xff", "text/plain"), [2, 2, 2]);
    check_forms(|| with_type(b"hi", "image/png"), [2, 1, 2]);
}

#[test]
fn a_delivery_through_the_session_is_the_form() {
    for (query, slot) in
        [("t=a", 4), ("t=a&with=topic", 5), ("t=a&as=text", 6), ("t=a&as=binary&with=topic", 9)]
    {
        for make in [|| publication("t/1", b"hi"), || as_text(b"hi"), || publication("t/1", b"\xff")] {
            let mut client = connected(query);
            client.grant();
            client.deliver(make(), false);
            let outgoing = client.sent.pop().expect("sent");
            let made = make();
            let (opcode, bytes) = unframed(made.prepared(form(slot)).frame());
            assert_eq!(outgoing.kind as u8 + 1, opcode, "{query}");
            let mut sent = outgoing.head.to_vec();
            sent.extend_from_slice(outgoing.body.as_ref().expect("shared").bytes());
            assert_eq!(sent, bytes, "{query} {}", shown(&outgoing));
        }
    }
}

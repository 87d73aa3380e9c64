//! What subscribers with `ack:auto` share of MESSAGE, behind the head that their session names. STOMP 1.2 "MESSAGE".

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

mod stomp_support;

use std::time::Duration;

use stomp_support::{Talk, connected, delivery, granted, publication, show_bytes};
use tidegate_protocol::publication::{Properties, Publication, QoS};
use tidegate_protocol::session::{Output, Request, Subscribe};
use tidegate_protocol::stomp::{FrameKind, Settings, Version};
use tidegate_protocol::websocket::{Message, MessageKind};

/// What the session of a client asks for with this SUBSCRIBE.
fn subscribe(talk: &mut Talk, headers: &str) -> Subscribe {
    let text = format!("SUBSCRIBE\n{headers}destination:/topic/a\n\n\0");
    talk.session.handle_message(Message::Text(text.into()), talk.now);
    let Some(Output::Request(token, Request::Subscribe(mut asked))) = talk.session.poll_output() else {
        panic!("a subscribe");
    };
    talk.session.handle_reply(token, granted(QoS::AtMostOnce), talk.now);
    assert!(talk.drain().is_empty());
    asked.pop().unwrap()
}

/// The message that a receiver gets, its kind, and the number in its id, which is shown as `N`.
fn written(subscribe: &Subscribe, publication: &Publication) -> (String, MessageKind, u64) {
    let form = subscribe.forms.unwrap().live;
    assert!(form.behind_head.is_some() && form.serves(publication));
    let prepared = publication.prepared(form);
    let message = prepared.behind(subscribe.head.as_ref().unwrap(), None).parts()[1..].concat();
    let text = show_bytes(&message);
    let (front, rest) = text.split_once("-p").unwrap();
    let (number, rest) = rest.split_once('|').unwrap();
    (format!("{front}-pN|{rest}"), prepared.kind(), number.parse().unwrap())
}

fn annotated() -> Publication {
    let mut publication = publication("a:b", b"x\n\0y");
    publication.properties = Some(Box::new(Properties {
        content_type: Some("a/b".into()),
        user: vec![("k".into(), "v".into()), ("ack".into(), "7".into())],
        ..Properties::default()
    }));
    publication
}

#[test]
fn the_message_is_head_and_shared_part() {
    let common = "destination:/topic/a|content-length:1||x^@";
    let rich = "destination:/topic/a\\cb|content-type:a/b|content-length:4|k:v|x-user-ack:7||x|^@y^@";
    for (version, headers, first, second) in [
        (
            Version::V1_2,
            "id:s\n",
            "MESSAGE|subscription:s|message-id:0-pN|",
            "MESSAGE|subscription:t\\c|message-id:1-pN|",
        ),
        (
            Version::V1_1,
            "id:s\nack:auto\n",
            "MESSAGE|subscription:s|message-id:0-pN|",
            "MESSAGE|subscription:t\\c|message-id:1-pN|",
        ),
        (Version::V1_0, "", "MESSAGE|message-id:0-pN|", "MESSAGE|subscription:t\\c|message-id:1-pN|"),
    ] {
        let mut talk = Talk::connected(version);
        let one = subscribe(&mut talk, headers);
        let other = subscribe(&mut talk, "id:t\\c\n");
        let plain = publication("a", b"x");
        let (shown, kind, number) = written(&one, &plain);
        assert_eq!((shown, kind), (format!("{first}{common}"), MessageKind::Text));
        let (shown, _, again) = written(&other, &plain);
        assert_eq!((shown, again), (format!("{second}{common}"), number), "one number for all receivers");
        if version > Version::V1_0 {
            let (shown, _, next) = written(&one, &annotated());
            assert_eq!(shown, format!("{first}{rich}"));
            assert!(next > number, "no number comes twice");
        }
    }
}

#[test]
fn the_session_writes_the_same_but_for_the_id() {
    let mut talk = Talk::connected(Version::V1_2);
    let asked = subscribe(&mut talk, "id:s\n");
    for made in [publication("a", b"x"), annotated()] {
        let (shared, ..) = written(&asked, &made);
        let shown = talk.deliver(delivery(made, QoS::AtMostOnce, 1));
        let (front, rest) = shared.split_once("0-pN").unwrap();
        let [own] = shown.as_slice() else { panic!("{shown:?}") };
        let own = own.strip_prefix("text ").unwrap();
        assert!(own.starts_with(&format!("{front}0-")) && own.ends_with(rest), "{own} is not like {shared}");
        assert!(!own.contains("-p"), "{own}");
    }
}

#[test]
fn what_is_not_utf_8_goes_as_binary_and_so_does_all_where_the_operator_says_so() {
    for (frames, payload, expected) in [
        (FrameKind::Auto, &b"x"[..], MessageKind::Text),
        (FrameKind::Text, b"x", MessageKind::Text),
        (FrameKind::Binary, b"x", MessageKind::Binary),
        (FrameKind::Auto, b"\xff", MessageKind::Binary),
        (FrameKind::Text, b"\xff", MessageKind::Binary),
    ] {
        for version in Version::ALL {
            let settings = Settings { frames, ..Settings::default() };
            let mut talk = Talk::open(version, &settings);
            talk.client(&format!("CONNECT\naccept-version:{version}\nhost:h\n\n\0"));
            talk.reply(connected("c"));
            let asked = subscribe(&mut talk, "id:s\n");
            assert_eq!(written(&asked, &publication("a", payload)).1, expected, "{frames:?} {version}");
        }
    }
}

#[test]
fn what_needs_a_word_of_its_own_is_left_to_the_session() {
    let topic = |topic: &str| publication(topic, b"x");
    let titled = |text: &str| {
        let mut publication = publication("a", b"x");
        let user = vec![("k".into(), text.into())];
        publication.properties = Some(Box::new(Properties { user, ..Properties::default() }));
        publication
    };
    let mut expiring = publication("a", b"x");
    expiring.expires_at = Some(stomp_support::start() + Duration::from_secs(1));
    for (publication, serving) in [
        (topic("a"), [true, true, true]),
        (topic("a:b"), [false, true, true]),
        (topic("a\rb"), [false, false, true]),
        (titled("v"), [true, true, true]),
        (titled("a\\b"), [false, true, true]),
        (titled("a\rb"), [false, false, true]),
        (expiring, [false, false, false]),
    ] {
        let served = Version::ALL.map(|version| {
            let asked = subscribe(&mut Talk::connected(version), "id:s\n");
            let forms = asked.forms.unwrap();
            assert!(forms.retained.is_none(), "`retained:true` is the session's word");
            forms.live.serves(&publication)
        });
        assert_eq!(served, serving, "{publication:?}");
    }
}

#[test]
fn a_subscription_that_acknowledges_shares_no_form() {
    for (version, mode) in
        [(Version::V1_0, "client"), (Version::V1_1, "client"), (Version::V1_2, "client-individual")]
    {
        let asked = subscribe(&mut Talk::connected(version), &format!("id:s\nack:{mode}\n"));
        assert!(asked.forms.is_none() && asked.head.is_none(), "{version}");
    }
}

#[test]
fn an_ack_of_a_shared_message_is_an_error_that_says_why() {
    for (id, reason) in [
        ("0-p1", "ack:auto"),
        ("1-p1", "unknown"),
        ("2-p1", "unknown"),
        ("0-p01", "unknown"),
        ("0-p", "unknown"),
        ("0-q1", "unknown"),
        ("0-pp1", "unknown"),
        ("00-p1", "unknown"),
        ("0-p+1", "unknown"),
        ("0-p18446744073709551616", "unknown"),
    ] {
        let mut talk = Talk::connected(Version::V1_2);
        subscribe(&mut talk, "id:s\n");
        subscribe(&mut talk, "id:t\nack:client\n");
        let shown = talk.client(&format!("ACK\nid:{id}\n\n\0"));
        assert!(shown[0].starts_with("text ERROR|") && shown[0].contains(reason), "{id}: {shown:?}");
    }
}

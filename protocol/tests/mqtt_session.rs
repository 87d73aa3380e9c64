//! Conversations with an MQTT session: no socket, no sleep, no broker.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

mod mqtt_support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt_support::{Conversation, check_ends, connect, connected, props, publish, subscribe, topic};
use tidegate_protocol::mqtt::Settings;
use tidegate_protocol::mqtt::packet::{
    Ack, Connect, Disconnect, Packet, Properties, Publish, ReasonCode, Version, Will,
};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    CloseKind, CloseReason, Connected, Credentials, Reading, Refusal, Reply, Request, WillFate,
};
use tidegate_protocol::websocket::Message;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3_1, V3_1_1, V5};

/// CONNECT is refused: with this CONNACK, or in 3.x perhaps without a word.
fn check_refused(packet: Connect, settings: &Settings, connack: Option<ReasonCode>, kind: CloseKind) {
    let mut talk = Conversation::open(packet.version, settings);
    talk.say(&Packet::Connect(Box::new(packet)));
    if let Some(reason) = connack {
        let Packet::ConnAck(answer) = talk.hear() else { panic!("CONNACK") };
        assert_eq!((answer.reason, answer.session_present), (reason, false));
    }
    assert!(talk.hears_nothing());
    assert!(talk.requests.is_empty());
    assert_eq!(talk.closed.unwrap().kind, kind);
}

#[test]
fn a_connect_tells_the_broker_who_it_is() {
    let mut talk = Conversation::open(V5, &Settings::default());
    let will = Will {
        topic: topic("w"),
        payload: Bytes::from_static(b"gone"),
        qos: AtLeastOnce,
        retain: true,
        properties: props(Properties {
            payload_format_indicator: Some(true),
            will_delay_interval_s: Some(3),
            message_expiry_interval_s: Some(4),
            content_type: Some("t".into()),
            ..Properties::default()
        }),
    };
    talk.say(&Packet::Connect(Box::new(Connect {
        will: Some(will),
        user_name: Some("u".into()),
        password: Some(Bytes::from_static(b"p")),
        properties: props(Properties {
            session_expiry_interval_s: Some(60),
            maximum_packet_size: Some(1000),
            ..Properties::default()
        }),
        ..connect(V5)
    })));
    let (_, Request::Connect(asked)) = talk.request() else { panic!("CONNECT") };
    assert_eq!(asked.client_id.as_deref(), Some("c"));
    assert!(asked.clean_start);
    assert_eq!(asked.session_expiry, Some(Duration::from_secs(60)));
    assert_eq!(asked.subscriptions_max, 1000);
    assert!(asked.forms.is_some());
    assert_eq!(asked.packet_bytes_max, Some(1000));
    assert_eq!(
        asked.credentials,
        Some(Credentials::Password { user: "u".into(), password: Some(Bytes::from_static(b"p")) })
    );
    let will = asked.will.unwrap();
    assert_eq!((will.delay, will.expiry), (Duration::from_secs(3), Some(Duration::from_secs(4))));
    let will = will.publication;
    assert_eq!((will.topic.as_str(), will.qos, will.retain, will.is_text), ("w", AtLeastOnce, true, true));
    assert_eq!(will.properties.unwrap().content_type.as_deref(), Some("t"));
}

#[test]
fn connack_announces_what_this_server_does() {
    let mut talk = Conversation::open(V5, &Settings::default());
    talk.say(&Packet::Connect(Box::new(Connect {
        client_id: "".into(),
        keep_alive_s: 0,
        properties: props(Properties { session_expiry_interval_s: Some(60), ..Properties::default() }),
        ..connect(V5)
    })));
    let (token, Request::Connect(asked)) = talk.request() else { panic!("CONNECT") };
    assert_eq!(asked.client_id, None);
    talk.reply(token, connected());
    let Packet::ConnAck(connack) = talk.hear() else { panic!("CONNACK") };
    assert_eq!(
        *connack.properties.unwrap(),
        Properties {
            session_expiry_interval_s: Some(0),
            receive_maximum: Some(256),
            maximum_packet_size: Some(1024 * 1024),
            assigned_client_identifier: Some("given".into()),
            topic_alias_maximum: Some(16),
            server_keep_alive_s: Some(1200),
            ..Properties::default()
        }
    );
}

#[test]
fn a_bearer_counts_when_connect_names_nobody() {
    let now = Conversation::open(V5, &Settings::default()).now;
    let mut talk = Conversation::open(V5, &Settings::default());
    talk.session = tidegate_protocol::mqtt::open(Some("t".into()), &Arc::default(), now);
    talk.say(&Packet::Connect(Box::new(connect(V5))));
    let (_, Request::Connect(asked)) = talk.request() else { panic!("CONNECT") };
    assert_eq!(asked.credentials, Some(Credentials::Token("t".into())));
}

#[test]
fn refuses_connects_in_the_words_of_the_version() {
    let all = Settings::default();
    let no_3_1 = Settings {
        versions: tidegate_protocol::mqtt::Versions { v3_1: false, v3_1_1: true, v5: false },
        ..all.clone()
    };
    let no_retain = Settings { is_retain_available: false, ..all.clone() };
    let qos_1 = Settings { max_qos: AtLeastOnce, ..all.clone() };
    let unsupported = Some(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
    check_refused(connect(V3_1), &no_3_1, unsupported, CloseKind::BadRequest);
    check_refused(connect(V5), &no_3_1, unsupported, CloseKind::BadRequest);
    let bad_id = Some(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
    let nameless = |version, clean_start| Connect { client_id: "".into(), clean_start, ..connect(version) };
    check_refused(nameless(V3_1, true), &all, bad_id, CloseKind::BadRequest);
    check_refused(nameless(V3_1_1, false), &all, bad_id, CloseKind::BadRequest);
    for version in [V3_1, V3_1_1, V5] {
        let long = Connect { client_id: "x".repeat(257).into(), ..connect(version) };
        check_refused(long, &all, bad_id, CloseKind::BadRequest);
    }
    let will = |version, qos, retain| {
        let will = Will { topic: topic("w"), payload: Bytes::new(), qos, retain, properties: None };
        Connect { will: Some(will), ..connect(version) }
    };
    let qos = Some(ReasonCode::QOS_NOT_SUPPORTED);
    check_refused(will(V5, ExactlyOnce, false), &qos_1, qos, CloseKind::Policy);
    check_refused(will(V3_1_1, ExactlyOnce, false), &qos_1, None, CloseKind::Policy);
    let retain = Some(ReasonCode::RETAIN_NOT_SUPPORTED);
    check_refused(will(V5, AtMostOnce, true), &no_retain, retain, CloseKind::Policy);
    let text = Properties { payload_format_indicator: Some(true), ..Properties::default() };
    let mut not_text = will(V5, AtMostOnce, false);
    let broken = not_text.will.as_mut().unwrap();
    (broken.payload, broken.properties) = (Bytes::from_static(b"\xFF"), props(text));
    check_refused(not_text, &all, Some(ReasonCode::PAYLOAD_FORMAT_INVALID), CloseKind::ProtocolError);
}

/// WIRE §5: the client is told to mend it, not to come back later.
#[test]
fn a_connect_with_too_much_in_it_is_too_big() {
    let few = Settings { user_properties_max: 2, ..Settings::default() };
    let user = vec![("k".into(), "v".into()); 3];
    let properties = props(Properties { user, ..Properties::default() });
    let many = Connect { properties, ..connect(V5) };
    check_refused(many, &few, Some(ReasonCode::QUOTA_EXCEEDED), CloseKind::TooBig);
    let small = Settings { packet_bytes_max_preauth: 20, ..Settings::default() };
    for version in [V3_1_1, V5] {
        // Its length is all that is known of it, so nobody knows in which version to answer.
        let long = Connect { client_id: "x".repeat(20).into(), ..connect(version) };
        check_refused(long, &small, None, CloseKind::TooBig);
    }
}

#[test]
fn an_unknown_level_is_answered_in_the_nearest_form() {
    // mosquitto's bridges try 0x84 first and fall back when 3.x's refusal comes.
    for (level, version) in [(3u8, V3_1_1), (0x84, V3_1_1), (6, V5)] {
        let mut talk = Conversation::open(version, &Settings::default());
        talk.say_bytes(&[&[0x10, 13, 0, 4][..], b"MQTT", &[level, 2, 0, 60, 0, 1, b'c']].concat());
        let Packet::ConnAck(connack) = talk.hear() else { panic!("CONNACK") };
        assert_eq!(connack.reason, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, "level {level}");
        assert_eq!(talk.closed.unwrap().kind, CloseKind::BadRequest);
    }
}

#[test]
fn the_brokers_refusals_have_codes_in_each_version() {
    for (refusal, v5, v3, kind) in [
        (Refusal::BadCredentials, 0x86, 0x86, CloseKind::AuthFailed),
        (Refusal::NotAuthorized, 0x87, 0x87, CloseKind::Denied),
        (Refusal::BadClientId("x"), 0x85, 0x85, CloseKind::BadRequest),
        (Refusal::Quota { name: "n", limit: 1 }, 0x97, 0x88, CloseKind::TooManyConnections),
        (Refusal::Overloaded("x"), 0x89, 0x88, CloseKind::Overloaded),
        (Refusal::Internal, 0x80, 0x88, CloseKind::Internal),
    ] {
        for (version, code) in [(V5, v5), (V3_1_1, v3)] {
            let mut talk = Conversation::open(version, &Settings::default());
            talk.say(&Packet::Connect(Box::new(connect(version))));
            let (token, _) = talk.request();
            talk.reply(token, Reply::Refused(refusal.clone()));
            let Packet::ConnAck(connack) = talk.hear() else { panic!("CONNACK") };
            assert_eq!(connack.reason.0, code, "{refusal:?} in {version:?}");
            assert_eq!(talk.closed.unwrap().kind, kind);
        }
    }
}

#[test]
fn packets_straddle_and_share_messages() {
    let mut talk = Conversation::open(V3_1_1, &Settings::default());
    let connect = talk.codec.to_bytes(&Packet::Connect(Box::new(connect(V3_1_1))));
    for byte in &connect {
        talk.say_bytes(&[*byte]);
    }
    let (token, _) = talk.request();
    talk.reply(token, connected());
    talk.hear();
    // Two and a half packets, then the other half with one more.
    talk.say_bytes(&[0xC0, 0, 0xC0, 0, 0x30, 4, 0, 1]);
    assert_eq!((talk.hear(), talk.hear()), (Packet::PingResp, Packet::PingResp));
    talk.say_bytes(&[b'a', b'!', 0xC0, 0]);
    let (_, Request::Publish(publish)) = talk.request() else { panic!("PUBLISH") };
    assert_eq!(&publish.publication.payload[..], b"!");
    assert_eq!(talk.hear(), Packet::PingResp);
}

/// [MQTT-3.1.4-6]
#[test]
fn what_follows_a_refused_connect_is_not_looked_at() {
    for version in [V3_1, V3_1_1, V5] {
        let mut talk = Conversation::open(version, &Settings::default());
        let connect = talk.codec.to_bytes(&Packet::Connect(Box::new(connect(version))));
        let publish = talk.codec.to_bytes(&Packet::Publish(publish(AtLeastOnce, 1)));
        talk.say_bytes(&[&connect[..], &publish, &[0xC0, 0]].concat());
        let (token, _) = talk.request();
        talk.reply(token, Reply::Refused(Refusal::NotAuthorized));
        assert!(matches!(talk.hear(), Packet::ConnAck(_)));
        talk.say_bytes(&[0xC0, 0]);
        assert!(talk.hears_nothing() && talk.requests.is_empty() && talk.closed.is_some(), "{version:?}");
    }
}

/// [MQTT-3.2.2-9]; what is there is not said, and what is not there is refused [MQTT-3.2.2-14], [MQTT-3.2.2-18].
#[test]
fn connack_says_what_is_not_available() {
    for (max_qos, is_retain_available, topic_alias_maximum) in
        [(AtMostOnce, true, 16), (AtLeastOnce, false, 16), (ExactlyOnce, true, 0)]
    {
        let settings = Settings { max_qos, is_retain_available, topic_alias_maximum, ..Settings::default() };
        let mut talk = Conversation::open(V5, &settings);
        talk.say(&Packet::Connect(Box::new(connect(V5))));
        let (token, _) = talk.request();
        talk.reply(token, connected());
        let Packet::ConnAck(connack) = talk.hear() else { panic!("CONNACK") };
        let properties = connack.properties.unwrap();
        let told = match max_qos {
            AtMostOnce => Some(false),
            AtLeastOnce => Some(true),
            ExactlyOnce => None,
        };
        assert_eq!(properties.maximum_qos, told);
        assert_eq!(properties.retain_available, (!is_retain_available).then_some(false));
        assert_eq!(properties.topic_alias_maximum, (topic_alias_maximum > 0).then_some(topic_alias_maximum));
        let alias = Properties { topic_alias: Some(1), ..Properties::default() };
        let (refused, reason) = match (is_retain_available, topic_alias_maximum) {
            (false, _) => {
                (Publish { retain: true, ..publish(AtMostOnce, 0) }, ReasonCode::RETAIN_NOT_SUPPORTED)
            }
            (_, 0) => (
                Publish { properties: props(alias), ..publish(AtMostOnce, 0) },
                ReasonCode::TOPIC_ALIAS_INVALID,
            ),
            _ => continue,
        };
        talk.say(&Packet::Publish(refused));
        assert!(matches!(talk.hear(), Packet::Disconnect(why) if why.reason == reason));
    }
}

/// [MQTT-3.2.2-19], [MQTT-3.4.2-2], [MQTT-3.5.2-2], [MQTT-3.9.2-1], [MQTT-3.14.2-3]; and no answer has a user property.
#[test]
fn an_explanation_that_does_not_fit_is_left_out() {
    type Act = fn(&mut Conversation);
    let refused: Act = |talk| {
        let (token, _) = talk.request();
        talk.reply(token, Reply::Refused(Refusal::NotAuthorized));
    };
    let acts: [(&str, Act); 4] = [
        ("PUBACK", |talk| talk.say(&Packet::Publish(publish(AtLeastOnce, 1)))),
        ("PUBREC", |talk| talk.say(&Packet::Publish(publish(ExactlyOnce, 1)))),
        ("SUBACK", |talk| talk.say(&subscribe(&[("a", AtMostOnce)], None))),
        ("DISCONNECT", |talk| talk.say_bytes(&[0xF0, 0])),
    ];
    // CONNACK itself has 16 bytes.
    for (bytes, is_explained) in [(1000, true), (16, false)] {
        let limited = || {
            let properties = props(Properties { maximum_packet_size: Some(bytes), ..Properties::default() });
            Connect { properties, ..connect(V5) }
        };
        let check = |name: &str, talk: &mut Conversation| {
            let mut packet = talk.hear();
            let list = packet.properties_mut().and_then(|list| list.take());
            let explained = Properties {
                reason_string: list.as_ref().and_then(|list| list.reason_string.clone()),
                ..Properties::default()
            };
            assert_eq!(explained.reason_string.is_some(), is_explained, "{name} within {bytes} bytes");
            assert_eq!(list.map_or_else(Properties::default, |list| *list), explained, "{name}");
        };
        let mut talk = Conversation::open(V5, &Settings::default());
        talk.say(&Packet::Connect(Box::new(limited())));
        refused(&mut talk);
        check("CONNACK", &mut talk);
        for (name, act) in acts {
            let mut talk = Conversation::connected(limited(), &Settings::default());
            act(&mut talk);
            if !talk.requests.is_empty() {
                refused(&mut talk);
            }
            check(name, &mut talk);
        }
    }
}

#[test]
fn what_follows_connect_waits_for_its_answer() {
    let mut talk = Conversation::open(V5, &Settings::default());
    let connect = talk.codec.to_bytes(&Packet::Connect(Box::new(connect(V5))));
    talk.say_bytes(&[&connect[..], &[0xC0, 0]].concat());
    assert!(talk.hears_nothing() && !talk.session.wants().input);
    let (token, _) = talk.request();
    talk.reply(token, connected());
    assert!(matches!(talk.hear(), Packet::ConnAck(_)));
    assert_eq!(talk.hear(), Packet::PingResp);
    assert!(talk.session.wants().input);
}

#[test]
fn breaking_the_protocol_ends_the_session() {
    let twice = |version| Packet::Connect(Box::new(connect(version)));
    for version in [V3_1, V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        talk.say(&twice(version));
        check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);

        let mut talk = Conversation::online(version);
        talk.say(&Packet::PubAck(Ack::new(9, ReasonCode::SUCCESS)));
        check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);

        let mut talk = Conversation::online(version);
        talk.say_bytes(&[0x20, 2, 0, 0]);
        check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);

        let mut talk = Conversation::online(version);
        talk.say_bytes(&[0xC1, 0]);
        check_ends(talk, ReasonCode::MALFORMED_PACKET, CloseKind::ProtocolError);

        let mut talk = Conversation::online(version);
        talk.say_bytes(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
        check_ends(talk, ReasonCode::PACKET_TOO_LARGE, CloseKind::TooBig);

        let qos_1 = Settings { max_qos: AtLeastOnce, ..Settings::default() };
        let mut talk = Conversation::connected(connect(version), &qos_1);
        talk.say(&Packet::Publish(publish(ExactlyOnce, 1)));
        check_ends(talk, ReasonCode::QOS_NOT_SUPPORTED, CloseKind::Policy);

        let mut talk = Conversation::open(version, &Settings::default());
        talk.say_bytes(&[0xC0, 0]);
        assert!(talk.hears_nothing());
        assert_eq!(talk.closed.unwrap().kind, CloseKind::ProtocolError);

        let mut talk = Conversation::online(version);
        talk.session.handle_message(Message::Text("x".into()), talk.now);
        talk.say_bytes(&[]);
        check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::UnsupportedData);
    }
    let mut talk = Conversation::online(V5);
    talk.say(&Packet::Auth(Disconnect { reason: ReasonCode::REAUTHENTICATE, properties: None }));
    check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);
    let mut talk = Conversation::online(V5);
    let properties = props(Properties { session_expiry_interval_s: Some(1), ..Properties::default() });
    talk.say(&Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties }));
    check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);
}

#[test]
fn a_packet_before_login_may_not_be_larger_than_the_smaller_limit() {
    let mut talk = Conversation::open(V5, &Settings::default());
    talk.say_bytes(&[0x10, 0x80, 0x80, 0x04]);
    assert_eq!(talk.closed.unwrap().kind, CloseKind::TooBig);
}

#[test]
fn disconnect_decides_what_becomes_of_the_will() {
    for (reason, fate) in [
        (ReasonCode::SUCCESS, WillFate::Discard),
        (ReasonCode::DISCONNECT_WITH_WILL, WillFate::Publish),
        (ReasonCode::UNSPECIFIED_ERROR, WillFate::Publish),
    ] {
        let mut talk = Conversation::online(V5);
        talk.say(&Packet::Disconnect(Disconnect { reason, properties: None }));
        assert!(
            matches!(talk.request(), (_, Request::Disconnect { will, session_expiry: None }) if will == fate)
        );
        assert!(talk.hears_nothing());
        assert_eq!(talk.closed.unwrap().kind, CloseKind::Normal);
    }
}

#[test]
fn an_answer_that_does_not_fit_ends_the_session() {
    let small = |bytes| props(Properties { maximum_packet_size: Some(bytes), ..Properties::default() });
    for reply in [connected(), Reply::Refused(Refusal::NotAuthorized)] {
        let mut talk = Conversation::open(V5, &Settings::default());
        talk.say(&Packet::Connect(Box::new(Connect { properties: small(4), ..connect(V5) })));
        let (token, _) = talk.request();
        talk.reply(token, reply);
        assert!(talk.hears_nothing(), "no DISCONNECT without CONNACK");
        assert_eq!(talk.closed.unwrap().kind, CloseKind::TooBig);
    }
    let mut unnamed = Conversation::open(V5, &Settings { client_id_bytes_max: 0, ..Settings::default() });
    unnamed.say(&Packet::Connect(Box::new(Connect { properties: small(4), ..connect(V5) })));
    assert!(unnamed.hears_nothing() && unnamed.closed.is_some());
    let mut talk =
        Conversation::connected(Connect { properties: small(40), ..connect(V5) }, &Settings::default());
    let filters = [("$share/g", AtMostOnce); 40];
    talk.say(&subscribe(&filters, None));
    assert!(matches!(talk.hear(), Packet::Disconnect(why) if why.reason == ReasonCode::PACKET_TOO_LARGE));
}

#[test]
fn a_client_that_wants_no_problem_information_gets_none() {
    let properties = props(Properties { request_problem_information: Some(false), ..Properties::default() });
    let mut talk = Conversation::connected(Connect { properties, ..connect(V5) }, &Settings::default());
    talk.say(&Packet::Publish(publish(AtLeastOnce, 1)));
    let (token, _) = talk.request();
    talk.reply(token, Reply::Refused(Refusal::NotAuthorized));
    assert_eq!(talk.hear(), Packet::PubAck(Ack::new(1, ReasonCode::NOT_AUTHORIZED)));
}

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_session() {
    let mut talk = Conversation::online(V5);
    assert_eq!(talk.session.poll_timeout(), Some(talk.now + Duration::from_secs(90)));
    talk.pass(Duration::from_secs(89));
    assert!(talk.closed.is_none());
    talk.say_bytes(&[0xC0]);
    talk.pass(Duration::from_secs(1));
    check_ends(talk, ReasonCode::KEEP_ALIVE_TIMEOUT, CloseKind::PingTimeout);
}

#[test]
fn keep_alive_is_suspended_while_nobody_reads() {
    let mut talk = Conversation::online(V3_1_1);
    talk.session.handle_reading(Reading::Paused, talk.now);
    assert_eq!(talk.session.poll_timeout(), None);
    talk.pass(Duration::from_secs(1000));
    talk.session.handle_reading(Reading::Resumed, talk.now);
    assert_eq!(talk.session.poll_timeout(), Some(talk.now + Duration::from_secs(90)));
    let off = Conversation::connected(Connect { keep_alive_s: 0, ..connect(V3_1_1) }, &Settings::default());
    assert_eq!(off.session.poll_timeout(), None);
    let long =
        Conversation::connected(Connect { keep_alive_s: 9999, ..connect(V3_1_1) }, &Settings::default());
    assert_eq!(long.session.poll_timeout(), Some(long.now + Duration::from_secs(1800)));
}

#[test]
fn no_dribble_extends_the_time_for_connect() {
    let mut talk = Conversation::open(V5, &Settings::default());
    for byte in [0x10, 0x20, 0, 4] {
        talk.pass(Duration::from_secs(2));
        talk.say_bytes(&[byte]);
    }
    talk.pass(Duration::from_secs(2));
    assert_eq!(talk.closed.unwrap().kind, CloseKind::AuthTimeout);
}

#[test]
fn the_brokers_closes_have_codes() {
    for (kind, code) in [
        (CloseKind::ShuttingDown, 0x8B),
        (CloseKind::Replaced, 0x8E),
        (CloseKind::TooSlow, 0x97),
        (CloseKind::Kicked, 0x98),
        (CloseKind::RateLimited, 0x96),
        (CloseKind::Overloaded, 0x89),
    ] {
        for version in [V3_1_1, V5] {
            let mut talk = Conversation::online(version);
            talk.session.handle_close(CloseReason::new(kind, "why"), talk.now);
            talk.say_bytes(&[0xC0, 0]);
            check_ends(talk, ReasonCode(code), kind);
        }
    }
}

#[test]
fn the_end_of_a_session_may_be_changed_at_the_end_of_its_connection() {
    let expiry = |seconds| props(Properties { session_expiry_interval_s: seconds, ..Properties::default() });
    let goodbye = |seconds| Disconnect { reason: ReasonCode::SUCCESS, properties: expiry(Some(seconds)) };
    // What CONNECT said, what the broker made of it, and what CONNACK says about that.
    for (asked, granted, told) in [
        (None, 0, None),
        (None, 60, Some(60)),
        (Some(0), 0, None),
        (Some(90), 90, None),
        (Some(90), 60, Some(60)),
        (Some(u32::MAX), u32::MAX, None),
    ] {
        let mut talk = Conversation::open(V5, &Settings::default());
        talk.say(&Packet::Connect(Box::new(Connect { properties: expiry(asked), ..connect(V5) })));
        let (token, Request::Connect(request)) = talk.request() else { panic!("CONNECT") };
        assert_eq!(request.session_expiry, asked.map(|seconds| Duration::from_secs(seconds.into())));
        let session_expiry = Duration::from_secs(granted.into());
        talk.reply(token, Reply::Connected(Box::new(Connected { session_expiry, ..Connected::default() })));
        let Packet::ConnAck(connack) = talk.hear() else { panic!("CONNACK") };
        assert_eq!(connack.properties.unwrap().session_expiry_interval_s, told);
        talk.say(&Packet::Disconnect(goodbye(7)));
        if granted == 0 {
            check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);
            continue;
        }
        let seven = Some(Duration::from_secs(7));
        assert!(
            matches!(talk.request(), (_, Request::Disconnect { session_expiry, .. }) if session_expiry == seven)
        );
    }
}

#[test]
fn a_session_of_3_lasts_for_good_or_not_at_all() {
    for (clean_start, seconds) in [(true, 0), (false, u32::MAX)] {
        let mut talk = Conversation::open(V3_1_1, &Settings::default());
        talk.say(&Packet::Connect(Box::new(Connect { clean_start, ..connect(V3_1_1) })));
        let (_, Request::Connect(asked)) = talk.request() else { panic!("CONNECT") };
        assert_eq!(asked.session_expiry, Some(Duration::from_secs(seconds.into())));
        assert_eq!(asked.clean_start, clean_start);
    }
}

#[test]
fn response_information_is_told_to_those_who_ask() {
    let prefix: Arc<str> = "answers/".into();
    let with = Settings { response_information: Some(prefix), ..Settings::default() };
    for (settings, wants, client_id, told) in [
        (&with, Some(true), "given", Some("answers/given")),
        (&with, Some(false), "given", None),
        (&with, None, "given", None),
        // Nobody could publish there.
        (&with, Some(true), "a#", None),
        (&Settings::default(), Some(true), "given", None),
    ] {
        let mut talk = Conversation::open(V5, settings);
        let properties = props(Properties { request_response_information: wants, ..Properties::default() });
        talk.say(&Packet::Connect(Box::new(Connect { properties, ..connect(V5) })));
        let (token, _) = talk.request();
        talk.reply(
            token,
            Reply::Connected(Box::new(Connected { client_id: client_id.into(), ..Connected::default() })),
        );
        let Packet::ConnAck(connack) = talk.hear() else { panic!("CONNACK") };
        assert_eq!(connack.properties.unwrap().response_information.as_deref(), told);
    }
}

#[test]
fn a_pong_is_a_word_of_the_client_where_the_operator_says_so() {
    for (pong_counts_as_alive, seconds) in [(false, 90), (true, 170)] {
        let settings = Settings { pong_counts_as_alive, ..Settings::default() };
        let mut talk = Conversation::connected(connect(V5), &settings);
        let start = talk.now;
        talk.pass(Duration::from_secs(80));
        talk.session.handle_pong(talk.now);
        assert_eq!(talk.session.poll_timeout(), Some(start + Duration::from_secs(seconds)));
    }
    // Before CONNECT nobody's silence is excused.
    let settings = Settings { pong_counts_as_alive: true, ..Settings::default() };
    let mut talk = Conversation::open(V5, &settings);
    let deadline = talk.session.poll_timeout();
    talk.session.handle_pong(talk.now + Duration::from_secs(1));
    assert_eq!(talk.session.poll_timeout(), deadline);
}

//! Conversations with an MQTT session: no socket, no sleep, no broker.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

mod mqtt_support;

use std::time::Duration;

use bytes::Bytes;
use mqtt_support::{Conversation, connect, connected, delivery, publish, published, topic};
use tidegate_protocol::mqtt::Settings;
use tidegate_protocol::mqtt::packet::{
    Ack, Connect, Disconnect, Packet, Properties, Publish, ReasonCode, Subscribe, Subscription, Unsubscribe,
    Version, Will,
};
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    CloseKind, CloseReason, Credentials, DropReason, Granted, Lag, Reading, Refusal, Reply, Request,
    RetainHandling, Settlement, SubscriptionId, Tag, WillFate,
};
use tidegate_protocol::topic::{TopicFilter, TopicLimits};
use tidegate_protocol::websocket::Message;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3_1, V3_1_1, V5};

fn props(properties: Properties) -> Option<Box<Properties>> {
    Some(Box::new(properties))
}

fn subscribe(filters: &[(&str, QoS)], identifier: Option<u32>) -> Packet {
    let filters = filters
        .iter()
        .map(|(filter, qos)| Subscription {
            filter: Ok(TopicFilter::parse(filter, &TopicLimits::STANDARD).unwrap()),
            qos: *qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        })
        .collect();
    let properties = identifier
        .map(|id| Box::new(Properties { subscription_identifiers: vec![id], ..Properties::default() }));
    Packet::Subscribe(Subscribe { packet_id: 5, properties, filters })
}

/// The session ends: with DISCONNECT of this code in MQTT 5, without a word in 3.x.
fn check_ends(mut talk: Conversation, reason: ReasonCode, kind: CloseKind) {
    if talk.codec.version() == Some(V5) {
        match talk.hear() {
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.reason, reason);
                assert!(disconnect.properties.unwrap().reason_string.is_some(), "the developer is told why");
            }
            packet => panic!("{packet:?} instead of DISCONNECT"),
        }
    }
    assert!(talk.hears_nothing());
    assert_eq!(talk.closed.unwrap().kind, kind);
}

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
    assert_eq!(asked.session_expiry, Duration::from_secs(60));
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
            maximum_qos: Some(true),
            maximum_packet_size: Some(1024 * 1024),
            assigned_client_identifier: Some("given".into()),
            topic_alias_maximum: Some(16),
            shared_subscription_available: Some(false),
            server_keep_alive_s: Some(1200),
            ..Properties::default()
        }
    );
}

#[test]
fn a_bearer_counts_when_connect_names_nobody() {
    let now = Conversation::open(V5, &Settings::default()).now;
    let mut talk = Conversation::open(V5, &Settings::default());
    talk.session = tidegate_protocol::mqtt::open(Some("t".into()), &Settings::default(), now);
    talk.say(&Packet::Connect(Box::new(connect(V5))));
    let (_, Request::Connect(asked)) = talk.request() else { panic!("CONNECT") };
    assert_eq!(asked.credentials, Some(Credentials::Token("t".into())));
}

#[test]
fn refuses_connects_in_the_words_of_the_version() {
    let all = Settings::default();
    let no_3_1 = Settings {
        versions: tidegate_protocol::mqtt::Versions { v3_1: false, v3_1_1: true, v5: false },
        ..all
    };
    let no_retain = Settings { is_retain_available: false, ..all };
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
    check_refused(will(V5, ExactlyOnce, false), &all, qos, CloseKind::Policy);
    check_refused(will(V3_1_1, ExactlyOnce, false), &all, None, CloseKind::Policy);
    let retain = Some(ReasonCode::RETAIN_NOT_SUPPORTED);
    check_refused(will(V5, AtMostOnce, true), &no_retain, retain, CloseKind::Policy);
    let method = Properties { authentication_method: Some("SCRAM".into()), ..Properties::default() };
    check_refused(
        Connect { properties: props(method), ..connect(V5) },
        &all,
        Some(ReasonCode::BAD_AUTHENTICATION_METHOD),
        CloseKind::AuthFailed,
    );
    let text = Properties { payload_format_indicator: Some(true), ..Properties::default() };
    let mut not_text = will(V5, AtMostOnce, false);
    let broken = not_text.will.as_mut().unwrap();
    (broken.payload, broken.properties) = (Bytes::from_static(b"\xFF"), props(text));
    check_refused(not_text, &all, Some(ReasonCode::PAYLOAD_FORMAT_INVALID), CloseKind::ProtocolError);
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

        let mut talk = Conversation::online(version);
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
        assert!(matches!(talk.request(), (_, Request::Disconnect { will }) if will == fate));
        assert!(talk.hears_nothing());
        assert_eq!(talk.closed.unwrap().kind, CloseKind::Normal);
    }
}

#[test]
fn publishes_are_pipelined_and_acknowledged() {
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        for id in [10, 11] {
            talk.say(&Packet::Publish(publish(AtLeastOnce, id)));
        }
        let (first, Request::Publish(_)) = talk.request() else { panic!("PUBLISH") };
        let (second, Request::Publish(_)) = talk.request() else { panic!("PUBLISH") };
        talk.reply(first, published(1));
        talk.reply(second, published(0));
        assert_eq!(talk.hear(), Packet::PubAck(Ack::new(10, ReasonCode::SUCCESS)));
        let nobody = if version == V5 { ReasonCode::NO_MATCHING_SUBSCRIBERS } else { ReasonCode::SUCCESS };
        assert_eq!(talk.hear(), Packet::PubAck(Ack::new(11, nobody)));
    }
}

#[test]
fn receive_maximum_is_enforced_in_5_and_brakes_in_3() {
    let settings = Settings { receive_maximum: 2, ..Settings::default() };
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::connected(connect(version), &settings);
        let bytes: Vec<u8> = (1..=3)
            .flat_map(|id| talk.codec.to_bytes(&Packet::Publish(publish(AtLeastOnce, id))).to_vec())
            .collect();
        talk.say_bytes(&bytes);
        assert_eq!(talk.requests.len(), 2);
        if version == V5 {
            check_ends(talk, ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, CloseKind::ReceiveMaximum);
        } else {
            assert!(!talk.session.wants().input);
            let (token, _) = talk.request();
            talk.reply(token, published(1));
            assert_eq!(talk.requests.len(), 2, "the third one follows");
        }
    }
}

#[test]
fn refused_publishes_are_told_as_the_version_can() {
    let mut talk = Conversation::online(V5);
    talk.say(&Packet::Publish(publish(AtLeastOnce, 1)));
    let (token, _) = talk.request();
    talk.reply(token, Reply::Refused(Refusal::BadTopic("no")));
    let Packet::PubAck(ack) = talk.hear() else { panic!("PUBACK") };
    assert_eq!((ack.packet_id, ack.reason), (1, ReasonCode::TOPIC_NAME_INVALID));
    assert!(ack.properties.unwrap().reason_string.is_some());
    for (refusal, is_acknowledged) in [(Refusal::NotAuthorized, true), (Refusal::Internal, false)] {
        let mut talk = Conversation::online(V3_1_1);
        talk.say(&Packet::Publish(publish(AtLeastOnce, 1)));
        let (token, _) = talk.request();
        talk.reply(token, Reply::Refused(refusal));
        assert_eq!(talk.closed.is_none(), is_acknowledged);
        assert_eq!(!talk.hears_nothing(), is_acknowledged);
    }
}

#[test]
fn topic_aliases_stand_for_topics() {
    let with = |name: Option<&str>, alias| {
        let properties = props(Properties { topic_alias: Some(alias), ..Properties::default() });
        Packet::Publish(Publish { topic: name.map(topic), properties, ..publish(AtMostOnce, 0) })
    };
    let mut talk = Conversation::online(V5);
    for (name, alias, expected) in [
        (Some("a"), 2, "a"),
        (Some("b"), 1, "b"),
        (None, 2, "a"),
        (Some("c"), 2, "c"),
        (None, 2, "c"),
        (None, 1, "b"),
    ] {
        talk.say(&with(name, alias));
        let (_, Request::Publish(publish)) = talk.request() else { panic!("PUBLISH") };
        assert_eq!(publish.publication.topic.as_str(), expected);
    }
    for (packet, reason) in [
        (with(None, 3), ReasonCode::PROTOCOL_ERROR),
        (with(Some("a"), 0), ReasonCode::TOPIC_ALIAS_INVALID),
        (with(Some("a"), 17), ReasonCode::TOPIC_ALIAS_INVALID),
    ] {
        let mut talk = Conversation::online(V5);
        talk.say(&packet);
        check_ends(talk, reason, CloseKind::ProtocolError);
    }
}

#[test]
fn a_publish_keeps_what_was_said_beside_the_payload() {
    let mut talk = Conversation::online(V5);
    let properties = props(Properties {
        payload_format_indicator: Some(true),
        message_expiry_interval_s: Some(9),
        content_type: Some("t".into()),
        response_topic: Some("r".into()),
        correlation_data: Some(Bytes::from_static(b"c")),
        user: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
        ..Properties::default()
    });
    talk.say(&Packet::Publish(Publish { retain: true, properties, ..publish(AtMostOnce, 0) }));
    let (_, Request::Publish(publish)) = talk.request() else { panic!("PUBLISH") };
    let publication = publish.publication;
    assert!(publication.is_text && publication.retain);
    assert_eq!(publication.expires_at, Some(talk.now + Duration::from_secs(9)));
    let said = publication.properties.unwrap();
    assert_eq!(said.content_type.as_deref(), Some("t"));
    assert_eq!(said.response_topic.unwrap().as_str(), "r");
    assert_eq!(said.correlation_data.unwrap(), "c");
    assert_eq!(said.user, [("k".into(), "1".into()), ("k".into(), "2".into())]);
}

#[test]
fn a_payload_that_is_not_the_text_it_says_ends_the_session() {
    let mut talk = Conversation::online(V5);
    let properties = props(Properties { payload_format_indicator: Some(true), ..Properties::default() });
    let payload = Bytes::from_static(b"\xC0\x80");
    talk.say(&Packet::Publish(Publish { properties, payload, ..publish(AtMostOnce, 0) }));
    check_ends(talk, ReasonCode::PAYLOAD_FORMAT_INVALID, CloseKind::ProtocolError);
}

#[test]
fn subscribe_asks_and_suback_answers_in_order() {
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        talk.say(&subscribe(&[("a", ExactlyOnce), ("$share/g/a", AtMostOnce), ("b", AtMostOnce)], None));
        let (token, Request::Subscribe(asked)) = talk.request() else { panic!("SUBSCRIBE") };
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0].qos, AtLeastOnce, "never more than the maximum QoS");
        assert!(asked[0].forms.is_some());
        assert!(!talk.session.wants().input);
        talk.reply(
            token,
            Reply::Subscribed(vec![Ok(Granted { qos: AtLeastOnce }), Err(Refusal::NotAuthorized)]),
        );
        let Packet::SubAck(suback) = talk.hear() else { panic!("SUBACK") };
        let codes: Vec<u8> = suback.reasons.iter().map(|reason| reason.0).collect();
        assert_eq!(codes, if version == V5 { [0x01, 0x9E, 0x87] } else { [0x01, 0x80, 0x80] });
        assert!(talk.session.wants().input);
    }
}

#[test]
fn a_filter_subscribed_again_keeps_its_id_until_it_is_unsubscribed() {
    let mut talk = Conversation::online(V5);
    let first = talk.subscribe(&subscribe(&[("a", AtMostOnce)], None), AtMostOnce);
    let again = talk.subscribe(&subscribe(&[("a", AtLeastOnce)], None), AtLeastOnce);
    assert_eq!(first, again);
    let filters = ["x", "a"].map(|name| TopicFilter::parse(name, &TopicLimits::STANDARD));
    talk.say(&Packet::Unsubscribe(Unsubscribe { packet_id: 6, properties: None, filters: filters.to_vec() }));
    let (token, Request::Unsubscribe(ids)) = talk.request() else { panic!("UNSUBSCRIBE") };
    assert_eq!(ids, [first]);
    talk.reply(token, Reply::Unsubscribed(vec![true]));
    let Packet::UnsubAck(unsuback) = talk.hear() else { panic!("UNSUBACK") };
    assert_eq!(unsuback.reasons, [ReasonCode::NO_SUBSCRIPTION_EXISTED, ReasonCode::SUCCESS]);
    let next = talk.subscribe(&subscribe(&[("a", AtMostOnce)], None), AtMostOnce);
    assert_ne!(next, first);
}

#[test]
fn subscriptions_beyond_the_limit_are_refused() {
    let settings = Settings { subscriptions_max: 1, ..Settings::default() };
    let mut talk = Conversation::connected(connect(V5), &settings);
    talk.subscribe(&subscribe(&[("a", AtMostOnce)], None), AtMostOnce);
    talk.say(&subscribe(&[("b", AtMostOnce)], None));
    let Packet::SubAck(suback) = talk.hear() else { panic!("SUBACK") };
    assert_eq!(suback.reasons, [ReasonCode::QUOTA_EXCEEDED]);
}

#[test]
fn a_delivery_at_qos_1_is_assigned_sent_and_settled() {
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        let id = talk.subscribe(&subscribe(&[("a", AtLeastOnce)], None), AtLeastOnce);
        let publication = Publication::new(topic("a"), Bytes::from_static(b"x"));
        talk.deliver(delivery(publication, AtLeastOnce, id, 77));
        assert!(matches!(talk.request(), (_, Request::Assign { tag: Tag(77), packet_id: 1 })));
        assert_eq!(talk.hear(), Packet::Publish(publish(AtLeastOnce, 1)));
        for _ in 0..2 {
            talk.say(&Packet::PubAck(Ack::new(1, ReasonCode::SUCCESS)));
        }
        assert!(matches!(
            talk.request(),
            (_, Request::Settle { tag: Tag(77), settlement: Settlement::Accepted })
        ));
        assert!(talk.requests.is_empty() && talk.closed.is_none(), "a late PUBACK is ignored");
        talk.say(&Packet::PubAck(Ack::new(2, ReasonCode::SUCCESS)));
        assert!(talk.closed.is_some(), "one that was never assigned is not");
    }
}

#[test]
fn the_window_is_the_lower_of_both_receive_maxima() {
    let properties = props(Properties { receive_maximum: Some(1), ..Properties::default() });
    let mut talk = Conversation::connected(Connect { properties, ..connect(V5) }, &Settings::default());
    assert!(talk.session.wants().acked);
    let publication = Publication::new(topic("a"), Bytes::new());
    talk.deliver(delivery(publication, AtLeastOnce, SubscriptionId(1), 1));
    assert!(!talk.session.wants().acked && talk.session.wants().qos0);
    talk.say(&Packet::PubAck(Ack::new(1, ReasonCode::QUOTA_EXCEEDED)));
    assert!(talk.session.wants().acked);
    talk.request();
    let refused = Settlement::Dropped(DropReason::Refused);
    assert!(matches!(talk.request(), (_, Request::Settle { settlement, .. }) if settlement == refused));
}

#[test]
fn a_delivery_names_its_subscriptions_its_lag_and_what_remains() {
    let mut talk = Conversation::online(V5);
    let first = talk.subscribe(&subscribe(&[("a", AtMostOnce)], Some(7)), AtMostOnce);
    let second = talk.subscribe(&subscribe(&[("+", AtMostOnce)], Some(8)), AtMostOnce);
    talk.session.handle_lag(Lag { dropped: 3, conflated: 0, topics: vec![] }, talk.now);
    let mut publication = Publication::new(topic("a"), Bytes::from_static(b"x"));
    publication.expires_at = Some(talk.now + Duration::from_millis(2500));
    let mut both = delivery(publication, AtMostOnce, first, 1);
    both.also = Some([second].into());
    talk.deliver(both.clone());
    let Packet::Publish(heard) = talk.hear() else { panic!("PUBLISH") };
    let expected = Properties {
        message_expiry_interval_s: Some(3),
        subscription_identifiers: vec![7, 8],
        user: vec![("tidegate-lag".into(), "dropped=3;conflated=0".into())],
        ..Properties::default()
    };
    assert_eq!(*heard.properties.unwrap(), expected);
    talk.now += Duration::from_secs(3);
    talk.deliver(both);
    assert!(talk.hears_nothing());
    let expired = Settlement::Dropped(DropReason::Expired);
    assert!(matches!(talk.request(), (_, Request::Settle { settlement, .. }) if settlement == expired));
}

#[test]
fn nothing_larger_than_the_client_takes_is_sent() {
    let properties = props(Properties { maximum_packet_size: Some(60), ..Properties::default() });
    let mut talk = Conversation::connected(Connect { properties, ..connect(V5) }, &Settings::default());
    let publication = Publication::new(topic("a"), Bytes::from(vec![0; 60]));
    talk.deliver(delivery(publication, AtMostOnce, SubscriptionId(1), 1));
    assert!(talk.hears_nothing());
    let dropped = Settlement::Dropped(DropReason::TooLarge);
    assert!(matches!(talk.request(), (_, Request::Settle { settlement, .. }) if settlement == dropped));
    talk.session.handle_close(CloseReason::new(CloseKind::Kicked, "x".repeat(100)), talk.now);
    talk.say_bytes(&[]);
    let bare = Disconnect { reason: ReasonCode::ADMINISTRATIVE_ACTION, properties: None };
    assert_eq!(talk.hear(), Packet::Disconnect(bare), "the explanation is left out");
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
    let filters = [("$share/g/a", AtMostOnce); 40];
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
fn unknown_packets_of_qos_2_are_answered_as_such() {
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        let reason =
            if version == V5 { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND } else { ReasonCode::SUCCESS };
        talk.say(&Packet::PubRec(Ack::new(5, ReasonCode::SUCCESS)));
        assert_eq!(talk.hear(), Packet::PubRel(Ack::new(5, reason)));
        talk.say(&Packet::PubComp(Ack::new(5, ReasonCode::SUCCESS)));
        talk.say(&Packet::PubRel(Ack::new(6, ReasonCode::SUCCESS)));
        assert_eq!(talk.hear(), Packet::PubComp(Ack::new(6, reason)));
        assert!(talk.closed.is_none());
    }
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

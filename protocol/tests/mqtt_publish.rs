//! MQTT: what a client publishes, at each QoS, and how it is answered.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

mod mqtt_support;

use std::time::Duration;

use bytes::Bytes;
use mqtt_support::{Conversation, ack, check_ends, connect, not_found, props, publish, published, topic};
use tidegate_protocol::mqtt::Settings;
use tidegate_protocol::mqtt::packet::{Ack, Packet, Properties, Publish, ReasonCode, Version};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{CloseKind, Refusal, Reply, Request};

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3_1, V3_1_1, V5};

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

/// PUBLISH to the topic `refused`, alias 1, of a payload that is not the text it says.
fn not_text(qos: QoS, packet_id: u16) -> Packet {
    let properties = props(Properties {
        payload_format_indicator: Some(true),
        topic_alias: Some(1),
        ..Properties::default()
    });
    let payload = Bytes::from_static(b"\xC0\x80");
    Packet::Publish(Publish { topic: Some(topic("refused")), properties, payload, ..publish(qos, packet_id) })
}

/// The broker forgets the identifier, and the publish is refused with 0x99.
fn check_not_text(talk: &mut Conversation, qos: QoS, packet_id: u16) {
    let (token, Request::Release { packet_id: released }) = talk.request() else { panic!("RELEASE") };
    assert_eq!(released, packet_id);
    talk.reply(token, Reply::Released { packet_id, known: false });
    let (Packet::PubAck(answer) | Packet::PubRec(answer)) = talk.hear() else { panic!("an answer") };
    assert_eq!((answer.packet_id, answer.reason), (packet_id, ReasonCode::PAYLOAD_FORMAT_INVALID), "{qos:?}");
    assert!(answer.properties.unwrap().reason_string.is_some(), "the developer is told why");
}

#[test]
fn a_payload_that_is_not_the_text_it_says_is_refused_in_the_acknowledgement() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let settings = Settings { receive_maximum: 1, ..Settings::default() };
        let mut talk = Conversation::connected(connect(V5), &settings);
        for _ in 0..2 {
            // The second one would be above the Receive Maximum, if the first were not over.
            talk.say(&not_text(qos, 7));
            assert!(talk.hears_nothing());
            check_not_text(&mut talk, qos, 7);
            assert!(talk.is_quiet());
        }
        // The alias counts, and the identifier is free.
        let properties = props(Properties { topic_alias: Some(1), ..Properties::default() });
        talk.say(&Packet::Publish(Publish { topic: None, properties, ..publish(qos, 7) }));
        let (_, Request::Publish(asked)) = talk.request() else { panic!("PUBLISH") };
        assert_eq!(asked.publication.topic.as_str(), "refused");
    }
    let mut talk = Conversation::online(V5);
    talk.say(&not_text(AtMostOnce, 0));
    check_ends(talk, ReasonCode::PAYLOAD_FORMAT_INVALID, CloseKind::ProtocolError);
}

/// [MQTT-4.6.0-2], [MQTT-4.6.0-3]
#[test]
fn a_refused_format_waits_for_the_answers_before_it() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let mut talk = Conversation::online(V5);
        talk.say(&Packet::Publish(publish(qos, 1)));
        talk.say(&not_text(qos, 2));
        talk.say(&Packet::Publish(publish(qos, 3)));
        assert!(talk.hears_nothing());
        talk.publish_taken(1);
        talk.hear();
        check_not_text(&mut talk, qos, 2);
        talk.publish_taken(1);
        assert!(
            matches!(talk.hear(), Packet::PubAck(answer) | Packet::PubRec(answer) if answer.packet_id == 3)
        );
        assert!(talk.is_quiet());
    }
}

#[test]
fn refused_formats_are_within_the_window_and_braked() {
    let settings = Settings { receive_maximum: 2, ..Settings::default() };
    let mut talk = Conversation::connected(connect(V5), &settings);
    for id in 1..=3 {
        talk.say(&not_text(AtLeastOnce, id));
    }
    check_ends(talk, ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, CloseKind::ReceiveMaximum);
    let mut talk = Conversation::connected(connect(V5), &settings);
    for _ in 0..100 {
        talk.say(&not_text(ExactlyOnce, 1));
    }
    assert_eq!(talk.requests.len(), 4);
    assert!(!talk.session.wants().input && talk.closed.is_none());
}

#[test]
fn a_publish_at_qos_2_is_taken_once_and_released() {
    for version in [V3_1, V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        for dup in [false, true] {
            talk.say(&Packet::Publish(Publish { dup, ..publish(ExactlyOnce, 10) }));
            let (token, Request::Publish(asked)) = talk.request() else { panic!("PUBLISH") };
            assert_eq!(asked.packet_id, Some(10), "by this the broker knows a repetition");
            assert_eq!(asked.publication.qos, ExactlyOnce);
            assert!(talk.is_quiet());
            talk.reply(token, published(1));
            assert_eq!(talk.hear(), Packet::PubRec(ack(10)));
        }
        talk.say(&Packet::PubRel(ack(10)));
        assert!(talk.hears_nothing());
        talk.released(10, true);
        assert_eq!(talk.hear(), Packet::PubComp(ack(10)));
        // The client did not hear PUBCOMP, and says PUBREL again.
        talk.say(&Packet::PubRel(ack(10)));
        talk.released(10, false);
        assert_eq!(talk.hear(), Packet::PubComp(if version == V5 { not_found(10) } else { ack(10) }));
        assert!(talk.is_quiet());
    }
}

#[test]
fn answers_leave_in_the_order_of_the_publishes() {
    let mut talk = Conversation::online(V5);
    for (qos, id) in [(ExactlyOnce, 1), (AtLeastOnce, 2), (ExactlyOnce, 3)] {
        talk.say(&Packet::Publish(publish(qos, id)));
    }
    for matched in [1, 0, 0] {
        talk.publish_taken(matched);
    }
    let nobody = |id| Ack::new(id, ReasonCode::NO_MATCHING_SUBSCRIBERS);
    assert_eq!(talk.hear(), Packet::PubRec(ack(1)));
    assert_eq!(talk.hear(), Packet::PubAck(nobody(2)));
    assert_eq!(talk.hear(), Packet::PubRec(nobody(3)));
    for id in [3, 1] {
        talk.say(&Packet::PubRel(ack(id)));
    }
    for id in [3, 1] {
        talk.released(id, true);
        assert_eq!(talk.hear(), Packet::PubComp(ack(id)));
    }
}

#[test]
fn a_refused_publish_at_qos_2_is_over_in_5_and_goes_on_in_3() {
    let settings = Settings { receive_maximum: 1, ..Settings::default() };
    let mut talk = Conversation::connected(connect(V5), &settings);
    for _ in 0..2 {
        // The second one would be above the Receive Maximum, if the first were not over.
        talk.say(&Packet::Publish(publish(ExactlyOnce, 1)));
        let (token, _) = talk.request();
        talk.reply(token, Reply::Refused(Refusal::NotAuthorized));
        let Packet::PubRec(answer) = talk.hear() else { panic!("PUBREC") };
        assert_eq!((answer.packet_id, answer.reason), (1, ReasonCode::NOT_AUTHORIZED));
        assert!(answer.properties.unwrap().reason_string.is_some());
    }
    assert!(talk.is_quiet());
    let mut talk = Conversation::online(V3_1_1);
    talk.say(&Packet::Publish(publish(ExactlyOnce, 1)));
    let (token, _) = talk.request();
    talk.reply(token, Reply::Refused(Refusal::BadTopic("no")));
    assert_eq!(talk.hear(), Packet::PubRec(ack(1)));
    talk.say(&Packet::PubRel(ack(1)));
    talk.released(1, false);
    assert_eq!(talk.hear(), Packet::PubComp(ack(1)));
    let mut talk = Conversation::online(V3_1_1);
    talk.say(&Packet::Publish(publish(ExactlyOnce, 1)));
    let (token, _) = talk.request();
    talk.reply(token, Reply::Refused(Refusal::Internal));
    assert!(talk.hears_nothing() && talk.closed.is_some(), "PUBREC would claim that the message is safe");
}

#[test]
fn receive_maximum_of_5_counts_qos_2_until_pubcomp() {
    let settings = Settings { receive_maximum: 2, ..Settings::default() };
    for qos in [AtLeastOnce, ExactlyOnce] {
        let mut talk = Conversation::connected(connect(V5), &settings);
        for id in [1, 2] {
            talk.say(&Packet::Publish(publish(ExactlyOnce, id)));
            talk.publish_taken(1);
        }
        // A repetition is no further one.
        talk.say(&Packet::Publish(Publish { dup: true, ..publish(ExactlyOnce, 1) }));
        talk.publish_taken(1);
        talk.say(&Packet::PubRel(ack(1)));
        talk.released(1, true);
        talk.say(&Packet::Publish(publish(qos, 3)));
        assert!(matches!(talk.request(), (_, Request::Publish(_))), "there is room for one");
        for expected in [1, 2, 1] {
            assert_eq!(talk.hear(), Packet::PubRec(ack(expected)));
        }
        assert_eq!(talk.hear(), Packet::PubComp(ack(1)));
        talk.say(&Packet::Publish(publish(AtMostOnce, 0)));
        assert!(matches!(talk.request(), (_, Request::Publish(_))), "QoS 0 is not counted");
        talk.say(&Packet::Publish(publish(qos, 4)));
        check_ends(talk, ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, CloseKind::ReceiveMaximum);
    }
}

#[test]
fn what_waits_for_pubrel_does_not_brake_3() {
    let settings = Settings { receive_maximum: 2, ..Settings::default() };
    let mut talk = Conversation::connected(connect(V3_1_1), &settings);
    for id in 1..=1000 {
        talk.say(&Packet::Publish(publish(ExactlyOnce, id)));
        talk.publish_taken(1);
        assert_eq!(talk.hear(), Packet::PubRec(ack(id)));
    }
    assert!(talk.session.wants().input);
    for id in [1, 2] {
        talk.say(&Packet::PubRel(ack(id)));
    }
    assert!(!talk.session.wants().input, "what waits for the broker does");
    talk.released(1, true);
    assert!(talk.session.wants().input);
}

#[test]
fn repetitions_without_end_are_braked_in_5() {
    let settings = Settings { receive_maximum: 2, ..Settings::default() };
    let mut talk = Conversation::connected(connect(V5), &settings);
    for packet in [Packet::Publish(publish(ExactlyOnce, 1)), Packet::PubRel(ack(1))] {
        for _ in 0..100 {
            talk.say(&packet);
        }
    }
    assert_eq!(talk.requests.len(), 4);
    assert!(!talk.session.wants().input && talk.closed.is_none());
    talk.publish_taken(1);
    assert_eq!(talk.requests.len(), 4, "one goes, one comes");
}

//! MQTT: deliveries to the client, their topic aliases, and the client's acknowledgements.

#![expect(clippy::panic, reason = "a test helper may panic")]

mod mqtt_support;

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use mqtt_support::{Conversation, ack, check_ends, connect, delivery, message, not_found, props, topic};
use tidegate_protocol::mqtt::Settings;
use tidegate_protocol::mqtt::packet::{Ack, Connect, Disconnect, Packet, Properties, ReasonCode, Version};
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    CloseKind, CloseReason, DropReason, Lag, Refusal, Reply, Request, Settlement, Tag,
};

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3_1, V3_1_1, V5};

fn refusing(packet_id: u16) -> Ack {
    Ack::new(packet_id, ReasonCode::QUOTA_EXCEEDED)
}

fn check_settled(talk: &mut Conversation, tag: u64, settlement: Settlement) {
    let (_, Request::Settle { tag: settled, settlement: end }) = talk.request() else { panic!("settled") };
    assert_eq!((settled, end), (Tag(tag), settlement));
}

#[test]
fn a_delivery_at_qos_1_is_assigned_sent_and_settled() {
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        assert_eq!(talk.delivered(AtLeastOnce, 77), 1);
        for _ in 0..2 {
            talk.say(&Packet::PubAck(ack(1)));
        }
        check_settled(&mut talk, 77, Settlement::Accepted);
        assert!(talk.is_quiet(), "a late PUBACK is ignored");
        talk.say(&Packet::PubAck(ack(2)));
        assert!(talk.closed.is_some(), "one that was never assigned is not");
    }
}

#[test]
fn a_delivery_at_qos_2_is_recorded_released_and_settled() {
    for version in [V3_1, V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        assert_eq!(talk.delivered(ExactlyOnce, 77), 1);
        for _ in 0..2 {
            talk.say(&Packet::PubRec(ack(1)));
        }
        assert!(talk.hears_nothing(), "PUBREL waits for the broker");
        talk.recorded(77);
        assert_eq!(talk.hear(), Packet::PubRel(ack(1)));
        assert!(talk.is_quiet(), "the second PUBREC has its PUBREL too");
        talk.say(&Packet::PubRec(ack(1)));
        assert_eq!(talk.hear(), Packet::PubRel(ack(1)), "a third one gets it again");
        talk.say(&Packet::PubComp(ack(1)));
        check_settled(&mut talk, 77, Settlement::Accepted);
        talk.say(&Packet::PubComp(ack(1)));
        assert!(talk.is_quiet(), "a late PUBCOMP is ignored");
        talk.say(&Packet::PubRec(ack(1)));
        assert_eq!(talk.hear(), Packet::PubRel(if version == V5 { not_found(1) } else { ack(1) }));
        assert!(talk.is_quiet());
    }
}

#[test]
fn pubrels_leave_in_the_order_of_the_pubrecs() {
    let mut talk = Conversation::online(V5);
    for tag in [71, 72, 73] {
        talk.delivered(ExactlyOnce, tag);
    }
    for id in [2, 1, 3] {
        talk.say(&Packet::PubRec(ack(id)));
    }
    for (tag, id) in [(72, 2), (71, 1), (73, 3)] {
        talk.recorded(tag);
        assert_eq!(talk.hear(), Packet::PubRel(ack(id)));
    }
}

#[test]
fn a_refused_delivery_is_dropped_and_its_identifier_free() {
    let settings = Settings { max_inflight: 1, ..Settings::default() };
    let mut talk = Conversation::connected(connect(V5), &settings);
    for (qos, refusal) in
        [(AtLeastOnce, Packet::PubAck(refusing(1))), (ExactlyOnce, Packet::PubRec(refusing(2)))]
    {
        talk.delivered(qos, 9);
        assert_eq!(talk.session.wants().acked, 0);
        talk.say(&refusal);
        check_settled(&mut talk, 9, Settlement::Dropped(DropReason::Refused));
        assert!(talk.session.wants().acked > 0 && talk.is_quiet());
    }
}

#[test]
fn an_answer_to_what_was_refused_meanwhile_is_ignored() {
    let mut talk = Conversation::online(V5);
    talk.delivered(ExactlyOnce, 9);
    talk.say(&Packet::PubRec(ack(1)));
    talk.say(&Packet::PubRec(refusing(1)));
    talk.recorded(9);
    check_settled(&mut talk, 9, Settlement::Dropped(DropReason::Refused));
    assert!(talk.is_quiet());
}

#[test]
fn pubcomp_not_found_completes_the_delivery() {
    let mut talk = Conversation::online(V5);
    talk.delivered(ExactlyOnce, 9);
    talk.say(&Packet::PubRec(ack(1)));
    talk.recorded(9);
    talk.hear();
    talk.say(&Packet::PubComp(not_found(1)));
    check_settled(&mut talk, 9, Settlement::Accepted);
}

#[test]
fn acknowledgements_that_do_not_fit_the_qos_end_the_session() {
    for version in [V3_1_1, V5] {
        for (qos, answer) in [
            (AtLeastOnce, Packet::PubRec(ack(1))),
            (AtLeastOnce, Packet::PubComp(ack(1))),
            (ExactlyOnce, Packet::PubAck(ack(1))),
            (ExactlyOnce, Packet::PubComp(ack(1))),
        ] {
            let mut talk = Conversation::online(version);
            talk.delivered(qos, 9);
            talk.say(&answer);
            check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);
        }
    }
}

#[test]
fn a_broker_that_cannot_record_ends_the_session() {
    let mut talk = Conversation::online(V5);
    talk.delivered(ExactlyOnce, 9);
    talk.say(&Packet::PubRec(ack(1)));
    let (token, _) = talk.request();
    talk.reply(token, Reply::Refused(Refusal::Internal));
    check_ends(talk, ReasonCode::UNSPECIFIED_ERROR, CloseKind::Internal);
}

#[test]
fn unknown_packets_of_qos_2_are_answered_as_such() {
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        let answer = |id| if version == V5 { not_found(id) } else { ack(id) };
        talk.say(&Packet::PubRec(ack(5)));
        assert_eq!(talk.hear(), Packet::PubRel(answer(5)));
        talk.say(&Packet::PubComp(ack(5)));
        talk.say(&Packet::PubRel(ack(6)));
        talk.released(6, false);
        assert_eq!(talk.hear(), Packet::PubComp(answer(6)));
        assert!(talk.is_quiet());
    }
}

#[test]
fn the_window_is_the_lower_of_both_receive_maxima() {
    for (receive_maximum, max_inflight) in [(Some(1), 9), (None, 1)] {
        let properties = props(Properties { receive_maximum, ..Properties::default() });
        let settings = Settings { max_inflight, ..Settings::default() };
        let mut talk = Conversation::connected(Connect { properties, ..connect(V5) }, &settings);
        assert!(talk.session.wants().acked > 0);
        talk.delivered(ExactlyOnce, 1);
        talk.say(&Packet::PubRec(ack(1)));
        talk.recorded(1);
        assert!(talk.session.wants().acked == 0 && talk.session.wants().qos0, "until PUBCOMP");
        talk.say(&Packet::PubComp(ack(1)));
        assert!(talk.session.wants().acked > 0);
    }
}

#[test]
fn a_delivery_names_its_subscriptions_its_lag_and_what_remains() {
    let mut talk = Conversation::online(V5);
    talk.session.handle_lag(Lag { dropped: 3, conflated: 0, topics: vec![] }, talk.now);
    let mut publication = message("a");
    publication.expires_at = Some(talk.now + Duration::from_millis(2500));
    let mut both = delivery(publication, AtMostOnce, 1);
    both.identifier = NonZeroU32::new(7);
    both.also = Some([NonZeroU32::new(8).unwrap()].into());
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
    check_settled(&mut talk, 1, Settlement::Dropped(DropReason::Expired));
}

#[test]
fn nothing_larger_than_the_client_takes_is_sent() {
    let properties = props(Properties { maximum_packet_size: Some(60), ..Properties::default() });
    let mut talk = Conversation::connected(Connect { properties, ..connect(V5) }, &Settings::default());
    for qos in [AtMostOnce, ExactlyOnce] {
        talk.deliver(delivery(Publication::new(topic("a"), Bytes::from(vec![0; 60])), qos, 1));
        assert!(talk.hears_nothing());
        check_settled(&mut talk, 1, Settlement::Dropped(DropReason::TooLarge));
    }
    talk.session.handle_close(CloseReason::new(CloseKind::Kicked, "x".repeat(100)), talk.now);
    talk.say_bytes(&[]);
    let bare = Disconnect { reason: ReasonCode::ADMINISTRATIVE_ACTION, properties: None };
    assert_eq!(talk.hear(), Packet::Disconnect(bare), "the explanation is left out");
}

/// A client that takes so many aliases, of packets up to this size.
fn aliasing(topic_alias_maximum: u16, maximum_packet_size: Option<u32>) -> Conversation {
    let properties = props(Properties {
        topic_alias_maximum: Some(topic_alias_maximum),
        maximum_packet_size,
        ..Properties::default()
    });
    Conversation::connected(Connect { properties, ..connect(V5) }, &Settings::default())
}

/// The topic and the alias of the PUBLISH that this delivery becomes.
fn heard(talk: &mut Conversation, name: &str, qos: QoS) -> (String, Option<u16>) {
    talk.deliver(delivery(message(name), qos, 1));
    let Packet::Publish(publish) = talk.hear() else { panic!("PUBLISH") };
    let alias = publish.properties.and_then(|properties| properties.topic_alias);
    (publish.topic.map(|topic| topic.as_str().to_owned()).unwrap_or_default(), alias)
}

#[test]
fn a_topic_is_sent_once_to_a_client_that_takes_aliases() {
    let mut talk = aliasing(2, None);
    for (name, expected) in [
        ("plant/a", ("plant/a", Some(1))),
        ("plant/a", ("", Some(1))),
        ("plant/b", ("plant/b", Some(2))),
        ("plant/c", ("plant/c", None)),
        ("plant/b", ("", Some(2))),
        ("plant/c", ("plant/c", None)),
    ] {
        for_each_qos(&mut talk, name, expected);
    }
}

/// The first one as expected, and the rest as a topic that is known by then.
fn for_each_qos(talk: &mut Conversation, name: &str, expected: (&str, Option<u16>)) {
    assert_eq!(heard(talk, name, AtMostOnce), (expected.0.to_owned(), expected.1));
    let again = if expected.1.is_some() { "" } else { name };
    for qos in [AtLeastOnce, ExactlyOnce] {
        assert_eq!(heard(talk, name, qos), (again.to_owned(), expected.1));
    }
}

#[test]
fn no_alias_is_sent_beyond_either_maximum() {
    let mut talk = Conversation::online(V5);
    assert_eq!(heard(&mut talk, "plant/a", AtMostOnce), ("plant/a".to_owned(), None));
    let mut talk = aliasing(u16::MAX, None);
    for number in 1..=16 {
        let name = format!("plant/{number}");
        assert_eq!(heard(&mut talk, &name, AtMostOnce), (name, Some(number)));
    }
    assert_eq!(heard(&mut talk, "plant/17", AtMostOnce), ("plant/17".to_owned(), None));
}

#[test]
fn an_alias_that_makes_a_packet_too_large_is_left_out() {
    // Two bytes before a topic of 52 with its length, an empty list and one byte: 58; an alias takes three.
    let mut talk = aliasing(1, Some(61));
    let long = format!("{}/b", "x".repeat(50));
    assert_eq!(heard(&mut talk, &long, AtMostOnce), (long.clone(), Some(1)));
    let mut talk = aliasing(1, Some(60));
    for _ in 0..2 {
        assert_eq!(heard(&mut talk, &long, AtMostOnce), (long.clone(), None));
    }
}

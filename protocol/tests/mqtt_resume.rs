//! MQTT: a session goes on over a second connection.

#![expect(clippy::panic, reason = "a test helper may panic")]

mod mqtt_support;

use std::time::Duration;

use bytes::Bytes;
use mqtt_support::{
    Conversation, ack, check_ends, connect, delivery, message, not_found, props, publish, topic,
};
use tidegate_protocol::mqtt::Settings;
use tidegate_protocol::mqtt::packet::{Ack, Connect, Packet, Properties, Publish, ReasonCode, Version};
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    CloseKind, Connected, DropReason, InFlight, InFlightState, Reply, Request, Settlement, Tag,
};

use QoS::{AtLeastOnce, ExactlyOnce};
use Version::{V3_1_1, V5};

fn sent(packet_id: u16, qos: QoS) -> InFlight {
    sent_message(packet_id, qos, message("a"))
}

fn sent_message(packet_id: u16, qos: QoS, message: Publication) -> InFlight {
    InFlight { packet_id, state: InFlightState::Sent(delivery(message, qos, u64::from(packet_id))) }
}

fn received(packet_id: u16) -> InFlight {
    InFlight { packet_id, state: InFlightState::Received(Tag(u64::from(packet_id))) }
}

fn resumed_with(connect: Connect, in_flight: Vec<InFlight>) -> Conversation {
    let connected = Connected { session_present: true, in_flight, ..Connected::default() };
    Conversation::resumed(connect, &Settings::default(), connected)
}

fn resumed(version: Version, in_flight: Vec<InFlight>) -> Conversation {
    resumed_with(connect(version), in_flight)
}

/// A client that takes one at a time.
fn one_by_one(in_flight: Vec<InFlight>) -> Conversation {
    let properties = props(Properties { receive_maximum: Some(1), ..Properties::default() });
    resumed_with(Connect { properties, ..connect(V5) }, in_flight)
}

fn again(qos: QoS, packet_id: u16) -> Packet {
    Packet::Publish(Publish { dup: true, ..publish(qos, packet_id) })
}

fn check_settled(talk: &mut Conversation, tag: u64, settlement: Settlement) {
    let (_, Request::Settle { tag: settled, settlement: end }) = talk.request() else { panic!("settled") };
    assert_eq!((settled, end), (Tag(tag), settlement));
}

#[test]
fn what_was_in_flight_is_sent_again_in_order() {
    for version in [V3_1_1, V5] {
        let mut talk = resumed(
            version,
            vec![sent(7, AtLeastOnce), received(9), sent(8, ExactlyOnce), sent(2, ExactlyOnce)],
        );
        assert_eq!(talk.hear(), Packet::PubRel(ack(9)), "no window holds it back");
        assert_eq!(talk.hear(), again(AtLeastOnce, 7));
        assert_eq!(talk.hear(), again(ExactlyOnce, 8));
        assert_eq!(talk.hear(), again(ExactlyOnce, 2));
        assert!(talk.is_quiet() && talk.session.wants().acked > 0);
        talk.say(&Packet::PubAck(ack(7)));
        check_settled(&mut talk, 7, Settlement::Accepted);
        talk.say(&Packet::PubComp(ack(9)));
        check_settled(&mut talk, 9, Settlement::Accepted);
        talk.say(&Packet::PubRec(ack(8)));
        talk.recorded(8);
        assert_eq!(talk.hear(), Packet::PubRel(ack(8)));
        talk.say(&Packet::PubComp(ack(8)));
        check_settled(&mut talk, 8, Settlement::Accepted);
        assert_eq!(talk.delivered(AtLeastOnce, 1), 3, "identifiers go on behind the last one");
    }
}

#[test]
fn the_clients_window_paces_what_is_sent_again() {
    let mut talk =
        one_by_one(vec![sent(1, AtLeastOnce), sent(2, ExactlyOnce), received(3), sent(4, AtLeastOnce)]);
    assert_eq!(talk.hear(), Packet::PubRel(ack(3)));
    assert!(talk.is_quiet() && talk.session.wants().acked == 0);
    talk.say(&Packet::PubComp(ack(3)));
    assert_eq!(talk.hear(), again(AtLeastOnce, 1));
    talk.say(&Packet::PubAck(ack(1)));
    assert_eq!(talk.hear(), again(ExactlyOnce, 2));
    talk.say(&Packet::PubRec(Ack::new(2, ReasonCode::QUOTA_EXCEEDED)));
    assert_eq!(talk.hear(), again(AtLeastOnce, 4));
    assert_eq!(talk.session.wants().acked, 0);
    talk.say(&Packet::PubAck(ack(4)));
    assert!(talk.hears_nothing() && talk.session.wants().acked > 0);
}

#[test]
fn what_the_client_answers_before_it_is_sent_again_is_not_sent_again() {
    let mut talk = one_by_one(vec![
        sent(1, AtLeastOnce),
        sent(2, ExactlyOnce),
        sent(4, AtLeastOnce),
        sent(5, AtLeastOnce),
    ]);
    assert_eq!(talk.hear(), again(AtLeastOnce, 1));
    talk.say(&Packet::PubAck(ack(4)));
    check_settled(&mut talk, 4, Settlement::Accepted);
    talk.say(&Packet::PubRec(ack(2)));
    talk.recorded(2);
    assert_eq!(talk.hear(), Packet::PubRel(ack(2)));
    talk.say(&Packet::PubComp(ack(2)));
    check_settled(&mut talk, 2, Settlement::Accepted);
    assert!(talk.is_quiet());
    talk.say(&Packet::PubAck(ack(1)));
    check_settled(&mut talk, 1, Settlement::Accepted);
    assert_eq!(talk.hear(), again(AtLeastOnce, 5));
    assert!(talk.is_quiet());
}

#[test]
fn late_acknowledgements_of_an_earlier_connection_are_ignored() {
    let mut talk = resumed(V5, vec![]);
    talk.say(&Packet::PubAck(ack(500)));
    talk.say(&Packet::PubComp(ack(501)));
    assert!(talk.is_quiet());
    talk.say(&Packet::PubRec(ack(502)));
    assert_eq!(talk.hear(), Packet::PubRel(not_found(502)));
    let mut fresh = Conversation::online(V5);
    fresh.say(&Packet::PubAck(ack(500)));
    check_ends(fresh, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);
}

#[test]
fn what_has_become_too_large_is_dropped() {
    let properties = props(Properties { maximum_packet_size: Some(40), ..Properties::default() });
    let large = Publication::new(topic("a"), Bytes::from(vec![0; 40]));
    let in_flight = vec![sent_message(1, AtLeastOnce, large), sent(2, AtLeastOnce)];
    let mut talk = resumed_with(Connect { properties, ..connect(V5) }, in_flight);
    check_settled(&mut talk, 1, Settlement::Dropped(DropReason::TooLarge));
    assert_eq!(talk.hear(), again(AtLeastOnce, 2));
    talk.say(&Packet::PubAck(ack(1)));
    assert!(talk.is_quiet());
}

#[test]
fn an_exchange_that_has_begun_does_not_expire() {
    let mut talk = Conversation::open(V5, &Settings::default());
    let mut expired = message("a");
    expired.expires_at = Some(talk.now + Duration::from_secs(1));
    talk.say(&Packet::Connect(Box::new(connect(V5))));
    let (token, _) = talk.request();
    talk.now += Duration::from_secs(2);
    let in_flight = vec![sent_message(1, ExactlyOnce, expired)];
    talk.reply(
        token,
        Reply::Connected(Box::new(Connected { session_present: true, in_flight, ..Connected::default() })),
    );
    assert!(matches!(talk.hear(), Packet::ConnAck(connack) if connack.session_present));
    let Packet::Publish(publish) = talk.hear() else { panic!("PUBLISH") };
    assert!(publish.dup);
    assert_eq!(publish.properties.unwrap().message_expiry_interval_s, Some(0));
}

#[test]
fn what_is_sent_again_has_no_alias() {
    let properties = props(Properties { topic_alias_maximum: Some(5), ..Properties::default() });
    let mut talk = resumed_with(Connect { properties, ..connect(V5) }, vec![sent(1, AtLeastOnce)]);
    assert_eq!(talk.hear(), again(AtLeastOnce, 1));
    talk.deliver(delivery(message("a"), QoS::AtMostOnce, 2));
    let Packet::Publish(publish) = talk.hear() else { panic!("PUBLISH") };
    assert_eq!(publish.topic.unwrap().as_str(), "a", "the topic is said with its number first");
    assert_eq!(publish.properties.unwrap().topic_alias, Some(1));
}

#[test]
fn identifiers_of_an_earlier_connection_count_nothing_until_they_are_published_again() {
    let settings = Settings { receive_maximum: 1, ..Settings::default() };
    let connected = Connected { session_present: true, received: vec![1, 2], ..Connected::default() };
    let mut talk = Conversation::resumed(connect(V5), &settings, connected);
    talk.say(&Packet::PubRel(ack(1)));
    talk.released(1, true);
    assert_eq!(talk.hear(), Packet::PubComp(ack(1)));
    talk.say(&Packet::Publish(Publish { dup: true, ..publish(ExactlyOnce, 2) }));
    talk.publish_taken(1);
    assert_eq!(talk.hear(), Packet::PubRec(ack(2)));
    talk.say(&Packet::Publish(publish(ExactlyOnce, 3)));
    check_ends(talk, ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, CloseKind::ReceiveMaximum);
}

//! MQTT: clients that send any packet at any time, and brokers that answer anything to anything.
//!
//! The conversation checks that every packet of the session decodes and that nothing follows the end.

mod mqtt_support;

use std::time::Duration;

use bytes::Bytes;
use mqtt_support::{Conversation, connect, delivery, message, props, publish, published, subscribe};
use proptest::prelude::*;
use tidegate_protocol::mqtt::Settings;
use tidegate_protocol::mqtt::packet::{Ack, Connect, Disconnect, Packet, Properties, ReasonCode, Version};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    CloseKind, CloseReason, Connected, Granted, InFlight, InFlightState, Reading, Refusal, Reply, Tag,
};

#[derive(Debug, Clone)]
enum Event {
    Say(Kind, u16),
    /// These bytes, as they are.
    Bytes(Vec<u8>),
    /// The broker answers one of its requests, not always with what was asked for.
    Reply(usize, usize),
    Deliver(QoS),
    Pass(u64),
    Reading(bool),
    Close,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Connect,
    Publish(QoS),
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    Ping,
    Auth(ReasonCode),
    Disconnect,
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let kind = prop_oneof![
        1 => Just(Kind::Connect),
        8 => qos().prop_map(Kind::Publish),
        4 => Just(Kind::PubAck),
        4 => Just(Kind::PubRec),
        4 => Just(Kind::PubRel),
        4 => Just(Kind::PubComp),
        4 => Just(Kind::Subscribe),
        2 => Just(Kind::Ping),
        1 => Just(Kind::Auth(ReasonCode::CONTINUE_AUTHENTICATION)),
        1 => Just(Kind::Auth(ReasonCode::REAUTHENTICATE)),
        1 => Just(Kind::Disconnect),
    ];
    let event = prop_oneof![
        20 => (kind, 1..5u16).prop_map(|(kind, id)| Event::Say(kind, id)),
        1 => proptest::collection::vec(any::<u8>(), 0..8).prop_map(Event::Bytes),
        15 => (0..3usize, 0..REPLIES + 20).prop_map(|(request, reply)| Event::Reply(request, reply)),
        8 => qos().prop_map(Event::Deliver),
        2 => (0..40u64).prop_map(Event::Pass),
        1 => any::<bool>().prop_map(Event::Reading),
        1 => Just(Event::Close),
    ];
    proptest::collection::vec(event, 1..80)
}

fn packet(version: Version, kind: Kind, id: u16) -> Packet {
    let ack = Ack::new(id, ReasonCode::SUCCESS);
    match kind {
        Kind::Connect => Packet::Connect(Box::new(login(version))),
        Kind::Publish(QoS::AtMostOnce) => Packet::Publish(publish(QoS::AtMostOnce, 0)),
        Kind::Publish(qos) => Packet::Publish(publish(qos, id)),
        Kind::PubAck => Packet::PubAck(ack),
        Kind::PubRec => Packet::PubRec(ack),
        Kind::PubRel => Packet::PubRel(ack),
        Kind::PubComp => Packet::PubComp(ack),
        Kind::Subscribe => subscribe(&[("a", QoS::ExactlyOnce), ("$share/g", QoS::AtMostOnce)], None),
        Kind::Ping => Packet::PingReq,
        Kind::Auth(reason) => {
            let method = Properties { authentication_method: Some("M".into()), ..Properties::default() };
            Packet::Auth(Disconnect { reason, properties: props(method) })
        }
        Kind::Disconnect => Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties: None }),
    }
}

fn login(version: Version) -> Connect {
    let properties = Properties {
        authentication_method: Some("M".into()),
        topic_alias_maximum: Some(1),
        receive_maximum: Some(2),
        ..Properties::default()
    };
    Connect { properties: props(properties).filter(|_| version == Version::V5), ..connect(version) }
}

const REPLIES: usize = 10;

fn reply(number: usize) -> Reply {
    let in_flight = vec![
        InFlight { packet_id: 1, state: InFlightState::Received(Tag(1)) },
        InFlight { packet_id: 2, state: InFlightState::Sent(delivery(message("a"), QoS::ExactlyOnce, 2)) },
    ];
    match number {
        0 => Reply::Connected(Box::default()),
        1 => Reply::Challenge(Bytes::from_static(b"1")),
        2 => Reply::Authenticated(Bytes::new()),
        3 => Reply::Subscribed(vec![Ok(Granted { qos: QoS::AtMostOnce })]),
        4 => Reply::Subscribed(Vec::new()),
        5 => Reply::Unsubscribed(vec![true]),
        6 => Reply::Released { packet_id: 1, known: true },
        7 => Reply::Received { tag: Tag(2) },
        8 => Reply::Refused(Refusal::NotAuthorized),
        9 => {
            Reply::Connected(Box::new(Connected { session_present: true, in_flight, ..Connected::default() }))
        }
        _ => published(1),
    }
}

fn happen(talk: &mut Conversation, version: Version, event: &Event) {
    match event {
        Event::Say(kind, id) => talk.say(&packet(version, *kind, *id)),
        Event::Bytes(bytes) => talk.say_bytes(bytes),
        Event::Reply(request, number) => {
            if !talk.requests.is_empty() {
                let (token, _) = talk.requests.remove(request % talk.requests.len());
                talk.reply(token, reply(*number));
            }
        }
        Event::Deliver(qos) => {
            let wants = talk.session.wants();
            if if *qos == QoS::AtMostOnce { wants.qos0 } else { wants.acked > 0 } {
                talk.deliver(delivery(message("a"), *qos, 3));
            }
        }
        Event::Pass(seconds) => talk.pass(Duration::from_secs(*seconds)),
        Event::Reading(is_reading) => {
            let reading = if *is_reading { Reading::Resumed } else { Reading::Paused };
            talk.session.handle_reading(reading, talk.now);
        }
        Event::Close => {
            talk.session.handle_close(CloseReason::new(CloseKind::Kicked, "out"), talk.now);
            talk.say_bytes(&[]);
        }
    }
}

/// CONNACK comes once, and what says why is the last packet.
fn check(version: Version, events: &[Event]) {
    let settings = Settings { receive_maximum: 2, ..Settings::default() };
    let mut talk = Conversation::open(version, &settings);
    talk.say(&Packet::Connect(Box::new(login(version))));
    for event in events {
        happen(&mut talk, version, event);
        let wants = talk.session.wants();
        assert!(talk.closed.is_none() || !(wants.input || wants.qos0 || wants.acked > 0));
    }
    let mut heard = Vec::new();
    while !talk.hears_nothing() {
        heard.push(talk.hear());
    }
    let connacks = heard.iter().filter(|packet| matches!(packet, Packet::ConnAck(_))).count();
    assert!(connacks <= 1, "{heard:?}");
    let before = heard.iter().take_while(|packet| !matches!(packet, Packet::ConnAck(_)));
    let is_early = |packet: &Packet| !matches!(packet, Packet::Auth(_));
    assert!(!before.clone().any(is_early), "{heard:?}");
    let is_last = |packet: &Packet| match packet {
        Packet::Disconnect(_) => true,
        Packet::ConnAck(connack) => connack.reason.is_error(),
        _ => false,
    };
    let end = heard.iter().position(is_last);
    assert!(end.is_none_or(|position| position + 1 == heard.len() && talk.closed.is_some()), "{heard:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_is_said_the_session_keeps_to_the_protocol(events in events()) {
        for version in [Version::V3_1_1, Version::V5] {
            check(version, &events);
        }
    }
}

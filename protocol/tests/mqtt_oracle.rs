//! The MQTT codec against one that others wrote: what we encode they read as the same, and the other way round.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use bytes::{Bytes, BytesMut};
use mqttbytes::{v4, v5};
use proptest::prelude::*;
use tidegate_protocol::mqtt::packet::{
    Connect, Packet, Properties, Publish, Subscribe, Subscription, Version, Will,
};
use tidegate_protocol::mqtt::{Codec, Limits};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::RetainHandling;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

const LIMITS: Limits =
    Limits { packet_bytes_max: 1 << 20, topic: TopicLimits::STANDARD, user_properties_max: 100 };

fn topic(name: &str) -> Topic {
    Topic::parse(name, &TopicLimits::STANDARD).unwrap()
}

fn their_qos(qos: QoS) -> mqttbytes::QoS {
    mqttbytes::qos(qos as u8).unwrap()
}

fn ours(version: Version, packet: &Packet) -> BytesMut {
    BytesMut::from(&Codec::client(version, LIMITS).to_bytes(packet)[..])
}

/// As a client reads it.
fn read_by_us(version: Version, bytes: BytesMut) -> Packet {
    let mut bytes = bytes.freeze();
    let packet = Codec::client(version, LIMITS).decode(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    packet
}

/// As a server reads it, after a CONNECT of the version.
fn read_by_our_server(version: Version, bytes: BytesMut) -> Packet {
    let mut codec = Codec::server(LIMITS);
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive_s: 0,
        client_id: "c".into(),
        will: None,
        user_name: None,
        password: None,
        properties: None,
    };
    let mut first = ours(version, &Packet::Connect(Box::new(connect))).freeze();
    codec.decode(&mut first).unwrap().unwrap();
    codec.decode(&mut bytes.freeze()).unwrap().unwrap()
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn text() -> impl Strategy<Value = String> {
    "[a-zäß漢 ]{1,40}"
}

fn bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..400).prop_map(Bytes::from)
}

fn properties() -> impl Strategy<Value = Properties> {
    let user = proptest::collection::vec((text(), text()), 0..4);
    (
        any::<Option<bool>>(),
        any::<Option<u32>>(),
        proptest::option::of(text()),
        proptest::option::of(text()),
        proptest::option::of(bytes()),
        proptest::option::of(1u16..),
        user,
    )
        .prop_map(|(format, expiry, content_type, response, correlation_data, topic_alias, user)| {
            Properties {
                payload_format_indicator: format,
                message_expiry_interval_s: expiry,
                content_type: content_type.map(Into::into),
                response_topic: response.map(Into::into),
                correlation_data,
                topic_alias,
                user: user.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                ..Properties::default()
            }
        })
}

fn publish() -> impl Strategy<Value = Publish> {
    (qos(), any::<bool>(), any::<bool>(), text(), 1u16.., bytes()).prop_map(
        |(qos, dup, retain, name, packet_id, payload)| Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            topic: Some(topic(&name)),
            packet_id: if qos == QoS::AtMostOnce { 0 } else { packet_id },
            properties: None,
            payload,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn publish_3_1_1_both_ways(publish in publish()) {
        let mut bytes = ours(Version::V3_1_1, &Packet::Publish(publish.clone()));
        let v4::Packet::Publish(theirs) = v4::read(&mut bytes, 1 << 20).unwrap() else { panic!("PUBLISH") };
        prop_assert_eq!(theirs.dup, publish.dup);
        prop_assert_eq!(theirs.qos, their_qos(publish.qos));
        prop_assert_eq!(theirs.retain, publish.retain);
        prop_assert_eq!(theirs.topic.as_str(), publish.topic.as_ref().unwrap().as_str());
        prop_assert_eq!(theirs.pkid, publish.packet_id);
        prop_assert_eq!(&theirs.payload, &publish.payload);
        let mut back = BytesMut::new();
        theirs.write(&mut back).unwrap();
        prop_assert_eq!(read_by_us(Version::V3_1_1, back), Packet::Publish(publish));
    }

    #[test]
    fn publish_5_with_properties_both_ways(publish in publish(), said in properties()) {
        let said = (said != Properties::default()).then(|| Box::new(said));
        let publish = Publish { properties: said, ..publish };
        let mut bytes = ours(Version::V5, &Packet::Publish(publish.clone()));
        let v5::Packet::Publish(theirs) = v5::read(&mut bytes, 1 << 20).unwrap() else { panic!("PUBLISH") };
        if let (Some(theirs), Some(said)) = (&theirs.properties, &publish.properties) {
            prop_assert_eq!(theirs.message_expiry_interval, said.message_expiry_interval_s);
            prop_assert_eq!(theirs.topic_alias, said.topic_alias);
            prop_assert_eq!(theirs.user_properties.len(), said.user.len());
        }
        let mut back = BytesMut::new();
        theirs.write(&mut back).unwrap();
        prop_assert_eq!(read_by_us(Version::V5, back), Packet::Publish(publish));
    }

    #[test]
    fn subscribe_both_ways(names in proptest::collection::vec((text(), qos()), 1..5), packet_id in 1u16..) {
        let filters = names
            .iter()
            .map(|(name, qos)| Subscription {
                filter: TopicFilter::parse(name, &TopicLimits::STANDARD),
                qos: *qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Send,
            })
            .collect();
        let packet = Packet::Subscribe(Subscribe { packet_id, properties: None, filters });
        let mut bytes = ours(Version::V3_1_1, &packet);
        let v4::Packet::Subscribe(theirs) = v4::read(&mut bytes, 1 << 20).unwrap() else { panic!("SUBSCRIBE") };
        let mut back = BytesMut::new();
        theirs.write(&mut back).unwrap();
        prop_assert_eq!(&read_by_our_server(Version::V3_1_1, back), &packet);
        let mut bytes = ours(Version::V5, &packet);
        let v5::Packet::Subscribe(theirs) = v5::read(&mut bytes, 1 << 20).unwrap() else { panic!("SUBSCRIBE") };
        let mut back = BytesMut::new();
        theirs.write(&mut back).unwrap();
        prop_assert_eq!(&read_by_our_server(Version::V5, back), &packet);
    }

    #[test]
    fn connect_3_1_1_both_ways(
        client_id in text(),
        keep_alive_s in any::<u16>(),
        clean_start in any::<bool>(),
        will in proptest::option::of((text(), bytes(), qos(), any::<bool>())),
        login in proptest::option::of((text(), text())),
    ) {
        let will = will.map(|(name, payload, qos, retain)| Will {
            topic: topic(&name), payload, qos, retain, properties: None,
        });
        let packet = Packet::Connect(Box::new(Connect {
            version: Version::V3_1_1,
            clean_start,
            keep_alive_s,
            client_id: client_id.into(),
            will,
            user_name: login.as_ref().map(|(user, _)| user.as_str().into()),
            password: login.map(|(_, password)| Bytes::from(password)),
            properties: None,
        }));
        let mut bytes = ours(Version::V3_1_1, &packet);
        let v4::Packet::Connect(theirs) = v4::read(&mut bytes, 1 << 20).unwrap() else { panic!("CONNECT") };
        let mut back = BytesMut::new();
        theirs.write(&mut back).unwrap();
        let read = Codec::server(LIMITS).decode(&mut back.freeze()).unwrap().unwrap();
        prop_assert_eq!(read, packet);
    }
}

/// Any bytes: no panic, and what decodes is encoded to what decodes to the same.
#[test]
fn mutated_packets_never_panic_and_survive_a_round_trip() {
    let seeds: [&[u8]; 6] = [
        b"\x10\x18\0\x04MQTT\x05\xC2\0\x3C\x05\x11\0\0\0\x01\0\x01c\0\x01u\0\x01p",
        b"\x32\x12\0\x01a\0\x01\x0A\x26\0\x01k\0\x01v\x23\0\x01hi",
        b"\x82\x0A\0\x01\x02\x0B\x01\0\x02a#\x2E",
        b"\x40\x08\0\x01\x10\x04\x1F\0\x01r",
        b"\xE0\x07\0\x05\x11\0\0\0\x01",
        b"\xA2\x07\0\x01\0\0\x02a/",
    ];
    // SEC-10, by a generator that needs no seed from outside.
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap()
    };
    let mut decoded = 0;
    for round in 0..50_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..=next() % 3 {
            let at = next() % bytes.len();
            bytes[at] = u8::try_from(next() % 256).unwrap();
        }
        let mut codec = match next() % 3 {
            0 => Codec::server(LIMITS),
            1 => Codec::client(Version::V3_1_1, LIMITS),
            _ => Codec::client(Version::V5, LIMITS),
        };
        let mut bytes = Bytes::from(bytes);
        if let Ok(Some(packet)) = codec.decode(&mut bytes) {
            decoded += 1;
            let again = codec.decode(&mut codec.clone().to_bytes(&packet));
            assert_eq!(again, Ok(Some(packet)));
        }
    }
    assert!(decoded > 1000, "only {decoded} were packets");
}

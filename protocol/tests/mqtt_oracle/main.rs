//! The MQTT codec against two that others wrote, rmqtt's and rumqttc's: every packet that we encode means the same to
//! them, and what they encode of it means the same to us. Every packet type, every property.

#![expect(clippy::unwrap_used, clippy::panic, clippy::unreachable, reason = "a test helper may panic")]

mod packets;
mod rmqtt_v3;
mod rmqtt_v5;
mod rumqttc_v4;
mod rumqttc_v5;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tidegate_protocol::mqtt::packet::{Connect, Packet, PacketType, Publish, ReasonCode, Version};
use tidegate_protocol::mqtt::{Codec, Limits, Role};
use tidegate_protocol::topic::TopicLimits;

use self::packets::{of_mqtt_3, of_mqtt_5};

const LIMITS: Limits = Limits {
    packet_bytes_max: 1 << 20,
    topic: TopicLimits::STANDARD,
    user_properties_max: 100,
    filters_max: 100,
};

/// Reads a packet with the other codec: what it means in our words, and the bytes that the other one writes for it,
/// unless it is known to write them wrongly.
type Oracle = fn(BytesMut) -> (Packet, Option<BytesMut>);

fn check(version: Version, sender: Role, packet: &Packet, oracle: Oracle) -> Result<(), TestCaseError> {
    let ours = BytesMut::from(&Codec::client(version, LIMITS).to_bytes(packet)[..]);
    let (meaning, theirs) = oracle(ours.clone());
    prop_assert_eq!(&meaning, packet, "what they read of {:02X?}", ours);
    let Some(theirs) = theirs else { return Ok(()) };
    let mut codec = reader(version, sender, packet.packet_type());
    let mut bytes = theirs.freeze();
    let read = codec.decode(&mut bytes);
    prop_assert_eq!(read.as_ref(), Ok(&Some(packet.clone())), "what we read of theirs");
    prop_assert!(bytes.is_empty());
    Ok(())
}

/// The other end's codec.
fn reader(version: Version, sender: Role, packet_type: PacketType) -> Codec {
    if sender == Role::Server {
        return Codec::client(version, LIMITS);
    }
    let mut codec = Codec::server(LIMITS);
    if packet_type != PacketType::Connect {
        let mut connect = Codec::client(version, LIMITS).to_bytes(&Packet::Connect(Box::new(Connect {
            version,
            clean_start: true,
            keep_alive_s: 0,
            client_id: "c".into(),
            will: None,
            user_name: None,
            password: None,
            properties: None,
        })));
        codec.decode(&mut connect).unwrap().unwrap();
    }
    codec
}

/// rumqttc cannot read these: AUTH, DISCONNECT without a body, and what stands behind a subscription identifier,
/// each of which it counts a byte too long.
fn rumqttc_reads(packet: &Packet) -> bool {
    match packet {
        Packet::Auth(_) => false,
        Packet::Disconnect(packet) => packet.reason != ReasonCode::SUCCESS || packet.properties.is_some(),
        Packet::Publish(Publish { properties: Some(list), .. }) => {
            let is_last = list.topic_alias.is_none() && list.user.is_empty();
            list.subscription_identifiers.len() <= usize::from(is_last)
        }
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rmqtt_agrees_in_3_1((sender, packet) in of_mqtt_3(Version::V3_1)) {
        check(Version::V3_1, sender, &packet, rmqtt_v3::read)?;
    }

    #[test]
    fn rmqtt_agrees_in_3_1_1((sender, packet) in of_mqtt_3(Version::V3_1_1)) {
        check(Version::V3_1_1, sender, &packet, rmqtt_v3::read)?;
    }

    #[test]
    fn rumqttc_agrees_in_3_1_1((sender, packet) in of_mqtt_3(Version::V3_1_1)) {
        check(Version::V3_1_1, sender, &packet, rumqttc_v4::read)?;
    }

    #[test]
    fn rmqtt_agrees_in_5((sender, packet) in of_mqtt_5()) {
        check(Version::V5, sender, &packet, rmqtt_v5::read)?;
    }

    #[test]
    fn rumqttc_agrees_in_5((sender, packet) in of_mqtt_5()) {
        prop_assume!(rumqttc_reads(&packet));
        check(Version::V5, sender, &packet, rumqttc_v5::read)?;
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
        let mut codec = match next() % 5 {
            0 => Codec::server(LIMITS),
            1 => reader(Version::V3_1_1, Role::Client, PacketType::Publish),
            2 => reader(Version::V5, Role::Client, PacketType::Publish),
            3 => Codec::client(Version::V3_1_1, LIMITS),
            _ => Codec::client(Version::V5, LIMITS),
        };
        let mut fresh = codec.clone();
        let mut bytes = Bytes::from(bytes);
        if let Ok(Some(packet)) = codec.decode(&mut bytes) {
            decoded += 1;
            let again = fresh.decode(&mut codec.to_bytes(&packet));
            assert_eq!(again, Ok(Some(packet)));
        }
    }
    assert!(decoded > 1000, "only {decoded} were packets");
}

//! The MQTT codec as data: golden bytes both ways and at every split, and what each broken packet is called.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test helper may panic")]

use bytes::{Bytes, BytesMut};
use tidegate_protocol::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, Properties, Publish, ReasonCode, SubAck, Subscribe,
    Subscription, Unsubscribe, Version, Will,
};
use tidegate_protocol::mqtt::{Codec, DecodeError, Limits};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::RetainHandling;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

use Version::{V3_1, V3_1_1, V5};

fn limits() -> Limits {
    Limits {
        packet_bytes_max: 4096,
        topic: TopicLimits { bytes_max: 64, levels_max: 8 },
        user_properties_max: 3,
        filters_max: 4,
    }
}

/// A server that has seen CONNECT of this version.
fn server(version: Version) -> Codec {
    let mut codec = Codec::server(limits());
    let mut connect = Codec::client(version, limits()).to_bytes(&Packet::Connect(Box::new(connect(version))));
    codec.decode(&mut connect).unwrap().unwrap();
    codec
}

fn client(version: Version) -> Codec {
    Codec::client(version, limits())
}

fn connect(version: Version) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        client_id: "c".into(),
        will: None,
        user_name: None,
        password: None,
        properties: None,
    }
}

fn topic(name: &str) -> Topic {
    Topic::parse(name, &limits().topic).unwrap()
}

fn filter(name: &str) -> TopicFilter {
    TopicFilter::parse(name, &limits().topic).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn props(properties: Properties) -> Option<Box<Properties>> {
    Some(Box::new(properties))
}

fn publish() -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: Some(topic("a/b")),
        packet_id: 0,
        properties: None,
        payload: Bytes::from_static(b"hi"),
    }
}

/// `bytes` are `packet`, both ways, and while bytes are missing nothing is taken.
fn check(mut decoder: Codec, encoder: &Codec, packet: &Packet, bytes: &str) {
    let bytes = hex(bytes);
    let mut encoded = BytesMut::new();
    encoder.encode(packet, &mut encoded);
    assert_eq!(encoded, bytes, "encoding {packet:?}");
    for split in 0..bytes.len() {
        let mut part = Bytes::copy_from_slice(&bytes[..split]);
        assert_eq!(decoder.clone().decode(&mut part), Ok(None), "{split} bytes of {packet:?}");
        assert_eq!(part.len(), split, "an incomplete packet consumes nothing");
    }
    let mut whole = Bytes::from([&bytes[..], &[0xE0]].concat());
    assert_eq!(decoder.decode(&mut whole).unwrap().as_ref(), Some(packet));
    assert_eq!(&whole[..], [0xE0], "what follows is left");
}

fn check_to_server(version: Version, packet: &Packet, bytes: &str) {
    check(server(version), &client(version), packet, bytes);
}

fn check_to_client(version: Version, packet: &Packet, bytes: &str) {
    check(client(version), &server(version), packet, bytes);
}

#[test]
fn connect_in_each_version() {
    let fresh = || Codec::server(limits());
    let check = |packet: Connect, bytes| {
        let version = packet.version;
        check(fresh(), &client(version), &Packet::Connect(Box::new(packet)), bytes);
    };
    check(connect(V3_1), "10 0F 0006 4D5149736470 03 02 003C 0001 63");
    check(connect(V3_1_1), "10 0D 0004 4D515454 04 02 003C 0001 63");
    check(connect(V5), "10 0E 0004 4D515454 05 02 003C 00 0001 63");
    let will = Will {
        topic: topic("w"),
        payload: Bytes::from_static(b"\xFF"),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: None,
    };
    let full = Connect {
        clean_start: false,
        will: Some(will.clone()),
        user_name: Some("u".into()),
        password: Some(Bytes::from_static(b"\0p")),
        ..connect(V3_1_1)
    };
    check(full.clone(), "10 1A 0004 4D515454 04 EC 003C 0001 63 0001 77 0001 FF 0001 75 0002 0070");
    let properties = props(Properties {
        session_expiry_interval_s: Some(10),
        authentication_method: Some("m".into()),
        authentication_data: Some(Bytes::from_static(b"d")),
        request_problem_information: Some(false),
        request_response_information: Some(true),
        receive_maximum: Some(20),
        topic_alias_maximum: Some(5),
        user: vec![("k".into(), "v".into()), ("k".into(), "v".into())],
        maximum_packet_size: Some(1024),
        ..Properties::default()
    });
    let will_properties = props(Properties {
        payload_format_indicator: Some(false),
        message_expiry_interval_s: Some(7),
        content_type: Some("t".into()),
        response_topic: Some("r".into()),
        correlation_data: Some(Bytes::from_static(b"\x01\x02")),
        will_delay_interval_s: Some(9),
        user: vec![("a".into(), "b".into())],
        ..Properties::default()
    });
    let v5 =
        Connect { version: V5, will: Some(Will { properties: will_properties, ..will }), properties, ..full };
    check(
        v5,
        "10 66 0004 4D515454 05 EC 003C
         2A 11 0000000A 15 0001 6D 16 0001 64 17 00 19 01 21 0014 22 0005 26 0001 6B 0001 76 26 0001 6B 0001 76
            27 00000400
         0001 63
         20 01 00 02 00000007 03 0001 74 08 0001 72 09 0002 0102 18 00000009 26 0001 61 0001 62
         0001 77 0001 FF 0001 75 0002 0070",
    );
    check(
        Connect { password: Some(Bytes::from_static(b"p")), ..connect(V5) },
        "10 11 0004 4D515454 05 42 003C 00 0001 63 0001 70",
    );
}

#[test]
fn connack_in_each_version() {
    let connack = |reason| Packet::ConnAck(ConnAck { session_present: false, reason, properties: None });
    for (reason, code) in [
        (ReasonCode::SUCCESS, "00"),
        (ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, "01"),
        (ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, "02"),
        (ReasonCode::SERVER_UNAVAILABLE, "03"),
        (ReasonCode::BAD_USER_NAME_OR_PASSWORD, "04"),
        (ReasonCode::NOT_AUTHORIZED, "05"),
    ] {
        check_to_client(V3_1_1, &connack(reason), &format!("20 02 00 {code}"));
        check_to_client(V3_1, &connack(reason), &format!("20 02 00 {code}"));
    }
    check_to_client(V5, &connack(ReasonCode::SERVER_BUSY), "20 03 00 89 00");
    let properties = props(Properties {
        session_expiry_interval_s: Some(1),
        assigned_client_identifier: Some("x".into()),
        server_keep_alive_s: Some(30),
        authentication_method: Some("m".into()),
        authentication_data: Some(Bytes::new()),
        response_information: Some("i".into()),
        server_reference: Some("s".into()),
        reason_string: Some("r".into()),
        receive_maximum: Some(2),
        topic_alias_maximum: Some(3),
        maximum_qos: Some(true),
        retain_available: Some(false),
        user: vec![("a".into(), "".into())],
        maximum_packet_size: Some(4),
        wildcard_subscription_available: Some(true),
        subscription_identifiers_available: Some(true),
        shared_subscription_available: Some(false),
        ..Properties::default()
    });
    let packet = Packet::ConnAck(ConnAck { session_present: true, reason: ReasonCode::SUCCESS, properties });
    check_to_client(
        V5,
        &packet,
        "20 3D 01 00 3A 11 00000001 12 0001 78 13 001E 15 0001 6D 16 0000 1A 0001 69 1C 0001 73 1F 0001 72
         21 0002 22 0003 24 01 25 00 26 0001 61 0000 27 00000004 28 01 29 01 2A 00",
    );
}

#[test]
fn publish_in_each_version_and_direction() {
    for version in [V3_1, V3_1_1] {
        check_to_server(version, &Packet::Publish(publish()), "30 07 0003 612F62 6869");
        check_to_client(version, &Packet::Publish(publish()), "30 07 0003 612F62 6869");
    }
    let acknowledged =
        Publish { dup: true, qos: QoS::AtLeastOnce, retain: true, packet_id: 258, ..publish() };
    check_to_server(V3_1_1, &Packet::Publish(acknowledged.clone()), "3B 09 0003 612F62 0102 6869");
    check_to_server(V5, &Packet::Publish(acknowledged), "3B 0A 0003 612F62 0102 00 6869");
    let empty = Publish { qos: QoS::ExactlyOnce, packet_id: 1, payload: Bytes::new(), ..publish() };
    check_to_server(V5, &Packet::Publish(empty), "34 08 0003 612F62 0001 00");
    let properties = Properties {
        payload_format_indicator: Some(true),
        message_expiry_interval_s: Some(2),
        content_type: Some("t".into()),
        response_topic: Some("r".into()),
        correlation_data: Some(Bytes::from_static(b"c")),
        topic_alias: Some(9),
        user: vec![("k".into(), "v".into())],
        ..Properties::default()
    };
    let from_client = Publish { properties: props(properties.clone()), ..publish() };
    let list = "01 01 02 00000002 03 0001 74 08 0001 72 09 0001 63";
    check_to_server(
        V5,
        &Packet::Publish(from_client),
        &format!("30 25 0003 612F62 1D {list} 23 0009 26 0001 6B 0001 76 6869"),
    );
    let from_server = Publish {
        properties: props(Properties { subscription_identifiers: vec![1, 268_435_455], ..properties }),
        ..publish()
    };
    check_to_client(
        V5,
        &Packet::Publish(from_server),
        &format!("30 2C 0003 612F62 24 {list} 0B 01 0B FFFFFF7F 23 0009 26 0001 6B 0001 76 6869"),
    );
    let aliased = Publish {
        topic: None,
        properties: props(Properties { topic_alias: Some(1), ..Properties::default() }),
        ..publish()
    };
    check_to_server(V5, &Packet::Publish(aliased), "30 08 0000 03 23 0001 6869");
}

#[test]
fn a_payload_is_a_slice_of_the_packet() {
    let mut bytes = Bytes::from(hex("30 07 0003 612F62 6869"));
    let at = bytes.as_ptr() as usize + 7;
    let Some(Packet::Publish(publish)) = server(V3_1_1).decode(&mut bytes).unwrap() else { unreachable!() };
    assert_eq!(publish.payload.as_ptr() as usize, at);
}

#[test]
fn acknowledgements_in_each_version_and_direction() {
    type Make = fn(Ack) -> Packet;
    let kinds: [(Make, &str, ReasonCode); 4] = [
        (Packet::PubAck, "40", ReasonCode::NO_MATCHING_SUBSCRIBERS),
        (Packet::PubRec, "50", ReasonCode::QUOTA_EXCEEDED),
        (Packet::PubRel, "62", ReasonCode::PACKET_IDENTIFIER_NOT_FOUND),
        (Packet::PubComp, "70", ReasonCode::PACKET_IDENTIFIER_NOT_FOUND),
    ];
    for (make, first, reason) in kinds {
        let properties = props(Properties {
            reason_string: Some("r".into()),
            user: vec![("a".into(), "b".into())],
            ..Properties::default()
        });
        let with = make(Ack { packet_id: 1, reason, properties });
        for check in [check_to_server, check_to_client] {
            for version in [V3_1, V3_1_1, V5] {
                check(version, &make(Ack::new(0x1234, ReasonCode::SUCCESS)), &format!("{first} 02 1234"));
            }
            check(V5, &make(Ack::new(1, reason)), &format!("{first} 03 0001 {:02X}", reason.0));
            let bytes = format!("{first} 0F 0001 {:02X} 0B 1F 0001 72 26 0001 61 0001 62", reason.0);
            check(V5, &with, &bytes);
        }
    }
}

#[test]
fn subscribe_and_its_answers_in_each_version() {
    let plain = |name: &str, qos| Subscription {
        filter: Ok(filter(name)),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    let filters = vec![plain("a/+", QoS::AtMostOnce), plain("#", QoS::ExactlyOnce)];
    let subscribe = Packet::Subscribe(Subscribe { packet_id: 7, properties: None, filters });
    check_to_server(V3_1, &subscribe, "82 0C 0007 0003 612F2B 00 0001 23 02");
    check_to_server(V3_1_1, &subscribe, "82 0C 0007 0003 612F2B 00 0001 23 02");
    check_to_server(V5, &subscribe, "82 0D 0007 00 0003 612F2B 00 0001 23 02");
    let filters = vec![
        Subscription { no_local: true, retain_as_published: true, ..plain("a", QoS::AtLeastOnce) },
        Subscription { retain_handling: RetainHandling::SendIfNew, ..plain("b", QoS::AtMostOnce) },
        Subscription { retain_handling: RetainHandling::Skip, ..plain("c", QoS::AtMostOnce) },
    ];
    let properties = props(Properties {
        subscription_identifiers: vec![128],
        user: vec![("k".into(), "v".into())],
        ..Properties::default()
    });
    let subscribe = Packet::Subscribe(Subscribe { packet_id: 1, properties, filters });
    check_to_server(
        V5,
        &subscribe,
        "82 19 0001 0A 0B 8001 26 0001 6B 0001 76 0001 61 0D 0001 62 10 0001 63 20",
    );
    let reasons = vec![ReasonCode::SUCCESS, ReasonCode::GRANTED_QOS_1, ReasonCode::UNSPECIFIED_ERROR];
    let suback = Packet::SubAck(SubAck { packet_id: 7, properties: None, reasons });
    check_to_client(V3_1_1, &suback, "90 05 0007 00 01 80");
    check_to_client(V5, &suback, "90 06 0007 00 00 01 80");
    let filters = vec![Ok(filter("a")), Ok(filter("b/#"))];
    let unsubscribe = Packet::Unsubscribe(Unsubscribe { packet_id: 8, properties: None, filters });
    check_to_server(V3_1_1, &unsubscribe, "A2 0A 0008 0001 61 0003 622F23");
    check_to_server(V5, &unsubscribe, "A2 0B 0008 00 0001 61 0003 622F23");
    let unsuback = |reasons| Packet::UnsubAck(SubAck { packet_id: 8, properties: None, reasons });
    check_to_client(V3_1_1, &unsuback(vec![]), "B0 02 0008");
    let reasons = vec![ReasonCode::SUCCESS, ReasonCode::NO_SUBSCRIPTION_EXISTED];
    check_to_client(V5, &unsuback(reasons), "B0 05 0008 00 00 11");
}

#[test]
fn pings_disconnect_and_auth() {
    let success = Disconnect { reason: ReasonCode::SUCCESS, properties: None };
    for version in [V3_1, V3_1_1, V5] {
        check_to_server(version, &Packet::PingReq, "C0 00");
        check_to_client(version, &Packet::PingResp, "D0 00");
        check_to_server(version, &Packet::Disconnect(success.clone()), "E0 00");
    }
    let will = Disconnect { reason: ReasonCode::DISCONNECT_WITH_WILL, properties: None };
    check_to_server(V5, &Packet::Disconnect(will.clone()), "E0 02 04 00");
    let mut short = Bytes::from(hex("E0 01 04"));
    assert_eq!(server(V5).decode(&mut short), Ok(Some(Packet::Disconnect(will))));
    let properties = props(Properties { session_expiry_interval_s: Some(5), ..Properties::default() });
    let expiry = Disconnect { reason: ReasonCode::SUCCESS, properties };
    check_to_server(V5, &Packet::Disconnect(expiry), "E0 07 00 05 11 00000005");
    let properties = props(Properties {
        server_reference: Some("s".into()),
        reason_string: Some("r".into()),
        user: vec![("a".into(), "b".into())],
        ..Properties::default()
    });
    let moved = Disconnect { reason: ReasonCode::SERVER_MOVED, properties };
    check_to_client(V5, &Packet::Disconnect(moved), "E0 11 9D 0F 1C 0001 73 1F 0001 72 26 0001 61 0001 62");
    let properties = props(Properties {
        authentication_method: Some("m".into()),
        authentication_data: Some(Bytes::from_static(b"d")),
        ..Properties::default()
    });
    let auth = Packet::Auth(Disconnect { reason: ReasonCode::CONTINUE_AUTHENTICATION, properties });
    check_to_server(V5, &auth, "F0 0A 18 08 15 0001 6D 16 0001 64");
    check_to_client(V5, &auth, "F0 0A 18 08 15 0001 6D 16 0001 64");
    check_to_client(V5, &Packet::Auth(success), "F0 00");
}

/// The packet is refused, with this code.
fn check_refused(mut decoder: Codec, bytes: &[u8], reason: ReasonCode) {
    let decoded = decoder.decode(&mut Bytes::copy_from_slice(bytes));
    match decoded {
        Err(error) => assert_eq!(error.reason(), reason, "{bytes:02X?}: {error}"),
        Ok(packet) => panic!("{bytes:02X?} is taken for {packet:?}"),
    }
}

const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;

#[test]
fn refuses_every_wrong_first_byte() {
    for version in [V3_1_1, V5] {
        for first in 0u8..=255 {
            let (kind, flags) = (first >> 4, first & 0x0F);
            let required = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
            let expected = match kind {
                0 => Some(MALFORMED),
                3 => None,
                _ if flags != required => Some(MALFORMED),
                2 | 9 | 11 | 13 => Some(PROTOCOL),
                15 if version == V3_1_1 => Some(MALFORMED),
                _ => None,
            };
            if let Some(reason) = expected {
                check_refused(server(version), &[first], reason);
                check_refused(server(version), &[first, 0x80], reason);
            }
        }
    }
}

#[test]
fn refuses_what_its_bytes_show_to_be_wrong() {
    for (version, bytes, reason) in [
        // Remaining length.
        (V5, "C0 80808080 01", MALFORMED),
        (V5, "C0 FFFFFFFF", MALFORMED),
        (V3_1_1, "C0 80808080", MALFORMED),
        (V5, "C0 8000", MALFORMED),
        (V5, "40 8200 0001", MALFORMED),
        (V5, "30 FFFFFF7F", ReasonCode::PACKET_TOO_LARGE),
        (V3_1_1, "30 FE1F", ReasonCode::PACKET_TOO_LARGE),
        (V5, "C0 01 00", MALFORMED),
        (V3_1_1, "E0 01 00", MALFORMED),
        // PUBLISH.
        (V5, "36 08 0001 61 0001 00 6869", MALFORMED),
        (V3_1_1, "36 07 0001 61 0001 6869", MALFORMED),
        (V5, "38 06 0001 61 00 6869", MALFORMED),
        (V3_1_1, "38 05 0001 61 6869", MALFORMED),
        (V3_1_1, "32 05 0001 61 0000", PROTOCOL),
        (V5, "32 06 0001 61 0000 00", PROTOCOL),
        (V3_1_1, "32 04 0001 61 00", MALFORMED),
        (V3_1_1, "30 02 0001", MALFORMED),
        (V3_1_1, "30 00", MALFORMED),
        (V5, "30 03 0001 61", MALFORMED),
        (V3_1_1, "30 02 0000", MALFORMED),
        (V5, "30 03 0000 00", PROTOCOL),
        (V5, "30 04 0001 2B 00", ReasonCode::TOPIC_NAME_INVALID),
        (V5, "30 04 0001 23 00", ReasonCode::TOPIC_NAME_INVALID),
        (V3_1_1, "30 05 0003 612F23", ReasonCode::TOPIC_NAME_INVALID),
        (V5, "30 04 0001 00 00", MALFORMED),
        (V5, "30 06 0003 EDA080 00", MALFORMED),
        (V5, "30 06 0003 EDBFBF 00", MALFORMED),
        (V5, "30 05 0002 C080 00", MALFORMED),
        (V5, "30 04 0001 FF 00", MALFORMED),
        (V3_1_1, "30 03 0001 80", MALFORMED),
        (V5, "30 0C 0009 2F2F2F2F2F2F2F2F2F 00", ReasonCode::TOPIC_NAME_INVALID),
        // Property lists of PUBLISH.
        (V5, "30 05 0001 61 01 01", MALFORMED),
        (V5, "30 04 0001 61 01", MALFORMED),
        (V5, "30 05 0001 61 8000", MALFORMED),
        (V5, "30 06 0001 61 02 0102", PROTOCOL),
        (V5, "30 08 0001 61 04 0100 0100", PROTOCOL),
        (V5, "30 0A 0001 61 06 23 0001 23 0001", PROTOCOL),
        (V5, "30 06 0001 61 02 0B01", PROTOCOL),
        (V5, "30 06 0001 61 02 2401", MALFORMED),
        (V5, "30 06 0001 61 02 0001", MALFORMED),
        (V5, "30 06 0001 61 02 7F01", MALFORMED),
        (V5, "30 07 0001 61 03 810101", MALFORMED),
        (V5, "30 08 0001 61 04 2600 0000", MALFORMED),
        (V5, "30 0A 0001 61 06 26 0001 00 0000", MALFORMED),
        (V5, "30 08 0001 61 04 03 0001 00", MALFORMED),
        (V5, "30 08 0001 61 04 03 0001 FF", MALFORMED),
        (V5, "30 18 0001 61 14 26 00000000 26 00000000 26 00000000 26 00000000", ReasonCode::QUOTA_EXCEEDED),
        // Acknowledgements.
        (V5, "40 02 0000", PROTOCOL),
        (V3_1_1, "40 02 0000", PROTOCOL),
        (V3_1_1, "40 03 0001 00", MALFORMED),
        (V5, "40 01 00", MALFORMED),
        (V5, "40 00", MALFORMED),
        (V5, "40 03 0001 92", PROTOCOL),
        (V5, "40 03 0001 FF", PROTOCOL),
        (V5, "50 03 0001 01", PROTOCOL),
        (V5, "62 03 0001 10", PROTOCOL),
        (V5, "62 02 0000", PROTOCOL),
        (V5, "70 03 0001 80", PROTOCOL),
        (V5, "40 05 0001 00 00 00", MALFORMED),
        (V5, "40 06 0001 00 02 1701", MALFORMED),
        // SUBSCRIBE.
        (V5, "82 03 0001 00", PROTOCOL),
        (V3_1_1, "82 02 0001", PROTOCOL),
        (V3_1_1, "82 06 0000 0001 61 00", PROTOCOL),
        (V5, "82 07 0000 00 0001 61 00", PROTOCOL),
        (V3_1_1, "82 06 0001 0001 61 03", MALFORMED),
        (V3_1_1, "82 06 0001 0001 61 04", MALFORMED),
        (V3_1_1, "82 06 0001 0001 61 80", MALFORMED),
        (V5, "82 07 0001 00 0001 61 03", PROTOCOL),
        (V5, "82 07 0001 00 0001 61 30", PROTOCOL),
        (V5, "82 07 0001 00 0001 61 40", MALFORMED),
        (V5, "82 07 0001 00 0001 61 80", MALFORMED),
        (V5, "82 06 0001 00 0001 61", MALFORMED),
        (V3_1_1, "82 05 0001 0000 00", MALFORMED),
        (V5, "82 09 0001 00 0003 612361 00", MALFORMED),
        (V5, "82 0B 0001 00 0005 612F232F62 00", MALFORMED),
        (V5, "82 08 0001 00 0002 612B 00", MALFORMED),
        (V5, "82 09 0001 02 0B00 0001 61 00", PROTOCOL),
        (V5, "82 0B 0001 04 0B01 0B02 0001 61 00", PROTOCOL),
        (V5, "82 09 0001 02 2300 0001 61 00", MALFORMED),
        (V5, "82 10 0001 00 000A 2473686172652F672F61 04", PROTOCOL),
        // UNSUBSCRIBE.
        (V5, "A2 03 0001 00", PROTOCOL),
        (V3_1_1, "A2 02 0001", PROTOCOL),
        (V3_1_1, "A2 05 0000 0001 61", PROTOCOL),
        (V5, "A2 08 0001 02 0B01 0001 61", MALFORMED),
        (V3_1_1, "A2 06 0001 0002 6123", MALFORMED),
        // DISCONNECT and AUTH.
        (V5, "E0 01 01", PROTOCOL),
        (V5, "E0 01 FF", PROTOCOL),
        (V5, "E0 01 8B", PROTOCOL),
        (V5, "E0 02 8E 00", PROTOCOL),
        (V5, "E0 07 00 05 1C 0002 6161", PROTOCOL),
        (V5, "E0 04 00 02 1701", MALFORMED),
        (V5, "F0 01 80", PROTOCOL),
        (V5, "F0 00", PROTOCOL),
        (V5, "F0 01 18", PROTOCOL),
        (V5, "F0 02 00 00", PROTOCOL),
        (V5, "10 00", PROTOCOL),
        (V3_1_1, "10 0E 0004 4D515454 05 02 003C 00 0001 63", PROTOCOL),
        (V5, "F0 06 18 04 16 0001 64", PROTOCOL),
        (V5, "F0 06 18 04 1C 0001 64", MALFORMED),
    ] {
        check_refused(server(version), &hex(bytes), reason);
    }
}

#[test]
fn refuses_broken_connects() {
    let version = ReasonCode::UNSUPPORTED_PROTOCOL_VERSION;
    for (bytes, reason) in [
        ("10 0D 0004 4D515458 04 02 003C 0001 63", MALFORMED),
        ("10 0D 0004 6D717474 04 02 003C 0001 63", MALFORMED),
        ("10 0D 0004 4D515454 03 02 003C 0001 63", version),
        ("10 0D 0004 4D515454 06 02 003C 0001 63", version),
        ("10 0D 0004 4D515454 84 02 003C 0001 63", version),
        ("10 0F 0006 4D5149736470 04 02 003C 0001 63", version),
        ("10 0D 0004 4D515454 04 03 003C 0001 63", MALFORMED),
        ("10 0E 0004 4D515454 05 03 003C 00 0001 63", MALFORMED),
        ("10 0D 0004 4D515454 04 0A 003C 0001 63", MALFORMED),
        ("10 0D 0004 4D515454 04 22 003C 0001 63", MALFORMED),
        ("10 13 0004 4D515454 04 1E 003C 0001 63 0001 77 0001 6D", MALFORMED),
        ("10 10 0004 4D515454 04 42 003C 0001 63 0001 70", MALFORMED),
        ("10 0D 0004 4D515454 04 82 003C 0001 63", MALFORMED),
        ("10 0D 0004 4D515454 04 06 003C 0001 63", MALFORMED),
        ("10 0E 0004 4D515454 04 02 003C 0001 63 00", MALFORMED),
        ("10 0A 0004 4D515454 04 02 003C", MALFORMED),
        ("10 06 0004 4D515454", MALFORMED),
        ("10 00", MALFORMED),
        ("10 0D 0004 4D515454 04 02 003C 0001 00", MALFORMED),
        ("10 8E00 0004 4D515454 05 02 003C 00 0001 63", MALFORMED),
        ("10 10 0004 4D515454 05 02 003C 02 1702 0001 63", PROTOCOL),
        ("10 10 0004 4D515454 05 02 003C 02 1902 0001 63", PROTOCOL),
        ("10 11 0004 4D515454 05 02 003C 03 210000 0001 63", PROTOCOL),
        ("10 13 0004 4D515454 05 02 003C 05 2700000000 0001 63", PROTOCOL),
        ("10 18 0004 4D515454 05 02 003C 0A 1100000001 1100000001 0001 63", PROTOCOL),
        ("10 12 0004 4D515454 05 02 003C 04 16 0001 64 0001 63", PROTOCOL),
        ("10 13 0004 4D515454 05 02 003C 05 1800000001 0001 63", MALFORMED),
        ("10 10 0004 4D515454 05 02 003C 02 2401 0001 63", MALFORMED),
        ("10 16 0004 4D515454 05 06 003C 00 0001 63 02 0102 0001 77 0000", PROTOCOL),
        ("10 17 0004 4D515454 05 06 003C 00 0001 63 03 230001 0001 77 0000", MALFORMED),
        ("10 14 0004 4D515454 05 06 003C 00 0001 63 00 0001 2B 0000", ReasonCode::TOPIC_NAME_INVALID),
    ] {
        check_refused(Codec::server(limits()), &hex(bytes), reason);
    }
}

#[test]
fn refuses_broken_packets_of_a_server() {
    for (version, bytes, reason) in [
        (V5, "20 03 02 00 00", MALFORMED),
        (V5, "20 03 01 80 00", PROTOCOL),
        (V5, "20 03 00 8B 00", PROTOCOL),
        (V3_1_1, "20 02 00 06", PROTOCOL),
        (V3_1_1, "90 03 0001 03", MALFORMED),
        (V3_1_1, "90 02 0001", PROTOCOL),
        (V5, "90 04 0001 00 03", PROTOCOL),
        (V5, "B0 03 0001 00", PROTOCOL),
        (V5, "B0 04 0001 00 01", PROTOCOL),
        (V5, "E0 07 00 05 1100000001", PROTOCOL),
        (V3_1_1, "E0 00", PROTOCOL),
        (V5, "10 00", PROTOCOL),
        (V5, "82 00", PROTOCOL),
        (V5, "A2 00", PROTOCOL),
        (V5, "C0 00", PROTOCOL),
        (V5, "E0 01 04", PROTOCOL),
        (V5, "F0 06 19 04 15 0001 6D", PROTOCOL),
        (V5, "F0 01 18", PROTOCOL),
    ] {
        check_refused(client(version), &hex(bytes), reason);
    }
}

/// Table 2-4 of MQTT 5: every property in every packet, against the places named there.
#[test]
fn a_property_stands_only_where_table_2_4_has_it() {
    let value = |id: u8| match id {
        0x01 | 0x17 | 0x19 => "00",
        0x02 | 0x11 | 0x18 | 0x27 => "00000001",
        0x0B | 0x24 | 0x25 | 0x28..=0x2A => "01",
        0x13 | 0x21..=0x23 => "0001",
        0x26 => "00000000",
        _ => "000161",
    };
    let places: [(&str, &str, &str, &[u8]); 8] = [
        ("10", "0004 4D515454 05 02 003C", "0001 63", &[0x11, 0x15, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]),
        (
            "10",
            "0004 4D515454 05 06 003C 00 0001 63",
            "0001 77 0000",
            &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26],
        ),
        ("30", "0001 61", "", &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26]),
        ("40", "0001 00", "", &[0x1F, 0x26]),
        ("82", "0001", "0001 61 00", &[0x0B, 0x26]),
        ("A2", "0001", "0001 61", &[0x26]),
        ("E0", "00", "", &[0x11, 0x1F, 0x26]),
        ("F0", "18", "", &[0x15, 0x16, 0x1F, 0x26]),
    ];
    for (first, before, after, allowed) in places {
        for id in 0u8..0x80 {
            // AUTH needs its method before all else.
            let method = if first == "F0" && id != 0x15 { "15 0001 6D" } else { "" };
            let property = format!("{method}{id:02X}{}", value(id));
            let body =
                [hex(before), vec![u8::try_from(hex(&property).len()).unwrap()], hex(&property), hex(after)]
                    .concat();
            let bytes = [hex(first), vec![u8::try_from(body.len()).unwrap()], body].concat();
            let decoder = if first == "10" { Codec::server(limits()) } else { server(V5) };
            if allowed.contains(&id) {
                let decoded = decoder.clone().decode(&mut Bytes::from(bytes.clone()));
                assert!(matches!(decoded, Ok(Some(_))), "{bytes:02X?}: {decoded:?}");
            } else {
                let from_the_wrong_end = matches!((first, id), ("30", 0x0B) | ("E0", 0x1C));
                let without_method = id == 0x16 && (first, after) == ("10", "0001 63");
                let reason = if from_the_wrong_end || without_method { PROTOCOL } else { MALFORMED };
                check_refused(decoder, &bytes, reason);
            }
        }
    }
}

/// Whatever a packet claims of its fields, cutting its body anywhere gives no valid packet by accident that
/// reads beyond the end, and never a panic.
#[test]
fn a_body_cut_short_is_malformed() {
    for (first, body, shortest) in [
        (0x82u8, "0007 00 0003 612F2B 00", 9usize),
        (0xA2, "0008 00 0003 622F23", 8),
        (0x32, "0003 612F62 0102 05 02 00000007", 13),
        (0x10, "0004 4D515454 05 C2 003C 05 1100000001 0001 63 0001 75 0001 70", 25),
    ] {
        let body = hex(body);
        for cut in 0..body.len().min(shortest) {
            let bytes = [&[first, u8::try_from(cut).unwrap()], &body[..cut]].concat();
            let mut codec = if first == 0x10 { Codec::server(limits()) } else { server(V5) };
            let error = codec.decode(&mut Bytes::from(bytes)).unwrap_err();
            assert!(matches!(error, DecodeError::Malformed(_) | DecodeError::Protocol(_)), "{cut}: {error}");
        }
    }
}

#[test]
fn mqtt_3_takes_a_padded_remaining_length() {
    let mut bytes = Bytes::from(hex("C0 8000"));
    assert_eq!(server(V3_1_1).decode(&mut bytes), Ok(Some(Packet::PingReq)));
}

#[test]
fn mqtt_3_1_takes_a_resent_subscribe() {
    let mut bytes = Bytes::from(hex("8A 06 0001 0001 61 00"));
    assert!(matches!(server(V3_1).decode(&mut bytes), Ok(Some(Packet::Subscribe(_)))));
}

#[test]
fn mqtt_3_1_takes_a_connect_without_the_promised_name() {
    let mut bytes = Bytes::from(hex("10 0F 0006 4D5149736470 03 C2 003C 0001 63"));
    let Ok(Some(Packet::Connect(connect))) = Codec::server(limits()).decode(&mut bytes) else {
        unreachable!()
    };
    assert_eq!((connect.user_name, connect.password), (None, None));
}

#[test]
fn a_filter_beyond_our_limits_is_refused_alone() {
    let mut bytes = Bytes::from(hex("82 13 0001 00 0009 2F2F2F2F2F2F2F2F2F 00 0001 61 00"));
    let Ok(Some(Packet::Subscribe(subscribe))) = server(V5).decode(&mut bytes) else { unreachable!() };
    assert!(subscribe.filters[0].filter.is_err());
    assert!(subscribe.filters[1].filter.is_ok());
}

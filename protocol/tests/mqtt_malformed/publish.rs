//! PUBLISH: flags, topic names, aliases, identifiers, payload formats and windows. Spec: OASIS MQTT 5.0 §3.3, §4.7;
//! 3.1.1 §3.3.

use tidegate_protocol::mqtt::packet::{ReasonCode, Version};

use crate::case::{Case, Expected, MALFORMED, PROTOCOL, VERSIONS, field, hex, list, packet};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        flags(version, &mut cases);
        topics(version, &mut cases);
        for (first, name) in [(0x32, "QoS 1"), (0x34, "QoS 2"), (0x3A, "QoS 1, DUP"), (0x3C, "QoS 2, DUP")] {
            let body = [&field(b"a")[..], &[0, 0], &list(version, &[]), b"x"].concat();
            let rule = "[MQTT-2.2.1-3], 3.1.1 [MQTT-2.3.1-1]: a packet identifier is not 0";
            let name = format!("packet identifier 0 at {name}");
            cases.push(Case::online(version, name, packet(first, &body), Expected::Ends(PROTOCOL), rule));
        }
    }
    cases.extend(of_mqtt_5());
    cases
}

fn flags(version: Version, cases: &mut Vec<Case>) {
    for flags in 0u8..=15 {
        let (dup, qos) = (flags & 0x08 != 0, flags >> 1 & 0x03);
        let packet_id: &[u8] = if qos == 0 { &[] } else { &[0, 1] };
        let body = [&field(b"a")[..], packet_id, &list(version, &[]), b"x"].concat();
        let (expected, rule) = match (dup, qos) {
            (_, 3) => (Expected::Ends(MALFORMED), "[MQTT-3.3.1-4]: QoS 3"),
            (true, 0) => (Expected::Ends(MALFORMED), "[MQTT-3.3.1-2]: DUP is 0 at QoS 0"),
            _ => (Expected::Taken, "§3.3.1"),
        };
        let name = format!("flags {flags:X}");
        cases.push(Case::online(version, name, packet(0x30 | flags, &body), expected, rule));
    }
}

fn publish(version: Version, topic: &[u8], properties: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&field(topic)[..], &list(version, properties), payload].concat())
}

fn topics(version: Version, cases: &mut Vec<Case>) {
    let mut push = |name: &str, topic: &[u8], reason, rule| {
        let bytes = publish(version, topic, &[], b"x");
        cases.push(Case::online(version, name, bytes, Expected::Ends(reason), rule));
    };
    for topic in ["+", "#", "a/+", "a/#", "+/a", "a/+/b", "a+", "a#b", "/#", "$SYS/#"] {
        push(
            "a wildcard in the topic name",
            topic.as_bytes(),
            ReasonCode::TOPIC_NAME_INVALID,
            "[MQTT-3.3.2-2]: no wildcards",
        );
    }
    // In MQTT 5 an alias may stand for it, so that an empty name alone can be parsed.
    let empty = if version == Version::V5 { PROTOCOL } else { MALFORMED };
    push("no topic name", b"", empty, "§3.3.2.1: neither name nor alias; 3.1.1 [MQTT-4.7.3-1]");
    let rule = "§4.13: 0x90 is for a name that is well-formed and not accepted";
    push("129 levels", "/".repeat(128).as_bytes(), ReasonCode::TOPIC_NAME_INVALID, rule);
    push("4097 bytes", &[b'a'; 4097], ReasonCode::TOPIC_NAME_INVALID, rule);
}

fn of_mqtt_5() -> Vec<Case> {
    let alias_invalid = ReasonCode::TOPIC_ALIAS_INVALID;
    let not_utf8 = ReasonCode::PAYLOAD_FORMAT_INVALID;
    let mut cases = Vec::new();
    let mut push = |name: &str, topic: &[u8], properties: &str, payload: &[u8], reason, rule| {
        let bytes = publish(Version::V5, topic, &hex(properties), payload);
        cases.push(Case::online(Version::V5, name, bytes, Expected::Ends(reason), rule));
    };
    let rule = "[MQTT-3.3.2-8], [MQTT-3.3.2-9]: an alias is from 1 to the Topic Alias Maximum, here 16";
    for alias in ["0000", "0011", "00FF", "0100", "FFFF"] {
        push("an alias out of range", b"a", &format!("23 {alias}"), b"x", alias_invalid, rule);
        push("an alias out of range alone", b"", &format!("23 {alias}"), b"x", alias_invalid, rule);
    }
    for alias in ["0001", "0002", "0010"] {
        let rule = "§3.3.2.3.4: an alias without a mapping is a protocol error";
        push("an alias never set", b"", &format!("23 {alias}"), b"x", PROTOCOL, rule);
    }
    for identifier in ["0B 01", "0B 7F", "0B FFFFFF7F", "0B 01 0B 02"] {
        let rule = "[MQTT-3.3.4-6]: no subscription identifier from a client";
        push("a subscription identifier", b"a", identifier, b"x", PROTOCOL, rule);
    }
    for topic in ["2B", "23", "612F2B", "612F23", "6123"] {
        let properties = format!("08 00{:02X} {topic}", topic.len() / 2);
        let rule = "[MQTT-3.3.2-14]: no wildcard in the response topic";
        push("a wildcard in the response topic", b"a", &properties, b"x", PROTOCOL, rule);
    }
    for payload in [&b"\xFF"[..], b"\xC0\x80", b"\xED\xA0\x80", b"ok\x80"] {
        let rule = "§3.3.2.3.2: a payload that is not the text it says may be refused with 0x99";
        push("not the text that it says", b"a", "01 01", payload, not_utf8, rule);
    }
    let user_properties = "26 0000 0000".repeat(101);
    push("101 user properties", b"a", &user_properties, b"x", ReasonCode::QUOTA_EXCEEDED, "SEC-15: 100");
    cases.push(too_many_unacknowledged());
    cases
}

fn too_many_unacknowledged() -> Case {
    let bytes: Vec<u8> = (1u16..=257)
        .flat_map(|id| packet(0x32, &[&field(b"a")[..], &id.to_be_bytes(), &[0], b"x"].concat()))
        .collect();
    let expected = Expected::Ends(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED);
    let rule = "[MQTT-3.3.4-9]: not above the Receive Maximum, here 256";
    Case::online(Version::V5, "257 publishes that wait for PUBACK", bytes, expected, rule)
}

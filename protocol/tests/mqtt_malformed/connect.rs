//! CONNECT: name, level, flags, fields that flags promise, client identifiers. Spec: OASIS MQTT 5.0 §3.1; 3.1.1 §3.1;
//! MQTT 3.1 §3.1.

use tidegate_protocol::mqtt::packet::{ReasonCode, Version};

use crate::case::{Case, Expected, MALFORMED, PROTOCOL, VERSIONS, connect_head, field, hex, list, packet};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = names_and_levels();
    for version in VERSIONS {
        for flags in 0..=0xFF {
            cases.push(flag_case(version, flags));
        }
        client_ids(version, &mut cases);
        wills(version, &mut cases);
        seconds(version, &mut cases);
    }
    cases.extend(properties_of_authentication());
    cases
}

fn names_and_levels() -> Vec<Case> {
    let mut cases = Vec::new();
    let rule = "[MQTT-3.1.2-1]: the protocol name is MQTT";
    for name in ["MQTQ", "mqtt", "Mqtt", "MQT", "MQTTT", "", "MQIsd", "MQISDP", "MQTT ", "HTTP"] {
        for level in [3, 4, 5] {
            let body = [&field(name.as_bytes())[..], &[level, 0x02, 0, 60, 0, 1, b'c']].concat();
            let bytes = packet(0x10, &body);
            cases.push(Case::first(
                Version::V3_1_1,
                format!("name {name:?}"),
                bytes,
                Expected::EndsUnsaid,
                rule,
            ));
        }
    }
    let rule = "[MQTT-3.1.2-2]: an unsupported level gets CONNACK 0x01, in the form of MQTT 5 0x84";
    let expected = Expected::Ends(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
    // A later version is answered in the latest form that is known; 0x83 and 0x84 are those of bridges.
    for (name, level, form) in [
        ("MQTT", 0, Version::V3_1_1),
        ("MQTT", 1, Version::V3_1_1),
        ("MQTT", 2, Version::V3_1_1),
        ("MQTT", 3, Version::V3_1_1),
        ("MQTT", 0x84, Version::V3_1_1),
        ("MQTT", 0xFF, Version::V3_1_1),
        ("MQTT", 6, Version::V5),
        ("MQTT", 7, Version::V5),
        ("MQTT", 0x7F, Version::V5),
        ("MQIsdp", 2, Version::V3_1_1),
        ("MQIsdp", 4, Version::V3_1_1),
        ("MQIsdp", 0x83, Version::V3_1_1),
    ] {
        let body = [&field(name.as_bytes())[..], &[level, 0x02, 0, 60, 0, 1, b'c']].concat();
        cases.push(Case::first(form, format!("{name} {level}"), packet(0x10, &body), expected, rule));
    }
    cases
}

/// Every combination of flags, each with the fields that it promises.
fn flag_case(version: Version, flags: u8) -> Case {
    let has = |bit: u8| flags & bit != 0;
    let mut body = [connect_head(version, flags), list(version, &[]), field(b"c")].concat();
    if has(0x04) {
        body.extend([list(version, &[]), field(b"w"), field(b"m")].concat());
    }
    if has(0x80) {
        body.extend(field(b"u"));
    }
    if has(0x40) {
        body.extend(field(b"p"));
    }
    // MQTT 3.1 §3.1: bit 0 is unused, and without a will its QoS and retain flags are disregarded.
    let is_v3_1 = version == Version::V3_1;
    let (expected, rule) = if has(0x01) && !is_v3_1 {
        (Expected::Ends(MALFORMED), "[MQTT-3.1.2-3]: the reserved flag is 0")
    } else if !has(0x04) && has(0x38) && !is_v3_1 {
        (Expected::Ends(MALFORMED), "[MQTT-3.1.2-11], [MQTT-3.1.2-13]: no will, no will QoS, no will retain")
    } else if has(0x04) && flags & 0x18 == 0x18 {
        (Expected::Ends(MALFORMED), "[MQTT-3.1.2-12], 3.1.1 [MQTT-3.1.2-14]: will QoS 3")
    } else if has(0x40) && !has(0x80) && version != Version::V5 {
        (Expected::Ends(MALFORMED), "3.1.1 [MQTT-3.1.2-22]: a password needs a user name")
    } else {
        (Expected::Taken, "§3.1.2.3")
    };
    Case::first(version, format!("flags {flags:02X}"), packet(0x10, &body), expected, rule)
}

fn connect(version: Version, flags: u8, client_id: &[u8], rest: &[u8]) -> Vec<u8> {
    let body = [&connect_head(version, flags)[..], &list(version, &[]), &field(client_id), rest].concat();
    packet(0x10, &body)
}

fn client_ids(version: Version, cases: &mut Vec<Case>) {
    let refused = Expected::Ends(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
    let mut push = |name, flags, id: &[u8], expected, rule| {
        cases.push(Case::first(version, name, connect(version, flags, id, &[]), expected, rule));
    };
    let (clean, kept) = match version {
        Version::V3_1 => (refused, refused),
        Version::V3_1_1 => (Expected::Taken, refused),
        Version::V5 => (Expected::Taken, Expected::Taken),
    };
    push("no client id", 0x02, b"", clean, "3.1 §3.1: 1 to 23 characters; later a server may give one");
    push("no client id, kept session", 0x00, b"", kept, "3.1.1 [MQTT-3.1.3-8]: 0x02; 5 [MQTT-3.1.3-6]");
    let rule = "[MQTT-3.1.3-5], [MQTT-3.1.3-8]: a server may refuse what is longer than 23 bytes; here 256";
    push("client id at the limit", 0x02, &[b'c'; 256], Expected::Taken, rule);
    push("client id above the limit", 0x02, &[b'c'; 257], refused, rule);
    push("client id of 65 535 bytes less the rest", 0x02, &[b'c'; 65_500], refused, rule);
}

fn wills(version: Version, cases: &mut Vec<Case>) {
    let mut push = |name: &str, topic: &[u8], reason, rule| {
        let rest = [&list(version, &[])[..], &field(topic), &field(b"m")].concat();
        let bytes = connect(version, 0x06, b"c", &rest);
        cases.push(Case::first(version, name, bytes, Expected::Ends(reason), rule));
    };
    push("no will topic", b"", MALFORMED, "[MQTT-4.7.3-1]: at least one character");
    for topic in [&b"+"[..], b"#", b"a/+", b"a/#", b"a+b", b"#/a"] {
        push(
            "a wildcard in the will topic",
            topic,
            ReasonCode::TOPIC_NAME_INVALID,
            "§4.7.1: no wildcard in a topic name",
        );
    }
    let rule = "§3.2.2.2: a will topic that is well-formed and not accepted is 0x90";
    push("a will topic of 129 levels", "a/".repeat(128).as_bytes(), ReasonCode::TOPIC_NAME_INVALID, rule);
    push("a will topic of 4097 bytes", &[b'a'; 4097], ReasonCode::TOPIC_NAME_INVALID, rule);
    if version == Version::V5 {
        let rest = [&list(version, &[0x01, 0x01])[..], &field(b"w"), &field(b"\xFF")].concat();
        cases.push(Case::first(
            version,
            "a will that is not the text that it says",
            connect(version, 0x06, b"c", &rest),
            Expected::Ends(ReasonCode::PAYLOAD_FORMAT_INVALID),
            "§3.1.3.2.3: a server may check the format and say 0x99",
        ));
    }
}

fn seconds(version: Version, cases: &mut Vec<Case>) {
    let bytes = connect(version, 0x02, b"c", &[]);
    let rule = "[MQTT-3.1.0-2]: a second CONNECT is a protocol error";
    cases.push(Case::online(version, "a second CONNECT", bytes, Expected::Ends(PROTOCOL), rule));
    for other in VERSIONS.into_iter().filter(|other| *other != version) {
        let bytes = connect(other, 0x02, b"d", &[]);
        cases.push(Case::online(
            version,
            format!("a second CONNECT in {other:?}"),
            bytes,
            Expected::Ends(PROTOCOL),
            rule,
        ));
    }
}

fn properties_of_authentication() -> Vec<Case> {
    let rule = "§3.1.2.11.10: authentication data without a method is a protocol error";
    ["04 16 0001 64", "03 16 0000", "09 16 0001 64 1100000000"]
        .map(|properties| {
            let body = [connect_head(Version::V5, 0x02), hex(properties), field(b"c")].concat();
            let bytes = packet(0x10, &body);
            Case::first(Version::V5, "data without a method", bytes, Expected::Ends(PROTOCOL), rule)
        })
        .into()
}

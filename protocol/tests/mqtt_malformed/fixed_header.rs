//! First bytes and remaining lengths. Spec: OASIS MQTT 5.0 §1.5.5, §2.1; 3.1.1 §2.2.

use tidegate_protocol::mqtt::packet::{ReasonCode, Version};

use crate::case::{Case, Expected, MALFORMED, PROTOCOL, VERSIONS, connect_head, field, hex, list, packet};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        first_bytes(version, &mut cases);
        first_packets(version, &mut cases);
        lengths(version, &mut cases);
    }
    cases
}

/// The flags that table 2-2 has for a type; PUBLISH has fields there.
const fn required_flags(kind: u8) -> u8 {
    if matches!(kind, 6 | 8 | 10) { 2 } else { 0 }
}

/// MQTT 3.1 §2.1 may send SUBSCRIBE, UNSUBSCRIBE and PUBREL again with DUP.
const fn may_have(version: Version, kind: u8, flags: u8) -> bool {
    let is_resent = matches!(version, Version::V3_1) && required_flags(kind) == 2 && flags == 0x0A;
    flags == required_flags(kind) || is_resent
}

fn first_bytes(version: Version, cases: &mut Vec<Case>) {
    for first in 0u8..=0xFF {
        let (kind, flags) = (first >> 4, first & 0x0F);
        let reserved = "§2.1.3: reserved flags [MQTT-2.1.3-1], 3.1.1 [MQTT-2.2.2-2]";
        let (reason, rule) = match kind {
            0 => (MALFORMED, "§2.1.2: packet type 0 is forbidden"),
            3 => continue,
            _ if !may_have(version, kind, flags) => (MALFORMED, reserved),
            2 | 9 | 11 | 13 => (PROTOCOL, "§2.1.2: server to client only"),
            15 if version != Version::V5 => (MALFORMED, "3.1.1 §2.2.1: packet type 15 is forbidden"),
            _ => continue,
        };
        let expected = Expected::Ends(reason);
        let name = format!("first byte {first:02X}");
        cases.push(Case::online(version, name.clone(), vec![first, 0x00], expected, rule));
        cases.push(Case::online(version, name, vec![first, 0x02, 0x00, 0x01], expected, rule));
    }
    for flags in 0u8..=15 {
        let body = [connect_head(version, 0x02), list(version, &[]), field(b"c")].concat();
        let bytes = packet(0x10 | flags, &body);
        // MQTT 3.1 §3.1 does not use the flags of CONNECT.
        let is_allowed = flags == 0 || version == Version::V3_1;
        let expected = if is_allowed { Expected::Taken } else { Expected::Ends(MALFORMED) };
        let rule = "[MQTT-2.1.3-1], 3.1.1 [MQTT-2.2.2-2]; 3.1 §3.1: not used";
        cases.push(Case::first(version, format!("CONNECT with flags {flags:X}"), bytes, expected, rule));
    }
}

fn first_packets(version: Version, cases: &mut Vec<Case>) {
    let rule = "[MQTT-3.1.0-1]: the first packet is CONNECT";
    for kind in (0u8..=15).filter(|kind| *kind != 1) {
        let first = kind << 4 | required_flags(kind);
        for body in ["", "0001", "0001 61 00", "0001 00 0001 61 00"] {
            let bytes = packet(first, &hex(body));
            cases.push(Case::first(version, format!("type {kind} first"), bytes, Expected::EndsUnsaid, rule));
        }
    }
}

fn lengths(version: Version, cases: &mut Vec<Case>) {
    let five = "§1.5.5, 3.1.1 §2.2.3: a remaining length has at most four bytes";
    for bytes in ["C0 80808080 00", "C0 80808080 01", "C0 FFFFFFFF", "30 FFFFFFFF 7F", "C0 80808080"] {
        let name = format!("remaining length {bytes}");
        cases.push(Case::online(version, name.clone(), hex(bytes), Expected::Ends(MALFORMED), five));
        let first = [vec![0x10], hex(bytes)[1..].to_vec()].concat();
        cases.push(Case::first(version, name, first, Expected::EndsUnsaid, five));
    }
    // 3.x does not ask for the shortest form.
    let shortest = "[MQTT-1.5.5-1]: the shortest form";
    let expected = if version == Version::V5 { Expected::Ends(MALFORMED) } else { Expected::Taken };
    for bytes in ["C0 8000", "C0 808000", "C0 80808000"] {
        cases.push(Case::online(version, "padded remaining length", hex(bytes), expected, shortest));
    }
    let body = [connect_head(version, 0x02), list(version, &[]), field(b"c")].concat();
    let length = u8::try_from(body.len()).unwrap();
    let padded = [&[0x10, length | 0x80, 0x80, 0x00], &body[..]].concat();
    cases.push(Case::first(version, "padded remaining length", padded, expected, shortest));

    let too_large = "[MQTT-3.2.2-15], §4.13: above the Maximum Packet Size";
    for bytes in ["30 FFFFFF7F", "32 818040", "82 818040", "A2 FFFFFF7F", "40 FFFFFF7F"] {
        let expected = Expected::Ends(ReasonCode::PACKET_TOO_LARGE);
        cases.push(Case::online(version, "too large", hex(bytes), expected, too_large));
    }
}

//! PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT and AUTH: identifiers and reason codes. Spec: OASIS MQTT 5.0 §3.4–§3.7,
//! §3.14, §3.15.

use tidegate_protocol::mqtt::packet::Version;

use crate::case::{Case, Expected, PROTOCOL, VERSIONS, hex, packet};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        for first in [0x40, 0x50, 0x62, 0x70] {
            let rule = "[MQTT-2.2.1-3], 3.1.1 [MQTT-2.3.1-1]: a packet identifier is not 0";
            let bytes = packet(first, &[0, 0]);
            let name = format!("{first:02X} with packet identifier 0");
            cases.push(Case::online(version, name, bytes, Expected::Ends(PROTOCOL), rule));
        }
        let rule = "WIRE §9: an acknowledgement of what was never sent";
        let bytes = packet(0x40, &[0x12, 0x34]);
        cases.push(Case::online(version, "PUBACK of nothing", bytes, Expected::Ends(PROTOCOL), rule));
    }
    codes(&mut cases);
    goodbyes(&mut cases);
    cases
}

/// The codes of the tables in §3.4.2.1 to §3.7.2.1, §3.14.2.1 and §3.15.2.1 that a client may send.
const fn is_in_table(first: u8, code: u8) -> bool {
    match first {
        0x40 | 0x50 => matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99),
        0x62 | 0x70 => matches!(code, 0x00 | 0x92),
        0xE0 => matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99),
        _ => matches!(code, 0x18 | 0x19),
    }
}

fn codes(cases: &mut Vec<Case>) {
    for (first, rule) in [
        (0x40, "[MQTT-3.4.2-1]: a PUBACK reason code"),
        (0x50, "[MQTT-3.5.2-1]: a PUBREC reason code"),
        (0x62, "[MQTT-3.6.2-1]: a PUBREL reason code"),
        (0x70, "[MQTT-3.7.2-1]: a PUBCOMP reason code"),
        (0xE0, "[MQTT-3.14.2-1]: a DISCONNECT reason code of those that a client sends"),
        (0xF0, "[MQTT-3.15.2-1]: an AUTH reason code of those that a client sends"),
    ] {
        for code in (0u8..=0xFF).filter(|code| !is_in_table(first, *code)) {
            let body = if first < 0xE0 { vec![0, 1, code] } else { vec![code] };
            let name = format!("{first:02X} with code {code:02X}");
            let expected = Expected::Ends(PROTOCOL);
            cases.push(Case::online(Version::V5, name, packet(first, &body), expected, rule));
        }
    }
}

fn goodbyes(cases: &mut Vec<Case>) {
    let mut push = |name: &str, first, body: &str, rule| {
        let bytes = packet(first, &hex(body));
        cases.push(Case::online(Version::V5, name, bytes, Expected::Ends(PROTOCOL), rule));
    };
    let rule = "§3.14.2.2.2: CONNECT had no session expiry interval, so DISCONNECT sets none";
    push("a new session expiry", 0xE0, "00 05 1100000001", rule);
    push("a new session expiry", 0xE0, "00 05 11FFFFFFFF", rule);
    push("a server reference", 0xE0, "00 04 1C 0001 73", "§3.14.2.2.5: a server sends it");
    let rule = "§3.15.2.2.2: AUTH names its method";
    push("AUTH without a method", 0xF0, "", rule);
    push("AUTH without a method", 0xF0, "18", rule);
    push("AUTH without a method", 0xF0, "18 00", rule);
    push("AUTH without a method", 0xF0, "19 04 1F 0001 72", rule);
    push("AUTH data without a method", 0xF0, "18 04 16 0001 64", rule);
    let rule = "[MQTT-4.12.0-6]: no AUTH after a CONNECT without a method";
    push("AUTH after a CONNECT without a method", 0xF0, "18 04 15 0001 6D", rule);
    push("AUTH after a CONNECT without a method", 0xF0, "19 08 15 0001 6D 16 0001 64", rule);
}

//! SUBSCRIBE and UNSUBSCRIBE: identifiers, filters, options, shared subscriptions. Spec: OASIS MQTT 5.0 §3.8, §3.10,
//! §4.7, §4.8.2; 3.1.1 §3.8, §3.10.

use tidegate_protocol::mqtt::packet::Version;

use crate::case::{Case, Expected, MALFORMED, PROTOCOL, VERSIONS, field, list, packet};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        lists(version, &mut cases);
        options(version, &mut cases);
        filters(version, &mut cases);
        shared(version, &mut cases);
    }
    cases
}

fn subscribe(version: Version, filters: &[(&[u8], u8)]) -> Vec<u8> {
    let entries = filters.iter().flat_map(|(filter, options)| [&field(filter)[..], &[*options]].concat());
    packet(0x82, &[vec![0, 1], list(version, &[]), entries.collect()].concat())
}

fn unsubscribe(version: Version, filters: &[&[u8]]) -> Vec<u8> {
    let entries = filters.iter().flat_map(|filter| field(filter));
    packet(0xA2, &[vec![0, 1], list(version, &[]), entries.collect()].concat())
}

fn lists(version: Version, cases: &mut Vec<Case>) {
    let mut push = |name: &str, bytes, rule| {
        cases.push(Case::online(version, name, bytes, Expected::Ends(PROTOCOL), rule));
    };
    push(
        "no filter to subscribe",
        subscribe(version, &[]),
        "[MQTT-3.8.3-2], 3.1.1 [MQTT-3.8.3-3]: at least one",
    );
    push("no filter to unsubscribe", unsubscribe(version, &[]), "[MQTT-3.10.3-2]: at least one");
    let rule = "[MQTT-2.2.1-3], 3.1.1 [MQTT-2.3.1-1]: a packet identifier is not 0";
    let body = [vec![0, 0], list(version, &[]), field(b"a"), vec![0]].concat();
    push("packet identifier 0", packet(0x82, &body), rule);
    let body = [vec![0, 0], list(version, &[]), field(b"a")].concat();
    push("packet identifier 0", packet(0xA2, &body), rule);
}

fn options(version: Version, cases: &mut Vec<Case>) {
    for options in 0u8..=0xFF {
        let (expected, rule) = match version {
            Version::V5 if options & 0xC0 != 0 => {
                (Expected::Ends(MALFORMED), "[MQTT-3.8.3-5]: reserved bits of the options")
            }
            Version::V5 if options & 0x03 == 0x03 => {
                (Expected::Ends(PROTOCOL), "§3.8.3.1: maximum QoS 3 is a protocol error")
            }
            Version::V5 if options & 0x30 == 0x30 => {
                (Expected::Ends(PROTOCOL), "§3.8.3.1: retain handling 3 is a protocol error")
            }
            Version::V3_1 | Version::V3_1_1 if options > 2 => {
                (Expected::Ends(MALFORMED), "3.1.1 [MQTT-3.8.3-4]: QoS 0, 1 or 2, and the other bits 0")
            }
            _ => (Expected::Taken, "§3.8.3.1"),
        };
        let name = format!("options {options:02X}");
        cases.push(Case::online(
            version,
            name.clone(),
            subscribe(version, &[(b"a", options)]),
            expected,
            rule,
        ));
        if !matches!(expected, Expected::Taken) {
            let second = subscribe(version, &[(b"a", 0), (b"b", options)]);
            cases.push(Case::online(version, format!("{name} of the second"), second, expected, rule));
        }
    }
}

fn filters(version: Version, cases: &mut Vec<Case>) {
    for (filter, rule) in [
        ("", "[MQTT-4.7.3-1]: at least one character"),
        ("a/#/b", "[MQTT-4.7.1-1]: '#' is last"),
        ("#/", "[MQTT-4.7.1-1]: '#' is last"),
        ("#/a", "[MQTT-4.7.1-1]: '#' is last"),
        ("/#/", "[MQTT-4.7.1-1]: '#' is last"),
        ("##", "[MQTT-4.7.1-1]: '#' has its level alone"),
        ("a#", "[MQTT-4.7.1-1]: '#' has its level alone"),
        ("#a", "[MQTT-4.7.1-1]: '#' has its level alone"),
        ("a/b#", "[MQTT-4.7.1-1]: '#' has its level alone"),
        ("a/#b", "[MQTT-4.7.1-1]: '#' has its level alone"),
        ("+#", "[MQTT-4.7.1-1]: '#' has its level alone"),
        ("a+", "[MQTT-4.7.1-2]: '+' has its level alone"),
        ("+a", "[MQTT-4.7.1-2]: '+' has its level alone"),
        ("++", "[MQTT-4.7.1-2]: '+' has its level alone"),
        ("a/+b", "[MQTT-4.7.1-2]: '+' has its level alone"),
        ("a/b+/c", "[MQTT-4.7.1-2]: '+' has its level alone"),
    ] {
        let bytes = filter.as_bytes();
        let expected = Expected::Ends(MALFORMED);
        for (name, packet) in [
            ("SUBSCRIBE", subscribe(version, &[(bytes, 0)])),
            ("SUBSCRIBE, second", subscribe(version, &[(b"a", 0), (bytes, 0)])),
            ("UNSUBSCRIBE", unsubscribe(version, &[bytes])),
            ("UNSUBSCRIBE, second", unsubscribe(version, &[b"a", bytes])),
        ] {
            cases.push(Case::online(version, format!("{name} {filter:?}"), packet, expected, rule));
        }
    }
    for filter in ["#", "+", "+/+", "/", "//", "a/#", "/+", "a/+/#", "$SYS/#", "\u{FEFF}", " "] {
        let expected = Expected::Taken;
        let packet = subscribe(version, &[(filter.as_bytes(), 0)]);
        cases.push(Case::online(version, format!("SUBSCRIBE {filter:?}"), packet, expected, "§4.7"));
    }
}

/// What only lacks a name or a filter is refused alone, in SUBACK; what is no filter at all ends the connection.
fn shared(version: Version, cases: &mut Vec<Case>) {
    for filter in ["$share/#/a", "$share/g+/a", "$share/+g/a", "$share/g#/a", "$share/g/a+", "$share/g/#/a"] {
        let rule = "[MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.8.2-2]: wildcards have their level alone";
        let expected = Expected::Ends(MALFORMED);
        let packet = subscribe(version, &[(filter.as_bytes(), 0)]);
        cases.push(Case::online(version, format!("SUBSCRIBE {filter}"), packet, expected, rule));
        let packet = unsubscribe(version, &[filter.as_bytes()]);
        cases.push(Case::online(version, format!("UNSUBSCRIBE {filter}"), packet, expected, rule));
    }
    for filter in ["$share", "$share/", "$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/#"] {
        let rule = "[MQTT-4.8.2-1], [MQTT-4.8.2-2]: $share/{ShareName}/{filter}; 0x8F in SUBACK";
        let packet = subscribe(version, &[(filter.as_bytes(), 0)]);
        cases.push(Case::online(version, format!("SUBSCRIBE {filter}"), packet, Expected::Taken, rule));
    }
    for options in [0x04, 0x05, 0x0C, 0x14] {
        let (reason, rule) = match version {
            Version::V5 => (PROTOCOL, "[MQTT-3.8.3-4]: No Local on a shared subscription"),
            _ => (MALFORMED, "3.1.1 [MQTT-3.8.3-4]: QoS 0, 1 or 2, and the other bits 0"),
        };
        let packet = subscribe(version, &[(b"$share/g/a", options)]);
        let name = format!("a shared subscription with options {options:02X}");
        cases.push(Case::online(version, name, packet, Expected::Ends(reason), rule));
    }
}

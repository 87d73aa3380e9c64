//! Packets that end too early or too late, with a remaining length that says so. Spec: OASIS MQTT 5.0 §3, §4.13.

use std::ops::Range;

use tidegate_protocol::mqtt::packet::Version;

use crate::case::{Case, Expected, MALFORMED, PROTOCOL, When, hex, packet};

/// A whole packet, and what is left of it when it is cut.
struct Sample {
    name: &'static str,
    version: Version,
    first: u8,
    body: &'static str,
    /// Lengths at which the body is a whole packet too.
    whole_at: &'static [usize],
    /// Lengths at which the body can be parsed, and lacks what must not be missing.
    lacking_at: &'static [usize],
    /// Lengths at which the version of the peer is not known.
    unsaid_at: Range<usize>,
}

const V3_1: Version = Version::V3_1;
const V3_1_1: Version = Version::V3_1_1;
const V5: Version = Version::V5;

const fn sample(name: &'static str, version: Version, first: u8, body: &'static str) -> Sample {
    Sample { name, version, first, body, whole_at: &[], lacking_at: &[], unsaid_at: 0..0 }
}

fn samples() -> Vec<Sample> {
    let mut samples = vec![
        Sample {
            unsaid_at: 0..7,
            ..sample(
                "CONNECT",
                V5,
                0x10,
                "0004 4D515454 05 C6 003C 05 1100000001 0001 63 05 1800000001 0001 77 0001 6D 0001 75 0001 70",
            )
        },
        Sample {
            unsaid_at: 0..7,
            ..sample(
                "CONNECT",
                V3_1_1,
                0x10,
                "0004 4D515454 04 C6 003C 0001 63 0001 77 0001 6D 0001 75 0001 70",
            )
        },
        Sample {
            unsaid_at: 0..9,
            // MQTT 3.1 §3.1: the remaining length takes precedence over the flags of user name and password.
            whole_at: &[21, 24],
            ..sample(
                "CONNECT",
                V3_1,
                0x10,
                "0006 4D5149736470 03 C6 003C 0001 63 0001 77 0001 6D 0001 75 0001 70",
            )
        },
        Sample { whole_at: &[13], ..sample("PUBLISH", V5, 0x32, "0003 612F62 0007 05 020000000A") },
        Sample { whole_at: &[11], ..sample("PUBLISH at QoS 0", V5, 0x30, "0003 612F62 05 020000000A") },
        Sample {
            lacking_at: &[5],
            whole_at: &[11],
            ..sample("SUBSCRIBE", V5, 0x82, "000A 02 0B07 0003 612F62 01 0001 2B 00")
        },
        Sample {
            lacking_at: &[10],
            whole_at: &[15],
            ..sample("UNSUBSCRIBE", V5, 0xA2, "000B 07 26 0001 6B 0001 76 0003 612F62 0001 2B")
        },
        Sample { whole_at: &[0, 1], ..sample("DISCONNECT", V5, 0xE0, "04 05 1100000000") },
        // §3.15.2.2.2: AUTH with 0x18 names its method; without a code it is 0x00, which only a server sends.
        Sample { lacking_at: &[0, 1], ..sample("AUTH", V5, 0xF0, "18 04 15 0001 6D") },
    ];
    for (name, first) in [("PUBACK", 0x40), ("PUBREC", 0x50), ("PUBREL", 0x62), ("PUBCOMP", 0x70)] {
        let body = "0007 00 05 1F 0002 6F6B";
        samples.push(Sample { whole_at: &[2, 3], ..sample(name, V5, first, body) });
    }
    for version in [V3_1, V3_1_1] {
        samples.extend([
            Sample { whole_at: &[7], ..sample("PUBLISH", version, 0x32, "0003 612F62 0007") },
            Sample { whole_at: &[5], ..sample("PUBLISH at QoS 0", version, 0x30, "0003 612F62") },
            sample("PUBACK", version, 0x40, "0007"),
            sample("PUBREC", version, 0x50, "0007"),
            sample("PUBREL", version, 0x62, "0007"),
            sample("PUBCOMP", version, 0x70, "0007"),
            Sample {
                lacking_at: &[2],
                whole_at: &[8],
                ..sample("SUBSCRIBE", version, 0x82, "000A 0003 612F62 01 0001 2B 00")
            },
            Sample {
                lacking_at: &[2],
                whole_at: &[7],
                ..sample("UNSUBSCRIBE", version, 0xA2, "000B 0003 612F62 0001 2B")
            },
        ]);
    }
    samples
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for sample in samples() {
        let when = if sample.first == 0x10 { When::First } else { When::Online };
        let body = hex(sample.body);
        for cut in (0..body.len()).filter(|cut| !sample.whole_at.contains(cut)) {
            let expected = match cut {
                _ if sample.unsaid_at.contains(&cut) => Expected::EndsUnsaid,
                _ if sample.lacking_at.contains(&cut) => Expected::Ends(PROTOCOL),
                _ => Expected::Ends(MALFORMED),
            };
            cases.push(Case {
                name: format!("{} cut after {cut} bytes", sample.name),
                version: sample.version,
                when,
                bytes: packet(sample.first, &body[..cut]),
                expected,
                rule: "§4.13: a packet that cannot be parsed",
            });
        }
        // What follows the fields of PUBLISH is its payload.
        if sample.first & 0xF0 != 0x30 {
            for garbage in [&b"\x00"[..], b"\xFF", b"\x00\x00\x00\x00", b"garbage"] {
                cases.push(Case {
                    name: format!("{} followed by {garbage:02X?}", sample.name),
                    version: sample.version,
                    when,
                    bytes: packet(sample.first, &[&body, garbage].concat()),
                    expected: Expected::Ends(MALFORMED),
                    rule: "§4.13: bytes that belong to no field",
                });
            }
        }
    }
    for version in [V3_1, V3_1_1, V5] {
        let rule = "§3.12, 3.1.1 §3.14: the packet has no body";
        let expected = Expected::Ends(MALFORMED);
        for body in ["00", "0000", "0001 00"] {
            cases.push(Case::online(
                version,
                "PINGREQ with a body",
                packet(0xC0, &hex(body)),
                expected,
                rule,
            ));
            if version != V5 {
                let bytes = packet(0xE0, &hex(body));
                cases.push(Case::online(version, "DISCONNECT with a body", bytes, expected, rule));
            }
        }
    }
    cases
}

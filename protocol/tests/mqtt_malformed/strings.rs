//! Strings that are no UTF-8 or hold U+0000, wherever a client may send one. Spec: OASIS MQTT 5.0 §1.5.4; 3.1.1 §1.5.3.

use tidegate_protocol::mqtt::packet::{ReasonCode, Version};

use crate::case::{Case, Expected, MALFORMED, VERSIONS, When, connect_head, field, list, packet};

const BAD: [(&str, &[u8], &str); 24] = [
    ("U+0000", b"\0", NUL),
    ("U+0000 last", b"a\0", NUL),
    ("U+0000 first", b"\0a", NUL),
    ("U+0000 within", b"a\0b", NUL),
    ("U+D800", b"\xED\xA0\x80", ILL_FORMED),
    ("U+DBFF", b"\xED\xAF\xBF", ILL_FORMED),
    ("U+DC00", b"\xED\xB0\x80", ILL_FORMED),
    ("U+DFFF", b"a\xED\xBF\xBFb", ILL_FORMED),
    ("a pair of surrogates", b"\xED\xA0\xBD\xED\xB8\x80", ILL_FORMED),
    ("U+0000 in two bytes", b"\xC0\x80", ILL_FORMED),
    ("'/' in two bytes", b"\xC0\xAF", ILL_FORMED),
    ("U+007F in two bytes", b"\xC1\xBF", ILL_FORMED),
    ("'/' in three bytes", b"\xE0\x80\xAF", ILL_FORMED),
    ("U+07FF in three bytes", b"\xE0\x9F\xBF", ILL_FORMED),
    ("'/' in four bytes", b"\xF0\x80\x80\xAF", ILL_FORMED),
    ("U+FFFF in four bytes", b"\xF0\x8F\xBF\xBF", ILL_FORMED),
    ("U+110000", b"\xF4\x90\x80\x80", ILL_FORMED),
    ("F5", b"\xF5\x80\x80\x80", ILL_FORMED),
    ("FF", b"\xFF", ILL_FORMED),
    ("a lone continuation", b"a\x80b", ILL_FORMED),
    ("one byte of two", b"a\xC3", ILL_FORMED),
    ("two bytes of three", b"a\xE2\x82", ILL_FORMED),
    ("three bytes of four", b"a\xF0\x9F\x98", ILL_FORMED),
    ("a start within a character", b"\xE2\x82a", ILL_FORMED),
];

/// What a server may refuse; here it is refused in what names something.
const DISCOURAGED: [(&str, &str); 9] = [
    ("U+0001", "a\u{1}b"),
    ("U+000A", "\n"),
    ("U+001F", "\u{1F}"),
    ("U+007F", "a\u{7F}"),
    ("U+0080", "\u{80}"),
    ("U+009F", "\u{9F}a"),
    ("U+FDD0", "\u{FDD0}"),
    ("U+FFFF", "a\u{FFFF}"),
    ("U+10FFFE", "\u{10FFFE}"),
];

const NUL: &str = "[MQTT-1.5.4-2], 3.1.1 [MQTT-1.5.3-2]: no U+0000";
const ILL_FORMED: &str = "[MQTT-1.5.4-1], 3.1.1 [MQTT-1.5.3-1]: well-formed UTF-8, no surrogates";

/// A packet around the string's field.
type Around = fn(Version, &[u8]) -> Vec<u8>;

fn connect(version: Version, flags: u8, properties: &[u8], rest: &[u8]) -> Vec<u8> {
    let body = [&connect_head(version, flags)[..], &list(version, properties), rest].concat();
    packet(0x10, &body)
}

const IN_ALL: [(&str, When, Around); 6] = [
    ("client id", When::First, |version, string| connect(version, 0x02, &[], string)),
    ("will topic", When::First, |version, string| {
        connect(version, 0x06, &[], &[&field(b"c")[..], &list(version, &[]), string, &field(b"m")].concat())
    }),
    ("user name", When::First, |version, string| {
        connect(version, 0x82, &[], &[&field(b"c")[..], string].concat())
    }),
    ("topic name", When::Online, |version, string| {
        packet(0x30, &[string, &list(version, &[]), b"x"].concat())
    }),
    ("filter to subscribe", When::Online, |version, string| {
        packet(0x82, &[&[0, 1], &list(version, &[])[..], string, &[0]].concat())
    }),
    ("filter to unsubscribe", When::Online, |version, string| {
        packet(0xA2, &[&[0, 1], &list(version, &[])[..], string].concat())
    }),
];

const IN_MQTT_5: [(&str, When, Around); 12] = [
    ("content type", When::Online, |_, string| publish(0x03, string)),
    ("response topic", When::Online, |_, string| publish(0x08, string)),
    ("name of a user property", When::Online, |_, string| publish(0x26, &[string, &field(b"v")].concat())),
    ("value of a user property", When::Online, |_, string| publish(0x26, &[&field(b"k"), string].concat())),
    ("authentication method", When::First, |version, string| {
        connect(version, 0x02, &[&[0x15], string].concat(), &field(b"c"))
    }),
    ("user property of CONNECT", When::First, |version, string| {
        connect(version, 0x02, &[&[0x26], string, &field(b"v")].concat(), &field(b"c"))
    }),
    ("content type of the will", When::First, |version, string| {
        let properties = list(version, &[&[0x03], string].concat());
        let rest = [&field(b"c")[..], &properties, &field(b"w"), &field(b"m")].concat();
        connect(version, 0x06, &[], &rest)
    }),
    ("user property of SUBSCRIBE", When::Online, |version, string| {
        let properties = list(version, &[&[0x26], string, &field(b"v")].concat());
        packet(0x82, &[&[0, 1], &properties[..], &field(b"a"), &[0]].concat())
    }),
    ("reason string of PUBACK", When::Online, |version, string| {
        packet(0x40, &[&[0, 1, 0], &list(version, &[&[0x1F], string].concat())[..]].concat())
    }),
    ("reason string of PUBREL", When::Online, |version, string| {
        packet(0x62, &[&[0, 1, 0], &list(version, &[&[0x1F], string].concat())[..]].concat())
    }),
    ("reason string of DISCONNECT", When::Online, |version, string| {
        packet(0xE0, &[&[0], &list(version, &[&[0x1F], string].concat())[..]].concat())
    }),
    ("method of AUTH", When::Online, |version, string| {
        packet(0xF0, &[&[0x18], &list(version, &[&[0x15], string].concat())[..]].concat())
    }),
];

fn publish(id: u8, value: &[u8]) -> Vec<u8> {
    let properties = list(Version::V5, &[&[id], value].concat());
    packet(0x30, &[&field(b"a")[..], &properties, b"x"].concat())
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        let of_mqtt_5 = IN_MQTT_5.iter().filter(|_| version == Version::V5);
        for (place, when, around) in IN_ALL.iter().chain(of_mqtt_5) {
            for (name, string, rule) in BAD {
                cases.push(Case {
                    name: format!("{name} in the {place}"),
                    version,
                    when: *when,
                    bytes: around(version, &field(string)),
                    expected: Expected::Ends(MALFORMED),
                    rule,
                });
            }
        }
        for (place, when, around) in IN_ALL {
            for (name, string) in DISCOURAGED {
                let reason =
                    if place == "client id" { ReasonCode::CLIENT_IDENTIFIER_NOT_VALID } else { MALFORMED };
                cases.push(Case {
                    name: format!("{name} in the {place}"),
                    version,
                    when,
                    bytes: around(version, &field(string.as_bytes())),
                    expected: Expected::Ends(reason),
                    rule: "§1.5.4, 3.1.1 §1.5.3: a server may refuse controls and non-characters",
                });
            }
            for (name, string) in [
                ("U+FEFF", "\u{FEFF}a"),
                ("U+0020", " "),
                ("U+007E", "~"),
                ("U+00A0", "\u{A0}"),
                ("U+FFFD", "\u{FFFD}"),
                ("U+2A6D4", "A\u{2A6D4}"),
                ("U+10FFFD", "\u{10FFFD}"),
                ("an emoji", "😀"),
            ] {
                cases.push(Case {
                    name: format!("{name} in the {place}"),
                    version,
                    when,
                    bytes: around(version, &field(string.as_bytes())),
                    expected: Expected::Taken,
                    rule: "[MQTT-1.5.4-3]: a byte order mark is a character, as others are",
                });
            }
        }
    }
    for value in ["\n", "a\tb", "\u{7F}"] {
        let bytes = publish(0x26, &[field(b"k"), field(value.as_bytes())].concat());
        let rule = "§1.5.4: a user property names nothing here";
        cases.push(Case::online(Version::V5, "a control in a user property", bytes, Expected::Taken, rule));
    }
    cases
}

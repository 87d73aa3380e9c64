//! Property lists: which property stands where, how often, with which value, and lengths that lie.
//! Spec: OASIS MQTT 5.0 §2.2.2 and the property sections of §3.

use tidegate_protocol::mqtt::packet::Version;

use crate::case::{
    Case, Expected, MALFORMED, PROTOCOL, When, connect_head, field, hex, list, packet, var_int,
};

/// A packet that a client sends, with room for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Connect,
    Will,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

const PLACES: [Place; 11] = [
    Place::Connect,
    Place::Will,
    Place::Publish,
    Place::PubAck,
    Place::PubRec,
    Place::PubRel,
    Place::PubComp,
    Place::Subscribe,
    Place::Unsubscribe,
    Place::Disconnect,
    Place::Auth,
];

impl Place {
    const fn when(self) -> When {
        match self {
            Self::Connect | Self::Will => When::First,
            _ => When::Online,
        }
    }

    /// The packet with these bytes where the length of the list and the list stand.
    fn with(self, list: &[u8]) -> Vec<u8> {
        let of_ack = |first| packet(first, &[&[0, 1, 0], list].concat());
        match self {
            Self::Connect => {
                packet(0x10, &[&connect_head(Version::V5, 0x02)[..], list, &field(b"c")].concat())
            }
            Self::Will => {
                let before = [&connect_head(Version::V5, 0x06)[..], &[0], &field(b"c")].concat();
                packet(0x10, &[&before[..], list, &field(b"w"), &field(b"m")].concat())
            }
            Self::Publish => packet(0x30, &[&field(b"a")[..], list, b"hi"].concat()),
            Self::PubAck => of_ack(0x40),
            Self::PubRec => of_ack(0x50),
            Self::PubRel => of_ack(0x62),
            Self::PubComp => of_ack(0x70),
            Self::Subscribe => packet(0x82, &[&[0, 1], list, &field(b"a"), &[0]].concat()),
            Self::Unsubscribe => packet(0xA2, &[&[0, 1], list, &field(b"a")].concat()),
            Self::Disconnect => packet(0xE0, &[&[0], list].concat()),
            Self::Auth => packet(0xF0, &[&[0x18], list].concat()),
        }
    }

    /// Table 2-4.
    const fn has(self, id: u8) -> bool {
        match self {
            Self::Connect => matches!(id, 0x11 | 0x15 | 0x16 | 0x17 | 0x19 | 0x21 | 0x22 | 0x26 | 0x27),
            Self::Will => matches!(id, 0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x18 | 0x26),
            Self::Publish => matches!(id, 0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x0B | 0x23 | 0x26),
            Self::PubAck | Self::PubRec | Self::PubRel | Self::PubComp => matches!(id, 0x1F | 0x26),
            Self::Subscribe => matches!(id, 0x0B | 0x26),
            Self::Unsubscribe => matches!(id, 0x26),
            Self::Disconnect => matches!(id, 0x11 | 0x1C | 0x1F | 0x26),
            Self::Auth => matches!(id, 0x15 | 0x16 | 0x1F | 0x26),
        }
    }
}

/// Each property with a value that is right for it.
const PROPERTIES: [(u8, &str); 27] = [
    (0x01, "01 00"),
    (0x02, "02 00000001"),
    (0x03, "03 0001 61"),
    (0x08, "08 0001 61"),
    (0x09, "09 0001 61"),
    (0x0B, "0B 01"),
    (0x11, "11 00000000"),
    (0x12, "12 0001 61"),
    (0x13, "13 0001"),
    (0x15, "15 0001 61"),
    (0x16, "16 0001 61"),
    (0x17, "17 01"),
    (0x18, "18 00000001"),
    (0x19, "19 01"),
    (0x1A, "1A 0001 61"),
    (0x1C, "1C 0001 61"),
    (0x1F, "1F 0001 61"),
    (0x21, "21 0001"),
    (0x22, "22 0001"),
    (0x23, "23 0001"),
    (0x24, "24 01"),
    (0x25, "25 01"),
    (0x26, "26 0001 6B 0001 76"),
    (0x27, "27 00001000"),
    (0x28, "28 01"),
    (0x29, "29 01"),
    (0x2A, "2A 01"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for place in PLACES {
        identifiers(place, &mut cases);
        repetitions(place, &mut cases);
        cut_values(place, &mut cases);
        lengths(place, &mut cases);
    }
    values(&mut cases);
    cases
}

fn case(place: Place, name: String, bytes: Vec<u8>, expected: Expected, rule: &'static str) -> Case {
    Case {
        name: format!("{place:?}, {name}"),
        version: Version::V5,
        when: place.when(),
        bytes,
        expected,
        rule,
    }
}

fn with_list(place: Place, properties: &[u8]) -> Vec<u8> {
    place.with(&list(Version::V5, properties))
}

fn identifiers(place: Place, cases: &mut Vec<Case>) {
    let rule = "§2.2.2.2: an identifier that is not valid for its packet type";
    for (id, property) in PROPERTIES.into_iter().filter(|(id, _)| !place.has(*id)) {
        let bytes = with_list(place, &hex(property));
        cases.push(case(place, format!("property {id:02X}"), bytes, Expected::Ends(MALFORMED), rule));
    }
    let is_defined = |id: u8| PROPERTIES.iter().any(|(known, _)| *known == id);
    for id in (0u8..0x80).filter(|id| !is_defined(*id)) {
        let bytes = with_list(place, &[id, 0x01]);
        let name = format!("unknown property {id:02X}");
        cases.push(case(place, name, bytes, Expected::Ends(MALFORMED), "table 2-4: no such property"));
    }
    for id in ["8001 00", "A601 0000 0000", "FFFFFF7F 00", "FFFFFFFF 7F"] {
        let name = format!("property {id}");
        let bytes = with_list(place, &hex(id));
        cases.push(case(place, name, bytes, Expected::Ends(MALFORMED), "table 2-4: no such property"));
    }
    let rule = "[MQTT-1.5.5-1]: an identifier is written in its shortest form";
    let bytes = with_list(place, &hex("A600 0001 6B 0001 76"));
    cases.push(case(place, "padded identifier".into(), bytes, Expected::Ends(MALFORMED), rule));
}

fn repetitions(place: Place, cases: &mut Vec<Case>) {
    let rule = "§3: a property that stands once stands twice";
    for (id, property) in PROPERTIES.into_iter().filter(|(id, _)| place.has(*id) && *id != 0x26) {
        let once = hex(property);
        let apart = [&once[..], &hex("26 0000 0000"), &once].concat();
        for (name, properties) in [("twice", once.repeat(2)), ("twice, apart", apart)] {
            let bytes = with_list(place, &properties);
            let name = format!("property {id:02X} {name}");
            cases.push(case(place, name, bytes, Expected::Ends(PROTOCOL), rule));
        }
    }
}

/// A list whose length is right and whose last value lacks bytes.
fn cut_values(place: Place, cases: &mut Vec<Case>) {
    let rule = "§4.13: a property that ends too early";
    for (id, property) in PROPERTIES.into_iter().filter(|(id, _)| place.has(*id)) {
        let whole = hex(property);
        for cut in 1..whole.len() {
            let name = format!("property {id:02X} cut after {cut} bytes");
            let bytes = with_list(place, &whole[..cut]);
            cases.push(case(place, name, bytes, Expected::Ends(MALFORMED), rule));
        }
    }
}

fn lengths(place: Place, cases: &mut Vec<Case>) {
    let properties = hex("26 0001 6B 0001 76");
    let mut push = |name: String, length: &[u8], rule| {
        let bytes = place.with(&[length, &properties].concat());
        cases.push(case(place, name, bytes, Expected::Ends(MALFORMED), rule));
    };
    // What is not in the list of a PUBLISH is payload; without its method AUTH lacks what it needs.
    let shortest = if matches!(place, Place::Publish | Place::Auth) { 1 } else { 0 };
    for claimed in (shortest..40).filter(|claimed| *claimed != properties.len()) {
        push(format!("length {claimed} for 7"), &var_int(claimed), "§2.2.2.1: the length of the list");
    }
    for claimed in [0x7F, 0x80, 0x3FFF, 0x4000, 0x1F_FFFF, 0x0FFF_FFFF] {
        push(format!("length {claimed} for 7"), &var_int(claimed), "§2.2.2.1: the length of the list");
    }
    for padded in [&b"\x87\x00"[..], b"\x87\x80\x00", b"\x87\x80\x80\x00"] {
        push("padded length".into(), padded, "[MQTT-1.5.5-1]: the shortest form");
    }
    for long in [&b"\x87\x80\x80\x80\x00"[..], b"\xFF\xFF\xFF\xFF\x7F", b"\xFF\xFF\xFF\xFF"] {
        push("length of five bytes".into(), long, "§1.5.5: at most four bytes");
    }
}

fn values(cases: &mut Vec<Case>) {
    let zero = "a protocol error to be 0";
    let flag = "a protocol error to be neither 0 nor 1";
    for (place, properties, reason, rule) in [
        (Place::Connect, "21 0000", PROTOCOL, "§3.1.2.11.3: Receive Maximum 0"),
        (Place::Connect, "27 00000000", PROTOCOL, "§3.1.2.11.4: Maximum Packet Size 0"),
        (Place::Connect, "17 02", PROTOCOL, flag),
        (Place::Connect, "17 FF", PROTOCOL, flag),
        (Place::Connect, "19 02", PROTOCOL, flag),
        (Place::Connect, "19 80", PROTOCOL, flag),
        (Place::Will, "01 02", PROTOCOL, flag),
        (Place::Will, "01 FF", PROTOCOL, flag),
        (Place::Publish, "01 02", PROTOCOL, flag),
        (Place::Publish, "01 80", PROTOCOL, flag),
        (Place::Subscribe, "0B 00", PROTOCOL, zero),
        (Place::Subscribe, "0B 8100", MALFORMED, "[MQTT-1.5.5-1]: the shortest form"),
        (Place::Subscribe, "0B 808000", MALFORMED, "[MQTT-1.5.5-1]: the shortest form"),
        (Place::Subscribe, "0B FFFFFFFF 01", MALFORMED, "§1.5.5: at most four bytes"),
    ] {
        let bytes = with_list(place, &hex(properties));
        cases.push(case(place, properties.into(), bytes, Expected::Ends(reason), rule));
    }
    for (place, properties) in [
        (Place::Connect, "21 FFFF"),
        (Place::Connect, "27 FFFFFFFF"),
        (Place::Connect, "11 FFFFFFFF 22 0000"),
        (Place::Subscribe, "0B FFFFFF7F"),
        (Place::Publish, "02 00000000"),
        (Place::Publish, "26 0001 6B 0001 76 26 0001 6B 0001 76"),
        (Place::Will, "18 FFFFFFFF 02 00000000"),
    ] {
        let bytes = with_list(place, &hex(properties));
        cases.push(case(place, properties.into(), bytes, Expected::Taken, "at the edge, and allowed"));
    }
}

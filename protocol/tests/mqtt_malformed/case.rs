//! One broken packet as data, and the one function that plays it: what the client is told, and how it ends.

use tidegate_protocol::mqtt::Settings;
use tidegate_protocol::mqtt::packet::{Packet, ReasonCode, Version};
use tidegate_protocol::publication::QoS;

use crate::mqtt_support::{Conversation, connect};

pub(crate) const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];
pub(crate) const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
pub(crate) const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;

/// When the bytes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// As the first of the connection.
    First,
    /// After CONNACK.
    Online,
}

/// What the standard has a server do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The connection ends. The client is told this code as far as its version has words for it: in DISCONNECT or
    /// CONNACK in MQTT 5, in CONNACK alone in 3.x and for two codes only.
    Ends(ReasonCode),
    /// The connection ends without a word, since the version of the peer is not known.
    EndsUnsaid,
    /// It is no error, and the connection goes on.
    Taken,
}

/// A packet, or several.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) when: When,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
    /// The statement of the standard.
    pub(crate) rule: &'static str,
}

impl Case {
    pub(crate) fn online(
        version: Version,
        name: impl Into<String>,
        bytes: Vec<u8>,
        expected: Expected,
        rule: &'static str,
    ) -> Self {
        Self { name: name.into(), version, when: When::Online, bytes, expected, rule }
    }

    pub(crate) fn first(
        version: Version,
        name: impl Into<String>,
        bytes: Vec<u8>,
        expected: Expected,
        rule: &'static str,
    ) -> Self {
        Self { name: name.into(), version, when: When::First, bytes, expected, rule }
    }
}

/// Plays all of a table and names every packet that is answered otherwise.
pub(crate) fn check_all(cases: &[Case]) {
    assert!(!cases.is_empty(), "a generator that yields nothing tests nothing");
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn check(case: &Case) -> Result<(), String> {
    let mut talk = match case.when {
        When::First => Conversation::open(case.version, &settings()),
        When::Online => Conversation::connected(connect(case.version), &settings()),
    };
    talk.say_bytes(&case.bytes);
    let closed = talk.closed.clone();
    let told = told(&mut talk, case.when);
    let is_right = match (case.expected, &closed) {
        (Expected::Taken, None) => return Ok(()),
        (Expected::EndsUnsaid, Some(closed)) => closed.kind.code() == 1002 && told.is_none(),
        (Expected::Ends(reason), Some(closed)) => {
            closed.kind.code() == websocket_code(reason) && told == words(case.version, case.when, reason)
        }
        _ => false,
    };
    talk.requests.clear();
    talk.say_bytes(&[0xC0, 0x00]);
    if is_right && talk.hears_nothing() && talk.requests.is_empty() {
        return Ok(());
    }
    let Case { name, version, expected, rule, bytes, .. } = case;
    let bytes = &bytes[..bytes.len().min(48)];
    Err(format!("{version:?}, {name}: {expected:?} by {rule}, but {told:?} and {closed:?}: {bytes:02X?}"))
}

/// The code in the last packet that the client got, if it was the goodbye. What came before the broken packet may
/// have been answered.
fn told(talk: &mut Conversation, when: When) -> Option<ReasonCode> {
    let mut code = None;
    while !talk.hears_nothing() {
        code = match (talk.hear(), when) {
            (Packet::ConnAck(connack), When::First) => Some(connack.reason),
            (Packet::Disconnect(disconnect), When::Online) => Some(disconnect.reason),
            _ => None,
        };
    }
    code
}

/// MQTT 5 §4.13.1: DISCONNECT, or CONNACK instead before it was sent. 3.1.1 §4.8: just the end, but for the return
/// codes of §3.2.2.3.
fn words(version: Version, when: When, reason: ReasonCode) -> Option<ReasonCode> {
    let has_return_code =
        matches!(reason, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION | ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
    (version == Version::V5 || (when == When::First && has_return_code)).then_some(reason)
}

/// WIRE §5.
fn websocket_code(reason: ReasonCode) -> u16 {
    match reason {
        ReasonCode::PACKET_TOO_LARGE | ReasonCode::QUOTA_EXCEEDED => 1009,
        ReasonCode::TOPIC_NAME_INVALID => 1008,
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION | ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => 4000,
        _ => 1002,
    }
}

pub(crate) fn settings() -> Settings {
    Settings { max_qos: QoS::ExactlyOnce, ..Settings::default() }
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A packet with the right remaining length.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first], &var_int(body.len())[..], body].concat()
}

pub(crate) fn var_int(value: usize) -> Vec<u8> {
    let mut rest = value;
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(rest & 0x7F).unwrap();
        rest >>= 7;
        bytes.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            return bytes;
        }
    }
}

/// A string or binary data: length and bytes.
pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// A property list in MQTT 5, nothing in 3.x.
pub(crate) fn list(version: Version, properties: &[u8]) -> Vec<u8> {
    if version == Version::V5 { [&var_int(properties.len())[..], properties].concat() } else { Vec::new() }
}

/// Protocol name, level, flags and a keep alive of a minute.
pub(crate) fn connect_head(version: Version, flags: u8) -> Vec<u8> {
    let (name, level) = version.name_and_level();
    [&field(name.as_bytes())[..], &[level, flags, 0x00, 0x3C]].concat()
}

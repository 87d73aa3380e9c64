//! The wire forms of a publication for raw subscribers (WIRE §2, §3): the payload alone, and the envelope `msg`.
//!
//! The choice between text and binary, and between `data`, `text` and `b64`, depends on the message and never on
//! the subscriber; that is what makes a form shareable. Knows no session.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::value::RawValue;

use super::Encoding;
use super::answer::to_bytes;
use super::document::json_depth;
use crate::publication::{BodyForm, Form, Publication, says_utf8};
use crate::session::Forms;
use crate::websocket::MessageKind;
use crate::websocket::prepared::{Outgoing, Prepared};

/// Which kind of frame carries a payload: `as=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadForm {
    /// As it was published.
    #[default]
    Auto,
    /// Text where the payload is UTF-8.
    Text,
    /// Always binary.
    Binary,
}

/// Every form of this codec.
pub const FORMS: &[&Form] = &[
    &AUTO,
    &AUTO_WITH_TOPIC,
    &TEXT,
    &TEXT_WITH_TOPIC,
    &BINARY,
    &BINARY_WITH_TOPIC,
    &JSON_LIVE,
    &JSON_RETAINED,
    &MESSAGE_PACK_LIVE,
    &MESSAGE_PACK_RETAINED,
];

const AUTO: Form = payload_form(4, |publication| payload(publication, PayloadForm::Auto));
const AUTO_WITH_TOPIC: Form =
    payload_form(5, |publication| payload_with_topic(publication, PayloadForm::Auto));
const TEXT: Form = payload_form(6, |publication| payload(publication, PayloadForm::Text));
const TEXT_WITH_TOPIC: Form =
    payload_form(7, |publication| payload_with_topic(publication, PayloadForm::Text));
const BINARY: Form = payload_form(8, |publication| payload(publication, PayloadForm::Binary));
const BINARY_WITH_TOPIC: Form =
    payload_form(9, |publication| payload_with_topic(publication, PayloadForm::Binary));
const JSON_LIVE: Form = message_form(10, |publication| message(publication, Encoding::Json, Retained::No));
const JSON_RETAINED: Form =
    message_form(11, |publication| message(publication, Encoding::Json, Retained::Yes));
const MESSAGE_PACK_LIVE: Form =
    message_form(12, |publication| message(publication, Encoding::MessagePack, Retained::No));
const MESSAGE_PACK_RETAINED: Form =
    message_form(13, |publication| message(publication, Encoding::MessagePack, Retained::Yes));

/// A payload says nothing of its expiry, so every receiver can share it.
const fn payload_form(slot: u8, encode: fn(&Publication) -> Prepared) -> Form {
    Form { slot, lacks_expiry: false, behind_head: None, encode }
}

/// `exp` counts down, so a publication that expires is left to the session.
const fn message_form(slot: u8, encode: fn(&Publication) -> Prepared) -> Form {
    Form { slot, lacks_expiry: true, behind_head: None, encode }
}

/// The value of `ret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retained {
    Yes,
    No,
}

impl PayloadForm {
    /// The shared forms of payload mode, which does not show a RETAIN flag.
    pub(super) const fn forms(self, with_topic: bool) -> &'static Forms {
        const fn both(form: &'static Form) -> Forms {
            Forms { live: form, retained: Some(form) }
        }
        static PLAIN: [Forms; 3] = [both(&AUTO), both(&TEXT), both(&BINARY)];
        static WITH_TOPIC: [Forms; 3] =
            [both(&AUTO_WITH_TOPIC), both(&TEXT_WITH_TOPIC), both(&BINARY_WITH_TOPIC)];
        let [auto, text, binary] = if with_topic { &WITH_TOPIC } else { &PLAIN };
        match self {
            Self::Auto => auto,
            Self::Text => text,
            Self::Binary => binary,
        }
    }

    fn kind(self, publication: &Publication) -> MessageKind {
        let is_text = match self {
            // `is_text` is checked where it is set.
            Self::Auto => publication.is_text || (says_text(publication) && is_utf8(&publication.payload)),
            Self::Text => publication.is_text || is_utf8(&publication.payload),
            Self::Binary => false,
        };
        if is_text { MessageKind::Text } else { MessageKind::Binary }
    }
}

/// The shared forms of `msg`.
pub(super) const fn message_forms(encoding: Encoding) -> &'static Forms {
    static JSON: Forms = Forms { live: &JSON_LIVE, retained: Some(&JSON_RETAINED) };
    static MESSAGE_PACK: Forms = Forms { live: &MESSAGE_PACK_LIVE, retained: Some(&MESSAGE_PACK_RETAINED) };
    match encoding {
        Encoding::Json => &JSON,
        Encoding::MessagePack => &MESSAGE_PACK,
    }
}

/// Whether the content type says that the payload is UTF-8 (WIRE §7).
fn says_text(publication: &Publication) -> bool {
    let properties = publication.properties.as_deref();
    properties.and_then(|properties| properties.content_type.as_deref()).is_some_and(says_utf8)
}

fn is_utf8(payload: &[u8]) -> bool {
    simdutf8::basic::from_utf8(payload).is_ok()
}

fn payload(publication: &Publication, form: PayloadForm) -> Prepared {
    Prepared::new(form.kind(publication), &[&publication.payload])
}

fn payload_with_topic(publication: &Publication, form: PayloadForm) -> Prepared {
    let topic = publication.topic.as_str().as_bytes();
    Prepared::new(form.kind(publication), &[topic, b"\n", &publication.payload])
}

/// The same as the forms, for a delivery that comes through the session.
pub(super) fn payload_outgoing(publication: &Publication, form: PayloadForm, with_topic: bool) -> Outgoing {
    let head = if with_topic { Bytes::from(format!("{}\n", publication.topic)) } else { Bytes::new() };
    let body = Some(publication.body(&BodyForm::PAYLOAD).clone());
    Outgoing { kind: form.kind(publication), head, body }
}

fn message(publication: &Publication, encoding: Encoding, retained: Retained) -> Prepared {
    let bytes = to_bytes(&Msg::new(publication, encoding, retained, None), encoding);
    Prepared::new(encoding.kind(), &[&bytes])
}

/// `msg` for a delivery that comes through the session: with what is left of its expiry.
pub(super) fn message_outgoing(
    publication: &Publication,
    encoding: Encoding,
    retained: Retained,
    now: Instant,
) -> Outgoing {
    let left = publication.expires_at.map(|at| at.saturating_duration_since(now));
    // Rounded up: a message that is still delivered has not expired.
    let left_ms = left.map(|left| u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
    let bytes = to_bytes(&Msg::new(publication, encoding, retained, left_ms), encoding);
    Outgoing::new(encoding.kind(), bytes)
}

/// The server's `msg`. Exactly one of the first four options is set.
#[derive(Serialize)]
struct Msg<'a> {
    op: &'static str,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bin: Option<Binary<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ct: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ret: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    props: Option<Props<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corr: Option<Corr<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
}

/// Bytes as MessagePack's `bin`.
pub(super) struct Binary<'a>(pub(super) &'a [u8]);

/// User properties as a map: a name that repeats has an array, in the publisher's order.
pub(super) struct Props<'a>(pub(super) &'a [(Box<str>, Box<str>)]);

/// Correlation data: a string where it is UTF-8, else MessagePack's `bin` or JSON's `{"b64": …}`.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Corr<'a> {
    Text(&'a str),
    Bin(Binary<'a>),
    Base64 { b64: String },
}

impl<'a> Msg<'a> {
    fn new(publication: &'a Publication, encoding: Encoding, retained: Retained, exp: Option<u64>) -> Self {
        let properties = publication.properties.as_deref();
        let user = properties.map_or(&[][..], |properties| &properties.user);
        let correlation = properties.and_then(|properties| properties.correlation_data.as_deref());
        let mut msg = Self {
            op: "msg",
            topic: publication.topic.as_str(),
            data: None,
            text: None,
            b64: None,
            bin: None,
            ct: properties.and_then(|properties| properties.content_type.as_deref()),
            ret: (retained == Retained::Yes).then_some(true),
            ts: (publication.published_ms != 0).then_some(publication.published_ms),
            props: (!user.is_empty()).then_some(Props(user)),
            reply: properties.and_then(|properties| Some(properties.response_topic.as_ref()?.as_str())),
            corr: correlation.map(|bytes| Corr::new(bytes, encoding)),
            exp,
        };
        match (simdutf8::basic::from_utf8(&publication.payload), encoding) {
            (Ok(text), Encoding::MessagePack) => msg.text = Some(text),
            (Err(_), Encoding::MessagePack) => msg.bin = Some(Binary(&publication.payload)),
            (Err(_), Encoding::Json) => msg.b64 = Some(STANDARD.encode(&publication.payload)),
            (Ok(text), Encoding::Json) => match as_data(text, msg.ct) {
                Some(data) => msg.data = Some(data),
                None => msg.text = Some(text),
            },
        }
        msg
    }
}

/// The payload as a JSON value, if it is one that is safe to pass on.
fn as_data<'a>(text: &'a str, content_type: Option<&str>) -> Option<&'a RawValue> {
    // "21.5" that says of itself that it is text stays a string.
    if content_type.is_some_and(|ct| ct.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("text/"))) {
        return None;
    }
    let data: &RawValue = serde_json::from_str(text).ok()?;
    // What nests deeper goes as text: it would end the subscriber's JSON parser, not only the payload's.
    (json_depth(data.get()) <= DATA_DEPTH_MAX).then_some(data)
}

/// Levels of arrays and objects in `data`, in and out.
pub(super) const DATA_DEPTH_MAX: usize = 64;

impl<'a> Corr<'a> {
    pub(super) fn new(bytes: &'a [u8], encoding: Encoding) -> Self {
        match (simdutf8::basic::from_utf8(bytes), encoding) {
            (Ok(text), _) => Self::Text(text),
            (Err(_), Encoding::MessagePack) => Self::Bin(Binary(bytes)),
            (Err(_), Encoding::Json) => Self::Base64 { b64: STANDARD.encode(bytes) },
        }
    }
}

impl Serialize for Binary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl Serialize for Props<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names: Vec<(&str, Vec<&str>)> = Vec::new();
        // Index by name: 10 000 properties of one message must not cost 10 000² comparisons.
        let mut index = std::collections::HashMap::new();
        for (name, value) in self.0 {
            let at = *index.entry(name.as_ref()).or_insert(names.len());
            match names.get_mut(at) {
                Some((_, values)) => values.push(value),
                None => names.push((name, vec![value])),
            }
        }
        let mut map = serializer.serialize_map(Some(names.len()))?;
        for (name, values) in &names {
            match values.as_slice() {
                [only] => map.serialize_entry(name, only)?,
                several => map.serialize_entry(name, several)?,
            }
        }
        map.end()
    }
}

//! The envelope `msg` (WIRE §3): golden bytes in both encodings, and what holds of every message.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test helper may panic")]

mod raw_support;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use raw_support::{publication, topic, unframed};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;
use tidegate_protocol::publication::{Form, Properties, Publication};
use tidegate_protocol::raw::FORMS;

const JSON: u8 = 10;
const JSON_RETAINED: u8 = 11;
const MESSAGE_PACK: u8 = 12;
const MESSAGE_PACK_RETAINED: u8 = 13;

fn form(slot: u8) -> &'static Form {
    FORMS.iter().find(|form| form.slot == slot).unwrap()
}

/// The message of a form; its frame is text for JSON and binary for MessagePack.
fn message(publication: &Publication, slot: u8) -> Vec<u8> {
    let (opcode, bytes) = unframed(publication.prepared(form(slot)).frame());
    assert_eq!(opcode, if slot < MESSAGE_PACK { 1 } else { 2 });
    bytes.to_vec()
}

fn check(publication: &Publication, json: &str, message_pack: &[u8]) {
    assert_eq!(String::from_utf8(message(publication, JSON)).unwrap(), json);
    let packed = message(publication, MESSAGE_PACK);
    assert_eq!(packed, message_pack, "{}", String::from_utf8_lossy(&packed));
}

#[test]
fn the_payload_decides_its_name() {
    for (payload, json, message_pack) in [
        (&b"21.5"[..], r#""data":21.5"#, &b"\xa4text\xa421.5"[..]),
        (b"{\"a\" : [1, null]}", r#""data":{"a" : [1, null]}"#, b"\xa4text\xb1{\"a\" : [1, null]}"),
        (b" true\n", r#""data":true"#, b"\xa4text\xa6 true\n"),
        (b"\"x\"", r#""data":"x""#, b"\xa4text\xa3\"x\""),
        (b"", r#""text":"""#, b"\xa4text\xa0"),
        (b"hello", r#""text":"hello""#, b"\xa4text\xa5hello"),
        (b"1 2", r#""text":"1 2""#, b"\xa4text\xa31 2"),
        (b"{\"a\":1,}", r#""text":"{\"a\":1,}""#, b"\xa4text\xa8{\"a\":1,}"),
        (b"NaN", r#""text":"NaN""#, b"\xa4text\xa3NaN"),
        (b"01", r#""text":"01""#, b"\xa4text\xa201"),
        (b"a\0\"", r#""text":"a\u0000\"""#, b"\xa4text\xa3a\0\""),
        ("\u{feff}1".as_bytes(), "\"text\":\"\u{feff}1\"", b"\xa4text\xa4\xef\xbb\xbf1"),
        (b"\xff\x00", r#""b64":"/wA=""#, b"\xa3bin\xc4\x02\xff\x00"),
        (b"\"\xff\"", r#""b64":"Iv8i""#, b"\xa3bin\xc4\x03\"\xff\""),
    ] {
        let json = format!(r#"{{"op":"msg","topic":"t/1",{json}}}"#);
        let message_pack = [b"\x83\xa2op\xa3msg\xa5topic\xa3t/1", message_pack].concat();
        check(&publication("t/1", payload), &json, &message_pack);
    }
}

#[test]
fn all_fields_in_their_order() {
    let mut full = publication("t", b"1");
    full.published_ms = 1_767_225_600_123;
    full.properties = Some(Box::new(Properties {
        content_type: Some("application/json".into()),
        response_topic: Some(topic("r")),
        correlation_data: Some(Bytes::from_static(b"c")),
        user: vec![("k".into(), "1".into()), ("a".into(), "2".into()), ("k".into(), "3".into())],
    }));
    let expected = concat!(
        r#"{"op":"msg","topic":"t","data":1,"ct":"application/json","ret":true,"ts":1767225600123,"#,
        r#""props":{"k":["1","3"],"a":"2"},"reply":"r","corr":"c"}"#
    );
    assert_eq!(String::from_utf8(message(&full, JSON_RETAINED)).unwrap(), expected);
    let expected = [
        &b"\x89\xa2op\xa3msg\xa5topic\xa1t\xa4text\xa11\xa2ct\xb0application/json\xa3ret\xc3"[..],
        b"\xa2ts\xcf\x00\x00\x01\x9b\x76\xda\xa8\x7b",
        b"\xa5props\x82\xa1k\x92\xa11\xa13\xa1a\xa12\xa5reply\xa1r\xa4corr\xa1c",
    ]
    .concat();
    assert_eq!(message(&full, MESSAGE_PACK_RETAINED), expected);
}

#[test]
fn correlation_data_that_is_no_text_is_base64_or_bytes() {
    let mut full = publication("t", b"1");
    let correlation_data = Some(Bytes::from_static(b"\xff"));
    full.properties = Some(Box::new(Properties { correlation_data, ..Properties::default() }));
    check(
        &full,
        r#"{"op":"msg","topic":"t","data":1,"corr":{"b64":"/w=="}}"#,
        b"\x84\xa2op\xa3msg\xa5topic\xa1t\xa4text\xa11\xa4corr\xc4\x01\xff",
    );
}

#[test]
fn what_calls_itself_text_stays_a_string() {
    let mut plain = publication("t", b"21.5");
    let content_type = Some("Text/plain".into());
    plain.properties = Some(Box::new(Properties { content_type, ..Properties::default() }));
    let json = message(&plain, JSON);
    assert_eq!(
        String::from_utf8(json).unwrap(),
        r#"{"op":"msg","topic":"t","text":"21.5","ct":"Text/plain"}"#
    );
}

#[test]
fn json_that_nests_too_deeply_goes_as_text() {
    for (depth, name) in [(64, "data"), (65, "text"), (100_000, "text")] {
        let payload = "[".repeat(depth) + &"]".repeat(depth);
        let json = String::from_utf8(message(&publication("t", payload.as_bytes()), JSON)).unwrap();
        assert!(json.starts_with(&format!(r#"{{"op":"msg","topic":"t","{name}":"#)), "{depth}");
    }
    let brackets = format!(r#""{}\"""#, "[".repeat(1000));
    let json = String::from_utf8(message(&publication("t", brackets.as_bytes()), JSON)).unwrap();
    assert!(json.contains(r#""data":"[[["#), "brackets in a string are no nesting");
}

/// A `msg` as a client reads it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Msg {
    op: String,
    topic: String,
    data: Option<Box<RawValue>>,
    text: Option<String>,
    b64: Option<String>,
    bin: Option<Bin>,
    ct: Option<String>,
    ret: Option<bool>,
    ts: Option<u64>,
    props: Option<BTreeMap<String, OneOrMore>>,
    reply: Option<String>,
    corr: Option<Corr>,
}

#[derive(Debug, PartialEq)]
struct Bin(Vec<u8>);

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Corr {
    Text(String),
    Base64 { b64: String },
    Bin(Bin),
}

impl<'de> Deserialize<'de> for Bin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Bin;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bin, E> {
                Ok(Bin(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl Msg {
    /// The payload, when exactly one field has it.
    fn payload(&self) -> Vec<u8> {
        let all = [
            self.data.as_ref().map(|data| data.get().as_bytes().to_vec()),
            self.text.as_ref().map(|text| text.as_bytes().to_vec()),
            self.b64.as_ref().map(|text| STANDARD.decode(text).unwrap()),
            self.bin.as_ref().map(|bin| bin.0.clone()),
        ];
        let mut found = all.into_iter().flatten();
        let payload = found.next().expect("a payload");
        assert!(found.next().is_none(), "one payload: {self:?}");
        payload
    }

    fn correlation(&self) -> Option<Vec<u8>> {
        self.corr.as_ref().map(|corr| match corr {
            Corr::Text(text) => text.as_bytes().to_vec(),
            Corr::Base64 { b64 } => STANDARD.decode(b64).unwrap(),
            Corr::Bin(bin) => bin.0.clone(),
        })
    }

    fn user(&self) -> BTreeMap<String, Vec<String>> {
        let props = self.props.iter().flatten();
        props
            .map(|(name, values)| match values {
                OneOrMore::One(value) => (name.clone(), vec![value.clone()]),
                OneOrMore::More(values) => (name.clone(), values.clone()),
            })
            .collect()
    }
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        ".{0,40}".prop_map(String::into_bytes),
        r#"[\[\]{}",:0-9a-z\\ .+-]{0,12}"#.prop_map(String::into_bytes),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,5})?".prop_map(String::into_bytes),
    ]
}

fn properties() -> impl Strategy<Value = Properties> {
    let user = prop::collection::vec(("[ab]{1,2}", ".{0,5}"), 0..6);
    let correlation = prop::option::of(prop::collection::vec(any::<u8>(), 0..9));
    (prop::option::of("[a-z/]{0,9}"), prop::option::of("[a-z/]{1,9}"), correlation, user).prop_map(
        |(content_type, reply, correlation, user)| Properties {
            content_type: content_type.map(String::into_boxed_str),
            response_topic: reply.map(|name| topic(&name)),
            correlation_data: correlation.map(Bytes::from),
            user: user.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        },
    )
}

proptest! {
    #[test]
    fn both_encodings_say_the_publication(
        payload in payloads(),
        properties in prop::option::of(properties()),
        published_ms in any::<u64>(),
        is_retained in any::<bool>(),
    ) {
        let mut publication = publication("a/ü", &payload);
        publication.published_ms = published_ms;
        publication.properties = properties.clone().map(Box::new);
        let (json_slot, pack_slot) =
            if is_retained { (JSON_RETAINED, MESSAGE_PACK_RETAINED) } else { (JSON, MESSAGE_PACK) };
        let json: Msg = serde_json::from_slice(&message(&publication, json_slot)).unwrap();
        let pack: Msg = rmp_serde::from_slice(&message(&publication, pack_slot)).unwrap();

        prop_assert_eq!(pack.payload(), payload.clone());
        if json.data.is_some() {
            // Verbatim, but for the space around it.
            prop_assert_eq!(json.payload(), payload.trim_ascii());
        } else {
            prop_assert_eq!(json.payload(), payload);
        }
        let properties = properties.unwrap_or_default();
        let mut user: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &properties.user {
            user.entry(name.to_string()).or_default().push(value.to_string());
        }
        for msg in [&json, &pack] {
            prop_assert_eq!((msg.op.as_str(), msg.topic.as_str()), ("msg", "a/ü"));
            prop_assert_eq!(msg.ct.as_deref(), properties.content_type.as_deref());
            prop_assert_eq!(msg.ret, is_retained.then_some(true));
            prop_assert_eq!(msg.ts, (published_ms != 0).then_some(published_ms));
            prop_assert_eq!(msg.reply.as_deref(), properties.response_topic.as_ref().map(|topic| topic.as_str()));
            prop_assert_eq!(msg.correlation(), properties.correlation_data.as_ref().map(|data| data.to_vec()));
            prop_assert_eq!(msg.user(), user.clone());
        }
    }

    #[test]
    fn what_is_published_comes_out_as_it_went_in(payload in payloads(), is_json in any::<bool>()) {
        let mut client = raw_support::connected("");
        let text = String::from_utf8(payload.clone()).ok();
        let field = match &text {
            Some(text) => serde_json::json!({"op": "pub", "topic": "a", "text": text}),
            None => serde_json::json!({"op": "pub", "topic": "a", "b64": STANDARD.encode(&payload)}),
        };
        if is_json {
            client.text(&field.to_string());
        } else {
            client.binary(rmp_serde::to_vec_named(&field).unwrap());
        }
        prop_assert_eq!(&client.published().payload[..], &payload[..]);
        prop_assert_eq!(client.published().is_text, text.is_some());
    }

    #[test]
    fn no_bytes_panic_and_each_message_is_answered_or_obeyed(
        messages in prop::collection::vec((any::<bool>(), r#"[\[\]{}",:0-9a-z\\ ]{0,20}"#, prop::collection::vec(any::<u8>(), 0..20)), 1..5),
    ) {
        let mut client = raw_support::connected("");
        for (is_text, text, bytes) in messages {
            if client.closed.is_some() {
                break;
            }
            let is_empty_list = if is_text {
                text.chars().filter(|c| *c != ' ').eq("[]".chars())
            } else {
                matches!(bytes.as_slice(), [0x90] | [0xdc, 0, 0] | [0xdd, 0, 0, 0, 0])
            };
            if is_text { client.text(&text) } else { client.binary(bytes) }
            let is_answered = !client.sent.is_empty() || !client.requests.is_empty();
            prop_assert!(is_answered || is_empty_list);
            client.sent.clear();
        }
    }
}

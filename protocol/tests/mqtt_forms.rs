//! The shared wire forms of PUBLISH: complete WebSocket messages, as golden bytes.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use bytes::Bytes;
use tidegate_protocol::mqtt::{MQTT3_LIVE, MQTT3_RETAINED, MQTT5_LIVE, MQTT5_RETAINED};
use tidegate_protocol::publication::{Form, Properties, Publication};
use tidegate_protocol::topic::{Topic, TopicLimits};

fn topic(name: &str) -> Topic {
    Topic::parse(name, &TopicLimits::STANDARD).unwrap()
}

fn check(publication: &Publication, form: &Form, expected: &[u8]) {
    assert_eq!(&publication.prepared(form).frame()[..], expected);
}

#[test]
fn a_plain_publication_in_every_form() {
    let publication = Publication::new(topic("a/b"), Bytes::from_static(b"hi"));
    check(&publication, &MQTT3_LIVE, b"\x82\x09\x30\x07\0\x03a/bhi");
    check(&publication, &MQTT3_RETAINED, b"\x82\x09\x31\x07\0\x03a/bhi");
    check(&publication, &MQTT5_LIVE, b"\x82\x0A\x30\x08\0\x03a/b\0hi");
    check(&publication, &MQTT5_RETAINED, b"\x82\x0A\x31\x08\0\x03a/b\0hi");
}

#[test]
fn mqtt_5_carries_what_the_publisher_said() {
    let mut publication = Publication::new(topic("a"), Bytes::from_static(b"x"));
    publication.is_text = true;
    publication.properties = Some(Box::new(Properties {
        content_type: Some("t".into()),
        response_topic: Some(topic("r")),
        correlation_data: Some(Bytes::from_static(b"\0")),
        user: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
    }));
    let list = b"\x01\x01\x03\0\x01t\x08\0\x01r\x09\0\x01\0\x26\0\x01k\0\x011\x26\0\x01k\0\x012";
    let packet = [&b"\x82\x23\x30\x21\0\x01a\x1C"[..], list, b"x"].concat();
    check(&publication, &MQTT5_LIVE, &packet);
    check(&publication, &MQTT3_LIVE, b"\x82\x06\x30\x04\0\x01ax");
}

#[test]
fn what_mqtt_cannot_say_is_left_out() {
    let mut publication = Publication::new(topic("a"), Bytes::new());
    publication.properties = Some(Box::new(Properties {
        content_type: Some("\0".into()),
        response_topic: None,
        correlation_data: Some(Bytes::from(vec![0; 65_536])),
        user: vec![
            ("a\0".into(), "".into()),
            ("".into(), "x".repeat(65_536).into()),
            ("k".into(), "".into()),
        ],
    }));
    check(&publication, &MQTT5_LIVE, b"\x82\x0C\x30\x0A\0\x01a\x06\x26\0\x01k\0\0");
}

#[test]
fn an_expiry_needs_the_session() {
    let lack: Vec<bool> =
        [&MQTT3_LIVE, &MQTT3_RETAINED, &MQTT5_LIVE, &MQTT5_RETAINED].map(|form| form.lacks_expiry).to_vec();
    assert_eq!(lack, [false, false, true, true]);
}

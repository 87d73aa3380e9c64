//! Every record comes back as it was, and bytes that are none are refused.

use super::*;
use tidegate_protocol::topic::TopicLimits;

fn topic(text: &str) -> Topic {
    Topic::parse(text, &TopicLimits::STANDARD).unwrap()
}

fn publication() -> PublicationRecord {
    PublicationRecord {
        topic: topic("plant/line/4"),
        payload: Bytes::from_static(&[0, 1, 0xff]),
        qos: QoS::ExactlyOnce,
        retain: true,
        is_text: false,
        properties: Some(Box::new(Properties {
            content_type: Some("text/plain".into()),
            response_topic: Some(topic("answers")),
            correlation_data: Some(Bytes::from_static(b"\x00\x01")),
            user: vec![("a".into(), "b".into()), ("a".into(), "c".into())],
        })),
        expires_at_ms: Some(u64::MAX),
        published_ms: 1_767_225_600_000,
        publisher: 7,
    }
}

fn subscription() -> SubscriptionRecord {
    SubscriptionRecord {
        key: SubscriptionKey {
            filter: TopicFilter::parse("plant/+/#", &TopicLimits::STANDARD).unwrap(),
            group: Some(ShareName::parse("workers", &TopicLimits::STANDARD).unwrap()),
            id: SubscriptionId(9),
        },
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: false,
        identifier: NonZeroU32::new(268_435_455),
        overflow: Overflow::Conflate,
        overflow_acked: Overflow::Disconnect,
        conflate_ms: Some(250),
        copies: Copies::PerSubscription,
        owes_retained: true,
        selector: Some("a = 1".into()),
    }
}

fn reference() -> ReferenceRecord {
    ReferenceRecord {
        body: BodyId(u64::MAX),
        qos: QoS::ExactlyOnce,
        retain: false,
        is_retained: true,
        size_bytes: 1_024,
        subscription: SubscriptionId(3),
        also: vec![NonZeroU32::MIN],
        expires_at_ms: None,
        received: Some(65_535),
    }
}

fn session() -> SessionRecord {
    SessionRecord {
        name: "anna/sensor".into(),
        expiry_ms: SessionRecord::NEVER,
        away: Some(Away { expires_at_ms: 5 }),
        will: Some(Box::new(WillRecord {
            due_at_ms: Some(3),
            publication: publication(),
            delay_ms: 2,
            expiry_ms: None,
        })),
        lost: 4,
    }
}

/// Comes back, and neither a shorter nor a longer text of it is one.
fn check<R: Record + PartialEq + std::fmt::Debug>(record: &R) {
    let mut bytes = record.encode();
    assert_eq!(R::decode(&bytes).as_ref(), Ok(record));
    for len in 0..bytes.len() {
        assert!(R::decode(&bytes[..len]).is_err(), "{len} of {} bytes are a record", bytes.len());
    }
    bytes.push(0);
    assert_eq!(R::decode(&bytes), Err(RecordError::Trailing(1)));
    bytes[0] = R::VERSION + 1;
    assert_eq!(R::decode(&bytes), Err(RecordError::Version(R::VERSION + 1)));
}

#[test]
fn records_come_back_as_they_were() {
    check(&publication());
    check(&PublicationRecord { properties: None, ..publication() });
    check(&subscription());
    check(&SubscriptionRecord { identifier: None, conflate_ms: None, ..subscription() });
    check(&reference());
    check(&session());
    check(&SessionRecord { will: None, away: None, ..session() });
}

#[test]
fn a_subscription_of_version_1_is_owed_nothing_and_selects_all() {
    let plain = SubscriptionRecord { selector: None, ..subscription() };
    let mut bytes = plain.encode();
    // The version, and an array with two fields fewer.
    assert_eq!(bytes.split_off(bytes.len() - 2), [0xc3, 0xc0], "the last fields are the flag and nil");
    (bytes[0], bytes[1]) = (1, bytes[1] - 2);
    let expected = SubscriptionRecord { owes_retained: false, ..plain };
    assert_eq!(SubscriptionRecord::decode(&bytes), Ok(expected));
}

#[test]
fn a_publication_comes_back_through_its_record() {
    let record = publication();
    let publication = record.clone().into_publication();
    assert_eq!(PublicationRecord::new(&publication, record.expires_at_ms), record);
}

#[test]
fn a_topic_with_a_wildcard_is_no_record() {
    let mut bytes = PublicationRecord { properties: None, ..publication() }.encode();
    let slash = bytes.iter().position(|byte| *byte == b'/').unwrap();
    bytes[slash] = b'#';
    assert_eq!(PublicationRecord::decode(&bytes), Err(RecordError::Malformed));
}

#[test]
fn a_claimed_length_allocates_nothing() {
    // An array of one field, which claims 4 GiB of payload or 4 G elements.
    for head in [0xc6, 0xdb, 0xdd, 0xdf] {
        let bytes = [PublicationRecord::VERSION, 0x99, head, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(PublicationRecord::decode(&bytes), Err(RecordError::Malformed));
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes: Vec<u8>, at: usize, byte: u8) {
        let _ = PublicationRecord::decode(&bytes);
        for mut valid in [publication().encode(), subscription().encode(), reference().encode(), session().encode()] {
            let at = at % valid.len();
            valid[at] = byte;
            let _ = PublicationRecord::decode(&valid);
            let _ = SubscriptionRecord::decode(&valid);
            let _ = ReferenceRecord::decode(&valid);
            let _ = SessionRecord::decode(&valid);
        }
    }
}

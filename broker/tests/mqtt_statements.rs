//! Statements of MQTT that only the whole broker can show and that no other file is about: what SUBSCRIBE's options
//! do, what an identifier means after its exchange, what a group owes to whom (OASIS MQTT 5.0 §3.3, §3.8, §4.3, §4.7,
//! §4.8.2), and limits of `[mqtt]` that a whole connection obeys. `protocol/src/mqtt/conformance.md` says which
//! statement is shown where.

#![expect(clippy::panic, reason = "a test helper may panic")]

mod support;

use support::Broker;
use support::mqtt::{self, Mqtt};
use support::socket::Ask;
use tidegate_protocol::mqtt::packet::{
    Ack, Connect, Packet, Properties, Publish, ReasonCode, Subscribe, Subscription, Version, Will,
};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::RetainHandling;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

fn ack(packet_id: u16) -> Ack {
    Ack::new(packet_id, ReasonCode::SUCCESS)
}

async fn next_publish(client: &mut Mqtt) -> Publish {
    match client.packet().await {
        Packet::Publish(publish) => publish,
        other => panic!("PUBLISH was expected: {other:?}"),
    }
}

/// PINGREQ until PINGRESP: everything sent before has been handled, and nothing else is on its way.
async fn nothing_more(client: &mut Mqtt) {
    client.send(Packet::PingReq).await;
    assert_eq!(client.packet().await, Packet::PingResp);
}

/// A client whose session outlives its connection.
async fn lasting(broker: &Broker, client_id: &str) -> (Mqtt, bool) {
    let properties = Properties { session_expiry_interval_s: Some(3600), ..Properties::default() };
    let connect = Connect {
        clean_start: false,
        properties: Some(Box::new(properties)),
        ..mqtt::connect(Version::V5, client_id)
    };
    let mut client = Mqtt::open(broker, Version::V5, Ask::default()).await;
    let connack = client.connect(connect).await;
    (client, connack.session_present)
}

async fn retain(broker: &Broker, topic: &str, payload: &'static str) {
    let mut publisher = Mqtt::connected(broker, Version::V5).await;
    publisher.publish(Publish { retain: true, ..mqtt::publish(topic, payload) }).await;
    nothing_more(&mut publisher).await;
}

// ---- the options of SUBSCRIBE ----

/// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]; at a replacement too [MQTT-3.8.4-4].
#[tokio::test]
async fn retain_handling_decides_what_is_sent_at_a_subscription() {
    let broker = Broker::start("").await;
    retain(&broker, "a", "kept").await;
    for (handling, at_first, again) in [
        (RetainHandling::Send, true, true),
        (RetainHandling::SendIfNew, true, false),
        (RetainHandling::Skip, false, false),
    ] {
        let mut client = Mqtt::connected(&broker, Version::V5).await;
        for is_sent in [at_first, again] {
            let filter =
                Subscription { retain_handling: handling, ..mqtt::subscription("a", QoS::AtMostOnce) };
            client.subscribe_all(vec![filter]).await;
            if is_sent {
                let kept = next_publish(&mut client).await;
                assert_eq!((&*kept.payload, kept.retain), (&b"kept"[..], true), "{handling:?}");
            }
            nothing_more(&mut client).await;
        }
    }
}

/// [MQTT-3.3.1-12], [MQTT-3.3.1-13]
#[tokio::test]
async fn retain_as_published_decides_about_the_flag_of_what_is_live() {
    let broker = Broker::start("").await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        for retain_as_published in [false, true] {
            let mut client = Mqtt::connected(&broker, Version::V5).await;
            let retain_handling = RetainHandling::Skip;
            let filter =
                Subscription { retain_as_published, retain_handling, ..mqtt::subscription("a", qos) };
            client.subscribe_all(vec![filter]).await;
            for retain in [false, true] {
                let packet_id = publisher.next_id();
                publisher.publish(Publish { retain, ..mqtt::publish_acked("a", "x", packet_id) }).await;
                publisher.packet().await;
                let live = client.delivery().await;
                assert_eq!(live.retain, retain && retain_as_published, "{retain_as_published} {retain}");
            }
        }
    }
}

/// [MQTT-3.8.4-3], [MQTT-3.8.4-8]
#[tokio::test]
async fn the_same_filter_again_replaces_the_subscription_and_its_qos() {
    let broker = Broker::start("").await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for version in VERSIONS {
        let mut client = Mqtt::named(&broker, version, "c").await;
        for granted in [QoS::AtLeastOnce, QoS::AtMostOnce, QoS::AtLeastOnce] {
            client.subscribe("a", granted).await;
            publisher.publish_acked("a", "x").await;
            assert_eq!(client.delivery().await.qos, granted, "{version:?}");
            nothing_more(&mut client).await;
        }
    }
}

/// [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4]: one copy, at the highest QoS, with both identifiers.
#[tokio::test]
async fn overlapping_subscriptions_give_one_copy_with_all_their_identifiers() {
    let broker = Broker::start("").await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    for (filter, qos, identifier) in [
        ("a/+", QoS::AtMostOnce, Some(7)),
        ("a/#", QoS::AtLeastOnce, Some(268_435_455)),
        ("#", QoS::AtMostOnce, None),
    ] {
        let properties = identifier.map(|identifier| {
            Box::new(Properties { subscription_identifiers: vec![identifier], ..Properties::default() })
        });
        let filters = vec![mqtt::subscription(filter, qos)];
        client.send(Packet::Subscribe(Subscribe { packet_id: 1, properties, filters })).await;
        assert!(matches!(client.packet().await, Packet::SubAck(_)));
    }
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    publisher.publish_acked("a/b", "x").await;
    let copy = client.delivery().await;
    assert_eq!(copy.qos, QoS::AtLeastOnce);
    let mut identifiers = copy.properties.unwrap().subscription_identifiers;
    identifiers.sort_unstable();
    assert_eq!(identifiers, [7, 268_435_455]);
    nothing_more(&mut client).await;
}

/// [MQTT-3.10.4-3]
#[tokio::test]
async fn an_unsubscribe_does_not_cut_a_delivery_that_has_begun() {
    let broker = Broker::start("").await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for version in VERSIONS {
        let mut client = Mqtt::named(&broker, version, "c").await;
        client.subscribe("a", QoS::ExactlyOnce).await;
        publisher.publish(Publish { qos: QoS::ExactlyOnce, packet_id: 9, ..mqtt::publish("a", "x") }).await;
        assert!(matches!(publisher.packet().await, Packet::PubRec(_)));
        publisher.send(Packet::PubRel(ack(9))).await;
        assert!(matches!(publisher.packet().await, Packet::PubComp(_)));
        let begun = next_publish(&mut client).await;
        assert_eq!(client.unsubscribe("a").await, []);
        client.send(Packet::PubRec(ack(begun.packet_id))).await;
        assert_eq!(client.packet().await, Packet::PubRel(ack(begun.packet_id)), "{version:?}");
        client.send(Packet::PubComp(ack(begun.packet_id))).await;
        nothing_more(&mut client).await;
    }
}

/// [MQTT-3.3.1-6], [MQTT-3.3.1-7]: to those who are there it is a message like any other.
#[tokio::test]
async fn an_empty_retained_message_is_delivered_and_not_kept() {
    let broker = Broker::start("").await;
    for version in VERSIONS {
        retain(&broker, "a", "kept").await;
        let mut client = Mqtt::named(&broker, version, "c").await;
        client.subscribe("a", QoS::AtMostOnce).await;
        assert_eq!(next_publish(&mut client).await.payload, "kept");
        for _ in 0..2 {
            retain(&broker, "a", "").await;
            let empty = next_publish(&mut client).await;
            assert_eq!((&*empty.payload, empty.retain), (&b""[..], false), "{version:?}");
        }
        client.subscribe("a", QoS::AtMostOnce).await;
        nothing_more(&mut client).await;
    }
}

// ---- topics ----

/// [MQTT-4.7.3-4]: compared byte by byte.
#[tokio::test]
async fn topics_are_not_normalised() {
    let broker = Broker::start("").await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for (filter, others) in [
        ("a/b", &["A/b", "a//b", "/a/b", "a/b/", "a/b ", " a/b"][..]),
        ("\u{E9}", &["e\u{301}", "e", "\u{C9}"]),
        ("\u{FEFF}a", &["a", "\u{FFFD}a"]),
        ("a%2Fb", &["a/b"]),
        ("../a", &["a"]),
    ] {
        client.subscribe(filter, QoS::AtMostOnce).await;
        for other in others {
            let reason = publisher.publish_acked(other, "other").await;
            assert_eq!(reason, ReasonCode::NO_MATCHING_SUBSCRIBERS, "{other:?} for {filter:?}");
        }
        publisher.publish_acked(filter, "same").await;
        assert_eq!(next_publish(&mut client).await.topic, Some(mqtt::topic(filter)));
        client.unsubscribe(filter).await;
    }
}

// ---- identifiers and aliases ----

/// [MQTT-4.3.2-5], [MQTT-4.3.3-12]: whatever DUP says.
#[tokio::test]
async fn an_identifier_whose_exchange_is_over_is_that_of_a_new_message() {
    let broker = Broker::start("").await;
    for version in VERSIONS {
        let mut watcher = Mqtt::connected(&broker, Version::V5).await;
        watcher.subscribe("a", QoS::AtMostOnce).await;
        let mut client = Mqtt::named(&broker, version, "c").await;
        for (qos, dup) in [
            (QoS::AtLeastOnce, false),
            (QoS::AtLeastOnce, true),
            (QoS::ExactlyOnce, false),
            (QoS::ExactlyOnce, true),
        ] {
            client.publish(Publish { qos, dup, packet_id: 5, ..mqtt::publish("a", "x") }).await;
            if qos == QoS::ExactlyOnce {
                assert_eq!(client.packet().await, Packet::PubRec(ack(5)));
                client.send(Packet::PubRel(ack(5))).await;
                assert_eq!(client.packet().await, Packet::PubComp(ack(5)));
            } else {
                assert_eq!(client.packet().await, Packet::PubAck(ack(5)));
            }
            // DUP is not handed on [MQTT-3.3.1-3].
            assert!(!next_publish(&mut watcher).await.dup, "{version:?} {qos:?}");
        }
        nothing_more(&mut watcher).await;
    }
}

/// [MQTT-3.3.2-5], [MQTT-4.3.3-13]
#[tokio::test]
async fn a_publish_that_has_expired_is_acknowledged_and_delivered_to_nobody() {
    let broker = Broker::start("").await;
    let mut watcher = Mqtt::connected(&broker, Version::V5).await;
    watcher.subscribe("a", QoS::ExactlyOnce).await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let properties = Properties { message_expiry_interval_s: Some(0), ..Properties::default() };
        let properties = Some(Box::new(properties));
        client.publish(Publish { qos, packet_id: 2, properties, ..mqtt::publish("a", "late") }).await;
        if qos == QoS::AtLeastOnce {
            assert_eq!(client.packet().await, Packet::PubAck(ack(2)));
        } else {
            assert_eq!(client.packet().await, Packet::PubRec(ack(2)));
            client.send(Packet::PubRel(ack(2))).await;
            assert_eq!(client.packet().await, Packet::PubComp(ack(2)));
        }
        client.publish_acked("a", "end").await;
        assert_eq!(watcher.delivery().await.payload, "end", "{qos:?}");
    }
}

/// [MQTT-3.3.2-7]
#[tokio::test]
async fn a_topic_alias_ends_with_its_connection() {
    let broker = Broker::start("").await;
    let aliased = |topic: Option<&str>| {
        let properties = Properties { topic_alias: Some(1), ..Properties::default() };
        Publish {
            topic: topic.map(mqtt::topic),
            properties: Some(Box::new(properties)),
            ..mqtt::publish_acked("a", "x", 1)
        }
    };
    let (mut client, _) = lasting(&broker, "c").await;
    for topic in [Some("a"), None] {
        client.publish(aliased(topic)).await;
        assert!(matches!(client.packet().await, Packet::PubAck(_)));
    }
    drop(client);
    let (mut client, is_present) = lasting(&broker, "c").await;
    assert!(is_present);
    client.publish(aliased(None)).await;
    assert_eq!(client.end().await.0, Some(ReasonCode::PROTOCOL_ERROR));
}

/// [MQTT-3.1.3-7], [MQTT-3.2.2-16]
#[tokio::test]
async fn an_assigned_client_id_is_the_clients_own_and_finds_its_session() {
    let broker = Broker::start("").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let properties = Properties { session_expiry_interval_s: Some(3600), ..Properties::default() };
        let nameless = Connect {
            clean_start: false,
            properties: Some(Box::new(properties)),
            ..mqtt::connect(Version::V5, "")
        };
        let mut client = Mqtt::open(&broker, Version::V5, Ask::default()).await;
        let connack = client.connect(nameless).await;
        assert!(!connack.session_present);
        ids.push(connack.properties.unwrap().assigned_client_identifier.unwrap());
    }
    for id in &ids {
        assert!(lasting(&broker, id).await.1, "the session of {id}");
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

// ---- wills ----

/// [MQTT-3.1.2-14], [MQTT-3.1.2-15], [MQTT-3.1.3-10]
#[tokio::test]
async fn a_will_is_retained_only_when_it_says_so_and_keeps_the_order_of_its_properties() {
    let broker = Broker::start("").await;
    let user: Vec<(Box<str>, Box<str>)> = [("b", "1"), ("a", "2"), ("b", "0"), ("a", "2")]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
    for retain in [false, true] {
        let mut watcher = Mqtt::connected(&broker, Version::V5).await;
        watcher.subscribe("will", QoS::AtMostOnce).await;
        let properties = Properties { user: user.clone(), ..Properties::default() };
        let will = Will {
            topic: mqtt::topic("will"),
            payload: "gone".into(),
            qos: QoS::AtMostOnce,
            retain,
            properties: Some(Box::new(properties)),
        };
        let mut client = Mqtt::open(&broker, Version::V5, Ask::default()).await;
        client.connect(Connect { will: Some(will), ..mqtt::connect(Version::V5, "c") }).await;
        drop(client);
        let will = next_publish(&mut watcher).await;
        assert_eq!((will.retain, will.properties.unwrap().user), (false, user.clone()));
        let mut late = Mqtt::connected(&broker, Version::V5).await;
        late.subscribe("will", QoS::AtMostOnce).await;
        if retain {
            let kept = next_publish(&mut late).await;
            assert_eq!((kept.retain, kept.properties.unwrap().user), (true, user.clone()));
        }
        nothing_more(&mut late).await;
    }
}

/// 3.1.1 [MQTT-3.1.2-12]
#[tokio::test]
async fn no_will_no_message() {
    let broker = Broker::start("").await;
    let mut watcher = Mqtt::connected(&broker, Version::V5).await;
    watcher.subscribe("#", QoS::AtMostOnce).await;
    for version in VERSIONS {
        drop(Mqtt::named(&broker, version, "c").await);
        while broker.clients() != 1 {
            tokio::task::yield_now().await;
        }
        nothing_more(&mut watcher).await;
    }
}

/// 3.1.1 [MQTT-3.1.2-7]
#[tokio::test]
async fn what_is_retained_outlives_the_session_that_said_it() {
    let broker = Broker::start("").await;
    for version in VERSIONS {
        let topic = format!("{version:?}");
        let mut client = Mqtt::named(&broker, version, "c").await;
        client.publish(Publish { retain: true, ..mqtt::publish(&topic, "kept") }).await;
        nothing_more(&mut client).await;
        client.disconnect(ReasonCode::SUCCESS).await;
        client.end().await;
        drop(client);
        let mut late = Mqtt::named(&broker, version, "c").await;
        late.subscribe(&topic, QoS::AtMostOnce).await;
        assert_eq!(next_publish(&mut late).await.payload, "kept", "{version:?}");
        late.disconnect(ReasonCode::SUCCESS).await;
        late.end().await;
    }
}

// ---- groups ----

/// [MQTT-4.8.2-3]
#[tokio::test]
async fn each_member_of_a_group_gets_its_own_granted_qos() {
    let broker = Broker::start("").await;
    let mut members = Vec::new();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut member = Mqtt::connected(&broker, Version::V5).await;
        member.subscribe("$share/g/a", qos).await;
        members.push((member, qos));
    }
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for _ in 0..2 {
        assert_eq!(publisher.publish_acked("a", "x").await, ReasonCode::SUCCESS);
    }
    for (member, qos) in &mut members {
        assert_eq!(member.delivery().await.qos, *qos);
        nothing_more(member).await;
    }
}

/// [MQTT-4.8.2-6]
#[tokio::test]
async fn what_a_member_refuses_goes_to_no_other_one() {
    let broker = Broker::start("").await;
    let mut members = Vec::new();
    for _ in 0..2 {
        let mut member = Mqtt::connected(&broker, Version::V5).await;
        member.subscribe("$share/g/a", QoS::ExactlyOnce).await;
        members.push(member);
    }
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for _ in 0..2 {
        publisher.publish_acked("a", "x").await;
    }
    for member in &mut members {
        let delivery = next_publish(member).await;
        member.send(Packet::PubAck(Ack::new(delivery.packet_id, ReasonCode::UNSPECIFIED_ERROR))).await;
        nothing_more(member).await;
    }
    for member in &mut members {
        nothing_more(member).await;
    }
}

/// [MQTT-4.8.2-4]
#[tokio::test]
async fn a_shared_delivery_at_qos_2_is_completed_when_its_member_is_back() {
    let broker = Broker::start("").await;
    let (mut member, _) = lasting(&broker, "member").await;
    member.subscribe("$share/g/a", QoS::ExactlyOnce).await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    publisher.publish(Publish { qos: QoS::ExactlyOnce, packet_id: 3, ..mqtt::publish("a", "x") }).await;
    assert!(matches!(publisher.packet().await, Packet::PubRec(_)));
    let sent = next_publish(&mut member).await;
    let mut other = Mqtt::connected(&broker, Version::V5).await;
    other.subscribe("$share/g/a", QoS::ExactlyOnce).await;
    drop(member);
    let (mut member, is_present) = lasting(&broker, "member").await;
    assert!(is_present);
    assert_eq!(next_publish(&mut member).await, Publish { dup: true, ..sent.clone() });
    member.send(Packet::PubRec(ack(sent.packet_id))).await;
    assert_eq!(member.packet().await, Packet::PubRel(ack(sent.packet_id)));
    member.send(Packet::PubComp(ack(sent.packet_id))).await;
    nothing_more(&mut member).await;
    nothing_more(&mut other).await;
}

/// §3.3.2.3.2: it is refused in the acknowledgement, and the connection goes on. An exchange at QoS 2 is over, so that
/// the identifier stands for a new message.
#[tokio::test]
async fn a_payload_that_is_not_the_text_it_says_reaches_nobody() {
    let broker = Broker::start("").await;
    let mut reader = Mqtt::connected(&broker, Version::V5).await;
    reader.subscribe("a", QoS::ExactlyOnce).await;
    let mut writer = Mqtt::connected(&broker, Version::V5).await;
    let text = Properties { payload_format_indicator: Some(true), ..Properties::default() };
    for (qos, packet_id) in [(QoS::AtLeastOnce, 1), (QoS::ExactlyOnce, 2)] {
        for (payload, reason) in
            [(&b"\xff"[..], ReasonCode::PAYLOAD_FORMAT_INVALID), ("é".as_bytes(), ReasonCode::SUCCESS)]
        {
            let properties = Some(Box::new(text.clone()));
            writer.publish(Publish { qos, packet_id, properties, ..mqtt::publish("a", payload) }).await;
            let answer = match (writer.packet().await, qos) {
                (Packet::PubAck(answer), QoS::AtLeastOnce) | (Packet::PubRec(answer), QoS::ExactlyOnce) => {
                    answer
                }
                (other, _) => panic!("an answer was expected: {other:?}"),
            };
            assert_eq!((answer.packet_id, answer.reason), (packet_id, reason));
        }
        assert_eq!(&*next_publish(&mut reader).await.payload, "é".as_bytes(), "{qos:?}");
    }
    nothing_more(&mut reader).await;
}

// ---- limits ----

/// `mqtt.max_filters_per_subscribe`
#[tokio::test]
async fn one_subscribe_has_as_many_filters_as_the_operator_allows() {
    let broker = Broker::start("[mqtt]\nmax_filters_per_subscribe = 2").await;
    let filters = |names: &[&str]| -> Vec<_> {
        names.iter().map(|name| mqtt::subscription(name, QoS::AtMostOnce)).collect()
    };
    for version in VERSIONS {
        let mut client = Mqtt::named(&broker, version, "c").await;
        for names in [["a", "b"], ["c", "d"]] {
            assert_eq!(client.subscribe_all(filters(&names)).await, [ReasonCode::SUCCESS; 2], "{version:?}");
        }
        let filters = filters(&["a", "b", "c"]);
        client.send(Packet::Subscribe(Subscribe { packet_id: 9, properties: None, filters })).await;
        let (reason, end) = client.end().await;
        let expected = (version == Version::V5).then_some(ReasonCode::QUOTA_EXCEEDED);
        assert_eq!((reason, end.code()), (expected, 1009), "{version:?}");
    }
}

//! `[[topic]]` over real sockets: what a rule makes of a publish and of a will, in the words of each protocol.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod support;

use serde_json::json;
use support::Broker;
use support::client::{Client, Got, Protocol, WITH_VERBS, got};
use support::mqtt::{self, Mqtt, Packet};
use support::raw::{Code, Encoding, Envelope};
use support::socket::{Ask, Socket};
use support::stomp::Stomp;
use tidegate_protocol::mqtt::packet::{Ack, Connect, Publish, ReasonCode, Version, Will};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp;

const RULES: &str = r#"
[[topic]]
filter = "no/but"
retain = "allow"
[[topic]]
filter = "no/+"
retain = "deny"
[[topic]]
filter = "force/#"
retain = "force"
[[topic]]
filter = "fire/+"
qos_max = 0
[[topic]]
filter = "small/#"
max_payload = 4
"#;

/// Everything that arrived before a last message.
async fn rest(broker: &Broker, client: &mut Client) -> Vec<Got> {
    Client::connected(broker, Protocol::Mqtt5, Ask::default()).await.publish("end", "").await;
    client.until("end").await
}

async fn publish_acked(client: &mut Mqtt, publish: Publish) -> Ack {
    client.publish(publish).await;
    match client.packet().await {
        Packet::PubAck(ack) => ack,
        other => panic!("PUBACK was expected: {other:?}"),
    }
}

fn retained(publish: Publish) -> Publish {
    Publish { retain: true, ..publish }
}

/// The refusal of one publish in the words of each protocol.
async fn check_refused(
    broker: &Broker,
    topic: &str,
    payload: &'static str,
    retain: bool,
    expected: (ReasonCode, &str, u16, &str),
) {
    let (reason, word, code, words) = expected;
    let mut reader = Client::subscriber(broker, Protocol::Json, &["#"]).await;

    let mut client = Mqtt::connected(broker, Version::V5).await;
    let publish = Publish { retain, ..mqtt::publish_acked(topic, payload, 1) };
    let ack = publish_acked(&mut client, publish).await;
    let said = ack.properties.as_ref().and_then(|properties| properties.reason_string.as_deref());
    assert_eq!((ack.reason, said), (reason, Some(words)), "{topic}");

    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let mut client = Envelope::connected(broker, encoding).await;
        let answer = client.publish_acked(json!({"retain": retain}), topic, payload.as_bytes()).await;
        assert_eq!((&*answer.op, answer.code), ("err", Some(Code::Word(word.into()))), "{topic}");
        assert_eq!(answer.reason.as_deref(), Some(words));
    }

    let mut client = Stomp::connected(broker, stomp::Version::V1_2).await;
    let frame = Stomp::message(topic, payload).with_header("receipt", "1");
    client.send(&frame.with_header("retain", retain.to_string())).await;
    let (error, end) = client.end().await;
    assert_eq!(end.code(), code, "{topic}");
    assert!(error.unwrap().header("message").unwrap().contains(words), "{topic}");

    assert_eq!(rest(broker, &mut reader).await, [], "{topic}");
}

#[tokio::test]
async fn deny_refuses_a_retained_publish_in_the_words_of_each_protocol() {
    let broker = Broker::start(RULES).await;
    let words = "not allowed: nothing is retained on this topic";
    check_refused(&broker, "no/x", "x", true, (ReasonCode::NOT_AUTHORIZED, "denied", 4002, words)).await;

    // 3.x has no word for it and acknowledges: 3.1.1 [MQTT-3.3.5-2].
    let mut reader = Client::subscriber(&broker, Protocol::Json, &["no/#"]).await;
    for version in [Version::V3_1, Version::V3_1_1] {
        let mut client = Mqtt::named(&broker, version, "c").await;
        let publish = retained(mqtt::publish_acked("no/x", "x", 1));
        assert_eq!(publish_acked(&mut client, publish).await.reason, ReasonCode::SUCCESS);
    }
    assert_eq!(broker.metric("tidegate_publishes_refused_total{reason=\"not_authorized\"}").await, 6);
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    client.publish_acked("no/x", "not retained").await;
    assert_eq!(reader.next().await, got("no/x", "not retained"));
    assert_eq!(broker.metric("tidegate_retained_messages").await, 0);
}

#[tokio::test]
async fn the_first_rule_exempts_from_the_next() {
    let broker = Broker::start(RULES).await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    let ack = publish_acked(&mut client, retained(mqtt::publish_acked("no/but", "x", 1))).await;
    assert!(!ack.reason.is_error(), "{ack:?}");
    let mut late = Client::subscriber(&broker, Protocol::Stomp12, &["no/#"]).await;
    assert_eq!(late.next().await, Got { retained: true, ..got("no/but", "x") });
}

#[tokio::test]
async fn force_retains_what_nobody_asked_to_retain() {
    for protocol in WITH_VERBS.into_iter().chain([Protocol::Payload]) {
        let broker = Broker::start(RULES).await;
        let mut client = Client::publisher(&broker, protocol, "force/a").await;
        client.publish_acked("force/a", "1").await;
        client.publish_acked("force/a", "2").await;
        let mut late = Client::subscriber(&broker, Protocol::Mqtt5, &["force/#"]).await;
        assert_eq!(late.next().await, Got { retained: true, ..got("force/a", "2") }, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_rule_s_qos_is_that_of_deliveries_and_the_publisher_gets_its_own() {
    let broker = Broker::start(RULES).await;
    let mut reader = Mqtt::connected(&broker, Version::V5).await;
    reader.subscribe("#", QoS::AtLeastOnce).await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    for (topic, expected) in [("fire/a", QoS::AtMostOnce), ("other/a", QoS::AtLeastOnce)] {
        assert_eq!(client.publish_acked(topic, "x").await, ReasonCode::SUCCESS);
        let delivery = reader.delivery().await;
        assert_eq!((delivery.topic, delivery.qos), (Some(mqtt::topic(topic)), expected));
    }
}

#[tokio::test]
async fn a_payload_above_the_rule_s_limit_is_refused_in_the_words_of_each_protocol() {
    let broker = Broker::start(RULES).await;
    let words = "the limit topic.max_payload = 4 is reached";
    let expected = (ReasonCode::QUOTA_EXCEEDED, "too_many", 1008, words);
    check_refused(&broker, "small/a/b", "12345", false, expected).await;
    assert_eq!(broker.metric("tidegate_publishes_refused_total{reason=\"quota\"}").await, 4);

    let mut socket = Socket::open(broker.address, Ask { target: "/ws?pub=small", ..Ask::default() }).await;
    socket.send_text("12345").await;
    assert_eq!(socket.end().await.code(), 1008);

    let mut reader = Client::subscriber(&broker, Protocol::Json, &["#"]).await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    assert_eq!(client.publish_acked("small/a/b", "1234").await, ReasonCode::SUCCESS);
    assert_eq!(client.publish_acked("other", "12345").await, ReasonCode::SUCCESS);
    assert_eq!(rest(&broker, &mut reader).await, [got("small/a/b", "1234"), got("other", "12345")]);
}

fn with_will(version: Version, topic: &str, payload: &'static str, retain: bool) -> Connect {
    let topic = mqtt::topic(topic);
    let will = Will { topic, payload: payload.into(), qos: QoS::AtMostOnce, retain, properties: None };
    Connect { will: Some(will), ..mqtt::connect(version, "c") }
}

/// A will that could never be published is refused while its client can still be told.
#[tokio::test]
async fn a_will_against_the_rules_is_refused_at_connect() {
    let broker = Broker::start(RULES).await;
    for (topic, payload, retain, reason) in [
        ("no/x", "x", true, ReasonCode::NOT_AUTHORIZED),
        ("small/x", "12345", false, ReasonCode::QUOTA_EXCEEDED),
        ("$SYS/broker/version", "x", true, ReasonCode::TOPIC_NAME_INVALID),
    ] {
        let mut client = Mqtt::open(&broker, Version::V5, Ask::default()).await;
        client.send(Packet::Connect(Box::new(with_will(Version::V5, topic, payload, retain)))).await;
        match client.packet().await {
            Packet::ConnAck(ack) => assert_eq!(ack.reason, reason, "{topic}"),
            other => panic!("CONNACK was expected: {other:?}"),
        }
        let mut client = Mqtt::open(&broker, Version::V3_1_1, Ask::default()).await;
        client.send(Packet::Connect(Box::new(with_will(Version::V3_1_1, topic, payload, retain)))).await;
        if let Ok(Packet::ConnAck(ack)) = client.packet_or_end().await {
            assert!(ack.reason.is_error(), "{topic}: {ack:?}");
        }
    }
}

#[tokio::test]
async fn a_will_is_made_what_the_rule_wants() {
    let broker = Broker::start(RULES).await;
    let mut client = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    client.connect(with_will(Version::V5, "force/will", "gone", false)).await;
    drop(client);
    broker.metric_becomes("tidegate_retained_messages", |count| count == 1).await;
    let mut late = Client::subscriber(&broker, Protocol::Mqtt5, &["force/+"]).await;
    assert_eq!(late.next().await, Got { retained: true, ..got("force/will", "gone") });
}

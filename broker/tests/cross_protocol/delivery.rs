//! How surely a message arrives, as data (WIRE §8): what each way to publish it is answered with, and how each
//! subscriber gets it.

use serde_json::json;
use tidegate_protocol::mqtt::packet::{Ack, Connect, Packet, Properties, Publish, ReasonCode, Version};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp;

use crate::publisher::{MARKER, publish_marker};
use crate::support::Broker;
use crate::support::mqtt::{self, Mqtt};
use crate::support::raw::{Encoding, Envelope};
use crate::support::socket::{Ask, Socket};
use crate::support::stomp::Stomp;

/// A way to publish.
pub(crate) struct Way {
    pub(crate) what: &'static str,
    how: How,
    /// What the publisher hears.
    pub(crate) answer: &'static str,
    /// What MQTT subscribers get that were granted 0, 1 and 2.
    pub(crate) granted: [QoS; 3],
    /// Whether an MQTT session gets it that was away at the time.
    pub(crate) waits: bool,
}

enum How {
    Mqtt(QoS),
    Stomp(&'static [(&'static str, &'static str)]),
    /// With these fields, and with an id or not.
    Envelope(Option<u8>, bool),
    Payload,
}

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

const AT_0: [QoS; 3] = [AtMostOnce, AtMostOnce, AtMostOnce];
const AT_1: [QoS; 3] = [AtMostOnce, AtLeastOnce, AtLeastOnce];
const AT_2: [QoS; 3] = [AtMostOnce, AtLeastOnce, ExactlyOnce];

pub(crate) const WAYS: &[Way] = &[
    Way { what: "MQTT QoS 0", how: How::Mqtt(AtMostOnce), answer: "–", granted: AT_0, waits: false },
    Way { what: "MQTT QoS 1", how: How::Mqtt(AtLeastOnce), answer: "PUBACK", granted: AT_1, waits: true },
    Way {
        what: "MQTT QoS 2",
        how: How::Mqtt(ExactlyOnce),
        answer: "PUBREC, PUBCOMP",
        granted: AT_2,
        waits: true,
    },
    Way { what: "STOMP SEND", how: How::Stomp(&[]), answer: "–", granted: AT_0, waits: false },
    Way {
        what: "… with `qos:1`", how: How::Stomp(&[("qos", "1")]), answer: "–", granted: AT_1, waits: true
    },
    Way {
        what: "… with `persistent:true`",
        how: How::Stomp(&[("persistent", "true")]),
        answer: "–",
        granted: AT_1,
        waits: true,
    },
    Way {
        what: "… with `receipt`",
        how: How::Stomp(&[("receipt", "r")]),
        answer: "RECEIPT",
        granted: AT_1,
        waits: true,
    },
    Way { what: "raw `pub`", how: How::Envelope(None, false), answer: "–", granted: AT_0, waits: false },
    Way {
        what: "… with `qos:1`",
        how: How::Envelope(Some(1), false),
        answer: "–",
        granted: AT_1,
        waits: true,
    },
    Way { what: "… with `id`", how: How::Envelope(None, true), answer: "`ok`", granted: AT_1, waits: true },
    Way {
        what: "… with `id` and `qos:0`",
        how: How::Envelope(Some(0), true),
        answer: "`ok`",
        granted: AT_0,
        waits: false,
    },
    Way { what: "payload mode", how: How::Payload, answer: "–", granted: AT_0, waits: false },
];

#[tokio::test]
async fn a_subscriber_gets_the_lower_of_the_published_and_the_granted_qos() {
    let broker = Broker::start("").await;
    let mut readers = Vec::new();
    for granted in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let mut reader = Mqtt::connected(&broker, Version::V5).await;
        reader.subscribe("a", granted).await;
        readers.push(reader);
    }
    for way in WAYS {
        publish(&broker, way).await;
        for (reader, expected) in readers.iter_mut().zip(way.granted) {
            assert_eq!(exchange(reader, 1).await[0].qos, expected, "{}", way.what);
        }
    }
}

#[tokio::test]
async fn stomp_and_raw_subscribers_get_every_way_alike() {
    let broker = Broker::start("").await;
    let mut readers = Vec::new();
    for ack in ["auto", "client", "client-individual"] {
        let mut reader = Stomp::connected(&broker, stomp::Version::V1_2).await;
        reader.subscribe("a", ack).await;
        readers.push((reader, ack != "auto"));
    }
    let mut envelope = Envelope::connected(&broker, Encoding::Json).await;
    envelope.subscribe("a").await;
    for way in WAYS {
        publish(&broker, way).await;
        for (reader, wants_ack) in &mut readers {
            let frame = reader.delivery().await;
            assert_eq!(frame.header("ack").is_some(), *wants_ack, "{}: {frame:?}", way.what);
        }
        assert_eq!(envelope.delivery().await.payload.unwrap(), "x", "{}", way.what);
    }
}

/// PUBACK, PUBCOMP, RECEIPT and `ok` mean the same: it waits for who is to have it.
#[tokio::test]
async fn what_is_acknowledged_waits_for_a_session_that_is_away() {
    let broker = Broker::start("").await;
    for way in WAYS {
        let mut session = returning(&broker).await;
        session.subscribe("a", ExactlyOnce).await;
        session.disconnect(ReasonCode::SUCCESS).await;
        session.end().await;
        publish(&broker, way).await;
        publish_marker(&broker, "a").await;
        let mut session = returning(&broker).await;
        // What waits comes before the marker.
        let expected: &[&str] = if way.waits { &["x", MARKER] } else { &[MARKER] };
        let got = exchange(&mut session, expected.len()).await;
        let payloads: Vec<_> = got.iter().map(|publish| &publish.payload).collect();
        assert_eq!(payloads, expected, "{}", way.what);
        session.socket.barrier().await;
    }
}

/// A session that is kept.
async fn returning(broker: &Broker) -> Mqtt {
    let properties = Properties { session_expiry_interval_s: Some(1000), ..Properties::default() };
    let connect = Connect {
        clean_start: false,
        properties: Some(Box::new(properties)),
        ..mqtt::connect(Version::V5, "away")
    };
    let mut client = Mqtt::open(broker, Version::V5, Ask::default()).await;
    client.connect(connect).await;
    client
}

/// The next deliveries, each with its whole exchange.
async fn exchange(reader: &mut Mqtt, count: usize) -> Vec<Publish> {
    let mut publishes = Vec::new();
    let mut incomplete = 0;
    while publishes.len() < count || incomplete > 0 {
        match reader.packet().await {
            Packet::Publish(publish) => {
                let ack = Ack::new(publish.packet_id, ReasonCode::SUCCESS);
                match publish.qos {
                    AtMostOnce => {}
                    AtLeastOnce => reader.send(Packet::PubAck(ack)).await,
                    ExactlyOnce => {
                        incomplete += 1;
                        reader.send(Packet::PubRec(ack)).await;
                    }
                }
                publishes.push(publish);
            }
            Packet::PubRel(ack) => {
                incomplete -= 1;
                reader.send(Packet::PubComp(ack)).await;
            }
            other => panic!("PUBLISH or PUBREL was expected: {other:?}"),
        }
    }
    publishes
}

/// Publishes `x` to `a` and checks the answer; the broker has it when this returns.
async fn publish(broker: &Broker, way: &Way) {
    let answer = match way.how {
        How::Mqtt(qos) => publish_mqtt(broker, qos).await,
        How::Stomp(headers) => publish_stomp(broker, headers).await,
        How::Envelope(qos, has_id) => publish_envelope(broker, qos, has_id).await,
        How::Payload => {
            let mut socket =
                Socket::open(broker.address, Ask { target: "/ws?pub=a", ..Ask::default() }).await;
            socket.send_text("x").await;
            socket.barrier().await;
            "–"
        }
    };
    assert_eq!(answer, way.answer, "{}", way.what);
}

async fn publish_mqtt(broker: &Broker, qos: QoS) -> &'static str {
    let mut client = Mqtt::connected(broker, Version::V5).await;
    let packet_id = u16::from(qos > AtMostOnce);
    client.publish(Publish { qos, packet_id, ..mqtt::publish("a", "x") }).await;
    match qos {
        AtMostOnce => {
            client.socket.barrier().await;
            "–"
        }
        AtLeastOnce => {
            assert!(matches!(client.packet().await, Packet::PubAck(ack) if !ack.reason.is_error()));
            "PUBACK"
        }
        ExactlyOnce => {
            assert!(matches!(client.packet().await, Packet::PubRec(ack) if !ack.reason.is_error()));
            client.send(Packet::PubRel(Ack::new(packet_id, ReasonCode::SUCCESS))).await;
            assert!(matches!(client.packet().await, Packet::PubComp(ack) if !ack.reason.is_error()));
            "PUBREC, PUBCOMP"
        }
    }
}

async fn publish_stomp(broker: &Broker, headers: &[(&'static str, &'static str)]) -> &'static str {
    let mut client = Stomp::connected(broker, stomp::Version::V1_2).await;
    let mut frame = Stomp::message("a", "x");
    for (name, value) in headers {
        frame = frame.with_header(*name, *value);
    }
    client.send(&frame).await;
    if frame.header("receipt").is_some() {
        assert_eq!(client.frame().await.header("receipt-id"), frame.header("receipt"));
        return "RECEIPT";
    }
    // The broker answers in order, so that of this one would come first.
    let before = client.send_for_receipt(Stomp::message("nobody", "")).await;
    assert!(before.is_empty(), "nobody asked for {before:?}");
    "–"
}

async fn publish_envelope(broker: &Broker, qos: Option<u8>, has_id: bool) -> &'static str {
    let mut client = Envelope::connected(broker, Encoding::Json).await;
    let mut operation = json!({"op": "pub", "topic": "a", "text": "x"});
    if let Some(qos) = qos {
        operation["qos"] = qos.into();
    }
    if has_id {
        let (answer, before) = client.ask(operation).await;
        assert_eq!((&*answer.op, before.len()), ("ok", 0), "{answer:?}");
        return "`ok`";
    }
    client.send(&operation).await;
    client.socket.barrier().await;
    let (pong, before) = client.ask(json!({"op": "ping"})).await;
    assert_eq!((&*pong.op, before.len()), ("pong", 0), "{before:?}");
    "–"
}

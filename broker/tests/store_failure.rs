//! A disk that fails, seen from outside: what would have to be stored is refused in the words of each protocol, what need
//! not be goes on, and when the disk works again so does everything (SEC-1).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers may panic")]

#[expect(dead_code, reason = "shared with the tests of the store")]
#[path = "store/support.rs"]
mod store_support;
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use store_support::Faulty;
use support::Broker;
use support::mqtt::{self, Mqtt, Packet};
use support::raw::{Code, Encoding, Envelope};
use support::socket::Ask;
use support::stomp::Stomp;
use tidegate::store::memory::MemoryStore;
use tidegate_protocol::mqtt::packet::{Connect, Properties, Publish, ReasonCode, Version};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp::Version as StompVersion;
use tidegate_protocol::stomp::frame::Command;

type Disk = Arc<Faulty<MemoryStore>>;

/// A broker, and its disk.
async fn start() -> (Broker, Disk) {
    let disk = Faulty::new(MemoryStore::new());
    let store = Arc::clone(&disk);
    (Broker::start_on(Box::new(|_, _| Ok(store))).await, disk)
}

/// CONNECT of a session that is to be kept.
fn kept(client_id: &str, clean_start: bool) -> Connect {
    let properties = Properties { session_expiry_interval_s: Some(3600), ..Properties::default() };
    let connect = mqtt::connect(Version::V5, client_id);
    Connect { clean_start, properties: Some(Box::new(properties)), ..connect }
}

/// A session that subscribes to `kept/#` at QoS 2 and goes away.
async fn keeper(broker: &Broker) {
    let mut client = Mqtt::open(broker, Version::V5, Ask::default()).await;
    client.connect(kept("keeper", true)).await;
    client.subscribe("kept/#", QoS::ExactlyOnce).await;
    client.disconnect(ReasonCode::SUCCESS).await;
    client.end().await;
}

/// What the keeper finds when it comes back, up to the last message, which is sent now.
async fn found(broker: &Broker) -> Vec<String> {
    let mut publisher = Mqtt::connected(broker, Version::V5).await;
    assert_eq!(publisher.publish_acked("kept/end", "end").await, ReasonCode::SUCCESS);
    let mut client = Mqtt::open(broker, Version::V5, Ask::default()).await;
    assert!(client.connect(kept("keeper", false)).await.session_present);
    let mut payloads = Vec::new();
    loop {
        match client.packet().await {
            Packet::Publish(publish) => {
                let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                if payload == "end" {
                    return payloads;
                }
                payloads.push(payload);
            }
            other => assert!(matches!(other, Packet::PubRel(_)), "{other:?}"),
        }
    }
}

/// The disk works again: noticed without anybody's help.
async fn repaired(broker: &Broker, disk: &Disk) {
    disk.fail(0);
    broker.metric_becomes("tidegate_store_failing", |value| value == 0).await;
}

#[tokio::test]
async fn while_the_disk_fails_mqtt_publishers_hear_0x97_and_then_go_on() {
    let (broker, disk) = start().await;
    keeper(&broker).await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    assert_eq!(publisher.publish_acked("kept/a", "before").await, ReasonCode::SUCCESS);

    disk.fail(usize::MAX);
    assert_eq!(publisher.publish_acked("kept/a", "refused").await, ReasonCode::QUOTA_EXCEEDED);
    let twice = mqtt::publish("kept/a", "refused at QoS 2");
    let packet_id = publisher.next_id();
    publisher.publish(Publish { qos: QoS::ExactlyOnce, packet_id, ..twice }).await;
    match publisher.packet().await {
        Packet::PubRec(ack) => {
            assert_eq!((ack.packet_id, ack.reason), (packet_id, ReasonCode::QUOTA_EXCEEDED))
        }
        other => panic!("PUBREC was expected: {other:?}"),
    }
    let packet_id = publisher.next_id();
    let retained = mqtt::publish_acked("elsewhere", "refused", packet_id);
    publisher.publish(Publish { retain: true, ..retained }).await;
    match publisher.packet().await {
        Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::QUOTA_EXCEEDED),
        other => panic!("PUBACK was expected: {other:?}"),
    }
    assert_eq!(broker.metric("tidegate_store_failing").await, 1);

    repaired(&broker, &disk).await;
    assert_eq!(publisher.publish_acked("kept/a", "after").await, ReasonCode::SUCCESS);
    assert_eq!(found(&broker).await, ["before", "after"]);
}

#[tokio::test]
async fn while_the_disk_fails_an_envelope_is_refused_as_overloaded() {
    let (broker, disk) = start().await;
    keeper(&broker).await;
    let mut publisher = Envelope::connected(&broker, Encoding::Json).await;
    disk.fail(usize::MAX);
    let answer = publisher.publish_acked(json!({}), "kept/a", b"refused").await;
    assert_eq!(
        (&*answer.op, answer.code.clone()),
        ("err", Some(Code::Word("overloaded".into()))),
        "{answer:?}"
    );
    repaired(&broker, &disk).await;
    let answer = publisher.publish_acked(json!({}), "kept/a", b"after").await;
    assert_eq!(answer.op, "ok", "{answer:?}");
    assert_eq!(found(&broker).await, ["after"]);
}

#[tokio::test]
async fn while_the_disk_fails_a_receipt_becomes_an_error() {
    let (broker, disk) = start().await;
    keeper(&broker).await;
    let mut publisher = Stomp::connected(&broker, StompVersion::V1_2).await;
    disk.fail(usize::MAX);
    publisher.send(&Stomp::message("kept/a", "refused").with_header("receipt", "1")).await;
    let (error, _) = publisher.end().await;
    let error = error.unwrap();
    assert_eq!((error.command, error.header("receipt-id")), (Command::Error, Some("1")), "{error:?}");
    repaired(&broker, &disk).await;
    assert_eq!(found(&broker).await, Vec::<String>::new());
}

#[tokio::test]
async fn while_the_disk_fails_what_needs_no_store_goes_on() {
    let (broker, disk) = start().await;
    keeper(&broker).await;
    let mut reader = Mqtt::connected(&broker, Version::V5).await;
    reader.subscribe("#", QoS::AtLeastOnce).await;
    disk.fail(usize::MAX);

    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    publisher.publish(mqtt::publish("kept/a", "QoS 0, to whoever is here")).await;
    assert_eq!(reader.delivery().await.payload, "QoS 0, to whoever is here");
    let reason = publisher.publish_acked("elsewhere", "nobody is away").await;
    assert_eq!(reason, ReasonCode::SUCCESS);
    assert_eq!(reader.delivery().await.payload, "nobody is away");
}

#[tokio::test]
async fn while_the_disk_fails_no_session_is_promised() {
    let (broker, disk) = start().await;
    disk.fail(usize::MAX);
    let mut client = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    client.send(Packet::Connect(Box::new(kept("late", true)))).await;
    match client.packet().await {
        Packet::ConnAck(ack) => assert!(ack.reason.is_error() && !ack.session_present, "{ack:?}"),
        other => panic!("CONNACK was expected: {other:?}"),
    }
    Mqtt::connected(&broker, Version::V5).await;
    repaired(&broker, &disk).await;
    let mut client = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    assert!(!client.connect(kept("late", false)).await.session_present);
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_is_tried_now_and_then_and_comes_when_it_can() {
    let (broker, disk) = start().await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    assert_eq!(publisher.publish_acked("queue/jobs", "x").await, ReasonCode::SUCCESS);
    disk.is_unreadable.store(true, Ordering::SeqCst);
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    client.subscribe("$share/queue/queue/jobs", QoS::AtLeastOnce).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!((1..10).contains(&disk.loads()), "{} loads", disk.loads());
    disk.is_unreadable.store(false, Ordering::SeqCst);
    match client.packet().await {
        Packet::Publish(publish) => assert_eq!(&*publish.payload, b"x"),
        other => panic!("a job was expected, not {other:?}"),
    }
    broker.stop().await;
}

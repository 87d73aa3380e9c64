//! A broker and its directory: what a stop and a start leave, who else may have it, and what the operator is told.

mod support;

use std::path::Path;

use support::http;
use support::mqtt::{self, Mqtt};
use support::socket::Ask;
use support::{Broker, within};
use tempfile::TempDir;
use tidegate::assembly::{Running, StartError};
use tidegate::config::{ByteSize, Config};
use tidegate::store::StoreError;
use tidegate_protocol::mqtt::packet::{Ack, Connect, Packet, Publish, ReasonCode, Version};
use tidegate_protocol::publication::QoS;

fn settings(directory: &Path, more: &str) -> String {
    format!("[store]\npath = \"{}\"\n{more}", directory.display())
}

/// CONNECT of a session that outlives its connection.
fn lasting(client_id: &str) -> Connect {
    Connect { clean_start: false, ..mqtt::connect(Version::V3_1_1, client_id) }
}

async fn arrive(broker: &Broker, client_id: &str) -> (Mqtt, bool) {
    let mut client = Mqtt::open(broker, Version::V3_1_1, Ask::default()).await;
    let is_present = client.connect(lasting(client_id)).await.session_present;
    (client, is_present)
}

#[tokio::test]
async fn a_session_is_there_after_a_restart_with_any_sync() {
    for sync in ["group", "always", "os"] {
        let directory = TempDir::new().unwrap();
        let settings = settings(&directory.path().join("made/by/the/broker"), &format!("sync = \"{sync}\""));
        let broker = Broker::start(&settings).await;
        let (mut client, is_present) = arrive(&broker, "c").await;
        assert!(!is_present);
        client.subscribe("t", QoS::AtLeastOnce).await;
        drop(client);
        broker.stop().await;

        let broker = Broker::start(&settings).await;
        let (mut client, is_present) = arrive(&broker, "c").await;
        assert!(is_present, "{sync}");
        let mut publisher = Mqtt::connected(&broker, Version::V5).await;
        publisher.publish(mqtt::publish_acked("t", "x", 1)).await;
        assert!(matches!(client.packet().await, Packet::Publish(_)), "its subscription goes on");
        drop((client, publisher));
        broker.stop().await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_in_order() {
    let directory = TempDir::new().unwrap();
    let settings = settings(directory.path(), "");
    let broker = Broker::start(&settings).await;
    let (mut client, _) = arrive(&broker, "c").await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    drop(client);
    broker.metric_becomes("tidegate_sessions_away", |count| count == 1).await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for packet_id in 1..=300 {
        let publish = Publish { retain: true, ..mqtt::publish_acked("t", packet_id.to_string(), packet_id) };
        publisher.publish(publish).await;
        assert!(matches!(publisher.packet().await, Packet::PubAck(ack) if ack.packet_id == packet_id));
    }
    drop(publisher);
    broker.stop().await;

    let broker = Broker::start(&settings).await;
    let (mut client, is_present) = arrive(&broker, "c").await;
    assert!(is_present);
    for number in 1..=300 {
        let Packet::Publish(publish) = client.packet().await else { panic!("PUBLISH {number} was expected") };
        assert_eq!(publish.payload, number.to_string());
        let ack = Ack::new(publish.packet_id, ReasonCode::SUCCESS);
        client.send(Packet::PubAck(ack)).await;
    }
    let mut reader = Mqtt::connected(&broker, Version::V5).await;
    reader.subscribe("t", QoS::AtMostOnce).await;
    assert!(matches!(reader.packet().await, Packet::Publish(last) if last.payload == "300"));
    drop((client, reader));
    broker.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_dropped_in_the_middle_forgets_nothing() {
    let directory = TempDir::new().unwrap();
    let settings = settings(directory.path(), "");
    let broker = Broker::start(&settings).await;
    let (mut client, _) = arrive(&broker, "c").await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    publisher.publish(mqtt::publish_acked("t", "x", 1)).await;
    assert!(matches!(publisher.packet().await, Packet::PubAck(_)));
    assert!(matches!(client.packet().await, Packet::Publish(first) if !first.dup));
    // As at a second signal. What was sent and not acknowledged goes with the connections.
    drop(broker);
    drop((client, publisher));

    let broker = Broker::start(&settings).await;
    let (mut client, is_present) = arrive(&broker, "c").await;
    assert!(is_present);
    assert!(matches!(client.packet().await, Packet::Publish(again) if again.dup && again.payload == "x"));
    drop(client);
    broker.stop().await;
}

#[tokio::test]
async fn a_store_at_its_limit_takes_no_new_session_and_says_so() {
    let directory = TempDir::new().unwrap();
    // Less than a file allows: nothing has room.
    let shrink = |config: &mut Config| config.store.max_bytes = Some(ByteSize(1));
    let broker = Broker::start_with(&settings(directory.path(), ""), shrink).await;
    drop(arrive(&broker, "first").await);
    broker.metric_becomes("tidegate_store_full", |full| full == 1).await;
    let mut second = Mqtt::open(&broker, Version::V3_1_1, Ask::default()).await;
    second.send(Packet::Connect(Box::new(lasting("second")))).await;
    let Packet::ConnAck(ack) = second.packet().await else { panic!("CONNACK was expected") };
    assert_ne!(ack.reason, ReasonCode::SUCCESS);
    assert!(arrive(&broker, "first").await.1, "who was there gets in");
    drop(Mqtt::connected(&broker, Version::V5).await);
    drop(second);
    broker.stop().await;
}

#[tokio::test]
async fn without_a_path_nothing_is_stored() {
    let broker = Broker::start("").await;
    let page = http::get(broker.admin, "/metrics").await.body;
    assert!(!page.contains("tidegate_store_"), "{page}");
    assert_eq!(http::request(broker.admin, post("/tmp/nowhere").as_bytes()).await.status, 404);
    broker.stop().await;
}

#[tokio::test]
async fn a_second_broker_on_the_directory_is_told_why_it_cannot_start() {
    let directory = TempDir::new().unwrap();
    let broker = Broker::start(&settings(directory.path(), "")).await;
    let text = format!(
        "[[listener]]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"none\"\n{}",
        settings(directory.path(), "")
    );
    let config = Config::from_text(Path::new("test.toml"), &text, std::iter::empty()).unwrap();
    let Err(error) = Running::start(&config).await else { panic!("two brokers have one directory") };
    assert!(matches!(&error, StartError::Store(StoreError::Locked { .. })), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with("store.path: ") && message.contains("in use"), "{message}");
    broker.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_leaves_the_directory_free() {
    let directory = TempDir::new().unwrap();
    let other = Broker::start("").await;
    let text = format!(
        "[[listener]]\nbind = \"{}\"\n[admin]\nbind = \"none\"\n{}",
        other.address,
        settings(directory.path(), "")
    );
    let config = Config::from_text(Path::new("test.toml"), &text, std::iter::empty()).unwrap();
    let Err(error) = Running::start(&config).await else { panic!("two brokers have one port") };
    assert!(matches!(error, StartError::Listener(_)), "{error:?}");
    Broker::start(&settings(directory.path(), "")).await.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn the_operator_sees_the_store_and_copies_it_while_it_is_used() {
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("copy");
    let broker = Broker::start(&settings(&directory.path().join("data"), "")).await;
    drop(arrive(&broker, "c").await);
    broker.metric_becomes("tidegate_store_commits_total", |commits| commits > 0).await;
    assert_eq!(broker.metric("tidegate_store_failing").await, 0);
    let request = post(copy.to_str().unwrap());
    let answer = within("the copy", http::request(broker.admin, request.as_bytes())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    broker.stop().await;

    let broker = Broker::start(&settings(&copy, "")).await;
    assert!(arrive(&broker, "c").await.1, "the copy has the session");
    broker.stop().await;
}

fn post(directory: &str) -> String {
    format!("POST /store/backup?dir={directory} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
}

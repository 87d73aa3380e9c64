//! A broker and its directory: what a stop and a start leave, who else may have it, and what the operator is told.

mod support;

use std::path::Path;

use support::http;
use support::mqtt::{self, Mqtt};
use support::socket::Ask;
use support::{Broker, within};
use tempfile::TempDir;
use tidegate::assembly::{Running, StartError};
use tidegate::config::Config;
use tidegate::store::StoreError;
use tidegate_protocol::mqtt::packet::{Connect, Packet, Version};
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

//! What becomes of a client whose id connects again, and of wills (MQTT 3.1.1 §3.1.2.5, §3.1.4; MQTT 5 §3.1.4,
//! §3.14.4), over real sockets.

mod support;

use std::time::Duration;

use support::Broker;
use support::client::{Client, Got, Protocol, got};
use support::mqtt::{self, Mqtt};
use support::socket::Ask;
use tidegate_protocol::mqtt::packet::{Connect, Properties, ReasonCode, Version, Will};
use tidegate_protocol::publication::QoS;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

/// CONNECT with a will on `will` and this client id.
fn with_will(version: Version, client_id: &str, payload: &'static str) -> Connect {
    let will = Will {
        topic: mqtt::topic("will"),
        payload: payload.into(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: None,
    };
    Connect { will: Some(will), ..mqtt::connect(version, client_id) }
}

async fn connected(broker: &Broker, version: Version, connect: Connect) -> Mqtt {
    let mut client = Mqtt::open(broker, version, Ask::default()).await;
    client.connect(connect).await;
    client
}

/// What a subscriber of `#` gets until everything published so far has passed.
async fn rest(broker: &Broker, watcher: &mut Client) -> Vec<Got> {
    Client::publisher(broker, Protocol::Json, "end").await.publish_acked("end", "").await;
    watcher.until("end").await
}

/// Waits until this many clients are left.
async fn clients_become(broker: &Broker, count: usize) {
    support::within("the end of a connection", async {
        while broker.clients() != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The old connection ends as its version says: MQTT 5 by DISCONNECT 0x8E, both by a close with 4005.
async fn check_replaced(old: &mut Mqtt, version: Version) {
    let (reason, end) = old.end().await;
    let expected = (version == Version::V5).then_some(ReasonCode::SESSION_TAKEN_OVER);
    assert_eq!((reason, end.code()), (expected, 4005), "{version:?}");
}

// ---- takeover ----

#[tokio::test]
async fn the_older_connection_of_a_client_id_ends_and_the_newer_one_works() {
    let broker = Broker::start("").await;
    for old_version in VERSIONS {
        for new_version in VERSIONS {
            let mut old = Mqtt::named(&broker, old_version, "same").await;
            old.subscribe("old", QoS::AtMostOnce).await;
            let mut new = Mqtt::named(&broker, new_version, "same").await;
            new.subscribe("a", QoS::AtMostOnce).await;
            // [MQTT-3.1.4-3]; MQTT 3.1.1 [MQTT-3.1.4-2].
            check_replaced(&mut old, old_version).await;
            drop(old);
            clients_become(&broker, 1).await;

            // Clean start: nothing of the old one is left.
            let mut publisher = Mqtt::connected(&broker, Version::V5).await;
            assert_eq!(publisher.publish_acked("old", "").await, ReasonCode::NO_MATCHING_SUBSCRIBERS);
            publisher.publish_acked("a", "x").await;
            let delivery = new.delivery().await;
            assert_eq!(delivery.topic, Some(mqtt::topic("a")), "{old_version:?} {new_version:?}");
            drop((new, publisher));
            clients_become(&broker, 0).await;
        }
    }
}

/// The end of an old connection must not take the id from the newer one: the third would find nobody to replace.
#[tokio::test]
async fn the_newer_connection_stays_known_when_the_older_one_ends() {
    let broker = Broker::start("").await;
    for version in VERSIONS {
        let mut current = Mqtt::named(&broker, version, "same").await;
        for _ in 0..5 {
            let newer = Mqtt::named(&broker, version, "same").await;
            check_replaced(&mut current, version).await;
            drop(std::mem::replace(&mut current, newer));
            clients_become(&broker, 1).await;
        }
        drop(current);
        clients_become(&broker, 0).await;
    }
}

#[tokio::test]
async fn other_client_ids_are_left_alone() {
    let broker = Broker::start("").await;
    for version in VERSIONS {
        let mut one = Mqtt::named(&broker, version, "one").await;
        let mut other = Mqtt::named(&broker, version, "One").await;
        one.subscribe("a", QoS::AtMostOnce).await;
        other.publish_acked("a", "x").await;
        assert_eq!(one.delivery().await.payload, "x", "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_connect_at_once_under_one_id_one_is_left() {
    let broker = std::sync::Arc::new(Broker::start("").await);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let broker = std::sync::Arc::clone(&broker);
        tasks.spawn(async move {
            let mut client = Mqtt::open(&broker, Version::V5, Ask::default()).await;
            // Who is replaced at once still hears of the connection before the end of it [MQTT-3.14.0-1].
            client.connect(mqtt::connect(Version::V5, "same")).await;
            client
        });
    }
    let clients = support::within("twenty connections", tasks.join_all()).await;
    let mut ends = tokio::task::JoinSet::new();
    for mut client in clients {
        ends.spawn(async move { check_replaced(&mut client, Version::V5).await });
    }
    for _ in 0..19 {
        support::within("the end of one of the older", ends.join_next()).await.unwrap().unwrap();
    }
    clients_become(&broker, 1).await;
    ends.shutdown().await;
    clients_become(&broker, 0).await;
}

/// No session outlives its connection, so the will is due at once (MQTT 5 §3.1.2.5).
#[tokio::test]
async fn a_takeover_publishes_the_will_of_the_older_connection_alone() {
    // The old one does not answer its Close, as a peer that is gone does not: the will does not wait for that.
    let broker = Broker::start_with("", |config| {
        config.websocket.close_timeout = Duration::from_secs(3600);
    })
    .await;
    for version in VERSIONS {
        let mut watcher = Client::subscriber(&broker, Protocol::Mqtt5, &["#"]).await;
        let mut old = connected(&broker, version, with_will(version, "same", "old")).await;
        let mut new = connected(&broker, version, with_will(version, "same", "new")).await;
        assert_eq!(watcher.next().await, got("will", "old"), "{version:?}");
        check_replaced(&mut old, version).await;
        drop(old);
        // The watcher and the new one.
        clients_become(&broker, 2).await;
        assert_eq!(rest(&broker, &mut watcher).await, [], "{version:?}");
        new.disconnect(ReasonCode::SUCCESS).await;
        new.end().await;
        assert_eq!(rest(&broker, &mut watcher).await, [], "{version:?}");
    }
}

// ---- wills ----

/// [MQTT-3.1.2-8]
#[tokio::test]
async fn a_will_is_published_when_the_connection_breaks() {
    let broker = Broker::start("").await;
    for version in VERSIONS {
        let mut watcher = Client::subscriber(&broker, Protocol::Mqtt5, &["#"]).await;
        drop(connected(&broker, version, with_will(version, "c", "lost")).await);
        assert_eq!(watcher.next().await, got("will", "lost"), "{version:?}");

        // A WebSocket Close is no DISCONNECT.
        let closing = connected(&broker, version, with_will(version, "c", "closed")).await;
        closing.socket.close(1000).await;
        assert_eq!(watcher.next().await, got("will", "closed"), "{version:?}");

        // Nobody waits for the answer to the broker's Close.
        let mut wrong = connected(&broker, version, with_will(version, "c", "protocol error")).await;
        wrong.socket.send_binary(&b"\xf0\x00"[..]).await;
        wrong.end().await;
        assert_eq!(watcher.next().await, got("will", "protocol error"), "{version:?}");
        assert_eq!(rest(&broker, &mut watcher).await, [], "{version:?}");
    }
}

/// [MQTT-3.14.4-3]
#[tokio::test]
async fn a_will_is_not_published_after_a_goodbye() {
    let broker = Broker::start("").await;
    for version in VERSIONS {
        let mut watcher = Client::subscriber(&broker, Protocol::Mqtt5, &["#"]).await;
        let mut client = connected(&broker, version, with_will(version, "c", "unwanted")).await;
        client.disconnect(ReasonCode::SUCCESS).await;
        client.end().await;
        drop(client);
        clients_become(&broker, 1).await;
        assert_eq!(rest(&broker, &mut watcher).await, [], "{version:?}");
        drop(watcher);
        clients_become(&broker, 0).await;
    }
}

/// MQTT 5 §3.14.2.1: 0x04, Disconnect with Will Message.
#[tokio::test]
async fn a_goodbye_may_ask_for_the_will() {
    let broker = Broker::start("").await;
    let mut watcher = Client::subscriber(&broker, Protocol::Mqtt5, &["#"]).await;
    let mut client = connected(&broker, Version::V5, with_will(Version::V5, "c", "wanted")).await;
    client.disconnect(ReasonCode::DISCONNECT_WITH_WILL).await;
    client.end().await;
    assert_eq!(watcher.next().await, got("will", "wanted"));
    assert_eq!(rest(&broker, &mut watcher).await, []);
}

#[tokio::test]
async fn a_will_is_kept_and_carries_its_properties_as_asked() {
    let broker = Broker::start("").await;
    let mut connect = with_will(Version::V5, "c", "gone");
    let will = connect.will.as_mut().unwrap();
    will.retain = true;
    will.properties = Some(Box::new(Properties {
        content_type: Some("text/plain".into()),
        user: vec![("why".into(), "lost".into())],
        ..Properties::default()
    }));
    drop(connected(&broker, Version::V5, connect).await);
    broker.metric_becomes("tidegate_retained_messages", |count| count == 1).await;

    let mut late = Mqtt::connected(&broker, Version::V5).await;
    late.subscribe("will", QoS::AtMostOnce).await;
    let will = late.delivery().await;
    assert_eq!((will.retain, &*will.payload), (true, &b"gone"[..]));
    let properties = will.properties.as_deref().unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
    assert_eq!(mqtt::user_values(Some(properties), "why"), ["lost"]);
}

/// MQTT 5 §3.1.2.6: at the will's QoS, and acknowledged.
#[tokio::test]
async fn a_will_is_delivered_at_its_quality_of_service() {
    let broker = Broker::start("").await;
    for version in VERSIONS {
        let mut watcher = Mqtt::connected(&broker, Version::V5).await;
        watcher.subscribe("will", QoS::AtLeastOnce).await;
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut connect = with_will(version, "c", "lost");
            connect.will.as_mut().unwrap().qos = qos;
            drop(connected(&broker, version, connect).await);
            assert_eq!(watcher.delivery().await.qos, qos, "{version:?}");
        }
    }
}

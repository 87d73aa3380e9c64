//! MQTT sessions over real sockets: QoS 2, what waits for a client, resume, takeover, groups, delayed wills,
//! authentication (OASIS MQTT 5.0 §4.1, §4.3, §4.8.2, §4.12).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use support::Broker;
use support::mqtt::{self, Mqtt};
use support::socket::Ask;
use tidegate_protocol::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, Properties, Publish, ReasonCode, Version, Will,
};
use tidegate_protocol::publication::QoS;

const PERSISTENT: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

/// CONNECT that takes up a session and keeps it.
fn lasting(version: Version, client_id: &str) -> Connect {
    let properties = Properties { session_expiry_interval_s: Some(3600), ..Properties::default() };
    Connect {
        clean_start: false,
        properties: (version == Version::V5).then(|| Box::new(properties)),
        ..mqtt::connect(version, client_id)
    }
}

async fn arrive(broker: &Broker, version: Version, connect: Connect) -> (Mqtt, ConnAck) {
    let mut client = Mqtt::open(broker, version, Ask::default()).await;
    let ack = client.connect(connect).await;
    (client, ack)
}

/// Publishes at this QoS and goes through the whole exchange.
async fn publish(client: &mut Mqtt, payload: &'static str, qos: QoS) {
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { client.next_id() };
    client.publish(Publish { qos, packet_id, ..mqtt::publish("t", payload) }).await;
    let ack = Ack::new(packet_id, ReasonCode::SUCCESS);
    match qos {
        QoS::AtMostOnce => {}
        QoS::AtLeastOnce => {
            assert!(matches!(client.packet().await, Packet::PubAck(ack) if ack.packet_id == packet_id))
        }
        QoS::ExactlyOnce => {
            assert!(matches!(client.packet().await, Packet::PubRec(ack) if ack.packet_id == packet_id));
            client.send(Packet::PubRel(ack)).await;
            assert!(matches!(client.packet().await, Packet::PubComp(ack) if ack.packet_id == packet_id));
        }
    }
}

async fn next_publish(client: &mut Mqtt) -> Publish {
    match client.packet().await {
        Packet::Publish(publish) => publish,
        other => panic!("PUBLISH was expected: {other:?}"),
    }
}

/// Acknowledges to the end.
async fn complete(client: &mut Mqtt, publish: &Publish) {
    let ack = Ack::new(publish.packet_id, ReasonCode::SUCCESS);
    match publish.qos {
        QoS::AtMostOnce => {}
        QoS::AtLeastOnce => client.send(Packet::PubAck(ack)).await,
        QoS::ExactlyOnce => {
            client.send(Packet::PubRec(ack.clone())).await;
            assert!(matches!(client.packet().await, Packet::PubRel(rel) if rel.packet_id == ack.packet_id));
            client.send(Packet::PubComp(ack)).await;
        }
    }
}

fn text(publish: &Publish) -> String {
    String::from_utf8(publish.payload.to_vec()).unwrap()
}

/// PINGREQ until PINGRESP: everything sent before has been handled, and nothing else is on its way.
async fn nothing_more(client: &mut Mqtt) {
    client.send(Packet::PingReq).await;
    assert_eq!(client.packet().await, Packet::PingResp);
}

#[tokio::test]
async fn qos_2_goes_through_in_both_directions() {
    let broker = Broker::start("").await;
    for version in PERSISTENT {
        let mut subscriber = Mqtt::named(&broker, version, "subscriber").await;
        subscriber.subscribe("t", QoS::ExactlyOnce).await;
        let mut publisher = Mqtt::named(&broker, version, "publisher").await;
        for qos in [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::AtMostOnce] {
            publish(&mut publisher, "x", qos).await;
            let delivery = next_publish(&mut subscriber).await;
            assert_eq!((delivery.qos, delivery.dup), (qos, false), "{version:?}");
            complete(&mut subscriber, &delivery).await;
        }
        nothing_more(&mut subscriber).await;
    }
}

#[tokio::test]
async fn a_client_that_comes_back_finds_its_session_and_what_it_missed() {
    let broker = Broker::start("").await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for version in PERSISTENT {
        for is_cut in [false, true] {
            let id = format!("{version:?} {is_cut}");
            let (mut client, ack) = arrive(&broker, version, lasting(version, &id)).await;
            assert!(!ack.session_present);
            client.subscribe("t", QoS::ExactlyOnce).await;
            if is_cut {
                drop(client);
            } else {
                client.disconnect(ReasonCode::SUCCESS).await;
                client.end().await;
                drop(client);
            }
            while broker.clients() != 1 {
                tokio::task::yield_now().await;
            }
            for (payload, qos) in [("0", QoS::AtMostOnce), ("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)] {
                publish(&mut publisher, payload, qos).await;
            }
            let (mut client, ack) = arrive(&broker, version, lasting(version, &id)).await;
            // 3.1 has no Session Present.
            assert!(ack.session_present || version == Version::V3_1, "{id}");
            for expected in ["1", "2"] {
                let delivery = next_publish(&mut client).await;
                assert_eq!((text(&delivery).as_str(), delivery.dup), (expected, false), "{id}");
                complete(&mut client, &delivery).await;
            }
            nothing_more(&mut client).await;
            client.unsubscribe("t").await;
            let (_, ack) = arrive(&broker, version, mqtt::connect(version, &id)).await;
            assert!(!ack.session_present, "{id}: a clean start");
        }
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_with_dup_and_the_same_id() {
    let broker = Broker::start("").await;
    for version in PERSISTENT {
        let id = format!("{version:?}");
        let (mut client, _) = arrive(&broker, version, lasting(version, &id)).await;
        client.subscribe("t", QoS::ExactlyOnce).await;
        let mut publisher = Mqtt::named(&broker, version, "publisher").await;
        let mut first = Vec::new();
        for (payload, qos) in [
            ("a", QoS::AtLeastOnce),
            ("b", QoS::ExactlyOnce),
            ("c", QoS::ExactlyOnce),
            ("d", QoS::AtLeastOnce),
        ] {
            publish(&mut publisher, payload, qos).await;
            first.push(next_publish(&mut client).await);
        }
        // PUBREC for the third; its PUBREL shows that the broker knows.
        client.send(Packet::PubRec(Ack::new(first[2].packet_id, ReasonCode::SUCCESS))).await;
        assert!(matches!(client.packet().await, Packet::PubRel(_)));
        // A takeover: the older connection is not even closed.
        let (mut client, _) = arrive(&broker, version, lasting(version, &id)).await;
        // Before anything else, in the order of the first sending [MQTT-4.4.0-1].
        let released = first[2].packet_id;
        assert!(matches!(client.packet().await, Packet::PubRel(ack) if ack.packet_id == released));
        let mut again = Vec::new();
        for old in [&first[0], &first[1], &first[3]] {
            let publish = next_publish(&mut client).await;
            assert_eq!(publish, Publish { dup: true, ..old.clone() }, "{version:?}");
            again.push(publish);
        }
        client.send(Packet::PubComp(Ack::new(released, ReasonCode::SUCCESS))).await;
        for publish in &again {
            complete(&mut client, publish).await;
        }
        nothing_more(&mut client).await;
        client.unsubscribe("t").await;
    }
}

#[tokio::test]
async fn a_repeated_qos_2_publish_arrives_once_though_the_connection_changed() {
    let broker = Broker::start("").await;
    for version in PERSISTENT {
        let mut subscriber = Mqtt::named(&broker, version, "subscriber").await;
        subscriber.subscribe("t", QoS::AtMostOnce).await;
        let id = format!("{version:?}");
        let message = Publish { qos: QoS::ExactlyOnce, packet_id: 9, ..mqtt::publish("t", "once") };
        let (mut client, _) = arrive(&broker, version, lasting(version, &id)).await;
        client.publish(message.clone()).await;
        assert!(matches!(client.packet().await, Packet::PubRec(_)));
        drop(client);
        let (mut client, _) = arrive(&broker, version, lasting(version, &id)).await;
        client.publish(Publish { dup: true, ..message }).await;
        assert!(
            matches!(client.packet().await, Packet::PubRec(ack) if ack.packet_id == 9 && !ack.reason.is_error())
        );
        client.send(Packet::PubRel(Ack::new(9, ReasonCode::SUCCESS))).await;
        assert!(matches!(client.packet().await, Packet::PubComp(ack) if ack.reason == ReasonCode::SUCCESS));
        assert_eq!(text(&next_publish(&mut subscriber).await), "once");
        nothing_more(&mut subscriber).await;
    }
}

#[tokio::test]
async fn the_window_of_the_client_is_kept_and_qos_0_is_not_held_by_it() {
    let broker = Broker::start("").await;
    let properties = Properties { receive_maximum: Some(2), ..Properties::default() };
    let connect = Connect { properties: Some(Box::new(properties)), ..mqtt::connect(Version::V5, "w") };
    let (mut client, _) = arrive(&broker, Version::V5, connect).await;
    client.subscribe("t", QoS::ExactlyOnce).await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for payload in ["1", "2", "3"] {
        publish(&mut publisher, payload, QoS::ExactlyOnce).await;
    }
    let first = next_publish(&mut client).await;
    let second = next_publish(&mut client).await;
    publish(&mut publisher, "0", QoS::AtMostOnce).await;
    assert_eq!(text(&next_publish(&mut client).await), "0");
    nothing_more(&mut client).await;
    complete(&mut client, &first).await;
    assert_eq!(text(&next_publish(&mut client).await), "3");
    complete(&mut client, &second).await;
}

#[tokio::test]
async fn more_unacknowledged_publishes_than_the_receive_maximum_end_the_connection() {
    let broker = Broker::start("[mqtt]\nreceive_maximum = 5").await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    for packet_id in 1..=6 {
        client.publish(Publish { qos: QoS::ExactlyOnce, packet_id, ..mqtt::publish("t", "x") }).await;
    }
    for _ in 0..5 {
        assert!(matches!(client.packet().await, Packet::PubRec(_)));
    }
    assert_eq!(client.end().await.0, Some(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED)); // [MQTT-3.3.4-7]
}

#[tokio::test]
async fn a_group_shares_and_gets_what_a_member_did_not_acknowledge() {
    let broker = Broker::start("").await;
    let mut members =
        [Mqtt::connected(&broker, Version::V5).await, Mqtt::connected(&broker, Version::V3_1_1).await];
    for member in &mut members {
        member.subscribe("$share/g/+", QoS::AtLeastOnce).await;
    }
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for payload in ["1", "2"] {
        publish(&mut publisher, payload, QoS::AtLeastOnce).await;
    }
    let [mut stays, mut goes] = members;
    let own = next_publish(&mut stays).await;
    let left = next_publish(&mut goes).await;
    drop(goes);
    let again = next_publish(&mut stays).await;
    assert_eq!((text(&again), again.dup), (text(&left), false));
    for publish in [own, again] {
        complete(&mut stays, &publish).await;
    }
    stays.unsubscribe("$share/g/+").await;
    assert_eq!(publisher.publish_acked("t", "x").await, ReasonCode::NO_MATCHING_SUBSCRIBERS);
}

#[tokio::test]
async fn a_delayed_will_waits_and_is_dropped_by_a_reconnect() {
    let broker = Broker::start("").await;
    let mut watcher = Mqtt::connected(&broker, Version::V5).await;
    watcher.subscribe("will/#", QoS::AtMostOnce).await;
    let with_will = |id: &str, delay_s| {
        let properties = Properties { will_delay_interval_s: Some(delay_s), ..Properties::default() };
        let will = Will {
            topic: mqtt::topic(&format!("will/{id}")),
            payload: "gone".into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Some(Box::new(properties)),
        };
        Connect { will: Some(will), ..lasting(Version::V5, id) }
    };
    for (id, delay_s) in [("returns", 1), ("stays away", 1), ("at once", 0)] {
        let (client, _) = arrive(&broker, Version::V5, with_will(id, delay_s)).await;
        drop(client);
    }
    assert_eq!(next_publish(&mut watcher).await.topic, Some(mqtt::topic("will/at once")));
    let _back = arrive(&broker, Version::V5, lasting(Version::V5, "returns")).await;
    assert_eq!(next_publish(&mut watcher).await.topic, Some(mqtt::topic("will/stays away")));
    nothing_more(&mut watcher).await;
}

#[tokio::test]
async fn the_session_expiry_is_told_when_it_is_cut_and_may_change_at_disconnect() {
    let broker = Broker::start("[mqtt]\nsession_expiry_max = \"1h\"").await;
    let properties = Properties { session_expiry_interval_s: Some(u32::MAX), ..Properties::default() };
    let connect = Connect { properties: Some(Box::new(properties)), ..lasting(Version::V5, "c") };
    let (mut client, ack) = arrive(&broker, Version::V5, connect).await;
    assert_eq!(ack.properties.unwrap().session_expiry_interval_s, Some(3600));
    let properties = Properties { session_expiry_interval_s: Some(0), ..Properties::default() };
    let goodbye = Disconnect { reason: ReasonCode::SUCCESS, properties: Some(Box::new(properties)) };
    client.send(Packet::Disconnect(goodbye)).await;
    client.end().await;
    let (_, ack) = arrive(&broker, Version::V5, lasting(Version::V5, "c")).await;
    assert!(!ack.session_present);
}

#[tokio::test]
async fn a_flood_of_sessions_meets_its_limit() {
    let broker = Broker::start("[mqtt]\nmax_sessions = 3").await;
    for id in 0..3 {
        arrive(&broker, Version::V5, lasting(Version::V5, &id.to_string())).await;
    }
    let mut one_more = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    one_more.send(Packet::Connect(Box::new(lasting(Version::V5, "3")))).await;
    match one_more.packet().await {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::QUOTA_EXCEEDED),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn others_are_told_who_is_connected_where_a_rule_has_it() {
    let broker =
        Broker::start("[[topic]]\nfilter = \"$SYS/broker/clients/+/state\"\nretain = \"allow\"").await;
    let mut watcher = Mqtt::connected(&broker, Version::V5).await;
    let (client, _) = arrive(&broker, Version::V3_1_1, mqtt::connect(Version::V3_1_1, "dev/1")).await;
    watcher.subscribe("$SYS/broker/clients/+/state", QoS::AtMostOnce).await;
    let mut told = Vec::new();
    let mut client = Some(client);
    while told.len() < 2 {
        let state = next_publish(&mut watcher).await;
        if state.topic == Some(mqtt::topic("$SYS/broker/clients/dev%2F1/state")) {
            told.push((text(&state), state.retain));
            client.take();
        }
    }
    assert_eq!(told, [("connected".into(), true), ("disconnected".into(), false)]);
}

#[tokio::test]
async fn a_session_that_reads_slower_than_others_publish_delays_their_acks_and_loses_nothing() {
    const QUEUED: usize = 8;
    const EACH: usize = 30;
    let settings = format!("[queue]\nmax_messages = {QUEUED}\npublish_wait = \"60s\"\nslow_after = \"10s\"");
    let broker = Broker::start(&settings).await;
    let slow = || {
        let mut connect = lasting(Version::V5, "slow");
        connect.properties.as_mut().unwrap().receive_maximum = Some(1);
        connect
    };
    let (mut reader, _) = arrive(&broker, Version::V5, slow()).await;
    reader.subscribe("t", QoS::AtLeastOnce).await;
    drop(reader);
    broker.metric_becomes("tidegate_clients", |clients| clients == 0).await;
    // A full queue waits for it, more than its outbox takes at once.
    let mut early = Mqtt::named(&broker, Version::V5, "early").await;
    for _ in 0..QUEUED {
        publish(&mut early, "early", QoS::AtLeastOnce).await;
    }
    let (mut reader, _) = arrive(&broker, Version::V5, slow()).await;
    let publishing = async |name: &'static str| {
        let mut publisher = Mqtt::named(&broker, Version::V3_1_1, name).await;
        for number in 0..EACH {
            publisher.publish_acked("t", format!("{name} {number}")).await;
        }
    };
    let reading = async {
        broker.metric_becomes("tidegate_publishers_held_total", |held| held >= 3).await;
        let mut got = Vec::new();
        for _ in 0..QUEUED + 3 * EACH {
            let delivery = next_publish(&mut reader).await;
            got.push(text(&delivery));
            complete(&mut reader, &delivery).await;
        }
        nothing_more(&mut reader).await;
        got
    };
    let ((), (), (), got) = tokio::join!(publishing("a"), publishing("b"), publishing("c"), reading);
    for name in ["a", "b", "c"] {
        let expected: Vec<_> = (0..EACH).map(|number| format!("{name} {number}")).collect();
        let of_name = got.iter().filter(|payload| payload.starts_with(&format!("{name} ")));
        assert_eq!(of_name.collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    }
    assert_eq!(broker.metric("tidegate_drops_total{reason=\"oldest\"}").await, 0);
}

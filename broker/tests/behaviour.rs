//! What every subprotocol does alike, over real sockets: one suite, run for each of them.

mod support;

use bytes::Bytes;
use serde_json::json;
use support::Broker;
use support::client::{ALL, Client, Got, Protocol, WITH_RETAIN, WITH_VERBS, got};
use support::mqtt::{self, Mqtt};
use support::raw::{Code, Encoding, Envelope};
use support::socket::{Ask, Socket};
use support::stomp::Stomp;
use tidegate_protocol::mqtt::packet::{Ack, Packet, ReasonCode, Version};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp;

/// A message to `end`, behind everything that was published before.
async fn finish(broker: &Broker) {
    let mut client = Client::publisher(broker, Protocol::Json, "end").await;
    client.publish_acked("end", "").await;
}

fn kept(topic: &str, payload: &'static str) -> Got {
    Got { retained: true, ..got(topic, payload) }
}

// ---- topics ----

#[tokio::test]
async fn what_any_protocol_publishes_reaches_subscribers_of_every_protocol() {
    let broker = Broker::start("").await;
    let mut subscribers = Vec::new();
    for protocol in ALL {
        for filter in ["plant/3/temp", "plant/+/temp", "plant/#", "+/3/#", "#"] {
            subscribers.push((filter, Client::subscriber(&broker, protocol, &[filter, "end"]).await));
        }
    }
    let mut expected = Vec::new();
    for protocol in ALL {
        let mut publisher = Client::publisher(&broker, protocol, "plant/3/temp").await;
        let payload = format!("from {protocol:?}");
        publisher.publish_acked("plant/3/temp", payload.clone()).await;
        expected.push(got("plant/3/temp", payload));
    }
    finish(&broker).await;
    for (filter, subscriber) in &mut subscribers {
        assert_eq!(subscriber.until("end").await, expected, "{:?} {filter}", subscriber.protocol);
    }
}

#[tokio::test]
async fn what_a_filter_does_not_match_does_not_come() {
    let broker = Broker::start("").await;
    let mut subscribers = Vec::new();
    for protocol in ALL {
        for filter in ["a/b", "+", "a/+/c", "b/#", "/#", "+/a"] {
            subscribers.push((filter, Client::subscriber(&broker, protocol, &[filter, "z/end/z"]).await));
        }
    }
    let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "").await;
    for topic in ["a", "a/b", "a/b/c", "b", "b/a/x", "/a", "/"] {
        publisher.publish(topic, topic.to_owned()).await;
    }
    publisher.publish_acked("z/end/z", "").await;
    for (filter, subscriber) in &mut subscribers {
        let topics: Vec<_> = subscriber.until("z/end/z").await.into_iter().map(|got| got.topic).collect();
        let expected: &[&str] = match *filter {
            "a/b" => &["a/b"],
            "+" => &["a", "b"],
            "a/+/c" => &["a/b/c"],
            "b/#" => &["b", "b/a/x"],
            "/#" => &["/a", "/"],
            _ => &["/a"],
        };
        assert_eq!(topics, expected, "{:?} {filter}", subscriber.protocol);
    }
}

/// SEC-22. What a refusal looks like is the protocol's own; that nothing is delivered is common.
#[tokio::test]
async fn clients_do_not_write_topics_that_begin_with_a_dollar() {
    let broker = Broker::start("[sys]\ninterval = \"none\"").await;
    let mut reader = Client::subscriber(&broker, Protocol::Mqtt5, &["$SYS/#", "#"]).await;

    let payload = Ask { target: "/ws?pub=$SYS/x", ..Ask::default() };
    let mut socket = Socket::open(broker.address, payload).await;
    socket.send_text("x").await;
    assert_eq!(socket.end().await.code(), 4000);

    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let mut envelope = Envelope::connected(&broker, encoding).await;
        let answer = envelope.publish_acked(json!({}), "$SYS/x", b"x").await;
        assert_eq!((&*answer.op, answer.code), ("err", Some(Code::Word("bad_topic".into()))));
    }

    let mut mqtt5 = Mqtt::connected(&broker, Version::V5).await;
    assert_eq!(mqtt5.publish_acked("$SYS/x", "x").await, ReasonCode::TOPIC_NAME_INVALID);
    // 3.1.1 §3.3.5.2: acknowledged all the same, for it has no word for a refusal.
    let mut mqtt3 = Mqtt::connected(&broker, Version::V3_1_1).await;
    assert_eq!(mqtt3.publish_acked("$SYS/x", "x").await, ReasonCode::SUCCESS);

    let mut stomp = Stomp::connected(&broker, stomp::Version::V1_2).await;
    stomp.send(&Stomp::message("$SYS/x", "x").with_header("receipt", "1")).await;
    let (error, end) = stomp.end().await;
    assert_eq!((error.unwrap().header("receipt-id"), end.code()), (Some("1"), 4000));

    finish(&broker).await;
    assert_eq!(reader.until("end").await, []);
    let refused = broker.metric("tidegate_publishes_refused_total{reason=\"bad_topic\"}").await;
    assert_eq!(refused, 6);
}

// ---- retained messages ----

#[tokio::test]
async fn the_latest_retained_message_comes_at_the_subscription() {
    for publisher in WITH_RETAIN {
        let broker = Broker::start("").await;
        let mut client = Client::publisher(&broker, publisher, "a/1").await;
        for (topic, payload) in [("a/1", "old"), ("a/1", "new"), ("a/2", "two")] {
            client.retain(topic, payload).await;
        }
        client.publish("a/1", "not kept").await;
        client.barrier().await;
        for protocol in ALL {
            let mut exact = Client::subscriber(&broker, protocol, &["a/1"]).await;
            let first = exact.next().await;
            let mut wild = Client::subscriber(&broker, protocol, &["a/#"]).await;
            let mut all = [wild.next().await, wild.next().await];
            all.sort_by(|one, other| one.topic.cmp(&other.topic));
            let retained = protocol != Protocol::Payload;
            let expected = [("a/1", "new"), ("a/2", "two")]
                .map(|(topic, payload)| Got { retained, ..got(topic, payload) });
            assert_eq!(first, expected[0], "{publisher:?} to {protocol:?}");
            assert_eq!(all, expected, "{publisher:?} to {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_live_message_is_not_marked_as_retained() {
    let broker = Broker::start("").await;
    let mut subscribers = Vec::new();
    for protocol in ALL {
        subscribers.push(Client::subscriber(&broker, protocol, &["a"]).await);
    }
    Client::publisher(&broker, Protocol::Mqtt5, "a").await.retain("a", "x").await;
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next().await, got("a", "x"), "{:?}", subscriber.protocol);
    }
}

#[tokio::test]
async fn an_empty_retained_message_deletes() {
    for publisher in WITH_RETAIN {
        let broker = Broker::start("").await;
        let mut client = Client::publisher(&broker, publisher, "a").await;
        client.retain("a", "x").await;
        client.retain("b", "y").await;
        client.barrier().await;
        assert_eq!(broker.metric("tidegate_retained_messages").await, 2, "{publisher:?}");
        client.retain("a", "").await;
        client.barrier().await;
        assert_eq!(broker.metric("tidegate_retained_messages").await, 1, "{publisher:?}");
        let mut subscriber = Client::subscriber(&broker, Protocol::Mqtt311, &["a", "b"]).await;
        assert_eq!(subscriber.next().await, kept("b", "y"), "{publisher:?}");
    }
}

#[tokio::test]
async fn many_retained_messages_all_come_and_none_twice() {
    let broker = Broker::start("[mqtt]\nretained_batch = 7\n[queue]\nmax_messages = 20").await;
    let mut client = Client::publisher(&broker, Protocol::Mqtt311, "").await;
    for number in 0..300 {
        client.retain(&format!("a/{number:03}"), number.to_string()).await;
    }
    client.barrier().await;
    for protocol in ALL {
        let mut subscriber = Client::subscriber(&broker, protocol, &["a/#"]).await;
        let mut topics = Vec::new();
        for _ in 0..300 {
            topics.push(subscriber.next().await.topic);
        }
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 300, "{protocol:?}");
    }
    assert_eq!(broker.metric("tidegate_drops_total{reason=\"oldest\"}").await, 0);
}

// ---- subscriptions ----

#[tokio::test]
async fn nothing_comes_after_the_reply_to_an_unsubscribe() {
    let broker = Broker::start("").await;
    for protocol in WITH_VERBS {
        let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "a").await;
        let mut subscriber = Client::subscriber(&broker, protocol, &["a", "end"]).await;
        // Unread, so that deliveries are on their way and in the queue when the unsubscribe comes.
        for _ in 0..500 {
            publisher.publish("a", vec![b'x'; 100]).await;
        }
        subscriber.unsubscribe("a").await;
        publisher.publish("a", "late").await;
        publisher.publish_acked("end", "").await;
        assert_eq!(subscriber.until("end").await, [], "{protocol:?}");
    }
}

/// The support fails when anything precedes SUBACK, `ok` or RECEIPT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reply_to_a_subscribe_precedes_its_first_message() {
    let broker = Broker::start("").await;
    let mut kept = Client::publisher(&broker, Protocol::Mqtt311, "a").await;
    kept.retain("a", "kept").await;
    kept.barrier().await;
    let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "a").await;
    let storm = tokio::spawn(async move {
        loop {
            publisher.publish_acked("a", "live").await;
        }
    });
    for protocol in WITH_VERBS {
        for _ in 0..10 {
            let mut subscriber = Client::connected(&broker, protocol, Ask::default()).await;
            subscriber.subscribe("a").await;
            subscriber.next().await;
        }
    }
    assert!(!storm.is_finished());
    storm.abort();
}

#[tokio::test]
async fn a_message_that_matches_two_filters_of_one_client_comes_as_the_protocol_says() {
    let broker = Broker::start("").await;
    for protocol in ALL {
        let mut subscriber = Client::subscriber(&broker, protocol, &["a/b", "a/#", "end"]).await;
        let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "").await;
        publisher.publish("a/b", "x").await;
        publisher.publish_acked("end", "").await;
        // WIRE §8: one copy for MQTT and raw, one for each subscription in STOMP.
        let is_stomp = matches!(protocol, Protocol::Stomp10 | Protocol::Stomp11 | Protocol::Stomp12);
        let copies = if is_stomp { 2 } else { 1 };
        assert_eq!(subscriber.until("end").await.len(), copies, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_client_hears_itself_unless_it_asks_not_to() {
    let broker = Broker::start("").await;
    for protocol in WITH_VERBS {
        let mut client = Client::subscriber(&broker, protocol, &["a"]).await;
        client.publish("a", "echo").await;
        assert_eq!(client.next().await, got("a", "echo"), "{protocol:?}");
    }
    let payload = Ask { target: "/ws?t=x&pub=x", ..Ask::default() };
    let mut socket = Socket::open(broker.address, payload).await;
    socket.send_text("echo").await;
    assert_eq!(socket.message().await.into_bytes(), "echo");

    let mut mqtt5 = Mqtt::connected(&broker, Version::V5).await;
    let mut filter = mqtt::subscription("b", QoS::AtMostOnce);
    filter.no_local = true;
    mqtt5.subscribe_all(vec![filter, mqtt::subscription("end", QoS::AtMostOnce)]).await;
    mqtt5.publish(mqtt::publish("b", "own")).await;
    mqtt5.publish(mqtt::publish("end", "")).await;
    assert_eq!(mqtt5.delivery().await.topic, Some(mqtt::topic("end")));

    let mut envelope = Envelope::connected(&broker, Encoding::Json).await;
    envelope.subscribe_with("b", json!({"noecho": true})).await;
    envelope.subscribe("end").await;
    envelope.publish("b", b"own").await;
    envelope.publish("end", b"").await;
    assert_eq!(envelope.delivery().await.topic.as_deref(), Some("end"));
}

// ---- order and acknowledgements ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_of_one_publisher_come_in_order() {
    const COUNT: u32 = 400;
    let broker = Broker::start("[queue]\nmax_messages = 100000").await;
    let mut subscribers = Vec::new();
    for protocol in ALL {
        subscribers.push(Client::subscriber(&broker, protocol, &["a/#"]).await);
    }
    let publishers = ALL.map(|protocol| {
        let topic = format!("a/{protocol:?}");
        let address = &broker;
        async move {
            let mut publisher = Client::publisher(address, protocol, &topic).await;
            for number in 0..COUNT {
                publisher.publish(&topic, number.to_string()).await;
            }
            publisher.barrier().await;
        }
    });
    for publisher in publishers {
        publisher.await;
    }
    for subscriber in &mut subscribers {
        let mut next = std::collections::HashMap::<String, u32>::new();
        for _ in 0..usize::try_from(COUNT).unwrap() * ALL.len() {
            let got = subscriber.next().await;
            let number = next.entry(got.topic).or_default();
            assert_eq!(got.payload, number.to_string(), "{:?}", subscriber.protocol);
            *number += 1;
        }
    }
}

#[tokio::test]
async fn acknowledgements_come_in_the_order_of_pipelined_publishes() {
    const COUNT: u16 = 200;
    let broker = Broker::start("").await;
    let mut subscriber = Client::subscriber(&broker, Protocol::Mqtt311, &["a"]).await;

    for version in [Version::V3_1_1, Version::V5] {
        let mut client = Mqtt::connected(&broker, version).await;
        for id in 1..=COUNT {
            client.publish(mqtt::publish_acked("a", "x", id)).await;
        }
        for id in 1..=COUNT {
            assert_eq!(client.packet().await, Packet::PubAck(Ack::new(id, ReasonCode::SUCCESS)));
        }
    }
    let mut client = Stomp::connected(&broker, stomp::Version::V1_2).await;
    for id in 1..=COUNT {
        client.send(&Stomp::message("a", "x").with_header("receipt", id.to_string())).await;
    }
    for id in 1..=COUNT {
        assert_eq!(client.frame().await.header("receipt-id"), Some(&*id.to_string()));
    }
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let mut client = Envelope::connected(&broker, encoding).await;
        for id in 1..=COUNT {
            client.send(&json!({"op": "pub", "id": id, "topic": "a", "text": "x"})).await;
        }
        for id in 1..=COUNT {
            let said = client.said().await;
            assert_eq!((said.id, said.matched), (Some(id.into()), Some(1)));
        }
    }
    for _ in 0..5 * COUNT {
        subscriber.next().await;
    }
}

#[tokio::test]
async fn qos_1_is_delivered_with_acknowledgement_where_it_was_granted() {
    let broker = Broker::start("").await;
    let mut mqtt = Mqtt::connected(&broker, Version::V3_1_1).await;
    mqtt.subscribe("a", QoS::AtLeastOnce).await;
    let mut stomp = Stomp::connected(&broker, stomp::Version::V1_2).await;
    stomp.subscribe("a", "client-individual").await;
    for protocol in [Protocol::Json, Protocol::Mqtt311, Protocol::Mqtt5, Protocol::Stomp12] {
        let mut publisher = Client::publisher(&broker, protocol, "a").await;
        publisher.publish_acked("a", "x").await;
        let delivery = mqtt.delivery().await;
        assert_eq!((delivery.qos, delivery.dup), (QoS::AtLeastOnce, false), "{protocol:?}");
        assert!(stomp.delivery().await.header("ack").is_some(), "{protocol:?}");
    }
    // A wish for 2 is granted as 1 where that is the maximum [MQTT-3.8.4-7].
    let broker = Broker::start("[mqtt]\nmax_qos = 1").await;
    let mut mqtt = Mqtt::connected(&broker, Version::V3_1_1).await;
    let filters = vec![mqtt::subscription("b", QoS::ExactlyOnce)];
    assert_eq!(mqtt.subscribe_all(filters).await, [ReasonCode::GRANTED_QOS_1]);
}

#[tokio::test]
async fn a_full_window_of_acknowledgements_holds_qos_1_and_not_qos_0() {
    let broker = Broker::start("[mqtt]\nmax_inflight = 3").await;
    let mut client = Mqtt::connected(&broker, Version::V3_1_1).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "a").await;
    for number in 0..5 {
        publisher.publish_acked("a", number.to_string()).await;
    }
    publisher.publish("a", "qos 0").await;
    let mut read = async || match client.packet().await {
        Packet::Publish(publish) => publish,
        other => panic!("{other:?}"),
    };
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(read().await);
    }
    let ids: Vec<u16> = first.iter().filter(|p| p.qos == QoS::AtLeastOnce).map(|p| p.packet_id).collect();
    assert_eq!((ids.len(), first.iter().any(|p| p.payload == "qos 0")), (3, true));
    for id in ids {
        client.send(Packet::PubAck(Ack::new(id, ReasonCode::SUCCESS))).await;
    }
    for expected in ["3", "4"] {
        assert_eq!(client.delivery().await.payload, expected);
    }
}

// ---- what is refused, in the protocol's words ----

#[tokio::test]
async fn what_is_not_built_yet_is_refused_and_not_ignored() {
    let broker = Broker::start("").await;
    // QoS above `mqtt.max_qos`: 0x9B in MQTT 5 [MQTT-3.2.2-11], a close in 3.1.1.
    let narrow = Broker::start("[mqtt]\nmax_qos = 1").await;
    for (version, expected) in [(Version::V5, Some(ReasonCode::QOS_NOT_SUPPORTED)), (Version::V3_1_1, None)] {
        let mut client = Mqtt::connected(&narrow, version).await;
        let mut publish = mqtt::publish_acked("a", "x", 1);
        publish.qos = QoS::ExactlyOnce;
        client.publish(publish).await;
        assert_eq!(client.end().await.0, expected, "{version:?}");
    }

    for fields in [
        json!({"last": 2}),
        json!({"qos": 1}),
        json!({"presence": true}),
        json!({"since": {"epoch": "e", "off": 1}}),
    ] {
        let mut envelope = Envelope::connected(&broker, Encoding::Json).await;
        let mut operation = fields.clone();
        operation["op"] = "sub".into();
        operation["topic"] = "a".into();
        let (answer, _) = envelope.ask(operation).await;
        assert_eq!(answer.code, Some(Code::Word("unsupported".into())), "{fields}");
    }

    for (command, headers) in [
        (stomp::frame::Command::Subscribe, [("id", "1"), ("destination", "/queue/#")]),
        (stomp::frame::Command::Subscribe, [("id", "1"), ("destination", "/exchange/x")]),
        (stomp::frame::Command::Subscribe, [("id", "1"), ("destination", "/topics/x")]),
        (stomp::frame::Command::Commit, [("transaction", "t"), ("x", "y")]),
    ] {
        let mut client = Stomp::connected(&broker, stomp::Version::V1_2).await;
        let [(n1, v1), (n2, v2)] = headers;
        client.send(&stomp::frame::Frame::new(command).with_header(n1, v1).with_header(n2, v2)).await;
        let (error, end) = client.end().await;
        let message = error.unwrap().header("message").unwrap().to_owned();
        assert_eq!(end.code(), 4000, "{v2}: {message}");
    }
}

#[tokio::test]
async fn a_read_only_connection_that_writes_is_closed() {
    let broker = Broker::start("").await;
    let mut socket = Socket::open(broker.address, Ask { target: "/ws?t=a", ..Ask::default() }).await;
    socket.send_text("x").await;
    assert_eq!(socket.end().await.code(), 4003);
}

// ---- payloads ----

#[tokio::test]
async fn a_payload_arrives_byte_for_byte() {
    let broker = Broker::start("").await;
    let mut subscribers = Vec::new();
    for protocol in ALL {
        subscribers.push(Client::subscriber(&broker, protocol, &["a", "end"]).await);
    }
    let payloads: [Bytes; 8] = [
        Bytes::new(),
        "text with ü and \u{10ffff}".into(),
        "{\"a\": [1,  2.50, \"\\u00e4\"]}".into(),
        // JSON knows no spaces around a value: under `data` those of a payload like " 21.5 " mean nothing.
        "21.5".into(),
        "line\r\nbreaks\n\n".into(),
        "a\0b".into(),
        Bytes::from_static(&[0xff, 0x00, 0xfe]),
        (0..=255).collect::<Vec<u8>>().into(),
    ];
    for protocol in ALL {
        let mut publisher = Client::publisher(&broker, protocol, "a").await;
        for payload in &payloads {
            publisher.publish("a", payload.clone()).await;
        }
        publisher.barrier().await;
    }
    finish(&broker).await;
    for subscriber in &mut subscribers {
        let all = subscriber.until("end").await;
        assert_eq!(all.len(), ALL.len() * payloads.len(), "{:?}", subscriber.protocol);
        for (at, got) in all.iter().enumerate() {
            let (from, expected) = (ALL[at / payloads.len()], &payloads[at % payloads.len()]);
            assert_eq!(got.payload, *expected, "{from:?} to {:?}", subscriber.protocol);
        }
    }
}

// ---- counters ----

#[tokio::test]
async fn the_counters_show_what_happened() {
    let broker = Broker::start("").await;
    for (family, protocol) in
        [("raw", Protocol::Json), ("mqtt", Protocol::Mqtt5), ("stomp", Protocol::Stomp12)]
    {
        let mut subscriber = Client::subscriber(&broker, protocol, &["a", "b"]).await;
        let mut publisher = Client::publisher(&broker, protocol, "a").await;
        for _ in 0..10 {
            publisher.publish_acked("a", "x").await;
            subscriber.next().await;
        }
        let value =
            async |name: &str| broker.metric(&format!("tidegate_{name}{{protocol=\"{family}\"}}")).await;
        assert_eq!(value("connections").await, 2, "{family}");
        assert_eq!(value("connections_opened_total").await, 2, "{family}");
        assert_eq!(value("messages_received_total").await, 10, "{family}");
        assert_eq!(value("messages_sent_total").await, 10, "{family}");
        assert!(value("received_bytes_total").await > 0, "{family}");
        assert_eq!(broker.metric("tidegate_subscriptions").await, 2, "{family}");
        assert_eq!(broker.metric("tidegate_outbox_messages").await, 0, "{family}");
        drop((subscriber, publisher));
        broker.metric_becomes("tidegate_subscriptions", |value| value == 0).await;
        broker
            .metric_becomes(&format!("tidegate_connections{{protocol=\"{family}\"}}"), |value| value == 0)
            .await;
    }
    assert_eq!(broker.metric("tidegate_disconnects_total{reason=\"lost\"}").await, 6);
    broker.metric_becomes("tidegate_outbox_bytes", |value| value == 0).await;
}

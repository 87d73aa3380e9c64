//! `$SYS` over real sockets: what stands there, when it changes, and who sees it (man 8 mosquitto, "BROKER STATUS").

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use support::client::{Client, Got, Protocol};
use support::mqtt::Mqtt;
use support::socket::Ask;
use support::{Broker, within};
use tidegate::config::Config;
use tidegate_protocol::mqtt::packet::Version;
use tidegate_protocol::publication::QoS;

/// Every topic below `$SYS/broker/`.
const NAMES: [&str; 51] = [
    "version",
    "uptime",
    "clients/connected",
    "clients/disconnected",
    "clients/total",
    "clients/maximum",
    "clients/expired",
    "messages/received",
    "messages/sent",
    "publish/messages/received",
    "publish/messages/sent",
    "publish/messages/dropped",
    "publish/bytes/received",
    "publish/bytes/sent",
    "bytes/received",
    "bytes/sent",
    "subscriptions/count",
    "shared_subscriptions/count",
    "retained messages/count",
    "store/messages/count",
    "store/messages/bytes",
    "clients/active",
    "clients/inactive",
    "messages/stored",
    "load/messages/received/1min",
    "load/messages/received/5min",
    "load/messages/received/15min",
    "load/messages/sent/1min",
    "load/messages/sent/5min",
    "load/messages/sent/15min",
    "load/publish/received/1min",
    "load/publish/received/5min",
    "load/publish/received/15min",
    "load/publish/sent/1min",
    "load/publish/sent/5min",
    "load/publish/sent/15min",
    "load/publish/dropped/1min",
    "load/publish/dropped/5min",
    "load/publish/dropped/15min",
    "load/bytes/received/1min",
    "load/bytes/received/5min",
    "load/bytes/received/15min",
    "load/bytes/sent/1min",
    "load/bytes/sent/5min",
    "load/bytes/sent/15min",
    "load/connections/1min",
    "load/connections/5min",
    "load/connections/15min",
    "load/sockets/1min",
    "load/sockets/5min",
    "load/sockets/15min",
];

/// Shorter than the file allows.
fn often(config: &mut Config) {
    config.sys.interval = Some(Duration::from_millis(20));
}

fn name_of(got: &Got) -> &str {
    got.topic.strip_prefix("$SYS/broker/").unwrap_or_else(|| panic!("{got:?}"))
}

fn text_of(got: &Got) -> String {
    String::from_utf8(got.payload.to_vec()).unwrap()
}

/// A subscriber of `$SYS/#` and the last value of each topic.
struct Watcher {
    client: Client,
    values: BTreeMap<String, String>,
}

impl Watcher {
    async fn start(broker: &Broker) -> Self {
        Self {
            client: Client::subscriber(broker, Protocol::Mqtt5, &["$SYS/#"]).await,
            values: BTreeMap::new(),
        }
    }

    /// Reads on until these values stand there together.
    async fn until(&mut self, expected: &[(&str, &str)]) {
        let mut is_as_expected = false;
        while !is_as_expected {
            let got = self.client.next().await;
            self.values.insert(name_of(&got).to_owned(), text_of(&got));
            is_as_expected = expected.iter().all(|(name, value)| self.is(name, value));
        }
    }

    /// Reads on until this one is something else.
    async fn until_not(&mut self, name: &str, value: &str) {
        while self.values.get(name).is_none_or(|found| found == value) {
            let got = self.client.next().await;
            self.values.insert(name_of(&got).to_owned(), text_of(&got));
        }
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.values.get(name).is_some_and(|found| found == value)
    }
}

/// Each protocol's subscriber gets every topic as a retained one, and numbers again when they have changed.
#[tokio::test]
async fn every_topic_is_there_for_a_new_subscriber_of_any_protocol() {
    let broker = Broker::start_with("", often).await;
    for protocol in [Protocol::Mqtt31, Protocol::Mqtt311, Protocol::Mqtt5, Protocol::Stomp12, Protocol::Json]
    {
        let mut client = Client::subscriber(&broker, protocol, &["$SYS/#"]).await;
        let mut missing: BTreeSet<&str> = NAMES.into();
        within("all topics", async {
            while !missing.is_empty() {
                let got = client.next().await;
                let name = name_of(&got);
                assert!(NAMES.contains(&name), "{got:?}");
                if got.retained {
                    assert!(missing.remove(name), "{protocol:?} got {name} twice as a retained one");
                }
                match name {
                    "version" => {
                        assert_eq!(text_of(&got), format!("tidegate version {}", env!("CARGO_PKG_VERSION")))
                    }
                    "uptime" => assert!(text_of(&got).ends_with(" seconds"), "{got:?}"),
                    load if load.starts_with("load/") => {
                        let cents = text_of(&got).rsplit_once('.').map(|(_, cents)| cents.len());
                        assert_eq!(cents, Some(2), "{got:?}");
                        text_of(&got).parse::<f64>().unwrap();
                    }
                    _ => _ = text_of(&got).parse::<u64>().unwrap(),
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn numbers_follow_what_happens() {
    let broker = Broker::start_with("", often).await;
    let mut watcher = Watcher::start(&broker).await;
    watcher
        .until(&[("clients/connected", "1"), ("clients/maximum", "1"), ("subscriptions/count", "1")])
        .await;

    let mut other = Client::subscriber(&broker, Protocol::Stomp12, &["a", "b"]).await;
    other.retain("kept", "12345").await;
    other.publish("a", "123").await;
    other.until("a").await;
    let expected = [
        ("clients/connected", "2"),
        ("clients/disconnected", "0"),
        ("clients/total", "2"),
        ("clients/maximum", "2"),
        ("subscriptions/count", "3"),
        ("retained messages/count", "1"),
        ("publish/messages/received", "2"),
        ("publish/bytes/received", "8"),
        ("publish/messages/dropped", "0"),
    ];
    watcher.until(&expected).await;
    watcher.until_not("load/publish/received/15min", "0.00").await;
    watcher.until_not("load/connections/15min", "0.00").await;
    assert!(watcher.is("load/publish/dropped/1min", "0.00"));
    // CONNECT, two SUBSCRIBE and two SEND are in it beside the packets of the watcher.
    let received: u64 = watcher.values["messages/received"].parse().unwrap();
    assert!(received >= 7, "{received}");

    other.into_socket().close(1000).await;
    let expected = [
        ("clients/connected", "1"),
        ("clients/total", "1"),
        ("clients/maximum", "2"),
        ("subscriptions/count", "1"),
        ("retained messages/count", "1"),
    ];
    watcher.until(&expected).await;
}

/// The WebSocket alone makes no client.
#[tokio::test]
async fn a_client_counts_from_its_connect() {
    let broker = Broker::start_with("", often).await;
    let mut watcher = Watcher::start(&broker).await;
    let mut silent = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    silent.socket.barrier().await;
    let _second = Client::connected(&broker, Protocol::Json, Ask::default()).await;
    watcher.until(&[("clients/connected", "2")]).await;
    assert!(watcher.is("clients/maximum", "2"), "{:?}", watcher.values);
    silent.connect(support::mqtt::connect(Version::V5, "c")).await;
    watcher.until(&[("clients/connected", "3")]).await;
}

/// [MQTT-4.7.2-1], in all protocols.
#[tokio::test]
async fn wildcards_at_the_first_level_see_nothing_of_it() {
    let broker = Broker::start_with("", often).await;
    let mut watcher = Client::subscriber(&broker, Protocol::Mqtt5, &["$SYS/broker/uptime"]).await;
    for protocol in [Protocol::Mqtt311, Protocol::Mqtt5, Protocol::Stomp12, Protocol::Json, Protocol::Payload]
    {
        let mut client = Client::subscriber(&broker, protocol, &["#", "+/broker/#"]).await;
        // The retained one perhaps, and two that were published since.
        for _ in 0..3 {
            watcher.next().await;
        }
        let mut publisher = Client::publisher(&broker, Protocol::Mqtt5, "end").await;
        publisher.publish("end", "").await;
        assert_eq!(client.until("end").await, [], "{protocol:?}");
    }
}

/// What clients may retain is another matter.
#[tokio::test]
async fn it_is_retained_whatever_clients_may_retain() {
    for settings in
        ["[mqtt]\nretain = false", "[mqtt]\nretained_max_messages = 1\nretained_max_bytes = \"4 KiB\""]
    {
        let broker = Broker::start_with(settings, often).await;
        for name in NAMES {
            let mut late = Mqtt::connected(&broker, Version::V5).await;
            late.subscribe(&format!("$SYS/broker/{name}"), QoS::AtMostOnce).await;
            let got = late.delivery().await;
            assert!(got.retain, "{settings}: {got:?}");
        }
    }
}

#[tokio::test]
async fn it_takes_no_room_from_what_clients_retain() {
    let broker = Broker::start_with("[mqtt]\nretained_max_messages = 1", often).await;
    let mut watcher = Watcher::start(&broker).await;
    watcher.until(&[("retained messages/count", "0")]).await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    for (topic, is_taken) in [("a", true), ("b", false), ("a", true)] {
        let mut publish = support::mqtt::publish_acked(topic, "x", 1);
        publish.retain = true;
        client.publish(publish).await;
        let support::mqtt::Packet::PubAck(ack) = client.packet().await else {
            panic!("a PUBACK was expected")
        };
        assert_eq!(!ack.reason.is_error(), is_taken, "{topic}: {ack:?}");
    }
    watcher.until(&[("retained messages/count", "1")]).await;
}

//! Clients that do not read, over real sockets: what the overflow policies keep, what is counted and told, who is
//! held and for how long (DESIGN §6, CONFIG `[queue]`). A reader stalls because it does not read its socket.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod support;

use bytes::Bytes;
use serde_json::{Value, json};
use support::client::{ALL, Client, Got, Protocol, WITH_VERBS};
use support::mqtt::{self, Mqtt};
use support::raw::{Encoding, Envelope};
use support::socket::{Ask, End, Socket};
use support::stomp::Stomp;
use support::{Broker, http, within};
use tidegate_protocol::mqtt::packet::{Connect, Disconnect, Packet, Publish, ReasonCode, Version, Will};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp;

/// The kernel takes about 256 KiB for a client that does not read; [`COUNT`] of these are far more than that.
const PAYLOAD_BYTES: usize = 32 * 1024;

const COUNT: usize = 80;

/// Messages that the broker queues for one client under [`SMALL`].
const QUEUED: usize = 8;

/// A small queue, and nobody waits for room in it.
const SMALL: &str = "max_messages = 8\npublish_wait = \"0ms\"";

/// Topics that the numbers go to in turn.
const TOPICS: usize = 4;

/// So little is received without being read that the socket stalls soon.
const STALLED: Ask<'static> =
    Ask { target: "/ws", protocols: &[], deflate: None, receive_buffer: Some(4096) };

fn topic_of(number: usize) -> String {
    format!("a/{}", number % TOPICS)
}

fn numbered(number: usize) -> Bytes {
    format!("{number:.<PAYLOAD_BYTES$}").into()
}

fn number_in(payload: &[u8]) -> usize {
    let digits: Vec<u8> = payload.iter().copied().take_while(u8::is_ascii_digit).collect();
    assert_eq!(payload.len(), PAYLOAD_BYTES);
    String::from_utf8(digits).unwrap().parse().unwrap()
}

/// Publishes [`COUNT`] numbers at QoS 0, and waits until all have been queued or dropped. One at a time, so that
/// the reader's queue fills because its socket stalls and not because its task has had no turn.
async fn publish_all(broker: &Broker) {
    let mut publisher = Client::publisher(broker, Protocol::Mqtt311, "").await;
    for number in 0..COUNT {
        publisher.publish(&topic_of(number), numbered(number)).await;
        publisher.barrier().await;
    }
}

async fn drops(broker: &Broker, reason: &str) -> usize {
    let value = broker.metric(&format!("tidegate_drops_total{{reason=\"{reason}\"}}")).await;
    usize::try_from(value).unwrap()
}

/// Reads all that was not dropped.
async fn numbers(broker: &Broker, reason: &str, mut next: impl AsyncFnMut() -> Bytes) -> Vec<usize> {
    let dropped = drops(broker, reason).await;
    assert!(dropped > 0, "the queue did not overflow");
    let mut numbers = Vec::new();
    for _ in dropped..COUNT {
        numbers.push(number_in(&next().await));
    }
    assert!(numbers.is_sorted_by(|one, next| one < next) || reason == "conflated", "{numbers:?}");
    numbers
}

/// What each policy leaves of [`COUNT`] numbers.
fn check_left(policy: &str, numbers: &[usize], what: &str) {
    match policy {
        "drop_oldest" => {
            let newest: Vec<usize> = (COUNT - QUEUED..COUNT).collect();
            assert!(numbers.ends_with(&newest), "{what}: {numbers:?}");
        }
        "drop_newest" => {
            // Some may be lost before the socket stalls: the queue is short even for one that is read.
            let oldest: Vec<usize> = (0..QUEUED).collect();
            assert!(numbers.starts_with(&oldest), "{what}: {numbers:?}");
            assert!(numbers.iter().all(|number| *number < COUNT - QUEUED), "{what}: {numbers:?}");
        }
        "conflate" => {
            for topic in 0..TOPICS {
                let of_topic: Vec<usize> =
                    numbers.iter().copied().filter(|number| number % TOPICS == topic).collect();
                assert!(of_topic.is_sorted(), "{what}: {of_topic:?}");
                assert_eq!(of_topic.last(), Some(&(COUNT - TOPICS + topic)), "{what}");
            }
        }
        other => panic!("{other}"),
    }
}

const POLICIES: [(&str, &str); 3] =
    [("drop_oldest", "oldest"), ("drop_newest", "newest"), ("conflate", "conflated")];

// ---- the policies ----

#[tokio::test]
async fn each_policy_keeps_what_it_promises_and_counts_the_rest() {
    for protocol in ALL {
        for (policy, reason) in POLICIES {
            let settings = format!("[queue]\n{SMALL}\noverflow_qos0 = \"{policy}\"");
            let broker = Broker::start(&settings).await;
            let mut reader = Client::subscriber_with(&broker, protocol, &["a/#"], STALLED).await;
            publish_all(&broker).await;
            let left = numbers(&broker, reason, async || reader.next().await.payload).await;
            check_left(policy, &left, &format!("{protocol:?} {policy}"));
            let others = POLICIES.iter().filter(|(_, other)| *other != reason);
            for (_, other) in others {
                assert_eq!(drops(&broker, other).await, 0, "{protocol:?} {policy}: {other}");
            }
        }
    }
}

#[tokio::test]
async fn the_policy_is_to_drop_the_oldest_if_nothing_is_said() {
    let broker = Broker::start(&format!("[queue]\n{SMALL}")).await;
    let mut reader = Client::subscriber_with(&broker, Protocol::Mqtt5, &["a/#"], STALLED).await;
    publish_all(&broker).await;
    let left = numbers(&broker, "oldest", async || reader.next().await.payload).await;
    check_left("drop_oldest", &left, "default");
}

#[tokio::test]
async fn an_envelope_chooses_the_policy_of_its_subscription() {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        for (policy, reason) in POLICIES {
            // What the operator set would end the connection.
            let broker = Broker::start(&format!("[queue]\n{SMALL}\noverflow_qos0 = \"disconnect\"")).await;
            let mut reader = Envelope::open(&broker, encoding, STALLED).await;
            reader.subscribe_with("a/#", json!({"overflow": policy})).await;
            publish_all(&broker).await;
            let left = numbers(&broker, reason, async || reader.delivery().await.payload.unwrap()).await;
            check_left(policy, &left, &format!("{encoding:?} {policy}"));
        }
    }
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_disconnected_in_the_words_of_its_protocol() {
    for protocol in ALL {
        let broker = Broker::start(&format!("[queue]\n{SMALL}\noverflow_qos0 = \"disconnect\"")).await;
        let (end, word) = match protocol {
            Protocol::Json | Protocol::MessagePack => {
                let encoding =
                    if protocol == Protocol::Json { Encoding::Json } else { Encoding::MessagePack };
                let mut reader = Envelope::open(&broker, encoding, STALLED).await;
                reader.subscribe("a/#").await;
                publish_all(&broker).await;
                let (_, end) = reader.end().await;
                (end, true)
            }
            Protocol::Mqtt311 | Protocol::Mqtt5 => {
                let version = if protocol == Protocol::Mqtt5 { Version::V5 } else { Version::V3_1_1 };
                let mut reader = Mqtt::open(&broker, version, STALLED).await;
                reader.connect(mqtt::connect(version, "")).await;
                reader.subscribe("a/#", QoS::AtMostOnce).await;
                publish_all(&broker).await;
                let (reason, end) = reader.end().await;
                // 3.1.1 has no DISCONNECT of the server.
                let expected = (version == Version::V5).then_some(ReasonCode::QUOTA_EXCEEDED);
                (end, reason == expected)
            }
            Protocol::Stomp12 => {
                let mut reader = Stomp::open(&broker, stomp::Version::V1_2, STALLED).await;
                reader.connect(&[]).await;
                reader.subscribe("a/#", "auto").await;
                publish_all(&broker).await;
                let (error, end) = reader.end().await;
                (end, error.is_some_and(|error| error.header("message").is_some()))
            }
            _ => {
                let reader = Client::subscriber_with(&broker, protocol, &["a/#"], STALLED).await;
                publish_all(&broker).await;
                (reader.into_socket().end().await, true)
            }
        };
        assert_eq!((end.code(), word), (4101, true), "{protocol:?}: {end:?}");
        assert!(drops(&broker, "closed").await > 0, "{protocol:?}");
        assert_eq!(broker.metric("tidegate_disconnects_total{reason=\"too_slow\"}").await, 1);
    }
}

#[tokio::test]
async fn acknowledged_messages_are_not_lost_in_silence() {
    // `overflow_qos1` is `disconnect`, whatever the policy for QoS 0.
    let broker = Broker::start(&format!("[queue]\n{SMALL}\n[mqtt]\nmax_inflight = 2")).await;
    let mut reader = Mqtt::open(&broker, Version::V5, STALLED).await;
    reader.connect(mqtt::connect(Version::V5, "")).await;
    reader.subscribe("a/#", QoS::AtLeastOnce).await;
    let mut publisher = Client::publisher(&broker, Protocol::Mqtt5, "").await;
    for number in 0..QUEUED + 3 {
        publisher.publish_acked(&topic_of(number), numbered(number)).await;
    }
    let (reason, end) = reader.end().await;
    assert_eq!((reason, end.code()), (Some(ReasonCode::QUOTA_EXCEEDED), 4101));
}

// ---- what the client is told ----

/// The two numbers of `dropped=3;conflated=0`.
fn lag_in(value: &str) -> (usize, usize) {
    let (dropped, conflated) = value.split_once(';').unwrap();
    let number = |text: &str, name: &str| text.strip_prefix(name).unwrap().parse().unwrap();
    (number(dropped, "dropped="), number(conflated, "conflated="))
}

/// Reads one message; gives the lag that came with it.
async fn read_lag(reader: &mut Reader) -> Option<(usize, usize)> {
    match reader {
        Reader::Mqtt(client) => {
            let delivery = client.delivery().await;
            let values = mqtt::user_values(delivery.properties.as_deref(), "tidegate-lag");
            values.first().map(|value| lag_in(value))
        }
        Reader::Stomp(client) => client.delivery().await.header("x-lag").map(lag_in),
        Reader::Envelope(client) => {
            let said = client.said().await;
            if said.op != "lag" {
                return None;
            }
            let number = |count: Option<u64>| usize::try_from(count.unwrap()).unwrap();
            let (dropped, conflated) = (number(said.dropped), number(said.conflated));
            let topics = said.topics.unwrap_or_default();
            assert_eq!(dropped > 0, topics.iter().any(|topic| topic.starts_with("a/")), "{topics:?}");
            Some((dropped, conflated))
        }
    }
}

enum Reader {
    Mqtt(Mqtt),
    Stomp(Stomp),
    Envelope(Envelope),
}

async fn stalled_reader(broker: &Broker, protocol: Protocol) -> Reader {
    let envelope = async |encoding| {
        let mut client = Envelope::open(broker, encoding, STALLED).await;
        client.subscribe("a/#").await;
        Reader::Envelope(client)
    };
    match protocol {
        Protocol::Json => envelope(Encoding::Json).await,
        Protocol::MessagePack => envelope(Encoding::MessagePack).await,
        Protocol::Mqtt5 => {
            let mut client = Mqtt::open(broker, Version::V5, STALLED).await;
            client.connect(mqtt::connect(Version::V5, "")).await;
            client.subscribe("a/#", QoS::AtMostOnce).await;
            Reader::Mqtt(client)
        }
        Protocol::Stomp12 => {
            let mut client = Stomp::open(broker, stomp::Version::V1_2, STALLED).await;
            client.connect(&[]).await;
            client.subscribe("a/#", "auto").await;
            Reader::Stomp(client)
        }
        other => panic!("{other:?} is told nothing"),
    }
}

#[tokio::test]
async fn a_client_is_told_of_each_message_that_it_lost() {
    for protocol in [Protocol::Json, Protocol::MessagePack, Protocol::Mqtt5, Protocol::Stomp12] {
        for (policy, reason) in POLICIES {
            let broker = Broker::start(&format!("[queue]\n{SMALL}\noverflow_qos0 = \"{policy}\"")).await;
            let mut reader = stalled_reader(&broker, protocol).await;
            publish_all(&broker).await;
            let lost = drops(&broker, reason).await;
            let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "").await;
            let mut told = (0, 0);
            let all = async {
                while told.0 + told.1 < lost {
                    // A notice may need a message to go with.
                    publisher.publish("a/more", "").await;
                    if let Some((dropped, conflated)) = read_lag(&mut reader).await {
                        told = (told.0 + dropped, told.1 + conflated);
                    }
                }
            };
            within("all of the lag", all).await;
            // What was published meanwhile may have been lost too, and is told as well.
            let conflated = drops(&broker, "conflated").await;
            let dropped = drops(&broker, "oldest").await + drops(&broker, "newest").await;
            assert!(told.0 <= dropped && told.1 <= conflated, "{protocol:?} {policy}: {told:?}");
        }
    }
}

// ---- others ----

#[tokio::test]
async fn a_slow_client_does_not_delay_another() {
    // A broker that waited for the slow one would wait longer than this test does.
    let broker =
        Broker::start("[queue]\nmax_messages = 8\npublish_wait = \"60s\"\nslow_after = \"10s\"").await;
    for protocol in ALL {
        let _slow = Client::subscriber_with(&broker, protocol, &["a/#"], STALLED).await;
        let mut other = Client::subscriber(&broker, protocol, &["a/#"]).await;
        let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "").await;
        for number in 0..COUNT {
            publisher.publish(&topic_of(number), numbered(number)).await;
            assert_eq!(number_in(&other.next().await.payload), number, "{protocol:?}");
        }
    }
    assert_ne!(drops(&broker, "oldest").await, 0);
}

const ACKED: [Protocol; 8] = WITH_VERBS;

#[tokio::test]
async fn an_acknowledged_publish_waits_for_a_slow_reader_and_nothing_is_lost() {
    for protocol in ACKED {
        let settings = "[queue]\nmax_messages = 8\npublish_wait = \"60s\"\nslow_after = \"10s\"";
        let broker = Broker::start(settings).await;
        let mut reader = Client::subscriber_with(&broker, Protocol::Mqtt311, &["a/#"], STALLED).await;
        let mut publisher = Client::publisher(&broker, protocol, "").await;
        let publishing = async {
            for number in 0..COUNT {
                publisher.publish_acked(&topic_of(number), numbered(number)).await;
            }
        };
        let reading = async {
            broker.metric_becomes("tidegate_publishers_held_total", |held| held > 0).await;
            for number in 0..COUNT {
                assert_eq!(number_in(&reader.next().await.payload), number, "{protocol:?}");
            }
        };
        tokio::join!(publishing, reading);
        assert_eq!(drops(&broker, "oldest").await, 0, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_acknowledged_publish_does_not_wait_for_ever() {
    for protocol in ACKED {
        // Nobody would wait for 80 times 500 ms, as it would be if the patience did not run out.
        let settings = "[queue]\nmax_messages = 8\npublish_wait = \"500ms\"\nslow_after = \"500ms\"";
        let broker = Broker::start(settings).await;
        let _reader = Client::subscriber_with(&broker, Protocol::Mqtt311, &["a/#"], STALLED).await;
        let mut publisher = Client::publisher(&broker, protocol, "").await;
        within("all acknowledgements", async {
            for number in 0..COUNT {
                publisher.publish_acked(&topic_of(number), numbered(number)).await;
            }
        })
        .await;
        assert_ne!(broker.metric("tidegate_publishers_held_total").await, 0, "{protocol:?}");
        assert_ne!(drops(&broker, "oldest").await, 0, "{protocol:?}");
    }
}

/// A reader that takes nothing, and publishes for it until one is held. They are let go when they are dropped.
async fn held_up(broker: &Broker) -> (Client, Mqtt) {
    let reader = Client::subscriber_with(broker, Protocol::Mqtt311, &["a/#"], STALLED).await;
    let mut publisher = Mqtt::connected(broker, Version::V3_1_1).await;
    for number in 0..COUNT {
        let packet_id = publisher.next_id();
        publisher.publish(mqtt::publish_acked("a/0", numbered(number), packet_id)).await;
    }
    broker.metric_becomes("tidegate_publishers_held_total", |held| held == 1).await;
    (reader, publisher)
}

const PATIENT: &str = "[queue]\nmax_messages = 8\npublish_wait = \"60s\"\nslow_after = \"10s\"";

#[tokio::test]
async fn what_a_client_says_behind_a_held_publish_counts_though_it_leaves() {
    let broker = Broker::start(PATIENT).await;
    let mut watcher = Mqtt::connected(&broker, Version::V3_1_1).await;
    watcher.subscribe("w/#", QoS::AtLeastOnce).await;
    let _held_up = held_up(&broker).await;
    let mut client = Mqtt::open(&broker, Version::V3_1_1, Ask::default()).await;
    let topic = mqtt::topic("w/will");
    let will = Will { topic, payload: "will".into(), qos: QoS::AtLeastOnce, retain: false, properties: None };
    client.connect(Connect { will: Some(will), ..mqtt::connect(Version::V3_1_1, "leaves") }).await;
    // In one message, as a library does that gathers what it writes.
    let packets = [
        Packet::Publish(mqtt::publish_acked("a/0", numbered(0), 1)),
        Packet::Publish(mqtt::publish_acked("a/0", numbered(1), 2)),
        Packet::Publish(mqtt::publish_acked("w/behind", "behind", 3)),
        Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties: None }),
    ];
    client.send_together(&packets).await;
    assert_eq!(watcher.delivery().await.payload, "behind");
    client.end().await;
    let mut other = Mqtt::connected(&broker, Version::V3_1_1).await;
    other.publish_acked("w/last", "last").await;
    assert_eq!(watcher.delivery().await.payload, "last", "[MQTT-3.14.4-3]: no will");
}

#[tokio::test]
async fn what_was_sent_to_a_client_while_its_own_publish_is_held_is_known_as_sent() {
    let broker = Broker::start(PATIENT).await;
    let lasting = || Connect { clean_start: false, ..mqtt::connect(Version::V3_1_1, "both") };
    let mut client = Mqtt::open(&broker, Version::V3_1_1, Ask::default()).await;
    client.connect(lasting()).await;
    client.subscribe("in", QoS::ExactlyOnce).await;
    let _held_up = held_up(&broker).await;
    client.publish(mqtt::publish_acked("a/0", numbered(0), 9)).await;
    broker.metric_becomes("tidegate_publishers_held_total", |held| held == 2).await;
    let mut other = Mqtt::connected(&broker, Version::V3_1_1).await;
    other.publish(Publish { qos: QoS::ExactlyOnce, ..mqtt::publish_acked("in", "once", 1) }).await;
    let first = client.delivery().await;
    let mut again = Mqtt::open(&broker, Version::V3_1_1, Ask::default()).await;
    again.connect(lasting()).await;
    assert_eq!(again.delivery().await, Publish { dup: true, ..first }, "[MQTT-4.4.0-1]");
}

// ---- conflation ----

/// Subscribed to `a/#` with this interval: payload mode, and both envelopes.
async fn conflating(broker: &Broker, protocol: Protocol, interval: Value) -> Reading {
    let encoding = match protocol {
        Protocol::Payload => {
            let interval = if interval == true { "1".to_owned() } else { interval.to_string() };
            let target = format!("/ws?t=a/%23&conflate={interval}");
            let mut socket = Socket::open(broker.address, Ask { target: &target, ..STALLED }).await;
            socket.barrier().await;
            return Reading::Payload(socket);
        }
        Protocol::Json => Encoding::Json,
        _ => Encoding::MessagePack,
    };
    let mut client = Envelope::open(broker, encoding, STALLED).await;
    client.subscribe_with("a/#", json!({"conflate": interval})).await;
    Reading::Envelope(client)
}

enum Reading {
    Payload(Socket),
    Envelope(Envelope),
}

impl Reading {
    async fn number(&mut self) -> usize {
        match self {
            Self::Payload(socket) => number_in(&socket.message().await.into_bytes()),
            Self::Envelope(client) => number_in(&client.delivery().await.payload.unwrap()),
        }
    }
}

const CONFLATING: [Protocol; 3] = [Protocol::Payload, Protocol::Json, Protocol::MessagePack];

#[tokio::test]
async fn the_newest_value_of_each_topic_always_comes_at_last() {
    // In payload mode `conflate=1` is the word for yes.
    for interval in [json!(true), json!(300)] {
        for protocol in CONFLATING {
            let what = format!("{protocol:?} {interval}");
            let broker = Broker::start("").await;
            let mut reader = conflating(&broker, protocol, interval.clone()).await;
            publish_all(&broker).await;
            let mut numbers = Vec::new();
            let newest = |numbers: &[usize], topic: usize| {
                numbers.iter().copied().rfind(|number| number % TOPICS == topic)
                    == Some(COUNT - TOPICS + topic)
            };
            while !(0..TOPICS).all(|topic| newest(&numbers, topic)) {
                numbers.push(reader.number().await);
            }
            check_left("conflate", &numbers, &what);
            let replaced = drops(&broker, "conflated").await;
            assert_eq!((numbers.len() + replaced, replaced > 0), (COUNT, true), "{what}");
        }
    }
}

// ---- stalls and memory ----

#[tokio::test]
async fn a_socket_that_takes_nothing_is_dropped() {
    for protocol in ALL {
        let settings = format!("[queue]\n{SMALL}\nstall_timeout = \"100ms\"");
        let broker = Broker::start(&settings).await;
        let reader = Client::subscriber_with(&broker, protocol, &["a/#"], STALLED).await;
        publish_all(&broker).await;
        let name = "tidegate_disconnects_total{reason=\"too_slow\"}";
        broker.metric_becomes(name, |count| count == 1).await;
        broker.metric_becomes("tidegate_outbox_bytes", |bytes| bytes == 0).await;
        assert_eq!(reader.into_socket().end().await, End::Lost, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_broker_without_memory_sheds_qos_0_and_refuses_connects() {
    let settings = "[queue]\nmax_bytes = \"256 KiB\"\ntotal_bytes = \"1 MiB\"\npublish_wait = \"0ms\"\n\
                    [websocket]\nmax_message_size = \"128 KiB\"\n[stomp]\nmax_body = \"64 KiB\"";
    let broker = Broker::start(settings).await;
    let mut idle = Client::subscriber(&broker, Protocol::Mqtt311, &["#"]).await;
    let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "").await;
    let mut unconnected = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    let mut slow = Vec::new();
    // Messages that are shared count once, so each has a topic of its own.
    for reader in 0..10 {
        let filter = format!("a/{reader}");
        slow.push(Client::subscriber_with(&broker, Protocol::Mqtt311, &[&filter], STALLED).await);
    }
    for number in 0..40 {
        for reader in 0..slow.len() {
            let topic = format!("a/{reader}");
            publisher.publish(&topic, numbered(number)).await;
            let Got { payload, .. } = idle.next().await;
            assert_eq!(number_in(&payload), number, "who reads is not deprived");
        }
    }
    assert_ne!(drops(&broker, "memory").await, 0);

    let refused = http::upgrade(broker.address, "/ws", &[]).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(broker.metric("tidegate_handshakes_refused_total{reason=\"overloaded\"}").await, 1);
    unconnected.send(Packet::Connect(Box::new(mqtt::connect(Version::V5, "")))).await;
    match unconnected.packet().await {
        Packet::ConnAck(ack) => assert_eq!(ack.reason, ReasonCode::SERVER_BUSY),
        other => panic!("{other:?}"),
    }

    drop(slow);
    broker.metric_becomes("tidegate_outbox_bytes", |bytes| bytes == 0).await;
    assert_eq!(http::upgrade(broker.address, "/ws", &[]).await.status, 101);
}

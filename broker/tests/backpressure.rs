//! Clients that do not read, over real sockets: what the overflow policies keep, what is counted and told, who is
//! held and for how long (DESIGN §6, CONFIG `[queue]`). A reader stalls because it does not read its socket.

mod support;

use bytes::Bytes;
use serde_json::{Value, json};
use support::client::{ALL, Client, Got, Protocol, WITH_VERBS};
use support::mqtt::{self, Mqtt};
use support::raw::{Encoding, Envelope};
use support::socket::{Ask, End, Socket};
use support::stomp::Stomp;
use support::{Broker, http, within};
use tidegate_protocol::mqtt::packet::{Packet, ReasonCode, Version};
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
const STALLED: Ask<'static> = Ask { target: "/ws", protocols: &[], deflate: None, receive_buffer: Some(4096) };

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

/// Publishes [`COUNT`] numbers at QoS 0, and waits until all have been queued or dropped.
async fn publish_all(broker: &Broker) {
    let mut publisher = Client::publisher(broker, Protocol::Mqtt311, "").await;
    for number in 0..COUNT {
        publisher.publish(&topic_of(number), numbered(number)).await;
    }
    publisher.barrier().await;
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
            let oldest: Vec<usize> = (0..numbers.len()).collect();
            assert_eq!(numbers, oldest, "{what}");
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
            let left =
                numbers(&broker, reason, async || reader.delivery().await.payload.unwrap()).await;
            check_left(policy, &left, &format!("{encoding:?} {policy}"));
        }
    }
}

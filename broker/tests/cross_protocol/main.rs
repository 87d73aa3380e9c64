//! The nine pairs of publisher and subscriber, and the receivers that can say less: what one protocol says beside a
//! payload, said in the words of another (WIRE §7, §8).
//!
//! `table.rs` and `delivery.rs` are the claims, and what the README shows; here the broker is held to them over real
//! sockets. The README is written anew with `TIDEGATE_UPDATE_README=1`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

#[path = "../support/mod.rs"]
mod support;

mod delivery;
mod groups;
mod message;
mod publisher;
mod readme;
mod subscriber;
mod table;

use message::{Aspect, Got, Message};
use publisher::{MARKER, RESERVED, publish, publish_marker};
use subscriber::Subscriber;
use support::Broker;
use support::client::{ALL, Protocol};
use support::stomp::Stomp;
use table::{Outcome, Row};
use tidegate_protocol::stomp;

/// A broker, and a subscriber of each protocol that was there from the beginning.
struct World {
    broker: Broker,
    live: Vec<(Protocol, Subscriber)>,
    topics: u32,
}

#[tokio::test]
async fn what_is_said_beside_a_payload_arrives_in_every_pair() {
    let broker = Broker::start("").await;
    let mut live = Vec::new();
    for protocol in ALL {
        live.push((protocol, Subscriber::plain(&broker, protocol, "t/#").await));
    }
    let mut world = World { broker, live, topics: 0 };
    for row in &table::rows() {
        for from in row.from {
            check(&mut world, row, *from).await;
        }
    }
}

/// One row, from one publisher to all subscribers: to those that are there, and, retained, to those that come later.
async fn check(world: &mut World, row: &Row, from: Protocol) {
    let World { broker, live, topics } = world;
    *topics += 1;
    let topic = format!("t/{topics}");
    let retain = from != Protocol::Payload;
    if row.deletes {
        let old = Message { payload: "old".into(), retain: true, ..Message::default() };
        publish(broker, Protocol::Json, &topic, &old).await;
        for (_, subscriber) in &mut *live {
            assert_eq!(subscriber.next().await.message.payload, "old");
        }
    }
    publish(broker, from, &topic, &Message { retain, ..(row.says)() }).await;
    let is_withheld = ALL.into_iter().any(|to| row.to.of(to) == Outcome::Withheld);
    if is_withheld {
        publish_marker(broker, &topic).await;
    }
    for (to, subscriber) in live {
        let got = subscriber.next().await;
        let what = format!("{:?} {:?} from {from:?} to {to:?}: {got:?}", row.what, row.aspect);
        assert!(!got.message.retain, "live: {what}");
        if !matches!(row.aspect, Aspect::Retained | Aspect::Subscription) {
            check_outcome(row, *to, &got, &what);
        }
    }
    if !retain {
        return;
    }
    let is_kept = !is_withheld && !row.deletes && !(row.says)().payload.is_empty();
    for to in ALL {
        let mut subscriber = Subscriber::named(broker, to, &topic).await;
        if !is_kept {
            publish_marker(broker, &topic).await;
        }
        let got = subscriber.next().await;
        let what = format!("{:?} {:?} from {from:?} to a later {to:?}: {got:?}", row.what, row.aspect);
        if is_kept {
            check_outcome(row, to, &got, &what);
        } else {
            assert_eq!(got.message.payload, MARKER, "{what}");
            // The markers for those that are to come.
            drop(subscriber);
        }
    }
    if !is_kept {
        for (_, subscriber) in &mut world.live {
            for _ in ALL {
                assert_eq!(subscriber.next().await.message.payload, MARKER);
            }
        }
    }
}

fn check_outcome(row: &Row, to: Protocol, got: &Got, what: &str) {
    let said = Got { message: (row.says)(), ..Got::default() };
    let expected = match row.to.of(to) {
        Outcome::Kept => row.aspect.of(&said),
        Outcome::Becomes(other) => Some(other.into()),
        Outcome::Dropped => None,
        Outcome::Withheld => return assert_eq!(got.message.payload, MARKER, "{what}"),
    };
    assert_eq!(row.aspect.of(got), expected, "{what}");
    assert_eq!(got.message.payload, said.message.payload, "{what}");
}

/// SEC-13: nobody speaks in the broker's name.
#[tokio::test]
async fn a_user_property_with_a_name_of_stomp_gets_a_prefix() {
    let broker = Broker::start("").await;
    let mut reader = Stomp::connected(&broker, stomp::Version::V1_2).await;
    reader.subscribe("a", "auto").await;
    for from in [Protocol::Json, Protocol::MessagePack, Protocol::Mqtt5, Protocol::Stomp12] {
        for name in RESERVED {
            let user = vec![(name.to_owned(), "forged".to_owned())];
            publish(&broker, from, "a", &Message { user, ..Message::default() }).await;
            let frame = reader.delivery().await;
            assert_eq!(frame.header(&format!("x-user-{name}")), Some("forged"), "{from:?}: {frame:?}");
            assert!(frame.headers.iter().all(|header| header.name != name || header.value != "forged"));
        }
    }
}

/// U+0000 can end a frame of STOMP and is no character of MQTT.
#[tokio::test]
async fn no_protocol_lets_a_nul_into_a_property() {
    use serde_json::json;
    use support::mqtt::{self, Mqtt};
    use support::raw::{Encoding, Envelope};
    use tidegate_protocol::mqtt::packet::{Properties, Version};
    let broker = Broker::start("").await;
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let mut client = Envelope::connected(&broker, encoding).await;
        for fields in [json!({"props": {"k": "\0"}}), json!({"props": {"\0": "v"}}), json!({"ct": "\0"})] {
            let answer = client.publish_acked(fields, "a", b"x").await;
            assert!(answer.op == "err" && answer.reason.as_deref().unwrap().contains("U+0000"), "{answer:?}");
        }
    }
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    let mut packet = mqtt::publish("a", "x");
    packet.properties =
        Some(Box::new(Properties { user: vec![("k".into(), "\0".into())], ..Properties::default() }));
    client.publish(packet).await;
    assert_eq!(client.end().await.0.map(|reason| reason.0), Some(0x81), "[MQTT-1.5.4-2]");
    let mut client = Stomp::connected(&broker, stomp::Version::V1_2).await;
    client.socket.send_binary(&b"SEND\ndestination:a\nk:\0\n\nx\0"[..]).await;
    let error = client.end().await.0.unwrap();
    assert_eq!(error.header("message"), Some("frame ends within its headers"));
}

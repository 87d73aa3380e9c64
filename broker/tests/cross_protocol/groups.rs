//! One group of subscribers across protocols: `$share/G/F` of MQTT is `group` of the raw envelope and `share` of STOMP
//! (WIRE §6).

use std::collections::BTreeMap;

use serde_json::json;
use tidegate_protocol::mqtt::packet::Version;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp;
use tidegate_protocol::stomp::frame::{Command, Frame};

use crate::subscriber::mqtt_client;
use crate::support::Broker;
use crate::support::client::{Client, Protocol};
use crate::support::mqtt::Mqtt;
use crate::support::raw::{Encoding, Envelope};
use crate::support::socket::Ask;
use crate::support::stomp::Stomp;

enum Member {
    Mqtt(Mqtt),
    Envelope(Envelope),
    Stomp(Stomp),
}

impl Member {
    async fn joined(broker: &Broker, protocol: Protocol) -> Self {
        match protocol {
            Protocol::Json => Self::envelope(broker, Encoding::Json).await,
            Protocol::MessagePack => Self::envelope(broker, Encoding::MessagePack).await,
            Protocol::Mqtt31 => Self::mqtt(broker, Version::V3_1).await,
            Protocol::Mqtt311 => Self::mqtt(broker, Version::V3_1_1).await,
            Protocol::Mqtt5 => Self::mqtt(broker, Version::V5).await,
            Protocol::Stomp10 => Self::stomp(broker, stomp::Version::V1_0).await,
            Protocol::Stomp11 => Self::stomp(broker, stomp::Version::V1_1).await,
            Protocol::Stomp12 => Self::stomp(broker, stomp::Version::V1_2).await,
            Protocol::Payload => panic!("payload mode has no word for a group"),
        }
    }

    async fn envelope(broker: &Broker, encoding: Encoding) -> Self {
        let mut client = Envelope::connected(broker, encoding).await;
        client.subscribe_with("jobs/#", json!({"group": "g"})).await;
        Self::Envelope(client)
    }

    async fn mqtt(broker: &Broker, version: Version) -> Self {
        let mut client = mqtt_client(broker, version).await;
        client.subscribe("$share/g/jobs/#", QoS::AtMostOnce).await;
        Self::Mqtt(client)
    }

    async fn stomp(broker: &Broker, version: stomp::Version) -> Self {
        let mut client = Stomp::connected(broker, version).await;
        let frame = Frame::new(Command::Subscribe)
            .with_header("id", "g")
            .with_header("destination", "/topic/jobs/#")
            .with_header("share", "g");
        assert!(client.send_for_receipt(frame).await.is_empty());
        Self::Stomp(client)
    }

    /// What it got, up to the message that all get.
    async fn until_the_end(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let payload = match self {
                Self::Mqtt(client) => client.delivery().await.payload,
                Self::Envelope(client) => client.delivery().await.payload.unwrap(),
                Self::Stomp(client) => client.delivery().await.body,
            };
            if payload == "end" {
                return all;
            }
            all.push(String::from_utf8(payload.to_vec()).unwrap());
        }
    }

    async fn subscribe_to_the_end(&mut self) {
        match self {
            Self::Mqtt(client) => client.subscribe("end", QoS::AtMostOnce).await,
            Self::Envelope(client) => client.subscribe("end").await,
            Self::Stomp(client) => client.subscribe("end", "auto").await,
        }
    }

    async fn leave(&mut self) {
        match self {
            Self::Mqtt(client) => assert!(client.unsubscribe("$share/g/jobs/#").await.is_empty()),
            Self::Envelope(client) => {
                let asked = json!({"op": "unsub", "topic": "jobs/#", "group": "g"});
                let (answer, before) = client.ask(asked).await;
                assert_eq!((&*answer.op, before.len()), ("ok", 0), "{answer:?}");
            }
            Self::Stomp(client) => assert!(client.unsubscribe("g").await.is_empty()),
        }
    }
}

const MEMBERS: [Protocol; 8] = [
    Protocol::Stomp10,
    Protocol::Stomp11,
    Protocol::Stomp12,
    Protocol::Json,
    Protocol::MessagePack,
    Protocol::Mqtt31,
    Protocol::Mqtt311,
    Protocol::Mqtt5,
];

const PUBLISHERS: [Protocol; 4] = [Protocol::Json, Protocol::Mqtt5, Protocol::Stomp12, Protocol::MessagePack];

/// Publishes 10 messages in each protocol; gives who got which.
async fn share_out(broker: &Broker, members: &mut [Member]) -> BTreeMap<String, Vec<usize>> {
    let mut sent = Vec::new();
    for from in PUBLISHERS {
        let mut publisher = Client::publisher(broker, from, "jobs/1").await;
        for number in 0..10 {
            let payload = format!("{from:?} {number}");
            publisher.publish_acked("jobs/1", payload.clone()).await;
            sent.push(payload);
        }
    }
    Client::publisher(broker, Protocol::Json, "end").await.publish_acked("end", "end").await;
    let mut shares: BTreeMap<String, Vec<usize>> =
        sent.into_iter().map(|payload| (payload, Vec::new())).collect();
    for (index, member) in members.iter_mut().enumerate() {
        for payload in member.until_the_end().await {
            shares.get_mut(&payload).unwrap().push(index);
        }
    }
    shares
}

#[tokio::test]
async fn one_group_has_members_of_every_protocol() {
    let broker = Broker::start("").await;
    let mut members = Vec::new();
    for protocol in MEMBERS {
        let mut member = Member::joined(&broker, protocol).await;
        member.subscribe_to_the_end().await;
        members.push(member);
    }
    let shares = share_out(&broker, &mut members).await;
    assert!(shares.values().all(|receivers| receivers.len() == 1), "one receiver each: {shares:?}");
    for (index, member) in MEMBERS.iter().enumerate() {
        assert!(shares.values().any(|receivers| receivers[0] == index), "{member:?}: {shares:?}");
    }
    // All but the last two leave, and nothing is lost.
    let stay = members.len() - 2;
    for member in &mut members[..stay] {
        member.leave().await;
    }
    let shares = share_out(&broker, &mut members).await;
    let is_of_those = |receivers: &Vec<usize>| receivers.len() == 1 && receivers[0] >= stay;
    assert!(shares.values().all(is_of_those), "{shares:?}");
}

#[tokio::test]
async fn a_group_gets_nothing_retained_and_its_members_may_subscribe_alone_too() {
    let broker = Broker::start("").await;
    Client::connected(&broker, Protocol::Mqtt5, Ask::default()).await.retain("jobs/1", "old").await;
    let mut client = Envelope::connected(&broker, Encoding::Json).await;
    client.subscribe_with("jobs/#", json!({"group": "g"})).await;
    client.subscribe_with("jobs/#", json!({"last": 0})).await;
    let mut publisher = Client::connected(&broker, Protocol::Mqtt5, Ask::default()).await;
    publisher.publish_acked("jobs/1", "new").await;
    for _ in 0..2 {
        assert_eq!(client.delivery().await.payload.unwrap(), "new");
    }
    let (answer, _) = client.ask(json!({"op": "unsub", "topic": "jobs/#"})).await;
    assert_eq!(answer.op, "ok", "{answer:?}");
    for payload in ["one", "two"] {
        publisher.publish_acked("jobs/1", payload).await;
        assert_eq!(client.delivery().await.payload.unwrap(), payload);
    }
}

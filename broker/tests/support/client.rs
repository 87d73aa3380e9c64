//! One client for all protocols: the same verbs over each, so that a behaviour is written once.

use bytes::Bytes;
use serde_json::json;
use tidegate_protocol::mqtt::packet::Version as MqttVersion;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp::Version as StompVersion;
use tidegate_protocol::stomp::frame::Frame;

use super::Broker;
use super::mqtt::{self, Mqtt};
use super::raw::{Encoding, Envelope};
use super::socket::{Ask, Message, Socket};
use super::stomp::Stomp;

/// Every protocol and version that a client can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Payload,
    Json,
    MessagePack,
    Mqtt31,
    Mqtt311,
    Mqtt5,
    Stomp10,
    Stomp11,
    Stomp12,
}

pub const ALL: [Protocol; 9] = [
    Protocol::Payload,
    Protocol::Json,
    Protocol::MessagePack,
    Protocol::Mqtt31,
    Protocol::Mqtt311,
    Protocol::Mqtt5,
    Protocol::Stomp10,
    Protocol::Stomp11,
    Protocol::Stomp12,
];

/// Those that tell a subscriber the topic and subscribe after the handshake: all but payload mode.
pub const WITH_VERBS: [Protocol; 8] = [
    Protocol::Json,
    Protocol::MessagePack,
    Protocol::Mqtt31,
    Protocol::Mqtt311,
    Protocol::Mqtt5,
    Protocol::Stomp10,
    Protocol::Stomp11,
    Protocol::Stomp12,
];

/// Those with a RETAIN flag for publishers.
pub const WITH_RETAIN: [Protocol; 8] = WITH_VERBS;

/// What a subscriber got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub topic: String,
    pub payload: Bytes,
    /// The protocol says that it was kept for new subscribers; payload mode never does.
    pub retained: bool,
}

pub fn got(topic: &str, payload: impl Into<Bytes>) -> Got {
    Got { topic: topic.into(), payload: payload.into(), retained: false }
}

/// A connected client.
pub struct Client {
    pub protocol: Protocol,
    wire: Wire,
}

enum Wire {
    /// With the topic that it publishes to.
    Payload(Socket, Option<String>),
    Envelope(Envelope),
    Mqtt(Mqtt),
    Stomp(Stomp),
}

impl Client {
    /// Subscribed to these filters, each acknowledged.
    pub async fn subscriber(broker: &Broker, protocol: Protocol, filters: &[&str]) -> Self {
        Self::subscriber_with(broker, protocol, filters, Ask::default()).await
    }

    pub async fn subscriber_with(
        broker: &Broker,
        protocol: Protocol,
        filters: &[&str],
        ask: Ask<'_>,
    ) -> Self {
        if protocol == Protocol::Payload {
            let query: Vec<String> = filters.iter().map(|filter| format!("t={}", escaped(filter))).collect();
            let target = format!("/ws?{}&with=topic&as=binary", query.join("&"));
            let mut socket = Socket::open(broker.address, Ask { target: &target, ..ask }).await;
            // The URL subscribes, and nothing says when that is done; what follows is handled after it.
            socket.barrier().await;
            return Self { protocol, wire: Wire::Payload(socket, None) };
        }
        let mut client = Self::connected(broker, protocol, ask).await;
        for filter in filters {
            client.subscribe(filter).await;
        }
        client
    }

    /// Ready to publish to this topic.
    pub async fn publisher(broker: &Broker, protocol: Protocol, topic: &str) -> Self {
        Self::publisher_with(broker, protocol, topic, Ask::default()).await
    }

    pub async fn publisher_with(broker: &Broker, protocol: Protocol, topic: &str, ask: Ask<'_>) -> Self {
        if protocol == Protocol::Payload {
            let target = format!("/ws?pub={}", escaped(topic));
            let socket = Socket::open(broker.address, Ask { target: &target, ..ask }).await;
            return Self { protocol, wire: Wire::Payload(socket, Some(topic.into())) };
        }
        Self::connected(broker, protocol, ask).await
    }

    /// Connected, with no subscription. Payload mode has no such thing.
    pub async fn connected(broker: &Broker, protocol: Protocol, ask: Ask<'_>) -> Self {
        let mqtt = async |version| {
            let mut client = Mqtt::open(broker, version, ask).await;
            let id = if version == MqttVersion::V3_1 { format!("c{}", unique()) } else { String::new() };
            client.connect(mqtt::connect(version, &id)).await;
            Wire::Mqtt(client)
        };
        let stomp = async |version| {
            let mut client = Stomp::open(broker, version, ask).await;
            client.connect(&[]).await;
            Wire::Stomp(client)
        };
        let wire = match protocol {
            Protocol::Payload => panic!("payload mode subscribes and publishes by its URL"),
            Protocol::Json => Wire::Envelope(Envelope::open(broker, Encoding::Json, ask).await),
            Protocol::MessagePack => Wire::Envelope(Envelope::open(broker, Encoding::MessagePack, ask).await),
            Protocol::Mqtt31 => mqtt(MqttVersion::V3_1).await,
            Protocol::Mqtt311 => mqtt(MqttVersion::V3_1_1).await,
            Protocol::Mqtt5 => mqtt(MqttVersion::V5).await,
            Protocol::Stomp10 => stomp(StompVersion::V1_0).await,
            Protocol::Stomp11 => stomp(StompVersion::V1_1).await,
            Protocol::Stomp12 => stomp(StompVersion::V1_2).await,
        };
        Self { protocol, wire }
    }

    pub async fn subscribe(&mut self, filter: &str) {
        match &mut self.wire {
            Wire::Payload(..) => panic!("payload mode subscribes by its URL"),
            Wire::Envelope(client) => client.subscribe(filter).await,
            Wire::Mqtt(client) => client.subscribe(filter, QoS::AtMostOnce).await,
            Wire::Stomp(client) => client.subscribe(filter, "auto").await,
        }
    }

    /// Ends a subscription; gives what came before the reply.
    pub async fn unsubscribe(&mut self, filter: &str) -> Vec<Got> {
        match &mut self.wire {
            Wire::Payload(..) => panic!("payload mode does not unsubscribe"),
            Wire::Envelope(client) => {
                let (answer, before) = client.ask(json!({"op": "unsub", "topic": filter})).await;
                assert_eq!(answer.op, "ok", "{answer:?}");
                before.into_iter().map(from_said).collect()
            }
            Wire::Mqtt(client) => client.unsubscribe(filter).await.into_iter().map(from_packet).collect(),
            Wire::Stomp(client) => client.unsubscribe(filter).await.into_iter().map(from_frame).collect(),
        }
    }

    /// Publishes without an acknowledgement.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) {
        self.publish_as(topic, payload.into(), false).await;
    }

    /// The same, to be kept for later subscribers.
    pub async fn retain(&mut self, topic: &str, payload: impl Into<Bytes>) {
        self.publish_as(topic, payload.into(), true).await;
    }

    async fn publish_as(&mut self, topic: &str, payload: Bytes, retain: bool) {
        match &mut self.wire {
            Wire::Payload(socket, to) => {
                assert_eq!((to.as_deref(), retain), (Some(topic), false));
                match std::str::from_utf8(&payload) {
                    Ok(text) => socket.send_text(text).await,
                    Err(_) => socket.send_binary(payload).await,
                }
            }
            Wire::Envelope(client) => {
                let operation = json!({"op": "pub", "topic": topic, "retain": retain});
                client.send_with_payload(operation, &payload).await;
            }
            Wire::Mqtt(client) => {
                let mut packet = mqtt::publish(topic, payload);
                packet.retain = retain;
                client.publish(packet).await;
            }
            Wire::Stomp(client) => {
                let mut frame = Stomp::message(topic, payload);
                if retain {
                    frame = frame.with_header("retain", "true");
                }
                client.send(&frame).await;
            }
        }
    }

    /// Publishes and waits for PUBACK, `ok` or RECEIPT; payload mode, which has none, for a pong.
    pub async fn publish_acked(&mut self, topic: &str, payload: impl Into<Bytes>) {
        let payload = payload.into();
        match &mut self.wire {
            Wire::Payload(..) => {
                self.publish_as(topic, payload, false).await;
                self.barrier().await;
            }
            Wire::Envelope(client) => {
                let answer = client.publish_acked(json!({}), topic, &payload).await;
                assert_eq!(answer.op, "ok", "{answer:?}");
            }
            Wire::Mqtt(client) => assert!(!client.publish_acked(topic, payload).await.is_error()),
            Wire::Stomp(client) => {
                client.send_for_receipt(Stomp::message(topic, payload)).await;
            }
        }
    }

    /// Waits until all that was sent has been handled.
    pub async fn barrier(&mut self) {
        self.socket().barrier().await;
    }

    /// The next delivery.
    pub async fn next(&mut self) -> Got {
        match &mut self.wire {
            Wire::Payload(socket, _) => from_payload(socket.message().await),
            Wire::Envelope(client) => from_said(client.delivery().await),
            Wire::Mqtt(client) => from_packet(mqtt::Packet::Publish(client.delivery().await)),
            Wire::Stomp(client) => from_frame(client.delivery().await),
        }
    }

    /// All deliveries up to one on this topic, which is not among them.
    pub async fn until(&mut self, topic: &str) -> Vec<Got> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                last if last.topic == topic => return all,
                other => all.push(other),
            }
        }
    }

    pub fn into_socket(self) -> Socket {
        match self.wire {
            Wire::Payload(socket, _) => socket,
            Wire::Envelope(client) => client.socket,
            Wire::Mqtt(client) => client.socket,
            Wire::Stomp(client) => client.socket,
        }
    }

    pub fn socket(&mut self) -> &mut Socket {
        match &mut self.wire {
            Wire::Payload(socket, _) => socket,
            Wire::Envelope(client) => &mut client.socket,
            Wire::Mqtt(client) => &mut client.socket,
            Wire::Stomp(client) => &mut client.socket,
        }
    }
}

/// Percent-encoded as far as a topic needs it.
pub fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |out, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' => out + &char::from(byte).to_string(),
        other => out + &format!("%{other:02X}"),
    })
}

fn from_payload(message: Message) -> Got {
    let bytes = message.into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    Got {
        topic: String::from_utf8(bytes[..at].to_vec()).unwrap(),
        payload: bytes.slice(at + 1..),
        retained: false,
    }
}

fn from_said(said: super::raw::Said) -> Got {
    Got { topic: said.topic.unwrap(), payload: said.payload.unwrap(), retained: said.ret.unwrap_or(false) }
}

fn from_packet(packet: mqtt::Packet) -> Got {
    match packet {
        mqtt::Packet::Publish(publish) => Got {
            topic: publish.topic.unwrap().as_str().into(),
            payload: publish.payload,
            retained: publish.retain,
        },
        other => panic!("PUBLISH was expected: {other:?}"),
    }
}

fn from_frame(frame: Frame) -> Got {
    let destination = frame.header("destination").unwrap();
    Got {
        topic: destination.strip_prefix("/topic/").unwrap().into(),
        payload: frame.body.clone(),
        retained: frame.header("retained") == Some("true"),
    }
}

/// A number that no other call gets.
pub fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

//! An MQTT client: packets over a [`Socket`], one packet in each WebSocket message.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use tidegate_protocol::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Properties, ReasonCode, Subscribe, Subscription, Unsubscribe, Version,
};
pub use tidegate_protocol::mqtt::packet::{Packet, Publish};
use tidegate_protocol::mqtt::{Codec, Limits};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::RetainHandling;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

use super::Broker;
use super::socket::{Ask, End, Socket};

pub struct Mqtt {
    pub socket: Socket,
    codec: Codec,
    bytes: BytesMut,
    inbox: VecDeque<Packet>,
    next_id: u16,
}

const LIMITS: Limits = Limits {
    packet_bytes_max: 16 * 1024 * 1024,
    topic: TopicLimits::STANDARD,
    user_properties_max: 1000,
    filters_max: 1000,
};

/// CONNECT with nothing special.
pub fn connect(version: Version, client_id: &str) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 0,
        client_id: client_id.into(),
        will: None,
        user_name: None,
        password: None,
        properties: None,
    }
}

/// PUBLISH at QoS 0.
pub fn publish(topic: &str, payload: impl Into<Bytes>) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: Some(self::topic(topic)),
        packet_id: 0,
        properties: None,
        payload: payload.into(),
    }
}

/// PUBLISH at QoS 1.
pub fn publish_acked(topic: &str, payload: impl Into<Bytes>, packet_id: u16) -> Publish {
    Publish { qos: QoS::AtLeastOnce, packet_id, ..publish(topic, payload) }
}

pub fn topic(text: &str) -> Topic {
    Topic::parse(text, &TopicLimits::STANDARD).unwrap()
}

/// One filter of a SUBSCRIBE.
pub fn subscription(filter: &str, qos: QoS) -> Subscription {
    Subscription {
        filter: Ok(TopicFilter::parse(filter, &TopicLimits::STANDARD).unwrap()),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

impl Mqtt {
    /// A connection before its CONNECT.
    pub async fn open(broker: &Broker, version: Version, ask: Ask<'_>) -> Self {
        let socket = Socket::open(broker.address, Ask { protocols: &["mqtt"], ..ask }).await;
        let codec = Codec::client(version, LIMITS);
        Self { socket, codec, bytes: BytesMut::new(), inbox: VecDeque::new(), next_id: 0 }
    }

    /// A connected client with a client id of the broker's choice.
    pub async fn connected(broker: &Broker, version: Version) -> Self {
        let mut client = Self::open(broker, version, Ask::default()).await;
        client.connect(connect(version, "")).await;
        client
    }

    /// A connected client with this id.
    pub async fn named(broker: &Broker, version: Version, client_id: &str) -> Self {
        let mut client = Self::open(broker, version, Ask::default()).await;
        client.connect(connect(version, client_id)).await;
        client
    }

    /// Sends CONNECT and expects success.
    pub async fn connect(&mut self, connect: Connect) -> ConnAck {
        self.send(Packet::Connect(Box::new(connect))).await;
        match self.packet().await {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::SUCCESS => ack,
            other => panic!("CONNACK was expected: {other:?}"),
        }
    }

    pub async fn send(&mut self, packet: Packet) {
        let bytes = self.codec.to_bytes(&packet);
        self.socket.send_binary(bytes).await;
    }

    /// Sends several packets in one message.
    pub async fn send_together(&mut self, packets: &[Packet]) {
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| self.codec.to_bytes(packet)).collect();
        self.socket.send_binary(bytes).await;
    }

    /// Sends SUBSCRIBE and gives the codes of its SUBACK, before which nothing else may come.
    pub async fn subscribe_all(&mut self, filters: Vec<Subscription>) -> Vec<ReasonCode> {
        let packet_id = self.next_id();
        self.send(Packet::Subscribe(Subscribe { packet_id, properties: None, filters })).await;
        match self.packet().await {
            Packet::SubAck(ack) if ack.packet_id == packet_id => ack.reasons,
            other => panic!("SUBACK was expected: {other:?}"),
        }
    }

    pub async fn subscribe(&mut self, filter: &str, qos: QoS) {
        let reasons = self.subscribe_all(vec![subscription(filter, qos)]).await;
        assert_eq!(reasons, [ReasonCode(qos as u8)], "{filter}");
    }

    /// Sends UNSUBSCRIBE and gives what came before its UNSUBACK.
    pub async fn unsubscribe(&mut self, filter: &str) -> Vec<Packet> {
        let packet_id = self.next_id();
        let filters = vec![Ok(TopicFilter::parse(filter, &TopicLimits::STANDARD).unwrap())];
        self.send(Packet::Unsubscribe(Unsubscribe { packet_id, properties: None, filters })).await;
        let mut before = Vec::new();
        loop {
            match self.packet().await {
                Packet::UnsubAck(ack) if ack.packet_id == packet_id => return before,
                other => before.push(other),
            }
        }
    }

    pub async fn publish(&mut self, publish: Publish) {
        self.send(Packet::Publish(publish)).await;
    }

    /// Publishes at QoS 1 and waits for the PUBACK; deliveries that come before it stay to be read.
    pub async fn publish_acked(&mut self, topic: &str, payload: impl Into<Bytes>) -> ReasonCode {
        let packet_id = self.next_id();
        self.publish(publish_acked(topic, payload, packet_id)).await;
        let mut before = VecDeque::new();
        loop {
            match self.packet().await {
                Packet::PubAck(ack) if ack.packet_id == packet_id => {
                    self.inbox.extend(before);
                    return ack.reason;
                }
                other => before.push_back(other),
            }
        }
    }

    /// The next PUBLISH, acknowledged if it asks for it.
    pub async fn delivery(&mut self) -> Publish {
        match self.packet().await {
            Packet::Publish(publish) => {
                if publish.qos == QoS::AtLeastOnce {
                    self.send(Packet::PubAck(Ack::new(publish.packet_id, ReasonCode::SUCCESS))).await;
                }
                publish
            }
            other => panic!("PUBLISH was expected: {other:?}"),
        }
    }

    pub async fn packet(&mut self) -> Packet {
        match self.packet_or_end().await {
            Ok(packet) => packet,
            Err(end) => panic!("a packet was expected: {end:?}"),
        }
    }

    pub async fn packet_or_end(&mut self) -> Result<Packet, End> {
        if let Some(packet) = self.inbox.pop_front() {
            return Ok(packet);
        }
        loop {
            let mut bytes = self.bytes.split().freeze();
            let packet = self.codec.decode(&mut bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
            self.bytes = BytesMut::from(bytes);
            if let Some(packet) = packet {
                return Ok(packet);
            }
            let message = self.socket.message_or_end().await?;
            assert!(matches!(message, super::socket::Message::Binary(_)), "[MQTT-6.0.0-1]: {message:?}");
            self.bytes.extend_from_slice(&message.into_bytes());
        }
    }

    /// DISCONNECT with this code, if one comes, and how the connection ends; deliveries are skipped.
    pub async fn end(&mut self) -> (Option<ReasonCode>, End) {
        let mut reason = None;
        loop {
            match self.packet_or_end().await {
                Ok(Packet::Disconnect(disconnect)) => reason = Some(disconnect.reason),
                Ok(other) => assert_eq!(reason, None, "after DISCONNECT: {other:?}"),
                Err(end) => return (reason, end),
            }
        }
    }

    /// Says goodbye.
    pub async fn disconnect(&mut self, reason: ReasonCode) {
        self.send(Packet::Disconnect(Disconnect { reason, properties: None })).await;
    }

    pub fn next_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }
}

/// The values of a user property.
pub fn user_values<'a>(properties: Option<&'a Properties>, name: &str) -> Vec<&'a str> {
    let user = properties.map_or(&[][..], |properties| &properties.user);
    user.iter().filter(|(found, _)| &**found == name).map(|(_, value)| &**value).collect()
}

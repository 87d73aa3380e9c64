//! One connection of an MQTT 5 client that lives until the broker dies: then everything answers `None`.

use std::net::SocketAddr;

use bytes::BytesMut;
use tidegate_protocol::mqtt::packet::{ConnAck, Connect, Packet, Properties, ReasonCode, Version};
use tidegate_protocol::mqtt::{Codec, Limits};
use tidegate_protocol::topic::TopicLimits;
use tidegate_protocol::websocket::client::{ClientRequest, generate_key};
use tidegate_protocol::websocket::prepared::Outgoing;
use tidegate_protocol::websocket::{Event, MessageKind, Receiver, Role, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection whose CONNECT was accepted.
pub(crate) struct Link {
    stream: TcpStream,
    buffer: BytesMut,
    receiver: Receiver,
    codec: Codec,
    bytes: BytesMut,
}

const LIMITS: Limits = Limits {
    packet_bytes_max: 16 * 1024 * 1024,
    topic: TopicLimits::STANDARD,
    user_properties_max: 1000,
    filters_max: 1000,
};

const MASK: frame::Mask = [0x12, 0x34, 0x56, 0x78];

/// CONNECT of a session that is kept for so many seconds.
pub(crate) fn connect(client_id: &str, clean_start: bool, expiry_s: u32, receive_maximum: u16) -> Connect {
    let properties = Properties {
        session_expiry_interval_s: Some(expiry_s),
        receive_maximum: Some(receive_maximum),
        ..Properties::default()
    };
    Connect {
        version: Version::V5,
        clean_start,
        keep_alive_s: 0,
        client_id: client_id.into(),
        will: None,
        user_name: None,
        password: None,
        properties: Some(Box::new(properties)),
    }
}

impl Link {
    /// A connection that was accepted, and what was said.
    pub(crate) async fn open(address: SocketAddr, connect: Connect) -> Option<(Self, ConnAck)> {
        let request = ClientRequest::new(&address.to_string(), "/mqtt", generate_key()).unwrap();
        let request = request.with_protocols(&["mqtt"]).unwrap();
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        stream.write_all(&request.to_bytes().unwrap()).await.ok()?;
        let mut buffer = BytesMut::new();
        let len = loop {
            if let Some((len, _)) = request.read_response(&buffer).unwrap() {
                break len;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let _head = buffer.split_to(len);
        let receiver = Receiver::new(Role::Client, LIMITS.packet_bytes_max, None);
        let codec = Codec::client(Version::V5, LIMITS);
        let mut link = Self { stream, buffer, receiver, codec, bytes: BytesMut::new() };
        link.send(&[Packet::Connect(Box::new(connect))]).await?;
        match link.packet().await? {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::SUCCESS => Some((link, ack)),
            other => panic!("CONNACK was expected: {other:?}"),
        }
    }

    /// Sends these in one message.
    pub(crate) async fn send(&mut self, packets: &[Packet]) -> Option<()> {
        if packets.is_empty() {
            return Some(());
        }
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| self.codec.to_bytes(packet)).collect();
        let framed = Outgoing::new(MessageKind::Binary, bytes).into_masked_frame(None, MASK);
        self.stream.write_all(&framed).await.ok()
    }

    /// All packets that have come, at least one. Cancel safe.
    pub(crate) async fn packets(&mut self) -> Option<Vec<Packet>> {
        let mut packets = vec![self.packet().await?];
        while let Some(packet) = self.decode() {
            packets.push(packet);
        }
        Some(packets)
    }

    /// The next packet. Cancel safe.
    pub(crate) async fn packet(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decode() {
                return Some(packet);
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn decode(&mut self) -> Option<Packet> {
        loop {
            let mut bytes = self.bytes.split().freeze();
            let packet = self.codec.decode(&mut bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
            self.bytes = BytesMut::from(bytes);
            if packet.is_some() {
                return packet;
            }
            match self.receiver.poll(&mut self.buffer).unwrap() {
                Some(Event::Message(message)) => self.bytes.extend_from_slice(&message.into_bytes()),
                Some(Event::Ping(payload)) => {
                    // The broker reads all the time, so there is room; if there is not, it will ask again.
                    let _ = self.stream.try_write(&frame::pong(&payload, Some(MASK)));
                }
                Some(_) => {}
                None => return None,
            }
        }
    }
}

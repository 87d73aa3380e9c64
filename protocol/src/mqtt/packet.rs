//! MQTT's control packets as data. Knows no bytes and no session.
//!
//! One set of types for all versions: what a version lacks is empty, and reason codes are MQTT 5's.
//! Spec: OASIS MQTT 5.0 §3.

use bytes::Bytes;

pub use super::property::Properties;
pub use super::reason::ReasonCode;
use crate::publication::QoS;
use crate::session::RetainHandling;
use crate::topic::{Topic, TopicError, TopicFilter};

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1, the protocol that calls itself `MQIsdp`.
    V3_1,
    /// MQTT 3.1.1.
    V3_1_1,
    /// MQTT 5.0.
    V5,
}

impl Version {
    /// Protocol name and level as they stand in CONNECT.
    #[must_use]
    pub const fn name_and_level(self) -> (&'static str, u8) {
        match self {
            Self::V3_1 => ("MQIsdp", 3),
            Self::V3_1_1 => ("MQTT", 4),
            Self::V5 => ("MQTT", 5),
        }
    }
}

/// The upper four bits of a packet's first byte (§2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// Client to server.
    Connect = 1,
    /// Server to client.
    ConnAck = 2,
    /// Both ways.
    Publish = 3,
    /// Both ways.
    PubAck = 4,
    /// Both ways.
    PubRec = 5,
    /// Both ways.
    PubRel = 6,
    /// Both ways.
    PubComp = 7,
    /// Client to server.
    Subscribe = 8,
    /// Server to client.
    SubAck = 9,
    /// Client to server.
    Unsubscribe = 10,
    /// Server to client.
    UnsubAck = 11,
    /// Client to server.
    PingReq = 12,
    /// Server to client.
    PingResp = 13,
    /// Both ways; in 3.x client to server.
    Disconnect = 14,
    /// Both ways; MQTT 5.
    Auth = 15,
}

impl PacketType {
    /// From the four bits; 0 is reserved.
    #[must_use]
    pub const fn from_u8(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }
}

/// A control packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// §3.1
    Connect(Box<Connect>),
    /// §3.2
    ConnAck(ConnAck),
    /// §3.3
    Publish(Publish),
    /// §3.4
    PubAck(Ack),
    /// §3.5
    PubRec(Ack),
    /// §3.6
    PubRel(Ack),
    /// §3.7
    PubComp(Ack),
    /// §3.8
    Subscribe(Subscribe),
    /// §3.9
    SubAck(SubAck),
    /// §3.10
    Unsubscribe(Unsubscribe),
    /// §3.11; the codes are empty in 3.x.
    UnsubAck(SubAck),
    /// §3.12
    PingReq,
    /// §3.13
    PingResp,
    /// §3.14
    Disconnect(Disconnect),
    /// §3.15; reason code and properties, as in DISCONNECT.
    Auth(Disconnect),
}

impl Packet {
    /// Which one it is.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// The properties that it has or may be given; `None` where the packet has no place for them.
    pub fn properties_mut(&mut self) -> Option<&mut Option<Box<Properties>>> {
        match self {
            Self::Connect(packet) => Some(&mut packet.properties),
            Self::ConnAck(packet) => Some(&mut packet.properties),
            Self::Publish(packet) => Some(&mut packet.properties),
            Self::PubAck(packet) | Self::PubRec(packet) | Self::PubRel(packet) | Self::PubComp(packet) => {
                Some(&mut packet.properties)
            }
            Self::Subscribe(packet) => Some(&mut packet.properties),
            Self::SubAck(packet) | Self::UnsubAck(packet) => Some(&mut packet.properties),
            Self::Unsubscribe(packet) => Some(&mut packet.properties),
            Self::PingReq | Self::PingResp => None,
            Self::Disconnect(packet) | Self::Auth(packet) => Some(&mut packet.properties),
        }
    }
}

/// The first packet of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Named by protocol name and level.
    pub version: Version,
    /// Clean Start, in 3.x Clean Session.
    pub clean_start: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive_s: u16,
    /// Empty: the server gives one.
    pub client_id: Box<str>,
    /// What to publish when the client is gone.
    pub will: Option<Will>,
    /// Who.
    pub user_name: Option<Box<str>>,
    /// Proof; bytes.
    pub password: Option<Bytes>,
    /// MQTT 5.
    pub properties: Option<Box<Properties>>,
}

/// The will in CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub topic: Topic,
    /// What.
    pub payload: Bytes,
    /// How surely.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// MQTT 5.
    pub properties: Option<Box<Properties>>,
}

/// The answer to CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck {
    /// State of an earlier session was found.
    pub session_present: bool,
    /// Success or why not.
    pub reason: ReasonCode,
    /// MQTT 5.
    pub properties: Option<Box<Properties>>,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// How surely.
    pub qos: QoS,
    /// To be retained, or was.
    pub retain: bool,
    /// `None` when an alias stands for it.
    pub topic: Option<Topic>,
    /// 0 at QoS 0, never 0 above.
    pub packet_id: u16,
    /// MQTT 5.
    pub properties: Option<Box<Properties>>,
    /// A slice of the packet's bytes.
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Of the PUBLISH.
    pub packet_id: u16,
    /// Always success in 3.x.
    pub reason: ReasonCode,
    /// MQTT 5.
    pub properties: Option<Box<Properties>>,
}

impl Ack {
    /// Without properties.
    #[must_use]
    pub const fn new(packet_id: u16, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: None }
    }
}

/// Asks for subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Not 0.
    pub packet_id: u16,
    /// MQTT 5.
    pub properties: Option<Box<Properties>>,
    /// At least one.
    pub filters: Vec<Subscription>,
}

/// One topic filter and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The error is a limit of this server, refused alone and not with the whole packet.
    pub filter: Result<TopicFilter, TopicError>,
    /// The highest QoS wanted.
    pub qos: QoS,
    /// MQTT 5.
    pub no_local: bool,
    /// MQTT 5.
    pub retain_as_published: bool,
    /// MQTT 5.
    pub retain_handling: RetainHandling,
}

/// SUBACK and UNSUBACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// Of the request.
    pub packet_id: u16,
    /// MQTT 5.
    pub properties: Option<Box<Properties>>,
    /// One for each filter, in order.
    pub reasons: Vec<ReasonCode>,
}

/// Ends subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Not 0.
    pub packet_id: u16,
    /// MQTT 5.
    pub properties: Option<Box<Properties>>,
    /// At least one; the error as in [`Subscription::filter`].
    pub filters: Vec<Result<TopicFilter, TopicError>>,
}

/// The goodbye; AUTH has the same shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Always success in 3.x.
    pub reason: ReasonCode,
    /// MQTT 5.
    pub properties: Option<Box<Properties>>,
}

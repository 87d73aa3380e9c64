//! MQTT 5's properties to bytes and back: which there are, of which type, in which packet.
//!
//! Knows no packet beyond its name. Spec: OASIS MQTT 5.0 §2.2.2.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{DecodeError, Field, put_binary, put_var_int, var_int_len};

/// All properties of a packet. One struct for all packets: which of them stand where is checked at decoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// 0x01; `true`: the payload is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// 0x02
    pub message_expiry_interval_s: Option<u32>,
    /// 0x03
    pub content_type: Option<Box<str>>,
    /// 0x08
    pub response_topic: Option<Box<str>>,
    /// 0x09
    pub correlation_data: Option<Bytes>,
    /// 0x0B; several in a PUBLISH from the server.
    pub subscription_identifiers: Vec<u32>,
    /// 0x11
    pub session_expiry_interval_s: Option<u32>,
    /// 0x12
    pub assigned_client_identifier: Option<Box<str>>,
    /// 0x13
    pub server_keep_alive_s: Option<u16>,
    /// 0x15
    pub authentication_method: Option<Box<str>>,
    /// 0x16
    pub authentication_data: Option<Bytes>,
    /// 0x17
    pub request_problem_information: Option<bool>,
    /// 0x18
    pub will_delay_interval_s: Option<u32>,
    /// 0x19
    pub request_response_information: Option<bool>,
    /// 0x1A
    pub response_information: Option<Box<str>>,
    /// 0x1C
    pub server_reference: Option<Box<str>>,
    /// 0x1F
    pub reason_string: Option<Box<str>>,
    /// 0x21; not 0.
    pub receive_maximum: Option<u16>,
    /// 0x22
    pub topic_alias_maximum: Option<u16>,
    /// 0x23; 0 is left to the session to refuse.
    pub topic_alias: Option<u16>,
    /// 0x24; `true` is QoS 1.
    pub maximum_qos: Option<bool>,
    /// 0x25
    pub retain_available: Option<bool>,
    /// 0x26
    pub user: Vec<(Box<str>, Box<str>)>,
    /// 0x27; not 0.
    pub maximum_packet_size: Option<u32>,
    /// 0x28
    pub wildcard_subscription_available: Option<bool>,
    /// 0x29
    pub subscription_identifiers_available: Option<bool>,
    /// 0x2A
    pub shared_subscription_available: Option<bool>,
}

/// Where a property list stands; the names of table 2-4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Connect = 1,
    Will = 1 << 1,
    ConnAck = 1 << 2,
    Publish = 1 << 3,
    Ack = 1 << 4,
    Subscribe = 1 << 5,
    SubAck = 1 << 6,
    Unsubscribe = 1 << 7,
    Disconnect = 1 << 8,
    Auth = 1 << 9,
}

/// Who wrote the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
}

impl Properties {
    /// Reads a list with its length before it. `None` when it is empty, as most are.
    pub(super) fn decode(
        field: &mut Field<'_>,
        place: Place,
        sender: Sender,
        user_properties_max: usize,
    ) -> Result<Option<Box<Self>>, DecodeError> {
        let len = field.var_int()?;
        let mut list = field.sub(len)?;
        if list.is_empty() {
            return Ok(None);
        }
        let mut properties = Box::<Self>::default();
        let mut seen = 0u64;
        while !list.is_empty() {
            let id = list.var_int_u32()?;
            let places = places(id).ok_or(DecodeError::Malformed("unknown property identifier"))?;
            if places & place as u16 == 0 {
                // §2.2.2.2: an identifier that is not valid for its packet type.
                return Err(DecodeError::Malformed("a property that this packet does not have"));
            }
            let may_repeat =
                id == USER_PROPERTY || (id == SUBSCRIPTION_IDENTIFIER && place == Place::Publish);
            let bit = 1u64 << (id & 63);
            if seen & bit != 0 && !may_repeat {
                return Err(DecodeError::Protocol("a property stands twice"));
            }
            seen |= bit;
            properties.read(id, &mut list, user_properties_max)?;
        }
        properties.check(place, sender)?;
        Ok(Some(properties))
    }

    fn read(
        &mut self,
        id: u32,
        field: &mut Field<'_>,
        user_properties_max: usize,
    ) -> Result<(), DecodeError> {
        match id {
            0x01 => self.payload_format_indicator = Some(field.flag()?),
            0x02 => self.message_expiry_interval_s = Some(field.u32()?),
            // [MQTT-3.3.2-19]
            0x03 => self.content_type = Some(field.string()?.into()),
            // [MQTT-3.3.2-13]
            0x08 => self.response_topic = Some(field.string()?.into()),
            0x09 => self.correlation_data = Some(Bytes::copy_from_slice(field.binary()?)),
            SUBSCRIPTION_IDENTIFIER => {
                let identifier = field.var_int_u32()?;
                if identifier == 0 {
                    return Err(DecodeError::Protocol("subscription identifier 0")); // §3.8.2.1.2
                }
                self.subscription_identifiers.push(identifier);
            }
            0x11 => self.session_expiry_interval_s = Some(field.u32()?),
            0x12 => self.assigned_client_identifier = Some(field.string()?.into()),
            0x13 => self.server_keep_alive_s = Some(field.u16()?),
            0x15 => self.authentication_method = Some(field.string()?.into()),
            0x16 => self.authentication_data = Some(Bytes::copy_from_slice(field.binary()?)),
            0x17 => self.request_problem_information = Some(field.flag()?),
            0x18 => self.will_delay_interval_s = Some(field.u32()?),
            0x19 => self.request_response_information = Some(field.flag()?),
            0x1A => self.response_information = Some(field.string()?.into()),
            0x1C => self.server_reference = Some(field.string()?.into()),
            0x1F => self.reason_string = Some(field.string()?.into()),
            0x21 => match field.u16()? {
                0 => return Err(DecodeError::Protocol("receive maximum 0")), // §3.1.2.11.3
                maximum => self.receive_maximum = Some(maximum),
            },
            0x22 => self.topic_alias_maximum = Some(field.u16()?),
            0x23 => self.topic_alias = Some(field.u16()?),
            0x24 => self.maximum_qos = Some(field.flag()?),
            0x25 => self.retain_available = Some(field.flag()?),
            USER_PROPERTY => {
                if self.user.len() >= user_properties_max {
                    return Err(DecodeError::UserProperties { limit: user_properties_max }); // SEC-15
                }
                // [MQTT-1.5.7-1]
                let name = field.string()?.into();
                self.user.push((name, field.string()?.into()));
            }
            0x27 => match field.u32()? {
                0 => return Err(DecodeError::Protocol("maximum packet size 0")), // §3.1.2.11.4
                maximum => self.maximum_packet_size = Some(maximum),
            },
            0x28 => self.wildcard_subscription_available = Some(field.flag()?),
            0x29 => self.subscription_identifiers_available = Some(field.flag()?),
            0x2A => self.shared_subscription_available = Some(field.flag()?),
            _ => return Err(DecodeError::Malformed("unknown property identifier")),
        }
        Ok(())
    }

    /// The rules about more than one property, and about who may send what.
    fn check(&self, place: Place, sender: Sender) -> Result<(), DecodeError> {
        if self.authentication_data.is_some() && self.authentication_method.is_none() {
            return Err(DecodeError::Protocol("authentication data without a method")); // §3.1.2.11.10
        }
        match (place, sender) {
            // [MQTT-3.3.4-6]
            (Place::Publish, Sender::Client) if !self.subscription_identifiers.is_empty() => {
                Err(DecodeError::Protocol("a subscription identifier in a PUBLISH from a client"))
            }
            // [MQTT-3.14.2-2]
            (Place::Disconnect, Sender::Server) if self.session_expiry_interval_s.is_some() => {
                Err(DecodeError::Protocol("a session expiry interval in a DISCONNECT from a server"))
            }
            (Place::Disconnect, Sender::Client) if self.server_reference.is_some() => {
                Err(DecodeError::Protocol("a server reference in a DISCONNECT from a client"))
            }
            _ => Ok(()),
        }
    }

    /// Writes the list with its length before it.
    pub(super) fn encode(properties: Option<&Self>, out: &mut BytesMut) {
        let Some(properties) = properties else {
            // [MQTT-2.2.2-1]
            out.put_u8(0);
            return;
        };
        let mut list = BytesMut::with_capacity(64);
        properties.put(&mut list);
        put_var_int(out, list.len());
        out.put_slice(&list);
    }

    /// In the order of the identifiers.
    fn put(&self, out: &mut BytesMut) {
        put_flag(out, 0x01, self.payload_format_indicator);
        put_u32(out, 0x02, self.message_expiry_interval_s);
        put_string(out, 0x03, self.content_type.as_deref());
        put_string(out, 0x08, self.response_topic.as_deref());
        put_bytes(out, 0x09, self.correlation_data.as_ref());
        for identifier in &self.subscription_identifiers {
            out.put_u8(0x0B);
            put_var_int(out, usize::try_from(*identifier).unwrap_or(0));
        }
        put_u32(out, 0x11, self.session_expiry_interval_s);
        put_string(out, 0x12, self.assigned_client_identifier.as_deref());
        put_u16(out, 0x13, self.server_keep_alive_s);
        put_string(out, 0x15, self.authentication_method.as_deref());
        put_bytes(out, 0x16, self.authentication_data.as_ref());
        put_flag(out, 0x17, self.request_problem_information);
        put_u32(out, 0x18, self.will_delay_interval_s);
        put_flag(out, 0x19, self.request_response_information);
        put_string(out, 0x1A, self.response_information.as_deref());
        put_string(out, 0x1C, self.server_reference.as_deref());
        put_string(out, 0x1F, self.reason_string.as_deref());
        put_u16(out, 0x21, self.receive_maximum);
        put_u16(out, 0x22, self.topic_alias_maximum);
        put_u16(out, 0x23, self.topic_alias);
        put_flag(out, 0x24, self.maximum_qos);
        put_flag(out, 0x25, self.retain_available);
        for (name, value) in &self.user {
            out.put_u8(0x26);
            put_binary(out, name.as_bytes());
            put_binary(out, value.as_bytes());
        }
        put_u32(out, 0x27, self.maximum_packet_size);
        put_flag(out, 0x28, self.wildcard_subscription_available);
        put_flag(out, 0x29, self.subscription_identifiers_available);
        put_flag(out, 0x2A, self.shared_subscription_available);
    }
}

const SUBSCRIPTION_IDENTIFIER: u32 = 0x0B;
const USER_PROPERTY: u32 = 0x26;

/// Table 2-4: the packets that have the property; `None` for an unknown identifier.
const fn places(id: u32) -> Option<u16> {
    const CONNECT: u16 = Place::Connect as u16;
    const WILL: u16 = Place::Will as u16;
    const CONNACK: u16 = Place::ConnAck as u16;
    const PUBLISH: u16 = Place::Publish as u16;
    const ACK: u16 = Place::Ack as u16;
    const SUBSCRIBE: u16 = Place::Subscribe as u16;
    const SUBACK: u16 = Place::SubAck as u16;
    const DISCONNECT: u16 = Place::Disconnect as u16;
    const AUTH: u16 = Place::Auth as u16;
    Some(match id {
        0x01 | 0x02 | 0x03 | 0x08 | 0x09 => PUBLISH | WILL,
        0x0B => PUBLISH | SUBSCRIBE,
        0x11 => CONNECT | CONNACK | DISCONNECT,
        0x12 | 0x13 | 0x1A | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => CONNACK,
        0x15 | 0x16 => CONNECT | CONNACK | AUTH,
        0x17 | 0x19 => CONNECT,
        0x18 => WILL,
        0x1C => CONNACK | DISCONNECT,
        0x1F => CONNACK | ACK | SUBACK | DISCONNECT | AUTH,
        0x21 | 0x22 | 0x27 => CONNECT | CONNACK,
        0x23 => PUBLISH,
        0x26 => u16::MAX,
        _ => return None,
    })
}

/// Bytes that a list of `len` bytes takes with its length before it.
pub(super) fn list_len(len: usize) -> usize {
    var_int_len(len) + len
}

fn put_flag(out: &mut BytesMut, id: u8, value: Option<bool>) {
    if let Some(value) = value {
        out.put_slice(&[id, u8::from(value)]);
    }
}

fn put_u16(out: &mut BytesMut, id: u8, value: Option<u16>) {
    if let Some(value) = value {
        out.put_u8(id);
        out.put_u16(value);
    }
}

fn put_u32(out: &mut BytesMut, id: u8, value: Option<u32>) {
    if let Some(value) = value {
        out.put_u8(id);
        out.put_u32(value);
    }
}

fn put_string(out: &mut BytesMut, id: u8, value: Option<&str>) {
    put_slice(out, id, value.map(str::as_bytes));
}

fn put_bytes(out: &mut BytesMut, id: u8, value: Option<&Bytes>) {
    put_slice(out, id, value.map(Bytes::as_ref));
}

fn put_slice(out: &mut BytesMut, id: u8, value: Option<&[u8]>) {
    if let Some(value) = value {
        out.put_u8(id);
        put_binary(out, value);
    }
}

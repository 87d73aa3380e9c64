//! MQTT packets to bytes. Writes what it is given; whether it makes sense is the sender's business.
//!
//! Spec: OASIS MQTT 5.0 §3, 3.1.1 §3.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{Codec, put_binary, put_var_int, var_int_len};
use super::packet::{
    Ack, Connect, Disconnect, Packet, PacketType, Properties, Publish, ReasonCode, SubAck, Subscribe,
    Unsubscribe, Version,
};
use super::property::list_len;
use crate::publication::QoS;
use crate::session::RetainHandling;
use crate::topic::{TopicError, TopicFilter};

/// What stands in a PUBLISH before its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublishHead<'a> {
    pub(super) dup: bool,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) topic: &'a str,
    pub(super) packet_id: u16,
    /// A list in MQTT 5, without its length; nothing in 3.x.
    pub(super) properties: Option<&'a [u8]>,
    pub(super) payload_len: usize,
}

impl PublishHead<'_> {
    /// One allocation; the payload goes behind it.
    pub(super) fn encode(&self) -> BytesMut {
        let packet_id_len = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties_len = self.properties.map_or(0, |list| list_len(list.len()));
        let head_len = 2 + self.topic.len() + packet_id_len + properties_len;
        // To the byte: what is left over would cost a second allocation when it is shared.
        let mut out = BytesMut::with_capacity(1 + var_int_len(head_len + self.payload_len) + head_len);
        out.put_u8(publish_first_byte(self.dup, self.qos, self.retain));
        put_var_int(&mut out, head_len + self.payload_len);
        put_binary(&mut out, self.topic.as_bytes());
        if self.qos != QoS::AtMostOnce {
            out.put_u16(self.packet_id);
        }
        if let Some(list) = self.properties {
            put_var_int(&mut out, list.len());
            out.put_slice(list);
        }
        out
    }
}

pub(super) const fn publish_first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    first_byte(PacketType::Publish, (dup as u8) << 3 | (qos as u8) << 1 | retain as u8)
}

/// Where the packet identifier stands in a PUBLISH above QoS 0: behind the fixed header and the topic.
pub(super) fn publish_packet_id_at(packet: &[u8], topic: &str) -> usize {
    let remaining_length_len = packet.iter().skip(1).take_while(|byte| **byte >= 0x80).count() + 1;
    1 + remaining_length_len + 2 + topic.len()
}

impl Codec {
    /// Appends a packet.
    pub fn encode(&self, packet: &Packet, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        let flags = match packet {
            Packet::Publish(publish) => {
                self.put_publish(publish, &mut body);
                publish_first_byte(publish.dup, publish.qos, publish.retain) & 0x0F
            }
            Packet::PubRel(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) => 0x02,
            _ => 0,
        };
        match packet {
            Packet::Connect(connect) => put_connect(connect, &mut body),
            Packet::ConnAck(connack) => {
                // [MQTT-3.2.2-1]
                body.put_u8(u8::from(connack.session_present));
                let code =
                    if self.is_v5() { connack.reason.0 } else { connack.reason.to_connect_return_code() };
                body.put_u8(code);
                self.put_properties(connack.properties.as_deref(), &mut body);
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                self.put_ack(ack, &mut body);
            }
            Packet::Subscribe(subscribe) => self.put_subscribe(subscribe, &mut body),
            Packet::SubAck(suback) => self.put_suback(suback, &mut body),
            Packet::Unsubscribe(unsubscribe) => self.put_unsubscribe(unsubscribe, &mut body),
            Packet::UnsubAck(unsuback) => self.put_unsuback(unsuback, &mut body),
            Packet::Disconnect(disconnect) | Packet::Auth(disconnect) => {
                self.put_disconnect(disconnect, &mut body);
            }
            Packet::Publish(_) | Packet::PingReq | Packet::PingResp => {}
        }
        out.reserve(1 + var_int_len(body.len()) + body.len());
        out.put_u8(first_byte(packet.packet_type(), flags));
        put_var_int(out, body.len());
        out.put_slice(&body);
    }

    /// A packet in bytes of its own.
    #[must_use]
    pub fn to_bytes(&self, packet: &Packet) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(packet, &mut out);
        out.freeze()
    }

    fn put_properties(&self, properties: Option<&Properties>, out: &mut BytesMut) {
        if self.is_v5() {
            Properties::encode(properties, out);
        }
    }

    fn put_publish(&self, publish: &Publish, out: &mut BytesMut) {
        put_binary(out, publish.topic.as_ref().map_or(&[][..], |topic| topic.as_str().as_bytes()));
        if publish.qos != QoS::AtMostOnce {
            out.put_u16(publish.packet_id);
        }
        self.put_properties(publish.properties.as_deref(), out);
        out.put_slice(&publish.payload);
    }

    /// Success without properties is said by silence (§3.4.2.1).
    fn put_ack(&self, ack: &Ack, out: &mut BytesMut) {
        out.put_u16(ack.packet_id);
        let properties = ack.properties.as_deref();
        if self.is_v5() && !is_plain_success(ack.reason, properties) {
            out.put_u8(ack.reason.0);
            if properties.is_some() {
                Properties::encode(properties, out);
            }
        }
    }

    fn put_disconnect(&self, disconnect: &Disconnect, out: &mut BytesMut) {
        let properties = disconnect.properties.as_deref();
        if self.is_v5() && !is_plain_success(disconnect.reason, properties) {
            out.put_u8(disconnect.reason.0);
            // An empty list too: it may be left out (§3.14.2.2.1), which not every client reads.
            Properties::encode(properties, out);
        }
    }

    fn put_subscribe(&self, subscribe: &Subscribe, out: &mut BytesMut) {
        out.put_u16(subscribe.packet_id);
        self.put_properties(subscribe.properties.as_deref(), out);
        for subscription in &subscribe.filters {
            put_filter(&subscription.filter, out);
            let retain_handling = match subscription.retain_handling {
                RetainHandling::Send => 0,
                RetainHandling::SendIfNew => 1,
                RetainHandling::Skip => 2,
            };
            let options = retain_handling << 4
                | u8::from(subscription.retain_as_published) << 3
                | u8::from(subscription.no_local) << 2;
            out.put_u8(subscription.qos as u8 | if self.is_v5() { options } else { 0 });
        }
    }

    fn put_suback(&self, suback: &SubAck, out: &mut BytesMut) {
        out.put_u16(suback.packet_id);
        self.put_properties(suback.properties.as_deref(), out);
        for reason in &suback.reasons {
            // One word for every failure, 3.1.1 [MQTT-3.9.3-2].
            out.put_u8(if reason.is_error() && !self.is_v5() { 0x80 } else { reason.0 });
        }
    }

    fn put_unsubscribe(&self, unsubscribe: &Unsubscribe, out: &mut BytesMut) {
        out.put_u16(unsubscribe.packet_id);
        self.put_properties(unsubscribe.properties.as_deref(), out);
        for filter in &unsubscribe.filters {
            put_filter(filter, out);
        }
    }

    fn put_unsuback(&self, unsuback: &SubAck, out: &mut BytesMut) {
        out.put_u16(unsuback.packet_id);
        if self.is_v5() {
            Properties::encode(unsuback.properties.as_deref(), out);
            out.extend(unsuback.reasons.iter().map(|reason| reason.0));
        }
    }
}

fn is_plain_success(reason: ReasonCode, properties: Option<&Properties>) -> bool {
    reason == ReasonCode::SUCCESS && properties.is_none()
}

fn put_connect(connect: &Connect, out: &mut BytesMut) {
    let (name, level) = connect.version.name_and_level();
    let is_v5 = connect.version == Version::V5;
    put_binary(out, name.as_bytes());
    out.put_u8(level);
    let will_flags =
        connect.will.as_ref().map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    let flags = u8::from(connect.clean_start) << 1
        | will_flags
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.user_name.is_some()) << 7;
    out.put_u8(flags);
    out.put_u16(connect.keep_alive_s);
    if is_v5 {
        Properties::encode(connect.properties.as_deref(), out);
    }
    put_binary(out, connect.client_id.as_bytes());
    if let Some(will) = &connect.will {
        if is_v5 {
            Properties::encode(will.properties.as_deref(), out);
        }
        put_binary(out, will.topic.as_str().as_bytes());
        put_binary(out, &will.payload);
    }
    if let Some(user_name) = &connect.user_name {
        put_binary(out, user_name.as_bytes());
    }
    if let Some(password) = &connect.password {
        put_binary(out, password);
    }
}

fn put_filter(filter: &Result<TopicFilter, TopicError>, out: &mut BytesMut) {
    put_binary(out, filter.as_ref().map_or(&[][..], |filter| filter.as_str().as_bytes()));
}

const fn first_byte(packet_type: PacketType, flags: u8) -> u8 {
    (packet_type as u8) << 4 | flags
}

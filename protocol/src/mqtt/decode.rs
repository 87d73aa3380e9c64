//! MQTT packets from bytes, each with the rules that its bytes alone can break.
//!
//! What depends on the state of a connection is the session's. Spec: OASIS MQTT 5.0 §3, 3.1.1 §3.

use bytes::Bytes;

use super::codec::{Codec, DecodeError, Field, RESERVED_FLAGS, is_name};
use super::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, PacketType, Properties, Publish, ReasonCode, SubAck,
    Subscribe, Subscription, Unsubscribe, Version, Will,
};
use super::property::{Place, Sender};
use crate::publication::QoS;
use crate::session::RetainHandling;
use crate::topic::{Topic, TopicError, TopicFilter};

type Decoded<T> = Result<T, DecodeError>;
type MaybeProperties = Option<Box<Properties>>;

impl Codec {
    pub(super) fn decode_body(
        &mut self,
        packet_type: PacketType,
        flags: u8,
        field: &mut Field<'_>,
    ) -> Decoded<Packet> {
        Ok(match packet_type {
            PacketType::Connect => Packet::Connect(Box::new(self.decode_connect(flags, field)?)),
            PacketType::ConnAck => Packet::ConnAck(self.decode_connack(field)?),
            PacketType::Publish => Packet::Publish(self.decode_publish(flags, field)?),
            PacketType::PubAck => Packet::PubAck(self.decode_ack(packet_type, field)?),
            PacketType::PubRec => Packet::PubRec(self.decode_ack(packet_type, field)?),
            PacketType::PubRel => Packet::PubRel(self.decode_ack(packet_type, field)?),
            PacketType::PubComp => Packet::PubComp(self.decode_ack(packet_type, field)?),
            PacketType::Subscribe => Packet::Subscribe(self.decode_subscribe(field)?),
            PacketType::SubAck => Packet::SubAck(self.decode_suback(field)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(self.decode_unsubscribe(field)?),
            PacketType::UnsubAck => Packet::UnsubAck(self.decode_unsuback(field)?),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => Packet::Disconnect(self.decode_disconnect(packet_type, field)?),
            PacketType::Auth => Packet::Auth(self.decode_auth(field)?),
        })
    }

    fn properties(&self, field: &mut Field<'_>, place: Place) -> Decoded<MaybeProperties> {
        if !self.is_v5() {
            return Ok(None);
        }
        Properties::decode(field, place, self.sender(), self.limits.user_properties_max)
    }

    fn decode_connect(&mut self, header_flags: u8, field: &mut Field<'_>) -> Decoded<Connect> {
        let name = field.string()?;
        let level = field.u8()?;
        let version = match (name, level) {
            ("MQIsdp", 3) => Version::V3_1,
            ("MQTT", 4) => Version::V3_1_1,
            ("MQTT", 5) => Version::V5,
            ("MQTT" | "MQIsdp", level) => return Err(DecodeError::UnsupportedVersion { level }), // [MQTT-3.1.2-2]
            _ => return Err(DecodeError::Malformed("the protocol name is not MQTT [MQTT-3.1.2-1]")),
        };
        // Before all else, so that any further error is answered in this version.
        self.version = Some(version);
        if header_flags != 0 && version != Version::V3_1 {
            return Err(RESERVED_FLAGS);
        }
        let flags = field.u8()?;
        check_connect_flags(version, flags)?;
        let keep_alive_s = field.u16()?;
        let properties = self.properties(field, Place::Connect)?;
        // [MQTT-3.1.3-1], [MQTT-3.1.3-3], [MQTT-3.1.3-4]
        let client_id = match field.string()? {
            id if is_name(id) => id.into(),
            _ => return Err(DecodeError::ClientIdentifier),
        };
        let will = if flags & 0x04 == 0 { None } else { Some(self.decode_will(flags, field)?) };
        // MQTT 3.1 §3.1: where the flags promise a name or password that is missing, the length counts.
        let is_there = |field: &Field<'_>| version != Version::V3_1 || !field.is_empty();
        // [MQTT-3.1.2-16], [MQTT-3.1.2-17], [MQTT-3.1.3-12]; what no flag announces is left over, which is malformed.
        let user_name = if flags & 0x80 != 0 && is_there(field) { Some(field.name()?.into()) } else { None };
        // [MQTT-3.1.2-18], [MQTT-3.1.2-19]
        let password = if flags & 0x40 != 0 && is_there(field) {
            Some(Bytes::copy_from_slice(field.binary()?))
        } else {
            None
        };
        let clean_start = flags & 0x02 != 0;
        Ok(Connect { version, clean_start, keep_alive_s, client_id, will, user_name, password, properties })
    }

    fn decode_will(&self, flags: u8, field: &mut Field<'_>) -> Decoded<Will> {
        let qos = Field::qos(flags >> 3, DecodeError::Malformed("will QoS 3 [MQTT-3.1.2-12]"))?;
        // [MQTT-3.1.2-9]
        let properties = self.properties(field, Place::Will)?;
        // [MQTT-3.1.3-11]
        let topic = Topic::parse(field.name()?, &self.limits.topic)?;
        let payload = Bytes::copy_from_slice(field.binary()?);
        Ok(Will { topic, payload, qos, retain: flags & 0x20 != 0, properties })
    }

    fn decode_connack(&self, field: &mut Field<'_>) -> Decoded<ConnAck> {
        let flags = field.u8()?;
        if flags & 0xFE != 0 {
            return Err(DecodeError::Malformed("reserved bits in the flags of CONNACK [MQTT-3.2.2-1]"));
        }
        let code = field.u8()?;
        let reason = if self.is_v5() {
            known(ReasonCode(code), PacketType::ConnAck)?
        } else {
            ReasonCode::from_connect_return_code(code)
                .ok_or(DecodeError::Protocol("a reserved return code in CONNACK"))?
        };
        let session_present = flags & 0x01 != 0;
        if session_present && reason.is_error() {
            return Err(DecodeError::Protocol("session present in a refusal [MQTT-3.2.2-6]"));
        }
        Ok(ConnAck { session_present, reason, properties: self.properties(field, Place::ConnAck)? })
    }

    fn decode_publish(&self, flags: u8, field: &mut Field<'_>) -> Decoded<Publish> {
        let dup = flags & 0x08 != 0;
        let qos = Field::qos(flags >> 1, DecodeError::Malformed("QoS 3 [MQTT-3.3.1-4]"))?;
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::Malformed("DUP at QoS 0 [MQTT-3.3.1-2]"));
        }
        // [MQTT-3.3.2-1]
        let name = field.name()?;
        // [MQTT-2.2.1-2]
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { field.packet_id()? };
        let properties = self.properties(field, Place::Publish)?;
        let topic = if name.is_empty() && self.is_v5() {
            if properties.as_ref().is_none_or(|properties| properties.topic_alias.is_none()) {
                return Err(DecodeError::Protocol("neither topic name nor topic alias"));
            }
            None
        } else {
            Some(Topic::parse(name, &self.limits.topic)?) // [MQTT-3.3.2-2], [MQTT-4.7.0-1]
        };
        let payload = field.rest();
        Ok(Publish { dup, qos, retain: flags & 0x01 != 0, topic, packet_id, properties, payload })
    }

    fn decode_ack(&self, packet_type: PacketType, field: &mut Field<'_>) -> Decoded<Ack> {
        let packet_id = field.packet_id()?;
        // §3.4.2.1: with a remaining length of 2 the code is success; below 4 there are no properties.
        if !self.is_v5() || field.is_empty() {
            return Ok(Ack::new(packet_id, ReasonCode::SUCCESS));
        }
        let reason = known(ReasonCode(field.u8()?), packet_type)?;
        let properties = if field.is_empty() { None } else { self.properties(field, Place::Ack)? };
        Ok(Ack { packet_id, reason, properties })
    }

    fn decode_subscribe(&self, field: &mut Field<'_>) -> Decoded<Subscribe> {
        let packet_id = field.packet_id()?;
        let properties = self.properties(field, Place::Subscribe)?;
        let mut filters = Vec::new();
        while !field.is_empty() {
            self.check_filter_count(filters.len())?;
            let filter = self.filter(field)?;
            filters.push(self.subscription(filter, field.u8()?)?);
        }
        if filters.is_empty() {
            return Err(DecodeError::Protocol("SUBSCRIBE without a topic filter [MQTT-3.8.3-2]"));
        }
        Ok(Subscribe { packet_id, properties, filters })
    }

    fn subscription(&self, filter: Result<TopicFilter, TopicError>, options: u8) -> Decoded<Subscription> {
        let reserved = if self.is_v5() { 0xC0 } else { 0xFC };
        if options & reserved != 0 {
            return Err(DecodeError::Malformed("reserved bits in the subscription options [MQTT-3.8.3-5]"));
        }
        let qos_3 = if self.is_v5() {
            DecodeError::Protocol("maximum QoS 3 in the subscription options")
        } else {
            DecodeError::Malformed("QoS 3 in a subscription, 3.1.1 [MQTT-3.8.3-4]")
        };
        let retain_handling = match (options >> 4) & 0x03 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::Skip,
            _ => return Err(DecodeError::Protocol("retain handling 3")),
        };
        let no_local = options & 0x04 != 0;
        let is_shared = filter.as_ref().is_ok_and(|filter| filter.as_str().starts_with("$share/"));
        if no_local && is_shared && self.is_v5() {
            return Err(DecodeError::Protocol("No Local on a shared subscription [MQTT-3.8.3-4]"));
        }
        let retain_as_published = options & 0x08 != 0;
        Ok(Subscription {
            filter,
            qos: Field::qos(options, qos_3)?,
            no_local,
            retain_as_published,
            retain_handling,
        })
    }

    /// A filter that is one by the standard, and perhaps above our own limits.
    fn filter(&self, field: &mut Field<'_>) -> Decoded<Result<TopicFilter, TopicError>> {
        // [MQTT-3.8.3-1], [MQTT-3.10.3-1]
        match TopicFilter::parse(field.name()?, &self.limits.topic) {
            Err(error @ (TopicError::TooLong { .. } | TopicError::TooManyLevels { .. })) => Ok(Err(error)),
            Err(error) => Err(error.into()),
            Ok(filter) => Ok(Ok(filter)),
        }
    }

    /// Asked before each filter is decoded (SEC-15).
    const fn check_filter_count(&self, count: usize) -> Decoded<()> {
        let limit = self.limits.filters_max;
        if count >= limit { Err(DecodeError::Filters { limit }) } else { Ok(()) }
    }

    fn decode_suback(&self, field: &mut Field<'_>) -> Decoded<SubAck> {
        let packet_id = field.packet_id()?;
        let properties = self.properties(field, Place::SubAck)?;
        let mut reasons = Vec::with_capacity(field.len());
        while !field.is_empty() {
            let reason = ReasonCode(field.u8()?);
            if !self.is_v5() && !matches!(reason.0, 0..=2 | 0x80) {
                return Err(DecodeError::Malformed("a reserved code in SUBACK [MQTT-3.9.3-2]"));
            }
            reasons.push(known(reason, PacketType::SubAck)?);
        }
        if reasons.is_empty() {
            return Err(DecodeError::Protocol("SUBACK without a reason code"));
        }
        Ok(SubAck { packet_id, properties, reasons })
    }

    fn decode_unsubscribe(&self, field: &mut Field<'_>) -> Decoded<Unsubscribe> {
        let packet_id = field.packet_id()?;
        let properties = self.properties(field, Place::Unsubscribe)?;
        let mut filters = Vec::new();
        while !field.is_empty() {
            self.check_filter_count(filters.len())?;
            filters.push(self.filter(field)?);
        }
        if filters.is_empty() {
            return Err(DecodeError::Protocol("UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]"));
        }
        Ok(Unsubscribe { packet_id, properties, filters })
    }

    fn decode_unsuback(&self, field: &mut Field<'_>) -> Decoded<SubAck> {
        let packet_id = field.packet_id()?;
        let properties = self.properties(field, Place::SubAck)?;
        let mut reasons = Vec::new();
        while self.is_v5() && !field.is_empty() {
            reasons.push(known(ReasonCode(field.u8()?), PacketType::UnsubAck)?);
        }
        if self.is_v5() && reasons.is_empty() {
            return Err(DecodeError::Protocol("UNSUBACK without a reason code"));
        }
        Ok(SubAck { packet_id, properties, reasons })
    }

    fn decode_disconnect(&self, packet_type: PacketType, field: &mut Field<'_>) -> Decoded<Disconnect> {
        if !self.is_v5() || field.is_empty() {
            return Ok(Disconnect { reason: ReasonCode::SUCCESS, properties: None });
        }
        let reason = known(ReasonCode(field.u8()?), packet_type)?;
        if !is_sent_by(self.sender(), reason, packet_type) {
            return Err(DecodeError::Protocol("a reason code that only the other end may send"));
        }
        let place = if packet_type == PacketType::Auth { Place::Auth } else { Place::Disconnect };
        // §3.14.2.2.1: a remaining length below 2 stands for no properties.
        let properties = if field.is_empty() { None } else { self.properties(field, place)? };
        Ok(Disconnect { reason, properties })
    }

    /// Without a body it says success, which only a server does (§3.15.2.1).
    fn decode_auth(&self, field: &mut Field<'_>) -> Decoded<Disconnect> {
        let auth = self.decode_disconnect(PacketType::Auth, field)?;
        let has_method = auth.properties.as_ref().is_some_and(|list| list.authentication_method.is_some());
        let is_success = auth.reason == ReasonCode::SUCCESS;
        if is_success && self.sender() == Sender::Client {
            return Err(DecodeError::Protocol("a reason code that only the other end may send"));
        }
        if !is_success && !has_method {
            return Err(DecodeError::Protocol("AUTH without an authentication method")); // §3.15.2.2.2
        }
        Ok(auth)
    }
}

/// The column "Sent by" of §3.14.2.1 and §3.15.2.1, for a code of the table.
const fn is_sent_by(sender: Sender, reason: ReasonCode, packet_type: PacketType) -> bool {
    match (packet_type, sender) {
        (PacketType::Disconnect, Sender::Client) => {
            matches!(reason.0, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
        }
        (PacketType::Disconnect, Sender::Server) => reason.0 != ReasonCode::DISCONNECT_WITH_WILL.0,
        (PacketType::Auth, Sender::Client) => reason.0 != ReasonCode::SUCCESS.0,
        (PacketType::Auth, Sender::Server) => reason.0 != ReasonCode::REAUTHENTICATE.0,
        _ => true,
    }
}

fn check_connect_flags(version: Version, flags: u8) -> Decoded<()> {
    if flags & 0x01 != 0 && version != Version::V3_1 {
        return Err(DecodeError::Malformed("the reserved flag of CONNECT is set [MQTT-3.1.2-3]"));
    }
    // MQTT 3.1 §3.1: without a will the two are disregarded.
    if flags & 0x04 == 0 && flags & 0x38 != 0 && version != Version::V3_1 {
        return Err(DecodeError::Malformed(
            "will QoS or will retain without a will [MQTT-3.1.2-11], [MQTT-3.1.2-13]",
        ));
    }
    if version != Version::V5 && flags & 0xC0 == 0x40 {
        return Err(DecodeError::Malformed("a password without a user name, 3.1.1 [MQTT-3.1.2-22]"));
    }
    Ok(())
}

fn known(reason: ReasonCode, packet_type: PacketType) -> Decoded<ReasonCode> {
    if reason.is_allowed_in(packet_type) {
        Ok(reason)
    } else {
        Err(DecodeError::Protocol("a reason code that this packet does not have"))
    }
}

//! Packets to the client, within the limits that it set: its Maximum Packet Size, and Request Problem Information.
//!
//! Spec: OASIS MQTT 5.0 §3.1.2.11.4, §3.1.2.11.7.

use super::{End, MqttSession, Phase};
use crate::mqtt::packet::{Packet, PacketType, Properties, ReasonCode};
use crate::session::{CloseKind, CloseReason, Outgoing, Output};
use crate::websocket::MessageKind;

impl MqttSession {
    /// Sends within the client's Maximum Packet Size: what explains is left out first, and a packet that is still too
    /// large is not sent [MQTT-3.1.2-24], which ends the session.
    ///
    /// A Reason String is left out of CONNACK [MQTT-3.2.2-19], PUBACK [MQTT-3.4.2-2], PUBREC [MQTT-3.5.2-2], PUBREL
    /// [MQTT-3.6.2-2], PUBCOMP [MQTT-3.7.2-2], SUBACK [MQTT-3.9.2-1], UNSUBACK [MQTT-3.11.2-1], DISCONNECT
    /// [MQTT-3.14.2-3] and AUTH [MQTT-3.15.2-2]. User properties are in none of them: CONNACK [MQTT-3.2.2-20], PUBACK
    /// [MQTT-3.4.2-3], PUBREC [MQTT-3.5.2-3], PUBREL [MQTT-3.6.2-3], PUBCOMP [MQTT-3.7.2-3], SUBACK [MQTT-3.9.2-2],
    /// UNSUBACK [MQTT-3.11.2-2], DISCONNECT [MQTT-3.14.2-4], AUTH [MQTT-3.15.2-3].
    pub(super) fn send(&mut self, mut packet: Packet) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        let may_explain = self.client.wants_problems
            || matches!(packet.packet_type(), PacketType::ConnAck | PacketType::Disconnect); // [MQTT-3.1.2-29]
        if !may_explain {
            strip_reason_string(&mut packet);
        }
        let mut bytes = self.codec.to_bytes(&packet);
        if bytes.len() > self.client.packet_bytes_max {
            strip_reason_string(&mut packet);
            bytes = self.codec.to_bytes(&packet);
        }
        if bytes.len() <= self.client.packet_bytes_max {
            self.outputs.push_back(Output::Send(Outgoing::new(MessageKind::Binary, bytes))); // [MQTT-6.0.0-1]
            return;
        }
        let detail = "an answer is above the client's maximum packet size";
        match packet.packet_type() {
            PacketType::Disconnect => {}
            // [MQTT-3.14.0-1]: no DISCONNECT without a CONNACK before it.
            PacketType::ConnAck => self.close(CloseReason::new(CloseKind::TooBig, detail)),
            _ => self.end(End::new(ReasonCode::PACKET_TOO_LARGE, detail)),
        }
    }
}

/// Properties that hold nothing but an explanation; none when there is nothing to say.
pub(super) fn reason_string(detail: &str) -> Option<Box<Properties>> {
    (!detail.is_empty())
        .then(|| Box::new(Properties { reason_string: Some(detail.into()), ..Properties::default() }))
}

fn strip_reason_string(packet: &mut Packet) {
    if let Some(slot) = packet.properties_mut()
        && let Some(properties) = slot
    {
        properties.reason_string = None;
        if **properties == Properties::default() {
            *slot = None;
        }
    }
}

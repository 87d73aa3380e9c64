//! The client's acknowledgements of deliveries: PUBACK, PUBREC and PUBCOMP.
//!
//! Spec: OASIS MQTT 5.0 §3.4, §3.5, §3.7, §4.3.2, §4.3.3; 3.1.1 §4.3.

use super::{End, Handled, IGNORED, MqttSession, RECEIVED};
use crate::mqtt::in_flight::Awaits;
use crate::mqtt::packet::{Ack, Packet, PacketType, ReasonCode};
use crate::session::{DropReason, Refusal, Reply, Request, Settlement, Tag, Token};

impl MqttSession {
    pub(super) fn handle_puback(&mut self, ack: &Ack) -> Handled {
        match self.in_flight.find(ack.packet_id) {
            Some((Awaits::PubAck, tag)) => {
                self.finish(ack.packet_id, tag, outcome(ack.reason)); // [MQTT-4.3.2-3]
                Ok(())
            }
            Some(_) => Err(protocol_error("PUBACK for a delivery at QoS 2", ack.packet_id)),
            None if self.in_flight.was_assigned(ack.packet_id) => Ok(()),
            None => Err(protocol_error("PUBACK for what was never sent", ack.packet_id)),
        }
    }

    pub(super) fn handle_pubrec(&mut self, ack: &Ack) -> Handled {
        let packet_id = ack.packet_id;
        match self.in_flight.find(packet_id) {
            Some((Awaits::PubAck, _)) => {
                return Err(protocol_error("PUBREC for a delivery at QoS 1", packet_id));
            }
            // [MQTT-4.4.0-2]: a refusal ends the exchange, and the identifier is free.
            Some((_, tag)) if ack.reason.is_error() => self.finish(packet_id, tag, outcome(ack.reason)),
            Some((Awaits::PubRec, tag)) => {
                // [MQTT-4.3.3-3]
                self.in_flight.advance(packet_id, Awaits::Record);
                self.ask(RECEIVED, packet_id, Request::Received { tag });
                self.go_on_resending(packet_id);
            }
            // PUBREL is about to leave.
            Some((Awaits::Record, _)) => {}
            Some((Awaits::PubComp, _)) => {
                self.send(Packet::PubRel(Ack::new(packet_id, ReasonCode::SUCCESS))); // [MQTT-4.3.3-4]
                self.go_on_resending(packet_id);
            }
            None if ack.reason.is_error() => {}
            // The client keeps the identifier until it hears of it; 3.x has no word for "not found".
            None => {
                self.send(Packet::PubRel(Ack::new(packet_id, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND)));
            }
        }
        Ok(())
    }

    /// The broker keeps in mind that PUBREC came: from here on the message is never sent again [MQTT-4.3.3-6].
    pub(super) fn handle_received_reply(&mut self, packet_id: u16, reply: Reply) {
        self.note_answer();
        let Some((Awaits::Record, tag)) = self.in_flight.find(packet_id) else { return };
        match reply {
            Reply::Received { tag: recorded } if recorded == tag => {
                self.in_flight.advance(packet_id, Awaits::PubComp);
                // [MQTT-4.3.3-4]; in the order of the PUBRECs [MQTT-4.6.0-4], as the replies come.
                self.send(Packet::PubRel(Ack::new(packet_id, ReasonCode::SUCCESS)));
            }
            // A late answer about a delivery that had the identifier before.
            Reply::Received { .. } => {}
            Reply::Refused(refusal) => self.end_by(&refusal),
            _ => self.end_by(&Refusal::Internal),
        }
    }

    /// Where no exchange is under way, this may be the end of one in which PUBREL said that it knows nothing.
    pub(super) fn handle_pubcomp(&mut self, ack: &Ack) -> Handled {
        match self.in_flight.find(ack.packet_id) {
            // "Not found" is no failure of the delivery: the client has completed it before.
            // [MQTT-4.3.3-5]
            Some((Awaits::PubComp, tag)) => self.finish(ack.packet_id, tag, Settlement::Accepted),
            Some((Awaits::PubAck, _)) => {
                return Err(protocol_error("PUBCOMP for a delivery at QoS 1", ack.packet_id));
            }
            Some(_) => return Err(protocol_error("PUBCOMP before PUBREL", ack.packet_id)),
            None => {}
        }
        Ok(())
    }

    fn finish(&mut self, packet_id: u16, tag: Tag, settlement: Settlement) {
        self.in_flight.remove(packet_id);
        self.settle(tag, settlement);
        self.go_on_resending(packet_id);
    }

    pub(super) fn settle(&mut self, tag: Tag, settlement: Settlement) {
        self.request(IGNORED, Request::Settle { tag, settlement });
    }

    /// A request within an exchange of packets; its answer is counted by [`Self::note_answer`].
    pub(super) fn ask(&mut self, kind: u32, packet_id: u16, request: Request) {
        self.received.asked = self.received.asked.saturating_add(1);
        self.request(Token(kind | u32::from(packet_id)), request);
    }

    pub(super) fn note_answer(&mut self) {
        self.received.asked = self.received.asked.saturating_sub(1);
    }

    /// The broker could not go on with an exchange, and the client cannot be told of that alone.
    pub(super) fn end_by(&mut self, refusal: &Refusal) {
        let reason = ReasonCode::of_refusal(refusal, PacketType::Disconnect);
        self.end(End::new(reason, refusal.to_string()));
    }
}

/// What an acknowledgement says about the delivery. A refusal is final, for a shared subscription too
/// [MQTT-4.8.2-6].
const fn outcome(reason: ReasonCode) -> Settlement {
    if reason.is_error() { Settlement::Dropped(DropReason::Refused) } else { Settlement::Accepted }
}

fn protocol_error(what: &str, packet_id: u16) -> End {
    End::new(ReasonCode::PROTOCOL_ERROR, format!("{what}: packet identifier {packet_id}"))
}

//! What an earlier connection of the session left unfinished: it is sent again, in order and within the client's
//! window, before anything that was not sent yet.
//!
//! Spec: OASIS MQTT 5.0 §4.4, §4.6, §4.9; 3.1.1 §4.4.

use std::collections::VecDeque;

use super::{MqttSession, Phase};
use crate::mqtt::in_flight::Awaits;
use crate::mqtt::packet::{Ack, Packet, ReasonCode};
use crate::publication::QoS;
use crate::session::{Delivery, DropReason, InFlight, InFlightState, Output, Settlement};

/// What is still to be sent again, oldest first; never empty.
pub(super) struct Resends(VecDeque<InFlight>);

impl MqttSession {
    /// After CONNACK. The identifiers of what the client published are the broker's alone to know: a PUBREL counts
    /// nothing towards the Receive Maximum of a new connection (§4.9).
    pub(super) fn resume(&mut self, in_flight: Vec<InFlight>) {
        self.in_flight.forget_what_was_assigned();
        for exchange in &in_flight {
            let (tag, awaits) = match &exchange.state {
                InFlightState::Sent(delivery) if self.delivery_qos(delivery) == QoS::ExactlyOnce => {
                    (delivery.tag, Awaits::PubRec)
                }
                InFlightState::Sent(delivery) => (delivery.tag, Awaits::PubAck),
                InFlightState::Received(tag) => (*tag, Awaits::PubComp),
            };
            self.in_flight.restore(exchange.packet_id, tag, awaits);
        }
        self.resends = Some(Box::new(Resends(in_flight.into())));
        self.resend();
    }

    /// The client has said something about this delivery. Perhaps it heard of it on the earlier connection and was
    /// faster than we were; then it is not sent again.
    pub(super) fn go_on_resending(&mut self, packet_id: u16) {
        if let Some(resends) = &mut self.resends {
            resends.0.retain(|exchange| exchange.packet_id != packet_id);
            self.resend();
        }
    }

    fn resend(&mut self) {
        while !matches!(self.phase, Phase::Closed) {
            let window = self.window();
            let Some(resends) = &mut self.resends else { return };
            if resends.0.is_empty() {
                self.resends = None;
                return;
            }
            let sent = self.in_flight.len().saturating_sub(resends.0.len());
            if sent >= window {
                return; // [MQTT-4.9.0-2]
            }
            if let Some(InFlight { packet_id, state }) = resends.0.pop_front() {
                match state {
                    InFlightState::Sent(delivery) => self.resend_publish(&delivery, packet_id),
                    InFlightState::Received(_) => {
                        self.send(Packet::PubRel(Ack::new(packet_id, ReasonCode::SUCCESS)));
                    }
                }
            }
        }
    }

    /// [MQTT-4.4.0-1]: with the original identifier, and with DUP [MQTT-3.3.1-1]. One that has expired goes all the
    /// same, since the exchange has begun.
    fn resend_publish(&mut self, delivery: &Delivery, packet_id: u16) {
        match self.resent_publish(delivery, packet_id) {
            Some(publish) => self.outputs.push_back(Output::Send(publish)),
            // [MQTT-3.1.2-25]: this connection may take less than the one before.
            None => {
                self.in_flight.remove(packet_id);
                self.settle(delivery.tag, Settlement::Dropped(DropReason::TooLarge));
            }
        }
    }
}

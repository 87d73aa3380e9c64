//! What an earlier connection of the session left unfinished: each PUBREL at once, since no window holds it back,
//! then each PUBLISH in order and within the client's window, before anything that was not sent yet.
//!
//! Spec: OASIS MQTT 5.0 §4.4, §4.6, §4.9; 3.1.1 §4.4.

use std::collections::VecDeque;

use super::{MqttSession, Phase};
use crate::mqtt::in_flight::Awaits;
use crate::mqtt::packet::{Ack, Packet, ReasonCode};
use crate::session::{Delivery, DropReason, InFlight, InFlightState, Output, Settlement};

/// What is still to be sent again, oldest first.
pub(super) struct Resends(VecDeque<(u16, Delivery)>);

impl MqttSession {
    /// After CONNACK. The identifiers of what the client published are the broker's alone to know: a PUBREL counts
    /// nothing towards the Receive Maximum of a new connection [MQTT-4.9.0-1].
    pub(super) fn resume(&mut self, in_flight: Vec<InFlight>) {
        self.in_flight.forget_what_was_assigned();
        let mut deliveries = VecDeque::new();
        for InFlight { packet_id, state } in in_flight {
            match state {
                InFlightState::Sent(delivery) => {
                    let awaits = Awaits::answer_to_publish(self.delivery_qos(&delivery));
                    self.in_flight.restore(packet_id, delivery.tag, awaits);
                    deliveries.push_back((packet_id, delivery));
                }
                // [MQTT-4.4.0-1]; not held back [MQTT-3.3.4-10].
                InFlightState::Received(tag) => {
                    self.in_flight.restore(packet_id, tag, Awaits::PubComp);
                    self.send(Packet::PubRel(Ack::new(packet_id, ReasonCode::SUCCESS)));
                }
            }
        }
        self.resends = Some(Box::new(Resends(deliveries)));
        self.resend();
    }

    /// The client has said something about this delivery. Perhaps it heard of it on the earlier connection and was
    /// faster than we were; then it is not sent again.
    pub(super) fn go_on_resending(&mut self, packet_id: u16) {
        if let Some(resends) = &mut self.resends {
            resends.0.retain(|(id, _)| *id != packet_id);
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
            if let Some((packet_id, delivery)) = resends.0.pop_front() {
                self.resend_publish(&delivery, packet_id);
            }
        }
    }

    /// [MQTT-4.4.0-1]: with the original identifier, and with DUP [MQTT-3.3.1-1]. One that has expired goes all the
    /// same, since the exchange has begun [MQTT-4.3.3-7].
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

//! Deliveries to the client that no shared form fits, and its acknowledgements.
//!
//! Spec: OASIS MQTT 5.0 §3.3, §3.4, §4.3.2, §4.9.

use std::time::Instant;

use bytes::{BufMut, BytesMut};

use super::{End, Handled, IGNORED, MqttSession};
use crate::mqtt::codec::put_var_int;
use crate::mqtt::encode::PublishHead;
use crate::mqtt::forms::{put_publisher_properties, put_user_property};
use crate::mqtt::in_flight::Acknowledged;
use crate::mqtt::packet::{Ack, Packet, ReasonCode};
use crate::publication::{BodyForm, QoS};
use crate::session::{Delivery, DropReason, Outgoing, Output, Request, Settlement, Tag};
use crate::websocket::MessageKind;

impl MqttSession {
    pub(super) fn deliver(&mut self, delivery: &Delivery, now: Instant) {
        let publication = &*delivery.publication;
        if publication.is_expired(now) {
            self.settle(delivery.tag, Settlement::Dropped(DropReason::Expired)); // [MQTT-3.3.2-5]
            return;
        }
        let qos = delivery.qos.min(self.settings.max_qos);
        let packet_id = match qos {
            QoS::AtMostOnce => 0,
            // `wants` has asked for no more than there are identifiers.
            _ => match self.in_flight.next_id() {
                Some(packet_id) => packet_id,
                None => return self.settle(delivery.tag, Settlement::Requeue),
            },
        };
        let properties = self.is_v5().then(|| self.delivery_properties(delivery, now));
        let head = PublishHead {
            dup: false, // [MQTT-3.3.1-3]
            qos,
            retain: delivery.retain,
            topic: publication.topic.as_str(),
            packet_id,
            properties: properties.as_deref(),
            payload_len: publication.payload.len(),
        };
        let head = head.encode().freeze();
        if head.len() + publication.payload.len() > self.client.packet_bytes_max {
            // [MQTT-3.1.2-25]: as if it had been sent.
            self.settle(delivery.tag, Settlement::Dropped(DropReason::TooLarge));
            return;
        }
        self.lag = None;
        if qos > QoS::AtMostOnce {
            self.in_flight.insert(packet_id, delivery.tag);
            self.request(IGNORED, Request::Assign { tag: delivery.tag, packet_id });
        }
        let body = (!publication.payload.is_empty()).then(|| publication.body(&BodyForm::PAYLOAD).clone());
        self.outputs.push_back(Output::Send(Outgoing { kind: MessageKind::Binary, head, body }));
    }

    fn delivery_properties(&self, delivery: &Delivery, now: Instant) -> BytesMut {
        let mut list = BytesMut::new();
        if let Some(expires_at) = delivery.publication.expires_at {
            // [MQTT-3.3.2-6]: what remains; a part of a second counts as one, or it would look expired.
            let remaining = expires_at.saturating_duration_since(now);
            let seconds = remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0);
            list.put_u8(0x02);
            list.put_u32(u32::try_from(seconds).unwrap_or(u32::MAX));
        }
        put_publisher_properties(&delivery.publication, &mut list);
        // [MQTT-3.3.4-3], [MQTT-3.3.4-4]: of every subscription of this client that matches.
        let also = delivery.also.iter().flat_map(|others| others.iter().copied());
        for identifier in delivery.identifier.into_iter().chain(also) {
            list.put_u8(0x0B);
            put_var_int(&mut list, usize::try_from(identifier.get()).unwrap_or(0));
        }
        if let Some(lag) = &self.lag {
            let value = format!("dropped={};conflated={}", lag.dropped, lag.conflated); // WIRE §8
            put_user_property(&mut list, "tidegate-lag", &value);
        }
        list
    }

    pub(super) fn handle_puback(&mut self, ack: &Ack) -> Handled {
        match self.in_flight.acknowledge(ack.packet_id) {
            Acknowledged::Delivery(tag) => {
                let refused = Settlement::Dropped(DropReason::Refused);
                self.settle(tag, if ack.reason.is_error() { refused } else { Settlement::Accepted });
                Ok(())
            }
            Acknowledged::Late => Ok(()),
            Acknowledged::NeverAssigned => {
                let detail = format!("PUBACK for packet identifier {}, which was never sent", ack.packet_id);
                Err(End::new(ReasonCode::PROTOCOL_ERROR, detail))
            }
        }
    }

    /// No delivery at QoS 2 is in flight, so it refers to none.
    pub(super) fn handle_pubrec(&mut self, ack: &Ack) -> Handled {
        self.refuse_qos2_ack_of_qos1(ack.packet_id)?;
        // §3.5.2.1: after a refusal the exchange is over.
        if !ack.reason.is_error() {
            let reason = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND; // §4.3.3
            self.send(Packet::PubRel(Ack::new(ack.packet_id, reason)));
        }
        Ok(())
    }

    /// The end of an exchange in which [`Self::handle_pubrec`] said that it knows nothing.
    pub(super) fn handle_pubcomp(&mut self, ack: &Ack) -> Handled {
        self.refuse_qos2_ack_of_qos1(ack.packet_id)
    }

    fn refuse_qos2_ack_of_qos1(&self, packet_id: u16) -> Handled {
        if self.in_flight.contains(packet_id) {
            let detail = "a QoS 1 delivery is acknowledged by PUBACK alone [MQTT-4.3.2-3]";
            return Err(End::new(ReasonCode::PROTOCOL_ERROR, detail));
        }
        Ok(())
    }

    fn settle(&mut self, tag: Tag, settlement: Settlement) {
        self.request(IGNORED, Request::Settle { tag, settlement });
    }
}

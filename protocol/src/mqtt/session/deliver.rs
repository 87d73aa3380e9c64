//! Deliveries to the client that no shared form fits.
//!
//! Spec: OASIS MQTT 5.0 §3.3, §4.3, §4.9.

use std::time::Instant;

use bytes::{BufMut, BytesMut};

use super::{IGNORED, MqttSession};
use crate::mqtt::aliases::Alias;
use crate::mqtt::codec::put_var_int;
use crate::mqtt::encode::PublishHead;
use crate::mqtt::forms::{put_publisher_properties, put_user_property, stamped};
use crate::mqtt::in_flight::Awaits;
use crate::publication::QoS;
use crate::session::{Delivery, DropReason, Lag, Outgoing, Output, Request, Settlement, Stamped};
use crate::websocket::MessageKind;

/// What a PUBLISH says that is not in the delivery.
struct Sending<'a> {
    dup: bool,
    /// 0 at QoS 0.
    packet_id: u16,
    alias: Option<Alias>,
    lag: Option<&'a Lag>,
    now: Instant,
}

impl MqttSession {
    pub(super) fn deliver(&mut self, delivery: &Delivery) {
        let publication = &*delivery.publication;
        if publication.is_expired(self.now) {
            self.settle(delivery.tag, Settlement::Dropped(DropReason::Expired)); // [MQTT-3.3.2-5]
            return;
        }
        let qos = self.delivery_qos(delivery);
        let packet_id = match qos {
            QoS::AtMostOnce => 0, // [MQTT-2.2.1-2]
            // `wants` has asked for no more than there are identifiers.
            // [MQTT-4.3.2-1], [MQTT-4.3.3-1]
            _ => match self.in_flight.id_for(delivery.packet_id) {
                Some(packet_id) => packet_id,
                None => return self.settle(delivery.tag, Settlement::Returned),
            },
        };
        let stamped = if qos > QoS::AtMostOnce { self.stamped(delivery, qos, packet_id) } else { None };
        let publish = match stamped {
            Some(stamped) => Output::SendStamped(stamped),
            None => match self.first_publish(delivery, packet_id) {
                Some(publish) => Output::Send(publish),
                // [MQTT-3.1.2-25]: as if it had been sent.
                None => return self.settle(delivery.tag, Settlement::Dropped(DropReason::TooLarge)),
            },
        };
        self.lag = None;
        if qos > QoS::AtMostOnce {
            self.in_flight.insert(packet_id, delivery.tag, Awaits::answer_to_publish(qos));
            if matches!(publish, Output::Send(_)) {
                self.request(IGNORED, Request::Assign { tag: delivery.tag, packet_id });
            }
        }
        self.outputs.push_back(publish);
    }

    /// The shared bytes, if this client has no alias, lag or smaller limit of its own.
    fn stamped(&self, delivery: &Delivery, qos: QoS, packet_id: u16) -> Option<Stamped> {
        if self.aliases.is_some() || self.lag.is_some() {
            return None;
        }
        let stamped = stamped(delivery, self.codec.version()?, qos, packet_id)?;
        (stamped.len() <= self.client.packet_bytes_max).then_some(stamped) // [MQTT-3.1.2-24]
    }

    pub(super) fn delivery_qos(&self, delivery: &Delivery) -> QoS {
        delivery.qos.min(self.settings.max_qos)
    }

    /// `None` when it is larger than the client takes. What is returned is neither dropped nor overtaken by another
    /// delivery, so that an alias in it is known to the client from here on.
    fn first_publish(&mut self, delivery: &Delivery, packet_id: u16) -> Option<Outgoing> {
        let topic = &delivery.publication.topic;
        let alias = self.aliases.as_ref().and_then(|aliases| aliases.alias(topic));
        let lag = self.lag.as_deref();
        // DUP is this link's own [MQTT-3.3.1-3], [MQTT-4.3.2-2], [MQTT-4.3.3-2].
        let dup = is_dup(delivery, packet_id);
        let sending = Sending { dup, packet_id, alias, lag, now: self.now };
        if let Some(publish) = self.publish(delivery, &sending) {
            if let (Some(Alias::First(number)), Some(aliases)) = (alias, &mut self.aliases) {
                aliases.enter(topic, number);
            }
            return Some(publish);
        }
        // The number may be what was too much.
        self.publish(delivery, &Sending { alias: None, ..sending })
    }

    /// Goes before queued deliveries, so it sets no alias; and none is known when it is sent.
    pub(super) fn resent_publish(&self, delivery: &Delivery, packet_id: u16) -> Option<Outgoing> {
        self.publish(delivery, &Sending { dup: true, packet_id, alias: None, lag: None, now: self.now })
    }

    fn publish(&self, delivery: &Delivery, sending: &Sending<'_>) -> Option<Outgoing> {
        let publication = &*delivery.publication;
        let properties = self.is_v5().then(|| properties(delivery, sending));
        let is_aliased = matches!(sending.alias, Some(Alias::Known(_)));
        let head = PublishHead {
            dup: sending.dup,
            qos: self.delivery_qos(delivery),
            retain: delivery.retain,
            topic: if is_aliased { "" } else { publication.topic.as_str() },
            packet_id: sending.packet_id,
            properties: properties.as_deref(),
            payload_len: publication.payload.len(),
        };
        let head = head.encode().freeze();
        if head.len() + publication.payload.len() > self.client.packet_bytes_max {
            return None; // [MQTT-3.1.2-24]
        }
        Some(Outgoing { kind: MessageKind::Binary, head, body: publication.payload_body().cloned() })
    }
}

/// Of an acknowledged delivery that may have been sent before [MQTT-3.3.1-1]. QoS 0 has none [MQTT-3.3.1-2].
const fn is_dup(delivery: &Delivery, packet_id: u16) -> bool {
    delivery.is_dup() && packet_id != 0
}

fn properties(delivery: &Delivery, sending: &Sending<'_>) -> BytesMut {
    let mut list = BytesMut::new();
    if let Some(expires_at) = delivery.publication.expires_at {
        // [MQTT-3.3.2-6]: what remains; a part of a second counts as one, or it would look expired.
        let remaining = expires_at.saturating_duration_since(sending.now);
        let seconds = remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0);
        list.put_u8(0x02);
        list.put_u32(u32::try_from(seconds).unwrap_or(u32::MAX));
    }
    put_publisher_properties(&delivery.publication, &mut list);
    if let Some(Alias::Known(number) | Alias::First(number)) = sending.alias {
        list.put_u8(0x23);
        list.put_u16(number);
    }
    // [MQTT-3.3.4-3], [MQTT-3.3.4-4]: of every subscription of this client that matches.
    let also = delivery.also.iter().flat_map(|others| others.iter().copied());
    for identifier in delivery.identifier.into_iter().chain(also) {
        list.put_u8(0x0B);
        put_var_int(&mut list, usize::try_from(identifier.get()).unwrap_or(0));
    }
    if let Some(lag) = sending.lag {
        let value = format!("dropped={};conflated={}", lag.dropped, lag.conflated); // WIRE §8
        put_user_property(&mut list, "tidegate-lag", &value);
    }
    list
}

//! SUBSCRIBE and UNSUBSCRIBE: from topic filters to requests, and back to reason codes. The broker keeps the
//! subscriptions, since they may outlive this session's connection.
//!
//! Spec: OASIS MQTT 5.0 §3.8–§3.11.

use std::num::NonZeroU32;

use super::{End, Handled, MqttSession, Phase, SUBSCRIBE, UNSUBSCRIBE, reason_string};
use crate::mqtt::forms;
use crate::mqtt::packet::{self, Packet, PacketType, ReasonCode, SubAck, Unsubscribe, Version};
use crate::publication::QoS;
use crate::session::{Copies, Refusal, Reply, Request, Subscribe, SubscriptionName};
use crate::topic::{TopicError, TopicFilter};

/// Between SUBSCRIBE and SUBACK: for each filter, that the broker was asked, or why not.
pub(super) struct Subscribing {
    packet_id: u16,
    filters: Vec<Result<(), ReasonCode>>,
}

/// Between UNSUBSCRIBE and UNSUBACK: for each filter, whether the broker was asked.
pub(super) struct Unsubscribing {
    packet_id: u16,
    asked: Vec<bool>,
}

impl MqttSession {
    pub(super) fn handle_subscribe(&mut self, subscribe: packet::Subscribe) -> Handled {
        let identifier = subscribe
            .properties
            .as_ref()
            .and_then(|list| list.subscription_identifiers.first().copied())
            .and_then(NonZeroU32::new);
        let mut filters = Vec::with_capacity(subscribe.filters.len());
        let mut requests: Vec<Subscribe> = Vec::new();
        for subscription in &subscribe.filters {
            filters.push(self.request_for(subscription, identifier).map(|request| requests.push(request)));
        }
        let subscribing = Subscribing { packet_id: subscribe.packet_id, filters };
        if requests.is_empty() {
            let reasons = subscribing.filters.iter().filter_map(|filter| filter.err()).collect();
            self.send_suback(subscribing.packet_id, reasons, "");
            return Ok(());
        }
        self.phase = Phase::Subscribing(Box::new(subscribing));
        self.request(SUBSCRIBE, Request::Subscribe(requests));
        Ok(())
    }

    fn request_for(
        &self,
        asked: &packet::Subscription,
        identifier: Option<NonZeroU32>,
    ) -> Result<Subscribe, ReasonCode> {
        let filter = accepted(&asked.filter)?.clone();
        let version = self.codec.version().unwrap_or(Version::V3_1_1);
        Ok(Subscribe {
            // The same filter again replaces the subscription [MQTT-3.8.4-3].
            id: None,
            filter,
            group: None,
            identifier,
            qos: asked.qos.min(self.settings.max_qos), // [MQTT-3.8.4-7]
            // A Subscription Identifier makes the packet this subscription's own [MQTT-3.8.4-8].
            forms: identifier.is_none().then(|| forms::of_version(version)),
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            retained: asked.retain_handling,
            overflow: None,
            conflate: None,
            copies: Copies::PerClient,
        })
    }

    pub(super) fn handle_subscribe_reply(&mut self, subscribing: Subscribing, reply: Reply) {
        let Subscribing { packet_id, filters } = subscribing;
        let mut results = match reply {
            Reply::Subscribed(results) => results.into_iter(),
            Reply::Refused(refusal) => vec![Err(refusal); filters.len()].into_iter(),
            _ => Vec::new().into_iter(),
        };
        let mut explanation = String::new();
        let mut reasons = Vec::with_capacity(filters.len());
        for asked in filters {
            let answer = asked.map(|()| results.next().unwrap_or(Err(Refusal::Internal)));
            reasons.push(match answer {
                Err(reason) => reason,
                Ok(Ok(granted)) => granted_code(granted.qos),
                Ok(Err(refusal)) => {
                    explanation = refusal.to_string();
                    ReasonCode::of_refusal(&refusal, PacketType::SubAck)
                }
            });
        }
        self.send_suback(packet_id, reasons, &explanation);
    }

    /// One code for each filter, in order [MQTT-3.8.4-6].
    fn send_suback(&mut self, packet_id: u16, reasons: Vec<ReasonCode>, explanation: &str) {
        let explanation = match reasons.iter().find(|reason| reason.is_error()) {
            Some(reason) if explanation.is_empty() => reason.name(),
            _ => explanation,
        };
        let properties = if self.is_v5() { reason_string(explanation) } else { None };
        self.send(Packet::SubAck(SubAck { packet_id, properties, reasons }));
    }

    pub(super) fn handle_unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Handled {
        let names: Vec<Option<SubscriptionName>> = unsubscribe
            .filters
            .into_iter()
            .map(|filter| Some(SubscriptionName::Filter { group: None, filter: filter.ok()? }))
            .collect();
        let asked = names.iter().map(Option::is_some).collect();
        let unsubscribing = Unsubscribing { packet_id: unsubscribe.packet_id, asked };
        let names: Vec<SubscriptionName> = names.into_iter().flatten().collect();
        if names.is_empty() {
            self.handle_unsubscribe_reply(unsubscribing, Reply::Unsubscribed(Vec::new()));
            return Ok(());
        }
        self.phase = Phase::Unsubscribing(Box::new(unsubscribing));
        self.request(UNSUBSCRIBE, Request::Unsubscribe(names));
        Ok(())
    }

    /// [MQTT-3.10.4-4], [MQTT-3.11.3-1]
    pub(super) fn handle_unsubscribe_reply(&mut self, unsubscribing: Unsubscribing, reply: Reply) {
        let mut existed = match reply {
            Reply::Unsubscribed(existed) => existed.into_iter(),
            Reply::Refused(refusal) => {
                self.end(End::new(
                    ReasonCode::of_refusal(&refusal, PacketType::UnsubAck),
                    refusal.to_string(),
                ));
                return;
            }
            _ => Vec::new().into_iter(),
        };
        let reasons = unsubscribing
            .asked
            .into_iter()
            .map(|asked| match asked && existed.next().unwrap_or(false) {
                true => ReasonCode::SUCCESS,
                false => ReasonCode::NO_SUBSCRIPTION_EXISTED,
            })
            .collect();
        let packet_id = unsubscribing.packet_id;
        self.send(Packet::UnsubAck(SubAck { packet_id, properties: None, reasons }));
    }
}

/// A filter that this server takes.
fn accepted(filter: &Result<TopicFilter, TopicError>) -> Result<&TopicFilter, ReasonCode> {
    let filter = filter.as_ref().map_err(|_| ReasonCode::TOPIC_FILTER_INVALID)?;
    if filter.as_str().starts_with("$share/") {
        return Err(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
    }
    Ok(filter)
}

const fn granted_code(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::SUCCESS,
        QoS::AtLeastOnce => ReasonCode::GRANTED_QOS_1,
        QoS::ExactlyOnce => ReasonCode::GRANTED_QOS_2,
    }
}

//! SUBSCRIBE and UNSUBSCRIBE: from topic filters to requests, and back to reason codes. The broker keeps the
//! subscriptions, since they may outlive this session's connection.
//!
//! Spec: OASIS MQTT 5.0 §3.8–§3.11.

use std::num::{NonZeroU16, NonZeroU32};

use super::send::reason_string;
use super::{Handled, MqttSession, Phase, SUBSCRIBE, UNSUBSCRIBE};
use crate::mqtt::packet::{self, Packet, PacketType, ReasonCode, SubAck, Unsubscribe};
use crate::publication::QoS;
use crate::session::{Copies, Refusal, Reply, Request, RetainHandling, Subscribe, SubscriptionName};
use crate::topic::{ShareName, TopicError, TopicFilter};

/// Between SUBSCRIBE and SUBACK: for each filter, that the broker was asked, or why not.
pub(super) struct Subscribing {
    packet_id: u16,
    filters: Vec<Result<(), ReasonCode>>,
}

/// Between UNSUBSCRIBE and UNSUBACK: the same.
pub(super) struct Unsubscribing {
    packet_id: u16,
    filters: Vec<Result<(), ReasonCode>>,
}

impl MqttSession {
    pub(super) fn handle_subscribe(&mut self, subscribe: packet::Subscribe) -> Handled {
        let identifier = subscribe
            .properties
            .as_ref()
            .and_then(|list| list.subscription_identifiers.first().copied())
            .and_then(NonZeroU32::new);
        // One after another, with one answer [MQTT-3.8.4-5].
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
        let (group, filter) = parts(&asked.filter)?;
        let is_shared = group.is_some();
        Ok(Subscribe {
            // The same filter again replaces the subscription [MQTT-3.8.4-3].
            id: None,
            filter,
            group,
            identifier,
            qos: asked.qos.min(self.settings.max_qos), // [MQTT-3.8.4-7], [MQTT-3.2.2-10]
            // A Subscription Identifier makes the packet this subscription's own [MQTT-3.3.4-3].
            forms: self.shared_forms().filter(|_| identifier.is_none()),
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            // §4.8.2: no retained messages at a shared subscription.
            retained: if is_shared { RetainHandling::Skip } else { asked.retain_handling },
            overflow: None,
            conflate: None,
            copies: Copies::PerClient,
            selector: None,
            head: None,
            durable: None,
            // Of a queue no more is held for it than it can take.
            prefetch: NonZeroU16::new(self.client.receive_maximum.min(self.settings.max_inflight))
                .filter(|_| self.client.receive_maximum < u16::MAX),
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

    /// [MQTT-3.8.4-1], with the identifier of SUBSCRIBE [MQTT-3.8.4-2], and one code for each filter, in order
    /// [MQTT-3.8.4-6], [MQTT-3.9.3-1].
    fn send_suback(&mut self, packet_id: u16, reasons: Vec<ReasonCode>, explanation: &str) {
        let explanation = match reasons.iter().find(|reason| reason.is_error()) {
            Some(reason) if explanation.is_empty() => reason.name(),
            _ => explanation,
        };
        let properties = if self.is_v5() { reason_string(explanation) } else { None };
        self.send(Packet::SubAck(SubAck { packet_id, properties, reasons }));
    }

    pub(super) fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) -> Handled {
        let mut filters = Vec::with_capacity(unsubscribe.filters.len());
        let mut names = Vec::new();
        for filter in &unsubscribe.filters {
            filters.push(unsubscription(filter).map(|name| names.push(name)));
        }
        let unsubscribing = Unsubscribing { packet_id: unsubscribe.packet_id, filters };
        if names.is_empty() {
            self.handle_unsubscribe_reply(unsubscribing, Reply::Unsubscribed(Vec::new()));
            return Ok(());
        }
        self.phase = Phase::Unsubscribing(Box::new(unsubscribing));
        self.request(UNSUBSCRIBE, Request::Unsubscribe(names));
        Ok(())
    }

    /// [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-3.10.4-6], [MQTT-3.11.3-1]; as in SUBACK, the identifier is that of the
    /// request [MQTT-2.2.1-6].
    pub(super) fn handle_unsubscribe_reply(&mut self, unsubscribing: Unsubscribing, reply: Reply) {
        let (mut existed, refusal) = match reply {
            Reply::Unsubscribed(existed) => (existed.into_iter(), None),
            // UNSUBACK of 3.x says yes and nothing else.
            Reply::Refused(refusal) if !self.is_v5() => return self.end_by(&refusal),
            Reply::Refused(refusal) => (Vec::new().into_iter(), Some(refusal)),
            _ => (Vec::new().into_iter(), None),
        };
        let otherwise = match &refusal {
            Some(refusal) => ReasonCode::of_refusal(refusal, PacketType::UnsubAck),
            None => ReasonCode::NO_SUBSCRIPTION_EXISTED,
        };
        let reasons = unsubscribing
            .filters
            .into_iter()
            .map(|filter| match filter {
                Err(reason) => reason,
                Ok(()) if existed.next().unwrap_or(false) => ReasonCode::SUCCESS,
                Ok(()) => otherwise,
            })
            .collect();
        let properties = refusal.and_then(|refusal| reason_string(&refusal.to_string()));
        let packet_id = unsubscribing.packet_id;
        self.send(Packet::UnsubAck(SubAck { packet_id, properties, reasons }));
    }
}

/// The group and the filter of a filter that this server takes.
fn parts(filter: &Result<TopicFilter, TopicError>) -> Result<(Option<ShareName>, TopicFilter), ReasonCode> {
    let filter = filter.as_ref().map_err(|_| ReasonCode::TOPIC_FILTER_INVALID)?;
    match filter.shared() {
        None => Ok((None, filter.clone())),
        Some(Ok((group, filter))) => Ok((Some(group), filter)),
        // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        Some(Err(_)) => Err(ReasonCode::TOPIC_FILTER_INVALID),
    }
}

/// A filter beyond our limits is that of no subscription; one that cannot exist is told so.
fn unsubscription(filter: &Result<TopicFilter, TopicError>) -> Result<SubscriptionName, ReasonCode> {
    if filter.is_err() {
        return Err(ReasonCode::NO_SUBSCRIPTION_EXISTED);
    }
    let (group, filter) = parts(filter)?;
    Ok(SubscriptionName::Filter { group, filter })
}

const fn granted_code(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::SUCCESS,
        QoS::AtLeastOnce => ReasonCode::GRANTED_QOS_1,
        QoS::ExactlyOnce => ReasonCode::GRANTED_QOS_2,
    }
}

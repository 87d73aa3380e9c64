//! SUBSCRIBE and UNSUBSCRIBE: from topic filters to the broker's subscription ids, and back to reason codes.
//!
//! Spec: OASIS MQTT 5.0 §3.8–§3.11.

use super::{End, Handled, MqttSession, Phase, SUBSCRIBE, UNSUBSCRIBE, reason_string};
use crate::mqtt::forms;
use crate::mqtt::packet::{self, Packet, PacketType, ReasonCode, SubAck, Unsubscribe, Version};
use crate::publication::QoS;
use crate::session::{Copies, Refusal, Reply, Request, Subscribe, SubscriptionId};
use crate::topic::{TopicError, TopicFilter};

/// The subscriptions of a client, by filter; at most `mqtt.max_subscriptions`.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Sorted by filter.
    by_filter: Vec<(TopicFilter, SubscriptionId)>,
    /// Subscription Identifiers of those that have one; sorted by id.
    identifiers: Vec<(SubscriptionId, u32)>,
    last: u32,
}

impl Subscriptions {
    fn position(&self, filter: &TopicFilter) -> Result<usize, usize> {
        self.by_filter.binary_search_by(|(known, _)| known.cmp(filter))
    }

    fn id(&self, filter: &TopicFilter) -> Option<SubscriptionId> {
        self.by_filter.get(self.position(filter).ok()?).map(|(_, id)| *id)
    }

    /// An id that no subscription of this session has had.
    fn new_id(&mut self) -> SubscriptionId {
        self.last = self.last.wrapping_add(1);
        SubscriptionId(self.last)
    }

    fn insert(&mut self, filter: &TopicFilter, id: SubscriptionId) {
        if let Err(position) = self.position(filter) {
            self.by_filter.insert(position, (filter.clone(), id));
        }
    }

    fn set_identifier(&mut self, id: SubscriptionId, identifier: Option<u32>) {
        let position = self.identifiers.binary_search_by_key(&id, |(known, _)| *known);
        match (position, identifier) {
            (Ok(position), Some(identifier)) => {
                if let Some((_, known)) = self.identifiers.get_mut(position) {
                    *known = identifier;
                }
            }
            (Ok(position), None) => drop(self.identifiers.remove(position)),
            (Err(position), Some(identifier)) => self.identifiers.insert(position, (id, identifier)),
            (Err(_), None) => {}
        }
    }

    fn remove(&mut self, filter: &TopicFilter) -> Option<SubscriptionId> {
        let position = self.position(filter).ok()?;
        let (_, id) = self.by_filter.remove(position);
        if let Ok(position) = self.identifiers.binary_search_by_key(&id, |(known, _)| *known) {
            self.identifiers.remove(position);
        }
        Some(id)
    }

    /// The Subscription Identifier that the client gave with this subscription.
    pub(super) fn identifier(&self, id: SubscriptionId) -> Option<u32> {
        let position = self.identifiers.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        self.identifiers.get(position).map(|(_, identifier)| *identifier)
    }
}

/// A filter that the broker was asked about.
struct Asked {
    filter: TopicFilter,
    id: SubscriptionId,
    /// It replaces none, and is forgotten when it is refused.
    is_new: bool,
}

/// Between SUBSCRIBE and SUBACK.
pub(super) struct Subscribing {
    packet_id: u16,
    identifier: Option<u32>,
    filters: Vec<Result<Asked, ReasonCode>>,
}

/// Between UNSUBSCRIBE and UNSUBACK: for each filter, whether the broker was asked.
pub(super) struct Unsubscribing {
    packet_id: u16,
    asked: Vec<bool>,
}

impl MqttSession {
    pub(super) fn handle_subscribe(&mut self, subscribe: packet::Subscribe) -> Handled {
        let identifier =
            subscribe.properties.as_ref().and_then(|list| list.subscription_identifiers.first().copied());
        let mut filters = Vec::with_capacity(subscribe.filters.len());
        let mut requests: Vec<Subscribe> = Vec::new();
        for subscription in subscribe.filters {
            match self.enter(&subscription) {
                Ok(asked) => {
                    requests.push(self.request_for(&asked, identifier, &subscription));
                    filters.push(Ok(asked));
                }
                Err(reason) => filters.push(Err(reason)),
            }
        }
        let subscribing = Subscribing { packet_id: subscribe.packet_id, identifier, filters };
        if requests.is_empty() {
            self.send_suback(subscribing.packet_id, reasons_only(&subscribing.filters), "");
            return Ok(());
        }
        self.phase = Phase::Subscribing(Box::new(subscribing));
        self.request(SUBSCRIBE, Request::Subscribe(requests));
        Ok(())
    }

    /// The same filter again replaces the subscription [MQTT-3.8.4-3], within one packet too.
    fn enter(&mut self, subscription: &packet::Subscription) -> Result<Asked, ReasonCode> {
        let filter = accepted(&subscription.filter)?.clone();
        if let Some(id) = self.subscriptions.id(&filter) {
            return Ok(Asked { filter, id, is_new: false });
        }
        if self.subscriptions.by_filter.len() >= self.settings.subscriptions_max {
            return Err(ReasonCode::QUOTA_EXCEEDED); // SEC-15
        }
        let id = self.subscriptions.new_id();
        self.subscriptions.insert(&filter, id);
        Ok(Asked { filter, id, is_new: true })
    }

    fn request_for(&self, to: &Asked, identifier: Option<u32>, asked: &packet::Subscription) -> Subscribe {
        let version = self.codec.version().unwrap_or(Version::V3_1_1);
        Subscribe {
            id: to.id,
            filter: to.filter.clone(),
            qos: asked.qos.min(self.settings.max_qos), // [MQTT-3.8.4-7]
            // A Subscription Identifier makes the packet this subscription's own [MQTT-3.8.4-8].
            forms: identifier.is_none().then(|| forms::of_version(version)),
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            retained: asked.retain_handling,
            overflow: None,
            conflate: None,
            copies: Copies::PerClient,
        }
    }

    pub(super) fn handle_subscribe_reply(&mut self, subscribing: Subscribing, reply: Reply) {
        let Subscribing { packet_id, identifier, filters } = subscribing;
        let mut results = match reply {
            Reply::Subscribed(results) => results.into_iter(),
            Reply::Refused(refusal) => vec![Err(refusal); filters.len()].into_iter(),
            _ => Vec::new().into_iter(),
        };
        let mut explanation = String::new();
        let mut reasons = Vec::with_capacity(filters.len());
        for asked in filters {
            let Asked { filter, id, is_new } = match asked {
                Ok(asked) => asked,
                Err(reason) => {
                    reasons.push(reason);
                    continue;
                }
            };
            match results.next().unwrap_or(Err(Refusal::Internal)) {
                Ok(granted) => {
                    self.subscriptions.insert(&filter, id);
                    self.subscriptions.set_identifier(id, identifier);
                    reasons.push(granted_code(granted.qos));
                }
                Err(refusal) => {
                    if is_new {
                        self.subscriptions.remove(&filter);
                    }
                    explanation = refusal.to_string();
                    reasons.push(ReasonCode::of_refusal(&refusal, PacketType::SubAck));
                }
            }
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
        let removed: Vec<Option<SubscriptionId>> = unsubscribe
            .filters
            .iter()
            .map(|filter| filter.as_ref().ok().and_then(|filter| self.subscriptions.remove(filter)))
            .collect();
        let asked = removed.iter().map(Option::is_some).collect();
        let unsubscribing = Unsubscribing { packet_id: unsubscribe.packet_id, asked };
        let ids: Vec<SubscriptionId> = removed.into_iter().flatten().collect();
        if ids.is_empty() {
            self.handle_unsubscribe_reply(unsubscribing, Reply::Unsubscribed(Vec::new()));
            return Ok(());
        }
        self.phase = Phase::Unsubscribing(Box::new(unsubscribing));
        self.request(UNSUBSCRIBE, Request::Unsubscribe(ids));
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

fn reasons_only(filters: &[Result<Asked, ReasonCode>]) -> Vec<ReasonCode> {
    filters.iter().filter_map(|filter| filter.as_ref().err().copied()).collect()
}

const fn granted_code(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::SUCCESS,
        QoS::AtLeastOnce => ReasonCode::GRANTED_QOS_1,
        QoS::ExactlyOnce => ReasonCode::GRANTED_QOS_2,
    }
}

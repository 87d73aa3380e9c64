//! Publishes from the client: topic aliases, the request, PUBACK; and the packets of QoS 2 that refer to nothing.
//!
//! Spec: OASIS MQTT 5.0 §3.3–§3.7, §4.3.

use bytes::Bytes;

use super::{End, Handled, IGNORED, MqttSession, reason_string};
use crate::mqtt::packet::{self, Ack, Packet, PacketType, ReasonCode};
use crate::publication::{Properties, Publication, QoS, compact};
use crate::session::{Publish, Refusal, Reply, Request, Token};
use crate::topic::{Topic, TopicLimits};

/// The topics that the client gave numbers to; sorted by number.
#[derive(Debug, Default)]
pub(super) struct Aliases(Vec<(u16, Topic)>);

impl Aliases {
    fn set(&mut self, alias: u16, topic: &Topic) {
        match self.0.binary_search_by_key(&alias, |(known, _)| *known) {
            Ok(position) => {
                if let Some((_, known)) = self.0.get_mut(position) {
                    *known = topic.clone();
                }
            }
            Err(position) => self.0.insert(position, (alias, topic.clone())),
        }
    }

    fn topic(&self, alias: u16) -> Option<&Topic> {
        let position = self.0.binary_search_by_key(&alias, |(known, _)| *known).ok()?;
        self.0.get(position).map(|(_, topic)| topic)
    }
}

/// Above every packet identifier, so that no token of a publish is one of another request.
const ACKNOWLEDGED: u32 = 0x1_0000;

impl MqttSession {
    pub(super) fn handle_publish(&mut self, publish: packet::Publish) -> Handled {
        let qos = publish.qos;
        if qos > self.settings.max_qos {
            return Err(End::new(ReasonCode::QOS_NOT_SUPPORTED, "QoS above the maximum QoS [MQTT-3.2.2-11]"));
        }
        if publish.retain && !self.settings.is_retain_available {
            return Err(End::new(
                ReasonCode::RETAIN_NOT_SUPPORTED,
                "retain is not available [MQTT-3.2.2-14]",
            ));
        }
        // [MQTT-3.3.4-9]; 3.x is braked before it comes to this.
        if qos > QoS::AtMostOnce && self.outstanding >= self.settings.receive_maximum {
            let detail = format!("more than {} unacknowledged publishes", self.settings.receive_maximum);
            return Err(End::new(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, detail));
        }
        let alias = publish.properties.as_ref().and_then(|properties| properties.topic_alias);
        let topic = self.resolve(publish.topic, alias)?;
        let expiry_s =
            publish.properties.as_ref().and_then(|properties| properties.message_expiry_interval_s);
        let payload = compact(&publish.payload); // SEC-17
        let mut publication = publication(topic, payload, publish.properties, &self.settings.topic_limits)?;
        publication.qos = qos;
        publication.retain = publish.retain;
        publication.expires_at =
            expiry_s.and_then(|seconds| self.now.checked_add(std::time::Duration::from_secs(seconds.into())));
        let token = if qos == QoS::AtMostOnce {
            IGNORED
        } else {
            self.outstanding += 1;
            Token(ACKNOWLEDGED | u32::from(publish.packet_id))
        };
        self.request(token, Request::Publish(Publish { publication, packet_id: None }));
        Ok(())
    }

    /// §3.3.2.3.4
    fn resolve(&mut self, topic: Option<Topic>, alias: Option<u16>) -> Result<Topic, End> {
        let maximum = self.settings.topic_alias_maximum;
        match (topic, alias) {
            // [MQTT-3.3.2-8], [MQTT-3.3.2-9]
            (_, Some(alias)) if alias == 0 || alias > maximum => {
                let detail = format!("topic alias {alias} is not between 1 and {maximum}");
                Err(End::new(ReasonCode::TOPIC_ALIAS_INVALID, detail))
            }
            (Some(topic), None) => Ok(topic),
            (Some(topic), Some(alias)) => {
                self.aliases.set(alias, &topic);
                Ok(topic)
            }
            (None, Some(alias)) => self.aliases.topic(alias).cloned().ok_or_else(|| {
                End::new(ReasonCode::PROTOCOL_ERROR, format!("topic alias {alias} was never set"))
            }),
            (None, None) => Err(End::new(ReasonCode::PROTOCOL_ERROR, "neither topic name nor topic alias")),
        }
    }

    /// At QoS 0 there is nothing to tell: the broker has counted what it refused.
    pub(super) fn handle_publish_reply(&mut self, token: Token, reply: Reply) {
        if token.0 & ACKNOWLEDGED == 0 {
            return;
        }
        let Ok(packet_id) = u16::try_from(token.0 & !ACKNOWLEDGED) else { return };
        self.outstanding = self.outstanding.saturating_sub(1);
        match reply {
            Reply::Published(published) => {
                let reason = if published.matched == 0 {
                    ReasonCode::NO_MATCHING_SUBSCRIBERS
                } else {
                    ReasonCode::SUCCESS
                };
                self.send(Packet::PubAck(Ack::new(packet_id, reason)));
            }
            Reply::Refused(refusal) => self.refuse_publish(packet_id, &refusal),
            _ => self.refuse_publish(packet_id, &Refusal::Internal),
        }
    }

    fn refuse_publish(&mut self, packet_id: u16, refusal: &Refusal) {
        let reason = ReasonCode::of_refusal(refusal, PacketType::PubAck);
        let detail = refusal.to_string();
        if self.is_v5() {
            let properties = reason_string(&detail);
            self.send(Packet::PubAck(Ack { packet_id, reason, properties }));
            return;
        }
        match refusal {
            // 3.1.1 [MQTT-3.3.5-2]: acknowledge or close; a client that may not publish would only come back.
            Refusal::NotAuthorized | Refusal::Forbidden(_) | Refusal::BadTopic(_) => {
                self.send(Packet::PubAck(Ack::new(packet_id, ReasonCode::SUCCESS)));
            }
            // An acknowledgement would claim that the message is safe.
            _ => self.end(End::new(reason, detail)),
        }
    }

    /// No publish waits for it at a maximum QoS of 1.
    pub(super) fn handle_pubrel(&mut self, ack: &Ack) -> Handled {
        let reason = ReasonCode::PACKET_IDENTIFIER_NOT_FOUND; // §4.3.3; 3.x has no word for it
        self.send(Packet::PubComp(Ack::new(ack.packet_id, reason)));
        Ok(())
    }
}

/// A publication of what a client said; QoS, RETAIN and expiry are the caller's.
pub(super) fn publication(
    topic: Topic,
    payload: Bytes,
    properties: Option<Box<packet::Properties>>,
    limits: &TopicLimits,
) -> Result<Publication, End> {
    let mut publication = Publication::new(topic, payload);
    let Some(properties) = properties else { return Ok(publication) };
    let packet::Properties {
        payload_format_indicator,
        content_type,
        response_topic,
        correlation_data,
        user,
        ..
    } = *properties;
    publication.is_text = payload_format_indicator == Some(true);
    if publication.is_text && simdutf8::basic::from_utf8(&publication.payload).is_err() {
        let detail = "the payload is not UTF-8, as its format indicator says"; // §3.3.2.3.2
        return Err(End::new(ReasonCode::PAYLOAD_FORMAT_INVALID, detail));
    }
    let response_topic = match response_topic {
        Some(name) => match Topic::parse(&name, limits) {
            Ok(topic) => Some(topic),
            Err(error) => {
                let detail = format!("response topic: {error}"); // [MQTT-3.3.2-14]
                return Err(End::new(ReasonCode::PROTOCOL_ERROR, detail));
            }
        },
        None => None,
    };
    let said = Properties { content_type, response_topic, correlation_data, user };
    if said != Properties::default() {
        publication.properties = Some(Box::new(said));
    }
    Ok(publication)
}

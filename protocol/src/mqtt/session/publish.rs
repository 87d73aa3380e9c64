//! Publishes from the client: topic aliases, the window, the request, and the answers PUBACK, PUBREC and PUBCOMP.
//!
//! Spec: OASIS MQTT 5.0 §3.3–§3.7, §4.3, §4.9.

use std::time::Duration;

use bytes::Bytes;

use super::send::reason_string;
use super::{
    End, Handled, IGNORED, MqttSession, NO_TEXT_QOS1, NO_TEXT_QOS2, PUBLISH_QOS1, PUBLISH_QOS2, RELEASE,
};
use crate::mqtt::aliases::ClientAliases;
use crate::mqtt::packet::{self, Ack, Packet, PacketType, ReasonCode};
use crate::packet_ids::PacketIds;
use crate::publication::{Properties, Publication, QoS, compact};
use crate::session::{Publish, Refusal, Reply, Request};
use crate::topic::{Topic, TopicLimits};

/// What is kept in mind of the client's own publishes.
#[derive(Default)]
pub(super) struct Received {
    aliases: ClientAliases,
    /// At QoS 1, until their PUBACK is sent.
    unacknowledged: u16,
    /// At QoS 2, until their PUBCOMP is sent; in MQTT 5 alone, and of this connection alone.
    incomplete: PacketIds,
    /// Requests of exchanges in either direction that the broker has not answered.
    pub(super) asked: u32,
}

impl MqttSession {
    /// 3.x knows no Receive Maximum: it is slowed down instead, by what waits for the broker alone; what waits for
    /// the client's PUBREL must not keep that PUBREL out. MQTT 5 has a margin, so that going beyond its window is
    /// seen; it is stopped only by packets that no window counts.
    pub(super) fn brakes(&self) -> bool {
        let maximum = u32::from(self.settings.receive_maximum);
        self.received.asked >= if self.is_v5() { 2 * maximum } else { maximum }
    }

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
        self.check_window(qos, publish.packet_id)?;
        let alias = publish.properties.as_ref().and_then(|properties| properties.topic_alias);
        let topic = self.resolve(publish.topic, alias)?;
        let expiry_s =
            publish.properties.as_ref().and_then(|properties| properties.message_expiry_interval_s);
        let payload = compact(&publish.payload); // SEC-17
        let mut publication = publication(topic, payload, publish.properties, &self.settings.topic_limits)?;
        publication.qos = qos;
        publication.retain = publish.retain;
        publication.expires_at =
            expiry_s.and_then(|seconds| self.now.checked_add(Duration::from_secs(seconds.into())));
        let packet_id = publish.packet_id;
        if !is_the_text_it_says(&publication) {
            return self.refuse_format(qos, packet_id);
        }
        match qos {
            QoS::AtMostOnce => {
                self.request(IGNORED, Request::Publish(Box::new(Publish { publication, packet_id: None })));
            }
            QoS::AtLeastOnce => {
                self.received.unacknowledged = self.received.unacknowledged.saturating_add(1);
                let request = Request::Publish(Box::new(Publish { publication, packet_id: None }));
                self.ask(PUBLISH_QOS1, packet_id, request);
            }
            // The broker knows by the identifier, not by DUP, whether it has the message [MQTT-4.3.3-10].
            QoS::ExactlyOnce => {
                if self.is_v5() {
                    self.received.incomplete.insert(packet_id);
                }
                let request = Request::Publish(Box::new(Publish { publication, packet_id: Some(packet_id) }));
                self.ask(PUBLISH_QOS2, packet_id, request);
            }
        }
        Ok(())
    }

    /// §3.3.2.3.2. Without an acknowledgement to say it in, the connection ends. The others leave in their turn, behind
    /// the answers that the broker still owes, so it is asked for something first: to forget an identifier that the
    /// client uses anew, since an error in PUBREC ends the exchange.
    fn refuse_format(&mut self, qos: QoS, packet_id: u16) -> Handled {
        let kind = match qos {
            QoS::AtMostOnce => {
                return Err(End::new(ReasonCode::PAYLOAD_FORMAT_INVALID, NOT_THE_TEXT_IT_SAYS));
            }
            QoS::AtLeastOnce => {
                self.received.unacknowledged = self.received.unacknowledged.saturating_add(1);
                NO_TEXT_QOS1
            }
            QoS::ExactlyOnce => {
                self.received.incomplete.insert(packet_id);
                NO_TEXT_QOS2
            }
        };
        self.ask(kind, packet_id, Request::Release { packet_id });
        Ok(())
    }

    /// Its turn has come. `answer` is PUBACK or PUBREC.
    pub(super) fn handle_refused_format(&mut self, answer: PacketType, packet_id: u16) {
        self.note_answer();
        if answer == PacketType::PubAck {
            self.received.unacknowledged = self.received.unacknowledged.saturating_sub(1);
        } else {
            self.received.incomplete.remove(packet_id); // [MQTT-4.3.3-9]
        }
        let properties = reason_string(NOT_THE_TEXT_IT_SAYS);
        self.answer_publish(
            answer,
            Ack { packet_id, reason: ReasonCode::PAYLOAD_FORMAT_INVALID, properties },
        );
    }

    /// [MQTT-3.3.4-7]: a repetition of what is in the window does not count twice.
    fn check_window(&self, qos: QoS, packet_id: u16) -> Handled {
        let received = &self.received;
        let is_counted = match qos {
            QoS::AtMostOnce => false,
            QoS::AtLeastOnce => true,
            QoS::ExactlyOnce => !received.incomplete.contains(packet_id),
        };
        let count = usize::from(received.unacknowledged) + received.incomplete.len();
        let maximum = self.settings.receive_maximum;
        if self.is_v5() && is_counted && count >= usize::from(maximum) {
            let detail = format!("more than {maximum} publishes under way");
            return Err(End::new(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, detail));
        }
        Ok(())
    }

    /// §3.3.2.3.4
    fn resolve(&mut self, topic: Option<Topic>, alias: Option<u16>) -> Result<Topic, End> {
        let maximum = self.settings.topic_alias_maximum;
        match (topic, alias) {
            // [MQTT-3.2.2-17]; without an announcement the maximum is 0 [MQTT-3.2.2-18].
            // [MQTT-3.3.2-8], [MQTT-3.3.2-9], [MQTT-3.3.2-12]
            (_, Some(alias)) if alias == 0 || alias > maximum => {
                let detail = format!("topic alias {alias} is not between 1 and {maximum}");
                Err(End::new(ReasonCode::TOPIC_ALIAS_INVALID, detail))
            }
            (Some(topic), None) => Ok(topic),
            (Some(topic), Some(alias)) => {
                self.received.aliases.set(alias, &topic);
                Ok(topic)
            }
            (None, Some(alias)) => self.received.aliases.topic(alias).cloned().ok_or_else(|| {
                End::new(ReasonCode::PROTOCOL_ERROR, format!("topic alias {alias} was never set"))
            }),
            (None, None) => Err(End::new(ReasonCode::PROTOCOL_ERROR, "neither topic name nor topic alias")),
        }
    }

    /// `answer` is PUBACK or PUBREC. They leave in the order of the publishes [MQTT-4.6.0-2], [MQTT-4.6.0-3], since
    /// the replies come in it.
    pub(super) fn handle_publish_reply(&mut self, answer: PacketType, packet_id: u16, reply: Reply) {
        self.note_answer();
        if answer == PacketType::PubAck {
            self.received.unacknowledged = self.received.unacknowledged.saturating_sub(1);
        }
        match reply {
            Reply::Published(published) => {
                let reason = if published.matched == 0 {
                    ReasonCode::NO_MATCHING_SUBSCRIBERS
                } else {
                    ReasonCode::SUCCESS
                };
                self.answer_publish(answer, Ack::new(packet_id, reason)); // [MQTT-4.3.2-4], [MQTT-4.3.3-8]
            }
            Reply::Refused(refusal) => self.refuse_publish(answer, packet_id, &refusal),
            _ => self.refuse_publish(answer, packet_id, &Refusal::Internal),
        }
    }

    /// [MQTT-3.3.4-1], with the identifier of the publish [MQTT-2.2.1-5].
    fn answer_publish(&mut self, answer: PacketType, ack: Ack) {
        self.send(match answer {
            PacketType::PubRec => Packet::PubRec(ack),
            _ => Packet::PubAck(ack),
        });
    }

    fn refuse_publish(&mut self, answer: PacketType, packet_id: u16, refusal: &Refusal) {
        if self.is_v5() {
            // [MQTT-4.3.3-9]: an error in PUBREC ends the exchange.
            self.received.incomplete.remove(packet_id);
            let reason = ReasonCode::of_refusal(refusal, answer);
            let properties = reason_string(&refusal.to_string());
            self.answer_publish(answer, Ack { packet_id, reason, properties });
            return;
        }
        match refusal {
            // 3.1.1 [MQTT-3.3.5-2]: acknowledge or close; a client that may not publish would only come back.
            Refusal::NotAuthorized | Refusal::Forbidden(_) | Refusal::BadTopic(_) => {
                self.answer_publish(answer, Ack::new(packet_id, ReasonCode::SUCCESS));
            }
            // An acknowledgement would claim that the message is safe: 3.1.1 [MQTT-4.8.0-2].
            _ => self.end_by(refusal),
        }
    }

    pub(super) fn handle_pubrel(&mut self, ack: &Ack) -> Handled {
        let packet_id = ack.packet_id;
        self.ask(RELEASE, packet_id, Request::Release { packet_id });
        Ok(())
    }

    pub(super) fn handle_release_reply(&mut self, packet_id: u16, reply: Reply) {
        self.note_answer();
        match reply {
            // [MQTT-4.3.3-11]
            Reply::Released { known, .. } => {
                self.received.incomplete.remove(packet_id);
                // 3.x has no word for an unknown one.
                let reason =
                    if known { ReasonCode::SUCCESS } else { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND };
                self.send(Packet::PubComp(Ack::new(packet_id, reason)));
            }
            Reply::Refused(refusal) => self.end_by(&refusal),
            _ => self.end_by(&Refusal::Internal),
        }
    }
}

pub(super) const NOT_THE_TEXT_IT_SAYS: &str = "the payload is not UTF-8, as its format indicator says";

/// Whether the payload is what the Payload Format Indicator says.
pub(super) fn is_the_text_it_says(publication: &Publication) -> bool {
    !publication.is_text || simdutf8::basic::from_utf8(&publication.payload).is_ok()
}

/// A publication of what a client said; QoS, RETAIN, expiry and a look at the payload are the caller's.
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

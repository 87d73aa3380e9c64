//! CONNECT and CONNACK: who the client is, what it can take, and what it is told of this server.
//!
//! Spec: OASIS MQTT 5.0 §3.1, §3.2; 3.1.1 §3.1, §3.2; MQTT 3.1 §3.1.

use std::time::Duration;

use super::publish::publication;
use super::{CONNECT, End, Handled, MqttSession, Phase, reason_string};
use crate::mqtt::forms;
use crate::mqtt::packet::{self, ConnAck, Packet, PacketType, Properties, ReasonCode, Version};
use crate::publication::QoS;
use crate::session::{
    CloseReason, Connect, Connected, Credentials, LagNotice, Refusal, Reply, Request, Will,
};

/// Between CONNECT and the broker's answer: what CONNACK has to repeat or correct.
pub(super) struct Connecting {
    session_expiry: Duration,
    server_keep_alive_s: Option<u16>,
}

impl MqttSession {
    pub(super) fn handle_connect(&mut self, connect: packet::Connect) -> Handled {
        let properties = connect.properties.as_deref();
        self.learn_limits(&connect);
        self.check_connect(&connect)?;
        let session_expiry = session_expiry(&connect);
        self.client.has_no_expiry = session_expiry.is_zero();
        let server_keep_alive_s = self.set_keep_alive(connect.version, connect.keep_alive_s);
        let packet_bytes_max = properties.and_then(|properties| properties.maximum_packet_size);
        let will = connect.will.map(|will| self.will(will)).transpose()?;
        let credentials = credentials(connect.user_name, connect.password, self.bearer.take());
        let request = Connect {
            client_id: (!connect.client_id.is_empty()).then_some(connect.client_id),
            clean_start: connect.clean_start,
            session_expiry: Some(session_expiry),
            subscriptions_max: self.settings.subscriptions_max,
            forms: Some(forms::of_version(connect.version)),
            credentials,
            will,
            packet_bytes_max: packet_bytes_max.and_then(|bytes| usize::try_from(bytes).ok()),
            lag: if connect.version == Version::V5 { LagNotice::WithNext } else { LagNotice::Silent },
        };
        self.phase = Phase::Connecting(Box::new(Connecting { session_expiry, server_keep_alive_s }));
        self.request(CONNECT, Request::Connect(Box::new(request)));
        Ok(())
    }

    /// What CONNACK has to keep to already.
    fn learn_limits(&mut self, connect: &packet::Connect) {
        let Some(properties) = &connect.properties else { return };
        if let Some(bytes) = properties.maximum_packet_size {
            self.client.packet_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        self.client.receive_maximum = properties.receive_maximum.unwrap_or(u16::MAX);
        self.client.wants_problems = properties.request_problem_information.unwrap_or(true);
    }

    fn check_connect(&self, connect: &packet::Connect) -> Handled {
        if !self.settings.versions.contains(connect.version) {
            let (_, level) = connect.version.name_and_level();
            let detail = format!("protocol level {level} is not enabled on this server");
            return Err(End::new(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, detail));
        }
        let id = &connect.client_id;
        if id.len() > self.settings.client_id_bytes_max {
            let detail = format!("the client id has more than {} bytes", self.settings.client_id_bytes_max);
            return Err(End::new(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, detail));
        }
        let needs_id = match connect.version {
            Version::V3_1 => true,
            Version::V3_1_1 => !connect.clean_start, // [MQTT-3.1.3-8]
            Version::V5 => false,                    // [MQTT-3.1.3-6]
        };
        if needs_id && id.is_empty() {
            return Err(End::new(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, "an empty client id"));
        }
        if connect.properties.as_ref().is_some_and(|properties| properties.authentication_method.is_some()) {
            let detail = "enhanced authentication is not supported"; // [MQTT-4.12.0-1]
            return Err(End::new(ReasonCode::BAD_AUTHENTICATION_METHOD, detail));
        }
        match &connect.will {
            Some(will) if will.qos > self.settings.max_qos => {
                Err(End::new(ReasonCode::QOS_NOT_SUPPORTED, "the will's QoS is above the maximum")) // [MQTT-3.2.2-12]
            }
            Some(will) if will.retain && !self.settings.is_retain_available => {
                Err(End::new(ReasonCode::RETAIN_NOT_SUPPORTED, "the will is to be retained")) // [MQTT-3.2.2-13]
            }
            _ => Ok(()),
        }
    }

    fn will(&self, will: packet::Will) -> Result<Box<Will>, End> {
        let properties = will.properties.as_deref();
        let seconds = |value: Option<u32>| value.map(|seconds| Duration::from_secs(seconds.into()));
        let delay = seconds(properties.and_then(|properties| properties.will_delay_interval_s));
        let expiry = seconds(properties.and_then(|properties| properties.message_expiry_interval_s));
        let limits = &self.settings.topic_limits;
        let mut publication = publication(will.topic, will.payload, will.properties, limits)?;
        publication.qos = will.qos;
        publication.retain = will.retain;
        Ok(Box::new(Will { publication, delay: delay.unwrap_or_default(), expiry }))
    }

    /// Returns the Server Keep Alive to announce (§3.2.2.3.14). A 3.x client cannot be told: it is held to the
    /// lower one, and may turn the mechanism off, since WebSocket pings watch over it too.
    fn set_keep_alive(&mut self, version: Version, asked_s: u16) -> Option<u16> {
        let max_s = self.settings.keepalive_max.map(|max| u16::try_from(max.as_secs()).unwrap_or(u16::MAX));
        let is_off = asked_s == 0;
        let effective_s = match max_s {
            Some(max_s) if is_off && version == Version::V5 => max_s,
            Some(max_s) => asked_s.min(max_s),
            None => asked_s,
        };
        // [MQTT-3.1.2-22]
        let silence_s = f64::from(effective_s) * self.settings.keepalive_multiplier;
        self.silence_max = (effective_s > 0).then(|| Duration::try_from_secs_f64(silence_s).ok()).flatten();
        (version == Version::V5 && effective_s != asked_s).then_some(effective_s)
    }

    pub(super) fn handle_connect_reply(&mut self, connecting: Connecting, reply: Reply) {
        match reply {
            Reply::Connected(connected) => self.accept(&connecting, &connected),
            Reply::Refused(refusal) => self.refuse(&refusal),
            _ => self.refuse(&Refusal::Internal),
        }
    }

    fn accept(&mut self, connecting: &Connecting, connected: &Connected) {
        self.last_packet = self.now;
        self.codec.limits.packet_bytes_max = self.settings.packet_bytes_max;
        let properties = self.is_v5().then(|| self.announcement(connecting, connected));
        self.send(Packet::ConnAck(ConnAck {
            session_present: connected.session_present,
            reason: ReasonCode::SUCCESS,
            properties,
        }));
    }

    /// What this server does and does not (§3.2.2.3). Absent: available, or no limit.
    fn announcement(&self, connecting: &Connecting, connected: &Connected) -> Box<Properties> {
        let settings = &self.settings;
        let granted_s = u32::try_from(connected.session_expiry.as_secs()).unwrap_or(u32::MAX);
        Box::new(Properties {
            session_expiry_interval_s: (connected.session_expiry != connecting.session_expiry)
                .then_some(granted_s),
            receive_maximum: Some(settings.receive_maximum),
            maximum_qos: (settings.max_qos < QoS::ExactlyOnce)
                .then_some(settings.max_qos == QoS::AtLeastOnce), // [MQTT-3.2.2-9]
            retain_available: (!settings.is_retain_available).then_some(false),
            maximum_packet_size: u32::try_from(settings.packet_bytes_max).ok(),
            assigned_client_identifier: connected.is_assigned.then(|| Box::from(&*connected.client_id)), // [MQTT-3.2.2-16]
            topic_alias_maximum: (settings.topic_alias_maximum > 0).then_some(settings.topic_alias_maximum),
            shared_subscription_available: Some(false),
            server_keep_alive_s: connecting.server_keep_alive_s,
            ..Properties::default()
        })
    }

    /// The broker said no.
    fn refuse(&mut self, refusal: &Refusal) {
        let reason = ReasonCode::of_refusal(refusal, PacketType::ConnAck);
        let detail = refusal.to_string();
        self.send_connack_refusal(reason, &detail);
        self.close(CloseReason::new(reason.close_kind(), detail));
    }

    /// [MQTT-3.2.2-6]: Session Present is 0 in a refusal.
    pub(super) fn send_connack_refusal(&mut self, reason: ReasonCode, detail: &str) {
        let properties = if self.is_v5() { reason_string(detail) } else { None };
        self.send(Packet::ConnAck(ConnAck { session_present: false, reason, properties }));
    }

    /// An end before the broker was asked. MQTT 5 has a CONNACK for most of them; 3.x only for the version and
    /// the client id, everything else is a plain close [MQTT-3.1.4-1].
    pub(super) fn refuse_unconnected(&mut self, reason: ReasonCode, detail: &str) {
        let is_said = if self.is_v5() {
            reason.is_allowed_in(PacketType::ConnAck)
        } else {
            matches!(
                reason,
                ReasonCode::UNSUPPORTED_PROTOCOL_VERSION | ReasonCode::CLIENT_IDENTIFIER_NOT_VALID
            )
        };
        if is_said {
            self.send_connack_refusal(reason, detail);
        }
    }

    /// A later version is answered in the form of the latest that is known; the levels with the top bit, which
    /// bridges try first, are of 3.x.
    pub(super) fn answer_as_the_version_asked_for(&mut self, level: u8) {
        if (6..0x80).contains(&level) {
            self.codec.answer_as(Version::V5);
        }
    }
}

/// In 3.x a session that is not clean has no end of its own.
fn session_expiry(connect: &packet::Connect) -> Duration {
    let seconds = match connect.version {
        Version::V5 => connect
            .properties
            .as_ref()
            .and_then(|properties| properties.session_expiry_interval_s)
            .unwrap_or(0),
        _ if connect.clean_start => 0,
        _ => u32::MAX,
    };
    Duration::from_secs(seconds.into())
}

fn credentials(
    user_name: Option<Box<str>>,
    password: Option<bytes::Bytes>,
    bearer: Option<Box<str>>,
) -> Option<Credentials> {
    if user_name.is_none() && password.is_none() {
        return bearer.map(Credentials::Token);
    }
    Some(Credentials::Password { user: user_name.unwrap_or_default(), password })
}

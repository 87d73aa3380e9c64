//! CONNECT and CONNACK: who the client is, what it can take, and what it is told of this server.
//!
//! Spec: OASIS MQTT 5.0 §3.1, §3.2; 3.1.1 §3.1, §3.2; MQTT 3.1 §3.1.

use std::time::Duration;

use super::auth::Authentication;
use super::publish::{NOT_THE_TEXT_IT_SAYS, is_the_text_it_says, publication};
use super::send::reason_string;
use super::{CONNECT, End, Handled, MqttSession, Phase};
use crate::mqtt::aliases::ServerAliases;
use crate::mqtt::forms;
use crate::mqtt::packet::{self, ConnAck, Packet, PacketType, Properties, ReasonCode, Version};
use crate::publication::QoS;
use crate::session::{
    CloseReason, Connect, Connected, Credentials, LagNotice, Refusal, Reply, Request, Will,
};
use crate::topic::Topic;

/// Between CONNECT and CONNACK: what CONNACK has to repeat or correct.
pub(super) struct Connecting {
    /// As the standard reads what the client said.
    session_expiry: Duration,
    server_keep_alive_s: Option<u16>,
    /// Request Response Information.
    wants_response_information: bool,
}

impl MqttSession {
    pub(super) fn handle_connect(&mut self, mut connect: packet::Connect) -> Handled {
        self.learn_limits(&connect);
        self.check_connect(&connect)?;
        let properties = connect.properties.take().map(|properties| *properties).unwrap_or_default();
        let session_expiry = session_expiry(&connect, &properties);
        self.client.has_no_expiry = session_expiry.unwrap_or_default().is_zero();
        let connecting = Connecting {
            session_expiry: session_expiry.unwrap_or_default(), // §3.1.2.11.2
            server_keep_alive_s: self.set_keep_alive(connect.version, connect.keep_alive_s),
            wants_response_information: properties.request_response_information == Some(true),
        };
        let will = connect.will.map(|will| self.will(will)).transpose()?;
        let packet_bytes_max = properties.maximum_packet_size.and_then(|bytes| usize::try_from(bytes).ok());
        let credentials = match properties.authentication_method {
            // What else proves an identity is left to the exchange.
            Some(method) => {
                self.authentication = Some(Box::new(Authentication::new(method.clone())));
                let data = properties.authentication_data.unwrap_or_default();
                Some(Credentials::Exchange { method, data })
            }
            None => credentials(connect.user_name, connect.password, self.bearer.take()),
        };
        let request = Connect {
            client_id: (!connect.client_id.is_empty()).then_some(connect.client_id),
            clean_start: connect.clean_start,
            session_expiry,
            subscriptions_max: self.settings.subscriptions_max,
            forms: self.shared_forms(),
            credentials,
            will,
            packet_bytes_max,
            lag: if connect.version == Version::V5 { LagNotice::WithNext } else { LagNotice::Silent },
        };
        self.phase = Phase::Connecting(Box::new(connecting));
        self.request(CONNECT, Request::Connect(Box::new(request)));
        Ok(())
    }

    /// A client that takes topic aliases is to have them at QoS 0 too, and these are its own.
    pub(super) fn shared_forms(&self) -> Option<&'static crate::session::Forms> {
        let version = self.codec.version().unwrap_or(Version::V3_1_1);
        self.aliases.is_none().then(|| forms::of_version(version))
    }

    /// What CONNACK has to keep to already.
    fn learn_limits(&mut self, connect: &packet::Connect) {
        let Some(properties) = &connect.properties else { return };
        if let Some(bytes) = properties.maximum_packet_size {
            self.client.packet_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        self.client.receive_maximum = properties.receive_maximum.unwrap_or(u16::MAX);
        self.client.wants_problems = properties.request_problem_information.unwrap_or(true);
        // [MQTT-3.1.2-26]; absent or 0: none [MQTT-3.1.2-27].
        let aliases = properties.topic_alias_maximum.unwrap_or(0).min(self.settings.topic_alias_maximum);
        self.aliases = (aliases > 0).then(|| Box::new(ServerAliases::new(aliases)));
    }

    fn check_connect(&self, connect: &packet::Connect) -> Handled {
        if !self.settings.versions.contains(connect.version) {
            let (_, level) = connect.version.name_and_level();
            let detail = format!("protocol level {level} is not enabled on this server");
            return Err(End::new(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, detail));
        }
        let id = &connect.client_id;
        if id.len() > self.settings.client_id_bytes_max {
            // [MQTT-3.1.3-8]; the limit is above the 23 bytes that have to pass [MQTT-3.1.3-5].
            let detail = format!("the client id has more than {} bytes", self.settings.client_id_bytes_max);
            return Err(End::new(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, detail));
        }
        let needs_id = match connect.version {
            Version::V3_1 => true,
            Version::V3_1_1 => !connect.clean_start, // 3.1.1 [MQTT-3.1.3-7], 3.1.1 [MQTT-3.1.3-8]
            Version::V5 => false,                    // [MQTT-3.1.3-6]
        };
        if needs_id && id.is_empty() {
            return Err(End::new(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, "an empty client id"));
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
        if !is_the_text_it_says(&publication) {
            return Err(End::new(ReasonCode::PAYLOAD_FORMAT_INVALID, NOT_THE_TEXT_IT_SAYS)); // §3.1.3.2.3
        }
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
        // [MQTT-3.1.2-22], [MQTT-3.2.2-22]
        let silence_s = f64::from(effective_s) * self.settings.keepalive_multiplier;
        self.silence_max = (effective_s > 0).then(|| Duration::try_from_secs_f64(silence_s).ok()).flatten();
        (version == Version::V5 && effective_s != asked_s).then_some(effective_s)
    }

    pub(super) fn handle_connect_reply(&mut self, connecting: Box<Connecting>, reply: Reply) {
        match reply {
            Reply::Connected(connected) => self.accept(&connecting, *connected),
            Reply::Challenge(data) if self.authentication.is_some() => {
                self.phase = Phase::Challenged(connecting);
                self.send_auth(ReasonCode::CONTINUE_AUTHENTICATION, data);
            }
            Reply::Refused(refusal) => self.refuse(&refusal),
            _ => self.refuse(&Refusal::Internal),
        }
    }

    /// CONNACK comes once, and before everything but AUTH [MQTT-3.1.4-5], [MQTT-3.2.0-1], [MQTT-3.2.0-2].
    fn accept(&mut self, connecting: &Connecting, mut connected: Connected) {
        self.last_packet = self.now;
        self.codec.limits.packet_bytes_max = self.settings.packet_bytes_max;
        // One that the server gave by itself may be changed at the end.
        self.client.has_no_expiry &= connected.session_expiry.is_zero();
        let properties = self.is_v5().then(|| self.announcement(connecting, &mut connected));
        self.send(Packet::ConnAck(ConnAck {
            session_present: connected.session_present, // [MQTT-3.2.2-2], [MQTT-3.2.2-3]
            reason: ReasonCode::SUCCESS,
            properties,
        }));
        if connected.session_present {
            self.resume(connected.in_flight);
        }
    }

    /// What this server does and does not (§3.2.2.3). Absent: available, or no limit.
    fn announcement(&self, connecting: &Connecting, connected: &mut Connected) -> Box<Properties> {
        let settings = &self.settings;
        let authentication_data = std::mem::take(&mut connected.authentication_data);
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
            server_keep_alive_s: connecting.server_keep_alive_s, // [MQTT-3.2.2-21]
            authentication_method: self
                .authentication
                .as_ref()
                .map(|authentication| authentication.method.clone()), // [MQTT-4.12.0-5]
            authentication_data: (!authentication_data.is_empty()).then_some(authentication_data),
            response_information: connecting
                .wants_response_information // [MQTT-3.1.2-28]
                .then(|| self.response_information(&connected.client_id))
                .flatten(),
            ..Properties::default()
        })
    }

    /// The client makes a topic name of it, so it is none that could not be the beginning of one.
    fn response_information(&self, client_id: &str) -> Option<Box<str>> {
        let prefix = self.settings.response_information.as_deref()?;
        let information = format!("{prefix}{client_id}");
        Topic::parse(&information, &self.settings.topic_limits).ok()?;
        Some(information.into())
    }

    /// The broker said no [MQTT-3.2.2-7], [MQTT-3.2.2-8], [MQTT-4.12.0-1], [MQTT-4.12.0-4].
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
    /// the client id, everything else is a plain close [MQTT-3.1.4-1], 3.1.1 [MQTT-3.1.4-1], 3.1.1
    /// [MQTT-3.2.2-6].
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

/// `None` where it is left to the server. In 3.x a session that is not clean has no end of its own.
fn session_expiry(connect: &packet::Connect, properties: &Properties) -> Option<Duration> {
    let seconds = match connect.version {
        Version::V5 => properties.session_expiry_interval_s?,
        _ if connect.clean_start => 0,
        _ => u32::MAX,
    };
    Some(Duration::from_secs(seconds.into()))
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

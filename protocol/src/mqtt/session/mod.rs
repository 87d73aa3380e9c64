//! One MQTT client's state: what it may send when, and what it is told.
//!
//! ```text
//!                            Challenged
//!                   Challenge ▲    │ AUTH
//!                             │    ▼
//!  AwaitingConnect ─CONNECT─▶ Connecting ─Connected─▶ Online ─DISCONNECT, error, close─▶ Closed
//!        │ timeout, error          │ Refused           │  ▲
//!        ▼                         ▼         SUBSCRIBE ▼  │ Subscribed, Unsubscribed
//!      Closed                    Closed        Subscribing, Unsubscribing
//! ```
//!
//! Packets are decoded one at a time, as outputs are polled, so a message full of small packets never becomes a
//! queue of requests. Knows no socket and no clock. Spec: OASIS MQTT 5.0 §3, §4, §6.

mod acknowledge;
mod auth;
mod connect;
mod deliver;
mod end;
mod publish;
mod resume;
mod send;
mod subscribe;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::auth::Authentication;
use self::connect::Connecting;
use self::end::End;
use self::publish::Received;
use self::resume::Resends;
use self::subscribe::{Subscribing, Unsubscribing};
use super::Settings;
use super::aliases::ServerAliases;
use super::codec::{Codec, DecodeError, Limits};
use super::in_flight::InFlight;
use super::input::Input;
use super::packet::{Packet, PacketType, ReasonCode, Version};
use crate::session::{
    CloseKind, CloseReason, Delivery, Lag, Output, Reading, Reply, Request, Session, Token, Wants,
};
use crate::websocket::Message;

pub(super) struct MqttSession {
    settings: Arc<Settings>,
    codec: Codec,
    phase: Phase,
    input: Input,
    outputs: VecDeque<Output>,
    /// Of the latest input: packets are decoded after the call that brought them.
    now: Instant,
    /// The opening; once connected, the latest whole packet (SEC-6).
    last_packet: Instant,
    is_reading: bool,
    /// Keep Alive times the multiplier.
    silence_max: Option<Duration>,
    bearer: Option<Box<str>>,
    client: ClientLimits,
    /// Only with a method in CONNECT.
    authentication: Option<Box<Authentication>>,
    received: Received,
    in_flight: InFlight,
    /// Only until everything of an earlier connection is sent again.
    resends: Option<Box<Resends>>,
    /// Only for a client that takes some.
    aliases: Option<Box<ServerAliases>>,
    lag: Option<Box<Lag>>,
}

/// See the diagram above.
enum Phase {
    AwaitingConnect,
    /// The broker has CONNECT, or a further word of the exchange that CONNECT began.
    Connecting(Box<Connecting>),
    /// The client is to send the next word of the exchange.
    Challenged(Box<Connecting>),
    Online,
    Subscribing(Box<Subscribing>),
    Unsubscribing(Box<Unsubscribing>),
    Closed,
}

/// What CONNECT said about the client.
struct ClientLimits {
    packet_bytes_max: usize,
    /// Its Receive Maximum.
    receive_maximum: u16,
    /// Request Problem Information.
    wants_problems: bool,
    /// Its session ends with the connection, and it may not change that at the end.
    has_no_expiry: bool,
}

type Handled = Result<(), End>;

/// The tokens of requests. Those that belong to an exchange of packets hold its packet identifier in their lower
/// half, and their kind in the upper one.
const IGNORED: Token = Token(0);
const CONNECT: Token = Token(1);
const SUBSCRIBE: Token = Token(2);
const UNSUBSCRIBE: Token = Token(3);
const AUTHENTICATE: Token = Token(4);
const PUBLISH_QOS1: u32 = 0x1_0000;
const PUBLISH_QOS2: u32 = 0x2_0000;
const RELEASE: u32 = 0x3_0000;
const RECEIVED: u32 = 0x4_0000;
/// Of publishes whose payload is not the text that they say.
const NO_TEXT_QOS1: u32 = 0x5_0000;
const NO_TEXT_QOS2: u32 = 0x6_0000;

impl MqttSession {
    pub(super) fn new(bearer: Option<Box<str>>, settings: Arc<Settings>, now: Instant) -> Self {
        let limits = Limits {
            packet_bytes_max: settings.packet_bytes_max_preauth.min(settings.packet_bytes_max), // SEC-5
            topic: settings.topic_limits,
            user_properties_max: settings.user_properties_max,
            filters_max: settings.filters_max,
        };
        Self {
            settings,
            codec: Codec::server(limits),
            phase: Phase::AwaitingConnect,
            input: Input::default(),
            outputs: VecDeque::new(),
            now,
            last_packet: now,
            is_reading: true,
            silence_max: None,
            bearer,
            client: ClientLimits {
                packet_bytes_max: usize::MAX,
                receive_maximum: u16::MAX,
                wants_problems: true,
                has_no_expiry: false,
            },
            authentication: None,
            received: Received::default(),
            in_flight: InFlight::default(),
            resends: None,
            aliases: None,
            lag: None,
        }
    }

    fn is_v5(&self) -> bool {
        self.codec.version() == Some(Version::V5)
    }

    /// CONNACK has said yes, and the end has not come.
    const fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Online | Phase::Subscribing(_) | Phase::Unsubscribing(_))
    }

    /// Whether the next packet may be decoded.
    fn takes_packets(&self) -> bool {
        match self.phase {
            Phase::AwaitingConnect | Phase::Challenged(_) => true,
            Phase::Online => !self.brakes(),
            Phase::Connecting(_) | Phase::Subscribing(_) | Phase::Unsubscribing(_) | Phase::Closed => false,
        }
    }

    /// Decodes and handles one packet; `false` when there is none.
    fn step(&mut self) -> bool {
        if !self.takes_packets() || self.input.is_drained() {
            return false;
        }
        let handled = match self.input.next(&mut self.codec) {
            Ok(None) => return false,
            Ok(Some(packet)) => {
                if self.is_connected() {
                    self.last_packet = self.now;
                }
                self.handle_packet(packet)
            }
            Err(error) => {
                if let DecodeError::UnsupportedVersion { level } = error {
                    self.answer_as_the_version_asked_for(level);
                }
                Err(error.into())
            }
        };
        if let Err(end) = handled {
            self.end(end);
        }
        true
    }

    fn handle_packet(&mut self, packet: Packet) -> Handled {
        match (&self.phase, packet) {
            (Phase::AwaitingConnect, Packet::Connect(connect)) => self.handle_connect(*connect),
            (Phase::AwaitingConnect, _) => {
                Err(End::new(ReasonCode::PROTOCOL_ERROR, "the first packet is not CONNECT [MQTT-3.1.0-1]"))
            }
            (_, Packet::Connect(_)) => {
                Err(End::new(ReasonCode::PROTOCOL_ERROR, "a second CONNECT [MQTT-3.1.0-2]"))
            }
            (_, Packet::Disconnect(disconnect)) => self.handle_disconnect(&disconnect),
            (_, Packet::Auth(auth)) => self.handle_auth(auth),
            (Phase::Challenged(_), _) => {
                let detail = "neither AUTH nor DISCONNECT before CONNACK [MQTT-3.1.2-30]";
                Err(End::new(ReasonCode::PROTOCOL_ERROR, detail))
            }
            (_, Packet::Publish(publish)) => self.handle_publish(publish),
            (_, Packet::PubAck(ack)) => self.handle_puback(&ack),
            (_, Packet::PubRec(ack)) => self.handle_pubrec(&ack),
            (_, Packet::PubRel(ack)) => self.handle_pubrel(&ack),
            (_, Packet::PubComp(ack)) => self.handle_pubcomp(&ack),
            (_, Packet::Subscribe(subscribe)) => self.handle_subscribe(subscribe),
            (_, Packet::Unsubscribe(unsubscribe)) => self.handle_unsubscribe(&unsubscribe),
            (_, Packet::PingReq) => {
                self.send(Packet::PingResp); // [MQTT-3.12.4-1]
                Ok(())
            }
            (_, Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp) => {
                Err(End::new(ReasonCode::PROTOCOL_ERROR, "a packet that only a server may send"))
            }
        }
    }

    /// The answer to a request of an exchange of packets.
    fn handle_exchange_reply(&mut self, token: Token, reply: Reply) {
        let [.., high, low] = token.0.to_be_bytes();
        let packet_id = u16::from_be_bytes([high, low]);
        match token.0 & !0xFFFF {
            PUBLISH_QOS1 => self.handle_publish_reply(PacketType::PubAck, packet_id, reply),
            PUBLISH_QOS2 => self.handle_publish_reply(PacketType::PubRec, packet_id, reply),
            RELEASE => self.handle_release_reply(packet_id, reply),
            RECEIVED => self.handle_received_reply(packet_id, reply),
            NO_TEXT_QOS1 => self.handle_refused_format(PacketType::PubAck, packet_id),
            NO_TEXT_QOS2 => self.handle_refused_format(PacketType::PubRec, packet_id),
            // QoS 0: there is nothing to tell, and the broker has counted what it refused.
            _ => {}
        }
    }

    fn request(&mut self, token: Token, request: Request) {
        self.outputs.push_back(Output::Request(token, request));
    }

    /// When the client has been silent for too long, if nothing comes.
    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            // SEC-6: an exchange does not prolong it.
            Phase::AwaitingConnect | Phase::Challenged(_) => {
                self.last_packet.checked_add(self.settings.connect_timeout)
            }
            Phase::Connecting(_) | Phase::Closed => None,
            Phase::Online | Phase::Subscribing(_) | Phase::Unsubscribing(_) => {
                if !self.is_reading {
                    return None;
                }
                self.silence_max.and_then(|silence| self.last_packet.checked_add(silence))
            }
        }
    }

    /// Deliveries that may be in flight.
    fn window(&self) -> usize {
        usize::from(self.client.receive_maximum.min(self.settings.max_inflight)) // [MQTT-3.3.4-9]
    }
}

impl Session for MqttSession {
    fn handle_message(&mut self, message: Message, now: Instant) {
        self.now = now;
        match message {
            _ if matches!(self.phase, Phase::Closed) => {}
            Message::Binary(bytes) => self.input.push(bytes),
            // [MQTT-6.0.0-1]
            Message::Text(_) => {
                self.handle_close(
                    CloseReason::new(CloseKind::UnsupportedData, "MQTT needs binary frames"),
                    now,
                );
            }
        }
    }

    fn handle_reply(&mut self, token: Token, reply: Reply, now: Instant) {
        self.now = now;
        match (std::mem::replace(&mut self.phase, Phase::Online), token) {
            (Phase::Closed, _) => self.phase = Phase::Closed,
            (Phase::Connecting(connecting), CONNECT) => self.handle_connect_reply(connecting, reply),
            (Phase::Subscribing(subscribing), SUBSCRIBE) => self.handle_subscribe_reply(*subscribing, reply),
            (Phase::Unsubscribing(unsubscribing), UNSUBSCRIBE) => {
                self.handle_unsubscribe_reply(*unsubscribing, reply);
            }
            (phase, AUTHENTICATE) => {
                self.phase = phase;
                self.handle_reauthenticate_reply(reply);
            }
            (phase, token) => {
                self.phase = phase;
                self.handle_exchange_reply(token, reply);
            }
        }
    }

    fn handle_delivery(&mut self, delivery: Delivery, now: Instant) {
        self.now = now;
        if !matches!(self.phase, Phase::Closed) {
            self.deliver(&delivery);
        }
    }

    fn handle_lag(&mut self, lag: Lag, now: Instant) {
        self.now = now;
        let told = self.lag.get_or_insert_default();
        told.dropped = told.dropped.saturating_add(lag.dropped);
        told.conflated = told.conflated.saturating_add(lag.conflated);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let reason = match self.phase {
            Phase::AwaitingConnect => CloseReason::new(CloseKind::AuthTimeout, "no CONNECT in time"),
            Phase::Challenged(_) => CloseReason::new(CloseKind::AuthTimeout, "no AUTH in time"),
            _ => {
                let detail = "no packet within the keep alive time [MQTT-3.1.2-22]";
                CloseReason::new(CloseKind::PingTimeout, detail)
            }
        };
        self.handle_close(reason, now);
    }

    fn handle_reading(&mut self, reading: Reading, now: Instant) {
        self.now = now;
        self.is_reading = reading == Reading::Resumed;
        if self.is_reading && self.is_connected() {
            self.last_packet = now;
        }
    }

    fn handle_pong(&mut self, now: Instant) {
        self.now = now;
        if self.settings.pong_counts_as_alive && self.is_connected() {
            self.last_packet = now;
        }
    }

    fn handle_close(&mut self, reason: CloseReason, now: Instant) {
        self.now = now;
        match self.phase {
            Phase::Closed => return,
            Phase::AwaitingConnect => {}
            // [MQTT-3.14.0-1]: no DISCONNECT before a successful CONNACK.
            Phase::Connecting(_) | Phase::Challenged(_) => {
                let is_slow = reason.kind == CloseKind::AuthTimeout;
                let code = if is_slow { ReasonCode::NOT_AUTHORIZED } else { ReasonCode::SERVER_UNAVAILABLE };
                self.send_connack_refusal(code, &reason.detail);
            }
            _ => self.send_disconnect(ReasonCode::of_close(reason.kind), &reason.detail),
        }
        self.close(reason);
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if !self.step() {
                // An idle session keeps no queue; one with deliveries in flight would make it anew for each.
                if self.in_flight.len() == 0 {
                    self.outputs = VecDeque::new();
                }
                return None;
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline()
    }

    fn wants(&self) -> Wants {
        // A full window holds back nothing but deliveries above QoS 0 [MQTT-4.9.0-3].
        let is_connected = self.is_connected();
        Wants {
            input: self.takes_packets() && self.input.is_drained(),
            qos0: is_connected,
            // [MQTT-4.9.0-2]; and what was sent before goes before what was not [MQTT-4.6.0-1].
            acked: match &self.resends {
                None if is_connected => self.window().saturating_sub(self.in_flight.len()), // [MQTT-4.9.0-2]
                _ => 0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seventh of the 3 KiB that an idle MQTT connection may cost.
    #[test]
    fn a_session_is_small() {
        let session = size_of::<MqttSession>();
        assert!(session <= 438, "{session} bytes");
    }
}

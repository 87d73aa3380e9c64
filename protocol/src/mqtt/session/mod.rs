//! One MQTT client's state: what it may send when, and what it is told.
//!
//! ```text
//!  AwaitingConnect ─CONNECT─▶ Connecting ─Connected─▶ Online ─DISCONNECT, error, close─▶ Closed
//!        │ timeout, error          │ Refused           │  ▲
//!        ▼                         ▼         SUBSCRIBE ▼  │ Subscribed, Unsubscribed
//!      Closed                    Closed        Subscribing, Unsubscribing
//! ```
//!
//! Packets are decoded one at a time, as outputs are polled, so a message full of small packets never becomes a
//! queue of requests. Knows no socket and no clock. Spec: OASIS MQTT 5.0 §3, §4, §6.

mod connect;
mod deliver;
mod publish;
mod subscribe;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::connect::Connecting;
use self::publish::Aliases;
use self::subscribe::{Subscribing, Unsubscribing};
use super::Settings;
use super::codec::{Codec, DecodeError, Limits};
use super::in_flight::InFlight;
use super::input::Input;
use super::packet::{Disconnect, Packet, PacketType, Properties, ReasonCode, Version};
use crate::session::{
    CloseKind, CloseReason, DataLane, Delivery, Lag, Outgoing, Output, Reading, Reply, Request, Session,
    Token, Wants, WillFate,
};
use crate::websocket::{Message, MessageKind};

pub(super) struct MqttSession {
    settings: Settings,
    codec: Codec,
    phase: Phase,
    input: Input,
    outputs: VecDeque<Output>,
    /// Of the latest input: packets are decoded after the call that brought them.
    now: Instant,
    /// The opening, then the latest whole packet (SEC-6).
    last_packet: Instant,
    is_reading: bool,
    /// Keep Alive times the multiplier.
    silence_max: Option<Duration>,
    bearer: Option<Box<str>>,
    client: ClientLimits,
    /// Publishes that wait for their PUBACK.
    outstanding: u16,
    aliases: Aliases,
    in_flight: InFlight,
    lag: Option<Box<Lag>>,
}

/// See the diagram above.
enum Phase {
    AwaitingConnect,
    Connecting(Box<Connecting>),
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
    /// It asked for no session beyond the connection, and may not change that at the end.
    has_no_expiry: bool,
}

/// Why a session ends by its own decision.
#[derive(Debug)]
struct End {
    reason: ReasonCode,
    detail: Cow<'static, str>,
}

impl End {
    fn new(reason: ReasonCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        Self { reason: error.reason(), detail: error.to_string().into() }
    }
}

type Handled = Result<(), End>;

/// The tokens of requests; one of a QoS 1 publish holds its packet identifier.
const IGNORED: Token = Token(0);
const CONNECT: Token = Token(1);
const SUBSCRIBE: Token = Token(2);
const UNSUBSCRIBE: Token = Token(3);

impl MqttSession {
    pub(super) fn new(bearer: Option<Box<str>>, settings: Settings, now: Instant) -> Self {
        let limits = Limits {
            packet_bytes_max: settings.packet_bytes_max_preauth.min(settings.packet_bytes_max), // SEC-5
            topic: settings.topic_limits,
            user_properties_max: settings.user_properties_max,
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
            outstanding: 0,
            aliases: Aliases::default(),
            in_flight: InFlight::default(),
            lag: None,
        }
    }

    fn is_v5(&self) -> bool {
        self.codec.version() == Some(Version::V5)
    }

    /// Whether the next packet may be decoded.
    fn takes_packets(&self) -> bool {
        match self.phase {
            Phase::AwaitingConnect => true,
            // 3.x knows no Receive Maximum: it is slowed down instead.
            Phase::Online => self.is_v5() || self.outstanding < self.settings.receive_maximum,
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
                if !matches!(self.phase, Phase::AwaitingConnect) {
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
            (_, Packet::Publish(publish)) => self.handle_publish(publish),
            (_, Packet::PubAck(ack)) => self.handle_puback(&ack),
            (_, Packet::PubRec(ack)) => self.handle_pubrec(&ack),
            (_, Packet::PubRel(ack)) => self.handle_pubrel(&ack),
            (_, Packet::PubComp(ack)) => self.handle_pubcomp(&ack),
            (_, Packet::Subscribe(subscribe)) => self.handle_subscribe(subscribe),
            (_, Packet::Unsubscribe(unsubscribe)) => self.handle_unsubscribe(unsubscribe),
            (_, Packet::PingReq) => {
                self.send(Packet::PingResp); // [MQTT-3.12.4-1]
                Ok(())
            }
            (_, Packet::Disconnect(disconnect)) => self.handle_disconnect(&disconnect),
            (_, Packet::Auth(_)) => {
                // [MQTT-4.12.0-6]: only a client that named a method may, and those were refused.
                Err(End::new(ReasonCode::PROTOCOL_ERROR, "AUTH without an authentication method in CONNECT"))
            }
            (_, Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp) => {
                Err(End::new(ReasonCode::PROTOCOL_ERROR, "a packet that only a server may send"))
            }
        }
    }

    fn handle_disconnect(&mut self, disconnect: &Disconnect) -> Handled {
        let expiry =
            disconnect.properties.as_ref().and_then(|properties| properties.session_expiry_interval_s);
        if self.client.has_no_expiry && expiry.is_some_and(|seconds| seconds > 0) {
            let detail = "DISCONNECT sets a session expiry interval, CONNECT had none"; // §3.14.2.2.2
            return Err(End::new(ReasonCode::PROTOCOL_ERROR, detail));
        }
        // [MQTT-3.14.4-3]: only a normal disconnection drops the will.
        let will =
            if disconnect.reason == ReasonCode::SUCCESS { WillFate::Discard } else { WillFate::Publish };
        self.request(IGNORED, Request::Disconnect { will, session_expiry: None });
        self.close(CloseReason::normal());
        Ok(())
    }

    /// Says why in the words of the version, then closes.
    fn end(&mut self, end: End) {
        let End { reason, detail } = end;
        let kind = reason.close_kind();
        if matches!(self.phase, Phase::AwaitingConnect) {
            self.refuse_unconnected(reason, &detail);
        } else {
            self.send_disconnect(reason, &detail);
        }
        self.close(CloseReason { kind, detail });
    }

    /// [MQTT-4.13.1-1]; a 3.x server has no DISCONNECT and just closes.
    fn send_disconnect(&mut self, reason: ReasonCode, detail: &str) {
        if self.is_v5() {
            let properties = reason_string(detail);
            self.send(Packet::Disconnect(Disconnect { reason, properties }));
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        // Nothing may follow DISCONNECT [MQTT-3.14.4-1], so only 3.x gets its queue written first.
        let is_planned = matches!(reason.kind, CloseKind::ShuttingDown | CloseKind::Restarting);
        let lane = if is_planned && !self.is_v5() { DataLane::Drain } else { DataLane::Abort };
        self.phase = Phase::Closed;
        self.input = Input::default();
        self.outputs.push_back(Output::Close(reason, lane));
    }

    fn request(&mut self, token: Token, request: Request) {
        self.outputs.push_back(Output::Request(token, request));
    }

    /// Sends within the client's Maximum Packet Size: what explains is left out first [MQTT-3.4.2-2], and a
    /// packet that is still too large is not sent [MQTT-3.1.2-24], which ends the session.
    fn send(&mut self, mut packet: Packet) {
        let may_explain = self.client.wants_problems
            || matches!(packet.packet_type(), PacketType::ConnAck | PacketType::Disconnect); // [MQTT-3.1.2-29]
        if !may_explain {
            strip_reason_string(&mut packet);
        }
        let mut bytes = self.codec.to_bytes(&packet);
        if bytes.len() > self.client.packet_bytes_max {
            strip_reason_string(&mut packet);
            bytes = self.codec.to_bytes(&packet);
        }
        if bytes.len() <= self.client.packet_bytes_max {
            self.outputs.push_back(Output::Send(Outgoing::new(MessageKind::Binary, bytes))); // [MQTT-6.0.0-3]
            return;
        }
        let detail = "an answer is above the client's maximum packet size";
        match packet.packet_type() {
            PacketType::Disconnect => {}
            // [MQTT-3.14.0-1]: no DISCONNECT without a CONNACK before it.
            PacketType::ConnAck => self.close(CloseReason::new(CloseKind::TooBig, detail)),
            _ => self.end(End::new(ReasonCode::PACKET_TOO_LARGE, detail)),
        }
    }

    /// When the client has been silent for too long, if nothing comes.
    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::AwaitingConnect => self.last_packet.checked_add(self.settings.connect_timeout), // SEC-6
            Phase::Connecting(_) | Phase::Closed => None,
            Phase::Online | Phase::Subscribing(_) | Phase::Unsubscribing(_) => {
                if !self.is_reading {
                    return None;
                }
                self.silence_max.and_then(|silence| self.last_packet.checked_add(silence))
            }
        }
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
            (Phase::Connecting(connecting), CONNECT) => self.handle_connect_reply(*connecting, reply),
            (Phase::Subscribing(subscribing), SUBSCRIBE) => self.handle_subscribe_reply(*subscribing, reply),
            (Phase::Unsubscribing(unsubscribing), UNSUBSCRIBE) => {
                self.handle_unsubscribe_reply(*unsubscribing, reply);
            }
            (phase, token) => {
                self.phase = phase;
                self.handle_publish_reply(token, reply);
            }
        }
    }

    fn handle_delivery(&mut self, delivery: Delivery, now: Instant) {
        self.now = now;
        if !matches!(self.phase, Phase::Closed) {
            self.deliver(&delivery, now);
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
        let reason = if matches!(self.phase, Phase::AwaitingConnect) {
            CloseReason::new(CloseKind::AuthTimeout, "no CONNECT in time")
        } else {
            CloseReason::new(CloseKind::PingTimeout, "no packet within the keep alive time [MQTT-3.1.2-22]")
        };
        self.handle_close(reason, now);
    }

    fn handle_reading(&mut self, reading: Reading, now: Instant) {
        self.now = now;
        self.is_reading = reading == Reading::Resumed;
        if self.is_reading && !matches!(self.phase, Phase::AwaitingConnect) {
            self.last_packet = now;
        }
    }

    fn handle_close(&mut self, reason: CloseReason, now: Instant) {
        self.now = now;
        match self.phase {
            Phase::Closed => return,
            Phase::AwaitingConnect => {}
            // [MQTT-3.14.0-1]: no DISCONNECT before a successful CONNACK.
            Phase::Connecting(_) => self.send_connack_refusal(ReasonCode::SERVER_UNAVAILABLE, &reason.detail),
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
                // An idle session keeps no queue.
                self.outputs = VecDeque::new();
                return None;
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline()
    }

    fn wants(&self) -> Wants {
        let is_connected =
            matches!(self.phase, Phase::Online | Phase::Subscribing(_) | Phase::Unsubscribing(_));
        let window = usize::from(self.client.receive_maximum.min(self.settings.max_inflight));
        Wants {
            input: self.takes_packets() && self.input.is_drained(),
            qos0: is_connected,
            acked: is_connected && self.in_flight.len() < window, // [MQTT-4.9.0-2]
        }
    }
}

/// Properties that hold nothing but an explanation; none when there is nothing to say.
fn reason_string(detail: &str) -> Option<Box<Properties>> {
    (!detail.is_empty())
        .then(|| Box::new(Properties { reason_string: Some(detail.into()), ..Properties::default() }))
}

fn strip_reason_string(packet: &mut Packet) {
    if let Some(slot) = packet.properties_mut()
        && let Some(properties) = slot
    {
        properties.reason_string = None;
        if **properties == Properties::default() {
            *slot = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fifth of the 3 KiB that an idle MQTT connection may cost.
    #[test]
    fn a_session_is_small() {
        let session = size_of::<MqttSession>();
        assert!(session <= 600, "{session} bytes");
    }
}

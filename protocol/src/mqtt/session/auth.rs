//! Enhanced authentication: the exchange before CONNACK, and the ones that begin anew later.
//!
//! ```text
//!  before CONNACK  CONNECT ─▶ (broker) ─Challenge─▶ AUTH 0x18 ─▶ client ─AUTH 0x18─▶ (broker) ─Connected─▶ CONNACK
//!  later           AUTH 0x19 ─▶ (broker) ─Challenge─▶ AUTH 0x18 ─▶ client … (broker) ─Authenticated─▶ AUTH 0x00
//! ```
//!
//! Knows no method. Spec: OASIS MQTT 5.0 §3.15, §4.12.

use bytes::Bytes;

use super::{AUTHENTICATE, CONNECT, End, Handled, MqttSession, Phase};
use crate::mqtt::packet::{Disconnect, Packet, PacketType, Properties, ReasonCode};
use crate::session::{Authenticate, CloseKind, CloseReason, Reply, Request};

/// What is known of a client that named a method in CONNECT.
pub(super) struct Authentication {
    pub(super) method: Box<str>,
    again: Again,
}

/// Re-authentication on a connection that is connected. Everything else goes on meanwhile (§4.12.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// None is under way.
    Idle,
    /// The broker has the client's word.
    Asked,
    /// The client is to answer.
    Challenged,
}

impl Authentication {
    pub(super) const fn new(method: Box<str>) -> Self {
        Self { method, again: Again::Idle }
    }
}

impl MqttSession {
    pub(super) fn handle_auth(&mut self, auth: Disconnect) -> Handled {
        let Some(authentication) = &mut self.authentication else {
            let detail = "AUTH without an authentication method in CONNECT [MQTT-4.12.0-7]";
            return Err(End::new(ReasonCode::PROTOCOL_ERROR, detail));
        };
        let properties = auth.properties.map(|properties| *properties).unwrap_or_default();
        if properties.authentication_method.as_deref() != Some(&*authentication.method) {
            // [MQTT-4.12.0-5], [MQTT-4.12.1-1]
            let detail = "AUTH does not name the authentication method of CONNECT";
            return Err(End::new(ReasonCode::PROTOCOL_ERROR, detail));
        }
        let data = properties.authentication_data.unwrap_or_default();
        if let Phase::Challenged(_) = self.phase {
            return self.continue_connecting(auth.reason, data);
        }
        let method = match (auth.reason, authentication.again) {
            (ReasonCode::REAUTHENTICATE, Again::Idle) => Some(authentication.method.clone()),
            (ReasonCode::CONTINUE_AUTHENTICATION, Again::Challenged) => None, // [MQTT-4.12.0-3]
            (reason, _) => {
                let detail = format!("AUTH with reason code 0x{:02X} is not expected", reason.0);
                return Err(End::new(ReasonCode::PROTOCOL_ERROR, detail));
            }
        };
        authentication.again = Again::Asked;
        self.request(AUTHENTICATE, Request::Authenticate(Authenticate { method, data }));
        Ok(())
    }

    fn continue_connecting(&mut self, reason: ReasonCode, data: Bytes) -> Handled {
        if reason != ReasonCode::CONTINUE_AUTHENTICATION {
            let detail = "AUTH before CONNACK has another reason code than 0x18 [MQTT-4.12.0-3]";
            return Err(End::new(ReasonCode::PROTOCOL_ERROR, detail));
        }
        match std::mem::replace(&mut self.phase, Phase::AwaitingConnect) {
            Phase::Challenged(connecting) => self.phase = Phase::Connecting(connecting),
            phase => self.phase = phase,
        }
        self.request(CONNECT, Request::Authenticate(Authenticate { method: None, data }));
        Ok(())
    }

    /// The method's next word to the client [MQTT-4.12.0-2].
    pub(super) fn send_auth(&mut self, reason: ReasonCode, data: Bytes) {
        let Some(authentication) = &self.authentication else { return }; // [MQTT-4.12.0-6]
        let properties = Properties {
            authentication_method: Some(authentication.method.clone()), // [MQTT-4.12.0-5]
            authentication_data: (!data.is_empty()).then_some(data),
            ..Properties::default()
        };
        self.send(Packet::Auth(Disconnect { reason, properties: Some(Box::new(properties)) }));
    }

    pub(super) fn handle_reauthenticate_reply(&mut self, reply: Reply) {
        let Some(authentication) = &mut self.authentication else { return };
        match reply {
            Reply::Challenge(data) => {
                authentication.again = Again::Challenged;
                self.send_auth(ReasonCode::CONTINUE_AUTHENTICATION, data);
            }
            Reply::Authenticated(data) => {
                authentication.again = Again::Idle;
                self.send_auth(ReasonCode::SUCCESS, data);
            }
            // [MQTT-4.12.1-2]
            Reply::Refused(refusal) => {
                let reason = ReasonCode::of_refusal(&refusal, PacketType::Disconnect);
                let detail = refusal.to_string();
                self.send_disconnect(reason, &detail);
                let kind = match reason {
                    ReasonCode::NOT_AUTHORIZED => CloseKind::AuthFailed,
                    reason => reason.close_kind(),
                };
                self.close(CloseReason::new(kind, detail));
            }
            _ => self.end(End::new(ReasonCode::UNSPECIFIED_ERROR, "authentication has no result")),
        }
    }
}

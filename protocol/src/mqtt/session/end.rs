//! How a session ends: the client's DISCONNECT, ours, and the refusal before CONNACK.
//!
//! Spec: OASIS MQTT 5.0 §3.14, §4.13.

use std::borrow::Cow;
use std::time::Duration;

use super::send::reason_string;
use super::{Handled, IGNORED, MqttSession, Phase};
use crate::mqtt::codec::DecodeError;
use crate::mqtt::input::Input;
use crate::mqtt::packet::{Disconnect, Packet, ReasonCode};
use crate::session::{CloseKind, CloseReason, DataLane, Output, Request, WillFate};

/// Why a session ends by its own decision.
#[derive(Debug)]
pub(super) struct End {
    reason: ReasonCode,
    kind: CloseKind,
    detail: Cow<'static, str>,
}

impl End {
    pub(super) fn new(reason: ReasonCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, kind: reason.close_kind(), detail: detail.into() }
    }
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        Self { reason: error.reason(), kind: error.close_kind(), detail: error.to_string().into() }
    }
}

impl MqttSession {
    pub(super) fn handle_disconnect(&mut self, disconnect: &Disconnect) -> Handled {
        let expiry_s =
            disconnect.properties.as_ref().and_then(|properties| properties.session_expiry_interval_s);
        if self.client.has_no_expiry && expiry_s.is_some_and(|seconds| seconds > 0) {
            let detail = "DISCONNECT sets a session expiry interval, CONNECT had none"; // §3.14.2.2.2
            return Err(End::new(ReasonCode::PROTOCOL_ERROR, detail));
        }
        // Before CONNACK there is neither a session nor a will to decide about.
        if self.is_connected() {
            // [MQTT-3.14.4-3]: only a normal disconnection drops the will.
            let will =
                if disconnect.reason == ReasonCode::SUCCESS { WillFate::Discard } else { WillFate::Publish };
            let session_expiry = expiry_s.map(|seconds| Duration::from_secs(seconds.into()));
            self.request(IGNORED, Request::Disconnect { will, session_expiry });
        }
        self.close(CloseReason::normal());
        Ok(())
    }

    /// Says why in the words of the version, then closes.
    pub(super) fn end(&mut self, end: End) {
        let End { reason, kind, detail } = end;
        match self.phase {
            Phase::AwaitingConnect | Phase::Connecting(_) | Phase::Challenged(_) => {
                self.refuse_unconnected(reason, &detail);
            }
            Phase::Closed => return,
            Phase::Online | Phase::Subscribing(_) | Phase::Unsubscribing(_) => {
                self.send_disconnect(reason, &detail);
            }
        }
        self.close(CloseReason { kind, detail });
    }

    /// [MQTT-4.13.1-1]; a 3.x server has no DISCONNECT and just closes.
    pub(super) fn send_disconnect(&mut self, reason: ReasonCode, detail: &str) {
        if self.is_v5() {
            let properties = reason_string(detail);
            self.send(Packet::Disconnect(Disconnect { reason, properties }));
        }
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        // Nothing may follow DISCONNECT [MQTT-3.14.4-1], so only 3.x gets its queue written first.
        let is_planned = matches!(reason.kind, CloseKind::ShuttingDown | CloseKind::Restarting);
        let lane = if is_planned && !self.is_v5() { DataLane::Drain } else { DataLane::Abort };
        self.phase = Phase::Closed;
        self.input = Input::default(); // [MQTT-3.1.4-6]
        // [MQTT-3.14.4-2], [MQTT-4.13.2-1], [MQTT-3.2.2-7]
        self.outputs.push_back(Output::Close(reason, lane));
    }
}

//! MQTT 3.1, 3.1.1 and 5 over WebSocket (OASIS MQTT 5.0 §6).

use std::time::Instant;

use crate::session::Session;

/// The operator's settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {}

/// Begins a session.
#[must_use]
pub fn open(_bearer: Option<Box<str>>, _settings: &Settings, _now: Instant) -> Box<dyn Session> {
    unimplemented!()
}

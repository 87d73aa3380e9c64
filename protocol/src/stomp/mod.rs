//! STOMP 1.0, 1.1 and 1.2 over WebSocket.

use std::time::Instant;

use crate::session::Session;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// STOMP 1.0.
    V1_0,
    /// STOMP 1.1.
    V1_1,
    /// STOMP 1.2.
    V1_2,
}

/// The operator's settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {}

/// Begins a session.
#[must_use]
pub fn open(
    _ceiling: Version,
    _bearer: Option<Box<str>>,
    _settings: &Settings,
    _now: Instant,
) -> Box<dyn Session> {
    unimplemented!()
}

//! Tidegate's raw protocol (WIRE §2, §3): payload mode and the envelope.

use std::time::Instant;

use crate::session::Session;

/// What the token pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Nothing: the URL decides between payload mode and envelope, the first frame decides the encoding.
    Nothing,
    /// `raw.json.v1`.
    Json,
    /// `raw.msgpack.v1`.
    MessagePack,
}

/// The operator's settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {}

/// Begins a session.
pub fn open(
    _pinned: Pinned,
    _query: Option<&str>,
    _bearer: Option<Box<str>>,
    _settings: &Settings,
    _now: Instant,
) -> Result<Box<dyn Session>, String> {
    Err(String::new())
}

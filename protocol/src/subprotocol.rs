//! The one list of subprotocols: tokens, choice, and how a session of each begins.

use std::time::Instant;

use crate::session::Session;
use crate::{mqtt, raw, stomp};

/// What the client's offer came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which protocol.
    pub subprotocol: Subprotocol,
    /// The token to answer with; none when none was offered.
    pub token: Option<&'static str>,
    /// A `bearer.` credential found among the tokens.
    pub bearer: Option<Box<str>>,
}

/// A protocol and what the token pinned of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// Payload or envelope mode.
    Raw(raw::Pinned),
    /// Any version; CONNECT says which.
    Mqtt,
    /// Up to this version.
    Stomp(stomp::Version),
}

/// A protocol family, for configuration and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Raw frames.
    Raw,
    /// MQTT.
    Mqtt,
    /// STOMP.
    Stomp,
}

/// What sessions need to know of the operator's file.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `[raw]` and what it takes from other sections.
    pub raw: raw::Settings,
    /// `[mqtt]` …
    pub mqtt: mqtt::Settings,
    /// `[stomp]` …
    pub stomp: stomp::Settings,
}

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    /// The query part of the request's URI, without `?`; still percent-encoded.
    pub query: Option<&'a str>,
    /// A credential from the handshake.
    pub bearer: Option<Box<str>>,
}

impl Subprotocol {
    /// Its family.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::Raw(_) => Family::Raw,
            Self::Mqtt => Family::Mqtt,
            Self::Stomp(_) => Family::Stomp,
        }
    }

    /// Begins a session. The error is a sentence for the body of a 400.
    pub fn open(
        self,
        opening: &Opening<'_>,
        settings: &Settings,
        now: Instant,
    ) -> Result<Box<dyn Session>, String> {
        match self {
            Self::Raw(pinned) => raw::open(pinned, opening.query, opening.bearer.clone(), &settings.raw, now),
            Self::Mqtt => Ok(mqtt::open(opening.bearer.clone(), &settings.mqtt, now)),
            Self::Stomp(version) => Ok(stomp::open(version, opening.bearer.clone(), &settings.stomp, now)),
        }
    }
}

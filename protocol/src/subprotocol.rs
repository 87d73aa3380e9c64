//! The one list of subprotocols: tokens, choice, and how a session of each begins.
//!
//! Reads no header: `websocket/` splits `Sec-WebSocket-Protocol` into tokens. Spec: RFC 6455 §1.9 and §4.2.2, WIRE §1.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::session::Session;
use crate::{mqtt, raw, stomp};

/// What the client's offer came to.
#[derive(Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which protocol.
    pub subprotocol: Subprotocol,
    /// The token to answer with; none when none was offered.
    pub token: Option<&'static str>,
    /// A `bearer.` credential found among the tokens, without that prefix and otherwise as it stood.
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
    pub mqtt: Arc<mqtt::Settings>,
    /// `[stomp]` …
    pub stomp: stomp::Settings,
}

/// What a session is opened with.
#[derive(Clone)]
pub struct Opening<'a> {
    /// The query part of the request's URI, without `?`; still percent-encoded.
    pub query: Option<&'a str>,
    /// A credential from the handshake.
    pub bearer: Option<Box<str>>,
}

/// What the operator allows to be chosen.
#[derive(Clone, Debug)]
pub struct NegotiationOptions {
    /// `listener.protocols`.
    pub protocols: Vec<Family>,
    /// `websocket.unknown_protocol`.
    pub unknown: UnknownProtocol,
    /// `websocket.default_protocol`: what a client gets that offers nothing.
    pub default_protocol: Family,
    /// `mqtt.versions`, as protocol levels: 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5.
    pub mqtt_levels: Vec<u8>,
    /// `stomp.versions`.
    pub stomp_versions: Vec<stomp::Version>,
}

/// What a client gets that offers only what is not supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownProtocol {
    /// A 400.
    #[default]
    Reject,
    /// Raw frames and a 101 without a token, for tools that are no browsers.
    Raw,
}

/// Why there is no choice. Each is a sentence for the body of a 400; the client is at fault in all of them but
/// [`NegotiationError::DefaultNotAllowed`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// Nothing of it is supported.
    #[error("none of the offered subprotocols is supported: offered {offered}; supported {supported}")]
    Unsupported {
        /// The client's tokens, credentials redacted.
        offered: String,
        /// Ours.
        supported: String,
    },
    /// A credential and no protocol.
    #[error(
        "a bearer token was offered without a subprotocol beside it; offer one too, because a browser fails when \
         none of its tokens is answered and a credential is never echoed: supported {supported}"
    )]
    BearerAlone {
        /// Ours.
        supported: String,
    },
    /// `bearer.` and nothing behind it.
    #[error("the offered bearer token is empty")]
    BearerEmpty,
    /// Which of them?
    #[error("more than one bearer token was offered")]
    BearerTwice,
    /// The header and the URL disagree.
    #[error("the URL asks for protocol={wanted}, which is not among the offered subprotocols: {offered}")]
    OverrideNotOffered {
        /// From the query.
        wanted: String,
        /// The client's tokens, credentials redacted.
        offered: String,
    },
    /// The operator's default is not allowed on this listener.
    #[error("no subprotocol was offered, and there is no default here: supported {supported}")]
    DefaultNotAllowed {
        /// Ours.
        supported: String,
    },
}

impl Default for NegotiationOptions {
    fn default() -> Self {
        Self {
            protocols: vec![Family::Raw, Family::Mqtt, Family::Stomp],
            unknown: UnknownProtocol::Reject,
            default_protocol: Family::Raw,
            mqtt_levels: vec![3, 4, 5],
            stomp_versions: vec![stomp::Version::V1_0, stomp::Version::V1_1, stomp::Version::V1_2],
        }
    }
}

/// Every token that this broker knows.
const TOKENS: [&str; 10] = [
    "raw",
    "raw.json.v1",
    "raw.msgpack.v1",
    "mqtt",
    "mqttv3.1",
    "mqttv5",
    "v12.stomp",
    "v11.stomp",
    "v10.stomp",
    "stomp",
];

const BEARER_PREFIX: &str = "bearer.";

/// Chooses a protocol from the client's tokens, in its order of preference (RFC 6455 §4.1 item 10).
///
/// `protocol_override` is the `protocol=` of the URL, for tools that cannot set the header. Beside a header it may
/// only pick one of the offered tokens, because nothing else may be answered.
pub fn negotiate(
    offers: &[impl AsRef<str>],
    options: &NegotiationOptions,
    protocol_override: Option<&str>,
) -> Result<Choice, NegotiationError> {
    let mut bearer: Option<Box<str>> = None;
    let mut tokens: Vec<&str> = Vec::with_capacity(offers.len());
    for offer in offers.iter().map(AsRef::as_ref) {
        match offer.strip_prefix(BEARER_PREFIX) {
            None => tokens.push(offer),
            Some("") => return Err(NegotiationError::BearerEmpty),
            Some(_) if bearer.is_some() => return Err(NegotiationError::BearerTwice),
            Some(credential) => bearer = Some(credential.into()),
        }
    }
    if tokens.is_empty() && bearer.is_some() {
        return Err(NegotiationError::BearerAlone { supported: options.supported() });
    }
    let is_offered = !tokens.is_empty();
    if let Some(wanted) = protocol_override {
        if is_offered && !tokens.contains(&wanted) {
            return Err(NegotiationError::OverrideNotOffered {
                wanted: redacted(&[wanted]),
                offered: redacted(&tokens),
            });
        }
        tokens = vec![wanted];
    }
    let (subprotocol, token) = match options.choose(&tokens) {
        Some((subprotocol, token)) => (subprotocol, is_offered.then_some(token)),
        None if tokens.is_empty() => (options.default_choice()?, None),
        None if options.unknown == UnknownProtocol::Raw && options.protocols.contains(&Family::Raw) => {
            (Subprotocol::Raw(raw::Pinned::Nothing), None)
        }
        None => {
            let offered = redacted(&tokens);
            return Err(NegotiationError::Unsupported { offered, supported: options.supported() });
        }
    };
    Ok(Choice { subprotocol, token, bearer })
}

impl NegotiationOptions {
    /// The first supported token decides the family; among STOMP tokens the highest version wins then.
    fn choose(&self, tokens: &[&str]) -> Option<(Subprotocol, &'static str)> {
        let first = tokens.iter().find_map(|token| self.parse(token))?;
        if first.0.family() != Family::Stomp {
            return Some(first);
        }
        let mut best = first;
        for candidate in tokens.iter().filter_map(|token| self.parse(token)) {
            if let (Subprotocol::Stomp(version), Subprotocol::Stomp(highest)) = (candidate.0, best.0)
                && version > highest
            {
                best = candidate;
            }
        }
        Some(best)
    }

    /// What a token stands for, when that is allowed here. Tokens are compared as they are (RFC 6455 §4.1).
    fn parse(&self, token: &str) -> Option<(Subprotocol, &'static str)> {
        let token = TOKENS.into_iter().find(|known| *known == token)?;
        let subprotocol = match token {
            "raw" => Subprotocol::Raw(raw::Pinned::Nothing),
            "raw.json.v1" => Subprotocol::Raw(raw::Pinned::Json),
            "raw.msgpack.v1" => Subprotocol::Raw(raw::Pinned::MessagePack),
            // [MQTT-6.0.0-4]
            "mqtt" if !self.mqtt_levels.is_empty() => Subprotocol::Mqtt,
            "mqttv3.1" if self.mqtt_levels.contains(&3) => Subprotocol::Mqtt,
            "mqttv5" if self.mqtt_levels.contains(&5) => Subprotocol::Mqtt,
            "v12.stomp" => self.stomp(stomp::Version::V1_2)?,
            "v11.stomp" => self.stomp(stomp::Version::V1_1)?,
            "v10.stomp" => self.stomp(stomp::Version::V1_0)?,
            "stomp" => Subprotocol::Stomp(self.stomp_versions.iter().copied().max()?),
            _ => return None,
        };
        self.protocols.contains(&subprotocol.family()).then_some((subprotocol, token))
    }

    fn stomp(&self, version: stomp::Version) -> Option<Subprotocol> {
        self.stomp_versions.contains(&version).then_some(Subprotocol::Stomp(version))
    }

    fn default_choice(&self) -> Result<Subprotocol, NegotiationError> {
        let token = match self.default_protocol {
            Family::Raw => "raw",
            Family::Mqtt => "mqtt",
            Family::Stomp => "stomp",
        };
        match self.parse(token) {
            Some((subprotocol, _)) => Ok(subprotocol),
            None => Err(NegotiationError::DefaultNotAllowed { supported: self.supported() }),
        }
    }

    fn supported(&self) -> String {
        let supported: Vec<&str> = TOKENS.into_iter().filter(|token| self.parse(token).is_some()).collect();
        if supported.is_empty() { "none".to_owned() } else { supported.join(", ") }
    }
}

/// The tokens for an answer: credentials cut out (SEC-23), each escaped and cut, since strangers wrote them.
fn redacted(tokens: &[&str]) -> String {
    const TOKEN_CHARS_MAX: usize = 64;
    const TOKENS_MAX: usize = 16;
    let mut shown: Vec<String> = Vec::new();
    for token in tokens.iter().take(TOKENS_MAX) {
        if token.starts_with(BEARER_PREFIX) {
            shown.push("bearer.(redacted)".to_owned());
        } else {
            shown.push(token.chars().take(TOKEN_CHARS_MAX).flat_map(char::escape_default).collect());
        }
    }
    if tokens.len() > TOKENS_MAX {
        shown.push("and more".to_owned());
    }
    shown.join(", ")
}

impl fmt::Debug for Choice {
    // SEC-23: nothing secret in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("subprotocol", &self.subprotocol)
            .field("token", &self.token)
            .field("has_bearer", &self.bearer.is_some())
            .finish()
    }
}

impl fmt::Debug for Opening<'_> {
    // SEC-23: nothing secret in a log; a query may hold a token that was refused.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("has_bearer", &self.bearer.is_some()).finish_non_exhaustive()
    }
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::publication::{BodyForm, Form};

    #[test]
    fn no_two_codecs_share_a_slot() {
        let forms: &[&[&Form]] = &[raw::FORMS, mqtt::FORMS, stomp::FORMS];
        let bodies: &[&BodyForm] = &[&BodyForm::PAYLOAD, &stomp::MESSAGE_BODY, &stomp::MESSAGE_BODY_DOTTED];

        let mut slots = HashSet::new();
        for form in forms.iter().copied().flatten() {
            assert!(usize::from(form.slot) < Form::SLOTS, "{}", form.slot);
            assert!(slots.insert(form.slot), "slot {} is taken twice", form.slot);
        }
        let mut slots = HashSet::new();
        for body in bodies {
            assert!(usize::from(body.slot) < BodyForm::SLOTS, "{}", body.slot);
            assert!(slots.insert(body.slot), "slot {} is taken twice", body.slot);
        }
    }
}

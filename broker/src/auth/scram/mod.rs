//! SCRAM-SHA-256, the broker's side: the client proves that it knows the password and learns that the broker knows
//! its user, and no password travels. Bytes in, bytes out: no socket, no clock. Spec: RFC 5802, RFC 7677.
//!
//! ```text
//! client-first   n,,n=user,r=<nonce>                    Scram::begin
//! server-first   r=<nonce><ours>,s=<salt>,i=<count>
//! client-final   c=biws,r=<nonce><ours>,p=<proof>       Exchange::finish
//! server-final   v=<signature>
//! ```

mod keys;
mod message;
#[cfg(test)]
mod tests;
mod users;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use subtle::Choice;

use keys::{Credential, Key, hmac};
use message::{ClientFinal, ClientFirst};
use users::Shape;

pub use message::MESSAGE_BYTES_MAX;
pub use users::{
    ITERATIONS_MAX, ITERATIONS_MIN, ITERATIONS_USUAL, LineFault, NAME_BYTES_MAX, SecretError, Users,
    UsersError, user_line,
};

/// Its name among SASL mechanisms (RFC 7677 §3) and MQTT's authentication methods.
pub const METHOD: &str = "SCRAM-SHA-256";

/// Bytes of our part of the nonce; a multiple of three, so that base64 needs no padding.
const NONCE_BYTES: usize = 18;

/// Judges exchanges against the operator's users.
pub struct Scram {
    users: Users,
    /// Makes up salts for names that nobody has; of this start of the broker only.
    secret: Key,
}

/// An exchange that waits for the client's proof.
pub struct Exchange {
    user: Box<str>,
    credential: Credential,
    is_known: Choice,
    /// In base64, as the client has to repeat it.
    channel_binding: String,
    /// The client's and ours.
    nonce: String,
    /// `client-first-message-bare "," server-first-message ","`.
    said: String,
}

/// Why an exchange fails. Of an unknown user and of a wrong password the client learns the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// Too much to read for a stranger.
    #[error("a SCRAM message is longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// Against the grammar of RFC 5802 §7.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// `p=`: the connection's TLS, if any, ends before us.
    #[error("channel binding is not supported")]
    ChannelBindingUnsupported,
    /// `m=`.
    #[error("the SCRAM extension that the client demands is not supported")]
    ExtensionUnsupported,
    /// SASLprep says no.
    #[error("the user name is empty or has characters that SASLprep (RFC 4013) forbids")]
    BadName,
    /// `a=` names somebody else.
    #[error("a user may not act for another")]
    OtherIdentity,
    /// `c=` is not what the exchange began with.
    #[error("the channel binding is not that of the first message")]
    ChannelBindingsDiffer,
    /// `r=` is not ours: a replay.
    #[error("the nonce is not that of this exchange")]
    OtherNonce,
    /// The password is wrong, or there is no such user.
    #[error("the user or the password is wrong")]
    BadProof,
}

impl Scram {
    /// For these users.
    #[must_use]
    pub fn new(users: Users) -> Self {
        Self { users, secret: rand::random() }
    }

    /// Takes `client-first-message` and gives `server-first-message`.
    pub fn begin(&self, client_first: &[u8]) -> Result<(Exchange, Bytes), ScramError> {
        self.begin_with_nonce(client_first, &STANDARD.encode(rand::random::<[u8; NONCE_BYTES]>()))
    }

    fn begin_with_nonce(&self, client_first: &[u8], ours: &str) -> Result<(Exchange, Bytes), ScramError> {
        let first = ClientFirst::parse(client_first)?;
        // Made up for known users too: the answer takes the same time (SEC-21).
        let nobody = self.nobody(&first.user);
        let known = self.users.by_name.get(&first.user);
        let is_known = Choice::from(u8::from(known.is_some()));
        let credential = known.cloned().unwrap_or(nobody);
        let nonce = format!("{}{ours}", first.nonce);
        let salt = STANDARD.encode(&credential.salt);
        let server_first = format!("r={nonce},s={salt},i={}", credential.iterations);
        let exchange = Exchange {
            user: first.user,
            credential,
            is_known,
            channel_binding: STANDARD.encode(first.gs2_header),
            nonce,
            said: format!("{},{server_first},", first.bare),
        };
        Ok((exchange, server_first.into()))
    }

    /// A credential for a name that nobody has: the same at each try, and shaped like a user's.
    fn nobody(&self, name: &str) -> Credential {
        let secret = |what: &[u8]| hmac(&self.secret, &[what, b":", name.as_bytes()]);
        let usual = Shape { salt_bytes: users::SALT_BYTES, iterations: ITERATIONS_USUAL };
        let choice = secret(b"shape").first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let count = u64::try_from(self.users.shapes.len()).unwrap_or(u64::MAX);
        let at = choice.checked_rem(count).and_then(|at| usize::try_from(at).ok());
        let shape = at.and_then(|at| self.users.shapes.get(at)).copied().unwrap_or(usual);
        Credential {
            salt: secret(b"salt").into_iter().take(shape.salt_bytes).collect(),
            iterations: shape.iterations,
            stored_key: secret(b"stored key"),
            server_key: secret(b"server key"),
        }
    }
}

impl Exchange {
    /// Takes `client-final-message` and gives the user and `server-final-message`.
    pub fn finish(self, client_final: &[u8]) -> Result<(Box<str>, Bytes), ScramError> {
        let last = ClientFinal::parse(client_final)?;
        if last.nonce != self.nonce {
            return Err(ScramError::OtherNonce);
        }
        if last.channel_binding != self.channel_binding {
            return Err(ScramError::ChannelBindingsDiffer);
        }
        let auth_message = [self.said.as_bytes(), last.without_proof.as_bytes()];
        let is_proven = self.credential.accepts(&last.proof, &auth_message);
        let signature = self.credential.server_signature(&auth_message);
        if !bool::from(is_proven & self.is_known) {
            return Err(ScramError::BadProof);
        }
        Ok((self.user, format!("v={}", STANDARD.encode(signature)).into()))
    }
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").field("users", &self.users).finish_non_exhaustive()
    }
}

/// Whether the user is known is a secret, and so is the nonce until it is used (SEC-23).
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

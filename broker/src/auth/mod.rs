//! Who may connect: who may be anonymous, and who proves who it is by an authentication method (MQTT 5 §4.12).

pub mod scram;

use core::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tidegate_protocol::session::{Credentials, Refusal};
use tracing::{debug, info};

use scram::{Exchange, Scram, ScramError};

/// `auth.anonymous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody.
    Never,
    /// Clients on this machine that no proxy speaks for.
    Loopback,
    /// Everybody.
    Always,
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub ip: IpAddr,
    /// The handshake names another client (`Forwarded`, `X-Forwarded-For`, `X-Real-IP`): a proxy speaks.
    pub is_forwarded: bool,
}

/// Decides who may connect.
#[derive(Debug)]
pub struct Authenticator {
    anonymous: Anonymous,
    scram: Option<Scram>,
    has_told: AtomicBool,
}

/// An authentication that has begun.
#[derive(Debug)]
pub struct Step {
    /// Takes the client's answer.
    pub exchange: Exchange,
    /// Authentication Data for the client.
    pub challenge: Bytes,
}

impl Peer {
    /// Whether it is on this machine and speaks for itself.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.ip.to_canonical().is_loopback() && !self.is_forwarded
    }
}

impl Authenticator {
    /// With the operator's word on anonymous clients.
    #[must_use]
    pub fn new(anonymous: Anonymous) -> Self {
        Self { anonymous, scram: None, has_told: AtomicBool::new(false) }
    }

    /// And with the method SCRAM-SHA-256 for the operator's users.
    #[must_use]
    pub fn with_scram(self, scram: Scram) -> Self {
        Self { scram: Some(scram), ..self }
    }

    /// Begins an authentication by `method` with the client's first Authentication Data.
    /// [`Refusal::BadMethod`]: there is no such method here, which MQTT 5 answers with 0x8C [MQTT-4.12.0-1].
    /// Any other refusal, also from [`Exchange::finish`], tells no more than that the proof is not accepted.
    pub fn begin(&self, method: &str, data: &[u8]) -> Result<Step, Refusal> {
        let scram = self.scram.as_ref().filter(|_| method == scram::METHOD);
        let scram = scram.ok_or(Refusal::BadMethod)?;
        let (exchange, challenge) = scram.begin(data)?;
        Ok(Step { exchange, challenge })
    }

    /// Whether a client without proof of identity may connect from there.
    #[must_use]
    pub fn allows_anonymous(&self, peer: &Peer) -> bool {
        match self.anonymous {
            Anonymous::Never => false,
            Anonymous::Loopback => peer.is_local(),
            Anonymous::Always => true,
        }
    }

    /// Whether such a client gets in only because it is on this machine: then the page that it may come from
    /// matters (SEC-8).
    #[must_use]
    pub fn trusts_only_as_local(&self, peer: &Peer) -> bool {
        self.anonymous == Anonymous::Loopback && peer.is_local()
    }

    /// Lets a client in or not. A user name and password are taken as anonymous, since nothing checks them;
    /// one line in the log says so.
    pub fn admit(&self, credentials: Option<&Credentials>, peer: &Peer) -> Result<(), Refusal> {
        if !self.allows_anonymous(peer) {
            return Err(if credentials.is_some() { Refusal::BadCredentials } else { Refusal::NotAuthorized });
        }
        if credentials.is_some() && !self.has_told.swap(true, Ordering::Relaxed) {
            info!("clients send passwords, which nothing checks, so they are anonymous");
        }
        Ok(())
    }
}

impl From<ScramError> for Refusal {
    fn from(error: ScramError) -> Self {
        debug!(%error, "a SCRAM-SHA-256 exchange has failed");
        Self::BadCredentials
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(anonymous: Anonymous, ip: &str, is_forwarded: bool, allowed: bool) {
        let peer = Peer { ip: ip.parse().unwrap(), is_forwarded };
        let admitted = Authenticator::new(anonymous).admit(None, &peer);
        assert_eq!(admitted.is_ok(), allowed, "{anonymous:?} {ip} forwarded={is_forwarded}");
    }

    #[test]
    fn loopback_means_this_machine_and_no_proxy() {
        check(Anonymous::Loopback, "127.0.0.1", false, true);
        check(Anonymous::Loopback, "::1", false, true);
        check(Anonymous::Loopback, "::ffff:127.0.0.1", false, true);
        check(Anonymous::Loopback, "127.0.0.1", true, false);
        check(Anonymous::Loopback, "192.0.2.1", false, false);
        check(Anonymous::Always, "192.0.2.1", true, true);
        check(Anonymous::Never, "127.0.0.1", false, false);
    }

    #[test]
    fn a_method_that_is_not_here_is_unsupported_and_a_bad_message_is_a_bad_credential() {
        let without = Authenticator::new(Anonymous::Never);
        let with = Authenticator::new(Anonymous::Never).with_scram(Scram::new(scram::Users::default()));
        let unsupported = Refusal::BadMethod;
        for (authenticator, method, data, refusal) in [
            (&without, "SCRAM-SHA-256", "n,,n=user,r=abc", Some(&unsupported)),
            (&with, "SCRAM-SHA-1", "n,,n=user,r=abc", Some(&unsupported)),
            (&with, "scram-sha-256", "n,,n=user,r=abc", Some(&unsupported)),
            (&with, "", "n,,n=user,r=abc", Some(&unsupported)),
            (&with, "SCRAM-SHA-256", "", Some(&Refusal::BadCredentials)),
            (&with, "SCRAM-SHA-256", "n,,n=user,r=abc", None),
        ] {
            let begun = authenticator.begin(method, data.as_bytes());
            assert_eq!(begun.as_ref().err(), refusal, "{method} {data}");
            assert!(
                begun.is_err() || begun.is_ok_and(|step| step.challenge.starts_with(b"r=abc")),
                "{method}"
            );
        }
    }
}

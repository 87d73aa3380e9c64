//! Who may connect. Until an authenticator exists, that is: who may be anonymous.

use core::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_protocol::session::{Credentials, Refusal};
use tracing::info;

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
    has_told: AtomicBool,
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
        Self { anonymous, has_told: AtomicBool::new(false) }
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

    /// Lets a client in or not. Credentials are taken as anonymous, since nothing can check them yet; one line in
    /// the log says so.
    pub fn admit(&self, credentials: Option<&Credentials>, peer: &Peer) -> Result<(), Refusal> {
        if !self.allows_anonymous(peer) {
            return Err(if credentials.is_some() { Refusal::BadCredentials } else { Refusal::NotAuthorized });
        }
        if credentials.is_some() && !self.has_told.swap(true, Ordering::Relaxed) {
            info!("clients send credentials; no authenticator is configured, so they are anonymous");
        }
        Ok(())
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
}

//! permessage-deflate: what the operator wants, what was agreed on, and what follows from it for each
//! direction. Spec: RFC 7692 §7.

mod compress;
mod inflate;
mod negotiation;
mod totals;

use super::Role;
use super::prepared::Deflating;

pub use self::compress::TakeoverDeflater;
pub(super) use self::compress::deflate_alone;
pub(super) use self::inflate::{InflateError, Inflater};
pub use self::negotiation::{NegotiationError, accept_response, negotiate, offer};
pub use self::totals::Totals;

/// The name of the extension.
pub const EXTENSION: &str = "permessage-deflate";

/// What the operator's file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether offers are accepted at all.
    pub enabled: bool,
    /// What we send is compressed message by message; no connection owns a compressor. Otherwise each owns
    /// some 300 KiB.
    pub server_no_context_takeover: bool,
    /// The client is told to do likewise. Otherwise each connection owns an inflater of some 48 KiB.
    pub client_no_context_takeover: bool,
    /// The largest window of what we send, 8–15; a client may ask for less.
    pub server_max_window_bits: u8,
    /// zlib's level, 1–9.
    pub level: u8,
    /// Messages below this many bytes go uncompressed.
    pub min_size: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            level: 1,
            min_size: 256,
        }
    }
}

/// What both ends agreed on: the parameters of the response (RFC 7692 §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// §7.1.1.1: the server begins each message with an empty window.
    pub server_no_context_takeover: bool,
    /// §7.1.1.2: so does the client.
    pub client_no_context_takeover: bool,
    /// §7.1.2.1, 8–15; absent means 15.
    pub server_max_window_bits: Option<u8>,
    /// §7.1.2.2, 8–15; absent means 15.
    pub client_max_window_bits: Option<u8>,
}

impl Params {
    /// How what we send is compressed, unless its context is taken over ([`Self::takeover_deflater`]).
    #[must_use]
    pub fn deflating(&self, role: Role, settings: &Settings) -> Option<Deflating> {
        let (no_context_takeover, window_bits) = self.sending(role);
        no_context_takeover.then_some(Deflating {
            window_bits,
            level: settings.level,
            min_size: settings.min_size,
        })
    }

    /// This connection's own compressor, when the context of what we send is taken over.
    #[must_use]
    pub fn takeover_deflater(&self, role: Role, settings: &Settings) -> Option<TakeoverDeflater> {
        let (no_context_takeover, window_bits) = self.sending(role);
        (!no_context_takeover).then(|| TakeoverDeflater::new(window_bits, settings.level, settings.min_size))
    }

    /// Whether what we receive refers to earlier messages.
    pub(super) const fn takes_over(&self, role: Role) -> bool {
        match role {
            Role::Server => !self.client_no_context_takeover,
            Role::Client => !self.server_no_context_takeover,
        }
    }

    fn sending(&self, role: Role) -> (bool, u8) {
        let (no_context_takeover, window_bits) = match role {
            Role::Server => (self.server_no_context_takeover, self.server_max_window_bits),
            Role::Client => (self.client_no_context_takeover, self.client_max_window_bits),
        };
        let window_bits = window_bits.unwrap_or(WINDOW_BITS_MAX);
        // zlib makes no raw stream with a window of 8 bits. Without takeover short messages fit it anyway, and
        // whoever may take a context over need not.
        (no_context_takeover || window_bits < TAKEOVER_WINDOW_BITS_MIN, window_bits)
    }
}

/// The largest window of DEFLATE, 32 KiB.
const WINDOW_BITS_MAX: u8 = 15;

/// The smallest window in the parameters of the extension.
const WINDOW_BITS_MIN: u8 = 8;

/// The smallest window that zlib can make a raw stream with.
const TAKEOVER_WINDOW_BITS_MIN: u8 = 9;

/// What a sync flush ends with, and a message therefore omits (RFC 7692 §7.2.1).
const EMPTY_BLOCK: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

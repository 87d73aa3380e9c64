//! The arithmetic of SCRAM-SHA-256: what the broker keeps of a password, and how a proof is judged. Knows no message
//! and no file. Spec: RFC 5802 §3, RFC 7677, RFC 4013 (SASLprep).

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// A key, a signature or a proof.
pub(super) type Key = [u8; KEY_BYTES];

/// SHA-256's output.
pub(super) const KEY_BYTES: usize = 32;

/// HMAC-SHA-256's block (RFC 2104 §2).
const BLOCK_BYTES: usize = 64;

/// What the broker knows of a user: enough to judge a proof and to prove itself, not enough to log in elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) salt: Box<[u8]>,
    pub(super) iterations: u32,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl Credential {
    /// Of a password that is prepared. Takes as long as `iterations` says.
    pub(super) fn new(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted: Key =
            pbkdf2::pbkdf2_hmac_array::<Sha256, KEY_BYTES>(password.as_bytes(), salt, iterations);
        Self {
            salt: salt.into(),
            iterations,
            stored_key: hash(&hmac(&salted, &[b"Client Key"])),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }

    /// Whether the proof was made with the password. Takes the same time whatever the answer (SEC-21).
    pub(super) fn accepts(&self, proof: &Key, auth_message: &[&[u8]]) -> Choice {
        let client_signature = hmac(&self.stored_key, auth_message);
        let mut client_key = *proof;
        for (byte, mask) in client_key.iter_mut().zip(client_signature) {
            *byte ^= mask;
        }
        hash(&client_key).ct_eq(&self.stored_key)
    }

    /// What shows the client that the broker knows the user too.
    pub(super) fn server_signature(&self, auth_message: &[&[u8]]) -> Key {
        hmac(&self.server_key, auth_message)
    }
}

/// The keys are secrets (SEC-23).
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// HMAC-SHA-256 over the parts as if they were one.
pub(super) fn hmac(key: &Key, parts: &[&[u8]]) -> Key {
    // RFC 2104 §2: a key shorter than the block is followed by zeros.
    let mut block = [0; BLOCK_BYTES];
    for (byte, of_key) in block.iter_mut().zip(key) {
        *byte = *of_key;
    }
    let mut mac = Hmac::<Sha256>::new(&block.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn hash(key: &Key) -> Key {
    Sha256::digest(key).into()
}

/// SASLprep, by which texts that look the same are the same; `None` when it forbids the text or leaves nothing of it
/// (RFC 5802 §5.1).
pub(super) fn prepare(text: &str) -> Option<Cow<'_, str>> {
    stringprep::saslprep(text).ok().filter(|prepared| !prepared.is_empty())
}

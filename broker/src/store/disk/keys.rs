//! Keys of records. Numbers are big endian, so that the order of bytes is the order of numbers.

use sha2::{Digest as _, Sha256};

use crate::store::{BodyId, SessionKey, SubscriptionKey};

/// The parts of the store. One keyspace each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Space {
    /// The ring of commit counters, marks.
    Meta,
    /// Session → its record.
    Sessions,
    /// Session, digest of the name → subscription.
    Subscriptions,
    /// Session, packet identifier → nothing.
    Received,
    /// Session, place → reference.
    Queue,
    /// Body → publication.
    Bodies,
    /// Topic → publication.
    Retained,
    /// Number → part, key and value of a record that could not be read.
    Quarantine,
}

impl Space {
    pub(super) const ALL: [Self; 8] = [
        Self::Meta,
        Self::Sessions,
        Self::Subscriptions,
        Self::Received,
        Self::Queue,
        Self::Bodies,
        Self::Retained,
        Self::Quarantine,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Sessions => "sessions",
            Self::Subscriptions => "subscriptions",
            Self::Received => "received",
            Self::Queue => "queue",
            Self::Bodies => "bodies",
            Self::Retained => "retained",
            Self::Quarantine => "quarantine",
        }
    }

    pub(super) fn index(self) -> usize {
        usize::from(self as u8)
    }
}

pub(super) fn session(key: SessionKey) -> [u8; 8] {
    key.0.to_be_bytes()
}

pub(super) fn body(id: BodyId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// A digest in the place of the name: a filter alone may be as long as a key can be.
pub(super) fn subscription(session: SessionKey, name: &SubscriptionKey) -> [u8; 24] {
    let mut hasher = Sha256::new();
    hasher.update(name.id.0.to_be_bytes());
    if let Some(group) = &name.group {
        hasher.update(group.as_str());
        hasher.update([b'/']);
    }
    hasher.update([0]);
    hasher.update(name.filter.as_str());
    let digest = hasher.finalize();
    let mut key = [0; 24];
    for (to, from) in key.iter_mut().zip(session.0.to_be_bytes().iter().chain(digest.iter())) {
        *to = *from;
    }
    key
}

pub(super) fn received(session: SessionKey, packet_id: u16) -> [u8; 10] {
    let [a, b, c, d, e, f, g, h] = session.0.to_be_bytes();
    let [i, j] = packet_id.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j]
}

pub(super) fn queue(session: SessionKey, seq: u64) -> [u8; 16] {
    (u128::from(session.0) << 64 | u128::from(seq)).to_be_bytes()
}

/// A slot of the ring: the commit whose number leaves this rest.
pub(super) fn ring(number: u64) -> [u8; 9] {
    mark(RING, number % RING_LEN)
}

/// `RING`, `DOOMED` or `GAINED` and a number.
pub(super) fn mark(kind: u8, number: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [kind, a, b, c, d, e, f, g, h]
}

/// The session that a key begins with, and the rest.
pub(super) fn split_session(key: &[u8]) -> Option<(SessionKey, &[u8])> {
    let (session, rest) = key.split_first_chunk()?;
    Some((SessionKey(u64::from_be_bytes(*session)), rest))
}

pub(super) fn parse_queue(key: &[u8]) -> Option<(SessionKey, u64)> {
    let (session, seq) = split_session(key)?;
    Some((session, u64::from_be_bytes(seq.try_into().ok()?)))
}

pub(super) fn parse_received(key: &[u8]) -> Option<(SessionKey, u16)> {
    let (session, packet_id) = split_session(key)?;
    Some((session, u16::from_be_bytes(packet_id.try_into().ok()?)))
}

pub(super) fn parse_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// Of `Space::Meta`.
pub(super) fn parse_mark(key: &[u8]) -> Option<(u8, u64)> {
    let (kind, number) = key.split_first()?;
    Some((*kind, parse_number(number)?))
}

/// Commits with a number that the store remembers: with fewer than this behind it, a hole is seen.
pub(super) const RING_LEN: u64 = 8192;

/// Marks of `Space::Meta`: a commit's counters; a session whose queue is still to be removed; a body that gained a
/// reference after its first.
pub(super) const RING: u8 = b'r';
pub(super) const DOOMED: u8 = b'd';
pub(super) const GAINED: u8 = b'g';

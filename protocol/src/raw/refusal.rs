//! What a no of the broker is called: the word of an `err`, the kind of a close. The one place for it.

use crate::session::{CloseKind, Refusal};

/// The stable words of `err.code` (WIRE §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    BadRequest,
    Unauthenticated,
    Denied,
    TooMany,
    Overloaded,
    NotFound,
    BadTopic,
    Unsupported,
    Internal,
}

pub(super) const fn word(refusal: &Refusal) -> Word {
    match refusal {
        Refusal::BadCredentials | Refusal::BadMethod => Word::Unauthenticated,
        Refusal::NotAuthorized | Refusal::Forbidden(_) => Word::Denied,
        Refusal::BadClientId(_) => Word::BadRequest,
        Refusal::BadTopic(_) => Word::BadTopic,
        Refusal::Quota { .. } => Word::TooMany,
        Refusal::Overloaded(_) => Word::Overloaded,
        Refusal::Unsupported(_) => Word::Unsupported,
        Refusal::Internal => Word::Internal,
    }
}

/// Whether the same request may succeed later.
pub(super) const fn may_retry(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Quota { .. } | Refusal::Overloaded(_) | Refusal::Internal)
}

/// How a connection ends whose CONNECT was refused.
pub(super) const fn connect_close(refusal: &Refusal) -> CloseKind {
    match refusal {
        Refusal::BadCredentials | Refusal::BadMethod => CloseKind::AuthFailed,
        // A limit met while connecting is one on connections.
        Refusal::Quota { .. } => CloseKind::TooManyConnections,
        other => request_close(other),
    }
}

/// How a connection in payload mode ends, which has no other word, when one of its requests was refused.
pub(super) const fn request_close(refusal: &Refusal) -> CloseKind {
    match refusal {
        Refusal::BadCredentials | Refusal::BadMethod => CloseKind::AuthFailed,
        Refusal::NotAuthorized | Refusal::Forbidden(_) => CloseKind::Denied,
        Refusal::BadClientId(_) | Refusal::BadTopic(_) | Refusal::Unsupported(_) => CloseKind::BadRequest,
        Refusal::Quota { .. } => CloseKind::Policy,
        Refusal::Overloaded(_) => CloseKind::Overloaded,
        Refusal::Internal => CloseKind::Internal,
    }
}

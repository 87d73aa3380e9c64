//! The wire form of MESSAGE that subscribers with `ack:auto` share: all of it but the head of their subscription.
//!
//! The head ends within `message-id`, which goes on with a number of the publication: so it is unique within a session
//! without anything that is counted there. What such a message cannot say (that it was retained, when it expires, what was
//! lost before it) the session writes, with ids of its own. Spec: STOMP 1.2 "MESSAGE"; DESIGN §5.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;

use super::destination::View;
use super::escape::Escaping;
use super::message::{is_shareable, is_utf8, put_shared};
use super::{FrameKind, Separator, Version};
use crate::publication::{Form, Publication};
use crate::session::{Forms, SubscriptionId};
use crate::websocket::MessageKind;
use crate::websocket::prepared::Prepared;

/// Each of them; lower versions share them wherever they write alike.
pub static FORMS: &[&Form] = &[&AUTO_V1_2, &BINARY_V1_2];

static AUTO_V1_2: Form = auto(|_| true);
static AUTO_V1_1: Form = auto(|publication| is_shareable(publication, Version::V1_1));
static AUTO_V1_0: Form = auto(|publication| is_shareable(publication, Version::V1_0));
static BINARY_V1_2: Form = binary(|_| true);
static BINARY_V1_1: Form = binary(|publication| is_shareable(publication, Version::V1_1));
static BINARY_V1_0: Form = binary(|publication| is_shareable(publication, Version::V1_0));

/// The form for subscribers with `ack:auto`.
pub(super) const fn of_version(version: Version, frames: FrameKind) -> &'static Forms {
    const fn live(form: &'static Form) -> Forms {
        Forms { live: form, retained: None }
    }
    static AUTO: [Forms; 3] = [live(&AUTO_V1_0), live(&AUTO_V1_1), live(&AUTO_V1_2)];
    static BINARY: [Forms; 3] = [live(&BINARY_V1_0), live(&BINARY_V1_1), live(&BINARY_V1_2)];
    let [v1_0, v1_1, v1_2] = match frames {
        FrameKind::Auto | FrameKind::Text => &AUTO,
        FrameKind::Binary => &BINARY,
    };
    match version {
        Version::V1_0 => v1_0,
        Version::V1_1 => v1_1,
        Version::V1_2 => v1_2,
    }
}

/// What stands before the form in each MESSAGE of one subscription: its constant part and the beginning of `message-id`.
pub(super) fn head(constant: &[u8], subscription: SubscriptionId) -> Box<[u8]> {
    [constant, format!("message-id:{}-", subscription.0).as_bytes()].concat().into()
}

const fn auto(serves: fn(&Publication) -> bool) -> Form {
    let encode = |publication: &Publication| {
        // RFC 6455 §8.1: a text message is UTF-8 or the peer fails the connection.
        encode(publication, if is_utf8(publication) { MessageKind::Text } else { MessageKind::Binary })
    };
    Form { slot: 16, lacks_expiry: true, behind_head: Some(serves), encode }
}

const fn binary(serves: fn(&Publication) -> bool) -> Form {
    let encode = |publication: &Publication| encode(publication, MessageKind::Binary);
    Form { slot: 17, lacks_expiry: true, behind_head: Some(serves), encode }
}

fn encode(publication: &Publication, kind: MessageKind) -> Prepared {
    let number = PUBLICATIONS.fetch_add(1, Ordering::Relaxed);
    let mut tail = BytesMut::with_capacity(publication.size_bytes() + HEADERS_BYTES_TYPICAL);
    // Writing to a BytesMut cannot fail.
    let _ = writeln!(tail, "{SHARED_MARK}{number}");
    put_shared(publication, View::common(Separator::Slash), Escaping::V1_2, &mut tail);
    Prepared::new(kind, &[&tail])
}

/// How many were encoded. The process counts them, since a publication has no number of its own.
static PUBLICATIONS: AtomicU64 = AtomicU64::new(1);

/// Tells the number of a publication from one that a subscription counts.
pub(super) const SHARED_MARK: char = 'p';

/// Room for the headers that most messages have.
const HEADERS_BYTES_TYPICAL: usize = 96;

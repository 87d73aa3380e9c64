//! A publication as a MESSAGE frame: a small head for one subscription, and everything else shared by all.
//!
//! STOMP leaves the order of headers open, so the headers that are equal for all receivers stand last, in front
//! of the body, in one shared piece with it. Only `subscription`, `message-id`, `ack` and what depends on the
//! moment are made for each delivery. A message of a queue is for one consumer, who knows the destination by
//! another name, so nothing of it is shared. Spec: STOMP 1.2 "MESSAGE"; WIRE §7.

use std::fmt::Write as _;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};

use super::destination::View;
use super::escape::{Escaping, Place};
use super::frame::put_header;
use super::{FrameKind, Separator, Version};
use crate::publication::{BodyForm, Properties, Publication};
use crate::session::{Lag, Outgoing};
use crate::websocket::MessageKind;
use crate::websocket::prepared::Body;

/// The shared headers, the empty line, the payload and NUL, with the escapes of 1.2. Lower versions share it
/// whenever they would write it alike.
pub const MESSAGE_BODY: BodyForm =
    BodyForm { slot: 1, encode: |publication| shared_part(publication, Separator::Slash) };

/// The same with the separator `.`.
pub const MESSAGE_BODY_DOTTED: BodyForm =
    BodyForm { slot: 2, encode: |publication| shared_part(publication, Separator::Dot) };

/// What is particular to one MESSAGE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heading<'a> {
    /// [`constant_part`] of the subscription.
    pub(super) constant: &'a [u8],
    /// How it shows destinations.
    pub(super) view: View<'a>,
    /// Number of the subscription within the session.
    pub(super) subscription: u32,
    /// Number of the message within the subscription.
    pub(super) serial: u64,
    /// The client is to answer ACK or NACK.
    pub(super) wants_ack: bool,
    /// It was kept for new subscribers.
    pub(super) is_retained: bool,
    /// Somebody may have got it before.
    pub(super) is_redelivered: bool,
    /// What was lost before it.
    pub(super) lag: Option<&'a Lag>,
}

/// The beginning of every MESSAGE of one subscription. In 1.0 a subscription may have no id.
pub(super) fn constant_part(id: Option<&str>, version: Version) -> Box<[u8]> {
    let mut out = BytesMut::with_capacity(64);
    out.put_slice(b"MESSAGE\n");
    if let Some(id) = id {
        put_header("subscription", id, version.into(), &mut out);
    }
    Box::from(&*out)
}

/// One MESSAGE. One allocation, unless the version writes the shared part differently.
pub(super) fn encode(
    publication: &Publication,
    heading: &Heading<'_>,
    version: Version,
    frames: FrameKind,
    now: Instant,
) -> Outgoing {
    let mut head = BytesMut::with_capacity(heading.constant.len() + HEAD_BYTES_TYPICAL);
    head.put_slice(heading.constant);
    put_heading(publication, heading, version, now, &mut head);
    let body = match heading.view.as_common().filter(|_| is_shareable(publication, version)) {
        Some(Separator::Slash) => Some(publication.body(&MESSAGE_BODY).clone()),
        Some(Separator::Dot) => Some(publication.body(&MESSAGE_BODY_DOTTED).clone()),
        None => {
            put_shared(publication, heading.view, version.into(), &mut head);
            None
        }
    };
    let kind = match frames {
        FrameKind::Binary => MessageKind::Binary,
        // RFC 6455 §8.1: a text message is UTF-8 or the peer fails the connection.
        FrameKind::Auto | FrameKind::Text if is_utf8(publication) => MessageKind::Text,
        FrameKind::Auto | FrameKind::Text => MessageKind::Binary,
    };
    Outgoing { kind, head: head.freeze(), body }
}

fn put_heading(
    publication: &Publication,
    heading: &Heading<'_>,
    version: Version,
    now: Instant,
    out: &mut BytesMut,
) {
    // Writing to a BytesMut cannot fail.
    let _ = writeln!(out, "message-id:{}-{}", heading.subscription, heading.serial);
    // "If the message is received from a subscription that requires explicit acknowledgment ... then the MESSAGE
    // frame MUST also contain an ack header". Since 1.2.
    if heading.wants_ack && version == Version::V1_2 {
        let _ = writeln!(out, "ack:{}-{}", heading.subscription, heading.serial);
    }
    if heading.is_retained {
        out.put_slice(b"retained:true\n");
    }
    if heading.is_redelivered {
        out.put_slice(b"redelivered:true\n");
    }
    if let Some(at) = publication.expires_at {
        // Rounded up: a message that is still delivered has not expired.
        let left_ms = at.saturating_duration_since(now).as_nanos().div_ceil(1_000_000);
        let _ = writeln!(out, "expiration:{left_ms}");
    }
    if let Some(lag) = heading.lag {
        let _ = writeln!(out, "x-lag:dropped={};conflated={}", lag.dropped, lag.conflated);
    }
}

fn shared_part(publication: &Publication, separator: Separator) -> Body {
    let mut out = BytesMut::with_capacity(publication.size_bytes() + HEAD_BYTES_TYPICAL);
    put_shared(publication, View::common(separator), Escaping::V1_2, &mut out);
    Body::new(out.freeze())
}

/// What is equal for all receivers.
pub(super) fn put_shared(publication: &Publication, view: View<'_>, escaping: Escaping, out: &mut BytesMut) {
    out.put_slice(b"destination:");
    put_topic(publication.topic.as_str(), view, escaping, out);
    let properties = publication.properties.as_deref();
    match properties.and_then(|properties| properties.content_type.as_deref()) {
        Some(content_type) => put_header("content-type", content_type, escaping, out),
        None if publication.is_text => out.put_slice(b"content-type:text/plain;charset=utf-8\n"),
        None => {}
    }
    let _ = writeln!(out, "content-length:{}", publication.payload.len());
    if let Some(at_ms) = publication.expires_ms {
        let _ = writeln!(out, "expires:{at_ms}");
    }
    if let Some(properties) = properties {
        put_properties(properties, view.separator(), escaping, out);
    }
    out.put_u8(b'\n');
    out.put_slice(&publication.payload);
    out.put_u8(0);
}

fn put_topic(topic: &str, view: View<'_>, escaping: Escaping, out: &mut BytesMut) {
    let (prefix, name) = view.show(topic);
    out.put_slice(prefix.as_bytes());
    escaping.put(&name, Place::Value, out);
    out.put_u8(b'\n');
}

fn put_properties(properties: &Properties, separator: Separator, escaping: Escaping, out: &mut BytesMut) {
    if let Some(topic) = &properties.response_topic {
        out.put_slice(b"reply-to:");
        put_topic(topic.as_str(), View::of_address(topic.as_str(), separator), escaping, out);
    }
    if let Some(data) = &properties.correlation_data {
        match simdutf8::basic::from_utf8(data) {
            Ok(text) if says(text, escaping) => put_header("correlation-id", text, escaping, out),
            _ => {
                put_header("correlation-id", &BASE64.encode(data), escaping, out);
                out.put_slice(b"correlation-encoding:base64\n");
            }
        }
    }
    for (name, value) in &properties.user {
        if is_reserved(name) {
            out.put_slice(USER_PREFIX.as_bytes());
        }
        put_header(name, value, escaping, out);
    }
}

/// Whether a value can be written so that every reader gets each character of it. In 1.0 the blanks around it may be
/// trimmed; before 1.2 a carriage return has no escape, and some take one at the end of a line for a part of that.
fn says(text: &str, escaping: Escaping) -> bool {
    match escaping {
        Escaping::None => !text.contains(['\0', '\r', '\n']) && text.trim_matches([' ', '\t']) == text,
        Escaping::V1_1 => !text.contains(['\0', '\r']),
        Escaping::V1_2 => !text.contains('\0'),
    }
}

/// Whether `version` writes the shared part as 1.2 does.
pub(super) fn is_shareable(publication: &Publication, version: Version) -> bool {
    let is_alike = |text: &str| match version {
        Version::V1_2 => true,
        Version::V1_1 => !text.contains('\r'),
        Version::V1_0 => Escaping::is_plain(text),
    };
    if version == Version::V1_2 {
        return true;
    }
    let Some(properties) = publication.properties.as_deref() else {
        return is_alike(publication.topic.as_str());
    };
    let correlation = properties.correlation_data.as_deref();
    is_alike(publication.topic.as_str())
        && properties.content_type.as_deref().is_none_or(is_alike)
        && properties.response_topic.as_ref().is_none_or(|topic| is_alike(topic.as_str()))
        && correlation.is_none_or(|data| {
            // In base64 all versions write it alike.
            let said =
                |text: &str| !says(text, Escaping::V1_2) || (is_alike(text) && says(text, version.into()));
            std::str::from_utf8(data).map_or(true, said)
        })
        && properties.user.iter().all(|(name, value)| is_alike(name) && is_alike(value))
}

pub(super) fn is_utf8(publication: &Publication) -> bool {
    publication.is_text || simdutf8::basic::from_utf8(&publication.payload).is_ok()
}

/// In front of the name of a user property that is not its publisher's to use in a frame.
pub(super) const USER_PREFIX: &str = "x-user-";

/// Names that mean something in a frame of ours or of a client. A user property of such a name is sent with
/// `x-user-` in front, so that nobody can speak in the broker's name (SEC-13). No name is one of them: a header
/// has at least one character there. And so are these with that prefix, so that taking it off gives back each name.
pub(super) fn is_reserved(name: &str) -> bool {
    matches!(
        name.trim_start_matches(USER_PREFIX),
        "" | "accept-version"
            | "ack"
            | "content-length"
            | "content-type"
            | "correlation-encoding"
            | "correlation-id"
            | "destination"
            | "expiration"
            | "expires"
            | "heart-beat"
            | "host"
            | "id"
            | "login"
            | "message"
            | "message-id"
            | "passcode"
            | "persistent"
            | "qos"
            | "receipt"
            | "receipt-id"
            | "redelivered"
            | "reply-to"
            | "retain"
            | "retained"
            | "selector"
            | "server"
            | "session"
            | "subscription"
            | "transaction"
            | "user-name"
            | "version"
            | "x-lag"
    )
}

/// Room for the headers that most messages have.
const HEAD_BYTES_TYPICAL: usize = 96;

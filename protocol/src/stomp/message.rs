//! A publication as a MESSAGE frame: a small head for one subscription, and everything else shared by all.
//!
//! STOMP leaves the order of headers open, so the headers that are equal for all receivers stand last, in front
//! of the body, in one shared piece with it. Only `subscription`, `message-id`, `ack` and what depends on the
//! moment are made for each delivery. Spec: STOMP 1.2 "MESSAGE"; WIRE §7.

use std::fmt::Write as _;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, BytesMut};

use super::destination::TOPIC_PREFIX;
use super::escape::{Escaping, Place};
use super::frame::put_header;
use super::{FrameKind, Version};
use crate::publication::{BodyForm, Properties, Publication};
use crate::session::{Lag, Outgoing};
use crate::websocket::MessageKind;
use crate::websocket::prepared::Body;

/// The shared headers, the empty line, the payload and NUL, with the escapes of 1.2. Lower versions share it
/// whenever they would write it alike.
pub const MESSAGE_BODY: BodyForm = BodyForm { slot: 1, encode: shared_part };

/// What is particular to one MESSAGE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heading<'a> {
    /// [`constant_part`] of the subscription.
    pub(super) constant: &'a [u8],
    /// Number of the subscription within the session.
    pub(super) subscription: u32,
    /// Number of the message within the subscription.
    pub(super) serial: u64,
    /// The client is to answer ACK or NACK.
    pub(super) wants_ack: bool,
    /// It was kept for new subscribers.
    pub(super) is_retained: bool,
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
    let body = if is_shareable(publication, version) {
        Some(publication.body(&MESSAGE_BODY).clone())
    } else {
        put_shared(publication, version.into(), &mut head);
        None
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
    if let Some(at) = publication.expires_at {
        let _ = writeln!(out, "expiration:{}", at.saturating_duration_since(now).as_millis());
    }
    if let Some(lag) = heading.lag {
        let _ = writeln!(out, "x-lag:dropped={};conflated={}", lag.dropped, lag.conflated);
    }
}

fn shared_part(publication: &Publication) -> Body {
    let mut out = BytesMut::with_capacity(publication.size_bytes() + HEAD_BYTES_TYPICAL);
    put_shared(publication, Escaping::V1_2, &mut out);
    Body::new(out.freeze())
}

/// What is equal for all receivers.
pub(super) fn put_shared(publication: &Publication, escaping: Escaping, out: &mut BytesMut) {
    out.put_slice(b"destination:");
    put_topic(publication.topic.as_str(), escaping, out);
    let properties = publication.properties.as_deref();
    match properties.and_then(|properties| properties.content_type.as_deref()) {
        Some(content_type) => put_header("content-type", content_type, escaping, out),
        None if publication.is_text => out.put_slice(b"content-type:text/plain;charset=utf-8\n"),
        None => {}
    }
    let _ = writeln!(out, "content-length:{}", publication.payload.len());
    if let Some(properties) = properties {
        put_properties(properties, escaping, out);
    }
    out.put_u8(b'\n');
    out.put_slice(&publication.payload);
    out.put_u8(0);
}

fn put_topic(topic: &str, escaping: Escaping, out: &mut BytesMut) {
    out.put_slice(TOPIC_PREFIX.as_bytes());
    escaping.put(topic, Place::Value, out);
    out.put_u8(b'\n');
}

fn put_properties(properties: &Properties, escaping: Escaping, out: &mut BytesMut) {
    if let Some(topic) = &properties.response_topic {
        out.put_slice(b"reply-to:");
        put_topic(topic.as_str(), escaping, out);
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
            out.put_slice(b"x-user-");
        }
        put_header(name, value, escaping, out);
    }
}

/// Whether a value can be written without losing a character.
fn says(text: &str, escaping: Escaping) -> bool {
    let lost: &[char] = if escaping == Escaping::None { &['\0', '\r', '\n'] } else { &['\0'] };
    !text.contains(lost)
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
        && correlation.is_none_or(|data| std::str::from_utf8(data).is_ok_and(is_alike))
        && properties.user.iter().all(|(name, value)| is_alike(name) && is_alike(value))
}

pub(super) fn is_utf8(publication: &Publication) -> bool {
    publication.is_text || simdutf8::basic::from_utf8(&publication.payload).is_ok()
}

/// Names that mean something in a frame of ours or of a client. A user property of such a name is sent with
/// `x-user-` in front, so that nobody can speak in the broker's name (SEC-13). No name is one of them: a header
/// has at least one character there.
fn is_reserved(name: &str) -> bool {
    matches!(
        name,
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

//! SEND as a publication: what its headers mean (WIRE §7). Spec: STOMP 1.2 "SEND".

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::super::destination::{Destinations, Kind};
use super::super::frame::Frame;
use super::super::message::{USER_PREFIX, is_reserved};
use super::error::SessionError;
use crate::publication::{Properties, Publication, QoS, says_utf8};
use crate::topic::Topic;

/// Reads a SEND. `payload` is its body, free of any larger buffer.
pub(super) fn read(
    frame: &Frame,
    payload: Bytes,
    destinations: &Destinations,
    now: Instant,
) -> Result<Publication, SessionError> {
    let destination = frame.header("destination").ok_or(SessionError::MissingHeader("destination"))?;
    let (kind, to) = topic("destination", destination, destinations)?;
    let mut publication = Publication::new(to, payload);
    // A queue keeps what nobody takes, which only an acknowledged message can be.
    let least = if kind == Kind::Queue { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    publication.qos = qos(frame)?.max(least);
    publication.retain = flag(frame, "retain")?;
    // Of a lifetime and a time of day the earlier one ends it; the broker, which has both clocks, sees to that.
    publication.expires_at = expires_at(frame, now)?;
    publication.expires_ms = milliseconds(frame, "expires")?.filter(|at| *at != 0);
    let content_type = frame.header("content-type");
    publication.is_text =
        content_type.is_some_and(says_utf8) && simdutf8::basic::from_utf8(&publication.payload).is_ok();
    let properties = Properties {
        content_type: content_type.map(Into::into),
        response_topic: match frame.header("reply-to") {
            Some(text) => Some(topic("reply-to", text, destinations)?.1),
            None => None,
        },
        correlation_data: correlation(frame)?,
        user: user_properties(frame),
    };
    publication.properties = (properties != Properties::default()).then(|| Box::new(properties));
    Ok(publication)
}

/// `true`, `false`, or nothing, which is `false`.
pub(super) fn flag(frame: &Frame, name: &'static str) -> Result<bool, SessionError> {
    match frame.header(name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(SessionError::BadHeader { name, why: "it is true or false" }),
    }
}

fn topic(
    name: &'static str,
    destination: &str,
    destinations: &Destinations,
) -> Result<(Kind, Topic), SessionError> {
    destinations.topic(destination).map_err(|why| SessionError::BadTopic { name, why })
}

/// The highest of what `qos`, `persistent` and `receipt` ask for (WIRE §8).
fn qos(frame: &Frame) -> Result<QoS, SessionError> {
    let asked = match frame.header("qos") {
        None | Some("0") => QoS::AtMostOnce,
        Some("1") => QoS::AtLeastOnce,
        Some("2") => return Err(SessionError::Unsupported("qos:2 in SEND")),
        Some(_) => return Err(SessionError::BadHeader { name: "qos", why: "it is 0 or 1" }),
    };
    let is_persistent = flag(frame, "persistent")?;
    let is_acknowledged = is_persistent || frame.header("receipt").is_some();
    Ok(if is_acknowledged { QoS::AtLeastOnce } else { asked })
}

/// `expiration` is a lifetime in milliseconds, as RabbitMQ has it; `expires` a Unix time in milliseconds, as ActiveMQ has
/// it, whose 0 means never. A lifetime beyond what an instant can hold is one without an end.
fn expires_at(frame: &Frame, now: Instant) -> Result<Option<Instant>, SessionError> {
    let lifetime = milliseconds(frame, "expiration")?.map(Duration::from_millis);
    Ok(lifetime.and_then(|lifetime| now.checked_add(lifetime)))
}

/// Digits, and nothing else.
fn milliseconds(frame: &Frame, name: &'static str) -> Result<Option<u64>, SessionError> {
    let Some(text) = frame.header(name) else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(milliseconds) if digits => Ok(Some(milliseconds)),
        _ => Err(SessionError::BadHeader { name, why: "it is a number of milliseconds" }),
    }
}

fn correlation(frame: &Frame) -> Result<Option<Bytes>, SessionError> {
    const WRONG: SessionError = SessionError::BadHeader {
        name: "correlation-encoding",
        why: "it is base64, and correlation-id is of that encoding",
    };
    let id = frame.header("correlation-id");
    match frame.header("correlation-encoding") {
        None => Ok(id.map(|id| Bytes::copy_from_slice(id.as_bytes()))),
        Some("base64") => match BASE64.decode(id.ok_or(WRONG)?) {
            Ok(data) => Ok(Some(data.into())),
            Err(_) => Err(WRONG),
        },
        Some(_) => Err(WRONG),
    }
}

/// All other headers, in order, with repetitions: "any arbitrary user defined headers". Those that a MESSAGE has under
/// another name come back under their own.
fn user_properties(frame: &Frame) -> Vec<(Box<str>, Box<str>)> {
    let user = frame.headers.iter().filter(|header| !is_of_send(&header.name));
    user.map(|header| {
        let name = header.name.as_str();
        let own = name.strip_prefix(USER_PREFIX).filter(|own| is_reserved(own));
        (own.unwrap_or(name).into(), header.value.as_str().into())
    })
    .collect()
}

/// The headers that are read here or by the session.
fn is_of_send(name: &str) -> bool {
    matches!(
        name,
        "content-length"
            | "content-type"
            | "correlation-encoding"
            | "correlation-id"
            | "destination"
            | "expiration"
            | "expires"
            | "persistent"
            | "qos"
            | "receipt"
            | "reply-to"
            | "retain"
            | "transaction"
    )
}

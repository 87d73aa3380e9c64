//! SEND as a publication: what its headers mean (WIRE §7). Spec: STOMP 1.2 "SEND".

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::super::destination::{Destinations, Kind};
use super::super::frame::Frame;
use super::error::SessionError;
use crate::publication::{Properties, Publication, QoS};
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
    publication.expires_at = expires_at(frame, now)?;
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

/// `expiration` is a lifetime in milliseconds. `expires` is a wall-clock time, which nothing here can compare
/// with; its 0 means never.
fn expires_at(frame: &Frame, now: Instant) -> Result<Option<Instant>, SessionError> {
    if frame.header("expires").is_some_and(|at| at != "0") {
        return Err(SessionError::Unsupported(
            "expires in SEND; expiration takes a lifetime in milliseconds",
        ));
    }
    let Some(text) = frame.header("expiration") else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let milliseconds: Option<u64> = if digits { text.parse().ok() } else { None };
    let Some(milliseconds) = milliseconds else {
        return Err(SessionError::BadHeader { name: "expiration", why: "it is a number of milliseconds" });
    };
    // A lifetime beyond what an instant can hold is one without an end.
    Ok(now.checked_add(Duration::from_millis(milliseconds)))
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

/// All other headers, in order, with repetitions: "any arbitrary user defined headers".
fn user_properties(frame: &Frame) -> Vec<(Box<str>, Box<str>)> {
    let user = frame.headers.iter().filter(|header| !is_of_send(&header.name));
    user.map(|header| (header.name.as_str().into(), header.value.as_str().into())).collect()
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

/// Whether a MIME type promises UTF-8: by its charset, or as text or JSON without one (WIRE §7).
fn says_utf8(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    match charset {
        Some(charset) => charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8"),
        None => essence.starts_with("text/") || essence == "application/json" || essence.ends_with("+json"),
    }
}

#[cfg(test)]
mod tests {
    use super::says_utf8;

    #[test]
    fn text_and_json_are_utf8_unless_another_charset_is_named() {
        for (content_type, expected) in [
            ("text/plain", true),
            ("text/plain;charset=utf-8", true),
            ("TEXT/Plain; Charset=\"UTF-8\"", true),
            ("text/plain;charset=iso-8859-1", false),
            ("application/json", true),
            ("application/vnd.x+json", true),
            ("application/octet-stream", false),
            ("application/octet-stream;charset=utf-8", true),
            ("", false),
        ] {
            assert_eq!(says_utf8(content_type), expected, "{content_type}");
        }
    }
}

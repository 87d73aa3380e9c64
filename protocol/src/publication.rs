//! What is published: one message with its topic, properties, and the wire forms that its receivers share.
//!
//! Knows no protocol: a [`Form`] is a constant beside a codec, and a publication only calls its function.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use crate::topic::Topic;
use crate::websocket::prepared::{Body, Prepared};

/// MQTT's word for how surely a message arrives (OASIS MQTT 5.0 §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// No acknowledgement.
    #[default]
    AtMostOnce = 0,
    /// Acknowledged; may arrive twice.
    AtLeastOnce = 1,
    /// Acknowledged in two steps; arrives once.
    ExactlyOnce = 2,
}

impl QoS {
    /// From the two bits or the number that stand on the wire.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// What a publisher says beside the payload (WIRE §7). Boxed in a publication, since most have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// A MIME type.
    pub content_type: Option<Box<str>>,
    /// The canonical topic for an answer.
    pub response_topic: Option<Topic>,
    /// Bytes that the answer repeats.
    pub correlation_data: Option<Bytes>,
    /// Name and value pairs in the publisher's order; a name may repeat.
    pub user: Vec<(Box<str>, Box<str>)>,
}

/// One published message. Fields are set before it is shared; after that it is read-only behind an `Arc`.
#[derive(Debug)]
pub struct Publication {
    /// Where to.
    pub topic: Topic,
    /// What; opaque bytes.
    pub payload: Bytes,
    /// The QoS that the publisher asked for.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// The publisher said that the payload is UTF-8 text, and it is.
    pub is_text: bool,
    /// What else the publisher said.
    pub properties: Option<Box<Properties>>,
    /// After this instant it is not delivered any more.
    pub expires_at: Option<Instant>,
    /// The same by the clock on the wall, in Unix milliseconds. A session that was told a time of day sets this one,
    /// since it has no such clock; the broker makes both of whichever there is.
    pub expires_ms: Option<u64>,
    /// Unix time in milliseconds at which the broker took it; 0 until then.
    pub published_ms: u64,
    /// The connection that published it, for No Local; 0 is the broker itself.
    pub publisher: u64,
    forms: [OnceLock<Box<Prepared>>; Form::SLOTS],
    bodies: [OnceLock<Arc<Body>>; BodyForm::SLOTS],
    charge: Option<Charge>,
}

/// A wire form that is equal for all its receivers: a complete, unmasked WebSocket message, or all of one but its head.
#[derive(Debug)]
pub struct Form {
    /// Where a publication keeps it; unique among all codecs (a test in `subprotocol.rs` holds that).
    pub slot: u8,
    /// The form cannot carry an expiry that counts down, so a publication that has one is left to the session.
    pub lacks_expiry: bool,
    /// It is no message by itself: it stands behind the head of its subscription, and serves the publications of which
    /// this says so.
    pub behind_head: Option<fn(&Publication) -> bool>,
    /// Makes it.
    pub encode: fn(&Publication) -> Prepared,
}

/// The shared part of messages whose heads differ by receiver.
#[derive(Debug)]
pub struct BodyForm {
    /// Where a publication keeps it; unique among all codecs.
    pub slot: u8,
    /// Makes it.
    pub encode: fn(&Publication) -> Body,
}

impl Form {
    /// Wire forms there is room for.
    pub const SLOTS: usize = 18;

    /// Whether its receivers can be sent this publication by it.
    #[must_use]
    pub fn serves(&self, publication: &Publication) -> bool {
        (!self.lacks_expiry || publication.expires_at.is_none())
            && self.behind_head.is_none_or(|serves| serves(publication))
    }
}

impl BodyForm {
    /// Bodies there is room for.
    pub const SLOTS: usize = 3;

    /// The payload and nothing else: the body of MQTT's PUBLISH and of payload mode.
    pub const PAYLOAD: Self = Self { slot: 0, encode: |publication| Body::new(publication.payload.clone()) };
}

impl Publication {
    /// What an entry costs beside its topic and payload, about: the struct and its allocations.
    pub const OVERHEAD_BYTES: usize = 512;

    /// A QoS 0 message, not retained, with nothing said beside it. The caller has made sure that `payload` does
    /// not keep a much larger buffer alive ([`compact`]).
    #[must_use]
    pub fn new(topic: Topic, payload: Bytes) -> Self {
        Self {
            topic,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            is_text: false,
            properties: None,
            expires_at: None,
            expires_ms: None,
            published_ms: 0,
            publisher: 0,
            forms: Default::default(),
            bodies: Default::default(),
            charge: None,
        }
    }

    /// The form, made on first use and shared after that.
    pub fn prepared(&self, form: &Form) -> &Prepared {
        let make = || {
            let prepared = (form.encode)(self);
            self.add_charge(prepared.frame().len());
            Box::new(prepared)
        };
        match self.forms.get(usize::from(form.slot)) {
            Some(slot) => slot.get_or_init(make),
            None => unreachable!("slots are constants below Form::SLOTS; a test holds that"),
        }
    }

    /// The shared body, made on first use.
    pub fn body(&self, form: &BodyForm) -> &Arc<Body> {
        match self.bodies.get(usize::from(form.slot)) {
            Some(slot) => slot.get_or_init(|| Arc::new((form.encode)(self))),
            None => unreachable!("slots are constants below BodyForm::SLOTS; a test holds that"),
        }
    }

    /// The payload as a shared body; `None` when it has no bytes.
    pub fn payload_body(&self) -> Option<&Arc<Body>> {
        (!self.payload.is_empty()).then(|| self.body(&BodyForm::PAYLOAD))
    }

    /// Whether it is not to be delivered any more.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Payload, topic and properties: what counts against limits in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let properties = self.properties.as_deref().map_or(0, Properties::size_bytes);
        self.payload.len() + self.topic.as_str().len() + properties
    }

    /// Counts its bytes, its forms included, in `total` for as long as it lives.
    pub fn charge_to(&mut self, total: &Arc<AtomicUsize>) {
        let charge = Charge { total: Arc::clone(total), bytes: AtomicUsize::new(0) };
        charge.add(self.size_bytes() + Self::OVERHEAD_BYTES);
        self.charge = Some(charge);
    }

    fn add_charge(&self, bytes: usize) {
        if let Some(charge) = &self.charge {
            charge.add(bytes);
        }
    }
}

impl Properties {
    fn size_bytes(&self) -> usize {
        let user: usize = self.user.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        self.content_type.as_deref().map_or(0, str::len)
            + self.response_topic.as_ref().map_or(0, |topic| topic.as_str().len())
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
            + user
    }
}

/// Whether a MIME type promises UTF-8: by its charset, or as text or JSON without one (WIRE §7).
#[must_use]
pub fn says_utf8(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    match charset {
        Some(charset) => {
            ["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
        }
        None => essence.starts_with("text/") || essence == "application/json" || essence.ends_with("+json"),
    }
}

/// Takes a payload out of a larger read buffer by copying it when it is small, so that a slice of 200 bytes does
/// not keep a buffer of 64 KiB alive (SEC-17).
#[must_use]
pub fn compact(payload: &Bytes) -> Bytes {
    if payload.len() < COMPACT_BELOW_BYTES { Bytes::copy_from_slice(payload) } else { payload.clone() }
}

/// Half of the largest read buffer: what is longer owns at least half of the memory that it pins.
pub const COMPACT_BELOW_BYTES: usize = 32 * 1024;

/// A running sum that a publication gives back when its last receiver is done with it.
#[derive(Debug)]
struct Charge {
    total: Arc<AtomicUsize>,
    bytes: AtomicUsize,
}

impl Charge {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.total.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicLimits;

    #[test]
    fn text_and_json_are_utf8_unless_another_charset_is_named() {
        for (content_type, expected) in [
            ("text/plain", true),
            ("text/plain;charset=utf-8", true),
            ("TEXT/Plain; Charset=\"UTF-8\"", true),
            ("text/plain; format=flowed; charset=us-ascii", true),
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

    #[test]
    fn the_struct_is_within_what_it_is_counted_as() {
        assert!(size_of::<Publication>() <= Publication::OVERHEAD_BYTES, "{}", size_of::<Publication>());
    }

    #[test]
    fn gives_back_what_it_charged() {
        let total = Arc::new(AtomicUsize::new(0));
        let topic = Topic::parse("a", &TopicLimits::STANDARD).unwrap();
        let mut publication = Publication::new(topic, Bytes::from_static(b"1234"));
        publication.charge_to(&total);
        assert_eq!(total.load(Ordering::Relaxed), 5 + Publication::OVERHEAD_BYTES);
        drop(publication);
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}

//! What SUBSCRIBE asks for, and how it and UNSUBSCRIBE name a subscription. Knows no other subscription.
//! Spec: STOMP 1.2 "SUBSCRIBE"; differences of 1.0 and 1.1 where they are obeyed; WIRE §6, §8.

use std::num::NonZeroU16;
use std::sync::Arc;

use super::super::destination::{Destinations, Kind};
use super::super::frame::Frame;
use super::super::{Separator, Settings, Version, forms};
use super::durable::{Dialect, check_queue};
use super::error::SessionError;
use super::publish::flag;
use crate::publication::QoS;
use crate::selector::Selector;
use crate::session::{Copies, RetainHandling, Subscribe, SubscriptionId};
use crate::topic::{ShareName, TopicFilter};

/// What the frames of one client are read with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) version: Version,
    pub(super) settings: &'a Settings,
    destinations: &'a Destinations,
    /// Of CONNECT.
    pub(super) client_id: Option<&'a str>,
}

/// One SUBSCRIBE.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) kind: Kind,
    pub(super) filter: TopicFilter,
    /// Each message goes to one member of it.
    pub(super) group: Option<ShareName>,
    /// What it is kept under when the client is gone.
    pub(super) durable: Option<Box<str>>,
    pub(super) mode: AckMode,
    /// Messages that may wait for ACK or NACK.
    pub(super) prefetch: usize,
    selector: Option<Arc<Selector>>,
    no_local: bool,
}

/// How a client names a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Id(Box<str>),
    /// 1.0 without an id.
    Destination(Box<str>),
}

/// STOMP 1.2 "SUBSCRIBE ack Header".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckMode {
    /// Never acknowledged.
    Auto,
    /// ACK and NACK are cumulative.
    Client,
    /// Each message for itself.
    ClientIndividual,
}

impl<'a> Terms<'a> {
    pub(super) const fn new(
        version: Version,
        settings: &'a Settings,
        destinations: &'a Destinations,
        client_id: Option<&'a str>,
    ) -> Self {
        Self { version, settings, destinations, client_id }
    }
}

impl Wanted {
    pub(super) fn read(frame: &Frame, terms: Terms<'_>) -> Result<Self, SessionError> {
        let destination = frame.header("destination").ok_or(SessionError::MissingHeader("destination"))?;
        let key = Key::read(frame, terms.version)?;
        let (kind, filter) = filter(destination, terms)?;
        let group = group(frame, kind, terms)?;
        let durable = durable(frame, kind, &filter, terms)?;
        if durable.is_some() && group.is_some() {
            let why = "a durable subscription is not shared";
            return Err(SessionError::BadHeader { name: "share", why });
        }
        Ok(Self {
            mode: AckMode::parse(frame.header("ack"), terms.version)?,
            prefetch: prefetch(frame, terms.settings)?,
            selector: selector(frame, terms.settings)?,
            no_local: flag(frame, "no-local")?,
            key,
            kind,
            filter,
            group,
            durable,
        })
    }

    /// What a `reply-to` needs: it goes by its own name.
    pub(super) fn replies_to(destination: &str, terms: Terms<'_>) -> Result<Self, SessionError> {
        let (kind, filter) = filter(destination, terms)?;
        Ok(Self {
            key: Key::Id(destination.into()),
            kind,
            filter,
            group: None,
            durable: None,
            mode: AckMode::Auto,
            prefetch: 0,
            selector: None,
            no_local: false,
        })
    }

    /// The request for it.
    pub(super) fn into_subscribe(self, id: SubscriptionId, constant: &[u8], terms: Terms<'_>) -> Subscribe {
        // What waits for a client that is away, or for any at all, is acknowledged; with `ack:auto` by being sent.
        let is_kept = self.kind == Kind::Queue || self.durable.is_some();
        let is_acknowledged = self.mode != AckMode::Auto;
        // Without acknowledgements only the head of a MESSAGE is this subscription's own.
        let is_plain = self.kind == Kind::Topic && terms.settings.separator == Separator::Slash;
        let is_shared = is_plain && !is_acknowledged && !is_kept;
        let is_of_one = self.group.is_some() || self.kind == Kind::TempQueue;
        let prefetch = NonZeroU16::new(u16::try_from(self.prefetch).unwrap_or(u16::MAX));
        Subscribe {
            id: Some(id),
            filter: self.filter,
            group: self.group,
            identifier: None,
            qos: if is_acknowledged || is_kept { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            forms: is_shared.then(|| forms::of_version(terms.version, terms.settings.frames)),
            head: is_shared.then(|| forms::head(constant, id)),
            no_local: self.no_local,
            retain_as_published: false,
            retained: if is_of_one { RetainHandling::Skip } else { RetainHandling::Send },
            overflow: None,
            conflate: None,
            copies: Copies::PerSubscription,
            selector: self.selector,
            durable: self.durable,
            prefetch: prefetch.filter(|_| is_acknowledged),
        }
    }
}

impl Key {
    /// Since 1.1 a subscription has an id; in 1.0 the destination stands in for a missing one.
    pub(super) fn read(frame: &Frame, version: Version) -> Result<Self, SessionError> {
        match (frame.header("id"), frame.header("destination")) {
            (Some(id), _) => Ok(Self::Id(id.into())),
            (None, Some(destination)) if version == Version::V1_0 => {
                Ok(Self::Destination(destination.into()))
            }
            (None, None) if version == Version::V1_0 => Err(SessionError::MissingHeader("id or destination")),
            (None, _) => Err(SessionError::MissingHeader("id")),
        }
    }

    /// In 1.0 a subscription may have none.
    pub(super) fn as_id(&self) -> Option<&str> {
        if let Self::Id(id) = self { Some(id) } else { None }
    }
}

impl AckMode {
    fn parse(text: Option<&str>, version: Version) -> Result<Self, SessionError> {
        match text {
            None | Some("auto") => Ok(Self::Auto),
            Some("client") => Ok(Self::Client),
            Some("client-individual") if version > Version::V1_0 => Ok(Self::ClientIndividual),
            Some(_) if version > Version::V1_0 => {
                Err(SessionError::BadHeader { name: "ack", why: "it is auto, client or client-individual" })
            }
            Some(_) => Err(SessionError::BadHeader { name: "ack", why: "it is auto or client" }),
        }
    }
}

pub(super) fn filter(destination: &str, terms: Terms<'_>) -> Result<(Kind, TopicFilter), SessionError> {
    let filter = terms.destinations.filter(destination);
    filter.map_err(|why| SessionError::BadTopic { name: "destination", why })
}

/// The consumers of a queue are the members of one group (WIRE §6).
fn group(frame: &Frame, kind: Kind, terms: Terms<'_>) -> Result<Option<ShareName>, SessionError> {
    const NAME: &str = "share";
    let named = match (frame.header(NAME), kind) {
        (None, Kind::Queue) => QUEUE_GROUP,
        (None, _) => return Ok(None),
        (Some(name), Kind::Topic) => name,
        (Some(_), _) => {
            return Err(SessionError::BadHeader { name: NAME, why: "it is for /topic/ destinations" });
        }
    };
    let group = ShareName::parse(named, terms.destinations.limits());
    group.map(Some).map_err(|error| SessionError::BadTopic { name: NAME, why: error.into() })
}

/// The name of a durable subscription.
fn durable(
    frame: &Frame,
    kind: Kind,
    filter: &TopicFilter,
    terms: Terms<'_>,
) -> Result<Option<Box<str>>, SessionError> {
    if kind == Kind::Queue {
        return check_queue(frame).map(|()| None);
    }
    match (Dialect::of(frame)?, kind) {
        (None, _) => Ok(None),
        (Some(dialect), Kind::Topic) => {
            dialect.name(terms.client_id, frame.header("id"), || Ok(filter.clone())).map(Some)
        }
        (Some(_), _) => {
            let why = "only a /topic/ has durable subscriptions";
            Err(SessionError::BadHeader { name: "destination", why })
        }
    }
}

fn prefetch(frame: &Frame, settings: &Settings) -> Result<usize, SessionError> {
    let most = settings.prefetch.max(1);
    let Some(text) = frame.header("prefetch-count") else { return Ok(most) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        // RabbitMQ's "no limit".
        Ok(0) if digits => Ok(most),
        Ok(count) if digits => Ok(most.min(count)),
        _ => Err(SessionError::BadHeader { name: "prefetch-count", why: "it is a number of messages" }),
    }
}

fn selector(frame: &Frame, settings: &Settings) -> Result<Option<Arc<Selector>>, SessionError> {
    let Some(text) = frame.header("selector") else { return Ok(None) };
    if text.len() > settings.max_selector_bytes {
        return Err(SessionError::SelectorTooLong { limit: settings.max_selector_bytes });
    }
    // Jakarta Messaging 3.1 §3.8.1: one of no characters selects everything.
    if text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Selector::parse(text)?)))
}

/// The one group of every queue's consumers (WIRE §6).
const QUEUE_GROUP: &str = "queue";

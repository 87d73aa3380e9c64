//! The subscriptions of one session, and which messages wait for ACK or NACK.
//! Spec: STOMP 1.2 "SUBSCRIBE", "ACK"; differences of 1.0 and 1.1 where they are obeyed.

use std::collections::BTreeMap;

use super::super::destination::canonical;
use super::super::forms;
use super::super::frame::Frame;
use super::super::message::constant_part;
use super::super::{Settings, Version};
use super::error::SessionError;
use super::publish::flag;
use crate::publication::QoS;
use crate::session::{
    Copies, Delivery, DropReason, RetainHandling, Settlement, Subscribe, SubscriptionId, Tag,
};
use crate::topic::TopicFilter;

/// All of them, by number.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    by_id: BTreeMap<SubscriptionId, Subscription>,
    /// Numbers are not used twice, so that an ACK that is late cannot mean another subscription.
    next: u32,
    /// Sum of the prefetch of those that acknowledge: the window of the session.
    window: usize,
    /// How many need no acknowledgement.
    auto: usize,
    /// Messages that wait for ACK or NACK.
    unacknowledged: usize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Subscription {
    key: Key,
    mode: AckMode,
    prefetch: usize,
    /// Of the last MESSAGE.
    serial: u64,
    /// By serial. Empty with `ack:auto`.
    unacknowledged: BTreeMap<u64, Unacknowledged>,
    /// The beginning of each MESSAGE.
    pub(super) constant: Box<[u8]>,
}

/// How a client names a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
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

#[derive(Clone, Copy, Debug)]
struct Unacknowledged {
    tag: Tag,
    qos: QoS,
}

/// ACK or NACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    Nack,
}

/// A delivery that the broker is to be told about.
pub(super) type Settled = (Tag, Settlement);

impl Subscriptions {
    /// Reads a SUBSCRIBE and enters it.
    pub(super) fn subscribe(
        &mut self,
        frame: &Frame,
        version: Version,
        settings: &Settings,
    ) -> Result<Subscribe, SessionError> {
        refuse_unsupported(frame)?;
        let destination = frame.header("destination").ok_or(SessionError::MissingHeader("destination"))?;
        let key = key(frame, version)?;
        if self.find(&key).is_some() {
            return Err(SessionError::DuplicateSubscription);
        }
        if self.by_id.len() >= settings.max_subscriptions {
            return Err(SessionError::TooManySubscriptions { limit: settings.max_subscriptions });
        }
        let filter = filter(destination, settings)?;
        let mode = AckMode::parse(frame.header("ack"), version)?;
        let prefetch = prefetch(frame, settings)?;
        let no_local = flag(frame, "no-local")?;

        let id = SubscriptionId(self.next);
        self.next = self.next.wrapping_add(1);
        let named = if let Key::Id(id) = &key { Some(&**id) } else { None };
        let constant = constant_part(named, version);
        match mode {
            AckMode::Auto => self.auto += 1,
            AckMode::Client | AckMode::ClientIndividual => self.window += prefetch,
        }
        // Without acknowledgements only the head of a MESSAGE is this subscription's own.
        let is_shared = mode == AckMode::Auto;
        let head = is_shared.then(|| forms::head(&constant, id));
        let unacknowledged = BTreeMap::new();
        self.by_id.insert(id, Subscription { key, mode, prefetch, serial: 0, unacknowledged, constant });
        Ok(Subscribe {
            id: Some(id),
            filter,
            group: None,
            identifier: None,
            qos: if mode == AckMode::Auto { QoS::AtMostOnce } else { QoS::AtLeastOnce },
            forms: is_shared.then(|| forms::of_version(version, settings.frames)),
            head,
            no_local,
            retain_as_published: false,
            retained: RetainHandling::Send,
            overflow: None,
            conflate: None,
            copies: Copies::PerSubscription,
            selector: None,
            durable: None,
            prefetch: None,
        })
    }

    /// Reads an UNSUBSCRIBE and removes what it names; what of it waits for ACK is not delivered any more.
    pub(super) fn unsubscribe(
        &mut self,
        frame: &Frame,
        version: Version,
    ) -> Result<(SubscriptionId, Vec<Settled>), SessionError> {
        let key = key(frame, version)?;
        let id = self.find(&key).ok_or(SessionError::NoSuchSubscription)?;
        let Some(gone) = self.by_id.remove(&id) else { return Err(SessionError::NoSuchSubscription) };
        match gone.mode {
            AckMode::Auto => self.auto -= 1,
            AckMode::Client | AckMode::ClientIndividual => self.window -= gone.prefetch,
        }
        self.unacknowledged -= gone.unacknowledged.len();
        let left = gone.unacknowledged.into_values().filter(|message| message.qos > QoS::AtMostOnce);
        let settled = left.map(|message| (message.tag, Settlement::Dropped(DropReason::Closed)));
        Ok((id, settled.collect()))
    }

    /// Gives a delivery its serial and, where it is to be acknowledged, remembers it. `None`: the subscription
    /// has ended meanwhile.
    pub(super) fn deliver(&mut self, delivery: &Delivery) -> Option<(&Subscription, u64)> {
        let is_full = self.unacknowledged >= self.window;
        let subscription = self.by_id.get_mut(&delivery.subscription)?;
        subscription.serial += 1;
        // QoS 0 is tracked for the window's sake alone; beyond it, its ACK is taken as a late one.
        if subscription.wants_ack() && (delivery.qos > QoS::AtMostOnce || !is_full) {
            let message = Unacknowledged { tag: delivery.tag, qos: delivery.qos };
            subscription.unacknowledged.insert(subscription.serial, message);
            self.unacknowledged += 1;
        }
        Some((subscription, subscription.serial))
    }

    /// Reads ACK or NACK and says what is settled by it.
    pub(super) fn acknowledge(
        &mut self,
        frame: &Frame,
        verdict: Verdict,
        version: Version,
    ) -> Result<Vec<Settled>, SessionError> {
        let name = if version == Version::V1_2 { "id" } else { "message-id" };
        let message_id = frame.header(name).ok_or(SessionError::MissingHeader(name))?;
        // 1.1: "ACK has two REQUIRED headers: message-id … and subscription".
        let claimed = match version {
            Version::V1_1 => {
                Some(frame.header("subscription").ok_or(SessionError::MissingHeader("subscription"))?)
            }
            Version::V1_0 | Version::V1_2 => None,
        };
        let (id, number) = parse_message_id(message_id).ok_or(SessionError::UnknownMessage)?;
        let Some(subscription) = self.by_id.get_mut(&id) else {
            // The subscription may have ended while this ACK was on its way.
            return if id.0 < self.next { Ok(Vec::new()) } else { Err(SessionError::UnknownMessage) };
        };
        if claimed.is_some_and(|claimed| !subscription.key.is_id(claimed)) {
            let why = "the message is not of that subscription";
            return Err(SessionError::BadHeader { name: "subscription", why });
        }
        let serial = match number {
            Number::Serial(serial) if (1..=subscription.serial).contains(&serial) => serial,
            Number::Publication if !subscription.wants_ack() => return Err(SessionError::AutoAck),
            _ => return Err(SessionError::UnknownMessage),
        };
        let taken = subscription.take(serial)?;
        self.unacknowledged -= taken.len();
        Ok(taken.into_iter().filter_map(|message| message.settle(verdict)).collect())
    }

    /// Whether another acknowledged message may be sent.
    pub(super) const fn has_window(&self) -> bool {
        self.window == 0 || self.unacknowledged < self.window
    }

    /// Whether any subscription needs no acknowledgement.
    pub(super) const fn has_auto(&self) -> bool {
        self.auto > 0
    }

    fn find(&self, key: &Key) -> Option<SubscriptionId> {
        self.by_id.iter().find(|(_, subscription)| subscription.key == *key).map(|(id, _)| *id)
    }
}

impl Subscription {
    pub(super) fn wants_ack(&self) -> bool {
        self.mode != AckMode::Auto
    }

    /// What an ACK of this message covers. Nothing, when it was covered before.
    fn take(&mut self, serial: u64) -> Result<Vec<Unacknowledged>, SessionError> {
        match self.mode {
            AckMode::Auto => Err(SessionError::AutoAck),
            AckMode::ClientIndividual => Ok(self.unacknowledged.remove(&serial).into_iter().collect()),
            AckMode::Client => {
                let later = self.unacknowledged.split_off(&(serial.saturating_add(1)));
                Ok(std::mem::replace(&mut self.unacknowledged, later).into_values().collect())
            }
        }
    }
}

impl Unacknowledged {
    /// NACK of a topic's message counts as handled: there is nobody to give it to (WIRE §8).
    fn settle(self, verdict: Verdict) -> Option<Settled> {
        match (verdict, self.qos) {
            (Verdict::Ack, QoS::AtMostOnce) => None,
            (Verdict::Ack, _) => Some((self.tag, Settlement::Accepted)),
            (Verdict::Nack, _) => Some((self.tag, Settlement::Dropped(DropReason::Refused))),
        }
    }
}

impl Key {
    fn is_id(&self, text: &str) -> bool {
        matches!(self, Self::Id(id) if **id == *text)
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

/// Since 1.1 a subscription has an id; in 1.0 the destination stands in for a missing one.
fn key(frame: &Frame, version: Version) -> Result<Key, SessionError> {
    match (frame.header("id"), frame.header("destination")) {
        (Some(id), _) => Ok(Key::Id(id.into())),
        (None, Some(destination)) if version == Version::V1_0 => Ok(Key::Destination(destination.into())),
        (None, None) if version == Version::V1_0 => Err(SessionError::MissingHeader("id or destination")),
        (None, _) => Err(SessionError::MissingHeader("id")),
    }
}

fn filter(destination: &str, settings: &Settings) -> Result<TopicFilter, SessionError> {
    const NAME: &str = "destination";
    let text = canonical(destination, settings.unknown_prefix)
        .map_err(|why| SessionError::BadTopic { name: NAME, why })?;
    // MQTT's way to name a group; taken literally it would match nothing for ever.
    if text.starts_with("$share/") {
        return Err(SessionError::Unsupported("shared subscriptions"));
    }
    TopicFilter::parse(text, &settings.topic_limits).map_err(|error| SessionError::topic(NAME, error))
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

/// What would change which messages come, and is not there: never ignored.
fn refuse_unsupported(frame: &Frame) -> Result<(), SessionError> {
    for (name, refused) in [
        ("selector", "selector"),
        ("share", "shared subscriptions"),
        ("durable-subscription-name", "durable subscriptions"),
        ("activemq.subscriptionName", "durable subscriptions"),
    ] {
        if frame.header(name).is_some() {
            return Err(SessionError::Unsupported(refused));
        }
    }
    if flag(frame, "durable")? || flag(frame, "persistent")? {
        return Err(SessionError::Unsupported("durable subscriptions"));
    }
    Ok(())
}

/// What a message goes by within its subscription.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// The subscription's own, as `message::encode` writes it.
    Serial(u64),
    /// That of the publication, as [`forms`] write it; never to be acknowledged.
    Publication,
}

/// `<subscription>-<serial>` or `<subscription>-p<publication>`, as they are written and in no other spelling.
fn parse_message_id(text: &str) -> Option<(SubscriptionId, Number)> {
    let (subscription, number) = text.split_once('-')?;
    let shared = number.strip_prefix(forms::SHARED_MARK);
    let id: u32 = subscription.parse().ok()?;
    let value: u64 = shared.unwrap_or(number).parse().ok()?;
    let is_ours = subscription == id.to_string() && shared.unwrap_or(number) == value.to_string();
    let number = if shared.is_some() { Number::Publication } else { Number::Serial(value) };
    is_ours.then_some((SubscriptionId(id), number))
}

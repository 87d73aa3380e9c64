//! The subscriptions of one session, and which messages wait for ACK or NACK.
//! Spec: STOMP 1.2 "SUBSCRIBE", "ACK"; differences of 1.0 and 1.1 where they are obeyed.

use std::collections::BTreeMap;

use super::super::Version;
use super::super::destination::Kind;
use super::super::forms;
use super::super::frame::Frame;
use super::super::message::constant_part;
use super::durable::Dialect;
use super::error::SessionError;
use super::publish::flag;
use super::subscribe::{AckMode, Key, Terms, Wanted, filter};
use crate::publication::QoS;
use crate::session::{Delivery, DropReason, Settlement, Subscribe, SubscriptionId, SubscriptionName, Tag};
use crate::topic::{Topic, TopicFilter};

/// All of them, by number.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    by_id: BTreeMap<SubscriptionId, Subscription>,
    /// Those that have ended and whose end the broker has not confirmed, if others may get what was on its way.
    ending: Vec<(SubscriptionId, Successor)>,
    /// Numbers are not used twice, so that an ACK that is late cannot mean another subscription.
    next: u32,
    /// Sum of the prefetch of those that acknowledge: the window of the session.
    window: usize,
    /// How many need no acknowledgement.
    auto: usize,
    /// Messages that wait for ACK or NACK, or for the COMMIT of one.
    unacknowledged: usize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Subscription {
    key: Key,
    mode: AckMode,
    prefetch: usize,
    filter: TopicFilter,
    /// What it is kept under when the client is gone.
    durable: Option<Box<str>>,
    successor: Successor,
    /// Of the last MESSAGE.
    serial: u64,
    /// By serial. Empty with `ack:auto`.
    unacknowledged: BTreeMap<u64, Unacknowledged>,
    /// How its client names the place.
    pub(super) kind: Kind,
    /// The beginning of each MESSAGE.
    pub(super) constant: Box<[u8]>,
}

#[derive(Clone, Copy, Debug)]
struct Unacknowledged {
    tag: Tag,
    qos: QoS,
    successor: Successor,
}

/// Who may get a message that this client had and did not acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Successor {
    Nobody,
    /// Whoever subscribes under the durable name next.
    Later,
    /// Another consumer of the queue, or member of the group.
    Other,
}

/// ACK or NACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    Nack,
}

/// A message that an ACK or NACK covers, not settled yet.
#[derive(Debug)]
pub(super) struct Taken {
    subscription: SubscriptionId,
    serial: u64,
    message: Unacknowledged,
    settlement: Settlement,
}

/// A delivery that the broker is to be told about.
pub(super) type Settled = (Tag, Settlement);

/// What an UNSUBSCRIBE asks for.
#[derive(Debug)]
pub(super) struct Unsubscribed {
    pub(super) name: SubscriptionName,
    /// The subscription, if this client had it.
    pub(super) id: Option<SubscriptionId>,
    /// To be settled before it ends.
    pub(super) before: Vec<Settled>,
    /// To be settled after it has ended: what goes back to others must not come back to it.
    pub(super) after: Vec<Settled>,
}

impl Subscriptions {
    /// Reads a SUBSCRIBE and enters it.
    pub(super) fn subscribe(&mut self, frame: &Frame, terms: Terms<'_>) -> Result<Subscribe, SessionError> {
        self.enter(Wanted::read(frame, terms)?, terms)
    }

    /// RabbitMQ's way to receive replies: a `reply-to` that nothing is subscribed to is subscribed to. `None`:
    /// something is.
    pub(super) fn subscribe_to_replies(
        &mut self,
        destination: &str,
        topic: &Topic,
        terms: Terms<'_>,
    ) -> Result<Option<Subscribe>, SessionError> {
        if self.by_id.values().any(|subscription| subscription.filter.matches(topic)) {
            return Ok(None);
        }
        self.enter(Wanted::replies_to(destination, terms)?, terms).map(Some)
    }

    fn enter(&mut self, wanted: Wanted, terms: Terms<'_>) -> Result<Subscribe, SessionError> {
        if self.find(&wanted.key).is_some() {
            return Err(SessionError::DuplicateSubscription);
        }
        if self.by_id.len() >= terms.settings.max_subscriptions {
            return Err(SessionError::TooManySubscriptions { limit: terms.settings.max_subscriptions });
        }
        if wanted.durable.as_deref().is_some_and(|name| self.find_durable(name).is_some()) {
            return Err(SessionError::DuplicateDurable);
        }
        match wanted.mode {
            AckMode::Auto => self.auto += 1,
            AckMode::Client | AckMode::ClientIndividual => self.window += wanted.prefetch,
        }
        let id = SubscriptionId(self.next);
        self.next = self.next.wrapping_add(1);
        let subscription = Subscription::new(&wanted, terms.version);
        let subscribe = wanted.into_subscribe(id, &subscription.constant, terms);
        self.by_id.insert(id, subscription);
        Ok(subscribe)
    }

    /// Reads an UNSUBSCRIBE and removes what it names. Without the headers of a durable subscription it only stops it.
    pub(super) fn unsubscribe(
        &mut self,
        frame: &Frame,
        terms: Terms<'_>,
    ) -> Result<Unsubscribed, SessionError> {
        let key = Key::read(frame, terms.version);
        let live = key.as_ref().ok().and_then(|key| self.find(key));
        let live_kind = live.and_then(|id| self.by_id.get(&id)).map(|subscription| subscription.kind);
        // A client may repeat what it said of its queue.
        let dialect = if live_kind == Some(Kind::Queue) { None } else { Dialect::of(frame)? };
        let Some(dialect) = dialect else {
            let id = self.find(&key?).ok_or(SessionError::NoSuchSubscription)?;
            return self.remove(id, None);
        };
        let named = frame.header("id").and_then(|id| self.find(&Key::Id(id.into())));
        let name = dialect.name(terms.client_id, frame.header("id"), || {
            match (frame.header("destination"), named.and_then(|id| self.by_id.get(&id))) {
                (Some(destination), _) => match filter(destination, terms)? {
                    (Kind::Topic, filter) => Ok(filter),
                    _ => Err(SessionError::NoSuchSubscription),
                },
                (None, Some(subscription)) => Ok(subscription.filter.clone()),
                (None, None) => Err(SessionError::MissingHeader("destination")),
            }
        })?;
        let durable = self.find_durable(&name);
        if named.is_some() && named != durable {
            return Err(SessionError::NoSuchSubscription);
        }
        match durable {
            Some(id) => self.remove(id, Some(name)),
            // It was subscribed to on another connection.
            None => Ok(Unsubscribed {
                name: SubscriptionName::Durable(name),
                id: None,
                before: Vec::new(),
                after: Vec::new(),
            }),
        }
    }

    /// Ends a subscription, and with `forgotten` what is kept under that name.
    fn remove(
        &mut self,
        id: SubscriptionId,
        forgotten: Option<Box<str>>,
    ) -> Result<Unsubscribed, SessionError> {
        let gone = self.by_id.remove(&id).ok_or(SessionError::NoSuchSubscription)?;
        match gone.mode {
            AckMode::Auto => self.auto -= 1,
            AckMode::Client | AckMode::ClientIndividual => self.window -= gone.prefetch,
        }
        self.unacknowledged -= gone.unacknowledged.len();
        let successor = if forgotten.is_some() { Successor::Nobody } else { gone.successor };
        let left = gone.unacknowledged.into_values().filter(|message| message.qos > QoS::AtMostOnce);
        let settled = left.map(|message| (message.tag, successor.inherits())).collect();
        let name = forgotten.map_or(SubscriptionName::Id(id), SubscriptionName::Durable);
        let (before, after) = match successor {
            Successor::Nobody => (settled, Vec::new()),
            Successor::Later | Successor::Other => {
                self.ending.push((id, successor));
                (Vec::new(), settled)
            }
        };
        Ok(Unsubscribed { name, id: Some(id), before, after })
    }

    /// The broker has ended it: nothing comes for it any more.
    pub(super) fn ended(&mut self, id: SubscriptionId) {
        self.ending.retain(|(ending, _)| *ending != id);
    }

    /// Gives a delivery its serial and, where it is to be acknowledged, remembers it. Otherwise the subscription
    /// has ended meanwhile.
    pub(super) fn deliver(&mut self, delivery: &Delivery) -> Result<(&Subscription, u64), Settlement> {
        let is_full = self.unacknowledged >= self.window;
        let Some(subscription) = self.by_id.get_mut(&delivery.subscription) else {
            let mut ending = self.ending.iter().filter(|(id, _)| *id == delivery.subscription);
            let successor = ending.next().map_or(Successor::Nobody, |(_, successor)| *successor);
            // At QoS 0 there is nothing to give.
            let is_kept = delivery.qos > QoS::AtMostOnce;
            return Err(if is_kept { successor.inherits() } else { Successor::Nobody.inherits() });
        };
        subscription.serial += 1;
        // QoS 0 is tracked for the window's sake alone; beyond it, its ACK is taken as a late one.
        if subscription.wants_ack() && (delivery.qos > QoS::AtMostOnce || !is_full) {
            let successor = subscription.successor;
            let message = Unacknowledged { tag: delivery.tag, qos: delivery.qos, successor };
            subscription.unacknowledged.insert(subscription.serial, message);
            self.unacknowledged += 1;
        }
        Ok((subscription, subscription.serial))
    }

    /// Reads ACK or NACK and takes what it covers, until [`Self::settle`] or [`Self::give_back`].
    pub(super) fn acknowledge(
        &mut self,
        frame: &Frame,
        verdict: Verdict,
        version: Version,
    ) -> Result<Vec<Taken>, SessionError> {
        let name = if version == Version::V1_2 { "id" } else { "message-id" };
        let message_id = frame.header(name).ok_or(SessionError::MissingHeader(name))?;
        // 1.1: "ACK has two REQUIRED headers: message-id … and subscription".
        let claimed = match version {
            Version::V1_1 => {
                Some(frame.header("subscription").ok_or(SessionError::MissingHeader("subscription"))?)
            }
            Version::V1_0 | Version::V1_2 => None,
        };
        let may_requeue = verdict == Verdict::Nack && requeue(frame)?;
        let (id, number) = parse_message_id(message_id).ok_or(SessionError::UnknownMessage)?;
        let Some(subscription) = self.by_id.get_mut(&id) else {
            // The subscription may have ended while this ACK was on its way.
            return if id.0 < self.next { Ok(Vec::new()) } else { Err(SessionError::UnknownMessage) };
        };
        if claimed.is_some_and(|claimed| subscription.key.as_id() != Some(claimed)) {
            let why = "the message is not of that subscription";
            return Err(SessionError::BadHeader { name: "subscription", why });
        }
        let serial = match number {
            Number::Serial(serial) if (1..=subscription.serial).contains(&serial) => serial,
            Number::Publication if !subscription.wants_ack() => return Err(SessionError::AutoAck),
            _ => return Err(SessionError::UnknownMessage),
        };
        let taken = subscription.take(serial)?.into_iter().map(|(serial, message)| {
            let settlement = message.settlement(verdict, may_requeue);
            Taken { subscription: id, serial, message, settlement }
        });
        Ok(taken.collect())
    }

    /// What was taken is over.
    pub(super) fn settle(&mut self, taken: Vec<Taken>) -> Vec<Settled> {
        self.unacknowledged -= taken.len();
        let settled = taken.into_iter().filter(Taken::is_told);
        settled.map(|taken| (taken.message.tag, taken.settlement)).collect()
    }

    /// ABORT: what was taken waits for ACK or NACK again. What belongs to a subscription that has ended is settled.
    pub(super) fn give_back(&mut self, taken: Vec<Taken>) -> Vec<Settled> {
        let mut settled = Vec::new();
        for Taken { subscription, serial, message, .. } in taken {
            if let Some(subscription) = self.by_id.get_mut(&subscription) {
                subscription.unacknowledged.insert(serial, message);
                continue;
            }
            self.unacknowledged -= 1;
            if message.qos > QoS::AtMostOnce {
                settled.push((message.tag, message.successor.inherits()));
            }
        }
        settled
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

    fn find_durable(&self, name: &str) -> Option<SubscriptionId> {
        let mut all = self.by_id.iter();
        all.find(|(_, subscription)| subscription.durable.as_deref() == Some(name)).map(|(id, _)| *id)
    }
}

impl Subscription {
    fn new(wanted: &Wanted, version: Version) -> Self {
        Self {
            key: wanted.key.clone(),
            mode: wanted.mode,
            prefetch: wanted.prefetch,
            filter: wanted.filter.clone(),
            durable: wanted.durable.clone(),
            successor: match (&wanted.group, &wanted.durable) {
                (Some(_), _) => Successor::Other,
                (None, Some(_)) => Successor::Later,
                (None, None) => Successor::Nobody,
            },
            serial: 0,
            unacknowledged: BTreeMap::new(),
            kind: wanted.kind,
            constant: constant_part(wanted.key.as_id(), version),
        }
    }

    pub(super) fn wants_ack(&self) -> bool {
        self.mode != AckMode::Auto
    }

    /// What an ACK of this message covers. Nothing, when it was covered before.
    fn take(&mut self, serial: u64) -> Result<BTreeMap<u64, Unacknowledged>, SessionError> {
        match self.mode {
            AckMode::Auto => Err(SessionError::AutoAck),
            AckMode::ClientIndividual => Ok(self.unacknowledged.remove_entry(&serial).into_iter().collect()),
            AckMode::Client => {
                let later = self.unacknowledged.split_off(&(serial.saturating_add(1)));
                Ok(std::mem::replace(&mut self.unacknowledged, later))
            }
        }
    }
}

impl Unacknowledged {
    /// A NACK gives the message to another client where there may be one; of a topic it counts as handled (WIRE §8).
    const fn settlement(self, verdict: Verdict, may_requeue: bool) -> Settlement {
        match verdict {
            Verdict::Ack => Settlement::Accepted,
            Verdict::Nack
                if may_requeue
                    && matches!(self.successor, Successor::Other)
                    && !matches!(self.qos, QoS::AtMostOnce) =>
            {
                Settlement::Requeue
            }
            Verdict::Nack => Settlement::Dropped(DropReason::Refused),
        }
    }
}

impl Taken {
    /// At QoS 0 only a drop is settled.
    fn is_told(&self) -> bool {
        self.message.qos > QoS::AtMostOnce || matches!(self.settlement, Settlement::Dropped(_))
    }
}

impl Successor {
    /// What becomes of a message whose subscription has ended.
    const fn inherits(self) -> Settlement {
        match self {
            Self::Nobody => Settlement::Dropped(DropReason::Closed),
            Self::Later | Self::Other => Settlement::Returned,
        }
    }
}

/// What RabbitMQ's NACK says in a header of its own; without it the message may go to another.
fn requeue(frame: &Frame) -> Result<bool, SessionError> {
    Ok(frame.header("requeue").is_none() || flag(frame, "requeue")?)
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

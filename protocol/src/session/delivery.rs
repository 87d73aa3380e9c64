//! A publication on its way to one client: what becomes of it, and how the client hears of those that were lost.
//!
//! Plain data; who queues and who encodes is not said here.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

#[cfg(doc)]
use super::{Copies, Request, Session, Subscribe};
use super::{SubscriptionId, Tag};
use crate::publication::{Publication, QoS};
use crate::topic::Topic;

/// A publication on its way to one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What.
    pub publication: Arc<Publication>,
    /// The lower of the publication's and the subscription's.
    pub qos: QoS,
    /// The RETAIN flag as this subscription is to see it.
    pub retain: bool,
    /// It was sent because the subscription is new, not because it was just published.
    pub is_retained: bool,
    /// The subscription that it is for.
    pub subscription: SubscriptionId,
    /// Its [`Subscribe::identifier`].
    pub identifier: Option<NonZeroU32>,
    /// The identifiers of this client's other subscriptions that match ([`Copies::PerClient`]).
    pub also: Option<Arc<[NonZeroU32]>>,
    /// The id that it should go by, if that is free: the same at every attempt, so that the client knows it again.
    pub packet_id: Option<NonZeroU16>,
    /// It may have been sent before: to this client under [`Delivery::packet_id`], or without that to another one.
    pub dup: bool,
    /// For [`Request::Settle`]. At QoS 0 only a drop is settled.
    pub tag: Tag,
}

impl Delivery {
    /// It may have been sent to this client before: what another one of a queue had is new to this one.
    #[must_use]
    pub const fn is_dup(&self) -> bool {
        self.dup && self.packet_id.is_some()
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The client has it.
    Accepted,
    /// The client does not want it; another may.
    Requeue,
    /// Its subscription has ended before the client said anything of it; another may get it.
    Returned,
    /// It was not delivered and is not to be.
    Dropped(DropReason),
}

/// Why a delivery was dropped; counted under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The queue was full: `drop_oldest`.
    Oldest,
    /// The queue was full: `drop_newest`.
    Newest,
    /// A newer one of the same topic took its place.
    Conflated,
    /// It expired in the queue.
    Expired,
    /// It is larger than the client takes.
    TooLarge,
    /// The broker's memory for queued messages is used up.
    Memory,
    /// The client refused it.
    Refused,
    /// The connection ended first.
    Closed,
}

/// How a session wants to hear of drops (WIRE §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LagNotice {
    /// Not at all: the protocol has no word for it; counters only.
    #[default]
    Silent,
    /// As a message of its own: [`Session::handle_lag`], whenever.
    Separate,
    /// With the next delivery: [`Session::handle_lag`], then a delivery that the session encodes.
    WithNext,
}

/// What a client lost since it was last told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages dropped.
    pub dropped: u64,
    /// Messages replaced by newer ones of the same topic.
    pub conflated: u64,
    /// Up to 8 of the topics.
    pub topics: Vec<Topic>,
}

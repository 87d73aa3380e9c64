//! A table entry: what the router finds and the outbox delivers to. Holds an outbox, never a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_protocol::publication::{Form, Publication, QoS};
use tidegate_protocol::session::{Copies, Delivery, Forms, Overflow, SubscriptionId, Tag};

use crate::outbox::Outbox;

/// One subscription of one connected client.
#[derive(Debug)]
pub struct Subscription {
    /// Where its deliveries go.
    pub outbox: Arc<Outbox>,
    /// Its session's name for it.
    pub id: SubscriptionId,
    /// The granted QoS.
    pub qos: QoS,
    /// Shared wire forms, when its session has no say in the bytes.
    pub forms: Option<Forms>,
    /// Not what this client published itself.
    pub no_local: bool,
    /// Keeps the publisher's RETAIN flag.
    pub retain_as_published: bool,
    /// What happens to QoS 0 deliveries over the mark.
    pub overflow: Overflow,
    /// What happens to acknowledged deliveries over the mark.
    pub overflow_acked: Overflow,
    /// Replace queued QoS 0 deliveries by newer ones of the same topic, and keep this interval between them.
    pub conflate: Option<Duration>,
    /// How it counts beside other subscriptions of its client.
    pub copies: Copies,
    /// Cleared by unsubscribe before its reply is queued; queued deliveries of a dead one are skipped.
    pub alive: AtomicBool,
}

/// A publication on its way to one subscription.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What.
    pub publication: Arc<Publication>,
    /// Where to.
    pub subscription: Arc<Subscription>,
    /// Further subscriptions of the client that match. Seldom any, so a thin pointer: entries are many.
    pub also: Option<Box<Arc<[SubscriptionId]>>>,
    /// The bytes, when the session has no say in them.
    pub form: Option<&'static Form>,
    /// What it counts against limits.
    pub size_bytes: u32,
    /// The effective QoS.
    pub qos: QoS,
    /// The RETAIN flag that the client is to see.
    pub retain: bool,
    /// Sent because the subscription is new.
    pub is_retained: bool,
}

impl Subscription {
    /// Whether it still wants deliveries.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Ends it: nothing that is still queued for it is sent.
    pub fn end(&self) {
        self.alive.store(false, Ordering::Release);
        self.outbox.note_dead();
    }

    /// Whether newer deliveries of a topic may take the place of queued ones.
    pub fn conflates(&self) -> bool {
        self.conflate.is_some() || self.overflow == Overflow::Conflate
    }

    /// The policy for a delivery at this QoS.
    pub fn policy(&self, qos: QoS) -> Overflow {
        if qos == QoS::AtMostOnce { self.overflow } else { self.overflow_acked }
    }
}

impl Entry {
    /// A delivery of what was just published.
    pub fn live(
        publication: &Arc<Publication>,
        subscription: &Arc<Subscription>,
        qos: QoS,
        also: Option<Arc<[SubscriptionId]>>,
        size_bytes: u32,
    ) -> Self {
        let retain = publication.retain && subscription.retain_as_published;
        let form = shared_form(publication, subscription, qos, retain).filter(|_| also.is_none());
        Self {
            publication: Arc::clone(publication),
            subscription: Arc::clone(subscription),
            also: also.map(Box::new),
            form,
            size_bytes,
            qos,
            retain,
            is_retained: false,
        }
    }

    /// A delivery of what was retained before the subscription.
    pub fn retained(publication: Arc<Publication>, subscription: &Arc<Subscription>) -> Self {
        let qos = publication.qos.min(subscription.qos);
        let form = shared_form(&publication, subscription, qos, true);
        let size_bytes = size_bytes(&publication);
        Self {
            publication,
            subscription: Arc::clone(subscription),
            also: None,
            form,
            size_bytes,
            qos,
            retain: true,
            is_retained: true,
        }
    }

    /// As the session gets it.
    pub fn into_delivery(self, tag: Tag) -> Delivery {
        Delivery {
            publication: self.publication,
            qos: self.qos,
            retain: self.retain,
            is_retained: self.is_retained,
            subscription: self.subscription.id,
            also: self.also.map(|also| *also),
            tag,
        }
    }

    /// Whether both are for the same subscription and topic, of one client.
    pub fn is_same_feed(&self, other: &Self) -> bool {
        self.subscription.id == other.subscription.id && self.publication.topic == other.publication.topic
    }
}

/// What one delivery of a publication counts against a client's limits: true bytes (SEC-17), as if this client
/// alone kept it alive. That is the publication, its wire form, which holds the payload once more, and the entry.
pub fn size_bytes(publication: &Publication) -> u32 {
    let bytes = 2 * publication.size_bytes() + Publication::OVERHEAD_BYTES + ENTRY_BYTES;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The form whose bytes serve this delivery, if one does.
fn shared_form(
    publication: &Publication,
    subscription: &Subscription,
    qos: QoS,
    retain: bool,
) -> Option<&'static Form> {
    let forms = subscription.forms.as_ref().filter(|_| qos == QoS::AtMostOnce)?;
    let form = if retain { forms.retained } else { forms.live };
    (!form.lacks_expiry || publication.expires_at.is_none()).then_some(form)
}

/// What an entry costs beside the shared publication.
pub const ENTRY_BYTES: usize = 64;

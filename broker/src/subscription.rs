//! A table entry: what the router finds and the outbox delivers to. Holds an outbox or what stands for one, never
//! a socket.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tidegate_protocol::publication::{Form, Publication, QoS};
use tidegate_protocol::session::{Copies, Delivery, Forms, Overflow, Selector, SubscriptionId, Tag};
use tidegate_protocol::topic::{ShareName, TopicFilter};
use tidegate_protocol::websocket::prepared::Prepared;
use triomphe::ThinArc;

use crate::durability::Stored;
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::router::Member;
use crate::router::shared::{Group, GroupMember};
use crate::work_queue::{Lease, QueueName, WorkQueue};

/// One subscription of one client, shared by all that know it. A single allocation of 56 bytes and the text of its
/// filter, since there may be a million.
#[derive(Clone)]
pub struct Subscription(ThinArc<Grant, u8>);

/// What a subscription is, but for its filter. 40 bytes: what few have is behind a pointer.
#[derive(Debug)]
pub struct Grant {
    /// Where its deliveries go.
    pub target: Target,
    /// Shared wire forms, when its session has no say in the bytes.
    pub forms: Option<&'static Forms>,
    extras: Option<Box<Extras>>,
    /// Its name within the client.
    pub id: SubscriptionId,
    /// The granted QoS.
    pub qos: QoS,
    /// How it counts beside other subscriptions of its client.
    pub copies: Copies,
    /// Not what this client published itself; keeps the publisher's RETAIN flag.
    flags: u8,
    /// ALIVE is cleared by unsubscribe before its reply is queued; queued deliveries of a dead one are skipped.
    standing: AtomicU8,
}

/// Where the deliveries of a subscription go.
#[derive(Clone, Debug)]
pub enum Target {
    /// To a connection, and they end with it.
    Outbox(Arc<Outbox>),
    /// To a session that outlives its connections.
    Mailbox(Arc<Mailbox>),
    /// To one of a group.
    Group(Arc<Group<Subscription>>),
    /// To one of those who consume a queue, and it is kept while there is nobody.
    Queue(Arc<WorkQueue>),
}

/// What a subscription is to be like.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The granted QoS.
    pub qos: QoS,
    /// Shared wire forms, when its session has no say in the bytes.
    pub forms: Option<&'static Forms>,
    /// What stands before each shared form that is no whole message.
    pub head: Option<Box<[u8]>>,
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
    /// Handed back with each delivery.
    pub identifier: Option<NonZeroU32>,
    /// The group that it is a member of.
    pub group: Option<ShareName>,
    /// Only what this selects.
    pub selector: Option<Arc<Selector>>,
    /// The queue that it consumes.
    pub queue: Option<QueueName>,
}

/// What most subscriptions have none of.
#[derive(Debug)]
struct Extras {
    overflow: Overflow,
    overflow_acked: Overflow,
    conflate: Option<Duration>,
    identifier: Option<NonZeroU32>,
    share: Option<(ShareName, TopicFilter)>,
    selector: Option<Arc<Selector>>,
    queue: Option<QueueName>,
    head: Option<Box<[u8]>>,
}

/// A publication on its way to one subscription.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What.
    pub publication: Arc<Publication>,
    /// Where to.
    pub subscription: Subscription,
    /// The identifiers of further subscriptions of the client that match. Seldom any, so a thin pointer: entries
    /// are many.
    pub also: Option<Box<Arc<[NonZeroU32]>>>,
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
    /// Was sent at QoS 2 and not finished, so that no other client may get it.
    pub is_bound: bool,
    /// Its place on the disk, if it has one.
    pub stored: Option<Arc<Stored>>,
}

const NO_LOCAL: u8 = 1;
const RETAIN_AS_PUBLISHED: u8 = 2;

const ALIVE: u8 = 1;
const STORED: u8 = 2;

impl Extras {
    /// What a subscription without extras has.
    const COMMON: Self = Self {
        overflow: Overflow::DropOldest,
        overflow_acked: Overflow::Disconnect,
        conflate: None,
        identifier: None,
        share: None,
        selector: None,
        queue: None,
        head: None,
    };

    fn are_common(&self) -> bool {
        let Self { overflow, overflow_acked, conflate, identifier, share, selector, queue, head } = self;
        (*overflow, *overflow_acked) == (Self::COMMON.overflow, Self::COMMON.overflow_acked)
            && conflate.is_none()
            && identifier.is_none()
            && share.is_none()
            && selector.is_none()
            && queue.is_none()
            && head.is_none()
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            qos: QoS::AtMostOnce,
            forms: None,
            head: None,
            no_local: false,
            retain_as_published: false,
            overflow: Extras::COMMON.overflow,
            overflow_acked: Extras::COMMON.overflow_acked,
            conflate: None,
            copies: Copies::PerClient,
            identifier: None,
            group: None,
            selector: None,
            queue: None,
        }
    }
}

impl Subscription {
    /// A subscription that is alive.
    pub fn new(target: Target, id: SubscriptionId, filter: &TopicFilter, terms: Terms) -> Self {
        let extras = Extras {
            overflow: terms.overflow,
            overflow_acked: terms.overflow_acked,
            conflate: terms.conflate,
            identifier: terms.identifier,
            share: terms.group.map(|name| (name, filter.clone())),
            selector: terms.selector,
            queue: terms.queue,
            head: terms.head,
        };
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let grant = Grant {
            target,
            forms: terms.forms,
            extras: (!extras.are_common()).then(|| Box::new(extras)),
            id,
            qos: terms.qos,
            copies: terms.copies,
            flags: flag(terms.no_local, NO_LOCAL) | flag(terms.retain_as_published, RETAIN_AS_PUBLISHED),
            standing: AtomicU8::new(ALIVE),
        };
        Self(ThinArc::from_header_and_slice(grant, filter.as_str().as_bytes()))
    }

    /// The text of the filter that it was made with.
    pub fn filter(&self) -> &str {
        str::from_utf8(&self.0.slice).unwrap_or_default()
    }

    /// Whether both are one: not only of the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq::<Grant>(&**self, &**other)
    }
}

impl Deref for Subscription {
    type Target = Grant;

    fn deref(&self) -> &Grant {
        &self.0.header.header
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("filter", &self.filter()).field("grant", &**self).finish()
    }
}

impl Grant {
    /// Whether it still wants deliveries.
    pub fn is_alive(&self) -> bool {
        self.standing.load(Ordering::Acquire) & ALIVE != 0
    }

    /// Whether it is a member of a group and has ended: another gets what was meant for it.
    pub fn is_group_over(&self) -> bool {
        self.group().is_some() && !self.is_alive()
    }

    /// Whether the store is known to have it.
    pub fn is_stored(&self) -> bool {
        self.standing.load(Ordering::Relaxed) & STORED != 0
    }

    /// The store has it.
    pub fn note_stored(&self) {
        self.standing.fetch_or(STORED, Ordering::Relaxed);
    }

    /// Ends it: nothing that is still queued for it is sent.
    pub fn end(&self) {
        self.standing.fetch_and(!ALIVE, Ordering::Release);
        match &self.target {
            Target::Outbox(outbox) => outbox.note_dead(),
            Target::Mailbox(mailbox) => mailbox.note_dead(),
            Target::Group(_) | Target::Queue(_) => {}
        }
    }

    /// Not what this client published itself.
    pub const fn no_local(&self) -> bool {
        self.flags & NO_LOCAL != 0
    }

    /// Keeps the publisher's RETAIN flag.
    pub const fn retain_as_published(&self) -> bool {
        self.flags & RETAIN_AS_PUBLISHED != 0
    }

    /// Replace queued QoS 0 deliveries by newer ones, with this interval between them.
    pub fn conflate(&self) -> Option<Duration> {
        self.extras().conflate
    }

    /// MQTT 5's Subscription Identifier.
    pub fn identifier(&self) -> Option<NonZeroU32> {
        self.extras().identifier
    }

    /// What stands before each shared form that is no whole message; empty without one.
    pub fn head(&self) -> &[u8] {
        self.extras().head.as_deref().unwrap_or_default()
    }

    /// The group that it is a member of, and the filter whose messages the group shares: its own.
    pub fn share(&self) -> Option<&(ShareName, TopicFilter)> {
        self.extras().share.as_ref()
    }

    /// The group that it is a member of.
    pub fn group(&self) -> Option<&ShareName> {
        self.share().map(|(name, _)| name)
    }

    /// Whether its client wants it.
    pub fn selects(&self, publication: &Publication) -> bool {
        self.extras().selector.as_ref().is_none_or(|selector| selector.matches(publication))
    }

    /// What it selects.
    pub fn selector(&self) -> Option<&Arc<Selector>> {
        self.extras().selector.as_ref()
    }

    /// The queue that it consumes.
    pub fn queue(&self) -> Option<&QueueName> {
        self.extras().queue.as_ref()
    }

    /// Whether newer deliveries of a topic may take the place of queued ones.
    pub fn conflates(&self) -> bool {
        let extras = self.extras();
        extras.conflate.is_some() || extras.overflow == Overflow::Conflate
    }

    /// The policy for a delivery at this QoS.
    pub fn policy(&self, qos: QoS) -> Overflow {
        let extras = self.extras();
        if qos == QoS::AtMostOnce { extras.overflow } else { extras.overflow_acked }
    }

    fn extras(&self) -> &Extras {
        self.extras.as_deref().unwrap_or(&Extras::COMMON)
    }
}

impl Member for Subscription {
    fn client(&self) -> u64 {
        self.target.client()
    }

    fn subscription(&self) -> SubscriptionId {
        self.id
    }

    fn qos(&self) -> QoS {
        self.qos
    }

    fn copies(&self) -> Copies {
        self.copies
    }

    fn filter(&self) -> &str {
        Self::filter(self)
    }

    fn identifier(&self) -> Option<NonZeroU32> {
        Grant::identifier(self)
    }
}

impl GroupMember for Subscription {
    fn client(&self) -> u64 {
        self.target.client()
    }

    fn subscription(&self) -> SubscriptionId {
        self.id
    }

    fn is_online(&self) -> bool {
        match &self.target {
            Target::Outbox(_) => true,
            Target::Mailbox(mailbox) => mailbox.is_online(),
            Target::Group(_) | Target::Queue(_) => false,
        }
    }

    fn pending(&self) -> usize {
        match &self.target {
            Target::Outbox(outbox) => outbox.pending(),
            Target::Mailbox(mailbox) => mailbox.pending(),
            Target::Group(_) | Target::Queue(_) => 0,
        }
    }
}

impl Target {
    /// The client as the tables know it: a connection, a session, or a group as one.
    pub fn client(&self) -> u64 {
        match self {
            Self::Outbox(outbox) => outbox.client(),
            Self::Mailbox(mailbox) => mailbox.key(),
            Self::Group(group) => group.key(),
            Self::Queue(queue) => queue.key(),
        }
    }
}

impl Entry {
    /// A delivery of what was just published.
    pub fn live(
        publication: &Arc<Publication>,
        subscription: &Subscription,
        also: Option<Arc<[NonZeroU32]>>,
        size_bytes: u32,
    ) -> Self {
        let qos = publication.qos.min(subscription.qos);
        let retain = publication.retain && subscription.retain_as_published();
        let form = shared_form(publication, subscription, qos, retain).filter(|_| also.is_none());
        Self {
            publication: Arc::clone(publication),
            subscription: subscription.clone(),
            also: also.map(Box::new),
            form,
            size_bytes,
            qos,
            retain,
            is_retained: false,
            is_bound: false,
            stored: None,
        }
    }

    /// A delivery of what was retained before the subscription.
    pub fn retained(publication: Arc<Publication>, subscription: &Subscription) -> Self {
        let qos = publication.qos.min(subscription.qos);
        let form = shared_form(&publication, subscription, qos, true);
        let size_bytes = size_bytes(&publication);
        Self {
            publication,
            subscription: subscription.clone(),
            also: None,
            form,
            size_bytes,
            qos,
            retain: true,
            is_retained: true,
            is_bound: false,
            stored: None,
        }
    }

    /// The lease, if it belongs to a queue.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.stored.as_ref().and_then(|stored| stored.lease())
    }

    /// Whether it belongs to a queue, and goes back to it.
    pub fn is_lent(&self) -> bool {
        self.lease().is_some()
    }

    /// What is this client's own of the bytes, when the session has no say in them.
    pub fn head(&self) -> &[u8] {
        let is_headed = self.form.is_some_and(|form| form.behind_head.is_some());
        if is_headed { self.subscription.head() } else { &[] }
    }

    /// What all share of the bytes, and stands behind the head; `None`: the session encodes.
    pub fn shared(&self) -> Option<&Prepared> {
        self.form.map(|form| self.publication.prepared(form))
    }

    /// As the session gets it.
    pub fn into_delivery(self, tag: Tag) -> Delivery {
        if let Some(lease) = self.lease() {
            lease.send();
            if self.qos == QoS::AtMostOnce {
                lease.settle(); // sent is delivered
            }
        }
        Delivery {
            packet_id: self.stored.as_ref().and_then(|stored| stored.packet_id()),
            dup: self.stored.as_ref().is_some_and(|stored| stored.may_be_known()),
            publication: self.publication,
            qos: self.qos,
            retain: self.retain,
            is_retained: self.is_retained,
            subscription: self.subscription.id,
            identifier: self.subscription.identifier(),
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
    let forms = subscription.forms.filter(|_| qos == QoS::AtMostOnce)?;
    let form = if retain { forms.retained? } else { forms.live };
    form.serves(publication).then_some(form)
}

/// What an entry costs beside the shared publication.
pub const ENTRY_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_of_them_fit() {
        assert_eq!(size_of::<Grant>(), 40);
        assert_eq!(size_of::<Subscription>(), 8);
        assert!(size_of::<Entry>() <= 48);
    }
}

//! A publication that the store has to know of: each delivery to a session gets its place, all of it is handed over in
//! one change, and then it is pushed, at QoS 2 after the commit (DESIGN §5.4, §8).

use std::sync::Arc;

use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{Published, Refusal};

use super::publishing::{FanOut, Tally};
use super::{Batch, Broker, Now};
use crate::durability::{Deferred, Durability, Place, Planned, Stored, seq_of};
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::outbox::queue::Pushed;
use crate::router::Matched;
use crate::router::shared::{Group, Strategy};
use crate::store::{BodyId, Change, Changes, PublicationRecord, ReferenceRecord, SessionKey, Ticket};
use crate::subscription::{self, Entry, Subscription, Target};
use crate::work_queue::WorkQueue;

/// Commits that one turn of the task deals with, before others get theirs.
const DEFERRED_MAX: usize = 256;

impl Broker {
    /// To all that match, and to the disk.
    pub(super) fn deliver_stored(
        &self,
        durability: &Arc<Durability>,
        publication: &Arc<Publication>,
        matched: &Matched<Subscription>,
        received: Option<(Arc<Mailbox>, u16)>,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Published, Refusal> {
        let mut plan = self.plan(durability, publication, matched, now);
        if let Some((mailbox, packet_id)) = &received {
            plan.changes.push(Change::InsertReceived(SessionKey(mailbox.key()), *packet_id));
        }
        if publication.qos == QoS::AtMostOnce {
            // Nobody has a promise: it goes on without the disk.
            let changes = std::mem::take(&mut plan.changes);
            if !changes.is_empty() && !durability.offer(changes) {
                plan.forget_places();
            }
            plan.note_queues();
        }
        let ticket = match plan.submit(batch) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                plan.give_up();
                if let Some((mailbox, packet_id)) = received {
                    mailbox.forget_received(packet_id);
                }
                return Err(refusal);
            }
        };
        let Plan { planned, mut tally, .. } = plan;
        let is_deferred =
            |planned: &Planned| publication.qos == QoS::ExactlyOnce || planned.is_for_group_on_disk();
        let (later, planned): (Vec<_>, Vec<_>) = planned.into_iter().partition(is_deferred);
        for later in &later {
            tally.add(Pushed::Stored);
            if let Some(slow) = slow_receiver(later, now) {
                batch.add_slow(&slow);
            }
        }
        if let Some((mailbox, packet_id)) = &received {
            mailbox.note_receiving(*packet_id, ticket);
        }
        if !later.is_empty() || received.is_some() {
            durability.defer(Deferred { ticket, planned: later }, received);
        }
        // While the memory of the whole broker is used up, QoS 0 is shed (DESIGN §6), retained or not.
        let is_shed = publication.qos == QoS::AtMostOnce && self.shared.is_full();
        let mut fan_out = FanOut { is_shed, ..self.fan_out(tally, now, batch) };
        planned.into_iter().for_each(|planned| fan_out.push_planned(planned));
        Ok(fan_out.finish())
    }

    /// What one publication comes to: every delivery has its place, and nobody has been told.
    pub(super) fn plan<'a>(
        &self,
        durability: &'a Arc<Durability>,
        publication: &'a Arc<Publication>,
        matched: &Matched<Subscription>,
        now: Now,
    ) -> Plan<'a> {
        let mut plan = Plan::new(durability, publication, now);
        for target in matched.targets() {
            let member = &target.member;
            match &member.target {
                _ if !member.selects(publication) => {}
                Target::Group(group) => plan.add_one_of(group, self.rules.shared_strategy, &[]),
                Target::Queue(queue) => {
                    if !queue.skips(publication.publisher) {
                        plan.add_to_queue(queue, member);
                    }
                }
                _ if member.no_local() && member.target.client() == publication.publisher => {} // [MQTT-3.8.3-3]
                _ => {
                    plan.add(Entry::live(publication, member, target.also.clone(), plan.size_bytes));
                }
            }
        }
        if publication.retain {
            plan.add_retained();
        }
        plan
    }

    /// Brings a delivery to another member of a group, through the store if there is one. `false`: there is none.
    pub(super) fn redeliver_stored(
        &self,
        group: &Group<Subscription>,
        entry: &Entry,
        tried: &[u64],
        now: Now,
        batch: &mut Batch,
    ) -> bool {
        let Some(durability) = self.durability.as_ref().filter(|_| entry.qos > QoS::AtMostOnce) else {
            return false;
        };
        let mut plan = Plan::new(durability, &entry.publication, now);
        plan.add_one_of(group, self.rules.shared_strategy, tried);
        let Ok(ticket) = plan.submit(batch) else {
            // Without its place it is not lost yet, while the broker runs.
            plan.give_up();
            return false;
        };
        if plan.planned.is_empty() {
            return false;
        }
        let Plan { planned, tally, .. } = plan;
        let (later, planned): (Vec<_>, Vec<_>) =
            planned.into_iter().partition(|planned| planned.is_for_group_on_disk());
        if !later.is_empty() {
            durability.defer(Deferred { ticket, planned: later }, None);
        }
        let mut fan_out = self.fan_out(tally, now, batch);
        planned.into_iter().for_each(|planned| fan_out.push_planned(planned));
        fan_out.finish();
        true
    }

    /// Pushes what has been committed. Gives whether there may be more. The caller flushes.
    pub fn push_committed(&self, now: Now, batch: &mut Batch) -> bool {
        let Some(durability) = &self.durability else { return false };
        for _ in 0..DEFERRED_MAX {
            let Some((deferred, outcome)) = durability.take_deferred() else { return false };
            if outcome.is_err() {
                deferred.planned.iter().for_each(give_up);
                continue;
            }
            let mut fan_out = self.fan_out(Tally::default(), now, batch);
            deferred.planned.into_iter().for_each(|planned| fan_out.push_planned(planned));
            fan_out.finish();
            // Whoever published them was held before, and the task must not keep connections that are gone.
            batch.slow.clear();
        }
        true
    }

    pub(super) fn fan_out<'a>(&'a self, tally: Tally, now: Now, batch: &'a mut Batch) -> FanOut<'a> {
        FanOut { broker: self, size_bytes: 0, is_shed: false, now, batch, tally }
    }
}

/// What one publication comes to.
pub(super) struct Plan<'a> {
    durability: &'a Arc<Durability>,
    publication: &'a Arc<Publication>,
    now: Now,
    size_bytes: u32,
    expires_at_ms: Option<u64>,
    body: BodyId,
    references: bool,
    changes: Changes,
    planned: Vec<Planned>,
    tally: Tally,
}

impl<'a> Plan<'a> {
    fn new(durability: &'a Arc<Durability>, publication: &'a Arc<Publication>, now: Now) -> Self {
        Self {
            durability,
            publication,
            now,
            size_bytes: subscription::size_bytes(publication),
            expires_at_ms: publication.expires_at.map(|at| now.unix_ms_of(at)),
            body: durability.writer().next_body(),
            references: false,
            changes: Vec::new(),
            planned: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Adds a delivery. Gives what became of it, if it got no place.
    fn add(&mut self, mut entry: Entry) -> Option<Pushed> {
        let mailbox = match &entry.subscription.target {
            Target::Mailbox(mailbox) if entry.qos > QoS::AtMostOnce => Arc::clone(mailbox),
            _ => {
                self.planned.push(Planned { entry, place: Place::Unstored });
                return None;
            }
        };
        let (seq, place) = match mailbox.reserve(entry.size_bytes) {
            Ok(reserved) => reserved,
            Err(pushed) => {
                self.tally.add(pushed);
                return Some(pushed);
            }
        };
        self.refer_to_body();
        let reference = reference_record(&entry, self.body, self.expires_at_ms);
        self.changes.push(Change::Enqueue(SessionKey(mailbox.key()), seq, reference));
        entry.stored = Some(Stored::new(self.durability, mailbox.key(), seq, false));
        self.planned.push(Planned { entry, place });
        None
    }

    /// Adds a message to a queue. At QoS 0, while the store takes nothing, it waits in memory.
    fn add_to_queue(&mut self, queue: &Arc<WorkQueue>, member: &Subscription) {
        let mut entry = Entry::live(self.publication, member, None, self.size_bytes);
        if self.publication.qos == QoS::AtMostOnce && self.durability.admit().is_err() {
            return self.planned.push(Planned { entry, place: Place::Unstored });
        }
        let (seq, place) = match queue.reserve(entry.size_bytes) {
            Ok(reserved) => reserved,
            Err(pushed) => return self.tally.add(pushed),
        };
        self.changes.extend(Broker::introduce(queue));
        self.refer_to_body();
        let expires_at = queue.expires_at(self.publication, self.now.instant);
        let expires_at_ms = expires_at.map(|at| self.now.unix_ms_of(at));
        let reference = reference_record(&entry, self.body, expires_at_ms);
        self.changes.push(Change::Enqueue(SessionKey(queue.key()), seq, reference));
        entry.stored = Some(Stored::new(self.durability, queue.key(), seq, false));
        self.planned.push(Planned { entry, place });
    }

    fn refer_to_body(&mut self) {
        if !std::mem::replace(&mut self.references, true) {
            self.changes.push(Change::PutBody(self.body, Box::new(self.record())));
        }
    }

    /// Adds a delivery to one member of a group; to another when that one is on its way out.
    fn add_one_of(&mut self, group: &Group<Subscription>, strategy: Strategy, tried: &[u64]) {
        let mut tried = tried.to_vec();
        while let Some(member) = group.pick(strategy, &tried) {
            // [MQTT-4.8.2-3]
            let entry = Entry::live(self.publication, &member, None, self.size_bytes);
            if member.selects(self.publication) && self.add(entry) != Some(Pushed::Closed) {
                return;
            }
            tried.push(member.target.client());
        }
    }

    fn add_retained(&mut self) {
        self.changes.push(if self.publication.payload.is_empty() {
            Change::RemoveRetained(self.publication.topic.clone()) // [MQTT-3.3.1-6]
        } else {
            Change::PutRetained(Box::new(self.record()))
        });
    }

    fn record(&self) -> PublicationRecord {
        PublicationRecord::new(self.publication, self.expires_at_ms)
    }

    fn submit(&mut self, batch: &mut Batch) -> Result<Ticket, Refusal> {
        let ticket = match std::mem::take(&mut self.changes) {
            changes if changes.is_empty() => Ticket::DONE,
            changes => self.durability.submit(changes, batch)?,
        };
        self.note_queues();
        Ok(ticket)
    }

    /// The store has taken the messages, and before them what it has to know of their queues.
    pub(super) fn note_queues(&self) {
        for planned in self.planned.iter().filter(|planned| planned.place != Place::Unstored) {
            if let Target::Queue(queue) = &planned.entry.subscription.target {
                queue.set_stored();
            }
        }
    }

    /// The store takes nothing: what waits has to wait in memory.
    fn forget_places(&mut self) {
        for planned in &mut self.planned {
            give_up(planned);
            planned.place = Place::Unstored;
            planned.entry.stored = None;
        }
    }

    /// What the store has to hear of it.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// The deliveries, once the store has heard of them.
    pub(super) fn into_planned(self) -> (Vec<Planned>, Tally) {
        (self.planned, self.tally)
    }

    pub(super) fn give_up(&self) {
        self.planned.iter().for_each(give_up);
    }
}

/// A delivery as it waits in a queue.
pub(super) fn reference_record(entry: &Entry, body: BodyId, expires_at_ms: Option<u64>) -> ReferenceRecord {
    ReferenceRecord {
        body,
        qos: entry.qos,
        retain: entry.retain,
        is_retained: entry.is_retained,
        size_bytes: entry.size_bytes,
        subscription: entry.subscription.id,
        also: entry.also.iter().flat_map(|also| also.iter().copied()).collect(),
        expires_at_ms,
        received: None,
    }
}

/// Whom the publisher should wait for, as if its message stood behind those that are queued already.
fn slow_receiver(planned: &Planned, now: Now) -> Option<Arc<Outbox>> {
    match &planned.entry.subscription.target {
        Target::Mailbox(mailbox) if planned.place != Place::Unstored => mailbox.slow_receiver(now.instant),
        _ => None,
    }
}

fn give_up(planned: &Planned) {
    match &planned.entry.subscription.target {
        Target::Mailbox(mailbox) => mailbox.give_up(&planned.entry, planned.place),
        Target::Queue(queue) => queue.give_up(seq_of(&planned.entry), &planned.entry, planned.place),
        Target::Outbox(_) | Target::Group(_) => {}
    }
}

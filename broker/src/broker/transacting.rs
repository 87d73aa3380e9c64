//! Transactions: several publishes and settlements as one step. Everything is asked about first, the store hears of all of
//! it in one change, and only then is anything pushed or settled; whoever is refused has done nothing.

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_protocol::publication::Publication;
use tidegate_protocol::session::{DropReason, Published, Refusal, Settlement, Step, Tag};

use super::publishing::Source;
use super::storing::Plan;
use super::{Batch, Broker, Now};
use crate::client::Client;
use crate::store::Changes;
use crate::work_queue::Promise;

/// What a transaction comes to, and nobody has refused.
struct Asked {
    publications: Vec<Arc<Publication>>,
    /// In order.
    settlements: Vec<(Tag, Settlement)>,
    /// In queues, until the messages are there.
    rooms: Vec<Promise>,
}

impl Broker {
    /// All steps, or none of them.
    pub(super) fn transact(
        &self,
        client: &mut Client,
        steps: Vec<Step>,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Published, Refusal> {
        let Asked { publications, settlements, rooms: _rooms } = self.ask(client, steps, now)?;
        // Several may be held: in one order, whoever holds them.
        let retained = publications.iter().filter(|publication| publication.retain);
        let mut orders: Vec<&Mutex<()>> =
            retained.filter_map(|publication| self.order_of(&publication.topic)).collect();
        orders.sort_unstable_by_key(|order| std::ptr::from_ref(*order));
        orders.dedup_by_key(|order| std::ptr::from_ref(*order));
        let _orders: Vec<_> = orders.into_iter().map(Mutex::lock).collect();
        let before = self.retain_all(&publications)?;
        let delivered = self.deliver_all(client, &publications, &settlements, now, batch);
        if delivered.is_err() {
            self.put_back(before);
        }
        let published = delivered?;
        for (tag, settlement) in settlements {
            self.settle(client, tag, settlement, now, batch);
        }
        Ok(published)
    }

    /// Whether all of it would be taken. Changes nothing.
    fn ask(&self, client: &Client, steps: Vec<Step>, now: Now) -> Result<Asked, Refusal> {
        let (mut publications, mut settlements) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Publish(publish) => {
                    let mut publication = publish.publication;
                    publication.publisher = client.key();
                    self.admit(&mut publication)?;
                    publication.published_ms = now.unix_ms;
                    now.settle_expiry(&mut publication);
                    publication.charge_to(&self.shared.publication_bytes);
                    publications.push(Arc::new(publication));
                }
                Step::Settle { tag, settlement } => settlements.push((tag, settlement)),
            }
        }
        let is_full = self.shared.is_full();
        let mut rooms = Vec::new();
        for publication in &publications {
            if is_full {
                self.check_memory_for(publication)?;
            }
            rooms.extend(self.room_for(publication)?);
            self.check_store_for(publication, &Source::Client { received: None })?;
        }
        Ok(Asked { publications, settlements, rooms })
    }

    /// Retains what is to be. Gives what was there before.
    fn retain_all(&self, publications: &[Arc<Publication>]) -> Result<Vec<Before>, Refusal> {
        let mut before = Vec::new();
        for publication in publications.iter().filter(|publication| publication.retain) {
            let was = self.retained.held(&publication.topic);
            if let Err(refusal) = self.retained.set(publication) {
                self.put_back(before);
                return Err(refusal);
            }
            before.push((Arc::clone(publication), was));
        }
        Ok(before)
    }

    fn put_back(&self, before: Vec<Before>) {
        for (publication, was) in before.into_iter().rev() {
            self.retained.put_back(&publication.topic, was.as_deref());
        }
    }

    fn deliver_all(
        &self,
        client: &mut Client,
        publications: &[Arc<Publication>],
        settlements: &[(Tag, Settlement)],
        now: Now,
        batch: &mut Batch,
    ) -> Result<Published, Refusal> {
        let matched: Vec<_> =
            publications.iter().map(|publication| self.router.matching(&publication.topic)).collect();
        let Some(durability) = &self.durability else {
            let is_full = self.shared.is_full();
            let mut sum = 0;
            for (publication, matched) in publications.iter().zip(&matched) {
                sum += self.deliver(publication, matched, is_full, now, batch).matched;
            }
            return Ok(Published { matched: sum });
        };
        let mut plans: Vec<_> = publications
            .iter()
            .zip(&matched)
            .map(|(publication, matched)| self.plan(durability, publication, matched, now))
            .collect();
        let mut changes: Changes = plans.iter_mut().flat_map(|plan| plan.take_changes()).collect();
        // What is acknowledged in a transaction is gone from the disk with what it says, or still there without it.
        let is_over = |settlement: &Settlement| {
            !matches!(
                settlement,
                Settlement::Requeue | Settlement::Returned | Settlement::Dropped(DropReason::Closed)
            )
        };
        let over: Vec<Tag> =
            settlements.iter().filter(|(_, settlement)| is_over(settlement)).map(|(tag, _)| *tag).collect();
        let freed = client.with(|holdings| holdings.stored_of(&over)).unwrap_or_default();
        changes.extend(freed.iter().filter_map(|stored| stored.dequeue()));
        if !changes.is_empty()
            && let Err(refusal) = durability.submit(changes, batch)
        {
            plans.iter().for_each(Plan::give_up);
            return Err(refusal);
        }
        plans.iter().for_each(Plan::note_queues);
        for stored in freed {
            stored.keep(); // the store has been told
        }
        let mut matched = 0;
        for plan in plans {
            let (planned, tally) = plan.into_planned();
            let mut fan_out = self.fan_out(tally, now, batch);
            planned.into_iter().for_each(|planned| fan_out.push_planned(planned));
            matched += fan_out.finish().matched;
        }
        Ok(Published { matched })
    }
}

/// A retained message, and what was there before it.
type Before = (Arc<Publication>, Option<Arc<Publication>>);

//! Deliveries that a session was given and has not settled, oldest first. Plain data; the truth behind a packet
//! identifier when the session comes back on another connection (OASIS MQTT 5.0 §4.1, §4.4).

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{self, InFlightState, Tag};

use crate::durability::Stored;
use crate::store::Ticket;
use crate::subscription::Entry;

/// What was handed over and what became of it so far.
#[derive(Debug, Default)]
pub struct InFlight {
    /// Sorted by tag.
    unsettled: VecDeque<Unsettled>,
}

#[derive(Debug)]
struct Unsettled {
    tag: Tag,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The session has it and has not sent it.
    Handed(Entry),
    /// Sent under this packet identifier.
    Sent(u16, Entry),
    /// PUBREC came: the message itself is the client's from here on [MQTT-4.3.3-4].
    Received(u16, Option<Kept>),
}

/// What the store has of a message for which PUBREC came.
#[derive(Clone, Debug)]
struct Kept {
    stored: Arc<Stored>,
    /// When this is done, it knows of PUBREC. `None`: it was not told.
    after: Option<Ticket>,
}

impl InFlight {
    /// A delivery is handed to the session. Tags only grow.
    pub fn hand_over(&mut self, tag: Tag, entry: Entry) {
        self.unsettled.push_back(Unsettled { tag, stage: Stage::Handed(entry) });
    }

    /// It is about to be sent under this identifier. `false`: it is not known.
    pub fn assign(&mut self, tag: Tag, packet_id: u16) -> bool {
        let Some(unsettled) = self.get_mut(tag) else { return false };
        match std::mem::replace(&mut unsettled.stage, Stage::Received(packet_id, None)) {
            Stage::Handed(entry) | Stage::Sent(_, entry) => unsettled.stage = Stage::Sent(packet_id, entry),
            received @ Stage::Received(..) => unsettled.stage = received,
        }
        true
    }

    /// PUBREC came. Gives what the store has to know of it.
    pub fn receive(&mut self, tag: Tag) -> Option<(Arc<Stored>, u16)> {
        let unsettled = self.get_mut(tag)?;
        let (packet_id, kept) = match &unsettled.stage {
            Stage::Handed(_) => return None,
            Stage::Sent(packet_id, entry) => {
                (*packet_id, entry.stored.clone().map(|stored| Kept { stored, after: None }))
            }
            Stage::Received(packet_id, kept) => (*packet_id, kept.clone()),
        };
        let stored = kept.as_ref().map(|kept| Arc::clone(&kept.stored));
        unsettled.stage = Stage::Received(packet_id, kept);
        Some((stored?, packet_id))
    }

    /// The store was told of PUBREC.
    pub fn note_received(&mut self, tag: Tag, after: Ticket) {
        if let Some(Unsettled { stage: Stage::Received(_, Some(kept)), .. }) = self.get_mut(tag) {
            kept.after = Some(after);
        }
    }

    /// Messages for which PUBREC came, and the store may not know: their places and packet identifiers.
    pub fn unsafe_received(&self, is_safe: impl Fn(Ticket) -> bool) -> Vec<(Tag, u64, u16)> {
        let received = self.unsettled.iter().filter_map(|Unsettled { tag, stage }| match stage {
            Stage::Received(packet_id, Some(kept)) if !kept.after.is_some_and(&is_safe) => {
                Some((*tag, kept.stored.seq()?, *packet_id))
            }
            _ => None,
        });
        received.collect()
    }

    /// PUBREC came to an earlier run of the broker.
    pub fn restore_received(&mut self, tag: Tag, packet_id: u16, stored: Arc<Stored>) {
        let kept = Some(Kept { stored, after: Some(Ticket::DONE) });
        self.unsettled.push_back(Unsettled { tag, stage: Stage::Received(packet_id, kept) });
    }

    /// The last place on the disk of those that the client has or may have.
    pub fn last_seq(&self) -> Option<u64> {
        let seqs = self.unsettled.iter().filter_map(|unsettled| match &unsettled.stage {
            Stage::Handed(entry) | Stage::Sent(_, entry) => entry.stored.as_ref(),
            Stage::Received(_, kept) => kept.as_ref().map(|kept| &kept.stored),
        });
        seqs.filter_map(|stored| stored.seq()).max()
    }

    /// It is over. Gives the delivery, unless the client had it already.
    pub fn settle(&mut self, tag: Tag) -> Option<Entry> {
        let position = self.position(tag)?;
        let settled = self.unsettled.remove(position);
        if self.unsettled.is_empty() {
            self.unsettled = VecDeque::new();
        }
        match settled?.stage {
            Stage::Handed(entry) | Stage::Sent(_, entry) => Some(entry),
            Stage::Received(..) => None,
        }
    }

    /// The place or the lease of a delivery that its client does not have yet for good.
    pub fn stored_of(&self, tag: Tag) -> Option<Arc<Stored>> {
        match &self.unsettled.get(self.position(tag)?)?.stage {
            Stage::Handed(entry) | Stage::Sent(_, entry) => entry.stored.clone(),
            Stage::Received(..) => None,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.unsettled.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Takes out what was never sent: it goes back to the queue.
    pub fn take_unsent(&mut self) -> Vec<Entry> {
        let mut unsent = Vec::new();
        for unsettled in std::mem::take(&mut self.unsettled) {
            match unsettled.stage {
                Stage::Handed(entry) => unsent.push(entry),
                Stage::Sent(..) | Stage::Received(..) => self.unsettled.push_back(unsettled),
            }
        }
        unsent
    }

    /// Takes out what belongs to queues: they give it to others.
    pub fn take_lent(&mut self) -> Vec<Entry> {
        let mut lent = Vec::new();
        for unsettled in std::mem::take(&mut self.unsettled) {
            match unsettled.stage {
                Stage::Handed(entry) | Stage::Sent(_, entry) if entry.is_lent() => lent.push(entry),
                _ => self.unsettled.push_back(unsettled),
            }
        }
        lent
    }

    /// Takes out all that this client does not get any more. Others of its group may get it instead (MQTT 5 §4.8.2),
    /// but for what is at QoS 2 and was sent, which is bound to this client [MQTT-4.8.2-5].
    pub fn into_redeliverable(self) -> impl Iterator<Item = Entry> {
        self.unsettled.into_iter().filter_map(|unsettled| match unsettled.stage {
            Stage::Handed(entry) => Some(entry),
            Stage::Sent(_, entry) => Some(Entry { is_bound: entry.qos == QoS::ExactlyOnce, ..entry }),
            Stage::Received(..) => None,
        })
    }

    /// What a session that goes on has to send again, in order [MQTT-4.4.0-1] [MQTT-4.6.0-1].
    /// QoS 2 of a shared subscription too [MQTT-4.8.2-4].
    pub fn to_resume(&self) -> Vec<session::InFlight> {
        let resumed = self.unsettled.iter().filter_map(|Unsettled { tag, stage }| match stage {
            Stage::Handed(_) => None,
            Stage::Sent(packet_id, entry) => Some(session::InFlight {
                packet_id: *packet_id,
                state: InFlightState::Sent(entry.clone().into_delivery(*tag)),
            }),
            Stage::Received(packet_id, _) => {
                Some(session::InFlight { packet_id: *packet_id, state: InFlightState::Received(*tag) })
            }
        });
        resumed.collect()
    }

    fn get_mut(&mut self, tag: Tag) -> Option<&mut Unsettled> {
        let position = self.position(tag)?;
        self.unsettled.get_mut(position)
    }

    /// Clients acknowledge in order, so it is nearly always the first.
    fn position(&self, tag: Tag) -> Option<usize> {
        if self.unsettled.front()?.tag == tag {
            return Some(0);
        }
        self.unsettled.binary_search_by_key(&tag, |unsettled| unsettled.tag).ok()
    }
}

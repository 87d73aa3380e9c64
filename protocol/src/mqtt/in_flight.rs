//! Deliveries whose exchange with the client is not over, by packet identifier.
//!
//! Knows no packet. Spec: OASIS MQTT 5.0 §2.2.1, §4.3, §4.9.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::publication::QoS;
use crate::session::{PacketIds, Tag};

/// The exchanges under way, oldest first.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    exchanges: VecDeque<Exchange>,
    /// Their identifiers: most that are asked for are new.
    in_use: PacketIds,
    /// The identifier assigned last; 0 before the first.
    last: u16,
    /// Every identifier has been assigned once, or may have been on an earlier connection.
    has_wrapped: bool,
    /// Some deliveries come with their identifiers.
    has_wanted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    id: u16,
    awaits: Awaits,
    tag: Tag,
}

/// What an exchange waits for.
///
/// ```text
///  QoS 1  PubAck ─PUBACK─▶ over
///  QoS 2  PubRec ─PUBREC─▶ Record ─Reply::Received─▶ PubComp ─PUBCOMP─▶ over
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// PUBLISH at QoS 1 was sent.
    PubAck,
    /// PUBLISH at QoS 2 was sent.
    PubRec,
    /// The broker is to keep in mind that PUBREC came.
    Record,
    /// PUBREL was sent.
    PubComp,
}

impl Awaits {
    /// At QoS 0 nothing is awaited, and nothing is in flight.
    pub(super) const fn answer_to_publish(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce | QoS::AtLeastOnce => Self::PubAck,
            QoS::ExactlyOnce => Self::PubRec,
        }
    }
}

const EXCHANGES_MORE: usize = 64;

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// The identifier for the next delivery: the one that it should have, if that is free. The others keep out of the way
    /// of such, and go down from the highest.
    pub(super) fn id_for(&mut self, wanted: Option<NonZeroU16>) -> Option<u16> {
        self.has_wanted |= wanted.is_some();
        match wanted.map(NonZeroU16::get).filter(|id| !self.in_use.contains(*id)) {
            None if self.has_wanted => (1..=u16::MAX).rev().find(|id| !self.in_use.contains(*id)),
            None => self.next_id(),
            wanted => wanted,
        }
    }

    /// The next identifier: not 0 and not in use [MQTT-2.2.1-4]. `None` when all are.
    fn next_id(&self) -> Option<u16> {
        if self.exchanges.len() >= usize::from(u16::MAX) {
            return None;
        }
        let mut id = self.last;
        for _ in 0..=self.exchanges.len() {
            id = if id == u16::MAX { 1 } else { id + 1 };
            if !self.in_use.contains(id) {
                return Some(id);
            }
        }
        None
    }

    /// Enters a delivery under an identifier from [`InFlight::next_id`].
    pub(super) fn insert(&mut self, id: u16, tag: Tag, awaits: Awaits) {
        self.has_wrapped |= id < self.last || self.has_wanted;
        self.restore(id, tag, awaits);
    }

    /// Enters a delivery of an earlier connection. Identifiers go on behind it.
    pub(super) fn restore(&mut self, id: u16, tag: Tag, awaits: Awaits) {
        self.last = id;
        self.in_use.insert(id);
        if self.exchanges.len() == self.exchanges.capacity() {
            // One at a time, or a window full of them.
            self.exchanges.reserve(if self.exchanges.is_empty() { 1 } else { EXCHANGES_MORE });
        }
        self.exchanges.push_back(Exchange { id, awaits, tag });
    }

    /// The session is older than this connection: any identifier may have been assigned before.
    pub(super) fn forget_what_was_assigned(&mut self) {
        self.has_wrapped = true;
    }

    /// The exchange under this identifier.
    pub(super) fn find(&self, id: u16) -> Option<(Awaits, Tag)> {
        let exchange = self.exchanges.get(self.position(id)?)?;
        Some((exchange.awaits, exchange.tag))
    }

    /// The exchange has come further.
    pub(super) fn advance(&mut self, id: u16, awaits: Awaits) {
        if let Some(exchange) = self.position(id).and_then(|position| self.exchanges.get_mut(position)) {
            exchange.awaits = awaits;
        }
    }

    /// The exchange is over.
    pub(super) fn remove(&mut self, id: u16) {
        if let Some(position) = self.position(id) {
            self.exchanges.remove(position);
            self.in_use.remove(id);
            if self.exchanges.is_empty() {
                self.exchanges = VecDeque::new();
            }
        }
    }

    /// Whether an identifier without an exchange may be that of one that is over.
    pub(super) fn was_assigned(&self, id: u16) -> bool {
        self.has_wrapped || (1..=self.last).contains(&id)
    }

    /// Clients acknowledge in order [MQTT-4.6.0-2], so the identifier nearly always tells the place.
    fn position(&self, id: u16) -> Option<usize> {
        let first = self.exchanges.front()?.id;
        let guess = usize::from(id.wrapping_sub(first));
        if self.exchanges.get(guess).is_some_and(|exchange| exchange.id == id) {
            return Some(guess);
        }
        if !self.in_use.contains(id) {
            return None;
        }
        self.exchanges.iter().position(|exchange| exchange.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_do_not_collide_when_they_wrap() {
        let mut in_flight = InFlight::default();
        in_flight.insert(1, Tag(0), Awaits::PubAck);
        for round in 0..70_000u64 {
            let id = in_flight.next_id().unwrap();
            assert!(id > 1, "0 is no identifier and 1 is in use");
            in_flight.insert(id, Tag(round), Awaits::PubRec);
            assert_eq!(in_flight.find(id), Some((Awaits::PubRec, Tag(round))));
            in_flight.remove(id);
        }
        assert_eq!(in_flight.len(), 1);
    }

    #[test]
    fn a_delivery_gets_its_own_identifier_and_others_keep_away() {
        let mut in_flight = InFlight::default();
        for (wanted, expected) in [(None, 1), (Some(7), 7), (None, 65_535), (Some(7), 65_534), (Some(8), 8)] {
            let id = in_flight.id_for(wanted.and_then(NonZeroU16::new)).unwrap();
            assert_eq!(id, expected, "{wanted:?}");
            in_flight.insert(id, Tag(0), Awaits::PubAck);
        }
    }

    #[test]
    fn tells_late_from_never() {
        let mut in_flight = InFlight::default();
        in_flight.insert(1, Tag(7), Awaits::PubAck);
        in_flight.remove(1);
        assert!(in_flight.was_assigned(1) && !in_flight.was_assigned(2));
        in_flight.forget_what_was_assigned();
        assert!(in_flight.was_assigned(2));
    }

    #[test]
    fn has_no_identifier_left_when_all_are_in_use() {
        let exchange = |id| Exchange { id, awaits: Awaits::PubAck, tag: Tag(0) };
        let exchanges = (1..=u16::MAX).map(exchange).collect();
        let in_flight = InFlight { exchanges, ..InFlight::default() };
        assert_eq!(in_flight.next_id(), None);
    }
}

//! Deliveries that wait for the client's acknowledgement, by packet identifier.
//!
//! Knows no packet. Spec: OASIS MQTT 5.0 §2.2.1, §4.3.2, §4.9.

use crate::session::Tag;

/// The deliveries in flight, oldest first.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    deliveries: Vec<(u16, Tag)>,
    /// The identifier assigned last; 0 before the first.
    last: u16,
    /// Every identifier has been assigned once.
    has_wrapped: bool,
}

/// What an identifier in an acknowledgement refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// A delivery in flight, taken out.
    Delivery(Tag),
    /// One that is settled already.
    Late,
    /// None of this session.
    NeverAssigned,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// The identifier for the next delivery: not 0 and not in use [MQTT-2.2.1-4]. `None` when all are.
    pub(super) fn next_id(&self) -> Option<u16> {
        if self.deliveries.len() >= usize::from(u16::MAX) {
            return None;
        }
        let mut id = self.last;
        for _ in 0..=self.deliveries.len() {
            id = if id == u16::MAX { 1 } else { id + 1 };
            if !self.contains(id) {
                return Some(id);
            }
        }
        None
    }

    /// Enters a delivery under an identifier from [`InFlight::next_id`].
    pub(super) fn insert(&mut self, id: u16, tag: Tag) {
        self.has_wrapped |= id < self.last;
        self.last = id;
        self.deliveries.push((id, tag));
    }

    /// Takes a delivery out.
    pub(super) fn acknowledge(&mut self, id: u16) -> Acknowledged {
        // Clients acknowledge in order [MQTT-4.6.0-2], so this is nearly always the first one.
        if let Some(position) = self.deliveries.iter().position(|(in_flight, _)| *in_flight == id) {
            let (_, tag) = self.deliveries.remove(position);
            if self.deliveries.is_empty() {
                self.deliveries = Vec::new();
            }
            return Acknowledged::Delivery(tag);
        }
        if self.has_wrapped || (1..=self.last).contains(&id) {
            Acknowledged::Late
        } else {
            Acknowledged::NeverAssigned
        }
    }

    pub(super) fn contains(&self, id: u16) -> bool {
        self.deliveries.iter().any(|(in_flight, _)| *in_flight == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_do_not_collide_when_they_wrap() {
        let mut in_flight = InFlight::default();
        in_flight.insert(1, Tag(0));
        for round in 0..70_000u64 {
            let id = in_flight.next_id().unwrap();
            assert!(id > 1, "0 is no identifier and 1 is in use");
            in_flight.insert(id, Tag(round));
            assert_eq!(in_flight.acknowledge(id), Acknowledged::Delivery(Tag(round)));
        }
        assert_eq!(in_flight.len(), 1);
    }

    #[test]
    fn tells_late_from_never() {
        let mut in_flight = InFlight::default();
        in_flight.insert(1, Tag(7));
        assert_eq!(in_flight.acknowledge(2), Acknowledged::NeverAssigned);
        assert_eq!(in_flight.acknowledge(1), Acknowledged::Delivery(Tag(7)));
        assert_eq!(in_flight.acknowledge(1), Acknowledged::Late);
    }

    #[test]
    fn has_no_identifier_left_when_all_are_in_use() {
        let deliveries = (1..=u16::MAX).map(|id| (id, Tag(0))).collect();
        let in_flight = InFlight { deliveries, ..InFlight::default() };
        assert_eq!(in_flight.next_id(), None);
    }
}

//! A delivery's place on the disk, or its lease of a queue. Whoever is the last to let go of the delivery, for whatever
//! reason, frees the place: what was settled, dropped or overtaken by its expiry does not come back after a restart. A
//! lease brings its message back to the queue unless it was settled.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Durability;
use crate::store::{Change, SessionKey};
use crate::work_queue::Lease;

/// One message of a session's queue, or of a queue of its own.
#[derive(Debug)]
pub struct Stored(Kind);

#[derive(Debug)]
enum Kind {
    Place(Place),
    Lease(Lease),
}

struct Place {
    durability: Arc<Durability>,
    session: u64,
    seq: u64,
    /// An earlier run of the broker may have sent it.
    may_be_known: bool,
    is_kept: AtomicBool,
}

impl Stored {
    /// The message at this place, which is on its way to the disk, or there.
    pub(crate) fn new(durability: &Arc<Durability>, session: u64, seq: u64, may_be_known: bool) -> Arc<Self> {
        let durability = Arc::clone(durability);
        let is_kept = AtomicBool::new(false);
        Arc::new(Self(Kind::Place(Place { durability, session, seq, may_be_known, is_kept })))
    }

    /// A message of a queue that is with a consumer.
    pub(crate) fn lent(lease: Lease) -> Arc<Self> {
        Arc::new(Self(Kind::Lease(lease)))
    }

    /// The lease, if it is one: the message belongs to its queue, and to no session.
    pub(crate) const fn lease(&self) -> Option<&Lease> {
        match &self.0 {
            Kind::Place(_) => None,
            Kind::Lease(lease) => Some(lease),
        }
    }

    /// Its place. Grows within a session. `None`: it is of no session.
    pub(crate) const fn seq(&self) -> Option<u64> {
        match &self.0 {
            Kind::Place(place) => Some(place.seq),
            Kind::Lease(_) => None,
        }
    }

    /// It may have been sent before: it goes with DUP.
    pub(crate) fn may_be_known(&self) -> bool {
        match &self.0 {
            Kind::Place(place) => place.may_be_known,
            Kind::Lease(lease) => lease.was_redelivered(),
        }
    }

    /// The packet identifier that it is sent under: the same after a crash.
    pub(crate) fn packet_id(&self) -> Option<NonZeroU16> {
        NonZeroU16::new(packet_id(self.seq()?))
    }

    /// What frees its place, for whoever tells the store himself, and then says [`Stored::keep`].
    pub(crate) fn dequeue(&self) -> Option<Change> {
        match &self.0 {
            Kind::Place(place) => Some(Change::Dequeue(SessionKey(place.session), place.seq)),
            Kind::Lease(lease) => lease.place()?.dequeue(),
        }
    }

    /// Memory lets go of it, and the disk does not.
    pub(crate) fn keep(&self) {
        match &self.0 {
            Kind::Place(place) => place.is_kept.store(true, Ordering::Relaxed),
            Kind::Lease(lease) => {
                if let Some(place) = lease.place() {
                    place.keep();
                }
            }
        }
    }

    /// Memory has it again, and the disk lets go with it.
    pub(crate) fn take_back(&self) {
        if let Kind::Place(place) = &self.0 {
            place.is_kept.store(false, Ordering::Relaxed);
        }
    }
}

/// Never 0.
pub(crate) fn packet_id(seq: u64) -> u16 {
    u16::try_from(seq % u64::from(u16::MAX)).unwrap_or(0) + 1
}

impl Drop for Place {
    fn drop(&mut self) {
        // A panic must not lose what was acknowledged.
        if !*self.is_kept.get_mut() && !std::thread::panicking() {
            self.durability.dequeue(self.session, self.seq);
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({}, {})", self.session, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_go_round_without_zero() {
        let ids: Vec<u16> = [0, 1, 65_533, 65_534, 65_535, 65_536].map(packet_id).into();
        assert_eq!(ids, [1, 2, 65_534, 65_535, 1, 2]);
    }
}

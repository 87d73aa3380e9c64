//! A delivery's place on the disk. Whoever is the last to let go of the delivery, for whatever reason, frees it: what was
//! settled, dropped or overtaken by its expiry does not come back after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Durability;

/// One message of a session's queue.
pub struct Stored {
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
        Arc::new(Self { durability, session, seq, may_be_known, is_kept: AtomicBool::new(false) })
    }

    /// Its place. Grows within a session.
    pub(crate) const fn seq(&self) -> u64 {
        self.seq
    }

    /// An earlier run of the broker may have sent it: it goes with DUP.
    pub(crate) const fn may_be_known(&self) -> bool {
        self.may_be_known
    }

    /// The packet identifier that it is sent under: never 0, and the same after a crash.
    pub(crate) fn packet_id(&self) -> u16 {
        packet_id(self.seq)
    }

    /// Memory lets go of it, and the disk does not.
    pub(crate) fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    /// Memory has it again, and the disk lets go with it.
    pub(crate) fn take_back(&self) {
        self.is_kept.store(false, Ordering::Relaxed);
    }
}

pub(crate) fn packet_id(seq: u64) -> u16 {
    u16::try_from(seq % u64::from(u16::MAX)).unwrap_or(0) + 1
}

impl Drop for Stored {
    fn drop(&mut self) {
        // A panic must not lose what was acknowledged.
        if !*self.is_kept.get_mut() && !std::thread::panicking() {
            self.durability.dequeue(self.session, self.seq);
        }
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({}, {})", self.session, self.seq)
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

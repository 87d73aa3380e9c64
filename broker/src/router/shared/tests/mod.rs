//! The tests of this room: a member that is what it is told to be, and dice that fall alike in each run.

mod histories;
mod strategies;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tidegate_protocol::session::SubscriptionId;

use super::{GroupMember, Strategy as Choice};

const ALL: [Choice; 4] = [Choice::RoundRobin, Choice::Random, Choice::Sticky, Choice::LeastPending];

/// A member that is what it is told to be.
#[derive(Debug)]
struct Worker {
    key: Key,
    is_online: AtomicBool,
    pending: AtomicUsize,
}

/// Client and subscription.
type Key = (u64, u32);

impl GroupMember for Arc<Worker> {
    fn client(&self) -> u64 {
        self.key.0
    }

    fn subscription(&self) -> SubscriptionId {
        SubscriptionId(self.key.1)
    }

    fn is_online(&self) -> bool {
        self.is_online.load(Ordering::Relaxed)
    }

    fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }
}

fn worker(client: u64, subscription: u32) -> Arc<Worker> {
    Arc::new(Worker {
        key: (client, subscription),
        is_online: AtomicBool::new(true),
        pending: AtomicUsize::new(0),
    })
}

/// A number below `n`, from a sequence that is the same in each run.
fn dice(mut state: u64) -> impl FnMut(usize) -> usize {
    move |n| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % n as u64).unwrap()
    }
}

//! What all clients of a run share: where the broker is, how far the run has come, the books, and chance.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use super::ledger::Ledger;

/// How far the run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Subscribers come first, so that there is somebody to miss a message.
    Gathering,
    /// Everybody does what it is here for.
    Running,
    /// Nothing new is published; whoever was away comes back.
    Draining,
    /// Everything has arrived: acknowledge it and go.
    Over,
}

/// What clients wait for a change of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    /// `None`: the broker is dead.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) stage: Stage,
    /// Publications acknowledged.
    pub(crate) acked: u64,
    /// Subscriptions acknowledged for the first time.
    pub(crate) subscribed: usize,
    /// Messages that arrived for the first time.
    pub(crate) arrived: u64,
}

/// The shared part of a run.
pub(crate) struct World {
    ledger: Mutex<Ledger>,
    state: watch::Sender<State>,
}

impl World {
    pub(crate) fn new(ledger: Ledger) -> Self {
        let state = State { address: None, stage: Stage::Gathering, acked: 0, subscribed: 0, arrived: 0 };
        Self { ledger: Mutex::new(ledger), state: watch::Sender::new(state) }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(crate) fn state(&self) -> State {
        *self.state.borrow()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Waits until the state is so.
    pub(crate) async fn becomes(&self, is_so: impl FnMut(&State) -> bool) -> State {
        let mut states = self.state.subscribe();
        *states.wait_for(is_so).await.unwrap()
    }

    /// Where the broker is, once it lives.
    pub(crate) async fn address(&self) -> SocketAddr {
        self.becomes(|state| state.address.is_some()).await.address.unwrap()
    }
}

/// Chance that can be had again from its seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// An independent one.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

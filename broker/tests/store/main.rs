//! Nothing acknowledged is lost: what a store does, what it does after a crash, and what a writer makes of it
//! (DESIGN §8, SEC-1 to SEC-4, SEC-23).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

mod command;
mod crash;
mod disk;
mod faults;
mod history;
mod suite;
mod support;
mod writer;

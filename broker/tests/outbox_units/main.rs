//! One fact each about lanes, marks, policies, pacing and the writer of one outbox, through its public API with a
//! socket of memory. Histories are in `outbox_operations.rs`, interleavings in `loom_outbox.rs`, real sockets in
//! `backpressure.rs`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of tests may panic as tests do")]

mod conflation;
mod ends;
mod heads;
mod lanes;
mod marks;
mod policies;
mod rig;
mod writer;

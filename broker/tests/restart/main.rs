//! What a broker finds after a crash, without processes and disks: requests go in, the store is copied as it is after the
//! last commit, another broker begins with the copy. Time is an argument, by both clocks (DESIGN §8).

#[path = "../support/core.rs"]
mod core;
mod ends;
mod failing;
mod groups;
mod messages;
mod retained;
mod sessions;
mod wills;
mod world;

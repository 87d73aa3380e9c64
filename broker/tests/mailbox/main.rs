//! Sessions that outlive their connections, without sockets and protocols: requests go in, deliveries come out, time
//! is an argument (OASIS MQTT 5.0 §4.1, §4.3, §4.8.2). The same holds with a store: `mailbox_stored.rs` runs it again.

#[path = "../support/core.rs"]
mod core;
mod expiry;
mod groups;
mod history;
mod limits;
mod queueing;
mod resume;
mod takeover;
mod wills;
mod world;

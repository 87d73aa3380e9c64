//! Tidegate, a pub/sub broker over WebSocket. The protocols themselves are in `tidegate-protocol`; here is
//! everything with a lock, a task, a file or a socket.
//!
//! One published message, socket to socket: [`connection`] reads and drives a session, [`broker`] says what its
//! request means, [`router`] finds who subscribed, [`outbox`] queues and writes. [`assembly`] puts them together.

pub mod admin;
pub mod args;
// For the set-up that the tests in here share with those outside.
#[cfg(test)]
extern crate self as tidegate;

pub mod assembly;
pub mod auth;
pub mod broker;
pub mod client;
pub mod config;
pub mod connection;
pub mod deadlines;
pub mod durability;
pub mod holdings;
pub mod in_flight;
pub mod logging;
pub mod mailbox;
pub mod metrics;
pub mod outbox;
pub mod password;
pub mod registry;
pub(crate) mod remainder;
pub mod retained;
pub mod router;
pub mod server;
pub mod store;
pub mod store_command;
pub mod subscription;
pub mod sys;
pub mod topic_rules;
pub mod work_queue;

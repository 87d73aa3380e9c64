//! Tidegate's broker: everything with a lock, a task, a file or a socket.

pub mod admin;
pub mod args;
pub mod config;
pub mod logging;
pub mod metrics;

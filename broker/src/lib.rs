//! The broker: topic tables, queues, listeners.

pub mod retained;
pub mod router;

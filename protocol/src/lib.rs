//! Tidegate's protocols without I/O.
//!
//! Everything here is a pure state machine or a pure function: no sockets, clocks, tasks, locks of its own or
//! logs. Bytes, events and `now` go in; outputs come out. So every rule of RFC 6455, RFC 7692, MQTT and STOMP
//! is tested without a socket and without sleeping.
//!
//! ```text
//!  bytes ─▶ websocket::Receiver ─▶ Message ─▶ Session ─▶ Request ─▶ (the broker)
//!  bytes ◀─ Prepared / Outgoing ◀──────────── Session ◀─ Reply, Delivery ◀─┘
//! ```
//!
//! - [`topic`], [`publication`]: what is published, and where to.
//! - [`packet_ids`]: a set of MQTT's packet identifiers, for sessions and for whoever keeps them.
//! - [`session`]: the contract between a protocol and a broker.
//! - [`websocket`]: RFC 6455 and RFC 7692; knows no topic.
//! - [`raw`], [`mqtt`], [`stomp`]: a codec and a session each; none knows another.
//! - [`subprotocol`]: the one list of them.

pub mod mqtt;
pub mod packet_ids;
pub mod publication;
pub mod raw;
mod reader;
pub mod selector;
pub mod session;
pub mod stamped;
pub mod stomp;
pub mod subprotocol;
pub mod topic;
pub mod websocket;

//! The parts of `load`, the load generator: children (the brokers), wire (what a client says and counts),
//! swarm (many connections in one epoll loop), drive (saturation and fixed rate), scenarios, report.
//! Knows nothing of the broker's inside; it sees sockets and `/proc`.

pub mod child;
pub mod drive;
pub mod histogram;
pub mod report;
pub mod scenario;
pub mod swarm;
pub mod wire;

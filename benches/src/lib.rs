//! The parts of `load`, the load generator: children (the brokers), wire, mqtt and stomp (what a client says and counts),
//! swarm (many connections in one epoll loop), drive (saturation and fixed rate), rig (a broker with its
//! connections), pair (a question and its answer beside a load), pipeline (publishers that wait for acknowledgements),
//! scenarios (QoS 0, acknowledged, stored, durable, queue), report. Knows nothing of the broker's inside; it sees sockets and
//! `/proc`.

pub mod acknowledged;
pub mod child;
pub mod drive;
pub mod durable;
pub mod histogram;
pub mod mqtt;
pub mod pair;
pub mod pipeline;
pub mod queue;
pub mod report;
pub mod rig;
pub mod scenario;
mod stomp;
pub mod stored;
pub mod swarm;
pub mod wire;

//! What the operator's file says about queues. Plain data.

use std::num::NonZeroU16;
use std::time::Duration;

/// How much a queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages.
    pub messages_max: usize,
    /// Their bytes, as deliveries count them.
    pub bytes_max: usize,
    /// A message is dropped after this long; `None`: it waits for ever.
    pub message_ttl: Option<Duration>,
    /// What a full queue does.
    pub when_full: WhenFull,
    /// A message that consumers refuse more often is dropped.
    pub refusals_max: u8,
}

/// What a full queue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Publishers are told.
    Refuse,
    /// The oldest go.
    DropOldest,
}

/// What the operator's file says about queues.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Of a queue.
    pub limits: Limits,
    /// Of what a durable subscription is kept under: as of a session.
    pub durable_limits: Limits,
    /// `work_queue.max_queues`, durable subscriptions included; 0: there are none.
    pub queues_max: usize,
    /// `work_queue.prefetch`: for consumers that do not say one.
    pub prefetch: NonZeroU16,
}

impl Default for Rules {
    /// As the file that is compiled in.
    fn default() -> Self {
        let limits = Limits {
            messages_max: 100_000,
            bytes_max: 256 * 1024 * 1024,
            message_ttl: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            when_full: WhenFull::Refuse,
            refusals_max: 6,
        };
        let durable_limits = Limits { message_ttl: None, when_full: WhenFull::DropOldest, ..limits };
        Self { limits, durable_limits, queues_max: 10_000, prefetch: NonZeroU16::MIN.saturating_add(31) }
    }
}

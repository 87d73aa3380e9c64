//! What survives a crash: sessions, what waits for them, what is retained (DESIGN §8).
//!
//! ```text
//!   record    plain data as it is stored, and its bytes; knows no database
//!   memory    the store of tests: the definition of what a store does
//!   disk      the store of operators: fjall
//!   writer    one thread: gathers changes, commits them in one atomic batch, completes tickets
//!   loader    one thread: reads pages of queues behind the commits that they depend on
//! ```
//!
//! A [`Store`] is the backend: it commits a batch, and reads. Brokers use a [`Writer`], which never waits for the disk:
//! changes go in, a [`Ticket`] comes out, and whoever has promised something to a client keeps the
//! promise until the ticket is done. Nobody here reads a clock but the writer's thread; times in records are Unix
//! milliseconds, since they are compared across restarts.

pub mod disk;
pub mod error;
mod loader;
pub mod memory;
pub mod record;
pub mod report;
pub mod writer;

use std::path::Path;

use tidegate_protocol::topic::Topic;

pub use self::error::StoreError;
pub use self::record::{
    Away, BodyId, PublicationRecord, ReferenceRecord, SessionKey, SessionRecord, SubscriptionKey,
    SubscriptionRecord, WillRecord,
};
pub use self::report::{CheckReport, Damage, Recovery, StatsReport};
pub use self::writer::{Settings, Ticket, Waiter, Writer};

/// One thing that is to be remembered or forgotten. All of them may be repeated: the second time changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session begins, or what is known of it changes. Its subscriptions and its queue stay.
    PutSession(SessionKey, Box<SessionRecord>),
    /// A session ends, with its subscriptions, its queue, its packet identifiers, and the bodies that nobody else
    /// refers to.
    RemoveSession(SessionKey),
    /// A subscription, in the place of the one of the same name. No-op without the session.
    PutSubscription(SessionKey, Box<SubscriptionRecord>),
    /// Unsubscribed.
    RemoveSubscription(SessionKey, SubscriptionKey),
    /// A body that references of the same batch point at. Without any it is not stored.
    PutBody(BodyId, Box<PublicationRecord>),
    /// A message at this place of the session's queue. No-op without the session, which may have ended meanwhile, and
    /// without the body.
    Enqueue(SessionKey, u64, ReferenceRecord),
    /// PUBREC came for this packet identifier: the client has the message, and the reference stays for PUBREL.
    Receive(SessionKey, u64, u16),
    /// Settled or dropped. The body goes with its last reference.
    Dequeue(SessionKey, u64),
    /// A QoS 2 publication came under this packet identifier. No-op without the session.
    InsertReceived(SessionKey, u16),
    /// PUBREL came.
    RemoveReceived(SessionKey, u16),
    /// The retained message of its topic.
    PutRetained(Box<PublicationRecord>),
    /// There is none any more.
    RemoveRetained(Topic),
}

/// What is committed together.
pub type Changes = Vec<Change>;

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// One fsync for all that came in meanwhile.
    #[default]
    Group,
    /// One fsync for each submission.
    Always,
    /// The operating system has it: survives `kill -9`, not a power loss.
    Os,
}

/// A message as it waits in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedMessage {
    /// Its place.
    pub seq: u64,
    /// How it is to be delivered.
    pub reference: ReferenceRecord,
    /// What; `None` once PUBREC came.
    pub publication: Option<PublicationRecord>,
}

/// Some of a queue, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages.
    pub messages: Vec<QueuedMessage>,
    /// Where the next page begins.
    pub next_seq: u64,
    /// Nothing was stored behind `next_seq` when the page was read.
    pub is_last: bool,
    /// Records that could not be read and were put aside.
    pub quarantined: usize,
}

/// How much of a queue a page may hold. Always at least one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    /// Messages.
    pub count_max: usize,
    /// Bytes as in [`ReferenceRecord::size_bytes`].
    pub bytes_max: usize,
}

/// What a store gives back after a start, one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// A session. Sessions come in the order of their keys, before everything retained.
    Session(Box<RecoveredSession>),
    /// A retained message.
    Retained(Box<PublicationRecord>),
}

/// A session as it was at the last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredSession {
    /// Its number.
    pub key: SessionKey,
    /// What is known of it.
    pub record: SessionRecord,
    /// Its subscriptions, in no order.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// QoS 2 packet identifiers that came in before their PUBREL, ascending.
    pub received: Vec<u16>,
    /// What waits; the messages themselves stay on the disk.
    pub queue: QueueSummary,
}

/// A queue in a few numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSummary {
    /// The first message; 0 when there is none.
    pub first_seq: u64,
    /// Behind the last message; 0 when there is none.
    pub next_seq: u64,
    /// Messages, those that the client has included.
    pub count: u64,
    /// Of them together.
    pub bytes: u64,
    /// Places and packet identifiers of the messages for which PUBREC came.
    pub received: Vec<(u64, u16)>,
    /// The highest id of a subscription that one of them came through, which may be gone; 0 when there is none.
    pub subscription_max: u32,
}

/// How far a start has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sessions read.
    pub sessions: u64,
    /// Queued messages counted.
    pub messages: u64,
    /// Retained messages read.
    pub retained: u64,
}

/// A backend. Commits come from one thread at a time; reads may come from another meanwhile.
pub trait Store: Send + std::marker::Sync + 'static {
    /// Commits all of it atomically, in order; durable as the store was opened when it returns. After an error nothing
    /// of it is stored, and the next commit tries to make the store work again.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Some of a session's queue, from this place on. Records that cannot be read are put aside and skipped.
    fn load_queue(&self, session: SessionKey, from_seq: u64, limits: PageLimits) -> Result<Page, StoreError>;

    /// Reads everything but the messages. Once, before the first commit; `progress` is called now and then.
    fn recover(
        &self,
        visit: &mut dyn FnMut(Recovered),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Recovery, StoreError>;

    /// Work that may wait: the rest of large sessions that were removed, space of consumed messages. `true`: there is
    /// more. Called by the thread that commits, when there is nothing to commit.
    fn maintain(&self) -> Result<bool, StoreError>;

    /// What the store takes on the disk; 0 in memory.
    fn disk_bytes(&self) -> u64;

    /// Sessions, messages and bytes.
    fn stats(&self) -> Result<StatsReport, StoreError>;

    /// Reads every record and compares what belongs together.
    fn check(&self) -> Result<CheckReport, StoreError>;

    /// A consistent copy in a fresh directory that opens as a store.
    fn backup(&self, directory: &Path) -> Result<(), StoreError>;

    /// Lets go of the disk, though somebody may still have this store. The last: nothing is committed after it.
    fn close(&self) {}
}

impl Change {
    /// It only forgets: it needs no room, and must not get lost for good when the disk fails.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        match self {
            Self::RemoveSession(_)
            | Self::RemoveSubscription(..)
            | Self::Receive(..)
            | Self::Dequeue(..)
            | Self::RemoveReceived(..)
            | Self::RemoveRetained(_) => true,
            Self::PutSession(..)
            | Self::PutSubscription(..)
            | Self::PutBody(..)
            | Self::Enqueue(..)
            | Self::InsertReceived(..)
            | Self::PutRetained(_) => false,
        }
    }

    /// It must not get lost for good when the disk fails, and goes in though the store is full: what only forgets, and
    /// where a session stands. Else its time would go on though its client has come back, and its will would be published
    /// though it has said goodbye. Whoever begins a session asks first ([`Writer::admit`]).
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.is_removal() || matches!(self, Self::PutSession(..))
    }

    /// What it takes in the writer's queue, about.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let inner = match self {
            Self::PutBody(_, body) | Self::PutRetained(body) => body.size_bytes(),
            Self::PutSession(_, session) => {
                session.name.len() + session.will.as_ref().map_or(0, |will| will.publication.size_bytes())
            }
            Self::PutSubscription(_, subscription) => subscription.key.filter.as_str().len(),
            _ => 0,
        };
        size_of::<Self>() + inner
    }
}

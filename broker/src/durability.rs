//! What the core knows of the store: it hands changes over, and remembers what waits for their commit.
//!
//! QoS 0 and 1 are pushed at once, and only the acknowledgement waits. What is published at QoS 2 is pushed after the
//! commit, in the order of commits: after a crash before it, the publisher sends again, and nobody may have seen it.
//! So is what a member of a group has on the disk alone.

mod stored;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use tidegate_protocol::session::Refusal;

pub use self::stored::Stored;
use crate::broker::{Batch, Now};
use crate::mailbox::{FIRST_SEQ, Mailbox};
use crate::store::{
    Change, Changes, Page, PageLimits, QueueSummary, SessionKey, StoreError, Ticket, Waiter, Writer,
};
use crate::subscription::Entry;

/// The way to the store.
pub struct Durability {
    writer: Writer,
    /// Both clocks, for the thread that brings messages back.
    clock: fn() -> Now,
    deferred: Mutex<Deferrals>,
}

/// What is pushed when it is committed.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) ticket: Ticket,
    pub(crate) planned: Vec<Planned>,
}

/// A delivery that has its place in its session's queue, or needs none.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) entry: Entry,
    pub(crate) place: Place,
}

/// Whose messages wait on the disk.
pub(crate) trait PageTaker: Send + Sync {
    /// A page has been read.
    fn take_page(self: Arc<Self>, page: Result<Page, StoreError>, now: Now);
}

impl Planned {
    /// It is brought to its session after the commit: until then whoever looks for the messages of a member that ends
    /// does not find it on the disk, and its publisher hands it on.
    pub(crate) fn is_for_group_on_disk(&self) -> bool {
        self.place == Place::Disk && self.entry.subscription.group().is_some()
    }
}

/// Where a delivery goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// To a client that has nothing on the disk.
    Unstored,
    /// Into the memory of its session, and the disk.
    Memory,
    /// The disk alone: the session is away, or has more there.
    Disk,
}

#[derive(Debug, Default)]
struct Deferrals {
    /// In the order of their tickets.
    waiting: VecDeque<Deferred>,
    /// A commit was done since the task looked.
    is_news: bool,
    waker: Option<Waker>,
}

/// Messages of one page.
const PAGE_MESSAGES_MAX: usize = 256;

/// Bytes of one page, as deliveries count them.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

impl std::fmt::Debug for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Durability").finish_non_exhaustive()
    }
}

impl Durability {
    /// With a writer that runs. `clock` tells both times.
    #[must_use]
    pub fn new(writer: Writer, clock: fn() -> Now) -> Arc<Self> {
        Arc::new(Self { writer, clock, deferred: Mutex::default() })
    }

    /// Where the places of a recovered session go on: right behind what waits, since the oldest are dropped by their
    /// places. Where nothing waits, behind all that it ever had, since no session has taken more of them than bodies were
    /// stored: a client may still know the packet identifier of a message that is gone.
    pub(crate) fn next_seq(&self, queue: &QueueSummary) -> u64 {
        match queue.count {
            0 => FIRST_SEQ.saturating_add(self.writer.next_body().0),
            _ => queue.next_seq.max(FIRST_SEQ),
        }
    }

    /// The writer.
    #[must_use]
    pub const fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Whether it would take something now. Asked before anything is changed that a refusal could not take back.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] while the disk fails or is full.
    pub fn admit(&self) -> Result<(), Refusal> {
        self.writer.admit().map_err(|error| refusal(&error))
    }

    /// Hands changes over. What is said to the client about them waits for [`Batch::after`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] while the store takes nothing.
    pub fn submit(&self, changes: Changes, batch: &mut Batch) -> Result<Ticket, Refusal> {
        let ticket = self.writer.submit(changes).map_err(|error| refusal(&error))?;
        batch.after = Some(ticket);
        Ok(ticket)
    }

    /// Hands over what nobody waits for.
    pub fn note(&self, changes: Changes) {
        // A store that was stopped has nothing to remember any more; else removals are always taken.
        self.offer(changes);
    }

    /// The same, where it matters whether it was taken.
    pub(crate) fn offer(&self, changes: Changes) -> bool {
        self.writer.submit(changes).is_ok()
    }

    /// A message has left its queue.
    pub(crate) fn dequeue(&self, session: u64, seq: u64) {
        self.note(vec![Change::Dequeue(SessionKey(session), seq)]);
    }

    /// What became of it; `None`: not known yet.
    #[must_use]
    pub fn outcome(&self, ticket: Ticket) -> Option<Result<(), Refusal>> {
        self.writer.outcome(ticket).map(|outcome| outcome.map_err(|error| refusal(&error)))
    }

    /// Wakes it once when the ticket is done; at once if it is.
    pub fn when_done(&self, ticket: Ticket, waiter: Arc<dyn Waiter>) {
        self.writer.when_done(ticket, waiter);
    }

    // ---- pages ----

    /// Reads more of a queue, behind all that was submitted so far, and hands it over.
    pub(crate) fn load(&self, taker: Weak<dyn PageTaker>, session: u64, from_seq: u64) {
        let clock = self.clock;
        let limits = PageLimits { count_max: PAGE_MESSAGES_MAX, bytes_max: PAGE_BYTES_MAX };
        let deliver = move |page: Result<_, StoreError>| {
            // A writer that was stopped says so at once, to somebody who holds the mailbox's lock. Nobody waits for more
            // pages then.
            if !matches!(page, Err(StoreError::Closed))
                && let Some(taker) = taker.upgrade()
            {
                taker.take_page(page, clock());
            }
        };
        self.writer.load(SessionKey(session), from_seq, limits, Box::new(deliver));
    }

    /// The same at once, and no further than what is committed. Waits for the disk.
    pub(crate) fn read(&self, session: u64, from_seq: u64) -> Result<Page, StoreError> {
        let limits = PageLimits { count_max: PAGE_MESSAGES_MAX, bytes_max: PAGE_BYTES_MAX };
        self.writer.store().load_queue(SessionKey(session), from_seq, limits)
    }

    // ---- what is pushed after its commit ----

    /// Keeps deliveries until their commit. When that fails, the packet identifier is free again before anybody is told.
    pub(crate) fn defer(self: &Arc<Self>, deferred: Deferred, received: Option<(Arc<Mailbox>, u16)>) {
        let ticket = deferred.ticket;
        self.deferred.lock().waiting.push_back(deferred);
        let durability = Arc::downgrade(self);
        let waiter = move || {
            let Some(durability) = durability.upgrade() else { return };
            if let (Some(Err(_)), Some((mailbox, packet_id))) = (durability.outcome(ticket), &received) {
                mailbox.forget_received(*packet_id);
            }
            durability.wake();
        };
        self.when_done(ticket, Arc::new(waiter));
    }

    /// The next that is committed or has failed, and which of both.
    pub(crate) fn take_deferred(&self) -> Option<(Deferred, Result<(), Refusal>)> {
        let mut deferrals = self.deferred.lock();
        let outcome = self.outcome(deferrals.waiting.front()?.ticket)?;
        deferrals.waiting.pop_front().map(|deferred| (deferred, outcome))
    }

    /// Waits until a commit has been done since the last call. Cancel safe.
    pub async fn committed(&self) {
        poll_fn(|context| {
            let mut deferrals = self.deferred.lock();
            if std::mem::take(&mut deferrals.is_news) {
                return Poll::Ready(());
            }
            deferrals.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn wake(&self) {
        let waker = {
            let mut deferrals = self.deferred.lock();
            deferrals.is_news = true;
            deferrals.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The place of a delivery that has one.
pub(crate) fn seq_of(entry: &Entry) -> u64 {
    entry.stored.as_ref().and_then(|stored| stored.seq()).unwrap_or_default()
}

fn refusal(error: &StoreError) -> Refusal {
    Refusal::Overloaded(match error {
        StoreError::Full => "the store is full",
        StoreError::Closed => "the broker is stopping",
        _ => "the disk of the store fails",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Settings;
    use crate::store::memory::MemoryStore;

    #[test]
    fn places_go_on_behind_what_waits_and_never_begin_anew() {
        let writer = Writer::start(Arc::new(MemoryStore::new()), Settings::default(), 5000).unwrap();
        let durability = Durability::new(writer, crate::connection::clock);
        let waiting = QueueSummary { first_seq: 1030, next_seq: 1040, count: 10, ..QueueSummary::default() };
        assert_eq!(durability.next_seq(&waiting), 1040, "a gap would be dropped in the place of messages");
        assert_eq!(durability.next_seq(&QueueSummary::default()), FIRST_SEQ + 5000);
    }
}

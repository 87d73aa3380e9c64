//! One client's outbox: a bounded queue and the write side of its socket.
//!
//! Anyone may [`Outbox::push`] and [`Outbox::flush`]; the owner is the connection's task, which alone encodes for
//! the session, waits for the socket, and ends the connection. Two locks: the queue's, short, and the writer's,
//! held over the system call and only ever tried for. Lock order: writer, then queue.
//!
//! Here is what publishers see. What the owner's task alone does is in `owner`, what the client's mailbox does in
//! `backlog`, the way from the queue to the socket in `flush`.

mod backlog;
mod conflate;
mod flush;
pub(crate) mod lane;
mod notice;
mod own;
mod owner;
pub mod queue;
pub(crate) mod room;
mod sync;
pub mod writer;

use std::sync::atomic::{AtomicIsize, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

use tidegate_protocol::session::{CloseReason, DropReason};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::websocket::prepared::Deflating;

use self::queue::{Limits, Pushed, Queue, Signals};
use self::room::Amount;
use self::sync::{AtomicBool, Mutex};
use self::writer::{Socket, WriteLimits, Writer};
use crate::metrics::Metrics;
use crate::subscription::{ENTRY_BYTES, Entry};

/// What all outboxes share.
#[derive(Debug)]
pub struct Shared {
    /// Marks of each client.
    pub limits: Limits,
    /// How frames are gathered.
    pub write: WriteLimits,
    /// Bytes of publications that are alive, their forms included; publications count themselves.
    pub publication_bytes: Arc<AtomicUsize>,
    /// Deliveries in all queues.
    pub entries: AtomicIsize,
    /// The budget of both together.
    pub total_bytes_max: usize,
    /// Where drops are counted.
    pub metrics: Arc<Metrics>,
}

/// One client's outbox.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
    /// Somebody found the writer taken: its holder looks into the queue once more.
    again: AtomicBool,
    shared: Arc<Shared>,
    /// Acknowledged deliveries that the session has and has not settled.
    unsettled: AtomicU32,
    family: Family,
    client: u64,
}

impl Shared {
    /// What queued messages cost now: shared bodies once, plus 64 bytes for each entry.
    pub fn queued_bytes(&self) -> usize {
        self.publication_bytes.load(Ordering::Relaxed) + self.queued() * ENTRY_BYTES
    }

    /// Counts deliveries that one fan-out has brought into queues.
    pub fn entered(&self, growth: isize) {
        self.entries.fetch_add(growth, Ordering::Relaxed);
    }

    /// Deliveries in all queues.
    pub fn queued(&self) -> usize {
        usize::try_from(self.entries.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether the budget of the whole broker is used up.
    pub fn is_full(&self) -> bool {
        self.queued_bytes() >= self.total_bytes_max
    }
}

impl Outbox {
    /// An outbox that writes to `socket`, compressing as negotiated.
    pub fn new(
        client: u64,
        socket: Arc<dyn Socket>,
        deflating: Option<Deflating>,
        shared: Arc<Shared>,
        family: Family,
    ) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue::new()),
            writer: Mutex::new(Writer::new(socket, deflating)),
            again: AtomicBool::new(false),
            shared,
            unsettled: AtomicU32::new(0),
            family,
            client,
        })
    }

    /// The connection that owns it.
    pub fn client(&self) -> u64 {
        self.client
    }

    // ---- deliveries ----

    /// Queues without waiting and applies the policy of the entry's subscription. The flag says whether the caller
    /// has to call [`Outbox::flush`] once it has pushed what it has.
    pub fn push(&self, entry: Entry, now: Instant) -> (Pushed, bool) {
        let (pushed, must_flush, waker) = {
            let mut queue = self.queue.lock();
            let pushed = queue.push(entry, &self.shared.limits, now);
            let is_refused = matches!(pushed, Pushed::Closed | Pushed::Full | Pushed::Dropped(_));
            let must_flush = !is_refused && queue.touch();
            self.left(queue.take_swept());
            (pushed, must_flush, queue.waker_if_signalled())
        };
        wake(waker);
        if pushed == Pushed::Dropped(DropReason::Closed) {
            // It was the one too many: the client is being disconnected for it.
            self.shared.metrics.dropped(DropReason::Closed, 1);
            return (Pushed::Closed, false);
        }
        (pushed, must_flush)
    }

    /// Like [`Outbox::push`] while the broker's memory is used up: only an idle client gets it.
    pub fn push_if_idle(&self, entry: Entry, now: Instant) -> (Pushed, bool) {
        let waker = {
            let mut queue = self.queue.lock();
            if !queue.is_open() {
                return (Pushed::Closed, false);
            }
            if queue.messages() == 0 {
                None
            } else {
                queue.note_drop(&entry);
                Some(queue.waker_if_signalled())
            }
        };
        let Some(waker) = waker else { return self.push(entry, now) };
        wake(waker);
        (Pushed::Dropped(DropReason::Memory), false)
    }

    /// A delivery to this client was dropped elsewhere.
    pub(crate) fn note_drop(&self, entry: &Entry) {
        let waker = {
            let mut queue = self.queue.lock();
            queue.note_drop(entry);
            queue.waker_if_signalled()
        };
        wake(waker);
    }

    /// Whether this publisher has to wait for room here. It is told by [`Signals::ROOM`].
    pub fn wait_for_room(&self, publisher: &Arc<Self>) -> bool {
        let limits = &self.shared.limits;
        self.client != publisher.client && self.queue.lock().wait_for_room(Arc::downgrade(publisher), limits)
    }

    // ---- what it holds ----

    /// Deliveries that wait for the client or for its acknowledgement.
    pub fn pending(&self) -> usize {
        let unsettled = usize::try_from(self.unsettled.load(Ordering::Relaxed)).unwrap_or(0);
        self.queue.lock().messages() + unsettled
    }

    /// Messages and bytes that are queued and count against the client's mark.
    pub fn queued(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.messages(), queue.bytes())
    }

    /// Bytes that are queued and count against the client's mark.
    pub fn queued_bytes(&self) -> usize {
        self.queued().1
    }

    /// Whether less than half of the mark is used.
    pub fn is_below_half(&self) -> bool {
        self.queue.lock().is_below_half(&self.shared.limits)
    }

    /// Whether deliveries are still taken.
    pub fn is_open(&self) -> bool {
        self.queue.lock().is_open()
    }

    /// A subscription of this client has ended: what is queued for it makes room for others.
    pub(crate) fn note_dead(&self) {
        self.queue.lock().note_dead();
    }

    // ---- the end, and signals ----

    /// Asks the owner to end the connection.
    pub fn order_close(&self, reason: CloseReason) {
        let waker = {
            let mut queue = self.queue.lock();
            queue.order_close(reason);
            queue.waker_if_signalled()
        };
        wake(waker);
    }

    /// Tells the owner.
    pub fn signal(&self, signal: Signals) {
        let waker = {
            let mut queue = self.queue.lock();
            queue.signal(signal);
            queue.waker_if_signalled()
        };
        wake(waker);
    }

    /// Discards everything. Gives the number of deliveries that are lost.
    pub fn fail(&self) -> usize {
        let (dropped, waiters, waker) = {
            let mut queue = self.queue.lock();
            let before = queue.messages();
            let dropped = queue.fail();
            self.left(before - queue.messages());
            (dropped, queue.take_waiters(), queue.waker_if_signalled())
        };
        wake(waker);
        wake_publishers(&waiters);
        dropped
    }

    // ---- for the other rooms ----

    fn count_expired(&self, queue: &mut Queue) {
        let expired = queue.take_expired();
        if expired > 0 {
            self.shared.metrics.dropped(DropReason::Expired, u64::from(expired));
        }
    }

    fn left(&self, entries: usize) {
        if entries > 0 {
            let entries = isize::try_from(entries).unwrap_or(isize::MAX);
            self.shared.entries.fetch_sub(entries, Ordering::Relaxed);
        }
    }
}

/// What has left a queue since it held so much.
fn departed(queue: &Queue, messages_before: usize, bytes_before: usize) -> Amount {
    Amount {
        messages: messages_before.saturating_sub(queue.messages()),
        bytes: bytes_before.saturating_sub(queue.bytes()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn wake_publishers(waiters: &[Weak<Outbox>]) {
    for publisher in waiters.iter().filter_map(Weak::upgrade) {
        publisher.signal(Signals::ROOM);
    }
}

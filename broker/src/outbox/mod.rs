//! One client's outbox: a bounded queue and the write side of its socket.
//!
//! Anyone may [`Outbox::push`] and [`Outbox::flush`]; the owner is the connection's task, which alone encodes for
//! the session, waits for the socket, and ends the connection. Two locks: the queue's, short, and the writer's,
//! held over the system call and only ever tried for. Lock order: writer, then queue.

mod conflate;
mod flush;
pub(crate) mod lane;
mod notice;
mod own;
pub mod queue;
pub(crate) mod room;
mod sync;
pub mod writer;

use std::sync::atomic::{AtomicIsize, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{CloseReason, DataLane, DropReason, Lag, LagNotice, Wants};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::websocket::prepared::Deflating;

use self::lane::Lane;
use self::queue::{Frame, Hold, Limits, Pushed, Queue, Signals};
use self::room::Amount;
use self::sync::{AtomicBool, Mutex};
use self::writer::{Socket, WriteLimits, Writer};
use crate::metrics::Metrics;
use crate::subscription::{ENTRY_BYTES, Entry, Subscription};

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

    // ---- for publishers ----

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

    /// Deliveries that wait for the client or for its acknowledgement.
    pub fn pending(&self) -> usize {
        let unsettled = usize::try_from(self.unsettled.load(Ordering::Relaxed)).unwrap_or(0);
        self.queue.lock().messages() + unsettled
    }

    /// Whether deliveries are still taken.
    pub fn is_open(&self) -> bool {
        self.queue.lock().is_open()
    }

    /// Whether this publisher has to wait for room here. It is told by [`Signals::ROOM`].
    pub fn wait_for_room(&self, publisher: &Arc<Self>) -> bool {
        let limits = &self.shared.limits;
        self.client != publisher.client && self.queue.lock().wait_for_room(Arc::downgrade(publisher), limits)
    }

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

    fn count_expired(&self, queue: &mut Queue) {
        let expired = queue.take_expired();
        if expired > 0 {
            self.shared.metrics.dropped(DropReason::Expired, u64::from(expired));
        }
    }

    // ---- for the owner ----

    /// What the client can take, known once it is connected.
    pub fn set_client(&self, packet_bytes_max: Option<usize>, lag_notice: LagNotice) {
        self.queue.lock().set_client(packet_bytes_max, lag_notice);
    }

    /// What is queued at QoS > 0 survives the end of the connection, for whoever takes it then.
    pub fn keep_acked(&self) {
        self.queue.lock().keep_acked();
    }

    /// Takes the acknowledged deliveries that are queued. They are counted as queued still.
    pub(crate) fn take_acked(&self) -> Vec<Entry> {
        self.queue.lock().take_acked()
    }

    /// Takes those of one subscription; they are not counted any more.
    pub(crate) fn take_acked_of(&self, subscription: &Subscription) -> Vec<Entry> {
        let taken = self.queue.lock().take_acked_of(subscription);
        self.left(taken.len());
        taken
    }

    /// Moves deliveries from `backlog` into the queue while that is below half of its mark; those of ended
    /// subscriptions and expired ones are left out. Gives how many were moved.
    pub(crate) fn feed(&self, backlog: &mut Lane, now: Instant) -> usize {
        let (moved, waiters) = {
            let mut queue = self.queue.lock();
            let moved = queue.feed(backlog, &self.shared.limits, now);
            self.count_expired(&mut queue);
            queue.set_behind(amount_of(backlog));
            // What was left out makes room, what was moved does not.
            (moved, queue.waiters_if_room(Amount::default(), &self.shared.limits, now))
        };
        wake_publishers(&waiters);
        moved
    }

    /// A delivery was put into the mailbox's `backlog`, behind this queue: both together are held against the mark.
    /// Gives whether its publisher should wait. The owner is woken when it can feed the queue.
    pub(crate) fn note_behind(&self, backlog: &Lane, now: Instant) -> bool {
        let (is_held, waiters, waker) = {
            let limits = &self.shared.limits;
            let mut queue = self.queue.lock();
            queue.set_behind(amount_of(backlog));
            let is_held = queue.holds_behind(limits, now);
            let waiters = queue.waiters_if_room(Amount::default(), limits, now);
            if !queue.wakes_below_half(limits) {
                // The owner may have seen an empty backlog a moment ago.
                queue.signal(Signals::SESSION);
            }
            (is_held, waiters, queue.waker_if_signalled())
        };
        wake(waker);
        wake_publishers(&waiters);
        is_held
    }

    /// What waits in the mailbox's `backlog` has become another.
    pub(crate) fn set_behind(&self, backlog: &Lane, now: Instant) {
        let waiters = {
            let mut queue = self.queue.lock();
            queue.set_behind(amount_of(backlog));
            queue.waiters_if_room(Amount::default(), &self.shared.limits, now)
        };
        wake_publishers(&waiters);
    }

    /// Messages were dropped while the client was away.
    pub(crate) fn note_lost(&self, count: u64) {
        self.queue.lock().note_lost(count);
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

    /// Every data frame goes through the owner from now on (context takeover).
    pub fn set_owner_encodes(&self) {
        self.queue.lock().set_owner_encodes();
    }

    /// Puts a frame before all queued data.
    pub fn push_control(&self, frame: impl Into<Frame>) {
        self.queue.lock().push_control(frame.into());
    }

    /// A subscription of this client has ended: what is queued for it makes room for others.
    pub(crate) fn note_dead(&self) {
        self.queue.lock().note_dead();
    }

    /// Puts a pong before all queued data, in the place of an older unsent one.
    pub fn push_pong(&self, frame: Bytes) {
        self.queue.lock().set_pong(frame);
    }

    /// Unsent bytes of the control lane.
    pub fn control_bytes(&self) -> usize {
        self.queue.lock().control_bytes()
    }

    /// Keeps others from writing until [`Outbox::release_subscribe`], so that the reply to a Subscribe precedes
    /// its first message.
    pub fn hold_subscribe(&self) {
        self.queue.lock().hold(Hold::Subscribe);
    }

    /// Ends [`Outbox::hold_subscribe`].
    pub fn release_subscribe(&self) {
        self.queue.lock().release(Hold::Subscribe);
    }

    /// Takes deliveries that need the session; others only push until [`Outbox::put_back`].
    pub fn take_for_session(&self, into: &mut Vec<Entry>, count: usize, wants: Wants, now: Instant) {
        let first = into.len();
        let waiters = {
            let mut queue = self.queue.lock();
            let (before, before_bytes) = (queue.messages(), queue.bytes());
            queue.take_for_session(into, count, wants, now);
            self.left(before - queue.messages());
            self.count_expired(&mut queue);
            if !into.is_empty() {
                queue.hold(Hold::Popped);
            }
            let departed = departed(&queue, before, before_bytes);
            queue.waiters_if_room(departed, &self.shared.limits, now)
        };
        let payload_bytes: usize = into.iter().skip(first).map(|entry| entry.publication.payload.len()).sum();
        if payload_bytes > 0 {
            self.shared.metrics.family(self.family).payload_bytes_out.add(payload_bytes as u64);
        }
        wake_publishers(&waiters);
    }

    /// The session is given these. Counted for clients that others may step in for.
    pub(crate) fn note_unsettled(&self, taken: &[Entry]) {
        let acked = taken.iter().filter(|entry| entry.qos > QoS::AtMostOnce).count();
        self.unsettled.fetch_add(u32::try_from(acked).unwrap_or(0), Ordering::Relaxed);
    }

    /// The session has settled an acknowledged delivery.
    pub fn note_settled(&self) {
        // Settled twice, or never counted: the number is a hint for `least_pending` and may be off.
        let _ =
            self.unsettled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
    }

    /// Puts the bytes of taken deliveries in their place and lets others write again.
    pub fn put_back(&self, frames: &mut Vec<Frame>, deliveries: usize) {
        self.shared.metrics.family(self.family).messages_out.add(deliveries as u64);
        let mut queue = self.queue.lock();
        queue.push_encoded(frames.drain(..));
        queue.release(Hold::Popped);
    }

    /// What was lost since the last call. With a result, ask again after [`queue::LAG_INTERVAL`].
    pub fn take_lag(&self) -> Option<Box<Lag>> {
        self.queue.lock().take_lag()
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

    /// Has the owner woken once less than half of the mark is used. `false`: that is so already.
    pub fn wakes_below_half(&self) -> bool {
        self.queue.lock().wakes_below_half(&self.shared.limits)
    }

    /// Appends retained publications that `next` reads under this lock, so that none is older than a live one
    /// before it (DESIGN §5.10).
    pub fn push_retained(&self, next: impl Iterator<Item = Entry>) {
        let (mut growth, mut conflated, mut too_large) = (0, 0, 0);
        let waker = {
            let mut queue = self.queue.lock();
            for entry in next {
                let pushed = queue.push_retained(entry);
                growth += pushed.growth();
                conflated += u64::from(matches!(pushed, Pushed::Made(..)));
                too_large += u64::from(matches!(pushed, Pushed::Dropped(_)));
            }
            queue.waker_if_signalled()
        };
        wake(waker);
        self.shared.entered(growth);
        self.shared.metrics.dropped(DropReason::Conflated, conflated);
        self.shared.metrics.dropped(DropReason::TooLarge, too_large);
    }

    /// Lets paced deliveries go whose turn has come. The caller flushes.
    pub fn release_paced(&self, now: Instant) {
        let conflated = {
            let mut queue = self.queue.lock();
            let before = queue.messages();
            let conflated = queue.release_paced(now);
            self.left(before - queue.messages());
            conflated
        };
        self.shared.metrics.dropped(DropReason::Conflated, conflated as u64);
    }

    /// When [`Outbox::release_paced`] has work.
    pub fn next_paced(&self) -> Option<Instant> {
        self.queue.lock().next_paced()
    }

    /// Since when the socket has taken nothing, while something waits for it.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.queue.lock().blocked_since()
    }

    /// What happened since the last call; with nothing, `waker` is woken at the next signal.
    pub fn poll_signals(&self, waker: &Waker) -> Signals {
        self.queue.lock().poll_signals(waker)
    }

    /// Why the broker ends this connection.
    pub fn order(&self) -> Option<CloseReason> {
        self.queue.lock().order()
    }

    /// No delivery is queued after this. `frame`, the Close frame, is written behind what goes before it. Gives
    /// the number of deliveries that are discarded.
    pub fn close(&self, frame: Bytes, data: DataLane) -> usize {
        let (dropped, waiters) = {
            let mut queue = self.queue.lock();
            let before = queue.messages();
            let dropped = queue.close(frame, data);
            self.left(before - queue.messages());
            (dropped, queue.take_waiters())
        };
        wake_publishers(&waiters);
        dropped
    }

    /// Whether the Close frame has left, or the socket failed.
    pub fn has_ended(&self) -> bool {
        self.queue.lock().has_ended()
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

    /// Lets go of the socket, so that no cached reference keeps it open. Gives the number of deliveries that are
    /// lost.
    pub fn detach(&self) -> usize {
        let dropped = self.fail();
        // A flusher that holds the lock sees the failed queue and leaves; it is never held over a wait.
        self.writer.lock().detach();
        dropped
    }

    fn left(&self, entries: usize) {
        if entries > 0 {
            let entries = isize::try_from(entries).unwrap_or(isize::MAX);
            self.shared.entries.fetch_sub(entries, Ordering::Relaxed);
        }
    }
}

fn amount_of(backlog: &Lane) -> Amount {
    Amount { messages: backlog.len(), bytes: backlog.bytes() }
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

//! What only the owner may do: encode for the session, wait for the socket, end the connection.
//!
//! The owner is the connection's task. Nothing here waits.

use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{CloseReason, DataLane, DropReason, Lag, LagNotice, Wants};

use super::queue::{Frame, Hold, Pushed, Signals};
use super::{Outbox, departed, wake, wake_publishers};
use crate::subscription::Entry;

impl Outbox {
    /// What the client can take, known once it is connected.
    pub fn set_client(&self, packet_bytes_max: Option<usize>, lag_notice: LagNotice) {
        self.queue.lock().set_client(packet_bytes_max, lag_notice);
    }

    /// Every data frame goes through the owner from now on (context takeover).
    pub fn set_owner_encodes(&self) {
        self.queue.lock().set_owner_encodes();
    }

    /// What happened since the last call; with nothing, `waker` is woken at the next signal.
    pub fn poll_signals(&self, waker: &Waker) -> Signals {
        self.queue.lock().poll_signals(waker)
    }

    /// Why the broker ends this connection.
    pub fn order(&self) -> Option<CloseReason> {
        self.queue.lock().order()
    }

    /// Puts a frame before all queued data.
    pub fn push_control(&self, frame: impl Into<Frame>) {
        self.queue.lock().push_control(frame.into());
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

    /// Puts the bytes of taken deliveries in their place and lets others write again.
    pub fn put_back(&self, frames: &mut Vec<Frame>, deliveries: usize) {
        self.shared.metrics.family(self.family).messages_out.add(deliveries as u64);
        let mut queue = self.queue.lock();
        queue.push_encoded(frames.drain(..));
        queue.release(Hold::Popped);
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

    /// What was lost since the last call. With a result, ask again after [`LAG_INTERVAL`](super::queue::LAG_INTERVAL).
    pub fn take_lag(&self) -> Option<Box<Lag>> {
        self.queue.lock().take_lag()
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

    /// Has the owner woken once less than half of the mark is used. `false`: that is so already.
    pub fn wakes_below_half(&self) -> bool {
        self.queue.lock().wakes_below_half(&self.shared.limits)
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

    /// Lets go of the socket, so that no cached reference keeps it open. Gives the number of deliveries that are
    /// lost.
    pub fn detach(&self) -> usize {
        let dropped = self.fail();
        // A flusher that holds the lock sees the failed queue and leaves; it is never held over a wait.
        self.writer.lock().detach();
        dropped
    }
}

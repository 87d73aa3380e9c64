//! From the queue to the socket: who holds the writer writes for all, until the socket takes no more.
//!
//! Lock order: writer, then queue. No waker is called under the queue's lock.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tidegate_protocol::session::DropReason;

use super::queue::{Rest, Signals, Taken};
use super::sync::{fence, thread_local};
use super::writer::{Writer, Written};
use super::{Outbox, departed, wake, wake_publishers};

/// Rounds of one flush, after which the owner goes on: nobody works for another client for ever.
const ROUNDS_MAX: usize = 8;

thread_local! {
    #[expect(clippy::missing_const_for_thread_local, reason = "loom's macro knows no const")]
    static TAKEN: RefCell<Vec<Taken>> = RefCell::new(Vec::new());
}

impl Outbox {
    /// Writes what is ready, as far as the socket takes it. Never waits: when another task is writing, that one
    /// writes this too; what only the owner can do is left to it.
    pub fn flush(&self, now: Instant) {
        let mut rounds = ROUNDS_MAX;
        loop {
            let writer = self.writer.try_lock().or_else(|| {
                self.again.store(true, Ordering::Relaxed);
                // The holder may have left between the two lines, and then nobody would look at `again`. The two
                // fences make sure that either this `try_lock` or the holder's look succeeds.
                fence(Ordering::SeqCst);
                self.writer.try_lock()
            });
            let Some(mut writer) = writer else { return };
            // What was pushed before `again` was set is seen below: the queue's lock orders the two.
            if self.again.load(Ordering::Relaxed) {
                self.again.store(false, Ordering::Relaxed);
            }
            let has_more = self.flush_with(&mut writer, &mut rounds, now);
            drop(writer);
            fence(Ordering::SeqCst);
            if !has_more && !self.again.load(Ordering::Relaxed) {
                return;
            }
            if rounds == 0 {
                // The rest is the owner's, who is told once it can have the lock.
                return self.signal(Signals::SESSION);
            }
        }
    }

    /// Gives whether the rounds ran out before the queue did.
    fn flush_with(&self, writer: &mut Writer, rounds: &mut usize, now: Instant) -> bool {
        let mut taken = TAKEN.with(RefCell::take);
        let mut rest = Rest::More;
        while rest == Rest::More && *rounds > 0 && self.write_leftover(writer, now) {
            *rounds -= 1;
            rest = self.take(&mut taken, now);
            if !taken.is_empty() && !self.write_taken(writer, &mut taken, now) {
                rest = Rest::Nothing;
            }
        }
        TAKEN.with(|kept| kept.replace(taken));
        rest == Rest::More && *rounds == 0
    }

    fn take(&self, taken: &mut Vec<Taken>, now: Instant) -> Rest {
        let (rest, waiters, waker) = {
            let mut queue = self.queue.lock();
            queue.unblock();
            let (before, before_bytes) = (queue.messages(), queue.bytes());
            let rest = queue.take(taken, self.shared.write.batch_bytes, now);
            if rest == Rest::Session {
                queue.signal(Signals::SESSION);
            }
            self.left(before - queue.messages());
            self.count_expired(&mut queue);
            queue.signal_below_half(&self.shared.limits);
            let departed = departed(&queue, before, before_bytes);
            (rest, queue.waiters_if_room(departed, &self.shared.limits, now), queue.waker_if_signalled())
        };
        wake(waker);
        wake_publishers(&waiters);
        rest
    }

    /// `false`: no more can be written now.
    fn write_leftover(&self, writer: &mut Writer, now: Instant) -> bool {
        if !writer.has_leftover() {
            return true;
        }
        let written = writer.write_leftover();
        self.after_write(writer, written, now)
    }

    fn write_taken(&self, writer: &mut Writer, taken: &mut Vec<Taken>, now: Instant) -> bool {
        let (mut deliveries, mut payload_bytes) = (0, 0);
        for taken in taken.iter() {
            if let Taken::Entry(entry) = taken {
                deliveries += 1;
                payload_bytes += entry.publication.payload.len() as u64;
            }
        }
        let written = writer.write(taken, &self.shared.write);
        if deliveries > 0 {
            let counters = self.shared.metrics.family(self.family);
            counters.messages_out.add(deliveries);
            counters.websocket_messages_out.add(deliveries);
            counters.payload_bytes_out.add(payload_bytes);
        }
        self.after_write(writer, written, now)
    }

    fn after_write(&self, writer: &mut Writer, written: Written, now: Instant) -> bool {
        let bytes = writer.take_written_bytes();
        self.shared.metrics.family(self.family).bytes_out.add(bytes);
        match written {
            Written::All if writer.has_close() => {
                let waker = {
                    let mut queue = self.queue.lock();
                    queue.has_written_close();
                    queue.waker_if_signalled()
                };
                wake(waker);
            }
            Written::All => return true,
            Written::Some | Written::Blocked => {
                let waker = {
                    let mut queue = self.queue.lock();
                    match written {
                        Written::Some => queue.block_anew(now),
                        _ => queue.block(now),
                    }
                    queue.waker_if_signalled()
                };
                wake(waker);
            }
            Written::Failed => {
                writer.detach();
                let lost = self.fail();
                self.shared.metrics.dropped(DropReason::Closed, lost as u64);
            }
        }
        false
    }
}

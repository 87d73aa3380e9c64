//! How long others have patience with one client's full queue, and who waits for room in it (DESIGN §6).

use std::sync::Weak;
use std::time::{Duration, Instant};

use super::Outbox;
use super::queue::Limits;

/// The window of [`Limits::slow_after`].
pub const SLOW_WINDOW: Duration = Duration::from_secs(10);

/// The stretch over the mark that lasts now, what earlier ones have cost, and the publishers that wait.
#[derive(Debug, Default)]
pub(crate) struct Room {
    over_since: Option<Instant>,
    /// Taken since then: a queue that is turned over in time is long, but not slow.
    taken: Amount,
    /// What waits in the client's mailbox for a place in the queue; it counts against the mark too.
    behind: Amount,
    window_start: Option<Instant>,
    spent: Duration,
    waiters: Vec<Weak<Outbox>>,
}

/// So many deliveries, of so many bytes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl std::ops::Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl Amount {
    /// The time that a queue may take for this: [`Limits::publish_wait`] for all that it holds at its mark.
    fn allowance(self, limits: &Limits) -> Duration {
        let share = |taken: usize, mark: usize| {
            u32::try_from(taken.saturating_mul(1000) / mark.max(1)).unwrap_or(u32::MAX)
        };
        let thousandths = share(self.messages, limits.messages_max).max(share(self.bytes, limits.bytes_max));
        (limits.publish_wait / 1000).saturating_mul(thousandths)
    }
}

impl Room {
    /// Notes that the queue is over its mark. Gives whether that may be borne a little longer.
    pub(crate) fn is_patient(&mut self, limits: &Limits, now: Instant) -> bool {
        let since = *self.over_since.get_or_insert(now);
        let patience = limits.publish_wait.saturating_add(self.taken.allowance(limits));
        now.saturating_duration_since(since) < patience && self.spent_at(now) < limits.slow_after
    }

    /// So much waits behind the queue.
    pub(crate) fn set_behind(&mut self, behind: Amount) {
        self.behind = behind;
    }

    /// What waits behind the queue.
    pub(crate) fn behind(&self) -> Amount {
        self.behind
    }

    /// Something has left the queue.
    pub(crate) fn note_taken(&mut self, taken: Amount) {
        if self.over_since.is_some() {
            self.taken.messages = self.taken.messages.saturating_add(taken.messages);
            self.taken.bytes = self.taken.bytes.saturating_add(taken.bytes);
        }
    }

    /// Enters a publisher that waits.
    pub(crate) fn wait(&mut self, publisher: Weak<Outbox>) {
        if !self.waiters.iter().any(|waiter| waiter.ptr_eq(&publisher)) {
            self.waiters.retain(|waiter| waiter.strong_count() > 0);
            self.waiters.push(publisher);
        }
    }

    /// Whether a stretch lasts or somebody waits.
    pub(crate) fn is_awaited(&self) -> bool {
        self.over_since.is_some() || !self.waiters.is_empty()
    }

    /// There is room: gives those who waited. Each waited for `publish_wait` at most, so no more is charged, and
    /// nothing for the time that the queue needs at a fair pace.
    pub(crate) fn open(&mut self, limits: &Limits, now: Instant) -> Vec<Weak<Outbox>> {
        let allowance = std::mem::take(&mut self.taken).allowance(limits);
        if let Some(since) = self.over_since.take()
            && !self.waiters.is_empty()
        {
            if self.spent_at(now).is_zero() {
                self.window_start = Some(since);
                self.spent = Duration::ZERO;
            }
            let lasted = now.saturating_duration_since(since).saturating_sub(allowance);
            self.spent += lasted.min(limits.publish_wait);
        }
        self.take_waiters()
    }

    /// Those who wait, since there is nothing to wait for any more.
    pub(crate) fn take_waiters(&mut self) -> Vec<Weak<Outbox>> {
        std::mem::take(&mut self.waiters)
    }

    /// Waiting caused within the window that lasts now.
    fn spent_at(&self, now: Instant) -> Duration {
        let is_current =
            self.window_start.is_some_and(|start| now.saturating_duration_since(start) < SLOW_WINDOW);
        if is_current { self.spent } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// A queue of 100 that is over its mark for 20 s, from which so many are taken every 10 ms. Gives when patience ends.
    fn check(taken_per_step: usize, expected: Option<Duration>) {
        let limits = Limits {
            messages_max: 100,
            bytes_max: 1 << 20,
            publish_wait: Duration::from_millis(200),
            slow_after: Duration::from_secs(1),
        };
        let start = tokio::time::Instant::now().into_std();
        let mut room = Room::default();
        let steps = (0..2000u32).map(|step| STEP * step);
        let ended = steps.into_iter().find(|elapsed| {
            let is_patient = room.is_patient(&limits, start + *elapsed);
            room.note_taken(Amount { messages: taken_per_step, bytes: 0 });
            !is_patient
        });
        assert_eq!(ended, expected, "{taken_per_step} in {STEP:?}");
    }

    #[test]
    fn a_queue_that_turns_over_in_time_is_borne_and_a_slower_one_is_not() {
        check(0, Some(Duration::from_millis(200)));
        check(1, Some(Duration::from_millis(250)));
        check(5, None);
        check(50, None);
    }

    #[test]
    fn a_client_that_cost_slow_after_is_waited_for_no_more() {
        let limits = Limits {
            messages_max: 100,
            bytes_max: 1 << 20,
            publish_wait: Duration::from_millis(200),
            slow_after: Duration::from_millis(300),
        };
        let mut now = tokio::time::Instant::now().into_std();
        let mut room = Room::default();
        // Twice a publisher is held for 199 ms, while one message of a hundred is taken.
        for _ in 0..2 {
            assert!(room.is_patient(&limits, now));
            room.wait(Weak::new());
            now += Duration::from_millis(199);
            assert!(room.is_patient(&limits, now));
            room.note_taken(Amount { messages: 1, bytes: 0 });
            assert_eq!(room.open(&limits, now).len(), 1);
        }
        assert!(!room.is_patient(&limits, now));
        room.open(&limits, now);
        assert!(room.is_patient(&limits, now + SLOW_WINDOW), "the window has passed");
    }

    #[test]
    fn a_fast_reader_spends_nothing_of_its_allowance() {
        let limits = Limits {
            messages_max: 100,
            bytes_max: 1 << 20,
            publish_wait: Duration::from_millis(200),
            slow_after: Duration::from_millis(50),
        };
        let mut now = tokio::time::Instant::now().into_std();
        let mut room = Room::default();
        for (taken, is_borne) in [(10, true), (0, false)] {
            for _ in 0..20 {
                room.is_patient(&limits, now);
                room.wait(Weak::new());
                now += STEP;
                room.note_taken(Amount { messages: taken, bytes: 0 });
                room.open(&limits, now);
            }
            assert_eq!(room.is_patient(&limits, now), is_borne, "{taken}");
            room.open(&limits, now);
        }
    }
}

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
    window_start: Option<Instant>,
    spent: Duration,
    waiters: Vec<Weak<Outbox>>,
}

impl Room {
    /// Notes that the queue is over its mark. Gives whether that may be borne a little longer.
    pub(crate) fn is_patient(&mut self, limits: &Limits, now: Instant) -> bool {
        let since = *self.over_since.get_or_insert(now);
        now.saturating_duration_since(since) < limits.publish_wait && self.spent_at(now) < limits.slow_after
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

    /// There is room: gives those who waited. Each waited for `publish_wait` at most, so no more is charged.
    pub(crate) fn open(&mut self, limits: &Limits, now: Instant) -> Vec<Weak<Outbox>> {
        if let Some(since) = self.over_since.take()
            && !self.waiters.is_empty()
        {
            if self.spent_at(now).is_zero() {
                self.window_start = Some(since);
                self.spent = Duration::ZERO;
            }
            self.spent += now.saturating_duration_since(since).min(limits.publish_wait);
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

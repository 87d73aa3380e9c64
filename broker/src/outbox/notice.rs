//! What one client is told of its drops, and when (DESIGN §6: nothing is lost in silence).

use std::time::Duration;

use tidegate_protocol::session::{Lag, LagNotice};

use crate::subscription::Entry;

/// A client hears of drops at most this often.
pub const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// Topics named in a notice of lag.
const LAG_TOPICS_MAX: usize = 8;

/// Drops since the last notice.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    kind: LagNotice,
    lag: Option<Box<Lag>>,
    /// The owner has told the client within the last interval and asks again by itself.
    is_timed: bool,
    /// The session has the notice and waits for a delivery to send it with.
    rides: bool,
}

impl Notice {
    pub(crate) fn set_kind(&mut self, kind: LagNotice) {
        self.kind = kind;
    }

    pub(crate) fn count_dropped(&mut self, entry: &Entry) {
        if self.kind == LagNotice::Silent {
            return;
        }
        let lag = self.lag.get_or_insert_default();
        lag.dropped += 1;
        let topic = &entry.publication.topic;
        if lag.topics.len() < LAG_TOPICS_MAX && !lag.topics.contains(topic) {
            lag.topics.push(topic.clone());
        }
    }

    /// Drops of which only the number is known.
    pub(crate) fn count_lost(&mut self, count: u64) {
        if self.kind != LagNotice::Silent {
            self.lag.get_or_insert_default().dropped += count;
        }
    }

    pub(crate) fn count_conflated(&mut self) {
        if self.kind != LagNotice::Silent {
            self.lag.get_or_insert_default().conflated += 1;
        }
    }

    /// Whether the owner has to be woken for it.
    pub(crate) fn is_news(&self) -> bool {
        self.kind == LagNotice::Separate && self.lag.is_some() && !self.is_timed
    }

    /// Whether the next delivery has to go through the session, because a notice goes with it.
    pub(crate) fn goes_first(&self) -> bool {
        self.kind == LagNotice::WithNext && (self.rides || (self.lag.is_some() && !self.is_timed))
    }

    /// The session gets a delivery, and a notice leaves with it.
    pub(crate) fn has_ridden(&mut self) {
        self.rides = false;
    }

    /// What was lost since the last call. While it gives something, the owner asks again after [`LAG_INTERVAL`].
    pub(crate) fn take(&mut self) -> Option<Box<Lag>> {
        let lag = self.lag.take();
        self.is_timed = lag.is_some();
        self.rides |= lag.is_some() && self.kind == LagNotice::WithNext;
        lag
    }

    /// The connection closes: nothing rides any more.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }
}

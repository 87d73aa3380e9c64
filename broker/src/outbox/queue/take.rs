//! Out of the queue: ready bytes to the writer, deliveries that need encoding to the session.
//!
//! Order on the wire: control, encoded, then the two data lanes, then the Close frame. Counts what has expired.

use std::time::Instant;

use bytes::Bytes;
use tidegate_protocol::session::Wants;

use super::{Frame, Phase, Queue};
use crate::subscription::{Entry, Subscription};

/// What the writer takes.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Bytes of this client alone.
    Frame(Bytes),
    /// A delivery whose bytes are shared.
    Entry(Entry),
    /// The last frame.
    Close(Bytes),
}

/// Why the writer got no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing is queued that could be written now.
    Nothing,
    /// There is more.
    More,
    /// The session has to encode first.
    Session,
}

impl Queue {
    // ---- to the writer ----

    /// Moves up to `budget_bytes` (and at least one frame, if there is any) into `into`. Expired deliveries are
    /// left out and counted.
    pub(crate) fn take(&mut self, into: &mut Vec<Taken>, budget_bytes: usize, now: Instant) -> Rest {
        self.touched = false;
        self.owner_due = false;
        if matches!(self.phase, Phase::Taken | Phase::Ended) {
            return Rest::Nothing; // RFC 6455 §5.5.1: no frame after the Close
        }
        let mut budget = Budget { left: budget_bytes, taken: 0 };
        while budget.allows()
            && let Some(frame) = self.pop_control()
        {
            budget.put(frame, into);
        }
        if self.held != 0 {
            return if self.control_bytes() > 0 { Rest::More } else { Rest::Nothing };
        }
        while budget.allows()
            && let Some(frame) = self.pop_encoded()
        {
            budget.put(frame, into);
        }
        while budget.allows()
            && let Some(entry) = self.pop_ready()
        {
            if entry.publication.is_expired(now) {
                self.expired += 1;
                continue;
            }
            budget.spend(entry.publication.size_bytes() + entry.head().len());
            into.push(Taken::Entry(entry));
        }
        if !budget.allows() {
            return Rest::More;
        }
        if self.needs_session() {
            self.owner_due = true;
            return Rest::Session;
        }
        self.take_close(into);
        self.shrink();
        Rest::Nothing
    }

    fn pop_control(&mut self) -> Option<Frame> {
        self.own.as_mut()?.pop_control()
    }

    fn pop_encoded(&mut self) -> Option<Frame> {
        self.own.as_mut()?.pop_encoded()
    }

    /// The next delivery whose bytes are ready.
    fn pop_ready(&mut self) -> Option<Entry> {
        if self.owner_encodes || self.notice.goes_first() {
            self.skip_dead();
            return None;
        }
        loop {
            let entry =
                self.qos0.pop_front_if(|entry| entry.form.is_some() || !entry.subscription.is_alive())?;
            if entry.subscription.is_alive() {
                return Some(entry);
            }
        }
    }

    fn skip_dead(&mut self) {
        while self.qos0.pop_front_if(|entry| !entry.subscription.is_alive()).is_some() {}
        if let Some(acked) = &mut self.acked {
            while acked.pop_front_if(|entry| !entry.subscription.is_alive()).is_some() {}
        }
    }

    fn needs_session(&mut self) -> bool {
        if self.qos0.is_empty() && self.acked.is_none() {
            return false;
        }
        self.skip_dead();
        let qos0 = !self.qos0.is_empty() && self.wants.qos0;
        let acked = self.acked.as_ref().is_some_and(|acked| !acked.is_empty()) && self.wants.acked > 0;
        self.is_open() && (qos0 || acked)
    }

    fn take_close(&mut self, into: &mut Vec<Taken>) {
        if let Phase::Closing(frame, _) = &mut self.phase {
            into.push(Taken::Close(std::mem::take(&mut **frame)));
            self.phase = Phase::Taken;
        }
    }

    pub(super) fn shrink(&mut self) {
        self.qos0.shrink_if_empty();
        self.acked.take_if(|acked| acked.is_empty());
        self.own.take_if(|own| own.is_empty());
    }

    // ---- to the session ----

    /// Takes up to `count` deliveries that need the session: of the acknowledged lane as many as there is room for in
    /// the window, then a run of the QoS 0 lane. Expired ones are left out and
    /// counted.
    pub(crate) fn take_for_session(
        &mut self,
        into: &mut Vec<Entry>,
        count: usize,
        wants: Wants,
        now: Instant,
    ) {
        self.wants = wants;
        self.owner_due = false;
        // Closed for new ones by an order, what is queued may still be encoded.
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        // Half, so that neither starves the other.
        let acked_max = if self.qos0.is_empty() { count } else { count.div_ceil(2) };
        let mut acked = wants.acked;
        while acked > 0
            && into.len() < acked_max
            && let Some(entry) = self.acked.as_mut().and_then(|acked| acked.pop_front_if(|_| true))
        {
            acked -= usize::from(self.hand_over(entry, into, now));
        }
        // What it can take after these, for whoever asks before the session does.
        self.wants.acked = acked;
        let through_owner = self.owner_encodes || self.notice.goes_first();
        while wants.qos0 && into.len() < count {
            let needs =
                |entry: &Entry| through_owner || entry.form.is_none() || !entry.subscription.is_alive();
            let Some(entry) = self.qos0.pop_front_if(needs) else { break };
            self.hand_over(entry, into, now);
        }
        if !into.is_empty() {
            self.notice.has_ridden();
        }
    }

    fn hand_over(&mut self, entry: Entry, into: &mut Vec<Entry>, now: Instant) -> bool {
        if !entry.subscription.is_alive() {
            return false;
        }
        if entry.publication.is_expired(now) {
            self.expired += 1;
            return false;
        }
        into.push(entry);
        true
    }

    pub(crate) fn take_acked(&mut self) -> Vec<Entry> {
        self.acked.take().map(|mut acked| acked.take_where(|_| true)).unwrap_or_default()
    }

    pub(crate) fn take_acked_of(&mut self, subscription: &Subscription) -> Vec<Entry> {
        let of = |entry: &Entry| entry.subscription.is_same(subscription);
        self.acked.as_mut().map(|acked| acked.take_where(of)).unwrap_or_default()
    }

    /// Deliveries that expired in the queue since the last call.
    pub(crate) fn take_expired(&mut self) -> u32 {
        std::mem::take(&mut self.expired)
    }
}

/// Bytes that one take may still move.
struct Budget {
    left: usize,
    taken: usize,
}

impl Budget {
    fn allows(&self) -> bool {
        self.left > 0 && self.taken < FRAMES_PER_TAKE_MAX
    }

    fn put(&mut self, frame: Frame, into: &mut Vec<Taken>) {
        self.spend(frame.len());
        into.push(Taken::Frame(frame.front));
        into.extend(frame.body.map(Taken::Frame));
    }

    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.taken += 1;
    }
}

/// Frames of one take; bounds the work under the queue's lock.
const FRAMES_PER_TAKE_MAX: usize = 256;

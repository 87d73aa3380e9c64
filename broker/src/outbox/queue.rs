//! One client's bounded queue: what it holds, its sums, its end, and what the client is told of drops.
//!
//! Core: plain data behind the outbox's lock. It never writes, waits or wakes; it says what has to be done. What a
//! push comes to is in `admit` and `conflating`, the way out in `take`, whom to wake in `signals`.

mod admit;
mod conflating;
mod signals;
mod take;

use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{CloseReason, DataLane, DropReason, Lag, LagNotice, Wants};

pub use self::admit::Pushed;
pub use self::signals::Signals;
pub(crate) use self::take::{Rest, Taken};
use super::conflate::Pacer;
use super::lane::Lane;
pub use super::notice::LAG_INTERVAL;
use super::notice::Notice;
pub use super::own::Frame;
use super::own::Own;
use super::room::Room;
pub use super::room::SLOW_WINDOW;
use crate::subscription::Entry;

/// `[queue]`: the marks of one client.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Deliveries queued.
    pub messages_max: usize,
    /// Bytes queued, as `subscription::size_bytes` counts them.
    pub bytes_max: usize,
    /// How long a publisher is held while this queue is over its mark, and the time in which a reader that is not slow
    /// takes as much as the mark.
    pub publish_wait: Duration,
    /// After it has caused this much waiting within [`SLOW_WINDOW`], nobody waits for it any more.
    pub slow_after: Duration,
}

/// Why others may only push.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hold {
    /// The owner holds popped entries.
    Popped = 1,
    /// A Subscribe waits for its reply.
    Subscribe = 2,
}

/// How far the end of the connection has come.
///
/// ```text
///   Open ─▶ Closing (the Close frame goes behind what is still written) ─▶ Taken (by the writer) ─▶ Ended
///     └─────────────────────────── the socket failed ───────────────────────────────────────────────▲
/// ```
#[derive(Debug)]
pub(crate) enum Phase {
    Open,
    Closing(Box<Bytes>, DataLane),
    Taken,
    Ended,
}

/// The queue. What most clients have none of is a pointer, since most clients are idle. Order on the wire: control,
/// encoded, then the two data lanes.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Absent while the client is sent nothing but shared frames.
    own: Option<Box<Own>>,
    qos0: Lane,
    acked: Option<Box<Lane>>,
    pacer: Option<Box<Pacer>>,

    held: u8,
    /// A pusher has taken on the duty to flush.
    touched: bool,
    /// The owner has retained messages to bring once there is room.
    awaits_half: bool,
    /// The owner was woken to encode and has not come yet: nobody else need look.
    owner_due: bool,
    /// A subscription with queued deliveries may have ended.
    has_dead: bool,
    /// Entries of ended subscriptions that a push removed.
    swept: usize,
    blocked_since: Option<Instant>,
    /// Every data frame goes through the owner (context takeover).
    owner_encodes: bool,
    /// The acknowledged lane belongs to somebody who comes for it after the end.
    keeps_acked: bool,
    wants: Wants,
    packet_bytes_max: usize,
    phase: Phase,
    order: Option<Box<CloseReason>>,

    room: Option<Box<Room>>,
    notice: Notice,
    expired: u32,
    signals: Signals,
    waker: Option<Waker>,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            own: None,
            qos0: Lane::default(),
            acked: None,
            pacer: None,
            held: 0,
            touched: false,
            awaits_half: false,
            owner_due: false,
            has_dead: false,
            swept: 0,
            blocked_since: None,
            owner_encodes: false,
            keeps_acked: false,
            wants: Wants { input: true, qos0: true, acked: usize::MAX },
            packet_bytes_max: usize::MAX,
            phase: Phase::Open,
            order: None,
            room: None,
            notice: Notice::default(),
            expired: 0,
            signals: Signals::default(),
            waker: None,
        }
    }

    // ---- what a client is like ----

    pub(crate) fn set_client(&mut self, packet_bytes_max: Option<usize>, lag_notice: LagNotice) {
        self.packet_bytes_max = packet_bytes_max.unwrap_or(usize::MAX);
        self.notice.set_kind(lag_notice);
    }

    pub(crate) fn set_owner_encodes(&mut self) {
        self.owner_encodes = true;
    }

    pub(crate) fn keep_acked(&mut self) {
        self.keeps_acked = true;
    }

    /// A subscription has ended; what is queued for it neither counts nor is sent.
    pub(crate) fn note_dead(&mut self) {
        self.has_dead = self.messages() > 0;
    }

    // ---- the lanes ----

    fn enqueue(&mut self, entry: Entry) {
        self.lane(entry.qos).push_back(entry);
    }

    fn lane(&mut self, qos: QoS) -> &mut Lane {
        if qos == QoS::AtMostOnce { &mut self.qos0 } else { self.acked.get_or_insert_default() }
    }

    // ---- the owner's frames ----

    pub(crate) fn push_control(&mut self, frame: Frame) {
        if matches!(self.phase, Phase::Open | Phase::Closing(..)) {
            self.own().push_control(frame);
        }
    }

    pub(crate) fn set_pong(&mut self, frame: Bytes) {
        if matches!(self.phase, Phase::Open | Phase::Closing(..)) {
            self.own().set_pong(frame);
        }
    }

    /// What the session made of popped deliveries. Discarded when the end came meanwhile.
    pub(crate) fn push_encoded(&mut self, frames: impl ExactSizeIterator<Item = Frame>) {
        if !matches!(self.phase, Phase::Open | Phase::Closing(_, DataLane::Drain)) || frames.len() == 0 {
            return;
        }
        let own = self.own();
        own.reserve_encoded(frames.len());
        for frame in frames {
            own.push_encoded(frame);
        }
    }

    pub(crate) fn hold(&mut self, why: Hold) {
        self.held |= why as u8;
    }

    pub(crate) fn release(&mut self, why: Hold) {
        self.held &= !(why as u8);
    }

    fn own(&mut self) -> &mut Own {
        self.own.get_or_insert_default()
    }

    // ---- the end ----

    /// From here on no delivery is queued. `frame` is the Close frame, written behind all that goes before it.
    /// [`DataLane::Drain`] leaves what is ready; what only the session could encode, the owner has pulled before.
    pub(crate) fn close(&mut self, frame: Bytes, data: DataLane) -> usize {
        if !matches!(self.phase, Phase::Open) {
            return 0;
        }
        self.phase = Phase::Closing(Box::new(frame), data);
        self.notice.end();
        let unsent = match data {
            DataLane::Drain if self.owner_encodes => self.qos0.clear(),
            DataLane::Drain => self.qos0.remove_where(|entry| entry.form.is_none()),
            DataLane::Abort => {
                self.held = 0;
                if let Some(own) = &mut self.own {
                    own.clear_encoded();
                }
                self.qos0.clear()
            }
        };
        let paced = self.pacer.take().map_or(0, |pacer| pacer.len());
        unsent + self.clear_acked() + paced
    }

    /// The Close frame has left.
    pub(crate) fn has_written_close(&mut self) {
        self.phase = Phase::Ended;
        self.signals.add(Signals::ENDED);
    }

    /// The socket failed, or the connection is dropped: everything goes.
    pub(crate) fn fail(&mut self) -> usize {
        self.phase = Phase::Ended;
        let dropped =
            self.qos0.clear() + self.clear_acked() + self.pacer.take().map_or(0, |pacer| pacer.len());
        self.own = None;
        self.blocked_since = None;
        self.notice.end();
        self.shrink();
        self.signals.add(Signals::ENDED);
        dropped
    }

    fn clear_acked(&mut self) -> usize {
        if self.keeps_acked {
            return 0;
        }
        self.acked.take().map_or(0, |acked| acked.len())
    }

    /// Tells the owner to end the connection; until it has, nothing more is queued.
    pub(crate) fn order_close(&mut self, reason: CloseReason) {
        self.order.get_or_insert_with(|| Box::new(reason));
        self.signals.add(Signals::ORDER);
    }

    pub(crate) fn order(&self) -> Option<CloseReason> {
        self.order.as_deref().cloned()
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.order.is_none()
    }

    /// Whether the Close frame has left, or the socket failed.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    // ---- sums ----

    pub(crate) fn messages(&self) -> usize {
        let acked = self.acked.as_ref().map_or(0, |acked| acked.len());
        self.qos0.len() + acked + self.pacer.as_ref().map_or(0, |pacer| pacer.len())
    }

    pub(crate) fn bytes(&self) -> usize {
        let paced = self.pacer.as_ref().map_or(0, |pacer| pacer.bytes());
        let acked = self.acked.as_ref().map_or(0, |acked| acked.bytes());
        self.qos0.bytes() + acked + self.encoded_bytes() + paced
    }

    pub(crate) fn control_bytes(&self) -> usize {
        self.own.as_ref().map_or(0, |own| own.control_bytes())
    }

    fn encoded_bytes(&self) -> usize {
        self.own.as_ref().map_or(0, |own| own.encoded_bytes())
    }

    pub(crate) fn is_below_half(&self, limits: &Limits) -> bool {
        self.messages() * 2 < limits.messages_max && self.bytes() * 2 < limits.bytes_max
    }

    // ---- what the client is told ----

    /// Counts a drop that was decided elsewhere (memory of the whole broker).
    pub(crate) fn note_drop(&mut self, entry: &Entry) {
        self.notice.count_dropped(entry);
        self.signal_lag();
    }

    /// Drops that happened while the client was away.
    pub(crate) fn note_lost(&mut self, count: u64) {
        self.notice.count_lost(count);
        self.signal_lag();
    }

    /// An older one went for a newer one.
    fn conflated(&mut self) -> Pushed {
        self.notice.count_conflated();
        self.signal_lag();
        Pushed::Made(DropReason::Conflated, 1)
    }

    fn signal_lag(&mut self) {
        if self.notice.is_news() {
            self.signals.add(Signals::LAG);
        }
    }

    /// What was lost since the last call. While it gives something, the owner asks again after
    /// [`LAG_INTERVAL`] and is not woken for it before.
    pub(crate) fn take_lag(&mut self) -> Option<Box<Lag>> {
        self.notice.take()
    }
}

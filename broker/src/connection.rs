//! One client's task: reads bytes, drives its session, and does for its outbox what only the owner can do.
//!
//! The loop is one `poll`: signals of the outbox, the timer, the socket's write side, its read side; then it
//! sleeps. An idle connection owns no buffer. After the connection's Close it reads and discards until the peer
//! has closed, because closing with unread input would make the kernel reset the connection and destroy the last
//! words on their way (DESIGN §6).

mod buffer;
mod timers;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use socket2::SockRef;
use tidegate_protocol::session::{
    CloseKind, CloseReason, DataLane, DropReason, Outgoing, Output, Reading, Reply, Request, Session, Token,
};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::websocket::deflate::{Params, TakeoverDeflater};
use tidegate_protocol::websocket::prepared::Deflating;
use tidegate_protocol::websocket::{CloseCode, CloseFrame, Event, ReceiveError, Receiver, Role, frame};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tracing::{debug, info};

use self::timers::{Pulse, Timer};
use crate::auth::Peer;
use crate::broker::{Batch, Broker, Client, Now};
use crate::metrics::Ended;
use crate::outbox::Outbox;
use crate::outbox::queue::{Frame, LAG_INTERVAL, Signals};
use crate::outbox::writer::Socket;
use crate::subscription::Entry;

/// What all connections share of the operator's file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `websocket.max_message_size`.
    pub message_bytes_max: usize,
    /// `websocket.max_message_size_preauth`.
    pub message_bytes_max_preauth: usize,
    /// `websocket.ping_interval`.
    pub ping_interval: Option<Duration>,
    /// `websocket.pong_timeout`.
    pub pong_timeout: Duration,
    /// `websocket.close_timeout`.
    pub close_timeout: Duration,
    /// `websocket.idle_timeout`.
    pub idle_timeout: Option<Duration>,
    /// `websocket.read_buffer`.
    pub read_bytes_max: usize,
    /// `queue.stall_timeout`.
    pub stall_timeout: Duration,
    /// `queue.publish_wait`.
    pub publish_wait: Duration,
}

/// What a handshake came to.
pub struct Opened {
    /// The upgraded socket.
    pub socket: TcpStream,
    /// Bytes that came behind the handshake.
    pub leftover: Bytes,
    /// The protocol's state.
    pub session: Box<dyn Session>,
    /// Which protocol, for counters.
    pub family: Family,
    /// permessage-deflate, as negotiated.
    pub deflate: Option<Params>,
    /// How the server compresses, with the operator's settings.
    pub deflating: Option<Deflating>,
    /// A compressor of its own, when context takeover was negotiated.
    pub takeover: Option<TakeoverDeflater>,
    /// Where the client comes from.
    pub peer: Peer,
}

/// The owner of one socket, session and outbox.
pub struct Connection {
    read: OwnedReadHalf,
    session: Box<dyn Session>,
    outbox: Arc<Outbox>,
    broker: Arc<Broker>,
    settings: Arc<Settings>,
    client: Client,
    /// Outboxes that this task has pushed to and not flushed yet.
    batch: Option<Box<Batch>>,
    receiver: Receiver,
    /// Input that does not make up a message yet.
    partial: BytesMut,
    deflating: Option<Box<Deflating>>,
    takeover: Option<Box<TakeoverDeflater>>,
    peer: Peer,
    family: Family,
    phase: Phase,
    /// Publishing waits for slow subscribers.
    brake: Option<Box<Brake>>,
    /// A subscriber of what this client publishes at QoS 0 is over its mark: others get a turn first.
    yields: bool,
    is_paused: bool,
    /// A pong waits in the one place that pongs have while nothing is read.
    joins_pongs: bool,
    /// Decoding stopped before the end of what was read.
    has_undecoded: bool,
    /// The session has more to say, but its answers are not read or a slow subscriber is waited for.
    has_undrained: bool,
    /// A Subscribe has been requested, and its reply is not queued yet.
    holds_subscribe: bool,
    has_started: bool,
    pulse: Pulse,
    timer: Timer,
    lag_at: Option<Instant>,
}

/// Runs until the connection is over. A future of its own rather than an `async fn`, which would keep its state
/// twice.
impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.poll_turns(context)
    }
}

/// However it ends, by a panic too (SEC-10): its subscriptions go and its will is published.
impl Drop for Connection {
    fn drop(&mut self) {
        let now = clock();
        let batch = self.batch.get_or_insert_default();
        self.broker.leave(&mut self.client, now, batch);
        batch.flush(now.instant);
        let lost = self.outbox.detach();
        self.broker.metrics().dropped(DropReason::Closed, lost as u64);
    }
}

/// How far the connection is.
///
/// ```text
///   Open ──▶ Closing (our Close is queued) ──▶ Lingering (it is written; read until the peer is done) ──▶ Done
/// ```
#[derive(Debug)]
enum Phase {
    Open,
    Closing { deadline: Instant },
    Lingering { deadline: Instant, bytes_left: usize },
    Done,
}

/// A publish whose acknowledgement waits for room in somebody's outbox, and what came behind it.
struct Brake {
    deadline: Instant,
    slow: Vec<Arc<Outbox>>,
    reply: Option<(Token, Reply)>,
    backlog: VecDeque<(Token, Request)>,
}

/// Where a session's output goes while it is drained.
enum Lane<'a> {
    Control,
    Data(&'a mut Vec<Frame>),
}

/// Input discarded after our Close.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Unsent answers above which the client is not read.
const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// What an answer costs beside its bytes.
const ANSWER_BYTES: usize = 64;

/// Requests that wait behind a held publish. Beyond that they stay with the session.
const BACKLOG_MAX: usize = 1024;

/// Unsent answers above which a pong takes the place of an older one.
const PONG_BYTES_MAX: usize = 4 * 1024;

/// Turns of the loop, or reads of one turn, before other tasks get theirs.
const TURNS_MAX: usize = 16;
const READS_MAX: usize = 4;

/// Deliveries that the session encodes between two flushes.
const PUMP_COUNT: usize = 64;

/// Touched outboxes that one task flushes itself; more are handed to other workers in chunks of this size.
const FLUSH_CHUNK: usize = 256;

struct WriteSide(OwnedWriteHalf);

impl Socket for WriteSide {
    fn try_write_vectored(&self, slices: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
        Socket::try_write_vectored(self.0.as_ref(), slices)
    }
}

impl Connection {
    /// Takes over a socket after its handshake.
    pub fn new(opened: Opened, key: u64, broker: Arc<Broker>, settings: Arc<Settings>, now: Instant) -> Self {
        let (read, write) = opened.socket.into_split();
        let shared = Arc::clone(broker.shared());
        let outbox = Outbox::new(key, Arc::new(WriteSide(write)), opened.deflating, shared, opened.family);
        if opened.takeover.is_some() {
            outbox.set_owner_encodes();
        }
        let receiver = Receiver::new(Role::Server, settings.message_bytes_max_preauth, opened.deflate);
        Self {
            read,
            session: opened.session,
            client: Client::new(Arc::clone(&outbox)),
            batch: None,
            outbox,
            receiver,
            partial: BytesMut::from(&opened.leftover[..]),
            deflating: opened.deflating.map(Box::new),
            takeover: opened.takeover.map(Box::new),
            peer: opened.peer,
            family: opened.family,
            phase: Phase::Open,
            brake: None,
            yields: false,
            is_paused: false,
            joins_pongs: false,
            has_undecoded: false,
            has_undrained: false,
            holds_subscribe: false,
            has_started: false,
            pulse: Pulse::new(&settings, now),
            timer: Timer::default(),
            lag_at: None,
            broker,
            settings,
        }
    }

    /// The outbox, for orders from outside.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    fn start(&mut self) {
        let now = clock();
        self.drain(&mut Lane::Control, now);
        if !self.partial.is_empty() {
            let mut buffer = std::mem::take(&mut self.partial);
            self.decode(&mut buffer, now);
            self.partial = buffer;
        }
        self.flush(now);
    }

    fn poll_turns(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.has_started, true) {
            self.start();
        }
        for _ in 0..TURNS_MAX {
            let now = clock();
            let mut progress = self.take_signals(context, now);
            progress |= self.poll_timer(context, now);
            progress |= self.poll_write(context, now);
            progress |= self.poll_read(context, now);
            self.leave_when_closing(now);
            self.advance_close(now.instant);
            if matches!(self.phase, Phase::Done) {
                return Poll::Ready(());
            }
            if !progress {
                return Poll::Pending;
            }
            if std::mem::take(&mut self.yields) {
                break;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    // ---- signals and time ----

    fn take_signals(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        let signals = self.outbox.poll_signals(context.waker());
        if signals.is_empty() {
            return false;
        }
        if signals.contains(Signals::ORDER)
            && let Some(reason) = self.outbox.order()
        {
            self.close_by_order(reason, now);
        }
        if signals.contains(Signals::ROOM) {
            self.try_release_brake(now);
        }
        self.pump(now);
        self.flush(now);
        true
    }

    /// The broker ends this connection. A planned stop writes what is queued first.
    fn close_by_order(&mut self, reason: CloseReason, now: Now) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if matches!(reason.kind, CloseKind::ShuttingDown | CloseKind::Restarting) && !self.has_undrained {
            self.pump_before_close(now);
        }
        self.session.handle_close(reason.clone(), now.instant);
        self.drain_all(now);
        if matches!(self.phase, Phase::Open) {
            self.close(&reason, DataLane::Abort, now);
        }
    }

    fn poll_timer(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        let Some(deadline) = self.deadline() else { return false };
        if !self.timer.poll(context, deadline, now.instant) {
            return false;
        }
        self.handle_deadlines(now);
        true
    }

    /// The earliest instant at which something has to be done if nothing else happens.
    fn deadline(&self) -> Option<Instant> {
        if let Phase::Closing { deadline } | Phase::Lingering { deadline, .. } = self.phase {
            return Some(deadline);
        }
        let stalled = self.outbox.blocked_since().map(|since| since + self.settings.stall_timeout);
        let pulse = if self.is_paused { None } else { self.pulse.deadline() };
        let brake = self.brake.as_ref().map(|brake| brake.deadline);
        [self.session.poll_timeout(), stalled, pulse, brake, self.lag_at, self.outbox.next_paced()]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_deadlines(&mut self, now: Now) {
        let instant = now.instant;
        if let Phase::Closing { deadline } | Phase::Lingering { deadline, .. } = self.phase {
            if deadline <= instant {
                self.phase = Phase::Done;
            }
            return;
        }
        if self.session.poll_timeout().is_some_and(|at| at <= instant) {
            self.session.handle_timeout(instant);
            self.drain(&mut Lane::Control, now);
        }
        if self.brake.as_ref().is_some_and(|brake| brake.deadline <= instant) {
            self.release_brake(now);
        }
        if self.lag_at.is_some_and(|at| at <= instant) {
            self.lag_at = None;
            self.tell_lag(now);
        }
        self.outbox.release_paced(instant);
        if self.outbox.blocked_since().is_some_and(|since| since + self.settings.stall_timeout <= instant) {
            self.broker.metrics().disconnects.inc(Ended::Closed(CloseKind::TooSlow));
            debug!(client = ?self.client.id(), "the socket has taken no byte for queue.stall_timeout");
            self.phase = Phase::Done;
            return;
        }
        if !self.is_paused {
            self.check_pulse(now);
        }
        self.pump(now);
        self.flush(now);
    }

    fn check_pulse(&mut self, now: Now) {
        match self.pulse.handle_timeout(&self.settings, now.instant) {
            timers::Beat::Nothing => {}
            timers::Beat::Ping => self.outbox.push_control(frame::ping(b"", None)),
            timers::Beat::Silent => {
                self.end(CloseKind::PingTimeout, "no pong within websocket.pong_timeout", now)
            }
            timers::Beat::Idle => {
                self.end(CloseKind::PingTimeout, "nothing was said for websocket.idle_timeout", now)
            }
        }
    }

    // ---- writing ----

    fn poll_write(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        if self.outbox.blocked_since().is_none() {
            return false;
        }
        if self.read.as_ref().poll_write_ready(context).is_pending() {
            return false;
        }
        self.outbox.flush(now.instant);
        self.pump(now);
        self.flush(now);
        true
    }

    /// Does for the outbox what only the owner can: retained messages, lag, and what the session encodes.
    fn pump(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Open) || self.has_undrained {
            return;
        }
        self.tell_lag(now);
        PUMP.with_borrow_mut(|(entries, frames)| {
            // While the socket takes nothing, what is queued stays where the policy can reach it.
            while self.outbox.blocked_since().is_none() {
                if self.client.awaits_retained() {
                    self.broker.pull_retained(&mut self.client, now.instant);
                }
                let encoded = self.encode_some(entries, frames, now);
                if !encoded && !self.client.awaits_retained() {
                    return;
                }
                self.outbox.flush(now.instant);
                if !matches!(self.phase, Phase::Open) {
                    return;
                }
                // Another task may be writing what fills it: that one wakes us when it has.
                if !encoded && self.outbox.wakes_below_half() {
                    return;
                }
            }
        });
    }

    fn encode_some(&mut self, entries: &mut Vec<Entry>, frames: &mut Vec<Frame>, now: Now) -> bool {
        let mut count = 0;
        while count < PUMP_COUNT {
            // Few at a time, since each acknowledged one may fill the window; they leave in one write.
            self.outbox.take_for_session(entries, PUMP_COUNT - count, self.session.wants(), now.instant);
            if entries.is_empty() {
                break;
            }
            count += entries.len();
            for entry in entries.drain(..) {
                self.encode(entry, frames, now);
            }
        }
        if count > 0 {
            self.outbox.put_back(frames, count);
        }
        count > 0
    }

    fn encode(&mut self, entry: Entry, frames: &mut Vec<Frame>, now: Now) {
        if entry.publication.is_expired(now.instant) {
            self.broker.metrics().dropped(DropReason::Expired, 1);
            return;
        }
        if let (Some(form), Some(takeover)) = (entry.form, &mut self.takeover) {
            frames.push(takeover.prepared_frame(entry.publication.prepared(form)).into());
            return;
        }
        let tag = self.client.next_tag();
        self.session.handle_delivery(entry.into_delivery(tag), now.instant);
        self.drain(&mut Lane::Data(frames), now);
    }

    fn tell_lag(&mut self, now: Now) {
        if self.lag_at.is_some() {
            return;
        }
        if let Some(lag) = self.outbox.take_lag() {
            self.lag_at = Some(now.instant + LAG_INTERVAL);
            self.session.handle_lag(*lag, now.instant);
            self.drain(&mut Lane::Control, now);
        }
    }

    // ---- reading ----

    fn poll_read(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        if matches!(self.phase, Phase::Open) && !self.may_read(now) {
            return self.goes_on_undrained();
        }
        let mut buffer = buffer::take(&mut self.partial);
        let mut progress = false;
        for _ in 0..READS_MAX {
            match self.read_once(context, &mut buffer, now) {
                Poll::Pending => break,
                Poll::Ready(is_more) => {
                    progress = true;
                    if !is_more {
                        break;
                    }
                }
            }
        }
        self.partial = buffer::give_back(buffer);
        if progress {
            self.pump(now);
            self.flush(now);
        }
        progress
    }

    /// Whether to look again without being woken: answers were written since, or another task writes them now and
    /// wakes nobody when it is done.
    fn goes_on_undrained(&self) -> bool {
        let waits_for_answers = self.has_undrained || self.outbox.control_bytes() > CONTROL_BYTES_MAX;
        waits_for_answers && self.brake.is_none() && self.outbox.blocked_since().is_none()
    }

    /// The input's brake (DESIGN §4): the session, a slow subscriber, or unsent answers may hold it.
    fn may_read(&mut self, now: Now) -> bool {
        let is_control_full = self.is_control_full(now);
        if self.has_undrained && self.brake.is_none() && !is_control_full {
            self.has_undrained = false;
            self.drain(&mut Lane::Control, now);
            self.pump(now);
            self.flush(now);
        }
        let may = self.accepts_input() && !is_control_full;
        if may == self.is_paused {
            self.is_paused = !may;
            let reading = if may { Reading::Resumed } else { Reading::Paused };
            self.session.handle_reading(reading, now.instant);
            self.pulse.restart(&self.settings, now.instant);
            self.drain(&mut Lane::Control, now);
        }
        if may && self.has_undecoded {
            // What was read before the pause comes first.
            let mut buffer = std::mem::take(&mut self.partial);
            self.decode(&mut buffer, now);
            self.partial = buffer;
            self.flush(now);
        }
        may && self.accepts_input()
    }

    fn accepts_input(&self) -> bool {
        matches!(self.phase, Phase::Open)
            && self.brake.is_none()
            && !self.has_undrained
            && self.session.wants().input
    }

    fn read_once(&mut self, context: &mut Context<'_>, buffer: &mut BytesMut, now: Now) -> Poll<bool> {
        let room = buffer::reserve(buffer, self.settings.read_bytes_max);
        let result = pin!(self.read.read_buf(&mut (&mut *buffer).limit(room))).poll(context);
        match result {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(len)) if len > 0 => {
                self.handle_bytes(buffer, len, now);
                Poll::Ready(len == room && self.accepts_input())
            }
            Poll::Ready(_end) => {
                if matches!(self.phase, Phase::Open) {
                    self.broker.metrics().disconnects.inc(Ended::Lost);
                }
                self.phase = Phase::Done;
                Poll::Ready(false)
            }
        }
    }

    fn handle_bytes(&mut self, buffer: &mut BytesMut, len: usize, now: Now) {
        self.broker.metrics().family(self.family).bytes_in.add(len as u64);
        match &mut self.phase {
            Phase::Open => {
                self.pulse.handle_bytes();
                self.decode(buffer, now);
            }
            Phase::Closing { .. } => self.seek_close(buffer),
            Phase::Lingering { bytes_left, .. } => {
                *bytes_left = bytes_left.saturating_sub(len);
                if *bytes_left == 0 {
                    self.phase = Phase::Done;
                } else {
                    self.seek_close(buffer);
                }
            }
            Phase::Done => {}
        }
    }

    /// After a Close: everything but the peer's answer to ours is discarded (RFC 6455 §1.4).
    fn seek_close(&mut self, buffer: &mut BytesMut) {
        loop {
            match self.receiver.poll(buffer) {
                Ok(Some(Event::Close(_))) => break,
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => {
                    buffer.clear();
                    return;
                }
            }
        }
        buffer.clear();
        if matches!(self.phase, Phase::Lingering { .. }) {
            self.phase = Phase::Done;
        }
    }

    fn decode(&mut self, buffer: &mut BytesMut, now: Now) {
        self.has_undecoded = true;
        while self.accepts_input() {
            match self.receiver.poll(buffer) {
                Ok(Some(event)) => self.handle_event(event, now),
                Ok(None) => {
                    self.has_undecoded = false;
                    break;
                }
                Err(error) => {
                    self.write_before_end(now);
                    let reason = close_reason(&error);
                    self.session.handle_close(reason.clone(), now.instant);
                    self.drain_all(now);
                    if matches!(self.phase, Phase::Open) {
                        self.close(&reason, DataLane::Abort, now);
                    }
                    buffer.clear();
                }
            }
        }
    }

    fn handle_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Message(message) => {
                self.pulse.handle_message(&self.settings, now.instant);
                self.session.handle_message(message, now.instant);
                self.drain(&mut Lane::Control, now);
            }
            Event::Ping(payload) => self.answer_ping(&payload),
            Event::Pong(_) => {}
            Event::Close(close) => self.answer_close(close.as_ref(), now),
        }
    }

    /// Each ping gets its pong while those are read. Behind unsent ones the newest stands for all (RFC 6455 §5.5.3).
    fn answer_ping(&mut self, payload: &[u8]) {
        let pong = frame::pong(payload, None);
        let unsent_bytes = self.outbox.control_bytes();
        self.joins_pongs = unsent_bytes > PONG_BYTES_MAX || (self.joins_pongs && unsent_bytes > 0);
        if self.joins_pongs {
            self.outbox.push_pong(pong);
        } else {
            self.outbox.push_control(pong);
        }
    }

    /// RFC 6455 §5.5.1: a Close is answered with the same code.
    fn answer_close(&mut self, close: Option<&CloseFrame>, now: Now) {
        self.write_before_end(now);
        let frame = match close {
            Some(close) => frame::close(close.code, "", None),
            None => frame::close_without_code(None),
        };
        self.close_with(frame, DataLane::Abort, now);
        self.broker.metrics().disconnects.inc(Ended::ByPeer);
    }

    /// What came before the end in the same read has been answered, but for this client's own deliveries.
    fn write_before_end(&mut self, now: Now) {
        self.pump(now);
        self.flush(now);
    }

    // ---- the session's outputs ----

    /// Carries out what the session asks for. One message may hold many packets, each with an answer, so this
    /// stops where reading would; [`Self::may_read`] goes on with it.
    fn drain(&mut self, lane: &mut Lane<'_>, now: Now) {
        let mut answered_bytes = 0;
        while matches!(lane, Lane::Data(_)) || !self.stops_draining(&mut answered_bytes, now) {
            let Some(output) = self.session.poll_output() else { return self.end_drain() };
            self.carry_out(output, lane, &mut answered_bytes, now);
            if !matches!(self.phase, Phase::Open) {
                return self.end_drain();
            }
        }
    }

    /// To the last output, for the words before an end.
    fn drain_all(&mut self, now: Now) {
        while let Some(output) = self.session.poll_output() {
            self.carry_out(output, &mut Lane::Control, &mut 0, now);
        }
        self.end_drain();
    }

    fn stops_draining(&mut self, answered_bytes: &mut usize, now: Now) -> bool {
        if *answered_bytes > CONTROL_BYTES_MAX {
            *answered_bytes = 0;
            self.has_undrained = self.is_control_full(now);
        }
        self.has_undrained |= self.brake.as_ref().is_some_and(|brake| brake.backlog.len() >= BACKLOG_MAX);
        self.has_undrained
    }

    fn is_control_full(&self, now: Now) -> bool {
        if self.outbox.control_bytes() <= CONTROL_BYTES_MAX {
            return false;
        }
        self.flush_own(now);
        self.outbox.control_bytes() > CONTROL_BYTES_MAX
    }

    fn end_drain(&mut self) {
        self.has_undrained = false;
        if std::mem::take(&mut self.holds_subscribe) {
            self.outbox.release_subscribe();
            self.outbox.signal(Signals::SESSION);
        }
    }

    fn carry_out(&mut self, output: Output, lane: &mut Lane<'_>, answered_bytes: &mut usize, now: Now) {
        match output {
            Output::Send(outgoing) => {
                *answered_bytes += outgoing.len() + ANSWER_BYTES;
                self.send(outgoing, lane);
            }
            Output::Request(token, request) => self.request(token, request, now),
            Output::Close(reason, data) => {
                if data == DataLane::Drain {
                    self.pump_before_close(now);
                }
                self.close(&reason, data, now);
            }
        }
    }

    fn send(&mut self, outgoing: Outgoing, lane: &mut Lane<'_>) {
        match lane {
            Lane::Control => {
                let deflating = self.deflating.as_deref().filter(|_| self.takeover.is_none());
                self.outbox.push_control(outgoing.into_frame(deflating));
            }
            Lane::Data(frames) => match &mut self.takeover {
                Some(takeover) => frames.push(takeover.frame(&outgoing).into()),
                None => frames.push(outgoing.into_frame(self.deflating.as_deref()).into()),
            },
        }
    }

    fn request(&mut self, token: Token, request: Request, now: Now) {
        if let Some(brake) = &mut self.brake {
            brake.backlog.push_back((token, request));
            return;
        }
        let is_connect = matches!(request, Request::Connect(_));
        if matches!(request, Request::Subscribe(_)) {
            self.holds_subscribe = true;
            self.outbox.hold_subscribe();
        }
        if matches!(request, Request::Publish(_)) {
            self.broker.metrics().family(self.family).messages_in.inc();
        }
        let is_acked =
            matches!(&request, Request::Publish(publish) if publish.publication.qos != Default::default());
        let batch = self.batch.get_or_insert_with(buffer::take_batch);
        let reply = self.broker.handle(&mut self.client, &self.peer, request, now, batch);
        let slow = std::mem::take(&mut batch.slow);
        let Some(reply) = reply else { return };
        if is_connect && matches!(reply, Reply::Connected(_)) {
            self.receiver.set_message_bytes_max(self.settings.message_bytes_max);
        }
        if !slow.is_empty() {
            if is_acked {
                self.apply_brake(slow, (token, reply), now);
                return;
            }
            self.yields = true;
        }
        self.session.handle_reply(token, reply, now.instant);
    }

    // ---- the brake ----

    /// Holds the acknowledgement until there is room, at most `queue.publish_wait`.
    fn apply_brake(&mut self, slow: Vec<Arc<Outbox>>, reply: (Token, Reply), now: Now) {
        self.flush(now);
        let slow: Vec<_> = slow.into_iter().filter(|slow| slow.wait_for_room(&self.outbox)).collect();
        if slow.is_empty() {
            self.session.handle_reply(reply.0, reply.1, now.instant);
            return;
        }
        self.broker.metrics().publishers_held.inc();
        let deadline = now.instant + self.settings.publish_wait;
        self.brake = Some(Box::new(Brake { deadline, slow, reply: Some(reply), backlog: VecDeque::new() }));
    }

    fn try_release_brake(&mut self, now: Now) {
        let Some(brake) = &mut self.brake else { return };
        brake.slow.retain(|slow| slow.wait_for_room(&self.outbox));
        if brake.slow.is_empty() {
            self.release_brake(now);
        }
    }

    fn release_brake(&mut self, now: Now) {
        let Some(brake) = self.brake.take() else { return };
        let mut backlog = brake.backlog;
        if let Some((token, reply)) = brake.reply {
            self.session.handle_reply(token, reply, now.instant);
        }
        while let Some((token, request)) = backlog.pop_front() {
            self.request(token, request, now);
            if let Some(brake) = &mut self.brake {
                brake.backlog.append(&mut backlog);
            }
        }
        self.drain(&mut Lane::Control, now);
        self.flush(now);
    }

    // ---- the end ----

    /// Ends the connection for a reason of the WebSocket layer; the session says it in its own words first.
    fn end(&mut self, kind: CloseKind, detail: &'static str, now: Now) {
        let reason = CloseReason::new(kind, detail);
        self.close_by_order(reason, now);
    }

    fn pump_before_close(&mut self, now: Now) {
        PUMP.with(|pump| {
            // A close from within a pump finds the buffers in use; what is queued is then encoded already.
            let Ok(mut pump) = pump.try_borrow_mut() else { return };
            let (entries, frames) = &mut *pump;
            while self.encode_some(entries, frames, now) {}
        });
    }

    fn close(&mut self, reason: &CloseReason, data: DataLane, now: Now) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        self.broker.metrics().disconnects.inc(Ended::Closed(reason.kind));
        if reason.kind != CloseKind::Normal {
            info!(client = ?self.client.id(), peer = %self.peer.ip, kind = ?reason.kind, reason = %reason.detail.escape_debug(), "connection closed by the broker");
        }
        let frame = frame::close(CloseCode::from(reason.kind.code()), &reason.detail, None);
        self.close_with(frame, data, now);
    }

    fn close_with(&mut self, frame: Bytes, data: DataLane, now: Now) {
        let lost = self.outbox.close(frame, data);
        self.broker.metrics().dropped(DropReason::Closed, lost as u64);
        self.brake = None;
        self.phase = Phase::Closing { deadline: now.instant + self.settings.close_timeout };
    }

    /// Writes what this task has pushed, and its own answers.
    fn flush(&mut self, now: Now) {
        if let Some(mut batch) = self.batch.take() {
            flush_all(&mut batch, now.instant);
            buffer::give_back_batch(batch);
        }
        self.flush_own(now);
    }

    /// A blocked socket says itself when it takes more; a flush before that would only signal this task again.
    fn flush_own(&self, now: Now) {
        if self.outbox.blocked_since().is_none() {
            self.outbox.flush(now.instant);
        }
    }

    /// A peer that never answers our Close must not hold its will back: a newer connection with the same id may
    /// have published its own state by then. Does nothing the second time.
    fn leave_when_closing(&mut self, now: Now) {
        if matches!(self.phase, Phase::Closing { .. }) && self.outbox.has_ended() {
            let batch = self.batch.get_or_insert_default();
            self.broker.leave(&mut self.client, now, batch);
            batch.flush(now.instant);
        }
    }

    fn advance_close(&mut self, now: Instant) {
        let is_failed = matches!(self.phase, Phase::Open) && self.outbox.has_ended();
        if !matches!(self.phase, Phase::Closing { .. }) {
            if is_failed {
                self.phase = Phase::Done;
            }
            return;
        }
        if !self.outbox.has_ended() {
            return;
        }
        // The peer sees the end of our side at once; an error means that it is gone already.
        let _ = SockRef::from(self.read.as_ref()).shutdown(std::net::Shutdown::Write);
        let deadline = now + self.settings.close_timeout;
        self.phase = Phase::Lingering { deadline, bytes_left: LINGER_BYTES_MAX };
    }
}

fn close_reason(error: &ReceiveError) -> CloseReason {
    let kind = match error.close_code() {
        CloseCode::Invalid => CloseKind::InvalidUtf8,
        CloseCode::Size => CloseKind::TooBig,
        _ => CloseKind::ProtocolError,
    };
    CloseReason::new(kind, error.to_string())
}

thread_local! {
    static PUMP: std::cell::RefCell<(Vec<Entry>, Vec<Frame>)> = const { std::cell::RefCell::new((Vec::new(), Vec::new())) };
}

/// Flushes what a batch touched. A large fan-out is handed in chunks to other workers.
fn flush_all(batch: &mut Batch, now: Instant) {
    while batch.touched.len() > 2 * FLUSH_CHUNK {
        let chunk = batch.touched.split_off(batch.touched.len() - FLUSH_CHUNK);
        tokio::spawn(async move {
            for outbox in chunk {
                outbox.flush(now);
            }
        });
    }
    batch.flush(now);
}

fn clock() -> Now {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Now {
        instant: tokio::time::Instant::now().into_std(),
        unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
    }
}

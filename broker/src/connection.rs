//! One client's task: reads bytes, drives its session, and does for its outbox what only the owner can do.
//!
//! The loop is one `poll`: signals of the outbox, the timer, the socket's write side, its read side; then it
//! sleeps. An idle connection owns no buffer. After the connection's Close it reads and discards until the peer
//! has closed, because closing with unread input would make the kernel reset the connection and destroy the last
//! words on their way (DESIGN §6).

mod buffer;
mod encoded;
mod ending;
mod hints;
mod outputs;
mod pending;
mod reading;
mod replies;
mod timers;
mod writing;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tidegate_protocol::session::{CloseKind, CloseReason, DataLane, DropReason, Request, Session, Token};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::websocket::deflate::{Params, TakeoverDeflater};
use tidegate_protocol::websocket::prepared::Deflating;
use tidegate_protocol::websocket::{Receiver, Role, frame};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tracing::debug;

use self::encoded::Encoded;
use self::pending::{Answer, Pending};
use self::timers::{Pulse, Timer};
use crate::auth::Peer;
use crate::broker::{Batch, Broker, Now};
use crate::client::Client;
use crate::metrics::Ended;
use crate::outbox::Outbox;
use crate::outbox::queue::Signals;
use crate::outbox::writer::Socket;

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
    /// Replies that wait for the disk.
    pending: Option<Box<Pending>>,
    /// A subscriber of what this client publishes at QoS 0 is over its mark: others get a turn first.
    yields: bool,
    is_paused: bool,
    /// A pong waits in the one place that pongs have while nothing is read.
    joins_pongs: bool,
    /// Decoding stopped before the end of what was read.
    has_undecoded: bool,
    /// The session has more to say, but its answers are not read or a slow subscriber is waited for.
    has_undrained: bool,
    /// A Subscribe or Connect has been requested, and its reply is not queued yet.
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
        self.batch.get_or_insert_default();
        // What came before the end of the socket was said, a goodbye perhaps. A session that panicked is not asked again.
        if !std::thread::panicking() {
            self.give_up_brake(now);
        }
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
    Closing { deadline: Instant, is_answered: bool },
    Lingering { deadline: Instant, bytes_left: usize },
    Done,
}

/// A publish whose acknowledgement waits for room in somebody's outbox, and what came behind it.
struct Brake {
    deadline: Instant,
    slow: Vec<Arc<Outbox>>,
    answer: Answer,
    backlog: VecDeque<(Token, Request)>,
}

/// Where a session's output goes while it is drained.
enum Lane<'a> {
    Control,
    Data(&'a mut Encoded),
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
const PUMP_COUNT: usize = 256;

/// Rounds of encoding and flushing, before other tasks get their turn: some 1000 messages.
const PUMP_ROUNDS: usize = 4;

/// Those of them that bring retained or stored messages, up to half of the mark each.
const PULL_ROUNDS: usize = 2;

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
            pending: None,
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
        if signals.contains(Signals::COMMITTED) {
            self.handle_commit(now);
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
        let is_planned = matches!(reason.kind, CloseKind::ShuttingDown | CloseKind::Restarting);
        if is_planned && self.parts_later(&reason, now) {
            return;
        }
        if is_planned && !self.has_undrained {
            self.pump_before_close(now);
            // Last words go before queued data, and after them some protocols allow nothing (MQTT 5 §4.13).
            self.flush(now);
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
        if let Phase::Closing { deadline, .. } | Phase::Lingering { deadline, .. } = self.phase {
            return Some(deadline);
        }
        let stalled = self.outbox.blocked_since().map(|since| since + self.settings.stall_timeout);
        let pulse = if self.is_paused { None } else { self.pulse.deadline() };
        let brake = self.brake.as_ref().map(|brake| brake.deadline);
        let parting = self.pending.as_ref().and_then(|pending| pending.part_by());
        [self.session.poll_timeout(), stalled, pulse, brake, parting, self.lag_at, self.outbox.next_paced()]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_deadlines(&mut self, now: Now) {
        let instant = now.instant;
        if let Phase::Closing { deadline, .. } | Phase::Lingering { deadline, .. } = self.phase {
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
        if self.pending.as_ref().and_then(|pending| pending.part_by()).is_some_and(|by| by <= instant) {
            self.part(now);
        }
        if self.lag_at.is_some_and(|at| at <= instant) {
            self.lag_at = None;
            self.tell_lag(now);
        }
        self.outbox.release_paced(instant);
        if self.outbox.blocked_since().is_some_and(|since| since + self.settings.stall_timeout <= instant) {
            self.broker.metrics().disconnects.inc(Ended::Closed(CloseKind::TooSlow));
            debug!(client = ?self.client.name(), "the socket has taken no byte for queue.stall_timeout");
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

/// Both clocks, for tasks without a connection too.
pub(crate) fn clock() -> Now {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Now {
        instant: tokio::time::Instant::now().into_std(),
        unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
    }
}

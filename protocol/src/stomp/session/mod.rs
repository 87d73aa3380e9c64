//! The conversation with one STOMP client. Knows neither sockets nor who else is there.
//! Spec: STOMP 1.2, with what differs in 1.0 and 1.1; WIRE §6–§8.

mod commands;
mod connect;
mod durable;
mod error;
mod heart_beat;
mod publish;
mod subscribe;
mod subscriptions;
mod transaction;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use self::connect::Asked;
use self::error::{Offender, SessionError};
use self::heart_beat::HeartBeats;
use self::subscriptions::{Subscriptions, Verdict};
use self::transaction::Transactions;
use super::codec::{Decoder, Limits};
use super::destination::Destinations;
use super::frame::{Command, Frame};
use super::message::{self, Heading};
use super::{FrameKind, Settings, Version};
use crate::publication::QoS;
use crate::session::{
    CloseKind, CloseReason, Connected, DataLane, Delivery, DropReason, Granted, Lag, Outgoing, Output,
    Reading, Refusal, Reply, Request, Session, Settlement, SubscriptionId, Token, Wants, WillFate,
};
use crate::websocket::{Message, MessageKind};

/// One client's state. Frames are taken out of the buffer one by one, as the output is polled, so that a message
/// full of small frames does not become a queue of requests.
#[derive(Debug)]
pub(super) struct StompSession {
    settings: Settings,
    ceiling: Version,
    state: State,
    decoder: Decoder,
    /// What the client sent and is not decoded yet.
    buffer: BytesMut,
    /// How large `buffer` was at most since it was last made anew: the memory that a slice of it keeps alive.
    buffer_bytes_max: usize,
    outputs: VecDeque<Output>,
    /// Requests whose replies matter, in their order.
    pending: VecDeque<(Token, Pending)>,
    next_token: u32,
    destinations: Destinations,
    subscriptions: Subscriptions,
    transactions: Transactions,
    /// Of CONNECT; what durable subscriptions by name belong to.
    client_id: Option<Box<str>>,
    /// [`Output::Hint`] was given.
    has_hinted: bool,
    heart_beats: HeartBeats,
    /// To be told with the next MESSAGE.
    lag: Lag,
    now: Instant,
}

/// ```text
///                  CONNECT            Reply::Connected         DISCONNECT          replies in
///   AwaitConnect ─────────▶ Connecting ───────────────▶ Ready ───────────▶ Leaving ──────────▶ Closed
///        └──────────────────────┴───── any error ─────────┴───────────────────┴─────────────────▲
/// ```
#[derive(Debug)]
enum State {
    /// Until `deadline`, with a credential from the handshake.
    AwaitConnect { deadline: Option<Instant>, bearer: Option<Box<str>> },
    /// The broker decides.
    Connecting(Asked),
    /// Everything goes.
    Ready(Version),
    /// The client said goodbye; earlier requests are answered before its receipt.
    Leaving { version: Version, receipt: Option<Box<str>> },
    /// Nothing more.
    Closed,
}

/// What a reply is for, with the receipt that the client asked for.
#[derive(Debug)]
enum Pending {
    Connect,
    Subscribe {
        receipt: Option<Box<str>>,
    },
    Unsubscribe {
        receipt: Option<Box<str>>,
        id: Option<SubscriptionId>,
    },
    Publish {
        receipt: Option<Box<str>>,
    },
    /// The subscription that a SEND with `reply-to` needs.
    ReplyTo {
        receipt: Option<Box<str>>,
    },
    Commit {
        receipt: Option<Box<str>>,
        transaction: Box<str>,
    },
}

impl Session for StompSession {
    fn handle_message(&mut self, message: Message, now: Instant) {
        self.now = now;
        self.heart_beats.received(now);
        if matches!(self.state, State::Closed | State::Leaving { .. }) {
            return;
        }
        let bytes: Bytes = match message {
            Message::Text(text) => text.into(),
            Message::Binary(bytes) => bytes,
        };
        if self.buffer.is_empty() {
            self.buffer = BytesMut::from(bytes);
            self.buffer_bytes_max = 0;
        } else {
            self.buffer.extend_from_slice(&bytes);
        }
        self.buffer_bytes_max = self.buffer_bytes_max.max(self.buffer.capacity());
    }

    fn handle_reply(&mut self, token: Token, reply: Reply, now: Instant) {
        self.now = now;
        if matches!(self.state, State::Closed) {
            return;
        }
        let position = self.pending.iter().position(|(waiting, _)| *waiting == token);
        let pending = position.and_then(|at| self.pending.remove(at)).map(|(_, pending)| pending);
        if let Err((error, offender)) = self.settle_reply(pending, reply) {
            self.fail(&error, &offender);
            return;
        }
        if self.pending.is_empty() && matches!(self.state, State::Leaving { .. }) {
            self.leave();
        }
    }

    fn handle_delivery(&mut self, delivery: Delivery, now: Instant) {
        self.now = now;
        let Some(version) = self.state.version() else { return };
        if delivery.publication.is_expired(now) {
            let expired = Settlement::Dropped(DropReason::Expired);
            return self.request_unanswered(Request::Settle { tag: delivery.tag, settlement: expired });
        }
        let (subscription, serial) = match self.subscriptions.deliver(&delivery) {
            Ok(sent) => sent,
            Err(settlement) => {
                return self.request_unanswered(Request::Settle { tag: delivery.tag, settlement });
            }
        };
        let has_lag = self.lag.dropped > 0 || self.lag.conflated > 0;
        let heading = Heading {
            constant: &subscription.constant,
            view: self.destinations.view(subscription.kind),
            subscription: delivery.subscription.0,
            serial,
            wants_ack: subscription.wants_ack(),
            is_retained: delivery.is_retained,
            is_redelivered: delivery.dup,
            lag: has_lag.then_some(&self.lag),
        };
        let message = message::encode(&delivery.publication, &heading, version, self.settings.frames, now);
        let is_settled = !subscription.wants_ack() && delivery.qos > QoS::AtMostOnce;
        if has_lag {
            self.lag = Lag::default();
        }
        self.outputs.push_back(Output::Send(message));
        self.heart_beats.sent(now);
        if is_settled {
            // `ack:auto`: sent is delivered.
            let settlement = Settlement::Accepted;
            self.request_unanswered(Request::Settle { tag: delivery.tag, settlement });
        }
    }

    fn handle_lag(&mut self, lag: Lag, now: Instant) {
        self.now = now;
        self.lag.dropped = self.lag.dropped.saturating_add(lag.dropped);
        self.lag.conflated = self.lag.conflated.saturating_add(lag.conflated);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        match &self.state {
            State::AwaitConnect { deadline, .. } => {
                if deadline.is_some_and(|deadline| deadline <= now) {
                    let seconds = self.settings.connect_timeout.as_secs();
                    self.fail(&SessionError::ConnectTimeout { seconds }, &Offender::default());
                }
            }
            State::Ready(_) | State::Leaving { .. } => {
                if self.heart_beats.dead_at().is_some_and(|at| at <= now) {
                    let milliseconds = self.heart_beats.patience().as_millis();
                    self.fail(&SessionError::HeartBeatTimeout { milliseconds }, &Offender::default());
                } else if self.heart_beats.send_at().is_some_and(|at| at <= now) {
                    self.send(Bytes::from_static(b"\n"));
                }
            }
            State::Connecting(_) | State::Closed => {}
        }
    }

    fn handle_reading(&mut self, reading: Reading, now: Instant) {
        self.now = now;
        match reading {
            Reading::Paused => self.heart_beats.pause(),
            Reading::Resumed => self.heart_beats.resume(now),
        }
    }

    fn handle_close(&mut self, reason: CloseReason, now: Instant) {
        self.now = now;
        if matches!(self.state, State::Closed) {
            return;
        }
        if reason.kind != CloseKind::Normal {
            let error = error::encode_close(&reason, self.state.version());
            self.send(error.freeze());
        }
        let lane = match reason.kind {
            CloseKind::Normal | CloseKind::ShuttingDown | CloseKind::Restarting => DataLane::Drain,
            _ => DataLane::Abort,
        };
        self.close(reason, lane);
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if !self.read_frame() {
                return None;
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::AwaitConnect { deadline, .. } => *deadline,
            State::Ready(_) | State::Leaving { .. } => {
                [self.heart_beats.send_at(), self.heart_beats.dead_at()].into_iter().flatten().min()
            }
            State::Connecting(_) | State::Closed => None,
        }
    }

    fn wants(&self) -> Wants {
        let is_open = self.state.version().is_some();
        let has_window = self.subscriptions.has_window();
        Wants {
            input: self.wants_input(),
            // A full window holds QoS 0 back only where every message is to be acknowledged.
            qos0: is_open && (has_window || self.subscriptions.has_auto()),
            acked: usize::from(is_open && has_window),
        }
    }
}

impl StompSession {
    pub(super) fn new(ceiling: Version, bearer: Option<Box<str>>, settings: &Settings, now: Instant) -> Self {
        let deadline = now.checked_add(settings.connect_timeout);
        Self {
            decoder: Decoder::new(limits(settings, settings.max_message_size_preauth)),
            destinations: Destinations::new(settings),
            settings: settings.clone(),
            ceiling,
            state: State::AwaitConnect { deadline, bearer },
            buffer: BytesMut::new(),
            buffer_bytes_max: 0,
            outputs: VecDeque::new(),
            pending: VecDeque::new(),
            next_token: 0,
            subscriptions: Subscriptions::default(),
            transactions: Transactions::default(),
            client_id: None,
            has_hinted: false,
            heart_beats: HeartBeats::off(now),
            lag: Lag::default(),
            now,
        }
    }

    fn wants_input(&self) -> bool {
        match self.state {
            State::AwaitConnect { .. } => true,
            // What waits for the broker is bounded, whatever the frames are (SEC-15).
            State::Ready(_) => self.pending.len() < self.settings.receive_maximum.max(1),
            State::Connecting(_) | State::Leaving { .. } | State::Closed => false,
        }
    }

    /// Handles one frame of the buffer. `false`: there is none, or none is wanted.
    fn read_frame(&mut self) -> bool {
        if !self.wants_input() {
            return false;
        }
        match self.decoder.decode(&mut self.buffer) {
            Ok(Some(frame)) => {
                let offender = Offender::of(&frame);
                if let Err(error) = self.handle_frame(frame) {
                    self.fail(&error, &offender);
                }
                true
            }
            Ok(None) => {
                self.shrink_buffer();
                false
            }
            Err(error) => {
                let receipt = error.receipt.as_deref().map(Into::into);
                let offender = Offender { command: error.command, receipt, transaction: None };
                self.fail(&error.into(), &offender);
                true
            }
        }
    }

    /// What is left of a message must not keep all of it in memory while the rest of a frame is awaited; an
    /// idle session keeps no buffer at all (SEC-17).
    fn shrink_buffer(&mut self) {
        if self.buffer.len() < self.buffer_bytes_max / 2 {
            self.decoder.detach();
            self.buffer = BytesMut::from(&*self.buffer);
            self.buffer_bytes_max = self.buffer.capacity();
        }
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<(), SessionError> {
        let version = match (&self.state, frame.command) {
            (State::AwaitConnect { .. }, Command::Connect | Command::Stomp) => return self.connect(frame),
            (State::AwaitConnect { .. }, _) => return Err(SessionError::NotConnected),
            (State::Ready(version), _) => *version,
            // `wants_input` lets no frame through in these.
            (State::Connecting(_) | State::Leaving { .. } | State::Closed, _) => return Ok(()),
        };
        match frame.command {
            Command::Connect | Command::Stomp => Err(SessionError::AlreadyConnected),
            Command::Send => self.publish(&frame, version),
            Command::Subscribe => self.subscribe(&frame, version),
            Command::Unsubscribe => self.unsubscribe(&frame, version),
            Command::Ack => self.acknowledge(&frame, Verdict::Ack, version),
            Command::Nack if version > Version::V1_0 => self.acknowledge(&frame, Verdict::Nack, version),
            Command::Begin => self.begin(&frame),
            Command::Commit => self.commit(&frame),
            Command::Abort => self.abort(&frame),
            Command::Disconnect => {
                // "Any transactions that have not been committed will be implicitly aborted".
                self.transactions = Transactions::default();
                self.state = State::Leaving { version, receipt: receipt(&frame) };
                self.buffer = BytesMut::new();
                if self.pending.is_empty() {
                    self.leave();
                }
                Ok(())
            }
            Command::Nack | Command::Connected | Command::Message | Command::Receipt | Command::Error => {
                Err(SessionError::UnexpectedCommand)
            }
        }
    }

    fn connect(&mut self, frame: Frame) -> Result<(), SessionError> {
        let State::AwaitConnect { bearer, .. } = &mut self.state else {
            return Err(SessionError::AlreadyConnected);
        };
        let (asked, connect) = connect::read(frame, bearer.take(), self.ceiling, &self.settings)?;
        self.state = State::Connecting(asked);
        self.request(Request::Connect(connect), Pending::Connect);
        Ok(())
    }

    fn connected(&mut self, connected: &Connected) -> Result<(), SessionError> {
        let State::Connecting(asked) = &mut self.state else { return Err(SessionError::ReplyMismatch) };
        self.client_id = asked.client_id.take();
        self.destinations.set_temporary(&connected.temporary);
        let version = asked.version;
        let mut out = BytesMut::new();
        connect::encode_connected(asked, &connected.client_id, &self.settings, &mut out);
        self.heart_beats.agree(asked.offer, &self.settings, self.now);
        self.decoder.set_version(version, limits(&self.settings, self.settings.max_message_size));
        self.state = State::Ready(version);
        self.send(out.freeze());
        Ok(())
    }

    /// What a reply means for the client. The receipt of a frame leaves when the broker is done with it.
    fn settle_reply(
        &mut self,
        pending: Option<Pending>,
        reply: Reply,
    ) -> Result<(), (SessionError, Offender)> {
        let offender = pending.as_ref().map_or_else(Offender::default, Pending::offender);
        match (pending, reply) {
            (_, Reply::Refused(refusal)) => return Err((refusal.into(), offender)),
            (Some(Pending::Connect), Reply::Connected(connected)) => {
                return self.connected(&connected).map_err(|error| (error, offender));
            }
            (Some(Pending::Subscribe { receipt }), Reply::Subscribed(results)) => {
                check_granted(results).map_err(|error| (error, offender))?;
                self.send_receipt(receipt.as_deref());
            }
            // The receipt is that of the SEND, which is answered by itself.
            (Some(Pending::ReplyTo { .. }), Reply::Subscribed(results)) => {
                check_granted(results).map_err(|error| (error, offender))?;
            }
            (Some(Pending::Unsubscribe { receipt, id }), Reply::Unsubscribed(_)) => {
                if let Some(id) = id {
                    self.subscriptions.ended(id);
                }
                self.send_receipt(receipt.as_deref());
            }
            (Some(Pending::Publish { receipt } | Pending::Commit { receipt, .. }), Reply::Published(_)) => {
                self.send_receipt(receipt.as_deref());
            }
            // Of publishes at QoS 0, and what was asked for without waiting.
            (None, _) => {}
            (Some(_), _) => return Err((SessionError::ReplyMismatch, offender)),
        }
        Ok(())
    }

    /// STOMP 1.2 "DISCONNECT": its RECEIPT is the last frame, and says that everything before it was taken.
    fn leave(&mut self) {
        let State::Leaving { receipt, .. } = &mut self.state else { return };
        let receipt = receipt.take();
        self.send_receipt(receipt.as_deref());
        self.request_unanswered(Request::Disconnect { will: WillFate::Discard, session_expiry: None });
        self.close(CloseReason::normal(), DataLane::Drain);
    }

    fn request(&mut self, request: Request, pending: Pending) {
        let token = self.token();
        self.pending.push_back((token, pending));
        self.outputs.push_back(Output::Request(token, request));
    }

    fn request_unanswered(&mut self, request: Request) {
        let token = self.token();
        self.outputs.push_back(Output::Request(token, request));
    }

    const fn token(&mut self) -> Token {
        self.next_token = self.next_token.wrapping_add(1);
        Token(self.next_token)
    }

    fn send_receipt(&mut self, receipt: Option<&str>) {
        let (Some(receipt), Some(version)) = (receipt, self.state.version()) else { return };
        let mut out = BytesMut::new();
        Frame::new(Command::Receipt).with_header("receipt-id", receipt).encode(version, &mut out);
        self.send(out.freeze());
    }

    fn send(&mut self, bytes: Bytes) {
        let kind = match self.settings.frames {
            FrameKind::Auto | FrameKind::Text => MessageKind::Text,
            FrameKind::Binary => MessageKind::Binary,
        };
        self.outputs.push_back(Output::Send(Outgoing::new(kind, bytes)));
        self.heart_beats.sent(self.now);
    }

    /// SEC-13: always ERROR, then the close.
    fn fail(&mut self, error: &SessionError, offender: &Offender) {
        let frame = error.encode(offender, self.state.version());
        self.send(frame.freeze());
        self.close(error.close_reason(), DataLane::Abort);
    }

    fn close(&mut self, reason: CloseReason, lane: DataLane) {
        self.outputs.push_back(Output::Close(reason, lane));
        self.state = State::Closed;
        self.buffer = BytesMut::new();
        self.pending = VecDeque::new();
        self.transactions = Transactions::default();
    }
}

impl State {
    /// The version, once it is settled and the client knows it.
    const fn version(&self) -> Option<Version> {
        match self {
            Self::Ready(version) | Self::Leaving { version, .. } => Some(*version),
            Self::AwaitConnect { .. } | Self::Connecting(_) | Self::Closed => None,
        }
    }
}

fn receipt(frame: &Frame) -> Option<Box<str>> {
    frame.header("receipt").map(Into::into)
}

fn check_granted(results: Vec<Result<Granted, Refusal>>) -> Result<(), SessionError> {
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(refusal)) => Err(refusal.into()),
        None => Err(SessionError::ReplyMismatch),
    }
}

fn limits(settings: &Settings, frame_bytes_max: usize) -> Limits {
    Limits {
        headers_max: settings.max_headers,
        head_bytes_max: settings.max_header_bytes,
        body_bytes_max: settings.max_body,
        frame_bytes_max,
    }
}

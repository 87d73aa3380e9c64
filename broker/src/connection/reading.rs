//! Reading: bytes to events to the session, with a brake. What follows a Close is discarded.

use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, BytesMut};
use tidegate_protocol::session::{CloseKind, CloseReason, DataLane, Reading};
use tidegate_protocol::websocket::{CloseCode, CloseFrame, Event, ReceiveError, frame};
use tokio::io::AsyncReadExt as _;

use super::{CONTROL_BYTES_MAX, Connection, Lane, PONG_BYTES_MAX, Phase, READS_MAX, buffer};
use crate::broker::Now;
use crate::metrics::Ended;

impl Connection {
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, now: Now) -> bool {
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
    pub(super) fn may_read(&mut self, now: Now) -> bool {
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
            && !self.is_parting()
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
        match &mut self.phase {
            // The answer can be read in the same turn in which our Close was written.
            Phase::Closing { is_answered, .. } => *is_answered = true,
            phase => *phase = Phase::Done,
        }
    }

    pub(super) fn decode(&mut self, buffer: &mut BytesMut, now: Now) {
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
                self.broker.metrics().family(self.family).websocket_messages_in.inc();
                self.pulse.handle_message(&self.settings, now.instant);
                self.session.handle_message(message, now.instant);
                self.drain(&mut Lane::Control, now);
            }
            Event::Ping(payload) => self.answer_ping(&payload),
            Event::Pong(_) => self.session.handle_pong(now.instant),
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
}

fn close_reason(error: &ReceiveError) -> CloseReason {
    let kind = match error.close_code() {
        CloseCode::Invalid => CloseKind::InvalidUtf8,
        CloseCode::Size => CloseKind::TooBig,
        _ => CloseKind::ProtocolError,
    };
    CloseReason::new(kind, error.to_string())
}

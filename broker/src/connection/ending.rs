//! The end of a connection: the session's last words, our Close, and the wait for the peer's.

use std::time::Instant;

use bytes::Bytes;
use socket2::SockRef;
use tidegate_protocol::session::{CloseKind, CloseReason, DataLane, DropReason};
use tidegate_protocol::websocket::{CloseCode, frame};
use tracing::info;

use super::{Connection, LINGER_BYTES_MAX, Phase, buffer, flush_all};
use crate::broker::Now;
use crate::metrics::Ended;

impl Connection {
    /// Ends the connection for a reason of the WebSocket layer; the session says it in its own words first.
    pub(super) fn end(&mut self, kind: CloseKind, detail: &'static str, now: Now) {
        let reason = CloseReason::new(kind, detail);
        self.close_by_order(reason, now);
    }

    pub(super) fn close(&mut self, reason: &CloseReason, data: DataLane, now: Now) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        self.broker.metrics().disconnects.inc(Ended::Closed(reason.kind));
        if reason.kind != CloseKind::Normal {
            info!(client = ?self.client.name(), peer = %self.peer.ip, kind = ?reason.kind, reason = %reason.detail.escape_debug(), "connection closed by the broker");
        }
        let frame = frame::close(CloseCode::from(reason.kind.code()), &reason.detail, None);
        self.close_with(frame, data, now);
    }

    pub(super) fn close_with(&mut self, frame: Bytes, data: DataLane, now: Now) {
        self.give_up_brake(now);
        self.drop_pending();
        let lost = self.outbox.close(frame, data);
        self.broker.metrics().dropped(DropReason::Closed, lost as u64);
        let deadline = now.instant + self.settings.close_timeout;
        self.phase = Phase::Closing { deadline, is_answered: false };
    }

    /// Writes what this task has pushed, and its own answers.
    pub(super) fn flush(&mut self, now: Now) {
        if let Some(mut batch) = self.batch.take() {
            flush_all(&mut batch, now.instant);
            buffer::give_back_batch(batch);
        }
        self.flush_own(now);
    }

    /// A blocked socket says itself when it takes more; a flush before that would only signal this task again.
    pub(super) fn flush_own(&self, now: Now) {
        if self.outbox.blocked_since().is_none() {
            self.outbox.flush(now.instant);
        }
    }

    /// A peer that never answers our Close must not hold its will back: a newer connection with the same id may
    /// have published its own state by then. Does nothing the second time.
    pub(super) fn leave_when_closing(&mut self, now: Now) {
        if matches!(self.phase, Phase::Closing { .. }) && self.outbox.has_ended() {
            let batch = self.batch.get_or_insert_default();
            self.broker.leave(&mut self.client, now, batch);
            batch.flush(now.instant);
        }
    }

    pub(super) fn advance_close(&mut self, now: Instant) {
        if !self.outbox.has_ended() {
            return;
        }
        match self.phase {
            // The socket failed.
            Phase::Open => self.phase = Phase::Done,
            Phase::Closing { is_answered, .. } => {
                // The peer sees the end of our side at once; an error means that it is gone already.
                let _ = SockRef::from(self.read.as_ref()).shutdown(std::net::Shutdown::Write);
                let deadline = now + self.settings.close_timeout;
                let lingering = Phase::Lingering { deadline, bytes_left: LINGER_BYTES_MAX };
                self.phase = if is_answered { Phase::Done } else { lingering };
            }
            Phase::Lingering { .. } | Phase::Done => {}
        }
    }
}

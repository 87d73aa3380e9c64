//! Frames of one client alone: its answers, and what its session has encoded. Absent while it is sent nothing but
//! shared frames.

use std::collections::VecDeque;

use bytes::Bytes;

/// A complete WebSocket frame of this client: its front and, when that is shared with others, a body behind it.
/// Nothing ever comes between the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Header and head, or the whole frame.
    pub front: Bytes,
    /// The shared rest.
    pub body: Option<Bytes>,
}

impl From<Bytes> for Frame {
    fn from(front: Bytes) -> Self {
        Self { front, body: None }
    }
}

impl From<(Bytes, Option<Bytes>)> for Frame {
    fn from((front, body): (Bytes, Option<Bytes>)) -> Self {
        Self { front, body }
    }
}

impl Frame {
    pub(crate) fn len(&self) -> usize {
        self.front.len() + self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// Frames in order, counted in bytes.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Acks and other answers.
    control: VecDeque<Frame>,
    /// The newest unsent pong (RFC 6455 §5.5.3).
    pong: Option<Bytes>,
    control_bytes: usize,
    /// Deliveries that the session has encoded; can be neither dropped nor overtaken.
    encoded: VecDeque<Frame>,
    encoded_bytes: usize,
}

impl Own {
    pub(crate) fn push_control(&mut self, frame: Frame) {
        self.control_bytes += frame.len();
        self.control.push_back(frame);
    }

    pub(crate) fn set_pong(&mut self, frame: Bytes) {
        self.control_bytes += frame.len();
        if let Some(old) = self.pong.replace(frame) {
            self.control_bytes -= old.len();
        }
    }

    /// Makes room for so many encoded frames at once.
    pub(crate) fn reserve_encoded(&mut self, count: usize) {
        self.encoded.reserve(count);
    }

    pub(crate) fn push_encoded(&mut self, frame: Frame) {
        self.encoded_bytes += frame.len();
        self.encoded.push_back(frame);
    }

    pub(crate) fn pop_control(&mut self) -> Option<Frame> {
        let frame = self.control.pop_front().or_else(|| self.pong.take().map(Frame::from))?;
        self.control_bytes -= frame.len();
        Some(frame)
    }

    pub(crate) fn pop_encoded(&mut self) -> Option<Frame> {
        let frame = self.encoded.pop_front()?;
        self.encoded_bytes -= frame.len();
        Some(frame)
    }

    pub(crate) fn clear_encoded(&mut self) {
        self.encoded = VecDeque::new();
        self.encoded_bytes = 0;
    }

    pub(crate) fn control_bytes(&self) -> usize {
        self.control_bytes
    }

    pub(crate) fn encoded_bytes(&self) -> usize {
        self.encoded_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.pong.is_none() && self.encoded.is_empty()
    }
}

//! What the session made of taken deliveries. Small messages share one buffer: a batch costs one allocation and one
//! place in the queue, not one for each message.

use bytes::{Bytes, BytesMut};
use tidegate_protocol::session::{Outgoing, Stamped};
use tidegate_protocol::websocket::prepared::Deflating;

use crate::outbox::queue::Frame;

/// Frames in order. Kept by a worker thread; empty between two batches.
#[derive(Default)]
pub(super) struct Encoded {
    frames: Vec<Frame>,
    joined: BytesMut,
    messages: u64,
}

/// A buffer that is longer gets no more.
const JOINED_BYTES_MAX: usize = 16 * 1024;

impl Encoded {
    pub(super) fn push(&mut self, message: Outgoing, deflating: Option<&Deflating>) {
        let body = message.put_frame(deflating, &mut self.joined);
        self.end_message(body);
    }

    pub(super) fn push_stamped(&mut self, message: Stamped, deflating: Option<&Deflating>) {
        match deflating.filter(|deflating| message.len() >= deflating.min_size) {
            None => {
                message.put_frame(&mut self.joined);
                self.end_message(None);
            }
            deflating => self.push(message.into_outgoing(), deflating),
        }
    }

    /// A frame that is complete already.
    pub(super) fn push_frame(&mut self, frame: Bytes) {
        self.seal(None);
        self.frames.push(frame.into());
        self.messages += 1;
    }

    /// The frames, for [`crate::outbox::Outbox::put_back`], and the number of messages in them since the last call.
    pub(super) fn take(&mut self) -> (&mut Vec<Frame>, u64) {
        self.seal(None);
        (&mut self.frames, std::mem::take(&mut self.messages))
    }

    fn end_message(&mut self, body: Option<Bytes>) {
        self.messages += 1;
        if body.is_some() || self.joined.len() > JOINED_BYTES_MAX {
            self.seal(body);
        }
    }

    /// Copied, so that what a slow client has queued is no larger than it says.
    fn seal(&mut self, body: Option<Bytes>) {
        if !self.joined.is_empty() {
            self.frames.push(Frame { front: Bytes::copy_from_slice(&self.joined), body });
            self.joined.clear();
        }
    }
}

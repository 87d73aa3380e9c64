//! Finds packets in WebSocket messages: they may straddle messages or share one [MQTT-6.0.0-2].
//!
//! Whole packets are slices of their message; only one that straddles is copied, as far as it is there. So
//! nothing is allocated on a claimed length, and an idle session keeps no buffer.

use bytes::{Bytes, BytesMut};

use super::codec::{Codec, DecodeError};
use super::packet::Packet;

/// Bytes that were received and not decoded.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The beginning of a packet from earlier messages.
    partial: BytesMut,
    /// What is left of the current message.
    rest: Bytes,
}

impl Input {
    /// A message. Usually the one before has been used up; what a brake left of it stays in front.
    pub(super) fn push(&mut self, message: Bytes) {
        if self.rest.is_empty() {
            self.rest = message;
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut self.rest));
            joined.extend_from_slice(&message);
            self.rest = joined.freeze();
        }
    }

    /// Whether the current message has been used up.
    pub(super) fn is_drained(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next whole packet.
    pub(super) fn next(&mut self, codec: &mut Codec) -> Result<Option<Packet>, DecodeError> {
        if self.partial.is_empty() {
            return match codec.frame_len(&self.rest)? {
                Some(len) if len == self.rest.len() => {
                    codec.decode_frame(&std::mem::take(&mut self.rest)).map(Some)
                }
                Some(len) if len < self.rest.len() => codec.decode_frame(&self.rest.split_to(len)).map(Some),
                _ => {
                    self.partial.extend_from_slice(&std::mem::take(&mut self.rest));
                    Ok(None)
                }
            };
        }
        // Byte by byte until the length is known, then as many as are missing and not one more.
        while !self.rest.is_empty() {
            let missing = match codec.frame_len(&self.partial)? {
                Some(len) => len - self.partial.len(),
                None => 1,
            };
            let taken = self.rest.split_to(missing.min(self.rest.len()));
            self.partial.extend_from_slice(&taken);
            if codec.frame_len(&self.partial)? == Some(self.partial.len()) {
                if self.rest.is_empty() {
                    self.rest = Bytes::new();
                }
                let frame = std::mem::take(&mut self.partial).freeze();
                return codec.decode_frame(&frame).map(Some);
            }
        }
        self.rest = Bytes::new();
        Ok(None)
    }
}

//! A shared form for receivers whose messages differ in a few bytes: it is copied and stamped, not encoded anew.
//!
//! Knows no protocol; a session says where the bytes stand.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::publication::{Form, Publication};
use crate::session::Tag;
use crate::websocket::prepared::Outgoing;

/// A shared form of a publication in which one receiver's message differs by its first byte and its packet id.
#[derive(Debug)]
pub struct Stamped {
    /// Whose form.
    pub publication: Arc<Publication>,
    /// Ends with the payload, and is the same for all receivers but for what follows.
    pub form: &'static Form,
    /// The delivery.
    pub tag: Tag,
    /// The first byte of the message.
    pub first: u8,
    /// The delivery's id on this link. Stands in two bytes, the higher one first.
    pub packet_id: u16,
    /// Where, counted from the beginning of the message.
    pub packet_id_at: u32,
}

impl Stamped {
    /// Bytes of the message, without its frame header.
    #[must_use]
    pub fn len(&self) -> usize {
        self.publication.prepared(self.form).message().len()
    }

    /// Whether the message has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the uncompressed frame.
    pub fn put_frame(&self, out: &mut BytesMut) {
        let prepared = self.publication.prepared(self.form);
        let start = out.len() + prepared.frame().len() - prepared.message().len();
        out.put_slice(prepared.frame());
        self.stamp(out.get_mut(start..).unwrap_or_default());
    }

    /// The same message as a head of this receiver and the shared payload: what compression needs.
    #[must_use]
    pub fn into_outgoing(self) -> Outgoing {
        let prepared = self.publication.prepared(self.form);
        let head_len = prepared.message().len().saturating_sub(self.publication.payload.len());
        let mut head = BytesMut::from(prepared.message().get(..head_len).unwrap_or_default());
        self.stamp(&mut head);
        Outgoing {
            kind: prepared.kind(),
            head: head.freeze(),
            body: self.publication.payload_body().cloned(),
        }
    }

    fn stamp(&self, message: &mut [u8]) {
        if let Some(first) = message.first_mut() {
            *first = self.first;
        }
        let at = usize::try_from(self.packet_id_at).unwrap_or(usize::MAX);
        if let Some(packet_id) = message.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
            *packet_id = self.packet_id.to_be_bytes();
        }
    }
}

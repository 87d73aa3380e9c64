//! Messages on their way out: encoded once and deflated once for all receivers, or a head of one's own with a
//! shared body.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use super::MessageKind;

/// A complete, unmasked WebSocket message in one frame, and its compressed twin, made at most once.
#[derive(Debug)]
pub struct Prepared {
    frame: Bytes,
    header_len: u8,
    compressed: OnceLock<Option<Bytes>>,
}

/// The part of a message that is equal for all receivers, and the same bytes deflated, made at most once.
#[derive(Debug)]
pub struct Body {
    bytes: Bytes,
    deflated: OnceLock<Option<Bytes>>,
}

/// One message of a session: a head of this client's own, and perhaps a shared body behind it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Text or binary.
    pub kind: MessageKind,
    /// Bytes for this client alone.
    pub head: Bytes,
    /// Bytes that others get too.
    pub body: Option<Arc<Body>>,
}

/// How a connection compresses what it sends: the outcome of the negotiation and the operator's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflating {
    /// `server_max_window_bits` (as client: `client_max_window_bits`), 8–15.
    pub window_bits: u8,
    /// zlib's level, 1–9.
    pub level: u8,
    /// Messages below this many bytes go uncompressed.
    pub min_size: usize,
}

impl Prepared {
    /// Frames `parts`, one behind the other, as one message. One allocation.
    #[must_use]
    pub fn new(kind: MessageKind, parts: &[&[u8]]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut frame = BytesMut::with_capacity(len + 10);
        put_header(&mut frame, kind, false, len);
        let header_len = u8::try_from(frame.len()).unwrap_or(10);
        for part in parts {
            frame.put_slice(part);
        }
        Self { frame: frame.freeze(), header_len, compressed: OnceLock::new() }
    }

    /// The uncompressed frame.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The bytes for one connection: compressed when it negotiated that and it pays.
    #[must_use]
    pub fn bytes(&self, deflating: Option<&Deflating>) -> &Bytes {
        let _ = (deflating, self.header_len, &self.compressed);
        &self.frame
    }
}

impl Body {
    /// A body of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, deflated: OnceLock::new() }
    }

    /// The uncompressed bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        let _ = &self.deflated;
        &self.bytes
    }
}

impl Outgoing {
    /// A message without a shared part.
    #[must_use]
    pub fn new(kind: MessageKind, head: impl Into<Bytes>) -> Self {
        Self { kind, head: head.into(), body: None }
    }

    /// Bytes of the message, without its frame header, uncompressed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.as_ref().map_or(0, |body| body.bytes.len())
    }

    /// Whether the message has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame: header and head (and a small body with them), then a large body as a slice of its own.
    #[must_use]
    pub fn into_frame(self, deflating: Option<&Deflating>) -> (Bytes, Option<Bytes>) {
        let _ = deflating;
        let len = self.len();
        let mut frame = BytesMut::with_capacity(self.head.len() + 10);
        put_header(&mut frame, self.kind, false, len);
        frame.put_slice(&self.head);
        (frame.freeze(), self.body.map(|body| body.bytes.clone()))
    }
}

fn put_header(out: &mut BytesMut, kind: MessageKind, rsv1: bool, len: usize) {
    let opcode = match kind {
        MessageKind::Text => 1,
        MessageKind::Binary => 2,
    };
    out.put_u8(0x80 | if rsv1 { 0x40 } else { 0 } | opcode);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
}

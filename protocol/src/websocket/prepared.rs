//! Messages on their way out: encoded once and deflated once for all receivers, or a head of one's own with a
//! shared body. Knows no window but the message itself: a distance in DEFLATE never exceeds the bytes before
//! it, so one compression of a message of up to 2^W bytes serves every receiver with a window of W bits or more.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use super::MessageKind;
use super::deflate::deflate_alone;
use super::frame::{Mask, apply_mask, data_byte, frame, header_len, put_header};

/// A complete, unmasked WebSocket message in one frame, and its compressed twin, made at most once.
#[derive(Debug)]
pub struct Prepared {
    frame: Bytes,
    header_len: u8,
    compressed: OnceLock<Option<Bytes>>,
}

/// One message of a receiver's own head and a [`Prepared`] behind it, about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Headed<'a> {
    /// The frame's header, and that of a stored block.
    front: [u8; FRONT_BYTES_MAX],
    front_len: usize,
    head: &'a [u8],
    /// The frame of the prepared part, which begins with a header of its own.
    frame: &'a Bytes,
    tail_at: usize,
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

impl Deflating {
    /// Whether so many bytes, compressed by themselves, pay and fit the receiver's window.
    const fn suits(&self, len: usize) -> bool {
        len >= self.min_size && (self.window_bits >= 15 || len <= 1 << self.window_bits)
    }
}

impl Prepared {
    /// Frames `parts`, one behind the other, as one message. One allocation.
    #[must_use]
    pub fn new(kind: MessageKind, parts: &[&[u8]]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        let frame = frame(data_byte(kind, false), len, parts);
        let header_len = u8::try_from(header_len(len)).unwrap_or(u8::MAX);
        Self { frame, header_len, compressed: OnceLock::new() }
    }

    /// The uncompressed frame.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The message in the frame, uncompressed.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.frame.get(usize::from(self.header_len)..).unwrap_or_default()
    }

    /// Text or binary.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        let is_text = self.frame.first() == Some(&data_byte(MessageKind::Text, false));
        if is_text { MessageKind::Text } else { MessageKind::Binary }
    }

    /// Bytes that are held for it: the frame, and the compressed one if it was made.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.frame.len() + self.compressed.get().and_then(Option::as_ref).map_or(0, Bytes::len)
    }

    /// The bytes for one connection: compressed when it negotiated that and it pays.
    #[must_use]
    pub fn bytes(&self, deflating: Option<&Deflating>) -> &Bytes {
        let Some(deflating) = deflating.filter(|deflating| deflating.suits(self.message().len())) else {
            return &self.frame;
        };
        self.compressed(deflating).unwrap_or(&self.frame)
    }

    /// The message behind the head of one receiver. Copies nothing, and compresses what is shared but the first time; the
    /// head goes uncompressed.
    #[must_use]
    pub fn behind<'a>(&'a self, head: &'a [u8], deflating: Option<&Deflating>) -> Headed<'a> {
        let deflating = deflating.filter(|deflating| deflating.suits(self.message().len()));
        if let Some(stored) = stored_header(head.len())
            && let Some(frame) = deflating.and_then(|deflating| self.compressed(deflating))
            && let Some(tail_at) = unmasked_header_len(frame)
            // The head costs five bytes more in a stored block.
            && frame.len() - tail_at + STORED_OVERHEAD < self.message().len()
        {
            let stored: &[u8] = if head.is_empty() { &[] } else { &stored };
            return Headed::new(data_byte(self.kind(), true), stored, head, frame, tail_at);
        }
        let tail_at = usize::from(self.header_len);
        Headed::new(data_byte(self.kind(), false), &[], head, &self.frame, tail_at)
    }

    /// The whole frame, compressed; `None` when that is not worth it.
    fn compressed(&self, deflating: &Deflating) -> Option<&Bytes> {
        let compressed = self.compressed.get_or_init(|| {
            let first = data_byte(self.kind(), true);
            deflate_alone(self.message(), deflating.level, |deflated| {
                frame(first, deflated.len(), &[deflated])
            })
        });
        compressed.as_ref()
    }
}

impl<'a> Headed<'a> {
    fn new(first: u8, stored: &[u8], head: &'a [u8], frame: &'a Bytes, tail_at: usize) -> Self {
        let mut front = [0; FRONT_BYTES_MAX];
        let mut out = &mut front[..];
        put_header(&mut out, first, stored.len() + head.len() + frame.len().saturating_sub(tail_at), None);
        out.put_slice(stored);
        let front_len = FRONT_BYTES_MAX - out.len();
        Self { front, front_len, head, frame, tail_at }
    }

    /// All bytes of the frame, in order: what goes before the head, the head, what all share.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 3] {
        let front = self.front.get(..self.front_len).unwrap_or_default();
        [front, self.head, self.frame.get(self.tail_at..).unwrap_or_default()]
    }

    /// Bytes of the frame.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.front_len + self.head.len() + self.frame.len().saturating_sub(self.tail_at)
    }

    /// The last part, to keep.
    #[must_use]
    pub fn tail(&self) -> Bytes {
        self.frame.slice(self.tail_at.min(self.frame.len())..)
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
        &self.bytes
    }

    /// The bytes compressed by themselves, to follow any blocks; `None` when that is not worth it.
    fn deflated(&self, deflating: &Deflating) -> Option<&Bytes> {
        if !deflating.suits(self.bytes.len()) {
            return None;
        }
        let make = || deflate_alone(&self.bytes, deflating.level, Bytes::copy_from_slice);
        // The head costs five bytes more in a stored block.
        let deflated = self.deflated.get_or_init(make).as_ref();
        deflated.filter(|deflated| deflated.len() + STORED_OVERHEAD < self.bytes.len())
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

    /// The frame: header and head (and a small body with them), then a large body as a slice of its own. One
    /// allocation, and no compression of what is shared but the first time.
    #[must_use]
    pub fn into_frame(self, deflating: Option<&Deflating>) -> (Bytes, Option<Bytes>) {
        let compressed = deflating.and_then(|deflating| self.compressed(deflating));
        compressed.unwrap_or_else(|| {
            let body = self.body.as_ref().map(|body| &body.bytes);
            join(data_byte(self.kind, false), &[&self.head], body)
        })
    }

    /// Appends the frame to others, but for a large body, which is returned: it goes right behind.
    #[must_use]
    pub fn put_frame(&self, deflating: Option<&Deflating>, out: &mut BytesMut) -> Option<Bytes> {
        match deflating.and_then(|deflating| self.compressed(deflating)) {
            Some((front, body)) => {
                out.put_slice(&front);
                body
            }
            None => {
                let body = self.body.as_ref().map(|body| &body.bytes);
                put_joined(out, data_byte(self.kind, false), &[&self.head], body)
            }
        }
    }

    /// The frame as a client sends it: in one piece and masked.
    #[must_use]
    pub fn into_masked_frame(self, deflating: Option<&Deflating>, mask: Mask) -> Bytes {
        let (front, rest) = self.into_frame(deflating);
        let rest = rest.unwrap_or_default();
        let total = front.len() + rest.len();
        let Some((first, message_at)) = front.first().zip(unmasked_header_len(&front)) else { return front };
        let (head, len) = (front.get(message_at..).unwrap_or_default(), total - message_at);
        let mut out = BytesMut::with_capacity(total + mask.len());
        put_header(&mut out, *first, len, Some(mask));
        let start = out.len();
        out.put_slice(head);
        out.put_slice(&rest);
        apply_mask(out.get_mut(start..).unwrap_or_default(), mask, 0);
        out.freeze()
    }

    fn compressed(&self, deflating: &Deflating) -> Option<(Bytes, Option<Bytes>)> {
        let first = data_byte(self.kind, true);
        let Some(body) = &self.body else {
            if !deflating.suits(self.head.len()) {
                return None;
            }
            let build = |deflated: &[u8]| (frame(first, deflated.len(), &[deflated]), None);
            return deflate_alone(&self.head, deflating.level, build);
        };
        let deflated = body.deflated(deflating)?;
        if self.head.is_empty() {
            return Some(join(first, &[], Some(deflated)));
        }
        let stored = stored_header(self.head.len())?;
        Some(join(first, &[&stored, &self.head], Some(deflated)))
    }
}

/// A frame of `parts` and a shared part, which is joined to them if it is small.
fn join(first: u8, parts: &[&[u8]], shared: Option<&Bytes>) -> (Bytes, Option<Bytes>) {
    let mut frame = BytesMut::new();
    let rest = put_joined(&mut frame, first, parts, shared);
    (frame.freeze(), rest)
}

/// Appends such a frame. Gives the shared part if that is to follow.
fn put_joined(out: &mut BytesMut, first: u8, parts: &[&[u8]], shared: Option<&Bytes>) -> Option<Bytes> {
    let own_len = parts.iter().map(|part| part.len()).sum::<usize>();
    let shared_len = shared.map_or(0, Bytes::len);
    let len = own_len + shared_len;
    let joined = shared.filter(|_| shared_len <= JOINED_BYTES_MAX);
    out.reserve(header_len(len) + own_len + joined.map_or(0, Bytes::len));
    put_header(out, first, len, None);
    for part in parts.iter().copied().chain(joined.map(|joined| &joined[..])) {
        out.put_slice(part);
    }
    shared.filter(|_| joined.is_none()).cloned()
}

/// What goes before a head that is not compressed, RFC 1951 §3.2.4: 00 LEN NLEN. A longer head would need several blocks,
/// and no protocol has one.
fn stored_header(len: usize) -> Option<[u8; STORED_OVERHEAD]> {
    let len = u16::try_from(len).ok()?;
    let [low, high] = len.to_le_bytes();
    let [not_low, not_high] = (!len).to_le_bytes();
    Some([0, low, high, not_low, not_high])
}

/// Where the message begins in an unmasked frame.
fn unmasked_header_len(frame: &[u8]) -> Option<usize> {
    Some(match frame.get(1)? {
        126 => 4,
        127 => 10,
        _ => 2,
    })
}

/// A small body is copied behind its head: that costs less than a further slice in the system call.
const JOINED_BYTES_MAX: usize = 1024;

/// The header of a stored block.
const STORED_OVERHEAD: usize = 5;

/// The longest frame header without a mask, and the header of a stored block.
const FRONT_BYTES_MAX: usize = 10 + STORED_OVERHEAD;

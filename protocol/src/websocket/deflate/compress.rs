//! Compressing: one message by itself with a compressor of the thread, or one after the other with a
//! connection's own. Spec: RFC 7692 §7.2.1.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};

use super::{EMPTY_BLOCK, TAKEOVER_WINDOW_BITS_MIN, WINDOW_BITS_MAX, totals};
use crate::websocket::MessageKind;
use crate::websocket::frame::{data_byte, frame};
use crate::websocket::prepared::{Outgoing, Prepared};

/// A connection's own compressor, for context takeover. It owns some 300 KiB. Frames must reach the peer in the
/// order in which they were made here, and all of them must.
#[derive(Debug)]
pub struct TakeoverDeflater {
    stream: Box<Compress>,
    min_size: usize,
    /// zlib failed once. What it would make cannot be trusted any more, and RSV1 = 0 is always allowed.
    is_broken: bool,
}

impl TakeoverDeflater {
    pub(super) fn new(window_bits: u8, level: u8, min_size: usize) -> Self {
        let window_bits = window_bits.clamp(TAKEOVER_WINDOW_BITS_MIN, WINDOW_BITS_MAX);
        let stream = Compress::new_with_window_bits(compression(level), false, window_bits);
        Self { stream: Box::new(stream), min_size, is_broken: false }
    }

    /// The frame of a session's message. One allocation.
    pub fn frame(&mut self, outgoing: &Outgoing) -> Bytes {
        let body = outgoing.body.as_deref().map(|body| &**body.bytes()).unwrap_or_default();
        self.frame_of(outgoing.kind, &[&outgoing.head, body])
    }

    /// The frame of a shared message. A short one costs nothing, the others an allocation.
    pub fn prepared_frame(&mut self, prepared: &Prepared) -> Bytes {
        if prepared.message().len() < self.min_size {
            return prepared.frame().clone();
        }
        self.frame_of(prepared.kind(), &[prepared.message()])
    }

    /// The frame of a message given in parts. Sent compressed even if that did not make it smaller: the window
    /// has moved on, and the peer's has to follow.
    pub fn frame_of(&mut self, kind: MessageKind, parts: &[&[u8]]) -> Bytes {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        // An empty message after a flush makes zlib flush nothing.
        if len < self.min_size.max(1) || self.is_broken {
            return frame(data_byte(kind, false), len, parts);
        }
        SCRATCH.with_borrow_mut(|scratch| match scratch.fill(&mut self.stream, parts, len) {
            Some(deflated) => frame(data_byte(kind, true), deflated.len(), &[deflated]),
            None => {
                self.is_broken = true;
                frame(data_byte(kind, false), len, parts)
            }
        })
    }
}

/// Compresses `message` by itself and gives the result to `build`. `None` when it is not shorter than the
/// message. Allocates nothing once the thread has its compressor.
pub(in crate::websocket) fn deflate_alone<T>(
    message: &[u8],
    level: u8,
    build: impl FnOnce(&[u8]) -> T,
) -> Option<T> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let pooled = slot.take().filter(|pooled| pooled.level == level);
        let pooled = slot.insert(pooled.unwrap_or_else(|| Pooled::new(level)));
        pooled.stream.reset();
        SCRATCH.with_borrow_mut(|scratch| {
            let deflated = scratch.fill(&mut pooled.stream, &[message], message.len())?;
            (deflated.len() < message.len()).then(|| build(deflated))
        })
    })
}

fn compression(level: u8) -> Compression {
    Compression::new(u32::from(level.clamp(1, 9)))
}

/// The thread's compressor, with a window of 15 bits.
struct Pooled {
    level: u8,
    stream: Compress,
}

impl Pooled {
    fn new(level: u8) -> Self {
        Self { level, stream: Compress::new(compression(level), false) }
    }
}

/// Where compressed bytes stand until their length is known. It is kept initialised, since the zlib-rs backend
/// zeroes the spare capacity of a `Vec` at each call.
struct Scratch {
    bytes: Vec<u8>,
}

impl Scratch {
    /// Compresses `parts` up to a sync flush and omits the empty block at its end (RFC 7692 §7.2.1).
    fn fill(&mut self, stream: &mut Compress, parts: &[&[u8]], len: usize) -> Option<&[u8]> {
        if self.bytes.len() > SCRATCH_KEPT_BYTES && len < SCRATCH_KEPT_BYTES / 2 {
            self.bytes = Vec::new();
        }
        // Enough for any level, also when nothing is to be gained, so that one call does it.
        let bound = len + len / 8 + 64;
        if self.bytes.len() < bound {
            self.bytes.resize(bound, 0);
        }
        let mut end = 0;
        for part in parts {
            end = self.compress(stream, part, end, FlushCompress::None)?;
        }
        end = self.compress(stream, &[], end, FlushCompress::Sync)?;
        let deflated = self.bytes.get(..end)?.strip_suffix(&EMPTY_BLOCK)?;
        totals::add_compressed(len, deflated.len());
        Some(deflated)
    }

    fn compress(
        &mut self,
        stream: &mut Compress,
        mut input: &[u8],
        mut end: usize,
        flush: FlushCompress,
    ) -> Option<usize> {
        loop {
            let room = self.bytes.get_mut(end..)?;
            let (total_in, total_out) = (stream.total_in(), stream.total_out());
            stream.compress(input, room, flush).ok()?;
            let taken = usize::try_from(stream.total_in() - total_in).ok()?;
            let made = usize::try_from(stream.total_out() - total_out).ok()?;
            input = input.get(taken..)?;
            let is_full = made == room.len();
            end += made;
            if input.is_empty() && !is_full {
                return Some(end);
            }
            if !is_full && taken == 0 {
                return None;
            }
            if is_full {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
    }
}

/// What the scratch buffer of a thread may keep after a long message.
const SCRATCH_KEPT_BYTES: usize = 256 * 1024;

thread_local! {
    static COMPRESSOR: RefCell<Option<Pooled>> = const { RefCell::new(None) };
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { bytes: Vec::new() }) };
}

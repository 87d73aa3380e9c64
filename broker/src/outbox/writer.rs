//! The write side of one socket: frames in, one `writev`, the rest kept for later.
//!
//! A frame that has entered here is written whole before anything else.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tidegate_protocol::websocket::prepared::{Deflating, Headed};

use super::queue::Taken;
use super::sync::thread_local;

/// What the writer needs of a socket; never waits.
pub trait Socket: Send + Sync {
    /// Writes some of `slices`, or says `WouldBlock`.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Socket for tokio::net::TcpStream {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [single] => self.try_write(single),
            several => Self::try_write_vectored(self, several),
        }
    }
}

/// How frames are gathered (`[websocket]`, `[queue]`).
#[derive(Clone, Copy, Debug)]
pub struct WriteLimits {
    /// Small frames are copied into one buffer of up to this size.
    pub coalesce_bytes: usize,
    /// Bytes that leave the queue for one write; these can be dropped no more.
    pub batch_bytes: usize,
}

/// The write side. Owns nothing while idle but a reference to the socket.
pub(crate) struct Writer {
    socket: Option<Arc<dyn Socket>>,
    deflating: Option<Box<Deflating>>,
    leftover: VecDeque<Bytes>,
    has_close: bool,
    written_bytes: u64,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Everything left.
    All,
    /// Some of it; the rest is kept.
    Some,
    /// Nothing; it is kept.
    Blocked,
    /// The socket is gone.
    Failed,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("leftover", &self.leftover.len()).finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn new(socket: Arc<dyn Socket>, deflating: Option<Deflating>) -> Self {
        Self {
            socket: Some(socket),
            deflating: deflating.map(Box::new),
            leftover: VecDeque::new(),
            has_close: false,
            written_bytes: 0,
        }
    }

    /// Lets go of the socket; nothing is written after that.
    pub(crate) fn detach(&mut self) {
        self.socket = None;
        self.leftover = VecDeque::new();
    }

    /// Whether the Close frame has been taken on.
    pub(crate) fn has_close(&self) -> bool {
        self.has_close
    }

    /// Whether frames are kept that have begun, or wait behind such a one.
    pub(crate) fn has_leftover(&self) -> bool {
        !self.leftover.is_empty()
    }

    /// Bytes that the socket took since the last call.
    pub(crate) fn take_written_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.written_bytes)
    }

    /// Goes on with what is kept.
    pub(crate) fn write_leftover(&mut self) -> Written {
        let Some(socket) = &self.socket else { return Written::Failed };
        let mut progress = false;
        while !self.leftover.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = fill(&mut slices, self.leftover.iter().map(|bytes| &**bytes));
            match write_some(&**socket, slices.get(..count).unwrap_or_default()) {
                Ok(Some(len)) => {
                    progress = true;
                    self.written_bytes += len as u64;
                    advance(&mut self.leftover, len);
                }
                Ok(None) if progress => return Written::Some,
                Ok(None) => return Written::Blocked,
                Err(_gone) => return Written::Failed,
            }
        }
        self.leftover = VecDeque::new();
        Written::All
    }

    /// Writes what was taken from the queue, in order. Empties `taken`.
    pub(crate) fn write(&mut self, taken: &mut Vec<Taken>, limits: &WriteLimits) -> Written {
        let mut scratch = SCRATCH.with(RefCell::take);
        for frame in taken.drain(..) {
            scratch.add(&frame, self.deflating.as_deref(), limits);
            self.has_close |= matches!(frame, Taken::Close(_));
        }
        let written = self.write_scratch(&scratch);
        scratch.clear();
        SCRATCH.with(|kept| kept.replace(scratch));
        written
    }

    fn write_scratch(&mut self, scratch: &Scratch) -> Written {
        let Some(socket) = &self.socket else { return Written::Failed };
        let mut done = 0;
        let mut result = Written::All;
        while done < scratch.bytes {
            match scratch.write_after(done, &**socket) {
                Ok(Some(len)) => {
                    done += len;
                    self.written_bytes += len as u64;
                    result = Written::Some;
                }
                Ok(None) if done > 0 => break,
                Ok(None) => {
                    result = Written::Blocked;
                    break;
                }
                Err(_gone) => return Written::Failed,
            }
        }
        if done >= scratch.bytes {
            return Written::All;
        }
        self.leftover.extend(scratch.rest_after(done));
        result
    }
}

/// Frames on their way into one `writev`. One for each thread, so that an idle connection owns none.
#[derive(Default)]
struct Scratch {
    joined: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
}

enum Piece {
    Joined(Range<usize>),
    Shared(Bytes),
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A frame up to this size is copied: an iovec of its own costs more.
const JOIN_FRAME_BYTES_MAX: usize = 2048;

/// Slices of one `writev`.
const SLICES_MAX: usize = 64;

impl Scratch {
    fn add(&mut self, taken: &Taken, deflating: Option<&Deflating>, limits: &WriteLimits) {
        match taken {
            Taken::Frame(bytes) | Taken::Close(bytes) => self.add_bytes(bytes, limits),
            Taken::Entry(entry) => match (entry.head(), entry.shared()) {
                ([], Some(shared)) => self.add_bytes(shared.bytes(deflating), limits),
                (head, Some(shared)) => self.add_headed(&shared.behind(head, deflating), limits),
                (_, None) => {}
            },
        }
    }

    fn add_bytes(&mut self, bytes: &Bytes, limits: &WriteLimits) {
        self.bytes += bytes.len();
        if bytes.len() > JOIN_FRAME_BYTES_MAX || self.joined.len() + bytes.len() > limits.coalesce_bytes {
            self.pieces.push(Piece::Shared(bytes.clone()));
        } else {
            self.join(&[bytes]);
        }
    }

    /// A head is joined beyond `coalesce_bytes` too: apart from the others it would need a buffer of its own. What is taken
    /// for one write bounds that.
    fn add_headed(&mut self, message: &Headed<'_>, limits: &WriteLimits) {
        let [front, head, tail] = message.parts();
        if message.frame_len() <= JOIN_FRAME_BYTES_MAX {
            self.bytes += message.frame_len();
            self.join(&[front, head, tail]);
        } else {
            self.bytes += front.len() + head.len();
            self.join(&[front, head]);
            self.add_bytes(&message.tail(), limits);
        }
    }

    fn join(&mut self, parts: &[&[u8]]) {
        let start = self.joined.len();
        for part in parts {
            self.joined.extend_from_slice(part);
        }
        match self.pieces.last_mut() {
            Some(Piece::Joined(range)) => range.end = self.joined.len(),
            _ => self.pieces.push(Piece::Joined(start..self.joined.len())),
        }
    }

    fn slice<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Joined(range) => self.joined.get(range.clone()).unwrap_or_default(),
            Piece::Shared(bytes) => bytes,
        }
    }

    fn write_after(&self, done: usize, socket: &dyn Socket) -> io::Result<Option<usize>> {
        if let [piece] = self.pieces.as_slice() {
            // The usual case needs no table of slices.
            return write_some(socket, &[IoSlice::new(self.slice(piece).get(done..).unwrap_or_default())]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = fill(&mut slices, self.after(done));
        write_some(socket, slices.get(..count).unwrap_or_default())
    }

    /// The slices behind the first `done` bytes.
    fn after(&self, done: usize) -> impl Iterator<Item = &[u8]> {
        let mut skip = done;
        self.pieces.iter().filter_map(move |piece| {
            let slice = self.slice(piece);
            let skipped = skip.min(slice.len());
            skip -= skipped;
            slice.get(skipped..).filter(|rest| !rest.is_empty())
        })
    }

    /// The same, to keep.
    fn rest_after(&self, done: usize) -> impl Iterator<Item = Bytes> {
        let mut skip = done;
        self.pieces.iter().filter_map(move |piece| {
            let len = self.slice(piece).len();
            let skipped = skip.min(len);
            skip -= skipped;
            if skipped == len {
                return None;
            }
            Some(match piece {
                Piece::Joined(_) => Bytes::copy_from_slice(self.slice(piece).get(skipped..)?),
                Piece::Shared(bytes) => bytes.slice(skipped..),
            })
        })
    }

    fn clear(&mut self) {
        self.joined.clear();
        self.pieces.clear();
        self.bytes = 0;
        // One large burst must not own memory for ever.
        self.joined.shrink_to(64 * 1024);
    }
}

fn fill<'a>(slices: &mut [IoSlice<'a>; SLICES_MAX], from: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut count = 0;
    for (slot, slice) in slices.iter_mut().zip(from) {
        *slot = IoSlice::new(slice);
        count += 1;
    }
    count
}

/// `Ok(None)`: the socket takes nothing now.
fn write_some(socket: &dyn Socket, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    loop {
        match socket.try_write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => return Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn advance(pieces: &mut VecDeque<Bytes>, mut len: usize) {
    while let Some(first) = pieces.front_mut() {
        if len < first.len() {
            first.advance(len);
            return;
        }
        len -= first.len();
        pieces.pop_front();
    }
}

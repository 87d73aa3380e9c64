//! Inflating with a hard cap on the output. An inflater always has the largest window, so the parameters for
//! window bits never concern it. Spec: RFC 7692 §7.2.2.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};

use super::{EMPTY_BLOCK, totals};

/// Why compressed bytes do not become a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::websocket) enum InflateError {
    /// More output than allowed.
    TooBig,
    /// No DEFLATE data, or cut off within a block.
    Corrupt,
}

/// One direction's inflater: a message's own, or a connection's under context takeover.
#[derive(Debug)]
pub(in crate::websocket) struct Inflater {
    stream: Decompress,
    /// A block with BFINAL has ended the DEFLATE stream; what follows begins another.
    is_ended: bool,
    /// The message has had a byte. Without any it is empty, and there is no block to complete.
    is_fed: bool,
}

impl Inflater {
    /// An inflater with an empty window, from this thread's pool when it has one.
    pub(in crate::websocket) fn take() -> Box<Self> {
        let pooled = POOL.with_borrow_mut(Vec::pop);
        pooled.unwrap_or_else(|| {
            Box::new(Self { stream: Decompress::new(false), is_ended: false, is_fed: false })
        })
    }

    /// Gives an inflater to this thread's pool.
    pub(in crate::websocket) fn put_back(mut self: Box<Self>) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED_MAX {
                self.stream.reset(false);
                self.is_ended = false;
                self.is_fed = false;
                pool.push(self);
            }
        });
    }

    /// Appends what `input` inflates to. `out` never grows above `bytes_max`.
    pub(in crate::websocket) fn inflate(
        &mut self,
        mut input: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        self.is_fed |= !input.is_empty();
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                if self.is_ended {
                    if input.is_empty() {
                        return Ok(());
                    }
                    // RFC 7692 §7.2.3.4, §7.2.3.5: further blocks may follow a final one.
                    self.stream.reset(false);
                    self.is_ended = false;
                }
                let (taken, made) = self.step(input, scratch)?;
                totals::add_inflated_bytes(taken, made);
                input = input.get(taken..).unwrap_or_default();
                let inflated = scratch.get(..made).unwrap_or_default();
                if out.len().saturating_add(made) > bytes_max {
                    return Err(InflateError::TooBig); // SEC-9
                }
                if out.capacity() - out.len() < made {
                    // Doubled, but not beyond the limit.
                    out.reserve_exact(out.len().min(bytes_max - out.len()).max(made));
                }
                out.extend_from_slice(inflated);
                if made < scratch.len() && (input.is_empty() || taken == 0) && !self.is_ended {
                    return if input.is_empty() { Ok(()) } else { Err(InflateError::Corrupt) };
                }
            }
        })
    }

    /// The message has ended: the empty block that its sender omitted is put back (RFC 7692 §7.2.2).
    pub(in crate::websocket) fn finish(
        &mut self,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        totals::add_inflated_message();
        let is_fed = std::mem::take(&mut self.is_fed);
        if self.is_ended || !is_fed {
            return Ok(());
        }
        // At the end of a block the empty one adds nothing. Output shows that a block was cut off and took
        // these bytes for its data.
        let len = out.len();
        self.inflate(&EMPTY_BLOCK, out, bytes_max)?;
        self.is_fed = false;
        if out.len() == len { Ok(()) } else { Err(InflateError::Corrupt) }
    }

    /// As [`Self::finish`], for a message whose context nobody takes over: that it ended with a whole block is
    /// proved by an empty final block, which ends the stream.
    pub(in crate::websocket) fn finish_alone(
        &mut self,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        if self.is_ended || !self.is_fed {
            return Ok(());
        }
        self.finish(out, bytes_max)?;
        self.inflate(&FINAL_EMPTY_BLOCK, out, bytes_max)?;
        if self.is_ended { Ok(()) } else { Err(InflateError::Corrupt) }
    }

    /// One call of zlib: bytes taken from `input` and bytes made in `scratch`.
    fn step(&mut self, input: &[u8], scratch: &mut [u8]) -> Result<(usize, usize), InflateError> {
        let (total_in, total_out) = (self.stream.total_in(), self.stream.total_out());
        let status = self
            .stream
            .decompress(input, scratch, FlushDecompress::Sync)
            .map_err(|_| InflateError::Corrupt)?;
        self.is_ended = status == Status::StreamEnd;
        let taken = usize::try_from(self.stream.total_in() - total_in);
        let made = usize::try_from(self.stream.total_out() - total_out);
        taken.ok().zip(made.ok()).ok_or(InflateError::Corrupt)
    }
}

/// A stored block without bytes, with BFINAL.
const FINAL_EMPTY_BLOCK: [u8; 5] = [0x01, 0x00, 0x00, 0xff, 0xff];

/// Inflaters that a thread keeps: one is in use at a time, unless messages come in pieces.
const POOLED_MAX: usize = 4;

/// Output of one call of zlib. Not the spare room of the message's `Vec`: the zlib-rs backend zeroes all of that
/// at each call, which many small fragments would make ruinous.
const SCRATCH_BYTES: usize = 16 * 1024;

/// Boxes: a message takes one and gives it back, and nothing is moved or allocated.
type Pool = Vec<Box<Inflater>>;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

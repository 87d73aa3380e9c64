//! Buffers of a worker thread, lent to the connection that is being served: an idle connection owns none.

use std::cell::RefCell;

use bytes::BytesMut;

use crate::broker::Batch;

thread_local! {
    static READ: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    #[expect(clippy::vec_box, reason = "a connection holds and hands over a batch as one pointer")]
    static BATCHES: RefCell<Vec<Box<Batch>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that begins with `partial`.
pub(super) fn take(partial: &mut BytesMut) -> BytesMut {
    if partial.is_empty() {
        *partial = BytesMut::new();
        READ.with_borrow_mut(std::mem::take)
    } else {
        std::mem::take(partial)
    }
}

/// Room for the next read: all that the buffer has, at least a quarter of `read_bytes_max`.
pub(super) fn reserve(buffer: &mut BytesMut, read_bytes_max: usize) -> usize {
    if buffer.capacity() - buffer.len() < read_bytes_max / 4 {
        buffer.reserve(read_bytes_max);
    }
    (buffer.capacity() - buffer.len()).min(read_bytes_max)
}

/// Keeps what is not decoded yet, in a buffer of its own size, and gives the pooled one back.
pub(super) fn give_back(mut buffer: BytesMut) -> BytesMut {
    if buffer.len() > KEPT_BYTES_MAX {
        return buffer;
    }
    let partial = BytesMut::from(&buffer[..]);
    buffer.clear();
    READ.with_borrow_mut(|pooled| {
        if pooled.capacity() < buffer.capacity() {
            *pooled = buffer;
        }
    });
    partial
}

/// Input above this size stays where it is; below it is copied out of the pooled buffer.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// An empty batch with room from earlier ones.
pub(super) fn take_batch() -> Box<Batch> {
    BATCHES.with_borrow_mut(|batches| batches.pop()).unwrap_or_default()
}

/// Gives it back, emptied.
pub(super) fn give_back_batch(mut batch: Box<Batch>) {
    batch.touched.clear();
    batch.slow.clear();
    batch.after = None;
    batch.entered.clear();
    BATCHES.with_borrow_mut(|batches| {
        if batches.len() < 4 {
            batches.push(batch);
        }
    });
}

//! Frames into slices, cuts mended, the batch, the silence of a socket.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tidegate::outbox::queue::Pushed;
use tidegate::outbox::writer::WriteLimits;
use tidegate_protocol::session::DropReason;

use crate::rig::{Client, EVERYTHING, PLAIN, WIDE, WRITE, long, new_client};

#[test]
fn a_frame_that_has_begun_is_finished_before_anything_else() {
    let client = Client::at_mark(2);
    let plain = client.subscription(PLAIN);
    client.push_all(&plain, &["begun"]);
    client.peer.room.store(3, Ordering::SeqCst);
    client.outbox.flush(client.now);
    client.outbox.push_control(Bytes::from_static(b"\x82\x03ack"));
    // Overflowing, the queue has no say over what is with the writer.
    client.push_all(&plain, &["1", "2"]);
    assert_eq!(client.push(&plain, "3"), Pushed::Made(DropReason::Oldest, 1));
    assert_eq!(client.drain(), ["begun", "ack", "2", "3"]);
}

#[test]
fn any_cut_of_the_stream_is_mended() {
    let texts = [long("1", 10), long("2", 5000), long("3", 20), long("4", 3000)];
    let total: usize = texts.iter().map(|text| text.len() + if text.len() > 125 { 4 } else { 2 }).sum();
    for cut in 1..total {
        let client = Client::stalled(WIDE);
        client.push_all(&client.subscription(PLAIN), &texts.each_ref().map(String::as_str));
        client.peer.room.store(cut, Ordering::SeqCst);
        client.outbox.flush(client.now);
        assert_eq!(client.peer.bytes.lock().unwrap().len(), cut);
        assert_eq!(client.drain(), ["t=1", "t=2", "t=3", "t=4"], "cut at {cut} of {total}");
    }
}

/// Frames of these lengths, and the slices in which they are written.
fn check_slices(coalesce_bytes: usize, frames: &[usize], expected: &[&[usize]]) {
    let client = new_client(1, WIDE, WriteLimits { coalesce_bytes, ..WRITE });
    let plain = client.subscription(PLAIN);
    for bytes in frames {
        let header = if *bytes > 127 { 4 } else { 2 };
        client.push_all(&plain, &[&long("x", bytes - header - 2)]);
    }
    client.peer.room.store(EVERYTHING, Ordering::SeqCst);
    client.outbox.flush(client.now);
    assert_eq!(*client.peer.writes.lock().unwrap(), expected, "{frames:?}");
}

#[test]
fn small_frames_are_joined_and_large_ones_are_slices_of_their_own() {
    check_slices(16 * 1024, &[20], &[&[20]]);
    check_slices(16 * 1024, &[20, 30, 40], &[&[90]]);
    check_slices(16 * 1024, &[2048, 2048], &[&[4096]]);
    check_slices(16 * 1024, &[20, 30, 2049, 40, 50], &[&[50, 2049, 90]]);
    check_slices(16 * 1024, &[3000, 4000], &[&[3000, 4000]]);
    // What is joined already is copied no further than the limit; the rest goes as it is.
    check_slices(100, &[60, 40, 30, 20], &[&[100, 30, 20]]);
}

#[test]
fn many_slices_take_more_than_one_write() {
    check_slices(16 * 1024, &[3000; 70], &[&[3000; 64], &[3000; 6]]);
}

#[test]
fn no_more_than_a_batch_leaves_the_queue_for_a_socket_that_stalls() {
    let client = new_client(1, WIDE, WriteLimits { batch_bytes: 3000, ..WRITE });
    let plain = client.subscription(PLAIN);
    for n in 0..10 {
        client.push_all(&plain, &[&long(&n.to_string(), 1000)]);
    }
    client.outbox.flush(client.now);
    assert_eq!(client.queued(), 7, "the rest stays where the policy can act");
    assert_eq!(client.drain().len(), 10);
}

#[test]
fn the_silence_of_a_socket_counts_from_the_last_byte_it_took() {
    let mut client = Client::stalled(WIDE);
    client.push_all(&client.subscription(PLAIN), &["hello"]);
    let mut check = |ms, room, since: Option<u64>| {
        client.pass(ms);
        client.peer.room.store(room, Ordering::SeqCst);
        client.outbox.flush(client.now);
        let silence = client.outbox.blocked_since().map(|since| client.now.duration_since(since));
        assert_eq!(silence, since.map(Duration::from_millis));
    };
    check(0, 0, Some(0));
    check(10, 0, Some(10));
    check(10, 3, Some(0));
    check(10, 0, Some(10));
    check(10, 100, None);
}

//! Shared bytes behind the head of a subscription, beside what its session has to encode.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate::outbox::queue::Pushed;
use tidegate::outbox::writer::WriteLimits;
use tidegate_protocol::session::{DropReason, LagNotice, Overflow};

use crate::rig::{Client, EVERYTHING, Kind, PLAIN, WIDE, WRITE, long, new_client, new_entry};

const HEADED: Kind = Kind { head: "1:", ..PLAIN };

/// Bytes that nobody but their session can encode; they arrive without a head.
fn push_for_session(client: &Client, subscription: &tidegate::subscription::Subscription, text: &str) {
    let mut publication = Client::publication(text);
    publication.is_text = true;
    assert_eq!(client.push_publication(subscription, publication), Pushed::Queued);
}

#[test]
fn each_subscription_has_its_own_head() {
    let client = Client::stalled(WIDE);
    let (one, other) =
        (client.subscription(HEADED), client.subscription(Kind { id: 9, head: "9:", ..PLAIN }));
    client.push_all(&one, &["a"]);
    client.push_all(&other, &["b"]);
    client.push_all(&client.subscription(PLAIN), &["c"]);
    client.push_all(&one, &["d"]);
    client.peer.room.store(EVERYTHING, Ordering::SeqCst);
    client.outbox.flush(client.now);
    assert_eq!(client.arrived(), ["1:a", "9:b", "c", "1:d"], "without the session");
    assert_eq!(*client.peer.bytes.lock().unwrap(), b"\x82\x031:a\x82\x039:b\x82\x01c\x82\x031:d");
    assert_eq!(client.queued(), 0);
}

#[test]
fn what_only_the_session_can_encode_keeps_its_place() {
    let client = Client::stalled(WIDE);
    let headed = client.subscription(HEADED);
    client.push_all(&headed, &["a"]);
    push_for_session(&client, &headed, "b");
    let mut expiring = Client::publication("c");
    expiring.expires_at = Some(client.now + Duration::from_secs(1));
    client.push_publication(&headed, expiring);
    client.push_all(&headed, &["d"]);
    let retained = new_entry(&headed, Client::publication("e"), true);
    client.outbox.push_retained(std::iter::once(retained));
    client.push_all(&headed, &["f"]);

    client.peer.room.store(EVERYTHING, Ordering::SeqCst);
    client.outbox.flush(client.now);
    assert_eq!(client.arrived(), ["1:a"], "others stop at the first that needs the session");
    assert_eq!(client.drain(), ["1:a", "b", "c", "1:d", "e", "1:f"]);
}

#[test]
fn a_loss_is_told_with_the_next_message_which_the_session_encodes() {
    let client = Client::at_mark(2);
    client.outbox.set_client(None, LagNotice::WithNext);
    let headed = client.subscription(Kind { overflow: Overflow::DropNewest, ..HEADED });
    client.push_all(&headed, &["a", "b"]);
    assert_eq!(client.push(&headed, "c"), Pushed::Dropped(DropReason::Newest));
    assert!(client.outbox.take_lag().is_some());
    assert_eq!(client.drain(), ["a", "b"]);
    client.push_all(&headed, &["d"]);
    assert_eq!(client.drain(), ["a", "b", "1:d"]);
}

#[test]
fn the_head_counts_towards_what_a_client_takes() {
    let client = Client::stalled(WIDE);
    client.outbox.set_client(Some(5), LagNotice::Silent);
    let headed = client.subscription(HEADED);
    assert_eq!(client.push(&headed, "abcd"), Pushed::Dropped(DropReason::TooLarge));
    client.push_all(&headed, &["abc"]);
    assert_eq!(client.drain(), ["1:abc"]);
}

#[test]
fn the_head_counts_towards_a_batch() {
    let client = new_client(1, WIDE, WriteLimits { batch_bytes: 1000, ..WRITE });
    let head = Box::leak(long("h", 500).into_boxed_str());
    let headed = client.subscription(Kind { head, ..PLAIN });
    client.push_all(&headed, &["a", "b", "c", "d"]);
    client.outbox.flush(client.now);
    assert_eq!(client.queued(), 2);
}

/// Payloads of these lengths, and the slices in which they are written.
fn check_slices(payloads: &[usize], expected: &[&[usize]]) {
    let client = new_client(1, WIDE, WriteLimits { coalesce_bytes: 100, ..WRITE });
    let headed = client.subscription(HEADED);
    for bytes in payloads {
        client.push_all(&headed, &[&long("x", bytes - 2)]);
    }
    client.peer.room.store(EVERYTHING, Ordering::SeqCst);
    client.outbox.flush(client.now);
    assert_eq!(*client.peer.writes.lock().unwrap(), expected, "{payloads:?}");
}

#[test]
fn a_small_message_is_joined_and_a_large_one_joins_its_head_alone() {
    // Two of header and two of head each, four and two from 126 on.
    check_slices(&[16], &[&[20]]);
    check_slices(&[16, 96, 26], &[&[150]]);
    check_slices(&[2042], &[&[2048]]);
    check_slices(&[2043], &[&[6, 2043]]);
    check_slices(&[16, 3000, 16, 26], &[&[26, 3000, 50]]);
}

#[test]
fn any_cut_of_heads_and_tails_is_mended() {
    let texts = [long("1", 10), long("2", 5000), long("3", 20)];
    let total = texts.iter().map(|text| 2 + text.len() + if text.len() > 123 { 4 } else { 2 }).sum();
    for cut in 1..total {
        let client = Client::stalled(WIDE);
        client.push_all(&client.subscription(HEADED), &texts.each_ref().map(String::as_str));
        client.peer.room.store(cut, Ordering::SeqCst);
        client.outbox.flush(client.now);
        assert_eq!(client.peer.bytes.lock().unwrap().len(), cut);
        assert_eq!(client.drain(), ["1:t=1", "1:t=2", "1:t=3"], "cut at {cut} of {total}");
    }
}

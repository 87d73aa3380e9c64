//! What the marks of a client bear, for how long, and who waits.

use std::time::Duration;

use tidegate::outbox::queue::{Limits, Pushed, Signals};
use tidegate_protocol::session::{DataLane, DropReason, LagNotice, Overflow};

use crate::rig::{CLOSE, Client, Kind, PLAIN, WIDE, WRITE, long, new_client, new_entry};

#[test]
fn an_empty_outbox_takes_one_message_larger_than_the_mark() {
    let client = Client::stalled(Limits { bytes_max: 4000, ..WIDE });
    let plain = client.subscription(PLAIN);
    client.push_all(&plain, &[&long("large", 9000)]);
    let other = client.subscription(Kind { id: 7, ..PLAIN });
    assert_eq!(client.push(&other, "small"), Pushed::Dropped(DropReason::Oldest));
    assert_eq!(client.drain(), ["t=large"]);
}

#[test]
fn the_mark_is_borne_for_publish_wait_and_up_to_twice() {
    const WAIT_MS: u64 = 200;
    let limits = Limits { messages_max: 3, publish_wait: Duration::from_millis(WAIT_MS), ..WIDE };
    // Milliseconds before the last two pushes, and what becomes of them.
    let cases = [
        (0, [Pushed::OverMark, Pushed::OverMark]),
        (WAIT_MS - 1, [Pushed::OverMark, Pushed::OverMark]),
        (WAIT_MS, [Pushed::Dropped(DropReason::Newest); 2]),
    ];
    for (ms, expected) in cases {
        let mut client = Client::stalled(limits.clone());
        let newest = client.subscription(Kind { overflow: Overflow::DropNewest, ..PLAIN });
        client.push_all(&newest, &["1", "2", "3"]);
        assert_eq!(client.push(&newest, "4"), Pushed::OverMark);
        client.pass(ms);
        assert_eq!([client.push(&newest, "5"), client.push(&newest, "6")], expected, "after {ms} ms");
        let last = client.push(&newest, "7");
        assert_eq!(last, Pushed::Dropped(DropReason::Newest), "twice the mark is the end");
    }
}

#[test]
fn nobody_waits_for_room_that_is_there_or_for_itself() {
    let client = Client::at_mark(1);
    let publisher = new_client(2, WIDE, WRITE);
    assert!(!client.outbox.wait_for_room(&publisher.outbox));
    client.push_all(&client.subscription(PLAIN), &["1"]);
    assert!(!client.outbox.wait_for_room(&client.outbox));
    assert!(client.outbox.wait_for_room(&publisher.outbox));
    client.outbox.close(CLOSE, DataLane::Abort);
    assert!(publisher.signals().contains(Signals::ROOM), "a client that goes holds nobody");
}

#[test]
fn half_of_the_mark_asks_for_a_flush_while_one_would_help() {
    let client = Client::at_mark(4);
    let plain = client.subscription(PLAIN);
    assert_eq!([client.push(&plain, "1"), client.push(&plain, "2")], [Pushed::Queued, Pushed::HalfFull]);
    client.outbox.flush(client.now);
    assert_eq!(client.outbox.blocked_since(), Some(client.now));
    // Those two are with the writer; the socket takes nothing, so nobody need try for the next ones.
    let pushed = ["3", "4", "5", "6"].map(|text| client.push(&plain, text));
    assert_eq!(pushed, [Pushed::Queued; 4]);
}

#[test]
fn a_push_without_memory_reaches_an_idle_client_alone() {
    let client = Client::stalled(WIDE);
    let plain = client.subscription(PLAIN);
    let entry = |text| new_entry(&plain, Client::publication(text), false);
    assert_eq!(client.outbox.push_if_idle(entry("1"), client.now).0, Pushed::Queued);
    assert_eq!(client.outbox.push_if_idle(entry("2"), client.now).0, Pushed::Dropped(DropReason::Memory));
    assert_eq!(client.drain(), ["1"]);
}

#[test]
fn a_message_larger_than_the_client_takes_is_not_queued() {
    let client = Client::stalled(WIDE);
    client.outbox.set_client(Some(20), LagNotice::Separate);
    let plain = client.subscription(PLAIN);
    client.push_all(&plain, &["t=exactly 20 bytes.."]);
    assert_eq!(client.push(&plain, "t=exactly 21 bytes..."), Pushed::Dropped(DropReason::TooLarge));
    assert_eq!(client.drain(), ["t=exactly 20 bytes"]);
}

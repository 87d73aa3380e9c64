//! What is sent no more: expired, unsubscribed, behind a Close, to a socket that is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tidegate::outbox::queue::{Pushed, Signals};
use tidegate_protocol::session::{DataLane, DropReason};

use crate::rig::{ACKED, CLOSE, CLOSED, Client, Kind, PLAIN, WIDE, new_entry};

#[test]
fn an_expired_delivery_is_left_out_and_counted() {
    for kind in [PLAIN, Kind { has_form: false, ..PLAIN }, ACKED] {
        let mut client = Client::stalled(WIDE);
        let subscription = client.subscription(kind);
        for (text, seconds) in [("1", 5), ("2", 10), ("3", 5), ("4", 6)] {
            let mut publication = Client::publication(text);
            publication.expires_at = Some(client.now + Duration::from_secs(seconds));
            client.push_publication(&subscription, publication);
        }
        client.pass(5000);
        assert_eq!(client.drain(), ["2", "4"]);
        assert_eq!((client.queued(), client.drops(DropReason::Expired)), (0, 2));
    }
}

#[test]
fn a_subscription_that_has_ended_gets_nothing_more() {
    for kind in [PLAIN, Kind { has_form: false, ..PLAIN }, ACKED] {
        let client = Client::stalled(WIDE);
        let (ends, stays) = (client.subscription(kind), client.subscription(Kind { id: 9, ..kind }));
        for n in 0..3 {
            client.push_all(&ends, &[&format!("a={n}")]);
            client.push_all(&stays, &[&format!("c={n}")]);
        }
        ends.end();
        assert_eq!(client.drain(), ["c=0", "c=1", "c=2"]);
        assert_eq!(client.queued(), 0);
    }
}

#[test]
fn a_subscription_that_has_ended_makes_room_for_the_others() {
    let client = Client::at_mark(4);
    let (ends, stays) = (client.subscription(PLAIN), client.subscription(Kind { id: 9, ..PLAIN }));
    client.push_all(&ends, &["a=1", "a=2"]);
    client.push_all(&stays, &["c=1", "c=2"]);
    ends.end();
    client.push_all(&stays, &["c=3", "c=4"]);
    assert_eq!(client.drain(), ["c=1", "c=2", "c=3", "c=4"]);
    assert_eq!(client.drops(DropReason::Oldest), 0);
}

#[test]
fn nothing_follows_the_close() {
    // Draining, what is ready goes first; aborting, it is discarded.
    let cases: [(DataLane, usize, &[&str]); 2] =
        [(DataLane::Drain, 1, &["ack", "a", "c", CLOSED]), (DataLane::Abort, 3, &["ack", CLOSED])];
    for (data, lost, arrives) in cases {
        let client = Client::stalled(WIDE);
        let plain = client.subscription(PLAIN);
        client.push_all(&plain, &["a", "c"]);
        client.push_all(&client.subscription(ACKED), &["acked"]);
        client.outbox.push_control(Bytes::from_static(b"\x82\x03ack"));
        assert_eq!(client.outbox.close(CLOSE, data), lost);
        assert_eq!(client.push(&plain, "late"), Pushed::Closed);
        assert_eq!(client.drain(), arrives);
        assert!(client.outbox.has_ended() && client.signals().contains(Signals::ENDED));
        client.outbox.push_control(Bytes::from_static(b"\x82\x03ack"));
        client.outbox.push_pong(Bytes::from_static(&[0x8A, 0]));
        let retained = new_entry(&plain, Client::publication("retained"), true);
        client.outbox.push_retained(std::iter::once(retained));
        assert_eq!(client.outbox.control_bytes(), 0, "nor is it kept");
        assert_eq!(client.drain(), arrives, "RFC 6455 §5.5.1");
        assert_eq!(client.queued(), 0);
    }
}

#[test]
fn the_first_close_stays() {
    let client = Client::stalled(WIDE);
    client.push_all(&client.subscription(PLAIN), &["a"]);
    assert_eq!(client.outbox.close(CLOSE, DataLane::Drain), 0);
    let second = Bytes::from_static(b"\x82\x06second");
    assert_eq!(client.outbox.close(second, DataLane::Abort), 0);
    assert_eq!(client.drain(), ["a", CLOSED]);
}

#[test]
fn a_frame_that_has_begun_is_finished_before_the_close() {
    for data in [DataLane::Drain, DataLane::Abort] {
        let client = Client::stalled(WIDE);
        client.push_all(&client.subscription(PLAIN), &["begun"]);
        client.peer.room.store(1, Ordering::SeqCst);
        client.outbox.flush(client.now);
        client.outbox.close(CLOSE, data);
        assert!(!client.outbox.has_ended());
        assert_eq!(client.drain(), ["begun", CLOSED]);
    }
}

#[test]
fn a_socket_that_fails_ends_the_outbox_and_counts_what_was_lost() {
    let client = Client::stalled(WIDE);
    let plain = client.subscription(PLAIN);
    client.push_all(&plain, &["a"]);
    client.outbox.flush(client.now);
    client.push_all(&plain, &["b", "c"]);
    client.peer.is_gone.store(true, Ordering::SeqCst);
    client.outbox.flush(client.now);
    assert!(client.outbox.has_ended());
    assert_eq!((client.queued(), client.drops(DropReason::Closed)), (0, 2));
    assert_eq!(Arc::strong_count(&client.peer), 1, "the socket is let go");
    assert_eq!(client.push(&plain, "d"), Pushed::Closed);
}

//! In what order deliveries and answers leave.

use bytes::Bytes;

use crate::rig::{ACKED, Client, Kind, PLAIN, PONG, WIDE, WINDOW_FULL, numbered};

#[test]
fn deliveries_of_a_lane_arrive_in_the_order_of_their_pushes() {
    for kind in [PLAIN, Kind { has_form: false, ..PLAIN }, ACKED] {
        let client = Client::stalled(WIDE);
        let (one, other) = (client.subscription(kind), client.subscription(Kind { id: 9, ..kind }));
        let texts = numbered(0..50);
        for (n, text) in texts.iter().enumerate() {
            client.push_all(if n % 3 == 0 { &other } else { &one }, &[text]);
        }
        assert_eq!(client.drain(), texts);
        assert_eq!(client.queued(), 0);
    }
}

#[test]
fn an_answer_goes_before_the_data_that_was_queued_earlier() {
    let client = Client::stalled(WIDE);
    client.push_all(&client.subscription(PLAIN), &["a", "b"]);
    client.push_all(&client.subscription(ACKED), &["c"]);
    client.outbox.push_control(Bytes::from_static(b"\x82\x03ack"));
    assert_eq!(client.drain(), ["ack", "a", "b", "c"]);
}

#[test]
fn an_answer_does_not_wait_for_a_subscribe_that_holds_the_data() {
    let client = Client::stalled(WIDE);
    client.push_all(&client.subscription(PLAIN), &["a"]);
    client.outbox.hold_subscribe();
    client.outbox.push_control(Bytes::from_static(b"\x82\x06suback"));
    assert_eq!(client.drain(), ["suback"]);
    client.outbox.release_subscribe();
    assert_eq!(client.drain(), ["suback", "a"]);
}

#[test]
fn only_the_newest_unsent_pong_is_kept() {
    let client = Client::stalled(WIDE);
    for name in [b"1", b"2", b"3"] {
        client.outbox.push_pong(Bytes::from([&[0x8A, 1], name.as_slice()].concat()));
    }
    assert_eq!(client.outbox.control_bytes(), 3);
    assert_eq!(client.drain(), [PONG]);
    assert_eq!(*client.peer.bytes.lock().unwrap(), [0x8A, 1, b'3']); // RFC 6455 §5.5.3
}

#[test]
fn a_full_window_never_delays_qos_0() {
    for has_form in [true, false] {
        let client = Client::stalled(WIDE);
        client.push_all(&client.subscription(ACKED), &["acked-1", "acked-2"]);
        client.push_all(&client.subscription(Kind { has_form, ..PLAIN }), &["a", "b"]);
        assert_eq!(client.drain_with(WINDOW_FULL), ["a", "b"]);
        assert_eq!(client.queued(), 2, "the acknowledged ones wait for the window");
        assert_eq!(client.drain(), ["a", "b", "acked-1", "acked-2"]);
    }
}

#[test]
fn qos_0_is_not_behind_a_long_acknowledged_lane() {
    let client = Client::stalled(WIDE);
    let acked = numbered(0..40);
    client.push_all(&client.subscription(ACKED), &acked.iter().map(String::as_str).collect::<Vec<_>>());
    client.push_all(&client.subscription(Kind { has_form: false, ..PLAIN }), &["a"]);
    let arrived = client.drain();
    // Each turn gives half of its room to the acknowledged ones.
    let position = arrived.iter().position(|text| text == "a");
    assert!(position.is_some_and(|position| position < acked.len()), "{arrived:?}");
    assert_eq!(arrived.len(), 41);
}

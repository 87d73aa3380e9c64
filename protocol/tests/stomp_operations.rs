//! Random operations on a STOMP session: whatever the client, the broker and the clock do, it does not panic, ends
//! once, and settles no delivery twice (SEC-10).

#![expect(clippy::indexing_slicing, reason = "a test helper may panic")]

mod stomp_support;

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;
use stomp_support::{Talk, connected, delivery, granted, publication, published};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Reading, Refusal, Reply, SubscriptionId};
use tidegate_protocol::stomp::{Settings, Version};

#[derive(Clone, Debug)]
enum Operation {
    Client(Vec<u8>),
    /// The kind of reply; a wrong one is a fault of the broker that must not be a panic of the session.
    Reply(u8),
    Deliver(u32, bool),
    Pass(u64),
    Pause(bool),
}

/// Frames and pieces of frames, most of them right.
const PIECES: &[&str] = &[
    "CONNECT\naccept-version:1.2\nheart-beat:1000,1000\n\n\0",
    "SEND\ndestination:a\nreceipt:1\n\nx\0",
    "SEND\ndestination:a\n\nx\0",
    "SEND\ndestination:a\ncontent-length:3\n\n\0\n\0\0",
    "SUBSCRIBE\nid:1\ndestination:a\nack:client\n\n\0",
    "SUBSCRIBE\nid:2\ndestination:b\nack:client-individual\nreceipt:2\n\n\0",
    "SUBSCRIBE\nid:3\ndestination:#\n\n\0",
    "UNSUBSCRIBE\nid:1\n\n\0",
    "UNSUBSCRIBE\nid:2\nreceipt:4\n\n\0",
    "ACK\nid:0-1\n\n\0",
    "ACK\nid:1-2\n\n\0",
    "NACK\nid:0-2\n\n\0",
    "NACK\nid:1-1\nreceipt:3\n\n\0",
    "\n",
    "SEND\nk:",
    "\\",
    "\0",
    "DISCONNECT\nreceipt:9\n\n\0",
];

fn operation() -> impl Strategy<Value = Operation> {
    // The last four break the stream, so they are rarer than the others.
    let frames = PIECES.len() - 4;
    let piece = prop_oneof![20 => 0..frames, 1 => frames..PIECES.len()];
    prop_oneof![
        8 => piece.prop_map(|index| Operation::Client(PIECES[index].as_bytes().to_vec())),
        1 => proptest::collection::vec(any::<u8>(), 0..8).prop_map(Operation::Client),
        8 => Just(Operation::Reply(0)),
        1 => (1..6u8).prop_map(Operation::Reply),
        6 => (0..4u32, any::<bool>()).prop_map(|(id, acked)| Operation::Deliver(id, acked)),
        1 => (0..30_000u64).prop_map(Operation::Pass),
        1 => any::<bool>().prop_map(Operation::Pause),
    ]
}

fn check(operations: Vec<Operation>) {
    let settings = Settings { receive_maximum: 4, prefetch: 3, ..Settings::default() };
    let mut talk = Talk::open(Version::V1_2, &settings);
    let mut shown = talk.client(PIECES[0]);
    shown.extend(talk.reply(connected("c")));
    let mut tag = 0;
    for operation in operations {
        let more = match operation {
            Operation::Client(bytes) => talk.client_binary(&bytes),
            Operation::Reply(kind) => match talk.waiting.front() {
                Some((_, asked)) => talk.reply(answer(kind, asked)),
                None => continue,
            },
            Operation::Deliver(id, acked) => {
                let wants = talk.session.wants();
                if (acked && wants.acked == 0) || (!acked && !wants.qos0) {
                    continue;
                }
                tag += 1;
                let qos = if acked { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                let mut delivery = delivery(publication("a", b"x"), qos, tag);
                delivery.subscription = SubscriptionId(id);
                talk.deliver(delivery)
            }
            Operation::Pass(milliseconds) => talk.pass(Duration::from_millis(milliseconds)),
            Operation::Pause(is_paused) => {
                let reading = if is_paused { Reading::Paused } else { Reading::Resumed };
                talk.session.handle_reading(reading, talk.now);
                talk.drain()
            }
        };
        shown.extend(more);
    }
    let closes = shown.iter().filter(|line| line.starts_with("close")).count();
    assert!(closes <= 1, "{shown:?}");
    if closes == 1 {
        assert!(
            shown.last().is_some_and(|line| line.starts_with("close")),
            "output after the close: {shown:?}"
        );
    }
    let errors = shown.iter().filter(|line| line.contains(" ERROR|")).count();
    let aborts = shown.iter().filter(|line| line.ends_with(" Abort")).count();
    assert_eq!(errors, aborts, "always ERROR, then the close: {shown:?}");
    let mut settled = HashSet::new();
    for line in shown.iter().filter(|line| line.starts_with("settle")) {
        assert!(settled.insert(line.split(' ').nth(1)), "settled twice: {shown:?}");
    }
}

/// A reply of some kind; 0 is the one that fits.
fn answer(kind: u8, asked: &str) -> Reply {
    match (kind, asked) {
        (0, "subscribe") => granted(QoS::AtLeastOnce),
        (0, "unsubscribe") => Reply::Unsubscribed(vec![true]),
        (0 | 1, _) => published(),
        (2, _) => Reply::Subscribed(Vec::new()),
        (3, _) => Reply::Refused(Refusal::NotAuthorized),
        (4, _) => connected("again"),
        _ => Reply::Unsubscribed(Vec::new()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_order_of_events_breaks_a_session(operations in proptest::collection::vec(operation(), 0..60)) {
        check(operations);
    }
}

#[test]
fn a_frame_in_single_byte_messages_is_one_frame() {
    let mut talk = Talk::connected(Version::V1_2);
    let frame = format!("SEND\ndestination:a\ncontent-length:50000\n\n{}\0", "x".repeat(50_000));
    let mut shown = Vec::new();
    for byte in frame.as_bytes() {
        shown.extend(talk.client_binary(&[*byte]));
    }
    assert_eq!(shown, [format!("publish a qos0 {:?}", "x".repeat(50_000))]);
}

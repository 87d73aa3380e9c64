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
    /// ACK or NACK of one of the messages that came, within a transaction or not.
    Acknowledge(&'static str, proptest::sample::Index, &'static str),
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
    "NACK\nid:3-1\nrequeue:false\n\n\0",
    "SUBSCRIBE\nid:4\ndestination:/queue/a\nack:client\n\n\0",
    "SUBSCRIBE\nid:5\ndestination:a\nshare:g\nack:client-individual\n\n\0",
    "SUBSCRIBE\nid:6\ndestination:a\nack:client\ndurable:true\nauto-delete:false\n\n\0",
    "UNSUBSCRIBE\nid:4\n\n\0",
    "UNSUBSCRIBE\nid:5\n\n\0",
    "UNSUBSCRIBE\nid:6\ndestination:a\ndurable:true\nauto-delete:false\n\n\0",
    "SEND\ndestination:/queue/a\nreply-to:/temp-queue/x\n\nx\0",
    "BEGIN\ntransaction:t\nreceipt:5\n\n\0",
    "BEGIN\ntransaction:u\n\n\0",
    "SEND\ndestination:a\ntransaction:t\nreceipt:6\n\nx\0",
    "COMMIT\ntransaction:t\nreceipt:7\n\n\0",
    "COMMIT\ntransaction:u\n\n\0",
    "ABORT\ntransaction:t\n\n\0",
    "ABORT\ntransaction:u\nreceipt:8\n\n\0",
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
        6 => acknowledgement(),
        8 => Just(Operation::Reply(0)),
        1 => (1..6u8).prop_map(Operation::Reply),
        6 => (0..6u32, any::<bool>()).prop_map(|(id, acked)| Operation::Deliver(id, acked)),
        1 => (0..30_000u64).prop_map(Operation::Pass),
        1 => any::<bool>().prop_map(Operation::Pause),
    ]
}

fn acknowledgement() -> impl Strategy<Value = Operation> {
    let verb = prop_oneof![3 => Just("ACK"), 1 => Just("NACK")];
    let transaction = prop_oneof![Just(""), Just("transaction:t\n"), Just("transaction:u\n")];
    (verb, any::<proptest::sample::Index>(), transaction)
        .prop_map(|(verb, index, transaction)| Operation::Acknowledge(verb, index, transaction))
}

/// What a client knows of its own doing. Mistakes end a session, so that with many of them little would be tried.
#[derive(Default)]
struct Knowledge {
    subscriptions: HashSet<String>,
    transactions: HashSet<String>,
    /// The `ack` of each message.
    messages: Vec<String>,
}

impl Knowledge {
    /// Whether the frame is no mistake of the kinds that are known.
    fn allows(&mut self, frame: &str) -> bool {
        let header = |name| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let (id, transaction) = (header("id:"), header("transaction:"));
        match (frame.lines().next(), id, transaction) {
            (Some("SUBSCRIBE"), Some(id), _) => self.subscriptions.insert(id),
            (Some("UNSUBSCRIBE"), Some(id), _) => self.subscriptions.remove(&id),
            (Some("BEGIN"), _, Some(name)) => self.transactions.insert(name),
            (Some("COMMIT" | "ABORT"), _, Some(name)) => self.transactions.remove(&name),
            (_, _, Some(name)) => self.transactions.contains(&name),
            (Some("ACK" | "NACK"), ..) => false,
            _ => true,
        }
    }

    fn learn(&mut self, shown: &[String]) {
        let acks = shown.iter().filter_map(|line| line.split('|').find_map(|part| part.strip_prefix("ack:")));
        self.messages.extend(acks.map(str::to_owned));
    }
}

fn check(operations: Vec<Operation>) {
    let mut knowledge = Knowledge::default();
    let settings = Settings { receive_maximum: 4, prefetch: 3, ..Settings::default() };
    let mut talk = Talk::open(Version::V1_2, &settings);
    let mut shown = talk.client(PIECES[0]);
    shown.extend(talk.reply(connected("c")));
    let mut tag = 0;
    for operation in operations {
        let more = match operation {
            // One in sixteen makes any mistake.
            Operation::Client(bytes)
                if tag % 16 != 15 && !knowledge.allows(&String::from_utf8_lossy(&bytes)) =>
            {
                continue;
            }
            Operation::Client(bytes) => talk.client_binary(&bytes),
            Operation::Acknowledge(verb, index, transaction) => {
                if knowledge.messages.is_empty() {
                    continue;
                }
                let id = index.get(&knowledge.messages);
                let frame = format!("{verb}\nid:{id}\n{transaction}\n\0");
                if !transaction.is_empty() && !knowledge.allows(&frame) {
                    continue;
                }
                talk.client(&frame)
            }
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
        knowledge.learn(&more);
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
    for tag in shown.iter().flat_map(|line| settled_tags(line)) {
        assert!(settled.insert(tag), "{tag} is settled twice: {shown:?}");
    }
}

/// By itself or within a transaction.
fn settled_tags(line: &str) -> impl Iterator<Item = &str> {
    let steps = line.strip_prefix("transaction [").and_then(|steps| steps.strip_suffix(']'));
    let steps = steps.unwrap_or(line).split(", ");
    steps.filter_map(|step| step.strip_prefix("settle ")?.split(' ').next())
}

#[test]
fn settlements_are_found_within_transactions() {
    let tags = |line| settled_tags(line).collect::<Vec<_>>();
    assert_eq!(tags("settle 4 Accepted"), ["4"]);
    assert_eq!(tags("transaction [publish a qos0 \"x\", settle 2 Accepted, settle 13 Requeue]"), ["2", "13"]);
    assert!(tags("unsubscribe 4").is_empty());
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
    fn no_order_of_events_breaks_a_session(operations in proptest::collection::vec(operation(), 0..100)) {
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

//! Floods from one client: what they cost in memory while they are handled and afterwards, and how they are answered
//! (SEC-5, SEC-15, SEC-17).
//!
//! The heap of the whole test is counted, so that one flood runs at a time.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod mqtt_support;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use tidegate_protocol::mqtt::packet::Version;
use tidegate_protocol::mqtt::{self, Settings};
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{CloseReason, Output, Request, Session, Token};
use tidegate_protocol::websocket::Message;

use self::mqtt_support::{Conversation, connect, delivery, published, topic};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// What the harness may allocate meanwhile, for a flood that costs next to nothing.
const NEXT_TO_NOTHING: usize = 64 * KIB;
const V3_1_1: Version = Version::V3_1_1;
const V5: Version = Version::V5;

/// A client that is connected, whose outputs are counted and forgotten as a connection would do.
struct Flooded {
    session: Box<dyn Session>,
    now: Instant,
    sent: usize,
    publishes: usize,
    /// Of publishes.
    unanswered: Vec<Token>,
    filters: usize,
    /// The beginning of the latest packet.
    last: Vec<u8>,
    closed: Option<CloseReason>,
}

impl Flooded {
    fn online(version: Version, settings: &Settings) -> Self {
        let Conversation { session, now, .. } = Conversation::connected(connect(version), settings);
        Self {
            session,
            now,
            sent: 0,
            publishes: 0,
            unanswered: Vec::new(),
            filters: 0,
            last: Vec::new(),
            closed: None,
        }
    }

    fn say(&mut self, bytes: Bytes) {
        self.session.handle_message(Message::Binary(bytes), self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Send(outgoing) => {
                    self.sent += 1;
                    self.last = outgoing.head.to_vec();
                }
                Output::SendStamped(_) => self.sent += 1,
                Output::Request(token, Request::Publish(_)) => {
                    self.publishes += 1;
                    self.unanswered.push(token);
                }
                Output::Request(_, Request::Subscribe(asked)) => self.filters += asked.len(),
                Output::Request(..) | Output::Hint(_) => {}
                Output::Close(reason, _) => self.closed = Some(reason),
            }
        }
    }

    /// As the broker does: each publish was taken, and nobody wanted it.
    fn answer_publishes(&mut self) {
        for token in std::mem::take(&mut self.unanswered) {
            self.session.handle_reply(token, published(0), self.now);
        }
        self.drain();
    }

    /// The connection has ended with this reason code in DISCONNECT and this code in the WebSocket close.
    fn ended(&self, reason: u8, code: u16) {
        let close = self.closed.as_ref().map(|closed| closed.kind.code());
        assert_eq!(close, Some(code), "{:?}", self.closed);
        assert_eq!(self.last.first(), Some(&0xE0), "{:02X?}", self.last);
        assert_eq!(self.last.get(2), Some(&reason), "{:02X?}", self.last);
    }
}

/// What a flood costs above the heap before it: at its highest, and when it is over and its result still there.
fn cost<T>(flood: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let result = flood();
    let highest = HEAP.peak_usage().saturating_sub(before);
    (result, highest, HEAP.current_usage().saturating_sub(before))
}

/// One at a time; a failed one does not fail the others.
fn alone() -> impl Sized {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings() -> Settings {
    Settings { max_qos: QoS::ExactlyOnce, ..Settings::default() }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest & 0x7F).unwrap();
        rest >>= 7;
        bytes.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            bytes.extend_from_slice(body);
            return bytes;
        }
    }
}

fn field(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// A packet of SUBSCRIBE or UNSUBSCRIBE with this many filters of one character.
fn filters(version: Version, first: u8, count: usize) -> Bytes {
    let mut body = vec![0, 1];
    if version == V5 {
        body.push(0);
    }
    for _ in 0..count {
        body.extend_from_slice(if first == 0x82 { b"\0\x01a\0" } else { b"\0\x01a" });
    }
    Bytes::from(packet(first, &body))
}

#[test]
fn too_many_filters_are_refused_before_all_are_decoded() {
    let _turn = alone();
    for (version, first, count) in [
        (V5, 0x82, 262_000),
        (V3_1_1, 0x82, 262_000),
        (V5, 0xA2, 349_000),
        (V3_1_1, 0xA2, 349_000),
        (V5, 0x82, 4097),
    ] {
        let bytes = filters(version, first, count);
        let mut client = Flooded::online(version, &settings());
        let ((), highest, kept) = cost(|| client.say(bytes));
        assert!(highest <= MIB, "{highest} bytes for {count} filters of {first:02X} in {version:?}");
        assert!(kept <= NEXT_TO_NOTHING, "{kept} bytes are kept");
        assert_eq!(client.filters, 0, "the broker is not asked");
        if version == V5 {
            client.ended(0x97, 1009);
        } else {
            assert!(client.closed.is_some() && client.sent == 0, "a close without a word");
        }
    }
}

#[test]
fn as_many_filters_as_are_taken_cost_a_bounded_multiple() {
    let _turn = alone();
    for version in [V3_1_1, V5] {
        let bytes = filters(version, 0x82, 4096);
        let mut client = Flooded::online(version, &settings());
        let ((), highest, _) = cost(|| client.say(bytes));
        assert!(highest <= MIB, "{highest} bytes in {version:?}, more than the largest message has");
        assert_eq!(client.closed, None);
        assert!(client.filters > 0);
    }
}

#[test]
fn filters_of_plus_and_deep_topics_are_taken_up_to_the_limit() {
    let _turn = alone();
    let plus = |levels: usize| vec!["+"; levels].join("/");
    let mut client = Flooded::online(V5, &settings());
    let entries: Vec<u8> = (0..900).flat_map(|_| [field(&plus(128)), vec![0]].concat()).collect();
    let bytes = Bytes::from(packet(0x82, &[vec![0, 1, 0], entries].concat()));
    let packet_bytes = bytes.len();
    let ((), highest, _) = cost(|| client.say(bytes));
    assert!(highest <= 4 * packet_bytes, "{highest} bytes for {packet_bytes}");
    assert_eq!((client.filters, client.closed), (900, None));

    let mut client = Flooded::online(V5, &settings());
    client.say(Bytes::from(packet(0x82, &[vec![0, 1, 0], field(&plus(129)), vec![0]].concat())));
    assert_eq!(client.last.first(), Some(&0x90), "SUBACK");
    assert!(client.closed.is_none() && client.last.ends_with(&[0x8F]), "{:02X?}", client.last);

    let deep = |levels: usize| field(&vec!["a"; levels].join("/"));
    let mut client = Flooded::online(V5, &settings());
    let ((), highest, kept) = cost(|| {
        for _ in 0..2000 {
            client.say(Bytes::from(packet(0x30, &[deep(128), vec![0]].concat())));
        }
    });
    assert!(highest <= NEXT_TO_NOTHING && kept <= NEXT_TO_NOTHING, "{highest} bytes, {kept} kept");
    assert_eq!((client.publishes, &client.closed), (2000, &None));
    client.say(Bytes::from(packet(0x30, &[deep(129), vec![0]].concat())));
    client.ended(0x90, 1008);
}

#[test]
fn unacknowledged_publishes_end_at_receive_maximum() {
    let _turn = alone();
    for first in [0x32, 0x34] {
        let all: Vec<u8> = (1..=u16::MAX)
            .flat_map(|id| packet(first, &[&field("a")[..], &id.to_be_bytes(), &[0], b"x"].concat()))
            .collect();
        let mut client = Flooded::online(V5, &settings());
        let ((), highest, kept) = cost(|| client.say(Bytes::from(all)));
        assert!(highest <= NEXT_TO_NOTHING && kept <= NEXT_TO_NOTHING, "{highest} bytes, {kept} kept");
        assert_eq!(client.publishes, 256);
        client.ended(0x93, 1002);
    }
}

#[test]
fn mqtt_3_is_not_read_beyond_the_window() {
    let _turn = alone();
    let all: Vec<u8> = (1..=u16::MAX)
        .flat_map(|id| packet(0x32, &[&field("a")[..], &id.to_be_bytes(), b"x"].concat()))
        .collect();
    let all = Bytes::from(all);
    let mut client = Flooded::online(V3_1_1, &settings());
    let ((), highest, _) = cost(|| client.say(all.clone()));
    assert!(highest <= NEXT_TO_NOTHING, "{highest} bytes beside the message itself");
    assert_eq!((client.publishes, &client.closed), (256, &None));
    assert!(!client.session.wants().input, "the connection stops reading");
}

#[test]
fn aliases_keep_as_many_topics_as_were_announced() {
    let _turn = alone();
    let set = |alias: u16, name: &str| {
        let alias = alias.to_be_bytes();
        Bytes::from(packet(0x30, &[&field(name)[..], &[3, 0x23], &alias, b"x"].concat()))
    };
    let mut client = Flooded::online(V5, &settings());
    let ((), highest, kept) = cost(|| {
        for round in 0..2000u32 {
            let alias = u16::try_from(round % 16 + 1).unwrap();
            client.say(set(alias, &format!("{round:04096}")));
        }
    });
    assert!(kept <= 16 * 4096 + NEXT_TO_NOTHING, "{kept} bytes for 16 aliases");
    assert!(highest <= kept + NEXT_TO_NOTHING, "{highest} bytes");
    assert_eq!((client.publishes, &client.closed), (2000, &None));
    client.say(set(17, "a"));
    client.ended(0x94, 1002);
}

#[test]
fn user_properties_are_counted_before_they_are_kept() {
    let _turn = alone();
    let list = b"\x26\0\0\0\0".repeat(200_000);
    let length = packet(0, &list);
    for (first, before) in [(0x30, &b"\0\x01a"[..]), (0x82, b"\0\x01"), (0x40, b"\0\x01\0"), (0xE0, b"\0")] {
        let bytes = Bytes::from(packet(first, &[before, &length[1..], b"\0\x01a\0"].concat()));
        let mut client = Flooded::online(V5, &settings());
        let ((), highest, kept) = cost(|| client.say(bytes));
        assert!(
            highest <= NEXT_TO_NOTHING && kept <= NEXT_TO_NOTHING,
            "{highest} bytes, {kept} kept of {first:02X}"
        );
        client.ended(0x97, 1009);
    }
}

#[test]
fn a_claimed_length_allocates_nothing() {
    let _turn = alone();
    let clients: Vec<Flooded> = (0..500).map(|_| Flooded::online(V5, &settings())).collect();
    let (clients, _, kept) = cost(|| {
        let mut clients = clients;
        for client in &mut clients {
            client.say(Bytes::from_static(b"\x32\xF0\xFF\x3F\0\x01a\0\x01\0"));
        }
        clients
    });
    assert!(clients.iter().all(|client| client.closed.is_none()));
    assert!(kept <= 500 * 512, "{} bytes for each client that claims a mebibyte", kept / 500);
}

#[test]
fn a_packet_in_pieces_costs_what_came_of_it() {
    let _turn = alone();
    let body = [&field("a")[..], &[0], &vec![b'x'; 512 * KIB]].concat();
    let whole = packet(0x30, &body);
    let mut client = Flooded::online(V5, &settings());
    let ((), highest, kept) = cost(|| {
        for piece in whole.chunks(16) {
            client.say(Bytes::copy_from_slice(piece));
        }
    });
    assert_eq!((client.publishes, &client.closed), (1, &None));
    assert!(highest <= 4 * whole.len(), "{highest} bytes for a packet of {}", whole.len());
    assert!(kept <= NEXT_TO_NOTHING, "{kept} bytes are kept");
}

#[test]
fn a_message_of_small_packets_is_answered_one_by_one() {
    let _turn = alone();
    let pings = Bytes::from(b"\xC0\0".repeat(500_000));
    let mut client = Flooded::online(V3_1_1, &settings());
    let ((), highest, kept) = cost(|| client.say(pings));
    assert_eq!((client.sent, &client.closed), (500_000, &None));
    assert!(highest <= NEXT_TO_NOTHING && kept <= NEXT_TO_NOTHING, "{highest} bytes, {kept} kept");
}

#[test]
fn a_stranger_costs_no_more_than_the_smaller_limit() {
    let _turn = alone();
    let (session, highest, _) = cost(|| {
        let now = Flooded::online(V5, &settings()).now;
        let mut session = mqtt::open(None, &Arc::new(settings()), now);
        // CONNECT with a length below the limit, in messages of one byte, never whole.
        let head = packet(0x10, &vec![b'x'; 60 * KIB]);
        for byte in &head[..head.len() - 1] {
            session.handle_message(Message::Binary(Bytes::copy_from_slice(&[*byte])), now);
            assert!(session.poll_output().is_none());
        }
        session
    });
    assert!(highest <= 60 * KIB * 5, "{highest} bytes");
    drop(session);
}

#[test]
fn deliveries_stop_at_the_window_of_the_client() {
    let _turn = alone();
    let settings = Settings { max_inflight: 4096, ..settings() };
    let mut client = Flooded::online(V5, &settings);
    let ((), _, kept) = cost(|| {
        for tag in 0..4096 {
            assert!(client.session.wants().acked > 0, "{tag}");
            let publication = Publication::new(topic("a"), Bytes::from_static(b"x"));
            let delivery = delivery(publication, QoS::AtLeastOnce, tag);
            client.session.handle_delivery(delivery, client.now);
            client.drain();
        }
    });
    assert_eq!(client.session.wants().acked, 0, "[MQTT-4.9.0-2]");
    assert_eq!((client.sent, &client.closed), (4096, &None));
    assert!(kept <= 4096 * 64, "{kept} bytes for 4096 deliveries in flight");
}

/// A client that never says PUBREL: each identifier that waits for one counts against the window.
#[test]
fn identifiers_that_wait_for_pubrel_end_at_receive_maximum() {
    let _turn = alone();
    let mut client = Flooded::online(V5, &settings());
    let ((), highest, kept) = cost(|| {
        for id in 1..=u16::MAX {
            let body = [&field("a")[..], &id.to_be_bytes(), &[0], b"x"].concat();
            client.say(Bytes::from(packet(0x34, &body)));
            client.answer_publishes();
        }
    });
    assert!(highest <= NEXT_TO_NOTHING && kept <= NEXT_TO_NOTHING, "{highest} bytes, {kept} kept");
    assert_eq!(client.publishes, 256);
    client.ended(0x93, 1002);
}

/// Acknowledgements of nothing keep nothing: QoS 2 has two that a client may send for any identifier.
#[test]
fn releases_of_nothing_keep_nothing() {
    let _turn = alone();
    for (version, first) in [(V3_1_1, 0x62), (V5, 0x62), (V3_1_1, 0x70), (V5, 0x70)] {
        let all: Vec<u8> = (1..=u16::MAX).flat_map(|id| packet(first, &id.to_be_bytes())).collect();
        let mut client = Flooded::online(version, &settings());
        let ((), highest, kept) = cost(|| client.say(Bytes::from(all)));
        assert!(
            highest <= NEXT_TO_NOTHING && kept <= NEXT_TO_NOTHING,
            "{highest} bytes, {kept} kept of {first:02X}"
        );
    }
}

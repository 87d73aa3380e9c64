//! Sessions that outlive their connections, without sockets and protocols: requests go in, deliveries come out, time
//! is an argument (OASIS MQTT 5.0 §4.1, §4.3, §4.8.2). The same holds with a store: `mailbox_stored.rs` runs it again.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use tidegate::auth::{Anonymous, Authenticator, Peer};
use tidegate::broker::{Batch, Broker, Now, Rules};
use tidegate::client::Client;
use tidegate::durability::Durability;
use tidegate::metrics::Metrics;
use tidegate::outbox::queue::{Limits, Signals};
use tidegate::outbox::writer::{Socket, WriteLimits};
use tidegate::outbox::{Outbox, Shared};
use tidegate::retained::{Retained, RetainedLimits};
use tidegate::router::shared;
use tidegate::store::memory::MemoryStore;
use tidegate::store::{PageLimits, SessionKey, Settings, Writer};
use tidegate::topic_rules::TopicRules;
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    CloseKind, Connect, Connected, Copies, DropReason, InFlightState, LagNotice, Overflow, Publish, Refusal,
    Reply, Request, RetainHandling, Settlement, Subscribe, SubscriptionName, Tag, Wants, Will, WillFate,
};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::topic::{ShareName, Topic, TopicFilter, TopicLimits};

const QUEUE: usize = 10;
const HOUR: Duration = Duration::from_secs(3600);

/// Nobody waits for room.
const IMPATIENT: Limits = Limits {
    messages_max: QUEUE,
    bytes_max: 1 << 20,
    publish_wait: Duration::ZERO,
    slow_after: Duration::ZERO,
};

#[derive(Debug)]
struct Sink;

impl Socket for Sink {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
}

/// A broker and the time.
struct World {
    broker: Broker,
    now: Instant,
    connections: AtomicU64,
    /// With a store, every commit is waited for.
    durability: Option<Arc<Durability>>,
}

/// Whether this is the run with a store.
fn has_store() -> bool {
    module_path!().contains("stored")
}

/// A connection and what its session would know.
struct Guest {
    client: Client,
    outbox: Arc<Outbox>,
    connected: Connected,
}

/// A delivery as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    tag: Tag,
    payload: String,
}

impl World {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Rules)) -> Self {
        Self::with_limits(change, IMPATIENT)
    }

    fn with_limits(change: impl FnOnce(&mut Rules), limits: Limits) -> Self {
        Self::with_memory(change, limits, usize::MAX)
    }

    fn with_memory(change: impl FnOnce(&mut Rules), limits: Limits, total_bytes_max: usize) -> Self {
        let now = tokio::time::Instant::now().into_std();
        let metrics = Metrics::new(now);
        let mut rules = Rules {
            qos_max: ExactlyOnce,
            overflow_qos0: Overflow::DropOldest,
            overflow_qos1: Overflow::Disconnect,
            overflow_offline: Overflow::DropOldest,
            retain: true,
            retained_batch: 100,
            session_expiry_default: Duration::ZERO,
            session_expiry_max: 24 * HOUR,
            sessions_max: 100,
            shared_strategy: shared::Strategy::RoundRobin,
        };
        change(&mut rules);
        let shared = Shared {
            limits,
            write: WriteLimits { coalesce_bytes: 1 << 14, batch_bytes: 1 << 16 },
            publication_bytes: Arc::new(AtomicUsize::new(0)),
            entries: AtomicIsize::new(0),
            total_bytes_max,
            metrics: Arc::clone(&metrics),
        };
        let retained = Retained::new(RetainedLimits { messages_max: 100, bytes_max: 1 << 20 });
        let authenticator = Authenticator::new(Anonymous::Always);
        let rules_of_topics = TopicRules::new(Vec::new());
        let broker = Broker::new(rules, rules_of_topics, authenticator, retained, Arc::new(shared), metrics);
        let durability = has_store().then(|| {
            let writer = Writer::start(Arc::new(MemoryStore::new()), Settings::default(), 1).unwrap();
            let clock = || Now { instant: tokio::time::Instant::now().into_std(), unix_ms: 0 };
            Durability::new(writer, clock)
        });
        let broker = match &durability {
            Some(durability) => broker.with_durability(Arc::clone(durability)),
            None => broker,
        };
        Self { broker, now, connections: AtomicU64::new(0), durability }
    }

    /// Waits for the commits that a batch depends on, and pushes what waited for them.
    fn finish(&self, mut batch: Batch) {
        if let (Some(durability), Some(ticket)) = (&self.durability, batch.after.take()) {
            let (done, waiting) = mpsc::channel();
            let waiter = move || {
                let _ = done.send(());
            };
            durability.when_done(ticket, Arc::new(waiter));
            waiting.recv().unwrap();
            assert_eq!(durability.outcome(ticket), Some(Ok(())));
        }
        let now = Now { instant: self.now, unix_ms: 0 };
        while self.broker.push_committed(now, &mut batch) {}
        batch.flush(self.now);
    }

    /// Waits for the pages that were asked for: they are read in turn.
    fn finish_pages(&self) {
        let Some(durability) = &self.durability else { return };
        let (done, waiting) = mpsc::channel();
        let limits = PageLimits { count_max: 1, bytes_max: 1 };
        let deliver = Box::new(move |_| {
            let _ = done.send(());
        });
        durability.writer().load(SessionKey(0), 0, limits, deliver);
        waiting.recv().unwrap();
    }

    fn request(&self, client: &mut Client, request: Request) -> Option<Reply> {
        let peer = Peer { ip: [127, 0, 0, 1].into(), is_forwarded: false };
        let now = Now { instant: self.now, unix_ms: 0 };
        let mut batch = Batch::default();
        let reply = self.broker.handle(client, &peer, request, now, &mut batch);
        self.finish(batch);
        reply
    }

    fn try_connect(&self, connect: Connect) -> Result<Guest, Refusal> {
        let key = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = Arc::clone(self.broker.shared());
        let outbox = Outbox::new(key, Arc::new(Sink), None, shared, Family::Mqtt);
        let mut client = Client::new(Arc::clone(&outbox));
        match self.request(&mut client, Request::Connect(Box::new(connect))) {
            Some(Reply::Connected(connected)) => Ok(Guest { client, outbox, connected: *connected }),
            Some(Reply::Refused(refusal)) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    fn connect(&mut self, id: &str, expiry: Duration) -> Guest {
        self.try_connect(connect(id, false, expiry)).unwrap()
    }

    fn clean(&mut self, id: &str) -> Guest {
        self.try_connect(connect(id, true, Duration::ZERO)).unwrap()
    }

    fn leave(&self, mut guest: Guest) {
        self.end(&mut guest);
    }

    fn end(&self, guest: &mut Guest) {
        let mut batch = Batch::default();
        self.broker.leave(&mut guest.client, Now { instant: self.now, unix_ms: 0 }, &mut batch);
        self.finish(batch);
        guest.outbox.detach();
    }

    fn subscribe(&self, guest: &mut Guest, filter: &str, qos: QoS) {
        self.subscribe_as(guest, None, filter, qos);
    }

    fn subscribe_as(&self, guest: &mut Guest, group: Option<&str>, filter: &str, qos: QoS) {
        let subscribe = Subscribe {
            id: None,
            filter: self::filter(filter),
            group: group.map(|group| ShareName::parse(group, &TopicLimits::STANDARD).unwrap()),
            identifier: None,
            qos,
            forms: None,
            no_local: false,
            retain_as_published: false,
            retained: RetainHandling::Send,
            overflow: None,
            conflate: None,
            copies: Copies::PerClient,
            selector: None,
            durable: None,
            prefetch: None,
        };
        let reply = self.request(&mut guest.client, Request::Subscribe(vec![subscribe]));
        assert!(matches!(reply, Some(Reply::Subscribed(granted)) if granted[0].is_ok()));
    }

    fn publish(&mut self, payload: &str, qos: QoS) -> usize {
        let mut publisher = self.clean("publisher");
        let matched = self.publish_by(&mut publisher, payload, qos, None);
        self.leave(publisher);
        matched
    }

    fn publish_by(&self, by: &mut Guest, payload: &str, qos: QoS, packet_id: Option<u16>) -> usize {
        let publication = publication(payload, qos);
        match self.request(&mut by.client, publish(publication, packet_id)) {
            Some(Reply::Published(published)) => published.matched,
            other => panic!("{other:?}"),
        }
    }

    /// What the session is given, at most `count`; nothing is assigned yet.
    fn take(&self, guest: &mut Guest, count: usize) -> Vec<Got> {
        let wants = Wants { input: true, qos0: true, acked: usize::MAX };
        let mut got = Vec::new();
        while got.len() < count {
            self.broker.pull(&mut guest.client, Now { instant: self.now, unix_ms: 0 });
            let mut entries = Vec::new();
            let Some(first) = guest.client.take_for_session(&mut entries, 1, wants, self.now) else { break };
            if entries.is_empty() {
                let asked = guest.client.awaits_pages();
                self.finish_pages();
                if asked {
                    continue;
                }
                break;
            }
            got.extend(entries.into_iter().zip(first.0..).map(|(entry, tag)| Got {
                tag: Tag(tag),
                payload: String::from_utf8(entry.publication.payload.to_vec()).unwrap(),
            }));
            guest.outbox.put_back(&mut Vec::new(), 1);
        }
        got
    }

    fn assign(&self, guest: &mut Guest, got: &Got, packet_id: u16) {
        self.request(&mut guest.client, Request::Assign { tag: got.tag, packet_id });
    }

    fn settle(&self, guest: &mut Guest, tag: Tag) {
        self.request(&mut guest.client, Request::Settle { tag, settlement: Settlement::Accepted });
    }

    /// Takes, sends and settles all.
    fn drain(&self, guest: &mut Guest) -> Vec<String> {
        let got = self.take(guest, usize::MAX);
        for (got, packet_id) in got.iter().zip(1..) {
            self.assign(guest, got, packet_id);
            self.settle(guest, got.tag);
        }
        got.into_iter().map(|got| got.payload).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let mut batch = Batch::default();
        while self.broker.handle_deadlines(Now { instant: self.now, unix_ms: 0 }, &mut batch) {}
        self.finish(batch);
    }

    fn sessions(&self) -> u64 {
        self.broker.observe();
        self.broker.metrics().sessions.value()
    }

    fn queued(&self) -> usize {
        let Some(durability) = &self.durability else { return self.broker.shared().queued() };
        self.finish_pages();
        usize::try_from(durability.writer().store().stats().unwrap().messages).unwrap()
    }

    /// Drops because a connection or a session ended.
    fn closed(&self) -> u64 {
        self.broker.metrics().drops.value(DropReason::Closed)
    }
}

fn connect(id: &str, clean_start: bool, expiry: Duration) -> Connect {
    Connect {
        client_id: Some(id.into()),
        clean_start,
        session_expiry: Some(expiry),
        subscriptions_max: 100,
        forms: None,
        credentials: None,
        will: None,
        packet_bytes_max: None,
        lag: LagNotice::Silent,
    }
}

fn with_will(id: &str, clean_start: bool, expiry: Duration, delay: Duration) -> Connect {
    let will = Will { publication: publication("will", AtLeastOnce), delay, expiry: None };
    Connect { will: Some(Box::new(will)), ..connect(id, clean_start, expiry) }
}

fn publication(payload: &str, qos: QoS) -> Publication {
    let topic = Topic::parse("t", &TopicLimits::STANDARD).unwrap();
    let mut publication = Publication::new(topic, Bytes::copy_from_slice(payload.as_bytes()));
    publication.qos = qos;
    publication
}

fn retained(payload: &str, qos: QoS) -> Publication {
    let mut publication = publication(payload, qos);
    publication.retain = true;
    publication
}

fn publish(publication: Publication, packet_id: Option<u16>) -> Request {
    Request::Publish(Box::new(Publish { publication, packet_id }))
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &TopicLimits::STANDARD).unwrap()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

// ---- queueing while away ----

#[test]
fn what_is_published_while_the_client_is_away_comes_in_order_when_it_is_back() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    assert!(!guest.connected.session_present);
    world.subscribe(&mut guest, "t", ExactlyOnce);
    world.leave(guest);
    for number in 0..5 {
        assert_eq!(world.publish(&number.to_string(), AtLeastOnce), 1);
    }
    assert_eq!(world.publish("nobody is there", AtMostOnce), 0);
    assert_eq!(world.queued(), 5);
    let mut guest = world.connect("c", HOUR);
    assert!(guest.connected.session_present);
    assert_eq!(world.drain(&mut guest), numbers(0..5));
    assert_eq!(world.queued(), 0);
    world.publish("5", AtLeastOnce);
    assert_eq!(world.drain(&mut guest), ["5"], "its subscription goes on");
}

#[test]
fn beyond_the_limit_the_oldest_go_and_the_client_that_comes_back_is_told() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    for number in 0..QUEUE + 3 {
        world.publish(&number.to_string(), AtLeastOnce);
    }
    assert_eq!(world.queued(), QUEUE);
    let told = Connect { lag: LagNotice::Separate, ..connect("c", false, HOUR) };
    let mut guest = world.try_connect(told).unwrap();
    assert_eq!(guest.outbox.take_lag().map(|lag| lag.dropped), Some(3));
    assert_eq!(world.drain(&mut guest), numbers(3..QUEUE + 3));
}

#[test]
fn with_drop_newest_the_first_ones_stay() {
    let mut world = World::with(|rules| rules.overflow_offline = Overflow::DropNewest);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    for number in 0..QUEUE + 3 {
        world.publish(&number.to_string(), AtLeastOnce);
    }
    let mut guest = world.connect("c", HOUR);
    assert_eq!(world.drain(&mut guest), numbers(0..QUEUE));
}

#[test]
fn a_full_outbox_overflows_into_the_session_and_not_into_a_disconnect() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    for number in 0..2 * QUEUE {
        world.publish(&number.to_string(), AtLeastOnce);
    }
    assert!(guest.outbox.is_open());
    assert_eq!(world.drain(&mut guest), numbers(0..2 * QUEUE));
    assert_eq!(world.queued(), 0);
}

// ---- resume ----

#[test]
fn a_session_goes_on_with_what_was_sent_and_not_acknowledged() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", ExactlyOnce);
    for number in 0..4 {
        world.publish(&number.to_string(), ExactlyOnce);
    }
    let got = world.take(&mut guest, 3);
    world.assign(&mut guest, &got[0], 11);
    world.assign(&mut guest, &got[1], 12);
    world.request(&mut guest.client, Request::Received { tag: got[0].tag });
    // The third was handed over and not sent, the fourth is still queued.
    world.leave(guest);
    let mut guest = world.connect("c", HOUR);
    let resumed: Vec<_> = guest
        .connected
        .in_flight
        .iter()
        .map(|one| match &one.state {
            InFlightState::Received(tag) => (one.packet_id, *tag, None),
            InFlightState::Sent(delivery) => {
                (one.packet_id, delivery.tag, Some(delivery.publication.payload.clone()))
            }
        })
        .collect();
    assert_eq!(resumed, [(11, got[0].tag, None), (12, got[1].tag, Some(Bytes::from_static(b"1")))]);
    world.settle(&mut guest, got[0].tag);
    assert_eq!(world.drain(&mut guest), ["2", "3"]);
    world.leave(guest);
    let guest = world.connect("c", HOUR);
    let left: Vec<u16> = guest.connected.in_flight.iter().map(|one| one.packet_id).collect();
    assert_eq!(left, [12]);
}

#[test]
fn a_repeated_qos_2_publish_is_recognised_on_the_next_connection() {
    let mut world = World::new();
    let mut watcher = world.connect("w", HOUR);
    world.subscribe(&mut watcher, "t", ExactlyOnce);
    let mut guest = world.connect("c", HOUR);
    world.publish_by(&mut guest, "once", ExactlyOnce, Some(7));
    world.leave(guest);
    let mut guest = world.connect("c", HOUR);
    assert_eq!(guest.connected.received, [7]);
    world.publish_by(&mut guest, "once", ExactlyOnce, Some(7));
    assert_eq!(world.drain(&mut watcher), ["once"]);
    for known in [true, false] {
        let reply = world.request(&mut guest.client, Request::Release { packet_id: 7 });
        assert!(matches!(reply, Some(Reply::Released { packet_id: 7, known: found }) if found == known));
    }
    world.publish_by(&mut guest, "again", ExactlyOnce, Some(7));
    assert_eq!(world.drain(&mut watcher), ["again"]);
}

#[test]
fn a_refused_qos_2_publish_leaves_its_id_free() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    let mut publication = publication("x", ExactlyOnce);
    publication.topic = Topic::parse("$SYS/x", &TopicLimits::STANDARD).unwrap();
    let reply = world.request(&mut guest.client, publish(publication, Some(7)));
    assert!(matches!(reply, Some(Reply::Refused(_))));
    let reply = world.request(&mut guest.client, Request::Release { packet_id: 7 });
    assert!(matches!(reply, Some(Reply::Released { known: false, .. })));
}

// ---- takeover ----

#[test]
fn a_newer_connection_gets_what_the_older_one_had_queued_or_in_hand() {
    let mut world = World::new();
    let mut old = world.connect("c", HOUR);
    world.subscribe(&mut old, "t", ExactlyOnce);
    for number in 0..4 {
        world.publish(&number.to_string(), ExactlyOnce);
    }
    let in_hand = world.take(&mut old, 2);
    world.assign(&mut old, &in_hand[0], 1);
    let mut new = world.connect("c", HOUR);
    assert_eq!(old.outbox.order().map(|reason| reason.kind), Some(CloseKind::Replaced));
    assert_eq!(new.connected.in_flight.len(), 1);
    // What the older one says from here on changes nothing, and what it had in hand is not sent twice.
    world.settle(&mut old, in_hand[0].tag);
    world.assign(&mut old, &in_hand[1], 2);
    assert!(old.client.is_replaced());
    assert!(world.take(&mut old, 1).is_empty());
    assert_eq!(world.drain(&mut new), ["1", "2", "3"]);
    world.end(&mut old);
    world.publish("4", ExactlyOnce);
    assert_eq!(world.drain(&mut new), ["4"]);
    world.leave(new);
    assert_eq!(world.connect("c", HOUR).connected.in_flight.len(), 1);
}

#[test]
fn a_connection_that_was_replaced_gets_no_step_of_an_exchange_confirmed() {
    for clean_start in [false, true] {
        let mut world = World::new();
        let mut old = world.connect("c", HOUR);
        world.subscribe(&mut old, "t", ExactlyOnce);
        world.publish("1", ExactlyOnce);
        let got = world.take(&mut old, 1);
        world.assign(&mut old, &got[0], 7);
        world.publish_by(&mut old, "2", ExactlyOnce, Some(9));
        let _new = world.try_connect(connect("c", clean_start, HOUR)).unwrap();
        // A PUBREL or PUBCOMP now would end what the other connection is about to go on with.
        let received = world.request(&mut old.client, Request::Received { tag: got[0].tag });
        assert!(received.is_none(), "{received:?}");
        let released = world.request(&mut old.client, Request::Release { packet_id: 9 });
        assert!(released.is_none(), "{released:?}");
    }
}

/// Stops whoever wakes it until it may go on.
struct Gate {
    stands: mpsc::Sender<()>,
    may_pass: Mutex<mpsc::Receiver<()>>,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.stands.send(()).unwrap();
        let _ = self.may_pass.lock().unwrap().recv();
    }
}

/// A connection is replaced in the middle of a QoS 2 publish, which is repeated on the new one.
fn check_replaced_amid_a_publish(payload: &str) {
    let mut world = World::with_limits(|_| (), Limits { messages_max: 1, ..IMPATIENT });
    let mut watcher = world.connect("w", HOUR);
    world.subscribe(&mut watcher, "t", ExactlyOnce);
    assert!(world.drain(&mut watcher).is_empty(), "nothing is retained");
    world.leave(watcher);
    let mut blocked = world.clean("blocked");
    world.subscribe(&mut blocked, "t", AtMostOnce);
    let mut blocker = world.clean("blocker");
    let mut old = world.connect("c", HOUR);
    let (stands, is_blocked) = mpsc::channel();
    let (open, may_pass) = mpsc::channel();
    let gate = Waker::from(Arc::new(Gate { stands, may_pass: Mutex::new(may_pass) }));
    while !blocked.outbox.poll_signals(&gate).is_empty() {}
    let is_under_way = {
        let shared = Arc::clone(world.broker.shared());
        let size = payload.len();
        move || shared.publication_bytes.load(Ordering::Relaxed) >= size
    };
    let (world_, blocker_, old_) = (&world, &mut blocker, &mut old);
    let (reply, mut new) = std::thread::scope(|threads| {
        // Stops while it has the order of the topic, and the other one waits for that.
        threads.spawn(|| {
            world_.request(&mut blocker_.client, publish(retained("first", AtMostOnce), None));
        });
        is_blocked.recv().unwrap();
        let publishing = threads
            .spawn(|| world_.request(&mut old_.client, publish(retained(payload, ExactlyOnce), Some(7))));
        while !is_under_way() {
            std::thread::yield_now();
        }
        let new = world_.try_connect(connect("c", false, HOUR)).unwrap();
        open.send(()).unwrap();
        (publishing.join().unwrap(), new)
    });
    let is_published = matches!(reply, Some(Reply::Published(_)));
    assert_eq!(new.connected.received.contains(&7), is_published, "{reply:?}");
    world.publish_by(&mut new, "repeated", ExactlyOnce, Some(7));
    let expected = if is_published { payload } else { "repeated" };
    let mut watcher = world.connect("w", HOUR);
    assert_eq!(world.drain(&mut watcher), [expected]);
}

#[test]
fn a_publish_in_the_instant_of_a_takeover_is_known_afterwards_only_if_it_was_published() {
    check_replaced_amid_a_publish(&"x".repeat(1 << 13));
    check_replaced_amid_a_publish(&"more than may be retained".repeat(1 << 16));
}

#[test]
fn clean_start_ends_the_older_session_connected_or_not() {
    let mut world = World::new();
    for is_connected in [true, false] {
        let mut old = world.connect("c", HOUR);
        world.subscribe(&mut old, "t", AtLeastOnce);
        if !is_connected {
            world.end(&mut old);
        }
        world.publish("lost", AtLeastOnce);
        let mut new = world.try_connect(connect("c", true, HOUR)).unwrap();
        assert!(!new.connected.session_present);
        assert_eq!(world.publish("x", AtLeastOnce), 0);
        assert!(world.drain(&mut new).is_empty());
        world.end(&mut old);
        assert_eq!((world.sessions(), world.queued()), (1, 0));
        world.leave(new);
    }
}

#[test]
fn a_session_that_is_taken_up_without_an_expiry_ends_with_that_connection() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    let guest = world.connect("c", Duration::ZERO);
    assert!(guest.connected.session_present);
    world.leave(guest);
    assert_eq!((world.sessions(), world.publish("x", AtLeastOnce)), (0, 0));
}

// ---- expiry and limits ----

#[test]
fn a_session_ends_when_its_time_is_over_and_not_before() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.pass(2 * HOUR);
    world.leave(guest);
    world.pass(HOUR - Duration::from_secs(1));
    assert_eq!(world.publish("x", AtLeastOnce), 1);
    world.pass(Duration::from_secs(1));
    assert_eq!((world.sessions(), world.queued(), world.publish("x", AtLeastOnce)), (0, 0, 0));
    assert!(!world.connect("c", HOUR).connected.session_present);
}

#[test]
fn the_expiry_is_cut_and_may_change_at_the_goodbye() {
    let mut world = World::new();
    let mut guest = world.connect("c", 100 * HOUR);
    assert_eq!(guest.connected.session_expiry, 24 * HOUR);
    let goodbye = |session_expiry| Request::Disconnect { will: WillFate::Discard, session_expiry };
    world.request(&mut guest.client, goodbye(Some(HOUR)));
    world.leave(guest);
    world.pass(HOUR);
    assert_eq!(world.sessions(), 0);
    let mut guest = world.connect("c", HOUR);
    world.request(&mut guest.client, goodbye(Some(Duration::ZERO)));
    world.leave(guest);
    assert_eq!(world.sessions(), 0);
}

#[test]
fn there_are_no_more_sessions_than_allowed() {
    let mut world = World::with(|rules| rules.sessions_max = 2);
    let first = world.connect("a", HOUR);
    world.leave(first);
    let _second = world.connect("b", HOUR);
    let refused = world.try_connect(connect("c", false, HOUR)).err();
    assert_eq!(refused, Some(Refusal::Quota { name: "mqtt.max_sessions", limit: 2 }));
    world.clean("c");
    assert!(world.connect("a", HOUR).connected.session_present);
    // One takes the other's place.
    world.try_connect(connect("a", true, HOUR)).unwrap();
    assert_eq!(world.sessions(), 2);
}

// ---- limits ----

#[test]
fn a_publisher_is_told_of_a_session_over_its_mark_in_the_middle_of_a_batch() {
    let limits = Limits { messages_max: QUEUE, bytes_max: 1 << 20, publish_wait: HOUR, slow_after: HOUR };
    let mut world = World::with_limits(|_| (), limits);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    let mut publisher = world.clean("p");
    let peer = Peer { ip: [127, 0, 0, 1].into(), is_forwarded: false };
    let mut batch = Batch::default();
    for number in 0..=QUEUE {
        let publication = publication(&number.to_string(), AtLeastOnce);
        let request = publish(publication, None);
        let now = Now { instant: world.now, unix_ms: 0 };
        world.broker.handle(&mut publisher.client, &peer, request, now, &mut batch);
        assert_eq!(batch.slow.len(), usize::from(number == QUEUE), "after {number}");
    }
    batch.flush(world.now);
    assert_eq!(world.drain(&mut guest), numbers(0..QUEUE + 1));
}

/// Nobody gives up waiting for room.
const PATIENT: Limits = Limits { publish_wait: HOUR, slow_after: HOUR, ..IMPATIENT };

/// A client that comes back and finds a full queue of numbers from 0, and a publisher that is told of it.
fn behind_its_mark(world: &mut World, group: Option<&str>) -> (Guest, Guest) {
    let mut guest = world.connect("c", HOUR);
    world.subscribe_as(&mut guest, group, "t", AtLeastOnce);
    world.leave(guest);
    for number in 0..world.broker.shared().limits.messages_max {
        world.publish(&number.to_string(), AtLeastOnce);
    }
    (world.connect("c", HOUR), world.clean("p"))
}

/// Publishes, and gives whether the publisher has to wait. It waits then.
fn is_held(world: &World, publisher: &mut Guest, payload: &str) -> bool {
    is_held_at(world, publisher, payload, AtLeastOnce)
}

fn is_held_at(world: &World, publisher: &mut Guest, payload: &str, qos: QoS) -> bool {
    let peer = Peer { ip: [127, 0, 0, 1].into(), is_forwarded: false };
    let mut batch = Batch::default();
    let request = publish(publication(payload, qos), None);
    let now = Now { instant: world.now, unix_ms: 0 };
    world.broker.handle(&mut publisher.client, &peer, request, now, &mut batch);
    batch.flush(world.now);
    batch.slow.iter().any(|slow| slow.wait_for_room(&publisher.outbox))
}

fn is_let_go(publisher: &Guest) -> bool {
    publisher.outbox.poll_signals(Waker::noop()).contains(Signals::ROOM)
}

#[test]
fn a_publisher_at_qos_2_is_held_too() {
    let mut world = World::with_limits(|_| (), PATIENT);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", ExactlyOnce);
    for number in 0..=QUEUE {
        world.publish(&number.to_string(), ExactlyOnce);
    }
    let mut publisher = world.clean("p");
    assert!(is_held_at(&world, &mut publisher, "one more", ExactlyOnce));
    world.take(&mut guest, usize::MAX);
    assert!(is_let_go(&publisher));
}

#[test]
fn a_publisher_is_held_while_what_waits_in_both_queues_is_over_the_mark() {
    let mut world = World::with_limits(|_| (), PATIENT);
    let (mut guest, mut publisher) = behind_its_mark(&mut world, None);
    for number in QUEUE..QUEUE + 3 {
        assert!(is_held(&world, &mut publisher, &number.to_string()));
    }
    // Half of the mark is in the outbox, which has room; the others are behind it.
    let mut got = world.take(&mut guest, 3);
    assert!(!is_let_go(&publisher));
    assert!(guest.outbox.wait_for_room(&publisher.outbox), "as many as the mark still wait");
    got.extend(world.take(&mut guest, 1));
    assert!(is_let_go(&publisher));
    assert!(!guest.outbox.wait_for_room(&publisher.outbox));
    assert!(!is_held(&world, &mut publisher, "one more"), "there is room for it");
    got.extend(world.take(&mut guest, usize::MAX));
    let payloads: Vec<_> = got.into_iter().map(|got| got.payload).collect();
    let mut expected = numbers(0..QUEUE + 3);
    expected.push("one more".into());
    assert_eq!(payloads, expected);
    assert_eq!(world.broker.shared().queued(), 0);
}

#[test]
fn the_oldest_go_at_twice_the_mark_and_nobody_is_held_when_patience_is_spent() {
    let second = Duration::from_secs(1);
    for is_patient in [true, false] {
        let limits = Limits { publish_wait: second, slow_after: 10 * second, ..IMPATIENT };
        let mut world = World::with_limits(|_| (), limits);
        let (mut guest, mut publisher) = behind_its_mark(&mut world, None);
        assert!(is_held(&world, &mut publisher, &QUEUE.to_string()));
        world.now += if is_patient { second / 2 } else { second };
        for number in QUEUE + 1..2 * QUEUE {
            assert_eq!(is_held(&world, &mut publisher, &number.to_string()), is_patient, "{number}");
        }
        assert_eq!(world.queued(), 2 * QUEUE);
        for number in 2 * QUEUE..2 * QUEUE + 3 {
            assert_eq!(is_held(&world, &mut publisher, &number.to_string()), is_patient, "{number}");
        }
        assert_eq!(world.queued(), 2 * QUEUE);
        assert_eq!(world.drain(&mut guest), numbers(3..2 * QUEUE + 3));
    }
}

/// A client that comes back to a full queue and takes `taken` every millisecond, while four publish without a pause.
fn check_reader(limits: Limits, taken: usize, count: usize) {
    let queue = limits.messages_max;
    let mut world = World::with_limits(|_| (), limits);
    let (mut guest, one) = behind_its_mark(&mut world, None);
    let mut publishers = [one, world.clean("p2"), world.clean("p3"), world.clean("p4")];
    let (mut published, mut got) = (queue, Vec::new());
    while published < queue + count {
        for publisher in &mut publishers {
            while !guest.outbox.wait_for_room(&publisher.outbox) && published < queue + count {
                is_held(&world, publisher, &published.to_string());
                published += 1;
            }
        }
        world.now += Duration::from_millis(1);
        got.extend(world.take(&mut guest, taken));
    }
    got.extend(world.take(&mut guest, usize::MAX));
    let got: Vec<_> = got.into_iter().map(|got| got.payload).collect();
    assert_eq!(got, numbers(0..queue + count), "{taken} every millisecond");
}

#[test]
fn a_reader_is_waited_for_as_long_as_it_takes_the_mark_in_time_and_a_slower_one_for_a_while() {
    let limits = Limits {
        messages_max: 1000,
        bytes_max: 1 << 30,
        publish_wait: Duration::from_millis(200),
        slow_after: Duration::from_secs(1),
    };
    check_reader(limits.clone(), 5, 20_000);
    check_reader(limits, 3, 6000);
}

#[test]
fn a_publisher_is_let_go_when_what_waits_goes_another_way() {
    if has_store() {
        return; // what waits on the disk is not searched: it goes when its turn comes
    }
    for is_unsubscribed in [true, false] {
        let mut world = World::with_limits(|_| (), PATIENT);
        let (mut guest, mut publisher) = behind_its_mark(&mut world, Some("g"));
        assert!(is_held(&world, &mut publisher, "x"));
        if is_unsubscribed {
            let group = Some(ShareName::parse("g", &TopicLimits::STANDARD).unwrap());
            let name = SubscriptionName::Filter { group, filter: filter("t") };
            world.request(&mut guest.client, Request::Unsubscribe(vec![name]));
        } else {
            world.end(&mut guest);
        }
        assert!(is_let_go(&publisher), "unsubscribed: {is_unsubscribed}");
        assert!(!guest.outbox.wait_for_room(&publisher.outbox));
    }
}

#[test]
fn what_expires_while_it_waits_lets_the_publisher_go() {
    if has_store() {
        return; // what waits on the disk is not searched: it goes when its turn comes
    }
    let mut world = World::with_limits(|_| (), PATIENT);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    let mut publisher = world.clean("p");
    for number in 0..QUEUE {
        let mut publication = publication(&number.to_string(), AtLeastOnce);
        publication.expires_at = Some(world.now + Duration::from_secs(5));
        world.request(&mut publisher.client, publish(publication, None));
    }
    let mut guest = world.connect("c", HOUR);
    assert!(is_held(&world, &mut publisher, "x"));
    world.now += Duration::from_secs(5);
    world.broker.pull(&mut guest.client, Now { instant: world.now, unix_ms: 0 });
    assert!(is_let_go(&publisher));
    assert_eq!(world.drain(&mut guest), ["x"]);
}

#[test]
fn what_is_refused_for_want_of_memory_is_not_retained() {
    const MEMORY: usize = 1 << 18;
    for (is_away, expected) in [(true, "older"), (false, "newer")] {
        let mut world = World::with_memory(|_| (), IMPATIENT, MEMORY);
        let mut publisher = world.clean("p");
        let older = retained("older", AtLeastOnce);
        world.request(&mut publisher.client, publish(older, None));
        let mut waiting = world.connect("c", HOUR);
        world.subscribe(&mut waiting, if is_away { "t" } else { "elsewhere" }, AtLeastOnce);
        world.leave(waiting);
        let newer = format!("newer{}", " ".repeat(MEMORY));
        let newer = retained(&newer, AtLeastOnce);
        let reply = world.request(&mut publisher.client, publish(newer, None)).unwrap();
        assert_eq!(matches!(reply, Reply::Refused(Refusal::Overloaded(_))), is_away, "{reply:?}");
        let mut late = world.clean("late");
        world.subscribe(&mut late, "t", AtLeastOnce);
        let got = world.drain(&mut late);
        assert_eq!(got.iter().map(|got| got.trim_end()).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn a_full_queue_of_a_client_that_is_away_costs_no_look_at_all_of_it_for_each_message() {
    const MANY: usize = 20_000;
    let limits = Limits {
        messages_max: MANY,
        bytes_max: usize::MAX,
        publish_wait: Duration::ZERO,
        slow_after: Duration::ZERO,
    };
    let mut world = World::with_limits(|_| (), limits);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    let mut publisher = world.clean("p");
    let mut took = |count: usize| {
        let start = tokio::time::Instant::now();
        for _ in 0..count {
            world.publish_by(&mut publisher, "m", AtLeastOnce, None);
        }
        start.elapsed()
    };
    let filling = took(MANY);
    let full = took(MANY / 20);
    assert!(full < filling, "{full:?} for a twentieth of what took {filling:?}");
}

#[test]
fn what_has_expired_or_was_unsubscribed_makes_room_for_what_comes() {
    if has_store() {
        return; // what waits on the disk is not searched: the oldest goes
    }
    for drop in [Overflow::DropOldest, Overflow::DropNewest] {
        let mut world = World::with(|rules| rules.overflow_offline = drop);
        let mut guest = world.connect("c", HOUR);
        world.subscribe(&mut guest, "t", AtLeastOnce);
        world.leave(guest);
        for number in 0..QUEUE {
            let mut publisher = world.clean("p");
            let mut publication = publication(&number.to_string(), AtLeastOnce);
            publication.expires_at = number.is_multiple_of(2).then(|| world.now + Duration::from_secs(5));
            let request = publish(publication, None);
            world.request(&mut publisher.client, request);
            world.leave(publisher);
        }
        world.pass(Duration::from_secs(6));
        for number in QUEUE..QUEUE + QUEUE / 2 {
            world.publish(&number.to_string(), AtLeastOnce);
        }
        let mut guest = world.connect("c", HOUR);
        let odd = (0..QUEUE).filter(|number| !number.is_multiple_of(2));
        let expected: Vec<_> = odd.chain(QUEUE..QUEUE + QUEUE / 2).map(|number| number.to_string()).collect();
        assert_eq!(world.drain(&mut guest), expected, "{drop:?}");
    }
}

#[test]
fn all_that_is_retained_comes_to_a_new_subscription_whatever_its_mark_and_who_takes_it_over() {
    const RETAINED: usize = 5 * QUEUE;
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let mut world = World::new();
        let mut publisher = world.clean("p");
        for number in 0..RETAINED {
            let mut publication = retained(&number.to_string(), qos);
            publication.topic = Topic::parse(&format!("t/{number}"), &TopicLimits::STANDARD).unwrap();
            world.request(&mut publisher.client, publish(publication, None));
        }
        let mut guest = world.connect("c", HOUR);
        world.subscribe(&mut guest, "t/+", ExactlyOnce);
        let taken = world.take(&mut guest, QUEUE / 2);
        let mut got: BTreeSet<String> = taken.iter().map(|got| got.payload.clone()).collect();
        for got in &taken {
            world.settle(&mut guest, got.tag);
        }
        let mut live = publication("live", AtLeastOnce);
        live.topic = Topic::parse("t/live", &TopicLimits::STANDARD).unwrap();
        world.request(&mut publisher.client, publish(live, None));
        if qos > AtMostOnce {
            let mut old = std::mem::replace(&mut guest, world.connect("c", HOUR));
            world.end(&mut old);
        }
        let rest = world.drain(&mut guest);
        assert_eq!(got.len() + rest.len(), RETAINED + 1, "none comes twice: {qos:?}");
        got.extend(rest);
        assert_eq!(got.len(), RETAINED + 1, "{qos:?}");
        assert_eq!(world.queued(), 0);
    }
}

// ---- wills ----

#[test]
fn a_will_goes_at_its_delay_or_at_the_end_of_the_session() {
    let second = Duration::from_secs(1);
    for (expiry, delay, at) in [
        (HOUR, Duration::ZERO, Duration::ZERO),
        (HOUR, 5 * second, 5 * second),
        (3 * second, 5 * second, 3 * second),
        (Duration::ZERO, 5 * second, Duration::ZERO),
    ] {
        let mut world = World::new();
        let mut watcher = world.connect("w", HOUR);
        world.subscribe(&mut watcher, "t", AtLeastOnce);
        let guest = world.try_connect(with_will("c", false, expiry, delay)).unwrap();
        world.leave(guest);
        if !at.is_zero() {
            world.pass(at - Duration::from_millis(1));
            assert!(world.drain(&mut watcher).is_empty(), "{expiry:?} {delay:?}");
            world.pass(Duration::from_millis(1));
        }
        assert_eq!(world.drain(&mut watcher), ["will"], "{expiry:?} {delay:?}");
        world.pass(2 * HOUR);
        assert!(world.drain(&mut watcher).is_empty());
    }
}

#[test]
fn a_delayed_will_is_dropped_when_the_client_comes_back_unless_the_session_ends() {
    for (clean_start, is_away, expected) in
        [(false, true, 0), (false, false, 0), (true, true, 1), (true, false, 1)]
    {
        let mut world = World::new();
        let mut watcher = world.connect("w", HOUR);
        world.subscribe(&mut watcher, "t", AtLeastOnce);
        let mut guest = world.try_connect(with_will("c", false, HOUR, HOUR / 2)).unwrap();
        if is_away {
            world.end(&mut guest);
        }
        let _new = world.try_connect(connect("c", clean_start, HOUR)).unwrap();
        world.end(&mut guest);
        world.pass(2 * HOUR);
        assert_eq!(world.drain(&mut watcher).len(), expected, "clean {clean_start} away {is_away}");
    }
}

#[test]
fn a_will_that_is_due_is_published_though_the_client_comes_back_before_the_timer() {
    let second = Duration::from_secs(1);
    for (expiry, delay, clean_start) in
        [(3 * second, 5 * second, false), (3 * second, 5 * second, true), (HOUR, 5 * second, false)]
    {
        let mut world = World::new();
        let mut watcher = world.connect("w", HOUR);
        world.subscribe(&mut watcher, "t", AtLeastOnce);
        let guest = world.try_connect(with_will("c", false, expiry, delay)).unwrap();
        world.leave(guest);
        world.now += 5 * second;
        let _new = world.try_connect(connect("c", clean_start, HOUR)).unwrap();
        assert_eq!(world.drain(&mut watcher), ["will"], "{expiry:?} {clean_start}");
        world.pass(2 * HOUR);
        assert!(world.drain(&mut watcher).is_empty(), "{expiry:?} {clean_start}");
    }
}

// ---- groups ----

#[test]
fn a_group_shares_and_members_that_are_there_go_first() {
    let mut world = World::new();
    let mut one = world.clean("one");
    let mut two = world.connect("two", HOUR);
    for guest in [&mut one, &mut two] {
        world.subscribe_as(guest, Some("g"), "t", AtLeastOnce);
    }
    for number in 0..4 {
        assert_eq!(world.publish(&number.to_string(), AtLeastOnce), 1);
    }
    assert_eq!(
        (world.drain(&mut one), world.drain(&mut two)),
        (vec!["0".into(), "2".into()], vec!["1".into(), "3".into()])
    );
    world.leave(two);
    world.publish("4", AtLeastOnce);
    world.publish("5", AtLeastOnce);
    assert_eq!(world.drain(&mut one), ["4", "5"]);
    world.leave(one);
    world.publish("6", AtLeastOnce);
    let mut two = world.connect("two", HOUR);
    assert_eq!(world.drain(&mut two), ["6"], "nobody else was left");
}

#[test]
fn what_a_member_leaves_behind_goes_to_another() {
    let mut world = World::new();
    let mut one = world.clean("one");
    world.subscribe_as(&mut one, Some("g"), "t", ExactlyOnce);
    world.publish("sent at 1", AtLeastOnce);
    world.publish("sent at 2", ExactlyOnce);
    world.publish("in hand", AtLeastOnce);
    world.publish("queued", ExactlyOnce);
    let got = world.take(&mut one, 3);
    world.assign(&mut one, &got[0], 1);
    world.assign(&mut one, &got[1], 2);
    let mut two = world.clean("two");
    world.subscribe_as(&mut two, Some("g"), "t", ExactlyOnce);
    world.leave(one);
    // [MQTT-4.8.2-5]: what was sent at QoS 2 is not sent to another client.
    assert_eq!(world.drain(&mut two), ["sent at 1", "in hand", "queued"]);
    assert_eq!(world.queued(), 0);
    assert_eq!(world.closed(), 1, "it is counted as a drop instead");
}

/// In a group or not. What PUBREC came for is the client's, so it is not lost.
#[test]
fn what_was_sent_at_qos_2_is_a_drop_when_the_session_ends_before_pubrec() {
    for group in [None, Some("g")] {
        let mut world = World::new();
        let mut one = world.connect("one", HOUR);
        world.subscribe_as(&mut one, group, "t", ExactlyOnce);
        for payload in ["received", "sent", "finished"] {
            world.publish(payload, ExactlyOnce);
        }
        let got = world.take(&mut one, 3);
        for (got, packet_id) in got.iter().zip(1..) {
            world.assign(&mut one, got, packet_id);
        }
        world.request(&mut one.client, Request::Received { tag: got[0].tag });
        world.settle(&mut one, got[2].tag);
        world.leave(one);
        assert_eq!(world.closed(), 0, "{group:?}: the client may come back");
        world.pass(HOUR);
        assert_eq!((world.sessions(), world.closed(), world.queued()), (0, 1, 0), "{group:?}");
    }
}

#[test]
fn unsubscribing_and_the_end_of_a_session_hand_on_what_waits() {
    let mut world = World::new();
    let mut one = world.connect("one", HOUR);
    world.subscribe_as(&mut one, Some("g"), "t", AtLeastOnce);
    world.publish("a", AtLeastOnce);
    let mut two = world.clean("two");
    world.subscribe_as(&mut two, Some("g"), "t", AtLeastOnce);
    let group = Some(ShareName::parse("g", &TopicLimits::STANDARD).unwrap());
    let name = SubscriptionName::Filter { group, filter: filter("t") };
    let reply = world.request(&mut one.client, Request::Unsubscribe(vec![name]));
    assert!(matches!(reply, Some(Reply::Unsubscribed(existed)) if existed == [true]));
    assert_eq!(world.drain(&mut two), ["a"]);

    world.leave(two);
    world.subscribe_as(&mut one, Some("g"), "t", AtLeastOnce);
    world.leave(one);
    world.publish("b", AtLeastOnce);
    let mut two = world.clean("two");
    world.subscribe_as(&mut two, Some("g"), "t", AtLeastOnce);
    world.pass(HOUR);
    assert_eq!(world.drain(&mut two), ["b"]);
}

// ---- a random history ----

#[derive(Clone, Debug)]
enum Step {
    Publish(QoS),
    Connect,
    Leave,
    Take(usize),
    Send(usize),
    Receive(usize),
    Settle(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let qos = prop_oneof![Just(AtLeastOnce), Just(ExactlyOnce)];
    let step = prop_oneof![
        4 => qos.prop_map(Step::Publish),
        1 => Just(Step::Connect),
        1 => Just(Step::Leave),
        3 => (1usize..4).prop_map(Step::Take),
        3 => (1usize..4).prop_map(Step::Send),
        2 => (1usize..3).prop_map(Step::Receive),
        2 => (1usize..3).prop_map(Step::Settle),
    ];
    prop::collection::vec(step, 1..120)
}

/// The client's side: what it was sent under which identifier, and what the application got.
#[derive(Default)]
struct Device {
    in_hand: Vec<Got>,
    /// By packet identifier: tag, payload, QoS, whether PUBREC was sent.
    open: BTreeMap<u16, (Tag, String, QoS, bool)>,
    /// Identifiers of QoS 2 messages that it has and that are not released.
    known: BTreeSet<u16>,
    delivered: Vec<String>,
    next_id: u16,
}

impl Device {
    fn hear(&mut self, packet_id: u16, got: &Got, qos: QoS) {
        let is_new = qos == AtLeastOnce || self.known.insert(packet_id);
        if is_new {
            self.delivered.push(got.payload.clone());
        }
        self.open.insert(packet_id, (got.tag, got.payload.clone(), qos, false));
    }
}

fn qos_of(payload: &str) -> QoS {
    if payload.ends_with("two") { ExactlyOnce } else { AtLeastOnce }
}

/// Every message arrives, in order of its first arrival, and at QoS 2 exactly once, whatever happens in between.
fn check_history(steps: Vec<Step>) {
    let mut world = World::with(|_| ());
    let mut guest = Some(world.connect("c", HOUR));
    world.subscribe(guest.as_mut().unwrap(), "t", ExactlyOnce);
    let mut device = Device { next_id: 1, ..Device::default() };
    let mut published = Vec::new();
    let mut settled = BTreeSet::new();
    let finish = [Step::Connect, Step::Take(1000), Step::Send(1000), Step::Receive(1000), Step::Settle(1000)];
    for step in steps.into_iter().chain(finish) {
        match (step, &mut guest) {
            // Never more than the limits hold, so that nothing may be dropped.
            (Step::Publish(qos), _) if published.len() - settled.len() < QUEUE => {
                let word = if qos == ExactlyOnce { "two" } else { "one" };
                let payload = format!("{} {word}", published.len());
                assert_eq!(world.publish(&payload, qos), 1);
                published.push(payload);
            }
            (Step::Connect, _) => {
                // A takeover, if somebody is there.
                let mut old = guest.replace(world.connect("c", HOUR));
                device.in_hand.clear();
                device.open.clear();
                let new = guest.as_mut().unwrap();
                assert!(new.connected.session_present);
                for one in std::mem::take(&mut new.connected.in_flight) {
                    match one.state {
                        InFlightState::Received(tag) => {
                            device.open.insert(one.packet_id, (tag, String::new(), ExactlyOnce, true));
                        }
                        InFlightState::Sent(delivery) => {
                            let payload = String::from_utf8(delivery.publication.payload.to_vec()).unwrap();
                            let qos = qos_of(&payload);
                            device.hear(one.packet_id, &Got { tag: delivery.tag, payload }, qos);
                        }
                    }
                }
                if let Some(old) = &mut old {
                    world.end(old);
                }
            }
            (Step::Leave, Some(_)) => {
                world.leave(guest.take().unwrap());
                device.in_hand.clear();
                device.open.clear();
            }
            (Step::Take(count), Some(guest)) => device.in_hand.extend(world.take(guest, count)),
            (Step::Send(count), Some(guest)) => {
                let count = count.min(device.in_hand.len());
                for got in device.in_hand.drain(..count).collect::<Vec<_>>() {
                    let packet_id = device.next_id;
                    device.next_id += 1;
                    world.assign(guest, &got, packet_id);
                    device.hear(packet_id, &got, qos_of(&got.payload));
                }
            }
            (Step::Receive(count), Some(guest)) => {
                for (_, (tag, _, qos, received)) in device.open.iter_mut().take(count) {
                    if *qos == ExactlyOnce && !*received {
                        world.request(&mut guest.client, Request::Received { tag: *tag });
                        *received = true;
                    }
                }
            }
            (Step::Settle(count), Some(guest)) => {
                let done: Vec<u16> = device
                    .open
                    .iter()
                    .filter(|(_, (_, _, qos, received))| *qos == AtLeastOnce || *received)
                    .map(|(id, _)| *id)
                    .take(count)
                    .collect();
                for packet_id in done {
                    let (tag, ..) = device.open.remove(&packet_id).unwrap();
                    device.known.remove(&packet_id);
                    world.settle(guest, tag);
                    settled.insert(tag);
                }
            }
            _ => {}
        }
    }
    let mut first_arrivals: Vec<&String> = Vec::new();
    for payload in &device.delivered {
        if !first_arrivals.contains(&payload) {
            first_arrivals.push(payload);
        } else {
            assert_eq!(qos_of(payload), AtLeastOnce, "{payload} came twice");
        }
    }
    assert_eq!(first_arrivals, published.iter().collect::<Vec<_>>());
    assert_eq!(world.queued(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_and_qos_2_arrives_once(history in steps()) {
        check_history(history);
    }
}

//! What a broker finds after a crash, without processes and disks: requests go in, the store is copied as it is after the
//! last commit, another broker begins with the copy. Time is an argument, by both clocks (DESIGN §8).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::io::{self, IoSlice};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate::auth::{Anonymous, Authenticator, Peer};
use tidegate::broker::{Batch, Broker, Now, Rules};
use tidegate::client::Client;
use tidegate::durability::Durability;
use tidegate::metrics::Metrics;
use tidegate::outbox::queue::Limits;
use tidegate::outbox::writer::{Socket, WriteLimits};
use tidegate::outbox::{Outbox, Shared};
use tidegate::retained::{Retained, RetainedLimits};
use tidegate::router::shared;
use tidegate::store::memory::MemoryStore;
use tidegate::store::{
    Change, CheckReport, Page, PageLimits, Progress, PublicationRecord, Recovered, RecoveredSession,
    Recovery, SessionKey, Settings, StatsReport, Store, StoreError, Writer,
};
use tidegate::topic_rules::TopicRules;
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    Connect, Connected, Copies, LagNotice, Overflow, Publish, Refusal, Reply, Request, RetainHandling,
    Subscribe, SubscriptionName, Wants, Will, WillFate,
};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::topic::{ShareName, Topic, TopicFilter, TopicLimits};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// As the clock stands when the first broker starts.
const START_MS: u64 = 1_800_000_000_000;

#[derive(Debug)]
struct Sink;

impl Socket for Sink {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
}

/// The memory store on a disk that may fail.
struct Disk {
    memory: MemoryStore,
    is_broken: AtomicBool,
}

impl Store for Disk {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(StoreError::Io { kind: io::ErrorKind::StorageFull, reason: "full".to_owned() });
        }
        self.memory.commit(changes)
    }

    fn load_queue(&self, key: SessionKey, from_seq: u64, limits: PageLimits) -> Result<Page, StoreError> {
        self.memory.load_queue(key, from_seq, limits)
    }

    fn recover(
        &self,
        visit: &mut dyn FnMut(Recovered),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Recovery, StoreError> {
        self.memory.recover(visit, progress)
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        self.memory.maintain()
    }

    fn disk_bytes(&self) -> u64 {
        self.memory.disk_bytes()
    }

    fn stats(&self) -> Result<StatsReport, StoreError> {
        self.memory.stats()
    }

    fn check(&self) -> Result<CheckReport, StoreError> {
        self.memory.check()
    }

    fn backup(&self, directory: &Path) -> Result<(), StoreError> {
        self.memory.backup(directory)
    }
}

/// One run of a broker.
struct Run {
    broker: Broker,
    writer: Writer,
    disk: Arc<Disk>,
    now: Now,
    connections: AtomicU64,
}

/// A connection and what its session would know.
struct Guest {
    client: Client,
    outbox: Arc<Outbox>,
    connected: Connected,
}

fn clock() -> Now {
    Now { instant: instant(), unix_ms: START_MS }
}

fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Run {
    fn first() -> Self {
        Self::start(MemoryStore::new(), clock(), |_| ())
    }

    fn start(memory: MemoryStore, now: Now, change: impl FnOnce(&mut Rules)) -> Self {
        let disk = Arc::new(Disk { memory, is_broken: AtomicBool::new(false) });
        let mut recovered = Vec::new();
        let recovery = disk.recover(&mut |one| recovered.push(one), &mut |_| ()).unwrap();
        let store: Arc<dyn Store> = Arc::clone(&disk) as _;
        let writer = Writer::start(store, Settings::default(), recovery.next_body).unwrap();
        let broker = broker(change).with_durability(Durability::new(writer.clone(), clock));
        for one in recovered {
            // What the limits leave out is for the test to miss.
            let _ = broker.restore(one, now);
        }
        broker.finish_restoring(&recovery, now);
        Self { broker, writer, disk, now, connections: AtomicU64::new(0) }
    }

    /// Waits for all that was handed over.
    fn settle(&self) {
        let ticket = self.writer.submit(Vec::new()).unwrap();
        let (done, is_done) = mpsc::channel();
        // The receiver is gone only when the test has failed.
        self.writer.when_done(ticket, Arc::new(move || _ = done.send(())));
        is_done.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    /// Ends in the middle of everything; another broker starts after this time.
    fn crash(self, down: Duration) -> Self {
        self.crash_and_start(down, |_| ())
    }

    fn crash_and_start(self, down: Duration, change: impl FnOnce(&mut Rules)) -> Self {
        self.settle();
        let after = self.disk.memory.copy();
        let unix_ms = self.now.unix_ms + u64::try_from(down.as_millis()).unwrap();
        // Its instants mean nothing to the next one.
        let now = Now { instant: self.now.instant + 7 * HOUR, unix_ms };
        let Self { broker, writer, .. } = self;
        writer.stop();
        drop(broker);
        Self::start(after, now, change)
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
        let mut batch = Batch::default();
        while self.broker.handle_deadlines(self.now, &mut batch) {}
        batch.flush(self.now.instant);
    }

    /// The sessions on the disk.
    fn stored(&self) -> Vec<RecoveredSession> {
        self.settle();
        let mut sessions = Vec::new();
        let mut visit = |one| match one {
            Recovered::Session(session) => sessions.push(*session),
            Recovered::Retained(_) => {}
        };
        self.disk.memory.copy().recover(&mut visit, &mut |_| ()).unwrap();
        sessions
    }

    fn names(&self) -> Vec<String> {
        self.stored().into_iter().map(|session| session.record.name.into()).collect()
    }

    fn request(&self, client: &mut Client, request: Request) -> (Option<Reply>, bool) {
        let peer = Peer { ip: [127, 0, 0, 1].into(), is_forwarded: false };
        let mut batch = Batch::default();
        let reply = self.broker.handle(client, &peer, request, self.now, &mut batch);
        batch.flush(self.now.instant);
        (reply, batch.after.is_some())
    }

    fn try_connect(&self, connect: Connect) -> (Result<Guest, Refusal>, bool) {
        let key = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let outbox = Outbox::new(key, Arc::new(Sink), None, Arc::clone(self.broker.shared()), Family::Mqtt);
        let mut client = Client::new(Arc::clone(&outbox));
        let (reply, waits) = self.request(&mut client, Request::Connect(Box::new(connect)));
        let result = match reply {
            Some(Reply::Connected(connected)) => Ok(Guest { client, outbox, connected: *connected }),
            Some(Reply::Refused(refusal)) => {
                self.broker.leave(&mut client, self.now, &mut Batch::default());
                Err(refusal)
            }
            other => panic!("{other:?}"),
        };
        (result, waits)
    }

    fn connect(&self, connect: Connect) -> Guest {
        self.try_connect(connect).0.unwrap()
    }

    fn resume(&self, id: &str) -> Guest {
        self.connect(connect(id, false, HOUR))
    }

    fn is_present(&self, id: &str) -> bool {
        self.resume(id).connected.session_present
    }

    fn leave(&self, mut guest: Guest) {
        let mut batch = Batch::default();
        self.broker.leave(&mut guest.client, self.now, &mut batch);
        batch.flush(self.now.instant);
        guest.outbox.detach();
    }

    fn subscribe(&self, guest: &mut Guest, subscribe: Subscribe) -> (Result<QoS, Refusal>, bool) {
        let (reply, waits) = self.request(&mut guest.client, Request::Subscribe(vec![subscribe]));
        let Some(Reply::Subscribed(mut results)) = reply else { panic!("{reply:?}") };
        (results.remove(0).map(|granted| granted.qos), waits)
    }

    /// To how many a message goes.
    fn publish(&self, topic: &str) -> usize {
        let mut publisher = self.connect(connect("publisher", true, Duration::ZERO));
        let publication = publication(topic, "x", false);
        let request = Request::Publish(Box::new(Publish { publication, packet_id: None }));
        let (reply, _) = self.request(&mut publisher.client, request);
        let Some(Reply::Published(published)) = reply else { panic!("{reply:?}") };
        self.leave(publisher);
        published.matched
    }

    /// What is retained below `#`.
    fn retained(&self) -> Vec<String> {
        let mut guest = self.connect(connect("reader", true, Duration::ZERO));
        self.subscribe(&mut guest, subscribe("#", QoS::AtMostOnce)).0.unwrap();
        self.broker.pull(&mut guest.client, self.now.instant);
        let mut entries = Vec::new();
        let wants = Wants { input: true, qos0: true, acked: usize::MAX };
        guest.client.take_for_session(&mut entries, 100, wants, self.now.instant).unwrap();
        self.leave(guest);
        let text = |payload: &Bytes| String::from_utf8(payload.to_vec()).unwrap();
        let mut found: Vec<_> = entries.iter().map(|entry| text(&entry.publication.payload)).collect();
        found.sort_unstable(); // topics come in no order
        found
    }
}

fn broker(change: impl FnOnce(&mut Rules)) -> Broker {
    let metrics = Metrics::new(instant());
    let mut rules = Rules {
        qos_max: QoS::ExactlyOnce,
        overflow_qos0: Overflow::DropOldest,
        overflow_qos1: Overflow::Disconnect,
        overflow_offline: Overflow::DropOldest,
        retain: true,
        retained_batch: 100,
        session_expiry_default: Duration::ZERO,
        session_expiry_max: Duration::from_secs(u32::MAX.into()),
        sessions_max: 100,
        queues: Default::default(),
        shared_strategy: shared::Strategy::RoundRobin,
    };
    change(&mut rules);
    let limits = Limits {
        messages_max: 100,
        bytes_max: 1 << 20,
        publish_wait: Duration::ZERO,
        slow_after: Duration::ZERO,
    };
    let shared = Shared {
        limits,
        write: WriteLimits { coalesce_bytes: 1 << 14, batch_bytes: 1 << 16 },
        publication_bytes: Arc::new(AtomicUsize::new(0)),
        entries: AtomicIsize::new(0),
        total_bytes_max: usize::MAX,
        metrics: Arc::clone(&metrics),
    };
    let retained = Retained::new(RetainedLimits { messages_max: 3, bytes_max: 1 << 20 });
    let authenticator = Authenticator::new(Anonymous::Always);
    Broker::new(rules, TopicRules::new(Vec::new()), authenticator, retained, Arc::new(shared), metrics)
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

/// The will is retained, so that whoever looks finds it.
fn with_will(id: &str, expiry: Duration, delay: Duration) -> Connect {
    let publication = publication("will", "gone", true);
    let will = Will { publication, delay, expiry: None };
    Connect { will: Some(Box::new(will)), ..connect(id, false, expiry) }
}

fn subscribe(filter: &str, qos: QoS) -> Subscribe {
    Subscribe {
        id: None,
        filter: self::filter(filter),
        group: None,
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
        head: None,
        durable: None,
        prefetch: None,
    }
}

fn publication(topic: &str, payload: &str, retain: bool) -> Publication {
    let topic = Topic::parse(topic, &TopicLimits::STANDARD).unwrap();
    let mut publication = Publication::new(topic, Bytes::copy_from_slice(payload.as_bytes()));
    publication.qos = QoS::AtLeastOnce;
    publication.retain = retain;
    publication
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &TopicLimits::STANDARD).unwrap()
}

fn retained(topic: &str, expires_at_ms: Option<u64>) -> Change {
    Change::PutRetained(Box::new(PublicationRecord::new(&publication(topic, topic, true), expires_at_ms)))
}

// ---- sessions and subscriptions ----

#[test]
fn a_session_and_its_subscriptions_survive() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a/+", QoS::AtLeastOnce)).0.unwrap();
    let group = Some(ShareName::parse("g", &TopicLimits::STANDARD).unwrap());
    run.subscribe(&mut guest, Subscribe { group, ..subscribe("b", QoS::AtLeastOnce) }).0.unwrap();
    let run = run.crash(MINUTE);
    for (topic, count) in [("a/1", 1), ("b", 1), ("c", 0)] {
        assert_eq!(run.publish(topic), count, "{topic}");
    }
    let mut guest = run.resume("c");
    assert!(guest.connected.session_present);
    let names = [
        (SubscriptionName::Filter { group: None, filter: filter("a/+") }, true),
        (SubscriptionName::Filter { group: None, filter: filter("b") }, false),
    ];
    let (names, known): (Vec<_>, Vec<_>) = names.into_iter().unzip();
    let (reply, _) = run.request(&mut guest.client, Request::Unsubscribe(names));
    assert!(matches!(reply, Some(Reply::Unsubscribed(found)) if found == known));
    let run = run.crash(MINUTE);
    assert_eq!((run.publish("a/1"), run.publish("b")), (0, 1), "what was unsubscribed stays so");
}

#[test]
fn every_option_of_a_subscription_survives() {
    let run = Run::first();
    let mut guest = run.resume("c");
    let asked = Subscribe {
        identifier: NonZeroU32::new(7),
        no_local: true,
        retain_as_published: true,
        overflow: Some(Overflow::DropNewest),
        conflate: Some(Duration::from_millis(250)),
        copies: Copies::PerSubscription,
        ..subscribe("a", QoS::ExactlyOnce)
    };
    run.subscribe(&mut guest, subscribe("a", QoS::AtMostOnce)).0.unwrap();
    run.subscribe(&mut guest, asked).0.unwrap();
    let before = run.stored();
    assert_eq!(before[0].subscriptions.len(), 1, "the second took the place of the first");
    let found = &before[0].subscriptions[0];
    assert_eq!((found.qos, found.no_local, found.retain_as_published), (QoS::ExactlyOnce, true, true));
    assert_eq!((found.identifier, found.conflate_ms), (NonZeroU32::new(7), Some(250)));
    assert_eq!((found.overflow, found.copies), (Overflow::DropNewest, Copies::PerSubscription));
    // Found again, and stored again as it was by whoever subscribes in its place.
    let run = run.crash(MINUTE);
    let guest = run.resume("c");
    assert_eq!(run.publish("a"), 1);
    assert_eq!(run.stored()[0].subscriptions, before[0].subscriptions);
    run.leave(guest);
}

#[test]
fn only_what_outlives_its_connection_waits_for_the_store() {
    let run = Run::first();
    for (id, expiry, waits) in [("short", Duration::ZERO, false), ("long", HOUR, true)] {
        let (guest, has_waited) = run.try_connect(connect(id, true, expiry));
        assert_eq!(has_waited, waits, "CONNACK of {id}");
        let mut guest = guest.unwrap();
        assert_eq!(run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).1, waits, "SUBACK of {id}");
        let name = SubscriptionName::Filter { group: None, filter: filter("a") };
        let (_, has_waited) = run.request(&mut guest.client, Request::Unsubscribe(vec![name]));
        assert_eq!(has_waited, waits, "UNSUBACK of {id}");
    }
    assert_eq!(run.names(), ["long"]);
}

#[test]
fn numbers_go_on_behind_those_that_were_there() {
    let run = Run::first();
    run.resume("a");
    run.resume("b");
    let known = run.stored();
    let run = run.crash(MINUTE);
    let mut guest = run.resume("a");
    for topic in ["1", "2"] {
        run.subscribe(&mut guest, subscribe(topic, QoS::AtLeastOnce)).0.unwrap();
    }
    let run = run.crash(MINUTE);
    let mut guest = run.resume("a");
    run.subscribe(&mut guest, subscribe("3", QoS::AtLeastOnce)).0.unwrap();
    run.resume("c");
    let found = run.stored();
    assert_eq!([found[0].key, found[1].key], [known[0].key, known[1].key]);
    assert!(found[2].key > known[1].key);
    let mut ids: Vec<_> = found[0].subscriptions.iter().map(|one| one.key.id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "two subscriptions with one id: {found:?}");
}

#[test]
fn qos_2_identifiers_survive() {
    let run = Run::first();
    run.resume("c");
    let key = run.stored()[0].key;
    run.writer.submit(vec![Change::InsertReceived(key, 9), Change::InsertReceived(key, 4)]).unwrap();
    assert_eq!(run.crash(MINUTE).resume("c").connected.received, [4, 9]);
}

// ---- ends ----

#[test]
fn time_goes_on_while_the_broker_is_down() {
    let run = Run::first();
    run.leave(run.resume("c"));
    let mut run = run.crash(40 * MINUTE);
    assert_eq!(run.names(), ["c"]);
    run.pass(19 * MINUTE);
    assert_eq!(run.names(), ["c"]);
    run.pass(2 * MINUTE);
    assert!(run.names().is_empty(), "an hour after it had left");
    run.leave(run.resume("d"));
    let run = run.crash(61 * MINUTE);
    assert!(run.names().is_empty());
    assert_eq!(run.broker.metrics().sessions_away.value(), 0);
    assert!(!run.is_present("d"));
}

#[test]
fn who_was_connected_at_the_crash_is_away_from_the_start_on() {
    let run = Run::first();
    let _connected = run.resume("c");
    let mut run = run.crash(5 * HOUR);
    run.pass(59 * MINUTE);
    assert_eq!(run.names(), ["c"]);
    assert_eq!(run.broker.metrics().sessions_away.value(), 1);
    run.pass(2 * MINUTE);
    assert!(run.names().is_empty());
}

#[test]
fn another_crash_does_not_begin_the_time_of_a_session_and_of_its_will_anew() {
    let run = Run::first();
    let _connected_to_the_end = run.connect(with_will("c", HOUR, 50 * MINUTE));
    let run = run.crash(MINUTE).crash(40 * MINUTE);
    assert_eq!(run.retained().len(), 0);
    let run = run.crash(15 * MINUTE);
    assert_eq!(run.retained(), ["gone"], "55 minutes after the first start");
    assert!(!run.crash(10 * MINUTE).is_present("c"));
}

#[test]
fn a_session_without_end_has_none_after_a_restart_either() {
    let run = Run::first();
    let forever = Duration::from_secs(u32::MAX.into());
    run.leave(run.connect(connect("c", false, forever)));
    let run = run.crash(365 * 24 * HOUR).crash(365 * 24 * HOUR);
    assert!(run.is_present("c"));
    assert_eq!(run.broker.metrics().sessions_away.value(), 0);
}

#[test]
fn deleted_sessions_stay_deleted() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    let (again, waits) = run.try_connect(connect("c", true, Duration::ZERO));
    assert!(again.is_ok() && waits, "nobody is told before the store is");
    let run = run.crash(MINUTE);
    assert!(!run.is_present("c"));
    assert_eq!(run.publish("a"), 0);

    // A new one in its place has nothing of it.
    let mut guest = run.resume("d");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    run.connect(connect("d", true, HOUR));
    let run = run.crash(MINUTE);
    assert_eq!(run.publish("a"), 0);
    assert!(run.is_present("d"));

    // It ends with its last connection, at the goodbye.
    let mut guest = run.resume("e");
    let goodbye = Request::Disconnect { will: WillFate::Discard, session_expiry: Some(Duration::ZERO) };
    run.request(&mut guest.client, goodbye);
    run.leave(guest);
    assert!(!run.names().contains(&"e".to_owned()));
}

#[test]
fn a_longer_expiry_at_the_goodbye_holds_after_a_restart() {
    let run = Run::first();
    let mut guest = run.resume("c");
    let goodbye = Request::Disconnect { will: WillFate::Discard, session_expiry: Some(5 * HOUR) };
    run.request(&mut guest.client, goodbye);
    run.leave(guest);
    let run = run.crash(4 * HOUR);
    assert!(run.is_present("c"));
}

#[test]
fn of_two_sessions_of_one_name_the_later_one_stays() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    let first = run.stored().remove(0);
    let later = SessionKey(first.key.0 + 1);
    run.writer.submit(vec![Change::PutSession(later, Box::new(first.record))]).unwrap();
    let run = run.crash(MINUTE);
    assert_eq!(run.publish("a"), 0);
    assert!(run.is_present("c"));
    let found = run.stored();
    assert_eq!(found.iter().map(|session| session.key).collect::<Vec<_>>(), [later]);
    run.broker.observe();
    assert_eq!(run.broker.metrics().sessions.value(), 1);
}

// ---- wills ----

#[test]
fn a_will_comes_when_its_delay_is_over() {
    let away = Run::first();
    away.leave(away.connect(with_will("c", HOUR, 10 * MINUTE)));
    let mut run = away.crash(5 * MINUTE);
    run.pass(4 * MINUTE);
    assert!(run.retained().is_empty());
    run.pass(2 * MINUTE);
    assert_eq!(run.retained(), ["gone"]);
    assert_eq!(run.stored()[0].record.will, None, "it is published once");

    // It was due while the broker was down; of a session that goes on, and of one that is over.
    for down in [20 * MINUTE, 2 * HOUR] {
        let away = Run::first();
        away.leave(away.connect(with_will("c", HOUR, 10 * MINUTE)));
        let run = away.crash(down);
        assert_eq!(run.retained(), ["gone"], "{down:?}");
        assert_eq!(run.names().is_empty(), down > HOUR, "{down:?}");
    }
}

#[test]
fn the_will_of_who_was_connected_at_the_crash_has_its_delay_before_it() {
    let run = Run::first();
    let _connected = run.connect(with_will("c", HOUR, 10 * MINUTE));
    let mut run = run.crash(20 * MINUTE);
    assert!(run.retained().is_empty());
    run.pass(11 * MINUTE);
    assert_eq!(run.retained(), ["gone"]);

    let run = Run::first();
    let _connected = run.connect(with_will("c", HOUR, Duration::ZERO));
    assert_eq!(run.crash(MINUTE).retained(), ["gone"], "without a delay it is due at once");
}

#[test]
fn who_comes_back_in_time_has_no_will() {
    let run = Run::first();
    run.leave(run.connect(with_will("c", HOUR, 10 * MINUTE)));
    let run = run.crash(MINUTE);
    run.leave(run.resume("c"));
    let mut run = run.crash(MINUTE);
    run.pass(30 * MINUTE);
    assert!(run.retained().is_empty());
    assert_eq!(run.names(), ["c"]);
}

// ---- retained ----

#[test]
fn retained_messages_survive_until_they_expire() {
    let run = Run::first();
    let in_minutes = |minutes: u64| START_MS + minutes * 60_000;
    let changes = [("a", None), ("b", Some(in_minutes(10))), ("c", Some(in_minutes(3)))];
    let changes = changes.iter().map(|(topic, expires_at_ms)| retained(topic, *expires_at_ms)).collect();
    run.writer.submit(changes).unwrap();
    let mut run = run.crash(5 * MINUTE);
    assert_eq!(run.retained(), ["a", "b"]);
    let stats = |run: &Run| {
        run.settle();
        run.disk.stats().unwrap().retained
    };
    assert_eq!(stats(&run), 2, "what has expired is removed from the disk too");
    run.pass(6 * MINUTE);
    assert_eq!(run.retained(), ["a"]);
    run.broker.sweep(run.now.instant);
    assert_eq!(stats(&run), 1, "without a restart, too");
}

#[test]
fn retained_messages_that_do_not_fit_any_more_stay_on_the_disk() {
    let run = Run::first();
    run.writer.submit(["a", "b", "c", "d"].map(|topic| retained(topic, None)).into()).unwrap();
    let run = run.crash(MINUTE);
    assert_eq!(run.retained().len(), 3, "as many as the limit has room for");
    let run = run.crash_and_start(MINUTE, |rules| rules.retain = false);
    assert!(run.retained().is_empty());
    assert_eq!(run.disk.stats().unwrap().retained, 4);
}

// ---- messages ----

#[test]
fn what_waits_for_its_commit_goes_to_another_member_when_its_own_has_ended() {
    let run = Run::first();
    let group = || Some(ShareName::parse("g", &TopicLimits::STANDARD).unwrap());
    let mut members = ["first", "second"].map(|id| run.resume(id));
    for member in &mut members {
        let subscribe = Subscribe { group: group(), ..subscribe("a", QoS::ExactlyOnce) };
        run.subscribe(member, subscribe).0.unwrap();
    }
    let mut publisher = run.resume("publisher");
    for packet_id in [1, 2] {
        let mut publication = publication("a", "x", false);
        publication.qos = QoS::ExactlyOnce;
        let publish = Publish { publication, packet_id: Some(packet_id) };
        run.request(&mut publisher.client, Request::Publish(Box::new(publish)));
    }
    let [_, mut second] = members;
    run.connect(connect("first", true, Duration::ZERO));
    run.settle();
    let mut batch = Batch::default();
    while run.broker.push_committed(run.now, &mut batch) {}
    batch.flush(run.now.instant);
    let mut entries = Vec::new();
    let wants = Wants { input: true, qos0: true, acked: usize::MAX };
    second.client.take_for_session(&mut entries, 100, wants, run.now.instant).unwrap();
    assert_eq!(entries.len(), 2);
}

// ---- a disk that fails ----

#[test]
fn while_the_disk_fails_nothing_new_is_promised_and_who_was_there_gets_in() {
    let run = Run::first();
    let mut known = run.resume("known");
    run.settle();
    run.disk.is_broken.store(true, Ordering::Relaxed);
    // The first to come finds out.
    run.writer.submit(vec![retained("a", None)]).unwrap();
    run.settle();
    let refused = |refusal: &Refusal| matches!(refusal, Refusal::Overloaded(_));
    assert!(run.try_connect(connect("new", false, HOUR)).0.is_err_and(|refusal| refused(&refusal)));
    assert!(run.try_connect(connect("short", true, Duration::ZERO)).0.is_ok(), "it needs no disk");
    let (result, _) = run.subscribe(&mut known, subscribe("a", QoS::AtLeastOnce));
    assert!(result.is_err_and(|refusal| refused(&refusal)));
    assert_eq!(run.publish("a"), 0, "a subscription that was refused is none");
    assert!(run.is_present("known"), "a takeover needs nothing new");

    run.disk.is_broken.store(false, Ordering::Relaxed);
    run.settle();
    let guest = run.resume("new");
    assert!(!guest.connected.session_present, "what was refused has left nothing");
    assert_eq!(run.names(), ["known", "new"]);
}

#[test]
fn what_a_client_says_while_the_disk_fails_holds_after_a_restart() {
    let run = Run::first();
    run.leave(run.connect(connect("back", false, HOUR)));
    let mut goes = run.connect(with_will("goes", HOUR, Duration::ZERO));
    run.settle();
    run.disk.is_broken.store(true, Ordering::Relaxed);
    run.writer.submit(vec![retained("a", None)]).unwrap();
    run.settle();
    run.request(&mut goes.client, Request::Disconnect { will: WillFate::Discard, session_expiry: None });
    run.leave(goes);
    let _connected_to_the_end = run.resume("back");
    run.settle();
    run.disk.is_broken.store(false, Ordering::Relaxed);
    run.settle();
    let mut run = run;
    run.now.unix_ms += u64::try_from((50 * MINUTE).as_millis()).unwrap();
    let run = run.crash(20 * MINUTE);
    assert_eq!(run.retained().len(), 0, "it said goodbye");
    assert!(run.is_present("back"), "it was there until 20 minutes ago");
}

#[test]
fn a_client_that_looks_for_its_messages_while_the_broker_stops_does_not_hang() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    run.leave(guest);
    assert_eq!(run.publish("a"), 1);
    let mut guest = run.resume("c");
    run.settle();
    run.writer.stop();
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        run.broker.pull(&mut guest.client, run.now.instant);
        // The receiver is gone only when the test has failed.
        _ = done.send(());
    });
    is_done.recv_timeout(Duration::from_secs(20)).unwrap();
}

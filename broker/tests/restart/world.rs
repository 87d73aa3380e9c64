//! One run of a broker after another, on a store that is copied in between.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test helpers may panic"
)]

pub use std::io;
pub use std::num::NonZeroU32;
use std::path::Path;
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub use std::sync::{Arc, Mutex, mpsc};
pub use std::time::Duration;

pub use bytes::Bytes;
use tidegate::auth::Peer;
pub use tidegate::broker::{Batch, Broker, Now, Rules};
pub use tidegate::client::Client;
use tidegate::durability::Durability;
pub use tidegate::outbox::Outbox;
use tidegate::retained::RetainedLimits;
pub use tidegate::store::memory::MemoryStore;
pub use tidegate::store::{
    Change, CheckReport, Page, PageLimits, Progress, PublicationRecord, Recovered, RecoveredSession,
    Recovery, SessionKey, Settings, StatsReport, Store, StoreError, Ticket, Writer,
};
pub use tidegate_protocol::publication::{Publication, QoS};
pub use tidegate_protocol::session::{
    Connect, Connected, Copies, Delivery, InFlight, InFlightState, Overflow, Publish, Refusal, Reply,
    Request, RetainHandling, Settlement, Subscribe, SubscriptionName, Tag, Wants, Will, WillFate,
};
use tidegate_protocol::subprotocol::Family;
pub use tidegate_protocol::topic::{ShareName, Topic, TopicLimits};

use super::core::{Setup, Sink, instant};
pub use super::core::{connect, filter, subscribe};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// As the clock stands when the first broker starts.
pub const START_MS: u64 = 1_800_000_000_000;

/// The memory store on a disk that may fail.
pub struct Disk {
    pub memory: MemoryStore,
    pub is_broken: AtomicBool,
    /// Commits wait for whoever holds it.
    pub commits: Mutex<()>,
    /// Pages wait for whoever holds it.
    pub pages: Mutex<()>,
    /// Done before the next read that does not come from the thread of pages.
    pub before_read: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Disk {
    fn new(memory: MemoryStore) -> Arc<Self> {
        Arc::new(Self {
            memory,
            is_broken: AtomicBool::new(false),
            commits: Mutex::default(),
            pages: Mutex::default(),
            before_read: Mutex::default(),
        })
    }
}

impl Store for Disk {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        drop(self.commits.lock());
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(StoreError::Io { kind: io::ErrorKind::StorageFull, reason: "full".to_owned() });
        }
        self.memory.commit(changes)
    }

    fn load_queue(&self, key: SessionKey, from_seq: u64, limits: PageLimits) -> Result<Page, StoreError> {
        if std::thread::current().name() == Some("store-loader") {
            drop(self.pages.lock());
        } else if let Some(act) = self.before_read.lock().unwrap().take() {
            act();
        }
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
pub struct Run {
    pub broker: Broker,
    pub writer: Writer,
    pub disk: Arc<Disk>,
    pub now: Now,
    pub connections: AtomicU64,
}

/// A connection and what its session would know.
pub struct Guest {
    pub client: Client,
    pub outbox: Arc<Outbox>,
    pub connected: Connected,
}

pub fn clock() -> Now {
    Now { instant: instant(), unix_ms: START_MS }
}

impl Run {
    pub fn first() -> Self {
        Self::start(MemoryStore::new(), clock(), |_| ())
    }

    pub fn start(memory: MemoryStore, now: Now, change: impl FnOnce(&mut Rules)) -> Self {
        let disk = Disk::new(memory);
        let mut recovered = Vec::new();
        let recovery = disk.recover(&mut |one| recovered.push(one), &mut |_| ()).unwrap();
        let store: Arc<dyn Store> = Arc::clone(&disk) as _;
        let writer = Writer::start(store, Settings::default(), recovery.next_body).unwrap();
        let mut setup =
            Setup { retained: RetainedLimits { messages_max: 3, bytes_max: 1 << 20 }, ..Setup::default() };
        change(&mut setup.rules);
        let broker = setup.build().with_durability(Durability::new(writer.clone(), clock));
        for one in recovered {
            // What the limits leave out is for the test to miss.
            let _ = broker.restore(one, now);
        }
        broker.finish_restoring(&recovery, now);
        Self { broker, writer, disk, now, connections: AtomicU64::new(0) }
    }

    /// Waits for all that was handed over.
    pub fn settle(&self) {
        settle(&self.writer);
    }

    /// Ends in the middle of everything; another broker starts after this time.
    pub fn crash(self, down: Duration) -> Self {
        self.crash_and_start(down, |_| ())
    }

    pub fn crash_and_start(self, down: Duration, change: impl FnOnce(&mut Rules)) -> Self {
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

    pub fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
        let mut batch = Batch::default();
        while self.broker.handle_deadlines(self.now, &mut batch) {}
        batch.flush(self.now.instant);
    }

    /// Waits for the pages that were asked for.
    pub fn settle_pages(&self) {
        settle_pages(&self.writer);
    }

    /// Pushes what has been committed.
    pub fn push_committed(&self) {
        self.settle();
        let mut batch = Batch::default();
        while self.broker.push_committed(self.now, &mut batch) {}
        batch.flush(self.now.instant);
    }

    /// All that the session is given.
    pub fn take(&self, guest: &mut Guest) -> Vec<Delivery> {
        let wants = Wants { input: true, qos0: true, acked: usize::MAX };
        let mut taken = Vec::new();
        loop {
            self.broker.pull(&mut guest.client, self.now);
            self.settle_pages();
            let mut entries = Vec::new();
            let first = guest.client.take_for_session(&mut entries, 100, wants, self.now.instant).unwrap();
            if entries.is_empty() && !guest.client.awaits_more() && !guest.client.awaits_pages() {
                return taken;
            }
            guest.outbox.put_back(&mut Vec::new(), entries.len());
            let entries = entries.into_iter().zip(first.0..);
            taken.extend(entries.map(|(entry, tag)| entry.into_delivery(Tag(tag))));
        }
    }

    /// The same in the words of the messages, in order; each is acknowledged.
    pub fn drain(&self, guest: &mut Guest) -> Vec<String> {
        let taken = self.take(guest);
        for delivery in &taken {
            self.assign(guest, delivery);
            let settle = Request::Settle { tag: delivery.tag, settlement: Settlement::Accepted };
            self.request(&mut guest.client, settle);
        }
        taken.iter().map(text).collect()
    }

    /// It is sent under the identifier that it should have.
    pub fn assign(&self, guest: &mut Guest, delivery: &Delivery) -> u16 {
        let packet_id = delivery.packet_id.map_or(65_535, |id| id.get());
        self.request(&mut guest.client, Request::Assign { tag: delivery.tag, packet_id });
        packet_id
    }

    /// Of a client of its own, which is gone then.
    pub fn retain(&self, topic: &str, qos: QoS) {
        let mut publisher = self.connect(connect("publisher", true, Duration::ZERO));
        let mut publication = publication(topic, topic, true);
        publication.qos = qos;
        let request = Request::Publish(Box::new(Publish { publication, packet_id: None }));
        self.request(&mut publisher.client, request);
        self.leave(publisher);
        self.push_committed();
    }

    /// The sessions on the disk.
    pub fn stored(&self) -> Vec<RecoveredSession> {
        self.settle();
        let mut sessions = Vec::new();
        let mut visit = |one| match one {
            Recovered::Session(session) => sessions.push(*session),
            Recovered::Retained(_) => {}
        };
        self.disk.memory.copy().recover(&mut visit, &mut |_| ()).unwrap();
        sessions
    }

    pub fn names(&self) -> Vec<String> {
        self.stored().into_iter().map(|session| session.record.name.into()).collect()
    }

    pub fn request(&self, client: &mut Client, request: Request) -> (Option<Reply>, bool) {
        let (reply, after) = self.ask(client, request);
        (reply, after.is_some())
    }

    /// What became of it, once the disk has had its turn.
    pub fn outcome(&self, after: Option<Ticket>) -> Result<(), StoreError> {
        self.writer.outcome(after.expect("it waits")).expect("it is done")
    }

    /// What is said, and when it may be.
    pub fn ask(&self, client: &mut Client, request: Request) -> (Option<Reply>, Option<Ticket>) {
        let peer = Peer { ip: [127, 0, 0, 1].into(), is_forwarded: false };
        let mut batch = Batch::default();
        let reply = self.broker.handle(client, &peer, request, self.now, &mut batch);
        batch.flush(self.now.instant);
        (reply, batch.after)
    }

    pub fn try_connect(&self, connect: Connect) -> (Result<Guest, Refusal>, bool) {
        let (result, after) = self.connect_after(connect);
        (result, after.is_some())
    }

    /// And when CONNACK may be said.
    pub fn connect_after(&self, connect: Connect) -> (Result<Guest, Refusal>, Option<Ticket>) {
        let key = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let outbox = Outbox::new(key, Arc::new(Sink), None, Arc::clone(self.broker.shared()), Family::Mqtt);
        let mut client = Client::new(Arc::clone(&outbox));
        let (reply, after) = self.ask(&mut client, Request::Connect(Box::new(connect)));
        let result = match reply {
            Some(Reply::Connected(connected)) => Ok(Guest { client, outbox, connected: *connected }),
            Some(Reply::Refused(refusal)) => {
                self.broker.leave(&mut client, self.now, &mut Batch::default());
                Err(refusal)
            }
            other => panic!("{other:?}"),
        };
        (result, after)
    }

    pub fn connect(&self, connect: Connect) -> Guest {
        self.try_connect(connect).0.unwrap()
    }

    pub fn resume(&self, id: &str) -> Guest {
        self.connect(connect(id, false, HOUR))
    }

    pub fn is_present(&self, id: &str) -> bool {
        self.resume(id).connected.session_present
    }

    pub fn leave(&self, mut guest: Guest) {
        let mut batch = Batch::default();
        self.broker.leave(&mut guest.client, self.now, &mut batch);
        batch.flush(self.now.instant);
        guest.outbox.detach();
    }

    pub fn subscribe(&self, guest: &mut Guest, subscribe: Subscribe) -> (Result<QoS, Refusal>, bool) {
        let (reply, waits) = self.request(&mut guest.client, Request::Subscribe(vec![subscribe]));
        let Some(Reply::Subscribed(mut results)) = reply else { panic!("{reply:?}") };
        (results.remove(0).map(|granted| granted.qos), waits)
    }

    /// To how many a message goes.
    pub fn publish(&self, topic: &str) -> usize {
        let mut publisher = self.connect(connect("publisher", true, Duration::ZERO));
        let publication = publication(topic, "x", false);
        let request = Request::Publish(Box::new(Publish { publication, packet_id: None }));
        let (reply, _) = self.request(&mut publisher.client, request);
        let Some(Reply::Published(published)) = reply else { panic!("{reply:?}") };
        self.leave(publisher);
        published.matched
    }

    /// What is retained below `#`.
    pub fn retained(&self) -> Vec<String> {
        let mut guest = self.connect(connect("reader", true, Duration::ZERO));
        self.subscribe(&mut guest, subscribe("#", QoS::AtMostOnce)).0.unwrap();
        self.broker.pull(&mut guest.client, self.now);
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

/// Waits for all that was handed over.
pub fn settle(writer: &Writer) {
    let ticket = writer.submit(Vec::new()).unwrap();
    let (done, is_done) = mpsc::channel();
    // The receiver is gone only when the test has failed.
    writer.when_done(ticket, Arc::new(move || _ = done.send(())));
    is_done.recv_timeout(Duration::from_secs(20)).unwrap();
}

/// Waits for the pages that were asked for: they are read in turn.
pub fn settle_pages(writer: &Writer) {
    let (done, is_done) = mpsc::channel();
    let limits = PageLimits { count_max: 1, bytes_max: 1 };
    let deliver = Box::new(move |_| _ = done.send(()));
    writer.load(SessionKey(0), 0, limits, deliver);
    is_done.recv_timeout(Duration::from_secs(20)).unwrap();
}

pub fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.publication.payload.to_vec()).unwrap()
}

/// The will is retained, so that whoever looks finds it.
pub fn with_will(id: &str, expiry: Duration, delay: Duration) -> Connect {
    let publication = publication("will", "gone", true);
    let will = Will { publication, delay, expiry: None };
    Connect { will: Some(Box::new(will)), ..connect(id, false, expiry) }
}

pub fn publication(topic: &str, payload: &str, retain: bool) -> Publication {
    let topic = Topic::parse(topic, &TopicLimits::STANDARD).unwrap();
    let mut publication = Publication::new(topic, Bytes::copy_from_slice(payload.as_bytes()));
    publication.qos = QoS::AtLeastOnce;
    publication.retain = retain;
    publication
}

pub fn retained(topic: &str, expires_at_ms: Option<u64>) -> Change {
    Change::PutRetained(Box::new(PublicationRecord::new(&publication(topic, topic, true), expires_at_ms)))
}

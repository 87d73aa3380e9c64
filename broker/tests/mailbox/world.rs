//! A core and its time, and clients that are asked what they were given.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test helpers may panic"
)]

pub use std::collections::{BTreeMap, BTreeSet};
pub use std::sync::atomic::{AtomicU64, Ordering};
pub use std::sync::{Arc, Mutex, mpsc};
pub use std::task::{Wake, Waker};
pub use std::time::{Duration, Instant};

pub use bytes::Bytes;
pub use tidegate::auth::Peer;
pub use tidegate::broker::{Batch, Broker, Now, Rules};
pub use tidegate::client::Client;
use tidegate::durability::Durability;
pub use tidegate::outbox::Outbox;
pub use tidegate::outbox::queue::{Limits, Signals};
use tidegate::store::memory::MemoryStore;
use tidegate::store::{PageLimits, SessionKey, Settings, Writer};
pub use tidegate_protocol::publication::{Publication, QoS};
pub use tidegate_protocol::session::{
    CloseKind, Connect, Connected, DropReason, InFlightState, LagNotice, Overflow, Publish, Refusal, Reply,
    Request, Settlement, Subscribe, SubscriptionName, Tag, Wants, Will, WillFate,
};
use tidegate_protocol::subprotocol::Family;
pub use tidegate_protocol::topic::{ShareName, Topic, TopicLimits};

use super::core::{Setup, Sink, instant, subscribe};
pub use super::core::{connect, filter};

pub const QUEUE: usize = 10;
pub const HOUR: Duration = Duration::from_secs(3600);

/// Nobody waits for room.
pub const IMPATIENT: Limits = Limits {
    messages_max: QUEUE,
    bytes_max: 1 << 20,
    publish_wait: Duration::ZERO,
    slow_after: Duration::ZERO,
};

/// A broker and the time.
pub struct World {
    pub broker: Broker,
    pub now: Instant,
    pub connections: AtomicU64,
    /// With a store, every commit is waited for.
    pub durability: Option<Arc<Durability>>,
}

/// Whether this is the run with a store.
pub fn has_store() -> bool {
    module_path!().contains("stored")
}

/// A connection and what its session would know.
pub struct Guest {
    pub client: Client,
    pub outbox: Arc<Outbox>,
    pub connected: Connected,
}

/// A delivery as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub tag: Tag,
    pub payload: String,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Rules)) -> Self {
        Self::with_limits(change, IMPATIENT)
    }

    pub fn with_limits(change: impl FnOnce(&mut Rules), limits: Limits) -> Self {
        Self::with_memory(change, limits, usize::MAX)
    }

    pub fn with_memory(change: impl FnOnce(&mut Rules), limits: Limits, total_bytes_max: usize) -> Self {
        let mut setup = Setup { limits, total_bytes_max, ..Setup::default() };
        setup.rules.session_expiry_max = 24 * HOUR;
        change(&mut setup.rules);
        let broker = setup.build();
        let durability = has_store().then(|| {
            let writer = Writer::start(Arc::new(MemoryStore::new()), Settings::default(), 1).unwrap();
            let clock = || Now { instant: tokio::time::Instant::now().into_std(), unix_ms: 0 };
            Durability::new(writer, clock)
        });
        let broker = match &durability {
            Some(durability) => broker.with_durability(Arc::clone(durability)),
            None => broker,
        };
        Self { broker, now: instant(), connections: AtomicU64::new(0), durability }
    }

    /// Waits for the commits that a batch depends on, and pushes what waited for them.
    pub fn finish(&self, mut batch: Batch) {
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
    pub fn finish_pages(&self) {
        let Some(durability) = &self.durability else { return };
        let (done, waiting) = mpsc::channel();
        let limits = PageLimits { count_max: 1, bytes_max: 1 };
        let deliver = Box::new(move |_| {
            let _ = done.send(());
        });
        durability.writer().load(SessionKey(0), 0, limits, deliver);
        waiting.recv().unwrap();
    }

    pub fn request(&self, client: &mut Client, request: Request) -> Option<Reply> {
        let peer = Peer { ip: [127, 0, 0, 1].into(), is_forwarded: false };
        let now = Now { instant: self.now, unix_ms: 0 };
        let mut batch = Batch::default();
        let reply = self.broker.handle(client, &peer, request, now, &mut batch);
        self.finish(batch);
        reply
    }

    pub fn try_connect(&self, connect: Connect) -> Result<Guest, Refusal> {
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

    pub fn connect(&mut self, id: &str, expiry: Duration) -> Guest {
        self.try_connect(connect(id, false, expiry)).unwrap()
    }

    pub fn clean(&mut self, id: &str) -> Guest {
        self.try_connect(connect(id, true, Duration::ZERO)).unwrap()
    }

    pub fn leave(&self, mut guest: Guest) {
        self.end(&mut guest);
    }

    pub fn end(&self, guest: &mut Guest) {
        let mut batch = Batch::default();
        self.broker.leave(&mut guest.client, Now { instant: self.now, unix_ms: 0 }, &mut batch);
        self.finish(batch);
        guest.outbox.detach();
    }

    pub fn subscribe(&self, guest: &mut Guest, filter: &str, qos: QoS) {
        self.subscribe_as(guest, None, filter, qos);
    }

    pub fn subscribe_as(&self, guest: &mut Guest, group: Option<&str>, filter: &str, qos: QoS) {
        let group = group.map(|group| ShareName::parse(group, &TopicLimits::STANDARD).unwrap());
        let subscribe = Subscribe { group, ..subscribe(filter, qos) };
        let reply = self.request(&mut guest.client, Request::Subscribe(vec![subscribe]));
        assert!(matches!(reply, Some(Reply::Subscribed(granted)) if granted[0].is_ok()));
    }

    pub fn publish(&mut self, payload: &str, qos: QoS) -> usize {
        let mut publisher = self.clean("publisher");
        let matched = self.publish_by(&mut publisher, payload, qos, None);
        self.leave(publisher);
        matched
    }

    pub fn publish_by(&self, by: &mut Guest, payload: &str, qos: QoS, packet_id: Option<u16>) -> usize {
        let publication = publication(payload, qos);
        match self.request(&mut by.client, publish(publication, packet_id)) {
            Some(Reply::Published(published)) => published.matched,
            other => panic!("{other:?}"),
        }
    }

    /// What the session is given, at most `count`; nothing is assigned yet.
    pub fn take(&self, guest: &mut Guest, count: usize) -> Vec<Got> {
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

    pub fn assign(&self, guest: &mut Guest, got: &Got, packet_id: u16) {
        self.request(&mut guest.client, Request::Assign { tag: got.tag, packet_id });
    }

    pub fn settle(&self, guest: &mut Guest, tag: Tag) {
        self.request(&mut guest.client, Request::Settle { tag, settlement: Settlement::Accepted });
    }

    /// Takes, sends and settles all.
    pub fn drain(&self, guest: &mut Guest) -> Vec<String> {
        let got = self.take(guest, usize::MAX);
        for (got, packet_id) in got.iter().zip(1..) {
            self.assign(guest, got, packet_id);
            self.settle(guest, got.tag);
        }
        got.into_iter().map(|got| got.payload).collect()
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        let mut batch = Batch::default();
        while self.broker.handle_deadlines(Now { instant: self.now, unix_ms: 0 }, &mut batch) {}
        self.finish(batch);
    }

    pub fn sessions(&self) -> u64 {
        self.broker.observe();
        self.broker.metrics().sessions.value()
    }

    pub fn queued(&self) -> usize {
        let Some(durability) = &self.durability else { return self.broker.shared().queued() };
        self.finish_pages();
        usize::try_from(durability.writer().store().stats().unwrap().messages).unwrap()
    }

    /// Drops because a connection or a session ended.
    pub fn closed(&self) -> u64 {
        self.broker.metrics().drops.value(DropReason::Closed)
    }
}

pub fn with_will(id: &str, clean_start: bool, expiry: Duration, delay: Duration) -> Connect {
    let will = Will { publication: publication("will", AtLeastOnce), delay, expiry: None };
    Connect { will: Some(Box::new(will)), ..connect(id, clean_start, expiry) }
}

pub fn publication(payload: &str, qos: QoS) -> Publication {
    let topic = Topic::parse("t", &TopicLimits::STANDARD).unwrap();
    let mut publication = Publication::new(topic, Bytes::copy_from_slice(payload.as_bytes()));
    publication.qos = qos;
    publication
}

pub fn retained(payload: &str, qos: QoS) -> Publication {
    let mut publication = publication(payload, qos);
    publication.retain = true;
    publication
}

pub fn publish(publication: Publication, packet_id: Option<u16>) -> Request {
    Request::Publish(Box::new(Publish { publication, packet_id }))
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

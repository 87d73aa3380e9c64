//! What does one delivery cost the outbox: pushed and written, replaced in place, dropping the oldest, or only queued
//! for a client that does not read?
//!
//! Through the public API, so with both locks, and with the clone of an entry that a fan-out makes for each target.
//! The socket is a function call: no system call is counted.

#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize};
use std::time::{Duration, Instant};

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tidegate::metrics::Metrics;
use tidegate::outbox::queue::Limits;
use tidegate::outbox::writer::{Socket, WriteLimits};
use tidegate::outbox::{Outbox, Shared};
use tidegate::subscription::{Entry, Subscription, Target, Terms, size_bytes};
use tidegate_protocol::publication::{Form, Publication};
use tidegate_protocol::session::{Forms, SubscriptionId};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};
use tidegate_protocol::websocket::MessageKind;
use tidegate_protocol::websocket::prepared::Prepared;

fn main() {
    divan::main();
}

static FORMS: Forms = Forms { live: &FORM, retained: Some(&FORM) };

static FORM: Form = Form {
    slot: 0,
    lacks_expiry: false,
    behind_head: None,
    encode: |publication| Prepared::new(MessageKind::Binary, &[&publication.payload]),
};

/// The default mark.
const MARK: usize = 1000;

/// A peer that reads everything at once, or nothing.
enum Peer {
    Reads,
    Stalls,
}

impl Socket for Peer {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Reads => Ok(black_box(slices).iter().map(|slice| slice.len()).sum()),
            Self::Stalls => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// An outbox and the deliveries that go to it in turn.
struct Client {
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    entries: Vec<Entry>,
    next: usize,
    now: Instant,
}

/// What a benchmark's clients differ in.
struct Kind {
    peer: Peer,
    messages_max: usize,
    conflate: Option<Duration>,
    /// Topics and subscriptions, one delivery each.
    topics: usize,
    subscriptions: usize,
}

/// The one place that knows how an outbox, a subscription and an entry are made. Payloads of 64 bytes.
fn client(kind: Kind) -> Client {
    let now = Instant::now();
    let limits = Limits {
        messages_max: kind.messages_max,
        bytes_max: usize::MAX / 4,
        publish_wait: Duration::ZERO,
        slow_after: Duration::ZERO,
    };
    let shared = Arc::new(Shared {
        limits,
        write: WriteLimits { coalesce_bytes: 16 * 1024, batch_bytes: 64 * 1024 },
        publication_bytes: Arc::new(AtomicUsize::new(0)),
        entries: AtomicIsize::new(0),
        total_bytes_max: usize::MAX,
        metrics: Metrics::new(now),
    });
    let outbox = Outbox::new(1, Arc::new(kind.peer), None, Arc::clone(&shared), Family::Raw);
    let subscription = |id| {
        let terms = Terms { forms: Some(&FORMS), conflate: kind.conflate, ..Terms::default() };
        let filter = TopicFilter::parse("#", &TopicLimits::STANDARD).unwrap();
        Subscription::new(Target::Outbox(Arc::clone(&outbox)), SubscriptionId(id), &filter, terms)
    };
    let mut entries = Vec::new();
    for id in 0..u32::try_from(kind.subscriptions).unwrap() {
        let subscription = subscription(id);
        for topic in 0..kind.topics {
            let topic = Topic::parse(&format!("plant/line/sensor{topic}"), &TopicLimits::STANDARD).unwrap();
            let publication = Arc::new(Publication::new(topic, Bytes::from_static(&[b'x'; 64])));
            // Encoded before, as for all but the first of a fan-out.
            let _frame = publication.prepared(&FORM);
            let size_bytes = size_bytes(&publication);
            entries.push(Entry::live(&publication, &subscription, None, size_bytes));
        }
    }
    Client { outbox, shared, entries, next: 0, now }
}

impl Client {
    /// Pushes so many of the deliveries in turn.
    fn push(&mut self, count: usize) {
        let mut growth = 0;
        for _ in 0..count {
            let Some(entry) = self.entries.get(self.next) else { return };
            self.next = (self.next + 1) % self.entries.len();
            let (pushed, must_flush) = self.outbox.push(entry.clone(), self.now);
            growth += black_box(pushed).growth();
            black_box(must_flush);
        }
        self.shared.entered(growth);
    }

    /// Finds out that the socket takes nothing, and queues up to the mark.
    fn stalled(mut self) -> Self {
        self.push(1);
        self.outbox.flush(self.now);
        assert!(self.outbox.blocked_since().is_some());
        // The one before is with the writer.
        self.push(MARK);
        self
    }
}

/// So many deliveries of a shared form between two flushes: pushed, taken, gathered for one write.
#[divan::bench(args = [1, 16, 256])]
fn push_and_take(bencher: Bencher<'_, '_>, count: usize) {
    let kind = Kind { peer: Peer::Reads, messages_max: MARK, conflate: None, topics: 1, subscriptions: 1 };
    let mut client = client(kind);
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        client.push(count);
        client.outbox.flush(client.now);
    });
}

/// A newer value in the place of a queued one, beside so many other topics.
#[divan::bench(args = [1, 10, 100, 1000])]
fn conflate_in_place(bencher: Bencher<'_, '_>, topics: usize) {
    let conflate = Some(Duration::ZERO);
    let kind = Kind { peer: Peer::Stalls, messages_max: 2 * MARK, conflate, topics, subscriptions: 1 };
    let mut client = client(kind).stalled();
    bencher.counter(ItemsCount::new(MARK)).bench_local(|| client.push(MARK));
    assert!(client.shared.queued() <= topics);
}

/// At the mark the oldest of the same subscription goes, of so many subscriptions whose deliveries take turns.
#[divan::bench(args = [1, 10, 100])]
fn drop_oldest_at_the_mark(bencher: Bencher<'_, '_>, subscriptions: usize) {
    let kind = Kind { peer: Peer::Stalls, messages_max: MARK, conflate: None, topics: 1, subscriptions };
    let mut client = client(kind).stalled();
    // A thousand at a time, so that packing a long lane has its share.
    bencher.counter(ItemsCount::new(MARK)).bench_local(|| client.push(MARK));
    assert_eq!(client.shared.queued(), MARK);
}

/// A hundred more for a client that does not read and has 1000 queued, below its mark.
#[divan::bench(sample_count = 200, sample_size = 1)]
fn push_to_a_stalled_client(bencher: Bencher<'_, '_>) {
    const COUNT: usize = 100;
    bencher
        .counter(ItemsCount::new(COUNT))
        .with_inputs(|| {
            let (peer, messages_max) = (Peer::Stalls, 10 * MARK);
            client(Kind { peer, messages_max, conflate: None, topics: 1, subscriptions: 1 }).stalled()
        })
        .bench_local_values(|mut client| {
            client.push(COUNT);
            client
        });
}

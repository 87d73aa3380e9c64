//! Random histories of operations on one outbox, held against the invariants of DESIGN §6.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use tidegate::metrics::Metrics;
use tidegate::outbox::queue::{Frame, Limits, Pushed};
use tidegate::outbox::writer::{Socket, WriteLimits};
use tidegate::outbox::{Outbox, Shared};
use tidegate::subscription::{Entry, Subscription, Target, Terms, size_bytes};
use tidegate_protocol::publication::{Form, Publication, QoS};
use tidegate_protocol::session::{
    Copies, DataLane, DropReason, Forms, LagNotice, Overflow, SubscriptionId, Wants,
};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};
use tidegate_protocol::websocket::MessageKind;
use tidegate_protocol::websocket::prepared::Prepared;

const MESSAGES_MAX: usize = 6;
const BYTES_MAX: usize = 4500;
/// Payload and topic of the largest message, and what its entry costs.
const SIZE_MAX: usize = 2 * (800 + 1) + 512 + 64;
const CLOSE_BYTE: u8 = 0x88;
const CASES: u32 = 500;

static FORMS: Forms = Forms { live: &FORM, retained: Some(&FORM) };

static FORM: Form = Form {
    slot: 0,
    lacks_expiry: false,
    behind_head: None,
    encode: |publication| Prepared::new(MessageKind::Binary, &[&publication.payload]),
};

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Push { subscription: usize, topic: usize, bytes: usize },
    Flush,
    TakeForSession { count: usize, acked: bool },
    PutBack,
    Subscribing(bool),
    Room(usize),
    Unsubscribe(usize),
    Wait(u64),
    Control,
    Close(bool),
}

/// What the four subscriptions are like: policy, interval in milliseconds, QoS, shared form.
const KINDS: [(Overflow, Option<u64>, QoS, bool); 6] = [
    (Overflow::DropOldest, None, QoS::AtMostOnce, true),
    (Overflow::DropNewest, None, QoS::AtMostOnce, false),
    (Overflow::Conflate, None, QoS::AtMostOnce, true),
    (Overflow::DropOldest, Some(0), QoS::AtMostOnce, true),
    (Overflow::DropOldest, Some(50), QoS::AtMostOnce, true),
    (Overflow::DropOldest, None, QoS::AtLeastOnce, false),
];

#[derive(Default)]
struct Peer {
    bytes: Mutex<Vec<u8>>,
    room: AtomicUsize,
}

impl Socket for Peer {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut kept = self.bytes.lock().unwrap();
        let before = kept.len();
        for slice in slices {
            let room = self.room.load(Ordering::SeqCst).min(slice.len());
            kept.extend_from_slice(&slice[..room]);
            self.room.fetch_sub(room, Ordering::SeqCst);
        }
        let len = kept.len() - before;
        if len == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(len) }
    }
}

/// A message as its payload tells it: who, which topic, which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name {
    subscription: usize,
    topic: usize,
    number: u32,
}

/// The outbox and what is known of it.
struct World {
    outbox: Arc<Outbox>,
    peer: Arc<Peer>,
    shared: Arc<Shared>,
    subscriptions: Vec<Subscription>,
    now: Instant,
    number: u32,
    pushed: Vec<Name>,
    /// What push answered, in drops, and what close and detach said.
    drops: u64,
    told: u64,
    popped: Vec<Entry>,
    popped_count: usize,
    unsubscribed: [bool; KINDS.len()],
    closed: bool,
    controls: usize,
}

impl World {
    fn new() -> Self {
        let now = tokio::time::Instant::now().into_std();
        let limits = Limits {
            messages_max: MESSAGES_MAX,
            bytes_max: BYTES_MAX,
            publish_wait: Duration::from_millis(200),
            slow_after: Duration::from_secs(1),
        };
        let shared = Arc::new(Shared {
            limits,
            write: WriteLimits { coalesce_bytes: 300, batch_bytes: 600 },
            publication_bytes: Arc::new(AtomicUsize::new(0)),
            entries: AtomicIsize::new(0),
            total_bytes_max: usize::MAX,
            metrics: Metrics::new(now),
        });
        let peer = Arc::new(Peer::default());
        let socket = Arc::clone(&peer) as Arc<dyn Socket>;
        let outbox = Outbox::new(1, socket, None, Arc::clone(&shared), Family::Raw);
        outbox.set_client(None, LagNotice::Separate);
        let subscriptions = (0u32..).zip(KINDS).map(|(id, (overflow, interval, qos, has_form))| {
            let terms = Terms {
                qos,
                forms: has_form.then_some(&FORMS),
                overflow,
                overflow_acked: overflow,
                conflate: interval.map(Duration::from_millis),
                copies: Copies::PerSubscription,
                ..Terms::default()
            };
            let filter = TopicFilter::parse("#", &TopicLimits::STANDARD).unwrap();
            Subscription::new(Target::Outbox(Arc::clone(&outbox)), SubscriptionId(id), &filter, terms)
        });
        Self {
            subscriptions: subscriptions.collect(),
            outbox,
            peer,
            shared,
            now,
            number: 0,
            pushed: Vec::new(),
            drops: 0,
            told: 0,
            popped: Vec::new(),
            popped_count: 0,
            unsubscribed: Default::default(),
            closed: false,
            controls: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Push { subscription, topic, bytes } => self.push(subscription, topic, bytes),
            Step::Flush => self.outbox.flush(self.now),
            Step::TakeForSession { count, acked } => {
                let wants = Wants { input: true, qos0: true, acked: usize::from(acked) };
                let before = self.popped.len();
                self.outbox.take_for_session(&mut self.popped, before + count, wants, self.now);
                self.popped_count = self.popped.len();
            }
            Step::PutBack => self.put_back(),
            Step::Subscribing(true) => self.outbox.hold_subscribe(),
            Step::Subscribing(false) => self.outbox.release_subscribe(),
            Step::Room(bytes) => self.peer.room.store(bytes, Ordering::SeqCst),
            Step::Unsubscribe(subscription) => {
                self.unsubscribed[subscription] = true;
                self.subscriptions[subscription].end();
            }
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                // The broker counts what a push conflates, the outbox what a turn does.
                let before = self.shared.metrics.drops.value(DropReason::Conflated);
                self.outbox.release_paced(self.now);
                self.drops += self.shared.metrics.drops.value(DropReason::Conflated) - before;
            }
            Step::Control => {
                self.controls += usize::from(!self.closed);
                self.outbox.push_control(Bytes::from_static(&[0x8A, 0]));
            }
            Step::Close(drain) => {
                let data = if drain { DataLane::Drain } else { DataLane::Abort };
                self.tell();
                self.outbox.close(Bytes::from_static(&[CLOSE_BYTE, 0]), data);
                self.closed = true;
            }
        }
        self.tell();
        self.check_bounds();
    }

    fn push(&mut self, subscription: usize, topic: usize, bytes: usize) {
        if self.unsubscribed[subscription] {
            return;
        }
        let name = Name { subscription, topic, number: self.number };
        self.number += 1;
        let topic = Topic::parse(["a", "b", "c"][topic], &TopicLimits::STANDARD).unwrap();
        let mut payload = vec![0; bytes.max(6)];
        payload[0] = u8::try_from(name.subscription).unwrap();
        payload[1] = u8::try_from(name.topic).unwrap();
        payload[2..6].copy_from_slice(&name.number.to_be_bytes());
        let mut publication = Publication::new(topic, Bytes::from(payload));
        publication.qos = KINDS[subscription].2;
        let publication = Arc::new(publication);
        let target = &self.subscriptions[subscription];
        let entry = Entry::live(&publication, target, None, size_bytes(&publication));
        let (pushed, _) = self.outbox.push(entry, self.now);
        self.shared.entered(pushed.growth());
        assert_eq!(self.closed, pushed == Pushed::Closed, "closed exactly from the close on");
        self.drops += match pushed {
            Pushed::Made(_, count) => count as u64,
            Pushed::Dropped(_) => 1,
            _ => 0,
        };
        if pushed != Pushed::Closed {
            self.pushed.push(name);
        }
    }

    fn put_back(&mut self) {
        let count = std::mem::take(&mut self.popped_count);
        let mut frames: Vec<Frame> = self
            .popped
            .drain(..)
            .map(|entry| {
                let frame = Prepared::new(MessageKind::Binary, &[&entry.publication.payload]).frame().clone();
                // A front and a body, at a place where a cut would show.
                Frame { front: frame.slice(..3), body: Some(frame.slice(3..)) }
            })
            .collect();
        self.outbox.put_back(&mut frames, count);
    }

    /// Reads the notices of lag.
    fn tell(&mut self) {
        let _ = self.outbox.poll_signals(Waker::noop());
        while let Some(lag) = self.outbox.take_lag() {
            self.told += lag.dropped + lag.conflated;
        }
    }

    fn check_bounds(&self) {
        let queued = self.shared.entries.load(Ordering::SeqCst);
        let queued = usize::try_from(queued).expect("never fewer than none");
        assert!(queued <= 2 * MESSAGES_MAX, "{queued} messages");
        // Retained ones apart, twice the mark is the end; an empty outbox takes any one message.
        let bytes = self.outbox.queued_bytes();
        assert!(bytes <= 2 * BYTES_MAX + SIZE_MAX, "{bytes} bytes");
    }

    /// Lets everything out, and looks at what arrived.
    fn end(mut self) {
        self.put_back();
        self.outbox.release_subscribe();
        self.peer.room.store(usize::MAX / 2, Ordering::SeqCst);
        self.take(&Step::Wait(1000));
        for _ in 0..100 {
            self.outbox.flush(self.now);
            self.take(&Step::TakeForSession { count: 8, acked: true });
            self.put_back();
        }
        if self.closed {
            assert!(self.outbox.has_ended(), "the Close has left");
        }
        let arrived = self.arrived();
        assert_eq!(self.drops, self.told, "every drop is told");
        self.check_order(&arrived);
        if !self.closed {
            self.check_losses(&arrived);
            assert_eq!(self.shared.entries.load(Ordering::SeqCst), 0, "nothing is left");
        }
        self.outbox.detach();
        assert_eq!(self.shared.entries.load(Ordering::SeqCst), 0);
    }

    /// FIFO per lane and subscription, and nothing twice; conflated feeds per topic.
    fn check_order(&self, arrived: &[Name]) {
        let mut last = HashMap::new();
        for name in arrived {
            assert!(self.pushed.contains(name), "{name:?} was never pushed");
            let is_conflated =
                matches!(KINDS[name.subscription], (Overflow::Conflate, ..) | (_, Some(_), ..));
            let feed = (name.subscription, is_conflated.then_some(name.topic));
            let older = last.insert(feed, name.number);
            assert!(older < Some(name.number), "{name:?} after {older:?}");
        }
    }

    /// What was pushed arrived or was dropped, and a conflated feed ends with its latest.
    fn check_losses(&self, arrived: &[Name]) {
        let is_alive = |name: &&Name| !self.unsubscribed[name.subscription];
        let pushed = self.pushed.len() as u64;
        let came = arrived.len() as u64;
        if self.unsubscribed.iter().all(|ended| !ended) {
            assert_eq!(pushed, came + self.drops, "arrived or told");
        }
        assert!(came + self.drops <= pushed);
        for subscription in 2..5 {
            for topic in 0..3 {
                let of_feed = |name: &&Name| name.subscription == subscription && name.topic == topic;
                let latest = self.pushed.iter().filter(is_alive).rfind(of_feed);
                // Unless the queue was full of others, which drops the incoming one.
                if self.drops == 0 {
                    assert_eq!(arrived.iter().filter(is_alive).rfind(of_feed), latest);
                }
            }
        }
    }

    /// The frames on the wire: whole, and none behind the Close.
    fn arrived(&self) -> Vec<Name> {
        let bytes = self.peer.bytes.lock().unwrap();
        let (mut rest, mut names, mut controls) = (&bytes[..], Vec::new(), 0);
        while let [first, len, more @ ..] = rest {
            let (len, more) = match len {
                126 => (usize::from(u16::from_be_bytes([more[0], more[1]])), &more[2..]),
                len => (usize::from(*len), more),
            };
            let payload = &more[..len];
            rest = &more[len..];
            match *first {
                0x8A => controls += 1,
                CLOSE_BYTE => assert!(rest.is_empty(), "nothing follows the Close"),
                0x82 => names.push(Name {
                    subscription: usize::from(payload[0]),
                    topic: usize::from(payload[1]),
                    number: u32::from_be_bytes(payload[2..6].try_into().unwrap()),
                }),
                other => panic!("no frame begins with {other:#x}"),
            }
        }
        assert!(rest.is_empty(), "a frame is cut");
        // Between our Close and its write, answers still go before it.
        assert!(
            controls == self.controls || (self.closed && controls > self.controls),
            "answers are not dropped"
        );
        names
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => (0..KINDS.len(), 0..3usize, prop_oneof![4 => 6..100usize, 1 => 100..800usize])
            .prop_map(|(subscription, topic, bytes)| Step::Push { subscription, topic, bytes }),
        6 => Just(Step::Flush),
        4 => (1..5usize, any::<bool>()).prop_map(|(count, acked)| Step::TakeForSession { count, acked }),
        4 => Just(Step::PutBack),
        1 => any::<bool>().prop_map(Step::Subscribing),
        4 => prop_oneof![Just(0), 1..40usize, 40..2000usize].prop_map(Step::Room),
        1 => (0..KINDS.len()).prop_map(Step::Unsubscribe),
        3 => prop_oneof![0..60u64, 60..400u64, Just(11_000)].prop_map(Step::Wait),
        2 => Just(Step::Control),
    ]
}

fn check(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.take(step);
    }
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_bounds_order_and_count(steps in prop::collection::vec(step(), 1..120)) {
        check(&steps);
    }

    #[test]
    fn no_history_writes_behind_its_close(
        steps in prop::collection::vec(step(), 1..60),
        drain in any::<bool>(),
        after in prop::collection::vec(step(), 1..20),
    ) {
        let mut all = steps;
        all.push(Step::Close(drain));
        all.extend(after);
        check(&all);
    }
}

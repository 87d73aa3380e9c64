//! Every interleaving of publishers and owner on one outbox, by loom. Only with `--cfg outbox_loom` (`make loom`):
//! `RUSTFLAGS="--cfg outbox_loom" cargo test -p tidegate --release --test loom_outbox`.
#![cfg(outbox_loom)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a model may panic")]

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loom::thread;
use tidegate::metrics::Metrics;
use tidegate::outbox::queue::{Frame, Limits, Pushed, Signals};
use tidegate::outbox::writer::{Socket, WriteLimits};
use tidegate::outbox::{Outbox, Shared};
use tidegate::subscription::{Entry, Subscription, Target, Terms, size_bytes};
use tidegate_protocol::publication::{Form, Publication};
use tidegate_protocol::session::{DataLane, Forms, SubscriptionId, Wants};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};
use tidegate_protocol::websocket::MessageKind;
use tidegate_protocol::websocket::prepared::Prepared;

/// What arrives of a delivery: `82 01 x`.
static FORMS: Forms = Forms { live: &FORM, retained: Some(&FORM) };

static FORM: Form = Form {
    slot: 0,
    lacks_expiry: false,
    behind_head: None,
    encode: |publication| Prepared::new(MessageKind::Binary, &[&publication.payload]),
};

/// The end, in place of a Close frame.
const CLOSE: &[u8] = &[0x88, 0, 0];

const WANTS_ALL: Wants = Wants { input: true, qos0: true, acked: usize::MAX };

/// Takes `room` bytes and keeps them. Its lock is the writer's business, so loom need not know it.
#[derive(Default)]
struct Peer {
    bytes: Mutex<Vec<u8>>,
    room: AtomicUsize,
}

impl Socket for Peer {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut kept = self.bytes.lock().unwrap();
        let mut len = 0;
        for slice in slices {
            let room = self.room.load(Ordering::SeqCst).saturating_sub(len).min(slice.len());
            kept.extend_from_slice(&slice[..room]);
            len += room;
        }
        self.room.fetch_sub(len, Ordering::SeqCst);
        if len == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(len) }
    }
}

/// The owner's task: woken or parked.
#[derive(Default)]
struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One client with its owner.
#[derive(Clone)]
struct Client {
    outbox: Arc<Outbox>,
    subscription: Subscription,
    peer: Arc<Peer>,
    task: Arc<Task>,
    now: Instant,
}

fn client(number: u64, room: usize, messages_max: usize) -> Client {
    let now = Instant::now();
    let limits = Limits {
        messages_max,
        bytes_max: 1 << 20,
        publish_wait: Duration::from_secs(1),
        slow_after: Duration::from_secs(1),
    };
    let shared = Arc::new(Shared {
        limits,
        write: WriteLimits { coalesce_bytes: 1 << 14, batch_bytes: 1 << 16 },
        publication_bytes: Arc::new(AtomicUsize::new(0)),
        entries: AtomicIsize::new(0),
        total_bytes_max: usize::MAX,
        metrics: Metrics::new(now),
    });
    let peer = Arc::new(Peer { bytes: Mutex::default(), room: AtomicUsize::new(room) });
    let outbox = Outbox::new(number, Arc::clone(&peer) as Arc<dyn Socket>, None, shared, Family::Raw);
    let filter = TopicFilter::parse("t", &TopicLimits::STANDARD).unwrap();
    let terms = Terms { forms: Some(&FORMS), ..Terms::default() };
    let target = Target::Outbox(Arc::clone(&outbox));
    let subscription = Subscription::new(target, SubscriptionId(1), &filter, terms);
    Client { outbox, subscription, peer, task: Arc::default(), now }
}

impl Client {
    fn entry(&self, name: u8) -> Entry {
        let topic = Topic::parse("t", &TopicLimits::STANDARD).unwrap();
        let publication = Arc::new(Publication::new(topic, Bytes::copy_from_slice(&[name])));
        let size_bytes = size_bytes(&publication);
        Entry::live(&publication, &self.subscription, None, size_bytes)
    }

    /// Pushes `names`, then flushes if that is this publisher's duty. Capital letters need the session.
    fn publish(&self, names: &[u8]) -> Pushed {
        let mut duty = false;
        let mut last = Pushed::Closed;
        for name in names {
            let mut entry = self.entry(*name);
            if name.is_ascii_uppercase() {
                entry.form = None;
            }
            let (pushed, must_flush) = self.outbox.push(entry, self.now);
            duty |= must_flush;
            last = pushed;
        }
        if duty {
            self.outbox.flush(self.now);
        }
        last
    }

    /// Parks the owner: with something to look at it stays awake.
    fn park(&self) {
        let waker = Waker::from(Arc::clone(&self.task));
        if !self.outbox.poll_signals(&waker).is_empty() {
            self.task.0.store(true, Ordering::SeqCst);
        }
    }

    /// What the connection's task does when it is woken, until it parks.
    fn run(&self) {
        let waker = Waker::from(Arc::clone(&self.task));
        loop {
            self.task.0.store(false, Ordering::SeqCst);
            if self.outbox.poll_signals(&waker).is_empty() {
                return;
            }
            self.encode();
            self.outbox.flush(self.now);
        }
    }

    fn encode(&self) {
        let (mut entries, mut frames) = (Vec::new(), Vec::new());
        self.outbox.take_for_session(&mut entries, 8, WANTS_ALL, self.now);
        if entries.is_empty() {
            return;
        }
        frames.extend(entries.iter().map(|entry| {
            // A front and a shared body, between which nothing may come.
            let front = Bytes::from_static(&[0x82, 1]);
            Frame { front, body: Some(entry.publication.payload.clone()) }
        }));
        self.outbox.put_back(&mut frames, entries.len());
    }

    /// After all threads: an owner that is parked has nothing to do; a woken one does it; a writable socket wakes
    /// one that waits for it.
    fn settle(&self) {
        self.peer.room.store(1 << 10, Ordering::SeqCst);
        for _ in 0..8 {
            if self.outbox.blocked_since().is_some() {
                self.outbox.flush(self.now);
                self.task.0.store(true, Ordering::SeqCst);
            }
            if !self.task.0.load(Ordering::SeqCst) {
                return;
            }
            self.run();
        }
        panic!("the owner never came to rest");
    }

    /// The names that arrived, as whole frames.
    fn arrived(&self) -> Vec<u8> {
        let bytes = self.peer.bytes.lock().unwrap();
        assert_eq!(bytes.len() % 3, 0, "{bytes:?}");
        let mut names = Vec::new();
        for frame in bytes.chunks(3) {
            assert_ne!(names.last(), Some(&b'.'), "nothing follows the Close: {bytes:?}");
            if frame == CLOSE {
                names.push(b'.');
            } else {
                assert_eq!(&frame[..2], [0x82, 1], "{bytes:?}");
                names.push(frame[2]);
            }
        }
        names
    }

    /// Breaks the circle of references, so that loom's objects go with their model.
    fn end(&self) {
        self.outbox.detach();
    }
}

fn is_in_order(arrived: &[u8], of: &[u8]) -> bool {
    arrived.iter().filter(|name| of.contains(name)).eq(of.iter())
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_duration = Some(Duration::from_secs(60));
    builder.check(check);
}

#[test]
fn two_publishers_lose_nothing_and_keep_their_orders() {
    model(|| {
        let one = client(1, 1 << 10, 100);
        one.park();
        let threads = [b"ab", b"cd"].map(|names| {
            let one = one.clone();
            thread::spawn(move || one.publish(names))
        });
        let _ended = threads.map(|thread| thread.join().unwrap());
        one.settle();
        let arrived = one.arrived();
        assert_eq!(arrived.len(), 4, "{arrived:?}");
        assert!(is_in_order(&arrived, b"ab") && is_in_order(&arrived, b"cd"), "{arrived:?}");
        one.end();
    });
}

#[test]
fn the_owner_encodes_in_its_place_while_others_publish() {
    model(|| {
        let one = client(1, 1 << 10, 100);
        one.park();
        let publisher = one.clone();
        let publisher = thread::spawn(move || publisher.publish(b"aBc"));
        let owner = one.clone();
        let owner = thread::spawn(move || {
            owner.encode();
            owner.outbox.flush(owner.now);
            owner.run();
        });
        publisher.join().unwrap();
        owner.join().unwrap();
        one.settle();
        assert_eq!(one.arrived(), b"aBc");
        one.end();
    });
}

#[test]
fn two_publishers_and_a_busy_owner_lose_nothing() {
    model(|| {
        let one = client(1, 1 << 10, 100);
        one.park();
        let threads = [b"a", b"B"].map(|names| {
            let one = one.clone();
            thread::spawn(move || one.publish(names))
        });
        one.outbox.push_control(Bytes::from_static(&[0x82, 1, b'x']));
        one.outbox.flush(one.now);
        one.run();
        let _ended = threads.map(|thread| thread.join().unwrap());
        one.settle();
        let mut arrived = one.arrived();
        arrived.sort_unstable();
        assert_eq!(arrived, b"Bax");
        one.end();
    });
}

#[test]
fn no_data_follows_the_close() {
    for data in [DataLane::Abort, DataLane::Drain] {
        model(move || {
            let one = client(1, 1 << 10, 100);
            one.park();
            let publisher = one.clone();
            let publisher = thread::spawn(move || publisher.publish(b"ab"));
            let pusher = one.clone();
            let pusher = thread::spawn(move || pusher.publish(b"c"));
            one.outbox.close(Bytes::from_static(CLOSE), data);
            one.outbox.flush(one.now);
            publisher.join().unwrap();
            pusher.join().unwrap();
            one.settle();
            assert!(one.outbox.has_ended(), "the owner slept through the end");
            assert_eq!(one.arrived().last(), Some(&b'.'));
            one.end();
        });
    }
}

#[test]
fn a_blocked_socket_keeps_frames_whole_and_wakes_its_owner() {
    model(|| {
        // One byte fits, and two more are granted while others publish.
        let one = client(1, 1, 100);
        one.park();
        let publisher = one.clone();
        let publisher = thread::spawn(move || publisher.publish(b"ab"));
        let second = one.clone();
        let second = thread::spawn(move || second.publish(b"c"));
        one.peer.room.fetch_add(2, Ordering::SeqCst);
        one.run();
        publisher.join().unwrap();
        second.join().unwrap();
        one.settle();
        let arrived = one.arrived();
        assert_eq!(arrived.len(), 3, "{arrived:?}");
        assert!(is_in_order(&arrived, b"ab"), "{arrived:?}");
        one.end();
    });
}

#[test]
fn a_publisher_that_waits_for_room_is_told() {
    model(|| {
        let slow = client(1, 0, 1);
        let publisher = client(2, 0, 1);
        slow.publish(b"ab");
        slow.park();
        publisher.park();
        let (waits, waiter) = (slow.clone(), publisher.clone());
        let waiter = thread::spawn(move || waits.outbox.wait_for_room(&waiter.outbox));
        slow.peer.room.store(1 << 10, Ordering::SeqCst);
        slow.outbox.flush(slow.now);
        let waited = waiter.join().unwrap();
        slow.settle();
        let waker = Waker::from(Arc::clone(&publisher.task));
        let told = publisher.outbox.poll_signals(&waker).contains(Signals::ROOM);
        assert_eq!(waited, told, "a waiting publisher is told, and nobody else");
        slow.end();
        publisher.end();
    });
}

//! One outbox with a socket of memory, and the words in which the tests speak of it. All construction is here.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate::metrics::Metrics;
use tidegate::outbox::queue::{Frame, Limits, Pushed, Signals};
use tidegate::outbox::writer::{Socket, WriteLimits};
use tidegate::outbox::{Outbox, Shared};
use tidegate::subscription::{Entry, Subscription, Target, Terms, size_bytes};
use tidegate_protocol::publication::{Form, Publication, QoS};
use tidegate_protocol::session::{Copies, DropReason, Forms, LagNotice, Overflow, SubscriptionId, Wants};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};
use tidegate_protocol::websocket::MessageKind;
use tidegate_protocol::websocket::prepared::Prepared;

static FORMS: Forms = Forms { live: &FORM, retained: Some(&FORM) };

static FORM: Form = Form {
    slot: 0,
    lacks_expiry: false,
    behind_head: None,
    encode: |publication| Prepared::new(MessageKind::Binary, &[&publication.payload]),
};

/// For subscriptions with a head; serves no text, which goes through the session.
static HEADED_FORMS: Forms = Forms { live: &HEADED_FORM, retained: None };

static HEADED_FORM: Form = Form {
    slot: 1,
    lacks_expiry: true,
    behind_head: Some(|publication| !publication.is_text),
    encode: |publication| Prepared::new(MessageKind::Binary, &[&publication.payload]),
};

/// What the subscriptions of a test differ in.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) id: u32,
    pub(crate) overflow: Overflow,
    pub(crate) conflate: Option<Duration>,
    pub(crate) qos: QoS,
    /// Whether QoS 0 deliveries have bytes that are shared, or go through the session.
    pub(crate) has_form: bool,
    /// What stands before the shared bytes; what the session encodes has none.
    pub(crate) head: &'static str,
}

pub(crate) const PLAIN: Kind = Kind {
    id: 1,
    overflow: Overflow::DropOldest,
    conflate: None,
    qos: QoS::AtMostOnce,
    has_form: true,
    head: "",
};
pub(crate) const ACKED: Kind = Kind { id: 2, qos: QoS::AtLeastOnce, overflow: Overflow::Disconnect, ..PLAIN };

/// No mark is reached, and nobody is patient at one.
pub(crate) const WIDE: Limits = Limits {
    messages_max: 1000,
    bytes_max: 1 << 20,
    publish_wait: Duration::ZERO,
    slow_after: Duration::from_secs(1),
};

pub(crate) const WRITE: WriteLimits = WriteLimits { coalesce_bytes: 16 * 1024, batch_bytes: 1 << 20 };

/// The one place that knows how an outbox is made.
pub(crate) fn new_client(number: u64, limits: Limits, write: WriteLimits) -> Client {
    let now = Instant::now();
    let shared = Arc::new(Shared {
        limits,
        write,
        publication_bytes: Arc::new(AtomicUsize::new(0)),
        entries: AtomicIsize::new(0),
        total_bytes_max: usize::MAX,
        metrics: Metrics::new(now),
    });
    let peer = Arc::new(Peer::default());
    let socket = Arc::clone(&peer) as Arc<dyn Socket>;
    let outbox = Outbox::new(number, socket, None, Arc::clone(&shared), Family::Raw);
    Client { outbox, peer, shared, now }
}

/// The one place that knows how a subscription is made.
pub(crate) fn new_subscription(outbox: &Arc<Outbox>, kind: Kind) -> Subscription {
    let forms = if kind.head.is_empty() { &FORMS } else { &HEADED_FORMS };
    let terms = Terms {
        qos: kind.qos,
        forms: kind.has_form.then_some(forms),
        head: (!kind.head.is_empty()).then(|| kind.head.as_bytes().into()),
        overflow: kind.overflow,
        overflow_acked: kind.overflow,
        conflate: kind.conflate,
        copies: Copies::PerSubscription,
        ..Terms::default()
    };
    let filter = TopicFilter::parse("#", &TopicLimits::STANDARD).unwrap();
    Subscription::new(Target::Outbox(Arc::clone(outbox)), SubscriptionId(kind.id), &filter, terms)
}

/// The one place that knows how an entry is made.
pub(crate) fn new_entry(subscription: &Subscription, publication: Publication, is_retained: bool) -> Entry {
    let publication = Arc::new(publication);
    if is_retained {
        return Entry::retained(publication, subscription);
    }
    Entry::live(&publication, subscription, None, size_bytes(&publication))
}

/// A socket of memory that takes `room` bytes and remembers each write as the lengths of its slices.
#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) bytes: Mutex<Vec<u8>>,
    pub(crate) writes: Mutex<Vec<Vec<usize>>>,
    pub(crate) room: AtomicUsize,
    pub(crate) is_gone: AtomicBool,
}

impl Socket for Peer {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut bytes = self.bytes.lock().unwrap();
        let before = bytes.len();
        for slice in slices {
            let taken = self.room.load(Ordering::SeqCst).min(slice.len());
            bytes.extend_from_slice(&slice[..taken]);
            self.room.fetch_sub(taken, Ordering::SeqCst);
        }
        let len = bytes.len() - before;
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.writes.lock().unwrap().push(slices.iter().map(|slice| slice.len()).collect());
        Ok(len)
    }
}

pub(crate) struct Client {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) now: Instant,
}

pub(crate) const WANTS_ALL: Wants = Wants { input: true, qos0: true, acked: usize::MAX };
/// The window of unacknowledged deliveries is full.
pub(crate) const WINDOW_FULL: Wants = Wants { input: true, qos0: true, acked: 0 };

pub(crate) const EVERYTHING: usize = usize::MAX / 2;
pub(crate) const CLOSE: Bytes = Bytes::from_static(&[0x88, 0]);
pub(crate) const PONG: &str = "pong";
pub(crate) const CLOSED: &str = "close";

impl Client {
    /// A client whose socket takes nothing until [`Client::drain`].
    pub(crate) fn stalled(limits: Limits) -> Self {
        let client = new_client(1, limits, WRITE);
        client.outbox.set_client(None, LagNotice::Separate);
        client
    }

    /// The same, at a mark of so many messages.
    pub(crate) fn at_mark(messages_max: usize) -> Self {
        Self::stalled(Limits { messages_max, ..WIDE })
    }

    pub(crate) fn subscription(&self, kind: Kind) -> Subscription {
        new_subscription(&self.outbox, kind)
    }

    pub(crate) fn publication(text: &str) -> Publication {
        let (topic, _) = text.split_once('=').unwrap_or((text, ""));
        let topic = Topic::parse(topic, &TopicLimits::STANDARD).unwrap();
        Publication::new(topic, Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Publishes `topic=value`, or a text that is both.
    pub(crate) fn push(&self, subscription: &Subscription, text: &str) -> Pushed {
        self.push_publication(subscription, Self::publication(text))
    }

    pub(crate) fn push_publication(
        &self,
        subscription: &Subscription,
        mut publication: Publication,
    ) -> Pushed {
        publication.qos = subscription.qos;
        let (pushed, _) = self.outbox.push(new_entry(subscription, publication, false), self.now);
        self.shared.entered(pushed.growth());
        pushed
    }

    pub(crate) fn push_all(&self, subscription: &Subscription, texts: &[&str]) {
        for text in texts {
            let pushed = self.push(subscription, text);
            assert!(matches!(pushed, Pushed::Queued | Pushed::HalfFull), "{text}: {pushed:?}");
        }
    }

    /// What the connection's task does for deliveries that need the session.
    pub(crate) fn encode(&self, wants: Wants) -> usize {
        let mut entries = Vec::new();
        self.outbox.take_for_session(&mut entries, 64, wants, self.now);
        let whole = |entry: &Entry| entry.publication.prepared(&FORM).frame().clone();
        let mut frames = entries.iter().map(|entry| Frame::from(whole(entry))).collect();
        if !entries.is_empty() {
            self.outbox.put_back(&mut frames, entries.len());
        }
        entries.len()
    }

    /// Opens the socket and writes what is ready, the session encoding what it `wants`.
    pub(crate) fn drain_with(&self, wants: Wants) -> Vec<String> {
        self.peer.room.store(EVERYTHING, Ordering::SeqCst);
        self.outbox.flush(self.now);
        while self.encode(wants) > 0 {
            self.outbox.flush(self.now);
        }
        self.arrived()
    }

    pub(crate) fn drain(&self) -> Vec<String> {
        self.drain_with(WANTS_ALL)
    }

    /// The texts of the frames that arrived whole.
    pub(crate) fn arrived(&self) -> Vec<String> {
        let bytes = self.peer.bytes.lock().unwrap();
        let (mut rest, mut texts) = (&bytes[..], Vec::new());
        while let [head, len, more @ ..] = rest {
            let (len, more) = match *len {
                126 => (usize::from(u16::from_be_bytes([more[0], more[1]])), &more[2..]),
                len => (usize::from(len), more),
            };
            let payload = &more[..len];
            texts.push(match *head {
                0x8A => PONG.to_owned(),
                0x88 => CLOSED.to_owned(),
                _ => String::from_utf8(payload.to_vec()).unwrap().trim_end_matches('.').to_owned(),
            });
            rest = &more[len..];
        }
        assert!(rest.is_empty(), "a frame is cut");
        texts
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.shared.metrics.drops.value(reason)
    }

    pub(crate) fn signals(&self) -> Signals {
        self.outbox.poll_signals(Waker::noop())
    }

    pub(crate) fn queued(&self) -> usize {
        self.shared.queued()
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }
}

/// A text of topic `t`, filled up to so many bytes.
pub(crate) fn long(name: &str, bytes: usize) -> String {
    format!("t={name:.<bytes$}")
}

pub(crate) fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("n{n}")).collect()
}

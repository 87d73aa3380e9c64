//! Records to store, everything that a store has, and a store that fails when it is told to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidegate::store::disk::{DiskSettings, DiskStore};
use tidegate::store::*;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Copies, Overflow, SubscriptionId};
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

pub(crate) fn topic(text: &str) -> Topic {
    Topic::parse(text, &TopicLimits::STANDARD).unwrap()
}

pub(crate) fn session(name: &str) -> Box<SessionRecord> {
    Box::new(SessionRecord { name: name.into(), expiry_ms: 60_000, away: None, will: None, lost: 0 })
}

pub(crate) fn subscription(filter: &str) -> Box<SubscriptionRecord> {
    Box::new(SubscriptionRecord {
        key: SubscriptionKey {
            filter: TopicFilter::parse(filter, &TopicLimits::STANDARD).unwrap(),
            group: None,
            id: SubscriptionId(1),
        },
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
        overflow: Overflow::DropOldest,
        overflow_acked: Overflow::DropOldest,
        conflate_ms: None,
        copies: Copies::PerClient,
        owes_retained: false,
        selector: None,
    })
}

pub(crate) fn publication(topic_name: &str, payload: impl Into<Bytes>) -> Box<PublicationRecord> {
    Box::new(PublicationRecord {
        topic: topic(topic_name),
        payload: payload.into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        is_text: false,
        properties: None,
        expires_at_ms: None,
        published_ms: 1,
        publisher: 2,
    })
}

pub(crate) fn reference(body: u64) -> ReferenceRecord {
    ReferenceRecord {
        body: BodyId(body),
        qos: QoS::AtLeastOnce,
        retain: false,
        is_retained: false,
        size_bytes: 100,
        subscription: SubscriptionId(1),
        also: Vec::new(),
        expires_at_ms: None,
        received: None,
    }
}

/// One message for one session, its number for everything.
pub(crate) fn message(key: SessionKey, number: u64) -> [Change; 2] {
    [
        Change::PutBody(BodyId(number), publication("a", number.to_string())),
        Change::Enqueue(key, number, reference(number)),
    ]
}

/// Everything that a store has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) sessions: BTreeMap<SessionKey, RecoveredSession>,
    pub(crate) queues: BTreeMap<SessionKey, Vec<QueuedMessage>>,
    pub(crate) retained: BTreeMap<String, PublicationRecord>,
}

impl Contents {
    /// Payloads of a queue.
    pub(crate) fn payloads(&self, key: SessionKey) -> Vec<String> {
        let messages = self.queues.get(&key).into_iter().flatten();
        messages
            .map(|message| {
                let payload = message.publication.as_ref().map(|publication| publication.payload.to_vec());
                String::from_utf8(payload.unwrap_or_default()).unwrap()
            })
            .collect()
    }
}

pub(crate) const PAGE: PageLimits = PageLimits { count_max: 3, bytes_max: usize::MAX };

/// Through recovery and pages of three.
pub(crate) fn contents(store: &dyn Store) -> (Contents, Recovery) {
    let mut contents = Contents::default();
    let visit = &mut |recovered| match recovered {
        Recovered::Session(mut session) => {
            session.subscriptions.sort_by(|a, b| a.key.cmp(&b.key));
            contents.sessions.insert(session.key, *session);
        }
        Recovered::Retained(record) => {
            contents.retained.insert(record.topic.as_str().to_owned(), *record);
        }
    };
    let recovery = store.recover(visit, &mut |_| ()).unwrap();
    for key in contents.sessions.keys() {
        contents.queues.insert(*key, queue(store, *key));
    }
    (contents, recovery)
}

/// Page by page.
pub(crate) fn queue(store: &dyn Store, key: SessionKey) -> Vec<QueuedMessage> {
    let (mut messages, mut from_seq) = (Vec::new(), 0);
    loop {
        let page = store.load_queue(key, from_seq, PAGE).unwrap();
        assert!(page.messages.len() <= PAGE.count_max);
        messages.extend(page.messages);
        if page.is_last {
            return messages;
        }
        assert!(page.next_seq > from_seq, "a page that is not the last leads on");
        from_seq = page.next_seq;
    }
}

pub(crate) fn open(path: &Path) -> DiskStore {
    DiskStore::open(path, DiskSettings::default()).unwrap()
}

/// As a crash leaves it: what is in the files now, whatever the store has in memory.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The length of what is written: journals are longer, with zeros at their end.
pub(crate) fn written_len(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let zeros = bytes.rchunks(ZEROS.len()).take_while(|chunk| *chunk == &ZEROS[..chunk.len()]);
    let bytes = &bytes[..bytes.len() - zeros.map(<[u8]>::len).sum::<usize>()];
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// A store whose next commits fail as often as it is told, before anything of them is stored.
pub(crate) struct Faulty<S> {
    pub(crate) store: S,
    failures: AtomicUsize,
    commits: AtomicUsize,
    loads: AtomicUsize,
    /// Nothing can be read.
    pub(crate) is_unreadable: AtomicBool,
    /// The next commit is a fault of the program.
    pub(crate) panics: AtomicBool,
    /// Whoever holds it holds the commits up.
    pub(crate) gate: Mutex<()>,
    /// What others have put on its disk.
    pub(crate) foreign_bytes: AtomicU64,
}

impl<S: Store> Faulty<S> {
    pub(crate) fn new(store: S) -> Arc<Self> {
        Arc::new(Self {
            store,
            failures: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
            is_unreadable: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            gate: Mutex::default(),
            foreign_bytes: AtomicU64::new(0),
        })
    }

    /// Attempts, those that failed included.
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    /// Pages asked for.
    #[allow(dead_code, reason = "each test program uses another part of this")]
    pub(crate) fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    pub(crate) fn fail(&self, times: usize) {
        self.failures.store(times, Ordering::SeqCst);
    }
}

impl<S: Store> Store for Faulty<S> {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        drop(self.gate.lock().unwrap());
        assert!(!self.panics.load(Ordering::SeqCst), "as it was told");
        self.commits.fetch_add(1, Ordering::SeqCst);
        let fails =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if fails.is_ok() {
            let kind = std::io::ErrorKind::StorageFull;
            return Err(StoreError::Io { kind, reason: "injected".to_owned() });
        }
        self.store.commit(changes)
    }

    fn load_queue(&self, session: SessionKey, from_seq: u64, limits: PageLimits) -> Result<Page, StoreError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if self.is_unreadable.load(Ordering::SeqCst) {
            let kind = std::io::ErrorKind::Other;
            return Err(StoreError::Io { kind, reason: "injected".to_owned() });
        }
        self.store.load_queue(session, from_seq, limits)
    }

    fn recover(
        &self,
        visit: &mut dyn FnMut(Recovered),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Recovery, StoreError> {
        self.store.recover(visit, progress)
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        self.store.maintain()
    }

    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes() + self.foreign_bytes.load(Ordering::SeqCst)
    }

    fn stats(&self) -> Result<StatsReport, StoreError> {
        self.store.stats()
    }

    fn check(&self) -> Result<CheckReport, StoreError> {
        self.store.check()
    }

    fn backup(&self, directory: &Path) -> Result<(), StoreError> {
        self.store.backup(directory)
    }
}

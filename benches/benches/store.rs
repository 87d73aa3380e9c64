//! How many acknowledged messages does the store take a second, how long does an acknowledgement wait, and how far is
//! that from what fjall does with the same bytes? How long does a start take with a million queued messages?
//!
//! Publishers with some messages of 1 KiB in flight each, to one durable session each, which settles what is 1000
//! messages old. Run with `STORE_BENCH_DIRECTORY` on the disk in question; `QUEUED` changes the million.

#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]
#![expect(clippy::print_stdout, reason = "its output is a table")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use tidegate::store::disk::{DiskSettings, DiskStore};
use tidegate::store::record::Record as _;
use tidegate::store::{
    BodyId, Change, PublicationRecord, ReferenceRecord, SessionKey, SessionRecord, Settings, Store, Writer,
};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::SubscriptionId;
use tidegate_protocol::topic::{Topic, TopicLimits};

const PAYLOAD_BYTES: usize = 1024;
const SETTLED_AFTER: u64 = 1000;
const RUN: Duration = Duration::from_secs(5);

fn main() {
    let directory = std::env::var_os("STORE_BENCH_DIRECTORY").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(directory).unwrap();
    for (publishers, in_flight) in [(1, 1), (1, 16), (10, 16), (100, 4), (100, 16)] {
        acknowledged(&folder.path().join(format!("{publishers}-{in_flight}")), publishers, in_flight);
    }
    for batch in [16, 64, 256] {
        raw(&folder.path().join(format!("raw-{batch}")), batch);
    }
    let queued = std::env::var("QUEUED").map_or(1_000_000, |queued| queued.parse().unwrap());
    restart(&folder.path().join("restart"), queued);
}

fn publication(payload: &Bytes) -> PublicationRecord {
    PublicationRecord {
        topic: Topic::parse("plant/line/sensor", &TopicLimits::STANDARD).unwrap(),
        payload: payload.clone(),
        qos: QoS::AtLeastOnce,
        retain: false,
        is_text: false,
        properties: None,
        expires_at_ms: None,
        published_ms: 1,
        publisher: 1,
    }
}

fn reference(body: BodyId) -> ReferenceRecord {
    ReferenceRecord {
        body,
        qos: QoS::AtLeastOnce,
        retain: false,
        is_retained: false,
        size_bytes: 1041,
        subscription: SubscriptionId(1),
        also: Vec::new(),
        expires_at_ms: None,
        received: None,
    }
}

fn session(key: u64) -> Change {
    let record =
        SessionRecord { name: key.to_string().into(), expiry_ms: 1, away: None, will: None, lost: 0 };
    Change::PutSession(SessionKey(key), Box::new(record))
}

/// Noise, so that no disk compresses it.
fn payload() -> Bytes {
    let mut state = 88_172_645_463_325_252_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(PAYLOAD_BYTES).collect::<Vec<_>>().into()
}

/// Publishers that wait for their tickets, through the writer.
fn acknowledged(path: &Path, publishers: u64, in_flight: u64) {
    let store = Arc::new(DiskStore::open(path, DiskSettings::default()).unwrap());
    store.commit(&(0..publishers).map(session).collect::<Vec<_>>()).unwrap();
    let writer = Writer::start(store, Settings::default(), 0).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    // Two threads, as two cores serve many connections.
    let threads: Vec<_> = (0..2_u64.min(publishers))
        .map(|thread| {
            let (writer, is_over) = (writer.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || publish(&writer, (thread..publishers).step_by(2), in_flight, &is_over))
        })
        .collect();
    std::thread::sleep(RUN);
    is_over.store(true, Ordering::Relaxed);
    let mut waits: Vec<Duration> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let seconds = begun.elapsed().as_secs_f64();
    writer.stop();
    waits.sort_unstable();
    let gauges = writer.gauges();
    println!(
        "{publishers:>4} publishers, {in_flight:>2} in flight: {:>7.0} acknowledged/s, p50 {:>9.3?}, p99 {:>9.3?}, {:.1} a commit, busy {:.0} %",
        waits.len() as f64 / seconds,
        percentile(&waits, 50),
        percentile(&waits, 99),
        gauges.submissions as f64 / gauges.commits as f64,
        gauges.busy.as_secs_f64() / seconds * 100.0
    );
}

/// Of sorted times, the one that so many of 100 do not exceed.
fn percentile(waits: &[Duration], percent: usize) -> Duration {
    waits.get(waits.len() * percent / 100).copied().unwrap_or_default()
}

/// Sends for these publishers until it is over; how long each acknowledgement took.
fn publish(
    writer: &Writer,
    publishers: impl Iterator<Item = u64>,
    in_flight: u64,
    is_over: &AtomicBool,
) -> Vec<Duration> {
    let payload = payload();
    let (sender, receiver) = channel();
    let mut sequences: std::collections::HashMap<u64, u64> =
        publishers.map(|publisher| (publisher, 0)).collect();
    let send = |publisher: u64, seq: u64, sender: &Sender<(u64, Instant)>| {
        let (body, key) = (writer.next_body(), SessionKey(publisher));
        let mut changes = vec![
            Change::PutBody(body, Box::new(publication(&payload))),
            Change::Enqueue(key, seq, reference(body)),
        ];
        changes.extend(seq.checked_sub(SETTLED_AFTER).map(|settled| Change::Dequeue(key, settled)));
        let (sender, begun) = (sender.clone(), Instant::now());
        let ticket = writer.submit(changes).unwrap();
        writer.when_done(ticket, Arc::new(move || sender.send((publisher, begun)).unwrap()));
    };
    for (publisher, seq) in &mut sequences {
        for _ in 0..in_flight {
            send(*publisher, *seq, &sender);
            *seq += 1;
        }
    }
    let mut waits = Vec::new();
    let mut open = sequences.len() as u64 * in_flight;
    while open > 0 {
        let (publisher, begun) = receiver.recv().unwrap();
        waits.push(begun.elapsed());
        open -= 1;
        if !is_over.load(Ordering::Relaxed) {
            let seq = sequences.get_mut(&publisher).unwrap();
            send(publisher, *seq, &sender);
            *seq += 1;
            open += 1;
        }
    }
    waits
}

/// The same bytes in batches of this many messages, one fsync each, nothing between fjall and the loop.
fn raw(path: &Path, batch: u64) {
    let database = Database::builder(path).manual_journal_persist(true).open().unwrap();
    let options = || KeyspaceCreateOptions::default().manual_journal_persist(true);
    let (bodies, queue) =
        (database.keyspace("b", options).unwrap(), database.keyspace("q", options).unwrap());
    let (body, reference) = (publication(&payload()).encode(), reference(BodyId(1 << 40)).encode());
    let key = |number: u64| [number.to_be_bytes(), number.to_be_bytes()].concat();
    let (begun, mut number, mut waits) = (Instant::now(), 0_u64, Vec::new());
    while begun.elapsed() < RUN {
        let batch_begun = Instant::now();
        let mut writes = database.batch().durability(Some(PersistMode::SyncData));
        for _ in 0..batch {
            writes.insert(&bodies, number.to_be_bytes(), body.as_slice());
            writes.insert(&queue, key(number), reference.as_slice());
            if let Some(settled) = number.checked_sub(SETTLED_AFTER) {
                writes.remove(&bodies, settled.to_be_bytes());
                writes.remove(&queue, key(settled));
            }
            number += 1;
        }
        writes.commit().unwrap();
        waits.push(batch_begun.elapsed());
    }
    let seconds = begun.elapsed().as_secs_f64();
    waits.sort_unstable();
    println!(
        "fjall itself, {batch:>3} a batch: {:>7.0} messages/s, p50 {:>9.3?}, p99 {:>9.3?}",
        number as f64 / seconds,
        percentile(&waits, 50),
        percentile(&waits, 99)
    );
}

/// A start with this many messages waiting.
fn restart(path: &Path, queued: u64) {
    const SESSIONS: u64 = 1000;
    let store = DiskStore::open(path, DiskSettings { is_synced: false, ..DiskSettings::default() }).unwrap();
    store.commit(&(0..SESSIONS).map(session).collect::<Vec<_>>()).unwrap();
    let payload = payload();
    for first in (0..queued).step_by(1000) {
        let changes = (first..(first + 1000).min(queued)).flat_map(|number| {
            let body = BodyId(number);
            [
                Change::PutBody(body, Box::new(publication(&payload))),
                Change::Enqueue(SessionKey(number % SESSIONS), number, reference(body)),
            ]
        });
        store.commit(&changes.collect::<Vec<_>>()).unwrap();
    }
    drop(store);
    let before = resident_bytes();
    let begun = Instant::now();
    let store = DiskStore::open(path, DiskSettings::default()).unwrap();
    let opened = begun.elapsed();
    let recovery = store.recover(&mut |_| (), &mut |_| ()).unwrap();
    let bytes = resident_bytes().saturating_sub(before);
    println!(
        "start with {} queued: {:.2?}, of which opening {opened:.2?}; {bytes} bytes more in memory",
        recovery.messages,
        begun.elapsed()
    );
    let (begun, mut count) = (Instant::now(), 0);
    let limits = tidegate::store::PageLimits { count_max: 100, bytes_max: usize::MAX };
    for key in 0..SESSIONS {
        count += store.load_queue(SessionKey(key), 0, limits).unwrap().messages.len();
    }
    println!("pages of 100: {:.2?} for {count} messages", begun.elapsed());
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64
}

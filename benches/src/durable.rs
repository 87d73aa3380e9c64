//! What it costs to lose nothing: acknowledgements that wait for the disk beside fjall alone, QoS 0 beside a store that it
//! does not need, and a start with a million queued messages.

use std::io;
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use tidegate_protocol::publication::QoS;

use crate::child::Storage;
use crate::drive::{Publisher, measure};
use crate::histogram::Histogram;
use crate::pipeline::Pipeline;
use crate::report::Row;
use crate::rig::{Payload, Rig, Setting, credit};
use crate::swarm::subscriber;
use crate::wire::{Protocol, Role};

const PAYLOAD_BYTES: usize = 1024;
/// Messages of each publisher that wait for their PUBACK.
const IN_FLIGHT: usize = 4;
const SESSION_EXPIRY_SECONDS: u32 = 3600;
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(10);

/// `n` publishers at QoS 1, each to a durable session of its own, and fjall alone with batches of the same size.
pub fn group_commit(setting: &Setting, n: usize) -> io::Result<Vec<Row>> {
    let mut rig = Rig::stored(setting, Protocol::Mqtt, &Payload::text(PAYLOAD_BYTES), Storage::Disk)?;
    rig.qos = QoS::AtLeastOnce;
    let first = rig.swarm.open((0..n).map(|n| durable(n, vec![topic(n)])).collect())?;
    let publishers = rig.publishers(&(0..n).map(topic).collect::<Vec<_>>())?;
    let mut pipeline = Pipeline::new(publishers, IN_FLIGHT);
    pipeline.run(&mut rig.swarm, setting.warm_up)?;
    pipeline.waits.clear();
    let (acked, commits) = (pipeline.acknowledged(), rig.broker.metric(COMMITS)?);
    let run = |swarm: &mut _| pipeline.run(swarm, setting.measured);
    let mut window = measure(&mut rig.swarm, &rig.broker, run)?;
    let acked = (pipeline.acknowledged() - acked) as f64;
    let per_commit = acked / (rig.broker.metric(COMMITS)? - commits).max(1.0);
    window.lost = lost(&mut rig, first..first + n, pipeline.sent())?;
    let name = group_commit_name(n);
    let mut row =
        Row::of_window(name.clone(), rig.subject.name(), &window, &[("messages_per_commit", per_commit)]);
    row.figures.extend(ack_figures(acked / window.seconds, &pipeline.waits));
    drop(rig);
    Ok(vec![row, fjall_alone(setting, name, n, per_commit)?])
}

/// The scenario's name in tables.
pub(crate) fn group_commit_name(n: usize) -> String {
    format!("stored: {n} publishers at QoS 1, 1 KiB, group commit")
}

const COMMITS: &str = "tidegate_store_commits_total";

fn ack_figures(per_second: f64, waits: &Histogram) -> [(&'static str, f64); 3] {
    let us = |ns: u64| ns as f64 / 1000.0;
    [
        ("acked_per_second", per_second),
        ("ack_p50_us", us(waits.per_mille_ns(500))),
        ("ack_p99_us", us(waits.per_mille_ns(990))),
    ]
}

/// Waits for what is on its way; answers with what never came.
fn lost(rig: &mut Rig, subscribers: std::ops::Range<usize>, sent: u64) -> io::Result<u64> {
    let deadline = Instant::now() + DELIVERY_TIME_MAX;
    loop {
        let received: u64 = subscribers.clone().map(|index| rig.swarm.received(index)).sum();
        if received >= sent || Instant::now() > deadline {
            return Ok(sent.saturating_sub(received));
        }
        rig.swarm.turn(Duration::from_millis(20))?;
    }
}

/// The same writes in the same batches, one fsync each, with the options of Tidegate's store and nothing between: a body,
/// a reference, and both of a message that was settled.
fn fjall_alone(setting: &Setting, scenario: String, n: usize, per_commit: f64) -> io::Result<Row> {
    let failed = |error: fjall::Error| io::Error::other(format!("fjall: {error}"));
    let folder = tempfile::tempdir_in(&setting.directory)?;
    let database = Database::builder(folder.path())
        .cache_size(8 * MIB)
        .max_journaling_size(64 * MIB)
        .manual_journal_persist(true)
        .worker_threads(2)
        .open()
        .map_err(failed)?;
    let options =
        |bytes| KeyspaceCreateOptions::default().manual_journal_persist(true).max_memtable_size(bytes);
    let bodies = database.keyspace("bodies", || options(16 * MIB)).map_err(failed)?;
    let queues = database.keyspace("queues", || options(8 * MIB)).map_err(failed)?;
    let key = |number: u64| [(number % n as u64).to_be_bytes(), number.to_be_bytes()].concat();
    let (body, reference) = (vec![b'x'; PAYLOAD_BYTES + BODY_HEAD_BYTES], vec![b'x'; REFERENCE_BYTES]);
    let batch = per_commit.round().max(1.0);
    let settled_after = (n * IN_FLIGHT) as u64;
    let (mut waits, mut number, mut messages, begun) = (Histogram::default(), 0u64, 0.0, Instant::now());
    while begun.elapsed() < setting.measured {
        let start = Instant::now();
        let mut writes = database.batch().durability(Some(PersistMode::SyncData));
        let mut of_batch = 0.0;
        while of_batch < batch {
            writes.insert(&bodies, number.to_be_bytes(), body.as_slice());
            writes.insert(&queues, key(number), reference.as_slice());
            if let Some(settled) = number.checked_sub(settled_after) {
                writes.remove(&bodies, settled.to_be_bytes());
                writes.remove(&queues, key(settled));
            }
            number += 1;
            of_batch += 1.0;
        }
        writes.commit().map_err(failed)?;
        messages += of_batch;
        waits.record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    let mut figures = vec![("messages_per_commit", batch)];
    figures.extend(ack_figures(messages / begun.elapsed().as_secs_f64(), &waits));
    Ok(Row { scenario, subject: "fjall".to_owned(), figures })
}

const MIB: u64 = 1024 * 1024;
/// Topic and times beside the payload.
const BODY_HEAD_BYTES: usize = 48;
const REFERENCE_BYTES: usize = 32;

/// QoS 0, 1→`n`, 64 B, at saturation, with a store and without one, taking turns.
pub fn fanout_beside_a_store(setting: &Setting, n: usize) -> io::Result<Vec<Row>> {
    let rig = |storage| {
        let mut rig = Rig::stored(setting, Protocol::Mqtt, &Payload::text(64), storage)?;
        rig.join_fanout(n, false)?;
        io::Result::Ok((storage, rig))
    };
    let mut rigs = [rig(Storage::Memory)?, rig(Storage::Disk)?];
    let mut rows = Vec::new();
    for _ in 0..TURNS {
        for (storage, rig) in &mut rigs {
            rows.push(rig.row(setting, fanout_name(n, *storage), credit(64), &[])?);
        }
        // Whoever was second is first.
        rigs.reverse();
    }
    Ok(rows)
}

/// Windows of each.
const TURNS: usize = 5;

/// The scenario's name in tables.
pub(crate) fn fanout_name(n: usize, storage: Storage) -> String {
    let state = if storage == Storage::Disk { "on" } else { "off" };
    format!("stored: QoS 0, 1→{n}, 64 B, store {state}")
}

/// Sessions that are away with so many messages each, 1 KiB at QoS 1; the broker is killed and starts again.
pub fn restart(setting: &Setting, queued_each: usize) -> io::Result<Vec<Row>> {
    let n = setting.idle_connections;
    let mut rig = Rig::stored(setting, Protocol::Mqtt, &Payload::text(PAYLOAD_BYTES), Storage::Disk)?;
    rig.qos = QoS::AtLeastOnce;
    let first = rig.swarm.open((0..n).map(|n| durable(n, vec![topic(n)])).collect())?;
    (first..first + n).try_for_each(|connection| rig.swarm.hang_up(connection))?;
    let _settled = rig.settled_rss()?;
    rig.crash_and_restart(setting)?;
    let without_messages = rig.settled_rss()?;

    let publishers = rig.publishers(&vec![topic(0); FILLERS.min(n)])?;
    let each = n.div_ceil(publishers.len());
    let publishers = publishers.into_iter().enumerate().map(|(at, publisher)| {
        let topics = (at * each..n.min((at + 1) * each)).map(topic);
        let frames = topics.map(|topic| rig.payload.publish(Protocol::Mqtt, &topic, QoS::AtLeastOnce));
        Publisher { frames: frames.collect(), ..publisher }
    });
    let mut pipeline = Pipeline::new(publishers.collect(), FILLERS_IN_FLIGHT);
    let start = Instant::now();
    pipeline.run_rounds(&mut rig.swarm, queued_each)?;
    let (fill_seconds, queued) = (start.elapsed().as_secs_f64(), (n * queued_each) as f64);

    let to_accept = rig.crash_and_restart(setting)?;
    let with_messages = rig.settled_rss()?;
    let complete = come_back(&mut rig, n, queued_each)?;
    let figures = vec![
        ("seconds_to_accept", to_accept.as_secs_f64()),
        ("rss_bytes_per_queued", (with_messages as f64 - without_messages as f64) / queued),
        ("rss_bytes", with_messages as f64),
        ("complete", complete),
        ("filled_per_second", queued / fill_seconds),
    ];
    Ok(vec![Row { scenario: restart_name(n, queued_each), subject: rig.subject.name(), figures }])
}

/// The scenario's name in tables.
pub(crate) fn restart_name(sessions: usize, queued_each: usize) -> String {
    format!("stored: restart, {sessions} sessions × {queued_each}")
}

/// The least share of its messages that one of a few sessions gets when it comes back.
fn come_back(rig: &mut Rig, n: usize, queued_each: usize) -> io::Result<f64> {
    let roles = (0..n).step_by(n.div_ceil(RESUMED)).map(|n| durable(n, Vec::new())).collect::<Vec<_>>();
    let count = roles.len();
    let first = rig.swarm.open(roles)?;
    let _missing = lost(rig, first..first + count, (count * queued_each) as u64)?;
    let least = (first..first + count).map(|connection| rig.swarm.received(connection)).min();
    Ok(least.unwrap_or(0) as f64 / queued_each as f64)
}

const FILLERS: usize = 20;
const FILLERS_IN_FLIGHT: usize = 100;
/// Sessions that come back, to see whether their messages were kept.
const RESUMED: usize = 20;

/// A subscriber whose session is kept.
fn durable(n: usize, filters: Vec<String>) -> Role {
    let mut role = subscriber(Protocol::Mqtt, filters);
    role.qos = QoS::AtLeastOnce;
    role.client_id = Some(format!("load-durable-{n}"));
    role.session_expiry_seconds = Some(SESSION_EXPIRY_SECONDS);
    role
}

fn topic(n: usize) -> String {
    format!("load/durable/{n}")
}

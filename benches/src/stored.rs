//! What a broker keeps: retained messages, and sessions with their subscriptions. Completeness, time, memory, and
//! what other clients feel of it.

use std::io;
use std::time::{Duration, Instant};

use tidegate_protocol::publication::QoS;

use crate::child::Queues;
use crate::drive::{Window, measure, packet_id};
use crate::histogram::Histogram;
use crate::pair::Pair;
use crate::report::Row;
use crate::rig::{Payload, Rig, Setting, Subject};
use crate::swarm::subscriber;
use crate::wire::Publish;

/// Retained publications that wait for their PUBACK; below every broker's Receive Maximum.
const UNACKNOWLEDGED_MAX: u64 = 200;
/// Clients that subscribe to everything at each QoS, one after the other.
const ROUNDS: usize = 10;
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(2);

/// So many retained topics, then `#`, at QoS 0 and 1, while two other clients ask and answer.
pub fn retained(setting: &Setting, subject: Subject, topics: usize) -> io::Result<Vec<Row>> {
    let mut rig = Rig::new(setting, subject, &Payload::text(64), Queues::NeverDrop)?;
    let empty = rig.settled_rss()?;
    let set_seconds = set_retained(&mut rig, topics)?;
    let pair = Pair::start(rig.broker.address(), 3)?;
    run_for(&mut rig, QUIET)?;
    let full = rig.settled_rss()?;
    let mut rows = Vec::new();
    for (phase, qos) in [(1, QoS::AtMostOnce), (2, QoS::AtLeastOnce)] {
        pair.enter(phase);
        rows.push(subscribe_to_all(&mut rig, topics, qos, full)?);
        pair.enter(0);
        run_for(&mut rig, QUIET)?;
    }
    let trips = pair.stop()?;
    let (alone, during) = trips.split_first().ok_or_else(|| io::Error::other("no round trips"))?;
    for (row, during) in rows.iter_mut().zip(during) {
        row.figures.extend(trip_figures(alone, during));
        row.figures.push(("set_per_second", topics as f64 / set_seconds));
        row.figures.push(("bytes_per_retained", (full as f64 - empty as f64) / topics as f64));
    }
    Ok(rows)
}

/// The scenario's name in tables.
pub(crate) fn retained_name(topics: usize, qos: QoS) -> String {
    format!("retained: {topics} topics, # at QoS {}", qos as u8)
}

/// Sets all, pipelined; answers with the seconds it took.
fn set_retained(rig: &mut Rig, topics: usize) -> io::Result<f64> {
    let publisher = rig.publisher("load/keeps", 0)?.connection;
    let (start, mut sent) = (Instant::now(), 0);
    let deadline = start + DELIVERY_TIME_MAX;
    while rig.swarm.acknowledged(publisher) < topics as u64 {
        let waiting = sent as u64 - rig.swarm.acknowledged(publisher);
        let room = usize::try_from(UNACKNOWLEDGED_MAX.saturating_sub(waiting)).unwrap_or(0);
        let payload = &rig.payload.bytes;
        rig.swarm.send(publisher, |out| {
            for n in (sent..topics).take(room) {
                Publish::retained(&exact(n), payload).append(out, 0, packet_id(n));
            }
        })?;
        sent = topics.min(sent + room);
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("{waiting} retained messages were not acknowledged")));
        }
        rig.swarm.turn(Duration::from_millis(100))?;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn subscribe_to_all(rig: &mut Rig, topics: usize, qos: QoS, full: u64) -> io::Result<Row> {
    rig.broker.forget_peak()?;
    let (mut complete, mut seconds, mut cpu_seconds) = (topics as u64, 0.0, 0.0);
    for _ in 0..ROUNDS {
        let mut role = subscriber(rig.subject.protocol, Vec::new());
        role.qos = qos;
        let connection = rig.swarm.open(vec![role])?;
        let window = hear_all(rig, connection, topics as u64)?;
        complete = complete.min(rig.swarm.retained(connection));
        seconds += window.seconds / ROUNDS as f64;
        cpu_seconds += window.broker_cpu_seconds;
        rig.swarm.hang_up(connection)?;
    }
    let peak = rig.broker.peak_rss_bytes()?;
    let figures = vec![
        ("complete", complete as f64 / topics as f64),
        ("seconds", seconds),
        ("cpu_seconds_per_million_retained", cpu_seconds * 1e6 / (ROUNDS * topics) as f64),
        ("peak_rss_growth_bytes", peak as f64 - full as f64),
    ];
    Ok(Row { scenario: retained_name(topics, qos), subject: rig.subject.name(), figures })
}

/// Subscribes to everything and waits until all of it has come.
fn hear_all(rig: &mut Rig, connection: usize, topics: u64) -> io::Result<Window> {
    measure(&mut rig.swarm, &rig.broker, |swarm| {
        let deadline = Instant::now() + DELIVERY_TIME_MAX;
        swarm.subscribe(connection..connection + 1, |_| vec!["#".to_owned()])?;
        while swarm.retained(connection) < topics && Instant::now() < deadline {
            swarm.turn(Duration::from_millis(20))?;
        }
        Ok(())
    })
}

fn trip_figures(alone: &Histogram, during: &Histogram) -> [(&'static str, f64); 6] {
    let us = |ns: u64| ns as f64 / 1000.0;
    [
        ("others_alone_p50_us", us(alone.per_mille_ns(500))),
        ("others_alone_p99_us", us(alone.per_mille_ns(990))),
        ("others_p50_us", us(during.per_mille_ns(500))),
        ("others_p99_us", us(during.per_mille_ns(990))),
        ("others_max_us", us(during.max_ns())),
        ("others_round_trips", during.len() as f64),
    ]
}

const SUBSCRIPTIONS_PER_SESSION: usize = 100;
const SESSION_EXPIRY_SECONDS: u32 = 3600;
/// Sessions that come back, to see whether they were kept.
const RESUMED: usize = 20;

/// So many sessions of MQTT 5 with 100 subscriptions each, a tenth of them with wildcards: while they are connected,
/// and after their connections have dropped.
pub fn sessions(setting: &Setting, subject: Subject) -> io::Result<Vec<Row>> {
    let n = setting.idle_connections;
    let subscriptions = n * SUBSCRIPTIONS_PER_SESSION;
    let mut rig = Rig::new(setting, subject, &Payload::text(64), Queues::NeverDrop)?;
    let empty = rig.settled_rss()?;
    let role = |n: usize| {
        let mut role = subscriber(subject.protocol, Vec::new());
        role.client_id = Some(format!("load-session-{n}"));
        role.session_expiry_seconds = Some(SESSION_EXPIRY_SECONDS);
        role
    };
    let first = rig.swarm.open((0..n).map(role).collect())?;
    let connected = rig.settled_rss()?;
    let window = measure(&mut rig.swarm, &rig.broker, |swarm| {
        swarm.subscribe(first..first + n, |connection| filters(connection - first))
    })?;
    let subscribed = rig.settled_rss()?;
    (first..first + n).try_for_each(|connection| rig.swarm.hang_up(connection))?;
    run_for(&mut rig, QUIET)?;
    let dropped = rig.settled_rss()?;
    let resumed = rig.swarm.open((0..n).step_by(n.div_ceil(RESUMED)).map(role).collect())?;
    let kept = (resumed..).take(RESUMED).filter(|connection| rig.swarm.is_session_present(*connection));
    let each = |seconds: f64| seconds * 1e6 / subscriptions as f64;
    let bytes = |rss: u64, before: u64| (rss as f64 - before as f64) / subscriptions as f64;
    let figures = vec![
        ("bytes_per_subscription", bytes(subscribed, connected)),
        ("bytes_per_subscription_with_its_connection", bytes(subscribed, empty)),
        ("bytes_per_subscription_when_dropped", bytes(dropped, empty)),
        ("sessions_kept", kept.count() as f64 / RESUMED.min(n) as f64),
        ("subscribe_seconds", window.seconds),
        ("us_per_subscription", each(window.seconds)),
        ("cpu_us_per_subscription", each(window.broker_cpu_seconds)),
    ];
    Ok(vec![Row { scenario: sessions_name(n), subject: subject.name(), figures }])
}

/// The scenario's name in tables.
pub(crate) fn sessions_name(n: usize) -> String {
    format!("sessions: {n} with {SUBSCRIPTIONS_PER_SESSION} subscriptions each")
}

/// The filters of one session, as in the micro benchmark `match`.
fn filters(session: usize) -> Vec<String> {
    let first = session * SUBSCRIPTIONS_PER_SESSION;
    let filter = |n: usize| match n % 20 {
        0 => format!("plant/{}/+/sensor{n}", n % 100),
        10 => format!("site{n}/+/#"),
        _ => exact(n),
    };
    (first..first + SUBSCRIPTIONS_PER_SESSION).map(filter).collect()
}

fn exact(n: usize) -> String {
    format!("plant/{}/line{}/sensor{n}", n % 100, n / 100 % 100)
}

fn run_for(rig: &mut Rig, length: Duration) -> io::Result<()> {
    let until = Instant::now() + length;
    while Instant::now() < until {
        rig.swarm.turn(Duration::from_millis(50))?;
    }
    Ok(())
}

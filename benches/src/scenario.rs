//! What is measured: each scenario starts a broker, opens its connections, drives them, and answers with rows.
//! Bounded in connections, messages and time.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::child::{Broker, Program, Queues};
use crate::drive::{Group, Pace, Publisher, drive, greet};
use crate::report::Row;
use crate::swarm::{Swarm, publisher, subscriber};
use crate::wire::{Protocol, Publish, StampFromEnd};

/// How long, and with which binary.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Path of Tidegate's binary.
    pub tidegate: PathBuf,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured, at each pace.
    pub measured: Duration,
    /// Connections of the idle scenario.
    pub idle_connections: usize,
}

/// Who is measured: a broker through one of its protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The program.
    pub program: Program,
    /// What publisher and subscribers speak.
    pub protocol: Protocol,
}

impl Subject {
    fn name(self) -> String {
        format!("{}/{}", self.program.name(), self.protocol.name())
    }
}

const FIXED_DELIVERIES_PER_SECOND: f64 = 20_000.0;
/// So much of a group may be on its way to one subscriber; below every default queue.
const CREDIT_BYTES: usize = 128 * 1024;
const CREDIT_MESSAGES: usize = 256;

/// One publisher, `n` subscribers, one topic; saturation, then a fixed rate.
pub fn fanout(setting: &Setting, subject: Subject, n: usize, size: usize) -> io::Result<Vec<Row>> {
    let mut rig = Rig::fanout(setting, subject, n, &Payload::text(size), Queues::NeverDrop, false)?;
    let name = format!("fanout 1→{n}, {}", bytes(size));
    let saturation = rig.row(setting, format!("{name}, saturation"), credit(size), &[])?;
    let pace = Pace::Fixed { messages_per_second: FIXED_DELIVERIES_PER_SECOND / n as f64 };
    let fixed = rig.row(setting, format!("{name}, 20 000/s"), pace, &[])?;
    Ok(vec![saturation, fixed])
}

/// 1→`n` with JSON of 1 KiB, to subscribers that negotiated deflate or did not.
pub fn deflate(setting: &Setting, subject: Subject, n: usize, deflated: bool) -> io::Result<Vec<Row>> {
    let payload = Payload::json(1024);
    let mut rig = Rig::fanout(setting, subject, n, &payload, Queues::NeverDrop, deflated)?;
    let name = format!("deflate {}, 1→{n}, 1 KiB JSON, saturation", if deflated { "on" } else { "off" });
    let mut row = rig.row(setting, name, credit(1024), &[])?;
    let rss = rig.broker.rss_bytes()?.saturating_sub(rig.rss_before);
    row.figures.push(("rss_bytes_per_connection", rss as f64 / n as f64));
    row.figures.push(("deflated_share", rig.swarm.deflated as f64 / rig.swarm.deliveries.max(1) as f64));
    Ok(vec![row])
}

/// `n` publishers, one subscriber.
pub fn fanin(setting: &Setting, subject: Subject, n: usize, size: usize) -> io::Result<Vec<Row>> {
    let mut rig = Rig::new(setting, subject, &Payload::text(size), Queues::NeverDrop)?;
    let subscribers = rig.subscribers(1, |_| vec!["load/in".to_owned()], false)?;
    let publishers = rig.publishers(&vec!["load/in".to_owned(); n])?;
    rig.groups = vec![Group::new(publishers, subscribers)];
    rig.both_paces(setting, &format!("fanin {n}→1, {}", bytes(size)), size, FIXED_DELIVERIES_PER_SECOND)
}

/// `n` pairs of one publisher and one subscriber.
pub fn pairs(setting: &Setting, subject: Subject, n: usize, size: usize) -> io::Result<Vec<Row>> {
    let mut rig = Rig::new(setting, subject, &Payload::text(size), Queues::NeverDrop)?;
    let subscribers = rig.subscribers(n, |index| vec![format!("load/pair/{index}")], false)?;
    let topics: Vec<String> = (0..n).map(|index| format!("load/pair/{index}")).collect();
    for (publisher, subscriber) in rig.publishers(&topics)?.into_iter().zip(subscribers) {
        rig.groups.push(Group::new(vec![publisher], vec![subscriber]));
    }
    rig.both_paces(setting, &format!("pairs {n}, {}", bytes(size)), size, FIXED_DELIVERIES_PER_SECOND)
}

/// Twenty subscribers, 1 KiB at 2 000 messages/s, with and without one of them that stops reading.
pub fn stalled(setting: &Setting, subject: Subject, with_one: bool) -> io::Result<Vec<Row>> {
    let mut rig = Rig::fanout(setting, subject, 20, &Payload::text(1024), Queues::Default, false)?;
    let name = format!("stalled: {} of 20", if with_one { "one" } else { "none" });
    let pace = Pace::Fixed { messages_per_second: 2000.0 };
    // Warm before memory is read: what grows later is the stalled subscriber's.
    let _warm = rig.window(setting, pace)?;
    let rss = rig.broker.rss_bytes()?;
    let Some(group) = rig.groups.pop() else { return Ok(Vec::new()) };
    let mut subscribers = group.subscribers;
    // In both cases nineteen are measured.
    let last = subscribers.pop();
    if let Some(last) = last.filter(|_| with_one) {
        rig.swarm.stall(last)?;
    }
    rig.groups = vec![Group::new(group.publishers, subscribers)];
    rig.settle();
    let long =
        Setting { warm_up: Duration::from_secs(2), measured: Duration::from_secs(8), ..setting.clone() };
    let mut row = rig.row(&long, name, pace, &[])?;
    let growth = rig.broker.rss_bytes()?.saturating_sub(rss);
    row.figures.push(("rss_growth_bytes", growth as f64));
    Ok(vec![row])
}

/// 1000 wildcard filters on 100 connections; 10 000 topics, each matched by ten of the filters.
pub fn wildcards(setting: &Setting, subject: Subject) -> io::Result<Vec<Row>> {
    let mut rig = Rig::new(setting, subject, &Payload::text(64), Queues::NeverDrop)?;
    let filters = |index: usize| (0..10).map(|n| wildcard(index / 10, index % 10 * 10 + n)).collect();
    let subscribers = rig.subscribers(100, filters, false)?;
    let mut publisher = rig.publisher("wild", 0)?;
    for n in 0..10_000 {
        // A stride over all topics, so that neighbours in time are not neighbours in the tree.
        let topic = n * 7919 % 10_000;
        let (site, device) = (topic / 100, topic % 100);
        publisher.frames.push(rig.payload.publish(subject.protocol, &format!("wild/{site}/{device}/temp")));
        let hears = |variant: usize| {
            let which = if variant < 5 { site } else { device };
            variant * 10 + which / 10
        };
        publisher.receivers.push((0..10).map(hears).collect());
    }
    rig.groups = vec![Group::new(vec![publisher], subscribers)];
    greet(&mut rig.swarm, &mut rig.groups)?;
    Ok(vec![rig.row(setting, "wildcards: 1000 filters, 10000 topics".to_owned(), credit(64), &[])?])
}

/// Connections with one subscription each and no traffic, then after a few messages to each.
pub fn idle(setting: &Setting, subject: Subject) -> io::Result<Vec<Row>> {
    let n = setting.idle_connections;
    let mut rig = Rig::new(setting, subject, &Payload::text(64), Queues::NeverDrop)?;
    let publisher = rig.publisher("load/all", 1)?;
    let _settled = rig.settled_rss()?;
    let before = rig.settled_rss()?;
    let subscribers = rig.subscribers(n, |_| vec!["load/all".to_owned()], false)?;
    let idle = rig.settled_rss()?;
    rig.groups = vec![Group::new(vec![publisher], subscribers)];
    greet(&mut rig.swarm, &mut rig.groups)?;
    let short = Setting { warm_up: Duration::ZERO, measured: Duration::from_secs(1), ..setting.clone() };
    let _window = rig.window(&short, Pace::Fixed { messages_per_second: 5.0 })?;
    let after = rig.settled_rss()?;
    let each = |rss: u64| (rss as f64 - before as f64) / n as f64;
    let figures = vec![
        ("idle_bytes_per_connection", each(idle)),
        ("after_traffic_bytes_per_connection", each(after)),
        ("deliveries_each", rig.swarm.deliveries as f64 / n as f64),
    ];
    Ok(vec![Row { scenario: format!("idle, {n} connections"), subject: subject.name(), figures }])
}

/// A payload with a place for the time stamp.
#[derive(Clone, Debug)]
struct Payload {
    bytes: Vec<u8>,
    stamp_at: usize,
}

impl Payload {
    fn text(size: usize) -> Self {
        let bytes = b"0123456789abcdefThe quick brown fox jumps over the lazy dog. ".iter().copied();
        Self { bytes: bytes.cycle().take(size).collect(), stamp_at: 0 }
    }

    /// Readings of sensors, such as a dashboard gets; about a third of its size when deflated.
    fn json(size: usize) -> Self {
        let head = "{\"ts\":\"0123456789abcdef\",\"readings\":[";
        let mut text = head.to_owned();
        let mut seed = 12345_u32;
        for n in 0.. {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let reading = format!(
                "{{\"sensor\":\"s{n:03}\",\"value\":{:.3},\"ok\":true}},",
                f64::from(seed >> 12) / 1e4
            );
            if text.len() + reading.len() + 8 > size {
                break;
            }
            text.push_str(&reading);
        }
        let filler = "x".repeat(size.saturating_sub(text.len() + 4));
        text.push_str(&format!("\"{filler}\"]}}"));
        Self { bytes: text.into_bytes(), stamp_at: 7 }
    }

    fn publish(&self, protocol: Protocol, topic: &str) -> Publish {
        Publish::new(protocol, topic, &self.bytes, self.stamp_at)
    }
}

/// A broker with its connections.
struct Rig {
    broker: Broker,
    swarm: Swarm,
    groups: Vec<Group>,
    subject: Subject,
    payload: Payload,
    rss_before: u64,
}

impl Rig {
    fn new(setting: &Setting, subject: Subject, payload: &Payload, queues: Queues) -> io::Result<Self> {
        let broker = Broker::start(subject.program, &setting.tidegate, queues)?;
        let swarm = Swarm::new(broker.address(), StampFromEnd(payload.bytes.len() - payload.stamp_at))?;
        let rss_before = broker.rss_bytes()?;
        Ok(Self { broker, swarm, groups: Vec::new(), subject, payload: payload.clone(), rss_before })
    }

    fn fanout(
        setting: &Setting,
        subject: Subject,
        n: usize,
        payload: &Payload,
        queues: Queues,
        deflate: bool,
    ) -> io::Result<Self> {
        let mut rig = Self::new(setting, subject, payload, queues)?;
        let subscribers = rig.subscribers(n, |_| vec!["load/all".to_owned()], deflate)?;
        let publisher = rig.publisher("load/all", 1)?;
        rig.groups = vec![Group::new(vec![publisher], subscribers)];
        greet(&mut rig.swarm, &mut rig.groups)?;
        Ok(rig)
    }

    fn subscribers(
        &mut self,
        n: usize,
        filters: impl Fn(usize) -> Vec<String>,
        deflate: bool,
    ) -> io::Result<Vec<usize>> {
        let role = |index| {
            let mut role = subscriber(self.subject.protocol, filters(index));
            role.deflate = deflate;
            role
        };
        let roles = (0..n).map(role).collect();
        let first = self.swarm.open(roles)?;
        // Each sampled delivery costs the generator a look at the payload, and inflating when deflated.
        self.swarm.sample_every(if n >= 100 { n / 50 } else { 1 });
        Ok((first..first + n).collect())
    }

    /// A publishing connection with this topic's frame, `frames` times.
    fn publisher(&mut self, topic: &str, frames: usize) -> io::Result<Publisher> {
        let connection = self.swarm.open(vec![publisher(self.subject.protocol, topic)])?;
        let frame = self.payload.publish(self.subject.protocol, topic);
        Ok(Publisher { connection, frames: vec![frame; frames], receivers: Vec::new(), next: 0 })
    }

    /// One publishing connection per topic.
    fn publishers(&mut self, topics: &[String]) -> io::Result<Vec<Publisher>> {
        let (protocol, payload) = (self.subject.protocol, &self.payload);
        let first = self.swarm.open(topics.iter().map(|topic| publisher(protocol, topic)).collect())?;
        let publisher = |(index, topic): (usize, &String)| Publisher {
            connection: first + index,
            frames: vec![payload.publish(protocol, topic)],
            receivers: Vec::new(),
            next: 0,
        };
        Ok(topics.iter().enumerate().map(publisher).collect())
    }

    fn window(&mut self, setting: &Setting, pace: Pace) -> io::Result<crate::drive::Window> {
        drive(&mut self.swarm, &mut self.groups, &self.broker, pace, setting.warm_up, setting.measured)
    }

    fn row(
        &mut self,
        setting: &Setting,
        scenario: String,
        pace: Pace,
        more: &[(&'static str, f64)],
    ) -> io::Result<Row> {
        let window = self.window(setting, pace)?;
        Ok(Row::of_window(scenario, self.subject.name(), &window, more))
    }

    fn both_paces(
        &mut self,
        setting: &Setting,
        name: &str,
        size: usize,
        per_second: f64,
    ) -> io::Result<Vec<Row>> {
        greet(&mut self.swarm, &mut self.groups)?;
        let saturation = self.row(setting, format!("{name}, saturation"), credit(size), &[])?;
        let pace = Pace::Fixed { messages_per_second: per_second };
        let fixed = self.row(setting, format!("{name}, 20 000/s"), pace, &[])?;
        Ok(vec![saturation, fixed])
    }

    fn settle(&mut self) {
        self.groups.iter_mut().for_each(|group| group.settle(&self.swarm));
    }

    /// Waits until the broker's memory stops moving, at most five seconds.
    fn settled_rss(&mut self) -> io::Result<u64> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut last = self.broker.rss_bytes()?;
        let mut still_for = 0;
        while still_for < 4 && Instant::now() < deadline {
            let until = Instant::now() + Duration::from_millis(250);
            while Instant::now() < until {
                self.swarm.turn(Duration::from_millis(50))?;
            }
            let current = self.broker.rss_bytes()?;
            still_for = if current == last { still_for + 1 } else { 0 };
            last = current;
        }
        Ok(last)
    }
}

/// The `which`-th of a hundred filters in one of ten shapes: five by site, five by device.
fn wildcard(variant: usize, which: usize) -> String {
    match variant {
        0 => format!("wild/{which}/#"),
        1 => format!("wild/{which}/+/temp"),
        2 => format!("wild/{which}/+/#"),
        3 => format!("+/{which}/+/temp"),
        4 => format!("+/{which}/#"),
        5 => format!("wild/+/{which}/temp"),
        6 => format!("wild/+/{which}/#"),
        7 => format!("wild/+/{which}/+"),
        8 => format!("+/+/{which}/temp"),
        _ => format!("+/+/{which}/#"),
    }
}

fn credit(size: usize) -> Pace {
    Pace::Saturation { credit: (CREDIT_BYTES / size.max(1)).clamp(1, CREDIT_MESSAGES) as u64 }
}

fn bytes(size: usize) -> String {
    if size >= 1024 { format!("{} KiB", size / 1024) } else { format!("{size} B") }
}

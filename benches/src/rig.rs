//! A broker with its connections, as every scenario begins: settings, payload, who publishes, who subscribes.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tidegate_protocol::publication::QoS;

use crate::child::{Broker, Program, Queues, Storage};
use crate::drive::{Group, Pace, Publisher, Window, drive, greet};
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
    /// On the disk that stores are measured on.
    pub directory: PathBuf,
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
    pub(crate) fn name(self) -> String {
        format!("{}/{}", self.program.name(), self.protocol.name())
    }
}

/// A payload with a place for the time stamp.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
    pub(crate) stamp_at: usize,
}

impl Payload {
    pub(crate) fn text(size: usize) -> Self {
        let bytes = b"0123456789abcdefThe quick brown fox jumps over the lazy dog. ".iter().copied();
        Self { bytes: bytes.cycle().take(size).collect(), stamp_at: 0 }
    }

    /// Readings of sensors, such as a dashboard gets; about a third of its size when deflated.
    pub(crate) fn json(size: usize) -> Self {
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

    fn stamp(&self) -> StampFromEnd {
        StampFromEnd(self.bytes.len() - self.stamp_at)
    }

    pub(crate) fn publish(&self, protocol: Protocol, topic: &str, qos: QoS) -> Publish {
        Publish::new(protocol, topic, &self.bytes, self.stamp_at, qos)
    }
}

/// A broker with its connections.
pub(crate) struct Rig {
    pub(crate) broker: Broker,
    pub(crate) swarm: Swarm,
    pub(crate) groups: Vec<Group>,
    pub(crate) subject: Subject,
    pub(crate) payload: Payload,
    /// At which all publish and subscribe.
    pub(crate) qos: QoS,
    pub(crate) rss_before: u64,
}

impl Rig {
    pub(crate) fn new(
        setting: &Setting,
        subject: Subject,
        payload: &Payload,
        queues: Queues,
    ) -> io::Result<Self> {
        let broker = Broker::start(subject.program, &setting.tidegate, queues)?;
        Self::with_broker(broker, subject, payload)
    }

    /// Tidegate, in a folder on the disk that is measured.
    pub(crate) fn stored(
        setting: &Setting,
        protocol: Protocol,
        payload: &Payload,
        storage: Storage,
    ) -> io::Result<Self> {
        let broker = Broker::start_in(&setting.directory, &setting.tidegate, storage)?;
        Self::with_broker(broker, Subject { program: Program::Tidegate, protocol }, payload)
    }

    fn with_broker(broker: Broker, subject: Subject, payload: &Payload) -> io::Result<Self> {
        let swarm = Swarm::new(broker.address(), payload.stamp())?;
        let rss_before = broker.rss_bytes()?;
        Ok(Self {
            broker,
            swarm,
            groups: Vec::new(),
            subject,
            payload: payload.clone(),
            qos: QoS::AtMostOnce,
            rss_before,
        })
    }

    pub(crate) fn fanout(
        setting: &Setting,
        subject: Subject,
        n: usize,
        payload: &Payload,
        queues: Queues,
        deflate: bool,
    ) -> io::Result<Self> {
        let mut rig = Self::new(setting, subject, payload, queues)?;
        rig.join_fanout(n, deflate)?;
        Ok(rig)
    }

    /// One publisher and so many subscribers of one topic.
    pub(crate) fn join_fanout(&mut self, n: usize, deflate: bool) -> io::Result<()> {
        let subscribers = self.subscribers(n, |_| vec!["load/all".to_owned()], deflate)?;
        let publisher = self.publisher("load/all", 1)?;
        self.groups = vec![Group::new(vec![publisher], subscribers)];
        greet(&mut self.swarm, &mut self.groups)
    }

    /// Kills the broker and starts it again: without connections, and with what it had stored. Answers with the time
    /// until it accepted.
    pub(crate) fn crash_and_restart(&mut self, setting: &Setting) -> io::Result<Duration> {
        let time = self.broker.crash_and_restart(&setting.tidegate)?;
        self.swarm = Swarm::new(self.broker.address(), self.payload.stamp())?;
        self.groups.clear();
        Ok(time)
    }

    pub(crate) fn subscribers(
        &mut self,
        n: usize,
        filters: impl Fn(usize) -> Vec<String>,
        deflate: bool,
    ) -> io::Result<Vec<usize>> {
        let role = |index| {
            let mut role = subscriber(self.subject.protocol, filters(index));
            role.deflate = deflate;
            role.qos = self.qos;
            role
        };
        let roles = (0..n).map(role).collect();
        let first = self.swarm.open(roles)?;
        // Each sampled delivery costs the generator a look at the payload, and inflating when deflated.
        self.swarm.sample_every(if n >= 100 { n / 50 } else { 1 });
        Ok((first..first + n).collect())
    }

    /// A publishing connection with this topic's frame, `frames` times.
    pub(crate) fn publisher(&mut self, topic: &str, frames: usize) -> io::Result<Publisher> {
        let connection = self.swarm.open(vec![publisher(self.subject.protocol, topic)])?;
        let frame = self.payload.publish(self.subject.protocol, topic, self.qos);
        Ok(Publisher { connection, frames: vec![frame; frames], receivers: Vec::new(), next: 0 })
    }

    /// One publishing connection per topic.
    pub(crate) fn publishers(&mut self, topics: &[String]) -> io::Result<Vec<Publisher>> {
        let (protocol, payload, qos) = (self.subject.protocol, &self.payload, self.qos);
        let first = self.swarm.open(topics.iter().map(|topic| publisher(protocol, topic)).collect())?;
        let publisher = |(index, topic): (usize, &String)| Publisher {
            connection: first + index,
            frames: vec![payload.publish(protocol, topic, qos)],
            receivers: Vec::new(),
            next: 0,
        };
        Ok(topics.iter().enumerate().map(publisher).collect())
    }

    pub(crate) fn window(&mut self, setting: &Setting, pace: Pace) -> io::Result<Window> {
        drive(&mut self.swarm, &mut self.groups, &self.broker, pace, setting.warm_up, setting.measured)
    }

    pub(crate) fn row(
        &mut self,
        setting: &Setting,
        scenario: String,
        pace: Pace,
        more: &[(&'static str, f64)],
    ) -> io::Result<Row> {
        let window = self.window(setting, pace)?;
        Ok(Row::of_window(scenario, self.subject.name(), &window, more))
    }

    pub(crate) fn settle(&mut self) {
        self.groups.iter_mut().for_each(|group| group.settle(&self.swarm));
    }

    /// Waits until the broker's memory stops moving, at most five seconds.
    pub(crate) fn settled_rss(&mut self) -> io::Result<u64> {
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

/// At the fixed pace.
pub(crate) const FIXED_DELIVERIES_PER_SECOND: f64 = 20_000.0;

/// So much of a group may be on its way to one subscriber; below every default queue.
const CREDIT_BYTES: usize = 128 * 1024;
const CREDIT_MESSAGES: usize = 256;

pub(crate) fn credit(size: usize) -> Pace {
    Pace::Saturation { credit: (CREDIT_BYTES / size.max(1)).clamp(1, CREDIT_MESSAGES) as u64 }
}

pub(crate) fn bytes(size: usize) -> String {
    if size >= 1024 { format!("{} KiB", size / 1024) } else { format!("{size} B") }
}

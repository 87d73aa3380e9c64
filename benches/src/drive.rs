//! How a scenario's publishers are driven: as fast as the broker delivers (with credit, so that nothing overflows),
//! or at a fixed rate. Measures a window after a warm-up: deliveries, the broker's CPU time, latency.

use std::io;
use std::time::{Duration, Instant};

use crate::child::{Broker, cpu_of};
use crate::swarm::Swarm;
use crate::wire::Publish;

/// One publishing connection and the frames it sends in turn.
#[derive(Debug)]
pub struct Publisher {
    /// Its connection.
    pub connection: usize,
    /// What it publishes, one after the other, again and again.
    pub frames: Vec<Publish>,
    /// Who hears each of the frames; empty when every subscriber of the group hears all.
    pub receivers: Vec<Vec<usize>>,
    /// The frame that comes next.
    pub next: usize,
}

/// Publishers and those who hear them.
#[derive(Debug)]
pub struct Group {
    /// Who publishes.
    pub publishers: Vec<Publisher>,
    /// Whose deliveries are counted.
    pub subscribers: Vec<usize>,
    /// Messages that each subscriber should have heard.
    expected: Vec<u64>,
    turn: usize,
}

impl Group {
    /// A group in which nothing was published yet.
    #[must_use]
    pub fn new(publishers: Vec<Publisher>, subscribers: Vec<usize>) -> Self {
        let expected = vec![0; subscribers.len()];
        Self { publishers, subscribers, expected, turn: 0 }
    }

    /// The largest number of messages that one subscriber has still to hear.
    fn behind(&self, swarm: &Swarm) -> u64 {
        let pairs = self.expected.iter().zip(&self.subscribers);
        pairs.map(|(expected, index)| expected.saturating_sub(swarm.received(*index))).max().unwrap_or(0)
    }

    fn missing(&self, swarm: &Swarm) -> u64 {
        let pairs = self.expected.iter().zip(&self.subscribers);
        pairs.map(|(expected, index)| expected.saturating_sub(swarm.received(*index))).sum()
    }

    /// Takes what was heard so far as what was to be heard.
    pub fn settle(&mut self, swarm: &Swarm) {
        for (expected, index) in self.expected.iter_mut().zip(&self.subscribers) {
            *expected = swarm.received(*index);
        }
    }

    /// Publishes `count` messages, in stretches over the group's publishers.
    fn publish(&mut self, swarm: &mut Swarm, count: usize) -> io::Result<()> {
        let stretch = count.div_ceil(self.publishers.len().max(1)).clamp(1, 256);
        let mut left = count;
        let mut blocked = 0;
        while left > 0 && blocked < self.publishers.len() {
            let at = self.turn % self.publishers.len();
            self.turn += 1;
            let Some(publisher) = self.publishers.get_mut(at) else { break };
            if !swarm.is_flushed(publisher.connection) {
                blocked += 1;
                continue;
            }
            let burst = stretch.min(left);
            left -= burst;
            publisher.send(swarm, burst, &mut self.expected)?;
        }
        Ok(())
    }
}

impl Publisher {
    fn send(&mut self, swarm: &mut Swarm, burst: usize, expected: &mut [u64]) -> io::Result<()> {
        let now_ns = swarm.now_ns();
        let (frames, receivers, next) = (&self.frames, &self.receivers, &mut self.next);
        if receivers.is_empty() {
            expected.iter_mut().for_each(|count| *count += burst as u64);
        }
        swarm.send(self.connection, |out| {
            for _ in 0..burst {
                let at = *next % frames.len();
                *next += 1;
                let packet_id = packet_id(*next);
                frames.get(at).into_iter().for_each(|frame| frame.append(out, now_ns, packet_id));
                for receiver in receivers.get(at).into_iter().flatten() {
                    expected.get_mut(*receiver).into_iter().for_each(|count| *count += 1);
                }
            }
        })
    }
}

/// The packet id of a publisher's n-th message; 0 is none [MQTT-2.2.1-3].
#[must_use]
pub fn packet_id(n: usize) -> u16 {
    u16::try_from(n % usize::from(u16::MAX)).unwrap_or(0) + 1
}

/// How fast.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At most this many messages of a group are on their way to any one subscriber.
    Saturation {
        /// In messages.
        credit: u64,
    },
    /// So many messages per second over all groups.
    Fixed {
        /// Messages, not deliveries.
        messages_per_second: f64,
    },
}

/// What a window showed.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Deliveries heard.
    pub deliveries: u64,
    /// Deliveries that never came.
    pub lost: u64,
    /// Length of the window.
    pub seconds: f64,
    /// The broker's CPU time in it.
    pub broker_cpu_seconds: f64,
    /// This program's CPU time in it.
    pub own_cpu_seconds: f64,
    /// Latency of half of the deliveries.
    pub p50_us: f64,
    /// Latency of 99 % of the deliveries.
    pub p99_us: f64,
    /// The largest latency.
    pub max_us: f64,
}

impl Window {
    /// Deliveries per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.deliveries as f64 / self.seconds
    }

    /// The broker's CPU seconds per million deliveries.
    #[must_use]
    pub fn cpu_per_million(&self) -> f64 {
        self.broker_cpu_seconds * 1e6 / (self.deliveries.max(1) as f64)
    }
}

/// Publishes until every subscriber has heard something, then lets it become quiet.
/// A raw client is told nothing of its subscription, so this is how it is known to stand.
pub fn greet(swarm: &mut Swarm, groups: &mut [Group]) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    while groups.iter().any(|group| group.subscribers.iter().any(|index| swarm.received(*index) == 0)) {
        if Instant::now() > deadline {
            return Err(io::Error::other("a subscriber heard nothing for 15 s"));
        }
        for group in groups.iter_mut() {
            // With receivers of their own, all frames are needed to reach everyone.
            let frames =
                group.publishers.first().map_or(1, |publisher| publisher.receivers.len().clamp(1, 200));
            group.publish(swarm, frames)?;
        }
        // Patient while something comes: ten thousand deliveries take their time.
        let (mut heard, mut until) = (swarm.deliveries, Instant::now() + Duration::from_millis(50));
        while Instant::now() < until && groups.iter().any(|group| group.missing(swarm) > 0) {
            swarm.turn(Duration::from_millis(5))?;
            if swarm.deliveries != heard {
                (heard, until) = (swarm.deliveries, Instant::now() + Duration::from_millis(500));
            }
        }
    }
    quiet(swarm, groups)
}

/// Drives the groups for `warm_up` and then `measured`; measures the second.
pub fn drive(
    swarm: &mut Swarm,
    groups: &mut [Group],
    broker: &Broker,
    pace: Pace,
    warm_up: Duration,
    measured: Duration,
) -> io::Result<Window> {
    run(swarm, groups, pace, warm_up)?;
    let mut window = measure(swarm, broker, |swarm| run(swarm, groups, pace, measured))?;
    window.lost = drain(swarm, groups)?;
    Ok(window)
}

/// What happens while `work` lasts. What is lost shows only afterwards.
pub fn measure(
    swarm: &mut Swarm,
    broker: &Broker,
    work: impl FnOnce(&mut Swarm) -> io::Result<()>,
) -> io::Result<Window> {
    swarm.latencies.clear();
    let (cpu, own_cpu) = (broker.cpu()?, cpu_of("self")?);
    let (deliveries, start) = (swarm.deliveries, Instant::now());
    work(swarm)?;
    let seconds = start.elapsed().as_secs_f64();
    let us = |ns: u64| ns as f64 / 1000.0;
    Ok(Window {
        deliveries: swarm.deliveries - deliveries,
        lost: 0,
        seconds,
        broker_cpu_seconds: (broker.cpu()? - cpu).as_secs_f64(),
        own_cpu_seconds: (cpu_of("self")? - own_cpu).as_secs_f64(),
        p50_us: us(swarm.latencies.per_mille_ns(500)),
        p99_us: us(swarm.latencies.per_mille_ns(990)),
        max_us: us(swarm.latencies.max_ns()),
    })
}

fn run(swarm: &mut Swarm, groups: &mut [Group], pace: Pace, length: Duration) -> io::Result<()> {
    match pace {
        Pace::Saturation { credit } => saturate(swarm, groups, credit, length),
        Pace::Fixed { messages_per_second } => fixed(swarm, groups, messages_per_second, length),
    }
}

fn saturate(swarm: &mut Swarm, groups: &mut [Group], credit: u64, length: Duration) -> io::Result<()> {
    let start = Instant::now();
    let (mut last_heard, mut last_progress) = (swarm.deliveries, start);
    while start.elapsed() < length {
        for group in groups.iter_mut() {
            let free = credit.saturating_sub(group.behind(swarm));
            // Half of the credit at once: otherwise the two programs fall into step, one message at a time.
            if free * 2 >= credit {
                group.publish(swarm, usize::try_from(free).unwrap_or(0))?;
            }
        }
        swarm.turn(Duration::from_millis(20))?;
        if swarm.deliveries != last_heard {
            (last_heard, last_progress) = (swarm.deliveries, Instant::now());
        } else if last_progress.elapsed() > Duration::from_secs(5) {
            let missing: u64 = groups.iter().map(|group| group.missing(swarm)).sum();
            return Err(io::Error::other(format!("nothing came for 5 s; {missing} deliveries are missing")));
        }
    }
    Ok(())
}

fn fixed(swarm: &mut Swarm, groups: &mut [Group], per_second: f64, length: Duration) -> io::Result<()> {
    let start = Instant::now();
    let mut sent = 0.0;
    let mut turn = 0;
    while start.elapsed() < length {
        let due = start.elapsed().as_secs_f64() * per_second;
        while sent + 1.0 <= due {
            let at = turn % groups.len().max(1);
            turn += 1;
            sent += 1.0;
            groups.get_mut(at).map_or(Ok(()), |group| group.publish(swarm, 1))?;
        }
        let wait = Duration::from_secs_f64((sent + 1.0 - due).max(0.0) / per_second);
        swarm.turn(wait.min(Duration::from_millis(20)))?;
    }
    Ok(())
}

/// Waits for what is on its way; answers with what never came.
fn drain(swarm: &mut Swarm, groups: &mut [Group]) -> io::Result<u64> {
    let missing =
        |swarm: &Swarm, groups: &[Group]| -> u64 { groups.iter().map(|group| group.missing(swarm)).sum() };
    let deadline = Instant::now() + Duration::from_secs(3);
    while missing(swarm, groups) > 0 && Instant::now() < deadline {
        swarm.turn(Duration::from_millis(20))?;
    }
    let lost = missing(swarm, groups);
    groups.iter_mut().for_each(|group| group.settle(swarm));
    Ok(lost)
}

fn quiet(swarm: &mut Swarm, groups: &mut [Group]) -> io::Result<()> {
    let mut heard = swarm.deliveries;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(100) {
        swarm.turn(Duration::from_millis(20))?;
        if swarm.deliveries != heard {
            (heard, since) = (swarm.deliveries, Instant::now());
        }
    }
    groups.iter_mut().for_each(|group| group.settle(swarm));
    Ok(())
}

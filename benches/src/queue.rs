//! Work shared out: producers that wait for their receipts, one queue, many consumers that acknowledge each message.
//! What a message costs, how evenly the consumers are served, and what is left of the work of one that dies.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use tidegate_protocol::publication::QoS;

use crate::child::{Program, Queues, Storage};
use crate::drive::{Publisher, measure, packet_id};
use crate::report::Row;
use crate::rig::{Payload, Rig, Setting, Subject};
use crate::swarm::{KeptStamps, Swarm, subscriber};
use crate::wire::{Protocol, Role};

const CONSUMERS: usize = 100;
const PRODUCERS: usize = 4;
/// Messages of each producer that wait for their receipt.
const IN_FLIGHT: u64 = 64;
/// Messages that nobody has heard yet; below every broker's bound of a queue.
const UNHEARD_MAX: u64 = 2000;
const FIXED_PER_SECOND: u64 = 20_000;
const PACED_WAIT: Duration = Duration::from_millis(1);
/// Consumers that die, one every second.
const DEATHS: usize = 4;
/// How long a consumer that is to die has acknowledged nothing: time enough to fill its window.
const MUTE: Duration = Duration::from_millis(200);
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(5);

/// One queue at saturation, at a fixed rate, and at saturation while consumers die. STOMP has `/queue/` with
/// `ack:client-individual`, MQTT a shared subscription at QoS 1.
pub fn queue(setting: &Setting, subject: Subject, storage: Storage) -> io::Result<Vec<Row>> {
    let payload = Payload::text(64);
    let mut rig = match subject.program {
        Program::Tidegate => Rig::stored(setting, subject.protocol, &payload, storage)?,
        Program::Mosquitto => Rig::new(setting, subject, &payload, Queues::NeverDrop)?,
    };
    rig.qos = QoS::AtLeastOnce;
    let mut shop = Workshop::open(&mut rig)?;
    Ok(vec![
        shared_out(setting, &mut rig, &mut shop, Rate::Saturation, queue_name(storage, SATURATION))?,
        shared_out(
            setting,
            &mut rig,
            &mut shop,
            Rate::PerSecond(FIXED_PER_SECOND),
            queue_name(storage, FIXED),
        )?,
        with_deaths(&mut rig, &mut shop, queue_name(storage, DYING))?,
    ])
}

/// What [`queue`] measures.
pub(crate) const SATURATION: &str = "saturation";
pub(crate) const FIXED: &str = "20 000/s";
pub(crate) const DYING: &str = "one dies every second";

/// The scenario's name in tables.
pub(crate) fn queue_name(storage: Storage, what: &str) -> String {
    let state = if storage == Storage::Disk { ", stored" } else { "" };
    format!("queue: {CONSUMERS} consumers{state}, {what}")
}

#[derive(Clone, Copy, Debug)]
enum Rate {
    Saturation,
    PerSecond(u64),
}

/// How many each consumer gets.
fn shared_out(
    setting: &Setting,
    rig: &mut Rig,
    shop: &mut Workshop,
    rate: Rate,
    scenario: String,
) -> io::Result<Row> {
    shop.begin(&mut rig.swarm);
    shop.produce(&mut rig.swarm, rate, setting.warm_up)?;
    let before = shop.received(&rig.swarm);
    let run = |swarm: &mut _| shop.produce(swarm, rate, setting.measured);
    let mut window = measure(&mut rig.swarm, &rig.broker, run)?;
    let after = shop.received(&rig.swarm);
    let outcome = shop.outcome(&mut rig.swarm)?;
    window.lost = outcome.lost;
    let counts = || before.iter().zip(&after).map(|(before, after)| after - before);
    let mean = counts().sum::<u64>() as f64 / CONSUMERS as f64;
    let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    let figures = [
        ("per_consumer", mean),
        ("spread", (most - least) as f64 / mean),
        ("duplicates", outcome.duplicates as f64),
    ];
    Ok(Row::of_window(scenario, rig.subject.name(), &window, &figures))
}

/// Every second one consumer stops acknowledging, is reset a little later, and another takes its place.
fn with_deaths(rig: &mut Rig, shop: &mut Workshop, scenario: String) -> io::Result<Row> {
    shop.begin(&mut rig.swarm);
    let run = |swarm: &mut _| {
        (0..DEATHS).try_for_each(|death| {
            shop.produce(swarm, Rate::Saturation, Duration::from_secs(1).saturating_sub(MUTE))?;
            shop.replace_one(swarm, death * CONSUMERS / DEATHS)
        })
    };
    let mut window = measure(&mut rig.swarm, &rig.broker, run)?;
    let outcome = shop.outcome(&mut rig.swarm)?;
    window.lost = outcome.lost;
    let figures = [
        ("deaths", DEATHS as f64),
        ("unsettled", outcome.unsettled as f64),
        ("duplicates", outcome.duplicates as f64),
    ];
    Ok(Row::of_window(scenario, rig.subject.name(), &window, &figures))
}

/// The producers, the consumers that are alive, and what was sent.
struct Workshop {
    protocol: Protocol,
    producers: Vec<Publisher>,
    consumers: Vec<usize>,
    /// The stamps of all messages, each larger than the one before.
    sent: Vec<u64>,
    /// Deliveries that were heard before the first of `sent`.
    heard_before: u64,
}

impl Workshop {
    fn open(rig: &mut Rig) -> io::Result<Self> {
        let protocol = rig.subject.protocol;
        let first = rig.swarm.open((0..CONSUMERS).map(|_| consumer(protocol)).collect())?;
        let producers = rig.publishers(&vec![target(protocol); PRODUCERS])?;
        let consumers = (first..first + CONSUMERS).collect();
        Ok(Self { protocol, producers, consumers, sent: Vec::new(), heard_before: 0 })
    }

    fn begin(&mut self, swarm: &mut Swarm) {
        self.sent.clear();
        self.heard_before = swarm.deliveries;
        swarm.kept_stamps = Some(KeptStamps::default());
    }

    /// Sends as fast as receipts and deliveries come back, or at most so many a second.
    fn produce(&mut self, swarm: &mut Swarm, rate: Rate, length: Duration) -> io::Result<()> {
        let (start, sent_before) = (Instant::now(), self.sent.len() as u64);
        let (mut heard, mut since) = (swarm.deliveries, start);
        while start.elapsed() < length {
            let sent = self.sent.len() as u64;
            let unheard = (sent + self.heard_before).saturating_sub(swarm.deliveries);
            let room = UNHEARD_MAX.saturating_sub(unheard);
            let (due, wait) = match rate {
                Rate::Saturation => (room, Duration::from_millis(20)),
                Rate::PerSecond(rate) => {
                    (due(start.elapsed(), rate).saturating_sub(sent - sent_before), PACED_WAIT)
                }
            };
            self.send(swarm, due.min(room))?;
            swarm.turn(wait)?;
            if swarm.deliveries != heard {
                (heard, since) = (swarm.deliveries, Instant::now());
            } else if since.elapsed() > DELIVERY_TIME_MAX {
                return Err(io::Error::other(format!("nothing came for 5 s; {unheard} are missing")));
            }
        }
        Ok(())
    }

    /// Sends at most so many, in equal parts as far as each producer's window allows.
    fn send(&mut self, swarm: &mut Swarm, count: u64) -> io::Result<()> {
        let mut left = count;
        let share = count.div_ceil(PRODUCERS as u64);
        for producer in &mut self.producers {
            let waiting = producer.next as u64 - swarm.acknowledged(producer.connection);
            let burst = IN_FLIGHT.saturating_sub(waiting).min(share).min(left);
            left -= burst;
            if burst > 0 {
                send(swarm, producer, burst, &mut self.sent)?;
            }
        }
        Ok(())
    }

    /// This consumer hears messages that it does not settle, and its connection is reset.
    fn replace_one(&mut self, swarm: &mut Swarm, at: usize) -> io::Result<()> {
        let Some(victim) = self.consumers.get(at).copied() else { return Ok(()) };
        swarm.mute(victim);
        self.produce(swarm, Rate::Saturation, MUTE)?;
        swarm.hang_up(victim)?;
        let heir = swarm.open(vec![consumer(self.protocol)])?;
        self.consumers.get_mut(at).into_iter().for_each(|consumer| *consumer = heir);
        Ok(())
    }

    fn received(&self, swarm: &Swarm) -> Vec<u64> {
        self.consumers.iter().map(|consumer| swarm.received(*consumer)).collect()
    }

    /// Waits until every message was acknowledged, or for some seconds.
    fn outcome(&self, swarm: &mut Swarm) -> io::Result<Outcome> {
        let deadline = Instant::now() + DELIVERY_TIME_MAX;
        loop {
            let until = Instant::now() + Duration::from_millis(200);
            while Instant::now() < until {
                swarm.turn(Duration::from_millis(20))?;
            }
            let outcome = Outcome::of(&self.sent, swarm.kept_stamps.get_or_insert_default());
            if outcome.lost == 0 || Instant::now() > deadline {
                return Ok(outcome);
            }
        }
    }
}

fn consumer(protocol: Protocol) -> Role {
    let mut role = subscriber(protocol, vec![source(protocol)]);
    role.qos = QoS::AtLeastOnce;
    role
}

fn send(swarm: &mut Swarm, producer: &mut Publisher, burst: u64, sent: &mut Vec<u64>) -> io::Result<()> {
    let now_ns = swarm.now_ns();
    swarm.send(producer.connection, |out| {
        for _ in 0..burst {
            // The stamp is the message's name too, so no two are equal.
            let stamp = sent.last().map_or(now_ns, |last| now_ns.max(last + 1));
            sent.push(stamp);
            producer.next += 1;
            let packet_id = packet_id(producer.next);
            producer.frames.iter().for_each(|frame| frame.append(out, stamp, packet_id));
        }
    })
}

/// What became of the messages.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Acknowledged by nobody.
    lost: u64,
    /// Deliveries beyond the first of each.
    duplicates: u64,
    /// Deliveries to consumers that died before they acknowledged.
    unsettled: u64,
}

impl Outcome {
    fn of(sent: &[u64], kept: &KeptStamps) -> Self {
        let settled: HashSet<u64> = kept.settled.iter().copied().collect();
        let heard: HashSet<u64> = kept.settled.iter().chain(&kept.unsettled).copied().collect();
        Self {
            lost: sent.iter().filter(|stamp| !settled.contains(stamp)).count() as u64,
            duplicates: (kept.settled.len() + kept.unsettled.len() - heard.len()) as u64,
            unsettled: kept.unsettled.len() as u64,
        }
    }
}

/// How many are due after this time.
fn due(elapsed: Duration, per_second: u64) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_mul(per_second) / 1_000_000
}

/// What consumers subscribe to.
fn source(protocol: Protocol) -> String {
    match protocol {
        Protocol::Stomp => "/queue/jobs".to_owned(),
        Protocol::Mqtt | Protocol::Raw => "$share/q/jobs".to_owned(),
    }
}

/// What producers send to.
fn target(protocol: Protocol) -> String {
    match protocol {
        Protocol::Stomp => "/queue/jobs".to_owned(),
        Protocol::Mqtt | Protocol::Raw => "jobs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &[u64], settled: &[u64], unsettled: &[u64], expected: Outcome) {
        let kept = KeptStamps { settled: settled.to_vec(), unsettled: unsettled.to_vec() };
        assert_eq!(Outcome::of(sent, &kept), expected);
    }

    #[test]
    fn a_message_that_only_a_dead_consumer_heard_is_lost() {
        check(&[1, 2, 3], &[1, 2], &[3], Outcome { lost: 1, duplicates: 0, unsettled: 1 });
        check(&[1, 2, 3], &[1, 2, 3], &[3], Outcome { lost: 0, duplicates: 1, unsettled: 1 });
    }

    #[test]
    fn each_delivery_beyond_the_first_is_a_duplicate() {
        check(&[1, 2], &[1, 2, 2, 2], &[], Outcome { lost: 0, duplicates: 2, unsettled: 0 });
    }
}

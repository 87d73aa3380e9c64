//! QoS 1: what an acknowledged delivery costs beside one that is not, and whether many publishers are served alike.

use std::io;
use std::time::{Duration, Instant};

use tidegate_protocol::publication::QoS;

use crate::child::Queues;
use crate::drive::{Group, Pace, Publisher, Window, greet, measure, packet_id};
use crate::report::Row;
use crate::rig::{FIXED_DELIVERIES_PER_SECOND, Payload, Rig, Setting, Subject};
use crate::swarm::Swarm;

/// Messages on their way to any one subscriber, equal for both QoS: more than any broker's window, so that it is
/// always full, and less than what a publisher may have unacknowledged.
const CREDIT_MESSAGES: u64 = 128;

/// One publisher, `n` subscribers, one topic, 64 B, at one QoS throughout.
pub fn acked(setting: &Setting, subject: Subject, n: usize, qos: QoS) -> io::Result<Vec<Row>> {
    let mut rig = Rig::new(setting, subject, &Payload::text(64), Queues::NeverDrop)?;
    rig.qos = qos;
    let subscribers = rig.subscribers(n, |_| vec!["load/all".to_owned()], false)?;
    let publisher = rig.publisher("load/all", 1)?;
    rig.groups = vec![Group::new(vec![publisher], subscribers)];
    greet(&mut rig.swarm, &mut rig.groups)?;
    let saturation = Pace::Saturation { credit: CREDIT_MESSAGES };
    let fixed = Pace::Fixed { messages_per_second: FIXED_DELIVERIES_PER_SECOND / n as f64 };
    let mut row = |at, pace| rig.row(setting, acked_name(n, qos, at), pace, &[]);
    Ok(vec![row(SATURATION, saturation)?, row(FIXED, fixed)?])
}

/// The paces of [`acked`].
pub(crate) const SATURATION: &str = "saturation";
pub(crate) const FIXED: &str = "20 000/s";

/// The scenario's name in tables.
pub(crate) fn acked_name(n: usize, qos: QoS, pace: &str) -> String {
    format!("acked: QoS {}, 1→{n}, 64 B, {pace}", qos as u8)
}

/// `n` publishers at QoS 1 to one subscriber, each with one message that waits for its PUBACK at a time.
pub fn fairness(setting: &Setting, subject: Subject, n: usize) -> io::Result<Vec<Row>> {
    let mut rig = Rig::new(setting, subject, &Payload::text(64), Queues::NeverDrop)?;
    rig.qos = QoS::AtLeastOnce;
    let subscriber = rig.subscribers(1, |_| vec!["load/in".to_owned()], false)?.into_iter().sum();
    let mut race = Race { publishers: rig.publishers(&vec!["load/in".to_owned(); n])? };
    race.start(&mut rig.swarm)?;
    race.run(&mut rig.swarm, setting.warm_up)?;
    let before = race.acknowledged(&rig.swarm);
    let swarm = &mut rig.swarm;
    let mut window = measure(swarm, &rig.broker, |swarm| race.run(swarm, setting.measured))?;
    let after = race.acknowledged(&rig.swarm);
    window.lost = race.lost(&mut rig.swarm, subscriber)?;
    Ok(vec![fairness_row(subject, n, &window, &before, &after)])
}

/// The scenario's name in tables.
pub(crate) fn fairness_name(n: usize) -> String {
    format!("fairness: {n} publishers at QoS 1")
}

fn fairness_row(subject: Subject, n: usize, window: &Window, before: &[u64], after: &[u64]) -> Row {
    let counts = || before.iter().zip(after).map(|(before, after)| (after - before) as f64);
    let (least, most) = counts()
        .fold((f64::INFINITY, 0.0), |(least, most), count| (f64::min(least, count), f64::max(most, count)));
    let figures = [
        ("acks_per_second", counts().sum::<f64>() / window.seconds),
        ("slowest_per_second", least / window.seconds),
        ("fastest_per_second", most / window.seconds),
        ("fastest_to_slowest", most / least),
    ];
    Row::of_window(fairness_name(n), subject.name(), window, &figures)
}

/// Publishers that send the next message when the last one is acknowledged. Their connections follow one another.
struct Race {
    publishers: Vec<Publisher>,
}

impl Race {
    fn start(&mut self, swarm: &mut Swarm) -> io::Result<()> {
        (0..self.publishers.len()).try_for_each(|at| self.send(swarm, at))
    }

    fn run(&mut self, swarm: &mut Swarm, length: Duration) -> io::Result<()> {
        let first = self.publishers.first().map_or(0, |publisher| publisher.connection);
        let start = Instant::now();
        while start.elapsed() < length {
            swarm.turn(Duration::from_millis(20))?;
            for connection in swarm.take_acknowledged() {
                self.send(swarm, connection - first)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, swarm: &mut Swarm, at: usize) -> io::Result<()> {
        let Some(publisher) = self.publishers.get_mut(at) else { return Ok(()) };
        let (now_ns, packet_id) = (swarm.now_ns(), packet_id(publisher.next));
        publisher.next += 1;
        let frame = publisher.frames.first();
        swarm.send(publisher.connection, |out| {
            frame.into_iter().for_each(|frame| frame.append(out, now_ns, packet_id));
        })
    }

    fn acknowledged(&self, swarm: &Swarm) -> Vec<u64> {
        self.publishers.iter().map(|publisher| swarm.acknowledged(publisher.connection)).collect()
    }

    /// Waits for what is on its way; answers with what never came.
    fn lost(&self, swarm: &mut Swarm, subscriber: usize) -> io::Result<u64> {
        let sent: u64 = self.publishers.iter().map(|publisher| publisher.next as u64).sum();
        let deadline = Instant::now() + Duration::from_secs(3);
        while swarm.received(subscriber) < sent && Instant::now() < deadline {
            swarm.turn(Duration::from_millis(20))?;
        }
        Ok(sent.saturating_sub(swarm.received(subscriber)))
    }
}

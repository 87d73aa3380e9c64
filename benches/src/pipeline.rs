//! Publishers at QoS 1 that each keep a number of messages waiting for their PUBACK, and how long each waited.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::drive::{Publisher, packet_id};
use crate::histogram::Histogram;
use crate::swarm::Swarm;

/// Their connections follow one another.
pub(crate) struct Pipeline {
    publishers: Vec<Pipelined>,
    in_flight: usize,
    /// From PUBLISH to PUBACK.
    pub(crate) waits: Histogram,
}

struct Pipelined {
    publisher: Publisher,
    /// When those that wait were sent. PUBACKs come in the order of the messages [MQTT-4.6.0-2].
    waiting: VecDeque<u64>,
    acknowledged: u64,
}

impl Pipeline {
    pub(crate) fn new(publishers: Vec<Publisher>, in_flight: usize) -> Self {
        let pipelined =
            |publisher| Pipelined { publisher, waiting: VecDeque::with_capacity(in_flight), acknowledged: 0 };
        let publishers = publishers.into_iter().map(pipelined).collect();
        Self { publishers, in_flight, waits: Histogram::default() }
    }

    /// Publishes for so long.
    pub(crate) fn run(&mut self, swarm: &mut Swarm, length: Duration) -> io::Result<()> {
        let until = Instant::now() + length;
        while Instant::now() < until {
            self.turn(swarm, usize::MAX)?;
        }
        Ok(())
    }

    /// Publishes each frame so often and waits for all PUBACKs.
    pub(crate) fn run_rounds(&mut self, swarm: &mut Swarm, rounds: usize) -> io::Result<()> {
        let (mut before, mut since) = (0, Instant::now());
        let all: usize = self.publishers.iter().map(|one| one.publisher.frames.len() * rounds).sum();
        while self.acknowledged() < all as u64 {
            self.turn(swarm, rounds)?;
            if self.acknowledged() > before {
                (before, since) = (self.acknowledged(), Instant::now());
            } else if since.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other(format!("no PUBACK for 10 s after {before}")));
            }
        }
        Ok(())
    }

    fn turn(&mut self, swarm: &mut Swarm, rounds: usize) -> io::Result<()> {
        for one in &mut self.publishers {
            one.fill(swarm, self.in_flight, rounds)?;
        }
        swarm.turn(Duration::from_millis(20))?;
        let now_ns = swarm.now_ns();
        let first = self.publishers.first().map_or(0, |one| one.publisher.connection);
        for connection in swarm.take_acknowledged() {
            let one = connection.checked_sub(first).and_then(|at| self.publishers.get_mut(at));
            let Some(one) = one else { continue };
            let acknowledged = swarm.acknowledged(connection);
            for _ in one.acknowledged..acknowledged {
                one.waiting.pop_front().into_iter().for_each(|sent_ns| self.waits.record(now_ns - sent_ns));
            }
            one.acknowledged = acknowledged;
        }
        Ok(())
    }

    /// Messages that were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.publishers.iter().map(|one| one.acknowledged).sum()
    }

    /// Messages that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.publishers.iter().map(|one| one.publisher.next as u64).sum()
    }
}

impl Pipelined {
    fn fill(&mut self, swarm: &mut Swarm, in_flight: usize, rounds: usize) -> io::Result<()> {
        let all = self.publisher.frames.len().saturating_mul(rounds);
        let left = all.saturating_sub(self.publisher.next);
        let room = in_flight.saturating_sub(self.waiting.len()).min(left);
        if room == 0 {
            return Ok(());
        }
        let now_ns = swarm.now_ns();
        let (publisher, waiting) = (&mut self.publisher, &mut self.waiting);
        swarm.send(publisher.connection, |out| {
            for _ in 0..room {
                let frame = publisher.frames.get(publisher.next % publisher.frames.len());
                publisher.next += 1;
                let packet_id = packet_id(publisher.next);
                frame.into_iter().for_each(|frame| frame.append(out, now_ns, packet_id));
                waiting.push_back(now_ns);
            }
        })
    }
}

//! Two clients that ask and answer beside a load, in a thread of their own: how long the broker keeps others waiting.
//! At QoS 0, one question at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidegate_protocol::publication::QoS;

use crate::histogram::Histogram;
use crate::swarm::{Swarm, subscriber};
use crate::wire::{Protocol, Publish, StampFromEnd};

/// Between an answer and the next question, so that the pair itself is no load.
const PAUSE: Duration = Duration::from_millis(1);
/// Longer than this, an answer is taken for lost.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
const STOPPED: usize = usize::MAX;
const PAYLOAD: [u8; 64] = [b'.'; 64];

/// The running pair.
#[derive(Debug)]
pub struct Pair {
    phase: Arc<AtomicUsize>,
    thread: JoinHandle<io::Result<Vec<Histogram>>>,
}

impl Pair {
    /// Begins to ask. Round trips are counted by phase, of which there are so many; the first is 0.
    pub fn start(broker: SocketAddr, phases: usize) -> io::Result<Self> {
        let phase = Arc::new(AtomicUsize::new(0));
        let current = Arc::clone(&phase);
        let mut asking = Asking::open(broker)?;
        let thread = thread::spawn(move || asking.run(&current, phases));
        Ok(Self { phase, thread })
    }

    /// Round trips that begin from here on count to this phase.
    pub fn enter(&self, phase: usize) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// Ends it. Gives the round trips of each phase.
    pub fn stop(self) -> io::Result<Vec<Histogram>> {
        self.enter(STOPPED);
        self.thread.join().map_err(|_| io::Error::other("the thread of the pair panicked"))?
    }
}

struct Asking {
    swarm: Swarm,
    /// The connection that asks, and what it says.
    question: (usize, Publish),
    /// The connection that answers, and what it says.
    answer: (usize, Publish),
}

impl Asking {
    fn open(broker: SocketAddr) -> io::Result<Self> {
        let mut swarm = Swarm::new(broker, StampFromEnd(PAYLOAD.len()))?;
        let role = |name: &str, hears: &str| {
            let mut role = subscriber(Protocol::Mqtt, vec![hears.to_owned()]);
            role.client_id = Some(format!("load-pair-{name}"));
            role
        };
        let first = swarm.open(vec![role("asks", "pair/answer"), role("answers", "pair/question")])?;
        let publish = |topic| Publish::new(Protocol::Mqtt, topic, &PAYLOAD, 0, QoS::AtMostOnce);
        let (question, answer) = ((first, publish("pair/question")), (first + 1, publish("pair/answer")));
        Ok(Self { swarm, question, answer })
    }

    fn run(&mut self, phase: &AtomicUsize, phases: usize) -> io::Result<Vec<Histogram>> {
        let mut histograms = vec![Histogram::default(); phases];
        loop {
            let phase = phase.load(Ordering::Relaxed);
            if phase == STOPPED {
                return Ok(histograms);
            }
            let start = Instant::now();
            self.ask()?;
            let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            histograms.get_mut(phase).into_iter().for_each(|histogram| histogram.record(ns));
            self.swarm.turn(PAUSE)?;
        }
    }

    fn ask(&mut self) -> io::Result<()> {
        for ((says, publish), (hears, _)) in [(&self.question, &self.answer), (&self.answer, &self.question)]
        {
            let (heard, now_ns) = (self.swarm.received(*hears), self.swarm.now_ns());
            self.swarm.send(*says, |out| publish.append(out, now_ns, 0))?;
            let deadline = Instant::now() + ANSWER_TIME_MAX;
            while self.swarm.received(*hears) == heard {
                if Instant::now() > deadline {
                    return Err(io::Error::other("a question or answer was lost"));
                }
                self.swarm.turn(Duration::from_millis(100))?;
            }
        }
        Ok(())
    }
}

//! `kill -9` at random moments, again and again, under publishers and durable subscribers that come and go: whatever was
//! acknowledged is kept, in order, at QoS 2 exactly once, and whatever ended stays ended (SEC-1 to SEC-4).
//!
//! ```text
//!   process      the broker
//!   link         one connection
//!   world        what all clients share
//!   ledger       what was published, promised, acknowledged, by one clock
//!   inbox        what arrived at a subscriber, held against the ledger
//!   publisher, subscriber, visitors    the clients
//!   queue        a queue of its own, with producers and consumers
//! ```
//!
//! `TIDEGATE_CRASH_CYCLES=200` for a long run, `TIDEGATE_CRASH_SEED` for the same choices again. Moments follow from
//! progress, not from time, so that they hit work. A kill keeps the page cache: fsync itself is the business of the
//! store's own tests.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of tests may panic as tests do"
)]

mod inbox;
mod ledger;
mod link;
mod process;
mod publisher;
mod queue;
mod subscriber;
mod visitors;
mod world;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tidegate_protocol::mqtt::packet::{Ack, Packet, Publish, ReasonCode};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};
use tokio::task::JoinSet;

use inbox::Inbox;
use ledger::{Kind, Ledger, Stream};
use link::{Link, connect};
use process::{Process, tidegate};
use publisher::Publisher;
use subscriber::{Character, Habit, Subscriber};
use visitors::{Mayfly, look_at_retained};
use world::{Chance, Stage, State, World};

/// The longest without progress. Generous, since the machine may be busy; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

const CYCLES: u64 = 9;

/// By publisher.
const STREAMS: &[(&[QoS], Kind, &str)] = &[
    (&[QoS::AtLeastOnce, QoS::AtLeastOnce], Kind::Plain, "t"),
    (&[QoS::ExactlyOnce, QoS::ExactlyOnce], Kind::Plain, "t"),
    (&[QoS::AtLeastOnce, QoS::ExactlyOnce], Kind::Plain, "t"),
    (&[QoS::ExactlyOnce], Kind::Plain, "t"),
    (&[QoS::AtLeastOnce, QoS::ExactlyOnce], Kind::Retained, "r"),
    (&[QoS::AtLeastOnce, QoS::ExactlyOnce], Kind::RetainedAndCleared, "c"),
];

const SUBSCRIBERS: &[Character] = &[
    Character::new("stays", "t/#", QoS::ExactlyOnce, 256, Habit::Stays),
    Character::new("comes-and-goes", "t/#", QoS::ExactlyOnce, 20, Habit::ComesAndGoes),
    Character::new("at-qos-1", "t/#", QoS::AtLeastOnce, 50, Habit::ComesAndGoes),
    Character::new("of-retained", "r/#", QoS::ExactlyOnce, 10, Habit::ComesAndGoes),
    Character::new("visits", "t/+/0", QoS::ExactlyOnce, 100, Habit::Visits),
    Character::new("wavers", "t/+/1", QoS::ExactlyOnce, 30, Habit::Wavers),
];

/// Two members of one group.
const MEMBERS: [Character; 2] = [
    Character::new("member-a", "$share/crew/t/+/0", QoS::ExactlyOnce, 40, Habit::ComesAndGoes),
    Character::new("member-b", "$share/crew/t/+/0", QoS::ExactlyOnce, 40, Habit::Stays),
];

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    check("group").await;
}

#[tokio::test]
async fn a_kill_loses_nothing_even_when_the_store_does_not_wait_for_the_disk() {
    check("os").await;
}

async fn check(sync: &'static str) {
    let cycles = number("TIDEGATE_CRASH_CYCLES").unwrap_or(CYCLES);
    let seed = number("TIDEGATE_CRASH_SEED").unwrap_or_else(rand::random);
    eprintln!("TIDEGATE_CRASH_SEED={seed} TIDEGATE_CRASH_CYCLES={cycles} store.sync={sync}");
    let mut run = Run::start(sync, Chance(seed));
    run.until(|state| state.subscribed == SUBSCRIBERS.len() + MEMBERS.len()).await;
    run.world.change(|state| state.stage = Stage::Running);
    for _ in 0..cycles {
        let acks = run.acks_until_the_next_kill();
        let target = run.world.state().acked + acks;
        run.until(|state| state.acked >= target).await;
        run.kill_and_restart();
    }
    run.world.change(|state| state.stage = Stage::Draining);
    run.everything_arrives().await;
    run.world.change(|state| state.stage = Stage::Over);
    run.everybody_leaves().await;
    run.nothing_comes_back().await;
    run.report();
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

struct Run {
    folder: TempDir,
    sync: &'static str,
    chance: Chance,
    process: Process,
    world: Arc<World>,
    inboxes: Vec<Arc<Mutex<Inbox>>>,
    clients: JoinSet<()>,
}

impl Run {
    fn start(sync: &'static str, chance: Chance) -> Self {
        let folder = TempDir::new().unwrap();
        let process = Process::start(folder.path(), sync);
        let streams = STREAMS.iter().enumerate().flat_map(|(publisher, (all, kind, prefix))| {
            all.iter().enumerate().map(move |(n, qos)| Stream {
                topic: format!("{prefix}/{publisher}/{n}"),
                qos: *qos,
                kind: *kind,
            })
        });
        let mark = Stream { topic: "t/end/0".into(), qos: QoS::AtLeastOnce, kind: Kind::Plain };
        let world = Arc::new(World::new(Ledger::new(streams.chain([mark]).collect())));
        world.change(|state| state.address = Some(process.address));
        let clients = JoinSet::new();
        let mut run = Self { folder, sync, chance, process, world, inboxes: Vec::new(), clients };
        run.spawn_publishers();
        for character in SUBSCRIBERS {
            run.spawn_subscribers(std::slice::from_ref(character), true);
        }
        run.spawn_subscribers(&MEMBERS, false);
        for number in 0..3 {
            let mayfly = Mayfly::new(Arc::clone(&run.world), run.chance.fork(), number);
            run.clients.spawn(async move {
                let buried = mayfly.run().await;
                eprintln!("mayfly {number}: {buried} deleted sessions stayed deleted");
            });
        }
        run
    }

    fn spawn_publishers(&mut self) {
        let mut first = 0;
        for (name, (all, ..)) in STREAMS.iter().enumerate() {
            let streams = (first..first + all.len()).collect();
            first += all.len();
            let publisher = Publisher::new(Arc::clone(&self.world), self.chance.fork(), name, streams);
            self.clients.spawn(publisher.run());
        }
    }

    /// With one inbox.
    fn spawn_subscribers(&mut self, characters: &[Character], is_ordered: bool) {
        let Character { client_id, filter, qos, .. } = characters[0];
        let (_, plain) = filter.split_once("crew/").unwrap_or(("", filter));
        let plain = TopicFilter::parse(plain, &TopicLimits::STANDARD).unwrap();
        let wanted = self.world.ledger().streams.iter().map(|stream| plain.matches(&topic(stream))).collect();
        let inbox = Arc::new(Mutex::new(Inbox::new(client_id, qos, wanted, is_ordered)));
        self.inboxes.push(Arc::clone(&inbox));
        for character in characters {
            let (world, inbox, chance) = (Arc::clone(&self.world), Arc::clone(&inbox), self.chance.fork());
            self.clients.spawn(Subscriber::new(world, inbox, chance, *character).run());
        }
    }

    /// Now and then so few that clients are just coming back, or none at all: killed while it starts.
    fn acks_until_the_next_kill(&mut self) -> u64 {
        match self.chance.below(8) {
            0 => 0,
            1 => self.chance.below(20),
            _ => 100 + self.chance.below(900),
        }
    }

    fn kill_and_restart(&mut self) {
        self.process.kill();
        self.world.ledger().killed();
        self.world.change(|state| state.address = None);
        self.process = Process::start(self.folder.path(), self.sync);
        self.world.change(|state| state.address = Some(self.process.address));
        let world = Arc::clone(&self.world);
        self.clients.spawn(async move { look_at_retained(world).await.unwrap_or_default() });
    }

    /// Waits until the run has come so far; fails when a client does, or when nothing goes on any more.
    async fn until(&mut self, mut is_so: impl FnMut(&State) -> bool) {
        let world = Arc::clone(&self.world);
        let mut before = world.state();
        loop {
            let reached = world.becomes(|state| is_so(state));
            match self.attend(tokio::time::timeout(PATIENCE, reached)).await {
                Ok(_) => return,
                Err(_) => {
                    let state = world.state();
                    let has_moved = (state.acked, state.arrived) != (before.acked, before.arrived);
                    assert!(has_moved, "nothing goes on: {state:?}");
                    before = state;
                }
            }
        }
    }

    /// Waits for this, and fails when a client does.
    async fn attend<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                value = &mut future => return value,
                Some(ended) = self.clients.join_next() => ended.unwrap(),
            }
        }
    }

    /// Waits until nothing that was acknowledged is missing.
    async fn everything_arrives(&mut self) {
        loop {
            let arrived = self.world.state().arrived;
            let (inboxes, world) = (self.inboxes.clone(), Arc::clone(&self.world));
            let missing = move || {
                let ledger = world.ledger();
                let missing = inboxes.iter().map(|inbox| inbox.lock().unwrap().missing(&ledger));
                missing.chain([ledger.unacknowledged()]).find(|missing| !missing.is_empty())
            };
            let world = Arc::clone(&self.world);
            let done = world.becomes(|_| missing().is_none());
            if self.attend(tokio::time::timeout(PATIENCE, done)).await.is_ok() {
                return;
            }
            let more = self.world.state().arrived - arrived;
            assert!(more > 0, "{}", missing().unwrap_or_default());
        }
    }

    async fn everybody_leaves(&mut self) {
        let all = async {
            while let Some(ended) = self.clients.join_next().await {
                ended.unwrap()
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, all).await;
        let inboxes = self.inboxes.iter().map(|inbox| inbox.lock().unwrap());
        let notes: Vec<_> = inboxes.map(|inbox| inbox.noted().to_owned()).collect();
        assert!(in_time.is_ok(), "somebody waits for the end of a flow: {notes:#?} {:?}", self.world.state());
    }

    /// Everybody has acknowledged everything, and a commit followed: after one more crash each session has one new
    /// message, and nothing else.
    async fn nothing_comes_back(&mut self) {
        let stream = self.world.ledger().streams.len() - 1;
        let message = self.world.ledger().next(stream);
        let (payload, topic) = {
            let ledger = self.world.ledger();
            (ledger.payload(message), topic(&ledger.streams[stream]))
        };
        let (mut link, _) = Link::open(self.process.address, connect("", true, 0, 1)).await.unwrap();
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: Some(topic),
            packet_id: 1,
            properties: None,
            payload: payload.into(),
        };
        link.send(&[Packet::Publish(publish)]).await.unwrap();
        let ack = link.packet().await.unwrap();
        assert_eq!(ack, Packet::PubAck(Ack::new(1, ReasonCode::SUCCESS)));
        self.process.kill();
        self.process = Process::start(self.folder.path(), self.sync);
        for character in SUBSCRIBERS.iter().filter(|character| character.filter == "t/#") {
            let hello = connect(character.client_id, false, 3600, 100);
            let (mut link, ack) = Link::open(self.process.address, hello).await.unwrap();
            assert!(ack.session_present, "{}", character.client_id);
            match link.packet().await.unwrap() {
                Packet::Publish(publish) => {
                    let found = self.world.ledger().message(&publish.payload);
                    assert_eq!(found, message, "{} had acknowledged it", character.client_id);
                }
                other => panic!("{} got {other:?}", character.client_id),
            }
        }
        look_at_retained_again(&self.world, self.process.address).await;
        self.process.kill();
        let check = tidegate(self.folder.path()).args(["store", "check", "--path", "store"]).output();
        let check = check.unwrap();
        assert!(check.status.success(), "{check:?}");
    }

    fn report(&self) {
        for inbox in &self.inboxes {
            let inbox = inbox.lock().unwrap();
            let (messages, deliveries) = inbox.counts();
            eprintln!("{}: {messages} messages in {deliveries} deliveries", inbox.name());
        }
        eprintln!("{:?}", self.world.state());
    }
}

/// All was acknowledged, so there is one right answer.
async fn look_at_retained_again(world: &Arc<World>, address: std::net::SocketAddr) {
    world.change(|state| state.address = Some(address));
    look_at_retained(Arc::clone(world)).await.unwrap();
}

fn topic(stream: &Stream) -> Topic {
    Topic::parse(&stream.topic, &TopicLimits::STANDARD).unwrap()
}

//! A connection over a real socket, with a session that writes down what it hears, and a store whose commits are
//! released by hand.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicIsize, AtomicUsize};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    CloseKind, Connect, DataLane, Delivery, Lag, LagNotice, Output, Overflow, Publish, Published, Reading,
    Session, Token, Wants,
};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::topic::{Topic, TopicLimits};
use tidegate_protocol::websocket::Message;
use tokio::net::{TcpListener, TcpStream};

use super::super::{Opened, Settings, clock};
use super::*;
use crate::auth::{Anonymous, Authenticator, Peer};
use crate::broker::{Batch, Broker, Rules};
use crate::durability::Durability;
use crate::metrics::Metrics;
use crate::outbox::Shared;
use crate::outbox::queue::Limits;
use crate::outbox::writer::WriteLimits;
use crate::retained::{Retained, RetainedLimits};
use crate::router::shared::Strategy;
use crate::store::memory::MemoryStore;
use crate::store::{
    Change, CheckReport, Page, PageLimits, Progress, Recovered, Recovery, SessionKey, StatsReport, Store,
    StoreError, Ticket, Writer,
};
use crate::topic_rules::TopicRules;

/// A commit is done when the test says how it ended, and fails at the end of the test.
struct Gate {
    store: MemoryStore,
    outcomes: Mutex<mpsc::Receiver<Result<(), StoreError>>>,
}

impl Store for Gate {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.outcomes.lock().recv().unwrap_or(Err(StoreError::Closed))?;
        self.store.commit(changes)
    }

    fn load_queue(&self, session: SessionKey, from: u64, limits: PageLimits) -> Result<Page, StoreError> {
        self.store.load_queue(session, from, limits)
    }

    fn recover(
        &self,
        visit: &mut dyn FnMut(Recovered),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Recovery, StoreError> {
        self.store.recover(visit, progress)
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        self.store.maintain()
    }

    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }

    fn stats(&self) -> Result<StatsReport, StoreError> {
        self.store.stats()
    }

    fn check(&self) -> Result<CheckReport, StoreError> {
        self.store.check()
    }

    fn backup(&self, directory: &Path) -> Result<(), StoreError> {
        self.store.backup(directory)
    }
}

/// Writes down what it hears.
#[derive(Default)]
struct Listener {
    heard: Arc<Mutex<Vec<String>>>,
    outputs: VecDeque<Output>,
}

impl Session for Listener {
    fn handle_message(&mut self, _message: Message, _now: Instant) {}

    fn handle_reply(&mut self, token: Token, reply: Reply, _now: Instant) {
        let what = match reply {
            Reply::Connected(_) => "connected".to_owned(),
            Reply::Subscribed(_) => "subscribed".to_owned(),
            Reply::Published(_) => "published".to_owned(),
            Reply::Refused(refusal) => format!("refused: {refusal}"),
            other => format!("{other:?}"),
        };
        self.heard.lock().push(format!("{} {what}", token.0));
    }

    fn handle_delivery(&mut self, _delivery: Delivery, _now: Instant) {}

    fn handle_lag(&mut self, _lag: Lag, _now: Instant) {}

    fn handle_timeout(&mut self, _now: Instant) {}

    fn handle_reading(&mut self, _reading: Reading, _now: Instant) {}

    fn handle_close(&mut self, reason: CloseReason, _now: Instant) {
        self.heard.lock().push(format!("close: {:?}", reason.kind));
        self.outputs.push_back(Output::Close(reason, DataLane::Drain));
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn wants(&self) -> Wants {
        Wants { input: true, qos0: true, acked: 1 }
    }
}

struct World {
    connection: Connection,
    durability: Arc<Durability>,
    heard: Arc<Mutex<Vec<String>>>,
    commits: Option<mpsc::Sender<Result<(), StoreError>>>,
    _client: TcpStream,
}

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

fn broker(durability: &Arc<Durability>) -> Broker {
    let metrics = Metrics::new(clock().instant);
    let rules = Rules {
        qos_max: QoS::ExactlyOnce,
        overflow_qos0: Overflow::DropOldest,
        overflow_qos1: Overflow::Disconnect,
        overflow_offline: Overflow::DropOldest,
        retain: true,
        retained_batch: 100,
        session_expiry_default: Duration::ZERO,
        session_expiry_max: Duration::from_secs(3600),
        sessions_max: 100,
        shared_strategy: Strategy::RoundRobin,
    };
    let shared = Shared {
        limits: Limits {
            messages_max: 10,
            bytes_max: 1 << 20,
            publish_wait: Duration::from_secs(1),
            slow_after: Duration::from_secs(1),
        },
        write: WriteLimits { coalesce_bytes: 1 << 14, batch_bytes: 1 << 16 },
        publication_bytes: Arc::new(AtomicUsize::new(0)),
        entries: AtomicIsize::new(0),
        total_bytes_max: usize::MAX,
        metrics: Arc::clone(&metrics),
    };
    let retained = Retained::new(RetainedLimits { messages_max: 100, bytes_max: 1 << 20 });
    let authenticator = Authenticator::new(Anonymous::Always);
    let topic_rules = TopicRules::new(Vec::new());
    Broker::new(rules, topic_rules, authenticator, retained, Arc::new(shared), metrics)
        .with_durability(Arc::clone(durability))
}

const fn settings() -> Settings {
    Settings {
        message_bytes_max: 1 << 16,
        message_bytes_max_preauth: 1 << 12,
        ping_interval: None,
        pong_timeout: CLOSE_TIMEOUT,
        close_timeout: CLOSE_TIMEOUT,
        idle_timeout: None,
        read_bytes_max: 1 << 14,
        stall_timeout: Duration::from_secs(60),
        publish_wait: Duration::from_secs(1),
    }
}

impl World {
    /// A client that is connected, without a session that outlives the connection.
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, from) = listener.accept().await.unwrap();
        let (commits, outcomes) = mpsc::channel();
        let gate = Gate { store: MemoryStore::new(), outcomes: Mutex::new(outcomes) };
        let writer = Writer::start(Arc::new(gate), crate::store::Settings::default(), 1).unwrap();
        let durability = Durability::new(writer, 256, clock);
        let session = Listener::default();
        let heard = Arc::clone(&session.heard);
        let opened = Opened {
            socket,
            leftover: Bytes::new(),
            session: Box::new(session),
            family: Family::Mqtt,
            deflate: None,
            deflating: None,
            takeover: None,
            peer: Peer { ip: from.ip(), is_forwarded: false },
        };
        let broker = Arc::new(broker(&durability));
        let connection = Connection::new(opened, 1, broker, Arc::new(settings()), clock().instant);
        let connect = Connect {
            client_id: Some("c".into()),
            clean_start: true,
            session_expiry: Some(Duration::ZERO),
            subscriptions_max: 10,
            forms: None,
            credentials: None,
            will: None,
            packet_bytes_max: None,
            lag: LagNotice::Silent,
        };
        let mut world = Self { connection, durability, heard, commits: Some(commits), _client: client };
        let reply = world.ask(Request::Connect(Box::new(connect)));
        assert!(matches!(reply, Some(Reply::Connected(_))), "{reply:?}");
        world
    }

    /// What the core says to a request of this client.
    fn ask(&mut self, request: Request) -> Option<Reply> {
        let Connection { broker, client, peer, .. } = &mut self.connection;
        broker.handle(client, peer, request, clock(), &mut Batch::default())
    }

    /// What the core does for something that is to be stored.
    fn submit(&self) -> Ticket {
        self.durability.writer().submit(vec![Change::RemoveReceived(SessionKey(1), 1)]).unwrap()
    }

    /// What the core has answered.
    fn answer(&mut self, token: u32, reply: Reply, after: Ticket) {
        let answer = Answer { token: Token(token), reply, packet_id: None, after };
        self.connection.answer(answer, clock());
    }

    fn published(&mut self, token: u32, after: Ticket) {
        self.answer(token, Reply::Published(Published { matched: 1 }), after);
    }

    /// The disk has done its work.
    fn commit(&self, outcome: Result<(), StoreError>) {
        self.commits.as_ref().unwrap().send(outcome).unwrap();
    }

    /// Turns of the connection until the session has heard so much; then, exactly what.
    async fn hears(&mut self, expected: &[&str]) {
        let Self { connection, heard, .. } = self;
        let turns = poll_fn(|context| {
            let end = Pin::new(&mut *connection).poll(context);
            if end.is_ready() || heard.lock().len() >= expected.len() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let all = tokio::time::timeout(Duration::from_secs(20), turns).await;
        assert_eq!(*heard.lock(), expected, "{all:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.commits = None;
        self.durability.writer().stop();
    }
}

fn failure() -> StoreError {
    StoreError::Failing
}

#[tokio::test]
async fn without_anything_to_wait_for_an_answer_is_said_at_once() {
    let mut world = World::new().await;
    world.published(1, Ticket::DONE);
    assert_eq!(*world.heard.lock(), ["1 published"]);
    assert!(world.connection.pending.is_none());
}

#[tokio::test]
async fn answers_wait_for_their_commits_and_keep_their_order() {
    let mut world = World::new().await;
    let first = world.submit();
    world.published(1, first);
    world.published(2, Ticket::DONE);
    world.hears(&[]).await;
    world.commit(Ok(()));
    world.hears(&["1 published", "2 published"]).await;
    assert!(world.connection.pending.is_none(), "an idle connection keeps no queue");
    let second = world.submit();
    world.published(3, second);
    world.hears(&["1 published", "2 published"]).await;
    world.commit(Ok(()));
    world.hears(&["1 published", "2 published", "3 published"]).await;
}

#[tokio::test]
async fn answers_of_later_commits_are_woken_for_too() {
    let mut world = World::new().await;
    for token in 1..=3 {
        let ticket = world.submit();
        world.published(token, ticket);
        // Once the storage thread has the first, the others are another batch.
        if token == 1 {
            world.commit(Ok(()));
            world.hears(&["1 published"]).await;
        }
    }
    world.commit(Ok(()));
    world.commit(Ok(()));
    world.hears(&["1 published", "2 published", "3 published"]).await;
}

#[tokio::test]
async fn a_failed_commit_is_a_refusal() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.published(1, ticket);
    world.commit(Err(failure()));
    world.hears(&["1 refused: overloaded: the disk of the store fails"]).await;
}

#[tokio::test]
async fn an_identifier_whose_publish_was_not_stored_is_free_again() {
    let mut world = World::new().await;
    let mut publication = Publication::new(Topic::parse("t", &TopicLimits::STANDARD).unwrap(), Bytes::new());
    publication.qos = QoS::ExactlyOnce;
    let publish = Publish { publication, packet_id: Some(7) };
    let reply = world.ask(Request::Publish(Box::new(publish))).unwrap();
    let after = world.submit();
    world.connection.answer(Answer { token: Token(1), reply, packet_id: Some(7), after }, clock());
    world.commit(Err(failure()));
    world.hears(&["1 refused: overloaded: the disk of the store fails"]).await;
    let reply = world.ask(Request::Release { packet_id: 7 });
    assert!(matches!(reply, Some(Reply::Released { known: false, .. })), "{reply:?}");
}

#[tokio::test]
async fn deliveries_are_held_until_a_subscription_is_granted() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.connection.holds_subscribe = true;
    world.connection.outbox.hold_subscribe();
    world.answer(1, Reply::Subscribed(Vec::new()), ticket);
    world.connection.drain(&mut Lane::Control, clock());
    world.hears(&[]).await;
    assert!(world.connection.holds_subscribe);
    world.commit(Ok(()));
    world.hears(&["1 subscribed"]).await;
    assert!(!world.connection.holds_subscribe);
}

#[tokio::test]
async fn a_planned_stop_comes_behind_what_is_being_committed() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.published(1, ticket);
    world.connection.outbox.order_close(CloseReason::new(CloseKind::ShuttingDown, ""));
    world.hears(&[]).await;
    world.commit(Ok(()));
    world.hears(&["1 published", "close: ShuttingDown"]).await;
}

#[tokio::test]
async fn a_planned_stop_waits_for_a_slow_disk_no_longer_than_close_timeout() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.published(1, ticket);
    world.connection.outbox.order_close(CloseReason::new(CloseKind::ShuttingDown, ""));
    // Nothing else is there to wait for, so the time passes at once.
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    world.hears(&["close: ShuttingDown"]).await;
    assert!(before.elapsed() >= CLOSE_TIMEOUT);
}

#[tokio::test]
async fn any_other_end_waits_for_nothing() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.published(1, ticket);
    world.connection.outbox.order_close(CloseReason::new(CloseKind::Replaced, ""));
    world.hears(&["close: Replaced"]).await;
    assert!(world.connection.pending.is_none());
}

//! A connection over a real socket, with a session that writes down what it hears, and a store whose commits are
//! released by hand.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    Connect, DataLane, Delivery, Lag, Output, Publish, Published, Reading, Session, Token, Wants, Will,
};
use tidegate_protocol::subprotocol::Family;
use tidegate_protocol::topic::{Topic, TopicLimits};
use tidegate_protocol::websocket::Message;
use tokio::net::{TcpListener, TcpStream};

use self::core::Setup;
pub(super) use self::core::subscribe;
use super::super::super::{Brake, Opened, Settings, clock};
use super::super::*;
use crate::auth::Peer;
use crate::broker::{Batch, Broker};
use crate::durability::Durability;
use crate::outbox::queue::Limits;
use crate::store::memory::MemoryStore;
use crate::store::{
    Change, CheckReport, Page, PageLimits, Progress, Recovered, Recovery, SessionKey, StatsReport, Store,
    StoreError, Ticket, Writer,
};

#[path = "../../../../tests/support/core.rs"]
mod core;

/// A commit is done when the test says how it ended, and fails at the end of the test.
struct Gate {
    store: MemoryStore,
    begun: mpsc::Sender<()>,
    outcomes: Mutex<mpsc::Receiver<Result<(), StoreError>>>,
}

impl Store for Gate {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        // At the end of the test nobody listens.
        let _ = self.begun.send(());
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
    outputs: Arc<Mutex<VecDeque<Output>>>,
}

impl Session for Listener {
    fn handle_message(&mut self, _message: Message, _now: Instant) {}

    fn handle_reply(&mut self, token: Token, reply: Reply, _now: Instant) {
        let what = match reply {
            Reply::Connected(_) => "connected".to_owned(),
            Reply::Subscribed(results) => {
                let refused = (0..).zip(&results).filter(|(_, result)| result.is_err());
                let refused: String = refused.map(|(index, _)| format!(", not {index}")).collect();
                format!("subscribed{refused}")
            }
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
        self.outputs.lock().push_back(Output::Close(reason, DataLane::Drain));
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.lock().pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn wants(&self) -> Wants {
        Wants { input: true, qos0: true, acked: 1 }
    }
}

pub(super) struct World {
    pub(super) connection: Connection,
    durability: Arc<Durability>,
    pub(super) heard: Arc<Mutex<Vec<String>>>,
    outputs: Arc<Mutex<VecDeque<Output>>>,
    begun: mpsc::Receiver<()>,
    commits: Option<mpsc::Sender<Result<(), StoreError>>>,
    _client: TcpStream,
}

/// The longest that anything may take; nothing waits for it to pass.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

fn broker(durability: &Arc<Durability>) -> Broker {
    let limits = Limits {
        messages_max: 10,
        bytes_max: 1 << 20,
        publish_wait: Duration::from_secs(1),
        slow_after: Duration::from_secs(1),
    };
    Setup { limits, ..Setup::default() }.build().with_durability(Arc::clone(durability))
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

pub(super) fn connect(expiry: Duration, will: Option<Publication>) -> Connect {
    let will = will.map(|publication| Box::new(Will { publication, delay: Duration::ZERO, expiry: None }));
    Connect { will, ..core::connect("c", true, expiry) }
}

pub(super) fn publication() -> Publication {
    Publication::new(Topic::parse("t", &TopicLimits::STANDARD).unwrap(), Bytes::from_static(b"x"))
}

impl World {
    /// A client that is connected, without a session that outlives the connection.
    pub(super) async fn new() -> Self {
        Self::with(connect(Duration::ZERO, None)).await.0
    }

    /// A client that has connected so, and what the core says to that.
    pub(super) async fn with(connect: Connect) -> (Self, Reply) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, from) = listener.accept().await.unwrap();
        let (commits, outcomes) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        let gate = Gate { store: MemoryStore::new(), begun: begin, outcomes: Mutex::new(outcomes) };
        let writer = Writer::start(Arc::new(gate), crate::store::Settings::default(), 1).unwrap();
        let durability = Durability::new(writer, clock);
        let session = Listener::default();
        let (heard, outputs) = (Arc::clone(&session.heard), Arc::clone(&session.outputs));
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
        let mut world =
            Self { connection, durability, heard, outputs, begun, commits: Some(commits), _client: client };
        let reply = world.ask(Request::Connect(Box::new(connect))).unwrap();
        (world, reply)
    }

    /// What the core says to a request of this client.
    pub(super) fn ask(&mut self, request: Request) -> Option<Reply> {
        self.ask_all(request).0
    }

    /// And what else comes of it.
    pub(super) fn ask_all(&mut self, request: Request) -> (Option<Reply>, Batch) {
        let Connection { broker, client, peer, .. } = &mut self.connection;
        let mut batch = Batch::default();
        (broker.handle(client, peer, request, clock(), &mut batch), batch)
    }

    /// A publish at QoS 0.
    pub(super) fn publishes(&mut self, token: u32) {
        self.requests(
            token,
            Request::Publish(Box::new(Publish { publication: publication(), packet_id: None })),
        );
    }

    /// A publish at QoS 2.
    pub(super) fn publishes_once(&mut self, token: u32, packet_id: u16) {
        let mut publication = publication();
        publication.qos = QoS::ExactlyOnce;
        let publish = Publish { publication, packet_id: Some(packet_id) };
        self.requests(token, Request::Publish(Box::new(publish)));
    }

    fn requests(&mut self, token: u32, request: Request) {
        self.outputs.lock().push_back(Output::Request(Token(token), request));
        self.connection.drain(&mut Lane::Control, clock());
    }

    /// A slow subscriber holds this answer back, and what comes behind it.
    pub(super) fn brakes(&mut self, answer: Answer, behind: (Token, Request)) {
        let deadline = clock().instant + PATIENCE;
        let brake = Brake { deadline, slow: Vec::new(), answer, backlog: VecDeque::from([behind]) };
        self.connection.brake = Some(Box::new(brake));
    }

    /// What the core does for something that is to be stored.
    pub(super) fn submit(&self) -> Ticket {
        self.durability.writer().submit(vec![Change::RemoveReceived(SessionKey(1), 1)]).unwrap()
    }

    /// What the core has answered.
    pub(super) fn answer(&mut self, token: u32, reply: Reply, after: Ticket) {
        let answer = Answer { token: Token(token), reply, packet_id: None, entered: Vec::new(), after };
        self.connection.answer(answer, clock());
    }

    pub(super) fn published(&mut self, token: u32, after: Ticket) {
        self.connection.answer(published(token, after), clock());
    }

    /// The disk is at work: what is submitted from here on is of another commit.
    pub(super) fn begins(&self) {
        self.begun.recv_timeout(PATIENCE).unwrap();
    }

    /// The disk has done its work.
    pub(super) fn commit(&self, outcome: Result<(), StoreError>) {
        self.commits.as_ref().unwrap().send(outcome).unwrap();
    }

    /// Turns of the connection until the session has heard so much; then, exactly what.
    pub(super) async fn hears(&mut self, expected: &[&str]) {
        let Self { connection, heard, .. } = self;
        let turns = poll_fn(|context| {
            let end = Pin::new(&mut *connection).poll(context);
            if end.is_ready() || heard.lock().len() >= expected.len() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let all = tokio::time::timeout(PATIENCE, turns).await;
        assert_eq!(*heard.lock(), expected, "{all:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.commits = None;
        self.durability.writer().stop();
    }
}

pub(super) fn published(token: u32, after: Ticket) -> Answer {
    let reply = Reply::Published(Published { matched: 1 });
    Answer { token: Token(token), reply, packet_id: None, entered: Vec::new(), after }
}

pub(super) fn failure() -> StoreError {
    StoreError::Failing
}

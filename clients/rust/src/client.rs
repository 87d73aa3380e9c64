//! The user's handle: requests to the connection's task, answers back. Holds no socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_protocol::raw::client::Operation;
use tidegate_protocol::topic::{TopicFilter, TopicLimits};
use tidegate_protocol::websocket::prepared::Outgoing;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::connection::Connection;
use crate::driver::{Command, Driver, Status};
use crate::error::{ConnectError, RequestError};
use crate::event::{Events, event_queue};
use crate::options::{Options, SubscribeOptions};
use crate::publication::Publication;
use crate::retry::Pauses;
use crate::session::{Ids, Reply, Session, Waiting, sub};
use crate::url::Endpoint;

/// A client of one broker. Cloning is cheap; all clones share the connection.
///
/// When the last clone is dropped, the connection is closed at once with WebSocket code 1000, and
/// [`Events::next`] ends after what is queued. Publishes without acknowledgement that the socket has not taken
/// are lost then; [`Client::close`] sends them first.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    ids: Arc<Ids>,
    status: Arc<Status>,
    options: Arc<Options>,
    task: AbortHandle,
}

impl Drop for Shared {
    /// The task does not outlive its client. What it owns is dropped with it, and a dropped connection says
    /// Close 1000.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Connects to `ws://host[:port]/path` with the default options.
    pub async fn connect(url: &str) -> Result<(Self, Events), ConnectError> {
        Self::connect_with(url, Options::default()).await
    }

    /// Connects. A first attempt that fails is the caller's to repeat; after it, the client connects again by
    /// itself for as long as the broker's close codes allow it. To be called within a tokio runtime.
    pub async fn connect_with(url: &str, mut options: Options) -> Result<(Self, Events), ConnectError> {
        options.limits = options.limits.at_least_one();
        let endpoint = Endpoint::parse(url)?;
        let connection = Connection::open(&endpoint, &options).await?;
        let options = Arc::new(options);
        let ids = Arc::new(Ids::default());
        let status = Arc::new(Status {
            is_connected: AtomicBool::new(false),
            message_bytes_max: AtomicUsize::new(usize::MAX),
        });
        status.set_connected(&connection);
        let (commands, receiver) = mpsc::channel(options.limits.commands_max);
        let (sender, events) = event_queue(options.limits);
        let driver = Driver {
            endpoint,
            options: Arc::clone(&options),
            commands: receiver,
            events: sender,
            status: Arc::clone(&status),
            session: Session::new(Arc::clone(&ids)),
            pauses: Pauses::new(options.backoff),
        };
        let task = tokio::spawn(driver.run(connection)).abort_handle();
        Ok((Self { shared: Arc::new(Shared { commands, ids, status, options, task }) }, events))
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.status.is_connected.load(Ordering::Acquire)
    }

    /// Subscribes, or changes the options of the subscription to this filter. It is restored on every later
    /// connection until [`Client::unsubscribe`].
    pub async fn subscribe(&self, filter: &str, options: SubscribeOptions) -> Result<(), RequestError> {
        let filter = TopicFilter::parse(filter, &TopicLimits::STANDARD)?;
        self.ensure_connected()?;
        let id = self.shared.ids.next();
        let outgoing = sub(id, &filter, &options);
        self.request(id, outgoing, |reply| Waiting::Sub { filter, options, reply }).await
    }

    /// Ends a subscription. Also works without a connection: then it is not restored.
    pub async fn unsubscribe(&self, filter: &str) -> Result<(), RequestError> {
        let filter = TopicFilter::parse(filter, &TopicLimits::STANDARD)?;
        let id = self.shared.ids.next();
        let outgoing = Operation::Unsub { id, topic: filter.as_str() }.encode();
        self.request(id, outgoing, |reply| Waiting::Unsub { filter, reply }).await
    }

    /// Publishes and forgets: waits for room in the queue, not for the broker. What is on its way when the
    /// connection is lost may be lost with it.
    pub async fn publish(&self, publication: &Publication) -> Result<(), RequestError> {
        self.ensure_connected()?;
        let outgoing = self.fitting(Operation::Pub(publication.operation(None)).encode())?;
        let sent = self.shared.commands.send(Command::Send(outgoing)).await;
        sent.map_err(|_| RequestError::Closed)
    }

    /// Publishes and waits until the broker has taken the message (QoS 1): how many receivers matched.
    /// [`RequestError::ConnectionLost`] and [`RequestError::TimedOut`] mean that it may have been published or
    /// not; the client never publishes it again by itself.
    pub async fn publish_acknowledged(&self, publication: &Publication) -> Result<u64, RequestError> {
        self.ensure_connected()?;
        let id = self.shared.ids.next();
        let outgoing = self.fitting(Operation::Pub(publication.operation(Some(id))).encode())?;
        self.request(id, outgoing, |reply| Waiting::Pub { reply }).await
    }

    /// The time that the broker takes to answer, queues included.
    pub async fn ping(&self) -> Result<Duration, RequestError> {
        self.ensure_connected()?;
        let id = self.shared.ids.next();
        let sent_at = Instant::now();
        self.request(id, Operation::Ping { id }.encode(), |reply| Waiting::Ping { sent_at, reply }).await
    }

    /// Sends what is queued, closes with code 1000 and waits for the broker's Close, at most
    /// [`Options::close_timeout`]. The other clones are closed with it: their requests fail.
    pub async fn close(self) {
        let (done, is_done) = oneshot::channel();
        let closing = async {
            if self.shared.commands.send(Command::Close { done }).await.is_ok() {
                // An error is the task's end as well.
                let _ = is_done.await;
            }
        };
        let _ = timeout(self.shared.options.close_timeout, closing).await;
        self.shared.task.abort();
    }

    fn ensure_connected(&self) -> Result<(), RequestError> {
        if self.shared.commands.is_closed() {
            return Err(RequestError::Closed);
        }
        if self.is_connected() { Ok(()) } else { Err(RequestError::NotConnected) }
    }

    /// A message that the broker would answer with 1009 is not sent.
    fn fitting(&self, outgoing: Outgoing) -> Result<Outgoing, RequestError> {
        let limit_bytes = self.shared.status.message_bytes_max.load(Ordering::Relaxed);
        match outgoing.len() {
            bytes if bytes > limit_bytes => Err(RequestError::TooBig { bytes, limit_bytes }),
            _ => Ok(outgoing),
        }
    }

    async fn request<T>(
        &self,
        id: u32,
        outgoing: Outgoing,
        waiting: impl FnOnce(Reply<T>) -> Waiting,
    ) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Request { id, outgoing, waiting: waiting(reply) };
        let exchange = async {
            self.shared.commands.send(command).await.map_err(|_| RequestError::Closed)?;
            answer.await.unwrap_or(Err(RequestError::Closed))
        };
        let timeout = timeout(self.shared.options.request_timeout, exchange);
        timeout.await.unwrap_or(Err(RequestError::TimedOut))
    }
}

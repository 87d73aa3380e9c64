//! Listeners: accept, limits, HTTP and upgrade, then one task per connection; and the graceful end of them all.

mod admission;
mod upgrade;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use socket2::SockRef;
use tidegate_protocol::session::{CloseKind, CloseReason};
use tidegate_protocol::subprotocol::{self, NegotiationOptions};
use tidegate_protocol::websocket::deflate;
use tidegate_protocol::websocket::origin::OriginPattern;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, warn};

pub use self::admission::AdmissionLimits;
use self::admission::{Admission, Budget, Place};
use crate::broker::Broker;
use crate::connection::{self, Connection};
use crate::metrics::HandshakeRefusal;
use crate::outbox::Outbox;

/// `[[listener]]`.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// For people.
    pub name: String,
    /// Where.
    pub bind: SocketAddr,
    /// The paths that are WebSocket endpoints.
    pub paths: Vec<String>,
    /// Which protocols, and what becomes of offers that name none of them.
    pub negotiation: NegotiationOptions,
    /// How many clients, and how fast.
    pub limits: AdmissionLimits,
}

/// What all listeners share of the operator's file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `websocket.origins`; empty means any.
    pub origins: Vec<OriginPattern>,
    /// `websocket.require_origin`.
    pub require_origin: bool,
    /// `websocket.handshake_timeout`.
    pub handshake_timeout: Duration,
    /// `websocket.max_header_bytes`.
    pub header_bytes_max: usize,
    /// `[websocket.deflate]`.
    pub deflate: deflate::Settings,
    /// `websocket.deflate.takeover_memory`.
    pub takeover_bytes_max: usize,
    /// For connections after the handshake.
    pub connection: Arc<connection::Settings>,
    /// For sessions.
    pub sessions: Arc<subprotocol::Settings>,
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<(Arc<ListenerSettings>, SocketAddr)>,
}

struct Shared {
    broker: Arc<Broker>,
    settings: Settings,
    takeover: Arc<Budget>,
    clients: DashMap<u64, Arc<Outbox>, RandomState>,
    next_key: AtomicU64,
    is_stopping: AtomicBool,
    stop: watch::Sender<bool>,
    /// Told whenever a client is gone.
    gone: Notify,
}

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: u32 = 4096;

/// Unsent bytes in the kernel, above which a socket is not writable: what a stalled client keeps out of the
/// policy's reach.
const NOTSENT_BYTES_MAX: u32 = 256 * 1024;

/// Why a listener does not start.
#[derive(Debug, thiserror::Error)]
#[error("listener {name:?} cannot listen on {bind}: {error}")]
pub struct BindError {
    name: String,
    bind: SocketAddr,
    error: std::io::Error,
}

impl Server {
    /// Binds all listeners, then begins to accept. Nothing is accepted if one of them fails.
    pub fn start(
        listeners: Vec<ListenerSettings>,
        settings: Settings,
        broker: Arc<Broker>,
    ) -> Result<Self, BindError> {
        let (stop, _) = watch::channel(false);
        let shared = Arc::new(Shared {
            takeover: Budget::new(settings.takeover_bytes_max),
            broker,
            settings,
            clients: DashMap::default(),
            next_key: AtomicU64::new(1),
            is_stopping: AtomicBool::new(false),
            stop,
            gone: Notify::new(),
        });
        let mut bound = Vec::new();
        for listener in listeners {
            let (socket, address) = bind(listener.bind).map_err(|error| BindError {
                name: listener.name.clone(),
                bind: listener.bind,
                error,
            })?;
            bound.push((Arc::new(listener), socket, address));
        }
        let mut addresses = Vec::new();
        for (listener, socket, address) in bound {
            addresses.push((Arc::clone(&listener), address));
            tokio::spawn(accept_all(socket, listener, Arc::clone(&shared)));
        }
        Ok(Self { shared, listeners: addresses })
    }

    /// The listeners and the addresses that they got.
    pub fn listeners(&self) -> impl Iterator<Item = (&ListenerSettings, SocketAddr)> {
        self.listeners.iter().map(|(listener, address)| (&**listener, *address))
    }

    /// Clients that are connected now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.clients.len()
    }

    /// Stops accepting, tells every client in its protocol's words, and waits until they are gone, at most
    /// `timeout`. Gives the number of those that were still there.
    pub async fn stop(&self, timeout: Duration) -> usize {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        self.shared.stop.send_replace(true);
        // Collected first: an order wakes tasks, and those leave the map.
        let clients: Vec<_> = self.shared.clients.iter().map(|client| Arc::clone(client.value())).collect();
        for outbox in clients {
            outbox.order_close(self.shared.stop_reason());
        }
        let all_gone = async {
            loop {
                let gone = self.shared.gone.notified();
                if self.shared.clients.is_empty() {
                    return;
                }
                gone.await;
            }
        };
        // What is left after the time is left.
        let _ = tokio::time::timeout(timeout, all_gone).await;
        self.shared.clients.len()
    }
}

impl Shared {
    fn stop_reason(&self) -> CloseReason {
        CloseReason::new(CloseKind::ShuttingDown, "the broker is shutting down; retry-after=1000")
    }

    fn spawn(self: &Arc<Self>, opened: connection::Opened, place: Place) {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let settings = Arc::clone(&self.settings.connection);
        let now = tokio::time::Instant::now().into_std();
        let family = opened.family;
        let is_deflated = opened.deflate.is_some();
        let connection = Connection::new(opened, key, Arc::clone(&self.broker), settings, now);
        let outbox = Arc::clone(connection.outbox());
        self.clients.insert(key, Arc::clone(&outbox));
        let counters = self.broker.metrics().family(family);
        counters.connections.add(1);
        counters.connections_opened.inc();
        let deflate = &self.broker.metrics().deflate;
        deflate.connections.add(u64::from(is_deflated));
        deflate.takeover_bytes.add(place.takeover_bytes());
        if self.is_stopping.load(Ordering::SeqCst) {
            outbox.order_close(self.stop_reason());
        }
        let registered = Registered { shared: Arc::clone(self), key, family, is_deflated, place };
        tokio::spawn(Task { connection, _registered: registered });
    }
}

/// A connection and its place in the books, which it leaves when the task ends, also by a panic (SEC-10).
struct Task {
    connection: Connection,
    _registered: Registered,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.connection).poll(context)
    }
}

struct Registered {
    shared: Arc<Shared>,
    key: u64,
    family: subprotocol::Family,
    is_deflated: bool,
    place: Place,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.clients.remove(&self.key);
        let metrics = self.shared.broker.metrics();
        metrics.family(self.family).connections.sub(1);
        metrics.deflate.connections.sub(u64::from(self.is_deflated));
        metrics.deflate.takeover_bytes.sub(self.place.takeover_bytes());
        self.shared.gone.notify_waiters();
    }
}

fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn accept_all(socket: TcpListener, listener: Arc<ListenerSettings>, shared: Arc<Shared>) {
    let admission = Admission::new(listener.limits.clone());
    let mut stop = shared.stop.subscribe();
    loop {
        // Both arms are cancel safe.
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stop.wait_for(|is_stopping| *is_stopping) => return,
        };
        match accepted {
            Ok((stream, address)) => begin(stream, address, &listener, &admission, &shared),
            Err(error) => {
                error!(listener = listener.name, %error, "cannot accept; out of file descriptors?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// After an error that the next accept would meet again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

fn begin(
    stream: TcpStream,
    address: SocketAddr,
    listener: &Arc<ListenerSettings>,
    admission: &Arc<Admission>,
    shared: &Arc<Shared>,
) {
    let Some(ticket) = admission.begin(address.ip(), tokio::time::Instant::now().into_std()) else {
        shared.broker.metrics().handshakes_refused.inc(HandshakeRefusal::Connections);
        warn!(listener = listener.name, peer = %address, "too many handshakes at a time; connection dropped");
        return;
    };
    if let Err(error) = tune(&stream) {
        debug!(%error, "socket options");
    }
    let handshake = upgrade::Handshake::new(Arc::clone(listener), Arc::clone(shared), address, ticket);
    tokio::spawn(handshake.run(stream));
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(NOTSENT_BYTES_MAX)
}

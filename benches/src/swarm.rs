//! Many client connections in one thread and one epoll loop: open, write, read, count.
//! One thread, because the broker shares the machine; edge-triggered reads into one buffer, no copies.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Socket, Type};
use tidegate_protocol::publication::QoS;

use crate::histogram::Histogram;
use crate::wire::{Ear, Heard, PONG, Protocol, Role, StampFromEnd};

/// Handshakes under way at once; mosquitto's accept queue holds 100.
const OPENING_MAX: usize = 64;
/// Connections per loopback source address, well below the range of ephemeral ports.
const PER_SOURCE: usize = 8000;
/// For a million subscriptions to a slow broker.
const SUBSCRIBE_TIME_MAX: Duration = Duration::from_secs(300);
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// All connections of a scenario.
#[derive(Debug)]
pub struct Swarm {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    address: SocketAddr,
    buffer: Vec<u8>,
    epoch: Instant,
    stamp: StampFromEnd,
    sample_every: usize,
    /// Latencies of the sampled connections.
    pub latencies: Histogram,
    /// Deliveries heard on all connections.
    pub deliveries: u64,
    /// Those among them that were deflated.
    pub deflated: u64,
    /// Connections whose publications were acknowledged in the last turn.
    acknowledged: Vec<usize>,
    /// The stamps of the sampled connections, once they are kept.
    pub kept_stamps: Option<KeptStamps>,
}

/// Stamps that tell one message from another.
#[derive(Debug, Default)]
pub struct KeptStamps {
    /// Of deliveries that were acknowledged, if they were to be.
    pub settled: Vec<u64>,
    /// Of deliveries to connections that were muted.
    pub unsettled: Vec<u64>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    role: Role,
    state: State,
    ear: Ear,
    /// A frame whose end has not come.
    carry: Vec<u8>,
    out: Vec<u8>,
    out_at: usize,
    received: u64,
    retained: u64,
    acknowledged: u64,
    session_present: bool,
    /// Not read any more.
    stalled: bool,
    /// Acknowledges nothing any more.
    muted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Upgrading,
    /// So many answers are still to come.
    Opening(usize),
    Ready,
}

impl Swarm {
    /// No connections yet. `stamp` is where deliveries carry their time.
    pub fn new(address: SocketAddr, stamp: StampFromEnd) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            connections: Vec::new(),
            address,
            buffer: vec![0; READ_BUFFER_BYTES],
            epoch: Instant::now(),
            stamp,
            sample_every: 1,
            latencies: Histogram::default(),
            deliveries: 0,
            deflated: 0,
            acknowledged: Vec::new(),
            kept_stamps: None,
        })
    }

    /// Opens one connection per role and waits until all are subscribed. Answers with the index of the first.
    pub fn open(&mut self, roles: Vec<Role>) -> io::Result<usize> {
        let first = self.connections.len();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut roles = roles.into_iter();
        loop {
            let ready = self.connections.iter().skip(first).filter(|c| c.state == State::Ready).count();
            while self.connections.len() - first - ready < OPENING_MAX {
                let Some(role) = roles.next() else { break };
                self.connect(role)?;
            }
            if first + ready == self.connections.len() {
                return Ok(first);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("only {ready} connections were ready after 60 s")));
            }
            self.turn(Duration::from_millis(100))?;
        }
    }

    /// Reads stamps on every n-th connection only.
    pub fn sample_every(&mut self, n: usize) {
        self.sample_every = n.max(1);
    }

    /// Nanoseconds since the swarm was made; what stamps hold.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How many publications a connection heard.
    #[must_use]
    pub fn received(&self, index: usize) -> u64 {
        self.connections.get(index).map_or(0, |connection| connection.received)
    }

    /// How many of those it heard because its subscription was new.
    #[must_use]
    pub fn retained(&self, index: usize) -> u64 {
        self.connections.get(index).map_or(0, |connection| connection.retained)
    }

    /// How many of a connection's publications were acknowledged.
    #[must_use]
    pub fn acknowledged(&self, index: usize) -> u64 {
        self.connections.get(index).map_or(0, |connection| connection.acknowledged)
    }

    /// Takes the connections to which the last turn brought acknowledgements.
    pub fn take_acknowledged(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.acknowledged)
    }

    /// Whether the broker knew the session of this connection.
    #[must_use]
    pub fn is_session_present(&self, index: usize) -> bool {
        self.connections.get(index).is_some_and(|connection| connection.session_present)
    }

    /// Whether everything written to this connection is with the kernel.
    #[must_use]
    pub fn is_flushed(&self, index: usize) -> bool {
        self.connections.get(index).is_none_or(|connection| connection.out_at == connection.out.len())
    }

    /// Appends with `fill` to what this connection sends, and sends what the socket takes.
    pub fn send(&mut self, index: usize, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        fill(&mut connection.out);
        connection.flush()
    }

    /// From here on this connection is not read, and its receive buffer is small.
    pub fn stall(&mut self, index: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        connection.stalled = true;
        SockRef::from(&connection.stream).set_recv_buffer_size(16 * 1024)?;
        self.poll.registry().deregister(&mut connection.stream)
    }

    /// Subscribes open MQTT connections, a few at a time, and waits until all subscriptions stand.
    pub fn subscribe(
        &mut self,
        connections: Range<usize>,
        filters: impl Fn(usize) -> Vec<String>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + SUBSCRIBE_TIME_MAX;
        let (mut next, mut under_way) = (connections, Vec::<usize>::new());
        loop {
            under_way.retain(|index| self.connections.get(*index).is_some_and(|c| c.state != State::Ready));
            while under_way.len() < OPENING_MAX {
                let Some(index) = next.next() else { break };
                let Some(connection) = self.connections.get_mut(index) else { break };
                connection.state = State::Opening(1);
                let packet = connection.role.subscribe(&filters(index));
                connection.out.extend_from_slice(&packet);
                connection.flush()?;
                under_way.push(index);
            }
            if under_way.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{} subscribers are left without answer", next.len())));
            }
            self.turn(Duration::from_millis(100))?;
        }
    }

    /// From here on this connection hears deliveries but acknowledges none.
    pub fn mute(&mut self, index: usize) {
        self.connections.get_mut(index).into_iter().for_each(|connection| connection.muted = true);
    }

    /// Ends a connection without a word, as a client whose process was killed.
    pub fn hang_up(&mut self, index: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        connection.stalled = true;
        self.poll.registry().deregister(&mut connection.stream)?;
        // Dropped, it is reset. A shutdown would leave its port in TIME_WAIT, where the next broker may want it.
        connection.stream = TcpStream::from_std(Socket::new(Domain::IPV4, Type::STREAM, None)?.into());
        Ok(())
    }

    /// Waits for events once, at most `timeout`, and handles them.
    pub fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        self.acknowledged.clear();
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        };
        let handled = polled.and_then(|()| events.iter().try_for_each(|event| self.handle(event.token().0)));
        self.events = events;
        handled
    }

    fn connect(&mut self, role: Role) -> io::Result<()> {
        let index = self.connections.len();
        let source = Ipv4Addr::new(127, 0, 0, u8::try_from(1 + index / PER_SOURCE).unwrap_or(1));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Closed with a reset: ten thousand sockets in TIME_WAIT would use up the ports of the next run.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(115) && error.kind() != io::ErrorKind::WouldBlock => {
                return Err(error);
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        self.connections.push(Connection {
            stream,
            state: State::Connecting,
            ear: Ear::of(&role),
            role,
            carry: Vec::new(),
            out: Vec::new(),
            out_at: 0,
            received: 0,
            retained: 0,
            acknowledged: 0,
            session_present: false,
            stalled: false,
            muted: false,
        });
        Ok(())
    }

    fn handle(&mut self, index: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        if connection.stalled {
            return Ok(());
        }
        if connection.state == State::Connecting {
            if connection.stream.peer_addr().is_err() {
                return connection.stream.take_error()?.map_or(Ok(()), Err);
            }
            connection.out = connection.role.upgrade();
            connection.state = State::Upgrading;
        }
        connection.flush()?;
        self.read(index)
    }

    fn read(&mut self, index: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        loop {
            let carried = connection.carry.len();
            if carried >= self.buffer.len() {
                return Err(io::Error::other("a frame larger than the read buffer"));
            }
            let (head, room) = self.buffer.split_at_mut(carried);
            head.copy_from_slice(&connection.carry);
            let count = match connection.stream.read(room) {
                Ok(0) => {
                    return Err(io::Error::other(format!("connection {index} was closed by the broker")));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let drained = count < room.len();
            let mut heard = Heard::default();
            let now_ns = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let latencies = &mut self.latencies;
            let mut kept = self.kept_stamps.as_mut().map(|kept| match connection.muted {
                true => &mut kept.unsettled,
                false => &mut kept.settled,
            });
            let mut on_stamp = |ns: u64| {
                latencies.record(now_ns.saturating_sub(ns));
                kept.iter_mut().for_each(|kept| kept.push(ns));
            };
            let sampled = index.is_multiple_of(self.sample_every);
            let on_stamp: Option<&mut dyn FnMut(u64)> = if sampled { Some(&mut on_stamp) } else { None };
            let bytes = self.buffer.get(..carried + count).unwrap_or_default();
            connection.take_in(index, bytes, self.stamp, &mut heard, on_stamp)?;
            self.deliveries += heard.deliveries;
            self.deflated += heard.deflated;
            if heard.pubacks > 0 {
                self.acknowledged.push(index);
            }
            // A short read emptied the socket (epoll(7)); the next edge brings the rest.
            if drained {
                return Ok(());
            }
        }
    }
}

impl Connection {
    fn take_in(
        &mut self,
        index: usize,
        bytes: &[u8],
        stamp: StampFromEnd,
        heard: &mut Heard,
        on_stamp: Option<&mut dyn FnMut(u64)>,
    ) -> io::Result<()> {
        let mut rest = bytes;
        if self.state == State::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                self.carry = bytes.to_vec();
                return Ok(());
            };
            let (head, after) = bytes.split_at(end + 4);
            self.check_response(head)?;
            rest = after;
            let (opening, answers) = self.role.opening(index);
            self.state = if answers == 0 { State::Ready } else { State::Opening(answers) };
            self.out.extend_from_slice(&opening);
        }
        let used = self.ear.scan(self.role.protocol, rest, stamp, heard, on_stamp);
        self.carry.clear();
        self.carry.extend_from_slice(rest.get(used..).unwrap_or_default());
        self.received += heard.deliveries;
        self.retained += heard.retained;
        self.acknowledged += heard.pubacks;
        self.session_present |= heard.session_present;
        if heard.closed {
            let said = String::from_utf8_lossy(rest.get(..used.min(200)).unwrap_or_default()).into_owned();
            return Err(io::Error::other(format!("connection {index} was refused or closed: {said:?}")));
        }
        if let State::Opening(missing) = self.state {
            let missing = missing.saturating_sub(heard.answers);
            self.state = if missing == 0 { State::Ready } else { State::Opening(missing) };
        }
        (0..heard.pings).for_each(|_| self.out.extend_from_slice(&PONG));
        if !self.muted {
            self.ear.append_acks(self.role.protocol, &mut self.out);
        }
        self.flush()
    }

    fn check_response(&self, head: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(head);
        if !text.starts_with("HTTP/1.1 101") {
            return Err(io::Error::other(format!("the upgrade was refused: {text}")));
        }
        if self.role.deflate && !text.to_ascii_lowercase().contains("permessage-deflate") {
            return Err(io::Error::other("the broker declined permessage-deflate"));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.state == State::Connecting {
            return Ok(());
        }
        while let Some(rest) = self.out.get(self.out_at..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) => self.out_at += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.out_at = 0;
        Ok(())
    }
}

/// A role that subscribes.
#[must_use]
pub fn subscriber(protocol: Protocol, filters: Vec<String>) -> Role {
    Role {
        protocol,
        filters,
        publishes_to: None,
        deflate: false,
        qos: QoS::AtMostOnce,
        client_id: None,
        session_expiry_seconds: None,
    }
}

/// A role that publishes to one topic, or for MQTT and STOMP to any.
#[must_use]
pub fn publisher(protocol: Protocol, topic: &str) -> Role {
    Role { publishes_to: Some(topic.to_owned()), ..subscriber(protocol, Vec::new()) }
}

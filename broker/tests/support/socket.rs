//! A WebSocket client over TCP, made of the protocol crate's client role. Answers pings, keeps everything else.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tidegate_protocol::websocket::client::{ClientRequest, HandshakeError, ServerHandshake, generate_key};
use tidegate_protocol::websocket::deflate;
use tidegate_protocol::websocket::prepared::{Deflating, Outgoing};
use tidegate_protocol::websocket::{Event, Receiver, Role, frame};
pub use tidegate_protocol::websocket::{Message, MessageKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::within;

/// One connection after its handshake.
pub struct Socket {
    stream: TcpStream,
    buffer: BytesMut,
    receiver: Receiver,
    deflating: Option<Deflating>,
    /// Messages that came while something else was waited for.
    inbox: VecDeque<Message>,
    pub handshake: ServerHandshake,
    /// Without it, the server's pings stay unanswered.
    pub answers_pings: bool,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// A Close frame; 1005 when it had no code (RFC 6455 §7.1.5).
    Closed { code: u16, reason: String },
    /// The end of the TCP connection without one.
    Lost,
}

impl End {
    pub fn code(&self) -> u16 {
        match self {
            Self::Closed { code, .. } => *code,
            Self::Lost => 1006,
        }
    }
}

/// What is asked for in a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub target: &'a str,
    pub protocols: &'a [&'a str],
    pub deflate: Option<deflate::Settings>,
    /// Bytes of the kernel's receive buffer; a small one lets a client that does not read stall at once.
    pub receive_buffer: Option<u32>,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self { target: "/ws", protocols: &[], deflate: None, receive_buffer: None }
    }
}

/// Far above every limit of the broker.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

const MASK: frame::Mask = [0x12, 0x34, 0x56, 0x78];

impl Socket {
    pub async fn open(address: SocketAddr, ask: Ask<'_>) -> Self {
        Self::try_open(address, ask).await.unwrap_or_else(|error| panic!("{ask:?}: {error}"))
    }

    pub async fn try_open(address: SocketAddr, ask: Ask<'_>) -> Result<Self, HandshakeError> {
        let mut request = ClientRequest::new(&address.to_string(), ask.target, generate_key())?;
        if !ask.protocols.is_empty() {
            request = request.with_protocols(ask.protocols)?;
        }
        if let Some(settings) = ask.deflate {
            request = request.with_deflate(settings)?;
        }
        within("a handshake", async {
            let tcp = TcpSocket::new_v4().unwrap();
            if let Some(bytes) = ask.receive_buffer {
                tcp.set_recv_buffer_size(bytes).unwrap();
            }
            let mut stream = tcp.connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(&request.to_bytes()?).await.unwrap();
            let mut buffer = BytesMut::new();
            let (len, handshake) = loop {
                if let Some(done) = request.read_response(&buffer)? {
                    break done;
                }
                if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    return Err(HandshakeError::Malformed);
                }
            };
            let _head = buffer.split_to(len);
            let settings = ask.deflate.unwrap_or_default();
            Ok(Self {
                stream,
                buffer,
                receiver: Receiver::new(Role::Client, MESSAGE_BYTES_MAX, handshake.deflate),
                deflating: handshake.deflate.and_then(|params| params.deflating(Role::Client, &settings)),
                inbox: VecDeque::new(),
                handshake,
                answers_pings: true,
            })
        })
        .await
    }

    /// Bytes as they are. A failure is seen when reading.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = within("room in the socket", self.stream.write_all(bytes)).await;
    }

    pub async fn send(&mut self, kind: MessageKind, payload: impl Into<Bytes>) {
        let outgoing = Outgoing::new(kind, payload);
        self.write(&outgoing.into_masked_frame(self.deflating.as_ref(), MASK)).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send(MessageKind::Text, text.to_owned()).await;
    }

    pub async fn send_binary(&mut self, bytes: impl Into<Bytes>) {
        self.send(MessageKind::Binary, bytes).await;
    }

    /// The next message; the connection must not end.
    pub async fn message(&mut self) -> Message {
        match self.message_or_end().await {
            Ok(message) => message,
            Err(end) => panic!("a message was expected: {end:?}"),
        }
    }

    /// The next message, or the end.
    pub async fn message_or_end(&mut self) -> Result<Message, End> {
        if let Some(message) = self.inbox.pop_front() {
            return Ok(message);
        }
        loop {
            match self.event().await {
                Some(Event::Message(message)) => return Ok(message),
                Some(Event::Ping(_) | Event::Pong(_)) => {}
                Some(Event::Close(close)) => {
                    let close =
                        close.map_or((1005, String::new()), |c| (c.code.into(), c.reason.to_string()));
                    return Err(End::Closed { code: close.0, reason: close.1 });
                }
                None => return Err(End::Lost),
            }
        }
    }

    /// Reads, and discards messages, until the connection ends.
    pub async fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.message_or_end().await {
                return end;
            }
        }
    }

    /// The next Ping of the server.
    pub async fn ping(&mut self) -> Bytes {
        loop {
            match self.event().await {
                Some(Event::Ping(payload)) => return payload,
                Some(_) => {}
                None => panic!("the connection ended before a ping came"),
            }
        }
    }

    /// Sends a Ping and waits for its Pong: everything sent before was handled by then.
    pub async fn barrier(&mut self) {
        self.write(&frame::ping(b"barrier", Some(MASK))).await;
        loop {
            match self.event().await {
                Some(Event::Pong(payload)) if payload == "barrier" => return,
                Some(Event::Message(message)) => self.inbox.push_back(message),
                Some(Event::Ping(_) | Event::Pong(_)) => {}
                end => panic!("the connection ended before a pong came: {end:?}"),
            }
        }
    }

    /// Says goodbye and waits for the answer.
    pub async fn close(mut self, code: u16) -> End {
        self.write(&frame::close(code.into(), "", Some(MASK))).await;
        self.end().await
    }

    /// Answers a Close of the server.
    pub async fn answer_close(&mut self) {
        self.write(&frame::close_without_code(Some(MASK))).await;
    }

    /// Whether the server ends the TCP connection once it is asked for no more.
    pub async fn tcp_end(&mut self) {
        within("the end of the TCP connection", async {
            while self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) > 0 {
                self.buffer.clear();
            }
        })
        .await;
    }

    async fn event(&mut self) -> Option<Event> {
        loop {
            match self.receiver.poll(&mut self.buffer) {
                Ok(Some(Event::Ping(payload))) => {
                    if self.answers_pings {
                        self.write(&frame::pong(&payload, Some(MASK))).await;
                    }
                    return Some(Event::Ping(payload));
                }
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(error) => panic!("the server breaks the protocol: {error}"),
            }
            let read = self.stream.read_buf(&mut self.buffer);
            if within("bytes of the server", read).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

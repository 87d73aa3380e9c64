//! One WebSocket connection over TCP: handshake, bytes to events, messages to masked frames. Its write buffer is
//! bounded by its user. Dropped, it says Close 1000 if nothing else was said. Spec: RFC 6455 §4.1, §5.1, §7.

use std::io;

use bytes::{Bytes, BytesMut};
use tidegate_protocol::raw::client::{Answer, Operation, SUBPROTOCOL};
use tidegate_protocol::websocket::client::{ClientRequest, HEAD_BYTES_MAX, HandshakeError, generate_key};
use tidegate_protocol::websocket::prepared::{Deflating, Outgoing};
use tidegate_protocol::websocket::{self, CloseCode, CloseFrame, Message, Receiver, Role, deflate, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{ConnectError, Disconnect};
use crate::options::{Compression, Options};
use crate::url::Endpoint;

/// A connection that the broker has welcomed.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    receiver: Receiver,
    input: BytesMut,
    output: BytesMut,
    output_bytes_max: usize,
    /// The answer to the latest ping, while the output is full.
    pong: Option<Bytes>,
    deflating: Option<Deflating>,
    is_close_sent: bool,
    /// From `welcome`.
    pub(crate) message_bytes_max: usize,
}

/// What is read from the socket at once.
const READ_BYTES: usize = 16 * 1024;

/// What is discarded of unread input at the end, so that the kernel does not answer it with a reset that takes
/// our Close with it.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

/// What is kept of the text that explains a refused handshake.
const REFUSAL_BYTES_MAX: usize = 2048;

impl Connection {
    /// Connects, shakes hands, and waits for the broker's `welcome`.
    pub(crate) async fn open(endpoint: &Endpoint, options: &Options) -> Result<Self, ConnectError> {
        let opening = async {
            let stream = TcpStream::connect(&endpoint.address).await?;
            stream.set_nodelay(true)?;
            let mut connection = Self::shake_hands(stream, endpoint, options).await?;
            connection.greet().await?;
            Ok(connection)
        };
        timeout(options.connect_timeout, opening).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn shake_hands(
        mut stream: TcpStream,
        endpoint: &Endpoint,
        options: &Options,
    ) -> Result<Self, ConnectError> {
        let settings = deflate::Settings {
            enabled: options.compression == Compression::Offered,
            ..deflate::Settings::default()
        };
        let request = ClientRequest::new(&endpoint.host, &endpoint.path_and_query, generate_key())
            .and_then(|request| request.with_protocols(&[SUBPROTOCOL]))
            .and_then(|request| request.with_deflate(settings))
            .map_err(ConnectError::Handshake)?;
        stream.write_all(&request.to_bytes().map_err(ConnectError::Handshake)?).await?;

        let mut input = BytesMut::with_capacity(READ_BYTES);
        let agreed = loop {
            if stream.read_buf(&mut input).await? == 0 {
                return Err(Disconnect::Eof.into());
            }
            match request.read_response(&input) {
                Ok(None) => {}
                Ok(Some((head_len, agreed))) => {
                    let _ = input.split_to(head_len);
                    break agreed;
                }
                Err(HandshakeError::Refused(status)) => {
                    let body = read_refusal(&mut stream, input).await;
                    return Err(ConnectError::Refused { status: status.as_u16(), body });
                }
                Err(error) => return Err(ConnectError::Handshake(error)),
            }
        };
        if agreed.protocol.is_none() {
            return Err(ConnectError::NoSubprotocol);
        }
        let limit = options.limits.message_bytes_max;
        Ok(Self {
            stream,
            receiver: Receiver::new(Role::Client, limit, agreed.deflate),
            input,
            output: BytesMut::new(),
            output_bytes_max: options.limits.output_bytes_max,
            pong: None,
            deflating: agreed.deflate.and_then(|params| params.deflating(Role::Client, &settings)),
            is_close_sent: false,
            message_bytes_max: usize::MAX,
        })
    }

    /// `hello` and `welcome`: a connection that the broker is about to close again does not count as one.
    async fn greet(&mut self) -> Result<(), ConnectError> {
        self.send(Operation::Hello {}.encode());
        loop {
            self.flush().await?;
            while let Some(message) = self.poll_message()? {
                match Answer::decode(&message).map_err(Disconnect::from)? {
                    Answer::Welcome(welcome) => {
                        let limit = welcome.message_bytes_max.and_then(|limit| usize::try_from(limit).ok());
                        self.message_bytes_max = limit.unwrap_or(usize::MAX);
                        return Ok(());
                    }
                    Answer::Err { refused, .. } => return Err(ConnectError::Hello(refused)),
                    _ => {}
                }
            }
            self.readable().await?;
            self.read()?;
        }
    }

    /// The payload of the next message that is here. Answers pings and the peer's Close.
    pub(crate) fn poll_message(&mut self) -> Result<Option<Bytes>, Disconnect> {
        while let Some(event) = self.receiver.poll(&mut self.input)? {
            match event {
                websocket::Event::Message(Message::Binary(payload)) => return Ok(Some(payload)),
                websocket::Event::Message(Message::Text(_)) => return Err(Disconnect::TextFrame),
                websocket::Event::Ping(payload) => {
                    self.pong = Some(payload);
                    self.put_pong();
                }
                websocket::Event::Pong(_) => {}
                websocket::Event::Close(close) => return Err(self.handle_close(close)),
            }
        }
        Ok(None)
    }

    /// RFC 6455 §5.5.1: a Close is answered with the same code.
    fn handle_close(&mut self, close: Option<CloseFrame>) -> Disconnect {
        let Some(close) = close else {
            if !self.is_close_sent {
                self.put_frame(&frame::close_without_code(Some(mask())));
                self.is_close_sent = true;
            }
            return Disconnect::Closed { code: None, reason: String::new() };
        };
        self.send_close(close.code, "");
        Disconnect::Closed { code: Some(close.code.into()), reason: close.reason.as_str().to_owned() }
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, outgoing: Outgoing) {
        self.put_frame(&outgoing.into_masked_frame(self.deflating.as_ref(), mask()));
    }

    pub(crate) fn send_ping(&mut self) {
        self.put_frame(&frame::ping(b"", Some(mask())));
    }

    /// Queues a Close; what is queued after it is not sent.
    pub(crate) fn send_close(&mut self, code: CloseCode, reason: &str) {
        self.put_frame(&frame::close(code, reason, Some(mask())));
        self.is_close_sent = true;
    }

    fn put_frame(&mut self, frame: &[u8]) {
        // RFC 6455 §5.5.1: nothing follows a Close.
        if !self.is_close_sent {
            self.output.extend_from_slice(frame);
        }
    }

    /// RFC 6455 §5.5.3: only the most recent ping has to be answered. So a peer that pings and does not read cannot
    /// make the output grow.
    fn put_pong(&mut self) {
        if self.output.len() < self.output_bytes_max
            && let Some(payload) = self.pong.take()
        {
            self.put_frame(&frame::pong(&payload, Some(mask())));
        }
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Waits until there is something to read, the end included. Cancel safe.
    pub(crate) async fn readable(&self) -> Result<(), Disconnect> {
        self.stream.readable().await.map_err(Disconnect::Io)
    }

    /// Waits until the socket takes more. Cancel safe.
    pub(crate) async fn writable(&self) -> Result<(), Disconnect> {
        self.stream.writable().await.map_err(Disconnect::Io)
    }

    /// Takes what is there without waiting; whether anything was.
    pub(crate) fn read(&mut self) -> Result<bool, Disconnect> {
        self.input.reserve(READ_BYTES);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(Disconnect::Eof),
            Ok(_) => Ok(true),
            Err(error) if is_transient(&error) => Ok(false),
            Err(error) => Err(Disconnect::Io(error)),
        }
    }

    /// The broker's Close, if it lies here unread although the socket has failed: it says more than the failure.
    pub(crate) async fn last_words(&mut self) -> Option<Disconnect> {
        for _ in 0..DISCARD_BYTES_MAX / READ_BYTES {
            loop {
                match self.poll_message() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(closed @ Disconnect::Closed { .. }) => return Some(closed),
                    Err(_) => return None,
                }
            }
            self.readable().await.ok()?;
            self.read().ok()?;
        }
        None
    }

    /// Gives the socket what it takes without waiting.
    pub(crate) fn write(&mut self) -> Result<(), Disconnect> {
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(taken) => {
                    let _ = self.output.split_to(taken);
                    self.put_pong();
                }
                Err(error) if is_transient(&error) => return Ok(()),
                Err(error) => return Err(Disconnect::Io(error)),
            }
        }
        // An idle connection keeps no buffer.
        self.output = BytesMut::new();
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Disconnect> {
        self.write()?;
        while !self.output.is_empty() {
            self.writable().await?;
            self.write()?;
        }
        Ok(())
    }

    /// The closing handshake: sends what is queued and Close 1000, and discards until the broker's own Close.
    /// `Err` is how else it ended.
    pub(crate) async fn close(mut self) -> Result<(), Disconnect> {
        self.send_close(CloseCode::Normal, "");
        self.flush().await?;
        loop {
            loop {
                match self.poll_message() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(Disconnect::Closed { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            self.readable().await?;
            self.read()?;
        }
    }
}

impl Drop for Connection {
    /// Without waiting: what the socket takes of the queue and the Close goes, the rest is lost.
    fn drop(&mut self) {
        self.send_close(CloseCode::Normal, "");
        if self.write().is_err() {
            return;
        }
        let mut discarded = [0; READ_BYTES];
        for _ in 0..DISCARD_BYTES_MAX / READ_BYTES {
            if !matches!(self.stream.try_read(&mut discarded), Ok(1..)) {
                return;
            }
        }
    }
}

/// RFC 6455 §10.3: not to be guessed by who chooses the payload.
fn mask() -> frame::Mask {
    rand::random()
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The beginning of the body that came with a refusal. The caller's timeout bounds the wait.
async fn read_refusal(stream: &mut TcpStream, mut input: BytesMut) -> String {
    let head_len = loop {
        match input.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None if input.len() > HEAD_BYTES_MAX => return String::new(),
            None => {}
        }
        if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
            return String::new();
        }
    };
    let (head, _) = input.split_at(head_len.min(input.len()));
    let body_len = content_length(head).unwrap_or(REFUSAL_BYTES_MAX).min(REFUSAL_BYTES_MAX);
    while input.len() < head_len + body_len {
        if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
            break;
        }
    }
    let body = input.get(head_len..).unwrap_or_default();
    String::from_utf8_lossy(body.get(..body_len).unwrap_or(body)).trim().to_owned()
}

fn content_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}

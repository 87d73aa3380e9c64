//! A STOMP client: frames over a [`Socket`].

use bytes::{Bytes, BytesMut};
use tidegate_protocol::stomp::Version;
use tidegate_protocol::stomp::codec::{Decoder, Limits};
use tidegate_protocol::stomp::frame::{Command, Frame};

use super::Broker;
use super::socket::{Ask, End, Message, MessageKind, Socket};

pub struct Stomp {
    pub socket: Socket,
    pub version: Version,
    decoder: Decoder,
    buffer: BytesMut,
    next_receipt: u32,
    /// The kind of WebSocket message that the last frame came in.
    pub last_kind: MessageKind,
}

const LIMITS: Limits = Limits {
    headers_max: 1000,
    head_bytes_max: 1024 * 1024,
    body_bytes_max: 16 * 1024 * 1024,
    frame_bytes_max: 17 * 1024 * 1024,
};

impl Stomp {
    /// A connection before its CONNECT.
    pub async fn open(broker: &Broker, version: Version, ask: Ask<'_>) -> Self {
        let token = match version {
            Version::V1_0 => "v10.stomp",
            Version::V1_1 => "v11.stomp",
            Version::V1_2 => "v12.stomp",
        };
        let socket = Socket::open(broker.address, Ask { protocols: &[token], ..ask }).await;
        Self {
            socket,
            version,
            decoder: Decoder::new(LIMITS),
            buffer: BytesMut::new(),
            next_receipt: 0,
            last_kind: MessageKind::Text,
        }
    }

    pub async fn connected(broker: &Broker, version: Version) -> Self {
        let mut client = Self::open(broker, version, Ask::default()).await;
        client.connect(&[]).await;
        client
    }

    /// Sends CONNECT with these headers too, and expects CONNECTED.
    pub async fn connect(&mut self, headers: &[(&str, &str)]) -> Frame {
        let mut frame = Frame::new(Command::Connect)
            .with_header("accept-version", self.version.as_str())
            .with_header("host", "test");
        for (name, value) in headers {
            frame = frame.with_header(*name, *value);
        }
        self.send(&frame).await;
        let connected = self.frame().await;
        assert_eq!(connected.command, Command::Connected, "{connected:?}");
        assert_eq!(connected.header("version"), Some(self.version.as_str()));
        self.decoder.set_version(self.version, LIMITS);
        connected
    }

    pub async fn send(&mut self, frame: &Frame) {
        let mut out = BytesMut::new();
        frame.encode(self.version, &mut out);
        let is_text = std::str::from_utf8(&out).is_ok();
        let kind = if is_text { MessageKind::Text } else { MessageKind::Binary };
        self.socket.send(kind, out.freeze()).await;
    }

    /// A SEND that is not yet sent.
    pub fn message(topic: &str, payload: impl Into<Bytes>) -> Frame {
        let payload = payload.into();
        Frame::new(Command::Send)
            .with_header("destination", format!("/topic/{topic}"))
            .with_header("content-length", payload.len().to_string())
            .with_body(payload)
    }

    /// Sends a frame with a receipt and gives what came before it.
    pub async fn send_for_receipt(&mut self, frame: Frame) -> Vec<Frame> {
        self.next_receipt += 1;
        let receipt = format!("r{}", self.next_receipt);
        self.send(&frame.with_header("receipt", receipt.clone())).await;
        let mut before = Vec::new();
        loop {
            let frame = self.frame().await;
            if frame.command == Command::Receipt {
                assert_eq!(frame.header("receipt-id"), Some(&*receipt));
                return before;
            }
            assert_eq!(frame.command, Command::Message, "{frame:?}");
            before.push(frame);
        }
    }

    /// SUBSCRIBE for a filter, under its own text as id. Nothing may come before its RECEIPT.
    pub async fn subscribe(&mut self, filter: &str, ack: &str) {
        self.subscribe_as(filter, filter, ack).await;
    }

    /// The same under another id.
    pub async fn subscribe_as(&mut self, id: &str, filter: &str, ack: &str) {
        let frame = Frame::new(Command::Subscribe)
            .with_header("id", id.to_owned())
            .with_header("destination", format!("/topic/{filter}"))
            .with_header("ack", ack);
        let before = self.send_for_receipt(frame).await;
        assert!(before.is_empty(), "before the RECEIPT: {before:?}");
    }

    pub async fn unsubscribe(&mut self, filter: &str) -> Vec<Frame> {
        self.send_for_receipt(Frame::new(Command::Unsubscribe).with_header("id", filter.to_owned())).await
    }

    /// The next frame, which must be a MESSAGE.
    pub async fn delivery(&mut self) -> Frame {
        let frame = self.frame().await;
        assert_eq!(frame.command, Command::Message, "{frame:?}");
        frame
    }

    pub async fn frame(&mut self) -> Frame {
        match self.frame_or_end().await {
            Ok(frame) => frame,
            Err(end) => panic!("a frame was expected: {end:?}"),
        }
    }

    pub async fn frame_or_end(&mut self) -> Result<Frame, End> {
        loop {
            let decoded = self.decoder.decode(&mut self.buffer);
            if let Some(frame) = decoded.unwrap_or_else(|error| panic!("{error}: {:?}", self.buffer)) {
                return Ok(frame);
            }
            let message = self.socket.message_or_end().await?;
            self.last_kind = message.kind();
            match message {
                Message::Text(text) => self.buffer.extend_from_slice(text.as_bytes()),
                Message::Binary(bytes) => self.buffer.extend_from_slice(&bytes),
            }
        }
    }

    /// ERROR, if one comes, and how the connection ends; messages are skipped.
    pub async fn end(&mut self) -> (Option<Frame>, End) {
        let mut error = None;
        loop {
            match self.frame_or_end().await {
                Ok(frame) if frame.command == Command::Error => error = Some(frame),
                Ok(other) => assert!(error.is_none(), "after ERROR: {other:?}"),
                Err(end) => return (error, end),
            }
        }
    }
}

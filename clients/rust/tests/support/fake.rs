//! A server that does what a test says, frame by frame.

use std::future::poll_fn;
use std::task::Poll;

use bytes::BytesMut;
use serde_json::{Value, json};
use tidegate_protocol::websocket::prepared::Outgoing;
use tidegate_protocol::websocket::{CloseCode, Event, Message, MessageKind, Receiver, Role, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tungstenite::handshake::derive_accept_key;

use super::soon;

/// A listener.
pub struct Fake {
    listener: TcpListener,
    pub url: String,
}

/// The server's end of one connection.
pub struct Peer {
    pub stream: TcpStream,
    receiver: Receiver,
    input: BytesMut,
}

impl Fake {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// Accepts, shakes hands, answers `hello`.
    pub async fn accept(&self) -> Peer {
        let mut peer = self.accept_handshake("Sec-WebSocket-Protocol: raw.msgpack.v1\r\n").await;
        assert_eq!(peer.operation().await, json!({"op": "hello"}));
        peer.say(json!({"op": "welcome", "v": 1, "limits": {"message": 1000}})).await;
        peer
    }

    /// Whether somebody connects once every task has had its turns. Does not wait, so no clock moves.
    pub async fn is_called(&self) -> bool {
        for _ in 0..1000 {
            let poll = |context: &mut std::task::Context<'_>| Poll::Ready(self.listener.poll_accept(context));
            if poll_fn(poll).await.is_ready() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    }

    /// Accepts and shakes hands, with these header lines in the answer.
    pub async fn accept_handshake(&self, headers: &str) -> Peer {
        let (mut stream, request) = self.accept_request().await;
        let key = header(&request, "sec-websocket-key");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{headers}\r\n",
            derive_accept_key(key.as_bytes())
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        Peer { stream, receiver: Receiver::new(Role::Server, 1 << 20, None), input: BytesMut::new() }
    }

    /// Accepts and answers the handshake with this.
    pub async fn accept_and_answer(&self, answer: &str) {
        let (mut stream, _) = self.accept_request().await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    async fn accept_request(&self) -> (TcpStream, String) {
        let (mut stream, _) = soon(self.listener.accept()).await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(soon(stream.read_buf(&mut request)).await.unwrap(), 0, "the request ended early");
        }
        (stream, String::from_utf8(request).unwrap())
    }
}

fn header<'a>(request: &'a str, name: &str) -> &'a str {
    let mut lines = request.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(line_name, _)| line_name.eq_ignore_ascii_case(name)).unwrap().1
}

impl Peer {
    /// The next frame of the client; `None` when it has gone.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.receiver.poll(&mut self.input).unwrap() {
                return Some(event);
            }
            if !matches!(soon(self.stream.read_buf(&mut self.input)).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// The next message of the client.
    pub async fn operation(&mut self) -> Value {
        match self.next().await {
            Some(Event::Message(Message::Binary(bytes))) => rmp_serde::from_slice(&bytes).unwrap(),
            other => panic!("expected an operation, not {other:?}"),
        }
    }

    /// Answers the next operation with `ok`, and hands it out.
    pub async fn grant(&mut self) -> Value {
        let operation = self.operation().await;
        self.say(json!({"op": "ok", "id": operation["id"], "matched": 1})).await;
        operation
    }

    /// The code and reason of the client's Close.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Event::Close(Some(close))) => {
                    return (close.code.into(), close.reason.as_str().to_owned());
                }
                Some(_) => {}
                None => panic!("the client went without a Close"),
            }
        }
    }

    pub async fn say(&mut self, operation: Value) {
        let bytes = rmp_serde::to_vec_named(&operation).unwrap();
        self.send(&Outgoing::new(MessageKind::Binary, bytes).into_frame(None).0).await;
    }

    pub async fn message(&mut self, topic: &str, text: &str) {
        self.say(json!({"op": "msg", "topic": topic, "text": text})).await;
    }

    pub async fn close(&mut self, code: u16, reason: &str) {
        self.send(&frame::close(CloseCode::from(code), reason, None)).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }
}

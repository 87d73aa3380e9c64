//! Uncompressed traffic against tungstenite's own `WebSocket` as the other end, in both directions.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod websocket_support;

use std::io::{self, Read, Write};

use proptest::prelude::*;
use tidegate_protocol::websocket::prepared::{Outgoing, Prepared};
use tidegate_protocol::websocket::{CloseCode, CloseFrame, Message, Receiver, Role, frame};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{self, WebSocket};
use websocket_support::*;

/// A stream in memory: what was written, and what is there to be read.
#[derive(Default)]
struct Pipe {
    written: Vec<u8>,
    readable: io::Cursor<Vec<u8>>,
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.readable.read(out)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn any_event() -> impl Strategy<Value = Seen> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..125);
    prop_oneof![
        any::<String>().prop_map(Seen::Text),
        bytes.clone().prop_map(Seen::Binary),
        (60_000..70_000_usize).prop_map(|len| Seen::Binary(vec![5; len])),
        bytes.clone().prop_map(Seen::Ping),
        bytes.prop_map(Seen::Pong),
    ]
}

fn close_frame() -> CloseFrame {
    CloseFrame { code: CloseCode::Away, reason: "bye".into() }
}

/// Lets tungstenite write the events, the messages cut into `fragments`.
fn written_by_the_oracle(role: protocol::Role, events: &[Seen], fragments: usize) -> Vec<u8> {
    let mut oracle = WebSocket::from_raw_socket(Pipe::default(), role, None);
    for event in events {
        let (opcode, payload) = match event {
            Seen::Text(text) => (Data::Text, text.as_bytes()),
            Seen::Binary(bytes) => (Data::Binary, &bytes[..]),
            Seen::Ping(payload) => {
                oracle.send(tungstenite::Message::Ping(payload.clone().into())).unwrap();
                continue;
            }
            Seen::Pong(payload) => {
                oracle.send(tungstenite::Message::Pong(payload.clone().into())).unwrap();
                continue;
            }
            _ => continue,
        };
        let size = (payload.len() / fragments).max(1);
        let mut chunks = payload.chunks(size).peekable();
        let mut opcode = opcode;
        if chunks.peek().is_none() {
            let frame = Frame::message(Vec::new(), OpCode::Data(opcode), true);
            oracle.send(tungstenite::Message::Frame(frame)).unwrap();
        }
        while let Some(chunk) = chunks.next() {
            let frame = Frame::message(chunk.to_vec(), OpCode::Data(opcode), chunks.peek().is_none());
            oracle.send(tungstenite::Message::Frame(frame)).unwrap();
            opcode = Data::Continue;
        }
    }
    oracle.close(Some(close_frame())).unwrap();
    oracle.get_ref().written.clone()
}

/// What tungstenite reads from our bytes.
fn read_by_the_oracle(role: protocol::Role, bytes: Vec<u8>) -> Vec<Seen> {
    let pipe = Pipe { readable: io::Cursor::new(bytes), ..Pipe::default() };
    let mut oracle = WebSocket::from_raw_socket(pipe, role, None);
    let mut all = Vec::new();
    while let Ok(message) = oracle.read() {
        all.push(match message {
            tungstenite::Message::Text(text) => Seen::Text(text.to_string()),
            tungstenite::Message::Binary(bytes) => Seen::Binary(bytes.to_vec()),
            tungstenite::Message::Ping(payload) => Seen::Ping(payload.to_vec()),
            tungstenite::Message::Pong(payload) => Seen::Pong(payload.to_vec()),
            tungstenite::Message::Close(frame) => {
                Seen::Close(frame.map(|frame| (frame.code.into(), frame.reason.to_string())))
            }
            tungstenite::Message::Frame(_) => unreachable!("reading yields no frames"),
        });
    }
    all
}

fn written_by_us(events: &[Seen], mask: Option<frame::Mask>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        let message = match event {
            Seen::Text(text) => Message::Text(text.as_str().into()),
            Seen::Binary(bytes) => Message::Binary(bytes.clone().into()),
            Seen::Ping(payload) => {
                bytes.extend(frame::ping(payload, mask));
                continue;
            }
            Seen::Pong(payload) => {
                bytes.extend(frame::pong(payload, mask));
                continue;
            }
            _ => continue,
        };
        let kind = message.kind();
        let payload = message.into_bytes();
        match mask {
            Some(mask) => bytes.extend(Outgoing::new(kind, payload).into_masked_frame(None, mask)),
            None => bytes.extend(Prepared::new(kind, &[&payload]).bytes(None)),
        }
    }
    bytes.extend(frame::close(close_frame().code, &close_frame().reason, mask));
    bytes
}

proptest! {
    #[test]
    fn we_read_what_tungstenite_writes(
        mut events in proptest::collection::vec(any_event(), 0..8),
        fragments in 1..5_usize,
        piece in 1..5000_usize,
    ) {
        for (theirs, ours) in [(protocol::Role::Client, Role::Server), (protocol::Role::Server, Role::Client)] {
            let bytes = written_by_the_oracle(theirs, &events, fragments);
            events.push(Seen::Close(Some((1001, "bye".into()))));
            let mut receiver = Receiver::new(ours, MIB, None);
            prop_assert!(receive(&mut receiver, bytes.chunks(piece)) == events);
            events.pop();
        }
    }

    #[test]
    fn tungstenite_reads_what_we_write(
        mut events in proptest::collection::vec(any_event(), 0..8),
        mask in any::<[u8; 4]>(),
    ) {
        for (theirs, mask) in [(protocol::Role::Client, None), (protocol::Role::Server, Some(mask))] {
            let bytes = written_by_us(&events, mask);
            events.push(Seen::Close(Some((1001, "bye".into()))));
            prop_assert!(read_by_the_oracle(theirs, bytes) == events);
            events.pop();
        }
    }

    #[test]
    fn random_bytes_never_panic_and_say_the_same_however_they_arrive(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        at in 0..60_usize,
    ) {
        let params = Some(tidegate_protocol::websocket::deflate::Params::default());
        for (role, deflate) in [(Role::Server, None), (Role::Server, params), (Role::Client, params)] {
            let new = || Receiver::new(role, 1000, deflate);
            let (front, back) = bytes.split_at(at.min(bytes.len()));
            let whole = receive(&mut new(), [&bytes[..]]);
            prop_assert_eq!(&receive(&mut new(), [front, back]), &whole);
        }
    }
}

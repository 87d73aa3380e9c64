//! What the WebSocket suites share: frames as a client sends them, and what a receiver makes of bytes.
#![allow(dead_code, reason = "each suite uses a part of it")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

use bytes::{Bytes, BytesMut};
use tidegate_protocol::websocket::frame::apply_mask;
use tidegate_protocol::websocket::{Event, Message, ReceiveError, Receiver, Role, deflate};

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const CONTINUE: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const MIB: usize = 1 << 20;

/// What came out of a receiver, in a form that can be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    /// The code of the Close frame that an error calls for.
    Fail(u16),
}

pub(crate) fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

pub(crate) fn seen(result: Result<Event, ReceiveError>) -> Seen {
    match result {
        Ok(Event::Message(Message::Text(text))) => Seen::Text(text.to_string()),
        Ok(Event::Message(Message::Binary(bytes))) => Seen::Binary(bytes.to_vec()),
        Ok(Event::Ping(payload)) => Seen::Ping(payload.to_vec()),
        Ok(Event::Pong(payload)) => Seen::Pong(payload.to_vec()),
        Ok(Event::Close(frame)) => {
            Seen::Close(frame.map(|frame| (frame.code.into(), frame.reason.to_string())))
        }
        Err(error) => Seen::Fail(error.close_code().into()),
    }
}

/// A frame with `first` as its first byte, masked.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = server_frame(first, payload);
    let header_len = frame.len() - payload.len();
    frame[1] |= 0x80;
    apply_mask(&mut frame[header_len..], mask, 0);
    frame.splice(header_len..header_len, mask);
    frame
}

/// The same, not masked.
pub(crate) fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(u8::try_from(len).unwrap()),
        len @ 126..=0xffff => {
            frame.push(126);
            frame.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// Everything that a receiver says when the input arrives in these pieces.
pub(crate) fn receive<'a>(receiver: &mut Receiver, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut buffer = BytesMut::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(event) = receiver.poll(&mut buffer).transpose() {
            let is_error = event.is_err();
            all.push(seen(event));
            if is_error {
                assert_eq!(receiver.poll(&mut buffer), Ok(None), "an error ends it");
                return all;
            }
        }
    }
    all
}

pub(crate) fn server(deflate: Option<deflate::Params>) -> Receiver {
    Receiver::new(Role::Server, 16 * MIB, deflate)
}

/// The one way in which inputs are tried: at once, byte by byte (long ones in odd pieces), and at every split.
pub(crate) fn check(name: &str, new: impl Fn() -> Receiver, input: &[u8], expected: &[Seen]) {
    let step = if input.len() > 20_000 { 997 } else { 1 };
    assert_eq!(receive(&mut new(), [input]), expected, "{name}, at once");
    assert_eq!(receive(&mut new(), input.chunks(step)), expected, "{name}, in pieces of {step}");
    if input.len() <= 300 {
        for at in 0..=input.len() {
            let (front, back) = input.split_at(at);
            assert_eq!(receive(&mut new(), [front, back]), expected, "{name}, split at {at}");
        }
    }
}

/// Raw DEFLATE data that ends with a sync flush, without the empty block.
pub(crate) fn deflated(message: &[u8]) -> Vec<u8> {
    let mut stream = flate2::Compress::new(flate2::Compression::new(6), false);
    let mut out = Vec::with_capacity(message.len() + 1024);
    stream.compress_vec(message, &mut out, flate2::FlushCompress::Sync).unwrap();
    assert!(out.len() < out.capacity());
    out.truncate(out.len() - 4);
    out
}

/// What flate2 alone makes of a compressed message, with a window of 15 bits.
pub(crate) fn inflated(message: &[u8], len_max: usize) -> Vec<u8> {
    let mut stream = flate2::Decompress::new(false);
    let mut out = Vec::with_capacity(len_max + 64);
    let input = [message, &[0, 0, 0xff, 0xff]].concat();
    stream.decompress_vec(&input, &mut out, flate2::FlushDecompress::Sync).unwrap();
    assert_eq!(stream.total_in(), input.len() as u64);
    out
}

/// First byte and payload of an unmasked frame that is all there is.
pub(crate) fn split_frame(frame: &[u8]) -> (u8, Bytes) {
    let header_len = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let payload = Bytes::copy_from_slice(&frame[header_len..]);
    assert_eq!(server_frame(frame[0], &payload), frame, "the length is right and minimal");
    (frame[0], payload)
}

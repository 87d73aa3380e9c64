//! Any bytes as a compressed message keep to the limit; any message, compressed in each of our ways, arrives
//! as it was; any extension header is negotiated without a panic.

#![no_main]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use tidegate_protocol::websocket::deflate::{self, Params, Settings};
use tidegate_protocol::websocket::prepared::{Body, Deflating, Outgoing, Prepared};
use tidegate_protocol::websocket::{Event, Message, MessageKind, Receiver, Role};

const ALONE: Params = Params {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: None,
    client_max_window_bits: None,
};

fn check_arrives(receiver: &mut Receiver, frame: &[u8], message: &[u8]) {
    let event = receiver.poll(&mut BytesMut::from(frame));
    assert_eq!(event, Ok(Some(Event::Message(Message::Binary(Bytes::copy_from_slice(message))))));
}

fuzz_target!(|input: (u8, u8, &[u8], &[u8])| {
    let (window, level, head, body) = input;
    if let Ok(header) = std::str::from_utf8(body) {
        let settings = Settings::default();
        if let Some(params) = deflate::negotiate([header], &settings) {
            let answer = params.to_string();
            assert!(deflate::negotiate([answer.as_str()], &settings).is_some());
        }
        let _ = deflate::accept_response([header], &settings);
    }

    // The bytes as the payload of a compressed binary frame.
    let mut receiver = Receiver::new(Role::Client, 5000, Some(ALONE));
    let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut compressed = match u8::try_from(len) {
        Ok(len @ 0..=125) => BytesMut::from(&[0xc2, len][..]),
        _ => BytesMut::from(&[&[0xc2, 126][..], &len.to_be_bytes()].concat()[..]),
    };
    compressed.extend_from_slice(body);
    if let Ok(Some(Event::Message(message))) = receiver.poll(&mut compressed) {
        assert!(message.len() <= 5000);
    }

    let deflating = Deflating { window_bits: 8 + window % 8, level: 1 + level % 9, min_size: 0 };
    let mut receiver = Receiver::new(Role::Client, usize::MAX, Some(ALONE));
    let message = [head, body].concat();
    check_arrives(
        &mut receiver,
        Prepared::new(MessageKind::Binary, &[head, body]).bytes(Some(&deflating)),
        &message,
    );
    let body = Some(Arc::new(Body::new(Bytes::copy_from_slice(body))));
    let outgoing = Outgoing { kind: MessageKind::Binary, head: Bytes::copy_from_slice(head), body };
    let (front, rest) = outgoing.clone().into_frame(Some(&deflating));
    check_arrives(&mut receiver, &[&front[..], rest.as_deref().unwrap_or_default()].concat(), &message);

    let takeover = Settings { server_no_context_takeover: false, min_size: 0, ..Settings::default() };
    let params = Params { server_no_context_takeover: false, ..ALONE };
    let mut receiver = Receiver::new(Role::Client, usize::MAX, Some(params));
    if let Some(mut deflater) = params.takeover_deflater(Role::Server, &takeover) {
        for _ in 0..3 {
            check_arrives(&mut receiver, &deflater.frame(&outgoing), &message);
        }
    }
});

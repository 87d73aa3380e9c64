//! Any bytes to a receiver: no panic, no message above the limit, and the same events however they arrive.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tidegate_protocol::websocket::deflate::Params;
use tidegate_protocol::websocket::{Event, Receiver, Role};

const MESSAGE_BYTES_MAX: usize = 4096;

fn receive(mut receiver: Receiver, pieces: &[&[u8]]) -> Vec<Option<Event>> {
    let (mut all, mut buffer) = (Vec::new(), BytesMut::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(event) = receiver.poll(&mut buffer).transpose() {
            if let Ok(Event::Message(message)) = &event {
                assert!(message.len() <= MESSAGE_BYTES_MAX);
            }
            // Which of two faults is seen first may depend on the pieces; that it fails, and after what, not.
            all.push(event.ok());
        }
    }
    all
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (options, at, bytes) = input;
    let role = if options & 1 == 0 { Role::Server } else { Role::Client };
    let alone = options & 4 != 0;
    let params =
        Params { client_no_context_takeover: alone, server_no_context_takeover: alone, ..Params::default() };
    let new = || Receiver::new(role, MESSAGE_BYTES_MAX, (options & 2 != 0).then_some(params));
    let (front, back) = bytes.split_at(usize::from(at).min(bytes.len()));
    let whole = receive(new(), &[bytes]);
    assert_eq!(receive(new(), &[front, back]), whole);
    let single = bytes.chunks(1).collect::<Vec<_>>();
    assert_eq!(receive(new(), &single), whole);
});

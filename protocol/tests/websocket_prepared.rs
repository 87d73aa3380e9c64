//! Frames on their way out, plain and compressed, against flate2 as the receiver.

mod websocket_support;

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_protocol::websocket::prepared::{Body, Deflating, Outgoing, Prepared};
use tidegate_protocol::websocket::{MessageKind, Receiver, Role};
use websocket_support::*;

const ALL: Deflating = Deflating { window_bits: 15, level: 1, min_size: 0 };

/// Bytes that no compressor makes shorter.
fn noise(len: usize) -> Vec<u8> {
    let step = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let states = std::iter::successors(Some(7_u64), step);
    states.map(|state| state.to_be_bytes()[0]).take(len).collect()
}

fn outgoing(head: &[u8], body: Option<&[u8]>) -> Outgoing {
    let body = body.map(|body| Arc::new(Body::new(Bytes::copy_from_slice(body))));
    Outgoing { kind: MessageKind::Binary, head: Bytes::copy_from_slice(head), body }
}

/// The frame in one piece, checked against its message; whether it is compressed.
fn check_outgoing(head: &[u8], body: Option<&[u8]>, deflating: Option<&Deflating>) -> bool {
    let message = [head, body.unwrap_or_default()].concat();
    let (front, rest) = outgoing(head, body).into_frame(deflating);
    let (first, payload) = split_frame(&[&front[..], rest.as_deref().unwrap_or_default()].concat());
    let is_compressed = first & RSV1 != 0;
    assert_eq!(first, FIN | BINARY | if is_compressed { RSV1 } else { 0 });
    let received = if is_compressed { inflated(&payload, message.len()) } else { payload.to_vec() };
    assert!(received == message, "{} + {:?}", head.len(), body.map(<[u8]>::len));

    let masked = outgoing(head, body).into_masked_frame(deflating, [9, 8, 7, 6]);
    let params = deflating.map(|_| tidegate_protocol::websocket::deflate::Params {
        client_no_context_takeover: true,
        ..Default::default()
    });
    let mut receiver = Receiver::new(Role::Server, 16 * MIB, params);
    assert!(receive(&mut receiver, [&masked[..]]) == [Seen::Binary(message)], "masked");
    is_compressed
}

#[test]
fn plain_frames_have_their_golden_bytes() {
    let prepared = Prepared::new(MessageKind::Text, &[b"Hel", b"", b"lo"]);
    assert_eq!(prepared.frame(), &b"\x81\x05Hello"[..]);
    assert_eq!((prepared.message(), prepared.kind()), (&b"Hello"[..], MessageKind::Text));
    assert_eq!(prepared.memory_bytes(), 7);
    for (len, header) in [
        (0, &b"\x82\x00"[..]),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ] {
        let message = vec![7; len];
        let expected = [header, &message].concat();
        let prepared = Prepared::new(MessageKind::Binary, &[&message]);
        assert!(prepared.frame() == &expected);
        assert_eq!((prepared.message(), prepared.kind()), (&message[..], MessageKind::Binary));
        let (front, rest) = outgoing(b"", Some(&message)).into_frame(None);
        assert!([&front[..], rest.as_deref().unwrap_or_default()].concat() == expected);
    }
}

#[test]
fn a_prepared_message_is_compressed_once_and_only_if_that_pays() {
    let json = "{\"plant\":17,\"temp\":21.5}".repeat(20);
    let prepared = Prepared::new(MessageKind::Text, &[json.as_bytes()]);
    let deflating = Deflating { min_size: 256, ..ALL };
    let compressed = prepared.bytes(Some(&deflating));
    assert_eq!(compressed.as_ptr(), prepared.bytes(Some(&deflating)).as_ptr());
    let (first, payload) = split_frame(compressed);
    assert_eq!(first, FIN | RSV1 | TEXT);
    assert_eq!(inflated(&payload, json.len()), json.as_bytes());
    assert_eq!(prepared.memory_bytes(), prepared.frame().len() + compressed.len());
    assert_eq!(prepared.bytes(None), prepared.frame());
    let noise = noise(1000);
    for (message, deflating) in [
        (json.as_bytes(), Deflating { min_size: 481, ..ALL }),
        (json.as_bytes(), Deflating { window_bits: 8, ..ALL }),
        (&noise, ALL),
        (b"", ALL),
    ] {
        let prepared = Prepared::new(MessageKind::Text, &[message]);
        assert_eq!(prepared.bytes(Some(&deflating)), prepared.frame());
    }
}

#[test]
fn a_head_is_stored_before_the_shared_deflated_body() {
    let body = "0123456789".repeat(50);
    let (frame, rest) = outgoing(b"head", Some(body.as_bytes())).into_frame(Some(&ALL));
    assert_eq!(rest, None, "a small compressed body is joined to the head");
    let (first, payload) = split_frame(&frame);
    assert_eq!(first, FIN | RSV1 | BINARY);
    assert_eq!(payload[..9], *b"\x00\x04\x00\xfb\xffhead");
    assert!(payload.len() < 50);
}

#[test]
fn a_large_body_is_a_slice_of_its_own_and_never_copied() {
    let body = Arc::new(Body::new(Bytes::from(vec![1; 1025])));
    let outgoing =
        Outgoing { kind: MessageKind::Text, head: Bytes::from_static(b"h"), body: Some(body.clone()) };
    let (front, rest) = outgoing.clone().into_frame(None);
    assert_eq!(front, &b"\x81\x7e\x04\x02h"[..]);
    assert_eq!(rest.unwrap().as_ptr(), body.bytes().as_ptr());

    let half_noise = [noise(50_000), vec![0; 50_000]].concat();
    let body = Arc::new(Body::new(half_noise.into()));
    let outgoing = Outgoing { body: Some(body), ..outgoing };
    let (_, first) = outgoing.clone().into_frame(Some(&ALL));
    let (_, second) = outgoing.into_frame(Some(&ALL));
    assert_eq!(first.unwrap().as_ptr(), second.unwrap().as_ptr(), "deflated once for all");
}

#[test]
fn every_combination_of_head_and_body_arrives() {
    let text = "lorem ipsum dolor sit amet ".repeat(6000);
    let text = text.as_bytes();
    for head in [0, 1, 100, 70_000] {
        assert_eq!(check_outgoing(&text[..head], None, Some(&ALL)), head >= 100);
        for body in [0, 10, 700, 5000, 100_000] {
            check_outgoing(&text[..head], Some(&text[..body]), None);
            let is_compressed = check_outgoing(&text[..head], Some(&text[..body]), Some(&ALL));
            assert_eq!(is_compressed, body >= 700 && head < 65_536, "{head} {body}");
            for window_bits in 8..15 {
                let deflating = Deflating { window_bits, ..ALL };
                let is_compressed = check_outgoing(&text[..head], Some(&text[..body]), Some(&deflating));
                assert_eq!(is_compressed, body >= 700 && body <= 1 << window_bits && head < 65_536);
            }
        }
    }
}

/// The frame of a prepared message behind a head, checked against the message; whether it is compressed.
fn check_headed(head: &[u8], tail: &[u8], deflating: Option<&Deflating>) -> bool {
    let prepared = Prepared::new(MessageKind::Text, &[tail]);
    let headed = prepared.behind(head, deflating);
    let whole = headed.parts().concat();
    assert_eq!(headed.frame_len(), whole.len());
    assert!(whole.ends_with(&headed.tail()));
    let (first, payload) = split_frame(&whole);
    let is_compressed = first & RSV1 != 0;
    assert_eq!(first, FIN | TEXT | if is_compressed { RSV1 } else { 0 });
    let message = [head, tail].concat();
    let received = if is_compressed { inflated(&payload, message.len()) } else { payload.to_vec() };
    assert!(received == message, "{} + {}", head.len(), tail.len());
    is_compressed
}

#[test]
fn a_head_stands_before_a_prepared_message_and_its_compressed_twin() {
    let prepared = Prepared::new(MessageKind::Text, &[b"lo"]);
    assert_eq!(prepared.behind(b"Hel", None).parts(), [&b"\x81\x05"[..], b"Hel", b"lo"]);
    assert_eq!(prepared.frame(), &b"\x81\x02lo"[..], "and by itself");
    for (head, tail, header) in [
        (0, 0, &b"\x81\x00"[..]),
        (3, 122, b"\x81\x7d"),
        (3, 123, b"\x81\x7e\x00\x7e"),
        (5, 65_530, b"\x81\x7e\xff\xff"),
        (6, 65_530, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ] {
        let prepared = Prepared::new(MessageKind::Text, &[&vec![7; tail]]);
        assert_eq!(prepared.behind(&vec![8; head], None).parts()[0], header);
    }

    let body = "0123456789".repeat(50);
    let prepared = Prepared::new(MessageKind::Text, &[body.as_bytes()]);
    let one = prepared.behind(b"head", Some(&ALL));
    let [front, head, first] = one.parts();
    assert_eq!((front[0], head), (FIN | RSV1 | TEXT, &b"head"[..]));
    assert_eq!(front[2..], *b"\x00\x04\x00\xfb\xff");
    assert!(first.len() < 50);
    let other = prepared.behind(b"other", Some(&ALL));
    assert_eq!(first.as_ptr(), other.parts()[2].as_ptr(), "deflated once for all");
    assert!(check_headed(b"", body.as_bytes(), Some(&ALL)));
}

#[test]
fn every_combination_of_head_and_prepared_message_arrives() {
    let text = "lorem ipsum dolor sit amet ".repeat(6000);
    let text = text.as_bytes();
    for head in [0, 1, 100, 65_535, 65_536] {
        for tail in [0, 10, 700, 5000, 100_000] {
            assert!(!check_headed(&text[..head], &text[..tail], None));
            let is_compressed = check_headed(&text[..head], &text[..tail], Some(&ALL));
            assert_eq!(is_compressed, tail >= 700 && head < 65_536, "{head} {tail}");
            for window_bits in 8..15 {
                let deflating = Deflating { window_bits, ..ALL };
                let is_compressed = check_headed(&text[..head], &text[..tail], Some(&deflating));
                assert_eq!(is_compressed, tail >= 700 && tail <= 1 << window_bits && head < 65_536);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_message_arrives(
        head in proptest::collection::vec(any::<u8>(), 0..300),
        body in proptest::collection::vec(0..4_u8, 0..3000),
        window_bits in 8..=15_u8,
        level in 1..=9_u8,
        min_size in 0..400_usize,
    ) {
        let deflating = Deflating { window_bits, level, min_size };
        check_outgoing(&head, Some(&body), Some(&deflating));
        check_outgoing(&body, None, Some(&deflating));
        check_headed(&head, &body, Some(&deflating));
        let prepared = Prepared::new(MessageKind::Binary, &[&head, &body]);
        let (first, payload) = split_frame(prepared.bytes(Some(&deflating)));
        let message = [&head[..], &body].concat();
        let received = if first & RSV1 == 0 { payload.to_vec() } else { inflated(&payload, message.len()) };
        prop_assert_eq!(received, message);
    }
}

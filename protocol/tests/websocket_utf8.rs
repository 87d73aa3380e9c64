//! Text that is or is not UTF-8: the Autobahn fuzzing client's section 6, with its fail-fast cases.
#![expect(clippy::indexing_slicing, reason = "a test helper may panic")]

mod websocket_support;

use bytes::BytesMut;
use proptest::prelude::*;
use tidegate_protocol::websocket::ReceiveError;
use tidegate_protocol::websocket::deflate::Params;
use websocket_support::*;

/// One payload in one frame, in fragments of one byte, and chopped: all say the same.
fn check_text(payload: &[u8]) {
    let expected = match std::str::from_utf8(payload) {
        Ok(valid) => text(valid),
        Err(_) => Seen::Fail(1007),
    };
    let expected = [expected];
    check("one frame", || server(None), &client_frame(FIN | TEXT, payload), &expected);
    let mut fragments = client_frame(TEXT, b"");
    for byte in payload {
        fragments.extend(client_frame(CONTINUE, &[*byte]));
    }
    fragments.extend(client_frame(FIN | CONTINUE, b""));
    assert_eq!(receive(&mut server(None), [&fragments[..]]), expected, "{payload:x?}");
}

#[test]
fn case_6_every_sequence_that_the_suite_sends() {
    let mut sequences = [
        // 6.2, 6.3: valid, and a surrogate in the middle.
        "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64",
        // 6.5–6.9: the word kosme and the first and last sequence of each length.
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5",
        b"\x00",
        b"\xc2\x80",
        b"\xe0\xa0\x80",
        b"\xf0\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\x7f",
        b"\xdf\xbf",
        b"\xef\xbf\xbf",
        b"\xf7\xbf\xbf\xbf",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf\xbf",
        // 6.9–6.11: other boundaries.
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbd",
        b"\xf4\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        // 6.12–6.14: continuation bytes and starts alone.
        b"\x80",
        b"\xbf",
        b"\x80\xbf\x80\xbf\x80\xbf",
        b"\xc0 \xc1 \xde \xdf ",
        b"\xe0 \xef ",
        b"\xf0 \xf7 ",
        b"\xf8 \xfb ",
        b"\xfc \xfd ",
        // 6.15–6.16: the last byte is missing.
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xf0\x90\x80",
        b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80",
        // 6.17: impossible bytes.
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
        // 6.18–6.20: overlong.
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x80\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        // 6.21: surrogates, single and paired.
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xae\x80",
        b"\xed\xaf\xbf",
        b"\xed\xb0\x80",
        b"\xed\xbe\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xed\xaf\xbf\xed\xbf\xbf",
        // 6.22, 6.23: noncharacters and specials are valid.
        b"\xef\xbf\xbe",
        b"\xef\xbf\xb9\xef\xbf\xba\xef\xbf\xbb\xef\xbf\xbc",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    for plane in 1..=16_u32 {
        for end in [0xfffe, 0xffff] {
            sequences.push(char::from_u32(plane << 16 | end).unwrap().to_string().into_bytes());
        }
    }
    for sequence in &sequences {
        check_text(sequence);
    }
}

/// What a receiver says after the bytes of a text message of which `rest` more are announced.
fn after(payload: &[u8], rest: usize) -> Option<ReceiveError> {
    let whole = [payload, &vec![b'x'; rest][..]].concat();
    let frame = client_frame(FIN | TEXT, &whole);
    server(None).poll(&mut BytesMut::from(&frame[..frame.len() - rest])).err()
}

#[test]
fn case_6_4_bad_text_fails_before_the_frame_is_complete() {
    let start = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";
    for (bad, fails_with) in [(&b"\xf4\x90"[..], 2), (b"\xff", 1), (b"\xed\xa0", 2), (b"\xc0", 1)] {
        for len in 1..=bad.len() {
            let payload = [start, &bad[..len]].concat();
            let expected = (len >= fails_with).then_some(ReceiveError::TextNotUtf8);
            assert_eq!(after(&payload, 50), expected, "{payload:x?}");
        }
    }
}

#[test]
fn case_6_4_bad_text_fails_before_the_message_is_complete() {
    let frames =
        [client_frame(TEXT, b"\xce\xba"), client_frame(CONTINUE, b"\xf4"), client_frame(CONTINUE, b"\x90")];
    let mut receiver = server(None);
    let mut fed = frames.iter().map(|frame| receive(&mut receiver, [&frame[..]]));
    assert_eq!(fed.next(), Some(vec![]));
    assert_eq!(fed.next(), Some(vec![]));
    assert_eq!(fed.next(), Some(vec![Seen::Fail(1007)]));
}

#[test]
fn bad_compressed_text_fails_before_the_message_is_complete() {
    let payload = deflated(b"Hello \xff");
    let mut receiver = server(Some(Params::default()));
    assert_eq!(receive(&mut receiver, [&client_frame(RSV1 | TEXT, &payload)[..]]), [Seen::Fail(1007)]);
    let mut receiver = server(Some(Params::default()));
    let frame = client_frame(FIN | RSV1 | TEXT, &[&payload[..], &[0; 100]].concat());
    assert_eq!(receive(&mut receiver, [&frame[..frame.len() - 100]]), [Seen::Fail(1007)]);
}

proptest! {
    #[test]
    fn text_is_accepted_exactly_if_it_is_utf8(payload in proptest::collection::vec(any::<u8>(), 0..8)) {
        check_text(&payload);
    }

    #[test]
    fn any_text_arrives(payload in any::<String>()) {
        check_text(payload.as_bytes());
    }
}

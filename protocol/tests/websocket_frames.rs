//! Frames, fragments, control frames, limits and closing: the Autobahn fuzzing client's cases 1–5, 7, 9 and 10
//! against the receiver, and golden bytes both ways.

mod websocket_support;

use tidegate_protocol::websocket::frame::{self, FrameError};
use tidegate_protocol::websocket::{CloseCode, Event, Message, ReceiveError, Receiver, Role};
use websocket_support::*;

/// Frames as (first byte, payload), all masked, to a server without an extension.
fn check_frames(name: &str, frames: &[(u8, &[u8])], expected: &[Seen]) {
    let input = frames.iter().flat_map(|(first, payload)| client_frame(*first, payload)).collect::<Vec<_>>();
    check(name, || server(None), &input, expected);
}

#[test]
fn case_1_and_9_messages_of_every_length_form() {
    for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, MIB] {
        let payload = vec![b'*'; len];
        check_frames("1.1", &[(FIN | TEXT, &payload)], &[Seen::Text("*".repeat(len))]);
        check_frames("1.2", &[(FIN | BINARY, &payload)], &[Seen::Binary(payload.clone())]);
    }
}

#[test]
fn case_2_pings_and_pongs() {
    let long = [0xfe; 125];
    for payload in [&b""[..], b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &long] {
        check_frames("2.1-2.4", &[(FIN | PING, payload)], &[Seen::Ping(payload.to_vec())]);
        check_frames("2.7-2.9", &[(FIN | PONG, payload)], &[Seen::Pong(payload.to_vec())]);
    }
    check_frames("2.5", &[(FIN | PING, &[0xfe; 126])], &[Seen::Fail(1002)]);
    let ten = (0..10).map(|n| format!("payload-{n}")).collect::<Vec<_>>();
    let frames = ten.iter().map(|payload| (FIN | PING, payload.as_bytes())).collect::<Vec<_>>();
    let pings = ten.iter().map(|payload| Seen::Ping(payload.clone().into_bytes())).collect::<Vec<_>>();
    check_frames("2.10", &frames, &pings);
}

#[test]
fn case_3_reserved_bits() {
    let ok = (FIN | TEXT, &b"Hello"[..]);
    for rsv in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        for opcode in [TEXT, BINARY, PING, CLOSE] {
            check_frames("3", &[ok, (FIN | rsv | opcode, b"x")], &[text("Hello"), Seen::Fail(1002)]);
        }
    }
}

#[test]
fn case_4_reserved_opcodes() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let frames = [(FIN | TEXT, &b"Hello"[..]), (FIN | opcode, b""), (FIN | PING, b"")];
        check_frames("4", &frames, &[text("Hello"), Seen::Fail(1002)]);
    }
}

#[test]
fn case_5_fragmentation() {
    let fail = [Seen::Fail(1002)];
    let ping = Seen::Ping(b"ping".to_vec());
    type Frames<'a> = &'a [(u8, &'a [u8])];
    let cases: &[(&str, Frames<'_>, &[Seen])] = &[
        ("5.1", &[(PING, b"frag"), (FIN, b"ment")], &fail),
        ("5.2", &[(PONG, b"frag"), (FIN, b"ment")], &fail),
        ("5.3", &[(TEXT, b"frag"), (FIN, b"ment")], &[text("fragment")]),
        ("5.6", &[(TEXT, b"frag"), (FIN | PING, b"ping"), (FIN, b"ment")], &[ping.clone(), text("fragment")]),
        ("5.9", &[(FIN, b"cont"), (FIN | TEXT, b"x")], &fail),
        ("5.12", &[(CONTINUE, b"cont"), (FIN | TEXT, b"x")], &fail),
        ("5.15", &[(TEXT, b"frag"), (FIN, b"ment"), (CONTINUE, b"x")], &[text("fragment"), Seen::Fail(1002)]),
        ("5.18", &[(TEXT, b"frag"), (FIN | TEXT, b"ment")], &fail),
        (
            "5.19",
            &[
                (TEXT, b"1"),
                (CONTINUE, b"2"),
                (FIN | PING, b"ping"),
                (CONTINUE, b"3"),
                (CONTINUE, b"4"),
                (FIN | PING, b"ping"),
                (FIN, b"5"),
            ],
            &[ping.clone(), ping, text("12345")],
        ),
        ("empty fragments", &[(TEXT, b""), (CONTINUE, b""), (FIN, b"")], &[text("")]),
        ("a close within", &[(TEXT, b"a"), (FIN | CLOSE, b""), (FIN, b"b")], &[Seen::Close(None)]),
    ];
    for (name, frames, expected) in cases {
        check_frames(name, frames, expected);
    }
}

fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason].concat()
}

#[test]
fn case_7_close_frames() {
    check_frames("7.1.1", &[(FIN | CLOSE, b""), (FIN | PING, b"x")], &[Seen::Close(None)]);
    check_frames("7.3.2", &[(FIN | CLOSE, b"a")], &[Seen::Fail(1002)]);
    let reason = "*".repeat(123);
    let payload = close_payload(1000, reason.as_bytes());
    check_frames("7.3.5", &[(FIN | CLOSE, &payload)], &[Seen::Close(Some((1000, reason)))]);
    check_frames("7.3.6", &[(FIN | CLOSE, &close_payload(1000, &[b'*'; 124]))], &[Seen::Fail(1002)]);
    let bad = close_payload(1000, b"\xce\xba\xed\xa0\x80edited");
    check_frames("7.5.1", &[(FIN | CLOSE, &bad)], &[Seen::Fail(1007)]);
    check_frames("a half character", &[(FIN | CLOSE, &close_payload(1000, b"\xce"))], &[Seen::Fail(1007)]);
}

#[test]
fn case_7_7_and_7_9_close_codes() {
    for code in 0..=u16::MAX {
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let input = client_frame(FIN | CLOSE, &close_payload(code, b"bye"));
        let expected = if valid { Seen::Close(Some((code, "bye".into()))) } else { Seen::Fail(1002) };
        assert_eq!(receive(&mut server(None), [&input[..]]), [expected], "{code}");
    }
}

#[test]
fn case_9_and_10_large_messages_in_fragments_and_pieces() {
    let message = (0..4 * MIB).map(|n| b"0123456789abcdef"[n % 16]).collect::<Vec<_>>();
    for fragment in [64 * 1024, MIB, 1300, 4 * MIB] {
        let last = message.len().div_ceil(fragment) - 1;
        let input = message.chunks(fragment).enumerate().flat_map(|(n, chunk)| {
            let opcode = if n == 0 { TEXT } else { CONTINUE };
            client_frame(opcode | if n == last { FIN } else { 0 }, chunk)
        });
        let input = input.collect::<Vec<_>>();
        let expected = [Seen::Text(String::from_utf8(message.clone()).unwrap())];
        for piece in [input.len(), 65_536, 1777] {
            assert!(receive(&mut server(None), input.chunks(piece)) == expected, "{fragment} {piece}");
        }
    }
}

#[test]
fn sixty_five_thousand_fragments_of_one_byte_are_one_message() {
    let mut input = client_frame(TEXT, b"a");
    for _ in 0..65_534 {
        input.extend(client_frame(CONTINUE, b"b"));
    }
    input.extend(client_frame(FIN | CONTINUE, b"c"));
    let expected = format!("a{}c", "b".repeat(65_534));
    assert!(receive(&mut server(None), input.chunks(4096)) == [Seen::Text(expected)]);
}

fn check_error(role: Role, input: &[u8], expected: FrameError) {
    let mut receiver = Receiver::new(role, MIB, None);
    let result = receiver.poll(&mut input.into());
    assert_eq!(result, Err(ReceiveError::Frame(expected)), "{input:x?}");
}

#[test]
fn lengths_are_minimal_and_have_63_bits() {
    let masked = |bytes: &[u8]| [bytes, &[0; 140]].concat();
    check_error(Role::Server, &masked(&[0x82, 0xfe, 0, 125]), FrameError::LengthNotMinimal);
    check_error(
        Role::Server,
        &masked(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        FrameError::LengthNotMinimal,
    );
    check_error(Role::Server, &masked(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), FrameError::LengthTopBit);
    check_error(Role::Server, &masked(&[0x89, 0xfe, 0, 126]), FrameError::ControlTooLong);
}

#[test]
fn only_clients_mask() {
    check_error(Role::Server, &server_frame(FIN | TEXT, b"x"), FrameError::NotMasked);
    check_error(Role::Client, &client_frame(FIN | TEXT, b"x"), FrameError::Masked);
    let client = || Receiver::new(Role::Client, MIB, None);
    check("a server's frame", client, &server_frame(FIN | TEXT, b"Hello"), &[text("Hello")]);
}

#[test]
fn a_broken_rule_is_reported_with_the_byte_that_breaks_it() {
    check_error(Role::Server, &[0x83], FrameError::ReservedOpcode(3));
    check_error(Role::Server, &[0xc1], FrameError::ReservedBit);
    check_error(Role::Server, &[0x09], FrameError::ControlFragmented);
    check_error(Role::Server, &[0x81, 0x05], FrameError::NotMasked);
}

#[test]
fn oversize_is_refused_by_the_header_alone() {
    let too_big = ReceiveError::TooBig { limit_bytes: 1000 };
    assert_eq!(u16::from(too_big.close_code()), 1009);
    assert!(too_big.to_string().contains("1000"), "the reason holds the limit");
    let header = &client_frame(FIN | BINARY, &[0; 1001])[..8];
    let claim = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    let fragments = [client_frame(BINARY, &[0; 600]), client_frame(FIN, &[0; 401])[..8].to_vec()].concat();
    for input in [header, &claim, &fragments] {
        let mut receiver = Receiver::new(Role::Server, 1000, None);
        assert_eq!(receiver.poll(&mut input.into()), Err(too_big), "{input:x?}");
    }
    check(
        "at the limit",
        || Receiver::new(Role::Server, 5, None),
        &client_frame(0x81, b"Hello"),
        &[text("Hello")],
    );
}

#[test]
fn the_limit_can_change_between_messages() {
    let mut receiver = Receiver::new(Role::Server, 4, None);
    receiver.set_message_bytes_max(5);
    assert_eq!(receive(&mut receiver, [&client_frame(0x81, b"Hello")[..]]), [text("Hello")]);
    receiver.set_message_bytes_max(4);
    assert_eq!(receive(&mut receiver, [&client_frame(0x81, b"Hello")[..]]), [Seen::Fail(1009)]);
}

#[test]
fn a_whole_frame_is_split_off_without_copying() {
    let mut buffer = bytes::BytesMut::from(&client_frame(FIN | BINARY, &[7; 4096])[..]);
    let payload_at = buffer[8..].as_ptr();
    let Ok(Some(Event::Message(Message::Binary(bytes)))) = server(None).poll(&mut buffer) else { panic!() };
    assert_eq!(bytes.as_ptr(), payload_at);
}

#[test]
fn an_idle_receiver_is_small() {
    assert!(size_of::<Receiver>() <= 72, "{}", size_of::<Receiver>());
}

#[test]
fn the_receiver_knows_whether_the_input_may_end() {
    let mut receiver = server(None);
    assert!(!receiver.is_within_message());
    receive(&mut receiver, [&client_frame(TEXT, b"a")[..]]);
    assert!(receiver.is_within_message());
    receive(&mut receiver, [&client_frame(FIN, b"b")[..]]);
    assert!(!receiver.is_within_message());
    receive(&mut receiver, [&client_frame(FIN | TEXT, b"abc")[..7]]);
    assert!(receiver.is_within_message());
}

/// RFC 6455 §5.7.
#[test]
fn what_follows_an_error_or_a_close_is_not_kept() {
    for last in [client_frame(FIN | 3, b""), client_frame(FIN | CLOSE, b"\x03\xe8")] {
        let mut receiver = server(None);
        let mut buffer = bytes::BytesMut::from(&last[..]);
        let _ = receiver.poll(&mut buffer);
        buffer.extend_from_slice(&[b'z'; 1000]);
        assert_eq!(receiver.poll(&mut buffer), Ok(None));
        assert!(buffer.is_empty(), "{} bytes are left", buffer.len());
    }
}

#[test]
fn the_examples_of_the_standard_are_read() {
    let client = || Receiver::new(Role::Client, MIB, None);
    let hello = [text("Hello")];
    check("unmasked", client, b"\x81\x05Hello", &hello);
    check("masked", || server(None), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &hello);
    check("fragmented", client, b"\x01\x03Hel\x80\x02lo", &hello);
    check("ping", client, b"\x89\x05Hello", &[Seen::Ping(b"Hello".to_vec())]);
    check(
        "pong",
        || server(None),
        b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        &[Seen::Pong(b"Hello".to_vec())],
    );
}

#[test]
fn control_frames_are_written() {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    assert_eq!(frame::ping(b"Hello", None), &b"\x89\x05Hello"[..]);
    assert_eq!(frame::pong(b"Hello", Some(mask)), &b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"[..]);
    assert_eq!(frame::close(CloseCode::Away, "bye", None), &b"\x88\x05\x03\xe9bye"[..]);
    assert_eq!(frame::close_without_code(None), &b"\x88\x00"[..]);
    assert_eq!(frame::ping(&[1; 126], None).len(), 127);
}

#[test]
fn a_close_reason_is_cut_at_the_end_of_a_character() {
    for (reason, kept) in [
        ("a".repeat(123), 123),
        ("a".repeat(124), 123),
        (format!("{}é", "a".repeat(121)), 123),
        (format!("{}é", "a".repeat(122)), 122),
        ("€".repeat(60), 123),
        ("😀".repeat(60), 120),
    ] {
        let frame = frame::close(CloseCode::Policy, &reason, None);
        assert_eq!(frame[4..], reason.as_bytes()[..kept]);
    }
}

#[test]
fn the_mask_turns_with_the_position_in_the_payload() {
    let payload = (0..=255).cycle().take(1000).collect::<Vec<u8>>();
    let mask = [1, 20, 150, 255];
    let expected = payload.iter().enumerate().map(|(n, byte)| byte ^ mask[n % 4]).collect::<Vec<_>>();
    for at in 0..200 {
        let mut masked = payload.clone();
        let (front, back) = masked.split_at_mut(at);
        frame::apply_mask(front, mask, 0);
        frame::apply_mask(back, mask, at);
        assert_eq!(masked, expected, "{at}");
    }
}

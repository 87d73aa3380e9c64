//! STOMP frames as bytes: golden both ways and at every split, everything malformed, and properties.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

use bytes::BytesMut;
use proptest::prelude::*;
use tidegate_protocol::stomp::Version;
use tidegate_protocol::stomp::codec::{DecodeError, Decoder, Fault, Limits};
use tidegate_protocol::stomp::frame::{Command, Frame};

const LIMITS: Limits =
    Limits { headers_max: 4, head_bytes_max: 120, body_bytes_max: 40, frame_bytes_max: 150 };
const WIDE: Limits =
    Limits { headers_max: 1000, head_bytes_max: 100_000, body_bytes_max: 100_000, frame_bytes_max: 200_000 };

/// Everything that a decoder of `version` finds in the stream when it arrives in pieces of `piece` bytes.
fn decode(
    version: Option<Version>,
    limits: Limits,
    stream: &[u8],
    piece: usize,
) -> Result<Vec<Frame>, DecodeError> {
    let mut decoder = Decoder::new(limits);
    if let Some(version) = version {
        decoder.set_version(version, limits);
    }
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for bytes in stream.chunks(piece.max(1)) {
        buffer.extend_from_slice(bytes);
        while let Some(frame) = decoder.decode(&mut buffer)? {
            frames.push(frame);
        }
    }
    assert!(frames.is_empty() || buffer.is_empty(), "bytes were left over: {buffer:?}");
    Ok(frames)
}

fn check_decodes(version: Option<Version>, stream: &[u8], expected: &[Frame]) {
    for piece in 1..=stream.len() {
        let frames = decode(version, LIMITS, stream, piece);
        assert_eq!(frames.as_deref(), Ok(expected), "{version:?}, pieces of {piece}");
    }
    for at in 0..=stream.len() {
        let mut decoder = Decoder::new(LIMITS);
        if let Some(version) = version {
            decoder.set_version(version, LIMITS);
        }
        let mut buffer = BytesMut::from(&stream[..at]);
        let mut frames = Vec::new();
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            frames.push(frame);
        }
        buffer.extend_from_slice(&stream[at..]);
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            frames.push(frame);
        }
        assert_eq!(frames, expected, "{version:?}, cut at {at}");
    }
}

fn check_golden(version: Version, bytes: &[u8], frame: Frame) {
    let mut encoded = BytesMut::new();
    frame.encode(version, &mut encoded);
    assert_eq!(encoded, bytes, "{version}: {frame:?}");
    check_decodes(Some(version), bytes, &[frame]);
}

fn send() -> Frame {
    Frame::new(Command::Send)
}

#[test]
fn frames_are_these_bytes_both_ways() {
    use Version::{V1_0, V1_1, V1_2};
    for version in Version::ALL {
        check_golden(
            version,
            b"SEND\ndestination:/topic/a\n\nhello\0",
            send().with_header("destination", "/topic/a").with_body("hello"),
        );
        check_golden(
            version,
            b"SEND\ncontent-length:5\n\na\0b\0\n\0",
            send().with_header("content-length", "5").with_body(&b"a\0b\0\n"[..]),
        );
        check_golden(version, b"DISCONNECT\n\n\0", Frame::new(Command::Disconnect));
        check_golden(
            version,
            "MESSAGE\nsubscription:ä\n\n\u{1F600}\0".as_bytes(),
            Frame::new(Command::Message).with_header("subscription", "ä").with_body("\u{1F600}"),
        );
        // CONNECT and CONNECTED are never escaped, since no version is settled when they are read.
        for command in [Command::Connect, Command::Stomp, Command::Connected] {
            check_golden(
                version,
                format!("{command}\npasscode:a:b\\c\\\\\n\n\0").as_bytes(),
                Frame::new(command).with_header("passcode", "a:b\\c\\\\"),
            );
        }
    }
    check_golden(V1_0, b"SEND\nk:a:b\\n\\x\n\n\0", send().with_header("k", "a:b\\n\\x"));
    check_golden(V1_1, b"SEND\nk\\c\\n:a\\cb\\n\\\\n\rx\n\n\0", send().with_header("k:\n", "a:b\n\\n\rx"));
    check_golden(V1_2, b"SEND\nk\\c\\r:a\\cb\\n\\\\\\r\n\n\0", send().with_header("k:\r", "a:b\n\\\r"));
}

#[test]
fn what_a_version_cannot_say_becomes_a_replacement_character() {
    for (version, name, value, expected) in [
        (Version::V1_0, "k:", "a\nb\rc:d", "k\u{fffd}:a\u{fffd}b\u{fffd}c:d"),
        (Version::V1_1, "k\0", "a\0", "k\u{fffd}:a\u{fffd}"),
        (Version::V1_2, "k\0", "a\0", "k\u{fffd}:a\u{fffd}"),
    ] {
        let mut encoded = BytesMut::new();
        send().with_header(name, value).encode(version, &mut encoded);
        assert_eq!(encoded, format!("SEND\n{expected}\n\n\0"), "{version}");
    }
}

#[test]
fn line_ends_follow_the_version() {
    let plain = Frame::new(Command::Subscribe).with_header("id", "1");
    let kept = Frame::new(Command::Subscribe).with_header("id", "1\r");
    check_decodes(Some(Version::V1_2), b"SUBSCRIBE\r\nid:1\r\n\r\n\0", std::slice::from_ref(&plain));
    check_decodes(None, b"SUBSCRIBE\r\nid:1\r\n\r\n\0", std::slice::from_ref(&plain));
    for version in [Version::V1_0, Version::V1_1] {
        check_decodes(Some(version), b"SUBSCRIBE\nid:1\r\n\n\0", std::slice::from_ref(&kept));
    }
}

#[test]
fn blanks_around_the_colon_are_trimmed_in_1_0_alone() {
    let bytes = b"SEND\n k\t: v \n\n\0";
    check_decodes(Some(Version::V1_0), bytes, &[send().with_header("k", "v")]);
    for version in [None, Some(Version::V1_1), Some(Version::V1_2)] {
        check_decodes(version, bytes, &[send().with_header(" k\t", " v ")]);
    }
}

#[test]
fn line_ends_between_frames_are_heart_beats() {
    let frames = [send().with_body("x"), Frame::new(Command::Disconnect)];
    for version in Version::ALL {
        check_decodes(Some(version), b"\n\n\r\nSEND\n\nx\0\n\r\n\nDISCONNECT\n\n\0\n\r\n", &frames);
    }
}

#[test]
fn of_repeated_headers_the_first_counts_and_all_are_kept() {
    let stream = b"SEND\nfoo:1\ncontent-length:2\nfoo:2\ncontent-length:9\n\nab\0";
    let frames = decode(Some(Version::V1_2), LIMITS, stream, 1000).unwrap();
    assert_eq!(frames[0].header("foo"), Some("1"));
    assert_eq!(frames[0].body, "ab");
    let foo: Vec<_> =
        frames[0].headers.iter().filter(|h| h.name.as_str() == "foo").map(|h| h.value.as_str()).collect();
    assert_eq!(foo, ["1", "2"]);
}

/// The fault is found at every way of cutting the stream, and says where it is.
fn check_malformed(
    version: Option<Version>,
    stream: &[u8],
    fault: Fault,
    command: Option<Command>,
    line: usize,
) {
    for piece in 1..=stream.len() {
        let error = decode(version, LIMITS, stream, piece).unwrap_err();
        let found = (error.fault, error.command, error.line);
        assert_eq!(
            found,
            (fault, command, line),
            "{:?} in pieces of {piece}",
            stream.escape_ascii().to_string()
        );
    }
}

/// Versions, bytes, and what is found where.
type Malformed<'a> = (&'a [Option<Version>], &'a [u8], Fault, Option<Command>, usize);

#[test]
fn every_malformed_frame_is_refused_with_its_place() {
    use Command::{Connect, Send, Subscribe};
    let all: &[Option<Version>] = &[None, Some(Version::V1_0), Some(Version::V1_1), Some(Version::V1_2)];
    let rows: &[Malformed<'_>] = &[
        (all, b"HELLO\n\n\0", Fault::UnknownCommand, None, 1),
        (all, b"send\n\n\0", Fault::UnknownCommand, None, 1),
        (all, b" SEND\n\n\0", Fault::UnknownCommand, None, 1),
        (all, b"SEND \n\n\0", Fault::UnknownCommand, None, 1),
        (all, b"AAAAAAAAAAAAAAAA", Fault::UnknownCommand, None, 1),
        (all, b"\0", Fault::NulInHead, None, 1),
        (all, b"SEND\0", Fault::NulInHead, None, 1),
        (all, b"SEND\nk:v\0", Fault::NulInHead, Some(Send), 2),
        (all, b"SEND\nk:v\n\0", Fault::NulInHead, Some(Send), 3),
        (all, b"SEND\nk\n\nx\0", Fault::NoColon, Some(Send), 2),
        (all, b"SEND\nk:v\nnonsense\n\nx\0", Fault::NoColon, Some(Send), 3),
        (all, b"SEND\n:v\n\nx\0", Fault::NoName, Some(Send), 2),
        (&[Some(Version::V1_0)], b"SEND\n :v\n\nx\0", Fault::NoName, Some(Send), 2),
        (all, b"SEND\nk:\xff\n\nx\0", Fault::NotUtf8, Some(Send), 2),
        (all, b"SEND\nk:v\n\xc3:\n\nx\0", Fault::NotUtf8, Some(Send), 3),
        (&all[2..], b"SEND\nk:a\\tb\n\nx\0", Fault::UndefinedEscape, Some(Send), 2),
        (&all[2..], b"SEND\nk:a\\\n\nx\0", Fault::UndefinedEscape, Some(Send), 2),
        (&all[2..], b"SEND\nk\\N:a\n\nx\0", Fault::UndefinedEscape, Some(Send), 2),
        (&[Some(Version::V1_1)], b"SEND\nk:a\\r\n\nx\0", Fault::UndefinedEscape, Some(Send), 2),
        (&[Some(Version::V1_2)], b"SEND\nk:a\rb\n\nx\0", Fault::BareCarriageReturn, Some(Send), 2),
        (&all[1..3], b"SEND\r\n\r\n\0", Fault::UnknownCommand, None, 1),
        (&all[1..3], b"SEND\nk:v\r\n\r\nx\0", Fault::NoColon, Some(Send), 3),
        (all, b"SEND\ncontent-length:x\n\nx\0", Fault::BadContentLength, Some(Send), 2),
        (all, b"SEND\nk:v\ncontent-length:-1\n\nx\0", Fault::BadContentLength, Some(Send), 3),
        (all, b"SEND\ncontent-length:+1\n\nx\0", Fault::BadContentLength, Some(Send), 2),
        (all, b"SEND\ncontent-length:\n\nx\0", Fault::BadContentLength, Some(Send), 2),
        (all, b"SEND\ncontent-length:99999999999999999999\n\n", Fault::BadContentLength, Some(Send), 2),
        (all, b"SEND\ncontent-length:1\n\nxy\0", Fault::NotTerminated, Some(Send), 4),
        (all, b"SEND\ncontent-length:0\n\nx\0", Fault::NotTerminated, Some(Send), 4),
        (all, b"SUBSCRIBE\nid:1\n\nx\0", Fault::BodyNotAllowed, Some(Subscribe), 4),
        (all, b"CONNECT\n\n\n\0", Fault::BodyNotAllowed, Some(Connect), 3),
        (all, b"SUBSCRIBE\ncontent-length:3\n\n", Fault::BodyNotAllowed, Some(Subscribe), 4),
        (all, b"SEND\na:\nb:\nc:\nd:\ne:\n\n\0", Fault::TooManyHeaders { limit: 4 }, Some(Send), 6),
        (all, b"SEND\ncontent-length:41\n\n", Fault::BodyTooLong { limit: 40 }, Some(Send), 4),
    ];
    for (versions, stream, fault, command, line) in rows {
        for version in *versions {
            check_malformed(*version, stream, *fault, *command, *line);
        }
    }
}

#[test]
fn limits_hold_before_the_frame_is_whole() {
    let endless_line = [&b"SEND\nk:"[..], &[b'v'; 200]].concat();
    let many_lines = [&b"SEND\n"[..], &b"key:0123456789012345678901234567890123456789\n".repeat(4)].concat();
    let endless_body = [&b"SEND\n\n"[..], &[b'x'; 60]].concat();
    let long_frame = [&b"SEND\nk:"[..], &[b'v'; 105], b"\n\n", &[b'x'; 40]].concat();
    for version in Version::ALL {
        let version = Some(version);
        let too_long = Fault::HeadTooLong { limit: 120 };
        check_malformed(version, &endless_line, too_long, Some(Command::Send), 2);
        check_malformed(version, &many_lines, too_long, Some(Command::Send), 4);
        check_malformed(version, &endless_body, Fault::BodyTooLong { limit: 40 }, Some(Command::Send), 3);
        check_malformed(version, &long_frame, Fault::FrameTooLong { limit: 150 }, Some(Command::Send), 4);
    }
}

#[test]
fn what_fits_the_limits_exactly_is_taken() {
    let head = [&b"SEND\nk:"[..], &[b'v'; 100], b"\n\n"].concat();
    let stream = [&head[..], &[b'x'; 40], b"\0"].concat();
    assert_eq!(stream.len(), 150);
    assert_eq!(decode(Some(Version::V1_2), LIMITS, &stream, 7).unwrap().len(), 1);
}

#[test]
fn a_claimed_length_allocates_nothing() {
    let limits = Limits { body_bytes_max: usize::MAX, frame_bytes_max: usize::MAX, ..LIMITS };
    let mut decoder = Decoder::new(limits);
    let mut buffer = BytesMut::from(&b"SEND\ncontent-length:1000000000000\n\nabc"[..]);
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert_eq!(buffer, "abc");
    assert!(buffer.capacity() < 1000);
}

#[test]
fn an_error_names_the_receipt_of_its_frame() {
    let error = decode(Some(Version::V1_2), LIMITS, b"SEND\nreceipt:r1\ncontent-length:x\n\n\0", 1000);
    assert_eq!(error.unwrap_err().receipt.unwrap().as_str(), "r1");
}

#[test]
fn a_long_body_without_a_length_arrives_in_single_bytes() {
    let mut stream = b"SEND\nk:v\n\n".to_vec();
    stream.resize(100_000, b'x');
    stream.push(0);
    let frames = decode(Some(Version::V1_2), WIDE, &stream, 1).unwrap();
    assert_eq!(frames[0].body.len(), 100_000 - 10);
}

/// Texts in which the characters that matter are frequent. NUL has no spelling in any version.
fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        Just('\\'),
        Just(':'),
        Just('\n'),
        Just('\r'),
        Just('n'),
        Just('c'),
        Just('r'),
        Just(' '),
        any::<char>().prop_filter("NUL", |character| *character != '\0'),
    ];
    proptest::collection::vec(character, 0..12).prop_map(String::from_iter)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let command = proptest::sample::select(&Command::ALL[..]);
    let headers = proptest::collection::vec(("[a-z]", text(), text()), 0..6);
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    (command, headers, body).prop_map(|(command, headers, body)| {
        let mut frame = Frame::new(command);
        for (initial, name, value) in headers {
            frame = frame.with_header(format!("x{initial}{name}"), value);
        }
        if command.may_have_body() {
            frame = frame.with_header("content-length", body.len().to_string()).with_body(body);
        }
        frame
    })
}

/// The frame without what its version and command have no spelling for.
fn sayable(frame: &Frame, version: Version) -> Frame {
    let is_escaped = version > Version::V1_0
        && !matches!(frame.command, Command::Connect | Command::Stomp | Command::Connected);
    let clean = |text: &str, lost: &[char]| -> String {
        // A carriage return before the line feed is the line's end while no escape exists.
        let text: String = text.chars().filter(|c| is_escaped || !lost.contains(c)).collect();
        if version == Version::V1_0 { text.trim_matches([' ', '\t']).to_owned() } else { text }
    };
    let mut said = Frame::new(frame.command).with_body(frame.body.clone());
    for header in &frame.headers {
        said = said.with_header(
            clean(&header.name, &['\n', '\r', ':', '\0']),
            clean(&header.value, &['\n', '\r', '\0']),
        );
    }
    said
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frame in any_frame(), piece in 1..60usize) {
        for version in Version::ALL {
            let frame = sayable(&frame, version);
            let mut bytes = BytesMut::new();
            frame.encode(version, &mut bytes);
            prop_assert_eq!(decode(Some(version), WIDE, &bytes, piece), Ok(vec![frame]));
        }
    }

    #[test]
    fn no_bytes_make_it_panic_and_no_cut_changes_the_outcome(
        stream in proptest::collection::vec(proptest::sample::select(&b"SEND\n\n::\0\\nc\r x1"[..]), 0..80),
        piece in 1..20usize,
    ) {
        let stream = [&b"SEND\n"[..], &stream].concat();
        for version in Version::ALL {
            let whole = decode_all(version, &stream, stream.len());
            prop_assert_eq!(whole, decode_all(version, &stream, piece));
        }
    }
}

fn decode_all(version: Version, stream: &[u8], piece: usize) -> (Vec<Frame>, Option<DecodeError>) {
    let mut decoder = Decoder::new(LIMITS);
    decoder.set_version(version, LIMITS);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for bytes in stream.chunks(piece) {
        buffer.extend_from_slice(bytes);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

//! permessage-deflate: negotiation as a table, the examples of RFC 7692, BFINAL, bombs, and whole echoes as the
//! Autobahn fuzzing client's sections 12 and 13 make them, with flate2 itself as the peer.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

mod websocket_support;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tidegate_protocol::websocket::deflate::{self, NegotiationError, Params, Settings};
use tidegate_protocol::websocket::prepared::Prepared;
use tidegate_protocol::websocket::{Message, MessageKind, Receiver, Role};
use websocket_support::*;

const OPERATOR_TAKES_OVER: Settings = Settings {
    enabled: true,
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    server_max_window_bits: 15,
    level: 1,
    min_size: 0,
};

fn check_offer(settings: &Settings, offers: &[&str], expected: Option<&str>) {
    let params = deflate::negotiate(offers.iter().copied(), settings);
    assert_eq!(params.map(|params| params.to_string()).as_deref(), expected, "{offers:?}");
}

#[test]
fn offers_are_answered_declined_or_passed_over() {
    let plain = OPERATOR_TAKES_OVER;
    for (offers, expected) in [
        (&["permessage-deflate"][..], Some("permessage-deflate")),
        (&["PerMessage-Deflate"], Some("permessage-deflate")),
        (&["permessage-deflate; client_max_window_bits"], Some("permessage-deflate")),
        (
            &["permessage-deflate;client_max_window_bits=10"],
            Some("permessage-deflate; client_max_window_bits=10"),
        ),
        (
            &["permessage-deflate; server_max_window_bits=\"9\""],
            Some("permessage-deflate; server_max_window_bits=9"),
        ),
        (
            &["permessage-deflate; SERVER_NO_CONTEXT_TAKEOVER ; client_no_context_takeover"],
            Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
        ),
        (
            &["permessage-deflate; server_max_window_bits=8"],
            Some("permessage-deflate; server_no_context_takeover; server_max_window_bits=8"),
        ),
        (
            &["permessage-deflate; server_max_window_bits = 15"],
            Some("permessage-deflate; server_max_window_bits=15"),
        ),
        // Another extension first, a fallback in the list, a fallback in a further header line.
        (&["x-webkit-deflate-frame, permessage-deflate"], Some("permessage-deflate")),
        (&["permessage-deflate; unknown, permessage-deflate"], Some("permessage-deflate")),
        (&["x; a=\"b, permessage-deflate\"", "permessage-deflate"], Some("permessage-deflate")),
        (
            &[
                "permessage-deflate; server_max_window_bits=7",
                "permessage-deflate; server_max_window_bits=12",
            ],
            Some("permessage-deflate; server_max_window_bits=12"),
        ),
        // Declined: unknown, repeated, out of range, with and without a value, malformed.
        (&["permessage-deflate; unknown=1"], None),
        (&["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], None),
        (&["permessage-deflate; client_max_window_bits; client_max_window_bits=9"], None),
        (&["permessage-deflate; server_max_window_bits"], None),
        (&["permessage-deflate; server_max_window_bits=16"], None),
        (&["permessage-deflate; server_max_window_bits=09"], None),
        (&["permessage-deflate; server_max_window_bits=+9"], None),
        (&["permessage-deflate; server_max_window_bits="], None),
        (&["permessage-deflate; client_max_window_bits=7"], None),
        (&["permessage-deflate; server_no_context_takeover=1"], None),
        (&["permessage-deflate; client_no_context_takeover=\"\""], None),
        (&["permessage-deflate; server_max_window_bits=\"9"], None),
        (&["permessage-deflate;"], None),
        (&["permessage-deflate;;"], None),
        (&["permessage-deflatex"], None),
        (&["", ",", ";", "\"", "\\", "=", "permessage-deflate="], None),
        (&[], None),
    ] {
        check_offer(&plain, offers, expected);
    }
}

#[test]
fn the_operators_settings_shape_the_answer() {
    let default = Settings::default();
    let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    check_offer(&default, &["permessage-deflate"], Some(both));
    check_offer(&Settings { enabled: false, ..default }, &["permessage-deflate"], None);
    let small = Settings { server_max_window_bits: 10, ..default };
    let with_bits = |bits| format!("{both}; server_max_window_bits={bits}");
    check_offer(&small, &["permessage-deflate"], Some(&with_bits(10)));
    check_offer(&small, &["permessage-deflate; server_max_window_bits=12"], Some(&with_bits(10)));
    check_offer(&small, &["permessage-deflate; server_max_window_bits=9"], Some(&with_bits(9)));
}

#[test]
fn a_client_checks_the_response_against_its_offer() {
    let settings =
        Settings { server_max_window_bits: 12, client_no_context_takeover: false, ..Settings::default() };
    let offer = deflate::offer(&settings).unwrap();
    assert_eq!(
        offer,
        "permessage-deflate; client_max_window_bits; server_no_context_takeover; server_max_window_bits=12"
    );
    let good =
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=11; client_max_window_bits=9";
    let params = Params {
        server_no_context_takeover: true,
        client_no_context_takeover: false,
        server_max_window_bits: Some(11),
        client_max_window_bits: Some(9),
    };
    assert_eq!(deflate::accept_response([good], &settings), Ok(Some(params)));
    assert_eq!(deflate::accept_response([], &settings), Ok(None));
    for (response, error) in [
        ("x-other", NegotiationError::NotOffered),
        ("permessage-deflate; unknown", NegotiationError::NotOffered),
        (
            "permessage-deflate; server_no_context_takeover",
            NegotiationError::NotConfirmed("server_max_window_bits"),
        ),
        (
            "permessage-deflate; server_max_window_bits=12",
            NegotiationError::NotConfirmed("server_no_context_takeover"),
        ),
        (
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=13",
            NegotiationError::WindowTooLarge,
        ),
        (
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits",
            NegotiationError::NotOffered,
        ),
    ] {
        assert_eq!(deflate::accept_response([response], &settings), Err(error), "{response}");
    }
    assert_eq!(deflate::accept_response([good, good], &settings), Err(NegotiationError::Twice));
    let answer = deflate::negotiate([offer.as_str()], &Settings::default()).unwrap().to_string();
    assert!(deflate::accept_response([answer.as_str()], &settings).unwrap().is_some(), "our two ends agree");
}

const ALONE: Params = Params {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: None,
    client_max_window_bits: None,
};

const TAKEOVER: Params =
    Params { server_no_context_takeover: false, client_no_context_takeover: false, ..ALONE };

fn check_both(name: &str, frames: &[(u8, &[u8])], expected: &[Seen]) {
    for params in [ALONE, TAKEOVER] {
        check_params(name, params, frames, expected);
    }
}

fn check_params(name: &str, params: Params, frames: &[(u8, &[u8])], expected: &[Seen]) {
    let input = frames.iter().flat_map(|(first, payload)| client_frame(*first, payload)).collect::<Vec<_>>();
    check(name, || server(Some(params)), &input, expected);
}

const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
const HELLO_FINAL: &[u8] = b"\xf3\x48\xcd\xc9\xc9\x07\x00";

/// RFC 7692 §7.2.3.
#[test]
fn the_examples_of_the_standard_are_read() {
    let first = FIN | RSV1 | TEXT;
    let hello = [text("Hello")];
    check_both("one block", &[(first, HELLO)], &hello);
    check_both("fragmented", &[(RSV1 | TEXT, &HELLO[..3]), (FIN, &HELLO[3..])], &hello);
    check_both("stored", &[(first, b"\x00\x05\x00\xfa\xffHello\x00")], &hello);
    check_both("BFINAL", &[(first, &[HELLO_FINAL, b"\x00"].concat())], &hello);
    check_both("two blocks", &[(first, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")], &hello);
    let twice = [text("Hello"), text("Hello")];
    check_params("taken over", TAKEOVER, &[(first, HELLO), (first, b"\xf2\x00\x11\x00\x00")], &twice);
    let refused = [text("Hello"), Seen::Fail(1007)];
    check_params(
        "not to be taken over",
        ALONE,
        &[(first, HELLO), (first, b"\xf2\x00\x11\x00\x00")],
        &refused,
    );
}

#[test]
fn blocks_may_follow_a_final_one() {
    let first = FIN | RSV1 | TEXT;
    let hellos = |n| text(&"Hello".repeat(n));
    check_both("final and no more", &[(first, HELLO_FINAL)], &[hellos(1)]);
    check_both("final, then another stream", &[(first, &[HELLO_FINAL, HELLO].concat())], &[hellos(2)]);
    let three = [HELLO_FINAL, HELLO_FINAL, HELLO_FINAL, b"\x00"].concat();
    check_both("three final ones", &[(first, &three)], &[hellos(3)]);
    let frames = [(first, HELLO_FINAL), (first, HELLO), (first, HELLO_FINAL), (first, HELLO)];
    check_both("messages after it", &frames, &[hellos(1), hellos(1), hellos(1), hellos(1)]);
}

#[test]
fn empty_and_plain_messages_are_messages() {
    let first = FIN | RSV1 | TEXT;
    check_both("empty", &[(first, b"\x00")], &[text("")]);
    check_both("no bytes at all", &[(first, b"")], &[text("")]);
    check_both("empty fragments", &[(RSV1 | TEXT, b""), (CONTINUE, HELLO), (FIN, b"")], &[text("Hello")]);
    let frames = [(first, HELLO), (FIN | TEXT, &b"plain"[..]), (first, HELLO)];
    check_both("plain between", &frames, &[text("Hello"), text("plain"), text("Hello")]);
    let frames = [(RSV1 | TEXT, &HELLO[..3]), (FIN | PING, b"p"), (FIN, &HELLO[3..])];
    check_both("a ping within", &frames, &[Seen::Ping(b"p".to_vec()), text("Hello")]);
}

#[test]
fn rsv1_belongs_to_the_first_frame_of_a_data_message() {
    let fail = [Seen::Fail(1002)];
    check_both("continuation", &[(RSV1 | TEXT, &HELLO[..3]), (FIN | RSV1, &HELLO[3..])], &fail);
    check_both("ping", &[(FIN | RSV1 | PING, b"")], &fail);
    check_both("close", &[(FIN | RSV1 | CLOSE, b"")], &fail);
    check_both("RSV2", &[(FIN | RSV1 | 0x20 | TEXT, HELLO)], &fail);
    check("no extension", || server(None), &client_frame(FIN | RSV1 | TEXT, HELLO), &fail);
}

#[test]
fn data_that_does_not_inflate_is_refused() {
    let first = FIN | RSV1 | BINARY;
    let fail = [Seen::Fail(1007)];
    for bad in
        [&b"\xff\xff\xff\xff"[..], b"\x07", b"\x00\x05\x00\x00\x00Hello\x00", b"\x00\x05\x00\xfa\xffHel"]
    {
        check_both("bad", &[(first, bad)], &fail);
    }
    let long = deflated(&(0..5000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    for cut in [1, 2, 10, 1000, long.len() - 10] {
        check_params("cut off", ALONE, &[(first, &long[..long.len() - cut])], &fail);
    }
}

#[test]
fn a_bomb_is_cut_at_the_limit() {
    let bomb = deflated(&vec![0; 64 * MIB]);
    assert!(bomb.len() < 70_000);
    for limit in [0, 1000, 65_536, MIB] {
        let mut receiver = Receiver::new(Role::Server, limit, Some(ALONE));
        let input = client_frame(FIN | RSV1 | BINARY, &bomb);
        assert_eq!(receive(&mut receiver, [&input[..]]), [Seen::Fail(1009)], "{limit}");
    }
    for (limit, len, fits) in [(1000, 1000, true), (999, 1000, false), (65_536, 65_536, true), (0, 0, true)] {
        let mut receiver = Receiver::new(Role::Server, limit, Some(ALONE));
        let input = client_frame(FIN | RSV1 | BINARY, &deflated(&vec![7; len]));
        let expected = if fits { Seen::Binary(vec![7; len]) } else { Seen::Fail(1009) };
        assert_eq!(receive(&mut receiver, [&input[..]]), [expected], "{limit} {len}");
    }
}

#[test]
fn sixty_thousand_compressed_fragments_are_one_message() {
    let message =
        (0..30_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect::<Vec<_>>();
    let compressed = deflated(&message);
    assert!(compressed.len() > 60_000);
    let mut input = client_frame(RSV1 | BINARY, b"");
    for byte in &compressed {
        input.extend(client_frame(CONTINUE, &[*byte]));
    }
    input.extend(client_frame(FIN, b""));
    assert!(receive(&mut server(Some(ALONE)), input.chunks(65_536)) == [Seen::Binary(message)]);
}

/// A peer as other libraries build one: flate2 with the agreed windows, and nothing of ours.
struct Peer {
    params: Params,
    deflater: Compress,
    inflater: Decompress,
}

impl Peer {
    fn new(params: Params) -> Self {
        let bits = params.client_max_window_bits.unwrap_or(15).max(9);
        let deflater = Compress::new_with_window_bits(Compression::new(6), false, bits);
        // An inflater whose window is as small as agreed notices a distance that leaves it.
        let bits = params.server_max_window_bits.unwrap_or(15).max(9);
        Self { params, deflater, inflater: Decompress::new_with_window_bits(false, bits) }
    }

    fn frames(&mut self, message: &[u8], fragment: usize) -> Vec<u8> {
        if self.params.client_no_context_takeover {
            self.deflater.reset();
        }
        let mut out = Vec::with_capacity(message.len() * 2 + 1024);
        self.deflater.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        // zlib flushes nothing when there is nothing; the standard's empty message is one byte.
        out.truncate(out.len().saturating_sub(4));
        if out.is_empty() {
            out.push(0);
        }
        let last = out.len().div_ceil(fragment) - 1;
        let frames = out.chunks(fragment).enumerate().flat_map(|(n, chunk)| {
            let first = if n == 0 { RSV1 | BINARY } else { CONTINUE };
            client_frame(first | if n == last { FIN } else { 0 }, chunk)
        });
        frames.collect()
    }

    fn message(&mut self, frame: &[u8]) -> Vec<u8> {
        let (first, payload) = split_frame(frame);
        if first & RSV1 == 0 {
            return payload.to_vec();
        }
        if self.params.server_no_context_takeover {
            self.inflater.reset(false);
            let bits = self.params.server_max_window_bits.unwrap_or(15).max(9);
            self.inflater = Decompress::new_with_window_bits(false, bits);
        }
        let input = [&payload[..], &[0, 0, 0xff, 0xff]].concat();
        let (mut message, mut piece, mut taken) = (Vec::new(), [0; 64], 0);
        loop {
            // Small pieces, so that matches are copied from the window and not from the output.
            let (total_in, total_out) = (self.inflater.total_in(), self.inflater.total_out());
            self.inflater.decompress(&input[taken..], &mut piece, FlushDecompress::Sync).unwrap();
            taken += usize::try_from(self.inflater.total_in() - total_in).unwrap();
            let made = usize::try_from(self.inflater.total_out() - total_out).unwrap();
            message.extend(&piece[..made]);
            if made < piece.len() && taken == input.len() {
                return message;
            }
        }
    }
}

fn sample(len: usize, seed: usize) -> Vec<u8> {
    let words = ["{\"temp\":", "21.5", ",\"plant\":", "17", "},", "lorem ", "ipsum ", "\u{fffd}"];
    let mut state = seed.wrapping_mul(2_654_435_761) + 1;
    let mut bytes = Vec::with_capacity(len + 10);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend(words[state >> 40 & 7].as_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn check_echo(settings: &Settings, offer: &str, fragment: usize) {
    let params = deflate::negotiate([offer], settings).unwrap();
    let mut peer = Peer::new(params);
    let mut receiver = server(Some(params));
    let deflating = params.deflating(Role::Server, settings);
    let mut takeover = params.takeover_deflater(Role::Server, settings);
    assert_ne!(deflating.is_some(), takeover.is_some());
    for (n, len) in
        [16, 0, 64, 256, 257, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 16].iter().enumerate()
    {
        for seed in 0..3 {
            let message = sample(*len, n + seed);
            let input = peer.frames(&message, fragment);
            let seen = receive(&mut receiver, input.chunks(1500));
            assert!(seen == [Seen::Binary(message.clone())], "{offer} {len}");
            let prepared = Prepared::new(MessageKind::Binary, &[&message]);
            let frame = match &mut takeover {
                Some(takeover) => takeover.prepared_frame(&prepared),
                None => prepared.bytes(deflating.as_ref()).clone(),
            };
            assert!(peer.message(&frame) == message, "{offer} {len}, the way back");
        }
    }
}

#[test]
fn cases_12_and_13_echo_under_every_combination_of_parameters() {
    let alone = Settings { min_size: 0, ..Settings::default() };
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=9; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=15; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=8; client_max_window_bits=10",
        "permessage-deflate; client_no_context_takeover; server_max_window_bits=12",
    ] {
        for settings in [alone, OPERATOR_TAKES_OVER] {
            check_echo(&settings, offer, 1 << 20);
            check_echo(&settings, offer, 1000);
        }
    }
}

#[test]
fn our_two_roles_understand_each_other_under_takeover() {
    let params = TAKEOVER;
    let mut server_side = params.takeover_deflater(Role::Server, &OPERATOR_TAKES_OVER).unwrap();
    let mut client = Receiver::new(Role::Client, MIB, Some(params));
    let mut lens = Vec::new();
    for _ in 0..5 {
        let frame = server_side.frame_of(MessageKind::Text, &[b"{\"plant\":", b"\"seventeen\"}"]);
        lens.push(frame.len());
        assert_eq!(receive(&mut client, [&frame[..]]), [text("{\"plant\":\"seventeen\"}")]);
    }
    assert!(lens[1] < lens[0] / 2, "the context is taken over: {lens:?}");
}

#[test]
fn what_is_sent_to_a_small_window_never_needs_a_larger_one() {
    for bits in 8..=15_u8 {
        let params = Params { server_max_window_bits: Some(bits), ..ALONE };
        let settings = Settings { min_size: 0, ..Settings::default() };
        let deflating = params.deflating(Role::Server, &settings).unwrap();
        let edge = 1_usize << bits;
        for len in [edge - 1, edge, edge + 1, 2 * edge] {
            let message = sample(len, len);
            let prepared = Prepared::new(MessageKind::Binary, &[&message]);
            let frame = prepared.bytes(Some(&deflating));
            assert_eq!(frame[0] & RSV1 != 0, bits == 15 || len <= edge, "{bits} {len}");
            assert!(Peer::new(params).message(frame) == message);
        }
    }
}

#[test]
fn a_message_says_what_it_is() {
    let message = Message::Text("häh".into());
    assert_eq!((message.kind(), message.len(), message.is_empty()), (MessageKind::Text, 4, false));
    assert_eq!(message.into_bytes(), "häh".as_bytes());
}

//! Fuzzes the STOMP decoder: no panic, the same frames however the stream is cut, and what was decoded survives
//! encoding. The first byte chooses the version, the second the length of the pieces.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tidegate_protocol::stomp::Version;
use tidegate_protocol::stomp::codec::{DecodeError, Decoder, Limits};
use tidegate_protocol::stomp::frame::Frame;

const LIMITS: Limits =
    Limits { headers_max: 20, head_bytes_max: 1024, body_bytes_max: 4096, frame_bytes_max: 5000 };
/// A colon that came plain is written as an escape, so a head may grow.
const TWICE: Limits =
    Limits { headers_max: 20, head_bytes_max: 2048, body_bytes_max: 4096, frame_bytes_max: 10_000 };

fuzz_target!(|input: &[u8]| {
    let [choice, piece, stream @ ..] = input else { return };
    let version = Version::ALL.get(usize::from(choice % 4)).copied();
    let whole = decode(version, LIMITS, stream, stream.len().max(1));
    assert_eq!(whole, decode(version, LIMITS, stream, usize::from(*piece).max(1)));

    // In 1.2 everything that a decoder can give has a spelling.
    if version == Some(Version::V1_2) {
        let mut again = BytesMut::new();
        for frame in &whole.0 {
            frame.encode(Version::V1_2, &mut again);
        }
        assert_eq!(decode(version, TWICE, &again, again.len().max(1)).0, whole.0);
    }
});

fn decode(
    version: Option<Version>,
    limits: Limits,
    stream: &[u8],
    piece: usize,
) -> (Vec<Frame>, Option<DecodeError>) {
    let mut decoder = Decoder::new(limits);
    if let Some(version) = version {
        decoder.set_version(version, limits);
    }
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

//! Any bytes, from a client or a server, in pieces: nothing panics, and what was decoded is encoded to a packet
//! that decodes to the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate_protocol::mqtt::packet::Version;
use tidegate_protocol::mqtt::{Codec, Limits};
use tidegate_protocol::topic::TopicLimits;

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else { return };
    let limits = Limits {
        packet_bytes_max: 1 << 16,
        topic: TopicLimits::STANDARD,
        user_properties_max: 100,
        filters_max: 100,
    };
    let mut codec = match mode % 4 {
        0 => Codec::server(limits),
        1 => Codec::client(Version::V3_1, limits),
        2 => Codec::client(Version::V3_1_1, limits),
        _ => Codec::client(Version::V5, limits),
    };
    let mut bytes = Bytes::copy_from_slice(data);
    loop {
        // Before it has seen this packet: of CONNECT there is one.
        let mut fresh = codec.clone();
        let Ok(Some(packet)) = codec.decode(&mut bytes) else { break };
        let encoded = codec.to_bytes(&packet);
        let mut again = encoded.clone();
        let decoded = fresh.decode(&mut again);
        assert_eq!(decoded.as_ref().ok().and_then(Option::as_ref), Some(&packet), "{encoded:02x?}");
        assert!(again.is_empty());
    }
});

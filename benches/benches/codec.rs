//! What does one message cost on its way from received bytes to a publication, and what does its shared wire form
//! cost? Once per message, whatever the number of subscribers.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use divan::Bencher;
use tidegate_protocol::mqtt::packet::{Packet, Publish, Version};
use tidegate_protocol::mqtt::{self, Codec, Limits};
use tidegate_protocol::publication::{Form, Publication, QoS};
use tidegate_protocol::session::{Output, Published, Reply, Request, Session};
use tidegate_protocol::subprotocol::{Opening, Settings, Subprotocol};
use tidegate_protocol::topic::{Topic, TopicLimits};
use tidegate_protocol::websocket::{Event, Message, MessageKind, Receiver, Role};
use tidegate_protocol::{raw, stomp};

fn main() {
    divan::main();
}

const PAYLOAD: [u8; 64] = [b'7'; 64];

fn topic() -> Topic {
    Topic::parse("plant/3/temp", &TopicLimits::STANDARD).unwrap()
}

fn publish_packet() -> Bytes {
    let limits = Limits {
        packet_bytes_max: 1 << 20,
        topic: TopicLimits::STANDARD,
        user_properties_max: 100,
        filters_max: 100,
    };
    let mut bytes = BytesMut::new();
    Codec::client(Version::V3_1_1, limits).encode(
        &Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: Some(topic()),
            packet_id: 0,
            properties: None,
            payload: Bytes::from_static(&PAYLOAD),
        }),
        &mut bytes,
    );
    bytes.freeze()
}

/// RFC 6455: header, unmask, UTF-8 for text; a burst of 100 frames in one read.
#[divan::bench(args = [MessageKind::Text, MessageKind::Binary])]
fn receive_100_frames(bencher: Bencher<'_, '_>, kind: MessageKind) {
    let opcode = if kind == MessageKind::Text { 0x81 } else { 0x82 };
    let mut burst = BytesMut::new();
    for _ in 0..100 {
        burst.extend_from_slice(&[opcode, 0x80 | 64, 1, 2, 3, 4]);
        burst.extend(PAYLOAD.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    bencher.counter(divan::counter::ItemsCount::new(100_usize)).with_inputs(|| burst.clone()).bench_values(
        |mut bytes| {
            let mut receiver = Receiver::new(Role::Server, 1 << 20, None);
            while let Ok(Some(Event::Message(message))) = receiver.poll(&mut bytes) {
                black_box(message);
            }
        },
    );
}

/// A session of each protocol, from a message to the request that the broker gets, and its reply.
#[divan::bench(args = ["raw payload", "raw JSON", "MQTT 3.1.1", "STOMP 1.2"])]
fn publish_through_a_session(bencher: Bencher<'_, '_>, name: &str) {
    let now = Instant::now();
    let (subprotocol, query, greeting, message) = match name {
        "raw payload" => {
            (Subprotocol::Raw(raw::Pinned::Nothing), Some("pub=plant/3/temp"), None, binary(&PAYLOAD))
        }
        "raw JSON" => {
            let operation = format!(r#"{{"op":"pub","topic":"plant/3/temp","text":"{}"}}"#, "7".repeat(64));
            (Subprotocol::Raw(raw::Pinned::Json), None, None, text(&operation))
        }
        "STOMP 1.2" => {
            let connect = text("CONNECT\naccept-version:1.2\nhost:x\n\n\0");
            let frame = format!("SEND\ndestination:/topic/plant/3/temp\n\n{}\0", "7".repeat(64));
            (Subprotocol::Stomp(stomp::Version::V1_2), None, Some(connect), text(&frame))
        }
        _ => {
            let connect = binary(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a");
            (Subprotocol::Mqtt, None, Some(connect), Message::Binary(publish_packet()))
        }
    };
    let opening = Opening { query, bearer: None };
    let mut session = subprotocol.open(&opening, &Settings::default(), now).unwrap();
    drain(&mut *session, now);
    if let Some(greeting) = greeting {
        session.handle_message(greeting, now);
        drain(&mut *session, now);
    }
    bencher.with_inputs(|| message.clone()).bench_local_values(|message| {
        session.handle_message(message, now);
        assert_eq!(drain(&mut *session, now), 1, "the message is not a publish");
    });
}

/// The shared forms of a QoS 0 message.
#[divan::bench(args = ["MQTT 3.1.1", "MQTT 5"])]
fn prepare(bencher: Bencher<'_, '_>, name: &str) {
    let form: &'static Form = if name == "MQTT 5" { &mqtt::MQTT5_LIVE } else { &mqtt::MQTT3_LIVE };
    let publication = Publication::new(topic(), Bytes::from_static(&PAYLOAD));
    bencher.bench(|| (form.encode)(black_box(&publication)));
}

fn text(text: &str) -> Message {
    Message::Text(text.to_owned().into())
}

fn binary(bytes: &[u8]) -> Message {
    Message::Binary(Bytes::copy_from_slice(bytes))
}

/// Plays a broker that agrees to everything. Gives the number of publishes.
fn drain(session: &mut dyn Session, now: Instant) -> usize {
    let mut publishes = 0;
    while let Some(output) = session.poll_output() {
        match output {
            Output::Request(token, Request::Connect(_)) => {
                session.handle_reply(token, Reply::Connected(Box::default()), now);
            }
            Output::Request(token, Request::Publish(publish)) => {
                black_box(publish);
                publishes += 1;
                session.handle_reply(token, Reply::Published(Published { matched: 1 }), now);
            }
            _ => {}
        }
    }
    publishes
}

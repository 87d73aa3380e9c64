//! What the WebSocket layer does for every subprotocol, over real sockets: sizes, compression, limits, bad input,
//! pings and deadlines.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::client::{ALL, Client, Protocol};
use support::mqtt::{self, Mqtt};
use support::socket::{Ask, End, Socket};
use support::stomp::Stomp;
use support::{Broker, within};
use tidegate::config::HeartBeat;
use tidegate_protocol::mqtt::packet::{ReasonCode, Version};
use tidegate_protocol::stomp;
use tidegate_protocol::websocket::deflate::Settings;

/// Bytes that repeat at a distance, so that windows and dictionaries matter, and that are not UTF-8.
fn payload(len: usize) -> Bytes {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let word: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        0x80 | (state % 64) as u8
    })
    .take(5000.min(len))
    .collect();
    word.iter().copied().cycle().take(len).collect()
}

const SIZES: [usize; 8] = [0, 1, 125, 126, 65535, 65536, 70_000, 900 * 1024];

/// Every size through this compression, from and to every protocol.
async fn check_sizes(broker: &Broker, deflate: Option<Settings>, publishers: &[Protocol], sizes: &[usize]) {
    let ask = Ask { deflate, ..Ask::default() };
    let mut subscribers = Vec::new();
    for protocol in ALL {
        let mut subscriber = Client::subscriber_with(broker, protocol, &["a"], ask).await;
        let negotiated = subscriber.socket().handshake.deflate;
        assert_eq!(negotiated.is_some(), deflate.is_some(), "{protocol:?}");
        subscribers.push(subscriber);
    }
    for from in publishers {
        let mut publisher = Client::publisher_with(broker, *from, "a", ask).await;
        for size in sizes {
            let payload = payload(*size);
            publisher.publish("a", payload.clone()).await;
            for subscriber in &mut subscribers {
                let got = subscriber.next().await;
                let to = subscriber.protocol;
                assert!(got.payload == payload, "{size} bytes from {from:?} to {to:?} under {deflate:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_of_every_length_encoding_arrive_uncompressed() {
    // MessagePack and JSON need room around the payload: base64 makes four bytes of three.
    let broker =
        Broker::start("[websocket]\nmax_message_size = \"2 MiB\"\n[queue]\nmax_bytes = \"4 MiB\"").await;
    check_sizes(&broker, None, &ALL, &SIZES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_of_every_length_encoding_arrive_compressed() {
    let broker =
        Broker::start("[websocket]\nmax_message_size = \"2 MiB\"\n[queue]\nmax_bytes = \"4 MiB\"").await;
    let publishers = [Protocol::Payload, Protocol::MessagePack, Protocol::Mqtt5, Protocol::Stomp12];
    check_sizes(&broker, Some(Settings::default()), &publishers, &SIZES).await;
    for counter in ["compressed", "inflated"] {
        let messages = broker.metric(&format!("tidegate_deflate_{counter}_messages_total")).await;
        let before = broker.metric(&format!("tidegate_deflate_{counter}_before_bytes_total")).await;
        let after = broker.metric(&format!("tidegate_deflate_{counter}_after_bytes_total")).await;
        assert!(messages > 0 && before > 0 && after > 0 && before != after, "{counter}");
    }
    broker.metric_becomes("tidegate_deflate_connections", |open| open == 0).await;
    let ask = Ask { deflate: Some(Settings::default()), ..Ask::default() };
    let _open = Client::subscriber_with(&broker, Protocol::Mqtt5, &["a"], ask).await;
    assert_eq!(broker.metric("tidegate_deflate_connections").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_combination_of_deflate_parameters_works() {
    for takeover in [true, false] {
        let settings = format!(
            "[websocket.deflate]\nserver_no_context_takeover = {}\nclient_no_context_takeover = {}\nmin_size = 16",
            !takeover, !takeover
        );
        let broker = Broker::start(&settings).await;
        for bits in 8..=15 {
            for (server, client) in [(false, false), (false, true), (true, false), (true, true)] {
                let asked = Settings {
                    server_no_context_takeover: server,
                    client_no_context_takeover: client,
                    server_max_window_bits: bits,
                    ..Settings::default()
                };
                check_sizes(
                    &broker,
                    Some(asked),
                    &[Protocol::Mqtt5],
                    &[15, 16, 256, 257, 3000, 3000, 40_000],
                )
                .await;
            }
        }
    }
}

#[tokio::test]
async fn the_operator_limits_the_window_and_switches_compression_off() {
    let broker = Broker::start("[websocket.deflate]\nserver_max_window_bits = 10").await;
    let ask = Ask { deflate: Some(Settings::default()), ..Ask::default() };
    let socket = Socket::open(broker.address, ask).await;
    assert_eq!(socket.handshake.deflate.unwrap().server_max_window_bits, Some(10));
    let broker = Broker::start("[websocket.deflate]\nenabled = false").await;
    let socket = Socket::open(broker.address, ask).await;
    assert_eq!(socket.handshake.deflate, None);
}

#[tokio::test]
async fn a_message_to_many_is_compressed_once() {
    let broker = Broker::start("").await;
    let ask = Ask { deflate: Some(Settings::default()), ..Ask::default() };
    let mut subscribers = Vec::new();
    for _ in 0..20 {
        subscribers.push(Client::subscriber_with(&broker, Protocol::Mqtt311, &["a"], ask).await);
    }
    // The counter is the process's, and other tests run beside this one: what is sent shows it as well.
    let mut publisher = Client::publisher(&broker, Protocol::Mqtt311, "a").await;
    publisher.publish_acked("a", vec![b'x'; 10_000]).await;
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next().await.payload.len(), 10_000);
    }
    let sent = broker.metric("tidegate_sent_bytes_total{protocol=\"mqtt\"}").await;
    assert!(sent < 20 * 500, "{sent}");
}

// ---- the memory of context takeover ----

#[tokio::test]
async fn beyond_the_takeover_budget_connections_go_without_takeover() {
    let settings = "[websocket.deflate]\nserver_no_context_takeover = false\nclient_no_context_takeover = false\n\
                    takeover_memory = \"700 KiB\"";
    let broker = Broker::start(settings).await;
    let asked = Settings {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        ..Settings::default()
    };
    let ask = Ask { deflate: Some(asked), ..Ask::default() };
    let takes_over = |socket: &Socket| !socket.handshake.deflate.unwrap().server_no_context_takeover;
    let (first, second) = (Socket::open(broker.address, ask).await, Socket::open(broker.address, ask).await);
    assert!(takes_over(&first) && takes_over(&second));
    let third = Socket::open(broker.address, ask).await;
    assert!(!takes_over(&third), "the budget is spent");
    // What has no use for it does not spend it.
    drop(first);
    let retry = async { while !takes_over(&Socket::open(broker.address, ask).await) {} };
    within("the memory to be given back", retry).await;
}

// ---- limits ----

#[tokio::test]
async fn a_message_above_the_limit_is_cut_with_1009_and_nobody_else_notices() {
    let settings = "[websocket]\nmax_message_size = \"64 KiB\"\nmax_message_size_preauth = \"4 KiB\"\n\
                    [stomp]\nmax_body = \"64 KiB\"";
    let broker = Broker::start(settings).await;
    let mut bystander = Client::subscriber(&broker, Protocol::Mqtt5, &["a", "end"]).await;
    for protocol in ALL {
        for deflate in [None, Some(Settings::default())] {
            let mut client =
                Client::publisher_with(&broker, protocol, "a", Ask { deflate, ..Ask::default() }).await;
            client.barrier().await;
            client.publish("a", vec![b'x'; 70_000]).await;
            let end = client.socket().end().await;
            assert_eq!(end.code(), 1009, "{protocol:?} deflate={}: {end:?}", deflate.is_some());
        }
    }
    Client::publisher(&broker, Protocol::Json, "end").await.publish_acked("end", "").await;
    assert_eq!(bystander.until("end").await, []);
}

#[tokio::test]
async fn before_the_login_the_limit_is_lower() {
    let broker = Broker::start("[websocket]\nmax_message_size_preauth = \"4 KiB\"").await;
    let mut mqtt = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    mqtt.socket.send_binary(vec![0x10; 5000]).await;
    assert_eq!(mqtt.socket.end().await.code(), 1009);
    let mut stomp = Stomp::open(&broker, stomp::Version::V1_2, Ask::default()).await;
    stomp.socket.send_text(&format!("CONNECT\nx:{}", "y".repeat(5000))).await;
    assert_eq!(stomp.socket.end().await.code(), 1009);
}

#[tokio::test]
async fn mqtt_5_is_told_that_its_packet_is_too_large() {
    let broker =
        Broker::start("[websocket]\nmax_message_size = \"64 KiB\"\n[stomp]\nmax_body = \"64 KiB\"").await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    client.publish(mqtt::publish("a", vec![0; 70_000])).await;
    let (reason, end) = client.end().await;
    assert_eq!((reason, end.code()), (Some(ReasonCode::PACKET_TOO_LARGE), 1009));
}

// ---- bad input ----

#[tokio::test]
async fn bad_input_ends_that_client_alone() {
    let broker = Broker::start("").await;
    let mut bystanders = Vec::new();
    for protocol in ALL {
        bystanders.push(Client::subscriber(&broker, protocol, &["end"]).await);
    }
    // Frames, whatever the protocol: name, bytes, close code.
    let frames: [(&str, &[u8], u16); 10] = [
        ("not masked", b"\x81\x01x", 1002),
        ("RSV2", b"\xa1\x80\0\0\0\0", 1002),
        ("RSV1 without the extension", b"\xc1\x80\0\0\0\0", 1002),
        ("a reserved opcode", b"\x83\x80\0\0\0\0", 1002),
        ("a fragmented ping", b"\x09\x80\0\0\0\0", 1002),
        ("a long ping", b"\x89\xfe\0\x7e\0\0\0\0", 1002),
        ("nothing to continue", b"\x80\x80\0\0\0\0", 1002),
        ("a length of 64 bits that needs 7", b"\x82\xff\0\0\0\0\0\0\0\x01\0\0\0\0x", 1002),
        ("text that is not UTF-8", b"\x81\x81\0\0\0\0\xff", 1007),
        ("a close of one byte", b"\x88\x81\0\0\0\0x", 1002),
    ];
    for protocol in ALL {
        for (name, bytes, code) in frames {
            let mut client = Client::publisher(&broker, protocol, "a").await;
            client.socket().write(bytes).await;
            assert_eq!(client.socket().end().await.code(), code, "{protocol:?}: {name}");
        }
    }
    // A claim of 2^62 bytes costs nothing.
    let mut client = Client::publisher(&broker, Protocol::Payload, "a").await;
    client.socket().write(b"\x82\xff\x40\0\0\0\0\0\0\0\0\0\0\0").await;
    assert_eq!(client.socket().end().await.code(), 1009);

    // Each protocol's own.
    for (protocol, message, is_text, code) in [
        (Protocol::Json, &b"{\"op\":"[..], true, 4000),
        (Protocol::MessagePack, b"\xc1", false, 4000),
        (Protocol::Json, b"{\"op\":\"nonsense\"}", true, 1000),
        (Protocol::Mqtt311, b"\xf0\x00", false, 1002),
        (Protocol::Mqtt5, b"\x00\x00", false, 1002),
        (Protocol::Mqtt5, b"text", true, 1003),
        (Protocol::Mqtt311, b"\x82\xff\xff\xff\xff\x7f", false, 1002),
        (Protocol::Stomp12, b"NONSENSE\n\n\0", true, 1002),
        (Protocol::Stomp12, b"SEND\ndestination:/topic/a\nx:\\q\n\n\0", true, 1002),
        (Protocol::Stomp12, b"SEND\n\n\0", true, 4000),
    ] {
        let mut client = Client::connected(&broker, protocol, Ask::default()).await;
        let socket = client.socket();
        if is_text {
            socket.send_text(std::str::from_utf8(message).unwrap()).await;
        } else {
            socket.send_binary(message).await;
        }
        if code == 1000 {
            // An operation that makes no sense has an `err`, and the next one may make more.
            socket.message().await;
            socket.barrier().await;
        } else {
            assert_eq!(socket.end().await.code(), code, "{protocol:?}: {message:?}");
        }
    }

    Client::publisher(&broker, Protocol::Json, "end").await.publish_acked("end", "x").await;
    for bystander in &mut bystanders {
        assert_eq!(bystander.next().await.payload, "x", "{:?}", bystander.protocol);
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_code() {
    let broker = Broker::start("").await;
    for protocol in ALL {
        for code in [1000, 1001, 3000, 4999] {
            let socket = Client::publisher(&broker, protocol, "a").await.into_socket();
            assert_eq!(socket.close(code).await.code(), code, "{protocol:?}");
        }
    }
    let mut socket = Socket::open(broker.address, Ask::default()).await;
    socket.answer_close().await;
    assert_eq!(socket.end().await.code(), 1005, "a Close without a code has an answer without one");
    let by_peer = broker.metric("tidegate_disconnects_total{reason=\"by_peer\"}").await;
    assert_eq!(by_peer, ALL.len() as u64 * 4 + 1);
}

#[tokio::test]
async fn pings_are_answered_amid_a_fragmented_message() {
    let broker = Broker::start("").await;
    let mut subscriber = Client::subscriber(&broker, Protocol::Payload, &["a"]).await;
    let mut client = Client::publisher(&broker, Protocol::Payload, "a").await;
    let socket = client.socket();
    socket.write(b"\x01\x82\0\0\0\0ab").await;
    socket.barrier().await;
    socket.write(b"\x00\x81\0\0\0\0c").await;
    socket.barrier().await;
    socket.write(b"\x80\x81\0\0\0\0d").await;
    assert_eq!(subscriber.next().await.payload, "abcd");
}

// ---- time ----

#[tokio::test]
async fn whoever_does_not_connect_in_time_is_closed() {
    let broker = Broker::start_with("", |config| {
        config.mqtt.connect_timeout = ms(50);
        config.stomp.connect_timeout = ms(50);
    })
    .await;
    let mut mqtt = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    // SEC-6: a dribble and a WebSocket ping do not extend it.
    mqtt.socket.send_binary(&b"\x10"[..]).await;
    mqtt.socket.barrier().await;
    assert_eq!(mqtt.end().await.1.code(), 4103);
    let mut stomp = Stomp::open(&broker, stomp::Version::V1_2, Ask::default()).await;
    stomp.socket.send_text("CONN").await;
    let (error, end) = stomp.end().await;
    assert_eq!((error.is_some(), end.code()), (true, 4103));
}

#[tokio::test]
async fn a_client_that_is_silent_is_pinged_and_then_closed() {
    let broker = Broker::start_with("", |config| {
        config.websocket.ping_interval = ms(30);
        config.websocket.pong_timeout = ms(30);
    })
    .await;
    for protocol in ALL {
        let mut client = Client::subscriber(&broker, protocol, &["a"]).await;
        let socket = client.socket();
        for _ in 0..3 {
            socket.ping().await;
        }
        socket.answers_pings = false;
        assert_eq!(socket.end().await.code(), 4200, "{protocol:?}");
    }
    let timeouts = broker.metric("tidegate_disconnects_total{reason=\"ping_timeout\"}").await;
    assert_eq!(timeouts, ALL.len() as u64);
}

#[tokio::test]
async fn a_client_without_data_is_closed_after_the_idle_timeout_though_it_answers_pings() {
    let broker = Broker::start_with("", |config| {
        config.websocket.ping_interval = ms(20);
        config.websocket.idle_timeout = Some(ms(200));
    })
    .await;
    for protocol in ALL {
        let mut client = Client::subscriber(&broker, protocol, &["a"]).await;
        client.socket().ping().await;
        assert_eq!(client.socket().end().await.code(), 4200, "{protocol:?}");
    }
}

#[tokio::test]
async fn keep_alive_and_heart_beats_end_a_silent_client_in_the_protocols_words() {
    let broker = Broker::start_with("", |config| {
        config.mqtt.keepalive_max = Duration::from_secs(1);
        config.mqtt.keepalive_multiplier = 0.05;
        config.stomp.heart_beat = HeartBeat(Some(ms(30)), Some(ms(30)));
    })
    .await;
    let mut stomp = Stomp::open(&broker, stomp::Version::V1_2, Ask::default()).await;
    let connected = stomp.connect(&[("heart-beat", "30,30")]).await;
    assert_eq!(connected.header("heart-beat"), Some("30,30"));
    let (error, end) = stomp.end().await;
    assert_eq!((error.is_some(), end.code()), (true, 4200));

    let mut mqtt = Mqtt::open(&broker, Version::V5, Ask::default()).await;
    let ack = mqtt.connect(mqtt::connect(Version::V5, "")).await;
    assert_eq!(ack.properties.unwrap().server_keep_alive_s, Some(1));
    let (reason, end) = mqtt.end().await;
    assert_eq!((reason, end.code()), (Some(ReasonCode::KEEP_ALIVE_TIMEOUT), 4200));
}

#[tokio::test]
async fn the_server_sends_heart_beats_as_agreed() {
    let broker = Broker::start_with("", |config| {
        config.stomp.heart_beat = HeartBeat(Some(ms(20)), None);
    })
    .await;
    let mut stomp = Stomp::open(&broker, stomp::Version::V1_2, Ask::default()).await;
    stomp.connect(&[("heart-beat", "0,10")]).await;
    for _ in 0..3 {
        assert_eq!(stomp.socket.message().await.into_bytes(), "\n");
    }
}

#[tokio::test]
async fn after_the_close_a_peer_that_stays_is_dropped() {
    let broker = Broker::start_with("", |config| config.websocket.close_timeout = ms(50)).await;
    let mut socket = Socket::open(broker.address, Ask { target: "/ws?t=a", ..Ask::default() }).await;
    socket.send_text("not allowed").await;
    assert_eq!(socket.end().await.code(), 4003);
    // No answer to the Close: the broker gives up by itself.
    socket.tcp_end().await;
    broker.metric_becomes("tidegate_connections{protocol=\"raw\"}", |value| value == 0).await;
    assert_eq!(broker.clients(), 0);
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_our_close_ends_the_connection_however_soon_it_comes() {
    // Longer than the patience of this test.
    let broker = Broker::start("[websocket]\nclose_timeout = \"60s\"").await;
    let mut sockets = Vec::new();
    for _ in 0..200 {
        let mut socket = Socket::open(broker.address, Ask { target: "/ws?t=a", ..Ask::default() }).await;
        socket.send_text("this connection is read-only").await;
        assert!(matches!(socket.end().await, End::Closed { code: 4003, .. }));
        socket.answer_close().await;
        sockets.push(socket);
    }
    within("the connections to end", async {
        while broker.clients() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

//! One connection: the handshake, malformed input, heartbeat, backpressure and the end, against a server that does
//! what a test says.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod support;

use bytes::Bytes;
use serde_json::json;
use support::fake::{Fake, Peer};
use support::{next, next_message, options, soon};
use tidegate_client::{
    Client, ConnectError, Disconnect, End, Event, Events, Limits, Options, Publication, RequestError,
    SubscribeOptions, UrlError,
};
use tidegate_protocol::websocket::{self, frame};

async fn connected_with(options: Options) -> (Peer, Client, Events) {
    let fake = Fake::new().await;
    let (peer, connected) = tokio::join!(fake.accept(), Client::connect_with(&fake.url, options));
    let (client, events) = connected.unwrap();
    (peer, client, events)
}

async fn connected() -> (Peer, Client, Events) {
    connected_with(options()).await
}

fn hi() -> Publication {
    Publication::text("a", "hi").unwrap()
}

#[tokio::test]
async fn a_wss_url_is_refused_in_so_many_words() {
    let error = Client::connect("wss://127.0.0.1:1/").await.unwrap_err();
    assert!(matches!(error, ConnectError::Url(UrlError::Tls)));
    assert!(error.to_string().contains("TLS"), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_an_error_of_connect() {
    let fake = Fake::new().await;
    let url = fake.url.clone();
    drop(fake);
    assert!(matches!(Client::connect(&url).await, Err(ConnectError::Io(_))));
}

/// The first answer to the first operation, and what `connect` makes of it.
async fn check_greeting(
    headers: &str,
    answer: Option<serde_json::Value>,
    expected: fn(&ConnectError) -> bool,
) {
    let fake = Fake::new().await;
    let serve = async {
        let mut peer = fake.accept_handshake(headers).await;
        if let Some(answer) = answer {
            peer.operation().await;
            peer.say(answer).await;
        }
        peer
    };
    let (_peer, connected) = tokio::join!(serve, Client::connect(&fake.url));
    let error = connected.unwrap_err();
    assert!(expected(&error), "{error:?}");
}

#[tokio::test]
async fn connect_fails_when_the_greeting_does() {
    let token = "Sec-WebSocket-Protocol: raw.msgpack.v1\r\n";
    check_greeting("", None, |error| matches!(error, ConnectError::NoSubprotocol)).await;
    check_greeting("Sec-WebSocket-Protocol: mqtt\r\n", None, |error| {
        matches!(error, ConnectError::Handshake(_))
    })
    .await;
    let refusal = json!({"op": "err", "code": "unsupported", "reason": "no", "retry": false});
    check_greeting(token, Some(refusal), |error| matches!(error, ConnectError::Hello(_))).await;
    check_greeting(token, Some(json!([])), |error| {
        matches!(error, ConnectError::Lost(Disconnect::Answer(_)))
    })
    .await;
}

#[tokio::test]
async fn connect_gives_up_in_time() {
    let fake = Fake::new().await;
    let connect_timeout = std::time::Duration::from_millis(10);
    let connecting = Client::connect_with(&fake.url, Options { connect_timeout, ..options() });
    let serve = async { fake.accept_handshake("Sec-WebSocket-Protocol: raw.msgpack.v1\r\n").await };
    let (_peer, connected) = tokio::join!(serve, connecting);
    assert!(matches!(connected, Err(ConnectError::TimedOut)));
}

/// The broker sends these bytes: the code that it is told, and the client's end.
async fn check_malformed(bytes: &[u8], code: u16) {
    let (mut peer, client, mut events) = connected().await;
    let request = tokio::spawn(async move { client.publish_acknowledged(&hi()).await });
    peer.operation().await;
    peer.send(bytes).await;
    assert_eq!(peer.closed().await.0, code, "{bytes:x?}");
    let event = next(&mut events).await;
    assert!(matches!(event, Some(Event::Ended(End::Disconnect(_)))), "{bytes:x?}: {event:?}");
    assert!(matches!(soon(request).await.unwrap(), Err(RequestError::ConnectionLost)));
    assert!(next(&mut events).await.is_none());
}

#[tokio::test]
async fn malformed_input_ends_the_connection_with_its_code() {
    for (bytes, code) in [
        // Masked, a reserved opcode, a reserved bit.
        (&b"\x82\x80\0\0\0\0"[..], 1002),
        (b"\x83\0", 1002),
        (b"\xc2\0", 1002),
        // Text, and text that is none.
        (b"\x81\x02{}", 1003),
        (b"\x81\x01\xff", 1007),
        // Beyond `message_bytes_max`, by the claim alone.
        (b"\x82\x7f\0\0\0\0\xff\xff\xff\xff", 1009),
        // Not MessagePack, not a map, an `ok` without an id, an answer of another kind.
        (b"\x82\x01\xc1", 1002),
        (b"\x82\x01\x90", 1002),
        (b"\x82\x07\x81\xa2op\xa2ok", 1002),
        (b"\x82\x0d\x82\xa2op\xa4pong\xa2id\0", 1002),
    ] {
        check_malformed(bytes, code).await;
    }
}

#[tokio::test]
async fn answers_that_it_does_not_know_are_passed_over() {
    let (mut peer, _client, mut events) = connected().await;
    peer.say(json!({"op": "join", "topic": "a", "user": "u"})).await;
    peer.say(json!({"op": "ok", "id": 4_000_000})).await;
    peer.say(json!({"op": "lag", "dropped": 3, "conflated": 1, "topics": ["a"]})).await;
    match next(&mut events).await {
        Some(Event::Lag(lag)) => assert_eq!((lag.dropped, lag.conflated, lag.topics.len()), (3, 1, 1)),
        other => panic!("expected the lag, not {other:?}"),
    }
}

#[tokio::test]
async fn pings_are_answered_with_their_payload() {
    let (mut peer, _client, _events) = connected().await;
    peer.send(&frame::ping(b"tide", None)).await;
    assert_eq!(peer.next().await, Some(websocket::Event::Pong(Bytes::from_static(b"tide"))));
}

#[tokio::test]
async fn a_request_without_an_answer_ends_in_time() {
    let request_timeout = std::time::Duration::from_millis(10);
    let (mut peer, client, _events) = connected_with(Options { request_timeout, ..options() }).await;
    assert!(matches!(soon(client.ping()).await, Err(RequestError::TimedOut)));
    peer.operation().await;
}

#[tokio::test]
async fn requests_that_nobody_waits_for_make_room_for_others() {
    let limits = Limits { in_flight_max: 2, ..Limits::default() };
    let request_timeout = std::time::Duration::from_millis(10);
    let (mut peer, client, _events) = connected_with(Options { limits, request_timeout, ..options() }).await;
    for _ in 0..2 {
        assert!(matches!(soon(client.ping()).await, Err(RequestError::TimedOut)));
        peer.operation().await;
    }
    client.publish(&hi()).await.unwrap();
    assert_eq!(peer.operation().await["op"], "pub");
}

#[tokio::test]
async fn a_user_who_does_not_read_stops_the_socket_and_loses_nothing() {
    const MESSAGES: usize = 20_000;
    let limits = Limits { events_max: 8, ..Limits::default() };
    let (mut peer, client, mut events) = connected_with(Options { limits, ..options() }).await;
    let payload = "x".repeat(1000);
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = written.clone();
    let writer = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            peer.message("a", &payload).await;
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        peer
    });
    // The kernel's buffers take some; when nothing moves any more, the writer is stopped.
    let mut before = usize::MAX;
    while before != written.load(std::sync::atomic::Ordering::Relaxed) || before == 0 {
        before = written.load(std::sync::atomic::Ordering::Relaxed);
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }
    assert!(before < MESSAGES, "all of it was taken in");
    assert!(!writer.is_finished());
    for _ in 0..MESSAGES {
        assert_eq!(next_message(&mut events).await.payload.len(), 1000);
    }
    let mut peer = soon(writer).await.unwrap();
    let publication = hi();
    let (answer, _) = tokio::join!(client.publish_acknowledged(&publication), peer.grant());
    assert_eq!(answer.unwrap(), 1);
}

#[tokio::test]
async fn publishing_waits_while_the_broker_does_not_read() {
    let limits = Limits { commands_max: 1, output_bytes_max: 1, ..Limits::default() };
    let (mut peer, client, _events) = connected_with(Options { limits, ..options() }).await;
    let publication = Publication::text("a", "x".repeat(900)).unwrap();
    let mut sent = 0_u32;
    loop {
        // Ready at once while there is room, pending when there is none and the task has had its turn.
        let mut publish = std::pin::pin!(client.publish(&publication));
        let mut turns = 0;
        let ready = std::future::poll_fn(|context| match publish.as_mut().poll(context) {
            std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
            std::task::Poll::Pending if turns == 1000 => std::task::Poll::Ready(None),
            std::task::Poll::Pending => {
                turns += 1;
                context.waker().wake_by_ref();
                std::task::Poll::Pending
            }
        });
        match ready.await {
            Some(result) => result.unwrap(),
            None => break,
        }
        sent += 1;
        assert!(sent < 1_000_000, "nothing holds the publisher");
    }
    for _ in 0..sent {
        assert_eq!(peer.operation().await["op"], "pub");
    }
}

#[tokio::test]
async fn dropping_the_last_clone_closes_with_1000() {
    let (mut peer, client, mut events) = connected().await;
    let clone = client.clone();
    drop(client);
    let (subscribed, _) = tokio::join!(clone.subscribe("a", SubscribeOptions::new()), peer.grant());
    subscribed.unwrap();
    peer.message("a", "kept").await;
    drop(clone);
    assert_eq!(peer.closed().await.0, 1000);
    while let Some(event) = next(&mut events).await {
        assert!(matches!(event, Event::Message(_)), "{event:?}");
    }
    assert!(peer.next().await.is_none());
}

#[test]
fn the_end_of_the_runtime_closes_with_1000_too() {
    let server = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fake = server.block_on(Fake::new());
    let url = fake.url.clone();
    let user = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Client::connect(&url).await.map(drop).unwrap() });
    });
    server.block_on(async {
        let mut peer = fake.accept().await;
        assert_eq!(peer.closed().await.0, 1000);
    });
    user.join().unwrap();
}

#[tokio::test]
async fn close_waits_for_the_other_end_within_its_timeout() {
    let (mut peer, client, mut events) = connected().await;
    client.publish(&hi()).await.unwrap();
    let answer = async {
        assert_eq!(peer.operation().await["op"], "pub");
        assert_eq!(peer.closed().await.0, 1000);
        peer.close(1000, "").await;
    };
    soon(async { tokio::join!(client.close(), answer) }).await;
    assert!(next(&mut events).await.is_none());

    let close_timeout = std::time::Duration::from_millis(10);
    let (mut peer, client, mut events) = connected_with(Options { close_timeout, ..options() }).await;
    soon(client.close()).await;
    assert_eq!(peer.closed().await.0, 1000);
    assert!(next(&mut events).await.is_none());
}

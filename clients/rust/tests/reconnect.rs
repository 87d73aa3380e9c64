//! The end of connections and what comes after it, against a server that does what a test says.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic"
)]

mod support;

use std::time::Duration;

use serde_json::json;
use support::fake::{Fake, Peer};
use support::{next, next_message, options, soon};
use tidegate_client::{
    Client, ConnectError, Disconnect, End, Event, Events, Options, Publication, RequestError,
    SubscribeOptions,
};

/// A server, its end of the first connection, and a client with these options.
async fn connected_with(options: Options) -> (Fake, Peer, Client, Events) {
    let fake = Fake::new().await;
    let (peer, connected) = tokio::join!(fake.accept(), Client::connect_with(&fake.url, options));
    let (client, events) = connected.unwrap();
    (fake, peer, client, events)
}

async fn connected() -> (Fake, Peer, Client, Events) {
    connected_with(options()).await
}

async fn subscribe(client: &Client, peer: &mut Peer, filter: &str) {
    let (answer, operation) = tokio::join!(client.subscribe(filter, SubscribeOptions::new()), peer.grant());
    answer.unwrap();
    assert_eq!(operation["topic"], filter);
}

fn hi() -> Publication {
    Publication::text("a", "hi").unwrap()
}

#[tokio::test]
async fn subscriptions_are_restored_and_the_gap_is_told() {
    let (fake, mut peer, client, mut events) = connected().await;
    subscribe(&client, &mut peer, "a/#").await;
    subscribe(&client, &mut peer, "b").await;
    subscribe(&client, &mut peer, "c").await;
    tokio::join!(async { client.unsubscribe("b").await.unwrap() }, peer.grant());
    peer.message("a/1", "before").await;
    assert_eq!(next_message(&mut events).await.text(), Some("before"));

    drop(peer);
    assert!(matches!(
        next(&mut events).await,
        Some(Event::Lost { cause: Disconnect::Eof | Disconnect::Io(_), .. })
    ));
    let mut peer = fake.accept().await;
    assert_eq!(peer.grant().await["topic"], "a/#");
    assert_eq!(peer.grant().await["topic"], "c");
    peer.message("a/1", "after").await;
    assert!(matches!(next(&mut events).await, Some(Event::Restored { may_have_gap: true })));
    assert_eq!(next_message(&mut events).await.text(), Some("after"));
    assert!(client.is_connected());
}

#[tokio::test]
async fn a_subscription_that_is_refused_later_is_told() {
    let (fake, mut peer, client, mut events) = connected().await;
    subscribe(&client, &mut peer, "a").await;
    drop(peer);
    let mut peer = fake.accept().await;
    let sub = peer.operation().await;
    peer.say(json!({"op": "err", "id": sub["id"], "code": "denied", "reason": "no", "retry": false})).await;
    assert!(matches!(next(&mut events).await, Some(Event::Lost { .. })));
    assert!(matches!(next(&mut events).await, Some(Event::Restored { .. })));
    match next(&mut events).await {
        Some(Event::SubscriptionLost { filter, refused }) => {
            assert_eq!((filter.as_str(), &*refused.code), ("a", "denied"));
        }
        other => panic!("expected the refusal, not {other:?}"),
    }
}

#[tokio::test]
async fn what_was_in_flight_fails_and_is_not_sent_again() {
    let (fake, mut peer, client, mut events) = connected().await;
    let lose = async {
        assert_eq!(peer.operation().await["op"], "pub");
        drop(peer);
    };
    let publication = hi();
    let (published, ()) = tokio::join!(client.publish_acknowledged(&publication), lose);
    assert!(matches!(published, Err(RequestError::ConnectionLost)));

    let mut peer = fake.accept().await;
    assert!(matches!(next(&mut events).await, Some(Event::Lost { .. })));
    assert!(matches!(next(&mut events).await, Some(Event::Restored { may_have_gap: false })));
    // The first thing that comes is the ping, so the publish did not.
    let pong = async {
        let ping = peer.operation().await;
        assert_eq!(ping["op"], "ping");
        peer.say(json!({"op": "pong", "id": ping["id"]})).await;
    };
    let (ping, ()) = tokio::join!(client.ping(), pong);
    ping.unwrap();
}

#[tokio::test]
async fn without_a_connection_requests_fail_at_once_and_unsubscribe_works() {
    let fake = Fake::new().await;
    let patient = Options {
        backoff: tidegate_client::Backoff {
            first: Duration::from_secs(3600),
            max: Duration::from_secs(3600),
        },
        ..options()
    };
    let (peer, connected) = tokio::join!(fake.accept(), Client::connect_with(&fake.url, patient));
    let (client, mut events) = connected.unwrap();
    drop(peer);
    assert!(matches!(next(&mut events).await, Some(Event::Lost { .. })));
    assert!(!client.is_connected());
    assert!(matches!(client.publish(&hi()).await, Err(RequestError::NotConnected)));
    assert!(matches!(client.publish_acknowledged(&hi()).await, Err(RequestError::NotConnected)));
    assert!(matches!(client.ping().await, Err(RequestError::NotConnected)));
    let subscribed = client.subscribe("a", SubscribeOptions::new()).await;
    assert!(matches!(subscribed, Err(RequestError::NotConnected)));
    soon(client.unsubscribe("a")).await.unwrap();
    soon(client.close()).await;
    assert!(next(&mut events).await.is_none());
}

/// The broker closes with this code: whether the client comes again. It answers the Close either way.
async fn check_close(code: u16, comes_again: bool) {
    let (fake, mut peer, client, mut events) = connected().await;
    peer.close(code, "why").await;
    assert_eq!(peer.closed().await.0, code);
    let event = next(&mut events).await;
    if comes_again {
        assert!(matches!(event, Some(Event::Lost { .. })), "{code}: {event:?}");
        fake.accept().await;
        assert!(matches!(next(&mut events).await, Some(Event::Restored { .. })), "{code}");
        return;
    }
    match event {
        Some(Event::Ended(End::Disconnect(Disconnect::Closed { code: Some(told), reason }))) => {
            assert_eq!((told, reason.as_str()), (code, "why"));
        }
        other => panic!("{code}: expected the end, not {other:?}"),
    }
    assert!(next(&mut events).await.is_none());
    assert!(matches!(client.publish(&hi()).await, Err(RequestError::Closed)));
}

#[tokio::test]
async fn comes_again_after_the_codes_that_allow_it() {
    for code in [1011, 1013, 4100, 4101, 4103, 4200, 4202] {
        check_close(code, true).await;
    }
}

#[tokio::test]
async fn ends_after_the_codes_that_forbid_to_come_again() {
    for code in [1000, 1002, 1003, 1007, 1008, 1009, 4000, 4001, 4002, 4004, 4005] {
        check_close(code, false).await;
    }
}

#[tokio::test]
async fn waits_as_long_as_a_restarting_broker_says() {
    for code in [1001, 1012] {
        let (fake, mut peer, _client, mut events) = connected().await;
        peer.close(code, "restarting; retry-after=7000").await;
        let Some(Event::Lost { retry_in, .. }) = next(&mut events).await else { panic!("{code}: not lost") };
        assert!((7.0..9.0).contains(&retry_in.as_secs_f64()), "{code}: {retry_in:?}");
        tokio::time::pause();
        tokio::time::advance(retry_in / 2).await;
        assert!(!fake.is_called().await, "{code}: too early");
        tokio::time::advance(retry_in).await;
        tokio::time::resume();
        fake.accept().await;
    }
}

#[tokio::test]
async fn a_close_counts_even_if_the_socket_fails_behind_it() {
    for _ in 0..20 {
        let (_fake, mut peer, client, mut events) = connected().await;
        client.publish(&hi()).await.unwrap();
        peer.stream.readable().await.unwrap();
        peer.close(4004, "kicked").await;
        // With unread input the kernel resets the connection.
        drop(peer);
        client.publish(&hi()).await.unwrap();
        let end = next(&mut events).await;
        let Some(Event::Ended(End::Disconnect(Disconnect::Closed { code, .. }))) = end else {
            panic!("expected the end, not {end:?}")
        };
        assert_eq!(code, Some(4004));
    }
}

#[tokio::test]
async fn a_refused_handshake_is_final_or_not_by_its_status() {
    let (fake, peer, _client, mut events) = connected().await;
    drop(peer);
    fake.accept_and_answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy").await;
    fake.accept_and_answer("HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nwho").await;
    assert!(matches!(next(&mut events).await, Some(Event::Lost { .. })));
    match next(&mut events).await {
        Some(Event::Ended(End::Connect(ConnectError::Refused { status: 401, body }))) => {
            assert_eq!(body, "who");
        }
        other => panic!("expected the end, not {other:?}"),
    }
    assert!(next(&mut events).await.is_none());
}

#[tokio::test]
async fn silence_after_a_ping_is_a_lost_connection() {
    let quick = Options {
        ping_interval: Duration::from_millis(5),
        ping_timeout: Duration::from_millis(5),
        ..options()
    };
    let (fake, mut peer, _client, mut events) = connected_with(quick).await;
    assert!(matches!(peer.next().await, Some(tidegate_protocol::websocket::Event::Ping(_))));
    assert_eq!(peer.closed().await.0, 4200);
    let lost = next(&mut events).await;
    assert!(matches!(lost, Some(Event::Lost { cause: Disconnect::PingTimeout, .. })), "{lost:?}");
    fake.accept().await;
}

//! The client against the real broker.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod support;

use std::time::Duration;

use support::{broker, next, next_message, options, soon};
use tidegate_client::{
    Client, Compression, Conflate, ConnectError, Disconnect, Event, Options, Overflow, Properties,
    Publication, RequestError, SubscribeOptions, Topic,
};
use tidegate_protocol::topic::TopicLimits;

fn text(topic: &str, text: &str) -> Publication {
    Publication::text(topic, text).unwrap()
}

#[tokio::test]
async fn what_is_published_arrives_as_it_was() {
    let (_server, url) = broker::start().await;
    let (client, mut events) = Client::connect(&url).await.unwrap();
    client.subscribe("plant/+/temp", SubscribeOptions::new()).await.unwrap();

    client.publish(&text("plant/3/temp", "21.5")).await.unwrap();
    let message = next_message(&mut events).await;
    assert_eq!((message.topic.as_str(), message.text()), ("plant/3/temp", Some("21.5")));
    assert!(!message.is_retained && message.published_ms.is_some());

    let properties = Properties {
        content_type: Some("application/x".into()),
        response_topic: Some(Topic::parse("answers", &TopicLimits::STANDARD).unwrap()),
        correlation_data: Some(vec![0xff, 0].into()),
        user: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
    };
    let binary = Publication::binary("plant/4/temp", vec![0xff; 3]).unwrap();
    let binary = binary.with_properties(properties.clone()).with_ttl(Duration::from_secs(60));
    assert_eq!(client.publish_acknowledged(&binary).await.unwrap(), 1);
    let message = next_message(&mut events).await;
    assert_eq!((&message.payload[..], message.text()), (&[0xff_u8; 3][..], None));
    assert_eq!(message.properties, properties);
    assert!(message.expires_in.is_some_and(|left| left <= Duration::from_secs(60)));
}

#[tokio::test]
async fn large_messages_travel_with_and_without_compression() {
    let (_server, url) = broker::start().await;
    for compression in [Compression::Offered, Compression::Off] {
        let options = Options { compression, ..options() };
        let (client, mut events) = Client::connect_with(&url, options).await.unwrap();
        client.subscribe("big", SubscribeOptions::new()).await.unwrap();
        let long = "0123456789".repeat(50_000);
        client.publish_acknowledged(&text("big", &long)).await.unwrap();
        assert_eq!(next_message(&mut events).await.text(), Some(long.as_str()));
    }
}

#[tokio::test]
async fn subscribe_options_reach_the_broker() {
    let (_server, url) = broker::start().await;
    let (client, mut events) = Client::connect(&url).await.unwrap();
    client.publish_acknowledged(&text("kept", "old").with_retain()).await.unwrap();

    client.subscribe("kept", SubscribeOptions::new().with_last(1)).await.unwrap();
    let message = next_message(&mut events).await;
    assert!(message.is_retained);

    let quiet = SubscribeOptions::new()
        .with_last(0)
        .with_no_echo()
        .with_conflate(Conflate::Queued)
        .with_overflow(Overflow::DropNewest);
    client.subscribe("kept", quiet).await.unwrap();
    client.publish_acknowledged(&text("kept", "mine")).await.unwrap();
    let (other, _) = Client::connect(&url).await.unwrap();
    other.publish_acknowledged(&text("kept", "theirs")).await.unwrap();
    assert_eq!(next_message(&mut events).await.text(), Some("theirs"));
}

#[tokio::test]
async fn nothing_comes_after_unsubscribe() {
    let (_server, url) = broker::start().await;
    let (client, mut events) = Client::connect(&url).await.unwrap();
    client.subscribe("a", SubscribeOptions::new()).await.unwrap();
    client.subscribe("end", SubscribeOptions::new()).await.unwrap();
    client.unsubscribe("a").await.unwrap();
    assert_eq!(client.publish_acknowledged(&text("a", "x")).await.unwrap(), 0);
    client.publish(&text("end", "x")).await.unwrap();
    assert_eq!(next_message(&mut events).await.topic.as_str(), "end");
    assert!(
        matches!(client.unsubscribe("a").await, Err(RequestError::Refused(no)) if &*no.code == "not_found")
    );
}

#[tokio::test]
async fn a_refusal_of_the_broker_is_the_answer_to_its_request() {
    let (_server, url) = broker::start().await;
    let (client, mut events) = Client::connect(&url).await.unwrap();
    let history = SubscribeOptions::new().with_last(5);
    let refused = client.subscribe("a", history).await;
    assert!(matches!(refused, Err(RequestError::Refused(no)) if &*no.code == "unsupported"));
    assert!(matches!(client.subscribe("a#", SubscribeOptions::new()).await, Err(RequestError::Topic(_))));

    client.publish(&text("$SYS/x", "no")).await.unwrap();
    assert!(matches!(next(&mut events).await, Some(Event::Refused(no)) if &*no.code == "bad_topic"));
}

#[tokio::test]
async fn a_message_beyond_the_brokers_limit_is_not_sent() {
    let (_server, url) = broker::start().await;
    let (client, _events) = Client::connect(&url).await.unwrap();
    let huge = Publication::binary("a", vec![0; 1 << 20]).unwrap();
    let result = client.publish(&huge).await;
    assert!(matches!(result, Err(RequestError::TooBig { limit_bytes, .. }) if limit_bytes == 1 << 20));
    client.ping().await.unwrap();
}

#[tokio::test]
async fn close_sends_what_was_published_before_it() {
    let (_server, url) = broker::start().await;
    let (reader, mut events) = Client::connect(&url).await.unwrap();
    reader.subscribe("a", SubscribeOptions::new()).await.unwrap();
    let (writer, mut writer_events) = Client::connect(&url).await.unwrap();
    for number in 0..500 {
        writer.publish(&text("a", &number.to_string())).await.unwrap();
    }
    soon(writer.close()).await;
    assert!(next(&mut writer_events).await.is_none());
    for number in 0..500 {
        assert_eq!(next_message(&mut events).await.text(), Some(number.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_restarted_broker_gets_the_subscriptions_back() {
    let (server, url) = broker::start().await;
    let (client, mut events) = Client::connect(&url).await.unwrap();
    client.subscribe("a/+", SubscribeOptions::new()).await.unwrap();
    assert_eq!(soon(server.stop()).await, 0);
    let retry_in = match next(&mut events).await {
        Some(Event::Lost { cause: Disconnect::Closed { code: Some(1001 | 1012), .. }, retry_in }) => retry_in,
        other => panic!("expected the planned end, not {other:?}"),
    };
    let _server = soon(broker::restart(&url)).await;
    tokio::time::pause();
    tokio::time::advance(retry_in).await;
    tokio::time::resume();
    assert!(matches!(next(&mut events).await, Some(Event::Restored { may_have_gap: true })));
    assert_eq!(client.publish_acknowledged(&text("a/1", "again")).await.unwrap(), 1);
    assert_eq!(next_message(&mut events).await.text(), Some("again"));
}

#[tokio::test]
async fn a_refused_handshake_shows_the_brokers_words() {
    let (_server, url) = broker::start().await;
    match Client::connect(&url.replace("/ws", "/elsewhere")).await {
        Err(ConnectError::Refused { status: 404, body }) => assert!(body.contains("/ws"), "{body:?}"),
        other => panic!("expected 404, not {other:?}"),
    }
}

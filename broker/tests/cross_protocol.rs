//! The nine pairs of publisher and subscriber: what one protocol says beside a payload, said in the words of
//! another (WIRE §7, §8).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may panic as tests do"
)]

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::json;
use support::Broker;
use support::client::{Client, Protocol};
use support::mqtt::{self, Mqtt};
use support::raw::{Corr, Encoding, Envelope, OneOrMany};
use support::socket::{Ask, MessageKind, Socket};
use support::stomp::Stomp;
use tidegate_protocol::mqtt::packet::{Properties, Version};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp;

/// A message as any of the protocols says it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Message {
    payload: Bytes,
    content_type: Option<String>,
    user: Vec<(String, String)>,
    reply: Option<String>,
    correlation: Option<Bytes>,
    expiry: Option<Duration>,
    retain: bool,
}

const LIFETIME: Duration = Duration::from_secs(100);

const PAIRS: [Protocol; 3] = [Protocol::Json, Protocol::Mqtt5, Protocol::Stomp12];

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The raw `props` are a map: values of a name stay in order, names do not.
fn grouped(mut user: Vec<(String, String)>) -> Vec<(String, String)> {
    user.sort_by(|(one, _), (other, _)| one.cmp(other));
    user
}

async fn publish(broker: &Broker, protocol: Protocol, message: &Message) {
    match protocol {
        Protocol::Json => {
            let mut fields = json!({"retain": message.retain});
            if let Some(content_type) = &message.content_type {
                fields["ct"] = content_type.as_str().into();
            }
            if let Some(reply) = &message.reply {
                fields["reply"] = reply.as_str().into();
            }
            if let Some(bytes) = &message.correlation {
                fields["corr"] = match std::str::from_utf8(bytes) {
                    Ok(text) => text.into(),
                    Err(_) => json!({"b64": BASE64.encode(bytes)}),
                };
            }
            if let Some(expiry) = message.expiry {
                fields["ttl"] = u64::try_from(expiry.as_millis()).unwrap().into();
            }
            for (name, _) in &message.user {
                let of_name = message.user.iter().filter(|(other, _)| other == name);
                let values: Vec<&str> = of_name.map(|(_, value)| value.as_str()).collect();
                fields["props"][name] = if values.len() == 1 { values[0].into() } else { values.into() };
            }
            let mut client = Envelope::connected(broker, Encoding::Json).await;
            let answer = client.publish_acked(fields, "a", &message.payload).await;
            assert_eq!(answer.op, "ok", "{answer:?}");
        }
        Protocol::Mqtt5 => {
            let properties = Properties {
                content_type: message.content_type.as_deref().map(Into::into),
                response_topic: message.reply.as_deref().map(Into::into),
                correlation_data: message.correlation.clone(),
                message_expiry_interval_s: message
                    .expiry
                    .map(|expiry| u32::try_from(expiry.as_secs()).unwrap()),
                user: message
                    .user
                    .iter()
                    .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                    .collect(),
                ..Properties::default()
            };
            let mut packet = mqtt::publish("a", message.payload.clone());
            packet.retain = message.retain;
            packet.properties = Some(Box::new(properties));
            let mut client = Mqtt::connected(broker, Version::V5).await;
            client.publish(packet).await;
            client.socket.barrier().await;
        }
        _ => {
            let mut frame = Stomp::message("a", message.payload.clone());
            for (name, value) in &message.user {
                frame = frame.with_header(name.clone(), value.clone());
            }
            if let Some(content_type) = &message.content_type {
                frame = frame.with_header("content-type", content_type.clone());
            }
            if let Some(reply) = &message.reply {
                frame = frame.with_header("reply-to", format!("/topic/{reply}"));
            }
            if let Some(bytes) = &message.correlation {
                frame = match std::str::from_utf8(bytes) {
                    Ok(text) => frame.with_header("correlation-id", text.to_owned()),
                    Err(_) => frame
                        .with_header("correlation-id", BASE64.encode(bytes))
                        .with_header("correlation-encoding", "base64"),
                };
            }
            if let Some(expiry) = message.expiry {
                frame = frame.with_header("expiration", expiry.as_millis().to_string());
            }
            if message.retain {
                frame = frame.with_header("retain", "true");
            }
            Stomp::connected(broker, stomp::Version::V1_2).await.send_for_receipt(frame).await;
        }
    }
}

enum Reader {
    Json(Envelope),
    Mqtt(Mqtt),
    Stomp(Stomp),
}

impl Reader {
    async fn subscribed(broker: &Broker, protocol: Protocol) -> Self {
        match protocol {
            Protocol::Json => {
                let mut client = Envelope::connected(broker, Encoding::Json).await;
                client.subscribe("a").await;
                Self::Json(client)
            }
            Protocol::Mqtt5 => {
                let mut client = Mqtt::connected(broker, Version::V5).await;
                client.subscribe("a", QoS::AtMostOnce).await;
                Self::Mqtt(client)
            }
            _ => {
                let mut client = Stomp::connected(broker, stomp::Version::V1_2).await;
                client.subscribe("a", "auto").await;
                Self::Stomp(client)
            }
        }
    }

    async fn next(&mut self) -> Message {
        match self {
            Self::Json(client) => {
                let said = client.delivery().await;
                let user =
                    said.props.unwrap_or_default().into_iter().flat_map(|(name, values)| match values {
                        OneOrMany::One(value) => vec![(name, value)],
                        OneOrMany::Many(values) => {
                            values.into_iter().map(|value| (name.clone(), value)).collect()
                        }
                    });
                Message {
                    payload: said.payload.unwrap(),
                    content_type: said.ct,
                    user: user.collect(),
                    reply: said.reply,
                    correlation: said.corr.map(|corr| match corr {
                        Corr::Text(text) => text.into(),
                        Corr::Base64 { b64 } => BASE64.decode(b64).unwrap().into(),
                        Corr::Bin(bin) => bin.0,
                    }),
                    expiry: said.exp.map(Duration::from_millis),
                    retain: said.ret == Some(true),
                }
            }
            Self::Mqtt(client) => {
                let delivery = client.delivery().await;
                let properties = delivery.properties.map(|properties| *properties).unwrap_or_default();
                let user = properties.user.into_iter().map(|(name, value)| (name.into(), value.into()));
                Message {
                    payload: delivery.payload,
                    content_type: properties.content_type.map(Into::into),
                    user: user.collect(),
                    reply: properties.response_topic.map(Into::into),
                    correlation: properties.correlation_data,
                    expiry: properties.message_expiry_interval_s.map(|s| Duration::from_secs(s.into())),
                    retain: delivery.retain,
                }
            }
            Self::Stomp(client) => {
                let frame = client.delivery().await;
                let is_base64 = frame.header("correlation-encoding") == Some("base64");
                let own = |name: &str| !OF_STOMP.contains(&name);
                let user = frame.headers.iter().filter(|header| own(&header.name));
                Message {
                    payload: frame.body.clone(),
                    content_type: frame.header("content-type").map(Into::into),
                    user: user
                        .map(|header| (header.name.as_str().into(), header.value.as_str().into()))
                        .collect(),
                    reply: frame.header("reply-to").map(|to| to.strip_prefix("/topic/").unwrap().to_owned()),
                    correlation: frame.header("correlation-id").map(|id| match is_base64 {
                        true => BASE64.decode(id).unwrap().into(),
                        false => id.to_owned().into(),
                    }),
                    expiry: frame.header("expiration").map(|ms| Duration::from_millis(ms.parse().unwrap())),
                    retain: frame.header("retained") == Some("true"),
                }
            }
        }
    }
}

/// Headers of a MESSAGE that are not the publisher's own.
const OF_STOMP: [&str; 10] = [
    "subscription",
    "message-id",
    "destination",
    "content-type",
    "content-length",
    "reply-to",
    "correlation-id",
    "correlation-encoding",
    "expiration",
    "retained",
];

#[tokio::test]
async fn what_is_said_beside_a_payload_arrives_in_every_pair() {
    let text = || Message { payload: "text".into(), ..Message::default() };
    let all = [
        text(),
        Message { content_type: Some("application/x-test".into()), ..text() },
        Message { user: pairs(&[("b", "2"), ("a", "1"), ("b", "1"), ("a", "ü: \\n\n")]), ..text() },
        Message { reply: Some("answers/1".into()), correlation: Some("c-1".into()), ..text() },
        Message { correlation: Some(Bytes::from_static(&[0xff, 0, 1])), ..text() },
        Message { expiry: Some(LIFETIME), ..text() },
        Message { payload: Bytes::from_static(&[0, 0xff, 0xfe]), ..text() },
        Message { content_type: Some("text/plain".into()), user: pairs(&[("k", "v")]), ..text() },
    ];
    for from in PAIRS {
        for to in PAIRS {
            for message in &all {
                check(from, to, message).await;
            }
        }
    }
}

/// Live, and kept for a later subscriber.
async fn check(from: Protocol, to: Protocol, message: &Message) {
    let broker = Broker::start("").await;
    let mut live = Reader::subscribed(&broker, to).await;
    publish(&broker, from, &Message { retain: true, ..message.clone() }).await;
    let mut late = Reader::subscribed(&broker, to).await;
    for (mut got, retain) in [(live.next().await, false), (late.next().await, true)] {
        let what = format!("{from:?} to {to:?}, retained {retain}");
        let left = got.expiry.take();
        assert_eq!(left.is_some(), message.expiry.is_some(), "{what}: {left:?}");
        assert!(left.is_none_or(|left| left <= LIFETIME && left > LIFETIME / 2), "{what}: {left:?}");
        let mut expected = Message { expiry: None, retain, ..message.clone() };
        if from == Protocol::Json || to == Protocol::Json {
            expected.user = grouped(expected.user);
            got.user = grouped(got.user);
        }
        // What the raw protocol publishes as text is text, and STOMP has a header for that (WIRE §7).
        if from == Protocol::Json && to == Protocol::Stomp12 && expected.content_type.is_none() {
            let is_text = std::str::from_utf8(&expected.payload).is_ok();
            expected.content_type = is_text.then(|| "text/plain;charset=utf-8".into());
        }
        assert_eq!(got, expected, "{what}");
    }
}

/// SEC-13: nobody speaks in the broker's name.
#[tokio::test]
async fn a_user_property_with_a_name_of_stomp_gets_a_prefix() {
    for from in [Protocol::Json, Protocol::Mqtt5] {
        for name in ["destination", "message-id", "subscription", "x-lag", "retained"] {
            let broker = Broker::start("").await;
            let mut reader = Stomp::connected(&broker, stomp::Version::V1_2).await;
            reader.subscribe("a", "auto").await;
            publish(&broker, from, &Message { user: pairs(&[(name, "forged")]), ..Message::default() }).await;
            let frame = reader.delivery().await;
            assert_eq!(frame.header(&format!("x-user-{name}")), Some("forged"), "{from:?}: {frame:?}");
            assert!(frame.headers.iter().all(|header| header.name != name || header.value != "forged"));
        }
    }
}

#[tokio::test]
async fn text_stays_text_and_bytes_stay_bytes_for_payload_mode() {
    let broker = Broker::start("").await;
    for from in PAIRS {
        for (payload, content_type, expected) in [
            ("text", Some("text/plain"), MessageKind::Text),
            ("{}", Some("application/json"), MessageKind::Text),
            ("\u{0}", Some("application/octet-stream"), MessageKind::Binary),
        ] {
            // The envelope's `text` says that it is text, whatever the content type.
            let expected = if from == Protocol::Json { MessageKind::Text } else { expected };
            let ask = Ask { target: "/ws?t=a", ..Ask::default() };
            let mut reader = Socket::open(broker.address, ask).await;
            reader.barrier().await;
            let content_type = content_type.map(Into::into);
            publish(&broker, from, &Message { payload: payload.into(), content_type, ..Message::default() })
                .await;
            assert_eq!(reader.message().await.kind(), expected, "{from:?} {payload}");
        }
    }
}

#[tokio::test]
async fn a_subscriber_gets_the_lower_of_the_published_and_the_granted_qos() {
    let broker = Broker::start("").await;
    for granted in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut reader = Mqtt::connected(&broker, Version::V5).await;
        reader.subscribe("a", granted).await;
        for from in PAIRS {
            let mut publisher = Client::publisher(&broker, from, "a").await;
            publisher.publish("a", "0").await;
            publisher.barrier().await;
            assert_eq!(reader.delivery().await.qos, QoS::AtMostOnce, "{from:?}");
            publisher.publish_acked("a", "1").await;
            assert_eq!(reader.delivery().await.qos, granted, "{from:?}");
        }
    }
}

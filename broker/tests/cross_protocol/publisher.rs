//! A message, published in the words of each protocol, and taken by the broker when this returns.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_protocol::mqtt::packet::{Properties, Version as MqttVersion};
use tidegate_protocol::stomp::Version as StompVersion;

use crate::message::{Expiry, Message};
use crate::subscriber::mqtt_client;
use crate::support::Broker;
use crate::support::client::{Client, Protocol, escaped};
use crate::support::mqtt;
use crate::support::raw::{Encoding, Envelope, OneOrMany, Props};
use crate::support::socket::{Ask, Socket};
use crate::support::stomp::Stomp;

/// Names of user properties that a STOMP frame has its own use for.
pub(crate) const RESERVED: [&str; 6] = ["destination", "message-id", "subscription", "x-lag", "retained", ""];

pub(crate) async fn publish(broker: &Broker, from: Protocol, topic: &str, message: &Message) {
    match from {
        Protocol::Payload => payload(broker, topic, message).await,
        Protocol::Json => envelope(broker, Encoding::Json, topic, message).await,
        Protocol::MessagePack => envelope(broker, Encoding::MessagePack, topic, message).await,
        Protocol::Mqtt31 => mqtt(broker, MqttVersion::V3_1, topic, message).await,
        Protocol::Mqtt311 => mqtt(broker, MqttVersion::V3_1_1, topic, message).await,
        Protocol::Mqtt5 => mqtt(broker, MqttVersion::V5, topic, message).await,
        Protocol::Stomp10 => stomp(broker, StompVersion::V1_0, topic, message).await,
        Protocol::Stomp11 => stomp(broker, StompVersion::V1_1, topic, message).await,
        Protocol::Stomp12 => stomp(broker, StompVersion::V1_2, topic, message).await,
    }
}

/// Something to wait for, behind which nothing of before can come.
pub(crate) async fn publish_marker(broker: &Broker, topic: &str) {
    Client::connected(broker, Protocol::Json, Ask::default()).await.publish_acked(topic, MARKER).await;
}

pub(crate) const MARKER: &str = "marker";

async fn payload(broker: &Broker, topic: &str, message: &Message) {
    assert!(is_payload_alone(message) && !message.retain, "payload mode cannot say {message:?}");
    let target = format!("/ws?pub={}", escaped(topic));
    let mut socket = Socket::open(broker.address, Ask { target: &target, ..Ask::default() }).await;
    match std::str::from_utf8(&message.payload) {
        Ok(text) if message.is_text => socket.send_text(text).await,
        _ => socket.send_binary(message.payload.clone()).await,
    }
    socket.barrier().await;
}

async fn envelope(broker: &Broker, encoding: Encoding, topic: &str, message: &Message) {
    let mut operation = json!({"op": "pub", "topic": topic, "retain": message.retain});
    let mut bytes: Vec<(&'static str, Bytes)> = Vec::new();
    let text = std::str::from_utf8(&message.payload).ok().filter(|_| message.is_text);
    let data = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    match (text, data, encoding) {
        // The way of a page: `data: {…}`.
        (Some(_), Some(data), Encoding::Json) if message.content_type.is_none() => operation["data"] = data,
        (Some(text), ..) => operation["text"] = text.into(),
        (None, _, Encoding::Json) => operation["b64"] = BASE64.encode(&message.payload).into(),
        (None, _, Encoding::MessagePack) => bytes.push(("bin", message.payload.clone())),
    }
    if let Some(content_type) = &message.content_type {
        operation["ct"] = content_type.as_str().into();
    }
    if let Some(reply) = &message.reply {
        operation["reply"] = reply.as_str().into();
    }
    match (&message.correlation, encoding) {
        (None, _) => {}
        (Some(data), _) if std::str::from_utf8(data).is_ok() => {
            operation["corr"] = std::str::from_utf8(data).unwrap().into();
        }
        (Some(data), Encoding::Json) => operation["corr"] = json!({"b64": BASE64.encode(data)}),
        (Some(data), Encoding::MessagePack) => bytes.push(("corr", data.clone())),
    }
    match message.expiry {
        None => {}
        Some(Expiry::In(left)) => operation["ttl"] = u64::try_from(left.as_millis()).unwrap().into(),
        Some(other) => panic!("raw has no word for {other:?}"),
    }
    let mut client = Envelope::connected(broker, encoding).await;
    let answer = client.ask_whole(operation, bytes, &props(&message.user)).await;
    assert_eq!(answer.op, "ok", "{message:?}: {answer:?}");
}

/// Values of one name as a list, where the name stands first.
fn props(user: &[(String, String)]) -> Props {
    let mut props: Vec<(String, OneOrMany)> = Vec::new();
    for (name, value) in user {
        match props.iter_mut().find(|(known, _)| known == name) {
            None => props.push((name.clone(), OneOrMany::One(value.clone()))),
            Some((_, values)) => {
                let mut all = match values {
                    OneOrMany::One(first) => vec![first.clone()],
                    OneOrMany::Many(several) => several.clone(),
                };
                all.push(value.clone());
                *values = OneOrMany::Many(all);
            }
        }
    }
    Props(props)
}

async fn mqtt(broker: &Broker, version: MqttVersion, topic: &str, message: &Message) {
    let mut packet = mqtt::publish(topic, message.payload.clone());
    packet.retain = message.retain;
    if version == MqttVersion::V5 {
        let expiry = message.expiry.map(|expiry| match expiry {
            Expiry::In(left) => u32::try_from(left.as_secs()).unwrap(),
            other => panic!("MQTT has no word for {other:?}"),
        });
        let user = message.user.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into()));
        packet.properties = Some(Box::new(Properties {
            payload_format_indicator: message.is_text.then_some(true),
            content_type: message.content_type.as_deref().map(Into::into),
            response_topic: message.reply.as_deref().map(Into::into),
            correlation_data: message.correlation.clone(),
            message_expiry_interval_s: expiry,
            user: user.collect(),
            ..Properties::default()
        }));
    } else {
        assert!(is_payload_alone(message) && !message.is_text, "MQTT 3 cannot say {message:?}");
    }
    let mut client = mqtt_client(broker, version).await;
    client.publish(packet).await;
    client.socket.barrier().await;
}

async fn stomp(broker: &Broker, version: StompVersion, topic: &str, message: &Message) {
    let mut frame = Stomp::message(topic, message.payload.clone());
    for (name, value) in &message.user {
        let name = if RESERVED.contains(&name.as_str()) { format!("x-user-{name}") } else { name.clone() };
        frame = frame.with_header(name, value.clone());
    }
    // The word that STOMP has for text.
    let text = message.is_text.then(|| "text/plain;charset=utf-8".to_owned());
    if let Some(content_type) = message.content_type.clone().or(text) {
        frame = frame.with_header("content-type", content_type);
    }
    if let Some(reply) = &message.reply {
        frame = frame.with_header("reply-to", format!("/topic/{reply}"));
    }
    if let Some(data) = &message.correlation {
        frame = match std::str::from_utf8(data) {
            Ok(text) if version > StompVersion::V1_0 && !text.contains('\0') => {
                frame.with_header("correlation-id", text.to_owned())
            }
            _ => frame
                .with_header("correlation-id", BASE64.encode(data))
                .with_header("correlation-encoding", "base64"),
        };
    }
    frame = match message.expiry {
        None => frame,
        Some(Expiry::In(left)) => frame.with_header("expiration", left.as_millis().to_string()),
        Some(Expiry::AtNowPlus(left)) => {
            frame.with_header("expires", (unix_ms() + left.as_millis()).to_string())
        }
        Some(Expiry::Past) => frame.with_header("expires", "1"),
    };
    if message.retain {
        frame = frame.with_header("retain", "true");
    }
    Stomp::connected(broker, version).await.send_for_receipt(frame).await;
}

/// Nothing beside the payload and what all protocols say of it.
fn is_payload_alone(message: &Message) -> bool {
    message.content_type.is_none()
        && message.user.is_empty()
        && message.reply.is_none()
        && message.correlation.is_none()
        && message.expiry.is_none()
}

pub(crate) fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

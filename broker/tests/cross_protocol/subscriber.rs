//! A subscriber in each protocol, and what it got in the words that all of them share.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tidegate_protocol::mqtt::packet::{Packet, Properties, Subscribe, Version as MqttVersion};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp::Version as StompVersion;
use tidegate_protocol::stomp::frame::Frame;

use crate::message::{Expiry, Got, Message};
use crate::publisher::unix_ms;
use crate::support::Broker;
use crate::support::client::{Protocol, escaped, unique};
use crate::support::mqtt::{self, Mqtt};
use crate::support::raw::{Corr, Encoding, Envelope, OneOrMany, Said};
use crate::support::socket::{Ask, MessageKind, Socket};
use crate::support::stomp::Stomp;

/// Subscribed to one filter.
pub(crate) enum Subscriber {
    Payload(Socket),
    Envelope(Envelope, Encoding),
    Mqtt(Mqtt, MqttVersion),
    Stomp(Stomp),
}

/// What each names its subscription where it can.
const NAME: u32 = 7;

impl Subscriber {
    /// Its MQTT 5 subscription has no identifier, so that it takes the wire form that all share.
    pub(crate) async fn plain(broker: &Broker, protocol: Protocol, filter: &str) -> Self {
        Self::subscribed(broker, protocol, filter, false).await
    }

    /// Its subscription has a name where there is one, and its MQTT 5 packets are so encoded for it alone.
    pub(crate) async fn named(broker: &Broker, protocol: Protocol, filter: &str) -> Self {
        Self::subscribed(broker, protocol, filter, true).await
    }

    async fn subscribed(broker: &Broker, protocol: Protocol, filter: &str, is_named: bool) -> Self {
        match protocol {
            Protocol::Payload => {
                let target = format!("/ws?t={}", escaped(filter));
                let mut socket =
                    Socket::open(broker.address, Ask { target: &target, ..Ask::default() }).await;
                socket.barrier().await;
                Self::Payload(socket)
            }
            Protocol::Json => Self::envelope(broker, Encoding::Json, filter).await,
            Protocol::MessagePack => Self::envelope(broker, Encoding::MessagePack, filter).await,
            Protocol::Mqtt31 => Self::mqtt(broker, MqttVersion::V3_1, filter, false).await,
            Protocol::Mqtt311 => Self::mqtt(broker, MqttVersion::V3_1_1, filter, false).await,
            Protocol::Mqtt5 => Self::mqtt(broker, MqttVersion::V5, filter, is_named).await,
            Protocol::Stomp10 => Self::stomp(broker, StompVersion::V1_0, filter).await,
            Protocol::Stomp11 => Self::stomp(broker, StompVersion::V1_1, filter).await,
            Protocol::Stomp12 => Self::stomp(broker, StompVersion::V1_2, filter).await,
        }
    }

    async fn envelope(broker: &Broker, encoding: Encoding, filter: &str) -> Self {
        let mut client = Envelope::connected(broker, encoding).await;
        client.subscribe(filter).await;
        Self::Envelope(client, encoding)
    }

    async fn mqtt(broker: &Broker, version: MqttVersion, filter: &str, is_named: bool) -> Self {
        let mut client = mqtt_client(broker, version).await;
        let identifiers = if is_named { vec![NAME] } else { Vec::new() };
        let properties = Properties { subscription_identifiers: identifiers, ..Properties::default() };
        client
            .send(Packet::Subscribe(Subscribe {
                packet_id: 1,
                properties: is_named.then(|| Box::new(properties)),
                filters: vec![mqtt::subscription(filter, QoS::AtMostOnce)],
            }))
            .await;
        assert!(matches!(client.packet().await, Packet::SubAck(ack) if !ack.reasons[0].is_error()));
        Self::Mqtt(client, version)
    }

    async fn stomp(broker: &Broker, version: StompVersion, filter: &str) -> Self {
        let mut client = Stomp::connected(broker, version).await;
        client.subscribe_as(&NAME.to_string(), filter, "auto").await;
        Self::Stomp(client)
    }

    pub(crate) async fn next(&mut self) -> Got {
        match self {
            Self::Payload(socket) => {
                let message = socket.message().await;
                let form = if message.kind() == MessageKind::Text { "text frame" } else { "binary frame" };
                let message = Message { payload: message.into_bytes(), ..Message::default() };
                Got { message, form: Some(form), ..Got::default() }
            }
            Self::Envelope(client, encoding) => of_envelope(client.delivery().await, *encoding),
            Self::Mqtt(client, version) => of_mqtt(client.delivery().await, *version),
            Self::Stomp(client) => {
                let frame = client.delivery().await;
                let form = if client.last_kind == MessageKind::Text { "text frame" } else { "binary frame" };
                of_stomp(&frame, form)
            }
        }
    }
}

/// A client with a name where the version needs one.
pub(crate) async fn mqtt_client(broker: &Broker, version: MqttVersion) -> Mqtt {
    match version {
        MqttVersion::V3_1 => Mqtt::named(broker, version, &format!("x{}", unique())).await,
        MqttVersion::V3_1_1 | MqttVersion::V5 => Mqtt::connected(broker, version).await,
    }
}

fn of_envelope(said: Said, encoding: Encoding) -> Got {
    let form = match (said.is_data, said.carrier, encoding) {
        (true, ..) => "data",
        (false, Some("b64"), Encoding::Json) => "b64",
        (false, Some("bin"), Encoding::MessagePack) => "bin",
        (false, Some("text"), _) => "text",
        other => panic!("a payload under a wrong name: {other:?}"),
    };
    let user = said.props.unwrap_or_default().0.into_iter().flat_map(|(name, values)| {
        let values = match values {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values,
        };
        values.into_iter().map(move |value| (name.clone(), value))
    });
    let message = Message {
        payload: said.payload.unwrap(),
        is_text: false,
        content_type: said.ct,
        user: user.collect(),
        reply: said.reply,
        correlation: said.corr.map(|corr| match corr {
            Corr::Text(text) => text.into(),
            Corr::Base64 { b64 } => BASE64.decode(b64).unwrap().into(),
            Corr::Bin(bin) => bin.0,
        }),
        expiry: said.exp.map(|left_ms| Expiry::In(Duration::from_millis(left_ms))),
        retain: said.ret == Some(true),
    };
    Got { message, form: Some(form), ..Got::default() }
}

fn of_mqtt(packet: mqtt::Publish, version: MqttVersion) -> Got {
    let properties = packet.properties.map(|properties| *properties).unwrap_or_default();
    let is_text = properties.payload_format_indicator == Some(true);
    let form = if is_text { "indicator 1" } else { "no indicator" };
    let seconds = properties.message_expiry_interval_s;
    let message = Message {
        payload: packet.payload,
        is_text,
        content_type: properties.content_type.map(Into::into),
        user: properties.user.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        reply: properties.response_topic.map(Into::into),
        correlation: properties.correlation_data,
        expiry: seconds.map(|seconds| Expiry::In(Duration::from_secs(seconds.into()))),
        retain: packet.retain,
    };
    let subscription = properties.subscription_identifiers.first().map(u32::to_string);
    Got { message, form: (version == MqttVersion::V5).then_some(form), subscription, message_id: None }
}

fn of_stomp(frame: &Frame, form: &'static str) -> Got {
    let is_base64 = frame.header("correlation-encoding") == Some("base64");
    let user = frame.headers.iter().filter(|header| !OF_MESSAGE.contains(&header.name.as_str()));
    assert_eq!(
        frame.header("content-length"),
        Some(&*frame.body.len().to_string()),
        "always there: {frame:?}"
    );
    let message = Message {
        payload: frame.body.clone(),
        is_text: false,
        content_type: frame.header("content-type").map(Into::into),
        user: user.map(|header| (header.name.as_str().into(), header.value.as_str().into())).collect(),
        reply: frame.header("reply-to").map(|to| to.strip_prefix("/topic/").unwrap().to_owned()),
        correlation: frame.header("correlation-id").map(|id| match is_base64 {
            true => BASE64.decode(id).unwrap().into(),
            false => id.to_owned().into(),
        }),
        expiry: expiry_of(frame),
        retain: frame.header("retained") == Some("true"),
    };
    Got {
        message,
        form: Some(form),
        subscription: frame.header("subscription").map(Into::into),
        message_id: frame.header("message-id").map(|_| "a counter".into()),
    }
}

/// Both dialects are there, and say the same.
fn expiry_of(frame: &Frame) -> Option<Expiry> {
    let number = |name| frame.header(name).map(|text| text.parse::<u64>().unwrap());
    let (Some(left_ms), Some(at_ms)) = (number("expiration"), number("expires")) else {
        assert_eq!((number("expiration"), number("expires")), (None, None), "{frame:?}");
        return None;
    };
    let apart = u128::from(at_ms).abs_diff(unix_ms() + u128::from(left_ms));
    assert!(apart < 30_000, "{apart} ms apart: {frame:?}");
    Some(Expiry::In(Duration::from_millis(left_ms)))
}

/// Headers of a MESSAGE that are not the publisher's own.
const OF_MESSAGE: [&str; 11] = [
    "subscription",
    "message-id",
    "destination",
    "content-type",
    "content-length",
    "reply-to",
    "correlation-id",
    "correlation-encoding",
    "expiration",
    "expires",
    "retained",
];

//! The protocol's types inside records. What they check when they are parsed is checked here too.

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_protocol::publication::{Properties, QoS};
use tidegate_protocol::session::{Copies, Overflow, SubscriptionId};
use tidegate_protocol::topic::{ShareName, Topic, TopicFilter, TopicLimits};

/// A module for `#[serde(with)]`: the type, how it is written, how it is read.
macro_rules! with {
    ($(#[$doc:meta])* $name:ident, $type:ty, |$value:ident| $write:expr, |$read:ident: $plain:ty| $parse:expr) => {
        $(#[$doc])*
        pub(super) mod $name {
            use super::*;

            pub(in super::super) fn serialize<S: Serializer>($value: &$type, to: S) -> Result<S::Ok, S::Error> {
                Serialize::serialize(&$write, to)
            }

            pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let $read = <$plain>::deserialize(from)?;
                $parse.ok_or_else(|| D::Error::custom(concat!("no ", stringify!($name))))
            }
        }
    };
}

/// The limits were applied when the text came in, and they may have been changed since.
const LIMITS: &TopicLimits = &TopicLimits::STANDARD;

with!(topic, Topic, |topic| topic.as_str(), |text: Box<str>| Topic::parse(&text, LIMITS).ok());
with!(filter, TopicFilter, |filter| filter.as_str(), |text: Box<str>| TopicFilter::parse(&text, LIMITS).ok());
with!(share_name, Option<ShareName>, |name| name.as_ref().map(ShareName::as_str), |text: Option<
    Box<str>,
>| text
    .map(|text| ShareName::parse(&text, LIMITS).ok())
    .map_or(Some(None), |name| name.map(Some)));
with!(subscription_id, SubscriptionId, |id| id.0, |id: u32| Some(SubscriptionId(id)));
with!(qos, QoS, |qos| *qos as u8, |number: u8| QoS::from_u8(number));
with!(
    overflow,
    Overflow,
    |overflow| match overflow {
        Overflow::DropOldest => 0_u8,
        Overflow::DropNewest => 1,
        Overflow::Conflate => 2,
        Overflow::Disconnect => 3,
    },
    |number: u8| match number {
        0 => Some(Overflow::DropOldest),
        1 => Some(Overflow::DropNewest),
        2 => Some(Overflow::Conflate),
        3 => Some(Overflow::Disconnect),
        _ => None,
    }
);
with!(
    copies,
    Copies,
    |copies| match copies {
        Copies::PerClient => 0_u8,
        Copies::PerSubscription => 1,
    },
    |number: u8| match number {
        0 => Some(Copies::PerClient),
        1 => Some(Copies::PerSubscription),
        _ => None,
    }
);
with!(payload, Bytes, |payload| Binary(payload), |bytes: OwnedBinary| Some(bytes.0));
with!(
    properties,
    Option<Box<Properties>>,
    |properties| properties.as_deref().map(WrittenProperties::from),
    |read: Option<ReadProperties>| match read {
        None => Some(None),
        Some(read) => read.into_properties().map(|properties| Some(Box::new(properties))),
    }
);

/// MessagePack's `bin`.
struct Binary<'a>(&'a [u8]);

/// MessagePack's `bin`, copied out.
struct OwnedBinary(Bytes);

#[derive(Serialize)]
struct WrittenProperties<'a> {
    content_type: Option<&'a str>,
    response_topic: Option<&'a str>,
    correlation_data: Option<Binary<'a>>,
    user: &'a [(Box<str>, Box<str>)],
}

#[derive(Deserialize)]
struct ReadProperties {
    content_type: Option<Box<str>>,
    response_topic: Option<Box<str>>,
    correlation_data: Option<OwnedBinary>,
    user: Vec<(Box<str>, Box<str>)>,
}

impl<'a> From<&'a Properties> for WrittenProperties<'a> {
    fn from(properties: &'a Properties) -> Self {
        Self {
            content_type: properties.content_type.as_deref(),
            response_topic: properties.response_topic.as_ref().map(Topic::as_str),
            correlation_data: properties.correlation_data.as_deref().map(Binary),
            user: &properties.user,
        }
    }
}

impl ReadProperties {
    fn into_properties(self) -> Option<Properties> {
        let response_topic = match self.response_topic {
            None => None,
            Some(text) => Some(Topic::parse(&text, LIMITS).ok()?),
        };
        Some(Properties {
            content_type: self.content_type,
            response_topic,
            correlation_data: self.correlation_data.map(|bytes| bytes.0),
            user: self.user,
        })
    }
}

impl Serialize for Binary<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for OwnedBinary {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = OwnedBinary;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<OwnedBinary, E> {
                Ok(OwnedBinary(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<OwnedBinary, E> {
                Ok(OwnedBinary(bytes.into()))
            }
        }

        from.deserialize_bytes(Visitor)
    }
}

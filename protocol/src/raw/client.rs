//! The client's end of the envelope (WIRE §3) under `raw.msgpack.v1`: operations to bytes, answers from bytes.
//! MessagePack, because a payload then comes back byte for byte, whatever it is. Knows no session and no socket.
//!
//! Answers are read liberally: a field or an `op` that a later broker adds is passed over. What is there has to
//! have its type.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::Encoding;
use super::answer::to_bytes;
use super::document::{self, Fields, Value};
use super::form::{Binary, Corr, Props};
use crate::publication::Properties;
use crate::session::Overflow;
use crate::topic::{Topic, TopicError, TopicLimits};
use crate::websocket::prepared::Outgoing;

/// The token to offer.
pub const SUBPROTOCOL: &str = "raw.msgpack.v1";

/// What a client asks for. Its numbers come back in the answer.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation<'a> {
    /// The first one, if at all: answered with the broker's limits.
    Hello {},
    /// Subscribes to one filter, or changes the subscription to it.
    Sub(Sub<'a>),
    /// Ends the subscription to a filter.
    Unsub {
        /// Of the answer.
        id: u32,
        /// The filter.
        topic: &'a str,
    },
    /// Publishes; with an id it is answered, and that is QoS 1.
    Pub(Pub<'a>),
    /// Is answered with `pong`.
    Ping {
        /// Of the answer.
        id: u32,
    },
}

/// `sub`.
#[derive(Clone, Debug, Serialize)]
pub struct Sub<'a> {
    /// Of the answer.
    pub id: u32,
    /// The filter.
    pub topic: &'a str,
    /// How many messages of the past: 0, 1 (the retained one), or history.
    pub last: u32,
    /// At most one message per topic in this time; zero replaces only what is still queued.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_conflate")]
    pub conflate: Option<Duration>,
    /// What the broker does with messages that do not fit its queue; absent, the operator's default.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_overflow_word")]
    pub overflow: Option<Overflow>,
    /// Without what this connection publishes itself.
    #[serde(rename = "noecho", skip_serializing_if = "is_false")]
    pub no_local: bool,
}

/// `pub`.
#[derive(Clone, Debug)]
pub struct Pub<'a> {
    /// Of the answer, if one is wanted.
    pub id: Option<u32>,
    /// Where to.
    pub topic: &'a str,
    /// What.
    pub payload: Payload<'a>,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// Not delivered any more after this time.
    pub ttl: Option<Duration>,
    /// What else.
    pub properties: &'a Properties,
}

/// A payload to publish.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// UTF-8, and said to be so.
    Text(&'a str),
    /// Opaque.
    Binary(&'a [u8]),
}

/// What the broker says.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `hello`.
    Welcome(Welcome),
    /// To `sub`, `unsub`, `pub`.
    Ok {
        /// Of the operation.
        id: u32,
        /// Receivers of a `pub`.
        matched: Option<u64>,
    },
    /// A no.
    Err {
        /// Of the operation, if it had one that could be read.
        id: Option<u32>,
        /// Why.
        refused: Refused,
    },
    /// A message for a subscription.
    Msg(Box<Msg>),
    /// Messages that this client did not get.
    Lag(Lag),
    /// To `ping`.
    Pong {
        /// Of the operation.
        id: Option<u32>,
    },
    /// A close with this code follows.
    Bye {
        /// Time to wait before the next connection.
        after: Option<Duration>,
    },
    /// An `op` that this client does not know.
    Other,
}

/// `welcome`, as far as a client acts on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Bytes of the largest WebSocket message that the broker takes.
    pub message_bytes_max: Option<u64>,
}

/// `err`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code})")]
pub struct Refused {
    /// A stable word.
    pub code: Box<str>,
    /// A sentence.
    pub reason: Box<str>,
    /// Whether the same operation may succeed later.
    pub may_retry: bool,
}

/// `msg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msg {
    /// Where it was published to.
    pub topic: Topic,
    /// What was published. A slice of the frame where it is long.
    pub payload: Bytes,
    /// The payload is UTF-8.
    pub is_text: bool,
    /// Kept by the broker from before the subscription.
    pub is_retained: bool,
    /// Unix time in milliseconds at which the broker took it.
    pub published_ms: Option<u64>,
    /// What is left of its time.
    pub expires_in: Option<Duration>,
    /// What else the publisher said.
    pub properties: Properties,
}

/// `lag`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages that fell to the overflow policy.
    pub dropped: u64,
    /// Messages that a later one replaced.
    pub conflated: u64,
    /// Some of their topics.
    pub topics: Vec<Topic>,
}

/// The broker is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Or not within the bounds of a document.
    #[error("{0}")]
    Document(String),
    /// Not a map.
    #[error("an operation is a map")]
    NotAMap,
    /// A field that the operation cannot do without.
    #[error("the field '{0}' is missing")]
    Missing(&'static str),
    /// Another type, or a number beyond its bounds.
    #[error("the field '{0}' has a wrong type or value")]
    WrongValue(&'static str),
    /// The topic of a message.
    #[error("the topic of a message: {0}")]
    Topic(#[from] TopicError),
}

impl Msg {
    /// The payload, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.payload).ok().filter(|_| self.is_text)
    }
}

impl Operation<'_> {
    /// One message with this operation.
    #[must_use]
    pub fn encode(&self) -> Outgoing {
        Outgoing::new(Encoding::MessagePack.kind(), to_bytes(self, Encoding::MessagePack))
    }
}

impl Serialize for Pub<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let properties = self.properties;
        let (text, bin) = match self.payload {
            Payload::Text(text) => (Some(text), None),
            Payload::Binary(bytes) => (None, Some(Binary(bytes))),
        };
        PubFields {
            id: self.id,
            topic: self.topic,
            text,
            bin,
            ct: properties.content_type.as_deref(),
            retain: self.retain,
            // A message that has any time at all has a millisecond.
            ttl: self.ttl.map(millis),
            props: (!properties.user.is_empty()).then_some(Props(&properties.user)),
            reply: properties.response_topic.as_ref().map(Topic::as_str),
            corr: properties.correlation_data.as_deref().map(|bytes| Corr::new(bytes, Encoding::MessagePack)),
        }
        .serialize(serializer)
    }
}

#[derive(Serialize)]
struct PubFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bin: Option<Binary<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ct: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    retain: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    props: Option<Props<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corr: Option<Corr<'a>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Rounded up, so that something never becomes nothing.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn as_conflate<S: Serializer>(interval: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match interval {
        Some(interval) if !interval.is_zero() => serializer.serialize_u64(millis(*interval)),
        _ => serializer.serialize_bool(interval.is_some()),
    }
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn as_overflow_word<S: Serializer>(overflow: &Option<Overflow>, serializer: S) -> Result<S::Ok, S::Error> {
    match overflow {
        None => serializer.serialize_none(),
        Some(Overflow::DropOldest) => serializer.serialize_str("drop_oldest"),
        Some(Overflow::DropNewest) => serializer.serialize_str("drop_newest"),
        Some(Overflow::Conflate) => serializer.serialize_str("conflate"),
        Some(Overflow::Disconnect) => serializer.serialize_str("disconnect"),
    }
}

impl Answer {
    /// Reads one binary message of the broker.
    pub fn decode(message: &Bytes) -> Result<Self, AnswerError> {
        let document = document::decode(message, Encoding::MessagePack);
        let value = document.map_err(|error| AnswerError::Document(error.to_string()))?;
        let Value::Map(fields) = value else { return Err(AnswerError::NotAMap) };
        let mut reader = AnswerReader { fields, message };
        let op = reader.need_text("op")?;
        Ok(match op.as_ref() {
            "welcome" => Self::Welcome(reader.welcome()?),
            "ok" => Self::Ok {
                id: reader.id()?.ok_or(AnswerError::Missing("id"))?,
                matched: reader.number("matched")?,
            },
            "err" => Self::Err { id: reader.id()?, refused: reader.refused()? },
            "msg" => Self::Msg(Box::new(reader.msg()?)),
            "lag" => Self::Lag(reader.lag()?),
            "pong" => Self::Pong { id: reader.id()? },
            "bye" => Self::Bye { after: reader.number("after")?.map(Duration::from_millis) },
            _ => Self::Other,
        })
    }
}

/// As [`Properties::user`] has them.
type UserProperties = Vec<(Box<str>, Box<str>)>;

/// Hands out the fields of one answer.
struct AnswerReader<'de> {
    fields: Fields<'de>,
    message: &'de Bytes,
}

impl<'de> AnswerReader<'de> {
    fn take(&mut self, name: &str) -> Option<Value<'de>> {
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.swap_remove(at).1)
    }

    fn text(&mut self, name: &'static str) -> Result<Option<Cow<'de, str>>, AnswerError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(AnswerError::WrongValue(name)),
        }
    }

    fn need_text(&mut self, name: &'static str) -> Result<Cow<'de, str>, AnswerError> {
        self.text(name)?.ok_or(AnswerError::Missing(name))
    }

    fn number(&mut self, name: &'static str) -> Result<Option<u64>, AnswerError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Integer(number)) => {
                u64::try_from(number).map(Some).map_err(|_| AnswerError::WrongValue(name))
            }
            Some(_) => Err(AnswerError::WrongValue(name)),
        }
    }

    fn boolean(&mut self, name: &'static str) -> Result<bool, AnswerError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(AnswerError::WrongValue(name)),
        }
    }

    /// The broker repeats our ids, and those are of 32 bits.
    fn id(&mut self) -> Result<Option<u32>, AnswerError> {
        let number = self.number("id")?;
        number.map(|number| u32::try_from(number).map_err(|_| AnswerError::WrongValue("id"))).transpose()
    }

    fn welcome(&mut self) -> Result<Welcome, AnswerError> {
        let Some(limits) = self.take("limits") else { return Ok(Welcome::default()) };
        let Value::Map(fields) = limits else { return Err(AnswerError::WrongValue("limits")) };
        let mut limits = AnswerReader { fields, message: self.message };
        Ok(Welcome { message_bytes_max: limits.number("message")? })
    }

    fn refused(&mut self) -> Result<Refused, AnswerError> {
        Ok(Refused {
            code: self.need_text("code")?.into(),
            reason: self.text("reason")?.unwrap_or_default().into(),
            may_retry: self.boolean("retry")?,
        })
    }

    fn msg(&mut self) -> Result<Msg, AnswerError> {
        let topic = Topic::parse(&self.need_text("topic")?, &TopicLimits::STANDARD)?;
        let (payload, is_text) = self.payload()?;
        let response_topic = self.text("reply")?;
        Ok(Msg {
            topic,
            payload,
            is_text,
            is_retained: self.boolean("ret")?,
            published_ms: self.number("ts")?,
            expires_in: self.number("exp")?.map(Duration::from_millis),
            properties: Properties {
                content_type: self.text("ct")?.map(Into::into),
                response_topic: match response_topic {
                    None => None,
                    Some(topic) => Some(Topic::parse(&topic, &TopicLimits::STANDARD)?),
                },
                correlation_data: match self.take("corr") {
                    None => None,
                    Some(Value::Text(text)) => Some(Bytes::from(text.into_owned())),
                    Some(Value::Bin(bytes)) => Some(Bytes::copy_from_slice(bytes)),
                    Some(_) => return Err(AnswerError::WrongValue("corr")),
                },
                user: self.props()?,
            },
        })
    }

    fn payload(&mut self) -> Result<(Bytes, bool), AnswerError> {
        match (self.take("text"), self.take("bin")) {
            (Some(Value::Text(Cow::Borrowed(text))), None) => Ok((self.slice(text.as_bytes()), true)),
            (Some(Value::Text(Cow::Owned(text))), None) => Ok((Bytes::from(text), true)),
            (None, Some(Value::Bin(bytes))) => Ok((self.slice(bytes), false)),
            (None, None) => Err(AnswerError::Missing("text")),
            (Some(_), _) => Err(AnswerError::WrongValue("text")),
            (None, Some(_)) => Err(AnswerError::WrongValue("bin")),
        }
    }

    /// SEC-17: a small payload is copied and does not keep the buffer alive that it came in.
    fn slice(&self, part: &[u8]) -> Bytes {
        crate::publication::compact(&self.message.slice_ref(part))
    }

    fn props(&mut self) -> Result<UserProperties, AnswerError> {
        const WRONG: AnswerError = AnswerError::WrongValue("props");
        let fields = match self.take("props") {
            None => return Ok(Vec::new()),
            Some(Value::Map(fields)) => fields,
            Some(_) => return Err(WRONG),
        };
        let mut props = Vec::new();
        for (name, value) in fields {
            let values = match value {
                Value::List(values) => values,
                single => vec![single],
            };
            for value in values {
                let Value::Text(text) = value else { return Err(WRONG) };
                props.push((name.as_ref().into(), text.into()));
            }
        }
        Ok(props)
    }

    fn lag(&mut self) -> Result<Lag, AnswerError> {
        const WRONG: AnswerError = AnswerError::WrongValue("topics");
        let mut topics = Vec::new();
        match self.take("topics") {
            None => {}
            Some(Value::List(list)) => {
                for item in list {
                    let Value::Text(text) = item else { return Err(WRONG) };
                    topics.push(Topic::parse(&text, &TopicLimits::STANDARD)?);
                }
            }
            Some(_) => return Err(WRONG),
        }
        Ok(Lag {
            dropped: self.number("dropped")?.unwrap_or(0),
            conflated: self.number("conflated")?.unwrap_or(0),
            topics,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::publication::Publication;
    use crate::raw::Settings;
    use crate::raw::form::{Retained, message_outgoing};
    use crate::raw::operation;

    #[expect(clippy::disallowed_methods, reason = "a test needs a first instant")]
    fn start() -> Instant {
        Instant::now()
    }

    fn topic(text: &str) -> Topic {
        Topic::parse(text, &TopicLimits::STANDARD).unwrap()
    }

    fn full_properties() -> Properties {
        Properties {
            content_type: Some("text/plain".into()),
            response_topic: Some(topic("answers/1")),
            correlation_data: Some(Bytes::from_static(&[0xff, 0])),
            user: vec![("a".into(), "1".into()), ("a".into(), "2".into()), ("b".into(), "3".into())],
        }
    }

    /// What the broker's own reader makes of an operation.
    fn as_the_broker_reads(operation: &Operation<'_>) -> operation::Operation {
        let bytes = operation.encode().head;
        let value = document::decode(&bytes, Encoding::MessagePack).unwrap();
        operation::Operation::parse(value, &Settings::default(), start()).unwrap()
    }

    #[test]
    fn the_broker_reads_a_sub_with_every_option() {
        let sub = Sub {
            id: 7,
            topic: "a/+",
            last: 0,
            conflate: Some(Duration::from_micros(1)),
            overflow: Some(Overflow::DropNewest),
            no_local: true,
        };
        let operation::Operation::Sub(read) = as_the_broker_reads(&Operation::Sub(sub.clone())) else {
            panic!("not a sub")
        };
        assert_eq!(read.id, super::super::fields::Id::Number(7));
        assert_eq!(read.filters[0].as_str(), "a/+");
        assert!(!read.is_retained_wanted && read.no_local);
        assert_eq!(read.conflate, Some(Duration::from_millis(1)));
        assert_eq!(read.overflow, Some(Overflow::DropNewest));

        let queued = Sub { conflate: Some(Duration::ZERO), ..sub };
        let operation::Operation::Sub(read) = as_the_broker_reads(&Operation::Sub(queued)) else {
            panic!("not a sub")
        };
        assert_eq!(read.conflate, Some(Duration::ZERO));
    }

    #[test]
    fn the_broker_reads_a_pub_as_it_was_meant() {
        // The content type says text of both.
        for payload in [Payload::Text("21.5"), Payload::Binary(b"21.5")] {
            let properties = full_properties();
            let operation = Operation::Pub(Pub {
                id: Some(1),
                topic: "a/b",
                payload,
                retain: true,
                ttl: Some(Duration::from_secs(1)),
                properties: &properties,
            });
            let operation::Operation::Pub { id, publication } = as_the_broker_reads(&operation) else {
                panic!("not a pub")
            };
            assert_eq!(id, Some(super::super::fields::Id::Number(1)));
            assert_eq!(&publication.payload[..], b"21.5");
            assert!(publication.is_text && publication.retain);
            assert_eq!(publication.properties.as_deref(), Some(&properties));
            assert!(publication.expires_at.is_some());
        }
    }

    #[test]
    fn the_broker_reads_hello_unsub_and_ping() {
        assert!(matches!(
            as_the_broker_reads(&Operation::Hello {}),
            operation::Operation::Hello { wants_resumption: false }
        ));
        assert!(matches!(
            as_the_broker_reads(&Operation::Unsub { id: 1, topic: "a/#" }),
            operation::Operation::Unsub { .. }
        ));
        assert!(matches!(
            as_the_broker_reads(&Operation::Ping { id: 1 }),
            operation::Operation::Ping { id: Some(super::super::fields::Id::Number(1)) }
        ));
    }

    #[test]
    fn reads_the_msg_that_the_broker_writes() {
        let now = start();
        for (payload, is_text) in [(&b"hi"[..], true), (&[0xff, 0xfe], false)] {
            let mut publication = Publication::new(topic("a/b"), Bytes::copy_from_slice(payload));
            publication.properties = Some(Box::new(full_properties()));
            publication.published_ms = 17;
            publication.expires_at = Some(now + Duration::from_millis(250));
            let outgoing = message_outgoing(&publication, Encoding::MessagePack, Retained::Yes, now);
            let expected = Msg {
                topic: topic("a/b"),
                payload: Bytes::copy_from_slice(payload),
                is_text,
                is_retained: true,
                published_ms: Some(17),
                expires_in: Some(Duration::from_millis(250)),
                properties: full_properties(),
            };
            assert_eq!(Answer::decode(&outgoing.head), Ok(Answer::Msg(Box::new(expected))));
        }
    }

    /// `json` is written as MessagePack and read.
    fn check(json: &str, expected: &Result<Answer, AnswerError>) {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        let bytes = Bytes::from(rmp_serde::to_vec_named(&value).unwrap());
        assert_eq!(&Answer::decode(&bytes), expected, "{json}");
    }

    #[test]
    fn reads_every_answer_and_passes_over_what_it_does_not_know() {
        let refused = Refused { code: "denied".into(), reason: "no".into(), may_retry: true };
        for (json, expected) in [
            (
                r#"{"op":"welcome","v":1,"limits":{"message":5,"new":1},"new":[1]}"#,
                Answer::Welcome(Welcome { message_bytes_max: Some(5) }),
            ),
            (r#"{"op":"ok","id":3,"matched":2}"#, Answer::Ok { id: 3, matched: Some(2) }),
            (
                r#"{"op":"err","id":3,"code":"denied","reason":"no","retry":true}"#,
                Answer::Err { id: Some(3), refused },
            ),
            (
                r#"{"op":"lag","dropped":1,"conflated":2,"topics":["a"]}"#,
                Answer::Lag(Lag { dropped: 1, conflated: 2, topics: vec![topic("a")] }),
            ),
            (r#"{"op":"pong","id":4}"#, Answer::Pong { id: Some(4) }),
            (
                r#"{"op":"bye","code":1001,"reason":"x","after":1500}"#,
                Answer::Bye { after: Some(Duration::from_millis(1500)) },
            ),
            (r#"{"op":"join","topic":"a"}"#, Answer::Other),
        ] {
            check(json, &Ok(expected));
        }
    }

    #[test]
    fn refuses_answers_that_lack_what_they_are_about() {
        for (json, error) in [
            ("[]", AnswerError::NotAMap),
            ("{}", AnswerError::Missing("op")),
            (r#"{"op":1}"#, AnswerError::WrongValue("op")),
            (r#"{"op":"ok"}"#, AnswerError::Missing("id")),
            (r#"{"op":"ok","id":4294967296}"#, AnswerError::WrongValue("id")),
            (r#"{"op":"ok","id":-1}"#, AnswerError::WrongValue("id")),
            (r#"{"op":"msg","text":"x"}"#, AnswerError::Missing("topic")),
            (r#"{"op":"msg","topic":"a"}"#, AnswerError::Missing("text")),
            (r#"{"op":"msg","topic":"a","text":1}"#, AnswerError::WrongValue("text")),
            (r#"{"op":"msg","topic":"a","bin":"x"}"#, AnswerError::WrongValue("bin")),
            (r#"{"op":"msg","topic":"a+","text":"x"}"#, AnswerError::Topic(TopicError::WildcardInName)),
            (r#"{"op":"lag","topics":[1]}"#, AnswerError::WrongValue("topics")),
        ] {
            check(json, &Err(error));
        }
        let cut = Bytes::from_static(&[0x81, 0xa2, b'o']);
        assert!(matches!(Answer::decode(&cut), Err(AnswerError::Document(_))));
    }
}

//! A client's operation (WIRE §3) from a tree of values: names, types, limits, and what each wrong one is told.
//!
//! Strict: a field that is unknown, repeated or of another type is refused by name, because a field that is
//! silently ignored is a promise that is silently broken. Knows no session.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Settings;
use super::document::{Value, json_depth};
use super::fields::{
    FieldReader, Flaw, Id, Problem, STRING_BYTES_MAX, as_property, bad, base64, first_repeated, kind,
    missing, parse_filter, parse_topic, unsupported, wrong_type,
};
use super::form::DATA_DEPTH_MAX;
use super::suggest::{hint, shown};
use crate::publication::{Properties, Publication, QoS, says_utf8};
use crate::session::Overflow;
use crate::topic::{ShareName, TopicFilter, TopicLimits};

/// What a client asks for.
#[derive(Debug)]
pub(super) enum Operation {
    Hello { wants_resumption: bool },
    Sub(Sub),
    Unsub { id: Id, group: Option<ShareName>, filter: TopicFilter },
    Pub { id: Option<Id>, publication: Box<Publication> },
    Ping { id: Option<Id> },
}

/// `sub`.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) id: Id,
    pub(super) group: Option<ShareName>,
    pub(super) filters: Vec<TopicFilter>,
    pub(super) is_retained_wanted: bool,
    pub(super) conflate: Option<Duration>,
    pub(super) overflow: Option<Overflow>,
    pub(super) no_local: bool,
}

const OPERATIONS: [&str; 9] = ["hello", "sub", "unsub", "pub", "ack", "hist", "who", "auth", "ping"];

/// MQTT's longest Message Expiry Interval, in milliseconds.
const TTL_MS_MAX: i64 = u32::MAX as i64 * 1000;

/// [`Properties::user`].
type UserProperties = Vec<(Box<str>, Box<str>)>;

impl Operation {
    /// Reads one element of a message.
    pub(super) fn parse(value: Value<'_>, settings: &Settings, now: Instant) -> Result<Self, Flaw> {
        let Value::Map(fields) = value else {
            return Err(bad(format!("an operation is a map with 'op', not {}", kind(&value))).without_id());
        };
        let mut reader = FieldReader::new(fields);
        let id = reader.id().map_err(Problem::without_id)?;
        Self::parse_fields(&mut reader, id.clone(), settings, now).map_err(|problem| Flaw {
            id,
            word: problem.word,
            reason: problem.reason,
        })
    }

    fn parse_fields(
        reader: &mut FieldReader<'_>,
        id: Option<Id>,
        settings: &Settings,
        now: Instant,
    ) -> Result<Self, Problem> {
        reader.refuse_repetition()?;
        let op = reader.text("op")?.ok_or_else(|| missing("op"))?;
        reader.op = op.into_owned();
        let limits = &settings.topic_limits;
        match reader.op.as_str() {
            "hello" => reader.hello(id),
            "sub" => reader.sub(id, limits),
            "unsub" => {
                let filter = reader.text("topic")?.ok_or_else(|| missing("topic"))?;
                let filter = parse_filter("topic", &filter, limits)?;
                let group = reader.group(limits)?;
                reader.finish(&["op", "id", "topic", "group"])?;
                Ok(Self::Unsub { id: id.ok_or_else(|| missing("id"))?, group, filter })
            }
            "pub" => reader.publish(id, limits, now),
            "ping" => {
                reader.finish(&["op", "id"])?;
                Ok(Self::Ping { id })
            }
            "ack" => Err(unsupported("'ack' belongs to a window, and this broker has none yet")),
            "hist" => Err(unsupported("'hist': this broker keeps no history yet")),
            "who" => Err(unsupported("'who': this broker has no presence yet")),
            "auth" => Err(unsupported("'auth': this broker has no tokens to refresh yet")),
            other => Err(bad(format!("unknown op '{}'{}", shown(other), hint(other, &OPERATIONS)))),
        }
    }
}

impl FieldReader<'_> {
    fn hello(&mut self, id: Option<Id>) -> Result<Operation, Problem> {
        if id.is_some() {
            return Err(bad("unknown field 'id' in 'hello': its answer is 'welcome'"));
        }
        // Accepted as anonymous where the broker let this connection in, as every credential is for now.
        let _ = self.text("token")?;
        if self.text("name")?.is_some() {
            return Err(unsupported("'name': the broker gives the name until sessions can be resumed"));
        }
        if self.integer("window")?.is_some_and(|window| window != 0) {
            return Err(unsupported("'window': this broker has none yet; 0 or nothing is accepted"));
        }
        let wants_resumption = match self.take("resume") {
            None => false,
            Some(Value::Map(_)) => true,
            Some(other) => return Err(wrong_type("resume", "a map", &other)),
        };
        self.finish(&["op", "token", "name", "window", "resume"])?;
        Ok(Operation::Hello { wants_resumption })
    }

    fn sub(&mut self, id: Option<Id>, limits: &TopicLimits) -> Result<Operation, Problem> {
        let id = id.ok_or_else(|| missing("id"))?;
        for (name, what) in [("since", "keeps no history"), ("presence", "has no presence")] {
            if self.take(name).is_some() {
                return Err(unsupported(format!("'{name}': this broker {what} yet")));
            }
        }
        match self.integer("qos")? {
            None | Some(0) => {}
            Some(1) => return Err(unsupported("'qos' 1 needs a window, and this broker has none yet")),
            Some(_) => return Err(bad("the field 'qos' is 0 or 1")),
        }
        let group = self.group(limits)?;
        let is_retained_wanted = match self.integer("last")? {
            None => group.is_none(),
            Some(0) => false,
            // MQTT 5 §4.8.2, for all members alike.
            Some(1..) if group.is_some() => {
                return Err(bad("a 'group' gets no retained messages; 'last' is 0 there"));
            }
            Some(1) => true,
            Some(2..) => {
                return Err(unsupported("'last' beyond 1 needs history, and this broker keeps none yet"));
            }
            Some(_) => return Err(bad("the field 'last' is not negative")),
        };
        let conflate = self.conflate()?;
        let overflow = self.overflow()?;
        let no_local = self.boolean("noecho")?;
        if no_local && group.is_some() {
            // [MQTT-3.8.3-4]
            return Err(bad("'noecho' and 'group' exclude each other: no member may refuse its share"));
        }
        let filters = self.filters(limits)?;
        self.finish(&[
            "op", "id", "topic", "topics", "qos", "last", "since", "conflate", "overflow", "group",
            "presence", "noecho",
        ])?;
        Ok(Operation::Sub(Sub { id, group, filters, is_retained_wanted, conflate, overflow, no_local }))
    }

    fn group(&mut self, limits: &TopicLimits) -> Result<Option<ShareName>, Problem> {
        let Some(name) = self.text("group")? else { return Ok(None) };
        let parsed = ShareName::parse(&name, limits);
        parsed.map(Some).map_err(|error| bad(format!("'group': '{}': {error}", shown(&name))))
    }

    fn filters(&mut self, limits: &TopicLimits) -> Result<Vec<TopicFilter>, Problem> {
        let one = self.text("topic")?;
        let list = match (one, self.take("topics")) {
            (Some(text), None) => return Ok(vec![parse_filter("topic", &text, limits)?]),
            (None, Some(Value::List(list))) => list,
            (None, Some(other)) => return Err(wrong_type("topics", "a list of strings", &other)),
            (Some(_), Some(_)) => return Err(bad("'topic' or 'topics', not both")),
            (None, None) => return Err(bad("the field 'topic' or 'topics' is missing")),
        };
        let mut filters = Vec::new();
        for item in list {
            let Value::Text(text) = item else {
                return Err(wrong_type("topics", "a list of strings", &item));
            };
            filters.push(parse_filter("topics", &text, limits)?);
        }
        if filters.is_empty() {
            return Err(bad("the field 'topics' is empty"));
        }
        // The same filter twice is one subscription.
        filters.sort();
        filters.dedup();
        Ok(filters)
    }

    fn conflate(&mut self) -> Result<Option<Duration>, Problem> {
        match self.take("conflate") {
            None | Some(Value::Bool(false)) => Ok(None),
            Some(Value::Bool(true)) => Ok(Some(Duration::ZERO)),
            Some(Value::Integer(millis)) => match u32::try_from(millis) {
                Ok(0) => Ok(None),
                Ok(millis) => Ok(Some(Duration::from_millis(u64::from(millis)))),
                Err(_) => {
                    Err(bad("the field 'conflate' is at most 4294967295 milliseconds, and not negative"))
                }
            },
            Some(other) => Err(wrong_type("conflate", "true, false or milliseconds", &other)),
        }
    }

    fn overflow(&mut self) -> Result<Option<Overflow>, Problem> {
        const WORDS: [&str; 4] = ["drop_oldest", "drop_newest", "conflate", "disconnect"];
        match self.text("overflow")?.as_deref() {
            None => Ok(None),
            Some("drop_oldest") => Ok(Some(Overflow::DropOldest)),
            Some("drop_newest") => Ok(Some(Overflow::DropNewest)),
            Some("conflate") => Ok(Some(Overflow::Conflate)),
            Some("disconnect") => Ok(Some(Overflow::Disconnect)),
            Some(other) => Err(bad(format!(
                "the field 'overflow' is one of {}, not '{}'{}",
                WORDS.join(", "),
                shown(other),
                hint(other, &WORDS)
            ))),
        }
    }

    fn publish(&mut self, id: Option<Id>, limits: &TopicLimits, now: Instant) -> Result<Operation, Problem> {
        let topic = self.text("topic")?.ok_or_else(|| missing("topic"))?;
        let topic = parse_topic("topic", &topic, limits)?;
        let (payload, is_text) = self.payload()?;
        let mut publication = Publication::new(topic, payload);
        publication.is_text = is_text;
        publication.qos = match (self.integer("qos")?, &id) {
            (None, None) | (Some(0), _) => QoS::AtMostOnce,
            // An answer is wanted, and that is QoS 1 (WIRE §8).
            (None, Some(_)) | (Some(1), _) => QoS::AtLeastOnce,
            (Some(2), _) => return Err(unsupported("'qos' 2: the envelope publishes at 0 or 1")),
            (Some(_), _) => return Err(bad("the field 'qos' is 0 or 1")),
        };
        publication.retain = self.boolean("retain")?;
        publication.expires_at = self.expiry(now)?;
        let properties = Properties {
            content_type: self.property("ct")?,
            response_topic: match self.text("reply")? {
                None => None,
                Some(text) => Some(parse_topic("reply", &text, limits)?),
            },
            correlation_data: self.correlation()?,
            user: self.props()?,
        };
        // Bytes that are said to be text, and are, are text in every protocol.
        publication.is_text = publication.is_text
            || (properties.content_type.as_deref().is_some_and(says_utf8)
                && simdutf8::basic::from_utf8(&publication.payload).is_ok());
        if properties != Properties::default() {
            publication.properties = Some(Box::new(properties));
        }
        self.finish(&[
            "op", "id", "topic", "data", "text", "b64", "bin", "ct", "qos", "retain", "ttl", "props",
            "reply", "corr",
        ])?;
        Ok(Operation::Pub { id, publication: Box::new(publication) })
    }

    /// Exactly one of `data`, `text`, `b64` and `bin`. Copied, so that no message keeps the frame of another alive.
    fn payload(&mut self) -> Result<(Bytes, bool), Problem> {
        let mut found: Option<(Bytes, bool)> = None;
        for name in ["data", "text", "b64", "bin"] {
            let Some(value) = self.take(name) else { continue };
            if found.is_some() {
                return Err(bad(
                    "exactly one of 'data', 'text', 'b64' and 'bin' is the payload; here are two",
                ));
            }
            found = Some(match (name, value) {
                ("data", Value::Data(json)) if json_depth(json) > DATA_DEPTH_MAX => {
                    return Err(bad("the field 'data' has more than 64 levels of nesting"));
                }
                ("data", Value::Data(json)) => (Bytes::copy_from_slice(json.as_bytes()), true),
                ("data", _) => {
                    return Err(bad(
                        "the field 'data' belongs to JSON; in MessagePack it is 'text' or 'bin'",
                    ));
                }
                ("bin", Value::Bin(bytes)) => (Bytes::copy_from_slice(bytes), false),
                ("bin", other) => return Err(wrong_type("bin", "bytes of MessagePack", &other)),
                ("b64", Value::Text(text)) => (base64("b64", &text)?, false),
                (_, Value::Text(text)) => (Bytes::from(text.into_owned()), true),
                (name, other) => return Err(wrong_type(name, "a string", &other)),
            });
        }
        found.ok_or_else(|| {
            bad("the payload is missing: 'data', 'text' or 'b64' in JSON, 'text' or 'bin' in MessagePack")
        })
    }

    fn expiry(&mut self, now: Instant) -> Result<Option<Instant>, Problem> {
        match self.integer("ttl")? {
            None => Ok(None),
            Some(millis @ 1..=TTL_MS_MAX) => {
                Ok(now.checked_add(Duration::from_millis(millis.unsigned_abs())))
            }
            Some(_) => Err(bad("the field 'ttl' is in milliseconds, from 1 to 4294967295000")),
        }
    }

    fn correlation(&mut self) -> Result<Option<Bytes>, Problem> {
        let bytes = match self.take("corr") {
            None => return Ok(None),
            Some(Value::Text(text)) => Bytes::from(text.into_owned()),
            Some(Value::Bin(bytes)) => Bytes::copy_from_slice(bytes),
            Some(Value::Map(fields)) => match fields.as_slice() {
                [(name, Value::Text(text))] if name == "b64" => base64("corr", text)?,
                _ => return Err(bad("the field 'corr' as a map is {\"b64\": \"…\"}")),
            },
            Some(other) => return Err(wrong_type("corr", "a string, bytes or {\"b64\": \"…\"}", &other)),
        };
        if bytes.len() > STRING_BYTES_MAX {
            return Err(bad("the field 'corr' is longer than 65535 bytes"));
        }
        Ok(Some(bytes))
    }

    fn props(&mut self) -> Result<UserProperties, Problem> {
        let fields = match self.take("props") {
            None => return Ok(Vec::new()),
            Some(Value::Map(fields)) => fields,
            Some(other) => return Err(wrong_type("props", "a map", &other)),
        };
        if let Some(name) = first_repeated(fields.iter().map(|(name, _)| name.as_ref())) {
            return Err(bad(format!(
                "the name '{}' stands twice in 'props'; use a list of values",
                shown(name)
            )));
        }
        let mut props = UserProperties::new();
        for (name, value) in fields {
            let name = as_property("props", &name)?;
            let values = match value {
                Value::List(values) => values,
                single => vec![single],
            };
            for value in values {
                let Value::Text(text) = value else {
                    return Err(wrong_type("props", "a map of strings or lists of strings", &value));
                };
                props.push((name.into(), as_property("props", &text)?.into()));
            }
        }
        Ok(props)
    }
}

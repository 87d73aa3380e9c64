//! The fields of one operation by name and type, and what each wrong one is told. Knows no operation.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;

use super::document::{Fields, Value};
use super::refusal::Word;
use super::suggest::{hint, shown};
use crate::topic::{Topic, TopicFilter, TopicLimits};

/// What a client names a request by; it comes back as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Id {
    Number(i64),
    Text(Box<str>),
}

/// An operation that is none: what its `err` says. The client is at fault, and the connection goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) id: Option<Id>,
    pub(super) word: Word,
    pub(super) reason: String,
}

/// Bytes of an `id` that is a string: it is kept until its answer.
const ID_BYTES_MAX: usize = 64;

/// The largest whole number that JavaScript keeps exact (ECMA-262 `Number.MAX_SAFE_INTEGER`).
const ID_NUMBER_MAX: i64 = (1 << 53) - 1;
const ID_NUMBER_MIN: i64 = -ID_NUMBER_MAX;

/// MQTT's longest string: what goes into a property has to fit on that wire as well (WIRE §7).
pub(super) const STRING_BYTES_MAX: usize = 65_535;

/// Why it is none, before its id is known.
pub(super) struct Problem {
    pub(super) word: Word,
    pub(super) reason: String,
}

impl Problem {
    pub(super) fn without_id(self) -> Flaw {
        Flaw { id: None, word: self.word, reason: self.reason }
    }
}

pub(super) fn bad(reason: impl Into<String>) -> Problem {
    Problem { word: Word::BadRequest, reason: reason.into() }
}

pub(super) fn unsupported(reason: impl Into<String>) -> Problem {
    Problem { word: Word::Unsupported, reason: reason.into() }
}

pub(super) fn missing(name: &str) -> Problem {
    bad(format!("the field '{name}' is missing"))
}

pub(super) fn wrong_type(name: &str, expected: &str, value: &Value<'_>) -> Problem {
    bad(format!("the field '{name}' is {expected}, not {}", kind(value)))
}

pub(super) const fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Integer(_) => "an integer",
        Value::OtherNumber => "a number of another kind",
        Value::Text(_) => "a string",
        Value::Bin(_) => "bytes",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
        Value::Data(_) => "JSON data",
    }
}

pub(super) fn parse_topic(name: &str, text: &str, limits: &TopicLimits) -> Result<Topic, Problem> {
    Topic::parse(text, limits).map_err(|error| bad_topic(name, text, &error.to_string()))
}

pub(super) fn parse_filter(name: &str, text: &str, limits: &TopicLimits) -> Result<TopicFilter, Problem> {
    if text.starts_with("$share/") {
        // Taken literally it would match nothing for ever.
        return Err(Problem {
            word: Word::BadTopic,
            reason: format!("'{name}': '$share/' is MQTT's way to name a group; here it is 'group':\"NAME\""),
        });
    }
    TopicFilter::parse(text, limits).map_err(|error| bad_topic(name, text, &error.to_string()))
}

fn bad_topic(name: &str, text: &str, error: &str) -> Problem {
    Problem { word: Word::BadTopic, reason: format!("'{name}': '{}': {error}", shown(text)) }
}

/// Hands out the fields of one operation; what is left at the end is unknown.
pub(super) struct FieldReader<'de> {
    fields: Fields<'de>,
    pub(super) op: String,
    repeated: Option<String>,
}

impl<'de> FieldReader<'de> {
    pub(super) fn new(fields: Fields<'de>) -> Self {
        let repeated = first_repeated(fields.iter().map(|(name, _)| name.as_ref())).map(shown);
        Self { fields, op: String::new(), repeated }
    }

    pub(super) fn refuse_repetition(&mut self) -> Result<(), Problem> {
        match self.repeated.take() {
            Some(name) => Err(bad(format!("the field '{name}' stands twice"))),
            None => Ok(()),
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value<'de>> {
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.swap_remove(at).1)
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<Cow<'de, str>>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, "a string", &other)),
        }
    }

    /// A string that becomes a property, so that it has to fit into MQTT's [MQTT-1.5.4-2].
    pub(super) fn property(&mut self, name: &str) -> Result<Option<Box<str>>, Problem> {
        match self.text(name)? {
            None => Ok(None),
            Some(text) => as_property(name, &text).map(|text| Some(text.into())),
        }
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(other) => Err(wrong_type(name, "true or false", &other)),
        }
    }

    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i64>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Integer(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(name, "an integer", &other)),
        }
    }

    pub(super) fn id(&mut self) -> Result<Option<Id>, Problem> {
        match self.take("id") {
            None => Ok(None),
            Some(Value::Integer(number @ ID_NUMBER_MIN..=ID_NUMBER_MAX)) => Ok(Some(Id::Number(number))),
            Some(Value::Text(text)) if text.len() <= ID_BYTES_MAX => Ok(Some(Id::Text(text.into()))),
            Some(Value::Integer(_) | Value::Text(_)) => Err(bad(
                "the field 'id' is an integer up to 2^53 - 1 or a string up to 64 bytes; this one is beyond",
            )),
            Some(other) => Err(wrong_type("id", "an integer or a string", &other)),
        }
    }

    /// Nothing may be left over.
    pub(super) fn finish(&self, known: &[&str]) -> Result<(), Problem> {
        match self.fields.first() {
            None => Ok(()),
            Some((name, _)) => {
                let near = hint(name, known);
                Err(bad(format!("unknown field '{}' in '{}'{near}", shown(name), self.op)))
            }
        }
    }
}

pub(super) fn as_property<'a>(name: &str, text: &'a str) -> Result<&'a str, Problem> {
    if text.len() > STRING_BYTES_MAX {
        return Err(bad(format!("a string in '{name}' is longer than 65535 bytes")));
    }
    if text.contains('\0') {
        return Err(bad(format!("a string in '{name}' contains U+0000 [MQTT-1.5.4-2]")));
    }
    Ok(text)
}

pub(super) fn base64(name: &str, text: &str) -> Result<Bytes, Problem> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| {
        bad(format!(
            "the field '{name}' is not base64 (RFC 4648 §4, with padding): {}",
            error.to_string().to_lowercase()
        ))
    })
}

pub(super) fn first_repeated<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Sorted: 10 000 names must not cost 10 000² comparisons.
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    })
}

//! The query of a raw connection's URL (WIRE §2): which mode, and what payload mode needs. Knows no session.
//!
//! Percent-decoding is strict UTF-8, and a `+` is a space as in a form. Since a literal `+` typed into a URL thus
//! arrives as a space, a level of a topic that is exactly one space stands for the wildcard `+`.

use std::time::Duration;

use super::Settings;
use super::form::PayloadForm;
use super::suggest::{hint, shown};
use crate::topic::{Topic, TopicError, TopicFilter};

/// What the URL asks for.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) mode: Mode,
}

/// How frames are read.
#[derive(Debug)]
pub(super) enum Mode {
    Payload(PayloadOptions),
    Envelope,
}

/// What payload mode is set up with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PayloadOptions {
    pub(super) filters: Vec<TopicFilter>,
    pub(super) publish_to: Option<Topic>,
    pub(super) is_retained_wanted: bool,
    pub(super) form: PayloadForm,
    pub(super) with_topic: bool,
    pub(super) conflate: Option<Duration>,
}

/// Why a URL is refused. Each is a sentence for the body of a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No such parameter.
    #[error("unknown parameter '{name}' in the URL{hint}")]
    Unknown {
        /// Its name, escaped.
        name: String,
        /// The nearest known one.
        hint: String,
    },
    /// Only `t` may repeat.
    #[error("the parameter '{0}' stands twice in the URL")]
    Repeated(&'static str),
    /// `%` without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("the query of the URL is not percent-encoded UTF-8, near '{0}'")]
    Encoding(String),
    /// A value that the parameter does not have.
    #[error("the parameter '{name}' of the URL is {expected}, not '{value}'")]
    Value {
        /// Whose.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it was, escaped.
        value: String,
    },
    /// History does not exist.
    #[error("'last' is 0 or 1: this broker keeps no history beyond the retained message of a topic")]
    History,
    /// Tokens in URLs end up in logs.
    #[error(
        "tokens in the URL are off, because URLs end up in logs; offer the subprotocol 'bearer.<token>' beside \
         'raw' instead"
    )]
    Token,
    /// Not a topic or filter.
    #[error("the parameter '{name}' of the URL, '{value}', is not usable: {error}")]
    Topic {
        /// Which parameter.
        name: &'static str,
        /// Its value, escaped.
        value: String,
        /// Why.
        error: TopicError,
    },
    /// `$share/…` is MQTT's.
    #[error("the parameter 't' of the URL begins with '$share/': payload mode has no shared subscriptions")]
    Shared,
    /// Too many `t`.
    #[error("the limit raw.max_topics = {0} is reached")]
    TooManyTopics(usize),
    /// It says how to deliver, and nothing is delivered.
    #[error("the parameter '{0}' of the URL has no effect without 't'")]
    NeedsTopic(&'static str),
    /// `raw.json.v1` means the envelope.
    #[error(
        "the subprotocols raw.json.v1 and raw.msgpack.v1 are the envelope, where topics stand in 'sub' and 'pub'; \
         for 't' and 'pub' in the URL offer 'raw' or nothing"
    )]
    PinnedEnvelope,
}

const PARAMETERS: [&str; 8] = ["t", "last", "pub", "with", "as", "conflate", "protocol", "token"];

/// The parameters as they stood, decoded.
#[derive(Default)]
struct Parameters {
    topics: Vec<String>,
    last: Option<String>,
    publish: Option<String>,
    with: Option<String>,
    framing: Option<String>,
    conflate: Option<String>,
    protocol: Option<String>,
}

impl Query {
    pub(super) fn parse(query: &str, settings: &Settings) -> Result<Self, QueryError> {
        let parameters = Parameters::parse(query)?;
        if parameters.topics.is_empty() {
            parameters.refuse_delivery_options()?;
        }
        if parameters.topics.is_empty() && parameters.publish.is_none() {
            return Ok(Self { mode: Mode::Envelope });
        }
        Ok(Self { mode: Mode::Payload(parameters.into_payload(settings)?) })
    }
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, QueryError> {
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let (name, slot) = match name.as_str() {
                "t" => {
                    parameters.topics.push(decode(value)?);
                    continue;
                }
                // Before it is decoded: nothing of it is to be shown (SEC-23).
                "token" => return Err(QueryError::Token),
                "last" => ("last", &mut parameters.last),
                "pub" => ("pub", &mut parameters.publish),
                "with" => ("with", &mut parameters.with),
                "as" => ("as", &mut parameters.framing),
                "conflate" => ("conflate", &mut parameters.conflate),
                // Obeyed by the negotiation.
                "protocol" => ("protocol", &mut parameters.protocol),
                other => {
                    return Err(QueryError::Unknown { name: shown(other), hint: hint(other, &PARAMETERS) });
                }
            };
            if slot.replace(decode(value)?).is_some() {
                return Err(QueryError::Repeated(name));
            }
        }
        Ok(parameters)
    }

    fn refuse_delivery_options(&self) -> Result<(), QueryError> {
        for (name, value) in
            [("last", &self.last), ("with", &self.with), ("as", &self.framing), ("conflate", &self.conflate)]
        {
            if value.is_some() {
                return Err(QueryError::NeedsTopic(name));
            }
        }
        Ok(())
    }

    fn into_payload(self, settings: &Settings) -> Result<PayloadOptions, QueryError> {
        let limits = &settings.topic_limits;
        let mut filters: Vec<TopicFilter> = Vec::new();
        for text in &self.topics {
            let text = spaces_as_plus(text);
            let filter = TopicFilter::parse(&text, limits).map_err(|error| not_a_topic("t", &text, error))?;
            if filter.as_str().starts_with("$share/") {
                return Err(QueryError::Shared);
            }
            if filters.contains(&filter) {
                continue;
            }
            if filters.len() >= settings.topics_max {
                return Err(QueryError::TooManyTopics(settings.topics_max));
            }
            filters.push(filter);
        }
        let publish_to = match self.publish.as_deref().map(spaces_as_plus) {
            None => None,
            Some(text) => {
                Some(Topic::parse(&text, limits).map_err(|error| not_a_topic("pub", &text, error))?)
            }
        };
        Ok(PayloadOptions {
            filters,
            publish_to,
            is_retained_wanted: last(self.last.as_deref())?,
            form: form(self.framing.as_deref())?,
            with_topic: with(self.with.as_deref())?,
            conflate: conflate(self.conflate.as_deref())?,
        })
    }
}

fn last(value: Option<&str>) -> Result<bool, QueryError> {
    match value {
        None | Some("1") => Ok(true),
        Some("0") => Ok(false),
        Some(digits) if is_number(digits) => Err(QueryError::History),
        Some(other) => Err(bad_value("last", "0 or 1", other)),
    }
}

fn form(value: Option<&str>) -> Result<PayloadForm, QueryError> {
    match value {
        None | Some("auto") => Ok(PayloadForm::Auto),
        Some("text") => Ok(PayloadForm::Text),
        Some("binary") => Ok(PayloadForm::Binary),
        Some(other) => Err(bad_value("as", "'auto', 'text' or 'binary'", other)),
    }
}

fn with(value: Option<&str>) -> Result<bool, QueryError> {
    match value {
        None => Ok(false),
        Some("topic") => Ok(true),
        Some(other) => Err(bad_value("with", "'topic'", other)),
    }
}

fn conflate(value: Option<&str>) -> Result<Option<Duration>, QueryError> {
    match value {
        None | Some("0") => Ok(None),
        Some("1") => Ok(Some(Duration::ZERO)),
        Some(digits) => match digits.parse::<u32>() {
            Ok(millis) if is_number(digits) => Ok(Some(Duration::from_millis(u64::from(millis)))),
            _ => Err(bad_value("conflate", "0, 1 or a number of milliseconds", digits)),
        },
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn bad_value(name: &'static str, expected: &'static str, value: &str) -> QueryError {
    QueryError::Value { name, expected, value: shown(value) }
}

fn not_a_topic(name: &'static str, value: &str, error: TopicError) -> QueryError {
    QueryError::Topic { name, value: shown(value), error }
}

fn spaces_as_plus(topic: &str) -> String {
    let levels: Vec<&str> = topic.split('/').map(|level| if level == " " { "+" } else { level }).collect();
    levels.join("/")
}

/// `application/x-www-form-urlencoded`, but strict: browsers' `URLSearchParams` would let `%zz` stand.
fn decode(text: &str) -> Result<String, QueryError> {
    let bad = || QueryError::Encoding(shown(text));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = rest.next().and_then(hex_digit).ok_or_else(bad)?;
                let low = rest.next().and_then(hex_digit).ok_or_else(bad)?;
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

//! What a user publishes: a topic, a payload, and what is said beside it.

use std::time::Duration;

use bytes::Bytes;
use tidegate_protocol::publication::Properties;
use tidegate_protocol::raw::client::{Payload, Pub};
use tidegate_protocol::topic::{Topic, TopicError, TopicLimits};

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Publication {
    topic: Topic,
    content: Content,
    retain: bool,
    ttl: Option<Duration>,
    properties: Properties,
}

#[derive(Clone, Debug)]
enum Content {
    Text(String),
    Binary(Bytes),
}

impl Publication {
    /// UTF-8 text; JSON is text.
    pub fn text(topic: &str, text: impl Into<String>) -> Result<Self, TopicError> {
        Self::new(topic, Content::Text(text.into()))
    }

    /// Bytes that mean nothing to the broker.
    pub fn binary(topic: &str, payload: impl Into<Bytes>) -> Result<Self, TopicError> {
        Self::new(topic, Content::Binary(payload.into()))
    }

    fn new(topic: &str, content: Content) -> Result<Self, TopicError> {
        let topic = Topic::parse(topic, &TopicLimits::STANDARD)?;
        Ok(Self { topic, content, retain: false, ttl: None, properties: Properties::default() })
    }

    /// The broker keeps it for later subscribers. An empty payload deletes what is kept.
    #[must_use]
    pub const fn with_retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// It is not delivered any more after this time, which is counted in milliseconds.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Content type, topic for an answer, correlation data, user properties.
    #[must_use]
    pub fn with_properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }

    pub(crate) fn operation(&self, id: Option<u32>) -> Pub<'_> {
        Pub {
            id,
            topic: self.topic.as_str(),
            payload: match &self.content {
                Content::Text(text) => Payload::Text(text),
                Content::Binary(bytes) => Payload::Binary(bytes),
            },
            retain: self.retain,
            ttl: self.ttl,
            properties: &self.properties,
        }
    }
}

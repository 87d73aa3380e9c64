//! Records as they are stored: plain data, and its bytes. Knows no database, reads no clock.
//!
//! A record is one version byte and then MessagePack, fields in order (rmp-serde). Whatever bytes come in, decoding
//! neither panics nor allocates by a claimed length; what is left over behind a record makes it invalid.
//! Times are Unix milliseconds.

mod wire;

use std::num::NonZeroU32;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidegate_protocol::publication::{Properties, Publication, QoS};
use tidegate_protocol::session::{Copies, Overflow, SubscriptionId};
use tidegate_protocol::topic::{ShareName, Topic, TopicFilter};

/// The stable number of a session: a mailbox's key, across restarts. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// The number of a stored publication. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BodyId(pub u64);

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Under which the registry has it.
    pub name: Box<str>,
    /// How long it is kept after a connection; [`SessionRecord::NEVER`]: for good.
    pub expiry_ms: u64,
    /// `None`: connected when this was written, so away since the restart.
    pub away: Option<Away>,
    /// To be published when it is due, and unless the client comes back.
    pub will: Option<Box<WillRecord>>,
    /// Messages dropped while the client was away.
    pub lost: u64,
}

/// The client was not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// When the session ends; [`SessionRecord::NEVER`].
    pub expires_at_ms: u64,
}

/// A last message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WillRecord {
    /// `None`: the client was connected when this was written, and the delay begins with the restart.
    pub due_at_ms: Option<u64>,
    /// The message.
    pub publication: PublicationRecord,
    /// Between the end of the connection and the will.
    pub delay_ms: u64,
    /// Of the message, from its publication on.
    pub expiry_ms: Option<u64>,
}

/// Which of a session's subscriptions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SubscriptionKey {
    /// As subscribed to.
    #[serde(with = "wire::filter")]
    pub filter: TopicFilter,
    /// The group that it is a member of.
    #[serde(with = "wire::share_name")]
    pub group: Option<ShareName>,
    /// The session's name for it.
    #[serde(with = "wire::subscription_id")]
    pub id: SubscriptionId,
}

/// A subscription as it was granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    /// Its name.
    pub key: SubscriptionKey,
    /// The granted QoS.
    #[serde(with = "wire::qos")]
    pub qos: QoS,
    /// Not what this client published itself.
    pub no_local: bool,
    /// Keeps the publisher's RETAIN flag.
    pub retain_as_published: bool,
    /// Handed back with each delivery.
    pub identifier: Option<NonZeroU32>,
    /// What happens to QoS 0 deliveries over the mark.
    #[serde(with = "wire::overflow")]
    pub overflow: Overflow,
    /// What happens to acknowledged deliveries over the mark.
    #[serde(with = "wire::overflow")]
    pub overflow_acked: Overflow,
    /// The interval between values of one topic.
    pub conflate_ms: Option<u64>,
    /// How it counts beside other subscriptions of its client.
    #[serde(with = "wire::copies")]
    pub copies: Copies,
    /// Retained messages are still to be sent for it. From version 2 on.
    #[serde(default)]
    pub owes_retained: bool,
    /// Only what this selects. Records of before it was there have none.
    #[serde(default)]
    pub selector: Option<Box<str>>,
}

/// One published message. Cloning shares topic and payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationRecord {
    /// Where to.
    #[serde(with = "wire::topic")]
    pub topic: Topic,
    /// What.
    #[serde(with = "wire::payload")]
    pub payload: Bytes,
    /// The QoS that the publisher asked for.
    #[serde(with = "wire::qos")]
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// The payload is UTF-8 text.
    pub is_text: bool,
    /// What else the publisher said.
    #[serde(with = "wire::properties")]
    pub properties: Option<Box<Properties>>,
    /// After this time it is not delivered any more.
    pub expires_at_ms: Option<u64>,
    /// When the broker took it.
    pub published_ms: u64,
    /// Who published it, for No Local; 0 is the broker itself.
    pub publisher: u64,
}

/// A message's place in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceRecord {
    /// The publication.
    pub body: BodyId,
    /// The effective QoS.
    #[serde(with = "wire::qos")]
    pub qos: QoS,
    /// The RETAIN flag that the client is to see.
    pub retain: bool,
    /// Sent because the subscription was new.
    pub is_retained: bool,
    /// What it counts against limits.
    pub size_bytes: u32,
    /// The subscription that it came through.
    #[serde(with = "wire::subscription_id")]
    pub subscription: SubscriptionId,
    /// The identifiers of further subscriptions that match.
    pub also: Vec<NonZeroU32>,
    /// As in the publication.
    pub expires_at_ms: Option<u64>,
    /// PUBREC came for this packet identifier; the publication may be gone.
    pub received: Option<u16>,
}

/// Bytes that are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No bytes.
    #[error("the record is empty")]
    Empty,
    /// Of a version that this program does not know.
    #[error("the record has the version {0}")]
    Version(u8),
    /// Not what the version says.
    #[error("the record is malformed")]
    Malformed,
    /// Bytes behind the end.
    #[error("the record is followed by {0} bytes")]
    Trailing(usize),
}

/// A record with its bytes.
pub trait Record: Serialize + DeserializeOwned {
    /// The version byte that is written. Those before it are read: they lack the last fields.
    const VERSION: u8 = 1;

    /// The version byte and the fields.
    #[must_use]
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.capacity());
        bytes.push(Self::VERSION);
        #[expect(
            clippy::expect_used,
            reason = "a Vec takes all bytes, and no record has a map or a type without length"
        )]
        rmp_serde::encode::write(&mut bytes, self).expect("a record has MessagePack bytes");
        bytes
    }

    /// From bytes that anybody may have written. Copies what it keeps.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (version, fields) = bytes.split_first().ok_or(RecordError::Empty)?;
        if !(1..=Self::VERSION).contains(version) {
            return Err(RecordError::Version(*version));
        }
        let mut rest = fields;
        let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
        let record = Self::deserialize(&mut deserializer).map_err(|_| RecordError::Malformed)?;
        if rest.is_empty() { Ok(record) } else { Err(RecordError::Trailing(rest.len())) }
    }

    /// Bytes that it takes, about.
    fn capacity(&self) -> usize {
        64
    }
}

impl Record for SessionRecord {}
impl Record for SubscriptionRecord {
    const VERSION: u8 = 2;
}
impl Record for ReferenceRecord {}
impl Record for PublicationRecord {
    fn capacity(&self) -> usize {
        self.size_bytes() + 64
    }
}

impl SessionRecord {
    /// A time that does not come.
    pub const NEVER: u64 = u64::MAX;
}

impl PublicationRecord {
    /// Of a publication whose expiry is this. Shares topic and payload.
    #[must_use]
    pub fn new(publication: &Publication, expires_at_ms: Option<u64>) -> Self {
        Self {
            topic: publication.topic.clone(),
            payload: publication.payload.clone(),
            qos: publication.qos,
            retain: publication.retain,
            is_text: publication.is_text,
            properties: publication.properties.clone(),
            expires_at_ms,
            published_ms: publication.published_ms,
            publisher: publication.publisher,
        }
    }

    /// The publication, without its expiry: whoever has a clock sets that.
    #[must_use]
    pub fn into_publication(self) -> Publication {
        let mut publication = Publication::new(self.topic, self.payload);
        publication.qos = self.qos;
        publication.retain = self.retain;
        publication.is_text = self.is_text;
        publication.properties = self.properties;
        publication.published_ms = self.published_ms;
        publication.publisher = self.publisher;
        publication
    }

    /// Payload, topic and properties, about.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let properties = self.properties.as_deref().map_or(0, |properties| {
            let user: usize = properties.user.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
            properties.content_type.as_deref().map_or(0, str::len)
                + properties.response_topic.as_ref().map_or(0, |topic| topic.as_str().len())
                + properties.correlation_data.as_ref().map_or(0, Bytes::len)
                + user
        });
        self.payload.len() + self.topic.as_str().len() + properties
    }
}

impl SubscriptionRecord {
    /// Replaces nothing in the name: filter, group and id.
    #[must_use]
    pub fn is_named(&self, key: &SubscriptionKey) -> bool {
        self.key == *key
    }
}

#[cfg(test)]
mod tests;

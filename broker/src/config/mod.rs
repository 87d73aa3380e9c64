//! The operator's settings as plain data. `conf/tidegate.toml` is compiled in and is the defaults: no struct here has
//! a default of its own, so the documented file cannot drift; only what a `[[topic]]` rule leaves out is not asked. Reading and checking are the files beside this one.

mod check;
mod error;
mod load;
mod locate;
mod memory;
pub mod report;
pub mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_protocol::session;
use tidegate_protocol::subprotocol::Family;

use crate::store;
use crate::work_queue;
pub use error::{ConfigError, Place, Problem};
pub use load::{BUILT_IN, Source, environment};
pub use memory::memory_bytes;
pub use units::{ByteSize, MemoryBudget};

/// Every setting. What each means stands in `conf/tidegate.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each section is documented by its type")]
pub struct Config {
    pub listener: Vec<Listener>,
    pub websocket: WebSocket,
    pub queue: Queue,
    pub work_queue: WorkQueue,
    pub mqtt: Mqtt,
    pub stomp: Stomp,
    pub raw: Raw,
    /// The file has none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topic: Vec<Topic>,
    pub auth: Auth,
    pub store: Store,
    pub admin: Admin,
    pub log: Log,
    pub sys: Sys,
    pub shutdown: Shutdown,
}

/// `[[listener]]`: one port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Listener {
    pub name: String,
    #[serde(with = "units::socket_address")]
    pub bind: SocketAddr,
    pub paths: Vec<String>,
    pub protocols: Vec<Protocol>,
    pub max_connections: usize,
    #[serde(with = "units::or_none")]
    pub max_connections_per_ip: Option<usize>,
    /// Handshakes per second.
    #[serde(with = "units::or_none")]
    pub accept_rate: Option<usize>,
}

/// `[websocket]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct WebSocket {
    pub default_protocol: Protocol,
    pub unknown_protocol: UnknownProtocol,
    pub origins: Vec<String>,
    pub require_origin: bool,
    #[serde(with = "units::duration")]
    pub handshake_timeout: Duration,
    pub max_header_bytes: ByteSize,
    pub max_message_size: ByteSize,
    pub max_message_size_preauth: ByteSize,
    #[serde(with = "units::duration")]
    pub ping_interval: Duration,
    #[serde(with = "units::duration")]
    pub pong_timeout: Duration,
    #[serde(with = "units::duration")]
    pub close_timeout: Duration,
    #[serde(with = "units::or_none")]
    pub idle_timeout: Option<Duration>,
    pub read_buffer: ByteSize,
    pub write_coalesce: ByteSize,
    pub deflate: Deflate,
}

/// `[websocket.deflate]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Deflate {
    pub enabled: bool,
    pub server_no_context_takeover: bool,
    pub client_no_context_takeover: bool,
    pub takeover_memory: ByteSize,
    pub server_max_window_bits: u8,
    pub level: u8,
    pub min_size: ByteSize,
}

/// `[queue]`: one client's outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Queue {
    pub max_messages: usize,
    pub max_bytes: ByteSize,
    pub overflow_qos0: Overflow,
    pub overflow_qos1: Overflow,
    pub overflow_offline: Overflow,
    #[serde(with = "units::duration")]
    pub publish_wait: Duration,
    #[serde(with = "units::duration")]
    pub slow_after: Duration,
    #[serde(with = "units::duration")]
    pub stall_timeout: Duration,
    pub high_watermark: ByteSize,
    /// For the whole broker; see [`Config::queue_total_bytes`].
    pub total_bytes: MemoryBudget,
}

/// `[mqtt]`, and what the other protocols take from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Mqtt {
    pub versions: Vec<MqttVersion>,
    pub max_qos: u8,
    pub receive_maximum: u16,
    pub max_inflight: u16,
    pub topic_alias_maximum: u16,
    pub max_topic_levels: usize,
    pub max_topic_bytes: ByteSize,
    pub max_subscriptions: usize,
    pub max_filters_per_subscribe: usize,
    pub max_user_properties: usize,
    pub max_client_id_bytes: usize,
    pub max_sessions: usize,
    #[serde(with = "units::duration")]
    pub session_expiry_default: Duration,
    #[serde(with = "units::duration")]
    pub session_expiry_max: Duration,
    #[serde(with = "units::duration")]
    pub keepalive_max: Duration,
    pub keepalive_multiplier: f64,
    pub pong_counts_as_alive: bool,
    pub shared_strategy: SharedStrategy,
    pub response_information: String,
    pub retain: bool,
    pub retained_max_messages: usize,
    pub retained_max_bytes: ByteSize,
    pub retained_batch: usize,
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
}

/// `[stomp]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Stomp {
    pub versions: Vec<StompVersion>,
    pub heart_beat: HeartBeat,
    pub heart_beat_tolerance: f64,
    #[serde(with = "units::duration")]
    pub connect_timeout: Duration,
    pub max_headers: usize,
    pub max_header_bytes: ByteSize,
    pub max_body: ByteSize,
    pub max_transactions: usize,
    pub max_transaction_actions: usize,
    pub max_selector_bytes: ByteSize,
    pub prefetch: usize,
    pub frames: Frames,
    pub separator: Separator,
    pub unknown_prefix: UnknownPrefix,
}

/// `stomp.heart_beat`: what we can send and what we want to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartBeat(
    #[serde(with = "units::or_none")] pub Option<Duration>,
    #[serde(with = "units::or_none")] pub Option<Duration>,
);

/// `[raw]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Raw {
    pub max_topics: usize,
}

/// `[[topic]]`: a rule for what is published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Topic {
    pub filter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain: Option<Retain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_max: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_payload: Option<ByteSize>,
}

/// `[auth]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Auth {
    pub anonymous: Anonymous,
    /// Relative to the working directory.
    #[serde(with = "units::optional_path")]
    pub scram_file: Option<PathBuf>,
}

/// `[work_queue]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct WorkQueue {
    pub max_queues: usize,
    pub max_messages: usize,
    pub max_bytes: ByteSize,
    #[serde(with = "units::or_none")]
    pub message_ttl: Option<Duration>,
    pub when_full: WhenFull,
    pub max_refusals: u8,
    pub prefetch: u16,
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Store {
    /// Relative to the working directory; `None`: everything is in memory.
    #[serde(with = "units::optional_path")]
    pub path: Option<PathBuf>,
    pub sync: StoreSync,
    #[serde(with = "units::duration")]
    pub window: Duration,
    /// On the disk.
    #[serde(with = "units::or_none")]
    pub max_bytes: Option<ByteSize>,
    /// In memory, before the disk has it.
    pub max_pending_bytes: ByteSize,
    pub block_cache: ByteSize,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Admin {
    #[serde(with = "units::or_none")]
    pub bind: Option<SocketAddr>,
    pub metrics: bool,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// `[sys]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Sys {
    #[serde(with = "units::or_none")]
    pub interval: Option<Duration>,
}

/// `[shutdown]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "conf/tidegate.toml documents each key")]
pub struct Shutdown {
    #[serde(with = "units::duration")]
    pub readiness_grace: Duration,
    #[serde(with = "units::duration")]
    pub timeout: Duration,
}

/// Declares an enum whose variants are words in the file.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal: $variant_doc:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $(#[doc = $variant_doc] #[serde(rename = $word)] $variant),* }

        impl $name {
            /// The word in the file.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

words! {
    /// A subprotocol family.
    Protocol { Raw = "raw": "Raw frames.", Mqtt = "mqtt": "MQTT.", Stomp = "stomp": "STOMP." }
}
words! {
    /// What becomes of a client that offers nothing we know.
    UnknownProtocol { Reject = "reject": "400.", Raw = "raw": "It gets raw frames." }
}
words! {
    /// What happens to deliveries that do not fit.
    Overflow {
        DropOldest = "drop_oldest": "The oldest go.",
        DropNewest = "drop_newest": "The new one goes.",
        Conflate = "conflate": "Only the latest of each topic stays.",
        Disconnect = "disconnect": "The client is disconnected.",
    }
}
words! {
    /// Who of a group gets a message.
    SharedStrategy {
        RoundRobin = "round_robin": "Each in turn.",
        Random = "random": "Anybody.",
        Sticky = "sticky": "The same, while it is there.",
        LeastPending = "least_pending": "The one with the least to do.",
    }
}
words! {
    /// A version of MQTT.
    MqttVersion { V3_1 = "3.1": "MQIsdp.", V3_1_1 = "3.1.1": "MQTT 3.1.1.", V5 = "5": "MQTT 5.0." }
}
words! {
    /// A version of STOMP.
    StompVersion { V1_0 = "1.0": "STOMP 1.0.", V1_1 = "1.1": "STOMP 1.1.", V1_2 = "1.2": "STOMP 1.2." }
}
words! {
    /// The WebSocket frames that carry STOMP.
    Frames {
        Auto = "auto": "Text where the frame is UTF-8.",
        Text = "text": "Text.",
        Binary = "binary": "Binary.",
    }
}
words! {
    /// What stands between the levels of a STOMP destination.
    Separator { Slash = "/": "As in a topic.", Dot = ".": "As in ActiveMQ and RabbitMQ." }
}
words! {
    /// What a STOMP destination under an unknown `/word/` is.
    UnknownPrefix { Error = "error": "An ERROR.", Topic = "topic": "A topic, taken verbatim." }
}
words! {
    /// Who needs no login.
    Anonymous {
        Never = "never": "Nobody.",
        Loopback = "loopback": "A client on this machine that came through no proxy.",
        Always = "always": "Everybody.",
    }
}
words! {
    /// Whether a publish may be retained.
    Retain {
        Allow = "allow": "If the publisher asks for it.",
        Force = "force": "Always, as if the publisher had asked for it.",
        Deny = "deny": "Never; the publish is refused.",
    }
}
words! {
    /// What a full queue does.
    WhenFull { Refuse = "refuse": "Publishers are told.", DropOldest = "drop_oldest": "The oldest go." }
}
words! {
    /// When an acknowledgement may leave.
    StoreSync {
        Group = "group": "One fsync for all that came in meanwhile.",
        Always = "always": "One fsync for each.",
        Os = "os": "The operating system has it.",
    }
}
words! {
    /// How log lines look.
    LogFormat { Text = "text": "For eyes.", Json = "json": "For programs." }
}

impl From<Protocol> for Family {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Raw => Self::Raw,
            Protocol::Mqtt => Self::Mqtt,
            Protocol::Stomp => Self::Stomp,
        }
    }
}

impl From<Overflow> for session::Overflow {
    fn from(overflow: Overflow) -> Self {
        match overflow {
            Overflow::DropOldest => Self::DropOldest,
            Overflow::DropNewest => Self::DropNewest,
            Overflow::Conflate => Self::Conflate,
            Overflow::Disconnect => Self::Disconnect,
        }
    }
}

impl From<WhenFull> for work_queue::WhenFull {
    fn from(when_full: WhenFull) -> Self {
        match when_full {
            WhenFull::Refuse => Self::Refuse,
            WhenFull::DropOldest => Self::DropOldest,
        }
    }
}

impl From<StoreSync> for store::Sync {
    fn from(sync: StoreSync) -> Self {
        match sync {
            StoreSync::Group => Self::Group,
            StoreSync::Always => Self::Always,
            StoreSync::Os => Self::Os,
        }
    }
}

impl Config {
    /// `queue.total_bytes` on this machine.
    #[must_use]
    pub fn queue_total_bytes(&self) -> usize {
        self.queue.total_bytes.bytes(memory_bytes())
    }

    /// Whether a client of this listener can prove who it is. So far only MQTT 5 has a way.
    #[must_use]
    pub fn has_login(&self, listener: &Listener) -> bool {
        self.auth.scram_file.is_some()
            && listener.protocols.contains(&Protocol::Mqtt)
            && self.mqtt.versions.contains(&MqttVersion::V5)
    }

    /// Every effective value as TOML that parses to the same configuration.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::from(Problem::whole(error.to_string())))
    }
}

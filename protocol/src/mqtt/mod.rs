//! MQTT 3.1, 3.1.1 and 5 over WebSocket (OASIS MQTT 5.0 §6).
//!
//! ```text
//!   packet, property, reason   what there is to say
//!   codec, decode, encode      bytes to packets and back
//!   forms                      PUBLISH as all receivers share it
//!   in_flight, aliases         what both ends keep in mind about packets
//!   session                    one client's state
//! ```
//!
//! # Conformance
//!
#![doc = include_str!("conformance.md")]

mod aliases;
mod codec;
mod decode;
mod encode;
mod forms;
mod in_flight;
mod input;
pub mod packet;
mod property;
mod reason;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::codec::{Codec, DecodeError, Limits, Role};
pub use self::forms::{FORMS, MQTT3_LIVE, MQTT3_RETAINED, MQTT5_LIVE, MQTT5_RETAINED};
use self::packet::Version;
use crate::publication::QoS;
use crate::session::Session;
use crate::topic::TopicLimits;

/// The operator's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `mqtt.versions`
    pub versions: Versions,
    /// `mqtt.max_qos`; a larger one asked for in SUBSCRIBE is granted as this one.
    pub max_qos: QoS,
    /// `mqtt.receive_maximum`: publishes of a client that may wait for their acknowledgement; not 0.
    pub receive_maximum: u16,
    /// `mqtt.max_inflight`: deliveries to a client that may wait for its acknowledgement; not 0.
    pub max_inflight: u16,
    /// `mqtt.topic_alias_maximum`: aliases that a client may set, and those that it is sent if it takes as many;
    /// each keeps one topic.
    pub topic_alias_maximum: u16,
    /// `mqtt.retain`
    pub is_retain_available: bool,
    /// `mqtt.max_topic_bytes`, `mqtt.max_topic_levels`
    pub topic_limits: TopicLimits,
    /// `websocket.max_message_size`
    pub packet_bytes_max: usize,
    /// `websocket.max_message_size_preauth`: until CONNECT has succeeded.
    pub packet_bytes_max_preauth: usize,
    /// `mqtt.keepalive_max`. MQTT 5 is told; 3.x is held to the lower of it and its own, and may turn it off.
    pub keepalive_max: Option<Duration>,
    /// `mqtt.keepalive_multiplier`; the standard says 1.5.
    pub keepalive_multiplier: f64,
    /// `mqtt.pong_counts_as_alive`: for pages in background tabs, whose timers browsers hold back.
    pub pong_counts_as_alive: bool,
    /// `mqtt.connect_timeout`: from the upgrade to a whole CONNECT, and to the client's last AUTH before CONNACK.
    pub connect_timeout: Duration,
    /// `mqtt.max_subscriptions`
    pub subscriptions_max: usize,
    /// User properties in one packet's list.
    pub user_properties_max: usize,
    /// `mqtt.max_filters_per_subscribe`: of UNSUBSCRIBE too.
    pub filters_max: usize,
    /// Bytes of a client identifier.
    pub client_id_bytes_max: usize,
    /// `mqtt.response_information`: with the client identifier behind it, where a client that asks is to have its
    /// answers sent. `None`: clients are told nothing.
    pub response_information: Option<Arc<str>>,
}

/// Which versions are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// MQTT 3.1
    pub v3_1: bool,
    /// MQTT 3.1.1
    pub v3_1_1: bool,
    /// MQTT 5
    pub v5: bool,
}

impl Versions {
    const fn contains(self, version: Version) -> bool {
        match version {
            Version::V3_1 => self.v3_1,
            Version::V3_1_1 => self.v3_1_1,
            Version::V5 => self.v5,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            versions: Versions { v3_1: true, v3_1_1: true, v5: true },
            max_qos: QoS::ExactlyOnce,
            receive_maximum: 256,
            max_inflight: 256,
            topic_alias_maximum: 16,
            is_retain_available: true,
            topic_limits: TopicLimits { bytes_max: 4096, levels_max: 128 },
            packet_bytes_max: 1024 * 1024,
            packet_bytes_max_preauth: 64 * 1024,
            keepalive_max: Some(Duration::from_secs(20 * 60)),
            keepalive_multiplier: 1.5,
            pong_counts_as_alive: false,
            connect_timeout: Duration::from_secs(10),
            subscriptions_max: 1000,
            user_properties_max: 100,
            filters_max: 4096,
            client_id_bytes_max: 256,
            response_information: None,
        }
    }
}

/// Begins a session, which shares the settings with all others. A bearer credential counts when CONNECT brings none of its own.
#[must_use]
pub fn open(bearer: Option<Box<str>>, settings: &Arc<Settings>, now: Instant) -> Box<dyn Session> {
    Box::new(session::MqttSession::new(bearer, Arc::clone(settings), now))
}

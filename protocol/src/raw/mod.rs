//! Tidegate's raw protocol (WIRE §2, §3): payload mode and the envelope.
//!
//! The URL decides between the two: with `t` or `pub` each frame is a payload (`payload.rs`), without them each
//! frame is an operation (`envelope.rs`). The codecs are `query`, `document`, `fields`, `operation`, `answer` and
//! `form`; none of them knows a session. [`client`] is the other end of the envelope.

mod answer;
pub mod client;
mod document;
mod envelope;
mod fields;
mod form;
mod operation;
mod payload;
mod query;
mod refusal;
mod suggest;

use std::time::{Duration, Instant};

pub use form::{FORMS, PayloadForm};
pub use query::QueryError;

use crate::session::{CloseKind, Connect, Credentials, DataLane, LagNotice, Session};
use crate::topic::TopicLimits;
use query::{Mode, Query};

/// What the token pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Nothing: the URL decides between payload mode and envelope, the first frame decides the encoding.
    Nothing,
    /// `raw.json.v1`.
    Json,
    /// `raw.msgpack.v1`.
    MessagePack,
}

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `raw.max_topics`: filters that one client may be subscribed to.
    pub topics_max: usize,
    /// `mqtt.max_topic_bytes`, `mqtt.max_topic_levels`.
    pub topic_limits: TopicLimits,
    /// `mqtt.receive_maximum`: publishes of one client that may wait for their reply.
    pub receive_maximum: u16,
    /// `websocket.max_message_size`: told in `welcome`; the WebSocket layer enforces it.
    pub message_bytes_max: usize,
    /// `websocket.ping_interval`: told in `welcome`.
    pub ping_interval: Duration,
}

/// How an envelope is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// In text frames.
    Json,
    /// In binary frames.
    MessagePack,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            topics_max: 128,
            topic_limits: TopicLimits { bytes_max: 4096, levels_max: 128 },
            receive_maximum: 256,
            message_bytes_max: 1024 * 1024,
            ping_interval: Duration::from_secs(25),
        }
    }
}

/// Begins a session. The error is a sentence for the body of a 400.
pub fn open(
    pinned: Pinned,
    query: Option<&str>,
    bearer: Option<Box<str>>,
    settings: &Settings,
    _now: Instant,
) -> Result<Box<dyn Session>, String> {
    let query = Query::parse(query.unwrap_or_default(), settings).map_err(|error| error.to_string())?;
    match query.mode {
        Mode::Payload(_) if pinned != Pinned::Nothing => Err(QueryError::PinnedEnvelope.to_string()),
        Mode::Payload(payload) => Ok(Box::new(payload::Payload::new(
            payload,
            connect(bearer, LagNotice::Silent, settings),
            settings,
        ))),
        Mode::Envelope => Ok(Box::new(envelope::Envelope::new(
            pinned,
            connect(bearer, LagNotice::Separate, settings),
            settings,
        ))),
    }
}

/// Raw clients have no state that outlives them and no name of their own.
fn connect(bearer: Option<Box<str>>, lag: LagNotice, settings: &Settings) -> Box<Connect> {
    Box::new(Connect {
        client_id: None,
        clean_start: true,
        session_expiry: Some(Duration::ZERO),
        subscriptions_max: settings.topics_max,
        forms: None,
        credentials: bearer.map(Credentials::Token),
        will: None,
        packet_bytes_max: None,
        lag,
    })
}

/// Planned ends let queued deliveries leave first; for all others the client is not to wait for them.
const fn lane_at_close(kind: CloseKind) -> DataLane {
    match kind {
        CloseKind::Normal | CloseKind::ShuttingDown | CloseKind::Restarting => DataLane::Drain,
        _ => DataLane::Abort,
    }
}

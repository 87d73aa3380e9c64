//! Puts the parts together: hands each the small part of the operator's file that it needs, binds, runs, stops.

mod storage;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::atomic::AtomicIsize;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use tidegate_protocol::publication::QoS;
use tidegate_protocol::subprotocol::{NegotiationOptions, UnknownProtocol};
use tidegate_protocol::topic::{TopicError, TopicFilter, TopicLimits};
use tidegate_protocol::websocket::deflate;
use tidegate_protocol::websocket::origin::{OriginError, OriginPattern};
use tidegate_protocol::{mqtt, raw, stomp, subprotocol};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

pub use self::storage::Backend;
use self::storage::InUse;
use crate::admin::{self, AdminState, Backup, Health, Phase};
use crate::auth::scram::{Scram, Users, UsersError};
use crate::auth::{Anonymous, Authenticator};
use crate::broker::{Batch, Broker, Rules};
use crate::config::{self, ByteSize, Config};
use crate::connection;
use crate::durability::Durability;
use crate::metrics::Metrics;
use crate::outbox::Shared;
use crate::outbox::queue::Limits;
use crate::outbox::writer::WriteLimits;
use crate::retained::{Retained, RetainedLimits};
use crate::router::shared::Strategy;
use crate::server::{self, AdmissionLimits, BindError, ListenerSettings, Server};
use crate::store::StoreError;
use crate::sys::{Reading, Sys};
use crate::topic_rules::{RetainRule, TopicRule, TopicRules};
use crate::work_queue;

/// A broker that serves.
pub struct Running {
    /// First: a broker that is dropped in the middle stops writing before its messages go.
    store: Option<InUse>,
    server: Server,
    admin: Option<SocketAddr>,
    health: Health,
    readiness_grace: Duration,
    timeout: Duration,
    /// Dropped: the admin listener and the housekeeping end.
    end: watch::Sender<()>,
    /// What runs beside the connections.
    tasks: Vec<JoinHandle<()>>,
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error(transparent)]
    Listener(#[from] BindError),
    /// The operator's port.
    #[error("the admin listener cannot listen on {bind}: {error}")]
    Admin {
        /// `admin.bind`.
        bind: SocketAddr,
        /// The system's word.
        error: std::io::Error,
    },
    /// A pattern in `websocket.origins`.
    #[error("websocket.origins: {0}")]
    Origin(#[from] OriginError),
    /// The file of users, when it has changed since it was checked.
    #[error("auth.scram_file: {0}")]
    Users(#[from] UsersError),
    /// A filter of a `[[topic]]` rule.
    #[error("topic.filter: {0}")]
    Topic(#[from] TopicError),
    /// The directory of the store.
    #[error("store.path: {0}")]
    Store(#[from] StoreError),
}

/// The broker, for the operator's page, which is there before.
type Inside = Arc<OnceLock<Weak<Broker>>>;

/// While nothing is due: tokio's timer reaches no further than some two years.
const FAR: Duration = Duration::from_secs(86_400);

/// How often expired and stale things are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

impl Running {
    /// Reads the store, binds every port and serves. Must be called within a tokio runtime.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_on(config, Box::new(storage::on_disk)).await
    }

    /// The same, on another store than that of operators: for tests of a disk that fails.
    pub async fn start_on(config: &Config, backend: Backend) -> Result<Self, StartError> {
        let metrics = Metrics::new(tokio::time::Instant::now().into_std());
        let broker = broker(config, authenticator(config)?, &metrics)?;
        let settings = settings(config)?;
        let health = Health::default();
        let (end, ended) = watch::channel(());
        let inside = Inside::default();
        // Reading the store may take a while, in which whoever asks is told that we are not ready.
        let admin = match config.admin.bind {
            Some(bind) => Some(serve_admin(bind, config, &health, &metrics, &inside, ended.clone()).await?),
            None => None,
        };
        let (broker, store) = restored(broker, config, backend).await?;
        // Nobody else sets it.
        let _ = inside.set(Arc::downgrade(&broker));
        let mut tasks = Vec::new();
        if let Some(interval) = config.sys.interval {
            // Before the first client is there, so that everyone finds all of it retained.
            tasks.push(tokio::spawn(SysTask::begin(Arc::clone(&broker)).run(interval, ended.clone())));
        }
        let listeners = config.listener.iter().map(|one| listener(config, one)).collect();
        let server = match Server::start(listeners, settings, Arc::clone(&broker)) {
            Ok(server) => server,
            Err(error) => {
                drop(end);
                finish(tasks, store).await;
                return Err(error.into());
            }
        };
        health.set(Phase::Serving);
        tasks.push(tokio::spawn(housekeep(Arc::clone(&broker), ended.clone())));
        if let Some(InUse(durability)) = &store {
            let durability = Arc::clone(durability);
            tasks.push(tokio::spawn(push_committed(Arc::clone(&broker), durability, ended.clone())));
        }
        tasks.push(tokio::spawn(dispatch_queues(Arc::clone(&broker), ended.clone())));
        tasks.push(tokio::spawn(keep_deadlines(broker, ended)));
        Ok(Self {
            store,
            server,
            admin,
            health,
            readiness_grace: config.shutdown.readiness_grace,
            timeout: config.shutdown.timeout,
            end,
            tasks,
        })
    }

    /// The listeners and the addresses that they got.
    pub fn listeners(&self) -> impl Iterator<Item = (&ListenerSettings, SocketAddr)> {
        self.server.listeners()
    }

    /// Where the operator's page is.
    #[must_use]
    pub const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Clients that are connected now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.server.clients()
    }

    /// Says that it leaves, stops accepting, tells every client, and waits for them as `[shutdown]` says. Gives
    /// the number of clients that were still there.
    pub async fn stop(self) -> usize {
        if !self.readiness_grace.is_zero() && self.clients() > 0 {
            self.health.set(Phase::Leaving);
            tokio::time::sleep(self.readiness_grace).await;
        }
        self.health.set(Phase::Draining);
        let left = self.server.stop(self.timeout).await;
        drop(self.end);
        finish(self.tasks, self.store).await;
        left
    }
}

/// Ends what runs beside the connections, and then the store, which all of it may still write to.
async fn finish(tasks: Vec<JoinHandle<()>>, store: Option<InUse>) {
    for task in tasks {
        task.abort();
        // Ended by itself or by us.
        let _ = task.await;
    }
    if let Some(store) = store {
        store.close().await;
    }
}

/// The broker with what it had stored.
async fn restored(
    broker: Broker,
    config: &Config,
    backend: Backend,
) -> Result<(Arc<Broker>, Option<InUse>), StoreError> {
    let Some(opened) = storage::open(&config.store, backend).await? else {
        return Ok((Arc::new(broker), None));
    };
    let store = InUse(Arc::clone(&opened.durability));
    let broker = Arc::new(broker.with_durability(Arc::clone(&store.0)));
    opened.fill(&broker).await?;
    Ok((broker, Some(store)))
}

async fn serve_admin(
    bind: SocketAddr,
    config: &Config,
    health: &Health,
    metrics: &Arc<Metrics>,
    inside: &Inside,
    mut ended: watch::Receiver<()>,
) -> Result<SocketAddr, StartError> {
    let failed = |error| StartError::Admin { bind, error };
    let listener = TcpListener::bind(bind).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (observed, stored) = (Arc::clone(inside), Arc::clone(inside));
    let state = AdminState {
        health: health.clone(),
        metrics: config.admin.metrics.then(|| Arc::clone(metrics)),
        observe: Arc::new(move || {
            if let Some(broker) = observed.get().and_then(Weak::upgrade) {
                observe(&broker);
            }
        }),
        backup: config.store.path.is_some().then(|| -> Backup {
            Arc::new(move |directory| {
                let broker = stored.get().and_then(Weak::upgrade).ok_or("the store is not open")?;
                let durability = broker.durability().ok_or("there is no store")?;
                durability.writer().store().backup(directory).map_err(|error| error.to_string())
            })
        }),
    };
    tokio::spawn(async move {
        let end = async move {
            // An error means that the sender is gone, which is the end that is waited for.
            let _ = ended.changed().await;
        };
        if let Err(error) = admin::serve(listener, state, end).await {
            tracing::error!(%error, "the admin listener has ended");
        }
    });
    Ok(address)
}

/// Brings the numbers on the operator's page up to date.
fn observe(broker: &Broker) {
    broker.observe();
    let metrics = broker.metrics();
    metrics.deflate.observe(&deflate::Totals::read());
    if let Some(durability) = broker.durability() {
        metrics.store.observe(&durability.writer().gauges());
    }
}

/// Wills with a delay and the ends of sessions.
async fn keep_deadlines(broker: Arc<Broker>, mut ended: watch::Receiver<()>) {
    let mut batch = Batch::default();
    loop {
        let next = broker.deadlines().next().map(tokio::time::Instant::from_std);
        let far = tokio::time::Instant::now() + FAR;
        // All arms are cancel safe.
        tokio::select! {
            () = tokio::time::sleep_until(next.unwrap_or(far)) => {}
            () = broker.deadlines().earlier() => continue,
            _ = ended.changed() => return,
        }
        let now = connection::clock();
        while broker.handle_deadlines(now, &mut batch) {
            batch.flush(now.instant);
            tokio::task::yield_now().await;
        }
        batch.flush(now.instant);
    }
}

/// What waits for its commit.
async fn push_committed(broker: Arc<Broker>, durability: Arc<Durability>, mut ended: watch::Receiver<()>) {
    let mut batch = Batch::default();
    loop {
        // Both arms are cancel safe.
        tokio::select! {
            () = durability.committed() => {}
            _ = ended.changed() => return,
        }
        loop {
            let now = connection::clock();
            let is_more = broker.push_committed(now, &mut batch);
            batch.flush(now.instant);
            if !is_more {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// What consumers of queues have let go of, and what has come from the disk for them.
async fn dispatch_queues(broker: Arc<Broker>, mut ended: watch::Receiver<()>) {
    let mut batch = Batch::default();
    loop {
        // Both arms are cancel safe.
        tokio::select! {
            () = broker.queue_news() => {}
            _ = ended.changed() => return,
        }
        let now = connection::clock();
        broker.dispatch_queues(now, &mut batch);
        batch.flush(now.instant);
        tokio::task::yield_now().await;
    }
}

async fn housekeep(broker: Arc<Broker>, mut ended: watch::Receiver<()>) {
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    loop {
        // Both arms are cancel safe.
        tokio::select! {
            at = tick.tick() => broker.sweep(at.into_std()),
            _ = ended.changed() => return,
        }
    }
}

fn authenticator(config: &Config) -> Result<Authenticator, UsersError> {
    let authenticator = Authenticator::new(match config.auth.anonymous {
        config::Anonymous::Never => Anonymous::Never,
        config::Anonymous::Loopback => Anonymous::Loopback,
        config::Anonymous::Always => Anonymous::Always,
    });
    Ok(match &config.auth.scram_file {
        Some(file) => authenticator.with_scram(Scram::new(Users::load(file)?)),
        None => authenticator,
    })
}

/// Publishes the numbers below `$SYS`.
struct SysTask {
    broker: Arc<Broker>,
    sys: Sys,
    last: Instant,
}

impl SysTask {
    /// Publishes all of them for the first time.
    fn begin(broker: Arc<Broker>) -> Self {
        let mut task = Self { broker, sys: Sys::default(), last: connection::clock().instant };
        task.tell();
        task
    }

    async fn run(mut self, interval: Duration, mut ended: watch::Receiver<()>) {
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Both arms are cancel safe.
            tokio::select! {
                _ = tick.tick() => self.tell(),
                _ = ended.changed() => return,
            }
        }
    }

    fn tell(&mut self) {
        let now = connection::clock();
        let elapsed = now.instant.saturating_duration_since(std::mem::replace(&mut self.last, now.instant));
        self.broker.observe();
        let reading = Reading::of(self.broker.metrics(), now.instant);
        let mut batch = Batch::default();
        for publication in self.sys.publications(&reading, elapsed) {
            self.broker.publish_own(publication, now, &mut batch);
        }
        batch.flush(now.instant);
    }
}

fn broker(
    config: &Config,
    authenticator: Authenticator,
    metrics: &Arc<Metrics>,
) -> Result<Broker, TopicError> {
    let shared = Shared {
        limits: Limits {
            messages_max: config.queue.max_messages,
            bytes_max: config.queue.max_bytes.bytes(),
            publish_wait: config.queue.publish_wait,
            slow_after: config.queue.slow_after,
        },
        write: WriteLimits {
            coalesce_bytes: config.websocket.write_coalesce.bytes(),
            batch_bytes: config.queue.high_watermark.bytes(),
        },
        publication_bytes: Arc::clone(&metrics.outbox_bytes),
        entries: AtomicIsize::new(0),
        total_bytes_max: config.queue_total_bytes(),
        metrics: Arc::clone(metrics),
    };
    let queue = &config.work_queue;
    let queues = work_queue::Rules {
        limits: work_queue::Limits {
            messages_max: queue.max_messages,
            bytes_max: queue.max_bytes.bytes(),
            message_ttl: queue.message_ttl,
            when_full: queue.when_full.into(),
            refusals_max: queue.max_refusals,
        },
        durable_limits: work_queue::Limits {
            messages_max: config.queue.max_messages,
            bytes_max: config.queue.max_bytes.bytes(),
            message_ttl: None,
            when_full: work_queue::WhenFull::DropOldest,
            refusals_max: queue.max_refusals,
        },
        queues_max: queue.max_queues,
        prefetch: NonZeroU16::new(queue.prefetch).unwrap_or(NonZeroU16::MIN),
    };
    let rules = Rules {
        queues,
        qos_max: qos_max(config),
        overflow_qos0: config.queue.overflow_qos0.into(),
        overflow_qos1: config.queue.overflow_qos1.into(),
        overflow_offline: config.queue.overflow_offline.into(),
        retain: config.mqtt.retain,
        retained_batch: config.mqtt.retained_batch,
        session_expiry_default: config.mqtt.session_expiry_default,
        session_expiry_max: config.mqtt.session_expiry_max,
        sessions_max: config.mqtt.max_sessions,
        shared_strategy: match config.mqtt.shared_strategy {
            config::SharedStrategy::RoundRobin => Strategy::RoundRobin,
            config::SharedStrategy::Random => Strategy::Random,
            config::SharedStrategy::Sticky => Strategy::Sticky,
            config::SharedStrategy::LeastPending => Strategy::LeastPending,
        },
    };
    let retained = Retained::new(RetainedLimits {
        messages_max: config.mqtt.retained_max_messages,
        bytes_max: config.mqtt.retained_max_bytes.bytes(),
    });
    let topic_rules = topic_rules(config)?;
    Ok(Broker::new(rules, topic_rules, authenticator, retained, Arc::new(shared), Arc::clone(metrics)))
}

fn topic_rules(config: &Config) -> Result<TopicRules, TopicError> {
    let limits = topic_limits(config);
    let rule = |rule: &config::Topic| {
        Ok(TopicRule {
            filter: TopicFilter::parse(&rule.filter, &limits)?,
            retain: rule.retain.map(|retain| match retain {
                config::Retain::Allow => RetainRule::Allow,
                config::Retain::Force => RetainRule::Force,
                config::Retain::Deny => RetainRule::Deny,
            }),
            qos_max: rule.qos_max.and_then(QoS::from_u8),
            payload_bytes_max: rule.max_payload.map(ByteSize::bytes),
        })
    };
    Ok(TopicRules::new(config.topic.iter().map(rule).collect::<Result<_, _>>()?))
}

fn listener(config: &Config, listener: &config::Listener) -> ListenerSettings {
    ListenerSettings {
        name: listener.name.clone(),
        bind: listener.bind,
        paths: listener.paths.clone(),
        negotiation: NegotiationOptions {
            protocols: listener.protocols.iter().map(|protocol| (*protocol).into()).collect(),
            unknown: match config.websocket.unknown_protocol {
                config::UnknownProtocol::Reject => UnknownProtocol::Reject,
                config::UnknownProtocol::Raw => UnknownProtocol::Raw,
            },
            default_protocol: config.websocket.default_protocol.into(),
            mqtt_levels: config.mqtt.versions.iter().map(|version| level(*version)).collect(),
            stomp_versions: stomp_versions(config),
        },
        limits: AdmissionLimits {
            connections_max: listener.max_connections,
            connections_per_ip_max: listener.max_connections_per_ip,
            handshakes_per_second: listener.accept_rate.map(|rate| u32::try_from(rate).unwrap_or(u32::MAX)),
        },
    }
}

fn settings(config: &Config) -> Result<server::Settings, OriginError> {
    let websocket = &config.websocket;
    let origins: Result<Vec<_>, _> =
        websocket.origins.iter().map(|text| OriginPattern::parse(text)).collect();
    Ok(server::Settings {
        origins: origins?,
        require_origin: websocket.require_origin,
        handshake_timeout: websocket.handshake_timeout,
        header_bytes_max: websocket.max_header_bytes.bytes(),
        deflate: deflate::Settings {
            enabled: websocket.deflate.enabled,
            server_no_context_takeover: websocket.deflate.server_no_context_takeover,
            client_no_context_takeover: websocket.deflate.client_no_context_takeover,
            server_max_window_bits: websocket.deflate.server_max_window_bits,
            level: websocket.deflate.level,
            min_size: websocket.deflate.min_size.bytes(),
        },
        takeover_bytes_max: websocket.deflate.takeover_memory.bytes(),
        connection: Arc::new(connection::Settings {
            message_bytes_max: websocket.max_message_size.bytes(),
            message_bytes_max_preauth: websocket.max_message_size_preauth.bytes(),
            ping_interval: Some(websocket.ping_interval),
            pong_timeout: websocket.pong_timeout,
            close_timeout: websocket.close_timeout,
            idle_timeout: websocket.idle_timeout,
            read_bytes_max: websocket.read_buffer.bytes(),
            stall_timeout: config.queue.stall_timeout,
            publish_wait: config.queue.publish_wait,
        }),
        sessions: Arc::new(subprotocol::Settings {
            raw: raw_settings(config),
            mqtt: Arc::new(mqtt_settings(config)),
            stomp: stomp_settings(config),
        }),
    })
}

fn raw_settings(config: &Config) -> raw::Settings {
    raw::Settings {
        topics_max: config.raw.max_topics,
        topic_limits: topic_limits(config),
        receive_maximum: config.mqtt.receive_maximum,
        message_bytes_max: config.websocket.max_message_size.bytes(),
        ping_interval: config.websocket.ping_interval,
    }
}

fn mqtt_settings(config: &Config) -> mqtt::Settings {
    let has = |version| config.mqtt.versions.contains(&version);
    mqtt::Settings {
        versions: mqtt::Versions {
            v3_1: has(config::MqttVersion::V3_1),
            v3_1_1: has(config::MqttVersion::V3_1_1),
            v5: has(config::MqttVersion::V5),
        },
        max_qos: qos_max(config),
        receive_maximum: config.mqtt.receive_maximum,
        max_inflight: config.mqtt.max_inflight,
        topic_alias_maximum: config.mqtt.topic_alias_maximum,
        is_retain_available: config.mqtt.retain,
        topic_limits: topic_limits(config),
        packet_bytes_max: config.websocket.max_message_size.bytes(),
        packet_bytes_max_preauth: config.websocket.max_message_size_preauth.bytes(),
        keepalive_max: Some(config.mqtt.keepalive_max),
        keepalive_multiplier: config.mqtt.keepalive_multiplier,
        connect_timeout: config.mqtt.connect_timeout,
        subscriptions_max: config.mqtt.max_subscriptions,
        user_properties_max: config.mqtt.max_user_properties,
        filters_max: config.mqtt.max_filters_per_subscribe,
        client_id_bytes_max: config.mqtt.max_client_id_bytes,
        pong_counts_as_alive: config.mqtt.pong_counts_as_alive,
        response_information: Some(&config.mqtt.response_information)
            .filter(|prefix| !prefix.is_empty())
            .map(|prefix| prefix.as_str().into()),
    }
}

fn stomp_settings(config: &Config) -> stomp::Settings {
    stomp::Settings {
        versions: stomp_versions(config),
        heart_beat_send: config.stomp.heart_beat.0.unwrap_or_default(),
        heart_beat_receive: config.stomp.heart_beat.1.unwrap_or_default(),
        heart_beat_tolerance: config.stomp.heart_beat_tolerance,
        connect_timeout: config.stomp.connect_timeout,
        max_headers: config.stomp.max_headers,
        max_header_bytes: config.stomp.max_header_bytes.bytes(),
        max_body: config.stomp.max_body.bytes(),
        max_transactions: config.stomp.max_transactions,
        max_transaction_actions: config.stomp.max_transaction_actions,
        max_selector_bytes: config.stomp.max_selector_bytes.bytes(),
        prefetch: config.stomp.prefetch,
        frames: match config.stomp.frames {
            config::Frames::Auto => stomp::FrameKind::Auto,
            config::Frames::Text => stomp::FrameKind::Text,
            config::Frames::Binary => stomp::FrameKind::Binary,
        },
        separator: match config.stomp.separator {
            config::Separator::Slash => stomp::Separator::Slash,
            config::Separator::Dot => stomp::Separator::Dot,
        },
        unknown_prefix: match config.stomp.unknown_prefix {
            config::UnknownPrefix::Error => stomp::UnknownPrefix::Error,
            config::UnknownPrefix::Topic => stomp::UnknownPrefix::Topic,
        },
        max_message_size: config.websocket.max_message_size.bytes(),
        max_message_size_preauth: config.websocket.max_message_size_preauth.bytes(),
        topic_limits: topic_limits(config),
        max_subscriptions: config.mqtt.max_subscriptions,
        receive_maximum: usize::from(config.mqtt.receive_maximum),
    }
}

fn topic_limits(config: &Config) -> TopicLimits {
    TopicLimits { bytes_max: config.mqtt.max_topic_bytes.bytes(), levels_max: config.mqtt.max_topic_levels }
}

fn qos_max(config: &Config) -> QoS {
    QoS::from_u8(config.mqtt.max_qos).unwrap_or(QoS::ExactlyOnce)
}

fn level(version: config::MqttVersion) -> u8 {
    match version {
        config::MqttVersion::V3_1 => 3,
        config::MqttVersion::V3_1_1 => 4,
        config::MqttVersion::V5 => 5,
    }
}

fn stomp_versions(config: &Config) -> Vec<stomp::Version> {
    let version = |version: &config::StompVersion| match version {
        config::StompVersion::V1_0 => stomp::Version::V1_0,
        config::StompVersion::V1_1 => stomp::Version::V1_1,
        config::StompVersion::V1_2 => stomp::Version::V1_2,
    };
    config.stomp.versions.iter().map(version).collect()
}

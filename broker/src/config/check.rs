//! What the types cannot say: ranges, keys that must go together, and files that must be sound. Names keys by their
//! path; where they stand is for others.

use std::fmt::Display;
use std::time::Duration;

use tidegate_protocol::topic::{TopicFilter, TopicLimits};

use super::{Anonymous, ByteSize, Config, MemoryBudget, Overflow, Retain, Topic};
use crate::auth::scram::Users;
use crate::{logging, sys};

/// Something wrong, and the keys that it is about, the most likely culprit first.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) keys: Vec<String>,
    pub(super) message: String,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SECOND: Duration = Duration::from_secs(1);
const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(u32::MAX as u64);
const DAY: Duration = Duration::from_secs(86_400);

/// Everything that is wrong.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    listeners(config, &mut findings);
    websocket(config, &mut findings);
    queue(config, &mut findings);
    work_queue(config, &mut findings);
    mqtt(config, &mut findings);
    stomp_and_raw(config, &mut findings);
    topics(config, &mut findings);
    store(config, &mut findings);
    others(config, &mut findings);
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn wrong(&mut self, keys: &[&str], message: impl Into<String>) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.0.push(Finding { keys, message: message.into() });
    }

    fn range<T: PartialOrd + Display>(&mut self, key: &str, value: T, min: T, max: T) {
        // Written so that a NaN is outside.
        if !(value >= min && value <= max) {
            self.wrong(&[key], format!("{value} is out of range; allowed is {min} to {max}"));
        }
    }

    fn size(&mut self, key: &str, value: ByteSize, min_bytes: usize, max_bytes: usize) {
        self.range(key, value, ByteSize(min_bytes), ByteSize(max_bytes));
    }

    fn time(&mut self, key: &str, value: Duration, min: Duration, max: Duration) {
        if value < min || value > max {
            let [value, min, max] = [value, min, max].map(super::units::format_duration);
            self.wrong(&[key], format!("{value} is out of range; allowed is {min} to {max}"));
        }
    }

    fn list<T: PartialEq>(&mut self, key: &str, list: &[T]) {
        if list.is_empty() {
            self.wrong(&[key], "the list is empty; nothing could ever connect");
        }
        let repeats = list.iter().enumerate().any(|(at, one)| list.iter().take(at).any(|other| other == one));
        if repeats {
            self.wrong(&[key], "the list names something twice");
        }
    }

    fn at_most(&mut self, smaller: (&str, ByteSize), larger: (&str, ByteSize)) {
        if smaller.1 > larger.1 {
            let message = format!("{} = {} is above {} = {}", smaller.0, smaller.1, larger.0, larger.1);
            self.wrong(&[smaller.0, larger.0], message);
        }
    }
}

fn listeners(config: &Config, findings: &mut Findings) {
    if config.listener.is_empty() {
        findings.wrong(&["listener"], "there is no listener; nothing could ever connect");
    }
    for (at, listener) in config.listener.iter().enumerate() {
        let key = |name: &str| format!("listener[{at}].{name}");
        let earlier = config.listener.iter().take(at);
        let is_name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if listener.name.is_empty() || listener.name.len() > 64 || !listener.name.chars().all(is_name_char) {
            let rule = "1 to 64 letters, digits, '-', '_' and '.'";
            findings.wrong(&[&key("name")], format!("{:?} is no name; it has {rule}", listener.name));
        }
        if earlier.clone().any(|other| other.name == listener.name) {
            findings.wrong(&[&key("name")], format!("two listeners have the name {:?}", listener.name));
        }
        // Port 0 is a free port each time.
        let has_port = listener.bind.port() != 0;
        if has_port && earlier.clone().any(|other| other.bind == listener.bind) {
            findings.wrong(&[&key("bind")], format!("two listeners are bound to {}", listener.bind));
        }
        if has_port && config.admin.bind == Some(listener.bind) {
            findings.wrong(&[&key("bind"), "admin.bind"], format!("admin.bind is {} too", listener.bind));
        }
        findings.list(&key("paths"), &listener.paths);
        for path in listener.paths.iter().filter(|path| !is_path(path)) {
            let rule = "a path begins with '/' and has no '?', '#', space or control character";
            findings.wrong(&[&key("paths")], format!("{path:?} is no path; {rule}"));
        }
        findings.list(&key("protocols"), &listener.protocols);
        findings.range(&key("max_connections"), listener.max_connections, 1, 10_000_000);
        if let Some(per_ip) = listener.max_connections_per_ip {
            findings.range(&key("max_connections_per_ip"), per_ip, 1, 10_000_000);
        }
        if let Some(rate) = listener.accept_rate {
            findings.range(&key("accept_rate"), rate, 1, 1_000_000);
        }
        if !listener.is_loopback()
            && config.auth.anonymous != Anonymous::Always
            && !config.has_login(listener)
        {
            let message = format!(
                "{} is open to other machines, there is no authenticator for what it speaks, and auth.anonymous is \
                 \"{}\", so nobody from outside could log in; bind to 127.0.0.1, name a file of users in \
                 auth.scram_file, which MQTT 5 clients log in with, or set auth.anonymous = \"always\" to let \
                 everybody in",
                listener.bind,
                config.auth.anonymous.word()
            );
            findings.wrong(&[&key("bind"), "auth.anonymous", "auth.scram_file"], message);
        }
    }
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '?' | '#'))
}

fn websocket(config: &Config, findings: &mut Findings) {
    let websocket = &config.websocket;
    for origin in websocket.origins.iter().filter(|origin| !is_origin(origin)) {
        let rule = "write \"https://app.example.com\", \"https://*.example.com\", with a port if it has one, or \"null\"";
        findings.wrong(&["websocket.origins"], format!("{origin:?} is no origin; {rule}"));
    }
    findings.time("websocket.handshake_timeout", websocket.handshake_timeout, SECOND / 10, DAY);
    // hyper reads HTTP heads into a buffer of at least 8 KiB.
    findings.size("websocket.max_header_bytes", websocket.max_header_bytes, 8 * KIB, MIB);
    findings.size("websocket.max_message_size", websocket.max_message_size, KIB, 256 * MIB);
    findings.size("websocket.max_message_size_preauth", websocket.max_message_size_preauth, KIB, 256 * MIB);
    findings.at_most(
        ("websocket.max_message_size_preauth", websocket.max_message_size_preauth),
        ("websocket.max_message_size", websocket.max_message_size),
    );
    findings.time("websocket.ping_interval", websocket.ping_interval, SECOND, DAY);
    findings.time("websocket.pong_timeout", websocket.pong_timeout, SECOND / 10, DAY);
    findings.time("websocket.close_timeout", websocket.close_timeout, SECOND / 10, DAY);
    if let Some(idle) = websocket.idle_timeout {
        findings.time("websocket.idle_timeout", idle, SECOND, 365 * DAY);
    }
    findings.size("websocket.read_buffer", websocket.read_buffer, 4 * KIB, 16 * MIB);
    findings.size("websocket.write_coalesce", websocket.write_coalesce, 1, MIB);
    findings.at_most(
        ("websocket.write_coalesce", websocket.write_coalesce),
        ("queue.high_watermark", config.queue.high_watermark),
    );
    let deflate = &websocket.deflate;
    findings.size("websocket.deflate.takeover_memory", deflate.takeover_memory, 512 * KIB, usize::MAX >> 1);
    // RFC 7692 §7.1.2.1.
    findings.range("websocket.deflate.server_max_window_bits", deflate.server_max_window_bits, 8, 15);
    findings.range("websocket.deflate.level", deflate.level, 1, 9);
    findings.size("websocket.deflate.min_size", deflate.min_size, 0, 256 * MIB);
}

/// RFC 6454 §7: scheme, host and perhaps a port, or `null`; the host may begin with `*.`.
fn is_origin(origin: &str) -> bool {
    if origin == "null" {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_host_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '[' | ']' | ':');
    !scheme.is_empty()
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        && !name.is_empty()
        && name.chars().all(is_host_char)
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn queue(config: &Config, findings: &mut Findings) {
    let queue = &config.queue;
    findings.range("queue.max_messages", queue.max_messages, 1, 10_000_000);
    findings.size("queue.max_bytes", queue.max_bytes, 4 * KIB, 1024 * MIB);
    if queue.overflow_qos1 == Overflow::Conflate {
        let message =
            "conflate would lose acknowledged messages; allowed are drop_oldest, drop_newest and disconnect";
        findings.wrong(&["queue.overflow_qos1"], message);
    }
    if !matches!(queue.overflow_offline, Overflow::DropOldest | Overflow::DropNewest) {
        let message =
            "nobody is there to disconnect or to conflate for; allowed are drop_oldest and drop_newest";
        findings.wrong(&["queue.overflow_offline"], message);
    }
    findings.time("queue.publish_wait", queue.publish_wait, Duration::ZERO, 60 * SECOND);
    findings.time("queue.slow_after", queue.slow_after, Duration::ZERO, 10 * SECOND);
    findings.time("queue.stall_timeout", queue.stall_timeout, SECOND / 10, DAY);
    findings.size("queue.high_watermark", queue.high_watermark, KIB, 16 * MIB);
    findings.at_most(("queue.high_watermark", queue.high_watermark), ("queue.max_bytes", queue.max_bytes));
    if let MemoryBudget::Bytes(total) = queue.total_bytes {
        let one = queue.max_bytes.0.saturating_mul(2).saturating_add(config.websocket.max_message_size.0);
        if total.0 < one {
            let one = ByteSize(one);
            let message = format!(
                "{total} is not enough for one client, which may hold {one}: 2 × max_bytes + one message"
            );
            findings.wrong(&["queue.total_bytes", "queue.max_bytes", "websocket.max_message_size"], message);
        }
    }
}

fn work_queue(config: &Config, findings: &mut Findings) {
    let queue = &config.work_queue;
    findings.range("work_queue.max_queues", queue.max_queues, 0, 1_000_000);
    findings.range("work_queue.max_messages", queue.max_messages, 1, 100_000_000);
    findings.size("work_queue.max_bytes", queue.max_bytes, 4 * KIB, usize::MAX >> 2);
    if let Some(ttl) = queue.message_ttl {
        findings.time("work_queue.message_ttl", ttl, SECOND, 3650 * DAY);
    }
    findings.range("work_queue.prefetch", queue.prefetch, 1, u16::MAX);
}

fn mqtt(config: &Config, findings: &mut Findings) {
    let mqtt = &config.mqtt;
    findings.list("mqtt.versions", &mqtt.versions);
    findings.range("mqtt.max_qos", mqtt.max_qos, 0, 2);
    // MQTT 5 §3.1.2.11.3: 0 is a protocol error.
    findings.range("mqtt.receive_maximum", mqtt.receive_maximum, 1, u16::MAX);
    findings.range("mqtt.max_inflight", mqtt.max_inflight, 1, u16::MAX);
    findings.range("mqtt.max_topic_levels", mqtt.max_topic_levels, 1, 65_536);
    findings.size("mqtt.max_topic_bytes", mqtt.max_topic_bytes, 1, 65_535);
    findings.range("mqtt.max_subscriptions", mqtt.max_subscriptions, 1, 10_000_000);
    findings.range("mqtt.max_filters_per_subscribe", mqtt.max_filters_per_subscribe, 1, 1_000_000);
    findings.range("mqtt.max_user_properties", mqtt.max_user_properties, 1, 100_000);
    findings.range("mqtt.max_client_id_bytes", mqtt.max_client_id_bytes, 23, 65_535);
    findings.range("mqtt.max_sessions", mqtt.max_sessions, 1, 100_000_000);
    // 0xFFFFFFFF seconds, some 136 years, is the standard's word for never.
    findings.time("mqtt.session_expiry_max", mqtt.session_expiry_max, Duration::ZERO, SESSION_EXPIRY_MAX);
    findings.time(
        "mqtt.session_expiry_default",
        mqtt.session_expiry_default,
        Duration::ZERO,
        mqtt.session_expiry_max,
    );
    if mqtt.response_information.contains(['+', '#', '\0']) {
        findings.wrong(&["mqtt.response_information"], "a prefix of topics has no wildcards");
    }
    // Keep Alive has 16 bits (MQTT 5 §3.1.2.10).
    findings.time("mqtt.keepalive_max", mqtt.keepalive_max, SECOND, 65_535 * SECOND);
    if mqtt.keepalive_max.subsec_nanos() != 0 {
        findings.wrong(&["mqtt.keepalive_max"], "MQTT counts keep-alive in whole seconds");
    }
    findings.range("mqtt.keepalive_multiplier", mqtt.keepalive_multiplier, 1.0, 10.0);
    findings.range("mqtt.retained_max_messages", mqtt.retained_max_messages, 1, 1_000_000_000);
    findings.size("mqtt.retained_max_bytes", mqtt.retained_max_bytes, 4 * KIB, usize::MAX >> 1);
    findings.range("mqtt.retained_batch", mqtt.retained_batch, 1, 10_000);
    findings.time("mqtt.connect_timeout", mqtt.connect_timeout, SECOND / 10, DAY);
}

fn stomp_and_raw(config: &Config, findings: &mut Findings) {
    let stomp = &config.stomp;
    findings.list("stomp.versions", &stomp.versions);
    for (at, beat) in [stomp.heart_beat.0, stomp.heart_beat.1].into_iter().enumerate() {
        if let Some(beat) = beat {
            findings.time(&format!("stomp.heart_beat[{at}]"), beat, SECOND / 10, DAY);
        }
    }
    findings.range("stomp.heart_beat_tolerance", stomp.heart_beat_tolerance, 1.0, 10.0);
    findings.time("stomp.connect_timeout", stomp.connect_timeout, SECOND / 10, DAY);
    findings.range("stomp.max_headers", stomp.max_headers, 8, 10_000);
    findings.size("stomp.max_header_bytes", stomp.max_header_bytes, 256, MIB);
    findings.size("stomp.max_body", stomp.max_body, 1, 256 * MIB);
    findings.at_most(
        ("stomp.max_body", stomp.max_body),
        ("websocket.max_message_size", config.websocket.max_message_size),
    );
    findings.range("stomp.max_transactions", stomp.max_transactions, 1, 1_000);
    findings.range("stomp.max_transaction_actions", stomp.max_transaction_actions, 1, 100_000);
    findings.size("stomp.max_selector_bytes", stomp.max_selector_bytes, 16, MIB);
    findings.range("stomp.prefetch", stomp.prefetch, 1, 65_535);
    findings.range("raw.max_topics", config.raw.max_topics, 1, 1_000_000);
}

/// Every publish is held against the rules one after the other, so there are not many.
const TOPIC_RULES_MAX: usize = 256;

fn topics(config: &Config, findings: &mut Findings) {
    if config.topic.len() > TOPIC_RULES_MAX {
        let message = format!("there are {} rules; allowed are {TOPIC_RULES_MAX}", config.topic.len());
        findings.wrong(&["topic"], message);
    }
    let mqtt = &config.mqtt;
    let limits = TopicLimits { bytes_max: mqtt.max_topic_bytes.bytes(), levels_max: mqtt.max_topic_levels };
    for (at, rule) in config.topic.iter().enumerate() {
        let key = |name: &str| format!("topic[{at}].{name}");
        match TopicFilter::parse(&rule.filter, &limits) {
            Err(error) => {
                findings.wrong(&[&key("filter")], format!("{:?} is no filter: {error}", rule.filter));
            }
            Ok(filter) if rule.filter.starts_with('$') => own_topics(rule, &filter, key, findings),
            Ok(_) => {}
        }
        if config.topic.iter().take(at).any(|earlier| earlier.filter == rule.filter) {
            let message = format!("an earlier rule is for {:?} too, and the first counts", rule.filter);
            findings.wrong(&[&key("filter")], message);
        }
        if rule.retain == Some(Retain::Force) && !mqtt.retain {
            let message = "retain = \"force\" does not go together with mqtt.retain = false";
            findings.wrong(&[&key("retain"), "mqtt.retain"], message);
        }
        if let Some(qos) = rule.qos_max {
            findings.range(&key("qos_max"), qos, 0, 2);
        }
        if let Some(bytes) = rule.max_payload {
            findings.size(&key("max_payload"), bytes, 1, 256 * MIB);
        }
    }
}

/// Clients publish nothing below `$`, so a rule has nothing to say there but for the states of clients.
fn own_topics(rule: &Topic, filter: &TopicFilter, key: impl Fn(&str) -> String, findings: &mut Findings) {
    if !sys::is_for_client_states(filter) {
        let message = "clients publish nothing below '$'; of the broker's own topics a rule can only be for \
                       $SYS/broker/clients/+/state";
        findings.wrong(&[&key("filter")], message);
    }
    let asks_more = [("qos_max", rule.qos_max.is_some()), ("max_payload", rule.max_payload.is_some())];
    for (name, _) in asks_more.into_iter().filter(|(_, is_asked)| *is_asked) {
        findings.wrong(&[&key(name)], "the broker's own topics have no such rule; only retain counts there");
    }
}

fn store(config: &Config, findings: &mut Findings) {
    let store = &config.store;
    if let Some(path) = store.path.as_deref().filter(|path| path.exists() && !path.is_dir()) {
        findings.wrong(&["store.path"], format!("{} is no directory", path.display()));
    }
    findings.time("store.window", store.window, Duration::ZERO, SECOND);
    if let Some(bytes) = store.max_bytes {
        // Its journal alone may take 64 MiB.
        findings.size("store.max_bytes", bytes, 128 * MIB, usize::MAX >> 1);
    }
    findings.size("store.max_pending_bytes", store.max_pending_bytes, MIB, usize::MAX >> 2);
    if store.path.is_some() {
        findings.at_most(
            ("websocket.max_message_size", config.websocket.max_message_size),
            ("store.max_pending_bytes", store.max_pending_bytes),
        );
    }
    findings.size("store.block_cache", store.block_cache, MIB, usize::MAX >> 2);
}

fn others(config: &Config, findings: &mut Findings) {
    // SEC-21: a malformed line stops the start.
    if let Some(Err(error)) = config.auth.scram_file.as_deref().map(Users::load) {
        findings.wrong(&["auth.scram_file"], error.to_string());
    }
    if let Err(message) = logging::parse_level(&config.log.level) {
        findings.wrong(&["log.level"], message);
    }
    if let Some(interval) = config.sys.interval {
        findings.time("sys.interval", interval, SECOND, DAY);
    }
    findings.time("shutdown.readiness_grace", config.shutdown.readiness_grace, Duration::ZERO, 600 * SECOND);
    findings.time("shutdown.timeout", config.shutdown.timeout, SECOND / 10, 600 * SECOND);
}

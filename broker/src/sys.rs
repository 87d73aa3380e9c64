//! The broker about itself, on topics below `$SYS/broker`: names and values as Mosquitto has them (man 8 mosquitto,
//! "BROKER STATUS"), as far as they are measured here. Turns numbers into publications; counts, publishes and
//! retains nothing itself.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidegate_protocol::publication::Publication;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

use crate::metrics::Metrics;

/// All numbers at one moment. Sums count from the start of the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Since the start.
    pub uptime: Duration,
    /// Clients that have connected.
    pub clients_connected: u64,
    /// Sessions that are kept while their client is away.
    pub clients_disconnected: u64,
    /// Kept sessions whose time was over; a sum.
    pub clients_expired: u64,
    /// WebSocket messages of any type, each a packet or a frame; a sum.
    pub messages_received: u64,
    /// The same in the other direction; a sum.
    pub messages_sent: u64,
    /// Messages published by clients; a sum.
    pub publishes_received: u64,
    /// Messages delivered to clients; a sum.
    pub publishes_sent: u64,
    /// Deliveries that were dropped; a sum.
    pub publishes_dropped: u64,
    /// Payload published by clients; a sum.
    pub publish_bytes_received: u64,
    /// Payload delivered to clients; a sum.
    pub publish_bytes_sent: u64,
    /// Read from sockets after the handshake; a sum.
    pub bytes_received: u64,
    /// Written to sockets after the handshake; a sum.
    pub bytes_sent: u64,
    /// Subscriptions of all clients.
    pub subscriptions: u64,
    /// Those in groups.
    pub shared_subscriptions: u64,
    /// Messages that clients have had retained.
    pub retained_messages: u64,
    /// The retained ones and those queued for clients.
    pub stored_messages: u64,
    /// Their memory.
    pub stored_bytes: u64,
    /// Requests to connect; a sum.
    pub connects: u64,
    /// Connections that were opened; a sum.
    pub sockets: u64,
}

/// Remembers what was published, and the averages over time.
#[derive(Debug, Default)]
pub struct Sys {
    last: Reading,
    /// The most clients that were connected in any reading.
    clients_maximum: u64,
    loads: [Load; LOADS.len()],
    /// The value that stands under each name.
    published: HashMap<String, String>,
}

/// One rate over each of [`WINDOWS`].
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    per_minute: [f64; WINDOWS.len()],
}

type Read = fn(&Reading) -> u64;

const ROOT: &str = "$SYS/broker/";

/// As they are read.
const NUMBERS: [(&str, Read); 21] = [
    ("clients/connected", |reading| reading.clients_connected),
    ("clients/disconnected", |reading| reading.clients_disconnected),
    ("clients/total", |reading| reading.clients_connected + reading.clients_disconnected),
    ("clients/expired", |reading| reading.clients_expired),
    ("messages/received", |reading| reading.messages_received),
    ("messages/sent", |reading| reading.messages_sent),
    ("publish/messages/received", |reading| reading.publishes_received),
    ("publish/messages/sent", |reading| reading.publishes_sent),
    ("publish/messages/dropped", |reading| reading.publishes_dropped),
    ("publish/bytes/received", |reading| reading.publish_bytes_received),
    ("publish/bytes/sent", |reading| reading.publish_bytes_sent),
    ("bytes/received", |reading| reading.bytes_received),
    ("bytes/sent", |reading| reading.bytes_sent),
    ("subscriptions/count", |reading| reading.subscriptions),
    ("shared_subscriptions/count", |reading| reading.shared_subscriptions),
    ("retained messages/count", |reading| reading.retained_messages),
    ("store/messages/count", |reading| reading.stored_messages),
    ("store/messages/bytes", |reading| reading.stored_bytes),
    // Older names, which Mosquitto still publishes and dashboards still read.
    ("clients/active", |reading| reading.clients_connected),
    ("clients/inactive", |reading| reading.clients_disconnected),
    ("messages/stored", |reading| reading.stored_messages),
];

/// Sums whose growth in a minute is averaged.
const LOADS: [(&str, Read); 9] = [
    ("load/messages/received", |reading| reading.messages_received),
    ("load/messages/sent", |reading| reading.messages_sent),
    ("load/publish/received", |reading| reading.publishes_received),
    ("load/publish/sent", |reading| reading.publishes_sent),
    ("load/publish/dropped", |reading| reading.publishes_dropped),
    ("load/bytes/received", |reading| reading.bytes_received),
    ("load/bytes/sent", |reading| reading.bytes_sent),
    ("load/connections", |reading| reading.connects),
    ("load/sockets", |reading| reading.sockets),
];

const WINDOWS: [(&str, Duration); 3] = [
    ("1min", Duration::from_secs(60)),
    ("5min", Duration::from_secs(5 * 60)),
    ("15min", Duration::from_secs(15 * 60)),
];

/// The most MQTT allows, which names made from a client id could exceed.
const LIMITS: TopicLimits = TopicLimits::STANDARD;

impl Reading {
    /// Of the counters, whose gauges are up to date.
    #[must_use]
    pub fn of(metrics: &Metrics, now: Instant) -> Self {
        let retained_messages = metrics.retained_messages.value();
        let outbox_bytes = metrics.outbox_bytes.load(Ordering::Relaxed) as u64;
        Self {
            uptime: metrics.uptime(now),
            clients_connected: metrics.clients.value(),
            clients_disconnected: metrics.sessions_away.value(),
            clients_expired: metrics.sessions_expired.value(),
            messages_received: metrics.sum(|family| family.websocket_messages_in.value()),
            messages_sent: metrics.sum(|family| family.websocket_messages_out.value()),
            publishes_received: metrics.sum(|family| family.messages_in.value()),
            publishes_sent: metrics.sum(|family| family.messages_out.value()),
            publishes_dropped: metrics.drops_sum(),
            publish_bytes_received: metrics.sum(|family| family.payload_bytes_in.value()),
            publish_bytes_sent: metrics.sum(|family| family.payload_bytes_out.value()),
            bytes_received: metrics.sum(|family| family.bytes_in.value()),
            bytes_sent: metrics.sum(|family| family.bytes_out.value()),
            subscriptions: metrics.subscriptions.value(),
            shared_subscriptions: metrics.shared_subscriptions.value(),
            retained_messages,
            stored_messages: retained_messages + metrics.outbox_messages.value(),
            stored_bytes: metrics.retained_bytes.value() + outbox_bytes,
            connects: metrics.connects.value(),
            sockets: metrics.sum(|family| family.connections_opened.value()),
        }
    }
}

impl Sys {
    /// What to publish for this reading: what has another value than before, and the uptime. `elapsed` is the time
    /// since the reading before.
    pub fn publications(&mut self, reading: &Reading, elapsed: Duration) -> Vec<Publication> {
        for (load, (_, read)) in self.loads.iter_mut().zip(LOADS) {
            load.add(read(reading).saturating_sub(read(&self.last)), elapsed);
        }
        self.last = *reading;
        self.clients_maximum = self.clients_maximum.max(reading.clients_connected);
        let mut publications = Vec::new();
        for (name, value) in self.values() {
            if name != "uptime" && self.published.get(&name) == Some(&value) {
                continue;
            }
            publications.extend(publication(&name, &value));
            self.published.insert(name, value);
        }
        publications
    }

    fn values(&self) -> Vec<(String, String)> {
        let reading = &self.last;
        let mut values = vec![
            ("version".to_owned(), concat!("tidegate version ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("uptime".to_owned(), format!("{} seconds", reading.uptime.as_secs())),
            ("clients/maximum".to_owned(), self.clients_maximum.to_string()),
        ];
        values.extend(NUMBERS.map(|(name, read)| (name.to_owned(), read(reading).to_string())));
        for (load, (name, _)) in self.loads.iter().zip(LOADS) {
            for (per_minute, (window, _)) in load.per_minute.iter().zip(WINDOWS) {
                values.push((format!("{name}/{window}"), format!("{per_minute:.2}")));
            }
        }
        values
    }
}

impl Load {
    /// Moves each average towards the rate of this interval, the more the longer it was (man 8 mosquitto: "the
    /// number … in 1 minute, averaged over 1, 5 or 15 minutes").
    fn add(&mut self, growth: u64, elapsed: Duration) {
        let elapsed_s = elapsed.as_secs_f64();
        if elapsed_s <= 0.0 {
            return;
        }
        let rate = growth as f64 * 60.0 / elapsed_s;
        for (per_minute, (_, window)) in self.per_minute.iter_mut().zip(WINDOWS) {
            let weight = (-elapsed_s / window.as_secs_f64()).exp();
            *per_minute = rate + weight * (*per_minute - rate);
        }
    }
}

/// Whether a client is connected, for `$SYS/broker/clients/<id>/state`. `None` when there is no name for it: the id
/// is empty or too long.
#[must_use]
pub fn client_state(id: &str, is_connected: bool) -> Option<Publication> {
    if id.is_empty() {
        return None;
    }
    publication(&state_name(id), if is_connected { "connected" } else { "disconnected" })
}

/// Whether a filter matches the state of any client.
#[must_use]
pub fn is_for_client_states(filter: &TopicFilter) -> bool {
    let id = filter.levels().nth(3).filter(|level| !matches!(*level, "+" | "#"));
    let topic = Topic::parse(&format!("{ROOT}clients/{}/state", id.unwrap_or("x")), &LIMITS);
    topic.is_ok_and(|topic| filter.matches(&topic))
}

/// The id as one level: what would end or widen it is percent-encoded, and so is the sign for that.
fn state_name(id: &str) -> String {
    let mut name = "clients/".to_owned();
    for c in id.chars() {
        match c {
            '/' | '+' | '#' | '%' | '\0' => {
                // Writing to a string cannot fail.
                let _ = write!(name, "%{:02X}", u32::from(c));
            }
            c => name.push(c),
        }
    }
    name.push_str("/state");
    name
}

fn publication(name: &str, value: &str) -> Option<Publication> {
    let topic = Topic::parse(&format!("{ROOT}{name}"), &LIMITS).ok()?;
    let mut publication = Publication::new(topic, value.to_owned().into());
    publication.retain = true;
    publication.is_text = true;
    Some(publication)
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::subprotocol::Family;

    use super::*;

    const TICK: Duration = Duration::from_secs(10);

    fn published(sys: &mut Sys, reading: &Reading, elapsed: Duration) -> HashMap<String, String> {
        let text = |publication: &Publication| String::from_utf8(publication.payload.to_vec()).unwrap();
        let all = sys.publications(reading, elapsed);
        for publication in &all {
            assert!(publication.retain && publication.publisher == 0, "{publication:?}");
        }
        let named = all.iter().map(|one| (one.topic.as_str().replace(ROOT, ""), text(one)));
        let named: HashMap<_, _> = named.collect();
        assert_eq!(named.len(), all.len(), "a name came twice");
        named
    }

    /// The publishes received per minute after these steps, as they stand on the topics.
    fn check_load(steps: &[(u64, Duration)], expected: [&str; 3]) {
        let mut sys = Sys::default();
        let mut reading = Reading::default();
        for (growth, elapsed) in steps {
            reading.publishes_received += growth;
            sys.publications(&reading, *elapsed);
        }
        let stands =
            WINDOWS.map(|(window, _)| sys.published[&format!("load/publish/received/{window}")].clone());
        assert_eq!(stands, expected, "{steps:?}");
    }

    #[test]
    fn a_load_is_the_exponential_average_of_the_rate_per_minute() {
        // 100 in 10 s are 600 per minute, of which 1 - e^(-10/60) = 0.153518…, 1 - e^(-10/300), 1 - e^(-10/900).
        check_load(&[(100, TICK)], ["92.11", "19.67", "6.63"]);
        // And a second of the same: 600 (1 - e^(-20/60)).
        check_load(&[(100, TICK), (100, TICK)], ["170.08", "38.70", "13.19"]);
        // Halved by silence of ln 2 minutes.
        check_load(
            &[(100, TICK), (0, Duration::from_secs_f64(41.588_830_833_6))],
            ["46.06", "17.12", "6.33"],
        );
        // A steady rate is reached.
        check_load(&[(60_000, Duration::from_secs(60_000))], ["60.00", "60.00", "60.00"]);
    }

    #[test]
    fn no_time_and_no_growth_change_no_load() {
        check_load(&[(0, Duration::ZERO)], ["0.00", "0.00", "0.00"]);
        check_load(&[(5, Duration::ZERO)], ["0.00", "0.00", "0.00"]);
        check_load(&[(0, TICK)], ["0.00", "0.00", "0.00"]);
    }

    #[test]
    fn every_name_is_one_of_mosquitto_s_and_there_from_the_start() {
        let names = published(&mut Sys::default(), &Reading::default(), Duration::ZERO);
        assert_eq!(names["version"], format!("tidegate version {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(names["uptime"], "0 seconds");
        for (name, _) in NUMBERS.iter().chain(&[("clients/maximum", NUMBERS[0].1)]) {
            assert_eq!(names[*name], "0", "{name}");
        }
        for (name, _) in LOADS {
            for (window, _) in WINDOWS {
                assert_eq!(names[&format!("{name}/{window}")], "0.00", "{name}");
            }
        }
        assert_eq!(names.len(), 3 + NUMBERS.len() + LOADS.len() * WINDOWS.len());
    }

    #[test]
    fn only_what_has_changed_is_published_again_and_the_uptime() {
        let mut sys = Sys::default();
        let mut reading = Reading { uptime: TICK, subscriptions: 2, ..Reading::default() };
        published(&mut sys, &reading, TICK);
        let again = published(&mut sys, &reading, TICK);
        assert_eq!(again, HashMap::from([("uptime".to_owned(), "10 seconds".to_owned())]));
        reading.subscriptions = 3;
        let mut changed = published(&mut sys, &reading, TICK);
        assert_eq!(changed.remove("subscriptions/count").as_deref(), Some("3"));
        assert_eq!(changed.len(), 1, "{changed:?}");
    }

    #[test]
    fn the_maximum_of_clients_stays_and_the_total_has_those_that_are_away() {
        let mut sys = Sys::default();
        let mut reading = Reading { clients_connected: 3, clients_disconnected: 4, ..Reading::default() };
        let first = published(&mut sys, &reading, TICK);
        assert_eq!((&*first["clients/maximum"], &*first["clients/total"]), ("3", "7"));
        reading.clients_connected = 1;
        let second = published(&mut sys, &reading, TICK);
        assert_eq!((second.get("clients/maximum"), &*second["clients/total"]), (None, "5"));
    }

    #[test]
    fn the_reading_takes_each_number_from_its_counter() {
        let start = Instant::now();
        let metrics = Metrics::new(start);
        metrics.clients.add(1);
        metrics.sessions_away.add(2);
        metrics.sessions_expired.add(3);
        metrics.drops.add(tidegate_protocol::session::DropReason::Oldest, 4);
        metrics.subscriptions.set(5);
        metrics.shared_subscriptions.set(6);
        metrics.retained_messages.set(7);
        metrics.outbox_messages.set(8);
        metrics.retained_bytes.set(9);
        metrics.outbox_bytes.store(10, Ordering::Relaxed);
        metrics.connects.add(11);
        for (family, by) in [(Family::Raw, 100), (Family::Mqtt, 1000), (Family::Stomp, 10_000)] {
            let counters = metrics.family(family);
            counters.websocket_messages_in.add(by);
            counters.websocket_messages_out.add(2 * by);
            counters.messages_in.add(3 * by);
            counters.messages_out.add(4 * by);
            counters.payload_bytes_in.add(5 * by);
            counters.payload_bytes_out.add(6 * by);
            counters.bytes_in.add(7 * by);
            counters.bytes_out.add(8 * by);
            counters.connections_opened.add(9 * by);
        }
        let expected = Reading {
            uptime: TICK,
            clients_connected: 1,
            clients_disconnected: 2,
            clients_expired: 3,
            messages_received: 11_100,
            messages_sent: 22_200,
            publishes_received: 33_300,
            publishes_sent: 44_400,
            publishes_dropped: 4,
            publish_bytes_received: 55_500,
            publish_bytes_sent: 66_600,
            bytes_received: 77_700,
            bytes_sent: 88_800,
            subscriptions: 5,
            shared_subscriptions: 6,
            retained_messages: 7,
            stored_messages: 15,
            stored_bytes: 19,
            connects: 11,
            sockets: 99_900,
        };
        assert_eq!(Reading::of(&metrics, start + TICK), expected);
    }

    #[test]
    fn an_id_is_one_level_of_its_topic_whatever_is_in_it() {
        for (id, level) in [
            ("meter-7", "meter-7"),
            ("a/b", "a%2Fb"),
            ("+", "%2B"),
            ("#", "%23"),
            ("a%2Fb", "a%252Fb"),
            ("\0", "%00"),
            ("ä b", "ä b"),
        ] {
            let state = client_state(id, true).unwrap();
            assert_eq!(state.topic.as_str(), format!("$SYS/broker/clients/{level}/state"));
            let filter = TopicFilter::parse("$SYS/broker/clients/+/state", &LIMITS).unwrap();
            assert!(state.retain && filter.matches(&state.topic), "{id:?}");
        }
    }

    #[test]
    fn a_state_says_connected_or_disconnected() {
        assert_eq!(client_state("a", true).unwrap().payload, "connected");
        assert_eq!(client_state("a", false).unwrap().payload, "disconnected");
    }

    #[test]
    fn an_id_that_makes_no_topic_has_no_state() {
        assert!(client_state("", true).is_none());
        assert!(client_state(&"/".repeat(65_535), true).is_none());
    }
}

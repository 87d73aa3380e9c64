//! What was measured, as JSON lines and as a table: medians over the runs, ratios to the peer, goals.

use std::collections::BTreeMap;

use serde_json::json;
use tidegate_protocol::publication::QoS;

use crate::acknowledged::{FIXED, SATURATION, acked_name, fairness_name};
use crate::child::Storage;
use crate::drive::Window;
use crate::durable::{fanout_name, group_commit_name, restart_name};
use crate::queue::{self, queue_name};
use crate::stored::{retained_name, sessions_name};

/// One measurement of one subject.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done; equal for all who are compared.
    pub scenario: String,
    /// Broker and protocol, as in `tidegate/raw`.
    pub subject: String,
    /// Name with unit, value.
    pub figures: Vec<(&'static str, f64)>,
}

/// The subject that ratios refer to.
pub const PEER: &str = "mosquitto/mqtt";

impl Row {
    /// The figures of a driven window.
    #[must_use]
    pub fn of_window(
        scenario: String,
        subject: String,
        window: &Window,
        more: &[(&'static str, f64)],
    ) -> Self {
        let mut figures = vec![
            ("deliveries_per_second", window.rate()),
            ("cpu_seconds_per_million", window.cpu_per_million()),
            ("p50_us", window.p50_us),
            ("p99_us", window.p99_us),
            ("max_us", window.max_us),
            ("lost", window.lost as f64),
            ("broker_cores", window.broker_cpu_seconds / window.seconds),
            ("load_cores", window.own_cpu_seconds / window.seconds),
        ];
        figures.extend_from_slice(more);
        Self { scenario, subject, figures }
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self, kind: &str) -> String {
        let figures: serde_json::Map<String, serde_json::Value> =
            self.figures.iter().map(|(name, value)| ((*name).to_owned(), json!(rounded(*value)))).collect();
        json!({ "kind": kind, "scenario": self.scenario, "subject": self.subject, "figures": figures })
            .to_string()
    }

    fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// One row per (scenario, subject), each figure the median of the runs, in the order of first appearance.
#[must_use]
pub fn medians(rows: &[Row]) -> Vec<Row> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut values: BTreeMap<(&str, &str), BTreeMap<&'static str, Vec<f64>>> = BTreeMap::new();
    for row in rows {
        let key = (row.scenario.as_str(), row.subject.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
        let of_row = values.entry(key).or_default();
        row.figures.iter().for_each(|(name, value)| of_row.entry(name).or_default().push(*value));
    }
    let row = |key: &(&str, &str)| Row {
        scenario: key.0.to_owned(),
        subject: key.1.to_owned(),
        figures: values.get(key).into_iter().flatten().map(|(name, seen)| (*name, median(seen))).collect(),
    };
    order.iter().map(row).collect()
}

/// The table that people read; `×` columns are peer ÷ subject for cost and subject ÷ peer for rate.
#[must_use]
pub fn table(medians: &[Row]) -> String {
    let mut text = format!(
        "{:<44} {:<15} {:>11} {:>8} {:>9} {:>9} {:>9} {:>5} {:>9} {:>9}\n",
        "scenario", "subject", "deliv/s", "CPU s/M", "p50 µs", "p99 µs", "max µs", "lost", "rate ×", "CPU ÷"
    );
    for row in medians.iter().filter(|row| row.figure("cpu_seconds_per_million").is_some()) {
        let peer = medians.iter().find(|other| other.scenario == row.scenario && other.subject == PEER);
        let of = |row: &Row, name: &str| row.figure(name).unwrap_or(f64::NAN);
        let ratio = |name: &str, inverse: bool| match peer {
            Some(peer) if inverse => format!("{:.2}", of(peer, name) / of(row, name)),
            Some(peer) => format!("{:.2}", of(row, name) / of(peer, name)),
            None => "-".to_owned(),
        };
        text.push_str(&format!(
            "{:<44} {:<15} {:>11.0} {:>8.2} {:>9.0} {:>9.0} {:>9.0} {:>5.0} {:>9} {:>9}\n",
            row.scenario,
            row.subject,
            of(row, "deliveries_per_second"),
            of(row, "cpu_seconds_per_million"),
            of(row, "p50_us"),
            of(row, "p99_us"),
            of(row, "max_us"),
            of(row, "lost"),
            ratio("deliveries_per_second", false),
            ratio("cpu_seconds_per_million", true),
        ));
    }
    let usual = ["deliveries_per_second", "cpu_seconds_per_million", "p50_us", "p99_us", "max_us", "lost"];
    for row in medians {
        let others =
            row.figures.iter().filter(|(name, _)| !usual.contains(name) && !name.ends_with("_cores"));
        let list: Vec<String> = others.map(|(name, value)| format!("{name} {}", rounded(*value))).collect();
        if !list.is_empty() {
            text.push_str(&format!("{:<44} {:<15} {}\n", row.scenario, row.subject, list.join("  ")));
        }
    }
    text
}

/// A goal of the project held against the medians.
#[derive(Clone, Debug)]
pub struct Goal {
    /// The goal, in words.
    pub text: String,
    /// What was reached; none when something it needs was not measured.
    pub value: Option<f64>,
    /// Whether more is better, and from where it is met.
    pub bound: Bound,
}

/// Which side of a number is good.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// The list "Figures to reach", as far as these medians cover it.
#[must_use]
pub fn goals(medians: &[Row]) -> Vec<Goal> {
    let find = |scenario: &str, subject: &str, name: &str| {
        medians.iter().find(|row| row.scenario == scenario && row.subject == subject)?.figure(name)
    };
    let ratio = |scenario: &str, subject: &str, name: &str| {
        Some(find(scenario, subject, name)? / find(scenario, PEER, name)?)
    };
    let mut goals = Vec::new();
    let mut goal = |text: String, value: Option<f64>, bound| {
        if value.is_some() {
            goals.push(Goal { text, value, bound });
        }
    };
    for n in [100, 1000] {
        for subject in ["tidegate/mqtt", "tidegate/raw"] {
            let saturation = format!("fanout 1→{n}, 64 B, saturation");
            let rate = ratio(&saturation, subject, "deliveries_per_second");
            goal(format!("{saturation}: {subject} rate ÷ mosquitto's"), rate, Bound::AtLeast(10.0));
            let cpu = ratio(&saturation, subject, "cpu_seconds_per_million");
            goal(format!("{saturation}: {subject} CPU ÷ mosquitto's"), cpu, Bound::AtMost(1.0 / 12.0));
            let fixed = format!("fanout 1→{n}, 64 B, 20 000/s");
            let cpu = ratio(&fixed, subject, "cpu_seconds_per_million");
            goal(format!("{fixed}: {subject} CPU ÷ mosquitto's"), cpu, Bound::AtMost(1.0));
            let p99 = ratio(&fixed, subject, "p99_us");
            goal(format!("{fixed}: {subject} p99 ÷ mosquitto's"), p99, Bound::AtMost(1.0));
        }
    }
    let saturation = "fanout 1→1000, 64 B, saturation";
    let cpu = |subject| find(saturation, subject, "cpu_seconds_per_million");
    goal(
        format!("{saturation}: tidegate/stomp CPU ÷ tidegate/mqtt's"),
        cpu("tidegate/stomp").zip(cpu("tidegate/mqtt")).map(|(stomp, mqtt)| stomp / mqtt),
        Bound::AtMost(1.5),
    );
    for (subject, bytes) in [("tidegate/raw", 2048.0), ("tidegate/mqtt", 3072.0)] {
        for name in ["idle_bytes_per_connection", "after_traffic_bytes_per_connection"] {
            let value = find("idle, 10000 connections", subject, name);
            goal(format!("{subject} {name}"), value, Bound::AtMost(bytes));
        }
    }
    for subject in ["tidegate/mqtt", "tidegate/raw"] {
        let plain = "deflate off, 1→1000, 1 KiB JSON, saturation";
        let deflated = "deflate on, 1→1000, 1 KiB JSON, saturation";
        let of = |scenario, name| find(scenario, subject, name);
        let cpu = of(deflated, "cpu_seconds_per_million").zip(of(plain, "cpu_seconds_per_million"));
        goal(
            format!("{subject} CPU deflated ÷ plain, 1→1000, 1 KiB"),
            cpu.map(|(a, b)| a / b),
            Bound::AtMost(1.3),
        );
    }
    let stalled = |scenario| find(scenario, "tidegate/mqtt", "p99_us");
    let p99 = stalled("stalled: one of 20").zip(stalled("stalled: none of 20"));
    goal(
        "p99 beside one stalled subscriber ÷ without".to_owned(),
        p99.map(|(a, b)| a / b),
        Bound::AtMost(1.2),
    );
    let growth = find("stalled: one of 20", "tidegate/mqtt", "rss_growth_bytes");
    goal(
        "RSS growth with one stalled subscriber (2 × 1 MiB + one message)".to_owned(),
        growth,
        Bound::AtMost(3.2e6),
    );
    let wildcards = "wildcards: 1000 filters, 10000 topics";
    let cpu = ratio(wildcards, "tidegate/mqtt", "cpu_seconds_per_million");
    goal(format!("{wildcards}: CPU ÷ mosquitto's"), cpu, Bound::AtMost(1.0 / 3.0));
    goals.extend(mqtt_goals(medians));
    goals.extend(stored_goals(medians));
    goals.extend(queue_goals(medians));
    goals
}

/// The list "Figures" of acknowledged, retained and sessions.
fn mqtt_goals(medians: &[Row]) -> Vec<Goal> {
    let find = |scenario: &str, name: &str| {
        let row = medians.iter().find(|row| row.scenario == scenario && row.subject == "tidegate/mqtt")?;
        row.figure(name)
    };
    let mut goals = Vec::new();
    for pace in [SATURATION, FIXED] {
        let cpu = |qos| find(&acked_name(1000, qos, pace), "cpu_seconds_per_million");
        let ratio = cpu(QoS::AtLeastOnce).zip(cpu(QoS::AtMostOnce)).map(|(acked, free)| acked / free);
        let text = format!("acked: CPU per delivery, QoS 1 ÷ QoS 0, 1→1000, 64 B, {pace}");
        goals.push((text, ratio, Bound::AtMost(2.5)));
    }
    let fairness = fairness_name(1000);
    let spread = find(&fairness, "fastest_to_slowest");
    goals.push((format!("{fairness}: fastest ÷ slowest"), spread, Bound::AtMost(2.0)));
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let retained = retained_name(100_000, qos);
        let complete = find(&retained, "complete");
        goals.push((format!("{retained}: share that came"), complete, Bound::AtLeast(1.0)));
        let p99 = find(&retained, "others_p99_us");
        goals.push((format!("{retained}: p99 of others, µs"), p99, Bound::AtMost(10_000.0)));
    }
    let sessions = sessions_name(10_000);
    for name in ["bytes_per_subscription", "bytes_per_subscription_when_dropped"] {
        goals.push((format!("{sessions}: {name}"), find(&sessions, name), Bound::AtMost(150.0)));
    }
    let kept = find(&sessions, "sessions_kept");
    goals.push((format!("{sessions}: share that was kept"), kept, Bound::AtLeast(1.0)));
    let measured = goals.into_iter().filter(|(_, value, _)| value.is_some());
    measured.map(|(text, value, bound)| Goal { text, value, bound }).collect()
}

/// What the store promises.
fn stored_goals(medians: &[Row]) -> Vec<Goal> {
    let find = |scenario: &str, subject: &str, name: &str| {
        medians.iter().find(|row| row.scenario == scenario && row.subject == subject)?.figure(name)
    };
    let ours = "tidegate/mqtt";
    let mut goals = Vec::new();
    let commit = group_commit_name(100);
    let rate = find(&commit, ours, "acked_per_second");
    goals.push((format!("{commit}: acknowledged a second"), rate, Bound::AtLeast(20_000.0)));
    let p99 = find(&commit, ours, "ack_p99_us");
    goals.push((format!("{commit}: p99 of acknowledgements, µs"), p99, Bound::AtMost(30_000.0)));
    for (name, bound) in
        [("deliveries_per_second", Bound::AtLeast(0.97)), ("cpu_seconds_per_million", Bound::AtMost(1.03))]
    {
        let of = |storage| find(&fanout_name(1000, storage), ours, name);
        let ratio = of(Storage::Disk).zip(of(Storage::Memory)).map(|(on, off)| on / off);
        goals.push((format!("QoS 0 beside a store: {name}, on ÷ off"), ratio, bound));
    }
    let restart = restart_name(10_000, 100);
    for (name, bound) in [
        ("seconds_to_accept", Bound::AtMost(10.0)),
        ("rss_bytes_per_queued", Bound::AtMost(100.0)),
        ("complete", Bound::AtLeast(1.0)),
    ] {
        goals.push((format!("{restart}: {name}"), find(&restart, ours, name), bound));
    }
    let measured = goals.into_iter().filter(|(_, value, _)| value.is_some());
    measured.map(|(text, value, bound)| Goal { text, value, bound }).collect()
}

/// What a queue promises, stored or not.
fn queue_goals(medians: &[Row]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for row in medians.iter().filter(|row| row.subject == "tidegate/stomp") {
        for storage in [Storage::Memory, Storage::Disk] {
            let is = |what| row.scenario == queue_name(storage, what);
            if is(queue::SATURATION) || is(queue::FIXED) {
                let text = format!("{}: spread over the consumers", row.scenario);
                goals.push(Goal { text, value: row.figure("spread"), bound: Bound::AtMost(0.1) });
            }
            if is(queue::DYING) {
                let text = format!("{}: lost", row.scenario);
                goals.push(Goal { text, value: row.figure("lost"), bound: Bound::AtMost(0.0) });
            }
        }
    }
    goals
}

/// The goals as lines.
#[must_use]
pub fn goal_lines(goals: &[Goal]) -> String {
    let line = |goal: &Goal| {
        let value = goal.value.unwrap_or(f64::NAN);
        let (met, bound) = match goal.bound {
            Bound::AtLeast(least) => (value >= least, format!("at least {}", rounded(least))),
            Bound::AtMost(most) => (value <= most, format!("at most {}", rounded(most))),
        };
        format!(
            "{:<7} {:<72} {:>12}   {bound}\n",
            if met { "met" } else { "MISSED" },
            goal.text,
            rounded(value)
        )
    };
    goals.iter().map(line).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

/// Enough digits to compare, few enough to read.
fn rounded(value: f64) -> f64 {
    if value.abs() < 100.0 { (value * 1000.0).round() / 1000.0 } else { value.round() }
}

//! `load`: starts brokers, loads them over real sockets on the loopback, prints JSON lines, a table and the goals.
//! Opens nothing beyond the loopback; ends only the brokers it started.
#![expect(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tidegate_benches::acknowledged::{acked, fairness};
use tidegate_benches::child::{Program, Storage, has_mosquitto, raise_open_files};
use tidegate_benches::durable::{fanout_beside_a_store, group_commit, restart};
use tidegate_benches::queue::queue;
use tidegate_benches::report::{Row, goal_lines, goals, medians, table};
use tidegate_benches::rig::{Setting, Subject};
use tidegate_benches::scenario::{deflate, fanin, fanout, idle, pairs, stalled, wildcards};
use tidegate_benches::stored::{retained, sessions};
use tidegate_benches::wire::Protocol;
use tidegate_protocol::publication::QoS;

/// Measures a broker over real sockets beside mosquitto.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; `all` is the list "Figures to reach", `mqtt` is QoS 1, retained and sessions, `everything`
    /// is both with fan-in, pairs, stored and queue. `beside` is the part of `stored` with QoS 0.
    #[arg(default_value = "all")]
    scenarios: Vec<Scenario>,
    /// Which brokers, in the same run.
    #[arg(long, default_value = "both")]
    broker: Brokers,
    /// Tidegate's binary.
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate_bin: PathBuf,
    /// How often; the table shows medians. Brokers and protocols take turns within a run.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds measured at each pace.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only these protocols.
    #[arg(long, value_delimiter = ',')]
    protocols: Vec<Named>,
    /// Subscribers of `fanout`, `deflate`, `acked`, publishers of `fanin`, `fairness`, `pairs`.
    #[arg(long, value_delimiter = ',')]
    n: Vec<usize>,
    /// Bytes of payload of `fanout`, `fanin` and `pairs`.
    #[arg(long, value_delimiter = ',', default_value = "64")]
    size: Vec<usize>,
    /// Connections of `idle`, sessions of `sessions` and `stored`.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Where the brokers of `stored` and `queue` have their stores: on the disk in question, not in memory.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// Messages that wait for each session of `stored` when the broker starts again.
    #[arg(long, default_value_t = 100)]
    queued: usize,
    /// Topics of `retained`.
    #[arg(long, default_value_t = 100_000)]
    topics: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    All,
    Mqtt,
    Everything,
    Fanout,
    Deflate,
    Fanin,
    Pairs,
    Idle,
    Stalled,
    Wildcards,
    Acked,
    Fairness,
    Retained,
    Sessions,
    Stored,
    Beside,
    Queue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Brokers {
    Tidegate,
    Mosquitto,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Named {
    Raw,
    Mqtt,
    Stomp,
}

type Step<'a> = Box<dyn Fn() -> io::Result<Vec<Row>> + 'a>;
type Plan<'a> = Vec<(String, Step<'a>)>;

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let start = Instant::now();
    println!("# open files: at most {}", raise_open_files());
    if arguments.broker != Brokers::Tidegate && !has_mosquitto() {
        println!("# mosquitto is not installed (apt-get install mosquitto): no comparison");
        arguments.broker = Brokers::Tidegate;
    }
    // The brokers run in folders of their own.
    arguments.tidegate_bin = arguments.tidegate_bin.canonicalize().unwrap_or(arguments.tidegate_bin);
    let setting = Setting {
        tidegate: arguments.tidegate_bin.clone(),
        warm_up: Duration::from_millis(500),
        measured: Duration::from_secs_f64(arguments.seconds),
        idle_connections: arguments.connections,
        directory: arguments.directory.canonicalize().unwrap_or_else(|_| std::env::temp_dir()),
    };
    let mut rows = Vec::new();
    let mut failed = 0;
    for run in 0..arguments.runs.max(1) {
        for (name, step) in plan(&arguments, &setting, run) {
            match step() {
                Ok(measured) => {
                    measured.iter().for_each(|row| println!("{}", row.json("run")));
                    rows.extend(measured);
                }
                Err(error) => {
                    failed += 1;
                    println!("# {name}: FAILED: {error}");
                }
            }
        }
    }
    let medians = medians(&rows);
    medians.iter().for_each(|row| println!("{}", row.json("median")));
    println!("\n{}", table(&medians));
    let goals = goals(&medians);
    if !goals.is_empty() {
        println!("{}", goal_lines(&goals));
    }
    println!("# {} s, {failed} measurements failed", start.elapsed().as_secs());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The steps of one run: for each scenario the subjects take turns.
fn plan<'a>(arguments: &Arguments, setting: &'a Setting, run: usize) -> Plan<'a> {
    let (mut plan, mut of_mqtt): (Plan<'a>, Plan<'a>) = (Vec::new(), Vec::new());
    let wants = |scenario| arguments.names(&[scenario, Scenario::All, Scenario::Everything]);
    let wants_extra = |scenario| arguments.names(&[scenario, Scenario::Everything]);
    let n = |default: &[usize]| if arguments.n.is_empty() { default.to_vec() } else { arguments.n.clone() };
    let mut add = |name: String, step: Step<'a>| plan.push((name, step));
    for subject in subjects(arguments) {
        let name = |what: String| format!("{what} {}/{}", subject.program.name(), subject.protocol.name());
        let ours = subject.program == Program::Tidegate;
        for &size in &arguments.size {
            if wants(Scenario::Fanout) {
                for n in n(&[100, 1000]) {
                    add(name(format!("fanout {n}")), Box::new(move || fanout(setting, subject, n, size)));
                }
            }
            if wants_extra(Scenario::Fanin) {
                for n in n(&[100]) {
                    add(name(format!("fanin {n}")), Box::new(move || fanin(setting, subject, n, size)));
                }
            }
            if wants_extra(Scenario::Pairs) {
                for n in n(&[200]) {
                    add(name(format!("pairs {n}")), Box::new(move || pairs(setting, subject, n, size)));
                }
            }
        }
        if wants(Scenario::Deflate) && ours {
            for n in n(&[1000]) {
                for on in [false, true] {
                    add(
                        name(format!("deflate {n} {on}")),
                        Box::new(move || deflate(setting, subject, n, on)),
                    );
                }
            }
        }
        let mqtt = subject.protocol == Protocol::Mqtt;
        if wants(Scenario::Wildcards)
            && (mqtt || !arguments.protocols.is_empty())
            && subject.protocol != Protocol::Raw
        {
            add(name("wildcards".to_owned()), Box::new(move || wildcards(setting, subject)));
        }
        // Memory and seconds of stalling do not vary like latencies: once is enough.
        if run == 0 && wants(Scenario::Stalled) && (mqtt || !arguments.protocols.is_empty()) {
            for with_one in [false, true] {
                add(
                    name(format!("stalled {with_one}")),
                    Box::new(move || stalled(setting, subject, with_one)),
                );
            }
        }
        if run == 0 && wants(Scenario::Idle) {
            add(name("idle".to_owned()), Box::new(move || idle(setting, subject)));
        }
        if wants_extra(Scenario::Queue) && subject.protocol != Protocol::Raw {
            // Shared subscriptions of sessions that end with their connections have nothing to store.
            let storages = [Storage::Memory, Storage::Disk];
            for storage in storages.into_iter().take(if mqtt { 1 } else { 2 }) {
                add(name(format!("queue {storage:?}")), Box::new(move || queue(setting, subject, storage)));
            }
        }
        if mqtt {
            of_mqtt.extend(plan_mqtt(arguments, setting, run, subject));
        }
    }
    plan.extend(of_mqtt);
    plan
}

/// What only MQTT has a word for.
fn plan_mqtt<'a>(arguments: &Arguments, setting: &'a Setting, run: usize, subject: Subject) -> Plan<'a> {
    let mut plan: Plan<'a> = Vec::new();
    let wants = |scenario| arguments.names(&[scenario, Scenario::Mqtt, Scenario::Everything]);
    let mut add =
        |name: &str, step: Step<'a>| plan.push((format!("{name} {}", subject.program.name()), step));
    let n = if arguments.n.is_empty() { vec![1000] } else { arguments.n.clone() };
    for n in n {
        if wants(Scenario::Acked) {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                add(&format!("acked {n} {qos:?}"), Box::new(move || acked(setting, subject, n, qos)));
            }
        }
        if wants(Scenario::Fairness) {
            add(&format!("fairness {n}"), Box::new(move || fairness(setting, subject, n)));
        }
    }
    if wants(Scenario::Retained) {
        let topics = arguments.topics;
        add("retained", Box::new(move || retained(setting, subject, topics)));
    }
    if run == 0 && wants(Scenario::Sessions) {
        add("sessions", Box::new(move || sessions(setting, subject)));
    }
    if subject.program == Program::Tidegate {
        let stored = arguments.names(&[Scenario::Stored, Scenario::Everything]);
        if stored {
            add("group commit", Box::new(move || group_commit(setting, 100)));
        }
        if stored || arguments.names(&[Scenario::Beside]) {
            add("fanout beside a store", Box::new(move || fanout_beside_a_store(setting, 1000)));
        }
        if stored && run == 0 {
            let queued = arguments.queued;
            add("restart", Box::new(move || restart(setting, queued)));
        }
    }
    plan
}

impl Arguments {
    /// Whether one of `scenarios` was asked for.
    fn names(&self, scenarios: &[Scenario]) -> bool {
        self.scenarios.iter().any(|named| scenarios.contains(named))
    }
}

fn subjects(arguments: &Arguments) -> Vec<Subject> {
    let named = |protocol| match protocol {
        Named::Raw => Protocol::Raw,
        Named::Mqtt => Protocol::Mqtt,
        Named::Stomp => Protocol::Stomp,
    };
    let protocols: Vec<Protocol> = match arguments.protocols.as_slice() {
        [] => vec![Protocol::Mqtt, Protocol::Raw, Protocol::Stomp],
        chosen => chosen.iter().copied().map(named).collect(),
    };
    let mut subjects = Vec::new();
    if arguments.broker != Brokers::Mosquitto {
        subjects.extend(protocols.iter().map(|&protocol| Subject { program: Program::Tidegate, protocol }));
    }
    if arguments.broker != Brokers::Tidegate {
        subjects.push(Subject { program: Program::Mosquitto, protocol: Protocol::Mqtt });
    }
    subjects
}

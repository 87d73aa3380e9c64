//! The tables as the README shows them. It is held against the data, and written anew on demand.

use std::fmt::Write as _;
use std::path::Path;

use crate::delivery::WAYS;
use crate::message::Got;
use crate::support::client::Protocol::{
    self, Json, MessagePack, Mqtt5, Mqtt31, Mqtt311, Payload, Stomp10, Stomp11, Stomp12,
};
use crate::table::{Outcome, Row, rows};

const BEGIN: &str = "<!-- fidelity: generated from broker/tests/cross_protocol, see there -->\n";
const END: &str = "<!-- fidelity: end -->\n";

/// Subscribers that share a column.
const COLUMNS: [(&str, &[Protocol]); 6] = [
    ("MQTT 5", &[Mqtt5]),
    ("STOMP 1.2", &[Stomp12]),
    ("raw", &[Json, MessagePack]),
    ("MQTT 3.x", &[Mqtt31, Mqtt311]),
    ("STOMP 1.1, 1.0", &[Stomp11, Stomp10]),
    ("payload mode", &[Payload]),
];

#[test]
fn the_readme_shows_these_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the mark where the tables begin");
    let (shown, after) = rest.split_once(END).expect("the mark where the tables end");
    let expected = tables();
    if shown == expected {
        return;
    }
    if std::env::var_os("TIDEGATE_UPDATE_README").is_some() {
        std::fs::write(&path, [before, BEGIN, &expected, END, after].concat()).unwrap();
        return;
    }
    panic!("README.md differs from the tests; with TIDEGATE_UPDATE_README=1 it is written:\n\n{expected}");
}

fn tables() -> String {
    let mut out = String::from("\n| said | by | MQTT 5 gets");
    for (name, _) in &COLUMNS[1..] {
        let _ = write!(out, " | {name}");
    }
    out.push_str(" |\n| --- | ---");
    out.push_str(&" | ---".repeat(COLUMNS.len()));
    out.push_str(" |\n");
    for row in rows() {
        let _ = write!(out, "| {} | {}", said(&row), publishers(row.from));
        for (_, protocols) in COLUMNS {
            let _ = write!(out, " | {}", cell(&row, protocols));
        }
        out.push_str(" |\n");
    }
    out.push_str(
        "\n| published by | answered with | MQTT granted 0, 1, 2 | waits for a session that is away |\n",
    );
    out.push_str("| --- | --- | --- | --- |\n");
    for way in WAYS {
        let [zero, one, two] = way.granted.map(|qos| qos as u8);
        let waits = if way.waits { "yes" } else { "no" };
        let _ = writeln!(out, "| {} | {} | {zero}, {one}, {two} | {waits} |", way.what, way.answer);
    }
    out.push('\n');
    out
}

/// What it is about, and the example.
fn said(row: &Row) -> String {
    let example = row.aspect.of(&Got { message: (row.says)(), ..Got::default() });
    match (row.what, example.filter(|example| !example.is_empty())) {
        ("", example) => format!("… {}", code(&example.unwrap_or_default())),
        (what, Some(example)) => format!("{what} {}", code(&example)),
        (what, None) => what.into(),
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn publishers(from: &[Protocol]) -> String {
    let is_in = |protocols: &[Protocol]| protocols.iter().all(|protocol| from.contains(protocol));
    if is_in(&[Mqtt5, Stomp12, Json, MessagePack, Mqtt31, Mqtt311, Stomp11, Stomp10]) {
        return if is_in(&[Payload]) { "all".into() } else { "all but payload mode".into() };
    }
    let mut names = Vec::new();
    for (name, protocols) in [
        ("MQTT 5", &[Mqtt5][..]),
        ("STOMP", &[Stomp12, Stomp11, Stomp10]),
        ("raw", &[Json, MessagePack]),
        ("payload mode", &[Payload]),
    ] {
        if is_in(protocols) {
            names.push(name);
        } else if name == "STOMP" && is_in(&[Stomp12, Stomp11]) {
            names.push("STOMP 1.2, 1.1");
        }
    }
    names.join(", ")
}

/// One text where all of them get the same.
fn cell(row: &Row, protocols: &[Protocol]) -> String {
    if row.deletes {
        return "gone".into();
    }
    let mut texts: Vec<String> = protocols.iter().map(|protocol| outcome(row.to.of(*protocol))).collect();
    texts.dedup();
    texts.join(", ")
}

fn outcome(outcome: Outcome) -> String {
    match outcome {
        Outcome::Kept => "kept".into(),
        Outcome::Becomes(other) => code(other),
        Outcome::Dropped => "–".into(),
        Outcome::Withheld => "not delivered".into(),
    }
}

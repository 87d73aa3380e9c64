//! The import rules of DESIGN §3 for this package: 1 to 4 and 7.

#![expect(clippy::panic, reason = "a test helper may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Words that a file must not contain outside comments and its test module, by the start of its path under `src`.
const RULES: &[(&str, &[&str])] = &[
    // 1 and 7: no I/O, no clock.
    (
        "",
        &[
            "tokio",
            "dashmap",
            "config::",
            "std::net",
            "std::fs",
            "Instant::now",
            "SystemTime",
            "thread::sleep",
            "tracing",
        ],
    ),
    // 2: what everyone may import imports nothing of ours but the plain data of prepared frames.
    ("topic.rs", &["crate::"]),
    (
        "publication.rs",
        &["crate::session", "crate::raw", "crate::mqtt", "crate::stomp", "crate::subprotocol"],
    ),
    ("selector", &["crate::session", "crate::raw", "crate::mqtt", "crate::stomp", "crate::subprotocol"]),
    // 3: the WebSocket layer knows no topic; subprotocols do not know each other; codecs do not know sessions.
    ("websocket/", &["crate::topic", "crate::publication", "crate::session", "raw::", "mqtt::", "stomp::"]),
    ("raw/", &["mqtt::", "stomp::", "subprotocol::"]),
    ("mqtt/", &["raw::", "stomp::", "subprotocol::"]),
    ("stomp/", &["raw::", "mqtt::", "subprotocol::"]),
    ("raw/query.rs", CODEC),
    ("raw/document.rs", CODEC),
    ("raw/fields.rs", CODEC),
    ("raw/operation.rs", CODEC),
    ("raw/answer.rs", CODEC),
    ("raw/form.rs", CODEC),
    ("mqtt/codec", CODEC),
    ("mqtt/packet", CODEC),
    ("mqtt/properties", CODEC),
    ("stomp/codec", CODEC),
    ("stomp/frame", CODEC),
    // 4: `subprotocol.rs` alone names all three.
    ("session.rs", &["raw::", "mqtt::", "stomp::"]),
    ("session/", &["raw::", "mqtt::", "stomp::"]),
    ("reader.rs", &["crate::"]),
];

/// Where sessions are: a codec names none of them.
const CODEC: &[&str] = &[
    "super::session",
    "super::payload",
    "super::envelope",
    "dyn Session",
    "impl Session",
    " Session,",
    "{Session",
];

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap_or_else(|error| panic!("{error}")).path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn violations(path: &str, text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let words = RULES.iter().filter(|(start, _)| path.starts_with(start)).flat_map(|(_, words)| *words);
    let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    words
        .flat_map(|word| lines.iter().filter(move |line| line.contains(word)).map(move |line| (word, line)))
        .map(|(word, line)| format!("{path} names {word}: {}", line.trim()))
        .collect()
}

#[test]
fn nobody_imports_what_is_not_theirs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() >= 10, "the sources are where this test looks for them");
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).expect("below the root").to_string_lossy().replace('\\', "/");
        found.extend(violations(&path, &fs::read_to_string(&file).expect("readable")));
    }
    assert!(found.is_empty(), "DESIGN §3:\n{}", found.join("\n"));
}

#[test]
fn a_violation_is_seen() {
    assert_eq!(violations("raw/envelope.rs", "use crate::mqtt::codec;\n// mqtt::\n").len(), 1);
    assert_eq!(violations("raw/document.rs", "use super::envelope::Envelope;\n").len(), 1);
    assert_eq!(violations("topic.rs", "use crate::session::Session;\n").len(), 1);
    assert_eq!(violations("mqtt/session.rs", "let now = Instant::now();\n").len(), 1);
    assert_eq!(violations("mqtt/session.rs", "#[cfg(test)]\nmod tests { Instant::now() }\n").len(), 0);
}

//! Who may import whom in the broker: DESIGN §3, rules 5 to 7, as data.

use std::path::{Path, PathBuf};

/// One rule: no file under `rooms` (but those under `doors`) says one of `words`.
struct Rule {
    name: &'static str,
    rooms: &'static [&'static str],
    doors: &'static [&'static str],
    words: &'static [&'static str],
}

/// The core: it knows no frame, no packet and no socket. Paths are prefixes below `src/`.
const CORE: &[&str] = &[
    "broker.rs",
    "broker/",
    "client.rs",
    "deadlines.rs",
    "holdings.rs",
    "in_flight.rs",
    "mailbox.rs",
    "router/",
    "outbox/queue.rs",
    "outbox/queue/",
    "retained.rs",
    "history.rs",
    "registry.rs",
    "topic_rules.rs",
    "sys.rs",
    "auth/",
    "store/",
];

const EVERYWHERE: &[&str] = &[""];

/// Where tasks begin and end; what they call takes `now` as an argument.
const EDGES: &[&str] =
    &["main.rs", "assembly.rs", "assembly/", "connection.rs", "connection/", "server/", "admin/", "store/"];

const RULES: &[Rule] = &[
    Rule {
        name: "5: the core sees no socket, no HTTP and no wire type",
        rooms: CORE,
        doors: &[],
        words: &["tokio::net", "std::net", "TcpStream", "tungstenite", "hyper", "axum", "http::", "socket2"],
    },
    Rule {
        name: "5: the core knows nothing of the rooms above it",
        rooms: CORE,
        doors: &[],
        words: &["crate::connection", "crate::server", "crate::admin", "crate::outbox::writer"],
    },
    Rule {
        name: "the router and the retained know no other room",
        rooms: &["router/", "retained.rs"],
        doors: &[],
        words: &["crate::broker", "crate::outbox", "crate::registry", "crate::metrics", "tokio::"],
    },
    Rule {
        name: "6: only a connection drives a session, which the upgrade opens for it",
        rooms: EVERYWHERE,
        doors: &["connection.rs", "connection/", "server/upgrade.rs"],
        words: &["dyn Session", "session::Session"],
    },
    Rule {
        name: "6: only the edges know of the subprotocols, and the outbox under which family it counts",
        rooms: EVERYWHERE,
        doors: &[
            "connection.rs",
            "connection/",
            "server/",
            "assembly.rs",
            "config/",
            "metrics.rs",
            "metrics/",
            "outbox/mod.rs",
        ],
        words: &["tidegate_protocol::subprotocol"],
    },
    Rule {
        name: "6: config is plain data: it sees no other room",
        rooms: &["config/", "config.rs"],
        doors: &[],
        words: &["crate::broker", "crate::server", "crate::connection", "crate::outbox", "crate::router"],
    },
    Rule {
        name: "6: main and the assembly hand each part its own small struct; logging starts before there are parts",
        rooms: EVERYWHERE,
        doors: &["config/", "config.rs", "main.rs", "assembly.rs", "assembly/", "args.rs", "logging.rs"],
        words: &["crate::config", "tidegate::config"],
    },
    Rule {
        name: "7: only the edges read the clock",
        rooms: EVERYWHERE,
        doors: EDGES,
        words: &["Instant::now", "SystemTime::now", "tokio::time"],
    },
    Rule {
        name: "7: nobody reads a clock that a test cannot stop",
        rooms: EVERYWHERE,
        doors: &[],
        words: &["std::time::Instant::now"],
    },
];

/// Rule 5: what the core may see of `tidegate_protocol`.
const CORE_PROTOCOL: &[&str] = &["topic", "publication", "session"];

#[test]
fn every_file_keeps_to_its_room() {
    let files = sources();
    assert!(files.iter().any(|(path, _)| path == "router/mod.rs"), "the sources were not found");
    let broken: Vec<String> = files.iter().flat_map(|(path, text)| check(path, text)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_rule_is_noticed_when_it_is_broken() {
    for rule in RULES {
        for word in rule.words {
            let room = rule.rooms[0];
            let path = if room.is_empty() { "elsewhere.rs".to_owned() } else { format!("{room}x.rs") };
            let text = format!("use a::b;\nuse {word};\n");
            assert!(
                check(&path, &text).iter().any(|fault| fault.contains(rule.name)),
                "{} {word}",
                rule.name
            );
            assert!(check(&path, &format!("// {word}\n#[cfg(test)]\nuse {word};")).is_empty(), "{word}");
            for door in rule.doors {
                assert!(!check(door, &text).iter().any(|fault| fault.contains(rule.name)), "{door} {word}");
            }
        }
    }
    for (text, allowed) in [
        ("use tidegate_protocol::topic::Topic;", true),
        ("use tidegate_protocol::{publication::QoS, session::{Reply, Request}};", true),
        ("use tidegate_protocol::{\n    topic::Topic,\n    websocket::prepared::Prepared,\n};", false),
        ("let x = tidegate_protocol::mqtt::open();", false),
        ("use tidegate_protocol::*;", false),
    ] {
        assert_eq!(check("broker.rs", text).is_empty(), allowed, "{text}");
        assert!(check("outbox/writer.rs", text).is_empty(), "{text}");
    }
}

fn check(path: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let is_in = |rooms: &[&str]| rooms.iter().any(|room| path.starts_with(room));
    let mut broken: Vec<String> = RULES
        .iter()
        .filter(|rule| is_in(rule.rooms) && !is_in(rule.doors))
        .flat_map(|rule| rule.words.iter().map(move |word| (rule.name, *word)))
        .filter(|(_, word)| code.contains(word))
        .map(|(name, word)| format!("{path} says `{word}` against {name}"))
        .collect();
    if is_in(CORE) {
        let seen = protocol_modules(&code).into_iter();
        let foreign = seen.filter(|module| !CORE_PROTOCOL.contains(&module.as_str()));
        broken.extend(foreign.map(|module| format!("{path} sees `{module}` of the protocol against 5")));
    }
    broken
}

/// The first names behind each `tidegate_protocol::`, those of a group in braces one by one.
fn protocol_modules(code: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
    let mut modules = Vec::new();
    for rest in code.split("tidegate_protocol::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            modules.push(name(rest));
            continue;
        };
        let mut depth = 1;
        let mut item = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => modules.push(name(&std::mem::take(&mut item))),
                _ => item.push(c),
            }
            if depth == 0 {
                break;
            }
        }
        if !item.trim().is_empty() {
            modules.push(name(&item));
        }
    }
    modules
}

/// Without comments and without the tests at the end of a file.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Path below `src/` and text of each source file. A room's `tests.rs` is no part of it.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in list(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_name().is_some_and(|name| name != "tests.rs")
            {
                let below = path.strip_prefix(&root).map(|path| path.to_string_lossy().replace('\\', "/"));
                files.push((below.unwrap_or_default(), std::fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    files
}

fn list(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

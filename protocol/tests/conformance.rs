//! Keeps `src/mqtt/conformance.md` true: what it names exists, what it says is obeyed is tagged there, and no tag is
//! missing in it. Reads sources as text; runs nothing of them.

#![expect(clippy::panic, reason = "a test helper may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const TABLE: &str = include_str!("../src/mqtt/conformance.md");

/// Statements in Appendix B of each version.
const STATEMENTS_OF_5: usize = 251;
const STATEMENTS_OF_3_1_1: usize = 141;

/// A statement by version and number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Statement<'a> {
    Of5(&'a str),
    Of311(&'a str),
}

struct Row<'a> {
    statement: Statement<'a>,
    says: &'a str,
    /// The third cell: `client`, `–`, files, or statements of MQTT 5.
    place: &'a str,
    /// The fourth cell: `–`, `as there`, or tests.
    shown: &'a str,
}

fn rows(table: &str) -> Vec<Row<'_>> {
    let mut of_3_1_1 = false;
    let mut rows = Vec::new();
    for line in table.lines() {
        of_3_1_1 |= line == "## MQTT 3.1.1";
        let Some(line) = line.strip_prefix("| [") else { continue };
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [id, says, place, shown, ""] = cells[..] else { panic!("four cells: {line}") };
        let id = id.strip_suffix(']').unwrap_or_default();
        let statement = if of_3_1_1 { Statement::Of311(id) } else { Statement::Of5(id) };
        rows.push(Row { statement, says, place, shown });
    }
    rows
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// `MQTT-` section `-` number.
fn is_id(id: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = id.strip_prefix("MQTT-").and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(section, number)| {
        section.split('.').count() == 3 && section.split('.').all(is_number) && is_number(number)
    })
}

/// The tags of a source; a comment may break between `3.1.1` and the number.
fn tags(source: &str) -> BTreeSet<(bool, String)> {
    let is_comment = |text: &&str| !matches!(*text, "//" | "///" | "//!");
    let words: Vec<&str> = source.split_whitespace().filter(is_comment).collect();
    let text = words.join(" ");
    let mut tags = BTreeSet::new();
    let mut parts = text.split("[MQTT-");
    let mut before = parts.next().unwrap_or_default();
    for part in parts {
        if let Some((number, _)) = part.split_once(']') {
            tags.insert((before.ends_with("3.1.1 "), format!("MQTT-{number}")));
        }
        before = part;
    }
    tags
}

/// Whether a file has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let mut lines = source.lines().map(str::trim_start);
    let mut is_test = false;
    lines.any(|line| {
        let declares = line.trim_start_matches("async ").starts_with(&head);
        if declares && is_test {
            return true;
        }
        is_test = match line {
            line if line.starts_with("#[test]") || line.starts_with("#[tokio::test") => true,
            line if line.starts_with("#[") || line.starts_with("//") => is_test,
            _ => false,
        };
        false
    })
}

/// Everything that is wrong with a table, given what is on disk: files that may be tagged, and any file at all.
fn problems(
    table: &str,
    sources: &BTreeMap<String, String>,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let rows = rows(table);
    let known: BTreeSet<Statement<'_>> = rows.iter().map(|row| row.statement).collect();
    if known.len() != rows.len() {
        wrong.push("a statement stands twice".into());
    }
    for Row { statement, says, place, shown } in &rows {
        let (Statement::Of5(id) | Statement::Of311(id)) = *statement;
        let is_of_3_1_1 = matches!(statement, Statement::Of311(_));
        if !is_id(id) || says.is_empty() {
            wrong.push(format!("{statement:?}: no statement"));
        }
        let is_elsewhere = place.contains("`MQTT-");
        match *place {
            "client" | "–" => {}
            _ if quoted(place).next().is_none() => wrong.push(format!("{statement:?}: obeyed nowhere")),
            _ => {}
        }
        for place in quoted(place) {
            if place.starts_with("MQTT-") {
                if !is_of_3_1_1 || !known.contains(&Statement::Of5(place)) {
                    wrong.push(format!("{statement:?}: there is no {place}"));
                }
                continue;
            }
            match sources.get(place) {
                None => wrong.push(format!("{statement:?}: there is no {place}")),
                Some(source) if !tags(source).contains(&(is_of_3_1_1, id.to_owned())) => {
                    wrong.push(format!("{statement:?}: not tagged in {place}"));
                }
                Some(_) => {}
            }
        }
        let is_shown = match *shown {
            "–" => matches!(*place, "client" | "–"),
            "as there" => is_elsewhere,
            _ => quoted(shown).next().is_some(),
        };
        if !is_shown {
            wrong.push(format!("{statement:?}: shown by nothing"));
        }
        for test in quoted(shown) {
            let (file, name) = test.split_once("::").unwrap_or((test, ""));
            if !read(file).is_some_and(|source| has_test(&source, name)) {
                wrong.push(format!("{statement:?}: there is no {test}"));
            }
        }
    }
    for (file, source) in sources {
        for (is_of_3_1_1, id) in tags(source) {
            let statement = if is_of_3_1_1 { Statement::Of311(&id) } else { Statement::Of5(&id) };
            if !known.contains(&statement) {
                wrong.push(format!("{file} is tagged with {statement:?}, which is not in the table"));
            }
        }
    }
    wrong
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn collect(folder: &Path, sources: &mut BTreeMap<String, String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.unwrap_or_else(|error| panic!("{error}")).path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            sources.insert(name, text);
        }
    }
}

#[test]
fn the_table_agrees_with_the_sources_and_the_tests() {
    let mut sources = BTreeMap::new();
    for folder in ["protocol/src", "broker/src", "protocol/tests", "broker/tests"] {
        collect(&root().join(folder), &mut sources);
    }
    // The untruths below are no statements.
    sources.remove("protocol/tests/conformance.rs");
    let wrong = problems(TABLE, &sources, |file| fs::read_to_string(root().join(file)).ok());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_every_statement_of_both_versions() {
    let (of_5, of_3_1_1): (Vec<_>, Vec<_>) =
        rows(TABLE).into_iter().partition(|row| matches!(row.statement, Statement::Of5(_)));
    assert_eq!((of_5.len(), of_3_1_1.len()), (STATEMENTS_OF_5, STATEMENTS_OF_3_1_1));
}

#[test]
fn each_untruth_is_noticed() {
    let sources: BTreeMap<String, String> =
        [("a.rs".into(), "/// 3.1.1\n    /// [MQTT-2.0.0-2]\nlet x; // [MQTT-1.0.0-1]".into())].into();
    let tests = "#[test]\nfn shows() {}\nfn helps() {}\n#[tokio::test]\n/// why\nasync fn shows_too() {}";
    let wrong = |of_5: &str, of_3_1_1: &str| {
        let table = format!("{of_5}\n## MQTT 3.1.1\n{of_3_1_1}");
        problems(&table, &sources, |file| (file == "t.rs").then(|| tests.to_owned())).len()
    };
    let five = "| [MQTT-1.0.0-1] | x | `a.rs` | `t.rs::shows`<br>`t.rs::shows_too` |";
    let three = "| [MQTT-2.0.0-2] | x | `a.rs` | `t.rs::shows` |";
    assert_eq!(wrong(five, three), 0);
    let as_five = "| [MQTT-9.0.0-1] | x | `MQTT-1.0.0-1` | as there |\n";
    assert_eq!(wrong(five, &format!("{as_five}{three}")), 0);
    for (of_5, of_3_1_1) in [
        (five, ""),
        (&five.replace("1.0.0-1", "1.0-1"), three),
        (&format!("{five}\n{five}"), three),
        (&five.replace("| x |", "| |"), three),
        (&five.replace("a.rs", "b.rs"), three),
        (&five.replace("::shows`", "::helps`"), three),
        (&five.replace("::shows`", "::show`"), three),
        (&five.replace("t.rs::shows`", "u.rs::shows`"), three),
        (&five.replace("`a.rs`", "somewhere"), three),
        (&format!("{five}\n| [MQTT-1.0.0-2] | x | `a.rs` | `t.rs::shows` |"), three),
        (&format!("{five}\n| [MQTT-2.0.0-2] | x | `a.rs` | `t.rs::shows` |"), three),
        (five, &format!("{}{three}", as_five.replace("1.0.0-1", "1.0.0-3"))),
        (five, &three.replace("`t.rs::shows`", "–")),
        (five, &three.replace("`t.rs::shows`", "as there")),
    ] {
        assert_ne!(wrong(of_5, of_3_1_1), 0, "{of_5}\n{of_3_1_1}");
    }
}

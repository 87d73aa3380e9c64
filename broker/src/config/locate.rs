//! Where a key stands in the file, which keys are unknown, and which known one was probably meant.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The way to a value, as in `listener[0].bind`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyPath(pub(super) Vec<Step>);

/// A key that the built-in file does not have.
#[derive(Debug)]
pub(super) struct UnknownKey {
    pub(super) path: KeyPath,
    /// Of the key, not the value.
    pub(super) span: Range<usize>,
    pub(super) help: String,
}

impl KeyPath {
    /// Reads `listener[0].bind`; written by ourselves, so what is no index is a key.
    pub(super) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let mut pieces = part.split(['[', ']']).filter(|piece| !piece.is_empty());
            steps.extend(pieces.next().map(|key| Step::Key(key.to_owned())));
            steps.extend(pieces.filter_map(|piece| piece.parse().ok()).map(Step::Index));
        }
        Self(steps)
    }

    pub(super) fn from_serde(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let steps = path.iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Self(steps.collect())
    }

    pub(super) fn join(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl std::fmt::Display for KeyPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The bytes of the value at `path`, or of the innermost value around it; `None` when not even its section is there.
pub(super) fn locate(file: &DeTable<'_>, path: &KeyPath) -> Option<Range<usize>> {
    let mut steps = path.0.iter();
    let Some(Step::Key(first)) = steps.next() else { return None };
    let mut here = file.get(first.as_str())?;
    for step in steps {
        here = match (here.get_ref(), step) {
            (DeValue::Table(table), Step::Key(key)) => table.get(key.as_str())?,
            (DeValue::Array(array), Step::Index(index)) => match array.get(*index) {
                Some(next) => next,
                None => break,
            },
            _ => break,
        };
    }
    Some(here.span())
}

/// Every key of `file` that `known` does not have. `known` is the built-in file, so it is the list of keys.
pub(super) fn unknown_keys(file: &DeTable<'_>, known: &toml::Table) -> Vec<UnknownKey> {
    let mut found = Vec::new();
    walk(file, known, known, &KeyPath::default(), &mut found);
    found.sort_by_key(|unknown| unknown.span.start);
    found
}

fn walk(
    file: &DeTable<'_>,
    known: &toml::Table,
    root: &toml::Table,
    path: &KeyPath,
    found: &mut Vec<UnknownKey>,
) {
    for (key, value) in file {
        let name = key.get_ref().as_ref();
        let here = path.join(Step::Key(name.to_owned()));
        match (known.get(name), value.get_ref()) {
            (None, _) => {
                found.push(UnknownKey { help: suggestion(name, known, root), path: here, span: key.span() });
            }
            (Some(toml::Value::Table(known)), DeValue::Table(table)) => {
                walk(table, known, root, &here, found)
            }
            (Some(toml::Value::Array(list)), DeValue::Array(array)) => {
                let Some(toml::Value::Table(known)) = list.first() else { continue };
                for (index, item) in array.iter().enumerate() {
                    let DeValue::Table(table) = item.get_ref() else { continue };
                    walk(table, known, root, &here.join(Step::Index(index)), found);
                }
            }
            // A wrong type is told when the values are read.
            (Some(_), _) => {}
        }
    }
}

/// What was probably meant by `name` in the section `known`: a near name here, the same name elsewhere, or the list.
pub(super) fn suggestion(name: &str, known: &toml::Table, root: &toml::Table) -> String {
    let nearest = known.keys().map(|key| (distance(name, key), key)).min();
    if let Some((edits, key)) = nearest
        && edits <= 1 + name.chars().count() / 4
    {
        return format!("did you mean `{key}`?");
    }
    let mut elsewhere = Vec::new();
    find_name(name, root, "", &mut elsewhere);
    if let Some(path) = elsewhere.first() {
        return format!("did you mean `{path}`?");
    }
    let part_of =
        known.keys().find(|key| key.contains(name) || (key.len() > 3 && name.contains(key.as_str())));
    if let Some(key) = part_of {
        return format!("did you mean `{key}`?");
    }
    let keys = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("known here: {keys}")
}

fn find_name(name: &str, table: &toml::Table, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if key == name {
            found.push(path.clone());
        }
        match value {
            toml::Value::Table(inner) => find_name(name, inner, &path, found),
            toml::Value::Array(list) => {
                if let Some(toml::Value::Table(inner)) = list.first() {
                    find_name(name, inner, &format!("[[{path}]]"), found);
                }
            }
            _ => {}
        }
    }
}

/// Insertions, deletions and substitutions between two names (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(other.chars()) {
            let substituted = diagonal + usize::from(a != b);
            diagonal = *cell;
            left = substituted.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (one, other, edits) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("max_byte", "max_bytes", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(one, other), edits, "{one} {other}");
        }
    }

    #[test]
    fn a_path_reads_back() {
        for text in ["listener[0].bind", "websocket.deflate.level", "stomp.heart_beat[1]"] {
            assert_eq!(KeyPath::parse(text).to_string(), text);
        }
    }
}

//! What is wrong with a configuration, and where: file, line, column and the line itself, or the variable.

use std::fmt;
use std::ops::Range;
use std::path::Path;

/// Everything that is wrong; at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// The key's path, as in `queue.max_bytes` or `listener[0].bind`; empty when it is about no key.
    pub key: String,
    /// What is wrong, for an operator.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The configuration as a whole, or the file that cannot be read.
    Whole,
    /// A line of a file.
    Line {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// The line's text.
        text: String,
        /// Characters that are marked.
        width: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// The compiled-in file; only when another setting does not go with it.
    BuiltIn,
}

impl Problem {
    /// About no key.
    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self { place: Place::Whole, key: String::new(), message: message.into(), help: None }
    }
}

impl Place {
    /// The line and column of a range of bytes.
    pub(super) fn in_text(file: &Path, text: &str, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let end = text.floor_char_boundary(span.end.min(text.len())).max(start);
        let (before, behind) = text.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_text = text.split_at(line_start).1.lines().next().unwrap_or_default();
        let marked = behind.split_at(end - start).0.lines().next().unwrap_or_default();
        Self::Line {
            file: file.display().to_string(),
            line: before.matches('\n').count() + 1,
            column: before.split_at(line_start).1.chars().count() + 1,
            text: line_text.to_owned(),
            width: marked.chars().count().max(1),
        }
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Whole => {}
            Place::Line { file, line, column, .. } => write!(f, "{file}:{line}:{column}: ")?,
            Place::Variable(name) => write!(f, "environment variable {name}: ")?,
            Place::BuiltIn => write!(f, "built-in default: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        if let Place::Line { line, column, text, width, .. } = &self.place {
            let number = line.to_string();
            let blank = " ".repeat(number.len());
            // Tabs keep their width, so that the mark stands below what it marks.
            let indent: String =
                text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n  {number} | {text}\n  {blank} | {indent}{}", "^".repeat(*width))?;
        }
        Ok(())
    }
}

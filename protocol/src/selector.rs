//! Selectors: which messages of a subscription its client wants, in the SQL-92 subset of JMS. Knows no protocol.
//! Spec: Jakarta Messaging 3.1 §3.8.1.
//!
//! Where the standard leaves room, or speaks of typed properties that nobody has here:
//!
//! - An identifier names a user property (the first of that name counts) or one of `destination`, `reply-to` (both
//!   canonical topics), `correlation-id`, `content-type`, for which JMS says `JMSDestination`, `JMSReplyTo`,
//!   `JMSCorrelationID`. What a message does not have is NULL; so are correlation data that are not UTF-8.
//! - A name that is no Java identifier is quoted as in SQL: `"content-type" = 'text/plain'`. Unquoted, `a-b` is a
//!   subtraction.
//! - The values of headers are text without a type, so the other side of an operator gives them one. Beside a number, in
//!   arithmetic, in an order and in BETWEEN, the text counts as a number if it is one in decimal digits; beside TRUE and
//!   FALSE, and as a condition, as a truth value if it is `true` or `false` in any case. Otherwise the result is unknown.
//!   Two headers are equal as numbers if both are numbers, else as texts.
//! - Literals have their type for good: `'5' = 5` is unknown, and so is all that compares unlike types. A string literal in
//!   an order or in arithmetic is refused at once, since it could never match.
//! - Exact numbers have 64 bits and divide as in Java, towards zero. A division by zero, an overflow and what is not finite
//!   are unknown.
//! - An empty text is no condition and refused; where it stands for none at all, its reader knows.

mod lexer;
mod like;
mod parser;
mod program;
mod value;

use std::fmt;

use self::parser::Parser;
use self::program::Program;
use crate::publication::Publication;

/// A condition on the headers of a message. Its cost is bounded by its text: memory by some 60 bytes a character, the time of
/// an evaluation by its length times that of the headers.
#[derive(Clone)]
pub struct Selector {
    text: Box<str>,
    program: Program,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at character {position}")]
pub struct SelectorError {
    /// What is wrong.
    pub reason: &'static str,
    /// Where, counted from 1.
    pub position: usize,
}

impl Selector {
    /// How deep parentheses, NOT and signs may nest.
    pub const NESTING_MAX: usize = 64;

    /// Reads a selector. The length is the caller's to bound.
    ///
    /// # Errors
    ///
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self { text: text.into(), program: Parser::new(text)?.into_program()? })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the message is wanted: unknown counts as no. Allocates nothing unless the selector nests deep.
    #[must_use]
    pub fn matches(&self, publication: &Publication) -> bool {
        self.program.run(publication) == Some(true)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({:?})", self.text)
    }
}

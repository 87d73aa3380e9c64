//! Topic names, topic filters and share names: parsing, levels, and the definition of matching.
//!
//! Everything that routes is held against [`TopicFilter::matches`]. Spec: OASIS MQTT 5.0 §4.7 (the same in 3.1.1)
//! and §4.8.2.

use std::fmt;
use std::sync::Arc;

/// The name that a message is published to: UTF-8, not empty, no wildcard, no NUL. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// What a subscription asks for: a topic whose levels may be `+` (one level) or, last, `#` (any number).
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

/// The name of a group whose members share the messages of one filter. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareName(Arc<str>);

/// How long and how deep a topic or filter may be. Bounds the memory and time of one entry in the topic tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// Bytes of UTF-8; never more than MQTT's 65 535.
    pub bytes_max: usize,
    /// Levels, counted as separators plus one.
    pub levels_max: usize,
}

/// Why a topic or filter is not one. The peer is at fault in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Zero bytes.
    #[error("a topic has at least one character [MQTT-4.7.3-1]")]
    Empty,
    /// The null character.
    #[error("a topic does not contain U+0000 [MQTT-4.7.3-2]")]
    Nul,
    /// Longer than the limit.
    #[error("the topic is {bytes} bytes long, the limit is {limit}")]
    TooLong {
        /// Bytes of the topic.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Deeper than the limit.
    #[error("the topic has {levels} levels, the limit is {limit}")]
    TooManyLevels {
        /// Levels of the topic.
        levels: usize,
        /// Levels allowed.
        limit: usize,
    },
    /// A wildcard in the name of a topic.
    #[error("a topic name does not contain '+' or '#' [MQTT-3.3.2-2]")]
    WildcardInName,
    /// `#` before the end.
    #[error("'#' is not the last level [MQTT-4.7.1-1]")]
    HashNotLast,
    /// A wildcard beside other characters.
    #[error("a wildcard does not occupy its whole level [MQTT-4.7.1-2]")]
    WildcardInLevel,
    /// No share name where one belongs.
    #[error("a share name has at least one character [MQTT-4.8.2-1]")]
    ShareNameEmpty,
    /// A share name with a separator or a wildcard.
    #[error("a share name does not contain '/', '+' or '#' [MQTT-4.8.2-2]")]
    ShareNameInvalid,
    /// Nothing to subscribe to behind the share name.
    #[error("a share name is followed by '/' and a topic filter [MQTT-4.8.2-2]")]
    ShareWithoutFilter,
}

impl TopicLimits {
    /// The limits of the standard itself, for tools and tests.
    pub const STANDARD: Self = Self { bytes_max: 65_535, levels_max: 65_536 };

    fn check(&self, text: &str) -> Result<(), TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > self.bytes_max {
            return Err(TopicError::TooLong { bytes: text.len(), limit: self.bytes_max });
        }
        let mut levels = 1;
        for byte in text.bytes() {
            match byte {
                0 => return Err(TopicError::Nul),
                b'/' => levels += 1,
                _ => {}
            }
        }
        if levels > self.levels_max {
            return Err(TopicError::TooManyLevels { levels, limit: self.levels_max });
        }
        Ok(())
    }
}

impl Topic {
    /// Checks a topic name. One pass and one allocation.
    pub fn parse(text: &str, limits: &TopicLimits) -> Result<Self, TopicError> {
        limits.check(text)?;
        if text.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(text.into()))
    }

    /// The name as it goes over the wire of MQTT.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels; an empty one stands for a leading, doubled or trailing `/`.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether the name begins with `$`: matched by no leading wildcard [MQTT-4.7.2-1], written by no client.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl TopicFilter {
    /// Checks a topic filter. `$share/…` gets no meaning here: that prefix is MQTT's way of naming a group, which
    /// [`Self::shared`] takes apart.
    pub fn parse(text: &str, limits: &TopicLimits) -> Result<Self, TopicError> {
        limits.check(text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level == "#" {
                if levels.peek().is_some() {
                    return Err(TopicError::HashNotLast);
                }
            } else if level != "+" && level.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
                return Err(TopicError::WildcardInLevel);
            }
        }
        Ok(Self(text.into()))
    }

    /// The filter as it goes over the wire of MQTT.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, wildcards among them.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The topic that this filter names, when it has no wildcard.
    #[must_use]
    pub fn as_topic(&self) -> Option<Topic> {
        let wild = self.0.bytes().any(|byte| matches!(byte, b'+' | b'#'));
        (!wild).then(|| Topic(Arc::clone(&self.0)))
    }

    /// Whether the text claims to be that of a shared subscription. Says nothing about its correctness.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.levels().next() == Some(SHARE)
    }

    /// The share name and the filter of `$share/<name>/<filter>`; `None` for a filter that is not shared.
    ///
    /// The filter inside has the syntax of any other [MQTT-4.8.2-2], so that a further `$share/` in it is the name of
    /// a level and no more.
    #[must_use]
    pub fn shared(&self) -> Option<Result<(ShareName, Self), TopicError>> {
        let rest = match self.0.strip_prefix(SHARE)? {
            "" => return Some(Err(TopicError::ShareNameEmpty)), // [MQTT-4.8.2-1]
            rest => rest.strip_prefix('/')?,
        };
        let (name, filter) = match rest.split_once('/') {
            Some((name, filter)) => (name, Some(filter).filter(|filter| !filter.is_empty())),
            None => (rest, None),
        };
        Some(ShareName::check(name).and_then(|()| {
            // The last levels of a filter are a filter, but for none at all.
            let filter = filter.ok_or(TopicError::ShareWithoutFilter)?; // [MQTT-4.8.2-2]
            Ok((ShareName(name.into()), Self(filter.into())))
        }))
    }

    /// THE definition of matching, level by level; no index anywhere may answer otherwise. Nothing is normalised
    /// [MQTT-4.7.3-4].
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut filter = self.levels();
        let mut name = topic.levels();
        let mut first = true;
        loop {
            match (filter.next(), name.next()) {
                // [MQTT-4.7.2-1]: a leading wildcard matches no topic that begins with '$'.
                (Some("#" | "+"), Some(_)) if first && topic.is_reserved() => return false,
                // §4.7.1.2: "sport/#" also matches "sport".
                (Some("#"), _) => return true,
                (Some("+"), Some(_)) => {}
                (Some(wanted), Some(level)) if wanted == level => {}
                (None, None) => return true,
                _ => return false,
            }
            first = false;
        }
    }
}

impl ShareName {
    /// Checks a share name that stands by itself, as outside of MQTT. One pass and one allocation.
    pub fn parse(text: &str, limits: &TopicLimits) -> Result<Self, TopicError> {
        Self::check(text)?;
        limits.check(text)?;
        Ok(Self(text.into()))
    }

    fn check(text: &str) -> Result<(), TopicError> {
        if text.is_empty() {
            return Err(TopicError::ShareNameEmpty); // [MQTT-4.8.2-1]
        }
        if text.bytes().any(|byte| matches!(byte, b'/' | b'+' | b'#')) {
            return Err(TopicError::ShareNameInvalid); // [MQTT-4.8.2-2]
        }
        Ok(())
    }

    /// The name, without prefix and separators.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The first level of the filters of shared subscriptions (§4.8.2).
const SHARE: &str = "$share";

macro_rules! text_traits {
    ($name:ident) => {
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}
text_traits!(Topic);
text_traits!(TopicFilter);
text_traits!(ShareName);

#[cfg(test)]
mod tests {
    use super::*;

    fn check_match(filter: &str, topic: &str, expected: bool) {
        let limits = TopicLimits::STANDARD;
        let filter = TopicFilter::parse(filter, &limits).unwrap();
        let topic = Topic::parse(topic, &limits).unwrap();
        assert_eq!(filter.matches(&topic), expected, "{filter} against {topic}");
    }

    #[test]
    fn matches_as_the_examples_of_the_standard_do() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a//b", "a/b", false),
            ("a/b", "a/b", true),
            ("A/b", "a/b", false),
        ] {
            check_match(filter, topic, expected);
        }
    }

    #[test]
    fn refuses_what_is_no_filter() {
        for (text, error) in [
            ("", TopicError::Empty),
            ("a\0b", TopicError::Nul),
            ("a/#/b", TopicError::HashNotLast),
            ("a#", TopicError::WildcardInLevel),
            ("a+/b", TopicError::WildcardInLevel),
            ("a/b", TopicError::TooManyLevels { levels: 2, limit: 1 }),
            ("abcd", TopicError::TooLong { bytes: 4, limit: 3 }),
        ] {
            let limits = match error {
                TopicError::TooManyLevels { .. } => TopicLimits { levels_max: 1, ..TopicLimits::STANDARD },
                TopicError::TooLong { .. } => TopicLimits { bytes_max: 3, ..TopicLimits::STANDARD },
                _ => TopicLimits::STANDARD,
            };
            assert_eq!(TopicFilter::parse(text, &limits), Err(error), "{text:?}");
        }
    }

    #[test]
    fn refuses_wildcards_in_a_name() {
        for text in ["a/+", "#", "a+b"] {
            assert_eq!(Topic::parse(text, &TopicLimits::STANDARD), Err(TopicError::WildcardInName));
        }
    }

    #[test]
    fn a_filter_without_wildcards_names_a_topic() {
        let exact = TopicFilter::parse("a/b", &TopicLimits::STANDARD).unwrap();
        assert_eq!(exact.as_topic().unwrap().as_str(), "a/b");
        assert_eq!(TopicFilter::parse("a/+", &TopicLimits::STANDARD).unwrap().as_topic(), None);
    }
}

//! What a destination means on the common topic space (WIRE §6), in identity mode: `/` separates levels.

use super::UnknownPrefix;
use crate::topic::TopicError;

/// Why a destination is not one here. The peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DestinationError {
    #[error("{0}")]
    Topic(#[from] TopicError),
    #[error("/queue/ destinations are not supported yet; use /topic/")]
    Queue,
    #[error("/temp-queue/ destinations are not supported yet; use /topic/ with a name of your own")]
    TempQueue,
    #[error("there are no exchanges here; use /topic/")]
    Exchange,
    #[error("/amq/queue/ is not supported; use /topic/")]
    AmqQueue,
    #[error("unknown prefix in the destination {0:?}; use /topic/")]
    UnknownPrefix(Box<str>),
}

/// The text of the canonical topic or filter that a destination names; not parsed.
pub(super) fn canonical(destination: &str, unknown: UnknownPrefix) -> Result<&str, DestinationError> {
    if let Some(topic) = destination.strip_prefix("/topic/") {
        return Ok(topic);
    }
    for (prefix, error) in [
        ("/queue/", DestinationError::Queue),
        ("/temp-queue/", DestinationError::TempQueue),
        ("/exchange/", DestinationError::Exchange),
        ("/amq/queue/", DestinationError::AmqQueue),
    ] {
        if destination.starts_with(prefix) {
            return Err(error);
        }
    }
    if destination.starts_with('/') && unknown == UnknownPrefix::Error {
        let shown: String = destination.chars().take(SHOWN_CHARACTERS).collect();
        return Err(DestinationError::UnknownPrefix(shown.into()));
    }
    Ok(destination)
}

/// The prefix that every topic has in a MESSAGE.
pub(super) const TOPIC_PREFIX: &str = "/topic/";

/// How much of a wrong destination an ERROR repeats.
const SHOWN_CHARACTERS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(destination: &str, expected: Result<&str, DestinationError>) {
        assert_eq!(canonical(destination, UnknownPrefix::Error), expected, "{destination}");
    }

    #[test]
    fn maps_as_the_table_of_wire_6_says() {
        check("/topic/plant/a", Ok("plant/a"));
        check("/topic//a", Ok("/a"));
        check("/topic/", Ok(""));
        check("plant/a", Ok("plant/a"));
        check("/topic/$SYS/uptime", Ok("$SYS/uptime"));
        check("/topic/plant/+/t", Ok("plant/+/t"));
        check("/queue/jobs", Err(DestinationError::Queue));
        check("/temp-queue/x", Err(DestinationError::TempQueue));
        check("/exchange/amq.topic/x", Err(DestinationError::Exchange));
        check("/amq/queue/x", Err(DestinationError::AmqQueue));
        check("/topics/x", Err(DestinationError::UnknownPrefix("/topics/x".into())));
        check("/topic", Err(DestinationError::UnknownPrefix("/topic".into())));
    }

    #[test]
    fn takes_unknown_prefixes_verbatim_where_the_operator_says_so() {
        assert_eq!(canonical("/topics/x", UnknownPrefix::Topic), Ok("/topics/x"));
        assert_eq!(canonical("/queue/x", UnknownPrefix::Topic), Err(DestinationError::Queue));
    }
}

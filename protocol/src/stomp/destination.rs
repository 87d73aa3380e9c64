//! What a destination means on the common topic space, and how a topic is shown as a destination (WIRE §6).
//!
//! Knows no frame. The levels of a destination are told apart by `/` as in a topic, or by `.` where the operator
//! says so; [`Separator`] goes both ways.

use std::borrow::Cow;

use super::{Separator, Settings, UnknownPrefix};
use crate::topic::{Topic, TopicError, TopicFilter, TopicLimits};

/// Why a destination is not one here. The peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DestinationError {
    #[error("{0}")]
    Topic(#[from] TopicError),
    #[error("a queue is consumed by its name, without wildcards")]
    WildcardInQueue,
    #[error("a group is named by the header share")]
    ShareInDestination,
    #[error("'>' is not the last level")]
    GreaterNotLast,
    #[error("'%' is followed by 25, 2E, 2A or 3E")]
    UndefinedEscape,
    #[error("there are no exchanges here; use /topic/")]
    Exchange,
    #[error("/amq/queue/ is not supported; use /queue/")]
    AmqQueue,
    #[error("unknown prefix in the destination {0:?}; use /topic/ or /queue/")]
    UnknownPrefix(Box<str>),
}

/// What kind of place a destination is; its first word says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/topic/`, or no word: everybody who is subscribed gets a message.
    Topic,
    /// `/queue/`: one consumer gets it.
    Queue,
    /// `/temp-queue/`: below a name that only this connection reads.
    TempQueue,
    /// `/temp-topic/`: the same places, wildcards allowed.
    TempTopic,
}

/// What the destinations of one client mean.
#[derive(Debug)]
pub(super) struct Destinations {
    separator: Separator,
    unknown_prefix: UnknownPrefix,
    topic_limits: TopicLimits,
    /// `$temp/<connection>/`.
    temporary: Box<str>,
}

/// How the topics of one subscription are shown: with the prefix that its client subscribed with.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    shown: &'static str,
    canonical: &'a str,
    separator: Separator,
}

impl Destinations {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            separator: settings.separator,
            unknown_prefix: settings.unknown_prefix,
            topic_limits: settings.topic_limits,
            temporary: Box::default(),
        }
    }

    /// `connection` is the level below `$temp/` that is this connection's own.
    pub(super) fn set_temporary(&mut self, connection: &str) {
        self.temporary = format!("{TEMPORARY}{connection}/").into();
    }

    pub(super) const fn limits(&self) -> &TopicLimits {
        &self.topic_limits
    }

    /// Where a SEND or a `reply-to` goes.
    pub(super) fn topic(&self, destination: &str) -> Result<(Kind, Topic), DestinationError> {
        let (kind, name) = self.split(destination)?;
        Ok((kind, Topic::parse(&self.canonical(kind, name)?, &self.topic_limits)?))
    }

    /// What a SUBSCRIBE is for.
    pub(super) fn filter(&self, destination: &str) -> Result<(Kind, TopicFilter), DestinationError> {
        let (kind, name) = self.split(destination)?;
        let text = self.canonical(kind, name)?;
        let is_queue = matches!(kind, Kind::Queue | Kind::TempQueue);
        if is_queue && text.contains(['+', '#']) {
            return Err(DestinationError::WildcardInQueue);
        }
        let filter = TopicFilter::parse(&text, &self.topic_limits)?;
        // MQTT's way to name a group; taken literally it would match nothing for ever.
        if filter.is_shared() {
            return Err(DestinationError::ShareInDestination);
        }
        Ok((kind, filter))
    }

    pub(super) fn view(&self, kind: Kind) -> View<'_> {
        let canonical = match kind {
            Kind::Topic => "",
            Kind::Queue => QUEUE,
            Kind::TempQueue | Kind::TempTopic => &self.temporary,
        };
        View { shown: kind.prefix(), canonical, separator: self.separator }
    }

    /// Whether replies sent there need a subscription of this connection.
    pub(super) fn is_temporary_queue(&self, destination: &str) -> bool {
        matches!(self.split(destination), Ok((Kind::TempQueue, _)))
    }

    /// Whether the levels seem to be separated by dots although they are not: the habit of other brokers' clients.
    pub(super) fn seems_dotted(&self, destination: &str) -> bool {
        let Ok((_, name)) = self.split(destination) else { return false };
        self.separator == Separator::Slash && name.contains(['.', '*']) && !name.contains('/')
    }

    fn split<'a>(&self, destination: &'a str) -> Result<(Kind, &'a str), DestinationError> {
        for kind in [Kind::Topic, Kind::Queue, Kind::TempQueue, Kind::TempTopic] {
            if let Some(name) = destination.strip_prefix(kind.prefix()) {
                return Ok((kind, name));
            }
        }
        for (prefix, error) in
            [("/exchange/", DestinationError::Exchange), ("/amq/queue/", DestinationError::AmqQueue)]
        {
            if destination.starts_with(prefix) {
                return Err(error);
            }
        }
        if destination.starts_with('/') && self.unknown_prefix == UnknownPrefix::Error {
            let shown: String = destination.chars().take(SHOWN_CHARACTERS).collect();
            return Err(DestinationError::UnknownPrefix(shown.into()));
        }
        Ok((Kind::Topic, destination))
    }

    /// The text of the topic or filter; not parsed.
    fn canonical<'a>(&self, kind: Kind, name: &'a str) -> Result<Cow<'a, str>, DestinationError> {
        if name.is_empty() {
            return Err(TopicError::Empty.into());
        }
        let name = self.separator.undo(name)?;
        Ok(match self.view(kind).canonical {
            "" => name,
            prefix => Cow::Owned(format!("{prefix}{name}")),
        })
    }
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Topic => "/topic/",
            Self::Queue => "/queue/",
            Self::TempQueue => "/temp-queue/",
            Self::TempTopic => "/temp-topic/",
        }
    }
}

impl View<'static> {
    /// As everybody sees it: a topic.
    pub(super) const fn common(separator: Separator) -> Self {
        View { shown: Kind::Topic.prefix(), canonical: "", separator }
    }

    /// As an address to send to: what is below `queue/` is a queue.
    pub(super) fn of_address(topic: &str, separator: Separator) -> Self {
        if topic.starts_with(QUEUE) {
            return View { shown: Kind::Queue.prefix(), canonical: QUEUE, separator };
        }
        Self::common(separator)
    }
}

impl<'a> View<'a> {
    /// The separator, if topics are shown as everybody sees them.
    pub(super) const fn as_common(self) -> Option<Separator> {
        if self.canonical.is_empty() { Some(self.separator) } else { None }
    }

    pub(super) const fn separator(self) -> Separator {
        self.separator
    }

    /// The two parts of the destination that stands for a topic.
    pub(super) fn show(self, topic: &str) -> (&'static str, Cow<'_, str>) {
        match topic.strip_prefix(self.canonical) {
            Some(name) => (self.shown, self.separator.put(name)),
            None => (Kind::Topic.prefix(), self.separator.put(topic)),
        }
    }
}

impl Separator {
    /// The levels of a topic as they stand in a destination.
    fn put(self, topic: &str) -> Cow<'_, str> {
        if self == Self::Slash || !topic.contains(['/', '.', '%', '*', '>']) {
            return Cow::Borrowed(topic);
        }
        let mut shown = String::with_capacity(topic.len() + 8);
        for (index, level) in topic.split('/').enumerate() {
            if index > 0 {
                shown.push('.');
            }
            match level {
                // Alone in its level it would be a wildcard.
                "*" => shown.push_str("%2A"),
                ">" => shown.push_str("%3E"),
                _ => put_escaped(level, &mut shown),
            }
        }
        Cow::Owned(shown)
    }

    /// The topic or filter that was meant.
    fn undo(self, name: &str) -> Result<Cow<'_, str>, DestinationError> {
        if self == Self::Slash || !name.contains(['.', '%', '*', '>']) {
            return Ok(Cow::Borrowed(name));
        }
        let mut meant = String::with_capacity(name.len());
        let mut levels = name.split('.').peekable();
        while let Some(level) = levels.next() {
            match level {
                "*" => meant.push('+'),
                ">" if levels.peek().is_some() => return Err(DestinationError::GreaterNotLast),
                ">" => meant.push('#'),
                _ => undo_escapes(level, &mut meant)?,
            }
            if levels.peek().is_some() {
                meant.push('/');
            }
        }
        Ok(Cow::Owned(meant))
    }
}

fn put_escaped(level: &str, out: &mut String) {
    for character in level.chars() {
        match character {
            '%' => out.push_str("%25"),
            '.' => out.push_str("%2E"),
            other => out.push(other),
        }
    }
}

fn undo_escapes(level: &str, out: &mut String) -> Result<(), DestinationError> {
    let mut parts = level.split('%');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (code, rest) = part.split_at_checked(2).ok_or(DestinationError::UndefinedEscape)?;
        out.push(match code {
            "25" => '%',
            "2E" | "2e" => '.',
            "2A" | "2a" => '*',
            "3E" | "3e" => '>',
            _ => return Err(DestinationError::UndefinedEscape),
        });
        out.push_str(rest);
    }
    Ok(())
}

/// Below it stand the topics that are consumed as queues, by a group of this name.
const QUEUE: &str = "queue/";

/// Below it each connection has a level of its own.
const TEMPORARY: &str = "$temp/";

/// How much of a wrong destination an ERROR repeats.
const SHOWN_CHARACTERS: usize = 60;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn destinations(separator: Separator, unknown_prefix: UnknownPrefix) -> Destinations {
        let settings = Settings { separator, unknown_prefix, ..Settings::default() };
        let mut destinations = Destinations::new(&settings);
        destinations.set_temporary("c7");
        destinations
    }

    fn check_with(destinations: &Destinations, destination: &str, expected: Result<&str, DestinationError>) {
        let filter = destinations.filter(destination).map(|(_, filter)| filter.to_string());
        assert_eq!(filter, expected.map(str::to_owned), "{destination}");
    }

    fn check(destination: &str, expected: Result<&str, DestinationError>) {
        check_with(&destinations(Separator::Slash, UnknownPrefix::Error), destination, expected);
    }

    fn check_dotted(destination: &str, expected: Result<&str, DestinationError>) {
        check_with(&destinations(Separator::Dot, UnknownPrefix::Error), destination, expected);
    }

    #[test]
    fn maps_as_the_table_of_wire_6_says() {
        check("/topic/plant/a", Ok("plant/a"));
        check("/topic//a", Ok("/a"));
        check("plant/a", Ok("plant/a"));
        check("/topic/$SYS/uptime", Ok("$SYS/uptime"));
        check("/topic/plant/+/t", Ok("plant/+/t"));
        check("/topic/plant.*.t", Ok("plant.*.t"));
        check("/queue/jobs", Ok("queue/jobs"));
        check("/queue/jobs/a", Ok("queue/jobs/a"));
        check("/temp-queue/x", Ok("$temp/c7/x"));
        check("/temp-topic/x/#", Ok("$temp/c7/x/#"));
    }

    #[test]
    fn refuses_what_is_no_place_here() {
        for empty in ["/topic/", "/queue/", "/temp-queue/", "/temp-topic/", ""] {
            check(empty, Err(TopicError::Empty.into()));
        }
        check("/queue/#", Err(DestinationError::WildcardInQueue));
        check("/queue/+/a", Err(DestinationError::WildcardInQueue));
        check("/temp-queue/+", Err(DestinationError::WildcardInQueue));
        check("/topic/$share/g/a", Err(DestinationError::ShareInDestination));
        check("/exchange/amq.topic/x", Err(DestinationError::Exchange));
        check("/amq/queue/x", Err(DestinationError::AmqQueue));
        check("/topics/x", Err(DestinationError::UnknownPrefix("/topics/x".into())));
        check("/topic", Err(DestinationError::UnknownPrefix("/topic".into())));
    }

    #[test]
    fn takes_unknown_prefixes_verbatim_where_the_operator_says_so() {
        let destinations = destinations(Separator::Slash, UnknownPrefix::Topic);
        check_with(&destinations, "/topics/x", Ok("/topics/x"));
        check_with(&destinations, "/exchange/x", Err(DestinationError::Exchange));
    }

    #[test]
    fn dots_are_separators_where_the_operator_says_so() {
        check_dotted("/topic/plant.*.t", Ok("plant/+/t"));
        check_dotted("/topic/plant.>", Ok("plant/#"));
        check_dotted("/topic/plant.#", Ok("plant/#"));
        check_dotted("/topic/.a..b.", Ok("/a//b/"));
        check_dotted("/topic/a%2Eb.c%25%2e.%2A.%3e", Ok("a.b/c%./*/>"));
        check_dotted("/topic/a.x*.>x", Ok("a/x*/>x"));
        check_dotted("/queue/jobs.a", Ok("queue/jobs/a"));
        check_dotted("/temp-queue/a.b", Ok("$temp/c7/a/b"));
        check_dotted("/queue/jobs.*", Err(DestinationError::WildcardInQueue));
        check_dotted("/topic/a.#.b", Err(TopicError::HashNotLast.into()));
        check_dotted("/topic/a.>.b", Err(DestinationError::GreaterNotLast));
        for text in ["/topic/50%", "/topic/a%2", "/topic/%41", "/topic/%ä"] {
            check_dotted(text, Err(DestinationError::UndefinedEscape));
        }
    }

    #[test]
    fn a_view_shows_what_the_client_subscribed_with() {
        let destinations = destinations(Separator::Slash, UnknownPrefix::Error);
        for (kind, topic, expected) in [
            (Kind::Topic, "queue/jobs", "/topic/queue/jobs"),
            (Kind::Queue, "queue/jobs", "/queue/jobs"),
            (Kind::TempQueue, "$temp/c7/x", "/temp-queue/x"),
            (Kind::TempTopic, "$temp/c7/x", "/temp-topic/x"),
            (Kind::TempQueue, "other", "/topic/other"),
        ] {
            let (prefix, name) = destinations.view(kind).show(topic);
            assert_eq!(format!("{prefix}{name}"), expected);
        }
    }

    #[test]
    fn a_hint_is_for_dots_without_a_slash() {
        let slash = destinations(Separator::Slash, UnknownPrefix::Error);
        for (destination, expected) in [
            ("/topic/plant.a", true),
            ("/queue/jobs.*", true),
            ("plant.a", true),
            ("/topic/plant/a.b", false),
            ("/topic/plant", false),
            ("/exchange/a.b", false),
        ] {
            assert_eq!(slash.seems_dotted(destination), expected, "{destination}");
        }
        assert!(!destinations(Separator::Dot, UnknownPrefix::Error).seems_dotted("/topic/plant.a"));
    }

    proptest! {
        #[test]
        fn every_topic_comes_back_from_its_destination(
            topic in "[a-c$ä/.%*> 25EA]{1,16}",
            is_dotted in any::<bool>(),
        ) {
            let separator = if is_dotted { Separator::Dot } else { Separator::Slash };
            let destinations = destinations(separator, UnknownPrefix::Error);
            let (prefix, name) = View::common(separator).show(&topic);
            let (_, back) = destinations.topic(&format!("{prefix}{name}")).unwrap();
            prop_assert_eq!(back.as_str(), topic);
        }
    }
}

//! Properties of topics and filters. OASIS MQTT 5.0 §4.7.

use proptest::prelude::*;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

const LIMITS: TopicLimits = TopicLimits::STANDARD;

/// Few letters and many separators, so that random filters and topics often match.
fn levels() -> impl Strategy<Value = Vec<String>> {
    let level = prop_oneof![Just(""), Just("a"), Just("b"), Just("$SYS"), Just("ü ")];
    prop::collection::vec(level.prop_map(str::to_owned), 1..6).prop_filter("a topic is not empty", |levels| {
        levels.len() > 1 || levels.iter().any(|l| !l.is_empty())
    })
}

fn filter_levels() -> impl Strategy<Value = Vec<String>> {
    let level = prop_oneof![Just(""), Just("a"), Just("b"), Just("+"), Just("$SYS"), Just("ü ")];
    (prop::collection::vec(level.prop_map(str::to_owned), 1..6), any::<bool>())
        .prop_map(|(mut levels, is_open)| {
            if is_open {
                levels.push("#".to_owned());
            }
            levels
        })
        .prop_filter("a filter is not empty", |levels| {
            levels.len() > 1 || levels.iter().any(|l| !l.is_empty())
        })
}

/// Matching once more, by recursion over lists: the words of §4.7.1 and §4.7.2, one clause each.
fn model(filter: &[String], topic: &[String]) -> bool {
    fn rest(filter: &[String], topic: &[String]) -> bool {
        match (filter, topic) {
            ([hash], _) if hash == "#" => true,
            ([], []) => true,
            ([plus, filter @ ..], [_, topic @ ..]) if plus == "+" => rest(filter, topic),
            ([level, filter @ ..], [name, topic @ ..]) => level == name && rest(filter, topic),
            _ => false,
        }
    }
    let is_wild = filter.first().is_some_and(|level| level == "+" || level == "#");
    let is_reserved = topic.first().is_some_and(|level| level.starts_with('$'));
    !(is_wild && is_reserved) && rest(filter, topic)
}

proptest! {
    #[test]
    fn matching_agrees_with_a_model(filter in filter_levels(), topic in levels()) {
        let parsed_filter = TopicFilter::parse(&filter.join("/"), &LIMITS).unwrap();
        let parsed_topic = Topic::parse(&topic.join("/"), &LIMITS).unwrap();
        prop_assert_eq!(parsed_filter.matches(&parsed_topic), model(&filter, &topic));
    }

    #[test]
    fn a_filter_without_wildcards_matches_its_own_topic_alone(one in levels(), other in levels()) {
        let (one, other) = (one.join("/"), other.join("/"));
        let filter = TopicFilter::parse(&one, &LIMITS).unwrap();
        let topic = filter.as_topic().unwrap();
        prop_assert!(filter.matches(&topic));
        prop_assert_eq!(filter.matches(&Topic::parse(&other, &LIMITS).unwrap()), one == other);
    }

    #[test]
    fn levels_joined_are_the_text(levels in filter_levels()) {
        let text = levels.join("/");
        let filter = TopicFilter::parse(&text, &LIMITS).unwrap();
        prop_assert_eq!(filter.as_str(), &text);
        prop_assert_eq!(filter.levels().collect::<Vec<_>>(), levels);
    }

    #[test]
    fn a_topic_is_a_filter_and_a_filter_without_wildcards_is_a_topic(text in "[a+#/\u{0}ü]{0,8}") {
        let topic = Topic::parse(&text, &LIMITS);
        let filter = TopicFilter::parse(&text, &LIMITS);
        let is_wild = text.contains(['+', '#']);
        if topic.is_ok() {
            prop_assert!(filter.is_ok());
        }
        if !is_wild {
            prop_assert_eq!(topic.is_ok(), filter.is_ok());
            prop_assert_eq!(topic.is_ok(), !text.is_empty() && !text.contains('\0'));
        }
        prop_assert!(!(is_wild && topic.is_ok()));
    }

    #[test]
    fn limits_are_exact(levels in 1_usize..20, len in 1_usize..20) {
        let text = vec!["a".repeat(len); levels].join("/");
        let parse = |bytes_max, levels_max| Topic::parse(&text, &TopicLimits { bytes_max, levels_max }).is_ok();
        prop_assert!(parse(text.len(), levels));
        prop_assert!(!parse(text.len() - 1, levels));
        prop_assert!(!parse(text.len(), levels - 1));
    }
}

//! Properties of topics, filters and share names. OASIS MQTT 5.0 §4.7, §4.8.2.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use proptest::prelude::*;
use tidegate_protocol::topic::{ShareName, Topic, TopicError, TopicFilter, TopicLimits};

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

/// `None`: not shared. Otherwise the share name and the filter, or why there are none.
type Apart<'a> = Option<Result<(&'a str, &'a str), TopicError>>;

fn check_shared(text: &str, expected: Apart<'_>) {
    let filter = TopicFilter::parse(text, &LIMITS).unwrap();
    let apart = filter.shared();
    let seen = apart.as_ref().map(|apart| match apart {
        Ok((name, filter)) => Ok((name.as_str(), filter.as_str())),
        Err(error) => Err(*error),
    });
    assert_eq!(seen, expected, "{text:?}");
    assert_eq!(filter.is_shared(), expected.is_some(), "{text:?}");
}

#[test]
fn takes_the_filter_of_a_shared_subscription_apart() {
    use TopicError::{ShareNameEmpty, ShareNameInvalid, ShareWithoutFilter};
    for (text, expected) in [
        ("$share/g/a", Some(Ok(("g", "a")))),
        ("$share/consumer1/sport/tennis/+", Some(Ok(("consumer1", "sport/tennis/+")))),
        ("$share/consumer1//finance", Some(Ok(("consumer1", "/finance")))),
        ("$share/g//", Some(Ok(("g", "/")))),
        ("$share/g/#", Some(Ok(("g", "#")))),
        ("$share/g/+", Some(Ok(("g", "+")))),
        ("$share/g/$SYS/#", Some(Ok(("g", "$SYS/#")))),
        ("$share/$share/a", Some(Ok(("$share", "a")))),
        ("$share/g/$share/h/a", Some(Ok(("g", "$share/h/a")))),
        ("$share/ü /ü", Some(Ok(("ü ", "ü")))),
        ("$share", Some(Err(ShareNameEmpty))),
        ("$share/", Some(Err(ShareNameEmpty))),
        ("$share//", Some(Err(ShareNameEmpty))),
        ("$share//a", Some(Err(ShareNameEmpty))),
        ("$share/+", Some(Err(ShareNameInvalid))),
        ("$share/#", Some(Err(ShareNameInvalid))),
        ("$share/+/a", Some(Err(ShareNameInvalid))),
        ("$share/g", Some(Err(ShareWithoutFilter))),
        ("$share/g/", Some(Err(ShareWithoutFilter))),
        ("$sharex/y/z", None),
        ("$shar/y/z", None),
        ("$SHARE/y/z", None),
        ("/$share/y/z", None),
        ("a/$share/y/z", None),
        ("share/y/z", None),
        ("+/y/z", None),
        ("#", None),
    ] {
        check_shared(text, expected);
    }
}

#[test]
fn a_wildcard_beside_other_characters_is_refused_in_a_share_name_too() {
    for text in ["$share/a+/b", "$share/a#/b", "$share/+a/b", "$share/g/a+"] {
        assert_eq!(TopicFilter::parse(text, &LIMITS), Err(TopicError::WildcardInLevel), "{text:?}");
    }
    assert_eq!(TopicFilter::parse("$share/#/b", &LIMITS), Err(TopicError::HashNotLast));
}

#[test]
fn a_share_name_by_itself_is_one_level_without_wildcards() {
    let limits = TopicLimits { bytes_max: 4, levels_max: 1 };
    for (text, error) in [
        ("g", None),
        ("ü ", None),
        ("$g", None),
        ("gggg", None),
        ("", Some(TopicError::ShareNameEmpty)),
        ("+", Some(TopicError::ShareNameInvalid)),
        ("a+", Some(TopicError::ShareNameInvalid)),
        ("a#b", Some(TopicError::ShareNameInvalid)),
        ("a\0b", Some(TopicError::Nul)),
        ("ggggg", Some(TopicError::TooLong { bytes: 5, limit: 4 })),
        ("a/b", Some(TopicError::ShareNameInvalid)),
    ] {
        assert_eq!(ShareName::parse(text, &limits).err(), error, "{text:?}");
    }
    assert_eq!(ShareName::parse("g", &LIMITS).unwrap().as_str(), "g");
}

proptest! {
    #[test]
    fn what_a_share_takes_apart_is_what_was_put_together(
        name in "[a$+#/\u{0}ü]{0,4}", filter in "[a$+#/\u{0}ü]{0,6}"
    ) {
        let apart = TopicFilter::parse(&format!("$share/{name}/{filter}"), &LIMITS).ok().map(|whole| {
            whole.shared().unwrap()
        });
        let parts = (ShareName::parse(&name, &LIMITS), TopicFilter::parse(&filter, &LIMITS));
        if let (Ok(name), Ok(filter)) = parts {
            prop_assert_eq!(apart, Some(Ok((name, filter))));
        } else if !name.contains('/') {
            prop_assert!(!matches!(apart, Some(Ok(_))));
        }
    }

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

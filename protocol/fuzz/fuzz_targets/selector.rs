//! Any text as a selector: nothing panics, an error lies within the text, and a condition and its contrary never both hold.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate_protocol::publication::{Properties, Publication};
use tidegate_protocol::selector::Selector;
use tidegate_protocol::topic::{Topic, TopicLimits};

fuzz_target!(|texts: (String, String, String)| {
    let (text, one, other) = texts;
    let selector = match Selector::parse(&text) {
        Ok(selector) => selector,
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.position), "{error}");
            return;
        }
    };
    let topic = Topic::parse("a/b", &TopicLimits::STANDARD).expect("a topic");
    let mut publication = Publication::new(topic, Bytes::new());
    publication.properties = Some(Box::new(Properties {
        user: vec![("a".into(), one.into()), ("b".into(), other.into()), ("c".into(), "3".into())],
        ..Properties::default()
    }));
    // One level more may be one too many.
    if let Ok(contrary) = Selector::parse(&format!("NOT ({text})")) {
        assert!(!(selector.matches(&publication) && contrary.matches(&publication)));
    }
});

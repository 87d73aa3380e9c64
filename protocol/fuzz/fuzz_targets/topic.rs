//! Any text as a topic and as a filter: nothing panics, and what both accept matches itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

fuzz_target!(|texts: (String, String)| {
    let limits = TopicLimits { bytes_max: 4096, levels_max: 128 };
    let topic = Topic::parse(&texts.0, &limits);
    let filter = TopicFilter::parse(&texts.1, &limits);
    if let (Ok(topic), Ok(filter)) = (&topic, &filter) {
        let _ = filter.matches(topic);
    }
    if let Ok(topic) = topic {
        let same = TopicFilter::parse(&texts.0, &limits).expect("each topic is a filter");
        assert!(same.matches(&topic));
        assert_eq!(same.as_topic().as_ref(), Some(&topic));
    }
    if let Ok(filter) = filter {
        assert_eq!(filter.levels().collect::<Vec<_>>().join("/"), texts.1);
    }
});

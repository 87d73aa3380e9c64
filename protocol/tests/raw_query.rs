//! URLs of raw connections: what each asks for, and the sentence that each bad one gets. WIRE §2.

#![expect(clippy::expect_used, reason = "a test helper may panic")]

mod raw_support;

use std::time::Duration;

use raw_support::{connected, open_with};
use tidegate_protocol::raw::{Pinned, Settings};
use tidegate_protocol::session::{Copies, RetainHandling};
use tidegate_protocol::topic::TopicLimits;

fn check_error(query: &str, expected: &str) {
    let error = open_with(Pinned::Nothing, query, &Settings::default()).map(|_| ()).expect_err(query);
    assert!(error.contains(expected), "{query}: {error}");
}

#[test]
fn topics_are_percent_decoded_and_a_space_is_a_plus() {
    for (query, filters) in [
        ("t=a", &["a"][..]),
        ("t=plant/%2B/temp&t=alerts/%23", &["plant/+/temp", "alerts/#"]),
        ("t=plant/+/temp", &["plant/+/temp"]),
        ("t=%20/x", &["+/x"]),
        ("t=+", &["+"]),
        ("t=two+words/a+", &["two words/a "]),
        ("t=a&t=a&&t=b&", &["a", "b"]),
        ("t=a%2Fb%3D%26", &["a/b=&"]),
        ("t=%C3%BC", &["ü"]),
        ("t=a=b", &["a=b"]),
        ("protocol=raw&t=a", &["a"]),
    ] {
        let client = connected(query);
        let found: Vec<&str> =
            client.subscribes().iter().map(|subscribe| subscribe.filter.as_str()).collect();
        assert_eq!(found, filters, "{query}");
    }
}

#[test]
fn options_reach_the_subscription() {
    for (query, retained, conflate, slot) in [
        ("t=a", RetainHandling::Send, None, 4),
        ("t=a&last=1&as=auto&conflate=0", RetainHandling::Send, None, 4),
        ("t=a&last=0", RetainHandling::Skip, None, 4),
        ("t=a&with=topic", RetainHandling::Send, None, 5),
        ("t=a&as=text", RetainHandling::Send, None, 6),
        ("t=a&as=text&with=topic", RetainHandling::Send, None, 7),
        ("t=a&as=binary&conflate=1", RetainHandling::Send, Some(Duration::ZERO), 8),
        ("t=a&as=binary&with=topic", RetainHandling::Send, None, 9),
        ("t=a&conflate=200", RetainHandling::Send, Some(Duration::from_millis(200)), 4),
    ] {
        let client = connected(query);
        let subscribe = &client.subscribes()[0];
        let forms = subscribe.forms.expect("payload mode is prepared");
        assert_eq!((subscribe.retained, subscribe.conflate), (retained, conflate), "{query}");
        assert_eq!((forms.live.slot, forms.retained.unwrap().slot), (slot, slot), "{query}");
        assert!(!forms.live.lacks_expiry && subscribe.copies == Copies::PerClient);
    }
}

#[test]
fn without_topics_it_is_the_envelope() {
    for query in ["", "&", "protocol=raw"] {
        let client = connected(query);
        assert!(client.requests.is_empty() && client.closed.is_none(), "{query}");
    }
}

#[test]
fn each_bad_query_is_told_why() {
    for (query, expected) in [
        ("topic=a", "unknown parameter 'topic' in the URL"),
        ("t=a&las=1", "unknown parameter 'las' in the URL; did you mean 'last'?"),
        ("t=a&conflat=1", "did you mean 'conflate'?"),
        ("t=a&%00=1", "unknown parameter '\\0'"),
        ("t=a&last=5", "'last' is 0 or 1: this broker keeps no history"),
        ("t=a&last=-1", "the parameter 'last' of the URL is 0 or 1, not '-1'"),
        ("t=a&last", "is 0 or 1, not ''"),
        ("t=a&last=1&last=1", "the parameter 'last' stands twice"),
        ("pub=a&pub=b", "the parameter 'pub' stands twice"),
        ("t=a&with=ts", "'with' of the URL is 'topic', not 'ts'"),
        ("t=a&as=json", "'as' of the URL is 'auto', 'text' or 'binary', not 'json'"),
        ("t=a&conflate=fast", "'conflate' of the URL is 0, 1 or a number of milliseconds"),
        ("t=a&conflate=%2B5", "number of milliseconds"),
        ("t=a&conflate=99999999999", "number of milliseconds"),
        ("t=", "a topic has at least one character"),
        ("t=a/%23/b", "'#' is not the last level"),
        ("t=a%2B", "a wildcard does not occupy its whole level"),
        ("t=a%00", "U+0000"),
        ("pub=", "a topic has at least one character"),
        ("pub=a/%23", "the parameter 'pub' of the URL, 'a/#', is not usable: a topic name does not contain"),
        ("pub=a/+", "a topic name does not contain"),
        ("t=$share/g/a", "no shared subscriptions"),
        ("t=%zz", "not percent-encoded UTF-8"),
        ("t=%4", "not percent-encoded UTF-8"),
        ("t=%ff", "not percent-encoded UTF-8"),
        ("t=%ED%A0%80", "not percent-encoded UTF-8"),
        ("last=1", "the parameter 'last' of the URL has no effect without 't'"),
        ("pub=a&as=text", "the parameter 'as' of the URL has no effect without 't'"),
        ("token=s3cret&t=a", "tokens in the URL are off"),
        ("t=a&token=%zz", "tokens in the URL are off"),
    ] {
        check_error(query, expected);
    }
    let error =
        open_with(Pinned::Nothing, "token=s3cret", &Settings::default()).map(|_| ()).expect_err("off");
    assert!(!error.contains("s3cret"));
}

#[test]
fn limits_hold() {
    let settings = Settings {
        topics_max: 2,
        topic_limits: TopicLimits { bytes_max: 4, levels_max: 2 },
        ..Settings::default()
    };
    let open = |query| open_with(Pinned::Nothing, query, &settings).map(|_| ());
    assert_eq!(open("t=a&t=b&t=a"), Ok(()));
    assert_eq!(open("t=a&t=b&t=c"), Err("the limit raw.max_topics = 2 is reached".to_owned()));
    assert!(open("t=abcde").expect_err("too long").contains("5 bytes long, the limit is 4"));
    assert!(open("pub=a/b/").expect_err("too deep").contains("3 levels, the limit is 2"));
}

#[test]
fn a_pinned_envelope_takes_no_topics_from_the_url() {
    for pinned in [Pinned::Json, Pinned::MessagePack] {
        let error = open_with(pinned, "t=a", &Settings::default()).map(|_| ()).expect_err("refused");
        assert!(error.contains("for 't' and 'pub' in the URL offer 'raw' or nothing"), "{error}");
        assert!(open_with(pinned, "", &Settings::default()).is_ok());
    }
}

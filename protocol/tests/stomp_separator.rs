//! Conversations where `stomp.separator` is `.`, and the hint for clients that think it is.

mod stomp_support;

use std::sync::Arc;

use stomp_support::{Talk, delivery, publication};
use tidegate_protocol::publication::{Properties, QoS};
use tidegate_protocol::stomp::{Separator, Settings, Version};
use tidegate_protocol::topic::{Topic, TopicLimits};

fn dotted() -> Talk {
    let settings = Settings { separator: Separator::Dot, ..Settings::default() };
    Talk::connected_with(Version::V1_2, &settings, "")
}

fn check(frame: &str, expected: &str) {
    assert_eq!(dotted().client(frame), [expected], "{frame}");
}

#[test]
fn destinations_are_read_with_dots() {
    check("SEND\ndestination:/topic/plant.a\n\nx\0", "publish plant/a qos0 \"x\"");
    check("SEND\ndestination:plant.a%2Eb%25\n\nx\0", "publish plant/a.b% qos0 \"x\"");
    check("SEND\ndestination:/queue/jobs.a\nqos:1\n\nx\0", "publish queue/jobs/a qos1 \"x\"");
    check("SEND\ndestination:a\nreply-to:/topic/r.1\n\nx\0", "publish a qos0 \"x\" reply=r/1");
    check("SUBSCRIBE\nid:s\ndestination:/topic/plant.*.t\n\n\0", "subscribe 0 plant/+/t qos0");
    check("SUBSCRIBE\nid:s\ndestination:/topic/plant.>\n\n\0", "subscribe 0 plant/# qos0");
    check("SUBSCRIBE\nid:s\ndestination:/topic/plant.#\n\n\0", "subscribe 0 plant/# qos0");
}

#[test]
fn what_is_no_destination_with_dots_is_an_error() {
    for (frame, message) in [
        (
            "SUBSCRIBE\nid:s\ndestination:a.#.b\n\n\0",
            "bad header destination: '#' is not the last level [MQTT-4.7.1-1]",
        ),
        ("SUBSCRIBE\nid:s\ndestination:a.>.b\n\n\0", "bad header destination: '>' is not the last level"),
        (
            "SUBSCRIBE\nid:s\ndestination:/queue/a.*\n\n\0",
            "bad header destination: a queue is consumed by its name, without wildcards",
        ),
        (
            "SEND\ndestination:a.*\n\nx\0",
            "bad header destination: a topic name does not contain '+' or '#' [MQTT-3.3.2-2]",
        ),
        ("SEND\ndestination:50%\n\nx\0", "bad header destination: '%' is followed by 25, 2E, 2A or 3E"),
    ] {
        let shown = dotted().client(frame);
        assert!(
            shown[0].replace("\\c", ":").starts_with(&format!("text ERROR|message:{message}|")),
            "{shown:?}"
        );
        assert_eq!(shown[1..], ["close 4000 Abort"]);
    }
}

#[test]
fn messages_show_dots_in_destination_and_reply_to() {
    let mut message = publication("plant/a.b/*/50%", b"x");
    let response_topic = Topic::parse("queue/r/1", &TopicLimits::STANDARD).ok();
    message.properties = Some(Box::new(Properties { response_topic, ..Properties::default() }));
    let message = Arc::new(message);
    for version in Version::ALL {
        let settings = Settings { separator: Separator::Dot, ..Settings::default() };
        let mut talk = Talk::connected_with(version, &settings, "");
        talk.client("SUBSCRIBE\nid:s\ndestination:/topic/plant.#\n\n\0");
        let mut sent = delivery(publication("a", b""), QoS::AtMostOnce, 1);
        sent.publication = Arc::clone(&message);
        assert_eq!(
            talk.deliver(sent),
            ["text MESSAGE|subscription:s|message-id:0-1|destination:/topic/plant.a%2Eb.%2A.50%25\
              |content-length:1|reply-to:/queue/r.1||x^@"]
        );
    }
}

#[test]
fn one_publication_serves_both_separators() {
    let shared = Arc::new(publication("a/b", b"x"));
    for (separator, shown) in [(Separator::Slash, "a/b"), (Separator::Dot, "a.b"), (Separator::Slash, "a/b")]
    {
        let settings = Settings { separator, ..Settings::default() };
        let mut talk = Talk::connected_with(Version::V1_2, &settings, "");
        talk.client(&format!("SUBSCRIBE\nid:s\ndestination:{shown}\n\n\0"));
        let mut sent = delivery(publication("a", b""), QoS::AtMostOnce, 1);
        sent.publication = Arc::clone(&shared);
        let message = talk.deliver(sent);
        assert!(message[0].contains(&format!("|destination:/topic/{shown}|")), "{message:?}");
    }
}

#[test]
fn a_client_that_thinks_in_dots_is_noticed_once() {
    let mut talk = Talk::connected(Version::V1_2);
    assert_eq!(talk.client("SEND\ndestination:/topic/plant/a.b\n\nx\0"), ["publish plant/a.b qos0 \"x\""]);
    assert_eq!(
        talk.client("SUBSCRIBE\nid:s\ndestination:/topic/plant.*\n\n\0"),
        ["hint DottedDestination", "subscribe 0 plant.* qos0"]
    );
    assert_eq!(talk.client("SEND\ndestination:/topic/plant.a\n\nx\0"), ["publish plant.a qos0 \"x\""]);
    // Where dots separate, they are no mistake.
    assert_eq!(dotted().client("SEND\ndestination:/topic/plant.a\n\nx\0"), ["publish plant/a qos0 \"x\""]);
}

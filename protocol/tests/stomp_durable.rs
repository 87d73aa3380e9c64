//! Conversations about subscriptions that are kept when their client is gone, as RabbitMQ's clients ask for them and
//! as those of ActiveMQ and Artemis do.

#![expect(clippy::indexing_slicing, reason = "a test helper may panic")]

mod stomp_support;

use stomp_support::{Talk, delivery, granted, publication};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::Reply;
use tidegate_protocol::stomp::{Settings, Version};

const RABBIT: &str = "id:s\ndestination:/topic/a\ndurable:true\nauto-delete:false\n";
const ARTEMIS: &str = "id:s\ndestination:/topic/a\ndurable-subscription-name:n\n";

fn connected(version: Version) -> Talk {
    Talk::connected_with(version, &Settings::default(), "client-id:c:1\n")
}

fn check(frame: &str, expected: &[&str]) {
    for version in Version::ALL {
        let mut talk = connected(version);
        // In 1.0 a colon in a value has no escape.
        assert_eq!(talk.client(frame), expected, "{version} {frame}");
    }
}

fn subscribed(headers: &str) -> Talk {
    let mut talk = connected(Version::V1_2);
    talk.client(&format!("SUBSCRIBE\n{headers}\n\0"));
    talk.reply(granted(QoS::AtLeastOnce));
    talk
}

fn check_error(talk: &mut Talk, frame: &str, message: &str) {
    let shown = talk.client(frame);
    assert!(shown[0].starts_with(&format!("text ERROR|message:{message}|")), "{frame}: {shown:?}");
    assert_eq!(shown[1..], ["close 4000 Abort"], "{frame}");
}

#[test]
fn a_name_is_made_of_the_id_and_the_filter_or_of_the_client_and_its_name() {
    for (headers, expected) in [
        (RABBIT, "subscribe 0 a qos1 durable=id:1:s:a"),
        (
            "id:s\ndestination:/topic/a/#\npersistent:true\nauto-delete:false\n",
            "subscribe 0 a/# qos1 durable=id:1:s:a/#",
        ),
        (ARTEMIS, "subscribe 0 a qos1 durable=client:3:c:1:n"),
        ("id:s\ndestination:a\nactivemq.subscriptionName:n\n", "subscribe 0 a qos1 durable=client:3:c:1:n"),
        ("id:s\ndestination:a\ndurable-subscriber-name:n\n", "subscribe 0 a qos1 durable=client:3:c:1:n"),
        (
            "id:s\ndestination:a\nack:client\nselector:x = 1\nno-local:true\nactivemq.subscriptionName:n\n",
            "subscribe 0 a qos1 no-local selector=x = 1 durable=client:3:c:1:n prefetch=32",
        ),
    ] {
        check(&format!("SUBSCRIBE\n{headers}\n\0"), &[expected]);
    }
}

#[test]
fn unsubscribe_with_the_same_headers_forgets_and_without_them_only_stops() {
    for (subscribe, unsubscribe, expected) in [
        (RABBIT, "id:s\n", "unsubscribe 0"),
        (RABBIT, RABBIT, "forget id:1:s:a"),
        (RABBIT, "id:s\ndurable:true\nauto-delete:false\n", "forget id:1:s:a"),
        (ARTEMIS, "id:s\n", "unsubscribe 0"),
        (ARTEMIS, ARTEMIS, "forget client:3:c:1:n"),
        (ARTEMIS, "id:s\ndurable-subscription-name:n\n", "forget client:3:c:1:n"),
        (ARTEMIS, "activemq.subscriptionName:n\n", "forget client:3:c:1:n"),
    ] {
        let mut talk = subscribed(subscribe);
        let shown = talk.client(&format!("UNSUBSCRIBE\n{unsubscribe}receipt:r\n\n\0"));
        assert_eq!(shown, [expected], "{unsubscribe}");
        assert_eq!(talk.reply(Reply::Unsubscribed(vec![true])), ["text RECEIPT|receipt-id:r||^@"]);
        // The id is free again.
        let again = talk.client(&format!("SUBSCRIBE\n{subscribe}\n\0"));
        assert!(again[0].starts_with("subscribe 1 a "), "{again:?}");
    }
}

#[test]
fn a_subscription_is_forgotten_without_being_subscribed_to() {
    for (headers, expected) in [
        (RABBIT, "forget id:1:s:a"),
        ("destination:/topic/a\ndurable-subscription-name:n\n", "forget client:3:c:1:n"),
        ("activemq.subscriptionName:n\n", "forget client:3:c:1:n"),
    ] {
        check(&format!("UNSUBSCRIBE\n{headers}\n\0"), &[expected]);
    }
}

#[test]
fn what_waits_for_an_ack_stays_for_the_next_or_is_forgotten_too() {
    for headers in [RABBIT, ARTEMIS] {
        for (unsubscribe, expected) in [
            ("id:s\n", ["unsubscribe 0", "settle 7 Returned"].as_slice()),
            (headers, &["settle 7 Dropped(Closed)", "forget"]),
        ] {
            let mut talk = subscribed(&format!("{headers}ack:client\n"));
            talk.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, 7));
            let shown = talk.client(&format!("UNSUBSCRIBE\n{unsubscribe}\n\0"));
            assert_eq!(shown.len(), expected.len(), "{shown:?}");
            for (shown, expected) in shown.iter().zip(expected) {
                assert!(shown.starts_with(expected), "{shown} {expected}");
            }
        }
    }
}

#[test]
fn with_ack_auto_sent_is_settled() {
    let mut talk = subscribed(RABBIT);
    let shown = talk.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, 7));
    assert!(
        shown[0].starts_with("text MESSAGE|subscription:s|message-id:0-1|destination:/topic/a|"),
        "{shown:?}"
    );
    assert_eq!(shown[1..], ["settle 7 Accepted"]);
}

#[test]
fn what_makes_no_sense_is_an_error() {
    for (subscribe, frame, message) in [
        (
            ARTEMIS,
            "SUBSCRIBE\nid:t\ndestination:b\ndurable-subscription-name:n\n\n\0",
            "the durable subscription is in use by this connection",
        ),
        (
            RABBIT,
            "UNSUBSCRIBE\nid:s\ndestination:/topic/b\ndurable:true\nauto-delete:false\n\n\0",
            "no such subscription",
        ),
        (ARTEMIS, "UNSUBSCRIBE\nid:s\ndurable-subscription-name:m\n\n\0", "no such subscription"),
        (RABBIT, "UNSUBSCRIBE\nid:t\ndurable:true\nauto-delete:false\n\n\0", "missing header destination"),
        (RABBIT, "UNSUBSCRIBE\ndestination:a\ndurable:true\nauto-delete:false\n\n\0", "missing header id"),
    ] {
        check_error(&mut subscribed(subscribe), frame, message);
    }
    let mut talk = Talk::connected_with(Version::V1_0, &Settings::default(), "");
    check_error(
        &mut talk,
        "SUBSCRIBE\ndestination:a\ndurable:true\nauto-delete:false\n\n\0",
        "missing header id",
    );
    // A queue is nobody's to forget.
    let mut talk = connected(Version::V1_2);
    let frame = "UNSUBSCRIBE\nid:s\ndestination:/queue/a\ndurable:true\nauto-delete:false\n\n\0";
    check_error(&mut talk, frame, "no such subscription");
    // An empty name is none.
    let mut talk = Talk::connected_with(Version::V1_1, &Settings::default(), "client-id:\n");
    let frame = "SUBSCRIBE\nid:s\ndestination:a\nactivemq.subscriptionName:n\n\n\0";
    check_error(&mut talk, frame, "a durable subscription by name needs the header client-id in CONNECT");
}

#[test]
fn no_two_pairs_have_one_name() {
    let name = |client: &str, headers: &str| {
        let mut talk =
            Talk::connected_with(Version::V1_0, &Settings::default(), &format!("client-id:{client}\n"));
        let shown = talk.client(&format!("SUBSCRIBE\n{headers}\n\0"));
        shown[0].split_once("durable=").map(|(_, name)| name.to_owned())
    };
    let named = |name: &str| format!("id:s\ndestination:a\nactivemq.subscriptionName:{name}\n");
    let by_id = |id: &str, filter: &str| {
        format!("id:{id}\ndestination:/topic/{filter}\ndurable:true\nauto-delete:false\n")
    };
    for (one, other) in [
        (name("c", &named("1:n")), name("c:1", &named("n"))),
        (name("c", &named("n")), name("d", &named("n"))),
        (name("c", &by_id("a:b", "c")), name("c", &by_id("a", "b:c"))),
        (name("s", &named("a")), name("c", &by_id("s", "a"))),
    ] {
        assert!(one.is_some() && other.is_some());
        assert_ne!(one, other);
    }
    assert_eq!(
        name("c", &by_id("s", "a")),
        name("d", &by_id("s", "a")),
        "by id the client's name has no part in it"
    );
}

//! Conversations about destinations of which one client gets each message, or one connection all: queues, shared
//! groups, temporary queues.

mod stomp_support;

use stomp_support::{Talk, delivery, granted, publication, published};
use tidegate_protocol::publication::{Properties, QoS};
use tidegate_protocol::session::{Refusal, Reply, SubscriptionId};
use tidegate_protocol::stomp::{Settings, Version};
use tidegate_protocol::topic::{Topic, TopicLimits};

fn check(frame: &str, expected: &[&str]) {
    for version in Version::ALL {
        let mut talk = Talk::connected(version);
        assert_eq!(talk.client(frame), expected, "{version} {frame}");
    }
}

fn subscribed(headers: &str) -> Talk {
    let mut talk = Talk::connected(Version::V1_2);
    talk.client(&format!("SUBSCRIBE\nid:s\n{headers}\n\0"));
    talk.reply(granted(QoS::AtLeastOnce));
    talk
}

fn deliver(talk: &mut Talk, topic: &str, tag: u64) -> Vec<String> {
    talk.deliver(delivery(publication(topic, b"x"), QoS::AtLeastOnce, tag))
}

#[test]
fn a_queue_is_a_topic_that_one_group_consumes() {
    for (headers, expected) in [
        ("destination:/queue/jobs\n", "subscribe 0 queue/jobs qos1 group=queue no-retained"),
        (
            "destination:/queue/jobs/a\nack:client\n",
            "subscribe 0 queue/jobs/a qos1 group=queue no-retained prefetch=32",
        ),
        (
            "destination:/queue/jobs\nack:client\nprefetch-count:1\nselector:a = 1\n",
            "subscribe 0 queue/jobs qos1 group=queue no-retained selector=a = 1 prefetch=1",
        ),
        // What RabbitMQ's clients say of a queue that outlives its consumers is so of every queue here.
        (
            "destination:/queue/jobs\ndurable:true\nauto-delete:false\n",
            "subscribe 0 queue/jobs qos1 group=queue no-retained",
        ),
        ("destination:/queue/jobs\ndurable:true\n", "subscribe 0 queue/jobs qos1 group=queue no-retained"),
    ] {
        check(&format!("SUBSCRIBE\nid:s\n{headers}\n\0"), &[expected]);
    }
}

#[test]
fn a_consumer_ends_with_the_headers_that_it_began_with() {
    for headers in ["", "durable:true\n", "destination:/queue/a\ndurable:true\nauto-delete:false\n"] {
        let mut talk = subscribed(&format!("{headers}destination:/queue/a\n"));
        assert_eq!(talk.client(&format!("UNSUBSCRIBE\nid:s\n{headers}\n\0")), ["unsubscribe 0"], "{headers}");
    }
}

#[test]
fn a_group_is_named_by_a_header() {
    for (headers, expected) in [
        ("destination:/topic/plant/+\nshare:g\n", "subscribe 0 plant/+ qos0 group=g no-retained"),
        (
            "destination:plant/#\nshare:g\nack:client\n",
            "subscribe 0 plant/# qos1 group=g no-retained prefetch=32",
        ),
        (
            "destination:/topic/queue/jobs\nshare:queue\n",
            "subscribe 0 queue/jobs qos0 group=queue no-retained",
        ),
    ] {
        check(&format!("SUBSCRIBE\nid:s\n{headers}\n\0"), &[expected]);
    }
}

#[test]
fn what_is_sent_to_a_queue_is_acknowledged() {
    for (headers, expected) in [
        ("destination:/queue/jobs\n", "publish queue/jobs qos1 \"x\""),
        ("destination:/queue/jobs\nqos:0\n", "publish queue/jobs qos1 \"x\""),
        ("destination:/topic/queue/jobs\n", "publish queue/jobs qos0 \"x\""),
        ("destination:/queue/jobs\nreply-to:/queue/done\n", "publish queue/jobs qos1 \"x\" reply=queue/done"),
    ] {
        check(&format!("SEND\n{headers}\nx\0"), &[expected]);
    }
}

#[test]
fn a_message_shows_the_destination_that_its_client_subscribed_to() {
    for (destination, topic, shown) in [
        ("/queue/jobs", "queue/jobs", "/queue/jobs"),
        ("/topic/queue/jobs", "queue/jobs", "/topic/queue/jobs"),
        ("/topic/#", "queue/jobs", "/topic/queue/jobs"),
        ("/temp-queue/x", "$temp/7/x", "/temp-queue/x"),
        ("/temp-topic/x/+", "$temp/7/x/y", "/temp-topic/x/y"),
    ] {
        let mut talk = subscribed(&format!("destination:{destination}\nack:client\n"));
        let expected = format!(
            "text MESSAGE|subscription:s|message-id:0-1|ack:0-1|destination:{shown}|content-length:1||x^@"
        );
        assert_eq!(deliver(&mut talk, topic, 1), [expected]);
    }
}

#[test]
fn a_reply_goes_to_a_queue_by_its_name() {
    for (topic, shown) in
        [("queue/done", "/queue/done"), ("done", "/topic/done"), ("$temp/9/x", "/topic/$temp/9/x")]
    {
        let mut talk = subscribed("destination:/queue/jobs\n");
        let mut job = publication("queue/jobs", b"x");
        let response_topic = Topic::parse(topic, &TopicLimits::STANDARD).ok();
        job.properties = Some(Box::new(Properties { response_topic, ..Properties::default() }));
        let message = talk.deliver(delivery(job, QoS::AtLeastOnce, 1));
        assert!(message[0].contains(&format!("|reply-to:{shown}||")), "{message:?}");
    }
}

#[test]
fn a_message_that_somebody_may_have_had_says_so() {
    let mut talk = subscribed("destination:/queue/jobs\n");
    let mut again = delivery(publication("queue/jobs", b"x"), QoS::AtLeastOnce, 1);
    again.dup = true;
    let shown = talk.deliver(again);
    assert!(
        shown[0].starts_with(
            "text MESSAGE|subscription:s|message-id:0-1|redelivered:true|destination:/queue/jobs|"
        )
    );
}

#[test]
fn with_ack_auto_sent_is_settled() {
    for destination in ["/queue/jobs", "/topic/queue/jobs"] {
        let mut talk = subscribed(&format!("destination:{destination}\n"));
        let shown = deliver(&mut talk, "queue/jobs", 5);
        assert!(shown[0].starts_with("text MESSAGE|"), "{shown:?}");
        assert_eq!(shown[1..], ["settle 5 Accepted"]);
    }
}

#[test]
fn a_nack_gives_the_message_to_another_where_there_may_be_one() {
    const ONE: &str = "ack:client-individual\n";
    for (headers, nack, expected) in [
        ("destination:/queue/a\n", "", "Requeue"),
        ("destination:/queue/a\n", "requeue:true\n", "Requeue"),
        ("destination:/queue/a\n", "requeue:false\n", "Dropped(Refused)"),
        ("destination:/topic/a\nshare:g\n", "", "Requeue"),
        ("destination:/topic/a\nshare:g\n", "requeue:false\n", "Dropped(Refused)"),
        ("destination:/topic/a\n", "", "Dropped(Refused)"),
        ("destination:/topic/a\n", "requeue:true\n", "Dropped(Refused)"),
        ("destination:/topic/a\ndurable:true\nauto-delete:false\n", "", "Dropped(Refused)"),
    ] {
        let mut talk = subscribed(&format!("{headers}{ONE}"));
        deliver(&mut talk, "a", 4);
        let shown = talk.client(&format!("NACK\nid:0-1\n{nack}\n\0"));
        assert_eq!(shown, [format!("settle 4 {expected}")], "{headers}{nack}");
        // At QoS 0 there is nothing to give.
        talk.deliver(delivery(publication("a", b"x"), QoS::AtMostOnce, 6));
        assert_eq!(talk.client("NACK\nid:0-2\n\n\0"), ["settle 6 Dropped(Refused)"]);
    }
    let mut talk = subscribed("destination:/queue/a\nack:client\n");
    deliver(&mut talk, "a", 4);
    let shown = talk.client("NACK\nid:0-1\nrequeue:maybe\n\n\0");
    assert!(
        shown[0].starts_with("text ERROR|message:bad header requeue\\c it is true or false|"),
        "{shown:?}"
    );
}

#[test]
fn what_a_consumer_leaves_goes_to_the_others() {
    for destination in ["destination:/queue/a\n", "destination:/topic/a\nshare:g\n"] {
        let mut talk = subscribed(&format!("{destination}ack:client\n"));
        for tag in 1..=2 {
            deliver(&mut talk, "a", tag);
        }
        // After the end, so that it does not come back to this one.
        assert_eq!(
            talk.client("UNSUBSCRIBE\nid:s\n\n\0"),
            ["unsubscribe 0", "settle 1 Returned", "settle 2 Returned"]
        );
        // So does what was on its way, until the broker has heard.
        assert_eq!(deliver(&mut talk, "a", 3), ["settle 3 Returned"]);
        talk.reply(Reply::Unsubscribed(vec![true]));
        assert_eq!(deliver(&mut talk, "a", 4), ["settle 4 Dropped(Closed)"]);
    }
}

#[test]
fn a_reply_to_a_temporary_queue_subscribes_to_it_first() {
    let mut talk = Talk::connected(Version::V1_2);
    let send = "SEND\ndestination:/queue/rpc\nreply-to:/temp-queue/x\nreceipt:r\n\nx\0";
    assert_eq!(
        talk.client(send),
        ["subscribe 0 $temp/7/x qos0 no-retained", "publish queue/rpc qos1 \"x\" reply=$temp/7/x"]
    );
    assert!(talk.reply(granted(QoS::AtMostOnce)).is_empty());
    assert_eq!(talk.reply(published()), ["text RECEIPT|receipt-id:r||^@"]);
    // Once.
    assert_eq!(talk.client(send), ["publish queue/rpc qos1 \"x\" reply=$temp/7/x"]);
    assert_eq!(
        talk.deliver(delivery(publication("$temp/7/x", b"y"), QoS::AtMostOnce, 1)),
        [
            "text MESSAGE|subscription:/temp-queue/x|message-id:0-1|destination:/temp-queue/x|content-length:1||y^@"
        ]
    );
    // It ends as any other, and begins anew when it is needed.
    assert_eq!(talk.client("UNSUBSCRIBE\nid:/temp-queue/x\n\n\0"), ["unsubscribe 0"]);
    assert_eq!(talk.client(send)[0], "subscribe 1 $temp/7/x qos0 no-retained");
}

#[test]
fn a_reply_needs_no_second_subscription() {
    for destination in ["/temp-queue/x", "/temp-topic/x", "/temp-topic/+"] {
        let mut talk = subscribed(&format!("destination:{destination}\n"));
        let shown = talk.client("SEND\ndestination:rpc\nreply-to:/temp-queue/x\n\nx\0");
        assert_eq!(shown, ["publish rpc qos0 \"x\" reply=$temp/7/x"], "{destination}");
    }
}

#[test]
fn a_temporary_queue_may_be_subscribed_to_and_sent_to() {
    check("SUBSCRIBE\nid:s\ndestination:/temp-queue/x\n\n\0", &["subscribe 0 $temp/7/x qos0 no-retained"]);
    check("SEND\ndestination:/temp-queue/x\n\nx\0", &["publish $temp/7/x qos0 \"x\""]);
    // The name that a replier sees.
    check("SEND\ndestination:/topic/$temp/9/x\n\nx\0", &["publish $temp/9/x qos0 \"x\""]);
}

#[test]
fn a_reply_in_a_transaction_is_awaited_at_once() {
    let mut talk = Talk::connected(Version::V1_2);
    talk.client("BEGIN\ntransaction:t\n\n\0");
    assert_eq!(
        talk.client("SEND\ndestination:rpc\nreply-to:/temp-queue/x\ntransaction:t\n\nx\0"),
        ["subscribe 0 $temp/7/x qos0 no-retained"]
    );
}

#[test]
fn replies_are_limited_as_all_subscriptions() {
    let settings = Settings { max_subscriptions: 1, ..Settings::default() };
    let mut talk = Talk::connected_with(Version::V1_2, &settings, "");
    talk.client("SEND\ndestination:a\nreply-to:/temp-queue/x\n\nx\0");
    let shown = talk.client("SEND\ndestination:a\nreply-to:/temp-queue/y\nreceipt:r\n\nx\0");
    assert!(
        shown[0].starts_with("text ERROR|message:the limit max_subscriptions = 1 is reached|receipt-id:r|")
    );
    assert_eq!(shown[1..], ["close 1008 Abort"]);
}

#[test]
fn a_refused_reply_subscription_is_an_error_of_its_send() {
    let mut talk = Talk::connected(Version::V1_2);
    talk.client("SEND\ndestination:a\nreply-to:/temp-queue/x\nreceipt:r\n\nx\0");
    let shown = talk.reply(Reply::Subscribed(vec![Err(Refusal::NotAuthorized)]));
    assert!(shown[0].starts_with("text ERROR|message:not authorised|receipt-id:r|"), "{shown:?}");
    assert!(shown[0].ends_with("||SEND: not authorised.|^@"), "{shown:?}");
}

#[test]
fn consumers_of_one_connection_are_told_apart() {
    let mut talk = subscribed("destination:/queue/a\nack:client\n");
    talk.client("SUBSCRIBE\nid:t\ndestination:/queue/a\nack:client\n\n\0");
    talk.reply(granted(QoS::AtLeastOnce));
    let mut second = delivery(publication("queue/a", b"x"), QoS::AtLeastOnce, 2);
    second.subscription = SubscriptionId(1);
    assert!(talk.deliver(second)[0].starts_with("text MESSAGE|subscription:t|message-id:1-1|"));
    assert_eq!(talk.client("UNSUBSCRIBE\nid:s\n\n\0"), ["unsubscribe 0"]);
    assert_eq!(talk.client("ACK\nid:1-1\n\n\0"), ["settle 2 Accepted"]);
}

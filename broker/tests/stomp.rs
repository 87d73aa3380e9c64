//! What STOMP's clients ask of the whole broker beside topics: queues, refusals, transactions, durable subscriptions,
//! answers, selectors. Over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod support;

use std::path::Path;

use support::Broker;
use support::mqtt::{self, Mqtt};
use support::stomp::Stomp;
use tempfile::TempDir;
use tidegate_protocol::mqtt::packet::Version as MqttVersion;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::stomp::Version;
use tidegate_protocol::stomp::frame::{Command, Frame};

fn frame(command: Command, headers: &[(&str, &str)]) -> Frame {
    let add = |frame: Frame, (name, value): &(&str, &str)| {
        frame.with_header((*name).to_owned(), (*value).to_owned())
    };
    headers.iter().fold(Frame::new(command), add)
}

async fn connected(broker: &Broker) -> Stomp {
    Stomp::connected(broker, Version::V1_2).await
}

async fn subscribe(client: &mut Stomp, headers: &[(&str, &str)]) {
    let before = client.send_for_receipt(frame(Command::Subscribe, headers)).await;
    assert!(before.is_empty(), "before the RECEIPT: {before:?}");
}

async fn send(client: &mut Stomp, destination: &str, body: &str) {
    let frame = frame(Command::Send, &[("destination", destination)]).with_body(body.to_owned());
    client.send_for_receipt(frame).await;
}

fn text(message: &Frame) -> &str {
    std::str::from_utf8(&message.body).unwrap()
}

async fn bodies(client: &mut Stomp, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        bodies.push(text(&client.delivery().await).to_owned());
    }
    bodies
}

async fn answer(client: &mut Stomp, command: Command, message: &Frame, more: &[(&str, &str)]) {
    let id = message.header("ack").unwrap().to_owned();
    let mut headers = vec![("id", id.as_str())];
    headers.extend_from_slice(more);
    client.send(&frame(command, &headers)).await;
}

async fn ack(client: &mut Stomp, message: &Frame) {
    answer(client, Command::Ack, message, &[]).await;
}

fn stored(directory: &Path) -> String {
    format!("[store]\npath = \"{}\"", directory.display())
}

async fn is_drained(broker: &Broker) {
    broker.metric_becomes("tidegate_work_queue_messages", |left| left == 0).await;
}

#[tokio::test]
async fn a_queue_keeps_messages_and_shows_its_own_name() {
    let broker = Broker::start("").await;
    let mut sender = connected(&broker).await;
    // Without a receipt too: nobody asked for one, and nothing is lost for it.
    let unconfirmed =
        frame(Command::Send, &[("destination", "/queue/jobs"), ("k", "v")]).with_body("a".to_owned());
    sender.send(&unconfirmed).await;
    send(&mut sender, "/queue/jobs", "b").await;
    let mut consumer = connected(&broker).await;
    subscribe(&mut consumer, &[("id", "1"), ("destination", "/queue/jobs"), ("ack", "client-individual")])
        .await;
    for expected in ["a", "b"] {
        let message = consumer.delivery().await;
        assert_eq!((text(&message), message.header("destination")), (expected, Some("/queue/jobs")));
        assert_eq!(message.header("subscription"), Some("1"));
        ack(&mut consumer, &message).await;
    }
    is_drained(&broker).await;
}

#[tokio::test]
async fn with_ack_auto_sent_is_consumed() {
    let broker = Broker::start("").await;
    let mut consumer = connected(&broker).await;
    subscribe(&mut consumer, &[("id", "1"), ("destination", "/queue/jobs")]).await;
    let mut sender = connected(&broker).await;
    for number in 0..100 {
        send(&mut sender, "/queue/jobs", &number.to_string()).await;
    }
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&mut consumer, 100).await, expected, "more than any prefetch");
    is_drained(&broker).await;
}

#[tokio::test]
async fn a_refused_message_goes_to_another_as_often_as_the_operator_says() {
    let broker = Broker::start("[work_queue]\nmax_refusals = 1").await;
    let consume = [("id", "1"), ("destination", "/queue/jobs"), ("ack", "client-individual")];
    let (mut one, mut other) = (connected(&broker).await, connected(&broker).await);
    subscribe(&mut one, &consume).await;
    subscribe(&mut other, &consume).await;
    let mut sender = connected(&broker).await;
    send(&mut sender, "/queue/jobs", "x").await;
    let first = one.delivery().await;
    assert_eq!(first.header("redelivered"), None);
    answer(&mut one, Command::Nack, &first, &[]).await;
    let second = other.delivery().await;
    assert_eq!((text(&second), second.header("redelivered")), ("x", Some("true")));
    answer(&mut other, Command::Nack, &second, &[]).await;
    is_drained(&broker).await;
    assert_eq!(broker.metric("tidegate_drops_total{reason=\"refused\"}").await, 1);
    // Dropped at once where its consumer says so.
    send(&mut sender, "/queue/jobs", "y").await;
    let message = one.delivery().await;
    answer(&mut one, Command::Nack, &message, &[("requeue", "false")]).await;
    is_drained(&broker).await;
}

#[tokio::test]
async fn an_only_consumer_gets_what_it_refused_once_more() {
    let broker = Broker::start("").await;
    let mut consumer = connected(&broker).await;
    subscribe(&mut consumer, &[("id", "1"), ("destination", "/queue/jobs"), ("ack", "client")]).await;
    let mut sender = connected(&broker).await;
    send(&mut sender, "/queue/jobs", "x").await;
    let first = consumer.delivery().await;
    answer(&mut consumer, Command::Nack, &first, &[]).await;
    let second = consumer.delivery().await;
    assert_eq!((text(&second), second.header("redelivered")), ("x", Some("true")));
    ack(&mut consumer, &second).await;
    is_drained(&broker).await;
}

#[tokio::test]
async fn unsubscribing_gives_back_what_was_not_acknowledged() {
    let broker = Broker::start("").await;
    let mut one = connected(&broker).await;
    let consume = [("id", "1"), ("destination", "/queue/jobs"), ("ack", "client")];
    let mut sender = connected(&broker).await;
    for body in ["a", "b"] {
        send(&mut sender, "/queue/jobs", body).await;
    }
    // It is no NACK, which would drop them the second time.
    for _ in 0..3 {
        subscribe(&mut one, &consume).await;
        assert_eq!(bodies(&mut one, 2).await, ["a", "b"]);
        one.unsubscribe("1").await;
    }
    let mut other = connected(&broker).await;
    subscribe(&mut other, &consume).await;
    assert_eq!(bodies(&mut other, 2).await, ["a", "b"]);
    // It is no refusal, however often it happens.
    for _ in 0..3 {
        other.unsubscribe("1").await;
        subscribe(&mut other, &[("id", "2"), ("destination", "/queue/jobs"), ("ack", "client")]).await;
        assert_eq!(bodies(&mut other, 2).await, ["a", "b"]);
        other.unsubscribe("2").await;
        subscribe(&mut other, &consume).await;
        assert_eq!(bodies(&mut other, 2).await, ["a", "b"]);
    }
}

#[tokio::test]
async fn what_a_consumer_had_shows_it_though_it_waited_on_the_disk_meanwhile() {
    let directory = TempDir::new().unwrap();
    let broker = Broker::start(&stored(directory.path())).await;
    let mut one = connected(&broker).await;
    let consume = [("id", "1"), ("destination", "/queue/jobs"), ("ack", "client")];
    subscribe(&mut one, &consume).await;
    let mut sender = connected(&broker).await;
    send(&mut sender, "/queue/jobs", "a").await;
    assert_eq!(bodies(&mut one, 1).await, ["a"]);
    drop(one);
    broker.metric_becomes("tidegate_connections{protocol=\"stomp\"}", |count| count == 1).await;
    send(&mut sender, "/queue/jobs", "b").await;
    let mut heir = connected(&broker).await;
    subscribe(&mut heir, &consume).await;
    for (expected, redelivered) in [("a", Some("true")), ("b", None)] {
        let message = heir.delivery().await;
        assert_eq!((text(&message), message.header("redelivered")), (expected, redelivered));
    }
}

#[tokio::test]
async fn prefetch_count_bounds_what_is_with_a_consumer() {
    let broker = Broker::start("").await;
    let mut slow = connected(&broker).await;
    let headers =
        [("id", "1"), ("destination", "/queue/jobs"), ("ack", "client-individual"), ("prefetch-count", "1")];
    subscribe(&mut slow, &headers).await;
    let mut quick = connected(&broker).await;
    subscribe(&mut quick, &[("id", "1"), ("destination", "/queue/jobs")]).await;
    let mut sender = connected(&broker).await;
    for body in ["0", "1", "2", "3", "4"] {
        send(&mut sender, "/queue/jobs", body).await;
    }
    assert_eq!(text(&slow.delivery().await), "0");
    assert_eq!(bodies(&mut quick, 4).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_group_has_members_of_all_protocols() {
    let broker = Broker::start("").await;
    let mut stomp = connected(&broker).await;
    subscribe(&mut stomp, &[("id", "1"), ("destination", "/topic/t"), ("share", "g")]).await;
    let mut mqtt = Mqtt::connected(&broker, MqttVersion::V5).await;
    mqtt.subscribe("$share/g/t", QoS::AtMostOnce).await;
    let mut sender = connected(&broker).await;
    for body in ["0", "1"] {
        send(&mut sender, "/topic/t", body).await;
    }
    let (one, other) = (text(&stomp.delivery().await).to_owned(), mqtt.delivery().await.payload);
    assert_eq!([one.as_bytes(), &other[..]].concat().len(), 2);
    assert_ne!(one.as_bytes(), &other[..], "each got one of the two");
}

#[tokio::test]
async fn mqtt_consumes_the_same_queue() {
    let broker = Broker::start("").await;
    let mut sender = connected(&broker).await;
    send(&mut sender, "/queue/jobs", "x").await;
    let mut mqtt = Mqtt::connected(&broker, MqttVersion::V5).await;
    mqtt.subscribe("$share/queue/queue/jobs", QoS::AtLeastOnce).await;
    assert_eq!(mqtt.delivery().await.payload, "x");
    is_drained(&broker).await;
    mqtt.publish(mqtt::publish("queue/jobs", "y")).await;
    let mut consumer = connected(&broker).await;
    mqtt.unsubscribe("$share/queue/queue/jobs").await;
    subscribe(&mut consumer, &[("id", "1"), ("destination", "/queue/jobs")]).await;
    drop(mqtt);
    assert_eq!(text(&consumer.delivery().await), "y");
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    let rules = "[[topic]]\nfilter = \"small\"\nmax_payload = 1\n";
    let broker = Broker::start(&format!("[work_queue]\nmax_messages = 2\n{rules}")).await;
    let mut reader = connected(&broker).await;
    subscribe(&mut reader, &[("id", "1"), ("destination", "/topic/#")]).await;
    for (last, destination) in [("xx", "/topic/small"), ("x", "/queue/q")] {
        let mut client = connected(&broker).await;
        client.send_for_receipt(frame(Command::Begin, &[("transaction", "t")])).await;
        for destination in ["/topic/a", "/queue/q", "/queue/q", destination] {
            let headers = [("destination", destination), ("transaction", "t")];
            client.send(&frame(Command::Send, &headers).with_body(last.to_owned())).await;
        }
        client.send(&frame(Command::Commit, &[("transaction", "t"), ("receipt", "r")])).await;
        let (error, _) = client.end().await;
        assert_eq!(error.unwrap().header("receipt-id"), Some("r"));
    }
    let mut client = connected(&broker).await;
    client.send_for_receipt(frame(Command::Begin, &[("transaction", "t")])).await;
    for body in ["1", "2"] {
        let headers = [("destination", "/topic/a"), ("transaction", "t")];
        client.send(&frame(Command::Send, &headers).with_body(body.to_owned())).await;
    }
    client.send_for_receipt(frame(Command::Commit, &[("transaction", "t")])).await;
    assert_eq!(bodies(&mut reader, 2).await, ["1", "2"], "and nothing of what was refused");
    assert_eq!(broker.metric("tidegate_work_queue_messages").await, 0);
}

#[tokio::test]
async fn a_message_of_a_transaction_expires_like_any_other() {
    let broker = Broker::start("").await;
    let mut reader = connected(&broker).await;
    subscribe(&mut reader, &[("id", "1"), ("destination", "/topic/a")]).await;
    let mut client = connected(&broker).await;
    client.send_for_receipt(frame(Command::Begin, &[("transaction", "t")])).await;
    for (body, expires) in [("over", "1"), ("good", "0")] {
        let headers = [("destination", "/topic/a"), ("transaction", "t"), ("expires", expires)];
        client.send(&frame(Command::Send, &headers).with_body(body.to_owned())).await;
    }
    client.send_for_receipt(frame(Command::Commit, &[("transaction", "t")])).await;
    assert_eq!(text(&reader.delivery().await), "good");
}

#[tokio::test]
async fn an_aborted_transaction_leaves_its_acknowledgements_open() {
    let broker = Broker::start("").await;
    let mut consumer = connected(&broker).await;
    subscribe(&mut consumer, &[("id", "1"), ("destination", "/queue/jobs"), ("ack", "client-individual")])
        .await;
    let mut sender = connected(&broker).await;
    send(&mut sender, "/queue/jobs", "x").await;
    let message = consumer.delivery().await;
    consumer.send(&frame(Command::Begin, &[("transaction", "t")])).await;
    answer(&mut consumer, Command::Ack, &message, &[("transaction", "t")]).await;
    consumer.send_for_receipt(frame(Command::Abort, &[("transaction", "t")])).await;
    assert_eq!(broker.metric("tidegate_work_queue_messages").await, 1);
    consumer.send(&frame(Command::Begin, &[("transaction", "t")])).await;
    answer(&mut consumer, Command::Ack, &message, &[("transaction", "t")]).await;
    consumer.send_for_receipt(frame(Command::Commit, &[("transaction", "t")])).await;
    is_drained(&broker).await;
}

/// Each dialect: what CONNECT says, what SUBSCRIBE says, what UNSUBSCRIBE says to forget it.
type Dialect<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);

const DIALECTS: &[Dialect<'_>] = &[
    (&[], &[("id", "s"), ("durable", "true"), ("auto-delete", "false")]),
    (&[("client-id", "c")], &[("id", "s"), ("activemq.subscriptionName", "n")]),
    (&[("client-id", "c")], &[("id", "s"), ("durable-subscription-name", "n")]),
];

async fn durable(broker: &Broker, (connect, subscription): &Dialect<'_>, more: &[(&str, &str)]) -> Stomp {
    let mut client = Stomp::open(broker, Version::V1_2, support::socket::Ask::default()).await;
    client.connect(connect).await;
    let headers: Vec<_> =
        [("destination", "/topic/t")].iter().chain(*subscription).chain(more).copied().collect();
    client.send_for_receipt(frame(Command::Subscribe, &headers)).await;
    client
}

#[tokio::test]
async fn a_durable_subscription_survives_its_client_and_a_restart_in_both_dialects() {
    for dialect in DIALECTS {
        let directory = TempDir::new().unwrap();
        let settings = stored(directory.path());
        let broker = Broker::start(&settings).await;
        let client = durable(&broker, dialect, &[("ack", "client")]).await;
        drop(client);
        broker.metric_becomes("tidegate_connections{protocol=\"stomp\"}", |count| count == 0).await;
        let mut sender = connected(&broker).await;
        send(&mut sender, "/topic/t", "a").await;
        sender.send_for_receipt(frame(Command::Send, &[("destination", "/topic/other")])).await;
        drop(sender);
        broker.stop().await;

        let broker = Broker::start(&settings).await;
        let mut sender = connected(&broker).await;
        send(&mut sender, "/topic/t", "b").await;
        let mut client = durable(&broker, dialect, &[("ack", "client")]).await;
        let (a, b) = (client.delivery().await, client.delivery().await);
        assert_eq!((text(&a), text(&b)), ("a", "b"), "{dialect:?}");
        assert_eq!(a.header("destination"), Some("/topic/t"));
        ack(&mut client, &b).await; // both
        is_drained(&broker).await;
        // It is forgotten, with what waits.
        let headers: Vec<_> = dialect.1.to_vec();
        client.send_for_receipt(frame(Command::Unsubscribe, &headers)).await;
        broker.metric_becomes("tidegate_work_queues", |count| count == 0).await;
        send(&mut sender, "/topic/t", "c").await;
        drop((client, sender));
        broker.stop().await;

        let broker = Broker::start(&settings).await;
        assert_eq!(broker.metric("tidegate_work_queues").await, 0, "{dialect:?}");
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_durable_subscription_has_one_client_the_newest() {
    let broker = Broker::start("").await;
    let mut first = durable(&broker, &DIALECTS[1], &[("ack", "client")]).await;
    let mut sender = connected(&broker).await;
    send(&mut sender, "/topic/t", "a").await;
    assert_eq!(text(&first.delivery().await), "a");
    let mut second = durable(&broker, &DIALECTS[1], &[("ack", "client")]).await;
    let (error, _) = first.end().await;
    assert!(error.is_some(), "it is told");
    let again = second.delivery().await;
    assert_eq!((text(&again), again.header("redelivered")), ("a", Some("true")));
}

#[tokio::test]
async fn an_unsubscribed_durable_subscription_goes_on_without_its_client() {
    let broker = Broker::start("").await;
    let mut client = durable(&broker, &DIALECTS[0], &[]).await;
    client.unsubscribe("s").await;
    let mut sender = connected(&broker).await;
    send(&mut sender, "/topic/t", "a").await;
    let mut client = durable(&broker, &DIALECTS[0], &[]).await;
    assert_eq!(text(&client.delivery().await), "a");
}

#[tokio::test]
async fn another_filter_under_a_durable_name_begins_anew() {
    let broker = Broker::start("").await;
    let dialect: Dialect<'_> = (&[("client-id", "c")], &[("id", "s"), ("durable-subscription-name", "n")]);
    drop(durable(&broker, &dialect, &[]).await);
    broker.metric_becomes("tidegate_connections{protocol=\"stomp\"}", |count| count == 0).await;
    let mut sender = connected(&broker).await;
    send(&mut sender, "/topic/t", "lost").await;
    let mut client = Stomp::open(&broker, Version::V1_2, support::socket::Ask::default()).await;
    client.connect(dialect.0).await;
    let headers: Vec<_> = [("destination", "/topic/u")].iter().chain(dialect.1).copied().collect();
    subscribe(&mut client, &headers).await;
    send(&mut sender, "/topic/t", "t").await;
    send(&mut sender, "/topic/u", "u").await;
    assert_eq!(text(&client.delivery().await), "u");
}

#[tokio::test]
async fn an_answer_comes_to_whoever_asked_and_to_nobody_else() {
    let broker = Broker::start("").await;
    let mut server = Mqtt::connected(&broker, MqttVersion::V5).await;
    server.subscribe("service", QoS::AtMostOnce).await;
    let mut spy = Mqtt::connected(&broker, MqttVersion::V5).await;
    let refused = spy.subscribe_all(vec![mqtt::subscription("$temp/+/answers", QoS::AtMostOnce)]).await;
    assert!(refused[0].is_error());
    let mut client = connected(&broker).await;
    let ask = [("destination", "/topic/service"), ("reply-to", "/temp-queue/answers")];
    client.send(&frame(Command::Send, &ask).with_body("?".to_owned())).await;
    let question = server.delivery().await;
    let reply_to = question.properties.unwrap().response_topic.unwrap();
    server.publish(mqtt::publish(&reply_to, "!")).await;
    let reply = client.delivery().await;
    assert_eq!((text(&reply), reply.header("destination")), ("!", Some("/temp-queue/answers")));
    assert_eq!(reply.header("subscription"), Some("/temp-queue/answers"));
}

#[tokio::test]
async fn an_address_for_answers_tells_nothing_of_another() {
    let broker = Broker::start("").await;
    let mut server = Mqtt::connected(&broker, MqttVersion::V5).await;
    server.subscribe("service", QoS::AtMostOnce).await;
    let ask = [("destination", "/topic/service"), ("reply-to", "/temp-queue/a")];
    let (mut one, mut other) = (connected(&broker).await, connected(&broker).await);
    let mut addresses = Vec::new();
    for client in [&mut one, &mut other] {
        client.send(&frame(Command::Send, &ask)).await;
        let question = server.delivery().await;
        addresses.push(question.properties.unwrap().response_topic.unwrap().to_string());
    }
    assert_ne!(addresses[0], addresses[1]);
    for address in &addresses {
        assert_eq!(address.len(), "$temp//a".len() + 32, "{address}");
        // Whoever knows it can answer, and nobody else can listen.
        let refused = server.subscribe_all(vec![mqtt::subscription(address, QoS::AtMostOnce)]).await;
        assert!(refused[0].is_error());
    }
}

#[tokio::test]
async fn nothing_is_retained_for_a_connection() {
    let broker = Broker::start("").await;
    let mut client = Mqtt::connected(&broker, MqttVersion::V5).await;
    let mut publish = mqtt::publish("$temp/1/a", "x");
    (publish.retain, publish.qos, publish.packet_id) = (true, QoS::AtLeastOnce, 7);
    client.publish(publish).await;
    match client.packet().await {
        mqtt::Packet::PubAck(ack) => assert!(ack.reason.is_error(), "{ack:?}"),
        other => panic!("a refusal was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn no_local_leaves_out_what_the_client_says_itself() {
    let broker = Broker::start("").await;
    let mut client = connected(&broker).await;
    subscribe(&mut client, &[("id", "1"), ("destination", "/topic/t"), ("no-local", "true")]).await;
    let mut other = connected(&broker).await;
    send(&mut client, "/topic/t", "own").await;
    send(&mut other, "/topic/t", "other").await;
    assert_eq!(text(&client.delivery().await), "other");
}

#[tokio::test]
async fn a_selector_chooses_by_headers_on_topics_and_queues() {
    let broker = Broker::start("").await;
    let mut sender = connected(&broker).await;
    let mut say = async |destination: &'static str, kind: &'static str, weight: &'static str| {
        let headers = [("destination", destination), ("kind", kind), ("weight", weight)];
        sender.send_for_receipt(frame(Command::Send, &headers).with_body(format!("{kind}{weight}"))).await;
    };
    say("/queue/jobs", "a", "1").await;
    say("/queue/jobs", "b", "7").await;
    let mut heavy = connected(&broker).await;
    let selected = ("selector", "weight > 5 AND kind IN ('a', 'b')");
    subscribe(&mut heavy, &[("id", "2"), ("destination", "/topic/t"), selected]).await;
    subscribe(&mut heavy, &[("id", "1"), ("destination", "/queue/jobs"), selected]).await;
    assert_eq!(text(&heavy.delivery().await), "b7", "what nobody selects waits, and is passed over");
    say("/topic/t", "a", "3").await;
    say("/topic/t", "a", "10").await;
    assert_eq!(text(&heavy.delivery().await), "a10");
    let mut other = connected(&broker).await;
    subscribe(&mut other, &[("id", "1"), ("destination", "/queue/jobs")]).await;
    assert_eq!(text(&other.delivery().await), "a1");
    let mut wrong = connected(&broker).await;
    let headers = [("id", "1"), ("destination", "/topic/t"), ("selector", "weight >")];
    wrong.send(&frame(Command::Subscribe, &headers)).await;
    let (error, _) = wrong.end().await;
    assert!(error.unwrap().header("message").unwrap().contains("selector"));
}

#[tokio::test]
async fn a_durable_subscription_keeps_its_selector_across_a_restart() {
    let directory = TempDir::new().unwrap();
    let settings = stored(directory.path());
    let broker = Broker::start(&settings).await;
    let more = [("selector", "kind = 'a'")];
    drop(durable(&broker, &DIALECTS[1], &more).await);
    broker.stop().await;
    let broker = Broker::start(&settings).await;
    let mut sender = connected(&broker).await;
    for kind in ["b", "a"] {
        let headers = [("destination", "/topic/t"), ("kind", kind)];
        sender.send_for_receipt(frame(Command::Send, &headers).with_body(kind.to_owned())).await;
    }
    let mut client = durable(&broker, &DIALECTS[1], &more).await;
    assert_eq!(text(&client.delivery().await), "a");
}

#[tokio::test]
async fn a_selector_finds_what_stands_behind_much_that_nobody_wants() {
    let directory = TempDir::new().unwrap();
    for settings in ["", &stored(directory.path())] {
        let broker = Broker::start(settings).await;
        let mut consumer = connected(&broker).await;
        let selected = ("selector", "kind = 'wanted'");
        subscribe(&mut consumer, &[("id", "1"), ("destination", "/queue/jobs"), selected]).await;
        let mut sender = connected(&broker).await;
        let unwanted = frame(Command::Send, &[("destination", "/queue/jobs"), ("kind", "other")]);
        for number in 0..2500 {
            sender.send(&unwanted.clone().with_body(number.to_string())).await;
        }
        let wanted = frame(Command::Send, &[("destination", "/queue/jobs"), ("kind", "wanted")]);
        sender.send_for_receipt(wanted.with_body("x".to_owned())).await;
        assert_eq!(text(&consumer.delivery().await), "x");
        // Whoever comes for the rest finds it, in its order.
        let mut other = connected(&broker).await;
        subscribe(&mut other, &[("id", "1"), ("destination", "/queue/jobs")]).await;
        for expected in 0..2500 {
            assert_eq!(text(&other.delivery().await), expected.to_string());
        }
        is_drained(&broker).await;
        drop((consumer, sender, other));
        broker.stop().await;
    }
}

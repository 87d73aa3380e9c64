//! Queues as their clients see them: each message to one consumer, kept while there is none, given again when a consumer
//! goes. Over real sockets, with MQTT's `$share/queue`; STOMP's own words are in `stomp.rs`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use support::mqtt::{self, Mqtt};
use support::socket::Ask;
use support::{Broker, within};
use tempfile::TempDir;
use tidegate_protocol::mqtt::packet::{Ack, Connect, Packet, Publish, ReasonCode, Version};
use tidegate_protocol::publication::QoS;

const JOBS: &str = "queue/jobs";

const CONSUME: &str = "$share/queue/queue/jobs";

async fn consumer(broker: &Broker, receive_maximum: u16) -> Mqtt {
    let mut client = Mqtt::open(broker, Version::V5, Ask::default()).await;
    let mut connect = mqtt::connect(Version::V5, "");
    connect.properties.get_or_insert_default().receive_maximum = Some(receive_maximum);
    client.connect(connect).await;
    client.subscribe(CONSUME, QoS::AtLeastOnce).await;
    client
}

/// Publishes these, a hundred at a time before their acknowledgements.
async fn send(broker: &Broker, payloads: impl IntoIterator<Item = String>) {
    let mut publisher = Mqtt::connected(broker, Version::V5).await;
    let payloads: Vec<String> = payloads.into_iter().collect();
    for payloads in payloads.chunks(100) {
        for (payload, packet_id) in payloads.iter().zip(1..) {
            publisher.publish(mqtt::publish_acked(JOBS, payload.clone(), packet_id)).await;
        }
        for _ in payloads {
            match publisher.packet().await {
                Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::SUCCESS),
                other => panic!("PUBACK was expected, not {other:?}"),
            }
        }
    }
}

fn numbers(until: usize) -> impl Iterator<Item = String> {
    (0..until).map(|number| number.to_string())
}

async fn job(client: &mut Mqtt) -> Publish {
    match client.packet().await {
        Packet::Publish(publish) => publish,
        other => panic!("a job was expected, not {other:?}"),
    }
}

async fn done(client: &mut Mqtt, job: &Publish) {
    client.send(Packet::PubAck(Ack::new(job.packet_id, ReasonCode::SUCCESS))).await;
}

fn text(publish: &Publish) -> String {
    String::from_utf8(publish.payload.to_vec()).unwrap()
}

fn stored(directory: &Path) -> String {
    format!("[store]\npath = \"{}\"", directory.display())
}

#[tokio::test]
async fn messages_wait_for_their_first_consumer_in_order() {
    let broker = Broker::start("").await;
    send(&broker, numbers(50)).await;
    let mut client = consumer(&broker, 10).await;
    for expected in numbers(50) {
        let job = job(&mut client).await;
        assert_eq!((text(&job), job.dup, job.qos), (expected, false, QoS::AtLeastOnce));
        done(&mut client, &job).await;
    }
    broker.metric_becomes("tidegate_work_queue_messages", |left| left == 0).await;
}

#[tokio::test]
async fn what_was_published_at_qos_0_waits_too() {
    let broker = Broker::start("").await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    publisher.publish(mqtt::publish(JOBS, "x")).await;
    publisher.socket.barrier().await;
    let mut client = consumer(&broker, 10).await;
    let job = job(&mut client).await;
    assert_eq!((text(&job).as_str(), job.qos), ("x", QoS::AtLeastOnce));
}

#[tokio::test]
async fn each_message_goes_to_one_and_the_spread_is_even() {
    const CONSUMERS: usize = 10;
    const EACH: usize = 30; // all of it fits their prefetch
    let broker = Broker::start("").await;
    let mut clients = Vec::new();
    for _ in 0..CONSUMERS {
        clients.push(consumer(&broker, 65_535).await);
    }
    send(&broker, numbers(CONSUMERS * EACH)).await;
    let mut seen = HashMap::new();
    for client in &mut clients {
        for _ in 0..EACH {
            let job = job(client).await;
            *seen.entry(text(&job)).or_insert(0) += 1;
            done(client, &job).await;
        }
    }
    assert_eq!(seen.len(), CONSUMERS * EACH, "none came twice");
}

#[tokio::test]
async fn a_consumer_gets_no_more_than_its_prefetch_and_the_others_go_on() {
    let broker = Broker::start("[work_queue]\nprefetch = 2").await;
    let mut slow = consumer(&broker, 65_535).await;
    let mut quick = consumer(&broker, 65_535).await;
    send(&broker, numbers(20)).await;
    let held = [job(&mut slow).await, job(&mut slow).await];
    let mut quick_had = Vec::new();
    for _ in 0..18 {
        let job = job(&mut quick).await;
        done(&mut quick, &job).await;
        quick_had.push(text(&job));
    }
    assert!(held.iter().all(|job| !quick_had.contains(&text(job))));
    done(&mut slow, &held[0]).await;
    send(&broker, ["last".to_owned()]).await;
    // Each has room for it: it comes to one of the two.
    let last = tokio::select! {
        job = job(&mut slow) => job,
        job = job(&mut quick) => job,
    };
    assert_eq!(text(&last), "last");
}

#[tokio::test]
async fn what_a_consumer_had_when_it_died_goes_to_another_first() {
    let broker = Broker::start("[work_queue]\nprefetch = 3").await;
    let mut dying = consumer(&broker, 65_535).await;
    send(&broker, numbers(6)).await;
    for expected in ["0", "1", "2"] {
        assert_eq!(text(&job(&mut dying).await), expected);
    }
    drop(dying);
    broker.metric_becomes("tidegate_connections{protocol=\"mqtt\"}", |count| count == 0).await;
    let mut heir = consumer(&broker, 65_535).await;
    for expected in numbers(6) {
        let job = job(&mut heir).await;
        assert_eq!((text(&job), job.dup), (expected, false), "DUP is between a broker and one client");
        done(&mut heir, &job).await;
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_loses_nothing() {
    let broker = Broker::start("[work_queue]\nmax_messages = 5").await;
    send(&broker, numbers(5)).await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    assert_eq!(publisher.publish_acked(JOBS, "no").await, ReasonCode::QUOTA_EXCEEDED);
    let mut client = consumer(&broker, 65_535).await;
    for expected in numbers(5) {
        let job = job(&mut client).await;
        assert_eq!(text(&job), expected);
        done(&mut client, &job).await;
    }
    broker.metric_becomes("tidegate_work_queue_messages", |left| left == 0).await;
    assert_eq!(publisher.publish_acked(JOBS, "yes").await, ReasonCode::SUCCESS);
    assert_eq!(text(&job(&mut client).await), "yes");
}

#[tokio::test]
async fn a_full_queue_drops_the_oldest_where_the_operator_says_so() {
    let broker = Broker::start("[work_queue]\nmax_messages = 5\nwhen_full = \"drop_oldest\"").await;
    send(&broker, numbers(8)).await;
    let mut client = consumer(&broker, 65_535).await;
    for expected in ["3", "4", "5", "6", "7"] {
        assert_eq!(text(&job(&mut client).await), expected);
    }
    assert_eq!(broker.metric("tidegate_drops_total{reason=\"oldest\"}").await, 3);
}

#[tokio::test]
async fn too_many_queues_are_refused_by_name() {
    let broker = Broker::start("[work_queue]\nmax_queues = 2").await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    for (topic, expected) in
        [("queue/a", true), ("queue/b", true), ("queue/c", false), ("queue/a", true), ("plain", true)]
    {
        assert_eq!(!publisher.publish_acked(topic, "x").await.is_error(), expected, "{topic}");
    }
}

#[tokio::test]
async fn without_queues_their_topics_are_like_any_others() {
    let broker = Broker::start("[work_queue]\nmax_queues = 0").await;
    let mut publisher = Mqtt::connected(&broker, Version::V5).await;
    assert_eq!(publisher.publish_acked(JOBS, "kept by nobody").await, ReasonCode::NO_MATCHING_SUBSCRIBERS);
    let mut member = consumer(&broker, 10).await;
    assert_eq!(publisher.publish_acked(JOBS, "x").await, ReasonCode::SUCCESS);
    assert_eq!(text(&job(&mut member).await), "x");
}

#[tokio::test]
async fn a_queue_is_consumed_by_its_name_and_watched_by_anybody() {
    let broker = Broker::start("").await;
    let mut client = Mqtt::connected(&broker, Version::V5).await;
    let answers = client
        .subscribe_all(vec![
            mqtt::subscription("$share/queue/queue/+", QoS::AtLeastOnce),
            mqtt::subscription("queue/#", QoS::AtMostOnce),
        ])
        .await;
    assert_eq!(answers, [ReasonCode::TOPIC_FILTER_INVALID, ReasonCode::SUCCESS]);
    send(&broker, ["x".to_owned()]).await;
    assert_eq!(text(&job(&mut client).await), "x", "a copy");
    let mut consumer = consumer(&broker, 1).await;
    assert_eq!(text(&job(&mut consumer).await), "x", "the message");
}

#[tokio::test]
async fn a_session_that_comes_back_consumes_again_and_has_nothing_of_before() {
    let broker = Broker::start("").await;
    let lasting = || Connect { clean_start: false, ..mqtt::connect(Version::V3_1_1, "worker") };
    let mut worker = Mqtt::open(&broker, Version::V3_1_1, Ask::default()).await;
    worker.connect(lasting()).await;
    worker.subscribe(CONSUME, QoS::AtLeastOnce).await;
    send(&broker, ["a".to_owned()]).await;
    assert_eq!(text(&job(&mut worker).await), "a");
    drop(worker);
    broker.metric_becomes("tidegate_sessions_away", |count| count == 1).await;
    // While it is away another one gets what it had.
    let mut other = consumer(&broker, 1).await;
    let job_a = job(&mut other).await;
    assert_eq!((text(&job_a).as_str(), job_a.dup), ("a", false));
    done(&mut other, &job_a).await;
    other.disconnect(ReasonCode::SUCCESS).await;
    drop(other);
    broker.metric_becomes("tidegate_connections{protocol=\"mqtt\"}", |count| count == 0).await;
    send(&broker, ["b".to_owned()]).await;
    let mut worker = Mqtt::open(&broker, Version::V3_1_1, Ask::default()).await;
    assert!(worker.connect(lasting()).await.session_present);
    let job_b = job(&mut worker).await;
    assert_eq!((text(&job_b).as_str(), job_b.dup), ("b", false));
}

#[tokio::test]
async fn an_expired_message_is_given_to_nobody() {
    let broker = Broker::start_with("", |config| {
        config.work_queue.message_ttl = Some(Duration::from_millis(1));
    })
    .await;
    send(&broker, ["old".to_owned()]).await;
    broker.metric_becomes("tidegate_drops_total{reason=\"expired\"}", |count| count == 1).await;
}

#[tokio::test]
async fn queues_survive_a_restart_with_what_was_with_consumers() {
    let directory = TempDir::new().unwrap();
    let settings = stored(directory.path());
    let broker = Broker::start(&settings).await;
    let mut dying = consumer(&broker, 5).await;
    send(&broker, numbers(1500)).await;
    for expected in numbers(5) {
        assert_eq!(text(&job(&mut dying).await), expected);
    }
    drop(dying);
    broker.stop().await;

    let broker = Broker::start(&settings).await;
    assert_eq!(broker.metric("tidegate_work_queue_messages").await, 1500);
    let mut heir = consumer(&broker, 65_535).await;
    for expected in numbers(1500) {
        let job = job(&mut heir).await;
        assert_eq!((text(&job), job.dup), (expected, false));
        done(&mut heir, &job).await;
    }
    broker.metric_becomes("tidegate_work_queue_messages", |left| left == 0).await;
    drop(heir);
    broker.stop().await;

    let broker = Broker::start(&settings).await;
    assert_eq!(broker.metric("tidegate_work_queues").await, 0, "what was consumed does not come back");
}

#[tokio::test]
async fn a_long_queue_waits_on_the_disk_and_comes_back_in_pages() {
    let directory = TempDir::new().unwrap();
    let broker = Broker::start(&stored(directory.path())).await;
    send(&broker, numbers(1000)).await;
    let mut client = consumer(&broker, 65_535).await;
    for expected in numbers(1000) {
        let job = within("a job", job(&mut client)).await;
        assert_eq!(text(&job), expected);
        done(&mut client, &job).await;
    }
}

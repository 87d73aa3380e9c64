//! STOMP's own words over sockets: transactions as others see them, and the settings of `[stomp]` that change what a
//! frame means.

mod support;

use support::Broker;
use support::mqtt::{Mqtt, publish};
use support::stomp::Stomp;
use tidegate_protocol::mqtt::packet as mqtt;
use tidegate_protocol::stomp::Version;
use tidegate_protocol::stomp::frame::{Command, Frame};

fn frame(command: Command, headers: &[(&str, &str)]) -> Frame {
    let mut frame = Frame::new(command);
    for (name, value) in headers {
        frame = frame.with_header(*name, *value);
    }
    frame
}

#[tokio::test]
async fn nothing_of_a_transaction_is_seen_before_its_commit() {
    let broker = Broker::start("").await;
    let mut reader = Stomp::connected(&broker, Version::V1_1).await;
    reader.subscribe("a", "auto").await;
    let mut writer = Stomp::connected(&broker, Version::V1_2).await;
    let within = |payload: &'static str| Stomp::message("a", payload).with_header("transaction", "t");
    for end in [Command::Abort, Command::Commit] {
        writer.send_for_receipt(frame(Command::Begin, &[("transaction", "t")])).await;
        writer.send_for_receipt(within("1")).await;
        writer.send_for_receipt(within("2")).await;
        writer.send_for_receipt(Stomp::message("a", "outside")).await;
        writer.send_for_receipt(frame(end, &[("transaction", "t")])).await;
    }
    for expected in ["outside", "outside", "1", "2"] {
        assert_eq!(reader.delivery().await.body, expected);
    }
}

#[tokio::test]
async fn with_dots_the_topics_stay_what_they_are() {
    let broker = Broker::start("[stomp]\nseparator = \".\"").await;
    let mut client = Stomp::connected(&broker, Version::V1_2).await;
    client.subscribe("plant.*.t", "auto").await;
    client.send(&Stomp::message("plant.3%2E1.t", "x")).await;
    let message = client.delivery().await;
    assert_eq!(message.header("destination"), Some("/topic/plant.3%2E1.t"));
    // The same topic in MQTT's form.
    let mut mqtt = Mqtt::connected(&broker, mqtt::Version::V5).await;
    mqtt.publish(publish("plant/3.1/t", "y")).await;
    assert_eq!(client.delivery().await.body, "y");
}

async fn check_refused(setting: &str, frames: &[Frame], message: &str) {
    let broker = Broker::start(&format!("[stomp]\n{setting}")).await;
    let mut client = Stomp::connected(&broker, Version::V1_0).await;
    for frame in frames {
        client.send(frame).await;
    }
    let (error, _) = client.end().await;
    assert_eq!(error.as_ref().and_then(|error| error.header("message")), Some(message), "{setting}");
}

#[tokio::test]
async fn limits_are_those_of_the_file() {
    let begin = |name| frame(Command::Begin, &[("transaction", name)]);
    let send = || Stomp::message("a", "x").with_header("transaction", "t");
    check_refused(
        "max_transactions = 1",
        &[begin("t"), begin("u")],
        "the limit stomp.max_transactions = 1 is reached",
    )
    .await;
    check_refused(
        "max_transaction_actions = 1",
        &[begin("t"), send(), send()],
        "the limit stomp.max_transaction_actions = 1 is reached by transaction \"t\"",
    )
    .await;
    let selector =
        frame(Command::Subscribe, &[("id", "s"), ("destination", "a"), ("selector", "abcdefgh = 12345678")]);
    check_refused("max_selector_bytes = 16", &[selector], "bad header selector: it is longer than 16 bytes")
        .await;
}

//! Sessions and their subscriptions after a crash.

use super::world::*;

#[test]
fn a_session_and_its_subscriptions_survive() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a/+", QoS::AtLeastOnce)).0.unwrap();
    let group = Some(ShareName::parse("g", &TopicLimits::STANDARD).unwrap());
    run.subscribe(&mut guest, Subscribe { group, ..subscribe("b", QoS::AtLeastOnce) }).0.unwrap();
    let run = run.crash(MINUTE);
    for (topic, count) in [("a/1", 1), ("b", 1), ("c", 0)] {
        assert_eq!(run.publish(topic), count, "{topic}");
    }
    let mut guest = run.resume("c");
    assert!(guest.connected.session_present);
    let names = [
        (SubscriptionName::Filter { group: None, filter: filter("a/+") }, true),
        (SubscriptionName::Filter { group: None, filter: filter("b") }, false),
    ];
    let (names, known): (Vec<_>, Vec<_>) = names.into_iter().unzip();
    let (reply, _) = run.request(&mut guest.client, Request::Unsubscribe(names));
    assert!(matches!(reply, Some(Reply::Unsubscribed(found)) if found == known));
    let run = run.crash(MINUTE);
    assert_eq!((run.publish("a/1"), run.publish("b")), (0, 1), "what was unsubscribed stays so");
}

#[test]
fn every_option_of_a_subscription_survives() {
    let run = Run::first();
    let mut guest = run.resume("c");
    let asked = Subscribe {
        identifier: NonZeroU32::new(7),
        no_local: true,
        retain_as_published: true,
        overflow: Some(Overflow::DropNewest),
        conflate: Some(Duration::from_millis(250)),
        copies: Copies::PerSubscription,
        ..subscribe("a", QoS::ExactlyOnce)
    };
    run.subscribe(&mut guest, subscribe("a", QoS::AtMostOnce)).0.unwrap();
    run.subscribe(&mut guest, asked).0.unwrap();
    let before = run.stored();
    assert_eq!(before[0].subscriptions.len(), 1, "the second took the place of the first");
    let found = &before[0].subscriptions[0];
    assert_eq!((found.qos, found.no_local, found.retain_as_published), (QoS::ExactlyOnce, true, true));
    assert_eq!((found.identifier, found.conflate_ms), (NonZeroU32::new(7), Some(250)));
    assert_eq!((found.overflow, found.copies), (Overflow::DropNewest, Copies::PerSubscription));
    // Found again, and stored again as it was by whoever subscribes in its place.
    let run = run.crash(MINUTE);
    let guest = run.resume("c");
    assert_eq!(run.publish("a"), 1);
    assert_eq!(run.stored()[0].subscriptions, before[0].subscriptions);
    run.leave(guest);
}

#[test]
fn only_what_outlives_its_connection_waits_for_the_store() {
    let run = Run::first();
    for (id, expiry, waits) in [("short", Duration::ZERO, false), ("long", HOUR, true)] {
        let (guest, has_waited) = run.try_connect(connect(id, true, expiry));
        assert_eq!(has_waited, waits, "CONNACK of {id}");
        let mut guest = guest.unwrap();
        assert_eq!(run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).1, waits, "SUBACK of {id}");
        let name = SubscriptionName::Filter { group: None, filter: filter("a") };
        let (_, has_waited) = run.request(&mut guest.client, Request::Unsubscribe(vec![name]));
        assert_eq!(has_waited, waits, "UNSUBACK of {id}");
    }
    assert_eq!(run.names(), ["long"]);
}

#[test]
fn numbers_go_on_behind_those_that_were_there() {
    let run = Run::first();
    run.resume("a");
    run.resume("b");
    let known = run.stored();
    let run = run.crash(MINUTE);
    let mut guest = run.resume("a");
    for topic in ["1", "2"] {
        run.subscribe(&mut guest, subscribe(topic, QoS::AtLeastOnce)).0.unwrap();
    }
    let run = run.crash(MINUTE);
    let mut guest = run.resume("a");
    run.subscribe(&mut guest, subscribe("3", QoS::AtLeastOnce)).0.unwrap();
    run.resume("c");
    let found = run.stored();
    assert_eq!([found[0].key, found[1].key], [known[0].key, known[1].key]);
    assert!(found[2].key > known[1].key);
    let mut ids: Vec<_> = found[0].subscriptions.iter().map(|one| one.key.id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "two subscriptions with one id: {found:?}");
}

#[test]
fn qos_2_identifiers_survive() {
    let run = Run::first();
    run.resume("c");
    let key = run.stored()[0].key;
    run.writer.submit(vec![Change::InsertReceived(key, 9), Change::InsertReceived(key, 4)]).unwrap();
    assert_eq!(run.crash(MINUTE).resume("c").connected.received, [4, 9]);
}

#[test]
fn the_id_of_a_subscription_that_is_gone_is_not_given_again_while_messages_for_it_wait() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("old", QoS::AtLeastOnce)).0.unwrap();
    run.leave(guest);
    assert_eq!(run.publish("old"), 1);
    let mut guest = run.resume("c");
    let name = SubscriptionName::Filter { group: None, filter: filter("old") };
    run.request(&mut guest.client, Request::Unsubscribe(vec![name]));
    let run = run.crash(MINUTE);
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("new", QoS::AtLeastOnce)).0.unwrap();
    assert!(run.drain(&mut guest).is_empty(), "it was for the old one");
}

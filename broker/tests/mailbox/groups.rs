//! Members of groups, and what they leave to others.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use super::world::*;

#[test]
fn a_group_shares_and_members_that_are_there_go_first() {
    let mut world = World::new();
    let mut one = world.clean("one");
    let mut two = world.connect("two", HOUR);
    for guest in [&mut one, &mut two] {
        world.subscribe_as(guest, Some("g"), "t", AtLeastOnce);
    }
    for number in 0..4 {
        assert_eq!(world.publish(&number.to_string(), AtLeastOnce), 1);
    }
    assert_eq!(
        (world.drain(&mut one), world.drain(&mut two)),
        (vec!["0".into(), "2".into()], vec!["1".into(), "3".into()])
    );
    world.leave(two);
    world.publish("4", AtLeastOnce);
    world.publish("5", AtLeastOnce);
    assert_eq!(world.drain(&mut one), ["4", "5"]);
    world.leave(one);
    world.publish("6", AtLeastOnce);
    let mut two = world.connect("two", HOUR);
    assert_eq!(world.drain(&mut two), ["6"], "nobody else was left");
}

#[test]
fn what_a_member_leaves_behind_goes_to_another() {
    let mut world = World::new();
    let mut one = world.clean("one");
    world.subscribe_as(&mut one, Some("g"), "t", ExactlyOnce);
    world.publish("sent at 1", AtLeastOnce);
    world.publish("sent at 2", ExactlyOnce);
    world.publish("in hand", AtLeastOnce);
    world.publish("queued", ExactlyOnce);
    let got = world.take(&mut one, 3);
    world.assign(&mut one, &got[0], 1);
    world.assign(&mut one, &got[1], 2);
    let mut two = world.clean("two");
    world.subscribe_as(&mut two, Some("g"), "t", ExactlyOnce);
    world.leave(one);
    // [MQTT-4.8.2-5]: what was sent at QoS 2 is not sent to another client.
    assert_eq!(world.drain(&mut two), ["sent at 1", "in hand", "queued"]);
    assert_eq!(world.queued(), 0);
    assert_eq!(world.closed(), 1, "it is counted as a drop instead");
}

/// In a group or not. What PUBREC came for is the client's, so it is not lost.
#[test]
fn what_was_sent_at_qos_2_is_a_drop_when_the_session_ends_before_pubrec() {
    for group in [None, Some("g")] {
        let mut world = World::new();
        let mut one = world.connect("one", HOUR);
        world.subscribe_as(&mut one, group, "t", ExactlyOnce);
        for payload in ["received", "sent", "finished"] {
            world.publish(payload, ExactlyOnce);
        }
        let got = world.take(&mut one, 3);
        for (got, packet_id) in got.iter().zip(1..) {
            world.assign(&mut one, got, packet_id);
        }
        world.request(&mut one.client, Request::Received { tag: got[0].tag });
        world.settle(&mut one, got[2].tag);
        world.leave(one);
        assert_eq!(world.closed(), 0, "{group:?}: the client may come back");
        world.pass(HOUR);
        assert_eq!((world.sessions(), world.closed(), world.queued()), (0, 1, 0), "{group:?}");
    }
}

#[test]
fn unsubscribing_and_the_end_of_a_session_hand_on_what_waits() {
    let mut world = World::new();
    let mut one = world.connect("one", HOUR);
    world.subscribe_as(&mut one, Some("g"), "t", AtLeastOnce);
    world.publish("a", AtLeastOnce);
    let mut two = world.clean("two");
    world.subscribe_as(&mut two, Some("g"), "t", AtLeastOnce);
    let group = Some(ShareName::parse("g", &TopicLimits::STANDARD).unwrap());
    let name = SubscriptionName::Filter { group, filter: filter("t") };
    let reply = world.request(&mut one.client, Request::Unsubscribe(vec![name]));
    assert!(matches!(reply, Some(Reply::Unsubscribed(existed)) if existed == [true]));
    assert_eq!(world.drain(&mut two), ["a"]);

    world.leave(two);
    world.subscribe_as(&mut one, Some("g"), "t", AtLeastOnce);
    world.leave(one);
    world.publish("b", AtLeastOnce);
    let mut two = world.clean("two");
    world.subscribe_as(&mut two, Some("g"), "t", AtLeastOnce);
    world.pass(HOUR);
    assert_eq!(world.drain(&mut two), ["b"]);
}

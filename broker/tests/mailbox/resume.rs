//! A session that goes on: what was sent, and what was received.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use super::world::*;

#[test]
fn a_session_goes_on_with_what_was_sent_and_not_acknowledged() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", ExactlyOnce);
    for number in 0..4 {
        world.publish(&number.to_string(), ExactlyOnce);
    }
    let got = world.take(&mut guest, 3);
    world.assign(&mut guest, &got[0], 11);
    world.assign(&mut guest, &got[1], 12);
    world.request(&mut guest.client, Request::Received { tag: got[0].tag });
    // The third was handed over and not sent, the fourth is still queued.
    world.leave(guest);
    let mut guest = world.connect("c", HOUR);
    let resumed: Vec<_> = guest
        .connected
        .in_flight
        .iter()
        .map(|one| match &one.state {
            InFlightState::Received(tag) => (one.packet_id, *tag, None),
            InFlightState::Sent(delivery) => {
                (one.packet_id, delivery.tag, Some(delivery.publication.payload.clone()))
            }
        })
        .collect();
    assert_eq!(resumed, [(11, got[0].tag, None), (12, got[1].tag, Some(Bytes::from_static(b"1")))]);
    world.settle(&mut guest, got[0].tag);
    assert_eq!(world.drain(&mut guest), ["2", "3"]);
    world.leave(guest);
    let guest = world.connect("c", HOUR);
    let left: Vec<u16> = guest.connected.in_flight.iter().map(|one| one.packet_id).collect();
    assert_eq!(left, [12]);
}

#[test]
fn a_repeated_qos_2_publish_is_recognised_on_the_next_connection() {
    let mut world = World::new();
    let mut watcher = world.connect("w", HOUR);
    world.subscribe(&mut watcher, "t", ExactlyOnce);
    let mut guest = world.connect("c", HOUR);
    world.publish_by(&mut guest, "once", ExactlyOnce, Some(7));
    world.leave(guest);
    let mut guest = world.connect("c", HOUR);
    assert_eq!(guest.connected.received, [7]);
    world.publish_by(&mut guest, "once", ExactlyOnce, Some(7));
    assert_eq!(world.drain(&mut watcher), ["once"]);
    for known in [true, false] {
        let reply = world.request(&mut guest.client, Request::Release { packet_id: 7 });
        assert!(matches!(reply, Some(Reply::Released { packet_id: 7, known: found }) if found == known));
    }
    world.publish_by(&mut guest, "again", ExactlyOnce, Some(7));
    assert_eq!(world.drain(&mut watcher), ["again"]);
}

#[test]
fn a_refused_qos_2_publish_leaves_its_id_free() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    let mut publication = publication("x", ExactlyOnce);
    publication.topic = Topic::parse("$SYS/x", &TopicLimits::STANDARD).unwrap();
    let reply = world.request(&mut guest.client, publish(publication, Some(7)));
    assert!(matches!(reply, Some(Reply::Refused(_))));
    let reply = world.request(&mut guest.client, Request::Release { packet_id: 7 });
    assert!(matches!(reply, Some(Reply::Released { known: false, .. })));
}

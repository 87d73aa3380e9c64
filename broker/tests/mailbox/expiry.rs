//! When sessions end, and how many there may be.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use super::world::*;

#[test]
fn a_session_ends_when_its_time_is_over_and_not_before() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.pass(2 * HOUR);
    world.leave(guest);
    world.pass(HOUR - Duration::from_secs(1));
    assert_eq!(world.publish("x", AtLeastOnce), 1);
    world.pass(Duration::from_secs(1));
    assert_eq!((world.sessions(), world.queued(), world.publish("x", AtLeastOnce)), (0, 0, 0));
    assert!(!world.connect("c", HOUR).connected.session_present);
}

#[test]
fn the_expiry_is_cut_and_may_change_at_the_goodbye() {
    let mut world = World::new();
    let mut guest = world.connect("c", 100 * HOUR);
    assert_eq!(guest.connected.session_expiry, 24 * HOUR);
    let goodbye = |session_expiry| Request::Disconnect { will: WillFate::Discard, session_expiry };
    world.request(&mut guest.client, goodbye(Some(HOUR)));
    world.leave(guest);
    world.pass(HOUR);
    assert_eq!(world.sessions(), 0);
    let mut guest = world.connect("c", HOUR);
    world.request(&mut guest.client, goodbye(Some(Duration::ZERO)));
    world.leave(guest);
    assert_eq!(world.sessions(), 0);
}

#[test]
fn there_are_no_more_sessions_than_allowed() {
    let mut world = World::with(|rules| rules.sessions_max = 2);
    let first = world.connect("a", HOUR);
    world.leave(first);
    let _second = world.connect("b", HOUR);
    let refused = world.try_connect(connect("c", false, HOUR)).err();
    assert_eq!(refused, Some(Refusal::Quota { name: "mqtt.max_sessions", limit: 2 }));
    world.clean("c");
    assert!(world.connect("a", HOUR).connected.session_present);
    // One takes the other's place.
    world.try_connect(connect("a", true, HOUR)).unwrap();
    assert_eq!(world.sessions(), 2);
}

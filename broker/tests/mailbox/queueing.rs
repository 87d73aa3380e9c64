//! What waits for a client that is away, or behind a full outbox.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use super::world::*;

#[test]
fn what_is_published_while_the_client_is_away_comes_in_order_when_it_is_back() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    assert!(!guest.connected.session_present);
    world.subscribe(&mut guest, "t", ExactlyOnce);
    world.leave(guest);
    for number in 0..5 {
        assert_eq!(world.publish(&number.to_string(), AtLeastOnce), 1);
    }
    assert_eq!(world.publish("nobody is there", AtMostOnce), 0);
    assert_eq!(world.queued(), 5);
    let mut guest = world.connect("c", HOUR);
    assert!(guest.connected.session_present);
    assert_eq!(world.drain(&mut guest), numbers(0..5));
    assert_eq!(world.queued(), 0);
    world.publish("5", AtLeastOnce);
    assert_eq!(world.drain(&mut guest), ["5"], "its subscription goes on");
}

#[test]
fn beyond_the_limit_the_oldest_go_and_the_client_that_comes_back_is_told() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    for number in 0..QUEUE + 3 {
        world.publish(&number.to_string(), AtLeastOnce);
    }
    assert_eq!(world.queued(), QUEUE);
    let told = Connect { lag: LagNotice::Separate, ..connect("c", false, HOUR) };
    let mut guest = world.try_connect(told).unwrap();
    assert_eq!(guest.outbox.take_lag().map(|lag| lag.dropped), Some(3));
    assert_eq!(world.drain(&mut guest), numbers(3..QUEUE + 3));
}

#[test]
fn with_drop_newest_the_first_ones_stay() {
    let mut world = World::with(|rules| rules.overflow_offline = Overflow::DropNewest);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    for number in 0..QUEUE + 3 {
        world.publish(&number.to_string(), AtLeastOnce);
    }
    let mut guest = world.connect("c", HOUR);
    assert_eq!(world.drain(&mut guest), numbers(0..QUEUE));
}

#[test]
fn a_full_outbox_overflows_into_the_session_and_not_into_a_disconnect() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    for number in 0..2 * QUEUE {
        world.publish(&number.to_string(), AtLeastOnce);
    }
    assert!(guest.outbox.is_open());
    assert_eq!(world.drain(&mut guest), numbers(0..2 * QUEUE));
    assert_eq!(world.queued(), 0);
}

//! Wills and their delays.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use super::world::*;

#[test]
fn a_will_goes_at_its_delay_or_at_the_end_of_the_session() {
    let second = Duration::from_secs(1);
    for (expiry, delay, at) in [
        (HOUR, Duration::ZERO, Duration::ZERO),
        (HOUR, 5 * second, 5 * second),
        (3 * second, 5 * second, 3 * second),
        (Duration::ZERO, 5 * second, Duration::ZERO),
    ] {
        let mut world = World::new();
        let mut watcher = world.connect("w", HOUR);
        world.subscribe(&mut watcher, "t", AtLeastOnce);
        let guest = world.try_connect(with_will("c", false, expiry, delay)).unwrap();
        world.leave(guest);
        if !at.is_zero() {
            world.pass(at - Duration::from_millis(1));
            assert!(world.drain(&mut watcher).is_empty(), "{expiry:?} {delay:?}");
            world.pass(Duration::from_millis(1));
        }
        assert_eq!(world.drain(&mut watcher), ["will"], "{expiry:?} {delay:?}");
        world.pass(2 * HOUR);
        assert!(world.drain(&mut watcher).is_empty());
    }
}

#[test]
fn a_delayed_will_is_dropped_when_the_client_comes_back_unless_the_session_ends() {
    for (clean_start, is_away, expected) in
        [(false, true, 0), (false, false, 0), (true, true, 1), (true, false, 1)]
    {
        let mut world = World::new();
        let mut watcher = world.connect("w", HOUR);
        world.subscribe(&mut watcher, "t", AtLeastOnce);
        let mut guest = world.try_connect(with_will("c", false, HOUR, HOUR / 2)).unwrap();
        if is_away {
            world.end(&mut guest);
        }
        let _new = world.try_connect(connect("c", clean_start, HOUR)).unwrap();
        world.end(&mut guest);
        world.pass(2 * HOUR);
        assert_eq!(world.drain(&mut watcher).len(), expected, "clean {clean_start} away {is_away}");
    }
}

#[test]
fn a_will_that_is_due_is_published_though_the_client_comes_back_before_the_timer() {
    let second = Duration::from_secs(1);
    for (expiry, delay, clean_start) in
        [(3 * second, 5 * second, false), (3 * second, 5 * second, true), (HOUR, 5 * second, false)]
    {
        let mut world = World::new();
        let mut watcher = world.connect("w", HOUR);
        world.subscribe(&mut watcher, "t", AtLeastOnce);
        let guest = world.try_connect(with_will("c", false, expiry, delay)).unwrap();
        world.leave(guest);
        world.now += 5 * second;
        let _new = world.try_connect(connect("c", clean_start, HOUR)).unwrap();
        assert_eq!(world.drain(&mut watcher), ["will"], "{expiry:?} {clean_start}");
        world.pass(2 * HOUR);
        assert!(world.drain(&mut watcher).is_empty(), "{expiry:?} {clean_start}");
    }
}

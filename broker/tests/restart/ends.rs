//! What ends while the broker is down, and what has ended stays so.

use super::world::*;

#[test]
fn time_goes_on_while_the_broker_is_down() {
    let run = Run::first();
    run.leave(run.resume("c"));
    let mut run = run.crash(40 * MINUTE);
    assert_eq!(run.names(), ["c"]);
    run.pass(19 * MINUTE);
    assert_eq!(run.names(), ["c"]);
    run.pass(2 * MINUTE);
    assert!(run.names().is_empty(), "an hour after it had left");
    run.leave(run.resume("d"));
    let run = run.crash(61 * MINUTE);
    assert!(run.names().is_empty());
    assert_eq!(run.broker.metrics().sessions_away.value(), 0);
    assert!(!run.is_present("d"));
}

#[test]
fn who_was_connected_at_the_crash_is_away_from_the_start_on() {
    let run = Run::first();
    let _connected = run.resume("c");
    let mut run = run.crash(5 * HOUR);
    run.pass(59 * MINUTE);
    assert_eq!(run.names(), ["c"]);
    assert_eq!(run.broker.metrics().sessions_away.value(), 1);
    run.pass(2 * MINUTE);
    assert!(run.names().is_empty());
}

#[test]
fn another_crash_does_not_begin_the_time_of_a_session_and_of_its_will_anew() {
    let run = Run::first();
    let _connected_to_the_end = run.connect(with_will("c", HOUR, 50 * MINUTE));
    let run = run.crash(MINUTE).crash(40 * MINUTE);
    assert_eq!(run.retained().len(), 0);
    let run = run.crash(15 * MINUTE);
    assert_eq!(run.retained(), ["gone"], "55 minutes after the first start");
    assert!(!run.crash(10 * MINUTE).is_present("c"));
}

#[test]
fn a_session_without_end_has_none_after_a_restart_either() {
    let run = Run::first();
    let forever = Duration::from_secs(u32::MAX.into());
    run.leave(run.connect(connect("c", false, forever)));
    let run = run.crash(365 * 24 * HOUR).crash(365 * 24 * HOUR);
    assert!(run.is_present("c"));
    assert_eq!(run.broker.metrics().sessions_away.value(), 0);
}

#[test]
fn deleted_sessions_stay_deleted() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    let (again, waits) = run.try_connect(connect("c", true, Duration::ZERO));
    assert!(again.is_ok() && waits, "nobody is told before the store is");
    let run = run.crash(MINUTE);
    assert!(!run.is_present("c"));
    assert_eq!(run.publish("a"), 0);

    // A new one in its place has nothing of it.
    let mut guest = run.resume("d");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    run.connect(connect("d", true, HOUR));
    let run = run.crash(MINUTE);
    assert_eq!(run.publish("a"), 0);
    assert!(run.is_present("d"));

    // It ends with its last connection, at the goodbye.
    let mut guest = run.resume("e");
    let goodbye = Request::Disconnect { will: WillFate::Discard, session_expiry: Some(Duration::ZERO) };
    run.request(&mut guest.client, goodbye);
    run.leave(guest);
    assert!(!run.names().contains(&"e".to_owned()));
}

#[test]
fn a_longer_expiry_at_the_goodbye_holds_after_a_restart() {
    let run = Run::first();
    let mut guest = run.resume("c");
    let goodbye = Request::Disconnect { will: WillFate::Discard, session_expiry: Some(5 * HOUR) };
    run.request(&mut guest.client, goodbye);
    run.leave(guest);
    let run = run.crash(4 * HOUR);
    assert!(run.is_present("c"));
}

#[test]
fn of_two_sessions_of_one_name_the_later_one_stays() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    let first = run.stored().remove(0);
    let later = SessionKey(first.key.0 + 1);
    run.writer.submit(vec![Change::PutSession(later, Box::new(first.record))]).unwrap();
    let run = run.crash(MINUTE);
    assert_eq!(run.publish("a"), 0);
    assert!(run.is_present("c"));
    let found = run.stored();
    assert_eq!(found.iter().map(|session| session.key).collect::<Vec<_>>(), [later]);
    run.broker.observe();
    assert_eq!(run.broker.metrics().sessions.value(), 1);
}

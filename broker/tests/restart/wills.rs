//! Wills of those who were there at the crash, and of those who were away.

use super::world::*;

#[test]
fn a_will_comes_when_its_delay_is_over() {
    let away = Run::first();
    away.leave(away.connect(with_will("c", HOUR, 10 * MINUTE)));
    let mut run = away.crash(5 * MINUTE);
    run.pass(4 * MINUTE);
    assert!(run.retained().is_empty());
    run.pass(2 * MINUTE);
    assert_eq!(run.retained(), ["gone"]);
    assert_eq!(run.stored()[0].record.will, None, "it is published once");

    // It was due while the broker was down; of a session that goes on, and of one that is over.
    for down in [20 * MINUTE, 2 * HOUR] {
        let away = Run::first();
        away.leave(away.connect(with_will("c", HOUR, 10 * MINUTE)));
        let run = away.crash(down);
        assert_eq!(run.retained(), ["gone"], "{down:?}");
        assert_eq!(run.names().is_empty(), down > HOUR, "{down:?}");
    }
}

#[test]
fn the_will_of_who_was_connected_at_the_crash_has_its_delay_before_it() {
    let run = Run::first();
    let _connected = run.connect(with_will("c", HOUR, 10 * MINUTE));
    let mut run = run.crash(20 * MINUTE);
    assert!(run.retained().is_empty());
    run.pass(11 * MINUTE);
    assert_eq!(run.retained(), ["gone"]);

    let run = Run::first();
    let _connected = run.connect(with_will("c", HOUR, Duration::ZERO));
    assert_eq!(run.crash(MINUTE).retained(), ["gone"], "without a delay it is due at once");
}

#[test]
fn who_comes_back_in_time_has_no_will() {
    let run = Run::first();
    run.leave(run.connect(with_will("c", HOUR, 10 * MINUTE)));
    let run = run.crash(MINUTE);
    run.leave(run.resume("c"));
    let mut run = run.crash(MINUTE);
    run.pass(30 * MINUTE);
    assert!(run.retained().is_empty());
    assert_eq!(run.names(), ["c"]);
}

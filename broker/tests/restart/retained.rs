//! Retained messages after a crash, and what subscriptions are still owed of them.

use super::world::*;

#[test]
fn retained_messages_survive_until_they_expire() {
    let run = Run::first();
    let in_minutes = |minutes: u64| START_MS + minutes * 60_000;
    let changes = [("a", None), ("b", Some(in_minutes(10))), ("c", Some(in_minutes(3)))];
    let changes = changes.iter().map(|(topic, expires_at_ms)| retained(topic, *expires_at_ms)).collect();
    run.writer.submit(changes).unwrap();
    let mut run = run.crash(5 * MINUTE);
    assert_eq!(run.retained(), ["a", "b"]);
    let stats = |run: &Run| {
        run.settle();
        run.disk.stats().unwrap().retained
    };
    assert_eq!(stats(&run), 2, "what has expired is removed from the disk too");
    run.pass(6 * MINUTE);
    assert_eq!(run.retained(), ["a"]);
    run.broker.sweep(run.now.instant);
    assert_eq!(stats(&run), 1, "without a restart, too");
}

#[test]
fn retained_messages_that_do_not_fit_any_more_stay_on_the_disk() {
    let run = Run::first();
    run.writer.submit(["a", "b", "c", "d"].map(|topic| retained(topic, None)).into()).unwrap();
    let run = run.crash(MINUTE);
    assert_eq!(run.retained().len(), 3, "as many as the limit has room for");
    let run = run.crash_and_start(MINUTE, |rules| rules.retain = false);
    assert!(run.retained().is_empty());
    assert_eq!(run.disk.stats().unwrap().retained, 4);
}

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

#[test]
fn what_a_subscription_is_owed_at_a_crash_comes_after_it_once() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let run = Run::first();
        run.retain("a", qos);
        run.retain("b", qos);
        let mut guest = run.resume("c");
        run.subscribe(&mut guest, subscribe("#", qos)).0.unwrap();
        let run = run.crash(MINUTE);
        let mut guest = run.resume("c");
        let mut got = run.drain(&mut guest);
        got.sort_unstable();
        assert_eq!(got, ["a", "b"], "{qos:?}");
        assert_eq!(run.stored()[0].subscriptions.len(), 1);
        let run = run.crash(MINUTE);
        let mut guest = run.resume("c");
        assert!(run.drain(&mut guest).is_empty(), "{qos:?}");
    }
}

#[test]
fn a_retained_message_under_way_at_a_crash_keeps_its_identifier() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let run = Run::first();
        run.retain("a", qos);
        let mut guest = run.resume("c");
        run.subscribe(&mut guest, subscribe("a", qos)).0.unwrap();
        let taken = run.take(&mut guest);
        assert_eq!(taken.len(), 1);
        assert!(taken[0].is_retained && taken[0].retain && !taken[0].dup);
        let packet_id = run.assign(&mut guest, &taken[0]);
        let run = run.crash(MINUTE);
        let mut guest = run.resume("c");
        let again = run.take(&mut guest);
        assert_eq!(again.len(), 1, "{qos:?}");
        assert!(again[0].is_retained && again[0].retain && again[0].dup);
        assert_eq!(run.assign(&mut guest, &again[0]), packet_id, "{qos:?}");
    }
}

#[test]
fn who_subscribes_again_as_known_is_owed_what_it_was_owed() {
    let run = Run::first();
    run.retain("a", QoS::AtLeastOnce);
    let if_new = || Subscribe { retained: RetainHandling::SendIfNew, ..subscribe("a", QoS::AtLeastOnce) };
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, if_new()).0.unwrap();
    let run = run.crash(MINUTE);
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, if_new()).0.unwrap();
    let run = run.crash(MINUTE);
    let mut guest = run.resume("c");
    assert_eq!(run.drain(&mut guest), ["a"]);
    run.subscribe(&mut guest, if_new()).0.unwrap();
    assert!(run.drain(&mut guest).is_empty(), "it has it");
}

#[test]
fn whoever_has_unsubscribed_is_owed_nothing() {
    let run = Run::first();
    run.retain("a", QoS::AtLeastOnce);
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    let name = SubscriptionName::Filter { group: None, filter: filter("a") };
    run.request(&mut guest.client, Request::Unsubscribe(vec![name]));
    let run = run.crash(MINUTE);
    assert!(run.drain(&mut run.resume("c")).is_empty());
}

#[test]
fn retained_messages_go_on_while_the_disk_fails_and_are_owed_still() {
    for is_found_out in [true, false] {
        let run = Run::first();
        run.retain("a", QoS::AtLeastOnce);
        let mut guest = run.resume("c");
        run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
        run.settle();
        run.disk.is_broken.store(true, Ordering::Relaxed);
        if is_found_out {
            run.writer.submit(vec![retained("b", None)]).unwrap();
            run.settle();
        }
        assert_eq!(run.drain(&mut guest), ["a"], "known before: {is_found_out}");
        run.disk.is_broken.store(false, Ordering::Relaxed);
        run.settle();
        let run = run.crash(MINUTE);
        assert_eq!(run.drain(&mut run.resume("c")), ["a"], "nobody knows that it has arrived");
    }
}

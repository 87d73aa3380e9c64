//! A newer value in the place of an older one, at once or in turns.

use std::time::Duration;

use tidegate::outbox::queue::{Pushed, Signals};
use tidegate_protocol::session::DropReason;

use crate::rig::{Client, Kind, PLAIN, WIDE, long, new_entry};

const CONFLATED: Kind = Kind { conflate: Some(Duration::ZERO), ..PLAIN };

#[test]
fn a_newer_value_takes_the_place_of_the_older_one() {
    // Short lanes are scanned, long ones have an index.
    for topics in [3, 15, 16, 17, 100] {
        let client = Client::stalled(WIDE);
        let latest = client.subscription(CONFLATED);
        let values = |value: usize| (0..topics).map(move |topic| format!("t{topic}={value}"));
        for text in values(1) {
            client.push_all(&latest, &[&text]);
        }
        for text in values(2).collect::<Vec<_>>().iter().rev() {
            assert_eq!(client.push(&latest, text), Pushed::Made(DropReason::Conflated, 1));
        }
        assert_eq!(client.queued(), topics);
        assert_eq!(client.drain(), values(2).collect::<Vec<_>>(), "{topics} topics");
    }
}

#[test]
fn a_value_conflates_only_with_its_own_subscription() {
    let client = Client::stalled(WIDE);
    let [one, two] = [1, 2].map(|id| client.subscription(Kind { id, ..CONFLATED }));
    client.push_all(&one, &["a=1"]);
    client.push_all(&two, &["a=2"]);
    assert_eq!(client.drain(), ["a=1", "a=2"]);
}

#[test]
fn a_value_does_not_take_the_place_of_one_whose_subscription_has_ended() {
    let client = Client::stalled(WIDE);
    let (old, new) = (client.subscription(CONFLATED), client.subscription(CONFLATED));
    client.push_all(&old, &["a=1"]);
    old.end();
    client.push_all(&new, &["c=1", "a=2"]);
    assert_eq!(client.drain(), ["c=1", "a=2"]);
    assert_eq!(client.drops(DropReason::Conflated), 0, "the old one is no loss of the new subscription");
}

#[test]
fn a_queue_counts_the_bytes_of_the_newest_value_alone() {
    let client = Client::stalled(WIDE);
    let latest = client.subscription(CONFLATED);
    client.push_all(&latest, &[&long("1", 100)]);
    let small = client.outbox.queued_bytes();
    client.push(&latest, &long("2", 1100));
    assert_eq!(client.outbox.queued_bytes(), small + 2 * 1000);
    client.push(&latest, &long("3", 100));
    assert_eq!(client.outbox.queued_bytes(), small);
    assert_eq!(client.drain(), ["t=3"]);
    assert_eq!(client.outbox.queued_bytes(), 0);
}

#[test]
fn a_value_that_has_been_written_is_not_replaced() {
    let client = Client::stalled(WIDE);
    let latest = client.subscription(CONFLATED);
    client.push_all(&latest, &["a=1"]);
    assert_eq!(client.drain(), ["a=1"]);
    client.push_all(&latest, &["a=2"]);
    assert_eq!(client.drain(), ["a=1", "a=2"]);
}

#[test]
fn an_interval_lets_one_value_go_at_a_time_and_the_last_one_at_last() {
    const INTERVAL_MS: u64 = 100;
    let mut client = Client::stalled(WIDE);
    let kind = Kind { conflate: Some(Duration::from_millis(INTERVAL_MS)), ..PLAIN };
    let paced = client.subscription(kind);
    let mut times = Vec::new();
    // A value each 7 ms for about a second, then silence.
    for tick in 0..1500_u64 {
        if tick % 7 == 0 && tick < 1000 {
            client.push(&paced, &format!("a={tick}"));
        }
        client.outbox.release_paced(client.now);
        let count = client.drain().len();
        times.resize(count, tick);
        client.pass(1);
    }
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(times.first(), Some(&0), "the first does not wait");
    assert_eq!(gaps, [INTERVAL_MS; 10]);
    assert_eq!(client.arrived().last().map(String::as_str), Some("a=994"));
    assert_eq!(client.queued(), 0);
}

#[test]
fn the_owner_is_told_when_a_value_waits_for_its_turn() {
    let client = Client::stalled(WIDE);
    let interval = Duration::from_millis(100);
    let paced = client.subscription(Kind { conflate: Some(interval), ..PLAIN });
    assert_eq!(client.outbox.next_paced(), None);
    client.push_all(&paced, &["a=1", "a=2"]);
    assert!(client.signals().contains(Signals::PACED));
    assert_eq!(client.outbox.next_paced(), Some(client.now + interval));
    assert_eq!(client.drain(), ["a=1"]);
}

#[test]
fn topics_are_paced_each_on_its_own() {
    let mut client = Client::stalled(WIDE);
    let paced = client.subscription(Kind { conflate: Some(Duration::from_millis(100)), ..PLAIN });
    let mut check = |ms, pushes: &[&str], arrived: &[&str]| {
        client.pass(ms);
        client.push_all(&paced, pushes);
        client.outbox.release_paced(client.now);
        assert_eq!(client.drain(), arrived);
    };
    check(0, &["a=1", "a=2"], &["a=1"]);
    check(60, &["c=1", "c=2"], &["a=1", "c=1"]);
    check(40, &[], &["a=1", "c=1", "a=2"]);
    check(60, &[], &["a=1", "c=1", "a=2", "c=2"]);
}

#[test]
fn a_value_at_the_end_of_the_interval_does_not_wait() {
    for (ms, arrives) in [(99, vec!["a=1"]), (100, vec!["a=1", "a=2"])] {
        let mut client = Client::stalled(WIDE);
        let paced = client.subscription(Kind { conflate: Some(Duration::from_millis(100)), ..PLAIN });
        client.push_all(&paced, &["a=1"]);
        assert_eq!(client.drain(), ["a=1"]);
        client.pass(ms);
        client.push_all(&paced, &["a=2"]);
        assert_eq!(client.drain(), arrives, "after {ms} ms");
    }
}

#[test]
fn a_value_whose_turn_comes_replaces_the_one_that_the_socket_has_not_taken() {
    let mut client = Client::stalled(WIDE);
    let paced = client.subscription(Kind { conflate: Some(Duration::from_millis(100)), ..PLAIN });
    client.push_all(&paced, &["a=1", "c=1", "a=2"]);
    client.pass(100);
    client.outbox.release_paced(client.now);
    assert_eq!(client.drain(), ["a=2", "c=1"]);
    assert_eq!((client.queued(), client.drops(DropReason::Conflated)), (0, 1));
}

#[test]
fn a_retained_value_is_not_followed_by_the_older_one_that_waited() {
    let mut client = Client::stalled(WIDE);
    let paced = client.subscription(Kind { conflate: Some(Duration::from_millis(100)), ..PLAIN });
    client.push_all(&paced, &["a=1", "a=2"]);
    let retained = new_entry(&paced, Client::publication("a=3"), true);
    client.outbox.push_retained(std::iter::once(retained));
    client.pass(100);
    client.outbox.release_paced(client.now);
    assert_eq!(client.drain(), ["a=1", "a=3"]);
    assert_eq!((client.queued(), client.drops(DropReason::Conflated)), (0, 1));
}

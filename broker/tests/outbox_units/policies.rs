//! What each policy does at the mark, and what the client is told of it.

use tidegate::outbox::queue::{Limits, Pushed, Signals};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{CloseKind, CloseReason, DropReason, Overflow};

use crate::rig::{Client, Kind, PLAIN, WIDE, long};

/// What one more push does to a full outbox.
struct Overflowing {
    policy: Overflow,
    qos: QoS,
    /// Subscription and text, up to the mark.
    queued: &'static [(u32, &'static str)],
    one_more: (u32, &'static str),
    pushed: Pushed,
    arrives: &'static [&'static str],
}

fn check_overflow(case: &Overflowing) {
    let client = Client::at_mark(case.queued.len());
    let of = |id| client.subscription(Kind { id, qos: case.qos, overflow: case.policy, ..PLAIN });
    let subscriptions = [of(0), of(1), of(2)];
    for (id, text) in case.queued {
        client.push_all(&subscriptions[*id as usize], &[text]);
    }
    let (id, text) = case.one_more;
    assert_eq!(client.push(&subscriptions[id as usize], text), case.pushed, "{text}");
    assert_eq!(client.queued(), case.arrives.len());
    assert_eq!(client.drain(), case.arrives);
    assert_eq!(client.queued(), 0);
}

#[test]
fn drop_oldest_removes_the_oldest_of_its_own_subscription() {
    let case = Overflowing {
        policy: Overflow::DropOldest,
        qos: QoS::AtMostOnce,
        queued: &[(2, "c=1"), (1, "a=1"), (2, "c=2"), (1, "a=2")],
        one_more: (1, "a=3"),
        pushed: Pushed::Made(DropReason::Oldest, 1),
        arrives: &["c=1", "c=2", "a=2", "a=3"],
    };
    check_overflow(&case);
    check_overflow(&Overflowing { qos: QoS::AtLeastOnce, ..case });
}

#[test]
fn drop_oldest_drops_the_incoming_one_when_the_others_fill_the_queue() {
    check_overflow(&Overflowing {
        policy: Overflow::DropOldest,
        qos: QoS::AtMostOnce,
        queued: &[(1, "a=1"), (2, "c=1"), (1, "a=2")],
        one_more: (0, "z=1"),
        pushed: Pushed::Dropped(DropReason::Oldest),
        arrives: &["a=1", "c=1", "a=2"],
    });
}

#[test]
fn drop_newest_drops_the_incoming_one() {
    check_overflow(&Overflowing {
        policy: Overflow::DropNewest,
        qos: QoS::AtMostOnce,
        queued: &[(1, "a=1"), (1, "a=2")],
        one_more: (1, "a=3"),
        pushed: Pushed::Dropped(DropReason::Newest),
        arrives: &["a=1", "a=2"],
    });
}

#[test]
fn the_conflate_policy_replaces_at_the_mark_and_not_before() {
    check_overflow(&Overflowing {
        policy: Overflow::Conflate,
        qos: QoS::AtMostOnce,
        queued: &[(1, "a=1"), (1, "c=1"), (1, "a=2")],
        one_more: (1, "a=3"),
        pushed: Pushed::Made(DropReason::Conflated, 1),
        arrives: &["a=1", "c=1", "a=3"],
    });
}

#[test]
fn the_conflate_policy_makes_room_for_a_topic_that_is_not_queued() {
    check_overflow(&Overflowing {
        policy: Overflow::Conflate,
        qos: QoS::AtMostOnce,
        queued: &[(2, "a=0"), (1, "a=1"), (1, "c=1")],
        one_more: (1, "d=1"),
        pushed: Pushed::Made(DropReason::Oldest, 1),
        arrives: &["a=0", "c=1", "d=1"],
    });
}

#[test]
fn drop_oldest_makes_as_much_room_in_bytes_as_the_incoming_one_needs() {
    // A small one counts 2 × 4 + 576 bytes, the large one 2 × 1203 + 576.
    let client = Client::stalled(Limits { bytes_max: 6 * 600, ..WIDE });
    let plain = client.subscription(PLAIN);
    client.push_all(&plain, &["t=1", "t=2", "t=3", "t=4", "t=5", "t=6"]);
    let pushed = client.push(&plain, &long("large", 1200));
    assert_eq!(pushed, Pushed::Made(DropReason::Oldest, 5));
    assert!(client.outbox.queued_bytes() <= 6 * 600);
    assert_eq!(client.drain(), ["t=6", "t=large"]);
}

#[test]
fn disconnect_orders_a_close_and_queues_nothing_more() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let client = Client::at_mark(2);
        let strict = client.subscription(Kind { overflow: Overflow::Disconnect, qos, ..PLAIN });
        let _earlier = client.signals();
        client.push_all(&strict, &["1", "2"]);
        assert_eq!(client.outbox.order(), None);
        assert_eq!(client.push(&strict, "3"), Pushed::Closed);
        assert!(client.signals().contains(Signals::ORDER));
        assert_eq!(client.outbox.order().map(|order| order.kind), Some(CloseKind::TooSlow));
        assert_eq!(client.drops(DropReason::Closed), 1, "the one too many is counted");
        assert_eq!(client.push(&client.subscription(Kind { id: 5, ..PLAIN }), "4"), Pushed::Closed);
    }
}

#[test]
fn the_first_order_to_close_stays() {
    let client = Client::stalled(WIDE);
    client.outbox.order_close(CloseReason::new(CloseKind::TooSlow, "first"));
    client.outbox.order_close(CloseReason::normal());
    assert_eq!(client.outbox.order(), Some(CloseReason::new(CloseKind::TooSlow, "first")));
}

#[test]
fn each_loss_is_told_once_with_the_topics_it_hit() {
    let client = Client::at_mark(1);
    let newest = client.subscription(Kind { overflow: Overflow::DropNewest, ..PLAIN });
    client.push_all(&newest, &["a"]);
    for n in 0..12 {
        assert_eq!(client.push(&newest, &format!("t{n}=x")), Pushed::Dropped(DropReason::Newest));
        assert_eq!(client.push(&newest, &format!("t{n}=y")), Pushed::Dropped(DropReason::Newest));
    }
    assert!(client.signals().contains(Signals::LAG));
    let lag = client.outbox.take_lag().expect("something was lost");
    let named: Vec<String> = lag.topics.iter().map(|topic| topic.as_str().to_owned()).collect();
    assert_eq!((lag.dropped, lag.conflated), (24, 0));
    assert_eq!(named, ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"]);
    assert!(client.outbox.take_lag().is_none());
}

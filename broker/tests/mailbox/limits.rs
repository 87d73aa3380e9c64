//! Marks, publishers that are held, and what makes room.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use super::world::*;

#[test]
fn a_publisher_is_told_of_a_session_over_its_mark_in_the_middle_of_a_batch() {
    let limits = Limits { messages_max: QUEUE, bytes_max: 1 << 20, publish_wait: HOUR, slow_after: HOUR };
    let mut world = World::with_limits(|_| (), limits);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    let mut publisher = world.clean("p");
    let peer = Peer { ip: [127, 0, 0, 1].into(), is_forwarded: false };
    let mut batch = Batch::default();
    for number in 0..=QUEUE {
        let publication = publication(&number.to_string(), AtLeastOnce);
        let request = publish(publication, None);
        let now = Now { instant: world.now, unix_ms: 0 };
        world.broker.handle(&mut publisher.client, &peer, request, now, &mut batch);
        assert_eq!(batch.slow.len(), usize::from(number == QUEUE), "after {number}");
    }
    batch.flush(world.now);
    assert_eq!(world.drain(&mut guest), numbers(0..QUEUE + 1));
}

/// Nobody gives up waiting for room.
const PATIENT: Limits = Limits { publish_wait: HOUR, slow_after: HOUR, ..IMPATIENT };

/// A client that comes back and finds a full queue of numbers from 0, and a publisher that is told of it.
fn behind_its_mark(world: &mut World, group: Option<&str>) -> (Guest, Guest) {
    let mut guest = world.connect("c", HOUR);
    world.subscribe_as(&mut guest, group, "t", AtLeastOnce);
    world.leave(guest);
    for number in 0..world.broker.shared().limits.messages_max {
        world.publish(&number.to_string(), AtLeastOnce);
    }
    (world.connect("c", HOUR), world.clean("p"))
}

/// Publishes, and gives whether the publisher has to wait. It waits then.
fn is_held(world: &World, publisher: &mut Guest, payload: &str) -> bool {
    is_held_at(world, publisher, payload, AtLeastOnce)
}

fn is_held_at(world: &World, publisher: &mut Guest, payload: &str, qos: QoS) -> bool {
    let peer = Peer { ip: [127, 0, 0, 1].into(), is_forwarded: false };
    let mut batch = Batch::default();
    let request = publish(publication(payload, qos), None);
    let now = Now { instant: world.now, unix_ms: 0 };
    world.broker.handle(&mut publisher.client, &peer, request, now, &mut batch);
    batch.flush(world.now);
    batch.slow.iter().any(|slow| slow.wait_for_room(&publisher.outbox))
}

fn is_let_go(publisher: &Guest) -> bool {
    publisher.outbox.poll_signals(Waker::noop()).contains(Signals::ROOM)
}

#[test]
fn a_publisher_at_qos_2_is_held_too() {
    let mut world = World::with_limits(|_| (), PATIENT);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", ExactlyOnce);
    for number in 0..=QUEUE {
        world.publish(&number.to_string(), ExactlyOnce);
    }
    let mut publisher = world.clean("p");
    assert!(is_held_at(&world, &mut publisher, "one more", ExactlyOnce));
    world.take(&mut guest, usize::MAX);
    assert!(is_let_go(&publisher));
}

#[test]
fn a_publisher_is_held_while_what_waits_in_both_queues_is_over_the_mark() {
    let mut world = World::with_limits(|_| (), PATIENT);
    let (mut guest, mut publisher) = behind_its_mark(&mut world, None);
    for number in QUEUE..QUEUE + 3 {
        assert!(is_held(&world, &mut publisher, &number.to_string()));
    }
    // Half of the mark is in the outbox, which has room; the others are behind it.
    let mut got = world.take(&mut guest, 3);
    assert!(!is_let_go(&publisher));
    assert!(guest.outbox.wait_for_room(&publisher.outbox), "as many as the mark still wait");
    got.extend(world.take(&mut guest, 1));
    assert!(is_let_go(&publisher));
    assert!(!guest.outbox.wait_for_room(&publisher.outbox));
    assert!(!is_held(&world, &mut publisher, "one more"), "there is room for it");
    got.extend(world.take(&mut guest, usize::MAX));
    let payloads: Vec<_> = got.into_iter().map(|got| got.payload).collect();
    let mut expected = numbers(0..QUEUE + 3);
    expected.push("one more".into());
    assert_eq!(payloads, expected);
    assert_eq!(world.broker.shared().queued(), 0);
}

#[test]
fn the_oldest_go_at_twice_the_mark_and_nobody_is_held_when_patience_is_spent() {
    let second = Duration::from_secs(1);
    for is_patient in [true, false] {
        let limits = Limits { publish_wait: second, slow_after: 10 * second, ..IMPATIENT };
        let mut world = World::with_limits(|_| (), limits);
        let (mut guest, mut publisher) = behind_its_mark(&mut world, None);
        assert!(is_held(&world, &mut publisher, &QUEUE.to_string()));
        world.now += if is_patient { second / 2 } else { second };
        for number in QUEUE + 1..2 * QUEUE {
            assert_eq!(is_held(&world, &mut publisher, &number.to_string()), is_patient, "{number}");
        }
        assert_eq!(world.queued(), 2 * QUEUE);
        for number in 2 * QUEUE..2 * QUEUE + 3 {
            assert_eq!(is_held(&world, &mut publisher, &number.to_string()), is_patient, "{number}");
        }
        assert_eq!(world.queued(), 2 * QUEUE);
        assert_eq!(world.drain(&mut guest), numbers(3..2 * QUEUE + 3));
    }
}

/// A client that comes back to a full queue and takes `taken` every millisecond, while four publish without a pause.
fn check_reader(limits: Limits, taken: usize, count: usize) {
    let queue = limits.messages_max;
    let mut world = World::with_limits(|_| (), limits);
    let (mut guest, one) = behind_its_mark(&mut world, None);
    let mut publishers = [one, world.clean("p2"), world.clean("p3"), world.clean("p4")];
    let (mut published, mut got) = (queue, Vec::new());
    while published < queue + count {
        for publisher in &mut publishers {
            while !guest.outbox.wait_for_room(&publisher.outbox) && published < queue + count {
                is_held(&world, publisher, &published.to_string());
                published += 1;
            }
        }
        world.now += Duration::from_millis(1);
        got.extend(world.take(&mut guest, taken));
    }
    got.extend(world.take(&mut guest, usize::MAX));
    let got: Vec<_> = got.into_iter().map(|got| got.payload).collect();
    assert_eq!(got, numbers(0..queue + count), "{taken} every millisecond");
}

#[test]
fn a_reader_is_waited_for_as_long_as_it_takes_the_mark_in_time_and_a_slower_one_for_a_while() {
    let limits = Limits {
        messages_max: 1000,
        bytes_max: 1 << 30,
        publish_wait: Duration::from_millis(200),
        slow_after: Duration::from_secs(1),
    };
    check_reader(limits.clone(), 5, 20_000);
    check_reader(limits, 3, 6000);
}

#[test]
fn a_publisher_is_let_go_when_what_waits_goes_another_way() {
    if has_store() {
        return; // what waits on the disk is not searched: it goes when its turn comes
    }
    for is_unsubscribed in [true, false] {
        let mut world = World::with_limits(|_| (), PATIENT);
        let (mut guest, mut publisher) = behind_its_mark(&mut world, Some("g"));
        assert!(is_held(&world, &mut publisher, "x"));
        if is_unsubscribed {
            let group = Some(ShareName::parse("g", &TopicLimits::STANDARD).unwrap());
            let name = SubscriptionName::Filter { group, filter: filter("t") };
            world.request(&mut guest.client, Request::Unsubscribe(vec![name]));
        } else {
            world.end(&mut guest);
        }
        assert!(is_let_go(&publisher), "unsubscribed: {is_unsubscribed}");
        assert!(!guest.outbox.wait_for_room(&publisher.outbox));
    }
}

#[test]
fn what_expires_while_it_waits_lets_the_publisher_go() {
    if has_store() {
        return; // what waits on the disk is not searched: it goes when its turn comes
    }
    let mut world = World::with_limits(|_| (), PATIENT);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    let mut publisher = world.clean("p");
    for number in 0..QUEUE {
        let mut publication = publication(&number.to_string(), AtLeastOnce);
        publication.expires_at = Some(world.now + Duration::from_secs(5));
        world.request(&mut publisher.client, publish(publication, None));
    }
    let mut guest = world.connect("c", HOUR);
    assert!(is_held(&world, &mut publisher, "x"));
    world.now += Duration::from_secs(5);
    world.broker.pull(&mut guest.client, Now { instant: world.now, unix_ms: 0 });
    assert!(is_let_go(&publisher));
    assert_eq!(world.drain(&mut guest), ["x"]);
}

#[test]
fn what_is_refused_for_want_of_memory_is_not_retained() {
    const MEMORY: usize = 1 << 18;
    for (is_away, expected) in [(true, "older"), (false, "newer")] {
        let mut world = World::with_memory(|_| (), IMPATIENT, MEMORY);
        let mut publisher = world.clean("p");
        let older = retained("older", AtLeastOnce);
        world.request(&mut publisher.client, publish(older, None));
        let mut waiting = world.connect("c", HOUR);
        world.subscribe(&mut waiting, if is_away { "t" } else { "elsewhere" }, AtLeastOnce);
        world.leave(waiting);
        let newer = format!("newer{}", " ".repeat(MEMORY));
        let newer = retained(&newer, AtLeastOnce);
        let reply = world.request(&mut publisher.client, publish(newer, None)).unwrap();
        assert_eq!(matches!(reply, Reply::Refused(Refusal::Overloaded(_))), is_away, "{reply:?}");
        let mut late = world.clean("late");
        world.subscribe(&mut late, "t", AtLeastOnce);
        let got = world.drain(&mut late);
        assert_eq!(got.iter().map(|got| got.trim_end()).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn a_full_queue_of_a_client_that_is_away_costs_no_look_at_all_of_it_for_each_message() {
    const MANY: usize = 20_000;
    let limits = Limits {
        messages_max: MANY,
        bytes_max: usize::MAX,
        publish_wait: Duration::ZERO,
        slow_after: Duration::ZERO,
    };
    let mut world = World::with_limits(|_| (), limits);
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    let mut publisher = world.clean("p");
    let mut took = |count: usize| {
        let start = tokio::time::Instant::now();
        for _ in 0..count {
            world.publish_by(&mut publisher, "m", AtLeastOnce, None);
        }
        start.elapsed()
    };
    let filling = took(MANY);
    let full = took(MANY / 20);
    assert!(full < filling, "{full:?} for a twentieth of what took {filling:?}");
}

#[test]
fn what_has_expired_or_was_unsubscribed_makes_room_for_what_comes() {
    if has_store() {
        return; // what waits on the disk is not searched: the oldest goes
    }
    for drop in [Overflow::DropOldest, Overflow::DropNewest] {
        let mut world = World::with(|rules| rules.overflow_offline = drop);
        let mut guest = world.connect("c", HOUR);
        world.subscribe(&mut guest, "t", AtLeastOnce);
        world.leave(guest);
        for number in 0..QUEUE {
            let mut publisher = world.clean("p");
            let mut publication = publication(&number.to_string(), AtLeastOnce);
            publication.expires_at = number.is_multiple_of(2).then(|| world.now + Duration::from_secs(5));
            let request = publish(publication, None);
            world.request(&mut publisher.client, request);
            world.leave(publisher);
        }
        world.pass(Duration::from_secs(6));
        for number in QUEUE..QUEUE + QUEUE / 2 {
            world.publish(&number.to_string(), AtLeastOnce);
        }
        let mut guest = world.connect("c", HOUR);
        let odd = (0..QUEUE).filter(|number| !number.is_multiple_of(2));
        let expected: Vec<_> = odd.chain(QUEUE..QUEUE + QUEUE / 2).map(|number| number.to_string()).collect();
        assert_eq!(world.drain(&mut guest), expected, "{drop:?}");
    }
}

#[test]
fn all_that_is_retained_comes_to_a_new_subscription_whatever_its_mark_and_who_takes_it_over() {
    const RETAINED: usize = 5 * QUEUE;
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let mut world = World::new();
        let mut publisher = world.clean("p");
        for number in 0..RETAINED {
            let mut publication = retained(&number.to_string(), qos);
            publication.topic = Topic::parse(&format!("t/{number}"), &TopicLimits::STANDARD).unwrap();
            world.request(&mut publisher.client, publish(publication, None));
        }
        let mut guest = world.connect("c", HOUR);
        world.subscribe(&mut guest, "t/+", ExactlyOnce);
        let taken = world.take(&mut guest, QUEUE / 2);
        let mut got: BTreeSet<String> = taken.iter().map(|got| got.payload.clone()).collect();
        for got in &taken {
            world.settle(&mut guest, got.tag);
        }
        let mut live = publication("live", AtLeastOnce);
        live.topic = Topic::parse("t/live", &TopicLimits::STANDARD).unwrap();
        world.request(&mut publisher.client, publish(live, None));
        if qos > AtMostOnce {
            let mut old = std::mem::replace(&mut guest, world.connect("c", HOUR));
            world.end(&mut old);
        }
        let rest = world.drain(&mut guest);
        assert_eq!(got.len() + rest.len(), RETAINED + 1, "none comes twice: {qos:?}");
        got.extend(rest);
        assert_eq!(got.len(), RETAINED + 1, "{qos:?}");
        assert_eq!(world.queued(), 0);
    }
}

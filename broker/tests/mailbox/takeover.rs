//! A newer connection in the place of an older one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use super::world::*;

#[test]
fn a_newer_connection_gets_what_the_older_one_had_queued_or_in_hand() {
    let mut world = World::new();
    let mut old = world.connect("c", HOUR);
    world.subscribe(&mut old, "t", ExactlyOnce);
    for number in 0..4 {
        world.publish(&number.to_string(), ExactlyOnce);
    }
    let in_hand = world.take(&mut old, 2);
    world.assign(&mut old, &in_hand[0], 1);
    let mut new = world.connect("c", HOUR);
    assert_eq!(old.outbox.order().map(|reason| reason.kind), Some(CloseKind::Replaced));
    assert_eq!(new.connected.in_flight.len(), 1);
    // What the older one says from here on changes nothing, and what it had in hand is not sent twice.
    world.settle(&mut old, in_hand[0].tag);
    world.assign(&mut old, &in_hand[1], 2);
    assert!(old.client.is_replaced());
    assert!(world.take(&mut old, 1).is_empty());
    assert_eq!(world.drain(&mut new), ["1", "2", "3"]);
    world.end(&mut old);
    world.publish("4", ExactlyOnce);
    assert_eq!(world.drain(&mut new), ["4"]);
    world.leave(new);
    assert_eq!(world.connect("c", HOUR).connected.in_flight.len(), 1);
}

#[test]
fn a_connection_that_was_replaced_gets_no_step_of_an_exchange_confirmed() {
    for clean_start in [false, true] {
        let mut world = World::new();
        let mut old = world.connect("c", HOUR);
        world.subscribe(&mut old, "t", ExactlyOnce);
        world.publish("1", ExactlyOnce);
        let got = world.take(&mut old, 1);
        world.assign(&mut old, &got[0], 7);
        world.publish_by(&mut old, "2", ExactlyOnce, Some(9));
        let _new = world.try_connect(connect("c", clean_start, HOUR)).unwrap();
        // A PUBREL or PUBCOMP now would end what the other connection is about to go on with.
        let received = world.request(&mut old.client, Request::Received { tag: got[0].tag });
        assert!(received.is_none(), "{received:?}");
        let released = world.request(&mut old.client, Request::Release { packet_id: 9 });
        assert!(released.is_none(), "{released:?}");
    }
}

/// Stops whoever wakes it until it may go on.
struct Gate {
    stands: mpsc::Sender<()>,
    may_pass: Mutex<mpsc::Receiver<()>>,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.stands.send(()).unwrap();
        let _ = self.may_pass.lock().unwrap().recv();
    }
}

/// A connection is replaced in the middle of a QoS 2 publish, which is repeated on the new one.
fn check_replaced_amid_a_publish(payload: &str) {
    let mut world = World::with_limits(|_| (), Limits { messages_max: 1, ..IMPATIENT });
    let mut watcher = world.connect("w", HOUR);
    world.subscribe(&mut watcher, "t", ExactlyOnce);
    assert!(world.drain(&mut watcher).is_empty(), "nothing is retained");
    world.leave(watcher);
    let mut blocked = world.clean("blocked");
    world.subscribe(&mut blocked, "t", AtMostOnce);
    let mut blocker = world.clean("blocker");
    let mut old = world.connect("c", HOUR);
    let (stands, is_blocked) = mpsc::channel();
    let (open, may_pass) = mpsc::channel();
    let gate = Waker::from(Arc::new(Gate { stands, may_pass: Mutex::new(may_pass) }));
    while !blocked.outbox.poll_signals(&gate).is_empty() {}
    let is_under_way = {
        let shared = Arc::clone(world.broker.shared());
        let size = payload.len();
        move || shared.publication_bytes.load(Ordering::Relaxed) >= size
    };
    let (world_, blocker_, old_) = (&world, &mut blocker, &mut old);
    let (reply, mut new) = std::thread::scope(|threads| {
        // Stops while it has the order of the topic, and the other one waits for that.
        threads.spawn(|| {
            world_.request(&mut blocker_.client, publish(retained("first", AtMostOnce), None));
        });
        is_blocked.recv().unwrap();
        let publishing = threads
            .spawn(|| world_.request(&mut old_.client, publish(retained(payload, ExactlyOnce), Some(7))));
        while !is_under_way() {
            std::thread::yield_now();
        }
        let new = world_.try_connect(connect("c", false, HOUR)).unwrap();
        open.send(()).unwrap();
        (publishing.join().unwrap(), new)
    });
    let is_published = matches!(reply, Some(Reply::Published(_)));
    assert_eq!(new.connected.received.contains(&7), is_published, "{reply:?}");
    world.publish_by(&mut new, "repeated", ExactlyOnce, Some(7));
    let expected = if is_published { payload } else { "repeated" };
    let mut watcher = world.connect("w", HOUR);
    assert_eq!(world.drain(&mut watcher), [expected]);
}

#[test]
fn a_publish_in_the_instant_of_a_takeover_is_known_afterwards_only_if_it_was_published() {
    check_replaced_amid_a_publish(&"x".repeat(1 << 13));
    check_replaced_amid_a_publish(&"more than may be retained".repeat(1 << 16));
}

#[test]
fn clean_start_ends_the_older_session_connected_or_not() {
    let mut world = World::new();
    for is_connected in [true, false] {
        let mut old = world.connect("c", HOUR);
        world.subscribe(&mut old, "t", AtLeastOnce);
        if !is_connected {
            world.end(&mut old);
        }
        world.publish("lost", AtLeastOnce);
        let mut new = world.try_connect(connect("c", true, HOUR)).unwrap();
        assert!(!new.connected.session_present);
        assert_eq!(world.publish("x", AtLeastOnce), 0);
        assert!(world.drain(&mut new).is_empty());
        world.end(&mut old);
        assert_eq!((world.sessions(), world.queued()), (1, 0));
        world.leave(new);
    }
}

#[test]
fn a_session_that_is_taken_up_without_an_expiry_ends_with_that_connection() {
    let mut world = World::new();
    let mut guest = world.connect("c", HOUR);
    world.subscribe(&mut guest, "t", AtLeastOnce);
    world.leave(guest);
    let guest = world.connect("c", Duration::ZERO);
    assert!(guest.connected.session_present);
    world.leave(guest);
    assert_eq!((world.sessions(), world.publish("x", AtLeastOnce)), (0, 0));
}

//! A disk that fails, and works again.

use super::world::*;

#[test]
fn while_the_disk_fails_nothing_new_is_promised_and_who_was_there_gets_in() {
    let run = Run::first();
    let mut known = run.resume("known");
    run.settle();
    run.disk.is_broken.store(true, Ordering::Relaxed);
    // The first to come finds out.
    run.writer.submit(vec![retained("a", None)]).unwrap();
    run.settle();
    let refused = |refusal: &Refusal| matches!(refusal, Refusal::Overloaded(_));
    assert!(run.try_connect(connect("new", false, HOUR)).0.is_err_and(|refusal| refused(&refusal)));
    assert!(run.try_connect(connect("short", true, Duration::ZERO)).0.is_ok(), "it needs no disk");
    let (result, _) = run.subscribe(&mut known, subscribe("a", QoS::AtLeastOnce));
    assert!(result.is_err_and(|refusal| refused(&refusal)));
    assert_eq!(run.publish("a"), 0, "a subscription that was refused is none");
    assert!(run.is_present("known"), "a takeover needs nothing new");

    run.disk.is_broken.store(false, Ordering::Relaxed);
    run.settle();
    let guest = run.resume("new");
    assert!(!guest.connected.session_present, "what was refused has left nothing");
    assert_eq!(run.names(), ["known", "new"]);
}

#[test]
fn what_a_client_says_while_the_disk_fails_holds_after_a_restart() {
    let run = Run::first();
    run.leave(run.connect(connect("back", false, HOUR)));
    let mut goes = run.connect(with_will("goes", HOUR, Duration::ZERO));
    run.settle();
    run.disk.is_broken.store(true, Ordering::Relaxed);
    run.writer.submit(vec![retained("a", None)]).unwrap();
    run.settle();
    run.request(&mut goes.client, Request::Disconnect { will: WillFate::Discard, session_expiry: None });
    run.leave(goes);
    let _connected_to_the_end = run.resume("back");
    run.settle();
    run.disk.is_broken.store(false, Ordering::Relaxed);
    run.settle();
    let mut run = run;
    run.now.unix_ms += u64::try_from((50 * MINUTE).as_millis()).unwrap();
    let run = run.crash(20 * MINUTE);
    assert_eq!(run.retained().len(), 0, "it said goodbye");
    assert!(run.is_present("back"), "it was there until 20 minutes ago");
}

#[test]
fn a_client_that_looks_for_its_messages_while_the_broker_stops_does_not_hang() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    run.leave(guest);
    assert_eq!(run.publish("a"), 1);
    let mut guest = run.resume("c");
    run.settle();
    run.writer.stop();
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        run.broker.pull(&mut guest.client, run.now);
        // The receiver is gone only when the test has failed.
        _ = done.send(());
    });
    is_done.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn pubrel_of_a_session_that_goes_on_waits_until_pubrec_is_stored() {
    let run = Run::first();
    let mut publisher = run.resume("publisher");
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a", QoS::ExactlyOnce)).0.unwrap();
    let mut publication = publication("a", "x", false);
    publication.qos = QoS::ExactlyOnce;
    let publish = Publish { publication, packet_id: Some(7) };
    run.request(&mut publisher.client, Request::Publish(Box::new(publish)));
    run.push_committed();
    let taken = run.take(&mut guest);
    run.assign(&mut guest, &taken[0]);
    run.disk.is_broken.store(true, Ordering::Relaxed);
    let (_, after) = run.ask(&mut guest.client, Request::Received { tag: taken[0].tag });
    run.settle();
    assert!(run.outcome(after).is_err(), "PUBREL does not leave, and the session is ended");
    run.leave(guest);

    let (guest, after) = run.connect_after(connect("c", false, HOUR));
    run.settle();
    assert!(run.outcome(after).is_err(), "nor does it on the next connection");
    run.leave(guest.unwrap());

    run.disk.is_broken.store(false, Ordering::Relaxed);
    let (guest, after) = run.connect_after(connect("c", false, HOUR));
    let guest = guest.unwrap();
    assert!(matches!(guest.connected.in_flight[..], [InFlight { state: InFlightState::Received(_), .. }]));
    run.settle();
    assert!(run.outcome(after).is_ok());
    let run = run.crash(MINUTE);
    let mut guest = run.resume("c");
    assert!(matches!(guest.connected.in_flight[..], [InFlight { state: InFlightState::Received(_), .. }]));
    assert!(run.take(&mut guest).is_empty());
}

#[test]
fn a_subscription_that_is_stored_is_granted_again_whatever_the_disk_does() {
    let run = Run::first();
    let mut guest = run.resume("c");
    run.subscribe(&mut guest, subscribe("a", QoS::AtLeastOnce)).0.unwrap();
    let run = run.crash(MINUTE);
    let mut guest = run.resume("c");
    run.settle();
    run.disk.is_broken.store(true, Ordering::Relaxed);
    for retained in [RetainHandling::Send, RetainHandling::SendIfNew] {
        let same = || Subscribe { retained, ..subscribe("a", QoS::AtLeastOnce) };
        assert!(run.subscribe(&mut guest, same()).0.is_ok(), "the disk has just begun to fail");
        run.writer.submit(vec![self::retained("b", None)]).unwrap_or(Ticket::DONE);
        run.settle();
        assert!(run.subscribe(&mut guest, same()).0.is_ok(), "{retained:?}");
    }
    assert!(run.subscribe(&mut guest, subscribe("a", QoS::ExactlyOnce)).0.is_err(), "it is another");
    run.disk.is_broken.store(false, Ordering::Relaxed);
    run.settle();
    let run = run.crash(MINUTE);
    assert_eq!(run.stored()[0].subscriptions[0].qos, QoS::AtLeastOnce);
    assert_eq!(run.publish("a"), 1);
}

//! Messages of a group whose member ends in the very moment in which they are stored, or read.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::world::*;

fn share(qos: QoS) -> Subscribe {
    let group = Some(ShareName::parse("g", &TopicLimits::STANDARD).unwrap());
    Subscribe { group, ..subscribe("a", qos) }
}

const BOTH: &[&str] = &["one", "two"];

/// Messages named after their QoS.
fn publish(run: &Run, publisher: &mut Guest, payloads: &[&str]) {
    for payload in payloads {
        let (qos, packet_id) = match *payload {
            "one" => (QoS::AtLeastOnce, None),
            _ => (QoS::ExactlyOnce, Some(7)),
        };
        let mut publication = publication("a", payload, false);
        publication.qos = qos;
        let request = Request::Publish(Box::new(Publish { publication, packet_id }));
        let (reply, _) = run.request(&mut publisher.client, request);
        assert!(matches!(reply, Some(Reply::Published(published)) if published.matched == 1), "{reply:?}");
    }
}

/// Another member of the group gets them once.
fn check_handed_on(run: &Run, other: &mut Guest, payloads: &[&str]) {
    run.push_committed();
    let mut got = run.drain(other);
    got.sort_unstable();
    assert_eq!(got, payloads);
    assert!(run.drain(other).is_empty());
    run.settle();
    assert_eq!(run.disk.stats().unwrap().messages, 0, "nothing stays behind");
}

#[test]
fn what_is_being_committed_when_a_member_that_is_away_ends_goes_to_another() {
    let run = Run::first();
    let mut publisher = run.resume("publisher");
    let mut first = run.resume("first");
    run.subscribe(&mut first, share(QoS::ExactlyOnce)).0.unwrap();
    run.leave(first);
    run.settle();
    let disk = run.disk.commits.lock().unwrap();
    publish(&run, &mut publisher, BOTH);
    let mut other = run.resume("other");
    run.subscribe(&mut other, share(QoS::ExactlyOnce)).0.unwrap();
    let _clean = run.connect(connect("first", true, Duration::ZERO));
    drop(disk);
    check_handed_on(&run, &mut other, BOTH);
}

#[test]
fn what_is_being_committed_when_a_member_goes_away_and_ends_goes_to_another() {
    for payloads in [&["one"][..], BOTH] {
        let run = Run::first();
        let mut publisher = run.resume("publisher");
        let mut first = run.resume("first");
        run.subscribe(&mut first, share(QoS::ExactlyOnce)).0.unwrap();
        run.settle();
        let disk = run.disk.commits.lock().unwrap();
        publish(&run, &mut publisher, payloads);
        run.leave(first);
        let mut other = run.resume("other");
        run.subscribe(&mut other, share(QoS::ExactlyOnce)).0.unwrap();
        let _clean = run.connect(connect("first", true, Duration::ZERO));
        drop(disk);
        check_handed_on(&run, &mut other, payloads);
    }
}

#[test]
fn what_is_being_committed_when_a_member_unsubscribes_goes_to_another() {
    for is_away in [true, false] {
        let run = Run::first();
        let mut publisher = run.resume("publisher");
        let mut first = run.resume("first");
        run.subscribe(&mut first, share(QoS::ExactlyOnce)).0.unwrap();
        if is_away {
            run.leave(first);
            run.settle();
        }
        let disk = run.disk.commits.lock().unwrap();
        publish(&run, &mut publisher, BOTH);
        let mut first = run.resume("first");
        let mut other = run.resume("other");
        run.subscribe(&mut other, share(QoS::ExactlyOnce)).0.unwrap();
        unsubscribe(&run, &mut first);
        drop(disk);
        check_handed_on(&run, &mut other, BOTH);
        assert!(run.drain(&mut first).is_empty());
    }
}

#[test]
fn what_a_member_has_got_is_not_handed_on_though_it_was_away_in_between() {
    let run = Run::first();
    let mut publisher = run.resume("publisher");
    let mut first = run.resume("first");
    run.subscribe(&mut first, share(QoS::ExactlyOnce)).0.unwrap();
    run.settle();
    let disk = run.disk.commits.lock().unwrap();
    publish(&run, &mut publisher, &["one"]);
    run.leave(first);
    drop(disk);
    run.settle();
    let mut first = run.resume("first");
    let mut other = run.resume("other");
    run.subscribe(&mut other, share(QoS::ExactlyOnce)).0.unwrap();
    assert_eq!(run.drain(&mut first), ["one"]);
    unsubscribe(&run, &mut first);
    run.push_committed();
    assert!(run.drain(&mut other).is_empty());
}

fn unsubscribe(run: &Run, guest: &mut Guest) {
    let Subscribe { group, filter, .. } = share(QoS::AtLeastOnce);
    let names = vec![SubscriptionName::Filter { group, filter }];
    let (reply, _) = run.request(&mut guest.client, Request::Unsubscribe(names));
    assert!(matches!(reply, Some(Reply::Unsubscribed(known)) if known == [true]));
}

#[test]
fn a_page_that_comes_while_a_member_unsubscribes_goes_to_another() {
    let run = Run::first();
    let mut publisher = run.resume("publisher");
    let mut first = run.resume("first");
    run.subscribe(&mut first, share(QoS::ExactlyOnce)).0.unwrap();
    run.leave(first);
    publish(&run, &mut publisher, BOTH);
    run.push_committed();
    let mut first = run.resume("first");
    let mut other = run.resume("other");
    run.subscribe(&mut other, share(QoS::ExactlyOnce)).0.unwrap();
    let run = Arc::new(run);
    std::thread::scope(|threads| {
        let (hold, is_held) = mpsc::channel();
        let (let_go, may_go) = mpsc::channel();
        let disk = Arc::clone(&run.disk);
        threads.spawn(move || {
            let _pages = disk.pages.lock().unwrap();
            hold.send(()).unwrap();
            may_go.recv().unwrap();
        });
        is_held.recv().unwrap();
        run.broker.pull(&mut first.client, run.now);
        // The page comes, and whatever it frees is free, before the disk is looked at for the other member.
        let writer = run.writer.clone();
        let act = move || {
            let_go.send(()).unwrap();
            settle_pages(&writer);
            settle(&writer);
        };
        *run.disk.before_read.lock().unwrap() = Some(Box::new(act));
        unsubscribe(&run, &mut first);
        assert!(run.disk.before_read.lock().unwrap().is_none(), "it was read");
    });
    check_handed_on(&run, &mut other, BOTH);
    assert!(run.drain(&mut first).is_empty());
}

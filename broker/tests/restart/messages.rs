//! Messages on their way at a crash, or while a session ends.

use super::world::*;

#[test]
fn what_waits_for_its_commit_goes_to_another_member_when_its_own_has_ended() {
    let run = Run::first();
    let group = || Some(ShareName::parse("g", &TopicLimits::STANDARD).unwrap());
    let mut members = ["first", "second"].map(|id| run.resume(id));
    for member in &mut members {
        let subscribe = Subscribe { group: group(), ..subscribe("a", QoS::ExactlyOnce) };
        run.subscribe(member, subscribe).0.unwrap();
    }
    let mut publisher = run.resume("publisher");
    for packet_id in [1, 2] {
        let mut publication = publication("a", "x", false);
        publication.qos = QoS::ExactlyOnce;
        let publish = Publish { publication, packet_id: Some(packet_id) };
        run.request(&mut publisher.client, Request::Publish(Box::new(publish)));
    }
    let [_, mut second] = members;
    run.connect(connect("first", true, Duration::ZERO));
    run.settle();
    let mut batch = Batch::default();
    while run.broker.push_committed(run.now, &mut batch) {}
    batch.flush(run.now.instant);
    let mut entries = Vec::new();
    let wants = Wants { input: true, qos0: true, acked: usize::MAX };
    second.client.take_for_session(&mut entries, 100, wants, run.now.instant).unwrap();
    assert_eq!(entries.len(), 2);
}

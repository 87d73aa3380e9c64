//! Answers that wait for a commit, over a connection of its own.

mod world;

use std::sync::Arc;
use std::time::Duration;

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{CloseKind, Publish, Token};

use self::world::{CLOSE_TIMEOUT, World, connect, failure, publication, published, subscribe};
use super::super::clock;
use super::*;
use crate::broker::Batch;
use crate::store::Ticket;

#[tokio::test]
async fn without_anything_to_wait_for_an_answer_is_said_at_once() {
    let mut world = World::new().await;
    world.published(1, Ticket::DONE);
    assert_eq!(*world.heard.lock(), ["1 published"]);
    assert!(world.connection.pending.is_none());
}

#[tokio::test]
async fn answers_wait_for_their_commits_and_keep_their_order() {
    let mut world = World::new().await;
    let first = world.submit();
    world.published(1, first);
    world.published(2, Ticket::DONE);
    world.hears(&[]).await;
    world.commit(Ok(()));
    world.hears(&["1 published", "2 published"]).await;
    assert!(world.connection.pending.is_none(), "an idle connection keeps no queue");
    let second = world.submit();
    world.published(3, second);
    world.hears(&["1 published", "2 published"]).await;
    world.commit(Ok(()));
    world.hears(&["1 published", "2 published", "3 published"]).await;
}

#[tokio::test]
async fn answers_of_a_later_commit_are_woken_for_in_their_turn() {
    let mut world = World::new().await;
    let first = world.submit();
    world.begins();
    let second = world.submit();
    world.published(1, first);
    world.published(2, second);
    world.commit(Ok(()));
    world.hears(&["1 published"]).await;
    world.begins();
    let third = world.submit();
    world.published(3, third);
    world.commit(Ok(()));
    world.hears(&["1 published", "2 published"]).await;
    world.commit(Ok(()));
    world.hears(&["1 published", "2 published", "3 published"]).await;
}

#[tokio::test]
async fn a_failed_commit_is_a_refusal() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.published(1, ticket);
    world.commit(Err(failure()));
    world.hears(&["1 refused: overloaded: the disk of the store fails"]).await;
}

#[tokio::test]
async fn an_identifier_whose_publish_was_not_stored_is_free_again() {
    let mut world = World::new().await;
    let mut publication = publication();
    publication.qos = QoS::ExactlyOnce;
    let publish = Publish { publication, packet_id: Some(7) };
    let reply = world.ask(Request::Publish(Box::new(publish))).unwrap();
    let after = world.submit();
    let answer = Answer { token: Token(1), reply, packet_id: Some(7), entered: Vec::new(), after };
    world.connection.answer(answer, clock());
    world.commit(Err(failure()));
    world.hears(&["1 refused: overloaded: the disk of the store fails"]).await;
    let reply = world.ask(Request::Release { packet_id: 7 });
    assert!(matches!(reply, Some(Reply::Released { known: false, .. })), "{reply:?}");
}

#[tokio::test]
async fn a_repeated_publish_is_refused_with_the_one_that_it_repeats() {
    let (mut world, _) = World::with(connect(Duration::from_secs(60), None)).await;
    world.begins();
    world.commit(Ok(()));
    world.publishes_once(1, 7);
    world.begins();
    world.publishes_once(2, 7);
    world.commit(Err(failure()));
    // Whatever the repetition may have brought.
    world.commit(Ok(()));
    let refused = |token: u32| format!("{token} refused: overloaded: the disk of the store fails");
    world.hears(&[&refused(1), &refused(2)]).await;
    let reply = world.ask(Request::Release { packet_id: 7 });
    assert!(matches!(reply, Some(Reply::Released { known: false, .. })), "{reply:?}");
}

#[tokio::test]
async fn of_several_subscriptions_each_is_granted_by_its_own_commit() {
    for (fails, expected, count) in
        [(0, "1 subscribed, not 0", 1), (1, "1 subscribed, not 1", 1), (2, "1 subscribed", 2)]
    {
        let (mut world, _) = World::with(connect(Duration::from_secs(60), None)).await;
        world.begins();
        let (reply, mut batch) = world
            .ask_all(Request::Subscribe(["a", "b"].map(|filter| subscribe(filter, QoS::AtLeastOnce)).into()));
        let first = world.submit();
        world.commit(Ok(()));
        world.begins();
        let second = world.submit();
        for (commit, ticket) in [first, second].into_iter().enumerate() {
            batch.entered[commit].ticket = ticket;
            world.commit(if commit == fails { Err(failure()) } else { Ok(()) });
        }
        world.commit(Ok(()));
        let answer = Answer {
            token: Token(1),
            reply: reply.unwrap(),
            packet_id: None,
            entered: batch.entered,
            after: second,
        };
        world.connection.answer(answer, clock());
        world.hears(&[expected]).await;
        world.connection.broker.observe();
        assert_eq!(world.connection.broker.metrics().subscriptions.value(), count, "{expected}");
    }
}

#[tokio::test]
async fn a_session_that_was_not_stored_leaves_neither_itself_nor_a_will() {
    let mut will = publication();
    will.retain = true;
    let (mut world, connected) = World::with(connect(Duration::from_secs(60), Some(will))).await;
    let after = world.submit();
    world.answer(1, connected, after);
    // The core may have something of its own to store.
    world.commit(Err(failure()));
    world.commit(Err(failure()));
    world.hears(&["1 refused: overloaded: the disk of the store fails"]).await;
    let World { connection, .. } = &mut world;
    connection.broker.leave(&mut connection.client, clock(), &mut Batch::default());
    connection.broker.observe();
    let metrics = connection.broker.metrics();
    assert_eq!((metrics.sessions.value(), metrics.retained_messages.value()), (0, 0));
}

#[tokio::test]
async fn deliveries_are_held_until_a_subscription_is_granted() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.connection.holds_subscribe = true;
    world.connection.outbox.hold_subscribe();
    world.answer(1, Reply::Subscribed(Vec::new()), ticket);
    world.connection.drain(&mut Lane::Control, clock());
    world.hears(&[]).await;
    assert!(world.connection.holds_subscribe);
    world.commit(Ok(()));
    world.hears(&["1 subscribed"]).await;
    assert!(!world.connection.holds_subscribe);
}

#[tokio::test]
async fn publishes_at_qos_0_wait_for_nothing() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.published(1, ticket);
    world.publishes(2);
    assert_eq!(*world.heard.lock(), ["2 published"]);
    world.commit(Ok(()));
    world.hears(&["2 published", "1 published"]).await;
}

#[tokio::test]
async fn an_answer_that_the_brake_held_still_waits_for_its_commit() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.brakes(published(1, ticket), (Token(2), Request::Release { packet_id: 7 }));
    world.connection.release_brake(clock());
    world.hears(&[]).await;
    world.commit(Ok(()));
    world.hears(&["1 published", "2 Released { packet_id: 7, known: false }"]).await;
}

#[tokio::test]
async fn a_goodbye_behind_the_brake_counts_when_the_socket_is_lost() {
    for will in [WillFate::Discard, WillFate::Publish] {
        let mut publication = publication();
        publication.retain = true;
        let (mut world, _) = World::with(connect(Duration::ZERO, Some(publication))).await;
        let goodbye = Request::Disconnect { will, session_expiry: None };
        world.brakes(published(1, Ticket::DONE), (Token(2), goodbye));
        let broker = Arc::clone(&world.connection.broker);
        drop(world);
        broker.observe();
        assert_eq!(broker.metrics().retained_messages.value(), u64::from(will == WillFate::Publish));
    }
}

#[tokio::test]
async fn a_planned_stop_comes_behind_what_is_being_committed() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.published(1, ticket);
    world.connection.outbox.order_close(CloseReason::new(CloseKind::ShuttingDown, ""));
    world.hears(&[]).await;
    world.commit(Ok(()));
    world.hears(&["1 published", "close: ShuttingDown"]).await;
}

#[tokio::test]
async fn a_planned_stop_waits_for_a_slow_disk_no_longer_than_close_timeout() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.published(1, ticket);
    world.connection.outbox.order_close(CloseReason::new(CloseKind::ShuttingDown, ""));
    // Nothing else is there to wait for, so the time passes at once.
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    world.hears(&["close: ShuttingDown"]).await;
    assert!(before.elapsed() >= CLOSE_TIMEOUT);
}

#[tokio::test]
async fn any_other_end_waits_for_nothing() {
    let mut world = World::new().await;
    let ticket = world.submit();
    world.published(1, ticket);
    world.connection.outbox.order_close(CloseReason::new(CloseKind::Replaced, ""));
    world.hears(&["close: Replaced"]).await;
    assert!(world.connection.pending.is_none());
}

//! A queue across kills: producers, and consumers that come and go, acknowledge, or leave without a word. Whatever was
//! acknowledged to a producer reaches a consumer, and what a consumer settled before the last kill does not come back.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tidegate_protocol::mqtt::packet::{Subscribe, Subscription};
use tidegate_protocol::session::RetainHandling;
use tidegate_protocol::topic::TopicLimits;
use tokio::sync::watch;

use super::{
    Ack, Chance, Link, PATIENCE, Packet, Process, Publish, QoS, ReasonCode, TempDir, Topic, TopicFilter,
    connect,
};

const CONSUMERS: u64 = 4;

const PRODUCERS: u64 = 3;

const KILLS: u64 = 4;

const JOBS: &str = "queue/jobs";

#[derive(Default)]
struct Seen {
    /// Acknowledged to their producers.
    accepted: BTreeSet<String>,
    /// With a consumer at some time.
    received: HashSet<String>,
}

struct World {
    address: watch::Receiver<Option<SocketAddr>>,
    is_draining: watch::Receiver<bool>,
    seen: Arc<Mutex<Seen>>,
    progress: watch::Sender<usize>,
}

#[tokio::test]
async fn a_queue_loses_nothing_that_was_acknowledged_when_the_broker_is_killed() {
    let folder = TempDir::new().unwrap();
    let mut chance = Chance(super::number("TIDEGATE_CRASH_SEED").unwrap_or_else(rand::random));
    eprintln!("TIDEGATE_CRASH_SEED={}", chance.0);
    let mut process = Process::start(folder.path(), "group");
    let (address, addresses) = watch::channel(Some(process.address));
    let (draining, is_draining) = watch::channel(false);
    let (progress, mut come_so_far) = watch::channel(0);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let world = || World {
        address: addresses.clone(),
        is_draining: is_draining.clone(),
        seen: Arc::clone(&seen),
        progress: progress.clone(),
    };
    let mut producers = tokio::task::JoinSet::new();
    let mut consumers = tokio::task::JoinSet::new();
    for number in 0..PRODUCERS {
        producers.spawn(produce(world(), number));
    }
    for _ in 0..CONSUMERS {
        consumers.spawn(consume(world(), chance.fork()));
    }
    for _ in 0..KILLS {
        let target = *come_so_far.borrow() + 50 + usize::try_from(chance.below(400)).unwrap();
        let enough = come_so_far.wait_for(|count| *count >= target);
        tokio::time::timeout(PATIENCE, enough).await.expect("it goes on").unwrap();
        address.send_replace(None);
        process.kill();
        process = Process::start(folder.path(), "group");
        address.send_replace(Some(process.address));
    }
    draining.send_replace(true);
    tokio::time::timeout(PATIENCE, producers.join_all()).await.expect("the producers end");
    let all_came = come_so_far.wait_for(|_| {
        let seen = seen.lock().unwrap();
        seen.accepted.iter().all(|job| seen.received.contains(job))
    });
    let outcome = tokio::time::timeout(PATIENCE, all_came).await.is_ok();
    let lost: Vec<String> = {
        let seen = seen.lock().unwrap();
        seen.accepted.iter().filter(|job| !seen.received.contains(*job)).cloned().collect()
    };
    assert!(outcome && lost.is_empty(), "acknowledged, and never came: {lost:?}");
    assert!(seen.lock().unwrap().accepted.len() > 200, "it was a run");
}

/// Publishes one job after the other, each until it is acknowledged.
async fn produce(mut world: World, number: u64) {
    let mut next = 0_u64;
    while !*world.is_draining.borrow() {
        let Some(address) = address(&mut world).await else { return };
        let Some((mut link, _)) = Link::open(address, connect("", true, 0, 100)).await else { continue };
        loop {
            let job = format!("{number}-{next}");
            if publish(&mut link, &job).await.is_none() {
                break;
            }
            next += 1;
            world.seen.lock().unwrap().accepted.insert(job);
            world.progress.send_modify(|count| *count += 1);
            if *world.is_draining.borrow() {
                return;
            }
        }
    }
}

async fn publish(link: &mut Link, job: &str) -> Option<()> {
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Some(Topic::parse(JOBS, &TopicLimits::STANDARD).unwrap()),
        packet_id: 1,
        properties: None,
        payload: job.to_owned().into(),
    };
    link.send(&[Packet::Publish(publish)]).await?;
    match link.packet().await? {
        Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::SUCCESS),
        other => panic!("PUBACK was expected: {other:?}"),
    }
    Some(())
}

/// Takes jobs, and leaves now and then with some that it has not settled.
async fn consume(mut world: World, mut chance: Chance) {
    while let Some(address) = address(&mut world).await {
        let prefetch = u16::try_from(1 + chance.below(20)).unwrap();
        let Some((mut link, _)) = Link::open(address, connect("", true, 0, prefetch)).await else { continue };
        let filters = vec![Subscription {
            filter: Ok(TopicFilter::parse("$share/queue/queue/jobs", &TopicLimits::STANDARD).unwrap()),
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }];
        let subscribe = Subscribe { packet_id: 1, properties: None, filters };
        if link.send(&[Packet::Subscribe(subscribe)]).await.is_none() {
            continue;
        }
        let leaves_after = 20 + chance.below(200);
        let mut unsettled = 0;
        for _ in 0..leaves_after {
            if unsettled == prefetch {
                break; // nothing would come any more
            }
            match link.packet().await {
                Some(Packet::Publish(job)) => {
                    let text = String::from_utf8(job.payload.to_vec()).unwrap();
                    world.seen.lock().unwrap().received.insert(text);
                    world.progress.send_modify(|count| *count += 1);
                    let is_settled = !chance.one_in(10);
                    let ack = Packet::PubAck(Ack::new(job.packet_id, ReasonCode::SUCCESS));
                    unsettled += u16::from(!is_settled);
                    if is_settled && link.send(&[ack]).await.is_none() {
                        break;
                    }
                }
                Some(Packet::SubAck(_)) => {}
                Some(other) => panic!("a job was expected: {other:?}"),
                None => break,
            }
        }
    }
}

async fn address(world: &mut World) -> Option<SocketAddr> {
    *world.address.wait_for(Option::is_some).await.ok()?
}

//! The table of groups with a real router beside it, alone and under many threads.

use std::sync::Arc;

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Copies, SubscriptionId};
use tidegate_protocol::topic::{ShareName, Topic, TopicFilter, TopicLimits};

use super::super::{Group, Groups};
use super::{ALL, Worker, dice, worker};
use crate::router::{Member, Router};

/// What stands for a group in the router.
#[derive(Clone)]
struct Routed {
    group: Arc<Group<Arc<Worker>>>,
    share: Share,
}

type Share = (ShareName, TopicFilter);

impl Member for Routed {
    fn client(&self) -> u64 {
        self.group.key()
    }

    fn subscription(&self) -> SubscriptionId {
        SubscriptionId(0)
    }

    fn qos(&self) -> QoS {
        QoS::ExactlyOnce
    }

    fn copies(&self) -> Copies {
        Copies::PerSubscription
    }

    fn filter(&self) -> &str {
        self.share.1.as_str()
    }

    fn identifier(&self) -> Option<std::num::NonZeroU32> {
        None
    }
}

fn share(name: &str, filter: &str) -> Share {
    let limits = &TopicLimits::STANDARD;
    (ShareName::parse(name, limits).unwrap(), TopicFilter::parse(filter, limits).unwrap())
}

/// A table with its router, and how they are used together.
#[derive(Default)]
struct Tables {
    groups: Groups<Arc<Worker>>,
    router: Router<Routed>,
}

impl Tables {
    fn join(&self, share: &Share, worker: &Arc<Worker>) -> bool {
        let (name, filter) = share;
        let mut is_first = false;
        let joined = self.groups.join(name, filter, Arc::clone(worker), |group| {
            is_first = true;
            std::thread::yield_now(); // others may try to come in between
            let routed = Routed { group: Arc::clone(group), share: share.clone() };
            let replaced = self.router.subscribe(routed);
            assert!(replaced.is_none(), "the group was routed already");
        });
        assert!(!is_first || joined.replaced.is_none());
        is_first
    }

    /// Whether the group is no more. `None`: there was no such member.
    fn leave(&self, (name, filter): &Share, worker: &Worker) -> Option<bool> {
        let mut is_last = false;
        let (client, subscription) = worker.key;
        let removed = self.groups.leave(name, filter, client, SubscriptionId(subscription), |group| {
            is_last = true;
            assert!(group.is_empty());
            std::thread::yield_now(); // others may try to come in between
            let removed = self.router.unsubscribe(filter.as_str(), group.key(), SubscriptionId(0));
            assert!(
                removed.is_some_and(|removed| Arc::ptr_eq(&removed.group, group)),
                "the group was not routed"
            );
        });
        removed.map(|_| is_last)
    }

    /// How many members each group has that a message to `topic` finds.
    fn found(&self, topic: &str) -> Vec<usize> {
        let topic = Topic::parse(topic, &TopicLimits::STANDARD).unwrap();
        let matched = self.router.matching(&topic);
        let mut found: Vec<usize> =
            matched.targets().iter().map(|target| target.member.group.len()).collect();
        found.sort_unstable();
        found
    }

    /// What a member of `share` can rely on, whose topic is `topic`.
    fn check_from_within(&self, share: &Share, topic: &Topic) {
        let group = self.groups.get(&share.0, &share.1).expect("the group of a member is in the table");
        let matched = self.router.matching(topic);
        let ours: Vec<_> = matched.targets().iter().filter(|target| target.member.share == *share).collect();
        assert!(
            ours.iter().any(|target| Arc::ptr_eq(&target.member.group, &group)),
            "a live group is not found"
        );
        assert_eq!(ours.len(), 1, "a dead group is found beside the live one");
        assert!(ALL.iter().all(|&strategy| group.pick(strategy, &[]).is_some()));
    }
}

#[test]
fn a_group_is_one_entry_from_its_first_member_to_its_last() {
    let tables = Tables::default();
    let (ours, theirs) = (share("g", "a/+"), share("h", "a/+"));
    let (one, two) = (worker(1, 0), worker(2, 0));
    assert!(tables.join(&ours, &one));
    assert!(!tables.join(&ours, &two));
    assert!(!tables.join(&ours, &worker(2, 0)), "the same again");
    assert!(tables.join(&theirs, &one));
    assert_eq!((tables.groups.len(), tables.groups.members(), tables.router.subscriptions()), (2, 3, 2));
    assert_eq!(tables.found("a/b"), [1, 2]);
    assert_eq!(tables.groups.get(&ours.0, &ours.1).unwrap().len(), 2);
    assert!(tables.groups.get(&ours.0, &share("g", "a/b").1).is_none());

    assert_eq!(tables.leave(&ours, &worker(3, 0)), None);
    assert_eq!(tables.leave(&ours, &worker(1, 1)), None);
    assert_eq!(tables.leave(&share("i", "a/+"), &one), None);
    assert_eq!(tables.leave(&ours, &one), Some(false));
    assert_eq!(tables.found("a/b"), [1, 1]);
    assert_eq!(tables.leave(&ours, &two), Some(true));
    assert_eq!(tables.leave(&ours, &two), None);
    assert_eq!(tables.found("a/b"), [1]);
    assert!(tables.groups.get(&ours.0, &ours.1).is_none());
    assert_eq!(tables.leave(&theirs, &one), Some(true));
    assert!(tables.groups.is_empty());
    assert_eq!((tables.groups.members(), tables.router.subscriptions()), (0, 0));
}

/// Few groups and much coming and going, so that groups begin and end all the time. Whoever is in a group finds by
/// its topic this group, none of those of the same name before it, and somebody in it, whatever the others do.
#[test]
fn a_live_group_is_always_routed_and_a_dead_one_never() {
    const THREADS: u64 = 4;
    const ROUNDS: u32 = 1500;
    let tables = Tables::default();
    let shares = [share("g", "a"), share("g", "+/b"), share("h", "+/b")];
    std::thread::scope(|scope| {
        for client in 0..THREADS {
            let (tables, shares) = (&tables, &shares);
            scope.spawn(move || {
                let mut below = dice(client);
                for round in 0..ROUNDS {
                    let at = below(shares.len());
                    let worker = worker(client, round % 2);
                    tables.join(&shares[at], &worker);
                    tables.check_from_within(&shares[at], &topic_of(at));
                    std::thread::yield_now();
                    assert!(tables.leave(&shares[at], &worker).is_some());
                }
            });
        }
    });
    assert!(tables.groups.is_empty());
    assert_eq!((tables.groups.members(), tables.router.subscriptions()), (0, 0));
    assert!(tables.found("a").is_empty() && tables.found("a/b").is_empty());
}

fn topic_of(share: usize) -> Topic {
    Topic::parse(["a", "a/b", "a/b"][share], &TopicLimits::STANDARD).unwrap()
}

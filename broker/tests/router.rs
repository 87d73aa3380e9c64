//! The topic tables and the retained names against `TopicFilter::matches`, which is the definition.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidegate::retained::{Retained, RetainedLimits};
use tidegate::router::{Census, Matched, Member, Router};
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{Copies, Refusal, SubscriptionId};
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

#[derive(Debug, PartialEq, Eq)]
struct Subscription {
    filter: TopicFilter,
    client: u64,
    id: u32,
    qos: QoS,
    copies: Copies,
}

#[derive(Clone, Debug)]
struct Entry(Arc<Subscription>);

impl Member for Entry {
    fn client(&self) -> u64 {
        self.0.client
    }
    fn subscription(&self) -> SubscriptionId {
        SubscriptionId(self.0.id)
    }
    fn qos(&self) -> QoS {
        self.0.qos
    }
    fn copies(&self) -> Copies {
        self.0.copies
    }
    fn filter(&self) -> &str {
        self.0.filter.as_str()
    }
    fn identifier(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0.id + 1)
    }
}

fn entry(filter: &TopicFilter, client: u64, id: u32, qos: u8, copies: Copies) -> Entry {
    let filter = filter.clone();
    Entry(Arc::new(Subscription { filter, client, id, qos: QoS::from_u8(qos).unwrap(), copies }))
}

fn plain(filter: &TopicFilter, client: u64, id: u32) -> Entry {
    entry(filter, client, id, 0, Copies::PerClient)
}

fn topic(text: &str) -> Topic {
    Topic::parse(text, &TopicLimits::STANDARD).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &TopicLimits::STANDARD).unwrap()
}

/// All joins of up to `depth` levels that `parse` takes.
fn all<T>(levels: &[&str], depth: usize, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let mut texts: Vec<String> = levels.iter().map(ToString::to_string).collect();
    let mut longer = texts.clone();
    for _ in 1..depth {
        longer = longer
            .iter()
            .flat_map(|text| levels.iter().map(move |level| format!("{text}/{level}")))
            .collect();
        texts.extend(longer.iter().cloned());
    }
    texts.iter().filter_map(|text| parse(text)).collect()
}

fn all_topics(depth: usize) -> Vec<Topic> {
    all(&["a", "b", "", "$s", "a!"], depth, |text| Topic::parse(text, &TopicLimits::STANDARD).ok())
}

fn all_filters(depth: usize) -> Vec<TopicFilter> {
    all(&["a", "b", "", "$s", "+", "#"], depth, |text| TopicFilter::parse(text, &TopicLimits::STANDARD).ok())
}

/// (client, id, ids of `also`) of each target.
fn targets(matched: &Matched<Entry>) -> BTreeSet<(u64, u32, Vec<u32>)> {
    let all: Vec<_> = matched
        .targets()
        .iter()
        .map(|target| {
            let also = target.also.iter().flat_map(|also| also.iter().map(|id| id.get() - 1)).collect();
            (target.member.client(), target.member.subscription().0, also)
        })
        .collect();
    let set: BTreeSet<_> = all.iter().cloned().collect();
    assert_eq!(set.len(), all.len(), "a target stands twice: {all:?}");
    set
}

/// What `Router::matching` has to say, from the definition alone.
fn expected<'a>(
    subscriptions: impl Iterator<Item = (&'a TopicFilter, &'a Entry)>,
    topic: &Topic,
) -> BTreeSet<(u64, u32, Vec<u32>)> {
    let mut out = BTreeSet::new();
    let mut per_client: BTreeMap<u64, Vec<&Entry>> = BTreeMap::new();
    for (_, entry) in subscriptions.filter(|(filter, _)| filter.matches(topic)) {
        match entry.copies() {
            Copies::PerSubscription => drop(out.insert((entry.client(), entry.0.id, vec![]))),
            Copies::PerClient => per_client.entry(entry.client()).or_default().push(entry),
        }
    }
    for (client, mut entries) in per_client {
        entries.sort_by_key(|entry| (std::cmp::Reverse(entry.qos()), entry.0.id));
        let mut also: Vec<u32> = entries[1..].iter().map(|entry| entry.0.id).collect();
        also.sort_unstable();
        out.insert((client, entries[0].0.id, also));
    }
    out
}

#[test]
fn agrees_with_the_definition_for_every_small_filter_and_topic() {
    let router = Router::new();
    let filters = all_filters(4);
    for (client, filter) in (0..).zip(&filters) {
        assert!(router.subscribe(plain(filter, client, 0)).is_none());
    }
    assert_eq!(router.subscriptions(), filters.len());
    for topic in all_topics(4) {
        let found = targets(&router.matching(&topic));
        let wanted: BTreeSet<_> = (0..)
            .zip(&filters)
            .filter(|(_, f)| f.matches(&topic))
            .map(|(client, _)| (client, 0, vec![]))
            .collect();
        assert_eq!(found, wanted, "{topic}");
        assert_eq!(targets(&router.matching(&topic)), wanted, "{topic} from the cache");
    }
}

#[test]
fn a_single_filter_is_found_alone() {
    for filter in all_filters(3) {
        let router = Router::new();
        router.subscribe(plain(&filter, 1, 0));
        for topic in all_topics(3) {
            assert_eq!(
                router.matching(&topic).len(),
                usize::from(filter.matches(&topic)),
                "{filter} {topic}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_naive_table_through_any_history(
        history in prop::collection::vec((0u8..8, 0u64..5, 0u32..4, any::<prop::sample::Index>()), 1..300),
        cache_bytes in prop::sample::select(vec![0usize, 3000, 1 << 20]),
    ) {
        let (filters, topics) = (all_filters(3), all_topics(3));
        let router = Router::with_cache_bytes(cache_bytes);
        let mut model: BTreeMap<(TopicFilter, u64, u32), Entry> = BTreeMap::new();
        for (action, client, id, index) in history {
            let filter = index.get(&filters).clone();
            // A client is of one kind, and a subscription has one QoS.
            let copies = if client % 2 == 0 { Copies::PerClient } else { Copies::PerSubscription };
            let entry = entry(&filter, client, id, u8::try_from(id % 3).unwrap(), copies);
            match action {
                0..4 => {
                    // An id names one subscription: one that is in use is replaced.
                    if let Some((held, ..)) = model.keys().find(|(f, c, i)| *f != filter && (*c, *i) == (client, id)).cloned() {
                        prop_assert!(router.unsubscribe(held.as_str(), client, SubscriptionId(id)).is_some());
                        model.remove(&(held, client, id));
                    }
                    let replaced = router.subscribe(entry.clone());
                    prop_assert_eq!(replaced.is_some(), model.insert((filter, client, id), entry).is_some());
                }
                4 => {
                    let removed = router.unsubscribe(filter.as_str(), client, SubscriptionId(id));
                    prop_assert_eq!(removed.is_some(), model.remove(&(filter, client, id)).is_some());
                }
                5 => {
                    if let Some(key) = model.keys().nth(index.index(model.len().max(1))).cloned() {
                        prop_assert!(router.unsubscribe(key.0.as_str(), key.1, SubscriptionId(key.2)).is_some());
                        model.remove(&key);
                    }
                }
                _ => {
                    let topic = index.get(&topics);
                    let wanted = expected(model.iter().map(|((filter, ..), entry)| (filter, entry)), topic);
                    prop_assert_eq!(targets(&router.matching(topic)), wanted);
                }
            }
            prop_assert_eq!(router.subscriptions(), model.len());
        }
        for (filter, client, id) in model.keys() {
            prop_assert!(router.unsubscribe(filter.as_str(), *client, SubscriptionId(*id)).is_some());
        }
        router.sweep_cache();
        let census = router.census();
        prop_assert_eq!((census.topics, census.nodes), (0, 0));
    }
}

#[test]
fn overlapping_subscriptions_of_one_client_become_one_copy_at_the_highest_qos() {
    let router = Router::new();
    for (text, id, qos) in [("a/b", 1, 0), ("a/+", 2, 2), ("a/#", 3, 1), ("#", 4, 2), ("c", 5, 2)] {
        router.subscribe(entry(&filter(text), 7, id, qos, Copies::PerClient));
    }
    router.subscribe(entry(&filter("a/#"), 8, 1, 0, Copies::PerClient));
    let wanted = BTreeSet::from([(7, 2, vec![1, 3, 4]), (8, 1, vec![])]);
    assert_eq!(targets(&router.matching(&topic("a/b"))), wanted);
}

#[test]
fn overlapping_subscriptions_that_want_a_copy_each_get_one() {
    let router = Router::new();
    for (text, id) in [("a/b", 1), ("a/b", 2), ("a/+", 3)] {
        router.subscribe(entry(&filter(text), 7, id, 0, Copies::PerSubscription));
    }
    assert_eq!(router.matching(&topic("a/b")).len(), 3);
}

#[test]
fn a_client_that_names_one_filter_twice_gets_one_copy() {
    let router = Router::new();
    for client in 0..100 {
        router.subscribe(entry(&filter("a"), client, 1, 0, Copies::PerClient));
    }
    router.subscribe(entry(&filter("a"), 50, 2, 1, Copies::PerClient));
    let found = targets(&router.matching(&topic("a")));
    assert_eq!(found.len(), 100);
    assert!(found.contains(&(50, 2, vec![1])));
}

#[test]
fn a_topic_outlives_every_subscriber_but_its_last_and_keeps_none_alive() {
    let router = Router::with_cache_bytes(0);
    let members: Vec<_> = (0..40).map(|client| plain(&filter("a/b"), client, 0)).collect();
    let watches: Vec<_> = members.iter().map(|member| Arc::downgrade(&member.0)).collect();
    members.into_iter().for_each(|member| drop(router.subscribe(member)));
    // The first ones first, since the table knows the topic by them.
    for (client, watch) in (0..).zip(&watches) {
        assert_eq!(router.census().topics, 1);
        assert!(router.unsubscribe("a/b", client, SubscriptionId(0)).is_some());
        assert!(router.unsubscribe("a/b", client, SubscriptionId(0)).is_none());
        assert!(watch.upgrade().is_none(), "{client} is kept");
        let left = watches.iter().filter(|watch| watch.upgrade().is_some()).count();
        assert_eq!(router.matching(&topic("a/b")).len(), left);
    }
    assert_eq!(router.census(), Census::default());
}

#[test]
fn nothing_is_left_when_everyone_has_gone() {
    let router = Router::new();
    let texts = |n: u64| {
        (0u32..).zip([format!("t/{n}"), format!("t/{n}/+/x/{n}"), format!("+/{n}/#"), format!("{n}/+/+")])
    };
    for n in 0..3000 {
        for (id, text) in texts(n) {
            router.subscribe(plain(&filter(&text), n, id));
        }
    }
    let last = topic("t/2999/y/x/2999");
    for n in 0..3000 {
        // What stays is still found, through every rebuilding of the tables.
        if n % 100 == 0 {
            assert_eq!(targets(&router.matching(&last)), BTreeSet::from([(2999, 1, vec![2])]), "after {n}");
        }
        for (id, text) in texts(n) {
            assert!(router.unsubscribe(filter(&text).as_str(), n, SubscriptionId(id)).is_some(), "{text}");
        }
    }
    assert!(router.matching(&last).is_empty());
    router.subscribe(plain(&filter("#"), 0, 0));
    router.unsubscribe(filter("#").as_str(), 0, SubscriptionId(0));
    router.sweep_cache();
    assert_eq!(router.census(), Census::default());
    assert_eq!(router.subscriptions(), 0);
}

#[test]
fn a_stale_match_does_not_keep_a_client_alive_after_a_sweep() {
    let router = Arc::new(Router::new());
    let member = plain(&filter("a/+"), 1, 0);
    let watch = Arc::downgrade(&member.0);
    router.subscribe(member);
    let other = Arc::clone(&router);
    std::thread::spawn(move || other.matching(&topic("a/b")).len()).join().unwrap();
    drop(router.unsubscribe(filter("a/+").as_str(), 1, SubscriptionId(0)));
    assert!(watch.upgrade().is_some(), "the idle thread's match holds it");
    router.sweep_cache();
    assert!(watch.upgrade().is_none());
}

#[test]
fn the_cache_stays_within_its_bytes() {
    let router = Router::with_cache_bytes(64 * 1024);
    for client in 0..50 {
        router.subscribe(plain(&filter("t/#"), client, 0));
    }
    for n in 0..5000 {
        assert_eq!(router.matching(&topic(&format!("t/{n}"))).len(), 50);
        assert!(router.census().cached_bytes <= 64 * 1024);
    }
    assert!(router.census().cached > 10);
}

#[test]
fn hostile_filters_and_topics_cost_what_they_hold() {
    let router = Router::new();
    // Every filter of `+` and `a` over twelve levels: all 4096 match. The one without `+` is no trie's, so the
    // tries have all but one of the 8190 nodes.
    for bits in 0u32..4096 {
        let levels: Vec<_> = (0..12).map(|bit| if bits >> bit & 1 == 0 { "+" } else { "a" }).collect();
        router.subscribe(plain(&filter(&levels.join("/")), u64::from(bits), 0));
    }
    assert_eq!(router.census().nodes, 8189);
    assert_eq!(router.matching(&topic(&["a"; 12].join("/"))).len(), 4096);
    // As deep as the standard allows.
    let deep = vec!["+"; 32_768].join("/");
    router.subscribe(plain(&filter(&deep), 1, 1));
    assert_eq!(router.matching(&topic(&"/".repeat(32_767))).len(), 1);
    assert!(router.unsubscribe(filter(&deep).as_str(), 1, SubscriptionId(1)).is_some());
    assert_eq!(router.census().nodes, 8189);
    router.subscribe(plain(&filter(&deep), 1, 1));
}

#[test]
fn a_subscription_that_was_entered_is_never_missed() {
    let router = Router::new();
    let is_over = AtomicBool::new(false);
    let entered = AtomicU32::new(0);
    router.subscribe(plain(&filter("t/+"), 0, 0));
    router.subscribe(plain(&filter("t/1"), 1, 0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    let round = entered.load(Ordering::Acquire);
                    let found = targets(&router.matching(&topic("t/1")));
                    assert!(found.contains(&(0, 0, vec![])) && found.contains(&(1, 0, vec![])));
                    // Odd: client 2 has subscribed and does not unsubscribe before the next round.
                    let stable = round % 2 == 1 && entered.load(Ordering::Acquire) == round;
                    assert!(!stable || found.contains(&(2, 0, vec![])), "round {round} misses client 2");
                }
            });
        }
        for n in 0..3000 {
            let churning = filter(["t/1", "t/#", "#", "+/1"][n % 4]);
            router.subscribe(plain(&churning, 2, 0));
            entered.fetch_add(1, Ordering::AcqRel);
            if n % 16 == 0 {
                std::thread::yield_now();
            }
            entered.fetch_add(1, Ordering::AcqRel);
            router.unsubscribe(churning.as_str(), 2, SubscriptionId(0));
        }
        is_over.store(true, Ordering::Release);
    });
}

fn publication(name: &str, payload: &'static str) -> Publication {
    Publication::new(topic(name), payload.into())
}

const ROOMY: RetainedLimits = RetainedLimits { messages_max: 1_000_000, bytes_max: 1 << 30 };

fn listed(retained: &Retained, filter: &TopicFilter, batch: usize) -> BTreeSet<Topic> {
    let mut cursor = retained.matching_names(filter);
    let mut all = BTreeSet::new();
    while !cursor.is_done() {
        for topic in cursor.next_batch(retained, batch) {
            assert!(all.insert(topic.clone()), "{filter} lists {topic} twice");
        }
    }
    assert!(cursor.next_batch(retained, batch).is_empty());
    all
}

#[test]
fn retained_names_agree_with_the_definition_for_every_small_filter() {
    let retained = Retained::new(ROOMY);
    let topics = all_topics(3);
    for topic in &topics {
        retained.set(&Publication::new(topic.clone(), "x".into())).unwrap();
    }
    assert_eq!(retained.len(), topics.len());
    for filter in all_filters(4) {
        let wanted: BTreeSet<_> = topics.iter().filter(|topic| filter.matches(topic)).cloned().collect();
        assert_eq!(listed(&retained, &filter, 3), wanted, "{filter}");
        assert_eq!(listed(&retained, &filter, 1000), wanted, "{filter}");
    }
}

proptest! {
    #[test]
    fn sparse_retained_names_agree_with_the_definition(
        picked in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        asked in any::<prop::sample::Index>(),
    ) {
        let (all, filters) = (all_topics(4), all_filters(4));
        let topics: BTreeSet<Topic> = picked.iter().map(|index| index.get(&all).clone()).collect();
        let retained = Retained::new(ROOMY);
        for topic in &topics {
            retained.set(&Publication::new(topic.clone(), "x".into())).unwrap();
        }
        for filter in filters.iter().cycle().skip(asked.index(filters.len())).take(40) {
            let wanted: BTreeSet<_> = topics.iter().filter(|topic| filter.matches(topic)).cloned().collect();
            prop_assert_eq!(&listed(&retained, filter, 2), &wanted);
        }
    }
}

#[test]
fn a_list_survives_changes_between_its_pieces() {
    let retained = Retained::new(ROOMY);
    for n in 0..1000 {
        retained.set(&publication(&format!("t/{n:04}"), "x")).unwrap();
    }
    let mut cursor = retained.matching_names(&filter("t/+"));
    let mut found = cursor.next_batch(&retained, 10);
    for n in (0..1000).filter(|n| n % 2 == 1) {
        retained.set(&publication(&format!("t/{n:04}"), "")).unwrap();
        retained.set(&publication(&format!("t/{n:04}/deeper"), "x")).unwrap();
    }
    while !cursor.is_done() {
        found.extend(cursor.next_batch(&retained, 10));
    }
    let even = found.iter().filter(|topic| topic.as_str().ends_with(['0', '2', '4', '6', '8'])).count();
    assert_eq!((even, found.len()), (500, 505));
}

#[test]
fn a_filter_that_finds_little_gives_way_between_batches() {
    let retained = Retained::new(ROOMY);
    for n in 0..20_000 {
        retained.set(&publication(&format!("t/{n}/x"), "x")).unwrap();
    }
    retained.set(&publication("t/77777/y", "x")).unwrap();
    let mut cursor = retained.matching_names(&filter("t/+/y"));
    let (mut calls, mut found) = (0, 0);
    while !cursor.is_done() {
        calls += 1;
        found += cursor.next_batch(&retained, 100).len();
    }
    assert_eq!(found, 1);
    assert!(calls > 4, "all in {calls} calls");
}

#[test]
fn the_latest_value_is_retained_and_an_empty_one_removes_it() {
    let retained = Retained::new(ROOMY);
    let now = start();
    let value = |name| retained.get(&topic(name), now).map(|publication| publication.payload.clone());
    retained.set(&publication("a", "1")).unwrap();
    retained.set(&publication("a", "2")).unwrap();
    assert_eq!((value("a").as_deref(), retained.len()), (Some(&b"2"[..]), 1));
    retained.set(&publication("a", "")).unwrap();
    retained.set(&publication("b", "")).unwrap();
    assert_eq!((value("a"), value("b"), retained.len(), retained.bytes()), (None, None, 0, 0));
    assert!(listed(&retained, &filter("#"), 10).is_empty());
}

#[test]
fn a_kept_publication_says_all_that_the_published_one_said() {
    let retained = Retained::new(ROOMY);
    let mut said = publication("a", "1");
    (said.qos, said.retain, said.is_text) = (QoS::AtLeastOnce, true, true);
    (said.published_ms, said.publisher) = (5, 6);
    said.expires_at = Some(start() + Duration::from_secs(9));
    said.properties = Some(Box::default());
    retained.set(&said).unwrap();
    let kept = retained.get(&said.topic, start()).unwrap();
    // Their forms and charges differ, and are not shown before the name of those fields.
    let shown = |publication: &Publication| {
        let text = format!("{publication:?}");
        text[..text.find("forms").unwrap()].to_owned()
    };
    assert_eq!(shown(&kept), shown(&said));
}

#[test]
fn what_the_broker_says_itself_counts_apart_from_what_clients_retain() {
    let limits = RetainedLimits { messages_max: 1, bytes_max: 4096 };
    let retained = Retained::new(limits);
    retained.set(&publication("a", "1")).unwrap();
    for n in 0..100 {
        retained.set_own(&publication(&format!("$SYS/{n}"), "1")).unwrap();
        retained.set_own(&publication(&format!("$SYS/{n}"), "12")).unwrap();
    }
    assert_eq!(retained.len(), 1);
    assert!(retained.bytes() < 4096, "{}", retained.bytes());
    assert!(retained.set(&publication("b", "1")).is_err());
    retained.set(&publication("a", "")).unwrap();
    assert_eq!((retained.len(), retained.bytes()), (0, 0));
    retained.set(&publication("b", "1")).unwrap();
    retained.set_own(&publication("$SYS/1", "")).unwrap();
    assert_eq!(retained.len(), 1);
    let names = retained.matching_names(&filter("$SYS/#")).next_batch(&retained, 1000);
    assert_eq!(names.len(), 99);
}

#[test]
fn the_broker_s_own_account_has_an_end_too() {
    let retained = Retained::new(RetainedLimits { messages_max: 2000, bytes_max: 100_000_000 });
    let refused = (0..2001).find(|n| retained.set_own(&publication(&format!("$SYS/{n}"), "1")).is_err());
    assert_eq!(refused, Some(2000));
}

#[test]
fn a_topic_may_change_its_account() {
    let retained = Retained::new(RetainedLimits { messages_max: 1, bytes_max: 10_000 });
    retained.set(&publication("a", "1")).unwrap();
    retained.set_own(&publication("a", "1")).unwrap();
    assert_eq!((retained.len(), retained.bytes()), (0, 0));
    retained.set(&publication("b", "1")).unwrap();
    assert!(retained.set(&publication("a", "1")).is_err());
    retained.set(&publication("b", "")).unwrap();
    retained.set(&publication("a", "1")).unwrap();
    assert_eq!(retained.len(), 1);
}

#[test]
fn limits_refuse_by_name_and_leave_what_is_there() {
    let retained = Retained::new(RetainedLimits { messages_max: 2, bytes_max: 10_000 });
    let check = |name: &str, len: usize, refused: Option<&str>| {
        let outcome = retained.set(&Publication::new(topic(name), vec![b'x'; len].into()));
        let by = match outcome {
            Ok(()) => None,
            Err(Refusal::Quota { name, .. }) => Some(name),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(by, refused, "{name} with {len} bytes at {} bytes", retained.bytes());
    };
    check("a", 5000, None);
    check("b", 5000, Some("mqtt.retained_max_bytes"));
    check("a", 9900, Some("mqtt.retained_max_bytes"));
    assert_eq!(retained.get(&topic("a"), start()).unwrap().payload.len(), 5000);
    check("a", 6000, None);
    check("b", 1, None);
    check("c", 1, Some("mqtt.retained_max_messages"));
    check("b", 2, None);
    check("a", 0, None);
    check("c", 1, None);
    assert_eq!(retained.len(), 2);
}

#[test]
fn expired_values_are_not_given_and_go_when_swept() {
    let retained = Retained::new(ROOMY);
    let now = start();
    let later = now + Duration::from_secs(10);
    for name in ["a", "b", "c"] {
        let mut expiring = publication(name, "x");
        expiring.expires_at = Some(now + Duration::from_secs(if name == "c" { 20 } else { 5 }));
        retained.set(&expiring).unwrap();
    }
    assert!(retained.get(&topic("a"), now).is_some());
    assert!(retained.get(&topic("a"), later).is_none());
    assert!(!retained.remove_expired(&topic("c"), later));
    assert_eq!(retained.len(), 3);
    retained.sweep(later, |topic| assert!(retained.remove_expired(&topic, later)));
    assert_eq!(listed(&retained, &filter("#"), 10), BTreeSet::from([topic("c")]));
    assert_eq!(retained.len(), 1);
}

fn start() -> Instant {
    Instant::now()
}

#[test]
fn names_and_values_agree_after_threads_have_set_and_removed_at_once() {
    let retained = Retained::new(RetainedLimits { messages_max: 15, ..ROOMY });
    let names: Vec<Topic> = (0..20).map(|n| topic(&format!("t/{n}"))).collect();
    std::thread::scope(|scope| {
        for thread in 1usize..4 {
            let (retained, names) = (&retained, &names);
            scope.spawn(move || {
                for n in 0..5000 {
                    let payload = if n % (thread + 1) == 0 { "" } else { "x" };
                    let name = names[n * thread * 7 % names.len()].clone();
                    // Above the limit it is refused, and that is fine here.
                    let _ = retained.set(&Publication::new(name, payload.into()));
                    assert!(retained.len() <= 15);
                }
            });
        }
    });
    let valued: BTreeSet<_> =
        names.iter().filter(|name| retained.get(name, start()).is_some()).cloned().collect();
    assert_eq!(listed(&retained, &filter("#"), 4), valued);
    assert_eq!(retained.len(), valued.len());
}

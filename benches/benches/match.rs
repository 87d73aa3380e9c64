//! What does the router cost: a match from the tables, a match from the cache, a subscription, its memory?
//!
//! One million subscriptions, a tenth of them with wildcards, over topics of four levels.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may panic")]

use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use tidegate::router::{Member, Router};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Copies, SubscriptionId};
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

const SUBSCRIPTIONS: usize = 1_000_000;

#[derive(Clone)]
struct Entry(Arc<(u64, u32, TopicFilter)>);

impl Member for Entry {
    fn client(&self) -> u64 {
        self.0.0
    }
    fn subscription(&self) -> SubscriptionId {
        SubscriptionId(self.0.1)
    }
    fn filter(&self) -> &str {
        self.0.2.as_str()
    }
    fn identifier(&self) -> Option<std::num::NonZeroU32> {
        None
    }
    fn qos(&self) -> QoS {
        QoS::AtMostOnce
    }
    fn copies(&self) -> Copies {
        Copies::PerClient
    }
}

static FULL: LazyLock<Router<Entry>> = LazyLock::new(|| filled(0));
static CACHED: LazyLock<Router<Entry>> = LazyLock::new(|| filled(Router::<Entry>::CACHE_BYTES_MAX));

fn name(n: usize) -> String {
    format!("plant/{}/line{}/sensor{n}", n % 100, n / 100 % 100)
}

fn filter(n: usize) -> TopicFilter {
    let text = match n % 20 {
        0 => format!("plant/{}/+/sensor{n}", n % 100),
        10 => format!("site{n}/+/#"),
        _ => name(n),
    };
    TopicFilter::parse(&text, &TopicLimits::STANDARD).unwrap()
}

/// 10 000 clients with 100 subscriptions each.
fn member(n: usize, filter: TopicFilter) -> Entry {
    Entry(Arc::new(((n / 100) as u64, u32::try_from(n % 100).unwrap(), filter)))
}

fn filled(cache_bytes: usize) -> Router<Entry> {
    let router = Router::with_cache_bytes(cache_bytes);
    for n in 0..SUBSCRIPTIONS {
        router.subscribe(member(n, filter(n)));
    }
    router
}

fn topics(count: usize) -> Vec<Topic> {
    (0..count).map(|n| Topic::parse(&name(n * 997), &TopicLimits::STANDARD).unwrap()).collect()
}

fn match_each(bencher: Bencher<'_, '_>, router: &Router<Entry>, topic_count: usize) {
    let topics = topics(topic_count);
    for topic in &topics {
        router.matching(topic);
    }
    let mut next = topics.iter().cycle();
    bencher.bench_local(|| next.next().map(|topic| router.matching(black_box(topic)).len()));
}

#[divan::bench(sample_size = 1000)]
fn match_uncached(bencher: Bencher<'_, '_>) {
    match_each(bencher, &FULL, 1000);
}

#[divan::bench(sample_size = 10_000, args = [1, 1000])]
fn match_cached(bencher: Bencher<'_, '_>, topic_count: usize) {
    match_each(bencher, &CACHED, topic_count);
}

#[divan::bench(sample_size = 1000)]
fn subscribe_and_unsubscribe(bencher: Bencher<'_, '_>) {
    let mut n = SUBSCRIPTIONS;
    bencher.bench_local(|| {
        n += 1;
        let filter = filter(n);
        FULL.subscribe(member(n, filter.clone()));
        FULL.unsubscribe(filter.as_str(), (n / 100) as u64, SubscriptionId(u32::try_from(n % 100).unwrap()))
    });
}

/// One topic with many subscribers: the price of taking them out of the table.
#[divan::bench(args = [100, 10_000])]
fn match_uncached_fan_out(bencher: Bencher<'_, '_>, subscribers: usize) {
    let router = Router::with_cache_bytes(0);
    for n in 0..subscribers {
        let filter = TopicFilter::parse("a/b", &TopicLimits::STANDARD).unwrap();
        router.subscribe(member(n * 100, filter));
    }
    let topic = Topic::parse("a/b", &TopicLimits::STANDARD).unwrap();
    bencher.bench_local(|| router.matching(black_box(&topic)));
}

fn main() {
    print_cost_per_subscription();
    divan::main();
}

/// By the growth of the process; filters and members are made before, as a session has them anyway.
fn print_cost_per_subscription() {
    let entries: Vec<_> = (0..SUBSCRIPTIONS).map(|n| member(n, filter(n))).collect();
    let router = Router::with_cache_bytes(0);
    let (before, begin) = (resident_bytes(), std::time::Instant::now());
    for member in &entries {
        router.subscribe(member.clone());
    }
    let (elapsed, bytes) = (begin.elapsed(), resident_bytes().saturating_sub(before));
    println!(
        "{SUBSCRIPTIONS} subscriptions: {} bytes and {} ns each",
        bytes / SUBSCRIPTIONS,
        elapsed.as_nanos() / SUBSCRIPTIONS as u128
    );
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

//! What does a selector cost: once per subscription to read, once per message to ask?
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use bytes::Bytes;
use divan::{Bencher, black_box};
use tidegate_protocol::publication::{Properties, Publication};
use tidegate_protocol::selector::Selector;
use tidegate_protocol::topic::{Topic, TopicLimits};

fn main() {
    divan::main();
}

const TEXTS: [&str; 4] = [
    "colour = 'red'",
    "count BETWEEN 5 AND 9",
    "colour IN ('red', 'green') AND count * price > 17.0 AND NOT gift",
    "destination LIKE 'shop/%/_rders'",
];

fn publication() -> Publication {
    let topic = Topic::parse("shop/7/orders", &TopicLimits::STANDARD).unwrap();
    let mut publication = Publication::new(topic, Bytes::from_static(b"{}"));
    let user = [("count", "7"), ("price", "2.50"), ("colour", "red"), ("gift", "false")];
    publication.properties = Some(Box::new(Properties {
        user: user.map(|(name, value)| (name.into(), value.into())).to_vec(),
        ..Properties::default()
    }));
    publication
}

#[divan::bench(args = TEXTS)]
fn parse(text: &str) -> Selector {
    Selector::parse(black_box(text)).unwrap()
}

#[divan::bench(args = TEXTS)]
fn matches(bencher: Bencher<'_, '_>, text: &str) {
    let (selector, publication) = (Selector::parse(text).unwrap(), publication());
    bencher.bench(|| black_box(&selector).matches(black_box(&publication)));
}

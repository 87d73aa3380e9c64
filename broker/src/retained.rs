//! The last retained publication of each topic, within limits, and the topics that a filter finds among them.
//! Never pushes one: the owner of a new subscription pulls names by a [`Cursor`] and reads each current value.
//!
//! ```text
//!   values  topic → publication         64 shards; a new value for a known topic touches only this
//!   names   ordered level by level      64 shards by first level; a cursor skips from match to match
//! ```
//!
//! What clients publish and what the broker says itself count in two accounts, so that no client can crowd out
//! `$SYS`.
//!
//! A name is entered and removed while the shard of its value is locked, so the two always agree. A cursor locks
//! only names, and lets go at every step that counts. Spec: OASIS MQTT 5.0 §3.3.1.3, §4.7.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::time::Instant;

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::RwLock;
use tidegate_protocol::publication::Publication;
use tidegate_protocol::session::Refusal;
use tidegate_protocol::topic::{Topic, TopicFilter};

const SHARDS: usize = 64;

/// A value's place in both tables, beside its publication and the text of its name.
const ENTRY_BYTES: usize = 192;

/// Room that the broker's own account has even under the smallest limits; the numbers of `$SYS` take a tenth of it.
const OWN_MESSAGES_MIN: usize = 1024;
const OWN_BYTES_MIN: usize = 1024 * 1024;

/// Names that a cursor looks at before it lets others have the lock: some 100 µs.
const STEPS_PER_LOCK: usize = 256;

/// Names that a cursor looks at in one call, whether they match or not: some 2 ms.
const STEPS_PER_BATCH: usize = 4096;

/// How much is retained at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedLimits {
    /// `mqtt.retained_max_messages`.
    pub messages_max: usize,
    /// `mqtt.retained_max_bytes`: payloads, names, properties, wire forms once made, and the tables.
    pub bytes_max: usize,
}

/// All retained publications. Every method may be called from any thread.
/// No session owns them: 3.1.1 [MQTT-3.1.2-7].
pub struct Retained {
    values: DashMap<Topic, Value, RandomState>,
    names: Box<[RwLock<Names>]>,
    hasher: RandomState,
    clients: Account,
    own: Account,
    /// Values that will expire. While there are none, a sweep has nothing to look for.
    expiring: AtomicUsize,
}

struct Value {
    publication: Arc<Publication>,
    bytes: usize,
    by: By,
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Client,
    Broker,
}

/// What is kept for one of them.
#[derive(Debug)]
struct Account {
    limits: RetainedLimits,
    messages: AtomicUsize,
    /// Counts up and down with the publications themselves: one that is still queued somewhere counts too.
    bytes: Arc<AtomicUsize>,
}

/// Names by their text with U+0000 in place of `/`. No name contains that character and none sorts before it, so
/// everything below a name follows right after it, and `range` can skip it as a whole.
type Names = BTreeMap<Box<str>, Topic>;

impl Retained {
    /// Nothing retained.
    #[must_use]
    pub fn new(limits: RetainedLimits) -> Self {
        let hasher = RandomState::new();
        Self {
            values: DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher.clone(), SHARDS),
            names: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher,
            clients: Account::new(limits),
            own: Account::new(RetainedLimits {
                messages_max: limits.messages_max.max(OWN_MESSAGES_MIN),
                bytes_max: limits.bytes_max.max(OWN_BYTES_MIN),
            }),
            expiring: AtomicUsize::new(0),
        }
    }

    /// Makes `publication` the retained one of its topic. An empty payload removes what is there and is not kept
    /// itself [MQTT-3.3.1-6] [MQTT-3.3.1-7].
    ///
    /// Keeps a copy that shares the payload but not the wire forms: those of the live message are not wanted any
    /// more when it has been delivered, and those of the copy count against the limit of bytes.
    ///
    /// # Errors
    ///
    /// [`Refusal::Quota`] names the limit that it would break. What was retained before stays.
    pub fn set(&self, publication: &Publication) -> Result<(), Refusal> {
        self.set_by(By::Client, publication)
    }

    /// The same for what the broker itself says, in its own account.
    ///
    /// # Errors
    ///
    /// As [`Retained::set`]; that account is full only when the states of very many clients are in it.
    pub fn set_own(&self, publication: &Publication) -> Result<(), Refusal> {
        self.set_by(By::Broker, publication)
    }

    fn set_by(&self, by: By, publication: &Publication) -> Result<(), Refusal> {
        if publication.payload.is_empty() {
            self.remove_if(&publication.topic, |_| true);
            return Ok(());
        }
        let bytes = cost_bytes(publication);
        // The old value ends only after the guard.
        let replaced = match self.values.entry(publication.topic.clone()) {
            Entry::Occupied(mut held) => {
                let (held_by, held_bytes) = (held.get().by, held.get().bytes);
                if held_by != by {
                    self.account(by).check_bytes(bytes)?;
                    self.account(by).count_message()?;
                    self.account(held_by).uncount_message();
                } else if by == By::Client && bytes > held_bytes {
                    // The broker's own values grow by a digit at most.
                    self.account(by).check_bytes(bytes - held_bytes)?;
                }
                Some(held.insert(self.keep(by, publication, bytes)))
            }
            Entry::Vacant(vacant) => {
                self.account(by).check_bytes(bytes)?;
                self.account(by).count_message()?;
                self.enter(&publication.topic);
                drop(vacant.insert(self.keep(by, publication, bytes)));
                None
            }
        };
        if let Some(replaced) = &replaced {
            self.forget(replaced);
        }
        Ok(())
    }

    /// The retained publication of a topic, unless that has expired. The next sweep removes such a one.
    pub fn get(&self, topic: &Topic, now: Instant) -> Option<Arc<Publication>> {
        let publication = Arc::clone(&self.values.get(topic.as_str())?.publication);
        (!publication.is_expired(now)).then_some(publication)
    }

    /// The retained publication of a topic as it is held, expired or not.
    pub(crate) fn held(&self, topic: &Topic) -> Option<Arc<Publication>> {
        self.values.get(topic.as_str()).map(|value| Arc::clone(&value.publication))
    }

    /// What was held before a change that is not to be. There was room for it.
    pub(crate) fn put_back(&self, topic: &Topic, was: Option<&Publication>) {
        match was {
            Some(was) => _ = self.set(was),
            None => _ = self.remove_if(topic, |_| true),
        }
    }

    /// Begins to list the topics with a retained publication that `filter` matches.
    ///
    /// Those that are there from now until the end of the list come up once. Those that are added or removed
    /// meanwhile may come up, and then [`Retained::get`] tells.
    #[must_use]
    pub fn matching_names(&self, filter: &TopicFilter) -> Cursor {
        let first = filter.levels().next().unwrap_or_default();
        let shards = if matches!(first, "+" | "#") { 0..SHARDS } else { self.shard_of(first) };
        Cursor { filter: filter.clone(), from: String::new(), shards }
    }

    /// Gives the topics of what has expired to `remove`, which calls [`Retained::remove_expired`]. Locks one shard of 64
    /// at a time, and none while it removes. Called by a timer.
    pub fn sweep(&self, now: Instant, mut remove: impl FnMut(Topic)) {
        if self.expiring.load(Atomic::Relaxed) == 0 {
            return;
        }
        let expired: Vec<Topic> = self
            .values
            .iter()
            .filter(|value| value.publication.is_expired(now))
            .map(|value| value.key().clone())
            .collect();
        expired.into_iter().for_each(&mut remove);
        if self.values.len() < self.values.capacity() / 8 {
            self.values.shrink_to_fit();
        }
    }

    /// Removes the retained publication of a topic if that has expired. Gives whether it did.
    pub fn remove_expired(&self, topic: &Topic, now: Instant) -> bool {
        self.remove_if(topic, |held| held.is_expired(now))
    }

    /// How many topics have one from a client.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.messages.load(Atomic::Relaxed)
    }

    /// Whether no topic has one from a client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory of those.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.clients.bytes()
    }

    fn account(&self, by: By) -> &Account {
        match by {
            By::Client => &self.clients,
            By::Broker => &self.own,
        }
    }

    fn keep(&self, by: By, publication: &Publication, bytes: usize) -> Value {
        let mut copy = Publication::new(publication.topic.clone(), publication.payload.clone());
        copy.qos = publication.qos;
        copy.retain = publication.retain;
        copy.is_text = publication.is_text;
        copy.properties.clone_from(&publication.properties);
        copy.expires_at = publication.expires_at;
        copy.expires_ms = publication.expires_ms;
        copy.published_ms = publication.published_ms;
        copy.publisher = publication.publisher;
        copy.charge_to(&self.account(by).bytes);
        self.expiring.fetch_add(usize::from(copy.expires_at.is_some()), Atomic::Relaxed);
        Value { publication: Arc::new(copy), bytes, by }
    }

    fn forget(&self, value: &Value) {
        self.expiring.fetch_sub(usize::from(value.publication.expires_at.is_some()), Atomic::Relaxed);
    }

    fn remove_if(&self, topic: &Topic, is_over: impl FnOnce(&Publication) -> bool) -> bool {
        let removed = match self.values.entry(topic.clone()) {
            Entry::Occupied(held) if is_over(&held.get().publication) => {
                self.leave(topic);
                self.account(held.get().by).uncount_message();
                Some(held.remove())
            }
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        };
        if let Some(removed) = &removed {
            self.forget(removed);
        }
        removed.is_some()
    }

    fn enter(&self, topic: &Topic) {
        self.names_of(topic).write().insert(key(topic.as_str()).into(), topic.clone());
    }

    fn leave(&self, topic: &Topic) {
        self.names_of(topic).write().remove(key(topic.as_str()).as_str());
    }

    fn names_of(&self, topic: &Topic) -> &RwLock<Names> {
        let shard = self.shard_of(topic.levels().next().unwrap_or_default()).start;
        #[expect(clippy::indexing_slicing, reason = "shard_of stays below the number of shards")]
        &self.names[shard]
    }

    fn shard_of(&self, first_level: &str) -> std::ops::Range<usize> {
        let shard = usize::from(self.hasher.hash_one(first_level).to_le_bytes()[0]) % SHARDS;
        shard..shard + 1
    }
}

impl Account {
    fn new(limits: RetainedLimits) -> Self {
        Self { limits, messages: AtomicUsize::new(0), bytes: Arc::default() }
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Atomic::Relaxed) + self.messages.load(Atomic::Relaxed) * ENTRY_BYTES
    }

    fn check_bytes(&self, more: usize) -> Result<(), Refusal> {
        let limit = self.limits.bytes_max;
        if self.bytes().saturating_add(more) > limit {
            return Err(Refusal::Quota { name: "mqtt.retained_max_bytes", limit });
        }
        Ok(())
    }

    fn count_message(&self) -> Result<(), Refusal> {
        let limit = self.limits.messages_max;
        let counted = self
            .messages
            .fetch_update(Atomic::Relaxed, Atomic::Relaxed, |count| (count < limit).then_some(count + 1));
        counted.map(drop).map_err(|_| Refusal::Quota { name: "mqtt.retained_max_messages", limit })
    }

    fn uncount_message(&self) {
        self.messages.fetch_sub(1, Atomic::Relaxed);
    }
}

/// Walks the names that a filter matches, in pieces. Holds no lock and no value between two calls; it stays with
/// the connection and costs the length of a name.
#[derive(Debug)]
pub struct Cursor {
    filter: TopicFilter,
    /// The key to go on at, in the first of `shards`.
    from: String,
    shards: std::ops::Range<usize>,
}

impl Cursor {
    /// At most `names_max` further names. May give fewer, or none, before the end: the work of a call is bounded,
    /// whatever the filter is. The end is what [`Cursor::is_done`] says.
    pub fn next_batch(&mut self, retained: &Retained, names_max: usize) -> Vec<Topic> {
        let mut found = Vec::new();
        let mut steps = STEPS_PER_BATCH;
        while steps > 0 && found.len() < names_max {
            let Some(names) = retained.names.get(self.shards.start).filter(|_| !self.is_done()) else {
                break;
            };
            let done = self.advance(&names.read(), &mut found, names_max, steps.min(STEPS_PER_LOCK));
            steps = steps.saturating_sub(done);
        }
        found
    }

    /// Whether there is nothing more to come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.shards.is_empty()
    }

    /// Goes on in one shard for at most `steps_max` steps, and to the next shard at its end. Gives the steps done.
    fn advance(
        &mut self,
        names: &Names,
        found: &mut Vec<Topic>,
        names_max: usize,
        steps_max: usize,
    ) -> usize {
        let mut steps = 0;
        while steps < steps_max && found.len() < names_max {
            let mut is_at_end = true;
            let rest = (Bound::Included(self.from.as_str()), Bound::Unbounded);
            for (key, topic) in names.range::<str, _>(rest) {
                steps += 1;
                match compare(&self.filter, key) {
                    Verdict::Match => found.push(topic.clone()),
                    Verdict::SkipTo(next) => {
                        self.from = next;
                        is_at_end = false;
                        break;
                    }
                    Verdict::NoMore => break,
                }
                if steps == steps_max || found.len() == names_max {
                    // The next possible key, whether or not there is such a name.
                    self.from = format!("{key}\0");
                    return steps;
                }
            }
            if is_at_end {
                self.shards.start += 1;
                self.from.clear();
                return steps + 1;
            }
        }
        steps
    }
}

/// What a name says about itself and those that follow it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The filter matches it.
    Match,
    /// It does not, nor does anything before this key, which is greater than the name's own.
    SkipTo(String),
    /// Nothing from here on.
    NoMore,
}

/// Holds a key against a filter, level by level. Agrees with [`TopicFilter::matches`]; a test holds that.
fn compare(filter: &TopicFilter, key: &str) -> Verdict {
    let mut levels = key.split('\0');
    // Bytes of the levels of `key` that the filter has accepted, without the separator after them.
    let mut accepted: Option<usize> = None;
    for wanted in filter.levels() {
        let above = key.get(..accepted.unwrap_or(0)).unwrap_or_default();
        let below = |level: &str| match accepted {
            Some(_) => format!("{above}\0{level}"),
            None => level.to_owned(),
        };
        let is_wildcard = matches!(wanted, "+" | "#");
        if is_wildcard && accepted.is_none() && key.starts_with('$') {
            return Verdict::SkipTo("%".to_owned()); // [MQTT-4.7.2-1]: behind all that begins with '$'
        }
        if wanted == "#" {
            return Verdict::Match;
        }
        let Some(level) = levels.next() else {
            return Verdict::SkipTo(below(if is_wildcard { "" } else { wanted }));
        };
        match level.cmp(wanted) {
            _ if is_wildcard => {}
            Ordering::Equal => {}
            Ordering::Less => return Verdict::SkipTo(below(wanted)),
            Ordering::Greater if accepted.is_none() => return Verdict::NoMore,
            Ordering::Greater => return Verdict::SkipTo(behind(above)),
        }
        accepted = Some(accepted.map_or(level.len(), |accepted| accepted + 1 + level.len()));
    }
    if levels.next().is_none() {
        return Verdict::Match;
    }
    Verdict::SkipTo(behind(key.get(..accepted.unwrap_or(0)).unwrap_or_default()))
}

/// The least key that is neither `name` nor below it.
fn behind(name: &str) -> String {
    format!("{name}\u{1}")
}

fn key(name: &str) -> String {
    name.replace('/', "\0")
}

fn cost_bytes(publication: &Publication) -> usize {
    publication.size_bytes() + Publication::OVERHEAD_BYTES + ENTRY_BYTES
}

//! All queues by name. One for the whole broker.
//!
//! A queue is in this table and in the router, or in neither: both change under the guard of its shard. Lock order: a
//! shard of this table, then the router or a queue.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ahash::RandomState;
use dashmap::{DashMap, Entry};
use tidegate_protocol::session::Refusal;
use tidegate_protocol::topic::Topic;

use super::WorkQueue;
use super::news::News;

/// Which queue. A topic below `queue/`, or what a durable subscription is kept under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueName(Arc<str>);

/// Whose queue it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of whoever consumes it.
    Queue,
    /// Of a durable subscription.
    Durable,
}

/// See the file's first lines.
#[derive(Debug)]
pub struct Queues {
    queues: DashMap<QueueName, Arc<WorkQueue>, RandomState>,
    news: Arc<News>,
    /// `work_queue.max_queues`.
    queues_max: usize,
    len: AtomicUsize,
}

/// Queues begin with this.
const QUEUE_PREFIX: &str = "queue/";

/// A record of a session whose name begins with this is a queue's. No name of a session does: what stands before its
/// first U+0000 is a user, and no client id has another.
const RECORD_PREFIX: &str = "\0\0";

const DURABLE_PREFIX: &str = "durable/";

impl QueueName {
    /// The queue of this topic, if it is one: all below `queue/`.
    pub fn of_topic(topic: &Topic) -> Option<Self> {
        Self::of_text(topic.as_str())
    }

    /// The same for the text of a topic.
    pub fn of_text(topic: &str) -> Option<Self> {
        let rest = topic.strip_prefix(QUEUE_PREFIX)?;
        (!rest.is_empty()).then(|| Self(topic.into()))
    }

    /// What a durable subscription is kept under: names belong to their users.
    pub fn durable(user: Option<&str>, name: &str) -> Self {
        Self(format!("{DURABLE_PREFIX}{}\0{name}", user.unwrap_or_default()).into())
    }

    /// From the name of a session's record; `None`: it is a session's.
    pub fn of_record(record: &str) -> Option<Self> {
        record.strip_prefix(RECORD_PREFIX).map(|name| Self(name.into()))
    }

    /// As the record of a session is named.
    pub fn to_record(&self) -> Box<str> {
        format!("{RECORD_PREFIX}{}", self.0).into()
    }

    /// Whose queue it is.
    pub fn kind(&self) -> Kind {
        if self.0.starts_with(QUEUE_PREFIX) { Kind::Queue } else { Kind::Durable }
    }

    /// The text of the topic, of a queue of its own.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace('\0', "/"))
    }
}

impl Queues {
    /// No queue.
    pub fn new(queues_max: usize) -> Self {
        Self {
            queues: DashMap::with_hasher(RandomState::new()),
            news: Arc::default(),
            queues_max,
            len: AtomicUsize::new(0),
        }
    }

    /// The queue of this name, if there is one.
    pub fn get(&self, name: &QueueName) -> Option<Arc<WorkQueue>> {
        self.queues.get(name).map(|queue| Arc::clone(&queue))
    }

    /// The queue of this name, a new one if need be: `create` makes it, and enters it into the router.
    ///
    /// # Errors
    ///
    /// [`Refusal::Quota`]: there are too many.
    pub(crate) fn ensure(
        &self,
        name: &QueueName,
        create: impl FnOnce(&Arc<News>) -> Arc<WorkQueue>,
    ) -> Result<Arc<WorkQueue>, Refusal> {
        if let Some(queue) = self.get(name) {
            return Ok(queue);
        }
        match self.queues.entry(name.clone()) {
            Entry::Occupied(known) => Ok(Arc::clone(known.get())),
            Entry::Vacant(place) => {
                let limit = self.queues_max;
                let count = |len: usize| (len < limit).then_some(len + 1);
                if self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_err() {
                    return Err(Refusal::Quota { name: "work_queue.max_queues", limit });
                }
                Ok(Arc::clone(&place.insert(create(&self.news))))
            }
        }
    }

    /// Enters a queue that was there before a restart, whatever the limit.
    pub(crate) fn restore(&self, name: &QueueName, create: impl FnOnce(&Arc<News>) -> Arc<WorkQueue>) {
        if let Entry::Vacant(place) = self.queues.entry(name.clone()) {
            self.len.fetch_add(1, Ordering::Relaxed);
            place.insert(create(&self.news));
        }
    }

    /// Takes a queue out, if `ends` says so; `unroute` takes it out of the router.
    pub(crate) fn remove(
        &self,
        name: &QueueName,
        ends: impl FnOnce(&Arc<WorkQueue>) -> bool,
        unroute: impl FnOnce(&Arc<WorkQueue>),
    ) -> Option<Arc<WorkQueue>> {
        let removed = self.queues.remove_if(name, |_, queue| {
            let is_over = ends(queue);
            if is_over {
                unroute(queue);
            }
            is_over
        });
        removed.map(|(_, queue)| {
            self.len.fetch_sub(1, Ordering::Relaxed);
            queue
        })
    }

    /// All that are there.
    pub fn all(&self) -> Vec<Arc<WorkQueue>> {
        self.queues.iter().map(|queue| Arc::clone(&queue)).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages in all of them. Looks at each.
    pub fn messages(&self) -> usize {
        self.queues.iter().map(|queue| queue.len()).sum()
    }

    /// Waits until a queue has something to dispatch. Cancel safe.
    pub async fn any_news(&self) {
        self.news.any().await;
    }

    /// Queues with something to dispatch, each once.
    pub fn take_news(&self) -> Vec<Arc<WorkQueue>> {
        self.news.take()
    }

    /// Lets time pass in all of them. Gives those that are over.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<QueueName> {
        let mut idle = Vec::new();
        for queue in self.all() {
            queue.sweep(now);
            if queue.consumers() == 0 && (queue.name().kind() == Kind::Durable || queue.is_empty()) {
                idle.push(queue.name().clone());
            }
        }
        idle
    }
}

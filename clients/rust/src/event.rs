//! What a user reads, and the bounded queue that it waits in: one writer (the connection's task), one reader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_protocol::raw::client::{Lag, Msg, Refused};
use tidegate_protocol::topic::TopicFilter;
use tokio::sync::Notify;

use crate::error::{ConnectError, Disconnect};
use crate::options::Limits;

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message for one of the subscriptions; one copy, however many of them match it.
    Message(Box<Msg>),
    /// This client did not keep up, and the broker dropped or replaced messages for it.
    Lag(Lag),
    /// The connection is gone, and another is tried after the pause. Requests fail until [`Event::Restored`].
    Lost {
        /// Why.
        cause: Disconnect,
        /// The pause before the first attempt.
        retry_in: Duration,
    },
    /// There is a connection again. What follows comes from it; the subscriptions are being asked for anew.
    Restored {
        /// There are subscriptions: messages that were published to them while there was no connection, or that
        /// were on their way when it was lost, may be missing here.
        may_have_gap: bool,
    },
    /// The broker refused a subscription that was to be restored. The client has forgotten it.
    SubscriptionLost {
        /// Of the subscription.
        filter: TopicFilter,
        /// The broker's answer.
        refused: Refused,
    },
    /// The broker refused a publish without acknowledgement, and cannot say which.
    Refused(Refused),
    /// The client gave up; this is the last event.
    Ended(End),
}

/// Why a client gave up: the same would happen again (WIRE §5).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// How the last connection ended.
    #[error(transparent)]
    Disconnect(Disconnect),
    /// Why there was no further one.
    #[error(transparent)]
    Connect(ConnectError),
}

/// The events of a [`Client`](crate::Client), in their order.
///
/// When nobody reads them, the queue fills up to [`Limits::events_max`] or [`Limits::event_bytes_max`]; then the
/// client stops to read from its socket, and the broker applies the overflow policy of the subscriptions.
/// Answers to requests wait behind the unread messages then, and the broker ends the connection when pings go
/// unanswered for too long. When the `Events` are dropped, messages are discarded as they come.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct EventSender {
    shared: Arc<Shared>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something came, or nothing will any more. For the reader.
    filled: Notify,
    /// Something was taken, or the reader left. For the writer.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    bytes: usize,
    is_ended: bool,
    is_abandoned: bool,
}

/// A queue of the default limits, empty.
pub(crate) fn event_queue(limits: Limits) -> (EventSender, Events) {
    let shared = Arc::new(Shared::default());
    (EventSender { shared: Arc::clone(&shared), limits }, Events { shared })
}

impl Event {
    /// What it holds in memory, about.
    fn size_bytes(&self) -> usize {
        let rest = match self {
            Self::Message(msg) => {
                let user = &msg.properties.user;
                let user: usize = user.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
                let correlation = msg.properties.correlation_data.as_ref().map_or(0, bytes::Bytes::len);
                size_of::<Msg>() + msg.topic.as_str().len() + msg.payload.len() + correlation + user
            }
            _ => 0,
        };
        size_of::<Self>() + rest
    }
}

impl Shared {
    /// A queue is whole between any two of its operations, whatever happened to a thread.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// The next event; `None` after the last one, which is when the client was closed or has given up. Cancel
    /// safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            {
                let mut queue = self.shared.lock();
                if let Some(event) = queue.events.pop_front() {
                    queue.bytes = queue.bytes.saturating_sub(event.size_bytes());
                    drop(queue);
                    self.shared.drained.notify_one();
                    return Some(event);
                }
                if queue.is_ended {
                    return None;
                }
            }
            self.shared.filled.notified().await;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.is_abandoned = true;
        queue.events = VecDeque::new();
        queue.bytes = 0;
        drop(queue);
        self.shared.drained.notify_one();
    }
}

impl EventSender {
    /// Whether nothing more is to be read from the socket.
    pub(crate) fn is_full(&self) -> bool {
        let queue = self.shared.lock();
        queue.events.len() >= self.limits.events_max || queue.bytes >= self.limits.event_bytes_max
    }

    /// Waits until the queue is not full. Cancel safe.
    pub(crate) async fn room(&self) {
        while self.is_full() {
            self.shared.drained.notified().await;
        }
    }

    /// Queues without waiting; the caller has looked for [`Self::room`].
    pub(crate) fn push(&self, event: Event) {
        let mut queue = self.shared.lock();
        if queue.is_abandoned {
            return;
        }
        queue.bytes = queue.bytes.saturating_add(event.size_bytes());
        queue.events.push_back(event);
        drop(queue);
        self.shared.filled.notify_one();
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.shared.lock().is_ended = true;
        self.shared.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored() -> Event {
        Event::Restored { may_have_gap: false }
    }

    #[tokio::test]
    async fn is_full_at_either_limit_until_something_is_taken() {
        let few = Limits { events_max: 2, ..Limits::default() };
        let small = Limits { event_bytes_max: size_of::<Event>() + 1, ..Limits::default() };
        for limits in [few, small] {
            let (sender, mut events) = event_queue(limits);
            sender.push(restored());
            assert!(!sender.is_full());
            sender.push(restored());
            assert!(sender.is_full());
            let (_, event) = tokio::join!(sender.room(), events.next());
            assert!(matches!(event, Some(Event::Restored { .. })));
        }
    }

    #[tokio::test]
    async fn what_is_queued_outlives_the_writer() {
        let (sender, mut events) = event_queue(Limits::default());
        sender.push(restored());
        drop(sender);
        assert!(events.next().await.is_some());
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn without_a_reader_there_is_always_room() {
        let (sender, events) = event_queue(Limits { events_max: 1, ..Limits::default() });
        sender.push(restored());
        let ((), ()) = tokio::join!(sender.room(), async { drop(events) });
        sender.push(restored());
        assert!(!sender.is_full());
    }
}

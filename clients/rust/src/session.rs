//! The client's end of a raw session: which requests wait for an answer, and which subscriptions exist. Outlives a
//! connection. No socket, no task; time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tidegate_protocol::raw::client::{Answer, Operation, Refused, Sub};
use tidegate_protocol::topic::TopicFilter;
use tidegate_protocol::websocket::prepared::Outgoing;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::{Disconnect, RequestError};
use crate::event::Event;
use crate::options::SubscribeOptions;

/// Where the answer to a request goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, RequestError>>;

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) enum Waiting {
    Sub {
        filter: TopicFilter,
        options: SubscribeOptions,
        reply: Reply<()>,
    },
    /// A `sub` of ours, on a new connection.
    Restore {
        filter: TopicFilter,
    },
    Unsub {
        filter: TopicFilter,
        reply: Reply<()>,
    },
    Pub {
        reply: Reply<u64>,
    },
    Ping {
        sent_at: Instant,
        reply: Reply<Duration>,
    },
}

/// The numbers of requests, never the same twice among those that wait.
#[derive(Debug, Default)]
pub(crate) struct Ids(AtomicU32);

/// What is remembered over connections, and what one connection owes.
#[derive(Debug)]
pub(crate) struct Session {
    ids: Arc<Ids>,
    waiting: HashMap<u32, Waiting>,
    subscriptions: BTreeMap<TopicFilter, SubscribeOptions>,
    /// The pause that the broker's `bye` asked for.
    bye_after: Option<Duration>,
}

impl Ids {
    pub(crate) fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Waiting {
    fn fail(self, error: RequestError) {
        // A receiver that is gone has lost interest.
        match self {
            Self::Restore { .. } => {}
            Self::Sub { reply, .. } | Self::Unsub { reply, .. } => drop(reply.send(Err(error))),
            Self::Pub { reply } => drop(reply.send(Err(error))),
            Self::Ping { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    /// Nobody waits for it any more, and its answer would change nothing.
    fn is_forgotten(&self) -> bool {
        match self {
            Self::Sub { .. } | Self::Restore { .. } | Self::Unsub { .. } => false,
            Self::Pub { reply } => reply.is_closed(),
            Self::Ping { reply, .. } => reply.is_closed(),
        }
    }
}

/// A `sub` with these options.
pub(crate) fn sub(id: u32, filter: &TopicFilter, options: &SubscribeOptions) -> Outgoing {
    let sub = Sub {
        id,
        topic: filter.as_str(),
        last: options.last,
        conflate: options.conflate,
        overflow: options.overflow,
        no_local: options.no_local,
    };
    Operation::Sub(sub).encode()
}

impl Session {
    pub(crate) fn new(ids: Arc<Ids>) -> Self {
        Self { ids, waiting: HashMap::new(), subscriptions: BTreeMap::new(), bye_after: None }
    }

    /// A request is about to be sent.
    pub(crate) fn handle_request(&mut self, id: u32, waiting: Waiting) {
        if let Waiting::Unsub { filter, .. } = &waiting {
            // From here on a new connection is not to have it.
            self.subscriptions.remove(filter);
        }
        self.waiting.insert(id, waiting);
    }

    /// A request cannot be sent, since there is no connection.
    pub(crate) fn handle_request_unconnected(&mut self, waiting: Waiting) {
        match waiting {
            // Without a connection nothing is subscribed: forgetting it is all there is to do.
            Waiting::Unsub { filter, reply } => {
                self.subscriptions.remove(&filter);
                drop(reply.send(Ok(())));
            }
            other => other.fail(RequestError::NotConnected),
        }
    }

    /// Requests without an answer.
    pub(crate) fn waiting_len(&mut self, limit: usize) -> usize {
        if self.waiting.len() >= limit {
            self.waiting.retain(|_, waiting| !waiting.is_forgotten());
        }
        self.waiting.len()
    }

    /// What the broker said, to what the user is told.
    pub(crate) fn handle_answer(
        &mut self,
        answer: Answer,
        now: Instant,
    ) -> Result<Option<Event>, Disconnect> {
        match answer {
            Answer::Msg(msg) => return Ok(Some(Event::Message(msg))),
            Answer::Lag(lag) => return Ok(Some(Event::Lag(lag))),
            Answer::Err { id, refused } => return Ok(self.handle_refused(id, refused)),
            Answer::Ok { id, matched } => self.handle_ok(id, matched)?,
            Answer::Pong { id: Some(id) } => match self.waiting.remove(&id) {
                None => {}
                Some(Waiting::Ping { sent_at, reply }) => {
                    drop(reply.send(Ok(now.saturating_duration_since(sent_at))));
                }
                Some(other) => return Err(self.handle_wrong_answer(id, other)),
            },
            Answer::Bye { after } => self.bye_after = after,
            Answer::Pong { id: None } | Answer::Welcome(_) | Answer::Other => {}
        }
        Ok(None)
    }

    fn handle_ok(&mut self, id: u32, matched: Option<u64>) -> Result<(), Disconnect> {
        match self.waiting.remove(&id) {
            // Its user has lost interest, and it was forgotten.
            None | Some(Waiting::Restore { .. }) => {}
            Some(Waiting::Sub { filter, options, reply }) => {
                self.subscriptions.insert(filter, options);
                drop(reply.send(Ok(())));
            }
            Some(Waiting::Unsub { filter, reply }) => {
                // Once more: an earlier `sub` may have been answered since.
                self.subscriptions.remove(&filter);
                drop(reply.send(Ok(())));
            }
            Some(Waiting::Pub { reply }) => drop(reply.send(Ok(matched.unwrap_or(0)))),
            Some(other @ Waiting::Ping { .. }) => return Err(self.handle_wrong_answer(id, other)),
        }
        Ok(())
    }

    /// The request fails with the connection.
    fn handle_wrong_answer(&mut self, id: u32, waiting: Waiting) -> Disconnect {
        self.waiting.insert(id, waiting);
        Disconnect::WrongAnswer
    }

    fn handle_refused(&mut self, id: Option<u32>, refused: Refused) -> Option<Event> {
        let Some(id) = id else { return Some(Event::Refused(refused)) };
        match self.waiting.remove(&id)? {
            Waiting::Restore { filter } => {
                self.subscriptions.remove(&filter);
                Some(Event::SubscriptionLost { filter, refused })
            }
            waiting => {
                waiting.fail(RequestError::Refused(refused));
                None
            }
        }
    }

    /// The connection is gone. Fails what was in flight; the pause that the broker asked for.
    pub(crate) fn handle_lost(&mut self) -> Option<Duration> {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            match waiting {
                // With the connection went the subscription.
                Waiting::Unsub { filter, reply } => {
                    self.subscriptions.remove(&filter);
                    drop(reply.send(Ok(())));
                }
                other => other.fail(RequestError::ConnectionLost),
            }
        }
        self.bye_after.take()
    }

    pub(crate) fn has_subscriptions(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// What asks a new connection for all subscriptions.
    pub(crate) fn restore(&mut self) -> Vec<Outgoing> {
        let mut subs = Vec::with_capacity(self.subscriptions.len());
        for (filter, options) in &self.subscriptions {
            let id = self.ids.next();
            subs.push(sub(id, filter, options));
            self.waiting.insert(id, Waiting::Restore { filter: filter.clone() });
        }
        subs
    }
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::topic::TopicLimits;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text, &TopicLimits::STANDARD).unwrap()
    }

    fn ok(id: u32) -> Answer {
        Answer::Ok { id, matched: None }
    }

    fn refused() -> Refused {
        Refused { code: "denied".into(), reason: "no".into(), may_retry: false }
    }

    /// A session that is subscribed to these.
    fn subscribed(filters: &[&str]) -> Session {
        let mut session = Session::new(Arc::default());
        for text in filters {
            let id = session.ids.next();
            let (reply, mut answer) = oneshot::channel();
            let options = SubscribeOptions::default();
            session.handle_request(id, Waiting::Sub { filter: filter(text), options, reply });
            session.handle_answer(ok(id), Instant::now()).unwrap();
            answer.try_recv().unwrap().unwrap();
        }
        session
    }

    fn restored(session: &Session) -> Vec<&str> {
        session.subscriptions.keys().map(TopicFilter::as_str).collect()
    }

    #[test]
    fn an_unsubscribe_counts_even_if_the_connection_or_the_answer_is_lost() {
        for is_sent in [true, false] {
            let mut session = subscribed(&["a", "b"]);
            let (reply, mut answer) = oneshot::channel();
            let waiting = Waiting::Unsub { filter: filter("a"), reply };
            if is_sent {
                session.handle_request(77, waiting);
                session.handle_lost();
            } else {
                session.handle_request_unconnected(waiting);
            }
            assert!(answer.try_recv().unwrap().is_ok());
            assert_eq!(restored(&session), ["b"]);
        }
    }

    #[test]
    fn a_sub_that_was_answered_after_the_unsub_was_sent_is_gone_with_it() {
        let mut session = subscribed(&[]);
        let (sub_reply, _sub) = oneshot::channel();
        let (unsub_reply, _unsub) = oneshot::channel();
        let options = SubscribeOptions::default();
        session.handle_request(1, Waiting::Sub { filter: filter("a"), options, reply: sub_reply });
        session.handle_request(2, Waiting::Unsub { filter: filter("a"), reply: unsub_reply });
        session.handle_answer(ok(1), Instant::now()).unwrap();
        session.handle_answer(ok(2), Instant::now()).unwrap();
        assert!(restored(&session).is_empty());
    }

    #[test]
    fn a_refused_restoration_is_told_and_forgotten() {
        let mut session = subscribed(&["a", "b"]);
        assert_eq!(session.restore().len(), 2);
        let at = *session
            .waiting
            .iter()
            .find(|(_, waiting)| matches!(waiting, Waiting::Restore { filter } if filter.as_str() == "a"))
            .unwrap()
            .0;
        let event = session.handle_answer(Answer::Err { id: Some(at), refused: refused() }, Instant::now());
        assert!(matches!(event, Ok(Some(Event::SubscriptionLost { filter, .. })) if filter.as_str() == "a"));
        session.handle_lost();
        assert_eq!(restored(&session), ["b"]);
    }

    #[test]
    fn an_answer_of_another_kind_ends_the_connection_and_fails_its_request() {
        let mut session = subscribed(&[]);
        let (reply, mut answer) = oneshot::channel();
        session.handle_request(5, Waiting::Pub { reply });
        let result = session.handle_answer(Answer::Pong { id: Some(5) }, Instant::now());
        assert!(matches!(result, Err(Disconnect::WrongAnswer)));
        session.handle_lost();
        assert!(matches!(answer.try_recv().unwrap(), Err(RequestError::ConnectionLost)));
    }

    #[test]
    fn answers_to_forgotten_requests_are_passed_over() {
        let mut session = subscribed(&[]);
        for answer in [ok(9), Answer::Pong { id: Some(9) }, Answer::Err { id: Some(9), refused: refused() }] {
            assert!(matches!(session.handle_answer(answer, Instant::now()), Ok(None)));
        }
    }

    #[test]
    fn a_publish_that_nobody_waits_for_gives_its_place_back() {
        let mut session = subscribed(&[]);
        for id in 0..3 {
            let (reply, answer) = oneshot::channel();
            session.handle_request(id, Waiting::Pub { reply });
            drop(answer);
        }
        assert_eq!(session.waiting_len(4), 3);
        assert_eq!(session.waiting_len(3), 0);
    }
}

//! A session in envelope mode (WIRE §3): each message is an operation, or an array of them.
//!
//! ```text
//!  Connecting ──Connected──▶ Ready ──▶ Closed
//! ```
//!
//! Operations are done in their order. Publishes are pipelined up to `receive_maximum`; behind a `sub` or `unsub`
//! everything waits for its reply, so that what follows it in one message finds it done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{Answer, Limits};
use super::document::{self, Value};
use super::fields::{Flaw, Id};
use super::form::{Retained, message_forms, message_outgoing};
use super::operation::{Operation, Sub};
use super::refusal::{Word, connect_close, may_retry, word};
use super::{Encoding, Pinned, Settings};
use crate::publication::{Publication, QoS};
use crate::session::{
    CloseKind, CloseReason, Connect, Copies, DataLane, Delivery, Granted, Lag, Output, Publish, Reading,
    Refusal, Reply, Request, RetainHandling, Session, Settlement, Subscribe, SubscriptionId,
    SubscriptionName, Token, Wants,
};
use crate::topic::{ShareName, TopicFilter};
use crate::websocket::Message;

/// One client in envelope mode.
#[derive(Debug)]
pub(super) struct Envelope {
    outputs: VecDeque<Output>,
    state: State,
    pinned: Pinned,
    /// What the client gets back: pinned, or that of its first frame.
    encoding: Option<Encoding>,
    is_greeted: bool,
    settings: Settings,
    /// From the broker, for `welcome`.
    client_id: Arc<str>,
    subscriptions: Vec<(Subscribed, SubscriptionId)>,
    next_subscription: u32,
    next_token: u32,
    /// Requests without a reply, in their order.
    waiting: VecDeque<(Token, Waiting)>,
    /// Operations of the last message that are still to be done.
    pending: VecDeque<Result<Operation, Flaw>>,
    lag: Option<Box<Lag>>,
    /// Before this no further `lag` is sent.
    lag_again_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Ready,
    Closed,
}

#[derive(Debug)]
enum Waiting {
    Connect,
    Sub { id: Id, subscriptions: Vec<(Subscribed, SubscriptionId)> },
    Unsub { id: Id },
    Pub { id: Option<Id> },
}

/// What a client is subscribed to, and can be once: the same filter alone and in a group are two.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subscribed {
    group: Option<ShareName>,
    filter: TopicFilter,
}

/// At most one `lag` in this time (WIRE §3).
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// Names in one `lag`.
const LAG_TOPICS_MAX: usize = 8;

/// The version of the envelope: the `v1` of its tokens.
const VERSION: u8 = 1;

impl Envelope {
    pub(super) fn new(pinned: Pinned, connect: Box<Connect>, settings: &Settings) -> Self {
        let mut session = Self {
            outputs: VecDeque::with_capacity(1),
            state: State::Connecting,
            pinned,
            encoding: match pinned {
                Pinned::Nothing => None,
                Pinned::Json => Some(Encoding::Json),
                Pinned::MessagePack => Some(Encoding::MessagePack),
            },
            is_greeted: false,
            settings: settings.clone(),
            client_id: Arc::default(),
            subscriptions: Vec::new(),
            next_subscription: 0,
            next_token: 0,
            waiting: VecDeque::new(),
            pending: VecDeque::new(),
            lag: None,
            lag_again_at: None,
        };
        session.request(Request::Connect(connect), Waiting::Connect);
        session
    }

    fn encoding(&self) -> Encoding {
        self.encoding.unwrap_or(Encoding::Json)
    }

    fn request(&mut self, request: Request, waiting: Waiting) {
        let token = self.token();
        self.waiting.push_back((token, waiting));
        self.outputs.push_back(Output::Request(token, request));
    }

    fn token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token = self.next_token.wrapping_add(1);
        token
    }

    fn answer(&mut self, answer: &Answer<'_>) {
        self.outputs.push_back(Output::Send(answer.encode(self.encoding())));
    }

    fn err(&mut self, id: Option<&Id>, code: Word, reason: &str, retry: bool) {
        self.answer(&Answer::Err { id, code, reason, retry, topics: &[] });
    }

    fn close(&mut self, reason: CloseReason, lane: DataLane) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.pending = VecDeque::new();
        self.lag = None;
        self.lag_again_at = None;
        self.outputs.push_back(Output::Close(reason, lane));
    }

    /// What cannot be read is said twice, in an `err` for the developer's console and in the close.
    fn close_malformed(&mut self, reason: String) {
        self.err(None, Word::BadRequest, &reason, false);
        self.close(CloseReason::new(CloseKind::BadRequest, reason), DataLane::Abort);
    }

    fn is_full(&self) -> bool {
        let is_behind_a_change =
            self.waiting.back().is_some_and(|(_, last)| !matches!(last, Waiting::Pub { .. }));
        is_behind_a_change || self.waiting.len() >= usize::from(self.settings.receive_maximum.max(1))
    }

    /// Does what is pending, until something has to be waited for.
    fn advance(&mut self) {
        while self.state == State::Ready && !self.is_full() {
            let Some(step) = self.pending.pop_front() else { break };
            self.take_step(step);
        }
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
    }

    fn take_step(&mut self, step: Result<Operation, Flaw>) {
        match step {
            Ok(operation) => self.perform(operation),
            Err(flaw) => self.err(flaw.id.as_ref(), flaw.word, &flaw.reason, false),
        }
    }

    fn perform(&mut self, operation: Operation) {
        let is_first = !std::mem::replace(&mut self.is_greeted, true);
        match operation {
            Operation::Hello { .. } if !is_first => {
                self.err(None, Word::BadRequest, "'hello' is the first operation of a connection", false);
            }
            Operation::Hello { wants_resumption } => self.welcome(wants_resumption),
            Operation::Sub(sub) => self.subscribe(sub),
            Operation::Unsub { id, group, filter } => self.unsubscribe(id, &Subscribed { group, filter }),
            Operation::Pub { id, publication } => self.publish(id, *publication),
            Operation::Ping { id } => self.answer(&Answer::Pong { id: id.as_ref() }),
        }
    }

    fn welcome(&mut self, wants_resumption: bool) {
        let session = Arc::clone(&self.client_id);
        self.answer(&Answer::Welcome {
            v: VERSION,
            session: &session,
            // There is nothing to be resumed: the client starts anew, as it does when it comes too late.
            resumed: wants_resumption.then_some(false),
            limits: Limits {
                message: self.settings.message_bytes_max,
                topics: self.settings.topics_max,
                window: 0,
            },
            ping: u64::try_from(self.settings.ping_interval.as_millis()).unwrap_or(u64::MAX),
        });
    }

    fn subscribe(&mut self, sub: Sub) {
        let mut subscriptions = Vec::with_capacity(sub.filters.len());
        let mut added = 0;
        for filter in sub.filters {
            let named = Subscribed { group: sub.group.clone(), filter };
            let known = self.subscriptions.iter().find(|(known, _)| *known == named).map(|(_, id)| *id);
            let id = known.unwrap_or_else(|| {
                added += 1;
                SubscriptionId(self.next_subscription.wrapping_add(added))
            });
            subscriptions.push((named, id));
        }
        let topics_max = self.settings.topics_max;
        if self.subscriptions.len().saturating_add(usize::try_from(added).unwrap_or(usize::MAX)) > topics_max
        {
            let reason = format!("the limit raw.max_topics = {topics_max} is reached");
            self.err(Some(&sub.id), Word::TooMany, &reason, false);
            return;
        }
        self.next_subscription = self.next_subscription.wrapping_add(added);
        let forms = message_forms(self.encoding());
        let subscribes = subscriptions.iter().map(|(named, id)| Subscribe {
            id: Some(*id),
            filter: named.filter.clone(),
            group: named.group.clone(),
            identifier: None,
            qos: QoS::AtMostOnce,
            forms: Some(forms),
            no_local: sub.no_local,
            retain_as_published: false,
            retained: if sub.is_retained_wanted { RetainHandling::Send } else { RetainHandling::Skip },
            overflow: sub.overflow,
            conflate: sub.conflate,
            copies: Copies::PerClient,
            selector: None,
            head: None,
            durable: None,
            prefetch: None,
        });
        let request = Request::Subscribe(subscribes.collect());
        self.request(request, Waiting::Sub { id: sub.id, subscriptions });
    }

    fn handle_subscribed(
        &mut self,
        id: &Id,
        subscriptions: &[(Subscribed, SubscriptionId)],
        results: &[Result<Granted, Refusal>],
    ) {
        let mut refused: Vec<(&str, &Refusal)> = Vec::new();
        let mut granted = QoS::AtMostOnce;
        for ((named, subscription), result) in subscriptions.iter().zip(results) {
            match result {
                Err(refusal) => refused.push((named.filter.as_str(), refusal)),
                Ok(granting) => {
                    granted = granting.qos;
                    if !self.subscriptions.iter().any(|(known, _)| known == named) {
                        self.subscriptions.push((named.clone(), *subscription));
                    }
                }
            }
        }
        let Some((_, refusal)) = refused.first() else {
            self.answer(&Answer::Ok { id, qos: Some(granted as u8), matched: None });
            return;
        };
        let topics: Vec<&str> = refused.iter().map(|(topic, _)| *topic).collect();
        let (code, reason, retry) = (word(refusal), refusal.to_string(), may_retry(refusal));
        self.answer(&Answer::Err { id: Some(id), code, reason: &reason, retry, topics: &topics });
    }

    fn unsubscribe(&mut self, id: Id, named: &Subscribed) {
        let Some(at) = self.subscriptions.iter().position(|(known, _)| known == named) else {
            self.err(Some(&id), Word::NotFound, "there is no subscription to this topic", false);
            return;
        };
        let (_, subscription) = self.subscriptions.swap_remove(at);
        self.request(Request::Unsubscribe(vec![SubscriptionName::Id(subscription)]), Waiting::Unsub { id });
    }

    fn publish(&mut self, id: Option<Id>, publication: Publication) {
        self.request(
            Request::Publish(Box::new(Publish { publication, packet_id: None })),
            Waiting::Pub { id },
        );
    }

    fn handle_refusal(&mut self, waiting: &Waiting, refusal: &Refusal) {
        let (code, reason, retry) = (word(refusal), refusal.to_string(), may_retry(refusal));
        match waiting {
            Waiting::Connect => {
                self.err(None, code, &reason, retry);
                self.close(CloseReason::new(connect_close(refusal), reason), DataLane::Abort);
            }
            Waiting::Sub { id, .. } | Waiting::Unsub { id } => self.err(Some(id), code, &reason, retry),
            Waiting::Pub { id } => self.err(id.as_ref(), code, &reason, retry),
        }
    }

    /// Which encoding a message has; a pinned one has no other.
    fn message_encoding(&mut self, message: &Message) -> Option<Encoding> {
        let (encoding, is_allowed) = match message {
            Message::Text(_) => (Encoding::Json, self.pinned != Pinned::MessagePack),
            Message::Binary(_) => (Encoding::MessagePack, self.pinned != Pinned::Json),
        };
        if !is_allowed {
            let reason = match encoding {
                Encoding::Json => "raw.msgpack.v1 has binary frames only",
                Encoding::MessagePack => "raw.json.v1 has text frames only",
            };
            self.close(CloseReason::new(CloseKind::UnsupportedData, reason), DataLane::Abort);
            return None;
        }
        self.encoding.get_or_insert(encoding);
        Some(encoding)
    }

    fn send_lag(&mut self, now: Instant) {
        if let Some(lag) = self.lag.take() {
            self.answer(&Answer::Lag { dropped: lag.dropped, conflated: lag.conflated, topics: &lag.topics });
            self.lag_again_at = now.checked_add(LAG_INTERVAL);
        }
    }
}

impl Session for Envelope {
    fn handle_message(&mut self, message: Message, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        let Some(encoding) = self.message_encoding(&message) else { return };
        let bytes = match &message {
            Message::Text(text) => text.as_str().as_bytes(),
            Message::Binary(bytes) => bytes,
        };
        let settings = &self.settings;
        match document::decode(bytes, encoding) {
            Err(error) => self.close_malformed(error.to_string()),
            Ok(Value::List(operations)) => {
                let steps =
                    operations.into_iter().map(|operation| Operation::parse(operation, settings, now));
                self.pending.extend(steps);
                self.advance();
            }
            Ok(operation) => {
                let step = Operation::parse(operation, settings, now);
                // Alone, as nearly always: without a queue.
                if self.wants().input {
                    self.take_step(step);
                } else {
                    self.pending.push_back(step);
                }
            }
        }
    }

    fn handle_reply(&mut self, token: Token, reply: Reply, _now: Instant) {
        if self.state == State::Closed {
            return;
        }
        let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == token) else {
            return;
        };
        let Some((_, waiting)) = self.waiting.remove(at) else { return };
        match (waiting, reply) {
            (Waiting::Connect, Reply::Connected(connected)) => {
                self.state = State::Ready;
                self.client_id = connected.client_id;
            }
            (Waiting::Sub { id, subscriptions }, Reply::Subscribed(results)) => {
                self.handle_subscribed(&id, &subscriptions, &results);
            }
            (Waiting::Unsub { id }, Reply::Unsubscribed(_)) => {
                self.answer(&Answer::Ok { id: &id, qos: None, matched: None });
            }
            (Waiting::Pub { id: None }, Reply::Published(_)) => {}
            (Waiting::Pub { id: Some(id) }, Reply::Published(published)) => {
                self.answer(&Answer::Ok { id: &id, qos: None, matched: Some(published.matched) });
            }
            (waiting, Reply::Refused(refusal)) => self.handle_refusal(&waiting, &refusal),
            (_, _) => self.close(CloseReason::new(CloseKind::Internal, "unexpected reply"), DataLane::Abort),
        }
        if self.waiting.is_empty() {
            // An idle session keeps no queue.
            self.waiting = VecDeque::new();
        }
        self.advance();
    }

    fn handle_delivery(&mut self, delivery: Delivery, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        let retained = if delivery.retain { Retained::Yes } else { Retained::No };
        let outgoing = message_outgoing(&delivery.publication, self.encoding(), retained, now);
        self.outputs.push_back(Output::Send(outgoing));
        if delivery.qos > QoS::AtMostOnce {
            // Without a window nothing acknowledges: what is sent is done.
            let settle = Request::Settle { tag: delivery.tag, settlement: Settlement::Accepted };
            let token = self.token();
            self.outputs.push_back(Output::Request(token, settle));
        }
    }

    fn handle_lag(&mut self, lag: Lag, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        let sum = self.lag.get_or_insert_default();
        sum.dropped = sum.dropped.saturating_add(lag.dropped);
        sum.conflated = sum.conflated.saturating_add(lag.conflated);
        for topic in lag.topics {
            if sum.topics.len() < LAG_TOPICS_MAX && !sum.topics.contains(&topic) {
                sum.topics.push(topic);
            }
        }
        self.handle_timeout(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.lag_again_at.is_none_or(|at| at <= now) {
            self.lag_again_at = None;
            self.send_lag(now);
        }
    }

    fn handle_reading(&mut self, _reading: Reading, _now: Instant) {}

    fn handle_close(&mut self, reason: CloseReason, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        // What was lost is told before the end.
        self.send_lag(now);
        let after = retry_after_ms(&reason.detail);
        self.answer(&Answer::Bye { code: reason.kind.code(), reason: &reason.detail, after });
        let lane = super::lane_at_close(reason.kind);
        self.close(reason, lane);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() {
            self.outputs = VecDeque::new();
        }
        output
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.lag.as_ref().and(self.lag_again_at)
    }

    fn wants(&self) -> Wants {
        let input = self.state == State::Ready && self.pending.is_empty() && !self.is_full();
        Wants { input, qos0: true, acked: usize::MAX }
    }
}

/// The number in `retry-after=…` (WIRE §5), so that a page need not take the sentence apart.
fn retry_after_ms(detail: &str) -> Option<u64> {
    let (_, rest) = detail.split_once("retry-after=")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).and_then(|end| rest.get(..end)).unwrap_or(rest);
    digits.parse().ok()
}

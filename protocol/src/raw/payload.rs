//! A session in payload mode (WIRE §2): the URL subscribes, each frame is a payload.
//!
//! ```text
//!  Connecting ──Connected──▶ Subscribing ──Subscribed──▶ Live ──▶ Closed
//!       └───────────── only `pub` in the URL ─────────────▲
//! ```
//!
//! An idle session owns nothing beside this struct.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::Settings;
use super::form::{PayloadForm, payload_outgoing};
use super::query::PayloadOptions;
use super::refusal::{connect_close, request_close};
use crate::publication::{Publication, QoS, compact};
use crate::session::{
    CloseKind, CloseReason, Connect, Copies, DataLane, Delivery, Granted, Lag, Output, Publish, Reading,
    Refusal, Reply, Request, RetainHandling, Session, Settlement, Subscribe, SubscriptionId, Token, Wants,
};
use crate::topic::{Topic, TopicFilter};
use crate::websocket::Message;

/// One client in payload mode.
#[derive(Debug)]
pub(super) struct Payload {
    outputs: VecDeque<Output>,
    state: State,
    /// Until the subscriptions are granted.
    setup: Option<Box<PayloadOptions>>,
    publish_to: Option<Topic>,
    form: PayloadForm,
    with_topic: bool,
    /// Publishes without a reply.
    outstanding: u16,
    receive_maximum: u16,
    next_token: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Subscribing,
    Live,
    Closed,
}

impl Payload {
    pub(super) fn new(options: PayloadOptions, connect: Box<Connect>, settings: &Settings) -> Self {
        let mut session = Self {
            outputs: VecDeque::with_capacity(1),
            state: State::Connecting,
            publish_to: options.publish_to.clone(),
            form: options.form,
            with_topic: options.with_topic,
            setup: Some(Box::new(options)),
            outstanding: 0,
            receive_maximum: settings.receive_maximum.max(1),
            next_token: 0,
        };
        session.request(Request::Connect(connect));
        session
    }

    fn request(&mut self, request: Request) {
        let token = Token(self.next_token);
        self.next_token = self.next_token.wrapping_add(1);
        self.outputs.push_back(Output::Request(token, request));
    }

    fn close(&mut self, reason: CloseReason, lane: DataLane) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.outputs.push_back(Output::Close(reason, lane));
        }
    }

    fn subscribe(&mut self) {
        let Some(setup) = self.setup.as_deref().filter(|setup| !setup.filters.is_empty()) else {
            self.setup = None;
            self.state = State::Live;
            return;
        };
        let subscribes = (0..)
            .zip(&setup.filters)
            .map(|(id, filter)| subscribe(SubscriptionId(id), filter, setup))
            .collect();
        self.state = State::Subscribing;
        self.request(Request::Subscribe(subscribes));
    }

    fn handle_subscribed(&mut self, results: &[Result<Granted, Refusal>]) {
        let filters = self.setup.take().map(|setup| setup.filters).unwrap_or_default();
        self.state = State::Live;
        for (result, filter) in results.iter().zip(&filters) {
            if let Err(refusal) = result {
                self.refuse(refusal, &format!("t={filter}: "));
                return;
            }
        }
    }

    /// Payload mode has no other word for a no than the close.
    fn refuse(&mut self, refusal: &Refusal, what: &str) {
        let kind = match self.state {
            State::Connecting => connect_close(refusal),
            _ => request_close(refusal),
        };
        self.close(CloseReason::new(kind, format!("{what}{refusal}")), DataLane::Abort);
    }

    fn publish(&mut self, payload: Bytes, is_text: bool) {
        let Some(topic) = self.publish_to.clone() else {
            let reason = "this connection only reads; add pub=TOPIC to the URL to publish";
            self.close(CloseReason::new(CloseKind::PublishNotEnabled, reason), DataLane::Abort);
            return;
        };
        // SEC-17: a small payload does not keep a read buffer alive.
        let mut publication = Publication::new(topic, compact(&payload));
        publication.is_text = is_text;
        self.outstanding = self.outstanding.saturating_add(1);
        self.request(Request::Publish(Box::new(Publish { publication, packet_id: None })));
    }
}

fn subscribe(id: SubscriptionId, filter: &TopicFilter, setup: &PayloadOptions) -> Subscribe {
    Subscribe {
        id: Some(id),
        filter: filter.clone(),
        group: None,
        identifier: None,
        qos: QoS::AtMostOnce,
        forms: Some(setup.form.forms(setup.with_topic)),
        no_local: false,
        retain_as_published: false,
        retained: if setup.is_retained_wanted { RetainHandling::Send } else { RetainHandling::Skip },
        overflow: None,
        conflate: setup.conflate,
        copies: Copies::PerClient,
        selector: None,
        head: None,
        durable: None,
        prefetch: None,
    }
}

impl Session for Payload {
    fn handle_message(&mut self, message: Message, _now: Instant) {
        if self.state == State::Closed {
            return;
        }
        match message {
            Message::Text(text) => self.publish(text.into(), true),
            Message::Binary(bytes) => self.publish(bytes, false),
        }
    }

    fn handle_reply(&mut self, _token: Token, reply: Reply, _now: Instant) {
        match (self.state, reply) {
            (State::Closed, _) => {}
            (State::Connecting, Reply::Connected(_)) => self.subscribe(),
            (State::Connecting, Reply::Refused(refusal)) => self.refuse(&refusal, ""),
            (State::Subscribing, Reply::Subscribed(results)) => self.handle_subscribed(&results),
            (State::Subscribing, Reply::Refused(refusal)) => self.refuse(&refusal, ""),
            (State::Live, Reply::Published(_)) => self.outstanding = self.outstanding.saturating_sub(1),
            (State::Live, Reply::Refused(refusal)) => {
                let what = self.publish_to.as_ref().map(|topic| format!("pub={topic}: ")).unwrap_or_default();
                self.refuse(&refusal, &what);
            }
            (_, _) => self.close(CloseReason::new(CloseKind::Internal, "unexpected reply"), DataLane::Abort),
        }
    }

    fn handle_delivery(&mut self, delivery: Delivery, _now: Instant) {
        if self.state == State::Closed {
            return;
        }
        let outgoing = payload_outgoing(&delivery.publication, self.form, self.with_topic);
        self.outputs.push_back(Output::Send(outgoing));
        if delivery.qos > QoS::AtMostOnce {
            // Nothing acknowledges here: what is sent is done.
            self.request(Request::Settle { tag: delivery.tag, settlement: Settlement::Accepted });
        }
    }

    fn handle_lag(&mut self, _lag: Lag, _now: Instant) {
        // `LagNotice::Silent`: payload mode has no word for it (WIRE §8).
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn handle_reading(&mut self, _reading: Reading, _now: Instant) {}

    fn handle_close(&mut self, reason: CloseReason, _now: Instant) {
        let lane = super::lane_at_close(reason.kind);
        self.close(reason, lane);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() {
            // An idle session keeps no queue.
            self.outputs = VecDeque::new();
        }
        output
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn wants(&self) -> Wants {
        // Before `Live` an own frame could overtake the subscription that is to echo it.
        let input = self.state == State::Live && self.outstanding < self.receive_maximum;
        Wants { input, qos0: true, acked: usize::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_small() {
        // 10 000 dashboards: each costs this, and a filter in the topic tables.
        assert!(size_of::<Payload>() <= 112, "{} bytes", size_of::<Payload>());
    }
}

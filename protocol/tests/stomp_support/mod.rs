//! One STOMP client's session with the test in the place of both the client and the broker. Output is shown as
//! text, so that a conversation is data.

#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test helper may panic")]
#![allow(dead_code, reason = "each test crate uses its own part of the helper")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    Connected, Credentials, Delivery, Granted, Output, Published, Reply, Request, RetainHandling, Session,
    Step, Subscribe, SubscriptionId, SubscriptionName, Tag, Token,
};
use tidegate_protocol::stomp::{self, Settings, Version};
use tidegate_protocol::topic::{Topic, TopicLimits};
use tidegate_protocol::websocket::{Message, MessageKind};

/// The first instant of a test.
#[expect(clippy::disallowed_methods, reason = "the one place where a test takes an instant from")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// A session and the two sides around it.
pub(crate) struct Talk {
    pub(crate) session: Box<dyn Session>,
    pub(crate) now: Instant,
    /// Requests that have no reply yet, with the first word of how they are shown.
    pub(crate) waiting: VecDeque<(Token, &'static str)>,
}

impl Talk {
    pub(crate) fn open(ceiling: Version, settings: &Settings) -> Self {
        Self::open_with_bearer(ceiling, None, settings)
    }

    pub(crate) fn open_with_bearer(ceiling: Version, bearer: Option<&str>, settings: &Settings) -> Self {
        let now = start();
        let session = stomp::open(ceiling, bearer.map(Into::into), settings, now);
        Self { session, now, waiting: VecDeque::new() }
    }

    /// A session of this version, after CONNECTED, without heart-beats.
    pub(crate) fn connected(version: Version) -> Self {
        Self::connected_with(version, &Settings::default(), "")
    }

    pub(crate) fn connected_with(version: Version, settings: &Settings, headers: &str) -> Self {
        let mut talk = Self::open(version, settings);
        let asked = talk.client(&format!("CONNECT\naccept-version:{version}\nhost:h\n{headers}\n\0"));
        assert!(asked.len() == 1 && asked[0].starts_with("connect"), "{asked:?}");
        let answer = talk.reply(connected("c1"));
        assert!(answer[0].starts_with("text CONNECTED|version:"), "{answer:?}");
        talk
    }

    /// The client sends a text message.
    pub(crate) fn client(&mut self, text: &str) -> Vec<String> {
        self.session.handle_message(Message::Text(text.into()), self.now);
        self.drain()
    }

    /// The client sends a binary message.
    pub(crate) fn client_binary(&mut self, bytes: &[u8]) -> Vec<String> {
        self.session.handle_message(Message::Binary(Bytes::copy_from_slice(bytes)), self.now);
        self.drain()
    }

    /// The broker answers the oldest request that waits.
    pub(crate) fn reply(&mut self, reply: Reply) -> Vec<String> {
        let (token, _) = self.waiting.pop_front().expect("a request waits");
        self.session.handle_reply(token, reply, self.now);
        self.drain()
    }

    pub(crate) fn deliver(&mut self, delivery: Delivery) -> Vec<String> {
        self.session.handle_delivery(delivery, self.now);
        self.drain()
    }

    /// Time passes, and the session is told if it asked for that.
    pub(crate) fn pass(&mut self, duration: Duration) -> Vec<String> {
        self.now += duration;
        if self.session.poll_timeout().is_some_and(|at| at <= self.now) {
            self.session.handle_timeout(self.now);
        }
        self.drain()
    }

    /// Everything that the session gives, as text.
    pub(crate) fn drain(&mut self) -> Vec<String> {
        let mut shown = Vec::new();
        while let Some(output) = self.session.poll_output() {
            shown.push(self.show(output));
        }
        shown
    }

    fn show(&mut self, output: Output) -> String {
        match output {
            Output::SendStamped(_) => panic!("STOMP knows no packet identifiers"),
            Output::Send(outgoing) => {
                let kind = if outgoing.kind == MessageKind::Text { "text" } else { "binary" };
                let body = outgoing.body.map(|body| body.bytes().clone()).unwrap_or_default();
                let bytes = [&outgoing.head[..], &body[..]].concat();
                format!("{kind} {}", show_bytes(&bytes))
            }
            Output::Request(token, request) => {
                match &request {
                    Request::Connect(_) => self.waiting.push_back((token, "connect")),
                    Request::Subscribe(_) => self.waiting.push_back((token, "subscribe")),
                    Request::Unsubscribe(_) => self.waiting.push_back((token, "unsubscribe")),
                    Request::Publish(_) => self.waiting.push_back((token, "publish")),
                    Request::Transaction(_) => self.waiting.push_back((token, "transaction")),
                    _ => {}
                }
                show_request(&request)
            }
            Output::Hint(hint) => format!("hint {hint:?}"),
            Output::Close(reason, lane) => format!("close {} {lane:?}", reason.kind.code()),
        }
    }
}

/// Lines as `|`, NUL as `^@`.
pub(crate) fn show_bytes(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\n', "|").replace('\0', "^@")
}

fn show_request(request: &Request) -> String {
    match request {
        Request::Connect(connect) => {
            let credentials = match &connect.credentials {
                None => "nobody".to_owned(),
                Some(Credentials::Token(token)) => format!("token {token}"),
                Some(Credentials::Password { user, password }) => format!("{user} {password:?}"),
                Some(Credentials::Exchange { method, .. }) => panic!("STOMP knows no exchange: {method}"),
            };
            format!("connect {:?} {credentials} {:?}", connect.client_id, connect.lag)
        }
        Request::Subscribe(list) => {
            let [one] = list.as_slice() else { panic!("one subscription at a time") };
            show_subscribe(one)
        }
        Request::Unsubscribe(names) => match names.as_slice() {
            [SubscriptionName::Id(id)] => format!("unsubscribe {}", id.0),
            [SubscriptionName::Durable(name)] => format!("forget {name}"),
            names => panic!("STOMP names subscriptions by id: {names:?}"),
        },
        Request::Publish(publish) => show_publication(&publish.publication),
        Request::Transaction(steps) => {
            let steps: Vec<_> = steps.iter().map(show_step).collect();
            format!("transaction [{}]", steps.join(", "))
        }
        Request::Settle { tag, settlement } => format!("settle {} {settlement:?}", tag.0),
        Request::Disconnect { will, .. } => format!("disconnect {will:?}"),
        other => panic!("STOMP asks for no {other:?}"),
    }
}

fn show_step(step: &Step) -> String {
    match step {
        Step::Publish(publish) => show_publication(&publish.publication),
        Step::Settle { tag, settlement } => format!("settle {} {settlement:?}", tag.0),
    }
}

fn show_subscribe(one: &Subscribe) -> String {
    let Some(id) = one.id else { panic!("STOMP names subscriptions by id: {one:?}") };
    let mut shown = format!("subscribe {} {} qos{}", id.0, one.filter, one.qos as u8);
    if let Some(group) = &one.group {
        shown.push_str(&format!(" group={group}"));
    }
    if one.retained == RetainHandling::Skip {
        shown.push_str(" no-retained");
    }
    if one.no_local {
        shown.push_str(" no-local");
    }
    if let Some(selector) = &one.selector {
        shown.push_str(&format!(" selector={}", selector.as_str()));
    }
    if let Some(name) = &one.durable {
        shown.push_str(&format!(" durable={name}"));
    }
    if let Some(prefetch) = one.prefetch {
        shown.push_str(&format!(" prefetch={prefetch}"));
    }
    shown
}

fn show_publication(publication: &Publication) -> String {
    let mut shown = format!(
        "publish {} qos{} {:?}",
        publication.topic,
        publication.qos as u8,
        String::from_utf8_lossy(&publication.payload)
    );
    for (is_set, word) in [(publication.retain, " retain"), (publication.is_text, " utf8")] {
        if is_set {
            shown.push_str(word);
        }
    }
    if let Some(properties) = &publication.properties {
        if let Some(content_type) = &properties.content_type {
            shown.push_str(&format!(" ct={content_type}"));
        }
        if let Some(topic) = &properties.response_topic {
            shown.push_str(&format!(" reply={topic}"));
        }
        if let Some(data) = &properties.correlation_data {
            shown.push_str(&format!(" corr={}", data.escape_ascii()));
        }
        for (name, value) in &properties.user {
            shown.push_str(&format!(" {name}={value}"));
        }
    }
    shown
}

pub(crate) fn connected(session: &str) -> Reply {
    Reply::Connected(Box::new(Connected {
        client_id: Arc::from(session),
        temporary: "7".into(),
        ..Connected::default()
    }))
}

pub(crate) fn granted(qos: QoS) -> Reply {
    Reply::Subscribed(vec![Ok(Granted { qos })])
}

pub(crate) fn published() -> Reply {
    Reply::Published(Published { matched: 1 })
}

pub(crate) fn publication(topic: &str, payload: &[u8]) -> Publication {
    let topic = Topic::parse(topic, &TopicLimits::STANDARD).expect("a topic");
    Publication::new(topic, Bytes::copy_from_slice(payload))
}

/// A delivery for the first subscription; the tag tells it from others.
pub(crate) fn delivery(publication: Publication, qos: QoS, tag: u64) -> Delivery {
    Delivery {
        packet_id: None,
        dup: false,
        publication: Arc::new(publication),
        qos,
        retain: false,
        is_retained: false,
        subscription: SubscriptionId(0),
        identifier: None,
        also: None,
        tag: Tag(tag),
    }
}

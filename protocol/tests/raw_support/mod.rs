//! A client and a broker at the two ends of a raw session, without a socket.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test helper may panic")]
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::raw::{self, Pinned, Settings};
use tidegate_protocol::session::{
    CloseReason, Connect, Connected, DataLane, Delivery, Granted, Outgoing, Output, Published, Refusal,
    Reply, Request, Session, Subscribe, SubscriptionId, Tag, Token,
};
use tidegate_protocol::topic::{Topic, TopicLimits};
use tidegate_protocol::websocket::{Message, MessageKind};

#[allow(clippy::disallowed_methods, reason = "the one place where tests get their first instant")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) struct Client {
    pub(crate) session: Box<dyn Session>,
    pub(crate) now: Instant,
    pub(crate) sent: Vec<Outgoing>,
    pub(crate) requests: Vec<(Token, Request)>,
    pub(crate) closed: Option<(CloseReason, DataLane)>,
}

pub(crate) fn open_with(pinned: Pinned, query: &str, settings: &Settings) -> Result<Client, String> {
    let now = start();
    let session = raw::open(pinned, Some(query), None, settings, now)?;
    let mut client = Client { session, now, sent: vec![], requests: vec![], closed: None };
    client.drain();
    Ok(client)
}

/// A session whose CONNECT was answered.
pub(crate) fn connected(query: &str) -> Client {
    connected_with(Pinned::Nothing, query, &Settings::default())
}

pub(crate) fn connected_with(pinned: Pinned, query: &str, settings: &Settings) -> Client {
    let mut client = open_with(pinned, query, settings).unwrap();
    client.connect();
    client.reply(Reply::Connected(Box::new(Connected { client_id: "c-1".into(), ..Connected::default() })));
    client
}

impl Client {
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            assert!(self.closed.is_none(), "nothing follows a close: {output:?}");
            match output {
                Output::Send(outgoing) => self.sent.push(outgoing),
                Output::SendStamped(_) => panic!("raw knows no packet identifiers"),
                Output::Hint(hint) => panic!("raw has no {hint:?}"),
                Output::Request(token, request) => self.requests.push((token, request)),
                Output::Close(reason, lane) => self.closed = Some((reason, lane)),
            }
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.session.handle_message(Message::Text(text.into()), self.now);
        self.drain();
    }

    pub(crate) fn binary(&mut self, bytes: impl Into<Bytes>) {
        self.session.handle_message(Message::Binary(bytes.into()), self.now);
        self.drain();
    }

    /// Answers the oldest request.
    pub(crate) fn reply(&mut self, reply: Reply) {
        let (token, _) = self.requests.remove(0);
        self.reply_to(token, reply);
    }

    pub(crate) fn reply_to(&mut self, token: Token, reply: Reply) {
        self.session.handle_reply(token, reply, self.now);
        self.drain();
    }

    pub(crate) fn connect(&self) -> &Connect {
        match &self.requests[0].1 {
            Request::Connect(connect) => connect,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn subscribes(&self) -> &[Subscribe] {
        match &self.requests[0].1 {
            Request::Subscribe(list) => list,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn published(&self) -> &Publication {
        match &self.requests[0].1 {
            Request::Publish(publish) => &publish.publication,
            other => panic!("{other:?}"),
        }
    }

    /// Grants all that the oldest request subscribes to.
    pub(crate) fn grant(&mut self) {
        let granted = self.subscribes().iter().map(|_| Ok(Granted { qos: QoS::AtMostOnce })).collect();
        self.reply(Reply::Subscribed(granted));
    }

    pub(crate) fn matched(&mut self, matched: usize) {
        self.reply(Reply::Published(Published { matched }));
    }

    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.reply(Reply::Refused(refusal));
    }

    /// What was sent since the last call, as text; binary frames as hexadecimal.
    pub(crate) fn said(&mut self) -> Vec<String> {
        self.sent.drain(..).map(|outgoing| shown(&outgoing)).collect()
    }

    pub(crate) fn said_json(&mut self) -> Vec<Value> {
        self.said().iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    pub(crate) fn deliver(&mut self, publication: Publication, retain: bool) {
        let delivery = Delivery {
            packet_id: None,
            dup: false,
            publication: Arc::new(publication),
            qos: QoS::AtMostOnce,
            retain,
            is_retained: retain,
            subscription: SubscriptionId(1),
            identifier: None,
            also: None,
            tag: Tag(1),
        };
        self.session.handle_delivery(delivery, self.now);
        self.drain();
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now);
        self.drain();
    }

    pub(crate) fn closed_with(&self) -> (u16, &str, DataLane) {
        let (reason, lane) = self.closed.as_ref().unwrap();
        (reason.kind.code(), &reason.detail, *lane)
    }
}

pub(crate) fn shown(outgoing: &Outgoing) -> String {
    let mut bytes = outgoing.head.to_vec();
    if let Some(body) = &outgoing.body {
        bytes.extend_from_slice(body.bytes());
    }
    match outgoing.kind {
        MessageKind::Text => String::from_utf8(bytes).unwrap(),
        MessageKind::Binary => hex(&bytes),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn topic(text: &str) -> Topic {
    Topic::parse(text, &TopicLimits::STANDARD).unwrap()
}

pub(crate) fn publication(name: &str, payload: &[u8]) -> Publication {
    Publication::new(topic(name), Bytes::copy_from_slice(payload))
}

/// A frame of ours, taken apart: the opcode and the message.
pub(crate) fn unframed(frame: &[u8]) -> (u8, &[u8]) {
    assert_eq!(frame[0] & 0xf0, 0x80, "one frame, no extension");
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        short => {
            assert_eq!(usize::from(short), frame.len() - 2);
            2
        }
    };
    (frame[0] & 0x0f, &frame[header..])
}

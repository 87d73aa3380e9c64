//! Any frames to a STOMP session whose broker gives every publication back to every subscription that matches:
//! nothing panics, nothing follows a close, no delivery is settled twice, every frame of ours is one.
#![no_main]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    Connected, Delivery, Granted, Output, Publish, Published, Reply, Request, Session, Step, SubscriptionId,
    SubscriptionName, Tag, Token,
};
use tidegate_protocol::stomp::codec::{Decoder, Limits};
use tidegate_protocol::stomp::{self, Separator, Settings, Version};
use tidegate_protocol::topic::TopicFilter;
use tidegate_protocol::websocket::Message;

const LIMITS: Limits =
    Limits { headers_max: 1000, head_bytes_max: 1 << 20, body_bytes_max: 1 << 20, frame_bytes_max: 1 << 21 };

/// The broker's side: says yes to everything.
#[derive(Default)]
struct Broker {
    subscriptions: BTreeMap<SubscriptionId, (TopicFilter, QoS, Option<Box<str>>)>,
    waiting: Vec<(SubscriptionId, QoS, Arc<Publication>)>,
    settled: HashSet<Tag>,
    last_tag: u64,
}

impl Broker {
    fn answer(&mut self, request: Request) -> Option<Reply> {
        match request {
            Request::Connect(_) => {
                let connected = Connected { temporary: "7".into(), ..Connected::default() };
                Some(Reply::Connected(Box::new(connected)))
            }
            Request::Subscribe(list) => {
                let granted = list.iter().map(|one| Ok(Granted { qos: one.qos })).collect();
                for one in list {
                    let id = one.id.expect("STOMP names subscriptions by id");
                    let old = self.subscriptions.insert(id, (one.filter, one.qos, one.durable));
                    assert!(old.is_none(), "ids are not used twice");
                }
                Some(Reply::Subscribed(granted))
            }
            Request::Unsubscribe(names) => {
                let existed = names.iter().map(|name| self.unsubscribe(name)).collect();
                Some(Reply::Unsubscribed(existed))
            }
            Request::Publish(publish) => Some(self.publish(*publish)),
            Request::Transaction(steps) => {
                assert!(!steps.is_empty(), "an empty transaction needs nobody");
                for step in steps {
                    match step {
                        Step::Publish(publish) => drop(self.publish(*publish)),
                        Step::Settle { tag, .. } => self.settle(tag),
                    }
                }
                Some(Reply::Published(Published { matched: 0 }))
            }
            Request::Settle { tag, .. } => {
                self.settle(tag);
                None
            }
            _ => None,
        }
    }

    fn unsubscribe(&mut self, name: &SubscriptionName) -> bool {
        let before = self.subscriptions.len();
        match name {
            SubscriptionName::Id(id) => drop(self.subscriptions.remove(id)),
            SubscriptionName::Durable(name) => {
                self.subscriptions.retain(|_, (_, _, durable)| durable.as_ref() != Some(name));
            }
            SubscriptionName::Filter { .. } => panic!("STOMP names subscriptions by id"),
        }
        self.subscriptions.len() < before
    }

    fn publish(&mut self, publish: Publish) -> Reply {
        let publication = Arc::new(publish.publication);
        for (id, (filter, qos, _)) in &self.subscriptions {
            if filter.matches(&publication.topic) {
                self.waiting.push((*id, publication.qos.min(*qos), Arc::clone(&publication)));
            }
        }
        Reply::Published(Published { matched: 0 })
    }

    fn settle(&mut self, tag: Tag) {
        assert!(tag.0 <= self.last_tag, "only what was delivered is settled");
        assert!(self.settled.insert(tag), "settled twice");
    }

    fn delivery(&mut self, qos0: bool, acked: bool) -> Option<Delivery> {
        let fits = |qos: QoS| if qos == QoS::AtMostOnce { qos0 } else { acked };
        let next = self.waiting.iter().position(|(_, qos, _)| fits(*qos))?;
        let (subscription, qos, publication) = self.waiting.remove(next);
        self.last_tag += 1;
        Some(Delivery {
            publication,
            qos,
            retain: false,
            is_retained: false,
            subscription,
            identifier: None,
            also: None,
            packet_id: None,
            dup: false,
            tag: Tag(self.last_tag),
        })
    }
}

/// `false`: the session has ended.
fn drain(session: &mut dyn Session, broker: &mut Broker, now: Instant) -> bool {
    loop {
        let mut replies: Vec<(Token, Reply)> = Vec::new();
        while let Some(output) = session.poll_output() {
            match output {
                Output::Close(..) => {
                    assert!(session.poll_output().is_none(), "nothing follows a close");
                    return false;
                }
                Output::Request(token, request) => {
                    replies.extend(broker.answer(request).map(|reply| (token, reply)));
                }
                Output::Send(outgoing) => {
                    let body = outgoing.body.map(|body| body.bytes().clone()).unwrap_or_default();
                    let mut bytes = BytesMut::from([&outgoing.head[..], &body[..]].concat().as_slice());
                    let is_frame = bytes != b"\n"[..];
                    let frame = Decoder::new(LIMITS).decode(&mut bytes).expect("what we send is STOMP");
                    assert_eq!(frame.is_some(), is_frame, "one frame each");
                    assert!(bytes.iter().all(|byte| *byte == b'\n'), "and nothing behind it");
                }
                Output::SendStamped(_) => panic!("STOMP knows no packet identifiers"),
                Output::Hint(_) => {}
            }
        }
        let wants = session.wants();
        if replies.is_empty() {
            match broker.delivery(wants.qos0, wants.acked > 0) {
                Some(delivery) => session.handle_delivery(delivery, now),
                None => return true,
            }
        }
        for (token, reply) in replies {
            session.handle_reply(token, reply, now);
        }
    }
}

/// A frame of the client; most are right in form, since a session ends with the first that is not.
fn frame(kind: u8, number: u8, text: &str) -> Vec<u8> {
    let (id, transaction) = (number % 4, number % 3);
    let within = if number & 0x80 == 0 { String::new() } else { format!("transaction:{transaction}\n") };
    let ack = ["auto", "client", "client-individual"][usize::from(number % 3)];
    let message = format!("id:{id}-{0}\nmessage-id:{id}-{0}\nsubscription:{id}\n", 1 + number / 4 % 8);
    let frame = match kind % 14 {
        0 => format!("SEND\ndestination:a\n{within}receipt:{number}\n\n{text}\0"),
        1 => format!("SEND\ndestination:/queue/a\n{within}\n{text}\0"),
        2 => format!("SEND\ndestination:a\nreply-to:/temp-queue/{id}\n{within}k:{text}\n\n\0"),
        3 => format!("SEND\ndestination:/topic/{text}\nqos:1\n\nx\0"),
        4 => format!("SUBSCRIBE\nid:{id}\ndestination:a\nack:{ack}\nselector:{text}\n\n\0"),
        5 => format!("SUBSCRIBE\nid:{id}\ndestination:/queue/a\nack:{ack}\n\n\0"),
        6 => format!("SUBSCRIBE\nid:{id}\ndestination:{text}\nack:{ack}\nshare:g\n\n\0"),
        7 => format!("SUBSCRIBE\nid:{id}\ndestination:a\nack:{ack}\nactivemq.subscriptionName:{id}\n\n\0"),
        8 => format!("UNSUBSCRIBE\nid:{id}\n\n\0"),
        9 => format!("UNSUBSCRIBE\nactivemq.subscriptionName:{id}\n\n\0"),
        10 => format!("ACK\n{message}{within}\n\0"),
        11 => format!("NACK\n{message}{within}\n\0"),
        12 => format!(
            "{}\ntransaction:{transaction}\n\n\0",
            ["BEGIN", "COMMIT", "ABORT"][usize::from(number / 4 % 3)]
        ),
        _ => text.to_owned(),
    };
    frame.into_bytes()
}

fuzz_target!(|input: (u8, Vec<(u8, u8, String)>)| {
    let (choice, frames) = input;
    let version = Version::ALL[usize::from(choice % 3)];
    let separator = if choice & 0x80 == 0 { Separator::Slash } else { Separator::Dot };
    let settings = Settings { separator, max_transactions: 2, prefetch: 2, ..Settings::default() };
    let now = Instant::now();
    let mut broker = Broker::default();
    let mut session = stomp::open(version, None, &settings, now);
    let connect = format!("CONNECT\naccept-version:{version}\nclient-id:c\n\n\0");
    session.handle_message(Message::Text(connect.into()), now);
    let mut is_open = drain(&mut *session, &mut broker, now);
    for (kind, number, text) in frames {
        if !is_open {
            return;
        }
        session.handle_message(Message::Binary(frame(kind, number, &text).into()), now);
        is_open = drain(&mut *session, &mut broker, now);
    }
});

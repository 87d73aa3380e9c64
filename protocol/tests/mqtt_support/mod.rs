//! A conversation with one MQTT session: the test is both the client and the broker.

#![expect(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test helper may panic")]
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tidegate_protocol::mqtt::packet::{
    Ack, Connect, Packet, Properties, Publish, ReasonCode, Subscribe, Subscription, Version,
};
use tidegate_protocol::mqtt::{self, Codec, Limits, Settings};
use tidegate_protocol::publication::{Publication, QoS};
use tidegate_protocol::session::{
    self, CloseKind, CloseReason, Connected, Delivery, Granted, Outgoing, Output, Published, Reply, Request,
    RetainHandling, Session, SubscriptionId, Tag, Token,
};
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};
use tidegate_protocol::websocket::{Message, MessageKind};

pub(crate) struct Conversation {
    pub(crate) session: Box<dyn Session>,
    pub(crate) codec: Codec,
    pub(crate) now: Instant,
    pub(crate) requests: Vec<(Token, Request)>,
    pub(crate) closed: Option<CloseReason>,
    packets: Vec<Packet>,
}

impl Conversation {
    pub(crate) fn open(version: Version, settings: &Settings) -> Self {
        let now = Instant::now();
        let limits = Limits {
            packet_bytes_max: usize::MAX,
            topic: TopicLimits::STANDARD,
            user_properties_max: 100,
            filters_max: 100,
        };
        Self {
            session: mqtt::open(None, &Arc::new(settings.clone()), now),
            codec: Codec::client(version, limits),
            now,
            requests: Vec::new(),
            closed: None,
            packets: Vec::new(),
        }
    }

    /// Connected with these words; CONNACK is taken.
    pub(crate) fn connected(connect: Connect, settings: &Settings) -> Self {
        Self::resumed(connect, settings, Connected::default())
    }

    /// The same, and the broker had this to say.
    pub(crate) fn resumed(connect: Connect, settings: &Settings, connected: Connected) -> Self {
        let mut talk = Self::open(connect.version, settings);
        talk.say(&Packet::Connect(Box::new(connect)));
        let (token, Request::Connect(_)) = talk.request() else { panic!("CONNECT asks the broker") };
        talk.reply(token, Reply::Connected(Box::new(connected)));
        assert!(matches!(talk.hear(), Packet::ConnAck(_)));
        talk
    }

    pub(crate) fn online(version: Version) -> Self {
        Self::connected(connect(version), &Settings::default())
    }

    pub(crate) fn say(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        self.codec.encode(packet, &mut bytes);
        self.say_bytes(&bytes);
    }

    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        self.session.handle_message(Message::Binary(Bytes::copy_from_slice(bytes)), self.now);
        self.drain();
    }

    pub(crate) fn reply(&mut self, token: Token, reply: Reply) {
        self.session.handle_reply(token, reply, self.now);
        self.drain();
    }

    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        self.session.handle_delivery(delivery, self.now);
        self.drain();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now);
        self.drain();
    }

    /// The next packet that the client gets.
    pub(crate) fn hear(&mut self) -> Packet {
        assert!(!self.packets.is_empty(), "the session said nothing; closed: {:?}", self.closed);
        self.packets.remove(0)
    }

    pub(crate) fn hears_nothing(&self) -> bool {
        self.packets.is_empty()
    }

    /// The next request that the broker gets.
    pub(crate) fn request(&mut self) -> (Token, Request) {
        assert!(!self.requests.is_empty(), "nothing was asked; closed: {:?}", self.closed);
        self.requests.remove(0)
    }

    /// Nothing was said, asked or ended.
    pub(crate) fn is_quiet(&self) -> bool {
        self.packets.is_empty() && self.requests.is_empty() && self.closed.is_none()
    }

    /// The broker has taken the publish, and nobody or somebody gets it.
    pub(crate) fn publish_taken(&mut self, matched: usize) {
        let (token, Request::Publish(_)) = self.request() else { panic!("a publish asks the broker") };
        self.reply(token, published(matched));
    }

    /// The broker has released what this PUBREL named.
    pub(crate) fn released(&mut self, packet_id: u16, known: bool) {
        let (token, Request::Release { packet_id: asked }) = self.request() else { panic!("PUBREL asks") };
        assert_eq!(asked, packet_id);
        self.reply(token, Reply::Released { packet_id, known });
    }

    /// The broker keeps in mind that PUBREC came.
    pub(crate) fn recorded(&mut self, tag: u64) {
        let (token, Request::Received { tag: asked }) = self.request() else { panic!("PUBREC asks") };
        assert_eq!(asked, Tag(tag));
        self.reply(token, Reply::Received { tag: Tag(tag) });
    }

    /// A delivery of one byte to topic `a`; `Assign` and PUBLISH are taken.
    pub(crate) fn delivered(&mut self, qos: QoS, tag: u64) -> u16 {
        self.deliver(delivery(message("a"), qos, tag));
        let (_, Request::Assign { tag: assigned, packet_id }) = self.request() else { panic!("assigned") };
        assert_eq!(assigned, Tag(tag));
        assert_eq!(self.hear(), Packet::Publish(publish(qos, packet_id)));
        packet_id
    }

    /// SUBSCRIBE, granted at `qos`; SUBACK is taken.
    pub(crate) fn subscribe(&mut self, packet: &Packet, qos: QoS) -> Vec<session::Subscribe> {
        self.say(packet);
        let (token, Request::Subscribe(asked)) = self.request() else { panic!("SUBSCRIBE asks the broker") };
        self.reply(token, Reply::Subscribed(asked.iter().map(|_| Ok(Granted { qos })).collect()));
        assert!(matches!(self.hear(), Packet::SubAck(_)));
        asked
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            assert!(self.closed.is_none(), "nothing comes after Close: {output:?}");
            match output {
                Output::Send(outgoing) => self.sent(&outgoing),
                Output::SendStamped(stamped) => {
                    let (tag, packet_id) = (stamped.tag, stamped.packet_id);
                    self.requests.push((Token(0), Request::Assign { tag, packet_id }));
                    let mut frame = BytesMut::from("before");
                    stamped.put_frame(&mut frame);
                    let outgoing = stamped.into_outgoing();
                    let mut same = BytesMut::from("before");
                    let body = outgoing.put_frame(None, &mut same);
                    assert_eq!((frame, None), (same, body), "both ways to send it");
                    self.sent(&outgoing);
                }
                Output::Request(token, request) => self.requests.push((token, request)),
                Output::Hint(hint) => panic!("MQTT has no {hint:?}"),
                Output::Close(reason, _) => self.closed = Some(reason),
            }
        }
    }

    fn sent(&mut self, outgoing: &Outgoing) {
        assert_eq!(outgoing.kind, MessageKind::Binary);
        let mut bytes = BytesMut::from(&outgoing.head[..]);
        if let Some(body) = &outgoing.body {
            bytes.extend_from_slice(body.bytes());
        }
        let mut bytes = bytes.freeze();
        let packet = self.codec.decode(&mut bytes).unwrap().unwrap();
        assert!(bytes.is_empty());
        self.packets.push(packet);
    }
}

pub(crate) fn connect(version: Version) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        client_id: "c".into(),
        will: None,
        user_name: None,
        password: None,
        properties: None,
    }
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::parse(name, &TopicLimits::STANDARD).unwrap()
}

pub(crate) fn publish(qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(topic("a")),
        packet_id,
        properties: None,
        payload: Bytes::from_static(b"x"),
    }
}

/// One byte.
pub(crate) fn message(name: &str) -> Publication {
    Publication::new(topic(name), Bytes::from_static(b"x"))
}

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

pub(crate) fn connected() -> Reply {
    Reply::Connected(Box::new(Connected {
        client_id: "given".into(),
        is_assigned: true,
        ..Connected::default()
    }))
}

pub(crate) fn ack(packet_id: u16) -> Ack {
    Ack::new(packet_id, ReasonCode::SUCCESS)
}

pub(crate) fn not_found(packet_id: u16) -> Ack {
    Ack::new(packet_id, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND)
}

pub(crate) fn published(matched: usize) -> Reply {
    Reply::Published(Published { matched })
}

pub(crate) fn props(properties: Properties) -> Option<Box<Properties>> {
    Some(Box::new(properties))
}

pub(crate) fn subscribe(filters: &[(&str, QoS)], identifier: Option<u32>) -> Packet {
    let filters = filters
        .iter()
        .map(|(filter, qos)| Subscription {
            filter: Ok(TopicFilter::parse(filter, &TopicLimits::STANDARD).unwrap()),
            qos: *qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        })
        .collect();
    let properties = identifier
        .map(|id| Box::new(Properties { subscription_identifiers: vec![id], ..Properties::default() }));
    Packet::Subscribe(Subscribe { packet_id: 5, properties, filters })
}

/// The session ends: with DISCONNECT of this code in MQTT 5, without a word in 3.x.
pub(crate) fn check_ends(mut talk: Conversation, reason: ReasonCode, kind: CloseKind) {
    if talk.codec.version() == Some(Version::V5) {
        match talk.hear() {
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.reason, reason);
                assert!(disconnect.properties.unwrap().reason_string.is_some(), "the developer is told why");
            }
            packet => panic!("{packet:?} instead of DISCONNECT"),
        }
    }
    assert!(talk.hears_nothing());
    assert_eq!(talk.closed.unwrap().kind, kind);
}

//! MQTT: honest clients and brokers in any order of events, over two connections of one session.

#![expect(clippy::panic, reason = "a test helper may panic")]

mod mqtt_support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mqtt_support::{Conversation, ack, connect, delivery, message, props, publish, published};
use proptest::prelude::*;
use tidegate_protocol::mqtt::Settings;
use tidegate_protocol::mqtt::packet::{Connect, Packet, Properties, Publish, Version};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    Connected, InFlight, InFlightState, Reply, Request, Settlement, Tag, Token,
};

const RECEIVE_MAXIMUM: u16 = 3;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The broker has something at this QoS, if the session takes it.
    Deliver(QoS),
    /// The broker answers its oldest request.
    Reply,
    /// The client answers the oldest packet.
    Answer,
    /// The client publishes, as far as the server's window lets it.
    Publish(QoS),
    /// The connection is lost, with the client's answers to this many packets and with the packets behind them; and
    /// the session goes on over another one, on which the client takes this many at once.
    Reconnect(usize, u16),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let qos = || prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    let event = prop_oneof![
        4 => qos().prop_map(Event::Deliver),
        6 => Just(Event::Reply),
        6 => Just(Event::Answer),
        4 => qos().prop_map(Event::Publish),
        1 => (0..4usize, 1..=RECEIVE_MAXIMUM).prop_map(|(lost, window)| Event::Reconnect(lost, window)),
    ];
    proptest::collection::vec(event, 1..120)
}

/// The broker's memory of the session, and the client's.
struct World {
    talk: Conversation,
    version: Version,
    /// The client: its Receive Maximum; 3.x has none.
    window: u16,
    /// The broker: packet identifier, and how far it got; oldest first.
    in_flight: Vec<(u16, Tag, QoS, bool)>,
    settled: BTreeSet<u64>,
    delivered: u64,
    requests: VecDeque<(Token, Request)>,
    /// The broker: publishes at QoS 2 that wait for their release.
    received: BTreeSet<u16>,
    /// At QoS 1 and at QoS 2.
    taken: [u64; 2],
    /// The client: packets that it has not answered.
    inbox: VecDeque<Packet>,
    /// The client: deliveries at QoS 2 that it has and that were not released.
    has: BTreeSet<u16>,
    got: u64,
    /// The client: its publishes, by identifier, and whether PUBREC came.
    publishes: BTreeMap<u16, (QoS, bool)>,
    published: u64,
}

impl World {
    fn new(version: Version) -> Self {
        Self {
            talk: open(version, RECEIVE_MAXIMUM, Connected::default()),
            version,
            window: RECEIVE_MAXIMUM,
            in_flight: Vec::new(),
            settled: BTreeSet::new(),
            delivered: 0,
            requests: VecDeque::new(),
            received: BTreeSet::new(),
            taken: [0; 2],
            inbox: VecDeque::new(),
            has: BTreeSet::new(),
            got: 0,
            publishes: BTreeMap::new(),
            published: 0,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(qos) => {
                if self.talk.session.wants().acked > 0 {
                    self.delivered += 1;
                    self.talk.deliver(delivery(message("a"), qos, self.delivered));
                    self.in_flight.push((0, Tag(self.delivered), qos, false));
                }
            }
            Event::Reply => self.reply(),
            Event::Answer => {
                if self.talk.session.wants().input
                    && let Some(answer) = self.answer()
                {
                    self.talk.say(&answer);
                }
            }
            Event::Publish(qos) => {
                if self.publishes.len() < usize::from(RECEIVE_MAXIMUM) && self.talk.session.wants().input {
                    self.published += 1;
                    let id = (1..).find(|id| !self.publishes.contains_key(id)).unwrap_or(1);
                    self.publishes.insert(id, (qos, false));
                    self.talk.say(&Packet::Publish(publish(qos, id)));
                }
            }
            Event::Reconnect(lost, window) => self.reconnect(lost, window),
        }
        self.collect();
    }

    /// Takes what the session gave; what needs no reply happens at once.
    fn collect(&mut self) {
        assert!(self.talk.closed.is_none(), "nobody did anything wrong: {:?}", self.talk.closed);
        while !self.talk.requests.is_empty() {
            match self.talk.request() {
                (_, Request::Assign { tag, packet_id }) => {
                    let is_free = self.in_flight.iter().all(|(id, ..)| *id != packet_id);
                    assert!(is_free, "packet identifier {packet_id} is in use");
                    for (id, assigned, ..) in &mut self.in_flight {
                        if *assigned == tag {
                            *id = packet_id;
                        }
                    }
                }
                (_, Request::Settle { tag, settlement }) => {
                    assert_eq!(settlement, Settlement::Accepted);
                    assert!(self.settled.insert(tag.0), "settled twice");
                    self.in_flight.retain(|(_, settled, ..)| *settled != tag);
                }
                request => self.requests.push_back(request),
            }
        }
        while !self.talk.hears_nothing() {
            let packet = self.talk.hear();
            self.inbox.push_back(packet);
            let sent = |packet: &&Packet| matches!(packet, Packet::Publish(_));
            let window = if self.version == Version::V5 { self.window } else { RECEIVE_MAXIMUM };
            assert!(self.inbox.iter().filter(sent).count() <= usize::from(window));
        }
    }

    fn reply(&mut self) {
        let Some((token, request)) = self.requests.pop_front() else { return };
        let reply = match request {
            Request::Publish(publish) => {
                match publish.packet_id {
                    None => self.taken[0] += 1,
                    Some(id) => self.taken[1] += u64::from(self.received.insert(id)),
                }
                published(1)
            }
            Request::Release { packet_id } => {
                Reply::Released { packet_id, known: self.received.remove(&packet_id) }
            }
            Request::Received { tag } => {
                for (_, recorded, _, is_received) in &mut self.in_flight {
                    *is_received |= *recorded == tag;
                }
                Reply::Received { tag }
            }
            request => panic!("{request:?} is not expected"),
        };
        self.talk.reply(token, reply);
    }

    fn answer(&mut self) -> Option<Packet> {
        Some(match self.inbox.pop_front()? {
            Packet::Publish(publish) if publish.qos == QoS::AtLeastOnce => {
                Packet::PubAck(ack(publish.packet_id))
            }
            Packet::Publish(publish) => {
                self.got += u64::from(self.has.insert(publish.packet_id));
                Packet::PubRec(ack(publish.packet_id))
            }
            Packet::PubRel(release) => {
                self.has.remove(&release.packet_id);
                Packet::PubComp(ack(release.packet_id))
            }
            Packet::PubRec(record) => {
                self.publishes.insert(record.packet_id, (QoS::ExactlyOnce, true));
                Packet::PubRel(ack(record.packet_id))
            }
            Packet::PubAck(end) | Packet::PubComp(end) => {
                assert!(self.publishes.remove(&end.packet_id).is_some());
                return None;
            }
            packet => panic!("{packet:?} is not expected"),
        })
    }

    fn reconnect(&mut self, lost: usize, window: u16) {
        // Requests that the broker has not answered are carried out all the same.
        while !self.requests.is_empty() {
            self.reply();
            self.collect();
        }
        for _ in 0..lost {
            self.answer();
        }
        self.inbox.clear();
        self.window = window;
        let state = |(packet_id, tag, qos, is_received): &(u16, Tag, QoS, bool)| InFlight {
            packet_id: *packet_id,
            state: match is_received {
                true => InFlightState::Received(*tag),
                false => InFlightState::Sent(delivery(message("a"), *qos, tag.0)),
            },
        };
        let connected = Connected {
            session_present: true,
            in_flight: self.in_flight.iter().map(state).collect(),
            received: self.received.iter().copied().collect(),
            ..Connected::default()
        };
        self.talk = open(self.version, window, connected);
        for (id, (qos, is_received)) in &self.publishes {
            self.talk.say(&match is_received {
                true => Packet::PubRel(ack(*id)),
                false => Packet::Publish(Publish { dup: true, ..publish(*qos, *id) }),
            });
        }
    }

    /// Until nobody has anything left to say.
    fn finish(&mut self) {
        while !(self.requests.is_empty() && self.inbox.is_empty()) {
            self.happen(Event::Reply);
            self.happen(Event::Answer);
        }
    }
}

fn open(version: Version, window: u16, connected: Connected) -> Conversation {
    let settings = Settings { receive_maximum: RECEIVE_MAXIMUM, max_inflight: 3, ..Settings::default() };
    let receive_maximum = Some(window);
    let properties =
        props(Properties { receive_maximum, ..Properties::default() }).filter(|_| version == Version::V5);
    Conversation::resumed(
        Connect { properties, clean_start: false, ..connect(version) },
        &settings,
        connected,
    )
}

fn check(version: Version, events: &[Event]) {
    let mut world = World::new(version);
    let mut qos2 = [0u64; 2];
    for event in events {
        let before = (world.delivered, world.published);
        world.happen(*event);
        let after = (world.delivered, world.published);
        if let Event::Deliver(QoS::ExactlyOnce) | Event::Publish(QoS::ExactlyOnce) = event {
            qos2[0] += after.0 - before.0;
            qos2[1] += after.1 - before.1;
        }
    }
    world.finish();
    assert_eq!(world.settled.len() as u64, world.delivered, "each delivery has its end");
    assert!(world.in_flight.is_empty() && world.has.is_empty() && world.publishes.is_empty());
    assert!(world.received.is_empty() && world.talk.session.wants().acked > 0);
    assert_eq!(world.got, qos2[0], "the client has each message of QoS 2 once");
    assert_eq!(world.taken[1], qos2[1], "the broker has each message of QoS 2 once");
    assert!(world.taken[0] >= world.published - qos2[1], "and those of QoS 1 at least once");
}

proptest! {
    #[test]
    fn every_exchange_ends_once_whatever_happens_when(events in events()) {
        for version in [Version::V3_1_1, Version::V5] {
            check(version, &events);
        }
    }
}

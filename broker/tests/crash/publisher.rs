//! A publisher at QoS 1 and 2 whose session outlives connections: pipelined, and what was not acknowledged is sent
//! again, in order, with DUP. Spec: MQTT 5.0 §4.3, §4.4.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_protocol::mqtt::packet::{Ack, Disconnect, Packet, Publish, ReasonCode};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::topic::{Topic, TopicLimits};

use super::ledger::{Kind, Message};
use super::link::{Link, connect};
use super::world::{Chance, Stage, World};

/// The client.
pub(crate) struct Publisher {
    world: Arc<World>,
    chance: Chance,
    client_id: String,
    streams: Vec<usize>,
    /// Messages that may wait for their acknowledgement.
    window: usize,
    /// In the order in which they were sent first.
    unacked: VecDeque<Unacked>,
    last_id: u16,
    /// CONNACK came once, so that the broker has promised to know the session.
    has_session: bool,
}

struct Unacked {
    packet_id: u16,
    message: Message,
    /// PUBREC came, PUBCOMP did not.
    is_received: bool,
}

/// How a connection ended.
enum End {
    Lost,
    Done,
}

impl Publisher {
    pub(crate) fn new(world: Arc<World>, mut chance: Chance, name: usize, streams: Vec<usize>) -> Self {
        let window = 1 + usize::try_from(chance.below(40)).unwrap();
        Self {
            world,
            chance,
            client_id: format!("publisher-{name}"),
            streams,
            window,
            unacked: VecDeque::new(),
            last_id: 0,
            has_session: false,
        }
    }

    /// Publishes until the run is draining and everything is acknowledged.
    pub(crate) async fn run(mut self) {
        self.world.becomes(|state| state.stage >= Stage::Running).await;
        loop {
            let address = self.world.address().await;
            let hello = connect(&self.client_id, false, 3600, 100);
            if let Some((mut link, ack)) = Link::open(address, hello).await {
                assert_eq!(ack.session_present, self.has_session, "the session of {}", self.client_id);
                self.has_session = true;
                if matches!(self.serve(&mut link).await, Some(End::Done)) {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// `None` is [`End::Lost`], too.
    async fn serve(&mut self, link: &mut Link) -> Option<End> {
        // [MQTT-4.4.0-1], [MQTT-4.6.0-1]
        let again: Vec<Packet> = self.unacked.iter().map(|unacked| self.packet(unacked, true)).collect();
        for unacked in self.unacked.iter().filter(|unacked| !unacked.is_received) {
            self.world.ledger().sent_again(unacked.message);
        }
        link.send(&again).await?;
        loop {
            let stage = self.world.state().stage;
            let mut packets = Vec::new();
            while stage == Stage::Running && self.unacked.len() < self.window {
                packets.push(self.next());
            }
            link.send(&packets).await?;
            if self.unacked.is_empty() {
                link.send(&[Packet::Disconnect(Disconnect {
                    reason: ReasonCode::SUCCESS,
                    properties: None,
                })])
                .await?;
                return Some(End::Done);
            }
            let mut replies = Vec::new();
            for packet in link.packets().await? {
                replies.extend(self.handle(packet));
            }
            if self.chance.one_in(150) {
                // As if the network had gone: what was just sent may have been handled or not.
                return Some(End::Lost);
            }
            link.send(&replies).await?;
        }
    }

    fn next(&mut self) -> Packet {
        let at = usize::try_from(self.chance.below(self.streams.len() as u64)).unwrap();
        let message = self.world.ledger().next(self.streams[at]);
        let packet_id = self.free_id();
        let unacked = Unacked { packet_id, message, is_received: false };
        let packet = self.packet(&unacked, false);
        self.unacked.push_back(unacked);
        packet
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.unacked.iter().all(|unacked| unacked.packet_id != self.last_id) {
                return self.last_id;
            }
        }
    }

    fn packet(&self, unacked: &Unacked, dup: bool) -> Packet {
        if unacked.is_received {
            return Packet::PubRel(Ack::new(unacked.packet_id, ReasonCode::SUCCESS));
        }
        let ledger = self.world.ledger();
        let stream = &ledger.streams[unacked.message.stream];
        Packet::Publish(Publish {
            dup,
            qos: stream.qos,
            retain: stream.kind != Kind::Plain,
            topic: Some(Topic::parse(&stream.topic, &TopicLimits::STANDARD).unwrap()),
            packet_id: unacked.packet_id,
            properties: None,
            payload: ledger.payload(unacked.message).into(),
        })
    }

    fn handle(&mut self, packet: Packet) -> Option<Packet> {
        match packet {
            Packet::PubAck(ack) => {
                let message = self.settle(&ack, QoS::AtLeastOnce);
                self.acknowledged(message);
                None
            }
            Packet::PubRec(ack) => {
                assert!(!ack.reason.is_error(), "{ack:?}");
                let unacked = self.unacked.iter_mut().find(|unacked| unacked.packet_id == ack.packet_id);
                let unacked = unacked.unwrap_or_else(|| panic!("{ack:?} is about nothing"));
                // Twice when it was sent again on a connection that took this one's place.
                let is_new = !std::mem::replace(&mut unacked.is_received, true);
                let message = unacked.message;
                if is_new {
                    self.acknowledged(message);
                }
                Some(Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::SUCCESS)))
            }
            Packet::PubComp(ack) => {
                // 0x92: PUBREL had come before the crash (§3.7.2.1).
                let reason = if ack.reason == ReasonCode::PACKET_IDENTIFIER_NOT_FOUND {
                    ReasonCode::SUCCESS
                } else {
                    ack.reason
                };
                self.settle(&Ack::new(ack.packet_id, reason), QoS::ExactlyOnce);
                None
            }
            other => panic!("{} got {other:?}", self.client_id),
        }
    }

    /// Forgets the message that this is the last word on.
    fn settle(&mut self, ack: &Ack, qos: QoS) -> Message {
        assert!(!ack.reason.is_error(), "{ack:?}");
        let at = self.unacked.iter().position(|unacked| unacked.packet_id == ack.packet_id);
        let at = at.unwrap_or_else(|| panic!("{ack:?} is about nothing"));
        let unacked = self.unacked.remove(at).unwrap();
        let stream_qos = self.world.ledger().streams[unacked.message.stream].qos;
        assert_eq!((stream_qos, unacked.is_received), (qos, qos == QoS::ExactlyOnce), "{ack:?}");
        unacked.message
    }

    fn acknowledged(&self, message: Message) {
        self.world.ledger().acknowledged(message);
        self.world.change(|state| state.acked += 1);
    }
}

//! A subscriber whose session outlives connections: it leaves in the middle, is taken over, unsubscribes, and remembers
//! what it has as a client with a perfect disk would. Spec: MQTT 5.0 §4.3, §4.4.

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex};

use tidegate_protocol::mqtt::packet::{
    Ack, Disconnect, Packet, Publish, ReasonCode, Subscribe, Subscription, Unsubscribe,
};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::RetainHandling;
use tidegate_protocol::topic::{TopicFilter, TopicLimits};

use super::inbox::Inbox;
use super::ledger::Message;
use super::link::{Link, connect};
use super::world::{Chance, Stage, State, World};

/// Who it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Character {
    pub(crate) client_id: &'static str,
    pub(crate) filter: &'static str,
    pub(crate) qos: QoS,
    pub(crate) receive_maximum: u16,
    pub(crate) habit: Habit,
}

impl Character {
    pub(crate) const fn new(
        client_id: &'static str,
        filter: &'static str,
        qos: QoS,
        receive_maximum: u16,
        habit: Habit,
    ) -> Self {
        Self { client_id, filter, qos, receive_maximum, habit }
    }
}

/// What it does beside reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Stays,
    ComesAndGoes,
    /// Is away most of the time.
    Visits,
    /// Unsubscribes, and subscribes again.
    Wavers,
}

/// The client.
pub(crate) struct Subscriber {
    world: Arc<World>,
    inbox: Arc<Mutex<Inbox>>,
    chance: Chance,
    character: Character,
    has_session: bool,
    /// SUBACK has come once.
    has_subscribed: bool,
    /// SUBSCRIBE or UNSUBSCRIBE that waits for its answer on this connection.
    asked: Option<Asked>,
    /// Wants its subscription to stand.
    wants: bool,
    /// If not: until so many publications were acknowledged.
    wants_at: u64,
    /// Packet identifiers of QoS 2 between PUBLISH and PUBREL.
    held: HashSet<u16>,
    /// Of the broker that it is connected to.
    life: usize,
    /// PUBACK was sent on this connection, and no PINGREQ since.
    unsettled: Vec<Message>,
    /// For each PINGREQ on its way: what was acknowledged before it.
    pinged: VecDeque<Vec<Message>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Subscribe,
    Unsubscribe,
}

/// Why a connection is left.
enum Leave {
    Lost,
    /// A second connection of the same client is opened before the first ends.
    TakeOver,
    /// Until so many publications more were acknowledged.
    Away(u64),
    Done,
}

impl Subscriber {
    pub(crate) fn new(
        world: Arc<World>,
        inbox: Arc<Mutex<Inbox>>,
        chance: Chance,
        character: Character,
    ) -> Self {
        Self {
            world,
            inbox,
            chance,
            character,
            has_session: false,
            has_subscribed: false,
            asked: None,
            wants: true,
            wants_at: 0,
            held: HashSet::new(),
            life: 0,
            unsettled: Vec::new(),
            pinged: VecDeque::new(),
        }
    }

    /// Comes and goes until the run is over.
    pub(crate) async fn run(mut self) {
        let mut old: Option<Link> = None;
        loop {
            let Some(mut link) = self.connect().await else {
                tokio::task::yield_now().await;
                continue;
            };
            // Taken over by now.
            drop(old.take());
            match self.serve(&mut link).await.unwrap_or(Leave::Lost) {
                Leave::Lost => {}
                Leave::TakeOver => old = Some(link),
                Leave::Away(acks) => {
                    drop(link);
                    let until = self.world.state().acked + acks;
                    self.world.becomes(|state| state.acked >= until || state.stage > Stage::Running).await;
                }
                Leave::Done => return,
            }
        }
    }

    async fn connect(&mut self) -> Option<Link> {
        let address = self.world.address().await;
        self.life = self.world.ledger().life();
        let Character { client_id, receive_maximum, .. } = self.character;
        let (link, ack) = Link::open(address, connect(client_id, false, 3600, receive_maximum)).await?;
        assert_eq!(ack.session_present, self.has_session, "the session of {client_id}");
        self.has_session = true;
        self.asked = None;
        self.unsettled.clear();
        self.pinged.clear();
        Some(link)
    }

    /// `None` is [`Leave::Lost`], too.
    async fn serve(&mut self, link: &mut Link) -> Option<Leave> {
        loop {
            let State { stage, acked, .. } = self.world.state();
            // At the end everybody is subscribed.
            self.wants |= stage > Stage::Running || acked >= self.wants_at;
            self.ask(link).await?;
            if stage == Stage::Over && self.owes_nothing() {
                let packet = Disconnect { reason: ReasonCode::SUCCESS, properties: None };
                link.send(&[Packet::Disconnect(packet)]).await?;
                // Once it is closed, all that was sent has been handled.
                while link.packet().await.is_some() {}
                return Some(Leave::Done);
            }
            if stage == Stage::Over {
                let note = format!(
                    "{}: {} PUBACKs, {} PINGREQs, {:?}, PUBRELs of {:?}",
                    self.character.client_id,
                    self.unsettled.len(),
                    self.pinged.len(),
                    self.asked,
                    self.held
                );
                self.inbox.lock().unwrap().note(note);
            }
            let packets = tokio::select! {
                packets = link.packets() => packets?,
                _ = self.world.becomes(|state| state.stage > stage) => continue,
                _ = self.world.becomes(|state| state.acked >= self.wants_at), if !self.wants => continue,
            };
            let mut replies = Vec::new();
            for packet in packets {
                self.handle(packet, &mut replies);
            }
            let whim = if stage == Stage::Running { self.whim() } else { None };
            // Half of those who leave do not acknowledge what they have.
            if whim.is_none() || self.chance.one_in(2) {
                link.send(&replies).await?;
                self.ping(link).await?;
            }
            if let Some(leave) = whim {
                return Some(leave);
            }
        }
    }

    fn whim(&mut self) -> Option<Leave> {
        let odds = match self.character.habit {
            Habit::Stays => 2000,
            Habit::ComesAndGoes | Habit::Wavers => 60,
            Habit::Visits => 8,
        };
        if !self.has_subscribed || !self.chance.one_in(odds) {
            return None;
        }
        if self.character.habit == Habit::Wavers && self.asked.is_none() && self.chance.one_in(2) {
            self.wants = false;
            self.wants_at = self.world.state().acked + 50 + self.chance.below(300);
            return None;
        }
        Some(match self.chance.below(3) {
            0 => Leave::Lost,
            1 => Leave::TakeOver,
            _ if self.character.habit == Habit::Visits => Leave::Away(100 + self.chance.below(1500)),
            _ => Leave::Away(self.chance.below(200)),
        })
    }

    /// SUBSCRIBE or UNSUBSCRIBE, if that is what it wants.
    async fn ask(&mut self, link: &mut Link) -> Option<()> {
        let is_subscribed = self.inbox.lock().unwrap().is_subscribed() && self.has_subscribed;
        if self.asked.is_some() || is_subscribed == self.wants {
            return Some(());
        }
        let filter = TopicFilter::parse(self.character.filter, &TopicLimits::STANDARD).unwrap();
        let now = self.world.ledger().tick();
        let packet = if self.wants {
            self.inbox.lock().unwrap().subscribes(now);
            self.asked = Some(Asked::Subscribe);
            Packet::Subscribe(Subscribe {
                packet_id: 1,
                properties: None,
                filters: vec![Subscription {
                    filter: Ok(filter),
                    qos: self.character.qos,
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: RetainHandling::Skip,
                }],
            })
        } else {
            self.inbox.lock().unwrap().unsubscribes();
            self.asked = Some(Asked::Unsubscribe);
            Packet::Unsubscribe(Unsubscribe { packet_id: 1, properties: None, filters: vec![Ok(filter)] })
        };
        link.send(&[packet]).await
    }

    /// A PINGREQ behind what was acknowledged, one at a time.
    async fn ping(&mut self, link: &mut Link) -> Option<()> {
        if self.unsettled.is_empty() || !self.pinged.is_empty() {
            return Some(());
        }
        self.pinged.push_back(mem::take(&mut self.unsettled));
        link.send(&[Packet::PingReq]).await
    }

    fn owes_nothing(&self) -> bool {
        self.unsettled.is_empty() && self.pinged.is_empty() && self.held.is_empty() && self.asked.is_none()
    }

    fn handle(&mut self, packet: Packet, replies: &mut Vec<Packet>) {
        match packet {
            Packet::Publish(publish) => replies.push(self.receive(&publish)),
            Packet::PubRel(ack) => {
                self.held.remove(&ack.packet_id);
                replies.push(Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::SUCCESS)));
            }
            Packet::SubAck(ack) => {
                assert_eq!(ack.reasons, [ReasonCode(self.character.qos as u8)]);
                self.asked = None;
                let now = self.world.ledger().tick();
                self.inbox.lock().unwrap().subscribed(now);
                if !mem::replace(&mut self.has_subscribed, true) {
                    self.world.change(|state| state.subscribed += 1);
                }
            }
            Packet::UnsubAck(ack) => {
                assert!(ack.reasons.iter().all(|reason| !reason.is_error()), "{ack:?}");
                self.asked = None;
                let now = self.world.ledger().tick();
                self.inbox.lock().unwrap().unsubscribed(now);
            }
            Packet::PingResp => {
                let now = self.world.ledger().tick();
                let mut inbox = self.inbox.lock().unwrap();
                self.pinged.pop_front().unwrap().into_iter().for_each(|message| {
                    inbox.settled(message, self.life, now);
                });
            }
            other => panic!("{} got {other:?}", self.character.client_id),
        }
    }

    fn receive(&mut self, publish: &Publish) -> Packet {
        let Publish { qos, packet_id, payload, .. } = publish;
        if *qos == QoS::ExactlyOnce && !self.held.insert(*packet_id) {
            assert!(publish.dup, "{}: {packet_id} is not free [MQTT-2.2.1-4]", self.character.client_id);
            return Packet::PubRec(Ack::new(*packet_id, ReasonCode::SUCCESS));
        }
        let (message, is_first) = {
            let mut ledger = self.world.ledger();
            let topic = publish.topic.as_ref().map(|topic| topic.as_str());
            let (message, is_first) = self.inbox.lock().unwrap().arrived(&mut ledger, payload, *qos);
            assert_eq!(topic, Some(&*ledger.streams[message.stream].topic), "the topic of {message:?}");
            (message, is_first)
        };
        if is_first {
            self.world.change(|state| state.arrived += 1);
        }
        if *qos == QoS::ExactlyOnce {
            return Packet::PubRec(Ack::new(*packet_id, ReasonCode::SUCCESS));
        }
        self.unsettled.push(message);
        Packet::PubAck(Ack::new(*packet_id, ReasonCode::SUCCESS))
    }
}

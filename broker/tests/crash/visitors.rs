//! Clients with one question each: is a deleted session still deleted, and what is retained?

use std::sync::Arc;

use tidegate_protocol::mqtt::packet::{Ack, Disconnect, Packet, ReasonCode, Subscribe, Subscription};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::RetainHandling;
use tidegate_protocol::topic::{TopicFilter, TopicLimits};

use super::ledger::{Kind, Message};
use super::link::{Link, connect};
use super::world::{Chance, Stage, World};

/// A session that is made, subscribes, is deleted with Clean Start and an expiry of 0, and looked for.
pub(crate) struct Mayfly {
    world: Arc<World>,
    chance: Chance,
    client_id: String,
    session: Session,
    /// Deleted sessions that were looked for.
    buried: usize,
}

/// What the broker has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Exists,
    Deleted,
    /// It died before it answered.
    Unknown,
}

impl Mayfly {
    pub(crate) fn new(world: Arc<World>, chance: Chance, number: usize) -> Self {
        Self { world, chance, client_id: format!("mayfly-{number}"), session: Session::Deleted, buried: 0 }
    }

    /// Answers how many deleted sessions it looked for.
    pub(crate) async fn run(mut self) -> usize {
        while self.world.state().stage < Stage::Over {
            let _ = match self.session {
                Session::Exists if self.chance.one_in(2) => self.delete().await,
                _ => self.live().await,
            };
            let until = self.world.state().acked + self.chance.below(150);
            self.world.becomes(|state| state.acked >= until || state.stage == Stage::Over).await;
        }
        self.buried
    }

    /// Connects, looks whether the session is as promised, and subscribes.
    async fn live(&mut self) -> Option<()> {
        let before = std::mem::replace(&mut self.session, Session::Unknown);
        let address = self.world.address().await;
        let hello = connect(&self.client_id, false, 3600, 10);
        // It may have been made, and may have existed: only what was deleted is known to be either.
        let (mut link, ack) = Link::open(address, hello).await?;
        self.session = Session::Exists;
        match before {
            Session::Exists => assert!(ack.session_present, "{} was promised", self.client_id),
            Session::Deleted => {
                assert!(!ack.session_present, "{} was deleted", self.client_id);
                self.buried += 1;
                self.expect_silence(&mut link).await?;
            }
            Session::Unknown => {}
        }
        let packet = subscribe("t/#", QoS::AtLeastOnce, RetainHandling::Skip);
        link.send(&[packet]).await?;
        let mut left = self.chance.below(30);
        loop {
            match link.packet().await? {
                Packet::SubAck(_) => {}
                Packet::Publish(publish) => {
                    link.send(&[Packet::PubAck(Ack::new(publish.packet_id, ReasonCode::SUCCESS))]).await?;
                }
                other => panic!("{} got {other:?}", self.client_id),
            }
            if left == 0 || self.world.state().stage > Stage::Running {
                return Some(());
            }
            left -= 1;
        }
    }

    /// A new session has no subscription and nothing to say.
    async fn expect_silence(&self, link: &mut Link) -> Option<()> {
        link.send(&[Packet::PingReq]).await?;
        let packet = link.packet().await?;
        assert_eq!(packet, Packet::PingResp, "{} has subscribed to nothing", self.client_id);
        Some(())
    }

    async fn delete(&mut self) -> Option<()> {
        self.session = Session::Unknown;
        let address = self.world.address().await;
        let (mut link, ack) = Link::open(address, connect(&self.client_id, true, 0, 10)).await?;
        assert!(!ack.session_present, "[MQTT-3.2.2-2]");
        self.session = Session::Deleted;
        let goodbye = Disconnect { reason: ReasonCode::SUCCESS, properties: None };
        link.send(&[Packet::Disconnect(goodbye)]).await?;
        while link.packet().await.is_some() {}
        Some(())
    }
}

/// Subscribes to every topic with a retained message and compares. `None`: the broker died meanwhile.
pub(crate) async fn look_at_retained(world: Arc<World>) -> Option<()> {
    let streams: Vec<usize> = {
        let ledger = world.ledger();
        (0..ledger.streams.len()).filter(|stream| ledger.streams[*stream].kind != Kind::Plain).collect()
    };
    let address = world.address().await;
    let (mut link, _) = Link::open(address, connect("", true, 0, 100)).await?;
    for stream in streams {
        let (topic, acked, mark) = {
            let ledger = world.ledger();
            // Always there, once it was: what comes before it was sent before it.
            let mark = ledger.streams.iter().position(|stream| stream.kind == Kind::Retained).unwrap();
            if ledger.acked_through(mark) == 0 {
                return Some(());
            }
            let topic = |stream: usize| ledger.streams[stream].topic.clone();
            (topic(stream), ledger.acked_through(stream), topic(mark))
        };
        let found = retained(&mut link, &topic, &mark).await?;
        let ledger = world.ledger();
        let possible = acked.saturating_sub(1)..ledger.sent(stream);
        match found {
            Some(payload) => {
                let message = ledger.message(&payload);
                let is_possible = message.stream == stream && possible.contains(&message.n);
                assert!(is_possible, "{topic} has {message:?}, which was not in {possible:?}");
            }
            None => {
                let mut possible = possible.clone();
                let may_be_empty = acked == 0 || possible.any(|n| ledger.is_clear(Message { stream, n }));
                assert!(may_be_empty, "{topic} has nothing, of {possible:?}");
            }
        }
    }
    Some(())
}

/// What is retained at a topic, known from what comes before the retained message of `mark`.
async fn retained(link: &mut Link, topic: &str, mark: &str) -> Option<Option<bytes::Bytes>> {
    let asked: &[&str] = if topic == mark { &[mark] } else { &[topic, mark] };
    for filter in asked {
        link.send(&[subscribe(filter, QoS::AtMostOnce, RetainHandling::Send)]).await?;
    }
    let mut found = None;
    loop {
        match link.packet().await? {
            Packet::SubAck(ack) => assert!(ack.reasons.iter().all(|reason| !reason.is_error()), "{ack:?}"),
            // A message that is just being published: the subscription stands.
            Packet::Publish(publish) if !publish.retain => {}
            Packet::Publish(publish) => {
                let at = publish.topic.as_ref().unwrap().as_str();
                if at == topic {
                    found = Some(publish.payload);
                }
                if at == mark {
                    return Some(found);
                }
            }
            other => panic!("the reader of retained messages got {other:?}"),
        }
    }
}

fn subscribe(filter: &str, qos: QoS, retain_handling: RetainHandling) -> Packet {
    let filter = Ok(TopicFilter::parse(filter, &TopicLimits::STANDARD).unwrap());
    let (no_local, retain_as_published) = (false, false);
    let filters = vec![Subscription { filter, qos, no_local, retain_as_published, retain_handling }];
    Packet::Subscribe(Subscribe { packet_id: 1, properties: None, filters })
}

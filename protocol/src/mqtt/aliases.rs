//! Topic aliases, the client's and ours: numbers that stand for topics on one connection [MQTT-3.3.2-7].
//!
//! Knows no packet. Spec: OASIS MQTT 5.0 §3.3.2.3.4.

use std::collections::HashMap;

use crate::topic::Topic;

/// The topics that the client gave numbers to; sorted by number.
#[derive(Debug, Default)]
pub(super) struct ClientAliases(Vec<(u16, Topic)>);

impl ClientAliases {
    pub(super) fn set(&mut self, alias: u16, topic: &Topic) {
        match self.0.binary_search_by_key(&alias, |(known, _)| *known) {
            Ok(position) => {
                if let Some((_, known)) = self.0.get_mut(position) {
                    *known = topic.clone();
                }
            }
            Err(position) => self.0.insert(position, (alias, topic.clone())),
        }
    }

    pub(super) fn topic(&self, alias: u16) -> Option<&Topic> {
        let position = self.0.binary_search_by_key(&alias, |(known, _)| *known).ok()?;
        self.0.get(position).map(|(_, topic)| topic)
    }
}

/// The topics that we gave numbers to. First come, first served: a client of more topics than numbers would
/// otherwise have each replaced before it is used again, and hear every topic whole with a number on top.
#[derive(Debug)]
pub(super) struct ServerAliases {
    by_topic: HashMap<Topic, u16>,
    maximum: u16,
}

/// How a topic is said to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alias {
    /// By the number alone.
    Known(u16),
    /// With a number, for later.
    First(u16),
}

impl ServerAliases {
    /// Up to `maximum` numbers, from 1 on [MQTT-3.1.2-26], [MQTT-3.3.2-8], [MQTT-3.3.2-11].
    pub(super) fn new(maximum: u16) -> Self {
        Self { by_topic: HashMap::new(), maximum }
    }

    /// `None`: there is no number left.
    pub(super) fn alias(&self, topic: &Topic) -> Option<Alias> {
        if let Some(alias) = self.by_topic.get(topic) {
            return Some(Alias::Known(*alias));
        }
        let next = u16::try_from(self.by_topic.len()).ok()?.checked_add(1)?;
        (next <= self.maximum).then_some(Alias::First(next))
    }

    /// The packet that says topic and number is on its way.
    pub(super) fn enter(&mut self, topic: &Topic, alias: u16) {
        self.by_topic.insert(topic.clone(), alias);
    }
}

//! What arrived at one durable subscriber, held against the books: at least once, exactly once, in order, no ghosts.

use std::collections::HashMap;

use tidegate_protocol::publication::QoS;

use super::ledger::{Ledger, Message};

/// One subscription's view; a group of subscribers has one together.
pub(crate) struct Inbox {
    name: &'static str,
    /// Of the subscription.
    qos: QoS,
    /// For each stream: its topic matches.
    wanted: Vec<bool>,
    /// Members of a group overtake one another.
    is_ordered: bool,
    /// Since SUBACK; `None` from UNSUBSCRIBE on.
    subscribed_at: Option<u64>,
    /// From UNSUBACK until the next SUBSCRIBE: nothing that was published then may come.
    gaps: Vec<(u64, u64)>,
    arrivals: HashMap<Message, Arrival>,
    /// For each stream: the last message that arrived for the first time.
    newest: Vec<Option<usize>>,
    /// For each stream: up to here [`Inbox::missing`] has found nothing.
    complete: Vec<usize>,
    note: String,
}

#[derive(Clone, Debug, Default)]
struct Arrival {
    /// When.
    at: Vec<u64>,
    /// When a round trip followed its PUBACK, and in which life of the broker.
    settled: Vec<(usize, u64)>,
}

impl Inbox {
    pub(crate) fn new(name: &'static str, qos: QoS, wanted: Vec<bool>, is_ordered: bool) -> Self {
        let (newest, complete) = (vec![None; wanted.len()], vec![0; wanted.len()]);
        let (gaps, arrivals) = (Vec::new(), HashMap::new());
        Self {
            name,
            qos,
            wanted,
            is_ordered,
            subscribed_at: None,
            gaps,
            arrivals,
            newest,
            complete,
            note: String::new(),
        }
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.subscribed_at.is_some()
    }

    /// SUBSCRIBE is about to be sent.
    pub(crate) fn subscribes(&mut self, now: u64) {
        for (_, until) in self.gaps.iter_mut().filter(|(_, until)| *until == u64::MAX) {
            *until = now;
        }
    }

    /// SUBACK came.
    pub(crate) fn subscribed(&mut self, now: u64) {
        self.subscribed_at.get_or_insert(now);
    }

    /// UNSUBSCRIBE is about to be sent.
    pub(crate) fn unsubscribes(&mut self) {
        self.subscribed_at = None;
    }

    /// UNSUBACK came.
    pub(crate) fn unsubscribed(&mut self, now: u64) {
        self.gaps.push((now, u64::MAX));
    }

    /// A message that the client had not seen under this packet identifier. Whether it is the first time.
    pub(crate) fn arrived(&mut self, ledger: &mut Ledger, payload: &[u8], qos: QoS) -> (Message, bool) {
        let message = ledger.message(payload);
        let Message { stream, n } = message;
        let (name, fate) = (self.name, ledger.fate(message).unwrap());
        assert!(self.wanted[stream], "{name} has not subscribed to the topic of {message:?}");
        assert_eq!(qos, self.qos.min(ledger.streams[stream].qos), "{name}: the QoS of {message:?}");
        for (from, until) in &self.gaps {
            let is_ghost =
                fate.first_sent > *from && fate.acked.map_or(*until == u64::MAX, |acked| acked < *until);
            assert!(!is_ghost, "{name} was not subscribed when {message:?} was published: {fate:?}");
        }
        let arrival = self.arrivals.entry(message).or_default();
        arrival.at.push(ledger.tick());
        let kills = ledger.kills();
        if qos == QoS::ExactlyOnce {
            assert_eq!(
                arrival.at.len(),
                1,
                "{name}: {message:?} arrived again: {fate:?} {arrival:?} {kills:?}"
            );
        }
        let settled = arrival.settled.iter().filter(|(life, at)| ledger.remembers(*life, *at)).count();
        assert!(
            settled < fate.sends,
            "{name}: {message:?} came back after its PUBACK: {fate:?} {arrival:?} {kills:?}"
        );
        let is_first = arrival.at.len() == 1;
        // What was sent while the client was not subscribed, and is sent again by a publisher that was not answered, may
        // come behind what was sent since.
        let subscribed_since = self.gaps.last().map_or(0, |(_, until)| *until);
        if is_first && self.is_ordered && fate.first_sent >= subscribed_since {
            let newest = self.newest[stream].replace(n);
            assert!(
                newest < Some(n),
                "{name}: {message:?} arrived behind {newest:?}: {fate:?} {arrival:?} {kills:?} {:?} {:?}",
                self.gaps,
                self.subscribed_at
            );
        }
        (message, is_first)
    }

    /// What it still waits for at the end of the run, for whoever reads a failure.
    pub(crate) fn note(&mut self, note: String) {
        self.note = note;
    }

    pub(crate) fn noted(&self) -> &str {
        &self.note
    }

    /// A round trip followed its PUBACK.
    pub(crate) fn settled(&mut self, message: Message, life: usize, now: u64) {
        self.arrivals.entry(message).or_default().settled.push((life, now));
    }

    /// What was acknowledged and has not arrived, in words; empty at the end of a run.
    pub(crate) fn missing(&mut self, ledger: &Ledger) -> String {
        let Some(subscribed_at) = self.subscribed_at else {
            return format!("{} is not subscribed", self.name);
        };
        for stream in (0..self.wanted.len()).filter(|stream| self.wanted[*stream]) {
            let complete = &mut self.complete[stream];
            while let Some(fate) = ledger.fate(Message { stream, n: *complete }) {
                let message = Message { stream, n: *complete };
                let is_due = fate.first_sent > subscribed_at && fate.acked.is_some();
                if is_due && !self.arrivals.contains_key(&message) {
                    let kills = ledger.kills();
                    return format!("{} has not got {message:?}: {fate:?} {kills:?}", self.name);
                }
                *complete += 1;
            }
        }
        String::new()
    }

    /// Messages that arrived, and how often in all.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.arrivals.len(), self.arrivals.values().map(|arrival| arrival.at.len()).sum())
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }
}

//! What each frame of a connected client asks of the broker, outside of transactions and within them.
//! Spec: STOMP 1.2 "Client Frames"; WIRE §8.

use bytes::Bytes;

use super::super::Version;
use super::super::frame::{Command, Frame};
use super::error::{Offender, SessionError};
use super::subscribe::Terms;
use super::subscriptions::{Settled, Verdict};
use super::transaction::Action;
use super::{Pending, StompSession, publish, receipt};
use crate::publication::{Publication, QoS, compact};
use crate::session::{Hint, Output, Publish, Request, Step};
use crate::topic::Topic;

impl StompSession {
    pub(super) fn publish(&mut self, frame: &Frame, version: Version) -> Result<(), SessionError> {
        // SEC-17: a slice must not keep a much larger buffer alive.
        let body = &frame.body;
        let is_most = body.len() >= self.buffer_bytes_max / 2;
        let payload = if is_most { compact(body) } else { Bytes::copy_from_slice(body) };
        let publication = publish::read(frame, payload, &self.destinations, self.now)?;
        self.hint(frame);
        let replies =
            publication.properties.as_ref().and_then(|properties| properties.response_topic.clone());
        if let (Some(reply_to), Some(topic)) = (frame.header("reply-to"), replies) {
            self.subscribe_to_replies(frame, reply_to, &topic, version)?;
        }
        let Some(transaction) = frame.header("transaction") else {
            self.request_publish(publication, receipt(frame));
            return Ok(());
        };
        self.transactions.add(transaction, Action::Publish(Box::new(publication)), &self.settings)?;
        self.send_receipt(receipt(frame).as_deref());
        Ok(())
    }

    fn request_publish(&mut self, publication: Publication, receipt: Option<Box<str>>) {
        let qos = publication.qos;
        let request = Request::Publish(Box::new(Publish { publication, packet_id: None }));
        if qos == QoS::AtMostOnce {
            self.request_unanswered(request);
        } else {
            self.request(request, Pending::Publish { receipt });
        }
    }

    /// Before what it is the answer to, so that no reply comes too early.
    fn subscribe_to_replies(
        &mut self,
        frame: &Frame,
        reply_to: &str,
        topic: &Topic,
        version: Version,
    ) -> Result<(), SessionError> {
        if !self.destinations.is_temporary_queue(reply_to) {
            return Ok(());
        }
        let terms = Terms::new(version, &self.settings, &self.destinations, self.client_id.as_deref());
        if let Some(subscribe) = self.subscriptions.subscribe_to_replies(reply_to, topic, terms)? {
            let pending = Pending::ReplyTo { receipt: receipt(frame) };
            self.request(Request::Subscribe(vec![subscribe]), pending);
        }
        Ok(())
    }

    pub(super) fn subscribe(&mut self, frame: &Frame, version: Version) -> Result<(), SessionError> {
        let terms = Terms::new(version, &self.settings, &self.destinations, self.client_id.as_deref());
        let subscribe = self.subscriptions.subscribe(frame, terms)?;
        self.hint(frame);
        let pending = Pending::Subscribe { receipt: receipt(frame) };
        self.request(Request::Subscribe(vec![subscribe]), pending);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, frame: &Frame, version: Version) -> Result<(), SessionError> {
        let terms = Terms::new(version, &self.settings, &self.destinations, self.client_id.as_deref());
        let unsubscribed = self.subscriptions.unsubscribe(frame, terms)?;
        self.request_settle(unsubscribed.before);
        let pending = Pending::Unsubscribe { receipt: receipt(frame), id: unsubscribed.id };
        self.request(Request::Unsubscribe(vec![unsubscribed.name]), pending);
        self.request_settle(unsubscribed.after);
        Ok(())
    }

    pub(super) fn acknowledge(
        &mut self,
        frame: &Frame,
        verdict: Verdict,
        version: Version,
    ) -> Result<(), SessionError> {
        let taken = self.subscriptions.acknowledge(frame, verdict, version)?;
        match frame.header("transaction") {
            None => {
                let settled = self.subscriptions.settle(taken);
                self.request_settle(settled);
            }
            Some(transaction) => {
                self.transactions.add(transaction, Action::Acknowledge(taken), &self.settings)?;
            }
        }
        self.send_receipt(receipt(frame).as_deref());
        Ok(())
    }

    pub(super) fn begin(&mut self, frame: &Frame) -> Result<(), SessionError> {
        self.transactions.begin(transaction(frame)?, &self.settings)?;
        self.send_receipt(receipt(frame).as_deref());
        Ok(())
    }

    pub(super) fn commit(&mut self, frame: &Frame) -> Result<(), SessionError> {
        let name = transaction(frame)?;
        let receipt = receipt(frame);
        let mut steps = Vec::new();
        for action in self.transactions.end(name)? {
            match action {
                Action::Publish(mut publication) => {
                    // A receipt says that it has arrived, as with a SEND by itself.
                    if receipt.is_some() {
                        publication.qos = publication.qos.max(QoS::AtLeastOnce);
                    }
                    let publish = Publish { publication: *publication, packet_id: None };
                    steps.push(Step::Publish(Box::new(publish)));
                }
                Action::Acknowledge(taken) => {
                    let settled = self.subscriptions.settle(taken).into_iter();
                    steps.extend(settled.map(|(tag, settlement)| Step::Settle { tag, settlement }));
                }
            }
        }
        if steps.is_empty() {
            self.send_receipt(receipt.as_deref());
        } else {
            let pending = Pending::Commit { receipt, transaction: name.into() };
            self.request(Request::Transaction(steps), pending);
        }
        Ok(())
    }

    pub(super) fn abort(&mut self, frame: &Frame) -> Result<(), SessionError> {
        for action in self.transactions.end(transaction(frame)?)? {
            if let Action::Acknowledge(taken) = action {
                let settled = self.subscriptions.give_back(taken);
                self.request_settle(settled);
            }
        }
        self.send_receipt(receipt(frame).as_deref());
        Ok(())
    }

    fn request_settle(&mut self, settled: Vec<Settled>) {
        for (tag, settlement) in settled {
            self.request_unanswered(Request::Settle { tag, settlement });
        }
    }

    /// Once for each client; the broker knows how often to say it.
    fn hint(&mut self, frame: &Frame) {
        let Some(destination) = frame.header("destination") else { return };
        if !self.has_hinted && self.destinations.seems_dotted(destination) {
            self.has_hinted = true;
            self.outputs.push_back(Output::Hint(Hint::DottedDestination));
        }
    }
}

impl Pending {
    /// The frame that the reply is about.
    pub(super) fn offender(&self) -> Offender {
        let (command, receipt) = match self {
            Self::Connect => (Command::Connect, &None),
            Self::Subscribe { receipt } => (Command::Subscribe, receipt),
            Self::Unsubscribe { receipt, .. } => (Command::Unsubscribe, receipt),
            Self::Publish { receipt } | Self::ReplyTo { receipt } => (Command::Send, receipt),
            Self::Commit { receipt, .. } => (Command::Commit, receipt),
        };
        let transaction =
            if let Self::Commit { transaction, .. } = self { Some(transaction.clone()) } else { None };
        Offender { command: Some(command), receipt: receipt.clone(), transaction }
    }
}

fn transaction(frame: &Frame) -> Result<&str, SessionError> {
    frame.header("transaction").ok_or(SessionError::MissingHeader("transaction"))
}

//! What the session asks for: messages to the client, requests to the broker, and the brake that holds a publish
//! while a subscriber of it is over its mark (DESIGN §6).

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    DataLane, Outgoing, Output, Publish, Reply, Request, Settlement, Stamped, Step, Token,
};

use super::hints::say_once;
use super::pending::Answer;
use super::{ANSWER_BYTES, BACKLOG_MAX, Brake, CONTROL_BYTES_MAX, Connection, Lane, Phase, buffer};
use crate::broker::Now;
use crate::outbox::Outbox;
use crate::store::Ticket;

impl Connection {
    /// Carries out what the session asks for. One message may hold many packets, each with an answer, so this
    /// stops where reading would; [`Self::may_read`] goes on with it.
    pub(super) fn drain(&mut self, lane: &mut Lane<'_>, now: Now) {
        let mut answered_bytes = 0;
        while matches!(lane, Lane::Data(_)) || !self.stops_draining(&mut answered_bytes, now) {
            let Some(output) = self.session.poll_output() else { return self.end_drain() };
            self.carry_out(output, lane, &mut answered_bytes, now);
            if !matches!(self.phase, Phase::Open) {
                return self.end_drain();
            }
        }
    }

    /// To the last output, for the words before an end.
    pub(super) fn drain_all(&mut self, now: Now) {
        while let Some(output) = self.session.poll_output() {
            self.carry_out(output, &mut Lane::Control, &mut 0, now);
        }
        self.end_drain();
    }

    fn stops_draining(&mut self, answered_bytes: &mut usize, now: Now) -> bool {
        if *answered_bytes > CONTROL_BYTES_MAX {
            *answered_bytes = 0;
            self.has_undrained = self.is_control_full(now);
        }
        self.has_undrained |= self.brake.as_ref().is_some_and(|brake| brake.backlog.len() >= BACKLOG_MAX);
        self.has_undrained
    }

    pub(super) fn is_control_full(&self, now: Now) -> bool {
        if self.outbox.control_bytes() <= CONTROL_BYTES_MAX {
            return false;
        }
        self.flush_own(now);
        self.outbox.control_bytes() > CONTROL_BYTES_MAX
    }

    fn end_drain(&mut self) {
        self.has_undrained = false;
        self.release_subscribe();
    }

    fn carry_out(&mut self, output: Output, lane: &mut Lane<'_>, answered_bytes: &mut usize, now: Now) {
        match output {
            Output::Send(outgoing) => {
                *answered_bytes += outgoing.len() + ANSWER_BYTES;
                self.send(outgoing, lane);
            }
            Output::SendStamped(stamped) => {
                self.broker.assign(&mut self.client, stamped.tag, stamped.packet_id);
                self.send_stamped(stamped, lane);
            }
            Output::Request(token, request) => self.request(token, request, now),
            Output::Hint(hint) => say_once(hint),
            Output::Close(reason, data) => {
                self.give_up_brake(now);
                if data == DataLane::Drain {
                    self.pump_before_close(now);
                }
                self.close(&reason, data, now);
            }
        }
    }

    fn send(&mut self, outgoing: Outgoing, lane: &mut Lane<'_>) {
        match lane {
            Lane::Control => {
                self.broker.metrics().family(self.family).websocket_messages_out.inc();
                let deflating = self.deflating.as_deref().filter(|_| self.takeover.is_none());
                self.outbox.push_control(outgoing.into_frame(deflating));
            }
            Lane::Data(_) if self.client.is_replaced => {}
            Lane::Data(encoded) => match &mut self.takeover {
                Some(takeover) => encoded.push_frame(takeover.frame(&outgoing)),
                None => encoded.push(outgoing, self.deflating.as_deref()),
            },
        }
    }

    fn send_stamped(&mut self, stamped: Stamped, lane: &mut Lane<'_>) {
        match lane {
            Lane::Data(_) if self.client.is_replaced => {}
            Lane::Data(encoded) if self.takeover.is_none() => {
                encoded.push_stamped(stamped, self.deflating.as_deref());
            }
            lane => self.send(stamped.into_outgoing(), lane),
        }
    }

    fn request(&mut self, token: Token, request: Request, now: Now) {
        match (request, &mut self.brake) {
            // What is sent is noted before it leaves, and not when the client's own publishes have their turn.
            (Request::Assign { tag, packet_id }, _) => self.broker.assign(&mut self.client, tag, packet_id),
            // Most acknowledgements concern nobody but the session.
            (Request::Settle { settlement: Settlement::Accepted, .. }, _)
                if !self.client.keeps_deliveries() => {}
            (request, Some(brake)) => brake.backlog.push_back((token, request)),
            (request, None) => self.carry_to_broker(token, request, true, now),
        }
    }

    fn carry_to_broker(&mut self, token: Token, request: Request, may_hold: bool, now: Now) {
        // The reply precedes the first message of a new subscription, or of a session that goes on.
        if matches!(request, Request::Subscribe(_) | Request::Connect(_) | Request::Authenticate(_)) {
            self.holds_subscribe = true;
            self.outbox.hold_subscribe();
        }
        let (publish_qos, packet_id) = match &request {
            Request::Publish(publish) => {
                self.count_in(publish);
                (Some(publish.publication.qos), publish.packet_id)
            }
            Request::Transaction(steps) => {
                for step in steps {
                    if let Step::Publish(publish) = step {
                        self.count_in(publish);
                    }
                }
                (Some(QoS::AtLeastOnce), None) // it is answered, whatever is in it
            }
            _ => (None, None),
        };
        let batch = self.batch.get_or_insert_with(buffer::take_batch);
        let reply = self.broker.handle(&mut self.client, &self.peer, request, now, batch);
        let slow = std::mem::take(&mut batch.slow);
        let entered = std::mem::take(&mut batch.entered);
        let after = batch.after.take().unwrap_or(Ticket::DONE);
        let Some(reply) = reply else { return };
        if matches!(reply, Reply::Connected(_)) {
            self.receiver.set_message_bytes_max(self.settings.message_bytes_max);
        }
        let holds = !slow.is_empty() && publish_qos > Some(QoS::AtMostOnce) && may_hold;
        self.yields |= !slow.is_empty() && !holds;
        if publish_qos == Some(QoS::AtMostOnce) {
            // It promises nothing; waiting, these would be many.
            return self.session.handle_reply(token, reply, now.instant);
        }
        let answer = Answer { token, reply, packet_id, entered, after };
        if holds {
            self.apply_brake(slow, answer, now);
        } else {
            self.answer(answer, now);
        }
    }

    fn count_in(&self, publish: &Publish) {
        let counters = self.broker.metrics().family(self.family);
        counters.messages_in.inc();
        counters.payload_bytes_in.add(publish.publication.payload.len() as u64);
    }

    /// Holds the acknowledgement until there is room, at most `queue.publish_wait`.
    fn apply_brake(&mut self, slow: Vec<Arc<Outbox>>, answer: Answer, now: Now) {
        self.flush(now);
        let slow: Vec<_> = slow.into_iter().filter(|slow| slow.wait_for_room(&self.outbox)).collect();
        if slow.is_empty() {
            return self.answer(answer, now);
        }
        self.broker.metrics().publishers_held.inc();
        let deadline = now.instant + self.settings.publish_wait;
        self.brake = Some(Box::new(Brake { deadline, slow, answer, backlog: VecDeque::new() }));
    }

    pub(super) fn try_release_brake(&mut self, now: Now) {
        let Some(brake) = &mut self.brake else { return };
        brake.slow.retain(|slow| slow.wait_for_room(&self.outbox));
        if brake.slow.is_empty() {
            self.release_brake(now);
        }
    }

    /// The session ends. What the client said before is done without waiting: its goodbye may be among it
    /// [MQTT-3.14.4-3].
    pub(super) fn give_up_brake(&mut self, now: Now) {
        let Some(brake) = self.brake.take() else { return };
        self.answer(brake.answer, now);
        for (token, request) in brake.backlog {
            self.carry_to_broker(token, request, false, now);
        }
    }

    pub(super) fn release_brake(&mut self, now: Now) {
        let Some(brake) = self.brake.take() else { return };
        let Brake { answer, mut backlog, .. } = *brake;
        self.answer(answer, now);
        while let Some((token, request)) = backlog.pop_front() {
            self.request(token, request, now);
            if let Some(brake) = &mut self.brake {
                brake.backlog.append(&mut backlog);
            }
        }
        self.drain(&mut Lane::Control, now);
        self.flush(now);
    }
}

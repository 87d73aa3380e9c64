//! Who a client is, and which session it takes up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tidegate_protocol::session::{Authenticate, Connect, Connected, Credentials, Refusal, Reply};

use super::{Batch, Broker, Now};
use crate::auth::Peer;
use crate::auth::scram::Exchange;
use crate::client::{Authenticated, Client, Standing};
use crate::mailbox::Mailbox;
use crate::registry::{Arrival, Entered, Registry};

impl Broker {
    pub(super) fn connect(
        &self,
        client: &mut Client,
        peer: &Peer,
        mut connect: Connect,
        now: Now,
        batch: &mut Batch,
    ) -> Reply {
        self.metrics.connects.inc();
        if let Some(Credentials::Exchange { method, data }) = &connect.credentials {
            return match self.authenticator.begin(method, data) {
                Ok(step) => {
                    client.standing = Standing::Asked(Box::new((step.exchange, connect)));
                    Reply::Challenge(step.challenge)
                }
                Err(refusal) => Reply::Refused(refusal),
            };
        }
        // [MQTT-3.1.4-2]
        if let Err(refusal) = self.authenticator.admit(connect.credentials.as_ref(), peer) {
            return Reply::Refused(refusal);
        }
        connect.credentials = None;
        match self.enter(client, connect, None, now, batch) {
            Ok(connected) => Reply::Connected(Box::new(connected)),
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    /// The client's next word in an exchange, or the first of another one (MQTT 5 §4.12.1).
    pub(super) fn authenticate(
        &self,
        client: &mut Client,
        word: Authenticate,
        now: Now,
        batch: &mut Batch,
    ) -> Reply {
        let result = match (std::mem::replace(&mut client.standing, Standing::Unknown), word.method) {
            (Standing::Asked(asked), None) => {
                let (exchange, connect) = *asked;
                self.complete(client, exchange, connect, &word.data, now, batch)
            }
            (Standing::Authenticated(mut known), Some(method)) => {
                // [MQTT-4.12.1-1]
                let is_same = Some(()).filter(|()| method == known.method).ok_or(Refusal::BadMethod);
                let begun =
                    is_same.and_then(|()| self.authenticator.begin(&method, &word.data)).map(|step| {
                        known.exchange = Some(step.exchange);
                        Reply::Challenge(step.challenge)
                    });
                client.standing = Standing::Authenticated(known);
                begun
            }
            (Standing::Authenticated(mut known), None) => {
                let finished = known.exchange.take().ok_or(Refusal::NotAuthorized).and_then(|exchange| {
                    let (user, data) = exchange.finish(&word.data)?;
                    // A session belongs to its user (SEC-19).
                    if user == known.user {
                        Ok(Reply::Authenticated(data))
                    } else {
                        Err(Refusal::NotAuthorized)
                    }
                });
                client.standing = Standing::Authenticated(known);
                finished
            }
            (standing, _) => {
                client.standing = standing;
                Err(Refusal::NotAuthorized)
            }
        };
        result.unwrap_or_else(Reply::Refused)
    }

    fn complete(
        &self,
        client: &mut Client,
        exchange: Exchange,
        mut connect: Connect,
        data: &[u8],
        now: Now,
        batch: &mut Batch,
    ) -> Result<Reply, Refusal> {
        let (user, authentication_data) = exchange.finish(data)?;
        let Some(Credentials::Exchange { method, .. }) = connect.credentials.take() else {
            return Err(Refusal::Internal);
        };
        let authenticated = Authenticated { method, user, exchange: None };
        let mut connected = self.enter(client, connect, Some(authenticated), now, batch)?;
        connected.authentication_data = authentication_data;
        Ok(Reply::Connected(Box::new(connected)))
    }

    fn enter(
        &self,
        client: &mut Client,
        connect: Connect,
        authenticated: Option<Authenticated>,
        now: Now,
        batch: &mut Batch,
    ) -> Result<Connected, Refusal> {
        if self.shared.is_full() {
            return Err(Refusal::Overloaded("the memory for queued messages is used up"));
        }
        if let Some(will) = connect.will.as_deref() {
            self.check_will(will)?;
        }
        // [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]
        let is_assigned = connect.client_id.is_none();
        let id = connect.client_id.map_or_else(|| self.registry.assign(), Arc::from);
        let asked = connect.session_expiry.unwrap_or(self.rules.session_expiry_default);
        let session_expiry = asked.min(self.rules.session_expiry_max);
        client.outbox.set_client(connect.packet_bytes_max, connect.lag);
        let mut entered = Entered::default();
        // Only names that clients choose can be chosen twice; only sessions that wait have to be found.
        let is_told = self.topic_rules.allows_client_state();
        if !is_assigned || !session_expiry.is_zero() || is_told {
            let user = authenticated.as_ref().map(|authenticated| &*authenticated.user);
            let name = Registry::name(user, &id);
            // Before anything is changed: a session that cannot be stored does not begin.
            if let Some(durability) = &self.durability
                && !session_expiry.is_zero()
                && (connect.clean_start || !self.registry.has_session(&name))
            {
                durability.admit()?;
            }
            let arrival = Arrival { clean_start: connect.clean_start, session_expiry, forms: connect.forms };
            entered = self.registry.enter(&name, &client.outbox, arrival, now.instant, || {
                let key = self.next_mailbox.fetch_add(1, Ordering::Relaxed);
                let durability = self.durability.clone();
                Mailbox::new(
                    key,
                    Arc::clone(&name),
                    self.rules.overflow_offline,
                    Arc::clone(&self.shared),
                    durability,
                )
            })?;
            client.name = Some(name);
        }
        client.mailbox = entered.mailbox;
        if let (Some(deadline), Some(mailbox)) = (entered.attached.deadline, &client.mailbox) {
            self.deadlines.cancel(deadline, mailbox);
            self.metrics.sessions_away.sub(1);
        }
        if let Some(ended) = &entered.ended {
            self.clear(ended, now, batch);
        }
        if let Some(will) = entered.will {
            self.publish_will(*will, client.key(), now, batch);
        }
        let (ended, will) = (entered.ended.as_ref(), connect.will.as_deref());
        let remembered = self.remember_connected(client, entered.is_present, ended, will, batch);
        if let Err(refusal) = remembered
            && !entered.is_present
        {
            client.set_session_expiry(Duration::ZERO);
            return Err(refusal);
        }
        self.remember_received(client, batch)?;
        if entered.is_present {
            self.rejoin_queues(client, now);
        }
        // [MQTT-3.1.2-7]
        client.will = connect.will;
        client.subscriptions_max = u32::try_from(connect.subscriptions_max).unwrap_or(u32::MAX);
        client.standing = match authenticated {
            Some(authenticated) => Standing::Authenticated(Box::new(authenticated)),
            None => Standing::Connected,
        };
        self.metrics.clients.add(1);
        self.publish_client_state(&id, true, now, batch);
        Ok(Connected {
            client_id: id,
            temporary: self.temporaries.of(client),
            is_assigned,
            session_present: entered.is_present,
            session_expiry,
            in_flight: entered.attached.in_flight,
            received: entered.attached.received,
            authentication_data: Bytes::new(),
        })
    }
}

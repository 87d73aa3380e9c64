//! Who is connected under which client id, and which sessions wait for their clients. A newer connection takes the
//! id over, and the session with it.
//!
//! Lock order: a shard of the registry, then a mailbox, then a queue. Nothing here publishes or routes.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use dashmap::DashMap;
use tidegate_protocol::session::{CloseKind, CloseReason, Forms, Refusal, Will};

use crate::mailbox::{Attached, Mailbox};
use crate::outbox::Outbox;

/// Clients and sessions by name.
#[derive(Debug)]
pub struct Registry {
    known: DashMap<Arc<str>, Known, RandomState>,
    /// `mqtt.max_sessions`.
    sessions_max: usize,
    sessions: AtomicUsize,
    assigned: AtomicU64,
    start: u64,
}

#[derive(Debug, Default)]
struct Known {
    outbox: Option<Arc<Outbox>>,
    mailbox: Option<Arc<Mailbox>>,
}

/// How a client wants to come in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Without the state of an earlier session.
    pub clean_start: bool,
    /// How long its session is kept after the connection.
    pub session_expiry: Duration,
    /// The wire forms of its version.
    pub forms: Option<&'static Forms>,
}

/// How it came in.
#[derive(Debug, Default)]
pub struct Entered {
    /// Its session, if that is to outlive the connection or did outlive an earlier one.
    pub mailbox: Option<Arc<Mailbox>>,
    /// An earlier session goes on.
    pub is_present: bool,
    /// What it finds there.
    pub attached: Attached,
    /// Its delay was over before the client came back, and nobody has published it yet [MQTT-3.1.3-9].
    pub will: Option<Box<Will>>,
    /// A session that had to end for it; nobody can take it up any more. To be cleared.
    pub ended: Option<Arc<Mailbox>>,
}

impl Registry {
    /// Nobody.
    pub fn new(sessions_max: usize) -> Self {
        Self {
            known: DashMap::default(),
            sessions_max,
            sessions: AtomicUsize::new(0),
            assigned: AtomicU64::new(0),
            // Ids of an earlier run must not be given again to other clients.
            start: RandomState::new().hash_one("start"),
        }
    }

    /// The name of a client: a session belongs to a user and a client id (SEC-19), and no client id contains U+0000.
    /// [MQTT-3.1.3-2]
    pub fn name(user: Option<&str>, id: &Arc<str>) -> Arc<str> {
        user.map_or_else(|| Arc::clone(id), |user| format!("{user}\0{id}").into())
    }

    /// The client id in a name.
    pub fn id(name: &str) -> &str {
        name.split_once('\0').map_or(name, |(_, id)| id)
    }

    /// Enters a client; one that is connected under this name is told to go [MQTT-3.1.4-3].
    ///
    /// # Errors
    ///
    /// [`Refusal::Quota`] when it needs a new session and there are too many.
    pub fn enter(
        &self,
        name: &Arc<str>,
        outbox: &Arc<Outbox>,
        arrival: Arrival,
        now: Instant,
        new_mailbox: impl FnOnce() -> Arc<Mailbox>,
    ) -> Result<Entered, Refusal> {
        let mut known = self.known.entry(Arc::clone(name)).or_default();
        // [MQTT-3.1.4-4]
        let is_over = |mailbox: &Arc<Mailbox>| arrival.clean_start || mailbox.is_expired(now);
        let ended = known.mailbox.take_if(|mailbox| is_over(mailbox));
        if let Some(ended) = &ended {
            ended.end(); // [MQTT-3.1.2-4]
        }
        // [MQTT-3.1.2-5]; else a new one begins [MQTT-3.1.2-6].
        let is_present = known.mailbox.is_some();
        let will = known.mailbox.as_ref().and_then(|mailbox| mailbox.take_due(now).will);
        let is_new = !is_present && !arrival.session_expiry.is_zero();
        match (&ended, is_new) {
            (None, true) => {
                if let Err(refusal) = self.count_session() {
                    drop(known);
                    self.forget_if_empty(name);
                    return Err(refusal);
                }
            }
            (Some(_), false) => {
                self.sessions.fetch_sub(1, Ordering::Relaxed);
            }
            // One takes the other's place.
            (Some(_), true) | (None, false) => {}
        }
        if is_new {
            known.mailbox = Some(new_mailbox());
        }
        if let Some(old) = known.outbox.replace(Arc::clone(outbox)) {
            old.order_close(CloseReason::new(CloseKind::Replaced, "the same client id connected again"));
        }
        let mailbox = known.mailbox.clone();
        let attached = mailbox
            .as_ref()
            .map(|mailbox| mailbox.attach(outbox, arrival.session_expiry, arrival.forms, now));
        Ok(Entered { mailbox, is_present, attached: attached.unwrap_or_default(), will, ended })
    }

    /// Enters a session that waited before a restart, whatever the limit: it was counted when it began. Gives an older
    /// one of the same name, which has ended with this.
    pub fn restore(&self, mailbox: &Arc<Mailbox>) -> Option<Arc<Mailbox>> {
        let mut known = self.known.entry(Arc::clone(mailbox.name())).or_default();
        let older = known.mailbox.replace(Arc::clone(mailbox));
        match &older {
            Some(older) => older.end(),
            None => _ = self.sessions.fetch_add(1, Ordering::Relaxed),
        }
        older
    }

    /// Whether there is a session under this name.
    pub fn has_session(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|known| known.mailbox.is_some())
    }

    /// Removes a client, unless another connection has its name already (`false`). A session that waits stays.
    pub fn leave(&self, name: &str, outbox: &Arc<Outbox>) -> bool {
        let mut has_left = false;
        self.known.remove_if_mut(name, |_, known| {
            has_left = known.outbox.take_if(|known| Arc::ptr_eq(known, outbox)).is_some();
            known.outbox.is_none() && known.mailbox.is_none()
        });
        has_left
    }

    /// Whether a connection has this name.
    pub fn is_online(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|known| known.outbox.is_some())
    }

    /// Ends a session that nobody speaks for and whose time is over. `false`: somebody has taken it up.
    pub fn expire(&self, mailbox: &Arc<Mailbox>, now: Instant) -> bool {
        let mut has_expired = false;
        self.known.remove_if_mut(&**mailbox.name(), |_, known| {
            if known.mailbox.as_ref().is_some_and(|known| Arc::ptr_eq(known, mailbox)) {
                has_expired = mailbox.expire(now);
                known.mailbox.take_if(|_| has_expired);
            }
            known.outbox.is_none() && known.mailbox.is_none()
        });
        if has_expired {
            self.sessions.fetch_sub(1, Ordering::Relaxed);
        }
        has_expired
    }

    /// Sessions, with or without a connection.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// An id that nobody has.
    pub fn assign(&self) -> Arc<str> {
        let mut id = String::with_capacity(24);
        let number = self.assigned.fetch_add(1, Ordering::Relaxed);
        // Writing to a string cannot fail.
        let _ = write!(id, "tg-{:08x}-{number:x}", self.start & 0xffff_ffff);
        id.into()
    }

    fn forget_if_empty(&self, name: &str) {
        self.known.remove_if(name, |_, known| known.outbox.is_none() && known.mailbox.is_none());
    }

    fn count_session(&self) -> Result<(), Refusal> {
        let limit = self.sessions_max;
        let counted = self
            .sessions
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < limit).then_some(count + 1));
        counted.map(drop).map_err(|_| Refusal::Quota { name: "mqtt.max_sessions", limit })
    }
}

//! What the broker knows of one connection: who it is, and where its holdings are. Owned by the connection's task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Connect, Tag, Wants, Will};

use crate::auth::scram::Exchange;
use crate::holdings::Holdings;
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::subscription::{Entry, Target};

/// One connection's client.
#[derive(Debug)]
pub struct Client {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) standing: Standing,
    /// Its name in the registry, if it has to be found there.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) will: Option<Box<Will>>,
    /// Its session, if that may outlive the connection: then what it holds is there, and not here.
    pub(crate) mailbox: Option<Arc<Mailbox>>,
    pub(crate) holdings: Holdings,
    pub(crate) subscriptions_max: u32,
    /// Another connection has its session: nothing more is sent.
    pub(crate) is_replaced: bool,
    /// It belongs to a group: what it has not acknowledged goes to others at its end.
    pub(crate) shares: bool,
}

/// How far it has come.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It has not said who it is.
    Unknown,
    /// An exchange is under way, and what it wants to connect with.
    Asked(Box<(Exchange, Connect)>),
    Connected,
    /// It connected with a method of authentication, and may begin another exchange with the same.
    Authenticated(Box<Authenticated>),
}

/// Who it has proved to be.
#[derive(Debug)]
pub(crate) struct Authenticated {
    pub(crate) method: Box<str>,
    pub(crate) user: Box<str>,
    pub(crate) exchange: Option<Exchange>,
}

impl Client {
    /// A connection that has not said who it is.
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            standing: Standing::Unknown,
            name: None,
            will: None,
            mailbox: None,
            holdings: Holdings::default(),
            subscriptions_max: 0,
            is_replaced: false,
            shares: false,
        }
    }

    /// Its outbox.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The name that it is registered under, if it is.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// Whether another connection has been seen to have its session.
    pub fn is_replaced(&self) -> bool {
        self.is_replaced
    }

    /// Whether the broker has to know what became of a delivery: another connection or another client may get it.
    pub(crate) fn keeps_deliveries(&self) -> bool {
        self.mailbox.is_some() || self.shares
    }

    /// Whether it is let in.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.standing, Standing::Connected | Standing::Authenticated(_))
    }

    /// The client as the tables know it.
    pub(crate) fn key(&self) -> u64 {
        self.mailbox.as_ref().map_or_else(|| self.outbox.client(), |mailbox| mailbox.key())
    }

    /// Where its deliveries go.
    pub(crate) fn target(&self) -> Target {
        match &self.mailbox {
            Some(mailbox) => Target::Mailbox(Arc::clone(mailbox)),
            None => Target::Outbox(Arc::clone(&self.outbox)),
        }
    }

    /// Its holdings. `None`: another connection has its session.
    pub(crate) fn with<T>(&mut self, change: impl FnOnce(&mut Holdings) -> T) -> Option<T> {
        match &self.mailbox {
            Some(mailbox) => mailbox.with(&self.outbox, change),
            None => Some(change(&mut self.holdings)),
        }
    }

    /// Whether retained or stored messages wait for room in the outbox.
    pub fn awaits_more(&mut self) -> bool {
        match &self.mailbox {
            // A retained value must not overtake an older one that waits.
            Some(mailbox) if mailbox.has_backlog() => mailbox.is_feedable(),
            _ => self.awaits_retained(),
        }
    }

    /// Whether messages wait on the disk.
    pub fn awaits_pages(&self) -> bool {
        self.mailbox.as_ref().is_some_and(|mailbox| mailbox.has_backlog())
    }

    /// Whether retained messages wait to be pulled.
    pub(crate) fn awaits_retained(&mut self) -> bool {
        let awaits = |holdings: &mut Holdings| {
            holdings.unfinished().is_some_and(|unfinished| !unfinished.cursors.is_empty())
        };
        self.with(awaits).unwrap_or(false)
    }

    /// Takes deliveries that need the session out of the outbox, and gives the name of the first; the others follow.
    /// `None`: another connection has the session, and nothing is taken.
    pub fn take_for_session(
        &mut self,
        into: &mut Vec<Entry>,
        count: usize,
        wants: Wants,
        now: Instant,
    ) -> Option<Tag> {
        if let Some(mailbox) = &self.mailbox {
            return mailbox.take_for_session(&self.outbox, into, count, wants, now);
        }
        self.outbox.take_for_session(into, count, wants, now);
        let first = self.holdings.next_tags(into.len());
        if self.shares {
            self.outbox.note_unsettled(into);
            let is_shared = |entry: &Entry| {
                let is_shared = entry.subscription.group().is_some() || entry.is_lent();
                entry.qos > QoS::AtMostOnce && is_shared
            };
            self.holdings.hand_over(first, into.iter(), is_shared);
        }
        Some(first)
    }

    /// The granted expiry is changed at the goodbye.
    pub(crate) fn set_session_expiry(&mut self, expiry: Duration) {
        if let Some(mailbox) = &self.mailbox {
            mailbox.set_expiry(&self.outbox, expiry);
        }
    }
}

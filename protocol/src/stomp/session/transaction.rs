//! What a client has put into transactions that are open: kept in order, within limits, until COMMIT or ABORT.
//! Spec: STOMP 1.2 "BEGIN", "COMMIT", "ABORT"; SEC-13.

use super::super::Settings;
use super::error::{SessionError, shown};
use super::subscriptions::Taken;
use crate::publication::Publication;

/// The open transactions of one client. Memory: the bodies of all of them together are within `max_message_size`, and
/// so is what else was said with them; beside that an action costs about as much as an empty publication.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// In the order of their BEGIN. There are few.
    open: Vec<Transaction>,
}

#[derive(Debug)]
struct Transaction {
    name: Box<str>,
    actions: Vec<Action>,
    size: Size,
}

/// One frame of a transaction.
#[derive(Debug)]
pub(super) enum Action {
    /// SEND.
    Publish(Box<Publication>),
    /// ACK or NACK: what it covers was taken when it came, so that nothing else covers it meanwhile.
    Acknowledge(Vec<Taken>),
}

/// What publications take.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    body_bytes: usize,
    head_bytes: usize,
}

impl Transactions {
    /// BEGIN.
    pub(super) fn begin(&mut self, name: &str, settings: &Settings) -> Result<(), SessionError> {
        if self.position(name).is_ok() {
            return Err(SessionError::TransactionIsOpen { name: shown(name) });
        }
        if self.open.len() >= settings.max_transactions {
            return Err(SessionError::TooManyTransactions { limit: settings.max_transactions });
        }
        self.open.push(Transaction { name: name.into(), actions: Vec::new(), size: Size::default() });
        Ok(())
    }

    /// SEND, ACK or NACK with a `transaction`.
    pub(super) fn add(
        &mut self,
        name: &str,
        action: Action,
        settings: &Settings,
    ) -> Result<(), SessionError> {
        let position = self.position(name)?;
        let limit = settings.max_message_size;
        let size = action.size();
        let sum = self.open.iter().fold(size, |sum, transaction| sum.plus(transaction.size));
        if sum.body_bytes > limit {
            return Err(SessionError::TransactionsTooLarge { what: "bodies", limit });
        }
        if sum.head_bytes > limit {
            return Err(SessionError::TransactionsTooLarge { what: "headers", limit });
        }
        let Some(transaction) = self.open.get_mut(position) else { return Ok(()) };
        if transaction.actions.len() >= settings.max_transaction_actions {
            let limit = settings.max_transaction_actions;
            return Err(SessionError::TooManyActions { name: shown(name), limit });
        }
        transaction.size = transaction.size.plus(size);
        transaction.actions.push(action);
        Ok(())
    }

    /// COMMIT or ABORT: its actions, in the order of their frames.
    pub(super) fn end(&mut self, name: &str) -> Result<Vec<Action>, SessionError> {
        let position = self.position(name)?;
        Ok(self.open.remove(position).actions)
    }

    fn position(&self, name: &str) -> Result<usize, SessionError> {
        let position = self.open.iter().position(|transaction| *transaction.name == *name);
        position.ok_or_else(|| SessionError::NoSuchTransaction { name: shown(name) })
    }
}

impl Action {
    fn size(&self) -> Size {
        match self {
            Self::Publish(publication) => {
                let body_bytes = publication.payload.len();
                Size { body_bytes, head_bytes: publication.size_bytes().saturating_sub(body_bytes) }
            }
            // Bounded by the window of the session.
            Self::Acknowledge(_) => Size::default(),
        }
    }
}

impl Size {
    const fn plus(self, other: Self) -> Self {
        Self {
            body_bytes: self.body_bytes.saturating_add(other.body_bytes),
            head_bytes: self.head_bytes.saturating_add(other.head_bytes),
        }
    }
}

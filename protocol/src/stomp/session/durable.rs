//! Durable subscriptions in both dialects, and the name that each is kept under (WIRE §8). Knows no other
//! subscription.
//!
//! RabbitMQ says `durable:true` and `auto-delete:false` with the `id`; ActiveMQ and Artemis name the subscription,
//! within the `client-id` of CONNECT.

use super::super::frame::Frame;
use super::error::SessionError;
use super::publish::flag;
use crate::topic::TopicFilter;

/// How a SUBSCRIBE or UNSUBSCRIBE asks for durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect<'a> {
    /// `durable:true`: it goes by its id and filter.
    ById,
    /// By this name.
    ByName(&'a str),
}

impl<'a> Dialect<'a> {
    /// `None`: the frame asks for none.
    pub(super) fn of(frame: &'a Frame) -> Result<Option<Self>, SessionError> {
        if let Some(name) = named(frame)? {
            return Ok(Some(Self::ByName(name)));
        }
        // RabbitMQ took `persistent` for the same before there was `durable`.
        if !flag(frame, "durable")? && !flag(frame, "persistent")? {
            return Ok(None);
        }
        if frame.header("auto-delete") != Some("false") {
            let why = "it is false for a durable subscription";
            return Err(SessionError::BadHeader { name: "auto-delete", why });
        }
        Ok(Some(Self::ById))
    }

    /// The name to keep it under. No two pairs have the same, of either dialect: the first part is counted.
    pub(super) fn name(
        self,
        client_id: Option<&str>,
        id: Option<&str>,
        filter: impl FnOnce() -> Result<TopicFilter, SessionError>,
    ) -> Result<Box<str>, SessionError> {
        match self {
            Self::ById => {
                let id = id.ok_or(SessionError::MissingHeader("id"))?;
                Ok(format!("id:{}:{id}:{}", id.len(), filter()?).into())
            }
            Self::ByName(name) => {
                let client_id = client_id.ok_or(SessionError::NoClientId)?;
                Ok(format!("client:{}:{client_id}:{name}", client_id.len()).into())
            }
        }
    }
}

/// What RabbitMQ's clients say of a queue: it may be durable, as every queue here is, and cannot end with its last
/// consumer.
pub(super) fn check_queue(frame: &Frame) -> Result<(), SessionError> {
    flag(frame, "durable")?;
    if flag(frame, "auto-delete")? {
        return Err(SessionError::BadHeader { name: "auto-delete", why: "a queue outlives its consumers" });
    }
    if named(frame)?.is_some() {
        let why = "only a /topic/ has durable subscriptions";
        return Err(SessionError::BadHeader { name: "destination", why });
    }
    Ok(())
}

fn named(frame: &Frame) -> Result<Option<&str>, SessionError> {
    for header in NAME_HEADERS {
        match frame.header(header) {
            Some("") => {
                let why = "a name has at least one character";
                return Err(SessionError::BadHeader { name: header, why });
            }
            Some(name) => return Ok(Some(name)),
            None => {}
        }
    }
    Ok(None)
}

/// Artemis, its older spelling, and ActiveMQ.
const NAME_HEADERS: [&str; 3] =
    ["durable-subscription-name", "durable-subscriber-name", "activemq.subscriptionName"];

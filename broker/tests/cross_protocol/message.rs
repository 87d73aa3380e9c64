//! A message as any of the protocols says it, and the one thing of it that a row of the table is about.

use std::time::Duration;

use bytes::Bytes;

/// What a publisher says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) payload: Bytes,
    /// The payload is text, and this is said of it.
    pub(crate) is_text: bool,
    pub(crate) content_type: Option<String>,
    pub(crate) user: Vec<(String, String)>,
    pub(crate) reply: Option<String>,
    pub(crate) correlation: Option<Bytes>,
    pub(crate) expiry: Option<Expiry>,
    pub(crate) retain: bool,
}

/// When it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expiry {
    /// After this time.
    In(Duration),
    /// At this distance from now, as a time of day.
    AtNowPlus(Duration),
    /// Long ago, as a time of day.
    Past,
}

/// What a subscriber gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) message: Message,
    /// How its protocol carries the payload, where it has more than one way.
    pub(crate) form: Option<&'static str>,
    pub(crate) subscription: Option<String>,
    pub(crate) message_id: Option<String>,
}

/// The one thing of a message that a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aspect {
    Payload,
    /// How the payload is carried.
    Form,
    ContentType,
    Expiry,
    Reply,
    Correlation,
    User,
    /// Shown to who subscribes later.
    Retained,
    /// Which subscription it is for.
    Subscription,
    MessageId,
}

/// The lifetime of what expires in the table.
pub(crate) const LIFETIME: Duration = Duration::from_secs(100);

impl Aspect {
    /// As text; `None`: nothing is said of it.
    pub(crate) fn of(self, got: &Got) -> Option<String> {
        let message = &got.message;
        match self {
            Self::Payload => Some(shown(&message.payload)),
            Self::Form => got.form.map(Into::into),
            Self::ContentType => message.content_type.clone(),
            Self::Expiry => message.expiry.map(Expiry::shown),
            Self::Reply => message.reply.clone(),
            Self::Correlation => message.correlation.as_ref().map(|data| shown(data)),
            Self::User => (!message.user.is_empty()).then(|| {
                let pair = |(name, value): &(String, String)| {
                    format!("{}={}", shown(name.as_bytes()), shown(value.as_bytes()))
                };
                message.user.iter().map(pair).collect::<Vec<_>>().join(" ")
            }),
            Self::Retained => message.retain.then(|| "marked".into()),
            Self::Subscription => got.subscription.clone(),
            Self::MessageId => got.message_id.clone(),
        }
    }
}

impl Expiry {
    /// What is left, within the patience of a test.
    fn shown(self) -> String {
        match self {
            Self::In(left) | Self::AtNowPlus(left) if left > LIFETIME / 2 && left <= LIFETIME => {
                format!("{} s", LIFETIME.as_secs())
            }
            Self::In(left) | Self::AtNowPlus(left) => format!("{} s", left.as_secs_f64()),
            Self::Past => "long ago".into(),
        }
    }
}

/// Text as it is, with escapes for what cannot be seen; other bytes in hexadecimal.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => {
            text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
        }
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    }
}

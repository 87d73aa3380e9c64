//! What survives between protocols, as data (WIRE §7): who says what, and what of it each subscriber gets.
//!
//! `main.rs` holds the broker to every cell over real sockets, and the README shows this table.

use std::time::Duration;

use bytes::Bytes;

use crate::message::{Aspect, Expiry, LIFETIME, Message};
use crate::support::client::Protocol::{
    self, Json, MessagePack, Mqtt5, Mqtt31, Mqtt311, Payload, Stomp10, Stomp11, Stomp12,
};

/// One thing that a publisher can say.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    /// Who can say it.
    pub(crate) from: &'static [Protocol],
    pub(crate) says: fn() -> Message,
    pub(crate) aspect: Aspect,
    pub(crate) to: To,
    /// Of a topic that has a retained message, which this one takes away.
    pub(crate) deletes: bool,
}

/// What a subscriber gets of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it was said.
    Kept,
    /// This instead: it is what the protocol has for it.
    Becomes(&'static str),
    /// The protocol has no word for it; the message comes without.
    Dropped,
    /// The message does not come.
    Withheld,
}

use Outcome::{Becomes, Dropped, Kept, Withheld};

/// For each subscriber.
#[derive(Clone, Copy)]
pub(crate) struct To {
    pub(crate) mqtt5: Outcome,
    pub(crate) stomp12: Outcome,
    pub(crate) json: Outcome,
    pub(crate) message_pack: Outcome,
    /// 3.1 and 3.1.1.
    pub(crate) mqtt3: Outcome,
    pub(crate) stomp11: Outcome,
    pub(crate) stomp10: Outcome,
    pub(crate) payload: Outcome,
}

impl To {
    pub(crate) const fn of(&self, protocol: Protocol) -> Outcome {
        match protocol {
            Payload => self.payload,
            Json => self.json,
            MessagePack => self.message_pack,
            Mqtt31 | Mqtt311 => self.mqtt3,
            Mqtt5 => self.mqtt5,
            Stomp10 => self.stomp10,
            Stomp11 => self.stomp11,
            Stomp12 => self.stomp12,
        }
    }

    const fn stomp(outcome: Outcome) -> Self {
        Self { stomp12: outcome, stomp11: outcome, stomp10: outcome, ..PROPERTY }
    }

    const fn all(outcome: Outcome) -> Self {
        Self {
            mqtt3: outcome,
            payload: outcome,
            mqtt5: outcome,
            json: outcome,
            message_pack: outcome,
            ..Self::stomp(outcome)
        }
    }

    /// How a payload is carried.
    const fn form(
        mqtt5: &'static str,
        stomp: &'static str,
        raw: [&'static str; 2],
        payload: &'static str,
    ) -> Self {
        let [json, message_pack] = raw;
        Self {
            mqtt5: Becomes(mqtt5),
            json: Becomes(json),
            message_pack: Becomes(message_pack),
            payload: Becomes(payload),
            ..Self::stomp(Becomes(stomp))
        }
    }
}

/// What all but MQTT 3 and payload mode have a word for.
const PROPERTY: To = To {
    mqtt5: Kept,
    stomp12: Kept,
    json: Kept,
    message_pack: Kept,
    mqtt3: Dropped,
    stomp11: Kept,
    stomp10: Kept,
    payload: Dropped,
};

/// What is said of the subscription.
const NOTHING: To = To { mqtt5: Dropped, json: Dropped, message_pack: Dropped, ..To::stomp(Dropped) };

const ANY: &[Protocol] = &[Mqtt5, Stomp12, Json, MessagePack, Mqtt31, Mqtt311, Stomp11, Stomp10, Payload];
const WITH_RETAIN: &[Protocol] = &[Mqtt5, Stomp12, Json, MessagePack, Mqtt31, Mqtt311, Stomp11, Stomp10];
const WITH_PROPERTIES: &[Protocol] = &[Mqtt5, Stomp12, Json, MessagePack, Stomp11, Stomp10];
/// Those that can say any character in the name and value of a property.
const WITH_ANY_CHARACTER: &[Protocol] = &[Mqtt5, Stomp12, Json, MessagePack, Stomp11];
const STOMP: &[Protocol] = &[Stomp12, Stomp11, Stomp10];
const IN_ORDER: &[Protocol] = &[Mqtt5, Stomp12, Stomp11, Stomp10];
const RAW: &[Protocol] = &[Json, MessagePack];

/// Every row.
pub(crate) fn rows() -> Vec<Row> {
    [payloads(), content_types(), requests(), user_properties(), the_rest()].into_iter().flatten().collect()
}

fn row(what: &'static str, from: &'static [Protocol], says: fn() -> Message, aspect: Aspect, to: To) -> Row {
    Row { what, from, says, aspect, to, deletes: false }
}

fn text(payload: &'static str) -> Message {
    Message { payload: Bytes::from_static(payload.as_bytes()), is_text: true, ..Message::default() }
}

fn bytes(payload: &'static [u8]) -> Message {
    Message { payload: Bytes::from_static(payload), ..Message::default() }
}

fn typed(message: Message, content_type: &str) -> Message {
    Message { content_type: Some(content_type.into()), ..message }
}

fn user(pairs: &[(&str, &str)]) -> Message {
    let user = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Message { user: user.collect(), ..bytes(b"x") }
}

fn payloads() -> Vec<Row> {
    let is = Aspect::Form;
    const TEXT_FRAME: &str = "text frame";
    const BINARY_FRAME: &str = "binary frame";
    vec![
        row("Payload", ANY, || bytes(&[0, 0xff, 0xfe]), Aspect::Payload, To::all(Kept)),
        row("Empty payload", ANY, || bytes(b""), Aspect::Payload, To::all(Kept)),
        row(
            "Text, said to be text: carried as",
            ANY_THAT_SAY_TEXT,
            || text("text"),
            is,
            To::form("indicator 1", TEXT_FRAME, ["text", "text"], TEXT_FRAME),
        ),
        row(
            "Text, nothing said: carried as",
            ANY,
            || bytes("ü".as_bytes()),
            is,
            To::form("no indicator", TEXT_FRAME, ["text", "text"], BINARY_FRAME),
        ),
        row(
            "JSON, said to be text: carried as",
            ANY_THAT_SAY_TEXT,
            || text("{\"a\":[1,2.5]}"),
            is,
            To::form("indicator 1", TEXT_FRAME, ["data", "text"], TEXT_FRAME),
        ),
        row(
            "JSON, nothing said: carried as",
            ANY,
            || bytes(b"{\"a\":[1,2.50]}"),
            is,
            To::form("no indicator", TEXT_FRAME, ["data", "text"], BINARY_FRAME),
        ),
        row(
            "No UTF-8: carried as",
            ANY,
            || bytes(&[0xff, 0xfe]),
            is,
            To::form("no indicator", BINARY_FRAME, ["b64", "bin"], BINARY_FRAME),
        ),
        row(
            "JSON of type `text/plain`: carried as",
            RAW_AND_STOMP,
            || typed(bytes(b"21.5"), "text/plain"),
            is,
            To::form("indicator 1", TEXT_FRAME, ["text", "text"], TEXT_FRAME),
        ),
        row(
            "… without an indicator",
            &[Mqtt5],
            || typed(bytes(b"21.5"), "text/plain"),
            is,
            To::form("no indicator", TEXT_FRAME, ["text", "text"], TEXT_FRAME),
        ),
        row(
            "Text in another charset: carried as",
            WITH_PROPERTIES,
            || typed(bytes(b"\xe9"), "text/plain;charset=iso-8859-1"),
            is,
            To::form("no indicator", BINARY_FRAME, ["b64", "bin"], BINARY_FRAME),
        ),
    ]
}

/// STOMP says it in a content type, which has rows of its own.
const ANY_THAT_SAY_TEXT: &[Protocol] = &[Mqtt5, Json, MessagePack, Payload];
const RAW_AND_STOMP: &[Protocol] = &[Stomp12, Json, MessagePack, Stomp11, Stomp10];

fn content_types() -> Vec<Row> {
    let is = Aspect::ContentType;
    vec![
        row("Content type", WITH_PROPERTIES, || typed(bytes(b"x"), "application/x-test"), is, PROPERTY),
        row("", WITH_PROPERTIES, || typed(bytes(b"\xe9"), "text/plain;charset=iso-8859-1"), is, PROPERTY),
        row("", WITH_PROPERTIES, || typed(bytes(b"x"), "text/x; a=\"b:c\""), is, PROPERTY),
        row(
            "No content type, but text",
            ANY_THAT_SAY_TEXT,
            || text("x"),
            is,
            To {
                mqtt5: Dropped,
                json: Dropped,
                message_pack: Dropped,
                ..To::stomp(Becomes("text/plain;charset=utf-8"))
            },
        ),
        row("No content type, and bytes", ANY, || bytes(b"x"), is, NOTHING),
    ]
}

fn requests() -> Vec<Row> {
    fn reply(topic: &str) -> Message {
        Message { reply: Some(topic.into()), ..bytes(b"x") }
    }
    fn correlation(data: &'static [u8]) -> Message {
        Message { correlation: Some(Bytes::from_static(data)), ..bytes(b"x") }
    }
    let is = Aspect::Correlation;
    vec![
        row("Reply topic", WITH_PROPERTIES, || reply("answers/1"), Aspect::Reply, PROPERTY),
        row("", WITH_PROPERTIES, || reply("/a//b:ü"), Aspect::Reply, PROPERTY),
        row("Correlation", WITH_PROPERTIES, || correlation(b"c-1"), is, PROPERTY),
        row("", WITH_PROPERTIES, || correlation("a:b\n\r\\ü ".as_bytes()), is, PROPERTY),
        row("", WITH_PROPERTIES, || correlation(&[0xff, 0, 1]), is, PROPERTY),
        row("Empty correlation", WITH_PROPERTIES, || correlation(b""), is, PROPERTY),
    ]
}

fn user_properties() -> Vec<Row> {
    let is = Aspect::User;
    vec![
        row(
            "User properties, in order",
            IN_ORDER,
            || user(&[("b", "2"), ("a", "1"), ("b", "1")]),
            is,
            To { json: Becomes("b=2 b=1 a=1"), message_pack: Becomes("b=2 b=1 a=1"), ..PROPERTY },
        ),
        row("", RAW, || user(&[("b", "2"), ("b", "1"), ("a", "1")]), is, PROPERTY),
        row(
            "Named as a header of STOMP",
            WITH_PROPERTIES,
            || user(&[("destination", "x")]),
            is,
            To::stomp(Becomes("x-user-destination=x")),
        ),
        row("Without a name", WITH_PROPERTIES, || user(&[("", "v")]), is, To::stomp(Becomes("x-user-=v"))),
        row("Without a value", WITH_PROPERTIES, || user(&[("k", "")]), is, PROPERTY),
        row(
            "Any characters",
            WITH_ANY_CHARACTER,
            || user(&[("a:b\n", "c:d\n\r\\ü€")]),
            is,
            To { stomp10: Becomes("a\u{fffd}b\u{fffd}=c:d\u{fffd}\u{fffd}\\\\ü€"), ..PROPERTY },
        ),
        row(
            "Blanks around a value",
            WITH_ANY_CHARACTER,
            || user(&[("k", " v ")]),
            is,
            // 1.0 leaves them open, and its clients trim.
            To { stomp10: Becomes("k=v"), ..PROPERTY },
        ),
    ]
}

fn the_rest() -> Vec<Row> {
    fn expiring(expiry: Expiry) -> Message {
        Message { expiry: Some(expiry), ..bytes(b"x") }
    }
    let plain = || bytes(b"x");
    let in_mqtt5_alone = To { mqtt5: Becomes("7"), ..NOTHING };
    vec![
        row("Expiry", WITH_PROPERTIES, || expiring(Expiry::In(LIFETIME)), Aspect::Expiry, PROPERTY),
        row(
            "Expiry as a time of day",
            STOMP,
            || expiring(Expiry::AtNowPlus(LIFETIME)),
            Aspect::Expiry,
            PROPERTY,
        ),
        row(
            "Expired",
            &[Mqtt5, Stomp12, Stomp11, Stomp10],
            || expiring(Expiry::In(Duration::ZERO)),
            Aspect::Expiry,
            To::all(Withheld),
        ),
        row("", STOMP, || expiring(Expiry::Past), Aspect::Expiry, To::all(Withheld)),
        row(
            "Retained, to who comes later",
            WITH_RETAIN,
            plain,
            Aspect::Retained,
            To { payload: Dropped, ..To::all(Becomes("marked")) },
        ),
        Row {
            deletes: true,
            ..row(
                "Retained and empty: what was there is",
                WITH_RETAIN,
                || bytes(b""),
                Aspect::Payload,
                To::all(Kept),
            )
        },
        row(
            "The subscription, called `7`",
            ANY,
            plain,
            Aspect::Subscription,
            To { stomp12: Becomes("7"), stomp11: Becomes("7"), stomp10: Becomes("7"), ..in_mqtt5_alone },
        ),
        row(
            "Message id",
            ANY,
            plain,
            Aspect::MessageId,
            To { mqtt5: Dropped, json: Dropped, message_pack: Dropped, ..To::stomp(Becomes("a counter")) },
        ),
    ]
}

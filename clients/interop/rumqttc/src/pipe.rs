//! The pipe to the cases, and what both versions keep of a client: who waits for which packet.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Anything that goes wrong is told to the case.
pub type Failure = Box<dyn std::error::Error>;

/// Says one line.
pub fn say(line: &Value) {
    println!("{line}");
}

/// Answers a request by its number.
pub fn answer(number: &Value, result: Result<Value, String>) {
    match result {
        Ok(value) => say(&json!({"answer": number, "value": value})),
        Err(error) => say(&json!({"answer": number, "error": error})),
    }
}

/// Bytes out of base64.
pub fn bytes(value: &Value) -> Result<Vec<u8>, Failure> {
    Ok(STANDARD.decode(value.as_str().ok_or("no payload")?)?)
}

/// Bytes as base64.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A number of the width it is wanted in; none when it is not there.
pub fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    value.as_u64().and_then(|number| T::try_from(number).ok())
}

/// A string; none when it is not there.
pub fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The host of a URL does not say it: rumqttc takes the whole URL as the host, and the port beside it.
pub fn port(url: &str) -> Result<u16, Failure> {
    let authority = url.split('/').nth(2).ok_or("no URL")?;
    Ok(authority.rsplit(':').next().ok_or("no port")?.parse()?)
}

/// Properties, without those that are not there.
#[derive(Default)]
pub struct Properties(Map<String, Value>);

impl Properties {
    /// Adds one that is there.
    pub fn add(mut self, name: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Adds one that is a list, when it is not empty.
    pub fn add_list<T: serde::Serialize>(self, name: &str, list: &[T]) -> Self {
        let value = (!list.is_empty()).then(|| json!(list));
        self.add(name, value)
    }

    /// Adds bytes.
    pub fn add_bytes(self, name: &str, value: Option<&[u8]>) -> Self {
        self.add(name, value.map(|value| json!({"base64": base64(value)})))
    }

    /// All of them.
    pub fn done(self) -> Value {
        Value::Object(self.0)
    }
}

/// Who waits for what. rumqttc tells the identifier of a packet when it sends it, in the order of the requests.
#[derive(Default)]
pub struct Waiting {
    /// The request to open; answered by CONNACK or an error.
    pub open: Option<Value>,
    /// The request to close; answered when the connection is over.
    pub close: Option<Value>,
    /// Publications not sent yet.
    pub publishes: VecDeque<Value>,
    /// Subscriptions not sent yet.
    pub subscribes: VecDeque<Value>,
    /// Sent packets by their identifier.
    pub sent: HashMap<u16, Value>,
}

impl Waiting {
    /// The connection is over; `why` where it was never open.
    pub fn over(&mut self, why: &str) {
        if let Some(number) = self.open.take() {
            answer(&number, Err(why.to_owned()));
        }
        if let Some(number) = self.close.take() {
            answer(&number, Ok(Value::Null));
        }
    }

    /// A publication has left; with QoS 0 that is all.
    pub fn published(&mut self, id: u16) {
        // After a reconnect it leaves again.
        if self.sent.contains_key(&id) {
            return;
        }
        let Some(number) = self.publishes.pop_front() else { return };
        if id == 0 {
            answer(&number, Ok(Value::Null));
        } else {
            self.sent.insert(id, number);
        }
    }

    /// A SUBSCRIBE has left.
    pub fn subscribed(&mut self, id: u16) {
        if let Some(number) = self.subscribes.pop_front() {
            self.sent.insert(id, number);
        }
    }

    /// The broker has confirmed it.
    pub fn confirmed(&mut self, id: u16, result: Result<Value, String>) {
        if let Some(number) = self.sent.remove(&id) {
            answer(&number, result);
        }
    }
}

/// Shared by a client's task and the commands.
pub type Shared<T> = Rc<RefCell<T>>;

/// A message has come.
pub fn heard(client: &str, topic: &[u8], payload: &[u8], info: &Value) {
    let topic = String::from_utf8_lossy(topic);
    say(
        &json!({"client": client, "event": "message", "topic": topic, "payload": base64(payload), "info": info}),
    );
}

/// The connection is over.
pub fn closed(client: &str, info: &Value) {
    say(&json!({"client": client, "event": "closed", "info": info}));
}

//! A client of the raw envelope, in JSON or MessagePack.

use std::collections::{BTreeMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Broker;
use super::socket::{Ask, End, Message, Socket};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    MessagePack,
}

pub struct Envelope {
    pub socket: Socket,
    encoding: Encoding,
    inbox: VecDeque<Said>,
    next_id: u64,
}

/// Any operation of the server; `payload` is what `data`, `text`, `b64` or `bin` held.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Said {
    pub op: String,
    pub id: Option<u64>,
    pub qos: Option<u8>,
    pub matched: Option<usize>,
    pub code: Option<Code>,
    pub reason: Option<String>,
    pub retry: Option<bool>,
    pub topic: Option<String>,
    pub text: Option<String>,
    pub b64: Option<String>,
    pub bin: Option<Bin>,
    pub ct: Option<String>,
    pub ret: Option<bool>,
    pub ts: Option<u64>,
    pub props: Option<Props>,
    pub reply: Option<String>,
    pub corr: Option<Corr>,
    pub exp: Option<u64>,
    pub dropped: Option<u64>,
    pub conflated: Option<u64>,
    pub topics: Option<Vec<String>>,
    pub after: Option<u64>,
    pub limits: Option<BTreeMap<String, u64>>,
    #[serde(skip)]
    pub payload: Option<Bytes>,
    /// The payload came as `data`.
    #[serde(skip)]
    pub is_data: bool,
    /// The field that held the payload, if that was another one.
    #[serde(skip)]
    pub carrier: Option<&'static str>,
}

/// `err.code` is a word, `bye.code` a number.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Code {
    Word(String),
    Number(u16),
}

/// A map whose order counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Props(pub Vec<(String, OneOrMany)>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Corr {
    Text(String),
    Base64 { b64: String },
    Bin(Bin),
}

/// Bytes of MessagePack.
#[derive(Clone, Debug, PartialEq)]
pub struct Bin(pub Bytes);

impl<'de> Deserialize<'de> for Bin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bin;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bin, E> {
                Ok(Bin(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

impl Serialize for Bin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Props {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Props;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Props, A::Error> {
                let mut props = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    props.push(entry);
                }
                Ok(Props(props))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl Serialize for Props {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, values)| (name, values)))
    }
}

/// `data`, which has to be looked at as it stands.
#[derive(Deserialize)]
struct Verbatim<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// An operation with what [`Value`] has no type for: bytes, and a map in order.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    operation: &'a Value,
    #[serde(flatten)]
    bins: BTreeMap<&'static str, Bin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    props: Option<&'a Props>,
}

impl Envelope {
    pub async fn open(broker: &Broker, encoding: Encoding, ask: Ask<'_>) -> Self {
        let token = match encoding {
            Encoding::Json => "raw.json.v1",
            Encoding::MessagePack => "raw.msgpack.v1",
        };
        let socket = Socket::open(broker.address, Ask { protocols: &[token], ..ask }).await;
        Self { socket, encoding, inbox: VecDeque::new(), next_id: 0 }
    }

    pub async fn connected(broker: &Broker, encoding: Encoding) -> Self {
        Self::open(broker, encoding, Ask::default()).await
    }

    pub async fn send(&mut self, operation: &Value) {
        match self.encoding {
            Encoding::Json => self.socket.send_text(&operation.to_string()).await,
            Encoding::MessagePack => {
                self.socket.send_binary(rmp_serde::to_vec_named(operation).unwrap()).await;
            }
        }
    }

    /// Adds a payload in the way that this encoding has for bytes.
    pub async fn send_with_payload(&mut self, mut operation: Value, payload: &[u8]) {
        match (std::str::from_utf8(payload), self.encoding) {
            (Ok(text), _) => operation["text"] = text.into(),
            (Err(_), Encoding::Json) => operation["b64"] = BASE64.encode(payload).into(),
            (Err(_), Encoding::MessagePack) => {
                let bins = BTreeMap::from([("bin", Bin(Bytes::copy_from_slice(payload)))]);
                return self.send_whole(&Whole { operation: &operation, bins, props: None }).await;
            }
        }
        self.send(&operation).await;
    }

    async fn send_whole(&mut self, whole: &Whole<'_>) {
        match self.encoding {
            Encoding::Json => self.socket.send_text(&serde_json::to_string(whole).unwrap()).await,
            Encoding::MessagePack => self.socket.send_binary(rmp_serde::to_vec_named(whole).unwrap()).await,
        }
    }

    /// An operation with an id, bytes where the encoding has them (in JSON as base64), and properties in their order.
    pub async fn ask_whole(
        &mut self,
        mut operation: Value,
        bytes: Vec<(&'static str, Bytes)>,
        props: &Props,
    ) -> Said {
        self.next_id += 1;
        operation["id"] = self.next_id.into();
        let bins = bytes.into_iter().map(|(name, bytes)| (name, Bin(bytes))).collect();
        let props = Some(props).filter(|props| !props.0.is_empty());
        self.send_whole(&Whole { operation: &operation, bins, props }).await;
        self.answer().await.0
    }

    /// Sends an operation with an id; gives its answer, and what came before it.
    pub async fn ask(&mut self, mut operation: Value) -> (Said, Vec<Said>) {
        self.next_id += 1;
        operation["id"] = self.next_id.into();
        self.send(&operation).await;
        self.answer().await
    }

    /// The answer to the last request, and what came before it.
    async fn answer(&mut self) -> (Said, Vec<Said>) {
        let mut before = Vec::new();
        loop {
            let said = self.read().await;
            if said.id == Some(self.next_id) {
                return (said, before);
            }
            before.push(said);
        }
    }

    /// `sub` with these fields too. Nothing may come before its `ok`.
    pub async fn subscribe_with(&mut self, filter: &str, mut fields: Value) {
        fields["op"] = "sub".into();
        fields["topic"] = filter.into();
        let (answer, before) = self.ask(fields).await;
        assert_eq!((&*answer.op, &before[..]), ("ok", &[][..]), "{answer:?}");
    }

    pub async fn subscribe(&mut self, filter: &str) {
        self.subscribe_with(filter, json!({})).await;
    }

    /// `pub` with an id, and its answer; deliveries that come before it stay to be read.
    pub async fn publish_acked(&mut self, mut fields: Value, topic: &str, payload: &[u8]) -> Said {
        self.next_id += 1;
        fields["op"] = "pub".into();
        fields["id"] = self.next_id.into();
        fields["topic"] = topic.into();
        self.send_with_payload(fields, payload).await;
        let (answer, before) = self.answer().await;
        self.inbox.extend(before);
        answer
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.send_with_payload(json!({"op": "pub", "topic": topic}), payload).await;
    }

    /// The next `msg`; a `lag` before it is skipped.
    pub async fn delivery(&mut self) -> Said {
        loop {
            let said = self.said().await;
            if said.op != "lag" {
                assert_eq!(said.op, "msg", "{said:?}");
                return said;
            }
        }
    }

    pub async fn said(&mut self) -> Said {
        match self.inbox.pop_front() {
            Some(said) => said,
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Said {
        let message = self.socket.message().await;
        self.parse(message)
    }

    /// The last `err` or `bye`, if one comes, and how the connection ends.
    pub async fn end(&mut self) -> (Option<Said>, End) {
        let mut last = None;
        loop {
            match self.socket.message_or_end().await {
                Ok(message) => {
                    let said = self.parse(message);
                    if said.op == "err" || said.op == "bye" {
                        last = Some(said);
                    }
                }
                Err(end) => return (last, end),
            }
        }
    }

    fn parse(&self, message: Message) -> Said {
        let mut data = None;
        let mut said: Said = match (&message, self.encoding) {
            (Message::Text(text), Encoding::Json) => {
                let verbatim: Verbatim<'_> = serde_json::from_str(text).unwrap();
                data = verbatim.data.map(|data| Bytes::from(data.get().to_owned()));
                serde_json::from_str(text).unwrap()
            }
            (Message::Binary(bytes), Encoding::MessagePack) => rmp_serde::from_slice(bytes).unwrap(),
            (other, encoding) => panic!("the wrong kind of message for {encoding:?}: {other:?}"),
        };
        said.is_data = data.is_some();
        said.carrier =
            [("text", said.text.is_some()), ("b64", said.b64.is_some()), ("bin", said.bin.is_some())]
                .into_iter()
                .find_map(|(name, is_there)| is_there.then_some(name));
        said.payload = data
            .or_else(|| said.text.take().map(Bytes::from))
            .or_else(|| said.b64.take().map(|text| BASE64.decode(text).unwrap().into()))
            .or_else(|| said.bin.take().map(|bin| bin.0));
        said
    }
}

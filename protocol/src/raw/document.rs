//! One envelope message to a tree of values, from JSON or MessagePack, within bounds. Knows no operation.
//!
//! The tree is a few levels deep, has a limited number of values, and borrows what it can. Nothing is allocated on
//! a claimed length (SEC-5). Spec: RFC 8259; the MessagePack specification.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Encoding;
use crate::reader::Reader;

/// A value of either encoding.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'de> {
    Null,
    Bool(bool),
    Integer(i64),
    /// Beyond an `i64`, or with a fraction.
    OtherNumber,
    Text(Cow<'de, str>),
    Bin(&'de [u8]),
    List(Vec<Self>),
    Map(Fields<'de>),
    /// The `data` of a JSON operation, verbatim.
    Data(&'de str),
}

/// Names and values in their order; a name may repeat, for the reader to refuse.
pub(super) type Fields<'de> = Vec<(Cow<'de, str>, Value<'de>)>;

/// The message is no document, or not within the bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("not JSON: {0}")]
    Json(String),
    #[error("not MessagePack: {reason} at byte {at}")]
    MessagePack { reason: &'static str, at: usize },
}

/// Containers within containers: a list of operations, an operation, `props`, a name's list; and some for what the
/// reader refuses by name.
const DEPTH_MAX: usize = 8;

/// Values in one message. A value costs 40 bytes of memory and at least one on the wire; this keeps the tree of
/// the largest message below 1 MiB.
const VALUES_MAX: usize = 16 * 1024;

/// Operations in one message: each may cost an answer that is longer than itself.
const OPERATIONS_MAX: u32 = 1000;

const TOO_DEEP: &str = "more than 8 levels of nesting";
const TOO_MANY: &str = "more than 16384 values in one message";
const TOO_MANY_OPERATIONS: &str = "more than 1000 operations in one message";

/// Reads one document; nothing may follow it.
pub(super) fn decode(bytes: &[u8], encoding: Encoding) -> Result<Value<'_>, DocumentError> {
    match encoding {
        Encoding::Json => decode_json(bytes),
        Encoding::MessagePack => decode_message_pack(bytes),
    }
}

/// Levels of arrays and objects in a JSON text that is known to be well-formed.
pub(super) fn json_depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes();
    let mut in_string = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => {
                bytes.next();
            }
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn decode_json(bytes: &[u8]) -> Result<Value<'_>, DocumentError> {
    let values_left = Cell::new(VALUES_MAX);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed { depth: 0, place: Place::Top, values_left: &values_left };
    let value = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|error| DocumentError::Json(error.to_string()))
}

/// Where a value stands; an operation's `data` is left as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    ListOfOperations,
    Inside,
}

struct Seed<'a> {
    depth: usize,
    place: Place,
    values_left: &'a Cell<usize>,
}

impl Seed<'_> {
    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        match self.values_left.get().checked_sub(1) {
            Some(left) => self.values_left.set(left),
            None => return Err(E::custom(TOO_MANY)),
        }
        Ok(())
    }

    fn inner<E: serde::de::Error>(&self, place: Place) -> Result<Seed<'_>, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(TOO_DEEP));
        }
        Ok(Seed { depth: self.depth + 1, place, values_left: self.values_left })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(value).map_or(Value::OtherNumber, Value::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value<'de>, A::Error> {
        let place = if self.place == Place::Top { Place::ListOfOperations } else { Place::Inside };
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.inner(place)?)? {
            if place == Place::ListOfOperations && items.len() >= OPERATIONS_MAX as usize {
                return Err(serde::de::Error::custom(TOO_MANY_OPERATIONS));
            }
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value<'de>, A::Error> {
        let is_operation = self.place != Place::Inside;
        let mut fields = Fields::new();
        while let Some(Key(name)) = access.next_key::<Key<'de>>()? {
            let value = if is_operation && name == "data" {
                self.count()?;
                Value::Data(access.next_value::<&RawValue>()?.get())
            } else {
                access.next_value_seed(self.inner(Place::Inside)?)?
            };
            fields.push((name, value));
        }
        Ok(Value::Map(fields))
    }
}

/// A name, borrowed when it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

fn decode_message_pack(bytes: &[u8]) -> Result<Value<'_>, DocumentError> {
    let mut decoder = MessagePack { reader: Reader::new(bytes), values_left: VALUES_MAX };
    let value = decoder.value(0).and_then(|value| {
        if decoder.reader.is_empty() { Ok(value) } else { Err("something follows the document") }
    });
    let at = bytes.len() - decoder.reader.len();
    value.map_err(|reason| DocumentError::MessagePack { reason, at })
}

struct MessagePack<'de> {
    reader: Reader<'de>,
    values_left: usize,
}

impl<'de> MessagePack<'de> {
    fn value(&mut self, depth: usize) -> Result<Value<'de>, &'static str> {
        self.values_left = self.values_left.checked_sub(1).ok_or(TOO_MANY)?;
        let marker = self.reader.u8().ok_or(TRUNCATED)?;
        Ok(match marker {
            0x00..=0x7f => Value::Integer(i64::from(marker)),
            0x80..=0x8f => self.map(u32::from(marker & 0x0f), depth)?,
            0x90..=0x9f => self.list(u32::from(marker & 0x0f), depth)?,
            0xa0..=0xbf => Value::Text(Cow::Borrowed(self.text(u32::from(marker & 0x1f))?)),
            0xc0 => Value::Null,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4..=0xc6 => {
                let len = self.len(marker - 0xc4)?;
                Value::Bin(self.bytes(len)?)
            }
            0xca => self.skip(4, Value::OtherNumber)?,
            0xcb => self.skip(8, Value::OtherNumber)?,
            0xcc..=0xce => Value::Integer(i64::from(self.len(marker - 0xcc)?)),
            0xcf => {
                let value = u64::from_be_bytes(self.array()?);
                i64::try_from(value).map_or(Value::OtherNumber, Value::Integer)
            }
            0xd0 => Value::Integer(i64::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Value::Integer(i64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Value::Integer(i64::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Value::Integer(i64::from_be_bytes(self.array()?)),
            0xd9..=0xdb => {
                let len = self.len(marker - 0xd9)?;
                Value::Text(Cow::Borrowed(self.text(len)?))
            }
            0xdc | 0xdd => {
                let len = self.len(marker - 0xdc + 1)?;
                self.list(len, depth)?
            }
            0xde | 0xdf => {
                let len = self.len(marker - 0xde + 1)?;
                self.map(len, depth)?
            }
            0xe0..=0xff => Value::Integer(i64::from(i8::from_be_bytes([marker]))),
            0xc1 => return Err("the marker 0xc1, which is never used,"),
            0xc7..=0xc9 | 0xd4..=0xd8 => return Err("an extension type"),
        })
    }

    fn list(&mut self, len: u32, depth: usize) -> Result<Value<'de>, &'static str> {
        if depth >= DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        if depth == 0 && len > OPERATIONS_MAX {
            return Err(TOO_MANY_OPERATIONS);
        }
        // No capacity ahead: `len` is only a claim.
        let mut items = Vec::new();
        for _ in 0..len {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, len: u32, depth: usize) -> Result<Value<'de>, &'static str> {
        if depth >= DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        let mut fields = Fields::new();
        for _ in 0..len {
            let marker = self.reader.u8().ok_or(TRUNCATED)?;
            let len = match marker {
                0xa0..=0xbf => u32::from(marker & 0x1f),
                0xd9..=0xdb => self.len(marker - 0xd9)?,
                _ => return Err("a key that is not a string"),
            };
            let name = Cow::Borrowed(self.text(len)?);
            fields.push((name, self.value(depth + 1)?));
        }
        Ok(Value::Map(fields))
    }

    /// An unsigned number of 1, 2 or 4 bytes, by its size's exponent.
    fn len(&mut self, exponent: u8) -> Result<u32, &'static str> {
        match exponent {
            0 => self.reader.u8().map(u32::from),
            1 => self.reader.u16().map(u32::from),
            _ => self.reader.u32(),
        }
        .ok_or(TRUNCATED)
    }

    fn text(&mut self, len: u32) -> Result<&'de str, &'static str> {
        simdutf8::basic::from_utf8(self.bytes(len)?).map_err(|_| "a string that is not UTF-8")
    }

    fn bytes(&mut self, len: u32) -> Result<&'de [u8], &'static str> {
        usize::try_from(len).ok().and_then(|len| self.reader.bytes(len)).ok_or(TRUNCATED)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.reader.bytes(N).and_then(|bytes| bytes.try_into().ok()).ok_or(TRUNCATED)
    }

    fn skip(&mut self, len: u32, value: Value<'de>) -> Result<Value<'de>, &'static str> {
        self.bytes(len).map(|_| value)
    }
}

const TRUNCATED: &str = "the document ends too early,";

//! The escapes of header names and values, by version. STOMP 1.2 "Value Encoding"; 1.1 lacks `\r`, 1.0 has none.
//!
//! What a version cannot say (a line feed in 1.0, NUL in all of them) becomes U+FFFD, so that no value can end
//! its header or its frame early (SEC-13).

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::Version;

/// How headers are written: by version, and plain in CONNECT and CONNECTED frames, which are read before the
/// version is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escaping {
    /// STOMP 1.0, CONNECT and CONNECTED.
    None,
    /// `\n`, `\c`, `\\`.
    V1_1,
    /// Those and `\r`.
    V1_2,
}

/// A backslash that begins no escape of the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UndefinedEscape;

/// Whether the text stands left or right of the colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Name,
    Value,
}

impl From<Version> for Escaping {
    fn from(version: Version) -> Self {
        match version {
            Version::V1_0 => Self::None,
            Version::V1_1 => Self::V1_1,
            Version::V1_2 => Self::V1_2,
        }
    }
}

impl Escaping {
    /// Appends `text` so that the peer reads it as one name or value.
    pub(super) fn put(self, text: &str, place: Place, out: &mut BytesMut) {
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|byte| self.substitute(*byte, place).is_some()) {
            let (plain, special) = rest.split_at(at);
            out.put_slice(plain);
            let Some((&byte, tail)) = special.split_first() else { break };
            out.put_slice(self.substitute(byte, place).unwrap_or_default());
            rest = tail;
        }
        out.put_slice(rest);
    }

    fn substitute(self, byte: u8, place: Place) -> Option<&'static [u8]> {
        match (self, byte) {
            (_, 0) => Some(REPLACEMENT),
            // A carriage return before the line feed may be read as part of the line's end.
            (Self::None, b'\n' | b'\r') => Some(REPLACEMENT),
            (Self::None, b':') if place == Place::Name => Some(REPLACEMENT),
            (Self::None, _) => None,
            (_, b'\n') => Some(b"\\n"),
            (_, b':') => Some(b"\\c"),
            (_, b'\\') => Some(b"\\\\"),
            (Self::V1_2, b'\r') => Some(b"\\r"),
            _ => None,
        }
    }

    /// Whether every version writes `text` alike.
    pub(super) fn is_plain(text: &str) -> bool {
        !text.bytes().any(|byte| matches!(byte, 0 | b'\n' | b'\r' | b':' | b'\\'))
    }

    /// The text that was meant.
    pub(super) fn undo(self, text: &str) -> Result<Cow<'_, str>, UndefinedEscape> {
        if self == Self::None || !text.contains('\\') {
            return Ok(Cow::Borrowed(text));
        }
        let mut plain = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '\\' {
                plain.push(character);
                continue;
            }
            plain.push(match (characters.next(), self) {
                (Some('n'), _) => '\n',
                (Some('c'), _) => ':',
                (Some('\\'), _) => '\\',
                (Some('r'), Self::V1_2) => '\r',
                // "Undefined escape sequences such as \t MUST be treated as a fatal protocol error."
                _ => return Err(UndefinedEscape),
            });
        }
        Ok(Cow::Owned(plain))
    }
}

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

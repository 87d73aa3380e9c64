//! MQTT packets to bytes and back: the fixed header, the data types, and the errors of decoding.
//!
//! The packets themselves are in `decode` and `encode`. Knows no session. Spec: OASIS MQTT 5.0 §1.5, §2.

use bytes::{BufMut, Bytes, BytesMut};

use super::packet::{Packet, PacketType, ReasonCode, Version};
use super::property::Sender;
use crate::publication::QoS;
use crate::reader::Reader;
use crate::session::CloseKind;
use crate::topic::{TopicError, TopicLimits};

/// The largest remaining length that four bytes can say (§1.5.5).
pub(super) const REMAINING_LENGTH_MAX: usize = 268_435_455;

/// Which end of the connection decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes what clients send.
    Server,
    /// Takes what servers send.
    Client,
}

/// What a decoder takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest packet, its fixed header included.
    pub packet_bytes_max: usize,
    /// Topics and filters.
    pub topic: TopicLimits,
    /// User properties in one list (SEC-15).
    pub user_properties_max: usize,
    /// Topic filters in one SUBSCRIBE or UNSUBSCRIBE. One takes four bytes on the wire, and 174 bytes of memory until
    /// it is answered, so that the size of the packet alone bounds too little (SEC-15).
    pub filters_max: usize,
}

/// Decodes and encodes the packets of one connection. A server learns the version from CONNECT.
#[derive(Clone, Debug)]
pub struct Codec {
    pub(super) role: Role,
    pub(super) version: Option<Version>,
    /// May be changed between packets.
    pub limits: Limits,
}

/// Why bytes are no packet. The peer is at fault in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Bytes that cannot be parsed.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// Well-formed, and not allowed.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// Larger than [`Limits::packet_bytes_max`]; known from the fixed header.
    #[error("the packet has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// As claimed.
        bytes: usize,
        /// As allowed.
        limit: usize,
    },
    /// No topic or topic filter.
    #[error("{0}")]
    Topic(#[from] TopicError),
    /// Too many of them.
    #[error("more than {limit} user properties")]
    UserProperties {
        /// As allowed.
        limit: usize,
    },
    /// A client identifier with characters that names here do not have.
    #[error("a control character or a non-character in the client id (§1.5.4)")]
    ClientIdentifier,
    /// Too many of them in one SUBSCRIBE or UNSUBSCRIBE.
    #[error("more than {limit} topic filters")]
    Filters {
        /// As allowed.
        limit: usize,
    },
    /// A level of the protocol that does not exist here.
    #[error("protocol level {level} is not supported")]
    UnsupportedVersion {
        /// As asked for.
        level: u8,
    },
}

impl DecodeError {
    /// The code for CONNACK or DISCONNECT.
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::Malformed(_) => ReasonCode::MALFORMED_PACKET,
            Self::Protocol(_) => ReasonCode::PROTOCOL_ERROR,
            Self::TooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            // §4.13: 0x90 is for a name that can be parsed and yet is not accepted.
            Self::Topic(
                TopicError::TooLong { .. } | TopicError::TooManyLevels { .. } | TopicError::WildcardInName,
            ) => ReasonCode::TOPIC_NAME_INVALID,
            Self::Topic(_) => ReasonCode::MALFORMED_PACKET,
            Self::ClientIdentifier => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
            Self::UserProperties { .. } | Self::Filters { .. } => ReasonCode::QUOTA_EXCEEDED,
            Self::UnsupportedVersion { .. } => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        }
    }

    /// The kind of close behind it. Too much in one packet is too much again after any wait, unlike the other quotas
    /// that have the same code: the client has to be mended, and the close is the one for what is too big (WIRE §5).
    #[must_use]
    pub const fn close_kind(&self) -> CloseKind {
        match self {
            Self::UserProperties { .. } | Self::Filters { .. } => CloseKind::TooBig,
            _ => self.reason().close_kind(),
        }
    }
}

impl Codec {
    /// For the broker's end.
    #[must_use]
    pub const fn server(limits: Limits) -> Self {
        Self { role: Role::Server, version: None, limits }
    }

    /// For a client that sends CONNECT with this version.
    #[must_use]
    pub const fn client(version: Version, limits: Limits) -> Self {
        Self { role: Role::Client, version: Some(version), limits }
    }

    /// The version, once known. Until then packets are written as in 3.1.1.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// For an answer to a version that does not exist.
    pub(super) const fn answer_as(&mut self, version: Version) {
        self.version = Some(version);
    }

    pub(super) const fn is_v5(&self) -> bool {
        matches!(self.version, Some(Version::V5))
    }

    pub(super) const fn sender(&self) -> Sender {
        match self.role {
            Role::Server => Sender::Client,
            Role::Client => Sender::Server,
        }
    }

    /// How many bytes the packet has that begins here; `None` while its fixed header is incomplete. Refuses what
    /// the fixed header alone shows to be wrong, before anything is buffered.
    pub fn frame_len(&self, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let Some(first) = reader.u8() else { return Ok(None) };
        self.check_first_byte(first)?;
        let Some((remaining, header_len)) = remaining_length(&mut reader)? else { return Ok(None) };
        let bytes = header_len + remaining;
        let limit = self.limits.packet_bytes_max;
        // [MQTT-3.2.2-15]
        if bytes > limit {
            return Err(DecodeError::TooLarge { bytes, limit });
        }
        Ok(Some(bytes))
    }

    /// The next packet, taken off the front of `bytes`. `None`, and nothing taken, while it is incomplete.
    pub fn decode(&mut self, bytes: &mut Bytes) -> Result<Option<Packet>, DecodeError> {
        match self.frame_len(bytes)? {
            Some(len) if len <= bytes.len() => self.decode_frame(&bytes.split_to(len)).map(Some),
            _ => Ok(None),
        }
    }

    /// One packet from exactly its bytes, as [`Codec::frame_len`] measured them.
    pub fn decode_frame(&mut self, frame: &Bytes) -> Result<Packet, DecodeError> {
        let mut reader = Reader::new(frame);
        let first = reader.u8().ok_or(INCOMPLETE)?;
        let packet_type = self.check_first_byte(first)?;
        let (remaining, header_len) = remaining_length(&mut reader)?.ok_or(INCOMPLETE)?;
        let mut field = Field { frame, reader };
        if field.reader.len() != remaining {
            return Err(INCOMPLETE);
        }
        let packet = self.decode_body(packet_type, first & 0x0F, &mut field)?;
        if !field.is_empty() {
            return Err(DecodeError::Malformed("bytes after the end of the packet's fields"));
        }
        // [MQTT-1.5.5-1]; 3.x does not ask for the shortest form.
        if self.is_v5() && header_len != 1 + var_int_len(remaining) {
            return Err(DecodeError::Malformed("remaining length in more bytes than it needs"));
        }
        Ok(packet)
    }

    /// Type and flags (§2.1.3), and whether the peer may send this type at all.
    /// Each type has its own flags [MQTT-2.1.3-1]: PUBREL [MQTT-3.6.1-1], SUBSCRIBE [MQTT-3.8.1-1], UNSUBSCRIBE
    /// [MQTT-3.10.1-1], DISCONNECT [MQTT-3.14.1-1], AUTH [MQTT-3.15.1-1].
    fn check_first_byte(&self, first: u8) -> Result<PacketType, DecodeError> {
        let packet_type =
            PacketType::from_u8(first >> 4).ok_or(DecodeError::Malformed("packet type 0 is reserved"))?;
        let flags = first & 0x0F;
        let is_right = match packet_type {
            PacketType::Publish => true,
            // MQTT 3.1 §2.1 sends these with QoS 1, and again with DUP.
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => {
                flags == 0x02 || (self.version == Some(Version::V3_1) && flags == 0x0A)
            }
            // MQTT 3.1 §3.1 does not use them, and CONNECT has to tell its version first.
            PacketType::Connect if self.version.is_none() => true,
            _ => flags == 0,
        };
        if !is_right {
            return Err(RESERVED_FLAGS);
        }
        let is_for_other_end = match self.role {
            Role::Server => matches!(
                packet_type,
                PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp
            ),
            Role::Client => matches!(
                packet_type,
                PacketType::Connect | PacketType::Subscribe | PacketType::Unsubscribe | PacketType::PingReq
            ),
        };
        if is_for_other_end {
            return Err(DecodeError::Protocol("a packet that only the other end may send"));
        }
        if self.version.is_none() && packet_type != PacketType::Connect {
            // Before its body is looked at: a stranger's SUBSCRIBE may be long.
            return Err(DecodeError::Protocol("the first packet is not CONNECT [MQTT-3.1.0-1]"));
        }
        if self.version.is_some() && packet_type == PacketType::Connect {
            // Before its body is looked at: that may name another version.
            return Err(DecodeError::Protocol("a second CONNECT [MQTT-3.1.0-2]"));
        }
        let is_v3 = matches!(self.version, Some(Version::V3_1 | Version::V3_1_1));
        if is_v3 && packet_type == PacketType::Auth {
            return Err(DecodeError::Malformed("packet type 15 is reserved in MQTT 3"));
        }
        if is_v3 && packet_type == PacketType::Disconnect && self.role == Role::Client {
            return Err(DecodeError::Protocol("DISCONNECT from a server in MQTT 3"));
        }
        Ok(packet_type)
    }
}

pub(super) const RESERVED_FLAGS: DecodeError =
    DecodeError::Malformed("reserved flag bits are set [MQTT-2.1.3-1]");
const INCOMPLETE: DecodeError = DecodeError::Malformed("the packet ends in the middle of a field");

/// The remaining length, and the bytes of the whole fixed header.
fn remaining_length(reader: &mut Reader<'_>) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut value = 0usize;
    for position in 0..4usize {
        let Some(byte) = reader.u8() else { return Ok(None) };
        value |= usize::from(byte & 0x7F) << (7 * position);
        if byte & 0x80 == 0 {
            return Ok(Some((value, position + 2)));
        }
    }
    Err(DecodeError::Malformed("remaining length of more than four bytes"))
}

/// Reads MQTT's data types (§1.5) from a packet, or from a part of it.
pub(super) struct Field<'a> {
    frame: &'a Bytes,
    reader: Reader<'a>,
}

impl<'a> Field<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.reader.len()
    }

    /// A part of this one; what is claimed must be there.
    pub(super) fn sub(&mut self, len: usize) -> Result<Self, DecodeError> {
        let bytes = self.reader.bytes(len).ok_or(INCOMPLETE)?;
        Ok(Self { frame: self.frame, reader: Reader::new(bytes) })
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.reader.u8().ok_or(INCOMPLETE)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.reader.u16().ok_or(INCOMPLETE)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.reader.u32().ok_or(INCOMPLETE)
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Protocol("a property that is neither 0 nor 1")),
        }
    }

    pub(super) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::Protocol("packet identifier 0 [MQTT-2.2.1-3]")),
            id => Ok(id),
        }
    }

    /// A variable byte integer, in its shortest form [MQTT-1.5.5-1].
    pub(super) fn var_int(&mut self) -> Result<usize, DecodeError> {
        let (value, len_and_one) = remaining_length(&mut self.reader)?.ok_or(INCOMPLETE)?;
        if len_and_one != 1 + var_int_len(value) {
            return Err(DecodeError::Malformed("a variable byte integer in more bytes than it needs"));
        }
        Ok(value)
    }

    /// The same for identifiers; four bytes of seven bits always fit.
    pub(super) fn var_int_u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.var_int()?).map_err(|_| INCOMPLETE)
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        // [MQTT-4.7.3-3]: two bytes of length say no more than 65 535
        let len = usize::from(self.u16()?);
        self.reader.bytes(len).ok_or(INCOMPLETE)
    }

    /// A UTF-8 string: no surrogates [MQTT-1.5.4-1], no U+0000 [MQTT-1.5.4-2]; U+FEFF is a character like any other, in
    /// front too [MQTT-1.5.4-3].
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = simdutf8::basic::from_utf8(self.binary()?)
            .map_err(|_| DecodeError::Malformed("a string that is not UTF-8 [MQTT-1.5.4-1]"))?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::Malformed("U+0000 in a string [MQTT-1.5.4-2]"));
        }
        Ok(text)
    }

    /// A string that names a topic, a filter or a user, and ends up in rules and logs: without the characters that
    /// §1.5.4 lets a server refuse.
    pub(super) fn name(&mut self) -> Result<&'a str, DecodeError> {
        match self.string()? {
            text if is_name(text) => Ok(text),
            _ => Err(DecodeError::Malformed("a control character or a non-character in a name (§1.5.4)")),
        }
    }

    pub(super) fn qos(bits: u8, error: DecodeError) -> Result<QoS, DecodeError> {
        QoS::from_u8(bits & 0x03).ok_or(error)
    }

    /// All that is left, as a slice of the packet's own bytes.
    pub(super) fn rest(&mut self) -> Bytes {
        let len = self.reader.len();
        let rest = self.reader.bytes(len).unwrap_or_default();
        self.frame.slice_ref(rest)
    }
}

/// Whether a string has none of the characters that §1.5.4 discourages: controls and non-characters.
pub(super) fn is_name(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| matches!(byte, 0x20..=0x7E));
    let is_discouraged = |character: char| {
        let code = u32::from(character);
        character.is_control() || matches!(code, 0xFDD0..=0xFDEF) || code & 0xFFFE == 0xFFFE
    };
    is_plain || !text.contains(is_discouraged)
}

/// Bytes of a variable byte integer (§1.5.5).
pub(super) const fn var_int_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Writes a variable byte integer. The callers' limits keep it below [`REMAINING_LENGTH_MAX`].
pub(super) fn put_var_int(out: &mut BytesMut, value: usize) {
    let mut rest = value.min(REMAINING_LENGTH_MAX);
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.put_u8(low & 0x7F);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

/// Writes a string or binary data. More than 65 535 bytes cannot be said: what is longer is cut, so that the
/// packet stays a packet; [`super::forms`] leaves such properties out before.
pub(super) fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(len);
    out.put_slice(bytes.get(..usize::from(len)).unwrap_or(bytes));
}

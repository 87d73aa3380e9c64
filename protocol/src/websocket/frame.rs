//! Frames: the header with every rule that RFC 6455 §5.2 has for it, masking, and control frames on their way
//! out. Holds no state between frames.

use std::io::Cursor;

use bytes::{BufMut, Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::{CloseCode, MessageKind, Role};

/// Four bytes chosen at random for each frame that a client sends (RFC 6455 §5.3).
pub type Mask = [u8; 4];

/// The longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest reason in a Close frame: what the two bytes of the code leave of [`CONTROL_BYTES_MAX`].
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// What is wrong with a frame's header. The peer is at fault in all of them, the close code is 1002.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// RSV2, RSV3, or RSV1 where no extension gives it a meaning.
    #[error("a reserved bit is set (RFC 6455 §5.2)")]
    ReservedBit,
    /// 3–7 and 11–15.
    #[error("opcode {0} is reserved (RFC 6455 §5.2)")]
    ReservedOpcode(u8),
    /// FIN is missing.
    #[error("a control frame is fragmented (RFC 6455 §5.5)")]
    ControlFragmented,
    /// More than 125 bytes.
    #[error("a control frame is longer than 125 bytes (RFC 6455 §5.5)")]
    ControlTooLong,
    /// From a client.
    #[error("a client's frame is not masked (RFC 6455 §5.1)")]
    NotMasked,
    /// From a server.
    #[error("a server's frame is masked (RFC 6455 §5.1)")]
    Masked,
    /// A longer form than the number needs.
    #[error("the payload length is not in its shortest form (RFC 6455 §5.2)")]
    LengthNotMinimal,
    /// Beyond 63 bits.
    #[error("the most significant bit of the payload length is set (RFC 6455 §5.2)")]
    LengthTopBit,
}

/// A header that keeps every rule, and what it takes of the input.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) opcode: OpCode,
    pub(super) is_final: bool,
    /// RSV1: the message is compressed (RFC 7692 §6).
    pub(super) is_compressed: bool,
    pub(super) mask: Option<Mask>,
    pub(super) payload_len: u64,
    pub(super) header_len: usize,
}

impl Header {
    /// Decodes the header at the front of `bytes`. A rule that is broken by the first bytes is reported before
    /// the others have come.
    pub(super) fn decode(bytes: &[u8], role: Role, has_deflate: bool) -> Result<Option<Self>, FrameError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        check_first_byte(first, has_deflate)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        check_second_byte(first, second, role)?;

        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| FrameError::ReservedOpcode(first & 0x0f))?;
        let Some((header, payload_len)) = parsed else { return Ok(None) };
        match second & 0x7f {
            126 if payload_len < 126 => return Err(FrameError::LengthNotMinimal),
            127 if payload_len > u64::MAX >> 1 => return Err(FrameError::LengthTopBit),
            127 if payload_len <= u64::from(u16::MAX) => return Err(FrameError::LengthNotMinimal),
            _ => {}
        }
        Ok(Some(Self {
            opcode: header.opcode,
            is_final: header.is_final,
            is_compressed: header.rsv1,
            mask: header.mask,
            payload_len,
            header_len: usize::try_from(cursor.position()).unwrap_or(bytes.len()),
        }))
    }
}

fn check_first_byte(first: u8, has_deflate: bool) -> Result<(), FrameError> {
    let opcode = first & 0x0f;
    if !matches!(opcode, 0..=2 | 8..=10) {
        return Err(FrameError::ReservedOpcode(opcode));
    }
    if first & 0x30 != 0 {
        return Err(FrameError::ReservedBit);
    }
    // RFC 7692 §6: RSV1 belongs to the first frame of a data message, and only under the extension.
    if first & 0x40 != 0 && !(has_deflate && matches!(opcode, 1 | 2)) {
        return Err(FrameError::ReservedBit);
    }
    if opcode >= 8 && first & 0x80 == 0 {
        return Err(FrameError::ControlFragmented);
    }
    Ok(())
}

fn check_second_byte(first: u8, second: u8, role: Role) -> Result<(), FrameError> {
    match (role, second & 0x80 != 0) {
        (Role::Server, false) => return Err(FrameError::NotMasked),
        (Role::Client, true) => return Err(FrameError::Masked),
        _ => {}
    }
    if first & 0x0f >= 8 && second & 0x7f > 125 {
        return Err(FrameError::ControlTooLong);
    }
    Ok(())
}

/// Masks or unmasks in place. `phase` is the position of the first byte in the frame's payload, modulo 4.
pub fn apply_mask(payload: &mut [u8], mask: Mask, phase: usize) {
    let mut turned = mask;
    turned.rotate_left(phase % 4);
    // Blocks of a fixed size let the compiler use the widest registers there are.
    let pattern = [turned; 8];
    let pattern = pattern.as_flattened();
    let (blocks, rest) = payload.as_chunks_mut::<32>();
    for block in blocks {
        for (byte, mask) in block.iter_mut().zip(pattern) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in rest.iter_mut().zip(pattern) {
        *byte ^= mask;
    }
}

/// A complete Ping frame. A server passes no mask, a client one. `payload` is cut after 125 bytes.
#[must_use]
pub fn ping(payload: &[u8], mask: Option<Mask>) -> Bytes {
    control(Control::Ping, &[payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload)], mask)
}

/// A complete Pong frame with the payload of the Ping that it answers (RFC 6455 §5.5.3).
#[must_use]
pub fn pong(payload: &[u8], mask: Option<Mask>) -> Bytes {
    control(Control::Pong, &[payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload)], mask)
}

/// A complete Close frame. The reason is cut to 123 bytes at the end of a character.
#[must_use]
pub fn close(code: CloseCode, reason: &str, mask: Option<Mask>) -> Bytes {
    let end = (0..=CLOSE_REASON_BYTES_MAX).rev().find(|&end| reason.is_char_boundary(end)).unwrap_or(0);
    let reason =
        if reason.len() <= CLOSE_REASON_BYTES_MAX { reason } else { reason.get(..end).unwrap_or("") };
    control(Control::Close, &[&u16::from(code).to_be_bytes(), reason.as_bytes()], mask)
}

/// A complete Close frame without a code, the answer to one that had none.
#[must_use]
pub fn close_without_code(mask: Option<Mask>) -> Bytes {
    control(Control::Close, &[], mask)
}

fn control(opcode: Control, parts: &[&[u8]], mask: Option<Mask>) -> Bytes {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(header_len(len) + mask.map_or(0, |mask| mask.len()) + len);
    put_header(&mut frame, 0x80 | u8::from(OpCode::Control(opcode)), len, mask);
    let start = frame.len();
    for part in parts {
        frame.put_slice(part);
    }
    if let (Some(mask), Some(payload)) = (mask, frame.get_mut(start..)) {
        apply_mask(payload, mask, 0);
    }
    frame.freeze()
}

/// The first byte of a data message in one frame.
pub(super) const fn data_byte(kind: MessageKind, is_compressed: bool) -> u8 {
    let opcode = match kind {
        MessageKind::Text => 1,
        MessageKind::Binary => 2,
    };
    0x80 | if is_compressed { 0x40 } else { 0 } | opcode
}

/// Bytes of an unmasked header for a payload of `len` bytes.
pub(super) const fn header_len(len: usize) -> usize {
    match len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// A complete, unmasked frame of `parts`, which are `len` bytes long together.
pub(super) fn frame(first: u8, len: usize, parts: &[&[u8]]) -> Bytes {
    // Exactly as large as it will be: then `freeze` needs no second allocation.
    let mut frame = BytesMut::with_capacity(header_len(len) + len);
    put_header(&mut frame, first, len, None);
    for part in parts {
        frame.put_slice(part);
    }
    frame.freeze()
}

/// Puts the header of a frame with this first byte: FIN, RSV bits and opcode.
pub(super) fn put_header(out: &mut impl BufMut, first: u8, len: usize, mask: Option<Mask>) {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    out.put_u8(first);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => out.put_u8(mask_bit | short),
        (_, Ok(medium)) => {
            out.put_u8(mask_bit | 126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(mask_bit | 127);
            out.put_u64(len as u64);
        }
    }
    if let Some(mask) = mask {
        out.put_slice(&mask);
    }
}

//! The read side of a connection: frames to messages and control events. Owns nothing while idle.
//! Never answers: what a ping, a close or an error calls for is the caller's to send.
//! Spec: RFC 6455 §5, §7, §8.1; RFC 7692 §6, §7.2.2.

use bytes::{Buf, Bytes, BytesMut};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{InflateError, Inflater, Params};
use super::frame::{FrameError, Header, Mask, apply_mask};
use super::utf8::{NotUtf8, Utf8Progress};
use super::{CloseCode, CloseFrame, Message, MessageKind, Role, Utf8Bytes};

/// What the peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A complete data message, inflated and checked.
    Message(Message),
    /// To be answered with a Pong of the same payload (RFC 6455 §5.5.2).
    Ping(Bytes),
    /// An answer, or unsolicited.
    Pong(Bytes),
    /// The peer closes; without a code when its frame had none. Nothing is decoded after it.
    Close(Option<CloseFrame>),
}

/// Why the connection cannot go on. The peer is at fault in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// A header that breaks a rule.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A continuation frame outside a message.
    #[error("a continuation frame without a message to continue (RFC 6455 §5.4)")]
    NothingToContinue,
    /// A text or binary frame within a message.
    #[error("a new message begins before the end of the fragmented one (RFC 6455 §5.4)")]
    MessageInterrupted,
    /// One byte cannot hold a code.
    #[error("a close frame has a payload of one byte (RFC 6455 §5.5.1)")]
    CloseTooShort,
    /// Not for the wire, or not defined.
    #[error("close code {0} is not to be sent (RFC 6455 §7.4)")]
    CloseCode(u16),
    /// In a text message.
    #[error("a text message is not UTF-8 (RFC 6455 §8.1)")]
    TextNotUtf8,
    /// In the reason of a Close frame.
    #[error("the reason of a close frame is not UTF-8 (RFC 6455 §5.5.1)")]
    ReasonNotUtf8,
    /// Not DEFLATE data.
    #[error("a compressed message does not inflate (RFC 7692 §7.2.2)")]
    Corrupt,
    /// Above the limit, inflated if it was compressed.
    #[error("a message is larger than {limit_bytes} bytes")]
    TooBig {
        /// Bytes allowed.
        limit_bytes: usize,
    },
}

impl ReceiveError {
    /// The code of the Close frame that tells the peer; this error's text is the reason to go with it.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Frame(_)
            | Self::NothingToContinue
            | Self::MessageInterrupted
            | Self::CloseTooShort
            | Self::CloseCode(_) => CloseCode::Protocol,
            Self::TextNotUtf8 | Self::ReasonNotUtf8 | Self::Corrupt => CloseCode::Invalid,
            Self::TooBig { .. } => CloseCode::Size,
        }
    }
}

impl From<NotUtf8> for ReceiveError {
    fn from(_: NotUtf8) -> Self {
        Self::TextNotUtf8
    }
}

/// The read side of one connection.
#[derive(Debug)]
pub struct Receiver {
    message_bytes_max: usize,
    /// The inflater between two messages, under context takeover.
    inflater: Option<Box<Inflater>>,
    partial: Option<Box<Partial>>,
    state: State,
    deflate: Option<Params>,
    role: Role,
}

/// ```text
///  Header ──a header──▶ Payload ──its last byte──▶ Header
///     └── an error, a Close ──▶ Done ◀── an error, a Close ──┘
/// ```
#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    Payload(Payload),
    Done,
}

/// The payload that the input is in.
#[derive(Clone, Copy, Debug)]
struct Payload {
    opcode: OpCode,
    is_final: bool,
    is_compressed: bool,
    mask: Option<Mask>,
    /// Position of the next byte in the payload, modulo 4.
    phase: u8,
    remaining: usize,
}

/// A data message of which more is to come.
#[derive(Debug)]
struct Partial {
    kind: MessageKind,
    bytes: Vec<u8>,
    utf8: Utf8Progress,
    inflater: Option<Box<Inflater>>,
}

impl Receiver {
    /// A receiver at the first byte behind the handshake. No message may be larger than `message_bytes_max`,
    /// inflated.
    #[must_use]
    pub const fn new(role: Role, message_bytes_max: usize, deflate: Option<Params>) -> Self {
        Self { message_bytes_max, inflater: None, partial: None, state: State::Header, deflate, role }
    }

    /// Changes the limit. Bytes of a message that are already here stay.
    pub const fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// Whether the peer is in the middle of a frame or message, so that the end of input here is a fault.
    #[must_use]
    pub const fn is_within_message(&self) -> bool {
        self.partial.is_some() || matches!(self.state, State::Payload(_))
    }

    /// The next event of the input, or `None` when it needs more. A message in one frame that is all there is
    /// split off `buffer` without copying; call again until it says `None`. What follows a Close or an error is
    /// taken out of `buffer` unread.
    pub fn poll(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, ReceiveError> {
        let result = self.advance(buffer);
        if matches!(result, Err(_) | Ok(Some(Event::Close(_)))) {
            // RFC 6455 §1.4: after a Close frame, further data is discarded. After an error it means nothing.
            self.state = State::Done;
            self.partial = None;
            self.inflater = None;
        }
        result
    }

    fn advance(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, ReceiveError> {
        loop {
            let payload = match self.state {
                State::Done => {
                    buffer.clear();
                    return Ok(None);
                }
                State::Payload(payload) => payload,
                State::Header => {
                    let Some(header) = Header::decode(buffer, self.role, self.deflate.is_some())? else {
                        return Ok(None);
                    };
                    let payload = self.admit(&header)?;
                    buffer.advance(header.header_len);
                    self.state = State::Payload(payload);
                    payload
                }
            };
            let event = match payload.opcode {
                OpCode::Control(control) => return self.control(control, payload, buffer),
                OpCode::Data(data) => self.data(data, payload, buffer)?,
            };
            if event.is_some() || matches!(self.state, State::Payload(_)) {
                return Ok(event);
            }
        }
    }

    /// The rules that need more than the header: the order of frames (RFC 6455 §5.4) and the limit.
    fn admit(&self, header: &Header) -> Result<Payload, ReceiveError> {
        let is_compressed = match (header.opcode, &self.partial) {
            (OpCode::Control(_), _) => false,
            (OpCode::Data(Data::Continue), None) => return Err(ReceiveError::NothingToContinue),
            (OpCode::Data(Data::Continue), Some(partial)) => partial.inflater.is_some(),
            (OpCode::Data(_), Some(_)) => return Err(ReceiveError::MessageInterrupted),
            (OpCode::Data(_), None) => header.is_compressed,
        };
        let room = if is_compressed {
            // A compressor makes little more of data that it cannot compress. What comes out is counted.
            self.message_bytes_max.saturating_add(self.message_bytes_max / 8).saturating_add(1024)
        } else {
            self.message_bytes_max
                .saturating_sub(self.partial.as_ref().map_or(0, |partial| partial.bytes.len()))
        };
        let is_data = matches!(header.opcode, OpCode::Data(_));
        match usize::try_from(header.payload_len) {
            Ok(remaining) if !is_data || remaining <= room => Ok(Payload {
                opcode: header.opcode,
                is_final: header.is_final,
                is_compressed,
                mask: header.mask,
                phase: 0,
                remaining,
            }),
            // SEC-9: refused by the claim, before any of it is read.
            _ => Err(self.too_big()),
        }
    }

    fn control(
        &mut self,
        control: Control,
        payload: Payload,
        buffer: &mut BytesMut,
    ) -> Result<Option<Event>, ReceiveError> {
        if buffer.len() < payload.remaining {
            return Ok(None);
        }
        self.state = State::Header;
        let payload = payload.split_off(buffer);
        Ok(Some(match control {
            Control::Ping => Event::Ping(payload),
            Control::Pong => Event::Pong(payload),
            Control::Close => Event::Close(close_frame(&payload)?),
            Control::Reserved(opcode) => return Err(FrameError::ReservedOpcode(opcode).into()),
        }))
    }

    fn data(
        &mut self,
        data: Data,
        mut payload: Payload,
        buffer: &mut BytesMut,
    ) -> Result<Option<Event>, ReceiveError> {
        let kind = match data {
            Data::Text => MessageKind::Text,
            _ => MessageKind::Binary,
        };
        let is_whole = payload.is_final && buffer.len() >= payload.remaining;
        if is_whole && !payload.is_compressed && self.partial.is_none() {
            self.state = State::Header;
            return message(kind, payload.split_off(buffer)).map(Some);
        }
        let len = buffer.len().min(payload.remaining);
        if len == 0 && payload.remaining > 0 {
            return Ok(None);
        }
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => self.begin(kind, payload.is_compressed),
        };
        let chunk = buffer.get_mut(..len).unwrap_or_default();
        payload.unmask(chunk);
        self.append(&mut partial, chunk)?;
        buffer.advance(len);
        payload.remaining -= len;
        self.state = if payload.remaining > 0 { State::Payload(payload) } else { State::Header };
        if payload.remaining == 0 && payload.is_final {
            return self.finish(*partial).map(Some);
        }
        self.partial = Some(partial);
        Ok(None)
    }

    fn begin(&mut self, kind: MessageKind, is_compressed: bool) -> Box<Partial> {
        let inflater = is_compressed.then(|| self.inflater.take().unwrap_or_else(Inflater::take));
        Box::new(Partial { kind, bytes: Vec::new(), utf8: Utf8Progress::default(), inflater })
    }

    fn append(&self, partial: &mut Partial, chunk: &[u8]) -> Result<(), ReceiveError> {
        match &mut partial.inflater {
            Some(inflater) => inflater
                .inflate(chunk, &mut partial.bytes, self.message_bytes_max)
                .map_err(|error| self.inflate_error(error))?,
            None => partial.bytes.extend_from_slice(chunk),
        }
        Ok(partial.utf8.check(partial.kind, &partial.bytes)?)
    }

    fn finish(&mut self, mut partial: Partial) -> Result<Event, ReceiveError> {
        if let Some(mut inflater) = partial.inflater.take() {
            let takes_over = self.deflate.is_some_and(|params| params.takes_over(self.role));
            let (bytes, limit) = (&mut partial.bytes, self.message_bytes_max);
            if takes_over {
                inflater.finish(bytes, limit).map_err(|error| self.inflate_error(error))?;
                self.inflater = Some(inflater);
            } else {
                inflater.finish_alone(bytes, limit).map_err(|error| self.inflate_error(error))?;
                inflater.put_back();
            }
        }
        // SEC-17: a message does not keep the spare room of its growth alive.
        message(partial.kind, Bytes::from(partial.bytes.into_boxed_slice()))
    }

    const fn inflate_error(&self, error: InflateError) -> ReceiveError {
        match error {
            InflateError::TooBig => self.too_big(),
            InflateError::Corrupt => ReceiveError::Corrupt,
        }
    }

    const fn too_big(&self) -> ReceiveError {
        ReceiveError::TooBig { limit_bytes: self.message_bytes_max }
    }
}

impl Payload {
    /// The rest of the payload, all of which is in `buffer`.
    fn split_off(mut self, buffer: &mut BytesMut) -> Bytes {
        let mut payload = buffer.split_to(self.remaining);
        self.unmask(&mut payload);
        payload.freeze()
    }

    fn unmask(&mut self, chunk: &mut [u8]) {
        if let Some(mask) = self.mask {
            apply_mask(chunk, mask, self.phase.into());
        }
        let phase = (usize::from(self.phase) + chunk.len()) % 4;
        self.phase = u8::try_from(phase).unwrap_or(0);
    }
}

fn message(kind: MessageKind, bytes: Bytes) -> Result<Event, ReceiveError> {
    Ok(Event::Message(match kind {
        MessageKind::Text => {
            Message::Text(Utf8Bytes::try_from(bytes).map_err(|_| ReceiveError::TextNotUtf8)?)
        }
        MessageKind::Binary => Message::Binary(bytes),
    }))
}

fn close_frame(payload: &Bytes) -> Result<Option<CloseFrame>, ReceiveError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(ReceiveError::CloseTooShort) };
    };
    let code = u16::from_be_bytes(*code);
    // RFC 6455 §7.4 and IANA's registry, which has added 1012 to 1014.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ReceiveError::CloseCode(code));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ReceiveError::ReasonNotUtf8)?;
    Ok(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() }))
}

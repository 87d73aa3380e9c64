//! Bytes to STOMP frames, for both roles. Knows no session, and no WebSocket message: what arrives is one stream.
//!
//! Limits hold while reading, nothing is allocated by a claimed length, and no byte is looked at twice however
//! the stream is cut. Spec: STOMP 1.2 "STOMP Frames"; differences of 1.0 and 1.1 where they are obeyed.

use bytes::{Buf, Bytes, BytesMut};

use super::Version;
use super::escape::Escaping;
use super::frame::{Command, Frame, Header};
use crate::websocket::Utf8Bytes;

/// How large a frame may be (SEC-5, SEC-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Header lines.
    pub headers_max: usize,
    /// The command line and all header lines together.
    pub head_bytes_max: usize,
    /// The body.
    pub body_bytes_max: usize,
    /// All of it.
    pub frame_bytes_max: usize,
}

/// Finds frames in a buffer. Keeps what it has seen of an unfinished one.
#[derive(Debug)]
pub struct Decoder {
    version: Option<Version>,
    limits: Limits,
    progress: Progress,
}

/// A frame that is none, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct DecodeError {
    /// What is wrong.
    pub fault: Fault,
    /// The frame's command, when it was read.
    pub command: Option<Command>,
    /// The line of the frame, from 1; the body counts as the line after the empty one.
    pub line: usize,
    /// The value of its `receipt` header, when that was read.
    pub receipt: Option<Utf8Bytes>,
}

/// What can be wrong with a frame. The peer is at fault in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first line.
    #[error("unknown command")]
    UnknownCommand,
    /// No `:`.
    #[error("header without a colon")]
    NoColon,
    /// `:value`.
    #[error("header without a name")]
    NoName,
    /// A carriage return elsewhere than before a line feed, in 1.2.
    #[error("carriage return within a line")]
    BareCarriageReturn,
    /// NUL before the empty line.
    #[error("frame ends within its headers")]
    NulInHead,
    /// A header that is not UTF-8.
    #[error("header is not UTF-8")]
    NotUtf8,
    /// A backslash before something else.
    #[error("undefined escape sequence")]
    UndefinedEscape,
    /// Not a number.
    #[error("content-length is not a number of bytes")]
    BadContentLength,
    /// The byte after the body is something else.
    #[error("body is not followed by NUL where content-length says it ends")]
    NotTerminated,
    /// A command that may not have one.
    #[error("this frame must not have a body")]
    BodyNotAllowed,
    /// A limit.
    #[error("more than {limit} headers")]
    TooManyHeaders {
        /// Lines allowed.
        limit: usize,
    },
    /// A limit.
    #[error("headers are longer than {limit} bytes")]
    HeadTooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// A limit.
    #[error("body is longer than {limit} bytes")]
    BodyTooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// A limit.
    #[error("frame is longer than {limit} bytes")]
    FrameTooLong {
        /// Bytes allowed.
        limit: usize,
    },
}

#[derive(Debug)]
enum Progress {
    /// Within the command and header lines, which stay in the buffer.
    Head { scanned: usize, line_start: usize, command: Option<Command>, lines: Vec<Line> },
    /// The head is out of the buffer; the body stands at its beginning.
    Body { frame: Frame, head_bytes: usize, length: Option<usize>, scanned: usize },
}

/// Where a header line stands in the head.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: usize,
    colon: usize,
    end: usize,
}

impl Fault {
    /// Whether it is a size that was exceeded, rather than a rule.
    #[must_use]
    pub const fn is_size(self) -> bool {
        matches!(
            self,
            Self::TooManyHeaders { .. }
                | Self::HeadTooLong { .. }
                | Self::BodyTooLong { .. }
                | Self::FrameTooLong { .. }
        )
    }
}

impl Progress {
    const fn start() -> Self {
        Self::Head { scanned: 0, line_start: 0, command: None, lines: Vec::new() }
    }
}

impl Decoder {
    /// A decoder for the beginning of a connection, when no version is known: lines may end in CR LF, nothing is
    /// unescaped.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { version: None, limits, progress: Progress::start() }
    }

    /// The version that CONNECT and CONNECTED settled on, and the limits from here on.
    pub fn set_version(&mut self, version: Version, limits: Limits) {
        self.version = Some(version);
        self.limits = limits;
    }

    /// The next frame, or `None` until more bytes were appended. Takes out of the buffer whole frames, the line
    /// ends between them, and a head as soon as it is whole. After an error the stream has no meaning any more.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        if matches!(self.progress, Progress::Head { .. }) {
            let is_whole = self.decode_head(buffer).map_err(|error| {
                let receipt = error.receipt.or_else(|| self.receipt_so_far(buffer));
                DecodeError { receipt, ..error }
            })?;
            if !is_whole {
                return Ok(None);
            }
        }
        self.decode_body(buffer)
    }

    /// The `receipt` among the header lines that were read before one that is wrong.
    fn receipt_so_far(&self, buffer: &[u8]) -> Option<Utf8Bytes> {
        let Progress::Head { command: Some(command), lines, .. } = &self.progress else { return None };
        let head = Bytes::copy_from_slice(buffer.get(..lines.last()?.end)?);
        let mut headers = lines.iter().filter_map(|line| self.header(*command, &head, line).ok());
        headers.find(|header| header.name.as_str() == "receipt").map(|header| header.value)
    }

    /// Copies what an unfinished frame has of its headers, so that they keep no large buffer alive (SEC-17).
    pub(super) fn detach(&mut self) {
        if let Progress::Body { frame, .. } = &mut self.progress {
            for header in &mut frame.headers {
                header.name = header.name.as_str().into();
                header.value = header.value.as_str().into();
            }
        }
    }

    /// Reads lines until the empty one. `false`: there is more to come.
    fn decode_head(&mut self, buffer: &mut BytesMut) -> Result<bool, DecodeError> {
        let limits = self.limits;
        let strips_cr = self.strips_carriage_returns();
        let Progress::Head { scanned, line_start, command, lines } = &mut self.progress else {
            return Ok(true);
        };
        if command.is_none() && *line_start == 0 {
            *scanned = scanned.saturating_sub(skip_line_ends(buffer));
        }
        loop {
            let fail = |fault, lines: &[Line], command| {
                Err(DecodeError {
                    fault,
                    command,
                    line: lines.len() + 1 + usize::from(command.is_some()),
                    receipt: None,
                })
            };
            let fresh = buffer.get(*scanned..).unwrap_or_default();
            let end = fresh.iter().position(|byte| matches!(byte, b'\n' | 0)).map(|at| *scanned + at);
            let seen = end.unwrap_or(buffer.len());
            if command.is_none() && seen > Command::NAME_BYTES_MAX + 1 {
                return fail(Fault::UnknownCommand, lines, *command);
            }
            if seen > limits.head_bytes_max {
                return fail(Fault::HeadTooLong { limit: limits.head_bytes_max }, lines, *command);
            }
            let Some(end) = end else {
                *scanned = seen;
                return Ok(false);
            };
            if buffer.get(end) == Some(&0) {
                return fail(Fault::NulInHead, lines, *command);
            }
            let mut line = buffer.get(*line_start..end).unwrap_or_default();
            if strips_cr {
                line = line.strip_suffix(b"\r").unwrap_or(line);
            }
            let start = *line_start;
            *scanned = end + 1;
            *line_start = end + 1;
            match command {
                None => match Command::parse(line) {
                    Some(parsed) => *command = Some(parsed),
                    None => return fail(Fault::UnknownCommand, lines, None),
                },
                Some(_) if line.is_empty() => break,
                Some(_) => {
                    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                        return fail(Fault::NoColon, lines, *command);
                    };
                    if lines.len() >= limits.headers_max {
                        let limit = limits.headers_max;
                        return fail(Fault::TooManyHeaders { limit }, lines, *command);
                    }
                    lines.push(Line { start, colon: start + colon, end: start + line.len() });
                }
            }
        }
        self.begin_body(buffer)?;
        Ok(true)
    }

    /// Turns the whole head into a frame and learns how long its body is.
    fn begin_body(&mut self, buffer: &mut BytesMut) -> Result<(), DecodeError> {
        let Progress::Head { line_start, command: Some(command), lines, .. } =
            std::mem::replace(&mut self.progress, Progress::start())
        else {
            return Ok(());
        };
        let head = buffer.split_to(line_start.min(buffer.len())).freeze();
        let mut frame = Frame { command, headers: Vec::with_capacity(lines.len()), body: Bytes::new() };
        for (index, line) in lines.iter().enumerate() {
            match self.header(command, &head, line) {
                Ok(header) => frame.headers.push(header),
                Err(fault) => return Err(error_in(&frame, fault, index + 2)),
            }
        }
        let length = match frame.header("content-length").map(parse_length) {
            None => None,
            Some(Some(length)) => Some(length),
            Some(None) => {
                return Err(error_in(&frame, Fault::BadContentLength, line_of(&frame, "content-length")));
            }
        };
        if let Some(length) = length {
            self.check_body(&frame, head.len(), length)?;
        }
        self.progress = Progress::Body { frame, head_bytes: head.len(), length, scanned: 0 };
        Ok(())
    }

    /// Waits for the whole body and its NUL.
    fn decode_body(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        let Progress::Body { frame, head_bytes, length, scanned } = &self.progress else {
            return Ok(None);
        };
        let length = match *length {
            // "this number of octets MUST be read, regardless of whether or not there are NULL octets in the body"
            Some(length) => match buffer.get(length) {
                None => return Ok(None),
                Some(0) => length,
                Some(_) => return Err(error_in(frame, Fault::NotTerminated, frame.headers.len() + 3)),
            },
            None => {
                let fresh = buffer.get(*scanned..).unwrap_or_default();
                let found = fresh.iter().position(|byte| *byte == 0).map(|at| *scanned + at);
                self.check_body(frame, *head_bytes, found.unwrap_or(buffer.len()))?;
                match found {
                    Some(length) => length,
                    None => {
                        if let Progress::Body { scanned, .. } = &mut self.progress {
                            *scanned = buffer.len();
                        }
                        return Ok(None);
                    }
                }
            }
        };
        let Progress::Body { mut frame, .. } = std::mem::replace(&mut self.progress, Progress::start())
        else {
            return Ok(None);
        };
        frame.body = buffer.split_to(length).freeze();
        buffer.advance(1);
        Ok(Some(frame))
    }

    fn check_body(&self, frame: &Frame, head_bytes: usize, body_bytes: usize) -> Result<(), DecodeError> {
        let line = frame.headers.len() + 3;
        let limits = &self.limits;
        if body_bytes > 0 && !frame.command.may_have_body() {
            return Err(error_in(frame, Fault::BodyNotAllowed, line));
        }
        // The tighter one is named, so that the answer does not depend on how the stream is cut.
        let room = limits.frame_bytes_max.saturating_sub(head_bytes.saturating_add(1));
        let fault = if room < limits.body_bytes_max {
            Fault::FrameTooLong { limit: limits.frame_bytes_max }
        } else {
            Fault::BodyTooLong { limit: limits.body_bytes_max }
        };
        if body_bytes > room.min(limits.body_bytes_max) {
            return Err(error_in(frame, fault, line));
        }
        Ok(())
    }

    /// In 1.0 and 1.1 a line ends at the line feed, and a carriage return is part of it; only 1.2 allows CR LF.
    /// A CONNECT is read before that is settled.
    fn strips_carriage_returns(&self) -> bool {
        matches!(self.version, None | Some(Version::V1_2))
    }

    fn header(&self, command: Command, head: &Bytes, line: &Line) -> Result<Header, Fault> {
        let whole = head.get(line.start..line.end).unwrap_or_default();
        if self.version == Some(Version::V1_2) && whole.contains(&b'\r') {
            return Err(Fault::BareCarriageReturn);
        }
        let name = self.text(command, head.slice(line.start..line.colon))?;
        if name.is_empty() {
            return Err(Fault::NoName);
        }
        Ok(Header { name, value: self.text(command, head.slice(line.colon + 1..line.end))? })
    }

    fn text(&self, command: Command, raw: Bytes) -> Result<Utf8Bytes, Fault> {
        let text = Utf8Bytes::try_from(raw).map_err(|_| Fault::NotUtf8)?;
        // 1.0 leaves the blanks around the colon open, and its servers trimmed them. Since 1.1 nobody may trim
        // or pad.
        if self.version == Some(Version::V1_0) {
            return Ok(trimmed(&text));
        }
        let escaping = self.version.map_or(Escaping::None, |version| command.escaping(version));
        match escaping.undo(&text) {
            Ok(std::borrow::Cow::Borrowed(_)) => Ok(text),
            Ok(std::borrow::Cow::Owned(plain)) => Ok(plain.into()),
            Err(_) => Err(Fault::UndefinedEscape),
        }
    }
}

impl Frame {
    /// The frame as STOMP 1.0 reads it. For a CONNECT that turns out to be of that version.
    pub(super) fn trim_headers(&mut self) {
        for header in &mut self.headers {
            header.name = trimmed(&header.name);
            header.value = trimmed(&header.value);
        }
    }
}

fn trimmed(text: &Utf8Bytes) -> Utf8Bytes {
    let inner = text.trim_matches([' ', '\t']);
    if inner.len() == text.len() { text.clone() } else { inner.into() }
}

/// Drops the heart-beats and the line ends that may follow a frame's NUL; says how many bytes. A carriage return
/// that comes without its line feed stays.
fn skip_line_ends(buffer: &mut BytesMut) -> usize {
    let mut skipped = 0;
    loop {
        match buffer.get(skipped..) {
            Some([b'\n', ..]) => skipped += 1,
            Some([b'\r', b'\n', ..]) => skipped += 2,
            _ => break,
        }
    }
    buffer.advance(skipped);
    skipped
}

/// Digits and nothing else; more than fits is as wrong as a sign.
fn parse_length(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn line_of(frame: &Frame, name: &str) -> usize {
    frame.headers.iter().position(|header| header.name.as_str() == name).map_or(2, |index| index + 2)
}

fn error_in(frame: &Frame, fault: Fault, line: usize) -> DecodeError {
    let receipt = frame.headers.iter().find(|header| header.name.as_str() == "receipt");
    DecodeError {
        fault,
        command: Some(frame.command),
        line,
        receipt: receipt.map(|header| header.value.clone()),
    }
}

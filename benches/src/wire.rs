//! What a client says, encoded once, and how it counts what it hears without copying it.
//! Trusts the broker's bytes no further than to stay in bounds. RFC 6455; MQTT's packets are in `mqtt`,
//! STOMP's frames in `stomp`.

use flate2::{Decompress, FlushDecompress};
use tidegate_protocol::publication::QoS;

use crate::mqtt::{self, Retain};
use crate::stomp;

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Payload mode: the topic is in the URL.
    Raw,
    /// MQTT 3.1.1, or 5 for a session that outlives its connection.
    Mqtt,
    /// STOMP 1.2.
    Stomp,
}

impl Protocol {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mqtt => "mqtt",
            Self::Stomp => "stomp",
        }
    }
}

/// Who a connection is.
#[derive(Clone, Debug)]
pub struct Role {
    /// What it speaks.
    pub protocol: Protocol,
    /// The filters it subscribes to.
    pub filters: Vec<String>,
    /// For raw: the topic that its frames are published to.
    pub publishes_to: Option<String>,
    /// Whether it offers permessage-deflate.
    pub deflate: bool,
    /// At which QoS it subscribes. For STOMP, 1 is `ack:client-individual`.
    pub qos: QoS,
    /// For MQTT: its client id, if it is not to be made up.
    pub client_id: Option<String>,
    /// For MQTT: that it speaks version 5 and resumes a session, which is kept so long when the connection ends.
    pub session_expiry_seconds: Option<u32>,
}

impl Role {
    /// The HTTP request.
    #[must_use]
    pub fn upgrade(&self) -> Vec<u8> {
        let (path, token) = match self.protocol {
            Protocol::Raw => (self.raw_path(), "raw"),
            Protocol::Mqtt => ("/mqtt".to_owned(), "mqtt"),
            Protocol::Stomp => ("/stomp".to_owned(), "v12.stomp"),
        };
        let extension = if self.deflate {
            "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n"
        } else {
            ""
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {token}\r\n{extension}\r\n"
        )
        .into_bytes()
    }

    /// What follows the 101, and how many answers it brings.
    #[must_use]
    pub fn opening(&self, client: usize) -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        match self.protocol {
            Protocol::Raw => (bytes, 0),
            Protocol::Mqtt => {
                let client_id = self.client_id.clone().unwrap_or_else(|| format!("load-{client}"));
                let connect = match self.session_expiry_seconds {
                    Some(seconds) => mqtt::connect_to_session(&client_id, seconds),
                    None => mqtt::connect(&client_id),
                };
                frame(&mut bytes, BINARY, &connect);
                if self.filters.is_empty() {
                    return (bytes, 1);
                }
                bytes.extend_from_slice(&self.subscribe(&self.filters));
                (bytes, 2)
            }
            Protocol::Stomp => {
                frame(&mut bytes, TEXT, stomp::CONNECT);
                for (id, filter) in self.filters.iter().enumerate() {
                    frame(&mut bytes, TEXT, &stomp::subscribe(id, filter, self.qos));
                }
                (bytes, 1 + self.filters.len())
            }
        }
    }

    /// An MQTT subscription to all of these, for one answer.
    #[must_use]
    pub fn subscribe(&self, filters: &[String]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, BINARY, &mqtt::subscribe(filters, self.qos, self.session_expiry_seconds.is_some()));
        bytes
    }

    fn raw_path(&self) -> String {
        let mut query: Vec<String> =
            self.filters.iter().map(|filter| format!("t={}", percent_encoded(filter))).collect();
        if !query.is_empty() {
            query.push("last=0".to_owned());
        }
        query.extend(self.publishes_to.iter().map(|topic| format!("pub={}", percent_encoded(topic))));
        format!("/ws?{}", query.join("&"))
    }
}

/// A published message as a masked WebSocket frame, with the place of its time stamp.
#[derive(Clone, Debug)]
pub struct Publish {
    bytes: Vec<u8>,
    stamp_at: usize,
    stamp_mask: [u8; 16],
    /// Where an acknowledged one has its packet id, and the mask there.
    packet_id: Option<(usize, [u8; 2])>,
}

impl Publish {
    /// Encodes a publication of `payload`, whose stamp begins at `stamp_in_payload`. For STOMP, QoS 1 is a RECEIPT.
    #[must_use]
    pub fn new(protocol: Protocol, topic: &str, payload: &[u8], stamp_in_payload: usize, qos: QoS) -> Self {
        let (opcode, message, after) = match protocol {
            // The payload is text, and goes as text: that is what a dashboard's publisher sends.
            Protocol::Raw => (TEXT, payload.to_vec(), 0),
            Protocol::Mqtt => (BINARY, mqtt::publish(topic, payload, qos, Retain::No), 0),
            Protocol::Stomp => (TEXT, stomp::send(topic, payload, qos), 1),
        };
        let is_acked = protocol == Protocol::Mqtt && qos != QoS::AtMostOnce;
        let payload_from_end = after + payload.len();
        Self::framed(opcode, &message, payload_from_end, stamp_in_payload, is_acked)
    }

    /// An acknowledged MQTT publication that the broker keeps as the value of `topic`.
    #[must_use]
    pub fn retained(topic: &str, payload: &[u8]) -> Self {
        let message = mqtt::publish(topic, payload, QoS::AtLeastOnce, Retain::Yes);
        Self::framed(BINARY, &message, payload.len(), 0, true)
    }

    fn framed(
        opcode: u8,
        message: &[u8],
        payload_from_end: usize,
        stamp_in_payload: usize,
        is_acked: bool,
    ) -> Self {
        let mut bytes = Vec::new();
        frame(&mut bytes, opcode, message);
        let in_message = message.len() - payload_from_end;
        let in_frame = bytes.len() - payload_from_end;
        Self {
            bytes,
            stamp_at: in_frame + stamp_in_payload,
            stamp_mask: mask_at(in_message + stamp_in_payload),
            // It stands before the payload.
            packet_id: is_acked.then(|| (in_frame - 2, mask_at(in_message - 2))),
        }
    }

    /// Appends the frame with this time in it, and with this packet id if it is to be acknowledged.
    pub fn append(&self, out: &mut Vec<u8>, now_ns: u64, packet_id: u16) {
        let start = out.len();
        let at = start + self.stamp_at;
        out.extend_from_slice(&self.bytes);
        if let Some((id_at, mask)) = self.packet_id {
            let place = out.get_mut(start + id_at..start + id_at + 2).unwrap_or_default();
            let masked = packet_id.to_be_bytes().into_iter().zip(mask);
            place.iter_mut().zip(masked).for_each(|(byte, (plain, mask))| *byte = plain ^ mask);
        }
        let digits = b"0123456789abcdef";
        let stamp = out.get_mut(at..at + 16).unwrap_or_default();
        for (index, (byte, mask)) in stamp.iter_mut().zip(self.stamp_mask).enumerate() {
            let nibble = usize::try_from(now_ns >> (60 - 4 * index) & 15).unwrap_or(0);
            *byte = digits.get(nibble).unwrap_or(&b'0') ^ mask;
        }
    }
}

/// Where a delivery's time stamp stands, counted from the end of its payload.
#[derive(Clone, Copy, Debug)]
pub struct StampFromEnd(pub usize);

/// What a stretch of bytes held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Publications.
    pub deliveries: u64,
    /// Those among them that were sent because the subscription is new.
    pub retained: u64,
    /// PUBACK, RECEIPT.
    pub pubacks: u64,
    /// A CONNACK said that the session was kept.
    pub session_present: bool,
    /// CONNACK, SUBACK, CONNECTED, RECEIPT.
    pub answers: usize,
    /// Deliveries that came deflated.
    pub deflated: u64,
    /// Pings to answer.
    pub pings: u32,
    /// The broker closed, or said something no client of this program should hear.
    pub closed: bool,
}

/// Counts what a broker sends. Keeps only an MQTT packet that is split over WebSocket messages.
#[derive(Debug, Default)]
pub struct Ear {
    split_packet: Vec<u8>,
    inflater: Option<Box<Decompress>>,
    /// PUBACK or ACK that are owed, one behind the other.
    acks: Vec<u8>,
    /// For STOMP: that deliveries are to be acknowledged. Otherwise their headers need not be read.
    owes_acks: bool,
}

impl Ear {
    /// The ear of a client in this role.
    #[must_use]
    pub fn of(role: &Role) -> Self {
        Self { owes_acks: role.qos != QoS::AtMostOnce, ..Self::default() }
    }

    /// Scans whole frames; answers with the number of bytes used up. `on_stamp` is called with each delivery's stamp.
    pub fn scan(
        &mut self,
        protocol: Protocol,
        bytes: &[u8],
        stamp: StampFromEnd,
        heard: &mut Heard,
        mut on_stamp: Option<&mut dyn FnMut(u64)>,
    ) -> usize {
        let mut used = 0;
        while let Some((head, start, length)) = frame_header(bytes.get(used..).unwrap_or_default()) {
            let Some(payload) = bytes.get(used + start..used + start + length) else { break };
            used += start + length;
            match head & 0x0F {
                9 => heard.pings += 1,
                8 => heard.closed = true,
                0xA => {}
                _ if head & 0x40 != 0 => {
                    // Deflated: one delivery, for the publisher's messages are all one delivery each.
                    heard.deliveries += 1;
                    heard.deflated += 1;
                    if let Some(on_stamp) = on_stamp.as_deref_mut() {
                        let inflated = self.inflate(payload);
                        read_stamp(trailing_nul_off(protocol, &inflated), stamp, on_stamp);
                    }
                }
                _ => self.message(protocol, payload, stamp, heard, on_stamp.as_deref_mut()),
            }
        }
        used
    }

    fn message(
        &mut self,
        protocol: Protocol,
        payload: &[u8],
        stamp: StampFromEnd,
        heard: &mut Heard,
        on_stamp: Option<&mut (dyn FnMut(u64) + '_)>,
    ) {
        match protocol {
            Protocol::Raw => {
                heard.deliveries += 1;
                on_stamp.into_iter().for_each(|on_stamp| read_stamp(payload, stamp, on_stamp));
            }
            Protocol::Stomp => match payload.first() {
                Some(b'M') => {
                    heard.deliveries += 1;
                    if self.owes_acks {
                        stomp::acknowledge(payload, &mut self.acks);
                    }
                    let body = trailing_nul_off(protocol, payload);
                    on_stamp.into_iter().for_each(|on_stamp| read_stamp(body, stamp, on_stamp));
                }
                Some(b'C') => heard.answers += 1,
                // Of a subscription that opens, or of a publication.
                Some(b'R') => {
                    heard.answers += 1;
                    heard.pubacks += 1;
                }
                Some(b'E') => heard.closed = true,
                _ => {}
            },
            Protocol::Mqtt if self.split_packet.is_empty() => {
                let used = mqtt::scan(payload, stamp, heard, &mut self.acks, on_stamp);
                self.split_packet.extend_from_slice(payload.get(used..).unwrap_or_default());
            }
            Protocol::Mqtt => {
                let mut joined = std::mem::take(&mut self.split_packet);
                joined.extend_from_slice(payload);
                let used = mqtt::scan(&joined, stamp, heard, &mut self.acks, on_stamp);
                self.split_packet.extend_from_slice(joined.get(used..).unwrap_or_default());
            }
        }
    }

    /// Appends all acknowledgements that are owed as one frame: neither MQTT packets [MQTT-6.0.0-2] nor STOMP frames need
    /// begin with a message, and a WebSocket frame for each would cost the generator as much as the broker.
    pub fn append_acks(&mut self, protocol: Protocol, out: &mut Vec<u8>) {
        if !self.acks.is_empty() {
            frame(out, if protocol == Protocol::Stomp { TEXT } else { BINARY }, &self.acks);
            self.acks.clear();
        }
    }

    fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let inflater = self.inflater.get_or_insert_with(|| Box::new(Decompress::new(false)));
        inflater.reset(false);
        let mut out = Vec::with_capacity(64 * 1024);
        // RFC 7692 §7.2.2: the empty block that the sender dropped is put back.
        let tailed = [payload, &[0, 0, 0xFF, 0xFF]].concat();
        // A message that does not inflate yields no stamp, and the missing sample is seen in the count.
        let _status = inflater.decompress_vec(&tailed, &mut out, FlushDecompress::Sync);
        out
    }
}

const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
/// One mask for all: a broker unmasks what it gets, and a zero mask could be a shortcut.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// An empty pong.
pub const PONG: [u8; 6] = [0x8A, 0x80, 0x37, 0xFA, 0x21, 0x3D];

fn frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => out.push(0x80 | length),
        (_, Ok(length)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// What masks the bytes from here on in a message.
fn mask_at<const N: usize>(in_message: usize) -> [u8; N] {
    let mut masks = [0; N];
    let mask = MASK.iter().cycle().skip(in_message % 4);
    masks.iter_mut().zip(mask).for_each(|(byte, mask)| *byte = *mask);
    masks
}

/// First byte, length of the header, length of the payload.
fn frame_header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    match *bytes {
        [head, length @ ..=125, ..] => Some((head, 2, usize::from(length))),
        [head, 126, a, b, ..] => Some((head, 4, usize::from(u16::from_be_bytes([a, b])))),
        [head, 127, a, b, c, d, e, f, g, h, ..] => {
            Some((head, 10, usize::try_from(u64::from_be_bytes([a, b, c, d, e, f, g, h])).ok()?))
        }
        _ => None,
    }
}

/// Calls `on_stamp` with the time in `payload`, if one is there.
pub(crate) fn read_stamp(payload: &[u8], stamp: StampFromEnd, on_stamp: &mut dyn FnMut(u64)) {
    let digits = payload.len().checked_sub(stamp.0).and_then(|at| payload.get(at..at + 16));
    let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    if let Some(ns) = text.and_then(|text| u64::from_str_radix(text, 16).ok()) {
        on_stamp(ns);
    }
}

fn trailing_nul_off(protocol: Protocol, message: &[u8]) -> &[u8] {
    if protocol == Protocol::Stomp { message.strip_suffix(b"\0").unwrap_or(message) } else { message }
}

fn percent_encoded(text: &str) -> String {
    text.replace('%', "%25").replace('+', "%2B").replace('#', "%23").replace('&', "%26")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker's frame: not masked.
    fn served(head: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![head, 126];
        bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn check(protocol: Protocol, bytes: &[u8], stamp_from_end: usize, deliveries: u64, stamps: &[u64]) {
        let (mut ear, mut heard, mut seen) = (Ear::default(), Heard::default(), Vec::new());
        let mut on_stamp = |ns| seen.push(ns);
        let used = ear.scan(protocol, bytes, StampFromEnd(stamp_from_end), &mut heard, Some(&mut on_stamp));
        assert_eq!((used, heard.deliveries, seen.as_slice()), (bytes.len(), deliveries, stamps));
    }

    #[test]
    fn finds_the_stamp_in_each_protocol() {
        let payload = b"{\"ts\":\"00000000000000ff\"}";
        check(Protocol::Raw, &served(TEXT, payload), payload.len() - 7, 1, &[255]);
        let packet = mqtt::publish("a/b", payload, QoS::AtMostOnce, Retain::No);
        check(Protocol::Mqtt, &served(BINARY, &packet), payload.len() - 7, 1, &[255]);
        let message = [b"MESSAGE\nsubscription:0\n\n", payload.as_slice(), b"\0"].concat();
        check(Protocol::Stomp, &served(TEXT, &message), payload.len() - 7, 1, &[255]);
    }

    #[test]
    fn counts_packets_that_share_or_straddle_messages() {
        let packet = mqtt::publish("a", b"0000000000000001", QoS::AtMostOnce, Retain::No);
        let twice = [packet.as_slice(), packet.as_slice()].concat();
        check(Protocol::Mqtt, &served(BINARY, &twice), 16, 2, &[1, 1]);
        let (left, right) = packet.split_at(7);
        let split = [served(BINARY, left), served(BINARY, right)].concat();
        check(Protocol::Mqtt, &split, 16, 1, &[1]);
    }

    fn unmasked(frame: &[u8]) -> Vec<u8> {
        let (_, start, length) = frame_header(&[&[frame[0], frame[1] & 0x7F], &frame[2..]].concat()).unwrap();
        let masked = &frame[start + 4..];
        assert_eq!(masked.len(), length);
        masked.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }

    #[test]
    fn a_published_frame_carries_its_stamp_under_the_mask() {
        for protocol in [Protocol::Raw, Protocol::Mqtt, Protocol::Stomp] {
            let publish = Publish::new(protocol, "a/b", b"xxx0000000000000000yy", 3, QoS::AtMostOnce);
            let mut bytes = Vec::new();
            publish.append(&mut bytes, 0xABCD, 1);
            let unmasked = unmasked(&bytes);
            let text = String::from_utf8_lossy(&unmasked).into_owned();
            assert!(text.contains("xxx000000000000abcdyy"), "{text}");
        }
    }

    #[test]
    fn an_acknowledged_frame_carries_its_packet_id_under_the_mask() {
        // Topics of several lengths, so that the id meets every place of the mask.
        for topic in ["a", "ab", "abc", "abcd"] {
            let publish = Publish::new(Protocol::Mqtt, topic, &[b'0'; 200], 3, QoS::AtLeastOnce);
            let mut bytes = b"before".to_vec();
            publish.append(&mut bytes, 0, 0x1234);
            let mut expected = mqtt::publish(topic, &[b'0'; 200], QoS::AtLeastOnce, Retain::No);
            let at = expected.len() - 202;
            expected[at..at + 2].copy_from_slice(&[0x12, 0x34]);
            assert_eq!(unmasked(&bytes[6..]), expected);
        }
    }

    #[test]
    fn acknowledgements_of_one_read_leave_in_one_frame() {
        let mut ear = Ear::default();
        let packet = mqtt::publish("a", b"0000000000000001", QoS::AtLeastOnce, Retain::No);
        let bytes = served(BINARY, &packet).repeat(3);
        ear.scan(Protocol::Mqtt, &bytes, StampFromEnd(16), &mut Heard::default(), None);
        let mut out = Vec::new();
        ear.append_acks(Protocol::Mqtt, &mut out);
        assert_eq!(unmasked(&out), [0x40, 2, 0, 0].repeat(3));
        out.clear();
        ear.append_acks(Protocol::Mqtt, &mut out);
        assert!(out.is_empty());
    }
}

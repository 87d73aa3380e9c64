//! What a client says, encoded once, and how it counts what it hears without copying it.
//! Trusts the broker's bytes no further than to stay in bounds. RFC 6455, MQTT 3.1.1, STOMP 1.2.

use flate2::{Decompress, FlushDecompress};

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Payload mode: the topic is in the URL.
    Raw,
    /// MQTT 3.1.1, QoS 0.
    Mqtt,
    /// STOMP 1.2, `ack:auto`.
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
                frame(&mut bytes, BINARY, &mqtt_connect(client));
                if self.filters.is_empty() {
                    return (bytes, 1);
                }
                frame(&mut bytes, BINARY, &mqtt_subscribe(&self.filters));
                (bytes, 2)
            }
            Protocol::Stomp => {
                let connect = "CONNECT\naccept-version:1.2\nhost:localhost\nheart-beat:0,0\n\n\0";
                frame(&mut bytes, TEXT, connect.as_bytes());
                for (id, filter) in self.filters.iter().enumerate() {
                    let subscribe =
                        format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{filter}\nreceipt:r{id}\n\n\0");
                    frame(&mut bytes, TEXT, subscribe.as_bytes());
                }
                (bytes, 1 + self.filters.len())
            }
        }
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
}

impl Publish {
    /// Encodes a publication of `payload`, whose stamp begins at `stamp_in_payload`.
    #[must_use]
    pub fn new(protocol: Protocol, topic: &str, payload: &[u8], stamp_in_payload: usize) -> Self {
        let (opcode, message, after) = match protocol {
            // The payload is text, and goes as text: that is what a dashboard's publisher sends.
            Protocol::Raw => (TEXT, payload.to_vec(), 0),
            Protocol::Mqtt => (BINARY, mqtt_publish(topic, payload), 0),
            Protocol::Stomp => (TEXT, stomp_send(topic, payload), 1),
        };
        let mut bytes = Vec::new();
        frame(&mut bytes, opcode, &message);
        let stamp_at = bytes.len() - after - payload.len() + stamp_in_payload;
        let in_message = message.len() - after - payload.len() + stamp_in_payload;
        let mut stamp_mask = [0; 16];
        let mask = MASK.iter().cycle().skip(in_message % 4);
        stamp_mask.iter_mut().zip(mask).for_each(|(byte, mask)| *byte = *mask);
        Self { bytes, stamp_at, stamp_mask }
    }

    /// Appends the frame with this time in it.
    pub fn append(&self, out: &mut Vec<u8>, now_ns: u64) {
        let at = out.len() + self.stamp_at;
        out.extend_from_slice(&self.bytes);
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
}

impl Ear {
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
                    let body = trailing_nul_off(protocol, payload);
                    on_stamp.into_iter().for_each(|on_stamp| read_stamp(body, stamp, on_stamp));
                }
                Some(b'C' | b'R') => heard.answers += 1,
                Some(b'E') => heard.closed = true,
                _ => {}
            },
            Protocol::Mqtt if self.split_packet.is_empty() => {
                let used = packets(payload, stamp, heard, on_stamp);
                self.split_packet.extend_from_slice(payload.get(used..).unwrap_or_default());
            }
            Protocol::Mqtt => {
                let mut joined = std::mem::take(&mut self.split_packet);
                joined.extend_from_slice(payload);
                let used = packets(&joined, stamp, heard, on_stamp);
                self.split_packet.extend_from_slice(joined.get(used..).unwrap_or_default());
            }
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

/// Counts whole packets; answers with the bytes used up.
fn packets(
    bytes: &[u8],
    stamp: StampFromEnd,
    heard: &mut Heard,
    mut on_stamp: Option<&mut (dyn FnMut(u64) + '_)>,
) -> usize {
    let mut used = 0;
    while let Some((start, length)) = remaining_length(bytes.get(used..).unwrap_or_default()) {
        let Some(packet) = bytes.get(used..used + start + length) else { break };
        used += packet.len();
        match packet.first().map_or(0, |byte| byte >> 4) {
            3 => {
                heard.deliveries += 1;
                if let Some(on_stamp) = on_stamp.as_deref_mut() {
                    read_stamp(packet, stamp, on_stamp);
                }
            }
            2 => {
                heard.answers += 1;
                heard.closed |= packet.get(3) != Some(&0);
            }
            9 => {
                heard.answers += 1;
                heard.closed |= packet.last() == Some(&0x80);
            }
            _ => {}
        }
    }
    used
}

fn remaining_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (index, byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((index + 2, length));
        }
    }
    None
}

fn read_stamp(payload: &[u8], stamp: StampFromEnd, on_stamp: &mut dyn FnMut(u64)) {
    let digits = payload.len().checked_sub(stamp.0).and_then(|at| payload.get(at..at + 16));
    let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    if let Some(ns) = text.and_then(|text| u64::from_str_radix(text, 16).ok()) {
        on_stamp(ns);
    }
}

fn trailing_nul_off(protocol: Protocol, message: &[u8]) -> &[u8] {
    if protocol == Protocol::Stomp { message.strip_suffix(b"\0").unwrap_or(message) } else { message }
}

fn mqtt_connect(client: usize) -> Vec<u8> {
    let id = format!("load-{client}");
    let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
    mqtt_string(&mut body, &id);
    mqtt_packet(0x10, &body)
}

fn mqtt_subscribe(filters: &[String]) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        mqtt_string(&mut body, filter);
        body.push(0);
    }
    mqtt_packet(0x82, &body)
}

fn mqtt_publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    mqtt_string(&mut body, topic);
    body.extend_from_slice(payload);
    mqtt_packet(0x30, &body)
}

fn mqtt_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn mqtt_packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        packet.push(u8::try_from(length & 0x7F).unwrap_or(0) | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn stomp_send(topic: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "SEND\ndestination:/topic/{topic}\ncontent-type:text/plain\ncontent-length:{}\n\n",
        payload.len()
    );
    [head.as_bytes(), payload, b"\0"].concat()
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
        let packet = mqtt_publish("a/b", payload);
        check(Protocol::Mqtt, &served(BINARY, &packet), payload.len() - 7, 1, &[255]);
        let message = [b"MESSAGE\nsubscription:0\n\n", payload.as_slice(), b"\0"].concat();
        check(Protocol::Stomp, &served(TEXT, &message), payload.len() - 7, 1, &[255]);
    }

    #[test]
    fn counts_packets_that_share_or_straddle_messages() {
        let packet = mqtt_publish("a", b"0000000000000001");
        let twice = [packet.as_slice(), packet.as_slice()].concat();
        check(Protocol::Mqtt, &served(BINARY, &twice), 16, 2, &[1, 1]);
        let (left, right) = packet.split_at(7);
        let split = [served(BINARY, left), served(BINARY, right)].concat();
        check(Protocol::Mqtt, &split, 16, 1, &[1]);
    }

    #[test]
    fn a_published_frame_carries_its_stamp_under_the_mask() {
        for protocol in [Protocol::Raw, Protocol::Mqtt, Protocol::Stomp] {
            let publish = Publish::new(protocol, "a/b", b"xxx0000000000000000yy", 3);
            let mut bytes = Vec::new();
            publish.append(&mut bytes, 0xABCD);
            let (_, start, length) =
                frame_header(&[&[bytes[0], bytes[1] & 0x7F], &bytes[2..]].concat()).unwrap();
            let unmasked: Vec<u8> =
                bytes[start + 4..].iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(unmasked.len(), length);
            let text = String::from_utf8_lossy(&unmasked).into_owned();
            assert!(text.contains("xxx000000000000abcdyy"), "{text}");
        }
    }
}

//! MQTT 3.1.1 and 5 as far as the load generator speaks it: packets to bytes, and a scan that counts and owes
//! acknowledgements. Knows no WebSocket frame. Spec: OASIS MQTT 3.1.1, 5.0.

use tidegate_protocol::publication::QoS;

use crate::wire::{Heard, StampFromEnd, read_stamp};

/// Whether the broker is to keep a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retain {
    /// As a topic's value.
    Yes,
    /// No.
    No,
}

const V3_1_1: u8 = 4;
const V5: u8 = 5;
const CLEAN: u8 = 2;
const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
const RETAIN_BIT: u8 = 1;

/// A clean session of 3.1.1, without keep-alive.
pub(crate) fn connect(client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', V3_1_1, CLEAN, 0, 0];
    string(&mut body, client_id);
    packet(0x10, &body)
}

/// A session of version 5 that is resumed if it is known, and kept so long when the connection ends.
pub(crate) fn connect_to_session(client_id: &str, expiry_seconds: u32) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', V5, 0, 0, 0, 5, SESSION_EXPIRY_INTERVAL];
    body.extend_from_slice(&expiry_seconds.to_be_bytes());
    string(&mut body, client_id);
    packet(0x10, &body)
}

/// A subscription to all of these at one QoS.
pub(crate) fn subscribe(filters: &[String], qos: QoS, is_v5: bool) -> Vec<u8> {
    let mut body = vec![0, 1];
    if is_v5 {
        body.push(0); // no properties
    }
    for filter in filters {
        string(&mut body, filter);
        body.push(qos as u8);
    }
    packet(0x82, &body)
}

/// A publication of 3.1.1. An acknowledged one has the packet id 0 until it gets its own.
pub(crate) fn publish(topic: &str, payload: &[u8], qos: QoS, retain: Retain) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, topic);
    if qos != QoS::AtMostOnce {
        body.extend_from_slice(&[0, 0]);
    }
    body.extend_from_slice(payload);
    let retain = if retain == Retain::Yes { RETAIN_BIT } else { 0 };
    packet(0x30 | (qos as u8) << 1 | retain, &body)
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
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

/// Counts whole packets and appends the acknowledgements that they call for; answers with the bytes used up.
pub(crate) fn scan(
    bytes: &[u8],
    stamp: StampFromEnd,
    heard: &mut Heard,
    acks: &mut Vec<u8>,
    mut on_stamp: Option<&mut (dyn FnMut(u64) + '_)>,
) -> usize {
    let mut used = 0;
    while let Some((start, length)) = remaining_length(bytes.get(used..).unwrap_or_default()) {
        let Some(packet) = bytes.get(used..used + start + length) else { break };
        used += packet.len();
        let head = packet.first().copied().unwrap_or(0);
        match head >> 4 {
            3 => {
                heard.deliveries += 1;
                heard.retained += u64::from(head & RETAIN_BIT);
                if head & 6 != 0 {
                    acknowledge(packet, start, acks);
                }
                if let Some(on_stamp) = on_stamp.as_deref_mut() {
                    read_stamp(packet, stamp, on_stamp);
                }
            }
            4 => heard.pubacks += 1,
            2 => {
                heard.answers += 1;
                heard.session_present = packet.get(start) == Some(&1);
                heard.closed |= packet.get(start + 1) != Some(&0);
            }
            9 => {
                heard.answers += 1;
                // Behind the packet id: granted QoS, or a failure from 0x80 on.
                let codes = packet.get(start + 2..).unwrap_or_default();
                heard.closed |= codes.iter().any(|code| *code >= 0x80);
            }
            14 => heard.closed = true,
            _ => {}
        }
    }
    used
}

/// Appends the PUBACK of a publication whose variable header begins at `start`.
fn acknowledge(publish: &[u8], start: usize, acks: &mut Vec<u8>) {
    let body = publish.get(start..).unwrap_or_default();
    let [high, low, rest @ ..] = body else { return };
    let topic_bytes = usize::from(u16::from_be_bytes([*high, *low]));
    if let Some([high, low, ..]) = rest.get(topic_bytes..) {
        acks.extend_from_slice(&[0x40, 2, *high, *low]);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Heard, expected_acks: &[u8]) {
        let (mut heard, mut acks) = (Heard::default(), Vec::new());
        assert_eq!(scan(bytes, StampFromEnd(16), &mut heard, &mut acks, None), bytes.len());
        assert_eq!((heard, acks.as_slice()), (expected, expected_acks));
    }

    #[test]
    fn an_acknowledged_delivery_owes_a_puback_with_its_id() {
        let mut packet = publish("a/b", b"payload", QoS::AtLeastOnce, Retain::Yes);
        packet[7..9].copy_from_slice(&[0x12, 0x34]);
        let once = Heard { deliveries: 1, retained: 1, ..Heard::default() };
        check(&packet, once, &[0x40, 2, 0x12, 0x34]);
        let free = publish("a/b", b"payload", QoS::AtMostOnce, Retain::No);
        check(&free, Heard { deliveries: 1, ..Heard::default() }, &[]);
    }

    #[test]
    fn a_refused_subscription_is_heard_in_any_place() {
        let suback = |codes: &[u8]| packet(0x90, &[&[0, 1, 0], codes].concat());
        check(&suback(&[0, 1, 0]), Heard { answers: 1, ..Heard::default() }, &[]);
        check(&suback(&[0, 0x97, 0]), Heard { answers: 1, closed: true, ..Heard::default() }, &[]);
    }

    #[test]
    fn a_connack_says_whether_the_session_was_kept() {
        for session_present in [false, true] {
            let connack = [0x20, 3, u8::from(session_present), 0, 0];
            check(&connack, Heard { answers: 1, session_present, ..Heard::default() }, &[]);
        }
    }
}

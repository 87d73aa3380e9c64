//! STOMP 1.2 as far as the load generator speaks it: frames to bytes, and the ACK that a delivery calls for.
//! Knows no WebSocket frame. Spec: STOMP 1.2.

use tidegate_protocol::publication::QoS;

/// Without heart-beats.
pub(crate) const CONNECT: &[u8] = b"CONNECT\naccept-version:1.2\nhost:localhost\nheart-beat:0,0\n\n\0";

/// A subscription that is answered. At QoS 1 each delivery is to be acknowledged.
pub(crate) fn subscribe(id: usize, topic: &str, qos: QoS) -> Vec<u8> {
    let ack = if qos == QoS::AtMostOnce { "" } else { "ack:client-individual\n" };
    let destination = destination(topic);
    format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\n{ack}receipt:r{id}\n\n\0").into_bytes()
}

/// A publication; at QoS 1 it asks for a RECEIPT.
pub(crate) fn send(topic: &str, payload: &[u8], qos: QoS) -> Vec<u8> {
    let receipt = if qos == QoS::AtMostOnce { "" } else { "receipt:r\n" };
    let head = format!(
        "SEND\ndestination:{}\n{receipt}content-type:text/plain\ncontent-length:{}\n\n",
        destination(topic),
        payload.len()
    );
    [head.as_bytes(), payload, b"\0"].concat()
}

/// What begins with a slash, as `/queue/jobs` does, is a destination already.
fn destination(topic: &str) -> String {
    if topic.starts_with('/') { topic.to_owned() } else { format!("/topic/{topic}") }
}

/// Appends the ACK of a MESSAGE that carries an `ack` header. Its value goes back as it came, escapes included.
pub(crate) fn acknowledge(message: &[u8], acks: &mut Vec<u8>) {
    let mut head = message.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    if let Some(id) = head.find_map(|line| line.strip_prefix(b"ack:")) {
        acks.extend_from_slice(b"ACK\nid:");
        acks.extend_from_slice(id);
        acks.extend_from_slice(b"\n\n\0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &[u8], expected: &[u8]) {
        let mut acks = Vec::new();
        acknowledge(message, &mut acks);
        assert_eq!(acks, expected);
    }

    #[test]
    fn a_message_owes_the_ack_that_its_head_names() {
        check(b"MESSAGE\nsubscription:0\nack:a\\c7\nx:y\n\nbody\0", b"ACK\nid:a\\c7\n\n\0");
        // Of a subscription that acknowledges nothing; what looks like a header is the body's.
        check(b"MESSAGE\nsubscription:0\n\nack:7\n\0", b"");
    }

    #[test]
    fn a_destination_of_another_kind_is_taken_as_it_is() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(
            text(send("/queue/jobs", b"x", QoS::AtLeastOnce))
                .contains("destination:/queue/jobs\nreceipt:r\n")
        );
        assert!(
            text(send("load/all", b"x", QoS::AtMostOnce)).contains("destination:/topic/load/all\ncontent")
        );
    }
}

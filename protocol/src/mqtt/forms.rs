//! The wire forms of PUBLISH that all receivers of a version share, and the properties of a publication as
//! MQTT 5 writes them. Spec: OASIS MQTT 5.0 §3.3.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::codec::put_binary;
use super::encode::{PublishHead, publish_first_byte, publish_packet_id_at};
use super::packet::Version;
use crate::publication::{Form, Publication, QoS};
use crate::session::{Delivery, Forms, Stamped};
use crate::websocket::MessageKind;
use crate::websocket::prepared::Prepared;

/// 3.1 and 3.1.1 at QoS 0, RETAIN 0.
pub static MQTT3_LIVE: Form = Form {
    slot: 0,
    lacks_expiry: false,
    behind_head: None,
    encode: |publication| publish(publication, Version::V3_1_1, AT_QOS0),
};
/// 3.1 and 3.1.1 at QoS 0, RETAIN 1.
pub static MQTT3_RETAINED: Form = Form {
    slot: 1,
    lacks_expiry: false,
    behind_head: None,
    encode: |publication| publish(publication, Version::V3_1_1, Flags { retain: true, ..AT_QOS0 }),
};
/// 5 at QoS 0, RETAIN 0.
pub static MQTT5_LIVE: Form = Form {
    slot: 2,
    lacks_expiry: true,
    behind_head: None,
    encode: |publication| publish(publication, Version::V5, AT_QOS0),
};
/// 5 at QoS 0, RETAIN 1.
pub static MQTT5_RETAINED: Form = Form {
    slot: 3,
    lacks_expiry: true,
    behind_head: None,
    encode: |publication| publish(publication, Version::V5, Flags { retain: true, ..AT_QOS0 }),
};
/// 3.1 and 3.1.1 at QoS 1, to be stamped.
static MQTT3_ACKED: Form = Form {
    slot: 14,
    lacks_expiry: false,
    behind_head: None,
    encode: |publication| publish(publication, Version::V3_1_1, AT_QOS1),
};
/// 5 at QoS 1, to be stamped.
static MQTT5_ACKED: Form = Form {
    slot: 15,
    lacks_expiry: true,
    behind_head: None,
    encode: |publication| publish(publication, Version::V5, AT_QOS1),
};

/// All of them.
pub static FORMS: &[&Form] =
    &[&MQTT3_LIVE, &MQTT3_RETAINED, &MQTT5_LIVE, &MQTT5_RETAINED, &MQTT3_ACKED, &MQTT5_ACKED];

/// What the first byte of a PUBLISH says in a form.
#[derive(Clone, Copy)]
struct Flags {
    qos: QoS,
    retain: bool,
}

const AT_QOS0: Flags = Flags { qos: QoS::AtMostOnce, retain: false };
const AT_QOS1: Flags = Flags { qos: QoS::AtLeastOnce, retain: false };

/// The forms for subscribers of a version.
pub(super) const fn of_version(version: Version) -> &'static Forms {
    static MQTT3: Forms = Forms { live: &MQTT3_LIVE, retained: Some(&MQTT3_RETAINED) };
    static MQTT5: Forms = Forms { live: &MQTT5_LIVE, retained: Some(&MQTT5_RETAINED) };
    match version {
        Version::V3_1 | Version::V3_1_1 => &MQTT3,
        Version::V5 => &MQTT5,
    }
}

/// A first PUBLISH above QoS 0, if nothing in it is the receiver's alone but packet identifier and flags.
pub(super) fn stamped(delivery: &Delivery, version: Version, qos: QoS, packet_id: u16) -> Option<Stamped> {
    let publication = &delivery.publication;
    let form = if version == Version::V5 { &MQTT5_ACKED } else { &MQTT3_ACKED };
    let is_plain = delivery.identifier.is_none()
        && delivery.also.is_none()
        && publication.payload.len() <= STAMPED_PAYLOAD_BYTES_MAX
        && form.serves(publication);
    if !is_plain {
        return None;
    }
    let message = publication.prepared(form).message();
    Some(Stamped {
        publication: Arc::clone(publication),
        form,
        tag: delivery.tag,
        first: publish_first_byte(delivery.is_dup(), qos, delivery.retain),
        packet_id,
        packet_id_at: u32::try_from(publish_packet_id_at(message, publication.topic.as_str())).ok()?,
    })
}

/// A larger payload is not copied for each receiver.
const STAMPED_PAYLOAD_BYTES_MAX: usize = 1024;

fn publish(publication: &Publication, version: Version, flags: Flags) -> Prepared {
    let mut properties = BytesMut::new();
    if version == Version::V5 {
        put_publisher_properties(publication, &mut properties);
    }
    let head = PublishHead {
        // [MQTT-3.3.1-2], [MQTT-4.3.1-1]
        dup: false,
        qos: flags.qos,
        retain: flags.retain,
        topic: publication.topic.as_str(),
        packet_id: 0,
        properties: (version == Version::V5).then_some(&properties),
        payload_len: publication.payload.len(),
    };
    Prepared::new(MessageKind::Binary, &[&head.encode(), &publication.payload])
}

/// What the publisher said, unaltered and in order [MQTT-3.3.2-17]. Another protocol may have let pass what
/// MQTT has no room for (U+0000, more than 65 535 bytes): such a property is left out, since it would make every
/// receiver close its connection.
pub(super) fn put_publisher_properties(publication: &Publication, out: &mut BytesMut) {
    if publication.is_text {
        out.put_slice(&[0x01, 0x01]); // [MQTT-3.3.2-4]
    }
    let Some(properties) = publication.properties.as_deref() else { return };
    if let Some(content_type) = properties.content_type.as_deref().filter(|text| is_string(text)) {
        out.put_u8(0x03); // [MQTT-3.3.2-20]
        put_binary(out, content_type.as_bytes());
    }
    if let Some(response_topic) = &properties.response_topic {
        out.put_u8(0x08); // [MQTT-3.3.2-15]
        put_binary(out, response_topic.as_str().as_bytes());
    }
    if let Some(data) = properties.correlation_data.as_ref().filter(|data| data.len() <= STRING_BYTES_MAX) {
        out.put_u8(0x09); // [MQTT-3.3.2-16]
        put_binary(out, data);
    }
    for (name, value) in properties.user.iter().filter(|(name, value)| is_string(name) && is_string(value)) {
        put_user_property(out, name, value); // [MQTT-3.3.2-18], of a will [MQTT-3.1.3-10]
    }
}

pub(super) fn put_user_property(out: &mut BytesMut, name: &str, value: &str) {
    out.put_u8(0x26);
    put_binary(out, name.as_bytes());
    put_binary(out, value.as_bytes());
}

const STRING_BYTES_MAX: usize = 65_535;

fn is_string(text: &str) -> bool {
    text.len() <= STRING_BYTES_MAX && !text.as_bytes().contains(&0)
}

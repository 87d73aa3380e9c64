//! rmqtt-codec's reading of MQTT 3.1 and 3.1.1.

use bytes::BytesMut;
use rmqtt_codec::v3::{self, SubscribeReturnCode};
use tidegate_protocol::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, Publish, ReasonCode, SubAck, Subscribe, Subscription,
    Unsubscribe, Version, Will,
};
use tidegate_protocol::session::RetainHandling;
use tokio_util::codec::{Decoder, Encoder};

use crate::packets::{filter, qos, topic};

pub(crate) fn read(mut bytes: BytesMut) -> (Packet, Option<BytesMut>) {
    let (theirs, _) = v3::Codec::new(0).decode(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    let mut written = BytesMut::new();
    v3::Codec::new(0).encode(theirs.clone(), &mut written).unwrap();
    let packet = meaning(theirs);
    // It writes CONNECT of 3.1.1 only.
    let is_3_1 = matches!(&packet, Packet::Connect(connect) if connect.version == Version::V3_1);
    (packet, (!is_3_1).then_some(written))
}

fn meaning(theirs: v3::Packet) -> Packet {
    let ack = |packet_id: std::num::NonZeroU16| Ack::new(packet_id.get(), ReasonCode::SUCCESS);
    match theirs {
        v3::Packet::Connect(connect) => Packet::Connect(Box::new(of_connect(&connect))),
        v3::Packet::ConnectAck(connack) => Packet::ConnAck(ConnAck {
            session_present: connack.session_present,
            // MQTT 5 has the return codes of 3.x from 0x84 on, in their order.
            reason: match u8::from(connack.return_code) {
                0 => ReasonCode::SUCCESS,
                1 => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
                2 => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
                3 => ReasonCode::SERVER_UNAVAILABLE,
                4 => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
                _ => ReasonCode::NOT_AUTHORIZED,
            },
            properties: None,
        }),
        v3::Packet::Publish(publish) => Packet::Publish(Publish {
            dup: publish.dup,
            qos: qos(publish.qos.value()),
            retain: publish.retain,
            topic: Some(topic(&publish.topic)),
            packet_id: publish.packet_id.map_or(0, std::num::NonZeroU16::get),
            properties: None,
            payload: publish.payload,
        }),
        v3::Packet::PublishAck { packet_id } => Packet::PubAck(ack(packet_id)),
        v3::Packet::PublishReceived { packet_id } => Packet::PubRec(ack(packet_id)),
        v3::Packet::PublishRelease { packet_id } => Packet::PubRel(ack(packet_id)),
        v3::Packet::PublishComplete { packet_id } => Packet::PubComp(ack(packet_id)),
        v3::Packet::Subscribe { packet_id, topic_filters } => Packet::Subscribe(Subscribe {
            packet_id: packet_id.get(),
            properties: None,
            filters: topic_filters
                .iter()
                .map(|(text, max)| Subscription {
                    filter: Ok(filter(text)),
                    qos: qos(max.value()),
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: RetainHandling::Send,
                })
                .collect(),
        }),
        v3::Packet::SubscribeAck { packet_id, status } => Packet::SubAck(SubAck {
            packet_id: packet_id.get(),
            properties: None,
            reasons: status
                .iter()
                .map(|code| match code {
                    SubscribeReturnCode::Success(granted) => ReasonCode(granted.value()),
                    SubscribeReturnCode::Failure => ReasonCode::UNSPECIFIED_ERROR,
                })
                .collect(),
        }),
        v3::Packet::Unsubscribe { packet_id, topic_filters } => Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id.get(),
            properties: None,
            filters: topic_filters.iter().map(|text| Ok(filter(text))).collect(),
        }),
        v3::Packet::UnsubscribeAck { packet_id } => {
            Packet::UnsubAck(SubAck { packet_id: packet_id.get(), properties: None, reasons: Vec::new() })
        }
        v3::Packet::PingRequest => Packet::PingReq,
        v3::Packet::PingResponse => Packet::PingResp,
        v3::Packet::Disconnect => {
            Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties: None })
        }
    }
}

fn of_connect(connect: &v3::Connect) -> Connect {
    Connect {
        version: if connect.protocol.level() == 3 { Version::V3_1 } else { Version::V3_1_1 },
        clean_start: connect.clean_session,
        keep_alive_s: connect.keep_alive,
        client_id: connect.client_id.to_string().into(),
        will: connect.last_will.as_ref().map(|will| Will {
            topic: topic(&will.topic),
            payload: will.message.clone(),
            qos: qos(will.qos.value()),
            retain: will.retain,
            properties: None,
        }),
        user_name: connect.username.as_ref().map(|text| text.to_string().into()),
        password: connect.password.clone(),
        properties: None,
    }
}

//! rumqttc's reading of MQTT 3.1.1.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{self, ConnectReturnCode, SubscribeReasonCode};
use tidegate_protocol::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, Publish, ReasonCode, SubAck, Subscribe, Subscription,
    Unsubscribe, Version, Will,
};
use tidegate_protocol::session::RetainHandling;

use crate::packets::{filter, qos, topic};

pub(crate) fn read(mut bytes: BytesMut) -> (Packet, Option<BytesMut>) {
    let theirs = v4::Packet::read(&mut bytes, 1 << 20).unwrap();
    assert!(bytes.is_empty());
    let mut written = BytesMut::new();
    theirs.write(&mut written, 1 << 20).unwrap();
    (meaning(theirs), Some(written))
}

fn meaning(theirs: v4::Packet) -> Packet {
    let ack = |packet_id| Ack::new(packet_id, ReasonCode::SUCCESS);
    match theirs {
        v4::Packet::Connect(connect) => Packet::Connect(Box::new(of_connect(connect))),
        v4::Packet::ConnAck(connack) => Packet::ConnAck(ConnAck {
            session_present: connack.session_present,
            reason: match connack.code {
                ConnectReturnCode::Success => ReasonCode::SUCCESS,
                ConnectReturnCode::RefusedProtocolVersion => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
                ConnectReturnCode::BadClientId => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
                ConnectReturnCode::ServiceUnavailable => ReasonCode::SERVER_UNAVAILABLE,
                ConnectReturnCode::BadUserNamePassword => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
                ConnectReturnCode::NotAuthorized => ReasonCode::NOT_AUTHORIZED,
            },
            properties: None,
        }),
        v4::Packet::Publish(publish) => Packet::Publish(Publish {
            dup: publish.dup,
            qos: qos(publish.qos as u8),
            retain: publish.retain,
            topic: Some(topic(&publish.topic)),
            packet_id: publish.pkid,
            properties: None,
            payload: publish.payload,
        }),
        v4::Packet::PubAck(packet) => Packet::PubAck(ack(packet.pkid)),
        v4::Packet::PubRec(packet) => Packet::PubRec(ack(packet.pkid)),
        v4::Packet::PubRel(packet) => Packet::PubRel(ack(packet.pkid)),
        v4::Packet::PubComp(packet) => Packet::PubComp(ack(packet.pkid)),
        v4::Packet::Subscribe(subscribe) => Packet::Subscribe(Subscribe {
            packet_id: subscribe.pkid,
            properties: None,
            filters: subscribe
                .filters
                .iter()
                .map(|subscription| Subscription {
                    filter: Ok(filter(&subscription.path)),
                    qos: qos(subscription.qos as u8),
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: RetainHandling::Send,
                })
                .collect(),
        }),
        v4::Packet::SubAck(suback) => Packet::SubAck(SubAck {
            packet_id: suback.pkid,
            properties: None,
            reasons: suback
                .return_codes
                .iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(granted) => ReasonCode(*granted as u8),
                    SubscribeReasonCode::Failure => ReasonCode::UNSPECIFIED_ERROR,
                })
                .collect(),
        }),
        v4::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Unsubscribe {
            packet_id: unsubscribe.pkid,
            properties: None,
            filters: unsubscribe.topics.iter().map(|text| Ok(filter(text))).collect(),
        }),
        v4::Packet::UnsubAck(unsuback) => {
            Packet::UnsubAck(SubAck { packet_id: unsuback.pkid, properties: None, reasons: Vec::new() })
        }
        v4::Packet::PingReq => Packet::PingReq,
        v4::Packet::PingResp => Packet::PingResp,
        v4::Packet::Disconnect => {
            Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties: None })
        }
    }
}

fn of_connect(connect: v4::Connect) -> Connect {
    let (user_name, password) = connect.login.map(|login| (login.username, login.password)).unzip();
    Connect {
        version: Version::V3_1_1,
        clean_start: connect.clean_session,
        keep_alive_s: connect.keep_alive,
        client_id: connect.client_id.into(),
        will: connect.last_will.map(|will| Will {
            topic: topic(&will.topic),
            payload: will.message,
            qos: qos(will.qos as u8),
            retain: will.retain,
            properties: None,
        }),
        // Absent ones are empty here.
        user_name: user_name.filter(|text| !text.is_empty()).map(Into::into),
        password: password.filter(|text| !text.is_empty()).map(Bytes::from),
        properties: None,
    }
}

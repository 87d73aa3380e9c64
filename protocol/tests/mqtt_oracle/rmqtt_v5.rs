//! rmqtt-codec's reading of MQTT 5. It fills in what absence stands for, so that the two are one here.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::BytesMut;
use rmqtt_codec::types;
use rmqtt_codec::v5;
use tidegate_protocol::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, Properties, Publish, ReasonCode, SubAck, Subscribe,
    Subscription, Unsubscribe, Version, Will,
};
use tidegate_protocol::session::RetainHandling;
use tokio_util::codec::{Decoder, Encoder};

use crate::packets::{boxed, filter, qos, topic};

pub(crate) fn read(mut bytes: BytesMut) -> (Packet, Option<BytesMut>) {
    let (theirs, _) = v5::Codec::new(0, 0).decode(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    let mut written = BytesMut::new();
    v5::Codec::new(0, 0).encode(theirs.clone(), &mut written).unwrap();
    (meaning(theirs), Some(written))
}

fn meaning(theirs: v5::Packet) -> Packet {
    match theirs {
        v5::Packet::Connect(connect) => Packet::Connect(Box::new(of_connect(*connect))),
        v5::Packet::ConnectAck(connack) => Packet::ConnAck(of_connack(*connack)),
        v5::Packet::Publish(publish) => Packet::Publish(of_publish(*publish)),
        v5::Packet::PublishAck(ack) => Packet::PubAck(of_ack(ack)),
        v5::Packet::PublishReceived(ack) => Packet::PubRec(of_ack(ack)),
        v5::Packet::PublishRelease(ack) => Packet::PubRel(of_ack_2(ack)),
        v5::Packet::PublishComplete(ack) => Packet::PubComp(of_ack_2(ack)),
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe(of_subscribe(subscribe)),
        v5::Packet::SubscribeAck(suback) => Packet::SubAck(SubAck {
            packet_id: suback.packet_id.get(),
            properties: explained(suback.reason_string, suback.properties),
            reasons: suback.status.iter().map(|code| ReasonCode((*code).into())).collect(),
        }),
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Unsubscribe {
            packet_id: unsubscribe.packet_id.get(),
            properties: boxed(Properties {
                user: pairs(unsubscribe.user_properties),
                ..Properties::default()
            }),
            filters: unsubscribe.topic_filters.iter().map(|text| Ok(filter(text))).collect(),
        }),
        v5::Packet::UnsubscribeAck(unsuback) => Packet::UnsubAck(SubAck {
            packet_id: unsuback.packet_id.get(),
            properties: explained(unsuback.reason_string, unsuback.properties),
            reasons: unsuback.status.iter().map(|code| ReasonCode((*code).into())).collect(),
        }),
        v5::Packet::PingRequest => Packet::PingReq,
        v5::Packet::PingResponse => Packet::PingResp,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect(Disconnect {
            reason: ReasonCode(disconnect.reason_code.into()),
            properties: boxed(Properties {
                session_expiry_interval_s: disconnect.session_expiry_interval_secs,
                server_reference: text(disconnect.server_reference),
                reason_string: text(disconnect.reason_string),
                user: pairs(disconnect.user_properties),
                ..Properties::default()
            }),
        }),
        v5::Packet::Auth(auth) => Packet::Auth(Disconnect {
            reason: ReasonCode(auth.reason_code.into()),
            properties: boxed(Properties {
                authentication_method: text(auth.auth_method),
                authentication_data: auth.auth_data,
                reason_string: text(auth.reason_string),
                user: pairs(auth.user_properties),
                ..Properties::default()
            }),
        }),
    }
}

fn of_connect(connect: v5::Connect) -> Connect {
    Connect {
        version: Version::V5,
        clean_start: connect.clean_start,
        keep_alive_s: connect.keep_alive,
        client_id: connect.client_id.to_string().into(),
        will: connect.last_will.map(|will| Will {
            topic: topic(&will.topic),
            payload: will.message,
            qos: qos(will.qos.value()),
            retain: will.retain,
            properties: boxed(Properties {
                payload_format_indicator: will.is_utf8_payload,
                message_expiry_interval_s: will.message_expiry_interval.map(NonZeroU32::get),
                content_type: text(will.content_type),
                response_topic: text(will.response_topic),
                correlation_data: will.correlation_data,
                will_delay_interval_s: will.will_delay_interval_sec,
                user: pairs(will.user_properties),
                ..Properties::default()
            }),
        }),
        user_name: text(connect.username),
        password: connect.password,
        properties: boxed(Properties {
            session_expiry_interval_s: Some(connect.session_expiry_interval_secs).filter(|s| *s > 0),
            authentication_method: text(connect.auth_method),
            authentication_data: connect.auth_data,
            request_problem_information: (!connect.request_problem_info).then_some(false),
            request_response_information: connect.request_response_info.then_some(true),
            receive_maximum: connect.receive_max.map(NonZeroU16::get),
            topic_alias_maximum: Some(connect.topic_alias_max).filter(|max| *max > 0),
            maximum_packet_size: connect.max_packet_size.map(NonZeroU32::get),
            user: pairs(connect.user_properties),
            ..Properties::default()
        }),
    }
}

fn of_connack(connack: v5::ConnectAck) -> ConnAck {
    ConnAck {
        session_present: connack.session_present,
        reason: ReasonCode(connack.reason_code.into()),
        properties: boxed(Properties {
            session_expiry_interval_s: connack.session_expiry_interval_secs,
            assigned_client_identifier: text(connack.assigned_client_id),
            server_keep_alive_s: connack.server_keepalive_sec,
            authentication_method: text(connack.auth_method),
            authentication_data: connack.auth_data,
            response_information: text(connack.response_info),
            server_reference: text(connack.server_reference),
            reason_string: text(connack.reason_string),
            receive_maximum: Some(connack.receive_max.get()).filter(|max| *max < u16::MAX),
            topic_alias_maximum: Some(connack.topic_alias_max).filter(|max| *max > 0),
            maximum_qos: match connack.max_qos.value() {
                2 => None,
                max => Some(max == 1),
            },
            retain_available: (!connack.retain_available).then_some(false),
            maximum_packet_size: connack.max_packet_size,
            wildcard_subscription_available: (!connack.wildcard_subscription_available).then_some(false),
            subscription_identifiers_available: (!connack.subscription_identifiers_available)
                .then_some(false),
            shared_subscription_available: (!connack.shared_subscription_available).then_some(false),
            user: pairs(connack.user_properties),
            ..Properties::default()
        }),
    }
}

fn of_publish(publish: types::Publish) -> Publish {
    let properties = publish.properties.unwrap_or_default();
    Publish {
        dup: publish.dup,
        qos: qos(publish.qos.value()),
        retain: publish.retain,
        topic: Some(topic(&publish.topic)),
        packet_id: publish.packet_id.map_or(0, NonZeroU16::get),
        properties: boxed(Properties {
            payload_format_indicator: properties.is_utf8_payload.then_some(true),
            message_expiry_interval_s: properties.message_expiry_interval.map(NonZeroU32::get),
            content_type: text(properties.content_type),
            response_topic: text(properties.response_topic),
            correlation_data: properties.correlation_data,
            topic_alias: properties.topic_alias.map(NonZeroU16::get),
            subscription_identifiers: properties.subscription_ids.iter().map(|id| id.get()).collect(),
            user: pairs(properties.user_properties),
            ..Properties::default()
        }),
        payload: publish.payload,
    }
}

fn of_ack(ack: v5::PublishAck) -> Ack {
    let properties = explained(ack.reason_string, ack.properties);
    Ack { packet_id: ack.packet_id.get(), reason: ReasonCode(ack.reason_code.into()), properties }
}

fn of_ack_2(ack: v5::PublishAck2) -> Ack {
    let properties = explained(ack.reason_string, ack.properties);
    Ack { packet_id: ack.packet_id.get(), reason: ReasonCode(ack.reason_code.into()), properties }
}

fn of_subscribe(subscribe: v5::Subscribe) -> Subscribe {
    Subscribe {
        packet_id: subscribe.packet_id.get(),
        properties: boxed(Properties {
            subscription_identifiers: subscribe.id.iter().map(|id| id.get()).collect(),
            user: pairs(subscribe.user_properties),
            ..Properties::default()
        }),
        filters: subscribe
            .topic_filters
            .iter()
            .map(|(text, options)| Subscription {
                filter: Ok(filter(text)),
                qos: qos(options.qos.value()),
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                retain_handling: match options.retain_handling {
                    v5::RetainHandling::AtSubscribe => RetainHandling::Send,
                    v5::RetainHandling::AtSubscribeNew => RetainHandling::SendIfNew,
                    v5::RetainHandling::NoAtSubscribe => RetainHandling::Skip,
                },
            })
            .collect(),
    }
}

fn explained(
    reason_string: Option<impl AsRef<str>>,
    user: Vec<(impl AsRef<str>, impl AsRef<str>)>,
) -> Option<Box<Properties>> {
    boxed(Properties { reason_string: text(reason_string), user: pairs(user), ..Properties::default() })
}

fn text(text: Option<impl AsRef<str>>) -> Option<Box<str>> {
    text.map(|text| text.as_ref().into())
}

fn pairs(pairs: Vec<(impl AsRef<str>, impl AsRef<str>)>) -> Vec<(Box<str>, Box<str>)> {
    pairs.iter().map(|(name, value)| (name.as_ref().into(), value.as_ref().into())).collect()
}

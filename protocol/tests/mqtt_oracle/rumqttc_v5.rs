//! rumqttc's reading of MQTT 5.

use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5;
use tidegate_protocol::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, Properties, Publish, ReasonCode, SubAck, Subscribe,
    Subscription, Unsubscribe, Version, Will,
};
use tidegate_protocol::session::RetainHandling;

use crate::packets::{boxed, filter, qos, topic};

pub(crate) fn read(mut bytes: BytesMut) -> (Packet, Option<BytesMut>) {
    let theirs = v5::Packet::read(&mut bytes, None).unwrap();
    assert!(bytes.is_empty());
    let mut written = BytesMut::new();
    theirs.write(&mut written, None).unwrap();
    let packet = meaning(theirs);
    // It writes a byte more than it counts.
    let is_wrong = matches!(&packet, Packet::Disconnect(disconnect) if disconnect.properties.is_none());
    (packet, (!is_wrong).then_some(written))
}

/// Their names of the codes are the standard's words, but for these.
fn code(theirs: impl std::fmt::Debug) -> ReasonCode {
    let words = |text: &str| text.to_lowercase().replace([' ', '-'], "");
    let theirs = format!("{theirs:?}");
    let name = match theirs.as_str() {
        "NormalDisconnection" | "Success(AtMostOnce)" => "Success",
        "DisconnectWithWillMessage" => "Disconnect with Will Message",
        "Success(AtLeastOnce)" => "Granted QoS 1",
        "Success(ExactlyOnce)" => "Granted QoS 2",
        "BadUserNamePassword" => "Bad User Name or Password",
        "Unspecified" => "Unspecified error",
        "ImplementationSpecific" => "Implementation specific error",
        "PkidInUse" => "Packet Identifier in use",
        "SharedSubscriptionNotSupported" => "Shared Subscriptions not supported",
        "SubscriptionIdNotSupported" => "Subscription Identifiers not supported",
        name => name,
    };
    let is_named = |code: &ReasonCode| words(code.name()) == words(name);
    (0..=0xFF).map(ReasonCode).find(is_named).unwrap_or_else(|| panic!("no code is called {theirs}"))
}

fn meaning(theirs: v5::Packet) -> Packet {
    macro_rules! explained {
        ($packet:expr) => {
            $packet.properties.and_then(|list| {
                boxed(Properties {
                    reason_string: text(list.reason_string),
                    user: pairs(list.user_properties),
                    ..Properties::default()
                })
            })
        };
    }
    macro_rules! ack {
        ($packet:expr) => {
            Ack { packet_id: $packet.pkid, reason: code($packet.reason), properties: explained!($packet) }
        };
    }
    match theirs {
        v5::Packet::Connect(connect, will, login) => {
            Packet::Connect(Box::new(of_connect(connect, will, login)))
        }
        v5::Packet::ConnAck(connack) => Packet::ConnAck(of_connack(connack)),
        v5::Packet::Publish(publish) => Packet::Publish(of_publish(publish)),
        v5::Packet::PubAck(packet) => Packet::PubAck(ack!(packet)),
        v5::Packet::PubRec(packet) => Packet::PubRec(ack!(packet)),
        v5::Packet::PubRel(packet) => Packet::PubRel(ack!(packet)),
        v5::Packet::PubComp(packet) => Packet::PubComp(ack!(packet)),
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe(of_subscribe(subscribe)),
        v5::Packet::SubAck(suback) => Packet::SubAck(SubAck {
            packet_id: suback.pkid,
            reasons: suback.return_codes.iter().map(code).collect(),
            properties: explained!(suback),
        }),
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Unsubscribe {
            packet_id: unsubscribe.pkid,
            properties: unsubscribe.properties.and_then(|list| {
                boxed(Properties { user: pairs(list.user_properties), ..Properties::default() })
            }),
            filters: unsubscribe.filters.iter().map(|text| Ok(filter(text))).collect(),
        }),
        v5::Packet::UnsubAck(unsuback) => Packet::UnsubAck(SubAck {
            packet_id: unsuback.pkid,
            reasons: unsuback.reasons.iter().map(code).collect(),
            properties: explained!(unsuback),
        }),
        v5::Packet::PingReq(_) => Packet::PingReq,
        v5::Packet::PingResp(_) => Packet::PingResp,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect(Disconnect {
            reason: code(disconnect.reason_code),
            properties: disconnect.properties.and_then(|list| {
                boxed(Properties {
                    session_expiry_interval_s: list.session_expiry_interval,
                    server_reference: text(list.server_reference),
                    reason_string: text(list.reason_string),
                    user: pairs(list.user_properties),
                    ..Properties::default()
                })
            }),
        }),
        v5::Packet::Auth(_) => unreachable!("it reads no AUTH"),
    }
}

fn of_connect(connect: v5::Connect, will: Option<v5::LastWill>, login: Option<v5::Login>) -> Connect {
    let (user_name, password) = login.map(|login| (login.username, login.password)).unzip();
    Connect {
        version: Version::V5,
        clean_start: connect.clean_start,
        keep_alive_s: connect.keep_alive,
        client_id: connect.client_id.into(),
        will: will.map(|will| Will {
            topic: topic(std::str::from_utf8(&will.topic).unwrap()),
            payload: will.message,
            qos: qos(will.qos as u8),
            retain: will.retain,
            properties: will.properties.and_then(|list| {
                boxed(Properties {
                    payload_format_indicator: flag(list.payload_format_indicator),
                    message_expiry_interval_s: list.message_expiry_interval,
                    content_type: text(list.content_type),
                    response_topic: text(list.response_topic),
                    correlation_data: list.correlation_data,
                    will_delay_interval_s: list.delay_interval,
                    user: pairs(list.user_properties),
                    ..Properties::default()
                })
            }),
        }),
        // Absent ones are empty here.
        user_name: user_name.filter(|text| !text.is_empty()).map(Into::into),
        password: password.filter(|text| !text.is_empty()).map(Bytes::from),
        properties: connect.properties.and_then(|list| {
            boxed(Properties {
                session_expiry_interval_s: list.session_expiry_interval,
                authentication_method: text(list.authentication_method),
                authentication_data: list.authentication_data,
                request_problem_information: flag(list.request_problem_info),
                request_response_information: flag(list.request_response_info),
                receive_maximum: list.receive_maximum,
                topic_alias_maximum: list.topic_alias_max,
                maximum_packet_size: list.max_packet_size,
                user: pairs(list.user_properties),
                ..Properties::default()
            })
        }),
    }
}

fn of_connack(connack: v5::ConnAck) -> ConnAck {
    ConnAck {
        session_present: connack.session_present,
        reason: code(connack.code),
        properties: connack.properties.and_then(|list| {
            boxed(Properties {
                session_expiry_interval_s: list.session_expiry_interval,
                assigned_client_identifier: text(list.assigned_client_identifier),
                server_keep_alive_s: list.server_keep_alive,
                authentication_method: text(list.authentication_method),
                authentication_data: list.authentication_data,
                response_information: text(list.response_information),
                server_reference: text(list.server_reference),
                reason_string: text(list.reason_string),
                receive_maximum: list.receive_max,
                topic_alias_maximum: list.topic_alias_max,
                maximum_qos: flag(list.max_qos),
                retain_available: flag(list.retain_available),
                maximum_packet_size: list.max_packet_size,
                wildcard_subscription_available: flag(list.wildcard_subscription_available),
                subscription_identifiers_available: flag(list.subscription_identifiers_available),
                shared_subscription_available: flag(list.shared_subscription_available),
                user: pairs(list.user_properties),
                ..Properties::default()
            })
        }),
    }
}

fn of_publish(publish: v5::Publish) -> Publish {
    Publish {
        dup: publish.dup,
        qos: qos(publish.qos as u8),
        retain: publish.retain,
        topic: Some(topic(std::str::from_utf8(&publish.topic).unwrap())),
        packet_id: publish.pkid,
        properties: publish.properties.and_then(|list| {
            boxed(Properties {
                payload_format_indicator: flag(list.payload_format_indicator),
                message_expiry_interval_s: list.message_expiry_interval,
                content_type: text(list.content_type),
                response_topic: text(list.response_topic),
                correlation_data: list.correlation_data,
                topic_alias: list.topic_alias,
                subscription_identifiers: identifiers(&list.subscription_identifiers),
                user: pairs(list.user_properties),
                ..Properties::default()
            })
        }),
        payload: publish.payload,
    }
}

fn of_subscribe(subscribe: v5::Subscribe) -> Subscribe {
    Subscribe {
        packet_id: subscribe.pkid,
        properties: subscribe.properties.and_then(|list| {
            boxed(Properties {
                subscription_identifiers: identifiers(list.id.as_slice()),
                user: pairs(list.user_properties),
                ..Properties::default()
            })
        }),
        filters: subscribe
            .filters
            .iter()
            .map(|subscription| Subscription {
                filter: Ok(filter(&subscription.path)),
                qos: qos(subscription.qos as u8),
                no_local: subscription.nolocal,
                retain_as_published: subscription.preserve_retain,
                retain_handling: match subscription.retain_forward_rule {
                    v5::RetainForwardRule::OnEverySubscribe => RetainHandling::Send,
                    v5::RetainForwardRule::OnNewSubscribe => RetainHandling::SendIfNew,
                    v5::RetainForwardRule::Never => RetainHandling::Skip,
                },
            })
            .collect(),
    }
}

fn identifiers(theirs: &[usize]) -> Vec<u32> {
    theirs.iter().map(|id| u32::try_from(*id).unwrap()).collect()
}

fn flag(value: Option<u8>) -> Option<bool> {
    value.map(|value| value == 1)
}

fn text(text: Option<String>) -> Option<Box<str>> {
    text.map(Into::into)
}

fn pairs(pairs: Vec<(String, String)>) -> Vec<(Box<str>, Box<str>)> {
    pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

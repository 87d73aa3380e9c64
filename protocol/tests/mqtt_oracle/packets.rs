//! Packets of every type with every property that they may have.
//!
//! Optional values are never what their absence stands for: the other codecs do not keep the two apart.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use tidegate_protocol::mqtt::Role;
use tidegate_protocol::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, PacketType, Properties, Publish, ReasonCode, SubAck,
    Subscribe, Subscription, Unsubscribe, Version, Will,
};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::RetainHandling;
use tidegate_protocol::topic::{Topic, TopicFilter, TopicLimits};

type Sent = (Role, Packet);

pub(crate) fn qos(bits: u8) -> QoS {
    QoS::from_u8(bits).unwrap()
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::parse(name, &TopicLimits::STANDARD).unwrap()
}

pub(crate) fn filter(name: &str) -> TopicFilter {
    TopicFilter::parse(name, &TopicLimits::STANDARD).unwrap()
}

fn any_qos() -> impl Strategy<Value = QoS> {
    (0u8..3).prop_map(qos)
}

fn text() -> impl Strategy<Value = Box<str>> {
    "[a-zäß漢😀 /]{1,40}".prop_map(Into::into)
}

fn name() -> impl Strategy<Value = Topic> {
    text().prop_map(|text| topic(&text))
}

fn any_filter() -> impl Strategy<Value = TopicFilter> {
    "([a-zäß漢]{0,8}/|\\+/){0,4}(#|\\+|[a-z]{1,8})".prop_map(|text| filter(&text))
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..400).prop_map(Bytes::from)
}

/// All properties at once; [`only`] takes those of a packet.
fn all_properties() -> impl Strategy<Value = Properties> {
    let flag = || any::<bool>();
    let of_message = (flag(), of(1u32..), of(text()), of(text()), of(bytes()), of(1u16..));
    let of_session = (of(1u32..), of(text()), of(any::<u16>()), of(1u16..u16::MAX), of(1u16..), of(1u32..));
    let of_server = (of(text()), of(text()), of(text()), of(flag()), flag(), flag(), flag(), flag());
    let of_client = (of((text(), of(bytes()))), flag(), flag(), of(any::<u32>()));
    let of_all = (vec((text(), text()), 0..4), vec(1u32..=268_435_455, 0..4));
    (of_message, of_session, of_server, of_client, of_all).prop_map(
        |(message, session, server, client, (user, subscription_identifiers))| Properties {
            payload_format_indicator: message.0.then_some(true),
            message_expiry_interval_s: message.1,
            content_type: message.2,
            response_topic: message.3,
            correlation_data: message.4,
            topic_alias: message.5,
            session_expiry_interval_s: session.0,
            assigned_client_identifier: session.1,
            server_keep_alive_s: session.2,
            receive_maximum: session.3,
            topic_alias_maximum: session.4,
            maximum_packet_size: session.5,
            response_information: server.0,
            server_reference: server.1,
            reason_string: server.2,
            maximum_qos: server.3,
            retain_available: server.4.then_some(false),
            wildcard_subscription_available: server.5.then_some(false),
            subscription_identifiers_available: server.6.then_some(false),
            shared_subscription_available: server.7.then_some(false),
            authentication_data: client.0.as_ref().and_then(|(_, data)| data.clone()),
            authentication_method: client.0.map(|(method, _)| method),
            request_problem_information: client.1.then_some(false),
            request_response_information: client.2.then_some(true),
            will_delay_interval_s: client.3,
            user,
            subscription_identifiers,
        },
    )
}

/// The properties with these identifiers, and user properties.
fn only(ids: &'static [u8]) -> impl Strategy<Value = Option<Box<Properties>>> {
    all_properties().prop_map(move |all| {
        let mut some = Properties { user: all.user, ..Properties::default() };
        for id in ids {
            match id {
                0x01 => some.payload_format_indicator = all.payload_format_indicator,
                0x02 => some.message_expiry_interval_s = all.message_expiry_interval_s,
                0x03 => some.content_type.clone_from(&all.content_type),
                0x08 => some.response_topic.clone_from(&all.response_topic),
                0x09 => some.correlation_data.clone_from(&all.correlation_data),
                0x0B => some.subscription_identifiers.clone_from(&all.subscription_identifiers),
                0x11 => some.session_expiry_interval_s = all.session_expiry_interval_s,
                0x12 => some.assigned_client_identifier.clone_from(&all.assigned_client_identifier),
                0x13 => some.server_keep_alive_s = all.server_keep_alive_s,
                0x15 => some.authentication_method.clone_from(&all.authentication_method),
                0x16 => some.authentication_data.clone_from(&all.authentication_data),
                0x17 => some.request_problem_information = all.request_problem_information,
                0x18 => some.will_delay_interval_s = all.will_delay_interval_s,
                0x19 => some.request_response_information = all.request_response_information,
                0x1A => some.response_information.clone_from(&all.response_information),
                0x1C => some.server_reference.clone_from(&all.server_reference),
                0x1F => some.reason_string.clone_from(&all.reason_string),
                0x21 => some.receive_maximum = all.receive_maximum,
                0x22 => some.topic_alias_maximum = all.topic_alias_maximum,
                0x23 => some.topic_alias = all.topic_alias,
                0x24 => some.maximum_qos = all.maximum_qos,
                0x25 => some.retain_available = all.retain_available,
                0x27 => some.maximum_packet_size = all.maximum_packet_size,
                0x28 => some.wildcard_subscription_available = all.wildcard_subscription_available,
                0x29 => some.subscription_identifiers_available = all.subscription_identifiers_available,
                0x2A => some.shared_subscription_available = all.shared_subscription_available,
                _ => unreachable!("property {id:02X}"),
            }
        }
        boxed(some)
    })
}

pub(crate) fn boxed(properties: Properties) -> Option<Box<Properties>> {
    (properties != Properties::default()).then(|| Box::new(properties))
}

/// A code that this packet may carry.
fn code_of(packet: PacketType) -> impl Strategy<Value = ReasonCode> {
    let codes: Vec<ReasonCode> =
        (0..=0xFF).map(ReasonCode).filter(|code| code.is_allowed_in(packet)).collect();
    proptest::sample::select(codes)
}

fn connect(version: Version) -> impl Strategy<Value = Packet> {
    let is_v5 = version == Version::V5;
    let will = (name(), bytes(), any_qos(), any::<bool>(), only(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18]))
        .prop_map(move |(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties: properties.filter(|_| is_v5),
        });
    let properties = only(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x27]);
    let login = of((text(), of(text())));
    (text(), any::<u16>(), any::<bool>(), of(will), login, properties).prop_map(
        move |(client_id, keep_alive_s, clean_start, will, login, properties)| {
            let (user_name, password) = login.unzip();
            Packet::Connect(Box::new(Connect {
                version,
                clean_start,
                keep_alive_s,
                client_id,
                will,
                user_name,
                password: password.flatten().map(|text| Bytes::copy_from_slice(text.as_bytes())),
                properties: properties.filter(|_| is_v5),
            }))
        },
    )
}

fn publish(ids: &'static [u8], is_v5: bool) -> impl Strategy<Value = Packet> {
    (any_qos(), any::<(bool, bool)>(), name(), 1u16.., bytes(), only(ids)).prop_map(
        move |(qos, (dup, retain), topic, packet_id, payload, properties)| {
            let is_acknowledged = qos != QoS::AtMostOnce;
            Packet::Publish(Publish {
                dup: dup && is_acknowledged,
                qos,
                retain,
                topic: Some(topic),
                packet_id: if is_acknowledged { packet_id } else { 0 },
                properties: properties.filter(|_| is_v5),
                payload,
            })
        },
    )
}

fn ack(packet: PacketType, wrap: fn(Ack) -> Packet) -> impl Strategy<Value = Packet> {
    (1u16.., code_of(packet), only(&[0x1F]))
        .prop_map(move |(packet_id, reason, properties)| wrap(Ack { packet_id, reason, properties }))
}

fn ack_3(wrap: fn(Ack) -> Packet) -> impl Strategy<Value = Packet> {
    (1u16..).prop_map(move |packet_id| wrap(Ack::new(packet_id, ReasonCode::SUCCESS)))
}

fn subscribe(is_v5: bool) -> impl Strategy<Value = Packet> {
    let handling =
        proptest::sample::select(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::Skip]);
    let options = (any::<bool>(), any::<bool>(), handling)
        .prop_map(move |options| if is_v5 { options } else { (false, false, RetainHandling::Send) });
    let subscription = (any_filter(), any_qos(), options).prop_map(|(filter, qos, options)| Subscription {
        filter: Ok(filter),
        qos,
        no_local: options.0,
        retain_as_published: options.1,
        retain_handling: options.2,
    });
    (1u16.., vec(subscription, 1..5), only(&[0x0B])).prop_map(move |(packet_id, filters, properties)| {
        let properties = properties.filter(|_| is_v5).and_then(|mut list| {
            list.subscription_identifiers.truncate(1);
            boxed(*list)
        });
        Packet::Subscribe(Subscribe { packet_id, properties, filters })
    })
}

fn unsubscribe(is_v5: bool) -> impl Strategy<Value = Packet> {
    (1u16.., vec(any_filter().prop_map(Ok), 1..5), only(&[])).prop_map(
        move |(packet_id, filters, properties)| {
            Packet::Unsubscribe(Unsubscribe { packet_id, properties: properties.filter(|_| is_v5), filters })
        },
    )
}

fn connack(is_v5: bool) -> impl Strategy<Value = Packet> {
    let codes: Vec<ReasonCode> = (0..=0xFF)
        .map(ReasonCode)
        .filter(|code| code.is_allowed_in(PacketType::ConnAck) && (is_v5 || has_return_code(*code)))
        .collect();
    let properties = only(&[
        0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x27, 0x28, 0x29, 0x2A,
    ]);
    (any::<bool>(), proptest::sample::select(codes), properties).prop_map(
        move |(session_present, reason, properties)| {
            Packet::ConnAck(ConnAck {
                session_present: session_present && !reason.is_error(),
                reason,
                properties: properties.filter(|_| is_v5),
            })
        },
    )
}

/// Those that 3.1.1 §3.2.2.3 has, in MQTT 5's numbers.
fn has_return_code(code: ReasonCode) -> bool {
    matches!(code.0, 0x00 | 0x84..=0x88)
}

fn suback(packet: PacketType, wrap: fn(SubAck) -> Packet) -> impl Strategy<Value = Packet> {
    (1u16.., vec(code_of(packet), 1..5), only(&[0x1F]))
        .prop_map(move |(packet_id, reasons, properties)| wrap(SubAck { packet_id, properties, reasons }))
}

fn disconnect(codes: &'static [u8], ids: &'static [u8]) -> impl Strategy<Value = Packet> {
    (proptest::sample::select(codes), only(ids)).prop_map(|(code, properties)| {
        Packet::Disconnect(Disconnect { reason: ReasonCode(code), properties })
    })
}

fn auth(codes: &'static [u8]) -> impl Strategy<Value = Packet> {
    let properties = only(&[0x15, 0x16, 0x1F]).prop_map(|properties| {
        let mut properties = properties.unwrap_or_default();
        properties.authentication_method.get_or_insert_with(|| "SCRAM-SHA-256".into());
        Some(properties)
    });
    (proptest::sample::select(codes), properties)
        .prop_map(|(code, properties)| Packet::Auth(Disconnect { reason: ReasonCode(code), properties }))
}

fn from(sender: Role, packet: impl Strategy<Value = Packet> + 'static) -> BoxedStrategy<Sent> {
    packet.prop_map(move |packet| (sender, packet)).boxed()
}

pub(crate) fn of_mqtt_3(version: Version) -> impl Strategy<Value = Sent> {
    let success = Disconnect { reason: ReasonCode::SUCCESS, properties: None };
    let suback =
        (1u16.., vec(proptest::sample::select(&[0u8, 1, 2, 0x80]), 1..5)).prop_map(|(packet_id, codes)| {
            let reasons = codes.into_iter().map(ReasonCode).collect();
            Packet::SubAck(SubAck { packet_id, properties: None, reasons })
        });
    let unsuback = (1u16..)
        .prop_map(|packet_id| Packet::UnsubAck(SubAck { packet_id, properties: None, reasons: Vec::new() }));
    proptest::strategy::Union::new([
        from(Role::Client, connect(version)),
        from(Role::Server, connack(false)),
        from(Role::Client, publish(&[], false)),
        from(Role::Server, publish(&[], false)),
        from(Role::Client, ack_3(Packet::PubAck)),
        from(Role::Client, ack_3(Packet::PubRec)),
        from(Role::Client, ack_3(Packet::PubRel)),
        from(Role::Server, ack_3(Packet::PubComp)),
        from(Role::Client, subscribe(false)),
        from(Role::Server, suback),
        from(Role::Client, unsubscribe(false)),
        from(Role::Server, unsuback),
        from(Role::Client, Just(Packet::PingReq)),
        from(Role::Server, Just(Packet::PingResp)),
        from(Role::Client, Just(Packet::Disconnect(success))),
    ])
}

/// What §3.14.2.1 has a client and a server send.
const CLIENT_GOODBYES: &[u8] =
    &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
const SERVER_GOODBYES: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
    0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

pub(crate) fn of_mqtt_5() -> impl Strategy<Value = Sent> {
    const MESSAGE: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23];
    const DELIVERY: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23];
    proptest::strategy::Union::new([
        from(Role::Client, connect(Version::V5)),
        from(Role::Server, connack(true)),
        from(Role::Client, publish(MESSAGE, true)),
        from(Role::Server, publish(DELIVERY, true)),
        from(Role::Client, ack(PacketType::PubAck, Packet::PubAck)),
        from(Role::Client, ack(PacketType::PubRec, Packet::PubRec)),
        from(Role::Client, ack(PacketType::PubRel, Packet::PubRel)),
        from(Role::Server, ack(PacketType::PubComp, Packet::PubComp)),
        from(Role::Client, subscribe(true)),
        from(Role::Server, suback(PacketType::SubAck, Packet::SubAck)),
        from(Role::Client, unsubscribe(true)),
        from(Role::Server, suback(PacketType::UnsubAck, Packet::UnsubAck)),
        from(Role::Client, Just(Packet::PingReq)),
        from(Role::Server, Just(Packet::PingResp)),
        from(Role::Client, disconnect(CLIENT_GOODBYES, &[0x11, 0x1F])),
        from(Role::Server, disconnect(SERVER_GOODBYES, &[0x1C, 0x1F])),
        from(Role::Client, auth(&[0x18, 0x19])),
        from(Role::Server, auth(&[0x00, 0x18])),
    ])
}

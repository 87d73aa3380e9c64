//! MQTT 5: enhanced authentication, before CONNACK and again later.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper may panic")]

mod mqtt_support;

use std::time::Duration;

use bytes::Bytes;
use mqtt_support::{Conversation, check_ends, connect, props, publish};
use tidegate_protocol::mqtt::Settings;
use tidegate_protocol::mqtt::packet::{Connect, Disconnect, Packet, Properties, ReasonCode, Version};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    Authenticate, CloseKind, Connected, Credentials, Refusal, Reply, Request, Token,
};

use Version::{V3_1_1, V5};

fn auth(reason: ReasonCode, method: Option<&str>, data: &'static [u8]) -> Packet {
    let data = (!data.is_empty()).then(|| Bytes::from_static(data));
    let properties = method.map(|method| {
        Box::new(Properties {
            authentication_method: Some(method.into()),
            authentication_data: data,
            ..Properties::default()
        })
    });
    Packet::Auth(Disconnect { reason, properties })
}

fn goes_on(data: &'static [u8]) -> Packet {
    auth(ReasonCode::CONTINUE_AUTHENTICATION, Some("M"), data)
}

fn begins_anew(data: &'static [u8]) -> Packet {
    auth(ReasonCode::REAUTHENTICATE, Some("M"), data)
}

fn challenge(data: &'static [u8]) -> Reply {
    Reply::Challenge(Bytes::from_static(data))
}

fn with_method() -> Connect {
    let properties = props(Properties {
        authentication_method: Some("M".into()),
        authentication_data: Some(Bytes::from_static(b"1")),
        ..Properties::default()
    });
    Connect { user_name: Some("u".into()), properties, ..connect(V5) }
}

/// CONNECT with the method `M`, and the broker's first challenge `2`.
fn challenged() -> Conversation {
    let mut talk = Conversation::open(V5, &Settings::default());
    talk.say(&Packet::Connect(Box::new(with_method())));
    let (token, Request::Connect(asked)) = talk.request() else { panic!("CONNECT") };
    let data = Bytes::from_static(b"1");
    assert_eq!(asked.credentials, Some(Credentials::Exchange { method: "M".into(), data }));
    talk.reply(token, challenge(b"2"));
    assert_eq!(talk.hear(), goes_on(b"2"));
    talk
}

fn authenticated() -> Conversation {
    Conversation::connected(with_method(), &Settings::default())
}

/// The broker is asked with this; answered under the token.
fn asked(talk: &mut Conversation, method: Option<&str>, data: &'static [u8]) -> Token {
    let (token, Request::Authenticate(word)) = talk.request() else { panic!("AUTH asks the broker") };
    assert_eq!(word, Authenticate { method: method.map(Into::into), data: Bytes::from_static(data) });
    token
}

/// CONNACK with this code, no DISCONNECT, and the close.
fn check_refused(mut talk: Conversation, reason: ReasonCode, kind: CloseKind) {
    let Packet::ConnAck(connack) = talk.hear() else { panic!("CONNACK") };
    assert_eq!((connack.reason, connack.session_present), (reason, false));
    assert!(talk.hears_nothing() && talk.requests.is_empty());
    assert_eq!(talk.closed.unwrap().kind, kind);
}

#[test]
fn an_exchange_goes_on_until_the_broker_is_content() {
    let mut talk = challenged();
    for (word, next) in [(&b"3"[..], &b"4"[..]), (b"5", b"6")] {
        talk.say(&goes_on(word));
        let token = asked(&mut talk, None, word);
        talk.reply(token, challenge(next));
        assert_eq!(talk.hear(), goes_on(next));
    }
    talk.say(&goes_on(b""));
    let token = asked(&mut talk, None, b"");
    assert!(!talk.session.wants().input);
    let authentication_data = Bytes::from_static(b"7");
    talk.reply(token, Reply::Connected(Box::new(Connected { authentication_data, ..Connected::default() })));
    let Packet::ConnAck(connack) = talk.hear() else { panic!("CONNACK") };
    let properties = connack.properties.unwrap();
    assert_eq!(connack.reason, ReasonCode::SUCCESS);
    assert_eq!(properties.authentication_method.as_deref(), Some("M"));
    assert_eq!(properties.authentication_data.as_deref(), Some(&b"7"[..]));
    talk.say(&Packet::PingReq);
    assert_eq!(talk.hear(), Packet::PingResp);
}

#[test]
fn the_brokers_refusal_of_an_exchange_is_a_connack() {
    for (refusal, reason, kind) in [
        (Refusal::BadMethod, ReasonCode::BAD_AUTHENTICATION_METHOD, CloseKind::AuthFailed),
        (Refusal::BadCredentials, ReasonCode::BAD_USER_NAME_OR_PASSWORD, CloseKind::AuthFailed),
        (Refusal::NotAuthorized, ReasonCode::NOT_AUTHORIZED, CloseKind::Denied),
    ] {
        let mut talk = challenged();
        talk.say(&goes_on(b"3"));
        let token = asked(&mut talk, None, b"3");
        talk.reply(token, Reply::Refused(refusal));
        check_refused(talk, reason, kind);
    }
}

#[test]
fn only_auth_and_disconnect_may_come_before_connack() {
    for packet in [
        Packet::PingReq,
        Packet::Publish(publish(QoS::AtMostOnce, 0)),
        Packet::Connect(Box::new(with_method())),
        auth(ReasonCode::CONTINUE_AUTHENTICATION, Some("N"), b"3"),
        auth(ReasonCode::CONTINUE_AUTHENTICATION, None, b""),
        auth(ReasonCode::SUCCESS, Some("M"), b"3"),
        begins_anew(b"3"),
    ] {
        let mut talk = challenged();
        talk.say(&packet);
        check_refused(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);
    }
    let mut talk = challenged();
    talk.say(&Packet::Disconnect(Disconnect { reason: ReasonCode::SUCCESS, properties: None }));
    assert!(talk.hears_nothing() && talk.requests.is_empty(), "there is no will yet to decide about");
    assert_eq!(talk.closed.unwrap().kind, CloseKind::Normal);
}

#[test]
fn an_exchange_does_not_prolong_the_time_for_connect() {
    let mut talk = challenged();
    for word in [&b"3"[..], b"4", b"5"] {
        talk.pass(Duration::from_secs(3));
        talk.say(&goes_on(word));
        let token = asked(&mut talk, None, word);
        talk.reply(token, challenge(b"2"));
        talk.hear();
    }
    talk.pass(Duration::from_secs(1));
    check_refused(talk, ReasonCode::NOT_AUTHORIZED, CloseKind::AuthTimeout);
}

#[test]
fn a_client_may_authenticate_again_while_all_else_goes_on() {
    let mut talk = authenticated();
    for _ in 0..2 {
        talk.say(&begins_anew(b"1"));
        let token = asked(&mut talk, Some("M"), b"1");
        talk.say(&Packet::PingReq);
        assert_eq!(talk.hear(), Packet::PingResp);
        talk.reply(token, challenge(b"2"));
        assert_eq!(talk.hear(), goes_on(b"2"));
        talk.say(&Packet::PingReq);
        assert_eq!(talk.hear(), Packet::PingResp);
        talk.say(&goes_on(b"3"));
        let token = asked(&mut talk, None, b"3");
        talk.reply(token, Reply::Authenticated(Bytes::from_static(b"4")));
        assert_eq!(talk.hear(), auth(ReasonCode::SUCCESS, Some("M"), b"4"));
        assert!(talk.is_quiet());
    }
}

#[test]
fn a_client_that_fails_to_authenticate_again_is_disconnected() {
    for refusal in [Refusal::BadCredentials, Refusal::NotAuthorized, Refusal::BadMethod] {
        let mut talk = authenticated();
        talk.say(&begins_anew(b"1"));
        let token = asked(&mut talk, Some("M"), b"1");
        talk.reply(token, Reply::Refused(refusal));
        check_ends(talk, ReasonCode::NOT_AUTHORIZED, CloseKind::AuthFailed);
    }
}

#[test]
fn auth_out_of_turn_ends_the_session() {
    for packets in [
        vec![goes_on(b"1")],
        vec![auth(ReasonCode::REAUTHENTICATE, Some("N"), b"1")],
        vec![auth(ReasonCode::REAUTHENTICATE, None, b"")],
        vec![auth(ReasonCode::SUCCESS, Some("M"), b"")],
        vec![begins_anew(b"1"), begins_anew(b"1")],
        vec![begins_anew(b"1"), goes_on(b"1")],
    ] {
        let mut talk = authenticated();
        for packet in &packets {
            talk.say(packet);
        }
        check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);
    }
    let mut talk = Conversation::online(V5);
    talk.say(&begins_anew(b"1"));
    check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);
    let mut talk = Conversation::online(V3_1_1);
    talk.say_bytes(&[0xF0, 0]);
    check_ends(talk, ReasonCode::MALFORMED_PACKET, CloseKind::ProtocolError);
}

#[test]
fn a_challenge_of_a_client_without_a_method_is_our_fault() {
    let mut talk = Conversation::open(V5, &Settings::default());
    talk.say(&Packet::Connect(Box::new(connect(V5))));
    let (token, _) = talk.request();
    talk.reply(token, challenge(b"1"));
    check_refused(talk, ReasonCode::UNSPECIFIED_ERROR, CloseKind::Internal);
}

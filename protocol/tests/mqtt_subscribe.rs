//! MQTT: SUBSCRIBE and UNSUBSCRIBE, and what the broker is asked.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

mod mqtt_support;

use std::num::NonZeroU32;

use mqtt_support::{Conversation, check_ends, connect, props, subscribe};
use tidegate_protocol::mqtt::packet::{
    Connect, Packet, Properties, ReasonCode, Subscribe, Subscription, Unsubscribe, Version,
};
use tidegate_protocol::mqtt::{MQTT3_LIVE, MQTT5_LIVE, Settings};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{
    CloseKind, Granted, Refusal, Reply, Request, RetainHandling, SubscriptionName,
};
use tidegate_protocol::topic::{ShareName, TopicFilter, TopicLimits};

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use Version::{V3_1_1, V5};

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &TopicLimits::STANDARD).unwrap()
}

fn unsubscribe(filters: &[&str]) -> Packet {
    let filters = filters.iter().map(|text| Ok(filter(text))).collect();
    Packet::Unsubscribe(Unsubscribe { packet_id: 6, properties: None, filters })
}

fn share(name: &str) -> ShareName {
    ShareName::parse(name, &TopicLimits::STANDARD).unwrap()
}

fn named(group: Option<&str>, text: &str) -> SubscriptionName {
    SubscriptionName::Filter { group: group.map(share), filter: filter(text) }
}

#[test]
fn subscribe_asks_and_suback_answers_in_order() {
    for (version, form) in [(V3_1_1, &MQTT3_LIVE), (V5, &MQTT5_LIVE)] {
        let mut talk = Conversation::online(version);
        talk.say(&subscribe(&[("a", ExactlyOnce), ("$share/g", AtMostOnce), ("b", AtMostOnce)], None));
        let (token, Request::Subscribe(asked)) = talk.request() else { panic!("SUBSCRIBE") };
        assert_eq!(asked.len(), 2);
        assert_eq!((asked[0].id, asked[0].qos), (None, ExactlyOnce));
        assert!(std::ptr::eq(asked[0].forms.unwrap().live, form));
        assert!(!talk.session.wants().input);
        talk.reply(
            token,
            Reply::Subscribed(vec![Ok(Granted { qos: ExactlyOnce }), Err(Refusal::NotAuthorized)]),
        );
        let Packet::SubAck(suback) = talk.hear() else { panic!("SUBACK") };
        let codes: Vec<u8> = suback.reasons.iter().map(|reason| reason.0).collect();
        assert_eq!(codes, if version == V5 { [0x02, 0x8F, 0x87] } else { [0x02, 0x80, 0x80] });
        assert!(talk.session.wants().input);
    }
}

#[test]
fn no_subscription_is_asked_for_above_the_maximum_qos() {
    let settings = Settings { max_qos: AtLeastOnce, ..Settings::default() };
    let mut talk = Conversation::connected(connect(V5), &settings);
    let asked = talk.subscribe(&subscribe(&[("a", ExactlyOnce)], None), AtLeastOnce);
    assert_eq!(asked[0].qos, AtLeastOnce);
}

#[test]
fn an_identifier_makes_deliveries_the_sessions_own() {
    let mut talk = Conversation::online(V5);
    let asked = talk.subscribe(&subscribe(&[("a", AtMostOnce)], Some(7)), AtMostOnce);
    assert_eq!(asked[0].identifier, NonZeroU32::new(7));
    assert!(asked[0].forms.is_none());
}

#[test]
fn topic_aliases_make_deliveries_the_sessions_own() {
    let properties = props(Properties { topic_alias_maximum: Some(1), ..Properties::default() });
    let mut talk = Conversation::open(V5, &Settings::default());
    talk.say(&Packet::Connect(Box::new(Connect { properties, ..connect(V5) })));
    let (token, Request::Connect(asked)) = talk.request() else { panic!("CONNECT") };
    assert!(asked.forms.is_none());
    talk.reply(token, Reply::Connected(Box::default()));
    talk.hear();
    let asked = talk.subscribe(&subscribe(&[("a", AtMostOnce)], None), AtMostOnce);
    assert!(asked[0].forms.is_none());
}

#[test]
fn a_shared_subscription_is_a_group_and_a_filter() {
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        let filters = [("$share/g/a/+", AtLeastOnce), ("$share/g//", AtMostOnce), ("a/+", AtMostOnce)];
        let asked = talk.subscribe(&subscribe(&filters, None), AtLeastOnce);
        let asked: Vec<_> = asked
            .iter()
            .map(|one| {
                (
                    one.group.as_ref().map(ShareName::as_str),
                    one.filter.as_str(),
                    one.retained == RetainHandling::Skip,
                )
            })
            .collect();
        // Retained messages are for the last one alone.
        assert_eq!(asked, [(Some("g"), "a/+", true), (Some("g"), "/", true), (None, "a/+", false)]);
        talk.say(&unsubscribe(&["a/+", "$share/g/a/+"]));
        let (_, Request::Unsubscribe(names)) = talk.request() else { panic!("UNSUBSCRIBE") };
        assert_eq!(names, [named(None, "a/+"), named(Some("g"), "a/+")]);
    }
}

#[test]
fn what_only_looks_like_a_shared_subscription_is_refused_alone() {
    let bad = ["$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/#"];
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        talk.say(&subscribe(&bad.map(|text| (text, AtMostOnce)), None));
        let Packet::SubAck(suback) = talk.hear() else { panic!("SUBACK") };
        let code = if version == V5 { 0x8F } else { 0x80 };
        assert_eq!(suback.reasons, bad.map(|_| ReasonCode(code)));
        talk.say(&unsubscribe(&bad));
        let Packet::UnsubAck(unsuback) = talk.hear() else { panic!("UNSUBACK") };
        if version == V5 {
            assert_eq!(unsuback.reasons, bad.map(|_| ReasonCode::TOPIC_FILTER_INVALID));
        }
        assert!(talk.is_quiet());
    }
}

#[test]
fn no_local_on_a_shared_subscription_ends_the_session() {
    let mut talk = Conversation::online(V5);
    let shared = Subscription {
        filter: Ok(filter("$share/g/a")),
        qos: AtMostOnce,
        no_local: true,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    talk.say(&Packet::Subscribe(Subscribe { packet_id: 1, properties: None, filters: vec![shared] }));
    check_ends(talk, ReasonCode::PROTOCOL_ERROR, CloseKind::ProtocolError);
}

#[test]
fn a_refused_unsubscribe_is_told_in_unsuback_where_that_has_a_word_for_it() {
    for version in [V3_1_1, V5] {
        let mut talk = Conversation::online(version);
        talk.say(&unsubscribe(&["a", "b"]));
        let (token, _) = talk.request();
        talk.reply(token, Reply::Refused(Refusal::Overloaded("the disk")));
        if version == V5 {
            let Packet::UnsubAck(unsuback) = talk.hear() else { panic!("UNSUBACK") };
            assert_eq!(unsuback.reasons, [ReasonCode::UNSPECIFIED_ERROR; 2]);
            assert!(unsuback.properties.unwrap().reason_string.is_some());
            assert!(talk.session.wants().input);
        } else {
            assert!(talk.hears_nothing());
            assert_eq!(talk.closed.unwrap().kind, CloseKind::Overloaded);
        }
    }
}

#[test]
fn unsubscribe_names_filters_and_is_told_which_existed() {
    let mut talk = Conversation::online(V5);
    talk.say(&unsubscribe(&["x", "$share/g", "a"]));
    let (token, Request::Unsubscribe(names)) = talk.request() else { panic!("UNSUBSCRIBE") };
    assert_eq!(names, [named(None, "x"), named(None, "a")]);
    assert!(!talk.session.wants().input);
    talk.reply(token, Reply::Unsubscribed(vec![false, true]));
    let Packet::UnsubAck(unsuback) = talk.hear() else { panic!("UNSUBACK") };
    let reasons =
        [ReasonCode::NO_SUBSCRIPTION_EXISTED, ReasonCode::TOPIC_FILTER_INVALID, ReasonCode::SUCCESS];
    assert_eq!(unsuback.reasons, reasons);
    assert!(talk.session.wants().input);
}

#[test]
fn the_brokers_limit_of_subscriptions_is_told_as_a_quota() {
    let mut talk = Conversation::online(V5);
    talk.say(&subscribe(&[("b", AtMostOnce)], None));
    let (token, _) = talk.request();
    let quota = Refusal::Quota { name: "mqtt.max_subscriptions", limit: 1 };
    talk.reply(token, Reply::Subscribed(vec![Err(quota)]));
    let Packet::SubAck(suback) = talk.hear() else { panic!("SUBACK") };
    assert_eq!(suback.reasons, [ReasonCode::QUOTA_EXCEEDED]);
    assert!(suback.properties.unwrap().reason_string.unwrap().contains("mqtt.max_subscriptions"));
}

#[test]
fn a_packet_takes_as_many_filters_as_the_operator_allows() {
    let settings = Settings { filters_max: 2, ..Settings::default() };
    let names = ["a", "b", "c"];
    for version in [V3_1_1, V5] {
        for packet in [
            |names: &[&str]| {
                subscribe(&names.iter().map(|name| (*name, AtMostOnce)).collect::<Vec<_>>(), None)
            },
            unsubscribe,
        ] {
            let mut talk = Conversation::connected(connect(version), &settings);
            talk.say(&packet(&names[..2]));
            assert_eq!((talk.requests.len(), &talk.closed), (1, &None));
            let mut talk = Conversation::connected(connect(version), &settings);
            talk.say(&packet(&names));
            assert_eq!(talk.requests.len(), 0, "the broker is not asked");
            check_ends(talk, ReasonCode::QUOTA_EXCEEDED, CloseKind::TooBig);
        }
    }
}

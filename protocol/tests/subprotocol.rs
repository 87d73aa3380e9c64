//! The negotiation of WIRE §1 as tables.
#![expect(clippy::panic, clippy::expect_used, reason = "a test helper may panic")]

use tidegate_protocol::raw::Pinned;
use tidegate_protocol::stomp::Version;
use tidegate_protocol::subprotocol::{
    Choice, Family, NegotiationError, NegotiationOptions, Opening, Subprotocol, UnknownProtocol, negotiate,
};

const RAW: Subprotocol = Subprotocol::Raw(Pinned::Nothing);

fn check(offers: &[&str], options: &NegotiationOptions, expected: (Subprotocol, Option<&str>)) {
    let choice = negotiate(offers, options, None).unwrap_or_else(|error| panic!("{offers:?}: {error}"));
    assert_eq!((choice.subprotocol, choice.token), expected, "{offers:?}");
    assert!(choice.token.is_none_or(|token| offers.contains(&token)), "only offered tokens are answered");
}

fn check_error(offers: &[&str], options: &NegotiationOptions, expected: &str) {
    let error = negotiate(offers, options, None).expect_err("a refusal").to_string();
    assert!(error.contains(expected), "{offers:?}: {error}");
}

#[test]
fn each_token_names_its_protocol() {
    let options = NegotiationOptions::default();
    for (token, subprotocol) in [
        ("raw", RAW),
        ("raw.json.v1", Subprotocol::Raw(Pinned::Json)),
        ("raw.msgpack.v1", Subprotocol::Raw(Pinned::MessagePack)),
        ("mqtt", Subprotocol::Mqtt),
        ("mqttv3.1", Subprotocol::Mqtt),
        ("mqttv5", Subprotocol::Mqtt),
        ("v12.stomp", Subprotocol::Stomp(Version::V1_2)),
        ("v11.stomp", Subprotocol::Stomp(Version::V1_1)),
        ("v10.stomp", Subprotocol::Stomp(Version::V1_0)),
        ("stomp", Subprotocol::Stomp(Version::V1_2)),
    ] {
        check(&[token], &options, (subprotocol, Some(token)));
    }
}

#[test]
fn the_first_supported_family_wins_and_its_highest_stomp_version() {
    let options = NegotiationOptions::default();
    let v12 = Subprotocol::Stomp(Version::V1_2);
    check(&["soap", "wamp", "mqtt"], &options, (Subprotocol::Mqtt, Some("mqtt")));
    check(&["mqttv3.1", "mqtt"], &options, (Subprotocol::Mqtt, Some("mqttv3.1")));
    check(&["v10.stomp", "v11.stomp", "v12.stomp"], &options, (v12, Some("v12.stomp")));
    check(&["v10.stomp", "mqtt", "v12.stomp"], &options, (v12, Some("v12.stomp")));
    check(&["mqtt", "v12.stomp"], &options, (Subprotocol::Mqtt, Some("mqtt")));
    check(&["v10.stomp", "stomp"], &options, (v12, Some("stomp")));
    check(&["stomp", "v12.stomp"], &options, (v12, Some("stomp")));
    check(
        &["raw.msgpack.v1", "raw"],
        &options,
        (Subprotocol::Raw(Pinned::MessagePack), Some("raw.msgpack.v1")),
    );
}

#[test]
fn nothing_offered_gets_the_default_without_a_token() {
    let options = NegotiationOptions::default();
    check(&[], &options, (RAW, None));
    let stomp = NegotiationOptions {
        default_protocol: Family::Stomp,
        stomp_versions: vec![Version::V1_0, Version::V1_1],
        ..options.clone()
    };
    check(&[], &stomp, (Subprotocol::Stomp(Version::V1_1), None));
    let none = NegotiationOptions { protocols: vec![Family::Mqtt], ..options };
    check_error(&[], &none, "there is no default here: supported mqtt, mqttv3.1, mqttv5");
}

#[test]
fn what_the_operator_did_not_enable_is_not_supported() {
    let all = NegotiationOptions::default();
    let only_12 = NegotiationOptions { stomp_versions: vec![Version::V1_2], ..all.clone() };
    check(&["v11.stomp", "mqtt"], &only_12, (Subprotocol::Mqtt, Some("mqtt")));
    check_error(&["v10.stomp"], &only_12, "offered v10.stomp");
    let only_5 = NegotiationOptions { mqtt_levels: vec![5], ..all.clone() };
    check(&["mqttv3.1", "mqtt"], &only_5, (Subprotocol::Mqtt, Some("mqtt")));
    let without_31_and_5 = NegotiationOptions { mqtt_levels: vec![4], ..all.clone() };
    check_error(
        &["mqttv3.1", "mqttv5"],
        &without_31_and_5,
        "supported raw, raw.json.v1, raw.msgpack.v1, mqtt, v12",
    );
    let no_mqtt = NegotiationOptions { mqtt_levels: vec![], ..all.clone() };
    check_error(&["mqtt"], &no_mqtt, "offered mqtt; supported raw, ");
    let only_raw = NegotiationOptions { protocols: vec![Family::Raw], ..all };
    check_error(&["mqtt", "stomp"], &only_raw, "supported raw, raw.json.v1, raw.msgpack.v1");
}

#[test]
fn a_refusal_lists_both_sides_without_secrets() {
    let options = NegotiationOptions::default();
    let error = negotiate(&["soap", "MQTT", "bearer.s3cret"], &options, None).expect_err("unsupported");
    let text = error.to_string();
    assert!(text.contains("offered soap, MQTT; supported raw, raw.json.v1, raw.msgpack.v1, mqtt"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");

    let long = "x".repeat(10_000);
    let many: Vec<&str> = std::iter::repeat_n(long.as_str(), 100).collect();
    let text = negotiate(&many, &options, None).expect_err("unsupported").to_string();
    assert!(text.len() < 2000 && text.contains("and more"), "{}", text.len());
}

#[test]
fn unknown_raw_answers_without_a_token() {
    let options = NegotiationOptions { unknown: UnknownProtocol::Raw, ..NegotiationOptions::default() };
    check(&["soap"], &options, (RAW, None));
    check(&["soap", "mqtt"], &options, (Subprotocol::Mqtt, Some("mqtt")));
    let no_raw = NegotiationOptions { protocols: vec![Family::Mqtt], ..options };
    check_error(&["soap"], &no_raw, "offered soap; supported mqtt");
}

#[test]
fn a_bearer_token_is_taken_and_never_echoed() {
    let options = NegotiationOptions::default();
    let choice = negotiate(&["bearer.a.b.c", "mqtt"], &options, None).expect("mqtt");
    assert_eq!(choice.bearer.as_deref(), Some("a.b.c"));
    assert_eq!((choice.subprotocol, choice.token), (Subprotocol::Mqtt, Some("mqtt")));
    assert!(!format!("{choice:?}").contains("a.b.c"));
    let opening = Opening { query: Some("token=s3cret"), bearer: choice.bearer };
    assert!(!format!("{opening:?}").contains("a.b.c") && !format!("{opening:?}").contains("s3cret"));

    check_error(&["bearer.abc"], &options, "without a subprotocol beside it");
    check_error(&["bearer.", "mqtt"], &options, "empty");
    check_error(&["bearer.a", "mqtt", "bearer.b"], &options, "more than one");
}

#[test]
fn the_url_chooses_only_what_may_be_answered() {
    let options = NegotiationOptions::default();
    let choose = |offers: &[&str], wanted| negotiate(offers, &options, Some(wanted));
    let expected = Choice { subprotocol: Subprotocol::Mqtt, token: None, bearer: None };
    assert_eq!(choose(&[], "mqtt"), Ok(expected.clone()));
    assert_eq!(choose(&["raw", "mqtt"], "mqtt"), Ok(Choice { token: Some("mqtt"), ..expected }));
    assert!(matches!(choose(&["raw"], "mqtt"), Err(NegotiationError::OverrideNotOffered { .. })));
    assert!(matches!(choose(&[], "soap"), Err(NegotiationError::Unsupported { .. })));
    assert!(matches!(choose(&["bearer.x"], "mqtt"), Err(NegotiationError::BearerAlone { .. })));
}

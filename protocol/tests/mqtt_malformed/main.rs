//! Malformed packets, a few hundred for each version, against what the standard names for them: the reason code in
//! CONNACK or DISCONNECT, and the code of the WebSocket close (SEC-11).
//!
//! Tables and generators are in the modules, by what is broken; `case` plays them through a session.
//! Spec: OASIS MQTT 5.0, OASIS MQTT 3.1.1, MQTT 3.1 (IBM and Eurotech).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

mod acks;
mod case;
mod connect;
mod cuts;
mod fixed_header;
#[path = "../mqtt_support/mod.rs"]
mod mqtt_support;
mod properties;
mod publish;
mod strings;
mod subscribe;

use tidegate_protocol::mqtt::packet::Version;

use self::case::{Case, Expected, VERSIONS, check_all};

fn all() -> Vec<Case> {
    [
        acks::cases(),
        connect::cases(),
        cuts::cases(),
        fixed_header::cases(),
        properties::cases(),
        publish::cases(),
        strings::cases(),
        subscribe::cases(),
    ]
    .concat()
}

#[test]
fn wrong_fixed_headers_end_the_connection() {
    check_all(&fixed_header::cases());
}

#[test]
fn packets_cut_short_or_too_long_end_the_connection() {
    check_all(&cuts::cases());
}

#[test]
fn broken_connects_are_refused() {
    check_all(&connect::cases());
}

#[test]
fn broken_publishes_end_the_connection() {
    check_all(&publish::cases());
}

#[test]
fn broken_subscribes_and_unsubscribes_end_the_connection() {
    check_all(&subscribe::cases());
}

#[test]
fn broken_acknowledgements_and_goodbyes_end_the_connection() {
    check_all(&acks::cases());
}

#[test]
fn wrong_properties_end_the_connection() {
    check_all(&properties::cases());
}

#[test]
fn strings_that_are_not_utf_8_end_the_connection() {
    check_all(&strings::cases());
}

#[test]
fn there_are_hundreds_of_malformed_packets_per_version() {
    for version in VERSIONS {
        let count = all()
            .iter()
            .filter(|case| case.version == version && !matches!(case.expected, Expected::Taken))
            .count();
        let at_least = if version == Version::V5 { 2000 } else { 500 };
        assert!(count >= at_least, "{count} in {version:?}");
    }
}

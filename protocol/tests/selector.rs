//! Selectors: what they match, and what is none. Jakarta Messaging 3.1 §3.8.1.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test helper may panic")]

use bytes::Bytes;
use tidegate_protocol::publication::{Properties, Publication};
use tidegate_protocol::selector::{Selector, SelectorError};
use tidegate_protocol::topic::{Topic, TopicLimits};

fn topic(text: &str) -> Topic {
    Topic::parse(text, &TopicLimits::STANDARD).unwrap()
}

/// An order: 7 pieces at 2.50, red, urgent.
fn order() -> Publication {
    let mut publication = Publication::new(topic("shop/orders"), Bytes::new());
    let user = [
        ("count", "7"),
        ("price", "2.50"),
        ("colour", "red"),
        ("colour", "blue"),
        ("urgent", "true"),
        ("gift", "FALSE"),
        ("sevens", "7.0"),
        ("padded", "007"),
        ("spaced", " 7"),
        ("signed", "+7"),
        ("below", "-7"),
        ("huge", "99999999999999999999"),
        ("vast", "1e999"),
        ("largest", "9223372036854775807"),
        ("smallest", "-9223372036854775808"),
        ("strange", "inf"),
        ("empty", ""),
        ("quote", "it's"),
        ("path", "a_b%c"),
        ("größe", "L"),
        ("x-y", "dashed"),
        ("x", "9"),
        ("y", "4"),
        ("$v_1", "1"),
        ("not", "reserved"),
    ];
    publication.properties = Some(Box::new(Properties {
        content_type: Some("application/json".into()),
        response_topic: Some(topic("shop/answers")),
        correlation_data: Some(Bytes::from_static(b"c-1")),
        user: user.map(|(name, value)| (name.into(), value.into())).to_vec(),
    }));
    publication
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Unknown,
}
use Truth::{No, Unknown, Yes};

fn truth(selector: &str, publication: &Publication) -> Truth {
    let parse = |text: &str| Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match (parse(selector).matches(publication), parse(&format!("NOT ({selector})")).matches(publication)) {
        (true, false) => Yes,
        (false, true) => No,
        (false, false) => Unknown,
        (true, true) => panic!("{selector} and its contrary both match"),
    }
}

fn check(cases: &[(&str, Truth)]) {
    let publication = order();
    for (selector, expected) in cases {
        assert_eq!(truth(selector, &publication), *expected, "{selector}");
    }
}

#[test]
fn compares_the_text_of_a_header_as_what_it_is_beside() {
    check(&[
        ("count = 7", Yes),
        ("count = 7.0", Yes),
        ("count = '7'", Yes),
        ("count = '7.0'", No),
        ("sevens = 7", Yes),
        ("padded = 7", Yes),
        ("signed = 7", Yes),
        ("below = -7", Yes),
        ("count = sevens", Yes),
        ("count = padded", Yes),
        ("count = colour", No),
        ("colour = colour", Yes),
        ("count <> 8", Yes),
        ("spaced = 7", Unknown),
        ("colour = 7", Unknown),
        ("colour <> 7", Unknown),
        ("colour < 7", Unknown),
        ("empty = 0", Unknown),
        ("empty = ''", Yes),
        ("strange > 0", Unknown),
        ("vast > 0", Unknown),
        ("huge > 9223372036854775807", Yes),
        ("largest = 9223372036854775807", Yes),
        ("smallest = -9223372036854775808", Yes),
        ("price > 2.4", Yes),
        ("price >= 2.5", Yes),
        ("price > 2.5", No),
        ("price <= 2.5", Yes),
        ("price < count", Yes),
        ("2 < price", Yes),
        ("colour = 'red'", Yes),
        ("colour = 'RED'", No),
        ("colour <> 'blue'", Yes),
        ("urgent", Yes),
        ("NOT urgent", No),
        ("gift", No),
        ("colour", Unknown),
        ("urgent = TRUE", Yes),
        ("urgent <> FALSE", Yes),
        ("gift = TRUE", No),
        ("colour = TRUE", Unknown),
        ("urgent = gift", No),
        ("urgent = 'true'", Yes),
    ]);
}

#[test]
fn unlike_types_are_unknown() {
    check(&[("'5' = 5", Unknown), ("TRUE = 1", Unknown), ("TRUE = 'true'", Unknown), ("'a' <> 5", Unknown)]);
}

#[test]
fn reads_literals_as_java_does() {
    check(&[
        ("'it''s' = quote", Yes),
        ("'' = empty", Yes),
        ("0x1F = 31", Yes),
        ("0XffL = 255", Yes),
        ("0x1e+1 = 31", Yes),
        ("017 = 15", Yes),
        ("00 = 0", Yes),
        ("0_7 = 7", Yes),
        ("0b101 = 5", Yes),
        ("1_000 = 1000", Yes),
        ("57L = 57", Yes),
        ("7. = 7", Yes),
        (".5 = 0.5", Yes),
        ("7E3 = 7000", Yes),
        ("-57.9E2 = -5790", Yes),
        ("1e-2 = 0.01", Yes),
        ("2e+1 = 20", Yes),
        ("7d = 7", Yes),
        ("1.5f = 1.5", Yes),
        ("+6.2 > 6", Yes),
        ("true", Yes),
        ("False", No),
        ("-0x8000000000000000 = -9223372036854775808", Yes),
    ]);
}

#[test]
fn names_are_java_identifiers_or_quoted() {
    check(&[
        ("größe = 'L'", Yes),
        ("$v_1 = 1", Yes),
        ("x-y = 5", Yes),
        ("\"x-y\" = 'dashed'", Yes),
        ("\"not\" = 'reserved'", Yes),
        ("\"a\"\"b\" IS NULL", Yes),
        ("Colour IS NULL", Yes),
        ("\"content-type\" = 'application/json'", Yes),
        ("destination = 'shop/orders'", Yes),
        ("JMSDestination LIKE 'shop/%'", Yes),
        ("\"reply-to\" = 'shop/answers'", Yes),
        ("JMSReplyTo = 'shop/answers'", Yes),
        ("\"correlation-id\" = 'c-1'", Yes),
        ("JMSCorrelationID = 'c-1'", Yes),
        ("JMSPriority IS NULL AND JMSMessageID IS NULL", Yes),
        ("JMSPriority > 3", Unknown),
    ]);
}

#[test]
fn a_message_without_properties_has_a_destination_only() {
    let mut publication = Publication::new(topic("a"), Bytes::new());
    for name in ["\"content-type\"", "JMSCorrelationID", "JMSReplyTo", "colour"] {
        assert_eq!(truth(&format!("{name} IS NULL"), &publication), Yes, "{name}");
    }
    assert_eq!(truth("destination = 'a'", &publication), Yes);
    publication.is_text = true;
    assert_eq!(truth("\"content-type\" = 'text/plain;charset=utf-8'", &publication), Yes);
    publication.properties = Some(Box::new(Properties {
        correlation_data: Some(Bytes::from_static(b"\xff")),
        ..Properties::default()
    }));
    assert_eq!(truth("JMSCorrelationID IS NULL", &publication), Yes);
}

#[test]
fn unknown_spreads_as_the_tables_of_the_standard_say() {
    check(&[
        ("nothing = 1", Unknown),
        ("nothing IS NULL", Yes),
        ("nothing IS NOT NULL", No),
        ("count is null", No),
        ("count Is Not Null", Yes),
        ("nothing = nothing", Unknown),
        ("nothing <> 1", Unknown),
        ("nothing", Unknown),
        ("TRUE AND nothing", Unknown),
        ("nothing AND TRUE", Unknown),
        ("FALSE AND nothing", No),
        ("nothing AND FALSE", No),
        ("nothing AND nothing", Unknown),
        ("TRUE OR nothing", Yes),
        ("nothing OR TRUE", Yes),
        ("FALSE OR nothing", Unknown),
        ("nothing OR FALSE", Unknown),
        ("NOT nothing", Unknown),
        ("NOT NOT nothing", Unknown),
        ("nothing + 1 = 1", Unknown),
        ("nothing BETWEEN 1 AND 2", Unknown),
        ("count BETWEEN 8 AND nothing", No),
        ("count BETWEEN 1 AND nothing", Unknown),
        ("count BETWEEN nothing AND 6", No),
        ("nothing IN ('a')", Unknown),
        ("nothing NOT IN ('a')", Unknown),
        ("nothing LIKE '%'", Unknown),
        ("nothing NOT LIKE '%'", Unknown),
    ]);
}

#[test]
fn operators_bind_in_the_order_of_the_standard() {
    check(&[
        ("TRUE OR TRUE AND FALSE", Yes),
        ("(TRUE OR TRUE) AND FALSE", No),
        ("NOT FALSE AND FALSE", No),
        ("NOT (FALSE AND FALSE)", Yes),
        ("NOT count = 8", Yes),
        ("FALSE AND TRUE OR TRUE", Yes),
        ("TRUE or false and nothing", Yes),
        ("1 + 2 * 3 = 7", Yes),
        ("(1 + 2) * 3 = 9", Yes),
        ("10 - 3 - 2 = 5", Yes),
        ("100 / 10 / 5 = 2", Yes),
        ("2 * 3 + 4 > 9", Yes),
        ("-2 * 3 = -6", Yes),
        ("3 - -2 = 5", Yes),
        ("- + - 2 = 2", Yes),
        ("-(count) = -7", Yes),
        ("+count = 7", Yes),
        ("(count > 5) = TRUE", Yes),
        ("(urgent AND gift) = FALSE", Yes),
        ("(gift AND urgent) = 'FALSE'", Unknown),
        ("count between 2 + 2 and 3 * 3 and urgent", Yes),
        ("urgent AND NOT gift AND colour = 'red' AND count * price > 17", Yes),
    ]);
}

#[test]
fn what_cannot_be_calculated_is_unknown() {
    check(&[
        ("count + 1 = 8", Yes),
        ("count * price = 17.5", Yes),
        ("count / 2 = 3", Yes),
        ("-7 / 2 = -3", Yes),
        ("count / 2.0 = 3.5", Yes),
        ("colour + 1 = 2", Unknown),
        ("-colour = 1", Unknown),
        ("count / 0 = 1", Unknown),
        ("count / 0.0 > 1", Unknown),
        ("0.0 / 0.0 <> 1", Unknown),
        ("largest + 1 > 0", Unknown),
        ("smallest - 1 < 0", Unknown),
        ("-smallest > 0", Unknown),
        ("smallest / -1 > 0", Unknown),
        ("largest * 2 > 0", Unknown),
        ("1e308 * 10 > 0", Unknown),
        ("largest + 1.0 > 0", Yes),
    ]);
}

#[test]
fn between_and_in_are_short_for_comparisons() {
    check(&[
        ("count BETWEEN 7 AND 7", Yes),
        ("count BETWEEN 8 AND 6", No),
        ("count NOT BETWEEN 1 AND 6", Yes),
        ("5 BETWEEN 1 AND count", Yes),
        ("colour BETWEEN 1 AND 2", Unknown),
        ("colour IN ('red')", Yes),
        ("colour IN ('green', 'red', 'blue')", Yes),
        ("colour IN ('green', 'blue', 'green')", No),
        ("colour NOT IN ('green')", Yes),
        ("count in ('7')", Yes),
        ("count IN ('7.0')", No),
        ("destination IN ('shop/orders')", Yes),
    ]);
}

#[test]
fn like_matches_the_whole_text() {
    check(&[
        ("colour LIKE 'red'", Yes),
        ("colour LIKE 're'", No),
        ("colour LIKE 'ed'", No),
        ("colour LIKE 'r%'", Yes),
        ("colour LIKE '%d'", Yes),
        ("colour LIKE '%e%'", Yes),
        ("colour LIKE '%'", Yes),
        ("colour LIKE '%%'", Yes),
        ("colour LIKE ''", No),
        ("empty LIKE ''", Yes),
        ("empty LIKE '%'", Yes),
        ("empty LIKE '_'", No),
        ("colour LIKE 'r_d'", Yes),
        ("colour LIKE '___'", Yes),
        ("colour LIKE '__'", No),
        ("colour LIKE '____'", No),
        ("colour LIKE '_%_'", Yes),
        ("colour LIKE '%_d'", Yes),
        ("colour LIKE 'red%red'", No),
        ("colour LIKE 're%ed'", No),
        ("colour LIKE '%r%e%d%'", Yes),
        ("colour LIKE '%d%e%'", No),
        ("colour NOT LIKE 'b%'", Yes),
        ("größe LIKE '_'", Yes),
        ("path LIKE 'a\\_b\\%c' ESCAPE '\\'", Yes),
        ("colour LIKE 'r\\_d' ESCAPE '\\'", No),
        ("path LIKE 'a!_b%' ESCAPE '!'", Yes),
        ("path LIKE 'a_b%c'", Yes),
        ("quote LIKE '%''_'", Yes),
        ("quote LIKE 'it''''s' ESCAPE ''''", Yes),
        ("destination LIKE '%/_rd_r%'", Yes),
        ("colour LIKE '%_e_%'", Yes),
        ("colour LIKE '%_e__%'", No),
        ("count LIKE '_'", Yes),
    ]);
}

#[test]
fn a_pattern_full_of_wildcards_takes_no_time() {
    let mut publication = order();
    let properties = publication.properties.as_mut().unwrap();
    properties.user.push(("long".into(), "a".repeat(5000).into()));
    let selector = format!("long LIKE '{}b'", "%a".repeat(1000));
    assert_eq!(truth(&selector, &publication), No);
}

#[test]
fn what_is_searched_for_is_as_long_as_one_pass_can_see() {
    let like = |length: usize| format!("colour LIKE '%{}_%'", "r".repeat(length - 1));
    assert_eq!(truth(&like(64), &order()), No);
    check_error(&like(65), "too many characters stand between two '%'", 13);
    let mut publication = order();
    let long = format!("{}xyz", "a".repeat(5000));
    publication.properties.as_mut().unwrap().user.push(("long".into(), long.into()));
    for (pattern, expected) in [
        (format!("%{}_yz%", "a".repeat(61)), Yes),
        (format!("%{}_zz%", "a".repeat(61)), No),
        (format!("%{}yz%", "_".repeat(62)), Yes),
        (format!("%{}yz_%", "_".repeat(61)), No),
    ] {
        assert_eq!(truth(&format!("long LIKE '{pattern}'"), &publication), expected, "{pattern}");
    }
}

fn check_error(selector: &str, reason: &str, position: usize) {
    let SelectorError { reason: seen, position: at } = Selector::parse(selector).expect_err(selector);
    assert!(seen.contains(reason), "{selector}: {seen} is not about {reason}");
    assert_eq!(at, position, "{selector}: {seen}");
}

#[test]
fn says_what_is_wrong_and_where() {
    for (selector, reason, position) in [
        ("", "value is missing", 1),
        ("   ", "value is missing", 4),
        ("a = ", "value is missing at the end", 5),
        ("= 1", "value is missing", 1),
        ("a = = 1", "value is missing", 5),
        ("a == 1", "value is missing", 4),
        ("a != 1", "<>", 3),
        ("a = 1 b", "operator or the end", 7),
        ("a = 1)", "never opened", 6),
        ("(a = 1", "')' is missing", 7),
        ("a = 1 = 1", "operator or the end", 7),
        ("a < b < c", "operator or the end", 7),
        ("a = 'x", "quote never closes", 5),
        ("\"a", "quote never closes", 1),
        ("\"\" = 1", "at least one character", 1),
        ("ü = ;", "means nothing", 5),
        ("5", "value where a condition", 1),
        ("'a'", "value where a condition", 1),
        ("a AND 5", "value where a condition", 7),
        ("5 OR a", "value where a condition", 1),
        ("NOT 5", "value where a condition", 5),
        ("a + 1", "value where a condition", 1),
        ("a + 'b' = 'c'", "arithmetic needs numbers", 5),
        ("-'a' = 1", "arithmetic needs numbers", 2),
        ("a * (b = 1) = 2", "arithmetic needs numbers", 5),
        ("a < 'b'", "order", 5),
        ("TRUE > a", "order", 1),
        ("a BETWEEN 'a' AND 'b'", "order", 11),
        ("a BETWEEN 1", "BETWEEN needs AND", 12),
        ("a BETWEEN 1 OR 2", "BETWEEN needs AND", 13),
        ("a IN 'x'", "list in parentheses", 6),
        ("a IN ()", "strings in single quotes", 7),
        ("a IN (1)", "strings in single quotes", 7),
        ("a IN ('x',)", "strings in single quotes", 11),
        ("a IN ('x' 'y')", "',' or ')'", 11),
        ("'a' IN ('a')", "name of a header", 1),
        ("a LIKE b", "string in single quotes", 8),
        ("5 LIKE '5'", "name of a header", 1),
        ("a LIKE 'x' ESCAPE", "one character", 18),
        ("a LIKE 'x' ESCAPE ''", "one character", 19),
        ("a LIKE 'x' ESCAPE 'ab'", "one character", 19),
        ("a LIKE 'x!' ESCAPE '!'", "does not stand before", 8),
        ("a LIKE 'x!y' ESCAPE '!'", "does not stand before", 8),
        ("a IS 5", "NULL is missing", 6),
        ("a IS NOT 5", "NULL is missing", 10),
        ("5 IS NULL", "name of a header", 1),
        ("a NOT IS NULL", "BETWEEN, IN or LIKE", 7),
        ("a NOT = 5", "BETWEEN, IN or LIKE", 7),
        ("a = NULL", "only after IS", 5),
        ("a = AND", "reserved word", 5),
        ("a = NOT b", "reserved word", 5),
        ("like = 'x'", "reserved word", 1),
        ("a = 12abc", "no number", 5),
        ("a = 1.2.3", "no number", 5),
        ("a = .", "no number", 5),
        ("a = 1e", "no number", 5),
        ("a = 1_", "no number", 5),
        ("a = 0x", "no number", 5),
        ("a = 0x_1", "no number", 5),
        ("a = 09", "octal", 5),
        ("a = 0b2", "no number", 5),
        ("a = 1e999", "too large", 5),
        ("a = 9223372036854775808", "64 bits", 5),
        ("a = 9223372036854775809", "64 bits", 5),
        ("a = 1 - 9223372036854775808", "64 bits", 9),
        ("a = -9223372036854775809", "64 bits", 6),
    ] {
        check_error(selector, reason, position);
    }
    let error = Selector::parse("a = ").unwrap_err();
    assert_eq!(error.to_string(), "a value is missing at the end at character 5");
}

#[test]
fn nests_64_levels_deep_and_no_deeper() {
    for (open, inner, close) in
        [("(", "TRUE", ")"), ("NOT ", "TRUE", ""), ("-", "1", ""), ("NOT (", "a", ")")]
    {
        let nested = |levels: usize| {
            let levels = levels / open.split_whitespace().count();
            let value = format!("{}{inner}{}", open.repeat(levels), close.repeat(levels));
            if inner == "1" { format!("{value} = 1") } else { value }
        };
        assert!(Selector::parse(&nested(64)).is_ok(), "{open}");
        let wider = 64 / open.split_whitespace().count() * open.len() + 1;
        check_error(&nested(66), "nests deeper than 64", wider);
    }
    check_error(&"(".repeat(100_000), "nests deeper than 64", 65);
}

#[test]
fn a_long_chain_is_not_deep() {
    let publication = order();
    let any = vec!["colour = 'green'"; 20_000].join(" OR ");
    assert_eq!(truth(&any, &publication), No);
    let sum = vec!["1"; 20_000].join(" + ");
    assert_eq!(truth(&format!("{sum} = 20000"), &publication), Yes);
}

#[test]
fn values_pile_up_in_every_level() {
    let level = "FALSE OR TRUE AND 1 = 1 + 0 * (0) AND (";
    let selector = format!("{}count = 7{}", level.repeat(60), ")".repeat(60));
    assert_eq!(truth(&selector, &order()), Yes);
    let sum = format!("{}1{} = 61", "1 + 1 * (".repeat(60), ")".repeat(60));
    assert_eq!(truth(&sum, &order()), Yes);
}

#[test]
fn keeps_its_text() {
    let selector = Selector::parse(" a  = 1 ").unwrap();
    assert_eq!(selector.as_str(), " a  = 1 ");
    assert_eq!(format!("{selector:?}"), "Selector(\" a  = 1 \")");
    assert_eq!(selector, Selector::parse(" a  = 1 ").unwrap());
    assert_ne!(selector, Selector::parse("a = 1").unwrap());
}

//! Conversations in envelope mode (WIRE §3): each operation with what the broker is asked and what the client hears.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test helper may panic")]

mod raw_support;

use std::time::Duration;

use raw_support::{Client, connected, connected_with, hex, open_with, publication, topic};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::raw::{self, Pinned, Settings};
use tidegate_protocol::session::{
    CloseKind, CloseReason, Copies, Credentials, DataLane, Granted, Lag, LagNotice, Output, Overflow,
    Refusal, Reply, Request, RetainHandling, SubscriptionId, SubscriptionName,
};
use tidegate_protocol::topic::{ShareName, TopicLimits};

const JSON: &str = r#"{"op":"ping"}"#;

fn envelope() -> Client {
    connected("")
}

/// A client that is subscribed to these.
fn subscribed(topics: &[&str]) -> Client {
    let mut client = envelope();
    client.text(&serde_json::json!({"op": "sub", "id": 0, "topics": topics}).to_string());
    client.grant();
    client.sent.clear();
    client
}

fn pack(json: &str) -> Vec<u8> {
    rmp_serde::to_vec_named(&serde_json::from_str::<serde_json::Value>(json).unwrap()).unwrap()
}

#[test]
fn connects_at_once_with_the_credential_of_the_handshake() {
    let now = raw_support::start();
    let mut session = raw::open(Pinned::Json, None, Some("t0k".into()), &Settings::default(), now).unwrap();
    let Some(Output::Request(_, Request::Connect(connect))) = session.poll_output() else {
        panic!("CONNECT is first")
    };
    assert_eq!(connect.credentials, Some(Credentials::Token("t0k".into())));
    assert_eq!((connect.lag, connect.clean_start), (LagNotice::Separate, true));
    assert!(!session.wants().input);
    assert!(session.poll_output().is_none() && session.poll_timeout().is_none());
}

#[test]
fn a_refused_connect_is_told_and_closes() {
    let mut client = open_with(Pinned::Nothing, "", &Settings::default()).unwrap();
    client.refuse(Refusal::BadCredentials);
    let expected = concat!(
        r#"{"op":"err","code":"unauthenticated","#,
        r#""reason":"the user name, password or token is not accepted","retry":false}"#
    );
    assert_eq!(client.said(), [expected]);
    assert_eq!(client.closed_with().0, 4001);
}

#[test]
fn an_operation_waits_for_the_answer_to_connect() {
    let mut client = open_with(Pinned::Nothing, "", &Settings::default()).unwrap();
    client.text(r#"{"op":"ping","id":1}"#);
    client.text(r#"{"op":"pub","topic":"a","text":""}"#);
    assert_eq!((client.requests.len(), client.sent.len()), (1, 0));
    client.reply(Reply::Connected(Box::default()));
    assert_eq!(client.said(), [r#"{"op":"pong","id":1}"#]);
    assert_eq!(client.published().topic.as_str(), "a");
}

#[test]
fn hello_is_welcomed() {
    let mut client = envelope();
    client.text(r#"{"op":"hello","token":"x","window":0}"#);
    let welcome = concat!(
        r#"{"op":"welcome","v":1,"session":"c-1","limits":{"message":1048576,"topics":128,"window":0},"#,
        r#""ping":25000}"#
    );
    assert_eq!(client.said(), [welcome]);
    client.text(r#"{"op":"hello"}"#);
    assert_eq!(client.said_json()[0]["reason"], "'hello' is the first operation of a connection");

    let mut client = envelope();
    client.text(r#"{"op":"hello","resume":{"id":"s","token":"t","n":3}}"#);
    assert_eq!(client.said_json()[0]["resumed"], false);
}

#[test]
fn sub_reaches_the_broker_whole() {
    let mut client = envelope();
    client.text(concat!(
        r#"{"op":"sub","id":"s1","topics":["b/#","a/+","b/#"],"qos":0,"last":0,"conflate":200,"#,
        r#""overflow":"drop_newest","noecho":true}"#
    ));
    let subscribes = client.subscribes();
    let filters: Vec<&str> = subscribes.iter().map(|subscribe| subscribe.filter.as_str()).collect();
    assert_eq!(filters, ["a/+", "b/#"]);
    assert_ne!(subscribes[0].id, subscribes[1].id);
    let one = &subscribes[0];
    assert_eq!((one.qos, one.retained, one.no_local), (QoS::AtMostOnce, RetainHandling::Skip, true));
    assert_eq!(one.conflate, Some(Duration::from_millis(200)));
    assert_eq!((one.overflow, one.copies), (Some(Overflow::DropNewest), Copies::PerClient));
    let forms = one.forms.unwrap();
    assert_eq!((forms.live.slot, forms.retained.unwrap().slot), (10, 11));
    assert!(forms.live.lacks_expiry && forms.retained.unwrap().lacks_expiry && !one.retain_as_published);
    assert!(client.said().is_empty() && !client.session.wants().input);
    client.grant();
    assert_eq!(client.said(), [r#"{"op":"ok","id":"s1","qos":0}"#]);
    assert!(client.session.wants().input);
}

#[test]
fn sub_has_defaults() {
    let mut client = envelope();
    client.binary(pack(r#"{"op":"sub","id":1,"topic":"a"}"#));
    let one = &client.subscribes()[0];
    assert_eq!((one.retained, one.conflate, one.overflow), (RetainHandling::Send, None, None));
    assert!(!one.no_local);
    let forms = one.forms.unwrap();
    assert_eq!((forms.live.slot, forms.retained.unwrap().slot), (12, 13));
    client.grant();
    // {"op": "ok", "id": 1, "qos": 0}
    assert_eq!(client.said(), ["83a26f70a26f6ba2696401a3716f7300"]);
}

#[test]
fn a_second_sub_replaces_the_first() {
    let mut client = envelope();
    client.text(r#"{"op":"sub","id":1,"topic":"a"}"#);
    let first = client.subscribes()[0].id;
    client.grant();
    client.text(r#"{"op":"sub","id":2,"topic":"a","conflate":true}"#);
    assert_eq!(client.subscribes()[0].id, first);
    assert_eq!(client.subscribes()[0].conflate, Some(Duration::ZERO));
}

#[test]
fn unsub_ends_what_sub_began() {
    let mut client = subscribed(&["a", "b"]);
    client.text(r#"{"op":"unsub","id":5,"topic":"a"}"#);
    assert!(matches!(&client.requests[0].1, Request::Unsubscribe(list) if list.len() == 1));
    client.reply(Reply::Unsubscribed(vec![true]));
    assert_eq!(client.said(), [r#"{"op":"ok","id":5}"#]);
    client.text(r#"{"op":"unsub","id":6,"topic":"a"}"#);
    assert!(client.requests.is_empty());
    assert_eq!(client.said_json()[0]["code"], "not_found");
}

#[test]
fn a_filter_alone_and_in_each_group_are_different_subscriptions() {
    let mut client = subscribed(&["a"]);
    client.text(r#"{"op":"sub","id":2,"topics":["a","b"],"group":"g","last":0}"#);
    let asked: Vec<_> = client.subscribes().iter().map(|one| (one.group.clone(), one.retained)).collect();
    let group = ShareName::parse("g", &TopicLimits::STANDARD).unwrap();
    assert_eq!(asked, [(Some(group.clone()), RetainHandling::Skip), (Some(group), RetainHandling::Skip)]);
    let in_group = client.subscribes()[0].id.unwrap();
    client.grant();
    client.text(r#"{"op":"sub","id":3,"topic":"a","group":"h"}"#);
    assert_ne!(client.subscribes()[0].id, Some(in_group));
    client.grant();
    client.sent.clear();
    for (fields, expected) in
        [(r#","group":"g""#, Some(in_group)), (r#","group":"g""#, None), ("", Some(ALONE))]
    {
        client.text(&format!(r#"{{"op":"unsub","id":4,"topic":"a"{fields}}}"#));
        let asked = client.requests.first().map(|(_, request)| match request {
            Request::Unsubscribe(names) => names.clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(asked, expected.map(|id| vec![SubscriptionName::Id(id)]), "{fields}");
        if asked.is_some() {
            client.reply(Reply::Unsubscribed(vec![true]));
        } else {
            assert_eq!(client.said_json()[1]["code"], "not_found");
        }
    }
}

/// The first subscription of a session.
const ALONE: SubscriptionId = SubscriptionId(1);

#[test]
fn a_payload_is_text_where_its_content_type_says_so_and_it_is() {
    for (fields, is_text) in [
        (r#""b64":"aGk=","ct":"text/plain""#, true),
        (r#""b64":"/w==","ct":"text/plain""#, false),
        (r#""b64":"aGk=","ct":"text/plain;charset=iso-8859-1""#, false),
        (r#""b64":"aGk=","ct":"image/png""#, false),
        (r#""text":"hi","ct":"image/png""#, true),
    ] {
        let mut client = envelope();
        client.text(&format!(r#"{{"op":"pub","topic":"a",{fields}}}"#));
        assert_eq!(client.published().is_text, is_text, "{fields}");
    }
}

#[test]
fn a_partly_refused_sub_names_the_refused() {
    let mut client = envelope();
    client.text(r#"{"op":"sub","id":1,"topics":["a","b"]}"#);
    client.reply(Reply::Subscribed(vec![Ok(Granted { qos: QoS::AtMostOnce }), Err(Refusal::NotAuthorized)]));
    let expected =
        r#"{"op":"err","id":1,"code":"denied","reason":"not authorised","retry":false,"topics":["b"]}"#;
    assert_eq!(client.said(), [expected]);
    client.text(r#"{"op":"unsub","id":2,"topic":"b"}"#);
    assert_eq!(client.said_json()[0]["code"], "not_found");
    client.text(r#"{"op":"unsub","id":3,"topic":"a"}"#);
    assert_eq!(client.requests.len(), 1);
}

#[test]
fn subscriptions_are_limited() {
    let settings = Settings { topics_max: 2, ..Settings::default() };
    let mut client = connected_with(Pinned::Nothing, "", &settings);
    client.text(r#"{"op":"sub","id":1,"topics":["a","b","c"]}"#);
    assert_eq!(client.said_json()[0]["reason"], "the limit raw.max_topics = 2 is reached");
    client.text(r#"{"op":"sub","id":1,"topics":["a","b"]}"#);
    client.grant();
    client.text(r#"{"op":"sub","id":1,"topics":["a","b"]}"#);
    client.grant();
    client.sent.clear();
    client.text(r#"{"op":"sub","id":2,"topic":"c"}"#);
    assert_eq!(client.said_json()[0]["code"], "too_many");
    assert!(client.requests.is_empty());
}

fn check_payload(client: &mut Client, expected: &[u8], is_text: bool) {
    let published = client.published();
    assert_eq!((&published.payload[..], published.is_text), (expected, is_text));
    client.matched(0);
}

#[test]
fn a_payload_has_one_of_four_names() {
    let mut client = envelope();
    for (field, payload, is_text) in [
        (r#""data": {"fan" : "on",  "x":[1e999]} "#, &br#"{"fan" : "on",  "x":[1e999]}"#[..], true),
        (r#""data":21.5"#, b"21.5", true),
        (r#""data":null"#, b"null", true),
        (r#""data":"a\u0000b""#, br#""a\u0000b""#, true),
        (r#""text":"a\u0000\u00fc\n""#, "a\0ü\n".as_bytes(), true),
        (r#""text":"""#, b"", true),
        (r#""b64":"/wA=""#, b"\xff\0", false),
        (r#""b64":"""#, b"", false),
    ] {
        client.text(&format!(r#"{{"op":"pub","topic":"a",{field}}}"#));
        check_payload(&mut client, payload, is_text);
    }
    client.binary([b"\x83\xa2op\xa3pub\xa5topic\xa1a\xa3bin\xc4\x02\xff\0".as_slice()].concat());
    check_payload(&mut client, b"\xff\0", false);
    client.binary(pack(r#"{"op":"pub","topic":"a","text":"hi"}"#));
    check_payload(&mut client, b"hi", true);
    assert!(client.said().is_empty() && client.closed.is_none());
}

#[test]
fn pub_reaches_the_broker_whole() {
    let mut client = envelope();
    client.text(concat!(
        r#"{"op":"pub","id":2,"topic":"cmd/3","data":1,"ct":"application/json","retain":true,"ttl":1500,"#,
        r#""props":{"k":["1","2"],"a":"3"},"reply":"r/1","corr":"c"}"#
    ));
    let published = client.published();
    assert_eq!(
        (published.topic.as_str(), published.qos, published.retain),
        ("cmd/3", QoS::AtLeastOnce, true)
    );
    assert_eq!(published.expires_at, Some(client.now + Duration::from_millis(1500)));
    let properties = published.properties.as_ref().unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.response_topic.as_ref().unwrap().as_str(), "r/1");
    assert_eq!(properties.correlation_data.as_deref(), Some(&b"c"[..]));
    let user: Vec<(&str, &str)> = properties.user.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(user, [("k", "1"), ("k", "2"), ("a", "3")]);
    client.matched(4);
    assert_eq!(client.said(), [r#"{"op":"ok","id":2,"matched":4}"#]);
}

#[test]
fn qos_follows_the_id_unless_it_is_said() {
    for (fields, qos, is_answered) in [
        ("", QoS::AtMostOnce, false),
        (r#","id":1"#, QoS::AtLeastOnce, true),
        (r#","qos":1"#, QoS::AtLeastOnce, false),
        (r#","id":1,"qos":0"#, QoS::AtMostOnce, true),
    ] {
        let mut client = envelope();
        client.text(&format!(r#"{{"op":"pub","topic":"a","text":""{fields}}}"#));
        assert_eq!(client.published().qos, qos, "{fields}");
        assert!(client.published().properties.is_none());
        client.matched(0);
        assert_eq!(client.said().len(), usize::from(is_answered), "{fields}");
    }
}

#[test]
fn correlation_data_may_be_any_bytes() {
    let mut client = envelope();
    client.text(r#"{"op":"pub","topic":"a","text":"","corr":{"b64":"/w=="}}"#);
    assert_eq!(
        client.published().properties.as_ref().unwrap().correlation_data.as_deref(),
        Some(&b"\xff"[..])
    );
    client.matched(0);
    client.binary(b"\x84\xa2op\xa3pub\xa5topic\xa1a\xa4text\xa0\xa4corr\xc4\x01\xff".to_vec());
    assert_eq!(
        client.published().properties.as_ref().unwrap().correlation_data.as_deref(),
        Some(&b"\xff"[..])
    );
}

#[test]
fn a_refused_publish_has_a_word() {
    for (refusal, code, retry) in [
        (Refusal::NotAuthorized, "denied", false),
        (Refusal::BadTopic("reserved"), "bad_topic", false),
        (Refusal::Quota { name: "x", limit: 1 }, "too_many", true),
        (Refusal::Overloaded("memory"), "overloaded", true),
        (Refusal::Unsupported("x"), "unsupported", false),
        (Refusal::Internal, "internal", true),
    ] {
        let mut client = envelope();
        client.text(r#"{"op":"pub","id":"p","topic":"a","text":""}"#);
        client.refuse(refusal.clone());
        let err = &client.said_json()[0];
        assert_eq!((&err["id"], &err["code"], &err["retry"]), (&"p".into(), &code.into(), &retry.into()));
        assert_eq!(err["reason"], refusal.to_string());
        assert!(client.closed.is_none());
    }
}

#[test]
fn ping_gets_pong() {
    let mut client = envelope();
    client.text(JSON);
    client.text(r#"{"op":"ping","id":-7}"#);
    client.text(r#"{"op":"ping","id":"é"}"#);
    assert_eq!(client.said(), [r#"{"op":"pong"}"#, r#"{"op":"pong","id":-7}"#, r#"{"op":"pong","id":"é"}"#]);
}

/// One operation that is refused while the connection goes on.
fn check_err(message: &str, code: &str, reason: &str) {
    let mut client = envelope();
    client.text(message);
    let said = client.said_json();
    assert_eq!(said.len(), 1, "{message}");
    assert_eq!((said[0]["op"].as_str(), said[0]["code"].as_str()), (Some("err"), Some(code)), "{message}");
    assert_eq!(said[0]["retry"], false);
    let told = said[0]["reason"].as_str().unwrap();
    assert!(told.contains(reason), "{message}: {told}");
    assert!(client.requests.is_empty() && client.closed.is_none(), "{message}");
    client.text(JSON);
    assert_eq!(client.said(), [r#"{"op":"pong"}"#]);
}

#[test]
fn each_bad_operation_is_told_why() {
    let deep = format!(r#"{{"op":"pub","topic":"a","data":{}{}}}"#, "[".repeat(65), "]".repeat(65));
    let long_id = format!(r#"{{"op":"ping","id":"{}"}}"#, "x".repeat(65));
    let long_ct = format!(r#"{{"op":"pub","topic":"a","text":"","ct":"{}"}}"#, "x".repeat(65_536));
    for (message, code, reason) in [
        ("1", "bad_request", "an operation is a map with 'op', not an integer"),
        (r#""op""#, "bad_request", "not a string"),
        ("{}", "bad_request", "the field 'op' is missing"),
        (r#"{"op":1}"#, "bad_request", "the field 'op' is a string, not an integer"),
        (r#"{"op":"subscribe"}"#, "bad_request", "unknown op 'subscribe'"),
        (r#"{"op":"pup"}"#, "bad_request", "unknown op 'pup'; did you mean 'pub'?"),
        (r#"{"op":"ping","op":"ping"}"#, "bad_request", "the field 'op' stands twice"),
        (r#"{"op":"ping","id":null}"#, "bad_request", "the field 'id' is an integer or a string, not null"),
        (r#"{"op":"ping","id":1.5}"#, "bad_request", "not a number of another kind"),
        (r#"{"op":"ping","id":9007199254740992}"#, "bad_request", "2^53 - 1"),
        (r#"{"op":"ping","id":-9223372036854775808}"#, "bad_request", "2^53 - 1"),
        (&long_id, "bad_request", "up to 64 bytes"),
        (r#"{"op":"ping","extra":1}"#, "bad_request", "unknown field 'extra' in 'ping'"),
        (r#"{"op":"ack","n":1}"#, "unsupported", "'ack' belongs to a window"),
        (r#"{"op":"hist","id":1,"topic":"a"}"#, "unsupported", "history"),
        (r#"{"op":"who","id":1,"topic":"a"}"#, "unsupported", "presence"),
        (r#"{"op":"auth","id":1,"token":"a"}"#, "unsupported", "tokens to refresh"),
        (r#"{"op":"hello","id":1}"#, "bad_request", "unknown field 'id' in 'hello'"),
        (r#"{"op":"hello","name":"n"}"#, "unsupported", "'name'"),
        (r#"{"op":"hello","window":10}"#, "unsupported", "'window'"),
        (r#"{"op":"hello","resume":1}"#, "bad_request", "the field 'resume' is a map"),
        (r#"{"op":"hello","tokn":"x"}"#, "bad_request", "did you mean 'token'?"),
        (r#"{"op":"sub","topic":"a"}"#, "bad_request", "the field 'id' is missing"),
        (r#"{"op":"sub","id":1}"#, "bad_request", "the field 'topic' or 'topics' is missing"),
        (r#"{"op":"sub","id":1,"topic":"a","topics":["b"]}"#, "bad_request", "not both"),
        (r#"{"op":"sub","id":1,"topics":[]}"#, "bad_request", "'topics' is empty"),
        (
            r#"{"op":"sub","id":1,"topics":["a",1]}"#,
            "bad_request",
            "'topics' is a list of strings, not an integer",
        ),
        (r#"{"op":"sub","id":1,"topics":"a"}"#, "bad_request", "'topics' is a list of strings, not a string"),
        (r#"{"op":"sub","id":1,"topic":["a"]}"#, "bad_request", "'topic' is a string, not a list"),
        (r#"{"op":"sub","id":1,"topic":"a/#/b"}"#, "bad_topic", "'#' is not the last level"),
        (r#"{"op":"sub","id":1,"topic":""}"#, "bad_topic", "at least one character"),
        (r#"{"op":"sub","id":1,"topic":"$share/g/a"}"#, "bad_topic", "here it is 'group'"),
        (r#"{"op":"unsub","id":1,"topic":"$share/g/a"}"#, "bad_topic", "here it is 'group'"),
        (r#"{"op":"sub","id":1,"topic":"a","qos":1}"#, "unsupported", "needs a window"),
        (r#"{"op":"sub","id":1,"topic":"a","qos":3}"#, "bad_request", "'qos' is 0 or 1"),
        (r#"{"op":"sub","id":1,"topic":"a","last":10}"#, "unsupported", "history"),
        (r#"{"op":"sub","id":1,"topic":"a","last":-1}"#, "bad_request", "not negative"),
        (
            r#"{"op":"sub","id":1,"topic":"a","last":true}"#,
            "bad_request",
            "'last' is an integer, not a boolean",
        ),
        (r#"{"op":"sub","id":1,"topic":"a","since":{"epoch":1,"off":2}}"#, "unsupported", "'since'"),
        (r#"{"op":"sub","id":1,"topic":"a","group":""}"#, "bad_request", "[MQTT-4.8.2-1]"),
        (r#"{"op":"sub","id":1,"topic":"a","group":"g/h"}"#, "bad_request", "'group': 'g/h': a share name"),
        (
            r#"{"op":"sub","id":1,"topic":"a","group":1}"#,
            "bad_request",
            "'group' is a string, not an integer",
        ),
        (r#"{"op":"sub","id":1,"topic":"a","group":"g","last":1}"#, "bad_request", "no retained messages"),
        (r#"{"op":"sub","id":1,"topic":"a","group":"g","noecho":true}"#, "bad_request", "exclude each other"),
        (r#"{"op":"unsub","id":1,"topic":"a","group":"g"}"#, "not_found", "no subscription"),
        (r#"{"op":"sub","id":1,"topic":"a","presence":true}"#, "unsupported", "'presence'"),
        (r#"{"op":"sub","id":1,"topic":"a","conflate":"x"}"#, "bad_request", "true, false or milliseconds"),
        (r#"{"op":"sub","id":1,"topic":"a","conflate":-1}"#, "bad_request", "not negative"),
        (
            r#"{"op":"sub","id":1,"topic":"a","overflow":"drop_old"}"#,
            "bad_request",
            "drop_oldest, drop_newest, conf",
        ),
        (
            r#"{"op":"sub","id":1,"topic":"a","overflow":"conflat"}"#,
            "bad_request",
            "did you mean 'conflate'?",
        ),
        (r#"{"op":"sub","id":1,"topic":"a","noecho":1}"#, "bad_request", "'noecho' is true or false"),
        (
            r#"{"op":"sub","id":1,"topic":"a","confalte":1}"#,
            "bad_request",
            "unknown field 'confalte' in 'sub'; did",
        ),
        (r#"{"op":"sub","id":1,"topic":"a","data":1}"#, "bad_request", "unknown field 'data' in 'sub'"),
        (r#"{"op":"unsub","id":1}"#, "bad_request", "the field 'topic' is missing"),
        (r#"{"op":"unsub","topic":"a"}"#, "bad_request", "the field 'id' is missing"),
        (r#"{"op":"unsub","id":1,"topics":["a"]}"#, "bad_request", "the field 'topic' is missing"),
        (r#"{"op":"unsub","id":1,"topic":"a"}"#, "not_found", "no subscription"),
        (r#"{"op":"pub","text":"x"}"#, "bad_request", "the field 'topic' is missing"),
        (r#"{"op":"pub","topic":"a/+","text":"x"}"#, "bad_topic", "does not contain '+' or '#'"),
        (r#"{"op":"pub","topic":"a"}"#, "bad_request", "the payload is missing"),
        (r#"{"op":"pub","topic":"a","text":"x","data":1}"#, "bad_request", "here are two"),
        (r#"{"op":"pub","topic":"a","text":1}"#, "bad_request", "'text' is a string, not an integer"),
        (r#"{"op":"pub","topic":"a","b64":1}"#, "bad_request", "'b64' is a string, not an integer"),
        (r#"{"op":"pub","topic":"a","b64":"_w=="}"#, "bad_request", "'b64' is not base64"),
        (r#"{"op":"pub","topic":"a","b64":"/w"}"#, "bad_request", "with padding"),
        (r#"{"op":"pub","topic":"a","bin":"x"}"#, "bad_request", "'bin' is bytes of MessagePack"),
        (&deep, "bad_request", "'data' has more than 64 levels"),
        (r#"{"op":"pub","topic":"a","text":"","qos":2}"#, "unsupported", "publishes at 0 or 1"),
        (r#"{"op":"pub","topic":"a","text":"","qos":-1}"#, "bad_request", "'qos' is 0 or 1"),
        (r#"{"op":"pub","topic":"a","text":"","retain":"yes"}"#, "bad_request", "'retain' is true or false"),
        (r#"{"op":"pub","topic":"a","text":"","ttl":0}"#, "bad_request", "'ttl' is in milliseconds, from 1"),
        (r#"{"op":"pub","topic":"a","text":"","ttl":4294967295001}"#, "bad_request", "to 4294967295000"),
        (r#"{"op":"pub","topic":"a","text":"","ttl":1e300}"#, "bad_request", "'ttl' is an integer"),
        (r#"{"op":"pub","topic":"a","text":"","ct":"a\u0000"}"#, "bad_request", "[MQTT-1.5.4-2]"),
        (&long_ct, "bad_request", "'ct' is longer than 65535 bytes"),
        (
            r#"{"op":"pub","topic":"a","text":"","props":["a"]}"#,
            "bad_request",
            "'props' is a map, not a list",
        ),
        (r#"{"op":"pub","topic":"a","text":"","props":{"a":1}}"#, "bad_request", "a map of strings or lists"),
        (r#"{"op":"pub","topic":"a","text":"","props":{"a":["1",[]]}}"#, "bad_request", "not a list"),
        (
            r#"{"op":"pub","topic":"a","text":"","props":{"a":"1","a":"2"}}"#,
            "bad_request",
            "stands twice in 'props'",
        ),
        (r#"{"op":"pub","topic":"a","text":"","reply":"a/#"}"#, "bad_topic", "'reply': 'a/#'"),
        (r#"{"op":"pub","topic":"a","text":"","corr":{"x":"y"}}"#, "bad_request", "'corr' as a map"),
        (r#"{"op":"pub","topic":"a","text":"","corr":[]}"#, "bad_request", "'corr' is a string"),
        (r#"{"op":"pub","topic":"a","text":"","off":1}"#, "bad_request", "unknown field 'off' in 'pub'"),
    ] {
        check_err(message, code, reason);
    }
}

#[test]
fn an_err_carries_the_id_wherever_it_stands() {
    let mut client = envelope();
    client.text(r#"{"op":"sub","topic":"a","wrong":1,"id":"x"}"#);
    assert_eq!(client.said_json()[0]["id"], "x");
}

#[test]
fn message_pack_refuses_data() {
    let mut client = envelope();
    client.binary(pack(r#"{"op":"pub","id":1,"topic":"a","data":1}"#));
    let err: serde_json::Value = rmp_serde::from_slice(&client.sent[0].head).unwrap();
    assert_eq!(err["reason"], "the field 'data' belongs to JSON; in MessagePack it is 'text' or 'bin'");
    assert!(client.closed.is_none());
}

#[test]
fn an_array_is_done_in_order() {
    let mut client = envelope();
    client.text(
        r#"[{"op":"sub","id":1,"topic":"a"},{"op":"pub","topic":"a","text":"x"},7,{"op":"ping","id":2}]"#,
    );
    assert_eq!((client.requests.len(), client.sent.len()), (1, 0));
    assert!(!client.session.wants().input);
    client.grant();
    assert_eq!(client.requests.len(), 1);
    assert_eq!(
        client.said_json().iter().map(|said| said["op"].clone()).collect::<Vec<_>>(),
        ["ok", "err", "pong"]
    );
    assert!(client.session.wants().input);
    client.text("[]");
    assert!(client.said().is_empty() && client.closed.is_none());
}

#[test]
fn publishes_are_braked_at_receive_maximum() {
    let settings = Settings { receive_maximum: 2, ..Settings::default() };
    let mut client = connected_with(Pinned::Nothing, "", &settings);
    let publish = r#"{"op":"pub","id":1,"topic":"a","text":""}"#;
    client.text(&format!("[{publish},{publish},{publish}]"));
    assert_eq!(client.requests.len(), 2);
    assert!(!client.session.wants().input);
    client.matched(0);
    assert_eq!(client.requests.len(), 2);
    assert!(!client.session.wants().input);
    client.matched(0);
    assert!(client.session.wants().input);
    client.matched(0);
    assert_eq!(client.said().len(), 3);
}

#[test]
fn the_first_frame_decides_what_comes_back() {
    let mut client = envelope();
    client.binary(pack(JSON));
    client.text(JSON);
    let pong = hex(&pack(r#"{"op":"pong"}"#));
    assert_eq!(client.said(), [pong.clone(), pong]);
    let mut client = envelope();
    client.text(JSON);
    client.binary(pack(JSON));
    assert_eq!(client.said(), [r#"{"op":"pong"}"#, r#"{"op":"pong"}"#]);
}

#[test]
fn a_pinned_encoding_refuses_the_other_kind_of_frame() {
    let settings = Settings::default();
    let mut client = connected_with(Pinned::Json, "", &settings);
    client.binary(pack(JSON));
    assert_eq!(client.closed_with(), (1003, "raw.json.v1 has text frames only", DataLane::Abort));
    let mut client = connected_with(Pinned::MessagePack, "", &settings);
    client.binary(pack(JSON));
    assert_eq!(client.said().len(), 1);
    client.text(JSON);
    assert_eq!(client.closed_with(), (1003, "raw.msgpack.v1 has binary frames only", DataLane::Abort));
}

fn check_malformed(client: &mut Client, name: &str, expected: &str) {
    assert_eq!(client.sent.len(), 1, "{name}: an err before the close");
    let (code, reason, lane) = client.closed_with();
    assert_eq!((code, lane), (4000, DataLane::Abort), "{name}");
    assert!(reason.contains(expected), "{name}: {reason}");
    client.text(JSON);
    assert_eq!(client.sent.len(), 1, "{name}: closed is closed");
}

#[test]
fn what_is_no_json_closes_4000() {
    let nested = "[".repeat(100_000);
    let bomb = format!(r#"{{"op":"x","a":{}"#, r#"{"a":"#.repeat(100_000));
    let many = format!("[{}0]", "0,".repeat(2000));
    let values = format!(r#"{{"op":"x","a":[{}0]}}"#, "0,".repeat(20_000));
    for (text, expected) in [
        ("", "not JSON: EOF while parsing a value at line 1 column 0"),
        ("{", "EOF while parsing"),
        ("hello", "expected value at line 1 column 1"),
        ("{}{}", "trailing characters at line 1 column 3"),
        (r#"{"op":"ping",}"#, "trailing comma at line 1 column 14"),
        (r#"{op:"ping"}"#, "key must be a string"),
        (r#"{"op":"\ud800"}"#, "at line 1 column"),
        ("{\"op\":\"\u{1}\"}", "control character"),
        (r#"{"op":"pub","data":[1,}"#, "expected value at line 1 column 23"),
        (r#"{"op":"ping","id":1e999}"#, "number out of range"),
        (&nested, "more than 8 levels of nesting"),
        (&bomb, "more than 8 levels of nesting"),
        (&many, "more than 1000 operations"),
        (&values, "more than 16384 values"),
    ] {
        let mut client = envelope();
        client.text(text);
        check_malformed(&mut client, &text[..text.len().min(30)], expected);
    }
}

#[test]
fn nested_data_needs_no_stack() {
    let mut client = envelope();
    let depth = 400_000;
    client.text(&format!(r#"{{"op":"pub","topic":"a","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)));
    assert_eq!(client.said_json()[0]["code"], "bad_request");
}

#[test]
fn what_is_no_message_pack_closes_4000() {
    let nested = vec![0x91; 100_000];
    let maps = b"\x81\xa1a".repeat(100_000);
    for (bytes, expected) in [
        (&b""[..], "the document ends too early, at byte 0"),
        (b"\xc1", "the marker 0xc1, which is never used, at byte 1"),
        (b"\xd4\x01\x00", "an extension type at byte 1"),
        (b"\xc7\xff\x00", "an extension type"),
        (b"\xc0\xc0", "something follows the document at byte 1"),
        (b"\x81\x01\x01", "a key that is not a string at byte 2"),
        (b"\x81\xa1\xff\x01", "a string that is not UTF-8"),
        (b"\x81\xa2op\xa1\xff", "a string that is not UTF-8"),
        (b"\xdb\xff\xff\xff\xff", "ends too early"),
        (b"\xc6\xff\xff\xff\xff", "ends too early"),
        (b"\xdd\xff\xff\xff\xff", "more than 1000 operations"),
        (b"\xdf\xff\xff\xff\xff", "ends too early"),
        (b"\x91\xdd\xff\xff\xff\xff", "ends too early"),
        (b"\xcf\x00", "ends too early"),
        (&nested, "more than 8 levels of nesting"),
        (&maps, "more than 8 levels of nesting"),
    ] {
        let mut client = envelope();
        client.binary(bytes.to_vec());
        check_malformed(&mut client, &hex(&bytes[..bytes.len().min(8)]), expected);
    }
}

#[test]
fn every_number_of_message_pack_is_read() {
    for (bytes, id) in [
        (&b"\x05"[..], "5"),
        (b"\xff", "-1"),
        (b"\xcc\xc8", "200"),
        (b"\xcd\x01\x00", "256"),
        (b"\xce\x00\x01\x00\x00", "65536"),
        (b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00", "4294967296"),
        (b"\xd0\x80", "-128"),
        (b"\xd1\x80\x00", "-32768"),
        (b"\xd2\x80\x00\x00\x00", "-2147483648"),
        (b"\xd3\xff\xff\xff\xff\x00\x00\x00\x00", "-4294967296"),
        (b"\xa1x", "\"x\""),
        (b"\xd9\x01x", "\"x\""),
        (b"\xda\x00\x01x", "\"x\""),
        (b"\xdb\x00\x00\x00\x01x", "\"x\""),
    ] {
        let mut client = envelope();
        client.text(JSON);
        client.sent.clear();
        client.binary([b"\xde\x00\x02\xa2op\xd9\x04ping\xa2id".as_slice(), bytes].concat());
        assert_eq!(client.said(), [format!(r#"{{"op":"pong","id":{id}}}"#)]);
    }
}

fn lag(dropped: u64, topics: &[&str]) -> Lag {
    Lag { dropped, conflated: 2, topics: topics.iter().map(|name| topic(name)).collect() }
}

#[test]
fn lag_is_told_at_most_once_a_second() {
    let mut client = subscribed(&["a"]);
    client.session.handle_lag(lag(1, &["a"]), client.now);
    client.drain();
    assert_eq!(client.said(), [r#"{"op":"lag","dropped":1,"conflated":2,"topics":["a"]}"#]);
    assert_eq!(client.session.poll_timeout(), None);

    client.session.handle_lag(lag(3, &["a", "b"]), client.now);
    client.session.handle_lag(lag(4, &["b", "1", "2", "3", "4", "5", "6", "7"]), client.now);
    client.drain();
    assert!(client.said().is_empty());
    assert_eq!(client.session.poll_timeout(), Some(client.now + Duration::from_secs(1)));
    client.advance(Duration::from_millis(999));
    assert!(client.said().is_empty());
    client.advance(Duration::from_millis(1));
    let topics = r#"["a","b","1","2","3","4","5","6"]"#;
    assert_eq!(client.said(), [format!(r#"{{"op":"lag","dropped":7,"conflated":4,"topics":{topics}}}"#)]);
    assert_eq!(client.session.poll_timeout(), None);
    client.advance(Duration::from_secs(5));
    assert!(client.said().is_empty());
}

#[test]
fn bye_precedes_a_planned_close() {
    let mut client = subscribed(&["a"]);
    let reason = CloseReason::new(CloseKind::Restarting, "restarting; retry-after=1500 please");
    client.session.handle_close(reason, client.now);
    client.drain();
    let bye = r#"{"op":"bye","code":1012,"reason":"restarting; retry-after=1500 please","after":1500}"#;
    assert_eq!(client.said(), [bye]);
    assert_eq!(client.closed_with().2, DataLane::Drain);

    let mut client = envelope();
    client.session.handle_close(CloseReason::new(CloseKind::Kicked, "by an operator"), client.now);
    client.drain();
    assert_eq!(client.said(), [r#"{"op":"bye","code":4004,"reason":"by an operator"}"#]);
    assert_eq!(client.closed_with().2, DataLane::Abort);
}

#[test]
fn a_delivery_through_the_session_counts_down() {
    let mut client = subscribed(&["a"]);
    let mut expiring = publication("a", b"1");
    expiring.expires_at = Some(client.now + Duration::from_millis(2500));
    client.now += Duration::from_micros(500_001);
    client.deliver(expiring, true);
    assert_eq!(client.said(), [r#"{"op":"msg","topic":"a","data":1,"ret":true,"exp":2000}"#]);
}

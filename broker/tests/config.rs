//! The operator's file: defaults without drift, errors that say where, overrides, and every rule.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tidegate::config::{BUILT_IN, ByteSize, Config, ConfigError, Place, Retain, Topic, report};

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_text(Path::new("my.toml"), text, env)
}

fn built_in() -> Config {
    load("", &[]).unwrap()
}

/// The file is refused, and the message has each of `parts`.
fn check_refused(text: &str, parts: &[&str]) {
    let message = load(text, &[]).unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing for {text:?} in:\n{message}");
    }
}

fn check_variable_refused(name: &str, value: &str, part: &str) {
    let message = load("", &[(name, value)]).unwrap_err().to_string();
    assert!(message.contains(name) && message.contains(part), "{name}={value}: {message}");
}

/// Every key of the built-in file, as a path of table keys; arrays of tables by their first entry.
fn leaves(table: &toml::Table, path: &[String], found: &mut Vec<Vec<String>>) {
    for (key, value) in table {
        let path = [path, std::slice::from_ref(key)].concat();
        match value {
            toml::Value::Table(inner) => leaves(inner, &path, found),
            toml::Value::Array(list) if list.first().is_some_and(toml::Value::is_table) => {
                leaves(list.first().unwrap().as_table().unwrap(), &path, found);
            }
            _ => found.push(path),
        }
    }
}

fn section<'a>(root: &'a mut toml::Table, path: &[String]) -> &'a mut toml::Table {
    path.iter().fold(root, |table, key| match table.get_mut(key).unwrap() {
        toml::Value::Array(list) => list.first_mut().unwrap().as_table_mut().unwrap(),
        value => value.as_table_mut().unwrap(),
    })
}

#[test]
fn the_built_in_file_is_the_defaults_and_reads_back_from_effective() {
    let config = built_in();
    assert_eq!(config.listener.first().unwrap().bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.queue.max_bytes.bytes(), 1 << 20);
    let written = config.to_toml().unwrap();
    assert_eq!(load(&written, &[]).unwrap(), config, "{written}");
}

#[test]
fn every_known_key_is_in_the_file_and_no_other_is() {
    let whole: toml::Table = BUILT_IN.parse().unwrap();
    assert!(toml::Value::Table(whole.clone()).try_into::<Config>().is_ok());
    let mut keys = Vec::new();
    leaves(&whole, &[], &mut keys);
    assert!(keys.len() > 60, "{keys:?}");
    for key in keys {
        let (name, path) = key.split_last().unwrap();
        let mut without = whole.clone();
        section(&mut without, path).remove(name).unwrap();
        assert!(toml::Value::Table(without).try_into::<Config>().is_err(), "{key:?} has a second default");
        let mut with = whole.clone();
        section(&mut with, path).insert(format!("{name}_x"), true.into());
        assert!(toml::Value::Table(with).try_into::<Config>().is_err(), "unknown keys beside {key:?} pass");
    }
}

#[test]
fn the_effective_values_have_the_keys_of_the_file() {
    let (mut file, mut effective) = (Vec::new(), Vec::new());
    leaves(&BUILT_IN.parse().unwrap(), &[], &mut file);
    leaves(&built_in().to_toml().unwrap().parse().unwrap(), &[], &mut effective);
    file.sort();
    effective.sort();
    assert_eq!(file, effective);
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    for (text, parts) in [
        (
            "[queue]\n  max_byte = 1",
            ["my.toml:2:3: `queue.max_byte`: unknown key", "did you mean `max_bytes`?"],
        ),
        ("[que]\n", ["my.toml:1:2: `que`", "did you mean `queue`?"]),
        ("[mqtt]\nmax_bytes = 1", ["my.toml:2:1: `mqtt.max_bytes`", "did you mean `queue.max_bytes`?"]),
        ("[mqtt]\npaths = []", ["my.toml:2:1: `mqtt.paths`", "did you mean `[[listener]].paths`?"]),
        ("[[listener]]\nbnd = \"x\"", ["my.toml:2:1: `listener[0].bnd`", "did you mean `bind`?"]),
        ("[raw]\nzzzzzz = 1", ["my.toml:2:1: `raw.zzzzzz`", "known here: max_topics"]),
        (
            "[[topic]]\nfilter = \"a\"\nretian = \"deny\"",
            ["my.toml:3:1: `topic[0].retian`", "did you mean `retain`?"],
        ),
        (
            "[[topic]]\nfilter = \"a\"\nhistory_size = 1",
            ["`topic[0].history_size`: unknown key", "known here"],
        ),
        ("[sys]\nintervall = \"1s\"", ["my.toml:2:1: `sys.intervall`", "did you mean `interval`?"]),
        ("[websocket.deflate]\nlvl = 1", ["`websocket.deflate.lvl`", "level"]),
        ("[auth]\norder = []", ["my.toml:2:1: `auth.order`: unknown key", "known here: anonymous"]),
    ] {
        check_refused(text, &parts);
    }
}

#[test]
fn all_unknown_keys_are_told_at_once_in_the_order_of_the_file() {
    let error = load("[queue]\nb = 1\na = 1\n[mqtt]\nc = 1", &[]).unwrap_err();
    let keys: Vec<_> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["queue.b", "queue.a", "mqtt.c"]);
}

#[test]
fn a_problem_shows_the_line_and_marks_the_value() {
    let message = load("# ü\n[queue]\nmax_bytes = \"1 Mib/s\" # x\n", &[]).unwrap_err().to_string();
    let expected = "my.toml:3:13: `queue.max_bytes`: `/s` is not a unit; known are B, KiB, MiB, GiB, TiB (1024) and \
                    kB, MB, GB, TB (1000)\n  3 | max_bytes = \"1 Mib/s\" # x\n    |             ^^^^^^^^^";
    assert_eq!(message, expected);
}

#[test]
fn columns_count_characters() {
    let error = load("[websocket]\norigins = [\"ä\", 1]", &[]).unwrap_err();
    let Place::Line { line, column, .. } = error.problems.first().unwrap().place else {
        unreachable!("{error}")
    };
    assert_eq!((line, column), (2, 17));
}

#[test]
fn what_is_no_toml_is_told_with_its_place() {
    check_refused("[queue]\nmax_bytes = = 1", &["my.toml:2:", "not TOML"]);
    check_refused("[queue]\n[queue]", &["my.toml:2:", "not TOML"]);
}

#[test]
fn a_wrong_type_is_told_in_plain_words() {
    for (text, parts) in [
        (
            "[queue]\nmax_messages = \"many\"",
            ["my.toml:2:16: `queue.max_messages`", "a whole number, not negative"],
        ),
        (
            "[queue]\nmax_messages = -1",
            ["my.toml:2:16: `queue.max_messages`", "a whole number, not negative"],
        ),
        (
            "[websocket]\nrequire_origin = \"yes\"",
            ["my.toml:2:18: `websocket.require_origin`", "true or false"],
        ),
        ("[mqtt]\nversions = \"5\"", ["my.toml:2:12: `mqtt.versions`", "a list in [ ]"]),
        ("[mqtt]\nreceive_maximum = 70000", ["my.toml:2:19: `mqtt.receive_maximum`", "0 to 65535"]),
        ("[mqtt]\nversions = [\"4\"]", ["my.toml:2:13: `mqtt.versions[0]`", "`3.1.1`"]),
        ("[queue]\nstall_timeout = 15", ["my.toml:2:17: `queue.stall_timeout`", "a duration like"]),
        ("[queue]\nstall_timeout = \"15\"", ["my.toml:2:17: `queue.stall_timeout`", "has no unit"]),
        ("[queue]\ntotal_bytes = \"200%\"", ["my.toml:2:15: `queue.total_bytes`", "between 1% and 100%"]),
        ("[websocket]\nidle_timeout = 0", ["my.toml:2:16: `websocket.idle_timeout`", "\"none\""]),
        ("[[listener]]\nbind = \"*:80\"", ["my.toml:2:8: `listener[0].bind`", "[::]:80"]),
        ("[listener]\nbind = \"127.0.0.1:80\"", ["`listener`", "a list in [ ]"]),
        ("[admin]\nbind = \"off\"", ["my.toml:2:8: `admin.bind`", "nor \"none\""]),
        ("[stomp]\nheart_beat = [\"1s\"]", ["my.toml:2:14: `stomp.heart_beat", "invalid length 1"]),
        ("[[topic]]\nretain = \"deny\"", ["my.toml:1:1: `topic[0]`", "missing field `filter`"]),
        ("[[topic]]\nfilter = \"a\"\nretain = true", ["my.toml:3:10: `topic[0].retain`", "a text in quotes"]),
        ("[[topic]]\nfilter = \"a\"\nretain = \"never\"", ["my.toml:3:10: `topic[0].retain`", "`deny`"]),
        ("[[topic]]\nfilter = \"a\"\nmax_payload = \"4 kb/s\"", ["`topic[0].max_payload`", "is not a unit"]),
        ("[topic]\nfilter = \"a\"", ["`topic`", "a list in [ ]"]),
        ("[store]\nmax_bytes = 0.5", ["my.toml:2:13: `store.max_bytes`", "\"none\""]),
        ("[store]\nmax_bytes = \"8 GX\"", ["my.toml:2:13: `store.max_bytes`", "or \"none\""]),
        ("[store]\nsync = \"fsync\"", ["my.toml:2:8: `store.sync`", "always"]),
        ("[sys]\ninterval = 10", ["my.toml:2:12: `sys.interval`", "\"none\""]),
        ("queue = 1", ["my.toml:1:9: `queue`", "a section in [ ]"]),
    ] {
        check_refused(text, &parts);
    }
}

#[test]
fn every_rule_is_kept_and_points_at_what_the_operator_wrote() {
    for (text, parts) in [
        ("listener = []", ["my.toml:1:12: `listener`", "no listener"]),
        ("[[listener]]\nname = \"a b\"", ["my.toml:2:8: `listener[0].name`", "is no name"]),
        ("[[listener]]\npaths = []", ["my.toml:2:9: `listener[0].paths`", "empty"]),
        ("[[listener]]\npaths = [\"ws\"]", ["`listener[0].paths`", "begins with '/'"]),
        ("[[listener]]\npaths = [\"/a?b\"]", ["`listener[0].paths`", "is no path"]),
        ("[[listener]]\nprotocols = [\"raw\", \"raw\"]", ["`listener[0].protocols`", "twice"]),
        ("[[listener]]\nmax_connections = 0", ["`listener[0].max_connections`", "allowed is 1 to"]),
        (
            "[[listener]]\nmax_connections_per_ip = 0",
            ["`listener[0].max_connections_per_ip`", "allowed is 1 to"],
        ),
        ("[[listener]]\naccept_rate = 0", ["`listener[0].accept_rate`", "allowed is 1 to"]),
        (
            "[[listener]]\nbind = \"0.0.0.0:80\"",
            ["my.toml:2:8: `listener[0].bind`", "auth.anonymous = \"always\""],
        ),
        ("[[listener]]\nbind = \"[::]:80\"", ["`listener[0].bind`", "no authenticator"]),
        (
            "[[listener]]\nbind = \"127.0.0.1:9090\"",
            ["`listener[0].bind`", "admin.bind is 127.0.0.1:9090 too"],
        ),
        (
            "[admin]\nbind = \"127.0.0.1:8080\"",
            ["my.toml:2:8: `admin.bind`", "admin.bind is 127.0.0.1:8080 too"],
        ),
        ("[websocket]\norigins = [\"example.com\"]", ["my.toml:2:11: `websocket.origins`", "is no origin"]),
        (
            "[websocket]\nhandshake_timeout = \"0s\"",
            ["`websocket.handshake_timeout`", "allowed is 100ms to 1d"],
        ),
        (
            "[websocket]\nmax_header_bytes = 100",
            ["`websocket.max_header_bytes`", "allowed is 8 KiB to 1 MiB"],
        ),
        (
            "[websocket]\nmax_message_size = \"1 B\"",
            ["my.toml:2:20: `websocket.max_message_size`", "1 KiB to 256 MiB"],
        ),
        (
            "[websocket]\nmax_message_size_preauth = \"2 MiB\"",
            ["max_message_size_preauth = 2 MiB is above", "= 1 MiB"],
        ),
        ("[websocket]\nping_interval = \"0s\"", ["`websocket.ping_interval`", "out of range"]),
        ("[websocket]\npong_timeout = \"0s\"", ["`websocket.pong_timeout`", "out of range"]),
        ("[websocket]\nclose_timeout = \"0s\"", ["`websocket.close_timeout`", "out of range"]),
        ("[websocket]\nidle_timeout = \"0s\"", ["`websocket.idle_timeout`", "out of range"]),
        ("[websocket]\nread_buffer = 1", ["`websocket.read_buffer`", "allowed is 4 KiB"]),
        (
            "[websocket]\nwrite_coalesce = \"128 KiB\"",
            ["`websocket.write_coalesce`", "queue.high_watermark = 64 KiB"],
        ),
        ("[websocket.deflate]\ntakeover_memory = 1", ["`websocket.deflate.takeover_memory`", "512 KiB"]),
        (
            "[websocket.deflate]\nserver_max_window_bits = 16",
            ["server_max_window_bits`", "allowed is 8 to 15"],
        ),
        ("[websocket.deflate]\nlevel = 0", ["`websocket.deflate.level`", "allowed is 1 to 9"]),
        ("[websocket.deflate]\nmin_size = \"1 GiB\"", ["`websocket.deflate.min_size`", "out of range"]),
        ("[queue]\nmax_messages = 0", ["`queue.max_messages`", "allowed is 1 to"]),
        ("[queue]\nmax_bytes = 0", ["`queue.max_bytes`", "allowed is 4 KiB"]),
        ("[queue]\noverflow_qos1 = \"conflate\"", ["my.toml:2:17: `queue.overflow_qos1`", "drop_oldest"]),
        ("[queue]\npublish_wait = \"2m\"", ["`queue.publish_wait`", "allowed is 0s to 1m"]),
        ("[queue]\nslow_after = \"11s\"", ["`queue.slow_after`", "allowed is 0s to 10s"]),
        ("[queue]\nstall_timeout = \"0s\"", ["`queue.stall_timeout`", "out of range"]),
        ("[queue]\nhigh_watermark = \"2 MiB\"", ["`queue.high_watermark`", "queue.max_bytes = 1 MiB"]),
        ("[queue]\ntotal_bytes = \"1 MiB\"", ["`queue.total_bytes`", "3 MiB"]),
        ("[mqtt]\nversions = []", ["`mqtt.versions`", "empty"]),
        ("[mqtt]\nmax_qos = 3", ["`mqtt.max_qos`", "allowed is 0 to 2"]),
        ("[mqtt]\nreceive_maximum = 0", ["`mqtt.receive_maximum`", "allowed is 1 to 65535"]),
        ("[mqtt]\nmax_inflight = 0", ["`mqtt.max_inflight`", "allowed is 1 to 65535"]),
        ("[mqtt]\nmax_topic_levels = 0", ["`mqtt.max_topic_levels`", "out of range"]),
        ("[mqtt]\nmax_topic_bytes = 65536", ["`mqtt.max_topic_bytes`", "out of range"]),
        ("[mqtt]\nmax_subscriptions = 0", ["`mqtt.max_subscriptions`", "out of range"]),
        ("[mqtt]\nmax_filters_per_subscribe = 0", ["`mqtt.max_filters_per_subscribe`", "out of range"]),
        ("[mqtt]\nkeepalive_max = \"1d\"", ["`mqtt.keepalive_max`", "out of range"]),
        ("[mqtt]\nkeepalive_max = \"1500ms\"", ["`mqtt.keepalive_max`", "whole seconds"]),
        ("[mqtt]\nkeepalive_multiplier = nan", ["`mqtt.keepalive_multiplier`", "allowed is 1 to 10"]),
        ("[mqtt]\nretained_max_messages = 0", ["`mqtt.retained_max_messages`", "out of range"]),
        ("[mqtt]\nretained_max_bytes = 0", ["`mqtt.retained_max_bytes`", "out of range"]),
        ("[mqtt]\nretained_batch = 0", ["`mqtt.retained_batch`", "allowed is 1 to 10000"]),
        ("[mqtt]\nconnect_timeout = \"0s\"", ["`mqtt.connect_timeout`", "out of range"]),
        ("[stomp]\nversions = []", ["`stomp.versions`", "empty"]),
        ("[stomp]\nheart_beat = [\"1s\", \"0s\"]", ["my.toml:2:21: `stomp.heart_beat[1]`", "out of range"]),
        ("[stomp]\nheart_beat_tolerance = 0.5", ["`stomp.heart_beat_tolerance`", "allowed is 1 to 10"]),
        ("[stomp]\nconnect_timeout = \"0s\"", ["`stomp.connect_timeout`", "out of range"]),
        ("[stomp]\nmax_headers = 1", ["`stomp.max_headers`", "out of range"]),
        ("[stomp]\nmax_header_bytes = 1", ["`stomp.max_header_bytes`", "out of range"]),
        ("[stomp]\nmax_body = \"2 MiB\"", ["`stomp.max_body`", "websocket.max_message_size = 1 MiB"]),
        ("[stomp]\nmax_transactions = 0", ["`stomp.max_transactions`", "out of range"]),
        ("[stomp]\nmax_transaction_actions = 0", ["`stomp.max_transaction_actions`", "out of range"]),
        ("[stomp]\nmax_selector_bytes = 1", ["`stomp.max_selector_bytes`", "out of range"]),
        ("[stomp]\nprefetch = 0", ["`stomp.prefetch`", "out of range"]),
        ("[raw]\nmax_topics = 0", ["`raw.max_topics`", "out of range"]),
        ("[store]\npath = \"Cargo.toml\"", ["my.toml:2:8: `store.path`", "Cargo.toml is no directory"]),
        ("[store]\nwindow = \"2s\"", ["`store.window`", "allowed is 0s to 1s"]),
        ("[store]\nmax_bytes = \"1 MiB\"", ["`store.max_bytes`", "allowed is 128 MiB to"]),
        ("[store]\nmax_pending_bytes = 1", ["`store.max_pending_bytes`", "allowed is 1 MiB to"]),
        (
            "[websocket]\nmax_message_size = \"2 MiB\"\n[store]\nmax_pending_bytes = \"1 MiB\"",
            ["my.toml:2:20: `websocket.max_message_size`", "store.max_pending_bytes = 1 MiB"],
        ),
        ("[store]\nblock_cache = 0", ["`store.block_cache`", "allowed is 1 MiB to"]),
        ("[[topic]]\nfilter = \"a/#/b\"", ["my.toml:2:10: `topic[0].filter`", "'#' is not the last level"]),
        (
            "[mqtt]\nmax_topic_levels = 2\n[[topic]]\nfilter = \"a/b/c\"",
            ["my.toml:4:10: `topic[0].filter`", "3 levels, the limit is 2"],
        ),
        (
            "[[topic]]\nfilter = \"a\"\n[[topic]]\nfilter = \"a\"",
            ["my.toml:4:10: `topic[1].filter`", "an earlier rule is for \"a\" too"],
        ),
        ("[[topic]]\nfilter = \"a\"\nqos_max = 3", ["my.toml:3:11: `topic[0].qos_max`", "allowed is 0 to 2"]),
        ("[[topic]]\nfilter = \"a\"\nmax_payload = 0", ["my.toml:3:15: `topic[0].max_payload`", "1 B to"]),
        (
            "[mqtt]\nretain = false\n[[topic]]\nfilter = \"a\"\nretain = \"force\"",
            ["my.toml:5:10: `topic[0].retain`", "mqtt.retain = false"],
        ),
        (
            "[[topic]]\nfilter = \"$SYS/broker/uptime\"\nretain = \"deny\"",
            ["my.toml:2:10: `topic[0].filter`", "only be for $SYS/broker/clients/+/state"],
        ),
        (
            "[[topic]]\nfilter = \"$share/g/a\"",
            ["my.toml:2:10: `topic[0].filter`", "clients publish nothing below '$'"],
        ),
        (
            "[[topic]]\nfilter = \"$SYS/#\"\nqos_max = 0",
            ["my.toml:3:11: `topic[0].qos_max`", "only retain counts there"],
        ),
        (
            "[[topic]]\nfilter = \"$SYS/#\"\nmax_payload = 1",
            ["my.toml:3:15: `topic[0].max_payload`", "only retain counts there"],
        ),
        ("[sys]\ninterval = \"0s\"", ["my.toml:2:12: `sys.interval`", "allowed is 1s to 1d"]),
        ("[log]\nlevel = \"inof\"", ["my.toml:2:9: `log.level`", "is no level"]),
        ("[shutdown]\ntimeout = \"0s\"", ["`shutdown.timeout`", "out of range"]),
        ("[shutdown]\nreadiness_grace = \"1d\"", ["`shutdown.readiness_grace`", "out of range"]),
    ] {
        check_refused(text, &parts);
    }
}

#[test]
fn the_rules_in_comments_are_rules() {
    let keys = ["[[topic]]", "filter =", "retain =", "qos_max =", "max_payload ="];
    let lines = BUILT_IN.lines().filter_map(|line| line.strip_prefix("# "));
    let lines: Vec<_> = lines.filter(|line| keys.iter().any(|key| line.starts_with(key))).collect();
    let config = load(&lines.join("\n"), &[]).unwrap();
    let [first, second] = config.topic.as_slice() else { unreachable!("{config:?}") };
    assert_eq!(
        (first.filter.as_str(), first.retain, first.qos_max),
        ("plant/+/temp", Some(Retain::Allow), Some(1))
    );
    assert_eq!(first.max_payload.map(ByteSize::bytes), Some(64 * 1024));
    assert_eq!((second.retain, second.qos_max, second.max_payload), (Some(Retain::Allow), None, None));
}

#[test]
fn a_rule_asks_only_what_stands_in_it_and_there_are_none_at_first() {
    assert_eq!(built_in().topic, []);
    let config = load("[[topic]]\nfilter = \"a\"", &[]).unwrap();
    let none = Topic { filter: "a".to_owned(), retain: None, qos_max: None, max_payload: None };
    assert_eq!(config.topic, [none]);
}

#[test]
fn there_are_not_more_rules_than_a_publish_can_be_held_against() {
    let rules =
        |count: usize| (0..count).map(|n| format!("[[topic]]\nfilter = \"{n}\"\n")).collect::<String>();
    assert_eq!(load(&rules(256), &[]).unwrap().topic.len(), 256);
    check_refused(&rules(257), &["`topic`: there are 257 rules; allowed are 256"]);
}

#[test]
fn rules_come_from_variables_too() {
    let one = ("TIDEGATE__TOPIC__0__FILTER", "a/#");
    let config =
        load("", &[one, ("TIDEGATE__TOPIC__0__RETAIN", "deny"), ("TIDEGATE__TOPIC__1__FILTER", "b")]);
    let config = config.unwrap();
    let filters: Vec<_> = config.topic.iter().map(|rule| (rule.filter.as_str(), rule.retain)).collect();
    assert_eq!(filters, [("a/#", Some(Retain::Deny)), ("b", None)]);
    let config = load("[[topic]]\nfilter = \"x\"\nqos_max = 1", &[one]).unwrap();
    assert_eq!((config.topic[0].filter.as_str(), config.topic[0].qos_max), ("a/#", Some(1)));
    check_variable_refused("TIDEGATE__TOPIC__1__FILTER", "a", "there is no topic 1; the next one would be 0");
    check_variable_refused("TIDEGATE__TOPIC__0__QOS_MAX", "1", "missing");
    check_variable_refused("TIDEGATE__TOPIC__0__FILTER", "a#", "is no filter");
}

#[test]
fn two_listeners_need_two_names_and_two_addresses() {
    let two = "[[listener]]\n[[listener]]\nname = \"b\"\n[[listener]]\nbind = \"127.0.0.1:1\"";
    check_refused(two, &["two listeners are bound to 127.0.0.1:8080", "two listeners have the name \"web\""]);
    let free = "[[listener]]\nbind = \"127.0.0.1:0\"\n[[listener]]\nname = \"b\"\nbind = \"127.0.0.1:0\"";
    assert_eq!(load(free, &[]).unwrap().listener.len(), 2);
}

#[test]
fn own_listeners_replace_the_built_in_one_and_take_the_rest_from_it() {
    let config = load("[[listener]]\nname = \"mine\"\npaths = [\"/x\"]", &[]).unwrap();
    let [listener] = config.listener.as_slice() else { unreachable!("{config:?}") };
    assert_eq!((listener.name.as_str(), listener.paths.as_slice()), ("mine", &["/x".to_owned()][..]));
    assert_eq!(listener.max_connections, 100_000);
}

#[test]
fn an_open_address_is_allowed_when_everybody_may_come() {
    let open = "[[listener]]\nbind = \"0.0.0.0:80\"\n[auth]\nanonymous = \"always\"";
    let config = load(open, &[]).unwrap();
    assert!(report::hints(&config).iter().any(|hint| hint.contains("lets everybody in")));
    assert_eq!(report::hints(&built_in()), Vec::<String>::new());
}

/// A line of `tidegate scram user`, password "pencil".
const USER: &str = "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// A file of users, closed to others, and the `[auth]` that names it.
fn users(text: &str) -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.scram");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let settings = format!("[auth]\nscram_file = {:?}\n", file.to_str().unwrap());
    (folder, file, settings)
}

fn check_hints(settings: &str, expected: &[&str]) {
    let hints = report::hints(&load(settings, &[]).unwrap());
    assert_eq!(hints.len(), expected.len(), "{settings}\n{hints:?}");
    for (hint, part) in hints.iter().zip(expected) {
        assert!(hint.contains(part), "{part:?} is missing for {settings:?} in:\n{hint}");
    }
}

#[test]
fn the_file_of_users_is_read_when_the_settings_are() {
    assert_eq!(built_in().auth.scram_file, None);
    let (_folder, file, settings) = users(&format!("# users\n{USER}\n"));
    let config = load(&settings, &[]).unwrap();
    assert_eq!(config.auth.scram_file.as_deref(), Some(&*file));
    assert_eq!(load(&config.to_toml().unwrap(), &[]).unwrap(), config);
    let from_variable = load("", &[("TIDEGATE__AUTH__SCRAM_FILE", file.to_str().unwrap())]).unwrap();
    assert_eq!(from_variable.auth, config.auth);
    assert_eq!(load(&settings, &[("TIDEGATE__AUTH__SCRAM_FILE", "")]).unwrap().auth.scram_file, None);
}

#[test]
fn a_wrong_line_among_the_users_is_told_with_its_file_and_number() {
    for (text, part) in [
        ("user:pencil".to_owned(), "users.scram:1: a line is name:SCRAM-SHA-256$"),
        (format!("{USER}\n\n{USER}"), "users.scram:3: line 1 is about the same user"),
        (USER.replace("4096", "1000"), "users.scram:1: the iterations must be 4096 to 1000000"),
    ] {
        let (_folder, _, settings) = users(&text);
        check_refused(&settings, &["my.toml:2:14: `auth.scram_file`: ", part]);
        let (code, out, err) = run_check(&settings, false);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains(part) && !err.contains("pencil"), "{err}");
    }
    check_refused(
        "[auth]\nscram_file = \"/nowhere/users\"",
        &["my.toml:2:14: `auth.scram_file`: cannot read /nowhere/users: "],
    );
    check_variable_refused("TIDEGATE__AUTH__SCRAM_FILE", "/nowhere/users", "cannot read /nowhere/users: ");
    check_refused("[auth]\nscram_file = 1", &["my.toml:2:14: `auth.scram_file`", "a string"]);
}

#[test]
fn an_open_address_is_allowed_when_its_clients_can_log_in() {
    let (_folder, _, settings) = users(USER);
    let open = format!(
        "[[listener]]\nbind = \"0.0.0.0:80\"\nmax_connections_per_ip = 9\naccept_rate = 9\n{settings}"
    );
    check_hints(&open, &["has no TLS, so what clients say can be read on the way"]);
    for rest in ["protocols = [\"raw\"]\n", "[mqtt]\nversions = [\"3.1.1\"]\n"] {
        let text = format!("[[listener]]\nbind = \"0.0.0.0:80\"\n{rest}{settings}");
        check_refused(&text, &["my.toml:2:8: `listener[0].bind`", "no authenticator for what it speaks"]);
    }
}

#[test]
fn a_file_of_users_that_helps_nobody_or_everybody_is_hinted_at() {
    let (_folder, file, settings) = users(USER);
    check_hints(&settings, &[]);
    check_hints(&format!("{settings}anonymous = \"never\"\n"), &[]);
    check_hints("[auth]\nanonymous = \"never\"\n", &["there is no authenticator: no client can connect"]);
    check_hints(
        &format!("{settings}anonymous = \"never\"\n[mqtt]\nversions = [\"3.1\"]\n"),
        &["there is no authenticator: no client can connect", "no listener speaks MQTT 5"],
    );
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    check_hints(&settings, &["users.scram is open to every user of this machine; try chmod 600"]);
    let (_folder, _, settings) = users("# nobody\n");
    check_hints(&settings, &["users.scram names no user"]);
}

#[test]
fn variables_override_the_file() {
    let config = load(
        "[queue]\nmax_messages = 5",
        &[
            ("TIDEGATE__QUEUE__MAX_MESSAGES", "7"),
            ("TIDEGATE__QUEUE__MAX_BYTES", "2 MiB"),
            ("TIDEGATE__LISTENER__0__BIND", "127.0.0.1:81"),
            ("TIDEGATE__LISTENER__0__NAME", "123"),
            ("TIDEGATE__LISTENER__0__PATHS", "[\"/a\", \"/b\"]"),
            ("TIDEGATE__LISTENER__1__NAME", "second"),
            ("TIDEGATE__LISTENER__1__BIND", "127.0.0.1:82"),
            ("TIDEGATE__WEBSOCKET__DEFLATE__ENABLED", "false"),
            ("TIDEGATE__STOMP__HEART_BEAT", "[\"none\", \"1s\"]"),
            ("TIDEGATE__MQTT__KEEPALIVE_MULTIPLIER", "2"),
            ("TIDEGATE_PORT", "tcp://10.0.0.1:80"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!((config.queue.max_messages, config.queue.max_bytes.bytes()), (7, 2 << 20));
    let [first, second] = config.listener.as_slice() else { unreachable!("{config:?}") };
    assert_eq!((first.name.as_str(), first.bind.port()), ("123", 81));
    assert_eq!(first.paths, ["/a", "/b"]);
    assert_eq!((second.name.as_str(), second.bind.port(), second.max_connections), ("second", 82, 100_000));
    assert!(!config.websocket.deflate.enabled);
    assert_eq!(config.stomp.heart_beat.0, None);
    assert!(config.mqtt.keepalive_multiplier > 1.9);
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value, part) in [
        ("TIDEGATE__QUEUE__MAX_BYTE", "1", "did you mean `max_bytes`?"),
        ("TIDEGATE__QUEUE", "1", "is a section"),
        ("TIDEGATE__LISTENER__0", "1", "is a section"),
        ("TIDEGATE__LISTENER__BIND", "1", "needs a number"),
        ("TIDEGATE__LISTENER__2__BIND", "127.0.0.1:1", "the next one would be 1"),
        ("TIDEGATE__QUEUE__MAX_BYTES__X", "1", "has none below it"),
        ("TIDEGATE__QUEUE__MAX_BYTES", "1 M", "`M` is not a unit"),
        ("TIDEGATE__QUEUE__MAX_MESSAGES", "many", "a whole number"),
        ("TIDEGATE__QUEUE__MAX_MESSAGES", "0", "allowed is 1 to"),
        ("TIDEGATE__LOG__LEVEL", "", "is no level"),
        ("TIDEGATE__LISTENER__0__PATHS", "[\"/a\"", "begins like a list"),
        ("TIDEGATE__LISTENER__0__BIND", "0.0.0.0:1", "auth.anonymous = \"always\""),
        ("TIDEGATE__LISTENER__0__NAME", "\u{FFFD}", "not UTF-8"),
    ] {
        check_variable_refused(name, value, part);
    }
}

fn run_check(text: &str, effective: bool) -> (u8, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    std::fs::write(&file, text).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = report::check(Some(&file), effective, std::iter::empty(), &mut out, &mut err).unwrap();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn check_says_ok_and_how_much_memory() {
    let (code, out, err) = run_check("[queue]\ntotal_bytes = \"30 MiB\"", false);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("ok: "), "{out}");
    assert!(out.contains("2 × 1 MiB queued + one message of 1 MiB = 3 MiB; whole broker 30 MiB"), "{out}");
    assert!(out.contains("10 clients can be full at once"), "{out}");
}

#[test]
fn check_tells_problems_and_fails() {
    let (code, out, err) = run_check("[queue]\nmax_byte = 1", false);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("my.toml:2:1: `queue.max_byte`: unknown key; did you mean `max_bytes`?"), "{err}");
}

#[test]
fn the_whole_effective_output_parses_to_the_same_settings() {
    let own = "[queue]\nmax_bytes = \"3 MiB\"\n[websocket]\nidle_timeout = \"90s\"\n[admin]\nbind = \"none\"\n\
               [sys]\ninterval = \"none\"\n[[topic]]\nfilter = \"a\"\nmax_payload = 5\n[[topic]]\nfilter = \"b\"\n\
               retain = \"force\"\nqos_max = 0";
    let (code, out, _) = run_check(own, true);
    assert_eq!(code, 0);
    assert_eq!(load(&out, &[]).unwrap(), load(own, &[]).unwrap(), "{out}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/my.toml")), std::iter::empty()).unwrap_err();
    assert!(error.to_string().contains("cannot read /nowhere/my.toml"), "{error}");
}

#[test]
fn the_source_names_the_file_and_the_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    std::fs::write(&file, "").unwrap();
    let env = [("TIDEGATE__LOG__LEVEL".to_owned(), "warn".to_owned())];
    let (config, source) = Config::load(Some(&file), env.into_iter()).unwrap();
    assert_eq!(config.log.level, "warn");
    assert_eq!(source.to_string(), format!("{} and TIDEGATE__LOG__LEVEL", file.display()));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(\\[|\\]|queue|listener|max_bytes|=|\"|1 MiB|\n|.){0,24}") {
        let _ = load(&text, &[]).map_err(|error| error.to_string());
    }
}

#[test]
fn the_store_has_a_line_of_its_own_with_its_memory() {
    for (text, line) in [
        (
            "",
            "store: in data, at most 16 GiB on the disk; in memory at most 2 × 64 MiB pending + 8 MiB block cache + \
             64 MiB not yet in tables = 200 MiB",
        ),
        (
            "[store]\npath = \"/var/lib/t\"\nmax_bytes = \"none\"\nmax_pending_bytes = \"1 MiB\"\nblock_cache = \"1 MiB\"",
            "store: in /var/lib/t, as much as there is on the disk; in memory at most 2 × 1 MiB pending + 1 MiB block \
             cache + 64 MiB not yet in tables = 67 MiB",
        ),
        ("[store]\npath = \"\"", "store: none; sessions and retained messages end with the broker"),
    ] {
        assert_eq!(report::store_line(&load(text, &[]).unwrap()), line);
    }
}

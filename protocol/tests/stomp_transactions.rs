//! Conversations about transactions: nothing of one is carried out before its COMMIT, then all of it at once.

#![expect(clippy::panic, reason = "a test helper may panic")]

mod stomp_support;

use std::time::Duration;

use stomp_support::{Talk, delivery, granted, publication, published};
use tidegate_protocol::publication::QoS;
use tidegate_protocol::session::{Refusal, Reply, Wants};
use tidegate_protocol::stomp::{Settings, Version};

/// A step of a conversation: a frame of the client with `^` for NUL, and what the session gives for it.
type Step<'a> = (&'a str, &'a [&'a str]);

fn talk(talk: &mut Talk, steps: &[Step<'_>]) {
    for (frame, expected) in steps {
        assert_eq!(talk.client(&frame.replace('^', "\0")), *expected, "{frame}");
    }
}

fn check(version: Version, steps: &[Step<'_>]) -> Talk {
    check_with(version, &Settings::default(), steps)
}

fn check_with(version: Version, settings: &Settings, steps: &[Step<'_>]) -> Talk {
    let mut conversation = Talk::connected_with(version, settings, "");
    talk(&mut conversation, steps);
    conversation
}

/// The last frame ends the session with this message and close code.
fn check_error(settings: &Settings, steps: &[Step<'_>], last: &str, message: &str, code: u16) {
    let mut talk = check_with(Version::V1_2, settings, steps);
    let shown = talk.client(&last.replace('^', "\0"));
    let [error, close] = shown.as_slice() else { panic!("{last}: {shown:?}") };
    let error = error.replace("\\c", ":");
    assert!(error.starts_with(&format!("text ERROR|message:{message}|receipt-id:r|")), "{last}: {error}");
    assert_eq!(*close, format!("close {code} Abort"), "{last}");
}

/// With a subscription `s` in this mode and messages with the tags 1 to 3.
fn with_messages(mode: &str, destination: &str) -> Talk {
    let mut talk = Talk::connected(Version::V1_2);
    talk.client(&format!("SUBSCRIBE\nid:s\ndestination:{destination}\nack:{mode}\n\n\0"));
    talk.reply(granted(QoS::AtLeastOnce));
    for tag in 1..=3 {
        talk.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, tag));
    }
    talk
}

#[test]
fn a_commit_carries_everything_out_in_the_order_of_its_frames() {
    let mut conversation = with_messages("client-individual", "a");
    talk(
        &mut conversation,
        &[
            ("BEGIN\ntransaction:t\n\n^", &[]),
            ("SEND\ndestination:a\ntransaction:t\n\n1^", &[]),
            ("ACK\nid:0-2\ntransaction:t\n\n^", &[]),
            ("SEND\ndestination:b\nqos:1\ntransaction:t\n\n2^", &[]),
            ("NACK\nid:0-1\ntransaction:t\n\n^", &[]),
            ("SEND\ndestination:c\n\noutside^", &["publish c qos0 \"outside\""]),
            (
                "COMMIT\ntransaction:t\n\n^",
                &[
                    "transaction [publish a qos0 \"1\", settle 2 Accepted, publish b qos1 \"2\", settle 1 Dropped(Refused)]",
                ],
            ),
        ],
    );
    assert!(conversation.reply(published()).is_empty(), "of the publish at QoS 0");
    assert!(conversation.reply(published()).is_empty(), "of the transaction");
}

#[test]
fn receipts_of_a_transaction_leave_when_a_frame_is_kept_and_when_the_commit_is_done() {
    for version in Version::ALL {
        let mut talk = check(
            version,
            &[
                ("BEGIN\ntransaction:t\nreceipt:1\n\n^", &["text RECEIPT|receipt-id:1||^@"]),
                ("SEND\ndestination:a\nreceipt:2\ntransaction:t\n\nx^", &["text RECEIPT|receipt-id:2||^@"]),
                ("COMMIT\ntransaction:t\nreceipt:3\n\n^", &["transaction [publish a qos1 \"x\"]"]),
            ],
        );
        assert_eq!(talk.reply(published()), ["text RECEIPT|receipt-id:3||^@"]);
    }
}

#[test]
fn a_receipt_of_the_commit_is_one_of_each_send() {
    for (commit, expected) in [
        ("COMMIT\ntransaction:t\nreceipt:r\n\n^", "transaction [publish a qos1 \"x\", publish b qos1 \"y\"]"),
        ("COMMIT\ntransaction:t\n\n^", "transaction [publish a qos0 \"x\", publish b qos1 \"y\"]"),
    ] {
        check(
            Version::V1_2,
            &[
                ("BEGIN\ntransaction:t\n\n^", &[]),
                ("SEND\ndestination:a\ntransaction:t\n\nx^", &[]),
                ("SEND\ndestination:b\npersistent:true\ntransaction:t\n\ny^", &[]),
                (commit, &[expected]),
            ],
        );
    }
}

#[test]
fn an_empty_transaction_needs_nobody() {
    check(
        Version::V1_1,
        &[
            ("BEGIN\ntransaction:t\n\n^", &[]),
            ("COMMIT\ntransaction:t\nreceipt:r\n\n^", &["text RECEIPT|receipt-id:r||^@"]),
            ("BEGIN\ntransaction:t\n\n^", &[]),
            ("ABORT\ntransaction:t\nreceipt:q\n\n^", &["text RECEIPT|receipt-id:q||^@"]),
        ],
    );
}

#[test]
fn a_name_is_free_again_after_its_end_and_others_go_on() {
    check(
        Version::V1_2,
        &[
            ("BEGIN\ntransaction:t\n\n^", &[]),
            ("BEGIN\ntransaction:u\n\n^", &[]),
            ("SEND\ndestination:a\ntransaction:t\n\n1^", &[]),
            ("SEND\ndestination:a\ntransaction:u\n\n2^", &[]),
            ("ABORT\ntransaction:t\n\n^", &[]),
            ("BEGIN\ntransaction:t\n\n^", &[]),
            ("SEND\ndestination:a\ntransaction:t\n\n3^", &[]),
            ("COMMIT\ntransaction:u\n\n^", &["transaction [publish a qos0 \"2\"]"]),
            ("COMMIT\ntransaction:t\n\n^", &["transaction [publish a qos0 \"3\"]"]),
        ],
    );
}

#[test]
fn what_a_transaction_acknowledges_is_not_acknowledged_twice() {
    let mut conversation = with_messages("client", "a");
    talk(
        &mut conversation,
        &[
            ("BEGIN\ntransaction:t\n\n^", &[]),
            ("BEGIN\ntransaction:u\n\n^", &[]),
            ("ACK\nid:0-1\ntransaction:t\n\n^", &[]),
            ("ACK\nid:0-1\ntransaction:u\n\n^", &[]),
            ("ACK\nid:0-2\n\n^", &["settle 2 Accepted"]),
            ("COMMIT\ntransaction:u\n\n^", &[]),
            ("COMMIT\ntransaction:t\n\n^", &["transaction [settle 1 Accepted]"]),
        ],
    );
}

#[test]
fn an_abort_gives_back_what_was_acknowledged() {
    let mut conversation = with_messages("client", "a");
    talk(
        &mut conversation,
        &[
            ("BEGIN\ntransaction:t\n\n^", &[]),
            ("ACK\nid:0-2\ntransaction:t\n\n^", &[]),
            ("ABORT\ntransaction:t\n\n^", &[]),
            ("ACK\nid:0-3\n\n^", &["settle 1 Accepted", "settle 2 Accepted", "settle 3 Accepted"]),
        ],
    );
}

#[test]
fn an_acknowledgement_frees_the_window_with_its_commit() {
    let mut conversation = Talk::connected(Version::V1_2);
    conversation.client("SUBSCRIBE\nid:s\ndestination:a\nack:client\nprefetch-count:1\n\n\0");
    conversation.reply(granted(QoS::AtLeastOnce));
    conversation.deliver(delivery(publication("a", b"x"), QoS::AtLeastOnce, 1));
    let full = Wants { input: true, qos0: false, acked: 0 };
    for (frame, expected) in [
        ("BEGIN\ntransaction:t\n\n^", full),
        ("ACK\nid:0-1\ntransaction:t\n\n^", full),
        ("ABORT\ntransaction:t\n\n^", full),
        ("BEGIN\ntransaction:t\n\n^", full),
        ("ACK\nid:0-1\ntransaction:t\n\n^", full),
        ("COMMIT\ntransaction:t\n\n^", Wants { input: true, qos0: true, acked: 1 }),
    ] {
        conversation.client(&frame.replace('^', "\0"));
        assert_eq!(conversation.session.wants(), expected, "{frame}");
    }
}

#[test]
fn a_subscription_may_end_before_the_transaction_that_acknowledges_it() {
    for (destination, left, aborted) in [
        ("a", "settle 2 Dropped(Closed)", "settle 1 Dropped(Closed)"),
        ("/queue/a", "settle 2 Returned", "settle 1 Returned"),
    ] {
        for (end, expected) in [("COMMIT", "transaction [settle 1 Accepted]"), ("ABORT", aborted)] {
            let mut talk = with_messages("client-individual", destination);
            talk.client("ACK\nid:0-3\n\n\0");
            talk.client("BEGIN\ntransaction:t\n\n\0ACK\nid:0-1\ntransaction:t\n\n\0");
            let mut ended = talk.client("UNSUBSCRIBE\nid:s\n\n\0");
            ended.sort();
            assert_eq!(ended, [left, "unsubscribe 0"], "what the transaction has stays with it");
            assert_eq!(talk.client(&format!("{end}\ntransaction:t\n\n\0")), [expected], "{end}");
        }
    }
}

#[test]
fn a_refused_commit_is_an_error_that_names_the_transaction() {
    let mut talk = check(
        Version::V1_2,
        &[
            ("BEGIN\ntransaction:pay\n\n^", &[]),
            ("SEND\ndestination:secret\ntransaction:pay\n\nx^", &[]),
            ("COMMIT\ntransaction:pay\nreceipt:r\n\n^", &["transaction [publish secret qos1 \"x\"]"]),
        ],
    );
    let shown = talk.reply(Reply::Refused(Refusal::NotAuthorized));
    let [error, close] = shown.as_slice() else { panic!("{shown:?}") };
    assert!(error.starts_with("text ERROR|message:not authorised|receipt-id:r|"), "{error}");
    assert!(error.ends_with("||COMMIT of transaction \"pay\": not authorised.|^@"), "{error}");
    assert_eq!(close, "close 4002 Abort");
}

#[test]
fn transactions_that_make_no_sense_are_errors() {
    let settings = Settings::default();
    for frame in ["BEGIN\nreceipt:r\n\n^", "COMMIT\nreceipt:r\n\n^", "ABORT\nreceipt:r\n\n^"] {
        check_error(&settings, &[], frame, "missing header transaction", 4000);
    }
    for frame in [
        "COMMIT\nreceipt:r\ntransaction:t\n\n^",
        "ABORT\nreceipt:r\ntransaction:t\n\n^",
        "SEND\nreceipt:r\ndestination:a\ntransaction:t\n\nx^",
    ] {
        check_error(&settings, &[], frame, "no such transaction: \"t\"", 4000);
    }
    let begin: Step<'_> = ("BEGIN\ntransaction:t\n\n^", &[]);
    check_error(
        &settings,
        &[begin],
        "BEGIN\nreceipt:r\ntransaction:t\n\n^",
        "transaction \"t\" is open already",
        4000,
    );
    // A frame is judged when it comes, not at the COMMIT.
    for (frame, message) in [
        ("ACK\nreceipt:r\nid:0-1\ntransaction:t\n\n^", "unknown message"),
        ("NACK\nreceipt:r\nid:x\ntransaction:t\n\n^", "unknown message"),
        ("SEND\nreceipt:r\ndestination:a\nqos:7\ntransaction:t\n\nx^", "bad header qos: it is 0 or 1"),
    ] {
        check_error(&settings, &[begin], frame, message, 4000);
    }
}

#[test]
fn an_acknowledgement_in_an_unknown_transaction_is_an_error() {
    let mut talk = with_messages("client", "a");
    let shown = talk.client("ACK\nid:0-1\ntransaction:t\n\n\0");
    assert!(shown.iter().all(|line| !line.starts_with("settle")), "{shown:?}");
    assert_eq!(shown.last().map(String::as_str), Some("close 4000 Abort"));
}

#[test]
fn open_transactions_are_limited_in_number_and_size() {
    let settings = Settings {
        max_transactions: 2,
        max_transaction_actions: 2,
        max_message_size: 300,
        ..Settings::default()
    };
    let begin: Step<'_> = ("BEGIN\ntransaction:t\n\n^", &[]);
    let other: Step<'_> = ("BEGIN\ntransaction:u\n\n^", &[]);
    let send: Step<'_> = ("SEND\ndestination:a\ntransaction:t\n\nx^", &[]);
    check_error(
        &settings,
        &[begin, other],
        "BEGIN\ntransaction:v\nreceipt:r\n\n^",
        "the limit stomp.max_transactions = 2 is reached",
        1008,
    );
    check_error(
        &settings,
        &[begin, send, send],
        "SEND\ndestination:a\ntransaction:t\nreceipt:r\n\nx^",
        "the limit stomp.max_transaction_actions = 2 is reached by transaction \"t\"",
        1008,
    );
    // Bodies of 150 + 150 fit, one byte more does not, in whichever transaction.
    let body = "x".repeat(150);
    let half = format!("SEND\ndestination:a\ntransaction:t\n\n{body}^");
    let second = format!("SEND\ndestination:a\ntransaction:u\n\n{body}^");
    let steps: [Step<'_>; 4] = [begin, other, (&half, &[]), (&second, &[])];
    check_with(Version::V1_2, &settings, &steps);
    check_error(
        &settings,
        &steps,
        "SEND\ndestination:a\ntransaction:u\nreceipt:r\n\nx^",
        "the bodies of the open transactions are longer than 300 bytes",
        1009,
    );
    let wide = format!("SEND\ndestination:a\ntransaction:t\nk:{body}\n\n^");
    let wider = format!("SEND\ndestination:a\ntransaction:u\nreceipt:r\nk:{body}\n\n^");
    check_error(
        &settings,
        &[begin, other, (&wide, &[])],
        &wider,
        "the headers of the open transactions are longer than 300 bytes",
        1009,
    );
    // What has ended counts no more.
    let mut steps = steps.to_vec();
    steps.extend([("ABORT\ntransaction:t\n\n^", &[][..]), begin, (&half, &[])]);
    check_with(Version::V1_2, &settings, &steps);
}

#[test]
fn transactions_left_open_are_dropped_with_the_session() {
    let mut talk = with_messages("client", "a");
    talk.client(
        "BEGIN\ntransaction:t\n\n\0SEND\ndestination:a\ntransaction:t\n\nx\0ACK\nid:0-3\ntransaction:t\n\n\0",
    );
    assert_eq!(
        talk.client("DISCONNECT\nreceipt:r\n\n\0"),
        ["text RECEIPT|receipt-id:r||^@", "disconnect Discard", "close 1000 Drain"]
    );
}

#[test]
fn a_lifetime_counts_from_the_send() {
    use tidegate_protocol::session::{Output, Request, Step};
    use tidegate_protocol::websocket::Message;
    let mut talk = Talk::connected(Version::V1_2);
    let sent = talk.now;
    talk.client("BEGIN\ntransaction:t\n\n\0SEND\ndestination:a\nexpiration:1500\ntransaction:t\n\nx\0");
    talk.now += Duration::from_secs(1);
    talk.session.handle_message(Message::Text("COMMIT\ntransaction:t\n\n\0".into()), talk.now);
    let Some(Output::Request(_, Request::Transaction(steps))) = talk.session.poll_output() else {
        panic!("a transaction");
    };
    let [Step::Publish(publish)] = steps.as_slice() else { panic!("one publish: {steps:?}") };
    assert_eq!(publish.publication.expires_at, Some(sent + Duration::from_millis(1500)));
}

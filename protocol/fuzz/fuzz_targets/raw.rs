//! Any URL and any messages, both modes: nothing panics, the session keeps its contract, its answers are documents.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use tidegate_protocol::publication::QoS;
use tidegate_protocol::raw::{self, Pinned};
use tidegate_protocol::session::{Connected, Granted, Output, Published, Reply, Request, Session, Token};
use tidegate_protocol::websocket::{Message, MessageKind};

/// The broker's side: says yes to everything.
fn reply(request: &Request) -> Option<Reply> {
    match request {
        Request::Connect(_) => Some(Reply::Connected(Box::new(Connected::default()))),
        Request::Subscribe(list) => {
            Some(Reply::Subscribed(list.iter().map(|_| Ok(Granted { qos: QoS::AtMostOnce })).collect()))
        }
        Request::Unsubscribe(list) => Some(Reply::Unsubscribed(vec![true; list.len()])),
        Request::Publish(publish) => {
            for form in raw::FORMS {
                let _ = publish.publication.prepared(form).frame().len();
            }
            Some(Reply::Published(Published { matched: 0 }))
        }
        _ => None,
    }
}

fn drain(session: &mut dyn Session, is_envelope: bool, now: Instant) -> bool {
    let mut replies: Vec<(Token, Reply)> = Vec::new();
    loop {
        while let Some(output) = session.poll_output() {
            match output {
                Output::Close(..) => {
                    assert!(session.poll_output().is_none(), "nothing follows a close");
                    return false;
                }
                Output::Request(token, request) => replies.extend(reply(&request).map(|reply| (token, reply))),
                Output::Send(outgoing) if is_envelope => match outgoing.kind {
                    MessageKind::Text => {
                        serde_json::from_slice::<serde_json::Value>(&outgoing.head).expect("answers are JSON");
                    }
                    MessageKind::Binary => {
                        rmp_serde::from_slice::<serde_json::Value>(&outgoing.head)
                            .expect("answers are MessagePack");
                    }
                },
                Output::Send(_) | Output::SendStamped(_) | Output::Hint(_) => {}
            }
        }
        if replies.is_empty() {
            return true;
        }
        for (token, reply) in replies.drain(..) {
            session.handle_reply(token, reply, now);
        }
    }
}

fuzz_target!(|input: (u8, String, Vec<Result<String, Vec<u8>>>)| {
    let (pinned, query, messages) = input;
    let pinned = match pinned % 3 {
        0 => Pinned::Nothing,
        1 => Pinned::Json,
        _ => Pinned::MessagePack,
    };
    let now = Instant::now();
    let query = (!query.is_empty()).then_some(query.as_str());
    let Ok(mut session) = raw::open(pinned, query, None, &raw::Settings::default(), now) else { return };
    let mut is_open = drain(&mut *session, query.is_none(), now);
    for message in messages {
        if !is_open {
            return;
        }
        assert!(session.wants().input, "everything is answered");
        let message = match message {
            Ok(text) => Message::Text(text.into()),
            Err(bytes) => Message::Binary(bytes.into()),
        };
        session.handle_message(message, now);
        is_open = drain(&mut *session, query.is_none(), now);
    }
});

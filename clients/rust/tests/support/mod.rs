//! What the tests share: the real broker in this process, a server that does what a test says, and a bound on
//! every wait. Ports are chosen by the kernel.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper may panic"
)]
#![allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]

pub mod broker;
pub mod fake;

use std::time::Duration;

use tidegate_client::{Backoff, Event, Events, Message, Options};

/// A test that waits for something that does not come fails after this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits in bounded time.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened by now")
}

/// The default, but with pauses that no test notices.
pub fn options() -> Options {
    let backoff = Backoff { first: Duration::from_millis(1), max: Duration::from_millis(4) };
    Options { backoff, ..Options::default() }
}

pub async fn next(events: &mut Events) -> Option<Event> {
    soon(events.next()).await
}

pub async fn next_message(events: &mut Events) -> Message {
    match next(events).await {
        Some(Event::Message(message)) => *message,
        other => panic!("expected a message, not {other:?}"),
    }
}

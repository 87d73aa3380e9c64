//! What holds for sessions in memory holds for sessions with a store: the same tests, every commit waited for.

#[path = "mailbox/main.rs"]
mod stored;

//! What a store says about itself: after a start, on `store stats`, on `store check`. Plain data and its text.

use std::fmt;

use super::record::SessionKey;

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// No session has had this number or a higher one.
    pub next_session: u64,
    /// No body has had this number or a higher one.
    pub next_body: u64,
    /// Sessions.
    pub sessions: u64,
    /// Messages in their queues.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Retained messages.
    pub retained: u64,
    /// Records that could not be read and were put aside, now or earlier.
    pub quarantined: u64,
    /// Bodies without a reference that were removed.
    pub orphans: u64,
    /// Bytes of an unfinished commit that were cut off the journal's end.
    pub torn_bytes: u64,
    /// Commits that are missing between others that are there.
    pub missing_commits: u64,
}

/// `tidegate store stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsReport {
    /// Sessions.
    pub sessions: u64,
    /// Their subscriptions.
    pub subscriptions: u64,
    /// Messages in their queues.
    pub messages: u64,
    /// Bytes of them, shared bodies counted for each.
    pub bytes: u64,
    /// Bodies stored.
    pub bodies: u64,
    /// Retained messages.
    pub retained: u64,
    /// Records put aside.
    pub quarantined: u64,
    /// Commits since the store was made.
    pub commits: u64,
    /// Bytes on the disk by part of the store.
    pub disk: Vec<(String, u64)>,
    /// The longest queues.
    pub biggest: Vec<QueueSize>,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSize {
    /// Of the session.
    pub key: SessionKey,
    /// Of the session.
    pub name: Box<str>,
    /// Messages.
    pub messages: u64,
    /// Of them.
    pub bytes: u64,
}

/// `tidegate store check`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Records read.
    pub records: u64,
    /// Sessions.
    pub sessions: u64,
    /// Messages in their queues.
    pub messages: u64,
    /// Bodies stored.
    pub bodies: u64,
    /// Retained messages.
    pub retained: u64,
    /// All that does not hold.
    pub damaged: u64,
    /// The first of them.
    pub damages: Vec<Damage>,
}

/// One thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The part of the store.
    pub space: &'static str,
    /// The record's key, in hexadecimal and shortened.
    pub key: String,
    /// What is wrong.
    pub what: &'static str,
}

impl StatsReport {
    /// Queues in [`Self::biggest`].
    pub const BIGGEST_MAX: usize = 10;

    /// Keeps the longest queues.
    pub(crate) fn count_queue(&mut self, queue: QueueSize) {
        if queue.messages == 0 {
            return;
        }
        let place = self.biggest.partition_point(|other| other.messages >= queue.messages);
        self.biggest.insert(place, queue);
        self.biggest.truncate(Self::BIGGEST_MAX);
    }
}

impl CheckReport {
    /// Damages that are kept; more are only counted.
    pub const DAMAGES_MAX: usize = 100;

    /// Nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged == 0
    }

    /// Counts it.
    pub(crate) fn damage(&mut self, space: &'static str, key: &[u8], what: &'static str) {
        self.damaged += 1;
        if self.damages.len() < Self::DAMAGES_MAX {
            let shown: String = key.iter().take(KEY_BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
            self.damages.push(Damage { space, key: shown, what });
        }
    }
}

/// A topic may be 64 KiB long.
const KEY_BYTES_SHOWN: usize = 32;

impl fmt::Display for StatsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sessions           {}", self.sessions)?;
        writeln!(f, "subscriptions      {}", self.subscriptions)?;
        writeln!(f, "queued             {} messages, {} bytes", self.messages, self.bytes)?;
        writeln!(f, "bodies             {}", self.bodies)?;
        writeln!(f, "retained           {}", self.retained)?;
        writeln!(f, "quarantined        {}", self.quarantined)?;
        writeln!(f, "commits            {}", self.commits)?;
        for (part, bytes) in &self.disk {
            writeln!(f, "disk {part:<14}{bytes} bytes")?;
        }
        for queue in &self.biggest {
            // Of a queue of its own: what its name has in front is no news.
            let name = queue.name.trim_start_matches('\0').escape_debug();
            let (messages, bytes) = (queue.messages, queue.bytes);
            writeln!(f, "queue of {name}: {messages} messages, {bytes} bytes")?;
        }
        Ok(())
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} records: {} sessions, {} queued messages, {} bodies, {} retained",
            self.records, self.sessions, self.messages, self.bodies, self.retained
        )?;
        for Damage { space, key, what } in &self.damages {
            writeln!(f, "{space} {key}: {what}")?;
        }
        match self.damaged {
            0 => writeln!(f, "sound"),
            count => writeln!(f, "damaged: {count}"),
        }
    }
}

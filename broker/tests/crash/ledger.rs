//! What was published and what was promised, in the order of one clock that counts events. Knows no connection.

use tidegate_protocol::publication::QoS;

/// What one publisher sends to one topic: numbered messages, in order.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) kind: Kind,
}

/// Whether the broker keeps the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Retained,
    /// And every third message is empty, which removes it.
    RetainedAndCleared,
}

/// One message: the number of its stream, and its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) stream: usize,
    pub(crate) n: usize,
}

/// What became of a message, by the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) first_sent: u64,
    /// How often it was sent: each may bring a delivery at QoS 1.
    pub(crate) sends: usize,
    /// PUBACK or PUBREC came.
    pub(crate) acked: Option<u64>,
}

/// The books.
pub(crate) struct Ledger {
    clock: u64,
    kills: Vec<Kill>,
    pub(crate) streams: Vec<Stream>,
    fates: Vec<Vec<Fate>>,
    unacknowledged: usize,
    /// Everything that the broker did before this time is on the disk: a message that was sent then was acknowledged.
    committed_through: u64,
}

#[derive(Clone, Copy, Debug)]
struct Kill {
    at: u64,
    committed_through: u64,
}

impl Ledger {
    pub(crate) fn new(streams: Vec<Stream>) -> Self {
        let fates = streams.iter().map(|_| Vec::new()).collect();
        Self { clock: 0, kills: Vec::new(), streams, fates, unacknowledged: 0, committed_through: 0 }
    }

    /// The time of an event: later than all others.
    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The broker was killed.
    pub(crate) fn killed(&mut self) {
        let at = self.tick();
        self.kills.push(Kill { at, committed_through: self.committed_through });
    }

    /// How often the broker was killed so far.
    pub(crate) fn life(&self) -> usize {
        self.kills.len()
    }

    /// When the broker was killed, for whoever reads a failure.
    pub(crate) fn kills(&self) -> Vec<u64> {
        self.kills.iter().map(|kill| kill.at).collect()
    }

    /// Whether what the broker did in this life before this time is known for good: it still lives, or a commit followed.
    pub(crate) fn remembers(&self, life: usize, time: u64) -> bool {
        self.kills.get(life).is_none_or(|kill| time < kill.committed_through)
    }

    /// The next message of a stream, which is about to be sent.
    pub(crate) fn next(&mut self, stream: usize) -> Message {
        let first_sent = self.tick();
        self.unacknowledged += 1;
        let fates = &mut self.fates[stream];
        fates.push(Fate { first_sent, sends: 1, acked: None });
        Message { stream, n: fates.len() - 1 }
    }

    pub(crate) fn sent_again(&mut self, message: Message) {
        self.fates[message.stream][message.n].sends += 1;
    }

    pub(crate) fn acknowledged(&mut self, message: Message) {
        let now = self.tick();
        let fate = &mut self.fates[message.stream][message.n];
        assert_eq!(fate.acked, None, "{message:?} was acknowledged twice");
        fate.acked = Some(now);
        self.unacknowledged -= 1;
        self.committed_through = self.committed_through.max(fate.first_sent);
    }

    /// `None`: it was never sent.
    pub(crate) fn fate(&self, message: Message) -> Option<Fate> {
        self.fates.get(message.stream)?.get(message.n).copied()
    }

    /// What still waits for its acknowledgement, in words; empty at the end of a run.
    pub(crate) fn unacknowledged(&self) -> String {
        match self.unacknowledged {
            0 => String::new(),
            count => format!("{count} publications were not acknowledged"),
        }
    }

    /// How many of a stream were sent.
    pub(crate) fn sent(&self, stream: usize) -> usize {
        self.fates[stream].len()
    }

    /// Behind the last message of a stream that was acknowledged.
    pub(crate) fn acked_through(&self, stream: usize) -> usize {
        self.fates[stream].iter().rposition(|fate| fate.acked.is_some()).map_or(0, |n| n + 1)
    }

    /// It removes what is retained.
    pub(crate) fn is_clear(&self, message: Message) -> bool {
        self.streams[message.stream].kind == Kind::RetainedAndCleared && message.n % 3 == 2
    }

    /// Different for all messages but those that clear, and now and then larger than a page of the disk.
    pub(crate) fn payload(&self, message: Message) -> String {
        if self.is_clear(message) {
            return String::new();
        }
        let filler = match message.n % 32 {
            31 => 9000,
            odd if odd % 2 == 1 => 300,
            _ => 0,
        };
        format!("{} {} {}", message.stream, message.n, ".".repeat(filler))
    }

    /// The message with this payload, which must be one that was sent.
    pub(crate) fn message(&self, payload: &[u8]) -> Message {
        let text = std::str::from_utf8(payload).unwrap();
        let mut words = text.split(' ').map(str::parse);
        let (Some(Ok(stream)), Some(Ok(n))) = (words.next(), words.next()) else {
            panic!("a payload that nobody published: {text:?}")
        };
        let message = Message { stream, n };
        assert!(self.fate(message).is_some(), "{message:?} arrived before it was published");
        assert_eq!(text, self.payload(message), "the payload of {message:?} was changed");
        message
    }
}

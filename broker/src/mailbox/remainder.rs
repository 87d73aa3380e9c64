//! What waits for a session on the disk alone, in a few numbers, and the one page of it that is on its way. Plain data.
//!
//! ```text
//!   Idle ──ask──▶ Asked ──page──▶ Idle … until the last page
//!                   └── the last page, but a place is taken that the store has not heard of ──▶ Exhausted ──it has──▶ Idle
//! ```
//!
//! Every place of the session from `from_seq` on is here and nowhere else.

use crate::outbox::room::Amount;
use crate::store::Page;

/// See the file's first lines.
#[derive(Debug)]
pub(super) struct Remainder {
    from_seq: u64,
    /// About: what failed or could not be read is found out with the last page.
    count: u64,
    bytes: u64,
    /// Places that are taken, and the store has not heard of them yet.
    arriving: usize,
    load: Load,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Idle,
    /// A page from this place on, when that one was the session's next.
    Asked {
        from_seq: u64,
        next_seq: u64,
    },
    /// There was nothing more.
    Exhausted,
}

/// What of a page that has come is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Messages from this place on.
    pub(super) from_seq: u64,
    /// The session's next place when the page was asked for.
    asked_next_seq: u64,
}

impl Remainder {
    /// Nothing yet, and all from here on will be.
    pub(super) const fn new(from_seq: u64) -> Self {
        Self { from_seq, count: 0, bytes: 0, arriving: 0, load: Load::Idle }
    }

    /// So much, found after a restart.
    pub(super) const fn found(from_seq: u64, count: u64, bytes: u64) -> Self {
        Self { from_seq, count, bytes, arriving: 0, load: Load::Idle }
    }

    pub(super) const fn first_seq(&self) -> u64 {
        self.from_seq
    }

    pub(super) fn amount(&self) -> Amount {
        let number = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Amount { messages: number(self.count), bytes: number(self.bytes) }
    }

    /// A place is taken for a message.
    pub(super) fn enter(&mut self, size_bytes: u32) {
        self.count += 1;
        self.bytes += u64::from(size_bytes);
        self.arriving += 1;
    }

    /// The store has been told.
    pub(super) fn arrived(&mut self) {
        self.arriving = self.arriving.saturating_sub(1);
        if self.load == Load::Exhausted {
            self.load = Load::Idle;
        }
    }

    /// The store did not take it.
    pub(super) fn give_up(&mut self, size_bytes: u32) {
        self.arrived();
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(size_bytes));
    }

    /// Memory lets go of these: they stand in front.
    pub(super) fn put_before(&mut self, from_seq: u64, amount: Amount) {
        self.from_seq = self.from_seq.min(from_seq);
        self.count += amount.messages as u64;
        self.bytes += amount.bytes as u64;
    }

    /// The oldest is to be dropped. Gives its place.
    pub(super) fn drop_oldest(&mut self) -> Option<u64> {
        let rest = self.count.checked_sub(1)?;
        self.bytes -= self.bytes / self.count;
        self.count = rest;
        self.from_seq += 1;
        Some(self.from_seq - 1)
    }

    /// Whether [`Remainder::ask`] has a place.
    pub(super) fn may_ask(&self) -> bool {
        self.load == Load::Idle
    }

    /// Where the next page begins, if one is to be asked for.
    pub(super) fn ask(&mut self, next_seq: u64) -> Option<u64> {
        if self.load != Load::Idle {
            return None;
        }
        self.load = Load::Asked { from_seq: self.from_seq, next_seq };
        Some(self.from_seq)
    }

    /// A page has come that nobody wants now.
    pub(super) fn refuse(&mut self) {
        self.load = Load::Idle;
    }

    /// A page has come. `None`: it was asked for before other messages came to stand in front of it.
    pub(super) fn answer(&mut self) -> Option<Wanted> {
        match std::mem::replace(&mut self.load, Load::Idle) {
            Load::Asked { from_seq, next_seq } if from_seq <= self.from_seq => {
                Some(Wanted { from_seq: self.from_seq, asked_next_seq: next_seq })
            }
            _ => None,
        }
    }

    /// So much of the page has been taken. Gives whether nothing is left.
    pub(super) fn take(&mut self, wanted: Wanted, page: &Page, taken: Amount, next_seq: u64) -> bool {
        self.from_seq = self.from_seq.max(page.next_seq);
        self.count = self.count.saturating_sub(taken.messages as u64);
        self.bytes = self.bytes.saturating_sub(taken.bytes as u64);
        if !page.is_last {
            return false;
        }
        if self.arriving > 0 {
            self.load = Load::Exhausted;
            return false;
        }
        wanted.asked_next_seq == next_seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(next_seq: u64, is_last: bool) -> Page {
        Page { messages: Vec::new(), next_seq, is_last, quarantined: 0 }
    }

    fn one() -> Amount {
        Amount { messages: 1, bytes: 10 }
    }

    #[test]
    fn ends_with_the_last_page_when_nothing_is_on_its_way() {
        let mut remainder = Remainder::new(5);
        for _ in 0..2 {
            remainder.enter(10);
            remainder.arrived();
        }
        assert_eq!((remainder.ask(7), remainder.ask(7)), (Some(5), None), "one page at a time");
        let wanted = remainder.answer().unwrap();
        assert!(!remainder.take(wanted, &page(6, false), one(), 7));
        assert_eq!(remainder.ask(7), Some(6));
        let wanted = remainder.answer().unwrap();
        assert_eq!(wanted.from_seq, 6);
        assert!(remainder.take(wanted, &page(7, true), one(), 7));
        assert_eq!(remainder.amount(), Amount::default());
    }

    #[test]
    fn waits_for_what_the_store_has_not_heard_of() {
        let mut remainder = Remainder::new(5);
        remainder.enter(10);
        assert_eq!(remainder.ask(6), Some(5));
        let wanted = remainder.answer().unwrap();
        assert!(!remainder.take(wanted, &page(5, true), Amount::default(), 6));
        assert_eq!(remainder.ask(6), None, "it would ask for ever");
        remainder.arrived();
        assert_eq!(remainder.ask(6), Some(5));
    }

    #[test]
    fn does_not_end_while_later_messages_came_in() {
        let mut remainder = Remainder::new(5);
        assert_eq!(remainder.ask(5), Some(5));
        remainder.enter(10);
        remainder.arrived();
        let wanted = remainder.answer().unwrap();
        assert!(!remainder.take(wanted, &page(5, true), Amount::default(), 6));
        assert_eq!(remainder.ask(6), Some(5));
    }

    #[test]
    fn a_page_that_was_asked_for_before_others_came_in_front_is_stale() {
        let mut remainder = Remainder::found(9, 1, 10);
        assert_eq!(remainder.ask(10), Some(9));
        remainder.put_before(5, one());
        assert_eq!(remainder.answer(), None);
        assert_eq!((remainder.ask(10), remainder.amount().messages), (Some(5), 2));
    }

    #[test]
    fn a_dropped_message_is_not_taken_from_a_page_that_has_it() {
        let mut remainder = Remainder::found(5, 2, 20);
        assert_eq!(remainder.ask(7), Some(5));
        assert_eq!(remainder.drop_oldest(), Some(5));
        assert_eq!(remainder.answer().map(|wanted| wanted.from_seq), Some(6));
        assert_eq!(remainder.amount(), one());
    }
}

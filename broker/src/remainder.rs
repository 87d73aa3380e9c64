//! What waits in a session's queue, or one of its own, on the disk alone, in a few numbers, and the one page of it that is on its way. Plain data.
//!
//! ```text
//!   Idle ──ask──▶ Asked ──page──▶ Idle … until the last page
//!     └── the next place is taken, and the store has not heard of it ──▶ Blocked ──it has──▶ Idle
//! ```
//!
//! Every place of the session from `from_seq` on is here and nowhere else. Places are taken in order, and the store hears
//! of them in any: so a page counts only up to the first place that may still be missing in it.

use std::collections::BTreeSet;

use crate::outbox::room::Amount;
use crate::store::Page;

/// See the file's first lines.
#[derive(Debug)]
pub(crate) struct Remainder {
    from_seq: u64,
    /// About: what failed or could not be read is found out with the last page.
    count: u64,
    bytes: u64,
    /// Places that are taken, and the store has not heard of them yet.
    arriving: BTreeSet<u64>,
    load: Load,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Idle,
    /// A page from this place on. The store knows all places before `until`.
    Asked {
        from_seq: u64,
        until: u64,
    },
    /// The store has not heard of the next place.
    Blocked,
}

/// What of a page that has come is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Messages from this place on.
    pub(crate) from_seq: u64,
    /// And before this one.
    pub(crate) until: u64,
}

impl Wanted {
    /// Whether the message at this place is.
    pub(crate) fn has(&self, seq: u64) -> bool {
        (self.from_seq..self.until).contains(&seq)
    }
}

impl Remainder {
    /// Nothing yet, and all from here on will be.
    pub(crate) fn new(from_seq: u64) -> Self {
        Self { from_seq, count: 0, bytes: 0, arriving: BTreeSet::new(), load: Load::Idle }
    }

    /// So much, found after a restart.
    pub(crate) fn found(from_seq: u64, count: u64, bytes: u64) -> Self {
        Self { from_seq, count, bytes, arriving: BTreeSet::new(), load: Load::Idle }
    }

    pub(crate) const fn first_seq(&self) -> u64 {
        self.from_seq
    }

    /// Places that are taken, and the store has not heard of them yet.
    pub(crate) const fn arriving(&self) -> &BTreeSet<u64> {
        &self.arriving
    }

    pub(crate) fn amount(&self) -> Amount {
        let number = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Amount { messages: number(self.count), bytes: number(self.bytes) }
    }

    /// A place is taken for a message.
    pub(crate) fn enter(&mut self, seq: u64, size_bytes: u32) {
        self.count += 1;
        self.bytes += u64::from(size_bytes);
        self.arriving.insert(seq);
    }

    /// The store has been told.
    pub(crate) fn arrived(&mut self, seq: u64) {
        self.arriving.remove(&seq);
        if self.load == Load::Blocked {
            self.load = Load::Idle;
        }
    }

    /// The store did not take it.
    pub(crate) fn give_up(&mut self, seq: u64, size_bytes: u32) {
        self.arrived(seq);
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(size_bytes));
    }

    /// Memory lets go of these: they stand in front.
    pub(crate) fn put_before(&mut self, from_seq: u64, amount: Amount) {
        self.from_seq = self.from_seq.min(from_seq);
        self.count += amount.messages as u64;
        self.bytes += amount.bytes as u64;
    }

    /// The oldest is to be dropped. Gives its place. Never one at or behind the session's next, whatever the count says.
    pub(crate) fn drop_oldest(&mut self, next_seq: u64) -> Option<u64> {
        if self.from_seq >= next_seq {
            (self.count, self.bytes) = (0, 0);
        }
        let rest = self.count.checked_sub(1)?;
        self.bytes -= self.bytes / self.count;
        self.count = rest;
        self.from_seq += 1;
        Some(self.from_seq - 1)
    }

    /// Whether [`Remainder::ask`] has a place.
    pub(crate) fn may_ask(&self) -> bool {
        self.load == Load::Idle
    }

    /// Where the next page begins, if one is to be asked for.
    pub(crate) fn ask(&mut self, next_seq: u64) -> Option<u64> {
        if self.load != Load::Idle {
            return None;
        }
        let (from_seq, until) = (self.from_seq, self.arriving.first().map_or(next_seq, |seq| *seq));
        if until <= from_seq && until < next_seq {
            self.load = Load::Blocked;
            return None;
        }
        self.load = Load::Asked { from_seq, until };
        Some(from_seq)
    }

    /// A page has come that nobody wants now.
    pub(crate) fn refuse(&mut self) {
        self.load = Load::Idle;
    }

    /// A page has come. `None`: it was asked for before other messages came to stand in front of it.
    pub(crate) fn answer(&mut self) -> Option<Wanted> {
        match std::mem::replace(&mut self.load, Load::Idle) {
            Load::Asked { from_seq, until } if from_seq <= self.from_seq => {
                Some(Wanted { from_seq: self.from_seq, until })
            }
            _ => None,
        }
    }

    /// So much of the page has been taken. Gives whether nothing is left.
    pub(crate) fn take(&mut self, wanted: Wanted, page: &Page, taken: Amount, next_seq: u64) -> bool {
        let read_until = if page.is_last { wanted.until } else { page.next_seq.min(wanted.until) };
        self.from_seq = self.from_seq.max(read_until);
        self.count = self.count.saturating_sub(taken.messages as u64);
        self.bytes = self.bytes.saturating_sub(taken.bytes as u64);
        // What the store did not take, or put aside, counts no longer.
        self.count = self.count.min(next_seq.saturating_sub(self.from_seq));
        self.from_seq >= next_seq && self.arriving.is_empty()
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
        for seq in [5, 6] {
            remainder.enter(seq, 10);
            remainder.arrived(seq);
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
        remainder.enter(5, 10);
        assert_eq!(remainder.ask(6), None, "it would ask for ever");
        remainder.arrived(5);
        assert_eq!(remainder.ask(6), Some(5));
    }

    #[test]
    fn does_not_end_while_later_messages_came_in() {
        let mut remainder = Remainder::new(5);
        assert_eq!(remainder.ask(5), Some(5));
        remainder.enter(5, 10);
        remainder.arrived(5);
        let wanted = remainder.answer().unwrap();
        assert!(!remainder.take(wanted, &page(5, true), Amount::default(), 6));
        assert_eq!(remainder.ask(6), Some(5));
    }

    #[test]
    fn a_place_that_the_store_hears_of_late_is_not_passed_over() {
        let mut remainder = Remainder::new(5);
        for seq in 5..8 {
            remainder.enter(seq, 10);
        }
        remainder.arrived(5);
        remainder.arrived(7);
        assert_eq!(remainder.ask(8), Some(5));
        let wanted = remainder.answer().unwrap();
        assert_eq!((wanted.from_seq, wanted.until), (5, 6), "7 is in the page, and 6 is not");
        assert!(!remainder.take(wanted, &page(8, true), one(), 8));
        assert_eq!(remainder.ask(8), None);
        remainder.arrived(6);
        assert_eq!(remainder.ask(8), Some(6));
        let wanted = remainder.answer().unwrap();
        assert_eq!((wanted.from_seq, wanted.until), (6, 8));
        assert!(remainder.take(wanted, &page(8, true), Amount { messages: 2, bytes: 20 }, 8));
    }

    #[test]
    fn of_two_places_taken_while_a_page_is_read_the_first_may_be_missing_in_it() {
        let mut remainder = Remainder::new(5);
        assert_eq!(remainder.ask(5), Some(5));
        remainder.enter(5, 10);
        remainder.enter(6, 10);
        remainder.arrived(6);
        let wanted = remainder.answer().unwrap();
        assert!(!remainder.take(wanted, &page(7, true), Amount::default(), 7));
        assert_eq!(remainder.ask(7), None);
        remainder.arrived(5);
        assert_eq!(remainder.ask(7), Some(5));
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
        assert_eq!(remainder.drop_oldest(7), Some(5));
        assert_eq!(remainder.answer().map(|wanted| wanted.from_seq), Some(6));
        assert_eq!(remainder.amount(), one());
    }

    #[test]
    fn dropping_never_passes_the_places_that_are_taken() {
        let mut remainder = Remainder::found(5, 3, 30);
        assert_eq!(
            (remainder.drop_oldest(6), remainder.drop_oldest(6)),
            (Some(5), None),
            "two are counted and not there"
        );
        remainder.enter(6, 10);
        remainder.arrived(6);
        assert_eq!((remainder.ask(7), remainder.amount()), (Some(6), one()));
    }
}

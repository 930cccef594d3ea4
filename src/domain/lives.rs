//! The lives of a topic, and where a read of it begins: what every store decides alike. Pure; which rows or entries
//! there are is the stores' own affair.

use super::position::{Epoch, Position};
use super::store::{GapCause, Missing, ReadFrom};
use super::topic::Mode;

/// The lives of one topic that its record knows, oldest first: pure, shared by all stores.
///
/// Each life begins after a `base` offset: its first message has `base + 1`. Offsets go on counting over lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lives {
    known: Vec<(Epoch, u64)>,
}

/// Where an asked-for position stands among the lives of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In this life; its last offset known is given (the head, if it is the newest life).
    Within { last: u64 },
    /// At the end of a life that ended: what follows is another one, which begins here.
    Ended { next: Position },
    /// Beyond the end of its life, or of a life not known.
    Unknown,
}

impl Lives {
    /// `known` must not be empty, and bases must ascend.
    pub fn new(known: Vec<(Epoch, u64)>) -> Lives {
        debug_assert!(!known.is_empty() && known.is_sorted_by_key(|l| l.1));
        Lives { known }
    }

    /// Each life with its base, oldest first.
    pub fn known(&self) -> &[(Epoch, u64)] {
        &self.known
    }

    pub fn newest(&self) -> Epoch {
        self.known.last().expect("a topic has at least one life").0
    }

    /// The position before the first message of the newest life.
    pub fn newest_base(&self) -> Position {
        let &(epoch, base) = self.known.last().expect("a topic has at least one life");
        Position::new(epoch, base)
    }

    /// The life that a stored offset belongs to. Offsets before the first life known are given to it.
    pub fn epoch_of(&self, offset: u64) -> Epoch {
        self.known.iter().rev().find(|(_, base)| offset > *base).unwrap_or(&self.known[0]).0
    }

    /// Judges a position, `head` being the newest offset of the topic.
    pub fn standing(&self, position: Position, head: u64) -> Standing {
        let Some(i) = self.known.iter().position(|&(epoch, _)| epoch == position.epoch) else {
            return Standing::Unknown;
        };
        let base = self.known[i].1;
        let last = self.known.get(i + 1).map_or(head, |&(_, next_base)| next_base);
        if position.offset > last || position.offset < base {
            return Standing::Unknown;
        }
        match self.known.get(i + 1) {
            Some(&(epoch, next_base)) if position.offset == last => {
                Standing::Ended { next: Position::new(epoch, next_base) }
            }
            _ => Standing::Within { last },
        }
    }

    /// Plans a page: where to read from (exclusive) and to (inclusive), and what is missing before it.
    pub fn plan(&self, from: ReadFrom, kept: &Kept) -> Plan {
        match from {
            ReadFrom::Last(count) if kept.mode != Mode::Latest => self.plan_last(count, kept),
            // Values of an earlier life are still the latest ones.
            ReadFrom::Last(_) => self.plan_first(kept, None),
            ReadFrom::Since(_) => self.plan_first(kept, kept.cut.then_some(kept.why())),
            ReadFrom::After(after) => self.plan_after(after, kept),
        }
    }

    fn plan_last(&self, count: u32, kept: &Kept) -> Plan {
        let Kept { oldest, head, .. } = *kept;
        let base = self.newest_base().offset;
        let start = head.saturating_sub(u64::from(count)).max(base).max(oldest.saturating_sub(1)).min(head);
        Plan { start: Position::new(self.newest(), start), to: head, missing: None }
    }

    /// Whatever follows from `kept.first` on, in the life that it is of.
    fn plan_first(&self, kept: &Kept, gone: Option<GapCause>) -> Plan {
        let first = kept.first.clamp(kept.oldest.max(self.known[0].1 + 1), kept.head + 1);
        let epoch = self.epoch_of(first);
        let start = Position::new(epoch, first - 1);
        Plan { start, to: self.span(epoch, kept.head).1, missing: gone.map(|why| Missing { why, to: Some(start) }) }
    }

    fn plan_after(&self, after: Position, kept: &Kept) -> Plan {
        let Kept { oldest, head, .. } = *kept;
        let (mut start, to, mut missing) = match self.standing(after, head) {
            Standing::Within { last } => (after, last, None),
            Standing::Ended { next } => {
                let (_, to) = self.span(next.epoch, head);
                (next, to, Some(Missing { why: GapCause::Failover, to: None }))
            }
            Standing::Unknown => {
                let first = Position::new(self.known[0].0, self.known[0].1);
                let start = match self.known.iter().position(|l| l.0 == after.epoch) {
                    // A life we know, but not so far: what was stored last was lost with it.
                    Some(i) if i + 1 < self.known.len() => {
                        let (epoch, base) = self.known[i + 1];
                        Position::new(epoch, base)
                    }
                    _ => first,
                };
                let why = GapCause::Epoch;
                let (_, to) = self.span(start.epoch, head);
                (start, to, Some(Missing { why, to: None }))
            }
        };
        if start.offset + 1 < oldest && start.offset < to {
            // The first part is not kept, at most up to the end of this life.
            let cut = (oldest - 1).min(to);
            let gone_to = Position::new(start.epoch, cut);
            if missing.is_none() {
                missing = Some(Missing { why: kept.why(), to: Some(gone_to) });
            }
            start = gone_to;
        }
        Plan { start, to, missing }
    }

    fn span(&self, epoch: Epoch, head: u64) -> (u64, u64) {
        let i = self.known.iter().position(|l| l.0 == epoch).unwrap_or(self.known.len() - 1);
        (self.known[i].1, self.known.get(i + 1).map_or(head, |l| l.1))
    }
}

/// What is kept of a topic at this moment, as far as planning a page needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub mode: Mode,
    /// The first offset that bounds have not taken; `head + 1` if none is left, as in mode `live`.
    pub oldest: u64,
    pub head: u64,
    /// Asked for `Since`: the first offset kept of that time or later. Asked for `Last` in mode `latest`: the first of
    /// the newest so many. `head + 1` if there is none. Not looked at otherwise.
    pub first: u64,
    /// Asked for `Since`: whether bounds took, or may have taken, a message of that time or later.
    pub cut: bool,
}

impl Kept {
    /// Why something is not kept.
    fn why(&self) -> GapCause {
        if self.mode == Mode::Live { GapCause::Live } else { GapCause::Retention }
    }
}

/// What to read for a page: offsets in (`start`, `to`], all of `start.epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub start: Position,
    pub to: u64,
    pub missing: Option<Missing>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(n: u64) -> Epoch {
        Epoch::from_random(n)
    }

    fn at(n: u64, offset: u64) -> Position {
        Position::new(epoch(n), offset)
    }

    fn kept(oldest: u64, head: u64) -> Kept {
        Kept { mode: Mode::Log, oldest, head, first: head + 1, cut: false }
    }

    #[test]
    fn plans_by_table() {
        // Two lives: 1 holds offsets 1..=10, 2 holds 11..=20; kept from 5 on.
        let lives = Lives::new(vec![(epoch(1), 0), (epoch(2), 10)]);
        let missing = |why, to| Some(Missing { why, to });
        for (from, start, to, gone) in [
            (ReadFrom::After(at(2, 20)), at(2, 20), 20, None),
            (ReadFrom::After(at(2, 15)), at(2, 15), 20, None),
            (ReadFrom::After(at(2, 10)), at(2, 10), 20, None),
            (ReadFrom::After(at(1, 7)), at(1, 7), 10, None),
            (ReadFrom::After(at(1, 4)), at(1, 4), 10, None),
            (ReadFrom::After(at(1, 3)), at(1, 4), 10, missing(GapCause::Retention, Some(at(1, 4)))),
            (ReadFrom::After(at(1, 10)), at(2, 10), 20, missing(GapCause::Failover, None)),
            (ReadFrom::After(at(1, 12)), at(2, 10), 20, missing(GapCause::Epoch, None)),
            (ReadFrom::After(at(2, 21)), at(1, 4), 10, missing(GapCause::Epoch, None)),
            (ReadFrom::After(at(2, 9)), at(1, 4), 10, missing(GapCause::Epoch, None)),
            (ReadFrom::After(at(3, 5)), at(1, 4), 10, missing(GapCause::Epoch, None)),
            (ReadFrom::Last(0), at(2, 20), 20, None),
            (ReadFrom::Last(3), at(2, 17), 20, None),
            (ReadFrom::Last(100), at(2, 10), 20, None),
        ] {
            assert_eq!(lives.plan(from, &kept(5, 20)), Plan { start, to, missing: gone }, "{from:?}");
        }
    }

    #[test]
    fn what_was_stored_since_a_time_is_planned_from_its_first_message_in_whatever_life() {
        let lives = Lives::new(vec![(epoch(1), 0), (epoch(2), 10)]);
        for (first, cut, start, to) in [
            (7, false, at(1, 6), 10),
            (11, false, at(2, 10), 20),
            (15, false, at(2, 14), 20),
            (21, false, at(2, 20), 20),
            (5, true, at(1, 4), 10),
            (1, true, at(1, 4), 10),
        ] {
            let kept = Kept { first, cut, ..kept(5, 20) };
            let missing = cut.then_some(Missing { why: GapCause::Retention, to: Some(start) });
            assert_eq!(lives.plan(ReadFrom::Since(1), &kept), Plan { start, to, missing }, "from {first}");
        }
        // A topic without a message has nothing, and misses nothing.
        let empty = Lives::new(vec![(epoch(1), 0)]);
        let plan = empty.plan(ReadFrom::Since(1), &Kept { first: 1, ..kept(1, 0) });
        assert_eq!(plan, Plan { start: at(1, 0), to: 0, missing: None });
    }

    #[test]
    fn a_topic_that_keeps_nothing_says_that_it_is_live() {
        let lives = Lives::new(vec![(epoch(1), 0), (epoch(2), 10)]);
        let kept = Kept { mode: Mode::Live, ..kept(21, 20) };
        let live = |to| Some(Missing { why: GapCause::Live, to: Some(to) });
        for (after, start, missing) in [
            (at(2, 20), at(2, 20), None),
            (at(2, 15), at(2, 20), live(at(2, 20))),
            (at(1, 3), at(1, 10), live(at(1, 10))),
            (at(1, 10), at(2, 20), Some(Missing { why: GapCause::Failover, to: None })),
        ] {
            let plan = lives.plan(ReadFrom::After(after), &kept);
            assert_eq!((plan.start, plan.missing), (start, missing), "after {after}");
        }
        assert_eq!(lives.plan(ReadFrom::Last(5), &kept).start, at(2, 20));
    }

    #[test]
    fn values_of_an_earlier_life_are_still_the_latest() {
        let lives = Lives::new(vec![(epoch(1), 0), (epoch(2), 10)]);
        let kept = Kept { mode: Mode::Latest, first: 4, ..kept(1, 10) };
        assert_eq!(lives.plan(ReadFrom::Last(1), &kept), Plan { start: at(1, 3), to: 10, missing: None });
    }

    #[test]
    fn a_life_that_retention_took_whole_ends_where_it_ended() {
        let lives = Lives::new(vec![(epoch(1), 0), (epoch(2), 10)]);
        let plan = lives.plan(ReadFrom::After(at(1, 3)), &kept(15, 20));
        assert_eq!((plan.start, plan.to), (at(1, 10), 10));
        assert_eq!(plan.missing, Some(Missing { why: GapCause::Retention, to: Some(at(1, 10)) }));
        // The next page tells the change of life and the rest.
        assert_eq!(lives.plan(ReadFrom::After(at(1, 10)), &kept(15, 20)).start, at(2, 14));
    }

    #[test]
    fn an_empty_topic_can_be_resumed_from_its_head() {
        let lives = Lives::new(vec![(epoch(1), 0)]);
        let plan = lives.plan(ReadFrom::After(at(1, 0)), &kept(1, 0));
        assert_eq!((plan.start, plan.to, plan.missing), (at(1, 0), 0, None));
    }
}

//! What is known in memory of one topic: its lives, which row holds which offset, its fences. Pure; the rows
//! themselves and the bounds over all topics are the log's.

use std::collections::VecDeque;

use crate::domain::name::Topic;
use crate::domain::store::{Fence, Lives};

pub struct Record {
    pub name: Topic,
    pub lives: Lives,
    /// The newest offset that retention took. `entries` holds every offset from the next one to the head.
    floor: u64,
    entries: VecDeque<Entry>,
    /// Bytes of the bodies that are kept.
    bytes: u64,
    /// How many entries still have a row.
    rows: usize,
    /// When it was last written to.
    pub touched: u64,
    fences: Vec<Fence>,
}

/// One offset. Its row may be gone before retention reaches it: then its time to live ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The row; 0 if it is gone.
    pub seq: u64,
    pub bytes: u32,
    pub time: u64,
    /// 0: lives as long as retention lets it.
    pub expires: u64,
}

impl Entry {
    pub fn has_row(&self) -> bool {
        self.seq != 0
    }

    pub fn is_readable(&self, now: u64) -> bool {
        self.has_row() && (self.expires == 0 || self.expires > now)
    }
}

impl Record {
    /// A topic whose newest offset is `floor` and of which nothing is kept.
    pub fn new(name: Topic, lives: Lives, floor: u64, touched: u64) -> Record {
        Record { name, lives, floor, entries: VecDeque::new(), bytes: 0, rows: 0, touched, fences: Vec::new() }
    }

    /// Says that the first entry to be pushed is of this offset.
    pub fn begin_at(&mut self, offset: u64) {
        debug_assert!(self.entries.is_empty(), "only before the first entry");
        self.floor = offset - 1;
    }

    pub fn head(&self) -> u64 {
        self.floor + self.entries.len() as u64
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn kept(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn has_rows(&self) -> bool {
        self.rows > 0
    }

    pub fn entry(&self, offset: u64) -> Option<&Entry> {
        let index = offset.checked_sub(self.floor + 1)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    pub fn oldest(&self) -> Option<(u64, &Entry)> {
        self.entries.front().map(|entry| (self.floor + 1, entry))
    }

    /// The first offset that is not older than `age`.
    pub fn oldest_within(&self, age: u64, now: u64) -> u64 {
        let aged = self.entries.iter().take_while(|e| is_aged(e, age, now)).count();
        self.floor + 1 + aged as u64
    }

    /// Adds the entry of the next offset, which is answered.
    pub fn push(&mut self, entry: Entry) -> u64 {
        self.bytes += u64::from(entry.bytes);
        self.rows += usize::from(entry.has_row());
        self.entries.push_back(entry);
        self.head()
    }

    /// Takes the oldest offset away: retention took it.
    pub fn pop(&mut self) -> Option<(u64, Entry)> {
        let entry = self.entries.pop_front()?;
        self.floor += 1;
        self.bytes -= u64::from(entry.bytes);
        self.rows -= usize::from(entry.has_row());
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
        }
        Some((self.floor, entry))
    }

    /// Forgets the row of an offset whose time to live ended; answers what it was.
    pub fn expire(&mut self, offset: u64) -> Option<Entry> {
        let index = usize::try_from(offset.checked_sub(self.floor + 1)?).ok()?;
        let entry = self.entries.get_mut(index).filter(|e| e.has_row())?;
        let was = *entry;
        *entry = Entry { seq: 0, bytes: 0, ..was };
        self.bytes -= u64::from(was.bytes);
        self.rows -= 1;
        Some(was)
    }

    pub fn has_applied(&self, fence: &Fence) -> bool {
        self.fences.iter().any(|f| f.source == fence.source && f.life == fence.life && f.id >= fence.id)
    }

    /// Whether a mark of this source can be kept without having more than `most` of them.
    pub fn has_room_for(&self, fence: &Fence, most: usize) -> bool {
        self.fences.len() < most || self.fences.iter().any(|f| f.source == fence.source)
    }

    pub fn mark(&mut self, fence: Fence) {
        match self.fences.iter_mut().find(|f| f.source == fence.source) {
            Some(known) => *known = fence,
            None => self.fences.push(fence),
        }
    }
}

pub fn is_aged(entry: &Entry, age: u64, now: u64) -> bool {
    entry.time.saturating_add(age) <= now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Epoch;
    use crate::domain::store::EntryId;

    fn record() -> Record {
        let lives = Lives::new(vec![(Epoch::from_random(1), 0)]);
        Record::new(Topic::parse("news").unwrap(), lives, 0, 0)
    }

    fn entry(seq: u64, time: u64) -> Entry {
        Entry { seq, bytes: 10, time, expires: 0 }
    }

    #[test]
    fn offsets_stay_in_place_while_entries_go() {
        let mut record = record();
        for n in 1..=5 {
            assert_eq!(record.push(entry(n + 100, n)), n);
        }
        record.pop();
        record.expire(3);
        assert_eq!((record.head(), record.bytes(), record.kept()), (5, 30, 4));
        assert_eq!(record.entry(1), None);
        assert_eq!(record.entry(2).unwrap().seq, 102);
        assert!(!record.entry(3).unwrap().has_row());
        assert_eq!(record.entry(5).unwrap().seq, 105);
        assert_eq!(record.expire(3), None, "only once");
        while record.pop().is_some() {}
        assert_eq!((record.head(), record.bytes(), record.has_rows()), (5, 0, false));
        assert_eq!(record.push(entry(9, 9)), 6);
    }

    #[test]
    fn age_cuts_off_the_oldest() {
        let mut record = record();
        for time in [10, 20, 30] {
            record.push(entry(time, time));
        }
        assert_eq!(record.oldest_within(10, 19), 1);
        assert_eq!(record.oldest_within(10, 20), 2);
        assert_eq!(record.oldest_within(10, 100), 4);
    }

    #[test]
    fn fences_compare_within_one_source_and_life() {
        let fence = |source: &str, life: &str, ms| Fence {
            source: source.into(),
            life: life.into(),
            id: EntryId { ms, seq: 0 },
        };
        let mut record = record();
        record.mark(fence("a", "x", 5));
        assert!(record.has_applied(&fence("a", "x", 5)));
        assert!(record.has_applied(&fence("a", "x", 4)));
        assert!(!record.has_applied(&fence("a", "x", 6)));
        assert!(!record.has_applied(&fence("a", "y", 4)));
        assert!(!record.has_applied(&fence("b", "x", 4)));
        assert!(record.has_room_for(&fence("a", "z", 1), 1));
        assert!(!record.has_room_for(&fence("b", "x", 1), 1));
    }
}

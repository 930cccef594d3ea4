//! What is known in memory of one topic: its lives, which row holds which offset, its fences. Pure; the rows
//! themselves and the bounds over all topics are the log's.

use super::entries::{Entries, Entry};
use crate::domain::name::Topic;
use crate::domain::store::{Fence, Kept, Lives, ReadFrom};
use crate::domain::topic::TopicSettings;

pub struct Record {
    pub name: Topic,
    pub settings: TopicSettings,
    pub lives: Lives,
    head: u64,
    /// The newest offset that bounds took, and the latest time that it can be of. Past it, what is not among the
    /// entries has expired, or in mode `latest` was replaced.
    floor: u64,
    taken: u64,
    entries: Entries,
    /// Bytes of the bodies that are kept.
    bytes: u64,
    /// How many entries still have a row.
    rows: usize,
    /// When it was last written to: the time of the newest message, or later.
    pub touched: u64,
    /// How many cursors stand in it; the record stays while there are any.
    pub cursors: u64,
    fences: Vec<Fence>,
}

impl Record {
    /// A topic whose newest offset is `floor` and of which nothing is kept.
    pub fn new(name: Topic, settings: TopicSettings, lives: Lives, floor: u64, touched: u64) -> Record {
        Record {
            name,
            lives,
            head: floor,
            floor,
            taken: touched,
            entries: Entries::new(settings.mode, floor),
            settings,
            bytes: 0,
            rows: 0,
            touched,
            cursors: 0,
            fences: Vec::new(),
        }
    }

    /// Says that bounds took all up to an offset, the last of it not after a time: before the first entry.
    pub fn begin_after(&mut self, floor: u64, taken: u64) {
        debug_assert_eq!(self.entries.len(), 0, "only before the first entry");
        (self.floor, self.taken, self.head) = (floor, taken, floor);
    }

    pub fn head(&self) -> u64 {
        self.head
    }

    pub fn floor(&self) -> u64 {
        self.floor
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn kept(&self) -> u64 {
        self.entries.len()
    }

    pub fn has_rows(&self) -> bool {
        self.rows > 0
    }

    #[cfg(test)]
    pub fn entry(&self, offset: u64) -> Option<&Entry> {
        self.entries.get(offset)
    }

    /// The entries of this offset and later ones, oldest first.
    pub fn entries_from(&self, offset: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.from(offset)
    }

    pub fn oldest(&self) -> Option<(u64, &Entry)> {
        self.entries.first()
    }

    /// What planning a read needs to know. What is too old counts as taken.
    pub fn kept_for(&self, from: ReadFrom, age: u64, now: u64) -> Kept {
        let aged = self.entries.from(0).take_while(|(_, entry)| is_aged(entry, age, now)).last();
        let (floor, taken) = aged.map_or((self.floor, self.taken), |(offset, entry)| (offset, entry.time));
        let first = match from {
            ReadFrom::After(_) => None,
            ReadFrom::Last(count) => self.entries.last(count, now),
            ReadFrom::Since(time) => self.entries.since(time),
        };
        Kept {
            mode: self.settings.mode,
            oldest: floor + 1,
            head: self.head,
            first: first.unwrap_or(self.head + 1),
            cut: matches!(from, ReadFrom::Since(time) if floor > 0 && time <= taken),
        }
    }

    /// Adds the entry of the next offset; answers which one it replaces.
    pub fn push(&mut self, entry: Entry, key: Option<&str>) -> Option<(u64, Entry)> {
        self.push_at(self.head + 1, entry, key)
    }

    /// The same for an offset that need not be the next one in mode `latest`.
    pub fn push_at(&mut self, offset: u64, entry: Entry, key: Option<&str>) -> Option<(u64, Entry)> {
        self.bytes += u64::from(entry.bytes);
        self.rows += usize::from(entry.has_row());
        self.head = offset;
        let replaced = self.entries.push(offset, entry, key);
        replaced.inspect(|(_, entry)| self.uncount(entry))
    }

    /// Counts offsets that are not kept: bounds took them as soon as they were there.
    pub fn pass_to(&mut self, head: u64, time: u64) {
        (self.head, self.floor, self.taken) = (head, head, time);
    }

    /// The newest offset is this one, though no entry tells so.
    pub fn raise_head(&mut self, head: u64) {
        self.head = self.head.max(head);
    }

    /// Takes the oldest entry away: bounds took it.
    pub fn pop(&mut self) -> Option<(u64, Entry)> {
        let (offset, entry) = self.entries.pop()?;
        (self.floor, self.taken) = (offset, entry.time);
        self.uncount(&entry);
        Some((offset, entry))
    }

    /// Forgets the row of an offset whose time to live ended; answers what it was.
    pub fn expire(&mut self, offset: u64) -> Option<Entry> {
        self.entries.expire(offset).inspect(|entry| self.uncount(entry))
    }

    fn uncount(&mut self, entry: &Entry) {
        self.bytes -= u64::from(entry.bytes);
        self.rows -= usize::from(entry.has_row());
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
    use crate::domain::store::{EntryId, Retention};
    use crate::domain::topic::Mode;

    fn record() -> Record {
        let lives = Lives::new(vec![(Epoch::from_random(1), 0)]);
        Record::new(Topic::parse("news").unwrap(), settings(Mode::Log), lives, 0, 0)
    }

    fn settings(mode: Mode) -> TopicSettings {
        TopicSettings { mode, ..TopicSettings::from(&Retention::default()) }
    }

    fn entry(seq: u64, time: u64) -> Entry {
        Entry { seq, bytes: 10, time, expires: 0 }
    }

    #[test]
    fn offsets_stay_in_place_while_entries_go() {
        let mut record = record();
        for n in 1..=5 {
            record.push(entry(n + 100, n), None);
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
        record.push(entry(9, 9), None);
        assert_eq!((record.head(), record.floor()), (6, 5));
    }

    #[test]
    fn age_cuts_off_the_oldest() {
        let mut record = record();
        for time in [10, 20, 30] {
            record.push(entry(time, time), None);
        }
        let oldest = |now| record.kept_for(ReadFrom::Last(1), 10, now).oldest;
        assert_eq!((oldest(19), oldest(20), oldest(100)), (1, 2, 4));
    }

    #[test]
    fn a_time_is_found_among_what_is_kept_and_what_was_taken_is_known() {
        let mut record = record();
        for time in [10, 20, 20, 30] {
            record.push(entry(time, time), None);
        }
        let since = |record: &Record, time, now| {
            let kept = record.kept_for(ReadFrom::Since(time), 100, now);
            (kept.first, kept.cut)
        };
        for (time, first) in [(0, 1), (10, 1), (11, 2), (20, 2), (21, 4), (31, 5)] {
            assert_eq!(since(&record, time, 30), (first, false), "since {time}");
        }
        record.pop();
        assert_eq!((since(&record, 10, 30), since(&record, 11, 30)), ((2, true), (2, false)));
        assert_eq!(since(&record, 20, 120), (2, true), "two are too old by now");
    }

    #[test]
    fn in_mode_latest_the_newest_of_each_key_is_kept() {
        let lives = Lives::new(vec![(Epoch::from_random(1), 0)]);
        let mut record = Record::new(Topic::parse("news").unwrap(), settings(Mode::Latest), lives, 0, 0);
        for (n, key) in [(1, Some("a")), (2, None), (3, Some("b")), (4, Some("a")), (5, None)] {
            let replaced = record.push(entry(n, n), key).map(|(offset, _)| offset);
            assert_eq!(replaced, [None, None, None, Some(1), Some(2)][n as usize - 1]);
        }
        let offsets = |record: &Record| record.entries_from(0).map(|(offset, _)| offset).collect::<Vec<_>>();
        assert_eq!((offsets(&record), record.bytes(), record.kept(), record.floor()), (vec![3, 4, 5], 30, 3, 0));
        assert_eq!(record.kept_for(ReadFrom::Last(2), 100, 5).first, 4);
        assert_eq!(record.kept_for(ReadFrom::Last(9), 100, 5).first, 3);
        assert_eq!(record.kept_for(ReadFrom::Last(0), 100, 5).first, 6);
        record.expire(5);
        assert_eq!((record.head(), offsets(&record)), (5, vec![3, 4]));
        assert_eq!((record.pop().map(|(offset, _)| offset), record.floor()), (Some(3), 3));
        assert_eq!(record.push(entry(6, 6), Some("b")), None, "it was taken");
        assert_eq!(record.push(entry(7, 7), Some("a")).map(|(offset, _)| offset), Some(4));
    }

    #[test]
    fn fences_compare_within_one_source_and_life() {
        let fence = |source: &str, life: &str, ms| Fence::new(source, life, EntryId { ms, seq: 0 });
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

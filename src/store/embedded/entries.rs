//! Which offsets of a topic have a message: all of a stretch in mode `log`, the newest of each key in mode `latest`,
//! none in mode `live`. Pure; how far bounds reach is the record's.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::domain::topic::Mode;

/// One offset. Its row may be gone before bounds reach it: then its time to live ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The row; 0 if it is gone.
    pub seq: u64,
    pub bytes: u32,
    pub time: u64,
    /// 0: lives as long as bounds let it.
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

pub enum Entries {
    /// Every offset from `first` on, so that finding one costs nothing. Always empty in mode `live`.
    Row { first: u64, entries: VecDeque<Entry> },
    /// Of each key the newest; those without a key share the empty one, which nobody can give.
    Latest { by_offset: BTreeMap<u64, (Entry, Arc<str>)>, by_key: HashMap<Arc<str>, u64> },
}

impl Entries {
    /// None yet; the first to be pushed is of an offset past `floor`.
    pub fn new(mode: Mode, floor: u64) -> Entries {
        match mode {
            Mode::Latest => Entries::Latest { by_offset: BTreeMap::new(), by_key: HashMap::new() },
            Mode::Log | Mode::Live => Entries::Row { first: floor + 1, entries: VecDeque::new() },
        }
    }

    pub fn len(&self) -> u64 {
        match self {
            Entries::Row { entries, .. } => entries.len() as u64,
            Entries::Latest { by_offset, .. } => by_offset.len() as u64,
        }
    }

    pub fn first(&self) -> Option<(u64, &Entry)> {
        match self {
            Entries::Row { first, entries } => entries.front().map(|entry| (*first, entry)),
            Entries::Latest { by_offset, .. } => by_offset.iter().next().map(|(offset, (entry, _))| (*offset, entry)),
        }
    }

    #[cfg(test)]
    pub fn get(&self, offset: u64) -> Option<&Entry> {
        match self {
            Entries::Row { first, entries } => entries.get(usize::try_from(offset.checked_sub(*first)?).ok()?),
            Entries::Latest { by_offset, .. } => by_offset.get(&offset).map(|(entry, _)| entry),
        }
    }

    /// Those of this offset and later ones, oldest first.
    pub fn from(&self, offset: u64) -> Box<dyn Iterator<Item = (u64, &Entry)> + '_> {
        match self {
            Entries::Row { first, entries } => {
                let skipped = usize::try_from(offset.saturating_sub(*first)).unwrap_or(usize::MAX).min(entries.len());
                Box::new((first + skipped as u64..).zip(entries.range(skipped..)))
            }
            Entries::Latest { by_offset, .. } => {
                Box::new(by_offset.range(offset..).map(|(offset, (entry, _))| (*offset, entry)))
            }
        }
    }

    /// The first of the newest so many that can be read.
    pub fn last(&self, count: u32, now: u64) -> Option<u64> {
        let Entries::Latest { by_offset, .. } = self else { return None };
        let readable = by_offset.iter().rev().filter(|(_, (entry, _))| entry.is_readable(now));
        readable.take(count as usize).last().map(|(offset, _)| *offset)
    }

    /// The first that was stored at a time or later; times never descend as offsets ascend.
    pub fn since(&self, time: u64) -> Option<u64> {
        match self {
            Entries::Row { first, entries } => {
                let before = entries.partition_point(|entry| entry.time < time);
                (before < entries.len()).then_some(first + before as u64)
            }
            // As many as there are keys.
            Entries::Latest { by_offset, .. } => {
                by_offset.iter().find(|(_, (entry, _))| entry.time >= time).map(|(offset, _)| *offset)
            }
        }
    }

    /// Adds the entry of an offset past all others, which in a row is the next one. Answers what it replaces.
    pub fn push(&mut self, offset: u64, entry: Entry, key: Option<&str>) -> Option<(u64, Entry)> {
        match self {
            Entries::Row { first, entries } => {
                if entries.is_empty() {
                    *first = offset;
                }
                debug_assert_eq!(offset, *first + entries.len() as u64, "a row has no holes");
                entries.push_back(entry);
                None
            }
            Entries::Latest { by_offset, by_key } => {
                let key: Arc<str> = key.unwrap_or_default().into();
                let replaced = by_key.insert(key.clone(), offset);
                by_offset.insert(offset, (entry, key));
                replaced.and_then(|offset| Some((offset, by_offset.remove(&offset)?.0)))
            }
        }
    }

    pub fn pop(&mut self) -> Option<(u64, Entry)> {
        match self {
            Entries::Row { first, entries } => {
                let entry = entries.pop_front()?;
                *first += 1;
                if entries.is_empty() {
                    entries.shrink_to_fit();
                }
                Some((*first - 1, entry))
            }
            Entries::Latest { by_offset, by_key } => {
                let (offset, (entry, key)) = by_offset.pop_first()?;
                by_key.remove(&key);
                Some((offset, entry))
            }
        }
    }

    /// Forgets the row of an offset whose time to live ended; answers what it was.
    pub fn expire(&mut self, offset: u64) -> Option<Entry> {
        match self {
            Entries::Row { first, entries } => {
                let index = usize::try_from(offset.checked_sub(*first)?).ok()?;
                let entry = entries.get_mut(index).filter(|e| e.has_row())?;
                let was = *entry;
                *entry = Entry { seq: 0, bytes: 0, ..was };
                Some(was)
            }
            Entries::Latest { by_offset, by_key } => {
                let (entry, key) = by_offset.remove(&offset)?;
                by_key.remove(&key);
                Some(entry)
            }
        }
    }
}

//! What the log removes: what retention took, what had its time, topics that are over. Bounded work a step, so that
//! publishers never wait long for it.

use rusqlite::Result;

use super::entries::Entry;
use super::log::{Log, MESSAGE_OVERHEAD, millis};
use super::record::is_aged;
use crate::domain::topic::Mode;

/// Rows that one step removes, and records that it looks at.
pub const SWEEP_ROWS: usize = 2_000;
const SWEEP_TOPICS: usize = 4_096;
const SWEEP_CURSORS: usize = 1_000;

impl Log<'_> {
    /// One step. `true`: there is more to do at once.
    pub fn sweep(&mut self, now: u64) -> Result<bool> {
        let mut left = self.sweep_rows;
        while left > 0
            && let Some(&(expires, id, offset)) = self.expiring.first()
            && expires <= now
        {
            self.expire(id, offset)?;
            left -= 1;
        }
        let keys = self.tables.delete_keys(now, SWEEP_ROWS)?;
        self.keys -= keys as u64;
        let cursors = self.sweep_cursors(now, SWEEP_CURSORS)?;
        for _ in 0..SWEEP_TOPICS.min(self.topics.capacity()) {
            if left == 0 {
                break;
            }
            let id = self.swept;
            left = self.sweep_topic(id, now, left)?;
            if left > 0 {
                self.swept = if id + 1 >= self.topics.capacity() { 0 } else { id + 1 };
            }
        }
        Ok(left == 0 || keys == SWEEP_ROWS || cursors == SWEEP_CURSORS)
    }

    /// Whether a topic's record had its time: its messages are gone for long, nobody watches it, and no cursor
    /// stands in it.
    pub(super) fn is_over(&self, id: usize, now: u64) -> bool {
        let record = &self.topics[id];
        let settings = &record.settings;
        let kept = millis(settings.age).saturating_add(millis(settings.record)).max(millis(self.bounds.window));
        record.touched.saturating_add(kept) <= now && record.cursors == 0 && !self.watched.contains(&record.name)
    }

    pub(super) fn remove_topic(&mut self, id: usize) -> Result<()> {
        while self.topics[id].has_rows() {
            self.remove_oldest(id)?;
        }
        self.keys -= self.tables.delete_topic(id)? as u64;
        let record = self.topics.remove(id);
        self.by_name.remove(&record.name);
        Ok(())
    }

    pub(super) fn remove_oldest(&mut self, id: usize) -> Result<()> {
        let Some((offset, entry)) = self.topics[id].pop() else { return Ok(()) };
        if entry.has_row() {
            self.forget(id, offset, entry)?;
        }
        // In mode `latest` the first row does not tell what was before it.
        if entry.has_row() && !self.topics[id].has_rows() || self.topics[id].settings.mode == Mode::Latest {
            self.keep_head(id)?;
        }
        Ok(())
    }

    /// Makes room: the oldest message of all goes, whatever its topic.
    pub(super) fn remove_oldest_of_all(&mut self) -> Result<()> {
        let Some((id, offset)) = self.tables.oldest()? else {
            debug_assert_eq!(self.bytes, 0, "bytes are counted without rows");
            self.bytes = 0;
            return Ok(());
        };
        while self.topics[id].oldest().is_some_and(|(oldest, _)| oldest <= offset) {
            self.remove_oldest(id)?;
        }
        Ok(())
    }

    fn sweep_topic(&mut self, id: usize, now: u64, mut left: usize) -> Result<usize> {
        let age = self.topics.get(id).map_or(0, |record| millis(record.settings.age));
        while left > 0 && self.topics.get(id).and_then(|r| r.oldest()).is_some_and(|(_, e)| is_aged(e, age, now)) {
            self.remove_oldest(id)?;
            left -= 1;
        }
        if left > 0 && self.topics.contains(id) && self.is_over(id, now) {
            self.remove_topic(id)?;
            left -= 1;
        }
        Ok(left)
    }

    fn expire(&mut self, id: usize, offset: u64) -> Result<()> {
        let Some(entry) = self.topics[id].expire(offset) else {
            debug_assert!(false, "an entry that expires has a row");
            self.expiring.pop_first();
            return Ok(());
        };
        self.forget(id, offset, entry)?;
        // It may have been the newest one, and nothing else would tell the head.
        self.keep_head(id)
    }

    pub(super) fn forget(&mut self, id: usize, offset: u64, entry: Entry) -> Result<()> {
        self.tables.delete_message(entry.seq)?;
        self.bytes -= u64::from(entry.bytes) + MESSAGE_OVERHEAD;
        if entry.expires != 0 {
            self.expiring.remove(&(entry.expires, id, offset));
        }
        Ok(())
    }

    pub(super) fn keep_head(&mut self, id: usize) -> Result<()> {
        let record = &self.topics[id];
        self.tables.set_head(id, record.head(), record.touched, record.floor())
    }
}

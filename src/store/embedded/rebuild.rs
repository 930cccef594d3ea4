//! Learns from the tables what the log keeps in memory: at opening, and after a transaction that failed.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::Result;
use rusqlite::types::Type;
use slab::Slab;

use super::cursor_table::CursorTable;
use super::entries::Entry;
use super::log::{Bounds, Log, MESSAGE_OVERHEAD};
use super::record::Record;
use super::sweep::SWEEP_ROWS;
use super::tables::{Tables, topic_id, unsigned};
use crate::domain::name::Topic;
use crate::domain::position::Epoch;
use crate::domain::store::{EntryId, Fence, Lives};
use crate::domain::topic::Mode;

impl<'c> Log<'c> {
    pub fn open(tables: Tables<'c>, cursors: CursorTable<'c>, bounds: Bounds) -> Result<Log<'c>> {
        let mut log = Log {
            tables,
            cursors,
            bounds,
            topics: Slab::new(),
            by_name: HashMap::new(),
            expiring: BTreeSet::new(),
            next_seq: 1,
            bytes: 0,
            keys: 0,
            swept: 0,
            sweep_rows: SWEEP_ROWS,
            watched: HashSet::new(),
        };
        log.rebuild()?;
        Ok(log)
    }

    /// Forgets what is in memory and reads it anew. Topics whose settings have another mode than they were kept in are
    /// brought into it: what the new one does not keep goes, and is missing from then on like what bounds took.
    pub fn rebuild(&mut self) -> Result<()> {
        (self.expiring, self.bytes, self.swept) = (BTreeSet::new(), 0, 0);
        let stored = self.rebuild_records()?;
        self.by_name = self.topics.iter().map(|(id, record)| (record.name.clone(), id)).collect();
        self.rebuild_fences()?;
        let mut useless = self.rebuild_entries(&stored)?;
        for (&id, stored) in &stored {
            let record = &mut self.topics[id];
            let is_changed = stored.mode != record.settings.mode;
            match record.settings.mode {
                Mode::Live => record.pass_to(record.head().max(stored.head), record.touched),
                Mode::Latest => record.raise_head(stored.head),
                Mode::Log if is_changed && record.head() < stored.head => {
                    useless.extend(empty(record, stored.head));
                }
                // The newest ones are gone, each by its time to live.
                Mode::Log => {
                    while record.head() < stored.head {
                        record.push(gone(record.touched), None);
                    }
                }
            }
        }
        self.count();
        self.rebuild_cursors()?;
        self.keys = self.tables.connection.query_row("SELECT COUNT(*) FROM idempotency", [], |r| unsigned(r, 0))?;
        let changed: Vec<usize> =
            stored.iter().filter(|(id, s)| self.topics[**id].settings.mode != s.mode).map(|(id, _)| *id).collect();
        if useless.is_empty() && changed.is_empty() { Ok(()) } else { self.change(&useless, &changed) }
    }

    fn count(&mut self) {
        for (id, record) in &self.topics {
            for (offset, entry) in record.entries_from(0).filter(|(_, entry)| entry.has_row()) {
                self.bytes += u64::from(entry.bytes) + MESSAGE_OVERHEAD;
                if entry.expires != 0 {
                    self.expiring.insert((entry.expires, id, offset));
                }
            }
        }
    }

    /// Removes rows that are of no use in the modes of today, and writes these down.
    fn change(&mut self, useless: &[Entry], changed: &[usize]) -> Result<()> {
        tracing::info!(topics = changed.len(), messages = useless.len(), "topics are kept in another mode from now on");
        self.tables.begin()?;
        for entry in useless.iter().filter(|entry| entry.has_row()) {
            self.tables.delete_message(entry.seq)?;
        }
        for &id in changed {
            self.tables.set_mode(id, self.topics[id].settings.mode)?;
            self.keep_head(id)?;
        }
        Ok(self.tables.commit()?)
    }

    /// Records without entries; answers what the row of each tells.
    fn rebuild_records(&mut self) -> Result<HashMap<usize, Stored>> {
        let connection = self.tables.connection;
        let mut lives: HashMap<usize, Vec<(Epoch, u64)>> = HashMap::new();
        let mut statement = connection.prepare("SELECT topic_id, epoch, base FROM lives ORDER BY topic_id, ordinal")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let epoch = row.get_ref(1)?.as_str()?.parse::<Epoch>().map_err(|e| unreadable(1, e))?;
            lives.entry(topic_id(row, 0)?).or_default().push((epoch, unsigned(row, 2)?));
        }
        let mut statement = connection.prepare("SELECT id, name, head, touched, mode, floor FROM topics")?;
        let mut rows = statement.query([])?;
        let (mut records, mut stored) = (Vec::new(), HashMap::new());
        while let Some(row) = rows.next()? {
            let (id, head, touched) = (topic_id(row, 0)?, unsigned(row, 2)?, unsigned(row, 3)?);
            let name = Topic::parse(row.get_ref(1)?.as_str()?).map_err(|e| unreadable(1, e))?;
            let known = lives.remove(&id).ok_or_else(|| unreadable(0, NoLife(name.to_string())))?;
            let mode = row.get_ref(4)?.as_str()?;
            let mode = Mode::parse(mode).ok_or_else(|| unreadable(4, NoMode(mode.into())))?;
            let settings = *self.bounds.rules.of(&name);
            // A topic whose rows are all gone begins at its head; the others at their first row.
            let is_same = mode == Mode::Latest && settings.mode == mode;
            let floor = if is_same { unsigned(row, 5)? } else { head };
            records.push((id, Record::new(name, settings, Lives::new(known), floor, touched)));
            stored.insert(id, Stored { head, mode });
        }
        self.topics = records.into_iter().collect();
        Ok(stored)
    }

    fn rebuild_fences(&mut self) -> Result<()> {
        let mut statement = self.tables.connection.prepare("SELECT topic_id, source, life, ms, seq FROM fences")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = EntryId { ms: unsigned(row, 3)?, seq: unsigned(row, 4)? };
            let fence = Fence::new(row.get::<_, Box<str>>(1)?, row.get::<_, Box<str>>(2)?, id);
            if let Some(record) = self.topics.get_mut(topic_id(row, 0)?) {
                record.mark(fence);
            }
        }
        Ok(())
    }

    fn rebuild_cursors(&mut self) -> Result<()> {
        self.cursors.total = 0;
        let mut statement =
            self.tables.connection.prepare("SELECT topic_id, COUNT(*) FROM cursors GROUP BY topic_id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, count) = (topic_id(row, 0)?, unsigned(row, 1)?);
            self.cursors.total += count;
            self.topics.get_mut(id).ok_or_else(|| unreadable(0, NoTopic(id)))?.cursors = count;
        }
        Ok(())
    }

    /// Answers the entries that are of no use in the modes of today.
    fn rebuild_entries(&mut self, stored: &HashMap<usize, Stored>) -> Result<Vec<Entry>> {
        let sql = "SELECT seq, topic_id, offset, time, expires, LENGTH(body), key FROM messages ORDER BY seq";
        let mut statement = self.tables.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut useless = Vec::new();
        self.next_seq = 1;
        while let Some(row) = rows.next()? {
            let (seq, id, offset) = (unsigned(row, 0)?, topic_id(row, 1)?, unsigned(row, 2)?);
            let (time, expires, bytes) = (unsigned(row, 3)?, unsigned(row, 4)?, unsigned(row, 5)? as u32);
            let (Some(record), Some(stored)) = (self.topics.get_mut(id), stored.get(&id)) else {
                return Err(unreadable(1, NoTopic(id)));
            };
            let entry = Entry { seq, bytes, time, expires };
            self.next_seq = seq + 1;
            record.touched = record.touched.max(time);
            match record.settings.mode {
                Mode::Live => {
                    record.raise_head(offset);
                    useless.push(entry);
                    continue;
                }
                Mode::Latest => {
                    if record.kept() == 0 && stored.mode != Mode::Latest {
                        record.begin_after(offset - 1, time);
                    }
                    useless.extend(record.push_at(offset, entry, row.get_ref(6)?.as_str_or_null()?).map(|(_, e)| e));
                }
                Mode::Log => {
                    if record.kept() > 0 && record.head() + 1 < offset && stored.mode == Mode::Latest {
                        // What was replaced has not expired: the history begins behind it.
                        useless.extend(empty(record, offset - 1));
                    }
                    if record.kept() == 0 {
                        record.begin_after(offset - 1, time);
                    }
                    while record.head() + 1 < offset {
                        record.push(gone(time), None);
                    }
                    record.push(entry, None);
                }
            }
        }
        Ok(useless)
    }
}

/// What the row of a topic tells beside its name.
struct Stored {
    head: u64,
    mode: Mode,
}

/// Takes all entries out of a record, whose history begins behind `floor` then.
fn empty(record: &mut Record, floor: u64) -> Vec<Entry> {
    let mut gone = Vec::new();
    while let Some((_, entry)) = record.pop() {
        gone.push(entry);
    }
    let taken = record.touched;
    record.begin_after(floor, taken);
    gone
}

fn gone(time: u64) -> Entry {
    Entry { seq: 0, bytes: 0, time, expires: 0 }
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no mode")]
struct NoMode(String);

#[derive(Debug, thiserror::Error)]
#[error("topic {0} has no life")]
struct NoLife(String);

#[derive(Debug, thiserror::Error)]
#[error("a message or a cursor of topic {0}, which has no record")]
struct NoTopic(usize);

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

//! Learns from the tables what the log keeps in memory: at opening, and after a transaction that failed.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::Result;
use rusqlite::types::Type;
use slab::Slab;

use super::log::{Bounds, Log, MESSAGE_OVERHEAD};
use super::record::{Entry, Record};
use super::tables::{Tables, topic_id, unsigned};
use crate::domain::name::Topic;
use crate::domain::position::Epoch;
use crate::domain::store::{EntryId, Fence, Lives};

impl<'c> Log<'c> {
    pub fn open(tables: Tables<'c>, bounds: Bounds) -> Result<Log<'c>> {
        let mut log = Log {
            tables,
            bounds,
            topics: Slab::new(),
            by_name: HashMap::new(),
            expiring: BTreeSet::new(),
            next_seq: 1,
            bytes: 0,
            keys: 0,
            cursor: 0,
            watched: HashSet::new(),
        };
        log.rebuild()?;
        Ok(log)
    }

    /// Forgets what is in memory and reads it anew.
    pub fn rebuild(&mut self) -> Result<()> {
        (self.expiring, self.bytes, self.cursor) = (BTreeSet::new(), 0, 0);
        let heads = self.rebuild_records()?;
        self.by_name = self.topics.iter().map(|(id, record)| (record.name.clone(), id)).collect();
        self.rebuild_fences()?;
        self.rebuild_entries()?;
        for (id, head) in heads {
            // The newest ones are gone, each by its time to live.
            let record = &mut self.topics[id];
            while record.head() < head {
                record.push(gone(record.touched));
            }
        }
        self.keys = self.tables.connection.query_row("SELECT COUNT(*) FROM idempotency", [], |r| unsigned(r, 0))?;
        Ok(())
    }

    /// Records without entries; answers the head of each that its row tells.
    fn rebuild_records(&mut self) -> Result<Vec<(usize, u64)>> {
        let connection = self.tables.connection;
        let mut lives: HashMap<usize, Vec<(Epoch, u64)>> = HashMap::new();
        let mut statement = connection.prepare("SELECT topic_id, epoch, base FROM lives ORDER BY topic_id, ordinal")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let epoch = row.get_ref(1)?.as_str()?.parse::<Epoch>().map_err(|e| unreadable(1, e))?;
            lives.entry(topic_id(row, 0)?).or_default().push((epoch, unsigned(row, 2)?));
        }
        // A topic whose rows are all gone begins at its head; the others at their first row.
        let mut statement = connection.prepare("SELECT id, name, head, touched FROM topics")?;
        let mut rows = statement.query([])?;
        let (mut records, mut heads) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let (id, head) = (topic_id(row, 0)?, unsigned(row, 2)?);
            let name = Topic::parse(row.get_ref(1)?.as_str()?).map_err(|e| unreadable(1, e))?;
            let known = lives.remove(&id).ok_or_else(|| unreadable(0, NoLife(name.to_string())))?;
            records.push((id, Record::new(name, Lives::new(known), head, unsigned(row, 3)?)));
            heads.push((id, head));
        }
        self.topics = records.into_iter().collect();
        Ok(heads)
    }

    fn rebuild_fences(&mut self) -> Result<()> {
        let mut statement = self.tables.connection.prepare("SELECT topic_id, source, life, ms, seq FROM fences")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = EntryId { ms: unsigned(row, 3)?, seq: unsigned(row, 4)? };
            let fence = Fence { source: row.get(1)?, life: row.get(2)?, id };
            if let Some(record) = self.topics.get_mut(topic_id(row, 0)?) {
                record.mark(fence);
            }
        }
        Ok(())
    }

    fn rebuild_entries(&mut self) -> Result<()> {
        let sql = "SELECT seq, topic_id, offset, time, expires, LENGTH(body) FROM messages ORDER BY seq";
        let mut statement = self.tables.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        self.next_seq = 1;
        while let Some(row) = rows.next()? {
            let (seq, id, offset) = (unsigned(row, 0)?, topic_id(row, 1)?, unsigned(row, 2)?);
            let bytes = unsigned(row, 5)?;
            let (time, expires) = (unsigned(row, 3)?, unsigned(row, 4)?);
            let record = self.topics.get_mut(id).ok_or_else(|| unreadable(1, NoTopic(id)))?;
            if record.kept() == 0 {
                record.begin_at(offset);
            }
            while record.head() + 1 < offset {
                record.push(gone(time));
            }
            record.push(Entry { seq, bytes: bytes as u32, time, expires });
            record.touched = record.touched.max(time);
            self.bytes += bytes + MESSAGE_OVERHEAD;
            self.next_seq = seq + 1;
            if expires != 0 {
                self.expiring.insert((expires, id, offset));
            }
        }
        Ok(())
    }
}

fn gone(time: u64) -> Entry {
    Entry { seq: 0, bytes: 0, time, expires: 0 }
}

#[derive(Debug, thiserror::Error)]
#[error("topic {0} has no life")]
struct NoLife(String);

#[derive(Debug, thiserror::Error)]
#[error("a message of topic {0}, which has no record")]
struct NoTopic(usize);

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

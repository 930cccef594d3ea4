//! Learns from the tables what is known of the queues in memory: at opening, and after a transaction that failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::Result;
use slab::Slab;

use super::book::{Book, Kept};
use super::table::{header_of, row_of, unreadable};
use crate::domain::queue::machine::{KEY, KeyId, KeyRow, Machine, Row};
use crate::domain::queue::{Mark, Queue, written};
use crate::domain::store::EntryId;
use crate::store::embedded::tables::unsigned;

/// The marks of a queue by source.
type Marks = Vec<(Box<str>, Mark)>;

impl Book<'_> {
    /// Forgets what is in memory and reads it anew. What was in flight in a queue that is known stays so.
    pub(super) fn rebuild(&mut self, now: u64) -> Result<()> {
        let mut jobs = self.read_jobs()?;
        let mut keys = self.read_keys()?;
        let mut marks = self.read_marks()?;
        let mut kept = BTreeMap::new();
        let sql =
            "SELECT id, name, settings, lives, last, paused, armed, taken_since, firings, untold, totals FROM queues";
        let mut statement = self.table.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = unsigned(row, 0)? as usize;
            let queue = Queue::parse(row.get_ref(1)?.as_str()?).map_err(|_| unreadable("the name of a queue"))?;
            let own: Option<String> = row.get(2)?;
            let settings = match own.as_deref().map(written::read) {
                Some(settings) => settings.map_err(|_| unreadable("the settings of a queue"))?,
                None => self.bounds.rules.of(&queue).clone(),
            };
            let header = header_of(row, 3)?;
            let part = |all: &mut HashMap<usize, _>| all.remove(&id).unwrap_or_default();
            let jobs = part(&mut jobs);
            let (keys, marks) = (keys.remove(&id).unwrap_or_default(), marks.remove(&id).unwrap_or_default());
            let mut machine = Machine::restore(queue, settings, header, jobs, keys, marks, now);
            if let Some(before) = self.queues.get(id).filter(|kept| kept.machine.queue() == machine.queue()) {
                machine.take_over(&before.machine);
            }
            kept.insert(id, Kept { machine, own, used: now });
        }
        self.by_name = kept.iter().map(|(id, kept)| (kept.machine.queue().clone(), *id)).collect();
        self.bytes = kept.values().map(|kept| kept.machine.size().1).sum();
        self.keys = kept.values().map(|kept| kept.machine.keys()).sum();
        self.queues = kept.into_iter().collect::<Slab<_>>();
        // What restoring has mended is written with the next commit.
        self.touched = self.queues.iter().filter(|(_, kept)| kept.machine.has_changes()).map(|(id, _)| id).collect();
        self.wakes = BTreeSet::new();
        Ok(())
    }

    fn read_jobs(&self) -> Result<HashMap<usize, Vec<Row>>> {
        let sql = "SELECT j.id, j.priority, j.grp, j.time, LENGTH(j.body), COALESCE(s.expires, j.expires),
                          COALESCE(s.spot, j.spot), COALESCE(s.until, j.until), COALESCE(s.tries, 0),
                          COALESCE(s.failures, 0), s.death
                   FROM jobs j LEFT JOIN job_states s ON s.id = j.id ORDER BY j.id";
        let mut statement = self.table.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut jobs: HashMap<usize, Vec<Row>> = HashMap::new();
        while let Some(row) = rows.next()? {
            let (queue, row) = row_of(row)?;
            jobs.entry(queue).or_default().push(row);
        }
        Ok(jobs)
    }

    fn read_keys(&self) -> Result<HashMap<usize, Vec<KeyRow>>> {
        let sql = "SELECT queue_id, key, content, number, expires FROM queue_keys";
        let mut statement = self.table.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut keys: HashMap<usize, Vec<KeyRow>> = HashMap::new();
        while let Some(row) = rows.next()? {
            let digest = |bytes: &[u8]| KeyId::try_from(bytes).map_err(|_| unreadable("a key of a queue"));
            debug_assert_eq!(KEY, size_of::<KeyId>());
            let content = row.get_ref(2)?.as_blob_or_null()?.map(digest).transpose()?;
            let key = KeyRow {
                id: digest(row.get_ref(1)?.as_blob()?)?,
                content,
                number: unsigned(row, 3)?,
                expires: unsigned(row, 4)?,
            };
            keys.entry(unsigned(row, 0)? as usize).or_default().push(key);
        }
        Ok(keys)
    }

    fn read_marks(&self) -> Result<HashMap<usize, Marks>> {
        let mut statement = self.table.connection.prepare("SELECT queue_id, source, life, ms, seq FROM queue_marks")?;
        let mut rows = statement.query([])?;
        let mut marks: HashMap<usize, Marks> = HashMap::new();
        while let Some(row) = rows.next()? {
            let id = EntryId { ms: unsigned(row, 3)?, seq: unsigned(row, 4)? };
            let mark = Mark { life: row.get(2)?, id };
            marks.entry(unsigned(row, 0)? as usize).or_default().push((row.get(1)?, mark));
        }
        Ok(marks)
    }
}

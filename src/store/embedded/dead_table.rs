//! The table of dead letters: what its calls do, in the store's thread.

use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use tokio::sync::{oneshot, watch};

use super::tables::{id, int, unsigned};
use crate::domain::dead::DeadLetter;
use crate::domain::error::Reason;
use crate::domain::store::StoreError;
use crate::telemetry;

/// Bytes of all letters together; the oldest go beyond it.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

type Reply<T> = oneshot::Sender<std::result::Result<T, StoreError>>;

/// A letter's number is its row.
pub enum DeadCall {
    List {
        after: u64,
        limit: usize,
        reply: Reply<Vec<DeadLetter>>,
    },
    Count {
        reply: Reply<u64>,
    },
    Retry {
        letter: u64,
        reply: Reply<bool>,
    },
    Drop {
        letter: u64,
        reply: Reply<bool>,
    },
    Bury {
        letter: DeadLetter,
        reply: Reply<String>,
    },
    /// The first retried letter after the so-many-th retry, with its number.
    NextRetried {
        after: u64,
        reply: Reply<Option<(u64, DeadLetter)>>,
    },
    Settle {
        letter: u64,
        reply: Reply<bool>,
    },
}

pub struct DeadTable<'c> {
    connection: &'c Connection,
    capacity: usize,
    count: usize,
    bytes: u64,
    /// The number of the newest retry. It never goes back while streams are open, though letters are settled.
    last_retry: u64,
    retries: watch::Sender<u64>,
    /// Numbers are not given out twice, also when the newest is gone.
    next_id: u64,
}

/// The new letter's id and how many others went to make room; or why it has none.
type Buried = std::result::Result<(String, u64), StoreError>;

pub enum Answer {
    List(Vec<DeadLetter>),
    Count(u64),
    Was(bool),
    Buried(Buried),
    Next(Option<(u64, DeadLetter)>),
}

const COLUMNS: &str = "id, source, entry, time, reason, text, fields, retried";
const SIZE: &str = "LENGTH(fields) + LENGTH(CAST(text AS BLOB))";

impl<'c> DeadTable<'c> {
    pub fn open(connection: &'c Connection, capacity: usize, retries: watch::Sender<u64>) -> Result<DeadTable<'c>> {
        let sql = "SELECT COALESCE(MAX(retried), 0) FROM dead";
        let last_retry = connection.query_row(sql, [], |row| unsigned(row, 0))?;
        let sql = "SELECT COALESCE(MAX(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'dead'";
        let next_id = connection.query_row(sql, [], |row| unsigned(row, 0))?;
        let capacity = capacity.max(1);
        let mut table = DeadTable { connection, capacity, count: 0, bytes: 0, last_retry, retries, next_id };
        table.measure()?;
        Ok(table)
    }

    /// Does what a call asks, within a transaction. What it answers may be told once that is committed.
    pub fn apply(&mut self, call: &DeadCall) -> Result<Answer> {
        Ok(match *call {
            DeadCall::List { after, limit, .. } => Answer::List(self.list(after, limit)?),
            DeadCall::Count { .. } => Answer::Count(self.count()?),
            DeadCall::Retry { letter, .. } => Answer::Was(self.retry(letter)?),
            DeadCall::Drop { letter, .. } => Answer::Was(self.delete("retried IS NULL", letter)?),
            DeadCall::Bury { ref letter, .. } => Answer::Buried(self.bury(letter)?),
            DeadCall::NextRetried { after, .. } => Answer::Next(self.next_retried(after)?),
            DeadCall::Settle { letter, .. } => Answer::Was(self.delete("retried IS NOT NULL", letter)?),
        })
    }

    /// Tells the streams of retried letters what a commit has made true.
    pub fn committed(&self) {
        self.retries.send_if_modified(|told| std::mem::replace(told, self.last_retry) != self.last_retry);
    }

    /// Learns anew what is there: a transaction was undone.
    pub fn undone(&mut self) -> Result<()> {
        self.measure()
    }

    fn list(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>> {
        let sql = format!("SELECT {COLUMNS} FROM dead WHERE id > ?1 AND retried IS NULL ORDER BY id LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement.query_map([int(after), id(limit)], letter_of)?.collect()
    }

    fn count(&self) -> Result<u64> {
        self.connection.query_row("SELECT COUNT(*) FROM dead WHERE retried IS NULL", [], |row| unsigned(row, 0))
    }

    fn retry(&mut self, letter: u64) -> Result<bool> {
        let sql = "UPDATE dead SET retried = ?2, crc = crc(id, source, entry, time, reason, text, fields, ?2)
                   WHERE id = ?1 AND retried IS NULL";
        let number = self.last_retry + 1;
        let is_there = self.connection.execute(sql, [int(letter), int(number)])? == 1;
        if is_there {
            self.last_retry = number;
        }
        Ok(is_there)
    }

    fn next_retried(&self, after: u64) -> Result<Option<(u64, DeadLetter)>> {
        let sql = format!("SELECT {COLUMNS} FROM dead WHERE retried > ?1 ORDER BY retried LIMIT 1");
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement.query_row([int(after)], |row| Ok((unsigned(row, 7)?, letter_of(row)?))).optional()
    }

    fn delete(&mut self, state: &str, letter: u64) -> Result<bool> {
        let sql = format!("DELETE FROM dead WHERE id = ?1 AND {state} RETURNING {SIZE}");
        let size = self.connection.query_row(&sql, [int(letter)], |row| unsigned(row, 0)).optional()?;
        if let Some(size) = size {
            self.bytes -= size;
            self.count -= 1;
        }
        Ok(size.is_some())
    }

    fn bury(&mut self, letter: &DeadLetter) -> Result<Buried> {
        let fields = packed(&letter.fields);
        let size = (fields.len() + letter.text.len()) as u64;
        if let Err(full) = self.has_room(size)? {
            return Ok(Err(full));
        }
        let mut gone = 0;
        while self.count + 1 > self.capacity || self.bytes + size > MAX_BYTES {
            let sql = "SELECT MIN(id) FROM dead WHERE retried IS NULL";
            let Some(oldest) = self.connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))? else { break };
            self.delete("retried IS NULL", oldest as u64)?;
            gone += 1;
        }
        let DeadLetter { source, entry, time, reason, text, .. } = letter;
        let row = self.next_id;
        let sql = "INSERT INTO dead VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, crc(?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL))";
        let values = params![int(row), source, entry, int(*time), reason.as_str(), text, fields];
        self.connection.prepare_cached(sql)?.execute(values)?;
        self.next_id += 1;
        self.count += 1;
        self.bytes += size;
        Ok(Ok((row.to_string(), gone)))
    }

    /// Whether one of this size would fit if all went that may go: none that its source may be reading.
    fn has_room(&self, size: u64) -> Result<std::result::Result<(), StoreError>> {
        if self.count < self.capacity && self.bytes + size <= MAX_BYTES {
            return Ok(Ok(()));
        }
        let sql = format!("SELECT COUNT(*), COALESCE(SUM({SIZE}), 0) FROM dead WHERE retried IS NOT NULL");
        let (count, bytes) = self.connection.query_row(&sql, [], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))?;
        let fits = (count as usize) < self.capacity && bytes + size <= MAX_BYTES;
        let full = || StoreError::Full("the dead letters that were retried leave no room for more".into());
        Ok(fits.then_some(()).ok_or_else(full))
    }

    fn measure(&mut self) -> Result<()> {
        let sql = format!("SELECT COUNT(*), COALESCE(SUM({SIZE}), 0) FROM dead");
        let (count, bytes) = self.connection.query_row(&sql, [], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))?;
        (self.count, self.bytes) = (count as usize, bytes);
        Ok(())
    }
}

impl DeadCall {
    /// Tells what was asked for. Nobody waits any more where a reply cannot be sent.
    pub fn deliver(self, answer: Answer) {
        match (self, answer) {
            (DeadCall::List { reply, .. }, Answer::List(letters)) => drop(reply.send(Ok(letters))),
            (DeadCall::Count { reply }, Answer::Count(count)) => drop(reply.send(Ok(count))),
            (DeadCall::NextRetried { reply, .. }, Answer::Next(next)) => drop(reply.send(Ok(next))),
            (DeadCall::Bury { reply, .. }, Answer::Buried(buried)) => drop(reply.send(buried.map(|(row, gone)| {
                metrics::counter!(telemetry::DEAD_DISPLACED).increment(gone);
                row
            }))),
            (
                DeadCall::Retry { reply, .. } | DeadCall::Drop { reply, .. } | DeadCall::Settle { reply, .. },
                Answer::Was(was),
            ) => drop(reply.send(Ok(was))),
            _ => unreachable!("each call has its own answer"),
        }
    }

    /// Whether it makes the store larger.
    pub fn stores(&self) -> bool {
        matches!(self, DeadCall::Bury { .. })
    }

    pub fn refuse(self, error: StoreError) {
        match self {
            DeadCall::List { reply, .. } => drop(reply.send(Err(error))),
            DeadCall::Count { reply } => drop(reply.send(Err(error))),
            DeadCall::Retry { reply, .. } | DeadCall::Drop { reply, .. } | DeadCall::Settle { reply, .. } => {
                drop(reply.send(Err(error)));
            }
            DeadCall::Bury { reply, .. } => drop(reply.send(Err(error))),
            DeadCall::NextRetried { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    pub fn size(&self) -> usize {
        match self {
            DeadCall::Bury { letter, .. } => letter.fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
            _ => 0,
        }
    }
}

fn letter_of(row: &Row) -> Result<DeadLetter> {
    let reason: String = row.get(4)?;
    Ok(DeadLetter {
        id: row.get::<_, i64>(0)?.to_string(),
        source: row.get(1)?,
        entry: row.get(2)?,
        time: unsigned(row, 3)?,
        // A word of a later version.
        reason: Reason::parse(&reason).unwrap_or(Reason::Internal),
        text: row.get(5)?,
        fields: unpacked(row.get_ref(6)?.as_blob()?),
    })
}

/// Names and values one after the other, each behind its length.
fn packed(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in fields.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend((part.len() as u32).to_le_bytes());
        bytes.extend(part);
    }
    bytes
}

fn unpacked(mut bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(part.to_vec())
    };
    std::iter::from_fn(|| Some((part()?, part()?))).collect()
}

//! The table of dead letters: what its calls do, in the store's thread.

use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use tokio::sync::{oneshot, watch};

use super::tables::{id, int, unsigned};
use super::writer::error_of;
use crate::domain::dead::DeadLetter;
use crate::domain::error::Reason;
use crate::domain::store::StoreError;
use crate::telemetry;

/// Bytes of all letters together; the oldest go beyond it.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

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
}

const COLUMNS: &str = "id, source, entry, time, reason, text, fields, retried";
const SIZE: &str = "LENGTH(fields) + LENGTH(CAST(text AS BLOB))";

impl<'c> DeadTable<'c> {
    pub fn open(connection: &'c Connection, capacity: usize, retries: watch::Sender<u64>) -> Result<DeadTable<'c>> {
        let sql = "SELECT COALESCE(MAX(retried), 0) FROM dead";
        let last_retry = connection.query_row(sql, [], |row| unsigned(row, 0))?;
        let mut table = DeadTable { connection, capacity: capacity.max(1), count: 0, bytes: 0, last_retry, retries };
        table.measure()?;
        Ok(table)
    }

    pub fn answer(&mut self, call: DeadCall) {
        // Nobody waits any more where a reply cannot be sent.
        match call {
            DeadCall::List { after, limit, reply } => drop(reply.send(told(self.list(after, limit)))),
            DeadCall::Count { reply } => drop(reply.send(told(self.count()))),
            DeadCall::Retry { letter, reply } => drop(reply.send(told(self.retry(letter)))),
            DeadCall::Drop { letter, reply } => drop(reply.send(told(self.delete("retried IS NULL", letter)))),
            DeadCall::Bury { letter, reply } => drop(reply.send(self.bury(&letter))),
            DeadCall::NextRetried { after, reply } => drop(reply.send(told(self.next_retried(after)))),
            DeadCall::Settle { letter, reply } => drop(reply.send(told(self.delete("retried IS NOT NULL", letter)))),
        }
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
        let sql = "UPDATE dead SET retried = ?2 WHERE id = ?1 AND retried IS NULL";
        let number = self.last_retry + 1;
        let is_there = self.connection.execute(sql, [int(letter), int(number)])? == 1;
        if is_there {
            self.last_retry = number;
            self.retries.send_replace(number);
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

    fn bury(&mut self, letter: &DeadLetter) -> Result<String, StoreError> {
        let transaction = self.connection.unchecked_transaction().map_err(|e| error_of(&e))?;
        let row = self.insert(letter).map_err(|e| error_of(&e));
        let done = row.and_then(|row| self.make_room(row).map(|gone| (row, gone)));
        let done = done.and_then(|done| transaction.commit().map(|()| done).map_err(|e| error_of(&e)));
        match done {
            Ok((row, gone)) => {
                metrics::counter!(telemetry::DEAD_DISPLACED).increment(gone);
                Ok(row.to_string())
            }
            Err(error) => {
                // The transaction is undone by now.
                self.measure().map_err(|e| error_of(&e))?;
                Err(error)
            }
        }
    }

    fn insert(&mut self, letter: &DeadLetter) -> Result<i64> {
        let DeadLetter { source, entry, time, reason, text, fields, .. } = letter;
        let sql = format!(
            "INSERT INTO dead (source, entry, time, reason, text, fields) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             RETURNING id, {SIZE}"
        );
        let values = params![source, entry, int(*time), reason.as_str(), text, packed(fields)];
        let (row, size) = self.connection.query_row(&sql, values, |row| Ok((row.get(0)?, unsigned(row, 1)?)))?;
        self.count += 1;
        self.bytes += size;
        Ok(row)
    }

    /// Removes the oldest while there are too many: not the new one, and none that its source may be reading.
    fn make_room(&mut self, new: i64) -> Result<u64, StoreError> {
        let mut gone = 0;
        while self.count > self.capacity || self.bytes > MAX_BYTES {
            let sql = "SELECT MIN(id) FROM dead WHERE retried IS NULL AND id < ?1";
            let oldest: Option<i64> =
                self.connection.query_row(sql, [new], |row| row.get(0)).map_err(|e| error_of(&e))?;
            let Some(oldest) = oldest else {
                return Err(StoreError::Full("the dead letters that were retried leave no room for more".into()));
            };
            self.delete("retried IS NULL", oldest as u64).map_err(|e| error_of(&e))?;
            gone += 1;
        }
        Ok(gone)
    }

    fn measure(&mut self) -> Result<()> {
        let sql = format!("SELECT COUNT(*), COALESCE(SUM({SIZE}), 0) FROM dead");
        let (count, bytes) = self.connection.query_row(&sql, [], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))?;
        (self.count, self.bytes) = (count as usize, bytes);
        Ok(())
    }
}

impl DeadCall {
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

fn told<T>(result: Result<T>) -> Result<T, StoreError> {
    result.map_err(|e| error_of(&e))
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

//! The SQL of topics and messages: one prepared statement for each thing that the log does with its rows. Knows
//! nothing of retention, pages or order.

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Result, Row, Statement, ffi, params};

use super::disk::Guard;
use super::sum::{self, Sum};
use crate::domain::position::Epoch;
use crate::domain::store::Fence;
use crate::domain::topic::Mode;

pub const SCHEMA: &str = include_str!("schema.sql");

/// Opens the in-memory form and makes its tables. A rollback needs the journal, so it is not turned off.
pub fn open_in_memory() -> Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA temp_store = MEMORY;")?;
    sum::register(&connection, false)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

pub struct Tables<'c> {
    pub connection: &'c Connection,
    /// What makes damage seen; there is none in memory.
    pub guard: Option<Guard>,
    /// Keys are numbered in the order in which they are written.
    next_key: i64,
    begin: Statement<'c>,
    commit: Statement<'c>,
    insert_message: Statement<'c>,
    delete_message: Statement<'c>,
    body: Statement<'c>,
    oldest: Statement<'c>,
    insert_topic: Statement<'c>,
    insert_life: Statement<'c>,
    set_head: Statement<'c>,
    set_mode: Statement<'c>,
    set_fence: Statement<'c>,
    find_key: Statement<'c>,
    insert_key: Statement<'c>,
    delete_keys: Statement<'c>,
    delete_topic: [Statement<'c>; 3],
    delete_topic_keys: Statement<'c>,
}

/// A message as its row holds it.
pub struct MessageRow<'a> {
    pub seq: u64,
    pub topic: usize,
    pub offset: u64,
    pub time: u64,
    pub expires: u64,
    pub key: Option<&'a str>,
    pub body: &'a [u8],
}

impl MessageRow<'_> {
    fn crc(&self) -> i64 {
        let &MessageRow { seq, topic, offset, time, expires, key, body } = self;
        let numbers = [int(seq), id(topic), int(offset), int(time), int(expires)];
        let mut sum = Sum::default();
        numbers.into_iter().for_each(|number| sum.add(ValueRef::Integer(number)));
        sum.add(key.map_or(ValueRef::Null, |key| ValueRef::Text(key.as_bytes())));
        sum.add(ValueRef::Blob(body));
        sum.finish()
    }
}

/// What an idempotency key stands for.
pub struct KnownKey {
    pub digest: Vec<u8>,
    pub epoch: String,
    pub offset: u64,
    pub expires: u64,
    /// `false`: its row is not what was written.
    pub is_whole: bool,
}

impl<'c> Tables<'c> {
    pub fn prepare(connection: &'c Connection, guard: Option<Guard>) -> Result<Tables<'c>> {
        let sql = |text| connection.prepare(text);
        Ok(Tables {
            connection,
            guard,
            next_key: connection.query_row("SELECT COALESCE(MAX(id), 0) + 1 FROM idempotency", [], |row| row.get(0))?,
            begin: sql("BEGIN IMMEDIATE")?,
            commit: sql("COMMIT")?,
            insert_message: sql("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?,
            delete_message: sql("DELETE FROM messages WHERE seq = ?1")?,
            body: sql("SELECT topic_id, offset, time, expires, key, body, crc FROM messages WHERE seq = ?1")?,
            oldest: sql("SELECT topic_id, offset FROM messages ORDER BY seq LIMIT 1")?,
            insert_topic: sql("INSERT INTO topics VALUES (?1, ?2, 0, ?3, ?4, 0, crc(?1, ?2, 0, ?3, ?4, 0))")?,
            insert_life: sql("INSERT INTO lives VALUES (?1, ?2, ?3, ?4, crc(?1, ?2, ?3, ?4))")?,
            set_head: sql(
                "UPDATE topics SET head = ?2, touched = ?3, floor = ?4, crc = crc(id, name, ?2, ?3, mode, ?4)
                           WHERE id = ?1",
            )?,
            set_mode: sql("UPDATE topics SET mode = ?2, crc = crc(id, name, head, touched, ?2, floor) WHERE id = ?1")?,
            set_fence: sql("INSERT OR REPLACE INTO fences VALUES (?1, ?2, ?3, ?4, ?5, crc(?1, ?2, ?3, ?4, ?5))")?,
            find_key: sql("SELECT digest, epoch, offset, expires,
                               crc = crc(id, topic_id, key, digest, epoch, offset, expires)
                           FROM idempotency WHERE topic_id = ?1 AND key = ?2")?,
            insert_key: sql("INSERT OR REPLACE INTO idempotency
                             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, crc(?1, ?2, ?3, ?4, ?5, ?6, ?7))")?,
            // Keys are written in the order in which they expire.
            delete_keys: sql("DELETE FROM idempotency WHERE expires <= ?1
                              AND id IN (SELECT id FROM idempotency ORDER BY id LIMIT ?2)")?,
            delete_topic: [
                sql("DELETE FROM topics WHERE id = ?1")?,
                sql("DELETE FROM lives WHERE topic_id = ?1")?,
                sql("DELETE FROM fences WHERE topic_id = ?1")?,
            ],
            delete_topic_keys: sql("DELETE FROM idempotency WHERE topic_id = ?1")?,
        })
    }

    pub fn begin(&mut self) -> Result<()> {
        self.begin.execute([]).map(drop)
    }

    /// Commits what was done since `begin`. In a file: it is synced when this returns.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        if let Some(guard) = &mut self.guard {
            guard.seal(self.connection).map_err(CommitError::Undone)?;
        }
        self.commit.execute([]).map_err(CommitError::of)?;
        if let Some(guard) = &mut self.guard {
            guard.committed();
        }
        Ok(())
    }

    /// Undoes what was done since `begin`. Some failures have undone it already.
    pub fn roll_back(&mut self) -> Result<()> {
        if let Some(guard) = &mut self.guard {
            guard.undone();
        }
        if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("ROLLBACK") }
    }

    pub fn insert_message(&mut self, row: &MessageRow) -> Result<()> {
        let crc = if self.guard.is_some() { row.crc() } else { 0 };
        let MessageRow { seq, topic, offset, time, expires, key, body } = *row;
        let values = params![int(seq), id(topic), int(offset), int(time), int(expires), key, body, crc];
        self.insert_message.execute(values).map(drop)
    }

    pub fn delete_message(&mut self, seq: u64) -> Result<()> {
        self.delete_message.execute([int(seq)]).map(drop)
    }

    /// The body of a message; `None` if its row is not what was written.
    pub fn body(&mut self, seq: u64) -> Result<Option<Bytes>> {
        let is_guarded = self.guard.is_some();
        self.body.query_row([int(seq)], |row| {
            let (topic, offset, time, expires) =
                (topic_id(row, 0)?, unsigned(row, 1)?, unsigned(row, 2)?, unsigned(row, 3)?);
            let (key, body) = (row.get_ref(4)?.as_str_or_null()?, row.get_ref(5)?.as_blob()?);
            let written = MessageRow { seq, topic, offset, time, expires, key, body };
            let crc: i64 = row.get(6)?;
            Ok((!is_guarded || written.crc() == crc).then(|| Bytes::copy_from_slice(body)))
        })
    }

    /// The topic and the offset of the oldest message of all.
    pub fn oldest(&mut self) -> Result<Option<(usize, u64)>> {
        self.oldest.query_row([], |row| Ok((topic_id(row, 0)?, unsigned(row, 1)?))).optional()
    }

    pub fn insert_topic(&mut self, topic: usize, name: &str, mode: Mode, epoch: Epoch, touched: u64) -> Result<()> {
        self.insert_topic.execute(params![id(topic), name, int(touched), mode.as_str()])?;
        self.insert_life.execute(params![id(topic), 0, epoch.to_string(), 0]).map(drop)
    }

    pub fn set_head(&mut self, topic: usize, head: u64, touched: u64, floor: u64) -> Result<()> {
        self.set_head.execute([id(topic), int(head), int(touched), int(floor)]).map(drop)
    }

    pub fn set_mode(&mut self, topic: usize, mode: Mode) -> Result<()> {
        self.set_mode.execute(params![id(topic), mode.as_str()]).map(drop)
    }

    pub fn set_fence(&mut self, topic: usize, fence: &Fence) -> Result<()> {
        let Fence { source, life, id: entry, .. } = fence;
        self.set_fence.execute(params![id(topic), source, life, int(entry.ms), int(entry.seq)]).map(drop)
    }

    pub fn find_key(&mut self, topic: usize, key: &str) -> Result<Option<KnownKey>> {
        self.find_key
            .query_row(params![id(topic), key], |row| {
                Ok(KnownKey {
                    digest: row.get(0)?,
                    epoch: row.get(1)?,
                    offset: unsigned(row, 2)?,
                    expires: unsigned(row, 3)?,
                    is_whole: row.get(4)?,
                })
            })
            .optional()
    }

    pub fn insert_key(&mut self, topic: usize, key: &str, known: &KnownKey) -> Result<()> {
        let KnownKey { digest, epoch, offset, expires, .. } = known;
        let values = params![self.next_key, id(topic), key, digest, epoch, int(*offset), int(*expires)];
        self.insert_key.execute(values)?;
        self.next_key += 1;
        Ok(())
    }

    /// Deletes keys that are over, looking at so many of the oldest; answers how many it deleted.
    pub fn delete_keys(&mut self, now: u64, most: usize) -> Result<usize> {
        self.delete_keys.execute([int(now), id(most)])
    }

    /// Deletes the record of a topic, not its messages; answers how many keys went with it.
    pub fn delete_topic(&mut self, topic: usize) -> Result<usize> {
        for statement in &mut self.delete_topic {
            statement.execute([id(topic)])?;
        }
        self.delete_topic_keys.execute([id(topic)])
    }
}

/// Why a commit did not end well.
#[derive(Debug)]
pub enum CommitError {
    /// Nothing of it is stored.
    Undone(rusqlite::Error),
    /// It may be found stored at the next opening: all was written, and then the sync failed.
    Unknown(rusqlite::Error),
}

impl CommitError {
    /// Only what fails before the last page is written leaves nothing behind.
    fn of(error: rusqlite::Error) -> CommitError {
        let code = error.sqlite_error().map_or(0, |e| e.extended_code);
        match code {
            ffi::SQLITE_FULL | ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_NOMEM | ffi::SQLITE_BUSY => {
                CommitError::Undone(error)
            }
            _ => CommitError::Unknown(error),
        }
    }
}

impl From<CommitError> for rusqlite::Error {
    fn from(error: CommitError) -> rusqlite::Error {
        let (CommitError::Undone(error) | CommitError::Unknown(error)) = error;
        error
    }
}

/// SQLite's integers are signed; nothing we count comes near their end, save times that mean "never".
pub fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub fn id(number: usize) -> i64 {
    int(number as u64)
}

pub fn unsigned(row: &Row, column: usize) -> Result<u64> {
    row.get::<_, i64>(column).map(|n| u64::try_from(n).unwrap_or(0))
}

pub fn topic_id(row: &Row, column: usize) -> Result<usize> {
    unsigned(row, column).map(|n| n as usize)
}

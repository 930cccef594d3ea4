//! The SQL of topics and messages: one prepared statement for each thing that the log does with its rows. Knows
//! nothing of retention, pages or order.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Result, Row, Statement, params};

use crate::domain::position::Epoch;
use crate::domain::store::Fence;
use crate::domain::topic::Mode;

const SCHEMA: &str = include_str!("schema.sql");

/// Opens the in-memory form and makes its tables. A rollback needs the journal, so it is not turned off.
pub fn open_in_memory() -> Result<Connection> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA temp_store = MEMORY;")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

pub struct Tables<'c> {
    pub connection: &'c Connection,
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

/// What an idempotency key stands for.
pub struct KnownKey {
    pub digest: Vec<u8>,
    pub epoch: String,
    pub offset: u64,
    pub expires: u64,
}

impl<'c> Tables<'c> {
    pub fn prepare(connection: &'c Connection) -> Result<Tables<'c>> {
        let sql = |text| connection.prepare(text);
        Ok(Tables {
            connection,
            begin: sql("BEGIN IMMEDIATE")?,
            commit: sql("COMMIT")?,
            insert_message: sql("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?,
            delete_message: sql("DELETE FROM messages WHERE seq = ?1")?,
            body: sql("SELECT body FROM messages WHERE seq = ?1")?,
            oldest: sql("SELECT topic_id, offset FROM messages ORDER BY seq LIMIT 1")?,
            insert_topic: sql("INSERT INTO topics VALUES (?1, ?2, 0, ?3, ?4, 0)")?,
            insert_life: sql("INSERT INTO lives VALUES (?1, ?2, ?3, ?4)")?,
            set_head: sql("UPDATE topics SET head = ?2, touched = ?3, floor = ?4 WHERE id = ?1")?,
            set_mode: sql("UPDATE topics SET mode = ?2 WHERE id = ?1")?,
            set_fence: sql("INSERT OR REPLACE INTO fences VALUES (?1, ?2, ?3, ?4, ?5)")?,
            find_key: sql("SELECT digest, epoch, offset, expires FROM idempotency WHERE topic_id = ?1 AND key = ?2")?,
            insert_key: sql("INSERT OR REPLACE INTO idempotency (topic_id, key, digest, epoch, offset, expires)
                             VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?,
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

    pub fn commit(&mut self) -> Result<()> {
        self.commit.execute([]).map(drop)
    }

    /// Undoes what was done since `begin`. Some failures have undone it already.
    pub fn roll_back(&mut self) -> Result<()> {
        if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("ROLLBACK") }
    }

    pub fn insert_message(&mut self, row: &MessageRow) -> Result<()> {
        let MessageRow { seq, topic, offset, time, expires, key, body } = *row;
        self.insert_message
            .execute(params![int(seq), id(topic), int(offset), int(time), int(expires), key, body])
            .map(drop)
    }

    pub fn delete_message(&mut self, seq: u64) -> Result<()> {
        self.delete_message.execute([int(seq)]).map(drop)
    }

    pub fn body(&mut self, seq: u64) -> Result<Bytes> {
        self.body.query_row([int(seq)], |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)))
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
        let Fence { source, life, id: entry } = fence;
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
                })
            })
            .optional()
    }

    pub fn insert_key(&mut self, topic: usize, key: &str, known: &KnownKey) -> Result<()> {
        let KnownKey { digest, epoch, offset, expires } = known;
        self.insert_key.execute(params![id(topic), key, digest, epoch, int(*offset), int(*expires)]).map(drop)
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

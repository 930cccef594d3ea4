//! The database file: how it is made, opened and known again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Result, params};

use super::tally;
use crate::store::embedded::sum::{self, Sum};
use crate::store::embedded::tables::SCHEMA;

/// The format of this version. A file of a lower one is brought up to it, one of a higher one is refused.
/// 1: without sums and tallies. 2: with them. 3: with queues.
pub const VERSION: u32 = 3;
/// Marks the file as ours: "FANF".
const APPLICATION: u32 = 0x4641_4e46;
/// What is kept of the file in memory.
const CACHE_KIB: u32 = 64 * 1024;

/// What stands at the beginning of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub is_ours: bool,
    pub version: u32,
}

/// What every file begins with that SQLite has made.
const BEGINNING: &[u8; 16] = b"SQLite format 3\0";
/// Where the format and the mark stand.
const VERSION_AT: usize = 60;
const APPLICATION_AT: usize = 68;

/// Reads the beginning of a file without SQLite, which would change what stands beside it.
pub fn header(path: &Path) -> io::Result<Header> {
    let mut bytes = [0; 100];
    File::open(path)?.read_exact_at(&mut bytes, 0)?;
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let is_ours = bytes.starts_with(BEGINNING) && word(APPLICATION_AT) == APPLICATION;
    Ok(Header { is_ours, version: word(VERSION_AT) })
}

/// Writes what `header` reads as it must have been. What else is wrong with the file shows later.
pub fn mend_header(path: &Path, version: u32) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(BEGINNING, 0)?;
    file.write_all_at(&version.to_be_bytes(), VERSION_AT as u64)?;
    file.write_all_at(&APPLICATION.to_be_bytes(), APPLICATION_AT as u64)?;
    file.sync_all()
}

/// Opens a file to be read and written. What is committed is synced; the log is carried over by `checkpoint` and, when it
/// is closed, by nobody: whoever opens it next looks at it first.
pub fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
         PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{CACHE_KIB}; PRAGMA cell_size_check = ON;"
    ))?;
    sum::register(&connection, true)?;
    Ok(connection)
}

/// Makes a whole file: the tables, what `fill` puts into them, and the tallies of that. Synced when this returns.
pub fn make<E: From<rusqlite::Error> + From<io::Error>>(
    path: &Path,
    life: u64,
    commits: u64,
    fill: impl FnOnce(&Connection) -> Result<(), E>,
) -> Result<(), E> {
    let connection = Connection::open(path)?;
    sum::register(&connection, true)?;
    connection.execute_batch(&format!(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;
         PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; {SCHEMA}"
    ))?;
    name(&connection, life)?;
    fill(&connection)?;
    count(&connection, commits)?;
    // The mark of WAL mode is in the file; its log is empty.
    connection.execute_batch("COMMIT; PRAGMA journal_mode = WAL")?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(File::open(path)?.sync_all()?)
}

/// Writes which store this is.
fn name(connection: &Connection, life: u64) -> Result<()> {
    let sql = "INSERT INTO store VALUES (1, ?1, ?2, ?3, unixepoch() * 1000, 0)";
    connection.execute(sql, params![life.to_string(), VERSION, tables_sum(connection)?])?;
    connection.execute("UPDATE store SET crc = crc(id, life, version, tables, created)", []).map(drop)
}

/// Writes the tallies of what is there.
pub fn count(connection: &Connection, commits: u64) -> Result<()> {
    for name in tally::guarded_tables(connection)? {
        let sql = format!("SELECT COUNT(*), COALESCE(SUM(crc), 0) FROM {name}");
        let (rows, sum) = connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        tally::write(connection, &tally::Tally { name, rows, sum })?;
    }
    tally::write(connection, &tally::Tally { name: tally::COMMITS.into(), rows: commits as i64, sum: 0 })
}

/// The sum over the text of all tables and indexes.
pub fn tables_sum(connection: &Connection) -> Result<i64> {
    let sql = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY type, name";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut sum = Sum::default();
    while let Some(row) = rows.next()? {
        for column in 0..4 {
            sum.add(row.get_ref(column)?);
        }
    }
    Ok(sum.finish())
}

/// Makes the names in a folder lasting.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

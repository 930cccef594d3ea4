//! Judges a database before anything is read from it for use: SQLite's own structure, the sum of every row, the tally
//! of every table, the number of the newest commit. Reads all of it, once.

use rusqlite::{Connection, Result, Row};

use super::counter::Count;
use super::file::tables_sum;
use super::tally::{COMMITS, TABLE, Tally, guarded_tables, read};
use crate::store::embedded::sum::Sum;

/// A database that is whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Whole {
    pub life: u64,
    pub commits: u64,
    pub topics: u64,
    pub messages: u64,
}

/// What is wrong, one line each. A file that is whole has nothing wrong.
pub type Faults = Vec<String>;

/// Checks a database of this version. `count` is what its counter says.
pub fn check(connection: &Connection, count: Option<Count>) -> std::result::Result<Whole, Faults> {
    let mut faults = Vec::new();
    let mut note = |part: &str, result: Result<Option<String>>| match result {
        Ok(None) => {}
        Ok(Some(fault)) => faults.push(format!("{part}: {fault}")),
        Err(error) => faults.push(format!("{part}: {error}")),
    };
    let whole = identity(connection);
    note("store", whole.as_ref().map(|_| None).map_err(|_| rusqlite::Error::InvalidQuery));
    note("structure", structure(connection));
    let tables = guarded_tables(connection).unwrap_or_default();
    for table in tables.iter().map(String::as_str).chain([TABLE]) {
        note(table, rows(connection, table));
    }
    let Ok(whole) = whole else { return Err(faults) };
    if let Some(count) = count {
        if count.life != whole.life {
            faults.push("the counter of commits belongs to another store".into());
        } else if count.commits > whole.commits {
            let lost = count.commits - whole.commits;
            faults.push(format!("the last {lost} of {} commits are gone", count.commits));
        }
    }
    if faults.is_empty() { Ok(whole) } else { Err(faults) }
}

/// Which store it is and what it holds, by its own account.
fn identity(connection: &Connection) -> Result<Whole> {
    let sql = "SELECT life, tables, crc = crc(id, life, version, tables, created),
                      version = (SELECT user_version FROM pragma_user_version) FROM store";
    let (life, tables) = connection.query_row(sql, [], |row: &Row| {
        let is_whole = row.get::<_, bool>(2)? && row.get::<_, bool>(3)?;
        let life = row.get::<_, String>(0)?.parse::<u64>().ok().filter(|_| is_whole);
        Ok((life.ok_or(rusqlite::Error::InvalidQuery)?, row.get::<_, i64>(1)?))
    })?;
    if tables != tables_sum(connection)? {
        return Err(rusqlite::Error::InvalidQuery);
    }
    let rows = |name| read(connection, name).map(|tally| tally.rows as u64);
    Ok(Whole { life, commits: rows(COMMITS)?, topics: rows("topics")?, messages: rows("messages")? })
}

fn structure(connection: &Connection) -> Result<Option<String>> {
    let told: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok((told != "ok").then(|| told.replace('\n', " ")))
}

/// Adds up a table; compares it with its tally.
fn rows(connection: &Connection, table: &str) -> Result<Option<String>> {
    let mut statement = connection.prepare(&format!("SELECT * FROM main.{table} NOT INDEXED"))?;
    let sums = statement.column_count() - 1;
    let mut rows = statement.query([])?;
    let (mut found, mut damaged) = (Tally { name: table.to_owned(), ..Tally::default() }, 0u64);
    while let Some(row) = rows.next()? {
        let sum = row_sum(row, sums)?;
        found.rows += 1;
        found.sum = found.sum.wrapping_add(sum);
        damaged += u64::from(row.get_ref(sums)?.as_i64().ok() != Some(sum));
    }
    let expected = if table == TABLE { found.clone() } else { read(connection, table)? };
    let missing = expected.rows - found.rows;
    Ok(match (damaged, missing) {
        (0, 0) if found.sum == expected.sum => None,
        (0, 0) => Some("rows are not those that were written".into()),
        (0, 1..) => Some(format!("{missing} of {} rows are gone", expected.rows)),
        (0, _) => Some(format!("{} rows too many", -missing)),
        _ => Some(format!("{damaged} of {} rows are damaged", expected.rows)),
    })
}

/// The sum over the first columns of a row.
pub fn row_sum(row: &Row, columns: usize) -> Result<i64> {
    let mut sum = Sum::default();
    for column in 0..columns {
        sum.add(row.get_ref(column)?);
    }
    Ok(sum.finish())
}

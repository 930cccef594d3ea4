//! Counts rows and adds up their sums, table by table, as they are written and deleted. What a damaged page leaves out,
//! the sum of one row cannot tell; the tally of its table can. It is done by temporary triggers, so that every table
//! with a `crc` is counted whoever writes to it.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Result, params};

use crate::store::embedded::sum;

/// The table of the tallies themselves, and the row in it that counts commits.
pub const TABLE: &str = "tallies";
pub const COMMITS: &str = "commits";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub name: String,
    pub rows: i64,
    /// Of the rows' sums; it wraps.
    pub sum: i64,
}

/// What the tables hold, changes that are not committed yet among it.
#[derive(Clone, Default)]
pub struct Tallies(Arc<Mutex<Vec<Slot>>>);

struct Slot {
    now: Tally,
    committed: Tally,
}

impl Tallies {
    /// Begins to count, from what was counted before.
    pub fn watch(connection: &Connection) -> Result<Tallies> {
        let tallies = Tallies::default();
        for (i, name) in guarded_tables(connection)?.into_iter().enumerate() {
            let known = read(connection, &name)?;
            tallies.lock().push(Slot { now: known.clone(), committed: known });
            for (when, rows, sum) in
                [("INSERT", 1, "NEW.crc"), ("DELETE", -1, "-OLD.crc"), ("UPDATE", 0, "NEW.crc - OLD.crc")]
            {
                connection.execute_batch(&format!(
                    "CREATE TEMP TRIGGER tally_{name}_{when} AFTER {when} ON main.{name}
                     BEGIN SELECT tally({i}, {rows}, {sum}); END"
                ))?;
            }
        }
        let own = tallies.clone();
        // What REPLACE deletes counts too.
        connection.execute_batch("PRAGMA recursive_triggers = ON")?;
        connection.create_scalar_function("tally", 3, FunctionFlags::SQLITE_UTF8, move |values| {
            let (table, rows, sum) = (values.get::<i64>(0)? as usize, values.get::<i64>(1)?, values.get::<i64>(2)?);
            let mut slots = own.lock();
            let now = &mut slots[table].now;
            now.rows += rows;
            now.sum = now.sum.wrapping_add(sum);
            Ok(0)
        })?;
        Ok(tallies)
    }

    /// The tables that have changed since the last commit.
    pub fn changed(&self) -> Vec<Tally> {
        self.lock().iter().filter(|slot| slot.now != slot.committed).map(|slot| slot.now.clone()).collect()
    }

    pub fn committed(&self) {
        self.lock().iter_mut().for_each(|slot| slot.committed.clone_from(&slot.now));
    }

    pub fn undone(&self) {
        self.lock().iter_mut().for_each(|slot| slot.now.clone_from(&slot.committed));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tables whose rows have a sum, apart from the tallies.
pub fn guarded_tables(connection: &Connection) -> Result<Vec<String>> {
    let sql = "SELECT m.name FROM main.sqlite_schema m JOIN pragma_table_info(m.name) c
               WHERE m.type = 'table' AND c.name = ?1 AND m.name != ?2 ORDER BY m.name";
    connection.prepare(sql)?.query_map([sum::COLUMN, TABLE], |row| row.get(0))?.collect()
}

/// A tally as it was written; nothing if none was.
pub fn read(connection: &Connection, name: &str) -> Result<Tally> {
    let sql = "SELECT name, rows, sum FROM main.tallies WHERE name = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([name])?;
    match rows.next()? {
        Some(row) => Ok(Tally { name: row.get(0)?, rows: row.get(1)?, sum: row.get(2)? }),
        None => Ok(Tally { name: name.to_owned(), ..Tally::default() }),
    }
}

pub fn write(connection: &Connection, tally: &Tally) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO main.tallies VALUES (?1, ?2, ?3, crc(?1, ?2, ?3))";
    connection.prepare_cached(sql)?.execute(params![tally.name, tally.rows, tally.sum]).map(drop)
}

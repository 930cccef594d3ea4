//! Carries the rows of one database over into a new one: from an older format, or out of a damaged file. And gives
//! every topic and queue a new life where positions that were given out may be missing.

use rusqlite::types::Value;
use rusqlite::{Connection, Result, params, params_from_iter};

use super::check::row_sum;
use super::tally::guarded_tables;
use crate::domain::lives::Lives;
use crate::domain::position::Epoch;
use crate::store::embedded::queues::{read_lives, written_lives};
use crate::store::embedded::sum;
use crate::store::embedded::tables::unsigned;

/// Lives that a topic's record keeps.
const LIVES: i64 = 64;

/// What was carried over, and what was not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub rows: u64,
    /// Rows that were seen and are not what was written, or belong to nothing.
    pub dropped: u64,
}

struct Column {
    name: String,
    default: Option<String>,
    is_key: bool,
}

/// Copies all tables. Columns that the source lacks get their default. With `is_lossy` a table that cannot be read to its
/// end is read from its other end too, and damaged rows are left out; else they are errors.
pub fn copy(source: &Connection, target: &Connection, is_lossy: bool) -> Result<Copied> {
    let mut copied = Copied::default();
    for table in guarded_tables(target)?.into_iter().filter(|table| table != "store") {
        let known = columns(source, &table);
        match known {
            Ok(known) if known.is_empty() => {}
            Ok(known) => copy_table(source, target, &table, &known, is_lossy, &mut copied)?,
            Err(error) if !is_lossy => return Err(error),
            Err(_) => {}
        }
    }
    let sequence = "SELECT seq FROM sqlite_sequence WHERE name = 'dead'";
    if let Ok(last) = source.query_row(sequence, [], |row| row.get::<_, i64>(0)) {
        // Numbers of letters are not given out twice.
        target.execute("INSERT OR IGNORE INTO sqlite_sequence (name, seq) VALUES ('dead', 0)", [])?;
        target.execute("UPDATE sqlite_sequence SET seq = MAX(seq, ?1) WHERE name = 'dead'", [last])?;
    }
    Ok(copied)
}

fn copy_table(
    source: &Connection,
    target: &Connection,
    table: &str,
    known: &[Column],
    is_lossy: bool,
    copied: &mut Copied,
) -> Result<()> {
    let wanted = columns(target, table)?;
    let wanted: Vec<&Column> = wanted.iter().filter(|column| column.name != sum::COLUMN).collect();
    let shared: Vec<&str> =
        known.iter().map(|c| c.name.as_str()).filter(|name| wanted.iter().any(|c| c.name == *name)).collect();
    let is_guarded = known.last().is_some_and(|column| column.name == sum::COLUMN);
    let values: Vec<String> = wanted
        .iter()
        .map(|column| match shared.iter().position(|name| *name == column.name) {
            Some(i) => format!("?{}", i + 1),
            None => column.default.clone().unwrap_or("NULL".into()),
        })
        .collect();
    let names: Vec<&str> = wanted.iter().map(|column| column.name.as_str()).collect();
    let (names, values) = (names.join(", "), values.join(", "));
    let insert = format!("INSERT OR IGNORE INTO {table} ({names}, crc) VALUES ({values}, crc({values}))");
    let mut insert = target.prepare(&insert)?;

    let keys: Vec<String> = known.iter().filter(|c| c.is_key).map(|c| format!("{} DESC", c.name)).collect();
    let backwards = if keys.is_empty() { "rowid DESC".into() } else { keys.join(", ") };
    let all: Vec<&str> = known.iter().map(|column| column.name.as_str()).collect();
    let select = format!("SELECT {} FROM main.{table} NOT INDEXED", all.join(", "));
    let places: Vec<usize> =
        shared.iter().map(|name| all.iter().position(|other| other == name).expect("it is among them")).collect();
    let mut damaged = 0;
    let mut read = |sql: &str| -> Result<()> {
        let mut statement = source.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if is_guarded && row.get_ref(all.len() - 1)?.as_i64().ok() != Some(row_sum(row, all.len() - 1)?) {
                damaged += 1;
                continue;
            }
            let values: Vec<Value> = places.iter().map(|place| row.get(*place)).collect::<Result<_>>()?;
            copied.rows += insert.execute(params_from_iter(values))? as u64;
        }
        Ok(())
    };
    match read(&select) {
        Ok(()) => {}
        Err(error) if !is_lossy => return Err(error),
        Err(_) => drop(read(&format!("{select} ORDER BY {backwards}"))),
    }
    copied.dropped += damaged;
    if damaged > 0 && !is_lossy {
        return Err(rusqlite::Error::InvalidQuery);
    }
    Ok(())
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<Column>> {
    let sql = "SELECT name, dflt_value, pk > 0 FROM pragma_table_info(?1) ORDER BY cid";
    connection
        .prepare(sql)?
        .query_map([table], |row| Ok(Column { name: row.get(0)?, default: row.get(1)?, is_key: row.get(2)? }))?
        .collect()
}

/// Takes out what no longer fits together after rows were lost: what belongs to no topic or queue, and of each topic all that
/// lies before a hole, since a hole would be passed off as messages whose time to live ended.
pub fn mend(connection: &Connection) -> Result<u64> {
    let orphans: usize = [
        "DELETE FROM topics WHERE id NOT IN (SELECT topic_id FROM lives)",
        "DELETE FROM lives WHERE topic_id NOT IN (SELECT id FROM topics)",
        "DELETE FROM fences WHERE topic_id NOT IN (SELECT id FROM topics)",
        "DELETE FROM idempotency WHERE topic_id NOT IN (SELECT id FROM topics)",
        "DELETE FROM cursors WHERE topic_id NOT IN (SELECT id FROM topics)",
        "DELETE FROM messages WHERE topic_id NOT IN (SELECT id FROM topics)",
        "DELETE FROM jobs WHERE id >> 48 NOT IN (SELECT id FROM queues)",
        "DELETE FROM job_states WHERE id NOT IN (SELECT id FROM jobs)",
        "DELETE FROM job_attempts WHERE id NOT IN (SELECT id FROM jobs)",
        "DELETE FROM queue_keys WHERE queue_id NOT IN (SELECT id FROM queues)",
        "DELETE FROM queue_marks WHERE queue_id NOT IN (SELECT id FROM queues)",
    ]
    .iter()
    .map(|sql| connection.execute(sql, []))
    .sum::<Result<usize>>()?;
    // In mode `latest` holes are where newer messages replaced older ones.
    let sql =
        "SELECT topic_id, offset, seq FROM messages WHERE topic_id IN (SELECT id FROM topics WHERE mode != 'latest')
               ORDER BY topic_id, offset";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows: Vec<(i64, i64, i64)> = rows.collect::<Result<_>>()?;
    let mut before_hole = Vec::new();
    let mut run: Vec<i64> = Vec::new();
    for (i, &(topic, offset, seq)) in rows.iter().enumerate() {
        match i.checked_sub(1).map(|before| rows[before]) {
            Some((same, last, _)) if same == topic && last + 1 == offset => {}
            Some((same, ..)) if same == topic => before_hole.append(&mut run),
            _ => run.clear(),
        }
        run.push(seq);
    }
    let mut delete = connection.prepare("DELETE FROM messages WHERE seq = ?1")?;
    before_hole.iter().try_for_each(|seq| delete.execute([seq]).map(drop))?;
    Ok((orphans + before_hole.len()) as u64)
}

/// Begins a new life of every topic and queue after all that it holds: no position and no job's id is given out a second
/// time, and whoever comes back with an old position is told. Answers how many topics there are.
pub fn renew_lives(connection: &Connection) -> Result<u64> {
    connection.execute(
        "UPDATE topics SET head = MAX(head, last)
         FROM (SELECT topic_id, MAX(offset) AS last FROM messages GROUP BY topic_id) WHERE topic_id = topics.id",
        [],
    )?;
    connection.execute("UPDATE topics SET crc = crc(id, name, head, touched, mode, floor)", [])?;
    let sql = "SELECT id, head, (SELECT MAX(ordinal) FROM lives WHERE topic_id = id) FROM topics";
    let topics: Vec<(i64, i64, i64)> = connection
        .prepare(sql)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_>>()?;
    let mut insert = connection.prepare("INSERT INTO lives VALUES (?1, ?2, ?3, ?4, crc(?1, ?2, ?3, ?4))")?;
    let mut forget = connection.prepare("DELETE FROM lives WHERE topic_id = ?1 AND ordinal <= ?2")?;
    for &(id, head, newest) in &topics {
        let epoch = Epoch::from_random(random()?);
        insert.execute(params![id, newest + 1, epoch.to_string(), head])?;
        forget.execute([id, newest + 1 - LIVES])?;
    }
    renew_queues(connection)?;
    Ok(topics.len() as u64)
}

fn renew_queues(connection: &Connection) -> Result<()> {
    let sql = "SELECT id, lives, MAX(last, COALESCE((SELECT MAX(jobs.id & ((1 << 48) - 1)) FROM jobs
                                                     WHERE jobs.id >= queues.id << 48 AND jobs.id >> 48 = queues.id), 0))
               FROM queues";
    let queues: Vec<(i64, String, u64)> = connection
        .prepare(sql)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, unsigned(row, 2)?)))?
        .collect::<Result<_>>()?;
    let mut update = connection.prepare("UPDATE queues SET lives = ?2, last = ?3 WHERE id = ?1")?;
    for (id, lives, last) in queues {
        let mut known = read_lives(&lives).map(|lives| lives.known().to_vec()).unwrap_or_default();
        known.push((Epoch::from_random(random()?), last));
        let kept = known.split_off(known.len().saturating_sub(LIVES as usize));
        update.execute(params![id, written_lives(&Lives::new(kept)), last as i64])?;
    }
    let sum = "crc(id, name, lives, last, settings, paused, armed, taken_since, firings, untold, totals)";
    connection.execute(&format!("UPDATE queues SET crc = {sum}"), []).map(drop)
}

pub fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| rusqlite::Error::UserFunctionError(Box::new(error)))
}

//! The SQL of queues: one prepared statement for each thing that is done with their rows. Knows nothing of their order.

use std::fmt::Write;

use bytes::Bytes;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, OptionalExtension, Result, Row, Statement, params};

use crate::domain::lives::Lives;
use crate::domain::position::Epoch;
use crate::domain::queue::machine::{Gone, Header, KeyRow, NewAttempt, Spot, Untold};
use crate::domain::queue::{Attempt, AttemptEnd, Death, MOST_ATTEMPTS, Mark, Priority, Totals, machine};
use crate::store::embedded::sum::Sum;
use crate::store::embedded::tables::{id, int, unsigned};

/// Bits of a job's id that are its number.
pub const NUMBER_BITS: u32 = 48;
/// Queues that there can be ids for.
pub const MOST_QUEUES: usize = 1 << (63 - NUMBER_BITS);

pub struct QueueTable<'c> {
    pub(super) connection: &'c Connection,
    /// Rows carry their sums.
    is_guarded: bool,
    put_queue: Statement<'c>,
    insert_job: Statement<'c>,
    put_state: Statement<'c>,
    put_attempt: Statement<'c>,
    forget_attempts: Statement<'c>,
    edit: Statement<'c>,
    delete_job: [Statement<'c>; 2],
    delete_attempts: Statement<'c>,
    body: Statement<'c>,
    attempts: Statement<'c>,
    put_key: Statement<'c>,
    delete_key: Statement<'c>,
    put_mark: Statement<'c>,
    delete_range: [Statement<'c>; 3],
    delete_queue: [Statement<'c>; 3],
}

/// Adds up the sum of a row, as `crc` does in SQL.
struct Adding(Sum);

impl Adding {
    fn number(mut self, number: i64) -> Adding {
        self.0.add(ValueRef::Integer(number));
        self
    }

    fn text(mut self, text: Option<&str>) -> Adding {
        self.0.add(text.map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes())));
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> i64 {
        self.0.add(ValueRef::Blob(bytes));
        self.0.finish()
    }
}

impl<'c> QueueTable<'c> {
    pub fn prepare(connection: &'c Connection, is_guarded: bool) -> Result<QueueTable<'c>> {
        let sql = |text: &str| connection.prepare(text);
        Ok(QueueTable {
            connection,
            is_guarded,
            put_queue: sql("INSERT OR REPLACE INTO queues
                            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
                                    crc(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11))")?,
            insert_job: sql("INSERT INTO jobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?,
            put_state: sql("INSERT OR REPLACE INTO job_states
                            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, crc(?1, ?2, ?3, ?4, ?5, ?6, ?7))")?,
            put_attempt: sql("INSERT OR REPLACE INTO job_attempts
                              VALUES (?1, ?2, ?3, ?4, ?5, ?6, crc(?1, ?2, ?3, ?4, ?5, ?6))")?,
            forget_attempts: sql("DELETE FROM job_attempts WHERE id = ?1 AND ordinal <= ?2")?,
            edit: sql("UPDATE jobs SET body = ?2, crc = crc(id, priority, grp, time, expires, spot, until, ?2)
                       WHERE id = ?1")?,
            delete_job: [sql("DELETE FROM jobs WHERE id = ?1")?, sql("DELETE FROM job_states WHERE id = ?1")?],
            delete_attempts: sql("DELETE FROM job_attempts WHERE id = ?1")?,
            body: sql("SELECT priority, grp, time, expires, spot, until, body, crc FROM jobs WHERE id = ?1")?,
            attempts: sql("SELECT time, worker, ending, error FROM job_attempts WHERE id = ?1 ORDER BY ordinal")?,
            put_key: sql("INSERT OR REPLACE INTO queue_keys
                          VALUES (?1, ?2, ?3, ?4, ?5, crc(?1, ?2, ?3, ?4, ?5))")?,
            delete_key: sql("DELETE FROM queue_keys WHERE queue_id = ?1 AND key = ?2")?,
            put_mark: sql("INSERT OR REPLACE INTO queue_marks
                           VALUES (?1, ?2, ?3, ?4, ?5, crc(?1, ?2, ?3, ?4, ?5))")?,
            delete_range: [
                sql("DELETE FROM jobs WHERE id >= ?1 AND id < ?2")?,
                sql("DELETE FROM job_states WHERE id >= ?1 AND id < ?2")?,
                sql("DELETE FROM job_attempts WHERE id >= ?1 AND id < ?2")?,
            ],
            delete_queue: [
                sql("DELETE FROM queues WHERE id = ?1")?,
                sql("DELETE FROM queue_keys WHERE queue_id = ?1")?,
                sql("DELETE FROM queue_marks WHERE queue_id = ?1")?,
            ],
        })
    }

    pub fn put_queue(&mut self, queue: usize, name: &str, settings: Option<&str>, header: &Header) -> Result<()> {
        let (lives, untold, totals) =
            (written_lives(&header.lives), written_untold(header), written_totals(&header.totals));
        self.put_queue
            .execute(params![
                id(queue),
                name,
                lives,
                int(header.last),
                settings,
                header.is_paused,
                header.is_armed,
                int(header.taken_since),
                int(header.firings),
                untold,
                totals
            ])
            .map(drop)
    }

    pub fn insert_job(&mut self, queue: usize, row: &machine::Row, body: &[u8]) -> Result<()> {
        let (key, spot) = (job_id(queue, row.number), spot_number(row.spot));
        let (priority, group) = (i64::from(row.priority.level()), row.group.as_deref());
        let (time, expires, until) = (int(row.time), int(row.expires), int(row.until));
        let crc = if self.is_guarded { crc(key, priority, group, time, expires, spot, until, body) } else { 0 };
        self.insert_job.execute(params![key, priority, group, time, expires, spot, until, body, crc]).map(drop)
    }

    /// Writes what has become of a job that was written before.
    pub fn put_state(&mut self, queue: usize, row: &machine::Row) -> Result<()> {
        let death = row.death.map(Death::as_str);
        let (expires, until) = (int(row.expires), int(row.until));
        let spot = spot_number(row.spot);
        self.put_state
            .execute(params![job_id(queue, row.number), expires, spot, until, row.tries, row.failures, death])
            .map(drop)
    }

    pub fn put_attempt(&mut self, queue: usize, new: &NewAttempt) -> Result<()> {
        let key = job_id(queue, new.number);
        let Attempt { time, worker, end, error } = &new.attempt;
        let error = error.as_deref();
        self.put_attempt.execute(params![key, new.ordinal, int(*time), worker, end_word(*end), error])?;
        let first = i64::from(new.ordinal) - MOST_ATTEMPTS as i64;
        if first > 0 {
            self.forget_attempts.execute([key, first])?;
        }
        Ok(())
    }

    pub fn edit(&mut self, queue: usize, number: u64, body: &[u8]) -> Result<()> {
        self.edit.execute(params![job_id(queue, number), body]).map(drop)
    }

    pub fn delete_job(&mut self, queue: usize, gone: &Gone) -> Result<()> {
        let key = job_id(queue, gone.number);
        for statement in &mut self.delete_job {
            statement.execute([key])?;
        }
        if gone.has_failed {
            self.delete_attempts.execute([key])?;
        }
        Ok(())
    }

    /// The body of a job; `None` if its row is not what was written.
    pub fn body(&mut self, queue: usize, number: u64) -> Result<Option<Bytes>> {
        let (key, is_guarded) = (job_id(queue, number), self.is_guarded);
        let found = self.body.query_row([key], |row| {
            let body = row.get_ref(6)?.as_blob()?;
            let is_whole = !is_guarded || {
                let group = row.get_ref(1)?.as_str_or_null()?;
                let (time, expires, until) = (row.get(2)?, row.get(3)?, row.get(5)?);
                crc(key, row.get(0)?, group, time, expires, row.get(4)?, until, body) == row.get::<_, i64>(7)?
            };
            Ok(is_whole.then(|| Bytes::copy_from_slice(body)))
        });
        found.optional().map(Option::flatten)
    }

    pub fn attempts(&mut self, queue: usize, number: u64) -> Result<Vec<Attempt>> {
        let rows = self.attempts.query_map([job_id(queue, number)], |row| {
            let end: String = row.get(2)?;
            Ok(Attempt {
                time: unsigned(row, 0)?,
                worker: row.get(1)?,
                // A word of a later version.
                end: end_of(&end).unwrap_or(AttemptEnd::Nack),
                error: row.get(3)?,
            })
        })?;
        rows.collect()
    }

    pub fn put_key(&mut self, queue: usize, key: &KeyRow) -> Result<()> {
        let (content, number) = (key.content.as_ref().map(|digest| &digest[..]), int(key.number));
        self.put_key.execute(params![id(queue), &key.id[..], content, number, int(key.expires)]).map(drop)
    }

    pub fn delete_key(&mut self, queue: usize, key: &[u8]) -> Result<()> {
        self.delete_key.execute(params![id(queue), key]).map(drop)
    }

    pub fn put_mark(&mut self, queue: usize, source: &str, mark: &Mark) -> Result<()> {
        let Mark { life, id: entry } = mark;
        self.put_mark.execute(params![id(queue), source, life, int(entry.ms), int(entry.seq)]).map(drop)
    }

    /// A queue with all that it holds.
    pub fn delete_queue(&mut self, queue: usize) -> Result<()> {
        for statement in &mut self.delete_range {
            statement.execute([job_id(queue, 0), job_id(queue + 1, 0)])?;
        }
        for statement in &mut self.delete_queue {
            statement.execute([id(queue)])?;
        }
        Ok(())
    }
}

#[expect(clippy::too_many_arguments, reason = "the columns of a row, in their order")]
fn crc(
    key: i64,
    priority: i64,
    group: Option<&str>,
    time: i64,
    expires: i64,
    spot: i64,
    until: i64,
    body: &[u8],
) -> i64 {
    let adding = Adding(Sum::default()).number(key).number(priority).text(group).number(time).number(expires);
    adding.number(spot).number(until).bytes(body)
}

pub fn job_id(queue: usize, number: u64) -> i64 {
    // The end of the last queue's range lies one beyond what fits.
    i64::try_from((queue as u64) << NUMBER_BITS | number).unwrap_or(i64::MAX)
}

fn spot_number(spot: Spot) -> i64 {
    match spot {
        Spot::Ready | Spot::InFlight => 0,
        Spot::Parked => 1,
        Spot::Delayed => 2,
        Spot::Dead => 3,
        Spot::DeadHead => 4,
    }
}

fn spot_of(number: i64) -> Option<Spot> {
    [Spot::Ready, Spot::Parked, Spot::Delayed, Spot::Dead, Spot::DeadHead].get(number as usize).copied()
}

fn end_word(end: AttemptEnd) -> &'static str {
    match end {
        AttemptEnd::Nack => "nack",
        AttemptEnd::Term => "term",
        AttemptEnd::Lease => "lease",
    }
}

fn end_of(word: &str) -> Option<AttemptEnd> {
    [AttemptEnd::Nack, AttemptEnd::Term, AttemptEnd::Lease].into_iter().find(|end| end_word(*end) == word)
}

/// A job's row, joined with what has become of it: `SELECT id, priority, grp, time, LENGTH(body), expires, spot, until,
/// tries, failures, death`.
pub fn row_of(row: &Row) -> Result<(usize, machine::Row)> {
    let key = unsigned(row, 0)?;
    let death = row.get_ref(10)?.as_str_or_null()?.map(|word| Death::parse(word).unwrap_or(Death::Term));
    let spot = spot_of(row.get(6)?).ok_or_else(|| unreadable("a job is nowhere"))?;
    let level = u8::try_from(row.get::<_, i64>(1)?).ok();
    let parts = machine::Row {
        number: key & ((1 << NUMBER_BITS) - 1),
        priority: level.and_then(Priority::new).ok_or_else(|| unreadable("a job has no priority"))?,
        group: row.get_ref(2)?.as_str_or_null()?.map(Into::into),
        time: unsigned(row, 3)?,
        bytes: unsigned(row, 4)? as u32,
        expires: unsigned(row, 5)?,
        spot,
        until: unsigned(row, 7)?,
        tries: unsigned(row, 8)? as u16,
        failures: unsigned(row, 9)? as u16,
        death: spot.is_dead().then(|| death.unwrap_or(Death::Term)),
    };
    Ok(((key >> NUMBER_BITS) as usize, parts))
}

/// `SELECT lives, last, paused, armed, taken_since, firings, untold, totals`, from a column on.
pub fn header_of(row: &Row, first: usize) -> Result<Header> {
    let text = |column: usize| row.get_ref(first + column).and_then(|value| Ok(value.as_str()?));
    Ok(Header {
        lives: read_lives(text(0)?).ok_or_else(|| unreadable("a queue has no life"))?,
        last: unsigned(row, first + 1)?,
        is_paused: row.get(first + 2)?,
        is_armed: row.get(first + 3)?,
        taken_since: unsigned(row, first + 4)?,
        firings: unsigned(row, first + 5)?,
        untold: text(6)?.lines().map(untold_of).collect::<Option<_>>().ok_or_else(|| unreadable("a firing"))?,
        totals: totals_of(text(7)?).ok_or_else(|| unreadable("the totals of a queue"))?,
    })
}

pub fn written_lives(lives: &Lives) -> String {
    lives.known().iter().map(|(epoch, base)| format!("{epoch} {base}")).collect::<Vec<_>>().join(" ")
}

pub fn read_lives(text: &str) -> Option<Lives> {
    let words: Vec<&str> = text.split(' ').collect();
    let pair = |pair: &[&str]| Some((pair[0].parse::<Epoch>().ok()?, pair.get(1)?.parse().ok()?));
    words.chunks(2).map(pair).collect::<Option<Vec<_>>>().filter(|known| !known.is_empty()).map(Lives::new)
}

fn written_untold(header: &Header) -> String {
    let mut text = String::new();
    for Untold { number, waiting, oldest, arm, time } in &header.untold {
        write!(text, "{number} {oldest} {arm} {time}").expect("a text takes all");
        waiting.iter().for_each(|count| write!(text, " {count}").expect("a text takes all"));
        text.push('\n');
    }
    text
}

fn untold_of(line: &str) -> Option<Untold> {
    let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let (&[number, oldest, arm, time], waiting) = numbers.split_first_chunk()?;
    Some(Untold { number, oldest, arm: arm as usize, time, waiting: waiting.try_into().ok()? })
}

fn written_totals(totals: &Totals) -> String {
    let Totals { put, repeated, taken, acked, nacked, lease_ended, died, redriven, forgotten } = totals;
    format!("{put} {repeated} {taken} {acked} {nacked} {lease_ended} {died} {redriven} {forgotten}")
}

fn totals_of(text: &str) -> Option<Totals> {
    let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [put, repeated, taken, acked, nacked, lease_ended, died, redriven, forgotten] = numbers[..] else {
        return None;
    };
    Some(Totals { put, repeated, taken, acked, nacked, lease_ended, died, redriven, forgotten })
}

#[derive(Debug, thiserror::Error)]
#[error("{0} that cannot be read")]
struct Unreadable(&'static str);

pub fn unreadable(what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(Unreadable(what)))
}

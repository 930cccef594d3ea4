//! The cursors of the embedded store: rows of one table, looked up when somebody uses one. Only their numbers are known in
//! memory. The rules are `domain::cursor`'s; transactions are the writer's.

use rusqlite::{Connection, OptionalExtension, Result, Statement, params};

use super::log::{Failure, Log, millis};
use super::tables::{id, int, topic_id, unsigned};
use crate::domain::cursor::{CursorBounds, CursorError, CursorKey, CursorName, Extent, First, Opened, Owner, Placed};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::{Kept, ReadFrom, StoreError};
use crate::store::cursors::{Answer, Ask};

pub struct CursorTable<'c> {
    find: Statement<'c>,
    put: Statement<'c>,
    delete: Statement<'c>,
    list: Statement<'c>,
    /// How many one owner has in a topic that are not over, as far as it matters.
    count: Statement<'c>,
    over: Statement<'c>,
    pub bounds: CursorBounds,
    /// Rows in all.
    pub total: u64,
}

/// A row: where it stands, and the use that is written down.
#[derive(Clone, Copy)]
struct Row {
    at: Position,
    used: u64,
}

impl<'c> CursorTable<'c> {
    pub fn prepare(connection: &'c Connection, bounds: CursorBounds) -> Result<CursorTable<'c>> {
        let sql = |text| connection.prepare(text);
        Ok(CursorTable {
            find: sql("SELECT epoch, offset, used FROM cursors WHERE topic_id = ?1 AND owner = ?2 AND name = ?3")?,
            put: sql("INSERT OR REPLACE INTO cursors
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, crc(?1, ?2, ?3, ?4, ?5, ?6))")?,
            delete: sql("DELETE FROM cursors WHERE topic_id = ?1 AND owner = ?2 AND name = ?3")?,
            list: sql("SELECT epoch, offset, used, name FROM cursors
                       WHERE topic_id = ?1 AND owner = ?2 AND name > ?3 AND used > ?4 ORDER BY name LIMIT ?5")?,
            count: sql("SELECT COUNT(*) FROM (SELECT 1 FROM cursors
                        WHERE topic_id = ?1 AND owner = ?2 AND used > ?3 LIMIT ?4)")?,
            over: sql("SELECT topic_id, owner, name FROM cursors WHERE used <= ?1 ORDER BY used LIMIT ?2")?,
            bounds,
            total: 0,
        })
    }

    fn find(&mut self, topic: usize, owner: &str, name: &str) -> Result<Option<Row>> {
        self.find.query_row(params![id(topic), owner, name], kept).optional()
    }

    fn list(
        &mut self,
        topic: usize,
        owner: &str,
        after: &str,
        limit: usize,
        now: u64,
    ) -> Result<Vec<(CursorName, Row)>> {
        let over = self.over_before(now);
        let rows = self.list.query_map(params![id(topic), owner, after, int(over), id(limit)], |row| {
            let name = CursorName::parse(row.get_ref(3)?.as_str()?).map_err(unreadable)?;
            Ok((name, kept(row)?))
        })?;
        rows.collect()
    }

    fn put(&mut self, topic: usize, key: &CursorKey, kept: Row) -> Result<()> {
        let Row { at, used } = kept;
        let (owner, name) = (key.owner.as_str(), key.name.as_str());
        self.put.execute(params![id(topic), owner, name, at.epoch.to_string(), int(at.offset), int(used)]).map(drop)
    }

    fn count(&mut self, topic: usize, owner: &str, now: u64) -> Result<usize> {
        let (over, most) = (int(self.over_before(now)), id(self.bounds.each));
        self.count.query_row(params![id(topic), owner, over, most], |row| topic_id(row, 0))
    }

    /// What was last used then, or before it, is over.
    fn over_before(&self, now: u64) -> u64 {
        now.saturating_sub(millis(self.bounds.lifetime()))
    }

    fn is_over(&self, kept: &Row, now: u64) -> bool {
        kept.used <= self.over_before(now)
    }
}

impl Log<'_> {
    pub fn answer_cursor(&mut self, ask: &Ask, now: u64) -> Result<Result<Answer, CursorError>> {
        let answered = match ask {
            Ask::Open { key, first } => self.open_cursor(key, *first, now).map(Answer::Opened),
            Ask::Commit { key, at, rewind } => self.commit(key, *at, *rewind, now).map(Answer::Placed),
            Ask::Find { key } => self.find_cursor(key, now).map(Answer::Found),
            Ask::Remove { key } => self.remove_cursor(key, now).map(Answer::Removed),
            Ask::List { topic, owner, after, limit } => {
                self.list_cursors(topic, owner, after.as_ref(), *limit, now).map(Answer::Listed)
            }
        };
        match answered {
            Ok(answer) => Ok(Ok(answer)),
            Err(CursorFailure::Refused(error)) => Ok(Err(error)),
            Err(CursorFailure::Sql(error)) => Err(error),
        }
    }

    fn open_cursor(&mut self, key: &CursorKey, first: First, now: u64) -> Result<Opened, CursorFailure> {
        let topic = self.topic(&key.topic, now)?;
        let found = self.kept_cursor(topic, key, now)?;
        let kept = match found {
            Some(kept) => kept,
            None => {
                self.check_room(topic, key, now)?;
                Row { at: self.extent(topic, now).first(first), used: now }
            }
        };
        let kept = self.use_cursor(topic, key, found, kept, now)?;
        Ok(Opened { placed: self.placed(topic, kept, now), created: found.is_none() })
    }

    fn commit(&mut self, key: &CursorKey, at: Position, rewind: bool, now: u64) -> Result<Placed, CursorFailure> {
        let topic = self.topic(&key.topic, now)?;
        let found = self.kept_cursor(topic, key, now)?;
        self.extent(topic, now).judge(found.map(|kept| kept.at), at, rewind)?;
        if found.is_none() {
            self.check_room(topic, key, now)?;
        }
        let kept = self.use_cursor(topic, key, found, Row { at, used: now }, now)?;
        Ok(self.placed(topic, kept, now))
    }

    fn find_cursor(&mut self, key: &CursorKey, now: u64) -> Result<Option<Placed>, CursorFailure> {
        let Some(&topic) = self.by_name.get(&key.topic) else { return Ok(None) };
        let found = self.cursors.find(topic, key.owner.as_str(), key.name.as_str())?;
        let found = found.filter(|kept| !self.cursors.is_over(kept, now));
        Ok(found.map(|kept| self.placed(topic, kept, now)))
    }

    fn remove_cursor(&mut self, key: &CursorKey, now: u64) -> Result<bool, CursorFailure> {
        let Some(&topic) = self.by_name.get(&key.topic) else { return Ok(false) };
        let was_there = self.kept_cursor(topic, key, now)?.is_some();
        if was_there {
            self.drop_cursor(topic, key.owner.as_str(), key.name.as_str())?;
        }
        Ok(was_there)
    }

    fn list_cursors(
        &mut self,
        topic: &Topic,
        owner: &Owner,
        after: Option<&CursorName>,
        limit: usize,
        now: u64,
    ) -> Result<Vec<(CursorName, Placed)>, CursorFailure> {
        let Some(&topic) = self.by_name.get(topic) else { return Ok(Vec::new()) };
        let after = after.map_or("", CursorName::as_str);
        let listed = self.cursors.list(topic, owner.as_str(), after, limit, now)?;
        Ok(listed.into_iter().map(|(name, kept)| (name, self.placed(topic, kept, now))).collect())
    }

    /// Removes cursors that are over, at most so many; answers how many.
    pub(super) fn sweep_cursors(&mut self, now: u64, most: usize) -> Result<usize> {
        let before = self.cursors.over_before(now);
        let over = self.cursors.over.query_map([int(before), id(most)], |row| {
            Ok((topic_id(row, 0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        let over = over.collect::<Result<Vec<_>>>()?;
        for (topic, owner, name) in &over {
            self.drop_cursor(*topic, owner, name)?;
        }
        Ok(over.len())
    }

    /// The row of a cursor; one that is over goes now.
    fn kept_cursor(&mut self, topic: usize, key: &CursorKey, now: u64) -> Result<Option<Row>> {
        let (owner, name) = (key.owner.as_str(), key.name.as_str());
        match self.cursors.find(topic, owner, name)? {
            Some(kept) if self.cursors.is_over(&kept, now) => {
                self.drop_cursor(topic, owner, name)?;
                Ok(None)
            }
            found => Ok(found),
        }
    }

    /// Writes down what changed, and the use if the one that is written down is old.
    fn use_cursor(&mut self, topic: usize, key: &CursorKey, found: Option<Row>, kept: Row, now: u64) -> Result<Row> {
        let grain = millis(self.cursors.bounds.grain());
        let used = found.map(|found| found.used).filter(|used| used.saturating_add(grain) > now).unwrap_or(now);
        let kept = Row { used, ..kept };
        if found.is_none_or(|found| found.at != kept.at || found.used != kept.used) {
            self.cursors.put(topic, key, kept)?;
        }
        if found.is_none() {
            self.cursors.total += 1;
            self.topics[topic].cursors += 1;
        }
        Ok(kept)
    }

    fn drop_cursor(&mut self, topic: usize, owner: &str, name: &str) -> Result<()> {
        let gone = self.cursors.delete.execute(params![id(topic), owner, name])?;
        self.cursors.total -= gone as u64;
        if let Some(record) = self.topics.get_mut(topic) {
            record.cursors -= gone as u64;
        }
        Ok(())
    }

    fn check_room(&mut self, topic: usize, key: &CursorKey, now: u64) -> Result<(), CursorFailure> {
        let CursorBounds { each, total, .. } = self.cursors.bounds;
        if self.cursors.total >= total && self.sweep_cursors(now, 1)? == 0 {
            let text = format!("it holds {total} cursors and takes no more (store_cursors)");
            return Err(CursorError::Store(StoreError::Full(text)).into());
        }
        if self.cursors.count(topic, key.owner.as_str(), now)? >= each {
            return Err(CursorError::TooMany(each).into());
        }
        Ok(())
    }

    fn extent(&self, topic: usize, now: u64) -> Extent<'_> {
        let record = &self.topics[topic];
        let Kept { oldest, head, .. } = record.kept_for(ReadFrom::Last(0), millis(record.settings.age), now);
        Extent { lives: &record.lives, oldest, head }
    }

    fn placed(&self, topic: usize, kept: Row, now: u64) -> Placed {
        Placed { at: kept.at, lag: self.extent(topic, now).lag(kept.at), used: kept.used }
    }
}

/// Why a call about a cursor was not done: for a reason of its own, with nothing changed, or because SQLite failed.
enum CursorFailure {
    Refused(CursorError),
    Sql(rusqlite::Error),
}

impl From<CursorError> for CursorFailure {
    fn from(error: CursorError) -> CursorFailure {
        CursorFailure::Refused(error)
    }
}

impl From<rusqlite::Error> for CursorFailure {
    fn from(error: rusqlite::Error) -> CursorFailure {
        CursorFailure::Sql(error)
    }
}

impl From<Failure> for CursorFailure {
    fn from(failure: Failure) -> CursorFailure {
        match failure {
            Failure::Refused(error) => CursorFailure::Refused(error.into()),
            Failure::Sql(error) => CursorFailure::Sql(error),
        }
    }
}

fn kept(row: &rusqlite::Row) -> Result<Row> {
    let epoch = row.get_ref(0)?.as_str()?.parse().map_err(unreadable)?;
    Ok(Row { at: Position::new(epoch, unsigned(row, 1)?), used: unsigned(row, 2)? })
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

//! What is done at every commit so that a loss cannot go unseen: the tallies and the number of the commit are written
//! with it, and the number once more into a file beside the database when the commit is synced. SQLite by itself drops
//! a damaged end of its log without a word.

use rusqlite::{Connection, Result};

use super::counter::Counter;
use super::tally::{self, COMMITS, Tallies, Tally};

pub struct Guard {
    tallies: Tallies,
    counter: Counter,
    /// Commits of this store since it was made.
    commits: u64,
    /// The commit that is being made has a number of its own: it changes something.
    is_counted: bool,
}

impl Guard {
    /// Watches over a connection whose store was checked.
    pub fn new(connection: &Connection, counter: Counter) -> Result<Guard> {
        let commits = tally::read(connection, COMMITS)?.rows as u64;
        Ok(Guard { tallies: Tallies::watch(connection)?, counter, commits, is_counted: false })
    }

    /// Writes what the commit that follows must hold. A transaction that changed nothing is not counted, nor synced.
    pub fn seal(&mut self, connection: &Connection) -> Result<()> {
        let changed = self.tallies.changed();
        self.is_counted = !changed.is_empty();
        if self.is_counted {
            changed.iter().try_for_each(|changed| tally::write(connection, changed))?;
            tally::write(connection, &Tally { name: COMMITS.into(), rows: self.commits as i64 + 1, sum: 0 })?;
        }
        Ok(())
    }

    pub fn committed(&mut self) {
        if std::mem::take(&mut self.is_counted) {
            self.commits += 1;
            self.tallies.committed();
            self.counter.write(self.commits);
        }
    }

    pub fn undone(&mut self) {
        self.is_counted = false;
        self.tallies.undone();
    }

    /// To be called now and then by a store at rest.
    pub fn rest(&mut self) {
        self.counter.sync_if_due();
    }
}

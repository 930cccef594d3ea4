//! Carries the write-ahead log over into the database, beside the writer: a thread of its own with a connection of its
//! own, so that commits do not wait for it. While the writer is never at rest, SQLite cannot begin the log anew; when
//! it has grown beyond its bound the writer carries over what is left of it, and empties it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Result};

use super::file;

/// Pages of the log that are worth a checkpoint: 4 MiB.
const DUE: i64 = 1_000;
/// The log is looked at no more often.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the writer waits for whoever uses the log, where room is short, and how long between two tries.
const PATIENCE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(1);

pub struct Checkpoints {
    /// `None` once it is to end.
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub fn start(database: PathBuf) -> std::io::Result<Checkpoints> {
        let (wake, woken) = sync_channel(1);
        let run = move || {
            let mut connection = None;
            let mut has_failed = false;
            while woken.recv().is_ok() {
                std::thread::sleep(PAUSE);
                let done = carry(&mut connection, &database);
                if let (Err(error), false) = (&done, has_failed) {
                    tracing::error!(%error, "the store's log cannot be carried over into its file; it grows meanwhile");
                }
                has_failed = done.is_err();
            }
        };
        let thread = std::thread::Builder::new().name("fanfare-checkpoint".into()).spawn(run)?;
        Ok(Checkpoints { wake: Some(wake), thread: Some(thread) })
    }

    /// Says that something was committed.
    pub fn note(&self) {
        if let Some(wake) = &self.wake {
            // One that is on its way is enough.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry(connection: &mut Option<Connection>, database: &Path) -> Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(file::connect(database)?),
    };
    let pragma = |mode: &str| {
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })
    };
    let (pages, carried) = pragma("NOOP")?;
    if pages - carried >= DUE {
        pragma("PASSIVE")?;
    }
    Ok(())
}

/// Carries the whole log over and empties it, unless somebody reads it or carries it over at the moment: then it is tried
/// another time. Says whether it is empty.
pub fn empty(connection: &Connection) -> Result<bool> {
    connection.busy_timeout(Duration::ZERO)?;
    let done = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0));
    connection.busy_timeout(Duration::from_secs(5))?;
    match done {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(false),
        done => done,
    }
}

/// The same where room is short, which others may take while the thread above is at work: its end is waited for.
pub fn empty_soon(connection: &Connection) -> Result<bool> {
    let begun = Instant::now();
    while !empty(connection)? {
        if begun.elapsed() > PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(STEP);
    }
    Ok(true)
}

//! Carries the write-ahead log over into the database, beside the writer: a thread of its own with a connection of its
//! own, so that commits do not wait for it. While the writer is never at rest, SQLite cannot begin the log anew; when
//! it has grown beyond its bound the writer is asked to hold still for what is left of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, Result};

use super::file;

/// Pages of the log that are worth a checkpoint: 4 MiB.
const DUE: i64 = 1_000;
const PAGE: u64 = 4_096;
/// The log is looked at no more often.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Checkpoints {
    /// `None` once it is to end.
    wake: Option<SyncSender<()>>,
    is_too_long: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Begins; the writer is to empty a log that has more than `most` bytes.
    pub fn start(database: PathBuf, most: u64) -> std::io::Result<Checkpoints> {
        let (wake, woken) = sync_channel(1);
        let is_too_long = Arc::new(AtomicBool::new(false));
        let flag = is_too_long.clone();
        let run = move || {
            let mut connection = None;
            let mut has_failed = false;
            while woken.recv().is_ok() {
                std::thread::sleep(PAUSE);
                let done = carry(&mut connection, &database, most, &flag);
                if let (Err(error), false) = (&done, has_failed) {
                    tracing::error!(%error, "the store's log cannot be carried over into its file; it grows meanwhile");
                }
                has_failed = done.is_err();
            }
        };
        let thread = std::thread::Builder::new().name("fanfare-checkpoint".into()).spawn(run)?;
        Ok(Checkpoints { wake: Some(wake), is_too_long, thread: Some(thread) })
    }

    /// Says that something was committed.
    pub fn note(&self) {
        if let Some(wake) = &self.wake {
            // One that is on its way is enough.
            let _ = wake.try_send(());
        }
    }

    /// Whether the writer has to empty the log now; it is asked once.
    pub fn must_empty(&self) -> bool {
        self.is_too_long.load(Ordering::Relaxed) && self.is_too_long.swap(false, Ordering::Relaxed)
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

fn carry(connection: &mut Option<Connection>, database: &Path, most: u64, is_too_long: &AtomicBool) -> Result<()> {
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
        let (pages, _) = pragma("PASSIVE")?;
        // It answers -1 where it could not run, as on a full volume; the log is then as long as it was.
        let pages = u64::try_from(pages).unwrap_or(0);
        is_too_long.store(pages.saturating_mul(PAGE) > most, Ordering::Relaxed);
    }
    Ok(())
}

/// Carries the whole log over and empties it, unless somebody reads it: then it is tried another time.
pub fn empty(connection: &Connection) -> Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    let done = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    connection.busy_timeout(Duration::from_secs(5))?;
    match done {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(()),
        done => done,
    }
}

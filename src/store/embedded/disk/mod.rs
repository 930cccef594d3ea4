//! The embedded store in a file: what is done before it is used and beside its use, so that nothing of it is lost in
//! silence. `folder` has the lay-out, `lock` keeps other processes out, `wal` and `check` judge what is found, `guard`
//! keeps what they judge by, `copy` carries a store over into another file, `backup` copies it.

mod backup;
mod check;
mod checkpoint;
mod copy;
mod counter;
mod file;
mod folder;
mod guard;
mod lock;
mod room;
mod tally;
#[cfg(test)]
mod tests;
mod wal;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::Connection;

pub use self::backup::{back_up, restore};
use self::check::Whole;
use self::checkpoint::Checkpoints;
pub use self::checkpoint::{empty, empty_soon};
use self::counter::{Count, Counter};
use self::file::{Header, VERSION};
use self::folder::{Folder, Place};
pub use self::guard::Guard;
use self::lock::{Lock, LockError};
use self::room::Room;
#[cfg(test)]
pub use self::tests::{assert_whole, make_older};

/// Free pages that a file keeps to be used again, if they are no more than a quarter of it: 16 MiB.
const SPARE_PAGES: i64 = 4_096;
/// Pages that one step gives back.
const PAGES_A_STEP: i64 = 1_024;
/// Where there is no room, a step must fit into very little of it; so many are taken at a time.
const PAGES_AN_URGENT_STEP: i64 = 128;
const URGENT_STEPS: usize = 16;

/// Why a store on disk does not open, is not backed up or not restored. The text says what can be done.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{}: {why}; stop that one, or name another folder with --store disk:PATH", path.display())]
    Taken { path: PathBuf, why: LockError },
    #[error("{}: its format is {version}, this fanfare knows formats up to {VERSION}; use a newer one", path.display())]
    Newer { path: PathBuf, version: u32 },
    #[error("{}: this is no store of fanfare; name another one", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "{}: stored data is lost or damaged: {}. Restore a backup into an empty folder (fanfare restore), or start once with fanfare serve \
         --accept-loss: it keeps what is whole, sets the damaged files aside, and every subscriber that comes back is told",
        path.display(), faults.join("; ")
    )]
    Damaged { path: PathBuf, faults: Vec<String> },
    #[error("{}: a store is there already; restore into a folder that has none", path.display())]
    Occupied { path: PathBuf },
    #[error("{}: no store is there", path.display())]
    Missing { path: PathBuf },
    #[error("{}: it is there already; name another file", path.display())]
    Exists { path: PathBuf },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// A store that was found whole, ready to be used.
pub struct Found {
    pub connection: Connection,
    pub guard: Guard,
    pub keep: Keep,
}

/// What is held as long as the store is used.
pub struct Keep {
    pub checkpoints: Checkpoints,
    pub room: Room,
    pub lock: Lock,
}

/// Opens the store of a folder, and makes one if there is none. Reads all of it.
pub fn open(root: &Path, accepts_loss: bool) -> Result<Found, DiskError> {
    let begun = Instant::now();
    let folder = Folder::new(root);
    folder.make().map_err(|error| named(root, error))?;
    let lock = take(&folder)?;
    if !folder.settle()? {
        make_new(&folder)?;
    }
    let data = folder.data();
    look_at_header(&folder, accepts_loss)?;
    bring_up_to_date(&folder)?;
    let judged = judge(&data);
    let (connection, whole, log) = match judged {
        Err(Verdict::Damaged(faults)) if accepts_loss => {
            salvage(&folder, &faults)?;
            judge(&data).map_err(|verdict| verdict.told(root))?
        }
        judged => judged.map_err(|verdict| verdict.told(root))?,
    };
    // A log that begins anew holds nothing of a write that was cut off.
    if let Err(error) = checkpoint::empty(&connection) {
        // On a full volume; it is tried again when there is room.
        tracing::warn!(%error, "the store's log stays beside its file");
    }
    let guard = Guard::new(&connection, Counter::open(&data.counter(), whole.life, VERSION)?)?;
    let Whole { commits, topics, messages, .. } = whole;
    tracing::info!(
        folder = %root.display(), messages, topics, commits, recovered = log.commits, torn = log.beyond, took = ?begun.elapsed(),
        "the store is whole"
    );
    let room = Room::open(&folder)?;
    let keep = Keep { checkpoints: Checkpoints::start(data.database())?, room, lock };

    Ok(Found { connection, guard, keep })
}

fn take(folder: &Folder) -> Result<Lock, DiskError> {
    Lock::take(folder.root()).map_err(|why| DiskError::Taken { path: folder.root().to_owned(), why })
}

/// The first store of a folder.
fn make_new(folder: &Folder) -> Result<(), DiskError> {
    make(folder, 0, |_| Ok(()))?;
    Ok(folder.finish_next(None)?)
}

/// Makes a store of its own life beside the one that is there.
fn make(
    folder: &Folder,
    commits: u64,
    fill: impl FnOnce(&Connection) -> Result<(), DiskError>,
) -> Result<Place, DiskError> {
    let next = folder.begin_next()?;
    let life = copy::random()?;
    file::make(&next.database(), life, commits, fill)?;
    Counter::create(&next.counter(), Count { life, commits, format: VERSION })?;
    file::sync_folder(next.folder())?;
    Ok(next)
}

/// Why a store cannot be used as it is.
enum Verdict {
    Damaged(Vec<String>),
    Other(DiskError),
}

impl Verdict {
    fn told(self, root: &Path) -> DiskError {
        match self {
            Verdict::Damaged(faults) => DiskError::Damaged { path: root.to_owned(), faults },
            Verdict::Other(error) => error,
        }
    }
}

impl From<io::Error> for Verdict {
    fn from(error: io::Error) -> Verdict {
        Verdict::Other(error.into())
    }
}

/// Opens the database if it holds all that was ever synced. Looks at its log first: SQLite shortens a damaged one.
fn judge(data: &Place) -> Result<(Connection, Whole, wal::Report), Verdict> {
    let damaged = |text: String| Verdict::Damaged(vec![text]);
    if !data.database().exists() {
        return Err(damaged("store.db is gone".into()));
    }
    let log = wal::scan(&data.log())?;
    if log.has_bad_header {
        return Err(damaged("the header of the write-ahead log is damaged; all that it held would be lost".into()));
    }
    if log.is_damaged() {
        let (lost, all) = (log.beyond, log.beyond + log.commits);
        return Err(damaged(format!("the write-ahead log is damaged: the last {lost} of its {all} commits are lost")));
    }
    let count = match counter::read(&data.counter()) {
        Ok(Some(count)) => count,
        Ok(None) => return Err(damaged("the counter of commits is damaged; what is missing cannot be told".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("the counter of commits is gone; what is missing cannot be told".into()));
        }
        Err(error) => return Err(error.into()),
    };
    let connection = file::connect(&data.database()).map_err(|error| damaged(error.to_string()))?;
    match check::check(&connection, Some(count)) {
        Ok(whole) => Ok((connection, whole, log)),
        Err(faults) => Err(Verdict::Damaged(faults)),
    }
}

/// The counter of commits tells of which format the store is. Where the file's header says otherwise it is damaged: such a
/// file would pass for one of another program, or of another version.
fn look_at_header(folder: &Folder, accepts_loss: bool) -> Result<(), DiskError> {
    let (path, data) = (folder.root().to_owned(), folder.data());
    let (Ok(header), Ok(Some(count))) = (file::header(&data.database()), counter::read(&data.counter())) else {
        return Ok(());
    };
    if count.format > VERSION {
        return Err(DiskError::Newer { path, version: count.format });
    }
    if header == (Header { is_ours: true, version: count.format }) {
        return Ok(());
    }
    if !accepts_loss {
        return Err(DiskError::Damaged { path, faults: vec!["the header of store.db is damaged".into()] });
    }
    tracing::warn!("the header of store.db is damaged; it is written anew, and the rest is checked");
    Ok(file::mend_header(&data.database(), count.format)?)
}

/// Refuses a format that is not known, and carries an older one over.
fn bring_up_to_date(folder: &Folder) -> Result<(), DiskError> {
    let (path, data) = (folder.root().to_owned(), folder.data());
    let Ok(header) = file::header(&data.database()) else { return Ok(()) };
    match header {
        header if !header.is_ours => Err(DiskError::Foreign { path }),
        header if header.version > VERSION => Err(DiskError::Newer { path, version: header.version }),
        header if header.version == VERSION => Ok(()),
        header => {
            // Formats that had no sums can at least show that their log ends where it should.
            let log = wal::scan(&data.log())?;
            if log.has_bad_header || log.is_damaged() {
                return Err(DiskError::Damaged { path, faults: vec!["the write-ahead log is damaged".into()] });
            }
            let old = file::connect(&data.database())?;
            let next = make(folder, 0, |new| Ok(copy::copy(&old, new, false).map(drop)?))?;
            drop(old);
            tracing::info!(from = header.version, to = VERSION, folder = %next.folder().display(), "carried over");
            Ok(folder.finish_next(None)?)
        }
    }
}

/// Keeps what is whole, as a store with new lives of all its topics, and sets the damaged files aside.
fn salvage(folder: &Folder, faults: &[String]) -> Result<(), DiskError> {
    let data = folder.data();
    let known = counter::read(&data.counter()).ok().flatten().map_or(0, |count| count.commits);
    let damaged = file::connect(&data.database())?;
    let (mut copied, mut topics) = (copy::Copied::default(), 0);
    make(folder, known + 1, |new| {
        copied = copy::copy(&damaged, new, true)?;
        copied.dropped += copy::mend(new)?;
        topics = copy::renew_lives(new)?;
        Ok(())
    })?;
    drop(damaged);
    let aside = folder.root().join(format!("damaged-{}", copy::random()?));
    folder.finish_next(Some(&aside))?;
    tracing::warn!(
        ?faults, kept = copied.rows, dropped = copied.dropped, topics, aside = %aside.display(),
        "a loss was accepted: every topic begins a new life"
    );
    Ok(())
}

/// Gives pages that nothing is in back to the volume, if there are more than are soon used again. The file is cut when its
/// log is carried over, so that is done too.
pub fn give_back(connection: &Connection, is_urgent: bool) -> rusqlite::Result<()> {
    let number = |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    if !is_urgent {
        let spare = (number("page_count")? / 4).max(SPARE_PAGES);
        if number("freelist_count")? > spare {
            cut(connection, PAGES_A_STEP)?;
            empty(connection)?;
        }
        return Ok(());
    }
    empty(connection)?;
    for _ in 0..URGENT_STEPS {
        if number("freelist_count")? == 0 {
            break;
        }
        cut(connection, PAGES_AN_URGENT_STEP)?;
        empty(connection)?;
    }
    Ok(())
}

/// Takes so many free pages off the file's end.
fn cut(connection: &Connection, pages: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn named(root: &Path, error: io::Error) -> DiskError {
    DiskError::Io(io::Error::new(error.kind(), format!("{}: {error}", root.display())))
}

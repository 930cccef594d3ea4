//! A copy of a store as of one moment, whether a hub uses it or not, and back again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::check::Whole;
use super::folder::Folder;
use super::lock::LockError;
use super::{DiskError, VERSION, check, copy, file, judge, make, take};
use crate::store::Held;

/// Copies the store of a folder into one file, in one step: as of one commit. A hub may go on writing meanwhile; its log
/// grows until the copy is done. What was copied is checked before it gets its name.
pub fn back_up(root: &Path, to: &Path) -> Result<Held, DiskError> {
    if to.exists() {
        return Err(DiskError::Exists { path: to.to_owned() });
    }
    let folder = Folder::new(root);
    let data = folder.data();
    if !data.database().exists() {
        return Err(DiskError::Missing { path: root.to_owned() });
    }
    // With the folder to ourselves we are the ones who open it, and must look before SQLite does. A hub that has it has
    // looked, and reading beside it changes nothing.
    let (source, _lock) = match take(&folder) {
        Ok(lock) => (judge(&data).map_err(|verdict| verdict.told(root))?.0, Some(lock)),
        Err(DiskError::Taken { why: LockError::Taken(_), .. }) => (beside(&data.database())?, None),
        Err(error) => return Err(error),
    };
    let part = partial(to);
    let copied = write(&source, &part).and_then(|whole| {
        fs::rename(&part, to)?;
        file::sync_folder(parent(to))?;
        Ok(whole)
    });
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    copied.map(held)
}

/// Makes the store of a folder from a backup. It goes on as another one: every topic begins a new life, since positions
/// may have been given out after the backup was made.
pub fn restore(root: &Path, from: &Path) -> Result<Held, DiskError> {
    let header = file::header(from).map_err(|error| super::named(from, error))?;
    if !header.is_ours {
        return Err(DiskError::Foreign { path: from.to_owned() });
    }
    if header.version > VERSION {
        return Err(DiskError::Newer { path: from.to_owned(), version: header.version });
    }
    let folder = Folder::new(root);
    folder.make()?;
    let _lock = take(&folder)?;
    if folder.settle()? {
        return Err(DiskError::Occupied { path: root.to_owned() });
    }
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    crate::store::embedded::sum::register(&source, true)?;
    let mut commits = 0;
    if header.version == VERSION {
        let whole =
            check::check(&source, None).map_err(|faults| DiskError::Damaged { path: from.to_owned(), faults })?;
        commits = whole.commits;
    }
    make(&folder, commits + 1, |new| {
        copy::copy(&source, new, false)?;
        copy::renew_lives(new)?;
        Ok(())
    })?;
    folder.finish_next(None)?;
    let (_, whole, _) = judge(&folder.data()).map_err(|verdict| verdict.told(root))?;
    Ok(held(whole))
}

fn held(whole: Whole) -> Held {
    Held { topics: whole.topics, messages: whole.messages }
}

/// A connection that reads beside the hub's.
fn beside(database: &Path) -> Result<Connection, DiskError> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn write(source: &Connection, part: &Path) -> Result<Whole, DiskError> {
    make_private(part)?;
    let mut copy = Connection::open(part)?;
    {
        let backup = Backup::new(source, &mut copy)?;
        // One step: one with pauses begins again whenever something is written.
        let done = backup.step(-1)?;
        if done != rusqlite::backup::StepResult::Done {
            return Err(io::Error::other(format!("the copy was not finished: {done:?}")).into());
        }
    }
    // A single file, without a log beside it.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    crate::store::embedded::sum::register(&copy, true)?;
    let whole = check::check(&copy, None).map_err(|faults| DiskError::Damaged { path: part.to_owned(), faults })?;
    copy.close().map_err(|(_, error)| error)?;
    fs::File::open(part)?.sync_all()?;
    Ok(whole)
}

/// Makes an empty file that its owner alone may read: it will hold every message. A file that an interrupted backup has
/// left may be readable to others.
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if path.exists() {
        fs::remove_file(path)?;
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

fn partial(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    to.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

//! The room on the volume. Storing is refused while there is little of it, before SQLite finds none: what is there can
//! then still be acknowledged and deleted, and deleting needs room too. For a volume that others fill there is a
//! ballast, a file that is given up when a deletion finds no room, and made again when there is enough.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::folder::Folder;

const MIB: u64 = 1 << 20;
/// The size of the write-ahead log beyond which it is emptied, or its share of a small volume. What it holds may have to
/// be added to the file before it can be emptied, so neither of the next two is smaller.
const LOG: u64 = 32 * MIB;
const LOG_SHARE: u64 = 20;
/// Free bytes below which nothing is stored: so many, or a share of a small volume.
const RESERVE: u64 = 2 * LOG;
const RESERVE_SHARE: u64 = 10;
/// The size of the ballast, or its share of a small volume.
const BALLAST: u64 = LOG;
const BALLAST_SHARE: u64 = LOG_SHARE;
/// How long nothing is stored after SQLite found no room where the volume tells of some: a quota, or a limit of the process.
const REST: Duration = Duration::from_secs(1);
/// How long a log that is too long is left alone after it could not be emptied, since somebody reads it.
const BREATH: Duration = Duration::from_millis(2);
/// What all messages may take unless somebody says: so much, or four fifths of the volume.
const TOTAL: u64 = 10 << 30;

pub struct Room {
    folder: PathBuf,
    ballast: PathBuf,
    log: PathBuf,
    log_tried: Option<Instant>,
    size: u64,
    reserve: u64,
    volume: u64,
    rests_until: Option<Instant>,
    is_low: bool,
}

impl Room {
    pub fn open(folder: &Folder) -> io::Result<Room> {
        let (volume, _) = measure(folder.root())?;
        let mut room = Room {
            folder: folder.root().to_owned(),
            ballast: folder.ballast(),
            log: folder.data().log(),
            log_tried: None,
            size: BALLAST.min(volume / BALLAST_SHARE),
            reserve: RESERVE.min(volume / RESERVE_SHARE),
            volume,
            rests_until: None,
            is_low: false,
        };
        room.rest();
        Ok(room)
    }

    /// Bytes of all messages, where nobody has said how many.
    pub fn usual_total(&self) -> u64 {
        TOTAL.min(self.volume / 5 * 4)
    }

    /// Whether the write-ahead log has grown to its bound, and is to be emptied now. Costs a system call.
    pub fn log_is_long(&mut self) -> bool {
        let is_long = self.log_tried.is_none_or(|tried| tried.elapsed() >= BREATH)
            && self.log_length() > LOG.min(self.volume / LOG_SHARE);
        if is_long {
            self.log_tried = Some(Instant::now());
        }
        is_long
    }

    /// Whether storing would soon be refused, with what the log adds to the file: it is emptied while there is room for that.
    /// Costs two system calls.
    pub fn is_tight(&self) -> bool {
        let log = self.log_length();
        log > 0 && self.free().is_some_and(|free| free < self.reserve.saturating_add(log))
    }

    fn log_length(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |found| found.len())
    }

    /// Why nothing may be stored now. Costs a system call.
    pub fn refusal(&mut self) -> Option<String> {
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return Some(format!("there is no room left in {}", self.folder.display()));
        }
        self.rests_until = None;
        let free = self.free()?;
        // Once refused, a little more must be free: emptying the log frees some, and would begin it all again.
        let least = if self.is_low { self.reserve + self.reserve / 4 } else { self.reserve };
        self.is_low = free < least;
        self.is_low.then(|| {
            let (free, least, folder) = (free / MIB, least.div_ceil(MIB), self.folder.display());
            format!("{free} MiB are free for {folder}, {least} MiB are kept for what makes room; free some")
        })
    }

    /// SQLite found no room: gives up the ballast.
    pub fn note_full(&mut self) {
        self.rests_until = Some(Instant::now() + REST);
        match fs::remove_file(&self.ballast) {
            Ok(()) => tracing::warn!(bytes = self.size, "no room on the volume: the ballast is given up"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, "the ballast cannot be given up"),
        }
    }

    /// Makes the ballast again once there is room for it. To be called now and then.
    pub fn rest(&mut self) {
        let is_there = fs::metadata(&self.ballast).is_ok_and(|found| found.len() >= self.size);
        if is_there || self.free().is_none_or(|free| free < self.reserve + self.size) {
            return;
        }
        let made = File::create(&self.ballast)
            .and_then(|file| fallocate(&file, FallocateFlags::empty(), 0, self.size).map_err(io::Error::from));
        if let Err(error) = made {
            // Some file systems cannot reserve; the reserve above is all that there is then.
            tracing::debug!(%error, "no ballast");
            let _ = fs::remove_file(&self.ballast);
        }
    }

    /// A volume that does not tell counts as having room.
    fn free(&self) -> Option<u64> {
        measure(&self.folder).ok().map(|(_, free)| free)
    }
}

/// Bytes of the volume, and those that are free.
fn measure(folder: &std::path::Path) -> io::Result<(u64, u64)> {
    let told = statvfs(folder)?;
    Ok((told.f_blocks.saturating_mul(told.f_frsize), told.f_bavail.saturating_mul(told.f_frsize)))
}

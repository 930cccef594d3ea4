//! The number of the newest synced commit, in a file beside the database: what is missing at the end of the database is
//! known by it. Two records, written in turns, so that one is whole whatever becomes of the other.
//!
//! It is written after each commit and synced once a second. A process that is killed leaves it exact, since the
//! kernel has it; a loss of power may take the last second of it, never set it ahead of the database.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const MAGIC: [u8; 8] = *b"FANFCNT1";
/// Each record has a sector of its own.
const SECTOR: u64 = 512;
const RECORD: usize = 32;
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What a counter's file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The store that it belongs to.
    pub life: u64,
    pub commits: u64,
    /// The format of that store, which its damaged file may not tell any more.
    pub format: u32,
}

pub struct Counter {
    file: File,
    life: u64,
    format: u32,
    synced: Instant,
    is_due: bool,
    has_failed: bool,
}

impl Counter {
    /// Makes the file of a new store, and syncs it.
    pub fn create(path: &Path, count: Count) -> io::Result<()> {
        let file = File::options().write(true).create_new(true).open(path)?;
        for slot in 0..2 {
            file.write_all_at(&record(count), slot * SECTOR)?;
        }
        file.sync_all()
    }

    /// Opens it to be written. It is known to belong to this store.
    pub fn open(path: &Path, life: u64, format: u32) -> io::Result<Counter> {
        let file = File::options().write(true).open(path)?;
        Ok(Counter { file, life, format, synced: Instant::now(), is_due: false, has_failed: false })
    }

    /// Says that so many commits are synced. A failure is logged once: it weakens the guard and loses nothing.
    pub fn write(&mut self, commits: u64) {
        let record = record(Count { life: self.life, commits, format: self.format });
        let done = self.file.write_all_at(&record, commits % 2 * SECTOR);
        self.note(done);
        self.is_due = true;
        self.sync_if_due();
    }

    pub fn sync_if_due(&mut self) {
        if self.is_due && self.synced.elapsed() >= SYNC_EVERY {
            self.sync();
        }
    }

    fn sync(&mut self) {
        let done = self.file.sync_data();
        self.note(done);
        (self.is_due, self.synced) = (false, Instant::now());
    }

    fn note(&mut self, done: io::Result<()>) {
        match done {
            Ok(()) => self.has_failed = false,
            Err(error) if !self.has_failed => {
                tracing::error!(%error, "the store's counter of commits cannot be written; damage may go unseen");
                self.has_failed = true;
            }
            Err(_) => {}
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if self.is_due {
            self.sync();
        }
    }
}

/// What the file says; `None` if no record of it is whole. The higher of two counts.
pub fn read(path: &Path) -> io::Result<Option<Count>> {
    let bytes = std::fs::read(path)?;
    let slots = [0, SECTOR as usize].map(|start| bytes.get(start..start + RECORD).and_then(parse));
    Ok(slots.into_iter().flatten().max_by_key(|count| count.commits))
}

fn record(count: Count) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&count.life.to_le_bytes());
    bytes[16..24].copy_from_slice(&count.commits.to_le_bytes());
    bytes[24..28].copy_from_slice(&count.format.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Option<Count> {
    let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let is_whole = bytes.starts_with(&MAGIC) && word(28)? == crc32fast::hash(&bytes[..28]);
    is_whole.then_some(Count { life: number(8)?, commits: number(16)?, format: word(24)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_damaged_record_leaves_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commits");
        Counter::create(&path, Count { life: 7, commits: 0, format: 2 }).unwrap();
        let mut counter = Counter::open(&path, 7, 2).unwrap();
        (1..=9).for_each(|n| counter.write(n));
        drop(counter);
        let count = |commits| Some(Count { life: 7, commits, format: 2 });
        assert_eq!(read(&path).unwrap(), count(9));
        let whole = std::fs::read(&path).unwrap();
        for (bit, left) in [(0, 9), (SECTOR as usize * 8 + 100, 8), (SECTOR as usize * 8 + 220, 8)] {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path).unwrap(), count(left), "bit {bit}");
        }
        std::fs::write(&path, &whole[..10]).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }
}

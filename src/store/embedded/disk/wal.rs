//! Looks at SQLite's write-ahead log before SQLite does. SQLite takes the log up to the first frame that does not add up
//! and forgets the rest without a word: right where a write was torn by a loss of power, and a loss where a bit has
//! flipped. A torn write is the last commit at most, since the next one begins after the sync of the one before.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// What a log holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Commits that SQLite will take.
    pub commits: u64,
    /// Commits of the same log at or behind the first frame that does not add up.
    pub beyond: u64,
    /// There are frames, and what stands before them does not add up.
    pub has_bad_header: bool,
}

impl Report {
    /// More is missing than a write that was cut off.
    pub fn is_damaged(&self) -> bool {
        self.has_bad_header || self.beyond > 1
    }
}

/// Reads the whole log; a file that is not there holds nothing.
pub fn scan(path: &Path) -> io::Result<Report> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Report::default()),
        Err(error) => return Err(error),
    };
    let has_frames = file.metadata()?.len() > (HEADER + FRAME_HEADER) as u64;
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; HEADER];
    if !has_frames || !fill(&mut input, &mut header)? {
        return Ok(Report::default());
    }
    let Some(log) = Log::of(&header) else { return Ok(Report { has_bad_header: true, ..Report::default() }) };
    log.follow(&mut input)
}

struct Log {
    words: fn([u8; 4]) -> u32,
    page: usize,
    salt: [u8; 8],
    sum: (u32, u32),
}

impl Log {
    fn of(header: &[u8; HEADER]) -> Option<Log> {
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let words = match word(0).checked_sub(MAGIC)? {
            0 => u32::from_le_bytes,
            1 => u32::from_be_bytes,
            _ => return None,
        };
        let page = word(8) as usize;
        let salt = header[16..24].try_into().ok()?;
        let sum = add((0, 0), &header[..24], words);
        let is_whole = sum == (word(24), word(28)) && (512..=65_536).contains(&page) && page.is_power_of_two();
        is_whole.then_some(Log { words, page, salt, sum })
    }

    fn follow(mut self, input: &mut impl Read) -> io::Result<Report> {
        let mut report = Report::default();
        let mut frame = vec![0; FRAME_HEADER + self.page];
        let mut is_chain_whole = true;
        while fill(input, &mut frame)? {
            let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
            let is_ours = frame[8..16] == self.salt;
            let sum = add(add(self.sum, &frame[..8], self.words), &frame[FRAME_HEADER..], self.words);
            is_chain_whole &= is_ours && word(0) != 0 && sum == (word(16), word(20));
            let is_commit = word(4) != 0;
            if is_chain_whole {
                self.sum = sum;
                report.commits += u64::from(is_commit);
            } else {
                // Frames of an earlier round of the log have another salt.
                report.beyond += u64::from(is_ours && is_commit);
            }
        }
        Ok(report)
    }
}

/// SQLite's checksum: two sums over pairs of words.
fn add((mut a, mut b): (u32, u32), bytes: &[u8], words: fn([u8; 4]) -> u32) -> (u32, u32) {
    for pair in bytes.chunks_exact(8) {
        a = a.wrapping_add(words([pair[0], pair[1], pair[2], pair[3]])).wrapping_add(b);
        b = b.wrapping_add(words([pair[4], pair[5], pair[6], pair[7]])).wrapping_add(a);
    }
    (a, b)
}

/// Fills the buffer; `false` where the file ends before.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// A log of so many commits of one page each, as SQLite writes it.
    fn log(commits: i64) -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (n)")
            .unwrap();
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        for n in 0..commits {
            connection.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
        }
        let bytes = std::fs::read(folder.path().join("a.db-wal")).unwrap();
        drop(connection);
        (folder, bytes)
    }

    fn scanned(folder: &tempfile::TempDir, bytes: &[u8]) -> Report {
        let path = folder.path().join("copy");
        std::fs::write(&path, bytes).unwrap();
        scan(&path).unwrap()
    }

    #[test]
    fn a_whole_log_and_a_torn_end_are_well_and_a_flipped_bit_is_not() {
        let (folder, whole) = log(10);
        assert_eq!(scanned(&folder, &whole), Report { commits: 10, beyond: 0, has_bad_header: false });
        let frame = (whole.len() - HEADER) / 10;
        // Cut anywhere within the last frame: that commit was not synced.
        let torn = scanned(&folder, &whole[..whole.len() - frame / 2]);
        assert!(torn.commits == 9 && !torn.is_damaged(), "{torn:?}");
        for at in [HEADER + 5, HEADER + frame * 4 + 12, HEADER + frame * 8 + 100, 3, 20] {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            let report = scanned(&folder, &bytes);
            assert!(report.is_damaged() && report.commits < 9, "{at}: {report:?}");
        }
        // In the last commit it cannot be told from a torn write; the counter tells.
        let mut bytes = whole.clone();
        bytes[HEADER + frame * 9 + 100] ^= 4;
        assert!(!scanned(&folder, &bytes).is_damaged());
        assert_eq!(scanned(&folder, &[]), Report::default());
        assert_eq!(scan(&folder.path().join("none")).unwrap(), Report::default());
    }
}

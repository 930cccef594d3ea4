//! One process has the folder. A lock of the kernel, which goes with the process however it ends; the file holds the
//! process' number for whoever comes second.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

const NAME: &str = "lock";

/// The folder is ours while this lives.
pub struct Lock(File);

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("in use by another process{}", .0.map_or(String::new(), |pid| format!(", {pid}")))]
    Taken(Option<u32>),
    #[error("{0}")]
    Failed(#[from] io::Error),
}

impl Lock {
    pub fn take(folder: &Path) -> Result<Lock, LockError> {
        let path = folder.join(NAME);
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(LockError::Taken(text.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        file.rewind()?;
        file.set_len(0)?;
        // On a full disk the number is not told; the lock holds all the same.
        let _ = file.write_all(format!("{}\n", std::process::id()).as_bytes());
        Ok(Lock(file))
    }
}

impl Drop for Lock {
    /// Closing is not enough: a process that is just being started from another thread holds the file too, for a moment.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).err().unwrap();
        assert_eq!(error.to_string(), format!("in use by another process, {}", std::process::id()));
        drop(lock);
        Lock::take(folder.path()).unwrap();
    }
}

//! A clock on the wall for one process, which can be set while it runs: the process has a library preloaded that is wrong by
//! what a file says (`timepiece.c`).

use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Timepiece {
    folder: tempfile::TempDir,
}

impl Timepiece {
    /// One that is right.
    pub fn new() -> Timepiece {
        let piece = Timepiece { folder: tempfile::tempdir().expect("a temporary directory") };
        piece.set(0);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/timepiece.c");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(piece.library()).arg(source).output();
        let built = built.expect("cc is installed");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        piece
    }

    /// Sets it so many seconds before the right time, or behind it.
    pub fn set(&self, ahead: i64) {
        // In place: whoever looks has the file mapped.
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.file());
        let written = file.and_then(|file| std::os::unix::fs::FileExt::write_all_at(&file, &ahead.to_ne_bytes(), 0));
        written.expect("the file can be written");
    }

    /// What a process needs to go by it.
    pub fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("LD_PRELOAD", self.library()), ("CLOCK_AHEAD", self.file())]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ahead")
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("timepiece.so")
    }
}

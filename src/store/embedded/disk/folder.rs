//! What lies where in a store's folder, and how one whole store takes the place of another there.
//!
//! The database, its log and its counter lie in `data`. Whatever is made anew (a first store, a higher format, what was
//! saved of a damaged one, a backup) is made whole in `next` and synced, and then named `data`: a crash leaves the one
//! or the other, never half of both.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file::sync_folder;

#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

/// The files of one store.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    pub fn folder(&self) -> &Path {
        &self.0
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("store.db")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("store.db-wal")
    }

    pub fn counter(&self) -> PathBuf {
        self.0.join("commits")
    }
}

impl Folder {
    pub fn new(root: &Path) -> Folder {
        Folder { root: root.to_owned() }
    }

    /// Makes the folder if it is not there, for its owner only.
    pub fn make(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn data(&self) -> Place {
        Place(self.root.join("data"))
    }

    pub fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Whether there is a store, however it is. Finishes or clears away what a crash has left of a change.
    pub fn settle(&self) -> io::Result<bool> {
        let (data, next) = (self.data().0, self.next().0);
        if !data.exists() && next.join("whole").exists() {
            self.name_next()?;
        }
        for left in [next, self.before()] {
            if data.exists() && left.exists() {
                fs::remove_dir_all(&left)?;
            }
        }
        Ok(data.exists())
    }

    /// An empty place to make a store in.
    pub fn begin_next(&self) -> io::Result<Place> {
        let next = self.next();
        if next.0.exists() {
            fs::remove_dir_all(&next.0)?;
        }
        fs::create_dir(&next.0)?;
        Ok(next)
    }

    /// Puts what was made in the place of what is there, which is kept under another name if one is given.
    pub fn finish_next(&self, keep: Option<&Path>) -> io::Result<()> {
        let (data, next) = (self.data().0, self.next().0);
        // Only what is whole may be taken for the store after a crash between the two renames.
        fs::File::create(next.join("whole"))?.sync_all()?;
        sync_folder(&next)?;
        let aside = keep.map_or(self.before(), Path::to_owned);
        if data.exists() {
            fs::rename(&data, &aside)?;
        }
        self.name_next()?;
        if keep.is_none() && aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        Ok(())
    }

    fn name_next(&self) -> io::Result<()> {
        let data = self.data();
        fs::rename(&self.next().0, &data.0)?;
        sync_folder(&self.root)?;
        fs::remove_file(data.0.join("whole"))
    }

    fn before(&self) -> PathBuf {
        self.root.join("before")
    }

    fn next(&self) -> Place {
        Place(self.root.join("next"))
    }
}

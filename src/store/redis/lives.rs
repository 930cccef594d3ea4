//! In which life each group of topics is: the `master_replid` of the server that serves it.
//!
//! The scripts themselves begin a new epoch of a topic where it changes. Here it is known beforehand, for entries of an
//! ingest queue: one goes to a life only if what that life may lack was stored again before (`Fence::under`), and the
//! script compares the life once more, in the step that stores.

use std::sync::{Arc, Mutex, PoisonError};

use redis::Script;

pub(super) struct Lives(Mutex<Arc<Known>>);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Stands for all of them together.
    pub print: Arc<str>,
    /// Of each group; one for all on a single Redis.
    lives: Vec<String>,
}

impl Lives {
    pub fn new(lives: Vec<String>) -> Lives {
        Lives(Mutex::new(Arc::new(Known::new(lives))))
    }

    pub fn known(&self) -> Arc<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, lives: Vec<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.lives != lives {
            *known = Arc::new(Known::new(lives));
            tracing::info!(life = &*known.print, "the store is in another life");
        }
    }
}

impl Known {
    fn new(lives: Vec<String>) -> Known {
        let print = match lives.as_slice() {
            [only] => only.as_str().into(),
            several => Script::new(&several.join(" ")).get_hash().into(),
        };
        Known { print, lives }
    }

    pub fn of(&self, group: u16) -> &str {
        match self.lives.as_slice() {
            [only] => only,
            several => several.get(usize::from(group)).map_or("", String::as_str),
        }
    }

    pub fn all(&self) -> &[String] {
        &self.lives
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_print_tells_any_change_and_one_server_is_its_own() {
        let lives = Lives::new(vec!["a".into()]);
        assert_eq!((&*lives.known().print, lives.known().of(17)), ("a", "a"));
        let lives = Lives::new(vec!["a".into(), "b".into()]);
        let before = lives.known();
        assert_eq!((before.of(0), before.of(1), before.of(2)), ("a", "b", ""));
        lives.set(vec!["a".into(), "b".into()]);
        assert_eq!(lives.known().print, before.print);
        lives.set(vec!["a".into(), "c".into()]);
        assert_ne!(lives.known().print, before.print);
    }
}

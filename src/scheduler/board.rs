//! What is known of each schedule, to be looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::schedule::{Schedule, Seen};

#[derive(Clone)]
pub struct Board(Arc<Mutex<BTreeMap<Box<str>, Seen>>>);

impl Board {
    pub fn new(schedules: &[Schedule]) -> Board {
        let seen = |Schedule { name, cron, target, catch_up, .. }: &Schedule| Seen {
            name: name.clone(),
            cron: cron.as_str().into(),
            timezone: cron.zone().into(),
            target: target.clone(),
            catch_up: *catch_up,
            next: None,
            last: None,
        };
        Board(Arc::new(Mutex::new(schedules.iter().map(|s| (s.name.clone(), seen(s))).collect())))
    }

    pub fn all(&self) -> Vec<Seen> {
        self.table().values().cloned().collect()
    }

    pub(super) fn set_next(&self, name: &str, next: Option<u64>) {
        if let Some(seen) = self.table().get_mut(name) {
            seen.next = next;
        }
    }

    pub(super) fn set_last(&self, name: &str, last: Option<u64>) {
        if let Some(seen) = self.table().get_mut(name) {
            seen.last = last;
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

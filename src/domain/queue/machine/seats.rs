//! Who may take where workers are bounded: the others stand by.

use std::collections::BTreeMap;

use super::Machine;
use crate::domain::queue::SEAT;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seats(BTreeMap<Box<str>, u64>);

impl Seats {
    /// Keeps the seat of a worker, or gives one of so many to it. `false`: others have them all.
    pub fn take(&mut self, worker: &str, most: u32, now: u64) -> bool {
        self.prune(now);
        let until = now.saturating_add(SEAT.as_millis() as u64);
        let may_sit = self.0.contains_key(worker) || self.0.len() < most as usize;
        if may_sit {
            self.0.insert(worker.into(), until);
        }
        may_sit
    }

    /// Takes seats away that have ended; says whether there were any.
    pub fn prune(&mut self, now: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|_, until| *until > now);
        self.0.len() < before
    }

    pub fn leave(&mut self, worker: &str) -> bool {
        self.0.remove(worker).is_some()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Those whose seat has not ended.
    pub fn holders(&self, now: u64) -> Vec<Box<str>> {
        self.0.iter().filter(|(_, until)| **until > now).map(|(worker, _)| worker.clone()).collect()
    }

    pub fn first_end(&self) -> Option<u64> {
        self.0.values().min().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Machine {
    /// A worker gives its seat up; whoever stands by is woken up.
    pub fn leave(&mut self, worker: &str, now: u64) -> bool {
        let had_one = self.seats.leave(worker);
        self.finish(now);
        self.changed.wakes_takers |= had_one && self.is_takeable();
        had_one
    }
}

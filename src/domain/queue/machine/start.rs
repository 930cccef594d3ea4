//! When a queue begins to give out, or to tell: `start_when`.
//!
//! Armed at first. It fires when one of its arms is true, and is armed again when nothing waits, or when `batch` jobs have
//! been taken since. In mode `gate` nothing is given out while it is armed. It is judged at the end of each call (of a batch:
//! of each item), so one take never goes beyond one firing.

use super::rows::Untold;
use super::{MOST_UNTOLD, Machine};
use crate::domain::queue::{Arm, CLAIM, Firing, Priority, Start};

impl Machine {
    /// The gate is open, or there is none.
    pub(super) fn is_open(&self) -> bool {
        !self.has_gate() || !self.header.is_armed
    }

    pub(super) fn has_gate(&self) -> bool {
        self.settings.start_when.as_ref().is_some_and(|start| start.mode == Start::Gate)
    }

    /// Jobs that may still be taken before it is armed again.
    pub(super) fn left_of_batch(&self) -> usize {
        match &self.settings.start_when {
            Some(start) if start.mode == Start::Gate => {
                let left = start.batch.map_or(u64::MAX, |batch| batch.saturating_sub(self.header.taken_since));
                usize::try_from(left).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }

    pub(super) fn judge(&mut self, now: u64) {
        let Some(start) = &self.settings.start_when else { return };
        let is_over = start.batch.is_some_and(|batch| self.header.taken_since >= batch);
        if !self.header.is_armed && (is_over || self.index.waiting_len() == 0) {
            self.header.is_armed = true;
            self.changed.has_header = true;
        }
        if self.header.is_armed
            && let Some(arm) = start.any.iter().position(|arm| self.is_true(arm, now))
        {
            self.fire(arm, now);
        }
    }

    fn is_true(&self, arm: &Arm, now: u64) -> bool {
        match *arm {
            Arm::Count(count) => self.index.waiting_len() >= count,
            Arm::Urgent { count, min_priority } => {
                self.index.waiting[min_priority.level() as usize..].iter().sum::<u64>() >= count
            }
            Arm::Oldest(age) => {
                self.oldest_since().is_some_and(|since| since.saturating_add(age.as_millis() as u64) <= now)
            }
        }
    }

    fn fire(&mut self, arm: usize, now: u64) {
        let header = &mut self.header;
        (header.is_armed, header.taken_since) = (false, 0);
        header.firings += 1;
        let number = header.firings;
        let oldest = self.oldest_since().map_or(0, |since| now.saturating_sub(since));
        let untold = &mut self.header.untold;
        untold.push_back(Untold { number, waiting: self.index.waiting, oldest, arm, time: now });
        if untold.len() > MOST_UNTOLD {
            untold.pop_front();
            self.claimed = 0;
        }
        self.changed.has_header = true;
        self.changed.has_fired = true;
    }

    /// Since when the one of the first of each priority has been takeable that has been so for longest.
    pub(super) fn oldest_since(&self) -> Option<u64> {
        let firsts = (0..Priority::LEVELS as u8).filter_map(Priority::new).filter_map(|p| self.index.first_of(p));
        firsts.filter_map(|number| self.index.get(number)).map(|job| job.until).min()
    }

    /// When an arm of age becomes true, if nothing else changes.
    pub(super) fn next_age(&self) -> Option<u64> {
        let start = self.settings.start_when.as_ref().filter(|_| self.header.is_armed)?;
        let ages = start.any.iter().filter_map(|arm| match arm {
            Arm::Oldest(age) => Some(age.as_millis() as u64),
            Arm::Count(_) | Arm::Urgent { .. } => None,
        });
        let age = ages.min()?;
        Some(self.oldest_since()?.saturating_add(age))
    }

    /// A firing waits to be told, and is nobody's to tell.
    pub(super) fn has_fired(&self, now: u64) -> bool {
        !self.header.untold.is_empty() && self.claimed <= now
    }

    /// The oldest firing that waits to be told, for the caller to tell it.
    pub(super) fn claim(&mut self, now: u64) -> Option<Firing> {
        let untold = self.header.untold.front().filter(|_| self.claimed <= now)?;
        self.claimed = now.saturating_add(CLAIM.as_millis() as u64);
        Some(untold.firing(&self.queue))
    }

    /// A firing was told.
    pub fn told(&mut self, number: u64) -> bool {
        let before = self.header.untold.len();
        let is_first = self.header.untold.front().is_some_and(|untold| untold.number == number);
        self.header.untold.retain(|untold| untold.number != number);
        if is_first {
            self.claimed = 0;
            // There may be another one to be told.
            self.changed.has_fired |= !self.header.untold.is_empty();
        }
        let was_there = self.header.untold.len() < before;
        self.changed.has_header |= was_there;
        was_there
    }
}

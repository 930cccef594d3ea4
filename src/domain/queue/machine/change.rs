//! What operators do.

use super::{Machine, Spot};
use crate::domain::queue::settings::QueueSettings;
use crate::domain::queue::{Death, JobId, Place};
use crate::domain::store::StoreError;

impl Machine {
    /// Other settings hold from now on. What waits is kept, dead letters that are too many go.
    pub fn set_settings(&mut self, settings: QueueSettings, now: u64) {
        self.move_due(now);
        self.settings = settings;
        if self.settings.start_when.is_none() {
            let header = &mut self.header;
            (header.is_armed, header.taken_since) = (true, 0);
            header.untold.clear();
            self.claimed = 0;
        }
        if self.settings.max_workers.is_none() {
            self.seats.clear();
        }
        self.changed.has_header = true;
        self.mend_groups(now);
        self.trim_dead(now);
        self.finish(now);
    }

    pub fn pause(&mut self, is_paused: bool, now: u64) -> bool {
        let is_new = std::mem::replace(&mut self.header.is_paused, is_paused) != is_paused;
        self.changed.has_header |= is_new;
        self.finish(now);
        is_new
    }

    /// A dead letter's body is of another size now; `false`: there is no such dead letter.
    pub fn edit(&mut self, job: JobId, bytes: u32) -> Result<bool, StoreError> {
        let Some((number, known)) = self.number_of(job).and_then(|number| Some((number, *self.index.get(number)?)))
        else {
            return Ok(false);
        };
        if !known.spot.is_dead() {
            return Ok(false);
        }
        let dead_bytes = self.index.dead_bytes - u64::from(known.bytes) + u64::from(bytes);
        if dead_bytes > self.settings.dead_bytes {
            let text = format!("the dead letters of the queue would take {dead_bytes} bytes (dead_bytes)");
            return Err(StoreError::Full(text));
        }
        self.index.change(number, |job| job.bytes = bytes);
        Ok(true)
    }

    /// Makes dead letters wait again: these, or the oldest so many of a cause. They have all their tries, and no time to
    /// live any more. One whose group has a head comes behind it. Stops where the queue is full.
    pub fn redrive(&mut self, jobs: Option<&[JobId]>, cause: Option<Death>, limit: usize, now: u64) -> u64 {
        self.move_due(now);
        let numbers: Vec<u64> = match jobs {
            Some(jobs) => jobs.iter().filter_map(|job| self.number_of(*job)).collect(),
            None => {
                let is_meant = |number: &u64| {
                    cause.is_none_or(|cause| self.index.get(*number).and_then(|job| job.death) == Some(cause))
                };
                self.index.dead().map(|(_, number)| number).filter(is_meant).take(limit).collect()
            }
        };
        let mut redriven = 0;
        for number in numbers {
            let Some(&job) = self.index.get(number).filter(|job| job.spot.is_dead()) else { continue };
            let bytes = self.index.bytes + u64::from(job.bytes);
            if self.index.live_len() >= self.settings.max_messages || bytes > self.settings.max_bytes {
                break;
            }
            let other = job.group.and_then(|group| self.groups.head(group)).filter(|head| *head != number);
            match (job.group, other) {
                (Some(group), Some(_)) => {
                    self.shift(number, Spot::Parked, 0);
                    self.groups.park(group, number);
                }
                (group, _) => {
                    self.shift(number, Spot::Ready, now);
                    if let Some(group) = group {
                        self.groups.set_head(group, Some(number));
                    }
                }
            }
            self.index.change(number, |job| (job.tries, job.expires, job.death) = (0, 0, None));
            redriven += 1;
        }
        self.header.totals.redriven += redriven;
        self.changed.has_header |= redriven > 0;
        self.finish(now);
        redriven
    }

    /// Removes one job that is not in flight.
    pub fn remove(&mut self, job: JobId, now: u64) -> bool {
        self.move_due(now);
        let number = self.number_of(job);
        let number = number.filter(|n| self.index.get(*n).is_some_and(|job| job.spot != Spot::InFlight));
        if let Some(number) = number {
            self.delete(number, now);
        }
        self.finish(now);
        number.is_some()
    }

    /// Removes all jobs of a place (what waits goes together), or all but the dead.
    pub fn purge(&mut self, place: Option<Place>, now: u64) -> u64 {
        self.move_due(now);
        let is_meant = |spot: Spot| match (place, spot.place()) {
            (None, found) => found != Place::Dead,
            (Some(Place::Ready | Place::Parked), found) => matches!(found, Place::Ready | Place::Parked),
            (Some(place), found) => place == found,
        };
        let numbers: Vec<u64> = match place {
            Some(Place::Delayed) => self.index.delayed().map(|(_, number)| number).collect(),
            Some(Place::InFlight) => self.index.leases().map(|(_, number)| number).collect(),
            Some(Place::Dead) => self.index.dead().map(|(_, number)| number).collect(),
            // From the last, so that nobody becomes the head of a group for a moment.
            _ => self.index.iter().filter(|(_, job)| is_meant(job.spot)).map(|(number, _)| number).rev().collect(),
        };
        for number in &numbers {
            self.delete(*number, now);
        }
        self.finish(now);
        numbers.len() as u64
    }
}

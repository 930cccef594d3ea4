//! How jobs leave: for good, or as dead letters; and what follows in their groups.

use super::index::GroupId;
use super::rows::{Gone, NewAttempt};
use super::{Machine, Spot};
use crate::domain::queue::{Attempt, AttemptEnd, Death, OnDead};

impl Machine {
    /// Puts a job, which may have been elsewhere, into another place.
    pub(super) fn shift(&mut self, number: u64, spot: Spot, until: u64) {
        let Some(job) = self.index.get(number) else { return };
        if let (Some(group), Spot::Parked) = (job.group, job.spot) {
            self.groups.unpark(group, number);
        }
        if job.spot == Spot::InFlight {
            self.flights.remove(&number);
        }
        self.index.change(number, |job| (job.spot, job.until) = (spot, until));
        self.changed.jobs.insert(number);
    }

    /// Makes a dead letter of a job, and room for it.
    pub(super) fn bury(&mut self, number: u64, death: Death, now: u64) {
        let Some(&job) = self.index.get(number) else { return };
        let led = job.group.filter(|group| self.groups.head(*group) == Some(number));
        let holds = led.is_some() && self.settings.on_dead == OnDead::Halt;
        self.shift(number, if holds { Spot::DeadHead } else { Spot::Dead }, now);
        self.index.change(number, |job| job.death = Some(death));
        self.spent.remove(&number);
        self.header.totals.died += 1;
        self.changed.has_header = true;
        if let Some(group) = led.filter(|_| !holds) {
            self.promote(group, now);
        }
        self.trim_dead(now);
    }

    /// Removes the oldest dead letters that are too many.
    pub(super) fn trim_dead(&mut self, now: u64) {
        while self.index.dead_len() as u64 > self.settings.dead_messages
            || self.index.dead_bytes > self.settings.dead_bytes
        {
            let Some((_, oldest)) = self.index.dead().next() else { return };
            self.delete(oldest, now);
            self.header.totals.forgotten += 1;
            self.changed.has_header = true;
        }
    }

    /// Removes a job for good, wherever it is.
    pub(super) fn delete(&mut self, number: u64, now: u64) {
        let Some(job) = self.index.remove(number) else { return };
        self.flights.remove(&number);
        self.spent.remove(&number);
        self.changed.jobs.remove(&number);
        self.changed.gone.push(Gone { number, has_failed: job.failures > 0 });
        if let Some(group) = job.group {
            self.groups.unpark(group, number);
            if self.groups.head(group) == Some(number) {
                self.promote(group, now);
            }
            self.groups.leave(group);
        }
    }

    /// The head of a group is gone: the next one is takeable now.
    pub(super) fn promote(&mut self, group: GroupId, now: u64) {
        let next = self.groups.next(group);
        self.groups.set_head(group, next);
        if let Some(next) = next {
            self.shift(next, Spot::Ready, now);
        }
    }

    /// Brings the groups in line with `on_dead`, and gives a head to those that have none.
    pub(super) fn mend_groups(&mut self, now: u64) {
        let heads: Vec<_> = self.groups.heads().collect();
        for (group, head) in heads {
            let holder = head.filter(|head| self.index.get(*head).is_some_and(|job| job.spot == Spot::DeadHead));
            match (head, holder) {
                (None, _) => self.promote(group, now),
                (_, Some(head)) if self.settings.on_dead == OnDead::Continue => {
                    self.index.change(head, |job| job.spot = Spot::Dead);
                    self.changed.jobs.insert(head);
                    self.promote(group, now);
                }
                _ => {}
            }
        }
    }

    /// Writes down that a delivery failed.
    pub(super) fn fail(&mut self, number: u64, worker: Box<str>, end: AttemptEnd, error: Option<Box<str>>, now: u64) {
        let Some(job) = self.index.get(number) else { return };
        let ordinal = job.failures.saturating_add(1);
        self.index.change(number, |job| job.failures = ordinal);
        self.changed.jobs.insert(number);
        self.changed.attempts.push(NewAttempt { number, ordinal, attempt: Attempt { time: now, worker, end, error } });
    }
}

//! The ends of deliveries, and their extension.

use std::time::Duration;

use super::{Machine, Spot};
use crate::domain::queue::{AttemptEnd, Death, How, JobId, MAX_DELAY, Settle, Settled};

impl Machine {
    pub fn settle(&mut self, settle: &Settle, now: u64) -> Settled {
        self.move_due(now);
        let settled = match self.flying(settle.job, settle.token, now) {
            Ok(number) => self.end(number, &settle.how, now),
            Err(settled) => settled,
        };
        self.finish(now);
        settled
    }

    /// The job of a delivery that is out.
    fn flying(&mut self, job: JobId, token: u64, now: u64) -> Result<u64, Settled> {
        let number = self.number_of(job).ok_or(Settled::Gone)?;
        let is_newest = self.flights.get(&number).is_some_and(|flight| flight.token == token);
        let deadline = self.index.get(number).map_or(0, |job| job.until);
        if !is_newest {
            return Err(Settled::NoLease);
        }
        if deadline <= now {
            // More leases ended than were moved just now.
            self.end_lease(number, deadline, now);
            return Err(Settled::NoLease);
        }
        Ok(number)
    }

    fn end(&mut self, number: u64, how: &How, now: u64) -> Settled {
        let (Some(&job), Some(flight)) = (self.index.get(number), self.flights.get(&number)) else {
            return Settled::NoLease;
        };
        let (begun, worker) = (flight.begun, flight.worker.clone());
        self.changed.has_header |= !matches!(how, How::Extend { .. } | How::Release);
        match how {
            How::Ack => {
                self.header.totals.acked += 1;
                self.delete(number, now);
                Settled::Done
            }
            How::Nack { delay, error } => {
                self.header.totals.nacked += 1;
                self.fail(number, worker, AttemptEnd::Nack, error.clone(), now);
                if u32::from(job.tries) >= self.settings.max_deliveries {
                    self.bury(number, Death::MaxDeliveries, now);
                    return Settled::Dead;
                }
                let delay = delay.unwrap_or_else(|| self.settings.wait_after(job.tries.into())).min(MAX_DELAY);
                match millis(delay) {
                    0 => self.given_back(number, now),
                    _ if job.expires > 0 && job.expires <= now => self.given_back(number, now),
                    delay => {
                        self.shift(number, Spot::Delayed, now.saturating_add(delay));
                        Settled::Done
                    }
                }
            }
            How::Release => {
                self.index.change(number, |job| job.tries -= 1);
                self.given_back(number, now)
            }
            How::Term { error } => {
                self.fail(number, worker, AttemptEnd::Term, error.clone(), now);
                self.bury(number, Death::Term, now);
                Settled::Dead
            }
            How::Extend { by } => {
                let by = by.unwrap_or(self.settings.lease);
                let last = begun.saturating_add(millis(self.settings.max_lease));
                let until = now.saturating_add(millis(by)).min(last);
                self.index.change(number, |job| job.until = until);
                Settled::Extended(Duration::from_millis(until.saturating_sub(now)))
            }
        }
    }

    fn given_back(&mut self, number: u64, now: u64) -> Settled {
        if self.give_back(number, now, now) { Settled::Dead } else { Settled::Done }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

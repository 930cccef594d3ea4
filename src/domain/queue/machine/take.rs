//! Giving out jobs.

use std::sync::Arc;
use std::time::Duration;

use super::{Flight, Machine, Spot};
use crate::domain::message::Body;
use crate::domain::queue::{Death, Held, Job, JobId, MOST_AT_ONCE, MOST_MOVED, Priority, Queue, Take};

/// What a `take` gives, but for the bodies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Took {
    pub lent: Vec<Lent>,
    pub held: Option<Held>,
    pub more: bool,
    pub next: Option<Duration>,
    pub has_fired: bool,
}

/// A job that was taken, but for its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lent {
    pub id: JobId,
    pub token: u64,
    pub tries: u32,
    pub max_tries: u32,
    pub lease: Duration,
    pub priority: Priority,
    pub group: Option<Arc<str>>,
    pub time: u64,
}

impl Lent {
    pub fn with_body(self, queue: Queue, body: Body) -> Job {
        let Lent { id, token, tries, max_tries, lease, priority, group, time } = self;
        let group = group.map(|group| Box::from(&*group));
        Job { queue, id, token, tries, max_tries, lease, priority, group, time, body }
    }
}

impl Machine {
    pub fn take(&mut self, take: &Take, now: u64) -> Took {
        self.move_due(now);
        self.judge(now);
        let may_take = match self.settings.max_workers {
            Some(most) => self.seats.take(&take.worker, most, now),
            None => true,
        };
        let mut lent = Vec::new();
        if may_take && !self.header.is_paused && self.is_open() {
            self.lend(take, now, &mut lent);
        }
        self.finish(now);
        let held = if self.header.is_paused {
            Some(Held::Paused)
        } else if !self.is_open() {
            Some(Held::Gate)
        } else {
            (!may_take).then_some(Held::Seats)
        };
        let more = held.is_none() && self.index.ready_len() > 0;
        Took { lent, held, more, next: self.next_change(now), has_fired: self.has_fired(now) }
    }

    fn lend(&mut self, take: &Take, now: u64, lent: &mut Vec<Lent>) {
        let lease = take.lease.unwrap_or(self.settings.lease).min(self.settings.max_lease);
        let most = take.count.min(MOST_AT_ONCE).min(self.left_of_batch());
        let (mut bytes, mut buried) = (0, 0);
        while lent.len() < most
            && let Some(number) = self.next_to_take()
            && let Some(&job) = self.index.get(number)
        {
            let has_expired = job.expires > 0 && job.expires <= now;
            if has_expired || u32::from(job.tries) >= self.settings.max_deliveries {
                if buried == MOST_MOVED {
                    return;
                }
                buried += 1;
                self.bury(number, if has_expired { Death::Expired } else { Death::MaxDeliveries }, now);
                continue;
            }
            if !lent.is_empty() && bytes + job.bytes as usize > take.bytes {
                return;
            }
            bytes += job.bytes as usize;
            let until = now.saturating_add(lease.as_millis() as u64);
            self.shift(number, Spot::InFlight, until);
            self.index.change(number, |job| job.tries += 1);
            self.flights.insert(number, Flight { token: take.token, begun: now, worker: take.worker.clone() });
            self.header.totals.taken += 1;
            self.header.taken_since += 1;
            self.changed.has_header = true;
            lent.push(Lent {
                id: self.id_of(number),
                token: take.token,
                tries: u32::from(job.tries) + 1,
                max_tries: self.settings.max_deliveries,
                lease,
                priority: job.priority,
                group: job.group.map(|group| self.groups.name(group).clone()),
                time: job.time,
            });
        }
    }

    fn next_to_take(&self) -> Option<u64> {
        match self.settings.fair_every {
            Some(every) if (self.header.totals.taken + 1).is_multiple_of(u64::from(every)) => {
                self.index.oldest(Priority(Priority::LEVELS as u8 - 1))
            }
            _ => self.index.first(),
        }
    }
}

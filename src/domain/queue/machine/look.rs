//! Looking without changing anything.

use std::time::Duration;

use super::{Machine, Spot};
use crate::domain::message::Body;
use crate::domain::queue::{Attempt, JobId, Place, Seen, Stats};

/// Jobs that one look gives.
const MOST_SEEN: usize = 1_000;

impl Machine {
    pub fn stats(&self, now: u64) -> Stats {
        let header = &self.header;
        Stats {
            waiting: self.index.waiting,
            parked: self.index.parked,
            delayed: self.index.delayed_len() as u64,
            in_flight: self.index.in_flight_len() as u64,
            dead: self.index.dead_len() as u64,
            bytes: self.index.bytes,
            dead_bytes: self.index.dead_bytes,
            oldest: self.oldest_since().map(|since| Duration::from_millis(now.saturating_sub(since))),
            paused: header.is_paused,
            gate_open: self.has_gate().then(|| self.is_open()),
            firings: header.firings,
            seats: self.seats.holders(now),
            totals: header.totals,
        }
    }

    /// Numbers of jobs, in the order of their place.
    pub fn look(&self, place: Place, skip: usize, limit: usize) -> Vec<u64> {
        let limit = limit.min(MOST_SEEN);
        let timed = |pairs: &mut dyn Iterator<Item = (u64, u64)>| -> Vec<u64> {
            pairs.skip(skip).take(limit).map(|(_, number)| number).collect()
        };
        match place {
            Place::Ready => self.index.ready().skip(skip).take(limit).collect(),
            Place::Parked => self.groups.parked().skip(skip).take(limit).collect(),
            Place::Delayed => timed(&mut self.index.delayed()),
            Place::InFlight => timed(&mut self.index.leases()),
            Place::Dead => timed(&mut self.index.dead()),
        }
    }

    /// The number of a job that is here, wherever it is.
    pub fn find(&self, job: JobId) -> Option<u64> {
        self.number_of(job)
    }

    /// Attempts of a job that `changes` has not given out yet.
    pub fn unwritten(&self, number: u64) -> impl Iterator<Item = Attempt> {
        self.changed.attempts.iter().filter(move |new| new.number == number).map(|new| new.attempt.clone())
    }

    /// How a job is seen, given what its store has of it.
    pub fn seen(&self, number: u64, body: Body, attempts: Vec<Attempt>) -> Option<Seen> {
        let job = self.index.get(number)?;
        Some(Seen {
            id: self.id_of(number),
            place: job.spot.place(),
            priority: job.priority,
            group: job.group.map(|group| Box::from(&**self.groups.name(group))),
            tries: job.tries.into(),
            time: job.time,
            until: (!matches!(job.spot, Spot::Ready | Spot::Parked)).then_some(job.until),
            expires: (job.expires > 0).then_some(job.expires),
            death: job.death,
            attempts,
            body,
        })
    }
}

//! What moves by itself: leases that ended, delays that are over, jobs that expired, windows of keys.

use std::time::Duration;

use super::{Machine, Spot};
use crate::domain::queue::{AttemptEnd, Death, MOST_MOVED, Swept};

impl Machine {
    /// Moves what is due, judges `start_when`, and claims a firing that waits to be told.
    pub fn sweep(&mut self, now: u64) -> Swept {
        let moved = self.move_due(now);
        self.finish(now);
        let fired = self.claim(now);
        let more = self.is_due(now);
        Swept { moved, more, takeable: self.is_takeable(), next: self.next_change(now), fired }
    }

    /// Moves what is due, and nothing else.
    pub fn refresh(&mut self, now: u64) -> &mut Machine {
        self.move_due(now);
        self.finish(now);
        self
    }

    /// Something changes by itself now.
    pub fn must_move(&self, now: u64) -> bool {
        let is_over = |end: Option<u64>| end.is_some_and(|end| end <= now);
        self.is_due(now)
            || is_over(self.keys.first_end())
            || is_over(self.seats.first_end())
            || is_over(self.next_age())
    }

    /// Moves what is due, at most `MOST_MOVED` of each kind; says how many.
    pub(super) fn move_due(&mut self, now: u64) -> usize {
        let ended: Vec<_> = due(self.index.leases(), now);
        for (deadline, number) in &ended {
            self.end_lease(*number, *deadline, now);
        }
        let over: Vec<_> = due(self.index.delayed(), now);
        for (due, number) in &over {
            self.index.change(*number, |job| (job.spot, job.until) = (Spot::Ready, *due));
        }
        let expired: Vec<_> = due(self.index.expiring(), now);
        for (_, number) in &expired {
            self.bury(*number, Death::Expired, now);
        }
        let spent: Vec<_> = self.spent.iter().copied().take(MOST_MOVED).collect();
        for number in &spent {
            self.spent.remove(number);
            let is_spent =
                |tries: u16, spot: Spot| spot == Spot::Ready && u32::from(tries) >= self.settings.max_deliveries;
            if self.index.get(*number).is_some_and(|job| is_spent(job.tries, job.spot)) {
                self.fail(*number, "".into(), AttemptEnd::Lease, None, now);
                self.bury(*number, Death::MaxDeliveries, now);
            }
        }
        let moved = ended.len() + over.len() + expired.len() + spent.len();
        for _ in 0..MOST_MOVED {
            let Some(id) = self.keys.pop_over(now) else { break };
            self.changed.keys_gone.push(id);
        }
        if self.seats.prune(now) {
            // Somebody who stands by can have it.
            self.was_takeable = false;
        }
        moved
    }

    /// A delivery's lease has ended: the job waits again at once, or it was its last try.
    pub(super) fn end_lease(&mut self, number: u64, deadline: u64, now: u64) {
        let Some(&job) = self.index.get(number) else { return };
        let worker = self.flights.remove(&number).map(|flight| flight.worker).unwrap_or_default();
        self.header.totals.lease_ended += 1;
        self.changed.has_header = true;
        self.fail(number, worker, AttemptEnd::Lease, None, now);
        if u32::from(job.tries) >= self.settings.max_deliveries {
            self.bury(number, Death::MaxDeliveries, now);
        } else {
            self.give_back(number, deadline, now);
        }
    }

    /// A job that was in flight waits again, since then; one that has expired meanwhile is dead, which it says.
    pub(super) fn give_back(&mut self, number: u64, since: u64, now: u64) -> bool {
        self.shift(number, Spot::Ready, since);
        let has_expired = self.index.get(number).is_some_and(|job| job.expires > 0 && job.expires <= now);
        if has_expired {
            self.bury(number, Death::Expired, now);
        }
        has_expired
    }

    /// More is due than one call moves.
    pub(super) fn is_due(&self, now: u64) -> bool {
        !self.spent.is_empty()
            || [self.index.leases().next(), self.index.delayed().next(), self.index.expiring().next()]
                .into_iter()
                .flatten()
                .any(|(time, _)| time <= now)
    }

    /// How long until something changes by itself.
    pub(super) fn next_change(&self, now: u64) -> Option<Duration> {
        let first = |pair: Option<(u64, u64)>| pair.map(|(time, _)| time);
        let claimed = (!self.header.untold.is_empty() && self.claimed > now).then_some(self.claimed);
        let times = [
            first(self.index.leases().next()),
            first(self.index.delayed().next()),
            first(self.index.expiring().next()),
            self.next_age(),
            self.settings.max_workers.and_then(|_| self.seats.first_end()),
            claimed,
            (!self.spent.is_empty()).then_some(now),
        ];
        times.into_iter().flatten().min().map(|time| Duration::from_millis(time.saturating_sub(now)))
    }
}

fn due(all: impl Iterator<Item = (u64, u64)>, now: u64) -> Vec<(u64, u64)> {
    all.take_while(|(time, _)| *time <= now).take(MOST_MOVED).collect()
}

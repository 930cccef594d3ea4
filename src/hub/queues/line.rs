//! Those who wait for jobs of one queue, and what each of them may still be given. Pure but for the channels that jobs
//! leave through: the clerk makes the calls and brings the answers.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::domain::queue::{How, Job, MOST_AT_ONCE, SEAT, Settle, Settled, Taken};
use crate::domain::store::StoreError;

/// How long nobody looks at a queue at the most while somebody has credit: wakes may be lost.
pub const FALLBACK: Duration = Duration::from_secs(1);
/// Seats are renewed so often that two renewals may fail.
const RENEWAL: Duration = SEAT.checked_div(3).expect("three is not zero");
/// Settlements of one queue that wait for their turn, on one node.
pub const MOST_WAITING: usize = 100_000;

/// Names a taker in its line.
pub type TakerId = u64;

/// Jobs on their way to a taker; its channel is bounded by its credit. None at all tell one that takes once that there was
/// nothing.
pub type Outlet = mpsc::Sender<Vec<Job>>;

#[derive(Debug)]
pub struct Taker {
    pub id: TakerId,
    pub name: Box<str>,
    pub lease: Option<Duration>,
    pub credit: usize,
    /// Jobs that it was given and that are not over.
    pub held: usize,
    /// It has no room at the moment, whatever its credit says.
    pub on_hold: bool,
    /// It is given jobs once.
    pub once: bool,
    pub outlet: Outlet,
    /// Where workers have seats: when it is looked for jobs for it, and when its seat was renewed.
    look_at: Instant,
    renewed: Option<Instant>,
}

impl Taker {
    pub fn new(name: Box<str>, credit: usize, lease: Option<Duration>, once: bool, outlet: Outlet) -> Taker {
        let (now, id) = (Instant::now(), 0);
        Taker { id, name, lease, credit, held: 0, on_hold: false, once, outlet, look_at: now, renewed: None }
    }

    fn free(&self) -> usize {
        if self.on_hold { 0 } else { self.credit.saturating_sub(self.held) }
    }
}

/// One that waits, and where its answer goes, if somebody waits for that.
pub type Waiting = (Settle, Option<oneshot::Sender<Result<Settled, StoreError>>>);

/// A call of `take` that should be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// One taker's own, where workers have seats.
    pub only: Option<TakerId>,
    /// The name of a taker that is alone in it.
    pub name: Option<Box<str>>,
    pub lease: Option<Duration>,
    pub count: usize,
}

#[derive(Debug)]
pub struct Line {
    takers: Vec<Taker>,
    next_id: TakerId,
    /// Who leads the next order, and who is given the next job: all have their turn.
    lead: usize,
    turn: usize,
    /// When it is looked for jobs next. In the past while there may be some.
    look_at: Instant,
    /// Something happened while a call was under way that it may not have seen.
    woken: bool,
    /// Whether workers have seats; `None` until the settings are known.
    pub seats: Option<bool>,
    pub settlements: Vec<Waiting>,
    /// Workers that went and have a seat to give up.
    pub leaving: Vec<Box<str>>,
}

impl Line {
    pub fn new() -> Line {
        Line {
            takers: Vec::new(),
            next_id: 1,
            lead: 0,
            turn: 0,
            look_at: Instant::now(),
            woken: false,
            seats: None,
            settlements: Vec::new(),
            leaving: Vec::new(),
        }
    }

    pub fn join(&mut self, taker: Taker) -> TakerId {
        let id = self.next_id;
        self.next_id += 1;
        self.takers.push(Taker { id, ..taker });
        self.wake();
        id
    }

    pub fn leave(&mut self, id: TakerId) {
        let Some(at) = self.takers.iter().position(|t| t.id == id) else { return };
        let gone = self.takers.remove(at);
        for index in [&mut self.lead, &mut self.turn] {
            *index -= usize::from(*index > at);
        }
        if gone.renewed.is_some() {
            self.leaving.push(gone.name);
        }
    }

    pub fn leave_all(&mut self) {
        while let Some(id) = self.takers.first().map(|t| t.id) {
            self.leave(id);
        }
    }

    pub fn find(&mut self, id: TakerId) -> Option<&mut Taker> {
        self.takers.iter_mut().find(|t| t.id == id)
    }

    pub fn has_takers(&self) -> bool {
        !self.takers.is_empty()
    }

    pub fn takers(&self) -> usize {
        self.takers.len()
    }

    pub fn is_idle(&self) -> bool {
        self.takers.is_empty() && self.settlements.is_empty() && self.leaving.is_empty()
    }

    /// There may be something to take, for all.
    pub fn wake(&mut self) {
        let now = Instant::now();
        (self.woken, self.look_at) = (true, now);
        self.takers.iter_mut().for_each(|t| t.look_at = now);
    }

    /// The settlements for one call.
    pub fn next_settlements(&mut self) -> Vec<Waiting> {
        let count = self.settlements.len().min(MOST_AT_ONCE);
        self.settlements.drain(..count).collect()
    }

    /// Gives jobs back that nobody here wants any more, not counted.
    pub fn release(&mut self, jobs: impl IntoIterator<Item = Job>) {
        let given_back = |job: Job| (Settle { job: job.id, token: job.token, how: How::Release }, None);
        self.settlements.extend(jobs.into_iter().map(given_back));
    }

    /// The call of `take` that should be made now, if one should.
    pub fn next_order(&mut self, now: Instant) -> Option<Order> {
        let seats = self.seats?;
        let leader = self.leader(seats, now)?;
        self.lead = leader + 1;
        self.woken = false;
        let Taker { id, ref name, lease, .. } = self.takers[leader];
        if seats {
            let name = name.clone();
            let taker = &mut self.takers[leader];
            taker.renewed = Some(now);
            return Some(Order { only: Some(id), name: Some(name), lease, count: taker.free().min(MOST_AT_ONCE) });
        }
        let mut party = self.takers.iter().filter(|t| t.lease == lease && t.free() > 0);
        let count = party.clone().map(Taker::free).sum::<usize>().min(MOST_AT_ONCE);
        let name = party.next().filter(|_| party.next().is_none()).map(|t| t.name.clone());
        Some(Order { only: None, name, lease, count })
    }

    /// When the next order may be due by itself. `None`: nobody has credit.
    pub fn next_look(&self) -> Option<Instant> {
        match self.seats? {
            false => self.takers.iter().any(|t| t.free() > 0).then_some(self.look_at),
            true => self.takers.iter().map(look_with_seat).min(),
        }
    }

    fn leader(&self, seats: bool, now: Instant) -> Option<usize> {
        let count = self.takers.len();
        let is_due = |t: &Taker| match seats {
            true => look_with_seat(t) <= now,
            false => t.free() > 0 && self.look_at <= now,
        };
        (0..count).map(|i| (self.lead + i) % count).find(|i| is_due(&self.takers[*i]))
    }

    /// Hands out what came, one by one over those who have credit. What nobody wants any more is given back.
    pub fn on_taken(&mut self, order: &Order, taken: Taken, now: Instant) {
        let may_be_more = taken.more || !taken.jobs.is_empty() && taken.jobs.len() == order.count || self.woken;
        let wait = if may_be_more { Duration::ZERO } else { taken.next.unwrap_or(FALLBACK).min(FALLBACK) };
        self.look_again(order, now + wait);
        let mut left = taken.jobs.into_iter();
        let mut shares: Vec<(TakerId, Vec<Job>)> = Vec::new();
        while let Some(at) = self.next_in_turn(order) {
            let Some(job) = left.next() else { break };
            let taker = &mut self.takers[at];
            taker.held += 1;
            self.turn = at + 1;
            match shares.iter_mut().find(|(id, _)| *id == taker.id) {
                Some((_, jobs)) => jobs.push(job),
                None => shares.push((taker.id, vec![job])),
            }
        }
        self.release(left);
        for (id, jobs) in shares {
            let Some(taker) = self.find(id) else { continue };
            if taker.once {
                taker.credit = 0;
            }
            // Its receiver is gone, or it was told of more than it may hold: either way it is given nothing more.
            if let Err(mpsc::error::TrySendError::Closed(jobs) | mpsc::error::TrySendError::Full(jobs)) =
                taker.outlet.try_send(jobs)
            {
                self.leave(id);
                self.release(jobs);
            }
        }
        if !may_be_more {
            self.tell_of_nothing(order);
        }
    }

    /// Those who take once and have got nothing of an order may not want to wait.
    fn tell_of_nothing(&self, order: &Order) {
        let is_meant =
            |t: &&Taker| t.once && t.free() > 0 && order.only.map_or(t.lease == order.lease, |id| t.id == id);
        // Where something is on its way already, that will do.
        let is_quiet = |t: &&Taker| t.outlet.capacity() == t.outlet.max_capacity();
        for taker in self.takers.iter().filter(is_meant).filter(is_quiet) {
            let _ = taker.outlet.try_send(Vec::new());
        }
    }

    /// The call failed: not at once again.
    pub fn on_failed(&mut self, order: &Order, now: Instant) {
        self.look_again(order, now + FALLBACK);
    }

    fn look_again(&mut self, order: &Order, at: Instant) {
        match order.only {
            None => self.look_at = at,
            Some(id) => _ = self.find(id).map(|taker| taker.look_at = at),
        }
    }

    fn next_in_turn(&self, order: &Order) -> Option<usize> {
        let count = self.takers.len();
        let may = |t: &Taker| t.free() > 0 && order.only.map_or(t.lease == order.lease, |id| t.id == id);
        (0..count).map(|i| (self.turn + i) % count).find(|i| may(&self.takers[*i]))
    }
}

fn look_with_seat(taker: &Taker) -> Instant {
    let renewal = taker.renewed.map_or(taker.look_at, |at| at + RENEWAL);
    if taker.free() > 0 { taker.look_at.min(renewal) } else { renewal }
}

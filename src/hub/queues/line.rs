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
    /// Jobs that calls under way have asked for.
    asked: usize,
    /// The last call brought as many as one call can: there are more, most likely.
    flows: bool,
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
            asked: 0,
            flows: false,
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
        // One that took once is at work now, and comes back by its name: its seat is its own for as long as seats are held.
        if gone.renewed.is_some() && !(gone.once && gone.held > 0) {
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

    /// Full ones go while another call is under way.
    pub fn more_settlements(&mut self) -> Vec<Waiting> {
        if self.settlements.len() < MOST_AT_ONCE { Vec::new() } else { self.next_settlements() }
    }

    /// The call of `take` that should be made now, if one should.
    pub fn next_order(&mut self, now: Instant) -> Option<Order> {
        self.order(now, 0)
    }

    /// The call that should be made while another one is under way: where jobs flow, and as large as calls can be.
    pub fn another_order(&mut self, now: Instant) -> Option<Order> {
        if self.flows && self.seats == Some(false) { self.order(now, MOST_AT_ONCE) } else { None }
    }

    fn order(&mut self, now: Instant, least: usize) -> Option<Order> {
        let seats = self.seats?;
        let leader = self.leader(seats, now)?;
        let Taker { id, ref name, lease, .. } = self.takers[leader];
        let order = if seats {
            let (name, count) = (Some(name.clone()), self.takers[leader].free().min(MOST_AT_ONCE));
            self.takers[leader].renewed = Some(now);
            Order { only: Some(id), name, lease, count }
        } else {
            let mut party = self.takers.iter().filter(|t| t.lease == lease && t.free() > 0);
            let free = party.clone().map(Taker::free).sum::<usize>().saturating_sub(self.asked);
            let name = party.next().filter(|_| party.next().is_none()).map(|t| t.name.clone());
            Order { only: None, name, lease, count: free.min(MOST_AT_ONCE) }
        };
        if order.count < least {
            return None;
        }
        self.lead = leader + 1;
        self.woken = false;
        self.asked += order.count;
        Some(order)
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
        self.asked -= order.count;
        self.flows = order.count == MOST_AT_ONCE && taken.jobs.len() == order.count;
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
        self.asked -= order.count;
        self.flows = false;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::Body;
    use crate::domain::position::{Epoch, Position};
    use crate::domain::queue::{JobId, Priority, Queue};

    fn jobs(numbers: std::ops::Range<u64>) -> Vec<Job> {
        let job = |number| Job {
            queue: Queue::parse("q").unwrap(),
            id: JobId(Position::new(Epoch::from_random(1), number)),
            token: 1,
            tries: 1,
            max_tries: 5,
            lease: Duration::from_secs(30),
            priority: Priority::DEFAULT,
            group: None,
            time: 0,
            body: Body::from_canonical("\"data\":1".into()),
        };
        numbers.map(job).collect()
    }

    fn taken(numbers: std::ops::Range<u64>) -> Taken {
        Taken { jobs: jobs(numbers), ..Taken::default() }
    }

    fn line(credits: &[usize]) -> (Line, Vec<mpsc::Receiver<Vec<Job>>>) {
        let mut line = Line { seats: Some(false), ..Line::new() };
        let receivers = credits.iter().map(|credit| {
            let (outlet, receiver) = mpsc::channel(1000);
            line.join(Taker::new("w".into(), *credit, None, false, outlet));
            receiver
        });
        let receivers = receivers.collect();
        (line, receivers)
    }

    fn given(receiver: &mut mpsc::Receiver<Vec<Job>>) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Ok(jobs) = receiver.try_recv() {
            numbers.extend(jobs.iter().map(|job| job.id.number()));
        }
        numbers
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_go_one_by_one_in_turn_to_those_who_have_credit() {
        let (mut line, mut workers) = line(&[3, 0, 2]);
        let order = line.next_order(Instant::now()).unwrap();
        assert_eq!((order.count, order.only), (5, None));
        line.on_taken(&order, taken(1..5), Instant::now());
        assert_eq!(workers.iter_mut().map(given).collect::<Vec<_>>(), [vec![1, 3], vec![], vec![2, 4]]);
        // Not all that was asked for came: it is looked again when something may have changed.
        assert_eq!(line.next_order(Instant::now()), None);
        assert_eq!(line.next_look(), Some(Instant::now() + FALLBACK));
        line.wake();
        assert_eq!(line.next_order(Instant::now()).map(|order| order.count), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_asked_without_credit_and_a_wake_is_kept_until_there_is() {
        let (mut line, mut workers) = line(&[1]);
        let order = line.next_order(Instant::now()).unwrap();
        line.on_taken(&order, taken(1..2), Instant::now());
        assert_eq!(given(&mut workers[0]), [1]);
        line.wake();
        assert_eq!((line.next_order(Instant::now()), line.next_look()), (None, None));
        line.find(1).unwrap().held = 0;
        assert_eq!(line.next_order(Instant::now()).map(|order| order.count), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn where_jobs_flow_another_call_goes_meanwhile_and_no_credit_is_spent_twice() {
        let (mut line, mut workers) = line(&[150, 150]);
        let now = Instant::now();
        let first = line.next_order(now).unwrap();
        assert_eq!((first.count, line.another_order(now)), (100, None));
        line.on_taken(&first, taken(1..101), now);
        let second = line.next_order(now).unwrap();
        assert_eq!(second.count, 100);
        let third = line.another_order(now).unwrap();
        assert_eq!(third.count, 100);
        assert_eq!(line.another_order(now), None, "all credit is asked for");
        line.on_taken(&second, taken(101..201), now);
        line.on_taken(&third, taken(201..240), now);
        assert_eq!(workers.iter_mut().map(|w| given(w).len()).sum::<usize>(), 239);
        assert!(line.next_settlements().is_empty(), "nothing was given back");
        // The last one did not bring all that it asked for.
        assert_eq!((line.next_order(now), line.another_order(now)), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_while_a_call_is_under_way_is_followed_by_another_call() {
        let (mut line, _workers) = line(&[2]);
        let order = line.next_order(Instant::now()).unwrap();
        line.wake();
        line.on_taken(&order, taken(0..0), Instant::now());
        assert!(line.next_order(Instant::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_any_more_is_given_back() {
        let (mut line, mut workers) = line(&[2, 2]);
        let order = line.next_order(Instant::now()).unwrap();
        line.leave(1);
        workers.remove(0);
        line.on_taken(&order, taken(1..5), Instant::now());
        assert_eq!(given(&mut workers[0]), [1, 2]);
        let back: Vec<u64> = line.next_settlements().iter().map(|(settle, _)| settle.job.number()).collect();
        assert_eq!(back, [3, 4]);
        // Whoever has gone without a word is found out by the next job.
        line.find(2).unwrap().held = 0;
        drop(workers);
        line.wake();
        let order = line.next_order(Instant::now()).unwrap();
        line.on_taken(&order, taken(5..6), Instant::now());
        assert!(!line.has_takers());
        assert_eq!(line.next_settlements().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn where_workers_have_seats_each_takes_for_itself_and_renews_its_own() {
        let (mut line, mut workers) = line(&[1, 1]);
        line.seats = Some(true);
        let now = Instant::now();
        let first = line.next_order(now).unwrap();
        line.on_taken(&first, taken(1..2), now);
        let second = line.next_order(now).unwrap();
        line.on_taken(&second, Taken { held: Some(crate::domain::queue::Held::Seats), ..taken(0..0) }, now);
        assert_eq!((first.only, first.count, second.only, second.count), (Some(1), 1, Some(2), 1));
        assert_eq!((given(&mut workers[0]), given(&mut workers[1])), (vec![1], vec![]));
        // The one that stands by looks each second; the one that has all it may hold only renews its seat.
        assert_eq!(line.next_order(now), None);
        let later = now + FALLBACK;
        assert_eq!(line.next_order(later).and_then(|order| order.only), Some(2));
        let renewal = line.next_order(now + RENEWAL).unwrap();
        assert_eq!((renewal.only, renewal.count), (Some(1), 0));
        line.leave(1);
        assert_eq!(line.leaving.len(), 1);
    }
}

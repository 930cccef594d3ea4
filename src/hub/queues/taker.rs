//! A taker's own side: a worker on a connection, or a request that waits once. Whatever becomes of it, its place in the
//! line goes with it, and jobs that it was given and did not look at are given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::line::{self, Outlet, TakerId};
use super::{Desk, Place, Shared};
use crate::domain::queue::{Job, MOST_AT_ONCE, Queue};

/// How long a store may take to say what is there, to one who does not wait for more.
const LOOK: Duration = Duration::from_secs(5);

/// A worker's place in the line of a queue; dropped, it leaves.
pub struct Taker {
    place: Arc<Place>,
    id: TakerId,
}

/// Jobs on their way to one who takes. Dropped, it gives back what was not looked at.
pub struct Jobs {
    shared: Arc<Shared>,
    arrivals: mpsc::Receiver<Vec<Job>>,
}

impl Desk {
    /// Where the jobs of one worker arrive, from all queues that it takes from: at most so many calls' worth.
    pub fn jobs(&self, most: usize) -> (Outlet, Jobs) {
        let (outlet, arrivals) = mpsc::channel(most);
        (outlet, Jobs { shared: self.shared.clone(), arrivals })
    }

    /// A worker begins to take, under this name in the attempts of its jobs and, where workers are bounded, for its seat.
    pub fn take(&self, queue: &Queue, name: &str, credit: usize, lease: Option<Duration>, outlet: Outlet) -> Taker {
        self.join(queue, line::Taker::new(self.named(name), credit, lease, false, outlet))
    }

    /// Waits at most so long for jobs and takes those that are there, at most `most`. Dropped before, it takes none.
    pub async fn take_once(
        &self,
        queue: &Queue,
        name: &str,
        most: usize,
        lease: Option<Duration>,
        wait: Duration,
    ) -> Vec<Job> {
        // Room for the news that there is nothing, and for jobs behind it.
        let (outlet, mut jobs) = self.jobs(2);
        let credit = most.min(MOST_AT_ONCE);
        let _taker = self.join(queue, line::Taker::new(self.named(name), credit, lease, true, outlet));
        let arrived = async {
            loop {
                match jobs.next().await {
                    Some(batch) if batch.is_empty() && !wait.is_zero() => {}
                    other => return other.unwrap_or_default(),
                }
            }
        };
        // Who does not want to wait wants to know what is there all the same.
        let most = if wait.is_zero() { LOOK } else { wait };
        tokio::time::timeout(most, arrived).await.unwrap_or_default()
    }

    fn join(&self, queue: &Queue, taker: line::Taker) -> Taker {
        // A desk that is closed gives nothing: the outlet goes, and with it the wait.
        let (id, place) = self.shared.at(queue, |line| if self.shared.is_closed() { 0 } else { line.join(taker) });
        Taker { place, id }
    }

    /// A name of this node as the whole store sees it, at most 100 bytes.
    fn named(&self, name: &str) -> Box<str> {
        let mut whole = format!("{}/{name}", self.shared.name);
        whole.truncate(whole.floor_char_boundary(100));
        whole.into()
    }
}

impl Taker {
    pub fn set(&self, credit: usize, lease: Option<Duration>) {
        self.change(|taker| (taker.credit, taker.lease) = (credit, lease), credit > 0);
    }

    /// It has no room for jobs at the moment, or has again.
    pub fn hold(&self, on_hold: bool) {
        self.change(|taker| taker.on_hold = on_hold, !on_hold);
    }

    /// So many of its jobs are over: it may be given as many others.
    pub fn free(&self, jobs: usize) {
        self.change(|taker| taker.held = taker.held.saturating_sub(jobs), false);
    }

    fn change(&self, work: impl FnOnce(&mut line::Taker), may_take: bool) {
        {
            let mut line = self.place.line();
            let Some(taker) = line.find(self.id) else { return };
            work(taker);
            if may_take {
                line.wake();
            }
        }
        self.place.changed.notify_one();
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.place.line().leave(self.id);
        self.place.changed.notify_one();
    }
}

impl Jobs {
    /// What was handed out next. `None`: nothing will be any more.
    pub async fn next(&mut self) -> Option<Vec<Job>> {
        self.arrivals.recv().await
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.arrivals.close();
        while let Ok(jobs) = self.arrivals.try_recv() {
            if let Some(queue) = jobs.first().map(|job| job.queue.clone()) {
                self.shared.at(&queue, |line| line.release(jobs));
            }
        }
    }
}

//! The jobs that one connection holds, by the tags that its client knows, with the ends of their leases.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::connection::Connection;
use crate::document::{self, Asked};
use crate::domain::queue::{How, Job, JobId, Queue, Settle};
use crate::domain::session::Works;
use crate::hub::queues::Taker;

/// Made with the first `take`.
pub(super) struct Work {
    pub takes: HashMap<Queue, Take>,
    pub held: HashMap<u64, Held>,
    /// The ends of their leases.
    pub ends: BTreeSet<(Instant, u64)>,
    pub last_tag: u64,
    pub last_stay: u64,
    pub outlet: mpsc::Sender<Vec<Job>>,
    /// Bytes of the frame that had no room.
    pub needed: usize,
    /// The ends have changed.
    pub changed: Rc<Notify>,
}

pub(super) struct Take {
    /// Which stay at the queue it is, beside others before and after it.
    pub number: u64,
    pub taker: Taker,
    pub credit: usize,
    /// Which `take` it is: a later one goes before the answer to this.
    pub stay: u64,
}

pub(super) struct Held {
    pub queue: Queue,
    /// The stay at the queue that it was taken in.
    pub taken: u64,
    pub job: JobId,
    pub token: u64,
    pub until: Instant,
    /// Extensions that are under way: the end is not judged before their answer.
    pub extending: u32,
    /// Somebody waits for a reply.
    pub asked: Option<Asked>,
}

impl Connection {
    /// What it takes, for its limits.
    pub fn works(&self, queue: &Queue) -> Works {
        let work = self.work.borrow();
        let Some(work) = work.as_ref() else { return Works::default() };
        let credit = work.takes.iter().filter(|(name, _)| *name != queue).map(|(_, take)| take.credit).sum();
        Works { queues: work.takes.len(), has: work.takes.contains_key(queue), credit }
    }

    /// Whether a tag names a job that it holds.
    pub fn holds(&self, tag: &str) -> bool {
        let work = self.work.borrow();
        work.as_ref().zip(number(tag)).is_some_and(|(work, number)| work.held.contains_key(&number))
    }
}

impl Work {
    pub fn new(outlet: mpsc::Sender<Vec<Job>>) -> (Work, Rc<Notify>) {
        let changed = Rc::<Notify>::default();
        let (takes, held, ends) = Default::default();
        (Work { takes, held, ends, last_tag: 0, last_stay: 0, outlet, needed: 0, changed: changed.clone() }, changed)
    }

    pub fn hold(&mut self, number: u64, job: Job) {
        let until = Instant::now() + job.lease;
        let asked = document::asked(&job.body);
        let taken = self.takes.get(&job.queue).map_or(0, |take| take.number);
        let held = Held { queue: job.queue, taken, job: job.id, token: job.token, until, extending: 0, asked };
        self.ends.insert((until, number));
        self.held.insert(number, held);
    }

    pub fn let_go(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        self.ends.remove(&(held.until, number));
        Some(held)
    }

    /// An extension begins; it stays held meanwhile.
    pub fn extend(&mut self, number: u64) -> Option<Held> {
        let held = self.held.get_mut(&number)?;
        held.extending += 1;
        Some(Held { queue: held.queue.clone(), asked: None, ..*held })
    }

    pub fn on_extended(&mut self, number: u64, until: Option<Instant>) {
        let Some(held) = self.held.get_mut(&number) else { return };
        held.extending = held.extending.saturating_sub(1);
        self.ends.remove(&(held.until, number));
        held.until = until.unwrap_or(held.until);
        self.ends.insert((held.until, number));
        self.changed.notify_one();
    }

    /// A settlement could not be made: it may be asked for again, while the lease lasts.
    pub fn keep(&mut self, number: u64, held: Held) {
        self.ends.insert((held.until, number));
        self.held.insert(number, Held { extending: 0, ..held });
        self.changed.notify_one();
    }

    /// One of the jobs of a queue is over.
    pub fn free(&self, held: &Held) {
        if let Some(take) = self.takes.get(&held.queue).filter(|take| take.number == held.taken) {
            take.taker.free(1);
        }
    }
}

impl Held {
    pub fn settle(&self, how: How) -> Settle {
        Settle { job: self.job, token: self.token, how }
    }
}

pub(super) fn tag(number: u64) -> Box<str> {
    format!("d{number}").into()
}

pub(super) fn number(tag: &str) -> Option<u64> {
    tag.strip_prefix('d')?.parse().ok()
}

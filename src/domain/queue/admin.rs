//! What operators see of queues, and do to them: a second contract, kept by whoever keeps the queues.

use std::time::Duration;

use futures::future::BoxFuture;

use super::{JobId, Priority, Queue, QueueSettings};
use crate::domain::message::Body;
use crate::domain::store::StoreError;

/// Looks at queues and changes them.
pub trait QueueAdmin: Send + Sync + 'static {
    /// What is known of a queue; `None`: it is not there.
    fn stats(&self, queue: &Queue) -> BoxFuture<'static, Result<Option<Stats>, StoreError>>;

    /// Queues in the order of their names' bytes, from the first one behind `after`.
    fn list(&self, after: Option<&Queue>, limit: usize) -> BoxFuture<'static, Result<Vec<Queue>, StoreError>>;

    /// Looks at jobs without taking them, in the order of the place, `skip` left out; at most 1,000.
    fn look(
        &self,
        queue: &Queue,
        place: Place,
        skip: usize,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Seen>, StoreError>>;

    /// One job, wherever it is.
    fn find(&self, queue: &Queue, job: JobId) -> BoxFuture<'static, Result<Option<Seen>, StoreError>>;

    /// Changes something; says how many jobs it met, or 1 and 0 for done and nothing to do.
    fn change(&self, queue: &Queue, change: Change) -> BoxFuture<'static, Result<u64, StoreError>>;
}

/// Where a job is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// In the order in which they will be taken.
    Ready,
    /// Behind the head of their group: by group, then number.
    Parked,
    /// By the time at which they are due.
    Delayed,
    /// By the end of their lease.
    InFlight,
    /// By the time of their death, oldest first.
    Dead,
}

/// Why a job is dead. The words of dead letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Death {
    MaxDeliveries,
    Term,
    Expired,
    /// It made room for another, in a full queue.
    Dropped,
}

impl Death {
    pub const ALL: [Death; 4] = [Death::MaxDeliveries, Death::Term, Death::Expired, Death::Dropped];

    pub fn as_str(self) -> &'static str {
        match self {
            Death::MaxDeliveries => "max-deliveries",
            Death::Term => "term",
            Death::Expired => "expired",
            Death::Dropped => "dropped",
        }
    }

    pub fn parse(word: &str) -> Option<Death> {
        Death::ALL.into_iter().find(|death| death.as_str() == word)
    }
}

/// A job as it is looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub id: JobId,
    pub place: Place,
    pub priority: Priority,
    pub group: Option<Box<str>>,
    pub tries: u32,
    /// When it was put.
    pub time: u64,
    /// When it is due, or its lease ends, or it died.
    pub until: Option<u64>,
    pub expires: Option<u64>,
    pub death: Option<Death>,
    /// What went wrong, oldest first, at most `MOST_ATTEMPTS`; the last one's text is the last error.
    pub attempts: Vec<Attempt>,
    pub body: Body,
}

/// A delivery that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    pub time: u64,
    pub worker: Box<str>,
    pub end: AttemptEnd,
    pub error: Option<Box<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptEnd {
    Nack,
    Term,
    /// Its lease ended.
    Lease,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Gives a queue settings of its own, or takes them away again. It begins if it is not there.
    Settings(Option<Box<QueueSettings>>),
    Pause(bool),
    /// Another body for a dead letter.
    Edit {
        job: JobId,
        body: Body,
    },
    /// Dead letters become waiting again, with all their tries and without a time to live: these, or the oldest `limit` (of
    /// one cause). One whose group has a head is parked behind it. Stops where the queue is full.
    Redrive {
        jobs: Option<Vec<JobId>>,
        cause: Option<Death>,
        limit: usize,
    },
    /// Removes one job, dead or not in flight.
    Remove(JobId),
    /// Removes all jobs of a place (`Ready` and `Parked` go together), or with `None` all but the dead; deliveries in
    /// flight are then `Gone`. Numbers go on.
    Purge(Option<Place>),
    /// A worker gives its seat up.
    Leave {
        worker: Box<str>,
    },
    /// A firing was told.
    Told(u64),
    /// The queue with all that it holds, its settings too.
    Delete,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Takeable and parked, by priority.
    pub waiting: [u64; Priority::LEVELS],
    /// Of these, behind the head of their group.
    pub parked: u64,
    pub delayed: u64,
    pub in_flight: u64,
    pub dead: u64,
    /// Bytes of bodies of all but the dead.
    pub bytes: u64,
    pub dead_bytes: u64,
    /// How long the one that waits longest among the first of each priority has been takeable.
    pub oldest: Option<Duration>,
    pub paused: bool,
    /// `None`: there is no gate.
    pub gate_open: Option<bool>,
    pub firings: u64,
    /// Workers that hold seats, where they are bounded.
    pub seats: Vec<Box<str>>,
    pub totals: Totals,
}

/// Since the queue began; only upwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub put: u64,
    pub repeated: u64,
    pub taken: u64,
    pub acked: u64,
    pub nacked: u64,
    pub lease_ended: u64,
    pub died: u64,
    pub redriven: u64,
    /// Dead letters that made room for newer ones, with nothing kept of them.
    pub forgotten: u64,
}

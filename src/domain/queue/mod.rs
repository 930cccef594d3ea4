//! Queues: each job goes to one worker, until it is done. The words, and the contract of whoever keeps them.
//!
//! A **job** is put into a **queue** and is *waiting* (takeable, or parked behind the head of its group), *delayed*, *in
//! flight* (taken under a lease) or *dead*. It leaves by an acknowledgement, or from the dead by hand or by its bounds.
//! Delivery is at least once: a lease that ends, or a worker that goes, gives the job back. A late answer is refused by
//! the delivery's token.
//!
//! `settings` says how a queue is kept, `fields` names the settings for every form that they are written in, `machine` is
//! the pure queue that the embedded stores run and that every other store must agree with.

mod admin;
pub mod fields;
pub mod machine;
mod settings;
pub mod written;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use self::admin::{Attempt, AttemptEnd, Change, Death, Place, QueueAdmin, Seen, Stats, Totals};
pub use self::settings::{
    Arm, MOST_ARMS, MOST_BACKOFF, OnDead, OnFull, Preset, QueueRules, QueueSettings, Start, StartWhen,
};
use super::message::{Body, Durability};
use super::name::{MAX_NAME, NameError, check};
use super::position::Position;
use super::store::{EntryId, Fence, StoreError};

/// Jobs in one call of `take`, and settlements or puts of one queue that one script or commit carries.
pub const MOST_AT_ONCE: usize = 100;
/// What the sources begin with that are topics bound to a queue. A queue with such a mark is not forgotten, as all that its
/// topic still holds would be bound anew.
pub const OF_TOPIC: &str = "topic:";
/// Bytes of a group's name, of a de-duplication key and of an idempotency key.
pub const MAX_GROUP: usize = 200;
/// Bytes of an error text that a worker leaves with a job.
pub const MAX_ERROR: usize = 1024;
/// Attempts that a job remembers, the newest.
pub const MOST_ATTEMPTS: usize = 10;
/// How long a delay, and a `deliver_at`, may lie ahead.
pub const MAX_DELAY: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a seat of a queue with bounded workers is held without a `take`.
pub const SEAT: Duration = Duration::from_secs(10);
/// How long a firing that somebody has claimed is left to them to be told.
pub const CLAIM: Duration = Duration::from_secs(5);
/// Jobs that one call moves by itself: leases that ended, delays that are over, jobs that expired.
pub const MOST_MOVED: usize = 100;

/// The name of a queue: the grammar of topics; a name space of its own. Names with `$` are refused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue(Arc<str>);

impl Queue {
    pub fn parse(name: &str) -> Result<Queue, NameError> {
        check(name, MAX_NAME)?;
        match name.starts_with('$') {
            true => Err(NameError::Character { character: '$', at: 0 }),
            false => Ok(Queue(name.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A job's id for life, written like a position: the life of the queue that it was put in, and a number that counts by
/// one in the queue and goes on over lives. No other job has it, whatever a failover loses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct JobId(pub Position);

impl JobId {
    pub fn number(self) -> u64 {
        self.0.offset
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 0 to 9; 9 is taken first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Priority(u8);

impl Priority {
    pub const LEVELS: usize = 10;
    pub const DEFAULT: Priority = Priority(4);

    pub fn new(level: u8) -> Option<Priority> {
        (level < Priority::LEVELS as u8).then_some(Priority(level))
    }

    pub fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Priority {
        Priority::DEFAULT
    }
}

/// When a job may be taken first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Due {
    /// At once, or after the queue's own delay.
    #[default]
    Default,
    After(Duration),
    /// Milliseconds since 1970, by the store's clock; what lies behind is at once.
    At(u64),
}

/// A de-duplication key: the same key within the window is the same job, whatever it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dedupe {
    pub key: Box<str>,
    /// `None`: the queue's window.
    pub window: Option<Duration>,
}

/// A job on its way in, decoded and checked: names and bounds are right, `group` stands with `Due::Default` only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    pub queue: Queue,
    pub body: Body,
    pub priority: Priority,
    pub due: Due,
    /// Jobs of one group are taken one at a time, in the order in which they were put. At most `MAX_GROUP` bytes, none
    /// of them a control character.
    pub group: Option<Box<str>>,
    pub dedupe: Option<Dedupe>,
    /// As for topics: the same put again answers the first job; other content under it is a `Conflict`.
    pub idempotency_key: Option<Box<str>>,
    /// How long it may wait; `None`: the queue's own. It then becomes a dead letter.
    pub ttl: Option<Duration>,
    pub durability: Option<Durability>,
    /// As for topics; the marks are the queue's.
    pub fence: Option<Fence>,
}

impl Put {
    pub fn new(queue: Queue, body: Body) -> Put {
        Put {
            queue,
            body,
            priority: Priority::DEFAULT,
            due: Due::Default,
            group: None,
            dedupe: None,
            idempotency_key: None,
            ttl: None,
            durability: None,
            fence: None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PutAnswer {
    Stored {
        job: JobId,
        /// The store's clock, milliseconds since 1970.
        time: u64,
        durability: Durability,
    },
    /// A job under the same key was put before: this one.
    Repeated { job: JobId, durability: Durability },
    /// The fence says that it was applied before.
    Skipped,
}

/// What a taker asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Take {
    /// Who: kept with the job's attempts, and the holder of a seat where workers are bounded. At most 100 bytes.
    pub worker: Box<str>,
    /// Jobs, at most `MOST_AT_ONCE`; 0 moves what is due and keeps the seat.
    pub count: usize,
    /// Bytes of bodies; one job is given however large it is.
    pub bytes: usize,
    /// `None`: the queue's own.
    pub lease: Option<Duration>,
    /// Drawn at random for each call: with the job's id it names the delivery.
    pub token: u64,
}

/// A job that was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    pub queue: Queue,
    pub id: JobId,
    pub token: u64,
    /// Which delivery this is, from 1, and how many there may be.
    pub tries: u32,
    pub max_tries: u32,
    /// From the moment at which it was taken.
    pub lease: Duration,
    pub priority: Priority,
    pub group: Option<Box<str>>,
    /// When it was put.
    pub time: u64,
    pub body: Body,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    pub jobs: Vec<Job>,
    /// Why there is no more, where that is not for want of jobs.
    pub held: Option<Held>,
    /// More can be taken now.
    pub more: bool,
    /// How long until something changes by itself: a delay, a lease, an age. `None`: nothing will.
    pub next: Option<Duration>,
    /// A firing waits to be told: `sweep` gives it out.
    pub has_fired: bool,
}

/// Why a queue gives out nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    Paused,
    /// Its gate is closed until what `start_when` says has come.
    Gate,
    /// Others have all the seats: this worker stands by.
    Seats,
}

/// The end of a delivery, or its extension. One whose lease has ended, or that another settlement has ended, answers
/// `NoLease`; so does every token but that of the newest delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settle {
    pub job: JobId,
    pub token: u64,
    pub how: How,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum How {
    /// Done: it is removed, and never delivered again.
    Ack,
    /// Not done. `delay`: how long until it may be taken again; `None`: by the queue's back-off and the number of
    /// deliveries. After the last delivery it becomes a dead letter (`max-deliveries`); past its time to live, too.
    Nack { delay: Option<Duration>, error: Option<Box<str>> },
    /// Not begun: as if it had not been delivered.
    Release,
    /// Never to be tried again: a dead letter at once.
    Term { error: Option<Box<str>> },
    /// The lease ends so long after now, but never later than the queue's `max_lease` after the delivery.
    Extend { by: Option<Duration> },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    Done,
    /// It was the last try, or `Term`, or it had expired: it is a dead letter now.
    Dead,
    /// What is left of the lease.
    Extended(Duration),
    /// This delivery is not in flight (any more).
    NoLease,
    /// There is no such job: it was acknowledged or removed.
    Gone,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Jobs that were moved; at `MOST_MOVED` of a kind there may be more to move.
    pub moved: usize,
    pub more: bool,
    /// Somebody with credit should take.
    pub takeable: bool,
    pub next: Option<Duration>,
    /// A firing that is the caller's to tell now, for `CLAIM`; `Change::Told` ends it.
    pub fired: Option<Firing>,
}

/// `start_when` has come true.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Firing {
    pub queue: Queue,
    /// Counts by one in the queue.
    pub number: u64,
    /// What it saw at that moment.
    pub waiting: [u64; Priority::LEVELS],
    pub oldest: Duration,
    /// The first arm that was true, by its place in the settings.
    pub arm: usize,
    pub time: u64,
}

/// The last ingest entry, position or run that a queue has applied of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    pub life: Box<str>,
    pub id: EntryId,
}

/// The contract of whoever keeps queues, beside `Store` and kept by the same.
///
/// Its futures start their work when they are made; calls about one queue are applied in the order in which they are
/// made. Each item of a batch is atomic, a batch as a whole is not; a `take` is. Time is the store's own clock, so clocks
/// of nodes do not matter. Every call first moves what is due by itself, at most `MOST_MOVED` of each kind: jobs whose
/// lease ended (back to waiting at once, or dead after the last delivery), whose delay is over, that expired.
///
/// Order: of what can be taken the highest priority first, within it the lowest number; with `fair_every = k` each k-th
/// job is the lowest number over all priorities. A job that comes back keeps its number, so it comes back to its place.
/// A group has one head that is takeable, delayed (after a nack) or in flight; the others are parked behind it, and count
/// as waiting. When the head is gone for good the next one becomes it; with `OnDead::Halt` a dead head stays the head
/// until it is redriven or removed.
///
/// Keys: an idempotency key is looked for first, then the de-duplication key, or the content where that counts. A window
/// begins with the put that was stored. Fences are marked by repeated puts too.
///
/// `start_when` is judged at the end of each call, of a batch after each item; so one `take` from a gate gives no more than
/// what is left of `batch`. A firing is given out by `sweep` in the order of their numbers, the next one when the one before
/// was told; at most `machine::MOST_UNTOLD` wait to be told, then the oldest are forgotten.
///
/// What an `Ok` answer says is as durable as the store's default level, a put at least as durable as it asked. Nothing
/// that was answered `Ok` is lost but with what that level does not survive.
pub trait Queues: Send + Sync + 'static {
    /// Puts jobs, answering one result an item in the same order; failures and fences as in `Store::append`. A queue that
    /// is not there begins. A full queue goes by its `on_full`: `Full`, or room is made of takeable jobs, which become
    /// dead letters (`dropped`).
    fn put(&self, batch: Vec<Put>) -> BoxFuture<'static, Vec<Result<PutAnswer, StoreError>>>;

    /// Takes jobs. The delivery is counted before the job is given out, and as durable as that: over a crash no job is
    /// delivered more often than its queue allows. A queue that is not there is empty, and does not begin.
    fn take(&self, queue: &Queue, take: Take) -> BoxFuture<'static, Result<Taken, StoreError>>;

    /// Ends or extends deliveries of one queue, in the same order.
    fn settle(&self, queue: &Queue, batch: Vec<Settle>) -> BoxFuture<'static, Vec<Result<Settled, StoreError>>>;

    /// Moves what is due by itself, judges `start_when`, and claims a firing that waits to be told.
    fn sweep(&self, queue: &Queue) -> BoxFuture<'static, Result<Swept, StoreError>>;

    /// The last that was applied of a source (`Fence::source`).
    fn mark(&self, queue: &Queue, source: &str) -> BoxFuture<'static, Result<Option<Mark>, StoreError>>;

    /// The settings that hold for a queue: its own, or those of the first rule that it meets.
    fn settings(&self, queue: &Queue) -> BoxFuture<'static, Result<QueueSettings, StoreError>>;

    /// Opens the wakes. Called once, by the hub.
    fn wakes(&self) -> (Box<dyn WatchQueues>, BoxStream<'static, Wake>);
}

/// Chooses of which queues wakes come. Neither method waits.
pub trait WatchQueues: Send + Sync {
    fn watch(&self, queue: &Queue);
    fn unwatch(&self, queue: &Queue);
}

/// A queue should be looked at. Wakes may be lost and may come for nothing, so whoever has credit looks by itself too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wake {
    /// There is something to take where there was nothing, or a gate opened, or a pause ended.
    Jobs(Queue),
    /// `start_when` has come true: sweep.
    Fired(Queue),
    /// Wakes may have been lost, of any queue.
    Lost,
}

/// Both contracts of one keeper.
#[derive(Clone)]
pub struct QueueKeeper {
    pub queues: Arc<dyn Queues>,
    pub admin: Arc<dyn QueueAdmin>,
}

//! The dispatcher: bridges what publishers queued to topics and to queues of jobs.
//!
//! Publishers write to a queue, with nothing but a Redis client; a `Source` reads one partition of it, and one loop,
//! the bridge, hands what it reads to the hub. Here are the contract between the two and the handle for the rest of
//! the program. What an entry means is in `decode`, who may work on a partition in `owner`, where entries wait in
//! `redis` and `door`.

mod bridge;
mod decode;
pub mod door;
mod notice;
mod owner;
pub mod redis;
mod start;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::domain::error::Problem;
use crate::domain::queue::PutAnswer;
use crate::domain::store::{Appended, EntryId, StoreError};
use crate::telemetry;

pub use start::{Dispatcher, Ingest, Options, StartError, start};

/// One partition of what publishers wrote, read in order.
///
/// Reading takes nothing away. After each batch the bridge says how its entries ended, and only that moves the source
/// on. A batch may come twice (after a crash, or when another node took over in between): entries carry ids that
/// ascend, the bridge hands them on as fences, and the store skips what it has applied. So a reader that was stalled
/// and is no longer entitled to the partition does no harm: it can neither apply anything twice nor move the source on.
pub trait Source: Send + 'static {
    /// Like `fanfare:in`: in fences, dead letters, metrics and the log.
    fn name(&self) -> &str;

    /// Whether an entry that was not committed is read again. Of such a source the bridge commits what comes before the
    /// first entry that failed, and reads again from there. Of another one it commits everything, failures too.
    fn repeats(&self) -> bool;

    /// Waits for entries and reads at most about so many, those that came first. May answer an empty batch, to be called again;
    /// `None` when there will be no more. A call that is dropped half-way changes nothing.
    ///
    /// Where the store that entries go to is in another life than at the last call, a source that keeps what was applied
    /// hands that out once more before it goes on: the store skips what it still has.
    fn read(&mut self, most: usize, target: Target) -> BoxFuture<'_, Result<Option<Batch>, SourceError>>;

    /// Says how the first entries of the last batch ended, in their order. They are not read again. Dead ones are kept
    /// as dead letters in the same step. `Lost` when somebody else works on this partition: then nothing has changed.
    fn commit(&mut self, settled: Vec<Settled>) -> BoxFuture<'_, Result<(), SourceError>>;

    /// Gives the partition up. Nothing is called after it.
    fn close(&mut self) -> BoxFuture<'_, ()>;
}

/// Entries in their order.
#[derive(Debug, Default)]
pub struct Batch {
    /// The life of the server that the ids were drawn on, for fences; `None` if entries are never read again.
    pub life: Option<Box<str>>,
    /// The lives of that server that came after it, if these entries are handed out once more.
    pub later: Option<Arc<str>>,
    pub entries: Vec<Entry>,
}

/// What a source must know of the store that its entries go to.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// See `Store::life`.
    pub life: Option<Arc<str>>,
    /// Whether all of it works: as long as it does not, applied entries are kept longer.
    pub is_whole: bool,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub id: EntryId,
    pub content: Content,
}

/// What a publisher wrote.
#[derive(Debug, Clone)]
pub enum Content {
    /// The fields of a stream entry.
    Fields(Vec<(Bytes, Bytes)>),
    /// An element of a list: one JSON document.
    Document(Bytes),
    /// More than the source hands out. It keeps the bytes.
    Oversize { bytes: usize, most: usize },
}

#[derive(Debug)]
pub struct Settled {
    pub entry: Entry,
    pub outcome: Outcome,
}

/// How an entry ended.
#[derive(Debug)]
pub enum Outcome {
    Applied(Applied),
    /// It can never be used as it is: to be kept as a dead letter.
    Dead(Problem),
    /// The store did not take it. Only told to a source that does not repeat.
    Failed(StoreError),
}

/// What the store made of an entry, be it a message or a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Stored,
    /// It was there before, under its key.
    Repeated,
    /// Its fence says that it was applied before.
    Skipped,
}

impl From<Appended> for Applied {
    fn from(answer: Appended) -> Applied {
        match answer {
            Appended::Stored { .. } => Applied::Stored,
            Appended::Repeated { .. } => Applied::Repeated,
            Appended::Skipped => Applied::Skipped,
        }
    }
}

impl From<PutAnswer> for Applied {
    fn from(answer: PutAnswer) -> Applied {
        match answer {
            PutAnswer::Stored { .. } => Applied::Stored,
            PutAnswer::Repeated { .. } => Applied::Repeated,
            PutAnswer::Skipped => Applied::Skipped,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Cannot be reached now; trying again helps.
    #[error("{0}")]
    Unreachable(String),
    /// Answers, but not as it should: somebody must look.
    #[error("{0}")]
    Broken(String),
    /// Has no room for what this would add.
    #[error("the ingest Redis is full (maxmemory)")]
    Full,
    /// Another node works on this partition.
    #[error("another node works on this partition")]
    Lost,
}

/// How a source is, for readiness and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceStatus {
    pub name: String,
    /// `None` while all is well.
    pub trouble: Option<String>,
    /// Whether this node works on it.
    pub owner: bool,
    pub lag_entries: u64,
    pub lag: Duration,
}

/// The status of one source, written by the source and the bridge, read by whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    status: SourceStatus,
    /// Why the lease cannot be asked for; told when there is no other trouble.
    no_lease: Option<String>,
}

impl Board {
    fn new(name: &str) -> Arc<Board> {
        let status = SourceStatus { name: name.to_owned(), ..SourceStatus::default() };
        Arc::new(Board(Mutex::new(Known { status, no_lease: None })))
    }

    fn read(&self) -> SourceStatus {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut status = known.status.clone();
        status.trouble = status.trouble.or_else(|| known.no_lease.clone());
        status
    }

    fn write(&self, change: impl FnOnce(&mut SourceStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).status);
    }

    /// `true` if that is news.
    fn no_lease(&self, why: Option<String>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = known.no_lease.is_some() != why.is_some();
        known.no_lease = why;
        is_news
    }

    fn lag(&self, entries: u64, oldest: Duration) {
        self.write(|status| {
            (status.lag_entries, status.lag) = (entries, oldest);
            metrics::gauge!(telemetry::INGEST_LAG, "source" => status.name.clone()).set(entries as f64);
            metrics::gauge!(telemetry::INGEST_LAG_SECONDS, "source" => status.name.clone()).set(oldest.as_secs_f64());
        });
    }

    fn owner(&self, owner: bool) {
        self.write(|status| {
            status.owner = owner;
            metrics::gauge!(telemetry::INGEST_OWNER, "source" => status.name.clone()).set(f64::from(u8::from(owner)));
            if !owner {
                // What waits, and what is wrong with it, is the owner's to tell.
                (status.lag_entries, status.lag) = (0, Duration::ZERO);
                status.trouble = None;
                metrics::gauge!(telemetry::INGEST_LAG, "source" => status.name.clone()).set(0.0);
                metrics::gauge!(telemetry::INGEST_LAG_SECONDS, "source" => status.name.clone()).set(0.0);
            }
        });
    }
}

/// Called between the steps of the loop; tests stall a node there.
#[derive(Clone, Default)]
pub struct Pause(Option<Arc<PauseFn>>);

type PauseFn = dyn Fn(Step) -> BoxFuture<'static, ()> + Send + Sync;

/// What has just been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Owned,
    Read,
    Decoded,
    Appended,
    Checked,
}

impl Pause {
    pub fn new(pause: impl Fn(Step) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Pause {
        Pause(Some(Arc::new(pause)))
    }

    pub(crate) async fn after(&self, step: Step) {
        if let Some(pause) = &self.0 {
            pause(step).await;
        }
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pause({})", self.0.is_some())
    }
}

/// An id as Redis writes it.
pub(crate) fn write_id(id: EntryId) -> String {
    format!("{}-{}", id.ms, id.seq)
}

pub(crate) fn parse_id(text: &str) -> Option<EntryId> {
    let (ms, seq) = text.split_once('-')?;
    Some(EntryId { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
}

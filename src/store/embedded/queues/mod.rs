//! The queues of the embedded store: its two contracts, each call a value that waits in the store's inbox like any other.
//!
//! `book` runs the pure queues and writes what they change (`table`) in the same commit; `reading` makes them again of what
//! was written; `board` is the way of the wakes to the hub.

mod board;
mod book;
mod reading;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use tokio::sync::oneshot;

pub use self::board::Board;
pub use self::book::{Book, Bounds};
pub use self::table::{read_lives, written_lives};
use super::inbox::{Call, Inbox, Reply};
use crate::domain::queue::{
    Change, JobId, Mark, Place, Put, PutAnswer, Queue, QueueAdmin, QueueKeeper, QueueSettings, Queues, Seen, Settle,
    Settled, Stats, Swept, Take, Taken, Wake, WatchQueues,
};
use crate::domain::store::StoreError;

/// What a call asks.
pub enum Ask {
    Put(Vec<Put>),
    Take(Queue, Take),
    Settle(Queue, Vec<Settle>),
    Sweep(Queue),
    Mark(Queue, Box<str>),
    Settings(Queue),
    Stats(Queue),
    List(Option<Queue>, usize),
    Look { queue: Queue, place: Place, skip: usize, limit: usize },
    Find(Queue, JobId),
    Change(Queue, Change),
}

/// The answer to each ask, in the same order.
pub enum Answer {
    Put(Vec<Result<PutAnswer, StoreError>>),
    Taken(Taken),
    Settled(Vec<Result<Settled, StoreError>>),
    Swept(Swept),
    Mark(Option<Mark>),
    Settings(Box<QueueSettings>),
    Stats(Option<Box<Stats>>),
    Listed(Vec<Queue>),
    Looked(Vec<Seen>),
    Found(Option<Box<Seen>>),
    Changed(u64),
}

pub struct QueueCall {
    pub ask: Ask,
    pub reply: Reply<Result<Answer, StoreError>>,
}

impl QueueCall {
    /// Whether it makes the store larger: what is refused when there is no room.
    pub fn stores(&self) -> bool {
        matches!(&self.ask, Ask::Put(_) | Ask::Change(_, Change::Settings(_) | Change::Edit { .. }))
    }

    /// How much of a transaction it is, in messages; `None`: it may answer a page.
    pub fn items(&self) -> Option<usize> {
        match &self.ask {
            Ask::Put(batch) => Some(batch.len()),
            Ask::Settle(_, batch) => Some(batch.len()),
            Ask::Take(_, take) => Some(take.count.max(1)),
            Ask::Sweep(_) | Ask::Mark(..) | Ask::Settings(_) | Ask::Stats(_) => Some(1),
            Ask::List(..) | Ask::Look { .. } | Ask::Find(..) | Ask::Change(..) => None,
        }
    }

    pub fn bytes(&self) -> usize {
        match &self.ask {
            Ask::Put(batch) => batch.iter().map(|put| put.body.as_bytes().len() + size_of::<Put>()).sum(),
            Ask::Settle(_, batch) => batch.len() * size_of::<Settle>(),
            Ask::Change(_, Change::Edit { body, .. }) => body.as_bytes().len(),
            _ => 0,
        }
    }
}

/// The queues of one open store.
struct EmbeddedQueues {
    inbox: Arc<Inbox>,
    board: Arc<Board>,
}

pub fn keeper(inbox: Arc<Inbox>, board: Arc<Board>) -> QueueKeeper {
    let queues = Arc::new(EmbeddedQueues { inbox, board });
    QueueKeeper { queues: queues.clone(), admin: queues }
}

type Answered<T> = BoxFuture<'static, Result<T, StoreError>>;

impl EmbeddedQueues {
    /// Puts a call in when it is made; the future is its answer.
    fn ask<T: 'static>(&self, ask: Ask, pick: fn(Answer) -> Option<T>) -> Answered<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.put(Call::Queue(QueueCall { ask, reply }));
        async move {
            let answer = answer
                .await
                .unwrap_or_else(|_| Err(StoreError::Unconfirmed("the store's thread ended while it was at it".into())));
            answer.map(|answer| pick(answer).expect("each ask has its own answer"))
        }
        .boxed()
    }
}

macro_rules! pick {
    ($answer:ident) => {
        |answer| match answer {
            Answer::$answer(answer) => Some(answer),
            _ => None,
        }
    };
}

/// One answer for each item, whatever became of the call.
async fn each<T>(count: usize, answers: Answered<Vec<Result<T, StoreError>>>) -> Vec<Result<T, StoreError>> {
    answers.await.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
}

impl Queues for EmbeddedQueues {
    fn put(&self, batch: Vec<Put>) -> BoxFuture<'static, Vec<Result<PutAnswer, StoreError>>> {
        each(batch.len(), self.ask(Ask::Put(batch), pick!(Put))).boxed()
    }

    fn take(&self, queue: &Queue, take: Take) -> Answered<Taken> {
        self.ask(Ask::Take(queue.clone(), take), pick!(Taken))
    }

    fn settle(&self, queue: &Queue, batch: Vec<Settle>) -> BoxFuture<'static, Vec<Result<Settled, StoreError>>> {
        each(batch.len(), self.ask(Ask::Settle(queue.clone(), batch), pick!(Settled))).boxed()
    }

    fn sweep(&self, queue: &Queue) -> Answered<Swept> {
        self.ask(Ask::Sweep(queue.clone()), pick!(Swept))
    }

    fn mark(&self, queue: &Queue, source: &str) -> Answered<Option<Mark>> {
        self.ask(Ask::Mark(queue.clone(), source.into()), pick!(Mark))
    }

    fn settings(&self, queue: &Queue) -> Answered<QueueSettings> {
        let settings = self.ask(Ask::Settings(queue.clone()), pick!(Settings));
        settings.map(|settings| settings.map(|settings| *settings)).boxed()
    }

    fn wakes(&self) -> (Box<dyn WatchQueues>, BoxStream<'static, Wake>) {
        board::open(&self.board)
    }
}

impl QueueAdmin for EmbeddedQueues {
    fn stats(&self, queue: &Queue) -> Answered<Option<Stats>> {
        let stats = self.ask(Ask::Stats(queue.clone()), pick!(Stats));
        stats.map(|stats| stats.map(|stats| stats.map(|stats| *stats))).boxed()
    }

    fn list(&self, after: Option<&Queue>, limit: usize) -> Answered<Vec<Queue>> {
        self.ask(Ask::List(after.cloned(), limit), pick!(Listed))
    }

    fn look(&self, queue: &Queue, place: Place, skip: usize, limit: usize) -> Answered<Vec<Seen>> {
        self.ask(Ask::Look { queue: queue.clone(), place, skip, limit }, pick!(Looked))
    }

    fn find(&self, queue: &Queue, job: JobId) -> Answered<Option<Seen>> {
        let found = self.ask(Ask::Find(queue.clone(), job), pick!(Found));
        found.map(|found| found.map(|seen| seen.map(|seen| *seen))).boxed()
    }

    fn change(&self, queue: &Queue, change: Change) -> Answered<u64> {
        self.ask(Ask::Change(queue.clone(), change), pick!(Changed))
    }
}

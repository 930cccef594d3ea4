//! The embedded store: SQLite in one thread of this process, in memory or in a file.
//!
//! Calls go into a bounded inbox when they are made (`inbox`), the thread takes them in groups (`writer`), the log
//! applies them (`log`, `record`, `entries`, `tables`), removes what is over (`sweep`), and stored messages go out through the feed
//! (`feed`). Queues are in `queues`. Dead letters of sources that keep no entries live in the same database (`dead`). What only a file needs is in
//! `disk`.

mod cursor_table;
mod dead;
mod dead_table;
mod disk;
mod entries;
mod feed;
mod held;
mod inbox;
mod log;
mod parts;
mod queues;
mod rebuild;
mod record;
mod sum;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

pub use self::disk::{DiskError, back_up, restore};
use self::disk::{Found, Guard, Keep};
use self::inbox::{AppendCall, Call, Inbox};
use super::Options;
use super::cursors::Desk;
use crate::domain::cursor::Cursors;
use crate::domain::dead::DeadLetterBox;
use crate::domain::message::Durability;
use crate::domain::name::Topic;
use crate::domain::queue::QueueKeeper;
use crate::domain::store::{
    Append, Appended, FeedEvent, Page, ReadFrom, ReadLimit, Store, StoreError, StoreStatus, Watch,
};
use crate::domain::topic::{Rules, TopicSettings};

/// Bytes of all messages of a store in memory, where nobody has said how many.
const USUAL_TOTAL_IN_MEMORY: u64 = 1 << 30;

pub struct EmbeddedStore {
    inbox: Arc<Inbox>,
    rules: Rules,
    feed_capacity: usize,
    durability: Durability,
}

/// The ends of one open store.
pub struct Ends {
    pub store: Arc<EmbeddedStore>,
    pub cursors: Arc<dyn Cursors>,
    /// Where the hub's own door keeps its dead letters.
    pub dead: Arc<dyn DeadLetterBox>,
    pub queues: QueueKeeper,
}

/// Opens a store that lives as long as the process.
pub fn open_in_memory(options: &Options) -> Result<Ends, StoreError> {
    let connection = tables::open_in_memory().map_err(|e| writer::error_of(&e))?;
    open(connection, None, options)
}

/// Opens the store of a folder; makes it if there is none. Takes as long as reading all of it.
pub fn open_on_disk(folder: &Path, options: &Options) -> Result<Ends, OpenDiskError> {
    let Found { connection, guard, keep } = disk::open(folder, options.accept_loss)?;
    Ok(open(connection, Some((guard, keep)), options)?)
}

/// Why a store on disk does not open: for a reason of its file, or of the process.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn open(connection: Connection, disk: Option<(Guard, Keep)>, options: &Options) -> Result<Ends, StoreError> {
    let inbox = Arc::new(Inbox::new(options.waiting_calls, options.waiting_bytes));
    let durability = if disk.is_some() { Durability::Disk } else { Durability::Memory };
    let usual = disk.as_ref().map_or(USUAL_TOTAL_IN_MEMORY, |(_, keep)| keep.room.usual_total());
    let rules = Rules::new((&options.retention).into(), &options.rules);
    let bounds = log::Bounds {
        rules: rules.clone(),
        window: options.retention.idempotency_window,
        bytes: if options.total_bytes == 0 { usual } else { options.total_bytes },
        topics: options.topics,
        keys: options.idempotency_keys,
        durability,
    };
    let (retries, retried) = watch::channel(0);
    let (dead_letters, clock) = (options.dead_letters, options.clock.clone());
    let cursors = options.cursors;
    let board = Arc::new(queues::Board::default());
    let queues = queues::Bounds {
        rules: options.queues.clone(),
        queues: options.queue_count,
        bytes: if options.queue_bytes == 0 { usual } else { options.queue_bytes },
        keys: options.queue_keys,
        window: options.retention.idempotency_window,
        record: options.retention.record,
        durability,
    };
    let setup =
        writer::Setup { connection, disk, bounds, cursors, queues, board: board.clone(), dead_letters, retries, clock };
    writer::start(setup, inbox.clone())?;
    let dead = Arc::new(dead::EmbeddedDead::new(inbox.clone(), dead_letters, retried));
    let cursors = Arc::new(Desk(inbox.clone()));
    let queues = queues::keeper(inbox.clone(), board);
    let store = Arc::new(EmbeddedStore { inbox, rules, feed_capacity: options.feed_capacity, durability });
    Ok(Ends { store, cursors, dead, queues })
}

impl Store for EmbeddedStore {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        let count = batch.len();
        let (reply, answer) = oneshot::channel();
        self.inbox.put(Call::Append(AppendCall { batch, reply }));
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| {
                vec![Err(StoreError::Unconfirmed("the store's thread ended while it was at it".into())); count]
            })
        })
    }

    fn read(&self, topic: &Topic, from: ReadFrom, limit: ReadLimit) -> BoxFuture<'static, Result<Page, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.inbox.put(Call::Read { topic: topic.clone(), from, limit, reply });
        Box::pin(
            async move { answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("its thread ended".into()))) },
        )
    }

    fn feed(&self) -> (Box<dyn Watch>, BoxStream<'static, FeedEvent>) {
        let (watcher, feed) = feed::open(&self.inbox, self.feed_capacity);
        (Box::new(watcher), Box::pin(feed))
    }

    fn settings(&self, topic: &Topic) -> TopicSettings {
        *self.rules.of(topic)
    }

    fn status(&self) -> StoreStatus {
        let kind = if self.durability == Durability::Disk { "disk" } else { "memory" };
        StoreStatus { trouble: self.inbox.trouble(), durability: self.durability, kind }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let closed = self.inbox.close();
        Box::pin(async move {
            // The writer drops the other end when it is gone.
            let _ = closed.await;
        })
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // The thread finishes what was accepted and ends.
        drop(self.inbox.close());
    }
}

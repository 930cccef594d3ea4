//! The embedded store: SQLite in one thread of this process, here in its in-memory form.
//!
//! Calls go into a bounded inbox when they are made (`inbox`), the thread takes them in groups (`writer`), the log
//! applies them (`log`, `record`, `entries`, `tables`), removes what is over (`sweep`), and stored messages go out through the feed
//! (`feed`). Dead letters of sources that keep no entries live in the same database (`dead`).

mod dead;
mod dead_table;
mod entries;
mod feed;
mod inbox;
mod log;
mod rebuild;
mod record;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use self::inbox::{AppendCall, Call, Inbox};
use super::Options;
use crate::domain::dead::DeadLetterBox;
use crate::domain::message::Durability;
use crate::domain::name::Topic;
use crate::domain::store::{
    Append, Appended, FeedEvent, Page, ReadFrom, ReadLimit, Store, StoreError, StoreStatus, Watch,
};
use crate::domain::topic::{Mode, Rules};

pub struct EmbeddedStore {
    inbox: Arc<Inbox>,
    rules: Rules,
    feed_capacity: usize,
}

/// Opens a store that lives as long as the process.
pub fn open_in_memory(options: &Options) -> Result<(Arc<EmbeddedStore>, Arc<dyn DeadLetterBox>), StoreError> {
    let connection = tables::open_in_memory().map_err(|e| writer::error_of(&e))?;
    open(connection, options)
}

fn open(connection: Connection, options: &Options) -> Result<(Arc<EmbeddedStore>, Arc<dyn DeadLetterBox>), StoreError> {
    let inbox = Arc::new(Inbox::new(options.waiting_calls, options.waiting_bytes));
    let rules = Rules::new((&options.retention).into(), &options.rules);
    let bounds = log::Bounds {
        rules: rules.clone(),
        window: options.retention.idempotency_window,
        bytes: options.total_bytes,
        topics: options.topics,
        keys: options.idempotency_keys,
        durability: Durability::Memory,
    };
    let (retries, retried) = watch::channel(0);
    let (dead_letters, clock) = (options.dead_letters, options.clock.clone());
    writer::start(writer::Setup { connection, bounds, dead_letters, retries, clock }, inbox.clone())?;
    let dead = Arc::new(dead::EmbeddedDead::new(inbox.clone(), dead_letters, retried));
    Ok((Arc::new(EmbeddedStore { inbox, rules, feed_capacity: options.feed_capacity }), dead))
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

    fn mode(&self, topic: &Topic) -> Mode {
        self.rules.of(topic).mode
    }

    fn status(&self) -> StoreStatus {
        StoreStatus { trouble: self.inbox.trouble(), durability: Durability::Memory, kind: "memory" }
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

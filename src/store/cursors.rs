//! What both stores share of cursors: a call as a value, which waits in the store's queue like any other, and the contract
//! in terms of such calls.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::oneshot;

use crate::domain::cursor::{CursorError, CursorKey, CursorName, Cursors, First, Opened, Owner, Placed};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::StoreError;

#[derive(Debug, Clone)]
pub(super) enum Ask {
    Open { key: CursorKey, first: First },
    Commit { key: CursorKey, at: Position, rewind: bool },
    Find { key: CursorKey },
    Remove { key: CursorKey },
    List { topic: Topic, owner: Owner, after: Option<CursorName>, limit: usize },
}

/// The answer to each ask, in the same order.
#[derive(Debug)]
pub(super) enum Answer {
    Opened(Opened),
    Placed(Placed),
    Found(Option<Placed>),
    Removed(bool),
    Listed(Vec<(CursorName, Placed)>),
}

pub(super) type Reply = oneshot::Sender<Result<Answer, CursorError>>;

/// Where calls wait.
pub(super) trait Queue: Send + Sync + 'static {
    /// Puts a call in when it is made, or refuses it at once.
    fn put(&self, ask: Ask, reply: Reply);
}

/// The cursors of a store.
pub(super) struct Desk<Q>(pub Arc<Q>);

impl Ask {
    pub fn topic(&self) -> &Topic {
        match self {
            Ask::Open { key, .. } | Ask::Commit { key, .. } | Ask::Find { key } | Ask::Remove { key } => &key.topic,
            Ask::List { topic, .. } => topic,
        }
    }

    pub fn owner(&self) -> &Owner {
        match self {
            Ask::Open { key, .. } | Ask::Commit { key, .. } | Ask::Find { key } | Ask::Remove { key } => &key.owner,
            Ask::List { owner, .. } => owner,
        }
    }
}

impl<Q: Queue> Desk<Q> {
    /// Asks, and takes out of the answer what is of the kind that was asked for.
    fn ask<T: Send + 'static>(
        &self,
        ask: Ask,
        take: fn(Answer) -> Option<T>,
    ) -> BoxFuture<'static, Result<T, CursorError>> {
        let (reply, answered) = oneshot::channel();
        self.0.put(ask, reply);
        async move {
            let gone = |_| StoreError::Unconfirmed("the store was shut down while it was at it".into());
            let answer = answered.await.map_err(gone)??;
            take(answer).ok_or_else(|| StoreError::Broken("an answer of another kind".into()).into())
        }
        .boxed()
    }
}

macro_rules! take {
    ($kind:ident) => {
        |answer| match answer {
            Answer::$kind(it) => Some(it),
            _ => None,
        }
    };
}

impl<Q: Queue> Cursors for Desk<Q> {
    fn open(&self, key: &CursorKey, first: First) -> BoxFuture<'static, Result<Opened, CursorError>> {
        self.ask(Ask::Open { key: key.clone(), first }, take!(Opened))
    }

    fn commit(&self, key: &CursorKey, at: Position, rewind: bool) -> BoxFuture<'static, Result<Placed, CursorError>> {
        self.ask(Ask::Commit { key: key.clone(), at, rewind }, take!(Placed))
    }

    fn find(&self, key: &CursorKey) -> BoxFuture<'static, Result<Option<Placed>, CursorError>> {
        self.ask(Ask::Find { key: key.clone() }, take!(Found))
    }

    fn remove(&self, key: &CursorKey) -> BoxFuture<'static, Result<bool, CursorError>> {
        self.ask(Ask::Remove { key: key.clone() }, take!(Removed))
    }

    fn list(
        &self,
        topic: &Topic,
        owner: &Owner,
        after: Option<&CursorName>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(CursorName, Placed)>, CursorError>> {
        let ask = Ask::List { topic: topic.clone(), owner: owner.clone(), after: after.cloned(), limit };
        self.ask(ask, take!(Listed))
    }
}

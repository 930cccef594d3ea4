//! The hub: takes publishes in, reads history, and brings what the store feeds to whoever subscribed.
//!
//! It knows which shards want which topic, but not which protocol their connections speak, nor which store is behind.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::domain::error::Problem;
use crate::domain::message::{Durability, Message, Publication};
use crate::domain::name::Topic;
use crate::domain::position::Position;
use crate::domain::store::{Append, Appended, Page, ReadFrom, ReadLimit, Store, StoreError, StoreStatus};

/// A handle to the hub; clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    store: Arc<dyn Store>,
}

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub topic: Topic,
    pub stored: Position,
    pub durability: Durability,
}

impl Hub {
    /// Wires the hub to its store.
    pub fn new(store: Arc<dyn Store>) -> Hub {
        Hub { store }
    }

    /// Publishes one message. The work starts with the call: two calls are applied in their order.
    pub fn publish(&self, publication: Publication) -> BoxFuture<'static, Result<Receipt, Problem>> {
        let topic = publication.topic.clone();
        let durability = self.store.status().durability;
        let stored = self.store.append(vec![Append { publication, fence: None }]);
        async move {
            let answer = stored.await.pop().unwrap_or_else(|| Err(StoreError::Broken("no answer".into())))?;
            match answer {
                Appended::Stored { at, .. } | Appended::Repeated { at } => {
                    Ok(Receipt { topic, stored: at, durability })
                }
                Appended::Skipped => Err(StoreError::Broken("skipped without a fence".into()).into()),
            }
        }
        .boxed()
    }

    /// Stores a batch, fenced or not, and answers item by item. For the dispatcher and the HTTP API.
    pub fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        self.store.append(batch)
    }

    pub fn read(
        &self,
        topic: &Topic,
        from: ReadFrom,
        limit: ReadLimit,
    ) -> BoxFuture<'static, Result<Page, StoreError>> {
        self.store.read(topic, from, limit)
    }

    /// The one message at a position, if it is still kept.
    pub fn find(&self, topic: &Topic, at: Position) -> BoxFuture<'static, Result<Option<Message>, StoreError>> {
        let page =
            self.store.read(topic, ReadFrom::After(at.before()), ReadLimit { messages: 1, ..ReadLimit::default() });
        async move { Ok(page.await?.messages.into_iter().find(|m| m.at == at)) }.boxed()
    }

    /// How the store is at this moment.
    pub fn status(&self) -> StoreStatus {
        self.store.status()
    }
}

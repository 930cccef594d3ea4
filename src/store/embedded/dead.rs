//! The dead letters of sources that keep no entries of their own, kept in the embedded store's database. Its calls
//! go through the store's thread; what they do there is in `dead_table`.

use std::sync::Arc;

use futures::future::{BoxFuture, Either, select};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{oneshot, watch};

use super::dead_table::DeadCall;
use super::inbox::{Call, Inbox, Reply};
use crate::domain::dead::{DeadLetter, DeadLetterBox, DeadLetters};
use crate::domain::store::StoreError;

pub struct EmbeddedDead {
    inbox: Arc<Inbox>,
    capacity: usize,
    retries: watch::Receiver<u64>,
}

impl EmbeddedDead {
    pub fn new(inbox: Arc<Inbox>, capacity: usize, retries: watch::Receiver<u64>) -> EmbeddedDead {
        EmbeddedDead { inbox, capacity, retries }
    }
}

impl DeadLetters for EmbeddedDead {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn list(&self, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Vec<DeadLetter>, StoreError>> {
        // Nothing comes after a letter that cannot be.
        let after = after.map_or(0, |id| number(id).unwrap_or(u64::MAX));
        ask(&self.inbox, |reply| DeadCall::List { after, limit, reply })
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        ask(&self.inbox, |reply| DeadCall::Count { reply })
    }

    fn retry(&self, id: &str) -> BoxFuture<'static, Result<bool, StoreError>> {
        let Some(letter) = number(id) else { return no_such_letter() };
        ask(&self.inbox, |reply| DeadCall::Retry { letter, reply })
    }

    fn discard(&self, id: &str) -> BoxFuture<'static, Result<bool, StoreError>> {
        let Some(letter) = number(id) else { return no_such_letter() };
        ask(&self.inbox, |reply| DeadCall::Drop { letter, reply })
    }
}

impl DeadLetterBox for EmbeddedDead {
    fn bury(&self, letter: DeadLetter) -> BoxFuture<'static, Result<String, StoreError>> {
        ask(&self.inbox, |reply| DeadCall::Bury { letter, reply })
    }

    fn retried(&self) -> BoxStream<'static, DeadLetter> {
        let (inbox, retries) = (self.inbox.clone(), self.retries.clone());
        let gone = self.inbox.when_gone();
        let start = (inbox, retries, gone, 0);
        stream::unfold(start, |(inbox, mut retries, mut gone, after)| async move {
            loop {
                retries.borrow_and_update();
                match ask(&inbox, |reply| DeadCall::NextRetried { after, reply }).await {
                    Ok(Some((number, letter))) => return Some((letter, (inbox, retries, gone, number))),
                    Ok(None) => {
                        let changed = std::pin::pin!(retries.changed());
                        if let Either::Right(_) | Either::Left((Err(_), _)) = select(changed, &mut gone).await {
                            return None;
                        }
                    }
                    // It is closed or broken; whoever reads the stream knows it from the store.
                    Err(error) => {
                        tracing::debug!(%error, "no more retried letters");
                        return None;
                    }
                }
            }
        })
        .boxed()
    }

    fn settle(&self, id: &str) -> BoxFuture<'static, Result<bool, StoreError>> {
        let Some(letter) = number(id) else { return no_such_letter() };
        ask(&self.inbox, |reply| DeadCall::Settle { letter, reply })
    }
}

fn ask<T: Send + 'static>(
    inbox: &Inbox,
    call: impl FnOnce(Reply<Result<T, StoreError>>) -> DeadCall,
) -> BoxFuture<'static, Result<T, StoreError>> {
    let (reply, answer) = oneshot::channel();
    inbox.put(Call::Dead(call(reply)));
    Box::pin(async move {
        answer
            .await
            .unwrap_or_else(|_| Err(StoreError::Unconfirmed("the store's thread ended while it was at it".into())))
    })
}

fn number(id: &str) -> Option<u64> {
    id.parse().ok()
}

fn no_such_letter() -> BoxFuture<'static, Result<bool, StoreError>> {
    Box::pin(async { Ok(false) })
}

//! The desk: where jobs are handed in, and handed out to whoever of this node has credit. It knows the contract of whoever
//! keeps queues, never which store that is.

use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use metrics::histogram;

use crate::domain::error::{Problem, Reason};
use crate::domain::queue::{Put, PutAnswer, QueueKeeper};
use crate::domain::store::StoreError;
use crate::telemetry;

pub struct Desk {
    keeper: QueueKeeper,
}

impl Desk {
    pub fn new(keeper: QueueKeeper) -> Desk {
        Desk { keeper }
    }

    /// Both contracts of whoever keeps the queues: what operators see and do, marks, settings.
    pub fn keeper(&self) -> &QueueKeeper {
        &self.keeper
    }

    /// Puts jobs, fenced or not, and answers item by item. The work starts with the call.
    pub fn put(&self, batch: Vec<Put>) -> BoxFuture<'static, Vec<Result<PutAnswer, StoreError>>> {
        let (begun, stored) = (Instant::now(), self.keeper.queues.put(batch));
        async move {
            let answers = stored.await;
            histogram!(telemetry::QUEUE_PUT_SECONDS).record(begun.elapsed());
            answers
        }
        .boxed()
    }
}

/// What stands for a desk where the store keeps no queues.
pub fn absent() -> Problem {
    Problem::new(Reason::NotFound, "this hub's store keeps no queues")
}

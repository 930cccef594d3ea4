//! The contract of queues, as tests: the same on every store that keeps any.

pub mod keys;
pub mod looking;
pub mod starting;
pub mod taking;
pub mod waking;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfare::domain::message::Body;
use fanfare::domain::queue::*;
use fanfare::domain::store::{Store, StoreError};

use crate::support::MovedClock;

/// A keeper of queues under test. All its queues have the settings that the case asks for.
pub struct Subject {
    pub store: Arc<dyn Store>,
    pub keeper: QueueKeeper,
    /// Moves the store's clock, if it can be moved.
    pub clock: Option<MovedClock>,
    /// What must live as long as the store, like a server.
    pub _guard: Box<dyn Any + Send>,
}

static TOKENS: AtomicU64 = AtomicU64::new(1);

impl Subject {
    pub async fn try_put(&self, put: Put) -> Result<PutAnswer, StoreError> {
        self.keeper.queues.put(vec![put]).await.pop().expect("one answer for one job")
    }

    /// A job that is new.
    pub async fn put(&self, put: Put) -> JobId {
        match self.try_put(put).await {
            Ok(PutAnswer::Stored { job, .. }) => job,
            other => panic!("{other:?}"),
        }
    }

    pub async fn put_all<const N: usize>(&self, puts: [Put; N]) -> [JobId; N] {
        let answers = self.keeper.queues.put(puts.into()).await;
        let jobs: Vec<JobId> = answers
            .into_iter()
            .map(|answer| match answer {
                Ok(PutAnswer::Stored { job, .. }) => job,
                other => panic!("{other:?}"),
            })
            .collect();
        jobs.try_into().expect("one answer for each job")
    }

    pub async fn took(&self, worker: &str, count: usize) -> Taken {
        self.keeper.queues.take(&jobs(), take(worker, count)).await.expect("a take is answered")
    }

    pub async fn take(&self, count: usize) -> Vec<Job> {
        self.took("w", count).await.jobs
    }

    /// The numbers of what is taken.
    pub async fn numbers(&self, count: usize) -> Vec<u64> {
        self.take(count).await.iter().map(|job| job.id.number()).collect()
    }

    pub async fn take_one(&self) -> Job {
        let mut taken = self.take(1).await;
        taken.pop().expect("there is a job")
    }

    pub async fn settle(&self, job: &Job, how: How) -> Settled {
        let settle = Settle { job: job.id, token: job.token, how };
        self.keeper.queues.settle(&jobs(), vec![settle]).await.pop().expect("one answer").expect("it is answered")
    }

    pub async fn ack(&self, job: &Job) -> Settled {
        self.settle(job, How::Ack).await
    }

    pub async fn nack(&self, job: &Job, delay: Option<u64>) -> Settled {
        self.settle(job, How::Nack { delay: delay.map(ms), error: Some("no".into()) }).await
    }

    pub async fn term(&self, job: &Job) -> Settled {
        self.settle(job, How::Term { error: Some("never".into()) }).await
    }

    pub async fn sweep(&self) -> Swept {
        self.keeper.queues.sweep(&jobs()).await.expect("a sweep is answered")
    }

    pub async fn stats(&self) -> Stats {
        self.keeper.admin.stats(&jobs()).await.expect("stats are answered").expect("the queue is there")
    }

    /// Ready, parked, delayed, in flight, dead, once all has moved that is due.
    pub async fn places(&self) -> [u64; 5] {
        while self.sweep().await.more {}
        let stats = self.stats().await;
        let waiting: u64 = stats.waiting.iter().sum();
        [waiting - stats.parked, stats.parked, stats.delayed, stats.in_flight, stats.dead]
    }

    pub async fn look(&self, place: Place) -> Vec<Seen> {
        self.keeper.admin.look(&jobs(), place, 0, 1000).await.expect("a look is answered")
    }

    /// Numbers and causes of the dead, oldest first.
    pub async fn deaths(&self) -> Vec<(u64, Death)> {
        let dead = self.look(Place::Dead).await;
        dead.iter().map(|seen| (seen.id.number(), seen.death.expect("it says why"))).collect()
    }

    pub async fn change(&self, change: Change) -> u64 {
        self.keeper.admin.change(&jobs(), change).await.expect("a change is answered")
    }

    /// Lets time go by, on the store's clock.
    pub async fn pass(&self, time: u64) {
        match &self.clock {
            Some(clock) => clock.advance(ms(time)),
            // The clock of a server cannot be moved.
            None => tokio::time::sleep(ms(time)).await,
        }
    }
}

pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The queue that most cases use.
pub fn jobs() -> Queue {
    Queue::parse("jobs").unwrap()
}

pub fn queue(name: &str) -> Queue {
    Queue::parse(name).unwrap()
}

/// Settings that retry at once, with a lease longer than any case.
pub fn plain() -> QueueSettings {
    QueueSettings { lease: Duration::from_secs(600), backoff: vec![], max_deliveries: 3, ..QueueSettings::default() }
}

pub fn body(text: &str) -> Body {
    Body::from_canonical(Bytes::copy_from_slice(text.as_bytes()))
}

pub fn job(text: &str) -> Put {
    Put::new(jobs(), body(text))
}

pub fn urgent(level: u8) -> Put {
    Put { priority: Priority::new(level).unwrap(), ..job("x") }
}

pub fn grouped(group: &str) -> Put {
    Put { group: Some(group.into()), ..job("x") }
}

pub fn delayed(delay: u64) -> Put {
    Put { due: Due::After(ms(delay)), ..job("x") }
}

pub fn take(worker: &str, count: usize) -> Take {
    let token = TOKENS.fetch_add(1, Ordering::Relaxed);
    Take { worker: worker.into(), count, bytes: 1 << 20, lease: None, token }
}

//! What is particular to queues on Redis: scripts and settings that change under a call, a Redis without room, failovers,
//! wakes, and that the scripts do what the pure queue does. The contract itself is held by `store_conformance.rs`.

#[path = "redis_queues/basics.rs"]
mod basics;
#[path = "redis_queues/clock.rs"]
mod clock;
#[path = "redis_queues/cluster.rs"]
mod cluster;
#[path = "support/cluster.rs"]
mod cluster_servers;
#[path = "redis_queues/differential.rs"]
mod differential;
#[path = "redis_queues/outages.rs"]
mod outages;
#[path = "support/queue_model.rs"]
mod queue_model;
#[path = "support/redis.rs"]
mod server;
#[path = "redis_queues/speed.rs"]
mod speed;
#[path = "support/mod.rs"]
mod support;
#[path = "redis_queues/wakes.rs"]
mod wakes;
#[path = "redis_queues/watched.rs"]
mod watched;

use std::time::Duration;

use bytes::Bytes;
use fanfare::domain::message::Body;
use fanfare::domain::queue::*;
use fanfare::domain::store::StoreError;
use fanfare::store::{Opened, Options, open};
use server::RedisServer;

/// Longer than anything here should take; reaching it is a failure.
const SOON: Duration = Duration::from_secs(20);

struct Keeper {
    opened: Opened,
    queues: QueueKeeper,
}

async fn keeper(url: &str, options: Options) -> Keeper {
    let opened = open(url, options).await.expect("a store on Redis opens");
    let queues = opened.queues.clone().expect("it keeps queues");
    Keeper { opened, queues }
}

fn queue(name: &str) -> Queue {
    Queue::parse(name).expect("tests write good names")
}

fn body(text: impl Into<Bytes>) -> Body {
    Body::from_canonical(text.into())
}

fn job(name: &str, text: &str) -> Put {
    Put::new(queue(name), body(text.to_owned()))
}

impl Keeper {
    async fn put(&self, put: Put) -> Result<JobId, StoreError> {
        match self.queues.queues.put(vec![put]).await.remove(0)? {
            PutAnswer::Stored { job, .. } | PutAnswer::Repeated { job, .. } => Ok(job),
            PutAnswer::Skipped => panic!("no fence was given"),
        }
    }

    async fn take(&self, name: &str, count: usize) -> Taken {
        self.take_as(name, count, "worker").await.unwrap()
    }

    async fn take_as(&self, name: &str, count: usize, worker: &str) -> Result<Taken, StoreError> {
        let take = Take { worker: worker.into(), count, bytes: 1 << 20, lease: None, token: 7 };
        self.queues.queues.take(&queue(name), take).await
    }

    async fn settle(&self, name: &str, job: &Job, how: How) -> Result<Settled, StoreError> {
        let settle = Settle { job: job.id, token: job.token, how };
        self.queues.queues.settle(&queue(name), vec![settle]).await.remove(0)
    }

    async fn stats(&self, name: &str) -> Stats {
        self.queues.admin.stats(&queue(name)).await.unwrap().expect("it is there")
    }

    async fn change(&self, name: &str, change: Change) -> Result<u64, StoreError> {
        self.queues.admin.change(&queue(name), change).await
    }
}

fn texts(taken: &Taken) -> Vec<String> {
    taken.jobs.iter().map(|job| format!("{:?}", job.body)).collect()
}

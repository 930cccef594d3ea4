//! Random work on queues, watched by somebody who knows nothing of how they are kept (`support/queue_model.rs`), with the
//! seeds that the embedded stores are watched with. `FAULTS=long` runs 200 of them, of 3,000 steps each.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;

use super::cluster_servers::Cluster;
use super::queue_model::{Ground, form, run, watch_seeds};
use super::*;

const PREFIX: &str = "watched";

/// One queue of a store that others have queues in.
struct Shared {
    keeper: Arc<Keeper>,
    hand: Mutex<redis::Connection>,
    queue: String,
}

impl Ground for Shared {
    fn keeper(&self) -> QueueKeeper {
        self.keeper.queues.clone()
    }

    /// It goes on by itself.
    fn now(&self) -> Option<u64> {
        None
    }

    fn pass(&mut self, time: Duration) -> BoxFuture<'_, ()> {
        clock::pass(self.hand.get_mut().unwrap(), PREFIX, &self.queue, time);
        Box::pin(async {})
    }

    fn restart(&mut self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
}

async fn watch(what: &str, form: (u64, usize), url: &str, hand: impl Fn(&str) -> redis::Connection) {
    let options = Options { prefix: PREFIX.into(), replicas: 0, ..Options::default() };
    let keeper = Arc::new(keeper(url, options).await);
    watch_seeds(what, form, 16, |seed, steps| {
        let queue = format!("model{seed}");
        let hand = Mutex::new(hand(&format!("{PREFIX}:{{q:{queue}}}:")));
        let mut ground = Shared { keeper: keeper.clone(), hand, queue: queue.clone() };
        async move { run(&mut ground, &queue, seed, steps).await }
    })
    .await;
    keeper.opened.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_work_on_queues_on_redis_is_as_it_must_be() {
    let server = RedisServer::start();
    watch("Redis", form(20, 3_000), &server.url(), |_| server.connection()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_work_on_queues_on_a_cluster_is_as_it_must_be() {
    let cluster = Cluster::start(Duration::from_secs(60));
    watch("Cluster", form(20, 3_000), &cluster.url(), |key| cluster.connection_for(key)).await;
    assert_eq!(cluster.cross_slot_errors(), 0);
}

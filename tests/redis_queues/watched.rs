//! Random work on queues, watched by somebody who knows nothing of how they are kept (`support/queue_model.rs`), with the
//! seeds that the embedded stores are watched with. `FAULTS=long` runs 200 of them, of 3,000 steps each.

use futures::future::BoxFuture;

use super::cluster_servers::Cluster;
use super::queue_model::{Ground, Report, run};
use super::*;

struct Shared {
    keeper: Keeper,
    hand: redis::Connection,
    prefix: String,
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
        clock::pass(&mut self.hand, &self.prefix, "model", time);
        Box::pin(async {})
    }

    fn restart(&mut self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
}

async fn watch(seeds: u64, steps: usize, url: &str, hand: impl Fn(&str) -> redis::Connection) {
    let is_long = std::env::var("FAULTS").is_ok_and(|form| form == "long");
    let (seeds, steps) = if is_long { (200, 3_000) } else { (seeds, steps) };
    let mut all = Report::default();
    for seed in 1..=seeds {
        let prefix = format!("seed{seed}");
        let keeper = keeper(url, Options { prefix: prefix.clone(), replicas: 0, ..Options::default() }).await;
        let mut ground = Shared { keeper, hand: hand(&format!("{prefix}:{{q:model}}:")), prefix };
        let report = run(&mut ground, seed, steps).await.unwrap_or_else(|wrong| panic!("{wrong}"));
        ground.keeper.opened.store.close().await;
        all.puts += report.puts;
        all.deliveries += report.deliveries;
        all.acks += report.acks;
        all.deaths += report.deaths;
        all.firings += report.firings;
    }
    println!("{seeds} seeds of {steps} steps: {all:?}, 0 violations");
    assert!(all.deliveries > all.puts / 4 && all.acks > 0 && all.deaths > 0 && all.firings > 0, "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_work_on_queues_on_redis_is_as_it_must_be() {
    let server = RedisServer::start();
    watch(10, 400, &server.url(), |_| server.connection()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_work_on_queues_on_a_cluster_is_as_it_must_be() {
    let cluster = Cluster::start(Duration::from_secs(60));
    watch(5, 200, &cluster.url(), |key| cluster.connection_for(key)).await;
    assert_eq!(cluster.cross_slot_errors(), 0);
}

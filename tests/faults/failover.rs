//! F5: the master of a Redis with sentinels is cut off from its replica and from the sentinels while hubs still reach it,
//! and the replica is made the master: what the old one took meanwhile is gone. Each level of acknowledgement keeps what
//! it promises, and what is lost is told to everybody whom it concerns.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use crate::checker::{Allowed, Loss};
use crate::fleet::Fleet;
use crate::form::{Running, begin, pick};
use crate::listener::Nodes;
use crate::publisher::Door;
use crate::scene::{Cast, SOON, Scene};
use crate::sentinel::{DOWN_AFTER, Replicated};
use crate::server::RedisServer;

const PACE: Duration = Duration::from_millis(10);
/// So soon is the service back after the sentinels have to notice.
const BACK: Duration = DOWN_AFTER.saturating_add(Duration::from_secs(10));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_behind_a_cut_line_loses_only_what_was_promised_no_better_and_tells_it() {
    let running = begin("F5 failover behind a cut replication link").await;
    failover(&running, |scene, nodes, _| {
        for n in 0..2 {
            scene.publish(&format!("memory-{n}"), Door::http(nodes, n, SOON), PACE);
            scene.publish(&format!("replica-{n}"), Door::http_with_keys(nodes, n, SOON).lasting("replica"), PACE);
        }
        scene.publish("ws", Door::websocket(nodes, 0, SOON), PACE);
        &["replica-0", "replica-1"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_from_a_queue_of_its_own_is_applied_again_after_a_failover() {
    let running = begin("F5 failover, ingest from a queue of its own").await;
    failover(&running, |scene, nodes, queue| {
        scene.publish("memory", Door::http(nodes, 0, SOON), PACE);
        scene.publish("xadd", Door::xadd(queue), PACE);
        scene.publish("rpush", Door::rpush(queue), PACE);
        &["xadd", "rpush"]
    })
    .await;
}

/// Fails over while these publish, who also names those of which nothing may be lost.
async fn failover(running: &Running, publish: impl FnOnce(&mut Scene, &Nodes, &str) -> &'static [&'static str]) {
    let queue = RedisServer::start_durable();
    let set = block_in_place(|| Replicated::start(1, &["--appendonly", "yes"]));
    let history = ["--history-messages", "100000", "--history-bytes", "1GiB"];
    let ingest = queue.url();
    let settings = [&history[..], &["--ingest", &ingest]].concat();
    let fleet = Fleet::start(2, &set.url(), &settings);
    let nodes = fleet.addresses.clone();
    let mut scene = Scene::open(nodes.clone(), Cast { topics: 6, listeners: 24, share: 2, watches: None }).await;
    let safe = publish(&mut scene, &nodes, &ingest);
    scene.flow(20).await;

    let mut lost_before = Duration::ZERO;
    for turn in 0..pick(1, 4) {
        let master = block_in_place(|| set.master());
        set.servers[master].isolate();
        let cut = Instant::now();
        block_in_place(|| set.until_not(master));
        let promoted = cut.elapsed();
        // The new master has no replica that could confirm anything until the old one is reached again.
        for publisher in scene.publishers.iter_mut().filter(|publisher| !publisher.name.starts_with("replica")) {
            publisher.until_more(20, SOON).await;
        }
        lost_before = scene.clock.now();
        let back = cut.elapsed();
        running.tell(format_args!("failover {turn}: promoted after {promoted:.1?}, all publish on after {back:.1?}"));
        assert!(back < BACK, "{back:?}");
        set.servers[master].heal();
        block_in_place(|| set.until_replica(master));
        scene.flow(20).await;
    }
    let allowed =
        Allowed { loss: Loss::Before(lost_before), safe, gaps: &["failover"], anew: &["epoch"], ..Allowed::default() };
    let run = scene.close(running, Some(&queue.url()), allowed).await;
    // Without any loss this would have shown nothing.
    running.tell(format_args!("{} acknowledged in memory only are lost and told", run.verdict.figures.lost));
    assert!(run.verdict.figures.lost > 0, "the failover lost nothing");
}

//! F1: hub nodes are killed with -9 at random moments while messages flow, one of three or the only one.

use std::time::Duration;

use crate::checker::Allowed;
use crate::fleet::Fleet;
use crate::form::{Running, begin, pick};
use crate::publisher::{Door, WEBSOCKET_PACE};
use crate::scene::{Cast, Run, Scene};
use crate::server::RedisServer;
use crate::trouble::Dice;

const SETTINGS: [&str; 6] = ["--ingest-lease", "1500ms", "--history-messages", "100000", "--history-bytes", "1GiB"];
/// How long an answer may take until it counts as none.
const PATIENCE: Duration = Duration::from_secs(10);
/// So soon are 99 of 100 subscriptions back after a kill of one node of several.
const BACK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_nodes_killed_again_and_again_costs_nothing_but_a_reconnect() {
    let running = begin("F1 one of three nodes killed").await;
    let redis = RedisServer::start();
    let cast = Cast { topics: 20, listeners: pick(100, 200), share: 2, watches: None };
    // In sixty seconds of the long form 20 kills, in the short form 4 within about ten.
    let kills = pick(4, 20);
    let run = kill_nodes(&running, &redis.url(), Some(&redis), 3, cast, kills, pick(1_000..2_000, 2_500..3_500)).await;
    let back = run.verdict.figures.away_p99();
    assert!(back < BACK, "99 of 100 subscriptions are back after {back:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_nodes_killed_at_fifty_random_moments_loses_nothing() {
    let running = begin("one of three nodes killed at random moments").await;
    let redis = RedisServer::start();
    let cast = Cast { topics: 12, listeners: 24, share: 2, watches: None };
    kill_nodes(&running, &redis.url(), Some(&redis), 3, cast, pick(8, 50), 50..1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_node_killed_at_fifty_random_moments_loses_nothing_on_redis() {
    let running = begin("the only node killed at random moments, Redis").await;
    let redis = RedisServer::start();
    let cast = Cast { topics: 12, listeners: 24, share: 2, watches: None };
    kill_nodes(&running, &redis.url(), Some(&redis), 1, cast, pick(8, 50), 50..1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_node_killed_at_fifty_random_moments_loses_nothing_on_disk() {
    let running = begin("the only node killed at random moments, disk").await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let store = format!("disk:{}", folder.path().join("store").display());
    let cast = Cast { topics: 12, listeners: 24, share: 2, watches: None };
    kill_nodes(&running, &store, None, 1, cast, pick(8, 50), 50..1_000).await;
}

/// Kills one node after the other and starts it again, with a pause within `pauses` (in ms) between; each time messages
/// flow through every door before the next one is killed.
async fn kill_nodes(
    running: &Running,
    store: &str,
    redis: Option<&RedisServer>,
    count: usize,
    cast: Cast,
    kills: u32,
    pauses: std::ops::Range<usize>,
) -> Run {
    let mut fleet = Fleet::start(count, store, &SETTINGS);
    let addresses = fleet.addresses.clone();
    let mut scene = Scene::open(addresses.clone(), cast).await;
    let pace = Duration::from_millis(4);
    for n in 0..2 {
        scene.publish(&format!("keys-{n}"), Door::http_with_keys(&addresses, n, PATIENCE), pace);
        scene.publish(&format!("http-{n}"), Door::http(&addresses, n, PATIENCE), pace);
        scene.publish(&format!("ws-{n}"), Door::websocket(&addresses, n, PATIENCE), WEBSOCKET_PACE);
    }
    if let Some(redis) = redis {
        scene.publish("xadd", Door::xadd(&redis.url()), Duration::from_millis(2));
        scene.publish("rpush", Door::rpush(&redis.url()), Duration::from_millis(2));
    }
    scene.flow(20).await;

    let mut dice = Dice::roll(running);
    for turn in 0..kills as usize {
        let pause = pauses.start + dice.below(pauses.end - pauses.start);
        tokio::time::sleep(Duration::from_millis(pause as u64)).await;
        fleet.kill(turn % count);
        fleet.restart(turn % count);
        scene.flow(1).await;
    }
    let seconds = running.elapsed().as_secs_f64();
    running.tell(format_args!("{kills} kills in {seconds:.0} s"));
    scene.close(running, redis.map(|redis| redis.url()).as_deref(), Allowed::default()).await
}

//! F15: somebody flushes the scripts of Redis, kills all its clients and lets it cut quiet connections, while messages
//! flow. What is caught on a line that is cut is told to its publisher as such; everything else is a short delay.

use std::time::{Duration, Instant};

use crate::checker::Allowed;
use crate::fleet::Fleet;
use crate::form::{begin, pick};
use crate::publisher::{Door, WEBSOCKET_PACE};
use crate::scene::{Cast, SOON, Scene};
use crate::server::RedisServer;

/// So soon must a publish be answered.
const ANSWERED: Duration = Duration::from_secs(1);
const FLUSH: Duration = Duration::from_millis(100);
/// Flushes between two rounds of killing clients.
const KILLS: u32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_scripts_are_flushed_and_whose_clients_are_killed_loses_nothing() {
    let running = begin("F15 scripts flushed, clients killed").await;
    let redis = RedisServer::start();
    let fleet = Fleet::start(2, &redis.url(), &["--history-messages", "100000", "--history-bytes", "1GiB"]);
    let nodes = fleet.addresses.clone();
    let mut scene = Scene::open(nodes.clone(), Cast { topics: 8, listeners: 32, share: 2, watches: None }).await;
    for n in 0..2 {
        let pace = Duration::from_millis(5);
        scene.publish(&format!("keys-{n}"), Door::http_with_keys(&nodes, n, SOON), pace);
        scene.publish(&format!("ws-{n}"), Door::websocket(&nodes, n, SOON), WEBSOCKET_PACE);
    }
    // Its own connection is killed too, so it does see errors.
    scene.publish("xadd", Door::xadd(&redis.url()), Duration::from_millis(5));
    scene.flow(20).await;

    let url = redis.url();
    let (flushes, kills) = tokio::task::spawn_blocking(move || disturb(&url, pick(6, 30))).await.unwrap();
    scene.flow(10).await;
    let mut troubles = 0;
    for publisher in scene.publishers.iter().filter(|p| p.name != "xadd") {
        let tally = publisher.tally();
        running.tell(format_args!("{}: {tally:?}", publisher.name));
        troubles += tally.no + tally.unknown;
    }
    running.tell(format_args!(
        "{flushes} flushes, {kills} times all clients killed; {troubles} publishes not answered with a yes at once, \
         the slowest after {:.0?}",
        scene.slowest()
    ));
    assert!(scene.slowest() < ANSWERED, "{:?}", scene.slowest());
    scene.close(&running, Some(&redis.url()), Allowed::default()).await;
}

pub fn disturb(url: &str, seconds: u64) -> (u32, u32) {
    let mut control = redis::Client::open(url).unwrap().get_connection().unwrap();
    redis::cmd("CONFIG").arg(&["SET", "timeout", "1"]).exec(&mut control).unwrap();
    let (begun, mut flushes, mut kills) = (Instant::now(), 0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(FLUSH);
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut control).unwrap();
        flushes += 1;
        if flushes % KILLS == 0 {
            redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut control).unwrap();
            kills += 1;
        }
    }
    redis::cmd("CONFIG").arg(&["SET", "timeout", "0"]).exec(&mut control).unwrap();
    (flushes, kills)
}

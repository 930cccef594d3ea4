//! F14: Redis has no memory left and evicts nothing. Publishers are told so, subscribers and readers go on, and when there
//! is room again all goes on by itself.

use std::time::{Duration, Instant};

use crate::checker::Allowed;
use crate::fleet::Fleet;
use crate::form::begin;
use crate::node::client;
use crate::publisher::{Door, Flood, WEBSOCKET_PACE, connect};
use crate::scene::{Cast, SOON, Scene};
use crate::server::RedisServer;

/// So many refusals of each publisher are waited for.
const ENOUGH: u64 = 10;
const BURST: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_what_is_new_and_loses_nothing() {
    let running = begin("F14 Redis is full").await;
    let redis = RedisServer::start();
    let mut control = connect(&redis.url()).await;
    let fleet = Fleet::start(2, &redis.url(), &["--history-messages", "100000", "--history-bytes", "1GiB"]);
    let nodes = fleet.addresses.clone();
    let mut scene = Scene::open(nodes.clone(), Cast { topics: 6, listeners: 24, share: 2, watches: None }).await;
    for n in 0..2 {
        let pace = Duration::from_millis(5);
        scene.publish(&format!("http-{n}"), Door::http(&nodes, n, SOON).padded(2_000), pace);
        scene.publish(&format!("ws-{n}"), Door::websocket(&nodes, n, SOON), WEBSOCKET_PACE);
    }
    scene.publish("xadd", Door::xadd(&redis.url()), Duration::from_millis(5));
    scene.flow(20).await;

    // Room for a few more, and entries that wait in the queue when it is used up.
    let burst = Flood::Rpush.burst(scene.clock, &redis.url(), "burst", &scene.topics, BURST).await;
    scene.history.published.extend(burst);
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut control).await.unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    set_memory(&mut control, used + (1 << 20)).await;
    let filled = Instant::now();
    for publisher in &mut scene.publishers {
        let waiting = publisher.tally.wait_for(|tally| tally.no >= ENOUGH);
        let is_refused = matches!(tokio::time::timeout(SOON, waiting).await, Ok(Ok(_)));
        assert!(is_refused, "{} is not refused: {:?}", publisher.name, publisher.tally());
    }
    running.tell(format_args!("every publisher is refused {:.1?} after the limit", filled.elapsed()));
    // Readers go on, and so do those who come anew.
    let node = nodes.pick(0).unwrap();
    let page = client().get(format!("http://{node}/v1/topics/news.0/messages?last=10")).send().await.unwrap();
    assert_eq!(page.status(), 200);
    scene.listeners[0].come_back();
    scene.until_joined("a subscriber comes back to a full Redis").await;

    set_memory(&mut control, 0).await;
    let raised = Instant::now();
    scene.flow(ENOUGH).await;
    running.tell(format_args!("all go on {:.1?} after there is room", raised.elapsed()));
    scene.close(&running, Some(&redis.url()), Allowed::default()).await;
}

async fn set_memory(control: &mut redis::aio::MultiplexedConnection, bytes: u64) {
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec_async(control).await.unwrap();
}

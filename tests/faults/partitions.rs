//! F7: the line between hubs and Redis fails in all the ways in which a line can. Nothing is lost or told wrong, no node
//! grows, every publish is answered in its time, and all goes on by itself when the line is back.

use std::time::{Duration, Instant};

use crate::checker::Allowed;
use crate::form::{begin, is_long, pick};
use crate::listener::Nodes;
use crate::node::Node;
use crate::proxy::{Proxy, To, Way};
use crate::publisher::Door;
use crate::scene::{Cast, SOON, Scene};
use crate::server::RedisServer;

/// So soon must a publish be answered: connecting, and the answer that Redis may take.
const ANSWERED: Duration = Duration::from_secs(8);
const MIB: u64 = 1 << 20;
/// So much more memory may a node use.
const GROWTH: u64 = 50 * MIB;
const LOOK: Duration = Duration::from_millis(100);
/// The pace of a line that comes and goes.
const FLAP: Duration = Duration::from_millis(300);
const SOONER: [&str; 4] = ["--redis-connect", "1s", "--redis-answer", "1s"];

type Switch = fn(&Proxy);

const FAULTS: &[(&str, Switch)] = &[
    ("black both ways", |p| p.set_both(Way::BlackHole)),
    ("black towards Redis", |p| p.set(To::Target, Way::BlackHole)),
    ("black towards the hub", |p| p.set(To::Client, Way::BlackHole)),
    ("held both ways", |p| p.set_both(Way::Hold)),
    ("held towards the hub", |p| p.set(To::Client, Way::Hold)),
    ("flapping", |_| {}),
    ("200 ms late", |p| p.set_both(Way::Delay(Duration::from_millis(200)))),
    ("1 KiB/s", |p| p.set_both(Way::Throttle(1024))),
    ("reset", Proxy::reset),
    ("half closed towards Redis", |p| p.half_close(To::Target)),
    ("half closed towards the hub", |p| p.half_close(To::Client)),
    ("refused and reset", |p| {
        p.refuse(true);
        p.reset();
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_to_redis_that_fails_in_any_way_loses_nothing_and_comes_back() {
    let running = begin("F7 lines to Redis broken").await;
    let long = pick(Duration::from_millis(1_200), Duration::from_secs(30));
    let redis = RedisServer::start();
    let lines: Vec<Proxy> = (0..2).map(|_| Proxy::start(([127, 0, 0, 1], redis.port()).into())).collect();
    let history = ["--history-messages", "100000", "--history-bytes", "1GiB"];
    let settings = [&history[..], if is_long() { &[] } else { &SOONER }].concat();
    let nodes: Vec<Node> =
        lines.iter().enumerate().map(|(n, p)| Node::start(&format!("node {n}"), &p.redis_url(), &settings)).collect();
    let addresses = Nodes::new(nodes.iter().map(|node| node.http));
    let cast = Cast { topics: 8, listeners: 16, share: 2, watches: None };
    let mut scene = Scene::open(addresses.clone(), cast).await;
    for n in 0..2 {
        let pace = Duration::from_millis(10);
        scene.publish(&format!("keys-{n}"), Door::http_with_keys(&addresses, n, SOON), pace);
        scene.publish(&format!("http-{n}"), Door::http(&addresses, n, SOON), pace);
        scene.publish(&format!("ws-{n}"), Door::websocket(&addresses, n, SOON), pace);
    }
    // These reach Redis by another way.
    scene.publish("xadd", Door::xadd(&redis.url()), Duration::from_millis(5));
    scene.publish("rpush", Door::rpush(&redis.url()), Duration::from_millis(5));
    scene.flow(50).await;
    let memory = || nodes.iter().map(Node::memory).max().unwrap_or_default();
    let before = memory();
    let mut most = before;

    for (turn, (name, switch)) in FAULTS.iter().enumerate() {
        // One line of two, and every other time both.
        let broken = &lines[..1 + turn % 2];
        let begun = Instant::now();
        broken.iter().for_each(switch);
        while begun.elapsed() < long {
            if *name == "flapping" {
                broken.iter().for_each(|line| line.set_both(Way::BlackHole));
                tokio::time::sleep(FLAP).await;
                broken.iter().for_each(Proxy::heal);
                tokio::time::sleep(FLAP).await;
            }
            tokio::time::sleep(LOOK).await;
            most = most.max(memory());
        }
        lines.iter().for_each(Proxy::heal);
        let healed = Instant::now();
        scene.flow(3).await;
        let slowest = scene.slowest();
        running.tell(format_args!(
            "{name}, {} of 2 lines for {long:.0?}: all go on {:.1?} after it; the slowest answer so far {slowest:.1?}",
            broken.len(),
            healed.elapsed()
        ));
        assert!(slowest < ANSWERED, "{name}: a publisher waited for {slowest:?}");
    }
    let growth = most.saturating_sub(before);
    running.tell(format_args!("memory {} MiB, at most {} MiB more", before / MIB, growth / MIB));
    assert!(growth < GROWTH, "a node grew by {} MiB", growth / MIB);
    scene.close(&running, Some(&redis.url()), Allowed::default()).await;
}

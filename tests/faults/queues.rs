//! The same faults on queues: nodes, workers and Redis go and come back while jobs are put and worked on. No job is lost,
//! none is given out after an acknowledgement that was accepted, and groups stay in their order.

use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::form::{Running, begin, pick};
use crate::node::Node;
use crate::proxy::{Proxy, To, Way};
use crate::publisher::connect;
use crate::scene::SOON;
use crate::server::RedisServer;
use crate::trouble::Dice;
use crate::workshop::{Crew, Done, Workshop};

/// A lease that is over is noticed so soon.
const NOTICED: Duration = Duration::from_secs(1);
/// So soon must a job of a worker that is gone be with another one.
const AT_ONCE: Duration = Duration::from_secs(1);
/// So soon must a put be answered, whatever the answer.
const ANSWERED: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_nodes_killed_while_queues_are_worked_on_loses_no_job() {
    let running = begin("F1 queues: one of three nodes killed").await;
    let redis = RedisServer::start();
    let crew = Crew::default();
    let lease = crew.lease;
    let done = kill_nodes(&running, &redis.url(), 3, crew, pick(4, 30)).await;
    assert!(done.again < lease + NOTICED, "a job of a dead node came back after {:?}", done.again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_node_killed_while_queues_on_disk_are_worked_on_loses_no_job() {
    let running = begin("F1 queues: the only node killed, disk").await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let store = format!("disk:{}", folder.path().join("store").display());
    kill_nodes(&running, &store, 1, Crew::default(), pick(4, 50)).await;
}

/// Kills one node after the other and starts it again, at moments that a seed gives.
async fn kill_nodes(running: &Running, store: &str, count: usize, crew: Crew, kills: usize) -> Done {
    let mut fleet = Fleet::start(count, store, &[]);
    let mut workshop = Workshop::open(fleet.addresses.clone(), crew).await;
    let mut dice = Dice::roll(running);
    for turn in 0..kills {
        tokio::time::sleep(Duration::from_millis(50 + dice.below(700) as u64)).await;
        fleet.kill(turn % count);
        fleet.restart(turn % count);
        workshop.flow(1).await;
    }
    running.tell(format_args!("{kills} kills"));
    workshop.close(running).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_worker_that_is_gone_are_with_others_at_once() {
    let running = begin("F1 queues: workers cut").await;
    let redis = RedisServer::start();
    let fleet = Fleet::start(2, &redis.url(), &[]);
    // Nothing comes back by the end of its lease here.
    let crew = Crew { lease: Duration::from_secs(600), ..Crew::default() };
    let mut workshop = Workshop::open(fleet.addresses.clone(), crew).await;
    let mut dice = Dice::roll(&running);
    let cuts = pick(30, 300);
    for _ in 0..cuts {
        let which = dice.below(workshop.workers.len());
        let worker = &mut workshop.workers[which];
        worker.until("it holds a job", SOON, |(holds, _)| *holds > 0).await;
        worker.cut();
        tokio::time::sleep(Duration::from_millis(dice.below(60) as u64)).await;
    }
    let done = workshop.close(&running).await;
    assert!(done.figures.again > cuts / 2, "{:?}", done.figures);
    assert!(done.again < AT_ONCE, "a job of a worker that was gone came back after {:?}", done.again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_stopped_beyond_its_leases_ends_nothing_that_others_have() {
    let running = begin("F2 queues: a node stopped and woken").await;
    let redis = RedisServer::start();
    let mut fleet = Fleet::start(3, &redis.url(), &[]);
    let crew = Crew { lease: Duration::from_secs(1), ..Crew::default() };
    let stop = pick(Duration::from_millis(2_500), Duration::from_secs(12));
    let mut workshop = Workshop::open(fleet.addresses.clone(), crew).await;
    for turn in 0..pick(1, 6) {
        // The workers stay with it: what they hold they acknowledge, and it hears of that when it wakes up.
        let node = (turn + 1) % 3;
        let worker = &mut workshop.workers[node];
        worker.until("it holds a job", SOON, |(holds, _)| *holds > 0).await;
        fleet.pause(node);
        // The length of the stop is what is asked for here.
        tokio::time::sleep(stop).await;
        fleet.resume(node);
        workshop.flow(10).await;
    }
    let done = workshop.close(&running).await;
    assert!(done.figures.refused > 0, "no answer was late: {:?}", done.figures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_back_with_its_data_loses_no_job() {
    let running = begin("F3 queues: Redis killed, AOF always").await;
    let mut redis = RedisServer::start_durable();
    let fleet = Fleet::start(2, &redis.url(), &[]);
    let mut workshop = Workshop::open(fleet.addresses.clone(), Crew::default()).await;
    for _ in 0..pick(1, 6) {
        tokio::task::block_in_place(|| redis.kill());
        // How long Redis is away is the outage itself.
        tokio::time::sleep(pick(Duration::from_secs(2), Duration::from_secs(10))).await;
        tokio::task::block_in_place(|| redis.restart());
        let back = Instant::now();
        workshop.flow(10).await;
        running.tell(format_args!("all go on {:.1?} after Redis is up", back.elapsed()));
    }
    let slowest = workshop.slowest();
    assert!(slowest < ANSWERED, "a producer waited for {slowest:?}");
    workshop.close(&running).await;
}

type Switch = fn(&Proxy);

const LINES: &[(&str, Switch)] = &[
    ("black towards the hub", |p| p.set(To::Client, Way::BlackHole)),
    ("held both ways", |p| p.set_both(Way::Hold)),
    ("reset", Proxy::reset),
    ("black both ways", |p| p.set_both(Way::BlackHole)),
    ("held towards the hub", |p| p.set(To::Client, Way::Hold)),
    ("200 ms late", |p| p.set_both(Way::Delay(Duration::from_millis(200)))),
    ("half closed towards the hub", |p| p.half_close(To::Client)),
];
const SOONER: [&str; 4] = ["--redis-connect", "1s", "--redis-answer", "1s"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_to_redis_that_fails_while_queues_are_worked_on_loses_no_job() {
    let running = begin("F7 queues: lines to Redis broken").await;
    let long = pick(Duration::from_millis(1_200), Duration::from_secs(15));
    let redis = RedisServer::start();
    let lines: Vec<Proxy> = (0..2).map(|_| Proxy::start(([127, 0, 0, 1], redis.port()).into())).collect();
    let nodes: Vec<Node> =
        lines.iter().enumerate().map(|(n, p)| Node::start(&format!("node {n}"), &p.redis_url(), &SOONER)).collect();
    let addresses = crate::listener::Nodes::new(nodes.iter().map(|node| node.http));
    let mut workshop = Workshop::open(addresses, Crew::default()).await;
    for (turn, (name, switch)) in LINES[..pick(3, LINES.len())].iter().enumerate() {
        // One line of two, and every other time both.
        lines[..1 + turn % 2].iter().for_each(switch);
        tokio::time::sleep(long).await;
        lines.iter().for_each(Proxy::heal);
        let healed = Instant::now();
        workshop.flow(3).await;
        running.tell(format_args!("{name} for {long:.0?}: all go on {:.1?} after it", healed.elapsed()));
    }
    let slowest = workshop.slowest();
    assert!(slowest < ANSWERED, "a producer waited for {slowest:?}");
    workshop.close(&running).await;
}

/// So many refusals of each producer are waited for.
const ENOUGH: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_takes_no_job_and_work_on_those_that_are_there_goes_on() {
    let running = begin("F14 queues: Redis is full").await;
    let redis = RedisServer::start();
    let mut control = connect(&redis.url()).await;
    let fleet = Fleet::start(2, &redis.url(), &[]);
    let crew = Crew { padding: 2_000, ..Crew::default() };
    let mut workshop = Workshop::open(fleet.addresses.clone(), crew).await;
    workshop.flow(20).await;
    set_memory(&mut control, 1).await;
    for producer in &mut workshop.producers {
        let waiting = producer.tally.wait_for(|tally| tally.no >= ENOUGH);
        let is_refused = matches!(tokio::time::timeout(SOON, waiting).await, Ok(Ok(_)));
        assert!(is_refused, "{} is not refused: {:?}", producer.name, producer.tally());
    }
    // What is there is taken and acknowledged all the same, to the last.
    let begun = Instant::now();
    let node = fleet.addresses.pick(0).expect("a node runs");
    for (queue, _) in crate::workshop::QUEUES {
        while crate::workshop::counted(node, queue).await.0 > 0 {
            assert!(begun.elapsed() < SOON, "{queue} is not worked off on a full Redis");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    running.tell(format_args!("worked off {:.1?} after all were refused", begun.elapsed()));
    set_memory(&mut control, 0).await;
    let raised = Instant::now();
    workshop.flow(10).await;
    running.tell(format_args!("all go on {:.1?} after there is room", raised.elapsed()));
    workshop.close(&running).await;
}

async fn set_memory(control: &mut redis::aio::MultiplexedConnection, bytes: u64) {
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec_async(control).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_flushed_and_clients_killed_while_queues_are_worked_on_lose_no_job() {
    let running = begin("F15 queues: scripts flushed, clients killed").await;
    let redis = RedisServer::start();
    let fleet = Fleet::start(2, &redis.url(), &[]);
    let mut workshop = Workshop::open(fleet.addresses.clone(), Crew::default()).await;
    let url = redis.url();
    let (flushes, kills) =
        tokio::task::spawn_blocking(move || crate::disturbed::disturb(&url, pick(3, 30))).await.unwrap();
    workshop.flow(10).await;
    let slowest = workshop.slowest();
    running.tell(format_args!(
        "{flushes} flushes, {kills} times all clients killed; the slowest put answered after {slowest:.0?}"
    ));
    workshop.close(&running).await;
}

//! Three hub nodes on one Redis, two back ends that know Redis only, a hundred subscribers; the nodes that bridge are
//! killed and stalled while it flows. Nothing may be lost, repeated or reordered, and no subscriber may notice more than
//! a reconnect.

#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/forged.rs"]
mod forged;
#[path = "support/history.rs"]
mod history;
#[path = "support/listener.rs"]
mod listener;
#[path = "support/node.rs"]
mod node;
#[path = "cluster/publishers.rs"]
mod publishers;
#[path = "support/redis.rs"]
mod server;

use std::time::{Duration, Instant};

use faults::{Dice, Faults};
use history::{History, Rules, judge};
use listener::{Listener, Nodes};
use node::{Node, client, read_log};
use publishers::{Door, connect, probe, publish};
use server::RedisServer;

const TOPICS: usize = 50;
const MESSAGES: u64 = 20_000;
/// Messages a second from each of the two publishers.
const PACE: u64 = 1_100;
const LISTENERS: usize = 100;
/// Topics of one listener.
const SHARE: usize = 3;
/// Longer than it should take; reaching it is a failure.
const SOON: Duration = Duration::from_secs(20);
/// So soon after everything is healed and caught up must a message be with everybody.
const ALIVE: Duration = Duration::from_secs(5);
const PROBES: &[&str] = &["probe-xadd", "probe-rpush"];
const SETTINGS: [&str; 6] = ["--ingest-lease", "1500ms", "--history-messages", "100000", "--history-bytes", "1GiB"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_reordered_while_owners_are_killed_and_stalled() {
    let begun = Instant::now();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(random_seed);
    eprintln!("the order of faults is SEED={seed}");
    let redis = RedisServer::start();
    let hubs: Vec<Node> = (0..3).map(|n| Node::start(&format!("node {n}"), &redis.url(), &SETTINGS)).collect();
    let nodes = Nodes::new(hubs.iter().map(|hub| hub.http));
    let connection = connect(&redis.url()).await;
    let mut faults = Faults { hubs, nodes: nodes.clone(), redis: connection, dice: Dice(seed), kills: 0, pauses: 0 };

    let topics: Vec<String> = (0..TOPICS).map(|n| format!("news.{n}")).collect();
    let mut listeners: Vec<Listener> = (0..LISTENERS)
        .map(|n| {
            let share = (0..SHARE).map(|i| topics[(n * SHARE + i) % TOPICS].clone()).collect();
            Listener::start(format!("listener {n}"), n, nodes.clone(), share, PROBES)
        })
        .collect();
    for listener in &mut listeners {
        listener.until("every subscription is answered", SOON, |p| p.joined.len() == SHARE).await;
    }
    faults.owner("fanfare:in", None).await;
    faults.owner("fanfare:list", None).await;
    eprintln!("all subscribed after {:?}", begun.elapsed());

    let doors = [Door::Xadd, Door::Rpush];
    let publishing = doors.map(|door| tokio::spawn(publish(redis.url(), door, topics.clone(), MESSAGES, PACE)));
    while !publishing.iter().all(|task| task.is_finished()) {
        faults.round().await;
    }
    let mut history = History::default();
    for task in publishing {
        history.published.extend(task.await.expect("a publisher does not panic"));
    }
    eprintln!("all published after {:?}, {} killed, {} stalled", begun.elapsed(), faults.kills, faults.pauses);
    assert!(faults.kills >= 2 && faults.pauses >= 2, "too little went wrong");

    faults.until_drained().await;
    eprintln!("all bridged after {:?}", begun.elapsed());
    let healed = Instant::now();
    for (door, by) in doors.into_iter().zip(PROBES) {
        history.published.extend(probe(&redis.url(), door, by, &topics).await);
    }
    for listener in &mut listeners {
        listener.until("the probes are heard", SOON, |p| p.marks.len() == SHARE * PROBES.len()).await;
    }
    let alive = healed.elapsed();
    let mut connections = 0;
    for listener in listeners {
        connections += listener.progress.borrow().connections;
        history.streams.extend(listener.stop().await);
    }
    let client = client();
    for topic in topics {
        let log = read_log(&client, faults.hubs[0].http, &topic).await;
        history.logs.insert(topic, log);
    }

    if std::env::var_os("SLOWLOG").is_some() {
        let slow: redis::Value = redis::cmd("SLOWLOG").arg("GET").arg(10).query(&mut redis.connection()).unwrap();
        eprintln!("{}", format!("{slow:?}").chars().take(3000).collect::<String>());
    }
    let verdict = judge(&history, Rules::default());
    let stored: usize = history.logs.values().map(Vec::len).sum();
    eprintln!(
        "{:?}: {stored} stored, {} heard, {} of them again; {connections} connections; probes heard after {alive:?}; {:?}",
        begun.elapsed(),
        verdict.heard,
        verdict.again,
        verdict.counts()
    );
    verdict.assert_clean();
    assert_eq!(stored, 2 * MESSAGES as usize + 2 * TOPICS);
    assert!(alive < ALIVE, "the probes were heard after {alive:?}");
}

fn random_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_nanos() as u64
}

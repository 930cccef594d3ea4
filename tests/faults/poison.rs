//! F17: one of a hundred entries cannot be used, of every kind that is known. Each is kept with its reason, and those
//! around it flow as if it were not there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::bad_entries::{BAD_ELEMENTS, bad_entries};
use crate::checker::Allowed;
use crate::fleet::Fleet;
use crate::form::{begin, pick};
use crate::node::client;
use crate::publisher::{Flood, connect};
use crate::scene::{Cast, Scene};
use crate::server::RedisServer;

/// Good ones a second through each door, and how many between two bad ones.
const PACE: u64 = 500;
const ONE_OF: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisoned_entry_of_a_hundred_is_kept_with_its_reason_and_the_others_flow() {
    let running = begin("F17 one of a hundred entries is poison").await;
    let redis = RedisServer::start();
    let fleet = Fleet::start(1, &redis.url(), &["--history-messages", "100000", "--history-bytes", "1GiB"]);
    let nodes = fleet.addresses.clone();
    let mut scene = Scene::open(nodes.clone(), Cast { topics: 10, listeners: 20, share: 2, watches: None }).await;
    let count = pick(4_000, 40_000);
    let (clock, topics) = (scene.clock, scene.topics.clone());
    let good = [Flood::Xadd, Flood::Rpush]
        .map(|door| tokio::spawn(door.publish(clock, redis.url(), topics.clone(), count, PACE)));

    // What conflicts needs something to conflict with.
    let mut control = connect(&redis.url()).await;
    let first = [("topic", "t"), ("data", "1"), ("idempotency_key", "k")];
    redis::cmd("XADD").arg("fanfare:in").arg("*").arg(&first).exec_async(&mut control).await.unwrap();
    let entries = bad_entries();
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) * ONE_OF as u32 / PACE as u32);
    for n in 0..(count / ONE_OF) as usize {
        tick.tick().await;
        let (fields, reason, _) = &entries[n % entries.len()];
        let mut add = redis::cmd("XADD");
        add.arg("fanfare:in").arg("*");
        for (name, value) in fields {
            add.arg(&name[..]).arg(&value[..]);
        }
        let (element, other, _) = BAD_ELEMENTS[n % BAD_ELEMENTS.len()];
        redis::pipe().add_command(add).rpush("fanfare:list", element).exec_async(&mut control).await.unwrap();
        for reason in [*reason, other] {
            *expected.entry(reason.as_str().to_owned()).or_default() += 1;
        }
    }
    for task in good {
        scene.history.published.extend(task.await.expect("a publisher does not panic"));
    }
    let node = nodes.pick(0).unwrap();
    let run = scene.close(&running, Some(&redis.url()), Allowed::default()).await;
    let found = dead_letters(node).await;
    running.tell(format_args!("{} kinds, dead letters by reason: {found:?}", entries.len() + BAD_ELEMENTS.len()));
    assert_eq!(found, expected);
    running.tell(format_args!(
        "a good one is heard within {:.0?} (p99)",
        run.history.lag_p99(|p| !run.history.probes.contains(&p.mark.by))
    ));
}

/// All of them by their reasons.
async fn dead_letters(node: std::net::SocketAddr) -> BTreeMap<String, usize> {
    let (mut found, mut after) = (BTreeMap::new(), String::new());
    loop {
        let url = format!("http://{node}/v1/ingest/dead?limit=1000{after}");
        let page: Value = client().get(url).send().await.unwrap().json().await.unwrap();
        let items = page["items"].as_array().expect("a page");
        let Some(last) = items.last() else { return found };
        after = format!("&after={}", last["id"].as_str().expect("an id"));
        for item in items {
            *found.entry(item["reason"].as_str().expect("a reason").to_owned()).or_default() += 1;
        }
    }
}

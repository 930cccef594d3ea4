//! F16: the nodes that bridge the ingest queue are killed and stalled, also at the worst moments, while two back ends
//! that know Redis only go on. Nothing may be lost, repeated or reordered, and no subscriber may notice more than a
//! reconnect. (`tests/dispatcher/stalls.rs` does the same within one process, with stalls between each two steps.)

use std::time::Duration;

use crate::checker::Allowed;
use crate::fleet::Fleet;
use crate::form::{begin, pick};
use crate::publisher::{Flood, connect};
use crate::scene::{Cast, SOURCES, Scene};
use crate::server::RedisServer;
use crate::trouble::{Dice, Faults};

const TOPICS: usize = 50;
/// Messages a second from each of the two publishers.
const PACE: u64 = 1_100;
const SETTINGS: [&str; 6] = ["--ingest-lease", "1500ms", "--history-messages", "100000", "--history-bytes", "1GiB"];
/// So soon must another node have a partition.
const TAKEN_OVER: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_reordered_while_owners_are_killed_and_stalled() {
    let running = begin("F16 owners killed and stalled").await;
    let redis = RedisServer::start();
    let fleet = Fleet::start(3, &redis.url(), &SETTINGS);
    let addresses = fleet.addresses.clone();
    let mut faults = Faults::new(fleet, connect(&redis.url()).await, Dice::roll(&running));
    let cast = Cast { topics: TOPICS, listeners: 100, share: 3, watches: None };
    let mut scene = Scene::open(addresses, cast).await;
    for source in SOURCES {
        faults.owner(source).await;
    }

    let count = pick(16_000, 80_000);
    let publishing = [Flood::Xadd, Flood::Rpush]
        .map(|door| tokio::spawn(door.publish(scene.clock, redis.url(), scene.topics.clone(), count, PACE)));
    while !publishing.iter().all(|task| task.is_finished()) {
        faults.round().await;
    }
    for task in publishing {
        scene.history.published.extend(task.await.expect("a publisher does not panic"));
    }
    let longest = faults.taken_over.iter().max().copied().unwrap_or_default();
    running.tell(format_args!(
        "{} killed, {} stalled, taken over within {longest:.1?} (a lease of 1.5 s)",
        faults.fleet.kills, faults.fleet.pauses
    ));
    assert!(faults.fleet.kills >= 4 && faults.fleet.pauses >= 4, "too little went wrong");
    assert!(longest < TAKEN_OVER, "{longest:?}");
    let run = scene.close(&running, Some(&redis.url()), Allowed::default()).await;
    assert_eq!(run.verdict.figures.stored, 2 * count as usize + 3 * TOPICS);
}

//! F2: a node is stopped for longer than its lease and its pings, and wakes up beside those who took over. It appends
//! nothing stale, and its clients have moved.

use std::time::Duration;

use crate::checker::{Allowed, Heard};
use crate::fleet::Fleet;
use crate::form::{begin, is_long, pick};
use crate::publisher::{Door, connect};
use crate::scene::{Cast, SOURCES, Scene};
use crate::server::RedisServer;
use crate::trouble::{Dice, Faults};

const HISTORY: [&str; 4] = ["--history-messages", "100000", "--history-bytes", "1GiB"];
/// What the short form has in place of the defaults, so that a short stop is long enough.
const SOONER: [&str; 6] = ["--ping", "2s", "--pong", "1s", "--ingest-lease", "1500ms"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_stopped_wakes_up_fenced_and_its_clients_have_moved() {
    let running = begin("F2 a node stopped and woken").await;
    let (stop, watches, patience) = pick(
        (Duration::from_secs(8), Duration::from_secs(2), Duration::from_secs(3)),
        (Duration::from_secs(60), Duration::from_secs(20), Duration::from_secs(10)),
    );
    // A client that watches its line leaves it after one and a half of its periods, and needs a moment to come back.
    let moved_within = watches * 3 / 2 + Duration::from_secs(5);
    let redis = RedisServer::start();
    let settings = [&HISTORY[..], if is_long() { &[] } else { &SOONER }].concat();
    let fleet = Fleet::start(3, &redis.url(), &settings);
    let nodes = fleet.addresses.clone();
    let mut faults = Faults::new(fleet, connect(&redis.url()).await, Dice::roll(&running));
    let cast = Cast { topics: 12, listeners: 48, share: 2, watches: Some(watches) };
    let mut scene = Scene::open(nodes.clone(), cast).await;
    for n in 0..3 {
        scene.publish(&format!("keys-{n}"), Door::http_with_keys(&nodes, n, patience), Duration::from_millis(10));
        scene.publish(&format!("ws-{n}"), Door::websocket(&nodes, n, patience), Duration::from_millis(10));
    }
    scene.publish("xadd", Door::xadd(&redis.url()), Duration::from_millis(2));
    scene.publish("rpush", Door::rpush(&redis.url()), Duration::from_millis(2));
    scene.flow(20).await;

    let mut stops = Vec::new();
    for source in &SOURCES[..pick(1, 2)] {
        let node = faults.owner(source).await;
        stops.push(scene.clock.now());
        faults.fleet.pause(node);
        faults.owner_beside(source, &[node]).await;
        scene.flow(20).await;
        // The length of the stop is what is asked for here.
        tokio::time::sleep(stop.saturating_sub(scene.clock.now() - stops[stops.len() - 1])).await;
        faults.fleet.resume(node);
        scene.flow(20).await;
    }
    let longest = faults.taken_over.iter().max().copied().unwrap_or_default();
    let run = scene.close(&running, Some(&redis.url()), Allowed::default()).await;
    let mut moved = Duration::ZERO;
    // What the node had written before it stopped still arrives.
    let written = Duration::from_millis(500);
    for (stream, stopped) in run.history.streams.iter().flat_map(|s| stops.iter().map(move |stopped| (s, stopped))) {
        let mut after =
            stream.heard.iter().filter(|(t, heard)| *t > *stopped + written && matches!(heard, Heard::Message { .. }));
        let (first, _) = after.next().unwrap_or_else(|| panic!("{} hears nothing more", stream.listener));
        moved = moved.max(*first - *stopped);
    }
    running.tell(format_args!(
        "stopped {} times for {stop:?}; taken over within {longest:.1?}; every client hears on within {moved:.1?}",
        stops.len()
    ));
    assert!(moved < moved_within, "{moved:?}");
}

//! F3 and F4: the Redis behind two hub nodes is killed with -9. Publishers are told the truth in time, subscribers keep
//! their sockets and are told, and everything goes on by itself when Redis is back: with its data, or with nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::checker::{Allowed, Heard, Loss};
use crate::fleet::Fleet;
use crate::form::{Running, begin, is_long, pick};
use crate::node::{client, ready};
use crate::publisher::{Door, Flood};
use crate::scene::{Cast, SOON, Scene, ask_once};
use crate::server::RedisServer;

/// So soon must `/readyz` tell of the outage.
const TOLD: Duration = Duration::from_secs(5);
/// So soon must all be well again: the longest wait between two tries to connect, and room for a busy machine.
const RECOVERED: Duration = Duration::from_secs(3);
/// So soon must a publish be answered, whatever the answer.
const ANSWERED: Duration = Duration::from_secs(8);
/// So soon must a subscription be answered that cannot be served.
const REFUSED: Duration = Duration::from_secs(8);
const PACE: Duration = Duration::from_millis(40);
/// So many messages of each publisher are acknowledged before and after, or refused meanwhile.
const ENOUGH: u64 = 25;
/// Entries that wait in the queue when Redis is killed.
const BURST: u64 = 2_000;
const TOPICS: usize = 6;
const SHARE: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Return {
    WithData,
    Emptied,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_back_with_its_data_loses_nothing_that_was_acknowledged() {
    let running = begin("F3 Redis killed, AOF always").await;
    let redis = RedisServer::start_durable();
    outage(&running, redis, Return::WithData).await;
}

/// A killed process loses nothing that it has written, synced or not; a killed machine may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_back_with_what_it_synced_every_second_loses_nothing_either() {
    if !is_long() {
        return eprintln!("in the long form only");
    }
    let running = begin("F3 Redis killed, AOF everysec").await;
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    outage(&running, redis, Return::WithData).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_back_with_nothing_is_told_to_everybody_and_all_goes_on() {
    let running = begin("F4 Redis killed, AOF off").await;
    outage(&running, RedisServer::start(), Return::Emptied).await;
}

async fn outage(running: &Running, mut redis: RedisServer, back: Return) {
    let fleet = Fleet::start(2, &redis.url(), &["--history-messages", "100000"]);
    let (nodes, addresses) = (&fleet.running, fleet.addresses.clone());
    for node in nodes {
        let warns = node.log().contains("no append-only file");
        assert_eq!(warns, back == Return::Emptied, "{}", node.log());
    }
    let cast = Cast { topics: TOPICS, listeners: 12, share: SHARE, watches: None };
    let mut scene = Scene::open(addresses.clone(), cast).await;
    for n in 0..2 {
        scene.publish(&format!("http-{n}"), Door::http(&addresses, n, SOON), PACE);
        scene.publish(&format!("ws-{n}"), Door::websocket(&addresses, n, SOON), PACE);
    }
    scene.publish("xadd", Door::xadd(&redis.url()), PACE);
    scene.flow(ENOUGH).await;
    let absent = scene.listeners.len() - 1;
    scene.listeners[absent].stay_away(true);

    // Some of these are applied and not yet committed when Redis dies, and must not be applied again.
    let burst = Flood::Xadd.burst(scene.clock, &redis.url(), "burst", &scene.topics, BURST).await;
    scene.history.published.extend(burst);
    tokio::task::block_in_place(|| redis.kill());
    let (killed, lost_before) = (Instant::now(), scene.clock.now());
    for node in nodes {
        // The ingest queue lies on the same Redis and may notice first.
        until_ready_says(503, r#""part":"store""#, node.http, killed, TOLD).await;
    }
    let told = killed.elapsed();
    let before: Vec<_> = scene.publishers.iter().map(|publisher| publisher.tally()).collect();
    ask_what_cannot_be_served(nodes[0].http).await;

    // How long Redis is away is the outage itself, not a wait for something.
    tokio::time::sleep_until((killed + pick(Duration::from_secs(3), Duration::from_secs(30))).into()).await;
    for node in nodes {
        assert_eq!(ready(&client(), node.http).await.0, 503);
    }
    for (publisher, before) in scene.publishers.iter().zip(before) {
        let now = publisher.tally();
        assert_eq!(now.yes, before.yes, "{} heard a yes while there was no store", publisher.name);
        assert!(now.no + now.unknown > before.no + before.unknown + ENOUGH, "{} went on: {now:?}", publisher.name);
    }
    // Without a file of its own it comes back with nothing.
    tokio::task::block_in_place(|| redis.restart());
    let restarted = Instant::now();
    for node in nodes {
        until_ready_says(200, r#""ready":true"#, node.http, restarted, SOON).await;
    }
    let recovered = restarted.elapsed();
    running.tell(format_args!("told after {told:.1?}, ready {recovered:.1?} after Redis is up"));
    assert!(recovered < RECOVERED, "{recovered:?}");
    scene.flow(ENOUGH).await;
    let slowest = scene.slowest();
    running.tell(format_args!("the slowest answer to a publisher took {slowest:.1?}"));
    assert!(slowest < ANSWERED, "{slowest:?}");
    for listener in &scene.listeners[..absent] {
        let progress = listener.progress.borrow().clone();
        assert_eq!((progress.connections, &progress.complaints), (1, &Vec::new()), "a subscriber's socket stays");
    }
    scene.listeners[absent].stay_away(false);

    let allowed = match back {
        Return::WithData => Allowed { gaps: &["failover"], ..Allowed::default() },
        Return::Emptied => {
            Allowed { gaps: &["failover"], anew: &["epoch"], loss: Loss::Before(lost_before), ..Allowed::default() }
        }
    };
    let run = scene.close(running, Some(&redis.url()), allowed).await;
    if back == Return::Emptied {
        assert!(run.verdict.figures.lost > 0, "nothing was lost though all was");
    }
    for stream in &run.history.streams {
        let is_told = |heard: &Heard| matches!(heard, Heard::Gap { .. } | Heard::Joined { resumed: Some(false), .. });
        let told = stream.heard.iter().filter(|(_, heard)| is_told(heard)).count();
        assert_eq!(told, 1, "{} is told once that {} went on in another life", stream.listener, stream.topic);
    }
}

/// Subscriptions that wait for a store are refused in time, and told when to come again.
async fn ask_what_cannot_be_served(node: SocketAddr) {
    let begun = Instant::now();
    let asking =
        [(r#"{"sub":"fresh"}"#, "fresh"), (r#"{"sub":"news.0","last":5}"#, "news.0")].map(|(ask, topic)| async move {
            let answer = ask_once(node, ask, REFUSED).await;
            let (error, verb, told) = (&answer["error"], &answer["for"], &answer["topic"]);
            assert_eq!((error, verb, told), (&"unavailable".into(), &"sub".into(), &topic.into()));
            assert!(answer["retry_after"].is_number(), "{answer}");
        });
    futures::future::join_all(asking).await;
    assert!(begun.elapsed() < REFUSED, "{:?}", begun.elapsed());
}

/// Asks `/readyz` until it has this status and says this.
async fn until_ready_says(status: u16, what: &str, node: SocketAddr, since: Instant, patience: Duration) {
    let client = client();
    loop {
        let (now, text) = ready(&client, node).await;
        if now == status && text.contains(what) {
            return;
        }
        assert!(since.elapsed() < patience, "/readyz says {now} after {:?}: {text}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

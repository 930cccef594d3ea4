//! The Redis behind two hub nodes is killed and stays away for half a minute. Publishers are told the truth in time,
//! subscribers keep their sockets and are told, and everything goes on by itself when Redis is back: with its data, or
//! with nothing.

#[path = "support/history.rs"]
mod history;
#[path = "support/listener.rs"]
mod listener;
#[path = "support/node.rs"]
mod node;
#[path = "outage/publishers.rs"]
mod publishers;
#[path = "support/redis.rs"]
mod server;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use history::{Heard, History, Rules, judge};
use listener::{Listener, Nodes};
use node::{Node, client, read_log, ready};
use publishers::{Door, Publisher};
use serde_json::Value;
use server::RedisServer;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// How long Redis is away. It is the outage itself, not a wait for something.
const OUTAGE: Duration = Duration::from_secs(30);
/// So soon must `/readyz` tell of the outage, and of its end.
const TOLD: Duration = Duration::from_secs(5);
/// So soon must a publish be answered, whatever the answer.
const ANSWERED: Duration = Duration::from_secs(8);
/// So soon must a subscription be answered that cannot be served.
const REFUSED: Duration = Duration::from_secs(8);
/// Longer than it should take; reaching it is a failure.
const SOON: Duration = Duration::from_secs(20);
/// So many messages of each publisher are acknowledged before and after.
const ENOUGH: u64 = 25;
const TOPICS: usize = 6;
const LISTENERS: usize = 12;
const PROBES: &[&str] = &["probe-http", "probe-xadd"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Return {
    WithData,
    Emptied,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_after_which_redis_has_its_data_loses_nothing_that_was_acknowledged() {
    outage(Return::WithData).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_after_which_redis_is_empty_is_told_to_everybody_and_all_goes_on() {
    outage(Return::Emptied).await;
}

async fn outage(back: Return) {
    let mut redis = RedisServer::start_durable();
    let hubs: Vec<Node> = (0..2)
        .map(|n| Node::start(&format!("{back:?} {n}"), &redis.url(), &["--history-messages", "100000"]))
        .collect();
    let nodes: Vec<SocketAddr> = hubs.iter().map(|hub| hub.http).collect();
    let topics: Vec<String> = (0..TOPICS).map(|n| format!("news.{n}")).collect();

    let mut listeners = Vec::new();
    for n in 0..LISTENERS {
        let share: Vec<String> = (0..TOPICS / 2).map(|i| topics[(n + i) % TOPICS].clone()).collect();
        let name = format!("listener {n}");
        listeners.push(Listener::start(name, n, Nodes::new(nodes.clone()), share, PROBES));
    }
    for listener in &mut listeners {
        listener.until("every subscription is answered", SOON, |p| p.joined.len() == TOPICS / 2).await;
    }
    let mut publishers = vec![
        Publisher::start("http-0", Door::http(nodes[0]), topics.clone()),
        Publisher::start("http-1", Door::http(nodes[1]), topics.clone()),
        Publisher::start("ws-0", Door::websocket(nodes[0]).await, topics.clone()),
        Publisher::start("ws-1", Door::websocket(nodes[1]).await, topics.clone()),
        Publisher::start("xadd", Door::xadd(&redis.url()), topics.clone()),
    ];
    for publisher in &mut publishers {
        publisher.until_more(ENOUGH, SOON).await;
    }

    tokio::task::block_in_place(|| redis.kill());
    let killed = Instant::now();
    for hub in &hubs {
        let text = until_ready_is(503, hub.http, killed).await;
        assert!(text.contains(r#""part":"store""#), "{text}");
    }
    let told = killed.elapsed();
    let before: Vec<_> = publishers.iter().map(Publisher::tally).collect();
    let begun = Instant::now();
    for (ask, topic) in [(r#"{"sub":"fresh"}"#, "fresh"), (r#"{"sub":"news.0","last":5}"#, "news.0")] {
        let answer = ask_once(nodes[0], ask).await;
        assert_eq!(
            (&answer["error"], &answer["for"], &answer["topic"]),
            (&"unavailable".into(), &"sub".into(), &topic.into())
        );
        assert!(answer["retry_after"].is_number(), "{answer}");
    }
    let refused = begun.elapsed();
    assert!(refused < 2 * REFUSED, "{refused:?}");

    tokio::time::sleep_until((killed + OUTAGE).into()).await;
    for hub in &hubs {
        assert_eq!(ready(&client(), hub.http).await.0, 503);
    }
    for (publisher, before) in publishers.iter().zip(before) {
        let now = publisher.tally();
        assert_eq!(now.yes, before.yes, "{} heard a yes while there was no store", publisher.name);
        assert!(now.no + now.unknown > before.no + before.unknown + ENOUGH, "{} went on: {now:?}", publisher.name);
    }
    tokio::task::block_in_place(|| match back {
        Return::WithData => redis.restart(),
        Return::Emptied => redis.restart_empty(),
    });
    let restarted = Instant::now();
    for hub in &hubs {
        until_ready_is(200, hub.http, restarted).await;
    }
    let recovered = restarted.elapsed();
    for publisher in &mut publishers {
        publisher.until_more(ENOUGH, SOON).await;
    }

    let mut history = History::default();
    for publisher in publishers {
        let tally = publisher.tally();
        eprintln!("{back:?}: {}: {tally:?}", publisher.name);
        assert!(tally.slowest < ANSWERED, "{} waited {:?} for an answer", publisher.name, tally.slowest);
        history.published.extend(publisher.stop().await);
    }
    for (door, by) in [Door::http(nodes[0]), Door::xadd(&redis.url())].into_iter().zip(PROBES) {
        history.published.extend(door.probe(by, &topics).await);
    }
    for listener in &mut listeners {
        listener.until("the probes are heard", SOON, |p| p.marks.len() == PROBES.len() * TOPICS / 2).await;
    }
    for listener in listeners {
        let progress = listener.progress.borrow().clone();
        assert_eq!((progress.connections, &progress.complaints), (1, &Vec::new()), "a subscriber's socket stays");
        history.streams.extend(listener.stop().await);
    }
    for topic in topics {
        let log = read_log(&client(), nodes[1], &topic).await;
        history.logs.insert(topic, log);
    }

    let emptied = (back == Return::Emptied).then_some(killed);
    let verdict = judge(&history, Rules { gaps: &["failover"], emptied });
    let stored: usize = history.logs.values().map(Vec::len).sum();
    eprintln!(
        "{back:?}: told after {told:?}, subscriptions refused after {refused:?}, ready {recovered:?} after the start; \
         {} published, {stored} in the log, {} heard, {} gaps; {:?}",
        history.published.len(),
        verdict.heard,
        verdict.gaps,
        verdict.counts()
    );
    verdict.assert_clean();
    assert_eq!(verdict.again, 0);
    for stream in &history.streams {
        let gaps = stream.heard.iter().filter(|heard| matches!(heard, Heard::Gap { .. })).count();
        assert_eq!(gaps, 1, "{} is told once that {} went on in another life", stream.listener, stream.topic);
    }
}

/// Asks `/readyz` until it has this status; answers what it said.
async fn until_ready_is(status: u16, node: SocketAddr, since: Instant) -> String {
    let client = client();
    loop {
        let (now, text) = ready(&client, node).await;
        if now == status {
            return text;
        }
        assert!(since.elapsed() < TOLD, "/readyz says {now} after {:?}: {text}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The answer to one frame on a connection of its own.
async fn ask_once(node: SocketAddr, frame: &str) -> Value {
    let (mut socket, _) = connect_async(format!("ws://{node}/ws")).await.expect("the node takes connections");
    socket.send(Message::text(frame)).await.expect("it is open");
    let asking = async {
        loop {
            let message = socket.next().await.expect("it stays open").expect("it stays open");
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).expect("JSON");
            if frame["hello"].is_null() {
                return frame;
            }
        }
    };
    tokio::time::timeout(REFUSED, asking).await.expect("it is answered in time")
}

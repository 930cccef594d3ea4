//! Firings of `start_when`: told on a topic and to a webhook, once over all nodes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fanfare::domain::queue::*;
use fanfare::domain::secret::Secret;
use fanfare::domain::webhook::Hosts;
use fanfare::herald;
use fanfare::hub::{Hub, ShardId, ToShard};
use fanfare::store::Options;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::server::RedisServer;
use super::{Place, SOON, body, change, history, message, queue, stats, topic, until};

const KEY: [u8; 32] = [7; 32];

fn secret() -> Secret {
    Secret::parse(&format!("whsec_{}", STANDARD.encode(KEY))).unwrap()
}

/// What a receiver was sent: the headers of Standard Webhooks, and the body.
#[derive(Debug, Clone)]
struct Post {
    id: String,
    time: u64,
    signature: String,
    body: String,
}

impl Post {
    /// As a receiver checks it.
    fn is_genuine(&self) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(&KEY).unwrap();
        mac.update(format!("{}.{}.{}", self.id, self.time, self.body).as_bytes());
        let right = STANDARD.encode(mac.finalize().into_bytes());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        self.signature.split(' ').any(|one| one == format!("v1,{right}")) && now.abs_diff(self.time) < 300
    }
}

/// A receiver on the loopback that refuses the first so many posts. It answers its URL and what comes.
async fn receiver(refuses: usize) -> (String, mpsc::UnboundedReceiver<Post>) {
    let (sender, posts) = mpsc::unbounded_channel();
    let left = Arc::new(Mutex::new(refuses));
    let handle = move |headers: HeaderMap, body: String| {
        let of = |name: &str| headers[name].to_str().unwrap().to_owned();
        let time = of("webhook-timestamp").parse().unwrap();
        let _ = sender.send(Post { id: of("webhook-id"), time, signature: of("webhook-signature"), body });
        let mut left = left.lock().unwrap();
        let refused = *left > 0;
        *left = left.saturating_sub(1);
        async move { if refused { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT } }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?token=x", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", post(handle))).await });
    (url, posts)
}

fn starts(any: Vec<Arm>, webhook: Option<&str>) -> Change {
    let start = StartWhen { any, mode: Start::Notify, batch: None, webhook: webhook.map(Into::into) };
    Change::Settings(Some(Box::new(QueueSettings { start_when: Some(start), ..QueueSettings::default() })))
}

async fn put(hub: &Hub, name: &str, count: usize) {
    let batch = (0..count).map(|n| Put::new(queue(name), body(format!("\"data\":{n}")))).collect();
    for answer in hub.put(batch).await {
        answer.unwrap();
    }
}

async fn next(posts: &mut mpsc::UnboundedReceiver<Post>) -> Post {
    tokio::time::timeout(SOON, posts.recv()).await.expect("a post in time").unwrap()
}

fn json_of(message: &fanfare::domain::message::Message) -> Value {
    serde_json::from_slice(&fanfare::document::message(message)).unwrap()
}

#[tokio::test]
async fn a_firing_is_told_once_on_its_topic_and_until_it_is_accepted_to_a_webhook_that_checks_it() {
    for place in Place::each(Options::default()).await {
        let hub = place.node().await;
        let hosts = Hosts::read(&["127.0.0.1".into()]).unwrap();
        tokio::spawn(herald::start(&hub, herald::Options { secret: Some(secret()), hosts, ..Default::default() }));
        let (url, mut posts) = receiver(2).await;
        change(&hub, "jobs", starts(vec![Arm::Count(10)], Some(&url))).await;
        hub.queues().unwrap().refresh(&queue("jobs"));
        put(&hub, "jobs", 10).await;
        let tries = [next(&mut posts).await, next(&mut posts).await, next(&mut posts).await];
        for post in &tries {
            assert!(post.is_genuine(), "{post:?}");
            assert_eq!((&post.id, &post.body), (&tries[0].id, &tries[0].body), "another try is another message");
        }
        // The next one is given out when this one was told.
        change(&hub, "jobs", Change::Purge(None)).await;
        put(&hub, "jobs", 10).await;
        assert_ne!(next(&mut posts).await.id, tries[0].id);
        let told = history(&hub, "$queue.jobs.trigger").await;
        assert_eq!(told.len(), 2);
        let posted: Value = serde_json::from_str(&tries[0].body).unwrap();
        let data = json_of(&told[0])["data"].clone();
        assert_eq!((&posted["topic"], &posted["data"]), (&json!("$queue.jobs.trigger"), &data));
        assert_eq!((&data["queue"], &data["number"], &data["waiting"]), (&json!("jobs"), &json!(1), &json!(10)));
        assert_eq!((&data["why"], &data["by_priority"][4]), (&json!({"count": 10}), &json!(10)));
        assert!(posts.try_recv().is_err(), "nothing more is posted");
    }
}

#[tokio::test]
async fn what_a_node_had_claimed_when_it_went_is_told_by_another_and_stands_once_on_the_topic() {
    let place = Place::redis(RedisServer::start());
    let (gone, hub) = (place.node().await, place.node().await);
    change(&gone, "jobs", starts(vec![Arm::Count(1)], None)).await;
    put(&gone, "jobs", 1).await;
    let keeper = gone.queues().unwrap().keeper();
    // Its desk may have claimed it first: nobody there tells it, and the claim comes again.
    let claimed = async {
        loop {
            if let Some(firing) = keeper.queues.sweep(&queue("jobs")).await.unwrap().fired {
                return firing;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let firing = tokio::time::timeout(SOON, claimed).await.unwrap();
    let text = String::from_utf8(fanfare::document::firing(&firing, Some(&Arm::Count(1))).as_bytes().to_vec()).unwrap();
    let mut half_told = message("$queue.jobs.trigger", &text);
    half_told.idempotency_key = Some(format!("jobs/{}/{}", firing.number, firing.time).into());
    gone.publish(half_told).await.unwrap();
    drop(gone);
    tokio::spawn(herald::start(&hub, Default::default()));
    // The next firing is given out when the first was told: by the node that is left.
    change(&hub, "jobs", Change::Purge(None)).await;
    put(&hub, "jobs", 1).await;
    until("both are told", || async { history(&hub, "$queue.jobs.trigger").await.len() >= 2 }).await;
    let told: Vec<Value> =
        history(&hub, "$queue.jobs.trigger").await.iter().map(|m| json_of(m)["data"]["number"].clone()).collect();
    assert_eq!(told, [json!(1), json!(2)]);
}

/// Rounds of the race; all of them in the long form.
fn rounds() -> u64 {
    match std::env::var("FAULTS").as_deref() {
        Ok("long") => 1_000,
        _ => 100,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_that_race_tell_each_firing_exactly_once() {
    let place = Place::redis(RedisServer::start());
    let mut nodes = vec![place.node().await, place.node().await];
    let (store, queues) = place.open().await;
    let (sender, mut heard) = mpsc::channel(1024);
    let (hub, sequencer) = Hub::with_shards(store, vec![sender]);
    tokio::spawn(sequencer);
    nodes.push(hub.with_queues(queues));
    change(&nodes[0], "race", starts(vec![Arm::Count(10)], None)).await;
    for node in &nodes {
        tokio::spawn(herald::start(node, Default::default()));
        node.queues().unwrap().refresh(&queue("race"));
    }
    nodes[2].join(&topic("$queue.race.trigger"), ShardId(0));
    for round in 1..=rounds() {
        // Twelve jobs from three nodes at once: the tenth fires, the others come behind it.
        futures::future::join_all(nodes.iter().map(|node| put(node, "race", 4))).await;
        let told = async {
            loop {
                if let ToShard::Message(delivery) = heard.recv().await.unwrap() {
                    return json_of(&delivery.message)["data"]["number"].clone();
                }
            }
        };
        let told = tokio::time::timeout(SOON, told).await.unwrap_or_else(|_| panic!("round {round} is not told"));
        assert_eq!(told, json!(round));
        change(&nodes[0], "race", Change::Purge(None)).await;
    }
    assert_eq!(stats(&nodes[0], "race").await.firings, rounds());
    let told: Vec<Value> =
        history(&nodes[1], "$queue.race.trigger").await.iter().map(|m| json_of(m)["data"]["number"].clone()).collect();
    assert_eq!(told, (1..=rounds()).map(Value::from).collect::<Vec<_>>());
}

//! Cursors through the built binary, over `kill -9`: each device resumes with exactly what it has not committed.

#[path = "support/checker/mod.rs"]
mod checker;
#[path = "support/hub.rs"]
mod hub;
#[path = "support/node.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod node;
#[path = "support/redis.rs"]
mod redis_server;

use hub::Client;
use node::Node;
use redis_server::RedisServer;
use serde_json::{Value, json};

/// Subscribes a device and answers what it is told first, and how many messages follow.
async fn come_back(node: &Node, device: &str, unread: usize) -> (Client, Value, Vec<Value>) {
    let mut client = Client::connect(node.http, "").await;
    assert!(client.next().await["hello"].is_string());
    client.say(&json!({ "sub": "news", "cursor": device }).to_string()).await;
    let answer = client.next().await;
    let mut given = Vec::new();
    for _ in 0..unread {
        given.push(client.next().await);
    }
    // Nothing else was on its way before this.
    client.say(r#"{"ping":1}"#).await;
    assert_eq!(client.next().await, json!({ "pong": 1 }), "{device} got more than is unread");
    (client, answer, given)
}

async fn commit(client: &mut Client, device: &str, at: &Value) -> Value {
    client.say(&json!({ "commit": "news", "cursor": device, "at": at }).to_string()).await;
    client.next().await
}

fn data(given: &[Value]) -> Vec<i64> {
    given.iter().map(|message| message["data"].as_i64().unwrap_or_else(|| panic!("a message: {message}"))).collect()
}

async fn two_devices_over_a_kill(node: &mut Node) {
    for device in ["phone", "tablet"] {
        let (_, answer, _) = come_back(node, device, 0).await;
        assert_eq!((&answer["created"], &answer["lag"]), (&json!(true), &json!(0)));
    }
    for n in 1..=5 {
        hub::publish(node.http, "news", &n.to_string()).await;
    }
    let (mut phone, answer, given) = come_back(node, "phone", 5).await;
    assert_eq!((&answer["resumed"], &answer["lag"], data(&given)), (&json!(true), &json!(5), vec![1, 2, 3, 4, 5]));
    let done = commit(&mut phone, "phone", &given[3]["at"]).await;
    assert_eq!((&done["committed"], &done["lag"]), (&given[3]["at"], &json!(1)));
    let (mut tablet, _, given) = come_back(node, "tablet", 5).await;
    assert_eq!(commit(&mut tablet, "tablet", &given[1]["at"]).await["lag"], 3);

    node.kill();
    node.restart();
    hub::publish(node.http, "news", "6").await;

    let (mut phone, answer, given) = come_back(node, "phone", 2).await;
    assert_eq!((&answer["resumed"], &answer["lag"], data(&given)), (&json!(true), &json!(2), vec![5, 6]));
    let (_, answer, given) = come_back(node, "tablet", 4).await;
    assert_eq!((&answer["resumed"], &answer["lag"], data(&given)), (&json!(true), &json!(4), vec![3, 4, 5, 6]));
    // What was not committed comes again; what was, never, however often it comes back.
    assert_eq!(commit(&mut phone, "phone", &given[3]["at"]).await["lag"], 0);
    for _ in 0..3 {
        let (_, answer, _) = come_back(node, "phone", 0).await;
        assert_eq!((&answer["resumed"], &answer["lag"]), (&json!(true), &json!(0)));
    }
    let (_, answer, given) = come_back(node, "tablet", 4).await;
    assert_eq!((&answer["lag"], data(&given)), (&json!(4), vec![3, 4, 5, 6]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_resume_over_the_death_of_a_hub_on_redis() {
    let redis = RedisServer::start();
    let mut node = Node::start("hub", &redis.url(), &["--ingest=off"]);
    two_devices_over_a_kill(&mut node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_resume_over_the_death_of_a_hub_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start("hub", &format!("disk:{}", folder.path().display()), &["--redis-listen=off"]);
    two_devices_over_a_kill(&mut node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_began_anew_is_told_to_whoever_had_a_cursor() {
    let mut redis = RedisServer::start_durable();
    let mut node = Node::start("hub", &redis.url(), &["--ingest=off"]);
    for n in 1..=3 {
        hub::publish(node.http, "news", &n.to_string()).await;
    }
    let (mut client, answer, _) = come_back(&node, "phone", 0).await;
    assert_eq!(commit(&mut client, "phone", &answer["at"]).await["lag"], 0);
    // With its data: another life, told as a gap; nothing is unread.
    node.kill();
    redis.restart();
    node.restart();
    let (_, answer, given) = come_back(&node, "phone", 1).await;
    assert_eq!((&answer["resumed"], &answer["lag"]), (&json!(true), &json!(0)), "{answer}");
    assert_eq!((&given[0]["gap"], &given[0]["why"]), (&json!("news"), &json!("failover")));
    // Without it: the cursor is gone as well, and the client that expects it sees that it was made.
    node.kill();
    redis.restart_empty();
    node.restart();
    let (_, answer, _) = come_back(&node, "phone", 0).await;
    assert_eq!((&answer["created"], &answer["resumed"]), (&json!(true), &Value::Null), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_left_before_its_cursor_is_known_is_left() {
    let redis = RedisServer::start();
    let node = Node::start("hub", &redis.url(), &["--ingest=off"]);
    let (mut client, _, _) = come_back(&node, "phone", 0).await;
    client.say(r#"{"unsub":"news"}"#).await;
    assert_eq!(client.next().await["ok"], "unsub");
    redis.pause();
    client.say(r#"{"id":1,"sub":"news","cursor":"phone"}"#).await;
    client.say(r#"{"id":2,"unsub":"news"}"#).await;
    let answers = [client.next().await, client.next().await];
    assert_eq!((&answers[0]["error"], &answers[1]["ok"]), (&json!("conflict"), &json!("unsub")), "{answers:?}");
    redis.resume();
    // Answered behind the one that nobody waits for any more.
    let (_, answer, _) = come_back(&node, "phone", 0).await;
    assert_eq!(answer["resumed"], true, "{answer}");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_comes_new_to_a_topic_of_the_latest_gets_it_with_its_cursor_too() {
    let server = hub::start(&["--topic=price:mode=latest"]).await;
    for n in 1..=3 {
        hub::publish(server.http, "price", &n.to_string()).await;
    }
    let mut client = Client::connect(server.http, "").await;
    client.next().await;
    client.say(&json!({ "sub": "price", "cursor": "phone" }).to_string()).await;
    let answer = client.next().await;
    assert_eq!((&answer["created"], answer.get("resumed")), (&json!(true), None), "{answer}");
    let latest = client.next().await;
    assert_eq!(latest["data"], 3);
    drop(client);
    // It comes back: there is nothing that is not behind its cursor.
    let mut client = Client::connect(server.http, "").await;
    client.next().await;
    client.say(&json!({ "sub": "price", "cursor": "phone" }).to_string()).await;
    let answer = client.next().await;
    assert_eq!((&answer["resumed"], &answer["at"]), (&json!(true), &latest["at"]), "{answer}");
    drop(client);
    server.stop().await;
}

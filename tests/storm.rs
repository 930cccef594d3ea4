//! Everybody is cut at once and comes back at once: all resume with proof, and the store is read about once for each
//! topic. The long form is `./dev bench storm`.

#[path = "support/hub.rs"]
mod hub;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/storm.rs"]
mod storm;

use redis_server::RedisServer;
use storm::Crowd;

const CLIENTS: usize = 1_000;
const TOPICS: usize = 50;

/// One read for each topic and a tenth more. A topic that a starved machine did not bring in time begins anew, however
/// many are told to subscribe to it again.
fn judge(reads: u64, crowd: &Crowd) {
    let again = crowd.topics_asked_again();
    eprintln!("{reads} reads of Redis for {TOPICS} topics, {again} of them subscribed to again");
    assert!(reads <= (TOPICS + TOPICS / 10 + 2 * again) as u64, "{reads} reads of Redis for {TOPICS} topics, {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_are_cut_at_once_come_back_whole_with_about_one_read_for_each_topic() {
    let redis = RedisServer::start();
    let server = hub::start(&[&format!("--store={}", redis.url()), "--ingest=off"]).await;
    let mut crowd = Crowd::gather(server.http, CLIENTS, TOPICS).await;
    storm::publish(server.http, TOPICS, 10).await;
    crowd.hear(10, 3).await;
    crowd.cut();
    storm::publish(server.http, TOPICS, 20).await;
    let before = storm::scripts_run(&redis.url());
    crowd.come_back(30).await;
    judge(storm::scripts_run(&redis.url()) - before, &crowd);
    // They are live again.
    storm::publish(server.http, TOPICS, 1).await;
    crowd.hear(31, 0).await;
    drop(crowd);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_to_another_node_is_brought_up_to_date_by_as_few_reads() {
    let redis = RedisServer::start();
    let store = format!("--store={}", redis.url());
    let first = hub::start(&[&store, "--ingest=off"]).await;
    let mut crowd = Crowd::gather(first.http, CLIENTS / 2, TOPICS).await;
    storm::publish(first.http, TOPICS, 10).await;
    crowd.hear(10, 3).await;
    crowd.cut();
    storm::publish(first.http, TOPICS, 20).await;
    first.stop().await;
    let second = hub::start(&[&store, "--ingest=off"]).await;
    crowd.move_to(second.http);
    let before = storm::scripts_run(&redis.url());
    crowd.come_back(30).await;
    judge(storm::scripts_run(&redis.url()) - before, &crowd);
    drop(crowd);
    second.stop().await;
}

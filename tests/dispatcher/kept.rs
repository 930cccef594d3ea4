//! How long entries are kept after they were applied, to be applied again where a store lost them.

use std::time::Duration;

use redis::Commands;

use crate::ingest::{House, data, until};
use crate::server::RedisServer;
use crate::{rpush, xadd};

const STREAMS: [&str; 2] = ["fanfare:in", "{fanfare:list}:in"];

/// Adds ten entries of 1970 to the stream and to the one of the list: a backlog that is older than anything is kept.
fn add_old_ones(connection: &mut redis::Connection) {
    for n in 1..=10 {
        let id = format!("{n}-1");
        let _: String = connection.xadd(STREAMS[0], &id, &[("topic", "t"), ("data", "1")]).unwrap();
        let document = [("document", r#"{"topic":"l","data":1}"#)];
        let _: String = connection.xadd(STREAMS[1], &id, &document).unwrap();
    }
}

fn kept(server: &RedisServer) -> [u64; 2] {
    STREAMS.map(|stream| server.connection().xlen(stream).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_long_ago_is_trimmed_and_what_was_not_read_never() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    add_old_ones(&mut server.connection());
    let short = |settings: &mut fanfare::dispatcher::redis::Options| settings.keep = Duration::from_millis(300);
    let dispatcher = house.bridge_with(&server.url(), |settings, _| short(settings)).await;
    house.wait_for_count("t", 10).await;
    house.wait_for_count("l", 10).await;
    // Only the last one is kept, as the cursor stands there.
    until("they are trimmed", || async { kept(&server) == [1, 1] }).await;
    assert_eq!(dispatcher.dead().notices().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_never_quiet_is_trimmed_as_well() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let dispatcher = house
        .bridge_with(&server.url(), |settings, _| {
            // So long that no pause of the test is a pause of the queue.
            settings.keep = Duration::from_secs(3);
        })
        .await;
    let (mut connection, mut published) = (server.connection(), 0);
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let trimmed = async {
        while kept(&server)[0] >= published {
            pace.tick().await;
            xadd(&mut connection, "t", &published.to_string());
            published += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), trimmed).await.expect("it is trimmed");
    house.wait_for_count("t", published as usize).await;
    assert_eq!(dispatcher.dead().notices().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_is_drained_late_is_kept_like_what_is_new() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    add_old_ones(&mut connection);
    let dispatcher = house.bridge(&server.url()).await;
    house.wait_for_count("t", 10).await;
    house.wait_for_count("l", 10).await;
    // Two more, one after the other: each is read, and the queue trimmed, after what came before it was committed.
    for n in 2..=3 {
        xadd(&mut connection, "t", &n.to_string());
        rpush(&mut connection, &format!(r#"{{"topic":"l","data":{n}}}"#));
        house.wait_for_count("t", 9 + n).await;
        house.wait_for_count("l", 9 + n).await;
    }
    until("all is committed", || async { dispatcher.status().iter().all(|s| s.owner && s.lag_entries == 0) }).await;
    assert_eq!(kept(&server), [12, 12]);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_32_lives_of_the_queue_are_known() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let past: String = (0..32).map(|n| format!("life{n} {n}-1 ")).collect();
    let cursor = [("at", "40-1"), ("count", "0"), ("life", "life32"), ("seen", "40-1"), ("past", &past)];
    let _: () = connection.hset_multiple("{fanfare:in}:cursor", &cursor).unwrap();
    xadd(&mut connection, "t", "1");
    let _dispatcher = house.bridge(&server.url()).await;
    house.wait_for("t", &[&data("1")]).await;
    let known: String = connection.hget("{fanfare:in}:cursor", "past").unwrap();
    assert_eq!(known, format!("{} life32 40-1 ", past.split_once("0-1 ").unwrap().1.trim_end()));
}

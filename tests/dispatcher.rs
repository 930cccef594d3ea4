//! The dispatcher over a real Redis: entries become messages once and in order, whatever happens to Redis, to nodes or
//! to the store, and what cannot be used is kept with its reason.

#[path = "support/bad_entries.rs"]
mod bad_entries;
#[path = "support/ingest.rs"]
mod ingest;
#[path = "dispatcher/kept.rs"]
mod kept;
#[path = "dispatcher/poison.rs"]
mod poison;
#[path = "dispatcher/queues.rs"]
mod queues;
#[path = "support/redis.rs"]
mod server;
#[path = "dispatcher/stalls.rs"]
mod stalls;
#[path = "dispatcher/store_failures.rs"]
mod store_failures;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare::dispatcher::{self, Ingest, Pause, Step, redis as queue};
use futures::FutureExt;
use ingest::{House, data, letters, until};
use redis::Commands;
use server::RedisServer;
use tokio::sync::Semaphore;

fn xadd(connection: &mut redis::Connection, topic: &str, json: &str) -> String {
    connection.xadd("fanfare:in", "*", &[("topic", topic), ("data", json)]).unwrap()
}

fn rpush(connection: &mut redis::Connection, document: &str) {
    let _: u64 = connection.rpush("fanfare:list", document).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_the_stream_and_of_the_list_become_messages_in_order() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    // Some before the dispatcher is there, some after.
    for n in 0..700 {
        xadd(&mut connection, "news", &n.to_string());
        rpush(&mut connection, &format!(r#"{{"topic":"news.list","data":{n}}}"#));
    }
    let dispatcher = house.bridge(&server.url()).await;
    for n in 700..1_400 {
        xadd(&mut connection, "news", &n.to_string());
        rpush(&mut connection, &format!(r#"{{"topic":"news.list","data":{n}}}"#));
    }
    let _: String = redis::cmd("XADD")
        .arg("fanfare:in")
        .arg("*")
        .arg(&["user", "ann@x.org", "text", "안녕"])
        .query(&mut connection)
        .unwrap();
    house.wait_for("user.ann@x~2Eorg", &[&data("\"안녕\"")]).await;
    house.wait_for_count("news.list", 1_400).await;
    let expected: Vec<String> = (0..1_400).map(|n| data(&n.to_string())).collect();
    assert_eq!(house.bodies("news").await, expected);
    assert_eq!(house.bodies("news.list").await, expected);
    until("no lag", || async { dispatcher.status().iter().all(|s| s.owner && s.lag_entries == 0) }).await;
    assert_eq!(dispatcher.dead().count().await, Ok(0));
    dispatcher.stop().await;
    // The leases were given up, the cursor stands, and what was applied lies there for those who replay.
    let owners: Vec<String> = connection.keys("*:owner").unwrap();
    assert_eq!(owners, Vec::<String>::new());
    let kept: u64 = connection.xlen("fanfare:in").unwrap();
    assert_eq!(kept, 1_401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_a_publisher_arrives_whole_and_in_order() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let _dispatcher = house.bridge(&server.url()).await;
    let mut connection = server.connection();
    for round in 0..50 {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for n in 0..20 {
            pipe.rpush("fanfare:list", format!(r#"{{"topic":"t","data":{}}}"#, round * 20 + n)).ignore();
        }
        pipe.query::<()>(&mut connection).unwrap();
    }
    house.wait_for_count("t", 1_000).await;
    let expected: Vec<String> = (0..1_000).map(|n| data(&n.to_string())).collect();
    assert_eq!(house.bodies("t").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_element_that_a_dead_node_was_woken_by_comes_first() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    for n in 1..=5 {
        rpush(&mut connection, &format!(r#"{{"topic":"t","data":{n}}}"#));
    }
    for _ in 0..2 {
        let _: String = connection
            .blmove("fanfare:list", "{fanfare:list}:wake", redis::Direction::Left, redis::Direction::Right, 1.0)
            .unwrap();
    }
    let _dispatcher = house.bridge(&server.url()).await;
    let expected: Vec<String> = (1..=5).map(|n| data(&n.to_string())).collect();
    house.wait_for("t", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_takes_over_within_six_seconds_of_a_kill_and_at_once_after_a_release() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let first = house.bridge(&server.url()).await;
    until("the first owns all", || async { first.status().iter().all(|s| s.owner) }).await;
    let second = house.bridge(&server.url()).await;
    let mut connection = server.connection();
    xadd(&mut connection, "t", "1");
    house.wait_for("t", &[&data("1")]).await;
    assert!(second.status().iter().all(|s| !s.owner));

    let killed = Instant::now();
    drop(first);
    xadd(&mut connection, "t", "2");
    house.wait_for("t", &[&data("1"), &data("2")]).await;
    assert!(killed.elapsed() < Duration::from_secs(6), "{:?}", killed.elapsed());

    let third = house.bridge(&server.url()).await;
    let released = Instant::now();
    second.stop().await;
    xadd(&mut connection, "t", "3");
    house.wait_for("t", &[&data("1"), &data("2"), &data("3")]).await;
    assert!(released.elapsed() < Duration::from_secs(2), "{:?}", released.elapsed());
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_told_and_what_was_published_before_and_after_it_arrives_once() {
    let (mut server, house) = (RedisServer::start_durable(), House::memory().await);
    let dispatcher =
        house.bridge_with(&server.url(), |settings, _| settings.patience.response = Duration::from_millis(500)).await;
    let mut connection = server.connection();
    for n in 0..100 {
        xadd(&mut connection, "t", &n.to_string());
    }
    house.wait_for_count("t", 100).await;
    until("all is committed", || async { dispatcher.status()[0].lag_entries == 0 }).await;
    server.pause();
    until("trouble is told", || async { dispatcher.status().iter().any(|s| s.trouble.is_some()) }).await;
    server.resume();
    until("it is over", || async { dispatcher.status().iter().all(|s| s.trouble.is_none() && s.owner) }).await;

    server.kill();
    until("trouble is told", || async { dispatcher.status().iter().all(|s| s.trouble.is_some()) }).await;
    until("nobody owns it", || async { dispatcher.status().iter().all(|s| !s.owner) }).await;
    server.restart();
    let mut connection = server.connection();
    for n in 100..200 {
        xadd(&mut connection, "t", &n.to_string());
    }
    rpush(&mut connection, r#"{"topic":"l","data":1}"#);
    house.wait_for_count("t", 200).await;
    house.wait_for("l", &[&data("1")]).await;
    let expected: Vec<String> = (0..200).map(|n| data(&n.to_string())).collect();
    assert_eq!(house.bodies("t").await, expected);
    until("it is over", || async { dispatcher.status().iter().all(|s| s.trouble.is_none() && s.owner) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_and_not_committed_before_a_crash_of_redis_is_not_applied_again() {
    let (mut server, house) = (RedisServer::start_durable(), House::memory().await);
    let mut connection = server.connection();
    for n in 0..100 {
        xadd(&mut connection, "t", &n.to_string());
        rpush(&mut connection, &format!(r#"{{"topic":"l","data":{n}}}"#));
    }
    // Both partitions stop between the append and the commit until the server is another one.
    let (appended, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let pause = Pause::new({
        let (appended, go_on) = (appended.clone(), go_on.clone());
        move |step| {
            let (appended, go_on) = (appended.clone(), go_on.clone());
            async move {
                if step == Step::Appended {
                    appended.add_permits(1);
                    let _ = go_on.acquire().await;
                }
            }
            .boxed()
        }
    });
    let dispatcher = house.bridge_with(&server.url(), |_, options| options.pause = pause).await;
    drop(appended.acquire_many(2).await.unwrap());
    server.kill();
    server.restart();
    let mut connection = server.connection();
    xadd(&mut connection, "t", "100");
    rpush(&mut connection, r#"{"topic":"l","data":100}"#);
    go_on.add_permits(1_000);
    house.wait_for_count("t", 101).await;
    house.wait_for_count("l", 101).await;
    until("all is committed", || async { dispatcher.status().iter().all(|s| s.owner && s.lag_entries == 0) }).await;
    let expected: Vec<String> = (0..=100).map(|n| data(&n.to_string())).collect();
    assert_eq!(house.bodies("t").await, expected);
    assert_eq!(house.bodies("l").await, expected);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_read_from_its_beginning() {
    let (mut server, house) = (RedisServer::start(), House::memory().await);
    let _dispatcher = house.bridge(&server.url()).await;
    xadd(&mut server.connection(), "t", "1");
    house.wait_for("t", &[&data("1")]).await;
    server.restart_empty();
    xadd(&mut server.connection(), "t", "2");
    house.wait_for("t", &[&data("1"), &data("2")]).await;
    // And a stream that somebody deleted, whose ids begin below the old ones.
    let mut connection = server.connection();
    let _: u64 = connection.del("fanfare:in").unwrap();
    let _: String = connection.xadd("fanfare:in", "5-1", &[("topic", "t"), ("data", "3")]).unwrap();
    house.wait_for("t", &[&data("1"), &data("2"), &data("3")]).await;
}

/// The stream is looked at while it is gone, and begins anew below what was handed out of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_missed_and_begins_anew_with_lower_ids_is_read() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let _dispatcher = house.bridge(&server.url()).await;
    let mut connection = server.connection();
    xadd(&mut connection, "t", "1");
    house.wait_for("t", &[&data("1")]).await;
    let _: u64 = connection.del("fanfare:in").unwrap();
    until("the look at no stream", || {
        let generation: Option<String> = server.connection().hget("{fanfare:in}:cursor", "gen").unwrap();
        async move { generation.as_deref() == Some("1") }
    })
    .await;
    let _: String = connection.xadd("fanfare:in", "5-1", &[("topic", "t"), ("data", "2")]).unwrap();
    house.wait_for("t", &[&data("1"), &data("2")]).await;
}

/// The owner loses its lease between the append and the commit, so that no cursor says how far the old stream was applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_before_the_commit_is_read_from_its_beginning() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let (appended, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let pause = Pause::new({
        let (appended, go_on) = (appended.clone(), go_on.clone());
        move |step| {
            let (appended, go_on) = (appended.clone(), go_on.clone());
            async move {
                if step == Step::Appended {
                    appended.add_permits(1);
                    let _ = go_on.acquire().await;
                }
            }
            .boxed()
        }
    });
    let _dispatcher = house.bridge_with(&server.url(), |_, options| options.pause = pause).await;
    let mut connection = server.connection();
    xadd(&mut connection, "t", "1");
    drop(appended.acquire().await.unwrap());
    let _: u64 = connection.del("fanfare:in").unwrap();
    let _: String = connection.xadd("fanfare:in", "5-1", &[("topic", "t"), ("data", "2")]).unwrap();
    let _: () = connection.pset_ex("{fanfare:in}:owner", "another", 300).unwrap();
    go_on.add_permits(1_000);
    house.wait_for("t", &[&data("1"), &data("2")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_publishers_trimmed_away_unread_are_told() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    xadd(&mut connection, "t", "1");
    let dispatcher = house.bridge(&server.url()).await;
    house.wait_for("t", &[&data("1")]).await;
    until("it is committed", || async {
        let mut connection = server.connection();
        connection.hget::<_, _, Option<u64>>("{fanfare:in}:cursor", "count").unwrap() == Some(1)
    })
    .await;
    dispatcher.stop().await;
    for n in 2..=10 {
        xadd(&mut connection, "t", &n.to_string());
    }
    let _: u64 = redis::cmd("XTRIM").arg(&["fanfare:in", "MAXLEN", "3"]).query(&mut connection).unwrap();
    let dispatcher = house.bridge(&server.url()).await;
    house.wait_for("t", &[&data("1"), &data("8"), &data("9"), &data("10")]).await;
    let notices = dispatcher.dead().notices().await.unwrap();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].text.starts_with("6 entries of fanfare:in were trimmed"), "{notices:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_publishers_and_is_read_empty_all_the_same() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    for n in 0..500 {
        xadd(&mut connection, if n == 250 { "no good" } else { "t" }, &n.to_string());
        rpush(&mut connection, &format!(r#"{{"topic":"l","data":{n}}}"#));
    }
    let _: () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "100kb"]).query(&mut connection).unwrap();
    let refused: redis::RedisResult<String> = connection.xadd("fanfare:in", "*", &[("topic", "t"), ("data", "1")]);
    assert_eq!(refused.unwrap_err().code(), Some("OOM"));
    let dispatcher = house.bridge(&server.url()).await;
    house.wait_for_count("t", 499).await;
    house.wait_for_count("l", 500).await;
    until("the letter", || async { dispatcher.dead().count().await == Ok(1) }).await;
    until("no lag", || async { dispatcher.status().iter().all(|s| s.lag_entries == 0 && s.trouble.is_none()) }).await;
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_that_write_next_to_us_are_recognised_and_named() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let java = b"\xac\xed\x00\x05t\x00\x0afanfare:in";
    let _: String = connection.xadd("laravel_database_fanfare:in", "*", &[("topic", "t"), ("data", "1")]).unwrap();
    let _: u64 = connection.rpush("shop:fanfare:list", "{}").unwrap();
    let _: String = connection.xadd(&java[..], "*", &[("topic", "t"), ("data", "1")]).unwrap();
    let dispatcher = house.bridge(&server.url()).await;
    until("all three are told", || async { dispatcher.dead().notices().await.unwrap().len() == 3 }).await;
    let told: String = dispatcher.dead().notices().await.unwrap().into_iter().map(|n| n.text + "\n").collect();
    for shows in [
        "REDIS_PREFIX",
        "--ingest-stream laravel_database_fanfare:in",
        "--ingest-list shop:fanfare:list",
        "StringRedisTemplate",
    ] {
        assert!(told.contains(shows), "{shows}: {told}");
    }
    dispatcher.stop().await;
    // The hub can be told to read there instead.
    let dispatcher =
        house.bridge_with(&server.url(), |settings, _| settings.stream = "laravel_database_fanfare:in".into()).await;
    house.wait_for("t", &[&data("1")]).await;
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_partitions_are_read_side_by_side() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let dispatcher = house.bridge_with(&server.url(), |settings, _| settings.partitions = 3).await;
    for (key, topic) in [("fanfare:in", "a"), ("fanfare:in:1", "b"), ("fanfare:in:2", "c"), ("fanfare:in:2", "a b")] {
        let _: String = connection.xadd(key, "*", &[("topic", topic), ("data", "1")]).unwrap();
    }
    for topic in ["a", "b", "c"] {
        house.wait_for(topic, &[&data("1")]).await;
    }
    until("a letter", || async { dispatcher.dead().count().await == Ok(1) }).await;
    let letter = letters(&dispatcher).await.into_values().next().unwrap();
    assert_eq!(letter.source, "fanfare:in:2");
    assert_eq!(dispatcher.dead().discard(&letter.id).await, Ok(true));
    assert_eq!(dispatcher.dead().discard(&letter.id).await, Ok(false));
}

#[tokio::test]
async fn settings_that_can_never_work_are_refused_without_showing_a_password() {
    let house = House::memory().await;
    for (url, stream) in [
        ("http://:secret@x", "a"),
        ("redis://:secret@host:port", "a"),
        ("redis://x", "a{b}"),
        ("redis://x", "fanfare:list"),
    ] {
        let mut settings = queue::Options::new(url, "fanfare");
        settings.stream = stream.into();
        let started = dispatcher::start(house.hub.clone(), Ingest::Redis(settings), Default::default()).await;
        let text = started.err().unwrap().to_string();
        assert!(text.contains("--ingest") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_not_there_yet_is_waited_for() {
    let (mut server, house) = (RedisServer::start(), House::memory().await);
    server.kill();
    let dispatcher = house.bridge(&server.url()).await;
    until("trouble is told", || async { dispatcher.status().iter().any(|s| s.trouble.is_some()) }).await;
    server.restart_empty();
    xadd(&mut server.connection(), "t", "1");
    house.wait_for("t", &[&data("1")]).await;
    dispatcher.stop().await;
}

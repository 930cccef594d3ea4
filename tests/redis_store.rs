//! What is particular to the Redis store: outages, restarts, lost scripts, settings. The contract itself is held by
//! `store_conformance.rs`.

#[path = "support/redis.rs"]
mod server;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfare::domain::message::{Body, Durability, Publication};
use fanfare::domain::name::Topic;
use fanfare::domain::position::Position;
use fanfare::domain::store::*;
use fanfare::store::redis::{OpenError, RedisOptions, RedisStore, open};
use futures::StreamExt;
use futures::stream::BoxStream;
use server::RedisServer;

/// Longer than anything here should take; reaching it is a failure.
const SOON: Duration = Duration::from_secs(20);

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

fn message(name: &str, body: &str) -> Append {
    let publication = Publication {
        topic: topic(name),
        body: Body::from_canonical(Bytes::from(body.to_string())),
        ttl: None,
        key: None,
        idempotency_key: None,
        durability: None,
    };
    Append { publication, fence: None }
}

fn keyed(name: &str, body: &str) -> Append {
    let mut append = message(name, body);
    append.publication.idempotency_key = Some(body.into());
    append
}

/// Impatient, so that tests are quick.
fn options() -> RedisOptions {
    RedisOptions {
        response_timeout: Duration::from_millis(400),
        connect_timeout: Duration::from_millis(400),
        ping: Duration::from_millis(100),
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(100),
        ..RedisOptions::default()
    }
}

async fn store(server: &RedisServer) -> RedisStore {
    open(&server.url(), options()).await.unwrap()
}

async fn put(store: &RedisStore, name: &str, body: &str) -> Result<Position, StoreError> {
    match store.append(vec![message(name, body)]).await.remove(0)? {
        Appended::Stored { at, .. } | Appended::Repeated { at } => Ok(at),
        Appended::Skipped => panic!("no fence was given"),
    }
}

/// Puts until it is taken: the store comes back by itself.
async fn put_at_last(store: &RedisStore, name: &str, body: &str) -> Position {
    let begun = Instant::now();
    loop {
        match store.append(vec![keyed(name, body)]).await.remove(0) {
            Ok(Appended::Stored { at, .. } | Appended::Repeated { at }) => return at,
            other => assert!(begun.elapsed() < SOON, "{other:?}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn page(store: &RedisStore, name: &str, from: ReadFrom) -> Page {
    store.read(&topic(name), from, ReadLimit::default()).await.unwrap()
}

/// Everything a topic keeps, page by page.
async fn all(store: &RedisStore, name: &str) -> Vec<(Position, String)> {
    let unknown = "zzzzzzz.0".parse().unwrap();
    let mut page = page(store, name, ReadFrom::After(unknown)).await;
    let mut bodies = Vec::new();
    loop {
        bodies.extend(page.messages.iter().map(|m| (m.at, format!("{:?}", m.body))));
        if page.is_last() {
            return bodies;
        }
        page = self::page(store, name, ReadFrom::After(page.end)).await;
    }
}

fn bodies(page: &Page) -> Vec<String> {
    page.messages.iter().map(|m| format!("{:?}", m.body)).collect()
}

struct Ear {
    events: BoxStream<'static, FeedEvent>,
    watch: Box<dyn Watch>,
}

impl Ear {
    fn open(store: &RedisStore) -> Ear {
        let (watch, events) = store.feed();
        Ear { events, watch }
    }

    async fn next(&mut self) -> FeedEvent {
        tokio::time::timeout(SOON, self.events.next()).await.expect("an event in time").expect("the feed goes on")
    }

    /// Hears events until one fits, and answers them all in short words.
    async fn until(&mut self, last: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let word = match self.next().await {
                FeedEvent::Watching(topic) => format!("watching {topic}"),
                FeedEvent::Message(message) => format!("{:?}", message.body),
                FeedEvent::Interrupted => "interrupted".into(),
                FeedEvent::Restored => "restored".into(),
            };
            heard.push(word.clone());
            if word == last {
                return heard;
            }
        }
    }

    async fn watch(&mut self, name: &str) {
        self.watch.watch(&topic(name));
        self.until(&format!("watching {name}")).await;
    }
}

#[tokio::test]
async fn what_is_stored_is_read_and_fed() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut ear = Ear::open(&store);
    ear.watch("news").await;
    let first = put(&store, "news", "one").await.unwrap();
    let second = put(&store, "news", "two").await.unwrap();
    assert_eq!(second, first.next());
    assert_eq!(ear.until("two").await, ["one", "two"]);
    assert_eq!(bodies(&page(&store, "news", ReadFrom::After(first.before())).await), ["one", "two"]);
    assert_eq!(bodies(&page(&store, "news", ReadFrom::Last(1)).await), ["two"]);
}

#[tokio::test]
async fn a_restart_with_data_begins_a_new_epoch_and_offsets_go_on() {
    let mut server = RedisServer::start_durable();
    let store = store(&server).await;
    assert_eq!(store.status().durability, Durability::Disk);
    let first = put(&store, "news", "one").await.unwrap();
    let second = put(&store, "news", "two").await.unwrap();
    server.restart();
    let third = put_at_last(&store, "news", "three").await;
    assert_ne!(third.epoch, second.epoch);
    assert_eq!(third.offset, 3);

    // A position of the old life goes on to its end, and then the change is told.
    let rest = page(&store, "news", ReadFrom::After(first)).await;
    assert_eq!((bodies(&rest), rest.end, rest.missing), (vec!["two".to_string()], second, None));
    assert!(!rest.is_last());
    let next = page(&store, "news", ReadFrom::After(rest.end)).await;
    assert_eq!((bodies(&next), next.is_last()), (vec!["three".to_string()], true));
    assert_eq!(next.missing, Some(Missing { why: GapCause::Failover, to: None }));
}

#[tokio::test]
async fn a_read_alone_notices_the_new_life() {
    let mut server = RedisServer::start_durable();
    let store = store(&server).await;
    let first = put(&store, "news", "one").await.unwrap();
    server.restart();
    put_at_last(&store, "other", "x").await;
    let page = page(&store, "news", ReadFrom::Last(0)).await;
    assert_ne!(page.head.epoch, first.epoch);
    assert_eq!(page.head.offset, 1);
}

#[tokio::test]
async fn a_redis_that_lost_everything_knows_no_old_position() {
    let mut server = RedisServer::start();
    let store = store(&server).await;
    put(&store, "news", "one").await.unwrap();
    let second = put(&store, "news", "two").await.unwrap();
    server.restart_empty();
    let fresh = put_at_last(&store, "news", "three").await;
    assert_eq!(fresh.offset, 1);
    let page = page(&store, "news", ReadFrom::After(second)).await;
    assert_eq!(page.missing.map(|m| m.why), Some(GapCause::Epoch));
    assert_eq!((bodies(&page), page.is_last()), (vec!["three".to_string()], true));
}

// Both supervisors try again for ever (neither counts its tries), so a longer outage takes no other way than this one,
// in which dozens of tries fail; a limit of tries like the six that client libraries have would show here.
#[tokio::test]
async fn the_feed_and_the_store_survive_an_outage() {
    let mut server = RedisServer::start();
    let store = store(&server).await;
    let mut ear = Ear::open(&store);
    ear.watch("a").await;
    ear.watch("b").await;
    server.kill();
    assert_eq!(ear.until("interrupted").await, ["interrupted"]);
    // Wished for during the outage.
    ear.watch.watch(&topic("c"));
    ear.watch.unwatch(&topic("b"));
    // Wait out many tries: each refused publish below says that Redis is away, at once.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        match put(&store, "a", "lost").await {
            Err(StoreError::Unavailable(_) | StoreError::Unconfirmed(_)) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
    let begun = Instant::now();
    assert!(matches!(put(&store, "a", "lost").await, Err(StoreError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_millis(100), "a publish fails at once while Redis is away");
    assert!(store.status().trouble.is_some());
    server.restart_empty();
    let mut heard = ear.until("restored").await;
    heard.retain(|word| word != "restored");
    assert_eq!(heard, ["watching c"]);
    put_at_last(&store, "b", "not watched").await;
    put_at_last(&store, "a", "back").await;
    put_at_last(&store, "c", "new").await;
    assert_eq!(ear.until("new").await, ["back", "new"]);
    assert_eq!(store.status().trouble, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_the_midst_of_appends_never_makes_a_false_yes() {
    let mut server = RedisServer::start_durable();
    let store = store(&server).await;
    let mut told: HashMap<String, Position> = HashMap::new();
    let mut unknown = 0;
    for crash in 0..5 {
        let mut on_their_way = Vec::new();
        for n in 0..400 {
            let names: Vec<String> = (0..5).map(|i| format!("{crash}-{n}-{i}")).collect();
            let batch = names.iter().enumerate().map(|(i, body)| message(&format!("t{i}"), body)).collect();
            on_their_way.push((names, store.append(batch)));
            if n % 20 == 0 {
                tokio::task::yield_now().await;
            }
            if n == 200 {
                // Some of it is answered, some is on its way, some waits.
                let (names, answer) = on_their_way.remove(0);
                collect(names, answer.await, &mut told, &mut unknown);
                server.kill();
            }
        }
        for (names, answer) in on_their_way {
            collect(names, answer.await, &mut told, &mut unknown);
        }
        server.restart();
        put_at_last(&store, "probe", &crash.to_string()).await;
    }
    let mut kept = HashMap::new();
    for i in 0..5 {
        for (at, body) in all(&store, &format!("t{i}")).await {
            assert!(kept.insert(body, at).is_none(), "stored twice");
        }
    }
    for (body, at) in &told {
        assert_eq!(kept.get(body), Some(at), "{body} was acknowledged");
    }
    eprintln!("{} acknowledged, {} kept, {unknown} refused or unconfirmed", told.len(), kept.len());
    assert!(!told.is_empty() && unknown > 0, "the crashes must fall into the midst");
}

fn collect(
    names: Vec<String>,
    outcomes: Vec<Result<Appended, StoreError>>,
    told: &mut HashMap<String, Position>,
    unknown: &mut usize,
) {
    for (name, outcome) in names.into_iter().zip(outcomes) {
        match outcome {
            Ok(Appended::Stored { at, .. }) => drop(told.insert(name, at)),
            Err(StoreError::Unavailable(_) | StoreError::Unconfirmed(_)) => *unknown += 1,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stalled_redis_is_noticed_and_what_it_still_had_comes_before_what_follows() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut ear = Ear::open(&store);
    ear.watch("news").await;
    put(&store, "news", "before").await.unwrap();
    server.pause();
    let stalled = store.append(vec![message("news", "stalled")]).await.remove(0);
    assert!(matches!(stalled, Err(StoreError::Unconfirmed(_))), "{stalled:?}");
    ear.until("interrupted").await;
    let mut refused = put(&store, "news", "refused").await;
    while matches!(refused, Err(StoreError::Unconfirmed(_))) {
        refused = put(&store, "news", "refused").await;
    }
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    server.resume();
    ear.until("restored").await;
    put_at_last(&store, "news", "after").await;
    ear.until("after").await;
    let kept: Vec<String> = all(&store, "news").await.into_iter().map(|(_, body)| body).collect();
    assert_eq!((kept.first().unwrap().as_str(), kept.last().unwrap().as_str()), ("before", "after"), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_scripts_and_cut_connections_under_load_lose_and_repeat_nothing() {
    let server = RedisServer::start_with(&["--enable-debug-command", "yes"]);
    let retention = Retention { messages: 1_000_000, ..Retention::default() };
    let store = open(&server.url(), RedisOptions { retention, ..options() }).await.unwrap();
    let mut ear = Ear::open(&store);
    ear.watch("t0").await;
    let store = std::sync::Arc::new(store);
    let (url, stop) = (server.url(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let stopped = stop.clone();
    let vandal = std::thread::spawn(move || {
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let mut rounds = 0;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            rounds += 1;
            redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection).unwrap();
            if rounds % 20 == 0 {
                let kind = if rounds % 40 == 0 { "pubsub" } else { "normal" };
                redis::cmd("CLIENT").arg(&["KILL", "TYPE", kind, "SKIPME", "yes"]).exec(&mut connection).unwrap();
            }
            // A pace, not a wait: the server paces us by answering.
            redis::cmd("DEBUG").arg("SLEEP").arg("0.002").exec(&mut connection).unwrap();
        }
        rounds
    });
    let mut unconfirmed = 0;
    for n in 0..600 {
        // Two batches on their way at a time; each is repeated until it is taken.
        let bodies = |half: usize| (0..10).map(|i| format!("{n}-{half}-{i}")).collect::<Vec<_>>();
        let batch = |half: usize| bodies(half).iter().map(|b| keyed(&format!("t{}", n % 5), b)).collect::<Vec<_>>();
        let (mut first, mut second) = tokio::join!(store.append(batch(0)), store.append(batch(1)));
        for (half, outcomes) in [(0, &mut first), (1, &mut second)] {
            while outcomes.iter().any(Result::is_err) {
                for error in outcomes.iter().filter_map(|o| o.as_ref().err()) {
                    assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Unconfirmed(_)), "{error:?}");
                }
                unconfirmed += 1;
                *outcomes = store.append(batch(half)).await;
                tokio::task::yield_now().await;
            }
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let rounds = vandal.join().unwrap();
    let mut seen = HashSet::new();
    for i in 0..5 {
        for (_, body) in all(&store, &format!("t{i}")).await {
            assert!(seen.insert(body), "stored twice");
        }
    }
    assert_eq!(seen.len(), 600 * 20);
    eprintln!("{rounds} flushes, {} cuts, {unconfirmed} batches repeated", rounds / 20);
    put_at_last(&store, "t0", "end").await;
    ear.until("end").await;
}

#[tokio::test]
async fn ten_thousand_watched_topics_are_subscribed_again() {
    let mut server = RedisServer::start();
    let store = store(&server).await;
    let mut ear = Ear::open(&store);
    for n in 0..10_000 {
        ear.watch.watch(&topic(&format!("t{n}")));
    }
    let mut watched = 0;
    while watched < 10_000 {
        assert!(matches!(ear.next().await, FeedEvent::Watching(_)));
        watched += 1;
    }
    server.restart_empty();
    ear.until("restored").await;
    let channels: Vec<String> =
        redis::cmd("PUBSUB").arg("CHANNELS").arg("fanfare:*").query(&mut server.connection()).unwrap();
    assert_eq!(channels.len(), 10_000);
    put_at_last(&store, "t9999", "here").await;
    ear.until("here").await;
}

#[tokio::test]
async fn settings_that_lose_messages_are_refused_by_name() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let error = open(&server.url(), options()).await.err().unwrap();
    assert!(
        matches!(error, OpenError::Unfit(_)) && error.to_string().contains("maxmemory-policy noeviction"),
        "{error}"
    );
}

#[tokio::test]
async fn another_number_of_groups_is_refused() {
    let server = RedisServer::start();
    store(&server).await.close().await;
    let error = open(&server.url(), RedisOptions { groups: 64, ..options() }).await.err().unwrap();
    assert!(matches!(error, OpenError::Groups { .. }) && error.to_string().contains("256"), "{error}");
    let other = RedisOptions { groups: 64, prefix: "other".into(), ..options() };
    assert!(open(&server.url(), other).await.is_ok());
}

#[tokio::test]
async fn a_full_redis_says_so_and_takes_messages_again_once_there_is_room() {
    let server = RedisServer::start();
    let store = store(&server).await;
    put(&store, "news", "one").await.unwrap();
    let mut connection = server.connection();
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1mb"]).exec(&mut connection).unwrap();
    let full = put(&store, "news", "two").await;
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    assert_eq!(bodies(&page(&store, "news", ReadFrom::Last(10)).await), ["one"]);
    redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).exec(&mut connection).unwrap();
    assert_eq!(put(&store, "news", "three").await.unwrap().offset, 2);
}

#[tokio::test]
async fn a_replica_and_another_life_of_a_replicated_redis_are_noticed() {
    let (master, replica) = (RedisServer::start(), RedisServer::start());
    let mut connection = replica.connection();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(master.port()).exec(&mut connection).unwrap();
    let refused = open(&replica.url(), options()).await.err().unwrap();
    assert!(refused.to_string().contains("master") || refused.to_string().contains("loading"), "{refused}");

    let store = store(&master).await;
    let first = put(&store, "news", "one").await.unwrap();
    let replicas: i64 = redis::cmd("WAIT").arg(1).arg(10_000).query(&mut master.connection()).unwrap();
    // WAIT counts what this connection wrote; the link itself is waited for by the write below.
    let _ = replicas;
    let mut writer = master.connection();
    redis::cmd("SET").arg("seen").arg(1).exec(&mut writer).unwrap();
    let replicas: i64 = redis::cmd("WAIT").arg(1).arg(10_000).query(&mut writer).unwrap();
    assert_eq!(replicas, 1);
    redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).exec(&mut connection).unwrap();
    let promoted = self::store(&replica).await;
    let second = put(&promoted, "news", "two").await.unwrap();
    assert!(second.epoch != first.epoch && second.offset == 2);
    let page = page(&promoted, "news", ReadFrom::After(first)).await;
    assert_eq!((bodies(&page), page.missing.map(|m| m.why)), (vec!["two".to_string()], Some(GapCause::Failover)));
}

#[tokio::test]
async fn scripts_touch_only_the_keys_that_they_declare_on_a_cluster() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes", "--appendonly", "no"]);
    let mut connection = server.connection();
    redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"]).exec(&mut connection).unwrap();
    while !redis::cmd("CLUSTER").arg("INFO").query::<String>(&mut connection).unwrap().contains("cluster_state:ok") {}
    let store = store(&server).await;
    let batch: Vec<Append> = (0..200).map(|n| keyed(&format!("t{}", n % 60), &n.to_string())).collect();
    for outcome in store.append(batch).await {
        assert!(matches!(outcome, Ok(Appended::Stored { .. })), "{outcome:?}");
    }
    let page = page(&store, "t7", ReadFrom::Last(10)).await;
    assert_eq!(bodies(&page), ["7", "67", "127", "187"]);
}

#[tokio::test]
async fn a_slow_reader_of_the_feed_is_told_of_the_hole() {
    let server = RedisServer::start();
    let store = open(&server.url(), RedisOptions { feed_messages: 5, ..options() }).await.unwrap();
    let mut ear = Ear::open(&store);
    ear.watch("news").await;
    ear.watch("end").await;
    for n in 0..50 {
        put(&store, "news", &n.to_string()).await.unwrap();
    }
    // Nothing was read meanwhile. What was dropped lies between the two words.
    let heard = ear.until("restored").await;
    assert_eq!(heard, ["0", "1", "2", "3", "4", "interrupted", "restored"]);
    put(&store, "news", "next").await.unwrap();
    ear.until("next").await;
}

/// Reads until the page is as wanted: Redis' clock cannot be moved, so these times are short and real.
async fn page_at_last(store: &RedisStore, name: &str, from: ReadFrom, wanted: impl Fn(&Page) -> bool) -> Page {
    let begun = Instant::now();
    loop {
        let page = page(store, name, from).await;
        if wanted(&page) {
            return page;
        }
        assert!(begun.elapsed() < SOON, "{page:?}");
    }
}

#[tokio::test]
async fn messages_expire_by_the_clock_of_redis_and_leave_a_hole() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut brief = message("news", "brief");
    brief.publication.ttl = Some(Duration::from_millis(300));
    let batch = vec![brief.clone(), message("news", "stays"), brief];
    let first = match store.append(batch).await[0] {
        Ok(Appended::Stored { at, .. }) => at,
        ref other => panic!("{other:?}"),
    };
    let from = ReadFrom::After(first.before());
    assert_eq!(bodies(&page(&store, "news", from).await), ["brief", "stays", "brief"]);
    let page = page_at_last(&store, "news", from, |page| page.messages.len() == 1).await;
    assert_eq!((bodies(&page), page.start, page.missing), (vec!["stays".into()], first.before(), None));
    assert!(page.is_last() && page.end.offset == 3);
}

#[tokio::test]
async fn old_messages_go_and_the_record_of_their_topic_stays() {
    let server = RedisServer::start();
    let retention = Retention { age: Duration::from_millis(200), ..Retention::default() };
    let store = open(&server.url(), RedisOptions { retention, ..options() }).await.unwrap();
    let first = put(&store, "news", "one").await.unwrap();
    let second = put(&store, "news", "two").await.unwrap();
    let page = page_at_last(&store, "news", ReadFrom::After(first.before()), |page| page.messages.is_empty()).await;
    assert_eq!(page.missing, Some(Missing { why: GapCause::Retention, to: Some(second) }));
    assert_eq!((page.end, page.head), (second, second));
    assert_eq!(put(&store, "news", "three").await.unwrap(), second.next());
    let (log, meta): (i64, i64) = redis::pipe()
        .cmd("PTTL")
        .arg("fanfare:{t41}:log:news")
        .cmd("PTTL")
        .arg("fanfare:{t41}:meta:news")
        .query(&mut server.connection())
        .unwrap();
    assert!(log > 200 && log < 5_000, "the log goes by itself when nobody writes: {log} ms");
    assert!(meta > 24 * 3600 * 1000, "the record outlives it: {meta} ms");
}

#[tokio::test]
async fn an_idempotency_key_is_forgotten_after_its_window() {
    let server = RedisServer::start();
    let retention = Retention { idempotency_window: Duration::from_millis(300), ..Retention::default() };
    let store = open(&server.url(), RedisOptions { retention, ..options() }).await.unwrap();
    let first = store.append(vec![keyed("news", "order")]).await.remove(0);
    assert!(matches!(first, Ok(Appended::Stored { .. })), "{first:?}");
    let begun = Instant::now();
    let mut repeats = 0;
    while let Ok(Appended::Repeated { .. }) = store.append(vec![keyed("news", "order")]).await.remove(0) {
        repeats += 1;
        assert!(begun.elapsed() < SOON);
    }
    assert!(repeats > 0 && begun.elapsed() > Duration::from_millis(200));
    assert_eq!(page(&store, "news", ReadFrom::Last(9)).await.head.offset, 2);
}

#[tokio::test]
async fn the_channel_of_the_group_is_used_only_while_somebody_asks_for_it() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut listener = server.connection();
    listener.set_read_timeout(Some(SOON)).unwrap();
    let mut listener = listener.as_pubsub();
    listener.subscribe("fanfare:{t41}:wild-feed").unwrap();
    put(&store, "news", "unheard").await.unwrap();
    redis::cmd("SET").arg("fanfare:{t41}:wild").arg(1).exec(&mut server.connection()).unwrap();
    put(&store, "news", "heard").await.unwrap();
    let payload: String = listener.get_message().unwrap().get_payload().unwrap();
    assert!(payload.ends_with(" 0 news heard"), "{payload}");
}

#[tokio::test]
async fn a_key_that_is_not_ours_fails_its_topic_and_no_other() {
    let server = RedisServer::start();
    let store = store(&server).await;
    redis::cmd("SET").arg("fanfare:{t41}:log:news").arg("something else").exec(&mut server.connection()).unwrap();
    let batch = vec![message("a", "1"), message("news", "2"), message("b", "3"), message("news", "4")];
    let outcomes = store.append(batch).await;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    for outcome in [&outcomes[1], &outcomes[3]] {
        assert!(matches!(outcome, Err(StoreError::Broken(text)) if text.contains("WRONGTYPE")), "{outcome:?}");
    }
}

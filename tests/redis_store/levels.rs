//! Levels of acknowledgement: what a yes means, against what Redis is really set to.

use super::*;
use crate::proxy::{Proxy, Way};

const WAIT: Duration = Duration::from_millis(300);

/// A master and a replica behind a line that can be broken.
struct Pair {
    master: RedisServer,
    line: Proxy,
    replica: RedisServer,
}

impl Pair {
    async fn start() -> Pair {
        let master = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
        let line = Proxy::start(([127, 0, 0, 1], master.port()).into());
        let port = line.address().port().to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
        let pair = Pair { master, line, replica };
        pair.until_in_step().await;
        pair
    }

    async fn until_in_step(&self) {
        let begun = Instant::now();
        loop {
            let ask = redis::cmd("INFO").arg("replication").query::<String>(&mut self.master.connection());
            if ask.unwrap().contains("state=online") {
                return;
            }
            assert!(begun.elapsed() < SOON, "the replica is not in step");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn asking(append: Append, level: Durability) -> Append {
    let mut append = append;
    append.publication.durability = Some(level);
    append
}

async fn one(store: &RedisStore, append: Append) -> Result<Appended, StoreError> {
    store.append(vec![append]).await.remove(0)
}

fn level(answer: &Result<Appended, StoreError>) -> Durability {
    match answer {
        Ok(Appended::Stored { durability, .. } | Appended::Repeated { durability, .. }) => *durability,
        other => panic!("it should be stored: {other:?}"),
    }
}

fn is_unconfirmed(answer: &Result<Appended, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unconfirmed(text)) if text.contains("0 of 1 replicas"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_has_what_is_said_to_be_there_and_nobody_else_waits_for_it() {
    let pair = Pair::start().await;
    let store = open(&pair.master.url(), RedisOptions { replica_wait: WAIT, ..options() }).await.unwrap();
    let asked = |n: &str| asking(keyed("news", n), Durability::Replica);
    assert_eq!(level(&one(&store, asked("one")).await), Durability::Replica);
    let there: u64 = redis::cmd("XLEN").arg("fanfare:{t41}:log:news").query(&mut pair.replica.connection()).unwrap();
    assert_eq!(there, 1);
    assert_eq!(level(&one(&store, message("news", "plain")).await), Durability::Memory);
    assert_eq!(store.status().durability, Durability::Memory, "where nothing is asked for");

    pair.line.set_both(Way::BlackHole);
    // One that needs no proof is answered while others wait for theirs, and keeps its place behind them.
    let waiting = tokio::spawn(store.append(vec![asked("two"), message("news", "beside")]));
    let plain = store.append(vec![asking(message("news", "after"), Durability::Memory)]);
    let at = match plain.await.remove(0) {
        Ok(Appended::Stored { at, durability: Durability::Memory, .. }) => at,
        other => panic!("{other:?}"),
    };
    assert!(!waiting.is_finished(), "it waits for a replica");
    let answers = waiting.await.unwrap();
    assert!(is_unconfirmed(&answers[0]), "{answers:?}");
    assert_eq!(level(&answers[1]), Durability::Memory);
    assert_eq!(at.offset, 5);
    // It is there, and a repetition finds it; but that proves no more.
    assert!(is_unconfirmed(&one(&store, asked("two")).await));

    pair.line.heal();
    pair.until_in_step().await;
    let begun = Instant::now();
    let repeated = loop {
        match one(&store, asked("two")).await {
            Ok(appended) => break appended,
            Err(error) => assert!(begun.elapsed() < SOON, "{error}"),
        }
    };
    assert!(
        matches!(repeated, Appended::Repeated { at, durability: Durability::Replica } if at.offset == 3),
        "{repeated:?}"
    );
    assert_eq!(all(&store, "news").await.len(), 5);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_fence_skips_is_proven_too() {
    let pair = Pair::start().await;
    let options = RedisOptions { replica_wait: WAIT, durability: Some(Durability::Replica), ..options() };
    let store = open(&pair.master.url(), options).await.unwrap();
    assert_eq!(store.status().durability, Durability::Replica);
    let entry = |ms| {
        let fence = Fence::new("in", "life", EntryId { ms, seq: 0 });
        Append { fence: Some(fence), ..message("news", &ms.to_string()) }
    };
    assert_eq!(level(&one(&store, entry(1)).await), Durability::Replica);
    pair.line.set_both(Way::BlackHole);
    assert!(is_unconfirmed(&one(&store, entry(2)).await));
    assert!(is_unconfirmed(&one(&store, entry(2)).await), "applied, and proven to nobody");
    // A publisher can ask for less than the hub's level.
    assert_eq!(level(&one(&store, asking(message("news", "x"), Durability::Memory)).await), Durability::Memory);
    pair.line.heal();
    pair.until_in_step().await;
    let begun = Instant::now();
    while one(&store, entry(2)).await != Ok(Appended::Skipped) {
        assert!(begun.elapsed() < SOON);
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replicas_the_level_is_refused_and_by_default_it_is_waited_for() {
    let server = RedisServer::start();
    let plain = open(&server.url(), options()).await.unwrap();
    let answer = one(&plain, asking(message("news", "x"), Durability::Replica)).await;
    assert_eq!(answer, Err(StoreError::Durability { asked: Durability::Replica, gives: Durability::Memory }));

    let options = RedisOptions { durability: Some(Durability::Replica), ..options() };
    let store = open(&server.url(), options).await.unwrap();
    assert!(store.status().trouble.unwrap().contains("needs 1 replicas in step, and 0 are"));
    let answer = one(&store, message("news", "x")).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(all(&store, "news").await, [], "nothing was stored");
    let port = server.port().to_string();
    let _replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
    let begun = Instant::now();
    while !matches!(
        one(&store, message("news", "x")).await,
        Ok(Appended::Stored { durability: Durability::Replica, .. })
    ) {
        assert!(begun.elapsed() < SOON, "{:?}", store.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.status().trouble, None);
    store.close().await;
}

#[tokio::test]
async fn a_disk_that_is_not_synced_is_not_promised() {
    let disk = || RedisOptions { durability: Some(Durability::Disk), ..options() };
    let always = ["--appendonly", "yes", "--appendfsync", "always"];
    for (settings, says) in [
        (&["--appendonly", "no"][..], "CONFIG SET appendonly yes"),
        (&["--appendonly", "yes", "--appendfsync", "everysec"], "CONFIG SET appendfsync always"),
        (&["--appendonly", "yes", "--appendfsync", "always", "--rename-command", "CONFIG", ""], "--redis-fsync always"),
    ] {
        let server = RedisServer::start_with(settings);
        let error = open(&server.url(), disk()).await.err().expect("it cannot be kept");
        assert!(matches!(&error, OpenError::Level(text) if text.contains(says)), "{settings:?}: {error}");
    }
    // Where nobody may ask, the operator's word counts, and nowhere else.
    let silent = [&always[..], &["--rename-command", "CONFIG", ""]].concat();
    let server = RedisServer::start_with(&silent);
    let stated = |word: &str| RedisOptions { fsync: Some(word.into()), ..disk() };
    let store = open(&server.url(), stated("always")).await.unwrap();
    assert_eq!(level(&one(&store, message("news", "x")).await), Durability::Disk);
    let server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let error = open(&server.url(), stated("always")).await.err().expect("it is not so");
    assert!(error.to_string().contains("has appendfsync everysec"), "{error}");
}

#[tokio::test]
async fn settings_that_are_changed_under_a_hub_stop_it_until_they_are_right_again() {
    let server = RedisServer::start_durable();
    let store = open(&server.url(), RedisOptions { durability: Some(Durability::Disk), ..options() }).await.unwrap();
    assert_eq!(level(&one(&store, message("news", "x")).await), Durability::Disk);
    let set = |value: &str| {
        redis::cmd("CONFIG").arg(&["SET", "appendfsync", value]).exec(&mut server.connection()).unwrap();
    };
    set("everysec");
    let begun = Instant::now();
    while store.status().trouble.is_none() {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = one(&store, message("news", "x")).await;
    assert!(matches!(&answer, Err(StoreError::Unavailable(text)) if text.contains("appendfsync")), "{answer:?}");
    assert_eq!(level(&one(&store, asking(message("news", "x"), Durability::Memory)).await), Durability::Memory);
    set("always");
    while store.status().trouble.is_some() {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(level(&one(&store, message("news", "x")).await), Durability::Disk);
    store.close().await;
}

#[tokio::test]
async fn an_idempotency_key_survives_what_its_message_survives() {
    let mut server = RedisServer::start_durable();
    let store = store(&server).await;
    let at = match one(&store, keyed("news", "order")).await {
        Ok(Appended::Stored { at, durability: Durability::Disk, .. }) => at,
        other => panic!("{other:?}"),
    };
    server.restart();
    // In another life of the topic, and with its first position.
    assert_eq!(put_at_last(&store, "news", "order").await, at);
    let next = put_at_last(&store, "news", "next").await;
    assert_ne!(next.epoch, at.epoch);
    let mut other = keyed("news", "other content");
    other.publication.idempotency_key = Some("order".into());
    assert_eq!(one(&store, other).await, Err(StoreError::Conflict { at }));
    store.close().await;
}

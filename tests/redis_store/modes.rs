//! Topics whose rule has another mode when the store is opened again, and what expires with Redis' own clock.

use fanfare::domain::topic::{Mode, Rule};

use super::*;

const ALL: ReadLimit = ReadLimit { messages: 1_000, bytes: 1 << 20 };

async fn open_in(server: &RedisServer, mode: Mode) -> RedisStore {
    let rule = Rule { mode: Some(mode), ..Rule::new("t".parse().unwrap()) };
    open(&server.url(), RedisOptions { rules: vec![rule], ..options() }).await.unwrap()
}

async fn put(store: &RedisStore, keys: &str) -> Position {
    let batch = keys.chars().map(|key| {
        let mut item = message("t", &key.to_string());
        item.publication.key = Some(key).filter(|key| *key != '-').map(|key| key.to_string().into());
        item
    });
    match store.append(batch.collect()).await.pop() {
        Some(Ok(Appended::Stored { at, .. })) => at,
        other => panic!("{other:?}"),
    }
}

/// What follows an offset: which are given, where the page begins, and why.
async fn after(store: &RedisStore, head: Position, offset: u64) -> (Vec<u64>, u64, Option<GapCause>) {
    let from = ReadFrom::After(Position::new(head.epoch, offset));
    let page = store.read(&topic("t"), from, ALL).await.unwrap();
    assert_eq!((page.end, page.head), (head, head));
    (page.messages.iter().map(|m| m.at.offset).collect(), page.start.offset, page.missing.map(|m| m.why))
}

#[tokio::test]
async fn a_topic_changes_its_mode_and_tells_what_is_no_longer_kept() {
    let server = RedisServer::start();
    let retention = Some(GapCause::Retention);
    let store = open_in(&server, Mode::Log).await;
    let head = put(&store, "ab-ab").await;
    store.close().await;

    let store = open_in(&server, Mode::Latest).await;
    assert_eq!(after(&store, head, 0).await, (vec![3, 4, 5], 0, None), "what was replaced is not missed");
    let head = put(&store, "b").await;
    assert_eq!(after(&store, head, 0).await, (vec![3, 4, 6], 0, None));
    store.close().await;

    let store = open_in(&server, Mode::Log).await;
    assert_eq!(after(&store, head, 0).await, (vec![6], 5, retention), "a log has no holes");
    assert_eq!(after(&store, head, 5).await, (vec![6], 5, None));
    let head = put(&store, "ab").await;
    assert_eq!(after(&store, head, 5).await, (vec![6, 7, 8], 5, None));
    store.close().await;

    let store = open_in(&server, Mode::Live).await;
    assert_eq!(after(&store, head, 5).await, (vec![], 8, Some(GapCause::Live)));
    let head = put(&store, "a").await;
    assert_eq!(after(&store, head, 8).await, (vec![], 9, Some(GapCause::Live)));
    assert_eq!(after(&store, head, 9).await, (vec![], 9, None));
    store.close().await;

    let store = open_in(&server, Mode::Latest).await;
    assert_eq!(after(&store, head, 8).await, (vec![], 9, retention));
    let head = put(&store, "aab").await;
    assert_eq!(after(&store, head, 9).await, (vec![11, 12], 9, None));
    assert_eq!(after(&store, head, 8).await, (vec![11, 12], 9, retention));
    let since = store.read(&topic("t"), ReadFrom::Since(0), ALL).await.unwrap();
    assert_eq!((since.start.offset, since.missing.map(|m| m.why)), (10, retention));
}

#[tokio::test]
async fn a_long_log_is_thinned_out_in_one_go_and_what_lies_beyond_is_told() {
    let server = RedisServer::start();
    let rule = |mode| vec![Rule { mode: Some(mode), messages: Some(20_000), ..Rule::new("t".parse().unwrap()) }];
    let store = open(&server.url(), RedisOptions { rules: rule(Mode::Log), ..options() }).await.unwrap();
    put(&store, "z").await;
    for _ in 0..11 {
        put(&store, &"ab".repeat(500)).await;
    }
    store.close().await;
    let store = open(&server.url(), RedisOptions { rules: rule(Mode::Latest), ..options() }).await.unwrap();
    let page = store.read(&topic("t"), ReadFrom::Last(u32::MAX), ALL).await.unwrap();
    let offsets: Vec<u64> = page.messages.iter().map(|m| m.at.offset).collect();
    assert_eq!((offsets, page.head.offset), (vec![11_000, 11_001], 11_001));
    let (_, start, why) = after(&store, page.head, 0).await;
    assert_eq!((start > 0, why), (true, Some(GapCause::Retention)), "the one message of z may have been the latest");
}

#[tokio::test]
async fn the_latest_message_expires_by_the_clock_of_redis() {
    let server = RedisServer::start();
    let store = open_in(&server, Mode::Latest).await;
    put(&store, "a").await;
    let mut brief = message("t", "brief");
    brief.publication.ttl = Some(Duration::from_millis(50));
    store.append(vec![brief]).await;
    let page = loop {
        let page = store.read(&topic("t"), ReadFrom::Last(10), ALL).await.unwrap();
        if page.messages.len() == 1 {
            break page;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((page.messages[0].at.offset, page.end.offset, page.head.offset), (1, 2, 2));
}

#[tokio::test]
async fn what_nobody_writes_any_more_leaves_no_key_behind() {
    let server = RedisServer::start();
    let rule = Rule { mode: Some(Mode::Latest), ..Rule::new("t".parse().unwrap()) };
    let store = open(&server.url(), RedisOptions { rules: vec![rule], ..options() }).await.unwrap();
    put(&store, "abc").await;
    let mut connection = server.connection();
    for key in ["log", "vals", "meta"] {
        let key = format!("fanfare:{{t{}}}:{key}:t", group_of(&mut connection));
        let ttl: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
        assert!(ttl > 0, "{key} has no end: {ttl}");
    }
}

fn group_of(connection: &mut redis::Connection) -> String {
    let keys: Vec<String> = redis::cmd("KEYS").arg("fanfare:*:vals:t").query(connection).unwrap();
    let (_, rest) = keys[0].split_once("{t").unwrap();
    rest.split_once('}').unwrap().0.to_string()
}

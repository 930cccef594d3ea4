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

#[tokio::test]
async fn times_never_descend_though_another_master_has_an_earlier_clock() {
    const AHEAD: u64 = 4_000_000_000_000;
    let minute = Duration::from_secs(60);
    for mode in Mode::ALL {
        let server = RedisServer::start();
        let store = open_in(&server, mode).await;
        let mut connection = server.connection();
        let mut ear = Ear::open(&store);
        ear.watch("t").await;
        let put = async |ttl: Option<Duration>| {
            // Two topics in one call, each with a time of its own.
            let mut batch = vec![message("t", "x"), message("other", "x")];
            batch[0].publication.ttl = ttl;
            let key = ttl.map_or("-".into(), |ttl| ttl.as_secs().to_string());
            batch[0].publication.key = Some(key.into());
            let answers = store.append(batch).await;
            let time = |n: usize| match answers[n] {
                Ok(Appended::Stored { time, .. }) => time,
                ref other => panic!("{other:?}"),
            };
            (time(0), time(1))
        };
        let first = put(None).await;
        assert_eq!(first.0, first.1);
        // As if the last message had come to a master whose clock is ahead of this one's.
        let keys: Vec<String> = redis::cmd("KEYS").arg("fanfare:*:meta:t").query(&mut connection).unwrap();
        redis::cmd("HSET").arg(&keys[0]).arg("new").arg(AHEAD).exec(&mut connection).unwrap();
        let (ahead, elsewhere) = put(Some(minute)).await;
        assert_eq!(ahead, AHEAD, "{mode:?}");
        assert!((first.1..AHEAD).contains(&elsewhere), "{elsewhere}");
        assert_eq!(put(Some(minute * 2)).await.0, AHEAD);
        let noted: u64 = redis::cmd("HGET").arg(&keys[0]).arg("new").query(&mut connection).unwrap();
        assert_eq!(noted, AHEAD);

        let since = async |time| store.read(&topic("t"), ReadFrom::Since(time), ALL).await.unwrap();
        for (time, from) in [(first.0, 1), (first.0 + 1, 2), (elsewhere, 2), (AHEAD, 2), (AHEAD + 1, 4)] {
            let page = since(time).await;
            if mode == Mode::Live {
                assert_eq!(page.missing.is_some(), from < 4, "since {time}");
                continue;
            }
            let told: Vec<(u64, u64)> = page.messages.iter().map(|m| (m.at.offset, m.time)).collect();
            let expected = [(1, first.0), (2, AHEAD), (3, AHEAD)];
            // Both may be of one millisecond.
            let from = if time == elsewhere && elsewhere == first.0 { 1 } else { from };
            assert_eq!((&told[..], page.missing), (&expected[from - 1..], None), "{mode:?} since {time}");
            let ends = page.messages.iter().filter_map(|m| m.expires);
            assert!(ends.into_iter().all(|ends| ends < AHEAD), "times to live stay on the clock of Redis");
        }
        let mut fed = Vec::new();
        while fed.len() < 3 {
            if let FeedEvent::Message(message) = ear.next().await {
                fed.push((message.time, message.expires.map(|ends| ends - message.time)));
            }
        }
        assert_eq!(fed, [(first.0, None), (AHEAD, Some(60_000)), (AHEAD, Some(120_000))]);
    }
}

fn group_of(connection: &mut redis::Connection) -> String {
    let keys: Vec<String> = redis::cmd("KEYS").arg("fanfare:*:vals:t").query(connection).unwrap();
    let (_, rest) = keys[0].split_once("{t").unwrap();
    rest.split_once('}').unwrap().0.to_string()
}

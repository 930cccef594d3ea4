//! What is bounded: memory, queues, times. Redis' clock cannot be moved, so times here are short and real.

use super::*;

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
async fn thousands_of_expired_messages_hide_none_that_is_kept() {
    let server = RedisServer::start();
    let retention = Retention { messages: 100_000, ..Retention::default() };
    let store = open(&server.url(), RedisOptions { retention, ..options() }).await.unwrap();
    let brief = || {
        let mut brief = message("news", "brief");
        brief.publication.ttl = Some(Duration::from_millis(1));
        brief
    };
    // More than the script looks at in one go.
    for _ in 0..25 {
        assert!(store.append((0..1000).map(|_| brief()).collect()).await.iter().all(Result::is_ok));
    }
    let last = put(&store, "news", "kept").await.unwrap();
    let start = Position::new(last.epoch, 0);
    let page = page_at_last(&store, "news", ReadFrom::After(start), |page| page.messages.len() == 1).await;
    assert_eq!((page.start, page.end, page.missing, page.is_last()), (start, last, None, true));
}

#[tokio::test]
async fn what_is_too_much_to_wait_is_refused_at_once() {
    let server = RedisServer::start();
    let bounds = RedisOptions { queue_messages: 100, response_timeout: Duration::from_secs(10), ..options() };
    let store = open(&server.url(), bounds).await.unwrap();
    server.pause();
    let accepted: Vec<_> = (0..10).map(|_| store.append(vec![message("news", "x"); 10])).collect();
    let refused = store.append(vec![message("news", "too much"); 10]).await;
    assert!(matches!(&refused[0], Err(StoreError::Unavailable(text)) if text.contains("100 messages")), "{refused:?}");
    server.resume();
    for outcomes in futures::future::join_all(accepted).await {
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }
    assert_eq!(put(&store, "news", "last").await.unwrap().offset, 101);
}

#[tokio::test]
async fn a_watched_topic_keeps_its_record() {
    let server = RedisServer::start();
    let brief = Duration::from_millis(600);
    let retention = Retention { age: brief, record: brief, ..Retention::default() };
    let store = open(&server.url(), RedisOptions { retention, ..options() }).await.unwrap();
    let head = put(&store, "news", "one").await.unwrap();
    put(&store, "other", "one").await.unwrap();
    let mut ear = Ear::open(&store);
    ear.watch("news").await;
    let mut connection = server.connection();
    let mut record = |topic: &str| -> i64 {
        let keys: Vec<String> = redis::cmd("KEYS").arg(format!("*:meta:{topic}")).query(&mut connection).unwrap();
        keys.first().map_or(-2, |key| redis::cmd("PTTL").arg(key).query(&mut connection).unwrap())
    };
    // The record of the topic that nobody watches goes; the other one stays on, though nobody writes or reads.
    let begun = Instant::now();
    while record("other") > -2 {
        assert!(begun.elapsed() < SOON);
        tokio::task::yield_now().await;
    }
    assert!(record("news") > 0);
    assert_eq!(page(&store, "news", ReadFrom::Last(0)).await.head, head);
}

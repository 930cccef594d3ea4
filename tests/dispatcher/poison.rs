//! Entries that cannot be used: each kind is kept with its reason and its bytes, and what follows it flows.

use fanfare::dispatcher::redis as queue;
use fanfare::domain::error::Reason;
use redis::Commands;

use crate::bad_entries::{BAD_ELEMENTS, bad_entries};
use crate::ingest::{House, data, letters, until};
use crate::server::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_bad_entry_is_kept_with_its_reason_and_what_follows_flows() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let dispatcher = house.bridge(&server.url()).await;
    let _: String =
        connection.xadd("fanfare:in", "*", &[("topic", "t"), ("data", "1"), ("idempotency_key", "k")]).unwrap();
    house.wait_for("t", &[&data("1")]).await;

    let kinds = bad_entries();
    let mut expected = Vec::new();
    for (n, (fields, reason, shows)) in kinds.iter().enumerate() {
        let mut add = redis::cmd("XADD");
        add.arg("fanfare:in").arg("*");
        for (name, value) in fields {
            add.arg(&name[..]).arg(&value[..]);
        }
        expected.push((add.query::<String>(&mut connection).unwrap(), *reason, *shows));
        let _: String = connection.xadd("fanfare:in", "*", &[("topic", "good"), ("data", &n.to_string())]).unwrap();
    }
    for (n, (text, ..)) in BAD_ELEMENTS.iter().enumerate() {
        let good = format!(r#"{{"topic":"good.list","data":{n}}}"#);
        let _: u64 = connection.rpush("fanfare:list", &[*text, good.as_bytes()]).unwrap();
    }
    let good: Vec<String> = (0..kinds.len()).map(|n| data(&n.to_string())).collect();
    house.wait_for("good", &good.iter().map(String::as_str).collect::<Vec<_>>()).await;
    house.wait_for_count("good.list", BAD_ELEMENTS.len()).await;
    let all = (kinds.len() + BAD_ELEMENTS.len()) as u64;
    until("all letters", || async { dispatcher.dead().count().await == Ok(all) }).await;

    let found = letters(&dispatcher).await;
    for ((entry, reason, shows), (fields, ..)) in expected.iter().zip(&kinds) {
        let letter = &found[entry];
        assert_eq!(letter.reason, *reason, "{}", letter.text);
        assert!(letter.text.contains(shows), "{shows}: {}", letter.text);
        let kept = fields.len().min(2_000);
        assert!(letter.fields == fields[..kept], "the bytes of {entry} are kept");
        assert_eq!(letter.source, "fanfare:in");
    }
    let mut listed: Vec<_> = found.values().filter(|letter| letter.source == "fanfare:list").collect();
    listed.sort_by_key(|letter| letter.id.clone());
    for (text, reason, shows) in BAD_ELEMENTS {
        let field = vec![(b"document".to_vec(), text.to_vec())];
        let letter = listed.iter().find(|letter| letter.fields == field).expect("it is kept");
        assert_eq!(letter.reason, reason, "{}", letter.text);
        assert!(letter.text.contains(shows), "{shows}: {}", letter.text);
    }
    assert_eq!(house.bodies("t").await.len(), 1);
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_listed_in_pages_retried_and_dropped() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let dispatcher = house.bridge(&server.url()).await;
    for n in 0..10 {
        let _: String = connection.xadd("fanfare:in", "*", &[("topic", "no good"), ("data", &n.to_string())]).unwrap();
        let _: u64 = connection.rpush("fanfare:list", format!("{{{n}")).unwrap();
    }
    until("all letters", || async { dispatcher.dead().count().await == Ok(20) }).await;
    let dead = dispatcher.dead();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = dead.list(after.as_deref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        seen.extend(page.into_iter().map(|letter| letter.id));
    }
    assert_eq!(seen.len(), 20);
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), 20, "no letter is listed twice");

    // A retried letter is read again: it fails again, and is a new letter.
    for id in &seen {
        assert_eq!(dead.retry(id).await, Ok(true), "{id}");
        assert_eq!(dead.retry(id).await, Ok(false), "{id}");
    }
    until("all letters anew", || async { dead.count().await == Ok(20) }).await;
    let anew = dead.list(None, 100).await.unwrap();
    assert!(anew.iter().all(|letter| !seen.contains(&letter.id)));
    for letter in &anew {
        assert_eq!(dead.discard(&letter.id).await, Ok(true));
    }
    for id in ["", "x", "1-1", "1-1@elsewhere", "1-1@fanfare:in"] {
        assert_eq!(dead.retry(id).await, Ok(false), "{id}");
        assert_eq!(dead.discard(id).await, Ok(false), "{id}");
    }
    assert_eq!(dead.count().await, Ok(0));
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_applies_what_can_be_used_meanwhile() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let small = |settings: &mut queue::Options| settings.entry_bytes = 100;
    let dispatcher = house.bridge_with(&server.url(), |settings, _| small(settings)).await;
    let text = format!("\"{}\"", "x".repeat(200));
    let _: String = connection.xadd("fanfare:in", "*", &[("topic", "t"), ("data", &text)]).unwrap();
    let _: u64 = connection.rpush("fanfare:list", format!(r#"{{"topic":"l","data":{text}}}"#)).unwrap();
    until("two letters", || async { dispatcher.dead().count().await == Ok(2) }).await;
    dispatcher.stop().await;
    let dispatcher = house.bridge(&server.url()).await;
    for letter in letters(&dispatcher).await.into_values() {
        assert_eq!(letter.reason, Reason::TooLarge);
        assert_eq!(dispatcher.dead().retry(&letter.id).await, Ok(true));
    }
    house.wait_for("t", &[&data(&text)]).await;
    house.wait_for("l", &[&data(&text)]).await;
    assert_eq!(dispatcher.dead().count().await, Ok(0));
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_bounded_and_the_oldest_go() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let dispatcher = house.bridge_with(&server.url(), |settings, _| settings.dead_letters = 5).await;
    for n in 0..20 {
        let _: String = connection.xadd("fanfare:in", "*", &[("topic", "no good"), ("data", &n.to_string())]).unwrap();
    }
    let _: String = connection.xadd("fanfare:in", "*", &[("topic", "t"), ("data", "1")]).unwrap();
    house.wait_for("t", &[&data("1")]).await;
    let newest = || async {
        let kept = dispatcher.dead().list(None, 100).await.unwrap();
        kept.iter().map(|letter| letter.fields[1].1.clone()).collect::<Vec<_>>()
            == (15..20).map(|n| n.to_string().into_bytes()).collect::<Vec<_>>()
    };
    until("the newest five", newest).await;
}

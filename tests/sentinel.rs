//! A Redis watched by sentinels: the store follows the master wherever it goes, and what a failover loses is told.

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/sentinel.rs"]
mod sentinel;
#[path = "support/redis.rs"]
mod server;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare::domain::position::Position;
use fanfare::domain::store::{Appended, FeedEvent, GapCause, ReadFrom, ReadLimit, Store, StoreError};
use fanfare::store::{Options, open};
use futures::StreamExt;
use sentinel::{DOWN_AFTER, Replicated};
use support::{item, stored, topic};
use tokio::task::block_in_place;
use tokio::time::timeout;

/// So soon must publishes be taken again, counted from the loss of the master.
const BACK: Duration = DOWN_AFTER.saturating_add(Duration::from_secs(10));
/// Longer than it should take; reaching it is a failure.
const SOON: Duration = Duration::from_secs(30);

async fn opened(set: &Replicated) -> Arc<dyn Store> {
    open(&set.url(), Options::default()).await.expect("the store opens").store
}

/// Appends until it is stored, and answers where; what may be stored or not is tried again too.
async fn stored_in_time(store: &Arc<dyn Store>, name: &str, since: Instant) -> Position {
    loop {
        match store.append(vec![item(&topic(name), "after")]).await.remove(0) {
            Ok(Appended::Stored { at, .. }) => return at,
            Err(StoreError::Unavailable(_) | StoreError::Unconfirmed(_)) if since.elapsed() < BACK => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => panic!("after {:?}: {other:?}", since.elapsed()),
        }
    }
}

/// The reader of a topic sees the end of one life and the beginning of the next.
async fn assert_new_life(store: &Arc<dyn Store>, before: Position, after: Position) {
    assert!(after.epoch != before.epoch, "{before} and {after}");
    let page = store.read(&topic("news"), ReadFrom::After(before), ReadLimit::default()).await.expect("it is there");
    let why = page.missing.expect("it is told").why;
    assert!(matches!(why, GapCause::Failover | GapCause::Epoch), "{why:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_left_for_the_next_and_its_return_changes_nothing() {
    let mut set = block_in_place(|| Replicated::start(1, &["--appendonly", "yes"]));
    let store = opened(&set).await;
    let before = stored(&store.append(vec![item(&topic("news"), "before")]).await[0]);
    let (watch, mut events) = store.feed();
    watch.watch(&topic("news"));
    assert!(matches!(timeout(SOON, events.next()).await, Ok(Some(FeedEvent::Watching(_)))));

    block_in_place(|| set.servers[0].redis.kill());
    let after = stored_in_time(&store, "news", Instant::now()).await;
    assert_new_life(&store, before, after).await;
    let mut told = Vec::new();
    while !matches!(told.last(), Some(FeedEvent::Restored)) {
        told.push(timeout(SOON, events.next()).await.expect("the feed comes back").expect("it goes on"));
    }
    assert!(matches!(told[..], [FeedEvent::Interrupted, .., FeedEvent::Restored]), "{told:?}");

    // It comes back as the master that it was, and is made a replica.
    block_in_place(|| {
        set.servers[0].redis.restart();
        set.until_replica(0);
    });
    let last = stored_in_time(&store, "news", Instant::now()).await;
    assert_eq!((last.epoch, last.offset > after.offset), (after.epoch, true));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_only_clients_still_reach_is_left_when_the_sentinels_name_another() {
    let set = block_in_place(|| Replicated::start(1, &["--appendonly", "no"]));
    let store = opened(&set).await;
    let before = stored(&store.append(vec![item(&topic("news"), "before")]).await[0]);
    block_in_place(|| set.servers[0].isolate());
    let isolated = Instant::now();
    // It takes everything, and goes on to do so.
    let (mut before, mut last) = (before, before);
    while last.epoch == before.epoch {
        before = last;
        assert!(isolated.elapsed() < BACK, "still at the old master");
        last = stored_in_time(&store, "news", isolated).await;
    }
    assert_new_life(&store, before, last).await;
    assert_eq!(set.servers[0].role(), "master", "nobody has told it");

    // Once it can be told, it is a replica, and what only it had is gone.
    block_in_place(|| {
        set.servers[0].heal();
        set.until_replica(0);
    });
    let next = stored_in_time(&store, "news", Instant::now()).await;
    assert_eq!(next.epoch, last.epoch);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_gives_its_place_up_is_followed_at_once() {
    let mut set = block_in_place(|| Replicated::start(1, &["--appendonly", "no"]));
    let store = opened(&set).await;
    let before = stored(&store.append(vec![item(&topic("news"), "before")]).await[0]);
    // Two sentinels are enough, whichever the URL names first.
    set.kill_sentinel(0);
    block_in_place(|| set.fail_over());
    let begun = Instant::now();
    let (mut before, mut last) = (before, before);
    while last.epoch == before.epoch {
        before = last;
        assert!(begun.elapsed() < SOON, "still the old life");
        last = stored_in_time(&store, "news", Instant::now()).await;
    }
    assert_new_life(&store, before, last).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sentinels_cannot_tell_is_told_at_the_start() {
    let set = block_in_place(|| Replicated::start(0, &["--appendonly", "no"]));
    let error =
        |url: String| async move { open(&url, Options::default()).await.err().expect("it cannot open").to_string() };
    let text = error(set.url().replace("/main", "/other")).await;
    assert!(text.contains("No such master") || text.contains("knows no master"), "{text}");
    let direct = format!("redis+sentinel://127.0.0.1:{}/main", set.servers[0].port());
    let text = error(direct).await;
    assert!(text.contains("SENTINEL") || text.contains("is it a sentinel"), "{text}");
}

//! What is particular to the Redis store: outages, restarts, lost scripts, settings. The contract itself is held by
//! `store_conformance.rs`.

#[path = "redis_store/bounds.rs"]
mod bounds;
#[path = "redis_store/fences.rs"]
mod fences;
#[path = "redis_store/levels.rs"]
mod levels;
#[path = "redis_store/modes.rs"]
mod modes;
#[path = "redis_store/outages.rs"]
mod outages;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "redis_store/scripts.rs"]
mod scripts;
#[path = "support/redis.rs"]
mod server;
#[path = "redis_store/settings.rs"]
mod settings;
#[path = "support/mod.rs"]
mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fanfare::domain::message::Durability;
use fanfare::domain::position::Position;
use fanfare::domain::store::*;
use fanfare::store::redis::{OpenError, RedisOptions, RedisStore, open};
use futures::StreamExt;
use futures::stream::BoxStream;
use server::RedisServer;
use support::topic;

/// Longer than anything here should take; reaching it is a failure.
const SOON: Duration = Duration::from_secs(20);

fn message(name: &str, body: &str) -> Append {
    support::item(&topic(name), body.to_owned())
}

fn keyed(name: &str, body: &str) -> Append {
    let mut append = message(name, body);
    append.publication.idempotency_key = Some(body.into());
    append
}

/// Impatient, so that tests are quick.
fn options() -> RedisOptions {
    RedisOptions {
        response_timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(1),
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
        Appended::Stored { at, .. } | Appended::Repeated { at, .. } => Ok(at),
        Appended::Skipped => panic!("no fence was given"),
    }
}

/// Puts until it is taken: the store comes back by itself.
async fn put_at_last(store: &RedisStore, name: &str, body: &str) -> Position {
    let begun = Instant::now();
    loop {
        match store.append(vec![keyed(name, body)]).await.remove(0) {
            Ok(Appended::Stored { at, .. } | Appended::Repeated { at, .. }) => return at,
            other => assert!(begun.elapsed() < SOON, "{other:?}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Reads a page; on a busy machine an impatient store may have to come back first.
async fn page(store: &RedisStore, name: &str, from: ReadFrom) -> Page {
    let begun = Instant::now();
    loop {
        match store.read(&topic(name), from, ReadLimit::default()).await {
            Ok(page) => return page,
            Err(error) => assert!(matches!(error, StoreError::Unavailable(_)) && begun.elapsed() < SOON, "{error}"),
        }
        tokio::task::yield_now().await;
    }
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

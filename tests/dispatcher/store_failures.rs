//! A store that fails now and then, in the ways its contract allows: the order stays, and nothing is lost or repeated.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fanfare::domain::dead::DeadLetters;
use fanfare::domain::error::Reason;
use fanfare::domain::name::Topic;
use fanfare::domain::store::{
    Append, Appended, FeedEvent, Page, ReadFrom, ReadLimit, Store, StoreError, StoreStatus, Watch,
};
use fanfare::domain::topic::TopicSettings;
use fanfare::hub::Hub;
use fanfare::store;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use redis::Commands;

use crate::ingest::{House, data, letters, until};
use crate::server::RedisServer;

type Judge = dyn Fn(&Append) -> Option<StoreError> + Send + Sync;

/// The embedded store, with failures put in front of it as the contract has them: what follows a failed entry in its
/// topic fails too.
struct Failing {
    keeps_the_contract: bool,
    inner: Arc<dyn Store>,
    judge: Box<Judge>,
}

impl Store for Failing {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'static, Vec<Result<Appended, StoreError>>> {
        let (mut taken, mut failed) = (Vec::new(), HashSet::new());
        let answers: Vec<Option<StoreError>> = batch
            .into_iter()
            .map(|item| {
                let topic = item.publication.topic.clone();
                let error = match failed.contains(&topic) && self.keeps_the_contract {
                    true => Some(StoreError::Unavailable("one before it failed".into())),
                    false => (self.judge)(&item),
                };
                match &error {
                    Some(_) => drop(failed.insert(topic)),
                    None => taken.push(item),
                }
                error
            })
            .collect();
        let stored = self.inner.append(taken);
        async move {
            let mut stored = stored.await.into_iter();
            answers.into_iter().map(|error| error.map_or_else(|| stored.next().unwrap(), Err)).collect()
        }
        .boxed()
    }

    fn read(&self, topic: &Topic, from: ReadFrom, limit: ReadLimit) -> BoxFuture<'static, Result<Page, StoreError>> {
        self.inner.read(topic, from, limit)
    }

    fn feed(&self) -> (Box<dyn Watch>, BoxStream<'static, FeedEvent>) {
        self.inner.feed()
    }

    fn settings(&self, topic: &Topic) -> TopicSettings {
        self.inner.settings(topic)
    }

    fn status(&self) -> StoreStatus {
        self.inner.status()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.inner.close()
    }
}

async fn house(judge: impl Fn(&Append) -> Option<StoreError> + Send + Sync + 'static) -> House {
    let opened = store::open("memory", store::Options::default()).await.unwrap();
    let store = Arc::new(Failing { inner: opened.store, judge: Box::new(judge), keeps_the_contract: true });
    House { hub: Hub::new(store), dead: opened.embedded_dead }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_applied_later_and_in_order() {
    let tries = AtomicU64::new(0);
    let house = house(move |_| match tries.fetch_add(1, Ordering::Relaxed) % 97 {
        13 => Some(StoreError::Unavailable("away".into())),
        40 => Some(StoreError::Unconfirmed("perhaps".into())),
        77 => Some(StoreError::Full("full".into())),
        _ => None,
    })
    .await;
    let server = RedisServer::start();
    let mut connection = server.connection();
    for n in 0..600 {
        let topic = format!("t{}", n % 5);
        // A dead letter in between holds nothing up.
        let topic = if n % 50 == 49 { "no good".to_owned() } else { topic };
        let _: String = connection.xadd("fanfare:in", "*", &[("topic", topic), ("data", n.to_string())]).unwrap();
    }
    let dispatcher = house.bridge_with(&server.url(), |_, options| options.batch = 40).await;
    for topic in 0..5 {
        let expected: Vec<String> =
            (0..600).filter(|n| n % 5 == topic && n % 50 != 49).map(|n| data(&n.to_string())).collect();
        house.wait_for(&format!("t{topic}"), &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    until("the letters", || async { dispatcher.dead().count().await == Ok(12) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_only_breaks_the_store_is_given_up_and_the_partition_goes_on() {
    let house = house(|item| {
        let broken = item.publication.body.as_bytes().windows(6).any(|part| part == b"poison");
        broken.then(|| StoreError::Broken("no such column".into()))
    })
    .await;
    let server = RedisServer::start();
    let mut connection = server.connection();
    for (topic, json) in [("a", "1"), ("a", "\"poison\""), ("a", "2"), ("b", "3")] {
        let _: String = connection.xadd("fanfare:in", "*", &[("topic", topic), ("data", json)]).unwrap();
    }
    let dispatcher = house.bridge(&server.url()).await;
    house.wait_for("a", &[&data("1"), &data("2")]).await;
    house.wait_for("b", &[&data("3")]).await;
    until("the letter", || async { dispatcher.dead().count().await == Ok(1) }).await;
    let letter = letters(&dispatcher).await.into_values().next().unwrap();
    assert_eq!((letter.reason, letter.fields[1].1.as_slice()), (Reason::Internal, &b"\"poison\""[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_panics_is_a_store_that_failed() {
    let panics = Mutex::new(3);
    let house = house(move |_| {
        let mut left = panics.lock().unwrap_or_else(|p| p.into_inner());
        if *left > 0 {
            *left -= 1;
            panic!("the store breaks down, as this test asks");
        }
        None
    })
    .await;
    let server = RedisServer::start();
    let mut connection = server.connection();
    for n in 0..3 {
        let _: String = connection.xadd("fanfare:in", "*", &[("topic", "t"), ("data", &n.to_string())]).unwrap();
    }
    let dispatcher = house.bridge(&server.url()).await;
    house.wait_for("t", &[&data("0"), &data("1"), &data("2")]).await;
    let dead: Arc<dyn DeadLetters> = dispatcher.dead();
    assert_eq!(dead.count().await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_a_store_let_others_pass_is_kept_and_can_be_retried() {
    let opened = store::open("memory", store::Options::default()).await.unwrap();
    let tries = AtomicU64::new(0);
    let judge = Box::new(move |_: &Append| match tries.fetch_add(1, Ordering::Relaxed) {
        1 => Some(StoreError::Unavailable("away for a moment".into())),
        _ => None,
    });
    let store = Arc::new(Failing { inner: opened.store, judge, keeps_the_contract: false });
    let house = House { hub: Hub::new(store), dead: opened.embedded_dead };
    let server = RedisServer::start();
    let mut connection = server.connection();
    for n in 0..4 {
        let _: String = connection.xadd("fanfare:in", "*", &[("topic", "t"), ("data", &n.to_string())]).unwrap();
    }
    let dispatcher = house.bridge(&server.url()).await;
    house.wait_for("t", &[&data("0"), &data("2"), &data("3")]).await;
    until("the letter", || async { dispatcher.dead().count().await == Ok(1) }).await;
    let letter = letters(&dispatcher).await.into_values().next().unwrap();
    assert!(letter.text.contains("a later entry of the topic t"), "{}", letter.text);
    assert_eq!(dispatcher.dead().retry(&letter.id).await, Ok(true));
    house.wait_for("t", &[&data("0"), &data("2"), &data("3"), &data("1")]).await;
}

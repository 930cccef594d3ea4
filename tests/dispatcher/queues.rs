//! Entries with a queue: jobs once and in order, beside messages, whatever the queue says to them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare::domain::error::Reason;
use fanfare::domain::queue::{
    Change, How, Mark, Place, Put, PutAnswer, Queue, QueueKeeper, QueueSettings, Queues, Settle, Settled, Swept, Take,
    Taken, Wake, WatchQueues,
};
use fanfare::domain::store::StoreError;
use fanfare::store;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use redis::Commands;

use crate::ingest::{House, data, letters, until};
use crate::rpush;
use crate::server::RedisServer;

fn put(connection: &mut redis::Connection, fields: &[(&str, &str)]) {
    let _: String = connection.xadd("fanfare:in", "*", fields).unwrap();
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| data(&n.to_string())).collect()
}

fn queue(name: &str) -> Queue {
    Queue::parse(name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_the_stream_and_of_the_list_are_put_in_order_beside_messages() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let dispatcher = house.bridge(&server.url()).await;
    for n in 0..500 {
        let n = n.to_string();
        put(&mut connection, &[("queue", "jobs"), ("data", &n)]);
        put(&mut connection, &[("topic", "jobs"), ("data", &n)]);
        rpush(&mut connection, &format!(r#"{{"queue":"jobs.list","data":{n}}}"#));
    }
    house.wait_for_jobs("jobs", &numbers(0..500)).await;
    house.wait_for_jobs("jobs.list", &numbers(0..500)).await;
    house.wait_for_count("jobs", 500).await;
    assert_eq!(house.bodies("jobs").await, numbers(0..500));
    until("no lag", || async { dispatcher.status().iter().all(|s| s.owner && s.lag_entries == 0) }).await;
    assert_eq!(dispatcher.dead().count().await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_says_all_that_a_job_can_be_put_with() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let _dispatcher = house.bridge(&server.url()).await;
    put(&mut connection, &[("queue", "q"), ("data", "1"), ("priority", "2")]);
    put(&mut connection, &[("queue", "q"), ("data", "2"), ("group", "g"), ("dedupe", "k"), ("ttl", "3600")]);
    put(&mut connection, &[("queue", "q"), ("data", "3"), ("group", "g"), ("dedupe", "k"), ("dedupe_window", "60")]);
    put(&mut connection, &[("queue", "q"), ("data", "4"), ("group", "g")]);
    rpush(&mut connection, r#"{"queue":"q","data":5,"deliver_at":"2999-01-01T00:00:00Z"}"#);
    rpush(&mut connection, r#"{"queue":"q","data":6,"delay":3600,"priority":9}"#);
    rpush(&mut connection, r#"{"queue":"q","text":"안녕","name":"n","deliver_at":"2001-01-01T00:00:00Z"}"#);
    let admin = house.hub.queues().unwrap().keeper().admin.clone();
    let look = |place| {
        let admin = admin.clone();
        async move { admin.look(&queue("q"), place, 0, 100).await.unwrap() }
    };
    until("all of them", || async { look(Place::Ready).await.len() == 3 && look(Place::Parked).await.len() == 1 })
        .await;
    let bodies = house.jobs("q").await;
    // The list and the stream are two doors: which comes first is not said.
    assert_eq!(bodies[2], data("1"), "the lowest priority comes last: {bodies:?}");
    assert!(bodies.contains(&"\"ttl\":3600,\"data\":2".into()), "{bodies:?}");
    assert!(bodies.contains(&"\"name\":\"n\",\"data\":\"안녕\"".into()), "{bodies:?}");
    assert_eq!(look(Place::Parked).await[0].body.as_bytes(), data("4").as_bytes(), "the same key was the same job");
    until("the delayed one", || async { look(Place::Delayed).await.len() == 1 }).await;
    assert_eq!(look(Place::Delayed).await[0].priority.level(), 9);
    // The year 2999 lies too far ahead.
    until("the letter", || async { _dispatcher.dead().count().await == Ok(1) }).await;
    let letter = letters(&_dispatcher).await.into_values().next().unwrap();
    assert!(letter.reason == Reason::BadFrame && letter.text.contains("365 days"), "{}", letter.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_queue_refuses_for_good_is_kept_with_its_reason_and_what_follows_is_put() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let mut connection = server.connection();
    let dispatcher = house.bridge(&server.url()).await;
    let (admin, queue) = (house.hub.queues().unwrap().keeper().admin.clone(), Queue::parse("q").unwrap());
    let settings = QueueSettings { max_bytes: 1024, ..QueueSettings::default() };
    admin.change(&queue, Change::Settings(Some(Box::new(settings)))).await.unwrap();
    put(&mut connection, &[("queue", "q"), ("data", &format!("\"{}\"", "x".repeat(1025)))]);
    put(&mut connection, &[("queue", "q"), ("data", "1"), ("idempotency_key", "k")]);
    put(&mut connection, &[("queue", "q"), ("data", "2"), ("idempotency_key", "k")]);
    put(&mut connection, &[("queue", "q"), ("data", "3"), ("durability", "replica")]);
    put(&mut connection, &[("queue", "q"), ("data", "4")]);
    house.wait_for_jobs("q", &[data("1"), data("4")]).await;
    until("the letters", || async { dispatcher.dead().count().await == Ok(3) }).await;
    let mut reasons: Vec<Reason> = letters(&dispatcher).await.into_values().map(|letter| letter.reason).collect();
    reasons.sort();
    assert_eq!(reasons, [Reason::Forbidden, Reason::TooLarge, Reason::Conflict]);
}

/// A keeper that refuses some puts for now, as its contract has it: what follows a failed entry in its queue fails too.
struct Failing {
    inner: Arc<dyn Queues>,
    tries: AtomicU64,
}

impl Queues for Failing {
    fn put(&self, batch: Vec<Put>) -> BoxFuture<'static, Vec<Result<PutAnswer, StoreError>>> {
        let (mut taken, mut failed) = (Vec::new(), HashSet::new());
        let errors: Vec<Option<StoreError>> = batch
            .into_iter()
            .map(|put| {
                let error = match self.tries.fetch_add(1, Ordering::Relaxed) % 97 {
                    _ if failed.contains(&put.queue) => Some(StoreError::Unavailable("one before it failed".into())),
                    13 => Some(StoreError::Unavailable("away".into())),
                    40 => Some(StoreError::Unconfirmed("perhaps".into())),
                    77 => Some(StoreError::Full("full".into())),
                    _ => None,
                };
                match &error {
                    Some(_) => drop(failed.insert(put.queue.clone())),
                    None => taken.push(put),
                }
                error
            })
            .collect();
        let put = self.inner.put(taken);
        async move {
            let mut put = put.await.into_iter();
            errors.into_iter().map(|error| error.map_or_else(|| put.next().unwrap(), Err)).collect()
        }
        .boxed()
    }

    fn take(&self, queue: &Queue, take: Take) -> BoxFuture<'static, Result<Taken, StoreError>> {
        self.inner.take(queue, take)
    }

    fn settle(&self, queue: &Queue, batch: Vec<Settle>) -> BoxFuture<'static, Vec<Result<Settled, StoreError>>> {
        self.inner.settle(queue, batch)
    }

    fn sweep(&self, queue: &Queue) -> BoxFuture<'static, Result<Swept, StoreError>> {
        self.inner.sweep(queue)
    }

    fn mark(&self, queue: &Queue, source: &str) -> BoxFuture<'static, Result<Option<Mark>, StoreError>> {
        self.inner.mark(queue, source)
    }

    fn settings(&self, queue: &Queue) -> BoxFuture<'static, Result<QueueSettings, StoreError>> {
        self.inner.settings(queue)
    }

    fn wakes(&self) -> (Box<dyn WatchQueues>, BoxStream<'static, Wake>) {
        self.inner.wakes()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_queue_refuses_for_now_is_put_later_and_in_order() {
    let mut opened = store::open("memory", store::Options::default()).await.unwrap();
    let QueueKeeper { queues, admin } = opened.queues.take().unwrap();
    let queues = Arc::new(Failing { inner: queues, tries: AtomicU64::new(0) });
    let house = House::of(store::Opened { queues: Some(QueueKeeper { queues, admin }), ..opened });
    let server = RedisServer::start();
    let mut connection = server.connection();
    for n in 0..600 {
        // Messages and dead letters in between hold nothing up.
        let goal = match n % 50 {
            48 => ("topic", "t".to_owned()),
            49 => ("queue", "no good".to_owned()),
            _ => ("queue", format!("q{}", n % 5)),
        };
        put(&mut connection, &[(goal.0, &goal.1), ("data", &n.to_string())]);
    }
    let dispatcher = house.bridge_with(&server.url(), |_, options| options.batch = 40).await;
    for q in 0..5 {
        let mine = (0..600).filter(|n| n % 5 == q && n % 50 < 48);
        let expected: Vec<String> = mine.map(|n| data(&n.to_string())).collect();
        house.wait_for_jobs(&format!("q{q}"), &expected).await;
    }
    house.wait_for_count("t", 12).await;
    until("the letters", || async { dispatcher.dead().count().await == Ok(12) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_holds_its_entries_up_until_there_is_room_and_loses_none() {
    let (server, house) = (RedisServer::start(), House::memory().await);
    let desk = house.hub.queues().unwrap().clone();
    let settings = Box::new(QueueSettings { max_messages: 3, ..QueueSettings::default() });
    desk.keeper().admin.change(&queue("q"), Change::Settings(Some(settings))).await.unwrap();
    let mut connection = server.connection();
    for n in 0..6 {
        put(&mut connection, &[("queue", "q"), ("data", &n.to_string())]);
    }
    put(&mut connection, &[("topic", "t"), ("data", "1")]);
    let dispatcher = house.bridge(&server.url()).await;
    // A message that was read with them is given out all the same.
    house.wait_for("t", &[&data("1")]).await;
    let is_told =
        || async { dispatcher.status().iter().any(|s| s.trouble.as_deref().is_some_and(|t| t.contains("full"))) };
    until("the trouble", is_told).await;
    assert_eq!(house.jobs("q").await, numbers(0..3));
    let take = Take { worker: "w".into(), count: 3, bytes: 1 << 20, lease: None, token: 7 };
    let taken = desk.keeper().queues.take(&queue("q"), take).await.unwrap();
    let acks = taken.jobs.iter().map(|job| Settle { job: job.id, token: job.token, how: How::Ack });
    assert!(
        desk.keeper().queues.settle(&queue("q"), acks.collect()).await.iter().all(|done| *done == Ok(Settled::Done))
    );
    house.wait_for_jobs("q", &numbers(3..6)).await;
    assert_eq!(house.bodies("t").await, [data("1")]);
    assert_eq!(dispatcher.dead().count().await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_went_with_a_life_of_the_store_are_put_again() {
    let (mut store, ingest) = (RedisServer::start(), RedisServer::start());
    let house = House::over(&store.url()).await;
    let mut connection = ingest.connection();
    let dispatcher = house.bridge(&ingest.url()).await;
    for n in 0..50 {
        put(&mut connection, &[("queue", "q"), ("data", &n.to_string())]);
    }
    house.wait_for_jobs("q", &numbers(0..50)).await;
    until("all is committed", || async { dispatcher.status().iter().all(|s| s.owner && s.lag_entries == 0) }).await;
    store.restart_empty();
    for n in 50..60 {
        put(&mut connection, &[("queue", "q"), ("data", &n.to_string())]);
    }
    let look = |house: &House| {
        let admin = house.hub.queues().unwrap().keeper().admin.clone();
        async move { admin.look(&queue("q"), Place::Ready, 0, 1_000).await.map_or(0, |seen| seen.len()) }
    };
    tokio::time::timeout(Duration::from_secs(60), until("all again", || async { look(&house).await >= 60 }))
        .await
        .unwrap();
    assert_eq!(house.jobs("q").await, numbers(0..60), "each once, in order");
}

//! The ways of a job through Redis, short and long.

use fanfare::domain::store::{EntryId, Fence};
use redis::Commands;

use super::*;

#[tokio::test]
async fn jobs_are_taken_by_priority_and_number_and_are_gone_once_acknowledged() {
    let server = RedisServer::start();
    let keeper = keeper(&server.url(), Options::default()).await;
    for (text, level) in [("a", 4), ("b", 9), ("c", 0), ("d", 9)] {
        let priority = Priority::new(level).unwrap();
        keeper.put(Put { priority, ..job("jobs", text) }).await.unwrap();
    }
    let taken = keeper.take("jobs", 3).await;
    assert_eq!((texts(&taken), taken.more), (vec!["b".into(), "d".into(), "a".to_string()], true));
    assert_eq!(keeper.settle("jobs", &taken.jobs[0], How::Ack).await, Ok(Settled::Done));
    assert_eq!(keeper.settle("jobs", &taken.jobs[0], How::Ack).await, Ok(Settled::Gone));
    let nack = How::Nack { delay: Some(Duration::ZERO), error: Some("no".into()) };
    assert_eq!(keeper.settle("jobs", &taken.jobs[2], nack).await, Ok(Settled::Done));
    assert_eq!(keeper.settle("jobs", &taken.jobs[2], How::Ack).await, Ok(Settled::NoLease));
    let again = keeper.take("jobs", 10).await;
    assert_eq!(texts(&again), ["a", "c"]);
    assert_eq!((again.jobs[0].tries, again.jobs[0].id), (2, taken.jobs[2].id));
    let seen = keeper.queues.admin.find(&queue("jobs"), again.jobs[0].id).await.unwrap().unwrap();
    assert_eq!((seen.place, seen.tries, seen.attempts.len()), (Place::InFlight, 2, 1));
    assert_eq!(seen.attempts[0].error.as_deref(), Some("no"));
    let stats = keeper.stats("jobs").await;
    assert_eq!((stats.in_flight, stats.bytes, stats.totals.put, stats.totals.acked), (3, 3, 4, 1));
    let term = How::Term { error: None };
    assert_eq!(keeper.settle("jobs", &again.jobs[0], term).await, Ok(Settled::Dead));
    let dead = keeper.queues.admin.look(&queue("jobs"), Place::Dead, 0, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].death), (1, Some(Death::Term)));
    assert_eq!(keeper.change("jobs", Change::Redrive { jobs: None, cause: None, limit: 5 }).await, Ok(1));
    assert_eq!(texts(&keeper.take("jobs", 10).await), ["a"]);
    assert_eq!(keeper.queues.admin.list(None, 10).await.unwrap(), [queue("jobs")]);
    assert_eq!(keeper.change("jobs", Change::Delete).await, Ok(1));
    assert_eq!(keeper.queues.admin.list(None, 10).await.unwrap(), []);
    keeper.opened.store.close().await;
    assert!(matches!(keeper.put(job("jobs", "late")).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_queue_that_another_node_deleted_is_listed_again_when_it_begins_by_its_settings() {
    let server = RedisServer::start();
    let one = keeper(&server.url(), Options::default()).await;
    let other = keeper(&server.url(), Options::default()).await;
    let settings = || Change::Settings(Some(Box::default()));
    one.change("jobs", settings()).await.unwrap();
    other.change("jobs", Change::Delete).await.unwrap();
    assert_eq!(one.queues.admin.list(None, 10).await.unwrap(), []);
    one.change("jobs", settings()).await.unwrap();
    let listed = async { while one.queues.admin.list(None, 10).await.unwrap() != [queue("jobs")] {} };
    tokio::time::timeout(Duration::from_secs(10), listed).await.expect("it is listed");
}

#[tokio::test]
async fn a_group_has_one_job_out_at_a_time() {
    let server = RedisServer::start();
    let keeper = keeper(&server.url(), Options::default()).await;
    for text in ["a1", "a2", "b1"] {
        keeper.put(Put { group: Some(text[..1].into()), ..job("jobs", text) }).await.unwrap();
    }
    let taken = keeper.take("jobs", 10).await;
    assert_eq!(texts(&taken), ["a1", "b1"]);
    assert_eq!(keeper.stats("jobs").await.parked, 1);
    keeper.settle("jobs", &taken.jobs[0], How::Ack).await.unwrap();
    assert_eq!(texts(&keeper.take("jobs", 10).await), ["a2"]);
}

#[tokio::test]
async fn settings_that_are_stored_hold_at_every_node_at_once() {
    let server = RedisServer::start();
    let one = keeper(&server.url(), Options::default()).await;
    let other = keeper(&server.url(), Options::default()).await;
    one.put(job("jobs", "a")).await.unwrap();
    let own = QueueSettings { max_messages: 1, ..QueueSettings::default() };
    assert_eq!(one.change("jobs", Change::Settings(Some(Box::new(own.clone())))).await, Ok(1));
    assert!(matches!(other.put(job("jobs", "b")).await, Err(StoreError::Full(_))));
    assert_eq!(other.queues.queues.settings(&queue("jobs")).await, Ok(own));
    assert_eq!(other.change("jobs", Change::Settings(None)).await, Ok(1));
    assert!(one.put(job("jobs", "c")).await.is_ok());
    assert_eq!(one.queues.queues.settings(&queue("jobs")).await, Ok(QueueSettings::default()));
}

/// Each day is a day less that `idle` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_holds_nothing_for_long_is_forgotten_but_for_what_is_bound() {
    let server = RedisServer::start();
    let keeper = keeper(&server.url(), Options { replicas: 0, ..Options::default() }).await;
    let mut hand = server.connection();
    let fence = Fence::new("topic:news", "e1", EntryId { ms: 7, seq: 0 });
    let bound = || Put { fence: Some(fence.clone()), ..job("bound", "\"data\":1") };
    for put in [job("idle", "\"data\":1"), job("full", "\"data\":1"), job("used", "\"data\":1"), bound()] {
        keeper.put(put).await.unwrap();
    }
    keeper.change("own", Change::Settings(Some(Box::default()))).await.unwrap();
    for name in ["idle", "used", "bound"] {
        keeper.change(name, Change::Purge(None)).await.unwrap();
    }
    let all = ["bound", "full", "idle", "own", "used"];
    let mut day = async |name: &str, used: bool| {
        if used {
            keeper.put(job("used", "\"data\":2")).await.unwrap();
            keeper.change("used", Change::Purge(None)).await.unwrap();
        }
        keeper.queues.queues.sweep(&queue(name)).await.unwrap();
        let key = format!("fanfare:{{q:{name}}}:st");
        let idle: Option<String> = hand.hget(&key, "idle").unwrap();
        if let Some((time, rest)) = idle.as_deref().and_then(|idle| idle.split_once(' ')) {
            let time = time.parse::<u64>().unwrap() - 24 * 3600 * 1000;
            let _: u64 = hand.hset(&key, "idle", format!("{time} {rest}")).unwrap();
        }
    };
    for name in all {
        day(name, name == "used").await;
    }
    for name in all {
        day(name, name == "used").await;
    }
    let listed = keeper.queues.admin.list(None, 9).await.unwrap();
    assert_eq!(listed, ["bound", "full", "own", "used"].map(queue));
    let names: Vec<String> = server.connection().zrange("fanfare:queues", 0, -1).unwrap();
    assert_eq!(names, ["bound", "full", "own", "used"], "the list of names goes with it");
    let left: Vec<String> = server.connection().keys("fanfare:{q:idle}:*").unwrap();
    assert_eq!(left, Vec::<String>::new());
    // It begins anew, and what was bound stays bound once.
    keeper.put(job("idle", "\"data\":2")).await.unwrap();
    assert_eq!(keeper.stats("idle").await.totals.put, 1);
    assert_eq!(keeper.queues.queues.put(vec![bound()]).await, [Ok(PutAnswer::Skipped)]);
}

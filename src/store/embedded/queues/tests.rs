//! What cannot be seen through the contract: what is left of queues after a restart, a backup, an older format, a
//! transaction that failed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::domain::message::Body;
use crate::domain::queue::*;
use crate::domain::store::{EntryId, Fence, Store, StoreError};
use crate::store::embedded::{Ends, back_up, open_in_memory, open_on_disk, restore};
use crate::store::{Clock, Options};

fn jobs() -> Queue {
    Queue::parse("jobs").unwrap()
}

fn job(text: &str) -> Put {
    Put::new(jobs(), Body::from_canonical(Bytes::copy_from_slice(text.as_bytes())))
}

fn settings() -> QueueSettings {
    QueueSettings { lease: Duration::from_secs(600), max_deliveries: 2, backoff: vec![], ..QueueSettings::default() }
}

fn options() -> Options {
    Options { queues: QueueRules { defaults: settings(), rules: vec![] }, ..Options::default() }
}

async fn put(ends: &Ends, put: Put) -> Result<PutAnswer, StoreError> {
    ends.queues.queues.put(vec![put]).await.pop().unwrap()
}

async fn take(ends: &Ends, count: usize) -> Vec<Job> {
    let take = Take { worker: "w".into(), count, bytes: 1 << 20, lease: None, token: 7 };
    ends.queues.queues.take(&jobs(), take).await.unwrap().jobs
}

async fn settle(ends: &Ends, job: &Job, how: How) -> Settled {
    let settle = Settle { job: job.id, token: job.token, how };
    ends.queues.queues.settle(&jobs(), vec![settle]).await.pop().unwrap().unwrap()
}

async fn change(ends: &Ends, change: Change) -> u64 {
    ends.queues.admin.change(&jobs(), change).await.unwrap()
}

async fn stats(ends: &Ends) -> Stats {
    ends.queues.admin.stats(&jobs()).await.unwrap().unwrap()
}

/// All jobs, in the orders of their places.
async fn all(ends: &Ends) -> Vec<Seen> {
    let mut all = Vec::new();
    for place in [Place::Ready, Place::Parked, Place::Delayed, Place::InFlight, Place::Dead] {
        all.extend(ends.queues.admin.look(&jobs(), place, 0, 1000).await.unwrap());
    }
    all
}

/// One job in each place, with all that can be remembered of a queue.
async fn fill(ends: &Ends) {
    let grouped = || Put { group: Some("g".into()), ..job("grouped") };
    let delayed = Put { due: Due::After(Duration::from_secs(600)), ..job("delayed") };
    let keyed = Put { idempotency_key: Some("k".into()), ttl: Some(Duration::from_secs(600)), ..job("keyed") };
    let fenced = Put { fence: Some(Fence::new("in", "life", EntryId { ms: 5, seq: 1 })), ..job("fenced") };
    let batch = vec![job("dies"), job("flies"), grouped(), grouped(), delayed, keyed, fenced];
    assert!(ends.queues.queues.put(batch).await.iter().all(Result::is_ok));
    let taken = take(ends, 2).await;
    settle(ends, &taken[0], How::Term { error: Some("why".into()) }).await;
}

#[tokio::test]
async fn a_queue_is_the_same_after_a_restart_but_for_its_leases() {
    let folder = tempfile::tempdir().unwrap();
    let own = QueueSettings {
        start_when: Some(StartWhen { any: vec![Arm::Count(1)], mode: Start::Notify, batch: None, webhook: None }),
        ..settings()
    };
    let ends = open_on_disk(folder.path(), &options()).unwrap();
    change(&ends, Change::Settings(Some(Box::new(own.clone())))).await;
    fill(&ends).await;
    change(&ends, Change::Pause(true)).await;
    let (before, seen) = (stats(&ends).await, all(&ends).await);
    ends.store.close().await;
    drop(ends);

    let ends = open_on_disk(folder.path(), &options()).unwrap();
    let after = stats(&ends).await;
    assert_eq!((after.in_flight, after.waiting.iter().sum::<u64>()), (0, 5), "{after:?}");
    let told = |stats: &Stats| (stats.parked, stats.delayed, stats.dead, stats.bytes, stats.dead_bytes, stats.paused);
    assert_eq!((told(&after), after.totals, after.firings), (told(&before), before.totals, 1));
    assert_eq!(ends.queues.queues.settings(&jobs()).await, Ok(own));
    let strip = |seen: Vec<Seen>| {
        let mut kept: Vec<_> = seen
            .into_iter()
            .map(|seen| {
                (
                    seen.id.number(),
                    seen.group,
                    seen.tries,
                    seen.time,
                    seen.expires,
                    seen.death,
                    seen.attempts,
                    seen.body,
                )
            })
            .collect();
        kept.sort_by_key(|kept| kept.0);
        kept
    };
    assert_eq!(strip(all(&ends).await), strip(seen));
    let known = Put { idempotency_key: Some("k".into()), ..job("keyed") };
    assert!(matches!(put(&ends, known).await, Ok(PutAnswer::Repeated { .. })));
    let mark = ends.queues.queues.mark(&jobs(), "in").await.unwrap().unwrap();
    assert_eq!((mark.id, &*mark.life), (EntryId { ms: 5, seq: 1 }, "life"));
    assert_eq!(ends.queues.queues.sweep(&jobs()).await.unwrap().fired.unwrap().number, 1, "a firing is to be told");
    change(&ends, Change::Pause(false)).await;
    let again = take(&ends, 1).await.pop().unwrap();
    assert_eq!((again.id.number(), again.tries), (2, 2), "it was delivered once before");
    ends.store.close().await;
    drop(ends);

    let ends = open_on_disk(folder.path(), &options()).unwrap();
    let dead: Vec<_> = ends.queues.admin.look(&jobs(), Place::Dead, 0, 9).await.unwrap();
    let causes: Vec<_> = dead.iter().map(|seen| (seen.id.number(), seen.death.unwrap())).collect();
    assert_eq!(causes, [(1, Death::Term), (2, Death::MaxDeliveries)], "its last try went with the process");
    ends.store.close().await;
}

#[tokio::test]
async fn a_backup_holds_queues_and_ids_are_not_given_out_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (root, copy, again) = (folder.path().join("a"), folder.path().join("copy"), folder.path().join("b"));
    let ends = open_on_disk(&root, &options()).unwrap();
    fill(&ends).await;
    back_up(&root, &copy).unwrap();
    let Ok(PutAnswer::Stored { job: after, .. }) = put(&ends, job("after")).await else { panic!("it is put") };
    let seen = all(&ends).await;
    ends.store.close().await;
    restore(&again, &copy).unwrap();

    let ends = open_on_disk(&again, &options()).unwrap();
    let restored = all(&ends).await;
    assert_eq!(restored.len(), 7);
    assert!(restored.iter().all(|job| seen.iter().any(|seen| (seen.id, &seen.body) == (job.id, &job.body))));
    let Ok(PutAnswer::Stored { job: new, .. }) = put(&ends, job("new")).await else { panic!("it is put") };
    assert_eq!(new.number(), after.number(), "numbers go on");
    assert_ne!(new, after, "in another life");
    ends.store.close().await;
    crate::store::embedded::disk::assert_whole(&again);
}

#[tokio::test]
async fn a_store_of_the_format_before_gets_the_tables_of_queues() {
    let folder = tempfile::tempdir().unwrap();
    let ends = open_on_disk(folder.path(), &options()).unwrap();
    ends.store.append(vec![crate::store::embedded::tests::item("news", b"kept".to_vec())]).await;
    ends.store.close().await;
    drop(ends);
    crate::store::embedded::disk::make_older(folder.path(), 2, |connection| {
        let tables = ["queues", "jobs", "job_states", "job_attempts", "queue_keys", "queue_marks"];
        tables.iter().for_each(|table| connection.execute_batch(&format!("DROP TABLE {table}")).unwrap());
    });
    let ends = open_on_disk(folder.path(), &options()).unwrap();
    let kept = ends.store.append(vec![crate::store::embedded::tests::item("news", b"next".to_vec())]).await;
    assert!(matches!(&kept[0], Ok(crate::domain::store::Appended::Stored { at, .. }) if at.offset == 2), "{kept:?}");
    fill(&ends).await;
    ends.store.close().await;
    crate::store::embedded::disk::assert_whole(folder.path());
}

#[tokio::test]
async fn the_tallies_keep_up_with_the_tables_of_queues() {
    let folder = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1_795_331_083_000));
    let clock = now.clone();
    let options = Options { clock: Clock::by_hand(move || clock.load(Ordering::SeqCst)), ..options() };
    for _ in 0..3 {
        let ends = open_on_disk(folder.path(), &options).unwrap();
        for _ in 0..12 {
            fill(&ends).await;
            for (n, job) in take(&ends, 4).await.iter().enumerate() {
                let error = Some("no".into());
                let how = if n == 0 { How::Ack } else { How::Nack { delay: None, error } };
                settle(&ends, job, how).await;
            }
            now.fetch_add(70_000, Ordering::SeqCst);
        }
        change(&ends, Change::Redrive { jobs: None, cause: None, limit: 5 }).await;
        let dead = ends.queues.admin.look(&jobs(), Place::Dead, 0, 1).await.unwrap().pop().unwrap();
        let body = Body::from_canonical(Bytes::from_static(b"edited"));
        assert_eq!(change(&ends, Change::Edit { job: dead.id, body }).await, 1);
        change(&ends, Change::Purge(Some(Place::Ready))).await;
        put(&ends, Put { queue: Queue::parse("other").unwrap(), ..job("x") }).await.unwrap();
        ends.queues.admin.change(&Queue::parse("other").unwrap(), Change::Delete).await.unwrap();
        ends.store.close().await;
        drop(ends);
        crate::store::embedded::disk::assert_whole(folder.path());
    }
}

#[tokio::test]
async fn what_all_queues_may_hold_is_bounded() {
    let bounded = |options: Options| open_in_memory(&options).unwrap();
    let of = |name: &str| Put { queue: Queue::parse(name).unwrap(), ..job("12345") };
    let is_full = |answer: Result<PutAnswer, StoreError>| matches!(answer, Err(StoreError::Full(_)));

    let ends = bounded(Options { queue_count: 2, ..options() });
    assert!(put(&ends, of("a")).await.is_ok() && put(&ends, of("b")).await.is_ok());
    assert!(is_full(put(&ends, of("c")).await) && put(&ends, of("a")).await.is_ok());

    let ends = bounded(Options { queue_bytes: 12, ..options() });
    assert!(put(&ends, of("jobs")).await.is_ok() && put(&ends, of("b")).await.is_ok());
    assert!(is_full(put(&ends, of("c")).await));
    let taken = take(&ends, 1).await.pop().unwrap();
    settle(&ends, &taken, How::Ack).await;
    assert!(put(&ends, of("c")).await.is_ok());

    let ends = bounded(Options { queue_keys: 1, ..options() });
    let keyed = |key: &str| Put { idempotency_key: Some(key.into()), ..job("x") };
    assert!(put(&ends, keyed("a")).await.is_ok() && is_full(put(&ends, keyed("b")).await));
}

#[tokio::test]
async fn a_queue_that_holds_nothing_for_long_is_forgotten() {
    let now = Arc::new(AtomicU64::new(1_795_331_083_000));
    let clock = now.clone();
    let ends =
        open_in_memory(&Options { clock: Clock::by_hand(move || clock.load(Ordering::SeqCst)), ..options() }).unwrap();
    put(&ends, job("x")).await.unwrap();
    put(&ends, Put { queue: Queue::parse("keeps").unwrap(), ..job("x") }).await.unwrap();
    let taken = take(&ends, 1).await.pop().unwrap();
    settle(&ends, &taken, How::Ack).await;
    // Of a bound queue the mark of its topic must stay.
    let bound = Queue::parse("bound").unwrap();
    let fence = Fence::new("topic:news", "e1", EntryId { ms: 7, seq: 0 });
    put(&ends, Put { queue: bound.clone(), fence: Some(fence.clone()), ..job("x") }).await.unwrap();
    ends.queues.admin.change(&bound, Change::Purge(None)).await.unwrap();
    // Whoever only looks does not use them.
    for _ in 0..25 {
        now.fetch_add(3600 * 1000, Ordering::SeqCst);
        for queue in [&jobs(), &bound] {
            ends.queues.queues.sweep(queue).await.unwrap();
            ends.queues.admin.stats(queue).await.unwrap();
            ends.queues.admin.look(queue, Place::Ready, 0, 9).await.unwrap();
        }
    }
    // The store sweeps by itself.
    while ends.queues.admin.list(None, 9).await.unwrap().len() > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ends.queues.admin.list(None, 9).await, Ok(vec![bound.clone(), Queue::parse("keeps").unwrap()]));
    let again = Put { queue: bound, fence: Some(fence), ..job("x") };
    assert_eq!(put(&ends, again).await, Ok(PutAnswer::Skipped));
}

/// A job cannot be written: its row is there already.
fn in_the_way(folder: &Path, number: u64) {
    let connection = rusqlite::Connection::open(folder.join("data/store.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    let sql = "INSERT INTO jobs VALUES (?1, 4, NULL, 1, 0, 0, 1, x'', 0)";
    connection.execute(sql, [number as i64]).unwrap();
}

#[tokio::test]
async fn leases_outlive_a_transaction_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let ends = open_on_disk(folder.path(), &options()).unwrap();
    for text in ["a", "b", "c"] {
        put(&ends, job(text)).await.unwrap();
    }
    let taken = take(&ends, 2).await;
    in_the_way(folder.path(), 4);
    assert!(put(&ends, job("d")).await.is_err(), "its row is there already");
    assert_eq!(stats(&ends).await.in_flight, 2);
    assert_eq!(settle(&ends, &taken[0], How::Ack).await, Settled::Done);
    assert_eq!(settle(&ends, &taken[1], How::Release).await, Settled::Done);
    assert_eq!(take(&ends, 9).await.iter().map(|job| job.id.number()).collect::<Vec<_>>()[..2], [2, 3]);
}

#[tokio::test]
async fn a_time_on_the_wall_is_as_far_ahead_as_it_says_after_that_clock_was_set() {
    const SPAN: Duration = Duration::from_millis(300);
    let ahead = Arc::new(AtomicI64::new(0));
    let clock = Clock::wrong_by(ahead.clone());
    let ends = open_in_memory(&Options { clock: clock.clone(), ..options() }).unwrap();
    for wrong in [3_600_000, -3_600_000] {
        ahead.store(wrong, Ordering::SeqCst);
        let begun = Instant::now();
        let due = Due::At(clock.now() + SPAN.as_millis() as u64);
        put(&ends, Put { due, ..job("x") }).await.unwrap();
        while take(&ends, 1).await.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(begun.elapsed() >= SPAN - Duration::from_millis(10), "{wrong}: {:?}", begun.elapsed());
    }
}

//! What a queue costs, from put to acknowledgement: `./dev bench queue [--jobs N] [--depth N] [--folder PATH] [--store NAME]`.
//!
//! Jobs of 200 bytes go through the desk of a hub, in this process: 64 and then 512 producers that wait for each answer, 8 workers with
//! credit 100 that acknowledge one by one and wait for nothing. On the embedded store in memory and on disk (each put,
//! delivery and acknowledgement answered after its sync), and on a Redis of its own, whose time for each job by its own
//! count (`INFO commandstats`) is printed, beside a stream with a consumer group fed and read by the same client library
//! in batches of 100: what the same Redis does at least. Then what a take of 10 jobs costs when 1,000 jobs wait, and when
//! as many wait as `--depth` says.
//!
//! Loopback only; the folder must lie on a disk (not tmpfs, where a sync is nothing). It ends by itself.

#[path = "../tests/support/redis.rs"]
mod redis_server;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfare::domain::message::Body;
use fanfare::domain::queue::{How, Put, Queue, QueueKeeper, Settle, Take};
use fanfare::hub::Hub;
use fanfare::hub::queues::Desk;
use fanfare::store::{Options, open};
use redis_server::RedisServer;

const BODY: usize = 200;
const PRODUCERS: [usize; 2] = [64, 512];
const WORKERS: usize = 8;
const CREDIT: usize = 100;
/// Takes at each depth, and jobs in each.
const TAKES: usize = 2_000;
const TAKEN: usize = 10;

struct Settings {
    jobs: usize,
    depth: usize,
    folder: PathBuf,
    /// The only one that is measured, if one is named.
    store: Option<String>,
}

fn main() {
    let mut settings = Settings { jobs: 200_000, depth: 1_000_000, folder: "target".into(), store: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok()).expect("a number follows");
        match argument.as_str() {
            "--jobs" => settings.jobs = number(),
            "--depth" => settings.depth = number(),
            "--folder" => settings.folder = arguments.next().expect("--folder PATH").into(),
            "--store" => settings.store = Some(arguments.next().expect("--store memory, disk or redis")),
            "--bench" => {}
            other => panic!("unknown: {other}; --jobs N, --depth N, --folder PATH, --store memory|disk|redis"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(&settings));
}

async fn measure(settings: &Settings) {
    println!("{} jobs of {BODY} bytes, {WORKERS} workers with credit {CREDIT}\n", settings.jobs);
    println!(
        "| store | put to ack, jobs/s, 64 producers | 512 producers | takes of {TAKEN} at 1,000 waiting, p50 / p99 ms | at {} | p99 ratio |",
        settings.depth
    );
    println!("|---|--:|--:|--:|--:|--:|");
    let scratch = tempfile::tempdir_in(&settings.folder).expect("a folder to measure in");
    let disk = format!("disk:{}", scratch.path().join("store").display());
    let is_meant = |name: &str| settings.store.as_deref().is_none_or(|only| only == name);
    if is_meant("memory") {
        row("memory", "memory", settings).await;
    }
    if is_meant("disk") {
        row("disk", &disk, settings).await;
    }
    if !is_meant("redis") {
        return;
    }
    let redis = RedisServer::start();
    let before = spent(&redis, "evalsha");
    let jobs = row("redis", &redis.url(), settings).await;
    let after = spent(&redis, "evalsha");
    let stream = stream(&redis, settings.jobs);
    println!();
    println!("Redis itself: {:.1} µs a job for its scripts, depth test included", (after - before) / jobs as f64);
    println!("a bare stream and group, batches of 100: {stream:.0} jobs/s");
}

/// Answers how many jobs went through in all.
async fn row(name: &str, url: &str, settings: &Settings) -> usize {
    let opened = open(url, Options::default()).await.expect("the store opens");
    let keeper = opened.queues.clone().expect("it keeps queues");
    let hub = Hub::new(opened.store.clone()).with_queues(keeper.clone());
    let mut a_second = Vec::new();
    for producers in PRODUCERS {
        let rate = flow(hub.queues().unwrap().clone(), settings.jobs, producers).await;
        a_second.push(format!("{rate:.0}"));
    }
    let near = depth(&keeper, "near", 1_000).await;
    let far = depth(&keeper, "far", settings.depth).await;
    let ratio = far.1.as_secs_f64() / near.1.as_secs_f64();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    println!(
        "| {name} | {} | {:.2} / {:.2} | {:.2} / {:.2} | {ratio:.2} |",
        a_second.join(" | "),
        ms(near.0),
        ms(near.1),
        ms(far.0),
        ms(far.1)
    );
    drop(hub);
    opened.store.close().await;
    PRODUCERS.len() * settings.jobs + settings.depth + 1_000 + 2 * TAKES * TAKEN
}

async fn flow(desk: Arc<Desk>, jobs: usize, producers: usize) -> f64 {
    let queue = Queue::parse("jobs").unwrap();
    let (left, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let begun = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let (outlet, mut arrivals) = desk.jobs(CREDIT);
            let taker = desk.take(&queue, &format!("w{n}"), CREDIT, None, outlet);
            let (desk, queue, done) = (desk.clone(), queue.clone(), done.clone());
            tokio::spawn(async move {
                let taker = Arc::new(taker);
                while let Some(batch) = arrivals.next().await {
                    for job in batch {
                        let settled =
                            desk.settle(&queue, vec![Settle { job: job.id, token: job.token, how: How::Ack }]);
                        let (taker, done) = (taker.clone(), done.clone());
                        tokio::spawn(async move {
                            settled.await.remove(0).expect("it is settled");
                            taker.free(1);
                            done.add_permits(1);
                        });
                    }
                }
            })
        })
        .collect();
    for _ in 0..producers {
        let (desk, queue, left) = (desk.clone(), queue.clone(), left.clone());
        tokio::spawn(async move {
            while left.fetch_add(1, Ordering::Relaxed) < jobs {
                desk.put(vec![Put::new(queue.clone(), body())]).await.remove(0).expect("it is put");
            }
        });
    }
    let _ = done.acquire_many(jobs as u32).await.expect("it is never closed");
    let took = begun.elapsed();
    workers.iter().for_each(|worker| worker.abort());
    jobs as f64 / took.as_secs_f64()
}

/// The median and the 99th percentile of a take where so many jobs wait; what is taken is acknowledged and put anew.
async fn depth(keeper: &QueueKeeper, name: &str, waiting: usize) -> (Duration, Duration) {
    let queue = Queue::parse(name).unwrap();
    let puts = |count: usize| (0..count).map(|_| Put::new(queue.clone(), body())).collect::<Vec<_>>();
    for _ in 0..waiting.div_ceil(1_000) {
        let calls = (0..10).map(|_| keeper.queues.put(puts(100.min(waiting))));
        let answers = futures::future::join_all(calls.collect::<Vec<_>>()).await;
        assert!(answers.iter().flatten().all(Result::is_ok));
    }
    let mut times = Vec::with_capacity(TAKES);
    for token in 0..TAKES as u64 {
        let take = Take { worker: "w".into(), count: TAKEN, bytes: 1 << 20, lease: None, token };
        let begun = Instant::now();
        let taken = keeper.queues.take(&queue, take).await.expect("it is taken");
        times.push(begun.elapsed());
        assert_eq!(taken.jobs.len(), TAKEN);
        let acks = taken.jobs.iter().map(|job| Settle { job: job.id, token, how: How::Ack }).collect();
        assert!(keeper.queues.settle(&queue, acks).await.iter().all(Result::is_ok));
        assert!(keeper.queues.put(puts(TAKEN)).await.iter().all(Result::is_ok));
    }
    times.sort_unstable();
    (times[TAKES / 2], times[TAKES * 99 / 100])
}

/// A body as JSON writes it.
fn body() -> Body {
    let mut text = String::from("\"data\":\"");
    text.extend(std::iter::repeat_n('x', BODY));
    text.push('"');
    Body::from_canonical(Bytes::from(text))
}

/// Microseconds that Redis has spent in a command.
fn spent(redis: &RedisServer, command: &str) -> f64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut redis.connection()).unwrap();
    let line = info.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
    let usec = line.and_then(|line| line.split("usec=").nth(1)?.split(',').next()?.parse().ok());
    usec.unwrap_or(0.0)
}

/// The least that the same server can do: a stream and a group, each batch added, read, acknowledged and deleted.
fn stream(redis: &RedisServer, jobs: usize) -> f64 {
    let mut connection = redis.connection();
    redis::cmd("XGROUP").arg(&["CREATE", "bare", "g", "$", "MKSTREAM"]).exec(&mut connection).unwrap();
    let body = "x".repeat(BODY);
    let begun = Instant::now();
    for _ in 0..jobs / 100 {
        let mut pipe = redis::pipe();
        (0..100).for_each(|_| _ = pipe.cmd("XADD").arg(&["bare", "*", "d"]).arg(&body));
        let ids: Vec<String> = pipe.query(&mut connection).unwrap();
        let read = ["GROUP", "g", "w", "COUNT", "100", "STREAMS", "bare", ">"];
        let _: redis::Value = redis::cmd("XREADGROUP").arg(&read).query(&mut connection).unwrap();
        let mut pipe = redis::pipe();
        ids.iter().for_each(|id| _ = pipe.cmd("XACK").arg(&["bare", "g"]).arg(id));
        pipe.cmd("XDEL").arg("bare").arg(&ids);
        pipe.exec(&mut connection).unwrap();
    }
    jobs as f64 / begun.elapsed().as_secs_f64()
}

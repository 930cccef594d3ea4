//! How fast the Redis store appends, against bare XADD pipelines in the same run. By hand:
//! `cargo test --release --test redis_speed -- --ignored --nocapture`.

#[path = "support/redis.rs"]
mod server;

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfare::domain::message::{Body, Publication};
use fanfare::domain::name::Topic;
use fanfare::domain::store::{Append, Store};
use fanfare::store::redis::{RedisOptions, open};
use futures::stream::{FuturesUnordered, StreamExt};
use server::RedisServer;

const BATCH: usize = 100;
const IN_FLIGHT: usize = 4;
const TOPICS: usize = 50;
const BODY: usize = 200;
const ROUND: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
async fn appends_against_bare_xadd() {
    let server = RedisServer::start();
    let store = open(&server.url(), RedisOptions::default()).await.unwrap();
    let topics: Vec<Topic> = (0..TOPICS).map(|n| Topic::parse(&format!("news.{n}")).unwrap()).collect();
    let client = redis::Client::open(server.url()).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
    let bare = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let (mut stored, mut added) = (Vec::new(), Vec::new());
    // In turns, so that what else the machine does falls on both.
    for round in 0..8 {
        let own = [0, 3].contains(&(round % 4));
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut server.connection()).unwrap();
        let before = server_cpu(&server);
        let (rate, count) = if own { appends(&store, &topics).await } else { xadds(&bare).await };
        // Unlike the rate, this does not depend on what else the machine does.
        let cpu = (server_cpu(&server) - before) * 1e6 / count as f64;
        if own {
            stored.push(rate);
        } else {
            added.push(rate);
        }
        let what = if own { "append" } else { "xadd  " };
        println!("{what} {rate:.0}/s, server {cpu:.1} us CPU each; {}", server_time(&server, own));
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    println!(
        "appends {:.0}/s, bare XADD {:.0}/s, ratio {:.2}",
        mean(&stored),
        mean(&added),
        mean(&stored) / mean(&added)
    );
}

async fn appends(store: &impl Store, topics: &[Topic]) -> (f64, usize) {
    let body = Body::from_canonical(Bytes::from(vec![b'x'; BODY]));
    let mut n = 0;
    let mut batch = || {
        (0..BATCH)
            .map(|_| {
                n += 1;
                let topic = topics[n % TOPICS].clone();
                let (body, none) = (body.clone(), None);
                let publication =
                    Publication { topic, body, ttl: None, key: None, idempotency_key: none, durability: None };
                Append { publication, fence: None }
            })
            .collect::<Vec<_>>()
    };
    let begun = Instant::now();
    let mut flights: FuturesUnordered<_> = (0..IN_FLIGHT).map(|_| store.append(batch())).collect();
    let mut done = 0;
    while begun.elapsed() < ROUND {
        let outcomes = flights.next().await.unwrap();
        done += outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        flights.push(store.append(batch()));
    }
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    let rest: usize = flights.map(|outcomes| outcomes.len()).collect::<Vec<_>>().await.iter().sum();
    (rate, done + rest)
}

async fn xadds(bare: &redis::aio::MultiplexedConnection) -> (f64, usize) {
    let body = vec![b'x'; BODY];
    let mut n = 0;
    let mut send = || {
        let mut pipeline = redis::pipe();
        for _ in 0..BATCH {
            n += 1;
            pipeline.cmd("XADD").arg(format!("bare:{}", n % TOPICS)).arg(&["MAXLEN", "~", "1000", "*", "b"]).arg(&body);
        }
        let mut bare = bare.clone();
        async move { pipeline.query_async::<Vec<String>>(&mut bare).await.unwrap().len() }
    };
    let begun = Instant::now();
    let mut flights: FuturesUnordered<_> = (0..IN_FLIGHT).map(|_| send()).collect();
    let mut done = 0;
    while begun.elapsed() < ROUND {
        done += flights.next().await.unwrap();
        flights.push(send());
    }
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    let rest: usize = flights.collect::<Vec<_>>().await.iter().sum();
    (rate, done + rest)
}

/// Seconds of processor time that the server has used.
fn server_cpu(server: &RedisServer) -> f64 {
    let info: String = redis::cmd("INFO").arg("cpu").query(&mut server.connection()).unwrap();
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok()).unwrap();
    field("used_cpu_user:") + field("used_cpu_sys:")
}

/// Microseconds that the server itself spent on each call.
fn server_time(server: &RedisServer, own: bool) -> String {
    let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
    let wanted: &[&str] =
        if own { &["evalsha", "xadd", "info", "publish", "hset", "hmget", "xrange"] } else { &["xadd"] };
    let figures = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let field = |key: &str| rest.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        wanted
            .contains(&name)
            .then(|| format!("{name} {}x{}us", field("calls").unwrap(), field("usec_per_call").unwrap()))
    });
    figures.collect::<Vec<_>>().join(", ")
}

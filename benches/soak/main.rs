//! A hub at about half of what it can do, for a long time: `./dev soak [MINUTES]`.
//!
//! The hub runs in a process of its own. This one holds its clients: WebSockets and event streams, a share of which
//! pause or leave and come back, and publishers by HTTP and by the Redis door. First it measures how much the two take
//! together when publishers wait for nothing but answers; then it publishes half as much. Every few seconds it notes
//! the hub's resident memory and open files. At the end every client must have had every message of its topics, once
//! and in order: each compares the position of each message with the one before it, and the last with the topic's head.
//!
//! Printed are the slope of the memory after warm-up by least squares, the open files, and what was delivered. It ends
//! with 1 if anything was lost, repeated, or told as missing. Loopback only; it ends by itself.

mod client;
mod hub;
mod measure;
mod publish;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Plan, Tally};
use hub::Hub;

const TOPICS: usize = 20;
const SOCKETS: usize = 200;
const STREAMS: usize = 100;
/// Publishers wait for nothing but answers during it.
const CALIBRATION: Duration = Duration::from_secs(10);
const SAMPLE_EVERY: Duration = Duration::from_secs(3);
/// What the last message may take to the last client.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [role, store] = &arguments[..]
        && role == "hub"
    {
        hub::serve(store);
        return ExitCode::SUCCESS;
    }
    let of = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let minutes: f64 = of("--minutes").map_or(20.0, |m| m.parse().expect("--minutes takes a number"));
    assert!((0.5..=600.0).contains(&minutes), "--minutes takes 0.5 to 600");
    let folder = tempfile::tempdir().expect("a folder");
    let store = of("--store").cloned().unwrap_or_else(|| hub::store_in(folder.path()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    runtime.block_on(soak(Duration::from_secs_f64(minutes * 60.0), &store))
}

async fn soak(time: Duration, store: &str) -> ExitCode {
    let hub = Hub::start(store);
    let topics: Vec<String> = (0..TOPICS).map(|n| format!("soak.{n}")).collect();
    let tally = Arc::new(Tally::default());
    let clients = client::start(&hub, &topics, &tally, Plan { sockets: SOCKETS, streams: STREAMS });
    tally.all_begun(SOCKETS + STREAMS).await;

    let most = publish::as_fast_as_answered(&hub, &topics, CALIBRATION).await;
    let rate = most / 2.0;
    println!(
        "soak: store {}, {SOCKETS} WebSockets and {STREAMS} event streams on {TOPICS} topics",
        store.split(':').next().unwrap_or_default()
    );
    println!("  it took {most:.0} publishes a second; {rate:.0} a second for {:.0} s", time.as_secs_f64());
    tally.restless.store(true, std::sync::atomic::Ordering::Relaxed);

    let begun = Instant::now();
    let publishers = publish::at(&hub, &topics, rate, begun + time);
    let samples = measure::sample(hub.pid(), SAMPLE_EVERY, begun + time).await;
    let published = publishers.await.expect("publishers end by themselves");
    tally.restless.store(false, std::sync::atomic::Ordering::Relaxed);
    let missing = clients.finish(&hub, &topics, PATIENCE).await;

    let warm_up = time / 4;
    measure::print(&samples, warm_up);
    let whole = tally.print(&published, missing);
    drop(hub);
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

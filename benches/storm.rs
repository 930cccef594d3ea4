//! Everybody is cut at once and comes back at once: `./dev bench storm [--clients N] [--topics N]`.
//!
//! A process runs the real hub, on a Redis of its own and then on the embedded store in memory; this one holds the
//! clients. They subscribe, hear messages (some of them a few less, as a cut finds them), and are all reset in the same
//! moment; messages are published meanwhile; then all come back at once with their positions. Every client checks that it
//! was resumed with proof and got every message in order. Printed: the time from the cut's end to the median, the 99th
//! percentile and the last client that has everything, and how often Redis was read; more than one read for each topic
//! and a tenth more is a failure.
//!
//! Loopback only, two processes on one machine; it ends by itself.

#[path = "../tests/support/redis.rs"]
mod redis_server;
#[path = "../tests/support/storm.rs"]
mod storm;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fanfare::config::{self, Mode};
use fanfare::server::Server;
use redis_server::RedisServer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use storm::Crowd;

/// Messages of a topic before the cut and while everybody is away.
const BEFORE: u64 = 10;
const MISSED: u64 = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    take_all_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    if let [role, store] = &arguments[..]
        && role == "server"
    {
        return runtime.block_on(serve(store));
    }
    let number = |name: &str, default: usize| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|i| arguments.get(i + 1)).map_or(default, |v| v.parse().expect("a number"))
    };
    let (clients, topics) = (number("--clients", 5_000), number("--topics", 100));
    let redis = RedisServer::start();
    let reads = runtime.block_on(measure("redis", &redis.url(), clients, topics, Some(&redis)));
    runtime.block_on(measure("memory", "memory", clients, topics, None));
    let most = (topics + topics / 10) as u64;
    if let Some(reads) = reads.filter(|reads| *reads > most) {
        drop(redis);
        eprintln!("storm: {reads} reads of Redis for {topics} topics; {most} are the most that is right");
        std::process::exit(1);
    }
}

async fn measure(name: &str, store: &str, clients: usize, topics: usize, redis: Option<&RedisServer>) -> Option<u64> {
    let (mut child, http) = start(store);
    let mut crowd = Crowd::gather(http, clients, topics).await;
    storm::publish(http, topics, BEFORE as usize).await;
    crowd.hear(BEFORE, 3).await;
    crowd.cut();
    storm::publish(http, topics, MISSED as usize).await;
    let before = redis.map(|redis| storm::scripts_run(&redis.url()));
    let times = crowd.come_back(BEFORE + MISSED).await;
    let reads = redis.zip(before).map(|(redis, before)| storm::scripts_run(&redis.url()) - before);
    println!(
        "storm: {clients} clients over {topics} topics on {name}, all back with proof and {MISSED} to {} messages each",
        MISSED + 3
    );
    println!("  p50 {:.2?}, p99 {:.2?}, last {:.2?}", times.at(0.5), times.at(0.99), times.at(1.0));
    if let Some(reads) = reads {
        println!("  {reads} reads of Redis, {:.2} for each topic", reads as f64 / topics as f64);
    }
    drop(crowd);
    drop(child.stdin.take());
    let _ = child.wait();
    reads
}

fn start(store: &str) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["server", store])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says where it listens");
    (child, line.trim().parse().expect("an address"))
}

/// Runs a hub until the other process lets go of its standard input.
async fn serve(store: &str) {
    let store = format!("--store={store}");
    let flags = ["fanfare", "--insecure", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--ingest=off", &store];
    let matches = clap::Command::new("fanfare").args(config::arguments()).get_matches_from(flags);
    let config = config::load(Mode::Serve, &matches, [], Path::new("/nonexistent")).expect("good flags");
    let server = Server::start(&config, Mode::Serve).await.expect("it starts");
    println!("{}", server.http);
    tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop)).await.expect("it is read");
    server.stop().await;
}

/// As many open files as this process may have.
fn take_all_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

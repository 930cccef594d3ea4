//! Asks one server for everything there is to know.

use std::collections::HashMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use redis::{Cmd, FromRedisValue, Value, cmd};

use super::{Question, Queue, Server};
use crate::endpoint::{Link, replicas_in_step};

/// Answers that are timed.
const ROUNDS: u32 = 5;
/// `WAITAOF` came with it.
const WAITS_FOR_DISK: (u32, u32) = (7, 2);

pub(super) async fn at(link: &mut Link, address: String, question: &Question) -> Result<Server, String> {
    let refused = |text: String| format!("{address}: {text}");
    let info: String = ask(link, &cmd("INFO")).await.map_err(refused)?;
    let lines: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let line = |name: &str| lines.get(name).copied().unwrap_or_default();
    let number = |name: &str| line(name).parse().unwrap_or(0);
    let failed = ["aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"];
    let mut server = Server {
        version: line("redis_version").into(),
        role: line("role").into(),
        life: line("master_replid").into(),
        appendonly: line("aof_enabled") == "1",
        replicas_in_step: replicas_in_step(&info),
        maxmemory: number("maxmemory"),
        used_memory: number("used_memory"),
        maxmemory_policy: line("maxmemory_policy").into(),
        disk_trouble: failed.iter().any(|name| line(name) == "err"),
        is_cluster: line("cluster_enabled") == "1",
        has_waitaof: version(line("redis_version")) >= WAITS_FOR_DISK,
        ..Server::default()
    };
    let mut config = cmd("CONFIG");
    config.arg("GET").arg("appendfsync").arg("min-replicas-to-write").arg("min-replicas-max-lag");
    // Hosted servers refuse it, and then it is not known.
    let settings: HashMap<String, String> = ask(link, &config).await.unwrap_or_default();
    server.appendfsync = settings.get("appendfsync").cloned();
    let setting = |name: &str| settings.get(name).and_then(|value| value.parse().ok());
    server.min_replicas_to_write = setting("min-replicas-to-write");
    server.min_replicas_max_lag = setting("min-replicas-max-lag");
    time(link, &mut server).await.map_err(refused)?;
    let groups = ask::<Option<String>>(link, cmd("GET").arg(format!("{}:groups", question.prefix))).await;
    server.is_opened = matches!(groups, Ok(Some(_)));
    for name in &question.queues {
        // On a cluster each key is on one server, and the others say so.
        if let Ok(queue) = queue(link, name).await {
            server.queues.push(queue);
        }
    }
    server.address = address;
    Ok(server)
}

/// How far its clock is from ours, and how long the way there and back takes.
async fn time(link: &mut Link, server: &mut Server) -> Result<(), String> {
    let mut quickest = None;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let (seconds, micros): (i64, i64) = ask(link, &cmd("TIME")).await?;
        let took = begun.elapsed();
        if quickest.is_none_or(|best| took < best) {
            quickest = Some(took);
            let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as i64);
            let theirs = seconds * 1_000_000 + micros + took.as_micros() as i64 / 2;
            server.clock_ahead_ms = (theirs - ours) / 1000;
            server.round_trip_ms = took.as_secs_f64() * 1000.0;
        }
    }
    Ok(())
}

async fn queue(link: &mut Link, name: &str) -> Result<Queue, String> {
    let beside = |what: &str| format!("{{{name}}}:{what}");
    let kind: String = ask(link, cmd("TYPE").arg(name)).await?;
    let is_list = ask::<u64>(link, cmd("EXISTS").arg(beside("in"))).await? == 1 || kind == "list";
    let stream = if is_list { beside("in") } else { name.to_owned() };
    let mut waiting = 0;
    if is_list {
        waiting +=
            ask::<u64>(link, cmd("LLEN").arg(name)).await? + ask::<u64>(link, cmd("LLEN").arg(beside("wake"))).await?;
    }
    if ask::<u64>(link, cmd("EXISTS").arg(&stream)).await? == 1 {
        let facts: HashMap<String, Value> = ask(link, cmd("XINFO").arg("STREAM").arg(&stream)).await?;
        let added = facts.get("entries-added").and_then(|value| u64::from_redis_value(value.clone()).ok()).unwrap_or(0);
        let count: Option<u64> = ask(link, cmd("HGET").arg(beside("cursor")).arg("count")).await?;
        let length = facts.get("length").and_then(|value| u64::from_redis_value(value.clone()).ok()).unwrap_or(0);
        waiting += count.map_or(length, |count| added.saturating_sub(count).min(length));
    }
    Ok(Queue {
        name: name.to_owned(),
        waiting,
        dead_letters: ask(link, cmd("XLEN").arg(beside("dead"))).await?,
        owner: ask(link, cmd("GET").arg(beside("owner"))).await?,
        lease_ms: ask(link, cmd("PTTL").arg(beside("owner"))).await?,
    })
}

async fn ask<T: FromRedisValue>(link: &mut Link, command: &Cmd) -> Result<T, String> {
    command.query_async(&mut link.connection).await.map_err(|error| error.to_string())
}

/// The first two numbers.
pub(super) fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

//! `fanfare doctor`: what a store really guarantees and what to change, or how a hub is. Exits 1 when something is wrong.

use std::fmt::Write;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::hub::{Address, HubClient};
use super::{Exit, Stop, output};
use crate::doctor::{self, Question, Report, Server};
use crate::domain::message::Durability;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    address: Address,
    /// Look at this Redis instead of a hub: redis://, unix:, redis+sentinel:// or redis+cluster://
    #[arg(long, env = "FANFARE_STORE", value_name = "URL")]
    store: Option<String>,
    /// What all keys of the store begin with
    #[arg(long, env = "FANFARE_PREFIX", default_value = "fanfare")]
    prefix: String,
    /// The ingest stream [default: PREFIX:in]
    #[arg(long, env = "FANFARE_INGEST_STREAM", value_name = "KEY")]
    ingest_stream: Option<String>,
    /// The ingest list [default: PREFIX:list]
    #[arg(long, env = "FANFARE_INGEST_LIST", value_name = "KEY")]
    ingest_list: Option<String>,
    /// The level that the store is to give: memory, disk or replica
    #[arg(long, env = "FANFARE_DURABILITY", value_name = "LEVEL")]
    durability: Option<String>,
    /// Replicas that the level "replica" needs
    #[arg(long, env = "FANFARE_REPLICAS", default_value_t = 1, value_name = "N")]
    replicas: usize,
    /// The appendfsync of a Redis that does not tell it: always, everysec or no; "ask" believes only what it tells
    #[arg(long, env = "FANFARE_REDIS_FSYNC", value_name = "WORD")]
    redis_fsync: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments) -> Result<(), Stop> {
    match &arguments.store {
        Some(url) if !url.is_empty() => look_at_store(url, &arguments).await,
        _ => look_at_hub(&arguments).await,
    }
}

async fn look_at_store(url: &str, arguments: &Arguments) -> Result<(), Stop> {
    if url == "memory" || url.starts_with("disk:") {
        let text = "--store: the doctor looks at a Redis; an embedded store checks itself whenever it is opened, and the \
                    hub that has it open is looked at with --url";
        return Err(Stop::new(Exit::Usage, text));
    }
    let durability =
        match arguments.durability.as_deref() {
            None | Some("" | "auto") => None,
            Some(word) => Some(Durability::parse(word).ok_or_else(|| {
                Stop::new(Exit::Usage, format!("--durability is memory, disk or replica, not {word:?}"))
            })?),
        };
    let fsync = match arguments.redis_fsync.as_deref() {
        None | Some("" | "ask") => None,
        Some(word @ ("always" | "everysec" | "no")) => Some(word.to_owned()),
        Some(word) => {
            let text = format!("--redis-fsync is ask, always, everysec or no, not {word:?}");
            return Err(Stop::new(Exit::Usage, text));
        }
    };
    let name = |given: &Option<String>, what: &str| given.clone().unwrap_or(format!("{}:{what}", arguments.prefix));
    let question = Question {
        prefix: arguments.prefix.clone(),
        queues: vec![name(&arguments.ingest_stream, "in"), name(&arguments.ingest_list, "list")],
        durability,
        replicas: arguments.replicas,
        fsync,
    };
    let report = doctor::examine(url, &question).await.map_err(|text| Stop::new(Exit::Unreachable, text))?;
    let text = match arguments.json {
        true => serde_json::to_string(&report).map_err(|error| Stop::new(Exit::Failed, error.to_string()))?,
        false => shown(&report),
    };
    output::line(text.trim_end())?;
    match report.is_well() {
        true => Ok(()),
        false => Err(Stop::new(Exit::Failed, "something is wrong with this store")),
    }
}

fn shown(report: &Report) -> String {
    let mut out = format!("store     {}\n", report.store);
    report.servers.iter().for_each(|server| show_server(&mut out, server));
    for level in &report.levels {
        let given = if level.given { "yes" } else { "no" };
        let _ = writeln!(out, "level     {:<8}{given:<4} {}", level.level, level.text);
    }
    for finding in &report.findings {
        let mark = if finding.wrong { "WRONG " } else { "advice" };
        let _ = writeln!(out, "{mark}    {}", finding.text);
        for line in &finding.change {
            let _ = writeln!(out, "            {line}");
        }
    }
    if report.is_well() {
        out.push_str("nothing is wrong\n");
    }
    out
}

fn show_server(out: &mut String, server: &Server) {
    let told = |value: &Option<u64>| value.map_or("not told".to_string(), |value| value.to_string());
    let _ =
        writeln!(out, "server    {}: Redis {}, {}, life {}", server.address, server.version, server.role, server.life);
    let fsync = server.appendfsync.as_deref().unwrap_or("not told");
    let _ = writeln!(out, "  disk    appendonly {}, appendfsync {fsync}", if server.appendonly { "yes" } else { "no" });
    let (least, lag) = (told(&server.min_replicas_to_write), told(&server.min_replicas_max_lag));
    let _ = writeln!(
        out,
        "  copies  {} replicas in step, min-replicas-to-write {least}, min-replicas-max-lag {lag}",
        server.replicas_in_step
    );
    let _ = writeln!(
        out,
        "  memory  {} bytes used, maxmemory {}, {}",
        server.used_memory, server.maxmemory, server.maxmemory_policy
    );
    let _ = writeln!(
        out,
        "  time    {:.2} ms there and back, its clock is {} ms ahead",
        server.round_trip_ms, server.clock_ahead_ms
    );
    for queue in &server.queues {
        let owner = match &queue.owner {
            Some(owner) => format!("owner {owner} for {} ms", queue.lease_ms),
            None => "no owner".into(),
        };
        let _ = writeln!(
            out,
            "  ingest  {}: {} wait, {} dead letters, {owner}",
            queue.name, queue.waiting, queue.dead_letters
        );
    }
}

/// What a hub says of itself.
async fn look_at_hub(arguments: &Arguments) -> Result<(), Stop> {
    let hub = HubClient::new(&arguments.address)?;
    let ready = hub.send(hub.request(Method::GET, "readyz")?).await?;
    let dead = hub.send(hub.request(Method::GET, "v1/ingest/dead?limit=1")?).await?;
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (state, letters) = (parse(&ready.text), parse(&dead.text));
    let is_well = ready.status.is_success();
    let report = json!({ "ready": is_well, "state": state, "dead_letters": letters["total"] });
    match arguments.json {
        true => output::line(&report.to_string())?,
        false => {
            output::line(&format!("ready     {}", if is_well { "yes" } else { "no" }))?;
            for trouble in state["trouble"].as_array().into_iter().flatten() {
                output::line(&format!("WRONG     {trouble}"))?;
            }
            if let Some(count) = letters["total"].as_u64().filter(|count| *count > 0) {
                output::line(&format!("advice    {count} dead letters: fanfare ingest dead"))?;
            }
        }
    }
    match is_well {
        true => Ok(()),
        false => Err(Stop::new(Exit::Failed, "this hub is not ready")),
    }
}

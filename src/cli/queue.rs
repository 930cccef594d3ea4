//! `fanfare queue`: queues and their jobs, looked at and changed.

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::hub::{Address, HubClient, in_path};
use super::{Exit, Stop, output};
use crate::config;
use crate::document::{self, Members, quote};

const PAGE: usize = 100;
/// Only to tell broken JSON before it is sent; the hub has its own bound.
const DEPTH: usize = 120;
/// How long the hub may take beyond the wait that it was asked for.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// A paced redrive answers within a minute.
const REDRIVE_TIME: Duration = Duration::from_secs(90);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    address: Address,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the names of all queues, one JSON line each
    List,
    /// Print what a queue holds and the settings that hold for it
    Stats { queue: String },
    /// Give a queue settings of its own, and print all that hold then
    Create {
        queue: String,
        /// Begin with these: sqs-standard, sqs-fifo, kinesis, kafka-group, jms-queue or simple-broker
        #[arg(long, value_name = "PRESET")]
        like: Option<String>,
        /// A setting as in a rule: lease=60s, max_bytes=64MiB, start_when="10 or 60s"; can be repeated
        #[arg(long = "set", value_name = "NAME=VALUE")]
        set: Vec<String>,
    },
    /// Remove a queue with all that it holds
    Delete { queue: String },
    /// Give out nothing until it is resumed
    Pause { queue: String },
    /// End a pause
    Resume { queue: String },
    /// Put one job
    Put {
        queue: String,
        /// JSON, or any text with --text
        #[arg(allow_negative_numbers = true)]
        data: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// Take jobs and print them, one JSON line each with its tag
    Take {
        queue: String,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1)]
        max: u32,
        /// Wait so long for the first, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
        wait: f64,
        /// How long they are held, in seconds
        #[arg(long, value_name = "SECONDS")]
        lease: Option<f64>,
        /// Who takes: kept with the attempts of a job
        #[arg(long, value_name = "NAME")]
        worker: Option<String>,
        /// Acknowledge what was printed
        #[arg(long)]
        ack: bool,
    },
    /// End deliveries: these jobs are done
    Ack {
        queue: String,
        #[arg(required = true, value_name = "TAG")]
        tags: Vec<String>,
    },
    /// End deliveries: these jobs are to be tried again
    Nack {
        queue: String,
        #[arg(required = true, value_name = "TAG")]
        tags: Vec<String>,
        /// Not before so many seconds; without it, by the queue's back-off
        #[arg(long, value_name = "SECONDS")]
        delay: Option<f64>,
        /// What went wrong
        #[arg(long = "error", value_name = "TEXT")]
        error: Option<String>,
    },
    /// Print jobs without taking them, one JSON line each
    Jobs {
        queue: String,
        /// ready, parked, delayed, in-flight or dead
        #[arg(long, default_value = "ready")]
        place: String,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Print dead letters, oldest first, one JSON line each
    Dead {
        queue: String,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Send dead letters back to work: these, or the oldest
    Redrive {
        queue: String,
        #[arg(value_name = "JOB")]
        jobs: Vec<String>,
        /// Those that died of this: max-deliveries, term, expired or dropped
        #[arg(long, value_name = "CAUSE")]
        cause: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// So many a second
        #[arg(long, value_name = "N")]
        rate: Option<f64>,
    },
    /// Give a dead letter other data
    Edit {
        queue: String,
        job: String,
        #[arg(allow_negative_numbers = true)]
        data: String,
        /// The data is plain text, not JSON
        #[arg(long)]
        text: bool,
    },
    /// Remove one job that is not in flight
    Remove { queue: String, job: String },
    /// Remove all jobs but the dead, or all of one place
    Purge {
        queue: String,
        /// ready, delayed, in-flight or dead
        #[arg(long)]
        place: Option<String>,
    },
}

/// What a job is put with.
#[derive(Debug, Args)]
struct Terms {
    /// The data is plain text, not JSON
    #[arg(long)]
    text: bool,
    /// What kind of job it is
    #[arg(long)]
    name: Option<String>,
    /// 0 to 9, 9 is taken first
    #[arg(long)]
    priority: Option<u8>,
    /// Not before so many seconds
    #[arg(long, value_name = "SECONDS")]
    delay: Option<f64>,
    /// Not before this time, like 2026-11-25T12:00:00Z
    #[arg(long, value_name = "TIME")]
    deliver_at: Option<String>,
    /// Jobs of one group are done one at a time, in order
    #[arg(long)]
    group: Option<String>,
    /// The same key within the window is the same job
    #[arg(long, value_name = "KEY")]
    dedupe: Option<String>,
    /// How long the key is remembered, in seconds
    #[arg(long, value_name = "SECONDS")]
    dedupe_window: Option<f64>,
    /// How long it may wait at most, in seconds
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<f64>,
    /// The level it must survive: memory, disk or replica
    #[arg(long, value_name = "LEVEL")]
    durability: Option<String>,
    /// The same put again is stored once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

pub async fn run(arguments: Arguments) -> Result<(), Stop> {
    let hub = HubClient::new(&arguments.address)?;
    let print = async |method, queue: &str, rest: &str, body: Option<String>| {
        output::line(&ask(&hub, method, &path(queue, rest), body).await?)
    };
    match arguments.action {
        Action::List => list(&hub).await,
        Action::Stats { queue } => print(Method::GET, &queue, "", None).await,
        Action::Create { queue, like, set } => {
            print(Method::PUT, &queue, "", Some(settings(like.as_deref(), &set)?)).await
        }
        Action::Delete { queue } => print(Method::DELETE, &queue, "", None).await,
        Action::Pause { queue } => print(Method::POST, &queue, "/pause", None).await,
        Action::Resume { queue } => print(Method::POST, &queue, "/resume", None).await,
        Action::Put { queue, data, terms } => {
            let document = terms.document(&queue, &data)?;
            output::line(&ask(&hub, Method::POST, "v1/messages", Some(document)).await?)
        }
        Action::Take { queue, max, wait, lease, worker, ack } => {
            let body = json!({ "max": max, "wait": wait, "lease": lease, "worker": worker });
            take(&hub, &queue, without_null(body), wait, ack).await
        }
        Action::Ack { queue, tags } => settle(&hub, &queue, "ack", json!({ "tag": tags })).await,
        Action::Nack { queue, tags, delay, error } => {
            settle(&hub, &queue, "nack", without_null(json!({ "tag": tags, "delay": delay, "text": error }))).await
        }
        Action::Jobs { queue, place, limit } => {
            look(&hub, &queue, &format!("/jobs?place={}&", in_path(&place)), limit).await
        }
        Action::Dead { queue, limit } => look(&hub, &queue, "/dead?", limit).await,
        Action::Redrive { queue, jobs, cause, limit, rate } => {
            let jobs = Some(jobs).filter(|jobs| !jobs.is_empty());
            let body = without_null(json!({ "jobs": jobs, "cause": cause, "limit": limit, "rate": rate }));
            let request = request(&hub, Method::POST, &path(&queue, "/dead/redrive"), Some(body.to_string()))?;
            output::line(&hub.send(request.timeout(REDRIVE_TIME)).await?.accepted()?)
        }
        Action::Edit { queue, job, data, text } => {
            let data = if text { quote(&data) } else { json_of(&data)? };
            print(Method::PUT, &queue, &format!("/dead/{}", in_path(&job)), Some(data)).await
        }
        Action::Remove { queue, job } => print(Method::DELETE, &queue, &format!("/jobs/{}", in_path(&job)), None).await,
        Action::Purge { queue, place } => {
            let place = place.map(|place| format!("?place={}", in_path(&place))).unwrap_or_default();
            print(Method::DELETE, &queue, &format!("/jobs{place}"), None).await
        }
    }
}

fn path(queue: &str, rest: &str) -> String {
    format!("v1/queues/{}{rest}", in_path(queue))
}

fn request(hub: &HubClient, method: Method, path: &str, body: Option<String>) -> Result<reqwest::RequestBuilder, Stop> {
    let request = hub.request(method, path)?;
    Ok(match body {
        Some(body) => request.header("content-type", "application/json").body(body),
        None => request,
    })
}

async fn ask(hub: &HubClient, method: Method, path: &str, body: Option<String>) -> Result<String, Stop> {
    hub.send(request(hub, method, path, body)?).await?.accepted()
}

/// The settings document of what was said.
fn settings(like: Option<&str>, set: &[String]) -> Result<String, Stop> {
    let usage = |text: String| Stop::new(Exit::Usage, text);
    let pairs = set.iter().map(|pair| {
        let (name, value) = pair.split_once('=').ok_or_else(|| usage(format!("--set {pair:?}: write NAME=VALUE")))?;
        Ok((name.trim().to_string(), value.trim().to_string()))
    });
    let pairs: Vec<_> = pairs.collect::<Result<_, Stop>>()?;
    let fields = config::queue_fields(&pairs).map_err(|why| usage(format!("--set {why}")))?;
    Ok(document::write_some(like, &fields))
}

async fn list(hub: &HubClient) -> Result<(), Stop> {
    let mut after = String::new();
    loop {
        let text = ask(hub, Method::GET, &format!("v1/queues?limit={PAGE}{after}"), None).await?;
        let (names, more) = items(&text, "queues")?;
        for name in &names {
            output::line(&format!("{{\"queue\":{}}}", name.get()))?;
        }
        match names.last().filter(|_| more) {
            Some(last) => after = format!("&after={}", in_path(last.get().trim_matches('"'))),
            None => return Ok(()),
        }
    }
}

async fn look(hub: &HubClient, queue: &str, rest: &str, limit: Option<usize>) -> Result<(), Stop> {
    let (mut left, mut skip) = (limit.unwrap_or(usize::MAX), 0);
    while left > 0 {
        let rest = format!("{rest}skip={skip}&limit={}", left.min(PAGE));
        let text = ask(hub, Method::GET, &path(queue, &rest), None).await?;
        let (jobs, more) = items(&text, "jobs")?;
        for job in &jobs {
            output::line(job.get())?;
        }
        if !more || jobs.is_empty() {
            break;
        }
        skip += jobs.len();
        left -= jobs.len();
    }
    Ok(())
}

async fn take(hub: &HubClient, queue: &str, body: Value, wait: f64, ack: bool) -> Result<(), Stop> {
    let request = request(hub, Method::POST, &path(queue, "/take"), Some(body.to_string()))?;
    let wait = Duration::try_from_secs_f64(wait).unwrap_or_default().min(Duration::from_secs(3600));
    let text = hub.send(request.timeout(wait + ANSWER_TIME)).await?.accepted()?;
    let (jobs, _) = items(&text, "jobs")?;
    for job in &jobs {
        output::line(job.get())?;
    }
    let tag = |job: &&RawValue| serde_json::from_str::<Value>(job.get()).map(|job| job["tag"].clone()).ok();
    let tags: Vec<Value> = jobs.iter().filter_map(tag).collect();
    match ack && !tags.is_empty() {
        true => settled(&ask(hub, Method::POST, &path(queue, "/ack"), Some(json!({ "tag": tags }).to_string())).await?),
        false => Ok(()),
    }
}

async fn settle(hub: &HubClient, queue: &str, verb: &str, body: Value) -> Result<(), Stop> {
    let text = ask(hub, Method::POST, &path(queue, &format!("/{verb}")), Some(body.to_string())).await?;
    output::line(&text)?;
    settled(&text)
}

/// Whether all of it was done.
fn settled(text: &str) -> Result<(), Stop> {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    match answer["failed"].as_object() {
        Some(failed) if !failed.is_empty() => {
            let failed: Vec<String> = failed.iter().map(|(tag, why)| format!("{tag}: {}", word(why))).collect();
            Err(Stop::new(Exit::Failed, failed.join("\n")))
        }
        _ => Ok(()),
    }
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The items of an answer as the hub wrote them, and whether there are more.
fn items<'a>(text: &'a str, name: &str) -> Result<(Vec<&'a RawValue>, bool), Stop> {
    let read = || {
        let mut members = Members::read(text.as_bytes(), "the answer", usize::MAX).ok()?;
        let items = serde_json::from_str(members.take(name)?.get()).ok()?;
        Some((items, members.take("more").is_some_and(|more| more.get() == "true")))
    };
    read().ok_or_else(|| Stop::new(Exit::Failed, format!("the answer is not from a hub: {text:.200}")))
}

fn json_of(data: &str) -> Result<String, Stop> {
    let json = document::value(data.as_bytes(), DEPTH)
        .map_err(|problem| Stop::new(Exit::Usage, format!("{}; for plain text say --text", problem.text)))?;
    Ok(json.to_owned())
}

/// What was not said is left out.
fn without_null(mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    value
}

impl Terms {
    fn document(&self, queue: &str, data: &str) -> Result<String, Stop> {
        let members = without_null(json!({
            "queue": queue,
            "name": self.name,
            "priority": self.priority,
            "delay": self.delay,
            "deliver_at": self.deliver_at,
            "group": self.group,
            "dedupe": self.dedupe,
            "dedupe_window": self.dedupe_window,
            "ttl": self.ttl,
            "durability": self.durability,
            "idempotency_key": self.idempotency_key,
        }))
        .to_string();
        let members = members.strip_suffix('}').unwrap_or(&members);
        Ok(match self.text {
            true => format!("{members},\"text\":{}}}", quote(data)),
            false => format!("{members},\"data\":{}}}", json_of(data)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_said_as_in_a_rule_and_sent_as_the_document() {
        let set = |texts: &[&str]| settings(Some("sqs-fifo"), &texts.iter().map(|t| t.to_string()).collect::<Vec<_>>());
        let document = set(&["lease=90s", "ttl=none", "backoff=1s 10s", "start_when=10 or 3 of 7 or 60s"]).unwrap();
        let expected = r#"{"like":"sqs-fifo","lease":90,"backoff":[1,10],"ttl":null,"start_when":{"any":[{"count":10},{"count":3,"min_priority":7},{"oldest":60}],"mode":"gate"}}"#;
        assert_eq!(document, expected);
        for (text, shows) in [("lease", "NAME=VALUE"), ("leese=1s", "did you mean lease?"), ("lease=5", "write \"5s\"")]
        {
            let stop = set(&[text]).unwrap_err();
            assert!(stop.exit == Exit::Usage && stop.text.contains(shows), "{text}: {stop:?}");
        }
    }
}

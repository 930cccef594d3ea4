//! `fanfare publish`: one message from the command line, or one for each line of standard input.

use std::io::BufRead;

use clap::Args;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use super::hub::{Address, Answer, HubClient};
use super::{Exit, Stop, output};
use crate::document::{self, quote};

/// Lines that are read ahead, and those that go in one request: whatever has been read by then, up to these bounds.
const AHEAD: usize = 1_000;
const BATCH: usize = 100;
const BATCH_BYTES: usize = 512 * 1024;
/// Only to tell broken JSON before it is sent; the hub has its own bound.
const DEPTH: usize = 120;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    address: Address,
    /// The topic, then the data: JSON, or "-" to publish each line of standard input
    #[arg(value_names = ["TOPIC", "DATA"], num_args = 0..=2, allow_negative_numbers = true)]
    what: Vec<String>,
    /// Publish to this user's own topic; then only DATA is given
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// The data is plain text, not JSON
    #[arg(long)]
    text: bool,
    /// What kind of message it is
    #[arg(long)]
    name: Option<String>,
    /// A tag; can be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<String>,
    /// How long history keeps it at most, in seconds
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<f64>,
    /// Names what this message replaces
    #[arg(long)]
    key: Option<String>,
    /// The level it must survive: memory, disk or replica
    #[arg(long, value_name = "LEVEL")]
    durability: Option<String>,
    /// The same publish again is stored once; with "-" the number of the line is added
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

pub async fn run(arguments: Arguments) -> Result<(), Stop> {
    let hub = HubClient::new(&arguments.address)?;
    let (frame, data) = frame(&arguments)?;
    if data != "-" {
        let document = frame.document(&data, arguments.idempotency_key.clone())?;
        return output::line(&post(&hub, document).await?.accepted()?);
    }
    publish_lines(&hub, &frame, arguments.idempotency_key.as_deref()).await
}

/// Everything of the document but its data.
struct Frame {
    members: String,
    text: bool,
}

fn frame(arguments: &Arguments) -> Result<(Frame, String), Stop> {
    let usage = |text: &str| Stop::new(Exit::Usage, text);
    let (subject, data) = match (&arguments.user, arguments.what.as_slice()) {
        (None, [topic, data]) => (format!("\"topic\":{}", quote(topic)), data),
        (Some(user), [data]) => (format!("\"user\":{}", quote(user)), data),
        (None, [_]) => return Err(usage("say what to publish: DATA as JSON, or - for one message a line")),
        (None, _) => return Err(usage("say where to publish and what: fanfare publish TOPIC DATA")),
        (Some(_), _) => return Err(usage("with --user only DATA is given: fanfare publish --user ID DATA")),
    };
    let mut members = subject;
    let words = [("name", &arguments.name), ("key", &arguments.key), ("durability", &arguments.durability)];
    for (name, value) in words {
        if let Some(value) = value {
            members.push_str(&format!(",\"{name}\":{}", quote(value)));
        }
    }
    if let Some(ttl) = arguments.ttl {
        members.push_str(&format!(",\"ttl\":{ttl}"));
    }
    let mut tags = Vec::new();
    for tag in &arguments.tags {
        let (name, value) = tag.split_once('=').ok_or_else(|| usage(&format!("--tag {tag:?}: write KEY=VALUE")))?;
        tags.push(format!("{}:{}", quote(name), quote(value)));
    }
    if !tags.is_empty() {
        members.push_str(&format!(",\"tags\":{{{}}}", tags.join(",")));
    }
    Ok((Frame { members, text: arguments.text }, data.clone()))
}

impl Frame {
    fn document(&self, data: &str, idempotency_key: Option<String>) -> Result<String, Stop> {
        let key = idempotency_key.map(|key| format!(",\"idempotency_key\":{}", quote(&key))).unwrap_or_default();
        if self.text {
            return Ok(format!("{{{}{key},\"text\":{}}}", self.members, quote(data)));
        }
        let json = document::value(data.as_bytes(), DEPTH)
            .map_err(|problem| Stop::new(Exit::Usage, format!("{}; for plain text say --text", problem.text)))?;
        Ok(format!("{{{}{key},\"data\":{json}}}", self.members))
    }
}

async fn post(hub: &HubClient, document: String) -> Result<Answer, Stop> {
    let request = hub.request(Method::POST, "v1/messages")?.header("content-type", "application/json");
    hub.send(request.body(document)).await
}

/// Order is kept: a request goes out when the one before it was answered. A bad line is told and passed over.
async fn publish_lines(hub: &HubClient, frame: &Frame, idempotency_key: Option<&str>) -> Result<(), Stop> {
    let (sender, mut lines) = mpsc::channel(AHEAD);
    std::thread::spawn(move || read_lines(&sender));
    let (mut number, mut failed) = (0, false);
    let (mut read, mut batch) = (Vec::new(), Batch::default());
    while lines.recv_many(&mut read, BATCH).await > 0 {
        for line in read.drain(..) {
            let line = line.map_err(|error| Stop::new(Exit::Failed, format!("standard input: {error}")))?;
            number += 1;
            if line.is_empty() && !frame.text {
                continue;
            }
            match frame.document(&line, idempotency_key.map(|key| format!("{key}:{number}"))) {
                Ok(document) => batch.push(number, document),
                Err(stop) => {
                    failed = true;
                    output::notice(&format!("line {number}: {}", stop.text));
                }
            }
            if batch.bytes >= BATCH_BYTES {
                failed |= std::mem::take(&mut batch).send(hub).await?;
            }
        }
        failed |= std::mem::take(&mut batch).send(hub).await?;
    }
    if failed { Err(Stop::new(Exit::Failed, "not every line was published")) } else { Ok(()) }
}

fn read_lines(sender: &mpsc::Sender<std::io::Result<String>>) {
    for line in std::io::stdin().lock().lines() {
        let broken = line.is_err();
        if sender.blocking_send(line).is_err() || broken {
            return;
        }
    }
}

#[derive(Default)]
struct Batch {
    numbers: Vec<usize>,
    documents: Vec<String>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, number: usize, document: String) {
        self.bytes += document.len();
        self.numbers.push(number);
        self.documents.push(document);
    }

    /// Answers whether one was refused.
    async fn send(self, hub: &HubClient) -> Result<bool, Stop> {
        let Some((first, last)) = self.numbers.first().zip(self.numbers.last()) else { return Ok(false) };
        let place = |stop: Stop| match stop.text.is_empty() {
            true => stop,
            false => Stop { text: format!("lines {first} to {last}: {}", stop.text), ..stop },
        };
        let answer = post(hub, format!("[{}]", self.documents.join(","))).await;
        let text = answer.and_then(Answer::accepted).map_err(place)?;
        let results: Value = serde_json::from_str(&text).unwrap_or_default();
        let items = results["items"].as_array().filter(|items| items.len() == self.numbers.len());
        let items = items.ok_or_else(|| place(Stop::new(Exit::Failed, "the answer is not from a hub")))?;
        let mut failed = false;
        for (number, item) in self.numbers.iter().zip(items) {
            match (item["error"].as_str(), item["text"].as_str()) {
                (Some(error), text) => {
                    failed = true;
                    output::notice(&format!("line {number}: {error}: {}", text.unwrap_or_default()));
                }
                _ => output::line(&item.to_string())?,
            }
        }
        Ok(failed)
    }
}

//! `fanfare cursor`: look at cursors of a topic, set one, remove one.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::hub::{Address, HubClient, in_path};
use super::{Exit, Stop, output};

const PAGE: usize = 100;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    address: Address,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the cursors of a topic in the order of their names, one JSON line each
    List {
        #[arg(value_name = "TOPIC")]
        topic: String,
    },
    /// Print where one stands, and how many messages are unread
    Show {
        #[arg(value_name = "TOPIC")]
        topic: String,
        #[arg(value_name = "CURSOR")]
        cursor: String,
    },
    /// Move one forward, or make it
    Set {
        #[arg(value_name = "TOPIC")]
        topic: String,
        #[arg(value_name = "CURSOR")]
        cursor: String,
        /// The position, the `at` of a message
        #[arg(value_name = "AT")]
        at: String,
        /// Allow to move it back
        #[arg(long)]
        rewind: bool,
    },
    /// Remove one
    Delete {
        #[arg(value_name = "TOPIC")]
        topic: String,
        #[arg(value_name = "CURSOR")]
        cursor: String,
    },
}

pub async fn run(arguments: Arguments) -> Result<(), Stop> {
    let hub = HubClient::new(&arguments.address)?;
    match arguments.action {
        Action::List { topic } => list(&hub, &topic).await,
        Action::Show { topic, cursor } => one(&hub, Method::GET, &topic, &cursor, None).await,
        Action::Set { topic, cursor, at, rewind } => {
            one(&hub, Method::PUT, &topic, &cursor, Some(json!({ "at": at, "rewind": rewind }))).await
        }
        Action::Delete { topic, cursor } => one(&hub, Method::DELETE, &topic, &cursor, None).await,
    }
}

async fn one(hub: &HubClient, method: Method, topic: &str, cursor: &str, body: Option<Value>) -> Result<(), Stop> {
    let path = format!("v1/topics/{}/cursors/{}", in_path(topic), in_path(cursor));
    let request = hub.request(method, &path)?;
    let request = match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string()),
        None => request,
    };
    output::line(&hub.send(request).await?.accepted()?)
}

async fn list(hub: &HubClient, topic: &str) -> Result<(), Stop> {
    let mut after = String::new();
    loop {
        let path = format!("v1/topics/{}/cursors?limit={PAGE}{after}", in_path(topic));
        let answer = hub.send(hub.request(Method::GET, &path)?).await?;
        let text = answer.accepted()?;
        let page: Value = serde_json::from_str(&text).unwrap_or_default();
        let Some(items) = page["items"].as_array() else {
            return Err(Stop::new(Exit::Failed, format!("the answer is not from a hub: {text:.200}")));
        };
        for item in items {
            output::line(&item.to_string())?;
        }
        match items.last().and_then(|item| item["cursor"].as_str()).filter(|_| page["more"] == true) {
            Some(last) => after = format!("&after={}", in_path(last)),
            None => return Ok(()),
        }
    }
}

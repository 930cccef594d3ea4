//! `fanfare ingest dead`: look at entries that could not be used, send them back, drop them.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::hub::{Address, HubClient, in_path};
use super::{Exit, Stop, output};

const PAGE: usize = 100;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    address: Address,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print them oldest first, one JSON line each (the same without a word)
    List {
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Send entries back to the end of their source, to be read again
    Retry {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Remove entries for good
    Drop {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

pub async fn run(arguments: Arguments) -> Result<(), Stop> {
    let hub = HubClient::new(&arguments.address)?;
    match arguments.action {
        None => list(&hub, usize::MAX).await,
        Some(Action::List { limit }) => list(&hub, limit.unwrap_or(usize::MAX)).await,
        Some(Action::Retry { ids }) => each(&hub, Method::POST, &ids, "/retry").await,
        Some(Action::Drop { ids }) => each(&hub, Method::DELETE, &ids, "").await,
    }
}

async fn list(hub: &HubClient, limit: usize) -> Result<(), Stop> {
    let (mut left, mut after) = (limit, None::<String>);
    while left > 0 {
        let count = left.min(PAGE);
        let from = after.map(|after| format!("&after={}", in_path(&after))).unwrap_or_default();
        let path = format!("v1/ingest/dead?limit={count}{from}");
        let text = hub.send(hub.request(Method::GET, &path)?).await?.accepted()?;
        let page: Value = serde_json::from_str(&text).unwrap_or_default();
        let Some(items) = page["items"].as_array() else {
            return Err(Stop::new(Exit::Failed, format!("the answer is not from a hub: {text:.200}")));
        };
        for item in items {
            output::line(&item.to_string())?;
        }
        if items.len() < count {
            break;
        }
        left -= items.len();
        after = items.last().and_then(|item| item["id"].as_str()).map(str::to_owned);
    }
    Ok(())
}

/// Goes on after one that is not there; says so at the end.
async fn each(hub: &HubClient, method: Method, ids: &[String], action: &str) -> Result<(), Stop> {
    let mut failed = None;
    for id in ids {
        let path = format!("v1/ingest/dead/{}{action}", in_path(id));
        match hub.send(hub.request(method.clone(), &path)?).await?.accepted() {
            Ok(text) => output::line(&text)?,
            Err(stop) => {
                output::notice(&stop.text);
                failed = Some(Stop::new(stop.exit, ""));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

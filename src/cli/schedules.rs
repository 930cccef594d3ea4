//! `fanfare schedules`: what schedules a hub has, when each ran last and runs next.

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::hub::{Address, HubClient};
use super::{Exit, Stop, output};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    address: Address,
}

/// Prints one JSON line each.
pub async fn run(arguments: Arguments) -> Result<(), Stop> {
    let hub = HubClient::new(&arguments.address)?;
    let text = hub.send(hub.request(Method::GET, "v1/schedules")?).await?.accepted()?;
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    let Some(items) = answer["schedules"].as_array() else {
        return Err(Stop::new(Exit::Failed, format!("the answer is not from a hub: {text:.200}")));
    };
    items.iter().try_for_each(|item| output::line(&item.to_string()))
}

//! `fanfare health`: whether a hub lives, for supervisors and for people. Only 0 and 1, which is what supervisors know.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::hub::{Address, HubClient};
use super::{Exit, Stop, output};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    address: Address,
    /// Also exit 1 while the hub lives but should get no new connections
    #[arg(long)]
    ready: bool,
}

pub async fn run(arguments: Arguments) -> Result<(), Stop> {
    let failed = |stop: Stop| Stop { exit: if stop.exit == Exit::Usage { Exit::Usage } else { Exit::Failed }, ..stop };
    let hub = HubClient::new(&arguments.address)?;
    let alive = hub.send(hub.request(Method::GET, "healthz")?).await.map_err(failed)?;
    alive.accepted().map_err(failed)?;
    let ready = hub.send(hub.request(Method::GET, "readyz")?).await.map_err(failed)?;
    let document: Value = serde_json::from_str(&ready.text).unwrap_or_default();
    let is_ready = ready.status.is_success();
    let mut told = json!({ "alive": true, "ready": is_ready });
    if !is_ready {
        told["trouble"] = document["trouble"].clone();
    }
    output::line(&told.to_string())?;
    match arguments.ready && !is_ready {
        true => Err(Stop::new(Exit::Failed, ready.problem())),
        false => Ok(()),
    }
}

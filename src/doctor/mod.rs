//! Looks at a Redis from outside and says what a store there really guarantees, what waits in its ingest queues, and what
//! to change. It changes nothing itself.

mod judge;
mod look;

use std::time::Duration;

use serde::Serialize;

use crate::domain::message::Durability;
use crate::endpoint::{Chart, Endpoint, Link, Patience, Use};

/// How long everything at one server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be looked at, and what is expected of it.
#[derive(Debug, Clone)]
pub struct Question {
    pub prefix: String,
    /// The streams and lists that publishers write to.
    pub queues: Vec<String>,
    /// The level that a hub is to give by default.
    pub durability: Option<Durability>,
    /// Replicas that the level `replica` needs.
    pub replicas: usize,
    /// What the operator says of `appendfsync`, for a server that does not tell it.
    pub fsync: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub store: String,
    pub servers: Vec<Server>,
    pub levels: Vec<Level>,
    pub findings: Vec<Finding>,
}

/// One master.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Server {
    pub address: String,
    pub version: String,
    pub role: String,
    pub life: String,
    pub appendonly: bool,
    /// Nothing where the server does not tell its settings.
    pub appendfsync: Option<String>,
    pub replicas_in_step: usize,
    pub min_replicas_to_write: Option<u64>,
    pub min_replicas_max_lag: Option<u64>,
    pub maxmemory: u64,
    pub used_memory: u64,
    pub maxmemory_policy: String,
    /// Whether its last writes to disk failed.
    pub disk_trouble: bool,
    /// The quickest of several answers.
    pub round_trip_ms: f64,
    /// By how much its clock is before ours.
    pub clock_ahead_ms: i64,
    /// Whether a hub has opened a store here.
    pub is_opened: bool,
    pub queues: Vec<Queue>,
    pub is_cluster: bool,
    pub has_waitaof: bool,
}

/// One ingest queue.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Queue {
    pub name: String,
    pub waiting: u64,
    pub dead_letters: u64,
    /// Which node works on it, and for how long its lease lasts.
    pub owner: Option<String>,
    pub lease_ms: i64,
}

/// What a level of acknowledgement means here.
#[derive(Debug, Clone, Serialize)]
pub struct Level {
    pub level: &'static str,
    pub given: bool,
    pub text: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Something is wrong; else it is advice.
    pub wrong: bool,
    pub server: String,
    pub text: String,
    /// The lines that change it.
    pub change: Vec<String>,
}

impl Report {
    pub fn is_well(&self) -> bool {
        !self.findings.iter().any(|finding| finding.wrong)
    }
}

/// Looks at a Redis. The error says why it could not be looked at; it never shows a password.
pub async fn examine(url: &str, question: &Question) -> Result<Report, String> {
    let endpoint = Endpoint::parse(url)?;
    let patience = Patience { connect: PATIENCE, response: PATIENCE };
    let mut links: Vec<(String, Link)> = Vec::new();
    if endpoint.seeds().is_some() {
        let chart = Chart::open(endpoint.clone(), patience).await?;
        for place in chart.slots().masters() {
            links.push((place.to_string(), endpoint.connect_to(place, Use::commands(), patience).await?));
        }
    } else {
        links.push((endpoint.shown(), endpoint.connect(Use::commands(), patience).await?));
    }
    let mut servers = Vec::new();
    for (address, mut link) in links {
        let looking = tokio::time::timeout(PATIENCE, look::at(&mut link, address.clone(), question)).await;
        servers.push(looking.map_err(|_| format!("{address}: no answer within {PATIENCE:?}"))??);
    }
    let findings = judge::findings(&servers, question, endpoint.has_sentinels());
    let levels = judge::levels(&servers, question);
    Ok(Report { store: endpoint.shown(), servers, levels, findings })
}

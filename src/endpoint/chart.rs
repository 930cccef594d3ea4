//! The chart of a cluster: who serves which slot, asked again when somebody doubts it, and now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use redis::Value;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::slots::{Slots, View};
use super::{Endpoint, Patience, Place, Use};

/// How often it is asked without a reason.
const EVERY: Duration = Duration::from_secs(10);
/// Between two looks, however much it is doubted.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a server may take to answer; the others have answered long before.
const ANSWER: Duration = Duration::from_millis(500);
/// Servers asked at a time.
const ASKED: usize = 32;

/// Clones are the same chart. The looking ends with the last of them.
#[derive(Clone)]
pub struct Chart {
    slots: watch::Receiver<Arc<Slots>>,
    doubt: Arc<Notify>,
    _looking: Arc<Looking>,
}

struct Looking(AbortHandle);

impl Chart {
    /// Asks the seeds, and begins to look after it.
    pub async fn open(endpoint: Endpoint, patience: Patience) -> Result<Chart, String> {
        let first = match timeout(patience.connect, look(&endpoint, &Slots::default(), patience)).await {
            Ok(slots) => slots?,
            Err(_) => return Err(format!("{}: no answer within {:?}", endpoint.shown(), patience.connect)),
        };
        let (sender, slots) = watch::channel(Arc::new(first));
        let doubt = Arc::new(Notify::new());
        let looking = tokio::spawn(keep(endpoint, patience, sender, doubt.clone())).abort_handle();
        Ok(Chart { slots, doubt, _looking: Arc::new(Looking(looking)) })
    }

    pub fn slots(&self) -> Arc<Slots> {
        self.slots.borrow().clone()
    }

    /// It may be out of date: look again soon.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until it has been looked at again, whether something changed or not.
    pub async fn looked(&mut self) {
        if self.slots.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep(endpoint: Endpoint, patience: Patience, sender: watch::Sender<Arc<Slots>>, doubt: Arc<Notify>) {
    loop {
        let last = Instant::now();
        let _ = timeout(EVERY, doubt.notified()).await;
        sleep_until(last + PAUSE).await;
        let known = sender.borrow().clone();
        match look(&endpoint, &known, patience).await {
            Ok(slots) => {
                if slots != *known {
                    tracing::info!(masters = slots.masters().len(), uncovered = slots.uncovered(), "the slots moved");
                }
                sender.send_replace(Arc::new(slots));
            }
            Err(why) => tracing::warn!(%why, "no server of the cluster tells who serves what"),
        }
    }
}

/// Asks the seeds and all servers that are known, masters first: where there are more than are asked, their word counts most.
async fn look(endpoint: &Endpoint, known: &Slots, patience: Patience) -> Result<Slots, String> {
    let mut seen = BTreeSet::new();
    let servers = endpoint.seeds().unwrap_or_default().iter().chain(known.masters()).chain(known.servers());
    let asking = servers.filter(|place| seen.insert(*place)).take(ASKED).map(|place| async move {
        let within = patience.connect.min(ANSWER);
        let told = timeout(within, ask(endpoint, place, patience)).await;
        told.unwrap_or_else(|_| Err(format!("{place}: no answer within {within:?}")))
    });
    let (mut views, mut complaints) = (Vec::new(), Vec::new());
    for answer in join_all(asking).await {
        match answer {
            Ok(view) => views.push(view),
            Err(why) => complaints.push(why),
        }
    }
    if !views.iter().any(View::has_slots) {
        complaints.push("no server has slots".into());
        return Err(complaints.join("; "));
    }
    Ok(Slots::merge(known, &views))
}

async fn ask(endpoint: &Endpoint, place: &Place, patience: Patience) -> Result<View, String> {
    let mut link = endpoint.connect_to(place, Use::commands(), patience).await?;
    let mut nodes = redis::cmd("CLUSTER");
    nodes.arg("NODES");
    match link.connection.send_packed_command(&nodes).await.map_err(|error| format!("{place}: {error}"))? {
        Value::BulkString(bytes) => Ok(View::parse(&String::from_utf8_lossy(&bytes), place)),
        Value::ServerError(error) => Err(format!("{place} is no server of a cluster: {error}")),
        _ => Err(format!("{place}: CLUSTER NODES is not answered")),
    }
}

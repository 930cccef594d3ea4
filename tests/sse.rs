//! Event streams (`GET /v1/sse`): the same promises as a WebSocket's, through HTTP alone.

#[path = "support/events.rs"]
mod events;
#[path = "support/hub.rs"]
mod hub;

#[path = "sse/cuts.rs"]
mod cuts;
#[path = "sse/doors.rs"]
mod doors;
#[path = "sse/slow.rs"]
mod slow;
#[path = "sse/streams.rs"]
mod streams;

use fanfare::server::Server;

/// A metric of this hub, of all its labels together. The metrics belong to the process.
pub async fn metric(server: &Server, name: &str) -> f64 {
    let url = format!("http://{}/metrics", server.admin.unwrap());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|l| l.starts_with(name));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

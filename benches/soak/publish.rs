//! The publishers: some post, some write to the door with a Redis client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::hub::Hub;

const POSTING: usize = 16;
const WRITING: usize = 8;
/// A busy disk may take long; the client's own default is half a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of text in each message.
const TEXT: usize = 120;

#[derive(Default)]
pub struct Published {
    pub by_http: AtomicU64,
    pub by_door: AtomicU64,
    pub failed: AtomicU64,
}

impl Published {
    pub fn all(&self) -> u64 {
        self.by_http.load(Ordering::Relaxed) + self.by_door.load(Ordering::Relaxed)
    }
}

/// Publishes as fast as answers come; gives how many a second.
pub async fn as_fast_as_answered(hub: &Hub, topics: &[String], time: Duration) -> f64 {
    let begun = Instant::now();
    let published = start(hub, topics, None, begun + time).await.expect("publishers end by themselves");
    published.all() as f64 / begun.elapsed().as_secs_f64()
}

/// Publishes so many a second until `end`.
pub fn at(hub: &Hub, topics: &[String], rate: f64, end: Instant) -> JoinHandle<Arc<Published>> {
    start(hub, topics, Some(rate / (POSTING + WRITING) as f64), end)
}

fn start(hub: &Hub, topics: &[String], rate: Option<f64>, end: Instant) -> JoinHandle<Arc<Published>> {
    let published = Arc::<Published>::default();
    let (http, door) = (hub.http, hub.door);
    let mut tasks = Vec::new();
    for n in 0..POSTING {
        let (published, topics) = (published.clone(), topics.to_vec());
        tasks.push(tokio::spawn(async move {
            let client = reqwest::Client::new();
            paced(rate, end, |i| {
                let url = format!("http://{http}/v1/topics/{}/messages", topics[(n + i) % topics.len()]);
                let request = client.post(url).header("content-type", "application/json").body(data(n, i));
                let published = published.clone();
                async move {
                    let done = request.send().await.is_ok_and(|answer| answer.status() == 201);
                    let counter = if done { &published.by_http } else { &published.failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
        }));
    }
    for n in POSTING..POSTING + WRITING {
        let (published, topics) = (published.clone(), topics.to_vec());
        tasks.push(tokio::spawn(async move {
            let client = redis::Client::open(format!("redis://{door}")).expect("a URL");
            let patience = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
            let connection = client.get_multiplexed_async_connection_with_config(&patience).await;
            let connection = connection.expect("the door is open");
            paced(rate, end, |i| {
                let (mut connection, published) = (connection.clone(), published.clone());
                let mut command = redis::cmd("XADD");
                command.arg("fanfare:in").arg("*").arg("topic").arg(&topics[(n + i) % topics.len()]);
                command.arg("data").arg(data(n, i));
                async move {
                    let answer = command.query_async::<String>(&mut connection).await;
                    let counter = if answer.is_ok() { &published.by_door } else { &published.failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
        }));
    }
    tokio::spawn(async move {
        for task in tasks {
            task.await.expect("a publisher ends by itself");
        }
        published
    })
}

/// Does one thing after the other until `end`; what is late is made up for.
async fn paced<F: Future<Output = ()>>(rate: Option<f64>, end: Instant, publish: impl Fn(usize) -> F) {
    let begun = Instant::now();
    for i in 0.. {
        if Instant::now() >= end {
            return;
        }
        if let Some(rate) = rate {
            let due = begun + Duration::from_secs_f64(i as f64 / rate);
            tokio::time::sleep_until(due.min(end).into()).await;
        }
        publish(i).await;
    }
}

fn data(publisher: usize, i: usize) -> String {
    format!(
        "{{\"from\":{publisher},\"n\":{i},\"text\":\"{}\"}}",
        "첫 메시지가 도착했습니다 ".chars().cycle().take(TEXT / 3).collect::<String>()
    )
}

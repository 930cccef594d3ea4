//! Publishers at three doors, one message after the other: each awaits its answer and writes down what it was told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fanfare::domain::position::Position;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::history::{Answer, Mark, Publish};
use crate::listener::Socket;
use crate::node::client;

/// One message in this time.
const PACE: Duration = Duration::from_millis(40);
/// How long the Redis client waits.
const REDIS: Duration = Duration::from_secs(2);
/// How long it waits for many answers at once.
const BURST: Duration = Duration::from_secs(20);

/// A way to publish one message.
pub enum Door {
    Http(reqwest::Client, SocketAddr),
    WebSocket(Box<Socket>),
    /// Straight into the queue; connects anew after a failure.
    Xadd(redis::Client, Option<redis::aio::MultiplexedConnection>),
}

impl Door {
    pub fn http(node: SocketAddr) -> Door {
        Door::Http(client(), node)
    }

    pub async fn websocket(node: SocketAddr) -> Door {
        let (mut socket, _) = connect_async(format!("ws://{node}/ws")).await.expect("the node runs");
        assert!(next_frame(&mut socket).await["hello"].is_string());
        Door::WebSocket(Box::new(socket))
    }

    pub fn xadd(url: &str) -> Door {
        Door::Xadd(redis::Client::open(url).expect("a URL"), None)
    }

    async fn publish(&mut self, topic: &str, mark: &Mark) -> Answer {
        match self {
            Door::Http(client, node) => {
                let request = client.post(format!("http://{node}/v1/topics/{topic}/messages")).json(&mark.to_string());
                let answer = request.send().await.expect("the node answers, whatever happens to the store");
                let (status, retry) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
                let body: Value = answer.json().await.expect("JSON");
                match (status, body["reason"].as_str()) {
                    (201, _) => Answer::Yes(Some(position(&body["stored"]))),
                    (503, Some("unavailable")) if retry => Answer::No,
                    (503, Some("unconfirmed")) if retry => Answer::Unknown,
                    _ => panic!("{status}, Retry-After: {retry}: {body}"),
                }
            }
            Door::WebSocket(socket) => {
                let frame = json!({ "id": mark.n, "pub": topic, "data": mark.to_string() });
                socket.send(Message::text(frame.to_string())).await.expect("the socket stays");
                let answer = next_frame(socket).await;
                assert_eq!(answer["id"], mark.n, "{answer}");
                match (answer["ok"].as_str(), answer["error"].as_str()) {
                    (Some("pub"), _) => Answer::Yes(Some(position(&answer["stored"]))),
                    (_, Some("unavailable")) if answer["retry_after"].is_number() => Answer::No,
                    (_, Some("unconfirmed")) if answer["retry_after"].is_number() => Answer::Unknown,
                    _ => panic!("{answer}"),
                }
            }
            Door::Xadd(client, connection) => {
                let mut fresh = match connection.take() {
                    Some(connection) => connection,
                    None => {
                        let config = redis::AsyncConnectionConfig::new()
                            .set_connection_timeout(Some(REDIS))
                            .set_response_timeout(Some(REDIS));
                        match client.get_multiplexed_async_connection_with_config(&config).await {
                            Ok(connection) => connection,
                            Err(_) => return Answer::No,
                        }
                    }
                };
                let mut command = redis::cmd("XADD");
                command.arg("fanfare:in").arg("*").arg("topic").arg(topic).arg("data").arg(format!("\"{mark}\""));
                match command.exec_async(&mut fresh).await {
                    Ok(()) => {
                        *connection = Some(fresh);
                        Answer::Yes(None)
                    }
                    Err(_) => Answer::Unknown,
                }
            }
        }
    }

    /// So many entries into the queue at once: when this returns they wait to be bridged.
    pub async fn burst(url: &str, by: &str, topics: &[String], count: u64) -> Vec<Publish> {
        let client = redis::Client::open(url).expect("a URL");
        // A machine with other work may let us wait.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(BURST));
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.expect("Redis runs");
        let (mut pipeline, mut published) = (redis::pipe(), Vec::new());
        for n in 0..count {
            let (topic, mark) = (topics[n as usize % topics.len()].clone(), Mark::new(by, n));
            pipeline.cmd("XADD").arg("fanfare:in").arg("*").arg("topic").arg(&topic);
            pipeline.arg("data").arg(format!("\"{mark}\""));
            published.push(Publish { topic, mark, answer: Answer::Yes(None), asked: Instant::now() });
        }
        pipeline.exec_async(&mut connection).await.expect("Redis runs");
        published
    }

    /// One message to each topic.
    pub async fn probe(mut self, by: &str, topics: &[String]) -> Vec<Publish> {
        let mut published = Vec::new();
        for (n, topic) in topics.iter().enumerate() {
            let (mark, asked) = (Mark::new(by, n as u64), Instant::now());
            let answer = self.publish(topic, &mark).await;
            assert!(matches!(answer, Answer::Yes(_)), "{mark}: {answer:?}");
            published.push(Publish { topic: topic.clone(), mark, answer, asked });
        }
        published
    }
}

async fn next_frame(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).expect("JSON"),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("a publisher's socket must stay: {other:?}"),
        }
    }
}

fn position(value: &Value) -> Position {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("a position: {value}"))
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub yes: u64,
    pub no: u64,
    pub unknown: u64,
    pub slowest: Duration,
}

/// A publisher that goes on until it is stopped.
pub struct Publisher {
    pub name: &'static str,
    pub tally: watch::Receiver<Tally>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Publish>>,
}

impl Publisher {
    pub fn start(name: &'static str, mut door: Door, topics: Vec<String>) -> Publisher {
        let (stop, stopped) = watch::channel(false);
        let (sender, tally) = watch::channel(Tally::default());
        let task = tokio::spawn(async move {
            let mut published = Vec::new();
            let mut tick = tokio::time::interval(PACE);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for n in 0.. {
                tick.tick().await;
                if *stopped.borrow() {
                    break;
                }
                let (topic, mark, asked) = (&topics[n as usize % topics.len()], Mark::new(name, n), Instant::now());
                let answer = door.publish(topic, &mark).await;
                sender.send_modify(|tally| {
                    match answer {
                        Answer::Yes(_) => tally.yes += 1,
                        Answer::No => tally.no += 1,
                        Answer::Unknown => tally.unknown += 1,
                    }
                    tally.slowest = tally.slowest.max(asked.elapsed());
                });
                published.push(Publish { topic: topic.clone(), mark, answer, asked });
            }
            published
        });
        Publisher { name, tally, stop, task }
    }

    /// Waits until so many more messages were acknowledged.
    pub async fn until_more(&mut self, more: u64, patience: Duration) {
        let enough = self.tally.borrow().yes + more;
        let waiting = self.tally.wait_for(|tally| tally.yes >= enough);
        let has_more = matches!(tokio::time::timeout(patience, waiting).await, Ok(Ok(_)));
        assert!(has_more, "{} gets no yes within {patience:?}: {:?}", self.name, self.tally());
    }

    pub fn tally(&self) -> Tally {
        *self.tally.borrow()
    }

    pub async fn stop(self) -> Vec<Publish> {
        self.stop.send_replace(true);
        self.task.await.expect("a publisher gets answers that it understands")
    }
}
